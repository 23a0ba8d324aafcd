"""The hidden units of an MLP, or of one expert: act(x W_in), or the gated act(x W_gate) * x W_in
(Shazeer 2020, arXiv 2002.05202).
"""

import functools

import jax

from model.numerics import precise

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


def inputs(activation: str) -> tuple[str, ...]:
    """Names of the matrices before the nonlinearity."""
    return ("gate", "in") if ACTIVATIONS[activation][1] else ("in",)


def matrices(activation: str) -> int:
    """Matrices of D x F in one MLP or expert."""
    return len(inputs(activation)) + 1


def kept(activation: str) -> int:
    """Arrays of the hidden width that the backward pass wants: what goes into the nonlinearity and
    what comes out, and of a gated one its slope, which XLA on CPU makes again early.
    """
    return matrices(activation) + ACTIVATIONS[activation][1]


def biases(activation: str, width: int, d_model: int) -> int:
    """Biases of one MLP or expert of hidden `width` that has them."""
    return len(inputs(activation)) * width + d_model
