"""A sweep's records to what its law says of a larger run: the best size at a budget, and the loss
of a run of that size with its prediction interval.
"""

from typing import NamedTuple

import numpy as np

from experiments.laws import table_fit
from experiments.laws.exceptions import FitError
from experiments.laws.fitting import allocation, fit, prediction
from experiments.laws.fitting.allocation import Cost
from experiments.laws.fitting.fit import Fitted
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from experiments.laws.runs import selection
from experiments.laws.runs import table as tables

LAWS = ("chinchilla3", "kaplan_nd")  # of N and D alone: what a run of one family is known by
POINTS = 25  # of the predicted curve


class Evidence(NamedTuple):
    """A law fitted to one family of a sweep; `low` and `high`: FLOPs of its runs."""

    f: Fitted
    cost: Cost
    low: float
    high: float
    left_out: list[dict]
    table: tables.Table


def families(table: tables.Table) -> list[str]:
    return list(dict.fromkeys(table["family"].tolist()))


def evidence(
    table: tables.Table, family: str, law: str = LAWS[0], resamples: int = 1000, seed: int = 0
) -> Evidence:
    """The law fitted as `isoflop fit --law` fits it. Raises FitError."""
    if law not in LAWS:
        raise FitError(f"--law={law}: choose from {', '.join(LAWS)}, which know N and D alone")
    if family not in families(table):
        raise FitError(f"--family={family}: this sweep has {', '.join(families(table))}")
    table = tables.taken(table, table["family"] == family)
    table, left = selection.of_table(table, False)
    form = FORMS[law]
    pts, _ = table_fit.points(form, table)
    fit.check(law, pts)
    method, _ = table_fit.resampling(form, pts)
    f = fit.fit(law, pts, Objective(own=True), resamples, seed, method)
    c = table["flops"]
    return Evidence(f, table_fit.price(table, form), float(c.min()), float(c.max()), left, table)


def best(e: Evidence, budget: float) -> dict:
    """The law's optimum at a budget, as allocation.optimum has it. Raises FitError where it has
    none.
    """
    found = allocation.optimum(e.f, budget, e.cost, {})
    if not np.isfinite(found["n_opt"]["value"]):
        raise FitError(
            f"these runs do not say how large a model {budget:.3g} FLOPs want: {e.f.law} has no"
            " optimum there; add sizes or budgets to the sweep (isoflop fit shows what is open)"
        )
    return found


def outlook(e: Evidence, n: float, tokens: float, level: float, seed: int = 0) -> dict:
    """prediction.outlook of one run. Raises FitError where the interval has no end."""
    x = {"N": np.array([float(n)]), "D": np.array([float(tokens)])}
    found = prediction.outlook(e.f, x, level, seed)
    if found["interval"] is None or not np.isfinite(found["interval"]).all():
        raise FitError(
            f"the loss at {n:.3g} parameters and {tokens:.3g} tokens cannot be bounded by these"
            " runs: add sizes, budgets or seeds to the sweep"
        )
    return found


def curve(e: Evidence, n: float, tokens: float, level: float, seed: int = 0) -> dict:
    """The law's loss along training: that of a run of this size which ends at so many tokens, with
    its prediction interval. Columns tokens, loss, interval.
    """
    at = np.geomspace(tokens / 50, tokens, POINTS)
    rows = [
        prediction.outlook(e.f, {"N": np.array([float(n)]), "D": np.array([d])}, level, seed)
        for d in at
    ]
    return {
        "tokens": at.tolist(),
        "loss": [r["value"] for r in rows],
        "interval": [r["interval"] for r in rows],
    }


def rate(rows: list[dict]) -> tuple[float, str]:
    """(multiplier of the ladder's learning rate, where it comes from) by a family's brackets
    (points.tuned): the geometric mean of the bests that lie inside.
    """
    inside = [r["best_multiplier"] for r in rows if not r["edge"] and r["trials"] > 2]
    if not inside:
        why = f"; none of {len(rows)} brackets has its best inside" if rows else ""
        return 1.0, f"the ladder's rule (docs/tuning.md){why}"
    m = float(np.exp(np.mean(np.log(inside))))
    return m, f"x{m:.3g} of the ladder's rule: the mean best of {len(inside)} brackets"
