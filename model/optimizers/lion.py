"""Lion."""

import dataclasses
from typing import ClassVar

from model.optimizers.base import Optimizer, between


@dataclasses.dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675): the sign of an interpolation between gradient and
    momentum. Every number of an update is 1 in size, some five times AdamW's: rates are 3 to 10
    times lower than AdamW's, and weight decay as much higher (section 5). In runs of some hundred
    updates 0.4 to 0.8 of AdamW's was best (LOG.md, 2026-11-28).
    """

    AGAINST_ADAMW: ClassVar[float] = 0.4
    TRANSFERS: ClassVar[bool] = True

    b1: float = 0.9
    b2: float = 0.99

    def check(self) -> None:
        super().check()
        between(self, "b1", "b2")

    def direction(self, leaves, dtype):
        import optax

        return optax.scale_by_lion(self.b1, self.b2)

    def state_bytes(self, inventory) -> int:
        """One momentum, and a count of updates."""
        return 4 * inventory.total + 4
