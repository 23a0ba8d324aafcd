"""The dense MLP: act(x W_in) W_out, or the gated (act(x W_gate) * x W_in) W_out (Shazeer 2020,
arXiv 2002.05202).
"""

import functools

import jax
from flax import linen as nn

from model.config import Execution, Model
from model.params import Einsum, precise
from model.work import Work, matmuls, size

_exact_gelu = functools.partial(jax.nn.gelu, approximate=False)

# name -> (nonlinearity, gated); gelu is the tanh form of Hendrycks & Gimpel 2016, arXiv 1606.08415
ACTIVATIONS = {
    "relu": (jax.nn.relu, False),
    "gelu": (jax.nn.gelu, False),
    "gelu_exact": (_exact_gelu, False),
    "swiglu": (jax.nn.silu, True),
    "geglu": (jax.nn.gelu, True),
}


def hidden(act, before: dict):
    """The hidden units, of what the matrices "gate" (where there is one) and "in" give; computed in
    float32 at least.
    """
    x = {name: precise(a) for name, a in before.items()}
    out = act(x["gate"]) * x["in"] if "gate" in x else act(x["in"])
    return out.astype(before["in"].dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def activated(act, before: dict):
    """`hidden`, of which the backward pass keeps what goes in, and makes the nonlinearity again."""
    return hidden(act, before)


def _activated_bwd(act, before, g):
    before = jax.lax.optimization_barrier(
        before
    )  # or XLA finds the nonlinearity of the forward pass, and keeps it
    return jax.vjp(functools.partial(hidden, act), before)[1](g)


activated.defvjp(lambda act, before: (hidden(act, before), before), _activated_bwd)


def matrices(c: Model) -> int:
    """Matrices of D x F in one MLP or expert."""
    return 3 if ACTIVATIONS[c.activation][1] else 2


def kept(c: Model) -> int:
    """Arrays of the hidden width that the backward pass wants: what goes into the nonlinearity and
    what comes out, and of a gated one its slope, which XLA on CPU makes again early.
    """
    return matrices(c) + ACTIVATIONS[c.activation][1]


def biases(c: Model, width: int) -> int:
    """Biases of one MLP or expert of hidden `width`."""
    return ((matrices(c) - 1) * width + c.d_model) * c.mlp_bias


class Dense(nn.Module):
    """`width` 0 stands for d_ff."""

    c: Model
    ex: Execution
    width: int = 0

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        c, width = self.c, self.width or self.c.d_ff
        act, gated = ACTIVATIONS[c.activation]
        make = functools.partial(Einsum, dtype=self.ex.dtype, bias=c.mlp_bias)
        up = lambda name: make(
            "btd,df->btf", (c.d_model, width), ("embed", "mlp"), c.d_model, name=name
        )(x_BTD)
        h_BTF = activated(act, {name: up(name) for name in (("gate", "in") if gated else ("in",))})
        down = make(
            "btf,fd->btd",
            (width, c.d_model),
            ("mlp", "embed"),
            width,
            gain=(2 * c.n_layers) ** -0.5,
            name="out",
        )
        return down(h_BTF), {}


def parameters(c: Model) -> dict[str, int]:
    return {"mlp": active(c)}


def active(c: Model) -> int:
    return multiplied(c) + biases(c, c.d_ff)


def multiplied(c: Model) -> int:
    return matrices(c) * c.d_model * c.d_ff


def work(c: Model, ex: Execution, batch: int, width: int = 0) -> Work:
    """`width` 0 stands for d_ff. The last matmul ends the layer, unless a norm comes after it."""
    tokens, width = batch * c.seq_len, width or c.d_ff
    one, hidden = 2 * tokens * c.d_model * width, tokens * width * size(ex)
    return matmuls(matrices(c) * one, 0 if c.post_norm else one, kept(c) * hidden, hidden)


def check(c: Model) -> None:
    pass
