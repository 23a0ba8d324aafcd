"""Normalisation over D, in float32 whatever the compute dtype."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.params import declare


class RMSNorm(nn.Module):
    """x / rms(x) * scale (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        x = x_BTD.astype(jnp.float32)
        return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale_D).astype(x_BTD.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / std * scale + bias (Ba et al. 2016, arXiv 1607.06450)."""

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = declare(self, "scale", x_BTD.shape[-1:], ("act_embed",), 0.0, mean=1.0)
        bias_D = declare(self, "bias", x_BTD.shape[-1:], ("act_embed",), 0.0)
        x = x_BTD.astype(jnp.float32)
        x = x - jnp.mean(x, -1, keepdims=True)
        return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * scale_D + bias_D).astype(x_BTD.dtype)


# name -> (module, parameters per unit of d_model)
NORMS = {"rmsnorm": (RMSNorm, 1), "layernorm": (LayerNorm, 2)}
