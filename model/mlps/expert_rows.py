"""Assignments laid out by expert in blocks of rows, and back to their tokens. The gradients are
gathers and matmuls, not scatters.
"""

import functools

import jax
import jax.numpy as jnp

from model.numerics import einsum


def rows_or_zeros(table, index):
    """table[index], zero where the index lies past the end."""
    return table.at[index].get(mode="fill", fill_value=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dispatch(x_nD, source, slot, top_k):
    """Rows of a layout: row r holds token source[r] // top_k; source < 0 is padding."""
    return jnp.where(source[:, None] >= 0, x_nD[jnp.maximum(source, 0) // top_k], 0)


def _dispatch_fwd(x_nD, source, slot, top_k):
    return dispatch(x_nD, source, slot, top_k), slot


def _dispatch_bwd(top_k, slot, g):
    # one gather for each choice, not a sum over an axis of choices: XLA on CPU does it in a pass
    return sum(rows_or_zeros(g, slot_n) for slot_n in slot.reshape(-1, top_k).T), None, None


dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def collect(rows, source, slot):
    """One row per assignment, out of a layout; zeros for an assignment that has no slot."""
    return rows_or_zeros(rows, slot)


def _collect_fwd(rows, source, slot):
    return rows_or_zeros(rows, slot), source


def _collect_bwd(source, g):
    return jnp.where(source[:, None] >= 0, g[jnp.maximum(source, 0)], 0), None, None


collect.defvjp(_collect_fwd, _collect_bwd)


@jax.custom_vjp
def select(w_EDF, expert_N):
    """The weights of each block's expert; its backward pass sums over blocks by a matmul instead of
    a scatter.
    """
    return w_EDF[expert_N]


def _select_fwd(w_EDF, expert_N):
    return w_EDF[expert_N], (expert_N, w_EDF.shape[0])


def _select_bwd(residual, g_NDF):
    expert_N, n_experts = residual
    hot_NE = jax.nn.one_hot(expert_N, n_experts, dtype=g_NDF.dtype)
    return einsum("ne,ndf->edf", hot_NE, g_NDF), None


select.defvjp(_select_fwd, _select_bwd)


def blocks(assignments: int, n_experts: int, rows: int) -> int:
    """Blocks that hold any split of `assignments` over `n_experts` without dropping."""
    return -(-assignments // rows) + n_experts


def layout(expert_A, n_experts: int, rows: int):
    """Where each assignment goes. Returns (blocks_E of each expert, one expert after the other;
    source per row or -1; slot per assignment).
    """
    n_blocks = blocks(expert_A.size, n_experts, rows)
    hot_AE = jax.nn.one_hot(expert_A, n_experts, dtype=jnp.int32)
    rank_A = jnp.take_along_axis(jnp.cumsum(hot_AE, 0), expert_A[:, None], 1)[:, 0] - 1
    blocks_E = -(-hot_AE.sum(0) // rows)
    ends_E = jnp.cumsum(blocks_E)
    slot_A = (ends_E - blocks_E)[expert_A] * rows + rank_A
    source = (
        jnp.full((n_blocks * rows,), -1, jnp.int32)
        .at[slot_A]
        .set(jnp.arange(expert_A.size, dtype=jnp.int32))
    )
    return blocks_E, source, slot_A


def owners(blocks_E, n_blocks: int):
    """The expert of each block; the last one of blocks that nobody has."""
    return jnp.minimum(
        (jnp.arange(n_blocks)[:, None] >= jnp.cumsum(blocks_E)).sum(1), blocks_E.size - 1
    )
