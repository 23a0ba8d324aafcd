"""Attention inside buckets of locality-sensitive hashing (Kitaev et al. 2020, arXiv 2001.04451,
section 2): queries are keys, k = q / |q|; a round hashes them by the largest of [x R; -x R], with a
random R; and a token sees tokens of its bucket, itself only where it sees no other. Rounds are one
softmax over all that any of them shows (eq 7 to 10).

The paper cuts the sorted sequence into chunks, whose ends move with what comes later. Here a token
sees the last `span` tokens of its bucket, whatever comes later: the same pairs in a chunk and the
one before it, of what is sorted by bucket and position, and nothing looks ahead. R is drawn from a
fixed key, the same for all heads.

Sorted (`Execution.attention_chunk` above 0), chunks of `span` see themselves and the one before;
else the map is whole, and masked, as it is in decoding.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.chunked import MASKED
from model.mixers.recurrent import from_heads, to_heads
from model.mixers.softmax import check_heads, head_width, own_positions
from model.numerics import einsum, precise, scores
from model.positions import NoPositions
from model.state import State
from model.work import Work, matmuls, pairs, per_token, size, total

ALONE = -1e5  # the score of a token with itself


@dataclasses.dataclass(frozen=True)
class Reformer:
    """Attention among tokens that hash alike."""

    n_heads: int = 4  # H
    d_head: int = 0  # width of a head, K; 0: d_model / n_heads
    n_buckets: int = 16  # of a round
    n_rounds: int = 2  # of hashing
    # tokens of its bucket that a token sees, the last ones; 0: 64, of a shorter context all
    span: int = 0
    positions: NoPositions | None = None  # of this layer; None: the model's

    apart = True

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads", "n_buckets", "n_rounds"), "model.reformer")
        check_heads(self, m, "reformer")
        if self.n_buckets % 2:
            raise ValueError(
                f"model.reformer.n_buckets={self.n_buckets} must be even: a direction has two ends"
            )
        if self.span > m.seq_len:  # a chunk of what is sorted
            raise ValueError(
                f"model.reformer.span={self.span} is longer than model.seq_len={m.seq_len}"
            )
        positions = own_positions(self, m, "reformer")
        positions.check(m)
        positions.check_head(head_width(self, m), "a head")

    def reach(self, m: Model) -> int:
        return self.span or min(64, m.seq_len)

    def parameters(self, m: Model) -> dict[str, int]:
        return {"attention": self.multiplied(m)}

    def multiplied(self, m: Model) -> int:
        return 3 * m.d_model * self.n_heads * head_width(self, m)

    def _hashing(self, m: Model) -> int:
        """FLOPs of a token."""
        return self.n_rounds * self.n_buckets * self.n_heads * head_width(self, m)

    def map_flops(self, m: Model, causal: bool) -> int | float:
        """Hashing, and scores and values, on the full map or of as many pairs as a token may see at
        most.
        """
        n = pairs(m.seq_len, self.n_rounds * self.reach(m), causal)
        attended = 4 * self.n_heads * head_width(self, m) * n
        return self._hashing(m) + per_token(attended, m.seq_len)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, wide = batch * m.seq_len, self.n_heads * head_width(self, m)
        seen = m.seq_len**2
        if in_order(ex, self.positions or m.positions):
            span = self.reach(m)
            seen = self.n_rounds * 2 * span**2 * -(-m.seq_len // span)
        kept = batch * self.n_heads * seen * (4 + 2 * size(ex))
        hashing = tokens * self._hashing(m)
        outer = matmuls(
            2 * tokens * self.multiplied(m), 2 * tokens * m.d_model * wide, 6 * tokens * wide * 4
        )
        inner = matmuls(4 * batch * wide * seen, kept=kept, spare=kept // 3)
        return total((outer, inner, Work(hashing, 0, hashing)))

    def state(self, m: Model) -> State:
        """Queries and values of every token."""
        return State(per_token=2 * self.n_heads * head_width(self, m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.reformer.n_heads", self.n_heads)]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Reformer(self, m, ex, name=name)

    def buckets(self, q_BTHK):
        """Of every round, (B, H, T, R)."""
        shape = self.n_rounds, q_BTHK.shape[-1], self.n_buckets // 2
        turned = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
        q = jax.lax.stop_gradient(precise(q_BTHK))
        x = einsum("bthk,rkn->bhtrn", q, jnp.asarray(turned, q.dtype))
        return jnp.argmax(jnp.concatenate([x, -x], -1), -1)


def in_order(ex: Execution, positions) -> bool:
    return ex.attention_chunk > 0 and not positions.adds_bias


class _Reformer(nn.Module):
    p: Reformer
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, width = self.p, self.m, self.ex, head_width(self.p, self.m)
        ctx, positions = ctx or context.plain(x_BTD.shape[1]), p.positions or m.positions
        q, v = (to_heads(m, ex, n, p.n_heads, width)(x_BTD) for n in ("qk", "v"))
        if ctx.slot is None and in_order(ex, positions):
            found = p.buckets(q)
            q, k = _queries_and_keys(m, positions, ctx.at, ctx.at, q, q)
            y_BTHK = _attend_in_order(p, p.reach(m), ex, ctx.document_BT, found, q, k, v)
        else:
            kept, v = (context.remember(self, n, a, ctx) for n, a in (("qk", q), ("v", v)))
            of_k = p.buckets(kept)
            of_q = of_k if ctx.slot is None else p.buckets(q)
            q, k = _queries_and_keys(m, positions, ctx.at, ctx.keys, q, kept)
            seen, alone = _visible(p.reach(m), ctx, of_q, of_k)
            raw = scores("bthk,bjhk->bhtj", q, k) * width**-0.5
            bias = positions.bias(p.n_heads, ctx.at, ctx.keys)
            raw = (raw if bias is None else raw + bias) + ALONE * alone
            weights = jax.nn.softmax(jnp.where(seen, raw, MASKED), -1)
            y_BTHK = einsum("bhtj,bjhk->bthk", weights.astype(ex.dtype), v)
        return from_heads(m, ex, p.n_heads, width)(y_BTHK)


def _queries_and_keys(m, positions, at, keys, q_BTHK, k_BJHK):
    k = precise(k_BJHK)
    k = k * jax.lax.rsqrt((k * k).sum(-1, keepdims=True) + 1e-12)
    k = k.astype(k_BJHK.dtype)
    return positions.rotate(m, q_BTHK, at), positions.rotate(m, k, keys)


def _visible(span: int, ctx, of_q_BHTR, of_k_BHJR):
    """(whether a key is among the last `span` of a token's bucket in any round, whether it is the
    token itself): BHTJ.
    """
    at, keys = context.on_device(ctx.at)[..., :, None], context.on_device(ctx.keys)[..., None, :]
    before = (keys <= at) & (keys >= 0)
    if ctx.document_BT is not None:
        before &= context.visible(0, ctx)
    before, alone = (a[:, None] if a.ndim == 3 else a for a in (before, keys == at))
    same = (of_q_BHTR[..., :, None, :] == of_k_BHJR[..., None, :, :]) & before[..., None]
    later = jnp.flip(jnp.cumsum(jnp.flip(same.astype(jnp.int32), -2), -2), -2) - same
    return (same & (later < span)).any(-1), alone


def _attend_in_order(p: Reformer, span: int, ex, document_BT, found_BHTR, q_BTHK, k_BTHK, v_BTHK):
    """A document that is kept apart has buckets of its own."""
    length, width = q_BTHK.shape[1], q_BTHK.shape[-1]
    count, beyond = -(-length // span), p.n_buckets
    more = count * span - length
    filled = ((0, 0), (0, 0), (0, more), (0, 0))
    if document_BT is not None:
        found_BHTR = found_BHTR + p.n_buckets * document_BT[:, None, :, None]
        beyond *= length
    found = jnp.pad(found_BHTR, filled, constant_values=beyond)
    q, k, v = (jnp.pad(a.swapaxes(1, 2), filled) for a in (q_BTHK, k_BTHK, v_BTHK))
    at_T = jnp.arange(count * span)
    if document_BT is None:  # B H T R: no two are equal
        order = jnp.argsort(found * count * span + at_T[:, None], 2)
    else:  # such numbers are too large
        order = jnp.argsort(found, 2, stable=True)
    rank = jnp.argsort(order, 2)  # where a token stands in each round's order
    outs, sums = [], []
    for r in range(p.n_rounds):
        chosen = order[..., r, None]

        def sorted_(a, chosen=chosen):
            """B H c i ..., in this round's order."""
            a = jnp.take_along_axis(a, chosen, 2)
            return a.reshape(*a.shape[:2], count, span, a.shape[-1])

        def with_before(a):
            before = jnp.pad(a[:, :, :-1], [(0, 0)] * 2 + [(1, 0)] + [(0, 0)] * 2)
            return jnp.concatenate([before, a], 3)

        at = sorted_(jnp.broadcast_to(at_T[:, None], (*found.shape[:3], 1)))[..., 0]
        bucket, place = sorted_(found), sorted_(rank)
        bucket_j, place_j = with_before(bucket + 1) - 1, with_before(place)
        apart = place[..., :, None, :] - place_j[..., None, :, :]
        shown = (bucket[..., :, None, :] == bucket_j[..., None, :, :]) & (apart >= 0)
        shown &= apart < span
        rounds = jnp.maximum(1, shown.sum(-1))
        raw = scores("bhcik,bhcjk->bhcij", sorted_(q), with_before(sorted_(k))) * width**-0.5
        own = at[..., :, None] == with_before(at[..., None] + 1)[..., None, :, 0] - 1
        raw = jnp.where(shown[..., r], raw + ALONE * own - jnp.log(1.0 * rounds), MASKED)
        most = jax.nn.logsumexp(raw, -1, keepdims=True)
        y = einsum(
            "bhcij,bhcjk->bhcik",
            jnp.exp(raw - most).astype(ex.dtype),
            with_before(sorted_(v)),
        )
        back = rank[..., r, None]
        outs.append(jnp.take_along_axis(y.reshape(*q.shape[:3], -1), back, 2))
        sums.append(jnp.take_along_axis(most.reshape(*q.shape[:3], 1), back, 2))
    shares = jax.nn.softmax(jnp.stack(sums), 0)
    y = (precise(jnp.stack(outs)) * shares).sum(0)[:, :, :length]
    return y.astype(ex.dtype).swapaxes(1, 2)
