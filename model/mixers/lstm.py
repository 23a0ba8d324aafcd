"""Long short-term memory (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000):
c_t = f c_(t-1) + i g, h_t = o tanh(c_t), gates i, f, o = sigmoid and g = tanh of W x_t + U h_(t-1)
+ b; then a matrix back to d_model (as Sak et al. 2014, arXiv 1402.1128). torch.nn.LSTM is the same
with two biases that are summed.

The forget gate's bias starts at 1 (Jozefowicz et al. 2015), matrices at 1/sqrt(inputs).
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
from model.starts import Rows
from model.state import State


@dataclasses.dataclass(frozen=True)
class LSTM(cells.Cell):
    """A long short-term memory."""

    n_units: int = 0  # units, U; 0: d_model

    apart = True
    gates, states = 4, 2

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.lstm")

    def parameters(self, m: Model) -> dict[str, int]:
        u = self.units(m)
        return {"mixer": self.multiplied(m) + 4 * u * u + 4 * u}

    def state(self, m: Model) -> State:
        return State(per_sequence=2 * self.units(m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.lstm.n_units", self.units(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _LSTM(self, m, ex, name=name)


def cell(bias_gU, x_BgU, r_BgU, state):
    """Gates in torch's order: input, forget, new, output."""
    i, f, g, o = jnp.moveaxis(x_BgU + r_BgU + bias_gU, 1, 0)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


class _LSTM(nn.Module):
    p: LSTM
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        m, ex, u = self.m, self.ex, self.p.units(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])
        x_BTgU = Einsum("btd,dgu->btgu", (m.d_model, 4, u), ("embed", None, "channels"), m.d_model,
                        dtype=ex.dtype, name="in")(x_BTD)  # fmt: skip
        w_UgU = declare(self, "recurrent", (u, 4, u), (None, None, "channels"), u**-0.5)
        bias_gU = declare(self, "bias", (4, u), (None, "channels"), start=Rows((0, 1, 0, 0)))
        h_BTU = cells.mix(self, ctx, cell, ex, w_UgU, bias_gU, x_BTgU, 2)
        return from_channels(m, ex, u)(h_BTU)
