"""Intervals and verdicts on made-up runs: outliers, uneven noise, wide slices, what was asked."""

import ast
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks import simulated_runs as made
from experiments.laws import procedures, table_fit
from experiments.laws.fitting import (
    bootstrap,
    fit,
    precision,
    residual_noise,
    slice_curves,
    verdicts,
)
from experiments.laws.fitting.solve import Objective
from tests.laws.tables_of_runs import call, write_csv

GRID = made.DESIGNS["6 budgets x 7 sizes"]
OWN = Objective(own=True)


def losses(design, noise="even", seed=0):
    return made.drawn(made.chinchilla(design.n, design.d), design.n, noise, seed)


def fitted(design, loss, objective=OWN, resamples=0, method="noise"):
    points = fit.Points({"N": design.n, "D": design.d}, loss)
    return fit.fit("chinchilla3", points, objective, resamples, 0, method)


def table(design, loss):
    return {"n_params": design.n, "tokens": design.d, "flops": design.c, "loss": loss}


def test_the_truth_is_made_apart_from_the_code_that_fits():
    tree = ast.parse(pathlib.Path(made.__file__).read_text())
    names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert set(names) == {"typing", "numpy"}


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-6, 1e3), st.integers(0, 1000))
def test_scale_is_that_of_most_residuals(sigma, seed):
    r = sigma * np.random.default_rng(seed).standard_normal(400)
    even = residual_noise.scale(r, 5)
    assert even == pytest.approx(sigma, rel=0.15)
    r[:20] = 50 * sigma
    assert residual_noise.scale(r, 5) == pytest.approx(even, rel=0.2)


def test_a_growth_is_seen_where_it_is_and_not_elsewhere():
    rng, n = np.random.default_rng(0), np.geomspace(1e7, 1e10, 60)
    shown = [
        [
            residual_noise.uneven(rng.standard_normal(60) * n**k, {"N": n}, 55).shown
            for _ in range(60)
        ]
        for k in (-0.35, 0.0)
    ]
    assert np.mean(shown[0]) > 0.9 and np.mean(shown[1]) < 0.05
    found = residual_noise.uneven(rng.standard_normal(60) * n**-0.35, {"N": n}, 55)
    assert found.growth == pytest.approx(-0.35, abs=3 * found.error)
    # one outlier among few runs is no growth
    few = rng.standard_normal(15)
    few[0] = 30
    assert not residual_noise.uneven(few, {"N": n[:15]}, 10).shown


def test_delta_follows_the_residuals_and_stays_where_it_is_fixed():
    loss = losses(GRID)
    f, fixed = fitted(GRID, loss), fitted(GRID, loss, Objective())
    assert 0.5 < f.objective.delta / (1.345 * made.SIGMA) < 2 and "own scale" in str(f.objective)
    assert fixed.objective.delta == 1e-3 and "own scale" not in str(fixed.objective)
    assert table_fit.objective("huber").own and not table_fit.objective("huber:1e-3").own
    # scipy's objective at the same delta has no better place nearby
    for shift in np.eye(5) * 1e-2:
        theta = f.theta + shift
        e, a, b, alpha, beta = theta
        curve = np.exp(e) + np.exp(a - alpha * np.log(GRID.n)) + np.exp(b - beta * np.log(GRID.d))
        assert f.objective.value(np.log(curve / loss), f.points.w) >= f.value * (1 - 1e-6)


def test_uneven_noise_gets_weights():
    """Small models are the noisier ones: they count less, and the exponent of D comes out better
    known than from equal weights.
    """
    f = fitted(GRID, losses(GRID, "uneven", 3), resamples=60)
    assert f.noise.shown and f.noise.growth < 0 and "noise goes as" in str(f.noise)
    assert f.points.w[GRID.n < 1e8].mean() < f.points.w[GRID.n > 1e9].mean() / 3


def test_outliers_do_not_widen_an_interval():
    """5% of the runs 3% too high, ten times the noise: intervals stay about as wide as without."""

    def width(noise, seed):
        low, high = fitted(GRID, losses(GRID, noise, seed), resamples=100).intervals()["n_exponent"]
        return high - low

    ratio = [width("outliers", s) / width("even", s) for s in range(6)]
    assert 0.7 < np.median(ratio) < 1.5, ratio


def test_noise_is_drawn_with_its_outliers():
    rng, r = np.random.default_rng(0), np.random.default_rng(1).standard_normal(100)
    r[:5] = 20.0
    e = residual_noise.source(r, 0, None, np.ones(100)).draw(rng, 400)
    assert (np.abs(e) > 10).mean() == pytest.approx(0.05, abs=0.01)
    assert np.median(np.abs(e)) == pytest.approx(0.6745, rel=0.15)


def test_intervals_are_corrected_for_their_draws_bias():
    draws = np.random.default_rng(0).standard_normal(2000)
    plain = bootstrap.interval(draws)
    assert bootstrap.interval(draws, centre=float(np.median(draws))) == pytest.approx(
        plain, abs=0.1
    )
    low, high = bootstrap.interval(draws, centre=-0.3)  # draws run high: the interval goes down
    assert low < plain[0] - 0.2 and high < plain[1] - 0.2
    half = bootstrap.interval(draws, 0.5)
    assert plain[0] < half[0] < half[1] < plain[1]


def test_verdicts_name_the_threshold():
    assert precision.of("n_exponent", 0.5, [0.48, 0.52]).words == "known to +-0.02; asked: 0.05"
    assert precision.of("n_opt", 1e9, [0.5e9, 1.9e9]).word == "open"
    assert precision.of("loss", 2.0, [1.981, 2.019]).word == "borderline"
    assert precision.of("n_opt", 1e9, None).word == "open" and precision.of("E", 1, [0, 2]) is None
    line = made.DESIGNS["60 runs, D = 20 N"]
    v = verdicts.read(fitted(line, losses(line, "even", 4), resamples=60, method="cases"))
    assert not v["identified"] and v["asked"]["n_exponent"]["verdict"] == "open"
    assert "n_exponent" in v["words"] and "asked: 0.05" in v["words"]
    v = verdicts.read(fitted(GRID, losses(GRID), resamples=60))
    assert v["identified"] and v["words"].startswith("identified; n_exponent known to +-0.0")


def test_one_start_that_stops_early_is_no_alarm(monkeypatch):
    """Starts at the optimum of which one has converged are enough."""
    run = fit.solve.run

    def early(*a, **k):
        theta, value, ok = run(*a, **k)
        best = np.unravel_index(np.argmin(value), value.shape)
        ok = ok.copy()
        ok[best] = False
        return theta, value, ok

    monkeypatch.setattr(fit.solve, "run", early)
    assert fitted(GRID, losses(GRID), Objective()).converged


def test_slices_match_polyfit_and_shrug_off_an_outlier():
    rng, z = np.random.default_rng(0), np.linspace(-1.4, 1.4, 9)
    n = [1e8 * np.exp(z), 1e9 * np.exp(z[:7])]
    y = [2 + 0.1 * (np.log(v / v[4]) - 0.1) ** 2 + 1e-4 * rng.standard_normal(len(v)) for v in n]
    s = slice_curves.slices(n, y)
    f = slice_curves.fit(s)
    at = f.curves.vertex(s.low, s.high)[0][0] + s.middle
    for v, loss, found in zip(n, y, at):
        c2, c1, _ = np.polyfit(np.log(v), loss, 2)
        assert found == pytest.approx(-c1 / (2 * c2), abs=0.02)
    y[0][0] += 0.05  # at an end, where it has the most leverage
    moved = slice_curves.fit(slice_curves.slices(n, y)).curves.vertex(s.low, s.high)[0][0]
    assert moved == pytest.approx(at - s.middle, abs=0.02)


def test_wide_slices_get_a_cubic_and_a_warning(tmp_path, capsys):
    """Sizes x/: 16: a parabola is 5% off in N_opt, what is taken instead less than 2%."""
    wide = made.DESIGNS["6 x 7, sizes x/: 16"]
    clean = made.chinchilla(wide.n, wide.d)
    o = procedures.parabolas(table(wide, clean), resamples=20)
    ratio = [m["n_opt"] / made.split(m["flops"])[0] for m in o.details["minima"]]
    assert np.abs(np.log(ratio)).max() < 0.02 and o.details["shape"] != "parabola"
    c2, c1, _ = np.polyfit(np.log(wide.n[:7]), clean[:7], 2)
    assert np.exp(-c1 / (2 * c2)) / made.split(1e18)[0] > 1.03
    path = write_csv(tmp_path / "a.csv", table(wide, losses(wide)))
    status, out, _ = call(
        capsys, "fit", f"--runs={path}", "--law=chinchilla2", "--level=80,50", "--bootstrap=40"
    )
    assert status == 0 and "warning: parabolas do not fit" in out and "; 80% [" in out
    assert call(capsys, "fit", f"--runs={path}", "--level=200")[0] == 2


def test_minima_outside_of_the_sizes_are_refused():
    for seed in range(10):
        with pytest.raises(fit.FitError, match="interior minimum"):
            loss = losses(made.OUTSIDE, "even", seed)
            procedures.parabolas(table(made.OUTSIDE, loss), resamples=40)
