"""The scan of S6: h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t of U channels with Z numbers each, y_t =
C_t h_t. A loop over time; kept for the backward pass is the state before every chunk, from which
that of every token of one chunk at a time is made again (Gu & Dao 2023, arXiv 2312.00752, section
3.3.2). Nothing is ever as large as sequences x tokens x channels x states.
"""

import functools

import jax
import jax.numpy as jnp

from model import context
from model.config import Execution
from model.mixers.linear import in_turns, rows_of
from model.numerics import einsum, precise
from model.work import Work
from model.xla_cpu import added

CHUNK = 4  # a chunk is so many times shorter than `Execution.chunk`


def chunk_of(ex: Execution, length: int) -> int:
    """Tokens of a chunk."""
    return min(length, max(1, ex.chunk // CHUNK))


def mix(module, ctx: context.Context, ex: Execution, dt_BTU, rates_UZ, b_BTZ, c_BTZ, x_BTU):
    """y_BTU in float32 at least, of tokens after a state that a decoder keeps."""
    b_BTZ, c_BTZ, x_BTU = (precise(context.real(a, ctx)) for a in (b_BTZ, c_BTZ, x_BTU))
    (batch, length, channels), states = x_BTU.shape, rates_UZ.shape[1]
    arrays_BT = dt_BTU, dt_BTU * x_BTU, b_BTZ, c_BTZ, context.going_on(ctx)
    form = functools.partial(_form, rates_UZ.T)

    chunk = chunk_of(ex, length)
    rows = rows_of(ex, CHUNK * chunk) or batch

    def made(state_BZU):
        return in_turns(form, arrays_BT, state_BZU, None, chunk, rows)

    return context.carry(module, "channels", (batch, states, channels), x_BTU.dtype, ctx, made)


def _form(rates_ZU, arrays_Bci, _, state_BZU, over):
    """(y_BciU, the state after it) of a chunk; `in`: dt x; `going`: `context.going_on`; `over` is
    not used: chunks come one by one. What fills up the last has time steps of 0, which change
    nothing.

    Everything but the recurrence itself is made for all tokens of the chunk at once.
    """
    dt_iBU, in_iBU, b_iBZ, c_iBZ, going_iB = jax.tree.map(
        lambda a: a[:, 0].swapaxes(0, 1), arrays_Bci
    )
    decay_iBZU = jnp.exp(_powers(dt_iBU, rates_ZU))
    if going_iB is not None:
        decay_iBZU = jnp.where(going_iB[..., None, None], decay_iBZU, 0)
    added_iBZU = einsum("ibz,ibu->ibzu", b_iBZ, in_iBU)

    def token(state_BZU, now):
        decay_BZU, added_BZU = now
        state_BZU = decay_BZU * state_BZU + added_BZU
        return state_BZU, state_BZU

    after, states_iBZU = jax.lax.scan(token, state_BZU, (decay_iBZU, added_iBZU))
    y_iBU = einsum("ibz,ibzu->ibu", c_iBZ, states_iBZU)
    return y_iBU.swapaxes(0, 1)[:, None], after


@jax.custom_vjp
def _powers(dt_iBU, rates_ZU):
    """dt A of tokens."""
    return dt_iBU[:, :, None] * rates_ZU


def _powers_bwd(held, g_iBZU):
    dt_iBU, rates_ZU = held
    return added(g_iBZU * rates_ZU, 2), added(added(g_iBZU * dt_iBU[:, :, None], 0), 0)


_powers.defvjp(lambda *held: (_powers(*held), held), _powers_bwd)


def flops(channels: int, states: int) -> int:
    """A token's, by the recurrence: the update and the read of a state, 2 each for every number of
    it; its decay is elementwise.
    """
    return 4 * channels * states


def work(ex: Execution, batch: int, length: int, channels: int, states: int) -> Work:
    """Executed: forward update and read; backward their gradients, and the update once more. Kept:
    the states between chunks; and of the chunks at hand that of every token.
    """
    chunk = chunk_of(ex, length)
    count = batch * -(-length // chunk)
    one = 2 * count * chunk * channels * states
    kept = 4 * count * channels * (states + 3 * chunk)
    rows = min(batch, rows_of(ex, CHUNK * chunk) or batch)
    return Work(2 * one, 5 * one, 2 * one, kept, spare=4 * 6 * rows * chunk * channels * states)
