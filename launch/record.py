"""One run is one folder: run.json (what it is), metrics.jsonl (the truth, line by line), TensorBoard events, result.json (last, atomic).

Result fields are listed in docs/records.md. Nothing here is ever unpickled or executed.
"""

import contextlib
import functools
import json
import math
import os
import platform
import subprocess
import tempfile

import jax

from launch import config

RESULT, METRICS, RUN = "result.json", "metrics.jsonl", "run.json"
UNFINISHED = ".tmp-"  # how a file begins its name until it is whole
VERSION = 1


class RecordError(ValueError):
    """A folder or file that cannot be used; the message says what to do."""


def write_json(path: str, value) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: str, text: str) -> None:
    """Atomically: the file has its old content or all of the new one."""
    handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
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
        with tempfile.NamedTemporaryFile(dir=folder, prefix=UNFINISHED):
            pass
    except OSError as e:
        raise RecordError(f"{what}={folder} cannot be written ({e.strerror}): give another folder") from None


def contents(folder: str) -> set[str]:
    """Names in `folder`, less the half-written files that a killed process left, which are removed."""
    names = set(os.listdir(folder))
    for name in (n for n in names if n.startswith(UNFINISHED)):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))
    return {n for n in names if not n.startswith(UNFINISHED)}


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


class Metrics:
    """Appends lines to metrics.jsonl and the same figures to TensorBoard events."""

    def __init__(self, folder: str, first_step: int = 0, tensorboard: bool = True):
        self._path = os.path.join(folder, METRICS)
        lines = []
        if os.path.exists(self._path):  # lines beyond the step that training resumes from would stand twice
            with open(self._path) as f:
                lines = [t for t in f if t.endswith("\n") and json.loads(t)["step"] <= first_step]
        write_text(self._path, "".join(lines))
        self._file = open(self._path, "a")
        self._events = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(os.path.join(folder, "events"), purge_step=first_step or None, flush_secs=30)

    def write(self, line: dict) -> None:
        self._file.write(json.dumps({k: finite(v) for k, v in line.items()}) + "\n")
        self._file.flush()
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
    import flax
    import jaxlib
    import numpy
    import optax

    from importlib.metadata import PackageNotFoundError, version

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
