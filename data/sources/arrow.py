"""A folder that Hugging Face's datasets saved, or its .arrow files: a row is a document, its text
one column. Files are read in place, a batch at a time.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from data.sources import files
from data.sources.corpus import Block, Source, Unit
from data.sources.files import File
from data.sources.parquet import ROWS, column_of, documents, pyarrow


@dataclasses.dataclass(frozen=True)
class Arrow(Source):
    column: str = "text"

    kind: ClassVar[str] = "arrow"
    endings: ClassVar[tuple[str, ...]] = (".arrow",)

    def check(self, path: str) -> None:
        pyarrow("arrow")
        files.expect(path, "arrow", "arrow")
        with self._open(path) as (schema, _):
            column_of(schema, self.column, path, "arrow")

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[tuple[Any, Iterator]]:
        """Schema and batches; datasets writes the stream format, others the file format too."""
        pa, whole = pyarrow("arrow"), _is_file(path)
        with files.opened(path) as f:
            source = f if files.remote(path) else pa.memory_map(path)
            try:
                if whole:
                    found = pa.ipc.open_file(source)
                    batches = (found.get_batch(i) for i in range(found.num_record_batches))
                    yield found.schema, batches
                else:
                    stream = pa.ipc.open_stream(source)
                    yield stream.schema, iter(stream)
            except (pa.ArrowException, OSError, EOFError) as e:
                raise files.truncated(path, e) from None

    def units(self, f: File, split: str) -> list[Unit]:
        return [Unit(f.path, 0, -1, split, f.size)]

    def read(self, unit: Unit) -> Iterator[Block]:
        with self._open(unit.path) as (schema, batches):
            at = schema.names.index(self.column)
            for batch in batches:
                for start in range(0, batch.num_rows, ROWS):
                    yield from documents(batch.column(at).slice(start, ROWS), unit.split)


def _is_file(path: str) -> bool:
    with files.opened(path) as f:
        return f.read(6) == b"ARROW1"
