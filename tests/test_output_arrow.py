"""Tables that leave are read by a reader of our own: what Arrow writes as Arrow does, and of damage nothing gets through."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.errors import OutputRefused
from strongroom.output import arrow

TEXTS = ["", "red", "gr\u00fcn", "a text of more than twelve bytes", None]
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "null": (pa.null(), st.none()),
    "bool": (pa.bool_(), st.booleans() | st.none()),
    **{
        f"{kind}": (kind, st.integers(-(2 ** (bits - 1)) * signed, 2 ** (bits - signed) - 1) | st.none())
        for kind, bits, signed in [
            (pa.int8(), 8, 1), (pa.int16(), 16, 1), (pa.int32(), 32, 1), (pa.int64(), 64, 1),
            (pa.uint8(), 8, 0), (pa.uint16(), 16, 0), (pa.uint32(), 32, 0), (pa.uint64(), 64, 0),
        ]
    },
    "half": (pa.float16(), st.floats(width=16, allow_nan=False)),
    "single": (pa.float32(), st.floats(width=32, allow_nan=False) | st.none()),
    "double": (pa.float64(), st.floats(allow_nan=False) | st.none()),
    "text": (pa.string(), st.sampled_from(TEXTS)),
    "large": (pa.large_string(), st.sampled_from(TEXTS)),
    "view": (pa.string_view(), st.sampled_from(TEXTS)),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(TEXTS)),
    "wide dictionary": (pa.dictionary(pa.uint32(), pa.large_string()), st.sampled_from(TEXTS)),
}  # fmt: skip


def written(table: pa.Table, new: Any = pa.ipc.new_file, chunk: int = 3, **how: Any) -> bytes:
    sink = io.BytesIO()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(**how)) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


def read(data: bytes, names: list[str], rows: int = 1000) -> dict[str, list[Any]]:
    return arrow.read(data, dict.fromkeys(names, 128), rows)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 10))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    columns = []
    for name in kinds:
        kind, values = KINDS[name]
        found = draw(st.lists(values, min_size=rows, max_size=rows))
        if pa.types.is_dictionary(kind):
            columns.append(pa.array(found, kind.value_type).dictionary_encode().cast(kind))
        else:
            columns.append(pa.array(found, kind))
    return pa.table(columns, names=[f"column {n}" for n in range(len(columns))])


@settings(max_examples=200, deadline=None)
@given(tables(), st.integers(0, 5))
def test_what_arrow_writes_is_read_as_arrow_reads_it(table: pa.Table, skip: int) -> None:
    table = table.slice(skip)  # offsets that do not begin at nought
    there = {name: table.column(name).to_pylist() for name in table.column_names}
    assert read(written(table, unify_dictionaries=True), table.column_names) == there


def every() -> pa.Table:
    rows = 8
    return pa.table(
        {
            name: pa.array([None if n == 3 else (n % 2 if "int" in name else 0.5) for n in range(rows)], kind)
            if name.startswith(("int", "uint", "single", "double"))
            else pa.array([TEXTS[n % 4] if n != 3 else None for n in range(rows)], kind)
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
            else pa.array([TEXTS[n % 4] for n in range(rows)]).dictionary_encode().cast(kind)
            if pa.types.is_dictionary(kind)
            else pa.nulls(rows, kind)
            for name, (kind, _) in KINDS.items()
        }
    )


def damaged(good: bytes, dice: random.Random) -> bytes:
    """A few bytes, words or pieces changed: extremes more often than not."""
    bad = bytearray(good)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(bad))
        how = dice.randrange(5)
        if how == 0:
            bad[at] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])
        elif how == 1:
            word = dice.choice([0, 1, -1, 2**31 - 1, -(2**31), 8, 1 << 20]).to_bytes(4, "little", signed=True)
            bad[at // 4 * 4 : at // 4 * 4 + 4] = word
        elif how == 2:
            word = dice.choice([0, -1, 2**63 - 1, -(2**63), 1 << 40, 8]).to_bytes(8, "little", signed=True)
            bad[at // 8 * 8 : at // 8 * 8 + 8] = word
        elif how == 3:
            del bad[at : at + dice.choice([1, 8, 64])]
        else:
            bad[at:at] = bad[dice.randrange(len(bad)) :][: dice.choice([1, 8, 64, 512])]
        bad = bad or bytearray(b"\0")
    return bytes(bad)


def attack(good: bytes, names: list[str], times: int, seed: int) -> tuple[int, int]:
    """How many of so many damaged files were read and how many refused; anything else is raised."""
    dice, passed, refused = random.Random(seed), 0, 0
    for _ in range(times):
        try:
            read(damaged(good, dice), names)
            passed += 1
        except OutputRefused:
            refused += 1
    return passed, refused


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_refused_or_read_and_takes_no_memory(seed: int) -> None:
    table = every()
    good = written(table)
    read(good, table.column_names)
    tracemalloc.start()
    passed, refused = attack(good, table.column_names, 500, seed)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 100
    assert passed > 10  # a footer, padding, a value: not all of it is read
    assert most < 4 << 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_damage_by_the_thousand(seed: int) -> None:
    table = every()
    attack(written(table), table.column_names, 5000, seed)


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, arrow.MAGIC + noise, arrow.MAGIC + b"\xff\xff\xff\xff" + len(noise).to_bytes(4, "little") + noise):
        with pytest.raises(OutputRefused):
            read(data, ["a"])


def test_a_text_that_is_seen_from_a_thousand_places_is_held_once() -> None:
    long = "x" * 2000
    data = written(pa.table({"a": pa.array([long] * 900, pa.string_view())}))
    with pytest.raises(OutputRefused, match="longer than any"):
        arrow.read(data, {"a": 128}, 1000)


@pytest.mark.parametrize(
    "kind",
    [pa.date32(), pa.binary(), pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.decimal128(3), pa.timestamp("s"),
     pa.dictionary(pa.int8(), pa.int64()), pa.json_(), pa.run_end_encoded(pa.int32(), pa.int64()), pa.list_view(pa.int8())],
)  # fmt: skip
def test_other_types_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(OutputRefused, match="neither of numbers"):
        read(written(pa.table({"a": pa.nulls(2, kind)})), ["a"])


def test_compression_and_more_rows_than_agreed_are_refused() -> None:
    table = pa.table({"a": [1] * 10})
    with pytest.raises(OutputRefused, match="compressed"):
        read(written(table, compression="zstd"), ["a"])
    with pytest.raises(OutputRefused, match="longer than 9 rows"):
        read(written(table), ["a"], 9)
    with pytest.raises(OutputRefused, match="longer than 9 rows"):  # of nothing at all, which takes no byte
        read(nothing(2**40), ["a"], 9)


def nothing(rows: int) -> bytes:
    """A file that says it has so many rows of null."""
    few = 77
    return written(pa.table({"a": pa.nulls(few)}), chunk=few).replace(few.to_bytes(8, "little"), rows.to_bytes(8, "little"))


def test_arrow_is_not_what_reads_it() -> None:
    """In the process that holds keys pyarrow writes our own values, and reads nothing that a program wrote."""
    script = "import sys, strongroom.output.arrow; print('pyarrow' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
