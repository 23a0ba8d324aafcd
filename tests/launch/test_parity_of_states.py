"""Families whose layers have a state, with transformers as an outside witness: logits, and models
out again (extra `parity`). Greedy text: test_greedy_text.py.
"""

import jax
import numpy as np
import pytest

from launch.huggingface import folder
from model.lm import LM
from tests.launch.transformers_models import (
    HYBRIDS,
    STATES,
    build,
    logits,
    tokens,
    transformers,
    worst,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def made(name, tmp_path_factory):
    """(name, their logits, our model, our variables)."""
    path = str(tmp_path_factory.mktemp("hf") / name)
    theirs = build(name, path)
    return name, logits(theirs), *folder.load(path)


@pytest.fixture(scope="module", params=STATES)
def pair(request, tmp_path_factory):
    return made(request.param, tmp_path_factory)


def test_logits(pair):
    equal_logits(pair)


def equal_logits(pair):
    name, want, c, v = pair
    got = np.asarray(jax.jit(lambda v, t: LM(c).apply(v, t)[0])(v, tokens()))
    share = worst(got, want)
    print(f"parity {name}: {share:.3f} of the tolerance, difference {np.abs(got - want).max():.1e}")
    assert got.shape == want.shape and share < 1


def test_out_again(pair, tmp_path):
    equal_out_again(pair, tmp_path)


def equal_out_again(pair, tmp_path):
    """Written by us and read by transformers: the same logits."""
    name, want, c, v = pair
    assert folder.save(str(tmp_path / "out"), c, v) == (STATES | HYBRIDS)[name][0]
    again = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path / "out"), attn_implementation="eager"
    ).eval()
    assert worst(logits(again), want) < 0.2
