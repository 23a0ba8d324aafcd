"""Contracts of every registered part, and the counts against outside witnesses."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import account, optim, params, step
from model.config import Execution, Model, check
from model.lm import LM, abstract
from model.mixers import MIXERS
from model.mlps import ACTIVATIONS, MLPS, dispatch, routing
from model.norms import NORMS
from model.positions import POSITIONS

TINY = Model(vocab_size=32, seq_len=16, d_model=16, n_layers=2, n_heads=2, d_ff=32, n_experts=4, top_k=2)
SHAPES = (
    [dataclasses.replace(TINY, pattern=(f"{mixer}/{mlp}",)) for mixer in MIXERS for mlp in MLPS]
    + [dataclasses.replace(TINY, positions=p) for p in POSITIONS]
    + [dataclasses.replace(TINY, norm=n, tied=True, pattern=("attention/dense", "attention/moe")) for n in NORMS]
    + [dataclasses.replace(TINY, activation=a, pattern=("attention/moe", "attention/dense")) for a in ACTIVATIONS]
)
NAMES = [f"{'+'.join(c.pattern)}-{c.positions}-{c.norm}-{c.activation}-{'tied' if c.tied else 'untied'}" for c in SHAPES]
every_shape = pytest.mark.parametrize("c", SHAPES, ids=NAMES)


def weights(c, ex=Execution(), seed=0, scale=1.0):
    """Initial values, with the zero-initialised head made random so that every gradient is alive."""
    tree = params.initial(abstract(c, ex), seed)
    if "head" in tree:
        tree["head"]["kernel"] = np.random.default_rng(9).normal(size=tree["head"]["kernel"].shape).astype(np.float32) * 0.2 * scale
    return tree


def tokens(c, batch=2, seed=0):
    return np.random.default_rng(seed).integers(0, c.vocab_size, (batch, c.seq_len + 1)).astype(np.int32)


@every_shape
def test_causality_by_gradient(c):
    """The logits at t have no gradient into what enters the mixers after t, and one into what enters at t."""
    w = weights(c)
    t = c.seq_len // 2

    def probe(shift_TD):
        # the embedding of every token is shifted by its own vector: exact sensitivity of position t to every position
        moved = {**w, "embed": w["embed"]}
        lm = LM(dataclasses.replace(c, tied=False), Execution())
        head = w["head"]["kernel"] if "head" in w else w["embed"].T
        x = jnp.asarray(moved["embed"])[jnp.arange(c.seq_len) % c.vocab_size] + shift_TD
        table = jnp.zeros((c.vocab_size, c.d_model)).at[: c.seq_len].set(x)  # position i reads row i
        tree = {**moved, "embed": table, "head": {"kernel": head}}
        return lm.apply({"params": tree}, jnp.arange(c.seq_len)[None])[0][0, t].sum()

    g = np.abs(jax.grad(probe)(jnp.zeros((c.seq_len, c.d_model)))).sum(1)
    assert (g[t + 1 :] == 0).all()
    assert g[t] > 0 and (g[: t + 1] > 0).all()


def _losses(c, ex, batch=4):
    lm, o = LM(c, ex), optim.Optimizer()
    state = step.create(lm, o, weights(c, ex))
    hyper = {k: np.full(3, v, np.float32) for k, v in dict(lr=1e-2, embed_lr=1e-2, weight_decay=0.1).items()}
    many = np.stack([tokens(c, batch, s) for s in range(3)])
    return jax.jit(lambda s, t, h: step.train_steps(lm, o, s, t, h, 3))(state, many, hyper)[1]


@pytest.mark.parametrize(
    "ex",
    [
        Execution(scan=True),
        Execution(remat=True),
        Execution(scan=True, remat=True),
        Execution(moe="all"),
        Execution(moe="ragged"),
        Execution(moe_rows=8),
        Execution(moe_groups=2),
    ],
    ids=str,
)
def test_executions_agree(ex):
    c = dataclasses.replace(TINY, n_layers=4, pattern=("attention/moe", "attention/dense"))
    want, got = _losses(c, Execution()), _losses(c, ex)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-4, err_msg=name)


@every_shape
def test_loss_falls(c):
    lm, o = LM(c), optim.Optimizer(lr=1e-2)
    state = step.create(lm, o, params.initial(abstract(c), 0))
    batch = np.tile(np.arange(c.seq_len + 1) * 7 % c.vocab_size, (8, 1)).astype(np.int32)
    hyper = {"lr": np.full(30, 1e-2, np.float32), "embed_lr": np.full(30, 1e-2, np.float32), "weight_decay": np.zeros(30, np.float32)}
    loss = np.asarray(jax.jit(lambda s, t, h: step.train_steps(lm, o, s, t, h, 30))(state, np.stack([batch] * 30), hyper)[1]["loss"])
    assert abs(loss[0] - math.log(c.vocab_size)) < (1e-3 if not c.tied else 0.05)
    assert loss[-1] < 0.5 * loss[0]


def test_only_count_steps_are_taken():
    c, o = TINY, optim.Optimizer()
    lm = LM(c)
    f = jax.jit(lambda s, t, h, n: step.train_steps(lm, o, s, t, h, n))
    many = np.stack([tokens(c, 2, s) for s in range(4)])
    hyper = {k: np.full(4, v, np.float32) for k, v in dict(lr=1e-2, embed_lr=2e-2, weight_decay=0.0).items()}
    whole, _ = f(step.create(lm, o, weights(c)), many, hyper, 4)
    half, metrics = f(step.create(lm, o, weights(c)), many, hyper, 2)
    assert (np.asarray(metrics["loss"])[2:] == 0).all() and (np.asarray(metrics["loss"])[:2] > 0).all()
    rest, _ = f(half, np.roll(many, -2, 0), hyper, 2)
    jax.tree.map(np.testing.assert_array_equal, whole, rest)


def test_initial_values_do_not_depend_on_scan():
    c = dataclasses.replace(TINY, n_layers=4, pattern=("attention/dense", "attention/moe"))
    flat, scanned = params.initial(abstract(c), 3), params.initial(abstract(c, Execution(scan=True)), 3)
    for g in range(2):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[g]), flat[f"group_{g}"], scanned["groups"])
    assert not np.array_equal(flat["group_0"]["layer_0"]["mixer"]["q"]["kernel"], flat["group_1"]["layer_0"]["mixer"]["q"]["kernel"])
    assert not np.array_equal(flat["embed"], params.initial(abstract(c), 4)["embed"])


def test_equal_active_parameters_but_for_the_router():
    dense = account.parameters(TINY)
    sparse = account.parameters(dataclasses.replace(TINY, pattern=("attention/moe",)))
    assert sparse["active"] - dense["active"] == sparse["groups"]["router"] == TINY.n_layers * TINY.d_model * TINY.n_experts


def test_rope_is_relative():
    """Scores of equal offsets agree, whatever the absolute position."""
    c = dataclasses.replace(TINY, n_heads=1)
    q, k = np.random.default_rng(0).normal(size=(2, c.d_head)).astype(np.float32)
    rotate = POSITIONS["rope"].rotate
    turned = [rotate(np.broadcast_to(v, (1, c.seq_len, 1, c.d_head)), c)[0, :, 0] for v in (q, k)]
    scores = turned[0] @ turned[1].T
    np.testing.assert_allclose(np.diag(scores, 3), scores[3 - 3, 3], rtol=1e-4)
    assert abs(scores[0, 3] - scores[0, 5]) > 1e-3


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_layout_places_every_assignment_once(assignments, n_experts, rows, seed):
    expert = np.random.default_rng(seed).integers(0, n_experts, assignments)
    with jax.disable_jit():
        block_expert, source, slot = (np.asarray(v) for v in dispatch.layout(jnp.asarray(expert), n_experts, rows))
    assert sorted(source[source >= 0]) == list(range(assignments))
    assert (source[slot] == np.arange(assignments)).all()
    assert (block_expert[slot // rows] == expert).all()


@pytest.mark.parametrize("name", [n for n in dispatch.IMPLEMENTATIONS if n != "all"])
@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_moe_gradients_leaf_by_leaf(name, skew):
    """Against all experts, masked; router included, also when most tokens choose one expert."""
    c = dataclasses.replace(TINY, pattern=("attention/moe",), d_ff=24, n_experts=5, top_k=3, activation="swiglu")
    w = weights(c)
    w["group_0"]["layer_0"]["mlp"]["router"] = w["group_0"]["layer_0"]["mlp"]["router"] + skew * np.eye(16, 5, dtype=np.float32)

    def loss(w, ex):
        logits, stats = LM(c, ex).apply({"params": w}, tokens(c)[:, :-1])
        return (logits**2).mean() + stats["auxiliary"].sum()

    want = jax.grad(loss)(w, Execution(moe="all"))
    got = jax.grad(loss)(w, Execution(moe=name, moe_rows=4))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got)):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a) + 1e-7, path


def test_balance_loss_is_one_when_balanced():
    c = dataclasses.replace(TINY, n_experts=4, top_k=1)
    logits = np.zeros((1, 4, 4), np.float32)
    stats = moe.statistics(c, logits, jax.nn.softmax(logits), np.arange(4).reshape(1, 4, 1))
    assert float(stats["balance_loss"]) == pytest.approx(1) and float(stats["expert_load"]) == 1
    skewed = moe.statistics(c, logits, jax.nn.softmax(logits), np.zeros((1, 4, 1), int))
    assert float(skewed["expert_load"]) == 4
    assert float(stats["router_entropy"]) == pytest.approx(math.log(4), rel=1e-5)


def test_one_expert_is_the_dense_mlp():
    """A 1-expert top-1 MoE with auxiliary weights 0 computes the dense model's function and shared gradients."""
    dense = dataclasses.replace(TINY, n_layers=1)
    sparse = dataclasses.replace(dense, pattern=("attention/moe",), n_experts=1, top_k=1, balance_weight=0.0, z_weight=0.0)
    w = weights(dense)
    m = weights(sparse)
    layer = w["group_0"]["layer_0"]
    m = {
        **w,
        "group_0": {
            "layer_0": {
                **layer,
                "mlp": {"router": m["group_0"]["layer_0"]["mlp"]["router"], **{k: layer["mlp"][k]["kernel"][None] for k in ("in", "out")}},
            }
        },
    }
    loss = lambda c: lambda w: (LM(c).apply({"params": w}, tokens(c)[:, :-1])[0] ** 2).mean()
    (a, ga), (b, gb) = jax.value_and_grad(loss(dense))(w), jax.value_and_grad(loss(sparse))(m)
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    np.testing.assert_allclose(gb["group_0"]["layer_0"]["mlp"]["in"][0], ga["group_0"]["layer_0"]["mlp"]["in"]["kernel"], atol=1e-5)
    np.testing.assert_allclose(gb["embed"], ga["embed"], atol=1e-5)


def test_schedules():
    s = optim.Schedule(decay="cosine", warmup=0.1, final=0.1)
    f = [optim.factor(s, i, 100) for i in range(100)]
    assert f[0] == pytest.approx(0.1) and f[9] == 1 and max(f) == 1 and all(a >= b for a, b in zip(f[9:], f[10:]))
    assert min(optim.factor(optim.Schedule(decay="linear", warmup=0), i, 50) for i in range(50)) == pytest.approx(0.02)
    assert all(optim.factor(optim.Schedule(warmup=w), 0, n) > 0 for w in (0, 0.1, 0.5) for n in (1, 2, 10))


def test_adamw_equals_optax():
    import optax

    c, o = TINY, optim.Optimizer(b1=0.8, b2=0.9, clip=0.5)
    w = weights(c)
    g = jax.grad(lambda w: (LM(c).apply({"params": w}, tokens(c)[:, :-1])[0] ** 2).mean())(w)
    decayed = jax.tree_util.tree_map_with_path(lambda p, _: not {k.key for k in p} & {"scale", "embed"}, w)
    reference = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.01, 0.8, 0.9, 1e-8, weight_decay=0.1, mask=decayed))
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
        ({"positions": "sinusodal"}, "did you mean 'sinusoidal'"),
        ({"pattern": ("attention",)}, "mixer/mlp"),
        ({"pattern": ("atention/dense",)}, "did you mean"),
        ({"pattern": ()}, "empty"),
        ({"d_model": 0}, "at least 1"),
        ({"norm": "rms"}, "rmsnorm"),
        ({"n_layers": 3, "pattern": ("attention/dense",) * 2}, "not a multiple"),
        ({"d_model": 6, "n_heads": 2}, "must be even"),
    ],
)
def test_bad_models_say_what_to_do(change, words):
    with pytest.raises(ValueError, match=words):
        check(dataclasses.replace(TINY, **change))
