"""Gated linear attention (Yang et al. 2023, arXiv 2312.06635, eq 3 and section 4.4): S_t =
Diag(a_t) S_(t-1) + k_t v_t^T, y_t = S_t^T q_t, with a decay a_t = sigmoid(x W_1 W_2 + b)^(1/16) of
each channel of the keys, W_1 of rank 16; then a norm of every head, and a gate silu(x W + b) on the
output. Keys are half as wide as values, together d_model / 2.
"""

import dataclasses

import jax
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import linear
from model.mixers.recurrent import HeadNorm, divided, from_heads, silu, to_heads
from model.numerics import precise
from model.params import Einsum
from model.work import Work, matmuls, size, total

TEMPERATURE = 16  # the paper's tau


@dataclasses.dataclass(frozen=True)
class GLA(linear.Heads):
    """Gated linear attention."""

    n_heads: int = 4  # H
    d_head: int = 0  # width of a head's queries and keys, K; 0: half that of its values
    d_value: int = 0  # width of a head's values, W; 0: d_model / n_heads
    rank: int = 16  # of the projection to decays

    apart = True

    def widths(self, m: Model) -> tuple[int, int]:
        """Of a head's keys and values."""
        w = self.d_value or m.d_model // self.n_heads
        return self.d_head or max(1, w // 2), w

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads", "rank"), "model.gla")
        if not self.d_value:
            divided(m.d_model, self.n_heads, "model.d_model", "model.gla.n_heads")

    def parameters(self, m: Model) -> dict[str, int]:
        k, w = self.widths(m)
        return {"mixer": self.multiplied(m) + self.n_heads * (k + w), "norms": w}

    def multiplied(self, m: Model) -> int:
        """q and k of D x H K; v, the gate and out of D x H W; two thin matrices of the decays."""
        (k, w), h = self.widths(m), self.n_heads
        return m.d_model * h * (2 * k + 3 * w) + self.rank * (m.d_model + h * k)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        (k, w), h, tokens = self.widths(m), self.n_heads, batch * m.seq_len
        kept, last = tokens * h * (8 * k + 6 * w) * size(ex), 2 * tokens * h * w * m.d_model
        return total(
            (
                matmuls(2 * tokens * self.multiplied(m), last, kept),
                linear.work(ex, batch, m.seq_len, h, h, k, w, channels=True),
            )
        )

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.gla.n_heads", self.n_heads)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _GLA(self, m, ex, name=name)


class _GLA(nn.Module):
    p: GLA
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, (k, w) = self.p, self.m, self.ex, self.p.widths(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])

        def project(name, width, bias=False):
            return to_heads(m, ex, name, p.n_heads, width, bias=bias)(x_BTD)

        thin_BTP = Einsum("btd,dp->btp", (m.d_model, p.rank), ("embed", None), m.d_model,
                          dtype=ex.dtype, name="decay_down")(x_BTD)  # fmt: skip
        decay_BTHK = Einsum("btp,phk->bthk", (p.rank, p.n_heads, k), (None, "heads", "head_dim"),
                            p.rank, dtype=ex.dtype, bias=True, name="decay")(thin_BTP)  # fmt: skip
        log_BTHK = jax.nn.log_sigmoid(precise(decay_BTHK)) / TEMPERATURE
        q_BTHK, k_BTHK = project("q", k) * k**-0.5, project("k", k)
        y_BTHW = linear.mix(self, ctx, ex, q_BTHK, k_BTHK, project("v", w), log_BTHK)
        y_BTHW = HeadNorm(name="norm_head")(y_BTHW) * silu(project("gate", w, bias=True))
        return from_heads(m, ex, p.n_heads, w)(y_BTHW)
