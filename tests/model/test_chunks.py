"""Attention and loss in chunks, and micro-batches, equal the whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import params, step
from model.config import Execution
from model.lm import LM
from model.optimizers import AdamW
from tests.model.test_model import (
    NAMES,
    SHAPES,
    make,
    tokens,
    variables,
    weights,
    window,
)

QUICK = [(True, {})]  # biases and shared experts too; scanned and gated twins are slow


def _chunked():
    """Of every shape in the slow lane, by default of what a chunk must get right: a window, grouped
    heads, caps.
    """
    for c, name in zip(SHAPES, NAMES):
        for dtype in ("float32", "bfloat16"):
            quick = dtype == "float32" and (window(c) or c.logit_cap or name == "sinks")
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
    state = step.create(LM(c), AdamW(), held["params"])._replace(buffers=held["buffers"])

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
        held = step.create(lm, AdamW(), weights(c, ex))
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
