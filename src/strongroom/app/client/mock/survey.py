"""One look at the owner's table: what a suggestion and a check go by. **What it finds is shown to its owner alone.**

Memory does not grow with the table: of a column are kept its extremes, a bounded number of distinct values, and the shape of
its texts while they all have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.errors import NotATable

from .pattern import Pattern
from .reveal import MAX_CATEGORIES, Reveal, is_text, value_kind
from .tabular import Progress, Tabular

_SHAPES = ((r"[0-9]", "9"), (r"[A-Z]", "A"), (r"[a-z]", "a"))


@dataclass(slots=True)
class Seen:
    """What was seen of one column.

    Attributes:
        kind: the type of its values.
        nulls: how many rows are null, or not a number.
        values: how many rows hold a value.
        least, most: its extremes; ``None`` where there is no value, or no order.
        counts: how often each value occurs; ``None`` once there are more than ``MAX_CATEGORIES``, or none can be told apart.
        pattern: what its texts are held against, or ``None``.
        unmatched: whether one of them does not fit it.
        shapes: of its texts, with ``A``, ``a`` and ``9`` for letters and digits; ``None`` once there is more than one.
    """

    kind: pa.DataType
    nulls: int = 0
    values: int = 0
    least: Any = None
    most: Any = None
    counts: dict[Any, int] | None = None
    pattern: Pattern | None = None
    unmatched: bool = False
    shapes: set[str] | None = None

    def add(self, values: pa.Array) -> None:
        """Some rows more."""
        before = len(values)
        if pa.types.is_float32(values.type) or pa.types.is_float64(values.type):
            values = values.filter(pc.invert(pc.is_nan(values)))
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        values = values.drop_null()
        self.nulls, self.values = self.nulls + before - len(values), self.values + len(values)
        if not len(values):
            return
        if pa.types.is_decimal32(values.type) or pa.types.is_decimal64(values.type):
            values = values.cast(pa.decimal128(38, values.type.scale))  # the others are not compared yet by Arrow
        if ordered(self.kind):
            ends = pc.min_max(values).as_py()
            self.least = ends["min"] if self.least is None else min(self.least, ends["min"])
            self.most = ends["max"] if self.most is None else max(self.most, ends["max"])
        if self.counts is not None:
            self._count(values)
        if self.pattern is not None and not self.unmatched:
            fits = pc.match_substring_regex(values, pattern=f"\\A(?:{self.pattern.text})\\z")
            self.unmatched = not pc.all(fits).as_py()
        if self.shapes is not None:
            for pattern, letter in _SHAPES:
                values = pc.replace_substring_regex(values, pattern=pattern, replacement=letter)
            self.shapes.update(values.unique().slice(0, 2).to_pylist())
            self.shapes = None if len(self.shapes) > 1 else self.shapes

    def _count(self, values: pa.Array) -> None:
        assert self.counts is not None
        found = pc.value_counts(values)
        if len(found) + len(self.counts) > 2 * MAX_CATEGORIES:
            self.counts = None
            return
        for value, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MAX_CATEGORIES:
            self.counts = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen of a table: its rows, and each column by name."""

    rows: int
    columns: Mapping[str, Seen]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Values that Arrow holds and Python cannot, as one of our errors. Raises NotATable."""
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError) as error:
        what = f"column {name!r} holds a value that cannot be read, such as a date after the year 9999"
        raise NotATable(what, hint="Mend the column, or leave it out of the file.") from error


def ordered(kind: pa.DataType) -> bool:
    """Whether its values have a range that can be said."""
    return any(
        is_one(kind)
        for is_one in (
            pa.types.is_integer,
            pa.types.is_float32,
            pa.types.is_float64,
            pa.types.is_decimal,
            pa.types.is_date,
            pa.types.is_time,
            pa.types.is_timestamp,
        )
    )


def _counted(kind: pa.DataType) -> bool:
    return is_text(kind) or bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_date32(kind))


def survey(table: Tabular, reveal: Reveal | None = None, progress: Progress | None = None) -> Survey:
    """Look at every row.

    Args:
        table: the owner's.
        reveal: what is said of it and is to be held against it.
        progress: called with the bytes read so far.

    Raises:
        NotATable: the file is damaged.
    """
    said = {c.place: c for c in reveal.columns} if reveal else {}
    columns = {}
    for field in table.schema:
        kind, column = value_kind(field.type), said.get(field.name)
        counted = _counted(kind) or (column is not None and column.categories is not None)
        columns[field.name] = Seen(
            kind,
            counts={} if counted else None,
            pattern=column.pattern if column else None,
            shapes=set() if is_text(kind) else None,
        )
    rows = 0
    for batch in table.batches(progress):
        rows += batch.num_rows
        for name, seen in columns.items():
            with readable(name):
                seen.add(batch.column(name))
    return Survey(rows, columns)
