"""Causal attention, softmax(q k / sqrt(K)) v (Vaswani et al. 2017, arXiv 1706.03762, eq 1), with
fewer heads for keys and values where asked: grouped-query (Ainslie et al. 2023, arXiv 2305.13245),
multi-query (Shazeer 2019, arXiv 1911.02150). A window, a soft-cap of the scores, and norms of
queries and keys are fields of the model.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import context, norms, positions
from model.config import Execution, Model
from model.mixers import chunked
from model.params import Einsum, einsum, scores
from model.work import Work, matmuls, size, total


def attend(c: Model, ex: Execution, ctx: context.Context, q_BTHK, k_BJMK, v_BJMK, scale: float):
    """Softmax over visible keys, weighted values: (B, T, H, width of v). Scores and softmax in
    float32.

    Without a cache `ex.attention_chunk` queries at a time see the keys between the first and the
    last that any of them may see, and keep two numbers a row for the backward pass, which makes
    their part of the map again (chunked.py).
    """
    if (
        k_BJMK.shape[2] < c.n_heads
    ):  # a copy per query head: small beside the scores, and every product keeps one layout
        k_BJMK, v_BJMK = (jnp.repeat(a, c.n_heads // k_BJMK.shape[2], 2) for a in (k_BJMK, v_BJMK))
    if ctx.slot is None and fused(c, ex, q_BTHK.shape[-1], v_BJMK.shape[-1]):
        window = (c.window - 1, 0) if c.window else None
        return jax.nn.dot_product_attention(
            q_BTHK,
            k_BJMK,
            v_BJMK,
            scale=scale,
            is_causal=True,
            local_window_size=window,
            implementation="cudnn",
        )
    parts = spans(q_BTHK.shape[1], c.window, ex.attention_chunk)
    if ctx.slot is None and len(parts) > 1:
        return chunked.attend(c, ex, parts, scale, q_BTHK, k_BJMK, v_BJMK)
    return _attend(c, ctx, q_BTHK, k_BJMK, v_BJMK, scale, ex.dtype)


def fused(c: Model, ex: Execution, scores: int, values: int) -> bool:
    """Whether cuDNN's kernel is asked for and computes the function, scores over `scores` numbers
    and values over `values`: in 16 bits, no cap of the scores, nothing added to them, heads that
    its tiles hold, an even number of tokens.
    """
    asked, plain = (
        ex.attention == "cudnn" and ex.dtype == "bfloat16",
        not c.attention_cap and c.positions != "alibi",
    )
    return asked and plain and scores == values <= 128 and scores % 8 == 0 and c.seq_len % 2 == 0


def spans(length: int, window: int, chunk: int) -> tuple[tuple[int, int, int], ...]:
    """(first key, first query, end of both) of every chunk of queries; one chunk of everything for
    a length within `chunk`, or for 0.
    """
    if not chunk or length <= chunk:
        return ((0, 0, length),)
    ends = [(first, min(first + chunk, length)) for first in range(0, length, chunk)]
    return tuple((max(0, first - window + 1) if window else 0, first, last) for first, last in ends)


def _attend(c: Model, ctx: context.Context, q_BTHK, k_BJMK, v_BJMK, scale: float, dtype):
    raw_BHTJ = scores("bthk,bjhk->bhtj", q_BTHK, k_BJMK) * scale
    weights_BHTJ = jax.nn.softmax(chunked.masked(c, ctx, raw_BHTJ), -1).astype(dtype)
    return einsum("bhtj,bjhk->bthk", weights_BHTJ, v_BJMK)


def output(c: Model, dtype, width: int) -> Einsum:
    """The projection back to D. Residual branches start 1/sqrt(2 L) smaller, as GPT-2 (Radford et
    al. 2019, section 2.3).
    """
    shape, axes = (c.n_heads, width, c.d_model), ("heads", "head_dim", "embed")
    fan_in, gain = c.n_heads * width, (2 * c.n_layers) ** -0.5
    return Einsum(
        "bthk,hkd->btd", shape, axes, fan_in, gain=gain, dtype=dtype, bias=c.out_bias, name="out"
    )


class Attention(nn.Module):
    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        c, dtype = self.c, self.ex.dtype
        ctx = ctx or context.plain(x_BTD.shape[1])

        def project(name, heads):
            shape, axes = (c.d_model, heads, c.k_head), ("embed", "heads", "head_dim")
            return Einsum(
                "btd,dhk->bthk", shape, axes, c.d_model, dtype=dtype, bias=c.qkv_bias, name=name
            )(x_BTD)

        def turn(x_BTHK, name):
            if c.qk_norm == "full":
                x_BTHK = norms.make(c, name)(x_BTHK.reshape(*x_BTHK.shape[:2], -1)).reshape(
                    x_BTHK.shape
                )
            elif c.qk_norm == "head":
                x_BTHK = norms.make(c, name)(x_BTHK)
            return positions.POSITIONS[c.positions].rotate(x_BTHK, c, ctx.at)

        q_BTHK = turn(project("q", c.n_heads), "norm_q")
        k_BJMK = context.remember(self, "k", turn(project("k", c.m_heads), "norm_k"), ctx)
        v_BJMK = context.remember(self, "v", project("v", c.m_heads), ctx)
        return output(c, dtype, c.k_head)(
            attend(c, self.ex, ctx, q_BTHK, k_BJMK, v_BJMK, c.k_head**-0.5)
        )


def _widths(c: Model) -> tuple[int, int]:
    return c.n_heads * c.k_head, c.m_heads * c.k_head


def parameters(c: Model) -> dict[str, int]:
    q, kv = _widths(c)
    biases = (q + 2 * kv) * c.qkv_bias + c.d_model * c.out_bias
    normed = {
        "none": 0,
        "head": norms.parameters(c, 2 * c.k_head),
        "full": norms.parameters(c, q + kv),
    }[c.qk_norm]
    return {"attention": multiplied(c) + biases, "norms": normed}


def multiplied(c: Model) -> int:
    """q and out of D x H K, k and v of D x M K."""
    q, kv = _widths(c)
    return 2 * c.d_model * (q + kv)


def pairs(c: Model, causal: bool) -> int:
    """Pairs of query and key in a sequence: T x T on the full map, else T (T+1) / 2, or what a
    window leaves of them.
    """
    if not causal:
        return c.seq_len**2
    w = min(c.window or c.seq_len, c.seq_len)
    return w * (w + 1) // 2 + (c.seq_len - w) * w


def per_token(n: int, c: Model) -> int | float:
    """A count of a sequence per token; an int wherever it is one."""
    return n // c.seq_len if n % c.seq_len == 0 else n / c.seq_len


def map_flops(c: Model, causal: bool) -> int | float:
    """Scores and values: 2 x 2 H K per attended pair."""
    return per_token(4 * c.n_heads * c.k_head * pairs(c, causal), c)


def map_work(c: Model, ex: Execution, batch: int, scores: int, values: int) -> Work:
    """The map of scores, `scores` and `values` numbers wide: the pairs of every chunk, masked ones
    among them, and of several chunks the scores once more in the backward pass, unless the map is
    kept (chunked.py). Kept is one number for every pair in every head, as XLA holds it: the softmax
    in float32 and in the dtype of the matmul with the values, twice for a transposed copy. Of
    several chunks no such copy, but the keys and values of each; XLA on CPU makes their maps again
    early, so that they are there as if kept. cuDNN's kernel computes the pairs that are attended to
    (and the rest of the tiles on the diagonal, which is not counted), makes the scores once more in
    the backward pass, and keeps one number a row.
    """
    rows = batch * c.n_heads
    if fused(c, ex, scores, values):
        one = rows * pairs(c, causal=True)
        return Work(
            2 * (scores + values) * one,
            (6 * scores + 4 * values) * one,
            2 * (scores + values) * one,
            4 * rows * c.seq_len,
        )
    parts, several = (
        spans(c.seq_len, c.window, ex.attention_chunk),
        ex.attention_chunk and c.seq_len > ex.attention_chunk,
    )
    standing = rows * sum((last - first) * (last - begin) for begin, first, last in parts)
    copies = (
        rows * (scores + values) * sum(last - begin for begin, _, last in parts)
        if several
        else standing
    )
    forward, again = (
        2 * (scores + values) * standing,
        2 * scores * standing if several and (not ex.settle or c.attention_cap) else 0,
    )
    held = standing * (4 + size(ex)) + copies * size(ex)
    return Work(
        forward, 2 * forward + again, forward, held, standing * size(ex) if several else held // 3
    )


def work(c: Model, ex: Execution, batch: int) -> Work:
    """Kept: queries, keys, values, what is attended to, and the map."""
    tokens, (q, kv) = batch * c.seq_len, _widths(c)
    normed = {"none": 0, "head": q + kv, "full": q + kv}[c.qk_norm]
    kept = tokens * (2 * (q + kv) + normed) * size(ex)
    return total(
        (matmuls(2 * tokens * multiplied(c), kept=kept), map_work(c, ex, batch, c.k_head, c.k_head))
    )


def cache(c: Model) -> int:
    return 2 * c.m_heads * c.k_head


def check(c: Model) -> None:
    if c.n_heads % c.m_heads:
        raise ValueError(
            f"model.n_kv_heads={c.n_kv_heads} does not divide model.n_heads={c.n_heads}"
        )
    if c.qk_norm not in ("none", "head", "full"):
        raise ValueError(f"model.qk_norm={c.qk_norm!r}: choose from none, head, full")
    if c.positions == "rope" and (
        int(c.k_head * c.rope_fraction) % 2 or not positions.rotated_pairs(c, c.k_head)
    ):
        raise ValueError(
            f"rope rotates pairs: {c.rope_fraction:g} of a head {c.k_head} wide must be even and at"
            " least 2"
        )
