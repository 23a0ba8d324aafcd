"""A recipe made larger or smaller to meet a budget of FLOPs, of dollars, or of hours: one factor
moves its budgets, and with them sizes and batch by the ladder's rules.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

from experiments.planning import ladder
from experiments.planning.grid import Plan, Sweep, SweepJob
from launch.config import ConfigError, Run
from model import account

BRACKET = (0.5, 1.0, 2.0)  # of the ladder's rate, wherever the rule was not checked


class Scaled(NamedTuple):
    """The job, and in words what the ladder chose."""

    job: SweepJob
    notes: list[str]


def _middle_budget(s: Sweep, job: SweepJob) -> float:
    """Training FLOPs (`matmul`, dense) of the middle run: the geometric mean of the budgets, or of
    the grid's at its middle size.
    """
    if s.budgets:
        return math.exp(sum(map(math.log, s.budgets)) / len(s.budgets))
    model = s.shape(job.run, sorted(s.sizes)[len(s.sizes) // 2])
    tokens = math.exp(sum(map(math.log, s.tokens)) / len(s.tokens))
    return tokens * account.flops_per_token(model)["matmul"]


def _sizes(s: Sweep, ratio: float) -> dict[int, int]:
    """Old size -> new one: each times `ratio`, on a rung of its own."""
    out, last = {}, 0
    for size in sorted({*s.sizes, *filter(None, [s.replicate_size])}):
        out[size] = last = ladder.rung(size * ratio, last)
    return out


def scaled(
    job: SweepJob, factor: float, pinned: Collection[str] = frozenset(), run: Run | None = None
) -> Scaled:
    """`job` with `factor` times its budgets. `pinned`: fields that `--set` has set, which stay.
    `run`: what the members start from there, instead of the job's own (another context, another
    source).
    """
    s, old, new = job.sweep, job.run, run or job.run
    if s.shapes or s.ladder != "both":
        raise ConfigError("another scale follows the ladder of both: leave sweep.ladder and shapes")
    middle = _middle_budget(s, job)
    centre = ladder.best(new.model, middle * factor)
    ratio = centre / ladder.best(old.model, middle)
    keep = "sweep.sizes" in pinned or ratio == 1
    sizes = {d: d for d in (*s.sizes, s.replicate_size)} if keep else {**_sizes(s, ratio), 0: 0}
    grown = (
        max(1.0, factor) ** ladder.BATCH_POWER * old.batch * old.model.seq_len / new.model.seq_len
    )
    batch = new.batch if "batch" in pinned or factor <= 1 else max(1, 2 ** round(math.log2(grown)))

    def per_token(model, d):
        return account.flops_per_token(ladder.shape(model, d, "dense"))["matmul"]

    mid, ordered = len(s.sizes) // 2, sorted(s.sizes)
    by_tokens = (
        factor * per_token(old.model, ordered[mid]) / per_token(new.model, sizes[ordered[mid]])
    )
    sweep = dataclasses.replace(
        s,
        sizes=tuple(sizes[d] for d in s.sizes),
        budgets=tuple(b * factor for b in s.budgets),
        tokens=tuple(round(t * by_tokens) for t in s.tokens),
        replicate_size=sizes[s.replicate_size],
        replicate_budget=s.replicate_budget * factor,
    )
    unchecked = batch != old.batch or any(d not in ladder.LR_CHECKED for d in sweep.sizes)
    bracket = unchecked and len(s.lr_multipliers) == 1 and "sweep.lr_multipliers" not in pinned
    if bracket:
        sweep = dataclasses.replace(sweep, lr_multipliers=BRACKET)
    schedule = dataclasses.replace(
        new.schedule, warmup_tokens=round(new.schedule.warmup_tokens * by_tokens)
    )
    run = dataclasses.replace(new, batch=batch, schedule=schedule)
    fresh = dataclasses.replace(job, sweep=sweep, run=run)
    return Scaled(fresh, _notes(job, fresh, ratio, middle * factor, centre, bracket))


def _notes(
    job: SweepJob, fresh: SweepJob, ratio: float, middle: float, centre: int, bracket: bool
) -> list[str]:
    """What the ladder chose, and by which rule."""
    out = []
    if fresh.sweep.sizes != job.sweep.sizes:
        out.append(
            f"sizes: the recipe's x {ratio:.3g} on the ladder's rungs; its middle budget"
            f" {middle:.3g} is best spent near d_model {centre} ({ladder.TOKENS_PER_PARAMETER}"
            " tokens per parameter, Hoffmann et al. 2022)"
        )
    if fresh.run.batch != job.run.batch:
        out.append(
            f"batch: {fresh.run.batch} sequences instead of {job.run.batch}; its tokens grow as"
            f" C^{ladder.BATCH_POWER} (Bi et al. 2024)"
        )
    if bracket:
        out.append(
            "learning rates: the ladder's rule was never checked here, so each run is a bracket"
            f" {BRACKET} for every family"
        )
    return out


def solve(
    job: SweepJob,
    make: Callable[[SweepJob], Plan],
    measure: Callable[[Plan], float],
    wanted: float,
    what: str,
    pinned: set[str],
) -> Scaled:
    """The largest multiple of the recipe's budgets whose plan measures no more than `wanted`.
    Raises ConfigError if that is too little for the ladder.
    """

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
            f"{wanted:g} {what} are too few for the ladder of this recipe{need}: raise it, or take"
            " fewer sizes, seeds or families"
        )
    return best[0]
