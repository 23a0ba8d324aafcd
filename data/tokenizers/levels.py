"""Whether a tokenizer.json is a byte-level BPE whose ids decide the bytes that they stand for."""

import contextlib


def alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in GPT-2's files: printable Latin-1 for
    itself, the others from U+0100 on.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def _keeps(step: dict) -> bool:
    """Whether a pre-tokenizer cuts text and neither drops nor changes any of it."""
    if step["type"] in ("Split", "Punctuation"):
        return str(step.get("behavior")).lower() != "removed"
    return step["type"] in ("Digits", "UnicodeScripts")


def steps(part: dict | None) -> list[dict]:
    """The members of a sequence of normalizers or pre-tokenizers, sequences within it too."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner = part.get("pretokenizers", part.get("normalizers", []))
    return [step for member in inner for step in steps(member)]


def byte_level(spec: dict, prefixed: bool = False) -> bool:
    """Whether text reaches a BPE model as the byte alphabet, unchanged but for the normalizer and,
    if `prefixed`, a space before it.
    """
    cuts, model = steps(spec.get("pre_tokenizer")), spec["model"]
    return (
        model.get("type", "BPE") == "BPE"
        and "merges" in model
        and not any(model.get(k) for k in ("continuing_subword_prefix", "end_of_word_suffix"))
        and bool(cuts)
        and cuts[-1]["type"] == "ByteLevel"
        and (prefixed or not cuts[-1].get("add_prefix_space", True))
        and all(map(_keeps, cuts[:-1]))
        and all(c in model["vocab"] for c in alphabet())
    )


def pieces_by_id(spec: dict, separator: int, size: int) -> list[bytes] | None:
    """The bytes that each id stands for; nothing for special tokens, which text never becomes. None
    where an id can stand for two things.
    """
    model, out = spec["model"], [b""] * size
    # characters outside the alphabet become some that Latin-1 does not have
    to_byte = {code: 0xFFFF for code in range(256)} | {ord(c): b for c, b in alphabet().items()}
    for piece, i in model["vocab"].items():
        with contextlib.suppress(UnicodeEncodeError):
            out[i] = piece.translate(to_byte).encode("latin-1")
    added = spec.get("added_tokens") or []
    made = _made(model) if any(t["content"] in model["vocab"] for t in added) else set()
    for token in added:
        i, content = token["id"], token["content"].encode()
        if token.get("special"):
            if token["content"] in made:
                return None
            out[i] = b""
        elif token.get("lstrip") or token.get("rstrip"):
            return None  # it takes the spaces beside it, as many as there are
        elif out[i] not in (b"", content):
            return None
        else:
            out[i] = content
    return None if out[separator] else out


def _made(model: dict) -> set[str]:
    """The pieces that the model itself can make of plain text."""
    if model.get("ignore_merges"):
        return set(model["vocab"])
    merges = model.get("merges", [])
    return {"".join(m) if isinstance(m, list) else m.replace(" ", "") for m in merges} | {
        *alphabet()
    }
