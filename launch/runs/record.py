"""One run is one folder: run.json (what it is), metrics.jsonl (the truth, line by line), what
trackers leave there (launch/trackers/), result.json (last, atomic).

Result fields are listed in docs/records.md. Nothing here is ever unpickled or executed.
"""

import contextlib
import functools
import json
import math
import os
import platform
import subprocess
import time

from launch import config, files
from launch.runs import valid

RESULT, METRICS, RUN, STATUS = "result.json", "metrics.jsonl", "run.json", "status.json"
FAILURE = "failure.json"  # why the last attempt ended without a result
OWN = {
    RESULT,
    METRICS,
    RUN,
    STATUS,
    FAILURE,
    ".lease",
    ".lock",
    "checkpoints",
    "events",
    "wandb",
}  # what a run's folder may hold
VERSION = 1


def result(folder: str, identity: str = "") -> dict | None:
    """The result of a finished run, None if it is not finished. Raises RecordError if the file is
    damaged, or of another run than `identity` where that is given.
    """
    path = os.path.join(folder, RESULT)
    if not os.path.lexists(path):
        return None
    r = files.read_json(path, "result")
    if wrong := valid.flaw(r):
        raise files.RecordError(
            f"result {path} is damaged ({wrong}): move it away, and the same command makes it again"
        )
    if identity and r["id"] != identity:
        raise files.RecordError(
            f"result {path} is of run {r['id']}, not of {identity}: move it away, or give another"
            " --workdir"
        )
    return r


def finish(folder: str, value: dict) -> dict:
    """Puts the result, last of all files, and returns the one that stands: of two workers that
    overlap the first one's.
    """
    mine = files.write_once(
        os.path.join(folder, RESULT), json.dumps(value, indent=1, allow_nan=False) + "\n"
    )
    for name in (STATUS, FAILURE):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))
    return value if mine else result(folder, value["id"]) or value


def fail(folder: str, why: str, halve: bool = False) -> None:
    """Notes why an attempt ended without a result; the next one that finishes removes the note.
    halve: the next attempt is to take half the micro-batch, for memory ran out in one of several
    processes.
    """
    about = {
        "why": why,
        "halve": halve,
        "host": platform.node(),
        "pid": os.getpid(),
        "time": time.time(),
    }
    files.write_json(os.path.join(folder, FAILURE), about)


def failure(folder: str) -> str | None:
    """Why the last attempt failed; None if none has."""
    try:
        return str(files.read_json(os.path.join(folder, FAILURE), "failure").get("why"))
    except files.RecordError:
        return None


def to_be_halved(folder: str) -> bool:
    try:
        return files.read_json(os.path.join(folder, FAILURE), "failure").get("halve") is True
    except files.RecordError:
        return False


def claim(folder: str, run: config.Run) -> None:
    """Makes the folder of `run`, or recognises it. Raises RecordError if it belongs to something
    else.
    """
    files.writable(folder)
    names, identity = files.contents(folder), config.run_id(run)
    if RUN in names:
        about = files.read_json(os.path.join(folder, RUN), "run")
        other = about.get("id")
        if other != identity:
            raise files.RecordError(
                f"{folder} belongs to run {other}, not to {identity}{_other_text(about, run)}"
                f"{config.earlier(about.get('run'))}: give another --workdir"
            )
    elif names - OWN:
        raise files.RecordError(f"{folder} is not empty and holds no run: give another --workdir")
    result(folder, identity)
    if RUN not in names:
        files.write_json(os.path.join(folder, RUN), {"id": identity, "run": config.brief(run)})


def _other_text(about: dict, run: config.Run) -> str:
    """In words that the text or the tokenizer is another one, if that is all."""
    data = about.get("run", {}).get("data") if isinstance(about.get("run"), dict) else None
    before = data.get("content") if isinstance(data, dict) else None
    if not isinstance(before, str) or before == run.data.content:
        return ""
    return f" (text or tokenizer were {before} and are {run.data.content} now; bring them back)"


def _step(line: str) -> float:
    """The step of a line of metrics; infinity if it is not a whole line."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def lines(path: str) -> list[dict]:
    """The whole lines of a metrics.jsonl that hold numbers, or lists of them, by name; none of a
    file that is missing or no file.
    """
    out = []
    try:
        for t in files.read_text(path).split("\n"):
            line = json.loads(t, parse_constant=files.refuse) if t.endswith("}") else None
            if isinstance(line, dict) and valid.number(line.get("step")) and valid.numbers(line):
                out.append(line)
    except (OSError, ValueError, RecursionError):
        pass
    return out


class Metrics:
    """Appends lines to metrics.jsonl, and gives them to the followers (launch/trackers/)."""

    def __init__(self, folder: str, first_step: int = 0, followers=()):
        self._path = os.path.join(folder, METRICS)
        lines, told = [], 0
        if os.path.exists(
            self._path
        ):  # lines beyond the step that training resumes from would stand twice
            with open(self._path, errors="replace") as f:
                for text in f:
                    step = _step(text)
                    told = max(told, step) if math.isfinite(step) else told
                    lines += [text] * (step <= first_step)
        files.write_text(self._path, "".join(lines))
        self._file = open(self._path, "a")
        self._followers = followers
        for f in followers:
            f.begin(told)

    def write(self, line: dict) -> None:
        try:
            self._file.write(json.dumps({k: finite(v) for k, v in line.items()}) + "\n")
            self._file.flush()
        except OSError as e:
            raise files.RecordError(
                f"{self._path} cannot be written ({e.strerror}): make room, and the same command"
                " goes on"
            ) from None
        for f in self._followers:
            f.write(line)

    def tell(self, line: dict) -> None:
        """Followers alone: what result.json says."""
        for f in self._followers:
            f.write(line, again=True)

    def close(self) -> None:
        self._file.close()
        for f in self._followers:
            f.close()


class Nothing:
    """What the other processes of a run write."""

    def write(self, line: dict) -> None:
        pass

    tell = write

    def close(self) -> None:
        pass


def finite(v):
    """`v` ready for JSON: numpy scalars as numbers, tuples as lists, and None for NaN and infinity,
    which JSON does not have.
    """
    if isinstance(v, dict):
        return {str(k): finite(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [finite(x) for x in v]
    if hasattr(v, "item"):
        v = v.item()
    return None if isinstance(v, float) and not math.isfinite(v) else v


@functools.lru_cache(maxsize=1)
def commit() -> str | None:
    """The commit of this codebase, with `+` after it if tracked files were changed; None outside a
    git checkout.
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def git(*a):
        return subprocess.run(["git", "-C", here, *a], capture_output=True, text=True, timeout=10)

    try:
        head, dirty = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return (
        head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
        if head.returncode == 0
        else None
    )


def settings() -> dict:
    """What from outside of a Run changes results: settings of jax and of the compiler that are not
    at their defaults.
    """
    import jax

    found = {
        "jax_enable_x64": jax.config.jax_enable_x64 or None,
        "jax_default_matmul_precision": jax.config.jax_default_matmul_precision,
        "jax_numpy_dtype_promotion": (
            jax.config.jax_numpy_dtype_promotion
            if jax.config.jax_numpy_dtype_promotion != "standard"
            else None
        ),
    }
    names = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
    found |= {name: os.environ.get(name, "").strip() or None for name in names}
    return {name: v for name, v in found.items() if v is not None}


@functools.lru_cache(maxsize=1)
def versions() -> dict:
    from importlib.metadata import PackageNotFoundError, version

    import flax
    import jax
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
