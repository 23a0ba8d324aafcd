"""Text to token ids. An entry: `encode(bytes) -> int array`, its inverse `decode(ids) -> bytes`,
`vocab_size`, `separator` (id between documents), `fingerprint`, whether it is `slow`, and the bytes
of text that tokens stand for, so that bits per byte are counted: `token_bytes`, by id, where the id
decides it; else None, and `counted(bytes) -> (ids, bytes of each)`. An unknown piece stands for any
text, a leading dummy prefix for none, a normalised piece for what it was before: sentencepiece's
tokens are counted where they stand.
"""

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
    slow = False  # not worth a process
    unknown = None

    def counted_batch(self, texts):
        return [(self.encode(t), None) for t in texts]

    def encode(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text.replace(b"\0", b""), np.uint8)

    def counted(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode(text)
        return ids, np.ones(ids.size, np.uint32)

    def decode(self, ids) -> bytes:
        return bytes(int(i) for i in ids if 0 < i < 256)


class SentencePiece:
    """A sentencepiece .model; documents are separated by its end-of-sentence id. Bytes that are not
    UTF-8 are read as U+FFFD, one each.
    """

    token_bytes = None
    slow = True
    unknown = None

    def counted_batch(self, texts):
        return [self.counted(t) for t in texts]

    def __init__(self, path: str):
        import sentencepiece

        if not os.path.isfile(path):
            raise DataError(
                f"data.tokenizer_path={path!r} is not a file: give a sentencepiece .model"
            )
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=path)
        except Exception as e:  # the library raises RuntimeError or OSError by the kind of damage
            raise DataError(
                f"{path} is not a sentencepiece model ({str(e).splitlines()[0]})"
            ) from None
        m = self._model
        self.vocab_size = m.vocab_size()
        self.separator = m.eos_id() if m.eos_id() >= 0 else m.unk_id()
        with open(path, "rb") as f:
            self.fingerprint = "sentencepiece:" + hashlib.sha256(f.read()).hexdigest()[:16]

    def encode(self, text: bytes) -> np.ndarray:
        return np.array(self._model.encode(text), np.int32)

    def counted(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Each token stands for the text from the end of the one before to its own end. What
        normalisation drops after the last one stands with no token: a document's separator takes
        it.
        """
        found = self._model.encode(text, return_type="offset_mapping")
        ends = np.array([end for _, end in found["offsets"]], np.int64)
        return np.array(found["ids"], np.int32), np.diff(ends, prepend=0).astype(np.uint32)

    def decode(self, ids) -> bytes:
        return self._model.decode([int(i) for i in ids]).encode()


TOKENIZERS = {
    "bytes": lambda d: Bytes(),
    "sentencepiece": lambda d: SentencePiece(d.tokenizer_path),
}


def load(d: Data):
    """The tokenizer that `d` names. Raises DataError."""
    if d.tokenizer not in TOKENIZERS:
        raise DataError(
            f"unknown data.tokenizer {d.tokenizer!r}: choose from {', '.join(TOKENIZERS)}"
        )
    return TOKENIZERS[d.tokenizer](d)
