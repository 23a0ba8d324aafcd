"""Which runs are trained together, and what a worker does with a pack that fails."""

import dataclasses
import types

import pytest

from launch import config, engines
from launch.devices import accelerators, choice, members
from launch.engines import attempts, local, packing, worker
from launch.runs import pack, preempt, trunk
from model.optimizers import Lion
from tests.launch.test_packs import ALONE, FULL, runs

H200 = accelerators.device("NVIDIA H200")


def tasks(todo, folder, members: int = 4) -> list:
    return [
        engines.Task(r, str(folder / str(k)), {}, "shape", float(k), members=members)
        for k, r in enumerate(todo)
    ]


def test_runs_that_share_a_pack(tmp_path):
    todo = tasks(runs("dense", 5, 20), tmp_path, 4)
    other = todo[0].run
    text = dataclasses.replace(other.data, unique_tokens=1000)
    beta = dataclasses.replace(other.optimizer, b2=0.9)
    todo += tasks([dataclasses.replace(other, data=text)], tmp_path / "text")
    todo += tasks([dataclasses.replace(other, optimizer=beta)], tmp_path / "beta")
    assert [t.cost for t in packing.companions(todo[2], todo, 1)] == [2, 4, 3, 1]
    assert [t.cost for t in packing.companions(todo[2], todo, 2)] == [2, 4, 3]
    assert [len(g) for g in packing.groups(todo)] == [4, 1, 1, 1]
    assert packing.companions(todo[5], todo, 1) == [todo[5]]


@pytest.mark.parametrize(
    "asked,platform,found",
    [(0, "cpu", 1), (4, "cpu", 4), (0, "gpu", 8), (1, "gpu", 1), (0, "tpu", 1), (4, "tpu", 4)],
)
def test_how_many_are_trained_at_once(asked, platform, found, tmp_path, monkeypatch):
    """By hand, or as measured, for all runs of a sweep and not for those left."""
    monkeypatch.setattr(choice, "kind", lambda: "NVIDIA H200")
    where = config.Where(members=asked)
    todo = tasks(runs("dense", 5, 20), tmp_path, 1)
    place = engines.Place(platform, 1, 1)
    assert {t.members for t in engines.packed(todo, todo[:1], where, place)} == {found}


def test_a_device_holds_what_fits():
    run = runs("dense", 1, 20)[0]
    assert members.number(run, config.Where(), "gpu", H200) == 64
    for d_model, least, most in ((256, 16, 64), (1024, 1, 1)):
        model = dataclasses.replace(run.model, d_model=d_model, n_layers=8)
        found = members.number(dataclasses.replace(run, model=model), config.Where(), "gpu", H200)
        assert least <= found <= most
    wide = dataclasses.replace(run, batch=2**17)
    assert members.number(wide, config.Where(), "gpu", H200) < 64
    # the optimizer's own state, and an average is one more copy of the parameters
    small = H200._replace(memory=2**26)
    plain, averaged, lion = (
        members.number(dataclasses.replace(run, **change), config.Where(), "gpu", small)
        for change in ({}, {"average": "ema(0.9)"}, {"optimizer": Lion()})
    )
    assert averaged < plain < lion < 64


def order(task, where) -> dict:
    return worker.order(task, members.together(where, task.members))


def served(todo, monkeypatch, errors, where=ALONE) -> tuple[dict, list[int]]:
    """What is said of orders where packs of any size raise `errors` first; members of each try."""
    seen, left, said = [], list(errors), {}

    def trained(where, more, tell, progress):
        given = [more() for _ in range(where.members)]
        seen.append(where.members)
        if left:
            raise left.pop(0)
        for o in given:
            if o:
                tell(pack.Told(o, {"status": "finished", "seconds": {"total": 1.0}}, None))

    def attempt(order, *_):
        seen.append(order["where"]["members"])
        return {"kind": "finished"}

    monkeypatch.setattr(pack, "train", trained)
    monkeypatch.setattr(attempts, "attempt", attempt)
    monkeypatch.setattr(attempts, "forget", lambda: None)
    orders = [order(t, where) for t in todo]
    packing.serve(
        orders, lambda: None, lambda id, **m: said.setdefault(id, m["kind"]), lambda *_: None
    )
    return said, seen


def test_out_of_memory_halves_the_members_once(tmp_path, monkeypatch):
    todo = tasks(runs("dense", 4, 20), tmp_path)
    said, seen = served(todo, monkeypatch, [FULL])
    assert list(said.values()) == ["finished"] * 2 and seen == [
        4,
        2,
    ]  # as `trained` takes K of them
    said, seen = served(todo, monkeypatch, [FULL, FULL])
    assert list(said.values()) == ["finished"] * 4 and seen == [4, 2, 1, 1, 1, 1]
    said, seen = served(todo, monkeypatch, [ValueError("a flaw of the program")])
    assert list(said.values()) == ["finished"] * 4 and seen == [4, 1, 1, 1, 1]
    with pytest.raises(preempt.Preempted):
        served(todo, monkeypatch, [preempt.Preempted("told to stop")])


def test_half_of_the_members_can_still_be_shared_out(tmp_path, monkeypatch):
    todo = tasks(runs("dense", 6, 20), tmp_path, 6)
    where = dataclasses.replace(ALONE, mesh="member=2")
    _, seen = served(todo, monkeypatch, [FULL], where)
    assert seen == [6, 2]


def test_a_run_that_joins_has_the_members_of_its_pack(tmp_path, monkeypatch):
    """Where they follow from the device as well: a pack that has ended is begun anew for it."""
    todo = tasks(runs("dense", 3, 20), tmp_path)
    given = []
    pool = local._Pool([], dataclasses.replace(ALONE, members=0), str(tmp_path), lambda *_: None)
    pool._todo = todo[2:]
    busy = types.SimpleNamespace(members=4, index=0, tasks={"x": todo[1]})
    busy.add = lambda task, where: given.append(where.members)
    pool._join(busy, todo[0])
    pool.close()
    assert given == [4] and pool._todo == []


def test_members_are_counted_by_trunks(tmp_path, monkeypatch):
    """The runs of a trunk come one after the other: they would leave most places empty."""
    monkeypatch.setattr(choice, "kind", lambda: "NVIDIA H200")
    todo = tasks(runs("dense", 8, 20), tmp_path, 1)
    chain = (trunk.Fork("other", 4),)
    todo = [t._replace(forks=chain if k > 1 else ()) for k, t in enumerate(todo)]
    place = engines.Place("gpu", 1, 1)
    assert {t.members for t in engines.packed(todo, todo, config.Where(), place)} == {2}
