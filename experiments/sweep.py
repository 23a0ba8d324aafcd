"""Runs a plan in a folder: skips what is finished, trains what is missing, never anything twice.

WORKDIR/sweep.json        which sweep this folder belongs to
WORKDIR/runs/ID/          one folder per run (launch/record.py)
WORKDIR/analysis.json     fits;  WORKDIR/report.html  the report
"""

import os
from collections.abc import Callable

from data import pipeline
from experiments import plan as plans
from experiments.plan import Plan, Planned, SweepJob
from launch import config, hardware, record, train
from launch.engines import local

SWEEP, RUNS, ANALYSIS, REPORT = "sweep.json", "runs", "analysis.json", "report.html"


def describe(job: SweepJob) -> dict:
    """What identifies a sweep, in words."""
    return {"sweep": config.to_dict(job.sweep), "run": config.brief(job.run)}


def check(job: SweepJob, plan: Plan) -> None:
    """Every run is checked before the first one compiles. Raises ConfigError or DataError."""
    dataset = pipeline.load(job.run.data, job.run.model.seq_len, job.where.cache)
    platform, devices = hardware.probe()
    each = local.devices_each(job.where, platform, devices, local.count(job.where, platform, devices, len(plan.runs)))
    for shape in {p.shape: p for p in plan.runs}.values():
        train.check(shape.run, job.where, dataset, each)


def claim(workdir: str, job: SweepJob, plan: Plan) -> None:
    """Makes the folder, or recognises it. Raises RecordError if it belongs to something else."""
    path, mine = os.path.join(workdir, SWEEP), plans.identity(job, plan)
    if os.path.exists(path):
        other = record.read_json(path, "sweep")
        if other.get("id") != mine:
            raise record.RecordError(f"{workdir} belongs to another sweep ({_difference(other, describe(job))}): give another --workdir")
        return
    record.writable(workdir)
    if record.contents(workdir):
        raise record.RecordError(f"{workdir} is not empty and holds no sweep: give another --workdir")
    record.write_json(path, {"id": mine, **describe(job)})


def _difference(other: dict, mine: dict) -> str:
    """The first field in which two sweeps differ."""

    def flat(d, prefix=""):
        for k, v in d.items():
            if isinstance(v, dict):
                yield from flat(v, f"{prefix}{k}.")
            else:
                yield prefix + k, v

    a, b = (dict(flat({k: d.get(k, {}) for k in ("sweep", "run")})) for d in (other, mine))
    for key in sorted(set(a) | set(b)):
        if a.get(key) != b.get(key):
            return f"there {key}={a.get(key)}, here {b.get(key)}"
    return "made by another version"


def folder(workdir: str, p: Planned) -> str:
    return os.path.join(workdir, RUNS, p.id)


def results(workdir: str, plan: Plan | None = None) -> list[dict]:
    """Results in the folder, in the plan's order (or by folder name). Raises RecordError if one is damaged."""
    root = os.path.join(workdir, RUNS)
    names = [p.id for p in plan.runs] if plan else sorted(os.listdir(root)) if os.path.isdir(root) else []
    found = []
    for name in names:
        r = record.result(os.path.join(root, name))
        if r is not None:
            if r["id"] != name:
                raise record.RecordError(f"result {os.path.join(root, name, record.RESULT)} is of run {r['id']}: move it away")
            found.append(r)
    return found


def execute(workdir: str, job: SweepJob, plan: Plan, report: Callable[..., None], lock_fd: int) -> list[str]:
    """Trains what is missing. Returns one line per run that failed."""
    platform, devices = hardware.probe()
    done = {r["id"] for r in results(workdir, plan)}
    tasks = [
        local.Task(p.run, folder(workdir, p), dict(p.tags, sweep=job.sweep.name), p.shape, p.seconds or p.flops)
        for p in plan.runs
        if p.id not in done
    ]
    if not tasks:
        return []
    workers = local.count(job.where, platform, devices, len(tasks))
    return local.run(tasks, job.where, workdir, report, workers, platform, keep=(lock_fd,))
