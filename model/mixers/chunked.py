"""Causal attention a chunk of queries at a time, with its own gradient: kept for the backward pass are the output and the logarithm of each
row's sum, from which the map is made again in one pass (Dao et al. 2022, arXiv 2205.14135, algorithms 1 and 4, without tiles of keys)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from model import context, positions
from model.config import Execution, Model
from model.params import precise, settled

MASKED = -1e30


def masked(c: Model, ctx: context.Context, raw_BHTJ):
    """Scores that a softmax takes: soft-capped, with the bias of the positions, MASKED where nothing may be seen."""
    if c.attention_cap:
        raw_BHTJ = c.attention_cap * jnp.tanh(raw_BHTJ / c.attention_cap)
    bias = positions.POSITIONS[c.positions].bias(c, ctx.at, ctx.keys)
    if bias is not None:
        raw_BHTJ += bias
    seen = context.visible(c, ctx)
    return jnp.where(seen[:, None] if seen.ndim == 3 else seen, raw_BHTJ, MASKED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def attend(c: Model, ex: Execution, parts: tuple, scale: float, q_BTHK, k_BTHK, v_BTHK):
    """`attention.attend` of tokens at 0 .. T-1; parts: `attention.spans`, the first of them a chunk of the first queries."""
    return _forward(c, ex, parts, scale, q_BTHK, k_BTHK, v_BTHK)[0]


def _turned(ex: Execution, a, *axes: int):
    """A transposed copy, whole: XLA on CPU else makes every chunk's own, and transposes the same keys once a chunk."""
    moved = a.transpose(axes)
    return settled(moved) if ex.settle else moved


def _scores(c, parts, scale, q_BHTK, k_BHKT):
    """Of every chunk: (its queries, its keys, raw scores, what its softmax takes). Their product has a left side whose last axis is
    contracted and a right side whose first is, as XLA on CPU wants it (LOG.md, 2026-11-25)."""
    for begin, first, last in parts:
        raw_BHTJ = precise(jnp.einsum("bhtk,bhkj->bhtj", q_BHTK[:, :, first:last], k_BHKT[..., begin:last])) * scale
        ctx = context.Context(np.arange(first, last), np.arange(begin, last))
        yield slice(first, last), slice(begin, last), raw_BHTJ, masked(c, ctx, raw_BHTJ)


def _forward(c, ex, parts, scale, q_BTHK, k_BTHK, v_BTHK):
    q_BHTK, k_BHKT, v_BHTK = _turned(ex, q_BTHK, 0, 2, 1, 3), _turned(ex, k_BTHK, 0, 2, 3, 1), _turned(ex, v_BTHK, 0, 2, 1, 3)
    out, logs = [], []
    for _, keys, _, scores_BHTJ in _scores(c, parts, scale, q_BHTK, k_BHKT):
        most_BHT1 = scores_BHTJ.max(-1, keepdims=True)
        weights_BHTJ = jnp.exp(scores_BHTJ - most_BHT1)
        sum_BHT1 = weights_BHTJ.sum(-1, keepdims=True)
        out_BHTK = precise(jnp.einsum("bhtj,bhjk->bhtk", weights_BHTJ.astype(ex.dtype), v_BHTK[:, :, keys])) / sum_BHT1
        out.append(out_BHTK.astype(ex.dtype).swapaxes(1, 2))
        logs.append((most_BHT1 + jnp.log(sum_BHT1))[..., 0])
    out_BTHK = jnp.concatenate(out, 1)
    return out_BTHK, (q_BHTK, k_BHKT, v_BHTK, out_BTHK, jnp.concatenate(logs, 2))


def _backward(c, ex, parts, scale, kept, g_BTHK):
    q_BHTK, k_BHKT, v_BHTK, out_BTHK, logs_BHT = kept
    # what softmax takes off a row of its gradient: weights times their gradients, summed, which is the output times its own
    along_BHT = (precise(g_BTHK) * precise(out_BTHK)).sum(-1).swapaxes(1, 2)
    g_BHTK = _turned(ex, g_BTHK, 0, 2, 1, 3)
    k_BHTK, v_BHKT = (_turned(ex, a, 0, 1, 3, 2) for a in (k_BHKT, v_BHTK))
    dq, dk_BHTK, dv_BHTK = [], jnp.zeros_like(k_BHTK), jnp.zeros_like(v_BHTK)
    for at, keys, raw_BHTJ, scores_BHTJ in _scores(c, parts, scale, q_BHTK, k_BHKT):
        weights_BHTJ = jnp.exp(scores_BHTJ - logs_BHT[:, :, at, None])
        dweights_BHTJ = precise(jnp.einsum("bhtk,bhkj->bhtj", g_BHTK[:, :, at], v_BHKT[..., keys]))
        draw_BHTJ = weights_BHTJ * (dweights_BHTJ - along_BHT[:, :, at, None]) * scale
        if c.attention_cap:
            draw_BHTJ *= 1 - jnp.tanh(raw_BHTJ / c.attention_cap) ** 2
        draw_BHTJ = draw_BHTJ.astype(ex.dtype)
        dq.append(jnp.einsum("bhtj,bhjk->bhtk", draw_BHTJ, k_BHTK[:, :, keys]))
        dk_BHTK = dk_BHTK.at[:, :, keys].add(jnp.einsum("bhtj,bhtk->bhjk", draw_BHTJ, q_BHTK[:, :, at]))
        dv_BHTK = dv_BHTK.at[:, :, keys].add(jnp.einsum("bhtj,bhtk->bhjk", weights_BHTJ.astype(ex.dtype), g_BHTK[:, :, at]))
    return tuple(a.swapaxes(1, 2) for a in (jnp.concatenate(dq, 2), dk_BHTK, dv_BHTK))


attend.defvjp(_forward, _backward)
