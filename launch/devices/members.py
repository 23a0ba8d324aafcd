"""How many runs of equal shape a device trains at once, as a pack (launch/runs/pack.py): as many as
were measured to help, and as fit into its memory.
"""

import dataclasses
import math
from typing import Any

from launch.config import Run, Where
from launch.devices import accelerators, choice
from launch.devices import mesh as meshes
from launch.devices.accelerators import Device
from model import account
from model.config import Execution

# platform: {parameters: (members, how many runs they are worth in the time of one)}; one H200,
# twenty updates a call (docs/benchmarks.md). A device that is not named trains one run at a time.
MEASURED: dict[str, dict[float, tuple[int, float]]] = {"gpu": {1e6: (64, 13.0), 1e7: (16, 3.4)}}
HELD = ("parameters", "gradients", "optimizer_state", "buffers", "batch", "activations")
USABLE = 0.6  # of a device's memory, for the members of a pack


def _row(parameters: float, platform: str) -> tuple[int, float]:
    rows = MEASURED.get({"cuda": "gpu", "rocm": "gpu"}.get(platform, platform), {})
    return next((row for size, row in sorted(rows.items()) if parameters <= 2 * size), (1, 1.0))


def alike(run: Run, shape) -> Any:
    """Equal for runs that can share a pack: one shape, one kind of optimizer, one text but for its
    order. Rates, decay, length and seeds are each member's own.
    """
    return (
        shape,
        run.optimizer.static(),
        dataclasses.replace(run.data, seed=0),
        run.init,
        run.average,
    )


def here() -> Device | None:
    """This machine's kind of device; None for a CPU, and for one that is not known."""
    return accelerators.device(choice.kind())


def number(run: Run, where: Where, platform: str, device: Device | None) -> int:
    """Runs of the shape of `run` that a worker trains at once, at most: `where.members`, or by the
    table and the memory of a device.
    """
    if where.members:
        return where.members
    if where.mesh or platform == "cpu":
        return 1
    wanted, _ = _row(account.parameters(run.model)["total"], platform)
    if wanted == 1 or where.engine != "local":  # another machine's devices are not known here
        return 1
    if device is None or device.memory is None:
        return 1
    dtype = choice.choice(platform).dtype if run.dtype == "auto" else run.dtype
    tokens, apart = run.batch * run.model.seq_len, run.data.documents == "apart"
    ex = choice.execution(run.model, where, dtype, platform, 1, tokens, apart)
    held = account.memory(run.model, ex, run.batch, run.optimizer)
    each = sum(held[name] for name in HELD) + bool(run.average) * held["parameters"]
    return max(1, min(wanted, int(USABLE * device.memory // each)))


def worth(run: Run, members: int, platform: str) -> float:
    """Runs that so many members get through in the time of one, measured; 1 where nothing is
    known.
    """
    most, gain = _row(account.parameters(run.model)["total"], platform)
    return 1.0 if most == 1 else max(1.0, gain * min(1.0, members / most))


def mapped(ex: Execution, platform: str) -> Execution:
    """How the members of a pack are executed where one run is by `ex`. XLA for TPUs does not map
    ragged_dot over them (jax 0.10.2, libtpu 0.0.52: "group_sizes with rank > 1 are not yet
    supported").
    """
    ragged = platform == "tpu" and ex.moe == "ragged"
    return dataclasses.replace(ex, moe="block") if ragged else ex


def places(runs: int, most: int, where: Where) -> int:
    """Of a pack for so many runs: as many as were asked for, else a power of two, so that few
    programs are compiled.
    """
    if where.members or most == 1:
        return most
    return min(most, 2 ** (runs - 1).bit_length())


def least(where: Where) -> int:
    """Devices that a pack is shared out over: its members are a multiple of them."""
    return meshes.parse(where.mesh).get(meshes.MEMBER, 1)


def spread(where: Where, devices: int) -> Where:
    """`where` of a pack, with a mesh of as many devices as share its members out evenly if none is
    named.
    """
    if where.mesh or devices == 1:
        return where
    return dataclasses.replace(where, mesh=f"{meshes.MEMBER}={math.gcd(where.members, devices)}")


def together(where: Where, members: int) -> Where:
    """`where` of runs that are trained so many at once; of a run by itself if that is 1."""
    if members > 1:
        return dataclasses.replace(where, members=members)
    if where.members <= 1 and least(where) == 1:
        return where
    return dataclasses.replace(where, members=1, mesh=meshes.alone(where.mesh))
