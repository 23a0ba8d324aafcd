"""The gradient noise scale from the micro-batches of a step (McCandlish et al. 2018, arXiv
1812.06162, appendix A.1): how large a batch may be before more of it gains little.

A gradient of B sequences is the true one, G, plus noise of covariance Sigma / B. So the squared
norms of gradients of two sizes tell |G|^2 and tr(Sigma) apart, both without bias. Their ratio is
the simple noise scale, in sequences.
"""

import jax.numpy as jnp
from flax import traverse_util

SIGNAL, NOISE = "gradient_signal", "gradient_noise"  # metrics of a step
PART = "part"  # of a micro-batch: the squared norm of its gradient


def squared_norm(grads, before, done) -> jnp.ndarray:
    """Of the gradients of one micro-batch, in float32; those at the paths `done` are summed onto
    `before` already.
    """
    flat, earlier = (traverse_util.flatten_dict(tree) for tree in (grads, before or {}))
    own = [g - earlier[path] if path in done else g for path, g in flat.items()]
    squares = [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in own]
    return jnp.sum(jnp.stack(squares))


def estimates(whole, part, parts: int, batch: int) -> dict:
    """|G|^2 and tr(Sigma), from the squared norm of the gradient of `batch` sequences and the mean
    of those of its `parts` micro-batches.
    """
    return {
        SIGNAL: (parts * whole - part) / (parts - 1),
        NOISE: (part - whole) * batch / (parts - 1),
    }


def tokens(signal: float, noise: float, seq_len: int) -> float | None:
    """The noise scale in tokens; None where the noise hides the gradient."""
    return noise / signal * seq_len if signal > 0 else None
