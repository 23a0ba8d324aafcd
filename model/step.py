"""One update, a loop of updates, one evaluation: pure functions of arrays."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from model import averages, loss, noise_scale
from model.block import layer_at
from model.leaves import leaves
from model.lm import LM, buffers
from model.mlps import expert_loop, routing
from model.optimizers import Optimizer


class State(NamedTuple):
    """Everything that training changes. The step is counted on the host: it addresses the data and
    the schedule.
    """

    params: Any
    opt: Any
    buffers: Any  # what moves without gradient: selection biases; {} for most models
    average: Any = ()  # of the parameters along the run (model/averages.py), where one is asked for


def variables(state: State) -> dict:
    """What `LM.apply` and `eval_step` take."""
    return {"params": state.params, "buffers": state.buffers}


def averaged(state: State) -> dict:
    """`variables` with the average of the parameters in their place."""
    return {"params": state.average, "buffers": state.buffers}


def _next_token_loss(lm: LM, of, tokens_BT1):
    """What `LM.apply` makes of the last states: a loss of the next tokens."""
    return lambda x_BTD, w_VD: of(x_BTD, w_VD, tokens_BT1[:, 1:], lm.m.logit_cap, lm.ex)


def gradients(lm: LM, state: State, tokens_BT1, share: float = 1.0, sums=None):
    """(gradients of the loss times `share`, added to `sums` where given, (metrics, loads of the
    experts by layer)).
    """
    own = expert_loop.summed(lm.ex, sums) if sums else {}

    def objective(params):
        held = {"params": params, "buffers": state.buffers, **({"sums": own} if own else {})}
        read = _next_token_loss(lm, loss.mean, tokens_BT1)
        (nll, stats), moved = lm.apply(held, tokens_BT1[:, :-1], read=read, mutable=["load"])
        auxiliary = stats.pop("auxiliary") if stats else 0.0
        return share * (nll + auxiliary), ({"loss": nll, **stats}, moved.get("load", {}))

    grads, seen = jax.grad(objective, has_aux=True)(state.params)
    if lm.ex.noise:
        done = traverse_util.flatten_dict(own)
        seen[0][noise_scale.PART] = noise_scale.squared_norm(grads, sums, done) / share**2
    if sums is None:
        return grads, seen
    done, before = (traverse_util.flatten_dict(tree) for tree in (own, sums))
    added = {
        path: g if path in done else before[path] + g
        for path, g in traverse_util.flatten_dict(grads).items()
    }
    return traverse_util.unflatten_dict(added), seen


def accumulated(lm: LM, state: State, tokens_BT1):
    """`gradients` as means over `lm.ex.accumulate` micro-batches of equal size. Routing groups stay
    whole, so neither loss, drops nor balance change.
    """
    parts, group = lm.ex.accumulate, lm.m.unit
    if parts == 1:
        return gradients(lm, state, tokens_BT1)
    # a micro-batch takes every parts-th routing group, so that each device keeps the sequences it
    # has
    split = tokens_BT1.reshape(-1, parts, group, tokens_BT1.shape[1]).swapaxes(0, 1)
    tokens_ABT1 = split.reshape(parts, -1, tokens_BT1.shape[1])

    def add(so_far, tokens_BT1):
        sums, seen = so_far
        # without the barrier XLA gathers all sharded weights once, before the loop, and keeps them
        # whole
        held, tokens_BT1 = jax.lax.optimization_barrier((state, tokens_BT1))
        sums, new = gradients(
            lm, held, tokens_BT1, 1 / parts, sums
        )  # a share, so that no pass over all gradients divides them
        return (sums, jax.tree.map(jnp.add, seen, new)), None

    shapes = jax.eval_shape(lambda s, t: gradients(lm, s, t), state, tokens_ABT1[0])
    (grads, seen), _ = jax.lax.scan(
        add, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes), tokens_ABT1
    )
    return grads, jax.tree.map(lambda a: a / parts, seen)


def _rebalanced(lm: LM, biases, load):
    """Selection biases one step of `bias_rate` towards equal load (Wang et al. 2024, arXiv
    2408.15664, algorithm 1).
    """

    def moved(path, bias, n):
        rate = layer_at(lm.m, path).mlp.bias_rate
        return bias + rate * jnp.sign(n.mean(-1, keepdims=True) - n)

    return jax.tree_util.tree_map_with_path(moved, biases, load)


def transform(lm: LM, optimizer: Optimizer) -> optax.GradientTransformation:
    """Gradients of `lm` to updates, before learning rate and decay."""
    return optimizer.transform(leaves(lm.m, lm.ex), lm.ex.dtype)


def train_step(lm: LM, optimizer: Optimizer, state: State, tokens_BT1, hyper):
    """One update on B sequences of T+1 tokens.

    hyper: scalars of this step, as model.optimizers.base.HYPER names them, and the weight of an
    average where the state has one. Returns (state, metrics); `loss` is the cross-entropy alone in
    nats per token, before the update; MoE statistics hold one value per MoE layer. Where the loss
    or the gradient is not finite the batch is consumed and the state stays as it was: `skipped` is
    1. So does the place of a pack that no run holds, where hyper's `live` is false.
    """

    grads, (metrics, load) = accumulated(lm, state, tokens_BT1)
    metrics = routing.summary(lm.m, metrics)
    updates, opt = transform(lm, optimizer).update(grads, state.opt)
    params = optimizer.applied(leaves(lm.m, lm.ex), state.params, updates, hyper)
    moved = _rebalanced(lm, state.buffers, load) if state.buffers else state.buffers
    norm = optax.tree.norm(grads)
    if noise_scale.PART in metrics:
        about = lm.ex.accumulate, tokens_BT1.shape[0]
        metrics |= noise_scale.estimates(norm**2, metrics.pop(noise_scale.PART), *about)
    ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & hyper.get("live", True)
    new, old = State(params, opt, moved), state._replace(average=())
    kept = jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)
    if state.average:
        kept = kept._replace(average=averages.moved(state.average, kept.params, hyper["average"]))
    state = kept
    return state, {**metrics, "grad_norm": norm, "skipped": 1.0 - ok}


def train_steps(lm: LM, optimizer: Optimizer, state: State, tokens_KBT1, hyper_K, count):
    """The first `count` of K updates in one dispatch; K is static, `count` is not. Metrics have a
    leading axis K, zero past count.
    """
    one = jax.jit(
        functools.partial(train_step, lm, optimizer), inline=True
    )  # traced once, for the shapes and for the loop
    shapes = jax.eval_shape(one, state, tokens_KBT1[0], jax.tree.map(lambda a: a[0], hyper_K))[1]
    empty = jax.tree.map(lambda a: jnp.zeros((tokens_KBT1.shape[0], *a.shape), a.dtype), shapes)

    def body(i, carry):
        state, kept = carry

        def at(a):
            return jax.lax.dynamic_index_in_dim(a, i, keepdims=False)

        state, metrics = one(state, at(tokens_KBT1), jax.tree.map(at, hyper_K))
        return state, jax.tree.map(lambda a, m: a.at[i].set(m), kept, metrics)

    return jax.lax.fori_loop(0, count, body, (state, empty))


def eval_step(lm: LM, held: dict, tokens_BT1):
    """(negative log-likelihood (B, T) in nats, statistics, of which `routing.summary` is made when
    all batches are in). held: `variables(state)`.
    """
    nll_BT, stats = lm.apply(
        held, tokens_BT1[:, :-1], read=_next_token_loss(lm, loss.each, tokens_BT1)
    )
    return nll_BT, stats


def create(lm: LM, optimizer: Optimizer, params, average: bool = False) -> State:
    """A State from parameters, with a zero optimizer state and zero buffers; `average`: and with
    zeros for that of the parameters.
    """
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), buffers(lm.m, lm.ex))
    own = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), params) if average else ()
    return State(params, transform(lm, optimizer).init(params), zeros, own)
