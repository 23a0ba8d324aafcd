"""gpt-oss (sinks, clamped units, biases everywhere), GLM-4.5 and DBRX: experts."""

import functools

import numpy as np

from launch.huggingface.config_values import Config, activation, named
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
from launch.huggingface.families.mixtures import (
    after_dense,
    read_moe,
    read_sigmoid_experts,
    write_after_dense,
    write_moe,
)
from launch.huggingface.family import Family, one, tiled
from launch.huggingface.part_tensors import Names, moe, of_model
from launch.huggingface.rope_values import rope, rope_fields
from launch.huggingface.tensors import Entry, fused, linear, plain, projection
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.moe import MoE
from model.norms import LayerNorm

_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}


def _read_gpt_oss(cfg: Config) -> Model:
    if cfg["num_experts_per_tok"] == 1:
        cfg.refuse("num_experts_per_tok=1 is not supported: the gate of one expert would be 1")
    n = cfg["num_hidden_layers"]
    own = read_moe(
        cfg,
        "num_local_experts",
        "intermediate_size",
        bias=True,
        router_bias=True,
        alpha=float(cfg["swiglu_alpha"]),
        limit=float(cfg["swiglu_limit"]),
        shift=1.0,
        balance_scope="model",
    )
    kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(n)]
    layers = [
        Layer(read_attention(cfg, window=w, sinks=True), own) for w in read_windows(cfg, kinds)
    ]
    if not cfg.get("rope_parameters") and not cfg.get("rope_scaling"):
        cfg["rope_scaling"] = _YARN
    return parts.model(**tiled(layers), **read_shared(cfg, positions=rope(cfg, theta=150_000.0)))


def _write_gpt_oss(m: Model) -> dict:
    own = one(m, MoE)
    return {
        **write_shared(m),
        **write_attention(m),
        **write_moe(m, "num_local_experts", "intermediate_size"),
        **write_windows(m),
        "swiglu_alpha": own.alpha,
        "swiglu_limit": own.limit,
    }


def _in_turn(ours: list[str], theirs: str) -> Entry:
    """The gate and the other branch, number by number in turn along the last axis."""
    return Entry(
        tuple(ours),
        (theirs,),
        lambda a, shapes: [a[0][..., 0::2], a[0][..., 1::2]],
        lambda a: [np.stack(a, -1).reshape(*a[0].shape[:-1], -1)],
    )


def _moe_gpt_oss(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    t = f"{theirs}.mlp"
    out = [
        linear(f"params/{ours}/router", f"{t}.router.weight"),
        plain(f"params/{ours}/router_bias", f"{t}.router.bias"),
    ]
    for end in ("", "_bias"):
        both = [f"params/{ours}/{x}{end}" for x in ("gate", "in")]
        out.append(_in_turn(both, f"{t}.experts.gate_up_proj{end}"))
        out.append(plain(f"params/{ours}/out{end}", f"{t}.experts.down_proj{end}"))
    return out


GPT_OSS = Family(
    "GptOssForCausalLM",
    _read_gpt_oss,
    _write_gpt_oss,
    functools.partial(of_model, NAMES._replace(mlps={MoE: _moe_gpt_oss})),
    {
        **DEFAULTS,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "attention_bias": True,
        "num_experts_per_tok": 4,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    },
)


def _read_glm4_moe(cfg: Config) -> Model:
    normed = "head" if cfg["use_qk_norm"] else "none"
    mixer = read_attention(cfg, out_bias=False, qk_norm=normed)
    shared = read_shared(cfg, positions=rope(cfg, fraction=0.5))
    return after_dense(cfg, mixer, read_sigmoid_experts(cfg), shared)


def _write_glm4_moe(m: Model) -> dict:
    return {
        **write_shared(m, partial=True),
        **write_attention(m),
        **write_after_dense(m),
        "norm_topk_prob": one(m, MoE).renormalise,
        "use_qk_norm": one(m, Attention).qk_norm == "head",
        "num_nextn_predict_layers": 0,
    }


GLM4_MOE = Family(
    "Glm4MoeForCausalLM",
    _read_glm4_moe,
    _write_glm4_moe,
    functools.partial(
        of_model, NAMES._replace(mlps={**NAMES.mlps, MoE: moe(shared="shared_experts")})
    ),
    {
        **DEFAULTS,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "use_qk_norm": False,
    },
)


def _read_dbrx(cfg: Config) -> Model:
    attn, ffn = cfg["attn_config"] or {}, cfg["ffn_config"] or {}
    width, heads = ffn.get("ffn_hidden_size", 3584), cfg["n_heads"]
    act = activation((ffn.get("ffn_act_fn") or {"name": "silu"})["name"], gated=True)
    weights = ffn.get("moe_normalize_expert_weights", 1.0)
    if weights not in (None, 1):
        cfg.refuse(f"moe_normalize_expert_weights={weights} is not supported (only 1)", True)
    own = MoE(
        ffn.get("moe_num_experts", 4),
        ffn.get("moe_top_k", 1),
        d_expert=width,
        activation=act,
        renormalise=weights is not None,
        balance_scope="model",
    )
    clip = float(attn.get("clip_qkv") or 0.0)
    mixer = Attention(heads, attn.get("kv_n_heads", 1), cfg["d_model"] // heads, clip=clip)
    theta = attn.get("rope_theta") or 10_000.0
    return parts.model(
        (Layer(mixer, own),),
        vocab_size=cfg["vocab_size"],
        seq_len=cfg["max_seq_len"],
        d_model=cfg["d_model"],
        n_layers=cfg["n_layers"],
        tied=cfg["tie_word_embeddings"],
        norm=LayerNorm(bias=False),
        positions=rope(cfg, theta=theta),
    )


def _write_dbrx(m: Model) -> dict:
    mixer, own = one(m, Attention), one(m, MoE)
    theta = getattr(m.positions, "theta", 1e4)
    return {
        "vocab_size": m.vocab_size,
        "max_seq_len": m.seq_len,
        "d_model": m.d_model,
        "n_layers": m.n_layers,
        "n_heads": mixer.n_heads,
        "tie_word_embeddings": m.tied,
        **rope_fields(m.positions),
        "attn_config": {
            "clip_qkv": mixer.clip or None,
            "kv_n_heads": mixer.m_heads(),
            "rope_theta": theta,
        },
        "ffn_config": {
            "ffn_hidden_size": own.width(m),
            "moe_num_experts": own.n_experts,
            "moe_top_k": own.top_k,
            "moe_normalize_expert_weights": 1.0 if own.renormalise else None,
            "ffn_act_fn": {"name": named(own.activation)},
        },
    }


def _attention_dbrx(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    t, qkv = f"{theirs}.norm_attn_norm.attn", [f"params/{ours}/{x}/kernel" for x in "qkv"]
    whole = fused(qkv, f"{t}.Wqkv.weight", 1, True)
    return [whole, *projection(f"{ours}/out", f"{t}.out_proj", 2)]


def _rows(ours: str, theirs: str, turned: bool) -> Entry:
    """All experts one below the other, (E F, D); turned: ours is (E, D, F)."""

    def read(a, shapes):
        n, *_ = shapes[0]
        each = a[0].reshape(n, -1, a[0].shape[-1])
        return [each.swapaxes(1, 2) if turned else each]

    def write(a):
        each = a[0].swapaxes(1, 2) if turned else a[0]
        return [each.reshape(-1, each.shape[-1])]

    return Entry((ours,), (theirs,), read, write)


def _moe_dbrx(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    names = {"gate": "w1", "in": "v1", "out": "w2"}
    return [
        linear(f"params/{ours}/router", f"{theirs}.ffn.router.layer.weight"),
        *(
            _rows(f"params/{ours}/{own}", f"{theirs}.ffn.experts.mlp.{name}", own != "out")
            for own, name in names.items()
        ),
    ]


DBRX = Family(
    "DbrxForCausalLM",
    _read_dbrx,
    _write_dbrx,
    functools.partial(
        of_model,
        Names(
            "transformer.wte.weight",
            "transformer.blocks.{i}",
            {"norm_mixer": "norm_attn_norm.norm_1", "norm_mlp": "norm_attn_norm.norm_2"},
            {Attention: _attention_dbrx},
            {MoE: _moe_dbrx},
            "transformer.norm_f",
        ),
    ),
    {"max_seq_len": 2048, "tie_word_embeddings": False, "attn_config": None, "ffn_config": None},
)
