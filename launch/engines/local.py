"""The default engine: a pool of worker processes on this machine, one per CPU core or GPU, each
serving many runs.

Each shape is compiled by one worker and kept there; a worker that runs out takes over the rest of
another's shape, whose program it finds in the persistent compilation cache. Several commands may
serve one folder: a run that another holds is left to it.
"""

import contextlib
import errno
import math
import os
import selectors
import tempfile
import time
from collections.abc import Callable

from launch.config import Where
from launch.devices import choice, mesh
from launch.devices import members as packs
from launch.engines import (
    DEATHS,
    STOPS,
    Patience,
    Place,
    Task,
    attempts,
    packing,
    processes,
    worker,
)
from launch.runs import lease, preempt, record

LOOK = 1.0  # seconds between looks at runs that others hold


def place(where: Where, runs: int) -> Place:
    platform, devices = choice.probe()
    workers = count(where, platform, devices, runs)
    return Place(platform, devices_each(where, platform, devices, workers), workers)


def count(where: Where, platform: str, devices: int, tasks: int) -> int:
    """Workers: as asked, else one per core on CPU or one per GPU; one for all devices of a TPU or
    an explicit mesh.
    """
    if where.mesh or platform not in ("cpu", "gpu", "cuda", "rocm"):
        return 1
    return max(
        1, min(where.workers or (len(choice.cores()) if platform == "cpu" else devices), tasks)
    )


def devices_each(where: Where, platform: str, devices: int, workers: int) -> int:
    """Devices that each of `workers` sees. A CPU is one device, or as many simulated ones as an
    explicit mesh wants.
    """
    if platform == "cpu":
        return math.prod(mesh.parse(where.mesh).values())  # 1 for no mesh
    return devices if workers == 1 else 1


def choose(todo: list[Task], mine: set, others: set) -> Task:
    """The next task of a worker: of a shape it has compiled, else of a shape nobody has, else of
    any; costliest first.

    Among new shapes, the one with the most work left is opened first.
    """
    left = {}
    for t in todo:
        left[t.shape] = left.get(t.shape, 0) + t.cost
    for pool, key in (
        ([t for t in todo if t.shape in mine], lambda t: t.cost),
        ([t for t in todo if t.shape not in others], lambda t: (left[t.shape], t.cost)),
        (todo, lambda t: t.cost),
    ):
        if pool:
            return max(pool, key=key)
    raise ValueError("no task left")


def no_room(folder: str) -> bool:
    """Whether a small file cannot be written in `folder` because its disk is full."""
    try:
        with tempfile.TemporaryFile(dir=folder) as f:
            f.write(bytes(2**16))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        return attempts.no_space(e)
    return False


class _Pool:
    """Workers, what is to do, and what other commands are doing."""

    def __init__(self, tasks: list[Task], where: Where, workdir: str, report: Callable[..., None]):
        self._where, self._workdir, self._report = where, workdir, report
        self._todo, self._elsewhere, self._patience, self._looked = list(tasks), [], Patience(), 0.0
        self.full = False  # the disk: what is not begun yet stays so
        self._platform, _, count = place(where, len(tasks))
        self._share = (
            where.workers or count
        )  # of the machine: one part in so many, also where fewer runs are left
        self._selector, self.workers, self.failed = selectors.DefaultSelector(), [], {}
        for i in range(count):
            self.workers.append(self._start(i))

    def _start(self, index: int) -> processes.Worker:
        w = processes.Worker(index, self._share, self._platform, self._workdir)
        self._selector.register(w.process.stdout, selectors.EVENT_READ, w)
        return w

    def run(self) -> None:
        while self._todo or self._elsewhere or any(w.tasks for w in self.workers):
            for w in self.workers:
                if not w.tasks and (ready := self._ready()):
                    self._give(w, ready)
            for key, _ in self._selector.select(LOOK):
                self._listen(key.data)
            # one that hangs is stopped from outside (SIGSTOP, a dead disk); killed, it counts as
            # dead
            for w in self.workers:
                if not w.closed and time.monotonic() - w.heard > max(
                    self._where.lease, 10 * worker.HEARTBEAT
                ):
                    w.process.kill()
            self._look()

    def _ready(self) -> list[Task]:
        """What may begin now; a run waits for the fork of its trunk that another is to leave."""
        if not self._todo:
            return []
        at_work = [t for w in self.workers for t in w.tasks.values()]
        to_come = {t.id for t in (*self._todo, *self._elsewhere, *at_work) if t.forks is not None}
        return [t for t in self._todo if t.ready(to_come)]

    def _give(self, w: processes.Worker, ready: list[Task]) -> None:
        if w.closed:
            w = self.workers[w.index] = self._start(w.index)
        others = set().union(*(o.shapes for o in self.workers if o is not w))
        task = choose(ready, w.shapes, others)
        several, where = self._together(task, ready)
        for t in several:
            self._todo.remove(t)
        w.give(several, where)
        for t in several:
            self._report("started", w.index, t, {})

    def _together(self, task: Task, ready: list[Task]) -> tuple[list[Task], Where]:
        """What a worker trains at once, and how. A run that has cost workers their lives has a pack
        for itself.
        """
        where = packs.together(self._where, task.members)
        if task.members == 1 or self._patience.last_chance(task):
            return [task], where
        free = [t for t in ready if not self._patience.last_chance(t)]
        return packing.companions(task, free, len(self.workers)), where

    def _join(self, w: processes.Worker, left: Task) -> None:
        """Gives a worker one more run in the place of one that has left its pack."""
        if w.members == 1 or not w.tasks:
            return
        alike = left.alike
        same = [t for t in self._ready() if t.alike == alike]
        same = [t for t in same if not self._patience.last_chance(t)]
        if same:
            task = max(same, key=lambda t: t.cost)
            self._todo.remove(task)
            # the pack may have ended by then: its own
            w.add(task, packs.together(self._where, task.members))
            self._report("started", w.index, task, {})

    def _listen(self, w: processes.Worker) -> None:
        messages = w.answers()
        if messages is None:
            return self._died(w)
        for message in messages:
            kind = message.pop("kind")
            if kind == "alive":
                continue
            task = w.tasks[message.pop("id")]
            if kind != "progress":
                del w.tasks[task.id]
            if kind == "failed" and message.get("full"):
                self._stop_handing_out()
                kind = "again"
            if kind == "failed":
                self.failed[task.id] = message["error"]
            if kind == "elsewhere":
                self._elsewhere += [task] * (not self.full)
                kind = "again"
            self._report(kind, w.index, task, message)
            if kind != "progress":
                self._join(w, task)
        return None

    def _died(self, w: processes.Worker) -> None:
        self._selector.unregister(w.process.stdout)
        status, tasks = w.close(), list(w.tasks.values())
        w.tasks.clear()
        if tasks and no_room(self._workdir):
            self._stop_handing_out()
        for task in tasks:
            self._again(w, task, status)

    def _again(self, w: processes.Worker, task: Task, status: int) -> None:
        """What becomes of a run whose worker has ended."""
        if self.full:
            return self._report("again", w.index, task, {})
        # 75: told to stop, by someone else than us; it has saved
        most = STOPS if status == preempt.STATUS else DEATHS
        if not self._patience.ends(task, most):
            self._todo.append(task)
            return self._report("again", w.index, task, {})
        said = w.last_words()
        why = (
            f"its worker ended {most} times in a row, at last with status {status}, and got no"
            f" further{f': {said}' if said else ''} (log in {w.log})"
        )
        with contextlib.suppress(OSError):
            record.fail(task.folder, why)
        self.failed[task.id] = why
        self._report("failed", w.index, task, {"error": why})

    def _stop_handing_out(self) -> None:
        """A full disk: what trains may end, nothing else is begun."""
        self.full = True
        self._todo.clear()
        self._elsewhere.clear()

    def _look(self) -> None:
        """Runs that other commands hold: done by now, or free again?"""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        for task in list(self._elsewhere):
            if os.path.exists(os.path.join(task.folder, record.RESULT)):
                self._report("finished", -1, task, {"seconds": None})
            elif lease.living(task.folder):
                continue
            else:
                self._todo.append(task)
            self._elsewhere.remove(task)

    def stop(self) -> None:
        """Every worker saves what it has, and ends."""
        for w in self.workers:
            if not w.closed:
                w.process.terminate()
        deadline = time.monotonic() + processes.GRACE
        while any(w.process.poll() is None for w in self.workers) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        for w in self.workers:
            if w.tasks and w.process.poll() is None:
                w.process.kill()
        for w in self.workers:
            if not w.closed:
                w.close()
        self._selector.close()


def submit(tasks: list[Task], where: Where, workdir: str, report: Callable[..., None]) -> dict:
    """Trains all tasks. A worker that dies is replaced and its run tried again, DEATHS times in
    all; a run whose result is taken away meanwhile is trained again. Returns why runs failed, by
    id. Raises OSError once the disk is full.
    """
    failed = {}
    while tasks:
        pool = _Pool(tasks, where, workdir, report)
        try:
            pool.run()
        except preempt.Preempted:
            pool.stop()
            raise
        finally:
            pool.close()
        if pool.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), workdir)
        failed |= pool.failed
        tasks = [
            t
            for t in tasks
            if t.id not in failed and not os.path.exists(os.path.join(t.folder, record.RESULT))
        ]
    return failed
