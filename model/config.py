"""What a model is, as a value, and how it is executed; the legend of shapes.

A model is what all layers share and a list of layers. A layer is a mixer and an MLP. These are
parts: frozen dataclasses, each in a file of its own, that hold their fields, checks, counts and
module. Nothing here names a part; `model/parts.py` knows them and their text form.

Shapes live in names: ``q_BTHK`` is an array of axes B, T, H, K. The letters, everywhere in this
codebase:

    B  sequences in a batch          T  positions in a sequence       D  d_model
    H  attention heads               K  width of a head               F  hidden width of an MLP or
                                     of one expert
    V  vocabulary                    E  experts                       S  experts chosen per token
                                     (top_k)
    L  layers                        G  groups of tokens              n  tokens of one group
    N  blocks of rows (dropless MoE) R  rows in a block               C  rows of an expert (its
                                        capacity)
    M  key and value heads           J  keys: T, or slots of a cache  Q  query heads per key head
    P  rank of a latent              A  assignments: tokens x top_k
    U  channels of a recurrence      Z  numbers of state of a channel
    W  width of a head's values, where it is not that of its keys
    c  chunks of a sequence          i  positions in a chunk (of keys: j)
"""

import dataclasses
import difflib
import functools
import math
from typing import Any

# where a layer's norms stand
NORM_PLACES = {
    "pre": "x + f(norm(x))",
    "post": "norm(x + f(x)), and no norm before the head",
    "sandwich": "x + norm(f(norm(x))), as Gemma 2 (arXiv 2408.00118)",
    "output": "x + norm(f(x)), as OLMo 2 (arXiv 2501.00656)",
}
# how a layer's mixer and MLP are added to the residual stream
RESIDUALS = {
    "sequential": "x + mixer(x), then the MLP of that sum",
    "parallel": "x + mixer(x) + mlp(x), each behind a norm of its own, as GPT-NeoX (2204.06745)",
    "shared": "the same behind one norm, as GPT-J and PaLM (arXiv 2204.02311)",
}

# names of parameters that are numbers of a head or channel and no matrices, such as the rates of
# decays: they stay in float32 and are not decayed
SCALARS = ("rates", "turns", "steps_bias", "skip", "shift", "bonus", "sinks")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A mixer (model/mixers/), an MLP (model/mlps/), and how they are put together."""

    mixer: Any
    mlp: Any
    norm: str = "pre"  # of NORM_PLACES
    residual: str = "sequential"  # of RESIDUALS
    residual_scale: float = 1.0  # what mixer and MLP add is multiplied by it (Granite)

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of the layer's norms in the tree of parameters."""
        before: tuple[str, ...] = () if self.norm == "output" else ("norm_mixer", "norm_mlp")
        after = {"sandwich": ("mixer", "mlp"), "output": ("mixer", "mlp")}.get(self.norm, ())
        if self.residual == "shared":
            before = before[:1]
        names = (*before, *(f"norm_after_{part}" for part in after))
        return tuple(n for n in names if self.has_mlp or not n.endswith("mlp"))

    @property
    def has_mlp(self) -> bool:
        return not getattr(self.mlp, "absent", False)

    @property
    def ends(self) -> tuple[bool, bool]:
        """Whether the last matmul of mixer and MLP ends the layer: what it gives is only added."""
        free = self.norm == "pre"
        return free and (self.residual != "sequential" or not self.has_mlp), free


@dataclasses.dataclass(frozen=True)
class Model:
    """What decides the function that a model computes. Everything here is part of a run's
    identity. `parts.model` fills in what is left out.
    """

    positions: Any  # of all layers that name none of their own (model/positions.py)
    norm: Any  # of all layers, the embedding and the head (model/norms.py)
    # how spreads, rates and multipliers follow width and depth (model/parametrisation.py)
    parametrisation: Any
    pattern: tuple[Layer, ...]  # tiled over the depth ...
    first: tuple[Layer, ...] = ()  # ... after these, which stand once
    vocab_size: int = 256
    seq_len: int = 128  # positions of a training sequence, T
    d_model: int = 64  # width of the residual stream, D
    n_layers: int = 2  # layers, those of `first` among them, L
    tied: bool = False  # the head shares the token embedding
    logit_cap: float = 0.0  # logits become cap x tanh(logits / cap); 0: off
    embed_norm: bool = False  # a norm right after the embedding
    embed_scale: bool = False  # embeddings are multiplied by sqrt(d_model)
    embed_multiplier: float = 1.0  # embeddings are multiplied by it (Granite)
    logit_scale: float = 1.0  # logits are multiplied by it, before the cap (Cohere, Granite)

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, from the first on."""
        rest = self.n_layers - len(self.first)
        return (*self.first, *(self.pattern[i % len(self.pattern)] for i in range(rest)))

    @property
    def groups(self) -> int:
        """Repetitions of the pattern."""
        return (self.n_layers - len(self.first)) // len(self.pattern)

    @property
    def routed(self) -> tuple[Any, ...]:
        """The MLPs that choose among experts, in order of depth."""
        return tuple(layer.mlp for layer in self.layers if layer.mlp.n_experts)

    @property
    def unit(self) -> int:
        """Sequences that no micro-batch may part: a layer looks at them together."""
        return math.lcm(*(layer.mlp.unit for layer in self.layers))

    @property
    def head_norm(self) -> bool:
        """Whether a norm stands before the head."""
        return self.layers[-1].norm != "post"


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the same function is computed: choices that change speed and memory, never the result (up
    to rounding).
    """

    # of the matmuls; parameters, softmaxes, norms, activations and router stay in float32 at least
    dtype: str = "float32"
    scan: bool = False  # one compiled body for all repetitions of the layer pattern
    remat: bool = False  # recompute a layer's activations in the backward pass
    moe: str = "block"  # see model/mlps/dispatch.py
    moe_rows: int = 16  # rows of a block in the "block" implementation, of the widest in "loop"
    moe_groups: int = 1  # tokens are dispatched inside groups that no device boundary cuts
    # xla | cudnn: NVIDIA's kernel, where it computes the function (model/mixers/softmax.py,
    # `fused`)
    attention: str = "xla"
    # queries that attend at a time, to the keys that any of them sees, recomputed in the backward
    # pass; 0: all
    attention_chunk: int = 0
    # tokens that a linear recurrence takes at a time, between states; a delta rule takes half of
    # them, decays of every channel a quarter (model/mixers/linear.py, delta.py)
    chunk: int = 64
    # tokens of all sequences that it takes at a time, a chunk of one sequence at least; 0: all
    turn: int = 0
    loss_chunk: int = 0  # positions whose logits stand at a time in the loss; 0: all
    # groups of sequences that no device boundary cuts: each sums its own part of the head's
    # gradient over chunks
    loss_groups: int = 1
    # for XLA on one CPU, layers unrolled (model/xla_cpu.py)
    settle: bool = False
    accumulate: int = 1  # micro-batches of a step, whose gradients are summed one after the other
    noise: bool = False  # the gradient noise scale is read off them (model/noise_scale.py)
    # documents are kept apart, for what a part then executes and keeps; the LM's separator does it
    apart: bool = False


def choose(table, name, what):
    """``table[name]``; a ValueError that names the nearest entry otherwise."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {name!r}: {hint}choose from {', '.join(sorted(table))}")


def positive(part, names: tuple[str, ...], where: str) -> None:
    """Raises ValueError where a field of `names` is below 1, or any number below 0."""
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        if f.type not in (int, float, bool):
            continue
        if not isinstance(value, (int, float)):
            raise ValueError(f"{where}.{f.name}={value!r} must be a number")
        if value < (least := int(f.name in names)):
            low = f"must be at least {least}" if least else "cannot be negative"
            raise ValueError(f"{where}.{f.name}={value} {low}")


def check(m: Model) -> None:
    """Raises ValueError, in words that say what to change, if `m` is not a model."""
    positive(m, ("vocab_size", "seq_len", "d_model", "n_layers"), "model")
    if not m.pattern:
        raise ValueError("model.pattern is empty: name at least one layer, such as attention/dense")
    rest = m.n_layers - len(m.first)
    if rest < 0 or rest % len(m.pattern) or m.first and not rest:
        after = f" after {len(m.first)} of model.first" if m.first else ""
        raise ValueError(
            f"model.n_layers={m.n_layers} is not a multiple of the {len(m.pattern)} layers of"
            f" model.pattern{after}"
        )
    for name in ("embed_multiplier", "logit_scale"):
        if not getattr(m, name):
            raise ValueError(f"model.{name}=0 must be above 0")
    m.positions.check(m)
    m.norm.check(m)
    m.parametrisation.check(m)
    for layer in dict.fromkeys((*m.first, *m.pattern)):
        choose(NORM_PLACES, layer.norm, "model.layer.norm")
        choose(RESIDUALS, layer.residual, "model.layer.residual")
        if layer.residual_scale <= 0:
            raise ValueError(f"model.layer.residual_scale={layer.residual_scale} must be above 0")
        if layer.residual != "sequential" and layer.norm == "post":
            raise ValueError("model.layer.norm=post needs model.layer.residual=sequential")
        if layer.residual == "shared" and layer.norm == "output":
            raise ValueError("model.layer.residual=shared shares a norm: norm=output has none")
        layer.mixer.check(m)
        layer.mlp.check(m)
    for where, last in (("model.first", m.first[-1:]), ("model.pattern", m.pattern[:-1])):
        if any((layer.norm == "post") != (m.layers[-1].norm == "post") for layer in last):
            raise ValueError(f"{where}: norm=post stands in all layers or in none")
