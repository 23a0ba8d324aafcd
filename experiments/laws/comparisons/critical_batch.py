"""How much a larger batch costs: the law `critical_batch` over the batches of a sweep, each at its
best learning rate, and the critical batch of every size and length with its interval.
"""

from collections import defaultdict

import numpy as np

from experiments.laws.fitting import bootstrap, fit, solve, verdicts
from experiments.laws.fitting.law_forms import OVERHEAD, critical

LAW = "critical_batch"
LEAST = 3  # batches in every cell
UPDATES = 50  # fewer are a beginning, of which a power law of the tokens says nothing


def analyse(points: list[dict], resamples: int, seed: int) -> dict | None:
    """The fit, and a row for each size and length; None where these have no LEAST batches each, or
    differ in more. Tokens throughout. `allowed`: the batch that wants OVERHEAD more tokens than the
    smallest. Runs of fewer than UPDATES updates are left out of the fit.
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
    used = [p for p in points if p["steps"] >= UPDATES]
    columns = (("N", "n"), ("D", "d"), ("B", "batch"))
    x = {k: np.array([p[c] for p in used], float) for k, c in columns}
    pts = fit.Points(x, np.array([p["loss"] for p in used], float))
    parameters = len(fit.FORMS[LAW].names)
    method = "cases" if len(used) >= 10 * parameters else "noise"
    try:
        f = fit.fit(LAW, pts, resamples=resamples, seed=seed, method=method)
    except fit.FitError as e:
        return {
            "law": LAW,
            "verdict": f"not identified by these runs: {e}",
            "cells": [],
        }
    named = f.parameters
    return {
        "law": LAW,
        "formula": f.form.formula,
        "source": f.form.source,
        "parameters": {k: named[k] for k in f.form.names},
        "intervals": f.intervals(),
        "verdict": verdicts.read(f)["words"],
        "n_points": len(used),
        "left_out": len(points) - len(used),
        "residual_sd": f.residual_sd,
        "overhead": OVERHEAD,
        "cells": [_cell(f, size, by_batch) for (size, _), by_batch in sorted(cells.items())],
    }


def _cell(f, size, by_batch: dict) -> dict:
    """Losses against batches, measured (means over seeds) and by the law."""
    batches = sorted(by_batch)
    one = next(iter(by_batch.values()))[0]
    means = [float(np.mean([p["loss"] for p in by_batch[b]])) for b in batches]
    grid = np.geomspace(batches[0], batches[-1], 30)
    same = np.ones(len(grid))
    curve = f.predict({"N": one["n"] * same, "D": one["asked"] * same, "B": grid})[0]
    own = {"size": size, "n": one["n"], "tokens": one["asked"], "batches": batches}
    own |= {"losses": means, "grid": grid.tolist(), "fitted": curve.tolist()}
    return own | _critical(f, one["n"], one["asked"])


def _critical(f, n: float, tokens: float) -> dict:
    """The critical batch of a size and a length."""

    def of(theta):
        v = solve.values(f.form, theta)
        return np.asarray(critical(v["k"], v["a"], v["b"], n, tokens))

    value, around = float(of(f.theta)[0]), None
    if len(f.draws):
        around = bootstrap.interval(of(f.draws), 0.95, value if f.centred else None)
    allowed = around and [OVERHEAD * v for v in around]
    return {
        **{"critical": value, "interval": around},
        **{"allowed": OVERHEAD * value, "allowed_interval": allowed},
    }
