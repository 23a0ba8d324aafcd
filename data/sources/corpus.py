"""What a source of text is: documents in a fixed order, cut into units that can be read apart.

A unit is a part of one file, read on its own by any process. It comes in blocks of documents. A
long document comes in pieces, a block each: so memory is constant, whatever a document's size.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.config import DataError
from data.sources import files, manifest
from data.sources.files import File

VALIDATION_SHARE = 20  # one document or byte in so many is validation
PIECE = 2**20  # bytes; longer documents come in pieces of about so much
BLOCK = 2**17  # bytes of documents that are read at a time: caches of a core hold them
ENDS = 512  # bytes of a document's beginning and end that its hash takes
UNIT = 2**25  # bytes of a file that are a unit, where a file can be read from its middle
LINES = 4096  # bytes that a line's end is looked for at a time
_SPACE = b" \t\r\n"
_LINE = re.compile(rb"\n(?=[^ \t\r\n])")  # the end of a line before one that is not indented
_sha1 = hashlib.sha1(usedforsecurity=False).copy  # a fifth quicker than a new one
_FIRST = np.dtype({"names": ["number"], "formats": ["<u8"], "itemsize": 20})  # of a digest


class Unit(NamedTuple):
    """A part of a file: `start` to `stop` in bytes, rows or groups, as its source counts them.
    `split` is "" where each document's hash decides; `weight` is its bytes in the file.
    """

    path: str
    start: int
    stop: int
    split: str
    weight: int
    ends: bool = True  # whether the unit's last piece ends its document


class Block(NamedTuple):
    """The bytes of documents and the split of each; or one piece of a long document, of which more
    follow unless it `ends`.
    """

    splits: list[str]
    texts: list[bytes]
    ends: bool = True


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one kind, and how documents stand in them. A new kind says `endings`, `units` and
    `read`; its own fields decide what is read.
    """

    path: str = ""
    validation_path: str = ""

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1  # of the way documents are read: another one is another corpus
    endings: ClassVar[tuple[str, ...]] = ()  # of the files that are taken from a folder

    def options(self) -> dict[str, Any]:
        """The fields of its own."""
        own = {f.name for f in dataclasses.fields(self)} - {"path", "validation_path"}
        return {name: getattr(self, name) for name in sorted(own)}

    def find(self) -> dict[str, list[File]]:
        """Its files, by the split they belong to; "" where it is decided inside a file. Raises
        DataError.
        """
        if not self.path.strip():
            raise DataError(
                f"data.source={self.kind} needs data.path: files, folders or globs, comma-separated"
            )
        found = files.find(self.path, self.endings)
        if not self.validation_path.strip():
            return {"": found}
        held = files.find(self.validation_path, self.endings, "data.validation_path")
        both = {f.path for f in found} & {f.path for f in held}
        if both:
            raise DataError(
                f"{sorted(both)[0]} stands in data.path and in data.validation_path: a text is"
                " trained on or validated on"
            )
        return {"train": found, "validation": held}

    def check(self, path: str) -> None:
        """Raises DataError if the file is not of this kind."""

    def units(self, f: File, split: str) -> list[Unit]:
        """The units of a file, in order."""
        raise NotImplementedError

    def read(self, unit: Unit) -> Iterator[Block]:
        """The documents of a unit. Raises DataError."""
        raise NotImplementedError

    def open(self, cache: str) -> "Corpus":
        """The corpus of the files as they stand now. Raises DataError."""
        splits = self.find()
        found = [f for here in splits.values() for f in here]
        digests = manifest.hashes(found, cache)
        # in the order of their content: where files lie and what they are called changes nothing
        order = {
            split: sorted(here, key=lambda f: (digests[f.path], f.path))
            for split, here in splits.items()
        }
        h = hashlib.sha256(f"{self.kind} {self.version} {self.options()}".encode())
        for split, here in order.items():
            for f in here:
                h.update(f"\0{split}\0{f.size}\0{digests[f.path]}".encode())
        return Corpus(self.kind, h.hexdigest()[:16], self, order)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A source whose content is known: `fingerprint` changes when any document does."""

    name: str
    fingerprint: str
    source: Any
    order: dict[str, list[File]]

    def units(self) -> list[Unit]:
        """All units, in order."""
        out = []
        for split, here in self.order.items():
            for f in here:
                self.source.check(f.path)
                out += self.source.units(f, split)
        return out

    def read(self, unit: Unit) -> Iterator[Block]:
        return self.source.read(unit)

    def documents(self, split: str) -> Iterator[bytes]:
        """The text of a split; a long document comes in pieces."""
        for unit in self.units():
            if unit.split in ("", split):
                for block in self.read(unit):
                    yield from (t for s, t in zip(block.splits, block.texts) if s == split)

    def unchanged(self) -> None:
        """Raises DataError if a file is not as it was found."""
        manifest.unchanged([f for here in self.order.values() for f in here if f.stamp])


def splits_of(texts: list[bytes]) -> list[str]:
    """The split of each document, by a hash of its length, its beginning and its end; of a long
    one, of its first PIECE bytes.
    """
    digests = []
    for t in texts:
        h = _sha1()
        h.update(b"%d %b%b" % (len(t), t[:ENDS], t[-ENDS:]))
        digests.append(h.digest())
    held = np.frombuffer(b"".join(digests), _FIRST)["number"] % VALIDATION_SHARE == 0
    return ["validation" if h else "train" for h in held.tolist()]


def documents(texts: list[bytes], split: str = "") -> Iterator[Block]:
    """Blocks of whole documents; with no split, the hash of each decides."""
    start = 0
    for i in [*(i for i, t in enumerate(texts) if len(t) > PIECE), len(texts)]:
        if short := texts[start:i]:
            yield Block([split] * len(short) if split else splits_of(short), short)
        if i < len(texts):
            yield from pieces(iter([texts[i]]), split)
        start = i + 1


def pieces(blocks: Iterator[bytes], split: str = "", ends: bool = True) -> Iterator[Block]:
    """The pieces of a document that comes in blocks, however long it is. ends: whether the document
    does so with the last block.
    """
    held = b""
    for block in blocks:
        held += block
        at = 0
        while len(held) - at > PIECE:
            end = at + cut(held[at : at + PIECE + 1])
            split = split or splits_of([held[:PIECE]])[0]
            yield Block([split], [held[at:end]], False)
            at = end
        held = held[at:]
    yield Block([split or splits_of([held])[0]], [held], ends)


def cut(text: bytes) -> int:
    """Where the first piece of a long text ends: within PIECE, between two lines where one ends in
    its second half, else before a space, else between two characters. Tokenizers that split text at
    lines or words see no difference.
    """
    low, high = PIECE // 2, min(PIECE, len(text) - 1)
    stop = high
    while stop > low:  # from behind, a few lines at a time
        start = max(low, stop - LINES)
        if ends := [m.end() for m in _LINE.finditer(text, start, stop + 1)]:
            return ends[-1]
        stop = start
    at = text.rfind(b" ", low, high)
    while at > low and text[at - 1] in _SPACE:
        at -= 1
    return at if at > low else character(text, high)


def character(text: bytes, at: int) -> int:
    """The start of the UTF-8 character that holds the byte at `at`."""
    first = at
    while at > 0 and at < len(text) and text[at] & 0xC0 == 0x80 and first - at < 3:
        at -= 1
    return at if at >= len(text) or text[at] & 0xC0 != 0x80 else first
