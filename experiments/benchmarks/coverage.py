"""Coverage of the bootstrap: known truth, simulated sets of runs, how often a 95% interval holds
the true value.

python -m experiments.benchmarks.coverage --sets=400       one JSON object per design and method
"""

import argparse
import json
import time

import numpy as np

from experiments.laws.fitting import allocation, bootstrap, fit, solve
from experiments.laws.fitting.law_forms import FORMS

TRUTH = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}


def isoflop_design(budgets, sizes: int, width: float):
    """N and D of `sizes` sizes per budget, from optimum / width to optimum x width."""
    n, d = [], []
    for c in budgets:
        centre = 0.11 * (c / 6) ** 0.513
        n.append(centre * np.geomspace(1 / width, width, sizes))
        d.append(c / 6 / n[-1])
    return {"N": np.concatenate(n), "D": np.concatenate(d)}


DESIGNS = {  # name: inputs, noise of log loss
    "108 runs: 9 budgets of 1e18 to 1e22, 12 sizes each, noise 0.5%": (
        isoflop_design(np.geomspace(1e18, 1e22, 9), 12, 8.0),
        0.005,
    ),
    "36 runs: 6 sizes x 6 token counts, three decades each, noise 0.5%": (
        dict(
            zip(
                "ND",
                (
                    v.ravel()
                    for v in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6))
                ),
            )
        ),
        0.005,
    ),
    "20 runs: 4 budgets of 1e18 to 1e21, 5 sizes each, noise 0.2%": (
        isoflop_design(np.geomspace(1e18, 1e21, 4), 5, 6.0),
        0.002,
    ),
}
# which bootstrap `isoflop fit` takes on a design of so many runs (ask.resampling)
CHECKED = dict(zip(DESIGNS, ("cases", "noise", "noise")))


def one(x, sigma: float, method: str, resamples: int, seed: int) -> dict:
    """Intervals of one simulated set: {quantity: (low, high) or None}."""
    form = FORMS["chinchilla3"]
    truth = form.theta(**TRUTH)
    y = solve.predict(form, truth, x)[0] * np.exp(
        sigma * np.random.default_rng([7, seed]).standard_normal(len(x["N"]))
    )
    f = fit.fit("chinchilla3", fit.Points(x, y), resamples=resamples, seed=seed, method=method)
    spans = {k: v for k, v in f.intervals().items() if k in ("alpha", "beta", "n_exponent", "E")}
    best = beyond(x)
    spans["loss at 10x C"] = bootstrap.interval(f.predict(best)[1][:, 0])
    return spans


def beyond(x) -> dict:
    """The true optimum at ten times the design's largest C."""
    form, c = FORMS["chinchilla3"], 10 * float((6 * x["N"] * x["D"]).max())
    points = fit.Points({k: np.ones(1) for k in "ND"}, np.ones(1))
    true = fit.Fitted(
        "chinchilla3",
        form,
        points,
        solve.Objective(),
        form.theta(**TRUTH),
        0,
        np.zeros(1),
        True,
        1,
        np.zeros((0, 5)),
        None,
        "",
    )
    n, d, _ = allocation.frontier(true, c, allocation.Cost(), {})
    return {"N": n[:1], "D": d[:1]}


def coverage(name: str, method: str, sets: int, resamples: int = 199) -> dict:
    """{quantity: {coverage, median_width}} over `sets` simulated sets of a design; an interval
    without an end holds everything.
    """
    x, sigma = DESIGNS[name]
    form = FORMS["chinchilla3"]
    truth = {k: float(v[0]) for k, v in solve.values(form, form.theta(**TRUTH)).items()}
    truth["loss at 10x C"] = float(solve.predict(form, form.theta(**TRUTH), beyond(x))[0, 0])
    started, spans = time.process_time(), [one(x, sigma, method, resamples, s) for s in range(sets)]
    out = {}
    for k in spans[0]:
        held = [s[k] is None or s[k][0] <= truth[k] <= s[k][1] for s in spans]
        widths = [np.inf if s[k] is None else s[k][1] - s[k][0] for s in spans]
        out[k] = {
            "truth": truth[k],
            "coverage": float(np.mean(held)),
            "median_width": float(np.median(widths)),
        }
    return {
        "design": name,
        "method": method,
        "sets": sets,
        "resamples": resamples,
        "cpu_s": time.process_time() - started,
        "quantities": out,
    }


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--sets", type=int, default=400)
    p.add_argument("--methods", default="cases,noise")
    args = p.parse_args()
    for name in DESIGNS:
        for method in args.methods.split(","):
            print(json.dumps(coverage(name, method, args.sets)), flush=True)


if __name__ == "__main__":
    main()
