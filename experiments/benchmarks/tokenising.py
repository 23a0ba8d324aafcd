"""Ids and the bytes of each token, against the library's own batch call for the ids alone, on one
thread of this process.

The text is the standard library's source; the tokenizers are made of it. Beside the plain ones
stand two whose ids do not decide their bytes: a byte-level BPE after NFC, and a sentencepiece model
as a tokenizer.json.
"""

import base64
import json
import os
import tempfile
import time

import numpy as np

from data import tokenizers
from data.config import Data
from data.sources import registry
from data.tokenizers import training
from data.tokenizers.levels import alphabet
from experiments.benchmarks import contest
from experiments.benchmarks.reading import _entry, _timed

KINDS = ("sentencepiece", "hf", "hf_composed", "hf_pieces", "tiktoken")
CONTENDERS = (*KINDS, *(f"{kind}_library" for kind in KINDS))
SHAPES = {
    "full": dict(vocab_size=8192, learn=2_000_000, read=4_000_000),
    "toy": dict(vocab_size=400, learn=60_000, read=30_000),
}


def _write(place: str, name: str, content: bytes) -> str:
    os.makedirs(os.path.dirname(os.path.join(place, name)), exist_ok=True)
    training.write(os.path.join(place, name), content)
    return os.path.join(place, name)


def _made(place: str, learn: list[bytes], vocab_size: int) -> dict:
    """A tokenizer of every kind."""
    from launch.huggingface import tokenizer

    pieces = _write(place, "unigram.model", training.sentencepiece(learn, vocab_size))
    level = training.bpe(learn, vocab_size)
    spec = json.loads(level)
    known, vocab = alphabet(), sorted(spec["model"]["vocab"].items(), key=lambda kv: kv[1])
    ranks = [bytes(known[c] for c in piece) for piece, i in vocab if i]
    lines = b"".join(base64.b64encode(p) + b" %d\n" % i for i, p in enumerate(ranks))
    composed = json.dumps({**spec, "normalizer": {"type": "NFC"}}).encode()
    found = {"sentencepiece": Data(tokenizer="sentencepiece", tokenizer_path=pieces)}
    made = tokenizers.load(found["sentencepiece"])
    os.makedirs(os.path.join(place, "pieces"))
    tokenizer.save(os.path.join(place, "pieces"), found["sentencepiece"], made.separator)
    paths = {
        "hf": _write(place, "level/tokenizer.json", level),
        "hf_composed": _write(place, "composed/tokenizer.json", composed),
        "hf_pieces": os.path.join(place, "pieces", "tokenizer.json"),
    }
    found |= {k: Data(tokenizer="hf", tokenizer_path=path) for k, path in paths.items()}
    path = _write(place, "mine.gpt2.tiktoken", lines)
    found["tiktoken"] = Data(tokenizer="tiktoken", tokenizer_path=path)
    return {k: tokenizers.load(d) for k, d in found.items()}


def _library(kind: str, made, texts: list[bytes]):
    """The library's own batch call, on what it takes."""
    if kind == "sentencepiece":
        return lambda: made._model.encode(texts, num_threads=1)
    words = [text.decode() for text in texts]
    if kind == "tiktoken":
        return lambda: made._library.encode_ordinary_batch(words, num_threads=1)
    return lambda: made._library.encode_batch_fast(words, add_special_tokens=False)


def measure(part: str, scale: str, rounds: int, names: list[str], settings: list[str]) -> dict:
    """Medians over `rounds`; `ratios` are tokens per CPU-second of ours over the library's."""
    s, names = SHAPES[scale], names or list(CONTENDERS)
    corpus = registry.load(Data())
    learn, _ = training.sample(corpus.documents("train"), s["learn"])
    texts, size = training.sample(corpus.documents("train"), s["read"])
    texts = [text.decode("utf-8", "replace").encode() for text in texts]
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        made = _made(place, learn, s["vocab_size"])
        first, calls, counts = time.perf_counter() - started, {}, {}
        for kind in {name.removesuffix("_library") for name in names}:
            t = made[kind]
            counts[kind] = sum(len(ids) for ids, _ in t.counted_batch(texts))
            calls[kind] = lambda t=t: t.counted_batch(texts)
            calls[f"{kind}_library"] = _library(kind, t, texts)
        rows: dict = {n: [] for n in names}
        for k in range(rounds):
            for n in names if k % 2 == 0 else names[::-1]:
                rows[n].append(_timed(counts[n.removesuffix("_library")], calls[n]))
    found, notes = {n: _entry(r, first) for n, r in rows.items()}, []
    for kind in KINDS:
        if {kind, f"{kind}_library"} <= set(names):
            pairs = zip(rows[kind], rows[f"{kind}_library"])
            ratio = np.median([b["cpu_s"] / max(a["cpu_s"], 1e-9) for a, b in pairs])
            notes.append(f"  {kind}: {ratio:.2f} of the library's tokens per CPU-second")
    return {
        "part": part,
        "what": f"tokenizers of {s['vocab_size']:,} ids: {size:,} bytes of text, one thread",
        "machine": contest.machine(),
        "rounds": rounds,
        "contenders": found,
        "notes": notes,
    }
