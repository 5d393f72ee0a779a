"""dstack's key management: whether a key was issued to an app by a KMS whose root the verifier pins.

Two secp256k1 signatures over Keccak-256 digests, each 64 bytes (r, s) and the recovery id. The app's key signs the purpose
and the key; the KMS's root signs the app's id and the app's key. Neither key is written down: each is what its signature
recovers to, so that only the last of them, compared with a pinned root, proves anything.

Needs ``coincurve`` (libsecp256k1) and ``pycryptodome`` (Keccak): ``pip install strongroom[dstack]``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from strongroom.errors import BadEvidence, EndorsementMissing, EvidenceForged, UnknownRoot

SIGNATURE_BYTES = 65
COMPRESSED_BYTES = 33
MAX_PURPOSE_CHARS = 128
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # SEC 2, secp256k1: half of n


@dataclass(frozen=True, slots=True)
class Custody:
    """What a service says of where one of its keys comes from. **Untrusted**: :func:`root_of` says who issued it.

    Args:
        role: what the service uses the key for (``receipt``).
        purpose: what the app asked the KMS for it as, 1 to 128 printable ASCII characters.
        public_key: the key that the service publishes, raw, as in its keyset.
        kms_public_key: the secp256k1 key that was issued, compressed, 33 bytes. Where the published key is of another kind,
            that it was derived from the same secret rests on the measured app.
        signatures: the app's over the key, the root's over the app.

    Raises:
        BadEvidence: other lengths.
    """

    role: str
    purpose: str
    public_key: bytes
    kms_public_key: bytes
    signatures: tuple[bytes, bytes]

    def __post_init__(self) -> None:
        if not 1 <= len(self.purpose) <= MAX_PURPOSE_CHARS or not (self.purpose.isascii() and self.purpose.isprintable()):
            raise BadEvidence("a key's purpose is not 1 to 128 printable ASCII characters")
        if len(self.kms_public_key) != COMPRESSED_BYTES or self.kms_public_key[0] not in {2, 3}:
            raise BadEvidence("a key of the KMS's is not a compressed secp256k1 point")
        if any(len(signature) != SIGNATURE_BYTES for signature in self.signatures):
            raise BadEvidence("a signature of the KMS's is not 65 bytes long")

    @property
    def is_the_issued_key(self) -> bool:
        """Whether the published key is the issued one itself: compressed, or whole (SEC 1, section 2.3.3)."""
        if len(self.public_key) == 2 * COMPRESSED_BYTES - 1 and self.public_key[0] == 4:
            return self.kms_public_key == bytes([2 + self.public_key[-1] % 2]) + self.public_key[1:COMPRESSED_BYTES]
        return self.kms_public_key == self.public_key


def _recover(message: bytes, signature: bytes) -> bytes:
    """The compressed key that signed the message's Keccak-256. Raises EvidenceForged, EndorsementMissing."""
    try:
        from coincurve import PublicKey  # noqa: PLC0415 - optional
        from Crypto.Hash import keccak  # noqa: PLC0415 - optional
    except ImportError as error:
        raise EndorsementMissing(
            "the KMS's signatures cannot be checked here", hint="Install the libraries: pip install 'strongroom[dstack]'."
        ) from error
    if not 0 < int.from_bytes(signature[32:64], "big") <= _HALF_ORDER:  # the other half would be a second spelling
        raise EvidenceForged("a signature of the KMS's is not in its one canonical form")
    digest = keccak.new(digest_bits=256, data=message).digest()
    try:
        return PublicKey.from_signature_and_message(signature, digest, hasher=None).format()
    except ValueError as error:
        raise EvidenceForged("a signature of the KMS's is no signature") from error


def root_of(custody: Custody, app_id: bytes, roots: Collection[bytes]) -> bytes:
    """The pinned root that issued a key to an app.

    Args:
        custody: untrusted.
        app_id: the app's, as it was measured; never as the service says.
        roots: compressed secp256k1 keys of KMS roots, 33 bytes each; none means that no key was issued by anybody.

    Returns:
        the root's compressed key.

    Raises:
        EvidenceForged: a signature is none.
        UnknownRoot: the signatures lead to a key that is not pinned, as those of another app, purpose or key do.
        EndorsementMissing: the libraries are not installed.
    """
    app_key = _recover(f"{custody.purpose}:{custody.kms_public_key.hex()}".encode(), custody.signatures[0])
    root = _recover(b"dstack-kms-issued:" + app_id + app_key, custody.signatures[1])
    if root not in roots:
        raise UnknownRoot(f"the key's custody leads to {root.hex()}, which is no pinned root of a KMS")
    return root
