"""Sequence mixers. The contract of an entry:

module(c, ex)(x_BTD, ctx) -> y_BTD    causal: y[:, t] depends on x[:, :t+1] alone; ctx:
                                      model.context.Context
parameters(c) -> {group: count}       equal to the initialised tree
multiplied(c) -> int                  weights of the matmuls that a token passes through (no biases,
                                      no norms)
map_flops(c, causal) -> int           per token, 2 x multiply-adds between tokens, on the full T x T
                                      map or the attended pairs alone
work(c, ex, batch) -> Work            FLOPs executed on `batch` sequences (model/work.py)
cache(c) -> int                       numbers kept per token when decoding
check(c)                              raises ValueError, in words that say what to change
"""

from collections.abc import Callable
from typing import NamedTuple

from model.config import Model
from model.mixers import attention, latent


class Mixer(NamedTuple):
    module: Callable
    parameters: Callable
    multiplied: Callable
    map_flops: Callable
    work: Callable
    cache: Callable
    check: Callable

    def forward_flops(self, c: Model, causal: bool) -> int:
        """Per token: 2 x multiply-adds of its matmuls."""
        return 2 * self.multiplied(c) + self.map_flops(c, causal)


def _entry(module: Callable, part) -> Mixer:
    return Mixer(
        module, part.parameters, part.multiplied, part.map_flops, part.work, part.cache, part.check
    )


MIXERS = {
    "attention": _entry(attention.Attention, attention),
    "latent": _entry(latent.Latent, latent),
}
