"""Optimizers by name: from text, in records, on a mesh, and stopped and continued."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from launch import config, overrides
from launch.config import ConfigError, Job, Run
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from launch.runs import train
from model import leaves, parts
from model.config import Execution
from model.optimizers import OPTIMIZERS, AdamW, Lion, Muon
from tests.launch.stopped_runs import RUN, WHERE, Stop, differences, stop_at

OTHERS = [name for name in OPTIMIZERS if name != "adamw"]


@pytest.mark.parametrize(
    "texts,want",
    [
        (["optimizer=muon"], Muon()),
        (["optimizer=muon(momentum=.9,ns_steps=4)"], Muon(momentum=0.9, ns_steps=4)),
        # what all have stays, unless the text names it; what one alone has does not
        (["optimizer.lr=0.01", "optimizer.b1=0.5", "optimizer=lion"], Lion(lr=0.01)),
        (["optimizer.lr=0.01", "optimizer=lion(lr=1e-4)"], Lion(lr=1e-4)),
        (["optimizer=muon", "optimizer.ns_steps=3"], Muon(ns_steps=3)),
        (["optimizer=muon", "optimizer=adamw"], AdamW()),
        (["optimizer.head_lr=0.5"], AdamW(head_lr=0.5)),
    ],
)
def test_from_text(texts, want):
    assert overrides.set_fields(Job(), texts).run.optimizer == want


@pytest.mark.parametrize(
    "text,words",
    [
        ("optimizer=moun", "did you mean 'muon'"),
        ("optimizer=muon(momentm=1)", "did you mean momentum"),
        ("optimizer=muon(momentum=fast)", "cannot read it as float"),
        ("optimizer=muon,lion", "the end expected"),
        ("optimizer.momentum=.9", "AdamW has"),
    ],
)
def test_bad_text(text, words):
    with pytest.raises(ConfigError, match=words):
        overrides.set_fields(Job(), [text])


def test_a_rate_of_a_head_that_is_tied_is_refused():
    run = dataclasses.replace(RUN, optimizer=AdamW(head_lr=0.1))
    config.check(run)
    tied = dataclasses.replace(run.model, tied=True)
    with pytest.raises(ConfigError, match=r"model\.tied"):
        config.check(dataclasses.replace(run, model=tied))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_records_hold_an_optimizer(name):
    run = dataclasses.replace(RUN, optimizer=OPTIMIZERS[name](lr=0.02))
    for written in (config.brief(run), config.to_dict(run)):
        assert config.from_dict(Run, json.loads(json.dumps(written))) == run
        assert written["optimizer"].get("name", "adamw") == name
        assert written["optimizer"]["lr"] == 0.02  # where every reader of records looks
    assert (
        config.run_id(run) == config.run_id(dataclasses.replace(RUN, optimizer=AdamW(0.02)))
    ) == (name == "adamw")


def test_ids_and_records_of_adamw_are_what_they_were():
    run = Run(optimizer=AdamW(lr=0.01, embed_lr=0.02, weight_decay=0.1))
    assert config.run_id(Run()) == "6685f72fd1be" and config.run_id(run) == "f0e4ab6e521b"
    assert config.brief(run)["optimizer"] == {"lr": 0.01, "embed_lr": 0.02, "weight_decay": 0.1}
    # a record of before there was a choice
    old = {"lr": 0.01, "embed_lr": 0.0, "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.0}
    assert config.from_dict(Run, {"optimizer": old}).optimizer == AdamW(lr=0.01)
    with pytest.raises(ConfigError, match="written by another version"):
        config.from_dict(Run, {"optimizer": {"name": "sgd"}})


MOE = parts.model("attention/moe(n_experts=4,d_ff=64)", vocab_size=64, seq_len=16, d_model=32)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_of_a_sharded_state_are_those_of_one_device(name, scan):
    """The state is held in shards, as the parameters are, before and after two updates."""
    mesh = meshes.make(meshes.parse("fsdp=2,tensor=2,expert=2"))
    ex = Execution(moe_groups=4, scan=scan)
    l = layouts.lay(MOE, OPTIMIZERS[name](), ex, mesh)
    held = sum(
        a.dtype.itemsize * int(np.prod(s.shard_shape(a.shape)))
        for a, s in zip(jax.tree.leaves(l.state.opt), jax.tree.leaves(l.shardings.opt))
    )
    whole = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(l.state.opt))
    # a row or column of a matrix is sharded along one axis of the two
    assert held < whole * (0.45 if name == "adafactor" else 0.2)

    t, rng = (
        l.optimizer.transform(leaves.leaves(l.lm.m, l.lm.ex), "float32"),
        np.random.default_rng(0),
    )
    grads = [
        jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), l.state.params)
        for _ in range(2)
    ]

    def two(first, second, opt):
        _, opt = t.update(first, opt)
        return t.update(second, opt)

    start = t.init(grads[0])
    want = jax.jit(two)(*grads, start)
    sh = l.shardings
    sharded = jax.jit(
        two, in_shardings=(sh.params, sh.params, sh.opt), out_shardings=(sh.params, sh.opt)
    )
    got = sharded(*(meshes.put(g, sh.params) for g in grads), meshes.put(start, sh.opt))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, want)


@pytest.mark.parametrize("name", OTHERS)
def test_resume_is_exact(name, tmp_path):
    run = dataclasses.replace(RUN, optimizer=OPTIMIZERS[name](lr=1e-2))
    train.train(run, WHERE, str(tmp_path / "whole"))
    with pytest.raises(Stop):
        train.train(run, WHERE, str(tmp_path / "cut"), stop_at(9))
    r = train.train(run, WHERE, str(tmp_path / "cut"))
    assert differences(tmp_path / "cut", tmp_path / "whole") == []
    assert r["run"]["optimizer"]["name"] == name
