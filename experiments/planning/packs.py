"""Which runs of a plan are trained together, and what that saves (launch/runs/pack.py)."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from experiments.planning import calibration, step_time
from launch.config import Where
from launch.devices import members


class Share(NamedTuple):
    """Runs that are trained at once, and how many of them get done in the time of one alone."""

    members: int = 1
    worth: float = 1.0


def together(runs: list, where: Where, target: step_time.Target) -> list:
    """The runs of a plan with the members of their packs on the target, and what they are worth. Of
    a trunk, whose runs come one after the other, only the first counts (`launch.engines.packed`).
    """

    def alike(p):
        return members.alike(p.run, p.shape)

    count = Counter(alike(p) for p in runs if not p.begins)

    def one(p):
        most = members.number(p.run, where, target.platform, target.device)
        k = members.places(-(-count[alike(p)] // max(1, target.count)), most, where)
        # a utilisation of the whole device leaves nothing to gain; a step that was timed does
        timed = calibration.look_up(target.calibrated, p.run, step_time.step_flops(p.run))
        gain = members.worth(p.run, k, target.platform) if timed else 1.0
        return p._replace(pack=Share(k, gain))

    return [one(p) for p in runs]


def words(shares: Iterable[Share]) -> list[str]:
    """A line on the packs of a plan or of a report; none where every run is alone."""
    every = list(shares)
    packed = [s for s in every if s.members > 1]
    if not packed:
        return []
    gain = max(s.worth for s in packed)
    text = f"packs     {len(packed)} of {len(every)} runs, up to {max(packed).members} at once"
    return [text + f", {gain:.3g} in the time of one (measured on an H200)" * (gain > 1)]
