"""Contracts of every registered part, and the counts against outside witnesses."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import account, optim, params, sample, step
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
most_shapes = pytest.mark.parametrize(
    "c",
    [
        pytest.param(c, id=n, marks=pytest.mark.slow if extra or twin and not core else ())
        for c, n, twin, core, extra in zip(SHAPES, NAMES, _TWIN, _CORE, _EXTRA)
    ],
)

# 30 updates: of the positions alone, those with parameters of their own in the fast lane
_PLAIN = [set(change) == {"positions"} and change["positions"] != "learned" for change in CHANGES]
falling_shapes = pytest.mark.parametrize(
    "c",
    [
        pytest.param(c, id=n, marks=pytest.mark.slow if extra or plain or twin and not core else ())
        for c, n, plain, twin, core, extra in zip(SHAPES, NAMES, _PLAIN, _TWIN, _CORE, _EXTRA)
    ],
)


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


@most_shapes
def test_cached_equals_full(c):
    """Prompts of unequal length, padded on the left: prefill, then token by token, equals the
    forward pass at every position.
    """
    ex, held, rng = Execution(), variables(c), np.random.default_rng(0)
    total, given, slots = c.seq_len, 11, 19
    rows = [rng.integers(0, c.vocab_size, n).astype(np.int32) for n in (total, 6, 9)]
    pad = np.array([total - len(r) for r in rows])
    padded = np.stack([np.concatenate([np.zeros(n, np.int32), r]) for n, r in zip(pad, rows)])
    lm = LM(c, ex)
    logits, cache = jax.jit(lambda v, t: sample.prefill(lm, v, t, pad, slots))(
        held, padded[:, :given]
    )
    one = jax.jit(lambda v, t, slot, cache: sample.decode(lm, v, t, pad, slots, slot, cache))
    out = [logits]
    for slot in range(given, total):
        logits, cache = one(held, padded[:, slot : slot + 1], slot, cache)
        out.append(logits)
    got = np.concatenate(out, 1)
    counted = account.state(c)
    kept = sum(a.size for a in jax.tree.leaves(cache)) / len(rows)
    assert kept == slots * counted.per_token + counted.per_sequence
    want = forward(
        c,
        ex,
        held,
        np.stack([np.concatenate([r, np.zeros(n, np.int32)]) for n, r in zip(pad, rows)]),
    )
    for row, n, a, b in zip(rows, pad, got, want):
        np.testing.assert_allclose(a[n:], b[: len(row)], rtol=1e-4, atol=1e-4)


@core_shapes
def test_bfloat16_is_close(c):
    held, t = variables(c), tokens(c, 3)[:, :-1]
    want, got = forward(c, Execution(), held, t), forward(c, Execution(dtype="bfloat16"), held, t)
    # the median: a token whose router flips between two experts is another matter
    assert np.median(np.abs(got - want)) < 0.03 * want.std()
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.99


@rich_shapes
def test_scan_and_remat_agree(c):
    """Loss, gradient norm and statistics of a training step: one compiled body for all layers,
    recomputed, against unrolled layers.
    """
    lm, o, t = LM(c), optim.Optimizer(), tokens(c, 2)
    hyper = {"lr": 1e-2, "embed_lr": 1e-2, "weight_decay": 0.1}
    want = None
    for ex in (Execution(), Execution(scan=True, remat=True)):
        held = variables(c, ex)
        lm = LM(c, ex)
        state = step.create(lm, o, held["params"])._replace(buffers=held["buffers"])
        after, got = jax.jit(lambda s, t: step.train_step(lm, o, s, t, hyper))(state, t)
        leaves = params.unrolled({**after.params}), params.unrolled({**after.buffers})
        want = want or (got, leaves)
        for name in want[0]:
            np.testing.assert_allclose(
                got[name], want[0][name], rtol=2e-4, atol=1e-6, err_msg=f"{name} {ex}"
            )
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(want[1][1]), jax.tree.leaves(leaves[1])
        ):
            np.testing.assert_allclose(b, a, atol=1e-6, err_msg=str(path))


def _chunked():
    """Of every shape in the slow lane, by default of what a chunk must get right: a window, grouped
    heads, caps.
    """
    for c, name in zip(SHAPES, NAMES):
        for dtype in ("float32", "bfloat16"):
            quick = dtype == "float32" and (window(c) or c.logit_cap)
            yield pytest.param(
                c, dtype, id=f"{name}-{dtype}", marks=() if quick else pytest.mark.slow
            )


@pytest.mark.parametrize("c,dtype", [*_chunked()])
def test_chunks_agree(c, dtype):
    """Loss, every leaf of the gradient and per-token losses: the map and the logits in chunks, the
    last one of queries shorter, against both whole; the map kept, with the batch in halves, or made
    again.
    """
    held, t = variables(c), tokens(c, 2)
    state = step.create(LM(c), optim.Optimizer(), held["params"])._replace(buffers=held["buffers"])

    def passes(ex, state, t):
        grads, (metrics, _) = step.gradients(LM(c, ex), state, t)
        return grads, metrics["loss"], step.eval_step(LM(c, ex), step.variables(state), t)[0]

    chunked = Execution(dtype, attention_chunk=6, loss_chunk=4, chunk=6)
    whole, kept, again = (
        jax.jit(functools.partial(passes, ex))(state, t)
        for ex in (Execution(dtype), dataclasses.replace(chunked, settle=True), chunked)
    )
    exact = dtype == "float32"
    for chunks in (kept, again):
        np.testing.assert_allclose(chunks[1], whole[1], rtol=2e-5 if exact else 0.02)
        np.testing.assert_allclose(chunks[2], whole[2], atol=1e-4 if exact else 0.5)
        if not exact and c.routed:
            continue  # by rounding alone a token may be given to another expert
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(whole[0]), jax.tree.leaves(chunks[0])
        ):
            largest = float(jnp.abs(a).max()) + 1e-6
            np.testing.assert_allclose(
                b / largest, a / largest, atol=2e-5 if exact else 0.3, err_msg=str(path)
            )


QUICK = [(True, {})]  # biases and shared experts too; scanned and gated twins are slow


def _losses(c, ex, batch=4):
    lm, o = LM(c, ex), optim.Optimizer()
    state = step.create(lm, o, weights(c, ex))
    hyper = {
        k: np.full(3, v, np.float32)
        for k, v in dict(lr=1e-2, embed_lr=1e-2, weight_decay=0.1).items()
    }
    many = np.stack([tokens(c, batch, s) for s in range(3)])
    return jax.jit(lambda s, t, h: step.train_steps(lm, o, s, t, h, 3))(state, many, hyper)[1]


@pytest.mark.parametrize(
    "ex",
    [
        pytest.param(Execution(moe_rows=8), marks=pytest.mark.slow),
        Execution(moe_groups=2),
        Execution(moe="loop", moe_rows=8, settle=True),
        # a wide block would hold more rows than there are
        pytest.param(Execution(moe="loop", moe_rows=512), marks=pytest.mark.slow),
        Execution(settle=True, remat=True, accumulate=2),
    ],
    ids=str,
)
def test_executions_agree(ex):
    c = make(n_layers=4, pattern=("attention/moe", "attention/dense"))
    want, got = _losses(c, Execution()), _losses(c, ex)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    "ungated,more",
    [
        pytest.param(u, m, id=f"{u}-{m}", marks=() if (u, m) in QUICK else pytest.mark.slow)
        for u in (False, True)
        for m in ({}, {"scan": True}, {"dtype": "bfloat16"}, {"moe_groups": 2})
    ],
)
def test_micro_batches_add_up_to_the_batch(more, ungated):
    """Every gradient of three micro-batches is that of the whole batch, also where experts add to
    the sums of the micro-batches before.
    """
    fields = (
        dict(activation="gelu", mlp_bias=True, n_shared=1) if ungated else dict(activation="swiglu")
    )
    c = make(n_layers=4, pattern=("attention/moe", "attention/dense"), **fields)
    t = tokens(c, 6)

    def passes(ex):
        lm = LM(c, ex)
        held = step.create(lm, optim.Optimizer(), weights(c, ex))
        grads, (metrics, _) = jax.jit(functools.partial(step.accumulated, lm))(held, t)
        return params.unrolled(grads), metrics["loss"]

    (want, loss), (got, other) = (
        passes(Execution()),
        passes(Execution(moe="loop", moe_rows=8, accumulate=3, **more)),
    )
    exact = "dtype" not in more
    np.testing.assert_allclose(other, loss, rtol=2e-5 if exact else 0.02)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got)):
        size = float(jnp.linalg.norm(a))
        assert size > 0, path
        # by rounding alone a token may be given to another expert
        assert float(jnp.linalg.norm(a - b)) < (1e-4 if exact else 0.5) * size, path


@falling_shapes
def test_loss_falls(c):
    lm, o = LM(c), optim.Optimizer(lr=1e-2)
    state = step.create(lm, o, params.initial(abstract(c), 0))
    batch = np.tile(np.arange(c.seq_len + 1) * 7 % c.vocab_size, (8, 1)).astype(np.int32)
    hyper = {
        "lr": np.full(30, 1e-2, np.float32),
        "embed_lr": np.full(30, 1e-2, np.float32),
        "weight_decay": np.zeros(30, np.float32),
    }
    loss = np.asarray(
        jax.jit(lambda s, t, h: step.train_steps(lm, o, s, t, h, 30))(
            state, np.stack([batch] * 30), hyper
        )[1]["loss"]
    )
    assert abs(loss[0] - math.log(c.vocab_size)) < (1e-3 if not c.tied else 0.05)
    assert np.isfinite(loss).all()
    assert loss[-1] < 0.5 * loss[0]


def test_only_count_steps_are_taken():
    c, o = TINY, optim.Optimizer()
    lm = LM(c)
    f = jax.jit(lambda s, t, h, n: step.train_steps(lm, o, s, t, h, n))
    many = np.stack([tokens(c, 2, s) for s in range(4)])
    hyper = {
        k: np.full(4, v, np.float32)
        for k, v in dict(lr=1e-2, embed_lr=2e-2, weight_decay=0.0).items()
    }
    whole, _ = f(step.create(lm, o, weights(c)), many, hyper, 4)
    half, metrics = f(step.create(lm, o, weights(c)), many, hyper, 2)
    assert (np.asarray(metrics["loss"])[2:] == 0).all() and (
        np.asarray(metrics["loss"])[:2] > 0
    ).all()
    rest, _ = f(half, np.roll(many, -2, 0), hyper, 2)
    jax.tree.map(np.testing.assert_array_equal, whole, rest)


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
    turned = [rotate(np.broadcast_to(v, (1, 16, 1, 16)), np.arange(16))[0, :, 0] for v in (q, k)]
    scores = turned[0] @ turned[1].T
    np.testing.assert_allclose(np.diag(scores, 3), scores[3 - 3, 3], rtol=1e-4)
    assert abs(scores[0, 3] - scores[0, 5]) > 1e-3


def test_schedules():
    s = optim.Schedule(decay="cosine", warmup=0.1, final=0.1)
    f = [optim.factor(s, i, 100) for i in range(100)]
    assert (
        f[0] == pytest.approx(0.1)
        and f[9] == 1
        and max(f) == 1
        and all(a >= b for a, b in zip(f[9:], f[10:]))
    )
    assert min(
        optim.factor(optim.Schedule(decay="linear", warmup=0), i, 50) for i in range(50)
    ) == pytest.approx(0.02)
    assert all(
        optim.factor(optim.Schedule(warmup=w), 0, n) > 0 for w in (0, 0.1, 0.5) for n in (1, 2, 10)
    )


@pytest.mark.parametrize("decay", optim.DECAYS)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_ends_of_schedules(decay, warmup, final):
    """`final` is the rate that an update after the last one would have."""
    s, n = optim.Schedule(decay, warmup, final), 20
    warm = round(warmup * n)
    assert optim.factor(s, 0, n) == (1 / warm if warm else 1.0)
    assert optim.factor(s, warm, n) == 1.0
    assert optim.factor(s, n, n) == pytest.approx(1.0 if decay == "constant" else final)
    assert optim.factor(s, n - 1, n) > (final if decay != "constant" else 0.0)


def test_adamw_equals_optax():
    import optax

    c, o = TINY, optim.Optimizer(b1=0.8, b2=0.9, clip=0.5)
    w = weights(c)

    def square(w):
        return (LM(c).apply({"params": w}, tokens(c)[:, :-1])[0] ** 2).mean()

    g = jax.jit(jax.grad(square))(w)
    decayed = jax.tree_util.tree_map_with_path(
        lambda p, _: not {k.key for k in p} & {"scale", "embed"}, w
    )
    reference = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(0.01, 0.8, 0.9, 1e-8, weight_decay=0.1, mask=decayed),
    )
    want = optax.apply_updates(w, reference.update(g, reference.init(w), w)[0])
    t = optim.transform(o)
    got = optim.apply(o, w, t.update(g, t.init(w))[0], 0.01, 0.01, 0.1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), want, got)


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
