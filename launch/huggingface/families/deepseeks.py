"""Families with latent attention: deepseek_v3."""

import functools

from launch.config import ConfigError
from launch.huggingface.config_values import Config
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_dense,
    read_shared,
    write_shared,
)
from launch.huggingface.families.mixtures import read_moe, write_moe
from launch.huggingface.family import Family, held, one
from launch.huggingface.part_tensors import latent, moe, of_model
from model import parts
from model.config import Layer, Model
from model.mixers.latent import Latent
from model.mixers.softmax import head_width
from model.mlps.dense import Dense
from model.mlps.moe import MoE


def _read_deepseek_v3(cfg: Config) -> Model:
    if cfg.get("attention_bias"):
        raise ConfigError("config.json: attention_bias=True is not supported for deepseek_v3")
    mixer = Latent(
        cfg["num_attention_heads"],
        kv_rank=cfg["kv_lora_rank"],
        q_rank=cfg["q_lora_rank"] or 0,
        d_head=cfg["qk_nope_head_dim"],
        d_rope=cfg["qk_rope_head_dim"],
        d_value=cfg["v_head_dim"],
    )
    own = read_moe(
        cfg,
        "n_routed_experts",
        "moe_intermediate_size",
        n_shared=cfg["n_shared_experts"],
        router="sigmoid",
        renormalise=cfg["norm_topk_prob"],
        gate_scale=float(cfg["routed_scaling_factor"]),
        expert_groups=cfg["n_group"] or 1,
        top_groups=cfg["topk_group"] or 1,
        selection_bias=True,
    )
    plain = Layer(mixer, read_dense(cfg))
    first = min(cfg["first_k_dense_replace"] or 0, cfg["num_hidden_layers"])
    shared = read_shared(cfg, interleaved=cfg["rope_interleave"])
    if first == cfg["num_hidden_layers"]:
        return parts.model((plain,), **shared)
    return parts.model((Layer(mixer, own),), first=(plain,) * first, **shared)


def _write_deepseek_v3(m: Model) -> dict:
    p, own, plain = one(m, Latent), one(m, MoE), held(m, Dense)
    return {
        **write_shared(m),
        **write_moe(m, "n_routed_experts", "moe_intermediate_size"),
        "num_attention_heads": p.n_heads,
        "num_key_value_heads": p.n_heads,
        "attention_bias": False,
        "intermediate_size": plain[0].width(m) if plain else 4 * m.d_model,
        "first_k_dense_replace": len(plain),
        "head_dim": p.d_rope,
        "rope_interleave": getattr(m.positions, "interleaved", True),
        "q_lora_rank": p.q_rank or None,
        "kv_lora_rank": p.kv_rank,
        "qk_rope_head_dim": p.d_rope,
        "qk_nope_head_dim": head_width(p, m),
        "v_head_dim": p.value_width(m),
        "n_shared_experts": own.n_shared,
        "norm_topk_prob": own.renormalise,
        "routed_scaling_factor": own.gate_scale,
        "n_group": own.expert_groups,
        "topk_group": own.top_groups,
        "num_nextn_predict_layers": 0,
    }


DEEPSEEK_V3 = Family(
    "DeepseekV3ForCausalLM",
    _read_deepseek_v3,
    _write_deepseek_v3,
    functools.partial(
        of_model,
        NAMES._replace(
            mixers={Latent: latent}, mlps={**NAMES.mlps, MoE: moe(shared="shared_experts")}
        ),
    ),
    {
        **DEFAULTS,
        "max_position_embeddings": 4096,
        "first_k_dense_replace": 3,
        "n_shared_experts": 1,
        "n_group": 8,
        "topk_group": 4,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "rope_interleave": True,
    },
    {"scoring_func": "sigmoid"},
)
