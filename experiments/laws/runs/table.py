"""Runs as a table: a dict of columns, from CSV files with the common names or from the folders of
sweeps.

Common columns: run_id, family, n_params, n_active_params, n_experts, tokens, flops, loss, seed.
Numbers are float arrays, words object arrays.
"""

import difflib
import math
import os
import re

import numpy as np

from experiments import sweep
from experiments.laws.conventions import N_CONVENTIONS
from experiments.laws.exceptions import FitError
from experiments.laws.runs import csvfile, selection, sweep_folder
from experiments.laws.runs.losses import PER_BYTE
from launch.runs import ledger, record

Table = dict[str, np.ndarray]
INPUT = {
    "N": "n_params",
    "D": "tokens",
    "C": "flops",
    "E": "n_experts",
    "G": "granularity",
    "S": "sparsity",
    "U": "unique_tokens",
    "M": "tokens_per_param",
    "L": "loss",
    "B": "batch_tokens",
}
# columns that the selection reads, where one file has them and another has not
UNSAID = {"row": math.nan, "corpus": "", "tokenizer": "", "family": "", "status": "", "order": 0.0}
_OPS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


def read_csv(path: str) -> Table:
    """A CSV file with a header line (csvfile.py). A column in which every filled cell is a number
    is one; empty cells are NaN there. `row`: the row of the file, the header being row 1.
    """
    return {
        name: as_numbers_or_words(np.array(column, object))
        for name, column in csvfile.read(path).items()
    }


def as_numbers_or_words(column: np.ndarray) -> np.ndarray:
    """A column of cells as numbers, if all of them are."""
    values = [getattr(c, "value", None) for c in column.tolist()]
    return column if None in values else np.array(values, float)


def load(workdir: str, n: str = "multiplied", c: str = "matmul", pool: tuple[str, ...] = ()):
    """The runs of a sweep that a fit reads (selection.py) as a pandas table, one row a run, for
    notebooks: `from experiments.laws.runs.table import load`. `pool=selection.POOL`: all finished
    runs.
    """
    try:
        import pandas
    except ImportError:
        raise FitError(
            "load() gives a pandas table, and pandas is not installed: pip install pandas"
        ) from None
    return pandas.DataFrame(
        selection.of_table(sweep_folder.read_workdir(workdir, n, c), True, pool)[0]
    )


def read(
    paths: list[str],
    n: str = "",
    c: str = "",
    columns: dict[str, str] | None = None,
    curves: bool = False,
) -> Table:
    """Files and folders as one table, rows in order; columns that not all of them have are left
    out. `columns`: {common: theirs}. `n`, `c`: a convention of records, or the name of a column.
    `curves`: of folders, the training curves instead of the final losses. Raises FitError.
    """
    short = [os.path.basename(os.path.normpath(p)) for p in paths]
    names = dict(zip(paths, short if len(set(short)) == len(paths) else paths))
    parts = []
    for path in paths:
        if os.path.isdir(path):
            part = (sweep_folder.read_curves if curves else sweep_folder.read_workdir)(
                path, n if n in N_CONVENTIONS else "multiplied", c or "matmul"
            )
        elif os.path.exists(path):
            part = read_csv(path)
        else:
            raise FitError(
                f"--runs={path} does not exist: give a CSV file or the folder of a sweep"
            )
        for common, theirs in (columns or {}).items():
            part[common] = part[column_name(part, theirs, path)]
        rows = len(next(iter(part.values())))
        if "tokenizer" in part and (columns or {}).get("loss") == PER_BYTE:
            # of any tokens: they tell runs apart no longer
            part["tokenizer"] = np.array([""] * rows, object)
        part.setdefault("recipe_hash", selection.hashes(part))
        part["source_file"] = np.array([names[path]] * rows, object)
        parts.append(part)
    for part in parts:  # what a file does not say is kept apart from what the others say
        rows = len(part["source_file"])
        for k, v in UNSAID.items():
            if any(k in p for p in parts):
                part.setdefault(k, np.array([v] * rows, object if v == "" else float))
    shared = [k for k in parts[0] if all(k in p for p in parts)]
    return {k: np.concatenate([p[k] for p in parts]) for k in shared}


def column_name(table: Table, name: str, where: str = "the table") -> str:
    """`name`, if it is a column. Raises FitError with the nearest one."""
    if name in table:
        return name
    near = difflib.get_close_matches(name, table, 1)
    raise FitError(
        f"{where} has no column {name!r}{f': did you mean {near[0]!r}?' if near else ';'} its"
        f" columns are {', '.join(table)}"
    )


def taken(table: Table, keep) -> Table:
    """Its rows where `keep` holds."""
    return {k: v[np.asarray(keep)] for k, v in table.items()}


def place(table: Table, i: int) -> str:
    """Row `i` in words: of the file, or the run's id."""
    if "row" in table and table["row"].dtype != object and np.isfinite(table["row"][i]):
        files = table.get("source_file", np.array([""] * (i + 1), object))
        return f"row {table['row'][i]:g}" + (f" of {files[i]}" if len(set(files)) > 1 else "")
    return f"run {table['run_id'][i]}" if "run_id" in table else f"row {i + 1}"


def where(table: Table, text: str) -> Table:
    """Rows for which `text` holds: comparisons such as is_outlier==0 or family=='dense', joined by
    `and`. Nothing is evaluated as code.
    """
    keep = np.ones(len(next(iter(table.values()))), bool)
    for part in re.split(r"\s+and\s+|\s*&&?\s*", text.strip()) if text.strip() else []:
        m = re.fullmatch(r"\s*([^=!<>]+?)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*", part)
        if not m:
            raise FitError(
                f"--where={text}: cannot read {part!r}; write comparisons such as is_outlier==0 and"
                " loss<5"
            )
        values, op, wanted = table[column_name(table, m[1])], _OPS[m[2]], m[3].strip("'\"")
        if values.dtype == object:
            cells = [getattr(v, "value", None) for v in values]
            if m[2] in ("==", "!="):
                keep &= op(values, wanted)
                continue
            if all(v is None for v in cells):
                raise FitError(f"--where={text}: {m[1]} holds words, compare it with == or !=")
            values = np.array([math.nan if v is None else v for v in cells])
        try:
            keep &= op(values, float(wanted))
        except ValueError:
            raise FitError(f"--where={text}: {m[1]} holds numbers, {wanted!r} is none") from None
    if not keep.any():
        raise FitError(f"--where={text} leaves no row")
    return {
        k: as_numbers_or_words(v) if v.dtype == object else v for k, v in taken(table, keep).items()
    }


def conventions(form, table: Table, n: str = "", c: str = "") -> dict[str, str]:
    """{input: the column it is read from, in words}."""
    named = dict(form.columns)
    if n and n not in N_CONVENTIONS:
        named["N"] = n
    elif n and "n_total_params" in table:
        named["N"] = "n_params"
    if c and c in table:
        named["C"] = c
    return {k: named.get(k, INPUT[k]) for k in form.inputs}


def inputs(form, table: Table, n: str = "", c: str = "") -> dict[str, np.ndarray]:
    """The form's inputs by name. M may be D / N, and C may be 6N (x D) where --c=6N asks for it.
    Raises FitError on a column that is missing.
    """
    out = {}
    for name, column in conventions(form, table, n, c).items():
        if name == "C" and c == "6N" and "source_file" in table and c not in table:
            out[name] = 6 * numbers(table, "n_params") * numbers(table, "tokens")
        elif name == "M" and column not in table:
            out[name] = numbers(table, "tokens") / numbers(table, "n_params")
        else:
            out[name] = numbers(table, column)
    return out


def numbers(table: Table, name: str) -> np.ndarray:
    """A column of numbers. Raises FitError if it is missing (name it with --columns) or holds
    words.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        hint = (
            f" such as --columns={name}={near[0]}" if near else f" such as --columns={name}=THEIRS"
        )
        if name == "n_params" and {"tokens", "flops", "loss"} <= set(table):
            hint += " (--law=chinchilla2 reads D_opt off tokens, flops and loss)"
        raise FitError(
            f"no column {name!r}: map one with --columns,{hint}; there are"
            f" {', '.join(k for k in table if k != 'source_file')}"
        )
    if table[name].dtype == object:
        bad = next(c for c in table[name] if getattr(c, "value", None) is None)
        if why := getattr(bad, "why", ""):
            raise FitError(
                f"row {bad.row} {why}: mend it (a decimal comma?), or leave it out with"
                f' --where="row!={bad.row}"'
            )
        at = f", row {bad.row}" if hasattr(bad, "row") else ""
        raise FitError(
            f"column {name!r}{at} holds words ({str(bad)[:40]!r}), a number is wanted: mend it"
            + (f', or leave it out with --where="row!={bad.row}"' if at else "")
        )
    return table[name]


def clusters(table: Table) -> np.ndarray | None:
    """run_id where some run has several rows (its checkpoints), else None."""
    ids = table.get("run_id")
    return ids if ids is not None and len(set(ids.tolist())) < len(ids) else None


def cells(form, table: Table, x: dict) -> np.ndarray | None:
    """A label per row, equal for rows that differ in seed alone; None where no such pair exists."""
    if "seed" not in table or table["seed"].dtype == object:
        return None
    hashed = table["recipe_hash"] if "recipe_hash" in table else selection.hashes(table)
    more = [table[k] for k in ("lr", "source_file") if k in table]
    key = [repr(row) for row in zip(*x.values(), hashed, *more)]
    _, label = np.unique(key, return_inverse=True)
    seeds = {}
    for k, s in zip(label, table["seed"]):
        seeds.setdefault(int(k), set()).add(float(s))
    return label if any(len(s) > 1 for s in seeds.values()) else None


def describe(paths: list[str]) -> list[dict]:
    """Name and SHA-256 of each file, or of the results of each folder."""
    import hashlib

    out = []
    for path in paths:
        h = hashlib.sha256()
        files = (
            [path]
            if os.path.isfile(path)
            else [
                os.path.join(path, sweep.RUNS, d, record.RESULT)
                for d in ledger.identities(os.path.join(path, sweep.RUNS))
            ]
        )
        for name in files:
            if os.path.exists(name):
                with open(name, "rb") as f:  # an ordinary file: it has been read
                    h.update(f.read())
        out.append({"path": path, "sha256": h.hexdigest()})
    return out
