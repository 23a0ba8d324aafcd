"""isoflop bench: the contenders compute the same function, every part runs end to end, and names
what is missing.
"""

import json
import os
import subprocess
import sys

import pytest

from experiments import cli
from experiments.benchmarks import gpu, growth, mixers, mixers_torch, training
from experiments.benchmarks.parts import PARTS
from launch import config, overrides
from launch.runs import train
from model.optimizers import OPTIMIZERS

FIGURES = {"tokens_per_s", "tokens_per_cpu_s", "first_step_s", "peak_bytes"}


def bench(capsys, *argv):
    assert cli.main(["bench", *argv, "--scale=toy", "--rounds=1", "--format=json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert PARTS[argv[0]].text(answer)
    assert all(set(c) >= FIGURES for c in answer["contenders"].values())
    return answer["contenders"]


def test_train(capsys):
    found = bench(capsys, "train", "--contender=isoflop", "--contender=isoflop_pack_of_4")
    (four,) = found["isoflop_pack_of_4"]["rounds"]
    found = found["isoflop"]
    (stretch,) = found["rounds"]
    assert stretch["tokens"] >= 2 * 2 * 16 and four["tokens"] % (4 * 2 * 16) == 0
    assert stretch["wall_s"] > 0 and stretch["cpu_s"] > 0
    assert (
        found["tokens_per_s"] == stretch["tokens"] / stretch["wall_s"]
        and found["peak_bytes"] > 2**26
    )


def test_data(capsys):
    found = bench(capsys, "data")
    assert set(found) == set(PARTS["data"].contenders) and found["memmap"]["tokens_per_s"] > 1e4


def test_tokenizers(capsys):
    found = bench(capsys, "tokenizers")
    assert set(found) == set(PARTS["tokenizers"].contenders)


def test_next_runs(capsys):
    argv = ["bench", "next", "--scale=toy", "--rounds=2", "--format=json"]
    assert cli.main(argv) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "x10: " in PARTS["next"].text(answer)
    (row,) = answer["rows"]
    for found in row["distances"].values():
        assert found["predicted"] == 2 and 0 <= found["inside"] <= 1
        assert 0.002 < found["half_width"] < 0.1


@pytest.mark.slow
def test_coverage(capsys):
    argv = ["bench", "coverage", "--scale=toy", "--rounds=2", "--format=json"]
    assert cli.main(argv) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "chinchilla2" in PARTS["coverage"].text(answer)
    for row in answer["rows"]:
        for figures in row["quantities"].values():
            assert all(0 <= q["coverage"] <= 1 and q["rmse"] > 0 for q in figures.values())


@pytest.mark.slow
def test_growth(capsys, tmp_path):
    assert growth.main(["--rounds=1", "--scale=toy", f"--plot={tmp_path / 'g.png'}"]) == 0
    rows = json.loads(capsys.readouterr().out)["growth"]
    assert {k: len(v) for k, v in rows.items()} == {
        "tokens": 2,
        "depth": 2,
        "width": 2,
        "context": 2,
    }
    assert (
        all(r["gflop_per_cpu_s"] > 0 for v in rows.values() for r in v)
        and (tmp_path / "g.png").stat().st_size > 1000
    )


@pytest.mark.parametrize(
    "flag,words", [("--rounds=0", "at least 1"), ("--plot=/no/such/g.png", "no such folder")]
)
def test_growth_says_bad_input_first(flag, words, capsys, monkeypatch):
    monkeypatch.setattr(growth, "measure", None)
    with pytest.raises(SystemExit, match="2"):
        growth.main([flag])
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_startup(capsys):
    found = bench(capsys, "startup")
    assert (
        found["again"]["first_step_s"]
        < found["cached"]["first_step_s"]
        < found["cold"]["first_step_s"]
    )


@pytest.mark.slow
def test_decode(capsys):
    found = bench(capsys, "decode", "--contender=isoflop_llama")
    assert found["isoflop_llama"]["prefill"][0] > 0


def test_optimizers(capsys):
    argv = ["optimizers", "--scale=toy", "--rounds=1", "--format=json"]
    assert cli.main(["bench", *argv]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = answer["optimizers"]
    assert PARTS["optimizers"].text(answer) and set(rows) == set(OPTIMIZERS)
    assert rows["adamw"]["cpu_ratio"] == 1 == rows["lion"]["executed_ratio"]
    assert rows["muon"]["executed_ratio"] > 1 and all(r["cpu_s"] > 0 for r in rows.values())


@pytest.mark.parametrize(
    "part",
    [p if p == "decode" else pytest.param(p, marks=pytest.mark.slow) for p in gpu.PARTS],
)
def test_gpu_parts_run_on_a_cpu(part, capsys):
    assert gpu.main([f"--part={part}", "--scale=toy"]) == 0
    first, *figures, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first["part"] == part and figures and "proposed" in last
    if part == "trunks":
        assert last["proposed"]["equal_losses"] and 0.3 < last["proposed"]["saved_flops"] < 0.6
    if part in ("dense", "moe"):
        numerics = figures[0]["numerics"]
        assert all(d["loss"] < 1e-5 and d["gradient"] < 1e-4 for d in numerics.values())


def test_mixers_are_drawn(tmp_path, capsys):
    path = tmp_path / "mixers.svg"
    argv = ["--only=attention,mamba2", "--lengths=16,32", "--rounds=1", "--scale=toy"]
    assert mixers.main([*argv, f"--plot={path}"]) == 0
    found = json.loads(capsys.readouterr().out)["mixers"]
    assert [r["context"] for r in found] == [16, 16, 32, 32] and "mamba2" in path.read_text()


@pytest.mark.slow
def test_mixers_against_torch(capsys):
    assert mixers_torch.main(["--scale=toy", "--lengths=32", "--rounds=1"]) == 0
    found = json.loads(capsys.readouterr().out)["mixers"]
    assert {r["mixer"] for r in found} == {"lstm", "mamba", "mamba2"}
    assert all(r["us"] > 0 and r["torch_us"] > 0 for r in found)


def test_a_card_is_missed_before_anything_compiles(capsys):
    assert gpu.main(["--part=dense"]) == 2
    said = capsys.readouterr()
    assert not said.out and "--scale=toy" in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    "argv,words",
    [
        (["train", "--contender=nanogpt"], "no contender 'nanogpt' in bench train"),
        (["laws", "--contender=isoflop"], "takes no --contender"),
        (["train", "--set=model.attention.n_heads=3"], "does not divide"),
        (
            ["moe", "--contender=isoflop_moe", "--scale=toy", "--set=where.moe=lop"],
            "contender isoflop_moe ended: where.moe='lop': choose from",
        ),
        (["speed"], "name a part"),
    ],
)
def test_bad_input(argv, words, capsys):
    assert cli.main(["bench", *argv]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def _losses(name, folder, steps):
    """Of `steps` updates by our own loop, from the weights that the peer starts from."""
    argv, _ = training.command(name, "toy", ["--set", *SETTINGS][1:], str(folder), steps)
    with open(argv[-1]) as f:
        spec = json.load(f)
    run, where = (
        config.from_dict(config.Run, spec["run"]),
        config.from_dict(config.Where, spec["where"]),
    )
    from launch.huggingface import folder as hf

    run = overrides.override(run, "init", hf.fingerprint(where.init_from))
    train.train(run, where, str(folder / "run"))
    lines = [
        json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    return [line["loss"] for line in lines]


SETTINGS = [
    "horizon.steps=20",
    "where.log_every=1",
    "where.tensorboard=false",
    "model.n_layers=2",
    "model.d_model=32",
]


@pytest.mark.parametrize(
    "ours,theirs",
    [
        ("isoflop", "torch"),
        pytest.param("isoflop_llama", "hf_llama", marks=pytest.mark.slow),
        pytest.param("isoflop_moe", "hf_mixtral", marks=pytest.mark.slow),
    ],
)
def test_the_same_function(ours, theirs, tmp_path):
    """From the same weights and batches the losses agree to 1e-3 for 20 updates (extra `bench`)."""
    pytest.importorskip("torch"), pytest.importorskip("transformers")
    argv, _ = training.command(theirs, "toy", SETTINGS, str(tmp_path), 1)
    done = subprocess.run(
        [sys.executable, *argv, "--losses=20"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-2000:]
    want, got = json.loads(done.stdout.splitlines()[-1])["losses"], _losses(ours, tmp_path, 20)
    print(f"{ours} {got[-1]:.6f}, {theirs} {want[-1]:.6f}")
    assert len(got) == len(want) == 20 and want[-1] < want[0] - 0.01
    assert max(abs(a / b - 1) for a, b in zip(got, want)) < 1e-3
