"""Next-token cross-entropy: of logits, or of what logits are made of, which never stand all at once
then.

The head's matrix w_VD multiplies the last states x_BTD. With `ex.loss_chunk` the positions go
through it so many at a time, along T and not along B, so that every device works on its own
sequences. `mean` takes the gradient in its forward pass, while the logits of a chunk are there.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Execution
from model.numerics import einsum, scores

FILL = -1  # the target of a position that fills up the last chunk


def logits(x_BTD, w_VD, cap: float):
    """Of every position, at least float32; with a cap, cap x tanh(logits / cap)."""
    logits_BTV = scores("btd,vd->btv", x_BTD, w_VD.astype(x_BTD.dtype))
    return cap * jnp.tanh(logits_BTV / cap) if cap else logits_BTV


def nll(logits_BTV, targets_BT):
    """Negative log-likelihood of each target in nats, float32 (B, T). A masked sum, not a gather:
    its gradient needs no scatter.
    """
    hit_BTV = targets_BT[..., None] == jnp.arange(logits_BTV.shape[-1])
    return jax.nn.logsumexp(logits_BTV, -1) - jnp.where(hit_BTV, logits_BTV, 0).sum(-1)


def each(x_BTD, w_VD, targets_BT, cap: float, ex: Execution):
    """The negative log-likelihood of every target, (B, T)."""
    if not ex.loss_chunk:
        return nll(logits(x_BTD, w_VD, cap), targets_BT)
    parts_NBC = jax.lax.map(
        lambda p: nll(logits(p[0], w_VD, cap), p[1]), (_split(x_BTD, ex), _split(targets_BT, ex))
    )
    return _join(parts_NBC, targets_BT.shape[1])


def mean(x_BTD, w_VD, targets_BT, cap: float, ex: Execution):
    """The mean of `each`; its gradient with respect to x and w is made chunk by chunk."""
    return (
        _fused(x_BTD, w_VD, targets_BT, cap, ex)
        if ex.loss_chunk
        else nll(logits(x_BTD, w_VD, cap), targets_BT).mean()
    )


def _split(a_BT, ex: Execution, fill=0):
    """(B, T, ...) as (chunks, B, chunk, ...); the last chunk is filled up with `fill`."""
    if missing := -a_BT.shape[1] % ex.loss_chunk:
        ends = [(0, 0), (0, missing)] + [(0, 0)] * (a_BT.ndim - 2)
        a_BT = jnp.pad(a_BT, ends, constant_values=fill)
    return a_BT.reshape(a_BT.shape[0], -1, ex.loss_chunk, *a_BT.shape[2:]).swapaxes(0, 1)


def _join(a_NBC, length: int):
    """The inverse of `_split`."""
    return a_NBC.swapaxes(0, 1).reshape(a_NBC.shape[1], -1, *a_NBC.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _fused(x_BTD, w_VD, targets_BT, cap, ex):
    return each(x_BTD, w_VD, targets_BT, cap, ex).mean()


def _fused_fwd(x_BTD, w_VD, targets_BT, cap, ex):
    filled = targets_BT.shape[1] % ex.loss_chunk  # positions that count for nothing
    w, by_group = w_VD.astype(x_BTD.dtype), lambda a: a.reshape(ex.loss_groups, -1, *a.shape[1:])

    def one(dw_GDV, part):
        x_BCD, targets_BC = part
        logits_BCV = logits(x_BCD, w, cap)
        most_BC1 = logits_BCV.max(-1, keepdims=True)
        weights_BCV = jnp.exp(logits_BCV - most_BC1)  # once, for the sum and for the gradient
        sum_BC1 = weights_BCV.sum(-1, keepdims=True)
        hit_BCV = targets_BC[..., None] == jnp.arange(w.shape[0])
        g_BCV = weights_BCV * (1 / (sum_BC1 * targets_BT.size)) - hit_BCV * (1 / targets_BT.size)
        if filled:
            g_BCV *= targets_BC[..., None] >= 0
        if cap:
            g_BCV *= 1 - (logits_BCV / cap) ** 2
        g_BCV = g_BCV.astype(x_BTD.dtype)
        # (D, V): XLA on CPU multiplies that way round half as fast again
        dw_GDV += einsum(
            "gbcd,gbcv->gdv", by_group(x_BCD), by_group(g_BCV), preferred_element_type=dw_GDV.dtype
        )
        loss_BC1 = (
            most_BC1 + jnp.log(sum_BC1) - jnp.take_along_axis(logits_BCV, targets_BC[..., None], -1)
        )
        if filled:
            loss_BC1 *= targets_BC[..., None] >= 0
        return dw_GDV, (loss_BC1.sum(), einsum("bcv,vd->bcd", g_BCV, w))

    zeros_GDV = jnp.zeros((ex.loss_groups, *w_VD.shape[::-1]), w_VD.dtype)
    zeros_GDV = nn.with_logical_constraint(zeros_GDV, ("batch", "act_embed", "vocab"))
    dw_GDV, (loss, dx_NBCD) = jax.lax.scan(
        one, zeros_GDV, (_split(x_BTD, ex), _split(targets_BT, ex, FILL))
    )
    dx_BTD = _join(dx_NBCD, targets_BT.shape[1])
    return loss.sum() / targets_BT.size, (dx_BTD, dw_GDV.sum(0).T)


def _fused_bwd(cap, ex, gradients, g):
    dx_BTD, dw_VD = gradients
    return (g * dx_BTD).astype(dx_BTD.dtype), g * dw_VD, None


_fused.defvjp(_fused_fwd, _fused_bwd)
