"""Where the tokens of a call stand: what attention may see, and where a cache is written.

Training passes no context: tokens stand at 0 .. T-1 and see what is before them. Prefill and decode
are the same module call with a context: every row has its own positions (rows of unequal length are
padded on the left, at negative positions), and keys and values are kept in the Flax collection
"cache", in `slots` shared by all rows.
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


@flax.struct.dataclass
class Context:
    """at: positions of the tokens of this call, (B, T) or (T,). keys: positions of what may be
    attended to, (B, J) or (J,); negative is nothing. slot: where in the cache this call's keys are
    written; None without a cache.
    """

    at: jax.Array | np.ndarray
    keys: jax.Array | np.ndarray
    slot: jax.Array | None = None


def plain(length: int) -> Context:
    """Tokens at 0 .. length-1 without a cache. The positions are numpy's: tables over them are
    constants of the program.
    """
    at = np.arange(length)
    return Context(at, at)


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
