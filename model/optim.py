"""AdamW and learning-rate schedules.

The learning rate of a step is computed on the host from (schedule, step) and passed into the
compiled step, like weight decay: one compiled program serves every value.

Whoever reads a configuration comes through here: jax and optax are imported where arrays are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from model.config import SCALARS, choose

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), decoupled decay scaled by the learning
    rate.
    """

    lr: float = 1e-3  # peak
    embed_lr: float = 0.0  # peak for token embedding and learned positions; 0: same as lr
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: str = "matrices"  # what decays: matrices (no norms, biases, embedding, positions) | all
    clip: float = 1.0  # global gradient norm


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Linear warm-up over a fraction of the steps, then a decay to `final` x peak. `final` is
    what an update after the last one would use: no update is spent at a rate of zero.
    """

    decay: str = "cosine"
    warmup: float = 0.1
    final: float = 0.0


# share of the way from peak to final after a fraction x of the decay
DECAYS = {
    "cosine": lambda x: 0.5 * (1 - math.cos(math.pi * x)),
    "linear": lambda x: x,
    "constant": lambda x: 0.0,
}


def factor(s: Schedule, step: int, steps: int) -> float:
    """Multiplier of the peak learning rate at 0-based `step` of `steps`: positive from the first
    update on.
    """
    warm = max(1, round(s.warmup * steps)) if s.warmup else 0
    if step < warm:
        return (step + 1) / warm
    x = (step - warm) / max(1, steps - warm)
    return 1 - (1 - s.final) * DECAYS[s.decay](x)


def embed_rate(o: Optimizer) -> float:
    """Peak rate of token embedding and learned positions."""
    return o.embed_lr or o.lr


def check(o: Optimizer, s: Schedule) -> None:
    """Raises ValueError in words that say what to change."""
    choose(DECAYS, s.decay, "schedule.decay")
    choose(dict.fromkeys(("matrices", "all")), o.decay, "optimizer.decay")
    if not (o.lr > 0 and math.isfinite(o.lr)):
        raise ValueError(f"optimizer.lr={o.lr} must be a positive number")
    if o.embed_lr < 0 or o.weight_decay < 0 or o.clip <= 0:
        raise ValueError(
            "optimizer.embed_lr and optimizer.weight_decay cannot be negative, optimizer.clip must"
            " be positive"
        )
    if not (0 <= o.b1 < 1 and 0 <= o.b2 < 1):
        raise ValueError("optimizer.b1 and optimizer.b2 must lie in [0, 1)")
    if not (0 <= s.warmup < 1 and 0 <= s.final <= 1):
        raise ValueError("schedule.warmup must lie in [0, 1) and schedule.final in [0, 1]")


def _clip(most: float) -> optax.GradientTransformation:
    """optax.clip_by_global_norm as one product, which XLA on CPU makes where moments are; its
    division is a pass over all gradients.
    """
    import jax
    import jax.numpy as jnp
    import optax

    def clipped(grads, _):
        norm = optax.tree.norm(grads)
        factor = jnp.where(norm < most, 1.0, most / norm)
        return jax.tree.map(lambda g: g * factor, grads)

    return optax.stateless(clipped)


def transform(o: Optimizer) -> optax.GradientTransformation:
    """Clipping and Adam's moments: everything before learning rate and decay are applied."""
    import optax

    return optax.chain(_clip(o.clip), optax.scale_by_adam(o.b1, o.b2, o.eps))


def apply(o: Optimizer, params, updates, lr, embed_lr, weight_decay):
    """params - lr * (updates + weight_decay * params), by the kind of each leaf."""
    import jax

    def one(path, p, u):
        names = {k.key for k in path}
        rate = embed_lr if names & {"embed", "positions"} else lr
        spared = o.decay == "matrices" and any(
            n in ("scale", "embed", "positions", *SCALARS) or n.endswith("bias") for n in names
        )
        decay = 0.0 if spared else weight_decay
        return p - rate * (u + decay * p)

    return jax.tree_util.tree_map_with_path(one, params, updates)


def state_bytes(parameters: int) -> int:
    """Bytes of the optimizer state for so many parameters: two moments in float32 and one int32
    that counts updates.
    """
    return 2 * 4 * parameters + 4
