"""What is executed and kept where documents are kept apart: against the walk, and the compiler."""

import dataclasses
import functools

import jax
import pytest

from model import account, registry, step
from model.config import Execution
from tests.model import shapes, walk
from tests.model.test_counts import SHAPES, model
from tests.model.test_executed_counts import walk_over

APART = Execution(apart=True)
MIXERS = [
    name
    for name, cls in registry.MIXERS.items()
    if getattr(cls, "apart", False) and f"{name}/dense" in SHAPES
]
OTHERS = {
    "chunks": dict(attention_chunk=4, chunk=4),
    "remat": dict(remat=True),
    "turns": dict(chunk=4, turn=4),
    "chunks-remat": dict(attention_chunk=4, chunk=4, remat=True),
}
QUICK = {("sparse", "chunks"), ("s4d", "remat"), ("mamba2", "turns"), ("rwkv7", "turns")}
QUICK |= {("retnet", "turns"), ("gated_delta", "turns"), ("mamba", "turns"), ("gla", "turns")}


@pytest.mark.parametrize("name", MIXERS)
def test_executed_flops_equal_the_walk(name):
    walk_over(model(f"{name}/dense"), APART)


@pytest.mark.parametrize(
    "name,how",
    [
        pytest.param(name, how, marks=() if (name, how) in QUICK else pytest.mark.slow)
        for name in MIXERS
        for how in OTHERS
    ],
)
def test_executed_flops_of_other_executions(name, how):
    walk_over(model(f"{name}/dense"), dataclasses.replace(APART, **OTHERS[how]))


PROGRAMS = {
    "sparse": (
        shapes.maker()(
            vocab_size=500,
            seq_len=320,
            d_model=96,
            n_layers=3,
            d_ff=192,
            layers="sparse(n_heads=3,block=16,local=48,n_global=16)/dense",
        ),
        dataclasses.replace(APART, attention_chunk=64),
    ),
    "s4d": (
        shapes.maker()(
            vocab_size=500,
            seq_len=320,
            d_model=96,
            n_layers=3,
            d_ff=192,
            layers="s4d(d_state=32)/dense",
        ),
        APART,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_activations_are_within_a_quarter_of_the_compilers(name):
    (c, ex), batch = PROGRAMS[name], 6
    f = (
        jax.jit(functools.partial(step.gradients, walk.lm(c, ex)))
        .lower(walk.state(c, ex), walk.batch(c, batch, 1))
        .compile()
    )
    found = f.memory_analysis().temp_size_in_bytes
    assert account.activations(c, ex, batch) / found == pytest.approx(1, abs=0.25)
