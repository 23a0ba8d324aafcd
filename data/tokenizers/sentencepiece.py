"""A sentencepiece .model."""

import hashlib

import numpy as np

from data.tokenizers.files import read, refused


class SentencePiece:
    """Documents are separated by its end-of-sentence id. Bytes that are not UTF-8 are read as
    U+FFFD, one each.
    """

    token_bytes = None
    slow = True

    def __init__(self, path: str):
        import sentencepiece

        content = read(path, "sentencepiece")
        try:
            if not content:  # of which the library makes a model of no piece
                raise ValueError("it is empty")
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except Exception as e:  # the library raises RuntimeError or OSError by the kind of damage
            raise refused(path, "sentencepiece", e, content) from None
        m = self._model
        self.vocab_size = m.vocab_size()
        self.separator = m.eos_id() if m.eos_id() >= 0 else m.unk_id()
        self.unknown = m.unk_id() if m.unk_id() >= 0 else None
        self.fingerprint = "sentencepiece:" + hashlib.sha256(content).hexdigest()[:16]

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

    def counted_batch(self, texts: list[bytes]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.counted(text) for text in texts]

    def decode(self, ids) -> bytes:
        return self._model.decode([int(i) for i in ids]).encode()

    def piece(self, token: int) -> str:
        return self._model.id_to_piece(token)
