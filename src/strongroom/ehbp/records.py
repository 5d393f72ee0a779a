"""Records: what stands inside the frames of a sealed request or response, so that both sides know where its body ends.

A record is a flag (1 where it is the last), the length of its data, the data, and zeros up to a size that says less about
the data. The first record's data begins with the head.

See ``spec/ehbp.md``.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from strongroom.errors import AfterEnd, BadField, BadPadding, BadRecord, BodyTooLarge, NotEnded, StrongroomError

from .exchange import LENGTH_BYTES, MAX_FRAME_BYTES, FrameReader, Opens, Seals

RECORD_BYTES = 1 + LENGTH_BYTES  # before the data
MAX_HEAD_BYTES = 16 << 10
MAX_RECORD_BYTES = 16 << 20  # padding included
UNPADDED_RECORD_BYTES = 1 << 16

_MORE, _LAST = b"\0", b"\1"
_MIN_BUCKET, _MIN_LARGEST = 64, 32 << 10  # the head must fit into one


_ZEROS = bytes(1 << 16)


def _zeros(record: bytes, start: int) -> bool:
    """Whether there are only zeros from ``start`` on; compared in place, since it may be most of 16 MiB."""
    step = len(_ZEROS)
    return all(record.startswith(_ZEROS[: len(record) - at], at) for at in range(start, len(record), step))


@dataclass(frozen=True, slots=True)
class Padding:
    """The sizes that records may have: each is padded to the smallest that holds it.

    A body that fits into the largest is one record, so that its length shows only as one of these sizes. A stream shows how
    many records it has and when each was sent.

    Args:
        buckets: in bytes of a whole record, ascending, from 64 to 16 MiB; the largest at least 32 KiB.

    Raises:
        BadField: anything else.
    """

    buckets: tuple[int, ...]

    def __post_init__(self) -> None:
        found = list(self.buckets)
        if not found or found != sorted(set(found)) or found[0] < _MIN_BUCKET or found[-1] > MAX_RECORD_BYTES:
            raise BadField(f"padding is not ascending sizes from {_MIN_BUCKET} to {MAX_RECORD_BYTES} bytes")
        if found[-1] < _MIN_LARGEST:
            raise BadField(f"the largest size of padding is below {_MIN_LARGEST} bytes")

    @classmethod
    def powers_of_two(cls, low: int = 1 << 10, high: int = 1 << 20) -> Padding:
        """Every power of two from ``low`` to ``high`` bytes. A longer body shows how often it holds ``high``.

        Raises BadField.
        """
        return cls(tuple(1 << n for n in range(25) if low <= 1 << n <= high))

    def size(self, wanted: int) -> int:
        """The smallest size that holds so many bytes, which are at most the largest."""
        return self.buckets[bisect.bisect_left(self.buckets, wanted)]


class Writer:
    """Turns a head and the pieces of a body into frames. Used by one thread at a time.

    Attributes:
        headers: what the HTTP message must carry.
    """

    def __init__(self, sealer: Seals, head: bytes, padding: Padding | None, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._sealer = sealer
        self._padding = padding
        self._most = (padding.buckets[-1] if padding else UNPADDED_RECORD_BYTES) - RECORD_BYTES
        self._head = len(head).to_bytes(LENGTH_BYTES, "big") + head
        self._ended = False

    def _records(self, data: bytes, flag: bytes) -> Iterator[bytes]:
        if self._ended:
            raise ValueError("the body has its last record already")
        self._ended = flag == _LAST
        head, self._head = self._head, b""
        rest = memoryview(data)
        while True:
            piece, rest = rest[: self._most - len(head)], rest[self._most - len(head) :]
            yield self._record(head, piece, _MORE if rest else flag)
            head = b""
            if not rest:
                return

    def _record(self, head: bytes, piece: memoryview, flag: bytes) -> bytes:
        size = len(head) + len(piece)
        padding = self._padding.size(RECORD_BYTES + size) - RECORD_BYTES - size if self._padding else 0
        return self._sealer.seal(b"".join((flag, size.to_bytes(LENGTH_BYTES, "big"), head, piece, bytes(padding))))

    def _small(self, data: bytes) -> bytes:
        """The one record of a piece in the midst of a body: nearly every one of a stream."""
        size = len(data)
        record = b"\0%b%b" % (size.to_bytes(LENGTH_BYTES, "big"), data)
        if self._padding is not None:
            record = record.ljust(self._padding.size(len(record)), b"\0")
        return self._sealer.seal(record)

    def write(self, data: bytes) -> bytes:
        """The frames of a piece that more follows, to be sent at once.

        Args:
            data: may be empty: such a frame carries the head alone, or nothing and only hides how many there are.

        Raises:
            ValueError: the last piece was written before.
        """
        if not self._head and not self._ended and len(data) <= self._most:
            return self._small(data)
        return b"".join(self._records(data, _MORE))

    def last(self, data: bytes = b"") -> bytes:
        """The frames of the last piece, or of a whole body. Raises ValueError as ``write`` does."""
        return b"".join(self._records(data, _LAST))

    def frames(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The frames of a body that comes in pieces, the last of them marked. Each piece waits for the one after it: what is
        to be seen as it comes is written with ``write``.
        """
        held = b""
        for piece in body:
            if held:
                yield self.write(held)
            held = piece
        yield self.last(held)


class RecordReader:
    """Gives out a body's data as its records arrive, once the head was accepted; refuses one that is not whole.

    Which error comes out depends on the bytes alone and not on how they were cut. After an error it repeats that error.

    Args:
        opener: of this body, which nothing else uses.
        accept: called with the first record's head before anything is given out; it raises what it refuses with.
        max_body: of the data, in bytes.
        max_wire: of all that is received, padding included; ``None`` for twice the data and two of the largest records.
    """

    def __init__(self, opener: Opens, accept: Callable[[bytes], None], *, max_body: int, max_wire: int | None) -> None:
        wire = 2 * (max_body + MAX_FRAME_BYTES) if max_wire is None else max_wire
        self._frames = FrameReader(opener, max_bytes=wire, max_empty=0)
        self._accept: Callable[[bytes], None] | None = accept
        self._left = max_body
        self._last = False
        self._failed: StrongroomError | None = None
        self.whole = False

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; the data of the records that are whole now.

        Nothing of it may be acted on before ``end``, unless a part of a body is as good as the body.

        Raises:
            EhbpError: the leaves for frames, records and heads.
            WireError: the leaves for a head that is not one.
        """
        if self._failed is not None:
            raise self._failed
        try:
            return self._feed(data)
        except StrongroomError as error:
            self._failed = error
            raise

    def _feed(self, data: bytes) -> bytes:
        self._frames.feed(data)
        found = []
        while not self._last and (record := self._frames.next()) is not None:
            found.append(self._read(record))
        if self._last and self._frames.pending:
            raise AfterEnd("the body goes on after its last record")
        return b"".join(found)

    def _read(self, record: bytes) -> bytes:
        size = int.from_bytes(record[1:RECORD_BYTES], "big")
        end = RECORD_BYTES + size
        if record[:1] not in (_MORE, _LAST) or len(record) < end:
            raise BadRecord("a frame holds no record")
        if not _zeros(record, end):
            raise BadPadding("a record's padding is not zeros")
        data = record[RECORD_BYTES:end]
        if self._accept is not None:
            data = self._read_head(data, self._accept)
            self._accept = None
        self._left -= len(data)
        if self._left < 0:
            raise BodyTooLarge("the body has more data than is allowed")
        self._last = record[:1] == _LAST
        return data

    @staticmethod
    def _read_head(data: bytes, accept: Callable[[bytes], None]) -> bytes:
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        if len(data) < end or end > LENGTH_BYTES + MAX_HEAD_BYTES:
            raise BadRecord("the first record does not begin with a head")
        accept(data[LENGTH_BYTES:end])
        return data[end:]

    def end(self) -> None:
        """The body has no more bytes.

        Raises:
            BodyTruncated: it ends inside a frame.
            NotEnded: it ends before its last record.
            StrongroomError: what ``feed`` raised before.
        """
        if self._failed is not None:
            raise self._failed
        if not self._last:
            self._frames.end()
            raise NotEnded("the body ends before its last record")
        self.whole = True
