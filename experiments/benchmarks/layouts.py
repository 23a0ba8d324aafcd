"""The same training on every layout of this machine's devices against one of them: what each
changes in loss, gradients and routing.

Differences are relative: of the loss, and of each leaf of the gradient, |g - g_1| / |g_1|, the
largest taken. No parameter is drawn zero, so that every leaf has a gradient in the first step. No
momentum is kept, so that the optimizer's first moment is the gradient of the last step.
"""

import dataclasses
import math
import os
import socket
import subprocess
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np

from launch.devices import child_process, multi_process
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from model import params, parts
from model.config import Execution, Model
from model.lm import LM
from model.optimizers import AdamW

STEPS, BATCH = 20, 32
OPTIMIZER = AdamW(b1=0.0, clip=1e9)
DENSE = parts.model(
    "attention/dense(d_ff=64,activation=swiglu)", vocab_size=1040, seq_len=16, d_model=32
)
EXPERTS = "attention/moe(d_ff=64,activation=swiglu,n_shared=1)"
MOE = parts.model(EXPERTS, vocab_size=128, seq_len=16, d_model=32)
WINDOWS = "attention(window=5)/dense(d_ff=64), attention/dense(d_ff=64)"
TWO_WIDTHS = "attention/moe(d_ff=64), attention/moe(n_experts=16,top_k=1,d_expert=24)"
SPARSE = "sparse(block=4,local=4,n_global=2,n_random=1)"
LATENT = "latent(kv_rank=16,d_rope=8)"
BOUNDED = EXPERTS.replace(")", ",capacity_factor=1.25,routing_group=2)")
# every mixer but attention; alone where the norm of a head's output makes much of the last bit
STATES = {
    "cells": ("rnn", "lstm", "gru"),
    "linear": ("linear_attention", "gated_delta", "mamba2(n_heads=4)", "mamba"),
    "retnet": ("retnet",),
    "gla": ("gla",),
    "diagonal": ("s4d", "s5", "rg_lru"),
    "others": ("rwkv4", "rwkv7", "gated_conv"),
    "hyena": ("hyena",),
    "attending": (SPARSE, "reformer(span=4)", LATENT),
}


def _in_turn(mixers) -> Model:
    """A layer of each."""
    layers = parts.layers(", ".join(f"{mixer}/dense(d_ff=64)" for mixer in mixers))
    return dataclasses.replace(DENSE, pattern=layers, n_layers=len(layers))


MODELS = {
    "dense": (DENSE, "block"),
    "moe block": (MOE, "block"),
    "moe ragged": (MOE, "ragged"),
    "moe capacity": (dataclasses.replace(MOE, pattern=parts.layers(BOUNDED)), "capacity"),
    # layers that differ
    "windows": (dataclasses.replace(DENSE, pattern=parts.layers(WINDOWS)), "block"),
    "two widths": (dataclasses.replace(MOE, pattern=parts.layers(TWO_WIDTHS)), "block"),
    **{name: (_in_turn(mixers), "block") for name, mixers in STATES.items()},
}
# mesh -> how it is executed besides
LAYOUTS = {
    "data=1": {"accumulate": 4},
    "data=8": {},
    "fsdp=8": {"scan": True},
    "data=2,tensor=4": {},
    "data=2,fsdp=2,tensor=2": {"accumulate": 4},
    "fsdp=4,tensor=2": {"remat": True},
    "data=2,fsdp=4": {"accumulate": 2, "scan": True, "remat": True},
    "expert=8": {},
    "data=2,expert=4": {"accumulate": 2},
    "fsdp=2,expert=4": {"remat": True},
    "tensor=2,expert=4": {"accumulate": 4, "scan": True},
    "fsdp=2,tensor=2,expert=2": {},
}


class Trajectory(NamedTuple):
    """loss of every step; gradients of the first step and of the last, leaf by name; the parameters
    after it, as a tree.
    """

    loss: np.ndarray
    first: dict
    last: dict
    params: Any


def fits(model: Model, sizes: dict[str, int]) -> bool:
    return bool(model.routed) or sizes["expert"] == 1


def tokens(c: Model) -> np.ndarray:
    return (
        np.random.default_rng(1)
        .integers(0, c.vocab_size, (STEPS, BATCH, c.seq_len + 1))
        .astype(np.int32)
    )


def whole(tree):
    """A tree of global arrays on this host, in any number of processes."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def follow(
    model: Model, moe: str, mesh: str = "data=1", dtype: str = "float32", **how
) -> Trajectory:
    """Trains for STEPS steps. float64 needs jax.enable_x64."""
    sizes = meshes.parse(mesh)
    ex = Execution(dtype=dtype, moe=moe, moe_groups=meshes.rows(sizes), moe_rows=8, **how)
    l = layouts.lay(model, OPTIMIZER, ex, meshes.make(sizes))

    def spread(box):
        return box.replace(std=box.std or 0.05)

    l = l._replace(boxed=jax.tree.map(spread, l.boxed, is_leaf=params.is_parameter))
    program = layouts.lower_train(l, BATCH, STEPS).compile()
    state, read = layouts.initial(l, 0), tokens(model)
    hyper = {"lr": 3e-3, "embed_lr": 3e-3, "head_lr": 3e-3, "weight_decay": 0.1}

    def put(rows):
        return meshes.put(rows, meshes.batch_sharding(l.mesh, 1))

    one = meshes.put(
        {k: np.full(STEPS, v, np.float32) for k, v in hyper.items()},
        dict.fromkeys(hyper, meshes.replicated(l.mesh)),
    )
    state, metrics = program(state, put(read), one, np.int32(1))
    loss, first = [np.asarray(metrics["loss"])[:1]], whole(state.opt[1].mu)
    state, metrics = program(state, put(np.roll(read, -1, 0)), one, np.int32(STEPS - 1))
    loss.append(np.asarray(metrics["loss"])[: STEPS - 1])
    return Trajectory(
        np.concatenate(loss),
        flat(first),
        flat(whole(state.opt[1].mu)),
        params.unrolled(whole(state.params)),
    )


def flat(tree) -> dict:
    """Leaves by name, of unrolled layers whatever the layout."""
    return {
        jax.tree_util.keystr(path): a
        for path, a in jax.tree_util.tree_leaves_with_path(params.unrolled(tree))
    }


def apart(got: dict, want: dict) -> tuple[float, str]:
    """(largest relative difference of a leaf, its name)."""
    assert set(got) == set(want)
    norm = np.linalg.norm
    return max((float(norm(got[k] - want[k]) / norm(want[k])), k) for k in want)


def rerouted(model: Model, moe: str, a: dict, b: dict) -> tuple[int, int]:
    """(choices of an expert that differ between two sets of parameters on one batch, choices)."""
    lm = LM(model, Execution(moe=moe))
    apply = jax.jit(
        lambda p: lm.apply({"params": p}, tokens(model)[0, :, :-1], mutable=["intermediates"])[1]
    )
    chosen = [
        np.concatenate([np.sort(x, -1).ravel() for x in jax.tree.leaves(apply(tree))])
        for tree in (a, b)
    ]
    return int((chosen[0] != chosen[1]).sum()), chosen[0].size


class Difference(NamedTuple):
    """Of one layout from one device. loss: relative, of the first step and the largest of all;
    gradient: (largest of a leaf, its name) in the first and in the last step; rerouted: choices of
    experts that differ after the last step, of how many.
    """

    first_loss: float
    loss: float
    first_gradient: tuple[float, str]
    last_gradient: tuple[float, str]
    rerouted: tuple[int, int]


# what a layout may differ by, by dtype: first_loss, loss, first_gradient, last_gradient
LIMITS = {"float64": (1e-9, 1e-9, 1e-8, 1e-8), "float32": (1e-6, 1e-3, 1e-4, float("inf"))}


# whose filter, sines of sines at ten times their argument, makes everything of the last bit within
# twenty steps: the first step alone is compared
CHAOTIC = ("hyena",)


def excess(d: Difference, dtype: str, model: str = "") -> list[str]:
    """The names of what is above its limit; not a number is."""
    got = d.first_loss, d.loss, d.first_gradient[0], d.last_gradient[0]
    return [
        name
        for name, g, limit in zip(Difference._fields, got, LIMITS[dtype])
        if not g <= limit and not (model in CHAOTIC and name in ("loss", "last_gradient"))
    ]


def compare(name: str, dtype: str, reference: Trajectory, got: Trajectory) -> Difference:
    model, moe = MODELS[name]
    off = np.abs(got.loss / reference.loss - 1)
    counted = (0, 0)
    if model.routed and got.params and dtype == "float32":
        counted = rerouted(model, moe, got.params, reference.params)
    gradients = apart(got.first, reference.first), apart(got.last, reference.last)
    return Difference(float(off[0]), float(off.max()), *gradients, counted)


PAIR = {False: "data=2,fsdp=2,tensor=2", True: "fsdp=2,tensor=2,expert=2"}  # with experts


def in_two_processes(names, dtype: str) -> dict[str, tuple[str, Trajectory]]:
    """(mesh, trajectory) of models by name, each followed by two processes that share the devices
    of a simulated mesh.
    """
    with socket.socket() as s, tempfile.TemporaryDirectory() as folder:
        s.bind(("127.0.0.1", 0))
        address, out = f"127.0.0.1:{s.getsockname()[1]}", os.path.join(folder, "out.npz")
        s.close()
        flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
        environment = child_process.environment() | {
            "XLA_FLAGS": flags,
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_X64": str(dtype == "float64"),
        }
        call = f"import sys; from {__package__} import layouts; layouts._one_of_two(*sys.argv[1:])"
        command = child_process.command("-c", call, address, dtype, out, ",".join(names))
        both = [
            subprocess.Popen([*command, str(i)], env=environment, stdout=subprocess.DEVNULL)
            for i in range(2)
        ]
        if any([p.wait() for p in both]):
            raise RuntimeError("a process of two failed; its words are above")
        kept = np.load(out, allow_pickle=False)

        def read(name, part):
            return {k.split("|")[2]: kept[k] for k in kept if k.startswith(f"{name}|{part}|")}

        return {
            n: (
                kept[f"{n}|mesh"].item(),
                Trajectory(kept[f"{n}|loss"], read(n, "first"), read(n, "last"), {}),
            )
            for n in names
        }


def _one_of_two(address: str, dtype: str, out: str, names: str, process: str) -> None:
    multi_process.join(multi_process.Place(address, 2, int(process), None, "flags"), {})
    kept = {}
    for name in names.split(","):
        model, moe = MODELS[name]
        mesh = PAIR[bool(model.routed)]  # two processes with four devices each
        t = follow(model, moe, mesh, dtype)
        kept |= {f"{name}|mesh": mesh, f"{name}|loss": t.loss}
        kept |= {
            f"{name}|{part}|{k}": a
            for part in ("first", "last")
            for k, a in getattr(t, part).items()
        }
    if not int(process):
        np.savez(out, **kept)


def measure(scale: str, rounds: int) -> dict:
    """Differences of every model and layout that this process has the devices for; `toy`: of a
    few.
    """
    meshes.simulate({"data": 8})
    found, devices, platform = [], jax.device_count(), jax.default_backend()
    models = dict(list(MODELS.items())[slice(None) if scale == "full" else slice(0, 6, 3)])
    for dtype in ("float64", "float32") if platform != "tpu" else ("float32",):

        def row(name, mesh, how, reference, got, dtype=dtype):
            d = compare(name, dtype, reference, got)
            found.append(
                {
                    "model": name,
                    "mesh": mesh,
                    "how": how,
                    "dtype": dtype,
                    **d._asdict(),
                    "within": not excess(d, dtype, name),
                }
            )

        with jax.enable_x64(dtype == "float64"):
            references = {
                name: follow(model, moe, dtype=dtype) for name, (model, moe) in models.items()
            }
            for name, (model, moe) in models.items():
                for mesh, how in list(LAYOUTS.items())[:: 1 if scale == "full" else 6]:
                    if (
                        fits(model, meshes.parse(mesh))
                        and math.prod(meshes.parse(mesh).values()) <= devices
                    ):
                        row(
                            name,
                            mesh,
                            how,
                            references[name],
                            follow(model, moe, mesh, dtype, **how),
                        )
            if platform == "cpu" and scale == "full":
                for name, (mesh, got) in in_two_processes(list(models), dtype).items():
                    row(name, mesh, {"processes": 2}, references[name], got)
    return {
        "steps": STEPS,
        "devices": devices,
        "device": jax.devices()[0].device_kind,
        "limits": LIMITS,
        "layouts": found,
    }


def text(answer: dict) -> str:
    lines = [
        (
            f"{answer['steps']} steps on {answer['devices']} {answer['device']} devices against"
            " one; relative differences, of the gradient by its largest leaf"
        ),
        (
            f"{'model':13} {'dtype':8} {'mesh':25} {'besides':31} {'loss: first':>11}"
            f" {'largest':>8} {'gradient: first':>15} {'last':>8}  rerouted"
        ),
    ]
    for r in answer["layouts"]:
        how = " ".join(k if v is True else f"{k}={v}" for k, v in r["how"].items())
        moved = f"{r['rerouted'][0]} of {r['rerouted'][1]}" if r["rerouted"][1] else ""
        lines.append(
            f"{r['model']:13} {r['dtype']:8} {r['mesh']:25} {how:31} {r['first_loss']:11.1e}"
            f" {r['loss']:8.1e} {r['first_gradient'][0]:15.1e} {r['last_gradient'][0]:8.1e} "
            f" {moved}{'' if r['within'] else '  ABOVE ITS LIMIT'}"
        )
    bad = sum(not r["within"] for r in answer["layouts"])
    return "\n".join([*lines, f"{len(answer['layouts'])} layouts, {bad} above their limit"])
