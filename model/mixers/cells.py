"""Recurrent cells, a file for what `rnn`, `lstm` and `gru` share: units that see the whole state of
the token before through one matrix.

What a token gives is multiplied ahead of the loop, for all tokens at once, and so is the gradient
of the recurrent matrix after it: the loop over time makes one product forward, and one backward.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from model import config, context
from model.config import Execution, Model
from model.mixers.recurrent import Recurrent, from_channels
from model.numerics import einsum, precise
from model.params import Einsum, declare
from model.state import State
from model.work import Work, matmuls, size

UNROLL = 4


@dataclasses.dataclass(frozen=True)
class Cell(Recurrent):
    """A cell with `gates` matrices each way. A part says its name, and how many vectors it keeps
    and has for biases.
    """

    n_units: int = 0  # units, U; 0: d_model

    name: ClassVar[str]
    gates: ClassVar[int]
    states: ClassVar[int]
    biases: ClassVar[int]
    apart: ClassVar[bool] = True

    def units(self, m: Model) -> int:
        return self.n_units or m.d_model

    def check(self, m: Model) -> None:
        config.positive(self, (), f"model.{self.name}")

    def parameters(self, m: Model) -> dict[str, int]:
        u = self.units(m)
        return {"mixer": self.multiplied(m) + self.gates * u * u + self.biases * u}

    def state(self, m: Model) -> State:
        return State(per_sequence=self.states * self.units(m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", f"model.{self.name}.n_units", self.units(m))]

    def multiplied(self, m: Model) -> int:
        """Of the input and the output; the recurrent matrix is `recurrence`."""
        return (self.gates + 1) * m.d_model * self.units(m)

    def recurrence(self, m: Model) -> int:
        """Matrices of units x units."""
        return 2 * self.gates * self.units(m) ** 2

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, u = batch * m.seq_len, self.units(m)
        one = 2 * tokens * self.multiplied(m) + tokens * self.recurrence(m)
        kept = tokens * u * (2 * self.gates + 2 * self.states + 2) * size(ex)
        return matmuls(one, 2 * tokens * u * m.d_model, kept)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def over_time(cell: Callable, w_UgU, bias, x_TBgU, state, going_TB=None):
    """(h_TBU, the state after the last token). `cell(bias, x_BgU, r_BgU, state) -> state`, with
    r = h W of the token before, is elementwise; a state is a tuple of BU, h its first. `going_TB`:
    `context.going_on`.
    """
    return _forward(cell, w_UgU, bias, x_TBgU, state, going_TB)[0]


def _forward(cell, w_UgU, bias, x_TBgU, state, going_TB):
    def one(state, now):
        x_BgU, going_B = now
        state = context.kept(state, going_B)
        r_BgU = _product(w_UgU, state[0])
        after = cell(bias, x_BgU, r_BgU, state)
        return after, (r_BgU, state, after[0])

    last, (r_TBgU, before, h_TBU) = jax.lax.scan(one, state, (x_TBgU, going_TB), unroll=UNROLL)
    return (h_TBU, last), (w_UgU, bias, x_TBgU, r_TBgU, before, going_TB)


def _product(w_UgU, h_BU):
    return precise(einsum("bu,ugv->bgv", h_BU.astype(w_UgU.dtype), w_UgU))


def _backward(cell, held, gradients):
    w_UgU, bias, x_TBgU, r_TBgU, before, going_TB = held
    g_TBU, g_last = gradients
    w_gUU = w_UgU.transpose(1, 2, 0)

    def one(carry, now):
        g_state, g_bias = carry
        g_BU, x_BgU, r_BgU, state, going_B = now
        g_state = (g_state[0] + g_BU, *g_state[1:])
        d_bias, d_x, d_r, d_state = jax.vjp(cell, bias, x_BgU, r_BgU, state)[1](g_state)
        d_h = precise(einsum("bgv,gvu->bu", d_r.astype(w_UgU.dtype), w_gUU))
        d_state = context.kept((d_state[0] + d_h, *d_state[1:]), going_B)
        return (d_state, jax.tree.map(jnp.add, g_bias, d_bias)), (d_x, d_r)

    zero = jax.tree.map(jnp.zeros_like, bias)
    inputs = g_TBU, x_TBgU, r_TBgU, before, going_TB
    (g_state, g_bias), (d_x, d_r) = jax.lax.scan(
        one, (g_last, zero), inputs, reverse=True, unroll=UNROLL
    )
    h, d = before[0].astype(w_UgU.dtype), d_r.astype(w_UgU.dtype)
    return einsum("tbu,tbgv->ugv", h, d), g_bias, d_x, g_state, None


over_time.defvjp(_forward, _backward)


def mix(module, x_BTD, ctx: context.Context | None, cell: Callable, bias):
    """The mixer that `module` (with p, m, ex) is: x to gates, the cell over time, and back. A
    decoder keeps the cell's state; a padded place leaves it as it is.
    """
    p, m, ex, units = module.p, module.m, module.ex, module.p.units(module.m)
    ctx = ctx or context.plain(x_BTD.shape[1])
    x_BTgU = Einsum("btd,dgu->btgu", (m.d_model, p.gates, units), ("embed", None, "channels"),
                    m.d_model, dtype=ex.dtype, stacked="g", name="in")(x_BTD)  # fmt: skip
    axes = (None, None, "channels")
    shape, sides = (units, p.gates, units), ((-3,), (-1,))  # a matrix for each gate
    w_UgU = declare(module, "recurrent", shape, axes, units**-0.5, matrix=sides)
    h_BTU = _mixed(module, ctx, cell, ex, w_UgU, bias, x_BTgU, p.states)
    return from_channels(m, ex, units)(h_BTU)


def _mixed(module, ctx, cell, ex: Execution, w_UgU, bias, x_BTgU, states: int):
    """h_BTU, after a state of `states` vectors."""
    (batch, _, _, units), w_UgU = x_BTgU.shape, w_UgU.astype(ex.dtype)

    def made(kept_BsU):
        state = tuple(kept_BsU[:, i] for i in range(states))
        x_TBgU = precise(x_BTgU).swapaxes(0, 1)
        if ctx.slot is None:
            going_BT = context.going_on(ctx)
            going_TB = None if going_BT is None else going_BT.T
            h_TBU, last = over_time(cell, w_UgU, bias, x_TBgU, state, going_TB)
        else:
            h_TBU, last = _padded(cell, w_UgU, bias, x_TBgU, (ctx.at >= 0).T, state)
        return h_TBU.swapaxes(0, 1).astype(ex.dtype), jnp.stack(last, 1)

    return context.carry(module, "cell", (batch, states, units), x_BTgU.dtype, ctx, made)


def _padded(cell, w_UgU, bias, x_TBgU, real_TB, state):
    def one(state, now):
        x_BgU, real_B = now
        after = cell(bias, x_BgU, _product(w_UgU, state[0]), state)
        after = tuple(jnp.where(real_B[:, None], a, b) for a, b in zip(after, state))
        return after, after[0]

    last, h_TBU = jax.lax.scan(one, state, (x_TBgU, real_TB))
    return h_TBU, last
