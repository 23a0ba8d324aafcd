"""The run that a sweep leads to: its ladder's shape nearest to a number of parameters, on the
tokens that a budget buys, by the sweep's own rules, where it fits.
"""

import dataclasses
import math
from typing import NamedTuple

from experiments.planning import grid, ladder, published_rates, step_time
from experiments.planning.grid import Sweep, SweepJob
from launch import config, files, overrides
from launch.config import ConfigError, Job, Run
from launch.devices import mesh as meshes
from launch.runs import checks
from model import account

# what --set may change: the law was fitted to runs that are equal in all else
FREE = ("batch", "seed", "data.seed", "optimizer.lr", "optimizer.embed_lr", "optimizer.head_lr")
LARGEST = 16384  # d_model of the largest shape that is looked at
DEEPEST = 512


class Next(NamedTuple):
    """The job; `size` on the ladder; `rules`: how shape, batch and rate were chosen, in words."""

    job: Job
    size: int
    rules: dict[str, str]

    @property
    def flops(self) -> int:
        return self.tokens * account.flops_per_token(self.job.run.model)["matmul"]

    @property
    def tokens(self) -> int:
        run = self.job.run
        return config.steps(run) * run.batch * run.model.seq_len


def sweep_of(path: str) -> SweepJob:
    """The sweep and the run of a sweep.json. Raises RecordError."""
    about = files.read_json(path, "sweep")
    try:
        s = config.from_dict(Sweep, about["sweep"])
        grid.check(s)
        job = SweepJob(s, config.from_dict(Run, about["run"]))
        config.check(dataclasses.replace(job.run, horizon=config.Horizon(steps=1000)))
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise files.RecordError(
            f"{path} does not say what its runs were made of ({str(e)[:80]}): isoflop next reads"
            " the folder of a sweep that isoflop sweep has made"
        ) from None
    return job


def _sizes(s: Sweep) -> list[int]:
    """Sizes that the sweep's ladder has, beyond those of the sweep too."""
    if s.shapes:
        raise ConfigError(
            "this sweep has a table of shapes, which does not go on: isoflop next follows a ladder"
        )
    if s.dial != "d_model":
        return list(range(1, DEEPEST + 1))
    steps = [*range(8, 512, 8), *range(512, LARGEST + 1, 64)]
    return [d for d in steps if ladder.fits(d, ladder.heads(d))]


def size(job: SweepJob, family: str, wanted: float) -> int:
    """The size whose N (`multiplied`) is nearest to `wanted`, by ratio. Raises ConfigError if it
    lies beyond the ladder.
    """
    s, sizes = job.sweep, _sizes(job.sweep)

    def above(k: int) -> float:
        n = account.parameters(s.shape(job.run, sizes[k], family))["multiplied"]
        return math.log(n / wanted)

    low, high = 0, len(sizes) - 1
    if above(low) > math.log(2) or above(high) < -math.log(2):
        raise ConfigError(
            f"N_opt is {wanted:.3g} parameters, beyond the ladder's sizes {sizes[0]} to"
            f" {sizes[-1]}: the law cannot be followed there"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if above(middle) < 0 else (low, middle)
    near = range(max(0, low - 1), min(len(sizes), high + 2))  # whole layers make uneven steps
    return sizes[min(near, key=lambda k: abs(above(k)))]


def grown_batch(batch: int, ratio: float) -> int:
    """`batch` times a power of two: its tokens grow as the budget's 0.3271th power."""
    return batch * 2 ** max(0, round(math.log2(max(1.0, ratio) ** ladder.BATCH_POWER)))


def _settings(job: SweepJob, settings: list[str]) -> tuple[SweepJob, list[str]]:
    """The job with `batch` set, and the settings that come after the ladder. Raises ConfigError."""
    later = []
    for text in settings:
        key, _, value = text.partition("=")
        key = key.strip()
        if key not in FREE and not key.startswith("where."):
            raise ConfigError(
                f"--set {key}: a run under other conventions than the sweep's, of which its law"
                f" says nothing; free are where.* and {', '.join(FREE)}"
            )
        if key == "batch":
            job = dataclasses.replace(job, run=overrides.override(job.run, key, value.strip()))
        else:
            later.append(text)
    return job, later


class Asked(NamedTuple):
    """family and its N_opt at `budget` FLOPs (matmul); `top`: the sweep's largest; `multiplier` of
    the ladder's rate, and in words where it comes from; `grow`: the batch follows the published
    exponent, else it stays the sweep's, which the law was fitted at; `rates`: a published rule of
    both, one of published_rates.RULES.
    """

    family: str
    n_opt: float
    budget: float
    top: float
    multiplier: float
    rate_rule: str
    grow: bool = False
    rates: str = ""


def make(job: SweepJob, asked: Asked, target: step_time.Target, settings: list[str]) -> Next:
    """The next run for `target`. Raises ConfigError."""
    pinned = any(text.partition("=")[0].strip() == "batch" for text in settings)
    job, later = _settings(job, settings)
    s, d = job.sweep, size(job, asked.family, asked.n_opt)
    rules = {"shape": f"the sweep's ladder ({s.ladder}), nearest to N_opt"}
    batch = job.run.batch
    rules["batch"] = "given" if pinned else "the sweep's"
    if asked.grow and not pinned:
        batch = grown_batch(batch, asked.budget / asked.top)
        rules["batch"] = (
            f"C^{ladder.BATCH_POWER} (Bi et al. 2024) from the sweep's {job.run.batch}, at which"
            " the law was fitted and the rate tuned"
        )
    base = dataclasses.replace(job.run, batch=batch)
    run = ladder.at(base, d, s.arm(asked.family), asked.multiplier, s.steps())
    rules["rate"] = asked.rate_rule
    if asked.rates:
        run, said = published_rates.applied(asked.rates, run, asked.budget)
        if pinned:
            run, said["batch"] = dataclasses.replace(run, batch=batch), rules["batch"]
        rules |= said
    per_step = run.batch * run.model.seq_len
    steps = round(asked.budget / account.flops_per_token(run.model)["matmul"] / per_step)
    if steps < grid.MIN_STEPS:
        raise ConfigError(
            f"{asked.budget:.3g} FLOPs are {steps} steps of {per_step} tokens at d_model"
            f" {run.model.d_model}, fewer than {grid.MIN_STEPS}: raise --budget, or --set batch=1"
        )
    seed = s.seeds[0]
    run = dataclasses.replace(
        run,
        seed=seed,
        data=dataclasses.replace(run.data, seed=seed),
        horizon=config.Horizon(steps=steps),
    )
    single = overrides.set_fields(Job(checks.resolve(run, target.platform)), later)
    if any(text.partition("=")[0].strip().startswith("optimizer") for text in later):
        rules["rate"] = "given"
    config.check(single.run)
    return Next(single, d, rules)


class Room(NamedTuple):
    """Where it runs: `where` with what makes it fit; hours of training, None if unknown."""

    where: config.Where
    fit: step_time.Fit
    devices: int
    hours: float | None
    source: str


def placed(n: Next, target: step_time.Target) -> Room:
    """Mesh, micro-batches and remat that make the run fit. Raises ConfigError."""
    run, where = n.job.run, n.job.where
    fit = step_time.fit(run, where, target)
    if fit.fits is False:
        raise ConfigError(
            f"the run needs {fit.bytes / 1e9:.3g} GB on a device of {target.name}, which holds"
            f" {fit.limit / 1e9:.3g}: give more --devices, or a larger one"
        )
    found = {k.removeprefix("where."): v for k, v in fit.settings.items()}
    found["scan"] = fit.remat or where.scan
    if target.platform != "cpu" and not where.mesh:  # the cores of a CPU are no devices
        found["mesh"] = _spread(run, fit, target.count)
    where = dataclasses.replace(where, **found)
    each = max(1, meshes.devices(where.mesh))
    meshes.check(meshes.parse(where.mesh), run.model, run.batch, each, where.accumulate)
    speed = step_time.speed(run, target, each)
    seconds = step_time.steps_seconds(run, speed)
    if seconds is not None:
        seconds *= step_time.recomputed(run, n.job.where, fit, target.platform)
    return Room(where, fit, each, None if seconds is None else seconds / 3600, speed.source)


def _spread(run: Run, fit: step_time.Fit, count: int) -> str:
    """As many of the devices as the batch can be shared by, on data, beside the mesh that the
    memory wants.
    """
    sizes = meshes.resolve(meshes.parse(fit.mesh), 1)
    held = math.prod(sizes.values())
    whole = meshes.rows(sizes) * fit.accumulate * run.model.unit
    data = max(k for k in range(1, max(1, count // held) + 1) if run.batch % (k * whole) == 0)
    return meshes.text({**sizes, "data": data * sizes["data"]}) or "data=1"
