"""How much a larger batch costs: the law `critical_batch` over the batches of a sweep, each at its
best learning rate, and the critical batch of every length with its interval.
"""

from collections import defaultdict

import numpy as np

from experiments.laws.fitting import bootstrap, fit, verdicts
from experiments.laws.fitting.law_forms import OVERHEAD

LAW = "critical_batch"
LEAST = 3  # batches in every cell


def analyse(points: list[dict], resamples: int, seed: int) -> dict | None:
    """The fit, and a row for each length; None where sizes and lengths have no LEAST batches each,
    or differ in more. Tokens throughout. `allowed`: the batch that wants OVERHEAD more tokens than
    the smallest.
    """
    cells = defaultdict(dict)
    for p in points:
        cells[p["size"], p["asked"]].setdefault(p["batch"], []).append(p)
    models = defaultdict(set)
    for p in points:
        models[p["size"]].add((p["alike"], p["context"]))
    if not cells or min(map(len, cells.values())) < LEAST:
        return None
    if any(len(found) > 1 for found in models.values()):
        return None
    x = {
        k: np.array([p[c] for p in points], float)
        for k, c in (("N", "n"), ("D", "d"), ("B", "batch"))
    }
    pts = fit.Points(x, np.array([p["loss"] for p in points], float))
    parameters = len(fit.FORMS[LAW].names)
    method = "cases" if len(points) >= 10 * parameters else "noise"
    try:
        f = fit.fit(LAW, pts, resamples=resamples, seed=seed, method=method)
    except fit.FitError as e:
        return {
            "law": LAW,
            "verdict": f"not identified by these runs: {e}",
            "cells": [],
            "lengths": [],
        }
    named = f.parameters
    return {
        "law": LAW,
        "formula": f.form.formula,
        "source": f.form.source,
        "parameters": {k: named[k] for k in f.form.names},
        "intervals": f.intervals(),
        "verdict": verdicts.read(f)["words"],
        "n_points": len(points),
        "residual_sd": f.residual_sd,
        "overhead": OVERHEAD,
        "cells": [_cell(f, size, by_batch) for (size, _), by_batch in sorted(cells.items())],
        "lengths": [_length(f, d) for d in sorted({p["asked"] for p in points})],
    }


def _cell(f, size, by_batch: dict) -> dict:
    """Losses against batches, measured (means over seeds) and by the law."""
    batches = sorted(by_batch)
    one = next(iter(by_batch.values()))[0]
    means = [float(np.mean([p["loss"] for p in by_batch[b]])) for b in batches]
    grid = np.geomspace(batches[0], batches[-1], 30)
    same = np.ones(len(grid))
    curve = f.predict({"N": one["n"] * same, "D": one["asked"] * same, "B": grid})[0]
    out = {"size": size, "n": one["n"], "tokens": one["asked"], "batches": batches, "losses": means}
    return {**out, "grid": grid.tolist(), "fitted": curve.tolist()}


def _length(f, tokens: float) -> dict:
    """The critical batch at so many training tokens."""
    from experiments.laws.fitting import solve

    own = solve.values(f.form, f.theta)
    value = float((own["k"] * tokens ** own["b"])[0])
    around = None
    if len(f.draws):
        drawn = solve.values(f.form, f.draws)
        around = bootstrap.interval(
            drawn["k"] * tokens ** drawn["b"], 0.95, value if f.centred else None
        )
    return {
        "tokens": tokens,
        "critical": value,
        "interval": around,
        "allowed": OVERHEAD * value,
        "allowed_interval": around and [OVERHEAD * v for v in around],
    }
