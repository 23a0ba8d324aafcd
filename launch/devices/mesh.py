"""The mesh, and RULES: the one table from logical axes to mesh axes. To shard differently, change a
line of it.
"""

import math
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from launch.config import ConfigError
from model.config import Model

AXES = ("data", "fsdp", "tensor", "expert")
MEMBER = "member"  # one more axis, of runs that one program trains together (where.members)

RULES = (
    (
        "batch",
        ("data", "fsdp", "expert"),
    ),  # outside of the experts, `expert` is one more way to shard the batch
    ("seq", None),
    ("act_embed", None),  # d_model of activations, norms and gathered tables
    ("embed", ("fsdp", "expert")),  # d_model of weights
    ("expert_embed", "fsdp"),  # d_model of experts' weights
    ("expert_batch", ("data", "fsdp")),  # the batch, where `expert` shards the experts
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("channels", "tensor"),  # of a recurrence or a convolution
    ("head_dim", None),
    ("mlp", "tensor"),
    ("experts", "expert"),
    ("experts_out", None),  # the router's outputs: every device routes its own tokens
    ("layers", None),
)


def parse(text: str) -> dict[str, int]:
    """``data=2,fsdp=2`` as sizes of all four axes, 1 where unnamed, and of `member` where it is
    named; an empty text is {}. Raises ConfigError.
    """
    sizes = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, size = part.partition("=")
        if name not in (*AXES, MEMBER):
            raise ConfigError(
                f"mesh axis {name!r} is unknown: axes are {', '.join((*AXES, MEMBER))}, as in"
                " data=2,fsdp=2"
            )
        if not size.isdigit() or int(size) < 1 or name in sizes:
            raise ConfigError(
                f"mesh part {part!r}: give each axis one positive whole number, as in data=2,fsdp=2"
            )
        sizes[name] = int(size)
    member = {MEMBER: sizes[MEMBER]} if sizes.get(MEMBER, 1) > 1 else {}
    return {**member, **{a: sizes.get(a, 1) for a in AXES}} if sizes else {}


def text(sizes: dict[str, int]) -> str:
    """The inverse of `parse`, axes of size 1 left out."""
    return ",".join(f"{a}={n}" for a, n in sizes.items() if n > 1)


def alone(mesh: str) -> str:
    """The mesh of one run among those that a mesh with an axis `member` trains together."""
    sizes = parse(mesh)
    return text({a: n for a, n in sizes.items() if a != MEMBER}) or mesh and "data=1"


def devices(text: str) -> int:
    """Devices that a mesh wants; 0 for an empty one, which takes what is there."""
    return math.prod(parse(text).values()) if text else 0


def resolve(sizes: dict[str, int], devices: int) -> dict[str, int]:
    """No sizes mean all devices on `data`."""
    return sizes or {a: devices if a == "data" else 1 for a in AXES}


def check(
    sizes: dict[str, int], model: Model, batch: int, devices: int, accumulate: int = 1
) -> None:
    """Raises ConfigError if there are too few devices, or an axis does not divide what it
    shards.
    """
    sizes = resolve(sizes, devices)
    if math.prod(sizes.values()) > devices:
        raise ConfigError(
            f"the mesh needs {math.prod(sizes.values())} devices, here are {devices}: lower --mesh"
        )
    _check_batch(sizes, model, batch, accumulate)
    wanted: list[tuple[Any, str, int]] = []
    for part in {p: None for layer in model.layers for p in (layer.mixer, layer.mlp)}:
        wanted += [(dict(RULES)[axis], name, n) for axis, name, n in part.axes(model)]
    wanted.append(("tensor", "model.vocab_size", model.vocab_size))
    wanted.append(("fsdp", "model.d_model", model.d_model))
    if model.d_model % (sizes["fsdp"] * sizes["expert"]):
        raise ConfigError(
            f"fsdp x expert = {sizes['fsdp'] * sizes['expert']} of the mesh does not divide"
            f" model.d_model={model.d_model}"
        )
    if sizes["expert"] > 1 and not model.routed:
        raise ConfigError(
            f"mesh axis expert={sizes['expert']} has nothing to shard: the model has no experts"
        )
    for axis, name, n in wanted:
        if n % sizes[axis]:
            raise ConfigError(f"mesh axis {axis}={sizes[axis]} does not divide {name}={n}")


def _check_batch(sizes, model: Model, batch: int, accumulate: int) -> None:
    """Every device and every micro-batch gets the same number of sequences, and routing groups stay
    whole.
    """
    parts = {
        "where.accumulate": accumulate,
        "data x fsdp x expert of the mesh": rows(sizes),
        "model.moe.routing_group": model.unit,
    }
    unit = math.prod(parts.values())
    if batch % unit:
        text = " times ".join(f"{name} = {n}" for name, n in parts.items() if n > 1)
        raise ConfigError(
            f"batch={batch} is not a multiple of {text}: try batch={-(-batch // unit) * unit}, or"
            " another --mesh"
        )


def rows(sizes) -> int:
    """How many ways a batch is sharded."""
    return sizes["data"] * sizes["fsdp"] * sizes["expert"]


def simulate(sizes: dict[str, int]) -> None:
    """Simulates as many CPU devices as the mesh needs. Accelerators are not affected. Call it
    before jax is first used.
    """
    if sizes and math.prod(sizes.values()) > 1:
        try:
            jax.config.update("jax_num_cpu_devices", math.prod(sizes.values()))
        except RuntimeError:  # the backend is up, with the devices it has
            pass


def make(sizes: dict[str, int], devices=None) -> jax.sharding.Mesh:
    """The mesh over `devices` (jax's own if None), or over the first ones if `sizes` names fewer;
    `check` has seen that there are enough.
    """
    devices = jax.devices() if devices is None else devices
    sizes = resolve(sizes, len(devices))
    # jax.make_mesh refuses axes that split one of a torus: fsdp=8,expert=8 on 4x4x4 chips
    placed = mesh_utils.create_device_mesh(
        tuple(sizes.values()), devices[: math.prod(sizes.values())], allow_split_physical_axes=True
    )
    return jax.sharding.Mesh(placed, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def shardings(mesh, boxed):
    """NamedShardings of a tree of `model.params.Parameter`s, by RULES."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)


def put(tree, layout):
    """Host arrays, the same in every process, as global arrays laid out by a matching tree of
    shardings.
    """
    return jax.tree.map(
        lambda a, s: jax.make_array_from_callback(
            np.shape(a), s, lambda index, a=a: np.asarray(a)[index]
        ),
        tree,
        layout,
    )


def batch_sharding(mesh, leading: int = 0) -> NamedSharding:
    """Sequences over their mesh axes, after `leading` unsharded ones."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, dict(RULES)["batch"]))


def replicated(mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())
