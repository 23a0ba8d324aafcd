"""The simple recurrent network (Elman 1990, "Finding structure in time"): h_t = tanh(W x_t + U
h_(t-1) + b), then a matrix back to d_model.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from model.config import Execution, Model
from model.mixers import cells
from model.params import declare


@dataclasses.dataclass(frozen=True)
class RNN(cells.Cell):
    """Units that see the units of the token before."""

    name = "rnn"
    gates, states, biases = 1, 1, 1

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
        u = self.p.units(self.m)
        bias_U = declare(self, "bias", (u,), ("channels",))
        return cells.mix(self, x_BTD, ctx, cell, bias_U)
