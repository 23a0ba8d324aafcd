"""What is timed, by name. A part measures (scale, rounds) -> dict of figures, and has a text for
people; contenders of a part alternate, round by round, and CPU-seconds stand beside wall time,
because machines are noisy.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from experiments.benchmarks import (
    checkpoint,
    contest,
    corpora,
    coverage,
    laws,
    layouts,
    next_runs,
    optimizers,
    reading,
    startup,
    tokenising,
    training,
    writing,
)


class Part(NamedTuple):
    """contenders: the names that --contender chooses from; () where a part takes neither those nor
    settings.
    """

    measure: Callable
    text: Callable
    contenders: tuple[str, ...] = ()
    rounds: int = 8


def _contest(name: str, module, contenders, rounds: int) -> Part:
    return Part(functools.partial(module.measure, name), contest.text, tuple(contenders), rounds)


PARTS = {
    "train": _contest("train", training, training.CONTENDERS, 5),
    "moe": _contest("moe", training, training.CONTENDERS, 5),
    "data": _contest("data", reading, reading.CONTENDERS, 5),
    "corpora": _contest("corpora", corpora, corpora.CONTENDERS, 3),
    "tokenizers": _contest("tokenizers", tokenising, tokenising.CONTENDERS, 7),
    "decode": _contest("decode", writing, writing.CONTENDERS, 5),
    "startup": _contest("startup", startup, startup.CONTENDERS, 2),
    "checkpoint": Part(checkpoint.measure, checkpoint.text),
    "laws": Part(laws.measure, laws.text),
    "coverage": Part(coverage.measure, coverage.text, (), 400),
    "next": Part(next_runs.measure, next_runs.text, (), 100),
    "optimizers": Part(optimizers.measure, optimizers.text),
    "layouts": Part(layouts.measure, layouts.text),
}
