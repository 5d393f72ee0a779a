"""A guest's key as the key broker protocol of confidential containers carries it: a JSON Web Key (RFC 7517) that a guest
made for itself, and its thumbprint (RFC 7638), which is the guest's identity to a broker.

**Untrusted** until an appraisal has found it bound into evidence. See ``spec/rcar.md``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom import wire
from strongroom.errors import BadField, BadTeeKey
from strongroom.wire import JSON, Fields

ECDH = "ECDH-ES+A256KW"
RSA_OAEP = "RSA-OAEP-256"
CURVES: Mapping[str, ec.EllipticCurve] = MappingProxyType(
    {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
)
RSA_BITS = (2048, 4096)  # from, to
MAX_NUMBER_CHARS = 700  # of 4096 bits in base64url, with room

_PART = re.compile(r"[A-Za-z0-9_-]+\Z")


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """Decode base64url without padding in its one canonical spelling. Raises BadField."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _PART.match(text) else b""
    except binascii.Error as error:
        raise BadField("not base64url") from error
    if not data or b64url(data) != text:
        raise BadField("not canonical base64url")
    return data


@dataclass(frozen=True, slots=True)
class TeeKey:
    """A public key that secrets can be encrypted to.

    Attributes:
        alg: ``ECDH-ES+A256KW`` or ``RSA-OAEP-256``; no other, whatever a guest says.
        members: the JWK's other members, as they were sent: ``kty``, ``crv``, ``x`` and ``y``, or ``kty``, ``n`` and ``e``.
    """

    alg: str
    members: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, JSON]:
        """The JWK as the guest sent it: what its evidence was made over."""
        return {"alg": self.alg, **dict(self.members)}

    @property
    def digest(self) -> str:
        """The guest's identity: ``sha256:`` and its JWK thumbprint in hex (RFC 7638)."""
        return wire.digest(wire.encode(dict(self.members)))

    @property
    def thumbprint(self) -> str:
        """The same in base64url, as JOSE spells it."""
        return b64url(bytes.fromhex(self.digest.removeprefix("sha256:")))

    @classmethod
    def from_json(cls, value: object) -> TeeKey:
        """Read a ``tee-pubkey``: exactly its members, on its curve or of a usable size.

        Raises:
            BadField: a member missing, unknown or of another form; BadTeeKey: a key that is none, or for another algorithm.
        """
        f = Fields(value, "tee-pubkey")
        kind, alg = f.text("kty", max_chars=8), f.text("alg", max_chars=32)
        names = {"EC": ("crv", "x", "y"), "RSA": ("n", "e")}.get(kind)
        if names is None:
            raise BadTeeKey("the guest's key is neither EC nor RSA")
        found = {name: f.text(name, max_chars=MAX_NUMBER_CHARS) for name in names}
        f.end()
        if alg != {"EC": ECDH, "RSA": RSA_OAEP}[kind]:
            raise BadTeeKey(f"the guest's key is for an algorithm that no key is sent by: {alg!r}")
        if kind == "EC":
            _require_point(found)
        else:
            _require_modulus(found)
        return cls(alg, tuple(sorted({"kty": kind, **found}.items())))


def _require_point(found: Mapping[str, str]) -> None:
    curve = CURVES.get(found["crv"])
    if curve is None:
        raise BadTeeKey("the guest's key is on another curve")
    size = (curve.key_size + 7) // 8
    x, y = (unb64url(found[name]) for name in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise BadTeeKey("a coordinate of the guest's key has another length than its curve's")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError as error:
        raise BadTeeKey("the guest's key is no point of its curve") from error


def _require_modulus(found: Mapping[str, str]) -> None:
    raw = unb64url(found["n"])
    n, e = int.from_bytes(raw, "big"), int.from_bytes(unb64url(found["e"]), "big")
    if raw[0] == 0 or not RSA_BITS[0] <= n.bit_length() <= RSA_BITS[1] or n % 2 == 0:
        raise BadTeeKey(f"the guest's RSA key does not have {RSA_BITS[0]} to {RSA_BITS[1]} bits")
    if e != 65537:
        raise BadTeeKey("the guest's RSA key has another exponent than 65537")
    try:
        rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise BadTeeKey("the guest's RSA key is none") from error
