"""Softmax attention over given queries, keys and values, and its counts: what `attention` and
`latent` are built from.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model import context
from model.config import Execution, Model
from model.mixers import chunked
from model.numerics import einsum, scores
from model.params import Einsum
from model.work import Work, pairs, per_token, size


class Rule(NamedTuple):
    """What turns scores into weights."""

    n_heads: int
    window: int  # keys that a query sees, itself among them; 0: all before it
    cap: float  # scores become cap x tanh(scores / cap); 0: off
    positions: Any
    sinks: bool = False  # a score of each head stands beside those of its keys


def head_width(part, m: Model) -> int:
    """Width of a head: d_head, or d_model / n_heads."""
    return part.d_head or m.d_model // part.n_heads


def check_heads(part, m: Model, name: str) -> None:
    """Raises ValueError unless the heads divide the width, where their own is not given."""
    if part.d_head or m.d_model % part.n_heads == 0:
        return
    fits = [h for h in range(1, m.d_model + 1) if m.d_model % h == 0]
    near = min(fits, key=lambda h: abs(h - part.n_heads))
    raise ValueError(
        f"model.{name}.n_heads={part.n_heads} does not divide model.d_model={m.d_model}: try"
        f" n_heads={near}, or set model.{name}.d_head"
    )


def own_positions(part, m: Model, name: str):
    """The positions of a mixer: its own or the model's. Raises ValueError where its own could have
    no effect.
    """
    if part.positions and part.positions.embedded:
        raise ValueError(
            f"model.{name}.positions are those of one layer: positions that are added to the"
            " embeddings are all layers'; set model.positions"
        )
    return part.positions or m.positions


def attend(
    rule: Rule, ex: Execution, ctx: context.Context, q_BTHK, k_BJMK, v_BJMK, scale: float, sinks_H
):
    """Softmax over visible keys, and the head's sink unless `sinks_H` is None; weighted values: (B,
    T, H, width of v). Scores and softmax in float32.

    Without a cache `ex.attention_chunk` queries at a time see the keys between the first and the
    last that any of them may see, and keep two numbers a row for the backward pass, which makes
    their part of the map again (chunked.py). cuDNN's kernel knows nothing of documents: where they
    are kept apart, what would stand without it does.
    """
    copies = rule.n_heads // k_BJMK.shape[2]
    if copies > 1:  # small beside the scores, and every product keeps one layout
        k_BJMK, v_BJMK = (jnp.repeat(a, copies, 2) for a in (k_BJMK, v_BJMK))
    length = q_BTHK.shape[1]
    apart = None if ctx.document_BT is None else ctx
    kernel = fused(rule, ex, length, q_BTHK.shape[-1], v_BJMK.shape[-1])
    if ctx.slot is None and apart is None and kernel:
        return jax.nn.dot_product_attention(
            q_BTHK,
            k_BJMK,
            v_BJMK,
            scale=scale,
            is_causal=True,
            local_window_size=(rule.window - 1, 0) if rule.window else None,
            implementation="cudnn",
        )
    parts = spans(length, rule.window, ex.attention_chunk)
    if ctx.slot is None and len(parts) > 1:
        return chunked.attend(rule, ex, parts, scale, q_BTHK, k_BJMK, v_BJMK, apart, sinks_H)
    raw_BHTJ = scores("bthk,bjhk->bhtj", q_BTHK, k_BJMK) * scale
    scores_BHTJ = chunked.masked(rule, ctx, raw_BHTJ)
    if sinks_H is not None:
        column_BHT1 = jnp.broadcast_to(sinks_H[:, None, None], (*scores_BHTJ.shape[:3], 1))
        scores_BHTJ = jnp.concatenate([scores_BHTJ, column_BHT1.astype(scores_BHTJ.dtype)], -1)
    weights_BHTJ = jax.nn.softmax(scores_BHTJ, -1)[..., : raw_BHTJ.shape[-1]].astype(ex.dtype)
    return einsum("bhtj,bjhk->bthk", weights_BHTJ, v_BJMK)


def fused(rule: Rule, ex: Execution, length: int, scores: int, values: int) -> bool:
    """Whether cuDNN's kernel is asked for and computes the function, scores over `scores` numbers
    and values over `values`: in 16 bits, no cap of the scores, nothing added to or beside them,
    heads that its tiles hold, an even number of tokens.
    """
    asked = ex.attention == "cudnn" and ex.dtype == "bfloat16"
    plain = not rule.cap and not rule.positions.adds_bias and not rule.sinks
    return asked and plain and scores == values <= 128 and scores % 8 == 0 and length % 2 == 0


def spans(length: int, window: int, chunk: int) -> tuple[tuple[int, int, int], ...]:
    """(first key, first query, end of both) of every chunk of queries; one chunk of everything for
    a length within `chunk`, or for 0.
    """
    if not chunk or length <= chunk:
        return ((0, 0, length),)
    ends = [(first, min(first + chunk, length)) for first in range(0, length, chunk)]
    return tuple((max(0, first - window + 1) if window else 0, first, last) for first, last in ends)


def output(part, m: Model, dtype, width: int) -> Einsum:
    """The projection of heads `width` wide back to D. Residual branches start 1/sqrt(2 L) smaller,
    as GPT-2 (Radford et al. 2019, section 2.3).
    """
    shape, axes = (part.n_heads, width, m.d_model), ("heads", "head_dim", "embed")
    fan_in, gain = part.n_heads * width, (2 * m.n_layers) ** -0.5
    return Einsum(
        "bthk,hkd->btd", shape, axes, fan_in, gain=gain, dtype=dtype, bias=part.out_bias, name="out"
    )


def map_flops(part, m: Model, causal: bool, width: int) -> int | float:
    """Per token: 2 x multiply-adds of all heads, `width` numbers a pair in scores and values
    together.
    """
    n = 2 * part.n_heads * width * pairs(m.seq_len, part.window, causal)
    return per_token(n, m.seq_len)


def map_work(rule: Rule, ex: Execution, length: int, batch: int, scores: int, values: int) -> Work:
    """The map of scores, `scores` and `values` numbers wide: the pairs of every chunk, masked ones
    among them, and of several chunks the scores once more in the backward pass, unless the map is
    kept (chunked.py). Kept is one number for every pair in every head, as XLA holds it: the softmax
    in float32 and in the dtype of the matmul with the values, twice for a transposed copy. Of
    several chunks no such copy, but the keys and values of each; XLA on CPU makes their maps again
    early, so that they are there as if kept. cuDNN's kernel computes the pairs that are attended to
    (and the rest of the tiles on the diagonal, which is not counted), makes the scores once more in
    the backward pass, and keeps one number a row.
    """
    rows = batch * rule.n_heads
    if fused(rule, ex, length, scores, values):
        one = rows * pairs(length, rule.window, causal=True)
        return Work(
            2 * (scores + values) * one,
            (6 * scores + 4 * values) * one,
            2 * (scores + values) * one,
            kept=4 * rows * length,
        )
    parts = spans(length, rule.window, ex.attention_chunk)
    several = ex.attention_chunk and length > ex.attention_chunk
    standing = rows * sum((last - first) * (last - begin) for begin, first, last in parts)
    copies = (
        rows * (scores + values) * sum(last - begin for begin, _, last in parts)
        if several
        else standing
    )
    forward = 2 * (scores + values) * standing
    again = 2 * scores * standing if several and (not ex.settle or rule.cap) else 0
    held = standing * (4 + size(ex)) + copies * size(ex)
    return Work(
        forward,
        2 * forward + again,
        forward,
        kept=held,
        spare=standing * size(ex) if several else held // 3,
    )
