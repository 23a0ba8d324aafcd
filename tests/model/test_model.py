"""Contracts of every registered part, and the counts against outside witnesses."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import account, params
from model.config import NORM_PLACES, RESIDUALS, Execution, check
from model.lm import LM, abstract, buffers
from model.mlps.hidden import ACTIVATIONS
from model.registry import MIXERS, MLPS, NORMS, POSITIONS
from tests.model import shapes

make = shapes.maker(
    vocab_size=32,
    seq_len=16,
    d_model=16,
    n_layers=2,
    n_heads=2,
    d_ff=32,
    n_experts=4,
    top_k=2,
    kv_rank=8,
    d_rope=4,
)


TINY = make()
QUADRATIC = ("attention", "latent")
ROUTED = {
    "router": "sigmoid",
    "expert_groups": 2,
    "top_groups": 1,
    "selection_bias": True,
    "gate_scale": 2.5,
    "n_shared": 1,
}
# with every MLP in the slow lane; with the dense one, and attention with all, in the fast one
PAIRS = [
    {"pattern": (f"{mixer}/{mlp}",), **({} if mixer in QUADRATIC else {"n_layers": 1})}
    for mixer in MIXERS
    for mlp in MLPS
]
CHANGES = (
    PAIRS
    + [{"positions": p} for p in POSITIONS]
    + [{"norm": n, "tied": True, "pattern": ("attention/dense", "attention/moe")} for n in NORMS]
    + [
        {"activation": a, "pattern": ("attention/moe", "attention/dense"), "mlp_bias": True}
        for a in ACTIVATIONS
    ]
    + [
        {
            "n_heads": 4,
            "n_kv_heads": 2,
            "qk_norm": "head",
            "window": 4,
            "qkv_bias": True,
            "d_head": 6,
        },
        {
            "n_heads": 4,
            "n_kv_heads": 1,
            "qk_norm": "full",
            "attention_cap": 5.0,
            "logit_cap": 5.0,
            "out_bias": True,
        },
        {
            "post_norm": True,
            "embed_norm": True,
            "embed_scale": True,
            "norm": "layernorm",
            "positions": "learned",
            "position_offset": 2,
        },
        {"rope_fraction": 0.5, "rope_interleaved": True, "n_heads": 2},
        {
            "pattern": ("latent/dense",),
            "q_rank": 6,
            "d_value": 6,
            "d_head": 4,
            "rope_interleaved": True,
        },
        {
            "pattern": ("attention/moe",),
            "first_layers": ("latent/dense",),
            "n_layers": 3,
            "d_expert": 8,
            **ROUTED,
        },
        {
            "pattern": ("attention/moe",),
            "positions": "alibi",
            "n_heads": 1,
            "renormalise": False,
            "top_k": 1,
            "balance_scope": "model",
        },
    ]
    + [{"layers": layers} for layers in shapes.BY_LAYER.values()]
)


SHAPES = [make(**change) for change in CHANGES]


NAMES = [
    *(
        ",".join(f"{k}={'+'.join(v) if isinstance(v, tuple) else v}" for k, v in change.items())
        for change in CHANGES[: -len(shapes.BY_LAYER)]
    ),
    *shapes.BY_LAYER,
]
_EXTRA = [
    "n_layers" in change and not change["pattern"][0].endswith("/dense")
    for change in (PAIRS + [{}] * (len(CHANGES) - len(PAIRS)))
]
every_shape = pytest.mark.parametrize(
    "c",
    [
        pytest.param(c, id=n, marks=pytest.mark.slow if extra else ())
        for c, n, extra in zip(SHAPES, NAMES, _EXTRA)
    ],
)
# what is costly to compile: pairs of mixer and MLP, and what changes the tree, in the fast lane;
# all shapes in the slow one
_CORE = [
    not extra and (change in PAIRS or bool({"first_layers", "post_norm", "window"} & set(change)))
    for change, extra in zip(CHANGES, _EXTRA)
]


_SPLIT = [
    pytest.param(c, id=n, marks=() if core else pytest.mark.slow)
    for c, n, core in zip(SHAPES, NAMES, _CORE)
]


core_shapes = pytest.mark.parametrize("c", _SPLIT)


# two programs of a whole update each: those with the most parts
_RICH = [bool({"first_layers", "post_norm", "window"} & set(change)) for change in CHANGES]


rich_shapes = pytest.mark.parametrize(
    "c",
    [
        pytest.param(c, id=n, marks=() if rich else pytest.mark.slow)
        for c, n, rich in zip(SHAPES, NAMES, _RICH)
    ],
)


# a decoder each: one gated activation and one tied head in the fast lane
_TWIN = [
    change.get("activation", "swiglu") != "swiglu" or change.get("norm") == "rmsnorm"
    for change in CHANGES
]


_MOST = [
    pytest.param(c, id=n, marks=pytest.mark.slow if extra or twin and not core else ())
    for c, n, twin, core, extra in zip(SHAPES, NAMES, _TWIN, _CORE, _EXTRA)
]
_OTHER = [type(c.pattern[0].mixer) not in (MIXERS[name] for name in QUADRATIC) for c in SHAPES]
most_shapes = pytest.mark.parametrize("c", [p for p, o in zip(_MOST, _OTHER) if not o])
most_mixers = pytest.mark.parametrize("c", [p for p, o in zip(_MOST, _OTHER) if o])


# 30 updates: of the positions alone, those with parameters of their own in the fast lane
_PLAIN = [set(change) == {"positions"} and change["positions"] != "learned" for change in CHANGES]


_FALLING = [
    pytest.param(c, id=n, marks=pytest.mark.slow if extra or plain or twin and not core else ())
    for c, n, plain, twin, core, extra in zip(SHAPES, NAMES, _PLAIN, _TWIN, _CORE, _EXTRA)
]
falling_shapes = pytest.mark.parametrize("c", [p for p, o in zip(_FALLING, _OTHER) if not o])
falling_mixers = pytest.mark.parametrize("c", [p for p, o in zip(_FALLING, _OTHER) if o])


def test_every_registered_part_is_under_contract():
    layers = [layer for c in SHAPES for layer in c.layers]
    for table, used in (
        (MIXERS, (layer.mixer for layer in layers)),
        (MLPS, (layer.mlp for layer in layers)),
        (POSITIONS, (c.positions for c in SHAPES)),
        (NORMS, (c.norm for c in SHAPES)),
    ):
        assert {type(part) for part in used} == set(table.values())
    used = {layer.mlp.activation for layer in layers if hasattr(layer.mlp, "activation")}
    assert used == set(ACTIVATIONS)
    assert {layer.norm for layer in layers} == set(NORM_PLACES)
    assert {layer.residual for layer in layers} == set(RESIDUALS)


def window(c) -> int:
    """Positions that the last one can see through all layers, less one; 0: all."""
    steps = [getattr(layer.mixer, "window", 0) for layer in c.layers]
    return 1 + sum(w - 1 for w in steps) if all(steps) else 0


def weights(c, ex=Execution(), seed=0):
    """Parameters with every leaf random: no bias, scale or head at its initial value, so that every
    gradient is alive.
    """
    tree, rng = params.unrolled(params.initial(abstract(c, ex), seed)), np.random.default_rng(9)
    noisy = jax.tree_util.tree_map_with_path(
        lambda p, a: (a + 0.2 * rng.standard_normal(a.shape)).astype(np.float32), tree
    )
    return params.scanned(noisy) if ex.scan else noisy


def variables(c, ex=Execution(), seed=0):
    """What `LM.apply` takes, with selection biases that matter."""
    bias = jax.tree.map(
        lambda a: np.linspace(-0.2, 0.2, math.prod(a.shape), dtype=np.float32).reshape(a.shape),
        buffers(c),
    )
    held = {"params": weights(c, ex, seed), "buffers": params.scanned(bias) if ex.scan else bias}
    return jax.tree.map(jnp.asarray, held)


@functools.cache
def _forward(c, ex):
    return jax.jit(lambda v, t: LM(c, ex).apply(v, t)[0])


def forward(c, ex, held, t):
    return np.asarray(_forward(c, ex)(held, t))


def tokens(c, batch=2, seed=0):
    return (
        np.random.default_rng(seed)
        .integers(0, c.vocab_size, (batch, c.seq_len + 1))
        .astype(np.int32)
    )


@every_shape
def test_causality_by_gradient(c):
    """The logits at t have no gradient into what enters the mixers after t, and one into all that t
    may see.
    """
    held = variables(c)
    w, t = held["params"], c.seq_len // 2
    head = w["head"]["kernel"] if "head" in w else w["embed"].T

    def probe(shift_TD):
        # position i reads row i of the table: exact sensitivity of position t to every position
        x = jnp.asarray(w["embed"])[jnp.arange(c.seq_len) % c.vocab_size] + shift_TD
        table = jnp.zeros((c.vocab_size, c.d_model)).at[: c.seq_len].set(x)
        tree = {**w, "embed": table, "head": {"kernel": head}}
        lm = LM(dataclasses.replace(c, tied=False))
        return lm.apply({**held, "params": tree}, jnp.arange(c.seq_len)[None])[0][0, t].sum()

    g = np.abs(jax.jit(jax.grad(probe))(jnp.zeros((c.seq_len, c.d_model)))).sum(1)
    first = max(0, t - window(c) + 1) if window(c) else 0
    # a Fourier transform rounds
    least = 1e-6 * g.max() * any(type(layer.mixer) is MIXERS["hyena"] for layer in c.layers)
    assert (g[t + 1 :] <= least).all() and (g[:first] == 0).all()
    # which tokens hash alike is another matter
    hashed = any(type(layer.mixer) is MIXERS["reformer"] for layer in c.layers)
    assert (g[t if hashed else first : t + 1] > 0).all()


@every_shape
def test_rows_of_a_batch_do_not_see_each_other(c):
    held, t, order = variables(c), tokens(c, 3)[:, :-1], np.array([2, 0, 1])
    np.testing.assert_allclose(
        forward(c, Execution(), held, t[order]), forward(c, Execution(), held, t)[order], atol=1e-5
    )


def test_initial_values_do_not_depend_on_scan():
    c = make(n_layers=4, pattern=("attention/dense", "attention/moe"))
    flat, scanned = (
        params.initial(abstract(c), 3),
        params.initial(abstract(c, Execution(scan=True)), 3),
    )
    for g in range(2):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, b[g]),
            flat[f"group_{g}"],
            scanned["groups"],
        )
    assert not np.array_equal(
        flat["group_0"]["layer_0"]["mixer"]["q"]["kernel"],
        flat["group_1"]["layer_0"]["mixer"]["q"]["kernel"],
    )
    assert not np.array_equal(flat["embed"], params.initial(abstract(c), 4)["embed"])


def test_equal_active_parameters_but_for_the_router():
    dense = account.parameters(TINY)
    moe = make(pattern=("attention/moe",))
    sparse = account.parameters(moe)
    assert (
        sparse["active"] - dense["active"]
        == sparse["groups"]["router"]
        == TINY.n_layers * TINY.d_model * moe.routed[0].n_experts
    )


def test_rope_is_relative():
    """Scores of equal offsets agree, whatever the absolute position."""
    q, k = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    rotate = POSITIONS["rope"]().rotate
    turned = [
        rotate(TINY, np.broadcast_to(v, (1, 16, 1, 16)), np.arange(16))[0, :, 0] for v in (q, k)
    ]
    scores = turned[0] @ turned[1].T
    np.testing.assert_allclose(np.diag(scores, 3), scores[3 - 3, 3], rtol=1e-4)
    assert abs(scores[0, 3] - scores[0, 5]) > 1e-3


@pytest.mark.parametrize(
    "change,words",
    [
        ({"n_heads": 3}, "does not divide"),
        ({"top_k": 5, "pattern": ("attention/moe",)}, "cannot choose more experts"),
        ({"top_k": 3, "pattern": ("attention/moe",), "d_ff": 32}, "does not divide"),
        ({"pattern": ()}, "empty"),
        ({"d_model": 0}, "at least 1"),
        ({"window": -1}, "model.attention.window=-1 cannot be negative"),
        ({"layers": "attention/dense/layer(norm=first)"}, "choose from output"),
        ({"layers": "attention/dense/layer(norm=post,residual=parallel)"}, "sequential"),
        ({"layers": "attention/dense/layer(norm=post), attention/dense"}, "all layers or in none"),
        ({"layers": "attention/moe(balance_scope=model), attention/moe"}, "pools all layers"),
        ({"layers": "attention(positions=rope(fraction=0.1))/dense"}, "must be even"),
        ({"layers": "attention(positions=learned)/dense"}, "set model.positions"),
        ({"n_layers": 3, "pattern": ("attention/dense",) * 2}, "not a multiple"),
        ({"d_model": 6, "n_heads": 2}, "must be even"),
    ],
)
def test_bad_models_say_what_to_do(change, words):
    with pytest.raises(ValueError, match=words):
        check(make(**change))
