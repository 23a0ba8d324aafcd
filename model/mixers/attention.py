"""Causal attention, softmax(q k / sqrt(K)) v (Vaswani et al. 2017, arXiv 1706.03762, eq 1), with
fewer heads for keys and values where asked: grouped-query (Ainslie et al. 2023, arXiv 2305.13245),
multi-query (Shazeer 2019, arXiv 1911.02150).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.softmax import (
    Rule,
    attend,
    check_heads,
    head_width,
    map_flops,
    map_work,
    output,
    own_positions,
)
from model.numerics import precise
from model.params import Einsum, declare
from model.positions import NoPositions
from model.state import State
from model.work import Work, matmuls, size, total


@dataclasses.dataclass(frozen=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention."""

    n_heads: int = 4  # query heads, H
    n_kv_heads: int = 0  # heads of keys and values, M; 0: n_heads; 1: multi-query
    d_head: int = 0  # width of a head, K; 0: d_model / n_heads
    # a token attends to itself and the window - 1 tokens before it; 0: to all before it
    window: int = 0
    # of queries and keys: none | head (each head by itself) | full (all heads together)
    qk_norm: str = "none"
    qkv_bias: bool = False  # biases of queries, keys and values
    out_bias: bool = False  # a bias of the output
    cap: float = 0.0  # scores become cap x tanh(scores / cap); 0: off
    scale: float = 0.0  # scores are multiplied by it, before the cap; 0: 1 / sqrt(K)
    clip: float = 0.0  # queries, keys and values are kept within +-clip (DBRX, OLMo); 0: off
    # a learned score of each head beside those of the keys, whose weight goes nowhere (gpt-oss;
    # Xiao et al. 2023, arXiv 2309.17453)
    sinks: bool = False
    # what a head gives is multiplied by sigmoid(x W), number by number (Qiu et al. 2025, arXiv
    # 2505.06708; Qwen3-Next); W has a bias where queries have
    gate: bool = False
    positions: NoPositions | None = None  # of this layer; None: the model's

    apart = transfers = True

    def m_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    def rule(self, m: Model) -> Rule:
        positions = self.positions or m.positions
        return Rule(self.n_heads, self.window, self.cap, positions, self.sinks)

    def _widths(self, m: Model) -> tuple[int, int]:
        """Of all queries, and of all keys."""
        return self.n_heads * head_width(self, m), self.m_heads() * head_width(self, m)

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads",), "model.attention")
        check_heads(self, m, "attention")
        if self.n_heads % self.m_heads():
            raise ValueError(
                f"model.attention.n_kv_heads={self.n_kv_heads} does not divide n_heads="
                f"{self.n_heads}"
            )
        if self.qk_norm not in ("none", "head", "full"):
            raise ValueError(
                f"model.attention.qk_norm={self.qk_norm!r}: choose from none, head, full"
            )
        positions = own_positions(self, m, "attention")
        positions.check(m)
        positions.check_head(head_width(self, m), "a head")

    def parameters(self, m: Model) -> dict[str, int]:
        q, kv = self._widths(m)
        biases = (q * (1 + self.gate) + 2 * kv) * self.qkv_bias + m.d_model * self.out_bias
        biases += self.n_heads * self.sinks
        normed = {"none": 0, "head": 2 * head_width(self, m), "full": q + kv}[self.qk_norm]
        return {
            "attention": self.multiplied(m) + biases,
            "norms": m.norm.parameters(normed) if normed else 0,
        }

    def multiplied(self, m: Model) -> int:
        """q, out and the gate of D x H K, k and v of D x M K."""
        q, kv = self._widths(m)
        return m.d_model * ((2 + self.gate) * q + 2 * kv)

    def map_flops(self, m: Model, causal: bool) -> int | float:
        """Scores and values: 2 x 2 H K per attended pair."""
        return map_flops(self, m, causal, 2 * head_width(self, m))

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        """Kept: queries, keys, values, what is attended to, the map, and of a gate what goes into
        it, comes out of it and is gated.
        """
        tokens, (q, kv), k = batch * m.seq_len, self._widths(m), head_width(self, m)
        normed = 0 if self.qk_norm == "none" else q + kv
        kept = tokens * (2 * (q + kv) + normed + 3 * q * self.gate) * size(ex)
        return total(
            (
                matmuls(2 * tokens * self.multiplied(m), 2 * tokens * m.d_model * q, kept=kept),
                map_work(self.rule(m), ex, m.seq_len, batch, k, k),
            )
        )

    def state(self, m: Model) -> State:
        """Keys and values of every token."""
        return State(per_token=2 * self._widths(m)[1])

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [
            ("heads", "model.attention.n_heads", self.n_heads),
            ("heads", "the number of key and value heads", self.m_heads()),
        ]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Attention(self, m, ex, name=name)


class _Attention(nn.Module):
    p: Attention
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, dtype, width = self.p, self.m, self.ex.dtype, head_width(self.p, self.m)
        ctx = ctx or context.plain(x_BTD.shape[1])
        rule = p.rule(m)

        def project(name, heads):
            shape, axes = (m.d_model, heads, width), ("embed", "heads", "head_dim")
            return Einsum(
                "btd,dhk->bthk", shape, axes, m.d_model, dtype=dtype, bias=p.qkv_bias, name=name
            )(x_BTD)

        def clipped(name, heads):
            y_BTHK = project(name, heads)
            return jnp.clip(y_BTHK, -p.clip, p.clip) if p.clip else y_BTHK

        def placed(name, heads):
            """Normed and turned to its position."""
            x_BTHK, name = clipped(name, heads), f"norm_{name}"
            if p.qk_norm == "full":
                flat = x_BTHK.reshape(*x_BTHK.shape[:2], -1)
                x_BTHK = m.norm.module(name)(flat).reshape(x_BTHK.shape)
            elif p.qk_norm == "head":
                x_BTHK = m.norm.module(name)(x_BTHK)
            return rule.positions.rotate(m, x_BTHK, ctx.at)

        q_BTHK = placed("q", p.n_heads)
        k_BJMK = context.remember(self, "k", placed("k", p.m_heads()), ctx)
        v_BJMK = context.remember(self, "v", clipped("v", p.m_heads()), ctx)
        sinks_H = declare(self, "sinks", (p.n_heads,), ("heads",)) if p.sinks else None
        scale = p.scale or width**-0.5
        y_BTHK = attend(rule, self.ex, ctx, q_BTHK, k_BJMK, v_BJMK, scale, sinks_H)
        if p.gate:
            y_BTHK *= jax.nn.sigmoid(precise(project("gate", p.n_heads))).astype(dtype)
        return output(p, m, dtype, width)(y_BTHK)
