"""Plans an isoFLOP sweep, trains it, fits it and writes its report. Stopped and typed again, it
trains only what is missing.

isoflop sweep --config=quickstart --workdir=runs/quickstart
isoflop sweep --config=quickstart --workdir=runs/q3 --set sweep.seeds=0,1,2 \\
    --set sweep.budgets=1e11,2e11,4e11
isoflop sweep --config=quickstart --workdir=runs/plan --plan_only
    the table of runs, nothing trained
isoflop sweep --config=quickstart --workdir=/shared/q --engine=slurm \\
    --set where.slurm.partition=gpu --set where.slurm.gpus_per_node=1
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.console.lazy import Lazy
from experiments.verbs import common
from experiments.verbs import fit as fit_verb
from experiments.verbs import report as report_verb
from launch import config, engines
from launch.runs import preempt

if TYPE_CHECKING:
    from experiments.planning.grid import Plan, SweepJob

answer_text = Lazy("experiments.report.answer_text")
calibration = Lazy("experiments.planning.calibration")
forecast = Lazy("experiments.planning.forecast")
fairness = Lazy("experiments.planning.fairness")
grid = Lazy("experiments.planning.grid")
environment_check = Lazy("launch.devices.environment_check")
sweep = Lazy("experiments.sweep")
packs = Lazy("experiments.planning.packs")
trunks = Lazy("experiments.planning.trunks")
checks = Lazy("launch.runs.checks")
train = Lazy("launch.runs.train")
account = Lazy("model.account")


def plan_table(plan: Plan, done: set[str]):
    """The plan as a rich table: one line per run."""
    from rich import box
    from rich.table import Table

    t = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, side in (
        ("run", "left"),
        ("family", "left"),
        ("budget", "right"),
        (plan.runs[0].dial, "right"),
        ("seed", "right"),
        ("N total", "right"),
        ("N active", "right"),
        ("N non-emb.", "right"),
        ("D tokens", "right"),
        ("FLOPs (matmul)", "right"),
        ("pred. s", "right"),
    ):
        t.add_column(name, justify=side, no_wrap=True)
    for p in plan.runs:
        n = account.parameters(p.run.model)
        seconds = "done" if p.id in done else "unknown" if p.seconds is None else f"{p.seconds:.1f}"
        size = f"{p.size}" + (f" lr x{p.lr_multiplier:g}" if p.lr_multiplier != 1 else "")
        t.add_row(
            p.id,
            p.family,
            f"{p.budget:.3g}" if p.budget else "",
            size,
            str(p.run.seed),
            f"{n['total']:,}",
            f"{n['active']:,}",
            f"{n['non_embedding']:,}",
            f"{p.tokens:,}",
            f"{p.flops:.4g}",
            seconds,
        )
    return t


class _Progress:
    """One bar over all runs, weighted by FLOPs; on a file or pipe one line per finished run
    instead.
    """

    def __init__(self, console, plan: Plan, done: set[str], wall: float | None):
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._cost = {p.id: p.spent for p in plan.runs}
        self._what = {p.id: f"{p.family} {p.dial} {p.size}" for p in plan.runs}
        self._all, self._done = len(plan.runs), len(done)
        self._finished = float(sum(self._cost[i] for i in done))
        self._before, self._part = self._finished, {}
        self._console, self._started, self._predicted = console, time.monotonic(), wall
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(
            self._label(), total=sum(self._cost.values()), completed=self._finished, left=""
        )

    def _label(self):
        return f"{self._done}/{self._all} runs"

    def left(self) -> float | None:
        """Seconds left: the prediction at first, what was observed as it grows."""
        now, total = time.monotonic() - self._started, sum(self._cost.values()) - self._before
        share = (self._finished + sum(self._part.values()) - self._before) / total if total else 1.0
        guesses = (
            [(1 - share) * self._predicted * (1 - share)] if self._predicted is not None else []
        )
        if share > 0.02:
            guesses.append(now / share * (1 - share) * (share if guesses else 1))
        return sum(guesses) if guesses else None

    def __call__(self, kind, worker, task, message):
        identity = config.run_id(task.run)
        if kind == "progress":
            self._part[identity] = self._cost[identity] * message["done"] / message["total"]
        elif kind == "again":  # its worker died, or another command has it
            self._part.pop(identity, None)
        elif kind in ("finished", "failed"):
            self._part.pop(identity, None)
            self._finished += self._cost[identity]
            self._done += kind == "finished"
            if not self._console.is_terminal:
                seconds = message.get("seconds")
                what = message.get("error") or (
                    "elsewhere" if seconds is None else f"{seconds:.1f} s"
                )
                self._console.print(
                    f"[{time.monotonic() - self._started:6.1f} s] {self._label()} "
                    f" {self._what[identity]} {identity}: {what}",
                    soft_wrap=True,
                    highlight=False,
                    markup=False,
                )
        left = self.left()
        self._bar.update(
            self._task,
            completed=self._finished + sum(self._part.values()),
            description=self._label(),
            left="" if left is None else f"{left:.0f} s left",
        )

    def __enter__(self):
        self._bar.__enter__()
        return self

    def __exit__(self, *error):
        return self._bar.__exit__(*error)


def _body(fv) -> int:
    job = common.load(fv, grid.SweepJob)
    if not fv.workdir and not fv.plan_only:
        raise UserError(
            "--workdir is missing: name the folder of the sweep, such as --workdir=runs/quickstart"
        )
    if fv.engine:
        job = dataclasses.replace(job, where=dataclasses.replace(job.where, engine=fv.engine))
    if not fv.plan_only:
        environment_check.check()
    platform = engines.get(job.where).place(job.where, 1).platform
    job = dataclasses.replace(job, run=checks.resolve(job.run, platform))
    grid.make(job, platform)  # what cannot be planned is said before text is read
    job = dataclasses.replace(job, run=checks.identified(job.run, job.where))
    plan = sweep.identified(job, grid.make(job, platform))
    place = sweep.check(job, plan)
    wide = 130 if not sys.stdout.isatty() else None
    out = terminal.console(stderr=fv.format == "json", width=wide)
    if fv.plan_only:
        out.print(plan_table(plan, set()))
        _announce(out, job, plan, set(), place)
        return 0
    workdir = os.path.abspath(fv.workdir)
    sweep.claim(workdir, job, plan)
    done = {r["id"] for r in sweep.results(workdir, plan)}
    out.print(plan_table(plan, done))
    wall = _announce(out, job, plan, done, place, calibration.load(job.where).startup())
    forecast.save(workdir, plan)
    started = time.monotonic()
    with preempt.raised(), _Progress(terminal.console(stderr=True), plan, done, wall) as progress:
        failures = sweep.execute(workdir, job, plan, progress)
    trained = len(sweep.results(workdir, plan)) - len(done)
    forecast.add_sitting(workdir, trained, place.workers, wall, time.monotonic() - started)
    for line in failures:
        print(f"isoflop sweep: {line}", file=sys.stderr)
    return _finish(fv, workdir, job, plan, failures)


def _finish(fv, workdir: str, job: SweepJob, plan: Plan, failures: list[str]) -> int:
    """Fits and reports what the folder holds. Runs that train elsewhere are not waited for."""
    results = sweep.results(workdir, plan)
    open_runs = len(plan.runs) - len(results) - len(failures)
    if open_runs or not results:
        if fv.format == "json":
            print(
                json.dumps(
                    {"report": None, "runs": len(results), "failed": failures, "open": open_runs}
                )
            )
            return 1 if failures else 0
        then = f"{open_runs} are handed over" if open_runs else "the others failed"
        print(
            f"{len(results)} of {len(plan.runs)} runs are done, {then}:"
            f" isoflop status {os.path.relpath(workdir)}"
        )
        return 1 if failures else 0
    analysis = fit_verb.analyse(results, fv.bootstrap, loss=job.sweep.loss)
    analysis["left_out"] = plan.left_out + failures
    analysis["forecast"] = forecast.compare(workdir, results)
    path = report_verb.write(workdir, results, analysis, job.sweep.name)
    if fv.format == "json":
        print(
            json.dumps(
                {"report": path, "runs": len(results), "failed": failures, "analysis": analysis}
            )
        )
    else:
        print(terminal.plain("\n".join(_ending(analysis))))
        print(f"report: {os.path.relpath(path)}")
    return 1 if failures else 0


def _ending(analysis: dict) -> list[str]:
    """The answer, what was left out of it, and how long it took."""
    out = [*answer_text.lines(analysis), *trunks.words(analysis["trunks"])]
    out += forecast.text(analysis["forecast"])
    for name in ("excluded", "flagged"):
        if analysis[name]:
            first = analysis[name][0]
            more = f" (and {len(analysis[name]) - 1} more)" if len(analysis[name]) > 1 else ""
            out.append(f"{name}: {first['what']}: {first['why']}{more}")
    return out


def _announce(
    out, job: SweepJob, plan: Plan, done: set[str], place: engines.Place, startup: float = 0.0
) -> float | None:
    workers = max(1, min(place.workers, len(plan.runs) - len(done)))
    wall = grid.predicted_wall(plan, workers, done, startup)
    total = sum(p.spent for p in plan.runs)
    for line in plan.left_out:
        out.print(f"left out: {line}", highlight=False)
    if said := grid.depths(plan.runs):
        out.print(said, highlight=False)
    if pairs := fairness.of_plan(plan.runs, job.sweep.match):
        out.print(fairness.words(pairs), highlight=False)
    time_text = "unknown on this device" if wall is None else f"about {wall:.0f} s"
    costs = trunks.costs((p.flops, p.spent) for p in plan.runs)
    for line in (*trunks.words(costs), *packs.words(p.pack for p in plan.runs)):
        out.print(line, highlight=False)
    out.print(
        f"{len(plan.runs)} runs, {total:.4g} FLOPs (matmul), {len(done)} done, {workers}"
        f" worker{'s' * (workers > 1)}; predicted {time_text}",
        highlight=False,
    )
    return wall


def main(argv=None) -> int:
    fv = cli.flag_values("config", "workdir", "set", "mesh")
    flags.DEFINE_string(
        "engine", "", f"{' | '.join(engines.ENGINES)}; default: the recipe's, local", flag_values=fv
    )
    flags.DEFINE_bool("plan_only", False, "print the plan and stop", flag_values=fv)
    flags.DEFINE_integer(
        "bootstrap", 1000, "resamples behind the intervals", lower_bound=20, flag_values=fv
    )
    return cli.run("sweep", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
