"""Fits, comparisons and predictions in a call each, for notebooks and scripts: what the commands
print, as values. `from experiments.laws import fit` is the way in.

Runs are given as the folder of a sweep, a CSV file with the common columns, several of these, a
table (column name -> array), or a pandas table such as `load` gives.
"""

import os
from collections.abc import Sequence

import numpy as np

from experiments.laws import next_loss, questions, table_fit, two_tables
from experiments.laws.exceptions import FitError
from experiments.laws.fitting import constraints
from experiments.laws.runs import table as tables

LEVEL = 0.95


def table(runs, family: str = "") -> tables.Table:
    """`runs` as a table, of one family if that is named. Raises FitError."""
    if isinstance(runs, (str, os.PathLike)):
        runs = [runs]
    if isinstance(runs, Sequence):
        t = tables.read([os.fspath(p) for p in runs])
    elif hasattr(runs, "columns"):
        t = {str(k): np.asarray(runs[k]) for k in runs.columns}
    else:
        t = dict(runs)
    if not family:
        return t
    known = next_loss.families(t) if "family" in t else []
    if family not in known:
        raise FitError(f"family={family!r}: the runs have {', '.join(known) or 'no such column'}")
    return tables.taken(t, t["family"] == family)


def fit(
    runs,
    law: str = "chinchilla3",
    family: str = "",
    ask: Sequence[str] = (),
    fix: str = "",
    tie: str = "",
    within: str = "",
    objective: str = "huber",
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """What `isoflop fit --runs=... --law=...` says: parameters, intervals, verdicts, and an answer
    to each question of `ask`, such as "C=1e21". fix, tie and within as the flags have them. Raises
    FitError.
    """
    return table_fit.ask(
        table(runs, family),
        law,
        table_fit.objective(objective),
        resamples=resamples,
        asked=[questions.question(q) for q in ask],
        seed=seed,
        limits=constraints.read(fix, tie, within),
    )


def compare(
    a,
    b,
    families: tuple[str, str] = ("", ""),
    law: str = "chinchilla3",
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """What `isoflop compare A B` says: the compute multiplier, effective parameters and gap at
    budgets that both spent (`curve`), and runs in pairs. Raises FitError.
    """
    sides = [
        two_tables.side(family or f"{name}", table(runs, family), law, "", "", resamples, seed + k)
        for k, (name, runs, family) in enumerate(zip(("a", "b"), (a, b), families, strict=True))
    ]
    two_tables.alike(*sides)
    return two_tables.compare(*sides)


def predict(
    runs,
    budget: float,
    family: str = "",
    law: str = "chinchilla3",
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """The compute-optimal run of a larger budget (FLOPs, matmul) and its loss with a prediction
    interval of 95%, as `isoflop next` predicts it; nothing is registered. `distance`: the budget
    over the largest of the runs. Raises FitError.
    """
    t = table(runs, family)
    family = family or next_loss.families(t)[0]
    e = next_loss.evidence(t, family, law, resamples, seed)
    optimum = next_loss.best(e, budget)
    n, d = optimum["n_opt"]["value"], optimum["d_opt"]["value"]
    found = next_loss.outlook(e, n, d, LEVEL, seed)
    return {
        "family": family,
        "law": law,
        "budget": float(budget),
        "distance": float(budget) / e.high,
        "n_opt": optimum["n_opt"],
        "d_opt": optimum["d_opt"],
        "loss": found["value"],
        "interval": found["interval"],
        "level": LEVEL,
        "curve": next_loss.curve(e, n, d, LEVEL, seed),
    }
