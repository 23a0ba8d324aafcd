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
    # multiplies by 1 + scale, a scale that starts at 0: weight decay pulls to 1 (Gemma, arXiv
    # 2403.08295)
    centred: bool = False

    def module(self, name: str) -> nn.Module:
        return _RMSNorm(self.eps, self.centred, name=name)

    def parameters(self, width: int) -> int:
        return width


@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
    """(x - mean) / std * scale + bias (Ba et al. 2016, arXiv 1607.06450)."""

    eps: float = 1e-5  # added to the variance
    bias: bool = True  # a bias is added; PaLM and Cohere have none

    def module(self, name: str) -> nn.Module:
        return _LayerNorm(self.eps, self.bias, name=name)

    def parameters(self, width: int) -> int:
        return width * (1 + self.bias)


class _RMSNorm(nn.Module):
    eps: float
    centred: bool

    @nn.compact
    def __call__(self, x_BTD):
        mean = 0.0 if self.centred else 1.0
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=mean)
        if self.centred:
            scale_D = 1 + scale_D
        x = precise(x_BTD)
        return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * scale_D).astype(
            x_BTD.dtype
        )


class _LayerNorm(nn.Module):
    eps: float
    bias: bool

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        x = precise(x_BTD)
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * scale_D
        if self.bias:
            x = x + declare(self, "bias", x_BTD.shape[-1:], ("act_embed",), 0.0)
        return x.astype(x_BTD.dtype)
