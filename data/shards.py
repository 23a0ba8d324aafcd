"""Tokens in files: shards that are read as one long row of ids, however many there are.

A prepared folder holds `index.json`, which says how many tokens each shard has, and the shards:
`train-00000.bin`, and where a token's id does not decide its bytes, `train-00000.bytes`, the bytes
of text that each token stands for, uint32. Shards of other trainers are read where they lie.
"""

import collections
import json
import os
import threading
from typing import Any, NamedTuple

import numpy as np

from data.config import DataError

FORMAT = 4
INDEX = "index.json"
SPLITS = ("train", "validation")
OPEN = 8  # files of a row that are held open at a time


class Shard(NamedTuple):
    """`tokens` numbers in a file, from the byte `offset` on."""

    path: str
    tokens: int
    dtype: str
    offset: int = 0


class Row:
    """Shards as one row of numbers. A read takes what it needs out of the files: nothing is mapped,
    which costs milliseconds a file on some systems (LOG.md, 2026-11-28).
    """

    def __init__(self, shards: list[Shard]):
        self._shards = [s for s in shards if s.tokens]
        self._dtypes = [np.dtype(s.dtype) for s in self._shards]
        self._ends = np.cumsum([s.tokens for s in self._shards], dtype=np.int64)
        self.size = int(self._ends[-1]) if self._shards else 0
        self._open: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._lock = threading.Lock()

    def _handle(self, i: int) -> int:
        """Of shard `i`; the one that was not used for longest is closed for it."""
        if i not in self._open:
            if len(self._open) >= OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[i] = os.open(self._shards[i].path, os.O_RDONLY)
        self._open.move_to_end(i)
        return self._open[i]

    def _read(self, i: int, at: int, n: int) -> np.ndarray:
        """`n` numbers of shard `i`, from the one at `at` on."""
        s, dtype = self._shards[i], self._dtypes[i]
        width = dtype.itemsize
        try:
            raw = os.pread(self._handle(i), n * width, s.offset + at * width)
        except OSError as e:
            raise DataError(f"cannot read the tokens in {s.path}: {e.strerror}") from None
        if len(raw) < n * width:
            raise DataError(f"{s.path} is shorter than it was when it was opened")
        return np.frombuffer(raw, dtype)

    def gather(self, starts: np.ndarray, length: int, dtype) -> np.ndarray:
        """`length` numbers from each of `starts` on, (len(starts), length)."""
        starts = np.asarray(starts, np.int64)
        out = np.empty((len(starts), length), dtype)
        first = np.searchsorted(self._ends, starts, side="right")
        rows = np.argsort(first, kind="stable")  # a shard's windows together
        places = zip(rows.tolist(), first[rows].tolist(), starts[rows].tolist())
        with self._lock:  # several threads may read ahead
            for row, shard, at in places:
                done = 0
                while done < length:
                    end = int(self._ends[shard])
                    n = min(length - done, end - at)
                    place = at - end + self._shards[shard].tokens
                    out[row, done : done + n] = self._read(shard, place, n)
                    shard, at, done = shard + 1, at + n, done + n
        return out

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All of it, in memory."""
        with self._lock:
            parts = [self._read(i, 0, s.tokens) for i, s in enumerate(self._shards)]
        return np.concatenate(parts) if parts else np.empty(0, dtype or np.uint8)

    def __del__(self):
        for handle in self._open.values():
            os.close(handle)


class Tokens(NamedTuple):
    """A prepared corpus. `rows[split]` and `sizes[split]` (None where ids decide) are rows of
    tokens and of the bytes that they stand for; `meta` is the index: what it was made of, and of
    each split the counts.
    """

    folder: str
    rows: dict[str, Row]
    sizes: dict[str, Row | None]
    meta: dict[str, Any]


def open_folder(folder: str, tokenizer, mend: str = f"it holds {INDEX} and its shards") -> Tokens:
    """A prepared folder, checked against the tokenizer. mend: what to say of one that is damaged.
    Raises DataError.
    """
    damaged = f"{folder} is not a folder of token files ({{}}): {mend}"
    try:
        index, before = (os.path.join(folder, name) for name in (INDEX, "meta.json"))
        old = os.path.exists(before) and not os.path.exists(index)  # of formats before 4
        with open(before if old else index) as f:
            meta = json.load(f)
        version, made_with = meta["format"], meta["tokenizer_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(damaged.format(f"{type(e).__name__}: {e}")) from None
    if version != FORMAT:
        raise DataError(
            f"token files in {folder} have format {version}, this version reads {FORMAT}: prepare"
            " the text again"
        )
    if made_with != tokenizer.fingerprint:
        raise DataError(
            f"token files in {folder} were made with tokenizer {made_with}, but data.tokenizer is"
            f" {tokenizer.fingerprint}: set data.tokenizer and data.tokenizer_path to the one that"
            " made them, or prepare the text again"
        )
    try:
        return _opened(folder, meta, tokenizer.token_bytes is None)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(damaged.format(f"{type(e).__name__}: {e}")) from None


def _opened(folder: str, meta: dict, by_place: bool) -> Tokens:
    def row(split: str, end: str, dtype: str) -> Row:
        found = []
        for name, tokens in meta["splits"][split]["shards"]:
            path = os.path.join(folder, f"{name}.{end}")
            if os.path.getsize(path) != tokens * np.dtype(dtype).itemsize:
                raise ValueError(f"{name}.{end} has another length than {INDEX} says")
            found.append(Shard(path, tokens, dtype))
        return Row(found)

    missing = {"corpus", "corpus_fingerprint", "unigram_entropy"} - set(meta)
    if missing:
        raise ValueError(f"{INDEX} has no {min(missing)}")
    return Tokens(
        folder,
        {s: row(s, "bin", meta["dtype"]) for s in SPLITS},
        {s: row(s, "bytes", "uint32") if by_place else None for s in SPLITS},
        meta,
    )
