"""What a mock reveals, item by item: for the owner, before anything is published."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from strongroom.wire import JSON

from .notation import spelled
from .reveal import ROWS, Column, Reveal
from .tabular import TYPELESS

SHOWN = 8  # categories
ASK = (
    "Is a column's name itself sensitive? Leave the column out of the mock and of what is sealed with --withhold NAME, "
    "or give it another name in both with --rename NAME=OTHER."
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that whoever gets the mock knows of the table.

    Attributes:
        column: which column; ``""`` for the table as a whole.
        text: what they know.
    """

    column: str
    text: str

    def to_json(self) -> dict[str, JSON]:
        return {"column": self.column, "text": self.text}


@dataclass(frozen=True, slots=True)
class Report:
    """What a mock reveals, what it does not, and what its owner should ask themselves.

    Attributes:
        items: what is revealed.
        kept: what is not.
        asks: questions to the owner.
    """

    items: tuple[Item, ...]
    kept: tuple[str, ...]
    asks: tuple[str, ...]

    def to_json(self) -> dict[str, JSON]:
        return {"asks": [*self.asks], "kept": [*self.kept], "reveals": [item.to_json() for item in self.items]}


def report(reveal: Reveal, media_type: str, own: pa.Table | None = None) -> Report:
    """Say what a mock reveals.

    Args:
        reveal: what the owner agreed to.
        media_type: of the table and the mock.
        own: the owner's own mock; ``None`` where it was made from the description.
    """
    items = [Item(c.name, _column(c)) for c in reveal.columns]
    kept = ["every value and every row of the table"]
    if own is None:
        rows = reveal.rows
        items.append(Item("", f"{rows:,} rows, as you said" if rows is not None else f"{ROWS} rows, as every mock has"))
        if rows is None:
            kept.append("how many rows the table has, but for what can be guessed from its size")
        kept.append("how often a value occurs, and which values occur together: both are made up")
    else:
        items.append(
            Item("", f"your own mock, every value as it stands: {own.num_rows:,} rows, none of them a row of the table")
        )
        kept = ["what does not follow from your own mock; how it was made, only you know"]
    items.append(
        Item("", "its size in bytes, which every manifest says: about how many rows it has can be guessed from that")
    )
    if media_type in TYPELESS:
        items.append(
            Item("", "types that were found in the values, since the format says none: one odd value can change a type")
        )
    if reveal.withhold:
        kept.append("that there are columns more, which are not sealed either")
    return Report(tuple(items), tuple(kept), (ASK,))


def _column(column: Column) -> str:
    kind = spelled(column.kind)
    said = [f"its name, and its type {kind if isinstance(kind, str) else str(column.kind)}"]
    if column.null is not None:
        said.append("that it may be null" if column.null else "that it is never null")
    if column.categories is not None:
        count = len(column.categories)
        which = "one value occurs" if count == 1 else f"these {count} values occur"
        beside = "and that there are others" if column.others else "and that there are no others"
        shown = ", ".join(column.categories[:SHOWN]) + (", …" if count > SHOWN else "")
        said.append(f"that {which}, {beside}: {shown}")
    if column.range is not None:
        said.append(f"that every value lies from {column.range[0]} to {column.range[1]}")
    if column.pattern is not None:
        said.append(f"that every text is of the shape {column.pattern.text}")
    return "; ".join(said)
