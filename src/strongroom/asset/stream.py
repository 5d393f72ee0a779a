"""What sealed files and plaintexts are read from and written to, and how two threads share the work."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterator
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called with the number of plaintext bytes done so far, after each chunk."""


class RangeSource(Protocol):
    """Bytes of which any range can be had. **Untrusted**: what it answers is checked, each time."""

    @property
    def size(self) -> int:
        """The length of the whole, in bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset`` on, ``length`` of them; fewer only where the whole ends.

        Raises:
            OSError: they could not be had.
        """
        ...


class BytesSource:
    """A range source over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class FileSource:
    """A range source over a file. Usable from several threads, and as a context manager that closes the file.

    Args:
        file: a path, or a seekable binary file that nobody else reads meanwhile.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        self._file: BinaryIO | io.FileIO = io.FileIO(file) if isinstance(file, str | os.PathLike) else file
        self._lock = Lock()  # seek and read are one step; os.pread would need none, but Windows has no os.pread
        self._size = self._file.seek(0, os.SEEK_END)

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        with self._lock:
            self._file.seek(offset)
            while length and (piece := self._file.read(length)):
                pieces.append(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """As ``read_at``, into memory that is there already. Returns how many bytes; fewer only where the file ends."""
        with self._lock:
            self._file.seek(offset)
            return len(fill(self._file, buffer))  # type: ignore[arg-type]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Readable(Protocol):
    """What ``seal`` reads from: a blocking binary file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill some of the buffer; how many bytes, 0 at the end."""
        ...


class Writable(Protocol):
    """What is written to: a blocking binary file."""

    def write(self, data: memoryview, /) -> int | None:
        """Take some of the data; how many bytes."""
        ...


def fill(source: Readable, buffer: memoryview) -> memoryview:
    """As much of the buffer as the source still fills."""
    filled = 0
    while filled < len(buffer):
        got = source.readinto(buffer[filled:])
        if got is None:
            raise BlockingIOError("the source is not a blocking file")
        if not got:
            break
        filled += got
    return buffer[:filled]


def write_all(sink: Writable, data: memoryview) -> None:
    """All of the data; raw files may take less at a time."""
    while data:
        taken = sink.write(data)
        if not taken:
            raise BlockingIOError("the sink took nothing; it is not a blocking file")
        data = data[taken:]


def ahead(items: Iterator[T], threads: int) -> Generator[T, None, None]:
    """The items; with two threads, each made by the second one while the taker works on the one before.

    At most one item is made ahead of the one that the taker holds.
    """
    if threads not in (1, 2):
        raise ValueError("threads is 1 or 2")
    if threads == 1:
        yield from items
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 5 ms that who only verifies does not pay

    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item
