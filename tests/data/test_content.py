"""What decides a result is known by its content: text and tokenizer may move, and not change."""

import os

import pytest

from data import pipeline
from data.config import Data, DataError
from experiments import cli
from launch.runs import record

WORDS = "".join(f"line {i}: some words of the text\n" for i in range(3000))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text(WORDS)
    (tmp_path / "b.txt").write_text(WORDS.upper())
    return tmp_path


def argv(folder, work, *more):
    return [
        "train",
        "--config=tiny_dense",
        f"--workdir={work}",
        "--set=data.source=text",
        f"--set=data.path={folder}/*.txt",
        "--mesh=data=1",
        "--set=horizon.steps=3",
        "--set=data.validation_windows=4",
        *more,
    ]


def test_moving_and_renaming_changes_nothing(text, tmp_path, capsys):
    work = tmp_path / "run"
    assert cli.main(argv(text, work)) == 0
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    os.rename(text / "a.txt", moved / "z.txt")
    os.rename(text / "b.txt", moved / "c.txt")
    capsys.readouterr()
    assert cli.main(argv(moved, work)) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_other_text_is_refused_by_run_and_record(text, tmp_path, capsys):
    work = tmp_path / "run"
    assert cli.main(argv(text, work)) == 0
    before = record.result(str(work))
    assert before["run"]["data"]["content"].endswith("/bytes")
    os.remove(work / record.RESULT)  # as if it had been killed before the end
    (text / "a.txt").write_text(WORDS + "one line more\n")
    capsys.readouterr()
    assert cli.main(argv(text, work)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and before["run"]["data"]["content"] in err and "bring" in err


def test_a_worker_with_other_text_says_so(text):
    named = Data(source="text", path=f"{text}/*.txt")
    content = pipeline.content(pipeline.load(named, 32))
    pipeline.load(Data(source="text", path=f"{text}/*.txt", content=content), 32)
    (text / "b.txt").write_text(WORDS)
    with pytest.raises(DataError, match="not the one that this was begun on"):
        pipeline.load(Data(source="text", path=f"{text}/*.txt", content=content), 32)


def test_a_sweep_with_other_text_is_refused(text, tmp_path, capsys):
    work = tmp_path / "sweep"
    sweep = [
        "sweep",
        "--config=quickstart",
        f"--workdir={work}",
        "--set=data.source=text",
        f"--set=data.path={text}/*.txt",
        "--set=sweep.sizes=16",
        "--set=sweep.budgets=",
        "--set=sweep.tokens=8000",
        "--set=sweep.families=dense",
        "--set=sweep.replicate_size=0",
        "--set=sweep.replicate_budget=0",
        "--set=sweep.replicate_seeds=",
        "--set=data.validation_windows=4",
        "--bootstrap=20",
    ]
    assert cli.main(sweep) == 0
    (text / "a.txt").write_text(WORDS + "one line more\n")
    capsys.readouterr()
    assert cli.main(sweep) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "data.content" in err and "bring that text back" in err


def test_settings_that_change_results_are_recorded(monkeypatch):
    import jax

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = record.settings()
    assert found["NVIDIA_TF32_OVERRIDE"] == "0" and "jax_enable_x64" not in found
    with jax.enable_x64(True):
        assert record.settings()["jax_enable_x64"] is True
    with jax.default_matmul_precision("bfloat16"):
        assert record.settings()["jax_default_matmul_precision"] == "bfloat16"
