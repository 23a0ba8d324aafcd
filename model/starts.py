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
    """The logarithm of a number that is uniform between `low` and `high`, as Mamba-2's rates, or
    whose logarithm is.
    """

    low: float
    high: float
    logarithmic: bool = False

    def __call__(self, rng, shape):
        if self.logarithmic:
            return rng.uniform(np.log(self.low), np.log(self.high), shape)
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


class Powers(NamedTuple):
    """What softplus takes to -log(a), with a^power uniform between `low` and `high`: RG-LRU."""

    low: float
    high: float
    power: float

    def __call__(self, rng, shape):
        return np.log(np.expm1(-np.log(rng.uniform(self.low, self.high, shape)) / self.power))


class Linear(NamedTuple):
    """0, pi, 2 pi, ... along the last axis: S4D-Lin."""

    def __call__(self, rng, shape):
        return np.broadcast_to(np.pi * np.arange(shape[-1]), shape)


class Hippo(NamedTuple):
    """Positive imaginary parts of the spectrum of HiPPO-N: of twice as many states as are kept
    (Smith et al. 2022, arXiv 2208.04933, section 3.2).
    """

    def __call__(self, rng, shape):
        root = np.sqrt(np.arange(2 * shape[-1]) + 0.5)
        lower = np.tril(np.outer(root, root), -1)
        return np.sort(np.linalg.eigvalsh(1j * (lower.T - lower)))[shape[-1] :]


class Ramps(NamedTuple):
    """Along the last axis low + (high - low) x^power, x from 0 to 1, a triple for each row before
    it: RWKV's decays and shares of the token before.
    """

    rows: tuple[tuple[float, float, float], ...]  # low, high, power

    def __call__(self, rng, shape):
        x = np.linspace(0, 1, shape[-1])
        made = [low + (high - low) * x**power for low, high, power in self.rows]
        return np.reshape(made, shape)


class Zigzag(NamedTuple):
    """log(0.3) and a half more or less in turn along the last axis: RWKV-4's bonus."""

    def __call__(self, rng, shape):
        return np.log(0.3) + 0.5 * ((np.arange(shape[-1]) + 1) % 3 - 1)


class Counted(NamedTuple):
    """log(1), log(2), ... along the last axis: S4D-Real, the rates of Mamba."""

    def __call__(self, rng, shape):
        return np.broadcast_to(np.log(np.arange(1, shape[-1] + 1)), shape)


class Rows(NamedTuple):
    """A number for each row of the first axis."""

    values: tuple

    def __call__(self, rng, shape):
        return np.broadcast_to(np.reshape(self.values, (-1,) + (1,) * (len(shape) - 1)), shape)
