"""`from experiments.laws import ...`, and the notebook that shows it."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments import laws
from experiments.laws.exceptions import FitError
from experiments.laws.runs import table as tables
from tests.conftest import ROOT
from tests.laws.tables_of_runs import simulated, write_csv

NOTEBOOKS = sorted(pathlib.Path(ROOT, "docs", "notebooks").glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text())["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run_and_are_kept_without_outputs(path, tmp_path, monkeypatch, capsys):
    """Its code cells, one after the other, as a kernel would; from another folder."""
    pytest.importorskip("pandas")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    code = [c for c in cells(path) if c["cell_type"] == "code"]
    assert code and all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    names: dict = {}
    for i, c in enumerate(code):
        exec(compile("".join(c["source"]), f"{path.name}[{i}]", "exec"), names)
    assert shown and len({c["id"] for c in cells(path)}) == len(cells(path))
    plt.close("all")
    low, high = names["next_run"]["interval"]
    assert low < names["next_run"]["loss"] < high and names["next_run"]["distance"] > 3.9
    assert names["laws"]["dense"]["parameters"]["A"] != names["laws"]["moe"]["parameters"]["A"]
    tied = names["tied"]["parameters"]
    assert tied["alpha"] == pytest.approx(tied["beta"])
    assert all(np.isfinite(r["multiplier"]["value"]) for r in names["sides"]["curve"])
    assert "loss" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_lines_of_notebooks_fit_the_page():
    for path in NOTEBOOKS:
        for c in cells(path):
            assert all(len(line.rstrip("\n")) <= 100 for line in c["source"]), c["id"]


def test_runs_may_be_a_file_a_table_or_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    t = simulated(24)
    path = write_csv(tmp_path / "runs.csv", t)
    found = [
        laws.fit(runs, ask=["N=1e9,D=1e10"], resamples=20)
        for runs in (path, [path], pathlib.Path(path), tables.read_csv(path), pandas.DataFrame(t))
    ]
    for other in found[1:]:
        assert other["parameters"] == pytest.approx(found[0]["parameters"], rel=1e-6)
    said = found[0]["predictions"][0]
    assert said["given"] == {"N": 1e9, "D": 1e10}
    held = laws.fit(t, fix="E=1.8", resamples=20)
    assert held["parameters"]["E"] == pytest.approx(1.8)
    with pytest.raises(FitError, match="no such column"):
        laws.fit(t, family="dense")


def test_the_door_loads_no_room_and_knows_its_names():
    code = "import sys, experiments.laws; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    for name in laws.__all__:
        assert callable(getattr(laws, name))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        importlib.import_module("experiments.laws").fitt  # noqa: B018
