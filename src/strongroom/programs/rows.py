"""The rows of a table, whatever stands in them: Parquet, Arrow or CSV, in batches: memory does not grow with its length.

Nothing that stands in a row ends a run, for that would tell of the row: cells of CSV are bytes, and a line that cannot
be read is left out (``lines``). What ends a run is the form of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from strongroom.errors import TableColumns, TableUnreadable

from . import Input, lines

CSV: Final = ("text/csv",)
PARQUET: Final = ("application/vnd.apache.parquet", "application/x-parquet")
ARROW: Final = ("application/vnd.apache.arrow.file",)

_BATCH_ROWS = 8192
_BLOCK_BYTES = 1 << 20
_BYTES_TYPES = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
)
_TEXT_TYPES = (
    *(pa.types.is_boolean, pa.types.is_date, pa.types.is_decimal, pa.types.is_floating, pa.types.is_integer),
    *(pa.types.is_null, pa.types.is_time),
)

pa.set_cpu_count(1)
pa.set_io_thread_count(1)
pa.set_memory_pool(pa.system_memory_pool())  # the others reserve address space by the gigabyte


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise TableUnreadable("the table is not what its media type says", step="read table") from error


def batches(source: Input, wanted: list[str]) -> Iterator[Any]:
    """The rows of some columns, as Arrow's record batches.

    Raises:
        TableColumns: one is missing. TableUnreadable: the file is not what its media type says.
    """
    with source.open() as file, _reading():
        if source.media_type in PARQUET:
            with pa.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BLOCK_BYTES) as parquet:
                _require(wanted, parquet.schema_arrow.names)
                yield from parquet.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False)
        elif source.media_type in ARROW:
            with pa.ipc.open_file(file) as arrow:
                _require(wanted, there := arrow.schema.names)
            file.seek(0)
            options = pa.ipc.IpcReadOptions(included_fields=[there.index(name) for name in wanted])
            with pa.ipc.open_file(file, options=options) as arrow:
                for n in range(arrow.num_record_batches):
                    yield from _few(arrow.get_batch(n))
        elif source.media_type in CSV:
            _require(wanted, lines.names(file))
            for table in lines.tables(file, wanted):
                yield from table.to_batches(_BATCH_ROWS)
        else:
            raise TableUnreadable("the table's media type is neither Parquet, Arrow nor CSV", step="read table")


def _few(batch: Any) -> Iterator[Any]:
    """A batch of any length, in short ones."""
    return (batch.slice(at, _BATCH_ROWS) for at in range(0, batch.num_rows, _BATCH_ROWS))


def _require(wanted: list[str], there: list[str]) -> None:
    if any(there.count(name) != 1 for name in wanted):
        raise TableColumns("a column that the parameters name is missing, or there twice", step="read table")


def texts(column: Any) -> Any:
    """A column as bytes, whatever its cells hold; missing stays missing. Raises TableColumns: by its type it has no text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    bare = any(of(kind) for of in _BYTES_TYPES)
    if not bare and not any(of(kind) for of in _TEXT_TYPES) and not (pa.types.is_timestamp(kind) and kind.tz is None):
        raise TableColumns("a column of ids or categories is of a type that has no text", step="read table")
    if pa.types.is_dictionary(column.type):
        try:
            column = column.dictionary_decode()
        except pa.ArrowNotImplementedError:
            raise TableColumns("a column of ids or categories cannot be read", step="read table") from None
    return column.cast(pa.binary()) if bare else column.cast(pa.string()).cast(pa.binary())


def rows(source: Input) -> Iterator[Any]:
    """Rows of whatever column comes first: all that is asked is how many."""
    with source.open() as file, _reading():
        if source.media_type in PARQUET:
            with pa.parquet.ParquetFile(file) as parquet:
                first = parquet.schema_arrow.names[:1]
        elif source.media_type in ARROW:
            with pa.ipc.open_file(file) as arrow:
                first = arrow.schema.names[:1]
        else:
            first = lines.names(file)[:1]
    return batches(source, first)
