"""The sources of text, by the names that settings have for them. A new one is one line here."""

import dataclasses

from data import name_and_fields
from data.config import Data, DataError
from data.sources.arrow import Arrow
from data.sources.corpus import Corpus
from data.sources.jsonl import Jsonl
from data.sources.parquet import Parquet
from data.sources.python_source import PythonSource
from data.sources.text import Text
from data.sources.tfds import Tfds
from data.sources.token_files import Llmc, Megatron, NanoGPT, Npy

SOURCES = {
    "python_source": PythonSource,
    "text": Text,
    "jsonl": Jsonl,
    "parquet": Parquet,
    "arrow": Arrow,
    "tfds": Tfds,
    "nanogpt": NanoGPT,
    "llmc": Llmc,
    "megatron": Megatron,
    "npy": Npy,
}
# those that are read where they stand: generated, prepared
OTHERS = ("synthetic", "tokens")


def load(d: Data, cache: str = "") -> Corpus:
    """The corpus that `d` names. Raises DataError."""
    return source(d).open(cache)


def source(d: Data):
    """The source that `d` names, as a value. Raises DataError."""
    name, colon, rest = d.source.strip().partition(":")
    if name == "tfds" and colon:
        return Tfds(d.path, d.validation_path, rest)
    name, fields = name_and_fields.parse(d.source, "data.source")
    if name not in SOURCES:
        known = ", ".join([*SOURCES, *OTHERS]).replace("tfds", "tfds:NAME")
        raise DataError(f"unknown data.source {d.source!r}: choose from {known}")
    cls = SOURCES[name]
    own = {f.name for f in dataclasses.fields(cls)} - {"path", "validation_path"}
    for key in fields:
        if key not in own:
            has = f"it has {', '.join(sorted(own))}" if own else "it has none"
            raise DataError(f"data.source={d.source}: {name} has no field {key!r}, {has}")
    return cls(path=d.path, validation_path=d.validation_path, **fields)
