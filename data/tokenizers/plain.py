"""Bytes as they are."""

import numpy as np


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
