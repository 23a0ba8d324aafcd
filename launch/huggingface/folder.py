"""Reads and writes folders of config.json and safetensors."""

import glob
import hashlib
import json
import os

import jax
import numpy as np

from launch import files
from launch.config import ConfigError
from launch.huggingface import tensor_files
from launch.huggingface.comparing import family_of, single_gate
from launch.huggingface.config_values import Config, fixed
from launch.huggingface.families import FAMILIES, REFUSED
from model.config import Model, check
from model.lm import abstract, buffers

# what other programs leave in a file and no model reads
IGNORED_FIRST = ("mtp.",)  # layers that predict further tokens
IGNORED = (
    *("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "position_ids"),
    *(".attention.bias", ".attention.masked_bias"),
)


def read_config(hf_dir: str, counting: bool = False) -> tuple[str, Model, list[str]]:
    """(family, the equivalent Model, what was passed over) of HF_DIR/config.json. Raises
    ConfigError.

    counting: only the counts are wanted; fields that change the function but no count are passed
    over, and named.
    """
    path = os.path.join(hf_dir, "config.json")
    if not os.path.isfile(path):
        raise ConfigError(f"{hf_dir} holds no config.json: give a folder in Hugging Face's format")
    try:
        with open(path) as f:
            given = json.load(f)
        name = given.get("model_type")
        if isinstance(name, (dict, list)):
            raise ValueError(f"model_type={name!r} is no name")
    except (OSError, ValueError, AttributeError, RecursionError) as e:
        raise ConfigError(
            f"{path} is not a readable JSON object ({type(e).__name__}: {e})"
        ) from None
    if name in REFUSED:
        raise ConfigError(f"{path}: model_type {name!r} is not read: {REFUSED[name]}")
    if name not in FAMILIES:
        raise ConfigError(
            f"{path}: model_type {name!r} is not known here: families are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    cfg = Config(given, family.defaults, counting)
    fixed(cfg, {**family.fixed, "quantization_config": None})
    try:
        c = family.read(cfg)
        check(c)
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as e:
        raise ConfigError(f"{path}: {e}") from None
    return name, c, cfg.ignored


def _files(hf_dir: str) -> list[str]:
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


def fingerprint(hf_dir: str) -> str:
    """SHA-256 over config.json and the weights."""
    digest = hashlib.sha256()
    for path in [os.path.join(hf_dir, "config.json"), *_files(hf_dir)]:
        with open(path, "rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return "hf:" + digest.hexdigest()[:16]


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


def load(hf_dir: str, c: Model | None = None) -> tuple[Model, dict]:
    """(Model, {"params", "buffers"} of float32 numpy arrays, layers unrolled) of a folder. Raises
    ConfigError naming the tensor that is missing, left over, or of another shape. c: the model to
    fill; by default the one that config.json describes. Read tensor by tensor: above the model
    stands what one entry of the family's table reads, a matrix or a layer's experts.
    """
    name, own, _ = read_config(hf_dir)
    c = c or own
    found = {k: t for path in _files(hf_dir) for k, t in tensor_files.header(path).items()}
    table, shapes = FAMILIES[name].tensors(c), _shapes(c)
    prefix = "" if any(t in found for e in table for t in e.theirs) else _prefix(table, found)
    used, flat = set(), {}
    for e in table:
        want = [
            np.asarray(a).shape
            for a in e.write([np.broadcast_to(np.int8(0), shapes[o]) for o in e.ours])
        ]
        arrays = []
        for theirs, shape in zip(e.theirs, want):
            theirs = theirs.removeprefix(prefix)
            if theirs not in found:
                raise ConfigError(
                    f"{hf_dir}: tensor {theirs} is missing; config.json ({name}) asks for it with"
                    f" shape {list(shape)}"
                )
            stored = found[theirs].shape
            if stored != shape:
                raise ConfigError(
                    f"{hf_dir}: tensor {theirs} has shape {list(stored)}, config.json ({name}) asks"
                    f" for {list(shape)}"
                )
            arrays.append(found[theirs].read())
            used.add(theirs)
        # turned round as they are stored, and made float32 once, in place
        for path, a in zip(e.ours, e.read(arrays, [shapes[o] for o in e.ours])):
            flat[path] = np.ascontiguousarray(a, np.float32)
    if c.tied:
        used |= {"lm_head.weight", "head.weight", "embed_out.weight"}
    unread = (*IGNORED_FIRST, *_further(hf_dir, c.n_layers))
    left = [
        t for t in found if t not in used and not t.endswith(IGNORED) and not t.startswith(unread)
    ]
    if left:
        raise ConfigError(
            f"{hf_dir}: tensor {left[0]} is not part of a {name} model of this config.json"
            f" ({len(left)} left over)"
        )
    if missing := shapes.keys() - flat.keys():
        raise ConfigError(f"family {name} has no place for {sorted(missing)[0]}")
    return c, _nested(flat)


def _further(hf_dir: str, n_layers: int) -> list[str]:
    """How tensors begin of layers after the last one, which predict further tokens: as many as the
    config says (DeepSeek-V3, GLM-4.5).
    """
    with open(os.path.join(hf_dir, "config.json")) as f:
        count = json.load(f).get("num_nextn_predict_layers")
    named = range(min(count, 100)) if isinstance(count, int) else ()
    return [f"model.layers.{n_layers + i}." for i in named]


def _prefix(table, found) -> str:
    """Base models are saved without the name of their body, such as `transformer.`."""
    body = table[0].theirs[0].partition(".")[0] + "."
    names = {t for e in table for t in e.theirs}
    return body if any(f"{body}{t}" in names for t in found) else ""


def save(hf_dir: str, c: Model, variables: dict, more: dict | None = None) -> str:
    """Writes config.json and model.safetensors into `hf_dir`, which must not hold any yet, and
    returns the family. Layers of `variables` are unrolled. more: further fields of config.json.
    Raises ConfigError or RecordError.
    """
    from safetensors.numpy import save_file

    name, c = family_of(c), single_gate(c)
    taken = [
        f for f in ("config.json", "model.safetensors") if os.path.exists(os.path.join(hf_dir, f))
    ]
    if taken:
        raise ConfigError(f"{hf_dir} already holds {taken[0]}: give another folder")
    files.writable(hf_dir)
    flat = {
        "/".join(str(k.key) for k in path): np.asarray(a, np.float32)
        for path, a in jax.tree_util.tree_leaves_with_path(variables)
    }
    tensors = {}
    for e in FAMILIES[name].tensors(c):
        tensors |= {
            t: np.ascontiguousarray(a) for t, a in zip(e.theirs, e.write([flat[o] for o in e.ours]))
        }
    family = FAMILIES[name]
    config = {
        "architectures": [family.architecture],
        "model_type": name,
        "dtype": "float32",
        **family.write(c),
        **(more or {}),
    }
    save_file(tensors, os.path.join(hf_dir, "model.safetensors"), metadata={"format": "pt"})
    files.write_json(os.path.join(hf_dir, "config.json"), config)
    return name
