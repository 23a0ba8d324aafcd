"""A corpus becomes token files, once: by all cores, in constant memory. Whoever is killed goes on
where he was, and the result is the same to the byte.

The folder has a hidden name until it is complete, and a lock while somebody works on it, so several
processes may ask for it at the same time.
"""

import concurrent.futures.process
import contextlib
import hashlib
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from data import cache, progress, shards, tokenizers, tokens_in_place, writing
from data.config import Data, DataError
from data.shards import FORMAT, INDEX, SPLITS, Tokens
from data.sources import registry
from data.sources.token_files import TokenFiles
from data.writing import Task

SMALLEST, LARGEST = 2**22, 2**30  # bytes of a corpus that a task takes, whatever its cores
TASKS = 64  # that a corpus is cut into, between the two
ENOUGH = 2**24  # bytes for which other processes are worth their start


def prepare(d: Data, root: str = "", workers: int = 0, tokenizer: Any = None) -> Tokens:
    """The token files of `d`: from the cache in `root`, or made now by `workers` processes (0: one
    for every core that this process may use). tokenizer: that of `d`, where it is open already.
    Raises DataError.
    """
    tokenizer = tokenizer or tokenizers.load(d, root)
    if d.source == "tokens":
        if not d.path:
            raise DataError("data.source=tokens needs data.path: a folder of the token cache")
        return shards.open_folder(os.path.expanduser(d.path), tokenizer)
    corpus = registry.load(d, root)
    folder = os.path.join(cache.root(root), "tokens", _name(corpus, tokenizer))
    if isinstance(corpus.source, TokenFiles):
        return tokens_in_place.opened(corpus, tokenizer, folder)
    if not os.path.isdir(folder):
        with _refused(os.path.dirname(folder)):
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            cache.sweep(os.path.dirname(folder))
            waiting = os.path.join(os.path.dirname(folder), f".lock-{os.path.basename(folder)}")
            with cache.lock(waiting, "preparing the same text"):
                if not os.path.isdir(folder):
                    _make(folder, corpus, d, tokenizer, root, workers or cache.cores())
                with contextlib.suppress(OSError):
                    os.remove(waiting)
    return shards.open_folder(folder, tokenizer, "remove it, and start again")


def _name(corpus, tokenizer) -> str:
    text = f"{FORMAT}|{corpus.fingerprint}|{corpus.name}|{tokenizer.fingerprint}"
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{corpus.name.replace(':', '-').replace('/', '-')}-{key}"


@contextlib.contextmanager
def _refused(folder: str) -> Iterator[None]:
    """An error of the filesystem, or of processes, as one that says what to do."""
    try:
        yield
    except concurrent.futures.process.BrokenProcessPool:
        raise DataError(
            "a process that tokenised was killed, as where memory runs out: what is done is kept;"
            " go on with fewer: isoflop data --prepare --workers=1"
        ) from None
    except OSError as e:
        raise cache.refused(folder, e) from None


def tasks(corpus) -> list[Task]:
    """The work of preparing, the same on every machine: runs of units, in order."""
    units = corpus.units()
    size = min(LARGEST, max(SMALLEST, sum(u.weight for u in units) // TASKS))
    out: list[Task] = [Task(0, [])]
    for unit in units:
        if out[-1].weight >= size:
            out.append(Task(len(out), []))
        out[-1].units.append(unit)
    return out


def _make(folder: str, corpus, d: Data, tokenizer, root: str, workers: int) -> None:
    work = os.path.join(os.path.dirname(folder), f"{cache.MAKING}{os.path.basename(folder)}")
    os.makedirs(work, exist_ok=True)
    todo = tasks(corpus)
    found = {t.number: writing.done(work, t) for t in todo}
    left = [t for t in todo if not found[t.number]]
    total = sum(t.weight for t in todo)
    with progress.bar(f"tokenising {corpus.name}", total) as advance:
        advance(total - sum(t.weight for t in left))
        try:
            for number, about in _run(work, left, corpus, d, tokenizer, root, workers, advance):
                found[number] = about
            corpus.unchanged()
        except DataError:
            shutil.rmtree(work, ignore_errors=True)  # of a text that is not to be used
            raise
    _finish(work, corpus, tokenizer, [found[t.number] for t in todo])
    os.rename(work, folder)


def _run(work, left, corpus, d, tokenizer, root, workers, advance) -> Iterator[tuple[int, dict]]:
    """(number, counts) of every task as it ends; in other processes where there is enough to do."""
    heavy = sum(t.weight for t in left) >= ENOUGH
    workers = min(workers, len(left))
    if workers < 2 or not heavy:
        for t in left:
            yield t.number, writing.run(work, t, corpus, tokenizer, advance)
        return
    # fresh processes, not forks: the caller may hold threads and an accelerator
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, _open, (work, corpus, d, root)
    ) as pool:
        waiting = {pool.submit(_one, t): t for t in left}
        try:
            for future in concurrent.futures.as_completed(waiting):
                advance(waiting[future].weight)
                yield waiting[future].number, future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_held: Any = None  # of a process that tokenises: (folder, corpus, tokenizer)


def _open(work: str, corpus, d: Data, root: str) -> None:
    global _held
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    _held = work, corpus, tokenizers.load(d, root)


def _end_with_the_first() -> None:
    """A process that tokenises does not outlive a first one that is killed: it would wait for work
    for ever, and write what the next one writes.
    """
    multiprocessing.parent_process().join()
    os._exit(1)


def _one(task: Task) -> dict:
    work, corpus, tokenizer = _held
    return writing.run(work, task, corpus, tokenizer, lambda n: None)


def _finish(work: str, corpus, tokenizer, found: list[dict]) -> None:
    """Writes the index of the tasks' shards, and removes what only the making needed."""
    splits = {s: _summed([about[s] for about in found]) for s in SPLITS}
    if not splits["train"]["bytes"] or not splits["validation"]["bytes"]:
        shutil.rmtree(work, ignore_errors=True)
        raise DataError(
            f"corpus {corpus.name} is empty (train {splits['train']['bytes']} bytes, validation"
            f" {splits['validation']['bytes']}): check data.path, or give data.validation_path"
        )
    seen = np.zeros(tokenizer.vocab_size, np.int64)
    for number in range(len(found)):
        seen += np.load(os.path.join(work, f"{number:05d}-seen.npy"), allow_pickle=False)
    p = seen[seen > 0] / seen.sum()
    meta = {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "separator": int(tokenizer.separator),
        "dtype": writing.dtype(tokenizer.vocab_size),
        "splits": splits,
        "unigram_entropy": float(-(p * np.log(p)).sum()),  # nats per training token
    }
    cache.write_json(os.path.join(work, INDEX), meta)
    kept = {name for s in splits.values() for name, _ in s["shards"]}
    for name in os.listdir(work):
        if name != INDEX and name.split(".")[0] not in kept:
            os.remove(os.path.join(work, name))


def _summed(parts: list[dict]) -> dict:
    """The counts of a split over its tasks. A document may go on from one task to the next."""
    out: dict[str, Any] = {"shards": [], "longest": 0}
    carried = 0
    for p in parts:
        out["shards"] += p["shards"]
        for k in ("tokens", "bytes", "documents", "unknown"):
            out[k] = out.get(k, 0) + p[k]
        if p["documents"]:
            out["longest"] = max(out["longest"], p["longest"], carried + p["first"])
            carried = p["left"]
        else:
            carried += p["left"]
    return out
