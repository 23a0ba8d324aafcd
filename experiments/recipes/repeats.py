"""How much is a repeated token worth? The same tokens, read 1, 2, 4, 8 and 16 times over.

Every arm trains on as many tokens; `once` never sees one twice (the corpus is larger), `passes_16`
has a sixteenth of them. `isoflop fit --workdir=DIR --law=muennighoff2023` fits the data-constrained
law to the runs (Muennighoff et al. 2023, arXiv 2305.16264).
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

TOKENS = 409_600
PASSES = (2, 4, 8, 16)


def recipe() -> SweepJob:
    arms = {"once": "dense"}
    arms |= {f"passes_{n}": f"dense; data.unique_tokens={TOKENS // n}" for n in PASSES}
    sweep = Sweep(
        name="repeats",
        sizes=(16, 32, 48),
        budgets=(),
        tokens=(TOKENS // 4, TOKENS),
        arms=tuple(arms.items()),
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
