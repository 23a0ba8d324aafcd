"""Two tables of runs to their comparison (comparisons/two_sides.py), ready for JSON."""

from experiments.laws import table_fit
from experiments.laws.comparisons import two_sides
from experiments.laws.exceptions import FitError
from experiments.laws.fitting import fit
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from experiments.laws.runs import selection
from experiments.laws.runs import table as tables

LAWS = ("chinchilla3", "kaplan_nd", "power_floor")
KINDS = ("corpus", "tokenizer")


def side(name: str, table, law: str, n: str, c: str, resamples: int, seed: int) -> two_sides.Side:
    """A table's law as `isoflop fit --law` fits it; one of C alone is fitted to the frontier.
    Raises FitError with the table's name.
    """
    if law not in LAWS:
        raise FitError(f"--law={law}: choose from {', '.join(LAWS)}")
    form = FORMS[law]
    try:
        table, _ = selection.of_table(table, False)
        compute = c if c in table else "flops"
        if compute not in table:
            table = {**table, "flops": 6 * tables.numbers(table, "n_params")}
            table["flops"] = table["flops"] * tables.numbers(table, "tokens")
        rows = table
        if form.inputs == ("C",):
            rows, _ = selection.frontier(table, compute)
        pts, _ = table_fit.points(form, rows, n, c)
        fit.check(law, pts)
        method, _ = table_fit.resampling(form, pts)
        spec = Objective("squared") if method == "t" else Objective(own=True)
        f = fit.fit(law, pts, spec, resamples, seed, method)
    except FitError as e:
        raise FitError(f"{name}: {e}") from None
    spent = tables.numbers(table, compute)
    cost = table_fit.price(table, form, n, c)
    return two_sides.Side(name, f, cost, float(spent.min()), float(spent.max()), table)


def alike(a: two_sides.Side, b: two_sides.Side, pool=()) -> None:
    """Raises FitError where the two losses are not of one text, or of one tokenizer's tokens."""
    for kind in KINDS:
        mine, theirs = ({*s.table.get(kind, [])} - {""} for s in (a, b))
        if mine and theirs and mine != theirs and kind not in pool:
            raise FitError(
                f"the {kind} differs ({a.name}: {', '.join(sorted(mine))}; {b.name}:"
                f" {', '.join(sorted(theirs))}): their losses are other quantities; compare them"
                f" all the same with --pool={kind}"
            )


def compare(a: two_sides.Side, b: two_sides.Side) -> dict:
    """Everything `isoflop compare` says. Raises FitError."""
    rows = two_sides.curves(a, b)

    def about(s):
        spans = s.f.intervals()
        return {
            "name": s.name,
            "runs": len(s.table["loss"]),
            "points": len(s.f.points.y),
            "flops": [s.low, s.high],
            "parameters": {k: [s.f.parameters[k], spans[k]] for k in s.f.form.names},
            "method": s.f.method,
        }

    return {
        "law": a.f.law,
        "formula": a.f.form.formula,
        "a": about(a),
        "b": about(b),
        "curve": rows,
        "paired": two_sides.paired(a, b),
        "words": two_sides.words(a, b, rows),
    }
