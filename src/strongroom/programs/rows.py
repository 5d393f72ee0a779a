"""The rows of a table, whatever stands in them: Parquet, Arrow or CSV, in batches: memory does not grow with its length.

Nothing that stands in a row ends a run, for that would tell of the row: cells of CSV are bytes, and a line of another length
is left out. What ends a run is the form of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from strongroom.errors import TableColumns, TableUnreadable

from . import Input

CSV: Final = ("text/csv",)
PARQUET: Final = ("application/vnd.apache.parquet", "application/x-parquet")
ARROW: Final = ("application/vnd.apache.arrow.file",)

_BATCH_ROWS = 8192
_BLOCK_BYTES = 1 << 20

pa.set_cpu_count(1)
pa.set_io_thread_count(1)
pa.set_memory_pool(pa.system_memory_pool())  # the others reserve address space by the gigabyte


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise TableUnreadable("the table is not what its media type says", step="read table") from error


def _skip(_row: Any) -> str:
    return "skip"


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
                _require(wanted, arrow.schema.names)
                yield from (arrow.get_batch(n).select(wanted) for n in range(arrow.num_record_batches))
        elif source.media_type in CSV:
            with _open_csv(file, pa.csv.ConvertOptions(check_utf8=False)) as reader:
                _require(wanted, reader.schema.names)
            file.seek(0)
            types = dict.fromkeys(wanted, pa.binary())  # whatever stands in a cell can be read
            options = pa.csv.ConvertOptions(column_types=types, include_columns=wanted, check_utf8=False)
            with _open_csv(file, options) as reader:
                yield from reader
        else:
            raise TableUnreadable("the table's media type is neither Parquet, Arrow nor CSV", step="read table")


def _open_csv(file: Any, convert: Any) -> Any:
    return pa.csv.open_csv(
        file,
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=pa.csv.ParseOptions(invalid_row_handler=_skip),
        convert_options=convert,
    )


def _require(wanted: list[str], there: list[str]) -> None:
    if any(there.count(name) != 1 for name in wanted):
        raise TableColumns("a column that the parameters name is missing, or there twice", step="read table")


def texts(column: Any) -> Any:
    """A column as bytes, whatever it holds; missing stays missing."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type):
        return column
    return column.cast(pa.string()).cast(pa.binary())


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
            with _open_csv(file, pa.csv.ConvertOptions(check_utf8=False)) as reader:
                first = reader.schema.names[:1]
    return batches(source, first)
