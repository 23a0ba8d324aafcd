"""AdamW."""

import dataclasses
from typing import ClassVar

from model.optimizers.base import Optimizer, between


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), decoupled decay scaled by the learning
    rate.
    """

    TRANSFERS: ClassVar[bool] = True

    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8

    def check(self) -> None:
        super().check()
        between(self, "b1", "b2")

    def direction(self, leaves, dtype):
        import optax

        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def state_bytes(self, inventory) -> int:
        """Two moments, and a count of updates."""
        return 8 * inventory.total + 4
