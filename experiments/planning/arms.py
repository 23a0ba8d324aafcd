"""The arms that a sweep compares: what each puts into the model that all of them start from.

An arm is a part or a list of layers, as a value or as its text. A mixer, an MLP, a position or a
norm takes the place of those of the base model; layers take the place of its pattern. What an arm
leaves at its default it takes from the base, field by field of equal name: an arm `MoE()` on a base
of `dense(activation=swiglu)` has gated experts.
"""

import dataclasses
from typing import Any

from launch.config import ConfigError
from model import parts
from model.config import Layer, Model
from model.mlps import Dense, MoE
from model.positions import Learned, Rope, Sinusoidal

# A recipe can have arms of its own (experiments/planning/grid.py, `Sweep.arms`); these have a name
# everywhere.
ARMS = {
    "dense": Dense(),
    "moe": MoE(),
    "sinusoidal": Sinusoidal(),
    "learned": Learned(),
    "rope": Rope(),
    # experts / chosen, each 1 / chosen as wide as the dense MLP: equal active and equal total
    # parameters but for the router
    "moe_8_1": MoE(n_experts=8, top_k=1),
    "moe_32_4": MoE(n_experts=32, top_k=4),
    "moe_64_8": MoE(n_experts=64, top_k=8),
}


def text(value) -> str:
    """The text of an arm."""
    if isinstance(value, str):
        return value
    return parts.written((value,) if isinstance(value, Layer) else value)


def _read(arm: str) -> tuple[str, Any]:
    """(what it takes the place of, the value). Raises ConfigError."""
    try:
        if "/" in arm:
            return "pattern", parts.layers(arm)
        name = arm.partition("(")[0].strip()
        for kind, table in parts.REGISTRIES.items():
            if name in table:
                return kind, parts.part(kind, arm)
        return "mlp", parts.part("mlp", arm)  # names the nearest
    except ValueError as e:
        raise ConfigError(f"arm {arm!r}: {e}") from None


def _over(base, part):
    """`part`, which takes from `base` what it leaves at its default."""
    have = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    own = {
        f.name: have[f.name]
        for f in dataclasses.fields(part)
        if getattr(part, f.name) == f.default and f.name in have
    }
    if type(part) is not type(base):  # a width of another kind of part is its own
        own.pop("d_expert", None)
    return dataclasses.replace(part, **own)


def apply(base: Model, arm: str) -> Model:
    """`base` with the arm in it. Raises ConfigError."""
    kind, value = _read(arm)
    if kind in ("positions", "norm"):
        return dataclasses.replace(base, **{kind: _over(getattr(base, kind), value)})
    if kind == "pattern":
        like = base.pattern[0]
        pattern = tuple(
            dataclasses.replace(
                _over(like, layer),
                mixer=_over(like.mixer, layer.mixer),
                mlp=_over(like.mlp, layer.mlp),
            )
            for layer in value
        )
        return dataclasses.replace(base, pattern=pattern)

    def put(layer):
        return dataclasses.replace(layer, **{kind: _over(getattr(layer, kind), value)})

    return dataclasses.replace(
        base, pattern=tuple(map(put, base.pattern)), first=tuple(map(put, base.first))
    )


def set_field(arm: str, key: str, value: str) -> str:
    """The text of an arm with a part's field set, as by ``--set model.KEY=VALUE``; "" where the arm
    has no such part. Raises ConfigError.
    """
    kind, held = _read(arm)
    if kind == "pattern":
        alone = parts.model(held)
    else:
        alone = parts.model(**{kind: held}) if kind in parts.PARTS else None
    if alone is None:
        layer = {"mixer": parts.MIXERS["attention"](), "mlp": Dense(), kind: held}
        alone = parts.model((Layer(**layer),))
    found = [p for p in parts.places(alone, key) if _inside(p, kind)]
    if not found:
        return ""
    try:
        new = parts.set_field(alone, key, value)
    except ValueError as e:
        raise ConfigError(str(e)) from None
    if kind == "pattern" or kind in parts.PARTS:
        return text(getattr(new, kind))
    return text(getattr(new.pattern[0], kind))


def _inside(path: tuple, kind: str) -> bool:
    """Whether a place of the model is one that the arm itself fills."""
    if kind in parts.PARTS:
        return path[0] == kind
    return path[0] == "pattern" and (kind == "pattern" or kind in path)
