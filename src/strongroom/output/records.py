"""Records: a CSV with a row for each record. It cannot be grouped, so a rule that asks for groups refuses it.

See ``spec/output.md``.
"""

from __future__ import annotations

import csv
import io
import math
import re
from typing import Final

from strongroom.policy import OutputRule

from .refusing import refuse, refuse_groups, rounded

MAX_COLUMNS, MAX_CELL = 2048, 256

_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are their wide forms
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\Z")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]{1,3})?\Z")


def _formula(text: str) -> bool:
    """Whether a spreadsheet may take a cell for a formula: it could send what stands beside it to anybody."""
    return text.lstrip()[:1] in _FORMULA and not _NUMBER.match(text)


def _cell(text: str, decimals: int) -> str:
    if not _DECIMAL.match(text):
        return text
    value = float(text)
    if not math.isfinite(value):
        refuse("the records hold a number that is too large")
    return repr(rounded(value, decimals))


def records(rule: OutputRule, data: bytes) -> bytes:
    refuse_groups("a row for each record", rule.min_group)
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        refuse("the records are no CSV in UTF-8")
    rows = [[text.strip(" ") for text in row] for row in rows]  # beside a blank a number would be a text, and not rounded
    width = len(rows[0]) if rows else 0
    if not 0 < width <= MAX_COLUMNS or any(len(row) != width for row in rows):
        refuse("the records have no header, or rows of different lengths")
    if any(len(text) > MAX_CELL or not text.isprintable() for row in rows for text in row):
        refuse("the records hold a cell that is long or not printable")
    if any(_formula(text) for row in rows for text in row):
        refuse("the records hold a cell that spreadsheets take for a formula")
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(rows[0])
    write.writerows([_cell(text, rule.decimals) for text in row] for row in rows[1:])
    return out.getvalue().encode()
