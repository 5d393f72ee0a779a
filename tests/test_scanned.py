"""Lazy frames: the same answers as Polars gives on the plain file, from the bytes that the query needs and no others."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("polars", reason="polars is not installed: pip install 'strongroom[data]'")

import polars as pl
import pyarrow as pa
import pyarrow.parquet
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from strongroom.programs import Input, footer, handed, scanned
from strongroom.programs.footer import Footer, Memory

PARQUET = "application/vnd.apache.parquet"
ROWS = 5000
NAN = float("nan")
TABLE = pa.table(
    {
        "n": pa.array(range(ROWS), pa.int64()),
        "day": pa.array([dt.date(2000, 1, 1) + dt.timedelta(days=k // 10) for k in range(ROWS)]),
        "text": pa.array([f"text {k % 7}" if k % 11 else None for k in range(ROWS)]),
        "flat.dotted": pa.array([k % 3 for k in range(ROWS)], pa.int8()),
        "flat": pa.array([{"dotted": -1000 + k, "list": [k, None]} for k in range(ROWS)]),
        "real": pa.array([NAN if k == 4321 else k / 7 for k in range(ROWS)]),
        "one": pa.array([7.0 if k % 2 else NAN for k in range(ROWS)]),
        "stamp": pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=k) for k in range(ROWS)]),
        "word": pa.array([["red", "green"][k % 2] for k in range(ROWS)]).dictionary_encode(),
        "nothing": pa.nulls(ROWS, pa.int32()),
    }
)
QUERIES: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
    lambda t: t,
    lambda t: t.select("n"),
    lambda t: t.select(pl.len()),
    lambda t: t.filter(pl.col("n") >= 4990),
    lambda t: t.filter(pl.col("n") > 10**9),
    lambda t: t.filter(pl.col("n") > 10**9).select("text"),
    lambda t: t.filter(pl.col("day") == dt.date(2000, 3, 1)).select("text", "n"),
    lambda t: t.filter(pl.col("real") > 700),
    lambda t: t.filter(pl.col("one").is_nan()).select("n"),
    lambda t: t.filter(pl.col("one") != 7.0).select("n"),
    lambda t: t.filter(pl.col("nothing").is_not_null()),
    lambda t: t.filter(pl.col("flat.dotted") == 2).select("n"),
    lambda t: t.filter(pl.col("flat").struct.field("dotted") == 2).select("n"),
    lambda t: t.filter(pl.col("stamp") > dt.datetime(2020, 1, 1, 1, 20, tzinfo=dt.UTC)).select(pl.col("n").sum()),
    lambda t: t.filter(pl.col("text").is_null()).head(3),
    lambda t: t.head(7).filter(pl.col("n") > 5),
    lambda t: t.head(2500).select(pl.col("n").sum()),
    lambda t: t.head(0),
    lambda t: t.tail(3),
    lambda t: t.slice(1998, 5).select("flat"),
    lambda t: t.group_by("word").agg(pl.col("n").sum(), pl.col("real").mean()).sort(pl.col("word").cast(pl.String)),
    lambda t: t.with_row_index().filter(pl.col("index") % 1000 == 1).select("index", "n"),
    lambda t: t.select(pl.col("n").filter(pl.col("n") % 2 == 0).sum(), pl.col("flat").struct.field("list").list.len().sum()),
    lambda t: t.filter(pl.col("n").map_elements(lambda n: n == 3, return_dtype=pl.Boolean)).select("n"),
]


def parquet(table: pa.Table = TABLE, **how: Any) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, **{"row_group_size": 1000, **how})
    return sink.getvalue()


def given_to_code(data: bytes, media_type: str = PARQUET) -> pl.LazyFrame:
    found = handed.hand(Input(media_type, len(data), lambda: io.BytesIO(data)), "polars")
    assert isinstance(found, pl.LazyFrame)
    return found


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanned, "FIRST_BYTES", 1)
    monkeypatch.setattr(scanned, "PART_BYTES", 1)


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("query", range(len(QUERIES)))
@pytest.mark.usefixtures("tiny_parts")
@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
def test_a_query_has_the_same_answer_as_on_the_plain_file(query: int, engine: Any) -> None:
    data = parquet()
    there = QUERIES[query](pl.scan_parquet(io.BytesIO(data))).collect()
    assert_frame_equal(QUERIES[query](given_to_code(data)).collect(engine=engine), there)


@pytest.mark.parametrize(
    "how",
    [
        {"row_group_size": 5000}, {"compression": "none"}, {"compression": "zstd", "data_page_version": "2.0"},
        {"use_dictionary": False}, {"write_statistics": False}, {"store_schema": False}, {"version": "1.0"},
        {"write_page_index": True}, {"row_group_size": 3},
    ],
)  # fmt: skip
def test_files_of_every_making_are_read(how: dict[str, Any]) -> None:
    data = parquet(TABLE.slice(0, 1500), **how)
    late = pl.col("n") > 1200
    there = pl.scan_parquet(io.BytesIO(data))
    assert_frame_equal(given_to_code(data).collect(), there.collect())
    assert_frame_equal(given_to_code(data).filter(late).collect(), there.filter(late).collect())


def test_a_table_without_a_row_keeps_its_columns() -> None:
    data = parquet(TABLE.slice(0, 0))
    assert_frame_equal(given_to_code(data).collect(), pl.read_parquet(io.BytesIO(data)))


@pytest.mark.usefixtures("tiny_parts")
def test_two_queries_at_once_over_one_frame() -> None:
    lazy = given_to_code(parquet())
    sums = pl.collect_all([lazy.select(pl.col("n").sum()), lazy.filter(pl.col("n") > 2000).select(pl.col("n").sum())])
    assert [one.item() for one in sums] == [sum(range(ROWS)), sum(range(2001, ROWS))]
    assert lazy.join(lazy, on="n").select(pl.len()).collect().item() == ROWS


def test_extremes_skip_row_groups_in_the_locked_polars() -> None:
    data = parquet()
    source = Input(PARQUET, len(data), lambda: io.BytesIO(data))
    table = scanned._Table(source, Footer(io.BytesIO(data), len(data)), pl.read_parquet_schema(io.BytesIO(data)))
    assert len(table._fitting(pl.col("n") >= 4990)) == 1
    assert len(table._fitting(pl.col("real") > 4990)) == 5  # nobody knows of a NaN
    assert len(table._fitting(pl.col("flat.dotted") == 9)) == 5  # there is a nested column that is called the same
    assert len(table._fitting(pl.col("nothing").is_not_null())) == 0


def test_memory_is_filled_where_it_lies_and_never_under_somebodys_hands() -> None:
    memory, file = Memory(), io.BytesIO(bytes(range(256)))
    first = memory.fill(file, [(0, 10), (100, 5)], b"tail")
    assert first == b"PAR1" + bytes(range(10)) + bytes(range(100, 105)) + b"tail"
    second = memory.fill(file, [(7, 2)], b"end")
    assert second[:6] == b"PAR1\x07\x08"
    assert second[-3:] == b"end"
    assert first == b"PAR1" + bytes(range(10)) + bytes(range(100, 105)) + b"tail"
    with pytest.raises(EOFError):
        memory.fill(file, [(250, 10)], b"")


def test_a_footer_is_written_as_it_was_read() -> None:
    data = parquet()
    found = Footer(io.BytesIO(data), len(data))
    written = footer._Writer()
    written.struct(found._said)
    assert footer._Reader(bytes(written.data)).struct() == found._said
    assert [group.rows for group in found.groups] == [1000] * 5
    assert [chunk.top for chunk in found.groups[0].chunks].count("flat") == 2


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_footer_is_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    good = parquet(TABLE.slice(0, 20), row_group_size=10)
    length = int.from_bytes(good[-8:-4], "little")
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(len(good) - 8 - length, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Footer(io.BytesIO(bytes(bad)), len(bad))
    except ValueError:
        return
    for group in found.groups:
        assert all(4 <= c.start <= c.start + c.size <= len(bad) for c in group.chunks)


@given(st.binary(max_size=200))
def test_no_footer_is_refused(noise: bytes) -> None:
    for data in (noise, b"PAR1" + noise + len(noise).to_bytes(4, "little") + b"PAR1"):
        with pytest.raises(ValueError, match=r"footer|short|encrypted|schema|type|number|list|deep|column"):
            Footer(io.BytesIO(data), len(data))


def arrow(table: pa.Table, new: Any = pa.ipc.new_file) -> bytes:
    sink = io.BytesIO()
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    return sink.getvalue()


@pytest.mark.parametrize("query", range(len(QUERIES)))
@pytest.mark.parametrize(
    ("media_type", "new"),
    [
        ("application/vnd.apache.arrow.file", pa.ipc.new_file),
        ("application/vnd.apache.arrow.stream", pa.ipc.new_stream),
    ],
)
@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
def test_an_arrow_file_is_read_batch_for_batch(query: int, media_type: str, new: Any) -> None:
    there = QUERIES[query](pl.DataFrame(TABLE).lazy()).collect()
    assert_frame_equal(QUERIES[query](given_to_code(arrow(TABLE, new), media_type)).collect(), there)


def test_a_parquet_file_with_a_very_long_footer_is_read_by_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footer, "MAX_BYTES", 10)
    found = given_to_code(parquet()).filter(pl.col("n") > 4000).select("n", "text").collect()
    assert_frame_equal(found, pl.DataFrame(TABLE).filter(pl.col("n") > 4000).select("n", "text"))
