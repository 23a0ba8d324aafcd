"""Ten independent seeds of a dense grid on the synthetic source: does the interval of E hold the
entropy that the source has?
"""

import dataclasses

from experiments.planning.grid import SweepJob
from experiments.recipes import known_entropy


def recipe() -> SweepJob:
    job = known_entropy.recipe()
    return dataclasses.replace(
        job,
        sweep=dataclasses.replace(
            job.sweep, name="known_truth", families=("dense",), seeds=tuple(range(10))
        ),
    )
