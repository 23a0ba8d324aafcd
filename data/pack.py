"""A corpus as flat token files, made once: `train.bin`, `validation.bin` and `meta.json` in one folder of the cache.

The folder appears by a rename, complete or not at all, so several processes may ask for it at the same time.
"""

import hashlib
import json
import os
import shutil
import tempfile
from typing import NamedTuple

import numpy as np

from data import sources, tokenizers
from data.config import Data, DataError

FORMAT = 2
SPLITS = ("train", "validation")


class TokenFiles(NamedTuple):
    """A prepared corpus. `tokens[split]` is a read-only memmap; `meta` says what it was made of."""

    folder: str
    tokens: dict
    meta: dict


def cache_root(cache: str = "") -> str:
    return os.path.expanduser(
        cache or os.environ.get("ISOFLOP_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "isoflop")
    )


def _write(folder: str, corpus, tokenizer) -> None:
    kind = np.uint16 if tokenizer.vocab_size <= 65536 else np.uint32
    counts, seen = {}, np.zeros(tokenizer.vocab_size, np.int64)
    for split in SPLITS:
        n = text_bytes = 0
        with open(os.path.join(folder, f"{split}.bin"), "wb") as f:
            for document in corpus.documents(split):
                ids = np.append(tokenizer.encode(document), tokenizer.separator).astype(kind)
                ids.tofile(f)
                if split == "train":
                    seen += np.bincount(ids, minlength=seen.size)
                n, text_bytes = n + ids.size, text_bytes + len(document)
        counts[split] = {"tokens": n, "bytes": text_bytes}
    if counts["train"]["bytes"] == 0 or counts["validation"]["bytes"] == 0:
        raise DataError(
            f"corpus {corpus.name} is empty (train {counts['train']['bytes']} bytes, validation {counts['validation']['bytes']}): check data.path"
        )
    p = seen[seen > 0] / seen.sum()
    meta = {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "dtype": np.dtype(kind).name,
        "splits": counts,
        "unigram_entropy": float(-(p * np.log(p)).sum()),  # nats per training token
    }
    with open(os.path.join(folder, "meta.json"), "w") as f:
        json.dump(meta, f, indent=1)


def open_folder(folder: str, tokenizer) -> TokenFiles:
    """A prepared folder, checked against the tokenizer. Raises DataError."""
    try:
        with open(os.path.join(folder, "meta.json")) as f:
            meta = json.load(f)
        tokens = {s: np.memmap(os.path.join(folder, f"{s}.bin"), meta["dtype"], "r") for s in SPLITS}
        sizes_agree = meta["format"] == FORMAT and all(tokens[s].size == meta["splits"][s]["tokens"] for s in SPLITS)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"{folder} is not a folder of token files ({type(e).__name__}: {e}): it holds meta.json, train.bin and validation.bin"
        ) from None
    if not sizes_agree:
        raise DataError(f"token files in {folder} do not agree with their meta.json: delete the folder, it is made again")
    if meta["tokenizer_fingerprint"] != tokenizer.fingerprint:
        raise DataError(
            f"token files in {folder} were made with tokenizer {meta['tokenizer_fingerprint']}, but data.tokenizer is {tokenizer.fingerprint}: "
            "set data.tokenizer and data.tokenizer_path to the one that made them, or prepare the text again"
        )
    return TokenFiles(folder, tokens, meta)


def prepare(d: Data, cache: str = "") -> TokenFiles:
    """The token files of `d`: from the cache, or made now. Raises DataError."""
    tokenizer = tokenizers.load(d)
    if d.source == "tokens":
        return open_folder(os.path.expanduser(d.path), tokenizer)
    corpus = sources.load(d)
    key = hashlib.sha256(f"{FORMAT}|{corpus.fingerprint}|{corpus.name}|{tokenizer.fingerprint}".encode()).hexdigest()[:16]
    folder = os.path.join(cache_root(cache), "tokens", f"{corpus.name.replace(':', '-').replace('/', '-')}-{key}")
    if not os.path.isdir(folder):
        try:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            fresh = tempfile.mkdtemp(dir=os.path.dirname(folder), prefix=".making-")
        except OSError as e:
            raise DataError(
                f"cannot write the token cache {os.path.dirname(folder)} ({e.strerror}): set ISOFLOP_CACHE to a writable folder"
            ) from None
        try:
            _write(fresh, corpus, tokenizer)
            try:
                os.rename(fresh, folder)
            except OSError:
                if not os.path.isdir(folder):  # otherwise another process was first with the same content
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return open_folder(folder, tokenizer)
