"""Thirty updates of every shape: the loss falls."""

import math

import jax
import numpy as np

from model import params, step
from model.lm import LM, abstract
from model.optimizers import AdamW
from tests.model.test_model import falling_shapes


@falling_shapes
def test_loss_falls(c):
    falls(c)


def falls(c):
    lm, o = LM(c), AdamW(lr=1e-2)
    state = step.create(lm, o, params.initial(abstract(c), 0))
    batch = np.tile(np.arange(c.seq_len + 1) * 7 % c.vocab_size, (8, 1)).astype(np.int32)
    hyper = {
        "lr": np.full(30, 1e-2, np.float32),
        "embed_lr": np.full(30, 1e-2, np.float32),
        "head_lr": np.full(30, 1e-2, np.float32),
        "weight_decay": np.zeros(30, np.float32),
    }
    loss = np.asarray(
        jax.jit(lambda s, t, h: step.train_steps(lm, o, s, t, h, 30))(
            state, np.stack([batch] * 30), hyper
        )[1]["loss"]
    )
    assert abs(loss[0] - math.log(c.vocab_size)) < (1e-3 if not c.tied else 0.05)
    assert np.isfinite(loss).all()
    assert loss[-1] < 0.5 * loss[0]
