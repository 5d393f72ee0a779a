"""The tokens of NVIDIA's Remote Attestation Service and the keys that they name, taken apart. All of it is untrusted.

The form is a detached EAT bundle (RFC 9711, section 4.2.14): a token over all, and the device's own beside it, of which the
first holds the digest. Tokens are JSON Web Tokens in compact form (RFC 7515, RFC 7519). See ``spec/evidence-nvidia.md``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom import wire
from strongroom.errors import BadCertificate, BadEndorsement, BadEvidence, BadField, WireError

from .endorsements import JWK_SET, of_type
from .evidence import Endorsements
from .nvidia_device import Architecture, architecture_of
from .x509 import MAX_PATH, Certificate

PLATFORM = "nras"
MAX_EVIDENCE_BYTES = 64 << 10
MAX_TOKEN_BYTES = 16 << 10
MAX_KEY_SET_BYTES = 1 << 20
MAX_KEY_SETS = 2  # the service's own, and the one before it
MAX_KEYS = 256
MAX_UEID_BYTES = 32

_NAME = re.compile(r"GPU-[0-9]{1,2}\Z")
_PART = re.compile(r"[A-Za-z0-9_-]+\Z")
_NONCE = re.compile(r"[0-9a-fA-F]{64}\Z")
_UEID = re.compile(r"(?:0|[1-9][0-9]{0,76})\Z")
_DRIVER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,3}\Z")
_VBIOS = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}\Z")
_WRAPPED = "REMOTE_GPU_CLAIMS"


@dataclass(frozen=True, slots=True)
class Token:
    """One token. **Untrusted.**

    Attributes:
        text: the compact form.
        header, payload: what its first two parts hold.
    """

    text: bytes
    header: Mapping[str, Any]
    payload: Mapping[str, Any]

    @property
    def issuer(self) -> str:
        return _text(self.payload, "iss")

    @property
    def issued_at(self) -> int:
        """Unix seconds, as are the next two."""
        return _seconds(self.payload, "iat")

    @property
    def not_before(self) -> int:
        return _seconds(self.payload, "nbf")

    @property
    def expires(self) -> int:
        """The first second at which it no longer counts."""
        return _seconds(self.payload, "exp")

    @property
    def nonce(self) -> bytes:
        """32 bytes."""
        found = _text(self.payload, "eat_nonce")
        if not _NONCE.match(found):
            raise BadEvidence("a token's nonce is not 32 bytes in hex")
        return bytes.fromhex(found)


@dataclass(frozen=True, slots=True)
class Claims:
    """An answer of the service about one GPU. **Untrusted**: ``nras.verify`` says whether the service signed it.

    Attributes:
        overall: the token over all.
        name: what the answer calls the device (``GPU-0``).
        device: the token about it.
        wrapped: whether the answer came inside a token of the SDK's own making.

    Raises:
        BadEvidence: a claim that every token has is missing or malformed.
    """

    overall: Token
    name: str
    device: Token
    wrapped: bool

    def __post_init__(self) -> None:
        for token in (self.overall, self.device):
            _ = token.issuer, token.issued_at, token.not_before, token.expires, token.nonce
        _ = self.ueid, self.architecture, self.driver_version, self.vbios_version

    def said(self, name: str) -> Any:
        """A claim about the device; ``None`` where it is not made."""
        return self.device.payload.get(name)

    @property
    def ueid(self) -> int:
        """The device's UEID, a number of up to 32 bytes. Raises BadEvidence."""
        found = _text(self.device.payload, "ueid")
        if not _UEID.match(found) or int(found) >> (8 * MAX_UEID_BYTES):
            raise BadEvidence("a token's ueid is not a number")
        return int(found)

    @property
    def hardware_model(self) -> str:
        return _text(self.device.payload, "hwmodel")

    @property
    def architecture(self) -> Architecture:
        """Raises BadEvidence: a model that is not known here."""
        return architecture_of(self.hardware_model.split(" ")[0])

    @property
    def driver_version(self) -> str:
        return _version(self.device.payload, "x-nvidia-gpu-driver-version", _DRIVER)

    @property
    def vbios_version(self) -> str:
        return _version(self.device.payload, "x-nvidia-gpu-vbios-version", _VBIOS)


def _text(payload: Mapping[str, Any], name: str) -> str:
    found = payload.get(name)
    if not isinstance(found, str) or len(found) > 128 or not (found.isascii() and found.isprintable()):
        raise BadEvidence(f"a token has no {name} that is printable text")
    return found


def _seconds(payload: Mapping[str, Any], name: str) -> int:
    found = payload.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= wire.MAX_INT:
        raise BadEvidence(f"a token has no {name}")
    return found


def _version(payload: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    found = _text(payload, name)
    if not form.match(found):
        raise BadEvidence(f"a token's {name} is none")
    return found


def unb64url(text: str) -> bytes:
    """Decode base64url without padding, in its one canonical spelling (RFC 7515, section 2). Raises BadField."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _PART.match(text) else b""
    except binascii.Error as error:
        raise BadField("not base64url") from error
    if not data or base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != text:
        raise BadField("not canonical base64url")
    return data


def _token(value: object) -> Token:
    if not isinstance(value, str) or len(value) > MAX_TOKEN_BYTES or not value.isascii():
        raise BadEvidence(f"not a token of at most {MAX_TOKEN_BYTES} bytes")
    parts = value.split(".")
    if len(parts) != 3:
        raise BadEvidence("a token does not have three parts")
    try:
        header, payload = (wire.loads(unb64url(part)) for part in parts[:2])
        if parts[2]:  # a token without a signature is one still: its algorithm is looked at before its signature
            unb64url(parts[2])
    except WireError as error:
        raise BadEvidence(f"a token cannot be read: {error}") from error
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise BadEvidence("a token's header or payload is no object")
    return Token(value.encode("ascii"), header, payload)


def _bundle(value: object) -> tuple[object, str, object]:
    """The token over all, and the one name and value beside it."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict) or len(value[1]) != 1:
        raise BadEvidence("not an answer of the service about one device")
    kind, overall = value[0] if isinstance(value[0], list) and len(value[0]) == 2 else (None, None)
    if kind != "JWT":
        raise BadEvidence("not an answer of the service: it does not begin with a token")
    ((name, beside),) = value[1].items()
    return overall, name, beside


def parse(data: bytes) -> Claims:
    """What an answer says, believed by nobody yet.

    Args:
        data: JSON as the service gives it, ``[["JWT", token], {"GPU-0": token}]``, or as NVIDIA's SDK wraps it,
            ``[["JWT", token], {"REMOTE_GPU_CLAIMS": answer}]``; at most 64 KiB, about exactly one GPU.

    Raises:
        BadEvidence: it is not that.
    """
    try:
        overall, name, beside = _bundle(wire.loads(data, max_bytes=MAX_EVIDENCE_BYTES))
    except WireError as error:
        raise BadEvidence(f"not an answer of the service: {error}") from error
    wrapped = name == _WRAPPED
    if wrapped:
        overall, name, beside = _bundle(beside)
    if not _NAME.match(name):
        raise BadEvidence(f"an answer about {name[:40]!r}, which is no GPU")
    return Claims(_token(overall), name, _token(beside), wrapped)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a key set. **Untrusted** until it or a certificate above it is found pinned.

    Attributes:
        public: on P-384.
        path: its certificates, its own first; may be empty.
    """

    public: ec.EllipticCurvePublicKey
    path: tuple[Certificate, ...]

    @property
    def spki(self) -> bytes:
        """Its SubjectPublicKeyInfo."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def keys(endorsements: Endorsements, kid: str) -> tuple[Key, ...]:
    """The keys of this name in the key sets that came along. Raises BadEndorsement."""
    found: list[Key] = []
    sets = dict.fromkeys(document.data for document in of_type(endorsements, JWK_SET))
    if len(sets) > MAX_KEY_SETS:
        raise BadEndorsement(f"more than {MAX_KEY_SETS} key sets")
    for data in sets:
        try:
            value = wire.loads(data, max_bytes=MAX_KEY_SET_BYTES)
        except WireError as error:
            raise BadEndorsement(f"not a key set: {error}") from error
        held = value.get("keys") if isinstance(value, dict) else None
        if not isinstance(held, list) or len(held) > MAX_KEYS or not all(isinstance(key, dict) for key in held):
            raise BadEndorsement(f"not a key set of at most {MAX_KEYS} keys")
        found.extend(_key(key) for key in held if key.get("kid") == kid)
    return tuple(found)


def _key(value: Mapping[str, Any]) -> Key:
    kind = value.get("kty"), value.get("crv"), value.get("use", "sig"), value.get("alg", "ES384")
    path = value.get("x5c", [])
    if kind != ("EC", "P-384", "sig", "ES384") or "d" in value or not isinstance(path, list) or len(path) > MAX_PATH:
        raise BadEndorsement("a key of a key set is not a public key for ES384")
    try:
        point = b"".join(unb64url(str(value.get(name, ""))) for name in ("x", "y"))
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), b"\x04" + point)
        return Key(public, tuple(Certificate(wire.unb64(str(text))) for text in path))
    except (WireError, BadCertificate, ValueError) as error:
        raise BadEndorsement(f"a key of a key set cannot be read: {error}") from error
