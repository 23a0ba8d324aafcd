"""The families of released suites against transformers: logits, models out again, greedy text; five
AdamW steps in the slow lane (extra `parity`).
"""

import jax
import numpy as np
import pytest

from launch.huggingface import folder
from model import step
from model.lm import LM
from model.optimizers import AdamW
from tests.launch.released_models import RELEASED
from tests.launch.test_greedy_text import twelve_tokens
from tests.launch.test_parity import logits_agree, out_again
from tests.launch.transformers_models import build, tokens, torch
from tests.model import shapes

# a decoder each: those with a cache or positions of their own in the fast lane
GREEDY = ("gpt_oss", "gemma3_text", "deepseek_v2")
# out again under the name of a plainer family, which computes the same
PLAINER = {"phi3": "mistral", "falcon-in turn": "gpt_neox"}


@pytest.fixture(scope="module", params=RELEASED)
def pair(request, tmp_path_factory):
    """(name, their model, folder, our model, our variables)."""
    path = str(tmp_path_factory.mktemp("hf") / "model")
    theirs = build(request.param, path)
    return request.param, theirs, path, *folder.load(path)


def test_logits(pair):
    logits_agree(pair)


def test_out_again(pair, tmp_path):
    name, *_, c, _ = pair
    assert folder.family_of(c) == PLAINER.get(name, RELEASED[name][0])
    out_again(pair, tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in GREEDY else pytest.mark.slow) for n in RELEASED]
)
def test_greedy_text(name, tmp_path):
    twelve_tokens(name, tmp_path)


def _torch_losses(theirs, t, steps: int, recipe: dict) -> list[float]:
    optimizer = torch.optim.AdamW(theirs.parameters(), **recipe)
    theirs.train()
    t, losses = torch.tensor(t, dtype=torch.long), []
    for _ in range(steps):
        logits = theirs(t[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), t[:, 1:].flatten())
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_five_updates(name, tmp_path):
    """AdamW through our own training step gives the losses that torch gives."""
    theirs = build(name, str(tmp_path / "hf"))
    c, held = folder.load(str(tmp_path / "hf"))
    c = shapes.replace(c, balance_weight=0.0, z_weight=0.0, bias_rate=0.0)
    lr, decay = 2e-3, 0.1
    t = tokens(4, 25)
    want = _torch_losses(theirs, t, 6, dict(lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay))
    o = AdamW(b1=0.9, b2=0.95, eps=1e-8, clip=1e9, decay="all")
    lm, hyper = LM(c), {**dict.fromkeys(("lr", "embed_lr", "head_lr"), lr), "weight_decay": decay}
    state = step.create(lm, o, held["params"])._replace(buffers=held["buffers"])
    one, got = jax.jit(lambda s, t: step.train_step(lm, o, s, t, hyper)), []
    for _ in range(6):
        state, metrics = one(state, t)
        got.append(float(metrics["loss"]))
    np.testing.assert_allclose(got, want, rtol=1e-3)
    assert got[-1] < got[0] - 0.1
