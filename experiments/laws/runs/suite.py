"""Evaluated models (launch/evaluation) as rows with the common columns (table.py), so that released
models and one's own are points of one law.
"""

import csv
import io
import math

from experiments.laws.runs import sweep_folder

# of a file; and one column for the error on each task
COLUMNS = (
    *("run_id", "kind", "family", "n_params", "n_active_params", "n_total_params"),
    *("n_experts", "sparsity", "granularity", "tokens", "flops", "flops_6N", "seq_len"),
    *("loss", "loss_se", "bits_per_byte", "bits_per_byte_se", "error", "error_per_byte"),
    *("corpus", "tokenizer"),
)


def row(r: dict, corpus: str) -> dict:
    """The columns of one evaluated model; corpus: names the text, equal texts alone equally. The
    error is the mean over tasks.
    """
    p, v, tasks = r["parameters"], r.get("validation") or {}, r["tasks"]
    experts, chosen, grain = sweep_folder.routed({"model": r["model"], "version": 2})
    tokens = r["training_tokens"] or math.nan
    errors = {f"error_{k}": 1 - t["accuracy"] for k, t in tasks.items()}
    per_byte = [1 - t["accuracy_per_byte"] for t in tasks.values()]
    return {
        "run_id": r["name"],
        "kind": r["kind"],
        "family": r["family"],
        "n_params": p["multiplied"],
        "n_active_params": p["active"],
        "n_total_params": p["total"],
        "n_experts": experts,
        "sparsity": (experts - chosen) / experts,
        "granularity": grain,
        "tokens": tokens,
        "flops": r["flops"]["matmul"] if r["flops"] else math.nan,
        "flops_6N": r["flops"]["6N_active"] if r["flops"] else math.nan,
        "seq_len": r["flops_at"],
        "loss": v.get("loss", math.nan),
        "loss_se": v.get("se_windows", math.nan),
        "bits_per_byte": v.get("bits_per_byte", math.nan),
        "bits_per_byte_se": v.get("bits_per_byte_se", math.nan),
        "error": _mean(errors.values()),
        "error_per_byte": _mean(per_byte),
        "corpus": corpus,
        "tokenizer": r["tokenizer"],
        **errors,
    }


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def text(rows: list[dict]) -> str:
    """A CSV file of rows; what is not known is an empty cell."""
    tasks = [k for k in rows[0] if k not in COLUMNS]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *tasks])
    for r in rows:
        writer.writerow([_cell(r[k]) for k in (*COLUMNS, *tasks)])
    return out.getvalue()


def _cell(v):
    missing = v is None or isinstance(v, float) and not math.isfinite(v)
    return "" if missing else repr(v) if isinstance(v, float) else v
