"""Lines of CSV, each read by itself: whatever stands in one, the others are read as if it were not there.

A quote that is left open would make the rest of a file one cell. So a row is one line, and a line is left out where its
quotes are not closed in it as RFC 4180 has them, or where it is longer than ``LONGEST``. See ``spec/programs.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.csv

LONGEST: Final = 1 << 20
"""Bytes of a line that is read, and what is read of a file at a time: only the first line of a piece can be longer."""

_BOM: Final = b"\xef\xbb\xbf"
_CELL: Final = rb'(?:"(?:[^"]|"")*+"|[^",]*+)'
_CLOSED: Final = re.compile(_CELL + rb"(?:," + _CELL + rb")*+")


def _skip(_row: Any) -> str:
    return "skip"


def whole(file: BinaryIO) -> Iterator[bytes]:
    """Pieces of whole lines, each with its end; without those that are too long."""
    rest, skipping = b"", False
    for piece in iter(partial(file.read, LONGEST), b""):
        # what ends a line to Arrow ends one here; a line of nothing is none
        lines, end, rest = (rest + piece.replace(b"\r", b"\n")).rpartition(b"\n")
        if end:
            first, _, others = (lines + end).partition(b"\n")
            yield others if skipping or len(first) > LONGEST else lines + end
            skipping = False
        if len(rest) > LONGEST:
            rest, skipping = b"", True
    if rest and not skipping:
        yield rest + b"\n"


def _closed(lines: bytes) -> bytes:
    """Those whose quotes are closed."""
    if b'"' not in lines:
        return lines
    return b"\n".join(line for line in lines.split(b"\n") if b'"' not in line or _CLOSED.fullmatch(line))


def names(file: BinaryIO) -> list[str]:
    """What the columns are called, by the first line that holds anything.

    Raises:
        pyarrow.ArrowInvalid, UnicodeDecodeError: there is none, or it is no line of CSV.
    """
    file.seek(0)
    first = next((line for piece in whole(file) for line in _header(piece).split(b"\n") if line), b"")
    if not _CLOSED.fullmatch(first):
        raise pa.ArrowInvalid("the first line has a quote that is not closed")
    found: list[str] = pa.csv.read_csv(pa.py_buffer(first + b"\n"), convert_options=_convert([])).schema.names
    return found


def _header(piece: bytes) -> bytes:
    return piece.removeprefix(_BOM)


def _convert(wanted: list[str]) -> Any:
    return pa.csv.ConvertOptions(
        check_utf8=False,
        column_types=dict.fromkeys(wanted, pa.binary()),  # whatever stands in a cell can be read
        include_columns=wanted,
        null_values=[""],
        strings_can_be_null=True,
    )


def tables(file: BinaryIO, wanted: list[str]) -> Iterator[Any]:
    """The rows of some columns, as bytes, in tables of a piece each; a cell of nothing is missing.

    Args:
        file: the whole of it.
        wanted: columns; each is there once.

    Raises:
        as ``names``.
    """
    columns, header = names(file), True
    file.seek(0)
    for piece in whole(file):
        lines = piece
        if header:
            lines = _header(piece).lstrip(b"\n")
            header = not lines
            lines = lines.partition(b"\n")[2]
        lines = b"\n" + _closed(lines)  # a line of nothing first: Arrow would take a mark of the byte order off each piece
        yield pa.csv.read_csv(
            pa.py_buffer(lines),
            read_options=pa.csv.ReadOptions(use_threads=False, column_names=columns, block_size=len(lines) + 1),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=_skip),
            convert_options=_convert(wanted),
        )
