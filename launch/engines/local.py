"""The default engine: a pool of worker processes on this machine, one per CPU core or GPU, each
serving many runs.

Each shape is compiled by one worker and kept there; a worker that runs out takes over the rest of
another's shape, whose program it finds in the persistent compilation cache. Several commands may
serve one folder: a run that another holds is left to it.
"""

import contextlib
import errno
import json
import math
import os
import re
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable

from launch.config import Where
from launch.devices import allocator, child_process, choice, mesh
from launch.engines import DEATHS, STOPS, Patience, Place, Task, worker
from launch.runs import lease, preempt, record

GRACE = 25.0  # seconds that workers have to save: Slurm gives 30 between SIGTERM and SIGKILL
LOOK = 1.0  # seconds between looks at runs that others hold
# a line of a log that says what went wrong: Python's, or the C library's
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Exit)\b|F\d{4} |Fatal|isoflop: ")


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


def _environment(index: int, workers: int, platform: str) -> dict:
    """Each worker sees its own core or card. One core needs no thread pool inside a matmul."""
    env = {**child_process.environment(), "PYTHONUNBUFFERED": "1"}
    if platform == "cpu":
        env["JAX_PLATFORMS"] = "cpu"
        flags = [
            f for f in env.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f
        ]  # devices_each says how many
        if workers > 1:
            flags.append("--xla_cpu_multi_thread_eigen=false")
        env["XLA_FLAGS"] = " ".join(flags)  # empty is well, a lone space is read as a file's name
    elif workers > 1:
        visible = env.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(workers)))).split(",")
        env["CUDA_VISIBLE_DEVICES"] = visible[index % len(visible)]
    return {**env, **allocator.environment()}


class _Worker:
    """A process, the task it trains, the shapes it has compiled, and when it was last heard."""

    def __init__(self, index: int, workers: int, platform: str, folder: str):
        cores = choice.cores()
        pin = None
        if platform == "cpu" and workers > 1 and hasattr(os, "sched_setaffinity"):

            def pin():
                return os.sched_setaffinity(0, {cores[index % len(cores)]})

        self.log = os.path.join(folder, f"worker-{index}.log")
        self._log_start = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                child_process.command("-m", "launch.engines.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=_environment(index, workers, platform),
                preexec_fn=pin,
            )
        self.index, self.task, self.shapes, self._rest, self.heard = (
            index,
            None,
            set(),
            b"",
            time.monotonic(),
        )

    def give(self, task: Task, where: Where) -> None:
        self.task = task
        self.shapes.add(task.shape)
        with contextlib.suppress(
            BrokenPipeError
        ):  # the worker died; its closed stdout is noticed next
            self.process.stdin.write(json.dumps(worker.order(task, where)).encode() + b"\n")

    def answers(self) -> list[dict] | None:
        """Messages that have arrived; None when the process has ended. Called when its stdout is
        readable.
        """
        chunk = os.read(self.process.stdout.fileno(), 65536)
        if not chunk:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> int:
        """Waits for its end and returns its status."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            status = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:  # stopped, or stuck
            self.process.kill()
            status = self.process.wait()
        self.process.stdout.close()
        return status

    def last_words(self) -> str:
        """The first line of its log that says what went wrong, else the last one."""
        with contextlib.suppress(OSError), open(self.log, errors="replace") as f:
            f.seek(self._log_start)
            lines = [line.strip() for line in f.read(2**20).splitlines() if line.strip()]
            found = [line for line in lines if ERROR.match(line)] or lines[-1:]
            return found[0][:300] if found else ""
        return ""

    @property
    def closed(self) -> bool:
        return self.process.stdout.closed


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
        return worker.no_space(e)
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

    def _start(self, index: int) -> _Worker:
        w = _Worker(index, self._share, self._platform, self._workdir)
        self._selector.register(w.process.stdout, selectors.EVENT_READ, w)
        return w

    def run(self) -> None:
        while self._todo or self._elsewhere or any(w.task for w in self.workers):
            for w in self.workers:
                if not w.task and (ready := self._ready()):
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
        at_work = [w.task for w in self.workers if w.task]
        to_come = {t.id for t in (*self._todo, *self._elsewhere, *at_work) if t.forks is not None}
        return [t for t in self._todo if t.ready(to_come)]

    def _give(self, w: _Worker, ready: list[Task]) -> None:
        if w.closed:
            w = self.workers[w.index] = self._start(w.index)
        others = set().union(*(o.shapes for o in self.workers if o is not w))
        task = choose(ready, w.shapes, others)
        self._todo.remove(task)
        w.give(task, self._where)
        self._report("started", w.index, task, {})

    def _listen(self, w: _Worker) -> None:
        messages = w.answers()
        if messages is None:
            return self._died(w)
        for message in messages:
            kind, task = message.pop("kind"), w.task
            if kind == "alive":
                continue
            if kind != "progress":
                w.task = None
            if kind == "failed" and message.get("full"):
                self._stop_handing_out()
                kind = "again"
            if kind == "failed":
                self.failed[task.id] = message["error"]
            if kind == "elsewhere":
                self._elsewhere += [task] * (not self.full)
                kind = "again"
            self._report(kind, w.index, task, message)

    def _died(self, w: _Worker) -> None:
        self._selector.unregister(w.process.stdout)
        status, task = w.close(), w.task
        w.task = None
        if not task:
            return None
        if no_room(self._workdir):
            self._stop_handing_out()
            return self._report("again", w.index, task, {})
        # 75: told to stop, by someone else than us; it has saved
        most = STOPS if status == preempt.STATUS else DEATHS
        if not self._patience.ends(task, most):
            if not self.full:
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
        deadline = time.monotonic() + GRACE
        while any(w.process.poll() is None for w in self.workers) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        for w in self.workers:
            if w.task and w.process.poll() is None:
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
