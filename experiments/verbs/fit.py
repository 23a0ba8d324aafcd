"""Fits the runs of a sweep: isoFLOP minima, exponents, and L = E + A/N^alpha + B/D^beta where the
runs identify it. Or one law of your choice to any table of runs: CSV files with the common columns,
folders of sweeps, or both together (docs/laws.md).

isoflop fit --workdir=runs/quickstart
isoflop fit --workdir=runs/quickstart --n=total --c=matmul_causal --format=json
isoflop fit --runs=runs.csv --law=chinchilla3 --where="is_outlier==0" --predict="C=1e21"
isoflop fit --runs=runs/a,runs/b --law=ludziejewski2025 --predict="C=1e14,E=8" --format=json
isoflop fit --runs=runs.csv --fix=E=1.6 --tie=alpha=beta --overestimate_penalty=10
isoflop fit --runs=runs.csv --law=power_floor --frontier --fix=E=1.6    three budgets are enough
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.console.lazy import Lazy
from experiments.laws import conventions
from experiments.report import labels
from experiments.verbs import common, fit_flags, law_text
from launch import files
from launch.runs import record
from model import work

answer_text = Lazy("experiments.report.answer_text")
constraints = Lazy("experiments.laws.fitting.constraints")
questions = Lazy("experiments.laws.questions")
table_fit = Lazy("experiments.laws.table_fit")
sweep_analysis = Lazy("experiments.laws.sweep_analysis")
selection = Lazy("experiments.laws.runs.selection")
compiled = Lazy("launch.runs.compiled")
sweep = Lazy("experiments.sweep")
trunks = Lazy("experiments.planning.trunks")
tables = Lazy("experiments.laws.runs.table")
losses = Lazy("experiments.laws.runs.losses")
law_figure = Lazy("experiments.report.law_figure")


def analyse(
    results,
    resamples: int,
    n: str = "multiplied",
    c: str = "matmul",
    pool: tuple[str, ...] = (),
    loss: str = "",
) -> dict:
    """experiments.laws.sweep_analysis.analyse of results, ready for JSON."""
    return record.finite(sweep_analysis.analyse(results, n, c, resamples, pool=pool, loss=loss))


def text(a: dict) -> str:
    """The answer, and below it what it rests on."""
    head = (
        f"N: {a['n_means']}; C: {a['c_convention']} FLOPs; loss: {a['loss_unit']}; 95% intervals"
        f" from {a['resamples']} resamples"
    )
    return "\n".join([head, *answer_text.lines(a), *_detail(a)])


def _detail(a: dict) -> list[str]:
    lines = []
    for family, f in a["families"].items():
        for q in f["parabolas"]:
            if q["interior"]:
                lines.append(
                    f"{family:<6} C {q['flops']:.3g}: N_opt"
                    f" {labels.number(q['n_opt'])}{_range(q.get('n_opt_interval'))}, D_opt"
                    f" {labels.number(q['d_opt'])}, loss"
                    f" {labels.spread(q['loss_opt'], q.get('loss_opt_interval'))}"
                )
        p = f["parametric"]
        fitted = (
            ""
            if "parameters" not in p
            else ": "
            + ", ".join(
                f"{k} {labels.spread(p['parameters'][k], p['intervals'][k])}"
                for k in ("E", "alpha", "beta")
            )
        )
        lines.append(f"{family:<6} E + A/N^alpha + B/D^beta: {p['verdict']}{fitted}")
    for e in a["leverage"]:
        lines.append(
            f"efficiency leverage of MoE at {e['flops']:.3g} FLOPs: dense needs"
            f" {labels.spread(e['leverage'], e['interval'])} times the compute"
        )
    if a["learning_rates"]:
        edges = sum(v["edge"] for v in a["learning_rates"])
        lines.append(
            f"learning-rate brackets: {len(a['learning_rates'])}, best at the edge in {edges}"
        )
    lines += [f"{family:<6} {r['words']}" for family, r in a["rollouts"].items() if r]
    lines += trunks.words(a["trunks"])
    lines += [f"flagged: {e['what']}: {e['why']}" for e in a["flagged"]]
    return lines + [f"excluded: {e['what']}: {e['why']}" for e in a["excluded"]]


def _range(interval) -> str:
    return f" [{labels.number(interval[0])}, {labels.number(interval[1])}]" if interval else ""


def finished(workdir: str) -> list[dict]:
    """Results of the folder of a sweep. Raises UserError or RecordError."""
    if not workdir:
        raise UserError("--workdir is missing: name the folder of a sweep")
    if not os.path.isdir(workdir):
        raise UserError(f"--workdir={workdir} does not exist: run isoflop sweep first")
    results = sweep.results(workdir)
    if not results:
        raise UserError(
            f"--workdir={workdir} holds no finished runs: run isoflop sweep --workdir={workdir}"
            " first"
        )
    return results


def load(fv) -> list[dict]:
    """Results of --workdir, with --n and --c checked. Raises UserError or RecordError."""
    results = finished(fv.workdir)
    _check_choice("n", fv.n, list(conventions.N_CONVENTIONS))
    _check_choice("c", fv.c, list(work.CONVENTIONS))
    return results


def asked_loss(workdir: str) -> str:
    """The loss that the recipe of a sweep is about; "" where it names none."""
    path = os.path.join(workdir, sweep.SWEEP)
    about = files.read_json(path, "sweep").get("sweep") if os.path.exists(path) else None
    found = about.get("loss", "") if isinstance(about, dict) else ""
    return found if isinstance(found, str) else ""


def _check_choice(flag: str, value: str, choices: list[str]) -> None:
    if value and value not in choices:
        raise UserError(f"--{flag}={value}: the records of a sweep count {' | '.join(choices)}")


def check_conventions(fv, paths: list[str]) -> None:
    """Raises UserError where --n or --c is none of a folder's, whose counts are named by
    conventions; a file's are by its columns.
    """
    for path in paths:
        if os.path.isdir(path):
            _check_choice("c", fv.c, list(work.CONVENTIONS))
            _check_choice(
                "n", fv.n, [*conventions.N_CONVENTIONS, "n_total_params", "n_active_params"]
            )


def define_conventions(fv) -> None:
    """Adds --n, --c (aliases --params, --flops) and --bootstrap to the flags of fit and report."""
    flags.DEFINE_string(
        "n",
        "",
        f"which parameters are N: {' | '.join(conventions.N_CONVENTIONS)} [multiplied], or a column"
        " of a CSV file",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "c",
        "",
        f"which FLOPs are C: {' | '.join(work.CONVENTIONS)} [matmul], or a column of a CSV file",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "pool",
        "",
        f"fit together what is kept apart: {','.join(conventions.POOL)} (comma-separated)",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "loss",
        "",
        "which loss is L: bits_per_byte, ema or lawa (of runs with an average), or a source of a"
        " mixture [that of the sweep's recipe, else nats per token of all validation windows]",
        flag_values=fv,
    )
    flags.DEFINE_alias("params", "n", flag_values=fv)
    flags.DEFINE_alias("flops", "c", flag_values=fv)
    flags.DEFINE_integer(
        "bootstrap", 1000, "resamples behind the intervals", lower_bound=20, flag_values=fv
    )


def _levels(text: str) -> tuple[float, ...]:
    """`80,50` as shares. Raises UserError."""
    try:
        found = tuple(float(p) / 100 for p in text.split(",") if p.strip())
    except ValueError:
        found = (0.0,)
    if not all(0.01 <= k < 1 for k in found):
        raise UserError(f"--level={text}: write percentages between 1 and 100, such as 80,50")
    return found


def _law(fv) -> dict:
    """The answer of one law to --runs (or --workdir). Raises UserError or FitError before anything
    is computed.
    """
    paths = [
        p
        for given in [*fv.runs, *([fv.workdir] if fv.workdir and not fv.runs else [])]
        for p in given.split(",")
        if p
    ]
    name, spec = fv.law or "chinchilla3", table_fit.objective(fv.objective)
    table_fit.law(name)
    if not 0 < fv.overestimate_penalty < 1e6:
        raise UserError(
            f"--overestimate_penalty={fv.overestimate_penalty:g} must be a positive number: 1"
            " counts both sides alike, 10 an overestimate ten times"
        )
    spec = spec._replace(penalty=fv.overestimate_penalty)
    columns = fit_flags.columns(fv)
    asked = [questions.question(q) for given in fv.predict for q in given.split(";") if q.strip()]
    check_conventions(fv, paths)
    table = tables.where(tables.read(paths, fv.n, fv.c, columns, name == "chinchilla1"), fv.where)
    if fv.n and fv.n not in conventions.N_CONVENTIONS:
        tables.column_name(table, fv.n, "--n: the table")
    pooled = selection.pools(fv.pool)
    if fv.figure:
        files.writable(os.path.dirname(fv.figure) or ".", "--figure")
        law_figure.check(name)
    a = table_fit.ask(
        table,
        name,
        spec,
        fv.n,
        fv.c,
        fv.bootstrap,
        asked,
        fv.hold_out,
        fv.seed,
        columns,
        pooled,
        fv.noise,
        _levels(fv.level),
        constraints.read(",".join(fv.fix), ",".join(fv.tie), ",".join(fv.within)),
        fv.weights,
        fv.frontier,
    )
    if fv.figure:
        unit = losses.unit(fv.loss) if fv.loss == losses.PER_BYTE else a["conventions"]["loss"]
        drawn = law_figure.draw(a, table, fv.n, fv.c, pooled, unit)
        files.write_text(os.path.abspath(fv.figure), drawn)
    return record.finite(a | {"data": tables.describe(paths), "where": fv.where})


def _body(fv) -> int:
    given = [n for n in ("level", *fit_flags.NAMES) if fv[n].value != fv[n].default]
    if given and not (fv.runs or fv.law):
        raise UserError(
            f"--{given[0]} is read with --law: name one (isoflop fit --workdir=... --law=...)"
        )
    if fv.runs or fv.law:
        if not fv.runs and not fv.workdir:
            raise UserError("--runs is missing: name a CSV file, or the folder of a sweep")
        compiled.use_cache()
        with common.complete():
            a = _law(fv)
        print(json.dumps(a) if fv.format == "json" else terminal.plain(law_text.text(a)))
        return 0
    results, pool = load(fv), selection.pools(fv.pool)
    compiled.use_cache()
    with common.complete(results):
        a = analyse(
            results,
            fv.bootstrap,
            fv.n or "multiplied",
            fv.c or "matmul",
            pool,
            fv.loss or asked_loss(fv.workdir),
        )
    print(json.dumps(a) if fv.format == "json" else terminal.plain(text(a)))
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("workdir")
    define_conventions(fv)
    flags.DEFINE_multi_string(
        "runs",
        [],
        "CSV file or folder of a sweep; repeatable, or comma-separated: all are fitted together",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "law",
        "",
        f"{' | '.join(conventions.LAWS)}; default with --runs: chinchilla3",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "objective",
        "huber",
        "huber (delta from the residuals' own scale) | huber:DELTA | squared | lad, summed over log"
        " loss; add :loss for the loss itself",
        flag_values=fv,
    )
    fit_flags.define_table(fv)
    flags.DEFINE_multi_string(
        "predict",
        [],
        "C=1e21 (optimal N, D, loss; with memory=BYTES or D_inf=TOKENS) | N=7e10,D=1.4e12 |"
        " loss=2,D_inf=1e12; repeatable",
        flag_values=fv,
    )
    flags.DEFINE_float(
        "hold_out",
        0.0,
        "FLOPs above which runs are left out of one fit and predicted by it [the upper fifth]",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "noise",
        "",
        "noise of one run's loss in isoFLOP slices, nats/token: 0.01, or by loss 3:.002,7:.05 [from"
        " seeds, else from neighbours near the minima]",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "level",
        "",
        "intervals of a law that are printed beside those of 95%, in percent: 80,50",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "figure",
        "",
        "SVG file to write: points by where they come from, the law's curves, residuals",
        flag_values=fv,
    )
    fit_flags.define(fv)
    flags.DEFINE_integer("seed", 0, "of the resamples", lower_bound=0, flag_values=fv)
    return cli.run("fit", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
