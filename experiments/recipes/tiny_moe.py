"""tiny_dense with 8 experts, top-2, at equal active parameters and the same tokens."""

import dataclasses

from experiments.planning import ladder
from experiments.recipes import tiny_dense
from launch import config
from launch.config import Horizon, Job


def recipe() -> Job:
    dense = tiny_dense.recipe().run
    return Job(
        dataclasses.replace(
            ladder.at(dense, dense.model.d_model, "moe"), horizon=Horizon(steps=config.steps(dense))
        )
    )
