"""Two sweeps, arms or tables of runs against each other: how much less compute the second needs for
the same loss, as a curve with its band; how many times the parameters the first would take; the gap
at equal FLOPs; and pairs of runs, seed by seed.

isoflop compare runs/baseline runs/new
isoflop compare runs/quickstart:dense runs/quickstart:moe    two arms of one sweep
isoflop compare theirs.csv ours.csv --columns=loss=val_loss
isoflop compare a.csv b.csv --law=power_floor    each table's frontier, where N and D are not known
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.console.lazy import Lazy
from experiments.verbs import common, fit, fit_flags, law_text
from launch.runs import record

compiled = Lazy("launch.runs.compiled")
selection = Lazy("experiments.laws.runs.selection")
tables = Lazy("experiments.laws.runs.table")
two_tables = Lazy("experiments.laws.two_tables")


def _side(fv, text: str):
    """(name, table) of PATH or PATH:FAMILY. Raises UserError or FitError."""
    path, family = text, ""
    if not os.path.exists(text):
        path, _, family = text.rpartition(":")
    if not path or not os.path.exists(path):
        raise UserError(f"{path or text} does not exist: name a CSV file or the folder of a sweep")
    fit.check_conventions(fv, [path])
    table = tables.where(tables.read([path], fv.n, fv.c, fit_flags.columns(fv)), fv.where)
    if not family:
        return text, table
    known = list(dict.fromkeys(table["family"].tolist())) if "family" in table else []
    if family not in known:
        raise UserError(f"{text}: {path} has {', '.join(known) or 'no column family'}")
    return text, tables.taken(table, table["family"] == family)


def _body(fv, given: list[str]) -> int:
    if len(given) != 2:
        raise UserError(
            "name two sweeps, arms or tables, as in isoflop compare runs/baseline runs/new"
            f" ({len(given)} given)"
        )
    if given[0] == given[1]:
        raise UserError(f"{given[0]} is given twice: name two, or two arms as PATH:FAMILY")
    pool = selection.pools(fv.pool)
    found = [_side(fv, text) for text in given]
    compiled.use_cache()
    with common.complete():
        a, b = (
            two_tables.side(name, table, fv.law, fv.n, fv.c, fv.bootstrap, fv.seed + k)
            for k, (name, table) in enumerate(found)
        )
        two_tables.alike(a, b, pool)
        answer = record.finite(two_tables.compare(a, b))
    print(json.dumps(answer) if fv.format == "json" else terminal.plain(text(answer)))
    return 0


def text(a: dict) -> str:
    """The answer first, then the curve, then the pairs."""
    one, two = a["a"]["name"], a["b"]["name"]
    lines = [a["words"]]
    for k in "ab":
        s = a[k]
        low, high = s["flops"]
        lines.append(f"  {s['name']}: {s['runs']} runs, {low:.3g} to {high:.3g} FLOPs")
    lines.append(f"  by {a['law']}: {a['formula']}, each side its own; 95% intervals")
    lines.append(f"compute multiplier: FLOPs that {one} needs for what {two} reaches, over its own")
    for r in a["curve"]:
        m = r["multiplier"]
        beyond = "" if r["seen"] else f" (beyond the runs of {one})"
        size = f"; parameters x{_spread(r['parameters'])}" if "parameters" in r else ""
        lines.append(
            f"  {r['flops']:.3g} FLOPs: x{_spread(m)}{beyond}{size}; gap {_spread(r['gap'])}"
        )
    if not a["paired"]:
        return "\n".join([*lines, "no runs are pairs: equal in size, budget and seed"])
    every = a["paired"][-1]
    lines.append(
        f"{every['pairs']} pairs of equal size, budget and seed: {two} - {one}"
        f" {law_text.spread(every['gap'], every['interval'])}"
    )
    for r in a["paired"][:-1]:
        if r["pairs"] > 1:
            said = law_text.spread(r["gap"], r["interval"])
            lines.append(f"  size {r['size']:g}, {r['budget']:.3g}: {r['pairs']} seeds, {said}")
    return "\n".join(lines)


def _spread(v: dict) -> str:
    if v["value"] is None:
        return "none within reach"
    around = v["interval"]
    span = f" [{around[0]:.3g}, {around[1]:.3g}]" if around else " [no interval]"
    return f"{v['value']:.3g}{span}"


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    given = []
    while argv and not argv[0].startswith("-"):  # isoflop compare A B
        given.append(argv.pop(0))
    fv = cli.flag_values()
    fit.define_conventions(fv)
    fit_flags.define_table(fv)
    flags.DEFINE_string(
        "law", "chinchilla3", "chinchilla3 | kaplan_nd | power_floor of each side", flag_values=fv
    )
    flags.DEFINE_integer("seed", 0, "of the resamples", lower_bound=0, flag_values=fv)
    return cli.run("compare", __doc__, fv, argv, lambda fv: _body(fv, given))


if __name__ == "__main__":
    sys.exit(main())
