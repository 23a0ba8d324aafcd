"""A pack whose memory runs out, wherever that is: half of its members go on, once, and say so."""

import dataclasses
import math
import pathlib

import jax
import pytest

from launch import engines
from launch.engines import packing, worker
from launch.runs import checkpoint, evaluation, pack, preempt, record
from launch.runs import program as programs
from tests.launch.stopped_runs import differences
from tests.launch.test_packs import ALONE, FULL, packed, runs

WHERE = dataclasses.replace(ALONE, members=4, checkpoint_every=6, keep_final=False)
SAID = "isoflop: out of memory: again with 2 members\n"
# name: calls of it that go well in each process's pack before memory runs out
PLACES = {"compile": 0, "put": 1, "train": 3, "take": 2, "evaluate": 0}


def full_at(monkeypatch, name: str, most: int) -> None:
    """Memory runs out in packs of more than `most` members, at one thing that they do."""
    own = programs.pack

    def made(run, where, dataset=None):
        if name == "compile" and where.members > most:
            raise FULL
        p, left = own(run, where, dataset), [PLACES[name]]

        def limited(of):
            def call(*arguments):
                if p.members > most:
                    left[0] -= 1
                    if left[0] < 0:
                        raise FULL
                return of(*arguments)

            return call

        if name in ("put", "take"):
            return p._replace(**{name: limited(getattr(p, name))})
        if name in ("train", "evaluate"):
            return p._replace(
                program=p.program._replace(**{name: limited(getattr(p.program, name))})
            )
        return p

    monkeypatch.setattr(programs, "pack", made)


def served(todo, folder, where=WHERE) -> tuple[dict, dict]:
    """({run: what is said of it at last}, {run: updates after which it was heard of})."""
    orders = [
        worker.order(engines.Task(r, str(folder / str(k)), {}, "shape", 1.0, members=4), where)
        for k, r in enumerate(todo)
    ]
    said, heard = {}, {o["id"]: [] for o in orders}

    def send(id, **message):
        assert id not in said
        said[id] = message

    packing.serve(orders, lambda: None, send, lambda id, done, total: heard[id].append(done))
    return said, heard


@pytest.fixture(scope="module")
def todo():
    return runs("dense", 5, 12)


@pytest.fixture(scope="module")
def well(todo, tmp_path_factory):
    """Folders of the runs in a pack of two that has memory enough."""
    folder = tmp_path_factory.mktemp("well")
    packed(todo, folder, 2, checkpoint_every=6, keep_final=False)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n in ("compile", "put", "train") else n
        for n in PLACES
    ],
)
def test_half_of_the_members_go_on(name, todo, well, tmp_path, monkeypatch, capfd):
    full_at(monkeypatch, name, 2)
    every = 0 if name == "evaluate" else 6
    said, heard = served(todo, tmp_path, dataclasses.replace(WHERE, checkpoint_every=every))
    assert [m["kind"] for m in said.values()] == ["finished"] * 5
    assert capfd.readouterr().err.count(SAID) == 1
    for k in range(5):
        mine, other = (record.result(str(f / str(k))) for f in (tmp_path, well))
        assert mine["where"]["members"] == 2 and record.failure(str(tmp_path / str(k))) is None
        assert math.isclose(mine["validation"]["loss"], other["validation"]["loss"], rel_tol=2e-6)
        assert mine["bytes"] == other["bytes"] and mine["steps"] == other["steps"]
    if name == "evaluate":  # what was trained stays so, also of those that were not at their end
        assert all(a < b for done in heard.values() for a, b in zip(done, done[1:]))


def test_half_that_runs_out_as_well_is_trained_one_by_one(todo, tmp_path, monkeypatch, capfd):
    full_at(monkeypatch, "compile", 1)
    said, _ = served(todo[:3], tmp_path)
    assert [m["kind"] for m in said.values()] == ["finished"] * 3
    assert capfd.readouterr().err.count("isoflop: out of memory: again with") == 1
    for k in range(3):
        assert record.result(str(tmp_path / str(k)))["where"]["members"] == 1


def test_evaluation_takes_fewer_sequences_before_members_are_halved(
    todo, tmp_path, monkeypatch, capfd
):
    passed, seen = evaluation._passed, []

    def small(p, variables, windows, rows, add):
        seen.append(rows)
        if rows > 4:
            raise FULL
        return passed(p, variables, windows, rows, add)

    monkeypatch.setattr(evaluation, "_passed", small)
    said, _ = served(todo[:1], tmp_path)
    assert [m["kind"] for m in said.values()] == ["finished"] and seen[-1] == 4
    assert SAID not in capfd.readouterr().err


def test_a_stop_in_the_evaluation_loses_no_training(todo, tmp_path, monkeypatch):
    """Two runs are at their end and two are not: all are saved before the validation is over, and
    end as if nothing had been.
    """
    several = [
        dataclasses.replace(r, horizon=dataclasses.replace(r.horizon, steps=20 - 8 * (k < 2)))
        for k, r in enumerate(todo[:4])
    ]
    packed(several, tmp_path / "whole", 4)
    where = dataclasses.replace(ALONE, members=4)
    orders = iter(pack.Order(r, str(tmp_path / "cut" / str(k)), {}) for k, r in enumerate(several))
    told: list[pack.Told] = []
    job = pack._Pack(where, lambda: next(orders, None), told.append, lambda *_: None, print)
    own, batches = evaluation._passed, []

    def passed(p, *rest):
        batches.append(len(rest))
        job.watcher._asked.set()
        return own(p, *rest)

    monkeypatch.setattr(evaluation, "_passed", passed)
    with pytest.raises(preempt.Preempted, match="4 runs are saved"):
        job.run()
    monkeypatch.undo()
    assert told == [] and len(batches) == 1
    steps = [checkpoint.steps(str(tmp_path / "cut" / str(k)))[-1] for k in range(4)]
    assert steps[:2] == [12, 12] and 12 <= steps[2] < 20
    packed(several, tmp_path / "cut", 4)
    for k in range(4):
        assert differences(tmp_path / "cut" / str(k), tmp_path / "whole" / str(k)) == []


def test_a_card_without_room_for_a_copy_is_no_full_disk(todo, tmp_path, monkeypatch):
    """The words of XLA and of the disk's writer are the same; where they are raised is not."""
    own = jax.block_until_ready

    def ready(tree):
        if isinstance(tree, pack.step.State):
            raise FULL
        return own(tree)

    monkeypatch.setattr(jax, "block_until_ready", ready)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        packed(todo[:2], tmp_path, 2, checkpoint_every=6)
    assert not list(pathlib.Path(tmp_path).glob("*/checkpoints/*/complete.json"))
