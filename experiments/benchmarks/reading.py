"""The data pipeline, on one thread of this process: batches from the token files, a seek to any
step, and tokenising on one core and on all.

The corpus is the standard library's source, repeated in the full scale until tokenising takes
seconds, in a cache folder of its own.
"""

import dataclasses
import glob
import os
import resource
import tempfile
import time

import numpy as np

from data import pipeline, prepare
from data.config import Data
from experiments.benchmarks import contest

CONTENDERS = ("memmap", "counted", "tokenise_one_core", "tokenise_all_cores")
SHAPES = {
    "full": dict(batch=32, context=512, batches=400, copies=48, pieces=4096),
    "toy": dict(batch=4, context=32, batches=5, copies=1, pieces=400),
}


def _corpus(place: str, copies: int) -> Data:
    """Text files under `place`, one per module and copy."""
    from data.sources import registry

    texts = list(registry.load(Data()).documents("validation"))
    for i in range(copies):
        for k, text in enumerate(texts):
            with open(os.path.join(place, f"{i}-{k}.txt"), "wb") as f:
                f.write(text)
    return Data(source="text", path=os.path.join(place, "*.txt"))


def _sentencepiece(d: Data, vocab_size: int, place: str) -> Data:
    """`d` with a BPE model of its own text: tokenising that costs something."""
    import sentencepiece

    where = {
        "model_prefix": os.path.join(place, "bpe"),
        "minloglevel": 2,
        "input_sentence_size": 20_000,
    }
    files = ",".join(sorted(glob.glob(os.path.join(place, "0-*.txt"))))
    sentencepiece.SentencePieceTrainer.train(
        input=files,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        **where,
    )
    return dataclasses.replace(
        d, tokenizer="sentencepiece", tokenizer_path=os.path.join(place, "bpe.model")
    )


def _timed(tokens: int, f) -> dict:
    wall, cpu = time.perf_counter(), time.process_time() + _children()
    f()
    return {
        "tokens": tokens,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() + _children() - cpu,
    }


def _children() -> float:
    """CPU-seconds of the processes that have ended."""
    t = os.times()
    return t.children_user + t.children_system


def _entry(rows: list[dict], first: float) -> dict:
    """Medians of stretches that were timed here."""

    def middle(k):
        return float(np.median([r["tokens"] / max(r[k], 1e-9) for r in rows]))

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens_per_s": middle("wall_s"),
        "tokens_per_cpu_s": middle("cpu_s"),
        "first_step_s": first,
        "peak_bytes": peak,
        "rounds": rows,
    }


def measure(part: str, scale: str, rounds: int, names: list[str], settings: list[str]) -> dict:
    """Medians over `rounds`; `seek_ms` is the median of a first batch at random steps, from a
    dataset that is open.
    """
    s, rng = SHAPES[scale], np.random.default_rng(0)
    names, per_batch = names or list(CONTENDERS), s["batch"] * s["context"]
    with tempfile.TemporaryDirectory() as place:
        d, cache = _corpus(place, s["copies"]), os.path.join(place, "cache")
        started = time.perf_counter()
        data = pipeline.load(d, s["context"], cache)
        data.batch(0, s["batch"])
        first, held = time.perf_counter() - started, data.dataset_tokens

        def read(one):
            return [one(i, s["batch"]) for i in range(s["batches"])]

        pieces = _sentencepiece(d, s["pieces"], place)
        tokens = prepare.prepare(pieces, cache).meta["splits"]
        size = sum(split["tokens"] for split in tokens.values())

        def fresh(k, workers):
            return prepare.prepare(pieces, os.path.join(place, f"{k}-{workers}"), workers)

        timers = {
            "memmap": lambda k: _timed(s["batches"] * per_batch, lambda: read(data.batch)),
            "counted": lambda k: _timed(s["batches"] * per_batch, lambda: read(data.counted_batch)),
            "tokenise_one_core": lambda k: _timed(size, lambda: fresh(k, 1)),
            "tokenise_all_cores": lambda k: _timed(size, lambda: fresh(k, 0)),
        }
        rows = {n: [] for n in names}
        for k in range(rounds):
            for n in names if k % 2 == 0 else names[::-1]:
                rows[n].append(timers[n](k))
        seeks = []
        for step in rng.integers(0, 10**9, 50):
            started = time.perf_counter()
            data.counted_batch(int(step), s["batch"])
            seeks.append(1e3 * (time.perf_counter() - started))
    found = {n: _entry(r, first) for n, r in rows.items()}
    return {
        "part": part,
        "what": (
            f"data: batches of {s['batch']} x {s['context']} byte tokens out of {held:,}, one"
            f" thread; {size:,} tokens of a BPE model"
        ),
        "machine": contest.machine(),
        "rounds": rounds,
        "contenders": found,
        "seek_ms": float(np.median(seeks)),
        "notes": [
            f"  seek to a random step: {np.median(seeks):.2f} ms (median of {len(seeks)}, worst"
            f" {max(seeks):.2f})"
        ],
    }
