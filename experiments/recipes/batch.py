"""How large may a batch be? Five batches at two sizes and three lengths, each at the best of three
learning rates, on as many tokens: the critical batch size, and how it grows.

x1 is the ladder's rate, made for two sequences, times the root of the batch over two. `isoflop plan
--batch_law=WORKDIR` chooses a batch by what was found.
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

BATCHES = (1, 2, 4, 8, 16)  # sequences


def recipe() -> SweepJob:
    job = quickstart.recipe()
    arms = tuple(
        (f"batch_{n}", f"dense; batch={n}; lr_multiplier={(n / job.run.batch) ** 0.5:.3g}")
        for n in BATCHES
    )
    sweep = Sweep(
        name="batch",
        sizes=(16, 32),
        budgets=(),
        tokens=(50_000, 100_000, 200_000),
        arms=arms,
        lr_multipliers=(0.5, 1.0, 2.0),
    )
    return dataclasses.replace(job, sweep=sweep)
