"""The simple recurrent network (Elman 1990, "Finding structure in time"): h_t = tanh(W x_t + U
h_(t-1) + b), then a matrix back to d_model.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import cells
from model.mixers.recurrent import from_channels
from model.params import Einsum, declare
from model.state import State


@dataclasses.dataclass(frozen=True)
class RNN(cells.Cell):
    """Units that see the units of the token before."""

    n_units: int = 0  # units, U; 0: d_model

    apart = True
    gates, states = 1, 1

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.rnn")

    def parameters(self, m: Model) -> dict[str, int]:
        u = self.units(m)
        return {"mixer": self.multiplied(m) + u * u + u}

    def state(self, m: Model) -> State:
        return State(per_sequence=self.units(m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.rnn.n_units", self.units(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _RNN(self, m, ex, name=name)


def cell(bias_U, x_BgU, r_BgU, state):
    return (jnp.tanh(x_BgU[:, 0] + r_BgU[:, 0] + bias_U),)


class _RNN(nn.Module):
    p: RNN
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, ex, u = self.m, self.ex, self.p.units(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])
        x_BTgU = Einsum("btd,dgu->btgu", (m.d_model, 1, u), ("embed", None, "channels"), m.d_model,
                        dtype=ex.dtype, name="in")(x_BTD)  # fmt: skip
        w_UgU = declare(self, "recurrent", (u, 1, u), (None, None, "channels"), u**-0.5)
        bias_U = declare(self, "bias", (u,), ("channels",))
        h_BTU = cells.mix(self, ctx, cell, ex, w_UgU, bias_U, x_BTgU, 1)
        return from_channels(m, ex, u)(h_BTU)
