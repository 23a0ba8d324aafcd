"""Dense against mixture of experts at equal wall clock and at equal memory: read off the fitted
curves, not off runs that were made so.

Wall clock: at every budget the parabola's minimum has seconds of training, as the runs next to it
took them. The dense loss at the MoE minimum's seconds lies on the straight line in log loss against
log seconds through the dense minima. Memory: a device of M bytes bounds the size. At every budget
each family is at its best size that needs no more (bytes as counted, docs/counting.md), its loss
read off its parabola; M is what the dense minimum needs, and what the MoE minimum needs.

The draws of the bootstrap repeat both.
"""

import math
from collections import defaultdict

import numpy as np

from experiments.laws.fitting import bootstrap
from experiments.planning import step_time
from launch import config

FAMILIES = ("dense", "moe")


def spent(r: dict) -> dict | None:
    """Seconds of training and bytes on one device of a result; None if the record does not say."""
    try:
        run, where = (
            config.from_dict(config.Run, r["run"]),
            config.from_dict(config.Where, r["where"]),
        )
        return {
            "seconds": float(r["seconds"]["train"]),
            "bytes": float(step_time.bytes_held(run, where, r["device"]["platform"])),
        }
    except (KeyError, TypeError, ValueError):  # written by another version
        return None


def _curve(group: list[dict], field: str, known: dict) -> tuple[list, list] | None:
    """Logarithms of size and of the mean `field` there, of the runs of one budget in the order of
    size; None for fewer than two sizes.
    """
    by_size = defaultdict(list)
    for p in group:
        if known.get(p["id"]):
            by_size[p["n"]].append(known[p["id"]][field])
    sizes = sorted(by_size)
    if len(sizes) < 2:
        return None
    return [math.log(n) for n in sizes], [math.log(float(np.mean(by_size[n]))) for n in sizes]


def equal(families: dict, draws: dict, groups: dict, results: list[dict]) -> list[dict]:
    """Rows {"field": seconds | bytes, ...}, for every MoE minimum. `groups`: {family: {budget:
    points}}.
    """
    if not set(FAMILIES) <= set(families):
        return []
    known = {r["id"]: spent(r) for r in results}
    inside = {
        f: {q["budget"]: i for i, q in enumerate(families[f]["parabolas"]) if q["interior"]}
        for f in FAMILIES
    }
    return _clock(families, draws, groups, known, inside) + _memory(
        families, draws, groups, known, inside
    )


def _row(field, budget, at, dense, moe, many, extrapolated) -> dict:
    row = {
        "field": field,
        "budget": budget,
        "at": at,
        "dense": dense,
        "moe": moe,
        "difference": moe - dense,
    }
    return {
        **row,
        "interval": bootstrap.interval(many) if many else None,
        "extrapolated": extrapolated,
    }


def _clock(families, draws, groups, known, inside) -> list[dict]:
    at = {f: {} for f in FAMILIES}
    for f in FAMILIES:
        for budget, i in inside[f].items():
            curve = _curve(groups[f][budget], "seconds", known)
            if curve:
                at[f][budget] = math.exp(
                    np.interp(math.log(families[f]["parabolas"][i]["n_opt"]), *curve)
                )
    which, x = [inside["dense"][b] for b in at["dense"]], list(at["dense"].values())
    if len(x) < 2:
        return []

    def line(losses, seconds: float) -> float:
        if not np.isfinite(losses).all():
            return math.nan
        slope, offset = np.polyfit(np.log(x), np.log(losses), 1)
        return float(np.exp(offset + slope * np.log(seconds)))

    rows = []
    for budget, seconds in at["moe"].items():
        i = inside["moe"][budget]
        dense = line(
            np.array([families["dense"]["parabolas"][k]["loss_opt"] for k in which]), seconds
        )
        pairs = zip(draws["dense"], draws["moe"])
        many = [
            m[0][i].loss_opt - line(np.array([d[0][k].loss_opt for k in which]), seconds)
            for d, m in pairs
        ]
        rows.append(
            _row(
                "seconds",
                budget,
                seconds,
                dense,
                families["moe"]["parabolas"][i]["loss_opt"],
                many,
                not min(x) <= seconds <= max(x),
            )
        )
    return rows


def _bounded(q, n: float) -> float:
    """The least loss on a parabola at sizes up to `n`. `q`: a parabola, or a draw of it."""
    c0, c1, c2 = q["coefficients"]
    x = math.log(n)
    return q["loss_opt"] if q["n_opt"] <= n else c0 + c1 * x + c2 * x * x


def _memory(families, draws, groups, known, inside) -> list[dict]:
    rows = []
    for budget in inside["moe"]:
        if budget not in inside["dense"]:
            continue
        curves = {f: _curve(groups[f][budget], "bytes", known) for f in FAMILIES}
        if None in curves.values():
            continue
        index = {f: inside[f][budget] for f in FAMILIES}
        best = {f: families[f]["parabolas"][i] for f, i in index.items()}
        for f in FAMILIES:
            room = float(np.interp(math.log(best[f]["n_opt"]), *curves[f]))
            n = {g: math.exp(_inverse(curves[g], room)) for g in FAMILIES}
            loss = {g: _bounded(best[g], n[g]) for g in FAMILIES}
            drawn = {
                g: [_bounded(d[0][index[g]]._asdict(), n[g]) for d in draws[g]] for g in FAMILIES
            }
            many = [m - d for d, m in zip(drawn["dense"], drawn["moe"])]
            beyond = any(
                math.log(n[g]) < curves[g][0][0] and best[g]["n_opt"] > n[g] for g in FAMILIES
            )
            rows.append(
                _row("bytes", budget, math.exp(room), loss["dense"], loss["moe"], many, beyond)
            )
    return rows


def _inverse(curve, y: float) -> float:
    """The size at which a curve of logarithms reaches `y`, on the straight line of its ends beyond
    them.
    """
    n, v = curve
    k = min(max(1, int(np.searchsorted(v, y))), len(v) - 1)
    if v[k] == v[k - 1]:  # two sizes that need the same: the larger one is to be had
        return n[k]
    return n[k - 1] + (y - v[k - 1]) * (n[k] - n[k - 1]) / (v[k] - v[k - 1])
