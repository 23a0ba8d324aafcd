"""Learning rate and batch by rules that others measured, with AdamW and one rate for all parameters
of a run. A new rule is an entry in RULES.

The constants are quoted from notes on the papers, so unverified, like those of laws/published/.
They were measured on far larger models and longer runs than a small sweep has.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

from launch.config import ConfigError, Run
from model import account, optimizers


class Size(NamedTuple):
    """What a rule knows of a run. n: non-embedding parameters (active ones of an MoE); d: training
    tokens; c: training FLOPs without the head, attention on the full map, so that c is DeepSeek's
    M x D.
    """

    n: float
    d: float
    c: float


class Rule(NamedTuple):
    """`lr`: peak learning rate; `batch`: tokens of a step; `words`: both, and their units; `seen`:
    at what scale its authors show it.
    """

    lr: Callable[[Size], float]
    batch: Callable[[Size], float]
    words: str
    source: str
    seen: str


RULES = {
    "deepseek2024": Rule(
        lambda s: 0.3118 * s.c**-0.1250,
        lambda s: 0.2920 * s.c**0.3271,
        "lr = 0.3118 C^-0.1250, batch = 0.2920 C^0.3271 tokens; C: FLOPs without the head",
        "Bi et al. 2024, DeepSeek LLM, arXiv 2401.02954, eq 1",
        "its authors trained models of 7B and 67B parameters by it",
    ),
    "steplaw2025": Rule(
        lambda s: 1.79 * s.n**-0.713 * s.d**0.307,
        lambda s: 0.58 * s.d**0.571,
        "lr = 1.79 N^-0.713 D^0.307, batch = 0.58 D^0.571 tokens; N: non-embedding parameters",
        "Li et al. 2025, Step Law, arXiv 2503.04715",
        "its authors show it on models of 400M and 1B parameters (their Figure 1)",
    ),
}


def check(name: str) -> None:
    """Raises ConfigError unless it is a rule's; nothing is none."""
    if name and name not in RULES:
        raise ConfigError(f"--rates={name}: choose from {', '.join(RULES)}")


def size(run: Run, budget: float) -> Size:
    """Of a model that a budget of FLOPs (matmul) trains."""
    m, per_token = run.model, account.flops_per_token(run.model)
    tokens = budget / per_token["matmul"]
    body = per_token["matmul"] - 6 * m.d_model * m.vocab_size
    return Size(account.parameters(m)["active_non_embedding"], tokens, body * tokens)


def applied(name: str, run: Run, budget: float) -> tuple[Run, dict[str, str]]:
    """`run` with the rule's rate and batch, and both in words. The batch is a power of two of
    sequences, the nearest. Raises ConfigError where the rule says nothing of such a run.
    """
    rule, s = RULES[name], size(run, budget)
    if optimizers.name(run.optimizer) != "adamw":
        raise ConfigError(
            f"--rates={name} is of AdamW, and this sweep's optimizer is"
            f" {optimizers.name(run.optimizer)}"
        )
    if run.model.parametrisation.scales:
        raise ConfigError(
            f"--rates={name} is of the standard parametrisation, under which rates follow the"
            " size; this sweep's follow its base"
        )
    lr, tokens = rule.lr(s), rule.batch(s)
    batch = 2 ** max(0, round(math.log2(tokens / run.model.seq_len)))
    batch = -(-batch // run.model.unit) * run.model.unit
    # 0: that of everything else
    rate = dataclasses.replace(run.optimizer, lr=lr, embed_lr=0.0, head_lr=0.0)
    at = f"N {s.n:.3g}, D {s.d:.3g}, C {s.c:.3g}"
    where = f"{rule.words} ({rule.source}; unverified)"
    return dataclasses.replace(run, batch=batch, optimizer=rate), {
        "rate": f"{name}, for all parameters alike, at {at}: {where}",
        "batch": f"{name}, nearest power of two of sequences to {tokens:.3g} tokens",
    }
