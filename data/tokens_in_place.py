"""Token files of other trainers as a corpus: counted once, then read where they lie."""

import os

import numpy as np

from data import cache, progress
from data.config import DataError
from data.shards import FORMAT, INDEX, Row, Shard, Tokens
from data.sources.corpus import Corpus

BLOCK = 2**22  # tokens that are counted at a time


def opened(corpus: Corpus, tokenizer, folder: str) -> Tokens:
    """The tokens of `corpus`; what was counted of them is kept in `folder`. Raises DataError."""
    if tokenizer.token_bytes is None:
        raise DataError(
            f"data.tokenizer={tokenizer.fingerprint.split(':')[0]} counts the bytes of tokens in"
            f" their text, which data.source={corpus.name} does not hold: name one whose ids decide"
            " them, or data.tokenizer='ids(vocab_size=N,separator=ID)'"
        )
    shards = corpus.source.shards(corpus.order)
    meta = cache.read_json(os.path.join(folder, INDEX))
    if not meta:
        meta = _counted(corpus, tokenizer, shards)
        try:
            os.makedirs(folder, exist_ok=True)
            cache.write_json(os.path.join(folder, INDEX), meta)
        except OSError as e:
            raise cache.refused(folder, e) from None
    rows = {s: Row(here) for s, here in shards.items()}
    meta = {**meta, "separator_first": corpus.source.separator_first}
    return Tokens(folder, rows, dict.fromkeys(rows), meta)


def _counted(corpus: Corpus, tokenizer, shards: dict[str, list[Shard]]) -> dict:
    """Reads all tokens once: how often each id stands there."""
    total = sum(s.tokens * np.dtype(s.dtype).itemsize for here in shards.values() for s in here)
    seen = {}
    with progress.bar(f"counting {corpus.name}", total) as advance:
        for split, here in shards.items():
            seen[split] = np.zeros(tokenizer.vocab_size, np.int64)
            for s in here:
                row = Row([s])
                for at in range(0, s.tokens, BLOCK):
                    n = min(BLOCK, s.tokens - at)
                    ids = row.gather(np.array([at]), n, s.dtype)[0]
                    seen[split] += _seen(ids, s.path, tokenizer)
                    advance(ids.nbytes)
    p = seen["train"][seen["train"] > 0] / max(1, seen["train"].sum())
    sep = tokenizer.separator
    return {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "separator": sep,
        "dtype": "in place",
        "splits": {
            s: {
                "shards": [[shard.path, shard.tokens] for shard in here],
                "tokens": sum(shard.tokens for shard in here),
                "bytes": int(seen[s] @ tokenizer.token_bytes),
                "documents": int(seen[s][sep]) if sep >= 0 else None,
                "unknown": 0 if tokenizer.unknown is None else int(seen[s][tokenizer.unknown]),
                "longest": None,
            }
            for s, here in shards.items()
        },
        "unigram_entropy": float(-(p * np.log(p)).sum()),
    }


def _seen(ids: np.ndarray, path: str, tokenizer) -> np.ndarray:
    """How often each id stands there. Raises DataError of one that the tokenizer does not have."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= tokenizer.vocab_size:
        raise DataError(
            f"{path} holds the id {low if low < 0 else high}, but"
            f" data.tokenizer={tokenizer.fingerprint.split(':')[0]} has {tokenizer.vocab_size} ids:"
            " name the tokenizer that made the file, or its ids:"
            f" data.tokenizer='ids(vocab_size={max(high + 1, 1)},separator=ID)'"
        )
    return np.bincount(ids, minlength=tokenizer.vocab_size)
