"""Outputs whose rule holds a schema: what is agreed leaves, in one form, and nothing rides along."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import math
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from strongroom.errors import MissingExtra, OutputRefused
from strongroom.output import RULES, enforce
from strongroom.output.suppression import suppressed
from strongroom.policy import OutputRule
from strongroom.schema import Boolean, Null, Numeric, OrNull, Table, Tensor, Tensors, Text, from_json, meet, to_json
from test_schema import holds, tables, values

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "output_schema").glob("*.json"))
_spec = importlib.util.spec_from_file_location("make_output_schema", HOME / "vectors" / "make_output_schema.py")
assert _spec
assert _spec.loader
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def rule(schema: Any, **changes: Any) -> OutputRule:
    schema = schema if isinstance(schema, dict) else to_json(schema)
    return OutputRule.from_json(make.rule(schema, **{"max_bytes": 1 << 20, **changes}))


def rows(data: bytes) -> list[dict[str, Any]]:
    return pa.ipc.open_file(data).read_all().to_pylist()


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


# --- vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 60
    assert {path.stem for path in VECTORS} == set(make.cases())


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    data, r = base64.b64decode(case["data"]), OutputRule.from_json(case["rule"])
    if case["expect"] != "ok":
        with pytest.raises(OutputRefused) as caught:
            enforce(case["kind"], r, data)
        assert caught.value.code == case["expect"]
        assert caught.value.rule in RULES
        assert "Ada" not in str(caught.value)
        return
    found = enforce(case["kind"], r, data)
    match case["kind"]:
        case "values":
            assert json.loads(found) == case["leaves"]
        case "table":
            assert rows(found) == case["leaves"]
        case "tensors":
            entries, body = parts(found)
            left = {n: body[e["data_offsets"][0] : e["data_offsets"][1]].hex() for n, e in entries.items()}
            assert left == case["leaves"]
        case _:
            assert found.decode() == case["leaves"]
    assert enforce(case["kind"], r, found) == found
    assert b"Ada" not in found


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name=name.rpartition(".")[2])

    monkeypatch.setattr("strongroom.output.import_module", absent)
    with pytest.raises(MissingExtra):
        enforce("values", rule(Boolean()), b"true")


# --- values ---------------------------------------------------------------------------------------------------------

singles = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-3, 3) | st.sampled_from("abc")
anything = st.recursive(
    singles,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)
decimals = st.integers(0, 15)


def fitting(schema: Any) -> st.SearchStrategy[Any]:
    """Values that a schema lets through, and some that it does not."""
    match schema:
        case Null():
            return st.none()
        case OrNull():
            return st.none() | fitting(schema.inner)
        case Boolean():
            return st.booleans()
        case Numeric():
            return st.integers(schema.low, schema.high) | st.floats(schema.low - 0.4, schema.high + 0.4)
        case Text():
            return st.sampled_from(sorted(schema.options))
    if hasattr(schema, "items"):
        return st.lists(fitting(schema.items), max_size=schema.most)
    return st.fixed_dictionaries({name: fitting(item) for name, item in schema.properties.items()})


@given(st.data(), values, decimals)
def test_a_rule_for_values_is_applied_once_and_for_all(data: st.DataObject, schema: Any, places: int) -> None:
    r, value = rule(schema, decimals=places), data.draw(fitting(schema) | anything)
    try:
        found = enforce("values", r, json.dumps(value).encode())
    except OutputRefused:
        return
    assert enforce("values", r, found) == found
    assert holds(schema, json.loads(found))


@given(st.data(), values, values, decimals)
def test_a_narrower_rule_after_a_wider_one_is_the_narrower_alone(
    data: st.DataObject, wide: Any, other: Any, places: int
) -> None:
    narrow: Any = meet(wide, other)
    assume(narrow is not None)
    wrote = json.dumps(data.draw(fitting(narrow) | fitting(wide))).encode()
    alone = after = None
    with suppress(OutputRefused):
        alone = enforce("values", rule(narrow, decimals=places), wrote)
    with suppress(OutputRefused):
        after = enforce("values", rule(narrow, decimals=places), enforce("values", rule(wide, decimals=places), wrote))
    assert alone == after


@given(st.data(), values, decimals, decimals)
def test_two_roundings_never_show_more_than_the_coarser(data: st.DataObject, schema: Any, one: int, other: int) -> None:
    # Rounded twice is not rounded once (0.46 to 0.5 to 0, and 0.46 to 0): rules meet before they are applied.
    wrote = json.dumps(data.draw(fitting(schema))).encode()
    with suppress(OutputRefused):
        found = enforce("values", rule(schema, decimals=other), enforce("values", rule(schema, decimals=one), wrote))
        assert enforce("values", rule(schema, decimals=min(one, other)), found) == found


@given(st.floats(0, 1), st.integers(0, 6), st.integers(0, 50))
def test_a_covert_channel_in_low_bits_of_a_number_is_closed(number: float, places: int, low: int) -> None:
    near = number
    for _ in range(low):
        near = math.nextafter(near, 2)
    one, other = (
        enforce("values", rule(make.UNIT, decimals=places), json.dumps(min(n, 1)).encode()) for n in (number, near)
    )
    # the neighbours are one number, or two that lie on both sides of a bound between them
    assert one == other or abs(json.loads(one) - json.loads(other)) <= 1.01 * 10**-places


@given(st.permutations(["area", "curve", "mean", "n", "tested"]), st.text(" \n\t", max_size=4), st.booleans())
def test_a_covert_channel_in_order_space_and_spelling_is_closed(order: list[str], space: str, spelled: bool) -> None:
    found = json.loads(make.written())
    body = ("," + space).join(f"{json.dumps(name)}{space}:{json.dumps(found[name])}" for name in order)
    wrote = f"{{{space}{body}{space}}}"
    if spelled:
        wrote = wrote.replace('"south"', '"s\\u006futh"').replace("120.0", "1.2e2").replace("0.5", "0.50")
    assert enforce("values", rule(make.FIGURES), wrote.encode()) == enforce("values", rule(make.FIGURES), make.written())


def test_what_leaves_is_canonical() -> None:
    assert enforce("values", rule(make.FIGURES), make.written()) == (
        b'{"area":"south","curve":[0.5,1,0],"mean":0.12,"n":120,"tested":true}'
    )


@given(st.binary(max_size=200), st.sampled_from(["values", "table", "tensors"]))
def test_any_bytes_are_refused_or_let_through(data: bytes, kind: str) -> None:
    schema = {"table": make.BY_AREA, "tensors": make.WEIGHTS, "values": make.FIGURES}[kind]
    with suppress(OutputRefused):
        enforce(kind, rule(schema), data)


# --- tables ---------------------------------------------------------------------------------------------------------


@st.composite
def written_tables(draw: st.DrawFn) -> tuple[Table, dict[str, list[Any]]]:
    schema = draw(tables)
    keys = draw(st.lists(st.sampled_from(sorted(schema.columns["area"].options)), unique=True, max_size=schema.rows))  # type: ignore[union-attr]
    columns: dict[str, list[Any]] = {
        name: [draw(fitting(cell)) for _ in keys] for name, cell in schema.columns.items() if name != "area"
    }
    return schema, {**columns, "area": keys}


def arrow(columns: dict[str, Any], **how: Any) -> bytes:
    return make.arrow(
        {n: pa.array(v, type=pa.string() if n == "area" and not v else None) for n, v in columns.items()}, **how
    )


@given(written_tables(), decimals, st.integers(1, 3))
def test_a_rule_for_a_table_is_applied_once_and_for_all(
    written: tuple[Table, dict[str, list[Any]]], places: int, smallest: int
) -> None:
    schema, columns = written
    r = rule(schema, decimals=places, min_group=smallest if schema.count else 1)
    try:
        found = enforce("table", r, arrow(columns))
    except OutputRefused:
        return
    assert enforce("table", r, found) == found
    left = rows(found)
    assert all(holds(cell, row[name]) for row in left for name, cell in schema.columns.items())
    assert [row["area"] for row in left] == sorted(row["area"] for row in left)


@given(st.lists(st.integers(0, 12), max_size=9), st.integers(1, 12))
def test_no_hidden_row_is_the_difference_of_the_total_and_what_is_shown(sizes: list[int], smallest: int) -> None:
    hidden = suppressed(sizes, sum(sizes), smallest)
    assert all(size >= smallest for n, size in enumerate(sizes) if n not in hidden) or smallest == 1
    if hidden and len(hidden) < len(sizes):
        assert len(hidden) > 1
        assert sum(sizes[n] for n in hidden) >= smallest


@given(st.permutations([0, 1, 2]), st.integers(1, 3), st.booleans(), st.binary(max_size=20))
def test_a_covert_channel_in_how_a_table_is_written_is_closed(
    order: list[int], batch: int, dictionary: bool, hidden: bytes
) -> None:
    columns = {name: [column[n] for n in order] for name, column in make.AREAS.items()}
    arrays = {name: pa.array(column) for name, column in columns.items()}
    if dictionary:
        arrays["area"] = arrays["area"].dictionary_encode()
    names = list(arrays)[:: 1 if dictionary else -1]
    whole = pa.table({n: arrays[n] for n in names}).replace_schema_metadata({"who": hidden})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, whole.schema) as writer:
        for piece in whole.to_batches(max_chunksize=batch):
            writer.write_batch(piece)
    assert enforce("table", rule(make.BY_AREA), sink.getvalue()) == enforce(
        "table", rule(make.BY_AREA), make.arrow(make.AREAS)
    )


@given(st.permutations("abcd"))
def test_a_covert_channel_in_which_of_equal_rows_is_hidden_is_closed(order: list[str]) -> None:
    """A row of three takes one of three rows of twenty with it: always the same one."""
    schema = from_json(
        {
            "columns": {
                "k": {"enum": list("abcd"), "type": "string"},
                "n": {"maximum": 99, "minimum": 0, "type": "integer"},
            },
            "count": "n",
            "key": ["k"],
            "maxRows": 4,
            "type": "table",
        }
    )
    counts = {"a": 3, "b": 20, "c": 20, "d": 20}
    found = enforce("table", rule(schema, min_group=10), arrow({"k": order, "n": [counts[k] for k in order]}))
    assert [row["k"] for row in rows(found)] == ["c", "d"]


@pytest.mark.parametrize("place", [9, 1, 60])
def test_a_covert_channel_in_padding_and_under_nothing_is_closed(place: int) -> None:
    # what stands under a null, and behind the last value, is in no row
    under = np.frombuffer(struct.pack("<3d", 0.123, 0.777, 0.5), "<f8")
    mean = pa.Array.from_buffers(
        pa.float64(), 3, [pa.py_buffer(bytes([0b11111101 ^ place << 3 & 0xF8])), pa.py_buffer(under)]
    )
    wrote = make.arrow({**make.AREAS, "mean": mean})
    left = enforce("table", rule(make.BY_AREA), wrote)
    assert left == enforce("table", rule(make.BY_AREA), make.arrow(make.AREAS))
    assert struct.pack("<d", 0.777) in wrote
    assert struct.pack("<d", 0.777) not in left


def test_a_covert_channel_behind_a_tables_end_is_closed() -> None:
    wrote = make.arrow(make.AREAS)
    plain = enforce("table", rule(make.BY_AREA), wrote)
    for behind in (b"Ada", wrote[len(make.arrow({"n": [1]})) :]):
        with suppress(OutputRefused):
            assert enforce("table", rule(make.BY_AREA), wrote + behind) == plain


def test_a_table_of_more_rows_than_it_has_bytes_is_refused() -> None:
    nothing = {"area": pa.nulls(777), "mean": pa.nulls(777), "n": pa.nulls(777)}
    wrote = make.arrow(nothing)
    for rows_ in (1 << 40, (1 << 63) - 1, -1):
        bomb = wrote.replace(struct.pack("<q", 776), struct.pack("<q", rows_))
        assert bomb != wrote
        with pytest.raises(OutputRefused, match=r"longer|no Arrow file"):
            enforce("table", rule(make.BY_AREA), bomb)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_a_table_with_changed_bytes_is_refused_or_is_a_table(data: st.DataObject) -> None:
    wrote = bytearray(make.arrow(make.AREAS))
    for _ in range(data.draw(st.integers(1, 3))):
        wrote[data.draw(st.integers(0, len(wrote) - 1))] = data.draw(st.integers(0, 255))
    with suppress(OutputRefused):
        found = enforce("table", rule(make.BY_AREA), bytes(wrote))
        assert enforce("table", rule(make.BY_AREA), found) == found


# --- tensors --------------------------------------------------------------------------------------------------------

FLOATS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


@given(st.sampled_from(sorted(FLOATS)), st.binary(min_size=32, max_size=32), decimals)
def test_a_rule_for_tensors_is_applied_once_and_for_all(dtype: str, data: bytes, places: int) -> None:
    size = 2 if dtype in ("BF16", "F16") else int(dtype[1:]) // 8
    schema = Tensors({"x": Tensor(dtype, (32 // size,))})
    wrote = make.tensors({"x": make.entry(dtype, [32 // size], 0, 32)}, data)
    r = rule(schema, decimals=places)
    try:
        found = enforce("tensors", r, wrote)
    except OutputRefused:
        assert not np.isfinite(_numbers(dtype, data)).all()
        return
    assert enforce("tensors", r, found) == found
    before, after = _numbers(dtype, data), _numbers(dtype, parts(found)[1])
    ulp = np.maximum(np.abs(before), 1e-30) * {"BF16": 2**-8, "F16": 2**-10, "F32": 2**-23, "F64": 2**-52}[dtype]
    assert (np.abs(before - after) <= 0.5001 * 10.0**-places + 2 * ulp).all()


def _numbers(dtype: str, data: bytes) -> Any:
    found = np.frombuffer(data, FLOATS[dtype])
    with np.errstate(invalid="ignore"):
        return ((found.astype("<u4") << 16).view("<f4") if dtype == "BF16" else found).astype("<f8")


@given(st.floats(-1e6, 1e6), st.integers(0, 8))
def test_a_number_is_rounded_as_python_rounds_it(value: float, places: int) -> None:
    wrote = make.tensors({"x": make.entry("F64", [], 0, 8)}, struct.pack("<d", value))
    found = enforce("tensors", rule(Tensors({"x": Tensor("F64", ())}), decimals=places), wrote)
    assert abs(struct.unpack("<d", parts(found)[1])[0] - round(value, places)) <= 1.01 * 10**-places
    if abs(value * 10**places) % 1 != 0.5:
        assert struct.unpack("<d", parts(found)[1])[0] == pytest.approx(round(value, places), abs=0.51 * 10**-places)


def test_what_leaves_is_read_by_the_formats_own_library() -> None:
    wrote = safetensors.numpy.save(
        {"w": np.array([0.123, 4.567], "<f4"), "b": np.array(1.005), "m": np.array([True, False, True])}, {"who": "Ada"}
    )
    found = safetensors.numpy.load(enforce("tensors", rule(make.WEIGHTS), wrote))
    assert list(found["w"]) == [np.float32(0.12), np.float32(4.57)]
    assert list(found["m"]) == [True, False, True]
    assert found["b"].shape == ()


def test_a_covert_channel_in_gaps_order_and_metadata_is_closed() -> None:
    plain = enforce("tensors", rule(make.WEIGHTS), make.tensors(make.ENTRIES, make.W + make.B + make.M))
    with_metadata = {"__metadata__": {"a": "Ada"}, **dict(sorted(make.ENTRIES.items()))}
    other = make.tensors(with_metadata, make.W + make.B + make.M, pad=b" " * 64)
    assert enforce("tensors", rule(make.WEIGHTS), other) == plain
    entries, body = parts(plain)
    assert list(entries) == sorted(entries)
    assert sum(e["data_offsets"][1] - e["data_offsets"][0] for e in entries.values()) == len(body)


def test_a_negative_nought_is_none() -> None:
    for dtype, form in (("F16", "<e"), ("F32", "<f"), ("F64", "<d")):
        data = struct.pack(form, -0.0) + struct.pack(form, -0.001)
        wrote = make.tensors({"x": make.entry(dtype, [2], 0, len(data))}, data)
        found = enforce("tensors", rule(Tensors({"x": Tensor(dtype, (2,))}), decimals=1), wrote)
        assert parts(found)[1] == bytes(len(data))


@given(st.data())
def test_tensors_with_changed_bytes_are_refused_or_are_tensors(data: st.DataObject) -> None:
    wrote = bytearray(make.tensors(make.ENTRIES, make.W + make.B + make.M))
    wrote[data.draw(st.integers(0, len(wrote) - 1))] = data.draw(st.integers(0, 255))
    with suppress(OutputRefused):
        found = enforce("tensors", rule(make.WEIGHTS), bytes(wrote))
        assert enforce("tensors", rule(make.WEIGHTS), found) == found
