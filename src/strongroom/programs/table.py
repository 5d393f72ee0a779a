"""A table, CSV or Parquet, read in batches: memory does not grow with its length.

Numbers are read as float64, with NaN for what is missing; text as it stands, with "" for what is missing. What a column must
be is said before it is read, so that no guess from the first rows can be wrong about the later ones.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from strongroom.errors import TableColumns, TableEmpty, TableNotNumeric, TableUnreadable

from . import Input

CSV = ("text/csv",)
PARQUET = ("application/vnd.apache.parquet", "application/x-parquet")

_BATCH_ROWS = 8192
_BLOCK_BYTES = 1 << 20

pa.set_cpu_count(1)
pa.set_io_thread_count(1)
pa.set_memory_pool(pa.system_memory_pool())  # the others reserve address space by the gigabyte


class Texts:
    """A column of few distinct texts, as a number for each record: four bytes, however long the texts."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._parts: list[NDArray[np.int32]] = []

    def add(self, names: Iterable[str], codes: NDArray[Any]) -> None:
        """Some records more.

        Args:
            names: distinct texts.
            codes: for each record the place of its text in ``names``.
        """
        places = np.array([self._index.setdefault(name, len(self._index)) for name in names], dtype=np.int32)
        self._parts.append(places[codes])

    @property
    def names(self) -> tuple[str, ...]:
        """Every text that occurs, once."""
        return tuple(self._index)

    @property
    def codes(self) -> NDArray[np.int32]:
        """For each record the place of its text in ``names``."""
        return np.concatenate([np.zeros(0, dtype=np.int32), *self._parts])


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows.

    Attributes:
        rows: how many.
        numbers: float64 [rows] by column.
        texts: by column: the distinct texts, and for each row the place of its own.
        done: the thousandths of the file that were read.
    """

    rows: int
    numbers: dict[str, NDArray[np.float64]]
    texts: dict[str, tuple[list[str], NDArray[np.int32]]]
    done: int


@contextmanager
def _reading() -> Iterator[None]:
    """Turn pyarrow's errors into ours."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
            raise MemoryError from None
        if "conversion error to double" in str(error):
            raise TableNotNumeric("a column holds text where numbers must be", step="read table") from None
        raise TableUnreadable("the table is not what its media type says", step="read table") from None


class Table:
    """A table that is open.

    Args:
        source: the input.

    Raises:
        TableUnreadable: another media type, or not what that says.
        TableEmpty: no byte, or no column.
        TableColumns: two columns with one name.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        if source.media_type not in {*CSV, *PARQUET}:
            raise TableUnreadable("the table's media type is neither CSV nor Parquet", step="read table")
        if not source.size:
            raise TableEmpty("the table has no bytes", step="read table")
        self._is_csv = source.media_type in CSV
        with _reading():
            self.columns: tuple[str, ...] = tuple(self._names())
        if not self.columns:
            raise TableEmpty("the table has no columns", step="read table")
        if len(set(self.columns)) != len(self.columns):
            raise TableColumns("two columns have one name", step="read table")

    def _names(self) -> list[str]:
        with self._source.open() as file:
            if not self._is_csv:
                with pa.parquet.ParquetFile(file) as parquet:
                    return list(parquet.schema_arrow.names)
            with _open_csv(file, pa.csv.ConvertOptions(check_utf8=False)) as reader:
                return list(reader.schema.names)

    def batches(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Batch]:
        """All rows.

        Args:
            numbers: columns wanted as numbers.
            texts: columns wanted as text; a column can be wanted as both.

        Raises:
            TableColumns: one is missing.
            TableNotNumeric: one of ``numbers`` holds text.
            TableUnreadable: the file breaks off, or is malformed further on.
        """
        wanted = list(dict.fromkeys([*numbers, *texts]))
        if not set(wanted) <= set(self.columns):
            raise TableColumns("a column is missing", step="read table")
        with self._source.open() as file:
            rows = self._csv_rows(file, wanted, set(texts)) if self._is_csv else _parquet_rows(file, wanted)
            while True:
                with _reading():
                    found = next(rows, None)
                    if found is None:
                        return
                    yield Batch(
                        rows=found.num_rows,
                        numbers={name: _numbers(found.column(name)) for name in numbers},
                        texts={name: _texts(found.column(name)) for name in texts},
                        done=min(1000, file.tell() * 1000 // self._source.size) if not file.closed else 1000,
                    )

    @staticmethod
    def _csv_rows(file: BinaryIO, wanted: list[str], texts: set[str]) -> Iterator[Any]:
        types = {name: pa.string() if name in texts else pa.float64() for name in wanted}
        with _open_csv(file, pa.csv.ConvertOptions(column_types=types, include_columns=wanted)) as reader:
            yield from reader


def rehearse() -> None:
    """Read a small table, so that pyarrow's threads are there before memory is limited: each takes address space."""
    small = b"a\n1\n"
    for _ in Table(Input(CSV[0], len(small), lambda: io.BytesIO(small))).batches(["a"], []):
        pass


def _open_csv(file: BinaryIO, convert: Any) -> Any:
    return pa.csv.open_csv(
        file, read_options=pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES), convert_options=convert
    )


def _parquet_rows(file: BinaryIO, wanted: list[str]) -> Iterator[Any]:
    with pa.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BLOCK_BYTES) as parquet:
        yield from parquet.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False)


def _numbers(column: Any) -> NDArray[np.float64]:
    """A column as float64, NaN for what is missing. Raises TableNotNumeric."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # Wanted as text too. Empty cells are missing; anything else must be a number.
        column = pc.if_else(pc.equal(column, ""), None, column)
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise TableNotNumeric("a column holds something else where numbers must be", step="read table") from None


def _texts(column: Any) -> tuple[list[str], NDArray[np.int32]]:
    """A column as distinct texts, "" for what is missing, and for each row the place of its own."""
    text = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
    return text.dictionary.to_pylist(), np.asarray(text.indices.to_numpy(zero_copy_only=False), dtype=np.int32)
