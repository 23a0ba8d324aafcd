"""A recipe made larger or smaller to meet a budget of FLOPs, of dollars, or of hours: one factor moves its budgets, and with them sizes and
batch by the ladder's rules."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

from experiments import ladder
from experiments.plan import Plan, Sweep, SweepJob
from launch.config import ConfigError
from model import account

BRACKET = (0.5, 1.0, 2.0)  # of the ladder's rate, wherever the rule was not checked


class Scaled(NamedTuple):
    """The job, and in words what the ladder chose."""

    job: SweepJob
    notes: list[str]


def _middle(s: Sweep, job: SweepJob) -> float:
    """Training FLOPs (`matmul`, dense) of the middle run: the geometric mean of the budgets, or of the grid's at its middle size."""
    if s.budgets:
        return math.exp(sum(map(math.log, s.budgets)) / len(s.budgets))
    model = ladder.shape(job.run.model, sorted(s.sizes)[len(s.sizes) // 2], "dense")
    tokens = math.exp(sum(map(math.log, s.tokens)) / len(s.tokens))
    return tokens * account.flops_per_token(model)["matmul"]


def _sizes(s: Sweep, ratio: float) -> dict[int, int]:
    """Old size -> new one: each times `ratio`, on a rung of its own."""
    out, last = {}, 0
    for size in sorted({*s.sizes, *filter(None, [s.replicate_size])}):
        out[size] = last = ladder.rung(size * ratio, last)
    return out


def scaled(job: SweepJob, factor: float, pinned: set[str] = frozenset()) -> Scaled:
    """`job` with `factor` times its budgets. `pinned`: fields that `--set` has set, which stay."""
    s, notes = job.sweep, []
    middle = _middle(s, job)
    ratio = ladder.best(job.run.model, middle * factor) / ladder.best(job.run.model, middle)
    sizes = {d: d for d in (*s.sizes, s.replicate_size)} if "sweep.sizes" in pinned or ratio == 1 else {**_sizes(s, ratio), 0: 0}
    grown = 2 ** round(math.log2(max(1.0, factor) ** ladder.BATCH_POWER))
    batch = job.run.batch if "batch" in pinned else job.run.batch * grown
    new_sizes = tuple(sizes[d] for d in s.sizes)
    per_token = lambda d: account.flops_per_token(ladder.shape(job.run.model, d, "dense"))["matmul"]
    mid = len(s.sizes) // 2
    by_tokens = factor * per_token(sorted(s.sizes)[mid]) / per_token(sorted(new_sizes)[mid])
    sweep = dataclasses.replace(
        s,
        sizes=new_sizes,
        budgets=tuple(b * factor for b in s.budgets),
        tokens=tuple(round(t * by_tokens) for t in s.tokens),
        replicate_size=sizes[s.replicate_size] if s.replicate_size else 0,
        replicate_budget=s.replicate_budget * factor,
    )
    if new_sizes != s.sizes:
        notes.append(
            f"sizes: the recipe's x {ratio:.3g} on the ladder's rungs; its middle budget {middle * factor:.3g} is best spent near d_model "
            f"{ladder.best(job.run.model, middle * factor)} ({ladder.TOKENS_PER_PARAMETER} tokens per parameter, Hoffmann et al. 2022)"
        )
    if batch != job.run.batch:
        notes.append(f"batch: {job.run.batch} x {grown} sequences, growing as C^{ladder.BATCH_POWER} (Bi et al. 2024)")
    unchecked = batch != job.run.batch or any(d not in ladder.LR_CHECKED for d in new_sizes)
    if unchecked and len(s.lr_multipliers) == 1 and "sweep.lr_multipliers" not in pinned:
        sweep = dataclasses.replace(sweep, lr_multipliers=BRACKET)
        notes.append(f"learning rates: the ladder's rule was never checked here, so each run is a bracket {BRACKET} for every family")
    return Scaled(dataclasses.replace(job, sweep=sweep, run=dataclasses.replace(job.run, batch=batch)), notes)


def solve(
    job: SweepJob, make: Callable[[SweepJob], Plan], measure: Callable[[Plan], float], wanted: float, what: str, pinned: set[str]
) -> Scaled:
    """The largest multiple of the recipe's budgets whose plan measures no more than `wanted`. Raises ConfigError if that is too little for
    the ladder."""

    def at(factor: float) -> tuple[Scaled, Plan | None]:
        found = scaled(job, factor, pinned)
        try:
            plan = make(found.job)
        except ConfigError as e:
            if "too small" not in str(e):
                raise
            return found, None
        return found, None if plan.left_out else plan

    factor, best, least = 1.0, None, math.inf
    for _ in range(24):
        found, plan = at(factor)
        if plan is None:  # too few steps somewhere: not a sweep
            if best is not None or least < math.inf or factor > 1e15:
                break
            factor *= 4
            continue
        now = measure(plan)
        least = min(least, now)
        if now > wanted:
            factor *= 0.99 * wanted / now
            continue
        if best is None or now > best[1]:
            best = (found, now)
        if now > 0.98 * wanted:
            break
        factor *= min(1e6, max(1.005, 0.995 * wanted / now))
    if best is None:
        need = "" if math.isinf(least) else f", which begins at about {least:.2g}"
        raise ConfigError(
            f"{wanted:g} {what} are too few for the ladder of this recipe{need}: raise it, or take fewer sizes, seeds or families"
        )
    return best[0]
