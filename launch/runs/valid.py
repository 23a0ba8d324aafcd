"""Whether a result.json says what one says: a folder may come from anybody, and what reads it
counts on numbers where numbers belong.
"""

import dataclasses
import re
import typing

from launch import config
from model import text as parts
from model.config import Model


def number(v) -> bool:
    """Finite, and of a size that arithmetic bears. NaN compares false."""
    return isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e60


def positive(v) -> bool:
    return number(v) and v > 0


def text(v) -> bool:
    return isinstance(v, str) and len(v) < 10_000


def name(v) -> bool:
    """A plain word or two: figures read dollars as mathematics."""
    return isinstance(v, str) and re.fullmatch(r"[\w .:+/-]{1,80}", v) is not None


def optional(kind):
    return lambda v: v is None or kind(v)


def each(kind):
    """An object whose values are all of a kind."""
    return lambda v: isinstance(v, dict) and all(text(k) and kind(x) for k, x in v.items())


def numbers(v) -> bool:
    """A number, or a list or object of them (of lists)."""
    if isinstance(v, (list, dict)):
        return all(numbers(x) for x in (v.values() if isinstance(v, dict) else v))
    return v is None or number(v)


def parameters(v) -> bool:
    """By group and in total; what is an N must be positive."""
    return (
        isinstance(v, dict)
        and numbers(v)
        and all(positive(v.get(k, 1)) for k in ("total", "active", "non_embedding", "multiplied"))
    )


def source(v) -> bool:
    """What a result says of one source of a mixture."""
    return (
        isinstance(v, dict)
        and all(number(v.get(k)) for k in ("training_tokens", "epochs", "bytes"))
        and isinstance(v.get("validation"), dict)
        and all(optional(number)(x) for x in v["validation"].values())
    )


def by_position(v) -> bool:
    """Columns of equal length: first position, tokens, loss, standard error."""
    if not isinstance(v, dict) or not all(isinstance(v.get(k), list) for k in COLUMNS):
        return False
    rows = list(zip(*(v[k] for k in COLUMNS)))
    even = {len(v[k]) for k in COLUMNS} == {len(rows)}
    return even and all(
        all(map(positive, row[:2])) and all(optional(number)(x) for x in row[2:]) for row in rows
    )


COLUMNS = ("first", "tokens", "loss", "se")


def shared(v) -> bool:
    """What a result says of a trunk."""
    return (
        isinstance(v, dict)
        and text(v.get("run"))
        and number(v.get("step"))
        and isinstance(v.get("here"), dict)
        and all(number(v["here"].get(k)) for k in ("steps", "tokens", "flops", "seconds"))
        and optional(number)(v["here"].get("joules"))
    )


def validation(v) -> bool:
    """Losses of averaged weights."""
    return isinstance(v, dict) and all(optional(number)(x) for x in v.values()) and "loss" in v


def predicted(v) -> bool:
    """What a result says of its prediction (launch/runs/predictions.py)."""
    return (
        isinstance(v, dict)
        and text(v.get("sha256"))
        and positive(v.get("loss"))
        and isinstance(v.get("interval"), list)
        and len(v["interval"]) == 2
        and all(map(number, v["interval"]))
        and v.get("inside") in (True, False, None)
        and all(optional(number)(v.get(k)) for k in ("level", "distance", "measured"))
        and optional(text)(v.get("why"))
    )


RESULT = {  # a field with ? may be missing
    "id": text,
    "family": name,
    "status": lambda v: v in ("finished", "diverged"),
    "why?": optional(text),
    "diverged_at?": optional(number),
    "unlearned?": lambda v: isinstance(v, bool),
    "unigram_entropy?": optional(number),
    "tags": {
        "size?": optional(number),
        "budget?": optional(positive),
        "tokens?": optional(positive),
        "role?": optional(name),
        "lr_multiplier?": optional(positive),
        "sweep?": optional(text),
        "dial?": name,
    },
    "run": lambda v: isinstance(v, dict) and typed(config.Run, v) is None,
    "steps?": number,
    "skipped?": optional(number),
    "parameters": parameters,
    "training_tokens": positive,
    "dataset_tokens?": optional(positive),
    "epochs?": optional(number),
    "bytes?": optional(number),
    "flops": each(positive),
    "flops_per_token?": each(positive),
    "shared?": optional(shared),
    "executed_flops?": optional(number),
    "train_loss?": optional(number),
    "validation": {
        "loss": optional(number),
        "se?": optional(number),
        "bits_per_byte?": optional(number),
        "excess?": optional(number),
        "excess_se?": optional(number),
    },
    "sources?": each(source),
    "averages?": each(validation),
    "loss_by_position?": by_position,
    "prediction?": optional(predicted),
    "moe?": numbers,
    "noise_scale?": optional(each(optional(number))),
    "seconds?": each(optional(number)),
    "cpu_seconds?": each(number),
    "members?": positive,
    "energy?": optional(
        lambda v: isinstance(v, dict) and positive(v.get("joules")) and text(v.get("source"))
    ),
    "tokens_per_s?": optional(number),
    "mfu_matmul?": optional(number),
    "device?": {"kind": text},
    "versions?": each(optional(text)),
    "commit?": optional(text),
    "corpus?": text,
    "fingerprints?": each(text),
}


def flaw(value, shape=None, path: str = "") -> str | None:
    """What is wrong with a result, as `validation.loss is 'low'`; None if nothing is."""
    shape = RESULT if shape is None else shape
    if not isinstance(value, dict):
        return f"{path or 'it'} is no object"
    for field, kind in shape.items():
        key = field.rstrip("?")
        where = f"{path}.{key}".lstrip(".")
        if key not in value:
            if field == key:
                return f"no {where}"
        elif isinstance(kind, dict):
            if inner := flaw(value[key], kind, where):
                return inner
        elif not kind(value[key]):
            inner = (
                typed(config.Run, value[key], "run")
                if key == "run" and isinstance(value[key], dict)
                else None
            )
            return inner or f"{where} is {_shown(value[key])}"
    return None


def written(v) -> bool:
    """Parts of a model as text, or the list of layers of version 1."""
    if isinstance(v, list):
        return all(isinstance(x, str) and len(x.split("/")) == 2 for x in v)
    try:
        return text(v) and parts.parse(v) is not None
    except (ValueError, RecursionError):
        return False


def _shown(v) -> str:
    return (
        repr(v)[:40]
        if isinstance(v, (str, int, float, bool, type(None)))
        else f"of type {type(v).__name__}"
    )


def typed(cls, d: dict, path: str = "") -> str | None:
    """The first field of `d` that is not of the type that dataclass `cls` gives it; fields that
    `cls` lacks are another version's.
    """
    for field, kind in typing.get_type_hints(cls).items():
        if field not in d:
            continue
        v, where = d[field], f"{path}.{field}".lstrip(".")
        if dataclasses.is_dataclass(kind):
            wrong = typed(kind, v, where) if isinstance(v, dict) else f"{where} is {_shown(v)}"
            if wrong:
                return wrong
            continue
        good = {int: number, float: number, str: text, bool: lambda v: isinstance(v, bool)}.get(
            kind
        )
        if cls is Model and good is None:
            good = written
        if good is None:  # tuple[int, ...]
            item = {int: number, float: number, str: text}[typing.get_args(kind)[0]]

            def good(v, item=item):
                return isinstance(v, list) and all(item(x) for x in v)

        if not good(v):
            return f"{where} is {_shown(v)}"
    return None
