"""A dense model of 0.1M parameters on the standard library's source: under a minute on one core."""

from experiments.planning import ladder
from launch.config import Horizon, Job, Run
from model.optim import Schedule


def recipe() -> Job:
    run = Run(batch=2, schedule=Schedule(warmup=0.1), horizon=Horizon(flops=5e11))
    return Job(ladder.at(run, 48, "dense"))
