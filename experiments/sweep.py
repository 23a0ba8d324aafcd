"""Runs a plan in a folder: skips what is finished, trains what is missing, never anything twice.

WORKDIR/sweep.json        which sweep this folder belongs to
WORKDIR/runs/ID/          one folder per run (launch/runs/record.py)
WORKDIR/analysis.json     fits;  WORKDIR/report.html  the report
"""

import dataclasses
import os
from collections.abc import Callable

from data import pipeline
from experiments.planning import grid as plans
from experiments.planning.grid import Plan, Planned, SweepJob
from launch import config, engines, files
from launch.runs import checks, ledger, predictions, record, trunk

SWEEP, RUNS, ANALYSIS, REPORT, FORECAST = (
    engines.SWEEP,
    engines.RUNS,
    "analysis.json",
    "report.html",
    "forecast.json",
)
OWN = {
    SWEEP,
    RUNS,
    ANALYSIS,
    REPORT,
    "forecast.json",
    predictions.FOLDER,
    "slurm",
    "skypilot",
    ".lock",
}  # what a sweep's folder may hold, besides workers' logs


def describe(job: SweepJob) -> dict:
    """What identifies a sweep, in words."""
    return {"sweep": config.to_dict(job.sweep), "run": config.brief(job.run)}


def check(job: SweepJob, plan: Plan) -> engines.Place:
    """Every run is checked before the first one compiles, and the engine too. Returns where they
    will train. Raises ConfigError or DataError.
    """
    place = engines.get(job.where).place(job.where, len(plan.runs))
    seen: dict = {}
    for p in plan.runs:
        d = dataclasses.replace(p.run.data, seed=0)
        if (p.shape, d) not in seen:
            seen.setdefault(d, pipeline.load(d, p.run.model.seq_len, job.where.cache))
            seen[p.shape, d] = None
            checks.check(p.run, job.where, seen[d], place.devices)
    return place


def identified(job: SweepJob, plan: Plan) -> Plan:
    """The plan with the content of every run's text named: arms may have texts of their own. Raises
    DataError.
    """
    known: dict = {}
    runs = []
    for p in plan.runs:
        d = dataclasses.replace(p.run.data, seed=0)
        if d not in known:
            known[d] = p.run.data.content or checks.identified(p.run, job.where).data.content
        data = dataclasses.replace(p.run.data, content=known[d])
        runs.append(p._replace(run=dataclasses.replace(p.run, data=data)))
    return plan._replace(runs=runs)


def claim(workdir: str, job: SweepJob, plan: Plan) -> None:
    """Makes the folder, or recognises it, or adds to it: a plan that holds every run of the
    folder's sweep is the same sweep, grown. Raises RecordError if the folder belongs to something
    else.
    """
    path, mine = os.path.join(workdir, SWEEP), plans.identity(job, plan)
    about = {"id": mine, **describe(job), "runs": [_entry(p) for p in plan.runs]}
    files.writable(workdir)
    names = files.contents(workdir)
    if SWEEP not in names:
        if any(n not in OWN and not n.startswith("worker-") for n in names):
            raise files.RecordError(
                f"{workdir} is not empty and holds no sweep: give another --workdir"
            )
        return files.write_json(path, about)
    other = files.read_json(path, "sweep")
    if other.get("id") == mine and "runs" in other:
        return None
    before = {r.get("id") for r in other.get("runs", []) if isinstance(r, dict)}
    grown = (
        before
        and before <= {p.id for p in plan.runs}
        and other.get("sweep", {}).get("name") == job.sweep.name
    )
    if other.get("id") != mine and not grown:
        differs = _difference(other, describe(job))
        back = "bring that text back, or " if "data.content=" in differs else ""
        if old := config.earlier(other.get("run")):
            raise files.RecordError(
                f"{workdir} belongs to another sweep{old}: give another --workdir"
            )
        raise files.RecordError(
            f"{workdir} belongs to another sweep ({differs}): {back}give another --workdir"
        )
    return files.write_json(path, about)


def _entry(p: Planned) -> dict:
    """What `isoflop status` says of a run that nobody has started."""
    return {
        "id": p.id,
        "family": p.family,
        "size": p.size,
        "tokens": p.tokens,
        "flops": p.flops,
        "spent": p.spent,
        "seconds": p.seconds,
    }


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


def results(workdir: str, plan: Plan | None = None) -> list[dict]:
    """Results in the folder, in the plan's order (or by folder name). Raises RecordError if one is
    damaged.
    """
    root = os.path.join(workdir, RUNS)
    names = [p.id for p in plan.runs] if plan else ledger.identities(root)
    found = []
    for name in names:
        if (r := record.result(os.path.join(root, name), name)) is not None:
            found.append(r)
    return found


def execute(
    workdir: str, job: SweepJob, plan: Plan, report: Callable[..., None] = lambda *a: None
) -> list[str]:
    """Trains what is missing, on the engine of `job.where`. Returns one line per run that
    failed.
    """
    return engines.submit(tasks(workdir, job, plan), job.where, workdir, report)


def tasks(workdir: str, job: SweepJob, plan: Plan) -> list[engines.Task]:
    def tags(p):
        return dict(p.tags, sweep=job.sweep.name)

    forks = trunk.chains([p.run for p in plan.runs]) if job.sweep.trunks else None
    return [
        engines.Task(
            *(p.run, engines.folder(workdir, p.id), tags(p), p.shape),
            (p.seconds or p.flops) * p.here,
            forks[i] if forks else None,
        )
        for i, p in enumerate(plan.runs)
    ]
