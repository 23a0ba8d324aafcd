"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464, eq 10): S_t = a_t S_(t-1) (I - b_t k_t
k_t^T) + b_t v_t k_t^T, y_t = S_t q_t, with a short convolution and silu on queries, keys and
values, queries and keys of length 1, b_t = sigmoid(x W), a_t = exp(-A softplus(x W + bias)) as
Mamba-2's; then a norm of every head and a gate silu(x W). As the linear layers of Qwen3-Next.
Without decay and gate, gated_delta(decay=false,gate=false), it is DeltaNet (Yang et al. 2024, arXiv
2406.06484).

Starts: A uniform in [1, 16], softplus(bias) log-uniform in [0.001, 0.1], as the authors' code
(NVlabs/GatedDeltaNet).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import delta
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


@dataclasses.dataclass(frozen=True)
class GatedDelta(Recurrent):
    """A state that forgets what it holds for a key before it writes."""

    n_heads: int = 4  # of queries and keys
    n_value_heads: int = 0  # of values and states, H; 0: n_heads
    d_head: int = 0  # width of a head's queries and keys, K; 0: d_model / n_heads
    d_value: int = 0  # width of a head's values, W; 0: d_head
    conv: int = 4  # tokens that the short convolution sees
    decay: bool = True  # a state fades; false: DeltaNet
    gate: bool = True  # the output is gated
    norm_eps: float = 1e-5  # of the norm of every head

    apart = True

    def heads(self) -> int:
        return self.n_value_heads or self.n_heads

    def widths(self, m: Model) -> tuple[int, int]:
        """Of a head's keys and values."""
        k = self.d_head or m.d_model // self.n_heads
        return k, self.d_value or k

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads", "conv"), "model.gated_delta")
        if not self.d_head:
            divided(m.d_model, self.n_heads, "model.d_model", "model.gated_delta.n_heads")
        name = "model.gated_delta.n_value_heads"
        divided(self.heads(), self.n_heads, name, "model.gated_delta.n_heads")

    def _wide(self, m: Model) -> tuple[int, int]:
        """Of all keys, and of all values."""
        k, w = self.widths(m)
        return self.n_heads * k, self.heads() * w

    def parameters(self, m: Model) -> dict[str, int]:
        keys, values = self._wide(m)
        more = self.conv * (2 * keys + values) + 2 * self.heads() * self.decay
        return {"mixer": self.multiplied(m) + more, "norms": self.widths(m)[1]}

    def multiplied(self, m: Model) -> int:
        """q, k, v, out and the gate; b and the decay of D x H."""
        keys, values = self._wide(m)
        thin = self.heads() * (1 + self.decay)
        return m.d_model * (2 * keys + (2 + self.gate) * values + thin)

    def recurrence(self, m: Model) -> int:
        """The convolutions, and the state's."""
        keys, values = self._wide(m)
        state = delta.flops(self.heads(), *self.widths(m))
        return conv_flops(self.conv, 2 * keys + values) + state

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, (keys, values) = batch * m.seq_len, self._wide(m)
        one = 2 * tokens * self.multiplied(m)
        one += tokens * conv_flops(self.conv, 2 * keys + values)
        kept = tokens * (10 * keys + (7 + 2 * self.gate) * values) * size(ex)
        inner = delta.work(ex, batch, m.seq_len, self.heads(), *self.widths(m))
        return total((matmuls(one, 2 * tokens * values * m.d_model, kept), inner))

    def state(self, m: Model) -> State:
        (k, w), (keys, values) = self.widths(m), self._wide(m)
        kept = self.heads() * k * w + conv_state(self.conv, 2 * keys + values)
        return State(per_sequence=kept)

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.gated_delta.n_heads", self.n_heads)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _GatedDelta(self, m, ex, name=name)


def unit(x):
    """x / |x| over the last axis."""
    wide = precise(x)
    return wide * jax.lax.rsqrt((wide * wide).sum(-1, keepdims=True) + 1e-6)


class _GatedDelta(nn.Module):
    p: GatedDelta
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, (k, w), heads = self.p, self.m, self.ex, self.p.widths(self.m), self.p.heads()
        ctx = ctx or context.plain(x_BTD.shape[1])

        def convolved(name, count, width):
            a = to_heads(m, ex, name, count, width)(x_BTD)
            conv = ShortConv(p.conv, ("heads", None), bias=False, name=f"conv_{name}")
            return silu(conv(a, ctx))

        def thin(name):
            return precise(to_heads(m, ex, name, heads, 1)(x_BTD)[..., 0])

        q, k_BTHK = (unit(convolved(name, p.n_heads, k)) for name in ("q", "k"))
        q, k_BTHK = (q * k**-0.5).astype(ex.dtype), k_BTHK.astype(ex.dtype)
        copies = heads // p.n_heads
        if copies > 1:
            q, k_BTHK = (jnp.repeat(a, copies, 2) for a in (q, k_BTHK))
        v_BTHW, log_BTH = convolved("v", heads, w), None
        if p.decay:
            bias_H = declare(self, "steps_bias", (heads,), ("heads",), start=Steps())
            rates_H = declare(self, "rates", (heads,), ("heads",), start=LogUniform(1, 16))
            log_BTH = -jnp.exp(rates_H) * jax.nn.softplus(thin("steps") + bias_H)
        b_BTH = jax.nn.sigmoid(thin("beta"))
        y_BTHW = delta.mix(self, ctx, ex, q, k_BTHK, v_BTHW, b_BTH, log_BTH)
        y_BTHW = HeadNorm(p.norm_eps, name="norm_head")(y_BTHW)
        if p.gate:
            y_BTHW = y_BTHW * silu(to_heads(m, ex, "gate", heads, w)(x_BTD))
        return from_heads(m, ex, heads, w)(y_BTHW)
