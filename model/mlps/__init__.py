"""MLPs, dense and mixture-of-experts. The contract of an entry:

module(c, ex)(x_BTD, ctx) -> y_BTD, statistics   statistics: {} or arrays per layer
                                                 (model/mlps/routing.py)
parameters(c) -> {group: count}                  equal to the initialised tree
active(c) -> int                                 of these, how many one token passes through
multiplied(c) -> int                             weights of the matmuls among those (no biases);
                                                 forward FLOPs are twice that per token
work(c, ex, batch) -> Work                       FLOPs that the chosen implementation executes on
                                                 `batch` sequences (model/work.py)
check(c)                                         raises ValueError, in words that say what to change
"""

from collections.abc import Callable
from typing import NamedTuple

from model.config import Model
from model.mlps import dense, moe
from model.mlps.dense import ACTIVATIONS


class Mlp(NamedTuple):
    module: Callable
    parameters: Callable
    active: Callable
    multiplied: Callable
    work: Callable
    check: Callable

    def forward_flops(self, c: Model) -> int:
        """Per token: 2 x multiply-adds of its matmuls (MoE by assignments: tokens x top_k)."""
        return 2 * self.multiplied(c)


def _entry(module: Callable, part) -> Mlp:
    return Mlp(module, part.parameters, part.active, part.multiplied, part.work, part.check)


MLPS = {
    "dense": _entry(dense.Dense, dense),
    "moe": _entry(moe.MoE, moe),
}

__all__ = ["ACTIVATIONS", "MLPS", "Mlp"]
