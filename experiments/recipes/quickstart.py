"""Dense against MoE over three compute budgets and five sizes: five minutes on two CPU cores.

Batches of two windows of 128 bytes make many updates out of little compute, which is what bends the
isoFLOP curves at this scale (LOG.md). Sizes and budgets: the minima of both families lie inside at
the larger budgets.
"""

from experiments.planning.grid import Sweep, SweepJob
from launch.config import Run
from model.optim import Schedule


def recipe() -> SweepJob:
    return SweepJob(
        Sweep(
            name="quickstart",
            sizes=(16, 24, 32, 48, 64),
            budgets=(0.8e11, 1.6e11, 3.2e11),
            replicate_size=32,
            replicate_budget=1.6e11,
            replicate_seeds=(1, 2),
        ),
        Run(batch=2, schedule=Schedule(warmup=0.1)),
    )
