"""`isoflop compare`: two made-up sets of runs whose ratio is known, pairs, and what cannot be
compared.
"""

import json

import numpy as np
import pytest

from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import predict
from tests.laws.tables_of_runs import TRUTH, call, write_csv
from tests.verbs.made_up_sweeps import written

LAW = {**TRUTH, "beta": TRUTH["alpha"], "B": 1500.0}


def runs(times=1.0, low=1e17, high=1e20, sigma=0.0, seed=0, budgets=6):
    """IsoFLOP runs whose every parameter is worth `times` as many, so that (alpha = beta) the same
    loss takes 1 / times the compute.
    """
    rng = np.random.default_rng([7, seed])
    c = np.repeat(np.geomspace(low, high, budgets), 7)
    n = np.sqrt(c / 6 / 20) * np.tile(np.geomspace(0.2, 5, 7), budgets)
    d = c / 6 / n
    form = FORMS["chinchilla3"]
    loss = predict(form, form.theta(**LAW), {"N": times * n, "D": d})[0]
    loss = loss * np.exp(sigma * rng.standard_normal(len(c)))
    return {"n_params": n, "tokens": d, "flops": c, "loss": loss}


def compared(capsys, a, b, *more):
    status, out, err = call(capsys, "compare", str(a), str(b), "--format=json", *more)
    assert status == 0, err
    return json.loads(out)


def test_a_known_ratio_is_recovered(tmp_path, capsys):
    """Arms of ratio 1.6, without and with noise; at equal sides there is no difference."""
    base = write_csv(tmp_path / "base.csv", runs())
    for sigma in (0.0, 0.003):
        better = write_csv(tmp_path / "b.csv", runs(1.6, sigma=sigma, seed=1))
        a = compared(capsys, base, better, "--bootstrap=60")
        assert len(a["curve"]) == 7
        for row in a["curve"]:
            near = {"abs": 5e-3 if not sigma else 0.25}
            assert row["multiplier"]["value"] == pytest.approx(1.6, **near)
            assert row["parameters"]["value"] == pytest.approx(1.6, **near)
            assert row["gap"]["value"] < 0
            if sigma:
                low, high = row["multiplier"]["interval"]
                assert low < 1.6 < high < 1.6 * 2 and low > 1.1
        assert "b.csv is the better buy" in a["words"] and "base.csv needs x1." in a["words"]
    back = compared(capsys, better, base, "--bootstrap=20")["curve"]
    assert back[3]["multiplier"]["value"] == pytest.approx(1 / 1.6, abs=0.12)
    same = write_csv(tmp_path / "same.csv", runs(1.0, sigma=0.003, seed=2))
    noisy = write_csv(tmp_path / "noisy.csv", runs(1.0, sigma=0.003, seed=3))
    said = compared(capsys, same, noisy, "--bootstrap=60")
    assert "cannot be told apart" in said["words"]


@pytest.mark.slow
def test_the_band_holds_the_ratio():
    """Forty pairs of noisy sets: the 95% interval of the multiplier at the middle budget."""
    from experiments.laws import two_tables
    from experiments.laws.comparisons import two_sides

    inside = 0
    for seed in range(40):
        a, b = (
            two_tables.side(
                *("x", runs(t, sigma=0.003, seed=2 * seed + k), "chinchilla3", "", ""),
                *(100, 2 * seed + k),
            )
            for k, t in enumerate((1.0, 1.6))
        )
        low, high = two_sides.curves(a, b)[3]["multiplier"]["interval"]
        inside += low <= 1.6 <= high
    assert inside >= 35, inside


def test_frontiers_alone(tmp_path, capsys):
    """Without N and D: each side's power law of C."""
    c = np.geomspace(1e17, 1e20, 9)
    paths = [
        write_csv(tmp_path / f"{k}.csv", {"flops": c, "loss": 1.7 + 900 / (times * c) ** 0.15})
        for k, times in (("a", 1.0), ("b", 2.0))
    ]
    a = compared(capsys, *paths, "--law=power_floor", "--bootstrap=50")
    for row in a["curve"]:
        assert row["multiplier"]["value"] == pytest.approx(2, rel=0.02) and "parameters" not in row
    text = call(capsys, "compare", *paths, "--law=power_floor", "--bootstrap=50")[1]
    assert "compute multiplier" in text and "no runs are pairs" in text


def test_two_arms_of_a_sweep_seed_by_seed(tmp_path, capsys):
    from experiments import recipes

    work = written(tmp_path, recipes.load("isoflop"))
    a = compared(capsys, f"{work}:dense", f"{work}:moe", "--bootstrap=50")
    status, _, err = call(capsys, "compare", f"{work}:dense", f"{work}:moe", "--c=none")
    assert status == 2 and "--c=none: the records of a sweep count matmul" in err
    assert "has dense, moe" in call(capsys, "compare", f"{work}:dense", f"{work}:mow")[2]
    every = a["paired"][-1]
    assert every["size"] == "all" and every["pairs"] == 22
    low, high = every["interval"]
    assert low < every["gap"] < high and every["gap"] == pytest.approx(-0.05, abs=0.02)
    (cell,) = [r for r in a["paired"][:-1] if r["pairs"] == 3]
    assert cell["size"] == 32
    text = call(capsys, "compare", f"{work}:dense", f"{work}:moe", "--bootstrap=50")[1]
    assert "22 pairs of equal size, budget and seed" in text and "3 seeds" in text


def test_what_cannot_be_compared(tmp_path, capsys):
    one = write_csv(tmp_path / "one.csv", runs())
    far = write_csv(tmp_path / "far.csv", runs(low=1e21, high=1e23))
    few = write_csv(tmp_path / "few.csv", {k: v[:4] for k, v in runs().items()})
    named = {**runs(), "corpus": np.array(["web"] * 42, object)}
    web = write_csv(tmp_path / "web.csv", named)
    code = write_csv(tmp_path / "code.csv", {**named, "corpus": np.array(["code"] * 42, object)})
    bad = [
        ([one, far], "the runs do not overlap in compute"),
        ([one, few], "5 parameters, 4 runs cannot fit it"),
        ([one], "name two sweeps"),
        ([one, one], "is given twice"),
        ([one, f"{far}.none"], "does not exist"),
        ([one, f"{far}:moe"], "no column family"),
        ([web, code], "the corpus differs"),
        ([one, far, "--law=clark2022"], "choose from chinchilla3"),
    ]
    for argv, words in bad:
        status, out, err = call(capsys, "compare", *argv, "--bootstrap=20")
        assert status == 2 and out == "" and err.count("\n") == 1 and words in err, (argv, err)
    assert compared(capsys, web, code, "--pool=corpus", "--bootstrap=20")["curve"]
