"""Schemas drafted from what an analysis wrote on stand-ins, and read from what somebody says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.app.client import forms
from strongroom.errors import NotFound, PolicyError, Usage
from strongroom.output import enforce
from strongroom.policy import OutputRule
from strongroom.schema import Array, Boolean, Null, Numeric, Object, OrNull, Table, Tensor, Tensors, Text

pa = pytest.importorskip("pyarrow", reason="needs strongroom[room]")

RULE = {"recipients": frozenset({"lab"}), "max_bytes": 1 << 20, "min_group": 1, "decimals": 15}
NAMES = st.text("abcdefgh ", min_size=1, max_size=8).filter(lambda text: text.strip() == text)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, min_size=1, max_size=4),
    max_leaves=12,
)


def arrow(columns: dict) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@given(VALUES)
def test_what_was_written_fits_its_draft(value) -> None:
    data = json.dumps(value).encode()
    form = forms.drafted("values", data)
    if form is not None:
        assert enforce("values", OutputRule(**RULE, schema=form), data)


@given(st.lists(st.tuples(NAMES, st.integers(0, 10**6), NUMBERS.map(float) | st.none()), min_size=1, max_size=8))
def test_a_table_fits_its_draft(rows) -> None:
    by_key = {key: rest for key, *rest in rows}
    columns = {
        "region": [*by_key],
        "n": [n for n, _ in by_key.values()],
        "mean": [float(m or 0) for _, m in by_key.values()],
    }
    form = forms.drafted("table", arrow(columns))
    assert isinstance(form, Table)
    assert (form.key, form.count) == (("region",), "n")
    assert enforce("table", OutputRule(**RULE, schema=form), arrow(columns))


def test_what_a_draft_says() -> None:
    def of(value):
        return forms.drafted("values", json.dumps(value).encode())

    assert of({"n": 7, "mean": -2.5, "ok": True, "none": None}) == Object(
        {"n": Numeric(0, 1000, whole=True), "mean": Numeric(-1000, 1000), "ok": Boolean(), "none": Null()}
    )
    assert of([1, None, 12345]) == Array(OrNull(Numeric(0, 10**6, whole=True)), 10)
    assert of([{"a": "x"}, {"a": "y"}]) == Array(Object({"a": Text(frozenset({"x", "y"}))}), 10)
    assert of([[1], []]) == Array(Array(OrNull(Numeric(0, 1000, whole=True)), 10), 10)
    assert of([]) == Array(Null(), 0)
    tensors = b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    found = forms.drafted("tensors", len(tensors).to_bytes(8, "little") + tensors + bytes(24))
    assert found == Tensors({"w": Tensor("F32", (2, 3))})


@pytest.mark.parametrize("value", [[1, "a"], [{"a": 1}, {"b": 1}], 1e300, "x" * 200, {"": 1}])
def test_what_no_schema_lets_through_has_no_draft(value) -> None:
    assert forms.drafted("values", json.dumps(value).encode()) is None


def test_bytes_of_no_form_have_no_draft() -> None:
    assert forms.drafted("values", b"{") is None
    assert forms.drafted("table", b"ARROW1") is None
    assert forms.drafted("tensors", b"\xff" * 30) is None
    assert forms.drafted("table", arrow({"a": [1.5, 1.5]})) is None  # nothing names a row


def test_schemas_are_said_as_themselves_as_json_or_in_files(tmp_path) -> None:
    form = Numeric(0, 5)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(form.to_json()))
    for said in (form, form.to_json(), path, str(path)):
        assert forms.read({"a": said}, {"a": "values", "b": "picture"}) == {"a": form}


@pytest.mark.parametrize(
    ("said", "kinds", "error"),
    [
        ({}, {"a": "values"}, Usage),
        ({"b": {"type": "boolean"}}, {"b": "picture"}, Usage),
        ({"c": {"type": "boolean"}}, {}, Usage),
        ({"a": "/nowhere/a.json"}, {"a": "values"}, NotFound),
        ({"a": {"type": "boolean", "more": 1}}, {"a": "values"}, PolicyError),
    ],
)
def test_what_is_no_schema_or_is_missing_is_refused(said, kinds, error) -> None:
    with pytest.raises(error):
        forms.read(said, kinds)
