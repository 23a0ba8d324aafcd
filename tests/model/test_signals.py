"""Every parameter learns from the cross-entropy: in all arms of all recipes, in all families of
Hugging Face. A setting that takes the signal from a part shows here.
"""

import jax
import numpy as np
import pytest

from experiments.planning import ladder
from experiments.planning.arms import ARMS
from model import parts, step
from model.config import Execution, Model
from model.lm import LM
from model.positions import Rope
from tests.launch.test_huggingface import MODELS
from tests.model import shapes
from tests.model.test_model import SHAPES, tokens, variables

OURS = {name: ladder.shape(parts.model(vocab_size=32, seq_len=32), 16, name) for name in ARMS}
TOP1 = {
    f"top1-{router}-{renormalise}": shapes.replace(
        MODELS["mixtral"], top_k=1, d_ff=24, router=router, renormalise=renormalise
    )
    for router in ("softmax", "sigmoid")
    for renormalise in (True, False)
}
ALL = {**OURS, **MODELS, **TOP1, **{f"shape {i}": c for i, c in enumerate(SHAPES)}}

TWINS = {"mistral", "moe_64_8"}  # of llama and moe_32_4
LONG = {"jamba", "qwen3_next"}  # hybrids of parts that others have


def without_signal(path: str, c: Model) -> bool:
    """Leaves that no loss can move: a bias of all keys alike cancels in the softmax, unless
    positions turn it, norms change it or scores are capped.
    """
    p = c.layers[0].mixer
    untouched = not isinstance(c.positions, Rope) and p.qk_norm == "none" and not p.cap
    return path.endswith("k/bias") and untouched


@pytest.mark.parametrize(
    "name",
    # arms, families and top-1 routers in the fast lane; shapes of the registries, and what differs
    # from another in numbers alone, in the slow one
    [
        pytest.param(
            n, marks=pytest.mark.slow if n.startswith("shape") or n in TWINS | LONG else ()
        )
        for n in ALL
    ],
)
def test_every_leaf_has_a_gradient_from_the_cross_entropy(name):
    c = shapes.replace(ALL[name], balance_weight=0.0, z_weight=0.0)
    held, lm = variables(c), LM(c, Execution())
    t = tokens(c, batch=8)

    def gradients(held):
        return step.gradients(lm, step.State(held["params"], None, held["buffers"]), t)[0]

    grads = jax.jit(gradients)(held)
    flat = {
        "/".join(str(k.key) for k in path): np.asarray(a)
        for path, a in jax.tree_util.tree_leaves_with_path(grads)
    }
    largest = {k: float(np.abs(a).max()) for k, a in flat.items() if not without_signal(k, c)}
    dead = {k: v for k, v in largest.items() if not v > 1e-6}
    assert not dead
