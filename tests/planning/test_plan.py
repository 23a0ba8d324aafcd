"""What a sweep will cost: the worked numbers to the digit, sums, inputs, unknowns, memory,
calibration, forecast.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import time

import pytest

from experiments import cli, recipes
from experiments.laws.comparisons import arm_gaps, equal_time_and_memory, learning_rate_brackets
from experiments.laws.fitting import bootstrap, isoflop
from experiments.planning import (
    budget,
    calibration,
    cost,
    fairness,
    forecast,
    grid,
    ladder,
    step_time,
)
from experiments.recipes import scales
from launch import config, files, overrides
from launch.devices import accelerators, choice
from launch.devices.accelerators import Figure
from launch.engines import local
from model import account
from tests.conftest import ROOT

NOTES = [
    "--flops=3.14e23",
    "--devices=256",
    "--peak_flops=6e13",
    "--utilisation=.7",
    "--price_per_hour=2",
]
SWEEP = [
    "--config=quickstart",
    "--budget=1e18",
    "--device=h200",
    "--devices=8",
    "--price_per_hour=2",
]


def ask(capsys, *argv):
    assert cli.main(["plan", *argv, "--format=json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_worked_numbers_of_the_notes(capsys):
    """3.14e23 / (256 x 6e13) s are 236.6 days; at 70% and $2 an hour $4,153,439. From 236 days: 2 x
    256 x 24 x 236 / 0.7.
    """
    assert cli.main(["plan", *NOTES]) == 0
    out = capsys.readouterr().out
    assert "236.6 days at 100%" in out and "$4,153,439" in out
    assert cli.main(["plan", *NOTES, "--days=236"]) == 0
    assert "$4,142,811.43" in capsys.readouterr().out
    t = ask(capsys, *NOTES)["total"]
    assert t["days_at_peak"] == pytest.approx(3.14e23 / (256 * 6e13) / 86400, rel=1e-12)
    assert (
        t["money"] == pytest.approx(2 * 256 * 24 * t["days_at_peak"] / 0.7, rel=1e-12)
        and t["hours"] == t["days"] * 24
    )
    assert ask(capsys, *NOTES, "--days=236")["total"]["money"] == pytest.approx(
        4142811.43, abs=0.005
    )
    assert ask(capsys, "--flops=3.14e23", "--devices=256", "--device=h100")["total"][
        "days_at_peak"
    ] == pytest.approx(14.3536, abs=1e-3)


def test_a_budget_becomes_runs(capsys):
    a = ask(capsys, *SWEEP)
    runs, total = a["runs"], a["total"]
    assert 0.9e18 < total["flops"] <= 1e18 and total["flops"] == sum(r["flops"] for r in runs)
    assert {r["family"] for r in runs} == {"dense", "moe"} and {
        r["lr_multiplier"] for r in runs
    } == {0.5, 1.0, 2.0}
    assert (
        all(r["size"] in ladder.RUNGS and r["memory"]["fits"] for r in runs)
        and len({r["seed"] for r in runs}) == 3
    )
    for r in runs:
        assert (
            r["tokens"] == r["steps"] * r["batch"] * r["seq_len"]
            and r["hours"] == r["seconds"] / 3600
        )
        assert r["money"] == pytest.approx(2 * r["hours"]) and r["kwh"] == pytest.approx(
            0.7 * 1.1 * r["hours"]
        )
    for k in ("money", "kwh", "kg_co2"):
        assert total[k] == pytest.approx(sum(r[k] for r in runs))
    assert total["kg_co2"] == pytest.approx(total["kwh"] * 0.385)
    assert (
        total["device_hours"] / 8
        <= total["hours"]
        <= total["device_hours"] / 8 + max(r["hours"] for r in runs)
    )
    assert set(a["sources"]) == {
        "flops",
        "step_seconds",
        "hours",
        "memory",
        "money",
        "kwh",
        "kg_co2",
    } and all(a["sources"].values())
    # a pair reads the same tokens, and every arm has the same trials
    cells = {}
    for r in runs:
        cells.setdefault((r["size"], r["budget"], r["seed"]), []).append(
            (r["lr_multiplier"], r["tokens"])
        )
    assert all(len(c) == 6 and len({t for _, t in c}) == 1 for c in cells.values())
    assert [m["size"] for m in a["matched"]] == sorted({r["size"] for r in runs})
    assert all(
        m["by"] == "active_params" and 1 < m["active_ratio"] < 1.01 and 1 < m["flops_ratio"] < 1.02
        for m in a["matched"]
    )
    # what it says to type is that plan
    words = a["command"].split(" --set ")
    job = recipes.load("quickstart")
    assert words[0].startswith("isoflop sweep --config=quickstart") and len(words) > 4
    fields = dict(w.split("=", 1) for w in words[1:])
    sweep = job.sweep
    for k, v in fields.items():
        sweep = (
            overrides.override(sweep, k.removeprefix("sweep."), v)
            if k.startswith("sweep.")
            else sweep
        )
    same = grid.make(
        dataclasses.replace(
            job, sweep=sweep, run=dataclasses.replace(job.run, batch=int(fields["batch"]))
        ),
        "cpu",
    )
    assert sum(p.flops for p in same.runs) == total["flops"]


def test_step_time_from_table_and_utilisation(capsys):
    a = ask(capsys, *SWEEP, "--utilisation=.5")
    r = a["runs"][0]
    assert (
        r["step_seconds"] == pytest.approx(r["flops"] / r["steps"] / (989e12 * 0.5))
        and "50% (given)" in r["step_seconds_source"]
    )
    dense, moe = (
        next(r for r in ask(capsys, *SWEEP)["runs"] if r["family"] == f) for f in ("dense", "moe")
    )
    assert "40%" in dense["step_seconds_source"] and "35%" in moe["step_seconds_source"]


@pytest.mark.parametrize("name,flag", [("money", "--money=50"), ("hours", "--hours=3")])
def test_money_and_hours_as_input(name, flag, capsys):
    total = ask(capsys, "--config=dense_vs_moe", "--device=h100", "--devices=4", flag)["total"]
    wanted = float(flag.partition("=")[2])
    assert 0.85 * wanted < total[name] <= wanted
    assert total["money"] == pytest.approx(
        2 * total["device_hours"]
    )  # the stated default of an H100


def test_isoflop_budgets_as_input(capsys):
    runs = ask(
        capsys,
        "--config=isoflop",
        "--isoflop_budgets=1e15,4e15",
        "--device=l4",
        "--set=sweep.replicate_seeds=1",
    )["runs"]
    for r in (r for r in runs if r["role"] == "grid"):
        assert r["budget"] in (1e15, 4e15)
        if r["family"] == "dense":  # to half a step
            assert abs(r["flops"] - r["budget"]) <= r["flops"] / r["steps"] / 2 + 1


def test_set_pins_what_the_ladder_would_choose(capsys):
    pins = [
        "--set=sweep.sizes=64,128",
        "--set=batch=16",
        "--set=sweep.lr_multipliers=1",
        "--set=sweep.replicate_seeds=",
    ]
    pins += ["--set=sweep.replicate_size=0", "--set=sweep.replicate_budget=0"]
    runs = ask(capsys, *SWEEP, *pins)["runs"]
    assert (
        {r["size"] for r in runs} == {64, 128}
        and {r["batch"] for r in runs} == {16}
        and {r["lr_multiplier"] for r in runs} == {1}
    )


def test_what_is_not_known_stays_unknown(capsys):
    a = ask(capsys, "--config=quickstart", "--device=tpu-v9", "--devices=8", "--price_per_hour=2")
    assert a["total"]["flops"] > 0
    for k in ("hours", "money", "kwh", "kg_co2"):
        assert (
            a["total"][k] is None
            and all(r[k] is None for r in a["runs"])
            and a["sources"][k].startswith("unknown")
        )
    assert all(
        r["memory"]["fits"] is None and r["step_seconds_source"].startswith("unknown")
        for r in a["runs"]
    )
    v5e = ask(capsys, "--config=quickstart", "--device=tpu v5e", "--price_per_hour=1.2")
    assert (
        v5e["total"]["money"] > 0
        and v5e["total"]["kwh"] is None
        and v5e["sources"]["kg_co2"].startswith("unknown")
    )
    capped = ask(capsys, "--config=quickstart", "--device=tpu v5e", "--power_cap=150")
    assert (
        capped["total"]["kwh"] == pytest.approx(capped["total"]["device_hours"] * 0.150 * 1.1)
        and capped["total"]["money"] is None
    )
    assert cli.main(["plan", "--config=quickstart", "--device=tpu-v9"]) == 0
    assert "'tpu-v9' is not in the device table" in capsys.readouterr().out


def test_power_cap_bounds_energy_and_leaves_speed_unknown(capsys):
    free, capped = (
        ask(capsys, *SWEEP, *more)
        for more in ([], ["--power_cap=350", "--pue=1.5", "--grid_carbon=100"])
    )
    assert capped["total"]["hours"] == free["total"]["hours"]
    assert capped["total"]["kwh"] == pytest.approx(free["total"]["kwh"] / 700 * 350 / 1.1 * 1.5)
    assert capped["total"]["kg_co2"] == pytest.approx(capped["total"]["kwh"] * 0.1)
    assert capped["assumed"]["power_cap"]["effect_on_speed"].startswith("unknown: not measured")
    assert ask(capsys, *SWEEP, "--power_cap=900")["total"]["kwh"] == pytest.approx(
        free["total"]["kwh"]
    )


BAD = [
    ([], "--config"),
    (["--config=quickstrat"], "did you mean 'quickstart'"),
    (["--config=quickstart:h20"], "did you mean 'h200'"),
    (["--config=tiny_dense:h200"], "single run"),
    (["--config=tiny_dense", "--budget=1e15"], "single run"),
    (["--config=quickstart", "--price_per_hour=-1"], "cannot be negative"),
    (["--config=quickstart", "--budget=1e18", "--money=5"], "--budget and --money are given"),
    (["--config=quickstart", "--devices=0"], "at least 1"),
    (["--config=quickstart", "--budget=0"], "above 0"),
    (["--config=quickstart", "--budget=nan"], "finite"),
    (["--config=quickstart", "--budget=ten"], "--budget"),
    (["--config=quickstart", "--budget=1e8"], "too few for the ladder"),
    (["--config=quickstart", "--isoflop_budgets=1e15,x"], "numbers expected"),
    (["--config=quickstart", "--isoflop_budgets=1e15,1e15"], "different"),
    (["--config=positions", "--isoflop_budgets=1e15"], "grid of tokens"),
    (["--config=quickstart", "--utilisation=40"], "at most 1"),
    (["--config=quickstart", "--pue=.9"], "at least 1"),
    (["--config=quickstart", "--money=5", "--device=l4"], "give --price_per_hour"),
    (["--config=quickstart", "--hours=5", "--device=tpu-v9"], "is unknown"),
    (["--config=quickstart", "--device=h200", "--calibrate"], "leave out --device"),
    (["--config=quickstart", "--set=sweep.match=flop"], "sweep.match"),
    (["--config=quickstart", "--set=sweep.families=dense,alibi"], "unknown family"),
    (["--flops=1e20", "--config=quickstart"], "leave out --config"),
    (["--flops=1e20", "--days=-1"], "above 0"),
    (["--days=3", "--config=quickstart"], "give --flops too"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, capsys):
    assert cli.main(["plan", *argv]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("\n") == 1 and words in out.err, out.err


def test_every_figure_of_the_table_has_a_source():
    for d in accelerators.DEVICES.values():
        assert set(d.sources) == {"peak", "memory", "watts"} and all(d.sources.values())
        assert all((d.figure(k) is None) == (getattr(d, k) is None) for k in d.sources)
    assert set(accelerators.NAMES.values()) - {None} == set(accelerators.DEVICES)


@pytest.mark.parametrize(
    "kind,name",
    [
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5p", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("tpu-v5e", "TPU v5e"),
        ("h200", "H200"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", None),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", None),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("AMD Instinct MI300X", "MI300X"),
        ("TPU v4", "TPU v4"),
        ("TPU v5", "TPU v5p"),
        ("TPU7x", "TPU v7x"),
        ("rtx4090", None),
        ("cpu", None),
    ],
)
def test_devices_are_recognised_by_whole_words(kind, name):
    d = accelerators.device(kind)
    assert (d.name if d else None) == name


@pytest.mark.parametrize(
    "name,peak,memory,watts",
    [
        ("RTX 3090", 71e12, 24e9, 350),
        ("RTX 4090", 165.2e12, 24e9, 450),
        ("RTX 5090", 209.5e12, 32e9, 575),
        ("RTX A6000", 154.85e12, 48e9, 300),
        ("A10", 125e12, 24e9, 150),
        ("L40S", 362.05e12, 48e9, 350),
        ("MI300X", 1307.4e12, 192e9, 750),
        ("T4", None, 16e9, 70),
        ("V100", None, None, 300),
        ("TPU v4", 275e12, 32 * 2**30, 192),
        ("TPU v5p", 459e12, 95e9, None),
        ("TPU v6e", 918e12, 32e9, None),
        ("TPU v7x", 2307e12, 192 * 2**30, None),
    ],
)
def test_figures_of_the_table(name, peak, memory, watts):
    """Dense bf16 with float32 sums, never the figure with sparsity."""
    d = accelerators.device(name)
    assert (d.name, d.peak, d.memory, d.watts) == (name, peak, memory, watts)


def test_no_bf16_units_no_peak():
    assert (
        accelerators.device("Tesla V100-SXM2-16GB").peak is None
        and choice.mfu(recipes.load("tiny_dense").run.model, 1e6, "Tesla T4", 1) is None
    )


RUN = dataclasses.replace(
    ladder.at(recipes.load("quickstart").run, 256, "dense"),
    batch=32,
    horizon=config.Horizon(steps=10),
)


def fitted(room: float, count: int = 1) -> step_time.Fit:
    target = step_time.named("h100", count, config.Where())
    return step_time.fit(
        RUN, config.Where(), target._replace(memory=Figure(room / step_time.USABLE + 1, "given"))
    )


def test_what_makes_it_fit():
    """Micro-batches first, as few as will do, then remat, then more devices; or it does not fit."""

    def held(**kw):
        return step_time.bytes_held(RUN, dataclasses.replace(config.Where(), **kw), "gpu")

    plain = (True, 1, False, "")

    def of(f):
        return (f.fits, f.accumulate, f.remat, f.mesh)

    assert of(fitted(held())) == plain
    assert of(fitted(held() - 1)) == (True, 2, False, "") and of(
        fitted(held(accumulate=2) - 1)
    ) == (True, 4, False, "")
    smallest = min(held(accumulate=k) for k in (1, 2, 4, 8, 16, 32))
    tight = fitted(smallest - 1)
    assert tight.fits and tight.remat and not tight.mesh
    least = min(held(accumulate=k, remat=True, scan=True) for k in (1, 2, 4, 8, 16, 32))
    assert (
        of(fitted(least - 1)) == (False, 1, False, "") and of(fitted(least - 1, 8))[3] == "fsdp=2"
    )
    f = fitted(least - 1, 8)
    assert (
        f.bytes
        == held(accumulate=f.accumulate, remat=f.remat, scan=f.remat, mesh=f.mesh)
        <= f.limit
    )
    assert step_time.devices_of(f) == 2 and step_time.devices_of(tight) == 1


def test_memory_is_the_count_of_one_device():
    ex = choice.execution(
        RUN.model, config.Where(), "bfloat16", "gpu", 1, RUN.batch * RUN.model.seq_len
    )
    m = account.memory(RUN.model, ex, RUN.batch)
    assert step_time.bytes_held(RUN, config.Where(), "gpu") == sum(
        v for k, v in m.items() if k != "kv_cache_per_token"
    )


def test_wall_is_a_schedule():
    assert step_time.wall([(5.0, "a", 2.0), (4.0, "a", 2.0), (3.0, "b", 1.0)], 2) == 8.0
    assert step_time.wall([(5.0, "a", 0.0)], 8) == 5.0


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


def test_positions_differ_by_their_table_alone():
    runs = grid.make(recipes.load("positions"), "cpu").runs
    cells = {}
    for p in runs:
        cells.setdefault((p.size, p.run.seed), {})[p.family] = p
    assert len(cells) == 9 and all(
        set(c) == {"sinusoidal", "learned", "rope"} for c in cells.values()
    )
    for (size, _), c in cells.items():
        n = {f: account.parameters(p.run.model)["total"] for f, p in c.items()}
        assert (
            n["learned"] - n["rope"]
            == n["learned"] - n["sinusoidal"]
            == c["rope"].run.model.seq_len * size
        )
        assert (
            len({p.tokens for p in c.values()})
            == len({str(p.run.data) for p in c.values()})
            == len({p.flops for p in c.values()})
            == 1
        )


def test_granularity_keeps_active_and_total():
    for scale in ("granularity", "granularity:h200"):
        for p in grid.make(recipes.load(scale), "cpu").runs:
            n, c = account.parameters(p.run.model), p.run.model
            own, d_ff = c.routed[0], 4 * c.d_model
            assert (own.n_experts, own.top_k) == tuple(map(int, p.family.split("_")[1:]))
            assert own.top_k * own.width(c) == d_ff
            assert n["groups"]["experts"] == 8 * 2 * c.d_model * d_ff * c.n_layers
            dense = account.parameters(ladder.shape(c, c.d_model, "dense"))
            assert n["active"] - n["groups"]["router"] == dense["active"]


@pytest.mark.parametrize(
    "name", ["quickstart", "isoflop", "dense_vs_moe", "positions", "granularity", "learning_rate"]
)
def test_one_gpu_and_under_an_hour(name, capsys):
    """By the plan's own prediction."""
    a = ask(capsys, f"--config={name}:h200", "--device=h200")
    assert (
        a["devices"] == 1
        and 0.1 < a["total"]["hours"] < 1
        and all(r["memory"]["fits"] for r in a["runs"])
    )
    assert recipes.load(f"{name}:tiny") == recipes.load(name)
    assert recipes.load(f"{name}:h200").run.data.source == scales.SCALES["h200"].source


def test_pod(capsys):
    a = ask(capsys, "--config=positions:pod", "--device=h100", "--devices=256")
    assert (
        a["total"]["flops"] > 1e21
        and a["total"]["hours"] < 24 * 7
        and all(r["memory"]["fits"] for r in a["runs"])
    )


def test_ladder_chooses_twenty_tokens_per_parameter():
    base = recipes.load("quickstart").run.model
    for c in (1.6e11, 1e16, 1e20):
        d = ladder.best(base, c)
        model = ladder.shape(base, d, "dense")
        ratio = (
            c / account.flops_per_token(model)["matmul"] / account.parameters(model)["multiplied"]
        )
        assert 10 < ratio < 40
    assert ladder.best(base, 1.6e11) == 32  # quickstart's middle
    same = budget.scaled(recipes.load("quickstart"), 1.0)
    assert same.job == recipes.load("quickstart") and not same.notes


def test_arms_by_hand():
    losses = {("rope", 0): 1.0, ("rope", 1): 1.2, ("sinusoidal", 0): 1.5, ("sinusoidal", 1): 1.6}
    points = [
        {"id": f"{f}{s}", "family": f, "size": 8, "budget": None, "seed": s, "loss": v}
        | {"d": 100, "asked": 100, "active": 7 + (f == "rope"), "c": 1e6}
        for (f, s), v in losses.items()
    ]
    rows = arm_gaps.compare(points, {p["id"]: 7 for p in points})
    assert [r["family"] for r in rows] == ["sinusoidal", "rope"] and rows[0]["gap"] is None
    assert rows[1]["active_ratio"] == 8 / 7 and rows[1]["flops_ratio"] == 1
    assert rows[1]["gap"] == pytest.approx(-0.45) and rows[1]["gap_interval"] == pytest.approx(
        bootstrap.student([-0.5, -0.4])[1]
    )
    assert arm_gaps.compare(points[:2], {p["id"]: 7 for p in points}) == []


def test_brackets_over_seeds_by_hand():
    losses = {0: {"0.5": 2.0, "1": 1.5, "2": 1.4}, 1: {"0.5": 2.2, "1": 1.6, "2": 1.8}}
    verdicts = [
        {"family": "dense", "size": 8, "budget": 1e9, "seed": s, "losses": v}
        for s, v in losses.items()
    ]
    half, one, two = learning_rate_brackets.brackets(verdicts)
    assert [r["multiplier"] for r in (half, one, two)] == [0.5, 1.0, 2.0] and [
        r["best"] for r in (half, one, two)
    ] == [False, True, False]
    assert half["gap"] == pytest.approx(0.55) and half["gap_interval"] == pytest.approx(
        bootstrap.student([0.5, 0.6])[1]
    )
    assert (
        one["loss"] == pytest.approx(1.55)
        and two["loss"] == pytest.approx(1.6)
        and one["gap"] == 0
        and one["seeds"] == 2
    )
    assert half["interval"] == pytest.approx(bootstrap.student([2.0, 2.2])[1])


def test_equal_wall_clock_and_memory_are_read_off_the_curves(monkeypatch):
    """Dense minima on loss = 2 x^-0.1 in seconds, the MoE minimum between them. Bytes: dense as 7
    n, MoE as 21 n.
    """

    def fitted(budget, n, loss):
        lowest = isoflop.parabola([n / 2, n, n * 2], [1, 1, 1], [loss + 0.1, loss, loss + 0.1], 1.0)
        return {"budget": budget, **lowest._asdict()}, lowest

    minima = {"dense": [(1, 10, 2 * 10**-0.1), (2, 100, 2 * 100**-0.1)], "moe": [(1, 10, 1.0)]}
    families = {f: {"parabolas": [fitted(*m)[0] for m in rows]} for f, rows in minima.items()}
    draws = {f: [([fitted(*m)[1] for m in rows], None)] * 3 for f, rows in minima.items()}

    def run(i, n):
        return {"id": i, "n": n}

    groups = {
        "dense": {1: [run("a", 5), run("b", 20)], 2: [run("c", 50), run("d", 200)]},
        "moe": {1: [run("e", 2), run("f", 20)]},
    }
    sizes = {"a": 5, "b": 20, "c": 50, "d": 200, "e": 2, "f": 20}

    def slow(i):
        return 3 if i in "ef" else 1

    monkeypatch.setattr(
        equal_time_and_memory,
        "spent",
        lambda r: {
            "seconds": sizes[r["id"]] * slow(r["id"]),
            "bytes": 7.0 * sizes[r["id"]] * slow(r["id"]),
        },
    )
    clock, tight, roomy = equal_time_and_memory.equal(
        families, draws, groups, [{"id": i} for i in sizes]
    )
    assert (
        clock["field"] == "seconds"
        and clock["at"] == pytest.approx(30)
        and not clock["extrapolated"]
    )
    assert (
        clock["difference"]
        == pytest.approx(1 - 2 * 30**-0.1)
        == pytest.approx(clock["interval"][0])
    )
    # 70 bytes hold the dense minimum of size 10, and an MoE of size 10/3: (log 3 / log 2)^2 tenths
    # above its minimum
    assert tight["at"] == pytest.approx(70) and tight["dense"] == pytest.approx(2 * 10**-0.1)
    assert (
        tight["moe"] == pytest.approx(1 + 0.1 * (math.log(3) / math.log(2)) ** 2)
        and not tight["extrapolated"]
    )
    assert roomy["at"] == pytest.approx(210) and (roomy["dense"], roomy["moe"]) == (
        pytest.approx(2 * 10**-0.1),
        pytest.approx(1.0),
    )
    assert equal_time_and_memory.equal({"dense": families["dense"]}, draws, groups, []) == []


def test_cost_by_hand():
    r = cost.rates(accelerators.DEVICES["H200"], price=3.0, pue=2.0, grid=500.0)
    assert cost.cost(10.0, r) == (30.0, 14.0, 7.0)
    assert (
        cost.rates(accelerators.DEVICES["H100"]).price.value == 2.0
        and cost.rates(accelerators.DEVICES["H200"]).price is None
    )
    assert fairness.BY == ("active_params", "flops")
