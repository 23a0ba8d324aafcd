"""Where parameters start that are not drawn from a normal distribution: the rates, time steps and
biases of recurrences. A start is called with a generator of numpy and a shape; it is a value, so
that trees which hold it compare.
"""

from typing import NamedTuple

import numpy as np


class Uniform(NamedTuple):
    """Between `low` and `high`."""

    low: float
    high: float

    def __call__(self, rng, shape):
        return rng.uniform(self.low, self.high, shape)


class LogUniform(NamedTuple):
    """The logarithm of a number that is uniform between `low` and `high`: Mamba-2's rates."""

    low: float
    high: float

    def __call__(self, rng, shape):
        return np.log(rng.uniform(self.low, self.high, shape))


class Steps(NamedTuple):
    """What softplus takes to a time step whose logarithm is uniform between those of `low` and
    `high` (Gu & Dao 2023, arXiv 2312.00752, section 3.6).
    """

    low: float = 1e-3
    high: float = 0.1

    def __call__(self, rng, shape):
        steps = np.exp(rng.uniform(np.log(self.low), np.log(self.high), shape))
        return steps + np.log(-np.expm1(-steps))


class Counted(NamedTuple):
    """log(1), log(2), ... along the last axis: S4D-Real, the rates of Mamba."""

    def __call__(self, rng, shape):
        return np.broadcast_to(np.log(np.arange(1, shape[-1] + 1)), shape)


class Rows(NamedTuple):
    """A number for each row of the first axis."""

    values: tuple

    def __call__(self, rng, shape):
        return np.broadcast_to(np.reshape(self.values, (-1,) + (1,) * (len(shape) - 1)), shape)
