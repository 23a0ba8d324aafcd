"""The scan of S6: h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t of U channels with Z numbers each, y_t =
C_t h_t. A loop over time; kept for the backward pass is the state before every chunk, from which
that of every token of one chunk at a time is made again (Gu & Dao 2023, arXiv 2312.00752, section
3.3.2). Nothing is ever as large as sequences x tokens x channels x states.
"""

import jax
import jax.numpy as jnp

from model import context
from model.config import Execution
from model.mixers.linear import in_chunks
from model.mixers.recurrent import counted
from model.numerics import precise
from model.work import Work

UNROLL = 8


def mix(module, ctx: context.Context, ex: Execution, dt_BTU, rates_UZ, b_BTZ, c_BTZ, x_BTU):
    """y_BTU in float32 at least, of tokens after a state that a decoder keeps."""
    b_BTZ, c_BTZ, x_BTU = (precise(context.real(a, ctx)) for a in (b_BTZ, c_BTZ, x_BTU))
    (batch, length, channels), states = x_BTU.shape, rates_UZ.shape[1]
    chunk, going_BT = min(length, ex.chunk), context.going_on(ctx)

    def made(state_BZU):
        # chunks and positions lead; filled up with time steps of 0, which change nothing
        parts = [
            in_chunks(a, chunk).transpose(1, 2, 0, 3)
            for a in (dt_BTU, dt_BTU * x_BTU, b_BTZ, c_BTZ)
        ]
        going_ciB = None if going_BT is None else in_chunks(going_BT, chunk).transpose(1, 2, 0)
        y_ciBU, last = scan(rates_UZ.T, *parts, state_BZU, going_ciB)
        y_BTU = y_ciBU.reshape(-1, batch, channels).swapaxes(0, 1)[:, :length]
        return y_BTU, last

    return context.carry(module, "channels", (batch, states, channels), x_BTU.dtype, ctx, made)


def _after(rates_ZU, state_BZU, dt_BU, in_BU, b_BZ):
    """The state after a token."""
    decayed = jnp.exp(dt_BU[:, None] * rates_ZU) * state_BZU
    with counted():
        return decayed + in_BU[:, None] * b_BZ[..., None]


@jax.custom_vjp
def scan(rates_ZU, dt_ciBU, in_ciBU, b_ciBZ, c_ciBZ, state_BZU, going_ciB=None):
    """(y_ciBU, the state after the last token); `in`: dt x; `going`: `context.going_on`."""
    return _forward(rates_ZU, dt_ciBU, in_ciBU, b_ciBZ, c_ciBZ, state_BZU, going_ciB)[0]


def _forward(rates_ZU, dt_ciBU, in_ciBU, b_ciBZ, c_ciBZ, state_BZU, going_ciB):
    def token(state, now):
        *inputs, c_BZ, going_B = now
        state = _after(rates_ZU, context.kept(state, going_B), *inputs)
        with counted():
            return state, (state * c_BZ[..., None]).sum(1)

    def chunk(state, now):
        last, y_iBU = jax.lax.scan(token, state, now, unroll=UNROLL)
        return last, (y_iBU, state)

    inputs = dt_ciBU, in_ciBU, b_ciBZ, c_ciBZ, going_ciB
    last, (y_ciBU, before) = jax.lax.scan(chunk, state_BZU, inputs)
    return (y_ciBU, last), (rates_ZU, *inputs, before)


def _backward(held, gradients):
    rates_ZU, *inputs, before_cBZU = held
    g_ciBU, g_last = gradients

    def again(state, now):
        *inputs, going_B = now
        state = context.kept(state, going_B)
        return _after(rates_ZU, state, *inputs), state

    def token(carry, now):
        g_state, g_rates = carry
        g_BU, dt_BU, in_BU, b_BZ, c_BZ, going_B, before = now
        decay = jnp.exp(dt_BU[:, None] * rates_ZU)
        with counted():
            grown = in_BU[:, None] * b_BZ[..., None]
            g_state = g_state + g_BU[:, None] * c_BZ[..., None]
        after = decay * before + grown
        with counted():
            d_c = (after * g_BU[:, None]).sum(2)
            d_b = (g_state * in_BU[:, None]).sum(2)
            d_in = (g_state * b_BZ[..., None]).sum(1)
        g_state = context.kept(g_state * decay, going_B)
        d_power = g_state * before
        d_dt = (d_power * rates_ZU).sum(1)
        g_rates = g_rates + (d_power * dt_BU[:, None]).sum(0)
        return (g_state, g_rates), (d_dt, d_in, d_b, d_c)

    def chunk(carry, now):
        g_iBU, *inputs, state = now
        *given, _, going_iB = inputs
        _, before = jax.lax.scan(again, state, (*given, going_iB), unroll=UNROLL)
        return jax.lax.scan(token, carry, (g_iBU, *inputs, before), reverse=True, unroll=UNROLL)

    (g_state, g_rates), found = jax.lax.scan(
        chunk,
        (g_last, jnp.zeros_like(rates_ZU)),
        (g_ciBU, *inputs, before_cBZU),
        reverse=True,
    )
    return g_rates, *found, g_state, None


scan.defvjp(_forward, _backward)


def flops(channels: int, states: int) -> int:
    """A token's, by the recurrence: the update and the read of a state, 2 each for every number of
    it; its decay is elementwise.
    """
    return 4 * channels * states


def work(ex: Execution, batch: int, length: int, channels: int, states: int) -> Work:
    """Executed: forward update and read; backward their gradients, and the update twice again.
    Kept: the states between chunks, and of one chunk that of every token.
    """
    chunk = min(length, ex.chunk)
    count = batch * -(-length // chunk)
    one = 2 * count * chunk * channels * states
    kept = 4 * count * channels * (states + 3 * chunk)
    return Work(2 * one, 6 * one, 2 * one, kept, spare=4 * batch * chunk * channels * states)
