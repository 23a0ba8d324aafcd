"""The folder of caches, and how several processes share it: a lock is held while something is made,
and what is half-made has a hidden name.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

from data.config import DataError

MAKING = ".making-"
ABANDONED = 7 * 86400.0  # seconds without a new byte after which what is half-made is removed
AGAIN = 0.2  # seconds between looks at a lock that another process holds


def root(cache: str = "") -> str:
    """The folder of caches; a user without a home, as in some containers, has it beside other
    temporary files.
    """
    given = cache or os.environ.get("ISOFLOP_CACHE")
    path = given or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "isoflop")
    found = os.path.expanduser(path)
    if not given and found.startswith("~"):
        return os.path.join(tempfile.gettempdir(), f"isoflop-{os.getuid()}")
    return found


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refused(path: str, e: OSError) -> DataError:
    """What to say when the cache cannot be written. Of a full disk NumPy knows no number."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):
        return DataError(
            f"no space left for the token cache {path}: free some and start again, what is done is"
            " kept; or set ISOFLOP_CACHE to a folder on another disk"
        )
    return DataError(
        f"cannot write the token cache {path} ({e.strerror}): set ISOFLOP_CACHE to a writable"
        " folder"
    )


def read_json(path: str) -> dict:
    """What stands there; {} if nothing does, or nothing that is whole."""
    try:
        with open(path) as f:
            found = json.load(f)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, value) -> None:
    """Whole or not at all."""
    fresh = f"{path}.{platform.node()}-{os.getpid()}"
    with open(fresh, "w") as f:
        json.dump(value, f, indent=1)
    os.replace(fresh, path)


@contextlib.contextmanager
def lock(path: str, what: str) -> Iterator[None]:
    """Holds the lock file `path`; waits, and says so once, while another process has it. A killed
    process lets go of its lock. Where the filesystem knows no locks there is none to hold.
    """
    with open(path, "a") as f:
        said = False
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    print(f"isoflop: another process is {what}: waiting for it", file=sys.stderr)
                said = True
                time.sleep(AGAIN)
            except OSError as e:
                if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                break
        yield


def sweep(folder: str) -> None:
    """Removes what is half-made and nobody has written to for a week."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(MAKING) and os.path.isdir(path):
            with contextlib.suppress(OSError):  # another sweeps too, or it belongs to a colleague
                files = [path, *(os.path.join(path, n) for n in os.listdir(path))]
                if time.time() - max(os.stat(f).st_mtime for f in files) > ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)
