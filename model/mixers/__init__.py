"""Sequence mixers. The contract of an entry:

module(c, ex)(x_BTD) -> y_BTD         causal: y[:, t] depends on x[:, :t+1] alone
parameters(c) -> {group: count}       equal to the initialised tree
forward_flops(c, causal) -> int       per token: 2 x multiply-adds of its matmuls; `causal` counts attended pairs only
"""

from typing import NamedTuple
from collections.abc import Callable

from model.mixers import attention


class Mixer(NamedTuple):
    module: Callable
    parameters: Callable
    forward_flops: Callable


MIXERS = {
    "attention": Mixer(attention.Attention, attention.parameters, attention.forward_flops),
}
