"""What lies in a carried file, opened and checked to the last byte before anybody acts on a part of it.

See ``spec/carry.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from strongroom.asset import AssetKey, SealedReader
from strongroom.errors import AssetError, BadKey, CarriedAltered, CarriedBadItem, CarriedElsewhere, CarriedTruncated
from strongroom.party import DecryptionKey

from .accept import Signed
from .carriage import Carriage, Item
from .item import PLAIN, Said, limit_of, said

PIECE = 1 << 20
_MAKER = object()


@dataclass(frozen=True, slots=True)
class Found:
    """An item of an opened bundle, and what it says; ``None`` of bytes that nobody here reads: mocks and sealed outputs."""

    item: Item
    said: Said | None


class Contents:
    """The items of a file that passed C9 to C11. Only :func:`open_body` makes one.

    What is read again is checked again: a file that changes meanwhile gives errors, and never other bytes.
    """

    def __init__(self, carriage: Carriage, reader: SealedReader, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only open_body() makes Contents")
        self.carriage, self._reader = carriage, reader
        self.found: tuple[Found, ...] = ()

    def pieces(self, index: int) -> Iterator[bytes]:
        """An item's bytes, a piece at a time. Raises CarriedAltered, OSError."""
        item, at = self.carriage.items[index], self.carriage.offsets[index]
        for offset in range(0, item.size, PIECE):
            with _as_altered():
                piece = self._reader.read_at(at + offset, min(PIECE, item.size - offset))
            yield piece

    def data(self, index: int) -> bytes:
        """A small item, whole. Raises CarriedAltered, OSError."""
        return b"".join(self.pieces(index))

    def _check(self, progress: Callable[[int], None]) -> None:
        """C11. Sizes are bounded before anything is read."""
        for item in self.carriage.items:
            if item.size > limit_of(item.kind):
                raise CarriedBadItem(f"a {item.kind} of {item.size:,} bytes is larger than any")
        found, done = [], 0
        for index, item in enumerate(self.carriage.items):
            running, kept = hashlib.sha256(), []
            for piece in self.pieces(index):
                running.update(piece)
                if item.kind not in PLAIN:
                    kept.append(piece)
                done += len(piece)
                progress(done)
            if "sha256:" + running.hexdigest() != item.digest:
                raise CarriedBadItem(f"the {item.kind} {item.digest} has other bytes than its digest says")
            found.append(Found(item, None if item.kind in PLAIN else said(item.kind, b"".join(kept))))
        self.found = tuple(found)


def open_body(
    signed: Signed, name: str, key: DecryptionKey, *, progress: Callable[[int], None] = lambda _done: None
) -> Contents:
    """Checks C9 to C11: the file is whole, opens with this party's key, and every item is what it says.

    Args:
        signed: the file.
        name: the party that opens it.
        key: its key.
        progress: called with the bytes checked so far.

    Raises:
        CarriedTruncated: it is shorter than its carriage says.
        CarriedElsewhere: it is for another party, or for another key of this one.
        CarriedAltered: longer, or the body is another than was signed.
        CarriedBadItem: an item is larger than its kind may be, has another digest, or is not of its kind.
        OSError: from the source.
    """
    file, carriage = signed.file, signed.carriage
    if file.size < file.said_size:  # C9
        raise CarriedTruncated(f"the bundle has {file.size:,} bytes where its manifest says {file.said_size:,}")
    if file.size > file.said_size:
        raise CarriedAltered(f"the bundle goes on after its end, at byte {file.said_size:,}")
    if carriage.recipient.party != name:
        raise CarriedElsewhere(f"the bundle is for {carriage.recipient}, and you are {name}")
    try:
        opened = AssetKey(key.decrypt(carriage.key, info=carriage.binding))  # C10
    except BadKey as error:
        raise CarriedElsewhere(f"the bundle was encrypted to another key of {carriage.recipient}") from error
    with _as_altered():
        reader = SealedReader(file.body, carriage.manifest, opened)
    found = Contents(carriage, reader, _MAKER)
    found._check(progress)  # noqa: SLF001 - its maker
    return found


@contextmanager
def _as_altered() -> Iterator[None]:
    try:
        yield
    except AssetError as error:
        raise CarriedAltered(f"the bundle's body is not the one that was signed: {error}") from error
