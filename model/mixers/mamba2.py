"""Mamba-2 (Dao & Gu 2024, arXiv 2405.21060, sections 6 and 7, listing 1): S_t = exp(dt_t A) S_(t-1)
+ dt_t B_t x_t^T, y_t = S_t^T C_t + D x_t, with one A < 0 and one dt a head, and B and C shared by
the heads of a group; a short convolution and silu before, a norm of y silu(z) after, of each group.

Starts: A uniform in -[1, 16], softplus(dt bias) log-uniform in [0.001, 0.1], D = 1, as the authors'
code (state-spaces/mamba).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import linear
from model.mixers.recurrent import (
    HeadNorm,
    Recurrent,
    ShortConv,
    conv_flops,
    conv_state,
    divided,
    from_heads,
    silu,
    to_heads,
)
from model.numerics import precise
from model.params import declare
from model.starts import LogUniform, Steps
from model.state import State
from model.work import Work, matmuls, size, total
from model.xla_cpu import weighted


@dataclasses.dataclass(frozen=True)
class Mamba2(Recurrent):
    """State space duality: a linear recurrence with one decay a head."""

    expand: int = 2  # channels over d_model
    n_heads: int = 0  # H; 0: one for 64 channels
    d_state: int = 64  # numbers of state a channel, K
    n_groups: int = 1  # heads of B and C, G
    conv: int = 4  # tokens that the short convolution sees
    norm_eps: float = 1e-5  # of the norm after the recurrence
    conv_bias: bool = True  # of the short convolution
    bias: bool = False  # of all matrices

    apart = True

    def heads(self, m: Model) -> int:
        return self.n_heads or max(1, self.expand * m.d_model // 64)

    def width(self, m: Model) -> int:
        """Of a head, W."""
        return self.expand * m.d_model // self.heads(m)

    def check(self, m: Model) -> None:
        names = ("expand", "d_state", "n_groups", "conv")
        config.positive(self, names, "model.mamba2")
        channels = self.expand * m.d_model
        divided(channels, self.heads(m), "expand x d_model", "model.mamba2.n_heads")
        divided(self.heads(m), self.n_groups, "model.mamba2.n_heads", "model.mamba2.n_groups")

    def _convolved(self, m: Model) -> int:
        """Channels of x, B and C."""
        return self.expand * m.d_model + 2 * self.n_groups * self.d_state

    def parameters(self, m: Model) -> dict[str, int]:
        more = (self.conv + self.conv_bias) * self._convolved(m) + 3 * self.heads(m)
        wide = self.expand * m.d_model
        more += (wide + self._convolved(m) + self.heads(m) + m.d_model) * self.bias
        return {"mixer": self.multiplied(m) + more, "norms": wide}

    def multiplied(self, m: Model) -> int:
        """z, x and out of D x H W, B and C of D x G K, dt of D x H."""
        wide = 3 * self.expand * m.d_model + 2 * self.n_groups * self.d_state
        return m.d_model * (wide + self.heads(m))

    def recurrence(self, m: Model) -> int:
        """The convolution, and update and read of the state."""
        state = linear.flops(self.heads(m), self.d_state, self.width(m))
        return conv_flops(self.conv, self._convolved(m)) + state

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, wide, h = batch * m.seq_len, self.expand * m.d_model, self.heads(m)
        projected = 2 * tokens * self.multiplied(m)
        convolved = tokens * conv_flops(self.conv, self._convolved(m))
        kept = tokens * (8 * wide + 4 * self.n_groups * self.d_state) * size(ex)
        return total(
            (
                matmuls(projected + convolved, 2 * tokens * wide * m.d_model, kept),
                linear.work(ex, batch, m.seq_len, self.n_groups, h, self.d_state, self.width(m)),
            )
        )

    def state(self, m: Model) -> State:
        channels = self.expand * m.d_model
        kept = channels * self.d_state + conv_state(self.conv, self._convolved(m))
        return State(per_sequence=kept)

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.mamba2.n_heads", self.heads(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Mamba2(self, m, ex, name=name)


class _Mamba2(nn.Module):
    p: Mamba2
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, heads, width = self.p, self.m, self.ex, self.p.heads(self.m), self.p.width(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])

        def convolved(name, count, wide, split):
            a = to_heads(m, ex, name, count, wide, split, p.bias)(x_BTD)
            axes = ("heads" if split else None, None)
            conv = ShortConv(p.conv, axes, p.conv_bias, name=f"conv_{name}")
            return silu(conv(a, ctx))

        z_BTHW = to_heads(m, ex, "z", heads, width, bias=p.bias)(x_BTD)
        x_BTHW = convolved("x", heads, width, True)
        b_BTGK, c_BTGK = (convolved(n, p.n_groups, p.d_state, False) for n in ("b", "c"))
        bias_H = declare(self, "steps_bias", (heads,), ("heads",), start=Steps())
        dt_BTH = jax.nn.softplus(
            precise(to_heads(m, ex, "steps", heads, 1, bias=p.bias)(x_BTD)[..., 0]) + bias_H
        )
        rates_H = -jnp.exp(declare(self, "rates", (heads,), ("heads",), start=LogUniform(1, 16)))
        skip_H = declare(self, "skip", (heads,), ("heads",), mean=1.0)
        v_BTHW = (precise(x_BTHW) * dt_BTH[..., None]).astype(ex.dtype)
        y_BTHW = linear.mix(self, ctx, ex, c_BTGK, b_BTGK, v_BTHW, dt_BTH * rates_H)
        skip_HW = jnp.broadcast_to(skip_H[:, None], (heads, width))
        y_BTHW = y_BTHW + weighted(precise(x_BTHW), skip_HW).astype(ex.dtype)
        gated = (y_BTHW * silu(z_BTHW)).reshape(*x_BTD.shape[:2], -1)
        y_BTHW = HeadNorm(p.norm_eps, groups=p.n_groups, name="norm_gated")(gated).reshape(
            y_BTHW.shape
        )
        return from_heads(m, ex, heads, width, p.bias)(y_BTHW)
