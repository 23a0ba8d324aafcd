"""`isoflop evaluate` as a person types it: runs and their exports on one text, tasks, the CSV and
laws that read it, bad input.
"""

import csv
import json
import math
import os
import shutil

import numpy as np
import pytest
from safetensors import numpy

from experiments import cli
from experiments.laws.runs import suite
from experiments.report import law_figure
from experiments.verbs import evaluate_text
from launch.runs import record

LINES = [
    f"{i} little {w} went to the {p} and came home.\n"
    for i in range(700)
    for w, p in [(("pig", "fox", "hen")[i % 3], ("market", "river", "barn")[i * i % 3])]
]
SMALL = ["--set=horizon.steps=6", "--set=model.seq_len=32", "--set=batch=8"]
RUNS = {  # of unequal sizes, vocabularies and layers
    "bytes": ["--set=model.n_layers=1"],
    "pieces": ["--set=data.tokenizer=bpe(vocab_size=300)", "--set=model.vocab_size=300"],
    "experts": [
        "--set=model.pattern=attention(n_heads=2)/moe(n_experts=4,d_expert=16,activation=swiglu)",
        "--set=model.n_layers=1",
    ],
}
EXPORTED = {"bytes": ["--set=model.mlp.activation=swiglu"], "pieces": RUNS["pieces"]}


def call(capsys, *argv):
    status = cli.main(list(argv))
    out = capsys.readouterr()
    return status, out.out, out.err


def read_csv(path) -> list[dict]:
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs, and the exports of them."""
    root = tmp_path_factory.mktemp("suite")
    (root / "text.txt").write_text("".join(LINES))
    task = [
        {"question": "12 little pig went to the", "choices": ["market", "moon"], "answer": 0},
        {"question": "The hen ___ home.", "choices": ["came", "qqqq"], "answer": "came"},
        {"question": "a", "choices": ["b", "\u6f22\u5b57"], "answer": 1},
    ]
    (root / "task.jsonl").write_text("\n".join(map(json.dumps, task)))
    for name, settings in RUNS.items():
        argv = [
            "train",
            "--config=tiny_dense",
            f"--workdir={root}/runs/{name}",
            "--set=model.d_model=32",
            "--set=model.attention.n_heads=2",
            "--set=model.mlp.d_ff=32",
            "--set=model.mlp.activation=swiglu",
            "--set=where.tensorboard=false",
            "--set=data.source=text",
            f"--set=data.path={root}/text.txt",
            *SMALL,
            *settings,
        ]
        assert cli.main(argv) == 0
        assert cli.main(["export", f"--run={root}/runs/{name}", f"--hf_dir={root}/hf/{name}"]) == 0
    return root


def both(root):
    return [f"--hf_dir={root}/hf/{n}" for n in RUNS] + [f"--workdir={root}/runs/{n}" for n in RUNS]


def test_runs_and_their_exports_give_one_loss(trained, capsys):
    """Three runs of unequal vocabularies and what they were exported as; on the same bytes."""
    status, out, err = call(
        capsys,
        "evaluate",
        *both(trained),
        "--window=200",
        f"--tasks={trained}/task.jsonl",
        f"--out={trained}/suite.csv",
        f"--tokens_trained={','.join(f'hf/{n}=1e6' for n in RUNS)}",
        "--format=json",
    )
    assert status == 0, err
    a = json.loads(out)
    models = {m["name"]: m for m in a["models"]}
    assert len(models) == 6 and err.count("tokens/s") == 6
    kinds = [models[f"hf/{n}"]["kind"] for n in RUNS]
    assert kinds == ["llama", "llama", "mixtral"]
    for name in RUNS:
        out, back = models[f"runs/{name}"], models[f"hf/{name}"]
        for key in ("loss", "bits_per_byte", "se", "se_windows"):
            got = out["validation"][key], back["validation"][key]
            assert got[0] == pytest.approx(got[1], abs=1e-4), (name, key)
        np.testing.assert_allclose(
            out["loss_by_position"]["loss"], back["loss_by_position"]["loss"], atol=1e-4
        )
        assert out["tasks"]["task"] == back["tasks"]["task"]
        assert out["parameters"] == back["parameters"]
        assert out["training_tokens"] == 6 * 8 * 32 and back["training_tokens"] == 1e6
    above = models["runs/bytes"]["above_first"]  # of its own export: no text tells them apart
    assert abs(above["bits_per_byte"]) < 1e-4 and above["se"] < 1e-5
    assert {m["validation"]["bytes"] for m in a["models"]} == {a["text"]["bytes"]}
    tokens = {n: m["validation"]["tokens"] for n, m in models.items()}
    assert tokens["hf/pieces"] < 0.7 * tokens["hf/bytes"] == 0.7 * a["text"]["bytes"]
    nats = {n: m["validation"]["loss"] * m["validation"]["tokens"] for n, m in models.items()}
    for n, m in models.items():
        bits = nats[n] / math.log(2) / a["text"]["bytes"]
        assert m["validation"]["bits_per_byte"] == pytest.approx(bits)
        assert m["loss_by_position"]["tokens"][0] > 0
        assert sum(m["loss_by_position"]["tokens"]) == tokens[n]


def test_the_loss_is_that_of_training_on_whole_windows(trained, capsys):
    """Windows as long as those of training, of one document: the evaluation at a run's end, but for
    the first token, which there follows the one before and here a beginning.
    """
    _, out, _ = call(
        capsys, "evaluate", f"--workdir={trained}/runs/bytes", "--window=32", "--format=json"
    )
    got = json.loads(out)["models"][0]
    want = record.result(str(trained / "runs/bytes"))
    assert got["validation"]["tokens"] == want["validation"]["tokens"]
    ours, theirs = got["loss_by_position"], want["loss_by_position"]
    assert ours["first"] == theirs["first"] and ours["tokens"] == theirs["tokens"]
    np.testing.assert_allclose(ours["loss"][8:], theirs["loss"][8:], atol=0.1)
    assert got["validation"]["loss"] == pytest.approx(want["validation"]["loss"], abs=0.05)


def test_the_table_for_people_and_streamed_weights(trained, capsys):
    argv = ["evaluate", f"--hf_dir={trained}/hf/bytes", f"--workdir={trained}/runs/pieces"]
    argv += ["--window=200", f"--tasks={trained}/task.jsonl"]
    status, out, err = call(capsys, *argv)
    assert status == 0
    assert "bits/byte" in out and "above the first" in out and "task: 3 items, chance 0.500" in out
    _, streamed, err = call(capsys, *argv, "--stream")
    assert err.count("streamed") == 2
    assert streamed == out


def test_tasks_alone_need_no_text(trained, capsys):
    argv = ["evaluate", f"--hf_dir={trained}/hf/experts", f"--tasks={trained}/task.jsonl"]
    status, out, _ = call(capsys, *argv, f"--out={trained}/tasks.csv", "--format=json")
    a = json.loads(out)
    assert status == 0 and a["text"] is None
    (row,) = read_csv(trained / "tasks.csv")
    task = a["models"][0]["tasks"]["task"]
    assert float(row["error"]) == float(row["error_task"]) == 1 - task["accuracy"]
    assert row["loss"] == "" and row["tokens"] == ""


def test_laws_read_the_csv(trained, capsys, tmp_path):
    """Points of a law and errors of another, of tokenizers that differ; and a figure of both."""
    _, out, _ = call(
        capsys,
        "evaluate",
        f"--workdir={trained}/runs/bytes",
        f"--workdir={trained}/runs/pieces",
        "--window=200",
        f"--tasks={trained}/task.jsonl",
        f"--out={tmp_path}/two.csv",
    )
    two = read_csv(tmp_path / "two.csv")
    assert set(suite.COLUMNS) < set(two[0]) and two[0]["tokenizer"] != two[1]["tokenizer"]
    rows = []
    for i in range(6):
        for j in range(6):
            n, d = 10 ** (6 + 0.4 * i), 10 ** (8 + 0.4 * j)
            loss = 0.6 + 120 / n**0.35 + 400 / d**0.37
            row = {**two[(i + j) % 2], "run_id": f"{i}-{j}", "n_params": n, "tokens": d}
            row |= {"flops": 6 * n * d, "kind": ("gpt_neox", "isoflop")[j % 2]}
            rows.append({**row, "bits_per_byte": loss, "error": 0.8 - 2 * math.exp(-1.5 * loss)})
    with open(tmp_path / "suite.csv", "w", newline="") as f:
        out = csv.DictWriter(f, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    argv = ["fit", f"--runs={tmp_path}/suite.csv", "--loss=bits_per_byte", "--bootstrap=20"]
    figure = f"--figure={tmp_path}/suite.svg"
    status, out, err = call(capsys, *argv, "--law=chinchilla3", figure, "--format=json")
    assert status == 0, err
    a = json.loads(out)
    assert a["n_points"] == 36 and not a["left_out"]
    assert a["parameters"]["E"] == pytest.approx(0.6, abs=0.01)
    drawn = (tmp_path / "suite.svg").read_text()
    assert "gpt_neox" in drawn and "isoflop" in drawn and "bits/byte" in drawn
    status, out, err = call(capsys, *argv, "--law=gadre2024_error", figure, "--format=json")
    assert json.loads(out)["parameters"]["gamma"] == pytest.approx(1.5, abs=0.05), err
    # nats per token of two tokenizers are no points of one law
    argv = ["fit", f"--runs={tmp_path}/suite.csv", "--law=chinchilla3", "--bootstrap=20"]
    _, out, _ = call(capsys, *argv, "--format=json")
    assert "tokenizer" in json.loads(out)["left_out"][0]["what"]
    status, _, err = call(capsys, *argv, "--law=clark2022", figure)
    assert status == 2 and "--figure is drawn of" in err and err.count("\n") == 1


def test_who_is_told_how_flops_are_counted():
    """Whoever did not say the context of a long released model; a run knows its own."""
    r = {"name": "a", "kind": "llama", "training_tokens": 1e9, "flops_at": 131072}
    r["model"] = {"seq_len": 131072}
    assert "at all of its 131,072 positions" in evaluate_text.warnings(r, True)[0]
    assert not evaluate_text.warnings({**r, "kind": "isoflop"}, True)
    assert not evaluate_text.warnings({**r, "flops_at": 32768}, True)


@pytest.mark.parametrize("law", ["chinchilla3", "kaplan_nd", "power_floor", "gadre2024_error"])
def test_a_figure_is_drawn_of_laws_on_one_axis(law):
    law_figure.check(law)


BAD = [
    ([], "nothing to evaluate"),
    (["--hf_dir={root}/none"], "holds no config.json"),
    (["--hf_dir={root}/runs"], "holds no config.json"),
    (["--workdir={root}/hf/bytes"], "holds no run"),
    (["--hf_dir={hf}"], "no text: name one"),
    (["--hf_dir={hf}", "--hf_dir={hf}"], "is given twice"),
    (["--hf_dir={hf}", "--set=data.source=synthetic"], "is no text"),
    (["--hf_dir={hf}", "--set=data.source=text"], "needs data.path"),
    (["--hf_dir={hf}", "--set=data.source=text", "--set=data.path={root}/no.txt"], "no.txt"),
    (["--hf_dir={hf}", "--set=data.source=text", "--set=data.path={root}/empty.txt"], "empty"),
    (["--hf_dir={hf}", "--set=model.d_model=3"], "data.FIELD=value"),
    (["--hf_dir={hf}", "--set=data.sauce=text"], "no field"),
    (["--hf_dir={hf}", "--tokens_trained=other=3e9"], "no model is named other: bytes"),
    (["--hf_dir={hf}", "--tokens_trained=bytes=many"], "write NAME=TOKENS"),
    (["--hf_dir={hf}", "--tokens_trained=bytes=-3"], "write NAME=TOKENS"),
    (["--hf_dir={hf}", "--tokens_trained=3e9"], "write NAME=TOKENS"),
    (["--hf_dir={hf}", "--tokens_trained=bytes=3,bytes=4"], "names bytes twice"),
    (["--workdir={root}/runs/bytes", "--tokens_trained=bytes=3e9"], "for --hf_dir"),
    (["--hf_dir={hf}", "--tasks={root}/none.jsonl"], "cannot be read"),
    (["--hf_dir={hf}", "--tasks={root}/bad.jsonl"], "line 1 has no choices"),
    (["--hf_dir={hf}", "--tasks={root}/task.jsonl", "--tasks={root}/task.jsonl"], "already named"),
    (
        ["--hf_dir={hf}", "--tasks={root}/task.jsonl", "--out={root}/none/x.csv"],
        "cannot be written",
    ),
    (["--hf_dir={hf}", "--tasks={root}/task.jsonl", "--context=2"], "a choice of"),
    (["--hf_dir={hf}", "--tasks={root}/task.jsonl", "--dtype=int8"], "dtype"),
    (["--hf_dir={root}/other", "--tasks={root}/task.jsonl"], "tokenizer of another model"),
    (["--hf_dir={root}/short", "--tasks={root}/task.jsonl"], "not a readable safetensors file"),
    (["--hf_dir={root}/nan", "--tasks={root}/task.jsonl", "--out={root}/x.csv"], "are not finite"),
    (["--hf_dir={root}/eight", "--tasks={root}/task.jsonl"], "dtype I8 is not read"),
    (["--hf_dir={hf}", "--trained_context=bytes=2.5"], "such as bytes=2048"),
    (["--hf_dir={hf}", "--trained_context=bytes=1e12"], "such as bytes=2048"),
    (["--hf_dir={root}/hf/pieces", "--set=data.tokenizer=bytes"], "tokenizer of another model"),
    (["--hf_dir={hf}", "--tasks={root}/runs"], "it is not a file"),
    (["--workdir={root}"], "SWEEP/runs/ID"),
]


def damaged(root) -> None:
    """Copies of an export, each with one fault."""
    for name in ("other", "short", "nan", "eight"):
        if not (root / name).exists():
            shutil.copytree(root / "hf/bytes", root / name)
    shutil.copy(root / "hf/pieces/tokenizer.json", root / "other")
    with open(root / "short/model.safetensors", "r+b") as f:
        f.truncate(500)
    held = numpy.load_file(root / "hf/bytes/model.safetensors")
    norm = held["model.norm.weight"]
    for name, a in (("nan", norm * np.nan), ("eight", norm.astype(np.int8))):
        numpy.save_file({**held, "model.norm.weight": a}, root / name / "model.safetensors")


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_one_line(case, trained, capsys):
    argv, words = BAD[case]
    (trained / "empty.txt").write_text("")
    (trained / "bad.jsonl").write_text('{"question": "q", "answer": 0}\n')
    damaged(trained)
    before = sorted(os.listdir(trained))
    filled = [a.format(root=trained, hf=trained / "hf/bytes") for a in argv]
    status, out, err = call(capsys, "evaluate", *filled)
    assert status == 2 and out == "" and words in err
    assert err.count("\n") == 1 and err.startswith("isoflop evaluate: ")
    assert sorted(os.listdir(trained)) == before
