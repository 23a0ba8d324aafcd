"""Error bars. The noise of a sweep is one run's: with one seed at most points, runs cannot be resampled, so noise is drawn.

sigma comes from two places, pooled by degrees of freedom: residuals of the isoFLOP parabolas, and replicates with other seeds.
Each resample draws its own sigma from the scaled inverse chi-square that so few degrees of freedom leave (so intervals have
Student-like tails), adds normal noise to the fitted parabolas, and repeats the whole analysis.
"""

from typing import NamedTuple

import numpy as np

from experiments.laws import fit


class Noise(NamedTuple):
    """Standard deviation of one run's loss in nats per token, and the degrees of freedom behind it."""

    sigma: float
    dof: int

    def draw(self, rng: np.random.Generator) -> float:
        return self.sigma * np.sqrt(self.dof / rng.chisquare(self.dof))


def noise(sums: list[tuple[float, int]]) -> Noise:
    """Pools (sum of squares, degrees of freedom). Raises FitError if there are none."""
    dof = sum(k for _, k in sums)
    if dof < 1:
        raise fit.FitError("no degrees of freedom are left for the noise: use at least four sizes per budget, or replicate seeds")
    return Noise(float(np.sqrt(sum(s for s, _ in sums) / dof)), dof)


def interval(draws, level: float = 0.95) -> list[float] | None:
    """Percentile interval. Draws that are not finite (a resample without a minimum, a parameter that ran off) lie half beyond
    either end; None where that leaves an end without bound."""
    draws = np.asarray(draws, float)
    kept = np.sort(draws[np.isfinite(draws)])
    lost = (len(draws) - len(kept)) / 2
    first, last = (int(np.floor(q * (len(draws) - 1) - lost)) for q in ((1 - level) / 2, (1 + level) / 2))
    if first < 0 or last >= len(kept):
        return None
    return [float(kept[first]), float(kept[last])]


def student(values, level: float = 0.95) -> tuple[float, list[float] | None]:
    """Mean and Student interval of a few independent values; no interval for one value."""
    from scipy import stats

    v = np.asarray(values, float)
    if len(v) < 2:
        return float(v.mean()), None
    half = float(stats.t.ppf((1 + level) / 2, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v)))
    return float(v.mean()), [float(v.mean() - half), float(v.mean() + half)]
