"""Speed of this device, measured: short runs, through the same workers as a sweep's, of shapes that
are not in it; kept in the cache.

CACHE/calibration.json
    {"points": [...]}: seconds of a step, of the evaluation and of compiling, of one shape each. A
    later plan uses
                          those of the same device, software, workers and recipe (`key`: everything
                          but size, rate and length)
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from data import cache
from experiments.planning import ladder
from launch import config, files
from launch.config import Run, Where
from launch.devices import choice
from launch.engines import local
from launch.runs import record
from model import account

FILE, LIMIT = (
    "calibration.json",
    50.0,
)  # seconds, so that a calibration with its start and end stays below a minute
SECONDS = 2.0  # of training for one shape
ALL = 3  # shapes of a family, of fewer where many families have to share the minute


class Store(NamedTuple):
    """What the cache holds for this device."""

    points: tuple[dict, ...]

    def startup(self) -> float:
        """Seconds from the start of a sweep to its first run's, as measured."""
        found = [p["startup"] for p in self.points if p.get("startup")]
        return sum(found) / len(found) if found else 0.0


NOTHING = Store(())


def _path(where: Where) -> str:
    return os.path.join(cache.root(where.cache), FILE)


def this_machine(where: Where) -> dict:
    """What a measured speed belongs to, besides the recipe."""
    import jax

    platform, count = choice.probe()
    device = choice.cpu_name() if platform == "cpu" else choice.kind()
    workers = where.workers or (len(choice.cores()) if platform == "cpu" else count)
    return {
        "device": device,
        "workers": workers,
        "cores": len(choice.cores()) if platform == "cpu" else None,
        "jax": jax.__version__,
    }


def key(run: Run) -> str:
    """Hash of all that a step's speed depends on but the size."""
    like = dataclasses.replace(
        run,
        model=ladder.resized(run.model, ladder.BOTH.shape(32)),
        horizon=config.Horizon(),
        seed=0,
        data=dataclasses.replace(run.data, seed=0),
    )
    brief = config.brief(like)
    named = brief.pop("optimizer", {}).get("name")  # its values cost nothing, its update may
    brief |= {"optimizer": named} if named else {}
    brief.pop("schedule", None)
    return hashlib.sha256(json.dumps(brief, sort_keys=True).encode()).hexdigest()[:12]


def load(where: Where) -> Store:
    """The points of this device; nothing where there are none, or the file cannot be read."""
    try:
        points = files.read_json(_path(where), "calibration")["points"]
        mine = this_machine(where)
        return Store(tuple(p for p in points if all(p.get(k) == v for k, v in mine.items())))
    except (files.RecordError, KeyError, TypeError, AttributeError):
        return NOTHING


def look_up(store: Store, run: Run, flops: int) -> tuple[float, float, float, str] | None:
    """(step, evaluation, compilation) in seconds and the source, read off the points on straight
    lines in logs of FLOPs; None if the recipe was not calibrated.
    """
    mine = key(run)
    points = sorted((p for p in store.points if p["key"] == mine), key=lambda p: p["flops"])
    if not points:
        return None
    low, high = points[0]["flops"], points[-1]["flops"]
    far = "" if low / 2 <= flops <= high * 2 else ", extrapolated"
    sizes = ", ".join(str(p["d_model"]) for p in points)
    source = (
        f"calibration of {points[-1]['date']} on {points[-1]['device']}, {points[-1]['workers']}"
        f" workers, d_model {sizes}{far}"
    )
    step, evaluate = (_line(points, flops, field) for field in ("step", "evaluate"))
    return step, evaluate, sum(p["setup"] for p in points) / len(points), source


def _line(points: list[dict], flops: float, field: str) -> float:
    """On the straight line through the two points next to `flops`; a single point scales by
    FLOPs.
    """
    if len(points) == 1:
        return points[0][field] * flops / points[0]["flops"]
    after = next((i for i, p in enumerate(points) if p["flops"] >= flops), len(points) - 1)
    a, b = points[max(1, after) - 1], points[max(1, after)]
    slope = math.log(b[field] / a[field]) / math.log(b["flops"] / a["flops"])
    return a[field] * (flops / a["flops"]) ** slope


def sizes(taken: tuple[int, ...], count: int) -> list[int]:
    """Sizes on the ladder that are not `taken`, near the smallest, the middle and the largest of
    them.
    """
    free = []
    for d in range(8, 2 * max(taken) + 65, 4 if max(taken) <= 128 else 8):
        n = ladder.heads(d)
        if d not in taken and d % n == 0 and d // n % 2 == 0:
            free.append(d)
    low, high = min(taken), max(taken)
    chosen = []
    for wanted in [low * (high / low) ** (i / max(1, count - 1)) for i in range(count)]:
        left = [d for d in free if d not in chosen]
        chosen.append(min(left, key=lambda d: abs(math.log(d / wanted))))
    return sorted(chosen)


def _steps(run: Run, target) -> int:
    """Steps that take about SECONDS, by what is known of the device."""
    flops = account.flops_per_token(run.model)["matmul"] * run.batch * run.model.seq_len
    rate = 20e9 if target.platform == "cpu" else 0.3 * target.peak.value if target.peak else 1e14
    return int(min(5000, max(40, SECONDS * rate / flops)))


def tasks(job, target, root: str) -> list[local.Task]:
    """One short run for each shape; each family's middle size first, so that a minute that is too
    short leaves no family out.
    """
    families, out = job.sweep.families, []
    count = ALL if len(families) <= 2 else 2
    for family in families:
        chosen = sizes(job.sweep.sizes, count)
        for d in chosen:
            run = ladder.at(job.run, d, job.sweep.arm(family), ladder=job.sweep.steps())
            run = dataclasses.replace(run, horizon=config.Horizon(steps=_steps(run, target)))
            first = (
                2.0 if d == chosen[len(chosen) // 2] else 1.0
            )  # the engine opens the costliest shape first
            out.append(
                local.Task(
                    run,
                    os.path.join(root, f"{family}-{d}"),
                    {"family": family, "size": d},
                    (family, d),
                    first,
                )
            )
    return out


class _Late(Exception):
    pass


@contextlib.contextmanager
def _alarm(seconds: float):
    """Raises _Late in this thread after `seconds`."""

    def late(*_):
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def calibrate(job, target, say: Callable[[str], None], limit: float = LIMIT) -> list[dict]:
    """Measures, keeps and returns the points of a sweep's recipe; what is not done after `limit`
    seconds is left out.
    """
    started, first = time.perf_counter(), []
    platform, count = choice.probe()
    real = cache.root(job.where.cache)
    os.makedirs(os.path.join(real, "tokens"), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="isoflop-calibration-") as root:
        own = os.path.join(
            root, "cache"
        )  # without compiled programs: what compiling costs is measured too
        os.makedirs(own)
        os.symlink(os.path.join(real, "tokens"), os.path.join(own, "tokens"))
        mute = {"tensorboard": False, "track": (), "keep_final": False}
        where = dataclasses.replace(job.where, cache=own, **mute)
        todo = tasks(job, target, root)

        def report(kind, worker, task, message):
            if kind == "finished":
                first.append(time.perf_counter() - started - message["seconds"])
                say(
                    f"calibration: {task.tags['family']} d_model {task.tags['size']},"
                    f" {time.perf_counter() - started:.0f} s"
                )
            elif kind == "failed":
                say(
                    f"calibration: {task.tags['family']} d_model {task.tags['size']} failed:"
                    f" {message['error']}"
                )

        try:
            with _alarm(limit):
                local.submit(todo, where, root, report)
        except _Late:
            say(f"calibration: stopped after {limit:.0f} s; what is done is kept")
        results = [(t, record.result(t.folder, t.id)) for t in todo]
        points = [_point(t, r, job, max(0.0, min(first, default=0.0))) for t, r in results if r]
    _keep(job.where, points)
    return points


def _point(task: local.Task, r: dict, job, startup: float) -> dict:
    mine, flops = this_machine(job.where), r["flops"]["matmul"] / r["steps"]
    # a worker with a core of its own: its CPU-seconds are what an idle machine takes; of one with a
    # pool of threads they are no time at all
    own_core = r["device"]["platform"] == "cpu" and mine["workers"] > 1
    seconds = r["cpu_seconds"] if own_core else r["seconds"]
    return {
        **mine,
        "date": datetime.date.today().isoformat(),
        "key": key(task.run),
        "family": task.tags["family"],
        "d_model": task.tags["size"],
        "flops": flops,
        "step": seconds["train"] / r["steps"],
        "evaluate": seconds["evaluate"],
        "setup": seconds["setup"],
        "startup": startup,
    }


def _keep(where: Where, points: list[dict]) -> None:
    """Adds the points to the file, in the place of those of the same key and device."""
    if not points:
        return
    path, fresh = _path(where), {p["key"] for p in points}
    mine = this_machine(where)
    try:
        old = files.read_json(path, "calibration")["points"] if os.path.exists(path) else []
    except (files.RecordError, KeyError):
        old = []
    kept = [
        p
        for p in old
        if not (p.get("key") in fresh and all(p.get(k) == v for k, v in mine.items()))
    ]
    files.writable(os.path.dirname(path), "the cache")
    files.write_json(path, {"points": kept + points})
