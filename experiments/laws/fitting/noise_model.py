"""Noise of one run's loss: pooled, growing with the loss, between seeds, or given.

sigma comes from two places, pooled by degrees of freedom: residuals of the isoFLOP parabolas, and
replicates with other seeds. Each resample draws its own sigma from the scaled inverse chi-square
that so few degrees of freedom leave (so intervals have Student-like tails), adds normal noise to
the fitted parabolas, and repeats the whole analysis.
"""

from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError


class Noise(NamedTuple):
    """Standard deviation of one run's loss in nats per token, and the degrees of freedom behind
    it.
    """

    sigma: float
    dof: int

    def draw(self, rng: np.random.Generator) -> float:
        return self.sigma * np.sqrt(self.dof / rng.chisquare(self.dof))


def noise(sums: list[tuple[float, int]]) -> Noise:
    """Pools (sum of squares, degrees of freedom). Raises FitError if there are none."""
    dof = sum(k for _, k in sums)
    if dof < 1:
        raise FitError(
            "no degrees of freedom are left for the noise: use at least four sizes per budget, or"
            " replicate seeds, or give it with --noise"
        )
    return Noise(float(np.sqrt(sum(s for s, _ in sums) / dof)), dof)


class Level(NamedTuple):
    """Noise of one run's loss, sigma (loss / at)^growth; `dof` behind it (inf: it was given). Or
    `points`: (loss, sigma) pairs, interpolated. `how`: where it comes from.
    """

    sigma: float
    dof: float
    how: str
    at: float = 1.0
    growth: float = 0.0
    points: tuple[tuple[float, float], ...] = ()

    def __call__(self, loss) -> np.ndarray:
        if self.points:
            return np.interp(loss, *np.array(self.points).T)
        return self.sigma * (np.asarray(loss, float) / self.at) ** self.growth

    def draw(self, rng: np.random.Generator) -> float:
        """A factor of sigma, as uncertain as the degrees of freedom leave it."""
        free = np.isfinite(self.dof)
        return float(np.sqrt(self.dof / rng.chisquare(self.dof))) if free else 1.0


def given_noise(text: str) -> Level:
    """`0.01`, or by loss `3:.002,7:.05`. Raises FitError."""
    try:
        pairs = [p.split(":") for p in text.split(",")]
        values = sorted(tuple(float(v) for v in p) for p in pairs)
        if [len(p) for p in pairs] == [1]:
            values = [(1.0, *values[0])]
        good = all(len(p) == 2 and 0 < p[0] and 0 <= p[1] and np.isfinite(p).all() for p in values)
        good &= len({p[0] for p in values}) == len(values)
    except ValueError:
        good = False
    if not good:
        raise FitError(
            f"--noise={text}: give one number (0.01), or numbers by loss (3:.002,7:.05), nats/token"
        )
    mean = float(np.mean([v for _, v in values]))
    return Level(mean, np.inf, f"given by --noise={text}", points=tuple(values))


def level(residuals, loss, dof: float, how: str) -> Level:
    """Noise from independent `residuals` (each of unit weight) seen at `loss`. It grows as a power
    of the loss where a likelihood ratio at 95% says so.
    """
    r, at = np.asarray(residuals, float), float(np.exp(np.mean(np.log(loss))))
    if not len(r):
        return noise([])
    r = np.maximum(np.abs(r), 1e-9 * at)

    def fit(growth):
        shape = (np.asarray(loss) / at) ** growth
        sigma = np.sqrt(np.mean((r / shape) ** 2))
        return sigma, -len(r) * np.log(sigma) - np.log(shape).sum()

    fits = {g: fit(g) for g in np.linspace(0, 12, 49)}
    best = max(fits, key=lambda g: fits[g][1])
    best = best if 2 * (fits[best][1] - fits[0.0][1]) > 3.84 else 0.0
    return Level(float(fits[best][0]), dof, how, at, float(best))


def seed_noise(cells, residual_values, compute=None) -> tuple[Noise | None, np.ndarray]:
    """Noise between seeds, and weights from it. cells: a label per point, equal for points that
    differ in seed alone; residual_values: (points,) log loss or loss. With at least four replicated
    cells at more than one compute, the variance is a power law of compute and the weights are its
    inverse, mean one; with fewer it is one number and the weights are equal.
    """
    labels = np.unique(np.asarray(cells), return_inverse=True)[1]
    v, groups = np.asarray(residual_values, float), []
    for k in range(labels.max() + 1):
        inside = v[labels == k]
        if len(inside) > 1:
            groups.append(
                (
                    inside.var(ddof=1),
                    len(inside) - 1,
                    None if compute is None else np.log(np.asarray(compute)[labels == k].mean()),
                )
            )
    weights = np.ones(len(v))
    if not groups:
        return None, weights
    var, dof, at = (np.array([g[i] for g in groups], float) for i in range(3))
    level = Noise(float(np.sqrt((var * dof).sum() / dof.sum())), int(dof.sum()))
    if compute is not None and len(groups) >= 4 and np.ptp(at) > 0.1 and (var > 0).all():
        slope, offset = np.polyfit(at, np.log(var), 1, w=np.sqrt(dof))
        log_var = np.clip(offset + slope * np.log(compute), np.log(var.min()), np.log(var.max()))
        weights = np.exp(-log_var)
        weights /= weights.mean()
    return level, weights
