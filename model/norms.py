"""Normalisation over the last axis, in float32 whatever the compute dtype. The contract of a norm:

module(name) -> Flax module, x_BTD -> x_BTD
parameters(width) -> int                      of one norm over `width`
check(m)                                      raises ValueError, in words that say what to change
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config
from model.config import Model
from model.numerics import precise
from model.params import declare


def kept(width: int) -> int:
    """Numbers per token that one norm over `width` keeps for the backward pass: what goes in and
    what comes out.
    """
    return 2 * width


class Norm:
    """What the norms share."""

    def check(self, m: Model) -> None:
        config.positive(self, (), "model.norm")


@dataclasses.dataclass(frozen=True)
class RMSNorm(Norm):
    """x / rms(x) * scale (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    eps: float = 1e-6  # added to the mean square

    def module(self, name: str) -> nn.Module:
        return _RMSNorm(self.eps, name=name)

    def parameters(self, width: int) -> int:
        return width


@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
    """(x - mean) / std * scale + bias (Ba et al. 2016, arXiv 1607.06450)."""

    eps: float = 1e-5  # added to the variance

    def module(self, name: str) -> nn.Module:
        return _LayerNorm(self.eps, name=name)

    def parameters(self, width: int) -> int:
        return 2 * width


class _RMSNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        x = precise(x_BTD)
        return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * scale_D).astype(
            x_BTD.dtype
        )


class _LayerNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        bias_D = declare(self, "bias", x_BTD.shape[-1:], ("act_embed",), 0.0)
        x = precise(x_BTD)
        x = x - jnp.mean(x, -1, keepdims=True)
        return (
            x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * scale_D + bias_D
        ).astype(x_BTD.dtype)
