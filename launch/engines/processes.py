"""A worker process of the local engine: its core or card, what it is given, what it answers."""

import contextlib
import json
import os
import re
import subprocess
import time

from launch.config import Where
from launch.devices import allocator, child_process, choice
from launch.engines import Task, worker

GRACE = 25.0  # seconds that workers have to save: Slurm gives 30 between SIGTERM and SIGKILL
# a line of a log that says what went wrong: Python's, or the C library's
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Exit)\b|F\d{4} |Fatal|isoflop: ")


def environment(index: int, workers: int, platform: str) -> dict:
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


class Worker:
    """A process, the tasks it trains, by their ids, the shapes it has compiled, and when it was
    last heard. `members`: how many it trains at once.
    """

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
                env=environment(index, workers, platform),
                preexec_fn=pin,
            )
        self.index, self._rest, self.heard = index, b"", time.monotonic()
        self.tasks: dict[str, Task] = {}
        self.shapes: set = set()
        self.members = 1

    def give(self, tasks: list[Task], where: Where) -> None:
        """Tasks that it trains together."""
        self.members = where.members
        self.tasks |= {t.id: t for t in tasks}
        self.shapes.add(tasks[0].shape)
        self._write({"orders": [worker.order(t, where) for t in tasks]})

    def add(self, task: Task, where: Where) -> None:
        """One more, for a place that has become free."""
        self.tasks[task.id] = task
        self._write(worker.order(task, where) | {"joins": True})

    def _write(self, order: dict) -> None:
        # where the worker has died, its closed stdout is noticed next
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order).encode() + b"\n")

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
