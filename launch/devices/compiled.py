"""What the compiler says of a training step: its own figures, beside the ones that we count."""

import contextlib
import functools
import os
import sys
import tempfile
import time

import jax
import numpy as np
from flax import linen as nn

from launch.config import ConfigError
from launch.devices import choice, collectives, packs
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from model import account, step
from model.config import Execution, Model
from model.lm import LM, abstract
from model.optimizers import AdamW, Optimizer
from model.optimizers.base import HYPER

REMATERIALISED = "Involuntary full rematerialization"


def figures(c: Model, ex: Execution, batch: int, optimizer: Optimizer = AdamW()) -> dict:
    """Compiles for one device of this process, from shapes alone: no array is made.

    Bytes of `forward_backward` (parameters in, gradients out; `temporaries` are the activations)
    and of a whole `step` (state donated); `flops` of the former by XLA's cost analysis, elementwise
    work included, None for scanned layers, whose body it counts once.
    """
    lm = LM(c, ex)
    state = jax.eval_shape(lambda p: step.create(lm, optimizer, nn.unbox(p)), abstract(c, ex))
    tokens = jax.ShapeDtypeStruct((batch, c.seq_len + 1), np.int32)
    hyper = {k: jax.ShapeDtypeStruct((), np.float32) for k in HYPER}
    compiled = functools.partial(choice.compiled, platform=jax.default_backend())
    passes = compiled(jax.jit(functools.partial(step.gradients, lm)).lower(state, tokens))
    whole = compiled(
        jax.jit(functools.partial(step.train_step, lm, optimizer), donate_argnums=0).lower(
            state, tokens, hyper
        )
    )
    return {
        "device": jax.devices()[0].device_kind,
        "compiler": f"XLA of jax {jax.__version__}",
        "forward_backward": _bytes(passes),
        "step": _bytes(whole),
        "flops": None if ex.scan else passes.cost_analysis()["flops"],
    }


def over(
    c: Model,
    ex: Execution,
    batch: int,
    mesh,
    optimizer: Optimizer = AdamW(),
    members: int = 0,
) -> dict:
    """The step on `batch` sequences, compiled for all devices of `mesh`, of this process or of a
    described topology; of a pack of so many `members`, where there are any. Per device: bytes of
    the state as compiled and as counted (`account.memory` over fsdp x tensor x expert), of the
    whole `step`, and the collectives of a step.
    """
    sizes = dict(mesh.shape)
    began = time.perf_counter()
    said: list[str] = []
    with _log(said):
        layout = layouts.lay(c, optimizer, ex, mesh)
        if members:
            lowered = packs.lower_step(layout, batch, members)
        else:
            lowered = layouts.lower_step(layout, batch)
        program = choice.compiled(lowered, mesh.devices.flat[0].platform)
    counted = account.memory(c, ex, batch, optimizer)
    here = max(1, members) // sizes.get(meshes.MEMBER, 1)
    state = counted["parameters"] + counted["optimizer_state"] + counted["buffers"]
    shards = [
        s.shard_shape(a.shape)
        for a, s in zip(jax.tree.leaves(layout.state), jax.tree.leaves(layout.shardings))
    ]
    return {
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "compiler": f"XLA of jax {jax.__version__}",
        "mesh": sizes,
        "compile_s": time.perf_counter() - began,
        "state_bytes": here
        * sum(
            a.dtype.itemsize * int(np.prod(n))
            for a, n in zip(jax.tree.leaves(layout.state), shards)
        ),
        "state_bytes_if_even": here * state / (sizes["fsdp"] * sizes["tensor"] * sizes["expert"]),
        "step": _bytes(program),
        "collectives": collectives.table(program.as_text(), sizes),
        "involuntary_rematerialisations": sum(REMATERIALISED in line for line in said),
    }


def described(topology: str, sizes: dict[str, int]):
    """The mesh over chips that are not here, such as v5e:4x4 (TPUs, through libtpu's compiler).
    Raises ConfigError.
    """
    from jax.experimental import topologies

    # libtpu looks for these where there is a TPU, and complains at length where they are not set
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", topology)
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run: several may compile
    try:
        with _log([]):
            found = topologies.get_topology_desc(topology, "tpu")
    except Exception as error:  # whatever libtpu raises, it is about the name or its absence
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"--topology={topology} cannot be described ({line}): pip install isoflop[tpu], and"
            " names such as v5e:4x4"
        ) from None
    if len(found.devices) != np.prod(list(sizes.values())):
        raise ConfigError(
            f"--topology={topology} has {len(found.devices)} devices, the mesh"
            f" {np.prod(list(sizes.values()))}: change --mesh"
        )
    return meshes.make(sizes, found.devices)


@contextlib.contextmanager
def _log(lines: list[str]):
    """Puts what the compiler, which is no Python, writes to stderr into `lines`."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            lines += kept.read().decode(errors="replace").splitlines()


def _bytes(program) -> dict[str, int]:
    m = program.memory_analysis()
    sizes = {
        "arguments": m.argument_size_in_bytes,
        "outputs": m.output_size_in_bytes,
        "donated": m.alias_size_in_bytes,
    }
    total = sum(sizes.values()) - 2 * m.alias_size_in_bytes + m.temp_size_in_bytes
    return {**sizes, "temporaries": m.temp_size_in_bytes, "total": total}
