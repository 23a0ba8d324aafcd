"""Bytes as they are, and ids whose text nobody knows."""

import numpy as np

from data import name_and_fields
from data.config import DataError


class Bytes:
    """One id per byte; documents are separated by byte 0, which text does not contain."""

    vocab_size = 256
    separator = 0
    unknown = None
    fingerprint = "bytes"
    token_bytes = np.concatenate([[0], np.ones(255, np.int64)])
    slow = False  # not worth a process

    def encode(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text.replace(b"\0", b""), np.uint8)

    def counted(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode(text)
        return ids, np.ones(ids.size, np.uint32)

    def counted_batch(self, texts: list[bytes]) -> list[tuple[np.ndarray, None]]:
        return [(self.encode(text), None) for text in texts]

    def decode(self, ids) -> bytes:
        return bytes(int(i) for i in ids if 0 < i < 256)

    def piece(self, token: int) -> str:
        return f"<0x{token:02X}>"


class Ids:
    """Ids of token files whose tokenizer is not at hand: ``ids(vocab_size=50257,separator=50256)``.
    They have no text: bits per byte are not known. Without separator, documents are not told apart.
    """

    unknown = None
    slow = False

    def __init__(self, text: str):
        what, fields = "data.tokenizer", name_and_fields.parse(text, "data.tokenizer")[1]
        if extra := set(fields) - {"vocab_size", "separator"}:
            raise DataError(
                f"{what}={text}: ids has no field {sorted(extra)[0]!r}, it has vocab_size and"
                " separator"
            )
        self.vocab_size = name_and_fields.number(fields, "vocab_size", text, what)
        self.separator = name_and_fields.number(
            {"separator": "-1", **fields}, "separator", text, what
        )
        if not 1 <= self.vocab_size <= 2**31 or not -1 <= self.separator < self.vocab_size:
            raise DataError(
                f"{what}={text}: vocab_size must lie in 1 .. 2^31, and separator below it"
            )
        self.fingerprint = f"ids:{self.vocab_size}:{self.separator}"
        self.token_bytes = np.zeros(self.vocab_size, np.int64)

    def encode(self, text: bytes) -> np.ndarray:
        raise DataError("data.tokenizer=ids knows no text: it is for token files, such as llmc")

    def counted(self, text: bytes):
        return self.encode(text), None

    def counted_batch(self, texts: list[bytes]):
        return [self.counted(text) for text in texts]

    def decode(self, ids) -> bytes:
        return " ".join(str(int(i)) for i in ids).encode()

    def piece(self, token: int) -> str:
        return str(token)
