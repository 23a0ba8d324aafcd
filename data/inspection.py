"""What stands in a corpus: counts of documents, bytes and tokens, duplicates, a sample."""

import os
from typing import Any

import numpy as np

from data import cache, mixture, pipeline, prepare, tokenizers
from data.config import Data, DataError
from data.shards import SPLITS, Tokens

SAMPLE = 64  # tokens of a decoded sample
PART = 2**23  # hashes that are sorted at a time


def describe(d: Data, root: str = "", workers: int = 0, deep: bool = True) -> dict[str, Any]:
    """Prepares the corpus that `d` names if it is not, and says what is in it. deep: with a sample
    and the duplicates. Raises DataError.
    """
    pipeline.check(d)
    if d.source == "synthetic":
        raise DataError("data.source=synthetic is generated: there are no files to prepare")
    tokenizer = tokenizers.load(d, root)
    mixed = pipeline.mixture_of(d)
    parts = mixture.sources(d) if mixed else {d.source: d}
    found = {name: prepare.prepare(part, root, workers) for name, part in parts.items()}
    total = sum(t.meta["splits"]["train"]["tokens"] for t in found.values())
    out: dict[str, Any] = {
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "separator": int(tokenizer.separator),
        "sources": {},
    }
    for k, (name, tokens) in enumerate(found.items()):
        about = _described(tokens)
        about["share_of_tokens"] = about["splits"]["train"]["tokens"] / total
        if mixed:
            about["share_of_windows"] = float(mixed.counts[k] / mixture.PERIOD)
        if deep:
            about["duplicates"] = _duplicates(tokens)
            ids = tokens.rows["train"].gather(
                np.zeros(1, np.int64), min(SAMPLE, tokens.rows["train"].size), np.int64
            )[0]
            about["sample"] = tokenizer.decode(ids).decode("utf-8", "replace")
        out["sources"][name] = about
    out["splits"] = {s: _sum([t.meta["splits"][s] for t in found.values()]) for s in SPLITS}
    out["cache"] = cache.root(root)
    return out


def _described(tokens: Tokens) -> dict[str, Any]:
    meta = tokens.meta
    return {
        "corpus": meta["corpus"],
        "fingerprint": meta["corpus_fingerprint"],
        "folder": tokens.folder,
        "in_place": meta["dtype"] == "in place",
        "disk_bytes": sum(
            os.path.getsize(os.path.join(tokens.folder, n)) for n in os.listdir(tokens.folder)
        ),
        "unigram_entropy": meta["unigram_entropy"],
        "splits": {s: _sum([meta["splits"][s]]) for s in SPLITS},
    }


def _sum(splits: list[dict]) -> dict[str, Any]:
    """Counts of a split over sources; None where a source does not know it."""

    def over(key, how=sum):
        values = [s[key] for s in splits]
        return None if None in values else how(values)

    found = {k: over(k) for k in ("documents", "tokens", "bytes", "unknown")}
    found["bytes_per_token"] = found["bytes"] / found["tokens"] if found["bytes"] else None
    found["longest_document"] = over("longest", max)
    found["shards"] = sum(len(s["shards"]) for s in splits)
    return found


def _duplicates(tokens: Tokens) -> dict[str, int] | None:
    """Documents whose whole text stands earlier too, by 64-bit hashes; a part at a time, so that
    memory is constant. None where documents are not hashed.
    """
    path = os.path.join(tokens.folder, "marks")
    if not os.path.exists(path) or not os.path.getsize(path):
        return None
    marks = np.memmap(path, np.uint64, "r")
    parts, again = 1 + marks.size // PART, 0
    for part in range(parts):
        own = []
        for at in range(0, marks.size, PART):
            block = np.asarray(marks[at : at + PART])
            own.append(block[block % np.uint64(parts) == part])
        here = np.concatenate(own)
        again += here.size - np.unique(here).size
    return {"documents": int(marks.size), "repeated": int(again)}
