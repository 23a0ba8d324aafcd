"""Delta rules over a matrix of K x W a head, a chunk of tokens at a time (Yang et al. 2024, arXiv
2406.06484, section 3; with decays arXiv 2412.06464, section 3.3).

    S_t = a_t S_(t-1) - b_t k_t (k_t^T a_t S_(t-1)) + b_t k_t v_t^T,   y_t = S_t^T q_t

What a token writes depends on what the tokens of its chunk before it have written: a triangular
system, one for each chunk and head, whose inverse is a product of log2(chunk) factors
(`inverse`). Between chunks the state is handed on by a loop.
"""

import jax.numpy as jnp

from model import context
from model.config import Execution
from model.mixers.linear import (
    Same,
    in_turns,
    in_turns_or_not,
    only,
    rows_of,
    running,
    running_work,
)
from model.numerics import einsum, precise, scores
from model.work import Work, matmuls, total


def mix(module, ctx: context.Context, ex: Execution, q_BTHK, k_BTHK, v_BTHW, b_BTH, log_BTH):
    """y_BTHW, of tokens after a state that a decoder keeps. `b`: how much of a value is written;
    `log`: logarithms of the decays, or None.
    """
    shape = (*v_BTHW.shape[:1], *k_BTHK.shape[2:], v_BTHW.shape[3])
    b_BTH = context.real(b_BTH, ctx)
    if log_BTH is None:
        log_BTH = jnp.zeros_like(b_BTH)

    def made(state_BHKW):
        if context.steps(v_BTHW, ctx):
            first = (a[:, 0] for a in (q_BTHK, k_BTHK, v_BTHW, b_BTH, log_BTH))
            y_BHW, state = step(*first, state_BHKW)
            return y_BHW[:, None].astype(v_BTHW.dtype), state
        return chunked(ex, q_BTHK, k_BTHK, v_BTHW, b_BTH, log_BTH, state_BHKW, ctx.document_BT)

    return context.carry(module, "state", shape, v_BTHW.dtype, ctx, made)


def step(q_BHK, k_BHK, v_BHW, b_BH, log_BH, state_BHKW):
    """The recurrence itself, of one token: (y_BHW, state after it)."""
    q_BHK, k_BHK, v_BHW = (precise(a) for a in (q_BHK, k_BHK, v_BHW))
    state_BHKW = jnp.exp(log_BH)[..., None, None] * state_BHKW
    held_BHW = einsum("bhk,bhkw->bhw", k_BHK, state_BHKW)
    written_BHW = b_BH[..., None] * (v_BHW - held_BHW)
    state_BHKW = state_BHKW + einsum("bhk,bhw->bhkw", k_BHK, written_BHW)
    return einsum("bhk,bhkw->bhw", q_BHK, state_BHKW), state_BHKW


def inverse(a_ij):
    """(I + A)^-1 of strictly lower triangular matrices: (I - A)(I + A^2)(I + A^4) ..., which ends,
    for A^size is 0.
    """
    count, power = a_ij.shape[-1], -a_ij
    made = power + jnp.eye(count, dtype=a_ij.dtype)
    for _ in range(factors(count)):
        power = einsum("...ij,...jk->...ik", power, power)
        made = made + einsum("...ij,...jk->...ik", made, power)
    return made


def factors(count: int) -> int:
    """Of `inverse`, after the first."""
    return max(0, (count - 1).bit_length() - 1)


def chunk_of(ex: Execution, length: int) -> int:
    """Tokens of a chunk."""
    return min(length, max(1, ex.chunk // 2))


def chunked(ex: Execution, q_BTHK, k_BTHK, v_BTHW, b_BTH, log_BTH, state_BHKW, document_BT=None):
    """(y_BTHW, the state after the last token)."""
    arrays_BT = q_BTHK, k_BTHK, v_BTHW, precise(b_BTH), precise(log_BTH)
    chunk = chunk_of(ex, v_BTHW.shape[1])
    return in_turns(_form, arrays_BT, state_BHKW, document_BT, chunk, rows_of(ex, chunk))


def _form(arrays_Bci, one_of: Same, state_BHKW, over):
    q, k, v, b, log = (a.swapaxes(2, 3) for a in arrays_Bci)  # B c H i ...
    chunk, dtype = v.shape[3], v.dtype
    sums = running(log, 3, one_of)
    last = sums[..., -1:]
    lower = jnp.tril(jnp.ones((chunk, chunk), bool))
    apart = jnp.exp(jnp.where(lower, sums[..., :, None] - sums[..., None, :], -jnp.inf))
    apart = only(apart, one_of.within_Bcij)
    written_b = (precise(k) * b[..., None]).astype(dtype)
    strict = jnp.tril(lower, -1)
    a_ij = jnp.where(strict, scores("bchik,bchjk->bchij", written_b, k) * apart, 0)
    solved = inverse(a_ij).astype(dtype)
    # what a token would write into an empty state, and what the state before the chunk takes off it
    value = einsum("bchij,bchjw->bchiw", solved, (precise(v) * b[..., None]).astype(dtype))
    from_start = precise(written_b) * only(jnp.exp(sums), one_of.start_Bci)[..., None]
    from_start = from_start.astype(dtype)
    held = einsum("bchij,bchjk->bchik", solved, from_start)
    k_end = precise(k) * only(jnp.exp(last - sums), one_of.end_Bci)[..., None]
    k_end = k_end.astype(dtype)

    def one(state, now):
        value, held, k_end, decay = now
        written = precise(value) - scores("bhik,bhkw->bhiw", held, state.astype(dtype))
        update = scores("bhik,bhiw->bhkw", k_end, written.astype(dtype))
        return decay[..., None] * state + update, (state.astype(dtype), written.astype(dtype))

    decay = only(jnp.exp(last), one_of.whole_Bc)
    after, (before, written) = over(one, state_BHKW, (value, held, k_end, decay))
    map_ij = (scores("bchik,bchjk->bchij", q, k) * apart).astype(dtype)
    q_start = (precise(q) * only(jnp.exp(sums), one_of.start_Bci)[..., None]).astype(dtype)
    y = einsum("bchij,cbhjw->bchiw", map_ij, written)
    y = y + einsum("bchik,cbhkw->bchiw", q_start, before)
    return y.swapaxes(2, 3), after


def flops(heads: int, keys: int, values: int) -> int:
    """A token's, by the recurrence: what the state holds for a key, its update, and its read, 2
    each for every number of it.
    """
    return 6 * heads * keys * values


def work(ex: Execution, batch: int, length: int, heads: int, keys: int, values: int) -> Work:
    """Executed, for every chunk and head: two maps, the inverse, its two products, three products
    with the state, and the map with what is written; in turns, all but the result once more.
    """
    chunk = chunk_of(ex, length)
    count, solved = batch * -(-length // chunk), 2 * factors(chunk) * chunk**3
    one = chunk**2 * (3 * keys + 2 * values) + solved + 3 * chunk * keys * values
    again = chunk**2 * (3 * keys + values) + solved + chunk * keys * values
    numbers = 8 * chunk**2 + 2 * keys * values + chunk * (5 * keys + 4 * values)
    states = (keys + chunk) * values
    one, again, numbers, states = (heads * n for n in (one, again, numbers, states))
    inner = in_turns_or_not(ex, matmuls(2 * count * one), count, again, numbers, states, chunk)
    return total((inner, running_work(ex, batch, length, chunk, heads)))
