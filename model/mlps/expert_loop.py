"""Experts one after the other, each over the rows that it has, in blocks of several widths, the
wide ones first: loops whose length the routing decides. Padding is less than a narrow block an
expert, and the gradients of an expert's weights are added up where they stay: with those of earlier
micro-batches, where there are several.

Reverse differentiation of a loop of unknown length is not jax's, so both directions are written
here. Kept for the backward one: rows and what the activation takes.
"""

import functools

import jax
import jax.numpy as jnp
from flax import traverse_util

from model.config import Execution
from model.mlps.hidden import hidden
from model.numerics import einsum
from model.xla_cpu import BLOCKS, made_once, outer


def narrow(rows: int) -> int:
    """Rows of a narrow block beside wide ones of `rows`."""
    return max(1, rows // BLOCKS[0])


def widths(rows: int, held: int) -> tuple[int, ...]:
    """Rows of the blocks of a layout of `held` rows, the widest first and at most `rows`."""
    unit = narrow(rows)
    return tuple(dict.fromkeys(min(width, min(rows, held) // unit) * unit for width in BLOCKS))


def _over(rows: int, held: int, first, count, block, carry):
    """`block(at, size, carry)` over `count` narrow blocks from the `first` on, of a layout of
    `held` rows: as many of them at once as the widest holds, and the rest by the next.
    """
    unit, done = narrow(rows), 0
    for size in widths(rows, held):
        times = (count - done) // (size // unit)

        def one(i, c, size=size, start=first + done):
            return block(start * unit + i * size, size, c)

        carry = jax.lax.fori_loop(0, times, one, carry)
        done = done + times * (size // unit)
    return carry


def _cut(a_r, at, size):
    return jax.lax.dynamic_slice_in_dim(a_r, at, size)


def _put(a_r, part, at):
    return jax.lax.dynamic_update_slice_in_dim(a_r, part, at, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def experts(units, rows: int, x_rD, first_E, count_E, w, sums):
    """The experts' MLPs on a layout in narrow blocks (`rows` is the width of a wide one): expert e
    has the `count_E[e]` blocks from `first_E[e]` on. Rows that no expert has come back as zeros.
    `w`: "gate" where it is gated, "in", "out", each (E, in, out), and their biases (E, out).
    `sums`: {}, or what the gradients of `w` are added to, like `w` in float32: the gradient of `w`
    comes back as these sums.
    """
    return _forward(units, rows, x_rD, first_E, count_E, w, sums)[0]


def _names(w) -> tuple[str, ...]:
    return tuple(name for name in ("gate", "in") if name in w)


def _linear(x, w, name):
    y = einsum("ra,ab->rb", x, w[name])
    return y + w[f"{name}_bias"] if f"{name}_bias" in w else y


def _forward(units, rows, x_rD, first_E, count_E, w, sums):
    def expert(made, of):
        first, count, w = of

        def block(at, size, made):
            x = _cut(x_rD, at, size)
            before = {name: _linear(x, w, name) for name in _names(w)}
            return jax.tree.map(
                lambda a, b: _put(a, b, at),
                made,
                (before, _linear(hidden(units, before), w, "out")),
            )

        return _over(rows, x_rD.shape[0], first, count, block, made), None

    empty_rF = jnp.zeros((x_rD.shape[0], w["in"].shape[-1]), x_rD.dtype)
    made = {name: empty_rF for name in _names(w)}, jnp.zeros_like(x_rD)
    (before, y_rD), _ = jax.lax.scan(expert, made, (first_E, count_E, w))
    return y_rD, (x_rD, before, first_E, count_E, w, sums)


def _backward(units, rows, held, dy_rD):
    x_rD, before_rF, first_E, count_E, w, sums = held

    def back(g, w):
        return einsum("rb,ab->ra", g, w)

    def expert(so_far, of):
        e, first, count, w = of

        def block(at, size, so_far):
            dx_rD, dw_E = so_far
            # made once before they are turned (xla_cpu.py)
            x, dy = made_once(_cut(x_rD, at, size)), _cut(dy_rD, at, size)
            h, pull = jax.vjp(
                functools.partial(hidden, units),
                {name: _cut(a, at, size) for name, a in before_rF.items()},
            )
            of_result = {"out": dy, **pull(back(dy, w["out"]))[0]}
            of_input = {"out": made_once(h), **{name: x for name in before_rF}}
            dx = sum(back(of_result[name], w[name]) for name in before_rF)
            new = {
                name: outer(of_input[name], g, dw_E[name].dtype) for name, g in of_result.items()
            }
            new |= {
                b: of_result[b.removesuffix("_bias")].sum(0, dtype=dw_E[b].dtype)
                for b in dw_E
                if b.endswith("_bias")
            }
            return _put(dx_rD, dx, at), jax.tree.map(lambda a_E, a: a_E.at[e].add(a), dw_E, new)

        return _over(rows, x_rD.shape[0], first, count, block, so_far), None

    sums = sums or {
        name: jnp.zeros(a.shape, jnp.promote_types(a.dtype, jnp.float32)) for name, a in w.items()
    }
    each = jnp.arange(first_E.size), first_E, count_E, w
    (dx_rD, dw_E), _ = jax.lax.scan(expert, (jnp.zeros_like(x_rD), sums), each)
    return dx_rD, None, None, {name: a.astype(w[name].dtype) for name, a in dw_E.items()}, None


experts.defvjp(_forward, _backward)


def summed(ex: Execution, grads: dict) -> dict:
    """Of a tree of gradients those that the experts add up by themselves, given in the collection
    "sums"; {} where none are.
    """
    if (
        ex.moe != "loop" or ex.dtype != "float32" or ex.scan or ex.moe_groups > 1
    ):  # each group would add them
        return {}
    flat = traverse_util.flatten_dict(grads)
    return traverse_util.unflatten_dict(
        {
            p: a
            for p, a in flat.items()
            if (*p[:-1], "router") in flat and p[-1].removesuffix("_bias") in ("gate", "in", "out")
        }
    )
