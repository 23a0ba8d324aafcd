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

from model import norms, optim
from model.config import Execution, Model
from model.lm import ONE_HOT_VOCAB
from model.mixers import MIXERS
from model.mlps import MLPS
from model.positions import POSITIONS
from model.work import CONVENTIONS, Work, size, total  # noqa: F401

GROUPS = (
    "token_embedding",
    "positions",
    "attention",
    "mlp",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "head",
)


def parameters(c: Model) -> dict:
    """{"groups": {...}, "total", "active", "embedding", "non_embedding", "active_non_embedding",
    "multiplied"}; the groups sum to total.
    """
    groups = dict.fromkeys(GROUPS, 0)
    groups["token_embedding"] = c.vocab_size * c.d_model
    groups["positions"] = POSITIONS[c.positions].parameters(c)
    groups["head"] = 0 if c.tied else c.vocab_size * c.d_model
    groups["norms"] = (2 * c.n_layers + (not c.post_norm) + c.embed_norm) * norms.parameters(
        c, c.d_model
    )
    inactive = multiplied = 0
    for mixer, mlp in c.kinds:
        own = MLPS[mlp].parameters(c)
        for part in (MIXERS[mixer].parameters(c), own):
            for group, n in part.items():
                groups[group] = groups.get(group, 0) + n
        inactive += sum(own.values()) - MLPS[mlp].active(c)
        multiplied += MIXERS[mixer].multiplied(c) + MLPS[mlp].multiplied(c)
    total = sum(groups.values())
    lookup = groups["token_embedding"] + groups["positions"]
    return {
        "groups": groups,
        "total": total,
        "active": total - inactive,
        "embedding": groups["token_embedding"],
        "non_embedding": total - lookup,
        "active_non_embedding": total - inactive - lookup,
        "multiplied": multiplied + c.vocab_size * c.d_model,
    }


def forward_flops(c: Model, causal: bool = False) -> int:
    """Forward matmul FLOPs per token (multiply and add are 2), exact."""
    layers = sum(
        MIXERS[mixer].forward_flops(c, causal) + MLPS[mlp].forward_flops(c)
        for mixer, mlp in c.kinds
    )
    return layers + 2 * c.d_model * c.vocab_size


def flops_per_token(c: Model) -> dict[str, int]:
    """Training FLOPs per token under every convention."""
    p = parameters(c)
    return {
        "matmul": 3 * forward_flops(c),
        "matmul_causal": 3 * forward_flops(c, causal=True),
        "6N": 6 * p["total"],
        "6N_active": 6 * p["active"],
        "6N_nonembedding": 6 * p["non_embedding"],
        "6N_active_nonembedding": 6 * p["active_non_embedding"],
    }


def _layers(c: Model, ex: Execution, batch: int) -> list[Work]:
    """Of each layer: its mixer, its MLP and their norms."""
    normed = Work(0, 0, 0, 2 * batch * c.seq_len * norms.kept(c.d_model) * size(ex))
    return [
        total((normed, MIXERS[mixer].work(c, ex, batch), MLPS[mlp].work(c, ex, batch)))
        for mixer, mlp in c.kinds
    ]


def _ends(c: Model, ex: Execution, batch: int) -> Work:
    """The embedding, one-hot for a small vocabulary (its input has no gradient), and the head:
    logits, their softmax and its gradient in float32, and as much again of one-hot rows. In chunks,
    the logits of one, the head's gradient, and that of the last states twice.
    """
    tokens, one_hot = batch * c.seq_len, c.vocab_size <= ONE_HOT_VOCAB
    if ex.loss_chunk:  # positions that fill up the last chunk are executed too
        tokens = batch * ex.loss_chunk * -(-c.seq_len // ex.loss_chunk)
    flops, logits = 2 * tokens * c.d_model * c.vocab_size, tokens * c.vocab_size
    if ex.loss_chunk:
        held = (
            12 * batch * ex.loss_chunk * c.vocab_size
            + 4 * c.vocab_size * c.d_model
            + 2 * tokens * c.d_model * size(ex)
        )
        return Work(
            flops * (1 + one_hot), flops * (2 + one_hot), 0, held + 3 * logits * one_hot * size(ex)
        )
    return Work(
        flops * (1 + one_hot), flops * (2 + one_hot), 0, 3 * logits * (4 + one_hot * size(ex))
    )


def shares(c: Model) -> dict[str, float]:
    """Of the forward matmul FLOPs (`matmul`): those of the attention map, the projections, the MLPs
    or experts, routers, and the head.
    """
    whole = forward_flops(c)
    attention_map = sum(MIXERS[mixer].map_flops(c, False) for mixer, _ in c.kinds)
    router = 2 * c.d_model * c.n_experts * len(c.moe_layers)
    parts = {
        "attention_map": attention_map,
        "attention_projections": sum(2 * MIXERS[mixer].multiplied(c) for mixer, _ in c.kinds),
        "mlp": sum(MLPS[mlp].forward_flops(c) for _, mlp in c.kinds) - router,
        "router": router,
        "head": 2 * c.d_model * c.vocab_size,
    }
    return {name: n / whole for name, n in parts.items()}


def work(c: Model, ex: Execution, batch: int) -> Work:
    """What a step on `batch` sequences executes and keeps, without remat."""
    return total([*_layers(c, ex, batch), _ends(c, ex, batch)])


def activations(c: Model, ex: Execution, batch: int) -> int:
    """Bytes of activations while `batch` sequences go forward and backward on one device. Remat
    keeps the input of every layer, and at one time either what the head keeps or one layer's
    own.
    """
    layers, ends = _layers(c, ex, batch), _ends(c, ex, batch)
    if not ex.remat:
        return sum(w.kept for w in layers) + ends.kept
    inputs = len(layers) * batch * c.seq_len * c.d_model * size(ex)
    return inputs + max(ends.kept, *(w.kept + w.spare for w in layers))


def evaluation(c: Model, ex: Execution, batch: int) -> int:
    """Bytes of activations while `batch` sequences go forward alone on one device: one layer's, or
    the logits of a chunk in float32, twice, beside the residual stream and one-hot rows.
    """
    tokens, one_hot = batch * c.seq_len, c.vocab_size <= ONE_HOT_VOCAB
    logits = 8 * batch * (ex.loss_chunk or c.seq_len) * c.vocab_size
    layers = max(w.kept for w in _layers(c, ex, batch))
    rows = one_hot * tokens * c.vocab_size * size(ex)
    return max(logits, layers, rows) + 2 * tokens * c.d_model * size(ex)


def memory(c: Model, ex: Execution, batch: int) -> dict[str, int]:
    """Bytes of training on one device, all exact but `activations`; buffers are selection biases.
    `kv_cache_per_token` is of decoding.
    """
    n = parameters(c)["total"]
    return {
        "parameters": 4 * n,
        "gradients": 4 * n * (1 + (ex.accumulate > 1)),  # their sum, and those of a micro-batch
        "optimizer_state": optim.state_bytes(n),
        "buffers": 4 * c.n_experts * len(c.moe_layers) * c.selection_bias,
        "batch": 4 * batch * (c.seq_len + 1),
        "activations": activations(c, ex, batch // ex.accumulate),
        "kv_cache_per_token": size(ex) * sum(MIXERS[mixer].cache(c) for mixer, _ in c.kinds),
    }


def executed_flops(c: Model, ex: Execution, batch: int) -> int:
    """Matmul FLOPs of one training step: forward, backward, and under remat what is computed
    again.
    """
    return ex.accumulate * work(c, ex, batch // ex.accumulate).training(ex.remat)
