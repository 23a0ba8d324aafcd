"""The same question at another scale: budgets move by one factor, sizes, batch and learning-rate
brackets follow by the ladder.

tiny is the recipe as it is written: CPU minutes. h200 is made for one GPU and under an hour, pod
for a day or two of 256 of them, both by the plan's own prediction (`isoflop plan --config=NAME:h200
--device=h200`); neither was run: no accelerator was at hand.
"""

import dataclasses
from typing import NamedTuple

from data.config import Data
from experiments.planning import budget
from experiments.planning.grid import SweepJob
from launch.config import ConfigError, Job
from model.config import choose


class Scale(NamedTuple):
    """`factor` times the recipe's budgets, at this context, on a source that is large enough (both
    for bytes of the standard library's source alone: a recipe with a source of its own keeps
    it).
    """

    factor: float
    seq_len: int
    source: str


# both sets have to be prepared once (docs/planning.md); any text will do: --set data.source=text
# --set "data.path=..."
SCALES = {
    "tiny": Scale(1.0, 128, "python_source"),
    "h200": Scale(1.5e4, 1024, "tfds:wiki40b/en"),
    "pod": Scale(1.5e8, 2048, "tfds:c4/en"),
}


def at(job: Job | SweepJob, scale: str, name: str) -> SweepJob:
    """`job` at the scale that is named. Raises ConfigError."""
    if not isinstance(job, SweepJob):
        raise ConfigError(f"recipe {name} is a single run and has no scales: leave out :{scale}")
    try:
        s = choose(SCALES, scale, "scale")
    except ValueError as e:
        raise ConfigError(str(e)) from None
    if s.factor == 1:
        return job
    run = job.run
    if run.data == Data():
        run = dataclasses.replace(
            run, model=dataclasses.replace(run.model, seq_len=s.seq_len), data=Data(source=s.source)
        )
    return budget.scaled(job, s.factor, run=run).job
