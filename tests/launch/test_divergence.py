"""When a run has gone wrong: bad updates, and the watch over its losses."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from experiments.laws import sweep_analysis
from launch.runs import divergence, train
from model import step
from model.lm import LM, abstract
from model.optimizers import AdamW
from model.params import initial
from tests.launch.stopped_runs import RUN, WHERE, arrays
from tests.launch.test_launch import DENSE, lines


def test_a_bad_update_is_skipped_on_the_device():
    lm, tokens = LM(DENSE), np.zeros((2, DENSE.seq_len + 1), np.int32)
    params = jax.tree.map(np.array, initial(abstract(DENSE), 0))
    hyper = {"lr": 1e-2, "embed_lr": 1e-2, "head_lr": 1e-2, "weight_decay": 0.0}
    good = step.create(lm, AdamW(), params)
    after, metrics = jax.jit(step.train_step, static_argnums=(0, 1))(
        lm, AdamW(), good, tokens, hyper
    )
    assert metrics["skipped"] == 0 and not np.array_equal(
        after.params["head"]["kernel"], params["head"]["kernel"]
    )
    params["embed"][0, 0] = np.inf
    bad = step.create(lm, AdamW(), params)
    after, metrics = jax.jit(step.train_step, static_argnums=(0, 1))(
        lm, AdamW(), bad, tokens, hyper
    )
    assert metrics["skipped"] == 1
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(bad)):
        assert np.array_equal(a, b)


def test_non_finite_steps_end_a_run_as_diverged(tmp_path):
    run = dataclasses.replace(RUN, optimizer=AdamW(lr=1e30), max_bad_steps=3)
    r = train.train(run, WHERE, str(tmp_path / "r"))
    assert r["status"] == "diverged" and "3 updates in a row were skipped" in r["why"]
    assert r["skipped"] >= 3 and r["steps"] == r["updates"] + r["skipped"] < 12
    slow = dataclasses.replace(
        WHERE, steps_per_dispatch=9, checkpoint_every=0
    )  # more steps until it is seen
    again = train.train(run, slow, str(tmp_path / "slow"))
    assert again["steps"] > r["steps"] and again["diverged_at"] == r["diverged_at"] <= r["steps"]
    assert sum(m["skipped"] for m in lines(tmp_path / "r")) <= r["skipped"]
    a = arrays(tmp_path / "r")
    assert all(np.isfinite(v).all() for v in a.values())  # the last good state is what stands


@pytest.mark.parametrize(
    "name,losses,verdict",
    [
        ("falls", np.linspace(5, 2, 1000), None),
        ("noisy", 3 + 0.9 * np.sin(np.arange(1000)), None),
        ("one easy batch", np.where(np.arange(1000) == 300, 0.1, 3.0), None),
        ("a spike", np.where((np.arange(1000) > 500) & (np.arange(1000) < 540), 6.0, 3.0), None),
        ("stays up", np.where(np.arange(1000) > 500, 4.2, 3.0), "stood 1 nat above"),
        ("short", np.array([1.0, 5.0, 5.0, 5.0]), None),
    ],
)
def test_the_watch(name, losses, verdict):
    w = divergence.Watch(len(losses), 20)
    for i, x in enumerate(losses):
        if i == len(losses) // 2:  # a checkpoint in between changes nothing
            w = divergence.Watch(len(losses), 20, json.loads(json.dumps(w.state())))
        w.add(float(x), False)
    assert (w.verdict is None) if verdict is None else (verdict in w.verdict)


@pytest.mark.parametrize(
    "name,losses,validation,verdict",
    [
        ("short and healthy", [5.8, 5.7, 5.6], 5.6, None),
        ("short, rising slowly in its warm-up", [4.2, 4.3, 4.5], 4.6, None),
        ("not finite", [5.0, 4.0], math.nan, "not finite"),
        (
            "ends far above what it had been",
            [5.0] * 20 + [4.0] * 20 + [9.0] * 10,
            9.5,
            "1 nat above its minimum of 4.00",
        ),
        (
            "three steps, the last far above the first",
            [5.0, 4.0, 9.0],
            9.5,
            "nat above the loss 5.00 that the run began with",
        ),
        ("the one update blew up", [5.0], 300.0, "nat above the loss 5.00 that the run began with"),
        ("overfitted", [5.0, 3.0, 1.0, 0.1], 6.5, None),
        ("one hard batch at the end", [5.0, 4.0, 5.5], 4.0, None),
    ],
)
def test_the_end_of_a_run(name, losses, validation, verdict):
    w = divergence.Watch(len(losses), 20)
    for x in losses:
        w.add(x, False)
        w = divergence.Watch(len(losses), 20, json.loads(json.dumps(w.state())))
    why = divergence.at_the_end(w, len(losses), validation)
    assert (why is None) if verdict is None else (verdict in why)


@pytest.mark.parametrize("steps", [5, 20, 34, 77, 170, 1000])
def test_noise_of_small_batches_is_no_divergence(steps):
    """Batches of 64 tokens: single losses lie .7 nat around the mean. Healthy runs are never called
    diverged, and those that blow up for their last quarter are.
    """
    rng = np.random.default_rng(steps)
    for _ in range(200):
        fall = 5.5 - 2.5 * np.linspace(0, 1, steps) ** 0.3 + 0.7 * rng.standard_normal(steps)
        w = divergence.Watch(steps, 20)
        for x in fall:
            w.add(float(x), False)
        assert divergence.at_the_end(w, steps, 3.1 + 0.1 * rng.standard_normal()) is None
        w = divergence.Watch(steps, 20)
        for i, x in enumerate(fall):
            w.add(float(x) + 6.0 * (i >= 0.75 * steps), False)
        assert divergence.at_the_end(w, steps, 9.5) is not None


def test_every_update_skipped_is_a_divergence():
    w = divergence.Watch(2, 20)
    w.add(math.nan, True)
    w.add(math.nan, True)
    assert "every update was skipped" in divergence.at_the_end(w, 2, 5.0)


def test_a_verdict_outlives_a_checkpoint_and_says_its_step():
    w = divergence.Watch(100, 3)
    for _ in range(5):  # the dispatch under way goes on for a while
        w.add(math.nan, True)
    held = divergence.Watch(100, 3, json.loads(json.dumps(w.state())))
    assert held.verdict == w.verdict and held.at == w.at == 3 and held.skipped == 5


def test_the_watch_counts_bad_steps_in_a_row():
    w = divergence.Watch(100, 3)
    for skipped in (True, True, False, True, True):
        w.add(3.0, skipped)
    assert w.verdict is None and w.skipped == 4
    w.add(float("nan"), True)
    assert "3 updates in a row" in w.verdict


def test_skipped_and_diverged_runs_in_fits():
    from tests.laws.test_laws import simulated

    rows = simulated(0.001, 0)
    rows[0].update(status="diverged", why="the validation loss is not finite")
    rows[1].update(skipped=2)
    a = sweep_analysis.analyse(rows, resamples=20)
    assert (
        any("is not finite" in e["why"] for e in a["excluded"]) and a["n_points"] == len(rows) - 1
    )
    assert len(a["flagged"]) == 1 and "2 of" in a["flagged"][0]["why"]
