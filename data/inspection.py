"""What stands in a corpus: counts of documents, bytes and tokens, duplicates, a sample."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from data import cache, mixture, pipeline, prepare, tokenizers
from data.config import Data, DataError
from data.shards import SPLITS, Row, Tokens

SAMPLE = 64  # tokens of a decoded sample
PART = 2**23  # hashes that are sorted at a time
BLOCK = 2**22  # tokens that are read at a time


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
    found = {name: prepare.prepare(part, root, workers, tokenizer) for name, part in parts.items()}
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
            ends = np.flatnonzero(ids == tokenizer.separator)
            one = ids[: ends[0]] if ends.size and ends[0] else ids  # a beginning of one document
            about["sample"] = tokenizer.decode(one).decode("utf-8", "replace")
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
    """Documents whose tokens stand earlier too, by 64-bit hashes; a part at a time, so that memory
    is constant. None where nothing separates documents.
    """
    separator = tokens.meta["separator"]
    if separator < 0:
        return None
    with tempfile.TemporaryFile() as kept:
        for row in tokens.rows.values():
            for hashes in _hash_documents(row, separator):
                kept.write(hashes)
        kept.seek(0)
        size = os.fstat(kept.fileno()).st_size // 8
        parts, again = 1 + size // PART, 0
        for part in range(parts):
            kept.seek(0)
            own = []
            while raw := kept.read(8 * PART):
                block = np.frombuffer(raw, np.uint64)
                own.append(block[block % np.uint64(parts) == part])
            here = np.concatenate(own) if own else np.empty(0, np.uint64)
            again += here.size - np.unique(here).size
    return {"documents": int(size), "repeated": int(again)}


def _hash_documents(row: Row, separator: int) -> Iterator[bytes]:
    """64 bits for the tokens of every document that is not empty, a block of tokens at a time."""
    h, some = hashlib.sha1(usedforsecurity=False), False
    for at in range(0, row.size, BLOCK):
        ids = row.gather(np.array([at]), min(BLOCK, row.size - at), np.uint32)[0]
        start, out = 0, []
        for end in [*np.flatnonzero(ids == separator).tolist(), ids.size]:
            h.update(ids[start:end].tobytes())
            some = some or end > start
            if end < ids.size and some:
                out.append(h.digest()[:8])
            if end < ids.size:
                h, some, start = hashlib.sha1(usedforsecurity=False), False, end + 1
        yield b"".join(out)
    if some:
        yield h.digest()[:8]
