"""OCSP responses as endorsements: whether a certificate's issuer has taken it back, by a time that is given (RFC 6960).

A response counts when the certificate's own issuer signed it, or a responder whose certificate that issuer made for nothing
else. Nonces are left alone: a response is fetched once and judged by its dates, like a revocation list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from strongroom import wire
from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEndorsement,
    EndorsementExpired,
    EndorsementNotYetValid,
    Revoked,
)

from .endorsements import OCSP_RESPONSE, of_type
from .evidence import Endorsements
from .x509 import Certificate, require_valid

MAX_OCSP_BYTES = 16 << 10
MAX_RESPONDERS = 4  # certificates beside an answer, which nothing signs
MAX_SIGNATURE_BYTES = 126  # of an elliptic curve; its length is one byte in DER
MAX_ANSWERS = 8  # about one certificate
LASTS_S = 86_400  # how long a response counts that does not say until when
_READ_CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE})
_UNREADABLE = (UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)  # no ValueErrors, these


@dataclass(frozen=True, slots=True)
class Response:
    """One OCSP response about one certificate. **Untrusted** until :meth:`require_authentic` has passed.

    Args:
        der: its bytes, at most 16 KiB, exactly one response.

    Attributes:
        named: the certificate that it is about: serial number, the digests of its issuer's name and key, and which digest.
        status, reason: whether the certificate stands, and why not.
        this_update: when the status was known, unix seconds.
        next_update: the last second at which it counts, unix; a day after it was known where it does not say.
        responders: certificates that came with it.

    Raises:
        BadEndorsement: it cannot be read, is no answer, or is not about exactly one certificate.
    """

    der: bytes
    named: tuple[int, bytes, bytes, hashes.HashAlgorithm] = field(init=False, repr=False, compare=False)
    status: ocsp.OCSPCertStatus = field(init=False, compare=False)
    reason: x509.ReasonFlags | None = field(init=False, compare=False)
    this_update: int = field(init=False, compare=False)
    next_update: int = field(init=False, compare=False)
    responders: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    signed: tuple[bytes, bytes, hashes.HashAlgorithm | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.der) > MAX_OCSP_BYTES:
            raise BadEndorsement(f"an OCSP response is longer than {MAX_OCSP_BYTES} bytes")
        try:
            found = _read(self.der)  # all of it now: the library reads many parts only when they are asked for
        except (ValueError, TypeError, OverflowError, *_UNREADABLE) as error:
            raise BadEndorsement("not an OCSP response") from error
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def digest(self) -> str:
        """``sha256:`` of the response's bytes."""
        return wire.digest(self.der)

    def names(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Whether it is about this certificate of this issuer; its signature is another question."""
        serial, name, key, digest = self.named
        if serial != certificate.serial:
            return False
        # By SHA-1 too: it names a certificate here, and vouches for nothing.
        return (name, key) == (_hash(digest, issuer.parsed.subject.public_bytes()), _hash(digest, _key_bits(issuer)))

    def _signers(self, issuer: Certificate, at: int) -> list[Certificate]:
        """The issuer, and every responder of its own that came along and is valid. Raises BadCertificate and its like."""
        found = [issuer]
        for data in self.responders:
            responder = Certificate(data)
            if responder.parsed.issuer != issuer.parsed.subject or responder.der == issuer.der:
                continue
            responder.require_issued_by(issuer)
            require_valid(responder, at)
            try:
                usage = responder.extensions().get_extension_for_class(x509.ExtendedKeyUsage).value
            except x509.ExtensionNotFound:
                raise BadCertificate(f"{responder.subject} may not answer OCSP requests") from None
            if ExtendedKeyUsageOID.OCSP_SIGNING not in usage:
                raise BadCertificate(f"{responder.subject} may not answer OCSP requests")
            unread = [e.oid.dotted_string for e in responder.extensions() if e.critical and e.oid not in _READ_CRITICAL]
            if unread:
                raise BadCertificate(f"{responder.subject} has a critical extension that is not known here: {unread[0]}")
            found.append(responder)
        return found

    def require_authentic(self, issuer: Certificate, at: int) -> None:
        """Require that the issuer, or a responder of its own, signed it. Raises BadEndorsement."""
        try:
            signers = self._signers(issuer, at)
        except AttestationError as error:
            raise BadEndorsement(f"an OCSP response came with a responder that does not count: {error}") from error
        if not any(self._signed_by(signer) for signer in signers):
            raise BadEndorsement(f"an OCSP response is not signed by {issuer.subject}, nor by a responder of its own")

    def _signed_by(self, signer: Certificate) -> bool:
        key = signer.public_key
        signature, data, digest = self.signed
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(digest, hashes.SHA256 | hashes.SHA384):
            return False
        try:
            key.verify(signature, data, ec.ECDSA(digest))
        except InvalidSignature:
            return False
        return True

    def require_good(self, certificate: Certificate) -> None:
        """Require that the certificate stands. A hold is no standing. Raises Revoked, BadEndorsement."""
        if self.status is ocsp.OCSPCertStatus.REVOKED:
            why = "" if self.reason is None else f": {self.reason.value}"
            raise Revoked(f"{certificate.subject} with serial number {certificate.serial:#x} is revoked{why}")
        if self.status is not ocsp.OCSPCertStatus.GOOD:
            raise BadEndorsement(f"the OCSP responder does not know {certificate.subject}")


def _read(der: bytes) -> dict[str, object]:
    """What a response holds. Raises BadEndorsement, and what the library raises."""
    whole = ocsp.load_der_ocsp_response(der)
    answers = list(whole.responses) if whole.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL else []
    if whole.public_bytes(Encoding.DER) != der or len(answers) != 1:
        raise BadEndorsement("an OCSP response is not exactly one answer about one certificate")
    if any(e.critical for e in (*whole.extensions, *whole.single_extensions)):
        raise BadEndorsement("an OCSP response has a critical extension that is not known here")
    if len(whole.certificates) > MAX_RESPONDERS:
        raise BadEndorsement(f"an OCSP response came with more than {MAX_RESPONDERS} certificates of responders")
    signature = whole.signature
    if len(signature) > MAX_SIGNATURE_BYTES or bytes([0x03, len(signature) + 1, 0]) + signature not in der:
        raise BadEndorsement("an OCSP response is not signed by whole bytes of an elliptic curve's signature")
    (single,) = answers
    until: datetime | None = single.next_update_utc
    known = int(single.this_update_utc.timestamp())
    return {
        "named": (single.serial_number, single.issuer_name_hash, single.issuer_key_hash, single.hash_algorithm),
        "status": single.certificate_status,
        "reason": single.revocation_reason,
        "this_update": known,
        "next_update": known + LASTS_S if until is None else int(until.timestamp()),
        "responders": tuple(certificate.public_bytes(Encoding.DER) for certificate in whole.certificates),
        "signed": (signature, whole.tbs_response_bytes, whole.signature_hash_algorithm),
    }


def _key_bits(issuer: Certificate) -> bytes:
    """What stands in the BIT STRING of the issuer's public key."""
    key = issuer.public_key
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)


def _hash(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def responses(endorsements: Endorsements) -> tuple[Response, ...]:
    """Every OCSP response that came along, distinct, in order. Raises BadEndorsement."""
    return tuple(
        Response(data) for data in dict.fromkeys(document.data for document in of_type(endorsements, OCSP_RESPONSE))
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a path's certificates.

    Attributes:
        unknown: subjects of those of which nothing is said.
        until: the last second at which every answer counts, unix; ``None`` where there is none.
        used: the answers.
    """

    unknown: tuple[str, ...]
    until: int | None
    used: tuple[Response, ...]


def require_standing(pairs: Iterable[tuple[Certificate, Certificate]], answers: Sequence[Response], at: int) -> Standing:
    """Require that no certificate is revoked, by the latest answer about each; those without an answer are listed.

    Args:
        pairs: each certificate and its issuer; a path has led them to a pinned root.
        answers: untrusted.
        at: the time in question, unix seconds.

    Raises:
        BadEndorsement: an answer about one of them is not authentic, or knows nothing.
        EndorsementNotYetValid, EndorsementExpired: the latest answer does not count at that time.
        Revoked: a certificate is revoked, or on hold.
    """
    unknown: list[str] = []
    used: list[Response] = []
    for certificate, issuer in pairs:
        about = sorted((a for a in answers if a.names(certificate, issuer)), key=lambda a: a.this_update)
        if not about:
            unknown.append(certificate.subject)
            continue
        if len(about) > MAX_ANSWERS:
            raise BadEndorsement(f"{len(about)} answers about {certificate.subject}, where at most {MAX_ANSWERS} are read")
        for answer in about:
            answer.require_authentic(issuer, at)
        latest = next((a for a in reversed(about) if a.this_update <= at), None)
        if latest is None:
            raise EndorsementNotYetValid(f"the OCSP response about {certificate.subject} is from after {at}")
        latest.require_good(certificate)
        if at > latest.next_update:
            raise EndorsementExpired(
                f"the OCSP response about {certificate.subject} counted until {latest.next_update}, before {at}"
            )
        used.append(latest)
    return Standing(tuple(unknown), min((a.next_update for a in used), default=None), tuple(used))
