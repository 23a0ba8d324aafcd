"""Mixture of experts: a router (routing.py), experts in one of several implementations
(dispatch.py), and shared experts that every token passes (DeepSeekMoE, Dai et al. 2024, arXiv
2401.06066). The router runs in float32.

The selection bias is a buffer, not a parameter: no gradient reaches it. It moves by `bias_rate` a
step towards equal load (Wang et al. 2024, arXiv 2408.15664); the loads of a step are left in the
Flax collection "load", in the place of the bias in "buffers".
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from model.config import Execution, Model
from model.mlps import dense, dispatch, routing
from model.mlps.dense import ACTIVATIONS, Dense, biases, kept, matrices
from model.params import declare, precise, product
from model.work import Work, matmuls, size, total


class MoE(nn.Module):
    c: Model
    ex: Execution

    def _weights(self) -> dict:
        c = self.c
        up, down = (c.n_experts, c.d_model, c.f_expert), (c.n_experts, c.f_expert, c.d_model)
        names = ("gate", "in") if ACTIVATIONS[c.activation][1] else ("in",)
        w = {
            name: declare(self, name, up, ("experts", "expert_embed", "mlp"), c.d_model**-0.5)
            for name in names
        }
        # gain over the fan-in of the dense MLP of equal active width: a token's top_k experts
        # together stand for it
        w["out"] = declare(
            self,
            "out",
            down,
            ("experts", "mlp", "expert_embed"),
            (2 * c.n_layers * c.f_expert) ** -0.5,
        )
        if c.mlp_bias:
            for name in (*names, "out"):
                width, axis = (c.d_model, "act_embed") if name == "out" else (c.f_expert, "mlp")
                w[f"{name}_bias"] = declare(
                    self, f"{name}_bias", (c.n_experts, width), ("experts", axis), 0.0
                )
        cast = {name: a.astype(self.ex.dtype) for name, a in w.items()}
        return (
            {**cast, "sums": {name: self.get_variable("sums", name) for name in w}}
            if self.has_variable("sums", "in")
            else cast
        )

    def _selection_bias(self):
        if not self.c.selection_bias:
            return None
        return self.variable(
            "buffers", "selection_bias", jnp.zeros, (self.c.n_experts,), jnp.float32
        ).value

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        c, ex = self.c, self.ex
        decoding = ctx is not None and ctx.slot is not None
        router_DE = declare(
            self, "router", (c.d_model, c.n_experts), ("embed", "experts_out"), c.d_model**-0.5
        )
        w, bias_E = self._weights(), self._selection_bias()
        logits_BTE = product("btd,de->bte", precise(x_BTD), router_DE)
        r = routing.route(c, logits_BTE, bias_E, dropless=decoding)
        self.sow(
            "intermediates", "expert", r.expert_BTS
        )  # for whoever asks which experts were chosen
        if c.selection_bias and self.is_mutable_collection("load"):
            load_E = jax.nn.one_hot(r.expert_BTS, c.n_experts, dtype=jnp.float32).sum((0, 1, 2))
            self.variable(
                "load", "selection_bias", jnp.zeros, (c.n_experts,), jnp.float32
            ).value = load_E
        y_BTD = self._experts(x_BTD, r, w)
        if c.n_shared:
            y_BTD += Dense(c, ex, width=c.n_shared * c.f_expert, name="shared")(x_BTD)[0]
        return y_BTD, {} if decoding else routing.statistics(c, logits_BTE, r)

    def _experts(self, x_BTD, r: routing.Routing, w):
        c, ex = self.c, self.ex
        groups = x_BTD.shape[0] // c.routing_group if ex.moe == "capacity" else ex.moe_groups
        split = lambda a: a.reshape(groups, -1, a.shape[-1])
        rank_GnS = routing.ranks(c, r.expert_BTS) if ex.moe == "capacity" else None
        act = ACTIVATIONS[c.activation][0]
        y = dispatch.IMPLEMENTATIONS[ex.moe](
            split(x_BTD), split(r.expert_BTS), split(r.gate_BTS), rank_GnS, w, act, c, ex
        )
        return y.reshape(x_BTD.shape)


def summed(ex: Execution, grads: dict) -> dict:
    """Of a tree of gradients those that the experts add up by themselves, given in the collection
    "sums" (loop.py); {} where none are.
    """
    if (
        ex.moe != "loop" or ex.dtype != "float32" or ex.scan or ex.moe_groups > 1
    ):  # each group would add them
        return {}
    flat = traverse_util.flatten_dict(grads)
    return traverse_util.unflatten_dict(
        {p: a for p, a in flat.items() if (*p[:-1], "router") in flat and p[-1] != "router"}
    )


def parameters(c: Model) -> dict[str, int]:
    one = matrices(c) * c.d_model * c.f_expert + biases(c, c.f_expert)
    shared = (
        matrices(c) * c.d_model * c.n_shared * c.f_expert + biases(c, c.n_shared * c.f_expert)
        if c.n_shared
        else 0
    )
    return {
        "router": c.d_model * c.n_experts,
        "experts": c.n_experts * one,
        "shared_experts": shared,
    }


def active(c: Model) -> int:
    """Router, shared experts, and top_k of the routed ones."""
    p = parameters(c)
    return p["router"] + p["shared_experts"] + p["experts"] // c.n_experts * c.top_k


def multiplied(c: Model) -> int:
    return c.d_model * c.n_experts + (c.top_k + c.n_shared) * matrices(c) * c.d_model * c.f_expert


def work(c: Model, ex: Execution, batch: int) -> Work:
    """Router, experts on the rows of the layout, the sum of their outputs by gates, and shared
    experts. Gates want the experts' outputs again; the sum itself ends the layer, unless a norm
    comes after it. Kept: rows in and out and their hidden units, copies of weights, outputs by
    assignment, and eight float32 per token and expert of the router.
    """
    tokens, d, f = batch * c.seq_len, c.d_model, c.f_expert
    layout = dispatch.COUNTS[ex.moe](c, ex, tokens)
    matrix, combine = matrices(c) * d * f, 2 * tokens * layout.combined * d
    hidden = matrices(c) - 1 if layout.made else kept(c)
    held = layout.rows * (2 * d + hidden * f) + layout.copies * matrix + tokens * c.top_k * d
    parts = [
        matmuls(2 * tokens * d * c.n_experts, kept=32 * tokens * c.n_experts),
        matmuls(2 * layout.rows * matrix, kept=held * size(ex), spare=layout.rows * f * size(ex)),
        Work(0, 2 * layout.copies * c.n_experts * matrix, 0),
        matmuls(combine, 0 if c.post_norm else combine),
    ]
    if c.n_shared:
        parts.append(dense.work(c, ex, batch, c.n_shared * f))
    return total(parts)


def check(c: Model) -> None:
    routing.check(c)
    if not c.d_expert and c.d_ff % c.top_k:
        raise ValueError(
            f"model.top_k={c.top_k} does not divide model.d_ff={c.d_ff}: equal active parameters"
            " need top_k * d_expert = d_ff; change one or set model.d_expert"
        )
