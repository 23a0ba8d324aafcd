"""A trunk with five branches against five runs by themselves, in one process on this device
(gpu.py): FLOPs, seconds, and whether the losses are equal to the bit.
"""

import os
import tempfile
import time

from data.config import Data
from experiments.planning import trunks
from launch import config
from launch.config import Horizon, Run, Where
from launch.runs import train, trunk
from model.config import Model
from model.optim import Schedule

TOTALS = (200, 300, 450, 700, 1000)  # updates of the five runs
TOY = (5, 10, 15, 20, 30)
WAYS = ("alone", "from forks")


def runs(model: Model, batch: int, totals: tuple[int, ...], dtype: str) -> list[Run]:
    """Runs that differ in their length alone."""
    common = {
        "model": model,
        "batch": batch,
        "dtype": dtype,
        "data": Data(source="synthetic", validation_windows=batch),
        "schedule": Schedule("wsd", warmup_steps=min(totals) // 5),
    }
    return [Run(**common, horizon=Horizon(steps=n)) for n in totals]


def compare(model: Model, batch: int, toy: bool, dtype: str, say) -> dict:
    """Both ways; programs are compiled before by a run that is not counted."""
    todo = runs(model, batch, TOY if toy else TOTALS, dtype)
    where = Where(mesh="data=1", tensorboard=False, keep_final=False)
    forks = trunk.chains(todo)
    took, flops, losses = {}, {}, {}
    with tempfile.TemporaryDirectory() as root:
        train.train(runs(model, batch, (5,), dtype)[0], where, os.path.join(root, "first"))
        for way in WAYS:
            started, records = time.perf_counter(), []
            for run, at in zip(todo, forks, strict=True):
                folder = os.path.join(root, way, config.run_id(run))
                taken = at if way == "from forks" else None
                records.append(train.train(run, where, folder, forks=taken))
            took[way] = time.perf_counter() - started
            losses[way] = [r["validation"]["loss"] for r in records]
            flops[way] = sum(trunks.spent(r) for r in records)
            about = {"steps": [r["steps"] for r in records], "wall_s": took[way]}
            say({"trunks": way, **about, "flops": flops[way], "losses": losses[way]})
    alone, branched = WAYS
    return {
        "saved_flops": 1 - flops[branched] / flops[alone],
        "saved_seconds": 1 - took[branched] / took[alone],
        "equal_losses": losses[alone] == losses[branched],
    }
