"""Published fits repeated from the authors' runs; their files are fetched, kept and checked."""

import gzip
import json
import os
import shutil
import tarfile

import pytest

from experiments.laws.exceptions import FitError
from experiments.laws.published import reproduce, sources
from experiments.laws.runs import table as tables
from tests.conftest import ROOT
from tests.laws.tables_of_runs import PUBLISHED, at_hand, call, published, write_csv


@at_hand
def test_besiroglu(capsys, tmp_path):
    rows, _ = reproduce.run("besiroglu2024", tables.read_csv(published("besiroglu2024")), 100)
    v = {r.what: r for r in rows}
    assert v["sum-Huber at the optimum, at most"].reproduced <= 0.0010183
    for k, value, tolerance in (
        ("alpha", 0.3473, 0.001),
        ("beta", 0.3672, 0.002),
        ("E", 1.8172, 0.002),
    ):
        assert v[f"{k}, sum-Huber"].reproduced == pytest.approx(value, abs=tolerance)
    assert all(r.agrees for r in rows if r.agrees is not None), [
        r for r in rows if r.agrees is False
    ]
    assert sum("interval" in r.what for r in rows) == 6 and any(
        "stops after 2 iterations" in r.what for r in rows
    )


@at_hand
def test_gadre_and_clark():
    for name, count in (("gadre2024", 16), ("clark2022", 19)):
        rows, _ = reproduce.run(name, tables.read_csv(published(name)), 40)
        judged = [r for r in rows if r.agrees is not None]
        assert len(judged) == count and all(r.agrees for r in judged), [
            r for r in judged if not r.agrees
        ]
        assert (
            name == "gadre2024"
            or sum("effective parameters" in r.what and r.interval is not None for r in rows) == 6
        )
    assert all(
        r.mark.startswith(("unverified", "measured", "verified"))
        for r in rows
        if r.published is not None
    )


@at_hand
def test_reproduce_verb(capsys, tmp_path):
    figure = tmp_path / "clark.svg"
    status, out, _ = call(
        capsys,
        "reproduce",
        "clark2022",
        f"--data={published('clark2022')}",
        f"--figure={figure}",
        "--bootstrap=20",
        "--format=json",
    )
    a = json.loads(out)
    assert (
        status == 0
        and figure.read_text().startswith("<svg")
        and all(r["verdict"] != "DIFFERS" for r in a["rows"])
        and a["source"]["sha256"]
    )
    status, out, _ = call(
        capsys,
        "reproduce",
        "gadre2024",
        f"--data={published('gadre2024')}",
        f"--figure={figure}",
        "--bootstrap=20",
    )
    assert status == 0 and "unverified" in out and "0 differ" in out and out.count("agrees") >= 16


def raw_files(folder):
    """The authors' layouts, made of the tidy files."""
    t = tables.read_csv(published("besiroglu2024"))
    raw = {
        "besiroglu2024": write_csv(
            folder / "svg.csv",
            {"Model Size": t["n_params"], "Training FLOP": t["flops"], "loss": t["loss"]},
        )
    }
    t = tables.read_csv(published("clark2022"))
    cols = [
        "run_id",
        "step",
        "router",
        "k",
        "num_experts",
        "routing_frequency",
        "flop_increase",
        "seed",
        "n_params",
        "n_active_params",
        "fwd_flops_per_step",
        "loss",
    ]
    theirs = [
        "hyper_id",
        "step",
        "router_type",
        "k",
        "num_experts",
        "routing_frequency",
        "flop_increase",
        "seed",
        "total_parameter_count",
        "dense_parameter_count",
        "flops_per_step",
        "loss_validation",
    ]
    t = t | {"k": t["top_k"], "num_experts": t["n_experts"]}
    write_csv(folder / "c.csv", {b: t[a] for a, b in zip(cols, theirs)})
    raw["clark2022"] = str(folder / "curves.csv.gz")
    with gzip.open(raw["clark2022"], "wt") as f:
        f.write((folder / "c.csv").read_text())
    t, raw["gadre2024"] = tables.read_csv(published("gadre2024")), str(folder / "g.tar.gz")
    with tarfile.open(raw["gadre2024"], "w:gz") as tar:
        # what lies beside the models and their evaluations in the authors' archive
        for where in ("s/exp_data/grid.json", "s/exp_data/eval_metadata.csv", "s/scaling/a.json"):
            (folder / "x.json").write_text('{"dclm": []}')
            tar.add(folder / "x.json", where)
        for i, name in enumerate(t["run_id"]):
            h = {
                "model": t["model"][i],
                "params": t["n_params"][i],
                "tokens": t["tokens"][i],
                "chinchilla_multiplier": t["tokens_per_param"][i] / 20,
            }
            model = {
                "dataset_name": t["train_set"][i],
                "hyperparameters": h,
                "results": [{"val_data": ["x/c4_val/y.tar"], "loss": t["loss"][i]}],
            }
            task = {"eval_metrics": {"icl": dict.fromkeys(sources._SUBSET, 1 - t["err_avg17"][i])}}
            for where, value in (
                (f"s/exp_data/models/{name}.json", model),
                (f"s/exp_data/evals/evaluation_{name}_heavy.json", task),
            ):
                (folder / "x.json").write_text(json.dumps(value))
                tar.add(folder / "x.json", where)
    return raw


@at_hand
def test_authors_files_are_fetched_kept_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    tidy = {
        "besiroglu2024": ("loss", None),
        "clark2022": ("in_main_fit", "router"),
        "gadre2024": ("fit_point_loss", "err_avg17"),
    }
    for name, path in raw_files(tmp_path).items():
        s = sources.SOURCES[name]._replace(url=f"file://{path}")
        monkeypatch.setitem(sources.SOURCES, name, s)
        with pytest.raises(FitError, match="has (SHA-256|git tree) .*, not .*: remove it"):
            sources.load(name)
        shutil.rmtree(tmp_path / "cache")
        assert "NOT the pinned file: it has" in sources.load(name, path)[1]["how"]
        pins = {"sha256": sources.sha256(path), "trees": ()}
        if s.trees:

            def tree(where):
                return sources.git_tree(sources.archived(path, where))

            pins = {"trees": tuple((where, tree(where)) for where, _ in s.trees)}
        monkeypatch.setitem(sources.SOURCES, name, s._replace(**pins))
        t, source = sources.load(name)
        want = tables.read_csv(published(name))
        assert len(t["loss"]) == len(want["loss"]) and sorted(t["loss"]) == pytest.approx(
            sorted(want["loss"])
        )
        assert sum(t.get("in_main_fit", [0])) == sum(want.get("in_main_fit", [0]))
        assert (
            sum(t.get("fit_point_loss", [0])) == sum(want.get("fit_point_loss", [0])) and tidy[name]
        )
        assert sum(t.get("is_outlier", [0])) == sum(want.get("is_outlier", [0]))
        assert source["sha256"] == sources.sha256(path) and "as pinned" in source["how"]
        os.remove(path)  # the cache serves the second call
        assert sources.load(name)[1]["sha256"] == source["sha256"]
        with open(source["path"], "r+b") as f:
            f.seek(os.path.getsize(source["path"]) // 2)
            f.write(b"xxxx")
        with pytest.raises(FitError, match="(has|cannot be read) .*: remove it"):
            sources.load(name)


def test_git_trees_are_gits():
    files = {"b.json": (False, b"{}\n"), "a.sh": (True, b"true\n")}
    assert sources.git_tree({}) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert sources.git_tree(files) == "c3158775047ea249d412b7b4f61c9f5a2ccf63a0"


@at_hand
def test_gadre_from_the_authors_own_folder():
    """Every row agrees, the 17-task errors too, and the folders are the pinned ones."""
    path = os.path.join(PUBLISHED, "gadre_exp_data.tar.gz")
    t, source = sources.load("gadre2024", path)
    assert len(t["loss"]) == len(tables.read_csv(published("gadre2024"))["loss"])
    assert source["how"].endswith("as pinned")
    rows, _ = reproduce.run("gadre2024", t, 20)
    assert len(rows) == 16 and all(r.agrees for r in rows)
    assert [f"{r.reproduced:.4f}" for r in rows if "17-task" in r.what] == ["3.6365", "0.0464"]


def test_without_a_network_it_says_how(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(
        sources.SOURCES,
        "gadre2024",
        sources.SOURCES["gadre2024"]._replace(url="file:///no/such/file"),
    )
    status, out, err = call(capsys, "reproduce", "gadre2024")
    assert (
        status == 2
        and not out
        and err.count("\n") == 1
        and "--data=FILE" in err
        and not (tmp_path / "cache").exists()
    )
    for argv, words in (
        (["reproduce"], "name a published fit"),
        (["reproduce", "hoffmann"], "not 'hoffmann'"),
        (["reproduce", "gadre2024", "--data=/none.csv"], "does not exist"),
        (
            ["reproduce", "gadre2024", f"--data={os.path.join(ROOT, 'README.md')}"],
            "neither the authors' file",
        ),
    ):
        status, out, err = call(capsys, *argv)
        assert status == 2 and not out and err.count("\n") == 1 and words in err, err
