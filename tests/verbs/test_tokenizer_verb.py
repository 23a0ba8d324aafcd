"""isoflop tokenizer: what it makes can be used, what it shows adds up, mistakes are one line."""

import json
import os

import numpy as np
import pytest

from data import tokenizers
from data.config import Data
from experiments import cli
from tests.data import made


def call(capsys, *argv):
    status = cli.main(["tokenizer", *argv])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def source(tmp_path):
    (tmp_path / "text.txt").write_text("".join(made.LINES))
    return [f"--set=data.path={tmp_path}/text.txt", "--set=data.source=text"]


@pytest.mark.parametrize("kind,name", [("bpe", "hf"), ("sentencepiece", "sentencepiece")])
def test_train(kind, name, source, capsys, tmp_path):
    """Twice to the byte; and what it says of it is so."""
    argv = ["--train", f"--kind={kind}", "--vocab_size=300", *source]
    status, out, err = call(capsys, *argv, f"--out={tmp_path}/a", "--format=json")
    said = json.loads(out)
    assert status == 0 and not err and said["vocab_size"] == 300 and said["tokenizer"] == name
    status, out, _ = call(capsys, *argv, f"--out={tmp_path}/b")
    assert f"--set data.tokenizer={name} --set data.tokenizer_path={tmp_path}/b" in out
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "text.txt"]
    t = tokenizers.load(Data(tokenizer=name, tokenizer_path=str(tmp_path / "a")))
    text = (made.LINES[3] + made.ODD.replace("\u2581", "")).encode()  # sentencepiece's own space
    ids, sizes = t.counted(text)
    assert sizes.sum() == len(text) and t.decode(ids) == text
    held = said["held_out"]
    assert held["bytes_per_token"] == pytest.approx(held["bytes"] / held["tokens"])
    assert held["bytes_per_token"] > 0.9
    status, _, err = call(capsys, *argv, f"--out={tmp_path}/a")
    assert status == 2 and "is there already" in err


def test_the_sample_is_the_beginning(source, capsys, tmp_path):
    argv = ["--train", "--vocab_size=300", *source, "--format=json", "--sample_bytes=2000"]
    said = json.loads(call(capsys, *argv, f"--out={tmp_path}/a")[1])
    assert said["sample"] == {"documents": 1, "bytes": 2000}


def test_inspect(capsys, tmp_path):
    path = made.hf(tmp_path, "llama")
    argv = ["--inspect", "--set", "data.tokenizer=hf", "--set", f"data.tokenizer_path={path}"]
    text = "the fox \u6f22\n"
    status, out, _ = call(capsys, *argv, text, "--format=json")
    said = json.loads(out)
    assert status == 0 and said["bytes"] == len(text.encode()) and said["bytes_by"] == "place"
    assert "".join(t["text"] for t in said["tokens"]) == text
    assert sum(t["bytes"] for t in said["tokens"]) + said["left_to_the_separator"] == said["bytes"]
    status, out, _ = call(capsys, *argv, text)
    assert status == 0 and f"{len(said['tokens'])} tokens, 12 bytes" in out
    assert call(capsys, "--inspect", "ab")[1].count("\n") == 5  # bytes, by default


BAD = [
    ([], "choose one of --train and --inspect"),
    (["--train", "--inspect", "--out={new}"], "choose one of --train and --inspect"),
    (["--train"], "--out is missing"),
    (["--train", "--out={new}", "stray"], "unexpected argument 'stray'"),
    (["--train", "--out={new}", "--kind=wordpiece"], "kind"),
    (["--train", "--out={new}", "--vocab_size=100"], "too small: a bpe tokenizer needs 257"),
    (["--train", "--out={new}", "--sample_bytes=0"], "sample_bytes"),
    (["--train", "--out={new}/no/such"], "cannot be written"),
    (["--train", "--out={full}"], "is there already"),
    (["--train", "--out={new}", "--set=data.source=synthetic"], "is no text"),
    (["--train", "--out={new}", "--set=data.source=text"], "needs data.path"),
    (
        ["--train", "--out={new}", "--set=data.sources=a=python_source", "--set=data.mixture=a=1"],
        "learns from one source",
    ),
    (["--train", "--out={new}", "--set=data.source=npy", "--set=data.path={ids}"], "holds ids"),
    (["--train", "--out={new}", "--set=model.d_model=8"], "has only the fields data.FIELD"),
    (["--train", "--out={new}", "--set=data.sorce=text"], "did you mean"),
    (
        ["--train", "--out={new}", "--kind=sentencepiece", "--vocab_size=90000"]
        + ["--sample_bytes=20000"],
        "no sentencepiece model of 90000 pieces from this text",
    ),
    (["--inspect"], "the text is missing"),
    (["--inspect", "two", "words"], "unexpected argument"),
    (["--inspect", "x", "--set=data.tokenizer=hf"], "is not a file: give a tokenizer.json"),
]


@pytest.mark.parametrize("argv,words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input(argv, words, capsys, tmp_path):
    (tmp_path / "full").write_text("mine")
    np.save(tmp_path / "ids.npy", np.arange(99))
    names = {"new": tmp_path / "new", "full": tmp_path / "full", "ids": tmp_path / "ids.npy"}
    status, out, err = call(capsys, *[a.format(**names) for a in argv])
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("isoflop tokenizer: ") and words in err, err
    assert sorted(os.listdir(tmp_path)) == ["full", "ids.npy"]
    assert (tmp_path / "full").read_text() == "mine"
