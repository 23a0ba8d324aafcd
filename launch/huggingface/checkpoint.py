"""The weights of a folder, as the tree of a model: all of them, or those of a layer alone."""

import glob
import json
import os

import jax
import numpy as np

from launch.config import ConfigError
from launch.huggingface import tensor_files
from launch.huggingface.tensors import Entry
from model.config import Model
from model.lm import abstract, buffers

# what other programs leave in a file and no model reads
IGNORED_FIRST = ("mtp.",)  # layers that predict further tokens
IGNORED = (
    *("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "position_ids"),
    *(".attention.bias", ".attention.masked_bias"),
)


def files(hf_dir: str) -> list[str]:
    """The files with weights: those of the index, or all that lie there."""
    if (found := tensor_files.shards(hf_dir)) is not None:
        return found
    found = sorted(glob.glob(os.path.join(glob.escape(hf_dir), "*.safetensors")))
    if not found:
        others = [
            os.path.basename(p)
            for e in ("bin", "pt", "pth", "pkl")
            for p in glob.glob(os.path.join(glob.escape(hf_dir), f"*.{e}"))
        ]
        why = (
            f" ({others[0]} is a pickle, which can run code: convert it to safetensors)"
            if others
            else ""
        )
        raise ConfigError(f"{hf_dir} holds no model.safetensors{why}")
    return found


class Checkpoint:
    """Every tensor of the folder is found, its shape compared and its dtype looked at before any
    number is read. Raises ConfigError naming the tensor that is missing, left over, or of another
    shape.

    name: of the family; entries: its table for `model`.
    """

    def __init__(self, hf_dir: str, name: str, model: Model, entries: list[Entry]):
        self.model, self._entries, self._shapes = model, entries, _shapes(model)
        found = {k: t for path in files(hf_dir) for k, t in tensor_files.header(path).items()}
        whole = any(t in found for e in entries for t in e.theirs)
        prefix = "" if whole else _prefix(entries, found)
        self._tensors, used = {}, set()
        for e in entries:
            for theirs, shape in zip(e.theirs, self._wanted(e)):
                stored = theirs.removeprefix(prefix)
                if stored not in found:
                    raise ConfigError(
                        f"{hf_dir}: tensor {stored} is missing; config.json ({name}) asks for it"
                        f" with shape {list(shape)}"
                    )
                if found[stored].shape != shape:
                    raise ConfigError(
                        f"{hf_dir}: tensor {stored} has shape {list(found[stored].shape)},"
                        f" config.json ({name}) asks for {list(shape)}"
                    )
                found[stored].check()
                self._tensors[theirs] = found[stored]
                used.add(stored)
        if model.tied:
            used |= {"lm_head.weight", "head.weight", "embed_out.weight"}
        unread = (*IGNORED_FIRST, *_further(hf_dir, model.n_layers))
        left = [
            t
            for t in found
            if t not in used and not t.endswith(IGNORED) and not t.startswith(unread)
        ]
        if left:
            raise ConfigError(
                f"{hf_dir}: tensor {left[0]} is not part of a {name} model of this config.json"
                f" ({len(left)} left over)"
            )
        if missing := self._shapes.keys() - {o for e in entries for o in e.ours}:
            raise ConfigError(f"family {name} has no place for {sorted(missing)[0]}")

    def _wanted(self, e: Entry) -> list[tuple]:
        """The shapes of an entry's tensors."""
        ours = [np.broadcast_to(np.int8(0), self._shapes[o]) for o in e.ours]
        return [np.asarray(a).shape for a in e.write(ours)]

    def read(self, places: tuple[str, ...] = ("",)) -> dict:
        """{"params", "buffers"} of float32 numpy arrays, layers unrolled: all, or what lies under
        `places`, such as embed or group_3/layer_0. Tensor by tensor: above the result stands what
        one entry reads.
        """
        flat = {}
        for e in self._entries:
            if not any(_under(o.partition("/")[2], p) for o in e.ours for p in places):
                continue
            arrays = [self._tensors[t].read() for t in e.theirs]
            # turned round as they are stored, and made float32 once, in place
            for path, a in zip(e.ours, e.read(arrays, [self._shapes[o] for o in e.ours])):
                flat[path] = np.ascontiguousarray(a, np.float32)
        return _nested(flat)


def _under(path: str, place: str) -> bool:
    return not place or path == place or path.startswith(f"{place}/")


def _shapes(c: Model) -> dict[str, tuple]:
    """{path: shape} of every parameter and buffer of the unrolled model."""

    def is_box(x):
        return hasattr(x, "value")

    flat = jax.tree_util.tree_leaves_with_path(abstract(c), is_leaf=is_box)

    def path(keys):
        return "/".join(str(k.key) for k in keys)

    out = {f"params/{path(k)}": tuple(b.value.shape) for k, b in flat}
    return out | {
        f"buffers/{path(k)}": tuple(b.shape)
        for k, b in jax.tree_util.tree_leaves_with_path(buffers(c))
    }


def _nested(flat: dict) -> dict:
    out = {"params": {}, "buffers": {}}
    for path, a in flat.items():
        *parents, name = path.split("/")
        node = out
        for p in parents:
            node = node.setdefault(p, {})
        node[name] = a
    return out


def _further(hf_dir: str, n_layers: int) -> list[str]:
    """How tensors begin of layers after the last one, which predict further tokens: as many as the
    config says (DeepSeek-V3, GLM-4.5).
    """
    with open(os.path.join(hf_dir, "config.json")) as f:
        count = json.load(f).get("num_nextn_predict_layers")
    named = range(min(count, 100)) if isinstance(count, int) else ()
    return [f"model.layers.{n_layers + i}." for i in named]


def _prefix(table: list[Entry], found) -> str:
    """Base models are saved without the name of their body, such as `transformer.`."""
    body = table[0].theirs[0].partition(".")[0] + "."
    names = {t for e in table for t in e.theirs}
    return body if any(f"{body}{t}" in names for t in found) else ""
