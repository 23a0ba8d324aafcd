"""Sets of TensorFlow Datasets, read without tensorflow: prepared in array_record format, or with a
builder that needs none.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar

from data.config import DataError
from data.sources import corpus
from data.sources.corpus import Block, Corpus, Unit
from data.sources.files import File

ROWS = 4096  # examples of a unit
AT_A_TIME = 64  # examples of a block


@dataclasses.dataclass(frozen=True)
class Tfds:
    """The first text feature; split `train`, and `validation` or `test`, or the last twentieth of
    train.
    """

    path: str = ""  # its data_dir
    validation_path: str = ""
    name: str = ""

    kind: ClassVar[str] = "tfds"

    def open(self, cache: str) -> Corpus:
        if not self.name:
            raise DataError("data.source=tfds:NAME needs the name of a TFDS set")
        feature, opened, info = _opened(self.name, self.path)
        sizes = sorted((k, v.num_examples, v.num_bytes) for k, v in info.splits.items())
        mark = hashlib.sha256(f"{info.full_name}|{feature}|{sizes}".encode())
        order = {s: [File(s, len(rows), "")] for s, rows in opened.items()}
        return Corpus(f"tfds:{info.full_name}", mark.hexdigest()[:16], self, order)

    def check(self, path: str) -> None:
        pass

    def units(self, f: File, split: str) -> list[Unit]:
        edges = [*range(0, f.size, ROWS), f.size]
        return [
            Unit(split, a, b, split, 1024 * (b - a)) for a, b in zip(edges, edges[1:], strict=False)
        ]

    def read(self, unit: Unit) -> Iterator[Block]:
        feature, opened, _ = _opened(self.name, self.path)
        for start in range(unit.start, unit.stop, AT_A_TIME):
            rows = range(start, min(start + AT_A_TIME, unit.stop))
            found = [opened[unit.split][i][feature] for i in rows]
            texts = [t if isinstance(t, bytes) else str(t).encode() for t in found]
            yield from corpus.documents(texts, unit.split)


_OPEN: dict[tuple[str, str], Any] = {}  # of this process: a builder takes a second to make


def _opened(name: str, path: str) -> Any:
    """(text feature, rows of each split, info of the builder). Raises DataError."""
    if (name, path) in _OPEN:
        return _OPEN[name, path]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_datasets as tfds

    prepare = (
        f"prepare it once where tensorflow is installed: tfds.builder({name!r}, data_dir=DIR,"
        " file_format='array_record').download_and_prepare(), then give data.path=DIR"
    )
    try:
        builder = tfds.builder(name, **({"data_dir": os.path.expanduser(path)} if path else {}))
        splits = set(builder.info.splits)
    except Exception as e:  # not found, not prepared, tensorflow missing: TFDS raises a dozen types
        said = str(e).strip().splitlines()
        raise DataError(
            f"cannot open TFDS set {name!r} ({type(e).__name__}: {said[0] if said else ''}):"
            f" {prepare}"
        ) from None
    if not splits:
        raise DataError(f"TFDS set {name!r} is not prepared: {prepare}")
    texts = [k for k, f in builder.info.features.items() if isinstance(f, tfds.features.Text)]
    if not texts:
        raise DataError(
            f"TFDS set {name!r} has no text feature, only {', '.join(builder.info.features)}"
        )
    other = next((s for s in ("validation", "test") if s in splits), None)
    wanted = {"train": "train" if other else "train[:95%]", "validation": other or "train[95%:]"}
    try:
        rows = {split: builder.as_data_source(split=text) for split, text in wanted.items()}
    except Exception as e:
        raise DataError(
            f"TFDS set {name!r} cannot be read without tensorflow ({type(e).__name__}): {prepare}"
        ) from None
    _OPEN[name, path] = texts[0], rows, builder.info
    return _OPEN[name, path]
