"""Inputs of several owners, for the tests of the programs that compare them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from strongroom.output import enforce
from strongroom.policy import ANY_PARTY, OutputRule
from strongroom.programs import Input, OutputSpec, load

MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.file",
    "csv": "text/csv",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
    "text": "text/plain",
}


def raw(data: bytes, kind: str) -> Input:
    return Input(MEDIA_TYPES[kind], len(data), lambda: io.BytesIO(data))


def source(kind: str = "parquet", **columns: Any) -> Input:
    """A table, or its first column alone where the kind has no more."""
    first = next(iter(columns.values()))
    if kind == "text":
        return raw("".join(f"{value}\n" for value in first).encode(), kind)
    if kind in ("json", "jsonl"):
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return raw((json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))).encode(), kind)
    table, sink = pa.table(columns), io.BytesIO()
    if kind == "parquet":
        pa.parquet.write_table(table, sink, row_group_size=7)
    elif kind == "arrow":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    else:
        pa.csv.write_csv(table, sink)
    return raw(sink.getvalue(), kind)


def run(name: str, inputs: Mapping[str, Input], parameters: Mapping[str, Any], min_group: int = 1) -> dict[str, Any]:
    """A run of a program, its report as it leaves: through its rule. Raises ProgramError, OutputRefused."""
    program, written = load(name), dict[str, bytes]()
    program.check({**program.DEFAULTS, **parameters})
    spec = OutputSpec("report", 1 << 20, min_group, 15)
    said = {**program.DEFAULTS, **parameters}
    program.run(inputs, said, {"report": spec}, written.__setitem__, lambda _step, _done: None)
    rule = OutputRule(ANY_PARTY, 1 << 20, min_group, 15)
    found: dict[str, Any] = json.loads(enforce("report", rule, written["report"]))
    return found


def groups(report: Mapping[str, Any]) -> dict[str, int | None]:
    """The records of each group, ``None`` where they are hidden."""
    tables = report["tables"]
    return {g["group"]: g.get("records") for g in tables[0]["groups"]} if tables else {}


def people(numbers: Iterable[int], domain: str = "example.org") -> list[str]:
    return [f"person{n}@{domain}" for n in numbers]
