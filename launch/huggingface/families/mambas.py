"""Families of state spaces alone, without attention and MLPs: mamba, mamba2, falcon_mamba; and what
they share with hybrids.
"""

import functools
from collections.abc import Callable

from launch.huggingface.config_values import Config
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import Names, of_model
from launch.huggingface.tensors import Entry, depthwise, fused, plain, projection
from model import parts
from model.config import Layer, Model
from model.mixers.mamba import Mamba
from model.mixers.mamba2 import Mamba2
from model.mlps.no_mlp import NoMLP
from model.norms import RMSNorm

# no state has a limit; 2048 is what Mamba was trained on
SEQ_LEN = 2048


def mamba(at: str) -> Callable:
    """Tensors of a Mamba under `at`."""

    def entries(p: Mamba, m: Model, ours: str, theirs: str) -> list[Entry]:
        t, o = f"{theirs}.{at}", f"params/{ours}"
        thin = ("steps_down", "b", "c")
        out = [
            fused([f"{o}/{x}/kernel" for x in "xz"], f"{t}.in_proj.weight", 1, True),
            depthwise([f"{o}/conv/kernel"], f"{t}.conv1d.weight"),
            fused([f"{o}/{x}/kernel" for x in thin], f"{t}.x_proj.weight", 1, True),
            *projection(f"{ours}/steps", f"{t}.dt_proj"),
            plain(f"{o}/steps_bias", f"{t}.dt_proj.bias"),
            plain(f"{o}/rates", f"{t}.A_log"),
            plain(f"{o}/skip", f"{t}.D"),
            *projection(f"{ours}/out", f"{t}.out_proj", 1, p.bias),
        ]
        if p.bias:
            out.append(fused([f"{o}/{x}/bias" for x in "xz"], f"{t}.in_proj.bias", 0, False))
        if p.conv_bias:
            out.append(plain(f"{o}/conv/bias", f"{t}.conv1d.bias"))
        if p.thin_norm == "scaled":
            named = zip(thin, ("dt", "b", "c"))
            out += [plain(f"{o}/norm_{a}/scale", f"{t}.{b}_layernorm.weight") for a, b in named]
        return out

    return entries


def mamba2(at: str) -> Callable:
    """Tensors of a Mamba-2 under `at`."""

    def entries(p: Mamba2, m: Model, ours: str, theirs: str) -> list[Entry]:
        t, o = f"{theirs}.{at}", f"params/{ours}"
        wide = ("z", "x", "b", "c", "steps")
        out = [
            fused([f"{o}/{x}/kernel" for x in wide], f"{t}.in_proj.weight", 1, True),
            depthwise([f"{o}/conv_{x}/kernel" for x in "xbc"], f"{t}.conv1d.weight"),
            *(
                plain(f"{o}/{a}", f"{t}.{b}")
                for a, b in (("steps_bias", "dt_bias"), ("rates", "A_log"), ("skip", "D"))
            ),
            plain(f"{o}/norm_gated/scale", f"{t}.norm.weight"),
            *projection(f"{ours}/out", f"{t}.out_proj", 2, p.bias),
        ]
        if p.bias:
            out.append(fused([f"{o}/{x}/bias" for x in wide], f"{t}.in_proj.bias", 0, False))
        if p.conv_bias:
            conv = [f"{o}/conv_{x}/bias" for x in "xbc"]
            out.append(fused(conv, f"{t}.conv1d.bias", 0, False))
        return out

    return entries


def channels_over_width(cfg: Config, channels: int) -> int:
    """`expand` of so many channels. Raises ConfigError."""
    expand, rest = divmod(channels, cfg["hidden_size"])
    if rest or not expand:
        cfg.refuse(
            f"{channels} channels are no multiple of hidden_size={cfg['hidden_size']}: not"
            " supported"
        )
    return expand


def _read(cfg: Config, mixer) -> Model:
    return parts.model(
        (Layer(mixer, NoMLP()),),
        vocab_size=cfg["vocab_size"],
        seq_len=cfg.get("max_position_embeddings", SEQ_LEN),
        d_model=cfg["hidden_size"],
        n_layers=cfg["num_hidden_layers"],
        tied=cfg["tie_word_embeddings"],
        norm=RMSNorm(cfg["layer_norm_epsilon"]),
        positions="none",
    )


def _write(m: Model) -> dict:
    one(m, NoMLP)
    return {
        "vocab_size": m.vocab_size,
        "max_position_embeddings": m.seq_len,
        "hidden_size": m.d_model,
        "num_hidden_layers": m.n_layers,
        "tie_word_embeddings": m.tied,
        "layer_norm_epsilon": m.norm.eps,
        "hidden_act": "silu",
    }


def _names(mixers: dict) -> Names:
    return Names(
        "backbone.embeddings.weight",
        "backbone.layers.{i}",
        {"norm_mixer": "norm"},
        mixers,
        {NoMLP: lambda p, m, ours, theirs: []},
        "backbone.norm_f",
    )


def _mamba(cfg: Config, **more) -> Mamba:
    width, rank = cfg["hidden_size"], cfg["time_step_rank"]
    channels = cfg.get("intermediate_size") or int(cfg["expand"] * width)
    return Mamba(
        channels_over_width(cfg, channels),
        cfg["state_size"],
        -(-width // 16) if rank == "auto" else rank,
        cfg["conv_kernel"],
        conv_bias=cfg["use_conv_bias"],
        bias=cfg["use_bias"],
        **more,
    )


def _read_mamba(cfg: Config) -> Model:
    return _read(cfg, _mamba(cfg))


def _write_mamba(m: Model) -> dict:
    p = one(m, Mamba)
    return {
        **_write(m),
        "expand": p.expand,
        "intermediate_size": p.channels(m),
        "state_size": p.d_state,
        "time_step_rank": p.thin(m),
        "conv_kernel": p.conv,
        "use_conv_bias": p.conv_bias,
        "use_bias": p.bias,
    }


_DEFAULTS = {
    "vocab_size": 50280,
    "hidden_size": 768,
    "num_hidden_layers": 32,
    "state_size": 16,
    "expand": 2,
    "conv_kernel": 4,
    "layer_norm_epsilon": 1e-5,
    "time_step_rank": "auto",
    "use_bias": False,
    "use_conv_bias": True,
    "tie_word_embeddings": True,
}
MAMBA = Family(
    "MambaForCausalLM",
    _read_mamba,
    _write_mamba,
    functools.partial(of_model, _names({Mamba: mamba("mixer")})),
    _DEFAULTS,
    {"hidden_act": "silu"},
)


def _read_falcon_mamba(cfg: Config) -> Model:
    return _read(cfg, _mamba(cfg, thin_norm="plain", norm_eps=cfg["mixer_rms_eps"]))


def _write_falcon_mamba(m: Model) -> dict:
    return {**_write_mamba(m), "mixer_rms_eps": one(m, Mamba).norm_eps}


FALCON_MAMBA = Family(
    "FalconMambaForCausalLM",
    _read_falcon_mamba,
    _write_falcon_mamba,
    functools.partial(of_model, _names({Mamba: mamba("mixer")})),
    {**_DEFAULTS, "mixer_rms_eps": 1e-6},
    {"hidden_act": "silu"},
)


def check_steps(cfg: Config) -> None:
    """Refuses bounds of time steps."""
    given = cfg.get("time_step_limit") or (0.0, "inf")
    # JSON has no infinity: transformers writes {"__float__": "Infinity"}
    low, high = (float(x["__float__"] if isinstance(x, dict) else x) for x in given)
    if low > 0 or high != float("inf"):
        cfg.refuse(f"time_step_limit={[low, high]} is not supported (only none)", harmless=True)


def _read_mamba2(cfg: Config) -> Model:
    check_steps(cfg)
    mixer = Mamba2(
        channels_over_width(cfg, cfg["num_heads"] * cfg["head_dim"]),
        cfg["num_heads"],
        cfg["state_size"],
        cfg["n_groups"],
        cfg["conv_kernel"],
        norm_eps=cfg["layer_norm_epsilon"],
        conv_bias=cfg["use_conv_bias"],
        bias=cfg["use_bias"],
    )
    return _read(cfg, mixer)


def _write_mamba2(m: Model) -> dict:
    p = one(m, Mamba2)
    return {
        **_write(m),
        "expand": p.expand,
        "num_heads": p.heads(m),
        "head_dim": p.width(m),
        "state_size": p.d_state,
        "n_groups": p.n_groups,
        "conv_kernel": p.conv,
        "use_conv_bias": p.conv_bias,
        "use_bias": p.bias,
        "chunk_size": 256,
    }


MAMBA2 = Family(
    "Mamba2ForCausalLM",
    _read_mamba2,
    _write_mamba2,
    functools.partial(of_model, _names({Mamba2: mamba2("mixer")})),
    {
        **_DEFAULTS,
        "vocab_size": 32768,
        "hidden_size": 4096,
        "num_hidden_layers": 64,
        "num_heads": 128,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 8,
        "tie_word_embeddings": False,
    },
    {"hidden_act": "silu"},
)
