"""The optimizer and its schedules, against optax and against counts by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import optim, step
from model.config import Execution
from model.leaves import leaves as leaves_of
from model.lm import LM
from model.optimizers import AdamW
from tests.model.test_model import (
    TINY,
    tokens,
    weights,
)


def test_only_count_steps_are_taken():
    c, o = TINY, AdamW()
    lm = LM(c)
    f = jax.jit(lambda s, t, h, n: step.train_steps(lm, o, s, t, h, n))
    many = np.stack([tokens(c, 2, s) for s in range(4)])
    hyper = {
        k: np.full(4, v, np.float32)
        for k, v in dict(lr=1e-2, embed_lr=2e-2, head_lr=2e-2, weight_decay=0.0).items()
    }
    whole, _ = f(step.create(lm, o, weights(c)), many, hyper, 4)
    half, metrics = f(step.create(lm, o, weights(c)), many, hyper, 2)
    assert (np.asarray(metrics["loss"])[2:] == 0).all() and (
        np.asarray(metrics["loss"])[:2] > 0
    ).all()
    rest, _ = f(half, np.roll(many, -2, 0), hyper, 2)
    jax.tree.map(np.testing.assert_array_equal, whole, rest)


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


WSD = optim.Schedule(decay="wsd", warmup_tokens=400, cooldown=0.2)


@pytest.mark.parametrize("shape", optim.COOLDOWNS)
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_wsd_by_hand(shape, final):
    """4 updates of 100 tokens up, the peak, and a fifth of 50 updates down."""
    s = dataclasses.replace(WSD, cooldown_shape=shape, final=final)
    f = [optim.factor(s, i, 50, 100) for i in range(50)]
    assert f[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and f[4:40] == [1.0] * 36
    way = {"sqrt": 0.3**0.5, "linear": 0.3, "cosine": (1 - np.cos(0.3 * np.pi)) / 2}[shape]
    assert f[40] == 1.0 and f[43] == pytest.approx(1 - (1 - final) * way)
    assert optim.factor(s, 50, 50, 100) == pytest.approx(final) and f[49] > final


@given(st.integers(50, 400), st.integers(1, 300), st.integers(0, 9))
def test_wsd_runs_of_any_length_begin_alike(steps, more, warm):
    """Up to the cooldown of the shorter one the rates are equal to the bit."""
    s = dataclasses.replace(WSD, warmup=0.0, warmup_tokens=0, warmup_steps=warm)
    fork = steps - optim.cooldown_of(s, steps)
    assert fork <= steps + more - optim.cooldown_of(s, steps + more)
    for i in range(fork):
        assert optim.factor(s, i, steps) == optim.factor(s, i, steps + more)
    assert optim.factor(s, fork + 1, steps) < 1.0 or steps == fork + 1


def test_a_warm_up_in_tokens_is_that_of_any_schedule():
    s = optim.Schedule("cosine", warmup_tokens=400)
    f = [optim.factor(s, i, 50, 100) for i in range(50)]
    assert f[:4] == [0.25, 0.5, 0.75, 1.0] and f[4] == 1.0 > f[5]


@pytest.mark.parametrize(
    "change,words",
    [
        ({"warmup_tokens": 0}, "set schedule.warmup_tokens"),  # the share of the default is left
        ({"warmup_steps": 3}, "not both"),
        ({"cooldown": 0.0}, "above 0 and below 1"),
        ({"cooldown_shape": "sqr"}, "did you mean 'sqrt'"),
        ({"decay": "wds"}, "did you mean 'wsd'"),
    ],
)
def test_a_schedule_that_cannot_be(change, words):
    optim.check(WSD)
    with pytest.raises(ValueError, match=words):
        optim.check(dataclasses.replace(WSD, **change))


def test_adamw_equals_optax():
    import optax

    c, o = TINY, AdamW(b1=0.8, b2=0.9, clip=0.5)
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
    leaves = leaves_of(c, Execution())
    t = o.transform(leaves)
    hyper = {"lr": 0.01, "embed_lr": 0.01, "head_lr": 0.01, "weight_decay": 0.1}
    got = o.applied(leaves, w, t.update(g, t.init(w))[0], hyper)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), want, got)
