"""Reading and preparing corpora against what it cannot be faster than: a bare loop of the library
over the same file, and two plain copies of a text and a hash.

The text is the standard library's source, repeated; one thread reads, all cores prepare.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time

from data import prepare
from data.config import Data
from data.sources import registry
from experiments.benchmarks import contest
from experiments.benchmarks.reading import _entry, _timed

CONTENDERS = (
    "jsonl_zst",
    "jsonl_zst_bare",
    "parquet",
    "parquet_bare",
    "prepare",
    "copies_and_hash",
)
SHAPES = {"full": dict(copies=400, text=1.0e9), "toy": dict(copies=1, text=2e6)}


def _documents(copies: int) -> list[str]:
    texts = [t.decode("utf-8", "replace") for t in registry.load(Data()).documents("validation")]
    parts = [t[i : i + 4000] for t in texts for i in range(0, len(t), 4000)]
    return [f"{k} {part}" for k in range(copies) for part in parts]


def _write(place: str, copies: int, size: float) -> dict[str, str]:
    """The same documents in each form, and a text of `size` bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    texts = _documents(copies)
    paths = {k: os.path.join(place, f"a.{k}") for k in ("jsonl.zst", "parquet", "txt")}
    with open(paths["jsonl.zst"], "wb") as f, zstandard.ZstdCompressor().stream_writer(f) as w:
        for i, text in enumerate(texts):
            w.write(json.dumps({"id": i, "text": text}).encode() + b"\n")
    pq.write_table(pa.table({"text": texts}), paths["parquet"], row_group_size=1000)
    with open(paths["txt"], "wb") as f:
        while f.tell() < size:
            for text in texts:
                f.write(b"%d %s" % (f.tell(), text.encode()))
    return paths


def _jsonl_bare(path: str) -> int:
    import io

    import zstandard

    with open(path, "rb") as f:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(f), encoding="utf-8")
        return sum(len(json.loads(line)["text"].encode()) for line in lines)


def _parquet_bare(path: str) -> int:
    import pyarrow.parquet as pq

    batches = pq.ParquetFile(path).iter_batches(512, columns=["text"], use_threads=False)
    return sum(len(text.encode()) for b in batches for text in b.column(0).to_pylist())


def _read(source: str, path: str, cache: str) -> int:
    corpus = registry.load(Data(source=source, path=path), cache)
    return sum(len(t) for unit in corpus.units() for b in corpus.read(unit) for t in b.texts)


def _copies_and_hash(path: str) -> None:
    for end in ("1", "2"):
        shutil.copyfile(path, path + end)
    with open(path, "rb") as f:
        hashlib.file_digest(f, "sha256")
    os.remove(path + "1")
    os.remove(path + "2")


def measure(part: str, scale: str, rounds: int, names: list[str], settings: list[str]) -> dict:
    """Medians over `rounds`, in bytes of text where others have tokens; `ratios` are ours over the
    bare loop, by CPU-seconds, and preparing over copies, by wall time.
    """
    s, names = SHAPES[scale], names or list(CONTENDERS)
    with tempfile.TemporaryDirectory() as place:
        paths, cache = _write(place, s["copies"], s["text"]), os.path.join(place, "cache")
        size = _jsonl_bare(paths["jsonl.zst"])
        text = Data(source="text", path=paths["txt"])
        for source, form in (("jsonl", "jsonl.zst"), ("parquet", "parquet")):
            assert _read(source, paths[form], cache) == size  # and their hashes are remembered

        def prepared(k: int):
            folder = os.path.join(place, f"cache{k}")
            prepare.prepare(text, folder)
            shutil.rmtree(folder)

        whole = os.path.getsize(paths["txt"])
        timers = {
            "jsonl_zst": lambda k: _timed(size, lambda: _read("jsonl", paths["jsonl.zst"], cache)),
            "jsonl_zst_bare": lambda k: _timed(size, lambda: _jsonl_bare(paths["jsonl.zst"])),
            "parquet": lambda k: _timed(size, lambda: _read("parquet", paths["parquet"], cache)),
            "parquet_bare": lambda k: _timed(size, lambda: _parquet_bare(paths["parquet"])),
            "prepare": lambda k: _timed(whole, lambda: prepared(k)),
            "copies_and_hash": lambda k: _timed(whole, lambda: _copies_and_hash(paths["txt"])),
        }
        rows: dict[str, list] = {n: [] for n in names}
        for k in range(rounds):
            for n in names if k % 2 == 0 else names[::-1]:
                rows[n].append(timers[n](k))
        prepare.prepare(text, cache)
        past = time.time() - 60
        os.utime(paths["txt"], (past, past))
        prepare.prepare(text, cache)
        started = time.perf_counter()
        prepare.prepare(text, cache)
        again = time.perf_counter() - started
    found = {n: _entry(r, again) for n, r in rows.items()}
    pairs = {
        "jsonl_zst": ("jsonl_zst_bare", "tokens_per_cpu_s"),
        "parquet": ("parquet_bare", "tokens_per_cpu_s"),
        "prepare": ("copies_and_hash", "tokens_per_s"),
    }
    ratios = {
        a: found[a][by] / found[b][by] for a, (b, by) in pairs.items() if a in found and b in found
    }
    return {
        "part": part,
        "what": (
            f"corpora: {size / 1e6:.0f} MB of documents, one thread; {whole / 1e6:.0f} MB of text"
            " prepared by all cores; figures in bytes of text"
        ),
        "machine": contest.machine(),
        "rounds": rounds,
        "contenders": found,
        "ratios": ratios,
        "later_start_s": again,
        "notes": [
            *(f"  {k}: {v:.2f} of {pairs[k][0]}" for k, v in ratios.items()),
            f"  a later start on the text: {again:.3f} s",
        ],
    }
