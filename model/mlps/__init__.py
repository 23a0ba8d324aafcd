"""MLPs, dense and mixture-of-experts. The contract of an entry:

module(c, ex)(x_BTD) -> y_BTD, statistics   statistics: {} or scalars per layer, `auxiliary` among them is added to the loss
parameters(c) -> {group: count}             equal to the initialised tree
active(c) -> int                            of these, how many one token passes through
forward_flops(c) -> int                     per token: 2 x multiply-adds (MoE by assignments: tokens x top_k)
executed_flops(c, ex, tokens) -> int        forward matmul FLOPs that the chosen implementation executes on `tokens` tokens
"""

from typing import NamedTuple
from collections.abc import Callable

from model.mlps import dense, moe
from model.mlps.dense import ACTIVATIONS


class Mlp(NamedTuple):
    module: Callable
    parameters: Callable
    active: Callable
    forward_flops: Callable
    executed_flops: Callable


MLPS = {
    "dense": Mlp(dense.Dense, dense.parameters, dense.active, dense.forward_flops, dense.executed_flops),
    "moe": Mlp(moe.MoE, moe.parameters, moe.active, moe.forward_flops, moe.executed_flops),
}

__all__ = ["ACTIVATIONS", "MLPS", "Mlp"]
