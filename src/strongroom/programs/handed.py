"""Inputs in the form in which the code wants them: a table of pandas or Arrow, a lazy frame of Polars, or a file.

Parquet, Arrow, CSV and JSON lines by their media types; nothing is guessed from bytes. A lazy frame of Parquet reads only
the columns and row groups that it needs, through the same ranges as everything else (``scanned.py``); of Arrow it holds a
batch at a time, of text a block (``texts.py``). A table of pandas or Arrow is in memory whole, and its text never is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from strongroom.errors import TableUnreadable

from . import Input, texts
from .code import ARROW, PANDAS

PARQUET, ARROW_FILE, ARROW_STREAM, CSV, LINES = "parquet", "arrow file", "arrow stream", "csv", "json lines"
MEDIA_TYPES: Final[Mapping[str, str]] = {
    "application/jsonl": LINES,
    "application/vnd.apache.arrow.file": ARROW_FILE,
    "application/vnd.apache.arrow.stream": ARROW_STREAM,
    "application/vnd.apache.parquet": PARQUET,
    "application/x-ndjson": LINES,
    "application/x-parquet": PARQUET,
    "text/csv": CSV,
}
_READ_BYTES, _BATCH_ROWS = 1 << 20, 1 << 16

pa.set_cpu_count(1)
pa.set_io_thread_count(1)
pa.set_memory_pool(pa.system_memory_pool())  # the others reserve address space by the gigabyte


def hand(source: Input, form: str) -> Any:
    """A table, in the form in which it is wanted.

    Raises:
        TableUnreadable: another media type than a table's, or not what that says.
    """
    if source.media_type not in MEDIA_TYPES:
        raise TableUnreadable("the input's media type is no table's", step="read table")
    kind = MEDIA_TYPES[source.media_type]
    with _reading():
        if form == ARROW:
            return _table(source, kind)
        if form == PANDAS:
            table = _table(source, kind)
            return table.to_pandas(split_blocks=True, self_destruct=True)
        return _lazy(source, kind)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn pyarrow's errors into ours."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
            raise MemoryError from None
        raise TableUnreadable("the table is not what its media type says", step="read table") from None


def _table(source: Input, kind: str) -> Any:
    """The whole of it, as an Arrow table."""
    with source.open() as file:
        if kind == PARQUET:
            with pa.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BYTES) as parquet:
                return parquet.read(use_threads=False)
        if kind == ARROW_FILE:
            return pa.ipc.open_file(file).read_all()
        if kind == ARROW_STREAM:
            return pa.ipc.open_stream(file).read_all()
    return (texts.Csv(source) if kind == CSV else texts.Lines(source)).read()


def _lazy(source: Input, kind: str) -> Any:
    """A lazy frame of Polars."""
    from . import scanned  # noqa: PLC0415 - Polars, only where it is wanted

    if kind == PARQUET:
        with suppress(ValueError):  # what cannot be read in parts is read by Arrow, or is no Parquet file
            return scanned.scan(source)
        return scanned.tables(_Whole(source))
    if kind in (CSV, LINES):
        return scanned.tables(texts.Csv(source) if kind == CSV else texts.Lines(source))
    return scanned.tables(_Batches(source, kind))


class _Whole:
    """A Parquet file of which Arrow reads some columns in batches: a very long footer, say."""

    def __init__(self, source: Input) -> None:
        self._source = source
        with self._opened() as parquet:
            self.schema = parquet.schema_arrow

    def _opened(self) -> Any:
        return pa.parquet.ParquetFile(self._source.open(), pre_buffer=False, buffer_size=_READ_BYTES)

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        with self._opened() as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=[*columns], use_threads=False):
                yield pa.Table.from_batches([batch])


class _Batches:
    """An Arrow file or stream, batch for batch; of a file only the columns that are wanted are read."""

    def __init__(self, source: Input, kind: str) -> None:
        self._source, self._kind = source, kind
        with source.open() as file, self._reader(file) as reader:
            self.schema = reader.schema

    def _reader(self, file: Any, columns: Sequence[str] | None = None) -> Any:
        fields = None if columns is None else [self.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        return (pa.ipc.open_file if self._kind == ARROW_FILE else pa.ipc.open_stream)(file, options=options)

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        with self._source.open() as file, self._reader(file, columns) as reader:
            if self._kind == ARROW_FILE:
                every = (reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                every = iter(reader)
            for batch in every:
                yield pa.Table.from_batches([batch]).select([*columns])
