"""IsoFLOP analysis: parabolas (Chinchilla approach 2), interpolation with drawn noise,
training-curve envelopes (approach 1).
"""

from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError


class Parabola(NamedTuple):
    """Loss = c0 + c1 x + c2 x^2 in x = log N at one budget. `interior`: it opens upwards and its
    vertex lies strictly inside the sampled sizes, and neither end of them has the least measured
    loss.
    """

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
    """Hoffmann et al. 2022, section 3.2. `n`, `d`, `loss`: one entry per run of a budget. Raises
    FitError below three sizes.

    D at the optimum is read off the same runs (log D is quadratic in log N along an isoFLOP line),
    not from C / 6N.
    """
    x = np.log(np.asarray(n, float))
    if len(np.unique(x)) < 3:
        raise FitError(
            f"an isoFLOP parabola needs three sizes, the budget {flops:.3g} has {len(np.unique(x))}"
        )
    c2, c1, c0 = np.polyfit(x, np.asarray(loss, float), 2)
    best = int(np.argmin(by_size(x, loss)[1]))
    vertex = -c1 / (2 * c2) if c2 > 0 else float("nan")
    interior = bool(c2 > 0 and x.min() < vertex < x.max() and 0 < best < len(np.unique(x)) - 1)
    d_fit = np.polyfit(x, np.log(np.asarray(d, float)), 2)
    at = (
        vertex if c2 > 0 and abs(vertex - x.mean()) < 10 else float("nan")
    )  # further out it is no statement about sizes
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


def by_size(x, loss):
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


def interpolated(n, d, loss, flops: float, sigma, draws: int, rng: np.random.Generator) -> dict:
    """Minimum of an isoFLOP slice by Akima interpolation of log L in log N (Porian et al. 2024,
    arXiv 2406.19146): {n_opt, d_opt, loss_opt: of the data; log_n, log_d: (draws,), with noise
    drawn around the losses, its middle shifted to the data's minimum; weight: 1 / variance of log
    N_opt}. `sigma`: (draws, runs), noise of each run's loss in nats/token. Raises FitError below
    five sizes, or where the data or most draws have no interior minimum.
    """
    from scipy.interpolate import Akima1DInterpolator

    x = np.log(np.asarray(n, float))
    sizes, mean = by_size(x, loss)
    if len(sizes) < 5:
        raise FitError(f"interpolation needs five sizes, the budget {flops:.3g} has {len(sizes)}")
    fine = np.linspace(sizes[0], sizes[-1], 400)
    step = float(np.median(np.diff(sizes)))
    tokens = np.interp(fine, *(v[np.argsort(x)] for v in (x, np.log(np.asarray(d, float)))))

    def least(values):
        curve = Akima1DInterpolator(sizes, np.log(np.maximum(values, 1e-6)))(fine)
        i = int(np.argmin(curve))
        inside = 0 < i < len(fine) - 1  # a minimum at an end is none
        return (fine[i], float(np.exp(curve[i]))) if inside else (np.nan, np.nan)

    middle, loss_opt = least(mean)
    if not np.isfinite(middle):
        raise FitError(f"no interior minimum at {flops:.3g} FLOPs")
    noisy = np.asarray(loss, float) + sigma * rng.standard_normal((draws, len(x)))
    at = np.array([least(by_size(x, v)[1])[0] for v in noisy])
    ok = np.isfinite(at)
    if ok.mean() < 0.5:
        raise FitError(
            f"no interior minimum at {flops:.3g} FLOPs in {1 - ok.mean():.0%} of the draws"
        )
    at = at + middle - np.median(at[ok])  # the data hold their noise already
    return {
        "flops": flops,
        "n_opt": float(np.exp(middle)),
        "d_opt": float(np.exp(np.interp(middle, fine, tokens))),
        "loss_opt": loss_opt,
        "log_n": at,
        "log_d": np.where(ok, np.interp(np.where(ok, at, middle), fine, tokens), np.nan),
        "weight": 1 / max(float(np.std(at[ok])), step / 3) ** 2,
    }


def weighted_power(x, y, weights) -> Power:
    """Weighted least squares in log-log."""
    x, y = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    if len(np.unique(x)) < 2:
        raise FitError("a power law needs two budgets with an interior minimum")
    slope, offset = np.polyfit(x, y, 1, w=np.sqrt(np.asarray(weights, float)))
    return Power(float(offset), float(slope))


def envelope(curves: list[tuple], budgets: int = 1500) -> dict:
    """Training-curve envelope (Hoffmann et al. 2022, section 3.1). curves: (N, C, D, loss) per run,
    the last three arrays along training. At each of `budgets` log-spaced C the run of least loss,
    by interpolation in log C, among those that cover it. Returns arrays flops, n, d, loss, run over
    the budgets that at least two runs cover.
    """
    spans = [(c.min(), c.max()) for _, c, _, _ in curves]
    grid = np.geomspace(min(s[0] for s in spans), max(s[1] for s in spans), budgets)
    loss = np.full((len(curves), budgets), np.inf)
    tokens = np.full((len(curves), budgets), np.nan)
    for i, ((_, c, d, value), (low, high)) in enumerate(zip(curves, spans)):
        inside = (grid >= low * (1 - 1e-9)) & (grid <= high * (1 + 1e-9))
        loss[i, inside] = np.interp(np.log(grid[inside]), np.log(c), value)
        tokens[i, inside] = np.exp(np.interp(np.log(grid[inside]), np.log(c), np.log(d)))
    keep = np.isfinite(loss).sum(0) >= 2
    run = np.argmin(loss, 0)
    n = np.array([c[0] for c in curves], float)
    column = np.arange(budgets)
    return {
        "flops": grid[keep],
        "n": n[run][keep],
        "d": tokens[run, column][keep],
        "loss": loss[run, column][keep],
        "run": run[keep],
    }
