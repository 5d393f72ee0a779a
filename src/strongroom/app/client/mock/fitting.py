"""Whether a mock and a table have one form, so that code written against the one runs on the other.

Three questions. Has the mock the table's columns, in order, with their types? Is everything that the reveal description says
true of the table? And does the owner's own mock show no more than was agreed, and no row of the table?
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.errors import MockMisfit, MockReveals
from strongroom.wire import JSON

from .notation import spelled
from .reveal import Column, Reveal, is_text, value_kind
from .survey import Seen, Survey, readable
from .tabular import Progress, Tabular

SHOWN = 5  # of what is wrong, in one line


def require_form(mock: pa.Schema, table: pa.Schema) -> None:
    """Refuse a mock whose columns are not the table's. Raises MockMisfit: which are not, without a value."""
    found = []
    absent, added = [n for n in table.names if n not in mock.names], [n for n in mock.names if n not in table.names]
    if absent:
        found.append(f"it lacks {_named(absent)}")
    if added:
        found.append(f"it has {_named(added)}, which the table has not")
    if not found and mock.names != table.names:
        found.append("its columns stand in another order")
    for field in table:
        if field.name not in mock.names:
            continue
        other = mock.field(field.name)
        if spelled(other.type) != spelled(field.type):
            found.append(f"column {field.name!r} is {_type(other.type)} where the table has {_type(field.type)}")
        elif other.nullable and not field.nullable and pa.types.is_nested(field.type):
            found.append(f"column {field.name!r} may be null, and is not in the table")
    _refuse("the mock does not fit the table", found)


def require_told_early(table: Tabular) -> None:
    """Refuse CSV whose types are others further on than at its beginning, where rooms look for them. Raises MockMisfit."""
    early = table.at_first_sight
    changed = [f.name for f in table.schema if spelled(early.field(f.name).type) != spelled(f.type)]
    if changed:
        what = f"{_named(changed)} of {table.path.name} changes its type further on, so that a room could not read it"
        raise MockMisfit(what, hint="Offer it as Parquet or Arrow, which say their types.")


def _refuse(what: str, found: list[str]) -> None:
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise MockMisfit(f"{what}: {'; '.join(found[:SHOWN])}{more}")


def _named(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return f"column {shown}" if len(names) == 1 else f"columns {shown}{' and more' if len(names) > SHOWN else ''}"


def _type(kind: pa.DataType) -> str:
    found: JSON = spelled(kind)
    return found if isinstance(found, str) else str(kind)[:120]


def claims(reveal: Reveal, schema: pa.Schema) -> bool:
    """Whether the description says anything that only a look at every row can confirm."""
    return any(
        c.categories is not None or c.range is not None or c.pattern is not None or (c.null is False and field.nullable)
        for c in reveal.columns
        for field in [schema.field(c.place)]
    )


def require_described(reveal: Reveal, table: pa.Schema) -> None:
    """Refuse a description of another table. Raises MockMisfit: names that are not there, left out, or of another type."""
    found = []
    places = {c.place: c for c in reveal.columns}
    unsaid = [n for n in table.names if n not in places and n not in reveal.withhold]
    unknown = [n for n in (*places, *reveal.withhold) if n not in table.names]
    if unsaid:
        found.append(f"it says nothing of {_named(unsaid)}; offer or withhold each")
    if unknown:
        found.append(f"the table has no {_named(unknown)}")
    for field in table:
        column = places.get(field.name)
        if column is not None and spelled(column.kind) != spelled(field.type):
            found.append(f"column {field.name!r} is {_type(field.type)} and is said to be {_type(column.kind)}")
    _refuse("the reveal description does not fit the table", found)


def require_true(reveal: Reveal, seen: Survey) -> None:
    """Refuse what is said of the table and is not so. Raises MockMisfit, without a value."""
    found = []
    for column in reveal.columns:
        what = untrue(column, seen.columns[column.place])
        if what:
            found.append(f"column {column.name!r} {what}")
    _refuse("the reveal description is not true of the table", found)


def untrue(column: Column, seen: Seen) -> str:
    """What is said of a column and is not so; ``""`` where all of it is."""
    if column.null is False and seen.nulls:
        return "is said never to be null, and is"
    if not seen.values:
        return ""
    said = column.values()
    if column.categories is not None and said is not None and not column.others:
        known = set(said.to_pylist())
        if seen.counts is None or not known.issuperset(seen.counts):
            return "holds values beside its categories; say so with `others`, or name them"
    if column.range is not None and said is not None:
        low, high = said.to_pylist()
        if not low <= seen.least <= seen.most <= high:
            return "holds values outside of its range"
    if column.pattern is not None and seen.unmatched:
        return "holds texts of another shape than its pattern's"
    return ""


# --- an owner's own mock ----------------------------------------------------------------------------------------------


def require_agreed(mock: pa.Table, reveal: Reveal) -> None:
    """Refuse a mock that shows what the description does not reveal. Raises MockReveals, without a value."""
    for column in reveal.columns:
        said = column.values()
        if said is None and column.pattern is None:
            continue
        seen = Seen(value_kind(column.kind), counts={}, pattern=column.pattern)
        with readable(column.name):
            for values in mock[column.name].chunks:
                seen.add(values)
        what = untrue(column, seen)
        if what:
            raise MockReveals(f"the mock's column {column.name!r} {what}")


def require_likeness(mock: pa.Table, table: pa.Schema, seen: Survey, reveal: Reveal) -> None:
    """Refuse an own mock that leads astray: nulls where the table can have none, categories that it has not.

    Raises:
        MockMisfit: names the columns, and no value.
    """
    found = []
    for column in reveal.columns:
        field, values = table.field(column.place), mock[column.name]
        if values.null_count and not field.nullable:
            found.append(f"column {column.name!r} holds nulls, which the table cannot")
        known = seen.columns[column.place].counts
        if known is not None and pa.types.is_dictionary(field.type):
            with readable(column.name):
                occurring = set(_plain(values).unique().drop_null().to_pylist())
            if occurring - set(known):
                found.append(f"column {column.name!r} holds categories that the table does not")
    _refuse("the mock does not fit the table", found)


def require_made_up(mock: pa.Table, table: Tabular, reveal: Reveal) -> None:
    """Refuse, in a column of which some categories are revealed and others not, a cell that is one of the others.

    Args:
        mock: the owner's own.
        table: the owner's; read once, where there is such a column.
        reveal: what was agreed.

    Raises:
        MockReveals: names the column, and no value.
    """
    others = {}
    for column in reveal.columns:
        said = column.values() if column.categories is not None and column.others else None
        if said is not None:
            cells = _plain(mock[column.name]).unique().drop_null()
            others[column] = cells.filter(pc.invert(pc.is_in(cells, value_set=said.cast(cells.type))))
    if not any(map(len, others.values())):
        return
    for batch in table.batches():
        for column, cells in others.items():
            if pc.any(pc.is_in(_plain(batch.column(column.place)), value_set=cells)).as_py():
                raise MockReveals(
                    f"the mock's column {column.name!r} holds a value of the table that is not among its categories",
                    hint="Name it in `categories`, or make up another.",
                )


def shared_rows(mock: pa.Table, table: Tabular, reveal: Reveal, progress: Progress | None = None) -> int:
    """How many distinct rows of a mock are rows of the table too.

    Args:
        mock: the owner's own; its rows are held in memory.
        table: the owner's; read once.
        reveal: which of its columns are offered, under which names.
        progress: called with the bytes read so far.
    """
    rows = set(_rows([mock[c.name] for c in reveal.columns]))
    telling = [(len(mock[c.name].unique()), c) for c in reveal.columns if _comparable(c.kind)]
    pick = max(telling, key=lambda pair: pair[0])[1] if telling else None
    wanted = _plain(mock[pick.name]).unique() if pick else None
    found: set[str] = set()
    for batch in table.batches(progress):
        left = batch.filter(pc.is_in(_plain(batch.column(pick.place)), value_set=wanted)) if pick else batch
        found |= rows & set(_rows([left.column(c.place) for c in reveal.columns]))
    return len(found)


def _comparable(kind: pa.DataType) -> bool:
    kind = value_kind(kind)
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Values without a dictionary."""
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _rows(columns: list[pa.Array | pa.ChunkedArray]) -> Iterator[str]:
    with readable("of the mock or the table"):
        cells = [_plain(column).to_pylist() for column in columns]
    for row in zip(*cells, strict=True):
        yield repr(row)
