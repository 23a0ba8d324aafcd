"""Averages of the weights against their definitions, and what cannot be averaged."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import averages, step
from model.lm import LM
from model.optimizers import AdamW
from tests.model.test_model import TINY, tokens, weights


def moved(average, states):
    """The average after all of `states`, one row an update, in float64."""
    out = np.zeros_like(states[0])
    for i, p in enumerate(states):
        w = average.weight(i, len(states))
        out = (1 - w) * out + w * p
    return out


@given(st.integers(1, 60), st.floats(0, 0.999))
def test_ema_is_the_weighted_mean(steps, decay):
    """sum of decay^age x weights over sum of decay^age: no trace of the zeros it began with."""
    states = np.random.default_rng(steps).normal(size=(steps, 3))
    w = decay ** np.arange(steps)[::-1]
    want = (w[:, None] * states).sum(0) / w.sum()
    np.testing.assert_allclose(moved(averages.Ema(decay), states), want, atol=1e-9)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 20))
def test_lawa_is_the_mean_of_the_last_states(k, every, before):
    steps = (k - 1) * every + 1 + before
    states = np.random.default_rng(steps).normal(size=(steps, 3))
    want = states[::-1][: k * every : every][:k].mean(0)
    np.testing.assert_allclose(moved(averages.Lawa(k, every), states), want, atol=1e-9)


def test_a_step_moves_the_average_and_nothing_else():
    """Of an update that is skipped too: an average without its first weight would be too small."""
    c, o = TINY, AdamW()
    lm, hyper = LM(c), {"lr": 1e-2, "embed_lr": 2e-2, "head_lr": 1e-2, "weight_decay": 0.0}
    alone, beside = (step.create(lm, o, weights(c), average) for average in (False, True))
    f = jax.jit(lambda s, h: step.train_step(lm, o, s, tokens(c, 2, 1), h)[0])
    want = f(alone, hyper)
    for weight in (1.0, 0.25):
        found = f(beside, {**hyper, "average": np.float32(weight)})
        jax.tree.map(np.testing.assert_array_equal, want.params, found.params)
        jax.tree.map(np.testing.assert_array_equal, want.opt, found.opt)
        share = jax.tree.map(lambda a, w=weight: np.float32(w) * a, found.params)
        jax.tree.map(np.testing.assert_array_equal, share, found.average)
    bad = beside._replace(params=jax.tree.map(lambda a: a * np.nan, beside.params))
    skipped = f(bad, {**hyper, "average": np.float32(1.0)})
    jax.tree.map(np.testing.assert_array_equal, skipped.average, bad.params)


@pytest.mark.parametrize(
    "text,words",
    [
        ("emma(0.9)", "did you mean 'ema'"),
        ("ema(1)", "must lie in"),
        ("ema(0.9,3)", "write ema"),
        ("ema(0.9", "write ema"),
        ("lawa(decay=3)", "write ema"),
        ("lawa(0,3)", "at least 1"),
        ("lawa(5,100)", "more than the 49 before the last one"),
    ],
)
def test_an_average_that_cannot_be(text, words):
    with pytest.raises(ValueError, match=words):
        averages.check(text, 50)


def test_a_trunk_knows_no_length():
    averages.check("lawa(5,2)", 50, 40)
    with pytest.raises(ValueError, match="of the cooldown"):
        averages.check("lawa(6,2)", 50, 40)
    averages.check("ema(0.9)", 50, 40)
