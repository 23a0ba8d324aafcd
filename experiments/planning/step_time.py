"""How long a run will take and whether it fits, each with its source: a calibration on this device
where there is one, else the device table at a stated utilisation, else "unknown".
"""

import dataclasses
import functools
import math
import os
from typing import NamedTuple

from experiments.planning import calibration
from launch import config
from launch.config import Run, Where
from launch.devices import accelerators, choice, mesh
from launch.devices.accelerators import Device, Figure
from model import account
from model.config import Model
from model.optimizers import Optimizer

# Model FLOPs (`matmul`) over the bf16 peak where nothing was measured: what others reach on H100s
# (docs/planning.md)
UTILISATION = {
    "dense": Figure(
        0.40,
        "default: measured 0.38 (30M parameters) to 0.61 (1.3B) on an H200 (docs/benchmarks.md)",
    ),
    "moe": Figure(
        0.35,
        "default: 0.40 dense x 0.865, measured on an H200 at equal active parameters"
        " (docs/benchmarks.md)",
    ),
}
# jax takes this share of a GPU's memory and no more, unless told otherwise (docs.jax.dev, GPU
# memory allocation)
USABLE = 0.75
UNKNOWN = "unknown"


class Speed(NamedTuple):
    """Seconds of one step, of the evaluation at the end, and of compiling a shape; None where
    nothing is known.
    """

    step: float | None
    evaluate: float = 0.0
    setup: float = 0.0
    source: str = UNKNOWN


class Target(NamedTuple):
    """`count` devices that a plan is for."""

    name: str
    platform: str  # cpu | gpu | tpu
    device: Device | None
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    peak: Figure | None
    memory: Figure | None  # of one device
    utilisation: dict  # kind of family -> Figure
    calibrated: calibration.Store


def this_machine(where: Where, platform: str, utilisation: dict | None = None) -> Target:
    """This machine, whose devices are of `platform`. A CPU counts as one device per worker of a
    sweep.
    """
    if platform == "cpu":
        count = where.workers or len(choice.cores())
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / count
        memory = Figure(room, f"this machine's memory over {count} workers")
        return Target(
            "cpu",
            "cpu",
            None,
            count,
            None,
            memory,
            utilisation or UTILISATION,
            calibration.load(where),
        )
    return named(choice.kind(), choice.probe()[1], where, utilisation)


def named(kind: str, count: int, where: Where, utilisation: dict | None = None) -> Target:
    """`count` devices of a kind, as jax or a person calls it; the calibration is used where it is
    this machine's kind.
    """
    d = accelerators.device(kind)
    platform = "tpu" if "tpu" in kind.lower() or d and d.name.startswith("TPU") else "gpu"
    own = choice.probe()[0] != "cpu" and (
        choice.kind() == kind or d is not None and accelerators.device(choice.kind()) == d
    )
    store = calibration.load(where) if own else calibration.NOTHING
    figures = (d.figure("peak"), d.figure("memory")) if d else (None, None)
    return Target(
        d.name if d else kind, platform, d, count, *figures, utilisation or UTILISATION, store
    )


def update_flops(run: Run) -> int:
    """Matmul FLOPs of one update of the optimizer. Devices that hold whole parameters each execute
    them all.
    """
    return run.optimizer.update_flops(account.inventory(run.model))


def step_flops(run: Run) -> int:
    """Training FLOPs (`matmul`) of one step."""
    return account.flops_per_token(run.model)["matmul"] * run.batch * run.model.seq_len


def _evaluation(run: Run, step_s: float) -> float:
    """Seconds of the final evaluation where it was not measured: its forward passes at the training
    step's FLOP/s.
    """
    return step_s * run.data.validation_windows / (3 * run.batch)


def speed(run: Run, target: Target, each: int = 1) -> Speed:
    """Of `run` on `each` of the target's devices."""
    flops = step_flops(run)
    found = calibration.look_up(target.calibrated, run, flops) if each == 1 else None
    if found:
        return Speed(*found)
    kind = config.family(run.model)
    if target.platform == "cpu":
        table = choice.CPU_RATE[kind]
        rate = table[min(table, key=lambda d: abs(d - run.model.d_model))] * 1e9
        seconds = (flops + update_flops(run)) / rate
        return Speed(
            seconds, _evaluation(run, seconds), choice.CPU_COMPILE[kind], choice.CPU_SOURCE
        )
    if target.peak is None:
        why = (
            target.device.sources["peak"]
            if target.device
            else f"{target.name} is not in the device table"
        )
        return Speed(
            None, source=f"{UNKNOWN}: {why}; give --peak_flops, or --calibrate on the device"
        )
    used = target.utilisation[kind]
    seconds = (flops / each + update_flops(run)) / (target.peak.value * used.value)
    source = (
        f"{target.peak.value:.4g} FLOP/s ({target.peak.source}) at {used.value:.0%} ({used.source})"
    )
    return Speed(seconds, _evaluation(run, seconds), 0.0, source)


class Fit(NamedTuple):
    """Bytes on one device against what it can hold, and what has to be set for that; `fits` None
    where the memory is unknown.
    """

    bytes: int
    limit: float | None
    fits: bool | None
    accumulate: int
    remat: bool
    mesh: str
    source: str

    @property
    def settings(self) -> dict:
        """Fields of Where that make it fit."""
        return {
            "where.accumulate": self.accumulate,
            "where.remat": self.remat,
            "where.scan": self.remat,
            "where.mesh": self.mesh,
        }


def bytes_held(run: Run, where: Where, platform: str) -> int:
    """Bytes of training on one device of the mesh (docs/counting.md): weights and their state split
    by fsdp, expert and tensor, rows by data, fsdp and expert; activations also by tensor.
    """
    dtype = choice.choice(platform).dtype if run.dtype == "auto" else run.dtype
    apart = run.data.documents == "apart"
    held, static = bool(run.average), run.optimizer.static()
    return _bytes_of_shape(run.model, run.batch, dtype, where, platform, apart, held, static)


@functools.lru_cache(maxsize=4096)  # seeds and learning rates of a shape hold the same
def _bytes_of_shape(
    model: Model,
    batch: int,
    dtype: str,
    where: Where,
    platform: str,
    apart: bool,
    average: bool,
    optimizer: Optimizer,
) -> int:
    sizes = mesh.resolve(mesh.parse(where.mesh), 1)
    rows = mesh.rows(sizes)
    tokens = batch // rows * model.seq_len
    ex = choice.execution(model, where, dtype, platform, 1, tokens, apart)
    m = account.memory(model, ex, batch // rows, optimizer)
    local = choice.evaluated(model, ex, platform, rows, batch) // rows
    evaluation = account.evaluation(model, choice.evaluation(model, ex, platform, local), local)
    weights = (1 + average) * m["parameters"] + m["gradients"] + m["optimizer_state"] + m["buffers"]
    return int(
        weights / (sizes["fsdp"] * sizes["expert"] * sizes["tensor"])
        + m["batch"]
        + max(m["activations"], evaluation) / sizes["tensor"]
    )


def fit(run: Run, where: Where, target: Target) -> Fit:
    """As it stands, else with the fewest micro-batches, else with remat, else over the fewest
    devices (fsdp), that make it fit.
    """
    source = (
        "counted; activations by formula, within a quarter on CPU, 0.8 to 1.7 of the compiler's on"
        " a GPU (docs/counting.md)"
    )

    def size(w):
        return bytes_held(run, w, target.platform)

    if target.memory is None:
        why = (
            target.device.sources["memory"]
            if target.device
            else f"{target.name} is not in the device table"
        )
        return Fit(
            size(where),
            None,
            None,
            where.accumulate,
            where.remat,
            where.mesh,
            f"{source}; memory of the device {UNKNOWN}: {why}",
        )
    limit = USABLE * target.memory.value
    source += f"; limit {USABLE:.0%} of {target.memory.value / 1e9:.0f} GB ({target.memory.source})"
    group = run.model.unit
    for w in _tries(where, run.batch, group, target.count):
        if (needed := size(w)) <= limit:
            return Fit(needed, limit, True, w.accumulate, w.remat, w.mesh, source)
    return Fit(size(where), limit, False, where.accumulate, where.remat, where.mesh, source)


def _tries(where: Where, batch: int, group: int, count: int):
    """Ways to execute a run, from what costs nothing to what costs most."""
    yield where
    meshes = (
        [where.mesh]
        if where.mesh
        else ["", *(f"fsdp={2**i}" for i in range(1, count.bit_length()))]
    )
    for text in meshes:
        rows = mesh.rows(mesh.resolve(mesh.parse(text), 1))
        parts = [k for k in range(1, batch + 1) if batch % (k * rows * group) == 0]
        for remat in (False, True) if not where.remat else (True,):
            for k in parts:
                if k >= where.accumulate:
                    yield dataclasses.replace(
                        where, mesh=text, accumulate=k, remat=remat, scan=remat or where.scan
                    )


def devices_of(fit: Fit) -> int:
    """Devices that one run occupies."""
    return math.prod(mesh.parse(fit.mesh).values())


def recomputed(run: Run, where: Where, fit: Fit, platform: str) -> float:
    """Executed FLOPs with the settings of `fit` over those without: what remat adds to a step."""
    if fit.remat == where.remat:
        return 1.0
    dtype = choice.choice(platform).dtype if run.dtype == "auto" else run.dtype
    tokens, apart = run.batch * run.model.seq_len, run.data.documents == "apart"
    ex = choice.execution(run.model, where, dtype, platform, 1, tokens, apart)

    def step_bytes(remat):
        return account.work(run.model, ex, run.batch).training(remat)

    return step_bytes(True) / step_bytes(False)


def wall(runs: list[tuple[float, object, float]], workers: int) -> float:
    """Seconds until the last of `workers` is done. Runs are (seconds, shape, seconds to compile
    that shape), the longest first to whoever is free; a shape is compiled once.
    """
    load, seen = [0.0] * max(1, workers), set()
    for seconds, shape, setup in sorted(runs, key=lambda r: (-r[0], str(r[1]))):
        least = load.index(min(load))
        load[least] += seconds + (0.0 if shape in seen else setup)
        seen.add(shape)
    return max(load)


def steps_seconds(run: Run, one: Speed) -> float | None:
    """Training seconds of a run."""
    return None if one.step is None else config.steps(run) * one.step
