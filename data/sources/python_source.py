"""The standard library of the running interpreter: human-written text that is on every machine."""

import dataclasses
import functools
import hashlib
import os
import sysconfig
from collections.abc import Iterator
from typing import ClassVar

from data.config import DataError
from data.sources import corpus, files
from data.sources.corpus import Block, Corpus, Source, Unit
from data.sources.files import File

SKIPPED = {
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


@dataclasses.dataclass(frozen=True)
class PythonSource(Source):
    """The .py files of the standard library without tests, tables of encodings and generated help
    topics. A top-level package or module is wholly in one split: by the SHA-256 of its name.
    """

    kind: ClassVar[str] = "python_source"

    def find(self) -> dict[str, list[File]]:
        root, found = _root(), []
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(
                f for f in folders if f not in SKIPPED and not f.startswith("config-")
            )
            found += [
                files.stat(os.path.join(folder, n))
                for n in names
                if n.endswith(".py") and not n.startswith("_sysconfigdata")
            ]
        if not found:
            raise DataError(
                f"the standard library at {root} holds no .py files: use data.source=text with"
                " data.path"
            )
        return {"": sorted(found, key=lambda f: _name(f.path))}

    def open(self, cache: str) -> Corpus:
        """Reads the files: they are few. Raises DataError."""
        if self.path or self.validation_path:
            raise DataError(
                f"data.path={self.path or self.validation_path} is not read by"
                " data.source=python_source, the standard library: set data.source too, to text,"
                " jsonl, parquet or another that reads files"
            )
        order, h = self.find(), hashlib.sha256()
        for f in order[""]:
            with files.opened(f.path) as opened:
                h.update(f"{_name(f.path)}\0{f.size}\0".encode() + opened.read())
        return Corpus(self.kind, h.hexdigest()[:16], self, order)

    def units(self, f: File, split: str) -> list[Unit]:
        top = _name(f.path).split("/")[0].removesuffix(".py")
        number = int(hashlib.sha256(top.encode()).hexdigest(), 16)
        where = "validation" if number % corpus.VALIDATION_SHARE == 0 else "train"
        return [Unit(f.path, 0, f.size, where, f.size)]

    def read(self, unit: Unit) -> Iterator[Block]:
        with files.opened(unit.path) as f:
            yield from corpus.documents([f.read()], unit.split)


@functools.cache
def _root() -> str:
    return sysconfig.get_path("stdlib")


def _name(path: str) -> str:
    return path[len(_root()) + 1 :].replace(os.sep, "/")
