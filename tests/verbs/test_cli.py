"""The verbs as a person types them, mistakes included: one line on stderr, status 2, nothing
written.
"""

import json
import os
import subprocess
import sys
import types

import pytest

from experiments import cli, recipes
from launch.runs import record
from tests.conftest import ROOT

BUDGETS = "--set=sweep.budgets=2e8,4e8,8e8"


def call(capsys, *argv):
    status = cli.main(list(argv))
    out = capsys.readouterr()
    return status, out.out, out.err


BAD = [
    (["train", "--config=tiny_dens", "--workdir={new}"], "did you mean 'tiny_dense'"),
    (["train", "--workdir={new}"], "--config is missing"),
    (["train", "--config=tiny_dense"], "--workdir is missing"),
    (["train", "--config=quickstart", "--workdir={new}"], "use isoflop sweep"),
    (["sweep", "--config=tiny_moe", "--workdir={new}"], "use isoflop train"),
    (["train", "--config=nofile.py", "--workdir={new}"], "is not a file"),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=model.d_modle=8"],
        "did you mean model.d_model",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=model.d_model=eight"],
        "cannot read it as int",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=model.attention.n_heads=5"],
        "does not divide",
    ),
    (
        ["train", "--config=tiny_moe", "--workdir={new}", "--set=model.moe.top_k=9"],
        "cannot choose more experts",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--mesh=data=4"],
        "batch=2 is not a multiple of data x fsdp x expert of the mesh = 4: try batch=4",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=where.accumulate=0"],
        "at least 1 micro-batch",
    ),
    (
        [
            "train",
            "--config=tiny_dense",
            "--workdir={new}",
            "--set=where.steps_per_dispatch=1000000000",
        ],
        "is more than 1000",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=where.accumulate=3"],
        "not a multiple of where.accumulate = 3: try batch=3",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--mesh=data=16"],
        "needs 16 devices, here are 8",
    ),
    (["train", "--config=tiny_dense", "--workdir={new}", "--processes=2"], "need --coordinator"),
    (
        ["count", "--config=tiny_moe", "--mesh=expert=3", "--set=batch=3", "--compile"],
        "does not divide",
    ),
    (["count", "--config=tiny_moe", "--topology=v5e:4x4"], "give --compile"),
    (
        ["count", "--config=tiny_dense", "--mesh=expert=2", "--set=batch=2", "--compile"],
        "has no experts",
    ),
    (["train", "--config=tiny_dense", "--workdir={new}", "--mesh=data=16"], "needs 16 devices"),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--mesh=rows=4"],
        "axes are data, fsdp, tensor, expert",
    ),
    (
        [
            "train",
            "--config=tiny_dense",
            "--workdir={new}",
            "--set=data.source=text",
            "--set=data.path=/none/*.txt",
        ],
        "matches no file",
    ),
    (
        [
            "train",
            "--config=tiny_dense",
            "--workdir={new}",
            "--set=data.source=text",
            "--set=data.path={empty}",
        ],
        "is empty",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=model.vocab_size=100"],
        "set model.vocab_size=256",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=where.moe=blocks"],
        "choose from auto",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=schedule.decay=cosin"],
        "did you mean 'cosine'",
    ),
    (
        ["train", "--config=tiny_dense", "--workdir={new}", "--set=horizon.steps=0"],
        "exactly one of",
    ),
    (["train", "--config=tiny_dense", "--workdir=/proc/nothing"], "cannot be written"),
    (["train", "--config=tiny_dense", "--workdir={full}"], "holds no run"),
    (["train", "--config=tiny_dense", "--workdir={new}", "--formt=json"], "formt"),
    (["train", "--config=tiny_dense", "--workdir={new}", "--format=xml"], "json"),
    (["train", "tiny_dense"], "unexpected argument"),
    (
        ["sweep", "--config=quickstart", "--workdir={new}", "--set=sweep.budgets=1e3"],
        "too small for any size",
    ),
    (
        ["sweep", "--config=quickstart", "--workdir={new}", "--set=model.d_model=32"],
        "set sweep.sizes instead",
    ),
    (
        ["sweep", "--config=quickstart", "--workdir={new}", "--set=sweep.sizes=17"],
        "nearest that fits",
    ),
    (
        ["sweep", "--config=quickstart", "--workdir={new}", "--set=sweep.families=dense,mow"],
        "unknown family",
    ),
    (["sweep", "--config=quickstart", "--workdir={new}", "--set=sweep.seeds=0,0"], "twice"),
    (["sweep", "--config=quickstart", "--workdir={new}", "--set=sweep.sizes="], "empty"),
    (["sweep", "--config=quickstart", "--workdir={full}"], "holds no sweep"),
    (["fit", "--workdir={new}"], "does not exist"),
    (["report", "--workdir={full}"], "no finished runs"),
    (["count"], "--config is missing"),
    (["count", "--config=tiny_dense", "--set=sweep.sizes=8"], "single run"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "empty.txt").write_text("")
    names = {"new": tmp_path / "new", "full": tmp_path / "full", "empty": tmp_path / "empty.txt"}
    one = ["--mesh=data=1"] * (
        argv[0] == "train" and "--mesh" not in str(argv)
    )  # this process has 8 devices
    status, out, err = call(capsys, *[a.format(**names) for a in argv], *one)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith(f"isoflop {argv[0]}: ") and words in err, err
    assert not (tmp_path / "new").exists() and os.listdir(tmp_path / "full") == ["thesis.txt"]


def test_unknown_verb_and_usage(capsys):
    assert call(capsys, "tarin")[0] == 2
    assert "did you mean train" in call(capsys, "tarin")[2]
    status, out, _ = call(capsys, "--help")
    assert status == 0 and all(v in out for v in cli.VERBS)


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_help_reads_well(verb, capsys):
    status, out, err = call(capsys, verb, "--help")
    assert (
        status == 0
        and not err
        and f"isoflop {verb} " in out
        and "--format" in out
        and max(map(len, out.splitlines())) < 160
    )


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_recipes_count(name, capsys):
    status, out, _ = call(capsys, "count", f"--config={name}", "--format=json")
    assert status == 0 and json.loads(out)
    assert call(capsys, "count", f"--config={name}")[0] == 0 and recipes.summary(name)


def test_recipe_file(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("from experiments.recipes import tiny_dense\nrecipe = tiny_dense.recipe\n")
    assert call(capsys, "count", f"--config={path}")[0] == 0
    path.write_text("recipe = lambda: 3\n")
    assert "returned int" in call(capsys, "count", f"--config={path}")[2]
    path.write_text("import nothing_of_that_name\n")
    assert "cannot be loaded" in call(capsys, "count", f"--config={path}")[2]


@pytest.mark.parametrize(
    "settings,want",
    [
        ([], None),
        (["optimizer.lr=1e-5"], None),
        (["optimizer.lr=1e-5", "optimizer.embed_lr=0.3"], 0.3),
        (["optimizer.embed_lr=0.3", "optimizer.lr=1e-5"], 0.3),
    ],
)
def test_the_rate_of_the_embedding_follows(settings, want):
    """Its ratio to the rate of the matrices stays a recipe's own, unless it is set itself."""
    from experiments.verbs import common

    class Flags(types.SimpleNamespace):
        def __contains__(self, name):
            return hasattr(self, name)

    flags = Flags(config="tiny_dense", set=settings)
    before, o = recipes.load("tiny_dense").run.optimizer, common.load(flags).run.optimizer
    assert before.embed_lr and before.embed_lr != before.lr
    assert o.lr == (1e-5 if settings else before.lr)
    assert o.embed_lr == pytest.approx(want or before.embed_lr * o.lr / before.lr)


def test_plan_is_counted(capsys, tmp_path):
    status, out, _ = call(capsys, "sweep", "--config=quickstart", "--plan_only")
    assert status == 0 and "34 runs" in out and out.count("moe") == 17
    assert (
        call(capsys, "sweep", "--config=quickstart", "--plan_only", "--set=sweep.budgets=1e7,1e11")[
            1
        ].count("left out:")
        > 0
    )


def test_train_json_is_one_object(tmp_path, capsys):
    argv = [
        "train",
        "--config=tiny_moe",
        f"--workdir={tmp_path / 'r'}",
        "--set=horizon.steps=3",
        "--set=batch=8",
        "--mesh=data=2,fsdp=2,expert=2",
        "--format=json",
    ]
    status, out, _ = call(capsys, *argv)
    r = json.loads(out)
    assert (
        status == 0 and r["status"] == "finished" and r["steps"] == 3 and r["device"]["count"] == 8
    )
    assert json.loads(call(capsys, *argv)[1]) == r  # nothing is trained again
    assert r["unlearned"] and "is above the unigram entropy" in call(capsys, *argv)[2]
    text = call(capsys, *argv[:-1])[1]
    assert "nothing to do" in text and "validation loss" in text
    (tmp_path / "r" / "result.json").write_text('{"id": ')
    status, _, err = call(capsys, *argv)
    assert (
        status == 2
        and "damaged" in err
        and (tmp_path / "r" / "result.json").read_text() == '{"id": '
    )


@pytest.mark.parametrize(
    "module", ["experiments.cli", *[f"experiments.verbs.{v}" for v in cli.VERBS]]
)
def test_python_dash_m(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "isoflop" in done.stdout and not done.stderr


def test_records_name_their_version(tmp_path):
    assert record.VERSION == 1
