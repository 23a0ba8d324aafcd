"""Plain text: a file is a document; the last twentieth of each is validation, from a line's start
on where one is near.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import ClassVar

from data.config import DataError
from data.sources import corpus, files
from data.sources.corpus import Block, Source, Unit
from data.sources.files import File

BLOCK = 65536  # bytes that a place to cut at is looked for at a time
NEWLINES = ("", "keep", "unix")


@dataclasses.dataclass(frozen=True)
class Text(Source):
    newlines: str = ""  # of files with Windows line ends: keep | unix; empty: they are refused

    kind: ClassVar[str] = "text"
    version: ClassVar[int] = 2

    def check(self, path: str) -> None:
        if self.newlines not in NEWLINES:
            raise DataError(f"text(newlines={self.newlines}): choose keep or unix")
        files.expect(path, "text", "text")
        with files.opened(path) as f:
            self._checked(f.read(files.FIRST), path)

    def _checked(self, block: bytes, path: str) -> bytes:
        """Raises DataError where something stands in a text that is not taken for text."""
        if b"\0" in block:
            raise DataError(
                f"{path} holds NUL bytes, so it is no text: take them out, by tr -d '\\0', or leave"
                " the file out"
            )
        if b"\r" not in block or self.newlines == "keep":
            return block
        if self.newlines == "unix":
            return block.replace(b"\r\n", b"\n")
        if b"\r\n" in block:
            raise DataError(
                f"{path} has Windows line ends (CRLF): set data.source='text(newlines=unix)' to"
                " read them as plain ones, or 'text(newlines=keep)' to train on them"
            )
        return block

    def units(self, f: File, split: str) -> list[Unit]:
        if not f.size:
            return []
        with files.opened(f.path) as opened:
            if split:
                return _blocks(opened, f.path, 0, f.size, split)
            at = _validation(opened, f.size)
            return [
                *_blocks(opened, f.path, 0, at, "train"),
                *_blocks(opened, f.path, at, f.size, "validation"),
            ]

    def read(self, unit: Unit) -> Iterator[Block]:
        yield from corpus.pieces(self._read(unit), unit.split, unit.ends)

    def _read(self, unit: Unit) -> Iterator[bytes]:
        with files.opened(unit.path) as f:
            f.seek(unit.start)
            left = unit.stop - unit.start
            while left:
                try:
                    block = f.read(min(corpus.PIECE, left))
                    left -= len(block)
                    # a line end that two blocks share, or two units, is the second one's
                    ends = block.endswith(b"\r") and _next(f) == b"\n"
                except OSError as e:
                    raise files.unreadable(unit.path, e) from None
                if not block:
                    raise DataError(f"{unit.path} became shorter: start again")
                checked = self._checked(block + b"\n" if ends else block, unit.path)
                yield checked[:-1] if ends else checked


def _next(f) -> bytes:
    """The byte that is read next."""
    found = f.read(1)
    f.seek(-len(found), os.SEEK_CUR)
    return found


def _blocks(f, path: str, start: int, stop: int, split: str) -> list[Unit]:
    """A document as units of about UNIT bytes, cut between lines."""
    edges = [start] if stop > start else []  # a small text has no last twentieth
    while edges and stop - edges[-1] > 2 * corpus.UNIT:
        edges.append(_between(f, edges[-1] + corpus.UNIT))
    edges.append(stop)
    return [
        Unit(path, a, b, split, b - a, b == stop) for a, b in zip(edges, edges[1:], strict=False)
    ]


def _between(f, at: int) -> int:
    """A place near `at` where a long text may be cut."""
    f.seek(at - corpus.PIECE)
    return at - corpus.PIECE + corpus.cut(f.read(corpus.PIECE + 1))


def _validation(f, size: int) -> int:
    """Where validation begins: at the start of a line within a hundredth of the text around the
    last twentieth, the one before it first; else of a character.
    """
    wanted, near = size - size // corpus.VALIDATION_SHARE, size // 100
    if (before := _last_line_end(f, wanted - near, wanted)) >= 0:
        return before + 1
    after = _first_line_end(f, wanted, wanted + near)
    if 0 <= after < size - 1:
        return after + 1
    start = max(0, wanted - 3)
    f.seek(start)
    around = f.read(4)
    while start < wanted < size and around[wanted - start] & 0xC0 == 0x80:
        wanted -= 1
    return wanted


def _last_line_end(f, low: int, high: int) -> int:
    while high > low:
        start = max(low, high - BLOCK)
        f.seek(start)
        at = f.read(high - start).rfind(b"\n")
        if at >= 0:
            return start + at
        high = start
    return -1


def _first_line_end(f, low: int, high: int) -> int:
    while low < high:
        f.seek(low)
        block = f.read(min(BLOCK, high - low))
        if not block:
            break
        if (at := block.find(b"\n")) >= 0:
            return low + at
        low += len(block)
    return -1
