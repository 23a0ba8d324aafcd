"""Budgets to runs: everything about a sweep that is known before it starts."""

import dataclasses
import hashlib
import json
from collections.abc import Collection
from typing import NamedTuple

from experiments.planning import arms, fairness, ladder, packs, step_time
from launch import config
from launch.config import ConfigError, Run
from launch.runs import trunk
from model import account

MIN_STEPS = 20  # fewer updates than this are a warm-up, not a run


@dataclasses.dataclass(frozen=True)
class Sweep:
    """An isoFLOP sweep, or a grid of sizes and tokens, or both. Every cell is trained once per
    family and seed on the same tokens in the same order.
    """

    name: str = "sweep"
    sizes: tuple[int, ...] = (16, 24, 32, 48, 64)  # d_model: the ladder's dial
    budgets: tuple[float, ...] = (
        1e11,
    )  # training FLOPs of the dense run, `matmul` convention, before rounding to whole steps
    tokens: tuple[
        int, ...
    ] = ()  # every size on so many training tokens: the grid that a parametric law wants
    families: tuple[str, ...] = ()  # arms that are compared; empty: those of `arms`, or dense, moe
    # arms of one's own, as a dict: name -> a part, layers, or their text (planning/arms.py)
    arms: tuple[tuple[str, str], ...] = ()
    ladder: str = "both"  # what a size stands for: both | width(...) | depth(...) | aspect(...)
    shapes: tuple[tuple[int, ...], ...] = ()  # d_model, n_layers, n_heads, d_ff of every size
    seeds: tuple[int, ...] = (0,)
    # what is equal between families besides their order of data: active_params (and tokens) | flops
    match: str = "active_params"
    lr_multipliers: tuple[float, ...] = (
        1.0,
    )  # of the ladder's learning rate: a bracket when there are several
    # which loss is compared and fitted: bits_per_byte, or a source of a mixture; empty: nats/token
    loss: str = ""
    # runs that differ in length alone hand on what they have in common (schedule.decay=wsd)
    trunks: bool = False
    replicate_size: int = 0  # one more (size, budget) ...
    replicate_budget: float = 0.0
    replicate_seeds: tuple[
        int, ...
    ] = ()  # ... trained with these seeds too: the noise, and the paired gap of the families
    # and at these multipliers of the learning rate: one bracket of every family, which says whether
    # its rate was near the best; the curves are not fitted to it
    bracket: tuple[float, ...] = ()

    def __post_init__(self):
        given = self.arms.items() if isinstance(self.arms, dict) else self.arms
        own = tuple((name, arms.text(value)) for name, value in given)
        families = self.families or tuple(name for name, _ in own) or ("dense", "moe")
        sizes = tuple(size for size, _ in self._rows()) or self.sizes
        for name, value in (("arms", own), ("families", families), ("sizes", sizes)):
            object.__setattr__(self, name, value)

    def _rows(self) -> tuple:
        """The shapes by size: d_model where each has its own, else their number from 1 on."""
        shapes = [ladder.Shape(*row) for row in self.shapes]
        widths = [s.d_model for s in shapes]
        distinct = len(set(widths)) == len(widths)
        return tuple(zip(widths if distinct else range(1, len(shapes) + 1), shapes))

    def arm(self, family: str) -> str:
        """The text of an arm, or its name in `arms.ARMS`."""
        return dict(self.arms).get(family, family)

    @property
    def reference(self) -> str:
        """The arm that the others are compared with: the first."""
        return self.families[0]

    def steps(self):
        """The ladder that the sizes stand on."""
        return ladder.Table(self._rows()) if self.shapes else ladder.read(self.ladder)

    @property
    def dial(self) -> str:
        """What a size is."""
        rows = self._rows()
        if any(size != at.d_model for size, at in rows):
            return "shape"
        return "d_model" if rows else self.steps().dial

    def shape(self, base: Run, size: int, family: str = "dense"):
        """The model of an arm at a size; `dense` whether it is among the arms or not."""
        return ladder.shape(base.model, size, self.arm(family), self.steps())


@dataclasses.dataclass(frozen=True)
class SweepJob:
    """What a sweep recipe returns: the sweep, the Run that every member starts from, and where it
    runs.
    """

    sweep: Sweep = Sweep()
    run: Run = dataclasses.field(default_factory=Run)
    where: config.Where = config.Where(keep_final=False)


class Planned(NamedTuple):
    """One run of a plan. `budget` is the nominal one (None in the grid of tokens); the realised
    FLOPs follow from the run's steps.
    """

    run: Run
    family: str
    size: int
    budget: float | None
    role: str  # grid | tokens | replicate
    lr_multiplier: float
    speed: step_time.Speed  # predicted, on one device
    asked: int | None = None  # tokens that its cell of a grid asks for, before it is matched
    dial: str = "d_model"  # what the size is
    reference: str = ""  # the arm that the others are compared with
    pack: packs.Share = packs.Share()
    begins: int = 0  # the update that it goes on from, of a shorter run of its trunk

    @property
    def id(self) -> str:
        return config.run_id(self.run)

    @property
    def tokens(self) -> int:
        return config.steps(self.run) * self.run.batch * self.run.model.seq_len

    @property
    def flops(self) -> int:
        return self.tokens * account.flops_per_token(self.run.model)["matmul"]

    @property
    def here(self) -> float:
        """The share of its steps that it trains itself; 1 without a trunk."""
        return 1 - self.begins / config.steps(self.run)

    @property
    def spent(self) -> int:
        """FLOPs of the steps that it trains itself."""
        return self.flops - self.begins * self.flops // config.steps(self.run)

    @property
    def seconds(self) -> float | None:
        """Predicted, of training alone, all of its steps; in a pack, its share of the device."""
        alone = step_time.steps_seconds(self.run, self.speed)
        return None if alone is None else alone / self.pack.worth

    @property
    def shape(self) -> tuple:
        """Runs of equal shape share a compiled program."""
        return (self.run.model, self.run.batch, self.run.dtype)

    @property
    def tags(self) -> dict:
        named = {"family": self.family, "size": self.size}
        named |= {"budget": self.budget, "tokens": self.asked}
        if self.dial != "d_model":
            named["dial"] = self.dial
        if self.reference:
            named["reference"] = self.reference
        return {**named, "role": self.role, "lr_multiplier": self.lr_multiplier}


class Plan(NamedTuple):
    """The runs, and in words what was left out."""

    runs: list[Planned]
    left_out: list[str]


def check(s: Sweep) -> None:
    """Raises ConfigError in words that say what to change."""
    for name in ("sizes", "budgets", "tokens", "families", "seeds", "lr_multipliers", "bracket"):
        values = getattr(s, name)
        if not values and not (name in ("tokens", "bracket") or name == "budgets" and s.tokens):
            raise ConfigError(f"sweep.{name} is empty")
        if len(set(values)) < len(values):
            raise ConfigError(f"sweep.{name} names a value twice: {', '.join(map(str, values))}")
        if values and name not in ("families", "seeds") and min(values) <= 0:
            raise ConfigError(f"sweep.{name} must be positive")
    for family in s.families:
        known = [*dict(s.arms), *arms.ARMS]
        if family not in known and not arms.registered(family):
            raise ConfigError(
                f"unknown family {family!r} in sweep.families: choose from {', '.join(known)}, or a"
                " registered part such as mamba2 or mamba2/moe"
            )
    s.steps()
    if s.match not in fairness.BY:
        raise ConfigError(f"sweep.match={s.match!r}: choose from {', '.join(fairness.BY)}")
    cell = bool(s.replicate_size), bool(s.replicate_budget)
    if any(have != bool(s.replicate_seeds or s.bracket) for have in cell):
        raise ConfigError(
            "set sweep.replicate_size, sweep.replicate_budget and sweep.replicate_seeds (or"
            " sweep.bracket) together, or none of them"
        )


def _tokens(s: Sweep, base: Run, size: int, budget: float) -> float:
    """Tokens that a FLOP budget buys the dense member; the other families train on the same
    ones.
    """
    return budget / account.flops_per_token(s.shape(base, size))["matmul"]


class _Cell(NamedTuple):
    size: int
    budget: float | None
    tokens: float
    seed: int
    role: str
    rates: tuple[float, ...]  # multipliers of the learning rate


def _cells(s: Sweep, base: Run) -> list[_Cell]:
    """What every family is trained on, in a fixed order."""
    grid = s.lr_multipliers
    cells = [
        _Cell(size, budget, _tokens(s, base, size, budget), seed, "grid", grid)
        for budget in s.budgets
        for size in s.sizes
        for seed in s.seeds
    ]
    cells += [
        _Cell(size, None, float(tokens), seed, "tokens", grid)
        for tokens in s.tokens
        for size in s.sizes
        for seed in s.seeds
    ]
    if not s.replicate_size:
        return cells
    size, budget = s.replicate_size, s.replicate_budget
    again = [(seed, "replicate", grid) for seed in s.replicate_seeds]
    again += [(seed, "bracket", s.bracket) for seed in s.seeds]
    return cells + [_Cell(size, budget, _tokens(s, base, size, budget), *which) for which in again]


def _members(job: SweepJob, cell: _Cell, target: step_time.Target) -> list[Planned]:
    """The runs of one cell: every family, every learning rate. An arm with a batch or a context of
    its own takes as many tokens.
    """
    s, base, out = job.sweep, job.run, []
    dense = s.shape(base, cell.size)
    for family in s.families:
        for multiplier in cell.rates:
            run = ladder.at(base, cell.size, s.arm(family), multiplier, s.steps())
            steps = max(1, round(cell.tokens / (run.batch * run.model.seq_len)))
            horizon = config.Horizon(steps=fairness.steps(steps, dense, run.model, s.match))
            run = dataclasses.replace(
                run,
                seed=cell.seed,
                data=dataclasses.replace(run.data, seed=cell.seed),
                horizon=horizon,
            )
            out.append(
                Planned(
                    run,
                    family,
                    cell.size,
                    cell.budget,
                    cell.role,
                    multiplier,
                    step_time.speed(run, target),
                    None if cell.budget else round(cell.tokens),
                    s.dial,
                    s.reference,
                )
            )
    return out


def make(job: SweepJob, platform: str, target: step_time.Target | None = None) -> Plan:
    """The plan of a sweep, in a fixed order, predicted for `target` or this machine. Raises
    ConfigError.
    """
    s, base = job.sweep, job.run
    check(s)
    target = target or step_time.this_machine(job.where, platform)
    runs, left_out = {}, []
    per_step = base.batch * base.model.seq_len
    for cell in _cells(s, base):
        steps = round(cell.tokens / per_step)
        if steps < MIN_STEPS:
            what = f"{cell.budget:.3g} FLOPs" if cell.budget else f"{cell.tokens:.0f} tokens"
            left_out.append(
                f"size {cell.size} at {what}: {steps} steps of {per_step} tokens, fewer than"
                f" {MIN_STEPS}"
            )
            continue
        for p in _members(job, cell, target):
            runs.setdefault(p.id, p)
    if not any(p.role in ("grid", "tokens") for p in runs.values()):
        smallest = s.shape(base, min(s.sizes))
        need = (
            MIN_STEPS * account.flops_per_token(smallest)["matmul"] * base.batch * smallest.seq_len
        )
        raise ConfigError(
            f"every budget is too small for any size: the smallest size, {min(s.sizes)}, needs"
            f" {need:.2g} FLOPs for {MIN_STEPS} steps; raise sweep.budgets"
        )
    planned = list(runs.values())
    for i, forks in enumerate(trunk.chains([p.run for p in planned]) if s.trunks else ()):
        planned[i] = planned[i]._replace(begins=forks[0].step if forks else 0)
    return Plan(packs.together(planned, job.where, target), left_out)


def depths(runs: list[Planned]) -> str | None:
    """In words where arms of one size have not one depth, because patterns are kept whole."""
    layers: dict = {}
    for p in runs:
        layers.setdefault(p.size, {})[p.family] = p.run.model.n_layers
    uneven = {size: own for size, own in layers.items() if len(set(own.values())) > 1}
    if not uneven:
        return None
    size, own = min(uneven.items())
    most = max(own, key=own.__getitem__)
    return (
        f"depths differ: at size {size} {', '.join(f'{f} {n}' for f, n in own.items())} layers, for"
        f" whole patterns are kept: compare at equal FLOPs (--set sweep.match=flops), or give all"
        f" of them the depth of {most} (--set 'sweep.ladder=width(n_layers={own[most]})')"
    )


def identity(job: SweepJob, plan: Plan) -> str:
    """Names a sweep by the runs it consists of."""
    return hashlib.sha256(
        json.dumps([job.sweep.name, sorted(p.id for p in plan.runs)]).encode()
    ).hexdigest()[:12]


def predicted_wall(
    plan: Plan, workers: int, done: Collection[str] = frozenset(), startup: float = 0.0
) -> float | None:
    """Seconds until the missing runs are done, evaluation and compilation of each shape included;
    None where no speed is known. Of a trunk, one part comes after the other.
    """
    todo = [p for p in plan.runs if p.id not in done]
    if any(p.seconds is None for p in todo):
        return None
    own: list = [(p.seconds * p.here + p.speed.evaluate, p.shape, p.speed.setup) for p in todo]
    chains = [p.seconds + p.speed.evaluate + p.speed.setup for p in todo if p.begins]
    return (startup if todo else 0.0) + max([step_time.wall(own, workers), *chains])
