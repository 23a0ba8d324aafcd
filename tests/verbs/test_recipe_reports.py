"""Every sweep among the recipes is fitted, reported and summed up, from made-up records."""

import dataclasses
import os

import pytest

from experiments import recipes
from experiments.planning.grid import SweepJob
from tests.verbs.made_up_sweeps import call, written

SWEEPS = [n for n in recipes.RECIPES if isinstance(recipes.load(n), SweepJob)]


def few(name: str) -> SweepJob:
    """A recipe, of many arms the first ones."""
    job = recipes.load(name)
    arms = job.sweep.arms[: MANY.get(name)]
    families = tuple(n for n, _ in arms) or job.sweep.families
    return dataclasses.replace(
        job, sweep=dataclasses.replace(job.sweep, arms=arms, families=families)
    )


MANY = {"architectures": 2, "context": 10}


# larger, or like another one
LONG = (
    "batch",
    "dense_vs_moe",
    "isoflop",
    "kaplan_to_chinchilla",
    "known_entropy",
    "known_truth",
    "predict",
    "repeats",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in SWEEPS]
)
def test_every_recipe_is_fitted_and_reported(name, tmp_path, capsys):
    work = written(tmp_path, few(name))
    status, out, err = call(capsys, "fit", f"--workdir={work}", "--bootstrap=30")
    assert status == 0, err
    assert "not identified by these runs (0 of 0" not in out
    status, out, err = call(capsys, "report", f"--workdir={work}", "--bootstrap=30")
    assert status == 0 and os.path.exists(os.path.join(work, "report.html")), err
    status, out, err = call(capsys, "status", work)
    assert status == 0 and "done" in out, err
