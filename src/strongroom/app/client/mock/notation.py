"""How a column's type is spelled in a reveal description: as Arrow prints it, and nested types as small objects.

    "int64"   "timestamp[us, tz=Europe/Amsterdam]"   "decimal128(10, 2)"   "fixed_size_binary[16]"
    {"list": "string"}   {"fixed_size_list": "float", "size": 3}   {"map": ["string", "int64"]}
    {"dictionary": "string", "index": "int32", "ordered": false}
    {"struct": [{"name": "street", "null": true, "type": "string"}]}

What is inside of a list, or a map's value, may be null wherever its type says so; that is not spelled, and taken as allowed.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from strongroom.errors import BadField
from strongroom.wire import JSON, Fields

MAX_NESTED = 8
MAX_MEMBERS = 1024
MAX_NAME = 256  # characters of a column's name

_UNITS = ("s", "ms", "us", "ns")
_PLAIN: dict[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        pa.null(),
        pa.bool_(),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
        *(pa.string(), pa.large_string(), pa.binary(), pa.large_binary()),
        *(pa.date32(), pa.date64(), pa.month_day_nano_interval()),
        *(pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(pa.duration(unit) for unit in _UNITS),
        *(pa.timestamp(unit) for unit in _UNITS),
    )
}
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=([A-Za-z0-9_+:/-]{1,64})\]\Z")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\(([0-9]{1,2}), (-?[0-9]{1,2})\)\Z")
_FIXED = re.compile(r"fixed_size_binary\[([0-9]{1,5})\]\Z")
_DECIMALS = {"32": pa.decimal32, "64": pa.decimal64, "128": pa.decimal128, "256": pa.decimal256}


def spelled(kind: pa.DataType) -> JSON:
    """A type as it is written down.

    Raises:
        BadField: a type that no mock can be made of (unions, views, extensions).
    """
    if pa.types.is_dictionary(kind):
        return {"dictionary": spelled(kind.value_type), "index": str(kind.index_type), "ordered": bool(kind.ordered)}
    if pa.types.is_fixed_size_list(kind):
        return {"fixed_size_list": spelled(kind.value_type), "size": kind.list_size}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"large_list" if pa.types.is_large_list(kind) else "list": spelled(kind.value_type)}
    if pa.types.is_map(kind):
        return {"map": [spelled(kind.key_type), spelled(kind.item_type)]}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": f.name, "null": f.nullable, "type": spelled(f.type)} for f in kind]}
    text = str(kind)
    if not any(known(text) for known in (_PLAIN.get, _ZONED.match, _DECIMAL.match, _FIXED.match)):
        raise BadField(f"no mock can be made of the type {text[:60]}")
    return text


def kind_of(value: object, depth: int = 0) -> pa.DataType:
    """The type that is written down. Raises BadField."""
    if depth > MAX_NESTED:
        raise BadField(f"a type is nested deeper than {MAX_NESTED} levels")
    if isinstance(value, str):
        return _plain(value)
    f = Fields(value, "type")
    for nested, read in _NESTED.items():
        if f.has(nested):
            found = read(f, depth + 1)
            f.end()
            return found
    raise BadField("a type is neither a name nor a list, a struct, a map or a dictionary")


def _plain(text: str) -> pa.DataType:
    try:
        if found := _PLAIN.get(text):
            return found
        if zoned := _ZONED.match(text):
            return pa.timestamp(zoned[1], zoned[2])
        if decimal := _DECIMAL.match(text):
            return _DECIMALS[decimal[1]](int(decimal[2]), int(decimal[3]))
        if fixed := _FIXED.match(text):
            return pa.binary(int(fixed[1]))
    except (ValueError, pa.ArrowException) as error:
        raise BadField(f"{text[:60]!r} is not a type of Arrow's") from error
    raise BadField(f"{text[:60]!r} is not a type of Arrow's", hint="As Arrow prints them: int64, string, date32[day], …")


def _list(f: Fields, depth: int) -> pa.DataType:
    return pa.list_(kind_of(f.any("list"), depth))


def _large_list(f: Fields, depth: int) -> pa.DataType:
    return pa.large_list(kind_of(f.any("large_list"), depth))


def _fixed_list(f: Fields, depth: int) -> pa.DataType:
    return pa.list_(kind_of(f.any("fixed_size_list"), depth), f.integer("size", high=65536))


def _map(f: Fields, depth: int) -> pa.DataType:
    key, value = f.items("map", lambda item: kind_of(item, depth), low=2, high=2)
    return pa.map_(key, value)


def _struct(f: Fields, depth: int) -> pa.DataType:
    def member(item: Any) -> pa.Field:
        g = Fields(item, "member")
        found = pa.field(g.text("name", max_chars=MAX_NAME), kind_of(g.any("type"), depth), g.boolean("null"))
        g.end()
        return found

    members = f.items("struct", member, high=MAX_MEMBERS)
    if len({m.name for m in members}) != len(members):
        raise BadField("two members of a struct have one name")
    return pa.struct(members)


def _dictionary(f: Fields, depth: int) -> pa.DataType:
    value, index = kind_of(f.any("dictionary"), depth), _plain(f.text("index"))
    if not pa.types.is_integer(index) or pa.types.is_nested(value) or pa.types.is_dictionary(value):
        raise BadField("a dictionary is not of plain values with integers for places")
    return pa.dictionary(index, value, f.boolean("ordered"))


_NESTED = {
    "dictionary": _dictionary,
    "fixed_size_list": _fixed_list,
    "large_list": _large_list,
    "list": _list,
    "map": _map,
    "struct": _struct,
}
