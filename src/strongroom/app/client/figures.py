"""Outputs as people look at them: a table as its first rows, figures as a table, a picture as a picture, the rest as text.

What is shown are strings; whoever puts them on a screen or a page escapes them there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS, MAX_COLUMNS, MAX_CHARS = 20, 20, 60
MAX_TEXT = 2000  # characters

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One output, to be looked at.

    Attributes:
        header: of a table; empty where it is none.
        rows: its first ones.
        text: what is no table; empty where it is one.
        picture: the PNG; ``None`` where it is none.
        more: what is not shown, in words; may be empty.
    """

    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: str = ""
    picture: bytes | None = field(default=None, repr=False)
    more: str = ""


def look(kind: str, data: bytes) -> Figure:
    """An output that passed its rule, as it can be looked at. It raises nothing: what cannot be shown is said.

    Args:
        kind: one of the policy's output kinds.
        data: the output.
    """
    if kind == "picture":
        return Figure(picture=data, more=f"{len(data):,} bytes")
    if kind == "table":
        return _table(data)
    if kind in ("values", "report"):
        try:
            found = _values(json.loads(data))
        except (ValueError, RecursionError):
            found = None
        if found is not None:
            return found
    return _text(data)


def _table(data: bytes) -> Figure:
    try:
        import pyarrow as pa

        whole = data.startswith(b"ARROW1")  # the file format; else a stream
        opened = (pa.ipc.open_file if whole else pa.ipc.open_stream)(pa.BufferReader(data))
        table = opened.read_all()
    except (ImportError, ValueError, OSError):  # of which Arrow's own are some
        return Figure(more=f"a table of {len(data):,} bytes, which cannot be shown here")
    return first(table, MAX_ROWS)


def first(table: pa.Table, most: int) -> Figure:
    """The first rows and columns of a table.

    Args:
        table: of Arrow.
        most: how many rows.
    """
    names = table.column_names[:MAX_COLUMNS]
    cells = table.select(range(len(names))).slice(0, most)
    rows = tuple(tuple(_cell(column[row]) for column in cells.columns) for row in range(cells.num_rows))
    columns = f"; {len(names)} of {table.num_columns} columns" if table.num_columns > len(names) else ""
    more = f"{table.num_rows:,} rows, of which {len(rows)}{columns}" if len(rows) < table.num_rows or columns else ""
    return Figure(tuple(names), rows, more=more)


def _cell(scalar: Any) -> str:
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError):  # such as a date after the year 9999
        return "(cannot be shown)"
    return "" if value is None else short(str(value))


def short(text: str) -> str:
    """A cell of a table."""
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _values(value: object) -> Figure | None:
    """Figures by name, or by two names, as a table; ``None`` where they have another form."""
    if not isinstance(value, dict) or not value:
        return None
    if all(_is_scalar(item) for item in value.values()):
        return _cut(("", ""), [(name, _said(item)) for name, item in value.items()])
    if not all(isinstance(item, dict) and all(map(_is_scalar, item.values())) for item in value.values()):
        return None
    inner = list(dict.fromkeys(name for item in value.values() for name in item))
    if len(value) > MAX_COLUMNS:
        return None
    rows = [(name, *(_said(item[name]) if name in item else "" for item in value.values())) for name in inner]
    return _cut(("", *value), rows)


def _cut(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Figure:
    shown = tuple(tuple(map(short, row)) for row in rows[:MAX_ROWS])
    more = f"{len(rows):,} rows, of which {len(shown)}" if len(rows) > len(shown) else ""
    return Figure(tuple(map(short, header)), shown, more=more)


def _is_scalar(item: object) -> bool:
    return isinstance(item, Scalar)


def _said(item: Scalar) -> str:
    return item if isinstance(item, str) else json.dumps(item)


def _text(data: bytes) -> Figure:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Figure(more=f"{len(data):,} bytes that are no text")
    if len(text) <= MAX_TEXT:
        return Figure(text=text)
    return Figure(text=text[:MAX_TEXT], more=f"{len(text):,} characters, of which {MAX_TEXT:,}")


__all__ = ["Figure", "first", "look", "short"]
