"""Inputs in the form in which the code wants them: a table of pandas or Arrow, a lazy frame of Polars, or a file.

Parquet, Arrow, CSV and JSON lines by their media types; nothing is guessed from bytes. A lazy frame of Parquet reads only
the columns and row groups that it needs, through the same ranges as everything else; text is held in memory whole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs
import pyarrow.json
import pyarrow.parquet

from strongroom.errors import TableUnreadable

from . import Input
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
_PLACE = "table"
_READ_BYTES = 1 << 20

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
    text = pa.BufferReader(_text(source))
    if kind == CSV:
        return pa.csv.read_csv(text, read_options=pa.csv.ReadOptions(use_threads=False, block_size=_READ_BYTES))
    return pa.json.read_json(text, read_options=pa.json.ReadOptions(use_threads=False, block_size=_READ_BYTES))


def _text(source: Input) -> Any:
    """The whole of CSV or JSON lines, in memory of Arrow's.

    Arrow's readers of text read ahead in a thread of their own, also where they are told to use none, and go on with it
    after an error. So they get memory, and never a file of the interpreter's: that thread would wait for the interpreter at
    its end, or read from a file that is closed.
    """
    found = pa.allocate_buffer(source.size)
    view, have = memoryview(found), 0
    with source.open() as file:
        while have < source.size:
            count = file.readinto(view[have : have + _READ_BYTES])  # type: ignore[attr-defined]
            if not count:
                raise EOFError("the input is shorter than it is said to be")
            have += count
    return found


_FORMATS: Final[Mapping[str, Callable[[], Any]]] = {
    PARQUET: lambda: pa.dataset.ParquetFileFormat(
        default_fragment_scan_options=pa.dataset.ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True, buffer_size=_READ_BYTES
        )
    ),
    ARROW_FILE: pa.dataset.IpcFileFormat,
    CSV: pa.dataset.CsvFileFormat,
    LINES: pa.dataset.JsonFileFormat,
}


def _lazy(source: Input, kind: str) -> Any:
    """A lazy frame of Polars over a dataset of one file."""
    import polars as pl  # noqa: PLC0415 - only where it is wanted

    if kind == ARROW_STREAM:
        return pl.from_arrow(_table(source, kind)).lazy()  # type: ignore[union-attr]
    opener: Callable[[], Any] = partial(_python_file, source)
    if kind in (CSV, LINES):
        opener = partial(pa.BufferReader, _text(source))
    place = pa.fs.PyFileSystem(_Place(opener, source.size))
    dataset = pa.dataset.dataset(_PLACE, format=_FORMATS[kind](), filesystem=place)
    return pl.scan_pyarrow_dataset(dataset)


def _python_file(source: Input) -> Any:
    return pa.PythonFile(source.open(), mode="r")


class _Place(pa.fs.FileSystemHandler):  # type: ignore[misc]
    """A file system of one file, which is opened anew for every reader."""

    def __init__(self, opener: Callable[[], Any], size: int) -> None:
        self._opener, self._size = opener, size

    def get_type_name(self) -> str:
        return "input"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[Any]:
        return [
            pa.fs.FileInfo(path, pa.fs.FileType.File, size=self._size)
            if path == _PLACE
            else pa.fs.FileInfo(path, pa.fs.FileType.NotFound)
            for path in paths
        ]

    def open_input_file(self, path: str) -> Any:
        return self._opened(path)

    def open_input_stream(self, path: str) -> Any:
        return self._opened(path)

    def _opened(self, path: str) -> Any:
        if path != _PLACE:
            raise FileNotFoundError(path)
        return self._opener()

    def _nothing(self, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "an input is only read")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _nothing
    delete_file = move = copy_file = open_output_stream = open_append_stream = _nothing
