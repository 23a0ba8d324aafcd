"""Writes WORKDIR/report.html from the records of a sweep: one file, opens offline, text and numbers
searchable.

isoflop report --workdir=runs/quickstart
isoflop report --workdir=runs/quickstart --n=non_embedding --c=6N_active
isoflop report --workdir=runs/quickstart --params=total --flops=6N
isoflop report --workdir=/colleague/runs/q --out=here
    analysis.json and report.html in another folder: the sweep is only read
isoflop report --workdir=runs/quickstart --figures=paper/figures --tables=paper/tables
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.console.lazy import Lazy
from experiments.verbs import common, fit
from launch import files
from launch.runs import outcomes, record

exports = Lazy("experiments.report.exports")
forecast = Lazy("experiments.planning.forecast")
selection = Lazy("experiments.laws.runs.selection")
compiled = Lazy("launch.runs.compiled")
sweep = Lazy("experiments.sweep")


def write(
    workdir: str,
    results: list[dict],
    analysis: dict,
    name: str,
    out: str = "",
    figures: dict | None = None,
) -> str:
    """Writes analysis.json and report.html into `out`, or the sweep's own folder; returns the
    report's path. `figures` takes the figures (page.render).
    """
    from experiments.report import page  # matplotlib: imported where figures are drawn

    analysis["predictions"] = outcomes.rows(workdir)
    files.write_json(os.path.join(out or workdir, sweep.ANALYSIS), analysis)
    curves = page.read_curves(
        [os.path.join(workdir, sweep.RUNS, r["id"], record.METRICS) for r in results]
    )
    path = os.path.join(out or workdir, sweep.REPORT)
    page.save(path, page.render(name, results, analysis, curves, figures))
    return path


def _body(fv) -> int:
    results = fit.load(fv)
    files.writable(*((fv.out, "--out") if fv.out else (fv.workdir,)))
    for flag in ("figures", "tables"):
        if fv[flag].value:
            files.writable(fv[flag].value, f"--{flag}")
    compiled.use_cache()
    with common.complete(results):
        analysis = fit.analyse(
            results,
            fv.bootstrap,
            fv.n or "multiplied",
            fv.c or "matmul",
            selection.pools(fv.pool),
            fv.loss or fit.asked_loss(fv.workdir),
        )
        analysis["forecast"] = forecast.compare(fv.workdir, results)
    path = os.path.join(fv.workdir, sweep.SWEEP)
    about = files.read_json(path, "sweep").get("sweep") if os.path.exists(path) else None
    name = about.get("name", "sweep") if isinstance(about, dict) else "sweep"
    figures: dict | None = {} if fv.figures else None
    with common.complete(results):
        report = write(fv.workdir, results, analysis, str(name), fv.out, figures)
        made = exports.write_figures(fv.figures, figures) if figures is not None else []
        made += exports.write_tables(fv.tables, results, analysis) if fv.tables else []
    said = "".join(f"\n{path}" for path in made)
    print(
        json.dumps({"report": report, "runs": len(results), "exports": made})
        if fv.format == "json"
        else f"{len(results)} runs\nreport: {report}{said}"
    )
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("workdir")
    fit.define_conventions(fv)
    flags.DEFINE_string(
        "out",
        "",
        "folder for analysis.json and report.html, where the sweep's own may only be read",
        flag_values=fv,
    )
    flags.DEFINE_string("figures", "", "folder for every figure as SVG and PDF", flag_values=fv)
    flags.DEFINE_string(
        "tables",
        "",
        "folder for runs.csv, laws.csv, laws.tex and methods.txt, a paragraph of what was done",
        flag_values=fv,
    )
    return cli.run("report", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
