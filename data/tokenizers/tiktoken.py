"""A local file of tiktoken ranks: one line `BASE64 RANK` for each piece.

Such a file does not say by which pattern text is split before pieces are merged. Published files
are known by their SHA-256; of any other the name says it, as in mine.cl100k_base.tiktoken. The
patterns, numbers and sums are those of tiktoken_ext/openai_public.py (github.com/openai/tiktoken)
and of llama/tokenizer.py (github.com/meta-llama/llama3).
"""

import base64
import hashlib
import os
from typing import NamedTuple

import numpy as np

from data.config import DataError
from data.tokenizers.characters import ById
from data.tokenizers.files import missing, read, refused

SHORT = 100_000  # characters on which no pattern gives up, whatever they are
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Known(NamedTuple):
    """A published encoding: its pattern, and of its own file the number of ranks, the id that ends
    a document, the size of the vocabulary, and the SHA-256.
    """

    pattern: str
    ranks: int
    separator: int
    vocab_size: int
    sha256: str = ""


KNOWN = {
    "gpt2": Known(GPT2, 50256, 50256, 50257),
    "r50k_base": Known(
        GPT2,
        50256,
        50256,
        50257,
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    ),
    "p50k_base": Known(
        GPT2,
        50280,
        50256,
        50281,
        "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    ),
    "cl100k_base": Known(
        CL100K,
        100256,
        100257,
        100277,
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": Known(
        O200K,
        199998,
        199999,
        200019,
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "llama3": Known(
        LLAMA3,
        128000,
        128001,
        128256,
        "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
    ),
}


def _named(path: str, sha256: str) -> str:
    """The encoding whose pattern splits text for this file."""
    by_sum = [name for name, known in KNOWN.items() if known.sha256 == sha256]
    by_name = [part for part in os.path.basename(path).split(".") if part in KNOWN]
    found = by_sum or by_name
    if len(set(found)) != 1:
        raise DataError(
            f"{path} does not say how text is split before its ranks merge it: name the file"
            f" NAME.PATTERN.tiktoken, with PATTERN one of {', '.join(KNOWN)}"
        )
    return found[0]


def _ranks(path: str, content: bytes) -> dict[bytes, int]:
    try:
        rows = [line.split() for line in content.splitlines() if line]
        ranks = {base64.b64decode(piece, validate=True): int(rank) for piece, rank in rows}
        if min(ranks.values()) < 0 or len(set(ranks.values())) != len(rows):
            raise ValueError("ranks or pieces stand twice")
    except (ValueError, TypeError) as e:
        raise refused(path, "tiktoken", e, content) from None
    lacking = [b for b in range(256) if bytes([b]) not in ranks]
    if lacking:
        raise DataError(
            f"{path} has no rank for byte {lacking[0]}: text with it could not be read; every one"
            " of the 256 bytes needs a rank"
        )
    return ranks


class Tiktoken(ById):
    """An id stands for the bytes of its rank; a byte that is not UTF-8 is read as the piece of that
    byte. Special tokens are no part of text: their names are read as any other words.
    """

    slow = True
    unknown = None

    def __init__(self, path: str):
        content = read(path, "tiktoken")
        ranks = _ranks(path, content)
        name = _named(path, hashlib.sha256(content).hexdigest())
        try:
            import tiktoken
        except ImportError:
            raise missing("tiktoken", path) from None
        known, last = KNOWN[name], max(ranks.values())
        own = len(ranks) == known.ranks and known.separator not in ranks.values()
        self.separator = known.separator if own else last + 1
        self.vocab_size = max(known.vocab_size if own else last + 2, last + 1)
        self._pieces = dict(zip(ranks.values(), ranks))
        self._library = tiktoken.Encoding(
            name, pat_str=known.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._of_byte = np.array([ranks[bytes([b])] for b in range(256)], np.int32)
        self.token_bytes = np.zeros(self.vocab_size, np.int64)
        self.token_bytes[list(self._pieces)] = [len(piece) for piece in ranks]
        mark = hashlib.sha256(content + f"|{name}|{self.separator}".encode())
        self.fingerprint = f"tiktoken:{mark.hexdigest()[:16]}"

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> np.ndarray:
        if len(text) < SHORT:
            return np.array(self._library.encode_ordinary(text), np.int32)
        try:  # slower, but says so where the other ends the process
            found = self._library.encode_to_numpy(text, disallowed_special=())
            return found.astype(np.int32)
        except ValueError:  # a pattern gives up on a million spaces: half of them, then
            half = len(text) // 2
            if half < 1000:
                raise
            return np.concatenate([self._one(text[:half]), self._one(text[half:])])

    def decode(self, ids) -> bytes:
        return b"".join(self._pieces.get(int(i), b"") for i in ids)

    def piece(self, token: int) -> str:
        held = self._pieces.get(token)
        if held is None:
            return "<|endoftext|>" if token == self.separator else ""
        return held.decode("utf-8", "backslashreplace")
