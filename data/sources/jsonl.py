"""JSON lines, plain or packed as .gz or .zst: a line is an object, one field of it a document. One
document in twenty, by its hash, is validation.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import ClassVar

from data.config import DataError
from data.sources import corpus, files, long_line
from data.sources.corpus import Piece, Source, Unit
from data.sources.files import File

PACKED = ("gzip", "zstandard")
LONG = 2**24  # bytes; a longer line is read in pieces


@dataclasses.dataclass(frozen=True)
class Jsonl(Source):
    field: str = "text"

    kind: ClassVar[str] = "jsonl"
    endings: ClassVar[tuple[str, ...]] = tuple(
        f".{name}{packed}" for name in ("jsonl", "ndjson", "json") for packed in ("", ".gz", ".zst")
    )

    def check(self, path: str) -> None:
        files.expect(path, "jsonl", "text", "JSON lines", *PACKED)

    def units(self, f: File, split: str) -> list[Unit]:
        if files.kind(f.path) in PACKED:
            return [Unit(f.path, 0, -1, split, f.size)]
        edges = [*range(0, max(1, f.size - corpus.UNIT // 2), corpus.UNIT), f.size]
        return [
            Unit(f.path, a, b, split, b - a)
            for a, b in zip(edges, edges[1:], strict=False)
            if b > a
        ]

    def read(self, unit: Unit) -> Iterator[Piece]:
        where = "" if unit.start == 0 else f" of those from byte {unit.start} on"
        for number, line in enumerate(_lines(unit), 1):
            place = f"{unit.path}: line {number}{where}"
            if not isinstance(line, bytes):
                yield from corpus.pieces(long_line.read(line, self.field, place), unit.split)
            elif line.strip():
                text = self._text(line, place)
                if text is not None:
                    yield from corpus.document(text, unit.split)

    def _text(self, line: bytes, where: str) -> bytes | None:
        """The document of a line; None where it has null for one."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise DataError(f"{where} is not JSON ({e}): mend or remove it") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is no JSON object, but {_type(row)}")
        if self.field not in row:
            raise DataError(
                f"{where} has no field {self.field!r}, only {', '.join(row)}: set"
                " data.source='jsonl(field=NAME)'"
            )
        text = row[self.field]
        if text is None:
            return None
        if not isinstance(text, str):
            raise DataError(
                f"{where} has {_type(text)} in {self.field!r}, not text: set"
                " data.source='jsonl(field=NAME)'"
            )
        return text.encode("utf-8", "surrogatepass")


def _type(value) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "null")


class _Blocks:
    """A file read forwards, a block at a time; `at` is the place of `held` in it."""

    def __init__(self, f, at: int):
        self.f, self.at, self.held = f, at, b""

    def more(self) -> bool:
        """Reads the next block behind what is held. False at the end."""
        block = self.f.read(corpus.PIECE)
        self.held += block
        return bool(block)

    def take(self, n: int) -> bytes:
        out, self.held, self.at = self.held[:n], self.held[n:], self.at + n
        return out

    def to_line_end(self) -> Iterator[bytes]:
        """What is left of the line, in blocks."""
        while (end := self.held.find(b"\n")) < 0:
            yield self.take(len(self.held))
            if not self.more():
                return
        yield self.take(end + 1)


def _lines(unit: Unit) -> Iterator[bytes | Iterator[bytes]]:
    """The lines that begin in a unit; one that is longer than LONG comes in blocks."""
    with files.unpacked(unit.path) as f:
        try:
            yield from _of(f, unit)
        except files.damage() as e:
            raise files.truncated(unit.path, e) from None
        except OSError as e:
            raise files.unreadable(unit.path, e) from None


def _of(f, unit: Unit) -> Iterator[bytes | Iterator[bytes]]:
    b = _Blocks(f, max(0, unit.start - 1))
    if unit.start:  # a line that begins earlier belongs to the unit before
        f.seek(b.at)
        for _ in b.to_line_end():
            pass
    while unit.stop < 0 or b.at < unit.stop:
        rows = b.held.split(b"\n")
        for row in rows[:-1]:
            if 0 <= unit.stop <= b.at:
                return
            b.at += len(row) + 1
            yield row
        b.held = rows[-1]
        if len(b.held) > LONG:
            rest = b.to_line_end()
            yield rest
            for _ in rest:  # what the reader left
                pass
        elif not b.more():
            if b.held and (unit.stop < 0 or b.at < unit.stop):
                yield b.held
            return
