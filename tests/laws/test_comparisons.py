"""Arms, learning-rate brackets and equal wall clock and memory, against counts by hand."""

import math

import pytest

from experiments.laws import sweep_analysis
from experiments.laws.comparisons import arm_gaps, equal_time_and_memory, learning_rate_brackets
from experiments.laws.exceptions import FitError
from experiments.laws.fitting import bootstrap, isoflop
from tests.laws import made_up_records


def test_the_loss_of_averaged_weights_is_fitted():
    """A law of its own, of losses of their own; a run without it has none."""
    rows = [made_up_records.result(i) for i in range(6)]
    last, mean = (sweep_analysis.analyse(rows, resamples=20, loss=name) for name in ("", "ema"))
    assert mean["loss_unit"] == "nats/token of the averaged weights (ema)"
    lower = [
        q["loss_opt"] - p["loss_opt"]
        for p, q in zip(*(a["families"]["dense"]["parabolas"] for a in (last, mean)), strict=True)
    ]
    assert lower == pytest.approx([-0.1, -0.1])
    assert last["trunks"]["here"] == pytest.approx(6 * 0.8)
    with pytest.raises(FitError, match="those of runs that have an average"):
        sweep_analysis.analyse([*rows, {**rows[0], "averages": {}}], resamples=20, loss="ema")


def test_arms_by_hand():
    losses = {("rope", 0): 1.0, ("rope", 1): 1.2, ("sinusoidal", 0): 1.5, ("sinusoidal", 1): 1.6}
    points = [
        {"id": f"{f}{s}", "family": f, "size": 8, "budget": None, "seed": s, "loss": v}
        | {"d": 100, "asked": 100, "active": 7 + (f == "rope"), "c": 1e6}
        for (f, s), v in losses.items()
    ]
    rows = arm_gaps.compare(points, {p["id"]: 7 for p in points})
    assert [r["family"] for r in rows] == ["sinusoidal", "rope"] and rows[0]["gap"] is None
    assert rows[1]["active_ratio"] == 8 / 7 and rows[1]["flops_ratio"] == 1
    assert rows[1]["gap"] == pytest.approx(-0.45) and rows[1]["gap_interval"] == pytest.approx(
        bootstrap.student([-0.5, -0.4])[1]
    )
    assert arm_gaps.compare(points[:2], {p["id"]: 7 for p in points}) == []


def test_brackets_over_seeds_by_hand():
    losses = {0: {"0.5": 2.0, "1": 1.5, "2": 1.4}, 1: {"0.5": 2.2, "1": 1.6, "2": 1.8}}
    verdicts = [
        {"family": "dense", "size": 8, "budget": 1e9, "seed": s, "losses": v}
        for s, v in losses.items()
    ]
    half, one, two = learning_rate_brackets.brackets(verdicts)
    assert [r["multiplier"] for r in (half, one, two)] == [0.5, 1.0, 2.0] and [
        r["best"] for r in (half, one, two)
    ] == [False, True, False]
    assert half["gap"] == pytest.approx(0.55) and half["gap_interval"] == pytest.approx(
        bootstrap.student([0.5, 0.6])[1]
    )
    assert (
        one["loss"] == pytest.approx(1.55)
        and two["loss"] == pytest.approx(1.6)
        and one["gap"] == 0
        and one["seeds"] == 2
    )
    assert half["interval"] == pytest.approx(bootstrap.student([2.0, 2.2])[1])


def test_equal_wall_clock_and_memory_are_read_off_the_curves(monkeypatch):
    """Dense minima on loss = 2 x^-0.1 in seconds, the MoE minimum between them. Bytes: dense as 7
    n, MoE as 21 n.
    """

    def fitted(budget, n, loss):
        lowest = isoflop.parabola([n / 2, n, n * 2], [1, 1, 1], [loss + 0.1, loss, loss + 0.1], 1.0)
        return {"budget": budget, **lowest._asdict()}, lowest

    minima = {"dense": [(1, 10, 2 * 10**-0.1), (2, 100, 2 * 100**-0.1)], "moe": [(1, 10, 1.0)]}
    families = {f: {"parabolas": [fitted(*m)[0] for m in rows]} for f, rows in minima.items()}
    draws = {f: [([fitted(*m)[1] for m in rows], None)] * 3 for f, rows in minima.items()}

    def run(i, n):
        return {"id": i, "n": n}

    groups = {
        "dense": {1: [run("a", 5), run("b", 20)], 2: [run("c", 50), run("d", 200)]},
        "moe": {1: [run("e", 2), run("f", 20)]},
    }
    sizes = {"a": 5, "b": 20, "c": 50, "d": 200, "e": 2, "f": 20}

    def slow(i):
        return 3 if i in "ef" else 1

    monkeypatch.setattr(
        equal_time_and_memory,
        "spent",
        lambda r: {
            "seconds": sizes[r["id"]] * slow(r["id"]),
            "bytes": 7.0 * sizes[r["id"]] * slow(r["id"]),
        },
    )
    clock, tight, roomy = equal_time_and_memory.equal(
        families, draws, groups, [{"id": i} for i in sizes]
    )
    assert (
        clock["field"] == "seconds"
        and clock["at"] == pytest.approx(30)
        and not clock["extrapolated"]
    )
    assert (
        clock["difference"]
        == pytest.approx(1 - 2 * 30**-0.1)
        == pytest.approx(clock["interval"][0])
    )
    # 70 bytes hold the dense minimum of size 10, and an MoE of size 10/3: (log 3 / log 2)^2 tenths
    # above its minimum
    assert tight["at"] == pytest.approx(70) and tight["dense"] == pytest.approx(2 * 10**-0.1)
    assert (
        tight["moe"] == pytest.approx(1 + 0.1 * (math.log(3) / math.log(2)) ** 2)
        and not tight["extrapolated"]
    )
    assert roomy["at"] == pytest.approx(210) and (roomy["dense"], roomy["moe"]) == (
        pytest.approx(2 * 10**-0.1),
        pytest.approx(1.0),
    )
    assert equal_time_and_memory.equal({"dense": families["dense"]}, draws, groups, []) == []
