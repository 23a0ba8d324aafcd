"""Parameters: declared once with their logical axes and their initial spread, born on the host.

A jitted random init costs one to two seconds of compilation per shape on CPU, and its draws depend
on the tree's layout. Here every leaf is drawn by numpy from a counter-based generator keyed by
(seed, name of the leaf, repetition of the layer pattern): the same values whether layers are
scanned or unrolled, on any mesh, in any process.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from model.config import SCALARS
from model.xla_cpu import product


@struct.dataclass
class Parameter(nn.LogicallyPartitioned):
    """A parameter with its logical axes (`names`) and the normal distribution it starts from, or
    another start (model/starts.py).
    """

    mean: float = struct.field(default=0.0, pytree_node=False)
    std: float = struct.field(default=0.0, pytree_node=False)
    start: Any = struct.field(default=None, pytree_node=False)
    # of a matrix: axes of its inputs, axes of its outputs, both counted from the end
    matrix: Any = struct.field(default=None, pytree_node=False)

    def drawn(self, rng: np.random.Generator, shape):
        """Initial values, float32 of numpy."""
        if self.start:
            return np.asarray(self.start(rng, shape), np.float32)
        if self.std:
            return self.mean + np.float32(self.std) * rng.standard_normal(shape, np.float32)
        return np.full(shape, self.mean, np.float32)


MATRIX = ((-2,), (-1,))  # inputs, then outputs


def declare(
    module: nn.Module,
    name: str,
    shape,
    axes,
    std: float = 0.0,
    mean: float = 0.0,
    start=None,
    matrix=None,
):
    """Declares parameter `name` of `shape` with logical `axes`, drawn from N(mean, std^2), or by
    `start`; a `matrix` says which axes are its inputs and outputs. Returns the float32 array.
    """

    def init(key, shape):
        value = (
            jnp.asarray(start(np.random.default_rng(0), shape), jnp.float32)
            if start
            else mean + std * jax.random.normal(key, shape, jnp.float32)
        )
        return Parameter(value, tuple(axes), mean=mean, std=std, start=start, matrix=matrix)

    return module.param(name, init, tuple(shape))


def at_use(tree: dict, dtype: str) -> dict:
    """The parameters as the model multiplies by them, for whoever calls it many times: in `dtype`,
    but norms, the router, SCALARS and what a mixer declares itself, which stay as they are. The
    model's results do not change.
    """

    def one(path, a):
        names = [str(p.key) for p in path]
        kept = any(n in ("router", "router_bias", *SCALARS) or n.startswith("norm") for n in names)
        kept = kept or names[-2:-1] == ["mixer"]
        return a if kept else jnp.asarray(a, dtype)

    return jax.tree_util.tree_map_with_path(one, tree)


def matrix_of(eq: str, stacked: str = "") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes of the kernel of ``einsum(eq, x, kernel)``, counted from the end, that are summed over,
    and that it adds. Those that `x` and the result share too number matrices, as do `stacked` ones.
    """
    operands, result = eq.split("->")
    x, w = operands.split(",")
    axes = [(i - len(w), letter) for i, letter in enumerate(w) if letter not in stacked]
    rows = tuple(i for i, letter in axes if letter in x and letter not in result)
    return rows, tuple(i for i, letter in axes if letter not in x)


class Einsum(nn.Module):
    """``einsum(eq, x, kernel)`` with its own kernel; `fan_in` sets the initial spread gain /
    sqrt(fan_in). A bias, where asked for, is added over the kernel's axes that the result keeps.
    `stacked`: letters of axes that number matrices, such as the gates of a cell.
    """

    eq: str
    shape: tuple
    axes: tuple
    fan_in: int
    gain: float = 1.0
    dtype: str = "float32"
    bias: bool = False
    stacked: str = ""

    @nn.compact
    def __call__(self, x):
        std, sides = self.gain * self.fan_in**-0.5, matrix_of(self.eq, self.stacked)
        w = declare(self, "kernel", self.shape, self.axes, std, matrix=sides)
        y = product(self.eq, x, w.astype(self.dtype))
        if not self.bias:
            return y
        operands, result = self.eq.split("->")
        kept = [i for i, letter in enumerate(operands.split(",")[1]) if letter in result]
        b = declare(self, "bias", [self.shape[i] for i in kept], [self.axes[i] for i in kept], 0.0)
        return y + b.astype(self.dtype)


class Kernel(nn.Module):
    """A matrix by itself, for whoever multiplies by it in parts."""

    shape: tuple
    axes: tuple
    std: float

    @nn.compact
    def __call__(self):
        return declare(self, "kernel", self.shape, self.axes, self.std, matrix=MATRIX)


def is_parameter(x):
    return isinstance(x, Parameter)


def draws(path, box, seed: int):
    """Yields (None, the leaf) or, for a leaf of scanned layers, (layer, its slice) one after the
    other, as float32 numpy arrays.
    """
    parts = [str(p.key) for p in path if hasattr(p, "key")]
    shape, scanned = box.value.shape, parts[0] == "groups"
    first = 0
    if parts[0].startswith("group_"):
        first = int(parts[0].removeprefix("group_"))
    name = zlib.crc32(
        "/".join(
            ["group", *parts[1:]] if scanned or parts[0].startswith("group_") else parts
        ).encode()
    )
    for i in range(shape[0] if scanned else 1):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, name, first + i])))
        yield (i if scanned else None), box.drawn(rng, shape[1:] if scanned else shape)


def initial(boxed, seed: int):
    """Initial values of a tree of abstract `Parameter`s (from ``jax.eval_shape(module.init,
    ...)``), as numpy arrays.
    """

    def leaf(path, box):
        drawn = list(draws(path, box, seed))
        return drawn[0][1] if drawn[0][0] is None else np.stack([a for _, a in drawn])

    return jax.tree_util.tree_map_with_path(leaf, boxed, is_leaf=is_parameter)


def unrolled(tree: dict) -> dict:
    """A tree of scanned layers (`groups`, with a leading axis) as one of unrolled layers
    (`group_0`, ...); others as they are.
    """
    if "groups" not in tree:
        return tree
    count = jax.tree.leaves(tree["groups"])[0].shape[0]
    groups = {f"group_{g}": jax.tree.map(lambda a, g=g: a[g], tree["groups"]) for g in range(count)}
    return {**{k: v for k, v in tree.items() if k != "groups"}, **groups}


def scanned(tree: dict) -> dict:
    """The inverse of `unrolled`."""
    names = sorted(
        (k for k in tree if k.startswith("group_")), key=lambda k: int(k.removeprefix("group_"))
    )
    if not names:
        return tree
    groups = jax.tree.map(lambda *a: np.stack(a), *(tree[k] for k in names))
    return {**{k: v for k, v in tree.items() if k not in names}, "groups": groups}
