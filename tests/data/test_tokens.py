"""Bytes are counted where tokens stand: the same text weighs the same under every tokenizer, down
to its windows.
"""

import glob
import json
import math
import pathlib

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import pipeline, prepare, shards, tokenizers
from data.config import Data

# what a table by id gets wrong: unknown pieces, NFKC ("ﬁ", "²", "Ａ"), runs of spaces, combining
# marks, bytes that are not UTF-8
ODD = "  漢字漢字 ﬁne x² Ａ e\u0301\u0301 \t the  fox \n\n 🦊🦊 \u00a0 line  "
TEXT = "".join(
    f"line {i} of the quick brown fox {ODD if i % 3 == 0 else ''}\n" for i in range(300)
).encode()
KINDS = {
    "unknown": {},
    "fallback": {"byte_fallback": True, "vocab_size": 400},
    "bpe": {"model_type": "bpe", "vocab_size": 120},
    "identity": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
    "suffix": {"treat_whitespace_as_suffix": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "learn.txt").write_text(
        "".join(f"line {i} of the quick brown fox jumps\n" for i in range(400))
    )
    (folder / "text.txt").write_bytes(TEXT)
    for name, kind in KINDS.items():
        options = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2, **kind}
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "learn.txt"), model_prefix=str(folder / name), **options
        )
    return folder


def data(folder, kind):
    d = Data(source="text", path=str(folder / "text.txt"), validation_windows=8)
    return (
        d
        if kind == "bytes"
        else Data(
            **{
                **d.__dict__,
                "tokenizer": "sentencepiece",
                "tokenizer_path": str(folder / f"{kind}.model"),
            }
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_weighs_the_same_under_every_tokenizer(folder, kind):
    """Of each split, to the byte, by the tokens themselves; the issue asks for 1e-6."""
    want, got = (prepare.prepare(data(folder, k), str(folder / "cache")) for k in ("bytes", kind))
    for split in shards.SPLITS:
        own = np.count_nonzero(
            np.asarray(want.rows[split])
        )  # a byte is a token; separators are zero
        assert (
            np.asarray(got.sizes[split]).sum()
            == got.meta["splits"][split]["bytes"]
            == want.meta["splits"][split]["bytes"]
            == own
        )
    assert sum(want.meta["splits"][s]["bytes"] for s in shards.SPLITS) == len(TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_stands_for_its_own_text(folder, kind):
    """Token by token: the spans that the counts cut the text into, normalised, are the pieces."""
    t = tokenizers.load(data(folder, kind))
    line = "the quick ﬁne  漢字 fox x² of".encode()
    ids, sizes = t.counted(line)
    cuts = np.cumsum(sizes)
    spans = [line[a:b] for a, b in zip([0, *cuts], cuts)]
    assert b"".join(spans) == line
    known = {i: t._model.id_to_piece(int(i)).replace("▁", " ") for i in ids}
    plain = [
        (s.decode(), known[i])
        for s, i in zip(spans, ids)
        if s.isascii() and s.strip() and known[i].strip() and "<" not in known[i]
    ]
    assert len(plain) >= 5 and all(text.strip() == piece.strip() for text, piece in plain)
    assert sum(len(s) for s, i in zip(spans, ids) if not s.isascii()) >= len("漢字".encode()) + len(
        "²".encode()
    )


@settings(deadline=None, max_examples=60)
@given(
    st.binary(max_size=80) | st.text(max_size=40).map(lambda s: s.encode("utf-8", "surrogatepass"))
)
@example(
    b"\x00\t\x01"
)  # the tab is dropped for the character after it, which normalisation takes away
def test_any_bytes_are_counted_once(folder, raw):
    """What no token stands for is the end of the text, and nothing once normalised."""
    for kind in KINDS:
        t = tokenizers.load(data(folder, kind))
        ids, sizes = t.counted(raw)
        assert (
            ids.size == sizes.size and sizes.sum() <= len(raw) and sizes.max(initial=0) <= len(raw)
        )
        rest = raw[sizes.sum() :].decode("utf-8", "replace")
        assert not ids.size or not t._model.normalize(rest).strip("▁ "), (kind, rest)


def test_bits_per_byte_of_one_code_agree_across_tokenizers(folder):
    """A code that spends 3 bits on every byte of text, whatever the tokens, has 3 bits per byte
    over each one's own windows.
    """
    seen = {}
    for kind in ("bytes", *KINDS):
        ds = pipeline.load(data(folder, kind), 16, str(folder / "cache"))
        n = ds._parts[0].all["validation"]
        ds._wanted = n
        tokens, sizes = ds.counted_validation()
        np.testing.assert_array_equal(tokens, ds.validation())
        files = prepare.prepare(data(folder, kind), str(folder / "cache"))
        by_token = (
            np.asarray(files.sizes["validation"])
            if kind != "bytes"
            else (np.asarray(files.rows["validation"]) > 0).astype(int)
        )
        assert sizes.sum() == by_token[1 : n * 16 + 1].sum()  # windows meet without gap or overlap
        nats = 3 * math.log(2) * by_token[1 : n * 16 + 1].astype(float)
        seen[kind] = nats.sum() / math.log(2) / sizes.sum()
    assert all(v == pytest.approx(3, rel=1e-6) for v in seen.values()), seen


def test_four_numbers(folder):
    """Training tokens, dataset tokens, epochs and bytes of a run are counted apart, and an epoch's
    bytes are the split's.
    """
    ds = pipeline.load(data(folder, "unknown"), 16, str(folder / "cache"))
    files = prepare.prepare(data(folder, "unknown"), str(folder / "cache"))
    n = ds._parts[0].all["train"]
    read = [ds.counted_batch(step, 1) for step in range(2 * n)]
    np.testing.assert_array_equal(read[7][0], ds.batch(7, 1))
    training_tokens, epochs = sum(t.shape[1] - 1 for t, _ in read), ds.epochs(2 * n)
    assert (training_tokens, ds.dataset_tokens, epochs) == (
        2 * n * 16,
        files.rows["train"].size,
        2,
    )
    assert (
        sum(int(b.sum()) for _, b in read)
        == 2 * np.asarray(files.sizes["train"])[1 : n * 16 + 1].sum()
    )


def test_token_files_of_another_format_are_left_alone(folder, tmp_path):
    from data.config import DataError

    made = prepare.prepare(data(folder, "bytes"), str(tmp_path))
    meta = {**made.meta, "format": 2}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="format 2, this version reads 4"):
        pipeline.load(Data(source="tokens", path=str(tmp_path / "mine")), 16)


def test_another_file_named_meta_json_is_not_the_index(folder, tmp_path):
    made = prepare.prepare(data(folder, "bytes"), str(tmp_path))
    (pathlib.Path(made.folder) / "meta.json").write_text("{}")
    loaded = pipeline.load(Data(source="tokens", path=made.folder), 16)
    assert loaded.dataset_tokens == made.rows["train"].size


def test_tokenising_in_processes_is_the_same(tmp_path, monkeypatch):
    """Two processes and one write the same files, documents in order."""
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(
            f"document {i} has words, and words have pieces. " * (i + 1)
        )
    files = str(tmp_path / "*.txt")
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(sorted(glob.glob(files))),
        model_prefix=str(tmp_path / "m"),
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    d = Data(
        source="text",
        path=files,
        tokenizer="sentencepiece",
        tokenizer_path=str(tmp_path / "m.model"),
    )
    monkeypatch.setattr(prepare, "SMALLEST", 2000)
    monkeypatch.setattr(prepare, "ENOUGH", 4)
    one, two = (prepare.prepare(d, str(tmp_path / f"cache{n}"), n) for n in (1, 2))
    assert one.meta == two.meta and len(one.meta["splits"]["train"]["shards"]) > 4
    for split in shards.SPLITS:
        np.testing.assert_array_equal(np.asarray(one.rows[split]), np.asarray(two.rows[split]))
        np.testing.assert_array_equal(np.asarray(one.sizes[split]), np.asarray(two.sizes[split]))
