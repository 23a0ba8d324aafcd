"""A tokenizer that is trained when it is first wanted: ``sentencepiece(vocab_size=1024)`` or
``bpe(vocab_size=1024)``, on the training text of the corpus itself. Kept in the cache.
"""

import contextlib
import dataclasses
import hashlib
import os

from data import cache, name_and_fields
from data.config import Data, DataError
from data.sources import registry
from data.tokenizers.training import KINDS, sample, write

SAMPLE = 20_000_000  # bytes that it learns from: the first documents of the training text


def find(d: Data, root: str = "") -> Data:
    """`d` with the file of its tokenizer in the place of how to train it. Raises DataError."""
    kind, fields = name_and_fields.parse(d.tokenizer, "data.tokenizer")
    make, name, least = KINDS[kind]
    if extra := set(fields) - {"vocab_size"}:
        raise DataError(
            f"data.tokenizer={d.tokenizer}: {kind} has no field {sorted(extra)[0]!r}, it has"
            " vocab_size"
        )
    vocab_size = name_and_fields.number(fields, "vocab_size", d.tokenizer, "data.tokenizer")
    if vocab_size < least:
        raise DataError(
            f"data.tokenizer={d.tokenizer}: a {kind} tokenizer needs {least} ids, for every byte"
            " has one"
        )
    if d.tokenizer_path:
        raise DataError(
            f"data.tokenizer={d.tokenizer} is trained, data.tokenizer_path names one that is there:"
            " give one of them"
        )
    if d.mixture or d.source in registry.OTHERS:
        raise DataError(
            f"data.tokenizer={d.tokenizer} is trained on the text of one source: make it with"
            " isoflop tokenizer --train, and give its file as data.tokenizer_path"
        )
    corpus = registry.load(d, root)
    key = hashlib.sha256(f"{kind}|{vocab_size}|{SAMPLE}|{corpus.fingerprint}".encode())
    folder = os.path.join(cache.root(root), "tokenizers")
    path = os.path.join(folder, f"{kind}-{vocab_size}-{key.hexdigest()[:16]}")
    if not os.path.exists(path):
        try:
            os.makedirs(folder, exist_ok=True)
            with cache.lock(f"{path}.lock", "training the same tokenizer"):
                if not os.path.exists(path):
                    taken, _ = sample(corpus.documents("train"), SAMPLE)
                    write(path, make(taken, vocab_size))
                with contextlib.suppress(FileNotFoundError):  # who waited for another's lock
                    os.remove(f"{path}.lock")
        except OSError as e:
            raise cache.refused(folder, e) from None
    return dataclasses.replace(d, tokenizer=name, tokenizer_path=path)
