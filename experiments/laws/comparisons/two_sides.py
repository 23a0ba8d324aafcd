"""Two sets of runs against each other, each by its own law: the compute that one needs for what the
other reaches, the parameters that it would take, and the gap at equal FLOPs.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import allocation, bootstrap, precision, solve
from experiments.laws.fitting.allocation import Cost
from experiments.laws.fitting.fit import Fitted

POINTS = 7  # of the curves
REACH = 1e3  # how far beyond its runs a law is read off for what the other reaches
GRID = 81


class Side(NamedTuple):
    """One set of runs: its law, its cost of a token, the range of its FLOPs, the rows fitted."""

    name: str
    f: Fitted
    cost: Cost
    low: float
    high: float
    table: dict


def losses(s: Side, flops) -> np.ndarray:
    """The least loss that each budget buys, of the fit and its draws: (1 + resamples, budgets)."""
    flops = np.asarray(flops, float)
    if s.f.form.inputs == ("C",):
        return solve.predict(s.f.form, allocation.thetas_of(s.f), {"C": flops})
    return np.stack([allocation.frontier(s.f, float(c), s.cost, {})[2] for c in flops], 1)


def _both(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws of two independent fits, as many of each."""
    k = min(len(a), len(b))
    return a[:k], b[:k]


def _answer(a: Side, b: Side, values) -> dict:
    return precision.answer("", values, a.f.centred and b.f.centred)


def overlap(a: Side, b: Side) -> tuple[float, float]:
    """The FLOPs that both spent. Raises FitError if there are none."""
    low, high = max(a.low, b.low), min(a.high, b.high)
    if low * 1.001 >= high:
        raise FitError(
            f"the runs do not overlap in compute: {a.name} spans {a.low:.3g} to {a.high:.3g} FLOPs,"
            f" {b.name} {b.low:.3g} to {b.high:.3g}; what either would be elsewhere is its law's"
            " guess"
        )
    return low, high


def curves(a: Side, b: Side) -> list[dict]:
    """At budgets that both spent: `gap`, loss of `b` minus that of `a`; `multiplier`, FLOPs that
    `a` needs for what `b` reaches over those of `b` (above one: `b` is the better buy), and whether
    that lies among the runs of `a` (`seen`); `parameters`, how many times the size of the best `b`
    an `a` must have to reach its loss on as many tokens. Each with a 95% interval.
    """
    grid = np.geomspace(*overlap(a, b), POINTS)
    reach = np.geomspace(a.low / REACH, a.high * REACH, GRID)
    mine, theirs = _both(losses(a, grid), losses(b, grid))
    wide = losses(a, reach)[: len(mine)]
    rows = []
    for i, c in enumerate(grid):
        needed = np.array(
            [allocation.invert(np.log(reach), w, v) for w, v in zip(wide, theirs[:, i])]
        )
        times = np.exp(needed - np.log(c))
        row = {
            "flops": float(c),
            "loss": [float(mine[0, i]), float(theirs[0, i])],
            "gap": _answer(a, b, theirs[:, i] - mine[:, i]),
            "multiplier": _answer(a, b, times),
            "seen": bool(a.low <= times[0] * c <= a.high) if np.isfinite(times[0]) else False,
        }
        if "N" in a.f.form.inputs and "N" in b.f.form.inputs:
            row["parameters"] = _answer(a, b, _size(a, b, float(c)))
        rows.append(row)
    return rows


def _size(a: Side, b: Side, flops: float) -> np.ndarray:
    """Size of the `a` that has the loss of the best `b` at a budget on as many tokens, over that of
    `b`, for each pair of draws; NaN where no size within a factor 1,000 has.
    """
    n, d, loss = allocation.frontier(b.f, flops, b.cost, {})
    sizes = np.geomspace(n[0] / REACH, n[0] * REACH, GRID)
    thetas = allocation.thetas_of(a.f)
    k = min(len(thetas), len(n))
    tokens = np.where(np.isfinite(d[:k]), d[:k], 1.0)
    table = allocation.each(a.f, thetas[:k], sizes, np.repeat(tokens[:, None], GRID, 1), {})
    log_n = [allocation.invert(np.log(sizes), row, v) for row, v in zip(table, loss[:k])]
    return np.exp(np.array(log_n) - np.log(n[:k]))


def paired(a: Side, b: Side) -> list[dict]:
    """Differences b - a of runs that are equal in size, budget (or tokens) and seed: a row for each
    size and budget with its mean over seeds and Student interval; last `all` of them together. []
    where the tables do not say so much.
    """
    if not all({"size", "seed"} <= set(s.table) for s in (a, b)):
        return []
    mine, theirs = _cells(a.table), _cells(b.table)
    groups = defaultdict(list)
    for key in sorted(set(mine) & set(theirs), key=str):
        groups[key[:2]].append(theirs[key] - mine[key])
    rows = [{"size": k[0], "budget": k[1], **_mean(v)} for k, v in groups.items()]
    every = [v for own in groups.values() for v in own]
    return [*rows, {"size": "all", "budget": None, **_mean(every)}] if every else []


def _cells(t: dict) -> dict:
    """{(size, budget or tokens, seed): loss}; cells of several rates or repeats by their mean."""
    out = defaultdict(list)
    tokens = t.get("tokens", np.full(len(t["loss"]), np.nan))
    budget = t.get("budget", tokens)
    for size, c, d, seed, loss in zip(t["size"], budget, tokens, t["seed"], t["loss"]):
        out[float(size), float(c if np.isfinite(c) else d), float(seed)].append(loss)
    return {k: float(np.mean(v)) for k, v in out.items()}


def _mean(values: list[float]) -> dict:
    mean, around = bootstrap.student(values)
    return {"pairs": len(values), "gap": mean, "interval": around}


def words(a: Side, b: Side, rows: list[dict]) -> str:
    """The answer in a sentence, at the largest budget that both spent."""
    last = rows[-1]["multiplier"]
    if not np.isfinite(last["value"]):
        return f"{a.name} reaches what {b.name} does at no compute within {REACH:g} times its runs"
    at = f"at {rows[-1]['flops']:.3g} FLOPs"
    span = last["interval"]
    if span is None or span[0] <= 1 <= span[1]:
        return f"the two cannot be told apart {at}: the interval of the multiplier holds 1"
    better, times = (b, last["value"]) if last["value"] > 1 else (a, 1 / last["value"])
    other = a if better is b else b
    return f"{better.name} is the better buy {at}: {other.name} needs x{times:.3g} its compute"
