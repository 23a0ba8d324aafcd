"""Text to token ids. An entry: `encode(bytes) -> int array`, its inverse `decode(ids) -> bytes`, `vocab_size`, `separator` (id between documents), `fingerprint`,
and `token_bytes`, the bytes of text that each id stands for, so that bits per byte are counted."""

import hashlib
import os

import numpy as np

from data.config import Data, DataError


class Bytes:
    """One id per byte; documents are separated by byte 0, which text does not contain."""

    vocab_size = 256
    separator = 0
    fingerprint = "bytes"
    token_bytes = np.concatenate([[0], np.ones(255, np.int64)])

    def encode(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text.replace(b"\0", b""), np.uint8)

    def decode(self, ids) -> bytes:
        return bytes(int(i) for i in ids if 0 < i < 256)


class SentencePiece:
    """A sentencepiece .model; documents are separated by its end-of-sentence id."""

    def __init__(self, path: str):
        import sentencepiece

        if not os.path.isfile(path):
            raise DataError(f"data.tokenizer_path={path!r} is not a file: give a sentencepiece .model")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=path)
        except Exception as e:  # the library raises RuntimeError or OSError by the kind of damage
            raise DataError(f"{path} is not a sentencepiece model ({str(e).splitlines()[0]})") from None
        m = self._model
        self.vocab_size = m.vocab_size()
        self.separator = m.eos_id() if m.eos_id() >= 0 else m.unk_id()
        with open(path, "rb") as f:
            self.fingerprint = "sentencepiece:" + hashlib.sha256(f.read()).hexdigest()[:16]
        size = lambda i: 0 if m.is_control(i) else 1 if m.is_byte(i) else len(m.id_to_piece(i).replace("\u2581", " ").encode())
        self.token_bytes = np.array([size(i) for i in range(self.vocab_size)], np.int64)

    def encode(self, text: bytes) -> np.ndarray:
        return np.array(self._model.encode(text.decode("utf-8", "replace")), np.int32)

    def decode(self, ids) -> bytes:
        return self._model.decode([int(i) for i in ids]).encode()


TOKENIZERS = {"bytes": lambda d: Bytes(), "sentencepiece": lambda d: SentencePiece(d.tokenizer_path)}


def load(d: Data):
    """The tokenizer that `d` names. Raises DataError."""
    if d.tokenizer not in TOKENIZERS:
        raise DataError(f"unknown data.tokenizer {d.tokenizer!r}: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[d.tokenizer](d)
