"""Implementations of the same experts, chosen by `Execution.moe`:

    block     assignments are laid out by expert in blocks of `moe_rows` rows (expert_rows.py); one
              batched matmul over blocks. Static shapes, nothing is dropped; at most E blocks of
              padding per group.
    loop      the same rows, one expert after the other, over the blocks that it has
              (expert_loop.py): little padding is multiplied and no weight copied. For one device's
              worth of tokens, and blocks wide enough for a matmul each.
    capacity  an expert has a fixed number of rows per routing group; what does not fit is dropped.
              For models with a capacity_factor.
    ragged    `jax.lax.ragged_dot` over assignments sorted by expert. (On CPU XLA computes it as all
              experts, masked.)
    all       every expert on every token, masked. The reference that the others are tested against.

Each is a function (x_nD, expert_nS, gate_nS, rank_nS, w, units, p, ex) -> y_nD of one group of
tokens. A dropped assignment has gate 0, so all of them compute the same function; `rank` is its
place in the queue of its expert, None in dropless models. With `w` comes "sums" where `loop` is to
add the gradients of `w` to what earlier micro-batches gave (expert_loop.summed).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.mlps import expert_loop, routing
from model.mlps.expert_rows import blocks, collect, dispatch, layout, owners, rows_or_zeros, select
from model.mlps.hidden import activated
from model.numerics import einsum, precision
from model.xla_cpu import product


def _mlp(x, w, units, times, spread):
    """An expert's MLP on rows `x`: `times(x, w)` multiplies rows by their experts' weights,
    `spread(b)` gives them their biases.
    """

    def linear(x, name):
        y = times(x, w[name])
        return y + spread(w[f"{name}_bias"]) if f"{name}_bias" in w else y

    return linear(
        activated(units, {name: linear(x, name) for name in ("gate", "in") if name in w}), "out"
    )


def _combine(y_nSD, gate_nS):
    return einsum("...sd,...s->...d", y_nSD, gate_nS.astype(y_nSD.dtype))


def _by_group(one):
    """An implementation on (groups, tokens, ...) out of that on the tokens of one group."""

    def run(x_GnD, expert_GnS, gate_GnS, rank_GnS, w, units, p, ex):
        def f(x_nD, expert_nS, gate_nS):
            return one(x_nD, expert_nS, gate_nS, w, units, p, ex)

        if x_GnD.shape[0] == 1:
            return f(x_GnD[0], expert_GnS[0], gate_GnS[0])[None]
        return jax.vmap(f)(x_GnD, expert_GnS, gate_GnS)

    return run


def _unsharded(w):
    """Experts' weights on every device that shards the batch; `mlp` stays sharded."""
    axes = {2: (None, "act_embed"), 3: (None, "act_embed", "mlp")}

    def place(name, a):
        return (None, "mlp", "act_embed") if name == "out" else axes[a.ndim]

    return {
        name: a if name.endswith("bias") else nn.with_logical_constraint(a, place(name, a))
        for name, a in w.items()
    }


def _block(x_GnD, expert_GnS, gate_GnS, rank_GnS, w, units, p, ex):
    return _by_group(_block_of_group)(
        x_GnD, expert_GnS, gate_GnS, rank_GnS, _unsharded(w), units, p, ex
    )


def _block_of_group(x_nD, expert_nS, gate_nS, w, units, p, ex):
    blocks_E, source, slot_A = layout(expert_nS.reshape(-1), p.n_experts, ex.moe_rows)
    x_NRD = dispatch(x_nD, source, slot_A, p.top_k).reshape(-1, ex.moe_rows, x_nD.shape[1])
    expert_N = owners(blocks_E, x_NRD.shape[0])

    def times(x, w_EDF):
        return product("nrd,ndf->nrf", x, select(w_EDF, expert_N))

    y_NRD = _mlp(x_NRD, w, units, times, lambda b_EF: b_EF[expert_N][:, None])
    return _combine(
        collect(y_NRD.reshape(-1, x_nD.shape[1]), source, slot_A).reshape(*expert_nS.shape, -1),
        gate_nS,
    )


@_by_group
def _loop(x_nD, expert_nS, gate_nS, w, units, p, ex):
    blocks_E, source, slot_A = layout(
        expert_nS.reshape(-1), p.n_experts, expert_loop.narrow(ex.moe_rows)
    )
    x_rD = dispatch(x_nD, source, slot_A, p.top_k)
    w, sums = {k: a for k, a in w.items() if k != "sums"}, w.get("sums", {})
    y_rD = expert_loop.experts(
        units, ex.moe_rows, x_rD, jnp.cumsum(blocks_E) - blocks_E, blocks_E, w, sums
    )
    return _combine(collect(y_rD, source, slot_A).reshape(*expert_nS.shape, -1), gate_nS)


def _exchange(x_GECD, there: bool):
    """From the devices that hold the tokens to those that hold the experts, or back: two layouts
    after each other are an all-to-all.
    """
    layouts = [("batch", None, None, "act_embed"), ("expert_batch", "experts", None, "act_embed")]
    for axes in layouts if there else layouts[::-1]:
        x_GECD = nn.with_logical_constraint(x_GECD, axes)
    return x_GECD


def _capacity(x_GnD, expert_GnS, gate_GnS, rank_GnS, w, units, p, ex):
    groups, tokens, width = x_GnD.shape
    room = routing.capacity(p, tokens)
    slot_GA = jnp.where(rank_GnS < room, expert_GnS * room + rank_GnS, p.n_experts * room).reshape(
        groups, -1
    )
    order_A = jnp.arange(slot_GA.shape[1], dtype=jnp.int32)
    empty = jnp.full((p.n_experts * room,), -1, jnp.int32)
    source = jax.vmap(lambda slot_A: empty.at[slot_A].set(order_A, mode="drop"))(slot_GA)
    x_GrD = jax.vmap(functools.partial(dispatch, top_k=p.top_k))(x_GnD, source, slot_GA)
    x_GECD = _exchange(x_GrD.reshape(groups, p.n_experts, room, width), there=True)
    # experts first and the rest one axis: a product over the axes as they are costs XLA on GPU
    # transposed copies of rows and hidden units
    x_ErD = x_GECD.swapaxes(0, 1).reshape(p.n_experts, -1, width)
    y_ErD = _mlp(
        x_ErD,
        w,
        units,
        lambda x, w_EDF: product("erd,edf->erf", x, w_EDF),
        lambda b_EF: b_EF[:, None],
    )
    y_GECD = _exchange(y_ErD.reshape(p.n_experts, groups, room, width).swapaxes(0, 1), there=False)
    y_GAD = jax.vmap(collect)(y_GECD.reshape(groups, -1, width), source, slot_GA)
    return _combine(y_GAD.reshape(*expert_GnS.shape, width), gate_GnS)


def sort_order(keys):
    """The stable order that sorts `keys`. Not jnp.argsort: inside shard_map that is typed as equal
    on all devices, and gradients through it are silently wrong (jax 0.10.2).
    """
    return jax.lax.sort((keys, jnp.arange(keys.size, dtype=jnp.int32)), num_keys=1, is_stable=True)[
        1
    ]


def _ragged(x_GnD, expert_GnS, gate_GnS, rank_GnS, w, units, p, ex):
    """On several devices: tokens are gathered over the devices that shard the experts, each
    computes those of its own, and the sums go back to the tokens' devices. No weight of an expert
    moves between these.
    """

    def flat(a):
        return a.reshape(-1, a.shape[-1])

    arrays = flat(x_GnD), flat(expert_GnS), flat(gate_GnS)
    experts, mlp = nn.logical_to_mesh_axes(("experts",)), nn.logical_to_mesh_axes(("mlp",))
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _ragged_local(*arrays, w, units, p).reshape(x_GnD.shape)
    over, split = experts[0], mlp[0]

    def local(x_nD, expert_nS, gate_nS, w):
        x_nD, expert_nS, gate_nS = (
            jax.lax.all_gather(a, over, tiled=True) for a in (x_nD, expert_nS, gate_nS)
        )
        held = w["out"].shape[0]
        own_nS = expert_nS - jax.lax.axis_index(over) * held
        own_nS = jnp.where((own_nS >= 0) & (own_nS < held), own_nS, held)
        if "out_bias" in w:  # the sum over `mlp` adds it so many times
            w = {**w, "out_bias": w["out_bias"] / mesh.shape[split]}
        y_nD = _ragged_local(x_nD, own_nS, gate_nS, w, units, p)
        return jax.lax.psum(jax.lax.psum_scatter(y_nD, over, tiled=True), split)

    rows = nn.logical_to_mesh_axes(("batch", None))
    axes = {
        "in": ("experts", None, "mlp"),
        "gate": ("experts", None, "mlp"),
        "out": ("experts", "mlp", None),
    }
    axes |= {
        "in_bias": ("experts", "mlp"),
        "gate_bias": ("experts", "mlp"),
        "out_bias": ("experts", None),
    }
    specs = {name: nn.logical_to_mesh_axes(axes[name]) for name in w}
    return jax.shard_map(local, in_specs=(rows, rows, rows, specs), out_specs=rows)(
        *arrays, w
    ).reshape(x_GnD.shape)


def _ragged_local(x_nD, expert_nS, gate_nS, w, units, p):
    """Of the experts in `w`; an assignment to any other, with expert past the end, adds nothing."""
    held = w["out"].shape[0]
    expert_A = expert_nS.reshape(-1)
    order_A = sort_order(expert_A)
    slot_A = jnp.zeros_like(order_A).at[order_A].set(jnp.arange(order_A.size, dtype=jnp.int32))
    sizes_E = jax.nn.one_hot(expert_A, held, dtype=jnp.int32).sum(0)
    x_AD = dispatch(x_nD, order_A, slot_A, p.top_k)

    def spread(b_EF):
        return rows_or_zeros(b_EF, expert_A[order_A])

    def times(x, w_EDF):
        return jax.lax.ragged_dot(x, w_EDF, sizes_E, precision=precision(x, w_EDF))

    y_AD = _mlp(x_AD, w, units, times, spread)
    return _combine(collect(y_AD, order_A, slot_A).reshape(*expert_nS.shape, -1), gate_nS)


@_by_group
def _all(x_nD, expert_nS, gate_nS, w, units, p, ex):
    x_nED = jnp.broadcast_to(x_nD[:, None], (x_nD.shape[0], p.n_experts, x_nD.shape[1]))
    y_nED = _mlp(
        x_nED, w, units, lambda x, w_EDF: einsum("ned,edf->nef", x, w_EDF), lambda b_EF: b_EF
    )
    gate_nE = (
        jax.nn.one_hot(expert_nS, p.n_experts, dtype=gate_nS.dtype) * gate_nS[..., None]
    ).sum(1)
    return einsum("ned,ne->nd", y_nED, gate_nE.astype(y_nED.dtype))


IMPLEMENTATIONS = {
    "block": _block,
    "loop": _loop,
    "capacity": _capacity,
    "ragged": _ragged,
    "all": _all,
}


class Layout(NamedTuple):
    """Of one implementation on a batch: `rows` that the experts' matrices multiply at most, padding
    included; how many experts' outputs are `combined` for a token; `copies` of experts' matrices,
    whose gradients are summed over copies by a matmul with E; whether all is `made` again in the
    backward pass but what the nonlinearity takes.
    """

    rows: int
    combined: int
    copies: int = 0
    made: bool = False


def _block_layout(p, m, ex, tokens):
    n_blocks = ex.moe_groups * blocks(tokens * p.top_k // ex.moe_groups, p.n_experts, ex.moe_rows)
    return Layout(n_blocks * ex.moe_rows, p.top_k, n_blocks)


def _loop_layout(p, m, ex, tokens):
    rows = expert_loop.narrow(ex.moe_rows)
    n_blocks = ex.moe_groups * blocks(tokens * p.top_k // ex.moe_groups, p.n_experts, rows)
    return Layout(n_blocks * rows, p.top_k, made=True)


def _capacity_layout(p, m, ex, tokens):
    group = p.routing_group * m.seq_len
    return Layout(tokens // group * p.n_experts * routing.capacity(p, group), p.top_k)


# `ragged` is counted by assignments, as it is written: where a backend has no kernel for it, it
# computes all experts on all rows, masked
COUNTS = {
    "block": _block_layout,
    "loop": _loop_layout,
    "capacity": _capacity_layout,
    "ragged": lambda p, m, ex, tokens: Layout(tokens * p.top_k, p.top_k),
    "all": lambda p, m, ex, tokens: Layout(tokens * p.n_experts, p.n_experts),
}
