"""The mock, from a reveal description and a seed. **It never sees the data**: nothing here can open a table.

Of what is not revealed it makes things up: small numbers, dates of this century, made-up words. Values at which programs
break are put in on purpose: nulls, zero, the ends of a range, the empty text, each category, one of them only once. The same
description and seed give the same table, with no help from any library's random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from strongroom.errors import BadField

from .reveal import ROWS, Column, Reveal, is_text, value_kind

NULL_IN = 20  # one row in so many is null, where null is allowed
INVENTED = "another value"  # stands for categories that are not revealed
LARGE = 10**6  # the largest number that is made up
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "to")
_EDGE_TEXTS = ("", "é", 'a, "b"')
_DAY = 86_400
_DAYS = (10_957, 21_915)  # from 1970: 2000-01-01 and 2030-01-01
_EDGE_DAYS = (0, 11_016)  # 1970-01-01, and a leap day, 2000-02-29
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

Values = list[Any]
Plan = list[int | None]


class Dice:
    """Numbers that hang on a seed and a place and on nothing else: SHA-256 in counter mode.

    Args:
        words: the seed and the place.
    """

    def __init__(self, *words: object) -> None:
        self._key = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
        self._count = 0

    def below(self, limit: int) -> int:
        """A number from 0 to below ``limit``."""
        self._count += 1
        block = hashlib.sha256(self._key + self._count.to_bytes(8, "big")).digest()
        return int.from_bytes(block, "big") % limit

    def among(self, values: Sequence[Any]) -> Any:
        return values[self.below(len(values))]


def make(reveal: Reveal, seed: int) -> pa.Table:
    """The mock.

    Args:
        reveal: what may be known.
        seed: any number; another gives another table of the same description.
    """
    rows = ROWS if reveal.rows is None else reveal.rows
    arrays = [_column(column, Dice(seed, place), rows) for place, column in enumerate(reveal.columns)]
    return pa.Table.from_arrays(arrays, schema=reveal.schema)


def _column(column: Column, dice: Dice, rows: int) -> pa.Array:
    null, kind, said = column.null is not False, value_kind(column.kind), column.values()
    if column.categories is not None and said is not None:
        found = _categories(said.to_pylist(), others=column.others, null=null, kind=kind, dice=dice, rows=rows)
    elif said is not None:
        found = _between(said, null=null, dice=dice, rows=rows)
    elif (pattern := column.pattern) is not None:
        edges = [pattern.shortest, pattern.longest]
        found = pa.array(_mixed(edges, lambda: pattern.make(dice.below), null=null, dice=dice, rows=rows), kind)
    else:
        return _any(column.kind, null=null, dice=dice, rows=rows)
    return _as(found, column.kind)


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values in their column's type; Arrow itself makes dictionaries of texts alone."""
    if not pa.types.is_dictionary(kind):
        return values
    found = values.dictionary_encode()
    try:
        return pa.DictionaryArray.from_arrays(found.indices.cast(kind.index_type), found.dictionary, ordered=kind.ordered)
    except pa.ArrowInvalid as error:
        raise BadField(f"the type {str(kind)[:80]} has no room for so many categories") from error


# --- which row holds what ---------------------------------------------------------------------------------------------


def _plan(edges: int, *, null: bool, dice: Dice, rows: int) -> Plan:
    """For each row the place of an edge value, ``None`` for null, or -1 for an ordinary value. The first is never null."""
    found: Plan = [-1] * rows
    free = list(range(rows))
    if null and rows > 1:
        found[free.pop(1 + dice.below(rows - 1))] = None
    for edge in range(min(edges, len(free))):
        found[free.pop(dice.below(len(free)))] = edge
    for row in free:
        if null and row and dice.below(NULL_IN) == 0:
            found[row] = None
    return found


def _mixed(edges: Sequence[Any], ordinary: Callable[[], Any], *, null: bool, dice: Dice, rows: int) -> Values:
    """Ordinary values, nulls, and each edge once, as far as there are rows."""
    plan = _plan(len(edges), null=null, dice=dice, rows=rows)
    return [None if place is None else edges[place] if place >= 0 else ordinary() for place in plan]


# --- of what is revealed ----------------------------------------------------------------------------------------------


def _categories(known: Values, *, others: bool, null: bool, kind: pa.DataType, dice: Dice, rows: int) -> pa.Array:
    """Each category; the last of three or more only once, so that a program meets a rare one."""
    often = known[:-1] if len(known) > 2 else known
    edges = [*reversed(known), *([_beside(known, kind)] if others else [])]
    return pa.array(_mixed(edges, lambda: dice.among(often), null=null, dice=dice, rows=rows), kind)


def _beside(known: Values, kind: pa.DataType) -> Any:
    """A value that is none of the known ones."""
    if is_text(kind):
        found = INVENTED
        while found in known:
            found += "'"
        return found
    if pa.types.is_boolean(kind):
        return not known[0]
    storage = _storage(kind)
    if storage is None:
        return max(known) + 1
    taken = set(pa.array(known, kind).cast(storage).to_pylist())
    number = next(n for n in range(len(taken) + 1) if n not in taken)
    return pa.array([number], storage).cast(kind)[0].as_py()


def _between(ends: pa.Array, *, null: bool, dice: Dice, rows: int) -> pa.Array:
    """From the least to the greatest value, both of them there, and zero where it lies between."""
    kind = ends.type
    storage = _storage(kind)
    if storage is not None:
        low, high = ends.cast(storage).to_pylist()
        zero = [0] if low < 0 < high else []
        values = _mixed([low, high, *zero], lambda: low + dice.below(high - low + 1), null=null, dice=dice, rows=rows)
        return pa.array(values, storage).cast(kind)
    low, high = ends.to_pylist()
    if pa.types.is_boolean(kind):
        return pa.array(_mixed([low, high], lambda: dice.among([low, high]), null=null, dice=dice, rows=rows), kind)
    zero = [type(low)(0)] if low < 0 < high else []
    ordinary = _decimal(kind, low, high, dice) if isinstance(low, Decimal) else _float(low, high, dice)
    return pa.array(_mixed([low, high, *zero], ordinary, null=null, dice=dice, rows=rows), kind)


def _float(low: float, high: float, dice: Dice) -> Callable[[], float]:
    def ordinary() -> float:
        share = (1 + dice.below(998)) / 999
        value = low * (1 - share) + high * share  # never high - low, which may be too large
        return min(high, max(low, float(f"{value:.6g}")))

    return ordinary


def _decimal(kind: pa.DataType, low: Decimal, high: Decimal, dice: Dice) -> Callable[[], Decimal]:
    least, most = (int(end.scaleb(kind.scale)) for end in (low, high))
    return lambda: Decimal(least + dice.below(most - least + 1)).scaleb(-kind.scale)


# --- of what is not revealed ------------------------------------------------------------------------------------------


def _any(kind: pa.DataType, *, null: bool, dice: Dice, rows: int) -> pa.Array:
    """Made-up values of a type."""
    if pa.types.is_nested(kind):
        return _nested(kind, null=null, dice=dice, rows=rows)
    if pa.types.is_dictionary(kind):
        value = kind.value_type
        made = [_word(dice) for _ in range(3)] if is_text(value) else _any(value, null=False, dice=dice, rows=3).to_pylist()
        values = _mixed(made, lambda: dice.among(made), null=null, dice=dice, rows=rows)
        return _as(pa.array(values, value), kind)
    if pa.types.is_null(kind):
        return pa.nulls(rows)
    edges, ordinary, storage = _leaf(kind, dice)
    found = pa.array(_mixed(edges, ordinary, null=null, dice=dice, rows=rows), storage)
    return found if storage == kind else found.cast(kind)


def _leaf(kind: pa.DataType, dice: Dice) -> tuple[Values, Callable[[], Any], pa.DataType]:  # noqa: PLR0911 - one a type
    """Edge values, how to make an ordinary one, and the type in which they are said."""
    storage = _storage(kind)
    if storage is not None:
        return *_ordinal(kind, storage, dice), storage
    if pa.types.is_boolean(kind):
        return [True, False], lambda: bool(dice.below(2)), kind
    if pa.types.is_floating(kind):
        return [0.0, -1.5, 1000.25], _float(0.0, 100.0, dice), kind
    if pa.types.is_decimal(kind):
        unit, high = Decimal(1).scaleb(-kind.scale), Decimal(10 ** min(kind.precision, 5) - 1).scaleb(-kind.scale)
        return [Decimal(0), -unit, high], _decimal(kind, Decimal(0), high, dice), kind
    if is_text(kind):
        return [*_EDGE_TEXTS], lambda: _word(dice), kind
    if pa.types.is_fixed_size_binary(kind):
        return [bytes(kind.byte_width)], lambda: _bytes(kind.byte_width, dice), kind
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [b"", b"\xff\x00"], lambda: _bytes(1 + dice.below(8), dice), kind
    if pa.types.is_interval(kind):
        return [pa.MonthDayNano([0, 0, 0])], lambda: pa.MonthDayNano([dice.below(12), dice.below(28), 0]), kind
    raise BadField(f"no mock can be made of the type {str(kind)[:60]}")


def _storage(kind: pa.DataType) -> pa.DataType | None:
    """The integers behind a type, where it has any."""
    if pa.types.is_integer(kind):
        return kind
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pa.int32()
    if pa.types.is_date64(kind) or pa.types.is_time64(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return pa.int64()
    return None


def _ordinal(kind: pa.DataType, storage: pa.DataType, dice: Dice) -> tuple[Values, Callable[[], int]]:
    if pa.types.is_date64(kind):
        return [day * _DAY * 1000 for day in _EDGE_DAYS], lambda: _day(dice) * _DAY * 1000
    if pa.types.is_date(kind):
        return [*_EDGE_DAYS], lambda: _day(dice)
    if pa.types.is_timestamp(kind):
        unit = _PER_SECOND[kind.unit]
        return [day * _DAY * unit for day in _EDGE_DAYS], lambda: (_day(dice) * _DAY + dice.below(_DAY)) * unit
    if pa.types.is_time(kind):
        unit = _PER_SECOND[kind.unit]
        return [0, (_DAY - 1) * unit], lambda: dice.below(_DAY) * unit
    if pa.types.is_duration(kind):
        unit = _PER_SECOND[kind.unit]
        return [0, -unit, _DAY * unit], lambda: dice.below(_DAY) * unit
    most = (1 << (storage.bit_width - (0 if pa.types.is_unsigned_integer(kind) else 1))) - 1
    edges = [0, min(LARGE, most), *([] if pa.types.is_unsigned_integer(kind) else [-1])]
    return edges, lambda: dice.below(101)


def _day(dice: Dice) -> int:
    return _DAYS[0] + dice.below(_DAYS[1] - _DAYS[0])


def _word(dice: Dice) -> str:
    return "".join(dice.among(_SYLLABLES) for _ in range(2 + dice.below(3)))


def _bytes(size: int, dice: Dice) -> bytes:
    return bytes(dice.below(256) for _ in range(size))


# --- nested -----------------------------------------------------------------------------------------------------------


def _nested(kind: pa.DataType, *, null: bool, dice: Dice, rows: int) -> pa.Array:
    if pa.types.is_struct(kind):
        plan = _plan(0, null=null, dice=dice, rows=rows)
        members = [_any(f.type, null=f.nullable, dice=dice, rows=rows) for f in kind]
        mask = pa.array([place is None for place in plan], pa.bool_())
        if not members:
            return pa.array([None if place is None else {} for place in plan], kind)
        return pa.StructArray.from_arrays(members, fields=list(kind), mask=mask)
    if pa.types.is_fixed_size_list(kind):
        plan = _plan(0, null=null, dice=dice, rows=rows)
        values = _any(kind.value_type, null=kind.value_field.nullable, dice=dice, rows=rows * kind.list_size)
        mask = pa.array([place is None for place in plan], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=mask)
    lengths = _mixed([0, 1, 3], lambda: dice.below(4), null=null, dice=dice, rows=rows)
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + (length or 0))
    mask = pa.array([length is None for length in lengths], pa.bool_())
    if pa.types.is_map(kind):
        return _map(kind, lengths, dice)
    values = _any(kind.value_type, null=kind.value_field.nullable, dice=dice, rows=offsets[-1])
    large = pa.types.is_large_list(kind)
    made = (pa.LargeListArray if large else pa.ListArray).from_arrays(
        pa.array(offsets, pa.int64() if large else pa.int32()), values, mask=mask
    )
    return made.cast(kind)


def _map(kind: pa.DataType, lengths: Values, dice: Dice) -> pa.Array:
    """Keys are told apart by their place, since one map has no key twice."""
    rows: Values = []
    for length in lengths:
        keys = _any(kind.key_type, null=False, dice=dice, rows=length or 0).to_pylist()
        items = _any(kind.item_type, null=True, dice=dice, rows=length or 0).to_pylist()
        distinct = {str(key): (key, item) for key, item in zip(keys, items, strict=True)}
        rows.append(None if length is None else [*distinct.values()])
    return pa.array(rows, kind)
