"""A corpus as flat token files, made once: `train.bin`, `validation.bin` and `meta.json` in one
folder of the cache, and where a token's id does not decide its bytes, `train.bytes` and
`validation.bytes`: the bytes of text that each token stands for, uint32.

The folder appears by a rename, complete or not at all, so several processes may ask for it at the
same time.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

from data import sources, tokenizers
from data.config import Data, DataError

FORMAT = 3
BATCH = 2**20  # bytes of text that a process tokenises at a time
ENOUGH = 16  # batches that are worth starting processes for
SPLITS = ("train", "validation")


class TokenFiles(NamedTuple):
    """A prepared corpus. `tokens[split]` and `token_bytes[split]` (None where ids decide) are
    read-only memmaps; `meta` says what it was made of: `splits` counts the tokens of each, and the
    bytes that they stand for.
    """

    folder: str
    tokens: dict
    token_bytes: dict
    meta: dict


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_root(cache: str = "") -> str:
    """The folder of caches; a user without a home, as in some containers, has it beside other
    temporary files.
    """
    given = cache or os.environ.get("ISOFLOP_CACHE")
    path = given or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "isoflop")
    found = os.path.expanduser(path)
    if not given and found.startswith("~"):
        return os.path.join(tempfile.gettempdir(), f"isoflop-{os.getuid()}")
    return found


_tokenizer: Any = None  # of a process that tokenises


def _open(d: Data) -> None:
    """In a process that tokenises: the tokenizer, once."""
    global _tokenizer
    _tokenizer = tokenizers.load(d)


def _count(documents: list[bytes]) -> list[tuple]:
    return [_tokenizer.counted(document) for document in documents]


def _batches(documents):
    """Lists of documents of about a megabyte."""
    batch, size = [], 0
    for document in documents:
        batch, size = [*batch, document], size + len(document)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _counted(documents, d: Data, tokenizer, workers: int):
    """(bytes, ids, bytes of each) of every document, in order. A slow tokenizer runs in `workers`
    processes, where there is enough to do to pay for their start.
    """
    batches = _batches(documents)
    ahead = list(itertools.islice(batches, ENOUGH)) if tokenizer.slow and workers > 1 else []
    batches = itertools.chain(ahead, batches)
    if len(ahead) < ENOUGH:
        for batch in batches:
            yield from ((len(document), *tokenizer.counted(document)) for document in batch)
        return
    # fresh processes, not forks: the caller may hold threads and an accelerator
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _open, (d,)) as pool:
        started = collections.deque()
        for batch in itertools.chain(batches, [None] * 2 * workers):
            if batch:
                started.append((batch, pool.submit(_count, batch)))
            if started and (not batch or len(started) > 2 * workers):
                done, future = started.popleft()
                yield from (
                    (len(document), *counted) for document, counted in zip(done, future.result())
                )


@contextlib.contextmanager
def _bar(name: str):
    """A function of bytes done, shown on a terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    with progress.Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(f"tokenising {name}", total=None)
        yield lambda n: bar.advance(task, n)


def _write(folder: str, corpus, d: Data, tokenizer, workers: int) -> None:
    kind = np.uint16 if tokenizer.vocab_size <= 65536 else np.uint32
    counts, seen = {}, np.zeros(tokenizer.vocab_size, np.int64)
    for split in SPLITS:
        n = text_bytes = 0
        with contextlib.ExitStack() as held:
            f = held.enter_context(open(os.path.join(folder, f"{split}.bin"), "wb"))
            g = (
                held.enter_context(open(os.path.join(folder, f"{split}.bytes"), "wb"))
                if tokenizer.token_bytes is None
                else None
            )
            advance = held.enter_context(_bar(f"{corpus.name} ({split})"))
            for length, ids, sizes in _counted(corpus.documents(split), d, tokenizer, workers):
                advance(length)
                ids = np.append(ids, tokenizer.separator).astype(kind)
                ids.tofile(f)
                if g:
                    sizes = np.append(sizes, length - sizes.sum(dtype=np.int64)).astype(np.uint32)
                    sizes.tofile(g)
                if split == "train":
                    seen += np.bincount(ids, minlength=seen.size)
                n, text_bytes = n + ids.size, text_bytes + int(sizes.sum(dtype=np.int64))
        counts[split] = {"tokens": n, "bytes": text_bytes}
    if counts["train"]["bytes"] == 0 or counts["validation"]["bytes"] == 0:
        raise DataError(
            f"corpus {corpus.name} is empty (train {counts['train']['bytes']} bytes, validation"
            f" {counts['validation']['bytes']}): check data.path"
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
    with open(os.path.join(folder, "meta.json"), "w") as about:
        json.dump(meta, about, indent=1)


def open_folder(folder: str, tokenizer) -> TokenFiles:
    """A prepared folder, checked against the tokenizer. Raises DataError."""
    damaged = (
        f"{folder} is not a folder of token files ({{}}): it holds meta.json, train.bin and"
        " validation.bin"
    )
    try:
        with open(os.path.join(folder, "meta.json")) as f:
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

    def read(split, end, kind):
        return np.memmap(os.path.join(folder, f"{split}.{end}"), kind, "r")

    try:
        tokens = {s: read(s, "bin", meta["dtype"]) for s in SPLITS}
        counted = {
            s: None if tokenizer.token_bytes is not None else read(s, "bytes", np.uint32)
            for s in SPLITS
        }
        sizes = {s: meta["splits"][s]["tokens"] for s in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(damaged.format(f"{type(e).__name__}: {e}")) from None
    if any(
        a is not None and a.size != sizes[s]
        for files in (tokens, counted)
        for s, a in files.items()
    ):
        raise DataError(
            f"token files in {folder} do not agree with their meta.json: delete the folder, it is"
            " made again"
        )
    return TokenFiles(folder, tokens, counted, meta)


MAKING = ".making-"
ABANDONED = 86400.0  # seconds without a new byte after which a maker on another host is gone


def _name() -> str:
    """Of a folder that this process makes."""
    return f"{MAKING}{platform.node()}-{os.getpid()}-{os.urandom(4).hex()}"


def _sweep(root: str) -> None:
    """Removes the folders whose makers were killed: processes of this host that are no more, and
    whatever nobody has touched for a day.
    """
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name.startswith(MAKING):
            host, _, pid = name[len(MAKING) :].rpartition("-")[0].rpartition("-")
            gone = host == platform.node() and pid.isdigit() and not _lives(int(pid))
            with contextlib.suppress(OSError):  # another sweeps too, or it belongs to a colleague
                files = [path, *(os.path.join(path, n) for n in os.listdir(path))]
                age = time.time() - max(os.stat(f).st_mtime for f in files)
                if gone or age > ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another's
        pass
    return True


def prepare(d: Data, cache: str = "", workers: int = 0) -> TokenFiles:
    """The token files of `d`: from the cache, or made now by `workers` processes (0: one for every
    core that this process may use). Raises DataError.
    """
    tokenizer = tokenizers.load(d)
    if d.source == "tokens":
        return open_folder(os.path.expanduser(d.path), tokenizer)
    corpus = sources.load(d)
    key = hashlib.sha256(
        f"{FORMAT}|{corpus.fingerprint}|{corpus.name}|{tokenizer.fingerprint}".encode()
    ).hexdigest()[:16]
    folder = os.path.join(
        cache_root(cache), "tokens", f"{corpus.name.replace(':', '-').replace('/', '-')}-{key}"
    )
    if not os.path.isdir(folder):
        try:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            _sweep(os.path.dirname(folder))
            fresh = os.path.join(os.path.dirname(folder), _name())
            os.mkdir(fresh)  # unlike mkdtemp by the umask: a cache may be shared
        except OSError as e:
            raise DataError(
                f"cannot write the token cache {os.path.dirname(folder)} ({e.strerror}): set"
                " ISOFLOP_CACHE to a writable folder"
            ) from None
        try:
            _write(fresh, corpus, d, tokenizer, workers or _cores())
            try:
                os.rename(fresh, folder)
            except OSError:
                if not os.path.isdir(
                    folder
                ):  # otherwise another process was first with the same content
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return open_folder(folder, tokenizer)
