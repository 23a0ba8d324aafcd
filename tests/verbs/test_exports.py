"""What a paper takes from a report: every figure, tables and a paragraph of methods."""

import csv
import json

from experiments import recipes
from experiments.report import exports
from tests.verbs.made_up_sweeps import call, written


def test_figures_and_tables(tmp_path, capsys):
    work = written(tmp_path, recipes.load("quickstart"))
    to = {k: tmp_path / "paper" / k for k in ("figures", "tables")}
    flags = [f"--{k}={v}" for k, v in to.items()]
    argv = ["report", f"--workdir={work}", "--bootstrap=20", "--format=json", *flags]
    status, out, err = call(capsys, *argv)
    assert status == 0, err
    named = json.loads(out)["exports"]
    assert named and all((tmp_path / n).exists() for n in named)
    page = (tmp_path / "sweep" / "report.html").read_text()
    svgs = sorted(to["figures"].glob("*.svg"))
    assert len(svgs) == page.count("<svg ") >= 5
    assert {p.stem for p in svgs} >= {"isoflop_curves", "compute_optimal", "parametric_law"}
    for path in svgs:
        text = path.read_text()
        assert text.startswith("<?xml") and text[text.index("<svg") :] in page
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")

    def rows(name):
        return list(csv.DictReader((to["tables"] / name).read_text().splitlines()))

    runs, laws = rows("runs.csv"), rows("laws.csv")
    assert len(runs) == 34 and float(runs[0]["flops"]) > 1e10 and runs[0]["family"] == "dense"
    # its own CSV is a table that fits: the same law comes out of it
    table = str(to["tables"] / "runs.csv")
    fit = ["--law=chinchilla3", "--bootstrap=20", "--format=json", "--where=family==dense"]
    two = [json.loads(call(capsys, "fit", f"--runs={r}", *fit)[1]) for r in (work, table)]
    assert two[0]["parameters"] == two[1]["parameters"]
    analysis = json.loads((tmp_path / "sweep" / "analysis.json").read_text())
    first = next(r for r in laws if (r["arm"], r["quantity"]) == ("dense", "N_opt ~ C^"))
    assert float(first["value"]) == analysis["families"]["dense"]["n_exponent"]
    tex = (to["tables"] / "laws.tex").read_text()
    assert r"N\_opt \textasciitilde{} C\textasciicircum{}" in tex and r"\end{tabular}" in tex
    assert f"{float(first['value']):.4g}" in tex and tex.count(r" \\") == len(laws) + 1
    methods = (to["tables"] / "methods.txt").read_text()
    for said in ("34 models", "parameters a token is multiplied by", "matmul FLOPs", "nats/token"):
        assert said in methods, said


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    work = written(tmp_path, recipes.load("quickstart"))
    status, _, err = call(capsys, "report", f"--workdir={work}", "--figures=/proc/nothing")
    assert status == 2 and "--figures=/proc/nothing cannot be written" in err
    assert not (tmp_path / "sweep" / "report.html").exists()


def test_text_that_latex_reads():
    assert exports.tex(r"a_b & 5% {x} \ ^") == (
        r"a\_b \& 5\% \{x\} \textbackslash{} \textasciicircum{}"
    )
