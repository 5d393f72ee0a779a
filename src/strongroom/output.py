"""Output rules: what a program wrote goes in, untrusted; what may leave the enclave comes out, or a refusal.

A *report* is parsed strictly, its numbers are rounded, and groups and classes smaller than agreed are suppressed, together
with as many others as it takes that the totals give none of them away. A *picture* is taken apart chunk by chunk, and only
what makes the picture is kept. *Records* are a row for each record and a *log* is free text: neither can be grouped, so a
rule that asks for groups refuses them. What a picture shows is the program's own care; it is told the rule.

Applying a rule twice is applying it once. See ``spec/output.md``.
"""

from __future__ import annotations

import csv
import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn, TypeAlias

import rfc8785

from . import wire
from .errors import OutputRefused, WireError
from .policy import OutputRule
from .wire import Fields

Matrix: TypeAlias = list[list[int]]

REPORT_FORMAT: Final = "strongroom.report.v1"
CONFUSION: Final = "confusion"

MAX_TABLES, MAX_GROUPS, MAX_VALUES, MAX_CLASSES, MAX_TEXT, MAX_NAME = 16, 1024, 64, 64, 128, 64
SEVERAL, OTHER = "(several)", "(other)"
MAX_NUMBER: Final = 1e15
MAX_SIDE: Final = 4096
MAX_PIXEL_BYTES: Final = 64 << 20
MAX_COLUMNS, MAX_CELL = 2048, 256

_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are their wide forms

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_VALUE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\Z")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]{1,3})?\Z")


def _refuse(why: str) -> NoReturn:
    raise OutputRefused(why)


def _round(value: float, decimals: int) -> float:
    """Rounded, without a negative nought."""
    return round(value, decimals) + 0.0


# --- reports --------------------------------------------------------------------------------------------------------


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


def _text(value: object, most: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        _refuse("the report holds a text that is empty, long or not printable")
    return value


def _number(value: object, decimals: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        _refuse("the report holds a number that is none, or too large")
    return value if isinstance(value, int) else _round(value, decimals)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        _refuse("the report holds a count that is none")
    return value


def _matrix(value: object) -> Matrix:
    if (
        not isinstance(value, list)
        or not 0 < len(value) <= MAX_CLASSES + 1
        or not all(isinstance(row, list) for row in value)
    ):
        _refuse("the report holds a matrix that is none")
    found = [[_count(cell) for cell in row] for row in value]
    if {len(row) for row in found} != {len(found)}:
        _refuse("the report holds a matrix that is not square")
    return found


def _values(value: object, parse: Callable[[object], Any]) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_VALUES or not all(_VALUE_NAME.match(name) for name in value):
        _refuse("the report holds values that are not named as they must be")
    return {name: parse(item) for name, item in value.items()}


def _read_group(value: object, decimals: int, longest: int) -> _Group:
    f = Fields(value, "group")
    name = _text(f.any("group"), longest)
    if f.has("suppressed"):
        if f.any("suppressed") is not True:
            _refuse("a group says that it is not suppressed")
        found = _Group(name, -1)
    else:
        values = _values(f.any("values"), lambda item: _matrix(item) if isinstance(item, list) else _number(item, decimals))
        found = _Group(name, _count(f.any("records")), values)
        if name == SEVERAL:
            _refuse("a group has the name that is kept for suppressed ones")
    f.end()
    return found


def _suppress(groups: list[_Group], records: int, smallest: int) -> list[_Group]:
    """Hide the groups smaller than ``smallest``, and then the smallest of the others, until nothing can be had by
    subtraction: what is hidden is at least two groups, of at least ``smallest`` records together; or it is all groups.

    Args:
        groups: of one table; every record is in exactly one.
        records: how many there are in all.
        smallest: the fewest records of a group that is shown; 1 hides none.
    """
    shown = sum(g.records for g in groups if not g.hidden)
    if shown > records or (shown < records and not any(g.hidden for g in groups)):
        _refuse("the groups of a table do not add up to all records")
    if smallest == 1:
        return groups
    groups = [g.hide() if g.records < smallest else g for g in groups]
    while any(g.hidden for g in groups):
        hidden = records - sum(g.records for g in groups if not g.hidden)
        several = sum(2 if g.name == SEVERAL else 1 for g in groups if g.hidden) > 1
        left = [g for g in groups if not g.hidden]
        if not left or (several and hidden >= smallest):
            break
        least = min(left, key=lambda g: g.records)
        groups = [g.hide() if g is least else g for g in groups]
    return groups


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
        _refuse("a table has two groups of one name")
    groups = _suppress(found, records, rule.min_group)
    if not public and any(g.hidden for g in groups):
        # The names are values that stand in the records: those of hidden groups are hidden too, and so is their number.
        groups = [*(g for g in groups if not g.hidden), _Group(SEVERAL, -1)]
    return _Table(by, name, public, tuple(groups))


def _read_tables(f: Fields, records: int, rule: OutputRule) -> list[_Table]:
    tables: list[_Table] = [*f.items("tables", lambda item: _read_table(item, records, rule), high=MAX_TABLES)]
    if rule.min_group > 1 and len(tables) > 1:
        # Two columns can divide the records almost alike: the difference of a group of each is a group of a few.
        _refuse("a report whose small groups are suppressed has one table at most")
    if len({table.name for table in tables}) != len(tables) or len({table.by for table in tables}) != len(tables):
        _refuse("two tables of the report have one name, or are by one column")
    return tables


def _read_classes(f: Fields) -> list[str]:
    classes: list[str] = [*f.items("classes", lambda item: _text(item, MAX_NAME), high=MAX_CLASSES)]
    if len(set(classes)) != len(classes) or OTHER in classes:
        _refuse("the report names a class twice, or as the bucket of the others")
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


def _merged_classes(
    classes: list[str], matrices: dict[str, Matrix], tables: list[_Table], records: int, smallest: int
) -> tuple[list[str], dict[str, Matrix], list[_Table], bool]:
    """Classes, matrices and tables without the classes that too few records truly are of, and whether there were any.

    Where no class would be left every matrix is left out.
    """
    every = [*matrices.values(), *(m for table in tables for group in table.groups for m in group.matrices().values())]
    if not {len(matrix) for matrix in every} <= ({len(classes), len(classes) + 1} if classes else set()):
        _refuse("the report holds a matrix that is not of its classes")
    if len({len(matrix) for matrix in every}) > 1:
        _refuse("the report holds matrices of different sizes")
    if smallest == 1 or not every:
        return classes, matrices, tables, False
    if sum(map(sum, matrices.get(CONFUSION, ()))) != records:
        _refuse(f"the report's matrix {CONFUSION!r} is missing, or does not add up to all records")
    rare = _rare(matrices[CONFUSION], len(classes), smallest)
    kept = [n for n in range(len(classes)) if n not in rare]
    if not rare:
        return classes, matrices, tables, False

    def change(matrix: Matrix) -> Matrix | None:
        return _merge(matrix, kept) if kept else None

    tables = [replace(table, groups=tuple(group.with_matrices(change) for group in table.groups)) for table in tables]
    if not kept:
        return classes, {}, tables, True
    return [classes[n] for n in kept], {name: _merge(m, kept) for name, m in matrices.items()}, tables, True


def _report(rule: OutputRule, data: bytes) -> bytes:
    f = Fields(wire.loads(data, max_bytes=rule.max_bytes, max_values=rule.max_bytes), "report")
    f.literal("format", REPORT_FORMAT)
    records = _count(f.any("records"))
    if records < rule.min_group:
        _refuse(f"the report is on fewer than {rule.min_group} records")
    tables, classes = _read_tables(f, records, rule), _read_classes(f)
    positive = f.optional("positive", lambda item: _text(item, MAX_NAME))
    if positive is not None and positive not in classes:
        _refuse("the report's positive class is none of its classes")
    matrices = _values(f.any("matrices"), _matrix)
    classes, matrices, tables, merged = _merged_classes(classes, matrices, tables, records, rule.min_group)
    # A report that went through here before says what was done to it then.
    before = f.has("suppressed") and f.any("suppressed") is True
    found = {
        "classes": classes,
        "decimals": rule.decimals,
        "format": REPORT_FORMAT,
        "matrices": matrices,
        "metrics": _values(f.any("metrics"), lambda item: _number(item, rule.decimals)),
        "min_group": rule.min_group,
        "positive": positive if positive in classes else None,
        "records": records,
        "suppressed": before or merged or any(group.hidden for table in tables for group in table.groups),
        "tables": [table.to_json() for table in tables],
        "task": _text(f.any("task")),
    }
    for ours in ("decimals", "min_group"):
        if f.has(ours):
            f.any(ours)
    f.end()
    return rfc8785.dumps(found)


# --- pictures -------------------------------------------------------------------------------------------------------

# Samples per pixel, and the bit depths allowed, by colour type (PNG, third edition, table 11.1).
_COLOURS: Final[Mapping[int, tuple[int, tuple[int, ...]]]] = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks: type and data. Raises OutputRefused."""
    if not data.startswith(_PNG):
        _refuse("the picture is no PNG")
    found, at = [], len(_PNG)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body, crc = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if len(crc) != 4 or int.from_bytes(crc, "big") != zlib.crc32(kind + body):
            _refuse("the picture has a chunk that is broken off, or whose checksum is wrong")
        found.append((kind, body))
        at += 12 + size
        if kind == b"IEND":
            break
    if at != len(data) or not found or found[-1] != (b"IEND", b""):
        _refuse("the picture does not end where it says")
    return found


def _pixels(header: bytes, compressed: bytes) -> None:
    """Check that the compressed data are exactly the lines that the header promises. Raises OutputRefused."""
    if len(header) != 13:
        _refuse("the picture's header is malformed")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", header)
    samples, depths = _COLOURS.get(colour, (0, ()))
    if depth not in depths or (compression, filters, interlace) != (0, 0, 0):
        _refuse("the picture is of a form that is not let through")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        _refuse(f"the picture is larger than {MAX_SIDE} by {MAX_SIDE}")
    line = 1 + (width * samples * depth + 7) // 8
    if line * height > MAX_PIXEL_BYTES:
        _refuse(f"the picture takes more than {MAX_PIXEL_BYTES} bytes")
    inflate = zlib.decompressobj()
    try:
        lines = inflate.decompress(compressed, line * height + 1)
    except zlib.error:
        _refuse("the picture's data cannot be inflated")
    if len(lines) != line * height or not inflate.eof or inflate.unused_data or max(lines[::line]) > 4:
        _refuse("the picture's data are not the lines that its header promises")


def _picture(rule: OutputRule, data: bytes) -> bytes:
    del rule  # sizes were checked, and what is drawn cannot be
    chunks = _chunks(data)
    if any(kind not in _CRITICAL and not kind[0] & 0x20 for kind, _ in chunks):
        _refuse("the picture has a critical chunk that is unknown")
    kept = [(kind, body) for kind, body in chunks if kind in _CRITICAL or kind == b"tRNS"]
    if not re.fullmatch(rb"IHDR(PLTE)?(tRNS)?(IDAT)+IEND", b"".join(kind for kind, _ in kept)):
        _refuse("the picture's chunks are not in their order")
    header = kept[0][1]
    _pixels(header, b"".join(body for kind, body in kept if kind == b"IDAT"))
    _palette(header[9], dict(kept))
    return _PNG + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in kept
    )


def _palette(colour: int, kept: Mapping[bytes, bytes]) -> None:
    """Check that palette and transparency are there where they must be, and of the right size. Raises OutputRefused."""
    palette, clear = kept.get(b"PLTE"), kept.get(b"tRNS")
    if colour in ({3} if palette is None else {0, 4}):
        _refuse("the picture has a palette where none may be, or none where one must be")
    if palette is not None and (len(palette) % 3 or not 3 <= len(palette) <= 768):
        _refuse("the picture's palette is malformed")
    most = {0: (2, 2), 2: (6, 6), 3: (1, len(palette or b"") // 3)}.get(colour, (1, 0))
    if clear is not None and not most[0] <= len(clear) <= most[1]:
        _refuse("the picture's transparency is malformed")


# --- records and logs -----------------------------------------------------------------------------------------------


def _formula(text: str) -> bool:
    """Whether a spreadsheet may take a cell for a formula: it could send what stands beside it to anybody."""
    return text.lstrip()[:1] in _FORMULA and not _NUMBER.match(text)


def _cell(text: str, decimals: int) -> str:
    if not _DECIMAL.match(text):
        return text
    value = float(text)
    if not math.isfinite(value):
        _refuse("the records hold a number that is too large")
    return repr(_round(value, decimals))


def _records(rule: OutputRule, data: bytes) -> bytes:
    if rule.min_group > 1:
        _refuse(f"a row for each record cannot be grouped by {rule.min_group}; a rule for records has min_group 1")
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        _refuse("the records are no CSV in UTF-8")
    width = len(rows[0]) if rows else 0
    if not 0 < width <= MAX_COLUMNS or any(len(row) != width for row in rows):
        _refuse("the records have no header, or rows of different lengths")
    if any(len(text) > MAX_CELL or not text.isprintable() for row in rows for text in row):
        _refuse("the records hold a cell that is long or not printable")
    if any(_formula(text) for row in rows for text in row):
        _refuse("the records hold a cell that spreadsheets take for a formula")
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(rows[0])
    write.writerows([_cell(text, rule.decimals) for text in row] for row in rows[1:])
    return out.getvalue().encode()


def _log(rule: OutputRule, data: bytes) -> bytes:
    if rule.min_group > 1:
        _refuse(f"a log is free text and cannot be grouped by {rule.min_group}; a rule for a log has min_group 1")
    text = data.decode("utf-8", "replace")
    # Terminals obey control characters.
    clean = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean.encode()[: rule.max_bytes].decode("utf-8", "ignore").encode()


def _rounded(value: object, decimals: int) -> object:
    if isinstance(value, float):
        return _number(value, decimals)
    if isinstance(value, list):
        return [_rounded(item, decimals) for item in value]
    if isinstance(value, dict):
        return {name: _rounded(item, decimals) for name, item in value.items()}
    return value


def _any_values(rule: OutputRule, data: bytes) -> bytes:
    if rule.min_group > 1:
        _refuse(f"values of any shape cannot be grouped by {rule.min_group}; a rule for values has min_group 1")
    return rfc8785.dumps(_rounded(wire.loads(data, max_bytes=rule.max_bytes), rule.decimals))  # type: ignore[arg-type]


def _closed(_rule: OutputRule, _data: bytes) -> bytes:
    _refuse("no rule for outputs of this kind is written yet, so that none leaves")


_RULES: Final[Mapping[str, Callable[[OutputRule, bytes], bytes]]] = {
    "log": _log,
    "picture": _picture,
    "records": _records,
    "report": _report,
    "table": _closed,
    "tensors": _closed,
    "values": _any_values,
}


def enforce(kind: str, rule: OutputRule, data: bytes) -> bytes:
    """Apply an output's rule to what the program wrote.

    Args:
        kind: one of the policy's output kinds.
        rule: as agreed. Its recipients are for the delivery.
        data: what the program wrote: untrusted.

    Returns:
        what may leave: for a report RFC 8785 canonical JSON (with decimal places), for a picture a PNG without metadata, for
        records a CSV, for a log text without control characters.

    Raises:
        OutputRefused: too large, malformed, or of a kind that cannot honour the rule. Nothing of it may leave.
    """
    if kind not in _RULES:
        _refuse("there is no rule for this kind of output")
    if len(data) > rule.max_bytes:
        _refuse(f"the {kind} is larger than {rule.max_bytes} bytes")
    try:
        found = _RULES[kind](rule, data)
    except WireError:
        # Its message may quote the program's bytes.
        raise OutputRefused(f"the {kind} is not of its form") from None
    if len(found) > rule.max_bytes:
        _refuse(f"the {kind} is larger than {rule.max_bytes} bytes once its rule is applied")
    return found
