"""Griffin: gated linear recurrences and local attention in turns; recurrent_gemma."""

import dataclasses
import functools

import jax.numpy as jnp

from launch.huggingface.config_values import Config
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_attention,
    read_shared,
    write_attention,
    write_shared,
)
from launch.huggingface.family import Family, held, one, tiled
from launch.huggingface.part_tensors import LLAMA, attention, dense, of_model
from launch.huggingface.tensors import Entry, depthwise, plain, projection
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.rg_lru import RGLRU
from model.mlps.dense import Dense
from model.norms import RMSNorm


def _recurrent(p: RGLRU, m: Model, ours: str, theirs: str) -> list[Entry]:
    t, o = f"{theirs}.temporal_block", f"params/{ours}"
    out = [
        e
        for a, b in {"x": "linear_x", "y": "linear_y", "out": "linear_out"}.items()
        for e in projection(f"{ours}/{a}", f"{t}.{b}", 1, True)
    ]
    for a, b in {"input": "input", "forget": "recurrent"}.items():
        out.append(plain(f"{o}/{a}/kernel", f"{t}.rg_lru.{b}_gate_weight"))
        out.append(plain(f"{o}/{a}/bias", f"{t}.rg_lru.{b}_gate_bias"))
    return [
        *out,
        depthwise([f"{o}/conv/kernel"], f"{t}.conv_1d.weight"),
        plain(f"{o}/conv/bias", f"{t}.conv_1d.bias"),
        plain(f"{o}/rates", f"{t}.rg_lru.recurrent_param"),
    ]


def _read(cfg: Config) -> Model:
    recurrent = RGLRU(
        cfg["lru_width"] or cfg["hidden_size"], cfg["num_attention_heads"], cfg["conv1d_width"]
    )
    local = read_attention(cfg, window=cfg["attention_window_size"])
    local = dataclasses.replace(local, out_bias=True)  # whatever the others have
    mlp = Dense(cfg["intermediate_size"] // 2, "geglu", bias=True)
    # the first files have an underscore
    kinds, n = list(cfg.get("_block_types") or cfg["block_types"]), cfg["num_hidden_layers"]
    for kind in dict.fromkeys(kinds):
        if kind not in ("recurrent", "attention"):
            cfg.refuse(f"block_types with {kind!r} is not supported")
    layers = [
        Layer(local if kinds[i % len(kinds)] == "attention" else recurrent, mlp) for i in range(n)
    ]
    if not cfg["logits_soft_cap"]:
        cfg.refuse("logits_soft_cap=0 is not supported: logits are divided by it", harmless=True)
    own = {
        "norm": RMSNorm(cfg["rms_norm_eps"], centred=True),
        "logit_cap": float(cfg["logits_soft_cap"]),
        # they keep the square root of the width in 16 bits
        "embed_multiplier": float(jnp.bfloat16(cfg["hidden_size"] ** 0.5)),
    }
    return parts.model(**tiled(layers), **{**read_shared(cfg), **own})


def _write(m: Model) -> dict:
    p, attending = one(m, RGLRU), held(m, Attention)
    own = {"num_attention_heads": p.n_heads, "attention_window_size": m.seq_len}
    if attending:
        own = {**write_attention(m), "attention_window_size": attending[0].window}
        own.pop("head_dim")
    shared, fraction = write_shared(m), getattr(m.positions, "fraction", 1.0)
    return {
        **shared,
        **own,
        "rope_parameters": {**shared["rope_parameters"], "partial_rotary_factor": fraction},
        "lru_width": p.channels(m),
        "conv1d_width": p.conv,
        "intermediate_size": 2 * one(m, Dense).width(m),
        "hidden_activation": "gelu_pytorch_tanh",
        "logits_soft_cap": m.logit_cap or 30.0,  # 0 is no number there
        "block_types": [
            "attention" if isinstance(x.mixer, Attention) else "recurrent" for x in m.layers
        ],
    }


RECURRENT_GEMMA = Family(
    "RecurrentGemmaForCausalLM",
    _read,
    _write,
    functools.partial(
        of_model,
        NAMES._replace(
            norms={"norm_mixer": "temporal_pre_norm", "norm_mlp": "channel_pre_norm"},
            mixers={
                Attention: attention(
                    {k: v.replace("self_attn", "temporal_block") for k, v in LLAMA.items()}
                ),
                RGLRU: _recurrent,
            },
            mlps={Dense: dense("mlp_block")},
            norm_out="model.final_norm",
        ),
    ),
    {
        **DEFAULTS,
        "vocab_size": 256_000,
        "hidden_size": 2560,
        "intermediate_size": 7680,
        "num_hidden_layers": 26,
        "num_attention_heads": 10,
        "tie_word_embeddings": True,
        # no state has a limit; 8192 is what RecurrentGemma was trained on
        "max_position_embeddings": 8192,
        "lru_width": None,
        "attention_window_size": 2048,
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "block_types": ("recurrent", "recurrent", "attention"),
        "attention_bias": False,
        "partial_rotary_factor": 0.5,
    },
    {"hidden_activation": "gelu_pytorch_tanh", "embeddings_scale_by_sqrt_dim": True},
)
