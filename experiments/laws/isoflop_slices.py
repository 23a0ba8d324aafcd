"""A table's runs by compute budget, and the noise of one run's loss as the table shows it."""

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import isoflop, noise_model
from experiments.laws.runs import table as tables


def columns(t, n, c):
    """(n, d, c and loss by name; which of n and d the table has). Where it lacks one, the other
    stands for it: a slice has a minimum over either.
    """
    n, c = n if n and n in t else "n_params", c if c and c in t else "flops"
    have = [k for k, v in (("n", n), ("d", "tokens")) if v in t]
    if not have:
        tables.numbers(t, n)
    names = {"n": n if "n" in have else "tokens", "d": "tokens" if "d" in have else n}
    x = {k: tables.numbers(t, v) for k, v in {**names, "loss": "loss"}.items()}
    if c in t or len(have) < 2:
        x["c"] = tables.numbers(t, c)
    else:
        x["c"] = 6 * x["n"] * x["d"]
    for k, v in x.items():
        bad = ~np.isfinite(v) | (v <= 0)
        if bad.any():
            name = names.get(k, {"c": c}.get(k, k))
            raise FitError(
                f"{name} of {tables.place(t, int(np.argmax(bad)))} is not a positive number: leave"
                " such rows out with --where"
            )
    return x, have


def replicates(t, x) -> list[np.ndarray]:
    """Row numbers of the cells with several seeds: equal but for the seed."""
    label = tables.cells(None, t, {k: x[k] for k in ("n", "d", "c")})
    if label is None:
        return []
    groups = [np.flatnonzero(label == k) for k in np.unique(label)]
    return [rows for rows in groups if len(rows) > 1]


def noise(t, x) -> noise_model.Level:
    """Of one run's loss: between seeds, where at least two degrees of freedom are there; else from
    neighbours near each slice's minimum, by what four of them leave of a parabola. A curve through
    the whole of a slice would take its own misfit for noise.
    """
    loss, residuals, at = x["loss"], [], []
    for rows in replicates(t, x):
        # orthogonal contrasts: one independent residual for each degree of freedom
        for k in range(1, len(rows)):
            scale = np.sqrt(k / (k + 1))
            residuals.append(scale * (loss[rows[k]] - loss[rows[:k]].mean()))
            at.append(loss[rows].mean())
    if len(residuals) >= 2:
        return noise_model.level(residuals, at, len(residuals), "between seeds")
    residuals, at = [], []
    for rows in slices(t, x["c"]):
        sizes, mean = isoflop.by_size(np.log(x["n"][rows]), loss[rows])
        count = np.array([np.isclose(np.log(x["n"][rows]), s).sum() for s in sizes])
        best = int(np.argmin(mean))
        windows = [k for k in (best - 2, best - 1) if 0 <= k <= len(sizes) - 4]
        for k in windows:
            z = sizes[k : k + 4] - sizes[k : k + 4].mean()
            left = np.linalg.svd(np.vander(z, 3))[0][:, 3]  # what no parabola can say
            unit = np.sqrt((left**2 / count[k : k + 4]).sum())
            residuals.append(float(left @ mean[k : k + 4]) / unit)
            at.append(float(mean[best]))
    # two windows of one slice share three runs: they count as one and a half
    dof = 0.75 * len(residuals)
    return noise_model.level(residuals, at, max(1.0, dof), "between neighbours near the minima")


def slices(t, c) -> list[np.ndarray]:
    """Row numbers of each budget: the column budget (or isoflop_budget), else runs whose C agree
    within 10%.
    """
    name = next((k for k in ("budget", "isoflop_budget") if k in t and t[k].dtype != object), None)
    if name:
        return [np.flatnonzero(t[name] == b) for b in np.unique(t[name][np.isfinite(t[name])])]
    order = np.argsort(c)
    return np.split(order, np.flatnonzero(np.diff(np.log(c[order])) > 0.1) + 1)
