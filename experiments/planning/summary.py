"""A plan as one JSON-ready dict: what each run and the whole sweep will take. Every figure has its
source. An unknown figure is None, and its source says why.
"""

import contextlib
import dataclasses
import shlex
from typing import NamedTuple

from data import pipeline
from data.config import DataError
from experiments.planning import cost, fairness, step_time, trunks
from experiments.planning.grid import Plan, Planned, SweepJob, depths
from launch import config
from launch.devices.accelerators import Figure
from model import account

UNKNOWN = step_time.UNKNOWN


def _row(p: Planned, job: SweepJob, target: step_time.Target, rates: cost.Rates) -> dict:
    """One run. `seconds` and `hours` are of its own devices, and of the steps that it trains
    itself; money, kWh and kg CO2 count every device.
    """
    fit = step_time.fit(p.run, job.where, target)
    each = step_time.devices_of(fit)
    speed = step_time.speed(p.run, target, each) if each > 1 else p.speed
    step = (
        None
        if speed.step is None
        else speed.step * step_time.recomputed(p.run, job.where, fit, target.platform)
    )
    alone = None if step is None else config.steps(p.run) * step + speed.evaluate
    seconds = None if step is None else (alone - p.begins * step) / p.pack.worth
    hours = None if seconds is None else seconds / 3600
    spent = cost.cost(None if hours is None else hours * each, rates)
    n = account.parameters(p.run.model)
    return {
        "id": p.id,
        "family": p.family,
        "size": p.size,
        "budget": p.budget,
        "role": p.role,
        "seed": p.run.seed,
        "lr": p.run.optimizer.lr,
        "lr_multiplier": p.lr_multiplier,
        "steps": config.steps(p.run),
        "batch": p.run.batch,
        "seq_len": p.run.model.seq_len,
        "tokens": p.tokens,
        "parameters": {k: n[k] for k in ("total", "active", "non_embedding", "multiplied")},
        "flops": p.flops,
        "spent": p.spent,
        "step_seconds": step,
        "step_seconds_source": speed.source,
        "compile_seconds": speed.setup,
        "seconds": seconds,
        # until it is done, were its trunk its own
        "seconds_alone": None if alone is None else alone * p.pack.members / p.pack.worth,
        **p.pack._asdict(),
        "hours": hours,
        "devices": each,
        "memory": {
            k: getattr(fit, k) for k in ("bytes", "limit", "fits", "accumulate", "remat", "mesh")
        },
        **spent._asdict(),
    }


def rows(plan: Plan, job: SweepJob, target: step_time.Target, rates: cost.Rates) -> list[dict]:
    return [_row(p, job, target, rates) for p in plan.runs]


def total(runs: list[dict], count: int, rates: cost.Rates, startup: float = 0.0) -> dict:
    """Sums over the runs, compilation of each shape added to device-hours; `hours` until the last
    run is done on `count` devices; `money_held` if all of them are paid for until then.
    """
    each = max(r["devices"] for r in runs)
    known = all(r["seconds"] is not None for r in runs)

    def shape(r):
        return (r["family"], r["size"], r["batch"], r["seq_len"])

    compiling = {shape(r): r["compile_seconds"] * r["devices"] for r in runs}
    device_hours = (
        (sum(r["seconds"] * r["devices"] for r in runs) + sum(compiling.values())) / 3600
        if known
        else None
    )
    timed = [(r["seconds"], shape(r), r["compile_seconds"]) for r in runs] if known else []
    hours = None
    if known and count >= each:  # of a trunk, one part comes after the other
        longest = max(r["seconds_alone"] + r["compile_seconds"] for r in runs)
        hours = (startup + max(step_time.wall(timed, count // each), longest)) / 3600
    spent = cost.cost(device_hours, rates)
    return {
        "runs": len(runs),
        "flops": sum(r["spent"] for r in runs),
        "tokens": sum(r["tokens"] for r in runs),
        "trunks": trunks.costs((r["flops"], r["spent"]) for r in runs),
        "hours": hours,
        "device_hours": device_hours,
        **spent._asdict(),
        "money_held": cost.cost(None if hours is None else hours * count, rates).money,
    }


def _sources(runs: list[dict], target, rates: cost.Rates, memory: str) -> dict:
    steps = "; ".join(dict.fromkeys(r["step_seconds_source"] for r in runs))
    unknown = any(r["step_seconds"] is None for r in runs)
    compiling = (
        "and compilation"
        if any(r["compile_seconds"] for r in runs)
        else "without compilation, which was not measured there,"
    )
    hours = (
        f"{UNKNOWN}: the step time is"
        if unknown
        else f"steps x step time, evaluation {compiling} over {target.count} devices"
    )
    spent = cost.sources(rates)
    if unknown:
        spent = {
            k: v if v.startswith(UNKNOWN) else f"{UNKNOWN}: the step time is"
            for k, v in spent.items()
        }
    return {
        "flops": "counted, matmul convention, of whole steps (docs/counting.md)",
        "step_seconds": steps,
        "hours": hours,
        "memory": memory,
        **spent,
    }


def _command(
    verb: str,
    name: str,
    asked: SweepJob,
    job: SweepJob,
    settings: list[str],
    fits: list[step_time.Fit],
) -> str:
    """What to type to run the plan: the settings of the one who asks, what the ladder chose, and
    what makes every run fit.
    """

    def text(v):
        return (
            ",".join(map(text, v))
            if isinstance(v, tuple)
            else f"{v:.10g}"
            if isinstance(v, float)
            else str(v)
        )

    fields = [
        (f"sweep.{f.name}", getattr(asked.sweep, f.name), getattr(job.sweep, f.name))
        for f in dataclasses.fields(job.sweep)
    ]
    fields.append(("batch", asked.run.batch, job.run.batch))
    words = [*settings, *(f"{k}={text(new)}" for k, old, new in fields if old != new)]
    needed = {}
    for f in fits:
        needed.update({k: max(v, needed.get(k, v)) for k, v in f.settings.items()})
    own = {f"where.{f.name}": getattr(job.where, f.name) for f in dataclasses.fields(job.where)}
    words += [f"{k}={v}" for k, v in needed.items() if v != own[k]]
    folder = name.replace(":", "-").removesuffix(".py").rpartition("/")[2]
    return " ".join(
        [
            f"isoflop {verb} --config={name} --workdir=runs/{folder}",
            *(f"--set {shlex.quote(w)}" for w in words),
        ]
    )


class Asked(NamedTuple):
    """What the answer is for: the recipe's name, the verb that runs it, the recipe itself with the
    settings applied, the power cap.
    """

    name: str
    verb: str
    job: SweepJob
    settings: list[str]
    cap: float | None


def describe(
    asked: Asked,
    job: SweepJob,
    plan: Plan,
    target: step_time.Target,
    rates: cost.Rates,
    notes: list[str],
) -> dict:
    """The whole answer of `isoflop plan --config`; `job` is the recipe at the size that was
    chosen.
    """
    found = rows(plan, job, target, rates)
    fits = [step_time.fit(p.run, job.where, target) for p in plan.runs]
    calibrated = any("calibration" in r["step_seconds_source"] for r in found)
    d = target.device
    return {
        "recipe": asked.name,
        "device": {
            "name": target.name,
            "known": d is not None,
            **{
                k: {"value": f.value if f else None, "source": f.source if f else UNKNOWN}
                for k, f in _figures(target)
            },
        },
        "devices": target.count,
        "assumed": {
            "utilisation": {
                k: {"value": f.value, "source": f.source} for k, f in target.utilisation.items()
            },
            **cost.assumed(rates, asked.cap, calibrated),
        },
        "dial": plan.runs[0].dial,
        "runs": found,
        "total": total(
            found, target.count, rates, target.calibrated.startup() if calibrated else 0.0
        ),
        "sources": _sources(found, target, rates, fits[0].source),
        "matched": fairness.of_plan(plan.runs, job.sweep.match),
        "notes": notes + _depths(plan.runs) + _epochs(found, job) + _doubts(found, target),
        "left_out": plan.left_out,
        "command": _command(asked.verb, asked.name, asked.job, job, asked.settings, fits),
    }


AT_HAND = (
    "python_source",
    "tokens",
    "synthetic",
)  # sources whose size is known without preparing a corpus of unknown size
# epochs up to which repeated text is about as good as fresh: Muennighoff et al. 2023, arXiv
# 2305.16264
FRESH = 4.0


def _epochs(found: list[dict], job: SweepJob) -> list[str]:
    """Adds `epochs` to the runs, None where the source is not at hand; a note where text is read
    too often.
    """
    dataset = None
    if job.run.data.source.partition(":")[0] in AT_HAND:
        with contextlib.suppress(DataError):
            dataset = pipeline.load(job.run.data, job.run.model.seq_len, job.where.cache)
    for r in found:
        r["epochs"] = None if dataset is None else dataset.epochs(r["steps"] * r["batch"])
    often = [r["epochs"] for r in found if (r["epochs"] or 0) > FRESH]
    if not often:
        return []
    why = (
        f"{len(often)} of {len(found)} runs read their text more than {FRESH:g} times, up to"
        f" {max(often):.0f} times (up to {FRESH:g} it is about as good as fresh: Muennighoff et al."
        " 2023): give a larger source, --set data.source=text --set data.path=..."
    )
    return [why]


def _depths(runs: list[Planned]) -> list[str]:
    said = depths(runs)
    return [said] if said else []


REACHED = 50e6  # parameters of the model whose utilisation is the default


def _doubts(runs: list[dict], target: step_time.Target) -> list[str]:
    """Where the stated utilisation is known to be too kind."""
    by_table = [
        r
        for r in runs
        if target.peak and r["step_seconds"] and "calibration" not in r["step_seconds_source"]
    ]
    small = [r for r in by_table if r["parameters"]["active"] < REACHED]
    if not small:
        return []
    why = (
        f"{len(small)} of {len(runs)} runs have fewer than {REACHED / 1e6:.0f}M active parameters,"
        " where the default utilisation was reached: launching kernels takes its time there, so"
        " expect more hours; --calibrate on the device, or set --utilisation"
    )
    return [why]


def _figures(target: step_time.Target) -> list[tuple[str, Figure | None]]:
    return [("peak_flops", target.peak), ("memory_bytes", target.memory)]


def compute(flops, devices, name, peak, used, rates, found: cost.Compute | None, days, cap) -> dict:
    """The answer of `isoflop plan --flops`."""
    hours = None if found is None else found.days * 24
    spent = cost.cost(None if found is None else found.device_hours, rates)
    by = "days at 100% as given" if days is not None else "FLOPs / (devices x peak)"
    time = (
        f"{by} / utilisation"
        if found
        else f"{UNKNOWN}: no peak (--peak_flops, or --device of the table)"
    )
    sources = {"flops": "given", "hours": time, **cost.sources(rates)}
    if found is None:
        sources.update({k: f"{UNKNOWN}: the hours are" for k in ("money", "kwh", "kg_co2")})
    whole = {
        "flops": flops,
        "days_at_peak": None if found is None else found.days_at_peak,
        "days": None if found is None else found.days,
        "hours": hours,
        "device_hours": None if found is None else found.device_hours,
        **spent._asdict(),
    }
    return {
        "device": {
            "name": name,
            "peak_flops": {
                "value": peak.value if peak else None,
                "source": peak.source if peak else UNKNOWN,
            },
        },
        "devices": devices,
        "assumed": {
            "utilisation": {"value": used.value, "source": used.source},
            **cost.assumed(rates, cap, False),
        },
        "runs": [whole],
        "total": whole,
        "sources": sources,
    }
