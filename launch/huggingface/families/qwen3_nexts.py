"""Gated delta rules and gated attention in turns, experts with a gated shared one: qwen3_next."""

import functools

from launch.huggingface.config_values import Config
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_attention,
    read_dense,
    read_shared,
    write_attention,
    write_shared,
)
from launch.huggingface.families.mixtures import (
    read_gated_experts,
    read_sparse,
    write_gated_experts,
    write_sparse,
)
from launch.huggingface.family import Family, held, one, tiled
from launch.huggingface.part_tensors import moe, of_model, of_norm
from launch.huggingface.tensors import Entry, by_head, depthwise, plain, projection
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.gated_delta import GatedDelta
from model.mlps.moe import MoE
from model.norms import RMSNorm


def _attention(p: Attention, m: Model, ours: str, theirs: str) -> list[Entry]:
    """Of every head queries, then its gate."""
    t, both = f"{theirs}.self_attn", [f"params/{ours}/{x}" for x in ("q", "gate")]
    out = [by_head([f"{x}/kernel" for x in both], f"{t}.q_proj.weight", p.n_heads)]
    if p.qkv_bias:
        out.append(by_head([f"{x}/bias" for x in both], f"{t}.q_proj.bias", p.n_heads, 0))
    for x in "kv":
        out += projection(f"{ours}/{x}", f"{t}.{x}_proj", 1, p.qkv_bias)
    for x in "qk":
        out += of_norm(m, f"{ours}/norm_{x}", f"{t}.{x}_norm")
    return out + projection(f"{ours}/out", f"{t}.o_proj", 2, p.out_bias)


def _delta(p: GatedDelta, m: Model, ours: str, theirs: str) -> list[Entry]:
    """Of every head of keys all that is its own, then of the next."""
    t, o = f"{theirs}.linear_attn", f"params/{ours}"
    wide, thin = ("q", "k", "v", "gate"), ("beta", "steps")
    return [
        by_head([f"{o}/{x}/kernel" for x in wide], f"{t}.in_proj_qkvz.weight", p.n_heads),
        by_head([f"{o}/{x}/kernel" for x in thin], f"{t}.in_proj_ba.weight", p.n_heads),
        depthwise([f"{o}/conv_{x}/kernel" for x in "qkv"], f"{t}.conv1d.weight"),
        plain(f"{o}/steps_bias", f"{t}.dt_bias"),
        plain(f"{o}/rates", f"{t}.A_log"),
        plain(f"{o}/norm_head/scale", f"{t}.norm.weight"),
        *projection(f"{ours}/out", f"{t}.out_proj", 2),
    ]


def _read(cfg: Config) -> Model:
    n, every = cfg["num_hidden_layers"], cfg["full_attention_interval"]
    kinds = cfg.get("layer_types") or [
        "linear_attention" if (i + 1) % every else "full_attention" for i in range(n)
    ]
    mixers = {
        "full_attention": read_attention(cfg, qk_norm="head", gate=True),
        "linear_attention": GatedDelta(
            cfg["linear_num_key_heads"],
            cfg["linear_num_value_heads"],
            cfg["linear_key_head_dim"],
            cfg["linear_value_head_dim"],
            cfg["linear_conv_kernel_dim"],
            norm_eps=cfg["rms_norm_eps"],
        ),
    }
    for kind in dict.fromkeys(kinds):
        if kind not in mixers:
            cfg.refuse(f"layer_types with {kind!r} is not supported")
    mlp, routed = read_dense(cfg), read_gated_experts(cfg) if cfg["num_experts"] else None
    layers = [
        Layer(mixers[kind], routed if sparse and routed else mlp)
        for kind, sparse in zip(kinds, read_sparse(cfg))
    ]
    norm = RMSNorm(cfg["rms_norm_eps"], centred=True)
    return parts.model(**tiled(layers), **{**read_shared(cfg), "norm": norm})


def _write(m: Model) -> dict:
    p, shared = one(m, GatedDelta), write_shared(m)
    fraction = getattr(m.positions, "fraction", 1.0)
    attends = [isinstance(x.mixer, Attention) for x in m.layers]
    k, v = p.widths(m)
    return {
        **shared,
        **(write_attention(m) if held(m, Attention) else {"num_attention_heads": 1}),
        **write_gated_experts(m),
        **write_sparse(m),
        "rope_parameters": {**shared["rope_parameters"], "partial_rotary_factor": fraction},
        "layer_types": ["full_attention" if yes else "linear_attention" for yes in attends],
        "linear_num_key_heads": p.n_heads,
        "linear_num_value_heads": p.heads(),
        "linear_key_head_dim": k,
        "linear_value_head_dim": v,
        "linear_conv_kernel_dim": p.conv,
    }


QWEN3_NEXT = Family(
    "Qwen3NextForCausalLM",
    _read,
    _write,
    functools.partial(
        of_model,
        NAMES._replace(
            mixers={Attention: _attention, GatedDelta: _delta},
            mlps={**NAMES.mlps, MoE: moe(shared="shared_expert")},
        ),
    ),
    {
        **DEFAULTS,
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "attention_bias": False,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "full_attention_interval": 4,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "num_experts_per_tok": 10,
        "num_experts": 512,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.25,
    },
    {"hidden_act": "silu"},
)
