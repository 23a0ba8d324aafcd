"""Muon."""

import dataclasses
from typing import ClassVar

from model.optimizers.base import Optimizer, between


@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024) as Liu et al. 2025 (arXiv 2502.16982) scale it: the momentum of a
    hidden matrix of A inputs and B outputs is made orthogonal and multiplied by `rms`
    sqrt(max(A, B)), which gives it the size of AdamW's updates, so that AdamW's rates and decay
    serve. Embedding, positions, head and vectors take AdamW.

    A matrix is what tokens are multiplied by in one: all heads of a projection together; each
    expert, each gate of a recurrence and each layer of scanned ones by itself.
    """

    TRANSFERS: ClassVar[bool] = True

    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5  # Newton-Schulz iterations, in the dtype of the run's matmuls
    rms: float = 0.2  # of an update
    b1: float = 0.9  # these of AdamW
    b2: float = 0.95
    eps: float = 1e-8

    def check(self) -> None:
        super().check()
        between(self, "momentum", "b1", "b2")
        if not (self.ns_steps >= 1 and self.rms > 0):
            raise ValueError("optimizer.ns_steps must be at least 1, optimizer.rms positive")

    def factor(self, leaf):
        return leaf.factors.spectral if leaf.kind == "matrix" else leaf.factors.rate

    def direction(self, leaves, dtype):
        import jax
        import optax

        from model.leaves import each

        by_path = {leaf.path: leaf for leaf in each(leaves)}

        def named(path):
            return by_path[tuple(str(k.key) for k in path)]

        def orthogonal(updates, _):
            def one(path, x):
                leaf = named(path)
                made = self._orthogonal(x.astype(dtype), leaf).astype(x.dtype)
                return self.rms * max(leaf.sides) ** 0.5 * made

            return jax.tree_util.tree_map_with_path(one, updates)

        def which(params):
            return jax.tree_util.tree_map_with_path(
                lambda path, _: "muon" if named(path).kind == "matrix" else "adamw", params
            )

        ways = {
            "muon": optax.chain(
                optax.trace(self.momentum, self.nesterov), optax.stateless(orthogonal)
            ),
            "adamw": optax.scale_by_adam(self.b1, self.b2, self.eps),
        }
        return optax.partition(ways, which)

    def _orthogonal(self, x, leaf):
        """`x` with the singular values of each of its matrices near 1. optax has the iteration in
        a transform alone; without momentum, from its first state, it is just that.
        """
        import optax

        t = optax.contrib.scale_by_muon(
            ns_steps=self.ns_steps,
            beta=0.0,
            nesterov=False,
            weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(leaf.rows, leaf.cols),
        )
        return t.update(x, t.init(x))[0]

    def state_bytes(self, inventory) -> int:
        """Momentum of matrices, AdamW's two moments of the rest, and its count of updates."""
        hidden = sum(leaf.size for leaf in inventory.leaves if leaf.kind == "matrix")
        return 8 * inventory.total - 4 * hidden + 4

    def update_flops(self, inventory) -> int:
        """An iteration on a matrix of m x n, m the shorter side: X X^T, its square, and their
        product with X.
        """
        out = 0
        for leaf in inventory.leaves:
            if leaf.kind == "matrix":
                m, n = sorted(leaf.sides)
                out += leaf.matrices * self.ns_steps * (4 * m * m * n + 2 * m**3)
        return out
