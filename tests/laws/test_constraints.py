"""What is known before a fit: fixed, tied and bounded parameters, weights, an asymmetric loss, and
fits of fewer points than a resample can use.
"""

import json

import numpy as np
import pytest

from experiments.laws import table_fit
from experiments.laws.fitting import constraints, fit, lack_of_fit, solve, start_points, verdicts
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from tests.laws.tables_of_runs import TRUTH, call, simulated, write_csv

SPEC = Objective(own=True)


def natural(form):
    """A value of every parameter inside its box."""
    return {p.name: float(p.starts[0]) if p.starts else 1.7 for p in form.parameters}


@pytest.mark.parametrize("law", list(FORMS))
def test_every_law_can_be_held(law):
    """With a parameter fixed, or bounded, or an exponent tied, the law predicts what it did."""
    form, values = FORMS[law], natural(FORMS[law])
    exponents = [p.name for p in form.parameters if p.kind == "real" and p.unit == ""]
    x = {k: np.array([0.5, 0.25]) if k == "S" else np.array([8e2, 9e3]) for k in form.inputs}
    tie = exponents[:2] if len(exponents) > 1 else []
    if tie:
        values[tie[1]] = values[tie[0]]
    fixed = next(k for k in reversed(form.names) if k not in tie)
    limits = constraints.Limits(((fixed, values[fixed]),), (tuple(tie),) if tie else ())
    held = constraints.applied(form, law, limits)
    assert len(held.names) == len(form.names) - 1 - bool(tie)
    want = solve.predict(form, form.theta(**values), x)
    np.testing.assert_allclose(solve.predict(held, held.theta(**values), x), want, rtol=1e-12)
    found = solve.values(held, held.theta(**values))
    assert {k: float(found[k][0]) for k in form.names} == pytest.approx(values)


def test_a_known_floor_and_tied_exponents_by_scipy():
    """The optimum of the free parameters is scipy's, and what is fixed is taken as exact."""
    from scipy import optimize

    t = simulated(60, 0.01)
    x, y = {"N": t["n_params"], "D": t["tokens"]}, t["loss"]
    limits = constraints.read("E=1.8", "alpha=beta")
    form = constraints.applied(FORMS["chinchilla3"], "chinchilla3", limits)
    f = fit.fit("chinchilla3", Points(x, y), Objective("squared"), 40, form=form)

    def loss(v):
        a, b, k = v
        fitted = 1.8 + np.exp(a) / x["N"] ** k + np.exp(b) / x["D"] ** k
        return ((np.log(fitted) - np.log(y)) ** 2).sum()

    found = optimize.minimize(loss, [6, 7.5, 0.35], method="Nelder-Mead", tol=1e-14)
    assert f.value == pytest.approx(found.fun, rel=1e-5) and f.parameters["E"] == 1.8
    assert f.parameters["alpha"] == f.parameters["beta"] == pytest.approx(found.x[2], rel=1e-3)
    v = verdicts.read(f)
    assert "E fixed at 1.8, beta tied to alpha" in v["words"]
    assert "n_exponent is 0.5 by that alone" in v["words"] and "n_exponent" not in v["asked"]
    free = fit.fit("chinchilla3", Points(x, y), Objective("squared"), 40)
    held, wide = (np.ptp(g.intervals()["alpha"]) for g in (f, free))
    assert held < 0.5 * wide  # what is known makes the rest surer


def test_what_is_fixed_is_no_part_of_a_start():
    """With floor and exponents known, the linear parts of the one start are exact."""
    t = simulated(30, 0.0)
    x = {"N": t["n_params"], "D": t["tokens"]}
    limits = constraints.read(",".join(f"{k}={TRUTH[k]}" for k in ("E", "alpha", "beta")))
    form = constraints.applied(FORMS["chinchilla3"], "chinchilla3", limits)
    (start,) = start_points.grid(form, x, t["loss"])
    assert np.exp(start) == pytest.approx([TRUTH["A"], TRUTH["B"]], rel=1e-3)


def test_bounds_that_bind_are_told():
    t = simulated(40, 0.003)

    def asked(within=""):
        known = constraints.read(within=within)
        return table_fit.ask(t, "chinchilla3", SPEC, resamples=40, limits=known)

    a, wide, free = asked("alpha=.1:.2"), asked("alpha=.1:.9"), asked()
    assert a["parameters"]["alpha"] == pytest.approx(0.2)
    why = a["verdicts"]["not_identified"]["alpha"]
    assert why == "at the bound that --within gave" and "alpha within 0.1 to 0.2" in str(a)
    assert wide["parameters"] == pytest.approx(free["parameters"], rel=1e-3)


def test_five_are_fixed_and_two_fitted():
    """The two stages of a data-constrained law in one command."""
    values = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.35, "beta": 0.35, "RD": 15.0, "RN": 5}
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(8, 10, 30), 10 ** rng.uniform(10, 12, 30)
    x = {"N": n, "D": d, "U": d / rng.uniform(2, 60, 30)}
    form = FORMS["muennighoff2023"]
    y = solve.predict(form, form.theta(**values), x)[0]
    text = ",".join(f"{k}={values[k]}" for k in ("E", "A", "B", "alpha", "beta"))
    form = constraints.applied(form, "muennighoff2023", constraints.read(text))
    f = fit.fit("muennighoff2023", Points(x, y), Objective("squared"), form=form)
    assert f.form.names == ("RD", "RN") and f.parameters == pytest.approx(values, rel=1e-3)


def test_an_overestimate_costs_more():
    """Runs of which some were badly tuned: the curve is fitted from below, and says so."""
    t = simulated(60, 0.002)
    rng = np.random.default_rng(1)
    t["loss"] = t["loss"] * np.exp(np.where(rng.random(60) < 0.5, rng.exponential(0.03, 60), 0))
    x = {"N": np.array([1e9]), "D": np.array([1e11])}
    form, off = FORMS["chinchilla3"], {}
    truth = solve.predict(form, form.theta(**TRUTH), x)[0, 0]
    for penalty in (1.0, 10.0):
        spec = Objective("squared", penalty=penalty)
        pts = Points({"N": t["n_params"], "D": t["tokens"]}, t["loss"])
        f = fit.fit("chinchilla3", pts, spec, 60)
        off[penalty] = abs(f.predict(x)[0][0] / truth - 1)
        assert f.value == pytest.approx(float(spec.value(f.residuals)), rel=1e-9)
        for shift in np.eye(5) * 1e-3:  # no better neighbour
            r = np.log(solve.predict(form, f.theta + shift, pts.x)[0]) - np.log(pts.y)
            assert spec.value(r) >= f.value * (1 - 1e-9)
    rough = pts._replace(weights=np.geomspace(0.2, 3, 60))
    own = fit.fit("chinchilla3", rough, Objective(own=True, penalty=10.0))
    assert verdicts.gradient_norm(own) < 1e-6  # each point has a delta of its own
    assert off[10.0] < 0.4 * off[1.0] and verdicts.gradient_norm(f) < 1e-6
    said = verdicts.read(f)["words"]
    assert "overestimates count 10 times: the curve lies below the runs by 1." in said
    assert "not for the mean of the runs" in said and "overestimates x10" in str(f.objective)
    few = fit.fit(
        "chinchilla3",
        Points({k: v[:20] for k, v in pts.x.items()}, pts.y[:20]),
        spec,
        60,
        0,
        "noise",
    )
    low, high = solve.predict(form, few.draws, x)[:, 0].min(), few.predict(x)[1].max()
    assert low < few.predict(x)[0][0] < high


def test_weights_of_a_column(tmp_path, capsys):
    """A weight of two is a run that stands twice; weights of a word or zero are refused."""
    t = simulated(30, 0.01)
    twice = {k: np.concatenate([v, v[:10]]) for k, v in t.items()}
    t["w"] = np.where(np.arange(30) < 10, 2.0, 1.0)
    spec = Objective("squared")
    a = table_fit.ask(t, "chinchilla3", spec, resamples=20, weights="w")
    pts = Points({"N": twice["n_params"], "D": twice["tokens"]}, twice["loss"])
    want = fit.fit("chinchilla3", pts, spec).parameters
    assert a["parameters"]["alpha"] == pytest.approx(want["alpha"], rel=1e-5)
    assert a["weights"] == "column w"
    path = write_csv(tmp_path / "t.csv", {**t, "zero": np.zeros(30)})
    for column, words in (("zero", "weights are positive"), ("ww", "did you mean 'w'")):
        status, _, err = call(capsys, "fit", f"--runs={path}", f"--weights={column}")
        assert status == 2 and words in err, err


def power(c, sigma=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return (1.6 + 400 / c**0.15) * np.exp(sigma * rng.standard_normal(len(c)))


def test_three_points_and_two_free_parameters_are_a_fit(tmp_path, capsys):
    """Of a frontier with a pinned floor; the interval is Student's with one degree of freedom."""
    c = np.repeat(np.geomspace(1e16, 1e20, 3), 4)
    worse = np.tile([1.0, 1.02, 1.05, 1.01], 3)  # one run of each budget is on the frontier
    t = {"flops": c, "loss": power(c, 0.002)[::4].repeat(4) * worse}
    path = write_csv(tmp_path / "f.csv", t)
    argv = ["fit", f"--runs={path}", "--law=power_floor", "--frontier", "--format=json"]
    status, out, _ = call(capsys, *argv, "--fix=E=1.6")
    a = json.loads(out)
    assert status == 0 and a["n_points"] == 3 and "1 degree of freedom" in a["bootstrap"]["method"]
    assert a["left_out"][0]["what"] == "9 runs above the frontier"
    x, y = np.log(c[::4]), np.log(t["loss"][::4] - 1.6)
    assert a["parameters"]["alpha"] == pytest.approx(-np.polyfit(x, y, 1)[0], abs=0.005)
    assert a["intervals"]["E"] is None and a["verdicts"]["given"] == {"E": "fixed at 1.6"}
    text = call(capsys, *argv[:-1], "--fix=E=1.6")[1]
    assert "1.6 (fixed)" in text and "E fixed at 1.6; intervals take what is fixed" in text
    status, _, err = call(capsys, *argv)
    assert status == 2 and "3 parameters, 3 runs cannot fit it (--fix and --tie leave fewer)" in err


def test_the_t_intervals_hold_the_truth():
    """Three points, one degree of freedom: 95% of 100 sets."""
    form = constraints.applied(FORMS["power_floor"], "power_floor", constraints.read("E=1.6"))
    c, inside, pred = np.geomspace(1e16, 1e20, 3), 0, 0
    far = {"C": np.array([1e22])}
    for seed in range(100):
        pts = Points({"C": c}, power(c, 0.003, seed))
        f = fit.fit("power_floor", pts, Objective("squared"), 20, seed, "t", form=form)
        low, high = f.intervals()["alpha"]
        inside += low <= 0.15 <= high
        ends = np.quantile(f.predict(far)[1][:, 0], (0.025, 0.975))
        pred += ends[0] <= power(far["C"])[0] <= ends[1]
        assert f.draws.shape == (lack_of_fit.DRAWS, 2)
    assert 88 <= inside <= 100 and 88 <= pred <= 100, (inside, pred)


BAD = [
    (["--fix=F=1"], "chinchilla3 has no parameter 'F'"),
    (["--fix=alhpa=1"], "did you mean alpha?"),
    (["--fix=E"], "write NAME=..., such as --fix=E=1.6"),
    (["--fix=E=low"], "is no finite number"),
    (["--fix=E=-1"], "lies outside"),
    (["--fix=E=1,E=2"], "named twice"),
    (["--fix=E=1.6,A=1,B=1,alpha=.3,beta=.3"], "nothing is left to fit"),
    (["--tie=alpha=E"], "their units differ (alpha: none; E: nats/token)"),
    (["--tie=A=B"], "a prefactor's, which its exponent makes"),
    (["--tie=alpha=alpha"], "tied to itself"),
    (["--tie=alpha=beta", "--fix=beta=.3"], "beta is fixed"),
    (["--tie=alpha=gamma"], "no parameter 'gamma'"),
    (["--within=alpha=.6:.2"], "must be the smaller"),
    (["--within=alpha=.2"], "alpha=LOW:HIGH"),
    (["--within=alpha=.2:9"], "lies outside"),
    (["--within=E=1:2", "--fix=E=1.5"], "E is fixed, and has no bounds"),
    (["--overestimate_penalty=0"], "must be a positive number"),
    (["--law=chinchilla2", "--fix=E=1"], "is a procedure, not a formula"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, tmp_path, capsys):
    path = write_csv(tmp_path / "t.csv", simulated(12))
    status, out, err = call(capsys, "fit", f"--runs={path}", "--bootstrap=20", *argv)
    assert status == 2 and out == "" and err.count("\n") == 1 and words in err, err


def test_flags_of_a_law_want_one(tmp_path, capsys):
    assert (
        "--fix is read with --law" in call(capsys, "fit", f"--workdir={tmp_path}", "--fix=E=1")[2]
    )
