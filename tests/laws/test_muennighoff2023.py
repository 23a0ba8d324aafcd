"""The data-constrained law in two stages: made runs of known truth, and the authors' own where
they are at hand.
"""

import json
import os

import numpy as np
import pytest

from experiments.laws.fitting import solve
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.published import reproduce, sources
from experiments.laws.published.reproductions import muennighoff2023 as stages
from experiments.laws.runs import table as tables
from tests.laws.tables_of_runs import PUBLISHED, call

NAME = "muennighoff2023"
TRUTH = stages.natural(stages.HELD) | {"RD": 15.4, "RN": 5.3}
# the authors' file as isoflop reproduce has fetched it, or laid beside the other published runs
PLACES = (os.path.expanduser("~/.cache/isoflop/published"), sources.cache(), PUBLISHED)
FILE = next(
    (
        path
        for place in PLACES
        for path in (
            os.path.join(
                place, f"{NAME}-{sources.SOURCES[NAME].commit[:12]}", "parametric_fit.ipynb"
            ),
            os.path.join(place, "parametric_fit.ipynb"),
        )
        if os.path.exists(path)
    ),
    "",
)


def made_runs(sigma=0.0, seed=0):
    """Rows (name, N, D, U, loss) of TRUTH: small and large models, up to 60 epochs."""
    rng = np.random.default_rng(seed)
    n, u = 10 ** rng.uniform(7, 9.8, 120), 10 ** rng.uniform(8, 10.5, 120)
    d = u * np.exp(rng.uniform(0, np.log(60), 120))
    d[:20] = u[:20]
    form = FORMS[NAME]
    loss = solve.predict(form, form.theta(**TRUTH), {"N": n, "D": d, "U": u})[0]
    loss = loss * np.exp(sigma * rng.standard_normal(120))
    return [(f"r{i}", *row) for i, row in enumerate(zip(n, d, u, loss))]


def notebook(path, rows):
    """A file as the authors' is: two cells that print their runs, in units and in billions."""
    cells = [{"outputs": []} for _ in range(27)]
    for index, unit in ((2, 1.0), (26, 1e9)):
        lines = [f"{k} {n / unit!r} {d / unit!r} {u / unit!r} {x!r}" for k, n, d, u, x in rows]
        text = "\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n"
        cells[index]["outputs"] = [{"text": ["1b25\n"]}, {"text": text.splitlines(True)}]
    path.write_text(json.dumps({"cells": cells}))
    return str(path)


def test_made_runs_give_their_truth_back(tmp_path):
    path = notebook(tmp_path / "made.ipynb", made_runs())
    t, source = sources.load(NAME, path)
    assert "NOT the pinned file" in source["how"] and sum(t["stage"] == 2) == 120
    first = t["stage"] == 1
    assert 20 <= sum(first) < 120 and max(t["tokens"][first] / t["unique_tokens"][first]) <= 2.5
    rows, drawn = reproduce.run(NAME, t, 20)
    by = {r.what: r for r in rows}
    assert drawn["fit"].form.names == ("RD", "RN")  # five are held
    assert by["  R_D*, at most 1e6"].reproduced == pytest.approx(15.4, rel=1e-4)
    assert drawn["stops"] == pytest.approx((15.4, 5.3), rel=1e-3)  # the authors' search
    assert by["second stage: runs"].agrees is False  # 120 are not their 182
    again, how = sources.load(NAME, _csv(tmp_path, t))
    assert "common layout" in how["how"] and again["loss"] == pytest.approx(t["loss"])


def _csv(folder, t):
    from tests.laws.tables_of_runs import write_csv

    return write_csv(folder / "made.csv", t)


def test_the_objective_is_that_of_the_law_and_its_slopes_are_its_own():
    rows = made_runs(0.02)
    t = dict(
        zip(("n_params", "tokens", "unique_tokens", "loss"), np.array([r[1:] for r in rows]).T)
    )
    second = stages.Second(stages.natural(stages.HELD), t)
    form, x = FORMS[NAME], {"N": t["n_params"], "D": t["tokens"], "U": t["unique_tokens"]}
    for rd, rn in ((15.4, 5.3), (3.0, 0.5), (400.0, 30.0)):
        fitted = solve.predict(form, form.theta(**TRUTH | {"RD": rd, "RN": rn}), x)[0]
        r, slopes = second.residuals(rd, rn)
        assert r == pytest.approx(np.log(fitted / t["loss"]), abs=1e-12)
        h = 1e-5
        by_hand = (second.residuals(rd + h, rn)[0] - second.residuals(rd - h, rn)[0]) / (2 * h)
        assert slopes[0] == pytest.approx(by_hand, rel=1e-3, abs=1e-9)
        by_hand = (second.residuals(rd, rn + h)[0] - second.residuals(rd, rn - h)[0]) / (2 * h)
        assert slopes[1] == pytest.approx(by_hand, rel=1e-3, abs=1e-9)


@pytest.mark.skipif(not FILE, reason="the authors' notebook is not at hand")
def test_the_authors_objective_and_a_lower_one(capsys, tmp_path):
    t, source = sources.load(NAME, FILE)
    assert source["how"].endswith("as pinned")
    rows, drawn = reproduce.run(NAME, t, 20)
    judged = [r for r in rows if r.agrees is not None]
    assert len(judged) == 11 and all(r.agrees for r in judged), [r for r in judged if not r.agrees]
    assert drawn["fit"].value == pytest.approx(0.0158046625, rel=1e-6)
    assert drawn["fit"].parameters["RD"] == pytest.approx(95.4, abs=0.1)
    figure = tmp_path / "m.svg"
    argv = ("reproduce", NAME, f"--data={FILE}", f"--figure={figure}", "--bootstrap=20")
    status, out, _ = call(capsys, *argv)
    assert status == 0 and "11 rows agree, 0 differ" in out
    assert "as printed" in figure.read_text() and tables.where(t, "stage==2")["loss"].size == 182
