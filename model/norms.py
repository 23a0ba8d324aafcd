"""Normalisation over the last axis, in float32 whatever the compute dtype."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Model
from model.params import declare, precise


class RMSNorm(nn.Module):
    """x / rms(x) * scale (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        x = precise(x_BTD)
        return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * scale_D).astype(
            x_BTD.dtype
        )


class LayerNorm(nn.Module):
    """(x - mean) / std * scale + bias (Ba et al. 2016, arXiv 1607.06450)."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        bias_D = declare(self, "bias", x_BTD.shape[-1:], ("act_embed",), 0.0)
        x = precise(x_BTD)
        x = x - jnp.mean(x, -1, keepdims=True)
        return (
            x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * scale_D + bias_D
        ).astype(x_BTD.dtype)


class Norm(NamedTuple):
    module: Callable
    per_unit: int  # parameters per unit of width


NORMS = {"rmsnorm": Norm(RMSNorm, 1), "layernorm": Norm(LayerNorm, 2)}


def make(c: Model, name: str):
    """The norm that `c` names, as a submodule `name`."""
    module = NORMS[c.norm].module
    return module(eps=c.norm_eps, name=name) if c.norm_eps else module(name=name)


def parameters(c: Model, width: int) -> int:
    """Parameters of one norm over `width`."""
    return NORMS[c.norm].per_unit * width


def kept(width: int) -> int:
    """Numbers per token that one norm over `width` keeps for the backward pass: what goes in and
    what comes out.
    """
    return 2 * width
