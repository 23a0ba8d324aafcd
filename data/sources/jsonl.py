"""JSON lines, plain or packed as .gz or .zst: a line is an object, one field of it a document. One
document in twenty, by its hash, is validation.
"""

import dataclasses
import itertools
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
            elif line and not line.isspace():
                text = self._text(line, place)
                if text is not None:
                    yield from corpus.document(text, unit.split)

    def _text(self, line: bytes, where: str) -> bytes | None:
        """The document of a line; None where it has null for one."""
        try:
            row = json.loads(line.decode("utf-8", "surrogatepass"))
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
        try:
            return text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            return text.encode("utf-8", "surrogatepass")


def _type(value) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "null")


def _lines(unit: Unit) -> Iterator[bytes | Iterator[bytes]]:
    """The lines that begin in a unit; one that is longer than LONG comes in blocks."""
    with files.unpacked(unit.path) as f:
        at = unit.start
        if at:  # a line that begins earlier belongs to the unit before
            f.seek(at - 1)
            at += sum(map(len, _to_line_end(f))) - 1
        while unit.stop < 0 or at < unit.stop:
            line = f.readline(LONG)
            at += len(line)
            if len(line) < LONG or line.endswith(b"\n"):
                if not line:
                    return
                yield line
            else:
                rest = _to_line_end(f)
                yield itertools.chain([line], rest)
                for _ in rest:  # what the reader left
                    pass
                at = -1 if unit.stop < 0 else f.tell()


def _to_line_end(f) -> Iterator[bytes]:
    """What is left of a line, in blocks."""
    while block := f.readline(corpus.PIECE):
        yield block
        if block.endswith(b"\n"):
            return
