"""Files of tokenizers: which pattern a file of ranks is split by, and what a wrong file is answered
with.
"""

import json

import pytest

from data import tokenizers
from data.config import Data, DataError
from data.tokenizers import tiktoken as ranks
from tests.data import made


def test_a_home_is_found_as_for_the_text(tmp_path, monkeypatch):
    path = made.hf(tmp_path, "gpt2")
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = (path, path.replace(str(tmp_path), "~"))
    found = [tokenizers.load(Data(tokenizer="hf", tokenizer_path=p)) for p in paths]
    assert found[0].fingerprint == found[1].fingerprint


def test_published_encodings(monkeypatch):
    """Patterns, numbers and sums are the library's own, which would download its files."""
    from tiktoken_ext import openai_public

    for name, known in ranks.KNOWN.items():
        if name in ("llama3", "gpt2"):
            continue
        sums = []
        monkeypatch.setattr(
            openai_public,
            "load_tiktoken_bpe",
            lambda url, expected_hash: sums.append(expected_hash),
        )
        theirs = getattr(openai_public, name)()
        assert known.pattern == theirs["pat_str"] and sums == [known.sha256]
        special = theirs["special_tokens"]
        assert known.separator == special["<|endoftext|>"]
        assert known.vocab_size == max(*special.values(), known.ranks) + 1


def _flat(path):
    path.write_text(json.dumps({"the": 0, "fox": 1}))


FILES = {
    "vocab.json": _flat,
    "merges.txt": lambda path: path.write_text("#version: 0.2\nt h\n"),
    "broken.json": lambda path: path.write_text('{"model": {"type": "BPE", '),
    "pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "empty": lambda path: path.write_text(""),
    "odd.tiktoken": lambda path: path.write_text("IQ== 0\nIg== zero\n"),
    "twice.gpt2.tiktoken": lambda path: path.write_text("IQ== 0\nIg== 0\n"),
    "few.gpt2.tiktoken": lambda path: path.write_text("IQ== 0\nIg== 1\n"),
}
BAD = [
    ("hf", "/none/tokenizer.json", "is not a file: give a tokenizer.json"),
    ("tiktoken", "/none.tiktoken", "is not a file: give a file of tiktoken ranks"),
    ("sentencepiece", "", "is not a file: give a sentencepiece model"),
    ("hf", "sentencepiece-bpe", "looks like a sentencepiece model.*data.tokenizer=sentencepiece"),
    ("hf", "tiktoken-gpt2", "looks like a file of tiktoken ranks.*data.tokenizer=tiktoken"),
    ("sentencepiece", "hf-gpt2", "looks like a tokenizer.json, for which set data.tokenizer=hf"),
    ("sentencepiece", "tiktoken-gpt2", "set data.tokenizer=tiktoken"),
    ("tiktoken", "hf-gpt2", "set data.tokenizer=hf"),
    ("tiktoken", "sentencepiece-unknown", "set data.tokenizer=sentencepiece"),
    ("hf", "vocab.json", "only a part of a tokenizer: give its tokenizer.json"),
    ("hf", "merges.txt", "only a part of a tokenizer"),
    ("hf", "broken.json", "broken.json is not a tokenizer.json"),
    ("hf", "pointer", "pointer of Git LFS"),
    ("hf", "empty", "is not a tokenizer.json"),
    ("sentencepiece", "empty", "is not a sentencepiece model"),
    ("sentencepiece", "merges.txt", "is not a sentencepiece model"),
    ("tiktoken", "empty", "is not a file of tiktoken ranks"),
    ("tiktoken", "odd.tiktoken", "is not a file of tiktoken ranks"),
    ("tiktoken", "twice.gpt2.tiktoken", "stand twice"),
    ("tiktoken", "few.gpt2.tiktoken", "no rank for byte 0"),
]


@pytest.mark.parametrize("kind,name,words", BAD, ids=[f"{k} {n}" for k, n, _ in BAD])
def test_bad_files_say_what_to_do(kinds, tmp_path, kind, name, words):
    path = name
    if name in FILES:
        path = str(tmp_path / name)
        FILES[name](tmp_path / name)
    elif name in kinds:
        path = kinds[name][0].tokenizer_path
    with pytest.raises(DataError, match=words) as e:
        tokenizers.load(Data(tokenizer=kind, tokenizer_path=path))
    assert "\n" not in str(e.value) and (not path or path in str(e.value))


def test_a_pattern_is_never_guessed(kinds, tmp_path):
    with open(kinds["tiktoken-gpt2"][0].tokenizer_path, "rb") as f:
        content = f.read()
    for name in ("mine.tiktoken", "gpt2.llama3.tiktoken", "gpt2_like.tiktoken"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="name the file NAME.PATTERN.tiktoken"):
            tokenizers.load(Data(tokenizer="tiktoken", tokenizer_path=str(tmp_path / name)))
    assert len({kinds[f"tiktoken-{name}"][1].fingerprint for name in made.TIKTOKEN}) == 4


def test_a_million_spaces(kinds):
    """On which the library gives up by one of the patterns."""
    text = b" " * 2**20
    for name in made.TIKTOKEN:
        ids, sizes = kinds[f"tiktoken-{name}"][1].counted(text)
        assert sizes.sum() == len(text)
