"""The best learning rate of every size, and how far it moves from the smallest size to the largest:
whether a rate that was tuned on a small model can be kept.
"""

import numpy as np


def by_size(brackets: list[dict]) -> list[dict]:
    """One row for each arm, length (or budget) and size of `learning_rate_brackets.brackets`, in
    order of size. `best`: the rate of least mean loss. `vertex`: the least of the parabola through
    it and its neighbours, over the logarithm of the rate; None at an edge. `moved`: best over that
    of the smallest size. `kept`: loss at the rate nearest to the smallest size's best, minus the
    least.
    """
    groups: dict = {}
    for r in brackets:
        key = r["family"], r["budget"] or 0, 0 if r["budget"] else r["tokens"]
        groups.setdefault(key, {}).setdefault(r["size"], []).append(r)
    out = []
    for (family, budget, _), sizes in groups.items():
        first = None
        for size in sorted(sizes):
            own = sorted(sizes[size], key=lambda r: r["lr"])
            i = min(range(len(own)), key=lambda k: own[k]["loss"])
            first = first or own[i]["lr"]
            kept = min(own, key=lambda r: abs(np.log(r["lr"] / first)))
            near = abs(np.log2(kept["lr"] / first)) < 0.5
            out.append(
                {
                    "family": family,
                    "budget": budget or None,
                    "tokens": own[i]["tokens"],
                    "size": size,
                    "rates": len(own),
                    "best": own[i]["lr"],
                    "edge": i in (0, len(own) - 1),
                    "vertex": _vertex(own, i),
                    "moved": own[i]["lr"] / first,
                    "kept": kept["loss"] - own[i]["loss"] if near else None,
                }
            )
    return out


def _vertex(rows: list[dict], i: int) -> float | None:
    if not 0 < i < len(rows) - 1:
        return None
    x, y = (np.array([f(r) for r in rows[i - 1 : i + 2]]) for f in (_log, lambda r: r["loss"]))
    c2, c1, _ = np.polyfit(x - x[1], y, 2)
    return float(np.exp(x[1] - c1 / (2 * c2))) if c2 > 0 else None


def _log(r: dict) -> float:
    return float(np.log(r["lr"]))
