"""What stands for N in a fit, counted apart."""

import dataclasses

import pytest

from experiments import recipes
from experiments.laws.conventions import N_CONVENTIONS, n_of
from experiments.laws.runs import points, sweep_folder
from experiments.planning import ladder
from model import account
from tests.verbs.made_up_sweeps import call, results_of, written


@pytest.mark.parametrize("arm", ["dense", "moe"])
@pytest.mark.parametrize("tied", [False, True])
def test_n_without_the_vocabulary(arm, tied):
    """Layers and norms of one token: whether a head is tied or not."""
    base = dataclasses.replace(recipes.load("quickstart").run.model, tied=tied)
    p = account.parameters(ladder.shape(base, 32, arm))
    g = p["groups"]
    share = {"experts": 2 / 8}  # top-2 of eight
    layers = sum(share.get(k, 1) * g[k] for k in g if k not in ("token_embedding", "head"))
    assert n_of(p, "non_vocabulary") == layers < p["active_non_embedding"] + tied
    assert all(n_of(p, k) == p[k] for k in N_CONVENTIONS if k != "non_vocabulary")


def test_a_sweep_is_read_by_it(tmp_path, capsys):
    job = recipes.load("quickstart")
    one = results_of(job)[0]
    n = n_of(one["parameters"], "non_vocabulary")
    assert points.point(one, "non_vocabulary")["n"] == n < points.point(one)["n"]
    assert sweep_folder.run_row(one, "non_vocabulary")["n_params"] == n
    work = written(tmp_path, job)
    for verb in ("fit", "report"):
        argv = (verb, f"--workdir={work}", "--n=non_vocabulary", "--bootstrap=20")
        status, out, err = call(capsys, *argv)
        assert status == 0 and "could not be made" not in out, err
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "N (non_vocabulary)" in page
