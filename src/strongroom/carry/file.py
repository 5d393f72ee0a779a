"""The file that is carried: a beginning, the signed carriage in the clear, and the body, which is a sealed file.

    "strongroom-carry", a byte 1, the length of what follows (4 bytes, big-endian), the carriage's envelope, the body

See ``spec/carry.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from strongroom.asset import DEFAULT_CHUNK_BYTES, SALT_BYTES, About, AssetKey, RangeSource, seal
from strongroom.errors import CarriedBadItem, CarriedTruncated, NotCarried, WireError
from strongroom.party import EncryptionKey, SigningKey
from strongroom.policy import Policy
from strongroom.wire import Envelope

from .carriage import CARRIAGE_TYPE, KEY_BYTES, Body, Carriage, Item, Place, binding

MAGIC = b"strongroom-carry"
VERSION = 1
MAX_HEADER_BYTES = 2 << 20
_LENGTH_AT = len(MAGIC) + 1
HEADER_AT = _LENGTH_AT + 4
_OTHER = "Nothing was written. It changed meanwhile, or the exchange is not honest: carry out again."

Pieces = Callable[[], Iterator[bytes]]
"""Opens an item's bytes, a piece at a time."""


class Part:
    """A part of a range source, itself one.

    Args:
        source: the whole.
        at: where the part begins.
        size: its length; what lies behind is not its business.
    """

    def __init__(self, source: RangeSource, at: int, size: int) -> None:
        self._source, self._at, self._size = source, at, max(0, size)

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        return self._source.read_at(self._at + offset, max(0, min(length, self._size - offset)))


@dataclass(frozen=True, slots=True)
class Carried:
    """A carried file, as far as it can be read without a key. **Untrusted**: anybody can write one.

    Attributes:
        envelope: the carriage, signed by whomever.
        carriage: what it says.
        source: the whole file.
        body_at: where the body begins.
    """

    envelope: Envelope
    carriage: Carriage
    source: RangeSource
    body_at: int

    @property
    def size(self) -> int:
        """The file's length, in bytes."""
        return self.source.size

    @property
    def said_size(self) -> int:
        """The length that the carriage says."""
        return self.body_at + self.carriage.layout.sealed_bytes

    @property
    def body(self) -> Part:
        return Part(self.source, self.body_at, self.size - self.body_at)


def read(source: RangeSource) -> Carried:
    """Read a file's beginning: check C1. Nothing of the body is looked at, and nothing is done.

    Args:
        source: the file. Untrusted.

    Raises:
        NotCarried: no carried bundle, one of another version, or a beginning that is damaged.
        CarriedTruncated: it ends within its beginning.
        OSError: from the source.
    """
    start = source.read_at(0, HEADER_AT)
    if start[: len(MAGIC)] != MAGIC[: max(1, len(start))]:
        raise NotCarried("the file does not begin as a carried bundle does")
    if start[len(MAGIC) : _LENGTH_AT] not in (b"", bytes([VERSION])):
        raise NotCarried(f"the bundle has version {start[len(MAGIC)]}, and this Strongroom reads version {VERSION}")
    length = int.from_bytes(start[_LENGTH_AT:], "big")
    if len(start) == HEADER_AT and not 1 <= length <= MAX_HEADER_BYTES:
        raise NotCarried("the bundle's manifest is longer than any")
    header = source.read_at(HEADER_AT, length)
    if len(start) != HEADER_AT or len(header) != length:
        raise CarriedTruncated("the bundle ends within its manifest")
    try:
        envelope = Envelope.parse(header, max_bytes=MAX_HEADER_BYTES)
        carriage = Carriage.parse(envelope.expect(CARRIAGE_TYPE))
    except WireError as error:
        raise NotCarried(f"the bundle's manifest is none: {error}") from error
    return Carried(envelope, carriage, source, HEADER_AT + length)


def begun(envelope: Envelope) -> bytes:
    """A file's beginning: all before the body."""
    header = envelope.encode()
    return MAGIC + bytes([VERSION]) + len(header).to_bytes(4, "big") + header


def write(
    sink: BinaryIO,
    contents: Iterable[tuple[Item, Pieces]],
    *,
    sender: Place,
    recipient: Place,
    number: int,
    follows: int,
    created_at: int,
    signing: SigningKey,
    to: EncryptionKey,
    entropy: Callable[[int], bytes],
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Carriage:
    """Write a carried file. Memory does not grow with it; what was written before an error is the caller's to remove.

    Args:
        sink: a new file, seekable: its beginning is written last, when the body's root is known.
        contents: each item, and its bytes.
        sender, recipient: the two ends.
        number, follows, created_at: as of :class:`Carriage`.
        signing: the sender's key.
        to: the recipient's.
        entropy: n fresh random bytes.
        chunk_bytes: of the body.
        progress: called with the bytes of items done so far.

    Returns:
        what was signed.

    Raises:
        CarriedBadItem: an item's bytes are not of its size and digest.
        BadField, TooLarge, OSError.
    """
    listed = tuple(contents)
    items = tuple(item for item, _ in listed)
    key, salt = AssetKey(entropy(32)), entropy(SALT_BYTES)

    def carriage(root: bytes, encrypted: Callable[[bytes], bytes]) -> Carriage:
        body = Body(chunk_bytes, root, salt, key.commitment(salt))
        sealed_to = encrypted(binding(sender, recipient, number, body))
        return Carriage(sender, recipient, number, follows, created_at, items, body, sealed_to)

    # no member's length depends on the body's bytes, so that the beginning is as long as it will be
    length = len(begun(carriage(bytes(32), lambda _info: bytes(KEY_BYTES)).sign(signing)))
    sink.write(bytes(length))
    about = About("carriage", "carriage", "application/octet-stream", sender.party, created_at, Policy())
    sealed = seal(
        _Joined(listed),
        sink,
        key=key,
        salt=salt,
        about=about,
        chunk_bytes=chunk_bytes,
        progress=progress,
    )
    found = carriage(sealed.sealed.root, lambda info: to.encrypt(key.raw, info=info))
    if found.layout.plaintext_bytes != sealed.plaintext_bytes:
        raise CarriedBadItem("the items are not as long as they were said to be", hint=_OTHER)
    start = begun(found.sign(signing))
    if len(start) != length:
        raise AssertionError("a carriage's length depends on its body")
    sink.seek(0)
    sink.write(start)
    return found


class _Joined:
    """The items' bytes, one after the other; each is of its size and digest, or there is an error."""

    def __init__(self, contents: Iterable[tuple[Item, Pieces]]) -> None:
        self._pieces = self._all(contents)
        self._left = memoryview(b"")

    @staticmethod
    def _all(contents: Iterable[tuple[Item, Pieces]]) -> Iterator[bytes]:
        for item, opened in contents:
            running, size = hashlib.sha256(), 0
            for piece in opened():
                running.update(piece)
                size += len(piece)
                if size > item.size:
                    break
                yield piece
            if (size, "sha256:" + running.hexdigest()) != (item.size, item.digest):
                raise CarriedBadItem(f"the {item.kind} {item.digest} came as other bytes", hint=_OTHER)

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        taken = min(len(buffer), len(self._left))
        buffer[:taken] = self._left[:taken]
        self._left = self._left[taken:]
        return taken
