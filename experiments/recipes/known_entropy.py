"""The synthetic source, whose entropy rate is known: loss against data and size, compared with the
derived exponent.
"""

import dataclasses

from data.config import Data
from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart


def recipe() -> SweepJob:
    job = quickstart.recipe()
    model = dataclasses.replace(job.run.model, vocab_size=320, seq_len=126)
    return SweepJob(
        Sweep(
            name="known_entropy",
            sizes=(16, 32, 64),
            budgets=(),
            tokens=(125_000, 250_000, 500_000, 1_000_000, 2_000_000),
        ),
        dataclasses.replace(
            job.run, model=model, data=Data(source="synthetic", validation_windows=512)
        ),
    )
