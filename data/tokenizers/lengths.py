"""Where the tokens of a tokenizer.json end in a text, from their ids alone.

The library's offsets cost a third of its time. In text that normalisation leaves as it is, tokens
follow each other without gaps, so their lengths decide where they stand, but for a space that is
put before the text. The lengths must add up to the text; where they do not, or where nothing is
sure, the library is asked.
"""

import unicodedata

import numpy as np

from data.tokenizers.levels import byte_level, pieces_by_id, steps

MARK = "\u2581"  # a space within a piece
# leave ASCII as long as it is or make it shorter; of them all, NFC alone leaves more than that
FORMS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Precompiled", "Strip")


class Lengths:
    """Bytes of each id in unchanged text, -1 where it is not said; whether a space is put before a
    text, `always`, where it does not begin with one (`first`), or `never`; and the text that is
    unchanged: `any`, `composed` (in NFC), or `ascii`.
    """

    def __init__(self, by_id: np.ndarray, prefix: str, unchanged: str):
        self._by_id, self._prefix, self._unchanged = by_id, prefix, unchanged

    def sure(self, text: bytes, characters: str) -> bool:
        """Whether normalisation leaves a text as it is, as far as it can be known beforehand.
        `characters` are those of `text`.
        """
        if text.isascii() or self._unchanged == "any":
            return True
        return self._unchanged == "composed" and unicodedata.is_normalized("NFC", characters)

    def sizes(self, text: bytes, ids: np.ndarray) -> np.ndarray | None:
        """Bytes of text that each of `ids` stands for; of several tokens of one character the last
        takes it. None where the lengths do not add up.
        """
        if not ids.size:
            return np.zeros(0, np.uint32)
        long = self._by_id[ids]
        if long.min() < 0:
            return None
        ends = np.cumsum(long)
        if self._prefix == "always" or self._prefix == "first" and text[:1] != b" ":
            ends -= 1
        if ends[-1] != len(text) or ends[0] < 0:
            return None
        if not text.isascii():
            raw = np.frombuffer(text + b" ", np.int8)
            for _ in range(3):  # back to where a character begins
                ends -= raw[ends] < -64
        return np.diff(ends, prepend=0).astype(np.uint32)


def lengths(spec: dict, separator: int, size: int) -> Lengths | None:
    """Of a tokenizer.json that puts text into pieces without gaps; None of any other."""
    return _of_levels(spec, separator, size) or _of_marks(spec, size)


def _of_levels(spec: dict, separator: int, size: int) -> Lengths | None:
    """Byte-level BPE, perhaps after NFC, perhaps with a space before the text."""
    cuts = steps(spec.get("pre_tokenizer"))
    prefixed = bool(cuts) and cuts[-1].get("add_prefix_space", True)
    if prefixed and len(cuts) > 1:  # then every cut begins with one
        return None
    if not byte_level(spec, prefixed=True):
        return None
    found = pieces_by_id(spec, separator, size)
    names = {step["type"] for step in steps(spec.get("normalizer"))}
    if found is None or not names <= set(FORMS):
        return None
    by_id = np.array([len(piece) or -1 for piece in found], np.int64)
    if prefixed:  # what follows an added token begins with one too
        by_id[[token["id"] for token in spec.get("added_tokens") or []]] = -1
    changed = "any" if not names else "composed" if names == {"NFC"} else "ascii"
    return Lengths(by_id, "first" if prefixed else "never", changed)


def _of_marks(spec: dict, size: int) -> Lengths | None:
    """Pieces with marked spaces, as of sentencepiece: by a normalizer or by Metaspace."""
    model, cuts = spec["model"], steps(spec.get("pre_tokenizer"))
    prefix, marked, forms = "never", False, set()
    for step in steps(spec.get("normalizer")):
        if step == {"type": "Prepend", "prepend": MARK}:
            prefix = "always"
        elif step["type"] == "Replace" and step["content"] in (MARK, " "):
            pattern = step["pattern"]
            if pattern == {"String": " "}:
                marked = step["content"] == MARK
            elif pattern in ({"Regex": " {2,}"}, {"Regex": "\\s{2,}"}):
                forms.add("Strip")
            else:
                return None
        elif step["type"] in FORMS:
            forms.add(step["type"])
        else:
            return None
    if [step["type"] for step in cuts] == ["Metaspace"] and not marked:
        marked = cuts[0].get("replacement") == MARK
        if cuts[0].get("prepend_scheme", "always") != "never":
            prefix = "first"
    elif cuts:
        return None
    by_id = _long(model, size)
    if not marked or by_id is None:
        return None
    by_id[[token["id"] for token in spec.get("added_tokens") or []]] = -1
    return Lengths(by_id, prefix, "ascii" if forms else "any")


def _long(model: dict, size: int) -> np.ndarray | None:
    """Bytes of each piece; None of a model that drops characters which it does not know."""
    vocab, fallback = model["vocab"], bool(model.get("byte_fallback"))
    if isinstance(vocab, list) and model.get("unk_id") is not None:
        pieces, unknown = [piece for piece, _ in vocab], model["unk_id"]
    elif "merges" in model and (fallback or model.get("unk_token")):
        pieces, unknown = [""] * size, vocab.get(model.get("unk_token"), -1)
        if any(model.get(k) for k in ("continuing_subword_prefix", "end_of_word_suffix")):
            return None
        for piece, i in vocab.items():
            pieces[i] = piece
    else:
        return None
    out = np.full(size, -1, np.int64)
    out[: len(pieces)] = [len(piece.replace(MARK, " ").encode()) or -1 for piece in pieces]
    if fallback:
        of_bytes = {f"<0x{byte:02X}>" for byte in range(256)}
        if not of_bytes <= set(pieces):
            return None
        out[[i for i, piece in enumerate(pieces) if piece in of_bytes]] = 1
    if unknown >= 0:
        out[unknown] = -1
    return out
