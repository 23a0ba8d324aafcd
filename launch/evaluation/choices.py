"""Multiple choice and cloze, by likelihood: of the choices the one counts that a model finds most
probable after the question, in all or per byte.

A line of a task file is {"question": ..., "choices": [...], "answer": place or text}. A question
with a blank (three underscores or more) is a cloze: a choice fills the blank, and it is scored with
what follows. Otherwise a choice follows the question, after a space where neither brings one.
Scores are those of lm-evaluation-harness: `acc` without, `acc_bytes` with division by the bytes of
what is scored.
"""

import json
import math
import os
import re
from typing import NamedTuple

import numpy as np

from data.config import DataError
from launch.config import ConfigError
from launch.evaluation.score import Sequence
from launch.evaluation.text import Reader

BLANK = re.compile("_{3,}")
MOST = 2**28  # bytes of a task file


class Item(NamedTuple):
    """before: what stands before every choice. scored: the text whose likelihood is that of each
    choice. space: what stands between them, counted in no length.
    """

    before: str
    space: str
    scored: tuple[str, ...]
    answer: int


def read(path: str) -> list[Item]:
    """The items of a task file. Raises DataError with the line."""
    try:
        size = os.path.getsize(path)
        if not os.path.isfile(path) or size > MOST:
            raise OSError(f"it is not a file of up to {MOST:,} bytes")
        with open(path, encoding="utf-8") as f:
            lines = f.read().split("\n")
    except (OSError, ValueError) as e:
        raise DataError(f"--tasks={path} cannot be read ({str(e)[:120]})") from None
    items = [_item(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise DataError(f"--tasks={path} holds no line: {WANTED}")
    return items


WANTED = 'write {"question": "...", "choices": ["...", "..."], "answer": 0}, one a line'


def _item(line: str, where: str) -> Item:
    try:
        held = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where} is not JSON ({str(e)[:80]}): {WANTED}") from None
    if not isinstance(held, dict) or not isinstance(held.get("question"), str):
        raise DataError(f"{where} has no question: {WANTED}")
    choices, answer = held.get("choices"), held.get("answer")
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where} has no choices, at least two: {WANTED}")
    if not all(isinstance(c, str) and c.strip() for c in choices):
        raise DataError(f"{where} has an empty choice, or one that is no text: {WANTED}")
    if len(set(choices)) < len(choices):
        raise DataError(f"{where} has a choice twice: no answer tells them apart")
    try:
        for text in (held["question"], *choices):
            text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} holds half a character (a lone surrogate)") from None
    if isinstance(answer, str):
        if answer not in choices:
            raise DataError(f"{where}: the answer {answer[:40]!r} is none of its choices")
        answer = choices.index(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: the answer {answer!r} is none of 0 .. {len(choices) - 1}, and the text of no"
            " choice"
        )
    return _put_together(held["question"], choices, answer, where)


def _put_together(question: str, choices: list[str], answer: int, where: str) -> Item:
    blanks = BLANK.findall(question)
    if len(blanks) > 1:
        raise DataError(f"{where} has {len(blanks)} blanks: a choice fills one")
    if blanks:
        before, after = BLANK.split(question)
        return Item(before, "", tuple(c + after for c in choices), answer)
    free = not question or question[-1].isspace() or any(c[0].isspace() for c in choices)
    return Item(question, "" if free else " ", tuple(choices), answer)


def encoded(reader: Reader, pairs: list[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The tokens of each context and those of what follows it, as lm-evaluation-harness has them:
    of both together, less those of the context alone; white space at the context's end belongs to
    what follows.
    """
    contexts, wholes = [b.rstrip() for b, _ in pairs], [b + scored for b, scored in pairs]
    texts = list(dict.fromkeys([*contexts, *wholes]))  # the choices of a question share it
    ids = dict(zip(texts, reader.ids([t.encode() for t in texts])))
    out = []
    for context, whole in zip(contexts, wholes):
        known, own = ids[context], ids[whole][len(ids[context]) :]
        if not len(own):  # the last word of the context went on
            own = reader.ids([whole[len(context) :].encode()])[0]
        out.append((known, own))
    return out


def sequence(reader: Reader, context: np.ndarray, scored: np.ndarray) -> Sequence:
    """What is scored behind as much of its context as the model has positions for. Raises
    ConfigError where there are not enough for what is scored.
    """
    start = [reader.begins] if reader.begins is not None else [] if len(context) else reader.start
    left = reader.positions + 1 - len(start) - len(scored)
    if left < (0 if start else 1):
        raise ConfigError(
            f"a choice of {len(scored)} tokens is longer than the {reader.positions} that the model"
            " is given: leave it out, or raise --context"
        )
    context = context[max(0, len(context) - left) :]
    tokens = np.concatenate([np.array(start, np.int32), context, scored]).astype(np.int32)
    return Sequence(tokens, len(tokens) - len(scored) - 1)


def prepared(reader: Reader, items: list[Item]) -> list[Sequence]:
    """The sequences of every choice of every item, in order. Raises ConfigError."""
    pairs = [(item.before, item.space + s) for item in items for s in item.scored]
    return [sequence(reader, *own) for own in encoded(reader, pairs)]


def answered(items: list[Item], nll: list[np.ndarray]) -> dict:
    """What a model makes of a task, whose `prepared` sequences it gave `nll`: accuracy with its
    interval, in all and per byte.
    """
    likelihood = iter([-float(x.sum()) for x in nll])
    right, per_byte = [], []
    for item in items:
        own = np.array([next(likelihood) for _ in item.scored])
        sizes = np.array([len(s.encode()) for s in item.scored])
        right.append(int(own.argmax()) == item.answer)
        per_byte.append(int((own / sizes).argmax()) == item.answer)
    return {
        "items": len(items),
        "chance": float(np.mean([1 / len(item.scored) for item in items])),
        **_share("accuracy", right),
        **_share("accuracy_per_byte", per_byte),
    }


def _share(name: str, right: list[bool]) -> dict:
    k, n = sum(right), len(right)
    return {name: k / n, f"{name}_interval": list(wilson(k, n))}


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share, k of n (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212): within 0
    and 1, and not empty where all answers are right.
    """
    p, zz = k / n, z * z / n
    middle = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)
