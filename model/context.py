"""Where the tokens of a call stand: what attention may see, and where a cache is written.

Training passes no context: tokens stand at 0 .. T-1 and see what is before them. Prefill and decode
are the same module call with a context: every row has its own positions (rows of unequal length are
padded on the left, at negative positions), and keys and values are kept in the Flax collection
"cache", in `slots` shared by all rows.

Where documents are kept apart, training has a context too, which is read off the tokens: positions
begin anew with every document, and each token and key has the number of its document.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


@flax.struct.dataclass
class Context:
    """at: positions of the tokens of this call, (B, T) or (T,). keys: positions of what may be
    attended to, (B, J) or (J,); negative is nothing. slot: where in the cache this call's keys are
    written; None without a cache. document_BT, document_BJ: the document that each token and each
    key belongs to, counted from the window's first; None where documents are joined.
    """

    at: jax.Array | np.ndarray
    keys: jax.Array | np.ndarray
    slot: jax.Array | None = None
    document_BT: jax.Array | None = None
    document_BJ: jax.Array | None = None


class Separator(NamedTuple):
    """What tells documents apart: a token that is the last of each, or the first."""

    id: int
    first: bool = False


def plain(length: int) -> Context:
    """Tokens at 0 .. length-1 without a cache. The positions are numpy's: tables over them are
    constants of the program.
    """
    at = np.arange(length)
    return Context(at, at)


def apart(tokens_BT, separator: Separator) -> Context:
    """The documents of every window, each at 0, 1, .. by itself. A separator belongs to the
    document before it, or where it is the first of each to the one after it.
    """
    start_BT = tokens_BT == separator.id
    if not separator.first:
        start_BT = jnp.roll(start_BT, 1, 1)
    place_T = jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)
    start_BT &= place_T > 0  # the window's first document is number 0
    at_BT = place_T - jax.lax.cummax(jnp.where(start_BT, place_T, 0), 1)
    document_BT = jnp.cumsum(start_BT, 1, dtype=jnp.int32)
    return Context(at_BT, at_BT, None, document_BT, document_BT)


def part(ctx: Context, rows: slice, queries: slice, keys: slice) -> Context:
    """Some rows, tokens and keys of a context that `apart` made."""
    assert ctx.document_BT is not None and ctx.document_BJ is not None
    return Context(
        ctx.at[rows, queries],
        ctx.keys[rows, keys],
        None,
        ctx.document_BT[rows, queries],
        ctx.document_BJ[rows, keys],
    )


def on_device(at):
    """`at` as an array of the program: numpy's consecutive positions are made there, not shipped as
    a constant.
    """
    return jnp.arange(at[0], at[0] + at.size) if isinstance(at, np.ndarray) else at


def visible(window: int, ctx: Context, turned: bool = False):
    """Which keys each token may see: bool (T, J) or (B, T, J), `turned` (J, T) or (B, J, T)."""
    q, k = on_device(ctx.at)[..., :, None], on_device(ctx.keys)[..., None, :]
    if turned:
        q, k = q.swapaxes(-1, -2), k.swapaxes(-1, -2)
    seen = q >= k
    if window:
        seen &= q - k < window
    if ctx.slot is not None:
        seen &= k >= 0
    if ctx.document_BT is not None:
        assert ctx.document_BJ is not None
        same_BTJ = ctx.document_BT[:, :, None] == ctx.document_BJ[:, None]
        seen &= same_BTJ.swapaxes(1, 2) if turned else same_BTJ
    return seen


def remember(module: nn.Module, name: str, new_BT, ctx: Context):
    """`new_BT` itself without a cache; with one, it is written at `ctx.slot` and everything kept so
    far returned, (B, J, ...).
    """
    if ctx.slot is None:
        return new_BT
    shape = (new_BT.shape[0], ctx.keys.shape[1], *new_BT.shape[2:])
    kept = module.variable("cache", f"kept_{name}", jnp.zeros, shape, new_BT.dtype)
    kept.value = jax.lax.dynamic_update_slice_in_dim(kept.value, new_BT, ctx.slot, 1)
    return kept.value


def real(a_BT, ctx: Context):
    """`a_BT` (B, T, ...) with zeros where a row is padded: what a recurrence takes in there leaves
    its state at zero.
    """
    if ctx.slot is None:
        return a_BT
    return jnp.where((ctx.at >= 0).reshape(*ctx.at.shape, *[1] * (a_BT.ndim - 2)), a_BT, 0)


def own(a_BT, lag: int, ctx: Context):
    """`a_BT` (B, T, ...), which stood `lag` tokens before each token, with zeros where that was
    another document.
    """
    if ctx.document_BT is None:
        return a_BT
    return jnp.where((ctx.at >= lag).reshape(*ctx.at.shape, *[1] * (a_BT.ndim - 2)), a_BT, 0)


def going_on(ctx: Context):
    """Whether a state goes on at each token: False at the first of a document, (B, T); None where
    documents are joined.
    """
    return None if ctx.document_BT is None else ctx.at > 0


def kept(state, going_B):
    """`state`, a tree of (B, ...), with zeros where a document begins; all of it where joined."""
    if going_B is None:
        return state
    return jax.tree.map(lambda a: jnp.where(going_B.reshape(-1, *[1] * (a.ndim - 1)), a, 0), state)


def carry(module: nn.Module, name: str, shape, dtype, ctx: Context, make: Callable):
    """The result of `make(state) -> (result, next state)`, for a state of a sequence that starts
    at zero. With a cache the state is kept, in float32 at least.
    """
    dtype = jnp.promote_types(dtype, jnp.float32)
    if ctx.slot is None:
        return make(jnp.zeros(shape, dtype))[0]
    kept = module.variable("cache", f"state_{name}", jnp.zeros, shape, dtype)
    result, kept.value = make(kept.value)
    return result


def steps(x_BT, ctx: Context) -> bool:
    """Whether this call is one token more, after a state."""
    return ctx.slot is not None and x_BT.shape[1] == 1
