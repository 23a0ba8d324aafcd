"""AdamW, Lion, Adafactor and Muon at three sizes, on the same tokens: each at the best of five
rates around its own, three seeds each. Which ends lowest, and by how much?

x1 is the ladder's rate, which was fitted to AdamW, times what each optimizer's rates are of AdamW's
(model/optimizers/): every arm has as many trials. Lion's weight decay would be higher; here nothing
decays. `isoflop plan` states what Muon's matrices cost of a step.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart
from model.optimizers import OPTIMIZERS


def recipe() -> SweepJob:
    sweep = Sweep(
        name="optimizers",
        sizes=(16, 24, 32),
        budgets=(),
        tokens=(200_000,),
        arms=tuple((name, f"dense; optimizer={name}") for name in OPTIMIZERS),
        lr_multipliers=(0.25, 0.5, 1.0, 2.0, 4.0),
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
