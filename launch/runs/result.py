"""What a run that ended leaves: the fields of result.json (docs/records.md)."""

import jax

from launch import config
from launch.devices import choice
from launch.runs import divergence, evaluation, record
from model import account, averages


def made(run, where, p, dataset, tally, kept: dict, e, averaged, tags) -> dict:
    """kept: `tally.kept()` at the end of training. e, averaged: the evaluations of the last weights
    and of their average, None without one.
    """
    total, watch, times = tally.steps, tally.watch, tally.clock.record(kept["seconds"])
    tokens = total * run.batch * run.model.seq_len
    per_token = account.flops_per_token(run.model)
    kind = jax.devices()[0].device_kind
    why = divergence.at_the_end(watch, total, e.loss)
    return {
        "version": record.VERSION,
        "id": config.run_id(run),
        "family": tags.get("family") or config.family(run.model),  # a sweep names its arms
        "tags": tags,
        "status": "diverged" if why else "finished",
        "why": why,
        "diverged_at": watch.at,
        "unlearned": divergence.unlearned(e.loss, dataset.unigram_entropy),
        "unigram_entropy": record.finite(dataset.unigram_entropy),
        "run": config.to_dict(run),
        "where": config.to_dict(where),
        "steps": total,
        "updates": total - watch.skipped,
        "skipped": watch.skipped,
        "parameters": account.parameters(run.model),
        "training_tokens": tokens,
        "dataset_tokens": dataset.dataset_tokens,
        "epochs": dataset.epochs(total * run.batch),
        "bytes": tally.bytes,
        "flops": {k: n * tokens for k, n in per_token.items()},
        "flops_per_token": per_token,
        "shared": _shared(kept, run, per_token["matmul"]),
        "executed_flops": total
        * account.executed_flops(run.model, p.layout.lm.ex, run.batch, run.optimizer),
        "train_loss": record.finite(tally.meter.last_loss),
        "validation": _validation(e),
        "averages": {averages.name(run.average): _validation(averaged)} if averaged else {},
        "sources": _sources(dataset, total * run.batch, run.model.seq_len, tally, e),
        "loss_by_position": record.finite(e.by_position),
        "moe": e.statistics,
        "noise_scale": record.finite(tally.meter.noise_scale()),
        "seconds": times,
        "tokens_per_s": tokens / times["train"],
        "mfu_matmul": choice.mfu(run.model, tokens / times["train"], kind, p.layout.mesh.size),
        "device": {
            "platform": jax.default_backend(),
            "kind": kind,
            "count": p.layout.mesh.size,
            "processes": jax.process_count(),
        },
        "versions": record.versions(),
        "settings": record.settings(),
        "commit": record.commit(),
        "corpus": dataset.corpus,
        "fingerprints": dataset.fingerprints,
    }


def _validation(e: evaluation.Evaluation) -> dict:
    apart = ("statistics", "sources", "by_position")
    return {k: record.finite(x) for k, x in e._asdict().items() if k not in apart}


def _shared(kept: dict, run, flops: int) -> dict | None:
    """What the run went on from (launch/runs/trunk.py), and what it took from there on; None where
    it trained all of its steps. `flops`: of a token; seconds and joules: of training.
    """
    begun, joules = kept["begun"], kept["joules"]
    if begun is None:
        return None
    tokens = (kept["step"] - begun["step"]) * run.batch * run.model.seq_len
    known = joules is not None and begun["joules"] is not None
    return {
        "run": begun["run"],
        "step": begun["step"],
        "here": {
            "steps": kept["step"] - begun["step"],
            "tokens": tokens,
            "flops": tokens * flops,
            "seconds": kept["seconds"] - begun["seconds"],
            "joules": joules - begun["joules"] if known else None,
        },
    }


def _sources(dataset, windows: int, seq_len: int, tally, e) -> dict:
    """Of each source of a mixture: what was read of it, and its loss; {} without one."""
    out = {}
    for k, name in enumerate(dataset.names):
        out[name] = {
            "training_tokens": dataset.source_windows(windows)[k] * seq_len,
            "dataset_tokens": dataset.source_tokens()[k],
            "epochs": dataset.source_epochs(windows)[k],
            "bytes": int(tally.by_source[k]),
            "validation": {n: record.finite(x) for n, x in e.sources[name].items()},
        }
    return out
