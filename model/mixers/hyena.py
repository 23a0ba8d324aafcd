"""Hyena of order 2 (Poli et al. 2023, arXiv 2302.10866, definition 3.1, section 3.3): y = q (h * (k
v)), q, k and v behind a short convolution, h a convolution over all tokens before. Its filter is
made of the position by a small network with sine activations, times a decay of each channel that
reaches 1/100 after 0.3 to 1.5 contexts (the window of section 3.3, as HazyResearch/safari); each
channel adds its input times a bias.

The long convolution is a product of Fourier transforms, of twice the tokens, so that the end does
not come round to the start. A transform of n real numbers counts as 2.5 n log2(n) FLOPs; of the
model's are those of a sequence, two a channel. Transform and network of the filter are made once a
call, whatever the batch: executed, but not counted as a token's. A decoder keeps k v of every
token.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.recurrent import (
    ShortConv,
    conv_flops,
    conv_state,
    counted,
    from_channels,
    to_channels,
)
from model.numerics import einsum, precise
from model.params import Einsum, declare
from model.state import State
from model.work import Work, matmuls, per_token, size, total

FREQUENCY = 10.0  # where that of the sines starts
DECAYS = math.log(100) / 1.5, math.log(100) / 0.3  # slowest and fastest, a context
LAYERS = 2  # hidden layers of the network, after the first


@dataclasses.dataclass(frozen=True)
class Hyena:
    """A long convolution between two gates."""

    conv: int = 3  # tokens that the short convolution sees
    features: int = 8  # sines and cosines of a position
    width: int = 64  # of the filter's network

    def check(self, m: Model) -> None:
        config.positive(self, ("conv", "features", "width"), "model.hyena")

    def _filter(self, m: Model) -> int:
        """Weights of the filter's network."""
        return self.width * (2 * self.features + 1 + LAYERS * self.width + m.d_model)

    def parameters(self, m: Model) -> dict[str, int]:
        """Matrices, short convolutions, the filter with its biases and frequencies, the bias."""
        d, network = m.d_model, self._filter(m) + (LAYERS + 2) * self.width
        return {"mixer": self.multiplied(m) + 3 * d * (self.conv + 1) + network + d}

    def multiplied(self, m: Model) -> int:
        return 4 * m.d_model**2

    def map_flops(self, m: Model, causal: bool) -> int | float:
        """The short convolutions, and two transforms of every channel."""
        transforms = 2 * m.d_model * transform(2 * m.seq_len)
        return conv_flops(self.conv, 3 * m.d_model) + per_token(transforms, m.seq_len)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        d, tokens = m.d_model, batch * m.seq_len
        one = 2 * tokens * self.multiplied(m) + tokens * conv_flops(self.conv, 3 * d)
        one += 2 * m.seq_len * self._filter(m)
        transforms = (2 * batch + 1) * d * transform(2 * m.seq_len)  # as many backward
        kept = tokens * d * (24 * 4 + 6 * size(ex))
        return total(
            (
                matmuls(one, 2 * tokens * d * d, kept),
                Work(transforms, transforms, transforms),
            ),
        )

    def state(self, m: Model) -> State:
        """k v of every token, and what the short convolutions keep."""
        return State(m.d_model, conv_state(self.conv, 3 * m.d_model))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "model.d_model", m.d_model)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Hyena(self, m, ex, name=name)


def transform(n: int) -> int:
    """FLOPs of a Fourier transform of `n` real numbers."""
    return round(2.5 * n * math.log2(n))


@jax.custom_vjp
def causal(z_BUT, h_UT):
    """y_t = sum_s h_s z_(t - s)."""
    return _causal(z_BUT, h_UT)[0]


def _causal(z_BUT, h_UT):
    length = z_BUT.shape[-1]
    z, h = (jnp.fft.rfft(a, 2 * length) for a in (z_BUT, h_UT))
    return jnp.fft.irfft(z * h, 2 * length)[..., :length], (z, h)


def _causal_bwd(held, g_BUT):
    (z, h), length = held, g_BUT.shape[-1]
    g = jnp.fft.rfft(g_BUT, 2 * length)
    dz = jnp.fft.irfft(g * h.conj(), 2 * length)[..., :length]
    return dz, jnp.fft.irfft((g * z.conj()).sum(0), 2 * length)[..., :length]


causal.defvjp(_causal, _causal_bwd)


class _Hyena(nn.Module):
    p: Hyena
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, d = self.p, self.m, self.ex, self.m.d_model
        ctx, length = ctx or context.plain(x_BTD.shape[1]), x_BTD.shape[1]

        def convolved(name):
            conv = ShortConv(p.conv, ("channels",), name=f"conv_{name}")
            return conv(to_channels(m, ex, name, d)(x_BTD), ctx)

        q, k, v = (convolved(name) for name in "qkv")
        z_BTU = context.real(precise(k) * precise(v), ctx)
        kept_BJU = context.remember(self, "z", z_BTU, ctx)
        bias_U = declare(self, "skip", (d,), ("channels",), 1.0)
        h_UJ = self._filter(kept_BJU.shape[1])
        if context.steps(x_BTD, ctx):
            with counted():
                y_BTU = self._last(kept_BJU, h_UJ, ctx)
        else:
            y_BJU = causal(kept_BJU.swapaxes(1, 2), h_UJ).swapaxes(1, 2)
            y_BTU = y_BJU
            if ctx.slot is not None:
                y_BTU = jax.lax.dynamic_slice_in_dim(y_BJU, ctx.slot, length, 1)
        y_BTU = (precise(q) * (y_BTU + bias_U * z_BTU)).astype(ex.dtype)
        return from_channels(m, ex, d)(y_BTU)

    def _last(self, kept_BJU, h_UJ, ctx):
        """The convolution at the one token of this call."""
        lag_J = ctx.slot - jnp.arange(kept_BJU.shape[1])
        h_UJ = jnp.where(lag_J >= 0, h_UJ[:, jnp.maximum(lag_J, 0)], 0)
        return einsum("bju,uj->bu", kept_BJU, h_UJ)[:, None]

    def _filter(self, count: int):
        """h_UT of the first positions."""
        p, m = self.p, self.m
        at = np.arange(count)[:, None] / max(1, m.seq_len - 1)
        angle = 2 * np.pi * at * np.linspace(1e-4, p.features - 1, p.features)
        x = jnp.asarray(np.concatenate([at, np.cos(angle), np.sin(angle)], 1), self._dtype())
        turns = declare(self, "turns", (p.width,), (None,), mean=FREQUENCY)
        for i in range(LAYERS + 1):
            wide = x.shape[1]
            layer = Einsum("tp,pf->tf", (wide, p.width), (None, None), wide, dtype=x.dtype.name,
                           bias=True, name=f"filter_{i}")  # fmt: skip
            x = jnp.sin(turns * layer(x))
        h_TU = Einsum("tp,pu->tu", (p.width, m.d_model), (None, "channels"), p.width,
                      dtype=x.dtype.name, name="filter")(x)  # fmt: skip
        fading = np.exp(-at * np.linspace(*DECAYS, m.d_model)).astype(x.dtype.name)
        return (h_TU * fading).T

    def _dtype(self):
        return jnp.promote_types(self.ex.dtype, jnp.float32)
