"""The one dial: a size picks width, depth, heads and learning rate. Each rule is one line with its
source. A ladder is a frozen dataclass with `shape(size)`; the default one turns by d_model.

The rules for d_model <= 64 were set by sweeps on this codebase (LOG.md, 2026-11-24); the
learning-rate rule comes from the bracket recipe `learning_rate`, run with the same trials for both
families before they were compared.
"""

import bisect
import csv
import dataclasses
import functools
import math
from typing import NamedTuple

from experiments.planning import arms
from launch import overrides
from launch.config import ConfigError, Run, family
from model import account, parts
from model.config import Model
from model.optimizers import Optimizer

# Peak learning rate of the matrices: LR_32 x (32 / d_model)^LR_POWER; `learning_rate` bracket,
# LOG.md 2026-11-24
LR_32 = {"dense": 0.01, "moe": 0.01}
LR_POWER = 1.0
# Of the token embedding, at every size: its gradient reaches a row once per occurrence, whatever
# the width
LR_EMBED = 0.02
# Sizes at which the rule was checked against a bracket; elsewhere it is extrapolated
LR_CHECKED = (16, 24, 32, 48, 64)

# Training tokens per parameter (`multiplied`) of the compute-optimal size: Hoffmann et al. 2022
# (arXiv 2203.15556), about 20
TOKENS_PER_PARAMETER = 20
# The batch grows from the recipe's as C^0.3271: Bi et al. 2024 (DeepSeek LLM, arXiv 2401.02954), eq
# 1, the exponent alone
BATCH_POWER = 0.3271
# Sizes that a plan may choose: wide enough apart to bend a curve, and divided by their heads
RUNGS: tuple[int, ...] = (
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

    after = bisect.bisect(RUNGS, 0.0, key=lambda d: -above(d))
    return min(RUNGS[max(0, after - 1) : after + 1], key=lambda d: abs(above(d)))


class Shape(NamedTuple):
    """What a ladder sets; d_ff 0 stands for 4 x d_model."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int = 0


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


@dataclasses.dataclass(frozen=True)
class Both:
    """Width and depth grow together: the default."""

    dial = "d_model"

    def shape(self, size: int) -> Shape:
        return Shape(size, layers(size), heads(size))


@dataclasses.dataclass(frozen=True)
class Width:
    """Width alone grows; the size is d_model."""

    n_layers: int = 2

    dial = "d_model"

    def shape(self, size: int) -> Shape:
        return Shape(size, self.n_layers, heads(size))


@dataclasses.dataclass(frozen=True)
class Depth:
    """Depth alone grows; the size is the number of layers."""

    d_model: int = 64

    dial = "layers"

    def shape(self, size: int) -> Shape:
        return Shape(self.d_model, size, heads(self.d_model))


@dataclasses.dataclass(frozen=True)
class Aspect:
    """Width over depth stays at `ratio`; the size is d_model."""

    ratio: float = 64.0

    dial = "d_model"

    def shape(self, size: int) -> Shape:
        return Shape(size, max(1, round(size / self.ratio)), heads(size))


@dataclasses.dataclass(frozen=True)
class Table:
    """Shapes of one's own, by size."""

    rows: tuple[tuple[int, Shape], ...]

    def shape(self, size: int) -> Shape:
        table = dict(self.rows)
        if size not in table:
            raise ConfigError(
                f"size {size} is not in sweep.shapes: it has {', '.join(map(str, table))}"
            )
        return table[size]


LADDERS = {"both": Both, "width": Width, "depth": Depth, "aspect": Aspect}
BOTH = Both()


def read(text: str):
    """The ladder that a text names, such as ``width(n_layers=4)``. Raises ConfigError."""
    try:
        return parts.build(LADDERS, parts.text.one(text), "sweep.ladder")
    except ValueError as e:
        raise ConfigError(str(e)) from None


def table(path: str) -> tuple[Shape, ...]:
    """The rows of a CSV file with the columns d_model, n_layers, n_heads and, where it is not 4 x
    d_model, d_ff. Raises ConfigError that names row and column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            rows = list(csv.DictReader(f, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"sweep.shapes={path} cannot be read ({e})") from None
    named = [c.strip() for c in (rows[0] if rows else {}) if c]
    missing = [c for c in Shape._fields[:3] if c not in named]
    if missing:
        raise ConfigError(
            f"sweep.shapes={path}: column {missing[0]} is missing; it needs d_model, n_layers,"
            " n_heads and may have d_ff"
        )
    out = []
    for i, row in enumerate(rows, 2):
        cells = {k.strip(): (v or "").strip() for k, v in row.items() if k}
        try:
            out.append(Shape(*(int(cells.get(c) or 0) for c in Shape._fields)))
        except ValueError as e:
            raise ConfigError(f"sweep.shapes={path}, line {i}: {e}") from None
        if min(out[-1][:3]) < 1:
            raise ConfigError(f"sweep.shapes={path}, line {i}: {out[-1][:3]} must be at least 1")
    return tuple(out)


def learning_rate(d_model: int, family: str) -> float:
    """Peak learning rate of the matrices; `family`: dense or moe."""
    return LR_32[family] * (32 / d_model) ** LR_POWER


def fits(d_model: int, n_heads: int) -> bool:
    return d_model >= 8 and d_model % n_heads == 0 and d_model // n_heads % 2 == 0


def resized(m: Model, at: Shape) -> Model:
    """One repetition of the pattern of `m` at the width and the heads of `at`."""
    dials = {"n_heads": at.n_heads, "d_ff": at.d_ff}

    def turned(part):
        return dataclasses.replace(part, **{k: v for k, v in dials.items() if hasattr(part, k)})

    def layers(old):
        return tuple(dataclasses.replace(x, mixer=turned(x.mixer), mlp=turned(x.mlp)) for x in old)

    return dataclasses.replace(
        m,
        pattern=layers(m.pattern),
        first=layers(m.first),
        d_model=at.d_model,
        n_layers=len(m.first) + len(m.pattern),
    )


@functools.lru_cache(maxsize=4096)
def shape(base: Model, size: int, arm: str = "dense", ladder=BOTH) -> Model:
    """`base` at this size, with an arm in it: its text, or a name of `arms.ARMS`. MoE keeps top_k x
    d_expert = d_ff, so that active parameters equal the dense model's but for the router. Layers
    are rounded up to whole patterns: a hybrid of eight has eight where the ladder has two.

    Raises ConfigError if the ladder's heads do not divide the width.
    """
    at = ladder.shape(size)
    if not isinstance(ladder, Table) and not fits(at.d_model, at.n_heads):
        near = min(
            (d for d in range(8, 2 * max(8, at.d_model) + 64, 8) if fits(d, heads(d))),
            key=lambda d: abs(d - at.d_model),
        )
        raise ConfigError(
            f"size {at.d_model} is not on the ladder: its {at.n_heads} heads need an even width"
            f" each; the nearest that fits is {near}"
        )
    m = arms.apply(resized(base, at), arms.named(arm, base))
    rest = -(-max(1, at.n_layers - len(m.first)) // len(m.pattern)) * len(m.pattern)
    return dataclasses.replace(m, n_layers=len(m.first) + rest)


def at(base: Run, size: int, arm: str, lr_multiplier: float = 1.0, ladder=BOTH) -> Run:
    """`base` at this size with an arm, with the ladder's learning rate times `lr_multiplier`; the
    ladder's rates are AdamW's, and those of an optimizer that wants others are so many times these.
    Under a parametrisation that scales with width all sizes have the rate of its base.
    """
    model = shape(base.model, size, arm, ladder)
    text = arms.named(arm, base.model)
    run = _with_settings(dataclasses.replace(base, model=model), text)
    width, _ = model.parametrisation.tuned(model)
    lr = learning_rate(width, family(model)) * lr_multiplier
    lr *= _own_multiplier(text) * run.optimizer.AGAINST_ADAMW
    embed_lr = LR_EMBED * run.optimizer.AGAINST_ADAMW
    optimizer: Optimizer = dataclasses.replace(run.optimizer, lr=lr, embed_lr=embed_lr)
    return dataclasses.replace(run, optimizer=optimizer)


def check_free(key: str, value: str) -> None:
    """Raises ConfigError where a setting names what the ladder or the plan decides."""
    if key == "optimizer" and "(" in value:
        inside = [t.partition("=")[0].strip() for t in value.partition("(")[2].split(",")]
        key = next((k for t in inside if (k := f"optimizer.{t}") in OWNED), key)
    if key in OWNED:
        raise ConfigError(f"{key} is not free in a sweep: set {OWNED[key]} instead")


@dataclasses.dataclass(frozen=True)
class _Rate:
    """What an arm may say of its learning rate."""

    lr_multiplier: float = 1.0  # of the ladder's, times that of a bracket


def _own_multiplier(arm: str) -> float:
    """What an arm's text multiplies the ladder's learning rate by."""
    out = 1.0
    for setting in arms.parted(arm)[1]:
        key, _, value = setting.partition("=")
        if key == "lr_multiplier":
            out *= overrides.override(_Rate(), key, value).lr_multiplier
    return out


def _with_settings(run: Run, arm: str) -> Run:
    """`run` with what an arm sets besides its model. Other text has other content."""
    for setting in arms.parted(arm)[1]:
        key, _, value = setting.partition("=")
        if key == "lr_multiplier":
            continue
        try:
            check_free(key.strip(), value)
        except ConfigError as e:
            raise ConfigError(f"arm {arm!r}: {e}") from None
        if key.startswith("model."):
            continue
        run = overrides.override(run, key, value)
        if key.removeprefix("data.") in TEXT:
            run = dataclasses.replace(run, data=dataclasses.replace(run.data, content=""))
    return run


# fields that say which text is read, and as which tokens
TEXT = ("source", "path", "validation_path", "sources", "tokenizer", "tokenizer_path", "zipf")


# What `--set` cannot change in a sweep, because the ladder or the plan does: field -> what to set
# instead. Fields of a part by their last name.
OWNED_IN_PARTS = {"n_heads": "sweep.shapes", "d_ff": "sweep.shapes or an arm (sweep.arms.NAME)"}
OWNED = {
    "model.d_model": "sweep.sizes",
    "model.n_layers": "sweep.sizes",
    "optimizer.lr": "sweep.lr_multipliers",
    "optimizer.embed_lr": "sweep.lr_multipliers",
    "optimizer.head_lr": "sweep.lr_multipliers",
    "horizon.steps": "sweep.budgets",
    "horizon.tokens": "sweep.budgets",
    "horizon.flops": "sweep.budgets",
    "seed": "sweep.seeds",
    "data.seed": "sweep.seeds",
}
