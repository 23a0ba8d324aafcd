"""Families with LayerNorm and rotary positions: gpt_neox, stablelm, starcoder2, cohere."""

import functools

from launch.huggingface.config_values import Config, activation, named
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_attention,
    read_dense,
    read_shared,
    write_attention,
    write_dense,
    write_shared,
)
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import Names, attention_by_head, dense, of_model
from launch.huggingface.rope_values import rope
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.dense import Dense
from model.norms import LayerNorm


def _read_gpt_neox(cfg: Config) -> Model:
    biased = cfg["attention_bias"]
    mixer = Attention(cfg["num_attention_heads"], qkv_bias=biased, out_bias=biased)
    mlp = Dense(cfg["intermediate_size"], activation(cfg["hidden_act"], gated=False), bias=True)
    layer = Layer(mixer, mlp, residual="parallel" if cfg["use_parallel_residual"] else "sequential")
    positions = rope(cfg, theta=cfg["rotary_emb_base"], fraction=cfg["rotary_pct"])
    norm = LayerNorm(cfg["layer_norm_eps"])
    return parts.model((layer,), **read_shared(cfg, norm=norm, positions=positions))


def _write_gpt_neox(m: Model) -> dict:
    mixer, mlp = one(m, Attention), one(m, Dense)
    return {
        **write_shared(m, "layer_norm_eps", partial=True),
        "num_attention_heads": mixer.n_heads,
        "intermediate_size": mlp.width(m),
        "hidden_act": named(mlp.activation),
        "attention_bias": mixer.qkv_bias,
        "use_parallel_residual": m.layers[0].residual == "parallel",
    }


GPT_NEOX = Family(
    "GPTNeoXForCausalLM",
    _read_gpt_neox,
    _write_gpt_neox,
    functools.partial(
        of_model,
        Names(
            "gpt_neox.embed_in.weight",
            "gpt_neox.layers.{i}",
            {"norm_mixer": "input_layernorm", "norm_mlp": "post_attention_layernorm"},
            {Attention: attention_by_head("attention")},
            {Dense: dense("mlp", {"in": "dense_h_to_4h", "out": "dense_4h_to_h"})},
            "gpt_neox.final_layer_norm",
            head="embed_out.weight",
        ),
    ),
    {
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "attention_bias": True,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10_000.0,
    },
)


def _read_stablelm(cfg: Config) -> Model:
    mixer = read_attention(cfg, qkv_bias=cfg["use_qkv_bias"], out_bias=False)
    residual = "shared" if cfg["use_parallel_residual"] else "sequential"
    layer = Layer(mixer, read_dense(cfg), residual=residual)
    positions = rope(cfg, fraction=cfg["rope_pct"])
    norm = LayerNorm(cfg["layer_norm_eps"])
    return parts.model((layer,), **read_shared(cfg, norm=norm, positions=positions))


def _write_stablelm(m: Model) -> dict:
    return {
        **write_shared(m, "layer_norm_eps", partial=True),
        **write_attention(m),
        **write_dense(m),
        "use_qkv_bias": one(m, Attention).qkv_bias,
        "use_parallel_residual": m.layers[0].residual == "shared",
    }


STABLELM = Family(
    "StableLmForCausalLM",
    _read_stablelm,
    _write_stablelm,
    functools.partial(of_model, NAMES),
    {
        **DEFAULTS,
        "max_position_embeddings": 4096,
        "layer_norm_eps": 1e-5,
        "use_qkv_bias": False,
        "use_parallel_residual": False,
        "rope_pct": 0.25,
    },
    {"qk_layernorm": False},  # a LayerNorm with numbers of its own for every head
)


def _read_starcoder2(cfg: Config) -> Model:
    biased, window = cfg["use_bias"], cfg["sliding_window"] or 0
    mixer = read_attention(cfg, qkv_bias=biased, out_bias=biased, window=window)
    act = activation(cfg["hidden_act"], gated=False)
    layer = Layer(mixer, Dense(cfg["intermediate_size"], act, biased))
    return parts.model((layer,), **read_shared(cfg, norm=LayerNorm(cfg["norm_epsilon"])))


def _write_starcoder2(m: Model) -> dict:
    mixer = one(m, Attention)
    return {
        **write_shared(m, "norm_epsilon"),
        **write_attention(m),
        **write_dense(m),
        "use_bias": mixer.qkv_bias,
        "sliding_window": mixer.window or None,
    }


STARCODER2 = Family(
    "Starcoder2ForCausalLM",
    _read_starcoder2,
    _write_starcoder2,
    functools.partial(
        of_model, NAMES._replace(mlps={Dense: dense("mlp", {"in": "c_fc", "out": "c_proj"})})
    ),
    {
        **DEFAULTS,
        "tie_word_embeddings": True,
        "num_key_value_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "use_bias": True,
        "sliding_window": None,
    },
)


def _read_cohere(cfg: Config) -> Model:
    layer = Layer(read_attention(cfg), read_dense(cfg), residual="shared")
    own = {
        "norm": LayerNorm(cfg["layer_norm_eps"], bias=False),
        "positions": rope(cfg, interleaved=True, theta=500_000.0),
        "logit_scale": float(cfg["logit_scale"] or 1.0),
    }
    return parts.model((layer,), **read_shared(cfg, **own))


def _write_cohere(m: Model) -> dict:
    own = {"logit_scale": m.logit_scale}
    return {**write_shared(m, "layer_norm_eps"), **write_attention(m), **write_dense(m), **own}


COHERE = Family(
    "CohereForCausalLM",
    _read_cohere,
    _write_cohere,
    functools.partial(of_model, NAMES),
    {
        **DEFAULTS,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "attention_bias": False,
    },
    {"use_qk_norm": False},  # a LayerNorm with numbers of its own for every head
)
