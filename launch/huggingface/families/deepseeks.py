"""Families with latent attention: deepseek_v2, deepseek_v3."""

import functools

from launch.config import ConfigError
from launch.huggingface.config_values import Config, whole
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_shared,
    write_shared,
)
from launch.huggingface.families.mixtures import (
    after_dense,
    read_moe,
    read_sigmoid_experts,
    write_after_dense,
)
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import latent, moe, of_model
from launch.huggingface.rope_values import mscale
from model.config import Model
from model.mixers.latent import Latent
from model.mixers.softmax import head_width
from model.mlps.moe import MoE
from model.rope_scaling import Yarn


def _mscale_all_dim(cfg: Config) -> tuple[float, float]:
    """(how many times longer, the weight by which scores grow with its logarithm)."""
    given = {**(cfg.get("rope_parameters") or {}), **(cfg.get("rope_scaling") or {})}
    return float(given.get("factor") or 1), float(given.get("mscale_all_dim") or 0)


def _read_latent(cfg: Config) -> Latent:
    if cfg.get("attention_bias"):
        raise ConfigError("config.json: attention_bias=True is not supported with latent attention")
    width, turned = cfg["qk_nope_head_dim"], cfg["qk_rope_head_dim"]
    factor, weight = _mscale_all_dim(cfg)
    scale = (width + turned) ** -0.5 * mscale(factor, weight) ** 2 if weight else 0.0
    return Latent(
        cfg["num_attention_heads"],
        kv_rank=cfg["kv_lora_rank"],
        q_rank=cfg["q_lora_rank"] or 0,
        d_head=width,
        d_rope=turned,
        d_value=cfg["v_head_dim"],
        scale=scale,
    )


def _layers(cfg: Config, own: MoE, interleaved: bool) -> Model:
    return after_dense(cfg, _read_latent(cfg), own, read_shared(cfg, interleaved))


def _read_deepseek_v3(cfg: Config) -> Model:
    return _layers(cfg, read_sigmoid_experts(cfg), cfg["rope_interleave"])


def _write_rope(m: Model, p: Latent) -> dict:
    """`rope_parameters`, with the weight that a scale of the scores stands for."""
    rope = dict(write_shared(m)["rope_parameters"])
    scaling = getattr(m.positions, "scaling", None)
    if p.scale and isinstance(scaling, Yarn) and scaling.factor > 1:
        grown = (p.scale * (head_width(p, m) + p.d_rope) ** 0.5) ** 0.5
        rope["mscale_all_dim"] = whole((grown - 1) / (mscale(scaling.factor, 1.0) - 1))
    return {"rope_parameters": rope}


def _write(m: Model) -> dict:
    p = one(m, Latent)
    return {
        **write_shared(m),
        **_write_rope(m, p),
        **write_after_dense(m),
        "num_attention_heads": p.n_heads,
        "num_key_value_heads": p.n_heads,
        "attention_bias": False,
        "head_dim": p.d_rope,
        "q_lora_rank": p.q_rank or None,
        "kv_lora_rank": p.kv_rank,
        "qk_rope_head_dim": p.d_rope,
        "qk_nope_head_dim": head_width(p, m),
        "v_head_dim": p.value_width(m),
    }


def _write_deepseek_v3(m: Model) -> dict:
    return {
        **_write(m),
        "rope_interleave": getattr(m.positions, "interleaved", True),
        "norm_topk_prob": one(m, MoE).renormalise,
        "num_nextn_predict_layers": 0,
    }


_TENSORS = functools.partial(
    of_model,
    NAMES._replace(mixers={Latent: latent}, mlps={**NAMES.mlps, MoE: moe(shared="shared_experts")}),
)


DEEPSEEK_V3 = Family(
    "DeepseekV3ForCausalLM",
    _read_deepseek_v3,
    _write_deepseek_v3,
    _TENSORS,
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


def _read_deepseek_v2(cfg: Config) -> Model:
    kind = cfg["topk_method"]
    if kind not in ("greedy", "group_limited_greedy"):
        cfg.refuse(f"topk_method={kind!r} is not supported: greedy, group_limited_greedy", True)
    limited = kind == "group_limited_greedy"
    own = read_moe(
        cfg,
        "n_routed_experts",
        "moe_intermediate_size",
        n_shared=cfg["n_shared_experts"] or 0,
        renormalise=False,
        gate_scale=float(cfg["routed_scaling_factor"]),
        expert_groups=cfg["n_group"] if limited else 1,
        top_groups=cfg["topk_group"] if limited else 1,
        group_score="best" if limited else "top2",
    )
    return _layers(cfg, own, interleaved=True)


def _write_deepseek_v2(m: Model) -> dict:
    limited = one(m, MoE).expert_groups > 1
    own = {"topk_method": "group_limited_greedy" if limited else "greedy"}
    return {**_write(m), **own, "norm_topk_prob": False}


DEEPSEEK_V2 = Family(
    "DeepseekV2ForCausalLM",
    _read_deepseek_v2,
    _write_deepseek_v2,
    _TENSORS,
    {
        **DEFAULTS,
        "first_k_dense_replace": 0,
        "n_shared_experts": 2,
        "n_routed_experts": 64,
        "n_group": None,
        "topk_group": None,
        "topk_method": "greedy",
        "routed_scaling_factor": 1.0,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "moe_intermediate_size": 1407,
    },
    # transformers leaves norm_topk_prob out of account, the first code does not
    {"scoring_func": "softmax", "norm_topk_prob": False, "mlp_bias": False, "moe_layer_freq": 1},
)
