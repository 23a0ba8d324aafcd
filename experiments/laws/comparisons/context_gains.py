"""What an arm gains from a longer context: losses of the same model on windows of several lengths,
seed by seed.
"""

import os
import re
from collections import defaultdict

from experiments.laws.fitting import bootstrap


def compare(points: list[dict]) -> list[dict]:
    """One row for each model (arms that differ in context alone are one), size, budget or tokens,
    and context: mean loss over seeds, and by how much it is below that of the shortest context,
    each with its Student interval. [] unless a model has several contexts.
    """
    groups = defaultdict(lambda: defaultdict(dict))
    for p in points:
        key = p["alike"], p["size"], p["budget"] or 0, 0 if p["budget"] else p["asked"]
        groups[key][p["context"]][p["seed"]] = p
    rows = []
    for (_, size, budget, _), lengths in groups.items():
        if len(lengths) < 2:
            continue
        names = {p["family"] for own in lengths.values() for p in own.values()}
        # attention_128 and attention_1024 begin with "attention_1"
        arm = re.sub(r"[_\- @]\d*$", "", os.path.commonprefix(sorted(names))) or min(names)
        shortest = lengths[min(lengths)]
        for length, own in sorted(lengths.items()):
            loss, around = bootstrap.student([p["loss"] for p in own.values()])
            both = sorted(set(own) & set(shortest)) if own is not shortest else []
            gains = [shortest[s]["loss"] - own[s]["loss"] for s in both]
            gain, spread = bootstrap.student(gains) if gains else (None, None)
            one = next(iter(own.values()))
            rows.append(
                {
                    "arm": arm,
                    "family": one["family"],
                    "size": size,
                    "budget": budget or None,
                    "tokens": one["d"],
                    "context": length,
                    "shortest": min(lengths),
                    "seeds": len(own),
                    "loss": loss,
                    "interval": around,
                    "gain": gain,
                    "gain_interval": spread,
                }
            )
    return rows
