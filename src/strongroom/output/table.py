"""Tables: an Arrow IPC file of exactly the columns that the rule's schema says, written anew from its values.

What came is read by a reader of our own (``arrow.py``), and no byte of it by Arrow's, which is not memory-safe: no
compression (a bomb), no types but plain ones, no more rows than agreed. What leaves holds the values and nothing else: no
metadata, no dictionaries, no padding but zeros, columns by name and rows by key. Rows on fewer records than agreed are left
out, and others with them so that no total gives them away.

See ``spec/output.md``.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa

from strongroom.policy import OutputRule
from strongroom.schema import Boolean, Null, Numeric, OrNull, Table, Text, Value

from . import arrow
from .fitting import fit
from .refusing import refuse
from .suppression import suppressed


def _longest(cell: Value) -> int:
    """How many bytes the longest text has that a column may hold."""
    inner = cell.inner if isinstance(cell, OrNull) else cell
    return max((len(text.encode()) for text in inner.options), default=0) if isinstance(inner, Text) else 0


def _columns(schema: Table, data: bytes, decimals: int) -> dict[str, list[Any]]:
    written = arrow.read(data, {name: _longest(cell) for name, cell in schema.columns.items()}, schema.rows)
    return {name: [fit(cell, value, decimals) for value in written[name]] for name, cell in schema.columns.items()}


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
    shown = sorted(range(len(keys)), key=keys.__getitem__)  # before any is hidden: of equals the first one is
    if schema.count is not None:
        counts = [columns[schema.count][n] for n in shown]
        hidden = suppressed(counts, sum(counts), rule.min_group)
        shown = [n for at, n in enumerate(shown) if at not in hidden]
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
