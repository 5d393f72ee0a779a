"""What structured outputs may hold: read from what somebody says, or drafted from what an analysis wrote on stand-ins.

A draft is a beginning: its bounds are wide, its texts are those that the stand-ins led to. Its author tightens it, and
owners read it in the proposal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from strongroom import schema, wire
from strongroom.errors import BadField, NotFound, Usage
from strongroom.schema import (
    KINDS,
    MAX_VALUES,
    Array,
    Boolean,
    Cell,
    Null,
    Numeric,
    Object,
    OrNull,
    Schema,
    Table,
    Tensor,
    Tensors,
    Text,
    Value,
)

_LEAST_DIGITS: Final = 3
_MOST_DIGITS: Final = 15
_COUNTS: Final = ("count", "n", "records", "rows")


def read(said: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, schema.Allowed]:
    """Schemas by output.

    Args:
        said: by output a schema, its JSON, or a file that holds it.
        kinds: output -> kind.

    Raises:
        Usage: for an output that there is not, or of a kind that has none; or one is missing.
        NotFound: a file that cannot be read. BadField, UnknownDimension, WireError: what is no schema.
    """
    for name in said:
        if kinds.get(name) not in KINDS:
            raise Usage(
                f"a schema is said for {name!r}, which is no output that has one", hint=f"Of kind {', '.join(KINDS)}."
            )
    for name, kind in kinds.items():
        if kind in KINDS and name not in said:
            raise Usage(
                f"output {name!r} is of kind {kind}, and nothing says what it may hold",
                hint=f"strongroom try … --out FOLDER drafts it; then: --schema {name}=FOLDER/{name}.schema.json",
            )
    return {name: one(value) for name, value in said.items()}


def one(value: Any) -> schema.Allowed:
    """A schema as somebody says it: one, its JSON, or a file that holds it. Raises as :func:`read`."""
    if isinstance(value, str | Path):
        try:
            data = Path(value).read_bytes()
        except OSError as error:
            raise NotFound(f"cannot read {value}: {error.strerror}") from error
        value = wire.loads(data, max_bytes=1 << 20)
    return schema.from_json(value) if isinstance(value, Mapping) else value


def drafted(kind: str, data: bytes) -> Schema | None:
    """A schema that an output fits.

    Args:
        kind: ``values``, ``table`` or ``tensors``.
        data: what the code wrote.

    Returns:
        ``None`` where no schema would let it through: it holds a free text, mixed lists, or a table without a key.
    """
    try:
        return _DRAFTS[kind](data)
    except (BadField, ValueError, KeyError, TypeError):  # what the code wrote is of no form, or of one that has no schema
        return None


def _values(data: bytes) -> Value:
    return _of(json.loads(data))


def _of(value: Any) -> Value:
    if value is None:
        return Null()
    if isinstance(value, bool):
        return Boolean()
    if isinstance(value, int | float):
        return _numeric([value])
    if isinstance(value, str):
        return Text(frozenset({value}))
    if isinstance(value, list):
        return Array(_joined(map(_of, value)), _room(len(value)))
    return Object({name: _of(item) for name, item in value.items()})


def _room(length: int) -> int:
    """Twice as many as there were, in full tens."""
    return min(MAX_VALUES, -(-2 * length // 10) * 10)


def _numeric(values: list[int | float]) -> Numeric:
    """Bounds of a power of ten beyond what there was."""
    digits = max(_LEAST_DIGITS, *(len(str(abs(int(v)))) + 1 for v in values))
    if digits > _MOST_DIGITS:
        raise ValueError("a number without a bound")
    return Numeric(0 if min(values) >= 0 else -(10**digits), 10**digits, all(isinstance(v, int) for v in values))


def _joined(values: Iterable[Value]) -> Value:
    """One schema for all of them. Raises ValueError."""
    found: Value | None = None
    for value in values:
        found = value if found is None or found == value else _two(found, value)
    return Null() if found is None else found


def _two(one: Value, other: Value) -> Value:
    bare = [v.inner if isinstance(v, OrNull) else v for v in (one, other)]
    if any(isinstance(v, Null) for v in bare):
        real = next(v for v in bare if not isinstance(v, Null))
        return OrNull(real)
    met = _both(bare[0], bare[1])
    return OrNull(met) if any(isinstance(v, OrNull) for v in (one, other)) else met


def _both(one: Value, other: Value) -> Any:
    match one, other:
        case Numeric(), Numeric():
            return Numeric(min(one.low, other.low), max(one.high, other.high), one.whole and other.whole)
        case Text(), Text():
            return Text(one.options | other.options)
        case Array(), Array():
            return Array(_joined([one.items, other.items]), max(one.most, other.most))
        case Object(), Object() if one.properties.keys() == other.properties.keys():
            return Object({name: _joined([item, other.properties[name]]) for name, item in one.properties.items()})
    if one == other:
        return one
    raise ValueError("a list of unlike things")


def _table(data: bytes) -> Table:
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError("no Arrow file") from error
    columns: dict[str, Any] = {name: _joined(map(_of, table.column(name).to_pylist())) for name in table.column_names}
    count = next((n for n in _COUNTS if isinstance(columns.get(n), Numeric) and columns[n].whole), None)
    named = [name for name in table.column_names if name != count and _names_rows(columns[name])]
    return Table(columns, _key(table, named), count, max(10, _room(table.num_rows)))


def _names_rows(cell: Cell) -> bool:
    return isinstance(cell, Boolean | Text) or (isinstance(cell, Numeric) and cell.whole)


def _key(table: Any, named: list[str]) -> tuple[str, ...]:
    """The fewest columns from the left by which no two rows are alike."""
    for width in range(1, len(named) + 1):
        rows = zip(*(table.column(name).to_pylist() for name in named[:width]), strict=True)
        if len(set(rows)) == table.num_rows:
            return tuple(sorted(named[:width]))
    raise ValueError("no columns name the rows")


def _tensors(data: bytes) -> Tensors:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return Tensors(
        {name: Tensor(about["dtype"], tuple(about["shape"])) for name, about in header.items() if name != "__metadata__"}
    )


_DRAFTS: Final[Mapping[str, Callable[[bytes], Schema]]] = {"table": _table, "tensors": _tensors, "values": _values}

__all__ = ["drafted", "one", "read"]
