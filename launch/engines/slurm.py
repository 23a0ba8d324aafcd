"""Runs as the jobs of a Slurm array, through submitit: at most `where.workers` at once, each on
`where.slurm.nodes` nodes.

Where a run stands is read off its folder, and off squeue for the jobs that wait; never off submitit
or sacct, which knows nothing without accounting. Jobs are found again by the name of their array,
drawn anew for each submission: a controller that lost its memory gives job ids out again. The
command may be stopped and typed again; the jobs go on, and none is submitted twice.

    WORKDIR/slurm/TOKEN/orders.json    what the jobs named isoflop-TOKEN train, by array index: a
                                       run, or those of a pack; submitit's files and logs beside it
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

from launch import config, files
from launch.config import ConfigError, Where
from launch.devices import child_process, members, mesh
from launch.engines import DEATHS, Patience, Place, Task, attempts, packing, worker
from launch.runs import ledger, preempt, record

ORDERS = "orders.json"
ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
)
NOTICE = 90  # seconds before its time limit at which a job is told to save


def place(where: Where, runs: int) -> Place:
    """Raises ConfigError if this machine submits no jobs, or `where.slurm` asks for none that can
    be.
    """
    for command in ("sbatch", "squeue", "srun"):
        if not shutil.which(command):
            raise ConfigError(
                f"where.engine=slurm: no {command} on this machine; submit from a login node, or"
                " use --engine=local"
            )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ConfigError('where.engine=slurm wants submitit: pip install -e ".[slurm]"') from None
    s = where.slurm
    for name in ("nodes", "tasks_per_node", "cpus_per_task", "minutes"):
        if getattr(s, name) < 1:
            raise ConfigError(f"where.slurm.{name}={getattr(s, name)} must be at least 1")
    if where.members > 1 and s.nodes * s.tasks_per_node > 1:
        raise ConfigError(
            f"where.members={where.members} trains runs together in one process: leave"
            " where.slurm.nodes and where.slurm.tasks_per_node at 1"
        )
    if s.gpus_per_node < 0:
        raise ConfigError(f"where.slurm.gpus_per_node={s.gpus_per_node} cannot be negative")
    _extra(s.extra)
    devices = s.nodes * s.gpus_per_node or mesh.devices(where.mesh) or s.nodes * s.tasks_per_node
    return Place("gpu" if s.gpus_per_node else "cpu", devices, where.workers or runs)


def _extra(text: str) -> dict[str, str]:
    pairs = [p.partition("=") for p in text.split(",") if p.strip()]
    if any(not equals or not key.strip() for key, equals, _ in pairs):
        raise ConfigError(
            f"where.slurm.extra={text}: write options of sbatch as qos=high,constraint=h200"
        )
    return {k.strip().lstrip("-"): v.strip() for k, _, v in pairs}


def _root(workdir: str) -> str:
    return os.path.join(workdir, "slurm")


def send(tasks: list[Task], where: Where, workdir: str) -> str:
    """Submits one array with a job for each task, or for each pack of them. Returns the array's job
    id. Raises RecordError with sbatch's own words.
    """
    import submitit

    token, s = uuid.uuid4().hex[:10], where.slurm
    folder = os.path.join(_root(workdir), token)
    os.makedirs(folder)
    path = os.path.join(folder, ORDERS)
    jobs = packing.groups(tasks)

    def orders(group):
        here = members.together(where, group[0].members)
        return [worker.order(t, here) for t in group]

    about = {"ids": [[t.id for t in g] for g in jobs], "orders": [orders(g) for g in jobs]}
    files.write_json(path, about)
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(
        name=f"isoflop-{token}",
        nodes=s.nodes,
        tasks_per_node=s.tasks_per_node,
        cpus_per_task=s.cpus_per_task,
        timeout_min=s.minutes,
        slurm_array_parallelism=min(where.workers or len(jobs), len(jobs)),
        slurm_signal_delay_s=min(NOTICE, 30 * s.minutes),
        slurm_setup=[
            f"export PYTHONPATH='{child_process.ROOT}'${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1",  # no file of the user's folder stands in for ours
            "export PYTHONUNBUFFERED=1",
        ],
        slurm_srun_args=[
            "--kill-on-bad-exit=1"
        ],  # of several processes one that ends leaves no others waiting for it
        slurm_additional_parameters=_extra(s.extra),
        **({"gpus_per_node": s.gpus_per_node} if s.gpus_per_node else {}),
        **({"slurm_partition": s.partition} if s.partition else {}),
        **({"slurm_account": s.account} if s.account else {}),
    )
    try:
        sent = executor.map_array(serve, [path] * len(jobs), range(len(jobs)))
    except submitit.core.utils.FailedJobError as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise files.RecordError(
            f"sbatch refused the jobs: {' '.join(str(e).split())[-300:]}"
        ) from None
    return sent[0].job_id.partition("_")[0]


def queued(workdir: str) -> set[str] | None:
    """Ids of the runs whose jobs squeue knows of, waiting or running; None if squeue does not
    answer.
    """
    tokens = os.listdir(_root(workdir)) if os.path.isdir(_root(workdir)) else []
    if not tokens:
        return set()
    argv = ["squeue", "--noheader", "--array", "--me", "--format=%j %K %T"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    out = set()
    for line in answer.stdout.splitlines():
        name, index, state = (*line.split(), "", "", "")[:3]
        token = name.removeprefix("isoflop-")
        if token in tokens and state not in ENDED:
            with contextlib.suppress(files.RecordError, KeyError, IndexError):
                ids = files.read_json(os.path.join(_root(workdir), token, ORDERS), "orders")["ids"]
                mine = ids[int(index) if index.isdigit() else 0]  # a single job is no array
                out |= {mine} if isinstance(mine, str) else set(mine)
    return out


def serve(path: str, index: int) -> None:
    """What a job runs: one order of the file at `path`, or a pack of them. Ends with status 75
    where it was told to stop and has saved, 1 where a run failed, so that sacct says so.
    """
    signal.signal(
        signal.SIGUSR2, lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )  # the time limit is near
    orders = files.read_json(path, "orders")["orders"][index]
    worker.begin(config.from_dict(Where, orders[0]["where"]), several=True)
    if orders[0]["where"]["members"] > 1:
        said = packing.serve_job(orders)
    else:
        said = [attempts.serve_one(order) for order in orders]
    for message in said:
        print(json.dumps(message), flush=True)
    if any(message.get("kind") == "failed" for message in said):
        sys.exit(1)


class _Watch:
    """Follows the runs until each has a result or has failed; what ended without either is
    submitted again.
    """

    def __init__(self, tasks: list[Task], where: Where, workdir: str, report: Callable[..., None]):
        self._where, self._workdir, self._report = where, workdir, report
        self._open, self.failed = {t.id: t for t in tasks}, {}
        self._patience, self._sent, self._halved = Patience(), set(), set()

    def run(self) -> None:
        pause, announced = 1.0, False
        while self._open:
            waiting = queued(self._workdir)
            if waiting is None:
                if not announced:
                    print("isoflop: squeue does not answer; asking again", file=sys.stderr)
                announced = True
            else:
                again = self._look(waiting)
                if again:
                    number = send(again, self._where, self._workdir)
                    self._sent |= {t.id for t in again}
                    print(
                        f"isoflop: slurm: {len(again)} of {len(self._open)} open runs submitted as"
                        f" job {number}",
                        file=sys.stderr,
                    )
                    pause = 1.0
            if self._open:
                time.sleep(pause)
                pause = min(1.2 * pause, 15.0)

    def _look(self, waiting: set[str]) -> list[Task]:
        """Tells what has changed. Returns the runs to submit: not finished, not failed, held by
        nobody, known to no queue.
        """
        again = []
        for identity, task in list(self._open.items()):
            s = ledger.standing(task.folder, task.id)
            if s.state in ("done", "diverged"):
                self._end("finished", task, {"seconds": s.seconds})
            elif identity in waiting or s.state == "running":
                if s.step and s.of:
                    self._report("progress", identity, task, {"done": s.step, "total": s.of})
            elif record.to_be_halved(task.folder) and identity not in self._halved:
                self._halved.add(identity)
                again.append(task)
            elif s.state == "failed" and identity in self._sent:
                self._end("failed", task, {"error": s.why})
            elif identity in self._sent and self._died(task):
                why = (
                    f"its job ended {DEATHS} times in a row without a word and without progress"
                    f" (logs in {_root(self._workdir)})"
                )
                record.fail(task.folder, why)
                self._end("failed", task, {"error": why})
            elif identity in self._sent or task.ready(self._open):
                again.append(task)
        return again

    def _died(self, task: Task) -> bool:
        """Counts a job that is gone. Whether it was the last one that this run gets."""
        self._report("again", task.id, task, {})
        return self._patience.ends(task)

    def _end(self, kind: str, task: Task, message: dict) -> None:
        del self._open[task.id]
        if kind == "failed":
            self.failed[task.id] = message["error"]
        self._report(kind, task.id, task, message)


def submit(tasks: list[Task], where: Where, workdir: str, report: Callable[..., None]) -> dict:
    """Submits what no queue knows of, and follows all of it. Stopped, it leaves the jobs alone."""
    try:
        for t in tasks:
            os.makedirs(t.folder, exist_ok=True)
        watch = _Watch(tasks, where, workdir, report)
        watch.run()
        return watch.failed
    except preempt.Preempted:
        raise preempt.Preempted(
            "told to stop; the jobs go on, and the same command follows them again"
        ) from None
