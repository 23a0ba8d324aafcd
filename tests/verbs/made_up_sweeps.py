"""Records of a sweep that nobody trained, from a law that is known, and verbs that read them."""

import math
import os
import zlib

import numpy as np

from experiments import cli, sweep
from experiments.planning import grid
from experiments.planning.grid import SweepJob
from launch import config, files
from launch.runs import record
from model import account

BETTER = {"moe": 0.05, "moe_8_1": 0.0, "moe_32_4": 0.03, "moe_64_8": 0.06, "rope": 0.08}


UNIGRAM = 3.3


def result(p: grid.Planned, name: str, noise: float) -> dict:
    """A run as it would have ended by L = E + A / N^.35 + B / D^.3, its arm and its rate."""
    run = config.from_dict(config.Run, config.to_dict(p.run))
    n, d = account.parameters(run.model), p.tokens
    if name == "batch":  # whose critical batch is 2,000 tokens
        d /= 1 + run.batch * run.model.seq_len / 2000
    cell = (*p.tags.values(), p.run.seed)  # not the id, which changes with the form of records
    rng = np.random.default_rng(zlib.crc32(repr(cell).encode()))
    loss = 1.2 + 12 / n["multiplied"] ** 0.35 + 30 / d**0.3 - BETTER.get(p.family, 0.0)
    loss += 0.05 * math.log(p.lr_multiplier) ** 2 + noise * rng.standard_normal()
    d = p.tokens
    known = run.data.source == "synthetic"
    per_token = account.flops_per_token(run.model)
    layers = len(run.model.routed)
    each = {"expert_load": 1.2, "router_entropy": 1.5, "dropped": 0.0, "balance_loss": 1.0}
    moe = {k: [v] * layers for k, v in {**each, "z_loss": 1.0}.items()} if layers else {}
    return {
        "version": record.VERSION,
        "id": p.id,
        "family": p.family,
        "tags": {**p.tags, "sweep": name},
        "status": "finished",
        "why": None,
        "run": config.to_dict(run),
        "where": config.to_dict(config.Where()),
        "steps": config.steps(run),
        "updates": config.steps(run),
        "skipped": 0,
        "parameters": n,
        "training_tokens": d,
        "dataset_tokens": None if known else 9_000_000,
        "epochs": 0.0 if known else d / 9e6,
        "bytes": d,
        "flops": {k: v * d for k, v in per_token.items()},
        "flops_per_token": per_token,
        "executed_flops": per_token["matmul"] * d,
        "train_loss": loss,
        "validation": {
            "loss": loss,
            "se": 0.01,
            "se_windows": 0.01,
            "bits_per_byte": loss / math.log(2),
            "tokens": 32768,
            "excess": loss - 1.2 if known else None,
            "excess_se": 0.01 if known else None,
        },
        "moe": moe,
        "seconds": {"train": 1.0 + d / 1e6, "setup": 1.0, "evaluate": 0.5, "total": 2.5 + d / 1e6},
        "cpu_seconds": {"setup": 1.0, "restore": 0.0, "train": 1.0, "evaluate": 0.5},
        "tokens_per_s": 1e5,
        "mfu_matmul": None,
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "processes": 1},
        "versions": {"isoflop": "0", "jax": "0"},
        "commit": None,
        "corpus": "synthetic" if known else "python_source",
        "fingerprints": {"corpus": "c", "tokenizer": "t"},
        "energy": None,
    }


def results_of(job: SweepJob, noise: float = 0.004) -> list[dict]:
    return [result(p, job.sweep.name, noise) for p in grid.make(job, "cpu").runs]


def written(tmp_path, job: SweepJob) -> str:
    work = str(tmp_path / "sweep")
    sweep.claim(work, job, grid.make(job, "cpu"))
    for r in results_of(job):
        os.makedirs(os.path.join(work, "runs", r["id"]))
        files.write_json(os.path.join(work, "runs", r["id"], record.RESULT), r)
    return work


def call(capsys, *argv):
    status = cli.main(list(argv))
    return status, *capsys.readouterr()
