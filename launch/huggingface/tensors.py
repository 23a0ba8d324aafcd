"""How tensors of ours stand in a Hugging Face file: entries that read and write, so that import and
export are one table.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Entry(NamedTuple):
    """Tensors that belong together: `ours` are paths into {"params": ..., "buffers": ...} of the
    unrolled model, `theirs` names in the file. read(their arrays, our shapes) -> our arrays;
    write(our arrays) -> their arrays. Both move numbers and compute none: they are called with
    arrays of any dtype.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable
    write: Callable


def plain(ours: str, theirs: str) -> Entry:
    """The same array."""
    return Entry((ours,), (theirs,), lambda a, shapes: a, lambda a: a)


def vector(ours: str, theirs: str) -> Entry:
    """The same numbers, flat in the file."""
    return Entry(
        (ours,),
        (theirs,),
        lambda a, shapes: [a[0].reshape(shapes[0])],
        lambda a: [a[0].reshape(-1)],
    )


def linear(ours: str, theirs: str, inputs: int = 1) -> Entry:
    """torch's Linear, (out, in); the first `inputs` axes of ours are the inputs."""

    def flat(a):
        return a.reshape(int(np.prod(a.shape[:inputs])), -1)

    return Entry(
        (ours,), (theirs,), lambda a, shapes: [a[0].T.reshape(shapes[0])], lambda a: [flat(a[0]).T]
    )


def conv1d(ours: str, theirs: str, inputs: int = 1) -> Entry:
    """GPT-2's Conv1D, (in, out)."""

    def flat(a):
        return a.reshape(int(np.prod(a.shape[:inputs])), -1)

    return Entry(
        (ours,), (theirs,), lambda a, shapes: [a[0].reshape(shapes[0])], lambda a: [flat(a[0])]
    )


def stacked(ours: str, theirs: list[str]) -> Entry:
    """One Linear per expert; ours is (E, in, out)."""
    return Entry(
        (ours,),
        tuple(theirs),
        lambda a, shapes: [np.stack([x.T for x in a])],
        lambda a: [x.T for x in a[0]],
    )


def fused(ours: list[str], theirs: str, axis: int, transposed: bool) -> Entry:
    """Several of ours one after the other along `axis` of one array of theirs; `transposed`: theirs
    is (out, in), ours (in, out ...).
    """

    def read(a, shapes):
        whole = a[0].T if transposed else a[0]
        widths = [int(np.prod(s[axis:])) for s in shapes]
        return [
            part.reshape(s) for part, s in zip(np.split(whole, np.cumsum(widths)[:-1], -1), shapes)
        ]

    def write(a):
        whole = np.concatenate([x.reshape(*x.shape[:axis], -1) for x in a], -1)
        return [whole.T if transposed else whole]

    return Entry(tuple(ours), (theirs,), read, write)


def by_head(ours: list[str], theirs: str, heads: int, inputs: int = 1) -> Entry:
    """Several of ours in one matrix of theirs, group by group along the output axis: of the first
    of `heads` all that is its own, then of the second. Ours have `inputs` axes before the heads, or
    before several heads of each group: 1 for a matrix, 0 for a bias.
    """

    def read(a, shapes):
        whole = a[0].T.reshape(*shapes[0][:inputs], heads, -1)
        widths = [int(np.prod(s[inputs:])) // heads for s in shapes]
        parts = np.split(whole, np.cumsum(widths)[:-1], -1)
        return [part.reshape(s) for part, s in zip(parts, shapes)]

    def write(a):
        parts = [x.reshape(*x.shape[:inputs], heads, -1) for x in a]
        whole = np.concatenate(parts, -1)
        return [whole.reshape(*whole.shape[:inputs], -1).T]

    return Entry(tuple(ours), (theirs,), read, write)


def depthwise(ours: list[str], theirs: str) -> Entry:
    """A short convolution of every channel by itself, torch's Conv1d (channels, 1, width); ours are
    (width, channels ...), of several one after the other.
    """

    def read(a, shapes):
        widths = [int(np.prod(s[1:])) for s in shapes]
        parts = np.split(a[0][:, 0].T, np.cumsum(widths)[:-1], 1)
        return [part.reshape(s) for part, s in zip(parts, shapes)]

    def write(a):
        return [np.concatenate([x.reshape(x.shape[0], -1) for x in a], 1).T[:, None]]

    return Entry(tuple(ours), (theirs,), read, write)


def rows(ours: str, theirs: list[str]) -> Entry:
    """An array of theirs, (1, 1, D), for each row of ours."""
    return Entry(
        (ours,),
        tuple(theirs),
        lambda a, shapes: [np.stack([x.reshape(-1) for x in a])],
        lambda a: [row[None, None] for row in a[0]],
    )


def norm(ours: str, theirs: str, bias: bool) -> list[Entry]:
    """Scale, and bias where the norm has one."""
    out = [plain(f"params/{ours}/scale", f"{theirs}.weight")]
    return out + [plain(f"params/{ours}/bias", f"{theirs}.bias")] if bias else out


def projection(
    ours: str, theirs: str, inputs: int = 1, bias: bool = False, kind: Callable = linear
) -> list[Entry]:
    """A matrix, and its bias where there is one."""
    out = [kind(f"params/{ours}/kernel", f"{theirs}.weight", inputs)]
    return out + [vector(f"params/{ours}/bias", f"{theirs}.bias")] if bias else out
