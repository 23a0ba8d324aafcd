"""Next-token cross-entropy."""

import jax
import jax.numpy as jnp


def nll(logits_BTV, targets_BT):
    """Negative log-likelihood of each target in nats, float32 (B, T)."""
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], -1)[..., 0]
    return jax.nn.logsumexp(logits_BTV, -1) - picked_BT
