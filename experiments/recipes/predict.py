"""Does a law fitted below 3e11 FLOPs say what larger runs come to? Dense and MoE at four budgets,
three seeds: what `isoflop next --workdir=... --budget=1e12 --family=dense` predicts from.

The runs are those of dense_vs_moe, with the same ids: a folder that has them trains none again.
"""

import dataclasses

from experiments.planning.grid import SweepJob
from experiments.recipes import dense_vs_moe


def recipe() -> SweepJob:
    job = dense_vs_moe.recipe()
    return dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, name="predict"))
