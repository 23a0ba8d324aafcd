"""A sentencepiece .model."""

import hashlib
import importlib
from typing import Any

import numpy as np

from data.tokenizers.alignment import Alignment
from data.tokenizers.files import read, refused


def _alignment(model, content: bytes) -> Alignment | None:
    """None where the library's description of its own files is not at hand."""
    try:
        pb: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError:  # it needs protobuf
        return None
    proto = pb.ModelProto()
    proto.ParseFromString(content)
    return Alignment(model, proto)


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
        self._alignment = _alignment(m, content)
        self.fingerprint = "sentencepiece:" + hashlib.sha256(content).hexdigest()[:16]

    def encode(self, text: bytes) -> np.ndarray:
        return self._model.encode(text, return_type="numpy")

    def counted(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        return self.counted_batch([text])[0]

    def counted_batch(self, texts: list[bytes]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each token stands for the text from the end of the one before to its own end. What
        normalisation drops after the last one stands with no token: a document's separator takes
        it.
        """
        places = [self._alignment.places(text) if self._alignment else None for text in texts]
        plain = [text for text, found in zip(texts, places) if found is not None]
        encoded = iter(self._model.encode(plain, return_type="numpy", num_threads=1))
        out = []
        for text, found in zip(texts, places):
            if found is not None:
                ids = next(encoded)
                sizes = self._alignment.sizes(found, ids)
            if found is None or sizes is None:
                ids, sizes = self._by_offsets(text)
            out.append((ids, sizes))
        return out

    def _by_offsets(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        found = self._model.encode(text, return_type="offset_mapping")
        ends = np.array([end for _, end in found["offsets"]], np.int64)
        return np.array(found["ids"], np.int32), np.diff(ends, prepend=0).astype(np.uint32)

    def decode(self, ids) -> bytes:
        return self._model.decode([int(i) for i in ids]).encode()

    def piece(self, token: int) -> str:
        return self._model.id_to_piece(token)
