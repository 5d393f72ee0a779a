"""What an owner agrees to reveal of a table: one small JSON document, which the owner reads, edits and keeps.

    {
      "columns": [
        {"name": "age", "type": "int64", "range": ["0", "120"]},
        {"categories": ["north", "south"], "name": "region", "null": false, "others": true, "type": "string"},
        {"name": "person", "of": "bsn", "pattern": "[A-Z]{2}[0-9]{6}", "type": "string"}
      ],
      "format": "strongroom.reveal.v1",
      "rows": 100,
      "withhold": ["surname"]
    }

What is not said is not revealed. A mock is made from this and a seed, and from nothing else (``making``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from strongroom import wire
from strongroom.errors import BadField
from strongroom.wire import JSON, Fields

from .notation import MAX_NAME, kind_of, spelled
from .pattern import MAX_PATTERN, Pattern

FORMAT = "strongroom.reveal.v1"
ROWS = 100
"""Rows of a mock whose owner says no number. It is fixed, so that it tells nothing of the table's own."""

MAX_ROWS = 100_000
MAX_COLUMNS = 4096
MAX_CATEGORIES = 1000
MAX_VALUE = 1024  # characters
MAX_REVEAL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Column:
    """What is revealed of one column.

    Attributes:
        name: in the mock, and in what is sealed.
        kind: its Arrow type.
        null: whether it may be null; ``None`` where that is not said, and a mock holds nulls then.
        categories: values that occur, as texts; ``None`` where they are not said.
        others: whether there are values beside ``categories``.
        range: the least and the greatest value, as texts; ``None`` where they are not said.
        pattern: the shape of its texts, or ``None``.
        of: the column's name in the owner's table, where it has another there. No part of the mock.

    Raises:
        BadField: what is said cannot be said of this type.
    """

    name: str
    kind: pa.DataType
    null: bool | None = None
    categories: tuple[str, ...] | None = None
    others: bool = False
    range: tuple[str, str] | None = None
    pattern: Pattern | None = None
    of: str | None = None

    def __post_init__(self) -> None:
        if sum(said is not None for said in (self.categories, self.range, self.pattern)) > 1:
            raise BadField(f"column {self.name!r} says more than one of categories, range and pattern")
        if self.others and self.categories is None:
            raise BadField(f"column {self.name!r} says that there are others beside no categories")
        if self.pattern is not None and not is_text(value_kind(self.kind)):
            raise BadField(f"column {self.name!r} has a pattern and is no text")
        if self.range is not None and (is_text(self.kind) or pa.types.is_dictionary(self.kind)):
            raise BadField(f"column {self.name!r} has a range, which texts have not")
        if self.null is False and pa.types.is_null(self.kind):
            raise BadField(f"column {self.name!r} holds nothing but nulls, and is said to hold none")
        said = self.values()
        if said is not None and (said.null_count or (len(said.unique()) != len(said) and self.categories is not None)):
            raise BadField(f"column {self.name!r} names a value twice")
        if said is not None and self.range is not None and said[0].as_py() > said[1].as_py():
            raise BadField(f"column {self.name!r} has a range whose end is before its beginning")

    def values(self) -> pa.Array | None:
        """The categories, or the range's two ends, in the column's own type; ``None`` where neither is said."""
        said = self.categories if self.categories is not None else self.range
        if said is None:
            return None
        kind = value_kind(self.kind)
        if pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_null(kind) or pa.types.is_binary(kind):
            raise BadField(f"column {self.name!r} has a type of which neither categories nor a range can be said")
        try:
            return pa.array(said, pa.string()).cast(kind)
        except (pa.ArrowException, ValueError) as error:
            raise BadField(f"column {self.name!r} says a value that is not of its type") from error

    @property
    def place(self) -> str:
        """The column's name in the owner's table."""
        return self.of or self.name

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {"name": self.name, "type": spelled(self.kind)}
        if self.null is not None:
            found["null"] = self.null
        if self.categories is not None:
            found["categories"] = [*self.categories]
            found["others"] = self.others
        if self.range is not None:
            found["range"] = [*self.range]
        if self.pattern is not None:
            found["pattern"] = self.pattern.text
        if self.of is not None:
            found["of"] = self.of
        return found

    @classmethod
    def from_json(cls, value: object) -> Column:
        """Raises BadField."""
        f = Fields(value, "column")
        name = f.text("name", max_chars=MAX_NAME)

        def text(item: Any) -> str:
            return Fields({name: item}, "column").text(name, max_chars=MAX_VALUE)

        ends = f.items("range", text, low=2, high=2) if f.has("range") else None
        found = cls(
            name=name,
            kind=kind_of(f.any("type")),
            null=f.boolean("null") if f.has("null") else None,
            categories=f.items("categories", text, low=1, high=MAX_CATEGORIES) if f.has("categories") else None,
            others=f.boolean("others") if f.has("others") else False,
            range=(ends[0], ends[1]) if ends else None,
            pattern=Pattern.parse(f.text("pattern", max_chars=MAX_PATTERN)) if f.has("pattern") else None,
            of=f.text("of", max_chars=MAX_NAME) if f.has("of") else None,
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Reveal:
    """What an owner agrees to reveal of a table.

    Attributes:
        columns: in order; what stands here is what is sealed.
        rows: how many rows the mock has; ``None`` for ``ROWS``.
        withhold: columns of the owner's table that are neither in the mock nor in what is sealed.

    Raises:
        BadField: no column, two with one name, or one that is both withheld and offered.
    """

    columns: tuple[Column, ...]
    rows: int | None = None
    withhold: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise BadField("nothing is offered: every column is withheld")
        for names in ([c.name for c in self.columns], [*(c.place for c in self.columns), *self.withhold]):
            if len(set(names)) != len(names):
                raise BadField("two columns have one name, or one is both offered and withheld")

    @classmethod
    def of_schema(cls, schema: pa.Schema) -> Reveal:
        """Names and types, and nothing else: what is revealed where an owner says nothing. Raises BadField."""
        return cls(tuple(Column(f.name, f.type, None if f.nullable else False) for f in schema))

    def but(
        self, *, rows: int | None = None, withhold: Iterable[str] = (), rename: Mapping[str, str] | None = None
    ) -> Reveal:
        """The same with some columns withheld or under other names, or with another number of rows.

        Raises:
            BadField: there is no such column.
        """
        gone, renamed = set(withhold), rename or {}
        for name in sorted((gone | set(renamed)) - {c.place for c in self.columns}):
            raise BadField(f"there is no column {name!r} to withhold or rename")
        columns = tuple(
            replace(c, name=renamed[c.place], of=c.place) if c.place in renamed else c
            for c in self.columns
            if c.place not in gone
        )
        return Reveal(columns, self.rows if rows is None else rows, (*self.withhold, *sorted(gone)))

    @property
    def schema(self) -> pa.Schema:
        """Of the mock, and of what is sealed."""
        return pa.schema([pa.field(c.name, c.kind, c.null is not False) for c in self.columns])

    def changes(self, table: pa.Schema) -> bool:
        """Whether what is sealed is another table than the owner's: columns are withheld, renamed or moved."""
        return bool([c.name for c in self.columns] != table.names)

    def to_json(self) -> dict[str, JSON]:
        return {
            "columns": [c.to_json() for c in self.columns],
            "format": FORMAT,
            **({} if self.rows is None else {"rows": self.rows}),
            **({"withhold": [*self.withhold]} if self.withhold else {}),
        }

    @classmethod
    def from_json(cls, value: object) -> Reveal:
        """Raises BadField."""
        f = Fields(value, "reveal")
        f.literal("format", FORMAT)

        def name(item: Any) -> str:
            return Fields({"withhold": item}, "reveal").text("withhold", max_chars=MAX_NAME)

        found = cls(
            columns=f.items("columns", Column.from_json, low=1, high=MAX_COLUMNS),
            rows=f.integer("rows", low=1, high=MAX_ROWS) if f.has("rows") else None,
            withhold=f.items("withhold", name, high=MAX_COLUMNS) if f.has("withhold") else (),
        )
        f.end()
        return found

    @classmethod
    def parse(cls, data: bytes) -> Reveal:
        """Read what a person wrote: any spelling of JSON, but every member known. Raises WireError leaves."""
        return cls.from_json(wire.loads(data, max_bytes=MAX_REVEAL_BYTES))


def value_kind(kind: pa.DataType) -> pa.DataType:
    """The type of a dictionary's values; any other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
