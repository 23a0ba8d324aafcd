"""Tables of runs for the tests: published ones where they are at hand, and simulated ones."""

import csv
import json
import os

import numpy as np
import pytest

from experiments import cli
from experiments.laws.fitting import (
    fit,
    solve,
)
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from experiments.laws.runs import table as tables
from tests.conftest import ROOT

PUBLISHED = os.path.join(os.path.dirname(ROOT), "shared", "published")


FILES = {
    "besiroglu2024": "chinchilla_fig4.csv",
    "gadre2024": "gadre_overtraining.csv",
    "clark2022": "clark2022_routed_final.csv",
}


at_hand = pytest.mark.skipif(
    not os.path.isdir(PUBLISHED), reason="the published runs are not at hand"
)


TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def published(name):
    return os.path.join(PUBLISHED, FILES[name])


def chinchilla_points():
    t = tables.where(tables.read_csv(published("besiroglu2024")), "is_outlier==0")
    return {"N": t["n_params"], "D": t["flops"] / (6 * t["n_params"])}, t["loss"]


def simulated(runs=40, sigma=0.003, seed=0):
    """A table with the common columns, losses of TRUTH."""
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(7, 10, runs), 10 ** rng.uniform(9, 12, runs)
    form = FORMS["chinchilla3"]
    loss = solve.predict(form, form.theta(**TRUTH), {"N": n, "D": d})[0] * np.exp(
        sigma * rng.standard_normal(runs)
    )
    return {
        "run_id": np.array([f"r{i}" for i in range(runs)], object),
        "n_params": n,
        "tokens": d,
        "flops": 6 * n * d,
        "loss": loss,
    }


def write_csv(path, t, rename=()):
    names = {k: dict(rename).get(k, k) for k in t}
    with open(path, "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(names.values())
        w.writerows(zip(*t.values()))
    return str(path)


def call(capsys, *argv):
    status = cli.main(list(argv))
    out = capsys.readouterr()
    return status, out.out, out.err


def known(law="chinchilla3", values=None, inputs="ND"):
    form = FORMS[law]
    x = {k: np.array([1e8, 1e9]) for k in inputs}
    return fit.Fitted(
        law,
        form,
        Points(x, np.ones(2)),
        Objective(),
        form.theta(**(values or TRUTH)),
        0.0,
        np.zeros(2),
        True,
        1.0,
        np.zeros((0, len(form.names))),
        None,
        "",
    )


def folder(path, seed=0):
    """A sweep's folder as the records have it."""
    t = simulated(12, seed=seed)
    for i in range(12):
        where = path / "runs" / f"{seed}{i:011d}"
        where.mkdir(parents=True)
        result = {
            "id": where.name,
            "family": "dense",
            "status": "finished",
            "tags": {"size": i, "budget": None, "role": "tokens"},
            "run": {"seed": 0, "model": {"d_ff": 8}, "optimizer": {"lr": 0.01}},
            "parameters": {
                "multiplied": t["n_params"][i],
                "total": 2 * t["n_params"][i],
                "active": t["n_params"][i],
            },
            "training_tokens": t["tokens"][i],
            "flops": {"matmul": t["flops"][i], "6N": 2 * t["flops"][i]},
            "validation": {"loss": t["loss"][i]},
        }
        (where / "result.json").write_text(json.dumps(result))
        lines = [
            {"step": k, "tokens": t["tokens"][i] * k / 40, "loss": t["loss"][i] + (40 - k) / 100}
            for k in range(1, 41)
        ]
        (where / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "tok'
        )
    return str(path)
