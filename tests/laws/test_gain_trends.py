"""Whether the gain of experts changes with scale: slopes that are known are found, with their
intervals.
"""

import dataclasses
import math

import numpy as np
import pytest

from experiments import recipes
from experiments.laws import sweep_analysis
from experiments.laws.comparisons import gain_trends
from experiments.report import answer_text
from launch.runs import record
from tests.verbs.made_up_sweeps import results_of


def made_up(by_size=0.0, by_tokens=0.0, noise=0.003):
    """Records of dense_vs_moe whose gap moves by so many nats per tenfold size or tokens."""
    results = results_of(recipes.load("dense_vs_moe"), noise)
    dense = {
        (r["tags"]["size"], r["training_tokens"]): r for r in results if r["family"] == "dense"
    }
    for r in results:
        if r["family"] == "moe":
            n = dense[r["tags"]["size"], r["training_tokens"]]["parameters"]["multiplied"]
            move = by_size * math.log10(n / 2e4) + by_tokens * math.log10(
                r["training_tokens"] / 5e5
            )
            r["validation"]["loss"] += move
    return results


def asked(*a, **k):
    return record.finite(sweep_analysis.analyse(made_up(*a, **k), resamples=200))


@pytest.mark.parametrize("size,tokens", [(0.0, 0.0), (0.03, 0.0), (0.0, -0.03), (0.03, -0.03)])
def test_slopes_over_pairs_are_found(size, tokens):
    t = asked(size, tokens)["gain_trends"]["pairs"]
    assert t["pairs"] == 48
    for key, truth in (("size", size), ("tokens", tokens)):
        low, high = t[key]["interval"]
        # the made-up MoE has more active parameters too, by a router: less than 0.001 per tenfold
        assert low - 2e-3 < truth < high + 2e-3 and high - low < 0.02
    assert 0.003 < t["left"] < 0.006  # two runs of noise 0.003


def test_slope_along_the_best_of_each():
    """By the whole gap's growth with tokens the gain grows, by its fall with size it shrinks."""
    for move, word in ((dict(by_tokens=-0.06), "grows"), (dict(by_size=0.1), "shrinks")):
        a = asked(**move, noise=0.001)
        t = a["gain_trends"]
        assert t["multiplier"]["budgets"] == len(a["leverage"]) >= 3
        x = np.log10([e["flops"] for e in a["leverage"]])
        y = np.log10([e["leverage"] for e in a["leverage"]])
        assert t["multiplier"]["slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
        gaps = [e["difference"] for e in a["equal_flops"]]
        assert t["gap"]["slope"] == pytest.approx(np.polyfit(x, gaps, 1)[0])
        for k in ("multiplier", "gap"):
            low, high = t[k]["interval"]
            assert low < t[k]["slope"] < high
        lines = "\n".join(answer_text.lines(a))
        assert f" budgets: {word}: compute multiplier ~ C^" in lines, lines


def test_no_slope_where_there_is_none():
    job = recipes.load("dense_vs_moe")
    two = dataclasses.replace(job.sweep, budgets=(5e10, 1.2e11), seeds=(0,), sizes=(8, 16, 24))
    a = sweep_analysis.analyse(results_of(dataclasses.replace(job, sweep=two)), resamples=20)
    assert a["gain_trends"] == {"multiplier": None, "gap": None, "pairs": None, "words": {}}
    assert gain_trends.over_pairs([]) is None


def test_a_draw_without_a_minimum_is_infinitely_uncertain():
    rows = [({"flops": c, "leverage": 1.5}, [1.4, 1.6] * 50) for c in (1e10, 1e11)]
    lost = ({"flops": 1e12, "leverage": 1.5}, [math.nan] * 10 + [1.5] * 90)
    found = gain_trends._slope([*rows, lost], "leverage", np.log10)
    assert found["slope"] == pytest.approx(0) and found["interval"] is None
