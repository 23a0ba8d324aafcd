"""Reads and writes folders of config.json and safetensors."""

import hashlib
import json
import os

import jax
import numpy as np

from launch import files
from launch.config import ConfigError
from launch.huggingface import checkpoint
from launch.huggingface.checkpoint import Checkpoint
from launch.huggingface.comparing import family_of, single_gate
from launch.huggingface.config_values import Config, fixed
from launch.huggingface.families import FAMILIES, REFUSED
from model.config import Model, check


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


def fingerprint(hf_dir: str) -> str:
    """SHA-256 over config.json and the weights."""
    digest = hashlib.sha256()
    for path in [os.path.join(hf_dir, "config.json"), *checkpoint.files(hf_dir)]:
        with open(path, "rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return "hf:" + digest.hexdigest()[:16]


def opened(hf_dir: str, c: Model | None = None) -> Checkpoint:
    """The weights of a folder, of which nothing is read yet. c: the model that they are to fill; by
    default the one that config.json describes. Raises ConfigError.
    """
    name, own, _ = read_config(hf_dir)
    c = c or own
    return Checkpoint(hf_dir, name, c, FAMILIES[name].tensors(c))


def load(hf_dir: str, c: Model | None = None) -> tuple[Model, dict]:
    """(Model, {"params", "buffers"} of float32 numpy arrays, layers unrolled) of a folder. Raises
    ConfigError naming the tensor that is missing, left over, or of another shape. Read tensor by
    tensor: above the model stands what one entry of the family's table reads, a matrix or a layer's
    experts.
    """
    found = opened(hf_dir, c)
    return found.model, found.read()


def save(hf_dir: str, c: Model, variables: dict, more: dict | None = None) -> str:
    """Writes config.json and model.safetensors into `hf_dir`, which must not hold any yet, and
    returns the family. Layers of `variables` are unrolled. more: further fields of config.json.
    Raises ConfigError or RecordError.
    """
    from safetensors.numpy import save_file

    c = c.parametrisation.plain(c)  # whose multipliers a family has, or is refused for
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
