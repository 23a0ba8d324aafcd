"""Where text comes from. An entry of SOURCES takes a `Data` and returns a `Corpus`; a new source is
one function and one line.

`python_source` is the standard library of the running interpreter: human-written text that is on
every machine.
"""

import glob
import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterator
from typing import NamedTuple

from data.config import Data, DataError

VALIDATION_SHARE = 20  # one document or byte in so many is validation


class Corpus(NamedTuple):
    """`documents(split)` yields bytes, in a fixed order; `fingerprint` changes when any of them
    does.
    """

    name: str
    fingerprint: str
    documents: Callable[[str], Iterator[bytes]]


def _digest(items) -> str:
    h = hashlib.sha256()
    for name, content in items:
        h.update(f"{name}\0{len(content)}\0".encode() + content)
    return h.hexdigest()[:16]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from None


_SKIPPED = {
    "test",
    "tests",
    "idle_test",
    "encodings",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "_bundled",
}


def _python_source(d: Data) -> Corpus:
    """The .py files of the standard library without tests, tables of encodings and generated help
    topics. A top-level package or module is wholly in one split: by the SHA-256 of its name.
    """
    root = sysconfig.get_path("stdlib")
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("config-"))
        files += [
            os.path.join(folder, n)
            for n in sorted(names)
            if n.endswith(".py") and not n.startswith("_sysconfigdata")
        ]
    if not files:
        raise DataError(
            f"the standard library at {root} holds no .py files: use data.source=text with"
            " data.path"
        )
    content = {os.path.relpath(f, root).replace(os.sep, "/"): _read(f) for f in files}

    def split_of(name):
        top = name.split("/")[0].removesuffix(".py")
        return (
            "validation"
            if int(hashlib.sha256(top.encode()).hexdigest(), 16) % VALIDATION_SHARE == 0
            else "train"
        )

    def documents(split):
        return (content[n] for n in sorted(content) if split_of(n) == split)

    return Corpus("python_source", _digest(sorted(content.items())), documents)


def _text(d: Data) -> Corpus:
    """Files and globs; the last twentieth of each file is validation, from a line's start on where
    one is near.
    """
    patterns = [p.strip() for p in d.path.split(",") if p.strip()]
    if not patterns:
        raise DataError("data.source=text needs data.path: files or globs, comma-separated")
    files = sorted(
        {
            f
            for p in patterns
            for f in glob.glob(os.path.expanduser(p), recursive=True)
            if os.path.isfile(f)
        }
    )
    if not files:
        raise DataError(f"data.path={d.path!r} matches no file")
    content = [(os.path.basename(f), _read(f)) for f in files]

    def documents(split):
        for _, text in content:
            cut = _cut(text)
            yield text[:cut] if split == "train" else text[cut:]

    # other splits of the same bytes are another corpus: a cache must not give one for the other
    moved = [(name, b"%d" % _cut(t)) for name, t in content if _cut(t) != _line_before(t)]
    return Corpus("text", _digest([*content, *moved]), documents)


def _twentieth(text: bytes) -> int:
    return len(text) - len(text) // VALIDATION_SHARE


def _line_before(text: bytes) -> int:
    """The last line's start in the training part; its end where there is none."""
    return text.rfind(b"\n", 0, _twentieth(text)) + 1 or _twentieth(text)


def _cut(text: bytes) -> int:
    """Where validation begins: at the start of a line within a hundredth of the text around the
    last twentieth, the one before it first; else of a character.
    """
    wanted, near = _twentieth(text), len(text) // 100
    before = text.rfind(b"\n", wanted - near, wanted) + 1
    after = text.find(b"\n", wanted, wanted + near) + 1
    if before > 0:
        return before
    if 0 < after < len(text):
        return after
    while wanted > 0 and wanted < len(text) and text[wanted] & 0xC0 == 0x80:  # inside UTF-8
        wanted -= 1
    return wanted


def _tfds(d: Data) -> Corpus:
    """A prepared TFDS set in array_record format, or one whose builder needs no tensorflow. Its
    first text feature; split `train`, and `validation` or `test`, or the last twentieth of
    train.
    """
    name = d.source.partition(":")[2]
    if not name:
        raise DataError("data.source=tfds:NAME needs the name of a TFDS set")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_datasets as tfds

    prepare = (
        f"prepare it once where tensorflow is installed: tfds.builder({name!r}, data_dir=DIR,"
        " file_format='array_record').download_and_prepare(), then give data.path=DIR"
    )
    try:
        builder = tfds.builder(name, **({"data_dir": os.path.expanduser(d.path)} if d.path else {}))
        splits = set(builder.info.splits)
    except Exception as e:  # not found, not prepared, tensorflow missing: TFDS raises a dozen types
        raise DataError(
            f"cannot open TFDS set {name!r} ({type(e).__name__}:"
            f" {str(e).strip().splitlines()[0] if str(e).strip() else ''}): {prepare}"
        ) from None
    if not splits:
        raise DataError(f"TFDS set {name!r} is not prepared: {prepare}")
    texts = [k for k, f in builder.info.features.items() if isinstance(f, tfds.features.Text)]
    if not texts:
        raise DataError(
            f"TFDS set {name!r} has no text feature, only {', '.join(builder.info.features)}"
        )
    other = next((s for s in ("validation", "test") if s in splits), None)
    wanted = {"train": "train" if other else "train[:95%]", "validation": other or "train[95%:]"}
    try:
        opened = {split: builder.as_data_source(split=text) for split, text in wanted.items()}
    except Exception as e:
        raise DataError(
            f"TFDS set {name!r} cannot be read without tensorflow ({type(e).__name__}): {prepare}"
        ) from None

    def documents(split):
        for row in opened[split]:
            text = row[texts[0]]
            yield text if isinstance(text, bytes) else str(text).encode()

    info = builder.info
    mark = hashlib.sha256(
        f"{info.full_name}|{texts[0]}|{sorted((k, v.num_examples, v.num_bytes) for k, v in info.splits.items())}".encode()  # noqa: E501
    )
    return Corpus(f"tfds:{info.full_name}", mark.hexdigest()[:16], documents)


SOURCES = {"python_source": _python_source, "text": _text, "tfds": _tfds}


def load(d: Data) -> Corpus:
    """The corpus that `d` names. Raises DataError."""
    kind = d.source.partition(":")[0]
    if kind not in SOURCES:
        known = ["python_source", "text", "tfds:NAME", "synthetic", "tokens"]
        raise DataError(f"unknown data.source {d.source!r}: choose from {', '.join(known)}")
    return SOURCES[kind](d)
