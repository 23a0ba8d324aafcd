"""The learning-rate bracket behind the ladder's rule: five rates per size, the same trials for both families."""

import dataclasses

from experiments.plan import SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    job = quickstart.recipe()
    sweep = dataclasses.replace(
        job.sweep,
        name="learning_rate",
        budgets=(2.5e11,),
        lr_multipliers=(0.25, 0.5, 1.0, 2.0, 4.0),
        replicate_size=0,
        replicate_budget=0.0,
        replicate_seeds=(),
    )
    return dataclasses.replace(job, sweep=sweep)
