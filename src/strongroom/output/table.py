"""Tables: an Arrow IPC file of exactly the columns that the rule's schema says, written anew from its values.

What came is read with bounds of our own before Arrow reads it: no compression (a bomb), no types but plain ones, no more
rows than agreed. What leaves holds the values and nothing else: no metadata, no dictionaries, no padding but zeros, columns
by name and rows by key. Rows on fewer records than agreed are left out, and others with them so that no total gives them
away.

See ``spec/output.md``.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from strongroom.policy import OutputRule
from strongroom.schema import Boolean, Null, Numeric, OrNull, Table, Value

from .fitting import fit
from .refusing import refuse
from .suppression import suppressed

MAGIC: Final = b"ARROW1\0\0"
MAX_MESSAGES: Final = 4096


def _field(data: bytes, table: int, index: int) -> int:
    """Where a flatbuffer's table has a field; 0 where it has none."""
    vtable = table - _read("<i", data, table)
    if 4 + 2 * index >= _read("<H", data, vtable):
        return 0
    offset = _read("<H", data, vtable + 4 + 2 * index)
    return table + offset if offset else 0


def _read(form: str, data: bytes, at: int) -> int:
    if at < 0:  # from the end, to Python
        refuse("the table is no Arrow file")
    found: int = struct.unpack_from(form, data, at)[0]
    return found


def _compressed(metadata: bytes) -> bool:
    """Whether a message's body is, or says that it is: the fourth field of its record batch (Arrow's ``Message.fbs``)."""
    root = _read("<I", metadata, 0)
    kind, header = _field(metadata, root, 1), _field(metadata, root, 2)
    if not kind or not header:
        refuse("the table is no Arrow file")
    batch = header + _read("<I", metadata, header)
    if _read("<B", metadata, kind) == 2:  # a dictionary holds a batch
        inner = _field(metadata, batch, 1)
        if not inner:
            refuse("the table is no Arrow file")
        batch = inner + _read("<I", metadata, inner)
    return bool(_field(metadata, batch, 3))


def _plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _plain_text(kind.value_type)
    return (
        pa.types.is_null(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or _plain_text(kind)
    )


def _plain_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _batches(schema: Table, data: bytes) -> Iterator[pa.RecordBatch]:
    """The batches of a file, read in the order of its messages; its footer says nothing that is needed."""
    if not data.startswith(MAGIC):
        refuse("the table is no Arrow file")
    stream = pa.py_buffer(data[len(MAGIC) :])
    messages = pa.ipc.MessageReader.open_stream(stream)
    for count, message in enumerate(messages):
        if count >= MAX_MESSAGES or message.type not in ("schema", "record batch", "dictionary"):
            refuse("the table is of too many parts, or of others than rows")
        if message.type != "schema" and _compressed(message.metadata.to_pybytes()):
            refuse("the table is compressed; write it without compression")
    reader = pa.ipc.open_stream(stream)
    if sorted(reader.schema.names) != list(schema.columns):
        refuse("the table has other columns than its schema", "schema")
    if not all(_plain(field.type) for field in reader.schema):
        refuse("the table has a column that is neither of numbers, texts nor yes and no")
    rows = 0
    for batch in reader:
        rows += batch.num_rows
        if rows > schema.rows:
            refuse(f"the table is longer than {schema.rows} rows", "schema")
        batch.validate(full=True)
        yield batch


def _columns(schema: Table, data: bytes, decimals: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in schema.columns}
    try:
        for batch in _batches(schema, data):
            for name, cell in schema.columns.items():
                written = batch.column(name).to_pylist()
                found[name] += [fit(cell, float(v) if type(v).__name__ == "float16" else v, decimals) for v in written]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, struct.error):
        refuse("the table is no Arrow file")  # its own words may quote what it read
    return found


def table(rule: OutputRule, data: bytes) -> bytes:
    """What leaves: an Arrow IPC file."""
    schema = rule.schema
    if not isinstance(schema, Table):
        refuse("the rule does not say what table may leave", "schema")
    if rule.min_group > 1 and schema.count is None:
        refuse("the schema names no column that counts the records of a row", "min_group")
    columns = _columns(schema, data, rule.decimals)
    keys = list(zip(*(columns[name] for name in schema.key), strict=True))
    if len(set(keys)) != len(keys):
        refuse("two rows of the table have one key", "schema")
    hidden: frozenset[int] = frozenset()
    if schema.count is not None:
        hidden = suppressed(columns[schema.count], sum(columns[schema.count]), rule.min_group)
    shown = sorted(set(range(len(keys))) - hidden, key=keys.__getitem__)
    return _written(schema, {name: [column[n] for n in shown] for name, column in columns.items()})


def _type(cell: Value) -> pa.DataType:
    inner = cell.inner if isinstance(cell, OrNull) else cell
    if isinstance(inner, Null):
        return pa.null()
    if isinstance(inner, Boolean):
        return pa.bool_()
    if isinstance(inner, Numeric):
        return pa.int64() if inner.whole else pa.float64()
    return pa.string()


def _written(schema: Table, columns: dict[str, list[Any]]) -> bytes:
    """The one form of these values: one batch, one encoding for each type, no metadata."""
    fields = [pa.field(name, _type(cell), isinstance(cell, Null | OrNull)) for name, cell in schema.columns.items()]
    arrays = [pa.array(columns[field.name], type=field.type) for field in fields]
    sink, written = io.BytesIO(), pa.schema(fields)
    with pa.ipc.new_file(sink, written, options=pa.ipc.IpcWriteOptions(compression=None)) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=written))
    return sink.getvalue()


def rows(data: bytes) -> int:
    """How many rows a table has that went through its rule."""
    found: int = pa.ipc.open_file(pa.BufferReader(data)).read_all().num_rows
    return found
