"""`isoflop data` and training on corpora, as they are typed."""

import json
import os

import pytest

from experiments import cli
from launch.runs import record

ROWS = [json.dumps({"content": f"document {i} has words {i * i} and more"}) for i in range(400)]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.jsonl").write_text("\n".join([*ROWS, *ROWS[:20]]))
    (tmp_path / "b.txt").write_text("one line of plain text\n" * 600)
    return tmp_path


def said(capsys, *argv):
    assert cli.main(["data", *argv]) == 0
    return capsys.readouterr()


def test_inspect_says_what_is_there(corpus, capsys):
    source = ["--set=data.source=jsonl(field=content)", f"--set=data.path={corpus}/a.jsonl"]
    about = json.loads(said(capsys, "--inspect", "--format=json", *source).out)
    own = about["sources"]["jsonl(field=content)"]
    texts = [json.loads(row)["content"] for row in [*ROWS, *ROWS[:20]]]
    splits = about["splits"]
    assert sum(s["documents"] for s in splits.values()) == 420
    assert sum(s["bytes"] for s in splits.values()) == sum(map(len, texts))
    assert sum(s["tokens"] for s in splits.values()) == sum(map(len, texts)) + 420
    assert max(s["longest_document"] for s in splits.values()) == max(map(len, texts))
    assert own["duplicates"] == {"documents": 420, "repeated": 20}
    assert own["sample"].startswith("document 0 has words 0 and more")
    assert os.path.exists(os.path.join(own["folder"], "index.json"))
    text = said(capsys, "--inspect", *source).out
    assert "20 of 420 documents repeat an earlier one" in text and "bytes/token" in text


def test_prepare_of_a_mixture_shows_its_shares(corpus, capsys):
    sources = f"a=jsonl(field=content, path='{corpus}/a.jsonl'), b=text(path={corpus}/b.txt)"
    argv = ["--prepare", f"--set=data.sources={sources}", "--set=data.mixture=a=0.25,b=0.75"]
    about = json.loads(said(capsys, "--format=json", *argv).out)
    assert {n: s["share_of_windows"] for n, s in about["sources"].items()} == {"a": 0.25, "b": 0.75}
    assert sum(s["share_of_tokens"] for s in about["sources"].values()) == pytest.approx(1)
    assert "75.0% of what is trained on" in said(capsys, *argv).out


@pytest.mark.parametrize(
    "argv,words",
    [
        ([], "choose one of --prepare and --inspect"),
        (["--prepare", "--set=model.d_model=8"], "only the fields data.FIELD=value"),
        (["--prepare", "--set=data.source=synthetic"], "is generated"),
        (["--prepare", "--workers=-1"], "cannot be negative"),
        (["--inspect", "--set=data.source=jsonl", "--set=data.path=CORPUS/b.txt"], "not JSON"),
        (["--inspect", "--set=data.source=jsonl", "--set=data.path=CORPUS/a.jsonl"], "no field"),
        (["--inspect", "--set=data.source=text", "--set=data.path=CORPUS/a.jsonl"], "JSON lines"),
    ],
)
def test_bad_input_is_one_line(corpus, capsys, argv, words):
    assert cli.main(["data", *[a.replace("CORPUS", str(corpus)) for a in argv]]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and words in err
    left = [n for _, _, names in os.walk(corpus / "cache") for n in names]
    assert "index.json" not in left


TINY = [
    "--config=tiny_dense",
    "--mesh=data=1",
    "--set=horizon.steps=20",
    "--set=model.seq_len=32",
    "--set=model.d_model=16",
    "--set=model.n_layers=1",
    "--set=model.attention.n_heads=2",
    "--set=data.validation_windows=8",
]


def test_a_mixture_is_trained_and_counted(corpus, capsys):
    """Tokens, bytes and losses of each source; the same id wherever its files lie."""
    sources = "a=jsonl(field=content, path='CORPUS/a.jsonl'), b=text(path=CORPUS/b.txt)"
    argv = [*TINY, "--set=data.mixture=a=0.25,b=0.75"]

    def train(folder, work):
        named = sources.replace("CORPUS", str(folder))
        assert cli.main(["train", *argv, f"--set=data.sources={named}", f"--workdir={work}"]) == 0
        return record.result(str(work))

    r = train(corpus, corpus / "run")
    windows = 20 * r["run"]["batch"]
    share = {n: s["training_tokens"] / (windows * 32) for n, s in r["sources"].items()}
    assert share == pytest.approx({"a": 0.25, "b": 0.75}, abs=1 / windows)
    assert sum(s["bytes"] for s in r["sources"].values()) == r["bytes"]
    losses = [s["validation"]["loss"] for s in r["sources"].values()]
    assert r["validation"]["loss"] == pytest.approx(sum(losses) / 2) and losses[0] != losses[1]
    (corpus / "moved").mkdir()
    for name in ("a.jsonl", "b.txt"):
        os.rename(corpus / name, corpus / "moved" / name)
    again = train(corpus / "moved", corpus / "run2")
    assert again["id"] == r["id"] and again["validation"] == r["validation"]


def test_ids_without_text_are_trained(corpus, capsys):
    import numpy as np

    rng = np.random.default_rng(0)
    rng.integers(0, 100, 20_000).astype(np.uint16).tofile(corpus / "train.bin")
    argv = [
        *TINY,
        "--set=data.source=nanogpt",
        f"--set=data.path={corpus}/train.bin",
        "--set=data.tokenizer=ids(vocab_size=100)",
        f"--workdir={corpus}/run",
    ]
    assert cli.main(["train", *argv]) == 0
    r = record.result(str(corpus / "run"))
    assert r["validation"]["bits_per_byte"] is None and r["validation"]["loss"] > 0
    lines = record.lines(str(corpus / "run" / record.METRICS))
    assert lines[-1]["bits_per_byte"] is None and lines[-1]["waited_s"] >= 0


def test_arms_may_set_data(corpus, capsys):
    """Text, tokenizer and repeats by arm; a loss per byte; a loss on one source."""
    work = corpus / "sweep"
    (corpus / "c.txt").write_text("".join(f"{i * i} lines and {i} words\n" for i in range(4000)))
    settings = [
        "--set=where.workers=1",
        "--set=data.source=text",
        f"--set=data.path={corpus}/c.txt",
        "--set=sweep.arms.twice=; data.unique_tokens=4000",
        "--set=sweep.arms.pieces=; data.tokenizer=bpe(vocab_size=320); model.vocab_size=320",
        "--set=sweep.sizes=16",
        "--set=sweep.budgets=",
        "--set=sweep.tokens=8000",
        "--set=sweep.families=dense,twice,pieces",
        "--set=sweep.loss=bits_per_byte",
        "--set=sweep.replicate_size=0",
        "--set=sweep.replicate_budget=0",
        "--set=sweep.replicate_seeds=",
        "--set=model.seq_len=32",
        "--set=data.validation_windows=8",
        "--bootstrap=20",
    ]
    assert cli.main(["sweep", "--config=quickstart", f"--workdir={work}", *settings]) == 0
    out = capsys.readouterr().out
    assert "twice" in out and "pieces" in out
    runs = {r["family"]: r for r in (record.result(str(p)) for p in (work / "runs").iterdir())}
    assert runs["twice"]["epochs"] == pytest.approx(2, rel=0.02)
    assert runs["twice"]["dataset_tokens"] == 4000
    assert runs["pieces"]["run"]["model"]["vocab_size"] == 320
    assert runs["pieces"]["fingerprints"]["tokenizer"].startswith("hf:")
    page = (work / "report.html").read_text()
    assert "bits/byte" in page
    assert cli.main(["fit", f"--workdir={work}", "--loss=web"]) == 2
    assert "these runs have bits_per_byte" in capsys.readouterr().err
    for arm, words in {
        "dense; seed=3": "write 'seed=3' as FIELD=VALUE",
        "dense; optimizer.lr=3": "not free in a sweep",
        "dense; data.sorce=text": "no field",
    }.items():
        argv = ["sweep", "--config=quickstart", "--plan_only", f"--set=sweep.arms.x={arm}"]
        assert cli.main(argv) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and words in err
