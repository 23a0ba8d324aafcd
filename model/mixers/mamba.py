"""Mamba, also S6 (Gu & Dao 2023, arXiv 2312.00752, algorithm 2): every channel has a state of N
numbers, h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t, y_t = C_t h_t + D x_t, with dt of each channel
and B and C of all, made of x_t after a short convolution and silu; then a gate silu(z) and a matrix
back to d_model (section 3.4, figure 3).

Starts: A = -(1 .. N), D = 1, softplus(dt bias) log-uniform in [0.001, 0.1], and the matrix before
it uniform in +-1/sqrt(rank), as the authors' code (state-spaces/mamba).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import selective
from model.mixers.recurrent import (
    HeadNorm,
    Recurrent,
    ShortConv,
    conv_flops,
    conv_state,
    from_channels,
    silu,
    to_channels,
)
from model.numerics import precise
from model.params import Einsum, declare
from model.starts import Counted, Steps
from model.state import State
from model.work import Work, matmuls, size, total
from model.xla_cpu import shifted, weighted


@dataclasses.dataclass(frozen=True)
class Mamba(Recurrent):
    """A selective state space."""

    expand: int = 2  # channels over d_model
    d_state: int = 16  # numbers of state a channel, Z
    rank: int = 0  # of the projection to time steps, P; 0: d_model / 16
    conv: int = 4  # tokens that the short convolution sees
    # of the thin time steps, B and C: none | plain (no weights, Falcon Mamba, arXiv 2410.05355)
    # | scaled (Jamba, arXiv 2403.19887)
    thin_norm: str = "none"
    norm_eps: float = 1e-5  # of these norms
    conv_bias: bool = True  # of the short convolution
    bias: bool = False  # of x, z and the output

    apart = True

    def channels(self, m: Model) -> int:
        return self.expand * m.d_model

    def thin(self, m: Model) -> int:
        return self.rank or -(-m.d_model // 16)

    def check(self, m: Model) -> None:
        config.positive(self, ("expand", "d_state", "conv"), "model.mamba")
        if self.thin_norm not in ("none", "plain", "scaled"):
            raise ValueError(
                f"model.mamba.thin_norm={self.thin_norm!r}: choose from none, plain, scaled"
            )

    def parameters(self, m: Model) -> dict[str, int]:
        """Kernel and bias of the convolution, biases of steps, rates, skips; biases; norms."""
        u = self.channels(m)
        biases = (2 * u + m.d_model) * self.bias + u * self.conv_bias
        normed = (self.thin(m) + 2 * self.d_state) * (self.thin_norm == "scaled")
        more = u * (self.conv + self.d_state + 2) + biases
        return {"mixer": self.multiplied(m) + more, "norms": normed}

    def multiplied(self, m: Model) -> int:
        """x, z and out of D x U, dt, B and C of U x (P + 2 Z), dt of P x U."""
        return self.channels(m) * (3 * m.d_model + 2 * (self.thin(m) + self.d_state))

    def recurrence(self, m: Model) -> int:
        """The convolution, and update and read of the state."""
        u = self.channels(m)
        return conv_flops(self.conv, u) + selective.flops(u, self.d_state)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, u = batch * m.seq_len, self.channels(m)
        one = 2 * tokens * self.multiplied(m) + tokens * conv_flops(self.conv, u)
        last, kept = 2 * tokens * u * m.d_model, 10 * tokens * u * size(ex)
        if self.thin_norm != "none":
            kept += tokens * 2 * (self.thin(m) + 2 * self.d_state) * size(ex)
        scanned = selective.work(ex, batch, m.seq_len, u, self.d_state)
        return total((matmuls(one, last, kept), scanned))

    def state(self, m: Model) -> State:
        u = self.channels(m)
        return State(per_sequence=u * self.d_state + conv_state(self.conv, u))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("channels", "expand x d_model of model.mamba", self.channels(m))]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Mamba(self, m, ex, name=name)


class _Mamba(nn.Module):
    p: Mamba
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, u = self.p, self.m, self.ex, self.p.channels(self.m)
        ctx, rank = ctx or context.plain(x_BTD.shape[1]), p.thin(m)
        x_BTU, z_BTU = (to_channels(m, ex, n, u, bias=p.bias)(x_BTD) for n in ("x", "z"))
        x_BTU = silu(ShortConv(p.conv, ("channels",), p.conv_bias, name="conv")(x_BTU, ctx))

        def thin(name, width):
            a = Einsum("btu,up->btp", (u, width), ("channels", None), u, dtype=ex.dtype,
                       name=name)(x_BTU)  # fmt: skip
            if p.thin_norm == "none":
                return a
            return HeadNorm(p.norm_eps, p.thin_norm == "scaled", name=f"norm_{name}")(a)

        # uniform in +-1/sqrt(rank) has this spread
        dt_BTU = Einsum("btp,pu->btu", (rank, u), (None, "channels"), rank, 3**-0.5, ex.dtype,
                        name="steps")(thin("steps_down", rank))  # fmt: skip
        bias_U = declare(self, "steps_bias", (u,), ("channels",), start=Steps())
        dt_BTU = jax.nn.softplus(shifted(precise(dt_BTU), bias_U))
        rates_UZ = declare(self, "rates", (u, p.d_state), ("channels", None), start=Counted())
        skip_U = declare(self, "skip", (u,), ("channels",), mean=1.0)
        y_BTU = selective.mix(
            self, ctx, ex, dt_BTU, -jnp.exp(rates_UZ), thin("b", p.d_state), thin("c", p.d_state),
            precise(x_BTU),
        )  # fmt: skip
        y_BTU = (y_BTU + weighted(precise(x_BTU), skip_U)).astype(ex.dtype)
        return from_channels(m, ex, u, p.bias)(y_BTU * silu(z_BTU))
