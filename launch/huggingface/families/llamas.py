"""Families with RMSNorm, rotary positions and a gated MLP: llama, mistral, qwen3, and what they
share with families of experts.
"""

import functools

from launch.huggingface.config_values import Config, activation, named
from launch.huggingface.family import Family, held, one, tiled
from launch.huggingface.part_tensors import Names, attention, dense, of_model
from launch.huggingface.rope_values import rope, rope_fields
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.softmax import head_width
from model.mlps.dense import Dense
from model.norms import RMSNorm

DEFAULTS = {
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "head_dim": None,
}
MISTRAL_DEFAULTS = {**DEFAULTS, "num_key_value_heads": 8, "max_position_embeddings": 131_072}
QWEN_DEFAULTS = {
    **DEFAULTS,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
NAMES = Names(
    "model.embed_tokens.weight",
    "model.layers.{i}",
    {"norm_mixer": "input_layernorm", "norm_mlp": "post_attention_layernorm"},
    {Attention: attention()},
    {Dense: dense()},
    "model.norm",
)


def read_shared(cfg: Config, interleaved: bool = False, **own) -> dict:
    """Fields that all layers share; `own` are the family's."""
    if "norm" not in own:
        own["norm"] = RMSNorm(cfg["rms_norm_eps"])
    if "positions" not in own:
        own["positions"] = rope(cfg, interleaved)
    return {
        "vocab_size": cfg["vocab_size"],
        "seq_len": cfg["max_position_embeddings"],
        "d_model": cfg["hidden_size"],
        "n_layers": cfg["num_hidden_layers"],
        "tied": cfg["tie_word_embeddings"],
        **own,
    }


def read_attention(cfg: Config, **more) -> Attention:
    heads, biased = cfg["num_attention_heads"], bool(cfg.get("attention_bias"))
    return Attention(
        heads,
        cfg.get("num_key_value_heads") or heads,
        cfg.get("head_dim") or cfg["hidden_size"] // heads,
        **{"qkv_bias": biased, "out_bias": biased, **more},
    )


def read_dense(cfg: Config, **more) -> Dense:
    return Dense(cfg["intermediate_size"], activation(cfg["hidden_act"], gated=True), **more)


def write_shared(m: Model, eps: str = "rms_norm_eps", partial: bool = False) -> dict:
    """The inverse of `read_shared`. eps: what the family calls it; partial: it turns a share of a
    head.
    """
    return {
        "vocab_size": m.vocab_size,
        "max_position_embeddings": m.seq_len,
        "hidden_size": m.d_model,
        "num_hidden_layers": m.n_layers,
        eps: m.norm.eps,
        "tie_word_embeddings": m.tied,
        **rope_fields(m.positions, partial),
    }


def write_attention(m: Model) -> dict:
    """The inverse of `read_attention`."""
    p = one(m, Attention)
    return {
        "num_attention_heads": p.n_heads,
        "num_key_value_heads": p.m_heads(),
        "head_dim": head_width(p, m),
        "attention_bias": p.qkv_bias,
    }


def write_dense(m: Model) -> dict:
    """The inverse of `read_dense`."""
    p = one(m, Dense)
    return {"intermediate_size": p.width(m), "hidden_act": named(p.activation)}


def _write(m: Model) -> dict:
    return {**write_shared(m), **write_attention(m), **write_dense(m)}


def _read_llama(cfg: Config) -> Model:
    layer = Layer(read_attention(cfg), read_dense(cfg, bias=cfg["mlp_bias"]))
    return parts.model((layer,), **read_shared(cfg))


def _write_llama(m: Model) -> dict:
    return {**_write(m), "mlp_bias": one(m, Dense).bias}


LLAMA = Family(
    "LlamaForCausalLM",
    _read_llama,
    _write_llama,
    functools.partial(of_model, NAMES),
    {**DEFAULTS, "attention_bias": False, "mlp_bias": False},
)


def _read_mistral(cfg: Config) -> Model:
    layer = Layer(read_attention(cfg, window=cfg["sliding_window"] or 0), read_dense(cfg))
    return parts.model((layer,), **read_shared(cfg))


def _write_mistral(m: Model) -> dict:
    return {**_write(m), "sliding_window": one(m, Attention).window or None}


MISTRAL = Family(
    "MistralForCausalLM",
    _read_mistral,
    _write_mistral,
    functools.partial(of_model, NAMES),
    {**MISTRAL_DEFAULTS, "sliding_window": 4096},
)


def read_windows(cfg: Config, kinds: list[str] | None = None) -> list[int]:
    """Of every layer: those of `layer_types`, or of older files `kinds`; without these, from
    max_window_layers on.
    """
    n = cfg["num_hidden_layers"]
    full = cfg.get("max_window_layers") if cfg.get("use_sliding_window") else n
    kinds = (
        cfg.get("layer_types")
        or kinds
        or ["sliding_attention" if i >= full else "full_attention" for i in range(n)]
    )
    for kind in dict.fromkeys(kinds):
        if kind not in ("sliding_attention", "full_attention"):
            cfg.refuse(f"layer_types with {kind!r} is not supported")
    if len(kinds) != n:
        cfg.refuse(f"layer_types has {len(kinds)} entries for {n} layers")
    return [(cfg["sliding_window"] or 0) * (kind == "sliding_attention") for kind in kinds]


def read_qwen_attention(cfg: Config) -> list[Attention]:
    """Of every layer."""
    return [read_attention(cfg, qk_norm="head", window=w) for w in read_windows(cfg)]


def write_windows(m: Model) -> dict:
    """`layer_types` and the window of those that have one."""
    windows = [p.window for p in held(m, Attention)]
    kinds = ["sliding_attention" if w else "full_attention" for w in windows]
    return {
        "use_sliding_window": any(windows),
        "sliding_window": max(windows) or None,
        "max_window_layers": 0 if all(windows) else m.n_layers,
        "layer_types": kinds,
    }


def _read_qwen3(cfg: Config) -> Model:
    mlp = read_dense(cfg)
    layers = [Layer(mixer, mlp) for mixer in read_qwen_attention(cfg)]
    return parts.model(**tiled(layers), **read_shared(cfg))


def _write_qwen3(m: Model) -> dict:
    return {**_write(m), **write_windows(m)}


QWEN3 = Family(
    "Qwen3ForCausalLM",
    _read_qwen3,
    _write_qwen3,
    functools.partial(of_model, NAMES),
    {**QWEN_DEFAULTS, "head_dim": 128},
)
