"""Laws compete by what they predict: each is fitted to the runs below a compute, and held against
the best runs above it, for a rising compute.
"""

import numpy as np

from experiments.laws.fitting import fit
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective

# power_floor knows C alone: it is fitted to the best run of each group
LAWS = ("chinchilla3", "kaplan_nd", "power_floor")
BINS = 6  # of equal numbers of runs, where no budgets group them
LEAST = 3  # groups: two to fit and one to test


def groups(points: list[dict]) -> list[list[dict]]:
    """Points of one family by budget, else by equal shares of the runs in the order of compute."""
    budgets = sorted({p["budget"] for p in points if p["budget"]})
    if budgets:
        found = [[p for p in points if p["budget"] == b] for b in budgets]
        return sorted(found, key=lambda g: float(np.mean([p["c"] for p in g])))
    order = sorted(points, key=lambda p: p["c"])
    cut = np.array_split(np.arange(len(order)), max(1, min(BINS, len(order) // 3)))
    return [[order[i] for i in part] for part in cut]


def _best(group: list[dict]) -> dict:
    return min(group, key=lambda p: p["loss"])


def _inputs(law: str, rows: list[dict]) -> dict:
    keys = {"N": "n", "D": "d", "C": "c"}
    return {k: np.array([p[keys[k]] for p in rows], float) for k in FORMS[law].inputs}


def _few(law: str, below: int) -> str:
    """Why a law of C alone cannot be fitted to so many groups of runs, one run of each; or
    nothing.
    """
    free = len(FORMS[law].names)
    if FORMS[law].inputs != ("C",) or below > free:
        return ""
    return (
        f"reads the best run of each budget and has {free} parameters: it takes {free + 1}"
        f" budgets to fit it and one above them, {free + 2} in all"
    )


def _one(law: str, below: list[list[dict]], above: list[dict], spec: Objective) -> dict | str:
    """The error of a law on the best runs above; in words why there is none."""
    if few := _few(law, len(below)):
        return f"{law} {few}"
    alone = FORMS[law].inputs == ("C",)
    rows = [_best(g) for g in below] if alone else [p for g in below for p in g]
    loss = np.array([p["loss"] for p in rows])
    try:
        f = fit.fit(law, Points(_inputs(law, rows), loss), spec)
    except fit.FitError as e:
        return str(e)
    measured = np.array([p["loss"] for p in above])
    error = f.predict(_inputs(law, above))[0] / measured - 1
    return {
        "n_fit": len(rows),
        "n_test": len(above),
        "error": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "converged": f.converged,
    }


def rollouts(points: list[dict], sigma: float = 0.0, laws=LAWS) -> dict | None:
    """{below: FLOPs of each rollout, laws: {law: {rollouts, scored, why}}, shared, best, words} of
    one family; None below three groups of runs. `scored`: a law's mean error over the rollouts in
    which every law that has any could be fitted. sigma: noise of one run in log loss.
    """
    found = groups(points)
    if len(found) < LEAST:
        return None
    spec = Objective("huber", max(1e-3, sigma))
    below, rows = [], {law: [] for law in laws}
    for k in range(2, len(found)):
        below.append(float(max(p["c"] for g in found[:k] for p in g)))
        for law in laws:
            rows[law].append(_one(law, found[:k], [_best(g) for g in found[k:]], spec))
    able = {law: own for law, own in rows.items() if not all(isinstance(r, str) for r in own)}
    shared = [
        k
        for k in range(len(below))
        if able and all(not isinstance(own[k], str) for own in able.values())
    ]
    out = {}
    for law, own in rows.items():
        fair = law in able and shared
        score = float(np.mean([own[k]["error"] for k in shared])) if fair else None
        out[law] = {
            "rollouts": [None if isinstance(r, str) else r for r in own],
            "scored": score,
            "why": next((r for r in reversed(own) if isinstance(r, str)), None),
        }
    ranked = sorted(able if shared else [], key=lambda law: out[law]["scored"])
    return {
        "below": below,
        "laws": out,
        "shared": len(shared),
        "best": next(iter(ranked), None),
        "words": _words(ranked, out, len(shared), len(found)),
    }


def _words(ranked: list[str], laws: dict, shared: int, count: int) -> str:
    """Which law extrapolates best on these runs, and whether its error shrinks."""
    if not ranked:
        return "no law can be fitted to the lower budgets alone"
    numbers = ", ".join(f"{k} {laws[k]['scored']:.2%}" for k in ranked)
    rest = [k for k in laws if k not in ranked]
    short = {k: why for k in rest if (why := _few(k, count - 1))}
    others = [k for k in rest if k not in short]
    none = f"; not fitted: {', '.join(others)}" if others else ""
    for k, why in short.items():
        none += f"; without {k}, which {why} (these runs have {count})"
    errors = [r["error"] for r in laws[ranked[0]]["rollouts"] if r]
    trend = ""
    if len(errors) > 1:
        verb = "shrinks" if errors[-1] < errors[0] else "does not shrink"
        trend = f"; its error {verb} as runs are added ({errors[0]:.2%} to {errors[-1]:.2%})"
    times = f"{shared} rollout{'s' * (shared > 1)}"
    return f"{ranked[0]} extrapolates best here: off by {numbers} over {times}{none}{trend}"
