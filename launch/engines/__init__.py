"""Engines take runs to results; nothing else imports them. One file and one line here each.

An engine module has

    place(where, runs) -> Place               what `runs` runs will train on; raises ConfigError for
                                              what is missing here
    submit(tasks, where, workdir, report)     trains them, or hands them to what does; returns why
                                              runs failed, by id, as it saw it itself

What is finished is the folder's to say, never the engine's: WORKDIR/runs/ID/result.json, written
once and last. Every engine skips what is finished, takes over what died, halves the micro-batch
once where memory ran out (launch/engines/attempts.py), and submits again what ended with status 75.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from launch import config
from launch.config import ConfigError, Where
from launch.runs import record

if TYPE_CHECKING:
    from launch.runs import trunk

ENGINES = {
    "local": "launch.engines.local",
    "slurm": "launch.engines.slurm",
    "skypilot": "launch.engines.skypilot",
}
SWEEP, RUNS = "sweep.json", "runs"
# times in a row that a run's process may die, without a word and without progress, before the run
# counts as failed
DEATHS = 3
# the same for ends with status 75, "told to stop, try again": somebody may stop it without end
STOPS = 10


class Task(NamedTuple):
    """One run to train in `folder`. `shape`: tasks of equal shape share a compiled program. `cost`:
    relative, for the order. `forks`: of its trunk, at which it may begin, the nearest first; None:
    it has none. `members`: of the pack that it is trained in (launch/runs/pack.py); 1: alone.
    """

    run: config.Run
    folder: str
    tags: dict
    shape: Any
    cost: float
    forks: tuple[trunk.Fork, ...] | None = None
    members: int = 1

    @property
    def id(self) -> str:
        return config.run_id(self.run)

    def ready(self, to_come: Collection[str]) -> bool:
        """Whether it may begin: the nearest fork stands, or is not `to_come`, by one of the runs
        that are still to be trained.
        """
        from launch.runs import checkpoint, trunk

        if not self.forks or self.forks[0].run not in to_come:
            return True
        return trunk.saved(self.folder, self.forks[0]) or bool(checkpoint.steps(self.folder))

    @property
    def alike(self) -> Any:
        """Equal for runs that can share a pack."""
        from launch.devices import members

        return members.alike(self.run, self.shape)


class Patience:
    """With processes that die without a word: DEATHS times in a row for a run that gets no further
    than its last checkpoint.
    """

    def __init__(self):
        self._deaths, self._reached = Counter(), {}

    def ends(self, task: Task, most: int = DEATHS) -> bool:
        """Counts one more death of the run, of a kind that it may die `most` times. Whether it was
        the last.
        """
        from launch.runs import checkpoint

        reached = (checkpoint.steps(task.folder) or [0])[-1]
        if reached > self._reached.get((task.id, most), 0):
            self._deaths[task.id, most] = 0
        self._reached[task.id, most] = reached
        self._deaths[task.id, most] += 1
        return self._deaths[task.id, most] >= most

    def last_chance(self, task: Task) -> bool:
        """Whether one more death of the run would be its last."""
        return self._deaths[task.id, DEATHS] == DEATHS - 1


class Place(NamedTuple):
    """What runs train on: cpu | gpu | tpu, the devices that one run sees, and how many runs train
    at once.
    """

    platform: str
    devices: int
    workers: int


def get(where: Where):
    """The module of `where.engine`. Raises ConfigError."""
    if where.engine not in ENGINES:
        raise ConfigError(f"where.engine={where.engine!r}: choose from {', '.join(ENGINES)}")
    return importlib.import_module(ENGINES[where.engine])


def folder(workdir: str, identity: str) -> str:
    return os.path.join(workdir, RUNS, identity)


def packed(runs: list[Task], todo: list[Task], where: Where, place: Place) -> list[Task]:
    """`todo`, each with the members of its pack. They are those that all `runs` of the sweep ask
    for, not those left: the number of members decides the last bits. Of a trunk, whose runs come
    one after the other, only the first counts.
    """
    from launch.devices import members

    count = Counter(t.alike for t in runs if not t.forks)
    device = members.here() if place.platform != "cpu" else None

    def one(task: Task) -> Task:
        most = members.number(task.run, where, place.platform, device)
        share = -(-count[task.alike] // place.workers)
        return task._replace(members=members.places(share, most, where))

    return [one(t) for t in todo]


def submit(
    runs: list[Task], where: Where, workdir: str, report: Callable[..., None] = lambda *a: None
) -> list[str]:
    """Takes `runs` to results in `workdir` on `where.engine`; what has one is left alone. Returns a
    line per run that failed.

    report(kind, worker, task, message): started | progress | again | finished | failed.
    """
    todo = [t for t in runs if record.result(t.folder, t.id) is None]
    if not todo:
        return []
    engine = get(where)
    # of all runs, not of those left: how many share the machine decides the threads of each, and so
    # its last bits
    place = engine.place(where, len(runs))
    where = dataclasses.replace(where, workers=place.workers)
    todo = packed(runs, todo, where, place)
    seen = engine.submit(todo, where, workdir, report) or {}
    return [
        f"run {t.id}: {why}"
        for t in todo
        if record.result(t.folder) is None
        and (why := record.failure(t.folder) or seen.get(t.id))  # a full disk holds no note
    ]
