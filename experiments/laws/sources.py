"""Public files of other groups' runs: fetched at a pinned commit into the cache, or read from where
the user put them.

Nothing of them is shipped. Their SHA-256 could not be taken where this was written (no network):
`sha256` is empty, the hash of the first fetch is written beside the file, printed, and checked on
every later use; whoever has fetched one can pin it here.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.laws import table as tables
from experiments.laws.isoflop import FitError
from launch import record


class Source(NamedTuple):
    """`read(path)`: the authors' file as a table with the common columns. `tidy`: a column that a
    file already in that layout has.
    """

    url: str
    commit: str
    file: str
    licence: str
    read: Callable
    tidy: str
    sha256: str = ""


def cache() -> str:
    return os.path.join(
        os.environ.get("ISOFLOP_CACHE") or os.path.expanduser("~/.cache/isoflop"), "published"
    )


def sha256(path: str) -> str:
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def fetch(name: str) -> str:
    """Path of the authors' file in the cache. Raises FitError, saying how to give the file by hand,
    if it cannot be had or has changed.
    """
    s = SOURCES[name]
    folder = os.path.join(cache(), f"{name}-{s.commit[:12]}")
    path, note = os.path.join(folder, s.file), os.path.join(folder, f"{s.file}.sha256")
    if not os.path.exists(path):
        try:
            with urllib.request.urlopen(s.url, timeout=60) as r:
                body = r.read()
        except (OSError, ValueError) as e:
            why = getattr(e, "reason", None) or e
            raise FitError(
                f"{s.url} cannot be fetched ({str(why)[:100]}): download it elsewhere and give it"
                f" with isoflop reproduce {name} --data=FILE"
            ) from None
        record.writable(folder, "the cache")
        fresh = f"{path}.part"
        with open(fresh, "wb") as f:
            f.write(body)
        os.replace(fresh, path)
        record.write_text(note, sha256(path) + "\n")
    found = sha256(path)
    recorded = s.sha256
    if not recorded and os.path.exists(note):
        with open(note) as f:
            recorded = f.read().strip()
    if recorded and found != recorded:
        raise FitError(
            f"{path} has SHA-256 {found}, not {recorded}: remove it, and the same command fetches"
            " it again"
        )
    return path


def load(name: str, data: str = "") -> tuple[tables.Table, dict]:
    """The runs of `name`, from `data` (the authors' file, or a CSV in the common layout) or from
    the cache. And which file it was.
    """
    s = SOURCES[name]
    path = data or fetch(name)
    if not os.path.isfile(path):
        raise FitError(
            f"--data={path} does not exist: give the authors' file ({s.url}) or a CSV with the"
            " common columns"
        )
    try:
        t = tables.read_csv(path) if path.endswith(".csv") else {}
        t = t if s.tidy in t else s.read(path)
    except (OSError, KeyError, ValueError, EOFError, tarfile.TarError) as e:
        if isinstance(e, FitError):
            raise
        raise FitError(
            f"{path} is neither the authors' file of {name} nor a CSV with the common columns"
            f" ({type(e).__name__}: {str(e)[:60]})"
        ) from None
    how = (
        "given by --data"
        if data
        else f"commit {s.commit}" + ("" if s.sha256 else ", hash recorded at the first fetch")
    )
    return t, {"path": path, "sha256": sha256(path), "how": how, "url": s.url}


def _besiroglu(path):
    raw = tables.read_csv(path)
    n, c, loss = raw["Model Size"], raw["Training FLOP"], raw["loss"]
    return {
        "n_params": n,
        "flops": c,
        "tokens": c / (6 * n),
        "loss": loss,
        "is_outlier": (loss >= np.sort(loss)[-5]).astype(float),
    }


def _clark(path):
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as f:
        rows = list(csv.DictReader(f))
    last = {}
    for r in rows:
        if r["hyper_id"] not in last or float(r["step"]) > float(last[r["hyper_id"]]["step"]):
            last[r["hyper_id"]] = r
    rows = list(last.values())
    col = lambda k: np.array([float(r[k] or "nan") for r in rows])
    dense = np.array([r["router_type"] == "Dense" for r in rows])
    main = (col("k") == 1) & (col("routing_frequency") == 0.5) | dense
    return {
        "run_id": np.array([r["hyper_id"] for r in rows], object),
        "router": np.array([r["router_type"] for r in rows], object),
        "n_params": col("total_parameter_count"),
        "n_active_params": col("dense_parameter_count"),
        "n_experts": np.where(dense, 1.0, col("num_experts")),
        "tokens": col("step") * 256 * 2048,
        "flops": 3 * col("flops_per_step") * col("step"),
        "loss": col("loss_validation"),
        "in_main_fit": (
            (
                main & (col("seed") == 42) & (np.nan_to_num(col("flop_increase"), nan=1.0) == 1)
            ).astype(float)
        ),
    }


# the 17 tasks of the paper's error average
_SUBSET = [
    "bigbench_operators",
    "pubmed_qa_labeled",
    "hellaswag_zeroshot",
    "boolq",
    "arc_easy",
    "coqa",
    "bigbench_dyck_languages",
    "lambada_openai",
    "bigbench_novel_concepts",
    "winograd",
    "bigbench_cs_algorithms",
    "commonsense_qa",
    "bigbench_qa_wikidata",
    "hellaswag",
    "copa",
    "squad",
    "piqa",
]
_FITTED = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")


def _gadre(path):
    models, evals = [], {}
    with tarfile.open(path) as tar:
        for m in tar:
            if m.isfile() and m.name.endswith(".json") and "/exp_data/" in m.name:
                value = json.load(io.TextIOWrapper(tar.extractfile(m), "utf-8"))
                base = os.path.basename(m.name)
                if "/models/" in m.name:
                    models.append((base.removesuffix(".json"), value))
                else:
                    evals[base.removeprefix("evaluation_").removesuffix("_heavy.json")] = value[
                        "eval_metrics"
                    ]["icl"]
    if not models:
        raise FitError(
            f"{path} holds no exp_data/models/*.json: give the archive of the repository"
        )
    rows = []
    for name, m in sorted(models):
        h = m["hyperparameters"]
        kind, multiple = h["model"].split("/")[-1].split(".")[0], h["chinchilla_multiplier"]
        loss = next(r["loss"] for r in m["results"] if "/c4_val/" in r["val_data"][0])
        first = kind in _FITTED and (multiple == 1 or (multiple == 16 and kind == _FITTED[0]))
        rows.append(
            {
                "run_id": name,
                "train_set": m["dataset_name"],
                "model": kind,
                "n_params": float(h["params"]),
                "tokens": float(h["tokens"]),
                "flops": 6.0 * h["params"] * h["tokens"],
                "loss": loss,
                "tokens_per_param": 20.0 * multiple,
                "fit_point_loss": float(first),
                "fit_point_error_extra": float(kind == "open_lm_1b" and multiple == 1),
                "err_avg17": (
                    float(np.mean([1 - evals[name][k] for k in _SUBSET]))
                    if name in evals
                    else np.nan
                ),
            }
        )
    return {
        k: np.array([r[k] for r in rows], object if isinstance(rows[0][k], str) else float)
        for k in rows[0]
    }


_RAW = "https://raw.githubusercontent.com"
SOURCES = {
    "besiroglu2024": Source(
        f"{_RAW}/epoch-research/analyzing-chinchilla/92258837425e1b5f2851d624287f0120583a3d0e/data/svg_extracted_data.csv",
        "92258837425e1b5f2851d624287f0120583a3d0e",
        "svg_extracted_data.csv",
        "none stated",
        _besiroglu,
        "n_params",
    ),
    "gadre2024": Source(
        "https://codeload.github.com/mlfoundations/scaling/tar.gz/a003c4913793ac2ae7ef87b28ecb562955d026d5",
        "a003c4913793ac2ae7ef87b28ecb562955d026d5",
        "scaling.tar.gz",
        "MIT",
        _gadre,
        "train_set",
    ),
    "clark2022": Source(
        f"{_RAW}/google-deepmind/scaling_laws_for_routing/42da0c392b127df2c01fa7b705f72396050d05e5/data/curves.csv.gz",
        "42da0c392b127df2c01fa7b705f72396050d05e5",
        "curves.csv.gz",
        "data CC-BY 4.0, code Apache-2.0",
        _clark,
        "in_main_fit",
    ),
}
