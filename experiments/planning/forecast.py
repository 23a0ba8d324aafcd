"""What was predicted of a sweep when it first started, kept beside its runs and held against what
they took.

WORKDIR/forecast.json
    {"runs": {id: {"train", "evaluate", "setup"}} in seconds, "source", "sittings": [{"runs",
    "workers", "predicted",
                         "seconds"}]}: a sitting is one command that trained something, predicted
                         and actual on the clock
"""

import math
import os
import statistics

from experiments.planning.grid import Plan
from launch import files

FILE = "forecast.json"


def _number(v) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v >= 0


def _read(workdir: str) -> dict | None:
    """The forecast of a folder; None if there is none. Entries of another form are ignored. Raises
    RecordError.
    """
    path = os.path.join(workdir, FILE)
    if not os.path.exists(path):
        return None
    kept = files.read_json(path, "forecast")

    def rows(name, kind):
        return kept.get(name) if isinstance(kept.get(name), kind) else kind()

    def has(row, fields):
        return isinstance(row, dict) and all(_number(row.get(k)) for k in fields)

    return {
        "runs": {
            k: v for k, v in rows("runs", dict).items() if has(v, ("train", "evaluate", "setup"))
        },
        "source": str(kept.get("source", "")),
        "sittings": [
            s
            for s in rows("sittings", list)
            if has(s, ("runs", "workers", "seconds")) and s["seconds"] > 0
        ],
    }


def save(workdir: str, plan: Plan) -> None:
    """Writes the forecast; one that stands is kept, with new runs added."""
    old = _read(workdir) or {"runs": {}, "source": "", "sittings": []}
    runs, seen = dict(old["runs"]), set()
    for p in plan.runs:
        if p.seconds is not None and p.id not in runs:
            setup = 0.0 if p.shape in seen else p.speed.setup
            runs[p.id] = {"train": p.seconds, "evaluate": p.speed.evaluate, "setup": setup}
        seen.add(p.shape)
    source = old["source"] or "; ".join(dict.fromkeys(p.speed.source for p in plan.runs))
    if runs != old["runs"]:
        files.write_json(os.path.join(workdir, FILE), {**old, "runs": runs, "source": source})


def add_sitting(
    workdir: str, runs: int, workers: int, predicted: float | None, seconds: float
) -> None:
    """Adds a sitting in which `runs` were trained."""
    old = _read(workdir)
    if runs and old:
        one = {"runs": runs, "workers": workers, "predicted": predicted, "seconds": seconds}
        files.write_json(os.path.join(workdir, FILE), {**old, "sittings": [*old["sittings"], one]})


def compare(workdir: str, results: list[dict]) -> dict | None:
    """Predicted against actual, JSON-ready; None where nothing was predicted. `ratio` is predicted
    over actual; `cpu` the CPU-seconds that runs on CPU took, which others on the machine do not
    lengthen.
    """
    kept = _read(workdir)
    if kept is None:
        return None
    rows, cpu, train, total = [], [], [], {"predicted": 0.0, "actual": 0.0}
    for r in results:
        f, seconds = kept["runs"].get(r["id"]), r.get("seconds", {})
        if f is None or not (f["train"] and _number(seconds.get("train")) and seconds["train"]):
            continue
        row = {"id": r["id"], "family": r["family"], "size": r["tags"].get("size")}
        rows.append(
            {
                **row,
                "predicted": f["train"],
                "actual": seconds["train"],
                "ratio": f["train"] / seconds["train"],
            }
        )
        before = _before(r)  # of a trunk: what other runs have trained
        share = before.get("steps", 0) / (r.get("steps") or 1)
        total["predicted"] += f["train"] * (1 - share) + f["evaluate"] + f["setup"]
        total["actual"] += seconds["total"] - before.get("seconds", 0.0)
        own = r.get("cpu_seconds")
        own = own if r["device"].get("platform") == "cpu" and isinstance(own, dict) else {}
        cpu.append(sum(own.values()))
        train.append(f["train"] / own["train"] if own.get("train") else None)
    if not rows:
        return None
    return {
        "source": kept["source"],
        "runs": rows,
        "total": {
            **total,
            "ratio": total["predicted"] / total["actual"],
            "cpu": sum(cpu) if all(cpu) else None,
        },
        "median_ratio": statistics.median(r["ratio"] for r in rows),
        "median_cpu_ratio": None if None in train else statistics.median(train),
        "sittings": kept["sittings"],
        "energy": _energy(results),
    }


def _before(r: dict) -> dict:
    """Steps, seconds and joules of training that a run of a trunk has in its record, and that
    others took.
    """
    shared = r.get("shared")
    if not shared:
        return {}
    here, joules = shared["here"], (r.get("energy") or {}).get("joules")
    return {
        "steps": shared["step"],
        "seconds": r["seconds"]["train"] - here["seconds"],
        "joules": joules - here["joules"] if joules and here.get("joules") else 0.0,
    }


def _energy(results: list[dict]) -> dict | None:
    """Measured energy of the runs that have it."""
    found = [
        r
        for r in results
        if isinstance(r.get("energy"), dict) and _number(r["energy"].get("joules"))
    ]
    if not found:
        return None
    source = "; ".join(dict.fromkeys(str(r["energy"]["source"]) for r in found))
    joules = sum(r["energy"]["joules"] - _before(r).get("joules", 0.0) for r in found)
    return {"runs": len(found), "kwh": joules / 3.6e6, "source": source}


def text(c: dict | None) -> list[str]:
    """In a line or two."""
    if c is None:
        return []
    t = c["total"]
    lines = [
        f"predicted / actual: {t['predicted']:.0f} s / {t['actual']:.0f} s of workers"
        f" ({t['ratio']:.2f}), median run {c['median_ratio']:.2f}"
        + "".join(
            f", on the clock {s['predicted']:.0f} s / {s['seconds']:.0f} s"
            for s in c["sittings"][-1:]
            if _number(s.get("predicted"))
        )
    ]
    e = c["energy"]
    return lines + ([f"energy, {e['source']}: {e['kwh']:.4g} kWh in {e['runs']} runs"] if e else [])
