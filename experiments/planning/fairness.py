"""A dense and a mixture-of-experts run that may be compared, as one object: what is equal is
checked, what cannot be is stated.

Equal in both readings: source, order of the windows, batch, seed, schedule, optimizer, numerics,
and the trials of the tuning (every multiplier of the ladder's learning rate, for both). Initial
values are drawn by the name of a parameter and the seed, so parameters of equal name and shape
(embedding, attention, norms, head) start from the same values in both.

    active_params   the same active parameters but for the router, as counted, and the same tokens;
                    the router comes on top and is not compensated, its share is stated
    flops           the MoE run is cut until both have spent the same FLOPs (`matmul`), to a whole
                    step; the ratio of active parameters is stated

Equal memory and equal wall clock are no choice of runs: they are read off the fitted curves
(experiments/laws/comparisons/equal_time_and_memory.py).
"""

import dataclasses
from typing import NamedTuple

from launch import config
from launch.config import ConfigError, Run
from model import account, parts

BY = ("active_params", "flops")


class Matched(NamedTuple):
    """One pair for each trial, in the same order."""

    by: str
    dense: tuple[Run, ...]
    moe: tuple[Run, ...]

    @property
    def active_ratio(self) -> float:
        """Active parameters, MoE over dense: the router's share is what is above 1."""
        a, b = (account.parameters(runs[0].model)["active"] for runs in (self.moe, self.dense))
        return a / b

    @property
    def flops_ratio(self) -> float:
        """Training FLOPs (`matmul`) as realised in whole steps, MoE over dense."""
        return spent(self.moe[0]) / spent(self.dense[0])


def spent(run: Run) -> int:
    """Training FLOPs (`matmul`) of a run, as realised in whole steps."""
    return (
        config.steps(run)
        * run.batch
        * run.model.seq_len
        * account.flops_per_token(run.model)["matmul"]
    )


def steps(dense_steps: int, dense, other, by: str) -> int:
    """Steps of the model `other` beside `dense_steps` of `dense`, at the same batch. Raises
    ConfigError.
    """
    if by not in BY:
        raise ConfigError(f"cannot match by {by!r}: choose from {', '.join(BY)}")
    if by == "active_params":
        return dense_steps
    per_token = [account.flops_per_token(m)["matmul"] for m in (dense, other)]
    return max(1, round(dense_steps * per_token[0] / per_token[1]))


def _same_model(dense, moe) -> None:
    """Raises ConfigError unless the models differ in their experts alone."""

    def unequal(what: str, a, b) -> ConfigError:
        return ConfigError(
            f"not matched: model.{what} is {a} in the dense run and {b} in the other: make them"
            " equal"
        )

    for f in dataclasses.fields(dense):
        a, b = getattr(dense, f.name), getattr(moe, f.name)
        if f.name not in ("pattern", "first") and a != b:
            raise unequal(f.name, a, b)
    if dense.routed or not moe.routed:
        raise ConfigError("matched() wants a dense run first and one with experts second")
    for a, b in zip(dense.layers, moe.layers):
        for name in ("norm", "residual"):
            if getattr(a, name) != getattr(b, name):
                raise unequal(f"layer.{name}", getattr(a, name), getattr(b, name))
        for kind, own in (("mixer", ()), ("mlp", ("d_ff",))):
            pair = getattr(a, kind), getattr(b, kind)
            shared = [f.name for f in dataclasses.fields(pair[0]) if hasattr(pair[1], f.name)]
            for name in shared:
                x, y = (getattr(p, name) for p in pair)
                if name not in own and x != y:
                    raise unequal(f"{kind}.{name}", x, y)
        if type(a.mixer) is not type(b.mixer):
            raise unequal("mixer", parts.written(a.mixer), parts.written(b.mixer))


def _same_active(dense, moe) -> None:
    """Raises ConfigError unless the active parameters are equal but for the router, as counted."""
    a, b = account.parameters(dense), account.parameters(moe)
    rest = b["active"] - b["groups"]["router"]
    if rest == a["active"]:
        return
    sparse = moe.routed[0]
    wide = next(x.mlp for x, y in zip(dense.layers, moe.layers) if y.mlp.n_experts).width(dense)
    chosen, width = sparse.top_k + sparse.n_shared, sparse.width(moe)
    shared = " + n_shared" * bool(sparse.n_shared)
    why = (
        f"top_k{shared} x d_expert = {chosen} x {width} is not the dense d_ff = {wide}:"
        " change one of them, or match by flops"
        if chosen * width != wide
        else "the experts have parameters of their own, such as biases"
    )
    flops = [account.flops_per_token(m)["matmul"] for m in (moe, dense)]
    raise ConfigError(
        f"not matched: at d_model {dense.d_model} the active parameters are"
        f" x{rest / a['active']:.3f} of the dense ones, the router left out, and a token takes"
        f" x{flops[0] / flops[1]:.3f} FLOPs ({why})"
    )


def matched(
    dense: Run, moe: Run, by: str = "active_params", lr_multipliers: tuple[float, ...] = (1.0,)
) -> Matched:
    """The pair, or a pair for each of `lr_multipliers` (of both runs' learning rates). Raises
    ConfigError, naming what is unequal.

    The horizon is the dense run's: that of `moe` follows from `by`.
    """
    _same_model(dense.model, moe.model)
    if by == "active_params":
        _same_active(dense.model, moe.model)
    for f in dataclasses.fields(Run):
        a, b = getattr(dense, f.name), getattr(moe, f.name)
        if f.name not in ("model", "horizon") and a != b:
            raise ConfigError(
                f"not matched: {f.name} is {a} in the dense run and {b} in the other: make them"
                " equal"
            )
    n = config.steps(dense)
    moe = dataclasses.replace(
        moe, horizon=config.Horizon(steps=steps(n, dense.model, moe.model, by))
    )
    dense = dataclasses.replace(dense, horizon=config.Horizon(steps=n))

    def trials(run: Run) -> tuple[Run, ...]:
        def rate(m):
            return dataclasses.replace(run.optimizer, lr=run.optimizer.lr * m)

        return tuple(dataclasses.replace(run, optimizer=rate(m)) for m in lr_multipliers)

    return Matched(by, trials(dense), trials(moe))


def of_plan(runs, by: str) -> list[dict] | str | None:
    """Of the runs of a plan: what dense and MoE have in common, in every cell, as ratios of MoE
    over dense, each once. In words why not, where they are no matched pair; None where there are
    not both.
    """
    cells = {}
    for p in runs:
        cell = (p.size, p.budget or 0, p.asked or 0, p.run.seed, p.lr_multiplier, p.run.batch)
        cells.setdefault(cell, {})[p.family] = p.run
    rows = {}
    try:
        for (size, *_), arms in sorted(cells.items()):
            if {"dense", "moe"} <= set(arms):
                m = matched(arms["dense"], arms["moe"], by)
                ratios = {"active_ratio": m.active_ratio, "flops_ratio": m.flops_ratio}
                rows[size, *ratios.values()] = {"size": size, "by": m.by, **ratios}
    except ConfigError as e:
        return str(e)
    return list(rows.values()) or None


def words(pairs: list[dict] | str) -> str:
    """What `of_plan` found, in a sentence with the measured ratios."""
    if isinstance(pairs, str):
        return f"dense and MoE are {pairs.replace('not matched', 'NOT matched', 1)}"

    def between(k: str) -> str:
        low, high = (f(p[k] for p in pairs) for f in (min, max))
        return f"x{low:.4f}" + (f" to {high:.4f}" if high - low > 5e-5 else "")

    return (
        f"dense and MoE are matched by {pairs[0]['by']}: active parameters"
        f" {between('active_ratio')}, matmul FLOPs {between('flops_ratio')} (MoE over dense; same"
        " order of the text, batch, seeds and trials)"
    )
