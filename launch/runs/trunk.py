"""A trunk: what runs that differ in their length alone have in common.

Under the schedule `wsd` they are one run up to the cooldown of the shortest. So each begins at the
fork of the run before it, the state where that one's cooldown begins, trains on to its own fork,
leaves its state there for the next, and cools down. Nobody trains a trunk for itself: it is handed
on from run to run, and whatever holds for runs holds for it. Where the state of a fork is gone, an
earlier one is taken, or the run is trained from its beginning, to the same bits.
"""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from launch import config
from launch.config import ConfigError, Run
from launch.runs import checkpoint
from model import averages, optim


class Fork(NamedTuple):
    """The run that leaves its state at its fork, and the updates up to there."""

    run: str
    step: int


def fork(run: Run) -> int:
    """Updates before the cooldown of `run`."""
    total = config.steps(run)
    return total - optim.cooldown_of(run.schedule, total)


def chains(runs: Sequence[Run]) -> list[tuple[Fork, ...]]:
    """For each run the forks that it may begin at, the nearest first; none for the shortest of each
    trunk. Raises ConfigError for a run whose rate depends on its length from the first update on.
    """
    trunks = defaultdict(list)
    for i, run in enumerate(runs):
        if run.schedule.decay != optim.WSD:
            raise ConfigError(
                "sweep.trunks=true wants runs that begin alike whatever their length: set"
                f" schedule.decay=wsd, in the place of {run.schedule.decay}"
            )
        try:
            averages.check(run.average, config.steps(run), fork(run))
        except ValueError as e:
            raise ConfigError(str(e)) from None
        key = config.run_id(dataclasses.replace(run, horizon=config.Horizon(steps=1)))
        trunks[key].append((fork(run), config.steps(run), i))
    out: list[tuple[Fork, ...]] = [()] * len(runs)
    for members in trunks.values():
        before: tuple[Fork, ...] = ()
        for step, _, i in sorted(members):
            out[i] = before
            if step:  # else it cools down from its first update on
                before = (Fork(config.run_id(runs[i]), step), *before)
    return out


def read(forks) -> tuple[Fork, ...] | None:
    """Forks as an order in JSON has them."""
    return None if forks is None else tuple(Fork(*f) for f in forks)


def sibling(folder: str, identity: str) -> str:
    """The folder of another run of the same sweep."""
    return os.path.join(os.path.dirname(os.path.abspath(folder)), identity)


def saved(folder: str, at: Fork) -> bool:
    """Whether the state of a fork stands, for the run in `folder` to begin at. Its content is not
    verified.
    """
    return checkpoint.stands(sibling(folder, at.run), at.step)


def take(
    folder: str, identity: str, forks: Sequence[Fork], scan: bool, say: Callable[[str], None]
) -> None:
    """Puts the nearest fork whose state is whole into `folder`, as a checkpoint of its run."""
    for at in forks:
        if checkpoint.adopt(sibling(folder, at.run), at.run, at.step, folder, identity, scan):
            return
    if forks:
        say(
            f"{folder}: no state of its trunk is whole ({', '.join(f.run for f in forks)}): the run"
            " is trained from its beginning"
        )
