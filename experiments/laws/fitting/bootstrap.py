"""Error bars: runs are resampled (case bootstrap). With one seed at most points none can be spared,
and noise is drawn instead (noise_model.py).
"""

import numpy as np


def interval(draws, level: float = 0.95, centre: float | None = None) -> list[float] | None:
    """Percentile interval. Draws that are not finite (a resample without a minimum, a parameter
    that ran off) lie half beyond either end; None where that leaves an end without bound. centre:
    the value that the draws were made around; their median's bias from it is then corrected (Efron
    1987, BC).
    """
    draws = np.asarray(draws, float)
    kept = np.sort(draws[np.isfinite(draws)])
    lost = (len(draws) - len(kept)) / 2
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    if centre is not None and len(kept):
        ends = _corrected(ends, kept, lost, centre, len(draws))
    first, last = (int(np.floor(q * (len(draws) - 1) - lost)) for q in ends)
    if first < 0 or last >= len(kept):
        return None
    return [float(kept[first]), float(kept[last])]


def recentred(draws, centre: float | None = None) -> np.ndarray:
    """Draws whose percentiles are those of `interval` with this centre, for adding more to each;
    those that are not finite stay. In no order.
    """
    draws = np.asarray(draws, float)
    kept = np.sort(draws[np.isfinite(draws)])
    if centre is None or not len(kept):
        return draws
    shares = _corrected((np.arange(len(kept)) + 0.5) / len(kept), kept, 0.0, centre, len(kept))
    return np.concatenate([np.quantile(kept, shares), draws[~np.isfinite(draws)]])


def _corrected(ends, kept, lost, centre, number):
    """Shares of the draws below the ends of a bias-corrected interval. The correction is bounded:
    few draws beyond a centre say little about the tail.
    """
    from scipy.special import ndtr, ndtri

    near = 1e-9 * abs(centre)
    below = (kept < centre - near).sum() + 0.5 * (np.abs(kept - centre) <= near).sum() + lost
    bias = np.clip(ndtri((below + 0.5) / (number + 1)), -0.7, 0.7)
    return ndtr(2 * bias + ndtri(ends))


def student(values, level: float = 0.95) -> tuple[float, list[float] | None]:
    """Mean and Student interval of a few independent values; no interval for one value."""
    from scipy import stats

    v = np.asarray(values, float)
    if len(v) < 2:
        return float(v.mean()), None
    half = float(stats.t.ppf((1 + level) / 2, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v)))
    return float(v.mean()), [float(v.mean() - half), float(v.mean() + half)]


def case_counts(clusters, points: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each point stands in each resample, (resamples, points). Points of one cluster (the
    checkpoints of one run) come and go together; `clusters` None: every point is a run of its
    own.
    """
    labels = (
        np.arange(points)
        if clusters is None
        else np.unique(np.asarray(clusters), return_inverse=True)[1]
    )
    n = int(labels.max()) + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)[:, labels]
