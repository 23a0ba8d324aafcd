"""Gated recurrent units (Cho et al. 2014, arXiv 1406.1078, eq 5 to 8): h_t = (1 - z) n + z
h_(t-1), n = tanh(W x_t + r (U h_(t-1) + b)), gates z, r = sigmoid of W x_t + U h_(t-1) + b; then a
matrix back to d_model. The reset gate multiplies after the matrix, as in cuDNN and torch.nn.GRU, so
that one product serves all three; the paper has it before.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import cells
from model.mixers.recurrent import from_channels
from model.params import Einsum, declare
from model.state import State


@dataclasses.dataclass(frozen=True)
class GRU(cells.Cell):
    """Gated recurrent units."""

    n_units: int = 0  # units, U; 0: d_model

    apart = True
    gates, states = 3, 1

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.gru")

    def parameters(self, m: Model) -> dict[str, int]:
        u = self.units(m)
        return {"mixer": self.multiplied(m) + 3 * u * u + 4 * u}

    def state(self, m: Model) -> State:
        return State(per_sequence=self.units(m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.gru.n_units", self.units(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _GRU(self, m, ex, name=name)


def cell(biases, x_BgU, r_BgU, state):
    """Gates in torch's order: reset, update, new."""
    bias_gU, new_bias_U = biases
    x_BgU = x_BgU + bias_gU
    r = jax.nn.sigmoid(x_BgU[:, 0] + r_BgU[:, 0])
    z = jax.nn.sigmoid(x_BgU[:, 1] + r_BgU[:, 1])
    n = jnp.tanh(x_BgU[:, 2] + r * (r_BgU[:, 2] + new_bias_U))
    return ((1 - z) * n + z * state[0],)


class _GRU(nn.Module):
    p: GRU
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, ex, u = self.m, self.ex, self.p.units(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])
        x_BTgU = Einsum("btd,dgu->btgu", (m.d_model, 3, u), ("embed", None, "channels"), m.d_model,
                        dtype=ex.dtype, name="in")(x_BTD)  # fmt: skip
        w_UgU = declare(self, "recurrent", (u, 3, u), (None, None, "channels"), u**-0.5)
        biases = (
            declare(self, "bias", (3, u), (None, "channels")),
            declare(self, "new_bias", (u,), ("channels",)),
        )
        h_BTU = cells.mix(self, ctx, cell, ex, w_UgU, biases, x_BTgU, 1)
        return from_channels(m, ex, u)(h_BTU)
