"""What a fitted law says about budgets: compute-optimal N, D and loss, also under a memory limit or
with inference to pay for; efficiency leverage of experts over dense; where routing stops helping.
Every answer is a value and the same for every bootstrap draw.

Training FLOPs per token are k N^m, fitted to the runs' own C / D (m = 1 and k = 6 where C is 6 N
D); a forward pass costs a third.
"""

from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import precision, solve
from experiments.laws.fitting.fit import Fitted

GRID = 256
BYTES_PER_PARAMETER = 16  # float32 weights, gradients and two AdamW moments


class Cost(NamedTuple):
    """Training FLOPs per token = k N^m; total parameters = N (1 + extra (E - 1))."""

    k: float = 6.0
    m: float = 1.0
    extra: float = 0.0

    def per_token(self, n):
        return self.k * np.asarray(n, float) ** self.m

    def total(self, n, experts: float):
        return np.asarray(n, float) * (1 + self.extra * (experts - 1))

    def __str__(self):
        return (
            f"C = {self.k:.4g} N D"
            if abs(self.m - 1) < 1e-6
            else f"C = {self.k:.4g} N^{self.m:.4f} D, a fit to these runs"
        )


def cost(n, d, c, experts=None, total=None) -> Cost:
    """The cost of runs: n, d, c: (points,). experts, total: (points,), for the memory that experts
    take.
    """
    ratio = np.asarray(c, float) / np.asarray(d, float)
    x, y = np.log(np.asarray(n, float)), np.log(ratio)
    if np.ptp(y - x) < 1e-3 or np.ptp(x) < 1e-9:
        k, m = float(np.exp(np.mean(y - x))), 1.0
    else:
        m, offset = np.polyfit(x, y, 1)
        k, m = float(np.exp(offset)), float(m)
    extra = 0.0
    if experts is not None and total is not None and (np.asarray(experts) > 1).any():
        e = np.asarray(experts, float)
        extra = float(
            np.median(
                (np.asarray(total, float)[e > 1] / np.asarray(n, float)[e > 1] - 1) / (e[e > 1] - 1)
            )
        )
    return Cost(k, m, max(0.0, extra))


def thetas_of(f: Fitted) -> np.ndarray:
    """The fit first, then its draws: (1 + resamples, parameters)."""
    return np.concatenate([f.theta[None], f.draws])


def _answer(f: Fitted, values, name: str = "") -> dict:
    """precision.answer of the fit and its draws."""
    return precision.answer(name, values, f.centred, f.levels)


def _sizes(f: Fitted, centre: float) -> np.ndarray:
    return np.geomspace(centre * 1e-5, centre * 1e5, GRID)


def _vertex(log_n, values, free_right=True):
    """Minimum of each row of `values` (draws, sizes) over the grid `log_n`, refined by a parabola:
    (log N, value); NaN at an open end.
    """
    v = np.where(np.isfinite(values), values, np.inf)
    i = np.argmin(v, 1)
    k = np.clip(i, 1, v.shape[1] - 2)
    rows = np.arange(len(v))
    a, b, c = v[rows, k - 1], v[rows, k], v[rows, k + 1]
    h = log_n[1] - log_n[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.where(np.isfinite(a + c), 0.5 * (a - c) / (a - 2 * b + c), 0.0)
        at = log_n[k] + h * np.clip(shift, -1, 1)
        least = np.where(np.isfinite(a + c), b - 0.25 * (a - c) * np.clip(shift, -1, 1), b)
    if not free_right:  # a limit on N: its end is an answer
        end = i == v.shape[1] - 1
        at, least = np.where(end, log_n[-1], at), np.where(end, v[:, -1], least)
    open_ = (i == 0) | (free_right & (i == v.shape[1] - 1))
    return np.where(open_, np.nan, at), np.where(open_, np.nan, least)


def _inputs(f: Fitted, n, d, fixed: dict) -> dict:
    """The form's inputs along N and D, the others held."""
    return {
        k: n if k == "N" else d if k == "D" else np.full(n.shape, float(fixed[k]))
        for k in f.form.inputs
    }


def frontier(
    f: Fitted, flops: float, price: Cost, fixed: dict, n_max: float = np.inf, inference: float = 0.0
):
    """(N, D, loss) that minimise the loss at a budget, each (1 + resamples,). `inference`: tokens
    to be served from the same budget.
    """
    centre = float(np.exp(np.log(flops / price.k / 20) / (price.m + 1)))
    n = _sizes(f, centre)
    if n_max < n[-1]:
        if n_max < n[0]:
            raise FitError(
                f"the memory limit allows {n_max:.3g} parameters, far below any size that"
                f" {flops:.3g} FLOPs are for"
            )
        n = np.geomspace(n[0], n_max, GRID)
    per_token = price.per_token(n)
    d = flops / per_token - inference / 3
    affordable = d > 1
    loss = solve.predict(f.form, thetas_of(f), _inputs(f, n, np.where(affordable, d, 1.0), fixed))
    log_n, least = _vertex(
        np.log(n), np.where(affordable, loss, np.inf), free_right=not n_max <= n[-1] * (1 + 1e-12)
    )
    size = np.exp(log_n)
    return size, flops / price.per_token(size) - inference / 3, least


def optimum(
    f: Fitted, flops: float, price: Cost, fixed: dict, memory: float = 0.0, inference: float = 0.0
) -> dict:
    """Compute-optimal N, D, tokens per parameter and loss at `flops`, with intervals. memory:
    bytes, at 16 a parameter, all experts counted. inference: tokens served, their forward passes
    paid from the same budget (Sardana et al. 2024, arXiv 2401.00448, as a budget).
    """
    n_max = np.inf
    if memory:
        n_max = memory / BYTES_PER_PARAMETER / float(price.total(1.0, fixed.get("E", 1.0)))
    n, d, loss = frontier(f, flops, price, fixed, n_max, inference)
    out = {
        "n_opt": _answer(f, n, "n_opt"),
        "d_opt": _answer(f, d, "d_opt"),
        "tokens_per_parameter": _answer(f, d / n),
        "loss": _answer(f, loss, "loss"),
    }
    if memory:
        out |= {
            "n_max": n_max,
            "bytes_per_parameter": BYTES_PER_PARAMETER,
            "memory_binds": bool(n[0] >= n_max * 0.999),
        }
    if not np.isfinite(n[0]):
        out["verdict"] = (
            "no interior optimum: this law has none within five decades of the budget's usual size"
        )
    return out


def cheapest(f: Fitted, loss: float, inference: float, price: Cost, fixed: dict) -> dict:
    """N and D that reach `loss` for the least training plus inference FLOPs (Sardana et al. 2024,
    eq 3), with intervals.
    """
    n = _sizes(f, float(np.exp(np.mean(np.log(f.points.x["N"])))))
    thetas = thetas_of(f)
    low, high = (
        np.full((len(thetas), GRID), np.log(1e3)),
        np.full((len(thetas), GRID), np.log(1e22)),
    )
    for _ in range(60):  # the loss falls in D
        middle = (low + high) / 2
        above = each(f, thetas, n, np.exp(middle), fixed) > loss
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    d = np.exp((low + high) / 2)
    spent = price.per_token(n) * (d + inference / 3)
    reached = np.abs(each(f, thetas, n, d, fixed) / loss - 1) < 1e-6
    log_n, least = _vertex(np.log(n), np.log(np.where(reached, spent, np.inf)))
    size = np.exp(log_n)
    tokens = np.exp(least) / price.per_token(size) - inference / 3
    out = {
        "n_opt": _answer(f, size, "n_opt"),
        "d_opt": _answer(f, tokens, "d_opt"),
        "tokens_per_parameter": _answer(f, tokens / size),
        "flops": _answer(f, np.exp(least)),
    }
    if not np.isfinite(size[0]):
        out["verdict"] = f"no model of this law reaches a loss of {loss:g}"
    return out


def each(f, thetas, n, d, fixed):
    """Losses (draws, sizes) where every draw has its own D (draws, sizes)."""
    import jax

    @solve.float64
    def run():
        x = {k: np.asarray(fixed.get(k, 0.0), float) for k in f.form.inputs}

        def one(theta, tokens):
            return f.form(
                theta, {**{k: np.full(n.shape, v) for k, v in x.items()}, "N": n, "D": tokens}
            )

        return np.asarray(jax.vmap(one)(thetas, d))

    _inputs(f, n, n, fixed)
    return run()


def leverage_curve(f: Fitted, price: Cost, experts: float, budgets) -> list[dict]:
    """At each budget: compute that the dense model of this law (E = 1) needs for the loss that
    `experts` reach, over the budget; both compute-optimal. NaN where dense reaches that loss
    nowhere between a hundredth and ten thousand times the budgets.
    """
    budgets = np.asarray(budgets, float)
    reach = np.geomspace(budgets.min() * 1e-2, budgets.max() * 1e4, 61)
    dense = np.stack([frontier(f, float(c), price, {"E": 1.0})[2] for c in reach], 1)
    rows = []
    for c in budgets:
        needed = [
            invert(np.log(reach), losses, want)
            for want, losses in zip(frontier(f, float(c), price, {"E": experts})[2], dense)
        ]
        rows.append({"flops": float(c), **_answer(f, np.exp(needed) / c)})
    return rows


def invert(log_c, losses, want) -> float:
    """log C at which falling `losses` reach `want`, by interpolation; NaN outside."""
    ok = np.isfinite(losses)
    if ok.sum() < 3 or not np.isfinite(want) or not losses[ok].min() <= want <= losses[ok].max():
        return float("nan")
    return float(np.interp(-want, -losses[ok], log_c[ok]))


def leverage(f: Fitted, flops: float, experts: float, price: Cost) -> dict:
    """leverage_curve at one budget, {value, interval}."""
    (row,) = leverage_curve(f, price, experts, [flops])
    return {k: row[k] for k in ("value", "interval")}


def routing_stops(curve: list[dict]) -> dict:
    """Where a leverage curve falls to one, by log-log interpolation; in words where it does not."""
    curve = [p for p in curve if np.isfinite(p["value"])]
    if not curve:
        return {
            "flops": None,
            "words": (
                "dense reaches these losses at no compute within reach: no leverage can be stated"
            ),
        }
    c, v = np.log([p["flops"] for p in curve]), np.log([p["value"] for p in curve])
    below = np.flatnonzero(v <= 0)
    if not len(below):
        return {
            "flops": None,
            "words": (
                f"routing still helps at {curve[-1]['flops']:.3g} FLOPs (leverage"
                f" {np.exp(v[-1]):.2f})"
            ),
        }
    k = below[0]
    if k == 0:
        return {
            "flops": None,
            "words": f"routing does not help at {curve[0]['flops']:.3g} FLOPs or above",
        }
    at = float(np.exp(c[k - 1] + (c[k] - c[k - 1]) * v[k - 1] / (v[k - 1] - v[k])))
    return {"flops": at, "words": f"routing stops helping at {at:.3g} FLOPs"}


def effective_parameters(f: Fitted, n: float, experts: float) -> dict:
    """Clark et al. 2022, eq 11: the dense size that is as good as `n` seen parameters with
    `experts`. clark2022 alone.
    """
    v = solve.values(f.form, thetas_of(f))
    start, limit = v["Es"], v["Em"]
    e = 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / limit)) + 1 / limit)

    def alpha(e):
        return v["a"] + v["c"] * np.log10(e)

    return _answer(f, n ** (alpha(e) / alpha(start)) * (e / start) ** (v["b"] / alpha(start)))
