"""Small files that are written whole or not at all, and read with care: they may come from anybody.
Nothing here is ever unpickled or executed.
"""

import contextlib
import json
import os
import stat
import tempfile

LARGEST = 64 * 2**20  # bytes: no record of ours comes near
UNFINISHED = ".tmp-"  # how a file begins its name until it is whole


class RecordError(ValueError):
    """A folder or file that cannot be used; the message says what to do."""


def write_json(path: str, value) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: str, text: str, durable: bool = True) -> None:
    """Atomically: the file has its old content or all of the new one, after a power cut too if
    `durable`.
    """
    name = f"{UNFINISHED}{os.getpid()}-{os.urandom(6).hex()}"
    fresh = os.path.join(os.path.dirname(path), name)
    try:
        with open(fresh, "x", encoding="utf-8") as f:  # unlike mkstemp's, readable by the umask
            f.write(text)
            f.flush()
            if durable:
                os.fsync(f.fileno())
        os.replace(fresh, path)
    except BaseException:
        if os.path.exists(fresh):
            os.remove(fresh)
        raise


def read_json(path: str, what: str) -> dict:
    """A JSON object. Raises RecordError with the file's name and what to do."""
    try:
        value = json.loads(read_text(path), parse_constant=refuse)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value
    except (OSError, ValueError, RecursionError) as e:
        raise RecordError(
            f"{what} {path} is damaged ({str(e)[:80]}): move it away, and the same command makes it"
            " again"
        ) from None


def refuse(name: str):
    """For json: NaN and Infinity are no JSON."""
    raise ValueError(f"{name} is not JSON")


def ordinary(path: str):
    """Opens an ordinary file of reasonable size for reading bytes: a pipe would block, a device
    would never end. Raises OSError or ValueError.
    """
    f = open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    about = os.fstat(f.fileno())
    if stat.S_ISREG(about.st_mode) and about.st_size <= LARGEST:
        return f
    f.close()
    raise ValueError(
        "not a file"
        if not stat.S_ISREG(about.st_mode)
        else f"{about.st_size:,} bytes are no record"
    )


def read_text(path: str) -> str:
    with ordinary(path) as f:
        return f.read(LARGEST).decode()


def write_once(path: str, text: str) -> bool:
    """Like write_text, but never replaces a file: False if one stands there. Of several processes
    one wins.

    link(2) is the rename that does not replace; where a mounted bucket has no links, looking first
    must do.
    """
    fresh = f"{os.path.join(os.path.dirname(path), UNFINISHED)}{os.path.basename(path)}-{os.getpid()}-{os.urandom(4).hex()}"  # noqa: E501
    write_text(fresh, text)
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    except OSError:
        if os.path.exists(path):
            return False
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(fresh)
    return True


def writable(folder: str, what: str = "--workdir") -> None:
    """Makes `folder`. Raises RecordError if it cannot be written."""
    try:
        os.makedirs(folder, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):  # removed by who holds the lock
            os.remove(path)
    except OSError as e:
        raise RecordError(
            f"{what}={folder} cannot be written ({e.strerror}): give another folder"
        ) from None


def contents(folder: str) -> set[str]:
    """Names in `folder`, less the half-written files that a killed process left."""
    return {n for n in os.listdir(folder) if not n.startswith(UNFINISHED)}
