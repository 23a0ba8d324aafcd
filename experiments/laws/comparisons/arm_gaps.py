"""Arms of a sweep against each other: at every size, on the same tokens in the same order, seed by
seed.
"""

from collections import defaultdict

from experiments.laws.fitting import bootstrap
from experiments.laws.runs.points import cell, ratios
from experiments.planning.arms import ARMS


def reference(families) -> str:
    """The arm that the others are compared with: the first in the ladder's list."""
    order = list(ARMS)
    return min(families, key=lambda f: (order.index(f) if f in order else len(order), f))


def base(points: list[dict]) -> str:
    """The arm that a sweep names as its reference, or else the first in the ladder's list."""
    families = sorted({p["family"] for p in points})
    named = next((p["reference"] for p in points if p.get("reference") in families), None)
    return named or reference(families)


def compare(points: list[dict], totals: dict[str, int]) -> list[dict]:
    """One row for each size, budget and family: mean loss over seeds with its Student interval, and
    the mean difference from the reference arm over the seeds that both have. `totals`: all
    parameters by run id. [] for fewer than two arms.
    """
    families = sorted({p["family"] for p in points})
    if len(families) < 2:
        return []
    against, cells = base(points), defaultdict(dict)
    for p in points:
        cells[cell(p)].setdefault(p["family"], {})[p["seed"]] = p
    rows = []
    for (size, budget, asked), arms in sorted(
        cells.items(), key=lambda kv: (kv[0][1] or 0, kv[0][2] or 0, kv[0][0])
    ):
        for family in sorted(arms, key=lambda f: (f != against, f)):
            own = arms[family]
            loss, around = bootstrap.student([p["loss"] for p in own.values()])
            both = sorted(set(own) & set(arms.get(against, {}))) if family != against else []
            gap, spread = (
                bootstrap.student([own[s]["loss"] - arms[against][s]["loss"] for s in both])
                if both
                else (None, None)
            )
            one = next(iter(own.values()))
            measured = ratios(own[both[0]], arms[against][both[0]]) if both else {}
            rows.append(
                {
                    "family": family,
                    "reference": against,
                    "size": size,
                    "budget": budget,
                    "asked": asked,
                    "tokens": one["d"],
                    "parameters": totals[one["id"]],
                    "seeds": len(own),
                    "loss": loss,
                    "interval": around,
                    "gap": gap,
                    "gap_interval": spread,
                    **measured,
                }
            )
    return rows
