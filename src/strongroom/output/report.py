"""Reports: aggregates that are parsed strictly and rounded. Groups and classes smaller than agreed are suppressed, and with
them as many others as it takes that the totals give none of them away.

See ``spec/output.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import rfc8785

from strongroom import wire
from strongroom.policy import OutputRule
from strongroom.wire import Fields

from .refusing import refuse, rounded
from .suppression import suppressed

Matrix: TypeAlias = list[list[int]]

REPORT_FORMAT: Final = "strongroom.report.v1"
CONFUSION: Final = "confusion"

MAX_TABLES, MAX_GROUPS, MAX_VALUES, MAX_CLASSES, MAX_TEXT, MAX_NAME = 16, 1024, 64, 64, 128, 64
SEVERAL, OTHER = "(several)", "(other)"
MAX_NUMBER: Final = 1e15

_NUMBERS = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,2})?")
_VALUE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class _Group:
    """One group of a table; one that is suppressed has neither records nor values.

    Attributes:
        name: text; ``SEVERAL`` for suppressed ones together.
        records: how many, or -1 where it is suppressed.
        values: numbers and matrices by name.
    """

    name: str
    records: int
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hidden(self) -> bool:
        return self.records < 0

    def hide(self) -> _Group:
        return _Group(self.name, -1)

    def matrices(self) -> dict[str, Matrix]:
        return {name: value for name, value in self.values.items() if isinstance(value, list)}

    def with_matrices(self, change: Callable[[Matrix], Matrix | None]) -> _Group:
        """This group, its matrices changed, or left out where they are changed to nothing."""
        changed = {name: change(value) for name, value in self.matrices().items()}
        values = {name: changed.get(name, value) for name, value in self.values.items()}
        return _Group(self.name, self.records, {name: value for name, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        if self.hidden:
            return {"group": self.name, "suppressed": True}
        return {"group": self.name, "records": self.records, "values": dict(self.values)}


@dataclass(frozen=True, slots=True)
class _Table:
    """A division of all records by one column.

    Attributes:
        public: whether the groups' names come from the agreement, not from the records.
    """

    by: str
    name: str
    public: bool
    groups: tuple[_Group, ...]

    def to_json(self) -> dict[str, Any]:
        return {"by": self.by, "groups": [g.to_json() for g in self.groups], "name": self.name, "public": self.public}


def _place(name: str) -> tuple[list[float], str]:
    """Where a name stands among others, by itself alone: bands by their numbers, other names by their letters. A program's
    order would say something.
    """
    return [float(number) for number in _NUMBERS.findall(name)], name


def _text(value: object, most: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        refuse("the report holds a text that is empty, long or not printable")
    return value


def _number(value: object, decimals: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        refuse("the report holds a number that is none, or too large")
    return value if isinstance(value, int) else rounded(value, decimals)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        refuse("the report holds a count that is none")
    return value


def _matrix(value: object) -> Matrix:
    if (
        not isinstance(value, list)
        or not 0 < len(value) <= MAX_CLASSES + 1
        or not all(isinstance(row, list) for row in value)
    ):
        refuse("the report holds a matrix that is none")
    found = [[_count(cell) for cell in row] for row in value]
    if {len(row) for row in found} != {len(found)}:
        refuse("the report holds a matrix that is not square")
    return found


def _values(value: object, parse: Callable[[object], Any]) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_VALUES or not all(_VALUE_NAME.match(name) for name in value):
        refuse("the report holds values that are not named as they must be")
    return {name: parse(item) for name, item in value.items()}


def _read_group(value: object, decimals: int, longest: int) -> _Group:
    f = Fields(value, "group")
    name = _text(f.any("group"), longest)
    if f.has("suppressed"):
        if f.any("suppressed") is not True:
            refuse("a group says that it is not suppressed")
        found = _Group(name, -1)
    else:
        values = _values(f.any("values"), lambda item: _matrix(item) if isinstance(item, list) else _number(item, decimals))
        found = _Group(name, _count(f.any("records")), values)
        if name == SEVERAL:
            refuse("a group has the name that is kept for suppressed ones")
    f.end()
    return found


def _suppress(groups: list[_Group], records: int, smallest: int) -> list[_Group]:
    """Hide what :func:`suppressed` says. ``records``: how many there are in all."""
    shown = sum(g.records for g in groups if not g.hidden)
    if shown > records or (shown < records and not any(g.hidden for g in groups)):
        refuse("the groups of a table do not add up to all records", "min_group")
    sizes = [-2 if g.name == SEVERAL else g.records for g in groups]
    return [
        g.hide() if n in hidden else g for hidden in [suppressed(sizes, records, smallest)] for n, g in enumerate(groups)
    ]


def _read_table(value: object, records: int, rule: OutputRule) -> _Table:
    f = Fields(value, "table")
    by, name, public = _text(f.any("by")), _text(f.any("name")), f.boolean("public")
    longest = MAX_TEXT if public else MAX_NAME
    found: list[_Group] = list(
        f.items("groups", lambda item: _read_group(item, rule.decimals, longest), low=1, high=MAX_GROUPS)
    )
    f.end()
    names = [group.name for group in found]
    if len(set(names)) != len(names):
        refuse("a table has two groups of one name")
    groups = _suppress(sorted(found, key=lambda group: _place(group.name)), records, rule.min_group)
    if not public and any(g.hidden for g in groups):
        # The names are values that stand in the records: those of hidden groups are hidden too, and so is their number.
        groups = [*(g for g in groups if not g.hidden), _Group(SEVERAL, -1)]
    return _Table(by, name, public, tuple(groups))


def _read_tables(f: Fields, records: int, rule: OutputRule) -> list[_Table]:
    tables: list[_Table] = [*f.items("tables", lambda item: _read_table(item, records, rule), high=MAX_TABLES)]
    if rule.min_group > 1 and len(tables) > 1:
        # Two columns can divide the records almost alike: the difference of a group of each is a group of a few.
        refuse("a report whose small groups are suppressed has one table at most", "min_group")
    if len({table.name for table in tables}) != len(tables) or len({table.by for table in tables}) != len(tables):
        refuse("two tables of the report have one name, or are by one column")
    return sorted(tables, key=lambda table: table.by)


def _read_classes(f: Fields) -> list[str]:
    classes: list[str] = [*f.items("classes", lambda item: _text(item, MAX_NAME), high=MAX_CLASSES)]
    if len(set(classes)) != len(classes) or OTHER in classes:
        refuse("the report names a class twice, or as the bucket of the others")
    return classes


def _rare(confusion: Matrix, count: int, smallest: int) -> frozenset[int]:
    """The classes to merge: those with fewer true records than ``smallest``, and then the smallest of the others, until
    what is merged is at least two classes, of at least ``smallest`` records together; or it is all classes.

    Args:
        confusion: rows are true classes; one more than ``count`` is of those merged before.
        count: how many classes there are.
        smallest: the fewest true records of a class that is shown.
    """
    records = [sum(row) for row in confusion]
    before = sum(records[count:])
    merged = {n for n in range(count) if records[n] < smallest}
    while merged or before:
        together = before + sum(records[n] for n in merged)
        if len(merged) == count or ((before or len(merged) > 1) and together >= smallest):
            break
        merged.add(min(set(range(count)) - merged, key=lambda n: (records[n], n)))
    return frozenset(merged)


def _merge(matrix: Matrix, kept: list[int]) -> Matrix:
    """The matrix of the classes ``kept``, with all others in one last row and column."""
    place = {n: at for at, n in enumerate(kept)}
    found = [[0] * (len(kept) + 1) for _ in range(len(kept) + 1)]
    for truth, row in enumerate(matrix):
        for predicted, records in enumerate(row):
            found[place.get(truth, len(kept))][place.get(predicted, len(kept))] += records
    return found


def _every(matrices: dict[str, Matrix], tables: list[_Table]) -> list[Matrix]:
    return [*matrices.values(), *(m for table in tables for group in table.groups for m in group.matrices().values())]


def _changed(tables: list[_Table], change: Callable[[Matrix], Matrix | None]) -> list[_Table]:
    return [replace(table, groups=tuple(group.with_matrices(change) for group in table.groups)) for table in tables]


def _in_order(
    classes: list[str], matrices: dict[str, Matrix], tables: list[_Table]
) -> tuple[list[str], dict[str, Matrix], list[_Table]]:
    """Classes by their names, and with them the rows and columns of matrices; the last, of others, stays."""
    every, order = _every(matrices, tables), sorted(range(len(classes)), key=lambda n: _place(classes[n]))
    if not {len(matrix) for matrix in every} <= ({len(classes), len(classes) + 1} if classes else set()):
        refuse("the report holds a matrix that is not of its classes")
    if len({len(matrix) for matrix in every}) > 1:
        refuse("the report holds matrices of different sizes")

    def change(matrix: Matrix) -> Matrix:
        places = [*order, *range(len(classes), len(matrix))]
        return [[matrix[truth][predicted] for predicted in places] for truth in places]

    return [classes[n] for n in order], {name: change(m) for name, m in matrices.items()}, _changed(tables, change)


def _merged_classes(
    classes: list[str], matrices: dict[str, Matrix], tables: list[_Table], records: int, smallest: int
) -> tuple[list[str], dict[str, Matrix], list[_Table]]:
    """Classes, matrices and tables without the classes that too few records truly are of.

    Where no class would be left every matrix is left out.
    """
    if smallest == 1 or not _every(matrices, tables):
        return classes, matrices, tables
    if sum(map(sum, matrices.get(CONFUSION, ()))) != records:
        refuse(f"the report's matrix {CONFUSION!r} is missing, or does not add up to all records")
    rare = _rare(matrices[CONFUSION], len(classes), smallest)
    kept = [n for n in range(len(classes)) if n not in rare]
    if not rare:
        return classes, matrices, tables

    def change(matrix: Matrix) -> Matrix | None:
        return _merge(matrix, kept) if kept else None

    tables = _changed(tables, change)
    if not kept:
        return classes, {}, tables
    return [classes[n] for n in kept], {name: _merge(m, kept) for name, m in matrices.items()}, tables


def _suppressed(classes: list[str], matrices: dict[str, Matrix], tables: list[_Table], smallest: int) -> bool:
    """Whether a group or class is, by the form of the report alone: a program's word for it would say something."""
    every = _every(matrices, tables)
    others = any(sum(row) for row in matrices.get(CONFUSION, [])[len(classes) :])  # records that truly are of one of them
    none_left = smallest > 1 and bool(classes) and not every
    return others or none_left or any(group.hidden for table in tables for group in table.groups)


def report(rule: OutputRule, data: bytes) -> bytes:
    f = Fields(wire.loads(data, max_bytes=rule.max_bytes, max_values=rule.max_bytes), "report")
    f.literal("format", REPORT_FORMAT)
    records = _count(f.any("records"))
    if records < rule.min_group:
        refuse(f"the report is on fewer than {rule.min_group} records", "min_group")
    tables, classes = _read_tables(f, records, rule), _read_classes(f)
    positive = f.optional("positive", lambda item: _text(item, MAX_NAME))
    if positive is not None and positive not in classes:
        refuse("the report's positive class is none of its classes")
    classes, matrices, tables = _in_order(classes, _values(f.any("matrices"), _matrix), tables)
    classes, matrices, tables = _merged_classes(classes, matrices, tables, records, rule.min_group)
    found = {
        "classes": classes,
        "decimals": rule.decimals,
        "format": REPORT_FORMAT,
        "matrices": matrices,
        "metrics": _values(f.any("metrics"), lambda item: _number(item, rule.decimals)),
        "min_group": rule.min_group,
        "positive": positive if positive in classes else None,
        "records": records,
        "suppressed": _suppressed(classes, matrices, tables, rule.min_group),
        "tables": [table.to_json() for table in tables],
        "task": _text(f.any("task")),
    }
    for ours in ("decimals", "min_group", "suppressed"):
        if f.has(ours):
            f.any(ours)
    f.end()
    return rfc8785.dumps(found)
