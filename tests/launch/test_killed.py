"""Commands that are killed, told to stop, and typed again, alone and in two processes: the end
equals the run left alone.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import cli
from launch import files
from launch.runs import checkpoint, preempt, record
from tests.conftest import ROOT
from tests.launch.stopped_runs import differences
from tests.launch.test_launch import lines

ARGV = [
    "--config=tiny_dense",
    "--set=horizon.steps=600",
    "--set=where.checkpoint_every=100",
    "--set=data.source=synthetic",
    "--set=model.vocab_size=320",
    "--set=where.tensorboard=false",
    "--set=where.steps_per_dispatch=1",
    "--set=data.validation_windows=64",
]


def start(folder, *more):
    env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": ROOT}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.verbs.train", *ARGV, f"--workdir={folder}", *more],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def status(folder, process) -> dict:
    """What the run says of itself, {} while it says nothing."""
    try:
        s = json.loads(pathlib.Path(folder, record.STATUS).read_text())
        return s if s["pid"] == process.pid else {}
    except (OSError, ValueError):
        return {}


def until(folder, process, phase, first=0):
    while process.poll() is None:
        s = status(folder, process)
        if s.get("phase") == phase and s["step"] >= first:
            return s
        time.sleep(0.001)
    return {}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "r"
    out, err = start(folder).communicate(timeout=120)
    assert record.result(str(folder)), err
    return folder


def test_sigterm(alone, tmp_path):
    """In a step, while compiling, and in the evaluation: status 75, one line, within 5 s;
    afterwards the same run.
    """
    for phase, first in (("compile", 0), ("step", 150), ("evaluate", 0)):
        process = start(tmp_path / "r")
        assert until(tmp_path / "r", process, phase, first)
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        _, err = process.communicate(timeout=60)
        if phase == "evaluate" and process.returncode == 0:  # it was over before the signal came
            continue
        assert process.returncode == preempt.STATUS, (phase, err)
        assert (
            time.monotonic() - told < 5
            and err.count("\n") == 1
            and "the same command goes on" in err
        ), err
    out, err = start(tmp_path / "r").communicate(timeout=120)
    assert differences(tmp_path / "r", alone) == []


def test_updates_of_a_dispatch_do_not_change_a_run(alone, tmp_path):
    """One at a time, or several in a loop on the device."""
    _, err = start(tmp_path / "r", "--set=where.steps_per_dispatch=7").communicate(timeout=120)
    assert record.result(str(tmp_path / "r")), err
    assert differences(tmp_path / "r", alone) == []


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["save"])  # 24 more moments below
def test_sigkill(phase, alone, tmp_path):
    process = start(tmp_path / "r")
    until(tmp_path / "r", process, phase, 200 if phase in ("step", "save") else 0)
    process.kill()
    process.communicate()
    start(tmp_path / "r").communicate(timeout=120)
    assert differences(tmp_path / "r", alone) == []


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pair(folder, *more):
    """Two processes of four simulated devices each."""
    common = [
        f"--coordinator=127.0.0.1:{free_port()}",
        "--processes=2",
        "--mesh=data=2,fsdp=2,tensor=2",
        "--set=batch=8",
        *more,
    ]
    return [start(folder, *common, f"--process_id={i}") for i in range(2)]


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(tmp_path):
    """SIGTERM to one of two processes: both save at the same step and end with 75; one process on
    one device goes on.
    """
    folder, steps = (
        tmp_path / "r",
        [
            "--set=model.attention.n_heads=4",
            "--set=horizon.steps=120",
            "--set=where.checkpoint_every=0",
            "--set=where.log_every=1",
        ],
    )
    both = pair(folder, *steps)
    assert until(folder, both[0], "step")
    while len(lines(folder)) < 10 and both[0].poll() is None:
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    ends = [p.communicate(timeout=60) for p in both]
    assert [p.returncode for p in both] == [preempt.STATUS] * 2, ends
    said = [err.splitlines()[-1] for _, err in ends]
    number = checkpoint.steps(str(folder))[-1]
    assert 10 < number < 120 and all(f"saved at step {number} of 120" in line for line in said), (
        said
    )
    out, err = start(folder, "--set=batch=8", *steps).communicate(timeout=120)
    assert [m["step"] for m in lines(folder)] == list(range(1, 121)), err
    out, err = start(tmp_path / "alone", "--set=batch=8", *steps).communicate(timeout=120)
    a, b = ([m["loss"] for m in lines(f)] for f in (folder, tmp_path / "alone"))
    np.testing.assert_allclose(a, b, rtol=1e-3)
    assert [m["tokens"] for m in lines(folder)] == [m["tokens"] for m in lines(tmp_path / "alone")]
    x, y = record.result(str(folder)), record.result(str(tmp_path / "alone"))
    assert x["bytes"] == y["bytes"] and x["training_tokens"] == y["training_tokens"]


MOMENTS = ["compile", "step", "save"] * 6 + ["evaluate"] * 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "moe"])
def test_killed_at_24_moments(name, tmp_path):
    """kill -9 at 24 moments of one run, each started again: the end equals the run that was left
    alone. About three minutes a family.
    """
    more = [f"--config=tiny_{name}", "--set=horizon.steps=1500", "--set=where.checkpoint_every=40"]
    start(tmp_path / "alone", *more).communicate(timeout=300)
    folder, rng, tally = tmp_path / "r", np.random.default_rng(0), {}
    for moment in MOMENTS:
        before = (checkpoint.steps(str(folder)) or [0])[-1] if folder.exists() else 0
        process = start(folder, *more)
        first = before + int(rng.integers(10, 60)) if moment in ("step", "save") else 0
        assert until(folder, process, moment, first), (
            f"over before the {moment}: {process.communicate()[1]}"
        )
        time.sleep(float(rng.uniform(0, 0.3 if moment == "compile" else 0.03)))
        process.kill()
        process.communicate()
        found = status(folder, process)
        root = folder / checkpoint.FOLDER
        unmarked = [
            n
            for n in (os.listdir(root) if root.exists() else [])
            if not (root / n / checkpoint.MARK).exists()
        ]
        phase = found.get("phase", "none")
        flying = bool(unmarked) and phase in (
            "step",
            "save",
            "evaluate",
        )  # earlier ones are cleared when a run restores
        tally[phase] = tally.get(phase, 0) + 1
        tally["save in flight"] = tally.get("save in flight", 0) + flying
        print(
            f"{name}: killed in {phase} at step"
            f" {found.get('step')}{', a save in flight' if flying else ''}"
        )
    start(folder, *more).communicate(timeout=300)
    print(name, tally)
    assert min(tally[k] for k in ("compile", "step", "evaluate", "save", "save in flight")) >= 3, (
        tally
    )
    assert differences(folder, tmp_path / "alone") == []


@pytest.mark.slow
def test_a_small_disk_fills(tmp_path):
    """A tmpfs that holds one checkpoint and not two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2500k", "none", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        process = start(disk / "r")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and err.count("\n") == 1 and "no space left" in err, err
        kept = checkpoint.steps(str(disk / "r"))
        assert (
            kept
            and checkpoint.newest(
                str(disk / "r"),
                files.read_json(str(disk / "r" / record.RUN), "run")["id"],
                False,
                print,
            )
            == kept[-1]
        )
    finally:
        subprocess.run(["umount", str(disk)])


@pytest.mark.slow
def test_bench_checkpoint_runs(capsys):
    assert cli.main(["bench", "checkpoint", "--scale=toy", "--rounds=1", "--format=json"]) == 0
    r = json.loads(capsys.readouterr().out)
    assert (
        set(r["contenders"]) == {"with", "without"}
        and r["wall_ratio"] > 0
        and r["parameters"] > 10_000
    )
