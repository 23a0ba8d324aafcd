"""Laws compete by what they predict of larger budgets."""

import dataclasses

import numpy as np
import pytest

from experiments import recipes
from experiments.laws import sweep_analysis
from experiments.laws.comparisons import rollouts
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import predict
from experiments.report.sections import rollouts as section
from tests.laws.tables_of_runs import TRUTH
from tests.verbs.made_up_sweeps import results_of

KAPLAN = {"alpha_N": 0.09, "alpha_D": 0.12, "Nc": 1e13, "Dc": 1e13}


def points(law, values, budgets=7, sigma=0.0, tokens=False):
    rng = np.random.default_rng(0)
    c = np.repeat(np.geomspace(1e17, 1e21, budgets), 5)
    n = np.sqrt(c / 6 / 20) * np.tile(np.geomspace(0.3, 3, 5), budgets)
    d = c / 6 / n
    form = FORMS[law]
    loss = predict(form, form.theta(**values), {"N": n, "D": d})[0]
    loss = loss * np.exp(sigma * rng.standard_normal(len(c)))
    keys = ("n", "d", "c", "loss", "budget")
    rows = [dict(zip(keys, map(float, row))) for row in zip(n, d, c, loss, c)]
    return [{**r, "budget": None} for r in rows] if tokens else rows


def test_the_law_of_the_runs_wins():
    """Of runs without noise the true law is exact, and the others are not."""
    r = rollouts.rollouts(points("chinchilla3", TRUTH))
    assert r["best"] == "chinchilla3" and r["laws"]["chinchilla3"]["scored"] < 1e-6
    assert r["laws"]["kaplan_nd"]["scored"] > 1e-3 and r["laws"]["power_floor"]["scored"] > 1e-6
    assert len(r["below"]) == 5 and r["shared"] == 3  # power_floor needs four budgets
    first = r["laws"]["power_floor"]["rollouts"]
    assert first[:2] == [None, None] and first[2]["n_fit"] == 4 and first[2]["n_test"] == 3
    needs = "has 3 parameters: it takes 4 budgets to fit it and one above them, 5 in all"
    assert needs in r["laws"]["power_floor"]["why"] and "not fitted" not in r["words"]
    for budgets in (3, 4, 5):
        few = rollouts.rollouts(points("chinchilla3", TRUTH, budgets))
        assert (f"{needs} (these runs have {budgets})" in few["words"]) == (budgets < 5)
        assert (few["laws"]["power_floor"]["scored"] is None) == (budgets < 5)
    assert r["words"].startswith("chinchilla3 extrapolates best here: off by chinchilla3 0.00%")
    k = rollouts.rollouts(points("kaplan_nd", KAPLAN))
    assert k["best"] == "kaplan_nd" and k["laws"]["kaplan_nd"]["scored"] < 1e-6


def test_the_best_run_above_is_what_is_tested():
    rows = points("chinchilla3", TRUTH, 4)
    top = max(r["c"] for r in rows)
    least = min(r["loss"] for r in rows if r["c"] == top)
    for r in rows:
        if r["c"] == top and r["loss"] > least:
            r["loss"] *= 3  # runs that are not the best of their budget
    assert rollouts.rollouts(rows)["laws"]["chinchilla3"]["scored"] < 1e-6
    for r in rows:
        r["loss"] *= 1.1 if r["c"] == top else 1
    errors = rollouts.rollouts(rows)["laws"]["chinchilla3"]["rollouts"]
    assert errors[1]["error"] == pytest.approx(0.1 / 1.1, rel=1e-4) and errors[1]["bias"] < 0
    assert errors[0]["error"] == pytest.approx(0.05 / 1.1, rel=1e-4)  # two budgets above


def test_few_groups_and_grids_of_tokens():
    assert rollouts.rollouts(points("chinchilla3", TRUTH, 2)) is None
    r = rollouts.rollouts(points("chinchilla3", TRUTH, 6, tokens=True))
    assert len(r["below"]) == 4 and r["laws"]["chinchilla3"]["scored"] < 1e-5


def test_every_report_says_it():
    job = recipes.load("quickstart")
    a = sweep_analysis.analyse(results_of(job), resamples=20)
    assert set(a["rollouts"]) == {"dense", "moe"}
    html = section.section([], {}, a)
    assert "<svg" in html and "extrapolates best here" in html and "where it was not fitted" in html
    one = dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, budgets=(1e11,)))
    a = sweep_analysis.analyse(results_of(one), resamples=20)
    assert set(a["rollouts"].values()) == {None}
    assert "Rollouts need three budgets" in section.section([], {}, a)


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_too_few_runs_have_no_rollouts(count):
    assert rollouts.rollouts(points("chinchilla3", TRUTH, tokens=True)[:count]) is None
