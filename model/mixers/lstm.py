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

from model.config import Execution, Model
from model.mixers import cells
from model.params import declare
from model.starts import Rows


@dataclasses.dataclass(frozen=True)
class LSTM(cells.Cell):
    """A long short-term memory."""

    name = "lstm"
    gates, states, biases = 4, 2, 4

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
        u = self.p.units(self.m)
        bias_gU = declare(self, "bias", (4, u), (None, "channels"), start=Rows((0, 1, 0, 0)))
        return cells.mix(self, x_BTD, ctx, cell, bias_gU)
