"""Greedy text of families whose layers have a state: ours from the state that is kept, that of
transformers from the whole text each time (extra `parity`).
"""

import numpy as np
import pytest

from launch.config import Run
from launch.huggingface import folder
from launch.runs import generate
from model.sample import Sampling
from tests.launch.transformers_models import STATES, build, tokens, torch

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def lanes(names):
    """What differs from another in numbers alone, and hybrids whose mixers are those of others, in
    the slow one.
    """
    slow = [n for n in names if "-" in n or n in ("bamba", "jamba")]
    return [pytest.param(n, marks=pytest.mark.slow if n in slow else ()) for n in names]


@pytest.mark.parametrize("name", lanes(STATES))
def test_twelve_tokens(name, tmp_path):
    twelve_tokens(name, tmp_path)


def twelve_tokens(name, tmp_path):
    theirs = build(name, str(tmp_path))
    text = torch.tensor(tokens(length=9), dtype=torch.long)
    with torch.no_grad():
        for _ in range(12):
            text = torch.cat([text, theirs(text, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    c, v = folder.load(str(tmp_path))
    run = Run(model=c, dtype="float32")
    ours = generate.generate(run, v, list(tokens(length=9)), 12, Sampling(0.0)).tokens
    np.testing.assert_array_equal(ours, text[:, 9:].numpy())
