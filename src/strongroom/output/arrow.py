"""Arrow's file format read in Python alone, as much of it as a table that may leave can be made of.

What a program wrote is read in the process that holds keys, so none of it reaches a decoder that is not memory-safe: every
offset, length and count is looked at here before it is used, and a column becomes plain values. Null, boolean, integer,
floating point and text columns, and dictionaries of texts; nothing nested, nothing compressed.

Sources: the Arrow columnar format ("Serialization and Interprocess Communication"), ``Message.fbs``, ``Schema.fbs``, and the
FlatBuffers binary format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .refusing import refuse

MAGIC: Final = b"ARROW1\0\0"
MAX_MESSAGES: Final = 4096
MAX_COLUMNS: Final = 256
MAX_TEXTS: Final = 1 << 20  # of a dictionary

_CONTINUES, _VERSION_5, _LITTLE = 0xFFFFFFFF, 4, 0
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3
_NULL, _INT, _FLOAT, _TEXT, _BOOL, _LARGE_TEXT, _TEXT_VIEW = 1, 2, 3, 5, 6, 20, 24
_TEXTS: Final = frozenset({_TEXT, _LARGE_TEXT, _TEXT_VIEW})
_FLOATS: Final = ("<f2", "<f4", "<f8")
_EXTENSION: Final = b"ARROW:extension"
_VIEW_BYTES, _WITHIN_VIEW = 16, 12


class _Malformed(Exception):
    """Not of the form."""


class _Part:
    """A FlatBuffers table; every read is within the message's metadata, or raises struct.error or _Malformed."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - self._read("<i", at)
        self._fields = (self._read("<H", self._vtable) - 4) // 2

    @classmethod
    def root(cls, data: bytes) -> _Part:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _read(self, form: str, at: int) -> int:
        if at < 0:  # from the end, to Python
            raise _Malformed
        found: int = struct.unpack_from(form, self._data, at)[0]
        return found

    def _place(self, field: int) -> int:
        """Where a field is; 0 where it is not."""
        offset = self._read("<H", self._vtable + 4 + 2 * field) if field < self._fields else 0
        return self._at + offset if offset else 0

    def number(self, field: int, form: str, default: int = 0) -> int:
        place = self._place(field)
        return self._read(form, place) if place else default

    def has(self, field: int) -> bool:
        return bool(self._place(field))

    def _pointed(self, field: int) -> int:
        place = self._place(field)
        if not place:
            raise _Malformed
        return place + self._read("<I", place)

    def part(self, field: int) -> _Part:
        return _Part(self._data, self._pointed(field))

    def text(self, field: int) -> bytes:
        at = self._pointed(field)
        size = self._read("<I", at)
        if size > len(self._data) - at - 4:
            raise _Malformed
        return self._data[at + 4 : at + 4 + size]

    def _vector(self, field: int, width: int, most: int) -> tuple[int, int]:
        """Where a vector's items begin, and how many they are."""
        if not self.has(field):
            return 0, 0
        at = self._pointed(field)
        count = self._read("<I", at)
        if count > most or at + 4 + count * width > len(self._data):
            raise _Malformed
        return at + 4, count

    def count(self, field: int) -> int:
        """How many items a vector of tables has."""
        return self._vector(field, 4, len(self._data))[1]

    def parts(self, field: int, most: int) -> list[_Part]:
        at, count = self._vector(field, 4, most)
        return [_Part(self._data, place + self._read("<I", place)) for place in range(at, at + 4 * count, 4)]

    def numbers(self, field: int, each: int, most: int) -> list[tuple[int, ...]]:
        """A vector of 64-bit numbers, or of structs of so many."""
        at, count = self._vector(field, 8 * each, most)
        return [struct.unpack_from(f"<{each}q", self._data, at + n * 8 * each) for n in range(count)]


@dataclass(frozen=True, slots=True)
class _Column:
    """What a field says: its name, its type (of a dictionary that of its places), and where its texts are, if elsewhere."""

    name: str
    kind: int
    form: str
    dictionary: int | None
    texts: int


class _Body:
    """The columns of one record batch, taken in their order.

    Args:
        batch: its metadata.
        data: its body.
        rows: how many it may have.
        said: the same, for people.
    """

    def __init__(self, batch: _Part, data: memoryview, rows: int, said: int) -> None:
        self.rows = batch.number(0, "<q")
        if not 0 <= self.rows <= rows:
            refuse(f"the table is longer than {said} rows", "schema")
        if batch.has(3):
            refuse("the table is compressed; write it without compression")
        self._data = data
        self._nodes = iter(batch.numbers(1, 2, MAX_COLUMNS))
        self._buffers = iter(batch.numbers(2, 2, 1 << 16))
        self._views = iter(batch.numbers(4, 1, MAX_COLUMNS))

    def _buffer(self) -> memoryview:
        offset, size = self._next(self._buffers)
        if not 0 <= offset <= offset + size <= len(self._data):
            raise _Malformed
        return self._data[offset : offset + size]

    @staticmethod
    def _next(items: Iterator[tuple[int, ...]]) -> tuple[int, ...]:
        found = next(items, None)
        if found is None:
            raise _Malformed
        return found

    def _array(self, form: str, count: int) -> np.ndarray[Any, Any]:
        buffer = self._buffer()
        if len(buffer) < count * np.dtype(form).itemsize:
            raise _Malformed
        return np.frombuffer(buffer, form, count)

    def _unpacked(self, buffer: memoryview) -> np.ndarray[Any, Any]:
        """A bit for each row. Raises _Malformed."""
        size = (self.rows + 7) // 8
        if len(buffer) < size:
            raise _Malformed
        return np.unpackbits(np.frombuffer(buffer[:size], "u1"), count=self.rows, bitorder="little").astype(bool)

    def values(self, kind: int, form: str, longest: int) -> list[Any]:
        """The next column's values; ``None`` for what is null."""
        length, nulls = self._next(self._nodes)
        if length != self.rows or not 0 <= nulls <= length:
            raise _Malformed
        if kind == _NULL:
            return [None] * length
        there = self._there(nulls)
        if kind == _BOOL:
            found = self._unpacked(self._buffer()).tolist()
        elif kind in _TEXTS:
            return self._texts(kind, there, longest)
        else:
            found = self._array(form, length).tolist()
        return [value if valid else None for value, valid in zip(found, there, strict=True)] if nulls else found

    def _there(self, nulls: int) -> list[bool]:
        """For each row whether it holds a value, which must be what the number of nulls says."""
        buffer = self._buffer()
        if not len(buffer) and not nulls:
            return [True] * self.rows
        bits: list[bool] = self._unpacked(buffer).tolist()
        if bits.count(False) != nulls:
            raise _Malformed
        return bits

    def _texts(self, kind: int, there: list[bool], longest: int) -> list[str | None]:
        if kind == _TEXT_VIEW:
            spans = self._viewed(there, longest)
        else:
            spans = self._spanned("<i4" if kind == _TEXT else "<i8", there, longest)
        return [None if text is None else bytes(text).decode() for text in spans]

    def _spanned(self, form: str, there: list[bool], longest: int) -> Iterator[memoryview | None]:
        offsets = self._array(form, self.rows + 1).tolist() if self.rows else [self._buffer(), 0][1:]
        data = self._buffer()
        for valid, start, end in zip(there, offsets, offsets[1:], strict=False):
            if not 0 <= start <= end <= len(data):
                raise _Malformed
            yield _within(data[start:end], longest) if valid else None

    def _viewed(self, there: list[bool], longest: int) -> Iterator[memoryview | None]:
        views = self._buffer()
        (count,) = self._next(self._views)
        if len(views) < self.rows * _VIEW_BYTES or not 0 <= count <= MAX_MESSAGES:
            raise _Malformed
        buffers = [self._buffer() for _ in range(count)]
        for row, valid in enumerate(there):
            view = views[row * _VIEW_BYTES : (row + 1) * _VIEW_BYTES]
            size, _, which, start = struct.unpack("<4i", view)
            if not valid:
                yield None
            elif 0 <= size <= _WITHIN_VIEW:
                yield _within(view[4 : 4 + size], longest)
            elif 0 <= which < count and 0 <= start <= start + size <= len(buffers[which]) and size > 0:
                yield _within(buffers[which][start : start + size], longest)  # many may lie at one place: none is copied
            else:
                raise _Malformed


def _within(text: memoryview, longest: int) -> memoryview:
    if len(text) > longest:
        refuse("the table has a text that is longer than any of its schema", "schema")
    return text


def _messages(data: bytes) -> Iterator[tuple[int, _Part, memoryview]]:
    """The messages in their order: type, header, body. What follows the last is not read."""
    if not data.startswith(MAGIC):
        raise _Malformed
    whole, at = memoryview(data), len(MAGIC)
    for _ in range(MAX_MESSAGES + 1):
        if at == len(data):
            return
        mark, size = struct.unpack_from("<II", data, at)
        if mark != _CONTINUES:
            raise _Malformed
        if not size:
            return
        at += 8
        if size > len(data) - at:
            raise _Malformed
        root = _Part.root(data[at : at + size])
        body = root.number(3, "<q")
        at += size
        if root.number(0, "<h") != _VERSION_5 or not 0 <= body <= len(data) - at:
            raise _Malformed
        yield root.number(1, "<B"), root.part(2), whole[at : at + body]
        at += body
    refuse("the table is of too many parts")


def _integer(part: _Part) -> str:
    width = part.number(0, "<i")
    if width not in (8, 16, 32, 64):
        raise _Malformed
    return f"<{'i' if part.number(1, '<B') else 'u'}{width // 8}"


def _column(field: _Part) -> _Column:
    kind, form = field.number(2, "<B"), ""
    if kind not in {_NULL, _INT, _FLOAT, _BOOL, *_TEXTS} or field.count(5):
        refuse("the table has a column that is neither of numbers, texts nor yes and no")
    if any(pair.text(0).startswith(_EXTENSION) for pair in field.parts(6, MAX_COLUMNS)):
        refuse("the table has a column that is neither of numbers, texts nor yes and no")
    name = field.text(0).decode()
    if field.has(4):
        if kind not in _TEXTS:
            refuse("the table has a column that is neither of numbers, texts nor yes and no")
        encoding = field.part(4)
        form = _integer(encoding.part(1)) if encoding.has(1) else "<i4"
        return _Column(name, _INT, form, encoding.number(0, "<q"), kind)
    if kind == _INT:
        form = _integer(field.part(3))
    if kind == _FLOAT:
        precision = field.part(3).number(0, "<h")
        if not 0 <= precision < len(_FLOATS):
            raise _Malformed
        form = _FLOATS[precision]
    return _Column(name, kind, form, None, kind)


def _columns(schema: _Part) -> list[_Column]:
    if schema.number(0, "<h") != _LITTLE:
        raise _Malformed
    return [_column(field) for field in schema.parts(1, MAX_COLUMNS)]


def _placed(places: list[Any], texts: list[Any] | None) -> list[Any]:
    """The texts of a dictionary by their places."""
    if texts is None or any(place is not None and not 0 <= place < len(texts) for place in places):
        raise _Malformed
    return [None if place is None else texts[place] for place in places]


def _learn(
    header: _Part, body: memoryview, columns: list[_Column], known: dict[int, list[Any]], longest: Mapping[str, int]
) -> None:
    """Take a dictionary, or more of one, for the columns that are told by it."""
    if len({column.texts for column in columns}) != 1:
        raise _Malformed
    texts = known.setdefault(header.number(0, "<q"), [])
    if not header.number(2, "<B"):  # else it adds to what is known
        texts.clear()
    limit = max(longest[column.name] for column in columns)
    texts += _Body(header.part(1), body, MAX_TEXTS - len(texts), MAX_TEXTS).values(columns[0].texts, "", limit)


def read(data: bytes, longest: Mapping[str, int], most: int) -> dict[str, list[Any]]:
    """The values of a table by column: numbers, texts, booleans and ``None``.

    Args:
        data: an Arrow file, untrusted. Its footer is not read.
        longest: the columns that it must have, and for each how many bytes a text of it may have.
        most: how many rows it may have.

    Raises:
        OutputRefused: it is no such file, has other columns, other types, more rows, or is compressed.
    """
    try:
        return _read(data, longest, most)
    except (_Malformed, struct.error, UnicodeDecodeError):
        refuse("the table is no Arrow file")


def _read(data: bytes, longest: Mapping[str, int], most: int) -> dict[str, list[Any]]:
    columns: list[_Column] | None = None
    found: dict[str, list[Any]] = {name: [] for name in longest}
    dictionaries: dict[int, list[Any]] = {}
    rows = 0
    for kind, header, body in _messages(data):
        if (kind == _SCHEMA) != (columns is None):
            raise _Malformed
        if columns is None:
            columns = _columns(header)
            if sorted(column.name for column in columns) != sorted(longest):
                refuse("the table has other columns than its schema", "schema")
        elif kind == _DICTIONARY:
            _learn(header, body, [c for c in columns if c.dictionary == header.number(0, "<q")], dictionaries, longest)
        elif kind == _RECORDS:
            batch = _Body(header, body, most - rows, most)
            rows += batch.rows
            for column in columns if batch.rows else ():
                values = batch.values(column.kind, column.form, longest[column.name])
                placed = values if column.dictionary is None else _placed(values, dictionaries.get(column.dictionary))
                found[column.name] += placed
        else:
            refuse("the table is of other parts than rows")
    if columns is None:
        raise _Malformed
    return found
