"""Drawing tokens, and text from a trained run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from launch.config import ConfigError, Horizon
from launch.runs import generate, train
from model import sample
from model.config import Execution
from model.sample import Sampling
from tests.launch.test_launch import ALONE, BASE
from tests.model import shapes
from tests.model.test_model import TINY, forward, make, variables

LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))


def drawn(how, n=400):
    return {int(sample.choose(LOGITS, jax.random.key(i), how)[0]) for i in range(n)}


@pytest.mark.parametrize(
    "how,allowed",
    [
        (Sampling(0.0), {0}),
        (Sampling(1.0), {0, 1, 2, 3}),
        (Sampling(1.0, 2), {0, 1}),
        (Sampling(1.0, 99), {0, 1, 2, 3}),
        (Sampling(1.0, 0, 0.5), {0}),
        (Sampling(1.0, 0, 0.51), {0, 1}),
        (Sampling(1.0, 0, 0.9), {0, 1, 2}),
        (Sampling(0.05), {0}),
    ],
)
def test_which_tokens_can_be_drawn(how, allowed):
    assert drawn(how) == allowed


def test_temperature_is_that_of_the_distribution():
    many = jnp.tile(LOGITS, (4000, 1))
    share = np.bincount(sample.choose(many, jax.random.key(0), Sampling(2.0)), minlength=4) / 4000
    want = np.sqrt([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(share, want / want.sum(), atol=0.03)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pattern": ("attention/moe",), "capacity_factor": 0.5},
        {"positions": "learned", "seq_len": 20},
    ],
    ids=str,
)
def test_greedy_text_is_the_argmax_of_full_passes(change):
    """Rows of unequal length; a model that drops assignments in training drops none here."""
    c = make(**change)
    held, count = variables(c), 6
    run = dataclasses.replace(BASE, model=c, dtype="float32")
    prompts = [np.array([3, 1, 4, 1, 5], np.int32), np.array([2, 7], np.int32)]
    out = generate.generate(run, held, prompts, count, Sampling(0.0)).tokens
    free = shapes.replace(c, capacity_factor=0.0)
    for prompt, row in zip(prompts, out):
        text = np.concatenate([prompt, row])
        logits = forward(free, Execution(), held, np.pad(text, (0, c.seq_len - len(text)))[None])[0]
        assert row.tolist() == logits[len(prompt) - 1 : len(text) - 1].argmax(-1).tolist()


def test_draws_follow_the_seed():
    run = dataclasses.replace(BASE, model=TINY, dtype="float32")
    held, prompt = variables(TINY), [np.array([1, 2], np.int32)]
    a, b, other = (
        generate.generate(run, held, prompt, 8, Sampling(1.0), seed).tokens.tolist()
        for seed in (0, 0, 1)
    )
    assert a == b != other


def test_learned_positions_end():
    c = make(positions="learned")
    run = dataclasses.replace(BASE, model=c, dtype="float32")
    with pytest.raises(ConfigError, match="beyond the 16 learned positions"):
        generate.generate(run, variables(c), [np.zeros(10, np.int32)], 7, Sampling())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("t")
    (path / "a.txt").write_text("abcabc" * 500)
    (path / "b.txt").write_text("bcabca" * 500)
    argv = [
        "train",
        "--config=tiny_dense",
        f"--workdir={path}/r",
        "--set=data.source=text",
        f"--set=data.path={path}/*.txt",
    ]
    argv += [
        "--set=horizon.steps=60",
        "--set=model.seq_len=24",
        "--set=data.validation_windows=4",
        "--set=where.mesh=data=1",
    ]
    assert cli.main([*argv, "--set=where.tensorboard=false"]) == 0
    return path / "r"


def test_sample_verb(trained, capsys):
    assert (
        cli.main(
            [
                "sample",
                f"--run={trained}",
                "--prompt=abcabc",
                "--prompt=bc",
                "--tokens=9",
                "--temperature=0",
                "--format=json",
            ]
        )
        == 0
    )
    r = json.loads(capsys.readouterr().out)
    assert [s["text"] for s in r["samples"]] == ["abcabcabc", "abcabcabc"] and r["step"] == 60
    assert r["prefill_tokens_per_s"] > 0 and r["decode_tokens_per_s"] > 0
    assert cli.main(["sample", f"--run={trained}", "--tokens=5"]) == 0
    assert "decode" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags,words",
    [
        ([], "--run is missing"),
        (["--run=/nowhere"], "holds no run"),
        (["--temperature=-1"], "cannot be negative"),
        (["--top_p=0"], "--top_p must lie"),
        (["--tokens=0"], "tokens"),
    ],
)
def test_sample_verb_on_bad_input(flags, words, trained, capsys):
    given = (
        flags
        if any(f.startswith("--run") for f in flags) or not flags
        else [f"--run={trained}", *flags]
    )
    assert cli.main(["sample", *given]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_run_without_weights_or_text_says_so(tmp_path, capsys):
    run = dataclasses.replace(BASE, horizon=Horizon(steps=2))
    train.train(run, ALONE, str(tmp_path / "r"))
    assert cli.main(["sample", f"--run={tmp_path}/r"]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    train.train(run, dataclasses.replace(ALONE, keep_final=True), str(tmp_path / "s"))
    assert cli.main(["sample", f"--run={tmp_path}/s"]) == 2
    assert "whose tokens are no text" in capsys.readouterr().err
