"""Does the best learning rate stay where it is when the width grows? Four widths at five rates, the
standard parametrisation against muP, on the same tokens.

x1 of `standard` is the ladder's rate, which falls with the width; x1 of `mup` is the ladder's rate
of the base width, at every width. The report states the best rates themselves.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    sweep = Sweep(
        name="transfer",
        sizes=(16, 32, 64, 128),
        budgets=(),
        tokens=(65_536,),
        arms=(("standard", "standard"), ("mup", "mup(base_width=32,base_head=16)")),
        ladder="width(n_layers=2)",
        lr_multipliers=(0.25, 0.5, 1.0, 2.0, 4.0),
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
