"""The critical batch of a made-up `batch` sweep is found again, and a plan chooses by it."""

import json
import os

import pytest

from experiments import recipes
from experiments.laws import sweep_analysis
from experiments.laws.comparisons import best_rates
from experiments.laws.fitting.law_forms import OVERHEAD
from experiments.planning import batches
from launch import files
from tests.verbs.made_up_sweeps import call, results_of

TRUTH = 2000  # tokens, at every size and length (made_up_sweeps.py)


@pytest.fixture(scope="module")
def found():
    return sweep_analysis.analyse(results_of(recipes.load("batch")), resamples=40)


def test_the_critical_batch_is_found_again(found):
    law = found["critical_batch"]
    assert len(law["cells"]) == 6 and law["left_out"] == 6
    for c in law["cells"]:
        assert c["interval"][0] < c["critical"] < c["interval"][1]
        if c["tokens"] > 50_000:
            assert c["critical"] == pytest.approx(TRUTH, rel=0.15)
            assert c["interval"][0] < 1.1 * TRUTH and c["interval"][1] > 0.9 * TRUTH
        assert c["allowed"] == pytest.approx(OVERHEAD * c["critical"])
    assert abs(law["parameters"]["b"]) < 0.2


def test_other_sweeps_have_no_law_of_the_batch():
    a = sweep_analysis.analyse(results_of(recipes.load("learning_rate")), resamples=20)
    assert not a["critical_batch"]


def test_a_plan_takes_the_batch_of_the_law(found, tmp_path, capsys):
    files.write_json(os.path.join(tmp_path, "analysis.json"), found)
    flags = ["plan", "--config=quickstart", f"--batch_law={tmp_path}", "--format=json"]
    p = {**found["critical_batch"]["parameters"]}
    n, d = batches.middle(recipes.load("quickstart"))
    allowed = OVERHEAD * p["k"] * (n / 1e6) ** p["a"] * (d / 1e9) ** p["b"]
    status, out, err = call(capsys, *flags)
    assert status == 0, err
    answer = json.loads(out)
    batch = answer["runs"][0]["batch"]
    assert batch * 128 <= allowed < 2 * batch * 128 or batch == 1
    said = [n for n in answer["notes"] if n.startswith("batch:")]
    assert len(said) == 1 and "--batch_law" in said[0] and "extrapolation" in said[0]
    assert f"--set batch={batch}" in answer["command"] or batch == 2
    status, out, _ = call(capsys, *flags, "--set=batch=4")
    assert json.loads(out)["runs"][0]["batch"] == 4
    status, out, _ = call(capsys, *flags, "--budget=1e14")
    said = [n for n in json.loads(out)["notes"] if n.startswith("batch:")]
    assert len(said) == 1 and "--batch_law" in said[0]


@pytest.mark.parametrize("content", [None, "{}", '{"critical_batch": null}'])
def test_a_folder_without_a_law_is_one_line(content, tmp_path, capsys):
    if content:
        (tmp_path / "analysis.json").write_text(content)
    status, _, err = call(capsys, "plan", "--config=quickstart", f"--batch_law={tmp_path}")
    assert status == 2 and "--batch_law=" in err and err.count("\n") == 1


def rate(size, lr, loss):
    return {"family": "mup", "budget": None, "tokens": 100, "size": size, "lr": lr, "loss": loss}


def test_best_rates_by_hand():
    rows = [rate(16, lr, loss) for lr, loss in ((0.01, 2.1), (0.02, 2.0), (0.04, 2.1))]
    rows += [rate(32, lr, loss) for lr, loss in ((0.005, 1.8), (0.01, 1.85), (0.02, 1.95))]
    small, large = best_rates.by_size(rows)
    assert (small["best"], small["edge"], small["moved"], small["kept"]) == (0.02, False, 1.0, 0.0)
    assert small["vertex"] == pytest.approx(0.02)
    assert (large["best"], large["edge"], large["vertex"]) == (0.005, True, None)
    assert large["moved"] == 0.25 and large["kept"] == pytest.approx(0.15)
