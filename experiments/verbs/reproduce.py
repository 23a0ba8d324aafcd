"""Repeats a published fit from the runs its authors made public: their recipe, published against
reproduced, a verdict per row, a figure.

isoflop reproduce besiroglu2024    fetched once at a pinned commit, kept in the cache
isoflop reproduce gadre2024 --data=FILE
    without a network: the authors' file, or a CSV with the common columns
isoflop reproduce clark2022 --figure=clark.svg --format=json
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console.lazy import Lazy
from experiments.verbs import law_text
from launch import files
from launch.runs import record

compiled = Lazy("launch.runs.compiled")
reproduce = Lazy("experiments.laws.published.reproduce")
sources = Lazy("experiments.laws.published.sources")


def text(name: str, rows, source: dict, figure: str) -> str:
    """The table in plain text; what is published carries its mark."""
    lines = [f"{name}: {source['path']}", f"  SHA-256 {source['sha256']} ({source['how']})", ""]
    wide = max(len(r.what) for r in rows if not r.what.startswith("pitfall"))
    lines.append(f"{'':<{wide}}  {'published':>12}  {'reproduced':>12}")
    for r in rows:
        printed, ours = ("" if v is None else law_text.g(v) for v in (r.published, r.reproduced))
        around = (
            f"  [{law_text.g(r.interval[0])}, {law_text.g(r.interval[1])}]" if r.interval else ""
        )
        mark = f"  ({r.mark})" if r.mark else ""
        lines.append(
            f"{r.what:<{wide}}  {printed:>12}  {ours:>12}  {r.verdict:<8}{around}{mark}".rstrip()
        )
    wrong = sum(r.agrees is False for r in rows)
    lines.append(f"{sum(r.agrees is True for r in rows)} rows agree, {wrong} differ")
    return "\n".join([*lines, f"figure: {figure}"])


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    fv = cli.flag_values()
    flags.DEFINE_string(
        "data",
        "",
        "the authors' file or a CSV with the common columns, instead of fetching it",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "figure", "", "where the figure goes (SVG) [runs/reproduce/NAME.svg]", flag_values=fv
    )
    flags.DEFINE_integer(
        "bootstrap", 1000, "resamples behind the intervals", lower_bound=20, flag_values=fv
    )
    flags.DEFINE_integer("seed", 0, "of the resamples", lower_bound=0, flag_values=fv)

    def body(fv) -> int:
        if name not in reproduce.REPRODUCTIONS:
            raise UserError(
                f"name a published fit: {', '.join(reproduce.REPRODUCTIONS)}"
                + (f" (not {name!r})" if name else "")
            )
        table, source = sources.load(name, fv.data)
        compiled.use_cache()
        rows, drawn = reproduce.run(name, table, fv.bootstrap, fv.seed)
        figure = fv.figure or os.path.join("runs", "reproduce", f"{name}.svg")
        files.writable(os.path.dirname(figure) or ".", "--figure")
        # matplotlib: imported where figures are drawn
        from experiments.report import reproduction_figures

        files.write_text(figure, reproduction_figures.FIGURES[name](drawn))
        if fv.format == "json":
            listed = [r._asdict() | {"verdict": r.verdict} for r in rows]
            print(
                json.dumps(
                    record.finite(
                        {"name": name, "source": source, "rows": listed, "figure": figure}
                    )
                )
            )
        else:
            print(text(name, rows, source, figure))
        return 0

    return cli.run("reproduce", __doc__, fv, argv, body)


if __name__ == "__main__":
    sys.exit(main())
