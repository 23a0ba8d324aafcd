"""Mixture of experts: a router (routing.py), experts in one of several implementations
(dispatch.py), and shared experts that every token passes (DeepSeekMoE, Dai et al. 2024, arXiv
2401.06066). The router runs in float32.

The selection bias is a buffer, not a parameter: no gradient reaches it. It moves by `bias_rate` a
step towards equal load (Wang et al. 2024, arXiv 2408.15664); the loads of a step are left in the
Flax collection "load", in the place of the bias in "buffers".
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from model import config
from model.config import Execution, Model
from model.mlps import dispatch, hidden, routing
from model.mlps.dense import Dense
from model.mlps.hidden import Units, biases, inputs, kept, matrices
from model.numerics import einsum, precise
from model.params import MATRIX, declare
from model.state import State
from model.work import Work, matmuls, size, total
from model.xla_cpu import product


@dataclasses.dataclass(frozen=True)
class MoE:
    """A token passes `top_k` of `n_experts` experts, and the shared ones."""

    n_experts: int = 8  # E
    top_k: int = 2  # experts that a token chooses, S
    d_ff: int = 0  # active hidden width, top_k x d_expert; 0: 4 x d_model
    # hidden width of one expert; 0: d_ff / top_k, which keeps the active parameters of the dense
    # MLP
    d_expert: int = 0
    n_shared: int = 0  # experts that every token passes, as one MLP of n_shared x d_expert
    activation: str = "gelu"  # of model/mlps/hidden.py
    bias: bool = False  # of the experts' linear maps
    # f(alpha x) / alpha in the place of the nonlinearity f(x): 1.702 of swiglu in gpt-oss
    alpha: float = 1.0
    # what the nonlinearity takes is at most limit, the branch that is not gated within +-limit;
    # 0: none
    limit: float = 0.0
    shift: float = 0.0  # is added to the branch that is not gated
    # the shared experts' sum is multiplied by a sigmoid of x w (Qwen2-MoE, arXiv 2407.10671)
    shared_gate: bool = False
    router_bias: bool = False  # a bias of the router's scores, trained like a weight
    router: str = "softmax"  # scores of a token: softmax over experts | sigmoid of each
    # the top_k gates of a token sum to 1; a single gate stays the expert's score
    renormalise: bool = True
    gate_scale: float = 1.0  # the gates are multiplied by it, last
    expert_groups: int = 1  # a token chooses among the experts of its best ...
    top_groups: int = 1  # ... top_groups groups
    # a group is as good as: top2, its best two experts together | best, its best one (DeepSeek-V2)
    group_score: str = "top2"
    # a bias per expert that decides choice alone, moved without gradient towards equal load ...
    selection_bias: bool = False
    bias_rate: float = 0.001  # ... by this much a step
    # an expert takes factor x its even share of a routing group, the rest is dropped; 0: none is
    # dropped
    capacity_factor: float = 0.0
    # sequences of one routing group: capacity and balance loss are counted inside it
    routing_group: int = 1
    balance_weight: float = 0.01  # of the balance loss
    # layer: one product per layer, summed | model: fractions and probabilities pooled over layers
    # first
    balance_scope: str = "layer"
    z_weight: float = 0.001  # of the z loss

    transfers = True
    apart = True  # but that tokens of a routing group share its experts' capacity

    @property
    def unit(self) -> int:
        return self.routing_group

    def width(self, m: Model) -> int:
        """Of one expert."""
        return self.d_expert or self.active_width(m) // self.top_k

    def active_width(self, m: Model) -> int:
        """What `d_ff` stands for."""
        return self.d_ff or 4 * m.d_model

    def shared(self, m: Model) -> Dense:
        """The shared experts as one MLP."""
        own = self.alpha, self.limit, self.shift
        return Dense(self.n_shared * self.width(m), self.activation, self.bias, *own)

    def check(self, m: Model) -> None:
        config.positive(self, ("n_experts", "top_k", "routing_group"), "model.moe")
        hidden.check(self, "moe")
        if self.shared_gate and not self.n_shared:
            raise ValueError(
                "model.moe.shared_gate needs model.moe.n_shared: it has nothing to gate"
            )
        routing.check(self)
        if not self.d_expert and self.active_width(m) % self.top_k:
            raise ValueError(
                f"model.moe.top_k={self.top_k} does not divide model.moe.d_ff="
                f"{self.active_width(m)}: equal active parameters need top_k * d_expert = d_ff;"
                " change one or set model.moe.d_expert"
            )
        pooled = [p for p in m.routed if p.balance_scope == "model"]
        if pooled and len({(p.n_experts, p.balance_scope, p.balance_weight) for p in m.routed}) > 1:
            raise ValueError(
                "model.moe.balance_scope=model pools all layers: give them equal n_experts,"
                " balance_scope and balance_weight"
            )

    def parameters(self, m: Model) -> dict[str, int]:
        one = matrices(self.activation) * m.d_model * self.width(m)
        if self.bias:
            one += biases(self.activation, self.width(m), m.d_model)
        shared = self.shared(m).active(m) if self.n_shared else 0
        return {
            "router": (m.d_model + self.router_bias) * self.n_experts,
            "experts": self.n_experts * one,
            "shared_experts": shared + m.d_model * self.shared_gate,
        }

    def active(self, m: Model) -> int:
        """Router, shared experts, and top_k of the routed ones."""
        p = self.parameters(m)
        return p["router"] + p["shared_experts"] + p["experts"] // self.n_experts * self.top_k

    def multiplied(self, m: Model) -> int:
        chosen = self.top_k + self.n_shared
        expert = matrices(self.activation) * m.d_model * self.width(m)
        return m.d_model * (self.n_experts + self.shared_gate) + chosen * expert

    def router_flops(self, m: Model) -> int:
        return 2 * m.d_model * self.n_experts

    def work(self, m: Model, ex: Execution, batch: int) -> Work:
        """Router, experts on the rows of the layout, the sum of their outputs by gates, and shared
        experts. Gates want the experts' outputs again; the sum itself is the last matmul. Kept:
        rows in and out and their hidden units, copies of weights, outputs by assignment, and eight
        float32 per token and expert of the router.
        """
        tokens, d, f = batch * m.seq_len, m.d_model, self.width(m)
        layout = dispatch.COUNTS[ex.moe](self, m, ex, tokens)
        matrix, combine = matrices(self.activation) * d * f, 2 * tokens * layout.combined * d
        arrays = matrices(self.activation) - 1 if layout.made else kept(self.activation)
        held = layout.rows * (2 * d + arrays * f) + layout.copies * matrix + tokens * self.top_k * d
        spare = layout.rows * f * size(ex)
        parts = [
            matmuls(2 * tokens * d * self.n_experts, kept=32 * tokens * self.n_experts),
            matmuls(2 * layout.rows * matrix, kept=held * size(ex), spare=spare),
            Work(0, 2 * layout.copies * self.n_experts * matrix, 0),
            matmuls(combine, combine),
        ]
        if self.n_shared:
            shared = self.shared(m).work(m, ex, batch)
            # the gate's gradient wants what the shared experts gave
            parts.append(shared._replace(last=0) if self.shared_gate else shared)
        if self.shared_gate:
            parts.append(matmuls(2 * tokens * d, kept=tokens * f * self.n_shared * size(ex)))
        return total(parts)

    def state(self, m: Model) -> State:
        return State()

    def axes(self, m: Model) -> list[tuple[str, str, int]]:
        return [
            ("experts", "model.moe.n_experts", self.n_experts),
            ("mlp", "the width of an expert", self.width(m)),
        ]

    def module(self, m: Model, ex: Execution, name: str) -> nn.Module:
        return _MoE(self, m, ex, name=name)


class _MoE(nn.Module):
    p: MoE
    m: Model
    ex: Execution

    def _weights(self) -> dict:
        p, d, f = self.p, self.m.d_model, self.p.width(self.m)
        names, axes = inputs(p.activation), ("experts", "expert_embed", "mlp")
        w = {
            name: declare(self, name, (p.n_experts, d, f), axes, d**-0.5, matrix=MATRIX)
            for name in names
        }
        # gain over the fan-in of the dense MLP of equal active width: a token's top_k experts
        # together stand for it
        spread, axes = (2 * self.m.n_layers * f) ** -0.5, ("experts", "mlp", "expert_embed")
        w["out"] = declare(self, "out", (p.n_experts, f, d), axes, spread, matrix=MATRIX)
        if p.bias:
            for name in (*names, "out"):
                width, axis = (d, "act_embed") if name == "out" else (f, "mlp")
                w[f"{name}_bias"] = declare(
                    self, f"{name}_bias", (p.n_experts, width), ("experts", axis), 0.0
                )
        cast = {name: a.astype(self.ex.dtype) for name, a in w.items()}
        return (
            {**cast, "sums": {name: self.get_variable("sums", name) for name in w}}
            if self.has_variable("sums", "in")
            else cast
        )

    def _selection_bias(self):
        if not self.p.selection_bias:
            return None
        shape = (self.p.n_experts,)
        return self.variable("buffers", "selection_bias", jnp.zeros, shape, jnp.float32).value

    def _note_load(self, expert_BTS):
        """Leaves each expert's assignments where the selection bias is moved by them."""
        if not (self.p.selection_bias and self.is_mutable_collection("load")):
            return
        n = self.p.n_experts
        load_E = jax.nn.one_hot(expert_BTS, n, dtype=jnp.float32).sum((0, 1, 2))
        self.variable("load", "selection_bias", jnp.zeros, (n,), jnp.float32).value = load_E

    @nn.compact
    def __call__(self, x_BTD, ctx=None):
        p, m = self.p, self.m
        decoding = ctx is not None and ctx.slot is not None
        shape, axes = (m.d_model, p.n_experts), ("embed", "experts_out")
        router_DE = declare(self, "router", shape, axes, m.d_model**-0.5, matrix=MATRIX)
        w, bias_E = self._weights(), self._selection_bias()
        logits_BTE = product("btd,de->bte", precise(x_BTD), router_DE)
        if p.router_bias:
            logits_BTE += declare(self, "router_bias", (p.n_experts,), ("experts_out",))
        self.sow("intermediates", "router_logits", logits_BTE)  # for whoever asks, as the next
        r = routing.route(p, logits_BTE, bias_E, dropless=decoding)
        self.sow(
            "intermediates", "expert", r.expert_BTS
        )  # for whoever asks which experts were chosen
        self._note_load(r.expert_BTS)
        y_BTD = self._experts(x_BTD, r, w)
        if p.n_shared:
            y_BTD += self._shared(x_BTD)
        if decoding:
            return y_BTD, {}
        most = max(q.n_experts for q in m.routed)
        return y_BTD, routing.statistics(p, most, logits_BTE, r)

    def _shared(self, x_BTD):
        p, m = self.p, self.m
        y_BTD = p.shared(m).module(m, self.ex, "shared")(x_BTD)[0]
        if not p.shared_gate:
            return y_BTD
        w_D1 = declare(self, "shared_gate", (m.d_model, 1), ("embed", None), m.d_model**-0.5)
        gate_BT1 = jax.nn.sigmoid(precise(einsum("btd,de->bte", x_BTD, w_D1.astype(x_BTD.dtype))))
        return y_BTD * gate_BT1.astype(y_BTD.dtype)

    def _experts(self, x_BTD, r: routing.Routing, w):
        p, ex = self.p, self.ex
        groups = x_BTD.shape[0] // p.routing_group if ex.moe == "capacity" else ex.moe_groups

        def split(a):
            return a.reshape(groups, -1, a.shape[-1])

        rank_GnS = routing.ranks(p, r.expert_BTS) if ex.moe == "capacity" else None
        y = dispatch.IMPLEMENTATIONS[ex.moe](
            split(x_BTD), split(r.expert_BTS), split(r.gate_BTS), rank_GnS, w, Units.read(p), p, ex
        )
        return y.reshape(x_BTD.shape)
