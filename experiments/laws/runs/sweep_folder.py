"""Records of a sweep's folder as rows with the common columns (table.py)."""

import math
import os

import numpy as np

from experiments import sweep
from experiments.laws.conventions import n_of
from experiments.laws.exceptions import FitError
from experiments.laws.runs import selection
from launch import config
from launch.runs import record
from model.config import check


def routed(run: dict) -> tuple[int, int, float]:
    """(experts, chosen ones, granularity d_ff / d_expert) of a record's model: of its first layer
    that has experts, 1, 1, 1 where none has. Raises FitError.
    """
    try:
        kept = {k: run[k] for k in ("model", "version") if k in run}
        m = config.from_dict(config.Run, kept).model
        check(m)
    except ValueError as e:
        raise FitError(f"a record cannot be read: {e}") from None
    if not m.routed:
        return 1, 1, 1.0
    p = m.routed[0]
    return p.n_experts, p.top_k, p.active_width(m) / p.width(m)


def run_row(r: dict, n: str = "multiplied", c: str = "matmul") -> dict:
    """The common columns of a result.json; N and C by the named conventions."""
    p, own = r["parameters"], n_of(r["parameters"], n)
    experts, k, grain = routed(r["run"])
    unique = r.get("dataset_tokens")
    return {
        "run_id": r["id"],
        "family": r["family"],
        "n_params": own,
        "n_active_params": p.get("active", own),
        "n_total_params": p.get("total", own),
        "n_experts": experts,
        "sparsity": (experts - k) / experts,
        "granularity": grain,
        "tokens": r["training_tokens"],
        "unique_tokens": min(unique, r["training_tokens"]) if unique else r["training_tokens"],
        "epochs": r.get("epochs", math.nan),
        "flops": r["flops"][c],
        "loss": math.nan if r["validation"]["loss"] is None else r["validation"]["loss"],
        "bits_per_byte": r["validation"].get("bits_per_byte") or math.nan,
        **{k: v["loss"] for k, v in (r.get("averages") or {}).items()},
        **{k: v["validation"]["loss"] for k, v in (r.get("sources") or {}).items()},
        "seed": r["run"]["seed"],
        "size": r["tags"].get("size") or 0,
        "budget": r["tags"].get("budget") or math.nan,
        "role": r["tags"].get("role") or "",
        "lr_multiplier": r["tags"].get("lr_multiplier", 1.0),
        "batch_tokens": r["run"].get("batch", 0) * r["run"].get("model", {}).get("seq_len", 0),
        "status": r["status"],
        "skipped": r.get("skipped") or 0,
        **selection.identity(r),
    }


def read_workdir(path: str, n: str = "multiplied", c: str = "matmul") -> dict[str, np.ndarray]:
    """The runs of a sweep's folder, those too that diverged (`status`). Raises FitError or
    RecordError.
    """
    results = sweep.results(path)
    if not results:
        raise FitError(f"{path} holds no finished runs: run isoflop sweep --workdir={path} first")
    rows = [run_row(r, n, c) for r in results]
    shared = [k for k in rows[0] if all(k in r for r in rows)]
    return {
        k: np.array([r[k] for r in rows], object if isinstance(rows[0][k], str) else float)
        for k in shared
    }


def read_curves(path: str, n: str = "multiplied", c: str = "matmul") -> dict[str, np.ndarray]:
    """Training curves of a sweep's folder: a row per logged point, the loss a moving mean of five
    of them (training loss, nats/token).
    """
    rows = []
    for r in sweep.results(path):
        name = os.path.join(path, sweep.RUNS, r["id"], record.METRICS)
        if r["status"] != "finished" or not os.path.exists(name):
            continue
        lines = [t for t in record.lines(name) if t.get("loss") is not None and t.get("tokens")]
        smooth = (
            np.convolve([t["loss"] for t in lines], np.ones(5) / 5, "valid")
            if len(lines) >= 5
            else []
        )
        per_token = r["flops"][c] / r["training_tokens"]
        rows += [
            run_row(r, n, c) | {"tokens": t["tokens"], "flops": t["tokens"] * per_token, "loss": v}
            for t, v in zip(lines[4:], smooth)
        ]
    if not rows:
        raise FitError(
            f"{path} holds no training curves: chinchilla1 reads runs/*/{record.METRICS} of a sweep"
        )
    return {
        k: np.array([r[k] for r in rows], object if isinstance(rows[0][k], str) else float)
        for k in rows[0]
    }
