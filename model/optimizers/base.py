"""What all optimizers share: rates by kind of leaf, decay, clipping.

Learning rates and weight decay of a step are computed on the host and passed into the compiled
step: one compiled program serves every value.

Whoever reads a configuration comes through here: jax and optax are imported where arrays are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

from model.config import SCALARS, choose

if TYPE_CHECKING:
    import optax

    from model.leaves import Inventory, Leaf

# what the host passes into a step
HYPER = ("lr", "embed_lr", "head_lr", "weight_decay")
# the rate of a kind of leaf that has one of its own
RATES = {"embed": "embed_lr", "positions": "embed_lr", "head": "head_lr"}
DECAYED = ("matrices", "all")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The common fields; the optimizers are its subclasses."""

    AGAINST_ADAMW: ClassVar[float] = 1.0
    TRANSFERS: ClassVar[bool] = False  # model/parametrisation.py knows how its rates follow width

    lr: float = 1e-3  # peak
    embed_lr: float = 0.0  # peak for token embedding and learned positions; 0: same as lr
    head_lr: float = 0.0  # peak for a head that is not tied to the embedding; 0: same as lr
    weight_decay: float = 0.0  # decoupled, scaled by the learning rate
    decay: str = "matrices"  # what decays: matrices (no norms, biases, embedding, positions) | all
    clip: float = 1.0  # global gradient norm

    def check(self) -> None:
        choose(dict.fromkeys(DECAYED), self.decay, "optimizer.decay")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"optimizer.lr={self.lr} must be a positive number")
        for field in ("embed_lr", "head_lr", "weight_decay"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"optimizer.{field}={getattr(self, field)} cannot be negative")
        if not self.clip > 0:
            raise ValueError(f"optimizer.clip={self.clip} must be positive")

    def direction(self, leaves, dtype: str) -> optax.GradientTransformation:
        raise NotImplementedError

    def state_bytes(self, inventory: Inventory) -> int:
        raise NotImplementedError

    def update_flops(self, inventory: Inventory) -> int:
        return 0

    def peaks(self) -> dict[str, float]:
        """Peak learning rates, as HYPER names them."""
        return {
            "lr": self.lr,
            "embed_lr": self.embed_lr or self.lr,
            "head_lr": self.head_lr or self.lr,
        }

    def static(self) -> Optimizer:
        """What a compiled step depends on: without the values that are passed in."""
        return dataclasses.replace(self, **{k: getattr(Optimizer, k) for k in HYPER})

    def transform(self, leaves, dtype: str = "float32") -> optax.GradientTransformation:
        """Everything before learning rate and decay. dtype: of the update's matmuls."""
        import optax

        return optax.chain(_clip(self.clip, leaves), self.direction(leaves, dtype))

    def factor(self, leaf: Leaf) -> float:
        """Of the learning rate of an array, by the model's parametrisation."""
        return leaf.factors.rate

    def applied(self, leaves, params, updates, hyper: dict):
        """params - lr * (updates + weight_decay * params), by the kind of each leaf; lr is
        multiplied by the parametrisation's factor, and weight_decay by its inverse.
        """
        import jax

        def one(p, u, leaf):
            spared = self.decay == "matrices" and any(
                n in ("scale", "embed", "positions", *SCALARS) or n.endswith("bias")
                for n in leaf.path
            )
            decay = 0.0 if spared else hyper["weight_decay"]
            rate, factor = hyper[RATES.get(leaf.kind, "lr")], self.factor(leaf)
            if factor != 1:
                rate, decay = rate * factor, decay / factor
            return p - rate * (u + decay * p)

        return jax.tree.map(one, params, updates, leaves)


def between(o: Optimizer, *fields: str) -> None:
    """Raises ValueError unless each field lies in [0, 1)."""
    for field in fields:
        if not 0 <= getattr(o, field) < 1:
            raise ValueError(f"optimizer.{field}={getattr(o, field)} must lie in [0, 1)")


def _clip(most: float, leaves) -> optax.GradientTransformation:
    """optax.clip_by_global_norm as one product, which XLA on CPU makes where moments are; its
    division is a pass over all gradients. Each over its factor f of eps, besides: with g / f in
    the place of g, m / (sqrt(v) + eps) is m / (sqrt(v) + f eps).
    """
    import jax
    import jax.numpy as jnp
    import optax

    def clipped(grads, _):
        norm = optax.tree.norm(grads)
        factor = jnp.where(norm < most, 1.0, most / norm)

        def one(g, leaf):
            f = leaf.factors.eps
            return g * (factor if f == 1 else factor / f)

        return jax.tree.map(one, grads, leaves)

    return optax.stateless(clipped)
