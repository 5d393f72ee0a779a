"""For code in a room: tables of several owners, joined by the keys that ``match-report`` counts.

    from strongroom.programs.joined import join
    both = join(logs, census, on="person", rules=["id"])

Tables are pandas', Polars' or Arrow's. See ``docs/several-owners.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from strongroom.errors import BadParameters, TableColumns

from . import keyed
from .keys import Keying, keying
from .parameters import Checks
from .returned import table_of

KEY: Final = "key"
_CHECKS: Final = Checks("join")


def _arrow(table: Any) -> Any:
    """A table as Arrow has it. Raises ProgramCrashed: it is none."""
    found = table_of(table, "table")
    if len(set(found.column_names)) != len(found.column_names):
        raise TableColumns("two columns of a table have one name", step="program")
    return found


def _columns(table: Any, columns: Sequence[str]) -> list[list[str | None]]:
    if not set(columns) <= set(table.column_names):
        raise TableColumns("a table has no such column to join by", step="program")
    return [keyed.texts(table.column(name).combine_chunks()) for name in columns]


def _names(on: str | Sequence[str], how: Keying) -> list[str]:
    found = [on] if isinstance(on, str) else list(on)
    if len(found) != len(how.rules):
        raise BadParameters("join: there are more or fewer columns than rules", step="program")
    return found


def keys(table: Any, on: str | Sequence[str], rules: Sequence[str], country: str | None = None) -> list[bytes | None]:
    """The key of each row, in the rows' order; ``None`` for a row that has none.

    Args:
        table: of pandas, Polars or Arrow.
        on: the column or columns of the key.
        rules: one for each: ``email``, ``exact``, ``id``, ``phone`` or ``text``.
        country: the digits of the country whose telephone numbers are written without it.

    Raises:
        BadParameters: such rules there are not. TableColumns: such columns there are not.
    """
    how = keying(list(rules), country, _CHECKS)
    columns = _columns(_arrow(table), _names(on, how))
    held: dict[tuple[str | None, ...], bytes | None] = {}
    found = []
    for values in zip(*columns, strict=True):
        if values not in held:
            held[values] = how.key(values)
        found.append(held[values])
    return found


def join(
    left: Any,
    right: Any,
    *,
    on: str | Sequence[str],
    rules: Sequence[str],
    right_on: str | Sequence[str] | None = None,
    country: str | None = None,
) -> Any:
    """The rows of ``left`` whose key ``right`` has too, each with the columns of its row there.

    Args:
        left: any number of rows may have one key.
        right: a key that several rows have, however they write it, is left out: no row stands in for another.
        on: the column or columns of the key.
        rules: one for each.
        right_on: what they are called in ``right``, if not the same.
        country: the digits of the country whose telephone numbers are written without it.

    Returns:
        a table of ``left``'s library with the columns of both but the key's of ``right``; one whose name is taken has
        ``_right`` behind it. The column ``key`` is a whole number for each distinct key: count people by it, and not by
        rows.

    Raises:
        BadParameters, TableColumns: as ``keys``, or a name is taken still.
    """
    there, here = keys(right, on if right_on is None else right_on, rules, country), keys(left, on, rules, country)
    times = Counter(there)
    place = {key: n for n, key in enumerate(there) if key is not None and times[key] == 1}
    found = [(n, key) for n, key in enumerate(here) if key is not None and key in place]
    code: dict[bytes, int] = {}
    codes = [code.setdefault(key, len(code)) for _, key in found]
    one = _arrow(left).take(pa.array([n for n, _ in found], pa.int64()))
    other = _arrow(right).take(pa.array([place[key] for _, key in found], pa.int64()))
    mine = set(_names(on if right_on is None else right_on, keying(list(rules), country, _CHECKS)))
    columns = dict(zip(one.column_names, one.columns, strict=True))
    for name in other.column_names:
        if name not in mine:
            said = f"{name}_right" if name in columns else name
            if said in columns:
                raise TableColumns("two columns of the joined table have one name", step="program")
            columns[said] = other.column(name)
    if KEY in columns:
        raise TableColumns(f"a column is called {KEY}, as that of the joined table is", step="program")
    return _as(pa.table({**columns, KEY: pa.array(codes, pa.int64())}), left)


def _as(table: Any, like: Any) -> Any:
    """A table of Arrow in the library of another."""
    library = type(like).__module__.partition(".")[0]
    if library == "pandas":
        return table.to_pandas()
    if library == "polars":
        from polars import from_arrow  # noqa: PLC0415 - it is there, for it was handed in

        found: Any = from_arrow(table)
        return found.lazy() if hasattr(like, "collect") else found
    return table


def count(
    tables: Mapping[str, Any], on: Mapping[str, Sequence[str]], rules: Sequence[str], country: str | None = None
) -> dict[tuple[str, ...], int]:
    """What ``match-report`` counts, of tables that code has in hand.

    Args:
        tables: by name.
        on: the columns of each.
        rules, country: as :func:`join`.

    Returns:
        keys by the names of the tables, sorted, in which they are and in no others.
    """
    how = keying(list(rules), country, _CHECKS)
    found = {}
    for name, table in tables.items():
        found[name] = keyed.Keys()
        found[name].add(_columns(_arrow(table), _names(on[name], how)), how)
    return keyed.cells(found)
