"""The hidden units of an MLP, or of one expert: act(x W_in), or the gated act(x W_gate) * x W_in
(Shazeer 2020, arXiv 2002.05202).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.config import choose
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


class Units(NamedTuple):
    """What an MLP's hidden units are, of its fields of these names: f(alpha x) / alpha in the place
    of f(x), `shift` added to the branch that is not gated, x at most `limit` and that branch within
    +-limit (gpt-oss: 1.702, 1, 7; openai/gpt-oss, gpt_oss/torch/model.py, swiglu).
    """

    activation: str
    alpha: float = 1.0
    limit: float = 0.0  # 0: none
    shift: float = 0.0

    def of(self, x, beside=None):
        f = ACTIVATIONS[self.activation][0]
        if self.limit:
            x = jnp.minimum(x, self.limit)
        y = f(x) if self.alpha == 1 else f(self.alpha * x) / self.alpha
        if beside is None:
            return y
        if self.limit:
            beside = jnp.clip(beside, -self.limit, self.limit)
        return y * (beside + self.shift if self.shift else beside)

    @classmethod
    def read(cls, part) -> "Units":
        return cls(part.activation, part.alpha, part.limit, part.shift)


def check(part, name: str) -> None:
    """Raises ValueError in words that say what to change."""
    choose(ACTIVATIONS, part.activation, f"model.{name}.activation")
    if not part.alpha:
        raise ValueError(f"model.{name}.alpha=0 must be above 0")
    if part.shift and not ACTIVATIONS[part.activation][1]:
        raise ValueError(
            f"model.{name}.shift is added to a branch that is not gated: {part.activation} has one"
            " branch; set an activation such as swiglu"
        )


def hidden(units: Units, before: dict):
    """The hidden units, of what the matrices "gate" (where there is one) and "in" give; computed in
    float32 at least.
    """
    x = {name: precise(a) for name, a in before.items()}
    out = units.of(x["gate"], x["in"]) if "gate" in x else units.of(x["in"])
    return out.astype(before["in"].dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def activated(units: Units, before: dict):
    """`hidden`, of which the backward pass keeps what goes in, and makes the nonlinearity again."""
    return hidden(units, before)


def _activated_bwd(units, before, g):
    before = jax.lax.optimization_barrier(
        before
    )  # or XLA finds the nonlinearity of the forward pass, and keeps it
    return jax.vjp(functools.partial(hidden, units), before)[1](g)


activated.defvjp(lambda units, before: (hidden(units, before), before), _activated_bwd)


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
