"""Public files of other groups' runs: fetched at a pinned commit into the cache, or read from where
the user put them.

Nothing of them is shipped. A file is pinned by its SHA-256. An archive that a server makes has no
stable hash, so its folders are pinned by their git trees: SHA-1 over names, modes and contents.
"""

import csv
import gzip
import hashlib
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.runs import table as tables
from launch import files


class Source(NamedTuple):
    """`read(path)`: the authors' file as a table with the common columns. `tidy`: a column that a
    file already in that layout has. `sha256` of the file, or `trees`: (folder, git tree) in an
    archive.
    """

    url: str
    commit: str
    file: str
    licence: str
    read: Callable
    tidy: str
    sha256: str = ""
    trees: tuple[tuple[str, str], ...] = ()

    def differs(self, path: str) -> str:
        """Why `path` is not the pinned file, or nothing."""
        if self.sha256 and (found := sha256(path)) != self.sha256:
            return f"has SHA-256 {found}, not {self.sha256}"
        for folder, tree in self.trees:
            if (found := git_tree(archived(path, folder))) != tree:
                return f"has git tree {found} at {folder}, not {tree}"
        return ""


def cache() -> str:
    return os.path.join(
        os.environ.get("ISOFLOP_CACHE") or os.path.expanduser("~/.cache/isoflop"), "published"
    )


def sha256(path: str) -> str:
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def git_tree(files: dict[str, tuple[bool, bytes]]) -> str:
    """The id that git gives a flat folder of {name: (executable, content)}."""
    body = b""
    for name, (executable, content) in sorted(files.items()):
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).digest()
        mode = b"100755" if executable else b"100644"
        body += mode + b" " + name.encode() + b"\0" + blob
    return hashlib.sha1(b"tree %d\0" % len(body) + body).hexdigest()


def archived(path: str, folder: str) -> dict[str, tuple[bool, bytes]]:
    """The files of `folder` in a server's archive, {name: (executable, content)}. The archive's own
    top folder goes before it. Raises TarError or OSError.
    """
    out = {}
    with tarfile.open(path) as tar:
        for m in tar:
            _, _, inside = m.name.removeprefix("./").partition("/")
            if m.isfile() and os.path.dirname(inside) == folder:
                out[os.path.basename(inside)] = bool(m.mode & 0o100), tar.extractfile(m).read()
    return out


def fetch(name: str) -> str:
    """Path of the authors' file in the cache. Raises FitError, saying how to give the file by hand,
    if it cannot be had or is not the pinned one.
    """
    s = SOURCES[name]
    folder = os.path.join(cache(), f"{name}-{s.commit[:12]}")
    path = os.path.join(folder, s.file)
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
        files.writable(folder, "the cache")
        fresh = f"{path}.part"
        with open(fresh, "wb") as f:
            f.write(body)
        os.replace(fresh, path)
    try:
        wrong = s.differs(path)
    except (OSError, EOFError, tarfile.TarError) as e:
        wrong = f"cannot be read ({str(e)[:60]})"
    if wrong:
        raise FitError(f"{path} {wrong}: remove it, and the same command fetches it again")
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
        tidy = s.tidy in t
        t = t if tidy else s.read(path)
        other = "" if tidy else s.differs(path)
    except (OSError, KeyError, ValueError, EOFError, tarfile.TarError) as e:
        if isinstance(e, FitError):
            raise
        raise FitError(
            f"{path} is neither the authors' file of {name} nor a CSV with the common columns"
            f" ({type(e).__name__}: {str(e)[:60]})"
        ) from None
    pinned = f"commit {s.commit}, as pinned" if not other else f"NOT the pinned file: it {other}"
    how = f"given by --data, {'in the common layout' if tidy else pinned}" if data else pinned
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

    def col(k):
        return np.array([float(r[k] or "nan") for r in rows])

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
_MODELS, _EVALS = "exp_data/models", "exp_data/evals"  # exp_data itself holds other files too
_FITTED = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")


def _gadre(path):
    def read(folder):
        return {
            k.removesuffix(".json"): json.loads(content)
            for k, (_, content) in archived(path, folder).items()
            if k.endswith(".json")
        }

    models = read(_MODELS)
    if not models:
        raise FitError(f"{path} holds no {_MODELS}/*.json: give the archive of the repository")
    evals = {
        k.removeprefix("evaluation_").removesuffix("_heavy"): v["eval_metrics"]["icl"]
        for k, v in read(_EVALS).items()
    }
    rows = []
    for name, m in sorted(models.items()):
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


# of the notebook: cells that print the runs they load, by stage of the fit, and their unit
_CELLS = ((1, 2, 1.0), (2, 26, 1e9))
_EPOCHS = 2.5  # of the runs that its first stage is fitted to, at most


def _muennighoff(path):
    """The runs of both stages (`stage`), as the notebook's cells printed them."""
    with open(path, encoding="utf-8") as f:
        cells = json.load(f)["cells"]
    names, rows = [], []
    for stage, index, unit in _CELLS:
        text = "".join("".join(o.get("text", [])) for o in cells[index]["outputs"])
        for line in (x.split() for x in text.splitlines()):
            if len(line) != 5:  # a name that a cell prints beside its runs
                continue
            n, d, u = (float(v) * unit for v in line[1:4])
            if stage == 2 or d / u <= _EPOCHS:
                names.append(line[0])
                rows.append((n, d, u, 6 * n * d, float(line[4]), stage))
    keys = ("n_params", "tokens", "unique_tokens", "flops", "loss", "stage")
    return {"run_id": np.array(names, object)} | dict(zip(keys, np.array(rows, float).T))


_RAW = "https://raw.githubusercontent.com"
_DATABLATIONS = "13701315b163f1c54642b94ad237b2699187c3ee"  # its commit
SOURCES = {
    "besiroglu2024": Source(
        f"{_RAW}/epoch-research/analyzing-chinchilla/92258837425e1b5f2851d624287f0120583a3d0e/data/svg_extracted_data.csv",
        "92258837425e1b5f2851d624287f0120583a3d0e",
        "svg_extracted_data.csv",
        "none stated",
        _besiroglu,
        "n_params",
        sha256="193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30",
    ),
    "gadre2024": Source(
        "https://codeload.github.com/mlfoundations/scaling/tar.gz/a003c4913793ac2ae7ef87b28ecb562955d026d5",
        "a003c4913793ac2ae7ef87b28ecb562955d026d5",
        "scaling.tar.gz",
        "MIT",
        _gadre,
        "train_set",
        trees=(
            (_MODELS, "293377c130aa00c37c6ea65500b9d0f26f866fb4"),
            (_EVALS, "9fc7c47eaf3375cf995b8ae34241784185755629"),
        ),
    ),
    "clark2022": Source(
        f"{_RAW}/google-deepmind/scaling_laws_for_routing/42da0c392b127df2c01fa7b705f72396050d05e5/data/curves.csv.gz",
        "42da0c392b127df2c01fa7b705f72396050d05e5",
        "curves.csv.gz",
        "data CC-BY 4.0, code Apache-2.0",
        _clark,
        "in_main_fit",
        sha256="c03e7531add85e594f368d33bac4a0220280be858a7ed12d147cf73af6a3819f",
    ),
    "muennighoff2023": Source(
        f"{_RAW}/huggingface/datablations/{_DATABLATIONS}/utils/parametric_fit.ipynb",
        _DATABLATIONS,
        "parametric_fit.ipynb",
        "Apache-2.0",
        _muennighoff,
        "unique_tokens",
        sha256="6c65d270e70c944a9ac90f5f1213a4584e1ff9d6d2781cd86900663f4ab17db9",
    ),
}
