"""Dense against mixture of experts at equal wall clock and at equal memory: read off the fitted curves, not off runs that were made so.

At every budget the parabola's minimum has a size, and with it seconds of training (as the runs took them) and bytes (as counted,
docs/counting.md), read between the runs next to it. The dense loss at the MoE minimum's seconds or bytes lies on the straight line in log
loss against log x through the dense minima, which the draws of the bootstrap repeat.
"""

import math

import numpy as np

from experiments import predict
from experiments.laws import bootstrap
from launch import config


def spent(r: dict) -> dict | None:
    """Seconds of training and bytes on one device of a result; None if the record does not say."""
    try:
        run, where = config.from_dict(config.Run, r["run"]), config.from_dict(config.Where, r["where"])
        return {"seconds": float(r["seconds"]["train"]), "bytes": float(predict.held(run, where, r["device"]["platform"]))}
    except (KeyError, TypeError, ValueError):  # written by another version
        return None


def _at(group: list[dict], n: float, field: str, known: dict) -> float | None:
    """`field` at size `n`, on straight lines in logs through the runs of one budget."""
    pairs = sorted((math.log(p["n"]), math.log(known[p["id"]][field])) for p in group if known.get(p["id"]))
    return math.exp(np.interp(math.log(n), *zip(*pairs))) if len(pairs) > 1 else None


def equal(families: dict, draws: dict, groups: dict, results: list[dict]) -> list[dict]:
    """A row for each MoE minimum and for seconds and bytes. `groups`: {family: {budget: points}}. [] without two dense minima."""
    if not {"dense", "moe"} <= set(families):
        return []
    known = {r["id"]: spent(r) for r in results}
    inside = {f: [i for i, q in enumerate(families[f]["parabolas"]) if q["interior"]] for f in ("dense", "moe")}
    rows = []
    for field in ("seconds", "bytes"):
        x = {}
        for f, which in inside.items():
            parabolas = [families[f]["parabolas"][i] for i in which]
            x[f] = [_at(groups[f][q["budget"]], q["n_opt"], field, known) for q in parabolas]
        if len(inside["dense"]) < 2 or None in x["dense"]:
            continue
        for i, at in zip(inside["moe"], x["moe"]):
            if at is not None:
                rows.append(_row(field, i, at, x["dense"], inside["dense"], families, draws))
    return rows


def _row(field, i, at, dense_x, which, families, draws) -> dict:
    q = families["moe"]["parabolas"][i]

    def dense(losses) -> float:
        if not np.isfinite(losses).all():
            return math.nan
        slope, offset = np.polyfit(np.log(dense_x), np.log(losses), 1)
        return float(np.exp(offset + slope * np.log(at)))

    own = dense(np.array([families["dense"]["parabolas"][k]["loss_opt"] for k in which]))
    many = [m[0][i].loss_opt - dense(np.array([d[0][k].loss_opt for k in which])) for d, m in zip(draws["dense"], draws["moe"])]
    return {
        "field": field,
        "budget": q["budget"],
        "at": at,
        "dense": own,
        "moe": q["loss_opt"],
        "difference": q["loss_opt"] - own,
        "interval": bootstrap.interval(many) if many else None,
        "extrapolated": not min(dense_x) <= at <= max(dense_x),
    }
