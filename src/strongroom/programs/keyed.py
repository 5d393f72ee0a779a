"""Inputs read as sets of keys: one pass over the columns that make the key, and sixteen bytes for each distinct one.

A key is held as its BLAKE2b digest of 128 bits, so that memory does not grow with the length of keys, with the number of
rows, or with anything but the number of distinct keys. Two keys of one digest would be a collision that nobody can make.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from strongroom.errors import TableColumns, TableUnreadable

from . import Input
from .keys import LINE, Keying
from .rows import CSV, batches

LINES: Final = ("text/plain",)

_DIGEST_BYTES = 16
_FEW = 1 << 18  # digests that wait, at least, before they are put in order
_BATCH_LINES = 8192
_LONGEST_LINE = 4096  # bytes: what is longer is no key, and is not held
_EXACT = 2.0**53

Digests = NDArray[np.bytes_]


class Distinct:
    """Distinct digests: they wait in a heap, and are put in order once there are half as many as are in order already."""

    def __init__(self) -> None:
        self._ordered: Digests = np.zeros(0, dtype=f"S{_DIGEST_BYTES}")
        self._waiting = bytearray()

    def add(self, digest: bytes) -> None:
        self._waiting += digest
        if len(self._waiting) >= _DIGEST_BYTES * max(_FEW, len(self._ordered) // 2):
            self._order()

    def _order(self) -> None:
        if self._waiting:
            more = np.frombuffer(bytes(self._waiting), dtype=f"S{_DIGEST_BYTES}")
            self._waiting = bytearray()
            every = np.sort(np.concatenate([self._ordered, more]), kind="stable")  # fast where runs are in order
            self._ordered = every[np.concatenate([[True], every[1:] != every[:-1]])]

    @property
    def ordered(self) -> Digests:
        """All of them, each once, rising."""
        self._order()
        return self._ordered


@dataclass(slots=True)
class Keys:
    """What an input holds, as far as its keys go.

    Attributes:
        rows: how many there are.
        unusable: rows without a key.
        keys: the distinct ones.
        spellings: distinct ways in which they are written; ``None`` where nobody asks.
    """

    rows: int = 0
    unusable: int = 0
    keys: Distinct = field(default_factory=Distinct)
    spellings: Distinct | None = None

    @property
    def distinct(self) -> int:
        return len(self.keys.ordered)

    @property
    def repeated(self) -> int:
        """Rows whose key another row had before."""
        return self.rows - self.unusable - self.distinct

    @property
    def respelled(self) -> int:
        """Spellings of keys beyond the first of each."""
        return 0 if self.spellings is None else len(self.spellings.ordered) - self.distinct

    def add(self, columns: Sequence[Sequence[str | None]], keying: Keying) -> None:
        """Some rows more, column by column."""
        for values, count in Counter(zip(*columns, strict=True)).items():
            key = keying.key(values)
            self.rows += count
            if key is None:
                self.unusable += count
                continue
            self.keys.add(blake2b(key, digest_size=_DIGEST_BYTES).digest())
            if self.spellings is not None:
                parts = [(value or "").encode() for value in values]  # a key has a value in each part
                spelled = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
                self.spellings.add(blake2b(spelled, digest_size=_DIGEST_BYTES).digest())


def texts(column: Any) -> list[str | None]:
    """A column as texts. Whole numbers are their digits, however a library holds them: ``7``, never ``7.0``.

    Raises:
        TableColumns: by its type it holds neither texts, whole numbers nor dates.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):  # as Polars writes it
        column = column.cast(pa.large_string())
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [_decoded(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind):  # a column of ids with a gap, as pandas writes it
        return [_whole(value) for value in column.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found: list[str | None] = column.to_pylist()
        return found
    if pa.types.is_integer(kind) or pa.types.is_date(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if pa.types.is_null(kind):
        return [None] * len(column)
    raise TableColumns("a column of the key holds neither texts, whole numbers nor dates", step="read table")


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _whole(value: float | None) -> str | None:
    return str(int(value)) if value is not None and abs(value) < _EXACT and value == int(value) else None


def lines(source: Input) -> Iterator[list[str | None]]:
    """A file of plain text, a value on each line; a line that is too long is none.

    Raises:
        TableUnreadable: the file cannot be read.
    """
    found: list[str | None] = []
    with source.open() as file:
        while True:
            line, more = file.readline(_LONGEST_LINE), False
            while line and not line.endswith(b"\n") and len(line) == _LONGEST_LINE:
                line, more = file.readline(_LONGEST_LINE), True
            if not line and not more:
                break
            found.append(None if more else _decoded(line.rstrip(b"\r\n")))
            if len(found) == _BATCH_LINES:
                yield found
                found = []
    yield found


def scan(source: Input, columns: Sequence[str], keying: Keying, *, spelled: bool = False) -> Keys:
    """Read an input once.

    Args:
        source: CSV, Parquet, Arrow or plain text, which has the one column ``line``.
        columns: that make the key.
        keying: how.
        spelled: count spellings too.

    Raises:
        TableColumns, TableUnreadable: by the form of the file. What stands in a row ends no run.
    """
    found = Keys(spellings=Distinct() if spelled else None)
    if source.media_type in LINES:
        if list(columns) != [LINE]:
            raise TableColumns("plain text has one column, which is called line", step="read table")
        for values in lines(source):
            found.add([values], keying)
        return found
    if not source.size:
        raise TableUnreadable("the table has no bytes", step="read table")
    for batch in batches(source, list(columns)):
        found.add([texts(batch.column(name)) for name in columns], keying)
    return found


def cells(inputs: Mapping[str, Keys]) -> dict[tuple[str, ...], int]:
    """How many keys are in exactly these inputs and no others, for every set of them; roles in their order."""
    roles = sorted(inputs)
    every = np.concatenate([inputs[role].keys.ordered for role in roles])
    marks = np.concatenate([np.full(inputs[role].distinct, 1 << n, dtype=np.int64) for n, role in enumerate(roles)])
    order = np.argsort(every, kind="stable")
    every, marks = every[order], marks[order]
    counts = np.zeros(1 << len(roles), dtype=np.int64)
    if len(every):
        starts = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]]))
        counts = np.bincount(np.bitwise_or.reduceat(marks, starts), minlength=1 << len(roles))
    return {
        tuple(role for n, role in enumerate(roles) if mask >> n & 1): int(counts[mask])
        for mask in range((1 << len(roles)) - 1, 0, -1)
    }


def shared(inputs: Iterator[Keys]) -> tuple[int, int]:
    """How many keys are in all inputs, and how many others the input has that has the fewest others.

    No more than two inputs are held at a time.
    """
    common = next(inputs).keys.ordered
    fewest = len(common)
    for other in inputs:
        fewest = min(fewest, other.distinct)
        common = np.intersect1d(common, other.keys.ordered, assume_unique=True)
    return len(common), fewest - len(common)


def rehearse() -> None:
    """Read a small table, so that every library is loaded, with its threads, before there is anything to read."""
    small = b"a\n1\n"
    found = scan(Input(CSV[0], len(small), lambda: io.BytesIO(small)), ["a"], Keying(("id",)))
    cells({"a": found, "b": found})
