"""Where the tensors of a part stand, by the type of the part; a family gives the names.

A function of a part is called with (part, model, ours, theirs): `ours` is the part's path in the
tree of parameters, `theirs` what the family calls the layer.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from launch.huggingface.tensors import (
    Entry,
    by_head,
    fused,
    linear,
    norm,
    plain,
    projection,
    stacked,
    vector,
)
from model.config import Layer, Model
from model.norms import LayerNorm


class Names(NamedTuple):
    """A family's names: of the tensors outside of the layers, of a layer, with {i} for its number,
    of a layer's norms (ours: theirs), and the functions of its mixers and MLPs by their type.
    """

    embed: str
    layer: str
    norms: dict[str, str]
    mixers: dict[type, Callable]
    mlps: dict[type, Callable]
    norm_out: str
    positions: str = ""
    norm_embed: str = ""
    head: str = "lm_head.weight"


def of_model(names: Names, m: Model) -> list[Entry]:
    """Every tensor of a model, first those outside of the layers."""
    out = [plain("params/embed", names.embed)]
    if m.positions.parameters(m):
        out.append(plain("params/positions", names.positions))
    for own, ours, theirs in (
        (m.embed_norm, "norm_embed", names.norm_embed),
        (m.head_norm, "norm_out", names.norm_out),
    ):
        out += of_norm(m, ours, theirs) if own else []
    for i, ours, layer in layers(m):
        theirs = names.layer.format(i=i)
        for name in layer.norms:
            out += of_norm(m, f"{ours}/{name}", f"{theirs}.{names.norms[name]}")
        for kind, table in (("mixer", names.mixers), ("mlp", names.mlps)):
            part = getattr(layer, kind)
            out += table[type(part)](part, m, f"{ours}/{kind}", theirs)
    return out if m.tied else [*out, linear("params/head/kernel", names.head)]


def layers(m: Model) -> Iterator[tuple[int, str, Layer]]:
    """(number, path in the parameters, layer) of every layer of the unrolled model."""
    for i, layer in enumerate(m.layers):
        g, j = divmod(i - len(m.first), len(m.pattern))
        yield i, f"first_{i}" if i < len(m.first) else f"group_{g}/layer_{j}", layer


def of_norm(m: Model, ours: str, theirs: str) -> list[Entry]:
    """A norm of the model's kind."""
    return norm(ours, theirs, isinstance(m.norm, LayerNorm) and m.norm.bias)


LLAMA = {x: f"self_attn.{x}_proj" for x in "qkv"} | {
    "out": "self_attn.o_proj",
    "norm_q": "self_attn.q_norm",
    "norm_k": "self_attn.k_norm",
    "sinks": "self_attn.sinks",
}
GATED = {"gate": "gate_proj", "in": "up_proj", "out": "down_proj"}


def attention(names: dict[str, str] = LLAMA) -> Callable:
    """Queries, keys and values each by itself, and norms of them and sinks where the part has
    any.
    """

    def entries(p, m: Model, ours: str, theirs: str) -> list[Entry]:
        out = []
        for x in "qkv":
            out += projection(f"{ours}/{x}", f"{theirs}.{names[x]}", 1, p.qkv_bias)
            if p.qk_norm != "none" and x != "v":
                out += of_norm(m, f"{ours}/norm_{x}", f"{theirs}.{names[f'norm_{x}']}")
        if p.sinks:
            out.append(plain(f"params/{ours}/sinks", f"{theirs}.{names['sinks']}"))
        return out + projection(f"{ours}/out", f"{theirs}.{names['out']}", 2, p.out_bias)

    return entries


def attention_by_head(at: str) -> Callable:
    """One matrix of queries, keys and values under `at`, by heads of keys."""

    def entries(p, m: Model, ours: str, theirs: str) -> list[Entry]:
        t, kinds = f"{theirs}.{at}", [("kernel", "weight", 1)]
        kinds += [("bias", "bias", 0)] * p.qkv_bias
        out = [
            by_head(
                [f"params/{ours}/{x}/{own}" for x in "qkv"],
                f"{t}.query_key_value.{name}",
                p.m_heads(),
                inputs,
            )
            for own, name, inputs in kinds
        ]
        return out + projection(f"{ours}/out", f"{t}.dense", 2, p.out_bias)

    return entries


def latent(p, m: Model, ours: str, theirs: str) -> list[Entry]:
    """DeepSeek's: the latent and the shared rotated key are one matrix."""
    t = f"{theirs}.self_attn"
    down = [f"params/{ours}/kv_down/kernel", f"params/{ours}/k_rope/kernel"]
    out = [fused(down, f"{t}.kv_a_proj_with_mqa.weight", 1, True)]
    out += norm(f"{ours}/norm_kv", f"{t}.kv_a_layernorm", False)
    out += projection(f"{ours}/kv", f"{t}.kv_b_proj")
    if p.q_rank:
        out += projection(f"{ours}/q_down", f"{t}.q_a_proj")
        out += norm(f"{ours}/norm_q", f"{t}.q_a_layernorm", False)
    out += projection(f"{ours}/q", f"{t}.q_b_proj" if p.q_rank else f"{t}.q_proj")
    return out + projection(f"{ours}/out", f"{t}.o_proj", 2, p.out_bias)


def dense(at: str = "mlp", names: dict[str, str] = GATED, kind: Callable = linear) -> Callable:
    """An MLP under `at`, gated where `names` has a gate. kind: how a matrix is kept."""
    at = f".{at}" if at else ""

    def entries(p, m: Model, ours: str, theirs: str) -> list[Entry]:
        return [
            e
            for own, name in names.items()
            for e in projection(f"{ours}/{own}", f"{theirs}{at}.{name}", 1, p.bias, kind)
        ]

    return entries


def moe(
    at: str = "mlp", names: dict[str, str] = GATED, router: str = "gate", shared: str = ""
) -> Callable:
    """Experts under `at`, one after the other, a router, and an MLP of shared experts."""

    def entries(p, m: Model, ours: str, theirs: str) -> list[Entry]:
        t = f"{theirs}.{at}"
        out = [linear(f"params/{ours}/router", f"{t}.{router}.weight")]
        for own, name in names.items():
            each = [f"{t}.experts.{e}.{name}.weight" for e in range(p.n_experts)]
            out.append(stacked(f"params/{ours}/{own}", each))
        if p.selection_bias:
            bias = f"{t}.{router}.e_score_correction_bias"
            out.append(vector(f"buffers/{ours}/selection_bias", bias))
        if p.n_shared:
            out += dense(shared, names)(p.shared(m), m, f"{ours}/shared", t)
        if p.shared_gate:
            out.append(linear(f"params/{ours}/shared_gate", f"{t}.{shared}_gate.weight"))
        return out

    return entries
