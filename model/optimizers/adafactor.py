"""Adafactor."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

from model.optimizers.base import Optimizer


class Factored(NamedTuple):
    """Running means of squared gradients: for a matrix (over its outputs, over its inputs), with
    the axes that they are taken over kept at length 1; else (of every number,).
    """

    count: Any
    squares: Any


@dataclasses.dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor without momentum (Shazeer & Stern 2018, arXiv 1804.04235, algorithms 4 and 5, at a
    learning rate that is given): squared gradients of a matrix by row and by column. Every matrix
    is factored by itself, also those of scanned layers and stacked experts.
    """

    TRANSFERS: ClassVar[bool] = True

    decay_power: float = 0.8  # squares decay by 1 - t^-power at update t
    eps: float = 1e-30  # added to squared gradients
    update_clip: float = 1.0  # root mean square that a matrix's update is scaled down to

    def check(self) -> None:
        super().check()
        if not (self.decay_power > 0 and self.update_clip > 0 and self.eps >= 0):
            raise ValueError(
                "optimizer.decay_power and optimizer.update_clip must be positive, optimizer.eps"
                " cannot be negative"
            )

    def direction(self, leaves, dtype):
        import jax
        import jax.numpy as jnp
        import optax

        def start(p, leaf):
            def zeros(over):
                return jnp.zeros([1 if i in over else n for i, n in _counted(p.shape)], p.dtype)

            return (zeros(leaf.cols), zeros(leaf.rows)) if leaf.cols else (zeros(()),)

        def init(params):
            return Factored(jnp.zeros([], jnp.int32), jax.tree.map(start, params, leaves))

        def squared(g, leaf, kept, share):
            now = g * g + self.eps
            if not leaf.cols:
                return (share * kept[0] + (1 - share) * now,)
            means = now.mean(leaf.cols, keepdims=True), now.mean(leaf.rows, keepdims=True)
            return tuple(share * old + (1 - share) * new for old, new in zip(kept, means))

        def scaled(g, leaf, squares):
            u = g * jax.lax.rsqrt(squares[0])
            if leaf.cols:
                mean = squares[0].mean(leaf.rows, keepdims=True)
                u = g * jax.lax.rsqrt(squares[0] / mean) * jax.lax.rsqrt(squares[1])
            own = leaf.rows + leaf.cols or (-1,)
            size = jnp.sqrt((u * u).mean(own, keepdims=True))
            return u / jnp.maximum(1.0, size / self.update_clip)

        def update(grads, state, params=None):
            count = optax.safe_increment(state.count)
            share = 1 - jnp.asarray(count, jnp.float32) ** -self.decay_power
            squares = jax.tree.map(
                lambda g, leaf, kept: squared(g, leaf, kept, share), grads, leaves, state.squares
            )
            return jax.tree.map(scaled, grads, leaves, squares), Factored(count, squares)

        return optax.GradientTransformation(init, update)

    def state_bytes(self, inventory) -> int:
        """A number for each row and each column of a matrix, for each number of a vector, and a
        count of updates.
        """
        numbers = sum(
            leaf.matrices * sum(leaf.sides) if leaf.cols else leaf.size for leaf in inventory.leaves
        )
        return 4 * numbers + 4


def _counted(shape):
    """(axis counted from the end, length) of each axis."""
    return [(i - len(shape), n) for i, n in enumerate(shape)]
