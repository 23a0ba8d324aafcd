"""Records to answers: one dict, ready for JSON, that the report draws and `isoflop fit` prints."""

import zlib
from collections import defaultdict

import numpy as np

from experiments.laws import parametric
from experiments.laws.comparisons import (
    arm_gaps,
    best_rates,
    context_gains,
    critical_batch,
    equal_time_and_memory,
    frontiers,
    gain_trends,
    known_floor,
    learning_rate_brackets,
    moe_gaps,
    rollouts,
)
from experiments.laws.conventions import N_CONVENTIONS
from experiments.laws.failed_analyses import attempt
from experiments.laws.fitting import bootstrap, fit, isoflop, noise_model
from experiments.laws.runs import losses
from experiments.laws.runs.points import cell, tuned, usable
from experiments.planning import trunks


def _isoflop(points, excluded):
    """{budget: (points, parabola)} of one family; a budget that cannot be fitted goes to
    `excluded`.
    """
    out = {}
    for budget in sorted({p["budget"] for p in points}):
        group = [p for p in points if p["budget"] == budget]
        try:
            out[budget] = (
                group,
                isoflop.parabola(
                    [p["n"] for p in group],
                    [p["d"] for p in group],
                    [p["loss"] for p in group],
                    float(np.mean([p["c"] for p in group])),
                ),
            )
        except fit.FitError as e:
            excluded.append({"what": f"{group[0]['family']} at {budget:.3g} FLOPs", "why": str(e)})
    return out


def _value(parabola, n):
    c0, c1, c2 = parabola.coefficients
    x = np.log(n)
    return c0 + c1 * x + c2 * x * x


def _squares(cells, replicates):
    sums = []
    for group, parabola in cells.values():
        r = np.array([p["loss"] - _value(parabola, p["n"]) for p in group])
        sums.append((float((r**2).sum()), max(0, len(group) - 3)))
    by_cell = defaultdict(list)
    for p in replicates:
        by_cell[cell(p)].append(p["loss"])
    sums += [
        (float(((np.array(v) - np.mean(v)) ** 2).sum()), len(v) - 1)
        for v in by_cell.values()
        if len(v) > 1
    ]
    return [(s, k) for s, k in sums if k > 0]


def _exponents(parabolas):
    """(N exponent, D exponent, both laws) through the interior minima; None below two of them."""
    inside = [q for q in parabolas if q.interior]
    if len(inside) < 2:
        return None
    c = [q.flops for q in inside]
    return isoflop.power(c, [q.n_opt for q in inside]), isoflop.power(c, [q.d_opt for q in inside])


def _family(points, replicates, excluded, resamples, seed):
    """isoFLOP analysis of one family, with intervals."""
    cells = _isoflop(points, excluded)
    parabolas = [q for _, q in cells.values()]
    sums = _squares(cells, replicates)
    out = {
        "parabolas": [
            dict(q._asdict(), budget=b, coefficients=list(q.coefficients))
            for b, (_, q) in cells.items()
        ],
        "noise": None,
        "n_exponent": None,
        "d_exponent": None,
        "n_law": None,
        "d_law": None,
        "resamples_used": 0,
    }
    for q, row in zip(parabolas, out["parabolas"]):
        if not q.interior:
            excluded.append(
                {
                    "what": f"{points[0]['family']} minimum at {row['budget']:.3g} FLOPs",
                    "why": (
                        "no interior minimum: the best size is the smallest or largest, or the"
                        " parabola has no minimum inside"
                    ),
                }
            )
    laws = _exponents(parabolas)
    if laws:
        out["n_law"], out["d_law"] = [list(law) for law in laws]
        out["n_exponent"], out["d_exponent"] = laws[0].exponent, laws[1].exponent
    if not sums:
        return out, []
    level = noise_model.noise(sums)
    out["noise"] = {"sigma": level.sigma, "dof": level.dof}
    rng, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        sigma, resampled = level.draw(rng), []
        for group, q in cells.values():
            loss = [_value(q, p["n"]) + sigma * rng.standard_normal() for p in group]
            resampled.append(
                isoflop.parabola([p["n"] for p in group], [p["d"] for p in group], loss, q.flops)
            )
        # a minimum that is interior in the data stays in: a draw in which it is not is an
        # infinitely uncertain one
        usable = [r for r, q in zip(resampled, parabolas) if q.interior]
        ok = len(usable) >= 2 and all(
            r.coefficients[2] > 0 and r.n_low / 10 < r.n_opt < r.n_high * 10 for r in usable
        )
        slopes = (
            (
                isoflop.power([r.flops for r in usable], [r.n_opt for r in usable]).exponent,
                isoflop.power([r.flops for r in usable], [r.d_opt for r in usable]).exponent,
            )
            if ok
            else (np.nan, np.nan)
        )
        draws.append((resampled, slopes))
    out["resamples_used"] = int(sum(np.isfinite(s[0]) for _, s in draws))
    out["n_exponent_interval"] = bootstrap.interval([s[0] for _, s in draws]) if laws else None
    out["d_exponent_interval"] = bootstrap.interval([s[1] for _, s in draws]) if laws else None
    for i, row in enumerate(out["parabolas"]):
        for field in ("n_opt", "d_opt", "loss_opt"):
            row[f"{field}_interval"] = (
                bootstrap.interval([r[i]._asdict()[field] for r, _ in draws])
                if row["interior"]
                else None
            )
    return out, draws


def _families(kept, excluded, resamples, seed):
    """({family: its analysis}, {family: draws}, {family: {budget: points}})."""
    families, draws, groups = {}, {}, {}
    for family in sorted({p["family"] for p in kept}):
        own = [p for p in kept if p["family"] == family]
        stream = zlib.crc32(
            f"{seed}/{family}".encode()
        )  # the families' noise is drawn independently
        replicates = [
            p
            for p in own
            if p["role"] == "replicate"
            or any(
                q["role"] == "replicate" and (q["size"], q["budget"]) == (p["size"], p["budget"])
                for q in own
            )
        ]
        grid = [p for p in own if p["role"] == "grid"]
        families[family], draws[family] = attempt(
            f"isoFLOP curves of {family}",
            lambda a=(grid, replicates, excluded, resamples, stream): _family(*a),
            (_nothing(), []),
            excluded,
        )
        groups[family] = {
            b: [p for p in grid if p["budget"] == b] for b in {p["budget"] for p in grid}
        }
        level = families[family]["noise"]
        several = [p for p in own if p["role"] != "replicate"]
        families[family]["parametric"] = attempt(
            f"parametric law of {family}",
            lambda a=(several, level, resamples, stream): parametric.fitted(*a),
            {"verdict": "not fitted: see what was left out"},
            excluded,
        )
    return families, draws, groups


def analyse(
    results: list[dict],
    n: str = "multiplied",
    c: str = "matmul",
    resamples: int = 1000,
    seed: int = 0,
    pool: tuple[str, ...] = (),
    loss: str = "",
) -> dict:
    """Everything that the records of an isoFLOP sweep say. Deterministic by `seed`. `pool`: what
    selection.py keeps apart and is fitted together. Raises FitError if no run can be used.
    """
    results = losses.measured(results, loss)
    points, excluded, flagged = usable(results, n, c, pool)
    if not points:
        raise fit.FitError(
            "no finished run of a sweep to fit"
            + (f" ({excluded[0]['what']}: {excluded[0]['why']})" if excluded else "")
        )
    results = _of(results, points)
    kept, verdicts = tuned(points)
    families, draws, groups = _families(kept, excluded, resamples, seed)

    def part(what, make):
        return attempt(what, make, [], excluded)

    totals = {r["id"]: r["parameters"]["total"] for r in results}
    return {
        "n_convention": n,
        "n_means": N_CONVENTIONS[n],
        "c_convention": c,
        "loss_unit": losses.unit(loss),
        "dial": next((r["tags"]["dial"] for r in results if r["tags"].get("dial")), "d_model"),
        "level": 0.95,
        "resamples": resamples,
        "n_points": len(points),
        "fitted": [p["id"] for p in kept],
        "families": families,
        **_experts(families, draws, kept, excluded),
        "equal_spent": part(
            "MoE against dense at equal seconds and bytes",
            lambda: equal_time_and_memory.equal(families, draws, groups, results),
        ),
        "arms": part("arms against each other", lambda: arm_gaps.compare(kept, totals)),
        "frontiers": part(
            "the best of each arm at equal FLOPs",
            lambda: frontiers.compare(families, draws, results, arm_gaps.base(kept), excluded),
        ),
        "contexts": part("gains from context", lambda: context_gains.compare(kept)),
        "learning_rates": verdicts,
        "trunks": trunks.of_results(results),
        **_rates_and_batches(verdicts, kept, results, excluded, resamples, seed),
        "known_entropy": part(
            "excess over the source's entropy", lambda: known_floor.excess(_of(results, kept))
        ),
        "floors": part(
            "floor against the source's entropy", lambda: known_floor.floors(results, families)
        ),
        "rollouts": part("rollouts", lambda: _rollouts(kept, families)) or {},
        "excluded": excluded,
        "flagged": flagged,
    }


def _experts(families, draws, kept, excluded) -> dict:
    """MoE against dense: pairs, the best of each, and whether the gain changes with scale."""

    def part(what, make):
        return attempt(what, make, [], excluded)

    pairs = part("pairs of dense and MoE", lambda: moe_gaps.pairs_of(kept))
    return {
        "pairs": pairs,
        "gaps": part("gaps of dense and MoE", lambda: moe_gaps.gaps_of(pairs)),
        "equal_flops": part(
            "MoE against dense at equal FLOPs",
            lambda: frontiers.equal_flops(families, draws, excluded),
        ),
        "leverage": part("efficiency leverage", lambda: frontiers.leverage(families, draws)),
        "gain_trends": part(
            "whether the gain of experts changes with scale",
            lambda: gain_trends.trends(families, draws, pairs),
        )
        or {},
    }


def _rollouts(kept, families) -> dict:
    """{family: rollouts.rollouts, or None}; replicates of a cell are no further budgets."""
    out = {}
    for family, f in families.items():
        own = [p for p in kept if p["family"] == family and p["role"] in ("grid", "tokens")]
        noise = f["noise"]["sigma"] if f["noise"] else 0.0
        mean = float(np.mean([p["loss"] for p in own])) if own else 1.0
        out[family] = rollouts.rollouts(own, noise / mean)
    return out


def _rates_and_batches(verdicts, kept, results, excluded, resamples, seed) -> dict:
    """Where the best rates are and how they move, and how large a batch may be."""

    def part(what, make):
        return attempt(what, make, [], excluded)

    brackets = part("learning-rate brackets", lambda: learning_rate_brackets.brackets(verdicts))
    return {
        "brackets": brackets,
        "best_rates": part("best rates by size", lambda: best_rates.by_size(brackets)),
        "parametrisations": sorted({_parametrisation(r) for r in results}),
        "critical_batch": part(
            "critical batch", lambda: critical_batch.analyse(kept, resamples, seed)
        ),
    }


def _parametrisation(r: dict) -> str:
    """By its name; records of the standard one say none."""
    return (r["run"].get("model") or {}).get("parametrisation", "standard").partition("(")[0]


def _of(results: list[dict], points: list[dict]) -> list[dict]:
    """The results that points are of."""
    ids = {p["id"] for p in points}
    return [r for r in results if r["id"] in ids]


def _nothing() -> dict:
    """Of a family without isoFLOP curves."""
    names = ("noise", "n_exponent", "d_exponent", "n_law", "d_law")
    return {"parabolas": [], **dict.fromkeys(names), "resamples_used": 0}
