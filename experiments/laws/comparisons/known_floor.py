"""Runs on the synthetic source, whose entropy is known: excess over it, and whether the fitted
floor E is that entropy.
"""

from collections import defaultdict

import numpy as np

from experiments.laws.fitting import isoflop

SHARP = (
    0.2  # a half-width of E below this share of (best loss - floor) says something about the floor
)


def excess(results):
    """On the synthetic source: how the excess over its -log p falls with D at each size (means over
    seeds), beside the derived exponent.
    """
    cells = defaultdict(list)
    for r in results:
        v = r["validation"]
        if v.get("excess") is not None and v["excess"] > 0:
            cells[r["family"], r["tags"].get("size"), r["run"]["data"]["zipf"]].append(
                (r["training_tokens"], v["excess"], v["excess_se"])
            )
    rows = []
    for (family, size, zipf), points in sorted(cells.items(), key=lambda kv: str(kv[0])):
        d = np.array(sorted({p[0] for p in points}))
        at = [np.array([p[1:] for p in points if p[0] == x]) for x in d]
        excess = np.array([a[:, 0].mean() for a in at])
        spread = [a[:, 0].std(ddof=1) if len(a) > 1 else a[0, 1] for a in at]
        slope = -isoflop.power(d, excess).exponent if len(set(d)) > 1 else None
        last = -isoflop.power(d[-3:], excess[-3:]).exponent if len(set(d[-3:])) > 2 else None
        rows.append(
            {
                "family": family,
                "size": size,
                "tokens": d.tolist(),
                "excess": excess.tolist(),
                "se": [float(s / len(a) ** 0.5) for s, a in zip(spread, at)],
                "exponent": slope,
                "exponent_last_three": last,
                "derived": zipf / (1 + zipf),
            }
        )
    return rows


def floors(results, families) -> list[dict]:
    """Per family on a source of known entropy: the interval of E against it, and in words what
    these runs can say of it. `floor`: mean true -log p of the validation tokens, nats/token.
    """
    rows = []
    for family, f in families.items():
        own = [
            r
            for r in results
            if r["family"] == family
            and r["validation"].get("excess") is not None
            and r["validation"]["loss"] is not None
        ]
        law = f["parametric"]
        if not own:
            continue
        if "parameters" not in law:
            words = (
                f"these runs cannot identify E ({law['verdict']}); runs at several sizes and"
                " several token counts would"
            )
            rows.append(
                {
                    "family": family,
                    "E": None,
                    "interval": None,
                    "floor": None,
                    "left": None,
                    "contains": None,
                    "ratio": None,
                    "words": words,
                }
            )
            continue
        floor = float(np.mean([r["validation"]["loss"] - r["validation"]["excess"] for r in own]))
        left = min(r["validation"]["loss"] for r in own) - floor
        rows.append(
            {"family": family, **judge(law["parameters"]["E"], law["intervals"]["E"], floor, left)}
        )
    return rows


def judge(value, interval, floor, left) -> dict:
    """Whether the interval of E holds `floor`, and whether it is narrow against what the best run
    has `left` above it.
    """
    if interval is None:
        return {
            "E": value,
            "interval": None,
            "floor": floor,
            "left": left,
            "contains": None,
            "ratio": None,
            "words": "the interval of E has no end: these runs do not see a floor",
        }
    half = (interval[1] - interval[0]) / 2
    ratio, contains = half / left, bool(interval[0] <= floor <= interval[1])
    words = (
        f"E {value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}] {'holds' if contains else 'MISSES'}"
        f" the source's entropy {floor:.4f}; "
    )
    if ratio <= SHARP:
        words += (
            f"its half-width is {ratio:.0%} of the {left:.4f} nats that the best run is above it"
        )
    else:
        seeds = int(np.ceil(round((ratio / SHARP) ** 2, 6)))
        words += (
            f"half-width {half:.4f}, too wide: the best run is {left:.4f} above the source"
            f" ({ratio:.0%}). About {seeds} seeds of the same grid, or runs nearer the floor, would"
            " do"
        )
    return {
        "E": value,
        "interval": interval,
        "floor": floor,
        "left": left,
        "contains": contains,
        "ratio": ratio,
        "words": words,
    }
