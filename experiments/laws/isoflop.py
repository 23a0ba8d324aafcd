"""IsoFLOP analysis: parabolas (Chinchilla approach 2), interpolation with drawn noise, training-curve envelopes (approach 1)."""

from typing import NamedTuple

import numpy as np


class FitError(ValueError):
    """Points that cannot be fitted; the message says why."""


class Parabola(NamedTuple):
    """Loss = c0 + c1 x + c2 x^2 in x = log N at one budget. `interior`: it opens upwards and its vertex lies strictly inside the
    sampled sizes, and neither end of them has the least measured loss."""

    flops: float
    coefficients: tuple[float, float, float]
    n_opt: float
    d_opt: float
    loss_opt: float
    n_low: float
    n_high: float
    interior: bool


class Power(NamedTuple):
    """y = exp(log_k) x^exponent."""

    log_k: float
    exponent: float

    def __call__(self, x):
        return np.exp(self.log_k) * np.asarray(x, float) ** self.exponent


def parabola(n, d, loss, flops: float) -> Parabola:
    """Hoffmann et al. 2022, section 3.2. `n`, `d`, `loss`: one entry per run of a budget. Raises FitError below three sizes.

    D at the optimum is read off the same runs (log D is quadratic in log N along an isoFLOP line), not from C / 6N.
    """
    x = np.log(np.asarray(n, float))
    if len(np.unique(x)) < 3:
        raise FitError(f"an isoFLOP parabola needs three sizes, the budget {flops:.3g} has {len(np.unique(x))}")
    c2, c1, c0 = np.polyfit(x, np.asarray(loss, float), 2)
    best = int(np.argmin(_by_size(x, loss)[1]))
    vertex = -c1 / (2 * c2) if c2 > 0 else float("nan")
    interior = bool(c2 > 0 and x.min() < vertex < x.max() and 0 < best < len(np.unique(x)) - 1)
    d_fit = np.polyfit(x, np.log(np.asarray(d, float)), 2)
    at = vertex if c2 > 0 and abs(vertex - x.mean()) < 10 else float("nan")  # further out it is no statement about sizes
    return Parabola(
        flops,
        (float(c0), float(c1), float(c2)),
        float(np.exp(at)),
        float(np.exp(np.polyval(d_fit, at))),
        float(c0 + c1 * at + c2 * at**2),
        float(np.exp(x.min())),
        float(np.exp(x.max())),
        interior,
    )


def _by_size(x, loss):
    """(sizes, mean loss of each)."""
    sizes = np.unique(x)
    return sizes, np.array([np.mean(np.asarray(loss)[x == s]) for s in sizes])


def power(x, y) -> Power:
    """Least squares in log-log. Raises FitError below two distinct points."""
    x, y = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    if len(np.unique(x)) < 2:
        raise FitError("a power law needs two budgets with an interior minimum")
    slope, offset = np.polyfit(x, y, 1)
    return Power(float(offset), float(slope))
