"""L = E + A/N^alpha + B/D^beta of one family of a sweep: approach 3, as the report draws it."""

import numpy as np

from experiments.laws.fitting import allocation, bootstrap, fit, noise_model, verdicts
from experiments.laws.fitting.solve import Objective


def fitted(points, level, resamples, seed):
    """Approach 3 with intervals from drawn noise, the largest budget held out once, and the verdict
    in words.
    """
    x, loss = (
        {
            "N": np.array([p["n"] for p in points], float),
            "D": np.array([p["d"] for p in points], float),
        },
        np.array([p["loss"] for p in points]),
    )
    c = np.array([p["c"] for p in points], float)
    noise = noise_model.Noise(level["sigma"] / float(loss.mean()), level["dof"]) if level else None
    # Huber's scale is one run's noise: a finer one would make a least-absolute-deviation fit of so
    # few points
    spec = Objective("huber", max(1e-3, noise.sigma if noise else 0.0))
    above = c > 0.9 * np.quantile(
        c, 0.8
    )  # a budget's runs differ a little in C: all of them or none
    try:
        f = fit.fit(
            "chinchilla3",
            fit.Points(x, loss, noise=noise),
            spec,
            resamples,
            seed,
            "noise",
            above if (~above).sum() > 6 and above.any() else None,
        )
    except fit.FitError as e:
        return {"verdict": f"not identified by these runs: {e}"}
    reading, named = verdicts.read(f), f.parameters
    losses = f.predict(x)[0]
    grid = np.geomspace(c.min(), c.max() * 4, 40)
    return {
        "law": f.law,
        "formula": f.form.formula,
        "source": f.form.source,
        "parameters": {k: named[k] for k in f.form.names},
        "intervals": f.intervals(),
        "objective": f.value,
        "huber_delta": spec.delta,
        "starts_at_optimum": f.at_optimum,
        "n_points": len(loss),
        "residual": float(
            np.sqrt(((loss - losses) ** 2).sum() / max(1, len(loss) - len(f.form.names)))
        ),
        "n_exponent": named["n_exponent"],
        "identified": reading["identified"],
        "verdict": reading["words"],
        "verdicts": reading,
        "extrapolation": f.held_out,
        "curve": _curve(f, x, c, grid),
        "points": {
            "n": x["N"].tolist(),
            "d": x["D"].tolist(),
            "c": c.tolist(),
            "measured": loss.tolist(),
            "fitted": losses.tolist(),
            "log_residual": f.residuals.tolist(),
            "held_out": above.tolist(),
        },
    }


def _curve(f, x, c, grid):
    """The law's best loss at each budget of `grid`, with its band."""
    price = allocation.cost(x["N"], x["D"], c)
    rows = [allocation.frontier(f, float(b), price, {})[2] for b in grid]
    return {
        "c": grid.tolist(),
        "loss": [float(r[0]) for r in rows],
        "interval": [bootstrap.interval(r[1:]) for r in rows],
        "flops_per_token": str(price),
    }
