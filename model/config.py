"""The two frozen configurations that the model code sees, and the legend of shapes.

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
"""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Model:
    """What decides the function that a model computes. Everything here is part of a run's
    identity.
    """

    vocab_size: int = 256
    seq_len: int = 128
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 4
    d_ff: int = 256  # hidden width of a dense MLP; active hidden width of an MoE one
    pattern: tuple[str, ...] = (
        "attention/dense",
    )  # "mixer/mlp" of each layer, tiled over depth ...
    first_layers: tuple[str, ...] = ()  # ... after these, which stand once
    positions: str = "rope"
    position_offset: int = 0  # added to every position before its table is read: 2 in OPT and XGLM
    rope_theta: float = 10_000.0
    rope_fraction: float = 1.0  # share of a head's width that is rotated
    rope_interleaved: bool = False  # pairs are (2i, 2i + 1), not (i, i + K/2)
    n_kv_heads: int = 0  # key and value heads; 0: n_heads; 1: multi-query; between: grouped-query
    d_head: int = 0  # width of a head; 0: d_model / n_heads
    window: int = (
        0  # a token attends to itself and the window - 1 tokens before it; 0: to all before it
    )
    qk_norm: str = (
        "none"  # of queries and keys: none | head (each head by itself) | full (all heads together)
    )
    qkv_bias: bool = False
    out_bias: bool = False  # of the attention's output
    mlp_bias: bool = False
    attention_cap: float = 0.0  # scores become cap x tanh(scores / cap); 0: off
    logit_cap: float = 0.0  # the same for the logits
    kv_rank: int = 0  # mixer "latent": width of the latent that keys and values share
    q_rank: int = 0  # mixer "latent": width of the queries' latent; 0: none
    d_rope: int = 0  # mixer "latent": width per head that is rotated, next to d_head that is not
    d_value: int = 0  # mixer "latent": width of a head's values; 0: d_head
    norm: str = "rmsnorm"
    norm_eps: float = 0.0  # 0: the norm's usual one
    post_norm: bool = False  # norm(x + f(x)) and no norm before the head, instead of x + f(norm(x))
    embed_norm: bool = False  # a norm right after the embedding
    embed_scale: bool = False  # embeddings are multiplied by sqrt(d_model)
    activation: str = "gelu"
    tied: bool = False  # head shares the token embedding
    n_experts: int = 8
    top_k: int = 2
    # hidden width of one expert; 0: d_ff / top_k, which keeps the active parameters of the dense
    # MLP
    d_expert: int = 0
    n_shared: int = 0  # experts that every token passes, as one MLP of n_shared x d_expert
    router: str = "softmax"  # scores of a token: softmax over experts | sigmoid of each
    # the top_k gates of a token sum to 1; a single gate stays the expert's score
    renormalise: bool = True
    gate_scale: float = 1.0  # the gates are multiplied by it, last
    expert_groups: int = 1  # a token chooses among the experts of its best ...
    top_groups: int = 1  # ... top_groups groups
    # a bias per expert that decides choice alone, moved without gradient towards equal load ...
    selection_bias: bool = False
    bias_rate: float = 0.001  # ... by this much a step
    # an expert takes factor x its even share of a routing group, the rest is dropped; 0: none is
    # dropped
    capacity_factor: float = 0.0
    routing_group: int = (
        1  # sequences of one routing group: capacity and balance loss are counted inside it
    )
    balance_weight: float = 0.01
    # layer: one product per layer, summed | model: fractions and probabilities pooled over layers
    # first
    balance_scope: str = "layer"
    z_weight: float = 0.001

    @property
    def k_head(self) -> int:
        return self.d_head or self.d_model // self.n_heads

    @property
    def m_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def v_head(self) -> int:
        return self.d_value or self.k_head

    @property
    def f_expert(self) -> int:
        return self.d_expert or self.d_ff // self.top_k

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """(mixer, mlp) of every layer."""
        rest = self.n_layers - len(self.first_layers)
        entries = [*self.first_layers, *(self.pattern[i % len(self.pattern)] for i in range(rest))]
        return tuple(tuple(entry.split("/")) for entry in entries)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        return tuple(i for i, (_, mlp) in enumerate(self.kinds) if mlp == "moe")


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
    # xla | cudnn: NVIDIA's kernel, where it computes the function (model/mixers/attention.py,
    # `fused`)
    attention: str = "xla"
    # queries that attend at a time, to the keys that any of them sees, recomputed in the backward
    # pass; 0: all
    attention_chunk: int = 0
    loss_chunk: int = 0  # positions whose logits stand at a time in the loss; 0: all
    # groups of sequences that no device boundary cuts: each sums its own part of the head's
    # gradient over chunks
    loss_groups: int = 1
    # for XLA on one CPU, unrolled: the residual stream's gradients stand before use (block.py),
    # maps stay (chunked.py)
    settle: bool = False
    accumulate: int = 1  # micro-batches of a step, whose gradients are summed one after the other


def choose(table, name, what):
    """``table[name]``; a ValueError that names the nearest entry otherwise."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {name!r}: {hint}choose from {', '.join(sorted(table))}")


def check(c: Model) -> None:
    """Raises ValueError, in words that say what to change, if `c` is not a model."""
    from model import (
        block,
        mixers,
        mlps,
        norms,
        positions,
    )  # the registries; they import this module

    for name in (
        "vocab_size",
        "seq_len",
        "d_model",
        "n_layers",
        "n_heads",
        "d_ff",
        "n_experts",
        "top_k",
    ):
        if getattr(c, name) < 1:
            raise ValueError(f"model.{name}={getattr(c, name)} must be at least 1")
    for f in dataclasses.fields(c):
        if f.type in (int, float, "int", "float") and getattr(c, f.name) < 0:
            raise ValueError(f"model.{f.name}={getattr(c, f.name)} cannot be negative")
    if not c.pattern:
        raise ValueError("model.pattern is empty: name at least one layer, such as attention/dense")
    for entry in (*c.first_layers, *c.pattern):
        mixer, slash, mlp = entry.partition("/")
        if not slash:
            raise ValueError(
                f"model.pattern entry {entry!r} must read mixer/mlp, such as attention/dense"
            )
        choose(mixers.MIXERS, mixer, "mixer in model.pattern")
        choose(mlps.MLPS, mlp, "MLP in model.pattern")
    block.groups(c)
    choose(positions.POSITIONS, c.positions, "model.positions")
    choose(norms.NORMS, c.norm, "model.norm")
    choose(mlps.ACTIVATIONS, c.activation, "model.activation")
    if not c.d_head and c.d_model % c.n_heads:
        fits = [h for h in range(1, c.d_model + 1) if c.d_model % h == 0]
        near = min(fits, key=lambda h: abs(h - c.n_heads))
        raise ValueError(
            f"model.n_heads={c.n_heads} does not divide model.d_model={c.d_model}: try"
            f" n_heads={near}, or set model.d_head"
        )
    positions.check(c)
    for mixer in dict.fromkeys(m for m, _ in c.kinds):
        mixers.MIXERS[mixer].check(c)
    for mlp in dict.fromkeys(m for _, m in c.kinds):
        mlps.MLPS[mlp].check(c)
