"""Granite, dense and of experts: multipliers of embeddings, scores, residuals and logits."""

import functools

import numpy as np

from launch.huggingface.config_values import Config, whole
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
from launch.huggingface.families.mixtures import read_moe, write_moe
from launch.huggingface.family import Family, one
from launch.huggingface.part_tensors import of_model
from launch.huggingface.tensors import Entry, linear
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.softmax import head_width
from model.mlps.dense import Dense
from model.mlps.moe import MoE

_DEFAULTS = {
    **DEFAULTS,
    "attention_bias": False,
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
}


def _read(cfg: Config, mlp) -> Model:
    mixer = read_attention(cfg, scale=float(cfg["attention_multiplier"]))
    layer = Layer(mixer, mlp, residual_scale=float(cfg["residual_multiplier"]))
    own = {
        "embed_multiplier": float(cfg["embedding_multiplier"]),
        "logit_scale": 1 / cfg["logits_scaling"],
    }
    return parts.model((layer,), **read_shared(cfg, **own))


def _write(m: Model) -> dict:
    mixer = one(m, Attention)
    return {
        **write_shared(m),
        **write_attention(m),
        "attention_multiplier": mixer.scale or head_width(mixer, m) ** -0.5,
        "residual_multiplier": m.layers[0].residual_scale,
        "embedding_multiplier": m.embed_multiplier,
        "logits_scaling": whole(1 / m.logit_scale),
    }


def _write_granite(m: Model) -> dict:
    return {**_write(m), **write_dense(m), "mlp_bias": one(m, Dense).bias}


GRANITE = Family(
    "GraniteForCausalLM",
    lambda cfg: _read(cfg, read_dense(cfg, bias=cfg["mlp_bias"])),
    _write_granite,
    functools.partial(of_model, NAMES),
    {**_DEFAULTS, "mlp_bias": False},
)


def _halves(ours: list[str], theirs: str) -> Entry:
    """Of every expert the gate and the other branch one after the other, (E, 2F, D)."""
    return Entry(
        tuple(ours),
        (theirs,),
        lambda a, shapes: [x.swapaxes(1, 2) for x in np.split(a[0], 2, 1)],
        lambda a: [np.concatenate([x.swapaxes(1, 2) for x in a], 1)],
    )


def _moe(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    t = f"{theirs}.block_sparse_moe"
    return [
        linear(f"params/{ours}/router", f"{t}.router.layer.weight"),
        _halves([f"params/{ours}/{x}" for x in ("gate", "in")], f"{t}.input_linear.weight"),
        Entry(
            (f"params/{ours}/out",),
            (f"{t}.output_linear.weight",),
            lambda a, shapes: [a[0].swapaxes(1, 2)],
            lambda a: [a[0].swapaxes(1, 2)],
        ),
    ]


def _read_granitemoe(cfg: Config) -> Model:
    own = read_moe(cfg, "num_local_experts", "intermediate_size", balance_scope="model")
    return _read(cfg, own)


def _write_granitemoe(m: Model) -> dict:
    return {**_write(m), **write_moe(m, "num_local_experts", "intermediate_size")}


GRANITEMOE = Family(
    "GraniteMoeForCausalLM",
    _read_granitemoe,
    _write_granitemoe,
    functools.partial(of_model, NAMES._replace(mlps={MoE: _moe})),
    {**_DEFAULTS, "num_local_experts": 8, "num_experts_per_tok": 2},
)
