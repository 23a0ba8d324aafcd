"""How other codebases and papers count the training FLOPs of one token of the same model: their
formulas, for comparison alone.

Each is written down from its source as a function of our Model; where a formula has no term for
something (latent attention, other mixers, shared experts, layers of two kinds), it is applied to
what it does have, as its own code would.
"""

from collections.abc import Callable
from typing import NamedTuple

from model import account
from model.config import Model
from model.mixers.softmax import head_width


class Formula(NamedTuple):
    """`training(c)`: FLOPs per token, forward and backward."""

    source: str
    differs: str
    training: Callable


def _attending(m: Model) -> list:
    """The layers that the formulas have a term for."""
    return [layer for layer in m.layers if "attention" in layer.mixer.parameters(m)]


def _widths(layer, m: Model) -> tuple[int, int]:
    """Of all queries, and of all keys, of one layer."""
    heads = getattr(layer.mixer, "m_heads", lambda: layer.mixer.n_heads)()
    width = head_width(layer.mixer, m)
    return layer.mixer.n_heads * width, heads * width


def _queries(m: Model) -> int:
    """Width of all queries of all layers."""
    return sum(_widths(layer, m)[0] for layer in _attending(m))


def _map(m: Model) -> int:
    """12 L H Q T: both matmuls between tokens on the full map, forward and backward."""
    return 12 * _queries(m) * m.seq_len


def _mlp(m: Model, router: bool) -> int:
    """Forward FLOPs of the MLPs of all layers, MoE by assignments."""
    mlps = [layer.mlp for layer in m.layers]
    whole = sum(2 * p.multiplied(m) for p in mlps)
    return whole if router else whole - sum(p.router_flops(m) for p in mlps)


def _kaplan_n(m: Model) -> int:
    """2 d_model n_layer (2 d_attn + d_ff): weights alone, neither embedding nor biases nor
    norms.
    """
    widths = sum(sum(_widths(layer, m)) for layer in _attending(m))
    return 2 * m.d_model * widths + _mlp(m, router=True) // 2


def _hoffmann(m: Model) -> int:
    attention = 0
    for layer in _attending(m):
        q, kv = _widths(layer, m)
        attention += (
            2 * m.d_model * (q + 2 * kv)
            + 4 * m.seq_len * q
            + 3 * layer.mixer.n_heads * m.seq_len
            + 2 * q * m.d_model
        )
    return 3 * (4 * m.d_model * m.vocab_size + attention + _mlp(m, router=True))


def _nanogpt(c: Model) -> int:
    p = account.parameters(c)
    return 6 * (p["total"] - p["groups"]["positions"]) + _map(c)


def _torchtitan(c: Model) -> int:
    p = account.parameters(c)
    looked_up = p["groups"]["positions"] + (0 if c.tied else p["groups"]["token_embedding"])
    return 6 * (p["active"] - looked_up) + _map(c)


def _maxtext(m: Model) -> int:
    attention = sum(2 * m.d_model * 2 * sum(_widths(layer, m)) for layer in _attending(m))
    weights = attention + _mlp(m, router=True) + 2 * m.d_model * m.vocab_size
    return 3 * weights + _map(m) // 2


def _levanter(m: Model) -> int:
    attention = 0
    for layer in _attending(m):
        q, kv = _widths(layer, m)
        attention += (
            2 * m.d_model * (q + 2 * kv)
            + 2 * m.d_model**2
            + 4 * m.seq_len * q
            + 3 * m.seq_len * layer.mixer.n_heads
        )
    mlp = _mlp(m, router=bool(m.routed))
    return 3 * (attention + mlp + 2 * m.d_model * m.vocab_size)


ELSEWHERE = {
    "Kaplan 6N": Formula(
        "Kaplan et al. 2020, arXiv 2001.08361, section 2.1, eq 2.1: N without embeddings, C = 6 N",
        "no attention map, no head",
        lambda c: 6 * _kaplan_n(c),
    ),
    "Kaplan with context": Formula(
        "the same, eq 2.2: forward 2 N + 2 n_layer n_ctx d_attn",
        "half the map, no head",
        lambda c: 3 * (2 * _kaplan_n(c) + 2 * c.seq_len * _queries(c)),
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
