"""Where each byte of a sealed file stands, and which keys are derived from the asset's own.

A sealed file is a header of 64 bytes, the chunks, and a trailer with the RFC 6962 leaf hash of every chunk. Chunks are the
STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015) over AES-256-GCM: a nonce is the chunk's index and whether it is the last. Nonces repeat
from file to file, keys do not: each file has its own, derived with a fresh salt and bound to the whole header.

See ``spec/sealed-file.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import BadField, BadKey, HeaderAltered, NotSealed, TooLarge, Truncated
from strongroom.merkle import HASH_BYTES

MAGIC = b"strongroom-seal"
VERSION = 1
SALT_BYTES = 32
HEADER_BYTES = 64
TAG_BYTES = 16

DEFAULT_CHUNK_BYTES = 1 << 20
MIN_CHUNK_BYTES = 64
MAX_CHUNK_BYTES = 4 << 20  # readers and writers hold a few chunks in memory
MAX_CHUNKS = 1 << 20  # a reader holds 32 bytes for each: at most 32 MiB, whatever a manifest says

_VERSION_AT = len(MAGIC)
_CHUNK_BYTES_AT = _VERSION_AT + 1
_SALT_AT = _CHUNK_BYTES_AT + 4
_CHECK_AT = _SALT_AT + SALT_BYTES


@dataclass(frozen=True, slots=True)
class Header:
    """The first 64 bytes of a sealed file.

    Attributes:
        chunk_bytes: plaintext bytes in every chunk but the last.
        salt: 32 bytes, fresh for each file.
    """

    chunk_bytes: int
    salt: bytes

    def encode(self) -> bytes:
        known = MAGIC + bytes([VERSION]) + self.chunk_bytes.to_bytes(4, "big") + self.salt
        return known + _check(known)

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Read the beginning of a file that may be a sealed one.

        Args:
            data: its first 64 bytes, or all of it where it is shorter.

        Raises:
            NotSealed: it does not begin as sealed files do, or as those of a later version.
            Truncated: it ends within the header.
            HeaderAltered: the header's check value does not fit, or its chunk size is out of bounds.
        """
        if data[:_VERSION_AT] != MAGIC:
            raise NotSealed("the file does not begin as a sealed file does")
        if data[_VERSION_AT:_CHUNK_BYTES_AT] not in (b"", bytes([VERSION])):
            raise NotSealed(
                f"the sealed file has version {data[_VERSION_AT]}, and this Strongroom reads version {VERSION}",
                hint="Update Strongroom; if it is new enough, the file was altered: fetch it again.",
            )
        if len(data) != HEADER_BYTES:
            raise Truncated(f"the sealed file ends within its header of {HEADER_BYTES} bytes")
        if data[_CHECK_AT:] != _check(data[:_CHECK_AT]):
            raise HeaderAltered("the sealed file's header does not fit its check value")
        chunk_bytes = int.from_bytes(data[_CHUNK_BYTES_AT:_SALT_AT], "big")
        if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES:
            raise HeaderAltered(f"the sealed file's header says {chunk_bytes} bytes a chunk, which no sealed file has")
        return cls(chunk_bytes, data[_SALT_AT:_CHECK_AT])


def _check(known: bytes) -> bytes:
    # No key, so no protection from somebody who recomputes it: that is the manifest's part, which determines the header.
    # It tells a damaged header from another file's.
    return hashlib.sha256(known).digest()[: HEADER_BYTES - _CHECK_AT]


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes and places that follow from a plaintext's length and the chunk size.

    Attributes:
        plaintext_bytes: the plaintext's length.
        chunk_bytes: plaintext bytes in every chunk but the last, which has 1 to ``chunk_bytes``, or none if the plaintext
            is empty.

    Raises:
        BadField: the chunk size is out of bounds.
        TooLarge: more than ``MAX_CHUNKS`` chunks.
    """

    plaintext_bytes: int
    chunk_bytes: int

    def __post_init__(self) -> None:
        if not MIN_CHUNK_BYTES <= self.chunk_bytes <= MAX_CHUNK_BYTES:
            raise BadField(f"sealed.chunk_bytes is not an integer from {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}")
        if self.chunks > MAX_CHUNKS:
            raise TooLarge(
                f"the plaintext takes more than {MAX_CHUNKS} chunks of {self.chunk_bytes} bytes",
                hint=f"Seal it in larger chunks: up to {MAX_CHUNK_BYTES >> 20} MiB each.",
            )

    @property
    def chunks(self) -> int:
        """How many chunks there are: at least one."""
        return max(1, -(-self.plaintext_bytes // self.chunk_bytes))

    @property
    def trailer_at(self) -> int:
        """The offset of the trailer in the sealed file."""
        return HEADER_BYTES + self.plaintext_bytes + self.chunks * TAG_BYTES

    @property
    def trailer_bytes(self) -> int:
        return self.chunks * HASH_BYTES

    @property
    def sealed_bytes(self) -> int:
        """The length of the sealed file."""
        return self.trailer_at + self.trailer_bytes

    def chunk(self, index: int) -> tuple[int, int]:
        """A chunk's offset in the sealed file and its length there, tag included.

        Args:
            index: from 0, below ``chunks``.
        """
        at = HEADER_BYTES + index * (self.chunk_bytes + TAG_BYTES)
        return at, min(self.chunk_bytes + TAG_BYTES, self.trailer_at - at)

    def nonce(self, index: int) -> bytes:
        """The nonce of a chunk: see :func:`nonce`."""
        return nonce(index, last=index == self.chunks - 1)


def nonce(index: int, *, last: bool) -> bytes:
    """The 12-byte GCM nonce of a chunk: its index as 11 bytes, big-endian, then 1 for the last chunk, else 0."""
    return index.to_bytes(11, "big") + bytes([last])


def split_trailer(trailer: bytes | bytearray) -> Iterator[bytes]:
    """The chunks' leaf hashes, in order."""
    return (bytes(trailer[at : at + HASH_BYTES]) for at in range(0, len(trailer), HASH_BYTES))


@dataclass(frozen=True, slots=True, repr=False)
class AssetKey:
    """The key that opens one asset. **Secret**; an owner's broker keeps it, and nothing writes it beside the sealed file.

    Args:
        raw: 32 secret bytes, uniformly random.

    Raises:
        BadKey: not 32 bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise BadKey(
                "an asset key is not 32 bytes long", hint="Asset keys come from their owner's broker, never by hand."
            )

    def __repr__(self) -> str:
        return "AssetKey(…)"

    def commitment(self, salt: bytes) -> bytes:
        """What a manifest says of its key, 32 bytes: no other key has the same (GCM alone would not exclude one).

        Args:
            salt: the sealed file's salt, 32 bytes.
        """
        return self._derive(salt, b"strongroom key commitment v1")

    def content_salt(self, salt: bytes) -> bytes:
        """The secret that a content commitment is salted with, 32 bytes; showing it opens the commitment, and no chunk.

        Args:
            salt: the sealed file's salt, 32 bytes.
        """
        return self._derive(salt, b"strongroom content commitment v1")

    def file_key(self, header: Header) -> bytes:
        """The AES-256-GCM key of the one sealed file that has this header, 32 bytes."""
        return self._derive(header.salt, b"strongroom sealed file v1" + header.encode())

    def _derive(self, salt: bytes, info: bytes) -> bytes:
        """HKDF-SHA256, RFC 5869."""
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(self.raw)
