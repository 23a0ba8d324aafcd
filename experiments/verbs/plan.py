"""What a sweep will cost before its first step: runs, FLOPs, hours, memory, money, energy and
carbon, each with its source.

isoflop plan --config=quickstart    on this machine, at the recipe's own budgets
isoflop plan --config=quickstart --budget=1e18 --device=h200 --devices=8 --price_per_hour=2 \\
    --format=json
isoflop plan --config=isoflop:h200 --isoflop_budgets=1e16,3e16,1e17 --device=h100 --devices=8
isoflop plan --config=dense_vs_moe --money=500 --device=h100 --devices=8 --price_per_hour=2.5
isoflop plan --config=quickstart --hours=1 --calibrate
    at most a minute of measuring first; kept for later plans and sweeps
isoflop plan --flops=3.14e23 --devices=256 --peak_flops=6e13 --utilisation=.7 --price_per_hour=2

isoflop plan --config=quickstart --set sweep.families=dense,jamba,mamba2 --set sweep.match=flops
    arms that have a name: dense, moe, moe_8_1, moe_32_4, moe_64_8, sinusoidal, learned, rope; the
    hybrids jamba, samba, griffin, qwen3_next; any mixer, MLP, position or norm, and a layer of two
    such as mamba2/moe. Others by --set sweep.arms.NAME=... (docs/add_an_architecture.md)

A budget moves the recipe's own budgets by one factor; sizes and batch follow by the ladder. --set
pins a field. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console.lazy import Lazy
from experiments.planning import cost
from experiments.verbs import common, target_flags
from launch import config
from launch.config import Job
from launch.devices import accelerators
from launch.devices.accelerators import Figure

if TYPE_CHECKING:
    from experiments.planning.grid import Plan, SweepJob

budget = Lazy("experiments.planning.budget")
calibration = Lazy("experiments.planning.calibration")
summary = Lazy("experiments.planning.summary")
batches = Lazy("experiments.planning.batches")
step_time = Lazy("experiments.planning.step_time")
grid = Lazy("experiments.planning.grid")
plan_text = Lazy("experiments.verbs.plan_text")
checks = Lazy("launch.runs.checks")
train = Lazy("launch.runs.train")

INPUTS = ("budget", "isoflop_budgets", "money", "hours")
POSITIVE = (
    "budget",
    "money",
    "hours",
    "flops",
    "days",
    "peak_flops",
    "memory",
    "watts",
    "power_cap",
)


def _check(fv) -> None:
    """Raises UserError for a number that cannot be."""
    for name in (*POSITIVE, "price_per_hour", "utilisation", "pue", "grid_carbon"):
        v = fv[name].value
        if v is not None and not math.isfinite(v):
            raise UserError(f"--{name}={v} must be a finite number")
        if name in POSITIVE and v is not None and v <= 0:
            raise UserError(f"--{name}={v:g} must be above 0")
    for name in ("price_per_hour", "grid_carbon"):
        if (v := fv[name].value) is not None and v < 0:
            raise UserError(f"--{name}={v:g} cannot be negative")
    target_flags.check(fv)
    if fv.pue is not None and fv.pue < 1:
        raise UserError(
            f"--pue={fv.pue:g} must be at least 1: all of the building's power over the machines'"
        )
    given = [f"--{n}" for n in INPUTS if fv[n].value not in (None, [], "")]
    if len(given) > 1:
        raise UserError(
            f"{' and '.join(given)} are given: a plan starts from one of them, the others come out"
        )
    if fv.flops is not None and (fv.config or given):
        raise UserError(
            f"--flops is a plan without a recipe: leave out {'--config' if fv.config else given[0]}"
        )
    if fv.flops is None and fv.days is not None:
        raise UserError("--days is the number of days at 100% of --flops: give --flops too")
    if fv.calibrate and (fv.device or fv.flops is not None):
        raise UserError(
            "--calibrate measures the device of this machine: leave out "
            + ("--device" if fv.device else "--flops")
        )


def _rates(fv, device, name) -> cost.Rates:
    return cost.rates(
        device, fv.price_per_hour, fv.watts, fv.power_cap, fv.pue, fv.grid_carbon, name
    )


def _budgets(fv) -> tuple[float, ...]:
    try:
        found = tuple(float(b) for b in fv.isoflop_budgets)
    except ValueError:
        raise UserError(
            f"--isoflop_budgets={','.join(fv.isoflop_budgets)}: numbers expected, such as"
            " 1e16,3e16,1e17"
        ) from None
    if any(not math.isfinite(b) or b <= 0 for b in found) or len(set(found)) < len(found):
        raise UserError("--isoflop_budgets must be positive and different from each other")
    return found


def _pinned(fv) -> set[str]:
    """Fields that --set has set."""
    return {text.partition("=")[0].strip() for text in fv["set"].value}


def _sized(fv, job: SweepJob, make, target, rates) -> budget.Scaled:
    """The recipe at the budget, the dollars or the hours of the flags. Raises UserError or
    ConfigError.
    """
    pinned = _pinned(fv)
    if fv.isoflop_budgets:
        if not job.sweep.budgets:
            raise UserError(
                f"recipe {fv.config} is a grid of tokens and has no isoFLOP budgets: use --budget,"
                " --money or --hours"
            )
        new = _budgets(fv)

        def mean(values):
            return math.exp(sum(map(math.log, values)) / len(values))

        found = budget.scaled(job, mean(new) / mean(job.sweep.budgets), pinned)
        return found._replace(
            job=dataclasses.replace(
                found.job, sweep=dataclasses.replace(found.job.sweep, budgets=new)
            )
        )
    if fv.budget is not None:
        return budget.solve(
            job, make, lambda p: sum(q.spent for q in p.runs), fv.budget, "FLOPs", pinned
        )
    if fv.money is None and fv.hours is None:
        return budget.Scaled(job, [])
    what = "money" if fv.money is not None else "hours"
    if what == "money" and rates.price is None:
        raise UserError("--money needs a price: give --price_per_hour")
    answer = summary.total(summary.rows(make(job), job, target, rates), target.count, rates)
    if answer[what] is None:
        raise UserError(
            f"--{what} needs a speed, and that of {target.name} is unknown: give --peak_flops, or"
            " --device of the table"
        )

    def measure(p: Plan) -> float:
        return summary.total(summary.rows(p, job, target, rates), target.count, rates)[what]

    return budget.solve(
        job, make, measure, getattr(fv, what), "dollars" if what == "money" else "hours", pinned
    )


def _single(job: Job, target) -> tuple[SweepJob, Plan]:
    """A recipe of one run as a plan of one."""
    run = job.run
    family = config.family(run.model)
    p = grid.Planned(
        run, family, run.model.d_model, None, "single", 1.0, step_time.speed(run, target)
    )
    return grid.SweepJob(grid.Sweep(name="single"), run, job.where), grid.Plan([p], [])


def _recipe(fv) -> dict:
    """The plan of a recipe as one dict."""
    job = common.load(fv)
    target = target_flags.target(fv, job.where)
    rates = _rates(fv, target.device, target.name)
    job = dataclasses.replace(job, run=checks.resolve(job.run, target.platform))
    if isinstance(job, Job):
        if fv.calibrate or any(fv[n].value not in (None, [], "") for n in INPUTS):
            raise UserError(
                f"recipe {fv.config} is a single run: its horizon is its budget, set it with --set"
                " horizon.flops=1e15"
            )
        job, plan = _single(job, target)
        asked = summary.Asked(fv.config, "train", job, list(fv["set"].value), fv.power_cap)
        return summary.describe(asked, job, plan, target, rates, [])
    if fv.calibrate:
        grid.check(job.sweep)
        calibration.calibrate(job, target, lambda text: print(text, file=sys.stderr))
        target = target._replace(calibrated=calibration.load(job.where))

    batched = batches.by(fv.batch_law, _pinned(fv))

    def make(j):
        return grid.make(batched(j)[0], target.platform, target)

    sized = _sized(fv, job, make, target, rates)
    chosen, notes = batched(sized.job, sized.notes)
    asked = summary.Asked(fv.config, "sweep", job, list(fv["set"].value), fv.power_cap)
    return summary.describe(asked, chosen, make(chosen), target, rates, notes)


def _flops(fv) -> dict:
    """The plan of so many FLOPs on so many devices, without a recipe."""
    d = accelerators.device(fv.device) if fv.device else None
    name = d.name if d else fv.device or "devices"
    peak = (
        Figure(fv.peak_flops, "given")
        if fv.peak_flops is not None
        else d.figure("peak")
        if d
        else None
    )
    used = (
        step_time.UTILISATION["dense"]
        if fv.utilisation is None
        else Figure(fv.utilisation, "given")
    )
    rates = _rates(fv, d, name)
    found = None
    if peak or fv.days is not None:
        found = cost.compute(
            fv.flops, fv.devices or 1, peak.value if peak else math.nan, used.value, fv.days
        )
    return summary.compute(
        fv.flops, fv.devices or 1, name, peak, used, rates, found, fv.days, fv.power_cap
    )


def _body(fv) -> int:
    _check(fv)
    if fv.flops is None and not fv.config:
        raise UserError("give a recipe to plan with --config, or a number of FLOPs with --flops")
    answer = _flops(fv) if fv.flops is not None else _recipe(fv)
    if fv.format == "json":
        print(json.dumps(answer))
    else:
        plan_text.show(answer)
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("config", "set", "mesh")

    def number(name, text):
        return flags.DEFINE_float(name, None, text, flag_values=fv)

    number("budget", "training FLOPs (matmul) of the whole sweep")
    flags.DEFINE_list(
        "isoflop_budgets",
        [],
        "training FLOPs of the dense run of each curve, such as 1e16,3e16,1e17",
        flag_values=fv,
    )
    number("money", "dollars of the whole sweep")
    number("hours", "hours until the last run is done, on all devices")
    target_flags.define(fv)
    number("price_per_hour", "dollars per device-hour; default: 2 for an H100, else unknown")
    number("watts", "of one device, instead of the table's board power")
    number(
        "power_cap",
        "watts at which a device is capped; what that does to its speed is unknown unless it was"
        " calibrated",
    )
    number("pue", "power usage effectiveness; default: 1.1")
    number("grid_carbon", "g CO2 per kWh; default: 385")
    number("flops", "plan so many training FLOPs without a recipe")
    number("days", "with --flops: days at 100%, instead of FLOPs / (devices x peak)")
    text = "folder of a finished sweep of the recipe batch, whose law chooses the batch"
    flags.DEFINE_string("batch_law", "", text, flag_values=fv)
    flags.DEFINE_bool(
        "calibrate",
        False,
        "first measure this machine, at most a minute, on shapes that are not in the sweep",
        flag_values=fv,
    )
    return cli.run("plan", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
