"""Qwen 2 and its experts: biases of queries, keys and values; a shared expert with a gate."""

import functools

from launch.huggingface.config_values import Config
from launch.huggingface.families.llamas import (
    NAMES,
    QWEN_DEFAULTS,
    read_attention,
    read_dense,
    read_shared,
    read_windows,
    write_attention,
    write_dense,
    write_shared,
    write_windows,
)
from launch.huggingface.families.mixtures import (
    read_gated_experts,
    read_sparse,
    write_gated_experts,
    write_sparse,
)
from launch.huggingface.family import Family, one, tiled
from launch.huggingface.part_tensors import moe, of_model
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.moe import MoE


def _read_qwen2(cfg: Config) -> Model:
    mlp = read_dense(cfg)
    layers = [
        Layer(read_attention(cfg, qkv_bias=True, out_bias=False, window=w), mlp)
        for w in read_windows(cfg)
    ]
    return parts.model(**tiled(layers), **read_shared(cfg))


def _write_qwen2(m: Model) -> dict:
    return {**write_shared(m), **write_attention(m), **write_dense(m), **write_windows(m)}


QWEN2 = Family(
    "Qwen2ForCausalLM",
    _read_qwen2,
    _write_qwen2,
    functools.partial(of_model, NAMES),
    QWEN_DEFAULTS,
)


def _read_qwen2_moe(cfg: Config) -> Model:
    own = read_gated_experts(cfg)
    # without layer_types every second one of the first max_window_layers has a window
    most = cfg["max_window_layers"] * bool(cfg.get("use_sliding_window"))
    kinds = [
        "full_attention" if i % 2 or i >= most else "sliding_attention"
        for i in range(cfg["num_hidden_layers"])
    ]
    mlp, biased = read_dense(cfg), cfg["qkv_bias"]
    layers = [
        Layer(
            read_attention(cfg, qkv_bias=biased, out_bias=False, window=window),
            own if sparse else mlp,
        )
        for window, sparse in zip(read_windows(cfg, kinds), read_sparse(cfg))
    ]
    return parts.model(**tiled(layers), **read_shared(cfg))


def _write_qwen2_moe(m: Model) -> dict:
    return {
        **write_shared(m),
        **write_attention(m),
        **write_gated_experts(m),
        **write_windows(m),
        **write_sparse(m),
        "qkv_bias": one(m, Attention).qkv_bias,
    }


QWEN2_MOE = Family(
    "Qwen2MoeForCausalLM",
    _read_qwen2_moe,
    _write_qwen2_moe,
    functools.partial(
        of_model, NAMES._replace(mlps={**NAMES.mlps, MoE: moe(shared="shared_expert")})
    ),
    {
        **QWEN_DEFAULTS,
        "num_experts_per_tok": 4,
        "num_experts": 60,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "norm_topk_prob": False,
        "mlp_only_layers": None,
        "decoder_sparse_step": 1,
        "qkv_bias": True,
    },
)
