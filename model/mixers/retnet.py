"""Retention (Sun et al. 2023, arXiv 2307.08621, eq 5 to 8): S_t = g S_(t-1) + k_t v_t^T, y_t =
S_t^T q_t, with a fixed decay g = 1 - 2^(-5-h) of head h, queries and keys turned to their positions
as by rope, a norm of every head, and a gate silu(x W) on the output. Values are twice as wide as
keys (section 3.1). The norm is x / rms(x) without a scale, as in the authors' code
(microsoft/torchscale); it takes out the factors by which section 2.2 bounds scores, which are left
out here.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers import linear
from model.mixers.recurrent import HeadNorm, divided, from_heads, silu, to_heads
from model.positions import Rope
from model.work import Work, matmuls, size, total


@dataclasses.dataclass(frozen=True)
class RetNet(linear.Heads):
    """Multi-scale retention."""

    n_heads: int = 4  # H
    d_head: int = 0  # width of a head's queries and keys, K; 0: d_model / n_heads
    d_value: int = 0  # width of a head's values, W; 0: twice that of its keys
    theta: float = 10_000.0  # of the angles of queries and keys

    apart = True

    def widths(self, m: Model) -> tuple[int, int]:
        """Of a head's keys and values."""
        k = self.d_head or m.d_model // self.n_heads
        return k, self.d_value or 2 * k

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads",), "model.retnet")
        if not self.d_head:
            divided(m.d_model, self.n_heads, "model.d_model", "model.retnet.n_heads")
        rope = Rope(self.theta)
        rope.check(m)
        rope.check_head(self.widths(m)[0], "a head of model.retnet")

    def parameters(self, m: Model) -> dict[str, int]:
        return {"mixer": self.multiplied(m)}

    def multiplied(self, m: Model) -> int:
        """q and k of D x H K; v, the gate and out of D x H W."""
        k, w = self.widths(m)
        return m.d_model * self.n_heads * (2 * k + 3 * w)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        (k, w), h, tokens = self.widths(m), self.n_heads, batch * m.seq_len
        kept, last = tokens * h * (4 * k + 6 * w) * size(ex), 2 * tokens * h * w * m.d_model
        return total(
            (
                matmuls(2 * tokens * self.multiplied(m), last, kept),
                linear.work(ex, batch, m.seq_len, h, h, k, w, learned=False),
            )
        )

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.retnet.n_heads", self.n_heads)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _RetNet(self, m, ex, name=name)


class _RetNet(nn.Module):
    p: RetNet
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, (k, w) = self.p, self.m, self.ex, self.p.widths(self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])

        def project(name, width):
            return to_heads(m, ex, name, p.n_heads, width)(x_BTD)

        q_BTHK, k_BTHK = (Rope(p.theta).rotate(m, project(n, k), ctx.at) for n in ("q", "k"))
        log_H = np.log1p(-(2.0 ** -(5 + np.arange(p.n_heads)))).astype(np.float32)
        log_BTH = jnp.broadcast_to(log_H, (*x_BTD.shape[:2], p.n_heads))
        y_BTHW = linear.mix(self, ctx, ex, q_BTHK, k_BTHK * k**-0.5, project("v", w), log_BTH)
        y_BTHW = HeadNorm(scaled=False)(y_BTHW) * silu(project("gate", w))
        return from_heads(m, ex, p.n_heads, w)(y_BTHW)
