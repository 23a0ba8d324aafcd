"""Speed as short runs measured it, and forecasts against what sweeps took."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import time

import pytest

from experiments import recipes
from experiments.planning import (
    calibration,
    forecast,
    grid,
    ladder,
    step_time,
)
from launch import config, files
from launch.engines import local
from tests.conftest import ROOT


def store(points, key, **more):
    mine = {**calibration.this_machine(config.Where()), **more}
    return [
        {
            **mine,
            "date": "2026-11-25",
            "key": key,
            "family": "dense",
            "d_model": d,
            "flops": f,
            "step": s,
            "evaluate": 0.1,
            "setup": 4.0,
        }
        for d, f, s in points
    ]


def test_calibration_is_read_off_lines_in_logs(tmp_path):
    run = recipes.load("quickstart").run
    key = calibration.key(run)
    where = config.Where(cache=str(tmp_path))
    points = store([(20, 1e7, 2e-3), (40, 1e8, 1e-2), (80, 1e9, 1e-1)], key) + store(
        [(40, 1e8, 9.0)], key, device="another"
    )
    files.write_json(str(tmp_path / calibration.FILE), {"points": points})
    found = calibration.load(where)
    assert len(found.points) == 3  # another device's are left alone
    step, _, setup, source = calibration.look_up(found, run, 1e8)
    assert step == pytest.approx(1e-2) and setup == 4.0 and "2026-11-25" in source
    assert calibration.look_up(found, run, 10**7.5)[0] == pytest.approx(math.sqrt(2e-3 * 1e-2))
    assert (
        calibration.look_up(found, run, 1e10)[0] == pytest.approx(1.0)
        and "extrapolated" in calibration.look_up(found, run, 1e10)[3]
    )
    assert calibration.look_up(found, ladder.at(run, 32, "moe"), 1e8) is None
    other = dataclasses.replace(run, batch=4)
    assert calibration.look_up(found, other, 1e8) is None  # another recipe
    moved = dataclasses.replace(run, seed=3, optimizer=dataclasses.replace(run.optimizer, lr=1.0))
    assert calibration.key(moved) == key
    # plans and sweeps use it
    job = dataclasses.replace(recipes.load("quickstart"), where=where)
    for p in grid.make(job, "cpu").runs:
        assert ("calibration" in p.speed.source) == (p.family == "dense")
    (tmp_path / calibration.FILE).write_text("{")
    assert calibration.load(where) == calibration.NOTHING


@pytest.mark.parametrize(
    "taken", [(16, 24, 32, 48, 64), (16, 32, 64), (8, 16), (256, 320, 512), (32,)]
)
def test_calibration_shapes_are_not_in_the_sweep(taken):
    base = recipes.load("quickstart").run.model
    sizes = calibration.sizes(taken, 3)
    assert len(set(sizes)) == 3 and not set(sizes) & set(taken)
    assert all(ladder.shape(base, d, "dense").d_model == d for d in sizes)


def test_calibration_stops_in_time_and_keeps_what_it_has(tmp_path, monkeypatch):
    job = dataclasses.replace(recipes.load("quickstart"), where=config.Where(cache=str(tmp_path)))

    def slow(tasks, where, folder, report):
        t = tasks[0]
        seconds = {"train": 1.0, "setup": 3.0, "evaluate": 0.2, "total": 4.2}
        cpu = {"train": 0.5, "setup": 2.0, "evaluate": 0.1}
        made = {
            "id": t.id,
            "family": "moe",
            "status": "finished",
            "tags": {},
            "run": {},
            "parameters": {},
            "training_tokens": 1,
            "validation": {"loss": 1.0},
            "device": {"kind": "cpu", "platform": "cpu"},
        }
        files.writable(t.folder)
        files.write_json(
            f"{t.folder}/result.json",
            {
                **made,
                "flops": {"matmul": 1e9},
                "steps": 100,
                "seconds": seconds,
                "cpu_seconds": cpu,
            },
        )
        report("finished", 0, t, {"seconds": 4.2})
        time.sleep(30)

    monkeypatch.setattr(local, "submit", slow)
    lines, started = [], time.monotonic()
    target = step_time.this_machine(job.where, "cpu")
    points = calibration.calibrate(job, target, lines.append, limit=0.5)
    assert time.monotonic() - started < 10 and "stopped after" in lines[-1]
    # a worker with a core of its own is timed by its CPU-seconds
    alone = calibration.this_machine(job.where)["workers"] == 1
    assert (
        len(points) == 1
        and points[0]["step"] == (0.01 if alone else 0.005)
        and points[0]["flops"] == 1e7
    )
    assert calibration.load(job.where).points == tuple(points)
    calibration.calibrate(job, target, lines.append, limit=0.5)
    assert len(calibration.load(job.where).points) == 1  # in the place of the old ones


@pytest.mark.slow
def test_a_calibrated_forecast_holds(tmp_path):
    """Calibrated, then swept, through the processes of a user: all runs and the median one within
    25%. In CPU-seconds, where each worker has a core of its own: what else the machine does is not
    the forecast's.
    """
    env = {
        **os.environ,
        "XLA_FLAGS": "",
        "PYTHONPATH": ROOT,
        "ISOFLOP_CACHE": str(tmp_path / "cache"),
    }
    alike = [
        "--config=quickstart",
        "--set=sweep.sizes=16,32,64",
        "--set=sweep.budgets=4e10",
        "--set=sweep.replicate_size=0",
    ]
    alike += ["--set=sweep.replicate_budget=0", "--set=sweep.replicate_seeds="]

    def call(verb, *more):
        return subprocess.run(
            [sys.executable, "-m", f"experiments.verbs.{verb}", *alike, *more],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )

    started = time.monotonic()
    call("plan", "--calibrate")
    assert time.monotonic() - started < 60
    points = json.loads((tmp_path / "cache" / calibration.FILE).read_text())["points"]
    assert {p["family"] for p in points} == {"dense", "moe"} and not {
        p["d_model"] for p in points
    } & {16, 32, 64}
    if len(points) < 5:
        pytest.skip("others use this machine: its minute was too short for five shapes")
    call("sweep", "--bootstrap=20", f"--workdir={tmp_path / 'w'}")
    c = json.loads((tmp_path / "w" / "analysis.json").read_text())["forecast"]
    assert "calibration" in c["source"] and len(c["runs"]) == 6
    alone = points[0]["workers"] == 1
    total, median = (
        (c["total"]["ratio"], c["median_ratio"])
        if alone
        else (c["total"]["predicted"] / c["total"]["cpu"], c["median_cpu_ratio"])
    )
    assert abs(total - 1) < 0.25 and abs(median - 1) < 0.25, (total, median)


def test_forecast_against_actual(tmp_path):
    job = recipes.load("quickstart")
    p = grid.make(job, "cpu")
    short = p._replace(runs=p.runs[:4])
    forecast.save(str(tmp_path), short)
    before = (tmp_path / forecast.FILE).read_text()
    faster = [q._replace(speed=q.speed._replace(step=1e-9)) for q in short.runs]
    forecast.save(str(tmp_path), p._replace(runs=faster))
    assert (tmp_path / forecast.FILE).read_text() == before  # the first forecast stands
    forecast.add_sitting(str(tmp_path), 4, 2, 30.0, 20.0)
    rows = [
        {
            "id": q.id,
            "family": q.family,
            "tags": q.tags,
            "device": {"platform": "cpu"},
            "seconds": {"train": q.seconds / k, "total": 10.0},
            "cpu_seconds": {"train": 4.0},
            "energy": {"joules": 1.8e6, "source": "measured"},
        }
        for q, k in zip(short.runs, (0.5, 1.1, 1.2, 4.0))
    ]
    c = forecast.compare(str(tmp_path), rows)
    assert (
        c["median_ratio"] == pytest.approx(1.15)
        and c["total"]["actual"] == 40.0
        and c["total"]["cpu"] == 16.0
    )
    assert c["median_cpu_ratio"] == pytest.approx(
        sorted(q.seconds / 4.0 for q in short.runs)[1] / 2
        + sorted(q.seconds / 4.0 for q in short.runs)[2] / 2
    )
    setups = {q.shape: q.speed.setup for q in short.runs}
    assert c["total"]["predicted"] == pytest.approx(
        sum(q.seconds + q.speed.evaluate for q in short.runs) + sum(setups.values())
    )
    assert (
        c["energy"]["kwh"] == pytest.approx(2.0)
        and "measured" in forecast.text(c)[1]
        and "30 s / 20 s" in forecast.text(c)[0]
    )
    assert forecast.compare(str(tmp_path / "nothing"), rows) is None
    for odd in (
        '{"runs": [1]}',
        '{"runs": {"' + rows[0]["id"] + '": {"train": "x"}}, "sittings": 7}',
        '{"source": ["<b>"]}',
    ):
        (tmp_path / forecast.FILE).write_text(odd)  # from whoever: nothing of it is used
        assert forecast.compare(str(tmp_path), rows) is None
