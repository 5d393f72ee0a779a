"""Frames, requests and responses of EHBP, as its other implementations speak them.

A request's body is encrypted by HPKE (RFC 9180, base mode, X25519, HKDF-SHA256, AES-256-GCM) to a key that an enclave's
keyset attests; the response under a key that is exported from the same HPKE context, as in Oblivious HTTP (RFC 9458 section
4.4). Everything here is bytes in, bytes out. An exchange is used by one thread at a time.

See ``spec/ehbp.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from pyhpke import AEADId, CipherSuite, KDFId, KEMId
from pyhpke.exceptions import OpenError

from strongroom.errors import (
    BadEncapsulatedKey,
    BadResponseNonce,
    BodyTooLarge,
    BodyTruncated,
    EhbpError,
    EmptyFrames,
    FrameAltered,
    FrameTooLarge,
    KeyConfigMismatch,
    NoBody,
)

from .keys import PrivateKey, PublicKey

NONCE_BYTES = SEED_BYTES = 32
TAG_BYTES = 16
LENGTH_BYTES = 4
MAX_FRAME_BYTES = (16 << 20) + TAG_BYTES  # of ciphertext; what a reader holds in memory at most
MAX_EMPTY_FRAMES = 1 << 14  # other implementations may send some, and nothing counts them there

_INFO, _EXPORT_LABEL = b"ehbp request", b"ehbp response"
_AEAD_KEY_BYTES, _AEAD_NONCE_BYTES = 32, 12
_SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)


# --- frames ---------------------------------------------------------------------------------------------------------


class Seals(Protocol):
    """What encrypts one body's frames, in order."""

    def seal(self, plaintext: bytes) -> bytes:
        """The next frame: its length, then the ciphertext."""
        ...


class Opens(Protocol):
    """What decrypts one body's frames, in order."""

    def open(self, ciphertext: bytes) -> bytes:
        """The next frame's plaintext. Raises an EhbpError where it is not that frame; it is not asked again then."""
        ...


def _frame(ciphertext: bytes) -> bytes:
    return len(ciphertext).to_bytes(LENGTH_BYTES, "big") + ciphertext


def frames(sealer: Seals, body: Iterable[bytes], *, frame_bytes: int = 1 << 16) -> Iterator[bytes]:
    """A plain EHBP body, piece by piece as it comes: a frame for each piece, or several.

    Args:
        sealer: of this body, which nothing else uses.
        body: its pieces; empty ones are passed over.
        frame_bytes: the most plaintext in a frame.
    """
    for piece in body:
        for start in range(0, len(piece), frame_bytes):
            yield sealer.seal(piece[start : start + frame_bytes])


class FrameReader:
    """Takes a body apart into the plaintexts of its frames, however its bytes arrive.

    What comes out, and which error, depends on the bytes alone and not on how they were cut. It holds one frame and what was
    fed last. After an error it repeats that error and gives out nothing.

    Args:
        opener: of this body, which nothing else uses.
        max_bytes: of the whole body as it is sent, lengths and tags included.
        max_frame: of a frame's ciphertext; a longer one is refused when its length is read.
        max_empty: how many frames without ciphertext are passed over.
    """

    def __init__(
        self, opener: Opens, *, max_bytes: int, max_frame: int = MAX_FRAME_BYTES, max_empty: int = MAX_EMPTY_FRAMES
    ) -> None:
        self._opener = opener
        self._left = max_bytes
        self._max_frame = max_frame
        self._empty_left = max_empty
        self._buffer = bytearray()
        self._failed: EhbpError | None = None

    @property
    def pending(self) -> int:
        """How many bytes were fed and are not taken apart yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Append what arrived. Nothing is looked at before ``next``."""
        if self._failed is None:
            self._buffer += data

    def next(self) -> bytes | None:
        """The next frame's plaintext, or ``None`` where more bytes are needed first.

        Raises:
            FrameAltered, KeyConfigMismatch: the ciphertext is not this frame of this exchange.
            FrameTooLarge, BodyTooLarge, EmptyFrames: over a limit.
        """
        if self._failed is not None:
            raise self._failed
        try:
            return self._next()
        except EhbpError as error:
            self._failed = error
            self._buffer.clear()
            raise

    def _next(self) -> bytes | None:
        buffer = self._buffer
        while len(buffer) >= LENGTH_BYTES:
            size = int.from_bytes(buffer[:LENGTH_BYTES], "big")
            if size > self._max_frame:
                raise FrameTooLarge(f"a frame of {size} bytes, where at most {self._max_frame} are allowed")
            end = LENGTH_BYTES + size
            if end > self._left:
                raise BodyTooLarge("the body is longer than is allowed, frames and padding included")
            if len(buffer) < end:
                return None
            with memoryview(buffer) as view:
                ciphertext = bytes(view[LENGTH_BYTES:end])
            del buffer[:end]
            self._left -= end
            if size:
                return self._opener.open(ciphertext)
            if not self._empty_left:
                raise EmptyFrames("the body has more frames without ciphertext than are passed over")
            self._empty_left -= 1
        return None

    def read(self, data: bytes) -> list[bytes]:
        """Append what arrived; the plaintexts of every frame that is whole now. Raises what ``next`` raises."""
        self.feed(data)
        found = []
        while (plaintext := self.next()) is not None:
            found.append(plaintext)
        return found

    def end(self) -> None:
        """The body has no more bytes. Plain EHBP cannot tell a whole body from one whose last frames were cut off.

        Raises:
            BodyTruncated: it ends inside a frame.
            EhbpError: what ``next`` raised before.
        """
        if self._failed is not None:
            raise self._failed
        if self._buffer:
            raise BodyTruncated("the body ends inside a frame")


# --- the exchange ---------------------------------------------------------------------------------------------------


class _Response:
    """AES-256-GCM with the nonces of RFC 9180 section 5.2, under a key of one response."""

    def __init__(self, secret: bytes, encapsulated: bytes, nonce: bytes) -> None:
        if len(nonce) != NONCE_BYTES:
            raise BadResponseNonce(f"a response nonce is not {NONCE_BYTES} bytes long")
        prk = HKDF.extract(SHA256(), encapsulated + nonce, secret)
        self._aead = AESGCM(HKDFExpand(SHA256(), _AEAD_KEY_BYTES, b"key").derive(prk))
        self._base = int.from_bytes(HKDFExpand(SHA256(), _AEAD_NONCE_BYTES, b"nonce").derive(prk), "big")
        self._count = 0

    def _nonce(self) -> bytes:
        nonce = (self._base ^ self._count).to_bytes(_AEAD_NONCE_BYTES, "big")
        self._count += 1
        return nonce

    def seal(self, plaintext: bytes) -> bytes:
        return _frame(self._aead.encrypt(self._nonce(), plaintext, None))

    def open(self, ciphertext: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(), ciphertext, None)
        except InvalidTag as error:
            raise FrameAltered("a frame is not the next one of the answer to this request") from error


class Sender:
    """A client's half of one exchange.

    Args:
        to: the enclave's key, from a verified keyset.
        seed: 32 secret random bytes, used for this exchange and never again: the same seed makes the same keys.

    Raises:
        ValueError: a seed of another length.
    """

    def __init__(self, to: PublicKey, *, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed is {SEED_BYTES} bytes long")
        self.encapsulated_key, self._context = _SUITE.create_sender_context(
            _SUITE.kem.deserialize_public_key(to.raw), info=_INFO, eks=_SUITE.kem.derive_key_pair(seed)
        )

    def seal(self, plaintext: bytes) -> bytes:
        """The request's next frame: its length, then the ciphertext."""
        return _frame(self._context.seal(plaintext))

    def response(self, nonce: bytes) -> Opens:
        """What decrypts the answer's frames.

        Args:
            nonce: of the answer's header, 32 bytes.

        Raises:
            BadResponseNonce: another length.
        """
        return _Response(self._context.export(_EXPORT_LABEL, _AEAD_KEY_BYTES), self.encapsulated_key, nonce)


class Recipient:
    """An enclave's half of one exchange.

    Args:
        key: the enclave's, of the keyset that it serves under.
        encapsulated: the request's encapsulated key, 32 bytes; untrusted.

    Raises:
        BadEncapsulatedKey: another length, or a point of small order (RFC 9180 section 7.1.4).
    """

    def __init__(self, key: PrivateKey, encapsulated: bytes) -> None:
        try:
            self._context = _SUITE.create_recipient_context(
                encapsulated, _SUITE.kem.deserialize_private_key(key.raw), info=_INFO
            )
        except ValueError as error:
            raise BadEncapsulatedKey("the encapsulated key is not a usable X25519 key") from error
        self.encapsulated_key = encapsulated
        self._opened = False
        self._answered = False

    def open(self, ciphertext: bytes) -> bytes:
        """The plaintext of the request's next frame.

        Raises:
            KeyConfigMismatch: the first frame does not open. It may have been made for another key or changed on the way:
                HPKE cannot tell, and EHBP answers both alike.
            FrameAltered: a later one does not open.
        """
        try:
            plaintext = self._context.open(ciphertext)
        except OpenError as error:
            if not self._opened:
                raise KeyConfigMismatch("the request is not encrypted to this key") from error
            raise FrameAltered("a frame is not the next one of this request") from error
        self._opened = True
        return plaintext

    def respond(self, nonce: bytes) -> Seals:
        """What encrypts the answer's frames, once: two answers under one nonce would give away both.

        Args:
            nonce: 32 fresh random bytes, which go into the answer's header.

        Raises:
            NoBody: no frame of the request was opened. Whoever changed its encapsulated key could read the answer.
            BadResponseNonce: another length.
            ValueError: asked for a second time.
        """
        if not self._opened:
            raise NoBody("nothing of the request was authenticated, so there is nobody to encrypt an answer to")
        if self._answered:
            raise ValueError("an exchange has one answer")
        response = _Response(self._context.export(_EXPORT_LABEL, _AEAD_KEY_BYTES), self.encapsulated_key, nonce)
        self._answered = True
        return response
