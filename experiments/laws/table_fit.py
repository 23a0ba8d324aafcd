"""A table and the name of a law to one answer, ready for JSON: parameters, intervals, objective,
verdicts, predictions.
"""

import numpy as np

from experiments.laws import questions
from experiments.laws.conventions import N_CONVENTIONS
from experiments.laws.exceptions import FitError
from experiments.laws.fitting import (
    allocation,
    bootstrap,
    constraints,
    fit,
    lack_of_fit,
    noise_model,
    precision,
    solve,
    verdicts,
)
from experiments.laws.fitting.allocation import Cost
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.formula import Form
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from experiments.laws.procedures import PROCEDURES
from experiments.laws.published import constants
from experiments.laws.runs import selection, table_warnings
from experiments.laws.runs import table as tables

LAWS = (*FORMS, *PROCEDURES)
SLICED = ("chinchilla2", "chinchilla2_interpolated")  # procedures that draw noise


def objective(text: str) -> Objective:
    """`huber` (delta from the residuals' own scale), `huber:1e-3`, `squared` or `lad`, with `:loss`
    at the end for residuals of the loss instead of its logarithm. Raises FitError.
    """
    kind, *rest = text.split(":")
    own = kind == "huber" and rest in ([], ["loss"])
    space = "loss" if rest and rest[-1] == "loss" else "log"
    rest = rest[:-1] if space == "loss" else rest
    try:
        delta = float(rest[0]) if rest else 1e-3
    except ValueError:
        delta = -1.0
    if (
        kind not in ("huber", "squared", "lad")
        or len(rest) > (kind == "huber")
        or not 0 < delta < np.inf
    ):
        raise FitError(
            f"--objective={text}: choose huber:DELTA (such as huber:1e-3), huber for the"
            " residuals' own scale, squared or lad; add :loss for residuals of the loss itself"
        )
    return Objective(kind, delta, space, own)


def law(name: str) -> None:
    """Raises FitError with the nearest name if `name` is no law."""
    if name not in LAWS:
        import difflib

        near = difflib.get_close_matches(name, LAWS, 1)
        raise FitError(
            f"unknown law {name!r}{f': did you mean {near[0]!r}?' if near else ':'} laws are"
            f" {', '.join(LAWS)}"
        )


def points(form: Form, table: tables.Table, n: str = "", c: str = "") -> tuple[Points, str]:
    """What the fit reads, and in words where its weights come from."""
    x = tables.inputs(form, table, n, c)
    y = tables.numbers(table, form.outcome)
    named = tables.conventions(form, table, n, c) | {form.outcome: form.outcome}
    for name, values in {**x, form.outcome: y}.items():
        low = values < 0 if name in ("S", "G") else values <= 0
        if (bad := ~np.isfinite(values) | low).any():
            i = int(np.argmax(bad))
            raise FitError(
                f"{named[name]} of {tables.place(table, i)} is {values[i]:g}: a law wants positive,"
                " finite values; leave such rows out with --where"
            )
    cells, clusters = tables.cells(form, table, x), tables.clusters(table)
    noise, weights, how = None, None, "equal"
    if cells is not None and form.outcome == "loss" and np.all(y > 0):
        compute = x.get("C", x["N"] * x["D"] if "N" in x and "D" in x else None)
        noise, weights = noise_model.seed_noise(cells, np.log(y), compute)
        if noise is None or np.ptp(weights) == 0:
            weights, how = (
                None,
                f"equal; noise between seeds {noise.sigma:.2g} in log loss" if noise else "equal",
            )
        else:
            how = (
                "inverse variance between seeds, a power law of compute; pooled noise"
                f" {noise.sigma:.2g} in log loss"
            )
    return Points(x, y, weights, clusters, noise), how


def resampling(form: Form, pts: Points) -> tuple[str, str]:
    """(method, its description): cases where there are ten runs for a parameter, drawn noise below
    that (docs/laws.md, coverage), Student's t where few degrees of freedom are left.
    """
    left = len(pts.y) - len(form.names)
    if pts.clusters is None and left < lack_of_fit.FEW:
        return (
            "t",
            (
                f"Student's t of the lack of fit, {left} degree{'s' * (left > 1)} of freedom: too"
                " few runs to resample"
            ),
        )
    if pts.clusters is not None:
        return "cases", "case bootstrap of runs with all their checkpoints"
    if len(pts.y) >= 10 * len(form.names):
        return "cases", "case bootstrap of runs"
    return (
        "noise",
        (
            "noise like the residuals', outliers and all, drawn around the fit: fewer than ten runs"
            " for a parameter"
        ),
    )


def price(table: tables.Table, form: Form, n: str = "", c: str = "") -> Cost:
    """FLOPs per token as a function of the law's N, from the table's flops; 6 N without them."""
    column = tables.conventions(form, table, n, c)["N"] if "N" in form.inputs else "n_params"
    if not {"flops", "tokens", column} <= set(table):
        return Cost()
    size, experts = table[column], table.get("n_experts")
    total = table.get("n_total_params", table["n_params"] if column != "n_params" else None)
    flops = table[c] if c in table else 6 * size * table["tokens"] if c == "6N" else table["flops"]
    return allocation.cost(size, table["tokens"], flops, experts, total)


def held_out(table: tables.Table, form: Form, x: dict, above: float) -> np.ndarray | None:
    """Points above `above` FLOPs (default: the upper fifth of compute); None where compute is
    unknown or too few points remain.
    """
    c = x.get("C", table.get("flops"))
    if c is None or c.dtype == object or not np.isfinite(c).all() or np.ptp(c) == 0:
        return None
    out = c > (above or 0.9 * np.quantile(c, 0.8))
    if above and (not out.any() or (~out).sum() <= len(form.names)):
        raise FitError(
            f"--hold_out={above:g} leaves {int((~out).sum())} runs to fit and {int(out.sum())} to"
            f" test: {len(form.names) + 1} and 1 are needed"
        )
    return out if out.any() and (~out).sum() > len(form.names) + 1 else None


def ask(
    table,
    name,
    spec=solve.DEFAULT,
    n="",
    c="",
    resamples=1000,
    asked=(),
    hold_out=0.0,
    seed=0,
    columns=None,
    pool=(),
    noise="",
    levels=(),
    limits=constraints.NONE,
    weights="",
    frontier=False,
) -> dict:
    """Everything `isoflop fit --runs --law` prints. `columns`: {common: theirs}. `pool`: what
    selection.py keeps apart and is fitted together. `noise`: of one run's loss, for isoFLOP slices.
    levels: of intervals beside those of 95%. limits: what is known of the parameters. weights: the
    column of the runs' weights. frontier: of the runs those that no cheaper one beats. Raises
    FitError in one line.
    """
    law(name)
    if name in PROCEDURES and (limits or weights or spec.penalty != 1):
        raise FitError(
            f"{name} is a procedure, not a formula: --fix, --tie, --within, --weights and"
            " --overestimate_penalty are read by formulas"
        )
    level = noise_model.given_noise(noise) if noise else None
    if noise and name not in SLICED:
        raise FitError(f"--noise is read by {' and '.join(SLICED)}, not by {name}")
    for q in asked:
        questions.answerable(name, q)
    tables.numbers(table, "loss")
    inputs = FORMS[name].inputs if name in FORMS else ()
    rates = name in ("learning_rate", "batch_size")
    told_apart = bool({"E", "S", "G", "B"} & set(inputs))  # families, by what the law reads
    table, left = selection.of_table(table, told_apart, pool, rates)
    if frontier:
        table, beaten = selection.frontier(table, c if c in table else "flops")
        left = left + beaten
    if name in PROCEDURES:
        a = _procedure(table, name, n, c, resamples, asked, seed, level, levels)
    else:
        form = constraints.applied(FORMS[name], name, limits)
        known = (name, form, spec, weights)
        a = _formula(table, *known, n, c, resamples, asked, hold_out, seed, levels)
    a["conventions"] = {k: (columns or {}).get(v, v) for k, v in a["conventions"].items()}
    if "loss" in (columns or {}):
        a["conventions"]["loss"] = f"{columns['loss']}, in the file's own unit"
    return a | {"left_out": left, "warnings": table_warnings.warnings(table, n, asked)}


def weighted(pts: Points, table: tables.Table, column: str) -> Points:
    """The points with the weights of a column. Raises FitError."""
    w = tables.numbers(table, tables.column_name(table, column, "--weights: the table"))
    bad = ~np.isfinite(w) | (w <= 0)
    if bad.any():
        at = int(np.argmax(bad))
        raise FitError(f"{column} of {tables.place(table, at)} is {w[at]:g}: weights are positive")
    return pts._replace(weights=w / w.mean())


def _formula(
    table, name, form, spec, weights, n, c, resamples, asked, hold_out, seed, levels
) -> dict:
    edges = None
    if name in ("learning_rate", "batch_size"):
        for column in ("n_params", "tokens", form.outcome):
            tables.numbers(table, column)
        table, edges = selection.near_best(table, form.outcome)
    pts, weighed = points(form, table, n, c)
    if weights:
        pts, weighed = weighted(pts, table, weights), f"column {weights}"
    fit.check(name, pts, form)
    method, how = resampling(form, pts)
    if method == "t" and spec.own:  # residuals that few have no scale of their own
        spec = spec._replace(kind="squared", own=False)
    above = held_out(table, form, pts.x, hold_out)
    f = fit.fit(name, pts, spec, resamples, seed, method, above, form=form)
    f = f._replace(levels=tuple(levels))
    if f.noise and f.noise.shown:
        weighed = f"inverse variance of the residuals: {f.noise}"
    cost, values, intervals = price(table, form, n, c), f.parameters, f.intervals()
    intervals |= {k: None for k, _ in form.fixed}
    names = FORMS[name].names
    reading = verdicts.read(f) | ({"edges": edges} if edges is not None else {})
    return {
        "law": name,
        "formula": form.formula,
        "source": form.source,
        "parameters": {k: values[k] for k in names},
        "derived": {k: v for k, v in values.items() if k not in names},
        "intervals": intervals,
        "level": 0.95,
        "intervals_at": {f"{100 * k:g}%": f.intervals(k) for k in levels},
        "objective": f.value,
        "objective_name": str(f.objective),
        "n_points": len(f.residuals),
        "residual_sd": f.residual_sd,
        "bootstrap": {"resamples": resamples, "method": how, "seed": seed},
        "weights": weighed,
        "conventions": conventions(form, table, n, c) | {"flops_per_token": str(cost)},
        "verdicts": reading,
        "predictions": questions.predictions(f, cost, list(asked)),
        "extrapolation": f.held_out,
        "leverage": questions.experts(f, cost, table),
        "published": [
            {"name": k, "values": p.values, "where": p.where, "mark": p.mark}
            for k, p in constants.PUBLISHED.items()
            if p.law == name
        ],
    }


def conventions(form: Form, table, n: str, c: str) -> dict[str, str]:
    """Which column or count each input is, and the loss unit."""
    out = {}
    for k, column in tables.conventions(form, table, n, c).items():
        out[k] = column
        if k == "N" and "n_total_params" in table and column == "n_params":
            out[k] = N_CONVENTIONS[n or "multiplied"]
        if k == "C":
            out[k] = (
                c if c and "n_total_params" in table else "6N x tokens" if c == "6N" else column
            )
    return out | {"loss": "nats/token"}


def _procedure(table, name, n, c, resamples, asked, seed, level, levels) -> dict:
    p = PROCEDURES[name]
    o = p.run(table, n if n in table else "", c if c in table else "", resamples, seed, level)
    size, compute = n or "n_params", c or "flops"
    known = {"N": size} if "log_n" in o.parameters else {}
    known |= {"D": "tokens"} if "log_d" in o.parameters else {}
    made = compute not in table and "n_total_params" not in table
    return {
        "law": name,
        "formula": p.formula,
        "source": p.source,
        "parameters": o.parameters,
        "intervals": {k: bootstrap.interval(v) if len(v) else None for k, v in o.draws.items()},
        "level": 0.95,
        "intervals_at": {
            f"{100 * k:g}%": {name: bootstrap.interval(v, k) for name, v in o.draws.items()}
            for k in levels
        },
        "objective": o.objective,
        "objective_name": f"sum of squared residuals of log {[*known][0]}_opt",
        "n_points": o.n_points,
        "bootstrap": {
            "resamples": resamples,
            "method": "runs"
            if name == "chinchilla1"
            else f"drawn noise, {o.details['noise']:.2g} nats/token {o.details['noise_from']}",
            "seed": seed,
        },
        "conventions": known | {"C": "6N x tokens" if made else compute, "loss": "nats/token"},
        "verdicts": {"words": f"{o.verdict}{_known(o)}", **o.details},
        "predictions": [{"given": q, **o.at(q["C"], levels)} for q in asked],
        "published": [
            {
                "name": k,
                "values": {f"{k.lower()}_exponent": getattr(a, k.lower()) for k in known},
                "where": a.where,
                "mark": a.mark,
            }
            for k, a in constants.ALLOCATIONS.items()
        ],
    }


def _known(o) -> str:
    """How well the exponent is known, in words."""
    for name in ("n_exponent", "d_exponent"):
        if len(o.draws.get(name, ())):
            found = precision.of(name, o.parameters[name], bootstrap.interval(o.draws[name]))
            return f"; {name} {found.words}" if found else ""
    return ""
