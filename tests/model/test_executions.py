"""The same function whatever the execution: scanned, recomputed, in either precision, by any
implementation of the experts.
"""

import jax
import numpy as np
import pytest

from model import params, step
from model.config import Execution
from model.lm import LM
from model.optimizers import AdamW
from tests.model.test_model import (
    make,
    rich_shapes,
    tokens,
    variables,
    weights,
)


@rich_shapes
def test_scan_and_remat_agree(c):
    """Loss, gradient norm and statistics of a training step: one compiled body for all layers,
    recomputed, against unrolled layers.
    """
    lm, o, t = LM(c), AdamW(), tokens(c, 2)
    hyper = {"lr": 1e-2, "embed_lr": 1e-2, "head_lr": 1e-2, "weight_decay": 0.1}
    want = None
    for ex in (Execution(), Execution(scan=True, remat=True)):
        held = variables(c, ex)
        lm = LM(c, ex)
        state = step.create(lm, o, held["params"])._replace(buffers=held["buffers"])
        after, got = jax.jit(lambda s, t: step.train_step(lm, o, s, t, hyper))(state, t)
        leaves = params.unrolled({**after.params}), params.unrolled({**after.buffers})
        want = want or (got, leaves)
        for name in want[0]:
            np.testing.assert_allclose(
                got[name], want[0][name], rtol=2e-4, atol=1e-6, err_msg=f"{name} {ex}"
            )
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(want[1][1]), jax.tree.leaves(leaves[1])
        ):
            np.testing.assert_allclose(b, a, atol=1e-6, err_msg=str(path))


def _losses(c, ex, batch=4):
    lm, o = LM(c, ex), AdamW()
    state = step.create(lm, o, weights(c, ex))
    hyper = {
        k: np.full(3, v, np.float32)
        for k, v in dict(lr=1e-2, embed_lr=1e-2, head_lr=1e-2, weight_decay=0.1).items()
    }
    many = np.stack([tokens(c, batch, s) for s in range(3)])
    return jax.jit(lambda s, t, h: step.train_steps(lm, o, s, t, h, 3))(state, many, hyper)[1]


@pytest.mark.parametrize(
    "ex",
    [
        pytest.param(Execution(moe_rows=8), marks=pytest.mark.slow),
        Execution(moe_groups=2),
        Execution(moe="loop", moe_rows=8, settle=True),
        # a wide block would hold more rows than there are
        pytest.param(Execution(moe="loop", moe_rows=512), marks=pytest.mark.slow),
        Execution(settle=True, remat=True, accumulate=2),
    ],
    ids=str,
)
def test_executions_agree(ex):
    c = make(n_layers=4, pattern=("attention/moe", "attention/dense"))
    want, got = _losses(c, Execution()), _losses(c, ex)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-4, err_msg=name)
