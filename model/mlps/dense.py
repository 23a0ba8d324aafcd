"""The dense MLP: act(x W_in) W_out, or the gated (silu(x W_gate) * x W_in) W_out (Shazeer 2020, arXiv 2002.05202)."""

import jax
from flax import linen as nn

from model.config import Execution, Model
from model.params import Einsum

# name -> (nonlinearity, gated)
ACTIVATIONS = {"relu": (jax.nn.relu, False), "gelu": (jax.nn.gelu, False), "swiglu": (jax.nn.silu, True)}


def matrices(c: Model) -> int:
    """Matrices of D x F in one MLP or expert."""
    return 3 if ACTIVATIONS[c.activation][1] else 2


class Dense(nn.Module):
    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD):
        c, dtype = self.c, self.ex.dtype
        act, gated = ACTIVATIONS[c.activation]
        up = lambda name: Einsum("btd,df->btf", (c.d_model, c.d_ff), ("embed", "mlp"), c.d_model, dtype=dtype, name=name)(x_BTD)
        h_BTF = act(up("gate")) * up("in") if gated else act(up("in"))
        y_BTD = Einsum(
            "btf,fd->btd", (c.d_ff, c.d_model), ("mlp", "embed"), c.d_ff, gain=(2 * c.n_layers) ** -0.5, dtype=dtype, name="out"
        )(h_BTF)
        return y_BTD, {}


def parameters(c: Model) -> dict[str, int]:
    return {"mlp": matrices(c) * c.d_model * c.d_ff}


def active(c: Model) -> int:
    return matrices(c) * c.d_model * c.d_ff


def forward_flops(c: Model) -> int:
    return 2 * active(c)


def executed_flops(c: Model, ex: Execution, tokens: int) -> int:
    return tokens * forward_flops(c)
