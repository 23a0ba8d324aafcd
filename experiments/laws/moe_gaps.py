"""Mixture of experts against dense: on the same tokens seed by seed, at equal spent compute, and
how much compute dense needs for the same loss.
"""

from collections import defaultdict

import numpy as np

from experiments.laws import bootstrap


def pairs_of(points):
    """MoE - dense at equal active parameters, tokens, seed and learning-rate trials."""
    table = {(p["family"], p["size"], p["budget"], p["d"], p["seed"]): p for p in points}
    rows = []
    for (family, size, budget, tokens, seed), dense in sorted(
        table.items(), key=lambda kv: str(kv[0])
    ):
        other = table.get(("moe", size, budget, tokens, seed))
        if family == "dense" and other:
            rows.append(
                {
                    "size": size,
                    "budget": budget,
                    "seed": seed,
                    "tokens": dense["d"],
                    "dense": dense["loss"],
                    "moe": other["loss"],
                    "gap": other["loss"] - dense["loss"],
                    "active_ratio": other["active"] / dense["active"],
                    "router_share": other["router"] / dense["active"],
                    "flops_ratio": other["c"] / dense["c"],
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
                **{k: own[0][k] for k in ("active_ratio", "router_share", "flops_ratio")},
            }
        )
    return rows


def equal_but_for_router(row: dict) -> bool:
    """Whether the active parameters of a gap's two sides are equal, the router left out."""
    return abs(row["active_ratio"] - 1 - row["router_share"]) < 1e-6


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
