"""Which family computes a model: the one that reads, out of what it writes, the same function.
Models are compared layer by layer, so that patterns that tile equally are equal; what differs is
named as `--set` calls it.
"""

import dataclasses

from launch.config import ConfigError
from launch.huggingface.config_values import Config
from launch.huggingface.families import FAMILIES
from model import parts
from model.config import Layer, Model
from model.mixers.attention import Attention
from model.mixers.gated_delta import GatedDelta
from model.mixers.latent import Latent
from model.mixers.mamba import Mamba
from model.mixers.mamba2 import Mamba2
from model.mixers.rg_lru import RGLRU
from model.mixers.softmax import head_width
from model.mlps.channel_mix import ChannelMix
from model.mlps.dense import Dense
from model.mlps.moe import MoE
from model.positions import NoPositions

# fields of experts that decide training alone: no config.json carries them
TRAINING = ("balance_weight", "balance_scope", "z_weight", "bias_rate", "routing_group")


def _moe(p: MoE, m: Model) -> dict:
    own = {f.name: f.default for f in dataclasses.fields(p) if f.name in TRAINING}
    alone = {} if p.expert_groups > 1 else {"top_groups": 1, "group_score": "top2"}
    gates = {"renormalise": False} if p.top_k == 1 else {}
    return {"d_ff": 0, "d_expert": p.width(m), **own, **alone, **gates}


# fields of a part whose defaults depend on the model, or that nothing reads: what they stand for
EXPLICIT = {
    Attention: lambda p, m: {
        "n_kv_heads": p.m_heads(),
        "d_head": head_width(p, m),
        "scale": p.scale or head_width(p, m) ** -0.5,
    },
    Latent: lambda p, m: {
        "d_head": head_width(p, m),
        "d_value": p.value_width(m),
        "scale": p.scale or (head_width(p, m) + p.d_rope) ** -0.5,
    },
    GatedDelta: lambda p, m: {
        "n_value_heads": p.heads(),
        "d_head": p.widths(m)[0],
        "d_value": p.widths(m)[1],
    },
    Mamba: lambda p, m: {
        "rank": p.thin(m),
        "norm_eps": 0.0 if p.thin_norm == "none" else p.norm_eps,
    },
    Mamba2: lambda p, m: {"n_heads": p.heads(m)},
    RGLRU: lambda p, m: {"n_channels": p.channels(m)},
    ChannelMix: lambda p, m: {"d_ff": p.width(m)},
    Dense: lambda p, m: {"d_ff": p.width(m)},
    MoE: _moe,
}


def _explicit(part, m: Model):
    """A mixer or MLP with every default made explicit; positions are compared by themselves."""
    own = EXPLICIT[type(part)](part, m) if type(part) in EXPLICIT else {}
    if hasattr(part, "positions"):
        own["positions"] = None
    return dataclasses.replace(part, **own)


def single_gate(m: Model) -> Model:
    """`m` with the gates that it computes said aloud: those of one expert are not renormalised."""

    def layers(old: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(
            dataclasses.replace(x, mlp=dataclasses.replace(x.mlp, renormalise=False))
            if isinstance(x.mlp, MoE) and x.mlp.top_k == 1
            else x
            for x in old
        )

    return dataclasses.replace(m, pattern=layers(m.pattern), first=layers(m.first))


def _turned(layer: Layer, m: Model):
    """The positions that a layer's mixer reads; those added to the embeddings turn nothing."""
    p = layer.mixer
    if not hasattr(p, "positions") or isinstance(p, Latent) and not p.d_rope:
        return None
    own = p.positions or m.positions
    return NoPositions() if own.embedded else own


def _fields(where: str, a, b) -> dict[str, str]:
    """{field: value} of what part `a` has and part `b` has not; of another class, {where: a}."""
    if type(a) is not type(b):
        return {where: repr(parts.written(a))}
    return {
        f"{parts.NAMES[type(a)]}.{f.name}": repr(getattr(a, f.name))
        for f in dataclasses.fields(a)
        if getattr(a, f.name) != getattr(b, f.name)
    }


def _embedded(m: Model) -> float:
    """What embeddings are multiplied by."""
    return m.embed_multiplier * (m.d_model**0.5 if m.embed_scale else 1.0)


def differences(m: Model, other: Model) -> dict[str, str]:
    """{what `--set` calls it: the value} of all in which the function of `m` at inference differs
    from that of `other`.
    """
    apart = ["positions", "norm", "pattern", "first"]
    if _embedded(m) == _embedded(other):
        apart += ["embed_scale", "embed_multiplier"]
    out = {
        f.name: repr(getattr(m, f.name))
        for f in dataclasses.fields(Model)
        if f.name not in apart and getattr(m, f.name) != getattr(other, f.name)
    }
    out |= _fields("norm", m.norm, other.norm)
    added, theirs = (x.positions if x.positions.embedded else None for x in (m, other))
    if type(added) is not type(theirs):
        out["positions"] = repr(parts.written(m.positions))
    elif added:
        out |= _fields("positions", added, theirs)
    if _kinds(m) == _kinds(other):
        out |= _layers_differ(m, other)
    else:
        text = ", ".join("/".join(kinds) for kinds in dict.fromkeys(_kinds(m)))
        out["pattern"] = repr(text)
    return {f"model.{k}": v for k, v in out.items()}


def _kinds(m: Model) -> list[tuple[str, str]]:
    return [(parts.NAMES[type(x.mixer)], parts.NAMES[type(x.mlp)]) for x in m.layers]


def _layers_differ(m: Model, other: Model) -> dict[str, str]:
    """Of models with the same kinds of parts in all layers: a field by the name of its part where
    all of them differ by one value, else by the place of every layer that does.
    """
    found: dict[tuple[str, str], dict[int, str]] = {}
    for i, (a, b) in enumerate(zip(m.layers, other.layers)):
        for names, value in _one_differs(m, a, other, b):
            found.setdefault(names, {})[i] = value
    out, kinds = {}, _kinds(m)
    for (name, place), values in found.items():
        part = name.split(".")[0]
        reached = [i for i, own in enumerate(kinds) if part in ("layer", *own)]
        if not place or reached == list(values) and len(set(values.values())) == 1:
            out[name] = next(iter(values.values()))
        else:
            out |= {f"{_place(m, i)}.{place}": value for i, value in values.items()}
    return out


def _place(m: Model, i: int) -> str:
    past = i - len(m.first)
    return f"first[{i}]" if past < 0 else f"pattern[{past % len(m.pattern)}]"


def _one_differs(m: Model, a: Layer, other: Model, b: Layer):
    """((name by the part, name in the layer; empty where all layers share it), value) of what layer
    `a` of `m` has and layer `b` of `other` has not.
    """
    for n in ("norm", "residual", "residual_scale"):
        if getattr(a, n) != getattr(b, n):
            yield (f"layer.{n}", n), repr(getattr(a, n))
    for at, x, y in (("mixer", a.mixer, b.mixer), ("mlp", a.mlp, b.mlp)):
        for name, value in _fields(at, _explicit(x, m), _explicit(y, other)).items():
            yield (name, f"{at}.{name.split('.')[1]}"), value
    turned, theirs = _turned(a, m), _turned(b, other)
    if turned == theirs:
        return
    if a.mixer.positions:
        name = parts.NAMES[type(a.mixer)]
        yield (f"{name}.positions", "mixer.positions"), repr(parts.written(turned))
    elif m.positions.embedded == other.positions.embedded:  # else it is said of the model
        for name, value in _fields("positions", turned, theirs).items():
            yield (name, ""), value


def family_of(m: Model) -> str:
    """The family that computes the function of `m`. Raises ConfigError with the fields that none
    has, by the nearest family.
    """
    m, nearest = single_gate(m), None
    for name, family in FAMILIES.items():
        try:
            again = family.read(Config(family.write(m), family.defaults))
        except (ConfigError, ValueError, TypeError, AttributeError):
            continue  # it has no place for one of the parts
        differ = differences(m, again)
        if not differ:
            return name
        far = "model.pattern" in differ, len(differ)
        if nearest is None or far < nearest[0]:
            nearest = far, name, differ
    if nearest is None:
        kinds = ", ".join("/".join(k) for k in dict.fromkeys(_kinds(m)))
        raise ConfigError(
            f"no Hugging Face family here has layers {kinds} with this activation: set"
            " model.mlp.activation to swiglu, gelu or relu, or another model.pattern"
        )
    _, name, differ = nearest
    said = ", ".join(f"{k}={v}" for k, v in differ.items())
    raise ConfigError(
        f"no Hugging Face family here computes this model; the nearest, {name}, differs in {said}"
    )
