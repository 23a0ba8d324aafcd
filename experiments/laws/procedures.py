"""Laws that are procedures, not formulas: Chinchilla approaches 1 and 2. Same answers as a fit:
parameters, draws, verdicts.

A new one is a function of (table, options) and an entry in PROCEDURES.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.laws import bootstrap, isoflop
from experiments.laws import table as tables
from experiments.laws.isoflop import FitError

# of a run's tokens, at its end: Hoffmann's winners lie there, where the learning rate has come down
DECAYED = 0.15


class Outcome(NamedTuple):
    """draws: by parameter, (resamples,)."""

    parameters: dict[str, float]
    draws: dict[str, np.ndarray]
    objective: float
    n_points: int
    verdict: str
    details: dict

    def at(self, flops: float) -> dict:
        """N_opt, D_opt and tokens per parameter at a budget, {value, interval}."""
        line = lambda p, k: np.exp(
            np.asarray(p[f"log_{k}"]) + np.asarray(p[f"{k}_exponent"]) * np.log(flops)
        )
        one, many = ({k: line(p, k) for k in ("n", "d")} for p in (self.parameters, self.draws))
        answer = lambda value, draws: {
            "value": float(value),
            "interval": bootstrap.interval(draws) if len(draws) else None,
        }
        return {
            "n_opt": answer(one["n"], many["n"]),
            "d_opt": answer(one["d"], many["d"]),
            "tokens_per_parameter": answer(one["d"] / one["n"], many["d"] / many["n"]),
        }


class Procedure(NamedTuple):
    formula: str
    source: str
    run: Callable


_LOST = dict.fromkeys(("log_n", "n_exponent", "log_d", "d_exponent"), np.nan)


def _both(c, n, d, weights=None) -> dict[str, float]:
    w = np.ones(len(c)) if weights is None else weights
    out = {}
    for k, y in (("n", n), ("d", d)):
        law = isoflop.weighted_power(c, y, w)
        out |= {f"log_{k}": law.log_k, f"{k}_exponent": law.exponent}
    return out


def _misfit(p, c, n):
    return float(((np.log(n) - p["log_n"] - p["n_exponent"] * np.log(c)) ** 2).sum())


def _stack(rows: list[dict]) -> dict[str, np.ndarray]:
    return (
        {k: np.array([r[k] for r in rows]) for k in rows[0]}
        if rows
        else {k: np.zeros(0) for k in _LOST}
    )


def _columns(t, n, c):
    x = {
        k: tables.numbers(t, v)
        for k, v in (
            ("n", n if n and n in t else "n_params"),
            ("d", "tokens"),
            ("c", c if c and c in t else "flops"),
            ("loss", "loss"),
        )
    }
    for k, v in x.items():
        if (~np.isfinite(v) | (v <= 0)).any():
            raise FitError(
                f"{k} of row {int(np.argmax(~np.isfinite(v) | (v <= 0))) + 1} is not a positive"
                " number: leave such rows out with --where"
            )
    return x


def slices(t, c) -> list[np.ndarray]:
    """Row numbers of each budget: the column budget (or isoflop_budget), else runs whose C agree
    within 10%.
    """
    name = next((k for k in ("budget", "isoflop_budget") if k in t and t[k].dtype != object), None)
    if name:
        return [np.flatnonzero(t[name] == b) for b in np.unique(t[name][np.isfinite(t[name])])]
    order = np.argsort(c)
    return np.split(order, np.flatnonzero(np.diff(np.log(c[order])) > 0.1) + 1)


def parabolas(t, n="", c="", resamples=1000, seed=0) -> Outcome:
    """Approach 2. Noise is pooled over the slices and drawn around the parabolas."""
    x, kept, dropped = _columns(t, n, c), [], []
    for rows in slices(t, x["c"]):
        try:
            q = isoflop.parabola(
                x["n"][rows],
                x["d"][rows],
                x["loss"][rows],
                float(np.exp(np.log(x["c"][rows]).mean())),
            )
        except FitError as e:
            dropped.append(str(e))
            continue
        if q.interior:
            kept.append((rows, q))
        else:
            dropped.append(f"{q.flops:.3g} FLOPs: no interior minimum")
    if len(kept) < 2:
        raise FitError(
            "fewer than two budgets have an interior minimum"
            + (f" ({'; '.join(dropped[:3])})" if dropped else "")
        )
    fitted = lambda rows, q: np.polyval(q.coefficients[::-1], np.log(x["n"][rows]))
    level = bootstrap.noise(
        [
            (float(((x["loss"][r] - fitted(r, q)) ** 2).sum()), len(r) - 3)
            for r, q in kept
            if len(r) > 3
        ]
    )
    at = np.array([[q.flops, q.n_opt, q.d_opt] for _, q in kept]).T
    rng, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        sigma, qs = level.draw(rng), []
        for rows, q in kept:
            qs.append(
                isoflop.parabola(
                    x["n"][rows],
                    x["d"][rows],
                    fitted(rows, q) + sigma * rng.standard_normal(len(rows)),
                    q.flops,
                )
            )
        values = np.array([[q.flops, q.n_opt, q.d_opt] for q in qs]).T
        lost = not np.isfinite(values).all()
        draws.append(_LOST if lost else _both(*values))
    p = _both(*at)
    minima = [
        {"flops": q.flops, "n_opt": q.n_opt, "d_opt": q.d_opt, "loss_opt": q.loss_opt}
        for _, q in kept
    ]
    words = f"{len(kept)} interior minima" + (
        f"; left out: {'; '.join(dropped)}" if dropped else ""
    )
    return Outcome(
        p,
        _stack(draws),
        _misfit(p, at[0], at[1]),
        sum(len(r) for r, _ in kept),
        words,
        {"minima": minima, "noise": level.sigma},
    )


def interpolation(t, n="", c="", resamples=1000, seed=0) -> Outcome:
    """Porian's variant of approach 2: Akima interpolation, drawn noise, budgets weighted by the
    certainty of their minimum.
    """
    x, kept, dropped = _columns(t, n, c), [], []
    sums = []
    for rows in slices(t, x["c"]):
        if len(rows) > 3:
            fitted = np.polyval(
                np.polyfit(np.log(x["n"][rows]), x["loss"][rows], 3 if len(rows) > 5 else 2),
                np.log(x["n"][rows]),
            )
            sums.append(
                (
                    float(((x["loss"][rows] - fitted) ** 2).sum()),
                    len(rows) - (4 if len(rows) > 5 else 3),
                )
            )
    level, rng = bootstrap.noise([s for s in sums if s[1] > 0]), np.random.default_rng(seed)
    for rows in slices(t, x["c"]):
        try:
            flops = float(np.exp(np.log(x["c"][rows]).mean()))
            kept.append(
                isoflop.interpolated(
                    x["n"][rows],
                    x["d"][rows],
                    x["loss"][rows],
                    flops,
                    level.sigma,
                    max(50, resamples),
                    rng,
                )
            )
        except FitError as e:
            dropped.append(str(e))
    if len(kept) < 2:
        raise FitError(
            "fewer than two budgets have an interior minimum"
            + (f" ({'; '.join(dropped[:3])})" if dropped else "")
        )
    at = np.array([[k["flops"], k["n_opt"], k["d_opt"]] for k in kept]).T
    weights = np.array([k["weight"] for k in kept])
    draws = []
    for i in range(resamples):
        ln, ld = (np.array([k[v][i] for k in kept]) for v in ("log_n", "log_d"))
        ok = np.isfinite(ln)  # a draw whose minimum ran to an end says nothing about that budget
        draws.append(
            _both(at[0][ok], np.exp(ln[ok]), np.exp(ld[ok]), weights[ok]) if ok.sum() > 1 else _LOST
        )
    p = _both(*at, weights)
    minima = [{k: m[k] for k in ("flops", "n_opt", "d_opt", "loss_opt")} for m in kept]
    words = f"{len(kept)} interior minima" + (
        f"; left out: {'; '.join(dropped)}" if dropped else ""
    )
    return Outcome(
        p,
        _stack(draws),
        _misfit(p, at[0], at[1]),
        len(x["n"]),
        words,
        {"minima": minima, "noise": level.sigma},
    )


def training_curves(t, n="", c="", resamples=1000, seed=0) -> Outcome:
    """Approach 1. Rows are checkpoints, `run_id` says of which run; of each run the last 15% of its
    tokens count (all of a run's row if it has one). Runs are resampled.
    """
    x = _columns(t, n, c)
    if "run_id" not in t:
        raise FitError(
            "chinchilla1 reads checkpoints: a column run_id must say which rows are of one run"
            " (--columns=run_id=THEIRS)"
        )
    runs = []
    for name in dict.fromkeys(t["run_id"].tolist()):
        rows = np.flatnonzero(t["run_id"] == name)
        rows = rows[np.argsort(x["d"][rows])]
        rows = rows[x["d"][rows] >= (1 - DECAYED) * x["d"][rows[-1]]]
        runs.append((float(x["n"][rows[-1]]), x["c"][rows], x["d"][rows], x["loss"][rows]))
    if sum(len(r[1]) > 1 for r in runs) < 2:
        raise FitError(
            "chinchilla1 needs training curves: at least two runs with several checkpoints in the"
            " last 15% of their tokens"
        )
    full = isoflop.envelope(runs)
    if len(full["flops"]) < 2 or len(set(full["n"])) < 2:
        raise FitError(
            "the training curves do not overlap in compute: no budget has two runs to choose from"
        )
    rng, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        pick = [runs[i] for i in rng.integers(0, len(runs), len(runs))]
        e = isoflop.envelope(pick, 300)
        lost = len(e["flops"]) < 2 or len(set(e["n"])) < 2
        draws.append(_LOST if lost else _both(e["flops"], e["n"], e["d"]))
    p = _both(full["flops"], full["n"], full["d"])
    winners = len(set(full["run"].tolist()))
    words = f"{winners} of {len(runs)} runs win at some budget" + (
        "; too few for an exponent" if winners < 4 else ""
    )
    details = {"winners": winners, "runs": len(runs), "budgets": len(full["flops"])}
    return Outcome(
        p, _stack(draws), _misfit(p, full["flops"], full["n"]), len(x["n"]), words, details
    )


PROCEDURES = {
    "chinchilla1": Procedure(
        "N_opt = k_N C^a, D_opt = k_D C^b through the envelope of training curves",
        "Hoffmann et al. 2022, arXiv 2203.15556, section 3.1",
        training_curves,
    ),
    "chinchilla2": Procedure(
        "N_opt = k_N C^a, D_opt = k_D C^b through the minima of isoFLOP parabolas",
        "Hoffmann et al. 2022, arXiv 2203.15556, section 3.2",
        parabolas,
    ),
    "chinchilla2_interpolated": Procedure(
        "N_opt = k_N C^a, D_opt = k_D C^b through interpolated isoFLOP minima, weighted by their"
        " certainty",
        "Porian et al. 2024, arXiv 2406.19146",
        interpolation,
    ),
}
