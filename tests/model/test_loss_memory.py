"""What the loss and an evaluation keep, against the compiler."""

import functools
import math
import re

import jax
import numpy as np
import pytest

from experiments.planning import step_time
from launch.config import Run, Where
from launch.devices import choice, layout, mesh
from model import account, lm, loss, records_version1, step
from model.config import Execution
from model.optimizers import AdamW
from tests.model import walk
from tests.model.test_memory import dense, make_moe


@pytest.mark.parametrize("tied", [False, True])
def test_no_logits_of_full_size(tied):
    """32,768 ids and 8,192 tokens a step, as the platform's table has it: no array of so many
    numbers in the compiled step, nor in the evaluation; all temporaries together are smaller than
    the logits.
    """
    c = records_version1.model(
        vocab_size=32_768,
        seq_len=256,
        d_model=32,
        n_layers=1,
        n_heads=2,
        d_ff=64,
        tied=tied,
        logit_cap=30.0,
    )
    ex = choice.execution(c, Where(), "float32", "cpu", 1, 8192)
    l = layout.lay(c, AdamW(), ex, mesh.make({a: 1 for a in mesh.AXES}))
    for program in (layout.lower_step(l, 32).compile(), layout.lower_evaluate(l, 32).compile()):
        sizes = [
            math.prod(map(int, s.split(",")))
            for s in re.findall(r"(?:f32|bf16|pred|s32)\[([0-9,]+)\]", program.as_text())
        ]
        assert 0 < max(sizes) < 8192 * 32_768 / 8
        assert program.memory_analysis().temp_size_in_bytes < 4 * 8192 * 32_768 / 2
    whole = jax.jit(functools.partial(step.gradients, lm.LM(c, Execution()))).lower(
        walk.state(c, Execution()), walk.batch(c, 32, 1)
    )
    assert "8192x32768" in whole.as_text() or "32x256x32768" in whole.as_text()


@pytest.mark.parametrize("length", [509, 1021, 512, 768, 1000, 2 * 509])
def test_chunks_of_the_loss_are_wide_whatever_the_length(length):
    c = records_version1.model(
        vocab_size=8192, seq_len=length, d_model=32, n_layers=1, n_heads=2, d_ff=64
    )
    ex = choice.execution(c, Where(), "float32", "cpu", 1, 8 * length)
    most = 1024 * ex.accumulate // 8  # 2**23 logits a chunk are 1,024 tokens
    assert most / 2 <= ex.loss_chunk <= most
    assert -length % ex.loss_chunk < length / ex.loss_chunk + 1  # a position a chunk is filled up


@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_a_chunk_that_is_filled_up_counts_for_nothing(cap):
    """Loss, losses and gradients of 13 positions in chunks of 5 are those of all at once."""
    random = np.random.default_rng(0)
    x, w = random.normal(size=(4, 13, 8)), random.normal(size=(30, 8))
    targets = random.integers(0, 30, (4, 13))
    x, w = x.astype(np.float32), w.astype(np.float32)

    def of(ex):
        def mean(x, w):
            return loss.mean(x, w, targets, cap, ex)

        value, gradients = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))(x, w)
        return value, *gradients, jax.jit(loss.each, static_argnums=(3, 4))(x, w, targets, cap, ex)

    for a, b in zip(of(Execution(loss_chunk=5, loss_groups=2)), of(Execution())):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


EVALUATED = {
    "long context, wide vocabulary, one sequence": (
        records_version1.model(
            vocab_size=8192, seq_len=1024, d_model=32, n_layers=2, n_heads=2, d_ff=64
        ),
        1,
    ),
    "small": (dense(n_layers=2), 8),
    "moe": (make_moe(n_layers=2, routing_group=2), 4),
}


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluation_fits_beside_the_state(name):
    """It takes no more than the step that it follows, and no more than is counted by much."""
    c, batch = EVALUATED[name]
    ex = choice.execution(c, Where(), "float32", "cpu", 1, batch * c.seq_len)
    rows = choice.evaluated(c, ex, "cpu", 1, batch)
    how = choice.evaluation(c, ex, "cpu", rows)
    l = layout.lay(c, AdamW(), ex, mesh.make({"data": 1} | {a: 1 for a in mesh.AXES}))

    def compiled(lowered):
        return lowered.compile().memory_analysis().temp_size_in_bytes

    taken = compiled(layout.lower_evaluate(l, rows, how))
    assert taken <= compiled(layout.lower_step(l, batch))
    assert 0.5 < account.evaluation(c, how, rows) / taken < 3
    counted = account.memory(c, ex, batch)
    assert step_time.bytes_held(Run(model=c, batch=batch), Where(), "cpu") >= sum(
        counted[k] for k in ("parameters", "optimizer_state", "gradients", "activations")
    )
    assert account.evaluation(c, how, rows) <= counted["activations"]
