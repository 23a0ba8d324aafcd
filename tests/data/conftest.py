"""What several files of this room read."""

import pytest

from data import tokenizers
from data.config import Data
from tests.data import made


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    """Data and tokenizer of every kind, by id."""
    folder = tmp_path_factory.mktemp("tokenizers")
    out = {}
    for (kind, name), key in zip(made.ALL, made.IDS):
        path = made.MAKERS[kind](folder, name) if name else ""
        d = Data(tokenizer=kind, tokenizer_path=path)
        out[key] = d, tokenizers.load(d)
    return out
