"""One task of preparing: some units of a corpus become token files, whole or not at all.

A task leaves its files and, last of all, NUMBER.json, which says that they are complete. So a
process that is killed loses the tasks under way, and whoever goes on makes the same bytes.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from data import cache
from data.shards import SPLITS
from data.sources.corpus import Unit

MOST = 2**31  # bytes of a shard
BATCH = 2**20  # tokens that are written at a time


class Task(NamedTuple):
    number: int
    units: list[Unit]

    @property
    def weight(self) -> int:
        return sum(u.weight for u in self.units)


def dtype(vocab_size: int) -> str:
    """Of the ids in a file."""
    return "uint8" if vocab_size <= 2**8 else "uint16" if vocab_size <= 2**16 else "uint32"


def done(folder: str, task: Task) -> dict:
    """What a finished task left; {} if it is not finished."""
    return cache.read_json(os.path.join(folder, f"{task.number:05d}.json"))


def run(folder: str, task: Task, corpus: Any, tokenizer: Any, advance: Callable) -> dict:
    """Tokenises the units of a task into `folder`, and returns its counts. advance(bytes of the
    source) is called on the way. Raises DataError.
    """
    with contextlib.ExitStack() as stack:
        writers = {s: _Writer(folder, s, task.number, tokenizer, stack) for s in SPLITS}
        for unit in task.units:
            for splits, texts, ends in corpus.read(unit):
                counted = tokenizer.counted_batch(texts)
                for split, text, (ids, sizes) in zip(splits, texts, counted, strict=True):
                    writers[split].add(len(text), ends, ids, sizes)
            advance(unit.weight)
        for w in writers.values():
            w.close()
        about = {s: w.about for s, w in writers.items()}
    np.save(os.path.join(folder, f"{task.number:05d}-seen.npy"), writers["train"].seen)
    cache.write_json(os.path.join(folder, f"{task.number:05d}.json"), about)
    return about


def counted(ids: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` ids stands in `ids`. Bytes are counted two at a time: bincount takes
    a third of the time for half as many numbers.
    """
    if ids.dtype != np.uint8 or ids.size < 2**17:
        return np.bincount(ids, minlength=size)
    even = ids.size // 2 * 2
    pairs = np.bincount(ids[:even].view(np.uint16), minlength=2**16).reshape(2**8, 2**8)
    counts = (pairs.sum(0) + pairs.sum(1))[:size]
    counts[ids[even:]] += 1
    return counts


class _Writer:
    """The tokens of one split of a task, in as many shards as it takes."""

    def __init__(self, folder: str, split: str, number: int, tokenizer, stack):
        self._folder, self._name, self._stack = folder, f"{split}-{number:05d}", stack
        self._tokenizer, self._dtype = tokenizer, np.dtype(dtype(tokenizer.vocab_size))
        self._by_place = tokenizer.token_bytes is None
        self._most = MOST // (4 if self._by_place else self._dtype.itemsize)
        self.seen = np.zeros(tokenizer.vocab_size, np.int64)
        self._files: list = []
        self._ids: list = []
        self._sizes: list = []
        self._waiting = 0
        self._dropped = 0  # bytes of the document under way that no token stands for
        self.about: dict[str, Any] = {
            "shards": [],
            "tokens": 0,
            "bytes": 0,
            "documents": 0,
            "longest": 0,
            "first": 0,  # bytes of the first document that ends here ...
            "left": 0,  # ... and of the one that has not ended
            "unknown": 0,
        }

    def add(self, length: int, ends: bool, ids: np.ndarray, sizes: np.ndarray | None) -> None:
        """The tokens of `length` bytes of text. A separator ends every document. It stands for what
        no other token does; where a piece does not end its document, the piece's last token does.
        """
        about = self.about
        about["left"] += length
        if self._by_place:
            self._dropped += length - int(sizes.sum(dtype=np.int64))
            if not ends and ids.size:
                sizes = sizes.copy()
                sizes[-1] += self._dropped
                self._dropped = 0
        self._put(ids, sizes)
        if ends:
            last = np.array([self._tokenizer.separator])
            self._put(last, np.array([self._dropped]) if self._by_place else None)
            about["first"] = about["first"] if about["documents"] else about["left"]
            about["longest"] = max(about["longest"], about["left"])
            about["documents"] += 1
            about["left"] = self._dropped = 0
        if self._waiting >= BATCH:
            self._flush()

    def _put(self, ids, sizes) -> None:
        self._ids.append(ids)
        if self._by_place:
            self._sizes.append(sizes)
        self._waiting += ids.size

    def _flush(self) -> None:
        if not self._waiting:
            return
        t, about = self._tokenizer, self.about
        ids = np.concatenate(self._ids).astype(self._dtype, copy=False)
        counts = counted(ids, self.seen.size)
        self.seen += counts
        if self._by_place:
            sizes = np.concatenate(self._sizes).astype(np.uint32, copy=False)
            about["bytes"] += int(sizes.sum(dtype=np.int64))
        else:
            sizes = None
            about["bytes"] += int(counts @ t.token_bytes)
        if t.unknown is not None:
            about["unknown"] += int(counts[t.unknown])
        self._write(ids, sizes)
        self._ids, self._sizes, self._waiting = [], [], 0

    def _write(self, ids, sizes) -> None:
        at = 0
        while at < ids.size:
            shards = self.about["shards"]
            if not self._files or shards[-1][1] == self._most:
                self._end_shard()
                name = f"{self._name}-{len(shards):03d}"
                shards.append([name, 0])
                for end in ("bin", "bytes")[: 1 + self._by_place]:
                    path = os.path.join(self._folder, f"{name}.{end}")
                    self._files.append(self._stack.enter_context(open(path, "wb")))
            n = min(ids.size - at, self._most - shards[-1][1])
            ids[at : at + n].tofile(self._files[0])
            if self._by_place:
                sizes[at : at + n].tofile(self._files[1])
            shards[-1][1] += n
            self.about["tokens"] += n
            at += n

    def _end_shard(self) -> None:
        for f in self._files:
            f.close()
        self._files = []

    def close(self) -> None:
        self._flush()
        self._end_shard()
