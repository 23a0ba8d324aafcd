"""One run is one folder: run.json (what it is), metrics.jsonl (the truth, line by line), TensorBoard events, result.json (last, atomic).

Result fields are listed in docs/records.md. Nothing here is ever unpickled or executed.
"""

import contextlib
import fcntl
import functools
import json
import math
import os
import sys
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable

import jax

from launch import config

RESULT, METRICS, RUN, STATUS = "result.json", "metrics.jsonl", "run.json", "status.json"
LOCK = ".lock"
UNFINISHED = ".tmp-"  # how a file begins its name until it is whole
VERSION = 1


class RecordError(ValueError):
    """A folder or file that cannot be used; the message says what to do."""


def write_json(path: str, value) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: str, text: str, durable: bool = True) -> None:
    """Atomically: the file has its old content or all of the new one, after a power cut too if `durable`."""
    handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            if durable:
                os.fsync(f.fileno())
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    except BaseException:
        if os.path.exists(fresh):
            os.remove(fresh)
        raise


def read_json(path: str, what: str) -> dict:
    """A JSON object. Raises RecordError with the file's name and what to do."""
    try:
        with open(path) as f:
            value = json.load(f)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value
    except (OSError, ValueError, RecursionError) as e:
        raise RecordError(f"{what} {path} is damaged ({str(e)[:80]}): move it away, and the same command makes it again") from None


def result(folder: str) -> dict | None:
    """The result of a finished run, None if it is not finished. Raises RecordError if the file is damaged."""
    path = os.path.join(folder, RESULT)
    if not os.path.exists(path):
        return None
    r = read_json(path, "result")
    missing = [k for k in ("id", "run", "parameters", "training_tokens", "flops", "validation") if k not in r]
    if missing:
        raise RecordError(f"result {path} is damaged (no {', '.join(missing)}): move it away, and the same command makes it again")
    return r


def writable(folder: str, what: str = "--workdir") -> None:
    """Makes `folder`. Raises RecordError if it cannot be written."""
    try:
        os.makedirs(folder, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):  # removed by who holds the lock
            os.remove(path)
    except OSError as e:
        raise RecordError(f"{what}={folder} cannot be written ({e.strerror}): give another folder") from None


def contents(folder: str) -> set[str]:
    """Names in `folder`, less the lock and the half-written files that a killed process left."""
    return {n for n in os.listdir(folder) if not n.startswith(UNFINISHED) and n != LOCK}


def claim(folder: str, run: config.Run) -> None:
    """Makes the folder of `run`, or recognises it. Raises RecordError if it belongs to something else."""
    writable(folder)
    path, identity = os.path.join(folder, RUN), config.run_id(run)
    if os.path.exists(path):
        other = read_json(path, "run").get("id")
        if other != identity:
            raise RecordError(f"{folder} belongs to run {other}, not to {identity}: give another --workdir")
    elif contents(folder):
        raise RecordError(f"{folder} is not empty and holds no run: give another --workdir")
    else:
        write_json(path, {"id": identity, "run": config.brief(run)})


@contextlib.contextmanager
def lock(folder: str, patience: float = 0.0, say: Callable[[str], None] = lambda text: None):
    """Holds FOLDER/.lock and yields its file descriptor; whoever inherits that holds the lock too. Raises RecordError if another
    process still has it after `patience` seconds, naming the holder."""
    with open(os.path.join(folder, LOCK), "a+") as f:
        started, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                f.seek(0)
                holder = f.read(200).strip() or "another process"
                if time.monotonic() - started >= patience:
                    raise RecordError(f"{folder} is in use by {holder}: wait for it, or stop it") from None
                if not told:
                    say(f"{folder} is in use by {holder}: waiting for it to end")
                    told = True
                time.sleep(0.2)
        f.truncate(0)
        f.write(f"process {os.getpid()} on {platform.node()}")
        f.flush()
        for name in os.listdir(folder):
            if name.startswith(UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(folder, name))
        yield f.fileno()


def _step(line: str) -> float:
    """The step of a line of metrics; infinity if it is not a whole line."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _summary_writer():
    """tensorboardX's writer. Where torch is installed it imports it, for graphs that we do not write: a second or two of every start."""
    held = sys.modules.get("torch")
    sys.modules.setdefault("torch", None)  # its import fails, which tensorboardX expects
    try:
        from tensorboardX import SummaryWriter
    finally:
        if held is None:
            del sys.modules["torch"]
    return SummaryWriter


class Metrics:
    """Appends lines to metrics.jsonl and the same figures to TensorBoard events."""

    def __init__(self, folder: str, first_step: int = 0, tensorboard: bool = True):
        self._path = os.path.join(folder, METRICS)
        lines = []
        if os.path.exists(self._path):  # lines beyond the step that training resumes from would stand twice
            with open(self._path, errors="replace") as f:
                lines = [t for t in f if _step(t) <= first_step]
        write_text(self._path, "".join(lines))
        self._file = open(self._path, "a")
        self._events = None
        if tensorboard:
            self._events = _summary_writer()(os.path.join(folder, "events"), purge_step=first_step or None, flush_secs=30)

    def write(self, line: dict) -> None:
        try:
            self._file.write(json.dumps({k: finite(v) for k, v in line.items()}) + "\n")
            self._file.flush()
        except OSError as e:
            raise RecordError(f"{self._path} cannot be written ({e.strerror}): make room, and the same command goes on") from None
        if self._events:
            for name, v in line.items():
                if isinstance(v, list):
                    for i, x in enumerate(v):
                        self._events.add_scalar(f"{name}/moe_layer_{i}", x, line["step"])
                elif name != "step" and v is not None:
                    self._events.add_scalar(name, v, line["step"])

    def close(self) -> None:
        self._file.close()
        if self._events:
            self._events.close()


class Nothing:
    """What the other processes of a run write."""

    def write(self, line: dict) -> None:
        pass

    def close(self) -> None:
        pass


def finite(v):
    """`v` ready for JSON: numpy scalars as numbers, tuples as lists, and None for NaN and infinity, which JSON does not have."""
    if isinstance(v, dict):
        return {str(k): finite(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [finite(x) for x in v]
    if hasattr(v, "item"):
        v = v.item()
    return None if isinstance(v, float) and not math.isfinite(v) else v


@functools.lru_cache(maxsize=1)
def commit() -> str | None:
    """The commit of this codebase, with `+` after it if tracked files were changed; None outside a git checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    git = lambda *a: subprocess.run(["git", "-C", here, *a], capture_output=True, text=True, timeout=10)
    try:
        head, dirty = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else None


@functools.lru_cache(maxsize=1)
def versions() -> dict:
    from importlib.metadata import PackageNotFoundError, version

    import flax
    import jaxlib
    import numpy
    import optax

    try:
        own = version("isoflop")
    except PackageNotFoundError:
        own = None
    return {
        "isoflop": own,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "numpy": numpy.__version__,
    }
