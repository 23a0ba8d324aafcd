"""Which experts a token chooses, with what gates, what does not fit, and what the losses are made
of. All in float32.

Scores are a softmax over experts (Shazeer et al. 2017, arXiv 1701.06538) or a sigmoid of each
(DeepSeek-V3, arXiv 2412.19437, eq 12-15). A selection bias and a limit to the best groups of
experts decide the choice alone; gates are made of the scores. The gate of a single expert is its
score, never renormalised (Fedus et al. 2021, arXiv 2101.03961, eq 2): p / p = 1 would leave the
router without a gradient from the cross-entropy.

Losses, per routing group of `routing_group` sequences, so that no layout or micro-batch changes
them:
    balance  E * sum_e f_e P_e, f the fraction of assignments, P the mean probability (Fedus et al.
             2021, arXiv 2101.03961, eq 4-6, with f
             summing to 1 for any top_k): 1 when balanced. With balance_scope = "model", f and P are
             means over all MoE layers first, as Hugging Face pools them (theirs is top_k times
             ours). P of a sigmoid router: its scores over their sum (DeepSeek-V3, eq 18).
    z        mean over tokens of logsumexp(logits)^2, one term per layer (Zoph et al. 2022, arXiv
        2202.08906, eq 5)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from model.config import Model


class Routing(NamedTuple):
    """Of each token its experts and gates (B, T, S); a dropped assignment has gate 0 and `kept`
    False. `probs` sum to 1 over experts.
    """

    expert_BTS: jax.Array
    gate_BTS: jax.Array
    kept_BTS: jax.Array | None
    probs_BTE: jax.Array


def route(p, logits_BTE, bias_E, dropless: bool) -> Routing:
    """bias_E: the selection bias, or None. dropless: whatever the capacity, as in decoding."""
    if p.router == "softmax":
        scores_BTE = probs_BTE = jax.nn.softmax(logits_BTE, -1)
    else:
        scores_BTE = jax.nn.sigmoid(logits_BTE)
        probs_BTE = scores_BTE / (scores_BTE.sum(-1, keepdims=True) + 1e-20)
    if bias_E is None and p.expert_groups == 1:
        gate_BTS, expert_BTS = _top_k(scores_BTE, p.top_k)
    else:
        choice_BTE = jax.lax.stop_gradient(scores_BTE) + (0 if bias_E is None else bias_E)
        _, expert_BTS = _top_k(_limited(p, choice_BTE), p.top_k)
        gate_BTS = jnp.take_along_axis(scores_BTE, expert_BTS, -1)
    if p.renormalise and p.top_k > 1:
        gate_BTS = gate_BTS / (gate_BTS.sum(-1, keepdims=True) + 1e-20)
    if p.gate_scale != 1:
        gate_BTS = gate_BTS * p.gate_scale
    if not p.capacity_factor or dropless:
        return Routing(expert_BTS, gate_BTS, None, probs_BTE)
    rank_GnS = ranks(p, expert_BTS)
    kept_BTS = (rank_GnS < capacity(p, rank_GnS.shape[1])).reshape(expert_BTS.shape)
    return Routing(expert_BTS, jnp.where(kept_BTS, gate_BTS, 0), kept_BTS, probs_BTE)


def _top_k(scores_BTn, k: int):
    """jax.lax.top_k on each device's own sequences: left to the partitioner, the scores of all
    devices are gathered.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return jax.lax.top_k(scores_BTn, k)
    spec = nn.logical_to_mesh_axes(("batch", *[None] * (scores_BTn.ndim - 1)))
    return jax.shard_map(
        lambda s: tuple(jax.lax.top_k(s, k)), in_specs=spec, out_specs=(spec, spec)
    )(scores_BTn)


def _limited(p, choice_BTE):
    """The scores of the experts in a token's best groups, the others' at minus infinity. A group is
    as good as its best two experts together (DeepSeek-V3, section 2.1.2), or as its best one
    (DeepSeek-V2, arXiv 2405.04434, section 2.2.2).
    """
    if p.expert_groups == 1:
        return choice_BTE
    grouped = choice_BTE.reshape(*choice_BTE.shape[:-1], p.expert_groups, -1)
    count = 2 if p.group_score == "top2" else 1
    best = _top_k(grouped, min(count, grouped.shape[-1]))[0].sum(-1)
    chosen = _top_k(best, p.top_groups)[1]
    allowed = jax.nn.one_hot(chosen, p.expert_groups, dtype=bool).any(-2)
    return jnp.where(allowed[..., None], grouped, -jnp.inf).reshape(choice_BTE.shape)


def capacity(p, tokens: int) -> int:
    """Assignments that an expert takes from one routing group of `tokens` tokens."""
    return min(tokens, -(-int(tokens * p.top_k * p.capacity_factor) // p.n_experts))


def by_group(p, a_BT):
    """(B, T, ...) as (routing groups, tokens of one, ...)."""
    return a_BT.reshape(a_BT.shape[0] // p.routing_group, -1, *a_BT.shape[2:])


def ranks(p, expert_BTS):
    """(G, n, S): the place of each assignment in the queue of its expert inside its routing group.
    First choices stand before second ones, earlier tokens before later ones (as GShard, Lepikhin et
    al. 2020, arXiv 2006.16668).
    """
    expert_GnS = by_group(p, expert_BTS)
    queue_GA = expert_GnS.swapaxes(1, 2).reshape(expert_GnS.shape[0], -1)
    seen_GAE = jnp.cumsum(jax.nn.one_hot(queue_GA, p.n_experts, dtype=jnp.int32), 1)
    rank_GA = jnp.take_along_axis(seen_GAE, queue_GA[..., None], 2)[..., 0] - 1
    return rank_GA.reshape(expert_GnS.shape[0], p.top_k, -1).swapaxes(1, 2)


def statistics(p, most: int, logits_BTE, r: Routing) -> dict:
    """Of one layer. Scalars: z_loss, router_entropy (nats), dropped (share of the assignments). For
    the balance loss, (G, E): `fraction` of the assignments and mean `probability` by expert, filled
    up to `most` experts, those of the layer that has most.
    """
    hot_GE = jax.nn.one_hot(by_group(p, r.expert_BTS), p.n_experts, dtype=jnp.float32).sum((1, 2))
    entropy = -(r.probs_BTE * jnp.log(r.probs_BTE + 1e-30)).sum(-1).mean()
    filled = (0, 0), (0, most - p.n_experts)
    return {
        "fraction": jnp.pad(hot_GE / hot_GE.sum(-1, keepdims=True), filled),
        "probability": jnp.pad(by_group(p, r.probs_BTE).mean(1), filled),
        "z_loss": jnp.mean(jax.nn.logsumexp(logits_BTE, -1) ** 2),
        "router_entropy": entropy,
        "dropped": jnp.float32(0) if r.kept_BTS is None else 1 - r.kept_BTS.mean(dtype=jnp.float32),
    }


def _weighted(values_L, weights: list[float]):
    """The sum of a loss of every layer, each with its weight."""
    if len(set(weights)) == 1:
        return weights[0] * values_L.sum()
    return (jnp.asarray(weights, values_L.dtype) * values_L).sum()


def losses(m: Model, stats_L: dict) -> dict:
    """The stacked statistics of all MoE layers with `share` of the assignments (L, E),
    `balance_loss` (L,) and `auxiliary`, the term that is added to the loss.
    """
    kept = {k: v for k, v in stats_L.items() if k not in ("fraction", "probability")}
    f_LGE, p_LGE = stats_L["fraction"], stats_L["probability"]
    experts_L = np.array([p.n_experts for p in m.routed], np.float32)
    balance_L = experts_L * (f_LGE * p_LGE).sum(-1).mean(-1)
    balance = _weighted(balance_L, [p.balance_weight for p in m.routed])
    if m.routed[0].balance_scope == "model":
        pooled = m.routed[0].n_experts * (f_LGE.mean(0) * p_LGE.mean(0)).sum(-1).mean()
        balance = m.routed[0].balance_weight * pooled
    z = _weighted(kept["z_loss"], [p.z_weight for p in m.routed])
    return {
        **kept,
        "share": f_LGE.mean(1),
        "balance_loss": balance_L,
        "auxiliary": balance + z,
    }


def summary(m: Model, metrics: dict) -> dict:
    """Metrics with `expert_load` (L,), max over mean assignments of an expert, in the place of
    `share`: taken over the whole batch, whatever its micro-batches.
    """
    if "share" not in metrics:
        return metrics
    experts_L = np.array([p.n_experts for p in m.routed], np.float32)
    return {
        **{k: v for k, v in metrics.items() if k != "share"},
        "expert_load": metrics["share"].max(-1) * experts_L,
    }


def check(p) -> None:
    """Raises ValueError in words that say what to change."""
    if p.top_k > p.n_experts:
        raise ValueError(
            f"model.moe.top_k={p.top_k} is above model.moe.n_experts={p.n_experts}: a token"
            " cannot choose more experts than there are"
        )
    if p.router not in ("softmax", "sigmoid"):
        raise ValueError(f"model.moe.router={p.router!r}: choose from softmax, sigmoid")
    if p.group_score not in ("top2", "best"):
        raise ValueError(f"model.moe.group_score={p.group_score!r}: choose from top2, best")
    if p.balance_scope not in ("layer", "model"):
        raise ValueError(f"model.moe.balance_scope={p.balance_scope!r}: choose from layer, model")
    if p.routing_group < 1:
        raise ValueError(f"model.moe.routing_group={p.routing_group} must be at least 1 sequence")
    if not 1 <= p.top_groups <= p.expert_groups or p.n_experts % max(1, p.expert_groups):
        raise ValueError(
            f"model.moe.expert_groups={p.expert_groups} must divide model.moe.n_experts="
            f"{p.n_experts}, and model.moe.top_groups={p.top_groups} lie in 1 .. {p.expert_groups}"
        )
    reached = p.top_groups * (p.n_experts // p.expert_groups)
    if p.top_k > reached:
        raise ValueError(
            f"model.moe.top_k={p.top_k} is above the {reached} experts of"
            f" model.moe.top_groups={p.top_groups}"
        )
