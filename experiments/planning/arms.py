"""The arms that a sweep compares: what each puts into the model that all of them start from.

An arm is a part or a list of layers, as a value or as its text. A mixer, an MLP, a position or a
norm takes the place of those of the base model; layers take the place of its pattern. What the text
of an arm does not name it takes from the base, field by field of equal name: an arm `moe` on a base
of `dense(activation=swiglu)` has gated experts. The text of a value names what differs from its
defaults; to hold a field at its default, name it in text.

Behind a semicolon stand settings of the run: ``dense; data.mixture=code=0.5,web=0.5``, or without a
part, ``; data.unique_tokens=100000``. ``lr_multiplier=0.5`` is of the ladder's learning rate.
"""

import dataclasses
from typing import Any

from launch.config import ConfigError
from model import parts
from model import text as text_form
from model.config import Layer, Model
from model.positions import Rope

# These have a name everywhere (`--set sweep.families=dense,jamba`), and so has whatever part is
# registered, or a layer of two (`mamba2`, `mamba2/moe`). A recipe can have arms of its own
# (experiments/planning/grid.py, `Sweep.arms`). {half} is half the context.
ARMS = {
    "dense": "dense",
    "moe": "moe",
    "sinusoidal": "sinusoidal",
    "learned": "learned",
    "rope": "rope",
    # experts / chosen, each 1 / chosen as wide as the dense MLP: equal active and equal total
    # parameters but for the router
    "moe_8_1": "moe(n_experts=8,top_k=1)",
    "moe_32_4": "moe(n_experts=32,top_k=4)",
    "moe_64_8": "moe(n_experts=64,top_k=8)",
    # hybrids: the order of layers is the paper's; widths, heads and experts are the ladder's.
    # Windows see half of the context, as the 2,048 of 4,096 tokens of Samba, 1,024 of 2,048 of
    # Griffin.
    # one attention in eight, without positions; experts in every other layer: Jamba, Lieber et al.
    # 2024, arXiv 2403.19887
    "jamba": "mamba/dense, mamba/moe(n_experts=16), mamba/dense, mamba/moe(n_experts=16),"
    " attention(positions=none)/dense, mamba/moe(n_experts=16), mamba/dense,"
    " mamba/moe(n_experts=16)",
    # Mamba, MLP, window attention, MLP: Ren et al. 2024, arXiv 2406.07522
    "samba": "mamba/dense, attention(window={half})/dense",
    # two recurrent, one of local attention with one head of keys and values: De et al. 2024,
    # arXiv 2402.19427
    "griffin": "rg_lru/dense, rg_lru/dense, attention(window={half},n_kv_heads=1)/dense",
    # three of gated delta, one of full attention, fine experts in all: Qwen3-Next-80B-A3B (Qwen
    # team 2025); without its shared expert
    "qwen3_next": ", ".join(
        f"{mixer}/moe(n_experts=32,top_k=4)"
        for mixer in (*["gated_delta"] * 3, "attention(qk_norm=head,gate=true)")
    ),
}


def named(arm: str, base: Model) -> str:
    """The text of an arm that may be a name of ARMS."""
    return ARMS[arm].format(half=max(1, base.seq_len // 2)) if arm in ARMS else arm


def registered(arm: str) -> bool:
    """Whether an arm is the plain name of a part, or of a layer such as mamba2/moe."""
    names, tables = arm.split("/"), list(parts.REGISTRIES.values())
    if len(names) == 1:
        return any(arm in table for table in tables)
    return len(names) == 2 and all(n in table for n, table in zip(names, tables))


def text(value) -> str:
    """The text of an arm."""
    if isinstance(value, str):
        return value
    return parts.written((value,) if isinstance(value, Layer) else value)


# what an arm may set besides its part
SETTINGS = ("data", "model", "optimizer", "schedule", "batch", "lr_multiplier")


def parted(arm: str) -> tuple[str, tuple[str, ...]]:
    """The part of an arm, and its settings, each FIELD=VALUE. Raises ConfigError."""
    part, *given = (t.strip() for t in arm.split(";"))
    for setting in given:
        key, equals, _ = setting.partition("=")
        if key.partition(".")[0] not in SETTINGS or not equals:
            raise ConfigError(
                f"arm {arm!r}: write {setting!r} as FIELD=VALUE, with a field of"
                f" {', '.join(SETTINGS)}, as data.unique_tokens=100000"
            )
    return part, tuple(given)


def _read(arm: str) -> tuple[str, Any, tuple]:
    """(what it takes the place of, the value, its text as nodes). Raises ConfigError."""
    try:
        if "/" in arm:
            return "pattern", parts.layers(arm), text_form.parse(arm)
        node = text_form.one(arm)
        kinds = (k for k, table in parts.REGISTRIES.items() if node.name in table)
        kind = next(kinds, "mlp")  # of an unknown name the nearest is said
        return kind, parts.part(kind, arm), ((node,),)
    except ValueError as e:
        raise ConfigError(f"arm {arm!r}: {e}") from None


# what the ladder sets in every part that has it
DIALS = ("n_heads", "d_ff")


def _over(base, part, node: text_form.Node | None):
    """`part`, which takes from `base` every field of equal name that its text does not name. From a
    part of another kind it takes the ladder's and what was set there: a default says nothing, and
    attention's gate, off by default, is another one than a delta rule's.
    """
    named = node.fields if node else {}
    have = {f.name: f.default for f in dataclasses.fields(base)}

    def taken(name: str) -> bool:
        if name not in have or name in (*named, "mixer", "mlp"):
            return False
        set_there = getattr(base, name) != have[name]
        return type(base) is type(part) or name in DIALS or set_there

    own = {f.name: getattr(base, f.name) for f in dataclasses.fields(part) if taken(f.name)}
    return dataclasses.replace(part, **own)


def apply(base: Model, arm: str) -> Model:
    """`base` with the arm in it, and those of its settings that are of a model. Raises
    ConfigError.
    """
    part, settings = parted(arm)
    try:
        for setting in settings:
            if setting.startswith("model."):
                key, _, value = setting.removeprefix("model.").partition("=")
                base = parts.set_field(base, key, value)
    except ValueError as e:
        raise ConfigError(f"arm {arm!r}: {e}") from None
    return _placed(base, part) if part else base


def _placed(base: Model, arm: str) -> Model:
    """`base` with a part in it."""
    kind, value, nodes = _read(arm)
    if kind == "scaling":
        if not isinstance(base.positions, Rope):
            raise ConfigError(f"arm {arm!r} scales rope, and model.positions is another")
        return dataclasses.replace(
            base, positions=dataclasses.replace(base.positions, scaling=value)
        )
    if kind in parts.PARTS:
        return dataclasses.replace(base, **{kind: _over(getattr(base, kind), value, nodes[0][0])})
    if kind == "pattern":
        like, pattern = base.pattern[0], []
        for layer, (mixer, mlp, *own) in zip(value, nodes):
            new = {
                "mixer": _over(like.mixer, layer.mixer, mixer),
                "mlp": _over(like.mlp, layer.mlp, mlp),
            }
            pattern.append(dataclasses.replace(_over(like, layer, own[0] if own else None), **new))
        return dataclasses.replace(base, pattern=tuple(pattern))

    def put(layer):
        new = _over(getattr(layer, kind), value, nodes[0][0])
        return dataclasses.replace(layer, **{kind: new})

    return dataclasses.replace(
        base, pattern=tuple(map(put, base.pattern)), first=tuple(map(put, base.first))
    )


def set_field(arm: str, key: str, value: str) -> str:
    """The text of an arm with a part's field set, as by ``--set model.KEY=VALUE``; "" where the arm
    has no such part. Raises ConfigError.
    """
    part, settings = parted(arm)
    if not part:
        return ""
    kind, _, nodes = _read(part)
    name, _, field = key.rpartition(".")
    placed = [(kind, nodes[0][0])]
    if kind == "pattern":
        placed = [(at, n) for layer in nodes for at, n in zip(("mixer", "mlp", "layer"), layer)]
    found = [node for at, node in placed if name in (at, node.name)]
    for node in found:
        node.fields[field] = text_form.literal(value)
    if not found:
        return ""
    new = ", ".join("/".join(map(text_form.write, layer)) for layer in nodes)
    _read(new)  # says what is wrong with it
    return "; ".join((new, *settings))
