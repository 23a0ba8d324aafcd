"""The weights of a model stage by stage: the embedding, each layer, the head. They are held on the
device, or read anew whenever a stage is wanted: then one layer of the model is in memory at a time.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from launch.evaluation import memory
from launch.huggingface import part_tensors
from model import account, params
from model.config import Layer, Model
from model.rope_scaling import Dynamic, LongRope

ROOM = 0.7  # of the free memory that weights may take; the rest is for activations


class Stage(NamedTuple):
    """A part of the model that is computed at a time, and its places in the tree of parameters.
    layer: None of embedding and head.
    """

    places: tuple[str, ...]
    layer: Layer | None = None


def at_length(m: Model, length: int) -> Model:
    """The model as it turns sequences of `length` tokens, where its rope goes by that."""
    found = [m.positions, *(getattr(x.mixer, "positions", None) for x in m.layers)]
    by_length = any(isinstance(getattr(p, "scaling", None), (Dynamic, LongRope)) for p in found)
    return dataclasses.replace(m, seq_len=length) if by_length else m


def embedding(m: Model) -> Stage:
    return Stage(("embed", "positions", "norm_embed"))


def head(m: Model) -> Stage:
    return Stage(("norm_out", "embed" if m.tied else "head"))


def layers(m: Model) -> Iterator[Stage]:
    """Every layer, from the first on."""
    for _, place, layer in part_tensors.layers(m):
        yield Stage((place,), layer)


def stages(m: Model) -> Iterator[Stage]:
    """All of a model, in order."""
    yield embedding(m)
    yield from layers(m)
    yield head(m)


class Weights:
    """read(places) -> {"params", "buffers"} of what lies under them, float32. dtype: of the
    matmuls; what is multiplied is kept in it. stream: read a stage whenever it is wanted, and hold
    none. by_call: rope whose scaling depends on a length goes by that of what is computed together,
    as transformers has it for the models that it released; else by the model's own.
    """

    def __init__(
        self, model: Model, read: Callable, dtype: str, stream: bool, by_call: bool = False
    ):
        self.model, self.dtype, self.stream, self.by_call = model, dtype, stream, by_call
        self._read, self._held = read, {}

    def of(self, stage: Stage) -> dict:
        """{"params", "buffers"} of a stage as its module takes them, on the device."""
        trees = [self._place(p) for p in stage.places]
        if stage.layer is not None:
            for name in stage.places[0].split("/"):
                trees = [{k: v.get(name, {}) for k, v in trees[0].items()}]
        return {k: {n: a for t in trees for n, a in t[k].items()} for k in ("params", "buffers")}

    def _place(self, place: str) -> dict:
        if place in self._held:  # of a tied model embedding and head share the table
            return self._held[place]
        tree = self._read((place,))
        cast = params.at_use(tree["params"], self.dtype)
        found = jax.device_put({"params": cast, "buffers": tree["buffers"]})
        if not self.stream:
            self._held[place] = found
        return found

    def whole(self) -> dict:
        """{"params", "buffers"} of the model, layers unrolled."""
        out: dict = {"params": {}, "buffers": {}}
        for stage in stages(self.model):
            for place in stage.places:
                _merge(out, self._place(place))
        return out


def _merge(into: dict, tree: dict) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


def under(tree: dict, places: tuple[str, ...]) -> dict:
    """{"params", "buffers"} of what lies under `places` of a whole tree of parameters."""
    out: dict = {"params": {}, "buffers": {}}
    for kind in out:
        for place in places:
            node, to = tree.get(kind, {}), out[kind]
            *parents, last = place.split("/")
            for name in parents:
                node, to = node.get(name, {}), to.setdefault(name, {})
            if last in node:
                to[last] = node[last]
    return out


def size(m: Model, dtype: str) -> int:
    """Bytes of the weights where they are held."""
    return account.parameters(m)["total"] * (4 if dtype == "float32" else 2)


def fits(m: Model, dtype: str) -> bool:
    """Whether the weights may be held in the memory that is free now."""
    left = memory.free()
    return left is None or size(m, dtype) <= ROOM * left
