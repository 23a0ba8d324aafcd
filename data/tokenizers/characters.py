"""Between bytes of text and the characters that a library takes. Bytes that are not UTF-8 are kept
apart, one each.
"""

import re
from collections.abc import Callable

import numpy as np

STRAY = re.compile("([\udc80-\udcff]+)")  # how Python writes bytes that are not UTF-8


def read(text: bytes) -> tuple[str, np.ndarray]:
    """The characters of a text, U+FFFD for every byte that is not UTF-8, and the byte at which each
    character begins; the length of the text follows.
    """
    try:
        found, raw = text.decode(), np.frombuffer(text, np.uint8)
        begins = np.flatnonzero((raw & 0xC0) != 0x80)
    except UnicodeDecodeError:
        marked = text.decode("utf-8", "surrogateescape")
        found = STRAY.sub(lambda m: "\ufffd" * len(m[0]), marked)
        code = np.frombuffer(marked.encode("utf-32-le", "surrogatepass"), np.uint32)
        stray = (code >= 0xDC80) & (code <= 0xDCFF)
        sizes = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
        begins = np.cumsum(np.where(stray, 1, sizes)) - np.where(stray, 1, sizes)
    return found, np.append(begins, len(text))


def encoded(
    texts: list[bytes],
    encode: Callable[[list[str]], list[np.ndarray]],
    of_byte: np.ndarray,
) -> list[np.ndarray]:
    """Ids of each text by a library that loses nothing; a byte that is not UTF-8 becomes
    `of_byte` of it.
    """
    parts: list[str] = []  # what the library encodes, of all texts
    places: list[list] = []  # of each text: indices into parts, and ids of stray bytes
    for text in texts:
        places.append([])
        try:
            runs = [text.decode()]
        except UnicodeDecodeError:
            runs = STRAY.split(text.decode("utf-8", "surrogateescape"))
        for k, run in enumerate(runs):
            if k % 2:  # what the pattern matched
                raw = run.encode("utf-8", "surrogateescape")
                places[-1].append(of_byte[np.frombuffer(raw, np.uint8)])
            else:
                places[-1].append(len(parts))
                parts.append(run)
    done = encode(parts)
    out = [[done[p] if isinstance(p, int) else p for p in place] for place in places]
    return [ids[0] if len(ids) == 1 else np.concatenate(ids) for ids in out]


class ById:
    """Of a tokenizer whose ids decide the bytes that they stand for. It has `token_bytes`,
    `_of_byte` (the id of each byte) and `_encode`, its library's call.
    """

    token_bytes: np.ndarray
    _of_byte: np.ndarray

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        raise NotImplementedError

    def encode(self, text: bytes) -> np.ndarray:
        return encoded([text], self._encode, self._of_byte)[0]

    def counted(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode(text)
        return ids, self.token_bytes[ids].astype(np.uint32)

    def counted_batch(self, texts: list[bytes]) -> list[tuple[np.ndarray, None]]:
        return [(ids, None) for ids in encoded(texts, self._encode, self._of_byte)]
