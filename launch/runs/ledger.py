"""Where a run stands. Its folder alone is read, so that any engine's runs can be looked at while
they train or after they died. Nothing is written or executed. A damaged file is reported; a file
that does not belong there is ignored.
"""

import json
import math
import os
import re
from typing import NamedTuple

from launch import files
from launch.runs import lease, record

STATES = ("done", "running", "waiting", "failed", "diverged")
IDENTITY = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"
)  # of a run: no path, no option, nothing that a shell or a terminal reads


class Standing(NamedTuple):
    """`step` of `of` updates (None: not known); `why` it failed or diverged; `holder` who trains
    it; `age` of its last sign of life, s.
    """

    state: str
    step: int | None = None
    of: int | None = None
    loss: float | None = (
        # training loss, nats/token, of the last line of metrics.jsonl; the validation loss of a
        # finished run
        None
    )
    why: str | None = None
    holder: str | None = None
    age: float | None = None
    seconds: float | None = None  # that a finished run took, from start to result
    spent: float | None = None  # FLOPs (`matmul`) that a finished run of a trunk has trained itself


def standing(folder: str, identity: str = "") -> Standing:
    """Where the run in `folder` stands; a result of another run than `identity` is none."""
    try:
        result = record.result(folder, identity)
    except files.RecordError as e:
        return Standing("failed", why=str(e))
    if result is not None:
        state = "diverged" if result.get("status") == "diverged" else "done"
        steps = as_integer(result.get("steps"))
        seconds = number((result.get("seconds") or {}).get("total"))
        return Standing(
            state,
            steps,
            steps,
            number(result["validation"].get("loss")),
            _words(result.get("why")),
            seconds=seconds,
            spent=_spent(result),
        )
    status = _status(folder)
    (logged, loss), of = _last(folder), as_integer(status.get("of"))
    step = max([s for s in (as_integer(status.get("step")), logged) if s is not None], default=None)
    if found := lease.living(folder):
        age = max(0.0, lease.now(folder, found) - found.renewed)
        return Standing("running", step, of, loss, holder=str(found), age=age)
    why = record.failure(folder)
    return Standing("failed" if why else "waiting", step, of, loss, why)


def _status(folder: str) -> dict:
    try:
        return files.read_json(os.path.join(folder, record.STATUS), "status")
    except files.RecordError:
        return {}


def _spent(result: dict) -> float | None:
    """FLOPs that a run has trained itself, of those that its trunk has; None without a trunk."""
    shared = result.get("shared")
    return number(shared["here"]["flops"]) if shared else None


def _words(value) -> str | None:
    return value if isinstance(value, str) else None


def number(value) -> float | None:
    """A finite number, or None for whatever else stands there."""
    good = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e60
    )  # NaN compares false
    return float(value) if good else None


def as_integer(value) -> int | None:
    n = number(value)
    return None if n is None or n < 0 else int(n)


def _last(folder: str) -> tuple[int | None, float | None]:
    """(step, training loss) of the last whole line of metrics.jsonl."""
    try:
        with files.ordinary(os.path.join(folder, record.METRICS)) as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 2**16))
            lines = [t for t in f.read(2**16).split(b"\n") if t.endswith(b"}")]
        last = json.loads(lines[-1])
        return as_integer(last.get("step")), number(last.get("loss"))
    except (OSError, ValueError, IndexError, AttributeError, RecursionError):
        return None, None


class Planned(NamedTuple):
    """What sweep.json says of a run: FLOPs by the matmul convention; seconds: the plan's
    prediction, None where there is none.
    """

    id: str
    family: str
    size: int | None
    flops: float
    seconds: float | None
    spent: float | None = None  # FLOPs of the steps that it trains itself, of a trunk


def planned(runs) -> list[Planned]:
    """The entries of sweep.json that are runs; anything else is left out."""
    out = {}
    for r in runs if isinstance(runs, list) else []:
        if isinstance(r, dict) and isinstance(r.get("id"), str) and IDENTITY.fullmatch(r["id"]):
            family = r["family"] if isinstance(r.get("family"), str) else "unknown"
            out[r["id"]] = Planned(
                r["id"],
                family[:20],
                as_integer(r.get("size")),
                number(r.get("flops")) or 1.0,
                number(r.get("seconds")),
                number(r.get("spent")),
            )
    return list(out.values())


def identities(root: str) -> list[str]:
    """Names in `root` that are ids of runs."""
    try:
        return sorted(n for n in os.listdir(root) if IDENTITY.fullmatch(n))
    except OSError:
        return []


def left(runs: list[Planned], standings: dict[str, Standing]) -> float | None:
    """Seconds until the open runs are done at the pace of the finished ones, in as many processes
    as train now (runs of a pack share one, and their seconds are shares); the plan's prediction
    stands in for a family that has no finished run. None where nothing trains or no pace is known.
    """
    paces = {}
    for r in runs:
        s = standings[r.id]
        if s.state == "done" and s.seconds:
            paces.setdefault(r.family, []).append((s.seconds, r.flops))
    training = [r for r in runs if standings[r.id].state == "running"]
    if not training:
        return None
    total = 0.0
    for r in runs:
        s = standings[r.id]
        if s.state not in ("running", "waiting"):
            continue
        if r.family in paces:
            seconds = (
                r.flops
                * math.fsum(t for t, _ in paces[r.family])
                / math.fsum(f for _, f in paces[r.family])
            )
        elif r.seconds is not None:
            seconds = r.seconds
        else:
            return None
        share = 1.0 if r.spent is None else min(1.0, r.spent / r.flops)
        if s.step and s.of and s.state == "running":
            share = 1 - min(1.0, s.step / s.of)
        total += seconds * share
    return total / len({standings[r.id].holder for r in training})
