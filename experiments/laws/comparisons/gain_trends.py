"""Does the gain of experts over dense shrink or grow with scale? On equal tokens it shrinks with
size (Clark et al. 2022, arXiv 2202.01169); along the compute-optimal line it grows (Krajewski et
al. 2024, arXiv 2402.07871). Both are asked here: slopes per tenfold of compute, size or tokens.
"""

import numpy as np

from experiments.laws.comparisons import frontiers
from experiments.laws.fitting import bootstrap

LEAST = 3  # budgets with a minimum of both; through two there is always a line
SPARE = 5  # degrees of freedom that the fit through the pairs must leave


def trends(families, draws, pairs, base="dense", arm="moe") -> dict:
    """{multiplier, gap, pairs, words}. multiplier: {exponent s of multiplier ~ C^s along the best
    of each, interval, budgets}; gap: the same of the gap at equal FLOPs, `slope` in nats/token per
    tenfold compute; pairs: `over_pairs`. Each None where the runs do not say.
    """
    along = frontiers.multipliers_drawn(families, draws, base, arm)
    gaps = frontiers.gaps_drawn(families, draws, [], base, arm)
    multiplier, gap = _slope(along, "leverage", np.log10), _slope(gaps, "difference")
    out = {"multiplier": multiplier, "gap": gap, "pairs": over_pairs(pairs)}
    return {**out, "words": words(out)}


def _slope(drawn: list[tuple[dict, list]], field: str, of=lambda v: v) -> dict | None:
    """Least-squares slope of a field over log10 C, and of its resamples."""
    if len(drawn) < LEAST or not all(r[field] and np.isfinite(r[field]) for r, _ in drawn):
        return None
    x = np.log10([r["flops"] for r, _ in drawn])
    share = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        many = of(np.array([own for _, own in drawn], float)).T @ share
    return {
        "slope": float(of(np.array([r[field] for r, _ in drawn])) @ share),
        "interval": bootstrap.interval(many) if len(many) else None,
        "budgets": len(drawn),
    }


def over_pairs(pairs: list[dict]) -> dict | None:
    """gap = a + b log10 N + c log10 D by least squares over pairs of equal size, tokens and seed,
    with Student intervals: {size: [b, interval], tokens: [c, interval], pairs, left: nats/token of
    one pair around it}. N is that of the dense run.
    """
    n, d, gap = (np.array([p[k] for p in pairs], float) for k in ("n", "tokens", "gap"))
    if len(pairs) < 3 + SPARE or len(set(n)) < 2 or len(set(d)) < 2:
        return None
    x = np.stack([np.ones(len(n)), *(np.log10(v) - np.log10(v).mean() for v in (n, d))], 1)
    if np.linalg.matrix_rank(x) < 3:
        return None
    from scipy import stats

    at = np.linalg.lstsq(x, gap, rcond=None)[0]
    spare = len(gap) - 3
    sigma = float(np.sqrt(((gap - x @ at) ** 2).sum() / spare))
    half = stats.t.ppf(0.975, spare) * sigma * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    one = [{"slope": float(v), "interval": [float(v - h), float(v + h)]} for v, h in zip(at, half)]
    return {"size": one[1], "tokens": one[2], "pairs": len(gap), "left": sigma}


def said(row: dict, sign: int) -> str:
    """grows | shrinks | open: `sign` is that of a slope by which the gain grows."""
    around = row["interval"]
    if not around or around[0] <= 0 <= around[1]:
        return "open"
    return "grows" if sign * around[0] > 0 else "shrinks"


def _spread(row: dict) -> str:
    around = row["interval"]
    span = f" [{around[0]:.3f}, {around[1]:.3f}]" if around else " [no interval]"
    return f"{row['slope']:.3f}{span}"


def words(t: dict) -> dict[str, str]:
    """{along: of the best of each, pairs: of the pairs}, of what there is."""
    out = {}
    if m := t["multiplier"]:
        gap = f"; gap {_spread(t['gap'])} per tenfold C" if t["gap"] else ""
        out["along"] = (
            f"gain of MoE with compute, best of each at {m['budgets']} budgets: {said(m, 1)}:"
            f" compute multiplier ~ C^{_spread(m)}{gap}"
        )
    if p := t["pairs"]:
        out["pairs"] = (
            f"gain of MoE over {p['pairs']} pairs, gap per tenfold: size on equal tokens"
            f" {_spread(p['size'])}: {said(p['size'], -1)}; tokens at one size"
            f" {_spread(p['tokens'])}: {said(p['tokens'], -1)}"
        )
    return out
