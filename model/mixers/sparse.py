"""Sparse attention: a token sees the last `local` tokens, the first `n_global` ones, and `n_random`
blocks drawn among those between (BigBird, Zaheer et al. 2020, arXiv 2007.14062, section 2, as its
internal construction, made causal). Without random blocks it is Longformer's pattern (Beltagy et
al. 2020, arXiv 2004.05150, section 3.1), with one projection for all tokens. What is drawn depends
on the number of the block alone, so that a longer sequence, or one token more, sees the same.

In blocks (`Execution.attention_chunk` above 0), each block of queries takes the blocks of keys that
any of it may see, of the same number for all; else the map is whole, and masked. So it is where
documents are kept apart: each has blocks, global tokens and draws of its own, from its first token.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from model import config, context
from model.config import Execution, Model
from model.mixers.chunked import MASKED
from model.mixers.linear import in_chunks
from model.mixers.recurrent import from_heads, to_heads
from model.mixers.softmax import check_heads, head_width, own_positions
from model.numerics import einsum, scores
from model.positions import NoPositions
from model.state import State
from model.work import Work, matmuls, per_token, size, total


@dataclasses.dataclass(frozen=True)
class Sparse:
    """Attention to a window, global tokens and random blocks."""

    n_heads: int = 4  # H
    d_head: int = 0  # width of a head, K; 0: d_model / n_heads
    block: int = 64  # tokens of a block
    local: int = 192  # tokens that a token sees before it, itself among them
    n_global: int = 128  # first tokens that all see
    n_random: int = 3  # blocks that a block sees besides
    positions: NoPositions | None = None  # of this layer; None: the model's

    apart = True

    def check(self, m: Model) -> None:
        config.positive(self, ("n_heads", "block", "local"), "model.sparse")
        check_heads(self, m, "sparse")
        positions = own_positions(self, m, "sparse")
        positions.check(m)
        positions.check_head(head_width(self, m), "a head")

    def parameters(self, m: Model) -> dict[str, int]:
        return {"attention": self.multiplied(m)}

    def multiplied(self, m: Model) -> int:
        return 4 * m.d_model * self.n_heads * head_width(self, m)

    def map_flops(self, m: Model, causal: bool) -> int | float:
        """Scores and values, on the full map or the pairs that see each other."""
        at = np.arange(m.seq_len)
        pairs = int(self.visible(at, at).sum()) if causal else m.seq_len**2
        return per_token(4 * self.n_heads * head_width(self, m) * pairs, m.seq_len)

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        tokens, wide = batch * m.seq_len, self.n_heads * head_width(self, m)
        pairs = m.seq_len**2
        if in_blocks(ex) and not ex.apart:
            keys = self.seen_blocks(-(-m.seq_len // self.block))
            pairs = keys.size * self.block**2
        kept = batch * self.n_heads * pairs * (4 + 2 * size(ex))
        outer = matmuls(
            2 * tokens * self.multiplied(m), 2 * tokens * m.d_model * wide, 8 * tokens * wide * 4
        )
        return total((outer, matmuls(4 * batch * wide * pairs, kept=kept, spare=kept // 3)))

    def state(self, m: Model) -> State:
        """Keys and values of every token: any may be drawn."""
        return State(per_token=2 * self.n_heads * head_width(self, m))

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [("heads", "model.sparse.n_heads", self.n_heads)]

    def drawn(self, blocks: int) -> np.ndarray:
        """Random blocks that each of so many sees, (blocks, n_random); -1: none is left to draw."""
        return _drawn(blocks, self.n_random, -(-self.n_global // self.block), self._behind())

    def _behind(self) -> int:
        """Blocks before a token's own that its window reaches."""
        return -(-(self.local - 1) // self.block)

    def visible(self, at, keys):
        """Whether each token at `at` (.., T) sees each key (.., J): (.., T, J). Positions of numpy
        give an array of numpy.
        """
        known = isinstance(at, np.ndarray) and isinstance(keys, np.ndarray)
        xp = np if known else jnp
        q, k = at[..., :, None], keys[..., None, :]
        seen = (q - k < self.local) | (k < self.n_global)
        if self.n_random:
            table = xp.asarray(self.drawn(1 + self._most(at, keys) // self.block))
            of_q = table[xp.clip(at // self.block, 0, len(table) - 1)]
            seen = seen | (of_q[..., :, None, :] == (k // self.block)[..., None]).any(-1)
        return seen & (k <= q) & (k >= 0)

    def _most(self, at, keys) -> int:
        """A position that none is beyond: keys of a cache stand in as many slots."""
        return max(int(at.max()), 0) if isinstance(at, np.ndarray) else keys.shape[-1]

    def seen_blocks(self, blocks: int) -> np.ndarray:
        """Blocks of keys that each block of queries takes, (blocks, how many), each once; -1: none.
        A block that nothing is drawn of has fewer.
        """
        out = []
        for i, drawn in enumerate(self.drawn(blocks)):
            near = range(max(0, i - self._behind()), i + 1)
            first = range(min(i + 1, -(-self.n_global // self.block)))
            out.append(sorted({*near, *first, *(int(d) for d in drawn if d >= 0)}))
        most = max(map(len, out))
        return np.array([row + [-1] * (most - len(row)) for row in out])

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _Sparse(self, m, ex, name=name)


@functools.cache
def _drawn(blocks: int, count: int, n_global: int, behind: int) -> np.ndarray:
    table = np.full((blocks, count), -1)
    for i in range(blocks):
        free = np.arange(n_global, i - behind)
        chosen = np.random.default_rng([7, i]).permutation(free)[:count]
        table[i, : len(chosen)] = chosen
    return table


def in_blocks(ex: Execution) -> bool:
    return ex.attention_chunk > 0


class _Sparse(nn.Module):
    p: Sparse
    m: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m, ex, width = self.p, self.m, self.ex, head_width(self.p, self.m)
        ctx, positions = ctx or context.plain(x_BTD.shape[1]), p.positions or m.positions
        q, k, v = (to_heads(m, ex, n, p.n_heads, width)(x_BTD) for n in "qkv")
        q, k = (positions.rotate(m, a, ctx.at) for a in (q, k))
        if ctx.slot is None and ctx.document_BT is None and in_blocks(ex):
            y_BTHK = _attend_in_blocks(p, ex, positions, q, k, v)
        else:
            k, v = (context.remember(self, n, a, ctx) for n, a in (("k", k), ("v", v)))
            seen = p.visible(ctx.at, ctx.keys)
            if ctx.document_BT is not None:
                seen = seen & context.visible(0, ctx)
            bias = positions.bias(p.n_heads, ctx.at, ctx.keys)
            raw = scores("bthk,bjhk->bhtj", q, k) * width**-0.5
            raw = raw if bias is None else raw + bias
            raw = jnp.where(seen[:, None] if seen.ndim == 3 else seen, raw, MASKED)
            weights = jax.nn.softmax(raw, -1).astype(ex.dtype)
            y_BTHK = einsum("bhtj,bjhk->bthk", weights, v)
        return from_heads(m, ex, p.n_heads, width)(y_BTHK)


def _attend_in_blocks(p: Sparse, ex: Execution, positions, q_BTHK, k_BTHK, v_BTHK):
    length, width = q_BTHK.shape[1], q_BTHK.shape[-1]
    q, k, v = (in_chunks(a, p.block) for a in (q_BTHK, k_BTHK, v_BTHK))  # B c i H K
    count = q.shape[1]
    table = p.seen_blocks(count)
    k, v = (a[:, table].reshape(a.shape[0], count, -1, *a.shape[3:]) for a in (k, v))
    at = np.arange(count * p.block).reshape(count, p.block)
    keys = np.where(table[..., None] < 0, -1, table[..., None] * p.block + np.arange(p.block))
    keys = keys.reshape(count, -1)
    raw = scores("bcihk,bcjhk->bchij", q, k) * width**-0.5
    bias = positions.bias(p.n_heads, at, keys)
    raw = raw if bias is None else raw + bias
    raw = jnp.where(p.visible(at, keys)[:, None], raw, MASKED)
    weights = jax.nn.softmax(raw, -1).astype(ex.dtype)
    y = einsum("bchij,bcjhk->bcihk", weights, v)
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :length]
