"""A tokenizer that was exported is read again by data.tokenizer=hf, with the same ids."""

import pytest

from data import tokenizers
from data.config import Data
from launch.config import ConfigError
from launch.huggingface import tokenizer
from tests.data import made


@pytest.mark.parametrize(
    "kind,name", [("bytes", ""), ("sentencepiece", "fallback"), ("hf", "gpt2")]
)
def test_what_is_exported_is_read_again(kind, name, tmp_path):
    d = Data(tokenizer=kind, tokenizer_path=made.MAKERS[kind](tmp_path, name) if name else "")
    ours = tokenizers.load(d)
    (tmp_path / "out").mkdir()
    tokenizer.save(str(tmp_path / "out"), d, ours.separator)
    again = tokenizers.load(Data(tokenizer="hf", tokenizer_path=str(tmp_path / "out")))
    assert (again.separator, again.vocab_size) == (ours.separator, ours.vocab_size)
    for text in (*made.LINES[:9], "two  caf\u00e9s \u6f22\u5b57 \U0001f98a"):
        ids, sizes = again.counted(text.encode())
        assert ids.tolist() == ours.encode(text.encode()).tolist()
        assert sizes.sum() == len(text.encode())


def test_ranks_are_not_exported(tmp_path):
    d = Data(tokenizer="tiktoken", tokenizer_path=made.tiktoken(tmp_path, "gpt2"))
    with pytest.raises(ConfigError, match="not written as tokenizer.json"):
        tokenizer.save(str(tmp_path), d, 0)
