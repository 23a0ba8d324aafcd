"""How other codebases and papers count the training FLOPs of one token of the same model: their
formulas, for comparison alone.

Each is written down from its source as a function of our Model; where a formula has no term for
something (latent attention, shared experts, layers of two kinds), it is applied to what it does
have, as its own code would.
"""

from collections.abc import Callable
from typing import NamedTuple

from model import account
from model.config import Model
from model.mlps import dense


class Formula(NamedTuple):
    """`training(c)`: FLOPs per token, forward and backward."""

    source: str
    differs: str
    training: Callable


def _widths(c: Model) -> tuple[int, int]:
    return c.n_heads * c.k_head, c.m_heads * c.k_head


def _map(c: Model) -> int:
    """12 L H Q T: both matmuls between tokens on the full map, forward and backward."""
    return 12 * c.n_layers * c.n_heads * c.k_head * c.seq_len


def _mlp(c: Model, router: bool) -> int:
    """Forward FLOPs of the MLPs of all layers, MoE by assignments."""
    one = lambda width: 2 * dense.matrices(c) * c.d_model * width
    sparse = one(c.f_expert * (c.top_k + c.n_shared)) + 2 * c.d_model * c.n_experts * router
    return sum(sparse if mlp == "moe" else one(c.d_ff) for _, mlp in c.kinds)


def _kaplan_n(c: Model) -> int:
    """2 d_model n_layer (2 d_attn + d_ff): weights alone, neither embedding nor biases nor
    norms.
    """
    q, kv = _widths(c)
    return c.n_layers * 2 * c.d_model * (q + kv) + _mlp(c, router=True) // 2


def _hoffmann(c: Model) -> int:
    q, kv = _widths(c)
    attention = (
        2 * c.d_model * (q + 2 * kv)
        + 4 * c.seq_len * q
        + 3 * c.n_heads * c.seq_len
        + 2 * q * c.d_model
    )
    return 3 * (4 * c.d_model * c.vocab_size + c.n_layers * attention + _mlp(c, router=True))


def _nanogpt(c: Model) -> int:
    p = account.parameters(c)
    return 6 * (p["total"] - p["groups"]["positions"]) + _map(c)


def _torchtitan(c: Model) -> int:
    p = account.parameters(c)
    looked_up = p["groups"]["positions"] + (0 if c.tied else p["groups"]["token_embedding"])
    return 6 * (p["active"] - looked_up) + _map(c)


def _maxtext(c: Model) -> int:
    q, kv = _widths(c)
    weights = (
        c.n_layers * 2 * c.d_model * (2 * q + 2 * kv)
        + _mlp(c, router=True)
        + 2 * c.d_model * c.vocab_size
    )
    return 3 * weights + _map(c) // 2


def _levanter(c: Model) -> int:
    q, kv = _widths(c)
    attention = (
        2 * c.d_model * (q + 2 * kv)
        + 2 * c.d_model**2
        + 4 * c.seq_len * q
        + 3 * c.seq_len * c.n_heads
    )
    return 3 * (
        c.n_layers * attention + _mlp(c, router=bool(c.moe_layers)) + 2 * c.d_model * c.vocab_size
    )


ELSEWHERE = {
    "Kaplan 6N": Formula(
        "Kaplan et al. 2020, arXiv 2001.08361, section 2.1, eq 2.1: N without embeddings, C = 6 N",
        "no attention map, no head",
        lambda c: 6 * _kaplan_n(c),
    ),
    "Kaplan with context": Formula(
        "the same, eq 2.2: forward 2 N + 2 n_layer n_ctx d_attn",
        "half the map, no head",
        lambda c: 3 * (2 * _kaplan_n(c) + 2 * c.n_layers * c.seq_len * c.n_heads * c.k_head),
    ),
    "Hoffmann": Formula(
        "Hoffmann et al. 2022, arXiv 2203.15556, appendix F",
        "embedding lookup as a matmul, 3 H T for the softmax",
        _hoffmann,
    ),
    "PaLM MFU": Formula(
        "Chowdhery et al. 2022, arXiv 2204.02311, appendix B: 6 N + 12 L H Q T",
        "N read as every parameter: embeddings too, and all experts of an MoE",
        lambda c: 6 * account.parameters(c)["total"] + _map(c),
    ),
    "nanoGPT": Formula(
        "karpathy/nanoGPT, model.py, estimate_mfu and get_num_params: PaLM's with N less learned"
        " positions",
        "biases and norms in N; an untied embedding would be in N",
        _nanogpt,
    ),
    "MaxText": Formula(
        "AI-Hypercomputer/maxtext, maxtext_utils.py, calculate_tflops_training_per_device (dense"
        " and Mixtral branch)",
        "half the map (T^2 / 2, without the diagonal)",
        _maxtext,
    ),
    "torchtitan": Formula(
        "pytorch/torchtitan, torchtitan/models/utils.py, get_dense_ and"
        " get_moe_model_nparams_and_flops",
        "norms and biases in N, a tied head once",
        _torchtitan,
    ),
    "Levanter": Formula(
        "stanford-crfm/levanter, src/levanter/utils/flop_utils.py, lm_flops_per_token, times 3",
        "3 H T for mask and softmax; output projection as D x D",
        _levanter,
    ),
}


def compare(c: Model) -> dict[str, dict]:
    """By name: {"training": FLOPs per token, "ratio": over our `matmul`, "source", "differs"}."""
    ours = account.flops_per_token(c)["matmul"]
    found = {name: (f.training(c), f) for name, f in ELSEWHERE.items()}
    return {
        name: {"training": n, "ratio": n / ours, "source": f.source, "differs": f.differs}
        for name, (n, f) in found.items()
    }
