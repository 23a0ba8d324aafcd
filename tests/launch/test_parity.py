"""Hugging Face's transformers as an outside witness: logits, greedy text, models out again
(extra `parity`).
"""

import os

import jax
import numpy as np
import pytest

from launch.config import Run
from launch.huggingface import folder
from launch.huggingface.families import FAMILIES
from launch.runs import generate
from model.lm import LM
from model.sample import Sampling
from tests.launch.released_models import RELEASED
from tests.launch.transformers_models import (
    CONFIGS,
    GOLDEN,
    HYBRIDS,
    STATES,
    build,
    golden,
    tokens,
    torch,
    transformers,
    worst,
)


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """(name, their model, folder, our model, our variables)."""
    path = str(tmp_path_factory.mktemp("hf") / request.param)
    theirs = build(request.param, path)
    return request.param, theirs, path, *folder.load(path)


def test_logits(pair):
    logits_agree(pair)


def logits_agree(pair):
    name, theirs, _, c, v = pair
    with torch.no_grad():
        want = theirs(torch.tensor(tokens(), dtype=torch.long)).logits.numpy()
    got = np.asarray(jax.jit(lambda v, t: LM(c).apply(v, t)[0])(v, tokens()))
    share = worst(got, want)
    print(f"parity {name}: {share:.3f} of the tolerance")
    assert got.shape == want.shape and share < 1


def test_every_family_has_a_witness():
    seen = {family for family, _ in (CONFIGS | STATES | HYBRIDS | RELEASED).values()}
    assert seen == set(FAMILIES)


def test_out_again(pair, tmp_path):
    """Written by us and read by transformers: the same logits."""
    out_again(pair, tmp_path)


def out_again(pair, tmp_path):
    _, theirs, _, c, v = pair
    assert folder.save(str(tmp_path / "out"), c, v) == folder.family_of(c)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path / "out"), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        a, b = (m(torch.tensor(tokens(), dtype=torch.long)).logits.numpy() for m in (theirs, again))
    assert worst(b, a) < 0.2


@golden
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "xglm"])
def test_known_logits_and_greedy_text(name):
    """Checkpoints with the logits that another program computed, and sixteen greedy tokens after a
    text.
    """
    c, held = folder.load(os.path.join(GOLDEN, name))
    expected = np.load(os.path.join(GOLDEN, name, "expected.npz"))
    forward = jax.jit(lambda t: LM(c).apply(held, t)[0])
    assert worst(np.asarray(forward(expected["tokens"])), expected["logits"]) < 1
    text, last = expected["greedy_tokens"], expected["greedy_logits"]
    count = last.shape[1]
    assert worst(np.asarray(forward(text[:, :-1]))[:, -count:], last) < 1
    run = Run(model=c, dtype="float32")
    ours = generate.generate(run, held, list(text[:, :-count]), count, Sampling(0.0)).tokens
    np.testing.assert_array_equal(ours, text[:, -count:])
