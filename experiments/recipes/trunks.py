"""Five lengths of every size from one trunk: which law do branches give, and what do they save?"""

import dataclasses

from experiments.planning.grid import SweepJob
from experiments.recipes import quickstart
from model.optim import Schedule


def recipe() -> SweepJob:
    job = quickstart.recipe()
    sweep = dataclasses.replace(
        job.sweep,
        name="trunks",
        sizes=(16, 24, 32, 48),
        budgets=(),
        tokens=(120_000, 190_000, 300_000, 480_000, 760_000),
        seeds=(0, 1),
        trunks=True,
        replicate_size=0,
        replicate_budget=0.0,
        replicate_seeds=(),
    )
    schedule = Schedule("wsd", warmup_tokens=12_000)
    run = dataclasses.replace(job.run, schedule=schedule, average="ema(0.99)")
    return dataclasses.replace(job, sweep=sweep, run=run)
