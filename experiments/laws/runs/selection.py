"""Which runs are evidence for one law: the same answer for a table, an analysis and a report.

Losses on another text, or per token of another tokenizer, are other quantities. The trials of a
learning-rate bracket are one measurement, not many. What is left out is counted and named, and
`pool` keeps it: corpus, tokenizer, family, lr, repeats.
"""

import hashlib
import json
from collections import Counter, defaultdict

import numpy as np

from experiments.laws.conventions import POOL
from experiments.laws.exceptions import FitError
from experiments.planning.arms import ARMS

_RATES = ("lr", "embed_lr")


# columns of numbers that say what was trained; words say it too, unless every row has its own
DESIGN = (
    *("n_params", "n_active_params", "n_total_params", "n_experts", "sparsity", "granularity"),
    *("tokens", "unique_tokens", "epochs", "flops", "size", "budget", "isoflop_budget"),
    *("batch", "batch_size", "batch_tokens", "warmup", "weight_decay", "steps", "step"),
    *("seq_len", "width", "depth", "d_model", "n_layers", "top_k", "tokens_per_param"),
)
NAMES = ("run_id", "recipe_hash", "status", "role", "source_file")

# relative distance in loss within which a learning rate or batch counts as best (Step Law)
NEAR_BEST = 0.0025


def pools(text: str) -> tuple[str, ...]:
    """`corpus,lr` as names of POOL. Raises FitError."""
    names = tuple(p.strip() for p in text.split(",") if p.strip())
    for name in names:
        if name not in POOL:
            raise FitError(f"--pool={text}: choose among {', '.join(POOL)}")
    return names


def identity(r: dict) -> dict:
    """What the selection reads of a result. `recipe_hash` is equal for runs that differ in seed or
    learning rate alone.
    """
    run, tags = json.loads(json.dumps(r["run"])), r["tags"]
    run.pop("seed", None)
    order = run.get("data", {}).pop("seed", 0)
    for name in _RATES:
        run.get("optimizer", {}).pop(name, None)
    cell = [r["family"], tags.get("size"), tags.get("budget"), r["training_tokens"]]
    found = r.get("fingerprints") or {}
    text = json.dumps([run, cell, r["parameters"].get("total"), found], sort_keys=True)
    return {
        "corpus": found.get("corpus", "") + _apart(r["run"]),
        "tokenizer": found.get("tokenizer", ""),
        "order": order,
        "recipe_hash": hashlib.sha256(text.encode()).hexdigest()[:12],
        "lr": r["run"].get("optimizer", {}).get("lr", tags.get("lr_multiplier", 1.0)),
    }


def _apart(run: dict) -> str:
    """Losses of documents kept apart are of less context: those of another corpus, as it were."""
    data = run.get("data")
    kept = data.get("documents") if isinstance(data, dict) else None
    return " (documents apart)" if kept == "apart" else ""


def comparable(rows: list[dict], fields, pool=()) -> tuple[list[bool], list[dict]]:
    """Keeps the rows with the value that most of them have, field by field; a row that does not
    say goes with any. Returns (keep, left out as {what, why}).
    """
    keep, left = [True] * len(rows), []
    order = list(ARMS)
    for field in fields:
        count = Counter(r[field] for r, k in zip(rows, keep) if k and r[field])
        if field in pool or len(count) < 2:
            continue

        def place(v):
            return order.index(v) if v in order else len(order)

        most = min(count, key=lambda v: (-count[v], place(v), v))
        for value in sorted(set(count) - {most}):
            out = [i for i, r in enumerate(rows) if keep[i] and r[field] == value]
            for i in out:
                keep[i] = False
            left.append(
                {
                    "what": f"{_plural(out, 'run')} of {field} {value} ({_named(rows, out)})",
                    "why": f"the other {count[most]} are of {field} {most}: choose with --where,"
                    f" or fit all together with --pool={field}",
                }
            )
    return keep, left


def brackets(rows: list[dict]) -> list[list[int]]:
    """Row numbers that differ in learning rate alone, a list for each design and seed."""
    groups = defaultdict(list)
    for i, r in enumerate(rows):
        groups[r["recipe_hash"], r["seed"], r["order"]].append(i)
    return list(groups.values())


def best(rows: list[dict], group: list[int]) -> list[int]:
    """The rows of a bracket at the rate of least mean loss; of training curves their ends count."""
    by_rate, last = defaultdict(list), max(rows[i].get("tokens", 0) for i in group)
    for i in group:
        by_rate[rows[i]["lr"]].append(i)

    def mean(at):
        ends = [rows[i]["loss"] for i in at if rows[i].get("tokens", 0) == last]
        return sum(ends) / len(ends) if ends else float("inf")

    return min(by_rate.values(), key=mean)


def tuned(rows: list[dict]) -> tuple[list[bool], list[dict]]:
    """Of every bracket its best learning rate. Returns (keep, left out)."""
    keep = [False] * len(rows)
    for group in brackets(rows):
        for i in best(rows, group):
            keep[i] = True
    out = [i for i, k in enumerate(keep) if not k]
    left = [
        {
            "what": f"{_plural(out, 'run')} at other learning rates ({_named(rows, out)})",
            "why": "of each bracket its best rate is fitted: fit all with --pool=lr",
        }
    ]
    return keep, left if out else []


def once(rows: list[dict]) -> tuple[list[bool], list[dict]]:
    """Keeps the first of rows that are equal in design, seed, rate and loss."""
    first, keep = set(), []
    for r in rows:
        key = r["recipe_hash"], r["seed"], r["order"], r["lr"], r["loss"], r.get("tokens")
        keep.append(key not in first)
        first.add(key)
    out = [i for i, k in enumerate(keep) if not k]
    left = [
        {
            "what": f"{_plural(out, 'row')} that repeat others ({_named(rows, out)})",
            "why": "all but the name is equal, the loss to its last digit: keep them with"
            " --pool=repeats",
        }
    ]
    return keep, left if out else []


def hashes(table: dict) -> np.ndarray:
    """`recipe_hash` of a table that has none: equal for rows that differ in seed, learning rate and
    outcome alone.
    """
    rows = len(next(iter(table.values())))

    def words(k, v):
        return v.dtype == object and k not in NAMES and len(set(v.tolist())) < rows

    used = [v for k, v in table.items() if k in DESIGN or words(k, v)]
    return np.array(["/".join(map(str, row)) for row in zip(*used)] or [""] * rows, object)


def of_table(table: dict, experts: bool, pool=(), rates: bool = False) -> tuple[dict, list[dict]]:
    """(the rows that one law is fitted to, what is left out). `experts`: the law tells families
    apart by their experts. `rates`: it is a law of the learning rate, or of the batch. Raises
    FitError if nothing is left.
    """
    loss, n = table["loss"], len(table["loss"])

    def column(k, default):
        return table[k].tolist() if k in table else [default] * n

    hashed = table["recipe_hash"] if "recipe_hash" in table else hashes(table)
    seeds = [repr(s) for s in column("seed", 0)]
    ids = table["run_id"].tolist() if "run_id" in table else [f"row {i + 1}" for i in range(n)]
    if "run_id" not in table and "row" in table:
        ids = [f"row {r:g}" for r in table["row"]]
    fields = ("corpus", "tokenizer", "family", "order", "status", "tokens")
    values = {k: column(k, "" if k not in ("order", "tokens") else 0) for k in fields}
    rows = [
        {"id": ids[i], "recipe_hash": hashed[i], "seed": seeds[i], "loss": loss[i]}
        | {"lr": repr(lr)}
        | {k: v[i] for k, v in values.items()}
        for i, lr in enumerate(column("lr", None))
    ]
    at, left = np.arange(n), []

    def keep(which, told):
        nonlocal at, rows
        at, rows = at[which], [r for r, k in zip(rows, which) if k]
        left.extend(told)

    ended = [r["status"] in ("", "finished") for r in rows]
    _count(rows, ended, "run", "not finished", "diverged", left)
    keep(ended, [])
    if loss.dtype != object:
        there = [not np.isnan(r["loss"]) for r in rows]
        _count(rows, there, "row", "without a loss", "the cell is blank: a run still going?", left)
        keep(there, [])
    if not rows:
        raise FitError(f"no run is left to fit: {left[0]['what']}")
    families = () if experts else ("family",)
    keep(*comparable(rows, ("corpus", "tokenizer", *families), pool))
    if "repeats" not in pool:
        keep(*once(rows))
    if "lr" not in pool and not rates and loss.dtype != object:
        keep(*tuned(rows))
    return {k: v[at] for k, v in table.items()}, left


def frontier(table: dict, compute: str) -> tuple[dict, list[dict]]:
    """(the rows that no row of as much compute or less beats, what is left out). Raises
    FitError.
    """
    if compute not in table or table[compute].dtype == object:
        raise FitError(f"--frontier needs a column of compute, and there is no {compute}")
    c, loss = table[compute], table["loss"]
    keep = np.array([not ((c <= a) & (loss < b)).any() for a, b in zip(c, loss)])
    out = int((~keep).sum())
    why = "--frontier: a run of as much compute or less has a lower loss"
    return {k: v[keep] for k, v in table.items()}, (
        [{"what": f"{out} run{'s' * (out > 1)} above the frontier", "why": why}] if out else []
    )


def near_best(table: dict, column: str) -> tuple[dict, list[str]]:
    """Rows within 0.25% of the best loss of their (N, D) cell, the cell as cluster; and the cells
    whose best lies at the edge of what was tried.
    """
    n, d, loss, v = (table[k] for k in ("n_params", "tokens", "loss", column))
    _, cell = np.unique([f"{a:.6g}/{b:.6g}" for a, b in zip(n, d)], return_inverse=True)
    keep, edges = np.zeros(len(n), bool), []
    for k in range(cell.max() + 1):
        rows = np.flatnonzero(cell == k)
        if len(set(v[rows])) < 2:
            continue
        best = rows[np.argmin(loss[rows])]
        keep[rows] = loss[rows] <= loss[best] * (1 + NEAR_BEST)
        if v[best] in (v[rows].min(), v[rows].max()):
            edges.append(
                f"N {n[best]:.3g}, D {d[best]:.3g}: best {column} {v[best]:.3g} is at the edge"
            )
    if not keep.any():
        raise FitError(f"no (N, D) cell has two values of {column} to choose from")
    return {k: a[keep] for k, a in table.items()} | {"run_id": cell[keep].astype(float)}, edges


def _count(rows, keep, noun, what, why, left) -> None:
    out = [i for i, k in enumerate(keep) if not k]
    if out:
        left.append({"what": f"{_plural(out, noun)} {what} ({_named(rows, out)})", "why": why})


def _plural(which, noun: str) -> str:
    return f"{len(which)} {noun}{'s' if len(which) > 1 else ''}"


def _named(rows, which) -> str:
    names = [str(rows[i]["id"]) for i in which[:3]]
    return ", ".join(names) + (", ..." if len(which) > 3 else "")
