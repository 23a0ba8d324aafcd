"""Registered predictions beside the runs that they are of, in flight or finished."""

import math
import os

from launch import files
from launch.runs import ledger, predictions, record, valid


def folder_of(workdir: str, identity: str) -> str:
    """Where a predicted run is trained, unless it is told to train elsewhere."""
    return os.path.join(predictions.place(workdir), identity)


def _named(folder: str) -> str:
    """The id of the run in a folder. Raises RecordError."""
    result = record.result(folder)
    if result is not None:
        return result["id"]
    return str(files.read_json(os.path.join(folder, record.RUN), "run").get("id"))


def at(curve: dict, tokens: float) -> float | None:
    """Loss of a predicted curve at so many tokens, by interpolation in log tokens; None outside."""
    x, y = curve["tokens"], curve["loss"]
    for a, b, low, high in zip(x, x[1:], y, y[1:]):
        if a <= tokens <= b:
            return low + (high - low) * math.log(tokens / a) / math.log(b / a)
    return None


def rows(workdir: str, elsewhere: tuple[str, ...] = ()) -> list[dict]:
    """Of each prediction of a sweep, oldest first: {prediction, judged (None while the run is not
    finished), state, step, training_loss, law_now: the predicted loss of a run that ends where this
    one stands, folder}. `elsewhere`: folders of runs beside the usual ones. Raises RecordError.
    """
    found = predictions.every(workdir)
    known = {p["id"] for p in found}
    places = {}
    for folder in elsewhere:
        name = _named(folder)
        if name not in known:
            raise files.RecordError(
                f"{folder} holds run {name}, of which {workdir} has no prediction"
            )
        places[name] = folder
    return [_row(p, places.get(p["id"], folder_of(workdir, p["id"]))) for p in found]


def _row(p: dict, folder: str) -> dict:
    result = record.result(folder, p["id"])
    row = {"prediction": p, "folder": folder, "judged": None, "state": "waiting", "step": None}
    row |= {"training_loss": None, "law_now": None}
    if result is not None:
        return {**row, "judged": predictions.check(p, result), "state": "done"}
    if not os.path.isdir(folder):
        return row
    s = ledger.standing(folder, p["id"])
    row |= {"state": s.state, "step": s.step, "training_loss": s.loss}
    if s.step:
        row["law_now"] = at(p["curve"], p["tokens"] * s.step / p["steps"])
    return row


def training(row: dict) -> tuple[list[float], list[float]]:
    """(tokens, training loss) of the run so far, by its metrics."""
    lines = record.lines(os.path.join(row["folder"], record.METRICS))
    kept = [t for t in lines if valid.positive(t.get("tokens")) and valid.number(t.get("loss"))]
    return [t["tokens"] for t in kept], [t["loss"] for t in kept]
