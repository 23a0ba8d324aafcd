"""Runs of a pack against the same runs alone, and against other packs."""

import dataclasses
import math
import pathlib

import pytest

from experiments import cli
from launch import config, files
from launch.devices import accelerators, compiled
from launch.devices import mesh as meshes
from launch.runs import checkpoint, member, pack, preempt, session, train
from launch.runs import program as programs
from tests.launch.stopped_runs import RUNS, WHERE, differences
from tests.launch.test_launch import lines

H200 = accelerators.device("NVIDIA H200")
ALONE = dataclasses.replace(WHERE, mesh="data=1", checkpoint_every=0, keep_final=True, log_every=1)
FULL = RuntimeError("RESOURCE_EXHAUSTED: Out of memory")


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
