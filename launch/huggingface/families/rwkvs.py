"""RWKV: a time mix and a channel mix, which see the token before; rwkv is its version 4."""

import functools

from launch.huggingface.config_values import Config
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import Names, of_model
from launch.huggingface.tensors import Entry, plain, projection, rows
from model import parts
from model.config import Layer, Model
from model.mixers.rwkv4 import RWKV4
from model.mlps.channel_mix import ChannelMix
from model.norms import LayerNorm


def _shared(ours: str, theirs: str, mixed: tuple, names: dict) -> list[Entry]:
    """Shares of the token before, in the order of our rows, and matrices."""
    shares = [f"{theirs}.time_mix_{x}" for x in mixed]
    out = [rows(f"params/{ours}/shift", shares)]
    return out + [e for a, b in names.items() for e in projection(f"{ours}/{a}", f"{theirs}.{b}")]


def _time_mix(p: RWKV4, m: Model, ours: str, theirs: str) -> list[Entry]:
    t = f"{theirs}.attention"
    names = {"r": "receptance", "k": "key", "v": "value", "out": "output"}
    return [
        *_shared(ours, t, ("receptance", "key", "value"), names),
        plain(f"params/{ours}/rates", f"{t}.time_decay"),
        plain(f"params/{ours}/bonus", f"{t}.time_first"),
    ]


def _channel_mix(p: ChannelMix, m: Model, ours: str, theirs: str) -> list[Entry]:
    names = {"r": "receptance", "k": "key", "out": "value"}
    return _shared(ours, f"{theirs}.feed_forward", ("receptance", "key"), names)


def _read(cfg: Config) -> Model:
    width = cfg["hidden_size"]
    if (cfg.get("attention_hidden_size") or width) != width:
        cfg.refuse("attention_hidden_size other than hidden_size is not supported")
    return parts.model(
        (Layer(RWKV4(), ChannelMix(cfg["intermediate_size"] or 4 * width)),),
        vocab_size=cfg["vocab_size"],
        seq_len=cfg["context_length"],
        d_model=width,
        n_layers=cfg["num_hidden_layers"],
        tied=cfg["tie_word_embeddings"],
        norm=LayerNorm(cfg["layer_norm_epsilon"]),
        embed_norm=True,
        positions="none",
    )


def _write(m: Model) -> dict:
    one(m, RWKV4)
    return {
        "vocab_size": m.vocab_size,
        "context_length": m.seq_len,
        "hidden_size": m.d_model,
        "attention_hidden_size": m.d_model,
        "intermediate_size": one(m, ChannelMix).width(m),
        "num_hidden_layers": m.n_layers,
        "tie_word_embeddings": m.tied,
        "layer_norm_epsilon": m.norm.eps,
        "rescale_every": 0,  # halves states and matrices every so many layers, for 16 bits
    }


RWKV = Family(
    "RwkvForCausalLM",
    _read,
    _write,
    functools.partial(
        of_model,
        Names(
            "rwkv.embeddings.weight",
            "rwkv.blocks.{i}",
            {"norm_mixer": "ln1", "norm_mlp": "ln2"},
            {RWKV4: _time_mix},
            {ChannelMix: _channel_mix},
            "rwkv.ln_out",
            norm_embed="rwkv.blocks.0.pre_ln",
            head="head.weight",
        ),
    ),
    {
        "vocab_size": 50277,
        "context_length": 1024,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": None,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
    },
    {"layer_norm_epsilon": 1e-5},  # the last norm has it whatever the config says
)
