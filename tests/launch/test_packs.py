"""Runs of a pack against the same runs alone, and against other packs."""

import dataclasses
import math
import pathlib
import types

import pytest

from experiments import cli
from launch import config, engines, files
from launch.devices import accelerators, choice, compiled, members
from launch.devices import mesh as meshes
from launch.engines import attempts, local, packing, worker
from launch.runs import checkpoint, member, pack, preempt, session, train, trunk
from launch.runs import program as programs
from model.optimizers import Lion
from tests.launch.stopped_runs import RUNS, WHERE, differences
from tests.launch.test_launch import lines

H200 = accelerators.device("NVIDIA H200")
ALONE = dataclasses.replace(WHERE, mesh="data=1", checkpoint_every=0, keep_final=True, log_every=1)


def runs(name: str, n: int, steps: int) -> list:
    """Runs of equal shape that differ in all that members may differ in."""
    base = RUNS[name]

    def one(k: int):
        return dataclasses.replace(
            base,
            seed=k,
            data=dataclasses.replace(base.data, seed=k),
            optimizer=dataclasses.replace(base.optimizer, lr=1e-3 * (1 + 0.2 * k)),
            horizon=config.Horizon(steps=steps + 3 * k),
        )

    return [one(k) for k in range(n)]


def packed(todo, folder, members: int, mesh: str = "data=1", **where) -> dict:
    """{folder of a run: what was told of it}, after all of `todo` went through a pack."""
    here = dataclasses.replace(ALONE, members=members, mesh=mesh, **where)
    orders = iter([pack.Order(run, str(folder / str(k)), {}) for k, run in enumerate(todo)])
    told: list[pack.Told] = []
    pack.train(here, lambda: next(orders, None), told.append)
    return {pathlib.Path(t.order.folder): t for t in told}


def losses(folder) -> list[float]:
    return [m["loss"] for m in lines(folder)]


@pytest.mark.parametrize(
    "name,mesh",
    [
        ("dense", "member=8"),
        pytest.param("dense", "data=1", marks=pytest.mark.slow),
        pytest.param("moe", "data=1", marks=pytest.mark.slow),
        pytest.param("moe", "member=8", marks=pytest.mark.slow),
    ],
)
def test_members_are_the_runs_they_would_be_alone(name, mesh, tmp_path):
    todo = runs(name, 9, 20)  # one more than there are places
    told = packed(todo, tmp_path, 8, mesh)
    assert len(told) == 9 and not any(t.error for t in told.values())
    for k in (0, 5, 8):
        alone = train.train(todo[k], ALONE, str(tmp_path / f"alone{k}"))
        mine = told[tmp_path / str(k)].result
        assert mine["id"] == alone["id"] and mine["steps"] == 20 + 3 * k
        assert mine["bytes"] == alone["bytes"] and mine["members"] == 8
        both = zip(losses(tmp_path / str(k)), losses(tmp_path / f"alone{k}"), strict=True)
        assert all(math.isclose(a, b, rel_tol=2e-6) for a, b in both)
        values = [r["validation"]["loss"] for r in (mine, alone)]
        assert math.isclose(*values, rel_tol=2e-6)


def test_nothing_reaches_another(tmp_path):
    """A member that diverges at once, and one that cannot write, leave the others' bits alone."""
    todo = runs("dense", 4, 30)
    packed(todo, tmp_path / "well", 4)
    wild = dataclasses.replace(todo[1], optimizer=dataclasses.replace(todo[1].optimizer, lr=1e9))
    (tmp_path / "ill").mkdir()
    (tmp_path / "ill" / "2").write_text("no folder")
    told = packed([todo[0], wild, *todo[2:]], tmp_path / "ill", 4)
    assert told[tmp_path / "ill" / "1"].result["status"] == "diverged"
    assert isinstance(told[tmp_path / "ill" / "2"].error, files.RecordError)
    for k in ("0", "3"):
        assert differences(tmp_path / "ill" / k, tmp_path / "well" / k) == []
    assert losses(tmp_path / "ill" / "1") != losses(tmp_path / "well" / "1")


def stopped(
    todo, folder, members: int, at: int, words="3 runs are saved", tell=lambda told: None, **where
) -> None:
    """A pack that is told to stop once a run has made so many steps."""
    here = dataclasses.replace(ALONE, members=members, **where)
    orders = iter([pack.Order(run, str(folder / str(k)), {}) for k, run in enumerate(todo)])
    job = pack._Pack(here, lambda: next(orders, None), tell, None, print)

    def progress(order, done, total):
        if done >= at:
            job.watcher._asked.set()

    job._progress = progress
    with pytest.raises(preempt.Preempted, match=words):
        job.run()


def test_a_stop_holds_where_one_cannot_be_saved(tmp_path, monkeypatch):
    """The full disk of one is told of it alone, and nobody trains on after SIGTERM."""
    own, told = session.Session.settle, []

    def settle(s):
        if s._folder.endswith("1"):
            raise files.RecordError("no space left")
        own(s)

    monkeypatch.setattr(session.Session, "settle", settle)
    stopped(runs("dense", 3, 12), tmp_path, 4, 7, "2 runs are saved", told.append)
    assert [t.order.folder[-1] for t in told] == ["1"] and told[0].result is None


@pytest.mark.parametrize("places,found", [(3, "member=1"), (4, "member=4")])
def test_devices_share_the_members_out(places, found, tmp_path):
    """Where no mesh is named; the batch need not be a multiple of them."""
    todo = [dataclasses.replace(r, batch=2) for r in runs("dense", 1, 2)]
    told = packed(todo, tmp_path, places, "")
    assert [t.result["where"]["mesh"] for t in told.values()] == [found]


def test_a_want_of_memory_is_no_single_runs(tmp_path, monkeypatch):
    def save(*_):
        raise FULL

    monkeypatch.setattr(member.Member, "save", save)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        packed(runs("dense", 2, 4), tmp_path, 2)


def test_a_run_whose_end_fails_has_its_result(tmp_path, monkeypatch):
    own = session.Session.__exit__

    def left(s, *error):
        own(s, *error)
        if s._folder.endswith("0"):
            raise OSError("the folder has gone")

    monkeypatch.setattr(session.Session, "__exit__", left)
    told = packed(runs("dense", 2, 4), tmp_path, 2)
    assert [t.result["status"] for t in told.values()] == ["finished"] * 2


def test_told_to_stop_and_typed_again(tmp_path):
    todo = runs("moe", 3, 12)
    packed(todo, tmp_path / "whole", 4)
    stopped(todo, tmp_path / "cut", 4, 7)
    assert all(checkpoint.steps(str(tmp_path / "cut" / str(k))) for k in range(3))
    packed(todo, tmp_path / "cut", 4)
    for k in range(3):
        assert differences(tmp_path / "cut" / str(k), tmp_path / "whole" / str(k)) == []


@pytest.mark.slow
def test_another_number_of_members_goes_on(tmp_path):
    todo = runs("dense", 3, 12)
    packed(todo, tmp_path / "whole", 4)
    stopped(todo, tmp_path / "cut", 4, 7)
    packed(todo, tmp_path / "cut", 2)
    for k in range(3):
        both = zip(losses(tmp_path / "cut" / str(k)), losses(tmp_path / "whole" / str(k)))
        assert all(math.isclose(a, b, rel_tol=2e-6) for a, b in both)


def test_nothing_is_communicated_along_members():
    run = runs("moe", 1, 20)[0]
    where = dataclasses.replace(ALONE, members=8, mesh="member=4,data=2")
    mesh = meshes.make(meshes.parse(where.mesh))
    said = compiled.over(run.model, programs.execution(run, where), run.batch, mesh, members=8)
    assert {row["axes"] for row in said["collectives"]} == {"data"}  # the sums of gradients


# ---- which runs are trained together, and what a worker does with them


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


FULL = RuntimeError("RESOURCE_EXHAUSTED: Out of memory")


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


@pytest.mark.parametrize(
    "args,words",
    [
        (["train", "--config=tiny_dense", "--set=where.members=4"], "for the runs of a sweep"),
        (
            ["train", "--config=tiny_dense", "--mesh=member=2"],
            "set where.members to a multiple of 2",
        ),
        (["sweep", "--set=where.members=3", "--mesh=member=2"], "set where.members to a multiple"),
        (["sweep", "--set=where.members=-1"], "where.members=-1 cannot be negative"),
        (["sweep", "--set=where.members=2", "--set=where.moe=ragged"], "is not mapped over"),
    ],
)
def test_bad_input(args, words, tmp_path, capsys):
    args = [*args, f"--workdir={tmp_path / 'w'}"]
    if args[0] == "sweep":
        args.insert(1, "--config=quickstart")
    assert cli.main(args) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1 and not (tmp_path / "w").exists()
