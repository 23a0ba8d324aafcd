"""Contracts of every registered optimizer, and single matrices against outside witnesses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import account, leaves, params, step
from model.config import Execution
from model.lm import LM, abstract
from model.optimizers import OPTIMIZERS, Adafactor, Muon
from model.registry import MIXERS
from tests.model import walk
from tests.model.test_model import make, tokens, variables, weights

ROUTED = make(pattern=("attention/moe",), n_layers=1)
MIXED = make(pattern=("attention/moe", "attention/dense"), n_layers=4, positions="learned")
MODELS = {
    "mixed": MIXED,
    "tied": make(tied=True, norm="layernorm", mlp_bias=True),
    "gates": make(pattern=("lstm/dense",)),
    "conv": make(pattern=("gated_conv/dense",)),
    "first": make(pattern=("attention/moe",), first_layers=("attention/dense",), n_layers=3),
    "state": make(pattern=("s4d/dense", "rg_lru/dense")),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def hyper(steps=None, lr=1e-2, weight_decay=0.1):
    each = {"lr": lr, "embed_lr": 2 * lr, "head_lr": lr / 2, "weight_decay": weight_decay}
    return {k: np.float32(v) if steps is None else np.full(steps, v, np.float32)
            for k, v in each.items()}  # fmt: skip


def start(c, ex, o):
    held = variables(c, ex)
    return step.create(LM(c, ex), o, held["params"])._replace(buffers=held["buffers"])


@each_optimizer
@pytest.mark.parametrize("model", MODELS)
def test_state_bytes_are_those_of_the_tree(name, model):
    o, c = OPTIMIZERS[name](), MODELS[model]
    for ex in (Execution(), Execution(scan=True)):
        lm = LM(c, ex)
        p = jax.tree.map(lambda b: b.value, abstract(c, ex), is_leaf=params.is_parameter)
        opt = jax.eval_shape(lambda p, lm=lm: step.create(lm, o, p).opt, p)
        held = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(opt))
        assert (
            held
            == o.state_bytes(account.inventory(c))
            == account.memory(c, ex, 2, o)["optimizer_state"]
        )


@pytest.mark.parametrize(
    "name,model",
    [*((n, "mixed") for n in OPTIMIZERS), *(("muon", m) for m in MODELS if m != "mixed")],
)
def test_flops_of_the_update_equal_the_walk(name, model):
    o, c = OPTIMIZERS[name](), MODELS[model]
    for ex in (Execution(), Execution(scan=True)):
        t, state = step.transform(LM(c, ex), o), walk.state(c, ex)
        opt = jax.eval_shape(t.init, state.params)
        traced = jax.make_jaxpr(t.update)(state.params, opt).jaxpr
        assert walk.flops(traced) == o.update_flops(account.inventory(c))
    plain = account.executed_flops(c, Execution(), 2)
    assert account.executed_flops(c, Execution(), 2, o) - plain == o.update_flops(
        account.inventory(c)
    )
    assert (o.update_flops(account.inventory(c)) > 0) == (name == "muon")


@each_optimizer
def test_state_starts_at_zero_and_stays_in_float32(name):
    """Also where everything is multiplied in bfloat16, the Newton-Schulz iteration too."""
    o, ex, c = OPTIMIZERS[name](), Execution(dtype="bfloat16"), ROUTED
    state = start(c, ex, o)
    assert all((np.asarray(a) == 0).all() for a in jax.tree.leaves(state.opt))
    after, metrics = jax.jit(lambda s, t, h: step.train_step(LM(c, ex), o, s, t, h))(
        state, tokens(c, 2), hyper()
    )
    kinds = {a.dtype.name for a in jax.tree.leaves(after.opt)}
    assert kinds <= {"float32", "int32"} and np.isfinite(metrics["loss"])
    assert {a.dtype.name for a in jax.tree.leaves(after.params)} == {"float32"}


@each_optimizer
def test_loss_falls(name):
    o, c, n = OPTIMIZERS[name](), ROUTED, 40
    batch = np.tile(np.arange(c.seq_len + 1) * 7 % c.vocab_size, (n, 4, 1)).astype(np.int32)
    lr = 1e-2 * o.AGAINST_ADAMW
    loss = jax.jit(lambda s, t, h: step.train_steps(LM(c), o, s, t, h, n)[1]["loss"])(
        start(c, Execution(), o), batch, hyper(n, lr, 0.0)
    )
    assert np.isfinite(loss).all() and loss[-1] < 0.5 * loss[0]


@each_optimizer
def test_scanned_layers_are_updated_as_unrolled_ones(name):
    o, out = OPTIMIZERS[name](), []
    for scan in (False, True):
        ex = Execution(scan=scan)
        grads = [drawn(weights(MIXED), seed) for seed in range(2)]
        t = o.transform(leaves.leaves(MIXED, ex))
        state, update = None, jax.jit(t.update)
        for g in (params.scanned(g) if scan else g for g in grads):
            state = t.init(g) if state is None else state
            updates, state = update(g, state)
        out.append(params.unrolled(updates))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5), *out)


@each_optimizer
def test_a_bad_batch_leaves_the_state_as_it_was(name):
    o, c = OPTIMIZERS[name](), MODELS["tied"]
    state = start(c, Execution(), o)
    one = jax.jit(lambda s, t: step.train_step(LM(c), o, s, t, hyper()))
    state, _ = one(state, tokens(c, 2))
    bad = state._replace(params={**state.params, "embed": state.params["embed"] * np.nan})
    after, metrics = one(bad, tokens(c, 2))
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, after, bad)


def test_every_kind_has_its_rate():
    c = MIXED
    for name in ("adamw", "muon"):
        o = OPTIMIZERS[name]()
        state, ones = start(c, Execution(), o), jax.tree.map(jnp.ones_like, weights(c))
        tree = leaves.leaves(c, Execution())
        rates = {"lr": 1.0, "embed_lr": 2.0, "head_lr": 3.0, "weight_decay": 0.0}
        moved = o.applied(tree, state.params, ones, rates)
        by = jax.tree.map(lambda a, b: round(float((a - b).mean()), 3), state.params, moved)
        assert by["embed"] == by["positions"] == 2 and by["head"]["kernel"] == 3
        assert by["norm_out"]["scale"] == by["group_0"]["layer_0"]["mixer"]["q"]["kernel"] == 1


# what a leaf is


def test_leaves_of_every_mixer_are_matrices_or_vectors():
    """What tokens are multiplied by are matrices: their numbers are those that the part counts."""
    for mixer in MIXERS:
        c = make(pattern=(f"{mixer}/dense",), n_layers=1)
        own = [leaf for leaf in leaves.of(c) if "mixer" in leaf.path]
        counted = c.layers[0].mixer.multiplied(c)
        held = sum(leaf.size for leaf in own if leaf.kind == "matrix")
        if mixer not in ("hyena",):  # whose filter is made of positions, not of tokens
            assert held >= 0.85 * counted, (mixer, held, counted)
        for leaf in own:
            assert leaf.kind == "vector" or leaf.size == leaf.matrices * np.prod(leaf.sides), leaf


def test_kinds_and_sides():
    by = {"/".join(leaf.path): leaf for leaf in leaves.of(MIXED)}
    assert by["embed"].kind == "embed" and by["head/kernel"].kind == "head"
    q, out = (by[f"groups/layer_0/mixer/{n}/kernel"] for n in ("q", "out"))
    assert (q.sides, q.matrices, out.sides) == ((16, 16), 2, (16, 16))
    assert q.rows == (-3,) and out.rows == (-3, -2)
    experts, router = by["groups/layer_0/mlp/in"], by["groups/layer_0/mlp/router"]
    assert (experts.sides, experts.matrices) == ((16, 16), 2 * 4) and router.kind == "matrix"
    assert by["groups/layer_0/norm_mlp/scale"].kind == "vector"
    gates = {"/".join(leaf.path): leaf for leaf in leaves.of(MODELS["gates"])}
    assert gates["groups/layer_0/mixer/in/kernel"].matrices == 4 * 2
    assert gates["groups/layer_0/mixer/recurrent"].matrices == 4 * 2


# one matrix at a time

stacked = pytest.mark.parametrize(
    "model,scan", [("mixed", False), ("mixed", True), ("gates", True), ("conv", False)]
)


def alone(tree, leaf_tree):
    """Every matrix of a tree as a numpy array of inputs x outputs, in order."""
    out = []

    def one(a, leaf):
        n = len(leaf.shape)
        rows, cols = ([i % n for i in side] for side in (leaf.rows, leaf.cols))
        rest = [i for i in range(n) if i not in rows + cols]
        a = np.asarray(a, np.float64).transpose(rest + rows + cols)
        out.extend(a.reshape(-1, *leaf.sides))

    jax.tree.map(one, tree, leaf_tree)
    return out


def drawn(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), tree)


def by_kind(tree, leaf_tree, kinds):
    """The leaves of some kinds, as a list of a tree's."""
    kept = leaves.each(leaf_tree)
    return [a for a, leaf in zip(jax.tree.leaves(tree), kept) if leaf.kind in kinds], [
        leaf for leaf in kept if leaf.kind in kinds
    ]


@stacked
def test_muon_is_that_of_every_matrix_alone(model, scan):
    """The polynomial on the singular values of each matrix, in float64 by numpy: heads together,
    experts, gates and scanned layers apart.
    """
    c, ex = MODELS[model], Execution(scan=scan)
    o, tree = Muon(clip=1e9), leaves.leaves(c, ex)
    t = o.transform(tree)
    grads = [drawn(weights(c, ex), seed) for seed in range(2)]
    state, update = t.init(grads[0]), jax.jit(t.update)
    for g in grads:
        updates, state = update(g, state)
    got = alone(*by_kind(updates, tree, ("matrix",)))
    matrices = [alone(*by_kind(g, tree, ("matrix",))) for g in grads]
    assert len(got) == sum(leaf.matrices for leaf in leaves.of(c) if leaf.kind == "matrix")
    for u, first, second in zip(got, *matrices):
        momentum = second + o.momentum * (second + o.momentum * first)
        u_, s, v_ = np.linalg.svd(momentum / np.linalg.norm(momentum), full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
        want = 0.2 * max(u.shape) ** 0.5 * (u_ * s) @ v_
        np.testing.assert_allclose(u, want, atol=2e-4)


def test_muon_equals_that_of_torch():
    """torch.optim.Muon, which iterates in bfloat16, scaled as Liu et al. scale it."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    c = make(d_model=32, d_ff=64)
    o, tree = Muon(clip=1e9), leaves.leaves(c, Execution())
    t, w = o.transform(tree), drawn(weights(c), 9)
    update = jax.jit(t.update)
    state, rates = t.init(w), {"lr": 0.02, "embed_lr": 0.02, "head_lr": 0.02, "weight_decay": 0.1}
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in alone(*by_kind(w, tree, ("matrix",)))]
    reference = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(3):
        g = drawn(w, seed)
        for p, a in zip(theirs, alone(*by_kind(g, tree, ("matrix",)))):
            p.grad = torch.tensor(a)
        reference.step()
        updates, state = update(g, state)
        w = o.applied(tree, w, updates, rates)
    for a, p in zip(alone(*by_kind(w, tree, ("matrix",))), theirs):
        want = p.detach().numpy()
        assert np.abs(a - want).max() < 0.02 * 3 * 0.2 * max(want.shape) ** 0.5 * 0.05


@stacked
def test_adafactor_is_that_of_every_matrix_alone(model, scan):
    import optax

    c, ex = MODELS[model], Execution(scan=scan)
    o, tree = Adafactor(clip=1e9), leaves.leaves(c, ex)
    t = o.transform(tree)
    grads = [drawn(weights(c, ex), seed) for seed in range(3)]
    state, update = t.init(grads[0]), jax.jit(t.update)
    for g in grads:
        updates, state = update(g, state)
    kinds = ("matrix", "embed", "positions", "head")
    got = alone(*by_kind(updates, tree, kinds))
    matrices = [[a.astype(np.float32) for a in alone(*by_kind(g, tree, kinds))] for g in grads]
    reference = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=1), optax.clip_by_block_rms(1.0)
    )
    theirs = reference.init(matrices[0])
    step_of = jax.jit(reference.update)
    for g in matrices:
        want, theirs = step_of(g, theirs, g)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bad_fields_are_refused():
    for o, words in (
        (Muon(momentum=1.0), "momentum"),
        (Muon(ns_steps=0), "ns_steps"),
        (Adafactor(update_clip=0.0), "update_clip"),
        (OPTIMIZERS["lion"](b2=2.0), "b2"),
        (OPTIMIZERS["adamw"](head_lr=-1.0), "head_lr"),
        (OPTIMIZERS["adamw"](decay="al"), "decay"),
    ):
        with pytest.raises(ValueError, match=words):
            o.check()
