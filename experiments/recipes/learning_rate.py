"""Learning-rate brackets, five rates for every size, family and seed: where is the best rate, and
is the ladder's rule near it?

The rule itself was fitted to one seed at five sizes and 2.5e11 FLOPs (LOG.md, 2026-11-24): --set
sweep.sizes=16,24,32,48,64 --set sweep.budgets=2.5e11 --set sweep.seeds=0.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    sweep = Sweep(
        name="learning_rate",
        sizes=(16, 32, 64),
        budgets=(1.25e11,),
        seeds=(0, 1, 2),
        lr_multipliers=(0.25, 0.5, 1.0, 2.0, 4.0),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
