"""Mixture of experts: softmax router, top-k, no token dropped.

The router runs in float32. Three implementations of the same function, chosen by `Execution.moe`:

    block   assignments are laid out by expert in blocks of `moe_rows` rows; one batched matmul over blocks. Static shapes;
            at most E blocks of padding per group. The backward passes of dispatch and combine are gathers, not scatters.
    ragged  `jax.lax.ragged_dot` over assignments sorted by expert. (On CPU XLA computes it as all experts, masked.)
    all     every expert on every token, masked. The reference that the others are tested against.

Losses, per routing group of one sequence, so that no layout or micro-batch changes them:
    balance  E * sum_e f_e P_e, f the fraction of assignments, P the mean probability (Fedus et al. 2021, arXiv 2101.03961,
             eq 4-6, with f summing to 1 for any top_k): 1 when balanced
    z        mean logsumexp(logits)^2 (Zoph et al. 2022, arXiv 2202.08906, eq 5)
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Execution, Model
from model.mlps.dense import ACTIVATIONS, matrices
from model.params import declare


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _dispatch(x_nD, source, slot, top_k):
    """Rows of the block layout: row r holds token source[r] // top_k; source < 0 is padding."""
    return jnp.where(source[:, None] >= 0, x_nD[jnp.maximum(source, 0) // top_k], 0)


def _dispatch_fwd(x_nD, source, slot, top_k):
    return _dispatch(x_nD, source, slot, top_k), slot


def _dispatch_bwd(top_k, slot, g):
    return g[slot].reshape(-1, top_k, g.shape[-1]).sum(1), None, None


_dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def _collect(rows, source, slot):
    """One row per assignment, out of the block layout."""
    return rows[slot]


def _collect_fwd(rows, source, slot):
    return rows[slot], source


def _collect_bwd(source, g):
    return jnp.where(source[:, None] >= 0, g[jnp.maximum(source, 0)], 0), None, None


_collect.defvjp(_collect_fwd, _collect_bwd)


@jax.custom_vjp
def _select(w_EDF, expert_N):
    """The weights of each block's expert; its backward pass sums over blocks by a matmul instead of a scatter."""
    return w_EDF[expert_N]


def _select_fwd(w_EDF, expert_N):
    return w_EDF[expert_N], (expert_N, w_EDF.shape[0])


def _select_bwd(residual, g_NDF):
    expert_N, n_experts = residual
    hot_NE = jax.nn.one_hot(expert_N, n_experts, dtype=g_NDF.dtype)
    return jnp.einsum("ne,ndf->edf", hot_NE, g_NDF), None


_select.defvjp(_select_fwd, _select_bwd)


def blocks(assignments: int, n_experts: int, rows: int) -> int:
    """Blocks that hold any split of `assignments` over `n_experts` without dropping."""
    return -(-assignments // rows) + n_experts


def layout(expert_A, n_experts: int, rows: int):
    """Where each assignment goes. Returns (expert_N of each block, source per row or -1, slot per assignment)."""
    n_blocks = blocks(expert_A.size, n_experts, rows)
    hot_AE = jax.nn.one_hot(expert_A, n_experts, dtype=jnp.int32)
    rank_A = jnp.take_along_axis(jnp.cumsum(hot_AE, 0), expert_A[:, None], 1)[:, 0] - 1
    blocks_E = -(-hot_AE.sum(0) // rows)
    ends_E = jnp.cumsum(blocks_E)
    slot_A = (ends_E - blocks_E)[expert_A] * rows + rank_A
    source = jnp.full((n_blocks * rows,), -1, jnp.int32).at[slot_A].set(jnp.arange(expert_A.size, dtype=jnp.int32))
    expert_N = jnp.minimum((jnp.arange(n_blocks)[:, None] >= ends_E).sum(1), n_experts - 1)
    return expert_N, source, slot_A


def _block(x_nD, expert_nS, gate_nS, w, act, ex):
    """One dispatch group through the block layout."""
    top_k, width = expert_nS.shape[1], x_nD.shape[1]
    expert_N, source, slot_A = layout(expert_nS.reshape(-1), w["in"].shape[0], ex.moe_rows)
    x_NRD = _dispatch(x_nD, source, slot_A, top_k).reshape(-1, ex.moe_rows, width)
    up = lambda name: jnp.einsum("nrd,ndf->nrf", x_NRD, _select(w[name], expert_N))
    h_NRF = act(up("gate")) * up("in") if "gate" in w else act(up("in"))
    y_NRD = jnp.einsum("nrf,nfd->nrd", h_NRF, _select(w["out"], expert_N))
    y_nSD = _collect(y_NRD.reshape(-1, width), source, slot_A).reshape(*expert_nS.shape, width)
    return jnp.einsum("nsd,ns->nd", y_nSD, gate_nS.astype(y_nSD.dtype))


def _ragged(x_nD, expert_nS, gate_nS, w, act, ex):
    """One dispatch group through `jax.lax.ragged_dot`."""
    expert_A = expert_nS.reshape(-1)
    # lax.sort of (key, index), not argsort: argsort is mistyped inside shard_map and corrupts gradients there
    order_A = jax.lax.sort((expert_A, jnp.arange(expert_A.size, dtype=jnp.int32)), num_keys=1, is_stable=True)[1]
    slot_A = jnp.zeros_like(order_A).at[order_A].set(jnp.arange(order_A.size, dtype=jnp.int32))
    sizes_E = jax.nn.one_hot(expert_A, w["in"].shape[0], dtype=jnp.int32).sum(0)
    x_AD = _dispatch(x_nD, order_A, slot_A, expert_nS.shape[1])
    up = lambda name: jax.lax.ragged_dot(x_AD, w[name], sizes_E)
    h_AF = act(up("gate")) * up("in") if "gate" in w else act(up("in"))
    y_AD = _collect(jax.lax.ragged_dot(h_AF, w["out"], sizes_E), order_A, slot_A)
    return jnp.einsum("nsd,ns->nd", y_AD.reshape(*expert_nS.shape, -1), gate_nS.astype(y_AD.dtype))


def _all(x_nD, expert_nS, gate_nS, w, act, ex):
    """Every expert on every token, weighted by its gate or zero."""
    up = lambda name: jnp.einsum("nd,edf->nef", x_nD, w[name])
    h_nEF = act(up("gate")) * up("in") if "gate" in w else act(up("in"))
    gate_nE = (jax.nn.one_hot(expert_nS, w["in"].shape[0], dtype=gate_nS.dtype) * gate_nS[..., None]).sum(1)
    return jnp.einsum("nef,efd,ne->nd", h_nEF, w["out"], gate_nE.astype(h_nEF.dtype))


IMPLEMENTATIONS = {"block": _block, "ragged": _ragged, "all": _all}


def statistics(c: Model, logits_BTE, probs_BTE, expert_BTS) -> dict:
    """Losses and load of one layer, all scalars: see the module's docstring. `load` is max over mean assignments per expert."""
    hot_BE = jax.nn.one_hot(expert_BTS, c.n_experts, dtype=jnp.float32).sum((1, 2))
    fraction_BE = hot_BE / hot_BE.sum(-1, keepdims=True)
    balance = c.n_experts * (fraction_BE * probs_BTE.mean(1)).sum(-1).mean()
    z = jnp.mean(jax.nn.logsumexp(logits_BTE, -1) ** 2)
    entropy = -(probs_BTE * jnp.log(probs_BTE + 1e-30)).sum(-1).mean()
    load = hot_BE.sum(0).max() / hot_BE.sum(0).mean()
    return {
        "auxiliary": c.balance_weight * balance + c.z_weight * z,
        "balance_loss": balance,
        "z_loss": z,
        "router_entropy": entropy,
        "expert_load": load,
    }


class MoE(nn.Module):
    c: Model
    ex: Execution

    @nn.compact
    def __call__(self, x_BTD):
        c, ex = self.c, self.ex
        act, gated = ACTIVATIONS[c.activation]
        router_DE = declare(self, "router", (c.d_model, c.n_experts), ("embed", "experts_out"), c.d_model**-0.5)
        up, down = (c.n_experts, c.d_model, c.f_expert), (c.n_experts, c.f_expert, c.d_model)
        w = {
            name: declare(self, name, up, ("experts", "embed", "mlp"), c.d_model**-0.5).astype(ex.dtype)
            for name in (("gate", "in") if gated else ("in",))
        }
        # gain over the fan-in of the dense MLP of equal active width: a token's top_k experts together stand for it
        w["out"] = declare(self, "out", down, ("experts", "mlp", "embed"), (2 * c.n_layers * c.f_expert) ** -0.5).astype(ex.dtype)

        logits_BTE = jnp.einsum("btd,de->bte", x_BTD.astype(jnp.float32), router_DE)
        probs_BTE = jax.nn.softmax(logits_BTE, -1)
        gate_BTS, expert_BTS = jax.lax.top_k(probs_BTE, c.top_k)
        if c.renormalise:
            gate_BTS = gate_BTS / gate_BTS.sum(-1, keepdims=True)

        group = lambda a: a.reshape(ex.moe_groups, -1, a.shape[-1])
        one = functools.partial(IMPLEMENTATIONS[ex.moe], w=w, act=act, ex=ex)
        if ex.moe_groups == 1:
            y_GnD = one(group(x_BTD)[0], group(expert_BTS)[0], group(gate_BTS)[0])
        else:
            y_GnD = jax.vmap(one)(group(x_BTD), group(expert_BTS), group(gate_BTS))
        return y_GnD.reshape(x_BTD.shape), statistics(c, logits_BTE, probs_BTE, expert_BTS)


def parameters(c: Model) -> dict[str, int]:
    return {"router": c.d_model * c.n_experts, "experts": c.n_experts * matrices(c) * c.d_model * c.f_expert}


def active(c: Model) -> int:
    return c.d_model * c.n_experts + c.top_k * matrices(c) * c.d_model * c.f_expert


def forward_flops(c: Model) -> int:
    return 2 * active(c)


def executed_flops(c: Model, ex: Execution, tokens: int) -> int:
    """Padding of the block layout, or all experts, included. `ragged` is counted by assignments: what it executes depends on the backend."""
    assignments = tokens * c.top_k
    rows = {
        "block": ex.moe_groups * ex.moe_rows * blocks(assignments // ex.moe_groups, c.n_experts, ex.moe_rows),
        "ragged": assignments,
        "all": tokens * c.n_experts,
    }[ex.moe]
    return 2 * tokens * c.d_model * c.n_experts + 2 * rows * matrices(c) * c.d_model * c.f_expert
