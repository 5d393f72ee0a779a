"""A reveal description as a draft, from a look at the table: the owner reads it, edits it, and alone decides.

The draft is itself data about people until the owner agreed to it. For each item it says what it would show of them.
Categories of few records are left out and named as risky; exact extremes are single records' values, and never suggested:
ranges are rounded outward.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import pyarrow as pa

from strongroom.errors import BadField
from strongroom.wire import JSON

from .pattern import Pattern
from .reveal import Column, Reveal, is_text, value_kind
from .survey import Seen, Survey, ordered

FEW = 10
"""Categories that fewer records have are risky to reveal, where nobody says another number."""

MAX_SUGGESTED = 30  # categories; a column with more is no list of categories
_CLASSES = {"9": "[0-9]", "A": "[A-Z]", "a": "[a-z]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What revealing one item would show of the people in the table.

    Attributes:
        column: the column's name; ``""`` for the table as a whole.
        item: ``type``, ``null``, ``categories``, ``range``, ``pattern`` or ``rows``.
        text: one sentence. It may hold values of the table: for its owner alone.
        risky: whether it may show something of a few people.
    """

    column: str
    item: str
    text: str
    risky: bool = False

    def to_json(self) -> dict[str, JSON]:
        return {"column": self.column, "item": self.item, "risky": self.risky, "text": self.text}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A draft of what to reveal, and what each item of it would show."""

    reveal: Reveal
    findings: tuple[Finding, ...]


def suggest(schema: pa.Schema, seen: Survey, few: int = FEW) -> Suggestion:
    """What an owner might reveal.

    Args:
        schema: the table's.
        seen: what was seen of it.
        few: categories that fewer records have are risky.
    """
    columns, findings = [], []
    for column in Reveal.of_schema(schema).columns:
        suggested, found = _column(column, seen.columns[column.name], few)
        columns.append(suggested)
        findings += found
    text = "the mock has a fixed number of rows; the table's own, in `rows`, would show how many people it holds"
    return Suggestion(Reveal(tuple(columns)), (*findings, Finding("", "rows", text)))


def _column(column: Column, seen: Seen, few: int) -> tuple[Column, list[Finding]]:
    found: list[Finding] = []
    if column.null is None and not pa.types.is_null(column.kind):
        column = replace(column, null=bool(seen.nulls))
        found.append(_nulls(column.name, seen.nulls, few))
    for suggested in (_categories, _range, _pattern):
        said = suggested(column, seen, few)
        if said is not None:
            return said[0], [*found, *said[1]]
    return column, found


def _nulls(name: str, nulls: int, few: int) -> Finding:
    if not nulls:
        return Finding(name, "null", "shows that no record lacks a value")
    if nulls < few:
        return Finding(name, "null", f"shows that a record lacks a value; only {_records(nulls)} do", risky=True)
    return Finding(name, "null", f"shows that some records lack a value ({nulls:,} do)")


def _categories(column: Column, seen: Seen, few: int) -> tuple[Column, list[Finding]] | None:
    if not seen.counts or len(seen.counts) > MAX_SUGGESTED or pa.types.is_date(value_kind(column.kind)):
        return None
    if max(seen.counts.values()) < few or sum(seen.counts.values()) < few * len(seen.counts) / 2:
        return None  # hardly any value occurs often: these are ids or names
    kept = sorted(value for value, count in seen.counts.items() if count >= few)
    rare = sorted((value, count) for value, count in seen.counts.items() if count < few)
    texts = [_text(value, value_kind(column.kind)) for value in kept]
    try:
        suggested = replace(column, categories=tuple(texts), others=bool(rare))
    except BadField:
        return None
    which = "a value occurs" if len(kept) == 1 else f"each of {len(kept)} values occurs"
    found = [Finding(column.name, "categories", f"shows that {which}; the rarest in {_least(seen, few)}")]
    if rare:
        named = ", ".join(f"{value!r} ({_records(count)})" for value, count in rare)
        text = f"left out, because under {few} records have them: {named}; `others` shows that there are such"
        found.append(Finding(column.name, "categories", text, risky=True))
    return suggested, found


def _least(seen: Seen, few: int) -> str:
    assert seen.counts
    return _records(min(count for count in seen.counts.values() if count >= few))


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"


def _range(column: Column, seen: Seen, _few: int) -> tuple[Column, list[Finding]] | None:
    kind = value_kind(column.kind)
    if not ordered(kind) or seen.least is None or pa.types.is_dictionary(column.kind):
        return None
    if isinstance(seen.least, float) and not (math.isfinite(seen.least) and math.isfinite(seen.most)):
        return None
    ends = outward(seen.least, seen.most)
    if ends is None:
        return None
    try:
        suggested = replace(column, range=(_text(ends[0], kind), _text(ends[1], kind)))
    except (BadField, pa.ArrowException):  # rounded past what the type can hold
        return None
    exact = "the exact minimum and maximum are single records' values; rounded outward to"
    text = f"{exact} {suggested.range[0]} and {suggested.range[1]}; still shows that a record lies near each end"  # type: ignore[index]
    return suggested, [Finding(column.name, "range", text, risky=True)]


def outward(least: Any, most: Any) -> tuple[Any, Any] | None:
    """A wider range whose ends are no record's value, but for zero; ``None`` for what has no round numbers.

    Numbers are rounded to the power of ten that is in the range's width, dates and times to years.
    """
    if isinstance(least, date):
        return _years(least, most)
    if not isinstance(least, int | float | Decimal):
        return None
    low, high = Decimal(str(least)), Decimal(str(most))
    width = high - low or abs(low) or Decimal(1)
    step = Decimal(1).scaleb(width.adjusted())
    if isinstance(least, int):
        step = max(step, Decimal(1))
    below = (low / step).to_integral_value("ROUND_FLOOR") * step
    above = (high / step).to_integral_value("ROUND_CEILING") * step
    below, above = (below - step if below == low != 0 else below), (above + step if above == high != 0 else above)
    convert: Callable[[Decimal], Any] = type(least)
    return convert(below), convert(above)


def _years(least: date, most: date) -> tuple[date, date] | None:
    """From the end of the year before the first date to the beginning of the year after the last one."""
    if not 1 < least.year <= most.year < 9998:
        return None
    if isinstance(least, datetime) and isinstance(most, datetime):
        first = type(least)(least.year - 1, 12, 31, tzinfo=least.tzinfo)
        return first, type(most)(most.year + 1, 1, 1, tzinfo=most.tzinfo)
    return type(least)(least.year - 1, 12, 31), type(most)(most.year + 1, 1, 1)


def _pattern(column: Column, seen: Seen, few: int) -> tuple[Column, list[Finding]] | None:
    if not is_text(column.kind) or not seen.shapes or len(seen.shapes) != 1 or seen.values < few:
        return None
    (shape,) = seen.shapes
    if any(c.isalnum() and c not in _CLASSES for c in shape):
        return None  # a letter that stands there as itself may be a letter of a name
    parts = [(c, len(list(run))) for c, run in groupby(shape)]
    text = "".join((_CLASSES.get(c) or re.escape(c)) + (f"{{{often}}}" if often > 1 else "") for c, often in parts)
    try:
        suggested = replace(column, pattern=Pattern.parse(text.replace("\\ ", " ")))
    except BadField:
        return None
    return suggested, [Finding(column.name, "pattern", "shows that every text has this shape, and no text itself")]


def _text(value: Any, kind: pa.DataType) -> str:
    """A value as a reveal description spells it."""
    return str(pa.array([value], kind).cast(pa.string())[0].as_py())
