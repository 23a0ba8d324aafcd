"""What a law says about budgets: optima, memory, inference, experts over dense."""

import numpy as np
import pytest

from experiments.laws import table_fit
from experiments.laws.fitting import (
    allocation,
    solve,
)
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.published import constants as published_values
from tests.laws.tables_of_runs import TRUTH, known


def test_optimum_is_the_closed_form():
    f, c = known(), 1e21
    a = allocation.optimum(f, c, allocation.Cost(), {})
    g = (TRUTH["alpha"] * TRUTH["A"] / (TRUTH["beta"] * TRUTH["B"])) ** (
        1 / (TRUTH["alpha"] + TRUTH["beta"])
    )
    n = g * (c / 6) ** (TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]))
    assert a["n_opt"]["value"] == pytest.approx(n, rel=1e-3) and a["d_opt"][
        "value"
    ] == pytest.approx(c / 6 / n, rel=1e-3)
    assert a["tokens_per_parameter"]["value"] == pytest.approx(c / 6 / n / n, rel=2e-3)
    assert f.parameters["G"] == pytest.approx(g, rel=1e-9) and f.parameters[
        "n_exponent"
    ] == pytest.approx(0.5126, abs=1e-4)


def test_memory_and_inference():
    f, c = known(), 1e21
    free = allocation.optimum(f, c, allocation.Cost(), {})
    tight = allocation.optimum(f, c, allocation.Cost(), {}, memory=16 * free["n_opt"]["value"] / 3)
    assert tight["memory_binds"] and tight["n_opt"]["value"] == pytest.approx(
        free["n_opt"]["value"] / 3, rel=1e-6
    )
    assert tight["loss"]["value"] > free["loss"]["value"]
    wide = allocation.optimum(f, c, allocation.Cost(), {}, memory=160 * free["n_opt"]["value"])
    assert not wide["memory_binds"] and wide["n_opt"]["value"] == pytest.approx(
        free["n_opt"]["value"], rel=1e-3
    )
    served = allocation.optimum(f, c, allocation.Cost(), {}, inference=1e12)
    assert (
        served["n_opt"]["value"] < free["n_opt"]["value"]
        and served["loss"]["value"] > free["loss"]["value"]
    )
    # the same loss for the least sum: without inference the budget comes back, with it the model is
    # smaller and longer trained
    back = allocation.cheapest(f, free["loss"]["value"], 0.0, allocation.Cost(), {})
    assert back["flops"]["value"] == pytest.approx(c, rel=1e-3) and back["n_opt"][
        "value"
    ] == pytest.approx(free["n_opt"]["value"], rel=2e-2)
    more = allocation.cheapest(f, free["loss"]["value"], 1e13, allocation.Cost(), {})
    assert (
        more["n_opt"]["value"] < back["n_opt"]["value"]
        and more["d_opt"]["value"] > back["d_opt"]["value"]
    )
    assert "no model" in allocation.cheapest(f, 1.5, 0.0, allocation.Cost(), {})["verdict"]


def test_leverage_and_where_routing_stops():
    values = published_values.PUBLISHED["ludziejewski2025"].values
    f = known("ludziejewski2025", values | {"Es": 1.0 + 1e-4, "Em_over_Es": 1e5}, "NDE")
    # the shared notes' check of the signs, at N = 1e9, D = 2e10 and Eh = 1, 8, 32
    x = {"N": np.full(3, 1e9), "D": np.full(3, 2e10), "E": np.array([1.0, 8, 32])}
    assert f.predict(x)[0] == pytest.approx([2.614, 2.513, 2.451], abs=2e-3)
    lever = allocation.leverage(f, 1e20, 8.0, allocation.Cost())
    dense = allocation.frontier(f, lever["value"] * 1e20, allocation.Cost(), {"E": 1.0})[2][0]
    moe = allocation.frontier(f, 1e20, allocation.Cost(), {"E": 8.0})[2][0]
    assert lever["value"] > 1 and dense == pytest.approx(moe, rel=1e-4)
    assert (
        "still helps"
        in allocation.routing_stops([{"flops": 1e20, "value": 2.0}, {"flops": 1e21, "value": 1.5}])[
            "words"
        ]
    )
    assert allocation.routing_stops([{"flops": 1e20, "value": 2.0}, {"flops": 1e22, "value": 0.5}])[
        "flops"
    ] == pytest.approx(1e21)
    assert (
        "no leverage" in allocation.routing_stops([{"flops": 1e20, "value": float("nan")}])["words"]
    )
    clark = known(
        "clark2022",
        {"a": -0.083, "b": -0.126, "c": 0.012, "d": 1.111, "Es": 1.88, "Em_over_Es": 250.0},
        "NE",
    )
    n_eff = allocation.effective_parameters(clark, 1e9, 64)["value"]
    same = clark.predict({"N": np.array([n_eff, 1e9]), "E": np.array([1.0, 64.0])})[0]
    assert (
        n_eff > 1e9
        and same[0] == pytest.approx(same[1], rel=1e-6)
        and allocation.effective_parameters(clark, 1e9, 1)["value"] == pytest.approx(1e9)
    )
    assert clark.parameters["N_cut"] == pytest.approx(10 ** (0.126 / 0.012))


def test_expert_law_answers_with_a_band():
    """A table of dense and MoE runs: leverage as a curve with its band, the optimum under a memory
    limit that counts all experts.
    """
    values = published_values.PUBLISHED["ludziejewski2025"].values
    form, rng = FORMS["ludziejewski2025"], np.random.default_rng(0)
    n, d, e = (
        v.ravel()
        for v in np.meshgrid(
            np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4), [1.0, 2, 4, 8, 16, 64, 128]
        )
    )
    x = {"N": n, "D": d, "E": e}
    loss = solve.predict(form, form.theta(**values, Es=2.0, Em_over_Es=150.0), x)[0] * np.exp(
        5e-4 * rng.standard_normal(len(n))
    )
    t = {
        "n_active_params": n,
        "n_params": n * (1 + 0.6 * (e - 1)),
        "n_experts": e,
        "tokens": d,
        "flops": 6 * n * d,
        "loss": loss,
    }
    a = table_fit.ask(
        t, "ludziejewski2025", resamples=20, asked=[{"C": 1e19, "E": 8.0, "memory": 16e9 * 2.0}]
    )
    curve, p = a["leverage"]["curve"], a["predictions"][0]
    assert (
        len(curve) == 7
        and all(r["interval"][0] <= r["value"] <= r["interval"][1] for r in curve[:4])
        and curve[0]["value"] > 1
    )
    assert (
        a["leverage"]["words"]
        and p["n_max"] == pytest.approx(2e9 / (1 + 0.6 * 7), rel=1e-3)
        and p["n_opt"]["value"] <= p["n_max"] * 1.001
    )
    assert p["leverage_over_dense"]["value"] > 1


def test_identities_between_forms():
    """Gadre's law is Chinchilla's with alpha = beta = 2 eta; repeated data leave it where every
    token is fresh; Abnar's has two N terms at S = 0.
    """
    n, d = np.geomspace(1e7, 1e10, 7), np.geomspace(1e12, 1e9, 7)
    v, eta = TRUTH, 0.17
    chin = known(values=v | {"alpha": 2 * eta, "beta": 2 * eta}).predict({"N": n, "D": d})[0]
    g = known(
        "gadre2024", {"E": v["E"], "a": v["A"] * 6**eta, "b": v["B"] * 6**eta, "eta": eta}, "CM"
    )
    assert g.predict({"C": 6 * n * d, "M": d / n})[0] == pytest.approx(chin, rel=1e-9)
    m = known("muennighoff2023", v | {"RD": 15.0, "RN": 1e6}, "NDU")
    fresh = m.predict({"N": n, "D": d, "U": d})[0]
    assert fresh == pytest.approx(known(values=v).predict({"N": n, "D": d})[0], rel=1e-3)
    far = m.predict({"N": n, "D": np.full(7, 1e15), "U": np.full(7, 1e9)})[0]
    assert far == pytest.approx(
        m.predict({"N": n, "D": np.full(7, 1e17), "U": np.full(7, 1e9)})[0], rel=1e-9
    )  # D' has a limit
    a = published_values.PUBLISHED["abnar2025"].values
    law = known("abnar2025", a, "NDS").predict(
        {"N": np.full(4, 1e9), "D": np.full(4, 2e10), "S": np.array([0, 0.5, 0.9, 0.98])}
    )[0]
    assert law == pytest.approx([2.566, 2.590, 2.702, 2.898], abs=2e-3)
