"""The default engine: a pool of worker processes on this machine, one per CPU core or GPU, each serving many runs.

Each shape is compiled by one worker and kept there; a worker that runs out takes over the rest of another's shape, whose
program it finds in the persistent compilation cache.
"""

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from launch import allocator, config, hardware, mesh, preempt
from launch.config import Where

GRACE = 25.0  # seconds that workers have to save: Slurm gives 30 between SIGTERM and SIGKILL


class Task(NamedTuple):
    """One run to train. `shape`: tasks of equal shape share a compiled program. `cost`: relative, for the order."""

    run: config.Run
    folder: str
    tags: dict
    shape: Any
    cost: float


def count(where: Where, platform: str, devices: int, tasks: int) -> int:
    """Workers: as asked, else one per core on CPU or one per GPU; one for all devices of a TPU or an explicit mesh."""
    if where.mesh or platform not in ("cpu", "gpu", "cuda", "rocm"):
        return 1
    return max(1, min(where.workers or (len(hardware.cores()) if platform == "cpu" else devices), tasks))


def devices_each(where: Where, platform: str, devices: int, workers: int) -> int:
    """Devices that each of `workers` sees. A CPU is one device, or as many simulated ones as an explicit mesh wants."""
    if platform == "cpu":
        return math.prod(mesh.parse(where.mesh).values())  # 1 for no mesh
    return devices if workers == 1 else 1


def _environment(index: int, workers: int, platform: str) -> dict:
    """Each worker sees its own core or card. One core needs no thread pool inside a matmul."""
    env = dict(os.environ)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    if platform == "cpu":
        env["JAX_PLATFORMS"] = "cpu"
        flags = [f for f in env.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]  # devices_each says how many
        if workers > 1:
            flags.append("--xla_cpu_multi_thread_eigen=false")
        env["XLA_FLAGS"] = " ".join(flags)  # empty is well, a lone space is read as a file's name
    elif workers > 1:
        visible = env.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(workers)))).split(",")
        env["CUDA_VISIBLE_DEVICES"] = visible[index % len(visible)]
    return {**env, **allocator.environment()}


class _Worker:
    """A process, the task it trains, and the shapes it has compiled."""

    def __init__(self, index: int, workers: int, platform: str, folder: str, keep: tuple[int, ...]):
        cores = hardware.cores()
        pin = None
        if platform == "cpu" and workers > 1 and hasattr(os, "sched_setaffinity"):
            pin = lambda: os.sched_setaffinity(0, {cores[index % len(cores)]})
        self.log = os.path.join(folder, f"worker-{index}.log")
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launch.engines.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=_environment(index, workers, platform),
                preexec_fn=pin,
                pass_fds=keep,
            )
        self.index, self.task, self.shapes, self._rest = index, None, set(), b""

    def give(self, task: Task, where: Where) -> None:
        self.task = task
        self.shapes.add(task.shape)
        order = {"run": config.to_dict(task.run), "where": config.to_dict(where), "folder": task.folder, "tags": task.tags}
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:  # it has died: its closed stdout says so next
            pass

    def answers(self) -> list[dict] | None:
        """Messages that have arrived; None when the process has ended. Called when its stdout is readable."""
        chunk = os.read(self.process.stdout.fileno(), 65536)
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def choose(todo: list[Task], mine: set, others: set) -> Task:
    """The next task of a worker: of a shape it has compiled, else of a shape nobody has, else of any; costliest first.

    Among new shapes, the one with the most work left is opened first."""
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


def run(
    tasks: list[Task], where: Where, folder: str, report: Callable[..., None], workers: int, platform: str, keep: tuple[int, ...] = ()
) -> list[str]:
    """Trains all tasks. report(kind, worker, task, message) for kind started | progress | finished | failed.

    `keep`: file descriptors that workers inherit (a lock that lives as long as any of them). Returns one line per task that
    failed. A worker that dies is replaced once per task; its task then counts as failed.
    """
    todo, failures = list(tasks), []
    pool = [_Worker(i, workers, platform, folder, keep) for i in range(min(workers, len(todo)))]
    selector = selectors.DefaultSelector()

    def next_task(w: _Worker):
        w.task = None
        if todo:
            others = set().union(*(o.shapes for o in pool if o is not w))
            task = choose(todo, w.shapes, others)
            todo.remove(task)
            w.give(task, where)
            report("started", w.index, task, {})
        else:
            w.process.stdin.close()

    try:
        for w in pool:
            selector.register(w.process.stdout, selectors.EVENT_READ, w)
            next_task(w)
        while any(w.task for w in pool):
            for key, _ in selector.select():
                w = key.data
                messages = w.answers()
                if messages is not None:
                    for message in messages:
                        kind = message.pop("kind")
                        report(kind, w.index, w.task, message)
                        if kind == "failed":
                            failures.append(f"run {config.run_id(w.task.run)}: {message['error']} (trace in {w.log})")
                        if kind != "progress":
                            next_task(w)
                    continue
                selector.unregister(w.process.stdout)
                if w.task:  # it died
                    failures.append(
                        f"run {config.run_id(w.task.run)}: worker {w.index} ended with status {w.process.wait()} (log in {w.log})"
                    )
                    report("failed", w.index, w.task, {"error": failures[-1]})
                    w.task = None
                    w.close()
                    if todo:
                        fresh = _Worker(w.index, workers, platform, folder, keep)
                        pool[w.index] = fresh
                        selector.register(fresh.process.stdout, selectors.EVENT_READ, fresh)
                        next_task(fresh)
    except preempt.Preempted:  # every worker saves what it has, and ends
        for w in pool:
            w.process.terminate()
        deadline = time.monotonic() + GRACE
        while any(w.process.poll() is None for w in pool) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise
    finally:
        for w in pool:
            if w.task and w.process.poll() is None:
                w.process.kill()
        for w in pool:
            w.close()
        selector.close()
    return failures
