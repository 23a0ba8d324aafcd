"""Experts: implementations against each other leaf by leaf, capacity, balance and selection bias
against counts made by hand.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import step
from model.config import Execution, check
from model.lm import LM
from model.mlps import expert_rows, routing
from model.mlps.moe import MoE
from model.optimizers import AdamW
from tests.model import shapes
from tests.model.test_model import ROUTED, forward, make, tokens, variables, weights

moe = functools.partial(
    make,
    pattern=("attention/moe",),
    d_ff=24,
    n_experts=5,
    top_k=3,
    activation="swiglu",
    mlp_bias=True,
)


MOE = moe()


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_layout_places_every_assignment_once(assignments, n_experts, rows, seed):
    expert = np.random.default_rng(seed).integers(0, n_experts, assignments)
    with jax.disable_jit():
        blocks, source, slot = (
            np.asarray(v) for v in expert_rows.layout(jnp.asarray(expert), n_experts, rows)
        )
        block_expert = np.asarray(
            expert_rows.owners(
                jnp.asarray(blocks), expert_rows.blocks(assignments, n_experts, rows)
            )
        )
    assert blocks.sum() * rows <= source.size and (source[blocks.sum() * rows :] == -1).all()
    assert sorted(source[source >= 0]) == list(range(assignments))
    assert (source[slot] == np.arange(assignments)).all()
    assert (block_expert[slot // rows] == expert).all()


def test_capacity_equals_dropless_exactly_when_nothing_is_dropped():
    roomy = moe(capacity_factor=5 / 3)
    held, t = variables(MOE), tokens(MOE, 4)[:, :-1]
    for ex in (Execution(moe="all"), Execution()):
        assert np.array_equal(forward(roomy, ex, held, t), forward(MOE, ex, held, t))
    np.testing.assert_allclose(
        forward(roomy, Execution(moe="capacity"), held, t),
        forward(MOE, Execution(), held, t),
        rtol=2e-5,
        atol=2e-5,
    )
    stats = jax.jit(lambda v, t: LM(roomy).apply(v, t)[1])(held, t)
    assert float(stats["dropped"].max()) == 0


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 3), st.floats(0.3, 2.0), st.sampled_from([1, 2, 4]), st.integers(0, 10**6))
def test_what_is_dropped(top_k, factor, group, seed):
    """First choices stand before second ones, earlier tokens before later ones, in each routing
    group by itself: counted by hand.
    """
    c = MoE(4, top_k, capacity_factor=factor, routing_group=group)
    logits = np.random.default_rng(seed).normal(size=(4, 6, 4)).astype(np.float32) * 2
    with jax.disable_jit():
        r = routing.route(c, jnp.asarray(logits), None, dropless=False)
        free = routing.route(c, jnp.asarray(logits), None, dropless=True)
    expert, kept = np.asarray(r.expert_BTS), np.asarray(r.kept_BTS)
    room = min(6 * group, -(-int(6 * group * top_k * factor) // 4))
    for g in range(0, 4, group):
        taken = [0] * 4
        for choice in range(top_k):
            for b in range(g, g + group):
                for t in range(6):
                    e = expert[b, t, choice]
                    assert kept[b, t, choice] == (taken[e] < room)
                    taken[e] += 1
    np.testing.assert_array_equal(np.asarray(r.gate_BTS), np.where(kept, free.gate_BTS, 0))
    stats = routing.statistics(c, 4, jnp.asarray(logits), r)
    assert float(stats["dropped"]) == pytest.approx(1 - kept.mean(), abs=1e-6)


def test_drops_do_not_depend_on_the_batch_around_a_group():
    c = moe(capacity_factor=0.7)
    held, t = variables(c), tokens(c, 4)[:, :-1]
    ex = Execution(moe="capacity")
    np.testing.assert_allclose(
        forward(c, ex, held, t)[2:], forward(c, ex, held, t[2:]), rtol=1e-5, atol=1e-5
    )


def layer_stats(c, logits, expert):
    p = c.routed[0]
    r = routing.Routing(
        jnp.asarray(expert), jnp.ones(expert.shape) / p.top_k, None, jax.nn.softmax(logits)
    )
    return jax.tree.map(lambda a: a[None], routing.statistics(p, p.n_experts, logits, r))


def test_balance_loss_is_one_when_balanced():
    c = make(pattern=("attention/moe",), n_layers=1, n_experts=4, top_k=1)
    logits = jnp.zeros((1, 4, 4))

    def summary(expert):
        return routing.summary(c, routing.losses(c, layer_stats(c, logits, expert)))

    even = summary(np.arange(4).reshape(1, 4, 1))
    assert float(even["balance_loss"][0]) == pytest.approx(1) and float(even["expert_load"][0]) == 1
    assert float(summary(np.zeros((1, 4, 1), int))["expert_load"][0]) == 4
    assert float(even["router_entropy"][0]) == pytest.approx(math.log(4), rel=1e-5)


def test_balance_is_pooled_over_layers_where_asked():
    """Two layers, each all on one expert, but on different ones: unbalanced by layer, balanced over
    the model.
    """
    c = make(pattern=("attention/moe",), n_experts=2, top_k=1, z_weight=0.0, balance_weight=1.0)
    sure = [jnp.broadcast_to(jnp.array(x), (1, 4, 2)) for x in ([30.0, 0.0], [0.0, 30.0])]
    rows = [layer_stats(c, x, np.full((1, 4, 1), i)) for i, x in enumerate(sure)]
    stats = jax.tree.map(lambda *a: jnp.concatenate(a), *rows)
    assert float(routing.losses(c, stats)["auxiliary"]) == pytest.approx(4)
    assert float(
        routing.losses(shapes.replace(c, balance_scope="model"), stats)["auxiliary"]
    ) == pytest.approx(1)


def test_selection_bias_moves_without_gradient_towards_equal_load():
    """It changes the choice, not the gates; no gradient, no parameter; a step moves it by
    bias_rate; loads even out.
    """
    c = make(
        pattern=("attention/moe",),
        balance_weight=0.0,
        bias_rate=0.02,
        **ROUTED | {"expert_groups": 1},
    )
    check(c)
    logits, bias = jnp.array([[[2.0, 1.0, 0.0, -1.0]]]), jnp.array([-9.0, 0, 0, 0])
    p = c.routed[0]
    r = routing.route(p, logits, bias, dropless=True)
    assert set(np.asarray(r.expert_BTS).ravel()) == {1, 2}
    gates = jax.nn.sigmoid(logits[0, 0, 1:3])
    np.testing.assert_allclose(
        np.sort(r.gate_BTS[0, 0])[::-1], 2.5 * gates / gates.sum(), rtol=1e-5
    )
    assert not np.any(jax.grad(lambda b: routing.route(p, logits, b, True).gate_BTS.sum())(bias))
    lm, o = LM(c), AdamW()
    state = step.create(lm, o, variables(c)["params"])
    hyper = {"lr": 0.0, "embed_lr": 0.0, "head_lr": 0.0, "weight_decay": 0.0}
    one = jax.jit(lambda s: step.train_step(lm, o, s, tokens(c, 8), hyper))
    first, metrics = one(state)
    moved = np.concatenate([a.ravel() for a in jax.tree.leaves(first.buffers)])
    assert np.any(moved) and np.isin(np.abs(moved), np.float32([0, 0.02])).all()
    for _ in range(40):
        state, last = one(state)
    assert np.mean(last["expert_load"]) < 0.8 * np.mean(metrics["expert_load"])


def test_only_the_best_groups_are_chosen_from():
    c = MoE(8, 2, expert_groups=4, top_groups=1, router="sigmoid")
    logits = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    expert = np.asarray(routing.route(c, jnp.asarray(logits), None, True).expert_BTS)
    scores = 1 / (1 + np.exp(-logits.astype(float)))
    best = scores.reshape(2, 5, 4, 2).sum(-1).argmax(-1)
    assert (expert // 2 == best[..., None]).all()


@pytest.mark.parametrize(
    "change,words",
    [
        ({"router": "softmx"}, "softmax, sigmoid"),
        ({"expert_groups": 3}, "must divide"),
        ({"expert_groups": 5, "top_groups": 1}, "top_groups=1"),
        ({"balance_scope": "global"}, "layer, model"),
        ({"capacity_factor": -1.0}, "cannot be negative"),
        ({"routing_group": 0}, "at least 1"),
    ],
)
def test_bad_routers_say_what_to_do(change, words):
    with pytest.raises(ValueError, match=words):
        check(moe(**change))


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_one_expert_is_the_dense_mlp(factor):
    """A 1-expert top-1 MoE with auxiliary weights 0 computes the dense model's function and shared
    gradients.
    """
    dense = make(n_layers=1)
    sparse = make(
        n_layers=1,
        pattern=("attention/moe",),
        n_experts=1,
        top_k=1,
        balance_weight=0.0,
        z_weight=0.0,
        capacity_factor=factor,
    )
    w = weights(dense)
    m = weights(sparse)
    layer = w["group_0"]["layer_0"]
    m = {
        **w,
        "group_0": {
            "layer_0": {
                **layer,
                "mlp": {
                    "router": m["group_0"]["layer_0"]["mlp"]["router"],
                    **{k: layer["mlp"][k]["kernel"][None] for k in ("in", "out")},
                },
            }
        },
    }
    ex = Execution(moe="capacity" if factor else "block")

    def loss(c):
        return lambda w: (LM(c, ex).apply({"params": w}, tokens(c)[:, :-1])[0] ** 2).mean()

    (a, ga), (b, gb) = (
        jax.jit(jax.value_and_grad(loss(c)))(tree) for c, tree in ((dense, w), (sparse, m))
    )
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    np.testing.assert_allclose(
        gb["group_0"]["layer_0"]["mlp"]["in"][0],
        ga["group_0"]["layer_0"]["mlp"]["in"]["kernel"],
        atol=1e-5,
    )
    np.testing.assert_allclose(gb["embed"], ga["embed"], atol=1e-5)
