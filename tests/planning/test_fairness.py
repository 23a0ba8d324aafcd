"""A matched pair, and the limit in which a mixture of experts is a dense model."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from experiments import cli, recipes
from experiments.planning import grid, ladder
from experiments.planning.fairness import matched, of_plan, spent
from launch import config
from launch.config import ConfigError, Horizon
from model import account, params, step
from model.config import Execution
from model.lm import LM, abstract
from model.mlps import dispatch
from tests.model import shapes

make = shapes.maker(
    vocab_size=40,
    seq_len=12,
    d_model=16,
    n_layers=1,
    n_heads=2,
    d_ff=24,
    n_experts=1,
    top_k=1,
    balance_weight=0.0,
    z_weight=0.0,
    activation="swiglu",
)
ONE = make()
CASES = [(name, 0.0) for name in dispatch.IMPLEMENTATIONS if name != "capacity"] + [
    ("capacity", 1.0)
]


def expert(tree):
    """A dense tree with its MLPs' kernels as one expert, and any router."""
    out = {}
    for k, v in tree.items():
        if k == "mlp":
            out[k] = {name: w["kernel"][None] for name, w in v.items()}
            out[k]["router"] = (
                np.random.default_rng(0)
                .standard_normal((v["in"]["kernel"].shape[0], 1))
                .astype(np.float32)
            )
        else:
            out[k] = expert(v) if isinstance(v, dict) else v
    return out


def gradients(c, ex, held):
    tokens = np.random.default_rng(1).integers(0, c.vocab_size, (4, c.seq_len + 1), np.int32)
    grads, metrics, _ = jax.jit(
        lambda p: _flat(step.gradients(LM(c, ex), step.State(p, None, {}), tokens))
    )(held)
    return grads, float(metrics["loss"])


def _flat(answer):
    grads, (metrics, load) = answer
    return grads, metrics, load


@functools.cache
def dense():
    rng = np.random.default_rng(
        3
    )  # no leaf at zero, as the head is at first: nothing would reach the others

    def draw(a):
        return (a + 0.3 * rng.standard_normal(a.shape)).astype(np.float32)

    held = jax.tree.map(draw, params.initial(abstract(ONE, Execution()), 3))
    return held, *gradients(ONE, Execution(), held)


@pytest.mark.parametrize("name,factor", CASES)
def test_one_expert_is_the_dense_model(name, factor):
    """Through router and dispatch, auxiliary weights 0: the loss and every gradient leaf that both
    have; the router's is zero.
    """
    moe = make(pattern=("attention/moe",), capacity_factor=factor)
    held, want, loss = dense()
    got, other = gradients(moe, Execution(moe=name, moe_rows=4), expert(held))
    assert other == pytest.approx(loss, rel=1e-6)
    leaves = dict(jax.tree_util.tree_leaves_with_path(expert(want)))
    found = dict(jax.tree_util.tree_leaves_with_path(got))
    assert set(found) == set(leaves) and len(found) == len(jax.tree.leaves(held)) + 1
    for path, a in leaves.items():
        if "router" in str(path):
            assert np.abs(found[path]).max() < 1e-6
        else:
            assert 0 < np.linalg.norm(a) and np.linalg.norm(
                a - found[path]
            ) <= 2e-5 * np.linalg.norm(a), path


def pair(size=32, steps=500):
    base = dataclasses.replace(recipes.load("quickstart").run, horizon=Horizon(steps=steps))
    return ladder.at(base, size, "dense"), ladder.at(base, size, "moe")


def test_matched_by_active_parameters():
    dense, moe = pair()
    m = matched(dense, moe, lr_multipliers=(0.5, 1.0, 2.0))
    assert len(m.dense) == len(m.moe) == 3 and m.by == "active_params"
    for a, b in zip(m.dense, m.moe):
        assert (
            a.optimizer == b.optimizer
            and a.data == b.data
            and a.seed == b.seed
            and config.steps(a) == config.steps(b) == 500
        )
    assert [r.optimizer.lr / dense.optimizer.lr for r in m.dense] == [0.5, 1.0, 2.0]
    router = account.parameters(moe.model)["groups"]["router"]
    assert m.active_ratio == 1 + router / account.parameters(dense.model)["active"]


def test_matched_by_flops():
    m = matched(*pair(64, 3000), by="flops")
    assert config.steps(m.moe[0]) < config.steps(m.dense[0]) == 3000
    assert abs(spent(m.moe[0]) - spent(m.dense[0])) <= spent(m.moe[0]) / config.steps(
        m.moe[0]
    )  # to a step


def test_same_initial_values_where_shapes_agree():
    dense, moe = pair(16)
    trees = [params.initial(abstract(r.model, Execution()), r.seed) for r in (dense, moe)]
    a, b = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in trees)
    shared = [p for p in a if p in b and a[p].shape == b[p].shape]
    assert len(shared) == len([p for p in a if "'mlp'" not in str(p)])
    assert all(np.array_equal(a[p], b[p]) for p in shared)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"seed": 1}, "seed is 0 in the dense run and 1"),
        ({"batch": 4}, "batch"),
        ({"model": {"d_expert": 32}}, "is not the dense d_ff"),
        ({"model": {"positions": "learned"}}, "model.positions"),
        ({"model": {"pattern": "attention/dense"}}, "wants a dense run first"),
    ],
)
def test_what_is_not_matched_is_named(change, words):
    dense, moe = pair()
    model = shapes.replace(moe.model, **change.pop("model", {}))
    with pytest.raises(ConfigError, match=words):
        matched(dense, dataclasses.replace(moe, model=model, **change))


def test_a_sweep_can_match_by_flops():
    job = recipes.load("dense_vs_moe")
    job = dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, match="flops"))
    cells = {}
    for p in grid.make(job, "cpu").runs:
        cells.setdefault((p.size, p.budget, p.run.seed), {})[p.family] = p
    for c in cells.values():
        assert abs(c["moe"].flops / c["dense"].flops - 1) < 1 / config.steps(c["moe"].run)
        assert c["moe"].run.data == c["dense"].run.data and c["moe"].tokens < c["dense"].tokens


def test_matched_is_what_was_measured():
    """A shared expert comes on top of the active parameters, unless the others make room for it."""
    dense, moe = pair()

    def more(**k):
        return dataclasses.replace(moe, model=shapes.replace(moe.model, **k))

    with pytest.raises(ConfigError, match=r"active parameters are x1\.\d+ of the dense ones"):
        matched(dense, more(n_shared=1))
    room = more(n_shared=1, top_k=1, d_expert=2 * dense.model.d_model)
    router = account.parameters(room.model)["groups"]["router"]
    m = matched(dense, room)
    assert m.active_ratio == 1 + router / account.parameters(dense.model)["active"]
    dense, moe = pair(steps=3000)
    m, shared = matched(dense, moe, "flops"), matched(dense, more(n_shared=1), "flops")
    assert shared.active_ratio > m.active_ratio and abs(shared.flops_ratio - 1) < 1e-3


SHARED = "model.moe.n_shared=1"


@pytest.mark.parametrize(
    "settings,yes,no",
    [
        ([], ["matched by active_params", "x1.0108 to 1.0226"], ["NOT matched"]),
        (
            ["model.moe.n_shared=1"],
            ["NOT matched", "active parameters are x1."],
            ["are matched by"],
        ),
        (
            ["model.moe.n_shared=1", "sweep.match=flops"],
            ["matched by flops", "x1.1"],
            ["NOT matched"],
        ),
        (["sweep.families=dense"], [], ["matched"]),
    ],
)
def test_plan_and_sweep_say_what_is_equal(settings, yes, no, capsys):
    words = [w for s in settings for w in ("--set", s)]
    for argv in (["plan"], ["sweep", "--plan_only"]):
        assert cli.main([*argv, "--config=dense_vs_moe", *words]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert all(w in text for w in yes) and not any(w in text for w in no), text


def test_every_cell_of_a_plan_is_measured():
    """Steps are whole: by FLOPs each budget has a ratio of its own."""
    job = recipes.load("dense_vs_moe")
    s = dataclasses.replace(job.sweep, match="flops", budgets=(2e9, 1e11), sizes=(16,))
    rows = of_plan(grid.make(dataclasses.replace(job, sweep=s), "cpu").runs, "flops")
    assert len({r["flops_ratio"] for r in rows}) == 2 == len(rows)
    assert max(abs(r["flops_ratio"] - 1) for r in rows) > 1e-4
