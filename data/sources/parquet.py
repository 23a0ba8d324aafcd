"""Parquet files: a row is a document, its text one column. One document in twenty, by its hash, is
validation.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from data.config import DataError
from data.sources import corpus, files
from data.sources.corpus import Block, Source, Unit
from data.sources.files import File

ROWS = 512  # of a batch that is read at a time, fewer where they are long


def pyarrow(source: str) -> Any:
    """The library. Raises DataError where it is missing."""
    try:
        import pyarrow

        return pyarrow
    except ImportError:
        raise DataError(
            f"data.source={source} needs pyarrow: pip install 'isoflop[corpora]'"
        ) from None


def column_of(schema, name: str, path: str, source: str) -> None:
    """Raises DataError unless the schema has a column of that name that holds text."""
    import pyarrow.types as t

    if schema.names.count(name) > 1:
        raise DataError(f"{path} has several columns {name!r}: rename all but one of them")
    if name not in schema.names:
        raise DataError(
            f"{path} has no column {name!r}, only {', '.join(schema.names)}: set"
            f" data.source='{source}(column=NAME)'"
        )
    kind = schema.field(name).type
    inner = kind.value_type if t.is_dictionary(kind) else kind
    if not (t.is_string(inner) or t.is_large_string(inner) or t.is_string_view(inner)):
        raise DataError(
            f"{path} has {kind} in column {name!r}, not text: set"
            f" data.source='{source}(column=NAME)'"
        )


def documents(column, split: str) -> Iterator[Block]:
    """The documents of a column of text, whose bytes need not be UTF-8; rows without text are left
    out.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # as a view, which copies nothing, and checks nothing
    as_bytes = pa.binary() if pa.types.is_string(column.type) else pa.large_binary()
    known = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    texts = (column.view(as_bytes) if known else column.cast(as_bytes)).to_pylist()
    if column.null_count:
        texts = [t for t in texts if t is not None]
    yield from corpus.documents(texts, split)


@dataclasses.dataclass(frozen=True)
class Parquet(Source):
    column: str = "text"

    kind: ClassVar[str] = "parquet"
    endings: ClassVar[tuple[str, ...]] = (".parquet",)

    def check(self, path: str) -> None:
        pyarrow("parquet")
        files.expect(path, "parquet", "parquet")
        with self._open(path) as f:
            column_of(f.schema_arrow, self.column, path, "parquet")

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with files.opened(path) as opened:
            try:  # a local file by its name: the library reads it without Python
                where = opened if files.remote(path) else path
                with pq.ParquetFile(where, buffer_size=2**20, pre_buffer=False) as found:
                    yield found
            except (pyarrow("parquet").ArrowException, OSError, EOFError) as e:
                raise files.truncated(path, e) from None

    def units(self, f: File, split: str) -> list[Unit]:
        """Runs of row groups, of about UNIT bytes."""
        with self._open(f.path) as opened:
            about = opened.metadata
            sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
        out, start, weight, whole = [], 0, 0, max(1, sum(sizes))
        for i, size in enumerate(sizes, 1):
            weight += size
            if weight >= corpus.UNIT or i == len(sizes):
                # by its share of the file, so that a bar ends where the files end
                out.append(Unit(f.path, start, i, split, f.size * weight // whole))
                start, weight = i, 0
        return out

    def read(self, unit: Unit) -> Iterator[Block]:
        with self._open(unit.path) as opened:
            groups = list(range(unit.start, unit.stop))
            about = [opened.metadata.row_group(i) for i in groups]
            each = sum(g.total_byte_size for g in about) // max(1, sum(g.num_rows for g in about))
            rows = min(ROWS, max(1, corpus.BLOCK // max(1, each)))
            for batch in opened.iter_batches(rows, groups, [self.column], use_threads=False):
                yield from documents(batch.column(0), unit.split)
