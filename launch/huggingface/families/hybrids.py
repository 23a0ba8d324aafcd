"""Families whose layers have state spaces or attention in turns: jamba, bamba."""

import functools

from launch.huggingface.config_values import Config, named
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
from launch.huggingface.families.mambas import check_steps, mamba, mamba2
from launch.huggingface.family import Family, held, one, tiled
from launch.huggingface.part_tensors import attention, dense, moe, of_model
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.mamba import Mamba
from model.mixers.mamba2 import Mamba2
from model.mlps.dense import Dense
from model.mlps.moe import MoE
from model.positions import NoPositions

_NAMES = NAMES._replace(
    norms={"norm_mixer": "input_layernorm", "norm_mlp": "pre_ff_layernorm"},
    norm_out="model.final_layernorm",
)


def _read_jamba(cfg: Config) -> Model:
    rank = cfg["mamba_dt_rank"]
    recurrent = Mamba(
        cfg["mamba_expand"],
        cfg["mamba_d_state"],
        -(-cfg["hidden_size"] // 16) if rank == "auto" else rank,
        cfg["mamba_d_conv"],
        thin_norm="scaled",
        norm_eps=cfg["rms_norm_eps"],
        conv_bias=cfg["mamba_conv_bias"],
        bias=cfg["mamba_proj_bias"],
    )
    plain, attending = read_dense(cfg), read_attention(cfg)
    experts = MoE(
        cfg["num_experts"],
        cfg["num_experts_per_tok"],
        d_expert=cfg["intermediate_size"],
        activation=plain.activation,
        renormalise=False,
        balance_scope="model",
    )

    def layer(i: int) -> Layer:
        attends = i % cfg["attn_layer_period"] == cfg["attn_layer_offset"]
        routed = i % cfg["expert_layer_period"] == cfg["expert_layer_offset"]
        routed = routed and cfg["num_experts"] > 1
        return Layer(attending if attends else recurrent, experts if routed else plain)

    layers = [layer(i) for i in range(cfg["num_hidden_layers"])]
    return parts.model(**tiled(layers), **{**read_shared(cfg), "positions": NoPositions()})


def _period(which: list[bool]) -> tuple[int, int]:
    """(period, offset) of the layers that are of a kind; of others than a period says, one that
    reads otherwise.
    """
    found = [i for i, yes in enumerate(which) if yes]
    if not found:
        return len(which) + 1, len(which)
    period = found[1] - found[0] if len(found) > 1 else len(which)
    return max(period, found[0] + 1), found[0]


def _write_jamba(m: Model) -> dict:
    p, experts, plain = one(m, Mamba), held(m, MoE), held(m, Dense)
    routed, attends = (
        _period([isinstance(getattr(x, at), kind) for x in m.layers])
        for at, kind in (("mlp", MoE), ("mixer", Attention))
    )
    mlp = (experts or plain or [one(m, Dense)])[0]
    own = write_attention(m) if held(m, Attention) else {"num_attention_heads": 1}
    shared = {k: v for k, v in write_shared(m).items() if k != "rope_parameters"}
    return {
        **shared,
        **{k: v for k, v in own.items() if k not in ("head_dim", "attention_bias")},
        "intermediate_size": mlp.width(m),
        "hidden_act": named(mlp.activation),
        "num_experts": experts[0].n_experts if experts else 1,
        "num_experts_per_tok": experts[0].top_k if experts else 1,
        "expert_layer_period": routed[0],
        "expert_layer_offset": routed[1],
        "attn_layer_period": attends[0],
        "attn_layer_offset": attends[1],
        "mamba_expand": p.expand,
        "mamba_d_state": p.d_state,
        "mamba_dt_rank": p.thin(m),
        "mamba_d_conv": p.conv,
        "mamba_conv_bias": p.conv_bias,
        "mamba_proj_bias": p.bias,
    }


JAMBA = Family(
    "JambaForCausalLM",
    _read_jamba,
    _write_jamba,
    functools.partial(
        of_model,
        _NAMES._replace(
            mixers={Attention: attention(), Mamba: mamba("mamba")},
            mlps={Dense: dense("feed_forward"), MoE: moe("feed_forward", router="router")},
        ),
    ),
    {
        **DEFAULTS,
        "vocab_size": 65536,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262_144,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_dt_rank": "auto",
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
    },
    {"hidden_act": "silu"},
)


def _read_bamba(cfg: Config) -> Model:
    check_steps(cfg)
    heads = cfg["mamba_n_heads"]
    recurrent = Mamba2(
        cfg["mamba_expand"],
        heads,
        cfg["mamba_d_state"],
        cfg["mamba_n_groups"],
        cfg["mamba_d_conv"],
        norm_eps=cfg["rms_norm_eps"],
        conv_bias=cfg["mamba_conv_bias"],
        bias=cfg["mamba_proj_bias"],
    )
    width = recurrent.expand * cfg["hidden_size"] // heads
    if cfg["mamba_d_head"] not in ("auto", width):
        cfg.refuse(f"mamba_d_head={cfg['mamba_d_head']} is not supported (only {width} or auto)")
    mlp, attending = read_dense(cfg, bias=cfg["mlp_bias"]), read_attention(cfg)
    where = cfg["attn_layer_indices"] or []
    layers = [
        Layer(attending if i in where else recurrent, mlp) for i in range(cfg["num_hidden_layers"])
    ]
    return parts.model(**tiled(layers), **read_shared(cfg))


def _write_bamba(m: Model) -> dict:
    p, attends = one(m, Mamba2), [isinstance(x.mixer, Attention) for x in m.layers]
    own = write_attention(m) if any(attends) else {"num_attention_heads": 1}
    own.pop("head_dim", None)
    return {
        **write_shared(m),
        **own,
        **write_dense(m),
        "mlp_bias": one(m, Dense).bias,
        "attn_layer_indices": [i for i, yes in enumerate(attends) if yes],
        "mamba_expand": p.expand,
        "mamba_n_heads": p.heads(m),
        "mamba_d_head": p.width(m),
        "mamba_n_groups": p.n_groups,
        "mamba_d_state": p.d_state,
        "mamba_d_conv": p.conv,
        "mamba_chunk_size": 256,
        "mamba_conv_bias": p.conv_bias,
        "mamba_proj_bias": p.bias,
    }


BAMBA = Family(
    "BambaForCausalLM",
    _read_bamba,
    _write_bamba,
    functools.partial(
        of_model,
        _NAMES._replace(
            mixers={Attention: attention(), Mamba2: mamba2("mamba")},
            mlps={Dense: dense("feed_forward")},
        ),
    ),
    {
        **DEFAULTS,
        "vocab_size": 128_000,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "mlp_bias": False,
        "attn_layer_indices": None,
        "mamba_n_heads": 128,
        "mamba_d_head": "auto",
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "partial_rotary_factor": 0.5,
    },
    {"hidden_act": "silu", "partial_rotary_factor": 0.5},  # theirs is a half whatever is said
)
