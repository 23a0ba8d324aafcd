"""Implementations of the experts against each other, leaf by leaf of the gradient."""

import jax
import numpy as np
import pytest

from model.config import Execution
from model.lm import LM
from model.mlps import dispatch
from tests.model.test_model import tokens, weights
from tests.model.test_moe import moe


@pytest.mark.parametrize(
    "skew,factor",
    [
        (3.0, 0.0),
        (0.0, 0.8),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in [(0.0, 0.0), (3.0, 0.8)]),
    ],
)
@pytest.mark.parametrize("name", [n for n in dispatch.IMPLEMENTATIONS if n != "all"])
def test_gradients_leaf_by_leaf(name, factor, skew):
    """Against all experts, masked; router included, also when most tokens choose one expert, and
    when a part is dropped.
    """
    if name == "capacity" and not factor:
        pytest.skip("a layout of fixed rows is for models that drop")
    c = moe(capacity_factor=factor)
    w = weights(c)
    w["group_0"]["layer_0"]["mlp"]["router"] = w["group_0"]["layer_0"]["mlp"][
        "router"
    ] + skew * np.eye(16, 5, dtype=np.float32)

    def gradient(ex):
        def loss(w):
            logits, stats = LM(c, ex).apply({"params": w}, tokens(c)[:, :-1])
            return (logits**2).mean() + stats["auxiliary"], stats

        return jax.jit(jax.grad(loss, has_aux=True))(w)

    rows = 12 if name == "loop" else 4  # blocks of every width: 12, 6, 2 and 1
    (want, stats), (got, _) = (
        gradient(Execution(moe="all")),
        gradient(Execution(moe=name, moe_rows=rows)),
    )
    assert (np.asarray(stats["dropped"]).max() > 0) == bool(factor)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got)):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a) + 1e-7, path
