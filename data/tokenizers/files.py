"""Files of tokenizers: read, told apart, and refused with a line that says what to do."""

import json
import os
import re

from data.config import DataError

# what is read, by data.tokenizer
KINDS = {
    "sentencepiece": "a sentencepiece model",
    "hf": "a tokenizer.json",
    "tiktoken": "a file of tiktoken ranks",
}
RANK = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?(\n|$)")


def read(path: str, kind: str) -> bytes:
    """The content of data.tokenizer_path. Raises DataError."""
    if not os.path.isfile(path):
        raise DataError(f"data.tokenizer_path={path!r} is not a file: give {KINDS[kind]}")
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from None


def kind(content: bytes) -> str | None:
    """Which data.tokenizer reads a file of this content."""
    if RANK.match(content):
        return "tiktoken"
    if content[:1] == b"\n" and content[2:3] == b"\n":  # a ModelProto whose first field is a piece
        return "sentencepiece"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return "hf" if isinstance(found, dict) and isinstance(found.get("model"), dict) else None


def refused(path: str, wanted: str, why, content: bytes) -> DataError:
    """What is wrong with a file that is not of the kind that data.tokenizer names."""
    lines = str(why).strip().splitlines()
    reason = f" ({lines[0][:160]})" if lines else ""
    if content.startswith(b"version https://git-lfs"):
        return DataError(f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull")
    other = kind(content)
    if other and other != wanted:
        return DataError(
            f"{path} is not {KINDS[wanted]}: it looks like {KINDS[other]}, for which set"
            f" data.tokenizer={other}"
        )
    if wanted == "hf" and os.path.basename(path) in ("vocab.json", "merges.txt"):
        return DataError(f"{path} is only a part of a tokenizer: give its tokenizer.json")
    return DataError(f"{path} is not {KINDS[wanted]}{reason}: give another data.tokenizer_path")


def missing(library: str, path: str) -> DataError:
    return DataError(
        f"{path} is read by the library {library}, which is not installed: pip install"
        " 'isoflop[corpora]'"
    )
