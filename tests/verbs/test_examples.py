"""The studies that are kept: records of today's recipes, small, and without a trace of the machine
they ran on.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex

import pytest

from experiments import cli, recipes, sweep
from experiments.laws.runs import table as tables
from experiments.planning import grid
from launch import config
from launch.runs import checks, outcomes, predictions, record
from tests.conftest import ROOT

STUDIES = sorted(p.name for p in pathlib.Path(ROOT, "examples").iterdir() if p.is_dir())


@pytest.mark.parametrize("name", STUDIES)
def test_records_are_those_of_the_recipe(name):
    job = recipes.load(name)
    folder = os.path.join(ROOT, "examples", name)
    found = sweep.results(folder)
    # the text is that of the Python they ran on
    data = dataclasses.replace(job.run.data, content=found[0]["run"]["data"].get("content", ""))
    run = dataclasses.replace(checks.resolve(job.run, "cpu"), data=data)
    job = dataclasses.replace(job, run=run)
    # records of version 1 have ids of then
    again = {config.run_id(config.from_dict(config.Run, r["run"])) for r in found}
    assert again == {p.id for p in grid.make(job, "cpu").runs}
    assert all(r["status"] == "finished" and not r["commit"].endswith("+") for r in found)
    assert sum(p.stat().st_size for p in pathlib.Path(folder).rglob("*") if p.is_file()) < 1_000_000


@pytest.mark.parametrize("name", STUDIES)
def test_no_path_of_a_machine(name):
    for p in pathlib.Path(ROOT, "examples", name).rglob("*"):
        if p.is_file():
            assert not re.search(
                r"(?<![\w.])/(tmp|home|root|work|usr|mnt|Users)\b", p.read_text()
            ), p


# parts of a command's JSON that a README may quote: of a sweep, a law, two sides
ANSWERS = ("arms", "brackets", "gaps", "frontiers", "equal_flops", "leverage", "gain_trends")
ANSWERS += ("parameters", "derived", "intervals", "curve")
# commands of a README whose figures it quotes
QUOTED = re.compile(r"^    isoflop ((?:fit|predictions|compare) .+)$", re.MULTILINE)


def _values(answer) -> set[str]:
    """Every number of an answer, as three decimals are written."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list):
        return set().union(*map(_values, answer)) if answer else set()
    return {f"{answer:.3f}", f"{answer:+.3f}"} if isinstance(answer, float) else set()


# its README names seventeen fits
LONG = {"kaplan_to_chinchilla": pytest.mark.slow}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=LONG[n]) if n in LONG else n for n in STUDIES]
)
def test_the_text_says_what_the_records_say(name, capsys, monkeypatch):
    """Every loss and interval in the study's README comes out of its records, by the commands that
    it names.
    """
    monkeypatch.chdir(ROOT)
    text = pathlib.Path(ROOT, "examples", name, "README.md").read_text()
    asked = [shlex.split(c) for c in QUOTED.findall(text.replace("\\\n", ""))]
    plain = ["fit", f"--workdir=examples/{name}", "--bootstrap=20"]
    values = set()
    for argv in asked or [plain]:
        # of a law's fit its values alone are quoted to three decimals: the ends of an interval
        # hang on the machine's last bits
        few = ["--bootstrap=20"] * any(flag.startswith("--runs=") for flag in argv)
        assert cli.main([*argv, *few, "--format=json"]) == 0
        a = json.loads(capsys.readouterr().out)
        for p in a.get("predictions") or []:
            said = p.get("prediction", p)
            values |= _values([p.get("judged"), said["loss"], said.get("interval")])
        values |= _values([a[k] for k in ANSWERS if k in a])
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and re.search(r"\d\.\d{3}", line)
    ]
    quoted = re.findall(r"[+-]?\d\.\d{3}\b", "\n".join(rows))
    assert len(quoted) >= 9 and not [
        q for q in quoted if q not in values and q.lstrip("+") not in values
    ]


def test_kept_predictions_are_those_of_the_kept_records():
    """They name the bytes of the runs that they were made from; each run holds the hash of its
    prediction, which it can only have if that was registered first.
    """
    folder = os.path.join(ROOT, "examples", "predict")
    found = predictions.every(folder)
    assert {p["data"]["sha256"] for p in found} == {tables.describe([folder])[0]["sha256"]}
    assert {p["family"] for p in found} == {"dense", "moe"}
    rows = outcomes.rows(folder)
    assert all(r["judged"]["inside"] is not None for r in rows if r["state"] == "done")
    for r in rows:
        if r["state"] == "done":
            kept = record.result(r["folder"], r["prediction"]["id"])
            assert kept["prediction"]["sha256"] == r["prediction"]["sha256"]
            assert kept["flops"]["matmul"] > 3 * max(p["sweep_flops"][1] for p in found)
