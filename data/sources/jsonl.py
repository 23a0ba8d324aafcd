"""JSON lines, plain or packed as .gz or .zst: a line is an object, one field of it a document. One
document in twenty, by its hash, is validation.
"""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any, ClassVar

from data.config import DataError
from data.sources import corpus, files, long_json_line
from data.sources.corpus import Block, Source, Unit
from data.sources.files import File


def _plain(line: bytes) -> Any:
    """A line in UTF-8. json would take a byte-order mark and UTF-16 as well, orjson does not."""
    return json.loads(line.decode())


_row: Any = _plain
with contextlib.suppress(ImportError):  # three times as fast
    from orjson import loads as _row
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

    def read(self, unit: Unit) -> Iterator[Block]:
        texts, size = [], 0
        for number, line in enumerate(_lines(unit), 1):
            if isinstance(line, bytes):
                text = self._text(line, unit, number)
                if text is None:
                    continue
                texts.append(text)
                size += len(text)
                if size < corpus.BLOCK:
                    continue
            yield from corpus.documents(texts, unit.split)
            texts, size = [], 0
            if not isinstance(line, bytes):
                long = long_json_line.read(line, self.field, _place(unit, number))
                yield from corpus.pieces(long, unit.split)
        yield from corpus.documents(texts, unit.split)

    def _text(self, line: bytes, unit: Unit, number: int) -> bytes | None:
        """The document of a line; None where it has null for one, or is empty."""
        try:  # what nearly all lines are
            return _row(line)[self.field].encode()
        except _OTHER:
            return self._checked(line, unit, number)

    def _checked(self, line: bytes, unit: Unit, number: int) -> bytes | None:
        """The same, as json reads it, which knows more than RFC 8259: NaN, half of a surrogate
        pair; and what to say of any other line.
        """
        if line.isspace():
            return None
        try:
            row = json.loads(line.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as e:
            where = _place(unit, number)
            raise DataError(f"{where} is not JSON ({e}): mend or remove it") from None
        text = row.get(self.field) if isinstance(row, dict) else None
        if isinstance(text, str):
            try:
                return text.encode()
            except UnicodeEncodeError:  # half of a surrogate pair
                return text.encode("utf-8", "surrogatepass")
        where = _place(unit, number)
        if not isinstance(row, dict):
            raise DataError(f"{where} is no JSON object, but {_type(row)}")
        if self.field not in row:
            raise DataError(
                f"{where} has no field {self.field!r}, only {', '.join(row)}: set"
                " data.source='jsonl(field=NAME)'"
            )
        if text is not None:
            raise DataError(
                f"{where} has {_type(text)} in {self.field!r}, not text: set"
                " data.source='jsonl(field=NAME)'"
            )
        return None


def _place(unit: Unit, number: int) -> str:
    """A line in words; of a unit from the middle of a file, counted from there."""
    where = "" if unit.start == 0 else f" of those from byte {unit.start} on"
    return f"{unit.path}: line {number}{where}"


_OTHER = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


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
