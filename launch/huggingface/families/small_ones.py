"""SmolLM3, some of whose layers have no positions, and Phi-3, whose matrices are fused."""

import functools

from launch.huggingface.config_values import Config
from launch.huggingface.families.llamas import (
    DEFAULTS,
    NAMES,
    read_attention,
    read_dense,
    read_shared,
    read_windows,
    write_attention,
    write_dense,
    write_shared,
    write_windows,
)
from launch.huggingface.family import Family, held, one, tiled
from launch.huggingface.part_tensors import of_model
from launch.huggingface.rope_values import rope
from launch.huggingface.tensors import Entry, fused, projection
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.dense import Dense
from model.positions import NoPositions


def _read_smollm3(cfg: Config) -> Model:
    n, every = cfg["num_hidden_layers"], cfg["no_rope_layer_interval"]
    turned = cfg["no_rope_layers"] or [(i + 1) % every != 0 for i in range(n)]
    windowed = cfg.get("use_sliding_window") and cfg["sliding_window"]
    kinds = ["full_attention" if t or not windowed else "sliding_attention" for t in turned]
    mlp, layers = read_dense(cfg, bias=cfg["mlp_bias"]), []
    for own, window in zip(turned, read_windows(cfg, kinds)):
        place = None if own else NoPositions()
        layers.append(Layer(read_attention(cfg, window=window, positions=place), mlp))
    return parts.model(**tiled(layers), **read_shared(cfg, positions=rope(cfg, theta=2e6)))


def _write_smollm3(m: Model) -> dict:
    return {
        **write_shared(m),
        **write_attention(m),
        **write_dense(m),
        **write_windows(m),
        "mlp_bias": one(m, Dense).bias,
        "no_rope_layers": [int(p.positions is None) for p in held(m, Attention)],
        "pad_token_id": None,  # theirs lies beyond a small vocabulary
    }


SMOLLM3 = Family(
    "SmolLM3ForCausalLM",
    _read_smollm3,
    _write_smollm3,
    functools.partial(of_model, NAMES),
    {
        **DEFAULTS,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "sliding_window": None,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
        "attention_bias": False,
        "mlp_bias": False,
    },
)


def _read_phi3(cfg: Config) -> Model:
    layer = Layer(read_attention(cfg, window=cfg["sliding_window"] or 0), read_dense(cfg))
    return parts.model((layer,), **read_shared(cfg))


def _write_phi3(m: Model) -> dict:
    window, scaling = one(m, Attention).window or None, getattr(m.positions, "scaling", None)
    return {
        **write_shared(m, partial=True),
        **write_attention(m),
        **write_dense(m),
        "sliding_window": window,
        "original_max_position_embeddings": getattr(scaling, "original", m.seq_len),
        "pad_token_id": None,  # theirs lies beyond a small vocabulary
    }


def _attention_phi3(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    qkv = [f"params/{ours}/{x}/kernel" for x in "qkv"]
    out = fused(qkv, f"{theirs}.self_attn.qkv_proj.weight", 1, True)
    return [out, *projection(f"{ours}/out", f"{theirs}.self_attn.o_proj", 2)]


def _dense_phi3(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    both = [f"params/{ours}/{x}/kernel" for x in ("gate", "in")]
    out = fused(both, f"{theirs}.mlp.gate_up_proj.weight", 1, True)
    return [out, *projection(f"{ours}/out", f"{theirs}.mlp.down_proj")]


PHI3 = Family(
    "Phi3ForCausalLM",
    _read_phi3,
    _write_phi3,
    functools.partial(
        of_model, NAMES._replace(mixers={Attention: _attention_phi3}, mlps={Dense: _dense_phi3})
    ),
    {
        **DEFAULTS,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
)
