"""Which trackers follow a run, and whether they can."""

import importlib
import importlib.util
import os

from launch import config
from launch.config import ConfigError, Run, Where
from launch.trackers import TRACKERS
from launch.trackers.following import About, Follower


def names(where: Where) -> tuple[str, ...]:
    """Each once, in the order of `where`."""
    return tuple(dict.fromkeys(("tensorboard",) * where.tensorboard + where.track))


def check(where: Where) -> None:
    """Raises ConfigError for a name that is no tracker's, or whose package is missing."""
    for name in names(where):
        if name not in TRACKERS:
            raise ConfigError(f"where.track={name}: choose from {', '.join(TRACKERS)}")
        module = importlib.import_module(TRACKERS[name])
        if importlib.util.find_spec(module.PACKAGE) is None:
            raise ConfigError(
                f"where.track={name} needs the package {module.PACKAGE}:"
                f' pip install -e ".[{module.EXTRA}]"'
            )


def follow(run: Run, where: Where, folder: str, first: int) -> list[Follower]:
    """Of the run that is trained in `folder` from step `first`; none has begun."""
    identity, folder = config.run_id(run), os.path.abspath(folder)
    own, above = os.path.basename(folder), os.path.dirname(folder)
    in_sweep = own == identity and os.path.basename(above) == "runs"
    about = About(
        identity,
        own if own == identity else f"{own}-{identity}",
        os.path.basename(os.path.dirname(above)) if in_sweep else "",
        folder,
        config.to_dict(run),
        first,
    )
    return [Follower(name, TRACKERS[name], about) for name in names(where)]
