"""Causal attention a chunk of queries at a time, with its own gradient: kept for the backward pass
are the output and, of each row, the largest score and one over the sum, from which the map is made
again in one pass (Dao et al. 2022, arXiv 2205.14135, algorithms 1 and 4, without tiles of keys). In
unrolled layers on one CPU XLA makes maps again as early as it can, so that they would stand all the
while; there the map itself is kept. Maps are turned, keys by queries (xla_cpu.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from model import context
from model.config import Execution
from model.numerics import einsum, precise, scores
from model.xla_cpu import halves, turned

MASKED = -1e30


def masked(rule, ctx: context.Context, raw_BHTJ):
    """Scores that a softmax takes: soft-capped, with the bias of the positions, MASKED where
    nothing may be seen.
    """
    seen = context.visible(rule.window, ctx)
    return jnp.where(
        seen[:, None] if seen.ndim == 3 else seen, _shaped(rule, ctx, raw_BHTJ), MASKED
    )


def _shaped(rule, ctx, raw, turned: bool = False):
    """Soft-capped, with the bias of the positions: scores BHTJ, or BHJT where turned."""
    if rule.cap:
        raw = rule.cap * jnp.tanh(raw / rule.cap)
    bias = rule.positions.bias(rule.n_heads, ctx.at, ctx.keys)
    if bias is None:
        return raw
    return raw + (bias.swapaxes(-1, -2) if turned else bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def attend(rule, ex: Execution, parts: tuple, scale: float, q_BTHK, k_BTHK, v_BTHK, apart, sinks_H):
    """`softmax.attend` of tokens at 0 .. T-1; parts: `softmax.spans`, the first of them a chunk
    of the first queries. apart: their context where documents are kept apart, else None. sinks_H: a
    score beside those of the keys, or None.
    """
    return _forward(rule, ex, parts, scale, q_BTHK, k_BTHK, v_BTHK, apart, sinks_H)[0]


def _joined(chunks_by_half):
    """One B T H K of the halves' chunks, each B H K T."""
    return jnp.concatenate(
        [
            jnp.concatenate([a.transpose(0, 3, 1, 2) for a in chunks], 1)
            for chunks in chunks_by_half
        ],
        0,
    )


def _scores(rule, part, scale, q_BTHK, k_BJHK, apart):
    """(raw scores, what the softmax takes) of a chunk. apart: the context of the rows at hand where
    documents are kept apart.
    """
    begin, first, last = part
    # queries are fewer numbers than scores, but 16 bits would round them once more
    exact = q_BTHK.dtype == precise(q_BTHK).dtype
    if exact:
        q_BTHK = q_BTHK * scale
    raw_BHJT = scores("bhjk,bhkt->bhjt", k_BJHK.swapaxes(1, 2), q_BTHK.transpose(0, 2, 3, 1))
    if not exact:
        raw_BHJT *= scale
    if apart is not None:
        ctx = context.part(apart, slice(None), slice(first, last), slice(begin, last))
        seen_BJT = context.visible(rule.window, ctx, turned=True)
        scores_BHJT = _shaped(rule, ctx, raw_BHJT, turned=True)
        return raw_BHJT, jnp.where(seen_BJT[:, None], scores_BHJT, MASKED)
    ctx = context.Context(np.arange(first, last), np.arange(begin, last))
    scores_BHJT = _shaped(rule, ctx, raw_BHJT, turned=True)
    # keys before the chunk are seen by all of it, unless a window leaves some behind
    some = slice(0 if rule.window else first - begin, None)
    seen_JT = context.visible(rule.window, ctx, turned=True)[some]
    return raw_BHJT, scores_BHJT.at[:, :, some].set(
        jnp.where(seen_JT, scores_BHJT[:, :, some], MASKED)
    )


def _rows(apart, half: slice):
    return None if apart is None else context.part(apart, half, slice(None), slice(None))


def _forward(rule, ex, parts, scale, q_BTHK, k_BTHK, v_BTHK, apart, sinks_H):
    out, rows = [], []
    sinks_H11 = None if sinks_H is None else sinks_H[:, None, None]
    for half in halves(ex, q_BTHK.shape[0]):
        here = _rows(apart, half)
        q, k, v_BHKJ = q_BTHK[half], k_BTHK[half], turned(ex, v_BTHK[half])
        out.append([])
        rows.append([])
        for begin, first, last in parts:
            _, scores_BHJT = _scores(
                rule, (begin, first, last), scale, q[:, first:last], k[:, begin:last], here
            )
            most_BH1T = scores_BHJT.max(2, keepdims=True)
            if sinks_H is not None:
                most_BH1T = jnp.maximum(most_BH1T, sinks_H11)
            weights_BHJT = jnp.exp(scores_BHJT - most_BH1T)  # but for the division by their sum
            sums_BH1T = weights_BHJT.sum(2, keepdims=True)
            if sinks_H is not None:
                sums_BH1T += jnp.exp(sinks_H11 - most_BH1T)
            share_BH1T = 1 / sums_BH1T
            out_BHKT = (
                precise(
                    einsum(
                        "bhkj,bhjt->bhkt", v_BHKJ[..., begin:last], weights_BHJT.astype(ex.dtype)
                    )
                )
                * share_BH1T
            )
            out[-1].append(out_BHKT.astype(ex.dtype))
            rows[-1].append((most_BH1T, share_BH1T, weights_BHJT if ex.settle else None))
    out_BTHK = _joined(out)
    return out_BTHK, (q_BTHK, k_BTHK, v_BTHK, out_BTHK, rows, apart, sinks_H)


def _backward(rule, ex, parts, scale, kept, g_BTHK):
    q_BTHK, k_BTHK, v_BTHK, out_BTHK, by_half, apart, sinks_H = kept
    # what softmax takes off a row of its gradient: weights times their gradients, summed, which is
    # the output times its own
    along_BH1T = (precise(g_BTHK) * precise(out_BTHK)).sum(-1).swapaxes(1, 2)[:, :, None]
    dq, dk, dv = [], [], []
    dsinks_H = None if sinks_H is None else jnp.zeros_like(sinks_H)
    for half, rows in zip(halves(ex, g_BTHK.shape[0]), by_half):
        q, k, v, g = (a[half] for a in (q_BTHK, k_BTHK, v_BTHK, g_BTHK))
        here = _rows(apart, half)
        k_BHKJ = turned(ex, k)
        dk_BHJK, dv_BHJK = jnp.zeros_like(k.swapaxes(1, 2)), jnp.zeros_like(v.swapaxes(1, 2))
        dq.append([])
        for (begin, first, last), (most_BH1T, share_BH1T, weights_BHJT) in zip(parts, rows):
            at, keys = slice(first, last), slice(begin, last)
            if weights_BHJT is None or rule.cap:
                raw_BHJT, scores_BHJT = _scores(
                    rule, (begin, first, last), scale, q[:, at], k[:, keys], here
                )
                weights_BHJT = jnp.exp(scores_BHJT - most_BH1T)
            if sinks_H is not None:  # its weight times nothing, less what softmax takes off
                weight_BH1T = jnp.exp(sinks_H[:, None, None] - most_BH1T) * share_BH1T
                dsinks_H -= (weight_BH1T * along_BH1T[half, ..., at]).sum((0, 2, 3))
            dweights_BHJT = scores(
                "bhjk,bhkt->bhjt", v[:, keys].swapaxes(1, 2), g[:, at].transpose(0, 2, 3, 1)
            )
            draw_BHJT = weights_BHJT * (
                (dweights_BHJT - along_BH1T[half, ..., at]) * (scale * share_BH1T)
            )
            if rule.cap:
                draw_BHJT *= 1 - jnp.tanh(raw_BHJT / rule.cap) ** 2
            draw_BHJT = draw_BHJT.astype(ex.dtype)
            dq[-1].append(einsum("bhkj,bhjt->bhkt", k_BHKJ[..., keys], draw_BHJT))
            shared_BHTK = (precise(g[:, at].swapaxes(1, 2)) * share_BH1T.swapaxes(2, 3)).astype(
                ex.dtype
            )
            dk_BHJK = dk_BHJK.at[:, :, keys].add(
                einsum("bhjt,bhtk->bhjk", draw_BHJT, q[:, at].swapaxes(1, 2))
            )
            dv_BHJK = dv_BHJK.at[:, :, keys].add(
                einsum("bhjt,bhtk->bhjk", weights_BHJT.astype(ex.dtype), shared_BHTK)
            )
        dk.append(dk_BHJK.swapaxes(1, 2))
        dv.append(dv_BHJK.swapaxes(1, 2))
    return _joined(dq), jnp.concatenate(dk, 0), jnp.concatenate(dv, 0), None, dsinks_H


attend.defvjp(_forward, _backward)
