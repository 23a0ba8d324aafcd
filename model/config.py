"""The two frozen configurations that the model code sees, and the legend of shapes.

Shapes live in names: ``q_BTHK`` is an array of axes B, T, H, K. The letters, everywhere in this codebase:

    B  sequences in a batch          T  positions in a sequence       D  d_model
    H  attention heads               K  width of a head (d_head)      F  hidden width of an MLP or of one expert
    V  vocabulary                    E  experts                       S  experts chosen per token (top_k)
    L  layers                        G  dispatch groups               n  tokens of one dispatch group
    N  blocks of rows (dropless MoE) R  rows in a block
"""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Model:
    """What decides the function that a model computes. Everything here is part of a run's identity."""

    vocab_size: int = 256
    seq_len: int = 128
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 4
    d_ff: int = 256  # hidden width of a dense MLP; active hidden width of an MoE one
    pattern: tuple[str, ...] = ("attention/dense",)  # "mixer/mlp" of each layer, tiled over depth
    positions: str = "rope"
    rope_theta: float = 10_000.0
    norm: str = "rmsnorm"
    activation: str = "gelu"
    tied: bool = False  # head shares the token embedding
    n_experts: int = 8
    top_k: int = 2
    d_expert: int = 0  # hidden width of one expert; 0: d_ff / top_k, which keeps the active parameters of the dense MLP
    renormalise: bool = True  # the top_k gates of a token sum to 1
    balance_weight: float = 0.01
    z_weight: float = 0.001

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def f_expert(self) -> int:
        return self.d_expert or self.d_ff // self.top_k

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """(mixer, mlp) of every layer."""
        return tuple(tuple(self.pattern[i % len(self.pattern)].split("/")) for i in range(self.n_layers))

    @property
    def moe_layers(self) -> tuple[int, ...]:
        return tuple(i for i, (_, mlp) in enumerate(self.kinds) if mlp == "moe")


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the same function is computed: choices that change speed and memory, never the result (up to rounding)."""

    dtype: str = "float32"  # of the matmuls; parameters and softmaxes stay float32
    scan: bool = False  # one compiled body for all repetitions of the layer pattern
    remat: bool = False  # recompute a layer's activations in the backward pass
    moe: str = "block"  # see model/mlps/moe.py
    moe_rows: int = 16  # rows of a block in the "block" implementation
    moe_groups: int = 1  # tokens are dispatched inside groups that no device boundary cuts


def choose(table, name, what):
    """``table[name]``; a ValueError that names the nearest entry otherwise."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {name!r}: {hint}choose from {', '.join(sorted(table))}")


def check(c: Model) -> None:
    """Raises ValueError, in words that say what to change, if `c` is not a model."""
    from model import block, mlps, mixers, norms, positions  # the registries; they import this module

    for name in ("vocab_size", "seq_len", "d_model", "n_layers", "n_heads", "d_ff", "n_experts", "top_k"):
        if getattr(c, name) < 1:
            raise ValueError(f"model.{name}={getattr(c, name)} must be at least 1")
    if not c.pattern:
        raise ValueError("model.pattern is empty: name at least one layer, such as attention/dense")
    for entry in c.pattern:
        mixer, slash, mlp = entry.partition("/")
        if not slash:
            raise ValueError(f"model.pattern entry {entry!r} must read mixer/mlp, such as attention/dense")
        choose(mixers.MIXERS, mixer, "mixer in model.pattern")
        choose(mlps.MLPS, mlp, "MLP in model.pattern")
    choose(positions.POSITIONS, c.positions, "model.positions")
    choose(norms.NORMS, c.norm, "model.norm")
    choose(mlps.ACTIVATIONS, c.activation, "model.activation")
    if c.d_model % c.n_heads:
        fits = [h for h in range(1, c.d_model + 1) if c.d_model % h == 0]
        near = min(fits, key=lambda h: abs(h - c.n_heads))
        raise ValueError(f"model.n_heads={c.n_heads} does not divide model.d_model={c.d_model}: try n_heads={near}")
    if c.positions == "rope" and c.d_head % 2:
        raise ValueError(f"rope rotates pairs: d_model/n_heads={c.d_head} must be even")
    if c.positions == "sinusoidal" and c.d_model % 2:
        raise ValueError(f"sinusoidal positions need an even d_model, not {c.d_model}")
    if c.moe_layers:
        if c.top_k > c.n_experts:
            raise ValueError(
                f"model.top_k={c.top_k} is above model.n_experts={c.n_experts}: a token cannot choose more experts than there are"
            )
        if not c.d_expert and c.d_ff % c.top_k:
            raise ValueError(
                f"model.top_k={c.top_k} does not divide model.d_ff={c.d_ff}: equal active parameters need top_k * d_expert = d_ff; change one or set model.d_expert"
            )
    if c.d_expert < 0 or c.balance_weight < 0 or c.z_weight < 0:
        raise ValueError("model.d_expert, model.balance_weight and model.z_weight cannot be negative")
    block.groups(c)
