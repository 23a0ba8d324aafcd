"""Counts of every registered part, held equal to outside witnesses: the initialised tree, and a
walk over the traced program.
"""

import dataclasses
import itertools
import re

import jax
import pytest

from model import account, lm, mlps, norms, positions, records_version1
from model import mixers as mixers_package
from model.config import Execution, check
from model.mlps import dispatch
from model.mlps.hidden import ACTIVATIONS
from model.registry import MIXERS, MLPS, NORMS, POSITIONS
from tests.model import shapes, walk

QUADRATIC = ("attention", "latent")  # with every MLP, as cheap as they are to trace
# a vocabulary above the one-hot embedding's: what is left are mixers, MLPs and the head
make = shapes.maker(
    vocab_size=1056,
    seq_len=16,
    d_model=24,
    n_layers=1,
    n_heads=4,
    d_ff=40,
    n_experts=4,
    top_k=2,
    kv_rank=12,
    d_rope=6,
    d_head=6,
)


TINY = make()


replace = dataclasses.replace


SHAPES = {
    **{
        f"{m}/{f}": {"pattern": (f"{m}/{f}",)}
        for m in MIXERS
        for f in (MLPS if m in QUADRATIC else ("dense",))
    },
    **{p: {"positions": p, "pattern": ("latent/dense",)} for p in POSITIONS},
    **{n: {"norm": n} for n in NORMS},
    **{
        a: {"pattern": ("attention/moe", "attention/dense"), "n_layers": 2, "activation": a}
        for a in ACTIVATIONS
    },
    "biases": {
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "pattern": ("attention/moe",),
        "n_shared": 1,
    },
    "grouped": {"n_kv_heads": 2, "qk_norm": "full", "window": 5, "attention_cap": 5.0},
    "multi-query": {"n_kv_heads": 1, "qk_norm": "head", "logit_cap": 5.0},
    "latent-queries": {
        "pattern": ("latent/moe",),
        "q_rank": 8,
        "d_value": 4,
        "n_shared": 2,
        "out_bias": True,
    },
    "deepseek": {
        "n_layers": 2,
        "first_layers": ("latent/dense",),
        "pattern": ("latent/moe",),
        "router": "sigmoid",
        "selection_bias": True,
        "expert_groups": 2,
        "top_groups": 1,
    },
    "post-norm": {
        "post_norm": True,
        "embed_norm": True,
        "positions": "learned",
        "position_offset": 2,
        "pattern": ("attention/moe",),
    },
    "post-norm-dense": {"post_norm": True, "embed_scale": True, "norm": "layernorm"},
    "capacity": {
        "pattern": ("attention/moe",),
        "capacity_factor": 1.25,
        "routing_group": 2,
        "n_shared": 1,
    },
    "tied": {
        "tied": True,
        "vocab_size": 64,
        "n_layers": 4,
        "pattern": ("attention/moe", "attention/dense"),
    },
    "alone": {
        "layers": "mamba(thin_norm=scaled,bias=true)/no_mlp, mamba2(n_heads=2,bias=true)/no_mlp"
        ", mamba(thin_norm=plain,conv_bias=false)/no_mlp",
        "n_layers": 3,
    },
    "buckets": {"layers": "reformer(n_heads=2,n_buckets=4,span=6)/dense"},
    "blocks": {"layers": "sparse(n_heads=2,block=4,local=4,n_global=2,n_random=1)/dense"},
    **{name: {"layers": layers, "n_layers": 2} for name, layers in shapes.BY_LAYER.items()},
}


EXECUTIONS = {
    "plain": Execution(),
    "scan": Execution(scan=True),
    "remat": Execution(remat=True),
    "scan-remat": Execution(scan=True, remat=True),
    **{
        f"{name}-{remat}": Execution(moe=name, moe_rows=8, remat=remat)
        for name in dispatch.IMPLEMENTATIONS
        for remat in (False, True)
    },
    "grouped": Execution(moe="block", moe_rows=4, moe_groups=2),
    "settle": Execution(settle=True),
    "chunks": Execution(attention_chunk=6, loss_chunk=4, chunk=5),
    "turns": Execution(chunk=5, turn=5),
    "turns-remat": Execution(chunk=20, turn=5, remat=True),
    "chunks-remat": Execution(attention_chunk=6, loss_chunk=4, chunk=5, scan=True, remat=True),
    "chunks-settle": Execution(attention_chunk=6, loss_chunk=4, chunk=5, settle=True),
    "chunks-settle-remat": Execution(
        attention_chunk=6, loss_chunk=4, chunk=5, settle=True, remat=True
    ),
}


QUICK = {
    **{f"{m}/dense": ["remat", "chunks"] for m in MIXERS},
    **{f"{m}/dense": ["remat", "chunks", "turns"] for m in ("mamba", "mamba2", "gla", "rwkv7")},
    **{f"{m}/dense": ["remat", "chunks", "turns-remat"] for m in ("retnet", "gated_delta")},
    "post-norm-dense": ["remat", "settle"],
    "post-norm": ["remat", "all-True"],
    "latent-queries": ["remat", "chunks"],
    "grouped": ["chunks", "chunks-remat", "chunks-settle"],  # with a window
    "tied": ["scan", "scan-remat", "chunks-remat"],
    "windows": ["chunks-remat"],
    "blocks": ["chunks-remat", "chunks"],
    "buckets": ["chunks-remat", "chunks"],
    "two widths": ["remat", "ragged-True"],
    "sandwich": ["remat"],
    "gated": ["remat", "chunks-remat"],
    "alone": ["remat", "chunks-remat"],
    "output norm": ["remat", "settle"],
    "parallel": ["remat", "chunks-settle-remat"],
    "shared norm": ["remat"],
    "sinks": ["chunks", "chunks-settle-remat", "block-True"],
    "gated shared": ["remat", "loop-True"],
}


every_shape = pytest.mark.parametrize("name", SHAPES)


def model(name):
    c = make(**SHAPES[name])
    check(c)
    return c


@every_shape
def test_parameters_equal_the_tree(name):
    for tied in (False, True):
        c = replace(model(name), tied=tied)
        counted = account.parameters(c)
        tree = jax.tree.leaves(lm.abstract(c))
        assert sum(a.size for a in tree) == counted["total"] == sum(counted["groups"].values())
        assert set(counted["groups"]) == set(account.GROUPS)
        unused = sum(
            p.parameters(c)["experts"] * (p.n_experts - p.top_k) // p.n_experts for p in c.routed
        )
        assert counted["active"] == counted["total"] - unused


@every_shape
def test_model_flops_equal_the_walk(name):
    """Forward, of the reference: the MoE by assignments (`ragged_dot`: 2 x assignments x d x f),
    the sum of experts' outputs by their gates left out (a weighted sum, no matmul). What has a
    state is walked over by its definition, as a decoder computes it: one token after the other.
    """
    c = model(name)
    one_hot = 2 * c.d_model * c.vocab_size * (c.vocab_size <= lm.ONE_HOT_VOCAB)
    if not account.state(c).per_token:
        if not c.routed:  # a decoder computes all experts
            assert walk.flops(walk.decoding(c, 2)) == 2 * (account.forward_flops(c) + one_hot)
        return
    two, three = (
        walk.flops(walk.forward(c, Execution(moe="ragged"), n), matrices_only=True) for n in (2, 3)
    )  # what is made once for all sequences, a filter, is none of theirs
    assert three - two == c.seq_len * (account.forward_flops(c) + one_hot)


def test_a_window_and_a_triangle_count_their_own_pairs():
    for window in (0, 1, 5, 16, 40):
        c, width = make(window=window), 4 * 6  # of all heads
        seen = [
            (t, j) for t in range(c.seq_len) for j in range(t + 1) if not window or t - j < window
        ]
        attended = c.n_layers * 4 * width * len(seen)
        rest = account.forward_flops(c) - c.n_layers * 4 * width * c.seq_len
        assert account.forward_flops(c, causal=True) * c.seq_len == pytest.approx(
            rest * c.seq_len + attended, rel=1e-12
        )
        assert (
            c.n_layers * 4 * width * c.seq_len**2 == (account.forward_flops(c) - rest) * c.seq_len
        )


def test_a_part_without_counts_is_no_part():
    """A part has every method that the docstring of its registry names; one that is wrong fails
    the tests above, which go over the registries.
    """
    for package, table in (
        (mixers_package, MIXERS),
        (mlps, MLPS),
        (norms, NORMS),
        (positions, POSITIONS),
    ):
        contract = re.findall(r"^([a-z_]+)\(", package.__doc__, re.MULTILINE)
        assert {"parameters", "check"} <= set(contract)
        for cls in table.values():
            assert cls.__dataclass_params__.frozen and cls.__doc__.strip() and cls()
            for method in contract:
                assert callable(getattr(cls, method, None)), f"{cls.__name__} has no {method}"
    assert set(dispatch.COUNTS) == set(dispatch.IMPLEMENTATIONS)
    used = {type(p) for name in SHAPES for x in model(name).layers for p in (x.mixer, x.mlp)}
    assert used == {*MIXERS.values(), *MLPS.values()}


def test_gpt2_flops():
    """DESIGN's figures for GPT-2 124M at T=1024."""
    c = records_version1.model(
        vocab_size=50257,
        seq_len=1024,
        d_model=768,
        n_layers=12,
        n_heads=12,
        d_ff=3072,
        tied=True,
        positions="learned",
    )
    counted = account.flops_per_token(c)
    assert (counted["matmul"], counted["matmul_causal"]) == (854_438_400, 797_870_592)


def test_context_adds_parameters_with_learned_positions_alone():
    for name in POSITIONS:
        short, long = (account.parameters(make(positions=name, seq_len=t)) for t in (16, 80))
        assert long["total"] - short["total"] == 64 * TINY.d_model * (name == "learned")
        assert (
            long["non_embedding"] == short["non_embedding"]
            and long["multiplied"] == short["multiplied"]
        )


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parameters_equal_the_tree_for_every_product_of_registries(whole):
    """From shapes alone: every pair of mixer, MLP, position, norm and activation, tied and untied;
    all their combinations in the slow lane.
    """
    base = shapes.maker(
        vocab_size=24,
        seq_len=8,
        d_model=16,
        n_layers=1,
        n_heads=2,
        d_ff=24,
        n_experts=4,
        top_k=2,
        kv_rank=8,
        d_rope=4,
        mlp_bias=True,
    )
    mixers = MIXERS if whole else QUADRATIC  # others: every one above, and all in the slow lane
    registries, seen = itertools.product(mixers, MLPS, POSITIONS, NORMS, ACTIVATIONS), set()
    for i, entries in enumerate(registries):
        pairs = set(itertools.combinations(enumerate(entries), 2))
        if pairs <= seen and not whole:
            continue
        seen |= pairs
        mixer, mlp, position, norm, activation = entries
        change = dict(
            pattern=(f"{mixer}/{mlp}",),
            positions=position,
            norm=norm,
            activation=activation,
            tied=bool(i % 2),
        )
        c = base(**change)
        leaves = jax.tree.leaves(lm.abstract(c))
        assert sum(x.size for x in leaves) == account.parameters(c)["total"], change
