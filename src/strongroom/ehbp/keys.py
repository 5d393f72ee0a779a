"""What both sides of EHBP know before an exchange: the enclave's key and how it is published, two headers, one problem.

See ``spec/ehbp.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from strongroom import wire
from strongroom.errors import (
    BadEncapsulatedKey,
    BadKey,
    BadKeyConfig,
    BadResponseNonce,
    EhbpError,
    UnsupportedSuite,
    WireError,
)

KEYSET_ALGO = "strongroom-ehbp-x25519-hkdf-sha256-aes-256-gcm"  # the key's role in a keyset's `e2ee_public_keys`
KEYS_PATH = "/.well-known/hpke-keys"
KEYS_MEDIA_TYPE = "application/ohttp-keys"
ENCAPSULATED_KEY_HEADER = "Ehbp-Encapsulated-Key"
RESPONSE_NONCE_HEADER = "Ehbp-Response-Nonce"

PROBLEM_STATUS = 422
PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_TYPE = "urn:ietf:params:ehbp:error:key-config"

KEY_BYTES = 32

_KEM = bytes.fromhex("0020")  # X25519 with HKDF-SHA256; these three as in the registries of RFC 9180 section 7
_SUITES = bytes.fromhex("0004" + "0001" + "0002")  # four bytes: HKDF-SHA256 with AES-256-GCM
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_MAX_KEYS_BYTES = _MAX_PROBLEM_BYTES = 4096
_ANY_X25519 = X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))  # a probe; nothing is ever encrypted with it


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The X25519 key to which requests are encrypted. A client takes it from a keyset that it verified, from nowhere else.

    Args:
        raw: 32 bytes (RFC 7748).

    Raises:
        BadKeyConfig: another length, or a point of small order, which gives everybody the same secret.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise BadKeyConfig(f"a key for requests is not {KEY_BYTES} bytes long")
        try:
            _ANY_X25519.exchange(X25519PublicKey.from_public_bytes(self.raw))
        except ValueError as error:
            raise BadKeyConfig("a key for requests has small order") from error

    def config(self) -> bytes:
        """What the well-known address answers: one key configuration (RFC 9458 section 3.1), without a length before it."""
        return b"\0" + _KEM + self.raw + _SUITES

    @classmethod
    def from_config(cls, data: bytes) -> PublicKey:
        """The key of the first configuration; what follows it is ignored, as EHBP has it.

        Args:
            data: untrusted; good for comparing with the key of a verified keyset, and for nothing else.

        Raises:
            BadKeyConfig: not a key configuration, or longer than 4096 bytes.
            UnsupportedSuite: other algorithms than EHBP's one suite, or several.
        """
        if len(data) > _MAX_KEYS_BYTES:
            raise BadKeyConfig(f"a key configuration is longer than {_MAX_KEYS_BYTES} bytes")
        if len(data) < 3:
            raise BadKeyConfig("a key configuration ends before its key")
        if data[1:3] != _KEM:
            raise UnsupportedSuite("the key configuration is for another KEM than X25519 with HKDF-SHA256")
        raw, suites = data[3 : 3 + KEY_BYTES], data[3 + KEY_BYTES :]
        size = int.from_bytes(suites[:2], "big")
        if len(suites) < 2 + size or size == 0 or size % 4:
            raise BadKeyConfig("a key configuration ends before its suites, or has none")
        if suites[: 2 + size] != _SUITES:
            raise UnsupportedSuite("the key configuration does not have HKDF-SHA256 with AES-256-GCM as its only suite")
        return cls(raw)


@dataclass(frozen=True, slots=True, repr=False)
class PrivateKey:
    """The enclave's half of it: made with a keyset, used for nothing else, forgotten with the keyset.

    Args:
        raw: 32 secret random bytes (RFC 7748).

    Raises:
        BadKey: another length.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise BadKey(f"a private key for requests is not {KEY_BYTES} bytes long")

    def __repr__(self) -> str:
        return "PrivateKey(…)"

    @property
    def public(self) -> PublicKey:
        return PublicKey(X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())


# --- headers and the one problem ------------------------------------------------------------------------------------


def _one_hex(values: Sequence[str], header: str, error: type[EhbpError]) -> bytes:
    if len(values) != 1:
        raise error(f"{header} stands {len(values)} times, not once")
    if not _HEX.match(values[0]):
        raise error(f"{header} is not 64 lowercase hex digits")
    return bytes.fromhex(values[0])


def encapsulated_key(values: Sequence[str]) -> bytes:
    """The encapsulated key of a request, 32 bytes.

    Args:
        values: every value of ``Ehbp-Encapsulated-Key`` that the request has.

    Raises:
        BadEncapsulatedKey: not one value of 64 lowercase hex digits.
    """
    return _one_hex(values, ENCAPSULATED_KEY_HEADER, BadEncapsulatedKey)


def response_nonce(values: Sequence[str]) -> bytes:
    """The nonce of a response, 32 bytes.

    Args:
        values: every value of ``Ehbp-Response-Nonce`` that the response has.

    Raises:
        BadResponseNonce: not one value of 64 lowercase hex digits. The response is not encrypted, and nobody's word.
    """
    return _one_hex(values, RESPONSE_NONCE_HEADER, BadResponseNonce)


def problem() -> bytes:
    """The body of the answer 422 to a request for another key (EHBP section 5.4.2)."""
    return json.dumps({"title": "key configuration mismatch", "type": PROBLEM_TYPE}).encode()


def is_problem(status: int, content_type: str, body: bytes) -> bool:
    """Whether an answer says that the key was another. **Untrusted**: a reason to verify attestation again, and no more.

    Args:
        status: of the HTTP answer.
        content_type: its header, with or without parameters.
        body: its body, or the beginning of it.
    """
    if status != PROBLEM_STATUS or content_type.split(";", 1)[0].strip().lower() != PROBLEM_MEDIA_TYPE:
        return False
    try:
        found = wire.loads(body, max_bytes=_MAX_PROBLEM_BYTES)
    except WireError:
        return False
    return isinstance(found, dict) and found.get("type") == PROBLEM_TYPE
