"""A table in a file: Parquet, CSV, JSON lines or Arrow, read in batches and written again.

CSV and JSON lines say no types. They are found by reading every row, never from the first ones alone: the narrowest type
that every value fits. A mock and the table that it stands for are read by the same rules.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from strongroom.errors import EmptyFile, NotATable, NotFound, TooLarge

PARQUET, CSV, JSON_LINES = "application/vnd.apache.parquet", "text/csv", "application/x-ndjson"
ARROW, ARROW_STREAM = "application/vnd.apache.arrow.file", "application/vnd.apache.arrow.stream"
SUFFIXES = {
    ".arrow": ARROW,
    ".arrows": ARROW_STREAM,
    ".csv": CSV,
    ".feather": ARROW,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".parquet": PARQUET,
}
TYPELESS = (CSV, JSON_LINES)

BATCH_ROWS = 16_384
BLOCK_BYTES = 4 << 20  # of CSV and JSON lines at a time; no row may be longer
MAX_TABLE_BYTES = 1 << 30  # of a mock that is read whole into memory

FIRST_BYTES = 1 << 20  # of CSV, in which a room finds the types (programs/handed.py)

Progress = Callable[[int], None]

# What a column of CSV may be, the narrowest first. Whatever does not fit one of them is text.
_CSV_KINDS = (
    pa.null(),
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Arrow's errors as ours; theirs may hold a cell's text."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise NotFound(f"cannot read {path}: {error.strerror}") from error
        raise NotATable(f"{path} is not a table as its name says, or is damaged") from error


def media_type_of(path: Path) -> str:
    """By the file's suffix. Raises NotATable."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise NotATable(f"{path} is no table by its name", hint=f"A table's name ends with one of {', '.join(SUFFIXES)}")
    return found


class Tabular:
    """A table in a file.

    Args:
        path: the file.
        progress: called with the bytes read so far, while types are found.

    Raises:
        NotFound, EmptyFile.
        NotATable: another kind of file, damaged, without a column, or with two columns of one name.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path, self.media_type = path, media_type_of(path)
        with _reading(path):
            if not path.stat().st_size:
                raise EmptyFile(f"{path} is empty")
            found = self._schema(progress or (lambda _done: None))
        if not len(found):
            raise NotATable(f"{path} has no columns")
        if len(set(found.names)) != len(found):
            raise NotATable(f"{path} has two columns with one name")
        # What else stands in a schema (pandas writes its index and more) is nobody's business.
        self.schema = pa.schema([pa.field(f.name, f.type, f.nullable) for f in found])

    def _schema(self, progress: Progress) -> pa.Schema:
        if self.media_type in TYPELESS:
            find = _csv_schema if self.media_type == CSV else _json_schema
            return find(self.path, progress)
        with _opened(self.path) as file:
            if self.media_type == PARQUET:
                with pa.parquet.ParquetFile(file) as parquet:
                    return parquet.schema_arrow
            with _ipc(file, self.media_type) as reader:
                return reader.schema

    @property
    def at_first_sight(self) -> pa.Schema:
        """The schema as a reader takes it that finds the types of CSV in the first MiB, as rooms do."""
        if self.media_type != CSV:
            return self.schema
        with _reading(self.path), _opened(self.path) as file:
            options = pa.csv.ReadOptions(use_threads=False, block_size=FIRST_BYTES)
            with pa.csv.open_csv(file, read_options=options) as reader:
                return reader.schema

    def batches(self, progress: Progress | None = None) -> Iterator[pa.RecordBatch]:
        """Every row. Raises NotATable: the file breaks off, or is malformed further on."""
        with _reading(self.path), _opened(self.path) as file:
            for batch in self._batches(file):
                yield batch.replace_schema_metadata(None)
                if progress and not file.closed:
                    progress(file.tell())

    def _batches(self, file: Any) -> Iterator[pa.RecordBatch]:
        if self.media_type == PARQUET:
            with pa.parquet.ParquetFile(file, pre_buffer=False) as parquet:
                yield from parquet.iter_batches(BATCH_ROWS, use_threads=False)
        elif self.media_type == ARROW:
            with _ipc(file, ARROW) as reader:
                for place in range(reader.num_record_batches):
                    yield reader.get_batch(place)
        elif self.media_type == ARROW_STREAM:
            with _ipc(file, ARROW_STREAM) as reader:
                yield from reader
        elif self.media_type == CSV:
            with _csv(file, {f.name: f.type for f in self.schema}) as reader:
                yield from reader
        else:
            for table in _json_tables(file, self.schema):
                yield from table.to_batches()

    def read(self, max_bytes: int = MAX_TABLE_BYTES) -> pa.Table:
        """The whole table. Raises TooLarge, NotATable."""
        found, size = [], 0
        for batch in self.batches():
            size += batch.nbytes
            if size > max_bytes:
                raise TooLarge(f"{self.path.name} holds more than {max_bytes:,} bytes when it is unpacked")
            found.append(batch)
        schema = found[0].schema if found and self.media_type not in TYPELESS else self.schema
        return pa.Table.from_batches(found, schema=schema)


def _opened(path: Path) -> Any:
    """The file as Arrow's own: its threads read ahead, and must neither wait for the interpreter nor share a place,
    so that each reader has one for itself.
    """
    return pa.OSFile(str(path), "rb")


def _ipc(file: Any, media_type: str) -> Any:
    return pa.ipc.open_file(file) if media_type == ARROW else pa.ipc.open_stream(file)


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csv(file: Any, types: dict[str, pa.DataType]) -> Any:
    return pa.csv.open_csv(
        file,
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        convert_options=pa.csv.ConvertOptions(column_types=types),
    )


def _csv_schema(path: Path, progress: Progress) -> pa.Schema:
    with _opened(path) as file, _csv(file, {}) as reader:
        names = reader.schema.names
    if len(set(names)) != len(names):
        return pa.schema([pa.field(name, pa.null()) for name in names])  # for the caller to refuse
    left = {name: list(_CSV_KINDS) for name in names}
    with _opened(path) as file, _csv(file, dict.fromkeys(names, pa.string())) as reader:
        for batch in reader:
            for name, kinds in left.items():
                left[name] = [kind for kind in kinds if _fits(batch.column(name), kind)]
            progress(file.tell())
    return pa.schema([pa.field(name, next(iter(kinds), pa.string())) for name, kinds in left.items()])


def _fits(texts: pa.Array, kind: pa.DataType) -> bool:
    """Whether CSV with these cells can be read as the type."""
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(pa.table({"x": texts.unique()}), sink, pa.csv.WriteOptions(quoting_style="all_valid"))
    lines = sink.getvalue()
    try:
        pa.csv.read_csv(
            pa.BufferReader(lines),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=max(BLOCK_BYTES, lines.size)),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types={"x": kind}),
        )
    except pa.ArrowInvalid:
        return False
    return True


# --- JSON lines -------------------------------------------------------------------------------------------------------


def _json_tables(file: Any, schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Some whole lines at a time."""
    options = pa.json.ReadOptions(use_threads=False, block_size=2 * BLOCK_BYTES)
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error" if schema else "infer")
    rest = b""
    while True:
        piece = file.read(BLOCK_BYTES)
        lines, end, rest = (rest + piece).rpartition(b"\n") if piece else (rest, b"", b"")
        if len(rest) > BLOCK_BYTES:
            raise pa.ArrowInvalid("a line is too long")
        if lines.strip():
            yield pa.json.read_json(pa.BufferReader(lines + end), options, parse)
        if not piece:
            return


def _json_schema(path: Path, progress: Progress) -> pa.Schema:
    found: pa.Schema | None = None
    with _opened(path) as file:
        for table in _json_tables(file, None):
            found = table.schema if found is None else _both(found, table.schema)
            progress(file.tell())
    return found if found is not None else pa.schema([])


def _both(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """What both fit: 3 and 2.5 are float64; a timestamp and another text are text."""
    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        stamps = [
            pa.schema([pa.field(f.name, pa.string() if pa.types.is_timestamp(f.type) else f.type) for f in schema])
            for schema in (one, other)
        ]
        return pa.unify_schemas(stamps, promote_options="permissive")


# --- writing ----------------------------------------------------------------------------------------------------------

_EMPTY_LINE = re.compile(rb'("(?:[^"]|"")*")|^\n', re.MULTILINE)  # a quoted cell may hold one


def written(table: pa.Table, media_type: str) -> bytes:
    """A table that is at hand, in one of the formats. The same table gives the same bytes.

    Raises:
        NotATable: the format cannot hold its types.
    """
    sink = io.BytesIO()
    try:
        if media_type == PARQUET:
            pa.parquet.write_table(table, sink)
        elif media_type == CSV:
            pa.csv.write_csv(table, sink)
            if table.num_columns == 1:  # a line of nothing is no row to readers; two quotes are what a cell of nothing is
                return _EMPTY_LINE.sub(lambda found: found[1] or b'""\n', sink.getvalue())
        elif media_type == JSON_LINES:
            for row in table.to_pylist():
                sink.write((json.dumps(row, default=str, ensure_ascii=False, allow_nan=False) + "\n").encode())
        else:
            new = pa.ipc.new_file if media_type == ARROW else pa.ipc.new_stream
            with new(sink, table.schema) as writer:
                writer.write_table(table)
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise NotATable(f"a table with these types cannot be written as {media_type}") from error
    return sink.getvalue()
