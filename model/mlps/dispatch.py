"""Implementations of the same experts, chosen by `Execution.moe`:

    block     assignments are laid out by expert in blocks of `moe_rows` rows; one batched matmul over blocks. Static shapes, nothing is
              dropped; at most E blocks of padding per group. The backward passes of dispatch and combine are gathers, not scatters.
    capacity  an expert has a fixed number of rows per routing group; what does not fit is dropped. For models with a capacity_factor.
    ragged    `jax.lax.ragged_dot` over assignments sorted by expert. (On CPU XLA computes it as all experts, masked.)
    all       every expert on every token, masked. The reference that the others are tested against.

Each is a function (x_nD, expert_nS, gate_nS, rank_nS, w, act, c, ex) -> y_nD of one group of tokens. A dropped assignment has gate 0, so
all four compute the same function; `rank` is its place in the queue of its expert, None in dropless models.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.mlps import routing


def _rows(table, index):
    """table[index], zero where the index lies past the end."""
    return table.at[index].get(mode="fill", fill_value=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _dispatch(x_nD, source, slot, top_k):
    """Rows of a layout: row r holds token source[r] // top_k; source < 0 is padding."""
    return jnp.where(source[:, None] >= 0, x_nD[jnp.maximum(source, 0) // top_k], 0)


def _dispatch_fwd(x_nD, source, slot, top_k):
    return _dispatch(x_nD, source, slot, top_k), slot


def _dispatch_bwd(top_k, slot, g):
    return _rows(g, slot).reshape(-1, top_k, g.shape[-1]).sum(1), None, None


_dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def _collect(rows, source, slot):
    """One row per assignment, out of a layout; zeros for an assignment that has no slot."""
    return _rows(rows, slot)


def _collect_fwd(rows, source, slot):
    return _rows(rows, slot), source


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


def _mlp(x, w, act, times, spread):
    """An expert's MLP on rows `x`: `times(x, w)` multiplies rows by their experts' weights, `spread(b)` gives them their biases."""

    def linear(x, name):
        y = times(x, w[name])
        return y + spread(w[f"{name}_bias"]) if f"{name}_bias" in w else y

    h = act(linear(x, "gate")) * linear(x, "in") if "gate" in w else act(linear(x, "in"))
    return linear(h, "out")


def _combine(y_nSD, gate_nS):
    return jnp.einsum("nsd,ns->nd", y_nSD, gate_nS.astype(y_nSD.dtype))


def _block(x_nD, expert_nS, gate_nS, rank_nS, w, act, c, ex):
    expert_N, source, slot_A = layout(expert_nS.reshape(-1), c.n_experts, ex.moe_rows)
    x_NRD = _dispatch(x_nD, source, slot_A, c.top_k).reshape(-1, ex.moe_rows, x_nD.shape[1])
    times = lambda x, w_EDF: jnp.einsum("nrd,ndf->nrf", x, _select(w_EDF, expert_N))
    y_NRD = _mlp(x_NRD, w, act, times, lambda b_EF: b_EF[expert_N][:, None])
    return _combine(_collect(y_NRD.reshape(-1, x_nD.shape[1]), source, slot_A).reshape(*expert_nS.shape, -1), gate_nS)


def _capacity(x_nD, expert_nS, gate_nS, rank_nS, w, act, c, ex):
    room = routing.capacity(c, x_nD.shape[0])
    slot_A = jnp.where(rank_nS < room, expert_nS * room + rank_nS, c.n_experts * room).reshape(-1)
    order_A = jnp.arange(slot_A.size, dtype=jnp.int32)
    source = jnp.full((c.n_experts * room,), -1, jnp.int32).at[slot_A].set(order_A, mode="drop")
    x_ECD = _dispatch(x_nD, source, slot_A, c.top_k).reshape(c.n_experts, room, -1)
    times = lambda x, w_EDF: jnp.einsum("ecd,edf->ecf", x, w_EDF)
    y_ECD = _mlp(x_ECD, w, act, times, lambda b_EF: b_EF[:, None])
    return _combine(_collect(y_ECD.reshape(-1, x_nD.shape[1]), source, slot_A).reshape(*expert_nS.shape, -1), gate_nS)


def _ragged(x_nD, expert_nS, gate_nS, rank_nS, w, act, c, ex):
    expert_A = expert_nS.reshape(-1)
    # lax.sort of (key, index), not argsort: argsort is mistyped inside shard_map and corrupts gradients there
    sorted_A, order_A = jax.lax.sort((expert_A, jnp.arange(expert_A.size, dtype=jnp.int32)), num_keys=1, is_stable=True)
    slot_A = jnp.zeros_like(order_A).at[order_A].set(jnp.arange(order_A.size, dtype=jnp.int32))
    sizes_E = jax.nn.one_hot(expert_A, c.n_experts, dtype=jnp.int32).sum(0)
    x_AD = _dispatch(x_nD, order_A, slot_A, c.top_k)
    y_AD = _mlp(x_AD, w, act, lambda x, w_EDF: jax.lax.ragged_dot(x, w_EDF, sizes_E), lambda b_EF: b_EF[sorted_A])
    return _combine(_collect(y_AD, order_A, slot_A).reshape(*expert_nS.shape, -1), gate_nS)


def _all(x_nD, expert_nS, gate_nS, rank_nS, w, act, c, ex):
    x_nED = jnp.broadcast_to(x_nD[:, None], (x_nD.shape[0], c.n_experts, x_nD.shape[1]))
    y_nED = _mlp(x_nED, w, act, lambda x, w_EDF: jnp.einsum("ned,edf->nef", x, w_EDF), lambda b_EF: b_EF)
    gate_nE = (jax.nn.one_hot(expert_nS, c.n_experts, dtype=gate_nS.dtype) * gate_nS[..., None]).sum(1)
    return jnp.einsum("ned,ne->nd", y_nED, gate_nE.astype(y_nED.dtype))


IMPLEMENTATIONS = {"block": _block, "capacity": _capacity, "ragged": _ragged, "all": _all}


class Layout(NamedTuple):
    """Of one implementation on a batch: `rows` that the experts' matrices multiply, padding included; how many experts' outputs are
    `combined` for a token; `copies` of experts' matrices, whose gradients are summed over copies by a matmul with E."""

    rows: int
    combined: int
    copies: int = 0


def _block_layout(c, ex, tokens):
    n_blocks = ex.moe_groups * blocks(tokens * c.top_k // ex.moe_groups, c.n_experts, ex.moe_rows)
    return Layout(n_blocks * ex.moe_rows, c.top_k, n_blocks)


def _capacity_layout(c, ex, tokens):
    group = c.routing_group * c.seq_len
    return Layout(tokens // group * c.n_experts * routing.capacity(c, group), c.top_k)


# `ragged` is counted by assignments, as it is written: where a backend has no kernel for it, it computes all experts on all rows, masked
COUNTS = {
    "block": _block_layout,
    "capacity": _capacity_layout,
    "ragged": lambda c, ex, tokens: Layout(tokens * c.top_k, c.top_k),
    "all": lambda c, ex, tokens: Layout(tokens * c.n_experts, c.n_experts),
}
