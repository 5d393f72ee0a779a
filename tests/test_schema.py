"""Schemas: the laws of their order on real values, what is refused, and that nothing unsaid gets through."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.errors import BadField, StrongroomError, UnknownDimension
from strongroom.schema import (
    ANY_SCHEMA,
    Array,
    Boolean,
    Null,
    Numeric,
    Object,
    OrNull,
    Schema,
    Table,
    Tensor,
    Tensors,
    Text,
    from_json,
    meet,
    permits,
    to_json,
)

bounds = st.integers(-2, 2)
numerics = st.builds(lambda a, b, whole: Numeric(min(a, b), max(a, b), whole), bounds, bounds, st.booleans())
texts = st.builds(Text, st.frozensets(st.sampled_from("abc"), min_size=1))
singles = st.just(Boolean()) | numerics | texts


def or_null(plain: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return plain | plain.filter(lambda item: not isinstance(item, Null | OrNull)).map(OrNull)


values = st.recursive(
    st.just(Null()) | or_null(singles),
    lambda inner: or_null(
        st.builds(Array, inner, st.integers(0, 3))
        | st.builds(Object, st.dictionaries(st.sampled_from("xy"), inner, min_size=1))
    ),
    max_leaves=4,
)
tables = st.builds(
    Table,
    st.fixed_dictionaries(
        {"area": texts, "n": st.builds(Numeric, st.just(0), st.integers(1, 3), st.just(True))},
        optional={"x": or_null(singles)},
    ),
    st.just(("area",)),
    st.sampled_from([None, "n"]),
    st.integers(1, 3),
)
tensors = st.builds(
    Tensors,
    st.dictionaries(st.sampled_from("vw"), st.builds(Tensor, st.sampled_from(["F32", "I64"]), st.just((2, 3))), min_size=1),
)
schemas = values | tables | tensors


def schemas_for(kind: str) -> st.SearchStrategy[Any]:
    return {"table": tables, "tensors": tensors, "values": values}[kind]


def holds(schema: Any, value: Any) -> bool:
    """What a schema means, said once more and otherwise."""
    match schema:
        case Null():
            return value is None
        case OrNull():
            return value is None or holds(schema.inner, value)
        case Boolean():
            return isinstance(value, bool)
        case Numeric():
            return (
                type(value) in (int, float)
                and schema.low <= value <= schema.high
                and (not schema.whole or value == int(value))
            )
        case Text():
            return isinstance(value, str) and value in schema.options
        case Array():
            return isinstance(value, list) and len(value) <= schema.most and all(holds(schema.items, v) for v in value)
        case Object():
            return (
                isinstance(value, dict)
                and value.keys() == schema.properties.keys()
                and all(holds(schema.properties[n], v) for n, v in value.items())
            )
    raise AssertionError


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0]) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)


@given(schemas)
def test_permits_is_reflexive_and_the_top_permits_everything(a: Schema) -> None:
    assert permits(a, a)
    assert permits(ANY_SCHEMA, a)
    assert not permits(a, ANY_SCHEMA)
    assert permits(ANY_SCHEMA, ANY_SCHEMA)


@given(schemas, schemas, schemas)
def test_meet_is_the_greatest_lower_bound(a: Schema, b: Schema, c: Schema) -> None:
    both = meet(a, b)
    assert (permits(a, c) and permits(b, c)) == (both is not None and permits(both, c))
    assert both is None or (permits(a, both) and permits(b, both))


@given(schemas, schemas, schemas)
def test_meet_is_commutative_associative_and_idempotent(a: Schema, b: Schema, c: Schema) -> None:
    assert meet(a, b) == meet(b, a)
    assert meet(a, a) == a
    ab, bc = meet(a, b), meet(b, c)
    assert (None if ab is None else meet(ab, c)) == (None if bc is None else meet(a, bc))


@given(schemas, schemas)
def test_permits_is_antisymmetric(a: Schema, b: Schema) -> None:
    assert (permits(a, b) and permits(b, a)) == (a == b)


@given(values, values, anything)
def test_what_the_meet_holds_is_exactly_what_both_hold(a: Any, b: Any, value: Any) -> None:
    both = meet(a, b)
    assert (holds(a, value) and holds(b, value)) == (both is not None and holds(both, value))
    if permits(a, b) and holds(b, value):
        assert holds(a, value)


@given(schemas)
def test_round_trip(a: Schema) -> None:
    encoded = wire.encode(to_json(a))
    assert from_json(wire.decode(encoded)) == a
    assert hash(from_json(wire.decode(encoded))) == hash(a)


@given(schemas, st.data())
def test_malleability_every_change_is_refused_or_is_another_schema(a: Schema, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(to_json(a)))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = from_json(wire.decode(bytes(encoded)))
    except StrongroomError:
        return
    assert wire.encode(to_json(found)) == bytes(encoded)
    assert found != a


@given(schemas, anything, st.data())
def test_from_json_is_total(a: Schema, junk: Any, data: st.DataObject) -> None:
    written: Any = copy.deepcopy(to_json(a))
    inside = written
    while data.draw(st.booleans()) and (deeper := [v for v in inside.values() if isinstance(v, dict)]):
        inside = deeper[0]
    inside[data.draw(st.sampled_from([*inside, "more"]))] = junk
    try:
        found = from_json(written)
    except StrongroomError:
        return
    assert to_json(found) == written


NUMBER = {"maximum": 1, "minimum": 0, "type": "number"}
COUNT = {"maximum": 9, "minimum": 0, "type": "integer"}
AREA = {"enum": ["a", "b"], "type": "string"}
TABLE = {"columns": {"area": AREA, "n": COUNT, "x": NUMBER}, "count": "n", "key": ["area"], "maxRows": 9, "type": "table"}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "string"},  # free text
        {"enum": [], "type": "string"},
        {"enum": ["b", "a"], "type": "string"},
        {"enum": ["a", "a"], "type": "string"},
        {"enum": ["a\n"], "type": "string"},
        {"enum": ["x" * 129], "type": "string"},
        {"type": "number"},  # without bounds
        {"maximum": 0, "minimum": 1, "type": "number"},
        {"maximum": True, "minimum": 0, "type": "number"},
        {"items": NUMBER, "type": "array"},  # without an end
        {"items": NUMBER, "maxItems": 0, "type": "array"},
        {"items": {"items": NUMBER, "maxItems": 1000, "type": "array"}, "maxItems": 1000, "type": "array"},
        {"properties": {}, "type": "object"},
        {**NUMBER, "nullable": False},
        {"properties": {"x": {**NUMBER, "nullable": 1}}, "type": "object"},
        {**TABLE, "key": []},
        {**TABLE, "key": ["x"]},
        {**TABLE, "key": ["nobody"]},
        {**TABLE, "count": "x"},
        {**TABLE, "count": "area"},
        {**TABLE, "key": ["area", "n"]},
        {**TABLE, "columns": {**TABLE["columns"], "n": {**COUNT, "minimum": -1}}},
        {**TABLE, "columns": {**TABLE["columns"], "x": {"items": NUMBER, "maxItems": 1, "type": "array"}}},
        {**TABLE, "maxRows": 50_000},
        {**TABLE, "maxRows": 0},
        {"tensors": {}, "type": "tensors"},
        {"tensors": {"w": {"dtype": "F32", "shape": [0]}}, "type": "tensors"},
        {"tensors": {"w": {"dtype": "F32", "shape": [1 << 50]}}, "type": "tensors"},
        {"tensors": {"__metadata__": {"dtype": "F32", "shape": [1]}}, "type": "tensors"},
        "any",
        None,
        [],
    ],
)
def test_what_does_not_say_its_bounds_is_no_schema(value: Any) -> None:
    with pytest.raises(BadField):
        from_json(value)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "date"},
        {"type": ["number", "null"]},
        {"pattern": "a*", **AREA},
        {"format": "x", **NUMBER},
        {"additionalProperties": True, "properties": {"x": NUMBER}, "type": "object"},
        {"tensors": {"w": {"dtype": "F8_E4M3", "shape": [1]}}, "type": "tensors"},
        {**TABLE, "index": "x"},
        {"tensors": {"w": {"dtype": "F32", "shape": [1]}}, "metadata": {}, "type": "tensors"},
    ],
)
def test_what_is_not_known_cannot_be_enforced(value: Any) -> None:
    with pytest.raises(UnknownDimension):
        from_json(value)


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    value: Any = NUMBER
    for _ in range(8):
        value = {"items": value, "maxItems": 1, "type": "array"}
    with pytest.raises(BadField, match="deeper"):
        from_json(value)


def test_arrays_of_different_items_have_the_empty_array_in_common() -> None:
    assert meet(Array(Boolean(), 3), Array(Null(), 2)) == Array(Null(), 0)
    assert permits(Array(Boolean(), 3), Array(Null(), 0))


def test_objects_of_different_names_have_nothing_in_common() -> None:
    assert meet(Object({"x": Boolean()}), Object({"x": Boolean(), "y": Boolean()})) is None
