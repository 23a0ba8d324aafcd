"""What was predicted of a run before it was trained, and whether it came true.

SWEEP/predictions/ID.json is one prediction of the run ID, written once. Its `sha256` is over all of
its other fields. The record of the run keeps that hash, and so does the prediction that is
registered next (`previous`): an edited one is seen in three places, and refused.
"""

import hashlib
import json
import math
import os
import re

from launch import files
from launch.runs import valid

FOLDER = "predictions"
LEVEL = 0.95
# how far beyond the runs that a law was fitted to: upper ends of the tally's rows
DISTANCES = (10.0, 100.0, 1000.0, math.inf)


def _interval(v) -> bool:
    return isinstance(v, list) and len(v) == 2 and all(map(valid.number, v)) and v[0] <= v[1]


def _curve(v) -> bool:
    """Columns of equal length: tokens, loss, interval."""
    if not isinstance(v, dict) or not all(isinstance(v.get(k), list) for k in CURVE):
        return False
    return (
        len({len(v[k]) for k in CURVE}) == 1
        and all(map(valid.positive, [*v["tokens"], *v["loss"]]))
        and all(x is None or _interval(x) for x in v["interval"])
    )


CURVE = ("tokens", "loss", "interval")
SHAPE = {
    "id": lambda v: isinstance(v, str) and re.fullmatch(r"[0-9a-f]{12}", v) is not None,
    "date": valid.text,
    "commit": valid.optional(valid.text),
    "sweep": valid.text,
    "family": valid.name,
    "law": valid.name,
    "data": {"sha256": valid.text, "runs": valid.positive},
    "conventions": valid.each(valid.text),
    "fingerprints": valid.each(valid.text),
    "n": valid.positive,
    "tokens": valid.positive,
    "flops": valid.positive,
    "steps": valid.positive,
    "distance": valid.positive,
    "loss": valid.positive,
    "interval": _interval,
    "level": valid.positive,
    "curve": _curve,
    "previous": lambda v: v is None or valid.each(valid.text)(v) and {*v} == {"id", "sha256"},
    "sha256": valid.text,
}


def digest(p: dict) -> str:
    """SHA-256 of a prediction, over all fields but its own hash."""
    kept = {k: v for k, v in p.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def place(workdir: str, identity: str = "") -> str:
    """The folder of a sweep's predictions, or the file of one."""
    folder = os.path.join(workdir, FOLDER)
    return os.path.join(folder, f"{identity}.json") if identity else folder


def read(path: str) -> dict:
    """A registered prediction. Raises RecordError if it is none, or was edited."""
    if not os.path.lexists(path):
        raise files.RecordError(
            f"prediction {path} does not exist: bring the file back, or register a new one with"
            " isoflop next"
        )
    p = files.read_json(path, "prediction")
    if wrong := valid.flaw(p, SHAPE):
        raise files.RecordError(f"prediction {path} is none ({wrong}): bring the registered back")
    if digest(p) != p["sha256"]:
        raise files.RecordError(
            f"prediction {path} was edited after it was registered on {p['date']}: bring the"
            " registered text back; an edited prediction counts for nothing"
        )
    return p


def of(path: str, identity: str) -> dict | None:
    """The prediction that a run was registered with; None for "". Raises RecordError."""
    if not path:
        return None
    p = read(path)
    if p["id"] != identity:
        raise files.RecordError(
            f"prediction {path} is of run {p['id']}, this is run {identity}: train what was"
            " predicted, or leave the prediction out with --set where.prediction="
        )
    return p


def every(workdir: str) -> list[dict]:
    """The predictions of a sweep, oldest first. Raises RecordError if one was edited, or if one
    that a later one names is gone.
    """
    folder = place(workdir)
    names = files.contents(folder) if os.path.isdir(folder) else set()
    found = [read(os.path.join(folder, n)) for n in sorted(names) if n.endswith(".json")]
    by_id = {p["id"]: p for p in found}
    for p in found:
        before = p["previous"]
        if before and before["sha256"] != by_id.get(before["id"], {}).get("sha256"):
            gone = "is gone" if before["id"] not in by_id else "is not the one that was registered"
            raise files.RecordError(
                f"prediction {before['id']} of {workdir} {gone}: {p['id']}, registered after it,"
                " holds another hash; bring the registered file back"
            )
    return sorted(found, key=lambda p: (p["date"], p["id"]))


def register(workdir: str, p: dict) -> dict:
    """Writes a prediction, with the hash of the one before it, and returns it. Raises
    RecordError.
    """
    files.writable(place(workdir))
    before = every(workdir)
    p = {**p, "previous": {k: before[-1][k] for k in ("id", "sha256")} if before else None}
    p = json.loads(json.dumps(p, allow_nan=False))
    p["sha256"] = digest(p)
    if wrong := valid.flaw(p, SHAPE):
        raise files.RecordError(f"the prediction cannot be registered: {wrong}")
    path = place(workdir, p["id"])
    if not files.write_once(path, json.dumps(p, indent=1) + "\n"):
        raise files.RecordError(f"prediction {path} stands already: it is not made twice")
    return p


def judged(p: dict, result: dict) -> dict:
    """What a prediction says of the run that was trained: `inside` its interval, or None with
    `why` where the two are not of one kind.
    """
    loss, why = result["validation"]["loss"], ""
    theirs = result.get("fingerprints") or {}
    for k, v in p["fingerprints"].items():
        if theirs.get(k, v) != v:
            why = f"{k} is {theirs[k]}, it was predicted for {v}"
    if result["status"] != "finished" or not valid.number(loss):
        why = f"the run {result['status']} without a loss"
    kept = {k: p[k] for k in ("sha256", "loss", "interval", "level", "distance")}
    inside = None if why else p["interval"][0] <= loss <= p["interval"][1]
    return {**kept, "measured": None if why else loss, "inside": inside, "why": why or None}


def check(p: dict, result: dict) -> dict:
    """`judged` of a finished run, whose record must hold the hash of this prediction if it holds
    one. Raises RecordError.
    """
    kept = result.get("prediction") or {}
    if kept.get("sha256", p["sha256"]) != p["sha256"]:
        raise files.RecordError(
            f"prediction {p['id']} is not the one that its run was trained under: the run's record"
            f" holds the hash {kept['sha256'][:12]}, the file says {p['sha256'][:12]}; bring the"
            " registered file back"
        )
    return judged(p, result)


def times(v: float) -> str:
    """A distance, or another ratio, as people write it: 9.98, 1,250."""
    return f"{v:,.0f}" if v >= 100 else f"{v:.3g}"


def words(j: dict) -> str:
    """`predicted 2.345 [2.31, 2.38]: inside`."""
    low, high = j["interval"]
    said = {True: "inside", False: "OUTSIDE", None: f"not judged ({j['why']})"}[j["inside"]]
    return (
        f"predicted {j['loss']:.4f} [{low:.4f}, {high:.4f}], x{times(j['distance'])} beyond: {said}"
    )


def reach(row: dict) -> str:
    """The distances of a row of `tally`, in words."""
    if row["to"] is None:
        return f"beyond x{row['above']:g}"
    return f"x{row['above']:g} to x{row['to']:g}" if row["above"] else f"up to x{row['to']:g}"


def tally(rows: list[dict]) -> list[dict]:
    """How often a result lay inside, by distance: of rows of `judged`."""
    out, low = [], 0.0
    for high in DISTANCES:
        own = [r for r in rows if low < r["distance"] <= high and r["inside"] is not None]
        row = {"above": low, "to": high if math.isfinite(high) else None}
        out.append({**row, "judged": len(own), "inside": sum(r["inside"] for r in own)})
        low = high
    return out
