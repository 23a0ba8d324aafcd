"""What follows a run: told once, never in the way of training, and not part of what a run is."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time

import pytest

from experiments import cli
from launch import trackers
from launch.config import ConfigError
from launch.runs import record, train
from launch.trackers import chosen, following
from tests.conftest import ROOT
from tests.launch import a_tracker
from tests.launch.stopped_runs import RUN, RUNS, WHERE, Stop, differences, stop_at
from tests.launch.test_launch import lines

TRACKED = dataclasses.replace(WHERE, track=("noted",))


@pytest.fixture(autouse=True)
def noted(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "noted", "tests.launch.a_tracker")
    monkeypatch.setattr(following, "_off", set())
    monkeypatch.setattr(a_tracker, "TOLD", [])
    monkeypatch.setattr(a_tracker, "FAULTS", {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the run that nobody follows."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    train.train(RUN, WHERE, str(folder))
    return folder


def told(what="write"):
    return [(step, v) for _, kind, step, v in a_tracker.TOLD if kind == what]


def test_it_is_told_every_line_once_over_a_stop(tmp_path):
    """Lines that a resumed run writes again were told before; the end is told too."""
    run, folder = RUNS["moe"], tmp_path / "runs" / "first"
    with pytest.raises(Stop):
        train.train(run, TRACKED, str(folder), stop_at(11))
    assert [step for step, _ in told()] == [3, 6, 9] and len(told("close")) == 1
    result = train.train(run, TRACKED, str(folder))
    assert [step for step, _ in told()] == [3, 6, 9, 12, 12]
    assert [first for first, _ in told("open")] == [0, 8]
    assert told()[-1][1]["validation_loss"] == result["validation"]["loss"]
    kept, shown = lines(folder)[-1], told()[-2][1]
    assert shown["loss"] == kept["loss"] and "step" not in shown
    assert shown["expert_load/moe_layer_0"] == kept["expert_load"][0]
    about = told("open")[0][1]
    assert about["name"] == f"first-{result['id']}" and about["identity"] == result["id"]
    assert about["fields"]["batch"] == run.batch and about["group"] == ""


def test_a_run_is_the_same_whoever_follows_it(whole, tmp_path):
    result = train.train(RUN, TRACKED, str(tmp_path / "b"))
    assert result["id"] == record.result(str(whole))["id"]
    assert differences(whole, tmp_path / "b") == []
    with pytest.raises(Stop):
        train.train(RUN, WHERE, str(tmp_path / "c"), stop_at(9))
    train.train(RUN, TRACKED, str(tmp_path / "c"))  # it may change on the way
    assert differences(whole, tmp_path / "c") == []


@pytest.mark.parametrize(
    "faults,words",
    [
        ({"step": 6}, "ConnectionError: no network at all"),
        ({"seconds": 60}, "it has not taken all lines 0.2 s after the run's end"),
        ({"made": "broken package"}, "OSError: broken package"),
    ],
)
def test_its_faults_neither_end_nor_hold_a_run(faults, words, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(following, "WAIT", 0.2)
    a_tracker.FAULTS.update(faults)
    before = time.perf_counter()
    train.train(RUN, TRACKED, str(tmp_path / "b"))
    assert time.perf_counter() - before < 30 and differences(whole, tmp_path / "b") == []
    assert [m["step"] for m in lines(tmp_path / "b")] == [3, 6, 9, 12]
    (second,) = chosen.follow(RUN, TRACKED, str(tmp_path / "c"), 0)  # left out from its start
    second.begin(0)
    second.write({"step": 1, "loss": 1.0})
    second.close()
    err = capsys.readouterr().err
    assert err.count("noted is left out from here on") == 1 and words in err
    assert len(told("open")) <= 1


def test_a_process_apart_says_why_it_failed(tmp_path, monkeypatch, capsys):
    """Its end does not wait for what its package would do at exit; the parent has its last line."""
    about = following.About("0" * 12, "r", "", str(tmp_path), {}, 0)
    monkeypatch.setattr(a_tracker, "APART", True)
    for faults, words in (({}, ""), ({"step": 2}, "RuntimeError: ConnectionError: no network at")):
        monkeypatch.setenv("A_TRACKER", json.dumps(faults))
        one = following.Follower("noted", "tests.launch.a_tracker", about)
        one.begin(0)
        for step in (1, 2, 3):
            one.write({"step": step, "loss": 1.0, "dropped": [0.5, None]})
        one.close()
        err = capsys.readouterr().err
        assert words in err and bool(err) == bool(faults)


def test_a_full_queue_leaves_it_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(following, "MOST", 2)
    monkeypatch.setattr(following, "WAIT", 0.2)
    a_tracker.FAULTS["seconds"] = 60
    train.train(RUN, TRACKED, str(tmp_path / "a"))
    assert "2 lines wait for it" in capsys.readouterr().err


def test_unknown_and_missing_ones_are_named_before_anything_is_written(tmp_path, capsys):
    argv = ["train", "--config=tiny_dense", f"--workdir={tmp_path / 'r'}"]
    status = cli.main([*argv, "--set=where.track=wandbb"])
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1 and not (tmp_path / "r").exists()
    assert "where.track=wandbb: choose from tensorboard, wandb, trackio" in err
    assert chosen.names(dataclasses.replace(WHERE, track=("a", "a"))) == ("a",)
    both = dataclasses.replace(WHERE, tensorboard=True, track=("wandb", "tensorboard"))
    assert chosen.names(both) == ("tensorboard", "wandb")


def test_a_missing_package_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(a_tracker, "PACKAGE", "no_such_package")
    monkeypatch.setattr(a_tracker, "EXTRA", "noted")
    with pytest.raises(ConfigError, match=r'needs the package no_such_package: .*"\.\[noted\]"'):
        chosen.check(TRACKED)


def test_training_loads_no_tracker_that_nobody_asked_for():
    code = (
        "import sys, experiments.verbs.train, experiments.sweep, launch.runs.train,"
        " launch.runs.pack; from launch import config; from launch.trackers import chosen;"
        " chosen.check(config.Where());"
        " sys.exit(bool({'wandb', 'trackio', 'tensorboardX'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_registered_trackers_keep_the_contract():
    for name, place in trackers.TRACKERS.items():
        module = importlib.import_module(place)
        assert module.PACKAGE and isinstance(module.REWRITES, bool), name
        assert all(hasattr(module.Tracker, k) for k in ("open", "write", "close")), name
        extras = pathlib.Path(ROOT, "setup.cfg").read_text()
        assert not module.EXTRA or name == "noted" or f"\n{module.EXTRA} = {module.EXTRA}" in extras


OFFLINE = """
import dataclasses, os, sys
from launch.trackers import chosen
from launch.runs import train
from tests.launch.stopped_runs import RUN, WHERE, Stop, stop_at

where = dataclasses.replace(WHERE, track=("{name}",))
try:
    train.train(RUN, where, sys.argv[1], stop_at(11))
except Stop:
    pass
train.train(RUN, where, sys.argv[1])
two = []
for seed in (1, 2):  # at once, as in a pack
    folder = os.path.join(sys.argv[1], str(seed))
    os.makedirs(folder)
    two += chosen.follow(dataclasses.replace(RUN, seed=seed), where, folder, 0)
for step in (0, 1, 2, 3):
    for f in two:
        f.write(dict(step=step, loss=1.0 / step)) if step else f.begin(0)
for f in two:
    f.close()
"""


def offline(name, folder, home):
    """The id of a run that is stopped and goes on, then two runs at once, in a process of its own,
    without a network or a key.
    """
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO"))}
    env |= {"HOME": str(home), "WANDB_MODE": "offline", "TRACKIO_DIR": str(home / "trackio")}
    env["HF_HUB_OFFLINE"] = "1"
    code = OFFLINE.format(name=name)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and "left out" not in done.stderr, done.stderr[-2000:]
    return record.result(str(folder))["id"]


def test_wandb_offline(tmp_path):
    identity = offline("wandb", tmp_path / "r", tmp_path)
    kept = sorted((tmp_path / "r" / "wandb").glob(f"offline-run-*-{identity}/*.wandb"))
    assert kept and all(p.name == f"run-{identity}.wandb" for p in kept)  # one run, two sittings
    text = b"".join(p.read_bytes() for p in kept)
    assert b"validation_loss" in text and b"learning_rate" in text
    assert all(len([*(tmp_path / "r" / k).glob("wandb/offline-run-*")]) == 1 for k in "12")


def test_trackio_local(tmp_path):
    identity = offline("trackio", tmp_path / "r", tmp_path)
    (path,) = (tmp_path / "trackio").glob("isoflop*.db")
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    of = {}
    for name, step, text in rows:
        of.setdefault(name, []).append((step, json.loads(text)))
    mine = of.pop(f"r-{identity}")
    assert [step for step, _ in mine] == [3, 6, 9, 12, 12] and "validation_loss" in mine[-1][1]
    kept = [m["loss"] for m in lines(tmp_path / "r")]
    assert [m["loss"] for _, m in mine[:4]] == pytest.approx(kept)
    assert len(of) == 2 and all([s for s, _ in rows] == [1, 2, 3] for rows in of.values())
