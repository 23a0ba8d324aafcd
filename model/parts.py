"""The registered parts, and models from and to their text form (model/text.py).

    parts.model("attention(window=128)/dense, attention/moe(top_k=1)", d_model=64, n_layers=4)

A part is named with the fields that differ from its defaults. `set_field` reaches into a model by a
dotted name: ``attention.n_heads`` is that field of every attention, ``pattern[1].mixer.window`` of
one; ``mixer``, ``mlp`` and ``layer`` stand for whatever is there.
"""

import dataclasses
import difflib
import re
import typing
from typing import Any

from model import records_version1, text
from model.config import Layer, Model, choose
from model.registry import MIXERS, MLPS, NORMS, PARAMETRISATIONS, POSITIONS, SCALINGS

# what a field of a model, a layer or a part may hold
REGISTRIES: dict[str, dict[str, Any]] = {
    "mixer": MIXERS,
    "mlp": MLPS,
    "positions": POSITIONS,
    "norm": NORMS,
    "parametrisation": PARAMETRISATIONS,
    "scaling": SCALINGS,
}
NAMES = {cls: name for table in REGISTRIES.values() for name, cls in table.items()}
LAYERS = ("pattern", "first")  # fields of a model that hold layers
PARTS = ("positions", "norm", "parametrisation")  # and those that hold a part
FLOATS = tuple[float, ...]  # a field that holds a list of numbers
DEFAULTS = {
    "pattern": "attention/dense",
    "first": "",
    "positions": "rope",
    "norm": "rmsnorm",
    "parametrisation": "standard",
}
UNSAID = ("parametrisation",)  # at its default, as records before it have it: they stay alike


def model(pattern: str | tuple = DEFAULTS["pattern"], **fields) -> Model:
    """A Model; layers and parts as values or as text. Raises ValueError."""
    fields = {**DEFAULTS, "pattern": pattern, **fields}
    for name in LAYERS:
        if isinstance(fields[name], str):
            fields[name] = layers(fields[name])
    for name in PARTS:
        if isinstance(fields[name], str):
            fields[name] = part(name, fields[name])
    return Model(**fields)


def layers(written: str) -> tuple[Layer, ...]:
    """The layers of a text. Raises ValueError that names the nearest part or field."""
    out = []
    for nodes in text.parse(written):
        if not 2 <= len(nodes) <= 3 or len(nodes) == 3 and nodes[2].name != "layer":
            read = "/".join(text.write(n) for n in nodes)
            raise ValueError(
                f"model.pattern entry {read!r} must read mixer/mlp, such as attention/dense, and"
                " /layer(norm=post) after it where the layer has fields of its own"
            )
        own = _typed(Layer, nodes[2], "layer") if len(nodes) == 3 else {}
        out.append(Layer(_made("mixer", nodes[0]), _made("mlp", nodes[1]), **own))
    return tuple(out)


def part(kind: str, written: str):
    """A part of a registry out of its text. Raises ValueError."""
    return _made(kind, text.one(written))


def _made(kind: str, node: text.Node):
    what = {"mixer": "mixer in model.pattern", "mlp": "MLP in model.pattern"}
    return build(REGISTRIES[kind], node, what.get(kind, f"model.{kind}"))


def build(table: dict[str, type], node: text.Node, what: str):
    """The value that a node names, of the classes of `table`. Raises ValueError."""
    cls = choose(table, node.name, what)
    return cls(**_typed(cls, node, node.name))


def _typed(cls, node: text.Node, name: str) -> dict:
    """The fields of a node as the class wants them."""
    return {key: typed(cls, key, value, f"{name}.{key}") for key, value in node.fields.items()}


def check_apart(m: Model) -> None:
    """Raises ValueError unless every part of `m` keeps documents apart."""
    off = "data.documents=joined"
    _check_able(m, "apart", "data.documents=apart", "does not stop at a document's end", off)


def check_transfer(m: Model) -> None:
    """Raises ValueError unless the parametrisation of `m` covers every part."""
    if m.parametrisation.scales:
        field = "model.parametrisation"
        asked, off = f"{field}={NAMES[type(m.parametrisation)]}", f"{field}=standard"
        _check_able(m, "transfers", asked, "is not covered", off)


def _check_able(m: Model, what: str, asked: str, unable: str, off: str) -> None:
    """Raises ValueError unless every mixer and MLP has a true attribute `what`."""
    for name in ("mixer", "mlp"):
        for held in (getattr(layer, name) for layer in m.layers):
            if not getattr(held, what, False):
                able = [n for n, cls in REGISTRIES[name].items() if getattr(cls, what, False)]
                raise ValueError(
                    f"{asked}: {name} {NAMES.get(type(held), type(held).__name__)} {unable}:"
                    f" choose from {', '.join(able)}, or set {off}"
                )


def kinds(cls) -> dict[str, Any]:
    """{field: type} of a part; a field that holds a part has the name of its registry."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    plain = (str, int, float, bool, FLOATS)
    return {n: hints[n] if hints[n] in plain else n for n in names}


def typed(cls, key: str, value, where: str):
    """`value` for a field of `cls`, as text or as read. Raises ValueError with the type named."""
    known = kinds(cls)
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"no field {where!r}: {hint}{where.split('.')[-2]} has {', '.join(known)}")
    kind = known[key]
    if isinstance(kind, str):
        node = value if isinstance(value, text.Node) else text.one(str(value))
        return _made(kind, node)
    return _plain(value, kind, where)


def _plain(value, kind: Any, where: str):
    """A number, a truth value, a word or a list of numbers as `kind`. Raises ValueError with the
    type named.
    """
    if isinstance(value, text.Node):
        value = text.write(value)
    if kind == FLOATS:
        return tuple(_plain(v, float, where) for v in _listed(value, where))
    if isinstance(value, str) and kind is not str:
        raise ValueError(f"{where}={value}: cannot read it as {kind.__name__}")
    if kind is float and type(value) is int:
        value = float(value)
    if kind is int and type(value) is float and value.is_integer():  # 1e6
        value = int(value)
    if type(value) is not kind:
        raise ValueError(f"{where}={value}: {kind.__name__} expected, not {type(value).__name__}")
    return value


def _listed(value, where: str) -> tuple:
    if not isinstance(value, tuple):
        raise ValueError(f"{where}={value}: a list of numbers expected, such as [1.0,2.5]")
    return value


def _name(cls) -> str:
    return "layer" if cls is Layer else NAMES[cls]


def node(value, full: bool = False) -> text.Node:
    """A part as it is written: fields that differ from their defaults, or all."""
    out = {}
    for f in dataclasses.fields(value):
        held = getattr(value, f.name)
        if held is not None and (full or held != f.default):
            out[f.name] = node(held, full) if dataclasses.is_dataclass(held) else held
    return text.Node(_name(type(value)), out)


def written(value, full: bool = False) -> str:
    """The text of a part, a layer, or a tuple of layers."""
    if isinstance(value, tuple):
        return ", ".join(written(layer, full) for layer in value)
    if not isinstance(value, Layer):
        return text.write(node(value, full))
    own = {
        f.name: getattr(value, f.name)
        for f in dataclasses.fields(Layer)[2:]
        if full or getattr(value, f.name) != f.default
    }
    end = "/" + text.write(text.Node("layer", own)) if own else ""
    return f"{written(value.mixer, full)}/{written(value.mlp, full)}{end}"


def to_dict(m: Model, full: bool = True) -> dict:
    """A model as JSON-ready values, parts as text; every field, or those that differ from their
    defaults.
    """
    out = {}
    for f in dataclasses.fields(Model):
        value = getattr(m, f.name)
        if f.name in DEFAULTS:
            default = DEFAULTS[f.name]
            said = full and f.name not in UNSAID
            if said or written(value) != default:
                out[f.name] = written(value, full)
        elif full or value != f.default:
            out[f.name] = value
    return out


# --set


def _places(m: Model):
    """(path, part) of every part and layer of a model: ("pattern", 1, "mixer")."""
    for name in LAYERS:
        for i, layer in enumerate(getattr(m, name)):
            yield (name, i), layer
            for at in ("mixer", "mlp"):
                held = getattr(layer, at)
                yield from _inside((name, i, at), held)
    for name in PARTS:
        yield from _inside((name,), getattr(m, name))


def _inside(path: tuple, held):
    """A part, and the parts that its fields hold."""
    yield path, held
    for f in dataclasses.fields(held):
        if dataclasses.is_dataclass(getattr(held, f.name)):
            yield from _inside((*path, f.name), getattr(held, f.name))


def _replaced(value, path: tuple, new):
    """`value` with what stands at `path` replaced."""
    if not path:
        return new
    head, rest = path[0], path[1:]
    if isinstance(value, tuple):
        changed = list(value)
        changed[head] = _replaced(value[head], rest, new)
        return tuple(changed)
    return dataclasses.replace(value, **{head: _replaced(getattr(value, head), rest, new)})


def _found(m: Model, names: list[str], key: str) -> list[tuple]:
    """Paths of the parts that all but the last of a dotted name stand for. Raises ValueError."""
    places = dict(_places(m))
    if len(names) == 1 and "[" not in names[0]:
        kind = names[0]
        paths = [
            path
            for path, held in places.items()
            if kind in (_name(type(held)), path[-1]) or kind == "layer" and isinstance(held, Layer)
        ]
        if paths:
            return paths
        here = dict.fromkeys(_name(type(held)) for held in places.values())
        if kind in NAMES.values():
            raise ValueError(
                f"{key}: this model has no {kind}: set model.pattern first; it has"
                f" {', '.join(here)}"
            )
        near = difflib.get_close_matches(kind, NAMES.values(), 1)
        hint = f"did you mean model.{near[0]}? " if near else ""
        raise ValueError(f"no field {key!r}: {hint}parts of this model are {', '.join(here)}")
    path = []
    for name in names:
        indexed = re.fullmatch(r"(\w+)\[(\d+)\]", name)
        path += [indexed[1], int(indexed[2])] if indexed else [name]
    if tuple(path) not in places:
        near = difflib.get_close_matches(".".join(names), map(_dotted, places), 1)
        hint = f"did you mean model.{near[0]}? " if near else ""
        raise ValueError(f"{key}: this model has no such place: {hint}see model.pattern")
    return [tuple(path)]


def _dotted(path: tuple) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def places(m: Model, key: str) -> list[tuple]:
    """Paths of the parts that `set_field` reaches by `key`; none where it would raise."""
    try:
        return _found(m, key.split(".")[:-1], f"model.{key}") if "." in key else []
    except ValueError:
        return []


def set_field(m: Model, key: str, value: str) -> Model:
    """`m` with the field at dotted `key` (without "model.") set to the text `value`. Raises
    ValueError.
    """
    full = f"model.{key}"
    names = key.split(".")
    if len(names) == 1:
        return _set_own(m, key, value, full)
    for path in _found(m, names[:-1], full):
        held = dict(_places(m))[path]
        read = typed(type(held), names[-1], text.literal(value), full)
        m = _replaced(m, (*path, names[-1]), read)
    return m


def _set_own(m: Model, key: str, value: str, full: str) -> Model:
    """A field of the model itself, a place such as pattern[1], or all of mixer or mlp."""
    if key in LAYERS:
        return _replaced(m, (key,), layers(value))
    if key in PARTS:
        return _replaced(m, (key,), part(key, value))
    if indexed := re.fullmatch(r"(pattern|first)\[(\d+)\]", key):
        path, new = (indexed[1], int(indexed[2])), layers(value)
        if path not in dict(_places(m)) or len(new) != 1:
            raise ValueError(f"{full}={value}: one layer for one that is there expected")
        return _replaced(m, path, new[0])
    own: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(Model)}
    if key not in own:
        raise ValueError(_unknown(m, key, own))
    return _replaced(m, (key,), _plain(text.literal(value), own[key], full))


def fields() -> dict[str, str]:
    """{field: where it stands in a Run} of every part, the first that has it."""
    out = {}
    for cls in (Layer, *NAMES):
        for f in dataclasses.fields(cls):
            out.setdefault(f.name, f"model.{_name(cls)}.{f.name}")
    return out


def _unknown(m: Model, key: str, own: dict) -> str:
    """What is said of a field that a model does not have: the parts that do have it, here first."""
    places = {}
    for cls in dict.fromkeys([*(type(held) for _, held in _places(m)), Layer, *NAMES]):
        for f in dataclasses.fields(cls):
            places.setdefault(f.name, []).append(f"{_name(cls)}.{f.name}")
    if key in records_version1.FIELDS:  # what it was called before
        kinds, name = records_version1.FIELDS[key]
        places[key] = sorted((f"{k}.{name}" for k in kinds), key=lambda x: x not in places[name])
    places |= {"first_layers": ["first"], "post_norm": ["layer.norm"]}
    near = difflib.get_close_matches(key, [*places, *own], 1, 0.6)
    hint = ""
    if near:
        found = places[near[0]][:2] if near[0] in places else near
        hint = "did you mean " + " or ".join(f"model.{n}" for n in found) + "? "
    return f"no field 'model.{key}': {hint}Model has {', '.join(own)}"
