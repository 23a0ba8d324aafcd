"""IsoFLOP curves of dense and MoE at four budgets and five sizes: the exponents of N_opt and D_opt,
and the law behind them.
"""

import dataclasses

from experiments.planning.grid import SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    job = quickstart.recipe()
    sweep = dataclasses.replace(job.sweep, name="isoflop", budgets=(0.8e11, 1.6e11, 3.2e11, 6.4e11))
    return dataclasses.replace(job, sweep=sweep)
