"""Runs on documents that are kept apart: by the command, stopped and gone on with, on a mesh; and
what is refused before anything compiles.
"""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from data import pipeline
from experiments import cli
from launch import config
from launch.config import ConfigError, Run, Where
from launch.devices import choice
from launch.devices import layout as layouts
from launch.runs import checks, record, train
from launch.runs import program as programs
from model import parts, step
from model.context import Separator
from model.lm import LM
from tests.launch.stopped_runs import Stop, differences, stop_at
from tests.launch.test_launch import lines


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents shorter than a window, of one letter each."""
    path = tmp_path_factory.mktemp("documents") / "short.jsonl"
    rng = np.random.default_rng(0)
    sizes = rng.integers(4, 12, 800)
    with open(path, "w") as f:
        for i, size in enumerate(sizes):
            f.write(json.dumps({"text": "abcdefgh"[i % 8] * int(size)}) + "\n")
    return str(path)


def argv(corpus, folder):
    sets = {
        "model.seq_len": 24,
        "model.d_model": 16,
        "model.n_layers": 2,
        "model.attention.n_heads": 2,
        "data.source": "jsonl",
        "data.path": corpus,
        "data.documents": "apart",
        "data.validation_windows": 16,
        "batch": 8,
        "horizon.steps": 24,
        "optimizer.lr": 0.02,
        "where.checkpoint_every": 8,
        "where.steps_per_dispatch": 4,
        "where.log_every": 4,
        "where.keep_final": "true",
    }
    return [
        "train",
        "--config=tiny_dense",
        f"--workdir={folder}",
        "--mesh=data=1",
        *(f"--set={k}={v}" for k, v in sets.items()),
    ]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """The folder of a run that the command trained."""
    folder = tmp_path_factory.mktemp("apart") / "whole"
    assert cli.main(argv(corpus, folder)) == 0
    return folder


def job(folder) -> tuple[Run, Where]:
    r = record.result(str(folder))
    return config.from_dict(Run, r["run"]), config.from_dict(Where, r["where"])


def test_the_command_trains_and_goes_on_where_it_was_stopped(corpus, whole, tmp_path):
    losses = [m["loss"] for m in lines(whole)]
    run, where = job(whole)
    assert run.data.documents == "apart" and losses[-1] < losses[0] - 1.0
    joined = dataclasses.replace(run, data=dataclasses.replace(run.data, documents="joined"))
    assert config.run_id(joined) != config.run_id(run)
    with pytest.raises(Stop):
        train.train(run, where, str(tmp_path / "cut"), stop_at(13))
    assert cli.main(argv(corpus, tmp_path / "cut")) == 0
    assert differences(tmp_path / "cut", whole) == []


def test_a_mesh_and_micro_batches_say_the_same(whole, tmp_path):
    run, where = job(whole)
    where = dataclasses.replace(
        where, mesh="data=2,fsdp=2,tensor=2", accumulate=2, scan=True, remat=True
    )
    got = train.train(run, where, str(tmp_path / "mesh"))
    want = record.result(str(whole))
    assert got["id"] == want["id"] and got["device"]["count"] == 8
    np.testing.assert_allclose(got["validation"]["loss"], want["validation"]["loss"], rtol=1e-3)
    np.testing.assert_allclose(
        [m["loss"] for m in lines(tmp_path / "mesh")],
        [m["loss"] for m in lines(whole)],
        rtol=1e-3,
    )


def test_a_separator_is_given_where_documents_are_apart_alone(whole):
    run, where = job(whole)
    joined = dataclasses.replace(run, data=dataclasses.replace(run.data, documents="joined"))
    dataset = pipeline.load(run.data, run.model.seq_len)
    assert programs.separator(run, where, dataset) == Separator(0, False)
    assert programs.separator(joined, where, dataset) is None
    run, joined = (checks.resolve(r, "cpu") for r in (run, joined))
    a, b = (programs.program(r, where, dataset) for r in (run, joined))
    assert a is not b and a.layout.lm.separator == Separator(0, False)
    assert b.layout.lm.separator is None and programs.program(run, where) is a
    state, t = layouts.initial(a.layout, 0), dataset.batch(0, 8)
    rng = np.random.default_rng(0)
    held = jax.tree.map(
        lambda x: x + 0.2 * rng.standard_normal(x.shape, np.float32), step.variables(state)
    )
    want = step.eval_step(LM(run.model, separator=Separator(0)), held, t)[0]
    np.testing.assert_allclose(a.evaluate(8)(held, t)[0], want, atol=1e-4)
    assert np.abs(b.evaluate(8)(held, t)[0] - want).max() > 0.01


def test_no_kernel_is_chosen_where_documents_are_apart(whole):
    run, where = job(whole)
    how = run.model, where, "bfloat16", "gpu", 1, 8 * 24
    assert choice.execution(*how).attention == "cudnn"
    apart = choice.execution(*how, apart=True)
    assert apart == dataclasses.replace(choice.execution(*how), attention="xla", apart=True)


def test_a_mixer_that_runs_on_is_refused_before_anything_compiles(whole, monkeypatch):
    run, where = job(whole)
    mixer = type(run.model.pattern[0].mixer)
    monkeypatch.setattr(mixer, "apart", False)
    words = "mixer attention does not stop at a document's end: choose from latent, rnn, .* or"
    with pytest.raises(ConfigError, match=words):
        checks.check(run, where)
    checks.check(
        dataclasses.replace(run, data=dataclasses.replace(run.data, documents="joined")), where
    )
    monkeypatch.undo()
    parts.check_apart(run.model)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"data.documents": "separate"}, "choose joined or apart"),
        ({"data.source": "synthetic"}, "no end and no documents"),
        (
            {"data.source": "npy", "data.tokenizer": "ids(vocab_size=9)", "data.path": "{ids}"},
            "names no id between documents",
        ),
        (
            {
                "data.source": "npy",
                "data.tokenizer": "ids(vocab_size=9,separator=7)",
                "data.path": "{ids}",
            },
            "the separator 7 stands nowhere",
        ),
    ],
)
def test_bad_input_is_one_line(corpus, change, words, tmp_path, capsys):
    np.save(tmp_path / "ids.npy", np.arange(4000) % 7)
    sets = [f"--set={k}={v.format(ids=tmp_path / 'ids.npy')}" for k, v in change.items()]
    status = cli.main([*argv(corpus, tmp_path / "new"), *sets])
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1 and words in err, err
    assert not os.path.exists(tmp_path / "new")
