"""Known truth, made-up sweeps: how often the one larger run that `isoflop next` asks for lies
inside its 95% prediction interval, at 10 and 100 times the largest budget.
"""

import time

import numpy as np

from experiments.benchmarks import simulated_runs as made
from experiments.laws import table_fit
from experiments.laws.fitting import allocation, fit, prediction
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective

DESIGNS = ("6 budgets x 7 sizes", "6 budgets x 5 sizes", "3 budgets x 5 sizes")
DISTANCES = (10.0, 100.0)
RESAMPLES = 250


def one(design: made.Design, noise: str, seed: int) -> dict:
    """{distance: (inside, half width over the loss, the interval of the mean holds the truth)} of
    one made-up sweep; the run has the law's own optimal size, as the ladder rounds it.
    """
    loss = made.drawn(made.chinchilla(design.n, design.d), design.n, noise, seed)
    pts = fit.Points({"N": design.n, "D": design.d}, loss)
    method, _ = table_fit.resampling(FORMS["chinchilla3"], pts)
    f = fit.fit("chinchilla3", pts, Objective(own=True), RESAMPLES, seed, method)
    rng, out = np.random.default_rng([91, seed]), {}
    for distance in DISTANCES:
        c = float(design.c.max() * distance)
        n_opt = allocation.optimum(f, c, allocation.Cost(), {})["n_opt"]["value"]
        if n_opt is None or not np.isfinite(n_opt):
            out[distance] = None
            continue
        n = np.array([n_opt * rng.uniform(0.95, 1.05)])
        d = c / 6 / n
        clean = made.chinchilla(n, d)
        run = made.drawn(clean, np.append(design.n, n), noise, 10**6 + seed)
        x = {"N": n, "D": d}
        p = prediction.outlook(f, x, 0.95, seed)
        if p["interval"] is None:
            out[distance] = None
            continue
        low, high = p["interval"]
        mean = p["parameters_interval"]
        held = mean is None or mean[0] <= clean[0] <= mean[1]
        out[distance] = (low <= run[-1] <= high, (high - low) / 2 / p["value"], held)
    return out


def simulate(name: str, noise: str, sets: int) -> dict:
    """Shares of `sets` made-up sweeps of a design."""
    started = time.process_time()
    found = [one(made.DESIGNS[name], noise, seed) for seed in range(sets)]
    rows = {}
    for distance in DISTANCES:
        own = [r[distance] for r in found if r[distance]]
        rows[f"{distance:g}"] = {
            "predicted": len(own),
            "inside": float(np.mean([r[0] for r in own])),
            "half_width": float(np.median([r[1] for r in own])),
            "mean_inside": float(np.mean([r[2] for r in own])),
        }
    return {"design": name, "noise": noise, "sets": sets, "distances": rows} | {
        "cpu_s": time.process_time() - started
    }


def measure(scale: str, rounds: int) -> dict:
    """All designs and noises; `rounds`: sets of each."""
    designs, noises = (DESIGNS[:1], made.NOISES[:1]) if scale == "toy" else (DESIGNS, made.NOISES)
    rows = [simulate(name, noise, rounds) for noise in noises for name in designs]
    return {"rows": rows, "sets": rounds, "resamples": RESAMPLES}


def text(a: dict) -> str:
    """A line for each design and noise."""
    lines = [
        f"{a['sets']} sets a design, {a['resamples']} resamples; the run inside its 95% interval"
    ]
    for r in a["rows"]:
        cells = [
            f"x{k}: {v['inside']:.1%} of {v['predicted']} (+-{v['half_width']:.2%} of the loss;"
            f" mean {v['mean_inside']:.1%})"
            for k, v in r["distances"].items()
        ]
        lines.append(f"{r['design']}, {r['noise']}: {', '.join(cells)}; {r['cpu_s']:.0f} CPU s")
    return "\n".join(lines)
