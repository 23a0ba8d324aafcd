"""Families with LayerNorm, biases and a plain MLP: gpt2, opt, xglm, bloom. Each is `read(config) ->
Model`, `write(Model) -> config`, and `tensors(Model) -> entries`.
"""

from types import SimpleNamespace

from launch.config import ConfigError
from launch.huggingface.config_reading import activation, named
from launch.huggingface.tensors import (
    Entry,
    by_head,
    conv1d,
    fused,
    layers,
    norm,
    plain,
    projection,
)
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mlps.dense import Dense
from model.norms import LayerNorm
from model.positions import Alibi, Learned, Sinusoidal


def _attention(heads: int, biased: bool = True) -> Attention:
    return Attention(heads, qkv_bias=biased, out_bias=biased)


def read_gpt2(cfg) -> Model:
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


def write_gpt2(c: SimpleNamespace) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "n_positions": c.seq_len,
        "n_embd": c.d_model,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_inner": c.d_ff,
        "layer_norm_epsilon": c.norm_eps,
        "activation_function": named(c.activation),
        "tie_word_embeddings": c.tied,
    }


def tensors_gpt2(c: SimpleNamespace) -> list[Entry]:
    out = [
        plain("params/embed", "transformer.wte.weight"),
        plain("params/positions", "transformer.wpe.weight"),
    ]
    out += norm("norm_out", "transformer.ln_f", True)
    for i, p, _, _ in layers(c):
        t = f"transformer.h.{i}"
        out += norm(f"{p}/norm_mixer", f"{t}.ln_1", True) + norm(f"{p}/norm_mlp", f"{t}.ln_2", True)
        qkv = [f"params/{p}/mixer/{x}" for x in "qkv"]
        out.append(fused([f"{x}/kernel" for x in qkv], f"{t}.attn.c_attn.weight", 1, False))
        out.append(fused([f"{x}/bias" for x in qkv], f"{t}.attn.c_attn.bias", 0, False))
        out += projection(f"{p}/mixer/out", f"{t}.attn.c_proj", 2, True, conv1d)
        out += projection(f"{p}/mlp/in", f"{t}.mlp.c_fc", 1, True, conv1d) + projection(
            f"{p}/mlp/out", f"{t}.mlp.c_proj", 1, True, conv1d
        )
    return out


def read_opt(cfg) -> Model:
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


def write_opt(c: SimpleNamespace) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.seq_len,
        "hidden_size": c.d_model,
        "word_embed_proj_dim": c.d_model,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "ffn_dim": c.d_ff,
        "do_layer_norm_before": not c.post_norm,
        "activation_function": named(c.activation),
        "enable_bias": c.qkv_bias,
        "tie_word_embeddings": c.tied,
    }


def _fairseq(c: SimpleNamespace, root: str, final: str) -> list[Entry]:
    """What OPT and XGLM share: fairseq's names."""
    out = [plain("params/embed", f"{root}.embed_tokens.weight")]
    out += [] if c.post_norm else norm("norm_out", f"{root}.{final}", True)
    for i, p, _, _ in layers(c):
        t = f"{root}.layers.{i}"
        out += norm(f"{p}/norm_mixer", f"{t}.self_attn_layer_norm", True) + norm(
            f"{p}/norm_mlp", f"{t}.final_layer_norm", True
        )
        for x in "qkv":
            out += projection(f"{p}/mixer/{x}", f"{t}.self_attn.{x}_proj", 1, c.qkv_bias)
        out += projection(f"{p}/mixer/out", f"{t}.self_attn.out_proj", 2, c.out_bias)
        out += projection(f"{p}/mlp/in", f"{t}.fc1", 1, c.mlp_bias) + projection(
            f"{p}/mlp/out", f"{t}.fc2", 1, c.mlp_bias
        )
    return out


def tensors_opt(c: SimpleNamespace) -> list[Entry]:
    return [
        plain("params/positions", "model.decoder.embed_positions.weight"),
        *_fairseq(c, "model.decoder", "final_layer_norm"),
    ]


def read_xglm(cfg) -> Model:
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


def write_xglm(c: SimpleNamespace) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.seq_len,
        "d_model": c.d_model,
        "num_layers": c.n_layers,
        "attention_heads": c.n_heads,
        "ffn_dim": c.d_ff,
        "scale_embedding": c.embed_scale,
        "activation_function": named(c.activation),
        "tie_word_embeddings": c.tied,
    }


def tensors_xglm(c: SimpleNamespace) -> list[Entry]:
    return _fairseq(c, "model", "layer_norm")


def read_bloom(cfg) -> Model:
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


def write_bloom(c: SimpleNamespace) -> dict:
    return {
        "vocab_size": c.vocab_size,
        "seq_length": c.seq_len,
        "hidden_size": c.d_model,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": c.tied,
    }


def tensors_bloom(c: SimpleNamespace) -> list[Entry]:
    out = [plain("params/embed", "transformer.word_embeddings.weight")]
    out += norm("norm_embed", "transformer.word_embeddings_layernorm", True) + norm(
        "norm_out", "transformer.ln_f", True
    )
    for i, p, _, _ in layers(c):
        t = f"transformer.h.{i}"
        out += norm(f"{p}/norm_mixer", f"{t}.input_layernorm", True) + norm(
            f"{p}/norm_mlp", f"{t}.post_attention_layernorm", True
        )
        for part in ("kernel", "bias"):
            name = f"{t}.self_attention.query_key_value.{'weight' if part == 'kernel' else 'bias'}"
            out.append(by_head([f"params/{p}/mixer/{x}/{part}" for x in "qkv"], name))
        out += projection(f"{p}/mixer/out", f"{t}.self_attention.dense", 2, True)
        out += projection(f"{p}/mlp/in", f"{t}.mlp.dense_h_to_4h", 1, True) + projection(
            f"{p}/mlp/out", f"{t}.mlp.dense_4h_to_h", 1, True
        )
    return out
