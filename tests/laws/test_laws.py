"""Fits against known truth and against published runs; the error bars against simulated sweeps."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.laws import parametric, sweep_analysis
from experiments.laws.fitting import bootstrap, fit, isoflop
from experiments.laws.runs import points
from tests.conftest import ROOT

CHINCHILLA = os.path.join(os.path.dirname(ROOT), "shared", "published", "chinchilla_fig4.csv")


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 2), st.floats(9, 12), st.floats(0.5, 3))
def test_parabola_recovers_its_vertex(c2, vertex, floor):
    n = np.exp(vertex + np.array([-1.3, -0.6, 0.2, 0.9, 1.4]))
    loss = floor + c2 * (np.log(n) - vertex) ** 2
    q = isoflop.parabola(n, 1e9 / n, loss, 6e9)
    assert (
        q.interior
        and math.log(q.n_opt) == pytest.approx(vertex, abs=1e-6)
        and q.loss_opt == pytest.approx(floor, abs=1e-8)
    )
    assert q.d_opt == pytest.approx(1e9 / q.n_opt, rel=1e-6)


@pytest.mark.parametrize(
    "loss", [[5, 4, 3, 2, 1.0], [1, 2, 3, 4, 5.0], [1, 2, 2.5, 2, 1.0], [3, 2, 1.9, 1.85, 1.84]]
)
def test_no_interior_minimum_is_said(loss):
    n = np.geomspace(1e4, 1e6, 5)
    assert not isoflop.parabola(n, 1 / n, loss, 1.0).interior


def test_too_few_sizes():
    with pytest.raises(fit.FitError, match="three sizes"):
        isoflop.parabola([1e4, 1e5], [1, 1], [2, 3], 1e12)


def truth(n, d, e=1.7, a=400.0, b=400.0, alpha=0.34, beta=0.28):
    return e + a / n**alpha + b / d**beta


def design():
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    return n, d


def record(family, size, budget, n, d, loss, seed=0, role="grid", lr=1.0, status="finished"):
    flops = 6 * n * d
    return {
        "id": f"{family}{size}{budget:g}{seed}{lr}",
        "family": family,
        "status": status,
        "tags": {"size": size, "budget": budget, "role": role, "lr_multiplier": lr},
        "run": {"seed": seed},
        "parameters": {"multiplied": n, "total": n},
        "training_tokens": d,
        "flops": {"matmul": flops},
        "validation": {"loss": loss},
        "steps": 1000,
    }


def simulated(sigma, seed, budgets=(1e11, 2e11, 4e11), sizes=(0.3, 0.55, 1, 1.8, 3.3)):
    """A sweep whose true N_opt is 30 x (C / 1e9)^0.5 thousand."""
    rng, out = np.random.default_rng(seed), []
    for family in ("dense", "moe"):
        for c in budgets:
            for i, s in enumerate(sizes):
                n = 2e4 * s
                best = 2e4 * (c / 2e11) ** 0.5
                loss = (
                    2
                    - 0.1 * math.log(c / 1e11)
                    + 0.1 * math.log(n / best) ** 2
                    - 0.05 * (family == "moe")
                )
                out.append(record(family, i, c, n, c / 6 / n, loss + sigma * rng.normal()))
        for k in (1, 2):
            out.append(
                record(
                    family,
                    2,
                    2e11,
                    2e4,
                    2e11 / 6 / 2e4,
                    2 - 0.1 * math.log(2) - 0.05 * (family == "moe") + sigma * rng.normal(),
                    seed=k,
                    role="replicate",
                )
            )
    return out


def test_analysis_recovers_exponents_and_gap():
    a = sweep_analysis.analyse(simulated(1e-5, 0), resamples=50)
    for f in a["families"].values():
        assert f["n_exponent"] == pytest.approx(0.5, abs=1e-3) and f["d_exponent"] == pytest.approx(
            0.5, abs=1e-3
        )
        assert all(q["interior"] for q in f["parabolas"]) and f["resamples_used"] == 50
    seeds = [g for g in a["gaps"] if g["seeds"] == 3]
    assert (
        len(seeds) == 1
        and seeds[0]["gap"] == pytest.approx(-0.05, abs=1e-3)
        and seeds[0]["interval"][0] < -0.05 < seeds[0]["interval"][1]
        or abs(seeds[0]["gap"] + 0.05) < 1e-4
    )
    assert all(e["difference"] == pytest.approx(-0.05, abs=1e-3) for e in a["equal_flops"])
    assert a == sweep_analysis.analyse(simulated(1e-5, 0), resamples=50)


def test_intervals_cover():
    """The true exponent lies in the 95% interval in at least 86% of 60 simulated sweeps (binomial
    slack), and noise is recovered.
    """
    hits, sigmas = 0, []
    for seed in range(60):
        own = [points.point(r) for r in simulated(0.01, seed) if r["family"] == "dense"]
        grid, replicates = ([p for p in own if (p["role"] == "grid") == g] for g in (True, False))
        a, _ = sweep_analysis._family(grid, replicates, [], 120, seed)
        low, high = a["n_exponent_interval"]
        hits += low <= 0.5 <= high
        sigmas.append(a["noise"]["sigma"])
    assert hits >= 52, hits
    assert np.sqrt(np.mean(np.square(sigmas))) == pytest.approx(0.01, rel=0.25)


def test_unidentified_laws_are_said_to_be():
    n = np.geomspace(1e8, 1.5e8, 12)
    rng = np.random.default_rng(1)
    points = [
        {
            "n": a,
            "d": 1e10 * a / 1e8,
            "c": 6e10 * a * a / 1e8,
            "loss": truth(a, 1e10 * a / 1e8) * (1 + 0.01 * rng.normal()),
        }
        for a in n
    ]
    p = parametric.fitted(points, None, 60, 0)
    assert p["verdict"].startswith("not identified by these runs") and not p["identified"]
    assert parametric.fitted(points[:5], None, 20, 0)["verdict"].startswith(
        "not identified by these runs: chinchilla3 has 5 parameters"
    )


def test_identified_law_is_said_to_be():
    n, d = design()
    points = [
        {"n": a, "d": b, "c": 6 * a * b, "loss": l}
        for a, b, l in zip(
            n, d, truth(n, d) * (1 + 1e-4 * np.random.default_rng(0).normal(size=n.size))
        )
    ]
    assert parametric.fitted(points, None, 30, 0)["verdict"].startswith("identified")


def test_brackets_pick_the_best_and_flag_edges():
    rows = [
        record("dense", s, 1e11, 2e4 * s, 1e6, 2 + abs(math.log2(lr) - best), lr=lr)
        for s, best in ((1, 0), (2, 2), (3, 0), (4, -2))
        for lr in (0.25, 1.0, 4.0)
    ]
    a = sweep_analysis.analyse(rows, resamples=20)
    assert {v["size"]: v["edge"] for v in a["learning_rates"]} == {
        1: False,
        2: True,
        3: False,
        4: True,
    }
    assert {v["best_multiplier"] for v in a["learning_rates"]} == {1.0, 4.0, 0.25} and all(
        v["trials"] == 3 for v in a["learning_rates"]
    )


def test_divergence_is_excluded_and_said():
    rows = simulated(0.001, 0)
    rows[0]["validation"]["loss"], rows[0]["status"] = None, "diverged"
    a = sweep_analysis.analyse(rows, resamples=20)
    assert any("diverged" in e["why"] for e in a["excluded"]) and a["n_points"] == len(rows) - 1
    with pytest.raises(fit.FitError, match="no finished run"):
        sweep_analysis.analyse(rows[:1])


def test_student_interval():
    mean, (low, high) = bootstrap.student([1.0, 2.0, 3.0])
    assert (
        mean == 2
        and high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
        and low == pytest.approx(4 - high)
    )
    assert bootstrap.student([1.0]) == (1.0, None)


def test_interval_counts_draws_without_an_answer():
    """They stand half beyond either end: a few widen the interval, many leave it without bound."""
    draws = list(np.linspace(0, 1, 1000))
    whole = bootstrap.interval(draws)
    assert whole == pytest.approx([0.025, 0.975], abs=2e-3)
    wider = bootstrap.interval(draws + [np.nan] * 20)
    assert wider[0] < whole[0] and wider[1] > whole[1]
    assert (
        bootstrap.interval(draws + [np.inf] * 80) is None
        and bootstrap.interval([np.nan] * 50) is None
    )
