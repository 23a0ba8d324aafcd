"""What each file of a corpus held when it was last read: its hash, remembered with its size and the
time of its last change, so that a later start reads nothing else.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import time

from data import cache, progress
from data.config import DataError
from data.sources import files
from data.sources.files import File

BLOCK = 2**20
SURE = 2.0  # seconds; a file may change twice in one tick of a coarse clock


def hashes(found: list[File], root: str = "") -> dict[str, str]:
    """SHA-256 of every file, in hex, by path: remembered, or read now. Raises DataError."""
    folder = os.path.join(cache.root(root), "manifests")
    name = hashlib.sha256(os.fsencode("\0".join(f.path for f in found))).hexdigest()[:16]
    path = os.path.join(folder, f"{name}.json")
    known = cache.read_json(path)
    out, fresh = {}, []
    for f in found:
        kept = known.get(f.path)
        if f.stamp and isinstance(kept, list) and kept[:-1] == [f.size, f.stamp]:
            out[f.path] = kept[-1]
        else:
            fresh.append(f)
    if fresh:
        out.update(_hashed(fresh))
        limit = time.time() - SURE
        written = {
            f.path: (f.size, f.stamp, out[f.path])
            for f in found
            if not f.stamp.isdigit() or int(f.stamp) < limit * 1e9
        }
        # without a place to remember it, the text is read again at the next start
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            cache.write_json(path, written)
    return out


def unchanged(found: list[File]) -> None:
    """Raises DataError if a file is not as it was found."""
    for f in found:
        if not files.remote(f.path) and files.stat(f.path) != f:
            raise DataError(
                f"{f.path} changed while it was read: start again when nobody writes to it"
            )


def _hashed(fresh: list[File]) -> dict[str, str]:
    """Reads files, as many at a time as there are cores: hashing lets go of the interpreter."""
    with progress.bar("reading", sum(f.size for f in fresh)) as advance:

        def one(f: File) -> tuple[str, str]:
            h = hashlib.sha256()
            with files.opened(f.path) as opened:
                try:
                    while block := opened.read(BLOCK):
                        h.update(block)
                        advance(len(block))
                except Exception as e:
                    if not files.remote(f.path) and not isinstance(e, OSError):
                        raise
                    raise files.unreadable(f.path, e) from None
            return f.path, h.hexdigest()

        with concurrent.futures.ThreadPoolExecutor(cache.cores()) as pool:
            try:
                return dict(pool.map(one, fresh))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
