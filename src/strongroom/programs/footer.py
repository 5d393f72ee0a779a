"""Parts of a Parquet file: some row groups with some of their columns, as a small Parquet file in memory.

A reader that wants a file as a whole gets one that holds the bytes it needs and no others. Only the file's footer is read
here, and written again with fewer row groups and other places; pages pass as they stand.

Sources: the Parquet format's ``parquet.thrift``, and Thrift's compact protocol.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

MAGIC: Final = b"PAR1"
MAX_BYTES: Final = 8 << 20
"""A footer that is longer takes longer to read here than it saves."""

_MAX_DEPTH: Final = 32
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

# Fields of the structs that are changed, or gone by (parquet.thrift).
_SCHEMA, _ROWS, _GROUPS, _ORDERS, _ENCRYPTION = 2, 3, 4, 7, 8  # FileMetaData
_NAME, _CHILDREN = 4, 5  # SchemaElement
_COLUMNS, _GROUP_ROWS, _GROUP_AT, _GROUP_SIZE = 1, 3, 5, 6  # RowGroup
_PATH, _ABOUT = 1, 3  # ColumnChunk
_PLACE, _SIZE, _DATA_AT, _DICTIONARY_AT = 3, 7, 9, 11  # ColumnMetaData
_GONE: Final = frozenset({10, 14, 15})  # of it: places of an index page, of a Bloom filter

Struct = dict[int, tuple[int, Any]]  # field -> type, value; a list's value is (type of its items, items)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column's bytes in one row group, and what the footer says of it.

    Attributes:
        top: the column, by the name of the whole of it where it is nested.
        start, size: where its pages lie, in bytes.
        said: its entry, as it was read.
    """

    top: str
    start: int
    size: int
    said: Struct


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: how many rows, and its columns."""

    rows: int
    chunks: tuple[Chunk, ...]
    said: Struct

    def of(self, columns: Collection[str]) -> list[Chunk]:
        """The chunks of some columns, as they lie in the file."""
        return sorted((chunk for chunk in self.chunks if chunk.top in columns), key=lambda chunk: chunk.start)


class Footer:
    """What a Parquet file says of itself.

    Args:
        file: seekable.
        size: its length in bytes.

    Raises:
        ValueError: it is no Parquet file, or one that is encrypted, spread over files, or has a footer of more than
            ``MAX_BYTES``.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        if size < 12:
            raise ValueError("too short for a Parquet file")
        file.seek(size - 8)
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or not 0 < length <= min(size - 12, MAX_BYTES):
            raise ValueError("no footer of a Parquet file, or a very long one")
        file.seek(size - 8 - length)
        data = file.read(length)
        self._end = size - 8 - length
        try:
            self._said = _Reader(data).struct()
            if _ENCRYPTION in self._said:
                raise ValueError("the file is encrypted")
            tops = list(_tops(self._said[_SCHEMA][1][1]))
            self.groups = tuple(self._group(said, tops) for said in self._said[_GROUPS][1][1])
        except (KeyError, IndexError, TypeError, struct.error, UnicodeDecodeError) as error:
            raise ValueError("the footer is malformed") from error

    def _group(self, said: Struct, tops: Sequence[str]) -> Group:
        found = []
        columns = said[_COLUMNS][1][1]
        if len(columns) != len(tops):
            raise ValueError("a row group has other columns than the schema")
        for top, column in zip(tops, columns, strict=True):
            about = column[_ABOUT][1]
            start, size = about[_DATA_AT][1], about[_SIZE][1]
            if _DICTIONARY_AT in about and 0 < about[_DICTIONARY_AT][1] < start:
                start = about[_DICTIONARY_AT][1]
            if _PATH in column or not (len(MAGIC) <= start and 0 <= size <= self._end - start):
                raise ValueError("a column lies outside of the file")
            found.append(Chunk(top, start, size, column))
        return Group(said[_GROUP_ROWS][1], tuple(found), said)

    def part(self, groups: Sequence[Group], columns: Collection[str]) -> bytes:
        """The end of a file that holds these groups, with these columns' pages one after the other from its fourth byte on.

        The other columns are told of too, at places where nothing is.
        """
        at, found = len(MAGIC), []
        for group in groups:
            moved = {}
            for chunk in group.of(columns):
                moved[id(chunk)] = at - chunk.start
                at += chunk.size
            entries = [_moved(chunk, moved.get(id(chunk))) for chunk in group.chunks]
            said = {field: value for field, value in group.said.items() if field not in (_GROUP_AT, _GROUP_SIZE)}
            found.append({**said, _COLUMNS: (_LIST, (_STRUCT, entries))})
        whole = {
            **self._said,
            _ROWS: (_I64, sum(group.rows for group in groups)),
            _GROUPS: (_LIST, (_STRUCT, found)),
        }
        written = _Writer()
        written.struct(whole)
        return bytes(written.data) + len(written.data).to_bytes(4, "little") + MAGIC

    def empty(self) -> bytes:
        """A file of the same columns, and of no row."""
        return MAGIC + self.part((), ())


def _moved(chunk: Chunk, by: int | None) -> Struct:
    """A column's entry, for a file in which its pages lie elsewhere; ``None``: nowhere."""
    about = {}
    for field, (kind, value) in chunk.said[_ABOUT][1].items():
        if field in (_DATA_AT, _DICTIONARY_AT):
            about[field] = (kind, len(MAGIC) if by is None else max(0, value + by))
        elif field not in _GONE:
            about[field] = (kind, value)
    return {2: (_I64, 0), _ABOUT: (_STRUCT, about)}


def _tops(elements: Sequence[Struct]) -> Iterator[str]:
    """For each column that has pages the name of the outermost that it is in; the first element is the table itself."""
    place = 1

    def within(top: str, depth: int) -> Iterator[str]:
        nonlocal place
        if depth > _MAX_DEPTH:
            raise ValueError("columns are nested too deep")
        element = elements[place]
        place += 1
        name = top or element[_NAME][1].decode()
        children = element.get(_CHILDREN, (_I32, 0))[1]
        if not children:
            yield name
        for _ in range(children):
            yield from within(name, depth + 1)

    for _ in range(elements[0][_CHILDREN][1]):
        yield from within("", 0)


class _Reader:
    """Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._depth = data, 0, 0

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found
            if shift > 63:
                raise ValueError("a number that is too long")

    def _signed(self) -> int:
        found = self._number()
        return (found >> 1) ^ -(found & 1)

    def struct(self) -> Struct:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        found: Struct = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            kind = head & 0x0F
            found[field] = (_TRUE, kind == _TRUE) if kind in (_TRUE, _FALSE) else (kind, self._value(kind))
        self._depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _BINARY:
            return self._bytes(self._number())
        if kind == _STRUCT:
            return self.struct()
        if kind in (_LIST, _SET):
            head = self._byte()
            count, inner = head >> 4, head & 0x0F
            count = self._number() if count == 15 else count
            if count > len(self._data) - self._at:
                raise ValueError("a list that is longer than the footer")
            return inner, [self._value(inner) for _ in range(count)]
        if kind in (_TRUE, _FALSE, _BYTE):  # in a list each has a byte
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError("a value of an unknown type")

    def _bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise ValueError("the footer breaks off")
        self._at += count
        return found


class _Writer:
    """What ``_Reader`` read."""

    def __init__(self) -> None:
        self.data = bytearray()

    def _number(self, value: int) -> None:
        while value >= 0x80:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def _signed(self, value: int) -> None:
        self._number(value << 1 if value >= 0 else (-value << 1) - 1)

    def struct(self, said: Struct) -> None:
        last = 0
        for field, (kind, value) in sorted(said.items()):
            kind = (_TRUE if value else _FALSE) if kind == _TRUE else kind  # noqa: PLW2901 - the value is in the type
            if 0 < field - last < 16:
                self.data.append((field - last) << 4 | kind)
            else:
                self.data.append(kind)
                self._signed(field)
            last = field
            if kind not in (_TRUE, _FALSE):
                self._value(kind, value)
        self.data.append(0)

    def _value(self, kind: int, value: Any) -> None:
        if kind in (_I16, _I32, _I64):
            self._signed(value)
        elif kind == _BINARY:
            self._number(len(value))
            self.data += value
        elif kind == _STRUCT:
            self.struct(value)
        elif kind in (_LIST, _SET):
            inner, items = value
            self.data.append(min(len(items), 15) << 4 | inner)
            if len(items) >= 15:
                self._number(len(items))
            for item in items:
                self._value(inner, item)
        elif kind == _DOUBLE:
            self.data += value
        else:
            self.data.append(value)


class Memory:
    """A small file in memory, which is filled again and again where it lies: fresh memory costs as much as decrypting."""

    def __init__(self) -> None:
        self._held, self._size = io.BytesIO(), 0

    def fill(self, file: Any, spans: Sequence[tuple[int, int]], tail: bytes) -> bytes:
        """Its beginning, some ranges of another file one after the other, and its end.

        Args:
            file: read from without a buffer.
            spans: start and length of each range.
            tail: of ``Footer.part``.

        Returns:
            the very memory, as long as nobody else holds what was returned before; else a copy of it.

        Raises:
            EOFError: the other file is shorter than it says.
        """
        size = len(MAGIC) + sum(size for _, size in spans) + len(tail)
        if size > self._size:
            self._held, self._size = io.BytesIO(), size
            self._held.write(MAGIC)
        self._held.seek(self._size - len(tail))  # what lies between is read by nobody
        self._held.write(tail)
        gather = getattr(file, "gather", None)
        with self._held.getbuffer() as view:
            at = len(MAGIC)
            if gather is not None:  # one question for all of them
                gather(spans, view[at : size - len(tail)])
                spans = ()
            for start, length in spans:
                file.seek(start)
                end = at + length
                while at < end:
                    count = file.readinto(view[at:end])
                    if not count:
                        raise EOFError("the input is shorter than it is said to be")
                    at += count
        return self._held.getvalue()
