"""The owner's table without the columns that are withheld, and with others under their new names: what is sealed then.

Values pass as they stand; cells of CSV are text here, whatever they mean.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from strongroom.errors import NotATable

from .reveal import Reveal
from .tabular import ARROW, CSV, JSON_LINES, PARQUET, Progress, Tabular

_LONGEST_CELL = 4 << 20


def offered_schema(schema: pa.Schema, reveal: Reveal) -> pa.Schema:
    """The schema of what is sealed."""
    return pa.schema([schema.field(c.place).with_name(c.name) for c in reveal.columns])


def rewrite(table: Tabular, reveal: Reveal, sink: IO[bytes], progress: Progress | None = None) -> None:
    """Write what is offered of a table, in its own format.

    Args:
        table: the owner's.
        reveal: which columns are offered, in which order, under which names.
        sink: where to.
        progress: called with the bytes read so far.

    Raises:
        NotATable: the file is damaged.
    """
    names = {c.place: c.name for c in reveal.columns}
    try:
        if table.media_type == CSV:
            _csv(table, names, sink)
        elif table.media_type == JSON_LINES:
            _json(table, names, sink)
        else:
            _arrow(table, names, offered_schema(table.schema, reveal), sink, progress)
    except (csv.Error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise NotATable(f"{table.path} is damaged, or has a row that is too long") from error


def _arrow(table: Tabular, names: Mapping[str, str], schema: pa.Schema, sink: IO[bytes], progress: Progress | None) -> None:
    if table.media_type == PARQUET:
        writer = pa.parquet.ParquetWriter(sink, schema)
    else:
        writer = (pa.ipc.new_file if table.media_type == ARROW else pa.ipc.new_stream)(sink, schema)
    with writer:
        for batch in table.batches(progress):
            columns = [batch.column(place) for place in names]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _csv(table: Tabular, names: Mapping[str, str], sink: IO[bytes]) -> None:
    csv.field_size_limit(_LONGEST_CELL)
    text = io.TextIOWrapper(sink, "utf-8", newline="", write_through=True)
    try:
        with table.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows)
            places = [header.index(place) for place in names]
            out = csv.writer(text, lineterminator="\n")
            out.writerow(names.values())
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise csv.Error("a row of another length")
                out.writerow([row[place] for place in places])
        text.flush()
    finally:
        text.detach()


def _json(table: Tabular, names: Mapping[str, str], sink: IO[bytes]) -> None:
    for row in _objects(table):
        kept = {name: row[place] for place, name in names.items() if place in row}
        sink.write((json.dumps(kept, ensure_ascii=False) + "\n").encode())


def _objects(table: Tabular) -> Iterator[dict[str, Any]]:
    with table.path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is no object")
                yield row
