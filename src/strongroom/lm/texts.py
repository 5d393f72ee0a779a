"""Documents out of files: JSON lines, text and Parquet, read as a stream and from any place again.

    *.jsonl, *.ndjson    {"id": …, "text": …}, one a line; other members are passed over
    *.txt, *.md          one document a file, named by its path
    *.parquet            columns "text" and, where there is one, "id"; one a row

The first two also compressed (.gz, .xz). A folder is all of these in it, in the order of their names.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from strongroom.errors import (
    BadDocument,
    DatastoreError,
    DocumentTooLong,
    EmptyDocument,
    EmptySource,
    MissingExtra,
    NotATextFile,
    NotUtf8,
)

MAX_DOCUMENT: Final = 32 << 20
"""Bytes of a document, and of its line."""
_MAX_ID: Final = 1024
_LINES, _WHOLE, _ROWS = (".jsonl", ".ndjson"), (".txt", ".md"), (".parquet",)
_PACKED: Final = {".gz": gzip.open, ".xz": lzma.open}
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on reading.

    Attributes:
        file: which of the files.
        documents: lines or rows of it that are behind.
        offset: bytes of it that are behind, uncompressed.
    """

    file: int = 0
    documents: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A document, and where to go on behind it."""

    id: str
    text: str
    after: Place


@dataclass(frozen=True, slots=True)
class Passed:
    """What is no document, why, and where to go on behind it."""

    error: DatastoreError
    after: Place


Found: TypeAlias = Document | Passed


@dataclass(frozen=True, slots=True)
class Texts:
    """The files of a source, in order.

    Attributes:
        files: their paths.
        names: how ids and messages call them.
    """

    files: Sequence[Path]
    names: Sequence[str]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Texts:
        """Files, and all that lie in folders. Raises NotATextFile, EmptySource; OSError where one is not there."""
        files: list[Path] = []
        names: list[str] = []
        for path in paths:
            if path.is_dir():
                inside = sorted(one for one in path.rglob("*") if one.is_file() and _kind(one) is not None)
                files += inside
                names += [_name(str(one.relative_to(path))) for one in inside]
            else:
                path.stat()
                if _kind(path) is None:
                    raise NotATextFile(f"{path.name} is of no kind that documents are read from")
                files.append(path)
                names.append(_name(path.name))
        if not files:
            raise EmptySource("there is no file with documents")
        return cls(files, names)

    @property
    def size(self) -> int:
        """Bytes of the files, as they lie on the disk."""
        return sum(path.stat().st_size for path in self.files)

    def state(self) -> list[list[int]]:
        """What the system tells of each file, and a number of its path: changed where it was changed, or is another."""
        found = [(path.stat(), zlib.crc32(os.fsencode(path.resolve()))) for path in self.files]
        return [[one.st_size, one.st_mtime_ns, number] for one, number in found]

    def read(self, place: Place = Place(), end: Place | None = None) -> Iterator[Found]:
        """The documents from a place on, as far as another, of :meth:`places`, or to the last.

        Raises:
            NotATextFile: a file is damaged. MissingExtra: of Parquet without pyarrow.
        """
        for number in range(place.file, len(self.files)):
            begin = place if number == place.file else Place(number)
            kind, packed = _kind(self.files[number]) or ("", "")
            read = self._rows if kind in _ROWS else self._lines if kind in _LINES else self._whole
            for found in read(begin, packed):
                if end is not None and (found.after.file, found.after.documents) > (end.file, end.documents):
                    return
                yield found

    def places(self, pieces: int) -> list[Place]:
        """Where to begin so that the files are read in about so many pieces of one size.

        Files of JSON lines are divided within, others not. What is read of all pieces, one after the other, is what is read
        of the whole.
        """
        each = max(1, -(-self.size // pieces))
        found = [Place()]
        behind = 0  # bytes since the last place
        for number, path in enumerate(self.files):
            if behind >= each:
                found.append(Place(number))
                behind = 0
            kind, packed = _kind(path) or ("", "")
            if kind in _LINES and not packed:
                found += _within(path, number, each - behind, each)
                behind = path.stat().st_size - found[-1].offset if found[-1].file == number else behind + path.stat().st_size
            else:
                behind += path.stat().st_size
        return found

    def _file(self, number: int, packed: str) -> IO[bytes]:
        if packed:
            opened: Any = _PACKED[packed]
            found: IO[bytes] = opened(self.files[number], "rb")
            return found
        return self.files[number].open("rb")

    def _lines(self, place: Place, packed: str) -> Iterator[Found]:
        name = self.names[place.file]
        try:
            with self._file(place.file, packed) as file:
                file.seek(place.offset)
                count, offset = place.documents, place.offset
                while line := file.readline(MAX_DOCUMENT + 1):
                    count, offset = count + 1, offset + len(line)
                    if len(line) > MAX_DOCUMENT:
                        while line and not line.endswith(b"\n"):  # the rest of it, never held as a whole
                            line = file.readline(1 << 20)
                            offset += len(line)
                        error: DatastoreError = DocumentTooLong(f"{name}, line {count}: more than {MAX_DOCUMENT >> 20} MiB")
                        yield Passed(error, Place(place.file, count, offset))
                        continue
                    after = Place(place.file, count, offset)
                    try:
                        yield Document(*_from_json(line, name, count), after)
                    except DatastoreError as error:
                        yield Passed(error, after)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error):
            raise NotATextFile(f"{name} is damaged, or cut short") from None

    def _whole(self, place: Place, packed: str) -> Iterator[Found]:
        name = self.names[place.file]
        if place.documents:
            return
        after = Place(place.file, 1)
        try:
            with self._file(place.file, packed) as file:
                data = file.read(MAX_DOCUMENT + 1)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error):
            raise NotATextFile(f"{name} is damaged, or cut short") from None
        try:
            if len(data) > MAX_DOCUMENT:
                raise DocumentTooLong(f"{name}: more than {MAX_DOCUMENT >> 20} MiB")
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                raise NotUtf8(f"{name} is not UTF-8") from None
            yield Document(_id(name[-_MAX_ID:], "", name), _text(text, name), after)
        except DatastoreError as error:
            yield Passed(error, after)

    def _rows(self, place: Place, _packed: str) -> Iterator[Found]:
        name = self.names[place.file]
        try:
            import pyarrow as pa  # noqa: PLC0415 - loaded when it is used
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError:
            raise MissingExtra("Parquet needs pyarrow", hint="pip install 'strongroom[lm]'") from None
        try:
            with parquet.ParquetFile(self.files[place.file]) as file:
                columns = [column for column in ("id", "text") if column in file.schema_arrow.names]
                if max(map(file.schema_arrow.names.count, ("id", "text"))) > 1:
                    raise NotATextFile(f'{name} has two columns "id" or "text"')
                if "text" not in columns or not _textual(file.schema_arrow.field("text").type):
                    raise NotATextFile(f'{name} has no column "text" with text in it')
                count = 0
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns, use_threads=False):
                    if count + len(batch) <= place.documents:
                        count += len(batch)
                        continue
                    for number in range(len(batch)):
                        count += 1
                        if count > place.documents:
                            yield _from_row(batch.slice(number, 1), name, count, Place(place.file, count))
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError):  # what it says of a damaged page has no number
            raise NotATextFile(f"{name} is no Parquet file, or damaged") from None


def _name(name: str) -> str:
    """How a file is called in ids and messages: a line of text, whatever bytes its name on the disk has."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in readable)


def _within(path: Path, number: int, first: int, each: int) -> list[Place]:
    """The beginnings of the lines after each so many bytes."""
    found = []
    at, lines, wanted = 0, 0, first
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            done = 0
            while at + len(block) >= wanted and (newline := block.find(b"\n", max(done, wanted - at - 1))) >= 0:
                lines += block.count(b"\n", done, newline + 1)
                done = newline + 1
                found.append(Place(number, lines, at + done))
                wanted = at + done + each
            lines += block.count(b"\n", done)
            at += len(block)
    return [place for place in found if place.offset < at]


def _textual(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _from_row(batch: Any, name: str, count: int, after: Place) -> Found:
    where = f"{name}, row {count}"
    try:
        try:
            row = batch.to_pylist()[0]
        except UnicodeDecodeError:
            raise NotUtf8(f"{where}: not UTF-8") from None
        text = row["text"]
        if text is None:
            raise EmptyDocument(f"{where}: the document is empty")
        if len(text) * 4 > MAX_DOCUMENT and len(text.encode("utf-8")) > MAX_DOCUMENT:
            raise DocumentTooLong(f"{where}: more than {MAX_DOCUMENT >> 20} MiB")
        return Document(_id(row.get("id"), f"{name}#{count}", where), _text(text, where), after)
    except DatastoreError as error:
        return Passed(error, after)


def _from_json(line: bytes, name: str, count: int) -> tuple[str, str]:
    where = f"{name}, line {count}"
    try:
        decoded = line.decode("utf-8")
    except UnicodeDecodeError:
        raise NotUtf8(f"{where}: not UTF-8") from None
    if not decoded.strip():
        raise EmptyDocument(f"{where}: the line is empty")
    try:
        value = json.loads(decoded)
    except (ValueError, RecursionError):
        raise BadDocument(f"{where}: not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise BadDocument(f'{where}: no object with a text called "text"')
    return _id(value.get("id"), f"{name}#{count}", where), _text(value["text"], where)


def _id(value: Any, otherwise: str, where: str) -> str:
    found = otherwise if value is None else str(value) if isinstance(value, str | int) else None
    if found is None or isinstance(value, bool) or not found or len(found) > _MAX_ID or not found.isprintable():
        raise BadDocument(f"{where}: the id is no line of 1 to {_MAX_ID} characters")
    return found


def _text(text: str, where: str) -> str:
    if not text.strip():
        raise EmptyDocument(f"{where}: the document is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can write half a character
        raise NotUtf8(f"{where}: half a character stands in the text") from None
    return text


def _kind(path: Path) -> tuple[str, str] | None:
    """A file's suffix, and that of how it is packed, or nothing; ``None`` where no documents are read from such files."""
    packed = path.suffix if path.suffix in _PACKED else ""
    kind = path.with_suffix("").suffix if packed else path.suffix
    if kind in _LINES or kind in _WHOLE or (kind in _ROWS and not packed):
        return kind, packed
    return None
