"""CSV and JSON lines in blocks: as Arrow reads the whole, with a block of it in memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from strongroom.errors import TableUnreadable
from strongroom.programs import Input, handed, texts

pl = pytest.importorskip("polars", reason="polars is not installed: pip install 'strongroom[data]'")

CSV, LINES = "text/csv", "application/x-ndjson"
CELLS = [
    "",
    "1",
    "-7",
    "2.5",
    "true",
    "0",
    "2026-01-02",
    "12:30:00",
    "2026-01-02 03:04:05",
    "x",
    '"a,b"',
    "NA",
    "é",
    "9" * 25,
]
MEMBERS = st.sampled_from([1, 2.5, True, None, "x", "2026-01-02 03:04:05", [1], [], [None], {"b": 1}, {"c": "x"}, ["x"]])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BLOCK_BYTES", 16)


def source(data: bytes, media_type: str) -> Input:
    return Input(media_type, len(data), lambda: io.BytesIO(data))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(CELLS), st.sampled_from(CELLS)), max_size=12), st.booleans())
def test_csv_is_read_as_arrow_reads_the_whole(rows: list[tuple[str, str]], end: bool) -> None:
    data = "\n".join(["a,b", *(f"{one},{other}" for one, other in rows)]).encode() + b"\n" * end
    try:
        there = pa.csv.read_csv(io.BytesIO(data), read_options=pa.csv.ReadOptions(use_threads=False))
    except pa.ArrowInvalid:
        with pytest.raises(TableUnreadable):
            handed.hand(source(data, CSV), "arrow")
        return
    assert handed.hand(source(data, CSV), "arrow").equals(there)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from("ab"), MEMBERS), min_size=1, max_size=8))
def test_json_lines_are_read_as_arrow_reads_the_whole(rows: list[dict[str, Any]]) -> None:
    assume(any(rows))  # of rows without a member no table has a column
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    try:
        there = pa.json.read_json(io.BytesIO(data), pa.json.ReadOptions(use_threads=False))
    except pa.ArrowInvalid:
        with pytest.raises(TableUnreadable):
            handed.hand(source(data, LINES), "arrow")
        return
    found = handed.hand(source(data, LINES), "arrow")
    assert found.select(sorted(found.column_names)).to_pylist() == there.select(sorted(there.column_names)).to_pylist()


@pytest.mark.parametrize("form", ["arrow", "pandas", "polars"])
def test_every_form_has_every_row_and_types_of_the_first_block(form: str) -> None:
    data = b"n,word\n" + b"".join(f"{k},w{k % 3}\n".encode() for k in range(1000))
    found = handed.hand(source(data, CSV), form)
    if form == "polars":
        assert found.collect_schema() == {"n": pl.Int64, "word": pl.String}
        assert found.filter(pl.col("word") == "w1").select(pl.col("n").sum()).collect().item() == sum(range(1, 1000, 3))
        assert found.select(pl.len()).collect().item() == 1000
        assert found.head(3).collect()["n"].to_list() == [0, 1, 2]
    else:
        assert len(found) == 1000
        assert int(found["n"][999].as_py() if form == "arrow" else found["n"][999]) == 999
    lines = b"".join(json.dumps({"n": k, "in": {"x": [k]}}).encode() + b"\n" for k in range(1000))
    found = handed.hand(source(lines, LINES), form)
    if form == "polars":
        assert found.filter(pl.col("n") >= 990).select(pl.col("n").sum()).collect().item() == sum(range(990, 1000))
    else:
        assert len(found) == 1000


@pytest.mark.parametrize(
    ("data", "media_type"), [(b"n\n1\n2\n3\n4\n5\n6\n7\nx\n", CSV), (b'{"n":1}\n' * 4 + b'{"n":"x"}\n', LINES)]
)
def test_a_later_block_of_other_types_ends_a_lazy_query(data: bytes, media_type: str) -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        handed.hand(source(data, media_type), "polars").collect()


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"", CSV),
        (b"a,b\n1,2\n3\n", CSV),
        (b"a,a\n1,2\n", CSV),
        (b"{", LINES),
        (b"[1]\n", LINES),
        (b'{"a":1}\n{"a":', LINES),
    ],
)
@pytest.mark.parametrize("form", ["arrow", "pandas"])
def test_what_is_no_table_is_unreadable(data: bytes, media_type: str, form: str) -> None:
    with pytest.raises(TableUnreadable):
        handed.hand(source(data, media_type), form)


def test_a_line_without_an_end_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_LINE_BYTES", 100)
    with pytest.raises(TableUnreadable):
        handed.hand(source(b"a\n" + b"1" * 200, CSV), "arrow")


def test_a_lazy_frame_of_text_holds_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BLOCK_BYTES", 1 << 16)
    row, rows = b"7," + b"x" * 97 + b"\n", 400_000  # 40 MB that are nowhere whole

    class Rows(io.RawIOBase):
        at, all = 0, 4 + len(row) * rows

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            view = memoryview(buffer)
            if not self.at:
                view[:4] = b"n,x\n"
                self.at = 4
                return 4
            count = min(len(view) // len(row) * len(row), self.all - self.at)
            view[:count] = row * (count // len(row))
            self.at += count
            return count

    lazy = handed.hand(Input(CSV, Rows.all, lambda: io.BufferedReader(Rows(), 1 << 16)), "polars")
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    most = 0

    def watched(tables: Any) -> Iterator[Any]:
        nonlocal most
        for table in tables:
            most = max(most, pa.total_allocated_bytes() - before)
            yield table

    original = texts.Csv.tables
    monkeypatch.setattr(texts.Csv, "tables", lambda self, columns: watched(original(self, columns)))
    assert lazy.select(pl.col("n").sum()).collect().item() == 7 * rows
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most + python < 8 << 20
