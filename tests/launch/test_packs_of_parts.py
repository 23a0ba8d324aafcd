"""Every part maps: two members of a pack are the runs that each would be alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from launch.config import Where
from launch.devices import choice, packs
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from model.mlps.dispatch import IMPLEMENTATIONS
from model.optimizers import AdamW
from model.optimizers.base import HYPER
from tests.model.test_model import NAMES, SHAPES
from tests.model.test_moe import moe as make_moe

STEPS, BATCH = 3, 4


def compared(c, **how) -> float:
    """The largest relative difference of the losses of three updates."""
    mesh = meshes.make(meshes.parse("data=1"))
    ex = dataclasses.replace(_execution(c), **how)
    l = layouts.lay(c, AdamW(), ex, mesh)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, c.vocab_size, (2, STEPS, BATCH, c.seq_len + 1), np.int32)
    hyper = {k: np.full((2, STEPS), 1e-3, np.float32) for k in HYPER}
    hyper["lr"][1] = 5e-4
    alone = choice.compiled(layouts.lower_train(l, BATCH, STEPS), "cpu")
    together = choice.compiled(packs.lower_train(l, BATCH, STEPS, 2), "cpu")
    count, live = np.int32(STEPS), {"live": np.ones((2, STEPS), bool)}
    with jax.set_mesh(mesh):
        states = packs.empty(l, 2)
        for k in range(2):
            states = packs.put(l)(states, layouts.initial(l, k), np.int32(k))
        _, mine = together(states, tokens, hyper | live, count)
        worst = 0.0
        for k in range(2):
            own = jax.tree.map(functools.partial(np.take, indices=k, axis=0), hyper)
            _, single = alone(layouts.initial(l, k), tokens[k], own, count)
            a, b = (np.asarray(x, np.float64) for x in (mine["loss"][k], single["loss"]))
            worst = max(worst, float(np.abs(a / b - 1).max()))
    return worst


def _execution(c):
    return choice.execution(c, Where(), "float32", "cpu", 1, BATCH * c.seq_len)


@pytest.mark.slow
@pytest.mark.parametrize("c", SHAPES, ids=NAMES)
def test_every_shape_maps(c):
    assert compared(c) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_of_experts_maps(name):
    assert compared(make_moe(capacity_factor=1.25), moe=name) < 2e-6


def test_places_that_no_run_holds_stay_as_they_are():
    c = SHAPES[0]
    mesh = meshes.make(meshes.parse("data=1"))
    l = layouts.lay(c, AdamW(), _execution(c), mesh)
    program = choice.compiled(packs.lower_step(l, BATCH, 2), "cpu")
    tokens = np.zeros((2, BATCH, c.seq_len + 1), np.int32)
    hyper = {k: np.full(2, 1e-3, np.float32) for k in HYPER}
    with jax.set_mesh(mesh):
        states = packs.put(l)(packs.empty(l, 2), layouts.initial(l, 0), np.int32(0))
        before = jax.tree.map(np.asarray, states)
        after, _ = program(states, tokens, hyper | {"live": np.array([True, False])})
    moved = jax.tree.map(lambda a, b: (a != np.asarray(b)).any((*range(1, a.ndim),)), before, after)
    flat = np.stack(jax.tree.leaves(moved.params))
    assert flat[:, 0].any() and not flat[:, 1].any()
