"""Mixture of experts against dense: on the same tokens seed by seed, at equal spent compute, and
how much compute dense needs for the same loss.
"""

from collections import defaultdict

import numpy as np

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
SAME = 0.02  # budgets that differ by less in what was spent are compared as they are


def _spent(curve, flops: float) -> float:
    """The dense loss at `flops`: on the straight line through the dense minima, (FLOPs, loss), in
    log loss against log FLOPs; of one minimum its loss.
    """
    c, losses = map(np.asarray, zip(*curve))
    if len(c) == 1:
        return float(losses[0])
    if not np.isfinite(losses).all():
        return float("nan")
    k = np.argsort(abs(np.log(c / flops)))[:2]  # the two minima around it, or the nearest two
    slope, offset = np.polyfit(np.log(c[k]), np.log(losses[k]), 1)
    return float(np.exp(offset + slope * np.log(flops)))


def equal_flops(families, draws, excluded):
    """MoE - dense at equal spent FLOPs: at every MoE minimum, against the dense loss that the same
    FLOPs buy. Where the two spent the same within SAME, the minima themselves are compared, else
    the dense loss is read between the dense minima. `ratio`: FLOPs of the MoE runs over the dense
    runs of the same nominal budget. Intervals from the two families' independent resamples.
    """
    if not {"dense", "moe"} <= set(families):
        return []
    at = {
        f: {row["budget"]: i for i, row in enumerate(families[f]["parabolas"]) if row["interior"]}
        for f in ("dense", "moe")
    }
    dense = families["dense"]["parabolas"]
    rows = []
    for budget, i in sorted(at["moe"].items()):
        m = families["moe"]["parabolas"][i]
        own = at["dense"].get(budget)
        ratio = m["flops"] / dense[own]["flops"] if own is not None else None
        which = [own] if ratio and abs(ratio - 1) <= SAME else list(at["dense"].values())
        c = [dense[k]["flops"] for k in which]
        inside = c and (len(which) == 1 and ratio and abs(ratio - 1) <= SAME)
        if not inside and not (
            len(c) > 1 and min(c) <= m["flops"] * (1 + SAME) and max(c) >= m["flops"] * (1 - SAME)
        ):
            excluded.append(
                {
                    "what": f"MoE against dense, best of each at {budget:.3g} FLOPs",
                    "why": f"the MoE runs spent {m['flops']:.3g} FLOPs, and no dense minima lie on"
                    " both sides of that",
                }
            )
            continue
        curve = [(dense[k]["flops"], dense[k]["loss_opt"]) for k in which]
        both = [
            m_[0][i].loss_opt
            - _spent([(dense[k]["flops"], d_[0][k].loss_opt) for k in which], m["flops"])
            for d_, m_ in zip(draws["dense"], draws["moe"])
        ]
        loss = _spent(curve, m["flops"])
        rows.append(
            {
                "budget": budget,
                "flops": m["flops"],
                "ratio": ratio,
                "read_between": len(which) > 1,
                "dense": loss,
                "moe": m["loss_opt"],
                "difference": m["loss_opt"] - loss,
                "interval": bootstrap.interval(both) if both else None,
            }
        )
    return rows


def leverage(families, draws):
    """Compute that dense needs for the loss of the best MoE model at a budget, over that budget:
    along the straight line through the dense minima in log loss against log C, which the band's
    draws repeat. [] without two dense minima.
    """
    if not {"dense", "moe"} <= set(families):
        return []
    dense = [i for i, q in enumerate(families["dense"]["parabolas"]) if q["interior"]]
    if len(dense) < 2:
        return []
    c = np.array([families["dense"]["parabolas"][i]["flops"] for i in dense])

    def at(losses, moe_loss, moe_c):
        with np.errstate(invalid="ignore"):
            slope, offset = (
                np.polyfit(np.log(c), np.log(losses), 1)
                if np.isfinite(losses).all()
                else (np.nan, np.nan)
            )
            return float(np.exp((np.log(moe_loss) - offset) / slope) / moe_c)

    rows = []
    for i, q in enumerate(families["moe"]["parabolas"]):
        if not q["interior"]:
            continue
        own = at(
            np.array([families["dense"]["parabolas"][k]["loss_opt"] for k in dense]),
            q["loss_opt"],
            q["flops"],
        )
        many = [
            at(np.array([d[0][k].loss_opt for k in dense]), m[0][i].loss_opt, q["flops"])
            for d, m in zip(draws["dense"], draws["moe"])
        ]
        rows.append(
            {
                "budget": q["budget"],
                "flops": q["flops"],
                "leverage": own,
                "interval": bootstrap.interval(many) if many else None,
            }
        )
    return rows
