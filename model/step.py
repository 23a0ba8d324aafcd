"""One update, a loop of updates, one evaluation: pure functions of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from model import optim
from model.lm import LM
from model.loss import nll


class State(NamedTuple):
    """Everything that training changes. The step is counted on the host: it addresses the data and the schedule."""

    params: Any
    opt: Any


def train_step(lm: LM, optimizer: optim.Optimizer, state: State, tokens_BT1, hyper):
    """One AdamW update on B sequences of T+1 tokens.

    hyper: scalars lr, embed_lr, weight_decay of this step. Returns (state, metrics); `loss` is the cross-entropy alone in
    nats per token, before the update; MoE statistics hold one value per MoE layer. Where the loss or the gradient is not
    finite the batch is consumed and the state stays as it was: `skipped` is 1.
    """

    def objective(params):
        logits_BTV, stats = lm.apply({"params": params}, tokens_BT1[:, :-1])
        loss = nll(logits_BTV, tokens_BT1[:, 1:]).mean()
        auxiliary = stats.pop("auxiliary").sum() if stats else 0.0
        return loss + auxiliary, {"loss": loss, **stats}

    grads, metrics = jax.grad(objective, has_aux=True)(state.params)
    updates, opt = optim.transform(optimizer).update(grads, state.opt)
    params = optim.apply(state.params, updates, hyper["lr"], hyper["embed_lr"], hyper["weight_decay"])
    norm = optax.tree.norm(grads)
    ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    state = jax.tree.map(lambda new, old: jnp.where(ok, new, old), State(params, opt), state)
    return state, {**metrics, "grad_norm": norm, "skipped": 1.0 - ok}


def train_steps(lm: LM, optimizer: optim.Optimizer, state: State, tokens_KBT1, hyper_K, count):
    """The first `count` of K updates in one dispatch; K is static, `count` is not. Metrics have a leading axis K, zero past count."""
    shapes = jax.eval_shape(
        lambda s, t, h: train_step(lm, optimizer, s, t, h)[1], state, tokens_KBT1[0], jax.tree.map(lambda a: a[0], hyper_K)
    )
    empty = jax.tree.map(lambda a: jnp.zeros((tokens_KBT1.shape[0], *a.shape), a.dtype), shapes)

    def body(i, carry):
        state, kept = carry
        at = lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False)
        state, metrics = train_step(lm, optimizer, state, at(tokens_KBT1), jax.tree.map(at, hyper_K))
        return state, jax.tree.map(lambda a, m: a.at[i].set(m), kept, metrics)

    return jax.lax.fori_loop(0, count, body, (state, empty))


def eval_step(lm: LM, params, tokens_BT1):
    """(negative log-likelihood (B, T) in nats, statistics)."""
    logits_BTV, stats = lm.apply({"params": params}, tokens_BT1[:, :-1])
    return nll(logits_BTV, tokens_BT1[:, 1:]), stats


def create(lm: LM, optimizer: optim.Optimizer, params) -> State:
    """A State from parameters, with zero moments."""
    return State(params, optim.transform(optimizer).init(params))
