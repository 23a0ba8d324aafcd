"""Where the pieces of a sentencepiece model end in a text, from their ids alone.

The library says it too, as lists of objects, at three times the cost of the ids. Where
normalisation treats every character of a text by itself, the ends follow from how long each piece
is and from how long each character becomes; the library is asked for that once per character. Any
other text is left to the library: bytes that are not UTF-8, combining marks, unknown pieces.
"""

import unicodedata

import numpy as np

MARK = "\u2581"  # a space within a piece
ASK, UNSAFE, SPACE = 255, 254, 253  # in the place of a character's width
RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")  # that the library ships


def _joined() -> set[int]:
    """Characters that normalisation may join to the one before: second halves of compositions, and
    the letters that end a Hangul syllable.
    """
    found = {*range(0x1160, 0x1200)}
    for code in range(0x80, 0x12000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    return found


class Alignment:
    """Of one model; `proto` is its ModelProto."""

    def __init__(self, model, proto):
        spec, kinds = proto.normalizer_spec, type(proto).SentencePiece
        self._normalize = model.normalize
        self._collapses = spec.remove_extra_whitespaces
        self._prefix = bool(spec.add_dummy_prefix)
        self._suffix = self._prefix and proto.trainer_spec.treat_whitespace_as_suffix
        self._plain = not spec.precompiled_charsmap and not self._collapses
        symbols = any(p.type == kinds.USER_DEFINED for p in proto.pieces)
        self._can = (
            spec.escape_whitespaces
            and (spec.name in RULES or self._plain)
            and (self._plain or not symbols)  # which are not normalised, wherever they stand
        )
        self._width = np.full(0x110000, ASK, np.uint8)
        self._joined = set()
        self._learn(np.arange(128))
        self._ascii = bytes(self._width[:256])
        self._single = set(self._ascii[:128]) <= {0, 1, SPACE}
        self._length = np.array([self._long(p, kinds) for p in proto.pieces], np.int64)

    @staticmethod
    def _long(piece, kinds) -> int:
        """Bytes of a piece in normalised text, a space being one; -1 where it stands for any."""
        if piece.type == kinds.BYTE:
            return 1
        if piece.type in (kinds.UNKNOWN, kinds.CONTROL):
            return -1
        return len(piece.piece.replace(MARK, " ").encode())

    def _learn(self, codes: np.ndarray) -> None:
        """Asks the library what becomes of each character."""
        self._joined = self._joined or _joined()
        for code in codes.tolist():
            c = chr(code)
            self._width[code] = UNSAFE
            if c == MARK or code in self._joined or unicodedata.combining(c):
                continue
            found = self._normalize(f"a{c}a").strip(MARK)
            if found[:1] == found[-1:] == "a" and len(found) > 1:
                became = found[1:-1]
                if became == MARK:
                    self._width[code] = SPACE
                elif MARK not in became and len(became.encode()) < SPACE:
                    self._width[code] = len(became.encode())

    def places(self, text: bytes) -> np.ndarray | int | None:
        """For every byte of the normalised text, without its prefix, the place in `text` of the
        character that it comes from, and where the last one ends. A number, the text's length,
        where each byte stays in its place; None where this cannot be said.
        """
        if not self._can:
            return None
        begins = None  # of each character, where it is not a byte
        if text.isascii():
            width = np.frombuffer(text.translate(self._ascii), np.uint8)
        else:
            try:
                codes = np.frombuffer(text.decode().encode("utf-32-le"), np.uint32)
            except UnicodeDecodeError:
                return None
            width = self._width[codes]
            if width.max() == ASK:
                self._learn(np.unique(codes[width == ASK]))
                width = self._width[codes]
            begins = np.flatnonzero((np.frombuffer(text, np.int8) >= -64))
        most = width.max(initial=0)
        if most == UNSAFE:
            return None
        end, kept, space = len(text), None, width == SPACE
        if self._collapses and most == SPACE:
            kept, end = self._collapsed(width, space, begins, end)
        elif width.min(initial=1) == 0:
            kept = width > 0
        if begins is None and self._single:
            return end if kept is None else np.append(np.flatnonzero(kept), end)
        begins = np.arange(end) if begins is None else begins
        if kept is not None:
            begins, width, space = begins[kept], width[kept], space[kept]
        return np.append(np.repeat(begins, np.where(space, 1, width)), end)

    @staticmethod
    def _collapsed(width, space, begins, end: int) -> tuple[np.ndarray, int]:
        """Which characters stay where runs of spaces become one and none stand at the ends, and
        where the text ends then. What is dropped altogether parts no run.
        """
        if width.min() == 0:
            found = np.flatnonzero(width)
            inner = found if begins is None else begins[found]
            own, end = Alignment._collapsed(width[found], space[found], inner, end)
            kept = np.zeros(len(width), bool)
            kept[found[own]] = True
            return kept, end
        kept = ~space
        kept[1:] |= kept[:-1]
        kept[0] = not space[0]
        if kept.any() and space[-1]:
            last = len(kept) - 1 - int(kept[::-1].argmax())
            if space[last]:
                kept[last], end = False, last if begins is None else int(begins[last])
        return kept, end

    def sizes(self, places: np.ndarray | int, ids: np.ndarray) -> np.ndarray | None:
        """Bytes of text that each of `ids` stands for; None where they do not add up, as of unknown
        pieces.
        """
        if not ids.size:
            return np.zeros(0, np.uint32)
        long, total = self._length[ids], places if isinstance(places, int) else len(places) - 1
        if long.min() < 0 or not total:
            return None
        ends = np.cumsum(long)
        if self._prefix and not self._suffix:
            ends -= 1
        if ends[-1] != total + self._suffix or ends[0] < 0:
            return None
        ends[-1] = total
        found = ends if isinstance(places, int) else places[ends]
        return np.diff(found, prepend=0).astype(np.uint32)
