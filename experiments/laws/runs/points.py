"""Records to points: what a fit reads of a run, which runs it may use, and why not the others."""

import json
import math

from experiments.laws.conventions import n_of
from experiments.laws.runs import selection


def point(r: dict, n: str = "multiplied", c: str = "matmul") -> dict:
    """What a fit reads of a result."""
    own = n_of(r["parameters"], n)
    return {
        "id": r["id"],
        "family": r["family"],
        "size": r["tags"].get("size"),
        "budget": r["tags"].get("budget"),
        "role": r["tags"].get("role"),
        "lr_multiplier": r["tags"].get("lr_multiplier", 1.0),
        "seed": r["run"]["seed"],
        "n": own,
        "d": r["training_tokens"],
        "asked": r["tags"].get("tokens") or r["training_tokens"],
        "c": r["flops"][c],
        "active": r["parameters"].get("active", own),
        "router": _group(r, "router"),
        "reference": r["tags"].get("reference"),
        "unlearned": bool(r.get("unlearned")),
        "loss": r["validation"]["loss"],
        "steps": r["steps"],
        "batch": r["training_tokens"] / r["steps"],  # tokens
        **_context(r["run"].get("model") or {}),
        **selection.identity(r),
    }


def _context(model: dict) -> dict:
    """The length of windows, and what is equal for models that differ in it alone."""
    rest = {k: v for k, v in model.items() if k != "seq_len"}
    return {"context": model.get("seq_len"), "alike": json.dumps(rest, sort_keys=True)}


def cell(p: dict) -> tuple:
    """(size, budget, tokens) that the families of a sweep are compared at. Families that are
    matched by FLOPs see different tokens at one budget, and in one cell of a grid of tokens.
    """
    return p["size"], p["budget"], None if p["budget"] else p["asked"]


def ratios(p: dict, base: dict) -> dict:
    """What `p` has and spends over what `base` does, as measured."""
    return {
        "active_ratio": p["active"] / base["active"],
        "flops_ratio": p["c"] / base["c"],
        "tokens_ratio": p["d"] / base["d"],
    }


def _group(r: dict, name: str) -> int:
    groups = r["parameters"].get("groups")
    return groups.get(name, 0) if isinstance(groups, dict) else 0


def tuned(points: list[dict]) -> tuple[list[dict], list[dict]]:
    """Of every learning-rate bracket the best run; and one verdict per bracket, `edge` if the best
    is its first or last. Where a bracket was trained beside the grid (role `bracket`), the grid's
    own run is kept: the best of three rates in one cell alone would bend its curve.
    """
    kept, verdicts = [], []

    def cell(p):
        return (p["family"], p["size"], p["budget"], p["d"], p["seed"], p["role"])

    groups = [[points[i] for i in g] for g in selection.brackets(points)]
    for group in sorted(groups, key=lambda g: str(cell(g[0]))):
        best = min(group, key=lambda p: p["loss"])
        family, size, budget, tokens, seed, _ = cell(best)
        kept.append(
            min((p for p in group if p["role"] != "bracket"), key=lambda p: p["loss"], default=best)
        )
        if len(group) > 1:
            by_rate = sorted(group, key=lambda p: p["lr_multiplier"])
            rates = [p["lr_multiplier"] for p in by_rate]
            verdicts.append(
                {
                    "family": family,
                    "size": size,
                    "budget": budget,
                    "tokens": tokens,
                    "seed": seed,
                    "trials": len(group),
                    "best_multiplier": best["lr_multiplier"],
                    "edge": best["lr_multiplier"] in (rates[0], rates[-1]),
                    **{
                        of: {f"{p['lr_multiplier']:g}": p[k] for p in by_rate}
                        for of, k in (("losses", "loss"), ("rates", "lr"))
                    },
                }
            )
    return kept, verdicts


def usable(
    results: list[dict], n: str, c: str, pool: tuple[str, ...] = ()
) -> tuple[list[dict], list[dict], list[dict]]:
    """(points, excluded, flagged): excluded and flagged as {what, why}. A run with skipped updates
    is used, and flagged. Runs on another text or of another tokenizer are excluded unless
    pooled.
    """
    points, excluded, flagged = [], [], []
    for r in results:
        loss, what = (
            r["validation"]["loss"],
            f"run {r['id']} ({r['family']} {r['tags'].get('size')})",
        )
        if r["status"] != "finished" or loss is None or not math.isfinite(loss):
            excluded.append(
                {
                    "what": what,
                    "why": f"{r['status']}: {r.get('why') or 'the loss is not a finite number'}",
                }
            )
        elif not r["tags"].get("role"):
            excluded.append({"what": what, "why": "not part of a sweep"})
        else:
            points.append(point(r, n, c))
            if r.get("unlearned"):
                flagged.append(
                    {
                        "what": what,
                        "why": "it has not learned yet: its loss is above the unigram entropy of"
                        " the corpus. A small budget is no failure, and the run is used",
                    }
                )
            if r.get("skipped"):
                flagged.append(
                    {
                        "what": what,
                        "why": (
                            f"{r['skipped']} of {r['steps']} updates were skipped (loss or gradient"
                            " not finite)"
                        ),
                    }
                )
    keep, left = selection.comparable(points, ("corpus", "tokenizer"), pool)
    return [p for p, k in zip(points, keep) if k], excluded + left, flagged
