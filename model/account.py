"""The three numbers of a model's scale: parameters by group and FLOPs per token; training tokens
come from the data pipeline.

Each part counts itself beside its code; here the counts are summed and named. Conventions of
training FLOPs per token:

    6N, 6N_active, 6N_nonembedding, 6N_active_nonembedding    six times the named parameters
    matmul          3 x the forward matmuls; attention on the full T x T map; head and router
                    counted; MoE by assignments
                    (tokens x top_k). The default C of budgets, plots and fits.
    matmul_causal   the same with the T (T+1) / 2 attended pairs alone

Parameters: `non_embedding` leaves out the token embedding and learned positions (a tied head is the
embedding's tensor and is left out with it; an untied head stays in). `multiplied` is the default N
of a fit: the weights of the matmuls that a token passes through (active experts, router, head, also
when tied; no embedding lookup, no positions, no norm scales, no biases).
"""

from model import norms
from model.config import Execution, Model
from model.leaves import Inventory
from model.lm import ONE_HOT_VOCAB
from model.optimizers import AdamW, Optimizer
from model.state import State
from model.work import CONVENTIONS, Work, size, total  # noqa: F401

GROUPS = (
    "token_embedding",
    "positions",
    "attention",
    "mixer",
    "mlp",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "head",
)


def parameters(m: Model) -> dict:
    """{"groups": {...}, "total", "active", "embedding", "non_embedding", "active_non_embedding",
    "multiplied"}; the groups sum to total.
    """
    groups = dict.fromkeys(GROUPS, 0)
    groups["token_embedding"] = m.vocab_size * m.d_model
    groups["positions"] = m.positions.parameters(m)
    groups["head"] = 0 if m.tied else m.vocab_size * m.d_model
    n_norms = sum(len(layer.norms) for layer in m.layers) + m.head_norm + m.embed_norm
    groups["norms"] = n_norms * m.norm.parameters(m.d_model)
    inactive = multiplied = 0
    for layer in m.layers:
        own = layer.mlp.parameters(m)
        for part in (layer.mixer.parameters(m), own):
            for group, n in part.items():
                groups[group] = groups.get(group, 0) + n
        inactive += sum(own.values()) - layer.mlp.active(m)
        multiplied += layer.mixer.multiplied(m) + layer.mlp.multiplied(m)
    total = sum(groups.values())
    lookup = groups["token_embedding"] + groups["positions"]
    return {
        "groups": groups,
        "total": total,
        "active": total - inactive,
        "embedding": groups["token_embedding"],
        "non_embedding": total - lookup,
        "active_non_embedding": total - inactive - lookup,
        "multiplied": multiplied + m.vocab_size * m.d_model,
    }


def inventory(m: Model) -> Inventory:
    """What an optimizer's counts are made of."""
    return Inventory(parameters(m)["total"], m)


def _layer_flops(layer, m: Model, causal: bool) -> int:
    """Forward, per token: 2 x multiply-adds of its matmuls."""
    weights = layer.mixer.multiplied(m) + layer.mlp.multiplied(m)
    return 2 * weights + layer.mixer.map_flops(m, causal)


def forward_flops(m: Model, causal: bool = False) -> int:
    """Forward matmul FLOPs per token (multiply and add are 2), exact."""
    layers = sum(_layer_flops(layer, m, causal) for layer in m.layers)
    return layers + 2 * m.d_model * m.vocab_size


def state(m: Model) -> State:
    """Numbers that all layers keep while decoding: per token, and per sequence."""
    parts = [part for layer in m.layers for part in (layer.mixer, layer.mlp)]
    return State(*map(sum, zip(*(part.state(m) for part in parts))))


def flops_per_token(m: Model) -> dict[str, int]:
    """Training FLOPs per token under every convention."""
    p = parameters(m)
    return {
        "matmul": 3 * forward_flops(m),
        "matmul_causal": 3 * forward_flops(m, causal=True),
        "6N": 6 * p["total"],
        "6N_active": 6 * p["active"],
        "6N_nonembedding": 6 * p["non_embedding"],
        "6N_active_nonembedding": 6 * p["active_non_embedding"],
    }


def _layers(m: Model, ex: Execution, batch: int) -> list[Work]:
    """Of each layer: its mixer, its MLP and their norms."""
    one_norm = batch * m.seq_len * norms.kept(m.d_model) * size(ex)
    out = []
    for layer in m.layers:
        normed = Work(0, 0, 0, kept=len(layer.norms) * one_norm)
        parts = (layer.mixer.work(m, ex, batch), layer.mlp.work(m, ex, batch))
        out.append(total((normed, *(w.closed(end) for w, end in zip(parts, layer.ends)))))
    return out


def _ends(m: Model, ex: Execution, batch: int) -> Work:
    """The embedding, one-hot for a small vocabulary (its input has no gradient), and the head:
    logits, their softmax and its gradient in float32, and as much again of one-hot rows. In chunks,
    the logits of one, the head's gradient, and that of the last states twice.
    """
    tokens, one_hot = batch * m.seq_len, m.vocab_size <= ONE_HOT_VOCAB
    if ex.loss_chunk:  # positions that fill up the last chunk are executed too
        tokens = batch * ex.loss_chunk * -(-m.seq_len // ex.loss_chunk)
    flops, logits = 2 * tokens * m.d_model * m.vocab_size, tokens * m.vocab_size
    if ex.loss_chunk:
        held = (
            12 * batch * ex.loss_chunk * m.vocab_size
            + 4 * m.vocab_size * m.d_model
            + 2 * tokens * m.d_model * size(ex)
        )
        return Work(
            flops * (1 + one_hot), flops * (2 + one_hot), 0, held + 3 * logits * one_hot * size(ex)
        )
    return Work(
        flops * (1 + one_hot), flops * (2 + one_hot), 0, 3 * logits * (4 + one_hot * size(ex))
    )


def shares(m: Model) -> dict[str, float]:
    """Of the forward matmul FLOPs (`matmul`): those of the attention map, the projections, the MLPs
    or experts, routers, and the head.
    """
    whole = forward_flops(m)
    attention_map = sum(layer.mixer.map_flops(m, False) for layer in m.layers)
    router = sum(layer.mlp.router_flops(m) for layer in m.layers)
    parts = {
        "attention_map": attention_map,
        "attention_projections": sum(2 * layer.mixer.multiplied(m) for layer in m.layers),
        "mlp": sum(2 * layer.mlp.multiplied(m) for layer in m.layers) - router,
        "router": router,
        "head": 2 * m.d_model * m.vocab_size,
    }
    return {name: n / whole for name, n in parts.items()}


def work(m: Model, ex: Execution, batch: int) -> Work:
    """What a step on `batch` sequences executes and keeps, without remat."""
    return total([*_layers(m, ex, batch), _ends(m, ex, batch)])


def activations(m: Model, ex: Execution, batch: int) -> int:
    """Bytes of activations while `batch` sequences go forward and backward on one device. Remat
    keeps the input of every layer, and at one time either what the head keeps or one layer's
    own.
    """
    layers, ends = _layers(m, ex, batch), _ends(m, ex, batch)
    if not ex.remat:
        return sum(w.kept for w in layers) + ends.kept
    inputs = len(layers) * batch * m.seq_len * m.d_model * size(ex)
    return inputs + max(ends.kept, *(w.kept + w.spare for w in layers))


def evaluation(m: Model, ex: Execution, batch: int) -> int:
    """Bytes of activations while `batch` sequences go forward alone on one device: one layer's, or
    the logits of a chunk in float32, twice, beside the residual stream and one-hot rows.
    """
    tokens, one_hot = batch * m.seq_len, m.vocab_size <= ONE_HOT_VOCAB
    logits = 8 * batch * (ex.loss_chunk or m.seq_len) * m.vocab_size
    layers = max(w.kept for w in _layers(m, ex, batch))
    rows = one_hot * tokens * m.vocab_size * size(ex)
    return max(logits, layers, rows) + 2 * tokens * m.d_model * size(ex)


def memory(m: Model, ex: Execution, batch: int, optimizer: Optimizer = AdamW()) -> dict[str, int]:
    """Bytes of training on one device, all exact but `activations`; buffers are selection biases.
    `kv_cache_per_token` and `state_per_sequence` are of decoding; a state is kept in float32 at
    least.
    """
    n = parameters(m)["total"]
    return {
        "parameters": 4 * n,
        "gradients": 4 * n * (1 + (ex.accumulate > 1)),  # their sum, and those of a micro-batch
        "optimizer_state": optimizer.state_bytes(inventory(m)),
        "buffers": sum(4 * p.n_experts * p.selection_bias for p in m.routed),
        "batch": 4 * batch * (m.seq_len + 1),
        "activations": activations(m, ex, batch // ex.accumulate),
        "kv_cache_per_token": size(ex) * state(m).per_token,
        "state_per_sequence": max(4, size(ex)) * state(m).per_sequence,
    }


def executed_flops(m: Model, ex: Execution, batch: int, optimizer: Optimizer = AdamW()) -> int:
    """Matmul FLOPs of one training step: forward, backward, under remat what is computed again, and
    those of the optimizer's update.
    """
    passes = ex.accumulate * work(m, ex, batch // ex.accumulate).training(ex.remat)
    return passes + optimizer.update_flops(inventory(m))
