"""A sweep on a real Slurm of one node: a job killed with -9, submitted again; two processes that
train one run through jax.distributed.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from launch.runs import lease, ledger, record
from tests.conftest import ROOT
from tests.launch import one_node_slurm
from tests.launch.test_faults import SWEEP

pytest.importorskip("submitit", reason='pip install -e ".[slurm]"')
WHY = one_node_slurm.missing()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))
RUNS = [
    "--set=sweep.families=dense",
    "--set=sweep.budgets=1e10,2e10",
    "--set=sweep.seeds=0,1,2",
    "--set=where.checkpoint_every=500",
]
PACKS = [
    "--set=sweep.budgets=4e9",
    "--set=sweep.lr_multipliers=0.05",  # at a higher one rounding grows (LOG.md)
    "--set=sweep.seeds=0,1,2,3,4,5",
    "--set=where.checkpoint_every=100",
]
SLURM = ["--engine=slurm", "--set=where.workers=2", "--set=where.slurm.minutes=10"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with one_node_slurm.cluster(tmp_path_factory.mktemp("slurm")):
        yield


def start(workdir, *more):
    env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": ROOT}
    argv = [
        sys.executable,
        "-m",
        "experiments.verbs.sweep",
        *SWEEP,
        *SLURM,
        *more,
        f"--workdir={workdir}",
    ]
    return subprocess.Popen(
        argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def submitted(err: str) -> list[int]:
    """Runs of each array that was submitted."""
    return [int(n) for n in re.findall(r"slurm: (\d+) of \d+ open runs submitted", err)]


def victim(workdir, process, seconds=120):
    """The process of a run that trains."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        for folder in pathlib.Path(workdir, "runs").glob("*"):
            s = ledger.standing(str(folder))
            if s.state == "running" and s.step and (held := lease.holder(str(folder))):
                return folder.name, held.pid
        time.sleep(0.02)
    raise AssertionError("no run trains")


def test_six_runs_and_a_kill(cluster, tmp_path):
    process = start(tmp_path / "w", *RUNS)
    run, pid = victim(tmp_path / "w", process)
    os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert submitted(err) == [6, 1] and "report:" in out, err
    results = {
        p.parent.name: record.result(str(p.parent))
        for p in (tmp_path / "w" / "runs").glob(f"*/{record.RESULT}")
    }
    assert (
        len(results) == 6
        and all(r["status"] == "finished" for r in results.values())
        and run in results
    )
    stamps = {k: os.stat(tmp_path / "w" / "runs" / k / record.RESULT).st_mtime_ns for k in results}
    again = start(tmp_path / "w", *RUNS)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0 and submitted(err) == [] and "6 done" in out, (
        out,
        err,
    )  # todo 6 -> 1 -> 0
    assert stamps == {
        k: os.stat(tmp_path / "w" / "runs" / k / record.RESULT).st_mtime_ns for k in results
    }


@pytest.mark.slow
def test_packs_and_a_kill(cluster, tmp_path):
    """Six runs of one shape are two jobs of three; who is killed is submitted again with what it
    had, and the numbers are those of runs by themselves.
    """
    process = start(tmp_path / "w", *RUNS[:1], "--set=where.members=3", *PACKS)
    run, pid = victim(tmp_path / "w", process)
    mates = [
        p.parent.parent.name
        for p in (tmp_path / "w" / "runs").glob("*/.lease/*.json")
        if (held := lease.holder(str(p.parent.parent))) and held.pid == pid
    ]
    os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    logs = "".join(p.read_text()[-1500:] for p in (tmp_path / "w" / "slurm").glob("*/*.err"))
    assert process.returncode == 0, err + logs
    assert len(mates) == 3 and run in mates and submitted(err) == [6, 3], err + logs
    found = {
        p.parent.name: record.result(str(p.parent))
        for p in (tmp_path / "w" / "runs").glob(f"*/{record.RESULT}")
    }
    assert [(r["status"], r["where"]["members"]) for r in found.values()] == [("finished", 3)] * 6
    alone = start(tmp_path / "alone", *RUNS[:1], *PACKS, "--engine=local")
    out, err = alone.communicate(timeout=240)
    assert alone.returncode == 0, err
    for k, r in found.items():
        own = record.result(str(tmp_path / "alone" / "runs" / k))
        assert r["validation"]["loss"] == pytest.approx(own["validation"]["loss"], rel=1e-5)


def test_two_tasks_train_one_run(cluster, tmp_path):
    """srun starts two processes, which find each other through Slurm's environment."""
    more = [
        "--set=sweep.families=dense",
        "--set=sweep.budgets=4e8",
        "--mesh=data=2",
        "--set=where.slurm.tasks_per_node=2",
    ]
    process = start(tmp_path / "w", *more)
    out, err = process.communicate(timeout=240)
    logs = "".join(p.read_text()[-1500:] for p in (tmp_path / "w" / "slurm").glob("*/*.err"))
    found = list((tmp_path / "w" / "runs").glob(f"*/{record.RESULT}"))
    assert len(found) == 1 and submitted(err) == [1], err + logs
    r = record.result(str(found[0].parent))
    # too short a run to learn anything of context, which is not asked here
    assert (
        r["device"]["processes"] == 2
        and r["device"]["count"] == 2
        and r["steps"] == 85
        and r["train_loss"] < 5.5
    )
