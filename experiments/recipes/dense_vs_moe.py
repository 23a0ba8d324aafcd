"""Dense against MoE at equal active parameters and tokens, four budgets, three seeds in every cell:
where is the gap larger than the noise, and does it shrink or grow with scale?

Clark et al. 2022 (arXiv 2202.01169) found that experts gain less the larger the model is, on equal
tokens; Krajewski et al. 2024 (arXiv 2402.07871) that they gain more along the compute-optimal line.
Sizes from 8 on: at the smallest budget the best size is about 12.

`--set sweep.match=flops` cuts the MoE runs until both have spent the same FLOPs.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    sweep = Sweep(
        name="dense_vs_moe",
        sizes=(8, 16, 24, 40),
        budgets=(2e10, 5e10, 1.2e11, 2.9e11),
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
