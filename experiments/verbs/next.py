"""The next run after a sweep: a recipe for a larger budget, ready for `isoflop train`, and its
loss, predicted and registered before it is trained.

isoflop next --workdir=runs/quickstart --budget=1e13
isoflop next --workdir=runs/quickstart --budget=1e13 --family=moe --set batch=2
isoflop next --workdir=runs/big --budget=1e20 --device=h200 --devices=8 --memory=141 --hours=24
    refused where it does not fit, or would take longer
isoflop next --workdir=runs/big --budget=1e20 --dry_run    says it all, registers nothing

Size: the law's optimum on the sweep's ladder. Tokens: what the budget buys. Batch and rate: the
sweep's rules, --grow_batch, a published rule (--rates=steplaw2025), or --set. The prediction is for
one more run by the same rules, if the law holds. isoflop predictions keeps the tally.
"""

import dataclasses
import datetime
import json
import os
import pprint
import sys
import textwrap

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.console.lazy import Lazy
from experiments.verbs import common, fit, target_flags
from launch import config, files
from launch.runs import predictions, record

conventions = Lazy("experiments.laws.conventions")
next_loss = Lazy("experiments.laws.next_loss")
next_run = Lazy("experiments.planning.next_run")
published_rates = Lazy("experiments.planning.published_rates")
next_text = Lazy("experiments.verbs.next_text")
account = Lazy("model.account")
checks = Lazy("launch.runs.checks")
compiled = Lazy("launch.runs.compiled")
points = Lazy("experiments.laws.runs.points")
rollouts = Lazy("experiments.laws.comparisons.rollouts")
sweep = Lazy("experiments.sweep")
tables = Lazy("experiments.laws.runs.table")
verdicts = Lazy("experiments.laws.fitting.verdicts")

FAR = 1000.0  # times the sweep's largest budget; beyond it --far is asked for
FRESH = 4.0  # epochs up to which repeated text is about as good as fresh: Muennighoff et al. 2023


def _check(fv) -> None:
    """Raises UserError."""
    if fv.budget is None:
        raise UserError("--budget is missing: training FLOPs (matmul) of the run, such as 1e13")
    for name in ("budget", "memory", "hours", "peak_flops"):
        v = fv[name].value
        if v is not None and not 0 < v < float("inf"):
            raise UserError(f"--{name}={v:g} must be a positive, finite number")
    published_rates.check(fv.rates)
    if fv.rates and fv.grow_batch:
        raise UserError(f"--rates={fv.rates} has a batch of its own: leave --grow_batch out")
    target_flags.check(fv)


def _reached(budget: float, e, far: bool) -> None:
    """Raises UserError for a budget that is no extrapolation, or too far a one."""
    span = f"{e.low:.3g} to {e.high:.3g} FLOPs"
    if budget <= e.high * 1.02:
        where = "inside" if budget >= e.low else "below"
        raise UserError(
            f"--budget={budget:g} lies {where} the sweep's own range ({span}): nothing is"
            " predicted there; isoflop fit --law=chinchilla3 --predict reads it off, and"
            " --set sweep.budgets adds it to the sweep"
        )
    if budget > FAR * e.high and not far:
        raise UserError(
            f"--budget={budget:g} is {predictions.times(budget / e.high)} times the largest of the"
            f" sweep ({span}), beyond {FAR:g}: add larger budgets to the sweep, or say --far"
        )


def _family(fv, table) -> str:
    known = next_loss.families(table)
    if not fv.family and len(known) > 1:
        raise UserError(f"this sweep has {', '.join(known)}: choose one with --family")
    return fv.family or known[0]


def _rule(own: list[dict]) -> tuple[float, str]:
    return next_loss.rate(points.tuned(own)[1])


def _competed(own: list[dict], law: str, sigma: float) -> list[str]:
    """A note where another law errs less on the sweep's upper budgets, held back."""
    grid = [p for p in own if p["role"] in ("grid", "tokens")]
    found = rollouts.rollouts(grid, sigma, next_loss.LAWS)
    scores = {k: v["scored"] for k, v in found["laws"].items()} if found else {}
    if None in scores.values() or not scores or found["best"] == law:
        return []
    return [
        f"fitted to the lower budgets alone, {law} misses the upper ones by {scores[law]:.1%},"
        f" {found['best']} by {scores[found['best']]:.1%}: --law={found['best']} predicts by that"
    ]


def _in_time(fv, room) -> None:
    if fv.hours is None:
        return
    if room.hours is None:
        raise UserError(f"--hours={fv.hours:g}: how long it takes is {room.source}")
    if room.hours > fv.hours:
        raise UserError(
            f"the run would take {room.hours:.3g} hours, --hours={fv.hours:g}: about"
            f" --budget={fv.budget * fv.hours / room.hours:.2g} fits, or more --devices"
        )


def made(fv) -> tuple[dict, object, object]:
    """(the prediction, not registered yet; the next run; its room). Raises UserError, ConfigError,
    FitError or RecordError.
    """
    results, job = (
        fit.finished(fv.workdir),
        next_run.sweep_of(os.path.join(fv.workdir, sweep.SWEEP)),
    )
    if job.sweep.loss:
        raise UserError(
            f"this sweep is about its loss {job.sweep.loss}: isoflop next predicts nats per token"
            " of all validation windows, and nothing else"
        )
    table = tables.read([fv.workdir])
    family = _family(fv, table)
    e = next_loss.evidence(table, family, fv.law, fv.bootstrap, fv.seed)
    _reached(fv.budget, e, fv.far)
    optimum = next_loss.best(e, fv.budget)
    target = target_flags.target(fv, job.where)
    n_opt = optimum["n_opt"]["value"]
    usable = points.usable(results, "multiplied", "matmul")[0]
    own = [p for p in usable if p["family"] == family]
    rule = _rule(own)
    asked = next_run.Asked(family, n_opt, fv.budget, e.high, *rule, fv.grow_batch, fv.rates)
    like = next(r for r in results if r["family"] == family)
    n = _identified(next_run.make(job, asked, target, getattr(fv, "set")), like)
    room = next_run.placed(n, target)
    _in_time(fv, room)
    size = account.parameters(n.job.run.model)["multiplied"]
    loss = next_loss.outlook(e, size, n.tokens, predictions.LEVEL, fv.seed)
    p = {
        "id": config.run_id(n.job.run),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": record.commit(),
        "sweep": str(job.sweep.name),
        "family": family,
        "law": fv.law,
        "formula": e.f.form.formula,
        "verdict": verdicts.read(e.f)["words"],
        "parameters": {k: e.f.parameters[k] for k in e.f.form.names},
        "data": {"sha256": tables.describe([fv.workdir])[0]["sha256"], "runs": len(e.f.points.y)},
        "conventions": {
            "N": conventions.N_CONVENTIONS["multiplied"],
            "C": "matmul",
            "loss": "nats/token",
        },
        "fingerprints": {
            k: str(v) for k, v in (like.get("fingerprints") or {}).items() if k in PRINTS
        },
        "n": size,
        "tokens": n.tokens,
        "flops": n.flops,
        "steps": config.steps(n.job.run),
        "distance": n.flops / e.high,
        "sweep_flops": [e.low, e.high],
        "optimum": {k: optimum[k] for k in ("n_opt", "d_opt", "loss")},
        "loss": loss["value"],
        "interval": loss["interval"],
        "level": predictions.LEVEL,
        "parameters_interval": loss["parameters_interval"],
        "noise": loss["noise"],
        "curve": next_loss.curve(e, size, n.tokens, predictions.LEVEL, fv.seed),
        "seconds": None if room.hours is None else 3600 * room.hours,
        "rules": n.rules,
        "notes": _notes(like, n, e, fv.rates) + _competed(own, fv.law, _spread(e)),
    }
    return record.finite(p), n, room


PRINTS = ("corpus", "tokenizer")


def _identified(n, like: dict):
    """The next run with the content of its text named, as the sweep's runs have it. Raises
    DataError.
    """
    job, data = n.job, like["run"].get("data")
    content = data.get("content", "") if isinstance(data, dict) else ""
    if content:
        run = dataclasses.replace(job.run, data=dataclasses.replace(job.run.data, content=content))
    else:
        run = checks.identified(job.run, job.where)
    return n._replace(job=dataclasses.replace(job, run=run))


def _spread(e) -> float:
    """Root mean square of the fit's residuals."""
    return float((e.f.residuals**2).mean() ** 0.5)


def _notes(like: dict, n, e, rates: str) -> list[str]:
    """What the prediction does not know."""
    out = [f"left out: {x['what']}: {x['why']}" for x in e.left_out]
    if rates:
        out.append(
            f"rate and batch are {rates}'s ({published_rates.RULES[rates].seen}), and the law was"
            " fitted to runs at the sweep's own: the interval does not know what that changes"
        )
    text = like.get("dataset_tokens")
    if text and n.tokens / text > FRESH:
        out.append(
            f"the text is read {predictions.times(n.tokens / text)} times, and the law knows fresh"
            f" text alone (up to {FRESH:g} times is about as good: Muennighoff et al. 2023)"
        )
    return out


def recipe(p: dict, n, room) -> str:
    """The text of a recipe file of the run, beside its prediction."""
    run = pprint.pformat(config.brief(n.job.run), width=96, sort_dicts=False)
    plain = config.to_dict(config.Where())
    where = {k: v for k, v in config.to_dict(room.where).items() if v != plain[k]}
    where.pop("keep_final", None)  # a sweep leaves the last step out; this run is worth keeping
    low, high = p["interval"]
    rules = "\n".join(textwrap.fill(f"{k.capitalize()}: {v}.", 96) for k, v in n.rules.items())
    return f'''"""The run after a sweep, at {p["flops"]:.4g} FLOPs (matmul), by isoflop next.

Predicted on {p["date"]}: loss {p["loss"]:.4f} [{low:.4f}, {high:.4f}] nats/token. The prediction
{p["id"]}.json stands beside this file and must not change: the run's record keeps its hash.

{rules}
"""

import os

from launch import config

RUN = {run}
WHERE = {where!r}
PREDICTION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "{p["id"]}.json")


def recipe():
    where = config.from_dict(config.Where, {{**WHERE, "prediction": PREDICTION}})
    return config.Job(config.from_dict(config.Run, RUN), where)
'''


def _registered(workdir: str, p: dict) -> tuple[dict, bool]:
    """The prediction as it stands, and whether it stood before."""
    predictions.every(workdir)
    path = predictions.place(workdir, p["id"])
    if os.path.exists(path):
        return predictions.read(path), True
    return predictions.register(workdir, p), False


def _body(fv) -> int:
    _check(fv)
    compiled.use_cache()
    with common.complete():
        p, n, room = made(fv)
    before, path = False, ""
    if not fv.dry_run:
        p, before = _registered(fv.workdir, p)
        path = predictions.place(fv.workdir, p["id"]).removesuffix(".json") + ".py"
        if not os.path.exists(path):
            files.write_text(path, recipe(p, n, room))
    answer = {
        "prediction": p,
        "recipe": path or None,
        "registered_before": before,
        "run": config.to_dict(n.job.run),
        "where": config.to_dict(room.where),
        "hours": room.hours,
        "devices": room.devices,
    }
    if fv.format == "json":
        print(json.dumps(answer))
    else:
        print(terminal.plain(next_text.text(answer, n, room, path)))
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("workdir", "set")
    flags.DEFINE_float("budget", None, "training FLOPs (matmul) of the run", flag_values=fv)
    flags.DEFINE_string(
        "family", "", "whose law and ladder, where the sweep has several arms", flag_values=fv
    )
    flags.DEFINE_string(
        "law", "chinchilla3", "chinchilla3 | kaplan_nd: what predicts", flag_values=fv
    )
    target_flags.define(fv)
    flags.DEFINE_float("hours", None, "of training, at most", flag_values=fv)
    flags.DEFINE_bool(
        "far", False, "predict beyond 1,000 times the sweep's largest budget", flag_values=fv
    )
    flags.DEFINE_bool(
        "grow_batch",
        False,
        "tokens of a batch grow as C^0.3271 (Bi et al. 2024), where the law was fitted at the"
        " sweep's",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "rates",
        "",
        "deepseek2024 | steplaw2025: learning rate and batch by a published rule",
        flag_values=fv,
    )
    flags.DEFINE_bool("dry_run", False, "register and write nothing", flag_values=fv)
    flags.DEFINE_integer(
        "bootstrap", 1000, "resamples behind the intervals", lower_bound=100, flag_values=fv
    )
    flags.DEFINE_integer("seed", 0, "of the resamples", lower_bound=0, flag_values=fv)
    return cli.run("next", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
