"""Learning-rate brackets over seeds: mean loss at every rate, and its difference from the ladder's
rule, seed by seed.
"""

from collections import defaultdict

from experiments.laws.fitting import bootstrap


def brackets(verdicts: list[dict]) -> list[dict]:
    """A row for each (family, size, budget, tokens, multiplier) of `tuned`'s verdicts. `gap` is the
    loss minus that of x1 on the seeds that have both, with Student intervals; None where the
    bracket has no x1.
    """
    cells, lr = defaultdict(lambda: defaultdict(dict)), {}
    for v in verdicts:
        for multiplier, loss in v["losses"].items():
            cell = v["family"], v["size"], v["budget"] or 0, v.get("tokens", 0)
            cells[cell][float(multiplier)][v["seed"]] = loss
            lr[cell, float(multiplier)] = v.get("rates", {}).get(multiplier)
    rows = []
    for (family, size, budget, tokens), rates in sorted(cells.items()):
        means = {m: bootstrap.student(list(seeds.values())) for m, seeds in rates.items()}
        best = min(means, key=lambda m: means[m][0])
        for m in sorted(rates):
            both = sorted(set(rates[m]) & set(rates.get(1.0, {})))
            gap, around = (
                bootstrap.student([rates[m][s] - rates[1.0][s] for s in both])
                if both
                else (None, None)
            )
            row = {
                "family": family,
                "size": size,
                "budget": budget or None,
                "tokens": tokens,
                "multiplier": m,
                "lr": lr[(family, size, budget, tokens), m],
                "seeds": len(rates[m]),
            }
            row |= {"loss": means[m][0], "interval": means[m][1], "best": m == best}
            rows.append({**row, "gap": gap, "gap_interval": around})
    return rows
