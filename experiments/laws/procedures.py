"""Laws that are procedures, not formulas: Chinchilla approaches 1 and 2. Same answers as a fit:
parameters, draws, verdicts.

A new one is a function of (table, options) and an entry in PROCEDURES.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import (
    isoflop,
    noise_model,
    precision,
    residual_noise,
    slice_curves,
)
from experiments.laws.isoflop_slices import columns, noise, slices

# of a run's tokens, at its end: Hoffmann's winners lie there, where the learning rate has come down
DECAYED = 0.15
# share of the resamples with a minimum outside of the sizes, above which a slice has none inside
BEYOND = 0.1


class Outcome(NamedTuple):
    """draws: by parameter, (resamples,)."""

    parameters: dict[str, float]
    draws: dict[str, np.ndarray]
    objective: float
    n_points: int
    verdict: str
    details: dict

    def at(self, flops: float, levels=()) -> dict:
        """N_opt, D_opt and tokens per parameter at a budget, as precision.answer has them."""

        def line(p, k):
            return np.exp(
                np.asarray(p[f"log_{k}"]) + np.asarray(p[f"{k}_exponent"]) * np.log(flops)
            )

        known = [k for k in ("n", "d") if f"log_{k}" in self.parameters]
        every = {k: np.append(line(self.parameters, k), line(self.draws, k)) for k in known}
        out = {f"{k}_opt": precision.answer(f"{k}_opt", v, False, levels) for k, v in every.items()}
        if len(known) == 2:
            ratio = every["d"] / every["n"]
            out["tokens_per_parameter"] = precision.answer("", ratio, False, levels)
        return out


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


def _identified(values: dict, have) -> dict:
    """Parameters or draws of the laws that the table's columns identify."""
    return {k: v for k, v in values.items() if k.removeprefix("log_")[0] in have}


def parabolas(t, n="", c="", resamples=1000, seed=0, level=None) -> Outcome:
    """Approach 2, by Huber's loss. Noise is drawn around the curves: `level`, or what their
    residuals show. Where the parabolas misfit, the slices share a cubic (slice_curves.py).
    """
    (x, have), kept, dropped = columns(t, n, c), [], []
    for rows in slices(t, x["c"]):
        flops = float(np.exp(np.log(x["c"][rows]).mean()))
        try:
            q = isoflop.parabola(x["n"][rows], x["d"][rows], x["loss"][rows], flops)
        except FitError as e:
            dropped.append(str(e))
            continue
        (kept if q.interior else dropped).append(
            (rows, flops) if q.interior else f"{flops:.3g} FLOPs: no interior minimum"
        )
    _two(kept, dropped)
    s = slice_curves.slices(*([x[k][r] for r, _ in kept] for k in ("n", "loss")))
    f = slice_curves.fit(s)
    left = int(s.inside.sum()) - f.parameters
    how = f"from residuals of the parabolas ({f.noise})"
    if level is None and left < 1:
        noise_model.noise([])  # says what to do
    level, given = level or noise_model.Level(f.sigma, left, how), level
    draws = _slice_draws(s, f, given, left, resamples, np.random.default_rng(seed))
    z, loss = (v[0] for v in f.curves.vertex(s.low, s.high))
    zs = draws.vertex(s.low, s.high)[0]
    sure = np.isfinite(z) & (z > s.low) & (z < s.high)
    beyond = ~((zs > s.low) & (zs < s.high))
    sure &= beyond.mean(0) < BEYOND if len(zs) else True
    dropped += [
        f"{flops:.3g} FLOPs: its minimum is not inside beyond the noise"
        for (_, flops), ok in zip(kept, sure)
        if not ok
    ]
    kept = [k for k, ok in zip(kept, sure) if ok]
    _two(kept, dropped)
    flops = np.array([f for _, f in kept])
    n_opt, loss_opt = np.exp(z + s.middle)[sure], loss[sure]
    log_n = (zs + s.middle)[:, sure]
    tokens = [np.polyfit(np.log(x["n"][r]), np.log(x["d"][r]), 2) for r, _ in kept]
    d_opt = np.exp([np.polyval(q, v) for q, v in zip(tokens, np.log(n_opt))])
    log_d = np.stack([np.polyval(q, v) for q, v in zip(tokens, log_n.T)], 1)
    p = _both(flops, n_opt, d_opt)
    many = _lines(flops, log_n, log_d) if resamples else _stack([])
    minima = [
        dict(zip(("flops", "n_opt", "d_opt", "loss_opt"), map(float, m)))
        for m in zip(flops, n_opt, d_opt, loss_opt)
    ]
    words = f"{len(kept)} interior minima" + (
        f"; left out: {'; '.join(dropped)}" if dropped else ""
    )
    return Outcome(
        _identified(p, have),
        _identified(many, have),
        _misfit(p, flops, n_opt),
        sum(len(r) for r, _ in kept),
        words,
        _details(minima, level, have) | _misfitting(f),
    )


def _two(kept, dropped):
    if len(kept) < 2:
        raise FitError(
            "fewer than two budgets have an interior minimum"
            + (f" ({'; '.join(dropped[:3])})" if dropped else "")
        )


def _slice_draws(s, f, given, left, resamples, rng):
    """Curves of the resamples: noise as it is given, or from the residuals."""
    e = np.zeros((resamples, *s.z.shape))
    if given is not None:
        size = given(f.curves(s.z)[0])
        factor = np.array([given.draw(rng) for _ in range(resamples)])[:, None, None]
        e = factor * size * rng.standard_normal(e.shape)
        sigma = np.inf  # normal noise: Huber's loss would cost a little for nothing
    else:
        found = residual_noise.source(
            f.residuals[s.inside], f.parameters, f.noise, np.ones(int(s.inside.sum()))
        )
        e[:, s.inside] = found.draw(rng, resamples)
        sigma = f.sigma
    return slice_curves.drawn(s, f, e * s.inside, sigma, f.curves.shape.shape[-1])


def _lines(flops, log_n, log_d) -> dict[str, np.ndarray]:
    """_both of every draw, (draws, budgets). A budget without a minimum in a draw is no part of it;
    a draw with fewer than half of the budgets, or than two, is lost.
    """
    x, out = np.log(flops), {}
    for k, y in (("n", log_n), ("d", log_d)):
        ok = np.isfinite(y)
        count = ok.sum(1)
        many = np.where(count >= max(2, len(x) / 2), count, np.nan)
        middle = (ok * x).sum(1) / many
        level = np.where(ok, y, 0.0).sum(1) / many
        at = ok * (x - middle[:, None])
        slope = (at * np.where(ok, y, 0.0)).sum(1) / (at**2).sum(1)
        out |= {f"log_{k}": level - slope * middle, f"{k}_exponent": slope}
    return out


def _misfitting(f) -> dict:
    """What the slices' shape says: `shape`, and a warning where a parabola is not enough."""
    extra = f.curves.shape.shape[-1]
    out = {"shape": ("parabola", "cubic", "quartic")[extra], "misfit": f.misfit}
    if extra:
        out["warning"] = (
            f"parabolas do not fit slices as wide as these (a shared cubic is {f.misfit:.1f} times"
            f" its error): minima are those of the {out['shape']}"
        )
    return out


def _details(minima: list[dict], level: noise_model.Level, have) -> dict:
    lacking = {"n": "n_opt", "d": "d_opt"}
    gone = [v for k, v in lacking.items() if k not in have]
    return {
        "minima": [{k: v for k, v in m.items() if k not in gone} for m in minima],
        "noise": level.sigma,
        "noise_growth": level.growth,
        "noise_from": level.how,
    }


def interpolation(t, n="", c="", resamples=1000, seed=0, level=None) -> Outcome:
    """Porian's variant of approach 2: Akima interpolation, budgets weighted by the certainty of
    their minimum. The answer is the data's; noise (`level`, or else `noise`) is drawn around it.
    """
    (x, have), kept, dropped = columns(t, n, c), [], []
    level, rng = level or noise(t, x), np.random.default_rng(seed)
    number = max(50, resamples)
    factor = np.array([[level.draw(rng)] for _ in range(number)])
    for rows in slices(t, x["c"]):
        loss = x["loss"][rows]
        try:
            flops = float(np.exp(np.log(x["c"][rows]).mean()))
            kept.append(
                isoflop.interpolated(
                    x["n"][rows], x["d"][rows], loss, flops, factor * level(loss), number, rng
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
        _identified(p, have),
        _identified(_stack(draws), have),
        _misfit(p, at[0], at[1]),
        len(x["n"]),
        words,
        _details(minima, level, have),
    )


def training_curves(t, n="", c="", resamples=1000, seed=0, level=None) -> Outcome:
    """Approach 1. Rows are checkpoints, `run_id` says of which run; of each run the last 15% of its
    tokens count (all of a run's row if it has one). Runs are resampled.
    """
    x, have = columns(t, n, c)
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
        _identified(p, have),
        _identified(_stack(draws), have),
        _misfit(p, full["flops"], full["n"]),
        len(x["n"]),
        words,
        details,
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
