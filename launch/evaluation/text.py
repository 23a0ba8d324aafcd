"""The text that every model reads, byte for byte the same, whatever its tokens and its context.

The validation split is laid out as bytes, documents one after another, and cut into windows of so
many bytes, of which some are taken, evenly spaced. What stands in a window of one document is a
text: at most a window long, never of two documents, and cut between characters. A model reads each
text from its beginning, behind the token with which its texts begin, or behind the one that ends
documents where it has none.
"""

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from data import mixture, pipeline, prepare
from data.config import Data, DataError
from data.sources import registry
from data.sources.token_files import TokenFiles
from launch.config import ConfigError
from launch.evaluation.score import Sequence

SPLITS = {"validation": ("validation",), "all": ("train", "validation")}


class Text(NamedTuple):
    """One text, and the window that it stands in."""

    window: int
    body: bytes


class Texts(NamedTuple):
    """corpus: what it was taken from. fingerprint: changes with any byte. size: bytes of a
    window.
    """

    corpus: str
    fingerprint: str
    size: int
    windows: int
    texts: list[Text]

    @property
    def bytes(self) -> int:
        return sum(len(t.body) for t in self.texts)


def read(d: Data, size: int, split: str = "validation", cache: str = "") -> Texts:
    """`d.validation_windows` windows of `size` bytes of each source of `d`, or as many as there
    are. Raises DataError where there is no text.
    """
    plain = dataclasses.replace(
        d, tokenizer="bytes", tokenizer_path="", content="", unique_tokens=0, documents="joined"
    )
    mixed = pipeline.mixture_of(plain)
    parts = mixture.sources(plain) if mixed else {"": plain}
    found, corpora = [], []
    for part in parts.values():
        _check(part)
        files = prepare.prepare(part, cache)
        corpora.append(files.meta["corpus"])
        wanted = max(1, d.validation_windows // len(parts))
        found += _windows([files.rows[s] for s in SPLITS[split]], size, wanted)
    texts = [
        Text(k, body)
        for k, (window, whole) in enumerate(found)
        for body in cut(window, whole)
        if body
    ]
    if not texts:
        raise DataError("there is no text to evaluate on: the corpus is empty: check data.path")
    digest = hashlib.sha256(b"\0\0".join(b"%d\0%b" % t for t in texts))
    return Texts(",".join(corpora), digest.hexdigest()[:16], size, len(found), texts)


def _check(d: Data) -> None:
    """Raises DataError where `d` names no text."""
    if d.source == "synthetic":
        raise DataError(
            "data.source=synthetic is no text: name one, such as --set data.source=text --set"
            " data.path=FILE"
        )
    pipeline.check(d)
    if d.source != "tokens" and isinstance(registry.source(d), TokenFiles):
        raise DataError(
            f"data.source={d.source} holds ids, whose text other models cannot read: name a source"
            " of text"
        )


def _windows(rows: list, size: int, wanted: int) -> list[tuple[bytes, bool]]:
    """(bytes, whether they are all that there is) of windows, evenly spaced over the rows as one;
    of a row that is shorter than a window the whole.
    """
    out = []
    for row in rows:
        if 0 < row.size < size:
            out.append((row.gather(np.zeros(1, np.int64), row.size, np.uint8)[0].tobytes(), True))
        n = row.size // size
        k = min(n, -(-wanted // len(rows)))
        if k:
            starts = np.arange(k) * n // k * size
            out += [(w.tobytes(), False) for w in row.gather(starts, size, np.uint8)]
    return out


def cut(window: bytes, whole: bool = False) -> list[bytes]:
    """The documents of a window, less what is left of a character that its edges cut through."""
    if not whole:
        start = 0
        while start < min(3, len(window)) and window[start] & 0xC0 == 0x80:
            start += 1
        window = window[start : _end(window)]
    return window.split(b"\0")


def _end(window: bytes) -> int:
    """Where the last whole character ends."""
    for back in range(1, min(4, len(window)) + 1):
        byte = window[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 1 if byte < 0x80 else 2 if byte >> 5 == 6 else 3 if byte >> 4 == 14 else 4
        return len(window) - back if length > back else len(window)
    return len(window)


class Reader(NamedTuple):
    """How a model reads text. begins: the id before every text, None where the model knows none;
    positions: the most tokens that it is given.
    """

    tokenizer: object
    vocab_size: int
    begins: int | None
    positions: int

    def ids(self, texts: list[bytes]) -> list[np.ndarray]:
        """The tokens of each text. Raises ConfigError on an id that the model does not have."""
        found = [np.asarray(ids, np.int32) for ids, _ in self.tokenizer.counted_batch(texts)]
        most = max((int(ids.max()) for ids in found if ids.size), default=0)
        if most >= self.vocab_size:
            raise ConfigError(
                f"its tokenizer gives id {most}, the model's vocabulary is 0 .. "
                f"{self.vocab_size - 1}: give the tokenizer that belongs to it"
            )
        return found

    @property
    def start(self) -> list[int]:
        """What stands before a text: where a model knows no token of a beginning, the one between
        documents.
        """
        if self.begins is not None:
            return [self.begins]
        return [int(self.tokenizer.separator)] if self.tokenizer.separator >= 0 else []


def sequences(reader: Reader, ids: np.ndarray) -> list[Sequence]:
    """A text's tokens as sequences that the model has positions for: one after the other, each
    token counted once. Each begins with the token of a beginning, or goes on from the last token
    before it where the model knows none.
    """
    start = np.array(reader.start, np.int32)
    out = []
    for at in range(0, len(ids), reader.positions):
        before = start if reader.begins is not None or not at else ids[at - 1 : at]
        out.append(Sequence(np.concatenate([before, ids[at : at + reader.positions]])))
    return [s for s in out if s.width]
