"""The answer of a sweep in at most ten lines, the best first: what a terminal shows at its end. All
the rest stands in analysis.json and in the report.
"""

from collections import defaultdict

import numpy as np

from experiments.laws.moe_gaps import equal_but_for_router
from experiments.report.labels import LABEL
from experiments.verbs import common

MOST = 10


def lines(a: dict) -> list[str]:
    """Answers of one kind after the other: what the sweep was made for comes first."""
    out = [*_brackets(a), *_arms(a), *_exponents(a), *_known(a), *_pairs(a), *_best(a)]
    if not out:
        out = ["nothing to compare: one size, one arm, one rate"]
    if len(out) > MOST:
        out = [*out[: MOST - 1], f"... {len(out) - MOST + 1} more lines in the report"]
    return out


def _name(family: str) -> str:
    return LABEL.get(family, family)


def _spent(row: dict) -> str:
    if row.get("budget"):
        return f"{row['budget']:.3g} FLOPs"
    return f"{common.number(row['tokens'])} tokens"


def _brackets(a) -> list[str]:
    """Where the best rate is, and whether the ladder's rule (x1) is near it."""
    rows = a["brackets"]
    cells = defaultdict(list)
    for r in rows:
        cells[r["family"], r["size"], r["budget"] or 0, r["tokens"]].append(r)
    out = []
    for family in dict.fromkeys(r["family"] for r in rows):
        own = [c for k, c in cells.items() if k[0] == family]
        best = [next(r for r in c if r["best"]) for c in own]
        count = {
            m: sum(r["multiplier"] == m for r in best) for m in {r["multiplier"] for r in best}
        }
        won = ", ".join(
            f"x{m:g} in {n} of {len(own)}" for m, n in sorted(count.items(), key=lambda kv: -kv[1])
        )
        beaten = sum(any(r["gap_interval"] and r["gap_interval"][1] < 0 for r in c) for c in own)
        edge = sum(
            b["multiplier"] in (min(r["multiplier"] for r in c), max(r["multiplier"] for r in c))
            for b, c in zip(best, own)
        )
        out.append(
            f"{_name(family)}: best rate {won} brackets; the ladder's rule (x1) is beaten beyond"
            f" the interval in {beaten}" + (f"; {edge} at an EDGE" if edge else "")
        )
    ranked = sorted(cells.items(), key=lambda kv: min(r["loss"] for r in kv[1]))
    for (family, size, *_), c in ranked:
        best, rule = min(c, key=lambda r: r["loss"]), [r for r in c if r["multiplier"] == 1]
        gap = f", x1 {rule[0]['loss'] - best['loss']:+.4f}" if rule else ""
        out.append(
            f"  {family} d_model {size}, {_spent(best)}: x{best['multiplier']:g}"
            f" {common.spread(best['loss'], best['interval'])}{gap}"
        )
    return out


def _arms(a) -> list[str]:
    """Arms other than dense and MoE: the mean difference from the reference, best first."""
    rows = a["arms"]
    if not {r["family"] for r in rows} - {"dense", "moe"}:
        return []
    base, arms = rows[0]["reference"], {}
    for family in dict.fromkeys(r["family"] for r in rows):
        own = [r for r in rows if r["family"] == family and r["gap"] is not None]
        arms[family] = own
    mean = {f: float(np.mean([r["gap"] for r in own])) if own else 0.0 for f, own in arms.items()}
    out = []
    for family in sorted(mean, key=mean.get):
        if family == base:
            out.append(f"{_name(base)}: the reference")
            continue
        own = arms[family]
        known = [r for r in own if r["gap_interval"]]
        below = sum(r["gap_interval"][1] < 0 for r in known)
        above = sum(r["gap_interval"][0] > 0 for r in known)
        out.append(
            f"{_name(family)}: {mean[family]:+.4f} nats/token from {_name(base)} on average;"
            f" better in {below} of {len(own)} cells, worse in {above}, open in"
            f" {len(own) - below - above}"
        )
    cells = [r for r in rows if r["gap"] is not None]
    for r in sorted(cells, key=lambda r: r["gap"])[: MOST - len(out)]:
        out.append(
            f"  {_name(r['family'])}, d_model {r['size']}, {_spent(r)}, {r['seeds']} seeds:"
            f" {common.spread(r['gap'], r['gap_interval'])}"
        )
    return out


def _exponents(a) -> list[str]:
    out = []
    for family, f in a["families"].items():
        if not f["parabolas"]:
            continue
        inside = sum(q["interior"] for q in f["parabolas"])
        if f["n_exponent"] is None:
            out.append(
                f"{family:<6} no exponents: {inside} of {len(f['parabolas'])} minima lie inside the"
                " sizes, and two are needed"
            )
            continue
        out.append(
            f"{family:<6} N_opt ~ C^{common.spread(f['n_exponent'], f.get('n_exponent_interval'))}"
            f"   D_opt ~ C^{common.spread(f['d_exponent'], f.get('d_exponent_interval'))}"
            f"   ({inside} of {len(f['parabolas'])} minima interior)"
        )
    return out


def _known(a) -> list[str]:
    """The source's entropy: whether the floor is found again, and how the excess falls."""
    out = [f"{e['family']}: {e['words']}" for e in a["floors"]]
    rows = [e for e in a["known_entropy"] if e["exponent"] is not None]
    for e in sorted(rows, key=lambda e: e["excess"][-1]):
        out.append(
            f"{e['family']} d_model {e['size']}: {e['excess'][-1]:.4f} nats/token above the source"
            f" at {common.number(e['tokens'][-1])} tokens; falls as D^-{e['exponent']:.3f}"
            f" (derived: D^-{e['derived']:.3f})"
        )
    return out


def _pairs(a) -> list[str]:
    """MoE against dense on the same tokens: the cells with several seeds, largest effect first."""
    out = []
    rows = [g for g in a["gaps"] if g["seeds"] > 1]
    for g in sorted(rows, key=lambda g: g["gap"]):
        verdict = ""
        if g["interval"]:
            beyond = g["interval"][1] < 0 or g["interval"][0] > 0
            verdict = ", beyond the noise" if beyond else ", within the noise"
        out.append(
            f"MoE - dense {ratios(g)}, d_model {g['size']}, {common.number(g['tokens'])} tokens,"
            f" {g['seeds']} seeds: {common.spread(g['gap'], g['interval'])} nats/token{verdict}"
        )
    return out


def ratios(g: dict) -> str:
    """What is equal on both sides of a gap, with the measured ratio beside the word."""
    flops = f"FLOPs x{g['flops_ratio']:.3f}"
    if equal_but_for_router(g):
        return f"at equal active parameters (x{g['active_ratio']:.3f} with the router, {flops})"
    return f"at UNEQUAL active parameters (x{g['active_ratio']:.3f}, {flops})"


def _best(a) -> list[str]:
    return [
        f"MoE - dense, best of each at {e['flops']:.3g} FLOPs spent by both:"
        f" {common.spread(e['difference'], e['interval'])} nats/token"
        + ("" if e["ratio"] is None else f" (MoE / dense at the budget: x{e['ratio']:.3f})")
        for e in sorted(a["equal_flops"], key=lambda e: -e["flops"])
    ]
