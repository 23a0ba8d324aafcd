"""Learning-rate schedules.

The learning rate of a step is computed on the host from (schedule, step) and passed into the
compiled step, like weight decay: one compiled program serves every value.
"""

import dataclasses
import math

from model.config import choose


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a decay to `final` x peak. `final` is what an update after the last one
    would use: no update is spent at a rate of zero.

    wsd (warm-up, stable, decay: Hu et al. 2024, arXiv 2404.06395): the peak until a last share of
    the steps, the cooldown. Up to there runs of every length are one run, so its warm-up is no
    share of the steps.
    """

    decay: str = "cosine"  # cosine | linear | constant | wsd
    warmup: float = 0.1  # share of the steps, unless one of the next two says how long it is
    final: float = 0.0
    warmup_steps: int = 0  # updates of the warm-up
    warmup_tokens: int = 0  # the same in tokens
    cooldown: float = 0.2  # of wsd: share of the steps
    cooldown_shape: str = "sqrt"  # of wsd: sqrt (1 - sqrt, Haegele et al. 2024) | linear | cosine


def _half_cosine(x: float) -> float:
    return 0.5 * (1 - math.cos(math.pi * x))


# share of the way from peak to final after a fraction x of the decay
DECAYS = {"cosine": _half_cosine, "linear": lambda x: x, "constant": lambda x: 0.0}
# the same of a cooldown; sqrt: arXiv 2405.18392
COOLDOWNS = {"sqrt": math.sqrt, "linear": lambda x: x, "cosine": _half_cosine}
WSD = "wsd"


def warmup_of(s: Schedule, steps: int, step_tokens: int) -> int:
    """Updates of the warm-up of a run of `steps` updates on `step_tokens` tokens each."""
    if s.warmup_tokens:
        return max(1, round(s.warmup_tokens / step_tokens))
    return s.warmup_steps or (max(1, round(s.warmup * steps)) if s.warmup else 0)


def cooldown_of(s: Schedule, steps: int) -> int:
    """Updates of the cooldown; 0 where the schedule has none."""
    return max(1, round(s.cooldown * steps)) if s.decay == WSD else 0


def factor(s: Schedule, step: int, steps: int, step_tokens: int = 1) -> float:
    """Multiplier of the peak learning rate at 0-based `step` of `steps`: positive from the first
    update on.
    """
    warm = warmup_of(s, steps, step_tokens)
    if step < warm:
        return (step + 1) / warm
    start, way = warm, DECAYS.get(s.decay)
    if s.decay == WSD:
        start, way = steps - cooldown_of(s, steps), COOLDOWNS[s.cooldown_shape]
        if step < start:
            return 1.0
    x = (step - start) / max(1, steps - start)
    return 1 - (1 - s.final) * way(x)


def check(s: Schedule) -> None:
    """Raises ValueError in words that say what to change."""
    choose({**DECAYS, WSD: None}, s.decay, "schedule.decay")
    choose(COOLDOWNS, s.cooldown_shape, "schedule.cooldown_shape")
    if not (0 <= s.warmup < 1 and 0 <= s.final <= 1):
        raise ValueError("schedule.warmup must lie in [0, 1) and schedule.final in [0, 1]")
    if min(s.warmup_steps, s.warmup_tokens) < 0 or (s.warmup_steps and s.warmup_tokens):
        raise ValueError(
            "set schedule.warmup_steps or schedule.warmup_tokens, to a positive number, not both"
        )
    if not 0 < s.cooldown < 1:
        raise ValueError(f"schedule.cooldown={s.cooldown} must lie above 0 and below 1")
    if s.decay == WSD and s.warmup and not (s.warmup_steps or s.warmup_tokens):
        raise ValueError(
            "schedule.decay=wsd warms up over the same updates whatever the run's length: set"
            " schedule.warmup_tokens, schedule.warmup_steps or schedule.warmup=0"
        )
