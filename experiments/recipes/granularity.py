"""8 experts top-1, 32 top-4 and 64 top-8, at equal active and equal total parameters but for the
router: do finer experts help?

Each expert is d_ff / top_k wide (Dai et al. 2024, arXiv 2401.06066; Ludziejewski et al. 2024, arXiv
2402.07871).
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    sweep = Sweep(
        name="granularity",
        sizes=(32, 48, 64),
        budgets=(),
        tokens=(400_000,),
        families=("moe_8_1", "moe_32_4", "moe_64_8"),
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
