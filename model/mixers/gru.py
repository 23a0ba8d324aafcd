"""Gated recurrent units (Cho et al. 2014, arXiv 1406.1078, eq 5 to 8): h_t = (1 - z) n + z
h_(t-1), n = tanh(W x_t + r (U h_(t-1) + b)), gates z, r = sigmoid of W x_t + U h_(t-1) + b; then a
matrix back to d_model. The reset gate multiplies after the matrix, as in cuDNN and torch.nn.GRU, so
that one product serves all three; the paper has it before.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Execution, Model
from model.mixers import cells
from model.params import declare


@dataclasses.dataclass(frozen=True)
class GRU(cells.Cell):
    """Gated recurrent units."""

    name = "gru"
    gates, states, biases = 3, 1, 4

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
        u = self.p.units(self.m)
        biases = (
            declare(self, "bias", (3, u), (None, "channels")),
            declare(self, "new_bias", (u,), ("channels",)),
        )
        return cells.mix(self, x_BTD, ctx, cell, biases)
