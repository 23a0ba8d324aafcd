"""What every recipe's runs say in the end: its own question is answered, best first, in ten lines
at most; whatever seeds, arms, budgets and rates its cells hold. Records are made up, from the
recipe's own plan.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from experiments import recipes, sweep
from experiments.laws import failed_analyses, sweep_analysis
from experiments.planning.grid import Sweep, SweepJob
from experiments.report import answer_text
from launch import files
from launch.runs import record
from tests.verbs.made_up_sweeps import call, results_of, written


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("sizes", [(16, 32), (16, 24, 32, 48, 64)])
def test_any_number_of_seeds_in_a_cell(seeds, sizes):
    job = recipes.load("dense_vs_moe")
    s = dataclasses.replace(job.sweep, seeds=seeds, sizes=sizes)
    a = sweep_analysis.analyse(results_of(dataclasses.replace(job, sweep=s)), resamples=20)
    assert {g["seeds"] for g in a["gaps"]} == {len(seeds)}
    json.dumps(record.finite(a), allow_nan=False)


EVERY = SweepJob(
    Sweep(
        name="every axis",
        sizes=(16, 32, 48),
        budgets=(1e11, 2e11),
        tokens=(500_000, 2_000_000),
        families=("dense", "moe", "learned"),
        seeds=(0, 1),
        lr_multipliers=(0.5, 1.0, 2.0),
        replicate_size=32,
        replicate_budget=2e11,
        replicate_seeds=(5,),
    ),
    recipes.load("quickstart").run,
)


@pytest.mark.slow
def test_no_grouping_lacks_an_axis(tmp_path, capsys):
    """A recipe that varies every axis at once: no cell takes the place of another."""
    results = results_of(EVERY)
    a = sweep_analysis.analyse(results, resamples=20)

    def cell(r):
        return (
            r["family"],
            r["tags"]["size"],
            r["tags"]["budget"] or 0,
            0 if r["tags"]["budget"] else r["training_tokens"],
        )

    cells = {cell(r) for r in results}
    kept = {r["id"]: r for r in results}
    assert len(a["brackets"]) == 3 * len(cells)
    for row in a["brackets"]:
        own = [
            r["validation"]["loss"]
            for r in results
            if r["tags"]["lr_multiplier"] == row["multiplier"]
            and cell(r)
            == (
                row["family"],
                row["size"],
                row["budget"] or 0,
                0 if row["budget"] else row["tokens"],
            )
        ]
        assert row["seeds"] == len(own) and row["loss"] == pytest.approx(np.mean(own))
    assert len(a["arms"]) == len(cells)
    assert len(a["fitted"]) == len(results) / 3 and set(a["fitted"]) <= set(kept)
    gaps = {(g["size"], g["budget"] or 0, g["tokens"]) for g in a["gaps"]}
    assert len(gaps) == len(a["gaps"]) == len(cells) / 3
    work = written(tmp_path, EVERY)
    status, _, err = call(capsys, "report", f"--workdir={work}", "--bootstrap=20")
    assert status == 0, err
    page = files.read_text(os.path.join(work, "report.html"))
    assert "2,000,000 tokens" in page or "1,999,872 tokens" in page


def test_equal_is_said_with_its_measure():
    job = recipes.load("dense_vs_moe")
    even = sweep_analysis.analyse(results_of(job), resamples=20)
    text = "\n".join(answer_text.lines(record.finite(even)))
    assert "at equal active parameters (x1." in text and "UNEQUAL" not in text
    sweep = dataclasses.replace(job.sweep, arms={"moe": "moe(n_shared=1)"})
    more = dataclasses.replace(job, sweep=sweep)
    a = sweep_analysis.analyse(results_of(more), resamples=20)
    text = "\n".join(answer_text.lines(record.finite(a)))
    assert "UNEQUAL active parameters (x1." in text and "at equal active" not in text


@pytest.mark.parametrize("name", ["dense_vs_moe", "granularity", "known_entropy"])
def test_families_that_are_matched_by_flops_are_compared(name):
    """They see different tokens in one cell, of a budget as of a grid of tokens."""
    job = recipes.load(name)
    a = {}
    for match in ("active_params", "flops"):
        s = dataclasses.replace(job.sweep, match=match, seeds=(0, 1))
        a[match] = sweep_analysis.analyse(
            results_of(dataclasses.replace(job, sweep=s)), resamples=20
        )
    for rows in ("arms", "gaps", "pairs"):
        assert len(a["flops"][rows]) == len(a["active_params"][rows])
    arms = [r for r in a["flops"]["arms"] if r["family"] != r["reference"]]
    assert arms and all(abs(r["flops_ratio"] - 1) < 0.01 > r["tokens_ratio"] - 1 for r in arms)
    if name != "granularity":
        text = "\n".join(answer_text.lines(record.finite(a["flops"])))
        assert a["flops"]["gaps"] and "at equal FLOPs (matmul x" in text and ", tokens x0.9" in text


@pytest.mark.parametrize("c", ["matmul", "6N", "6N_active"])
def test_best_of_each_is_compared_at_spent_compute(c):
    """MoE is .05 better at equal N and D by construction; by 6N it has spent twice dense's FLOPs at
    one nominal budget, and what it spent is what dense is read at.
    """
    job = recipes.load("isoflop")
    a = sweep_analysis.analyse(results_of(job, noise=1e-4), n="active", c=c, resamples=20)
    by_budget = {
        f: {q["budget"]: q for q in a["families"][f]["parabolas"] if q["interior"]}
        for f in ("dense", "moe")
    }
    assert a["equal_flops"]
    for e in a["equal_flops"]:
        assert e["flops"] == by_budget["moe"][e["budget"]]["flops"]
        dense = [q["flops"] for q in by_budget["dense"].values()]
        if e["read_between"]:
            assert min(dense) / 1.03 <= e["flops"] <= max(dense) * 1.03
        else:
            assert abs(e["ratio"] - 1) <= 0.02
    if c == "6N":
        assert all(e["ratio"] is None or e["ratio"] > 1.5 for e in a["equal_flops"])


def test_a_part_that_cannot_be_made_is_left_out_with_a_sentence(monkeypatch, tmp_path, capsys):
    def broken(*a, **k):
        return 1 / 0

    monkeypatch.setattr(sweep_analysis.equal_time_and_memory, "equal", broken)
    results = results_of(recipes.load("quickstart"))
    with pytest.raises(ZeroDivisionError):  # tests see slips
        sweep_analysis.analyse(results, resamples=20)
    monkeypatch.delenv(failed_analyses.STRICT)
    a = sweep_analysis.analyse(results, resamples=20)
    assert a["equal_spent"] == [] and a["gaps"]
    assert any("ZeroDivisionError" in e["why"] and "report it" in e["why"] for e in a["excluded"])
    monkeypatch.setattr("experiments.report.sections.dense_against_moe.draw", broken)
    work = written(tmp_path, recipes.load("quickstart"))
    status, out, err = call(capsys, "report", f"--workdir={work}", "--bootstrap=20")
    assert status == 0, err
    page = files.read_text(os.path.join(work, "report.html"))
    assert "section dense_against_moe" in page and "IsoFLOP curves" in page


@pytest.mark.parametrize("verb", ["fit", "report"])
def test_a_slip_of_the_code_is_no_damaged_record(verb, monkeypatch, tmp_path, capsys):
    """Also where no part of the analysis bears it; and a record is named for what it lacks."""
    work = written(tmp_path, recipes.load("positions"))
    known = sweep_analysis.usable

    def slip(error):
        def usable(results, *a):
            assert known(results, *a)
            raise error

        return usable

    for error in (
        KeyError("no_such_thing"),
        ZeroDivisionError("division by zero"),
        KeyError("run"),
    ):
        monkeypatch.setattr(sweep_analysis, "usable", slip(error))
        status, out, err = call(capsys, verb, f"--workdir={work}", "--bootstrap=20")
        assert status == 2 and out == "" and err.count("\n") == 1
        assert "slip of isoflop" in err and "damaged" not in err and "lacks" not in err, err
    monkeypatch.setattr(sweep_analysis, "usable", known)
    folder = sorted(os.listdir(os.path.join(work, "runs")))[2]
    path = os.path.join(work, "runs", folder, record.RESULT)
    r = files.read_json(path, "result")
    del r["steps"]
    files.write_json(path, r)
    status, out, err = call(capsys, verb, f"--workdir={work}", "--bootstrap=20")
    assert status == 2 and f"{folder}/result.json lacks 'steps'" in err, err


def test_runs_that_have_not_learned_yet_are_kept_and_said(tmp_path, capsys):
    job = recipes.load("quickstart")
    work = written(tmp_path, job)
    first = sweep.results(work)[:2]
    for r in first:
        path = os.path.join(work, "runs", r["id"], record.RESULT)
        files.write_json(path, {**r, "unlearned": True})
    status, out, err = call(capsys, "fit", f"--workdir={work}", "--bootstrap=20", "--format=json")
    a = json.loads(out)
    assert {r["id"] for r in first} <= set(a["fitted"]) and not a["excluded"], err
    assert sum("has not learned yet" in e["why"] for e in a["flagged"]) == 2
    status, out, err = call(capsys, "report", f"--workdir={work}", "--bootstrap=20")
    page = files.read_text(os.path.join(work, "report.html"))
    assert "2, above the unigram entropy" in page and page.count("has not learned yet") == 2


def held(folder: str) -> dict:
    """Every file below a folder, by content and time."""
    found = [p for p in pathlib.Path(folder).rglob("*") if p.is_file()]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def test_a_sweep_of_others_is_only_read(tmp_path, capsys):
    """A report goes elsewhere on request; what reads a sweep leaves its folder as it is."""
    job = recipes.load("positions")
    work, other = written(tmp_path, job), str(tmp_path / "mine" / "deep")
    before = held(work)
    for argv in (
        ["report", f"--workdir={work}", f"--out={other}", "--bootstrap=20"],
        ["fit", f"--workdir={work}", "--bootstrap=20"],
        ["status", work],
    ):
        status, out, err = call(capsys, *argv)
        assert status == 0, (argv, err)
    assert held(work) == before
    assert sorted(os.listdir(other)) == ["analysis.json", "report.html"]
    (tmp_path / "file").write_text("")
    status, out, err = call(
        capsys, "report", f"--workdir={work}", f"--out={tmp_path}/file", "--bootstrap=20"
    )
    assert status == 2 and err.count("\n") == 1 and "--out" in err
