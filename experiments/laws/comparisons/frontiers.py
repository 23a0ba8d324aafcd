"""The best of each arm at every budget, off its isoFLOP minima: its loss against that of the
reference at equal spent FLOPs, and the compute that the reference needs for it.
"""

from collections import defaultdict

import numpy as np

from experiments.laws.fitting import bootstrap
from launch import config
from model import account
from model.config import Execution

SAME = 0.02  # budgets that differ by less in what was spent are compared as they are


def _spent(curve, flops: float) -> float:
    """The reference's loss at `flops`: on the straight line through its minima, (FLOPs, loss), in
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


def _inside(family: dict) -> dict:
    """{budget: place} of the minima that lie inside the sizes."""
    return {q["budget"]: i for i, q in enumerate(family["parabolas"]) if q["interior"]}


def equal_flops(families, draws, excluded, base="dense", arm="moe") -> list[dict]:
    """The rows of `gaps_drawn`."""
    return [row for row, _ in gaps_drawn(families, draws, excluded, base, arm)]


def gaps_drawn(families, draws, excluded, base="dense", arm="moe") -> list[tuple[dict, list]]:
    """(row, its difference in every resample): `arm` - `base` at equal spent FLOPs, at every
    minimum of the arm, against the loss that the same FLOPs buy the reference. Where the two spent
    the same within SAME, the minima themselves are compared, else the reference's loss is read
    between its minima. `ratio`: FLOPs of the arm's runs over the reference's of the same nominal
    budget. Intervals from the independent resamples of both.
    """
    if not {base, arm} <= set(families):
        return []
    at, other = _inside(families[base]), families[base]["parabolas"]
    rows = []
    for budget, i in sorted(_inside(families[arm]).items()):
        m, own = families[arm]["parabolas"][i], at.get(budget)
        ratio = m["flops"] / other[own]["flops"] if own is not None else None
        same = ratio is not None and abs(ratio - 1) <= SAME
        which = [own] if same else list(at.values())
        c = [other[k]["flops"] for k in which]
        around = len(c) > 1 and min(c) / (1 + SAME) <= m["flops"] <= max(c) / (1 - SAME)
        if not same and not around:
            name = "MoE" if arm == "moe" else arm
            excluded.append(
                {
                    "what": f"{name} against {base}, best of each at {budget:.3g} FLOPs",
                    "why": f"the {name} runs spent {m['flops']:.3g} FLOPs, and no {base} minima lie"
                    " on both sides of that",
                }
            )
            continue
        both = [
            a[0][i].loss_opt
            - _spent([(other[k]["flops"], b[0][k].loss_opt) for k in which], m["flops"])
            for b, a in zip(draws[base], draws[arm])
        ]
        loss = _spent([(other[k]["flops"], other[k]["loss_opt"]) for k in which], m["flops"])
        row = {
            "budget": budget,
            "flops": m["flops"],
            "ratio": ratio,
            "read_between": len(which) > 1,
            "reference_loss": loss,
            "loss": m["loss_opt"],
            "difference": m["loss_opt"] - loss,
            "interval": bootstrap.interval(both) if both else None,
        }
        rows.append((row, both))
    return rows


def leverage(families, draws, base="dense", arm="moe") -> list[dict]:
    """The rows of `multipliers_drawn`."""
    return [row for row, _ in multipliers_drawn(families, draws, base, arm)]


def multipliers_drawn(families, draws, base="dense", arm="moe") -> list[tuple[dict, list]]:
    """(row, its leverage in every resample): compute that `base` needs for the loss of the best
    model of `arm` at a budget, over that budget: along the straight line through the minima of
    `base` in log loss against log C, which the band's draws repeat. [] without two of them.
    """
    if not {base, arm} <= set(families):
        return []
    other, which = families[base]["parabolas"], list(_inside(families[base]).values())
    if len(which) < 2:
        return []
    c = np.array([other[i]["flops"] for i in which])

    def at(losses, loss, flops):
        if not np.isfinite(losses).all():
            return np.nan
        slope, offset = np.polyfit(np.log(c), np.log(losses), 1)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return float(np.exp((np.log(loss) - offset) / slope) / flops)

    rows = []
    for i in _inside(families[arm]).values():
        q = families[arm]["parabolas"][i]
        own = at(np.array([other[k]["loss_opt"] for k in which]), q["loss_opt"], q["flops"])
        many = [
            at(np.array([b[0][k].loss_opt for k in which]), a[0][i].loss_opt, q["flops"])
            for b, a in zip(draws[base], draws[arm])
        ]
        row = {
            "budget": q["budget"],
            "flops": q["flops"],
            "leverage": own,
            "interval": bootstrap.interval(many) if many else None,
        }
        rows.append((row, many))
    return rows


def compare(families, draws, results, base: str, excluded) -> list[dict]:
    """One row for each arm of an isoFLOP sweep: gaps and compute multipliers against `base` at
    every budget, exponents, tokens per second and what a decoder keeps. [] where no arm but dense
    and MoE has a curve, which have comparisons of their own.
    """
    curved = [f for f in families if len(families[f]["parabolas"]) > 1]
    if base not in curved or not set(curved) - {"dense", "moe"}:
        return []
    rows, sizes = [], defaultdict(set)
    for r in results:
        sizes[r["family"]].add(r["tags"].get("size"))
    size = max(set.intersection(*(sizes[f] for f in curved)), default=None)
    for f in sorted(curved, key=lambda f: (f != base, f)):
        other = f != base
        rows.append(
            {
                "family": f,
                "reference": base,
                "gaps": equal_flops(families, draws, excluded, base, f) if other else [],
                "multipliers": leverage(families, draws, base, f) if other else [],
                **{k: families[f].get(k) for k in EXPONENTS},
                "size": size,
                **_held([r for r in results if r["family"] == f and r["tags"]["size"] == size]),
            }
        )
    return rows


EXPONENTS = tuple(f"{k}_exponent{end}" for k in "nd" for end in ("", "_interval"))


def _held(results: list[dict]) -> dict:
    """Of runs of one shape: the median of their tokens per second, and bytes of decoding."""
    speeds = [r["tokens_per_s"] for r in results if r.get("tokens_per_s")]
    out = {"tokens_per_s": float(np.median(speeds)) if speeds else None}
    for r in results[:1]:
        run = config.from_dict(config.Run, r["run"])
        dtype = "float32" if run.dtype == "auto" else run.dtype
        kept = account.memory(run.model, Execution(dtype=dtype), run.batch)
        out |= {k: kept[k] for k in ("state_per_sequence", "kv_cache_per_token")}
    return out
