"""The gradient noise scale against micro-batches one by one, and against a noise that is known."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from model import noise_scale, step
from model.config import Execution
from model.lm import LM
from model.optimizers import AdamW
from tests.model.test_model import TINY, tokens, variables
from tests.model.test_moe import MOE


@pytest.mark.parametrize(
    "c,moe",
    [
        pytest.param(TINY, "block", id="dense"),
        pytest.param(MOE, "block", id="moe-block", marks=pytest.mark.slow),
        pytest.param(MOE, "loop", id="moe-loop", marks=pytest.mark.slow),
    ],
)
def test_a_step_reads_the_norms_of_its_micro_batches(c, moe):
    """No further pass: what the loop over them adds up is what each has. `loop` adds by itself."""
    o, batch = AdamW(), tokens(c, 4, 1)
    lm = LM(c, Execution(accumulate=2, noise=True, moe=moe))
    hyper = {"lr": 1e-2, "embed_lr": 2e-2, "head_lr": 1e-2, "weight_decay": 0.0}
    state = step.create(lm, o, variables(c)["params"])
    new, metrics = jax.jit(lambda s, t: step.train_step(lm, o, s, t, hyper))(state, batch)
    one = LM(c, Execution(moe=moe))
    grad = jax.jit(lambda t: step.gradients(one, state, t)[0])
    parts = [grad(batch[i::2]) for i in range(2)]  # every second routing group, of one sequence
    whole = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    small = np.mean([float(optax.tree.norm(g)) ** 2 for g in parts])
    big = float(optax.tree.norm(whole)) ** 2
    assert float(metrics["grad_norm"]) ** 2 == pytest.approx(big, rel=1e-4)
    assert float(metrics[noise_scale.SIGNAL]) == pytest.approx(2 * big - small, rel=1e-3, abs=1e-4)
    assert float(metrics[noise_scale.NOISE]) == pytest.approx(4 * (small - big), rel=1e-3)
    plain = LM(c, dataclasses.replace(lm.ex, noise=False))
    same, _ = jax.jit(lambda s, t: step.train_step(plain, o, s, t, hyper))(state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), same, new)


def test_a_known_noise_is_found():
    """Gradients of G plus noise of variance sigma^2 a sequence, in 50 dimensions."""
    rng, parts, batch, sigma = np.random.default_rng(0), 4, 16, 3.0
    g = rng.normal(size=50)
    found = []
    for _ in range(4000):
        micro = g + sigma / np.sqrt(batch / parts) * rng.normal(size=(parts, 50))
        whole, part = (micro.mean(0) ** 2).sum(), (micro**2).sum(1).mean()
        found.append(list(noise_scale.estimates(whole, part, parts, batch).values()))
    signal, noise = np.mean(found, 0)
    assert signal == pytest.approx((g**2).sum(), rel=0.02)
    assert noise == pytest.approx(50 * sigma**2, rel=0.02)
    assert noise_scale.tokens(signal, noise, 8) == noise / signal * 8
    assert noise_scale.tokens(-0.1, noise, 8) is None
