"""Training throughput against what users would pick instead: the same function, weights and batches
(tests/verbs/test_bench.py: losses agree to 1e-3 after 20 updates), float32, AdamW, the standard
library's source as bytes. `train` compares dense models, `moe` mixtures of experts.
"""

import json
import os
import tempfile
from typing import NamedTuple

import numpy as np

from data import pipeline
from data.config import Data
from experiments.benchmarks import contest
from launch import config, overrides
from launch.config import Horizon, Job, Run, Where
from launch.devices import allocator
from launch.huggingface import folder
from model import account, params, parts
from model.config import Model
from model.lm import abstract
from model.optim import Schedule
from model.optimizers import AdamW

SHAPES = {
    "full": (4, 1024, dict(vocab_size=8192, seq_len=256, d_model=256, n_layers=6)),
    "toy": (2, 32, dict(vocab_size=320, seq_len=16, d_model=16, n_layers=1)),
}
BATCH, BATCHES, LR, DECAY = {"full": 16, "toy": 2}, 20, 3e-4, 0.1
# layers, of the heads and the width of a scale, and fields of the model
GPT = (
    "attention(n_heads={heads},qkv_bias=true,out_bias=true)/dense(d_ff={width},bias=true)",
    dict(positions="learned", norm="layernorm"),
)
LLAMA = ("attention(n_heads={heads})/dense(d_ff={width},activation=swiglu)", {})
EXPERTS = "d_ff={width},activation=swiglu,balance_weight=0.0,z_weight=0.0"
MIXTRAL = (f"attention(n_heads={{heads}})/moe({EXPERTS})", {})
CAPACITY = (f"attention(n_heads={{heads}})/moe({EXPERTS},capacity_factor=1.25)", {})


class Entry(NamedTuple):
    """model: its layers and its fields. peer: flags of peer.py; None for our own loop. where:
    fields of its Where.
    """

    model: tuple[str, dict]
    peer: tuple[str, ...] | None = None
    where: dict = {}


CONTENDERS = {
    "isoflop": Entry(GPT),
    # the same by the loop of packs, one run and four at once
    "isoflop_pack": Entry(GPT, where={"members": 1}),
    "isoflop_pack_of_4": Entry(GPT, where={"members": 4}),
    "torch": Entry(GPT, ("--kind=gpt",)),
    "torch_compiled": Entry(GPT, ("--kind=gpt", "--compile")),
    "isoflop_llama": Entry(LLAMA),
    "hf_llama": Entry(LLAMA, ("--kind=hf",)),
    "hf_llama_compiled": Entry(LLAMA, ("--kind=hf", "--compile")),
    "isoflop_moe": Entry(MIXTRAL),
    "isoflop_capacity": Entry(CAPACITY),  # drops assignments: another function
    "hf_mixtral": Entry(MIXTRAL, ("--kind=hf", "--experts=grouped_mm")),
    "hf_mixtral_compiled": Entry(MIXTRAL, ("--kind=hf", "--experts=grouped_mm", "--compile")),
}
DEFAULT = {
    "train": ("isoflop", "torch_compiled"),
    "moe": ("isoflop_moe", "isoflop_llama", "hf_mixtral_compiled"),
}


def job(name: str, scale: str, settings: list[str]) -> Job:
    """What a contender trains: settings are those of --set. Raises ConfigError."""
    heads, width, shape = SHAPES[scale]
    layers, fields = CONTENDERS[name].model
    layers = layers.format(heads=heads, width=width)
    run = Run(
        model=parts.model(layers, **shape, **fields, tied=True),
        data=Data(source="python_source", validation_windows=8),
        batch=BATCH[scale],
        optimizer=AdamW(lr=LR, weight_decay=DECAY, decay="all", clip=1e9),
        schedule=Schedule(decay="constant", warmup=0.0),
        horizon=Horizon(steps=100_000),
        dtype="float32",
    )
    where = Where(mesh="data=1", keep_final=False, log_every=10, **CONTENDERS[name].where)
    out = overrides.set_fields(Job(run, where), settings)
    config.check(out.run)
    return out


def _held_function(model: Model) -> Model:
    """The model as a folder of weights can say it: capacity is a matter of training."""
    return parts.set_field(model, "moe.capacity_factor", "0.0") if model.routed else model


def command(
    name: str, scale: str, settings: list[str], place: str, steps: int
) -> tuple[list[str], dict]:
    """Arguments of Python and environment of a contender, whose weights and batches are written
    under `place`.
    """
    entry, asked = CONTENDERS[name], job(name, scale, settings)
    c, own = asked.run.model, os.path.join(place, name)
    os.makedirs(own)
    weights = os.path.join(own, "weights")
    initial = params.initial(abstract(c), asked.run.seed)
    folder.save(weights, _held_function(c), {"params": initial, "buffers": {}})
    if entry.peer is None:
        where = {**config.to_dict(asked.where), "init_from": weights}
        spec = {"run": config.to_dict(asked.run), "where": where, "folder": own, "steps": steps}
        with open(os.path.join(own, "spec.json"), "w") as f:
            json.dump(spec, f)
        return [
            "-m",
            "experiments.benchmarks.ours",
            os.path.join(own, "spec.json"),
        ], allocator.environment()
    batches = os.path.join(own, "batches.npy")
    dataset = pipeline.load(asked.run.data, c.seq_len, asked.where.cache)
    np.save(batches, np.stack([dataset.batch(i, asked.run.batch) for i in range(BATCHES)]))
    peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer.py")
    given = [
        f"--weights={weights}",
        f"--batches={batches}",
        f"--steps={steps}",
        f"--lr={LR}",
        f"--decay={DECAY}",
    ]
    return [peer, *entry.peer, *given], {}


def measure(part: str, scale: str, rounds: int, names: list[str], settings: list[str]) -> dict:
    """The figures of every contender, and the first one's lead over each other."""
    names = names or list(DEFAULT[part])
    runs = {n: job(n, scale, settings).run for n in names}
    contest.need_torch([n for n in names if CONTENDERS[n].peer])
    with tempfile.TemporaryDirectory() as place:
        found = contest.run(
            {n: command(n, scale, settings, place, 6 if scale == "full" else 2) for n in names},
            rounds,
        )
    first = runs[names[0]]
    for name, r in runs.items():
        counted = account.parameters(r.model)
        found[name] |= {
            "parameters": counted["total"],
            "active": counted["active"],
            "flops_per_token": account.flops_per_token(r.model),
        }
    what = (
        f"{part}: batch {first.batch}, context {first.model.seq_len}, d_model"
        f" {first.model.d_model}, {first.model.n_layers} layers, vocabulary"
        f" {first.model.vocab_size}"
    )
    per_token = ", ".join(f"{n} {found[n]['flops_per_token']['matmul'] / 1e6:.1f}" for n in names)
    return {
        "part": part,
        "what": what,
        "machine": contest.machine(),
        "run": config.brief(first),
        "rounds": rounds,
        "contenders": found,
        "ratios": contest.ratios(found),
        "notes": [f"  MFLOP a token (training, matmul): {per_token}"],
    }
