"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236, eq 8 to 12 and 18 to 20): S_t =
S_(t-1) + f(k_t) v_t^T, z_t = z_(t-1) + f(k_t), y_t = S_t^T f(q_t) / z_t f(q_t), with f = elu + 1.
The normaliser z is one more column of the state, for a value that is 1. Neither positions nor
decays: order is known by what has been seen.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import linear
from model.mixers.recurrent import Recurrent, divided, from_heads, to_heads
from model.numerics import precise
from model.state import State
from model.work import Work, matmuls, size, total


@dataclasses.dataclass(frozen=True)
class LinearAttention(Recurrent):
    """Attention whose scores are products of positive features."""

    n_heads: int = 4  # H
    d_head: int = 0  # width of a head, K; 0: d_model / n_heads

    apart = True

    def width(self, m: Model) -> int:
        return self.d_head or m.d_model // self.n_heads

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads",), "model.linear_attention")
        if not self.d_head:
            divided(m.d_model, self.n_heads, "model.d_model", "model.linear_attention.n_heads")

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mixer": self.multiplied(m)}

    def multiplied(self, m: Model) -> int:
        return 4 * m.d_model * self.n_heads * self.width(m)

    def recurrence(self, m: Model) -> int:
        """Update and read of K x (K + 1) numbers a head."""
        return linear.flops(self.n_heads, self.width(m), self.width(m) + 1)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        h, k, tokens = self.n_heads, self.width(m), batch * m.seq_len
        kept, last = 6 * tokens * h * k * size(ex), 2 * tokens * h * k * m.d_model
        return total(
            (
                matmuls(2 * tokens * self.multiplied(m), last, kept),
                linear.work(ex, batch, m.seq_len, h, h, k, k + 1, learned=False),
            )
        )

    def state(self, m: Model) -> State:
        return State(per_sequence=self.n_heads * self.width(m) * (self.width(m) + 1))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.linear_attention.n_heads", self.n_heads)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _LinearAttention(self, m, ex, name=name)


class _LinearAttention(nn.Module):
    p: LinearAttention
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex = self.p, self.m, self.ex
        ctx = ctx or context.plain(x_BTD.shape[1])
        q_BTHK, k_BTHK, v_BTHK = (
            to_heads(m, ex, name, p.n_heads, p.width(m))(x_BTD) for name in "qkv"
        )
        q_BTHK, k_BTHK = ((jax.nn.elu(precise(a)) + 1).astype(ex.dtype) for a in (q_BTHK, k_BTHK))
        ones_BTH1 = jnp.ones_like(v_BTHK[..., :1])
        y_BTHW = linear.mix(self, ctx, ex, q_BTHK, k_BTHK, jnp.concatenate([v_BTHK, ones_BTH1], -1))
        y, z = precise(y_BTHW[..., :-1]), precise(y_BTHW[..., -1:])
        if ctx.slot is not None:  # at a padded place nothing has been seen
            z = jnp.where(z > 0, z, 1)
        return from_heads(m, ex, p.n_heads, p.width(m))((y / z).astype(ex.dtype))
