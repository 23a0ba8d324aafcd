"""Families like llama's with experts in place of the MLP: mixtral, olmoe, qwen3_moe."""

import functools

from launch.huggingface.config_values import Config, activation, named
from launch.huggingface.families.llamas import (
    DEFAULTS,
    MISTRAL_DEFAULTS,
    NAMES,
    QWEN_DEFAULTS,
    read_attention,
    read_dense,
    read_qwen_attention,
    read_shared,
    write_attention,
    write_shared,
    write_windows,
)
from launch.huggingface.family import Family, held, one, tiled
from launch.huggingface.part_tensors import moe, of_model
from launch.huggingface.rope_values import rope
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.dense import Dense
from model.mlps.moe import MoE


def read_moe(cfg: Config, n: str, width: str, **more) -> MoE:
    """n, width: what the family calls the number of experts, and the width of one."""
    return MoE(
        cfg[n],
        cfg["num_experts_per_tok"],
        cfg["intermediate_size"],
        cfg[width],
        activation=activation(cfg["hidden_act"], gated=True),
        **more,
    )


def write_moe(m: Model, n: str, width: str) -> dict:
    """The inverse of `read_moe`."""
    p = one(m, MoE)
    return {
        n: p.n_experts,
        "num_experts_per_tok": p.top_k,
        width: p.width(m),
        "hidden_act": named(p.activation),
    }


def read_gated_experts(cfg: Config) -> MoE:
    """Qwen's with shared experts behind a gate."""
    wide, width = cfg["shared_expert_intermediate_size"], cfg["moe_intermediate_size"]
    if wide % width or not wide:
        cfg.refuse(
            f"shared_expert_intermediate_size={wide} is no multiple of"
            f" moe_intermediate_size={width}: not supported"
        )
    own = {"n_shared": wide // width, "shared_gate": True, "renormalise": cfg["norm_topk_prob"]}
    return read_moe(cfg, "num_experts", "moe_intermediate_size", balance_scope="model", **own)


def write_gated_experts(m: Model) -> dict:
    """The inverse of `read_gated_experts`."""
    p = one(m, MoE)
    return {
        **write_moe(m, "num_experts", "moe_intermediate_size"),
        "shared_expert_intermediate_size": p.n_shared * p.width(m),
        "norm_topk_prob": p.renormalise,
    }


def read_sigmoid_experts(cfg: Config) -> MoE:
    """DeepSeek-V3's, which GLM-4.5 has too."""
    return read_moe(
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


def after_dense(cfg: Config, mixer, own: MoE, shared: dict) -> Model:
    """Experts in all layers but the first, which `first_k_dense_replace` counts."""
    n, plain = cfg["num_hidden_layers"], Layer(mixer, read_dense(cfg))
    first = min(cfg["first_k_dense_replace"] or 0, n)
    if first == n:
        return parts.model((plain,), **shared)
    return parts.model((Layer(mixer, own),), first=(plain,) * first, **shared)


def write_after_dense(m: Model) -> dict:
    """The inverse of `after_dense`, and what DeepSeek and GLM call the numbers of their experts."""
    own, plain = one(m, MoE), held(m, Dense)
    return {
        **write_moe(m, "n_routed_experts", "moe_intermediate_size"),
        "intermediate_size": plain[0].width(m) if plain else 4 * m.d_model,
        "first_k_dense_replace": len(plain),
        "n_shared_experts": own.n_shared,
        "routed_scaling_factor": own.gate_scale,
        "n_group": own.expert_groups,
        "topk_group": own.top_groups,
    }


def _write(m: Model, n: str, width: str) -> dict:
    return {**write_shared(m), **write_attention(m), **write_moe(m, n, width)}


def _read_mixtral(cfg: Config) -> Model:
    own = read_moe(cfg, "num_local_experts", "intermediate_size", balance_scope="model")
    layer = Layer(read_attention(cfg, window=cfg["sliding_window"] or 0), own)
    return parts.model((layer,), **read_shared(cfg, positions=rope(cfg, theta=1e6)))


def _write_mixtral(m: Model) -> dict:
    window = one(m, Attention).window or None
    return {**_write(m, "num_local_experts", "intermediate_size"), "sliding_window": window}


MIXTRAL = Family(
    "MixtralForCausalLM",
    _read_mixtral,
    _write_mixtral,
    functools.partial(
        of_model,
        NAMES._replace(
            mlps={MoE: moe("block_sparse_moe", {"gate": "w1", "in": "w3", "out": "w2"})}
        ),
    ),
    {
        **MISTRAL_DEFAULTS,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    {"router_jitter_noise": 0.0},
)


def _read_olmoe(cfg: Config) -> Model:
    more = {"renormalise": cfg["norm_topk_prob"], "balance_scope": "model"}
    own = read_moe(cfg, "num_experts", "intermediate_size", **more)
    return parts.model((Layer(read_attention(cfg, qk_norm="full"), own),), **read_shared(cfg))


def _write_olmoe(m: Model) -> dict:
    own = {"norm_topk_prob": one(m, MoE).renormalise}
    return {**_write(m, "num_experts", "intermediate_size"), **own}


OLMOE = Family(
    "OlmoeForCausalLM",
    _read_olmoe,
    _write_olmoe,
    functools.partial(of_model, NAMES._replace(mlps={MoE: moe()})),
    {
        **DEFAULTS,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
    },
    {"clip_qkv": None},
)


def read_sparse(cfg: Config) -> list[bool]:
    """Whether a layer has experts, of every layer, as Qwen's families say it."""
    plain, every = set(cfg["mlp_only_layers"] or []), cfg["decoder_sparse_step"]
    return [i not in plain and (i + 1) % every == 0 for i in range(cfg["num_hidden_layers"])]


def write_sparse(m: Model) -> dict:
    """The inverse of `read_sparse`, and the width of the layers without experts."""
    plain = [i for i, layer in enumerate(m.layers) if isinstance(layer.mlp, Dense)]
    width = held(m, Dense)[0].width(m) if plain else 4 * m.d_model
    return {"mlp_only_layers": plain, "decoder_sparse_step": 1, "intermediate_size": width}


def _read_qwen3_moe(cfg: Config) -> Model:
    n = "num_local_experts" if "num_local_experts" in cfg else "num_experts"
    more = {"renormalise": cfg["norm_topk_prob"], "balance_scope": "model"}
    own, mlp = read_moe(cfg, n, "moe_intermediate_size", **more), read_dense(cfg)
    mixers = zip(read_qwen_attention(cfg), read_sparse(cfg))
    layers = [Layer(mixer, own if sparse else mlp) for mixer, sparse in mixers]
    return parts.model(**tiled(layers), **read_shared(cfg))


def _write_qwen3_moe(m: Model) -> dict:
    return {
        **_write(m, "num_experts", "moe_intermediate_size"),
        **write_windows(m),
        **write_sparse(m),
        "norm_topk_prob": one(m, MoE).renormalise,
    }


QWEN3_MOE = Family(
    "Qwen3MoeForCausalLM",
    _read_qwen3_moe,
    _write_qwen3_moe,
    functools.partial(of_model, NAMES._replace(mlps={**NAMES.mlps, MoE: moe()})),
    {
        **QWEN_DEFAULTS,
        "num_key_value_heads": 4,
        "norm_topk_prob": False,
        "mlp_only_layers": None,
        "decoder_sparse_step": 1,
        "num_experts_per_tok": 8,
    },
)
