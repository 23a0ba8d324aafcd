"""Sinusoidal, learned and rotary positions at three sizes, three seeds each, on the same tokens.
Learned ones own T x d_model parameters more, and nothing else differs.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    sweep = Sweep(
        name="positions",
        sizes=(16, 32, 64),
        budgets=(),
        tokens=(500_000,),
        families=("sinusoidal", "learned", "rope"),
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
