"""Parties: a name with an Ed25519 signing key and an HPKE encryption key, and the card that carries them.

Signing keys are Ed25519 (RFC 8032); small-order and non-canonical public keys are refused. Encryption keys are HPKE
(RFC 9180) with the MLKEM768-X25519 hybrid KEM, because what is encrypted to a party lies on storage that nobody trusts,
for years.

See ``spec/party.md``.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from . import wire
from .errors import BadField, BadKey, BadSignature
from .wire import JSON, Envelope, Fields, Signature

_P = 2**255 - 19
# The y coordinates of the eight points of small order on edwards25519 (0, 1, -1 and the two of order 8).
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)
_ORIGIN = re.compile(r"(?:https?://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,45}\])(?::[1-9][0-9]{0,4})?)?\Z")
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC, _MLKEM_SEED, _X25519 = 1184, 64, 32
_ANY_X25519 = X25519PrivateKey.from_private_bytes(bytes(32))  # a probe; nothing is ever encrypted with it

ENCRYPTION_KEY_BYTES = _MLKEM_PUBLIC + _X25519
ENCRYPTION_OVERHEAD = 1088 + _X25519 + 16  # encapsulated key and GCM tag


@functools.lru_cache(maxsize=4096)
def _require_usable(raw: bytes) -> None:
    """Refuse what is no Ed25519 public key that anybody should use; a few keys come again and again, and are remembered."""
    if len(raw) != 32:
        raise BadKey("an Ed25519 public key is not 32 bytes long")
    y = int.from_bytes(raw, "little") & ~(1 << 255)
    if y >= _P:
        raise BadKey("an Ed25519 public key is not in canonical form")
    if y in _SMALL_ORDER_Y:
        raise BadKey("an Ed25519 public key has small order")
    x_squared = (y * y - 1) * pow(-121665 * pow(121666, -1, _P) * y * y + 1, -1, _P) % _P
    if pow(x_squared, (_P - 1) // 2, _P) not in (0, 1):
        raise BadKey("an Ed25519 public key is not a point on the curve")


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key.

    Args:
        raw: 32 bytes (RFC 8032 section 5.1.5).

    Raises:
        BadKey: wrong length, a non-canonical encoding, a point of small order (which would verify almost any message), or
            not on the curve.
    """

    raw: bytes

    def __post_init__(self) -> None:
        _require_usable(self.raw)

    @property
    def keyid(self) -> str:
        """``sha256:`` and the hex SHA-256 of the raw key."""
        return wire.digest(self.raw)

    def verify_bytes(self, signature: bytes, message: bytes) -> None:
        """Raises BadSignature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise BadSignature("the signature does not verify") from error

    def verify(self, envelope: Envelope, payload_type: str) -> bytes:
        """The payload of an envelope that this key, and no other, signed.

        Args:
            envelope: untrusted.
            payload_type: the media type it must have.

        Raises:
            BadEnvelope: another type.
            BadSignature: not exactly one signature, not by this key, or not valid.
        """
        payload = envelope.expect(payload_type)
        if len(envelope.signatures) != 1 or envelope.signatures[0].keyid != self.keyid:
            raise BadSignature("the envelope is not signed by exactly the expected key")
        self.verify_bytes(envelope.signatures[0].sig, wire.pae(payload_type, payload))
        return payload


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """An Ed25519 private key.

    Args:
        seed: 32 secret bytes (RFC 8032 section 5.1.5).
    """

    seed: bytes

    def __repr__(self) -> str:
        return "SigningKey(…)"

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Raises BadKey when it is not 32 bytes."""
        if len(seed) != 32:
            raise BadKey("a signing key's seed is not 32 bytes long")
        return cls(seed)

    @property
    def public(self) -> VerifyKey:
        return VerifyKey(Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign_bytes(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)

    def sign(self, payload_type: str, payload: bytes) -> Envelope:
        """A DSSE envelope with this key's one signature."""
        return Envelope(payload_type, payload, (self.signature(payload_type, payload),))

    def signature(self, payload_type: str, payload: bytes) -> Signature:
        return Signature(self.public.keyid, self.sign_bytes(wire.pae(payload_type, payload)))


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """An HPKE public key, KEM MLKEM768-X25519.

    Args:
        raw: 1216 bytes: the ML-KEM-768 encapsulation key, then the X25519 public key (draft-ietf-hpke-pq).

    Raises:
        BadKey: not such a key.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != ENCRYPTION_KEY_BYTES:
            raise BadKey(f"an encryption key is not {ENCRYPTION_KEY_BYTES} bytes long")
        self._key()
        try:
            # A point of small order gives everybody the same secret (RFC 7748 section 6.1); found here, not at delivery.
            _ANY_X25519.exchange(X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC:]))
        except ValueError as error:
            raise BadKey("an encryption key's X25519 part has small order") from error

    def _key(self) -> MLKEM768X25519PublicKey:
        try:
            return MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM_PUBLIC]),
                X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC:]),
            )
        except ValueError as error:
            raise BadKey("an encryption key is malformed") from error

    def encrypt(self, plaintext: bytes, *, info: bytes) -> bytes:
        """HPKE single-shot encryption: encapsulated key, then ciphertext and tag.

        Args:
            plaintext: a key or another short secret.
            info: the context it is bound to; decryption needs the same bytes.
        """
        return _SUITE.encrypt(plaintext, self._key(), info=info)


@dataclass(frozen=True, slots=True, repr=False)
class DecryptionKey:
    """An HPKE private key, KEM MLKEM768-X25519.

    Args:
        seed: 96 secret bytes: the ML-KEM-768 seed (64), then the X25519 private key (32).
    """

    seed: bytes

    def __repr__(self) -> str:
        return "DecryptionKey(…)"

    @classmethod
    def from_seed(cls, seed: bytes) -> DecryptionKey:
        """Raises BadKey when it is not 96 bytes."""
        if len(seed) != _MLKEM_SEED + _X25519:
            raise BadKey("a decryption key's seed is not 96 bytes long")
        return cls(seed)

    def _parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        return (
            MLKEM768PrivateKey.from_seed_bytes(self.seed[:_MLKEM_SEED]),
            X25519PrivateKey.from_private_bytes(self.seed[_MLKEM_SEED:]),
        )

    @property
    def public(self) -> EncryptionKey:
        mlkem, x25519 = self._parts()
        return EncryptionKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    def decrypt(self, ciphertext: bytes, *, info: bytes) -> bytes:
        """Raises BadKey when the ciphertext is not for this key and this ``info``."""
        try:
            return _SUITE.decrypt(ciphertext, MLKEM768X25519PrivateKey(*self._parts()), info=info)
        except (InvalidTag, ValueError) as error:
            raise BadKey("the ciphertext is not for this key, or for another purpose") from error


@dataclass(frozen=True, slots=True)
class Party:
    """A party as others see it: its *card*.

    Attributes:
        name: lower case, unique among those that somebody deals with.
        signing_key: signs manifests, proposals, approvals and withdrawals.
        encryption_key: outputs are encrypted to it.
        broker_key: the key by which its broker signs releases and refusals.
        broker_url: where its broker answers, or ``""``; a hint for routing, no part of the fingerprint.
    """

    name: str
    signing_key: VerifyKey
    encryption_key: EncryptionKey
    broker_key: VerifyKey
    broker_url: str = ""

    def __post_init__(self) -> None:
        if self.signing_key == self.broker_key:
            raise BadKey("a party's signing key and its broker's key must differ: one key per role")

    @property
    def fingerprint(self) -> str:
        """The digest of the name and the keys: what two people compare over the telephone."""
        return wire.digest(wire.encode({k: v for k, v in self.to_json().items() if k != "broker_url"}))

    def to_json(self) -> dict[str, JSON]:
        return {
            "broker_key": wire.b64(self.broker_key.raw),
            "broker_url": self.broker_url,
            "encryption_key": wire.b64(self.encryption_key.raw),
            "name": self.name,
            "signing_key": wire.b64(self.signing_key.raw),
        }

    @classmethod
    def from_json(cls, value: object) -> Party:
        """Raises BadField, BadKey."""
        f = Fields(value, "party")
        found = cls(
            name=f.name("name"),
            signing_key=VerifyKey(f.base64("signing_key")),
            encryption_key=EncryptionKey(f.base64("encryption_key")),
            broker_key=VerifyKey(f.base64("broker_key")),
            broker_url=f.text("broker_url", max_chars=256),
        )
        f.end()
        if not _ORIGIN.match(found.broker_url):
            raise BadField("party.broker_url is not http(s)://host or http(s)://host:port")
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Party:
        """Raises WireError and its leaves, BadKey."""
        return cls.from_json(wire.decode(data, max_bytes=16 << 10))


@dataclass(frozen=True, slots=True, repr=False)
class PartyKeys:
    """A party's secret keys. They stay with its client; the broker's own key stays with its broker.

    Attributes:
        name: the party's name.
        signing: signs what the party says.
        decryption: opens outputs delivered to the party.
    """

    name: str
    signing: SigningKey
    decryption: DecryptionKey

    def __repr__(self) -> str:
        return f"PartyKeys({self.name!r}, …)"

    def card(self, broker_key: VerifyKey, broker_url: str = "") -> Party:
        """The party as others see it."""
        return Party(self.name, self.signing.public, self.decryption.public, broker_key, broker_url)
