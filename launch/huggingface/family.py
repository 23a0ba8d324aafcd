"""What a family is, and what its readers and writers share. A family is a value with functions of a
whole Model: nothing here asks that layers be alike.
"""

from collections.abc import Callable
from typing import NamedTuple

from launch.config import ConfigError
from launch.huggingface.tensors import Entry
from model import parts
from model.config import Layer, Model


class Family(NamedTuple):
    """read(config.json as config_values.Config) -> Model; write(Model) -> config.json's fields;
    tensors(Model) -> where every tensor stands. `defaults` stand in for fields that config.json
    leaves out, as in the family's own class; `fixed` are fields that must have this value.

    `write` may be asked to write any model: it writes what it has a field for, and raises
    ConfigError where a part is missing that it needs. Whether the family computes the model is
    decided by reading again what was written (comparing.family_of).
    """

    architecture: str
    read: Callable[..., Model]
    write: Callable[[Model], dict]
    tensors: Callable[[Model], list[Entry]]
    defaults: dict
    fixed: dict = {}


def held(m: Model, kind: type) -> list:
    """The mixers or MLPs of a class, in order of depth."""
    return [p for layer in m.layers for p in (layer.mixer, layer.mlp) if type(p) is kind]


def one(m: Model, kind: type):
    """The first mixer or MLP of a class. Raises ConfigError where there is none."""
    found = held(m, kind)
    if not found:
        raise ConfigError(f"this model has no {parts.NAMES[kind]}")
    return found[0]


def tiled(layers: list[Layer]) -> dict:
    """{"pattern", "first"}: the shortest pattern that tiles to `layers`; else with the fewest
    layers before it, such as 2 and 3 of Griffin's 26.
    """
    count, best = len(layers), (len(layers), 0)
    for n in range(1, count):
        same = next((i for i in range(count - 1, n - 1, -1) if layers[i] != layers[i - n]), n - 1)
        first = same - n + 1  # layers after these repeat with period n
        first += (count - first) % n
        if count - first >= 2 * n and n + first < sum(best):
            best = n, first
    n, first = best
    return {"pattern": tuple(layers[first : first + n]), "first": tuple(layers[:first])}
