"""The default fit against a scipy loop over the same resamples and starts, and against the full
grid of 4,500 starts.

The 240 points are those of Besiroglu et al. 2024 if `isoflop reproduce besiroglu2024` has fetched
them, else simulated ones of the same shape; the answer says which. CPU-seconds of this process, all
threads: run it under OPENBLAS_NUM_THREADS=1, or BLAS threads that wait for each other are charged
to scipy.
"""

import itertools
import os
import time

import numpy as np

from experiments.benchmarks import coverage
from experiments.laws.fitting import bootstrap, fit, solve, start_points
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.published import sources
from experiments.laws.published.reproductions import besiroglu2024
from experiments.laws.runs import table as tables

# Besiroglu et al. 2024: log E, log A, log B, alpha, beta
GRID = np.array(
    list(
        itertools.product(
            np.arange(-1, 1.5, 0.5),
            np.arange(0, 30, 5),
            np.arange(0, 30, 5),
            np.arange(0, 2.5, 0.5),
            np.arange(0, 2.5, 0.5),
        )
    )
)


def points() -> tuple[dict, np.ndarray, str]:
    s = sources.SOURCES["besiroglu2024"]
    path = os.environ.get("ISOFLOP_POINTS") or os.path.join(
        sources.cache(), f"besiroglu2024-{s.commit[:12]}", s.file
    )
    if os.path.exists(path):
        t = tables.where(sources.load("besiroglu2024", path)[0], "is_outlier==0")
        return (
            {"N": t["n_params"], "D": t["flops"] / (6 * t["n_params"])},
            t["loss"],
            "the runs of Besiroglu et al. 2024",
        )
    x = coverage.isoflop_design(np.geomspace(1e18, 1e22, 12), 20, 8.0)
    form = FORMS["chinchilla3"]
    noise = np.exp(0.006 * np.random.default_rng(0).standard_t(4, 240))
    return x, solve.predict(form, form.theta(**coverage.TRUTH), x)[0] * noise, "240 simulated runs"


def _full_grid(x, y, counts) -> np.ndarray:
    """Least objective of the 4,500 starts, per resample: 40 steps from every start, then the 50
    best to convergence.
    """
    form, best = FORMS["chinchilla3"], []
    starts = np.clip(GRID, *form.bounds).reshape(45, 100, 5)
    for w in counts:
        theta, value, _ = solve.run(
            form, x, y, np.repeat(w[None], 45, 0), starts, solve.DEFAULT, 40
        )
        first = theta.reshape(-1, 5)[
            np.argsort(np.where(np.isfinite(value), value, np.inf).reshape(-1))[:50]
        ]
        best.append(np.nanmin(solve.run(form, x, y, w, first, solve.DEFAULT, 400)[1]))
    return np.array(best)


def measure(scale: str, rounds: int) -> dict:
    """Figures of one machine: medians over `rounds`, contenders alternating."""
    resamples, checked, looped, whole = (1000, 100, 40, 1) if scale == "full" else (40, 2, 1, 0)
    x, y, which = points()
    ours, theirs, compile_s = [], [], 0.0
    counts = bootstrap.case_counts(
        None, len(y), resamples, np.random.default_rng(0)
    )  # the resamples of seed 0
    starts = start_points.ranked(
        FORMS["chinchilla3"], x, y, np.ones(len(y)), solve.DEFAULT, fit.STARTS
    )
    for k in range(rounds):
        t = time.process_time()
        f = fit.fit("chinchilla3", Points(x, y), resamples=resamples)
        ours.append(time.process_time() - t)
        if k == 0:
            t = time.process_time()
            f = fit.fit("chinchilla3", Points(x, y), resamples=resamples)
            compile_s, ours[0] = ours[0] - (time.process_time() - t), time.process_time() - t
        loop = []
        for w in counts[:looped]:
            t = time.process_time()
            loop.append([besiroglu2024.scipy_huber(x, y, s, False, True, w).fun for s in starts])
            theirs.append(time.process_time() - t)
    value = np.array(
        [
            float(solve.DEFAULT.value(np.log(p) - np.log(y), w))
            for p, w in zip(solve.predict(f.form, f.draws, x), counts)
        ]
    )
    t = time.process_time()
    grid = _full_grid(x, y, counts[:checked])
    grid_s = time.process_time() - t
    reached = int((value[:checked] <= grid * (1 + 1e-4)).sum())
    t = time.process_time()
    full = [
        min(besiroglu2024.scipy_huber(x, y, s, False, True, w).fun for s in GRID)
        for w in counts[:whole]
    ]
    full_s = time.process_time() - t
    mine, his = float(np.median(ours)), float(np.median(theirs))
    return {
        "points": which,
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
        "resamples": resamples,
        "starts": fit.STARTS,
        "fit_cpu_s": mine + compile_s,
        "compile_cpu_s": compile_s,
        "cpu_ms_per_resample": 1e3 * mine / resamples,
        "scipy_cpu_ms_per_resample": 1e3 * his,
        "scipy_resamples_timed": looped,
        "ratio": his * resamples / mine,
        "scipy_starts_at_optimum": float(
            np.mean([np.array(v) <= value[i] * (1 + 1e-4) for i, v in enumerate(loop)])
        ),
        "full_grid": {
            "resamples": checked,
            "reached": reached,
            "worst_excess": float((value[:checked] / grid - 1).max()),
            "cpu_s": grid_s,
        },
        "scipy_full_grid": {
            "resamples": whole,
            "cpu_s_each": full_s / max(1, whole),
            "worst_excess": max([float(value[i] / v - 1) for i, v in enumerate(full)], default=0.0),
        },
    }


def text(a: dict) -> str:
    g, s = a["full_grid"], a["scipy_full_grid"]
    lines = [
        (
            f"{a['points']}; chinchilla3, sum of Huber 1e-3 on log loss, {a['starts']} ranked"
            " starts of every resample"
        ),
        (
            f"{a['resamples']} resamples: {a['fit_cpu_s']:.1f} CPU-s, of which"
            f" {a['compile_cpu_s']:.1f} compilation; {a['cpu_ms_per_resample']:.2f} ms a resample"
        ),
        (
            f"scipy L-BFGS-B, exact gradient, tolerance 1e-14, BLAS threads {a['blas_threads']},"
            f" the same resamples and starts: {a['scipy_cpu_ms_per_resample']:.0f} ms a resample"
        ),
        (
            f"  ({a['scipy_resamples_timed']} timed), {a['scipy_starts_at_optimum']:.0%} of its"
            f" starts at the optimum; ratio {a['ratio']:.0f}"
        ),
        (
            f"full grid of {len(GRID)} starts, {g['resamples']} resamples, {g['cpu_s']:.0f} CPU-s:"
            f" its optimum reached in {g['reached']} (worst excess {g['worst_excess']:.1e})"
        ),
    ]
    if s["resamples"]:
        lines.append(
            f"the full grid by scipy, {s['resamples']} resample: {s['cpu_s_each']:.0f} CPU-s,"
            f" excess of the fit over it {s['worst_excess']:+.1e}"
        )
    return "\n".join(lines)
