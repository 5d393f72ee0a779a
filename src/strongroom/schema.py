"""What a structured output may hold: a small closed language after JSON Schema, ordered as everything in a policy is.

A schema says every name, every text and every bound in advance, so that what a program learned can leave in nothing but the
numbers and choices that were agreed. ``wide.permits(narrow)`` says that whatever ``narrow`` lets through, ``wide`` does too;
it is decided from the structure alone and says no where it cannot tell. :func:`meet` is the greatest lower bound.

See ``spec/policy.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from .errors import BadField, UnknownDimension
from .wire import JSON, MAX_INT, Fields

MAX_LEVELS: Final = 8
MAX_VALUES: Final = 100_000
"""The most single values that one output can hold: numbers, texts, cells."""
MAX_OPTIONS, MAX_TEXT, MAX_NAMES, MAX_COLUMNS, MAX_AXES = 1024, 128, 256, 256, 8
DTYPES: Final[Mapping[str, int]] = MappingProxyType(
    {"BF16": 2, "BOOL": 1, "F16": 2, "F32": 4, "F64": 8, "I16": 2, "I32": 4, "I64": 8, "I8": 1, "U16": 2, "U32": 4, "U8": 1}
)
"""The closed set of a tensor's types, as safetensors names them, with the bytes of one element."""
MAX_TENSOR_BYTES: Final = 1 << 40

_T = TypeVar("_T")


class AnySchema(Enum):
    """The top of the schemas' order: whichever the contract names."""

    ANY_SCHEMA = "any-schema"


ANY_SCHEMA: Final = AnySchema.ANY_SCHEMA


def _whole(value: object, what: str, low: int = 0, high: int = MAX_INT) -> int:
    return Fields({what: value}, "schema").integer(what, low=low, high=high)


def _label(text: object) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT or not text.isprintable():
        raise BadField(f"schema: a text or a name is not 1 to {MAX_TEXT} printable characters")
    return text


def _named(values: object, what: str, most: int) -> dict[str, Any]:
    """A map by names, in their order."""
    if not isinstance(values, Mapping) or not 0 < len(values) <= most:
        raise BadField(f"schema.{what} is not an object of 1 to {most} members")
    return {_label(name): values[name] for name in sorted(values)}


# --- values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Null:
    """Nothing: JSON's ``null``."""

    def to_json(self) -> dict[str, JSON]:
        return {"type": "null"}


@dataclass(frozen=True, slots=True)
class Boolean:
    """``true`` or ``false``."""

    def to_json(self) -> dict[str, JSON]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Numeric:
    """A number from ``low`` to ``high``, both integers within ±(2^53-1); a whole one where ``whole``."""

    low: int
    high: int
    whole: bool = False

    def __post_init__(self) -> None:
        _whole(self.low, "minimum", -MAX_INT)
        _whole(self.high, "maximum", self.low)

    def to_json(self) -> dict[str, JSON]:
        return {"maximum": self.high, "minimum": self.low, "type": "integer" if self.whole else "number"}


@dataclass(frozen=True, slots=True)
class Text:
    """One of these texts: 1 to 1,024 of 1 to 128 printable characters. There is no free text."""

    options: frozenset[str]

    def __post_init__(self) -> None:
        if isinstance(self.options, str) or not 0 < len(self.options) <= MAX_OPTIONS:
            raise BadField(f"schema.enum does not hold 1 to {MAX_OPTIONS} texts")
        object.__setattr__(self, "options", frozenset(_label(option) for option in self.options))

    def to_json(self) -> dict[str, JSON]:
        return {"enum": [*sorted(self.options)], "type": "string"}


@dataclass(frozen=True, slots=True)
class OrNull:
    """Something, or ``null``."""

    inner: Plain

    def __post_init__(self) -> None:
        if isinstance(self.inner, OrNull | Null):
            raise BadField("schema.nullable stands where null is allowed already")

    def to_json(self) -> dict[str, JSON]:
        return {**self.inner.to_json(), "nullable": True}


@dataclass(frozen=True, slots=True)
class Array:
    """At most ``most`` items of one schema. **In normal form**: those of an array that is always empty are ``null``."""

    items: Value
    most: int

    def __post_init__(self) -> None:
        if not _whole(self.most, "maxItems", high=MAX_VALUES):
            object.__setattr__(self, "items", Null())

    def to_json(self) -> dict[str, JSON]:
        return {"items": self.items.to_json(), "maxItems": self.most, "type": "array"}


@dataclass(frozen=True, slots=True)
class Object:
    """Exactly these members, all of them."""

    properties: Mapping[str, Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "properties", MappingProxyType(_named(self.properties, "properties", MAX_NAMES)))

    def __hash__(self) -> int:
        return hash(tuple(self.properties.items()))

    def to_json(self) -> dict[str, JSON]:
        return {"properties": {name: item.to_json() for name, item in self.properties.items()}, "type": "object"}


Plain: TypeAlias = Boolean | Numeric | Text | Array | Object
Value: TypeAlias = Plain | Null | OrNull
Cell: TypeAlias = Null | Boolean | Numeric | Text | OrNull


# --- tables and tensors ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """A table, at most ``rows`` long.

    Attributes:
        columns: cells by the column's name.
        key: the columns, sorted, whose values name a row, and by which rows are sorted; no two rows have the same.
        count: the column that says how many records a row is on, or ``None``.
        rows: at most.

    Raises:
        BadField: a key or count that is no such column, or more cells than 100,000.
    """

    columns: Mapping[str, Cell]
    key: tuple[str, ...]
    count: str | None
    rows: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", MappingProxyType(_named(self.columns, "columns", MAX_COLUMNS)))
        if not all(_is_cell(column) for column in self.columns.values()):
            raise BadField("schema.columns holds what is no cell")
        keys = [self.columns.get(name) for name in self.key]
        if not self.key or list(self.key) != sorted(set(self.key)):
            raise BadField("schema.key is not sorted and distinct, or empty")
        if not all(isinstance(k, Boolean | Text) or (isinstance(k, Numeric) and k.whole) for k in keys):
            raise BadField(
                "schema.key names a column that is not there, or whose cells are not whole numbers, texts or yes/no"
            )
        count = self.columns.get(self.count) if self.count is not None else Numeric(0, 0, whole=True)
        if self.count in self.key or not isinstance(count, Numeric) or not count.whole or count.low < 0:
            raise BadField("schema.count is no column of whole numbers from 0 beside the key")
        if _whole(self.rows, "maxRows", 1, MAX_VALUES) * len(self.columns) > MAX_VALUES:
            raise BadField(f"schema allows more than {MAX_VALUES:,} values")

    def __hash__(self) -> int:
        return hash((tuple(self.columns.items()), self.key, self.count, self.rows))

    def to_json(self) -> dict[str, JSON]:
        return {
            "columns": {name: cell.to_json() for name, cell in self.columns.items()},
            **({} if self.count is None else {"count": self.count}),
            "key": [*self.key],
            "maxRows": self.rows,
            "type": "table",
        }


@dataclass(frozen=True, slots=True)
class Tensor:
    """One array of numbers: a type in ``DTYPES``, and the length of each axis; none for a single number."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UnknownDimension(f"schema: the dtype {str(self.dtype)[:16]!r} is not one of {', '.join(DTYPES)}")
        if len(self.shape) > MAX_AXES:
            raise BadField(f"schema.shape has more than {MAX_AXES} axes")
        for axis in self.shape:
            _whole(axis, "shape", 1)
        if self.size > MAX_TENSOR_BYTES:
            raise BadField("schema.shape is of more bytes than any output holds")

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * DTYPES[self.dtype]

    def to_json(self) -> dict[str, JSON]:
        return {"dtype": self.dtype, "shape": [*self.shape]}


@dataclass(frozen=True, slots=True)
class Tensors:
    """Exactly these tensors, all of them, by name."""

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(_named(self.tensors, "tensors", MAX_OPTIONS)))
        if "__metadata__" in self.tensors:
            raise BadField("schema.tensors names a tensor as safetensors names its metadata")

    def __hash__(self) -> int:
        return hash(tuple(self.tensors.items()))

    def to_json(self) -> dict[str, JSON]:
        return {"tensors": {name: tensor.to_json() for name, tensor in self.tensors.items()}, "type": "tensors"}


Schema: TypeAlias = Value | Table | Tensors
Allowed: TypeAlias = Schema | AnySchema

KINDS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "table": (Table,),
        "tensors": (Tensors,),
        "values": (Null, Boolean, Numeric, Text, OrNull, Array, Object),
    }
)
"""The output kinds that need a schema, and what it is for each."""


def _is_cell(item: object) -> bool:
    return isinstance(item, Null | Boolean | Numeric | Text) or (isinstance(item, OrNull) and _is_cell(item.inner))


# --- the order ------------------------------------------------------------------------------------------------------


def permits(wide: Allowed, narrow: Allowed) -> bool:
    """Whether everything that ``narrow`` lets through, ``wide`` lets through too."""
    return meet(wide, narrow) == narrow  # one decision, so that order and meet cannot disagree


def meet(one: Allowed, other: Allowed) -> Allowed | None:
    """The widest schema that both permit, or ``None`` where there is none."""
    if isinstance(one, AnySchema):
        return other
    if isinstance(other, AnySchema):
        return one
    if isinstance(one, Tensors) or isinstance(other, Tensors):
        return one if one == other else None  # of exactly these names and shapes: another is not narrower
    if isinstance(one, Table) or isinstance(other, Table):
        return _meet_tables(one, other) if isinstance(one, Table) and isinstance(other, Table) else None
    return _meet(one, other)


def _meet_members(one: Mapping[str, _T], other: Mapping[str, _T]) -> dict[str, Any] | None:
    if one.keys() != other.keys():
        return None
    found = {name: _meet(one[name], other[name]) for name in one}  # type: ignore[arg-type]
    return None if None in found.values() else found


def _meet_tables(one: Table, other: Table) -> Table | None:
    columns = _meet_members(one.columns, other.columns)
    if columns is None or (one.key, one.count) != (other.key, other.count):
        return None
    return Table(columns, one.key, one.count, min(one.rows, other.rows))


def _meet(one: Value, other: Value) -> Value | None:
    bare = [v.inner if isinstance(v, OrNull) else v for v in (one, other)]
    met = None if any(isinstance(v, Null) for v in bare) else _meet_plain(*bare)  # type: ignore[arg-type]
    if not all(isinstance(v, Null | OrNull) for v in (one, other)):
        return met
    return Null() if met is None else OrNull(met)


def _meet_plain(one: Plain, other: Plain) -> Plain | None:
    if isinstance(one, Numeric) and isinstance(other, Numeric):
        low, high = max(one.low, other.low), min(one.high, other.high)
        return Numeric(low, high, one.whole or other.whole) if low <= high else None
    if isinstance(one, Text) and isinstance(other, Text):
        return Text(one.options & other.options) if one.options & other.options else None
    if isinstance(one, Array) and isinstance(other, Array):
        items = _meet(one.items, other.items)  # without one, both still allow the array that is empty
        return Array(Null() if items is None else items, 0 if items is None else min(one.most, other.most))
    if isinstance(one, Object) and isinstance(other, Object):
        properties = _meet_members(one.properties, other.properties)
        return None if properties is None else Object(properties)
    return one if one == other else None


# --- the wire form --------------------------------------------------------------------------------------------------


def to_json(allowed: Allowed) -> JSON:
    """As it stands in a rule."""
    return allowed.value if isinstance(allowed, AnySchema) else allowed.to_json()


def from_json(value: object) -> Allowed:
    """Read a schema in its one form: ``to_json(from_json(v)) == v``.

    Raises:
        UnknownDimension: a type, a dtype or a member that this version cannot enforce.
        BadField: anything else that is no schema, or one that allows too much at once.
    """
    if value == ANY_SCHEMA.value:
        return ANY_SCHEMA
    kind = value.get("type") if isinstance(value, dict) else None
    found: Schema
    if kind == "table":
        found = _read_table(value)
    elif kind == "tensors":
        found = _read_tensors(value)
    else:
        found = _read(value, 1)
        if _most_values(found) > MAX_VALUES:
            raise BadField(f"schema allows more than {MAX_VALUES:,} values")
    if found.to_json() != value:
        raise BadField("schema is not in normal form")
    return found


def _members(value: object, known: Iterable[str]) -> Fields:
    if isinstance(value, dict):
        for member in sorted(map(str, set(value) - {"type", *known})):
            raise UnknownDimension(f"schema: the member {member[:40]!r} is not known here")
    return Fields(value, "schema")


def _read_table(value: object) -> Table:
    f = _members(value, ("columns", "count", "key", "maxRows"))
    columns = {name: _read(cell, MAX_LEVELS) for name, cell in _named(f.any("columns"), "columns", MAX_COLUMNS).items()}
    key = f.items("key", _label, low=1, high=MAX_COLUMNS)
    return Table(columns, key, _label(f.any("count")) if f.has("count") else None, f.integer("maxRows"))  # type: ignore[arg-type]


def _read_tensors(value: object) -> Tensors:
    f = _members(value, ("tensors",))

    def tensor(item: object) -> Tensor:
        g = Fields(item, "schema")
        found = Tensor(g.text("dtype", max_chars=16), g.items("shape", lambda axis: _whole(axis, "shape", 1), high=MAX_AXES))
        g.end()
        return found

    return Tensors({name: tensor(item) for name, item in _named(f.any("tensors"), "tensors", MAX_OPTIONS).items()})


def _numeric(value: object, _level: int) -> Plain:
    f = _members(value, ("maximum", "minimum", "nullable"))
    low, high = (f.integer(name, low=-MAX_INT) for name in ("minimum", "maximum"))
    return Numeric(low, high, f.any("type") == "integer")


def _text(value: object, _level: int) -> Plain:
    return Text(frozenset(_members(value, ("enum", "nullable")).items("enum", _label, low=1, high=MAX_OPTIONS)))


def _array(value: object, level: int) -> Plain:
    f = _members(value, ("items", "maxItems", "nullable"))
    return Array(_read(f.any("items"), level + 1), f.integer("maxItems", high=MAX_VALUES))


def _object(value: object, level: int) -> Plain:
    f = _members(value, ("nullable", "properties"))
    properties = _named(f.any("properties"), "properties", MAX_NAMES)
    return Object({name: _read(item, level + 1) for name, item in properties.items()})


def _boolean(value: object, _level: int) -> Plain:
    _members(value, ("nullable",))
    return Boolean()


_READERS: Final[Mapping[str, Callable[[object, int], Plain]]] = {
    "array": _array,
    "boolean": _boolean,
    "integer": _numeric,
    "number": _numeric,
    "object": _object,
    "string": _text,
}


def _read(value: object, level: int) -> Value:
    if level > MAX_LEVELS:
        raise BadField(f"schema is nested deeper than {MAX_LEVELS} levels")
    kind = Fields(value, "schema").any("type")
    if kind == "null":
        _members(value, ())
        return Null()
    if not isinstance(kind, str) or kind not in _READERS:
        raise UnknownDimension(f"schema: the type {str(kind)[:40]!r} is not one of null, {', '.join(_READERS)}")
    plain = _READERS[kind](value, level)
    assert isinstance(value, dict)
    if "nullable" not in value:
        return plain
    if value["nullable"] is not True:
        raise BadField("schema.nullable is not true; it is left out where null is not allowed")
    return OrNull(plain)


def _most_values(value: Value) -> int:
    """How many single values it lets through at most."""
    inner = value.inner if isinstance(value, OrNull) else value
    if isinstance(inner, Array):
        return max(1, inner.most * _most_values(inner.items))
    if isinstance(inner, Object):
        return sum(_most_values(item) for item in inner.properties.values())
    return 1


__all__ = [
    "ANY_SCHEMA",
    "DTYPES",
    "KINDS",
    "MAX_LEVELS",
    "MAX_TEXT",
    "MAX_VALUES",
    "Allowed",
    "AnySchema",
    "Array",
    "Boolean",
    "Null",
    "Numeric",
    "Object",
    "OrNull",
    "Schema",
    "Table",
    "Tensor",
    "Tensors",
    "Text",
    "Value",
    "from_json",
    "meet",
    "permits",
    "to_json",
]
