"""One string out of a JSON object that is too long to hold: read forwards, in blocks."""

import json
import re
from collections.abc import Iterator

from data.config import DataError

_MARK = re.compile(rb'["{}\[\],:]')
_PLAIN = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# an escape that goes on in the next block; a pair of surrogates is one
_HALF = re.compile(
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u?[0-9a-fA-F]{0,3})?|\\u[0-9a-fA-F]{0,3}"
    rb"|[\xc0-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf7][\x80-\xbf]{0,2})$"  # or a character
)
KEY = 65536  # bytes; a longer name of a field is none


class _Reader:
    def __init__(self, blocks: Iterator[bytes], where: str):
        self.blocks, self.where, self.held = blocks, where, b""

    def more(self) -> None:
        block = next(self.blocks, b"")
        if not block:
            raise DataError(f"{self.where} ends inside of a JSON object: mend or remove it")
        self.held += block

    def mark(self) -> bytes:
        """Goes behind the next mark of JSON's grammar, and returns it."""
        while not (found := _MARK.search(self.held)):
            self.held = b""
            self.more()
        self.held = self.held[found.end() :]
        return found.group()

    def string(self) -> Iterator[bytes]:
        """The rest of a string whose opening quote was read, still escaped, in blocks."""
        while True:
            end = _PLAIN.match(self.held).end()
            if end < len(self.held) and self.held[end : end + 1] == b'"':
                out, self.held = self.held[:end], self.held[end + 1 :]
                yield out
                return
            if half := _HALF.search(self.held[max(0, end - 12) : end]):
                end = max(0, end - 12) + half.start()
            out, self.held = self.held[:end], self.held[end:]
            if out:
                yield out
            self.more()


def read(blocks: Iterator[bytes], field: str, where: str) -> Iterator[bytes]:
    """The UTF-8 text of a field of the object, in blocks. Raises DataError."""
    reader, depth, is_key = _Reader(blocks, where), 0, False
    while True:
        mark = reader.mark()
        if mark in b"{[":
            depth += 1
            is_key = mark == b"{"
        elif mark in b"}]":
            depth -= 1
            if depth == 0:
                raise DataError(f"{where} has no field {field!r}")
        elif mark == b",":
            is_key = True
        elif mark == b'"':
            name = b""
            for part in reader.string():
                name = (name + part)[: KEY + 1]
            if depth == 1 and is_key and _text(name, where) == field.encode():
                break
        elif mark == b":":
            is_key = False
    if reader.mark() != b":" or reader.mark() != b'"':
        raise DataError(f"{where} has something other than text in {field!r}")
    for part in reader.string():
        yield _text(part, where)


def _text(escaped: bytes, where: str) -> bytes:
    try:
        return json.loads(b'"' + escaped + b'"', strict=False).encode("utf-8", "surrogatepass")
    except ValueError as e:
        raise DataError(f"{where} is not JSON ({e}): mend or remove it") from None
