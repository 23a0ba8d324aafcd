"""Falcon: one matrix of queries, keys and values, two layouts of them, three of the norms."""

from launch.huggingface.config_values import Config, activation, named
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import Names, attention_by_head, dense, of_model
from launch.huggingface.rope_values import rope, rope_fields
from launch.huggingface.tensors import Entry
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.dense import Dense
from model.norms import LayerNorm


def _read_falcon(cfg: Config) -> Model:
    heads, biased, new = cfg["num_attention_heads"], cfg["bias"], cfg["new_decoder_architecture"]
    groups = (cfg["num_kv_heads"] or heads) if new else 1 if cfg["multi_query"] else heads
    mixer = Attention(heads, groups, qkv_bias=biased, out_bias=biased)
    width = cfg["ffn_hidden_size"] or 4 * cfg["hidden_size"]
    mlp = Dense(width, activation(cfg["activation"], gated=False), biased)
    two = cfg["num_ln_in_parallel_attn"] or (2 if new else 1)
    if new and not cfg["parallel_attn"] or two == 2 and not new:
        cfg.refuse(
            f"parallel_attn={cfg['parallel_attn']} and num_ln_in_parallel_attn={two} with"
            f" new_decoder_architecture={new} is not supported"
        )
    residual = ("parallel" if two == 2 else "shared") if cfg["parallel_attn"] else "sequential"
    return parts.model(
        (Layer(mixer, mlp, residual=residual),),
        vocab_size=cfg["vocab_size"],
        seq_len=cfg["max_position_embeddings"],
        d_model=cfg["hidden_size"],
        n_layers=cfg["num_hidden_layers"],
        tied=cfg["tie_word_embeddings"],
        norm=LayerNorm(cfg["layer_norm_epsilon"]),
        positions=rope(cfg),
    )


def _write_falcon(m: Model) -> dict:
    mixer, mlp, residual = one(m, Attention), one(m, Dense), m.layers[0].residual
    groups = mixer.m_heads()
    new = residual == "parallel" or residual == "shared" and groups not in (1, mixer.n_heads)
    return {
        "vocab_size": m.vocab_size,
        "max_position_embeddings": m.seq_len,
        "hidden_size": m.d_model,
        "num_hidden_layers": m.n_layers,
        "tie_word_embeddings": m.tied,
        "layer_norm_epsilon": m.norm.eps,
        "num_attention_heads": mixer.n_heads,
        "num_kv_heads": groups,
        "multi_query": groups == 1,
        "new_decoder_architecture": new,
        "parallel_attn": residual != "sequential",
        "num_ln_in_parallel_attn": (2 if residual == "parallel" else 1) if new else None,
        "ffn_hidden_size": mlp.width(m),
        "activation": named(mlp.activation),
        "bias": mixer.qkv_bias,
        "alibi": False,
        **rope_fields(m.positions),
    }


NORMS = {
    "parallel": {"norm_mixer": "ln_attn", "norm_mlp": "ln_mlp"},
    "shared": {"norm_mixer": "input_layernorm"},
    "sequential": {"norm_mixer": "input_layernorm", "norm_mlp": "post_attention_layernorm"},
}


def _tensors(m: Model) -> list[Entry]:
    names = Names(
        "transformer.word_embeddings.weight",
        "transformer.h.{i}",
        NORMS[m.layers[0].residual],
        {Attention: attention_by_head("self_attention")},
        {Dense: dense("mlp", {"in": "dense_h_to_4h", "out": "dense_4h_to_h"})},
        "transformer.ln_f",
    )
    return of_model(names, m)


FALCON = Family(
    "FalconForCausalLM",
    _read_falcon,
    _write_falcon,
    _tensors,
    {
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-5,
        "num_kv_heads": None,
        "multi_query": True,
        "new_decoder_architecture": False,
        "parallel_attn": True,
        "num_ln_in_parallel_attn": None,
        "ffn_hidden_size": None,
        "activation": "gelu",
        "bias": False,
    },
    {"alibi": False},  # slopes are rounded to bfloat16 there, and divided by the width of a head
)
