"""Next-token cross-entropy."""

import jax
import jax.numpy as jnp


def nll(logits_BTV, targets_BT):
    """Negative log-likelihood of each target in nats, float32 (B, T). A masked sum, not a gather: its gradient needs no scatter."""
    hit_BTV = targets_BT[..., None] == jnp.arange(logits_BTV.shape[-1])
    return jax.nn.logsumexp(logits_BTV, -1) - jnp.where(hit_BTV, logits_BTV, 0).sum(-1)
