"""`--set field=value`: text into the fields of frozen dataclasses, checked by their types."""

import ast
import dataclasses
import difflib
import math
import types
import typing

from launch.config import ConfigError, Job, Run, field_types
from model.config import Model
from model.optimizers import OPTIMIZERS, Optimizer


def _parse(key: str, text: str, kind):
    """`text` as a value of type `kind`. Raises ConfigError with the type named."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    if kind is str:
        return text
    if origin is tuple:
        parts = [t.strip().strip("'\"") for t in text.strip("()[] ").split(",")]
        return tuple(_parse(key, t, args[0]) for t in parts if t)
    if origin in (typing.Union, types.UnionType):
        raise TypeError(f"{key}: unions are not supported")
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        raise ConfigError(f"{key}={text}: cannot read it as {name}") from None
    if kind is float and type(value) is int:
        value = float(value)
    if kind is int and type(value) is float and value.is_integer():  # 1e6
        value = int(value)
    if type(value) is not kind:
        raise ConfigError(f"{key}={text}: {name} expected, not {type(value).__name__}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{key}={text}: a finite number expected")
    return value


def override(value, key: str, text: str, full: str = ""):
    """The frozen dataclass `value` with the field at dotted `key` set to `text`. Raises
    ConfigError.
    """
    full = full or key
    if isinstance(value, Run) and key.partition(".")[0] == "parametrisation":
        key = f"model.{key}"  # where it stands, for the model's function is made of it too
    head, _, rest = key.partition(".")
    hints = field_types(type(value))
    if head not in hints:
        inside = _similar_fields(head)
        exact = [place for place in inside if place.endswith(f".{head}")]
        near = (
            exact
            or difflib.get_close_matches(head, hints, 1, 0.75)
            or inside
            or difflib.get_close_matches(head, hints, 1, 0.5)
        )
        hint = f"did you mean {full[: len(full) - len(key)]}{near[0]!s}? " if near else ""
        raise ConfigError(f"no field {full!r}: {hint}{type(value).__name__} has {', '.join(hints)}")
    inner = getattr(value, head)
    if isinstance(inner, Model):
        return dataclasses.replace(value, **{head: _override_model(inner, rest, text)})
    if isinstance(inner, Optimizer) and not rest:
        return dataclasses.replace(value, **{head: _optimizer(inner, text)})
    if dataclasses.is_dataclass(inner):
        if not rest:
            raise ConfigError(
                f"{full}: name one of its fields: {', '.join(field_types(type(inner)))}"
            )
        return dataclasses.replace(value, **{head: override(inner, rest, text, full)})
    if rest:
        raise ConfigError(f"{full}: {head} is a value, it has no field {rest!r}")
    return dataclasses.replace(value, **{head: _parse(full, text, hints[head])})


def _override_model(model: Model, key: str, text: str) -> Model:
    from model import parts

    if not key:
        raise ConfigError(f"model: name one of its fields: {', '.join(field_types(Model))}")

    try:
        return parts.set_field(model, key, text)
    except ValueError as e:
        raise ConfigError(str(e)) from None


def _optimizer(before: Optimizer, text: str) -> Optimizer:
    """The optimizer that `text` names. The fields that all of them have it takes from the one
    before, unless it names them.
    """
    from model import parts
    from model import text as text_form

    try:
        node = text_form.one(text)
        made = parts.build(OPTIMIZERS, node, "optimizer")
    except ValueError as e:
        raise ConfigError(str(e)) from None
    common = {
        f.name: getattr(before, f.name)
        for f in dataclasses.fields(Optimizer)
        if f.name not in node.fields
    }
    return dataclasses.replace(made, **common)


def _similar_fields(name: str) -> list[str]:
    """Dotted places of a field named like `name` inside the sections of a Run."""
    places = {
        f.name: f"{s}.{f.name}"
        for s, t in field_types(Run).items()
        if dataclasses.is_dataclass(t)
        for f in dataclasses.fields(t)
    }
    from model import parts

    for optimizer in OPTIMIZERS.values():
        places |= {f.name: f"optimizer.{f.name}" for f in dataclasses.fields(optimizer)}
    places = {**parts.fields(), **places}
    return [places[n] for n in difflib.get_close_matches(name, places, 1, 0.7)]


def set_fields(job: Job, settings: list[str]) -> Job:
    """`job` with every `a.b=c` of `settings` applied, in order. Raises ConfigError."""
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {text}: write it as field=value, such as model.d_model=128")
        if key.startswith("where."):
            job = dataclasses.replace(
                job, where=override(job.where, key.removeprefix("where."), value.strip(), key)
            )
        else:
            job = dataclasses.replace(job, run=override(job.run, key, value.strip()))
    return job
