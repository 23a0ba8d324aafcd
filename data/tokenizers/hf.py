"""A tokenizer.json, by the library `tokenizers`.

Truncation, padding and what the file adds around a text are left out: a corpus is text alone.
Special tokens are no part of text: their names are read as any other words.
"""

import hashlib
import itertools
import json
import os
from typing import NamedTuple

import numpy as np

from data.config import DataError
from data.tokenizers.characters import ById
from data.tokenizers.characters import read as characters
from data.tokenizers.files import missing, read, refused
from data.tokenizers.lengths import Lengths, lengths
from data.tokenizers.levels import alphabet, byte_level, pieces_by_id, steps

# what may end a document, best first, where tokenizer_config.json names nothing
ENDS = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<eos>",
    "<|end▁of▁sentence|>",
    "<｜end▁of▁sentence｜>",
    "<|eos|>",
    "[EOS]",
    "<EOS_TOKEN>",
    "<EOT>",
    "[SEP]",
)


def _named_end(path: str) -> tuple[str, str]:
    """The eos_token of the tokenizer_config.json beside the file, and that file's path; empty where
    there is none.
    """
    beside = os.path.join(os.path.dirname(path), "tokenizer_config.json")
    if not os.path.isfile(beside):
        return "", beside
    try:
        with open(beside, encoding="utf-8") as f:
            found = json.load(f).get("eos_token")
    except (OSError, ValueError, AttributeError, RecursionError) as e:
        raise DataError(
            f"{beside} is damaged ({str(e)[:80]}): mend it, or move it away from {path}"
        ) from None
    found = found.get("content") if isinstance(found, dict) else found
    return (found if isinstance(found, str) else ""), beside


def _separator(path: str, library) -> int:
    """The id that ends a document."""
    named, beside = _named_end(path)
    if named:
        found = library.token_to_id(named)
        if found is None:
            raise DataError(f"{beside} names eos_token {named!r}, which {path} does not know")
        return found
    for content in ENDS:
        found = library.token_to_id(content)
        if found is not None:
            return found
    raise DataError(
        f"{path} has no token that ends a document, as <|endoftext|> or </s> do: name one as"
        f" eos_token in {beside}"
    )


def _unknown(model: dict, library) -> int | None:
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    named = model.get("unk_token")
    return library.token_to_id(named) if isinstance(named, str) else None


def _open(path: str, content: bytes):
    """The library's tokenizer, and what the file says."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes share the cores
    try:
        import tokenizers
    except ImportError:
        raise missing("tokenizers", path) from None
    try:
        spec = json.loads(content)
        library = tokenizers.Tokenizer.from_buffer(content)
        if spec["model"].get("dropout"):
            raise ValueError("its dropout draws other tokens each time: set it to null")
    except Exception as e:  # the library raises its own, by the kind of damage
        raise refused(path, "hf", e, content) from None
    library.no_truncation()
    library.no_padding()
    library.post_processor = None
    library.encode_special_tokens = True
    return library, spec


class Named(NamedTuple):
    """What the file, and the one beside it, say, whatever its kind."""

    vocab_size: int
    separator: int
    unknown: int | None
    fingerprint: str


class Opened:
    """What both kinds hold."""

    slow = True

    def __init__(self, library, path: str, named: Named):
        self._library, self._path = library, path
        self.vocab_size, self.separator, self.unknown, self.fingerprint = named

    def _asked(self, method: str, texts: list[str]) -> list:
        try:
            return getattr(self._library, method)(texts, add_special_tokens=False)
        except Exception as e:  # such as a word for which a vocabulary has no unknown token
            raise DataError(
                f"{self._path} cannot read this text ({str(e)[:160]}): give another"
                " data.tokenizer_path"
            ) from None

    def piece(self, token: int) -> str:
        return self._library.id_to_token(token) or ""


class ByteLevel(ById, Opened):
    """A byte-level BPE whose ids decide their bytes. A byte that is not UTF-8 is read as the piece
    of that byte.
    """

    def __init__(self, library, path: str, named: Named, pieces: list[bytes]):
        super().__init__(library, path, named)
        self._pieces = pieces
        self.token_bytes = np.array([len(piece) for piece in pieces], np.int64)
        self._of_byte = np.zeros(256, np.int32)
        for character, byte in alphabet().items():
            self._of_byte[byte] = library.model.token_to_id(character)

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        found = self._asked("encode_batch_fast", texts)
        return [np.array(e.ids, np.int32) for e in found]

    def decode(self, ids) -> bytes:
        return b"".join(self._pieces[i] for i in map(int, ids) if 0 <= i < len(self._pieces))


class Pieces(Opened):
    """Any other: its tokens are counted where they stand, by the offsets of the library. Bytes that
    are not UTF-8 are read as U+FFFD, one each.
    """

    token_bytes = None

    def __init__(self, library, path: str, named: Named, known: Lengths | None):
        super().__init__(library, path, named)
        self._lengths = known

    def encode(self, text: bytes) -> np.ndarray:
        return self.counted(text)[0]

    def counted(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        return self.counted_batch([text])[0]

    def counted_batch(self, texts: list[bytes]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each token stands for the text from its first character to the next token's, the last one
        to the end: what is dropped goes to the token before it, and of several tokens of one
        character the last takes it.
        """
        taken = [characters(text) for text in texts]
        out: list = [None] * len(texts)
        plain = [i for i, text in enumerate(texts) if self._sure(text, taken[i][0])]
        found = self._asked("encode_batch_fast", [taken[i][0] for i in plain])
        for i, e in zip(plain, found):
            ids = np.array(e.ids, np.int32)
            sizes = self._lengths.sizes(texts[i], ids)
            out[i] = None if sizes is None else (ids, sizes)
        rest = [i for i, counted in enumerate(out) if counted is None]
        found = self._asked("encode_batch", [taken[i][0] for i in rest])
        for i, e in zip(rest, found):
            out[i] = self._by_offsets(texts[i], taken[i][1], e)
        return out

    def _sure(self, text: bytes, found: str) -> bool:
        """Whether the ids may well decide the bytes of this text."""
        return self._lengths is not None and self._lengths.sure(text, found)

    def _by_offsets(self, text: bytes, begins, e) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array(e.ids, np.int32)
        wrong = np.flatnonzero(ids == self.separator)
        if wrong.size and (cut := _inside(e.offsets[wrong[0]], begins)):
            return self._apart(text[:cut], text[cut:])
        return ids, _sizes(e.offsets, begins)

    def _apart(self, *texts: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Of a text that holds the separator's name, cut within it: Unigram models take such a name
        for the piece.
        """
        ids, sizes = map(np.concatenate, zip(*self.counted_batch(list(texts))))
        if sizes.size:  # a part of no token
            sizes[-1] += sum(map(len, texts)) - sizes.sum(dtype=np.int64)
        return ids, sizes

    def decode(self, ids) -> bytes:
        known = [int(i) for i in ids if 0 <= i < self.vocab_size]
        return self._library.decode(known, skip_special_tokens=True).encode()


def _sizes(offsets: list[tuple[int, int]], begins: np.ndarray) -> np.ndarray:
    """Bytes of each token from the characters that the library says it comes from; `begins` is the
    byte at which each character begins.
    """
    if not offsets:
        return np.zeros(0, np.uint32)
    flat = itertools.chain.from_iterable(offsets)
    found = np.fromiter(flat, np.int64, 2 * len(offsets)).reshape(-1, 2)
    ends = np.maximum.accumulate(np.append(found[1:, 0], len(begins) - 1))
    return np.diff(begins[ends], prepend=0).astype(np.uint32)


def _inside(offsets: tuple[int, int], begins: np.ndarray) -> int:
    """The byte after the first character of a token of several; else 0."""
    begin, end = offsets
    return int(begins[begin + 1]) if end - begin > 1 else 0


def load(path: str) -> "Pieces | ByteLevel":
    """The tokenizer of a tokenizer.json, or of the folder that holds one. Raises DataError."""
    if os.path.isdir(path):
        path = os.path.join(path, "tokenizer.json")
    content = read(path, "hf")
    library, spec = _open(path, content)
    separator = _separator(path, library)
    vocab, added = spec["model"]["vocab"], spec.get("added_tokens") or []
    last = max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1
    size = max(last, *(token["id"] for token in added), -1) + 1
    mark = hashlib.sha256(content + f"|{separator}".encode()).hexdigest()[:16]
    named = Named(size, separator, _unknown(spec["model"], library), f"hf:{mark}")
    found = pieces_by_id(spec, separator, size) if byte_level(spec) else None
    if found and not steps(spec.get("normalizer")):
        return ByteLevel(library, path, named, found)
    return Pieces(library, path, named, lengths(spec, separator, size))
