"""Dense against MoE at equal active parameters and tokens, three seeds in every cell: where is the
gap larger than the noise?

`--set sweep.match=flops` cuts the MoE runs until both have spent the same FLOPs.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    sweep = Sweep(
        name="dense_vs_moe", sizes=(16, 24, 32, 48), budgets=(1e11, 2e11), seeds=(0, 1, 2)
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
