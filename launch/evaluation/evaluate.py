"""One model on the texts and tasks that all models are asked: prepared, so that what is wrong is
said before anything compiles; then computed.
"""

import contextlib
import time
from typing import Any, NamedTuple

import numpy as np

from data.config import DataError
from launch.config import ConfigError
from launch.evaluation import choices, subject, text
from launch.evaluation.choices import Item
from launch.evaluation.losses import Losses
from launch.evaluation.score import Scorer, Sequence
from launch.evaluation.subject import Subject
from launch.evaluation.text import Texts


class Asked(NamedTuple):
    """What a model is asked, in its own tokens. windows: that each sequence of text stands in.
    tasks: the items of each with their sequences. unknown: share of tokens that stand for any text;
    changed: of texts (the first SAMPLE) that their tokens do not give back.
    """

    windows: list[int]
    sequences: list[Sequence]
    tasks: dict[str, tuple[list[Item], list[Sequence]]]
    unknown: float
    changed: float


SAMPLE = 64


@contextlib.contextmanager
def _named(s: Subject):
    """Errors of a model with its place."""
    try:
        yield
    except (ConfigError, DataError) as e:
        raise type(e)(f"{s.path}: {e}") from None


def prepared(s: Subject, texts: Texts | None, tasks: dict[str, list[Item]]) -> Asked:
    """Raises ConfigError or DataError, with the model's name."""
    windows: list[int] = []
    sequences: list[Sequence] = []
    strange, total = 0, 0
    with _named(s):
        found = s.reader.ids([t.body for t in texts.texts]) if texts else []
        for t, ids in zip(texts.texts if texts else [], found):
            own = text.sequences(s.reader, ids)
            windows += [t.window] * len(own)
            sequences += own
            total += len(ids)
            strange += int((ids == s.reader.tokenizer.unknown).sum())
        if texts and not sequences:
            raise DataError("its tokenizer makes no token of this text: give a longer one")
        asked = {}
        for name, items in tasks.items():
            asked[name] = items, choices.prepared(s.reader, items)
    changed = 0.0
    if texts:
        pairs = list(zip(texts.texts, found))[:SAMPLE]
        changed = sum(_changed(s.reader.tokenizer, t.body, ids) for t, ids in pairs) / len(pairs)
    return Asked(windows, sequences, asked, strange / max(1, total), changed)


def _changed(tokenizer, body: bytes, ids) -> bool:
    """Whether a tokenizer drops or alters something of a text, but for spaces at its ends and bytes
    that are not UTF-8.
    """
    back, whole = (x.decode("utf-8", "replace").strip() for x in (tokenizer.decode(ids), body))
    return back != whole


def evaluated(
    s: Subject,
    texts: Texts | None,
    asked: Asked,
    stream: bool | None = None,
    programs: dict | None = None,
) -> tuple[dict[str, Any], Losses | None]:
    """(result of one model: what is known of it, `validation`, `loss_by_position`, `tasks`, its
    speed; its losses by window). stream: None lets the memory that is free decide. programs: see
    score.Scorer.
    """
    started = time.perf_counter()
    weights = subject.opened(s, stream)
    scorer = Scorer(weights, programs)
    sets = [asked.sequences, *(own for _, own in asked.tasks.values())]
    with _named(s):
        found, *answers = scorer.together(sets)
    out, losses = s.about(), None
    if texts:
        losses = _losses(texts, asked, found.nll)
        out["validation"] = losses.made()
        out["loss_by_position"] = losses.by_position()
        out["unknown"], out["changed"] = asked.unknown, asked.changed
    out["tasks"] = {
        name: choices.answered(items, one.nll)
        for (name, (items, _)), one in zip(asked.tasks.items(), answers)
    }
    seconds = time.perf_counter() - started
    computed = seconds - scorer.compile_s - scorer.read_s
    out |= {
        "streamed": weights.stream,
        "tokens_per_s": sum(x.width for own in sets for x in own) / computed,
        "seconds": {
            "all": seconds,
            "read": scorer.read_s,
            "compile": scorer.compile_s,
            "compute": computed,
        },
    }
    return out, losses


def _losses(texts: Texts, asked: Asked, nll: list[np.ndarray]) -> Losses:
    bytes_W = np.zeros(texts.windows, np.int64)
    np.add.at(bytes_W, [t.window for t in texts.texts], [len(t.body) for t in texts.texts])
    kept = np.flatnonzero(bytes_W)  # a window of separators alone holds no text
    place = {int(w): i for i, w in enumerate(kept)}
    losses = Losses(bytes_W[kept], max((x.width for x in asked.sequences), default=1))
    for window, sequence, found in zip(asked.windows, asked.sequences, nll):
        losses.add(place[window], sequence, found)
    return losses
