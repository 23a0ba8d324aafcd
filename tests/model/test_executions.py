"""The same function whatever the execution: scanned or not, in chunks, in micro-batches, in either
precision.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import optim, params, step
from model.config import Execution
from model.lm import LM
from tests.model.test_model import (
    NAMES,
    SHAPES,
    core_shapes,
    forward,
    make,
    rich_shapes,
    tokens,
    variables,
    weights,
    window,
)


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

    chunked = Execution(dtype, attention_chunk=6, loss_chunk=4)
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
