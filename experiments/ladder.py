"""The one dial: `d_model` picks depth, heads, widths and learning rate. Each rule is one line with
its source.

The rules for d_model <= 64 were set by sweeps on this codebase (LOG.md, 2026-11-24); the
learning-rate rule comes from the bracket recipe `learning_rate`, run with the same trials for both
families before they were compared.
"""

import bisect
import dataclasses
import functools
import math

from launch.config import ConfigError, Run
from model import account
from model.config import Model
from model.optim import Optimizer

# Peak learning rate of the matrices: LR_32 x (32 / d_model)^LR_POWER; `learning_rate` bracket,
# LOG.md 2026-11-24
LR_32 = {"dense": 0.01, "moe": 0.01}
LR_POWER = 1.0
# Of the token embedding, at every size: its gradient reaches a row once per occurrence, whatever
# the width
LR_EMBED = 0.02
# Sizes at which the rule was checked against a bracket; elsewhere it is extrapolated
LR_CHECKED = (16, 24, 32, 48, 64)

# The arms that a sweep compares, as fields of the model that differ from its base. A new arm is one
# line here.
DENSE, MOE = {"pattern": ("attention/dense",)}, {"pattern": ("attention/moe",)}
FAMILIES = {
    "dense": DENSE,
    "moe": MOE,
    "sinusoidal": {**DENSE, "positions": "sinusoidal"},
    "learned": {**DENSE, "positions": "learned"},
    "rope": {**DENSE, "positions": "rope"},
    # experts / chosen, each 1 / chosen as wide as the dense MLP: equal active and equal total
    # parameters but for the router
    "moe_8_1": {**MOE, "n_experts": 8, "top_k": 1},
    "moe_32_4": {**MOE, "n_experts": 32, "top_k": 4},
    "moe_64_8": {**MOE, "n_experts": 64, "top_k": 8},
}

# Training tokens per parameter (`multiplied`) of the compute-optimal size: Hoffmann et al. 2022
# (arXiv 2203.15556), about 20
TOKENS_PER_PARAMETER = 20
# The batch grows from the recipe's as C^0.3271: Bi et al. 2024 (DeepSeek LLM, arXiv 2401.02954), eq
# 1, the exponent alone
BATCH_POWER = 0.3271
# Sizes that a plan may choose: wide enough apart to bend a curve, and divided by their heads
RUNGS = (
    8,
    16,
    24,
    32,
    48,
    64,
    80,
    96,
    *range(128, 512, 64),
    *range(512, 2048, 128),
    *range(2048, 16385, 512),
)


def kind(family: str) -> str:
    """`moe` if any of the family's layers has experts, else `dense`."""
    return (
        "moe" if any(entry.endswith("/moe") for entry in FAMILIES[family]["pattern"]) else "dense"
    )


def rung(d_model: float, above: int = 0) -> int:
    """The nearest of RUNGS (by ratio) that is larger than `above`."""
    return min(
        (d for d in RUNGS if d > above), key=lambda d: abs(math.log(d / d_model)), default=RUNGS[-1]
    )


@functools.lru_cache(maxsize=1024)
def best(base: Model, budget: float) -> int:
    """The rung whose dense model a budget of FLOPs trains on the nearest to TOKENS_PER_PARAMETER
    tokens per parameter.
    """

    def above(d_model: int) -> float:
        """Logarithm of what it gets over what it should get: falls with the size."""
        model = shape(base, d_model, "dense")
        tokens = budget / account.flops_per_token(model)["matmul"]
        return math.log(tokens / account.parameters(model)["multiplied"] / TOKENS_PER_PARAMETER)

    after = bisect.bisect(RUNGS, 0, key=lambda d: -above(d))
    return min(RUNGS[max(0, after - 1) : after + 1], key=lambda d: abs(above(d)))


def layers(d_model: int) -> int:
    """Two up to 128, then width / 64 (aspect ratio of nanochat's dial). One layer cannot copy, and
    stalls (LOG.md).
    """
    return max(2, round(d_model / 64))


def heads(d_model: int) -> int:
    """Two at least: a single head can stall (LOG.md). 16 wide up to d_model 64, then four heads
    until they are 64 wide.
    """
    return max(2, d_model // 16) if d_model <= 64 else max(4, d_model // 64)


def learning_rate(d_model: int, family: str) -> float:
    """Peak learning rate of the matrices."""
    return LR_32[kind(family)] * (32 / d_model) ** LR_POWER


def shape(base: Model, d_model: int, family: str) -> Model:
    """`base` at this size. MoE keeps top_k x d_expert = d_ff, so that active parameters equal the
    dense model's but for the router.

    Raises ConfigError if the ladder's heads do not divide the width.
    """
    n_heads = heads(d_model)
    if d_model < 8 or d_model % n_heads or (d_model // n_heads) % 2:
        near = min(
            (
                d
                for d in range(8, 2 * max(8, d_model) + 64, 8)
                if d % heads(d) == 0 and d // heads(d) % 2 == 0
            ),
            key=lambda d: abs(d - d_model),
        )
        raise ConfigError(
            f"size {d_model} is not on the ladder: its {n_heads} heads need an even width each; the"
            f" nearest that fits is {near}"
        )
    return dataclasses.replace(
        base,
        d_model=d_model,
        n_layers=layers(d_model),
        n_heads=n_heads,
        d_ff=4 * d_model,
        **FAMILIES[family],
    )


def at(base: Run, d_model: int, family: str, lr_multiplier: float = 1.0) -> Run:
    """`base` at this size and family, with the ladder's learning rate times `lr_multiplier`."""
    lr = learning_rate(d_model, family) * lr_multiplier
    optimizer: Optimizer = dataclasses.replace(base.optimizer, lr=lr, embed_lr=LR_EMBED)
    return dataclasses.replace(base, model=shape(base.model, d_model, family), optimizer=optimizer)


# What `--set` cannot change in a sweep, because the ladder or the plan does: field -> what to set
# instead
OWNED = {
    "model.d_model": "sweep.sizes",
    "model.n_layers": "sweep.sizes",
    "model.n_heads": "sweep.sizes",
    "model.d_ff": "sweep.sizes",
    "model.pattern": "sweep.families",
    "optimizer.lr": "sweep.lr_multipliers",
    "optimizer.embed_lr": "sweep.lr_multipliers",
    "horizon.steps": "sweep.budgets",
    "horizon.tokens": "sweep.budgets",
    "horizon.flops": "sweep.budgets",
    "seed": "sweep.seeds",
    "data.seed": "sweep.seeds",
}
