"""A config.json has one list of fields for all layers. Here a model is written as such a list, for
those who write a config.json. The names are those of model/records_version1.py.
"""

import dataclasses
from types import SimpleNamespace

from launch.config import ConfigError
from model import parts, records_version1
from model.config import Model
from model.mixers.softmax import head_width


def place(name: str) -> str:
    """What `--set` calls a field of the list."""
    kinds, own = records_version1.FIELDS.get(name, ((), name))
    return f"model.{kinds[0]}.{own}" if kinds else f"model.{name}"


def fields(m: Model) -> dict:
    """The list of a model, every default made explicit. Raises ConfigError where layers differ in
    more than their kind.
    """
    held = [m.norm, m.positions, *(p for layer in m.layers for p in (layer.mixer, layer.mlp))]
    for layer in m.layers:
        if own := getattr(layer.mixer, "positions", None):
            raise ConfigError(
                f"no Hugging Face family here has positions of one layer: {parts.written(own)}"
            )
    out = {name: getattr(m, name) for name in records_version1.SHARED}
    for name, (kinds, at) in records_version1.FIELDS.items():
        values = {getattr(p, at) for p in held if parts.NAMES[type(p)] in kinds}
        default = getattr(next(cls for cls, n in parts.NAMES.items() if n == kinds[0]), at)
        if len(values) > 1:
            raise ConfigError(
                f"no Hugging Face family here has layers that differ in {place(name)}:"
                f" {', '.join(map(str, sorted(values)))}"
            )
        out[name] = values.pop() if values else default
    mixer = m.layers[0].mixer
    out["kinds"] = tuple(
        (parts.NAMES[type(layer.mixer)], parts.NAMES[type(layer.mlp)]) for layer in m.layers
    )
    out["positions"], out["norm"] = parts.NAMES[type(m.positions)], parts.NAMES[type(m.norm)]
    shape = {(layer.norm, layer.residual) for layer in m.layers}
    if not shape <= {("pre", "sequential")} and not shape <= {("post", "sequential")}:
        raise ConfigError(
            "no Hugging Face family here has this model.layer.norm and model.layer.residual"
        )
    out["post_norm"] = m.layers[0].norm == "post"
    out["n_kv_heads"] = out["n_kv_heads"] or out["n_heads"]
    out["d_head"] = head_width(mixer, m)
    out["d_value"] = out["d_value"] or out["d_head"]
    out["d_ff"] = out["d_ff"] or 4 * m.d_model
    out["d_expert"] = m.routed[0].width(m) if m.routed else 0
    return out


def view(m: Model) -> SimpleNamespace:
    """`fields` as attributes, for those who write a config.json."""
    return SimpleNamespace(**fields(m), n_first=len(m.first), n_pattern=len(m.pattern))


def changed(m: Model, kind: str, **values) -> Model:
    """`m` with fields of every mixer or MLP of a kind replaced."""

    def new(part):
        own = {k: v for k, v in values.items() if parts.NAMES[type(part)] == kind}
        return dataclasses.replace(part, **own) if own else part

    def layers(old):
        return tuple(dataclasses.replace(x, mixer=new(x.mixer), mlp=new(x.mlp)) for x in old)

    return dataclasses.replace(m, pattern=layers(m.pattern), first=layers(m.first))
