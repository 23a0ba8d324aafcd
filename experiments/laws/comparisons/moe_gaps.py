"""Mixture of experts against dense: on the same tokens seed by seed, at equal spent compute, and
how much compute dense needs for the same loss.
"""

from collections import defaultdict

from experiments.laws.comparisons.frontiers import SAME
from experiments.laws.fitting import bootstrap
from experiments.laws.runs.points import cell, ratios


def pairs_of(points):
    """MoE - dense of one cell and seed, and what of both is equal, as measured."""
    table = {(p["family"], *cell(p), p["seed"]): p for p in points}
    rows = []
    for (family, *key), dense in sorted(table.items(), key=lambda kv: str(kv[0])):
        other = table.get(("moe", *key))
        if family == "dense" and other:
            rows.append(
                {
                    "size": dense["size"],
                    "budget": dense["budget"],
                    "seed": dense["seed"],
                    "n": dense["n"],
                    "tokens": dense["d"],
                    "dense": dense["loss"],
                    "moe": other["loss"],
                    "gap": other["loss"] - dense["loss"],
                    "router_share": other["router"] / dense["active"],
                    **ratios(other, dense),
                }
            )
    return rows


def gaps_of(pairs):
    """The gap by (size, budget) over seeds, with its interval where there are at least two."""
    cells = defaultdict(list)
    for p in pairs:
        cells[p["size"], p["budget"], p["tokens"]].append(p)
    rows = []
    for (size, budget, tokens), own in sorted(
        cells.items(), key=lambda kv: (kv[0][1] or 0, kv[0][2], kv[0][0])
    ):
        gaps = [p["gap"] for p in own]
        mean, around = bootstrap.student(gaps)
        rows.append(
            {
                "size": size,
                "budget": budget,
                "tokens": tokens,
                "seeds": len(gaps),
                "gap": mean,
                "interval": around,
                **{k: own[0][k] for k in (*RATIOS, "router_share")},
            }
        )
    return rows


def what_is_equal(rows: list[dict], c: str) -> str:
    """What the two sides of gaps have in common, with the measured ratios (of the second over the
    first) beside the word. `c`: the convention that FLOPs are counted by.
    """
    low = {k: min(g[k] for g in rows) for k in RATIOS}
    high = {k: max(g[k] for g in rows) for k in RATIOS}
    text = {k: _between(low[k], high[k]) for k in RATIOS}

    def off(k):
        return max(abs(low[k] - 1), abs(high[k] - 1))

    tokens = f", tokens {text['tokens_ratio']}" if off("tokens_ratio") > 1e-9 else ""
    if tokens and off("flops_ratio") <= SAME:
        return f"at equal FLOPs ({c} {text['flops_ratio']}, active {text['active_ratio']}{tokens})"
    even = all(abs(g["active_ratio"] - 1 - g["router_share"]) < 1e-6 for g in rows)
    word = "equal active parameters" if even else "UNEQUAL active parameters"
    router = " with the router" if even else ""
    return f"at {word} ({text['active_ratio']}{router}; {c} FLOPs {text['flops_ratio']}{tokens})"


def _between(low: float, high: float) -> str:
    return f"x{low:.3f}" + (f" to {high:.3f}" if high - low > 5e-4 else "")


RATIOS = ("active_ratio", "flops_ratio", "tokens_ratio")
