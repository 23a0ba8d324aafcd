"""Runs of one trunk against the same runs trained alone: equal to the last bit, whoever is killed
and whatever is gone.
"""

import dataclasses
import pathlib
import shutil

import pytest

from launch import config
from launch.config import ConfigError, Horizon
from launch.runs import checkpoint, record, train, trunk
from launch.runs.trunk import Fork
from model.optim import Schedule
from tests.launch.stopped_runs import RUNS, Stop, differences, stop_at
from tests.launch.test_launch import ALONE

# dispatches end at forks, checkpoints and lines of their own
WHERE = dataclasses.replace(ALONE, log_every=0, steps_per_dispatch=3, keep_final=True)
STEPS = (10, 20, 40)  # forks at 8, 16 and 32


def of(name: str, steps: int):
    s = Schedule("wsd", warmup_steps=3)
    change = {"schedule": s, "horizon": Horizon(steps=steps), "dtype": "float32"}
    return dataclasses.replace(RUNS[name], **change)


def trained(root, name: str, steps: int, where=WHERE, progress=lambda *a: None, say=print):
    """A run of a trunk, in the folder of its id."""
    runs = [of(name, n) for n in STEPS]
    forks = dict(zip(STEPS, trunk.chains(runs), strict=True))[steps]
    folder = pathlib.Path(root, config.run_id(runs[STEPS.index(steps)]))
    train.train(of(name, steps), where, str(folder), progress, say=say, forks=forks)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folders of the runs that were trained by themselves."""
    out = {}
    for name in RUNS:
        for steps in STEPS:
            out[name, steps] = tmp_path_factory.mktemp("alone") / "r"
            train.train(of(name, steps), WHERE, str(out[name, steps]))
    return out


@pytest.fixture(scope="module")
def handed_on(tmp_path_factory):
    """Folders of a sweep whose runs began at each other's forks."""
    root = tmp_path_factory.mktemp("trunk")
    return root, {(name, n): trained(root, name, n) for name in RUNS for n in STEPS}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("steps", STEPS)
def test_a_branch_is_the_straight_run(name, steps, alone, handed_on):
    """State, lines of metrics, and record; what is said of the trunk apart."""
    mine, straight = handed_on[1][name, steps], alone[name, steps]
    assert differences(mine, straight) in ([], ["shared"])
    r, own = record.result(str(mine)), record.result(str(straight))
    assert r["id"] == own["id"] and own["shared"] is None
    assert r["averages"] == own["averages"] and bool(own["averages"]) == (name == "averaged")
    before = {10: None, 20: 10, 40: 20}[steps]
    if before is None:
        assert r["shared"] is None
        return
    fork, here = before * 8 // 10, r["shared"]["here"]
    assert (r["shared"]["run"], r["shared"]["step"]) == (config.run_id(of(name, before)), fork)
    assert here["steps"] == steps - fork
    assert here["tokens"] / r["training_tokens"] == here["steps"] / steps
    assert here["flops"] == own["flops_per_token"]["matmul"] * here["tokens"]
    # what it began at is gone with the result, what others may begin at stays
    assert checkpoint.steps(str(mine)) == [steps * 8 // 10, steps]


def test_the_comparison_sees_a_wrong_state(alone, tmp_path, monkeypatch):
    """A state of the cooldown is no fork."""
    monkeypatch.setattr(trunk, "fork", config.steps)
    trained(tmp_path, "dense", 10)
    monkeypatch.undo()
    shutil.move(_checkpoint(tmp_path, 10, 10), _checkpoint(tmp_path, 10, 8))
    assert "metrics.jsonl" in differences(trained(tmp_path, "dense", 20), alone["dense", 20])


def _checkpoint(root, steps: int, number: int) -> pathlib.Path:
    return pathlib.Path(root, config.run_id(of("dense", steps)), checkpoint.FOLDER, str(number))


def _flip(path):
    found = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(found.read_bytes())
    data[len(data) // 2] ^= 4
    found.write_bytes(data)


LOSSES = {
    "gone": shutil.rmtree,
    "a bit flipped": _flip,
    "without its mark": lambda path: (path / checkpoint.MARK).unlink(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_where_a_fork_is_lost_an_earlier_one_is_taken(loss, alone, tmp_path):
    trained(tmp_path, "dense", 10)
    trained(tmp_path, "dense", 20)
    LOSSES[loss](_checkpoint(tmp_path, 20, 16))
    mine = trained(tmp_path, "dense", 40)
    assert differences(mine, alone["dense", 40]) == ["shared"]
    assert record.result(str(mine))["shared"]["step"] == 8


def test_where_all_forks_are_lost_the_run_is_trained_straight(alone, tmp_path):
    trained(tmp_path, "dense", 10)
    _flip(_checkpoint(tmp_path, 10, 8))
    said = []
    mine = trained(tmp_path, "dense", 20, say=said.append)
    assert differences(mine, alone["dense", 20]) == []
    assert len(said) == 1 and "is trained from its beginning" in said[0]


@pytest.mark.parametrize("at", [14, 16, 19])  # before its own fork, there, and behind it
def test_a_branch_that_is_stopped_goes_on(at, alone, tmp_path):
    """Nor does the run after it notice."""
    trained(tmp_path, "dense", 10)
    where = dataclasses.replace(WHERE, checkpoint_every=7)
    with pytest.raises(Stop):
        trained(tmp_path, "dense", 20, where, stop_at(at))
    found = differences(trained(tmp_path, "dense", 20, where), alone["dense", 20])
    assert found == ["shared"]
    assert differences(trained(tmp_path, "dense", 40), alone["dense", 40]) == ["shared"]
    r = record.result(str(tmp_path / config.run_id(of("dense", 20))))
    assert r["shared"]["step"] == 8 and r["shared"]["here"]["seconds"] > 0


def test_a_copy_without_its_mark_does_not_exist(alone, tmp_path):
    """What kill -9 leaves of a fork that was being taken."""
    trained(tmp_path, "dense", 10)
    half = _checkpoint(tmp_path, 20, 8)
    shutil.copytree(_checkpoint(tmp_path, 10, 8), half)
    (half / checkpoint.MARK).unlink()
    _flip(half)
    assert differences(trained(tmp_path, "dense", 20), alone["dense", 20]) == ["shared"]


def test_chains():
    """By what they share; the nearest fork first, whatever the order of the runs."""
    runs = [of("dense", 40), of("moe", 20), of("dense", 10), of("dense", 20)]
    runs.append(dataclasses.replace(of("dense", 30), seed=1))
    ids = [config.run_id(r) for r in runs]
    first, second = Fork(ids[2], 8), Fork(ids[3], 16)
    assert trunk.chains(runs) == [(second, first), (), (), (first,), ()]
    with pytest.raises(ConfigError, match="schedule.decay=wsd"):
        trunk.chains([RUNS["dense"]])


def test_the_order_of_the_text_does_not_know_the_length():
    """Batches are addressed by (seed, step) alone, in every source: nothing else is asked for."""
    import inspect

    from data import pipeline

    for kind in (pipeline.Text, pipeline.Generated):
        asked = list(inspect.signature(kind.counted_batch).parameters)
        assert asked == ["self", "step", "global_batch", "rows"]
