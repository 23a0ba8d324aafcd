"""OLMo 2 and 3: norms after mixer and MLP, queries and keys normed over all heads."""

import functools

from launch.huggingface.config_values import Config
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_attention,
    read_dense,
    read_shared,
    read_windows,
    write_attention,
    write_dense,
    write_shared,
    write_windows,
)
from launch.huggingface.family import Family, tiled
from launch.huggingface.part_tensors import of_model
from launch.huggingface.rope_values import ropes, write_ropes
from model import parts
from model.config import Layer, Model

_NAMES = NAMES._replace(
    norms={
        "norm_after_mixer": "post_attention_layernorm",
        "norm_after_mlp": "post_feedforward_layernorm",
    }
)
_DEFAULTS = {**DEFAULTS, "rms_norm_eps": 1e-5, "attention_bias": False}


def _read_olmo2(cfg: Config) -> Model:
    layer = Layer(read_attention(cfg, qk_norm="full"), read_dense(cfg), norm="output")
    return parts.model((layer,), **read_shared(cfg))


def _write_olmo2(m: Model) -> dict:
    return {**write_shared(m), **write_attention(m), **write_dense(m)}


OLMO2 = Family(
    "Olmo2ForCausalLM", _read_olmo2, _write_olmo2, functools.partial(of_model, _NAMES), _DEFAULTS
)


def _read_olmo3(cfg: Config) -> Model:
    n, mlp = cfg["num_hidden_layers"], read_dense(cfg)
    full, local = ropes(cfg, 500_000.0, cfg.get("rope_theta") or 500_000.0)
    kinds = ["full_attention" if i % 4 == 3 else "sliding_attention" for i in range(n)]
    layers = []
    for window in read_windows(cfg, kinds):
        own = local if window and local != full else None
        mixer = read_attention(cfg, qk_norm="full", window=window, positions=own)
        layers.append(Layer(mixer, mlp, norm="output"))
    return parts.model(**tiled(layers), **read_shared(cfg, positions=full))


def _write_olmo3(m: Model) -> dict:
    return {**_write_olmo2(m), **write_windows(m), **write_ropes(m)}


OLMO3 = Family(
    "Olmo3ForCausalLM",
    _read_olmo3,
    _write_olmo3,
    functools.partial(of_model, _NAMES),
    {**_DEFAULTS, "sliding_window": 4096},
)
