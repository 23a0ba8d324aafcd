"""Arms of an isoFLOP sweep at equal FLOPs, what context buys, and loss by position: what was put
into made-up records comes out.
"""

import dataclasses
import math

import numpy as np
import pytest

from experiments import recipes
from experiments.laws import sweep_analysis
from experiments.laws.comparisons import context_gains, frontiers
from experiments.laws.runs import points
from experiments.report import answer_text, page, plotting
from experiments.report.sections import loss_by_position
from launch.runs import record
from launch.runs.sums import bins
from tests.verbs.made_up_sweeps import results_of

LOWER = {"attention": 0.0, "lstm": -0.08, "hybrid": 0.06, "attention_moe": 0.03}  # nats
STEEP = 0.08  # loss of all falls as C^-STEEP


def isoflop(noise: float) -> list[dict]:
    """The recipe's records of four arms, with minima at 9,000 (C / 2e10)^0.5 parameters."""
    job = recipes.load("architectures")
    arms = tuple(a for a in job.sweep.arms if a[0] in LOWER)
    sweep = dataclasses.replace(job.sweep, arms=arms, families=tuple(n for n, _ in arms))
    results, rng = results_of(dataclasses.replace(job, sweep=sweep)), np.random.default_rng(0)
    for r in results:
        c, n = r["flops"]["matmul"] / 2e10, r["parameters"]["multiplied"]
        bend = 0.12 * math.log(n / (9e3 * c**0.5)) ** 2
        rate = 0.05 * math.log(r["tags"]["lr_multiplier"] or 1) ** 2
        loss = 2.3 * c**-STEEP * math.exp(-LOWER[r["family"]]) + bend + rate
        r["validation"]["loss"] = loss + noise * rng.standard_normal()
        r["loss_by_position"] = by_position(r["validation"]["loss"], 128)
    return results


def by_position(loss: float, seq_len: int) -> dict:
    first = bins(seq_len)
    return {
        "first": first.tolist(),
        "tokens": [9] * len(first),
        "loss": (loss + 1 / first).tolist(),
        "se": [0.01] * len(first),
    }


def test_gap_and_multiplier_of_every_arm_are_those_put_in():
    a = sweep_analysis.analyse(isoflop(1e-6), resamples=20)
    rows = {r["family"]: r for r in a["frontiers"]}
    assert set(rows) == set(LOWER) and {r["reference"] for r in rows.values()} == {"attention"}
    assert rows["attention"]["gaps"] == rows["attention"]["multipliers"] == []
    for family, lower in LOWER.items():
        r = rows[family]
        assert r["n_exponent"] == pytest.approx(0.5, abs=0.02)
        assert r["size"] == 24 and r["tokens_per_s"] == 1e5
        for e in r["gaps"]:
            base = 2.3 * (e["flops"] / 2e10) ** -STEEP
            assert e["reference_loss"] == pytest.approx(base, rel=2e-3)
            assert e["difference"] == pytest.approx(base * (math.exp(-lower) - 1), abs=3e-3)
        # the reference needs exp(lower / STEEP) times the compute to come down by that much
        for e in r["multipliers"]:
            assert math.log(e["leverage"]) == pytest.approx(lower / STEEP, abs=0.05)
    assert len(rows["hybrid"]["gaps"]) == 3
    # an LSTM keeps h and c of two layers of 24; attention keys and values of both
    assert rows["lstm"]["state_per_sequence"] == 4 * 2 * 2 * 24
    assert rows["attention"]["kv_cache_per_token"] == 4 * 2 * 2 * 24
    text = answer_text.lines(record.finite(a))
    assert "minus attention's at equal FLOPs" in text[0]
    assert text[1].startswith("  hybrid: best at") and "x2.1" in text[1]


def test_the_bracket_beside_the_grid_is_judged_and_not_fitted():
    results = isoflop(0.0)
    low = next(r for r in results if r["tags"]["role"] == "bracket" and r["family"] == "lstm")
    low["validation"]["loss"] -= 1.0
    kept, verdicts = points.tuned([points.point(r) for r in results])
    assert not [p for p in kept if p["role"] == "bracket"]
    best = {v["family"]: v["best_multiplier"] for v in verdicts}
    assert best == {"attention": 1, "attention_moe": 1, "hybrid": 1, "lstm": 0.5}


def test_dense_and_moe_have_comparisons_of_their_own():
    families = {f: {"parabolas": [{}, {}]} for f in ("dense", "moe")}
    assert frontiers.compare(families, {}, [], "dense", []) == []


GAIN = {"attention": 0.10, "window": 0.0, "mamba2": 0.06, "lstm": 0.02}  # nats for a doubling


def contexts(noise: float) -> list[dict]:
    results, rng = results_of(recipes.load("context")), np.random.default_rng(0)
    for r in results:
        arm, _, t = r["family"].rpartition("_")
        seed = r["run"]["seed"]  # what seeds share goes out of a difference
        loss = 2 + 0.3 * seed - GAIN[arm] * math.log2(int(t) / 128)
        r["validation"]["loss"] = loss + noise * rng.standard_normal()
        r["loss_by_position"] = by_position(loss, int(t))
    return results


def test_gains_from_context_are_of_the_same_model_and_seed():
    a = sweep_analysis.analyse(contexts(1e-3), resamples=20)
    rows = a["contexts"]
    assert {r["arm"] for r in rows} == set(GAIN) and len(rows) == 20
    for r in rows:
        doublings = math.log2(r["context"] / 128)
        if r["context"] == 128:
            assert r["gain"] is None
            continue
        assert r["gain"] == pytest.approx(GAIN[r["arm"]] * doublings, abs=5e-3) and r["seeds"] == 3
        assert r["gain_interval"][1] - r["gain_interval"][0] < 0.02
    text = answer_text.lines(record.finite(a))
    assert [t.partition(",")[0] for t in text[:4]] == ["attention", "mamba2", "lstm", "window"]
    assert "2,048 tokens of context instead of 128 gain 0." in text[0]
    shown = loss_by_position.curves_of(contexts(0.0), a)
    assert {r["family"] for r in shown} == {f"{arm}_2048" for arm in GAIN}  # the longest


def test_arms_of_two_contexts_keep_their_names():
    """attention_128 and attention_1024 have a digit in common."""
    two = [p for p in map(points.point, contexts(0.0)) if p["context"] in (128, 1024)]
    assert {r["arm"] for r in context_gains.compare(two)} == set(GAIN)


def test_no_two_arms_look_alike():
    names = [*plotting.COLOUR, "jamba", "mamba2", "mamba2_moe"]
    styles = plotting.styles(names)
    assert len({(s.colour, s.mark) for s in styles.values()}) == len(names)
    assert styles["mamba2"].colour == styles["mamba2_moe"].colour


def test_a_title_names_a_few_arms():
    few = [{"family": f} for f in ("dense", "moe")]
    assert page._arms(few) == "dense against mixture of experts"
    many = [{"family": f"a{i}"} for i in range(20)]
    assert page._arms(many) == "a0; a1; a10; a11; a12 and 15 more arms"


def test_models_of_one_context_have_no_gain():
    assert context_gains.compare([points.point(r) for r in isoflop(0.0)]) == []


def test_curves_by_position_are_of_the_largest_budget_and_its_best_size():
    results = isoflop(0.0)
    a = sweep_analysis.analyse(results, resamples=20)
    for row in loss_by_position.curves_of(results, a):
        own = [
            r
            for r in results
            if r["family"] == row["family"]
            and (r["tags"]["budget"], r["tags"]["role"]) == (4e10, "grid")
        ]
        best = min(own, key=lambda r: r["validation"]["loss"])
        assert row["size"] == best["tags"]["size"]
        assert row["loss"] == pytest.approx(best["loss_by_position"]["loss"])
        assert row["interval"][0] == pytest.approx(
            [row["loss"][0] - 0.0196, row["loss"][0] + 0.0196]
        )
    html = page.render("architectures", results, a, {})
    assert "Loss by position in the window" in html and "best at equal FLOPs" in html
    assert "could not be made" not in html


def test_records_without_positions_are_drawn_without_them():
    results = isoflop(0.0)
    for r in results:
        del r["loss_by_position"]
    a = {"fitted": [r["id"] for r in results], "contexts": []}
    assert loss_by_position.section(results, {}, a) == ""
