"""The recurrence of RWKV-7, a chunk of tokens at a time: over a matrix of K x K a head,

    S_t = diag(w_t) S_(t-1) - b_t (c_t^T S_(t-1)) + k_t v_t^T,   y_t = S_t^T r_t

What is taken off, e_t = c_t^T S_(t-1), depends on what the tokens before took off: a triangular
system for each chunk and head, as of the delta rule (delta.py). Decays of a chunk are bounded, so
that they factor: a product of exponentials of sums, from the middle of the chunk, in place of the
exponential of a difference.
"""

import functools

import jax.numpy as jnp

from model import context
from model.config import Execution
from model.mixers.delta import factors, inverse
from model.mixers.linear import (
    Same,
    chunk_of,
    in_turns,
    in_turns_or_not,
    level,
    only,
    rows_of,
    running,
    running_work,
)
from model.numerics import einsum, precise, scores
from model.work import Work, matmuls, total


def mix(module, ctx: context.Context, ex: Execution, r, k, v, c, b, log):
    """y_BTHK, of tokens after a state that a decoder keeps; all arguments BTHK."""
    batch, _, heads, width = v.shape
    k, b = context.real(k, ctx), context.real(b, ctx)

    def made(state_BHKW):
        if context.steps(v, ctx):
            y_BHW, state = step(*(a[:, 0] for a in (r, k, v, c, b, log)), state_BHKW)
            return y_BHW[:, None], state
        return chunked(ex, r, k, v, c, b, log, state_BHKW, ctx.document_BT)

    return context.carry(module, "state", (batch, heads, width, width), v.dtype, ctx, made)


def step(r_BHK, k_BHK, v_BHW, c_BHK, b_BHK, log_BHK, state_BHKW):
    """The recurrence itself, of one token: (y_BHW, state after it)."""
    off_BHW = einsum("bhk,bhkw->bhw", c_BHK, state_BHKW)
    state_BHKW = jnp.exp(log_BHK)[..., None] * state_BHKW
    state_BHKW = state_BHKW - einsum("bhk,bhw->bhkw", b_BHK, off_BHW)
    state_BHKW = state_BHKW + einsum("bhk,bhw->bhkw", k_BHK, v_BHW)
    return einsum("bhk,bhkw->bhw", r_BHK, state_BHKW), state_BHKW


def chunked(ex: Execution, r, k, v, c, b, log, state_BHKW, document_BT=None):
    """(y_BTHW, the state after the last token)."""
    form, chunk = functools.partial(_form, ex.dtype), chunk_of(ex, v.shape[1], True)
    rows = rows_of(ex, chunk)
    return in_turns(form, (r, k, v, c, b, log), state_BHKW, document_BT, chunk, rows)


def _form(dtype, arrays_Bci, one_of: Same, state_BHKW, over):
    r, k, v, c, b, log = (a.swapaxes(2, 3) for a in arrays_Bci)  # B c H i K
    chunk = v.shape[3]
    sums, v = running(log, 3, one_of), v.astype(dtype)
    middle, last = level(sums[..., chunk // 2 : chunk // 2 + 1, :], one_of), sums[..., -1:, :]
    # before a token's own decay, and after it
    rows = jnp.concatenate([c * jnp.exp(sums - log - middle), r * jnp.exp(sums - middle)], 3)
    columns = jnp.concatenate([b, k], 3) * jnp.exp(jnp.concatenate([middle - sums] * 2, 3))
    maps = scores("bchik,bchjk->bchij", rows.astype(dtype), columns.astype(dtype))
    lower = jnp.tril(jnp.ones((chunk, chunk), bool))
    strict = jnp.tril(lower, -1)
    if one_of.within_Bcij is not None:
        lower, strict = (a & one_of.within_Bcij[:, :, None] for a in (lower, strict))
    of_b = jnp.where(strict, maps[..., :chunk, :chunk], 0)
    of_k = jnp.where(strict, maps[..., :chunk, chunk:], 0).astype(dtype)
    read_b = jnp.where(lower, maps[..., chunk:, :chunk], 0).astype(dtype)
    read_k = jnp.where(lower, maps[..., chunk:, chunk:], 0).astype(dtype)
    solved = inverse(of_b).astype(dtype)
    # what is taken off an empty state, and how the state before the chunk is read for it
    own = einsum("bchij,bchjw->bchiw", solved, einsum("bchij,bchjw->bchiw", of_k, v))
    from_start = only(jnp.exp(sums - log), one_of.start_Bci, 1)
    reads = einsum("bchij,bchjk->bchik", solved, (c * from_start).astype(dtype))
    to_end = only(jnp.exp(last - sums), one_of.end_Bci, 1)
    k_end, b_end = (k * to_end).astype(dtype), (b * to_end).astype(dtype)
    written = scores("bchik,bchiw->bchkw", k_end, v)

    def one(state, now):
        own, reads, b_end, written, decay = now
        off = precise(own) + scores("bhik,bhkw->bhiw", reads, state.astype(dtype))
        off = off.astype(dtype)
        after = decay.swapaxes(-1, -2) * state + written - scores("bhik,bhiw->bhkw", b_end, off)
        return after, (state.astype(dtype), off)

    decay = only(jnp.exp(last), one_of.whole_Bc)
    inputs = own, reads, b_end, written, decay
    after, (before, off) = over(one, state_BHKW, inputs)
    y = einsum("bchij,bchjw->bchiw", read_k, v) - einsum("bchij,cbhjw->bchiw", read_b, off)
    r_start = (r * only(jnp.exp(sums), one_of.start_Bci, 1)).astype(dtype)
    y = y + einsum("bchik,cbhkw->bchiw", r_start, before)
    return y.swapaxes(2, 3), after


def flops(heads: int, width: int) -> int:
    """A token's, by the recurrence: what is read and taken off, the update, and the read of a
    state, 2 each for every number of it.
    """
    return 8 * heads * width**2


def work(ex: Execution, batch: int, length: int, heads: int, width: int) -> Work:
    """Executed, for every chunk and head: four maps as one, the inverse, its two products, values
    through three maps, and four products with the state; in turns, all but the result once more.
    """
    chunk = chunk_of(ex, length, True)
    count, solved = batch * -(-length // chunk), 2 * factors(chunk) * chunk**3
    one = chunk**2 * 9 * width + solved + 4 * chunk * width**2
    again = chunk**2 * 7 * width + solved + chunk * width**2
    numbers = 16 * chunk**2 + 3 * width**2 + 14 * chunk * width
    states = (width + chunk) * width
    one, again, numbers, states = (heads * n for n in (one, again, numbers, states))
    inner = in_turns_or_not(ex, matmuls(2 * count * one), count, again, numbers, states, chunk)
    return total((inner, running_work(ex, batch, length, chunk, heads * width)))
