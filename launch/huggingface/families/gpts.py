"""Families with LayerNorm, biases and a plain MLP: gpt2, opt, xglm, bloom."""

import functools

from launch.config import ConfigError
from launch.huggingface.config_values import activation, named
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import Names, attention, attention_by_head, dense, of_model
from launch.huggingface.tensors import Entry, conv1d, fused, projection
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.dense import Dense
from model.norms import LayerNorm
from model.positions import Alibi, Learned, Sinusoidal

TIED = {"tie_word_embeddings": True}


def _attention(heads: int, biased: bool = True) -> Attention:
    return Attention(heads, qkv_bias=biased, out_bias=biased)


def _read_gpt2(cfg) -> Model:
    fields = {
        "vocab_size": cfg["vocab_size"],
        "seq_len": cfg["n_positions"],
        "d_model": cfg["n_embd"],
        "n_layers": cfg["n_layer"],
        "tied": cfg["tie_word_embeddings"],
        "positions": Learned(),
        "norm": LayerNorm(cfg["layer_norm_epsilon"]),
    }
    mlp = Dense(
        cfg["n_inner"] or 4 * cfg["n_embd"],
        activation(cfg["activation_function"], gated=False),
        bias=True,
    )
    return parts.model((Layer(_attention(cfg["n_head"]), mlp),), **fields)


def _write_gpt2(m: Model) -> dict:
    mlp = one(m, Dense)
    return {
        "vocab_size": m.vocab_size,
        "n_positions": m.seq_len,
        "n_embd": m.d_model,
        "n_layer": m.n_layers,
        "n_head": one(m, Attention).n_heads,
        "n_inner": mlp.width(m),
        "layer_norm_epsilon": m.norm.eps,
        "activation_function": named(mlp.activation),
        "tie_word_embeddings": m.tied,
    }


def _attention_gpt2(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    qkv = [f"params/{ours}/{x}" for x in "qkv"]
    return [
        fused([f"{x}/kernel" for x in qkv], f"{theirs}.attn.c_attn.weight", 1, False),
        fused([f"{x}/bias" for x in qkv], f"{theirs}.attn.c_attn.bias", 0, False),
        *projection(f"{ours}/out", f"{theirs}.attn.c_proj", 2, True, conv1d),
    ]


GPT2 = Family(
    "GPT2LMHeadModel",
    _read_gpt2,
    _write_gpt2,
    functools.partial(
        of_model,
        Names(
            "transformer.wte.weight",
            "transformer.h.{i}",
            {"norm_mixer": "ln_1", "norm_mlp": "ln_2"},
            {Attention: _attention_gpt2},
            {Dense: dense("mlp", {"in": "c_fc", "out": "c_proj"}, conv1d)},
            "transformer.ln_f",
            positions="transformer.wpe.weight",
        ),
    ),
    {
        **TIED,
        "n_positions": 1024,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
    {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
)


def _read_opt(cfg) -> Model:
    if cfg.get("word_embed_proj_dim") not in (None, cfg["hidden_size"]):
        raise ConfigError(
            f"config.json: word_embed_proj_dim={cfg['word_embed_proj_dim']} other than hidden_size"
            " is not supported"
        )
    fields = {
        "vocab_size": cfg["vocab_size"],
        "seq_len": cfg["max_position_embeddings"],
        "d_model": cfg["hidden_size"],
        "n_layers": cfg["num_hidden_layers"],
        "tied": cfg["tie_word_embeddings"],
        "positions": Learned(offset=2),
        "norm": LayerNorm(),
    }
    biased = cfg["enable_bias"]
    mlp = Dense(cfg["ffn_dim"], activation(cfg["activation_function"], gated=False), biased)
    place = "pre" if cfg["do_layer_norm_before"] else "post"
    layer = Layer(_attention(cfg["num_attention_heads"], biased), mlp, norm=place)
    return parts.model((layer,), **fields)


def _write_opt(m: Model) -> dict:
    mixer, mlp = one(m, Attention), one(m, Dense)
    return {
        "vocab_size": m.vocab_size,
        "max_position_embeddings": m.seq_len,
        "hidden_size": m.d_model,
        "word_embed_proj_dim": m.d_model,
        "num_hidden_layers": m.n_layers,
        "num_attention_heads": mixer.n_heads,
        "ffn_dim": mlp.width(m),
        "do_layer_norm_before": m.layers[0].norm != "post",
        "activation_function": named(mlp.activation),
        "enable_bias": mixer.qkv_bias,
        "tie_word_embeddings": m.tied,
    }


# what OPT and XGLM share: fairseq's names
_FAIRSEQ = {x: f"self_attn.{x}_proj" for x in "qkv"} | {"out": "self_attn.out_proj"}


def _fairseq(root: str, norm_out: str, positions: str = "") -> Names:
    return Names(
        f"{root}.embed_tokens.weight",
        f"{root}.layers.{{i}}",
        {"norm_mixer": "self_attn_layer_norm", "norm_mlp": "final_layer_norm"},
        {Attention: attention(_FAIRSEQ)},
        {Dense: dense("", {"in": "fc1", "out": "fc2"})},
        f"{root}.{norm_out}",
        positions=positions,
    )


OPT = Family(
    "OPTForCausalLM",
    _read_opt,
    _write_opt,
    functools.partial(
        of_model,
        _fairseq("model.decoder", "final_layer_norm", "model.decoder.embed_positions.weight"),
    ),
    {
        **TIED,
        "max_position_embeddings": 2048,
        "do_layer_norm_before": True,
        "activation_function": "relu",
        "enable_bias": True,
    },
    {"_remove_final_layer_norm": False, "layer_norm_elementwise_affine": True},
)


def _read_xglm(cfg) -> Model:
    fields = {
        "vocab_size": cfg["vocab_size"],
        "seq_len": cfg["max_position_embeddings"],
        "d_model": cfg["d_model"],
        "n_layers": cfg["num_layers"],
        "tied": cfg["tie_word_embeddings"],
        "embed_scale": cfg["scale_embedding"],
        "positions": Sinusoidal(offset=2),
        "norm": LayerNorm(),
    }
    act = activation(cfg["activation_function"], gated=False)
    layer = Layer(_attention(cfg["attention_heads"]), Dense(cfg["ffn_dim"], act, bias=True))
    return parts.model((layer,), **fields)


def _write_xglm(m: Model) -> dict:
    mlp = one(m, Dense)
    return {
        "vocab_size": m.vocab_size,
        "max_position_embeddings": m.seq_len,
        "d_model": m.d_model,
        "num_layers": m.n_layers,
        "attention_heads": one(m, Attention).n_heads,
        "ffn_dim": mlp.width(m),
        "scale_embedding": m.embed_scale,
        "activation_function": named(mlp.activation),
        "tie_word_embeddings": m.tied,
    }


XGLM = Family(
    "XGLMForCausalLM",
    _read_xglm,
    _write_xglm,
    functools.partial(of_model, _fairseq("model", "layer_norm")),
    {
        **TIED,
        "max_position_embeddings": 2048,
        "activation_function": "gelu",
        "scale_embedding": True,
    },
    {"add_cross_attention": False},
)


def _read_bloom(cfg) -> Model:
    fields = {
        "vocab_size": cfg["vocab_size"],
        # ALiBi has no limit; 2048 is what BLOOM was trained on
        "seq_len": cfg.get("seq_length", 2048),
        "d_model": cfg["hidden_size"],
        "n_layers": cfg["n_layer"],
        "tied": cfg["tie_word_embeddings"],
        "embed_norm": True,
        "positions": Alibi(),
        "norm": LayerNorm(cfg["layer_norm_epsilon"]),
    }
    layer = Layer(_attention(cfg["n_head"]), Dense(4 * cfg["hidden_size"], bias=True))
    return parts.model((layer,), **fields)


def _write_bloom(m: Model) -> dict:
    return {
        "vocab_size": m.vocab_size,
        "seq_length": m.seq_len,
        "hidden_size": m.d_model,
        "n_layer": m.n_layers,
        "n_head": one(m, Attention).n_heads,
        "layer_norm_epsilon": m.norm.eps,
        "tie_word_embeddings": m.tied,
    }


BLOOM = Family(
    "BloomForCausalLM",
    _read_bloom,
    _write_bloom,
    functools.partial(
        of_model,
        Names(
            "transformer.word_embeddings.weight",
            "transformer.h.{i}",
            {"norm_mixer": "input_layernorm", "norm_mlp": "post_attention_layernorm"},
            {Attention: attention_by_head("self_attention")},
            {Dense: dense("mlp", {"in": "dense_h_to_4h", "out": "dense_4h_to_h"})},
            "transformer.ln_f",
            norm_embed="transformer.word_embeddings_layernorm",
        ),
    ),
    {**TIED, "layer_norm_epsilon": 1e-5},
    {"apply_residual_connection_post_layernorm": False},
)
