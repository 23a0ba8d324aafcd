"""Parametrisations: the standard one at the base to the bit, the table elsewhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import config, overrides
from launch.config import ConfigError, Job, Run
from launch.devices import members
from model import leaves, parametrisation, params, parts, step
from model.config import Execution
from model.lm import LM, abstract
from model.optimizers import OPTIMIZERS, AdamW, Muon
from model.registry import MIXERS, MLPS
from tests.model.test_model import make, tokens
from tests.model.test_optimizers import hyper

GATED = "moe(n_experts=4,top_k=2,n_shared=1,shared_gate=true,router_bias=true)"


def model(parametrisation="standard", pattern=f"attention/{GATED}", **more):
    shape = {"vocab_size": 32, "seq_len": 16, "d_model": 16, "n_layers": 2}
    m = parts.model(pattern, **{**shape, "parametrisation": parametrisation, **more})
    return parts.set_field(m, "attention.n_heads", "2")


BASE = {
    "mup": "mup(base_width=16,base_head=8)",
    "completep": "completep(base_width=16,base_head=8)",
}


def trained(m, optimizer, ex=Execution(), updates=2, rates=None):
    state = step.create(LM(m, ex), optimizer, params.initial(abstract(m, ex), 3))
    one = jax.jit(lambda s, t, h: step.train_step(LM(m, ex), optimizer, s, t, h)[0])
    buffers = jax.tree.map(jnp.zeros_like, state.buffers)
    state = state._replace(buffers=buffers)
    for i in range(updates):
        state = one(state, tokens(m, 4, i), rates or hyper())
    return state.params


def lanes(*fast):
    """Of the optimizers, these in the fast lane."""
    return [pytest.param(n, marks=() if n in fast else pytest.mark.slow) for n in OPTIMIZERS]


@pytest.mark.parametrize("optimizer", lanes("adamw"))
def test_at_the_base_it_is_the_standard_one_to_the_bit(optimizer):
    o = OPTIMIZERS[optimizer]()
    tied = {"tied": True, "positions": "learned"}
    for more in ({}, tied):
        want = trained(model(**more), o)
        for text in BASE.values():
            got = trained(model(text, **more), o)
            jax.tree.map(np.testing.assert_array_equal, got, want)


# what the papers' tables say at four times the width and three times the depth: std, rate, eps
WIDE = {
    "embed": (1, 1, 1 / 4),
    "positions": (1, 1, 1 / 4),
    "head/kernel": (1, 1, 1 / 4),
    "mixer/q/kernel": (1, 1 / 4, 1 / 4),
    "mixer/out/kernel": (1, 1 / 4, 1 / 4),
    "mlp/in": (1, 1 / 4, 1 / 4),
    "mlp/out": (1, 1 / 4, 1 / 4),
    "mlp/shared/out/kernel": (1, 1 / 4, 1 / 4),
    "mlp/router": (1 / 2, 1 / 4, 1),
    "mlp/shared_gate": (1 / 2, 1 / 4, 1),
    "norm_mixer/scale": (1, 1, 1 / 4),
    "norm_out/scale": (1, 1, 1 / 4),
}
DEEP = {"mixer/out/kernel", "mlp/out", "mlp/shared/out/kernel"}  # spreads as at the base depth


@pytest.mark.parametrize("name", BASE)
def test_factors_are_those_of_the_table(name):
    m = model(BASE[name], d_model=64, n_layers=6, positions="learned")
    found = {"/".join(leaf.path): leaf.factors for leaf in leaves.of(m)}
    for path, (std, rate, eps) in WIDE.items():
        inside = not path.startswith(("embed", "positions", "head", "norm_out"))
        full = f"groups/layer_0/{path}" if inside else path
        if name == "completep":
            std, eps = std * (3**0.5 if path in DEEP else 1), eps / (3 if inside else 1)
        got = found[full]
        np.testing.assert_allclose((got.std, got.rate, got.eps), (std, rate, eps))
    spectral = {k: found[f"groups/layer_0/mlp/{k}"].spectral for k in ("in", "router")}
    assert spectral == {"in": 1 / 2, "router": 1 / 4}
    flat = jax.tree_util.tree_leaves_with_path(abstract(m), is_leaf=params.is_parameter)
    plain = abstract(dataclasses.replace(m, parametrisation=parametrisation.Standard()))
    standard = jax.tree_util.tree_leaves(plain, is_leaf=params.is_parameter)
    for (path, box), other in zip(flat, standard, strict=True):
        names = "/".join(str(k.key) for k in path if hasattr(k, "key"))
        scanned = names.replace(names.split("/")[0], "groups", 1)
        factors = found.get(names) or found[scanned]
        np.testing.assert_allclose(box.std, other.std * factors.std)


def test_spreads_of_branches_are_those_of_the_base_depth():
    deep, base = (model(BASE["completep"], n_layers=n) for n in (6, 2))
    for path in ("mixer", "mlp"):
        spread = [abstract(m)["group_0"]["layer_0"][path]["out"] for m in (deep, base)]
        spread = [(box["kernel"] if path == "mixer" else box).std for box in spread]
        assert spread[0] == pytest.approx(spread[1])


def test_multipliers_are_fields_of_the_plain_model():
    m = model(BASE["completep"], d_model=64, n_layers=6)
    plain = m.parametrisation.plain(m)
    assert type(plain.parametrisation) is parametrisation.Standard
    assert plain.logit_scale == 1 / 4
    assert [layer.residual_scale for layer in plain.layers] == pytest.approx([1 / 3] * 6)
    # heads of 32 over 8: sqrt(8) / 32
    assert [x.mixer.scale for x in plain.layers] == pytest.approx([8**0.5 / 32] * 6)
    held = {"params": params.initial(abstract(m), 0), "buffers": {}}
    held["params"]["head"]["kernel"] += np.float32(0.1)  # logits start at 0
    t = tokens(m, 2)[:, :-1]
    for ex in (Execution(), Execution(loss_chunk=8)):
        got, want = (jax.jit(LM(x, ex).apply)(held, t)[0] for x in (m, plain))
        np.testing.assert_array_equal(got, want)


def test_updates_and_decay_follow_the_width():
    """AdamW's first update is the rate, whatever the gradient; what decays is the rate's product
    with weight_decay, at every width the same.
    """
    wide, rates = model(BASE["mup"], d_model=64), hyper(lr=1e-3, weight_decay=0.0)
    before = params.initial(abstract(wide), 3)
    # the head starts at zero, so only the second update moves what is below it
    first, second = (trained(wide, AdamW(eps=1e-30), updates=n, rates=rates) for n in (1, 2))

    def at(tree, *names):
        for n in names:
            tree = tree[n]
        return np.asarray(tree, np.float64)

    layer = ("group_0", "layer_0")
    largest = np.abs(at(first, "head", "kernel")).max()
    np.testing.assert_allclose(largest, 1e-3 / 2, rtol=1e-3)  # head_lr of `hyper` is half of lr
    for path, factor in (
        (("embed",), 2),
        ((*layer, "mixer", "q", "kernel"), 1 / 4),
        ((*layer, "mlp", "in"), 1 / 4),
        ((*layer, "mlp", "router"), 1 / 4),
        ((*layer, "norm_mlp", "scale"), 1),
    ):
        moved = np.abs(at(second, *path) - at(before, *path)).max()
        assert 0.6e-3 * factor < moved < 2.1e-3 * factor, path  # of one or two updates
    zeros = jax.tree.map(np.zeros_like, before)
    decayed = AdamW().applied(leaves.leaves(wide, Execution()), before, zeros, hyper(lr=1e-3))
    for path in ((*layer, "mixer", "q", "kernel"), (*layer, "mlp", "in")):
        gone = at(before, *path) - at(decayed, *path)
        np.testing.assert_allclose(gone, 1e-3 * 0.1 * at(before, *path), atol=1e-7)


def test_eps_is_added_as_the_table_says():
    m = model(BASE["mup"], d_model=64)
    tree, o = leaves.leaves(m, Execution()), AdamW(eps=1e-2, clip=1e9)
    grads = jax.tree.map(
        lambda b: np.full(b.shape, 3e-3, np.float32), params.initial(abstract(m), 0)
    )
    t = o.transform(tree)
    updates, _ = jax.jit(t.update)(grads, t.init(grads))

    def check(u, leaf):
        want = 3e-3 / (3e-3 + 1e-2 * leaf.factors.eps)
        np.testing.assert_allclose(u, want, rtol=1e-4)

    jax.tree.map(check, updates, tree)
    clipped = AdamW(eps=1e-2, clip=1e-3).transform(tree)
    got, _ = jax.jit(clipped.update)(grads, clipped.init(grads))
    share = 1e-3 / np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
    want = 3e-3 * share / (3e-3 * share + 1e-2 / 4)
    np.testing.assert_allclose(
        np.asarray(got["embed"]), want, rtol=1e-3
    )  # the norm is the gradient's


@pytest.mark.parametrize("name", lanes("adamw"))
def test_scanned_layers_and_stacked_experts_are_scaled_as_unrolled_ones(name):
    m = model(BASE["completep"], d_model=32, n_layers=4)
    by = {}
    for ex in (Execution(), Execution(scan=True)):
        for leaf in leaves.each(leaves.leaves(m, ex)):
            by.setdefault((*leaf.path[1:], ""), set()).add((leaf.kind, leaf.factors))
    assert all(len(found) == 1 for found in by.values()), by
    o = OPTIMIZERS[name]()
    got, want = (trained(m, o, Execution(scan=scan)) for scan in (True, False))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
        params.unrolled(got),
        want,
    )


def test_muon_takes_the_spectral_rate_of_its_matrices_alone():
    m = model(BASE["mup"], d_model=64)
    for leaf in leaves.of(m):
        want = leaf.factors.spectral if leaf.kind == "matrix" else leaf.factors.rate
        assert Muon().factor(leaf) == want and AdamW().factor(leaf) == leaf.factors.rate


COVERED = {"mixer": {"attention"}, "mlp": {"dense", "moe", "no_mlp"}}


@pytest.mark.parametrize("kind,table", [("mixer", MIXERS), ("mlp", MLPS)])
def test_parts_are_covered_or_refused_by_name(kind, table):
    for name in table:
        pattern = f"{name}/dense" if kind == "mixer" else f"attention/{name}"
        m = make(f"{pattern}; parametrisation=mup")
        if name in COVERED[kind]:
            parts.check_transfer(m)
            continue
        with pytest.raises(ValueError, match=f"parametrisation=mup: {kind} {name} is not covered"):
            parts.check_transfer(m)
        parts.check_transfer(make(pattern))


def run_of(m, **more):
    return Run(model=m, horizon=config.Horizon(steps=10), **more)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"embed_scale": True}, "embed_scale"),
        ({"parametrisation": "mup(base_width=0)"}, "base_width=0 must be at least 1"),
        ({"parametrisation": "completep(base_depth=-1)"}, "base_depth=-1"),
        ({"pattern": "attention/dense/layer(norm=post)"}, "norm=post"),
        ({"pattern": "rwkv7/dense"}, "mixer rwkv7 is not covered"),
    ],
)
def test_bad_models_are_refused_in_a_line(change, words):
    m = parts.model(**{"parametrisation": "completep", **change})
    with pytest.raises(ConfigError, match=words) as e:
        config.check(run_of(m))
    assert "\n" not in str(e.value)


def test_an_optimizer_without_a_rule_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS["lion"], "TRANSFERS", False)
    o = OPTIMIZERS["lion"]()
    config.check(run_of(parts.model(), optimizer=o))
    with pytest.raises(ConfigError, match="optimizer=lion: model.parametrisation"):
        config.check(run_of(parts.model(parametrisation="mup"), optimizer=o))


def test_ids_and_records_of_standard_runs_are_what_they_were():
    plain = run_of(parts.model())
    assert config.run_id(plain) == "d458ee31ca27"  # of the version before there was a choice
    assert "parametrisation" not in str(config.to_dict(plain))
    set_ = overrides.set_fields(Job(plain), ["parametrisation=mup(base_width=32)"]).run
    assert set_.model.parametrisation == parametrisation.Mup(32)
    assert config.run_id(set_) != config.run_id(plain)
    for run in (plain, set_):
        assert config.from_dict(Run, config.to_dict(run)) == run
    same = overrides.set_fields(Job(set_), ["parametrisation=standard"]).run
    assert config.run_id(same) == config.run_id(plain)
    one = overrides.set_fields(Job(set_), ["parametrisation.base_head=8"]).run
    assert one.model.parametrisation.base_head == 8


def test_members_of_a_pack_have_one_parametrisation():
    runs = [
        run_of(parts.model(parametrisation=p)) for p in ("standard", "mup", "mup(base_width=32)")
    ]
    assert len({members.alike(r, (r.model, r.batch)) for r in runs}) == 3
