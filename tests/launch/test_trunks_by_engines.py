"""Runs of one trunk as engines order them: nobody waits for a fork that will not come."""

import dataclasses
import os

from launch import config, engines, files
from launch.engines import skypilot, slurm, worker
from launch.runs import record, trunk
from tests.launch.test_launch import ALONE
from tests.launch.test_trunks import STEPS, WHERE, of, trained


def _task(root, steps: int, forks) -> engines.Task:
    run = of("dense", steps)
    return engines.Task(run, os.path.join(root, config.run_id(run)), {}, 0, steps, forks)


def test_a_run_waits_for_its_fork(tmp_path):
    forks = trunk.chains([of("dense", n) for n in STEPS])
    tasks = [_task(tmp_path, n, f) for n, f in zip(STEPS, forks, strict=True)]
    to_come = {t.id for t in tasks}
    assert [t.ready(to_come) for t in tasks] == [True, False, False]
    assert tasks[1].ready(to_come - {tasks[0].id})  # done or failed: nobody else will leave it
    assert worker.order(tasks[2], ALONE)["forks"] == forks[2]
    trained(tmp_path, "dense", 10)
    assert [t.ready(to_come) for t in tasks] == [True, True, False]


def test_workers_hand_a_trunk_on(tmp_path):
    """The longest run is the costliest, and waits all the same."""
    forks = trunk.chains([of("dense", n) for n in STEPS])
    tasks = [_task(tmp_path / engines.RUNS, n, f) for n, f in zip(STEPS, forks, strict=True)]
    assert engines.submit(tasks, dataclasses.replace(WHERE, workers=1), str(tmp_path)) == []
    shared = [record.result(t.folder)["shared"] for t in tasks]
    assert [s and s["step"] for s in shared] == [None, 8, 16]


def test_slurm_submits_a_run_when_its_fork_stands(tmp_path):
    """Nobody pays for a node that waits."""
    forks = trunk.chains([of("dense", n) for n in STEPS])
    tasks = [_task(tmp_path / engines.RUNS, n, f) for n, f in zip(STEPS, forks, strict=True)]
    watch = slurm._Watch(tasks, WHERE, str(tmp_path), lambda *a: None)
    assert watch._look(set()) == tasks[:1]
    assert watch._look({tasks[0].id}) == []
    trained(tmp_path / engines.RUNS, "dense", 10)
    assert watch._look(set()) == [tasks[1]]


def test_nodes_that_train_each_run_together_find_its_fork(tmp_path):
    """They take the orders one after the other."""
    forks = trunk.chains([of("dense", n) for n in STEPS])
    tasks = [_task(tmp_path / engines.RUNS, n, f) for n, f in zip(STEPS, forks, strict=True)]
    sky = config.Sky(bucket="s3://mine", launch=False, together=True)
    skypilot.submit(tasks, dataclasses.replace(WHERE, sky=sky), str(tmp_path), lambda *a: None)
    orders = files.read_json(str(tmp_path / "skypilot" / "orders.json"), "orders")["orders"]
    assert [o["id"] for o in orders] == [t.id for t in tasks]
    assert [trunk.read(o["forks"]) for o in orders] == forks
