"""Gemma 1, 2 and 3 (text): scaled embeddings, norms by 1 + scale, gated GELU."""

import functools

from launch.huggingface.config_values import Config, activation, named, whole
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_attention,
    read_shared,
    read_windows,
    write_attention,
    write_shared,
    write_windows,
)
from launch.huggingface.family import Family, one, tiled
from launch.huggingface.part_tensors import of_model
from launch.huggingface.rope_values import rope, ropes, write_ropes
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.softmax import head_width
from model.mlps.dense import Dense
from model.norms import RMSNorm

_DEFAULTS = {
    **DEFAULTS,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
    "head_dim": 256,
    "attention_bias": False,
}
_FIXED = {"use_bidirectional_attention": False}
_SANDWICH = NAMES._replace(
    norms={
        "norm_mixer": "input_layernorm",
        "norm_after_mixer": "post_attention_layernorm",
        "norm_mlp": "pre_feedforward_layernorm",
        "norm_after_mlp": "post_feedforward_layernorm",
    }
)


def _shared(cfg: Config, positions, cap: float | None = None) -> dict:
    norm = RMSNorm(cfg["rms_norm_eps"], centred=True)
    own = {"norm": norm, "embed_scale": True, "logit_cap": float(cap or 0.0)}
    return read_shared(cfg, positions=positions, **own)


def _dense(cfg: Config, name: str) -> Dense:
    theirs = "gelu_pytorch_tanh" if cfg[name] == "gelu" else cfg[name]  # what the first files meant
    return Dense(cfg["intermediate_size"], activation(theirs, gated=True))


def _read_gemma(cfg: Config) -> Model:
    layer = Layer(read_attention(cfg), _dense(cfg, "hidden_act"))
    return parts.model((layer,), **_shared(cfg, rope(cfg)))


def _write_gemma(m: Model, act: str = "hidden_act") -> dict:
    mlp = one(m, Dense)
    own = {"intermediate_size": mlp.width(m), act: named(mlp.activation)}
    return {**write_shared(m), **write_attention(m), **own}


GEMMA = Family(
    "GemmaForCausalLM",
    _read_gemma,
    _write_gemma,
    functools.partial(of_model, NAMES),
    {**_DEFAULTS, "hidden_act": "gelu_pytorch_tanh"},
    _FIXED,
)


def _layers(cfg: Config, windows: list[int], local=None, **more) -> dict:
    """local: the positions of layers that have a window, where they have their own."""
    scale, mlp = float(cfg["query_pre_attn_scalar"]) ** -0.5, _dense(cfg, "hidden_activation")
    cap = float(cfg["attn_logit_softcapping"] or 0.0)
    layers = []
    for w in windows:
        own = {"positions": local} if w and local else {}
        mixer = read_attention(cfg, window=w, cap=cap, scale=scale, **own, **more)
        layers.append(Layer(mixer, mlp, norm="sandwich"))
    return tiled(layers)


def _read_gemma2(cfg: Config) -> Model:
    n = cfg["num_hidden_layers"]
    kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(n)]
    shared = _shared(cfg, rope(cfg), cfg["final_logit_softcapping"])
    return parts.model(**_layers(cfg, read_windows(cfg, kinds)), **shared)


def _write_gemma2(m: Model) -> dict:
    mixer = one(m, Attention)
    return {
        **_write_gemma(m, "hidden_activation"),
        **write_windows(m),
        "query_pre_attn_scalar": whole(mixer.scale**-2) if mixer.scale else head_width(mixer, m),
        "attn_logit_softcapping": mixer.cap or None,
        "final_logit_softcapping": m.logit_cap or None,
    }


GEMMA2 = Family(
    "Gemma2ForCausalLM",
    _read_gemma2,
    _write_gemma2,
    functools.partial(of_model, _SANDWICH),
    {
        **_DEFAULTS,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    _FIXED,
)


def _read_gemma3(cfg: Config) -> Model:
    n, every = cfg["num_hidden_layers"], cfg["sliding_window_pattern"]
    kinds = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(n)]
    full, local = ropes(cfg, 1e6, 1e4)
    layers = _layers(
        cfg, read_windows(cfg, kinds), local if local != full else None, qk_norm="head"
    )
    return parts.model(**layers, **_shared(cfg, full, cfg["final_logit_softcapping"]))


def _write_gemma3(m: Model) -> dict:
    return {**_write_gemma2(m), **write_ropes(m)}


GEMMA3 = Family(
    "Gemma3ForCausalLM",
    _read_gemma3,
    _write_gemma3,
    functools.partial(of_model, _SANDWICH),
    {
        **_DEFAULTS,
        "max_position_embeddings": 131_072,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    _FIXED,
)
