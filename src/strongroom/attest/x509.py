"""Certificates, their paths to a pinned root, and revocation lists, judged at a time that is an argument (RFC 5280).

Parsing and signature algorithms are ``cryptography``'s. The path rules stand here, because a hardware vendor's path is
short, comes in order, ends at a root that the verifier pins by its key, and must be judged at the evidence's own time:
validity, names, signatures, basic constraints, key usage, path length and no critical extension that nobody has looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID

from strongroom import wire
from strongroom.errors import (
    BadCertificate,
    EndorsementExpired,
    EndorsementNotYetValid,
    Revoked,
    UnknownRoot,
    WireError,
)

from .der import outline, require_list_alike

MAX_CERTIFICATE_BYTES = 16 << 10
MAX_CRL_BYTES = 1 << 20
MAX_PATH = 8
RSA_BITS = range(2048, 8193)
RSA_EXPONENTS = range(3, 1 << 32)  # a larger one makes a signature as slow to check as to make
MAX_SHOWN_NAME = 256
_UNREADABLE = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)  # extensions
MAX_REMEMBERED = 64  # certificates, together at most 1 MiB
MAX_REMEMBERED_LISTS = 8  # of at most 1 MiB each

_READ_CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


def _load(der: bytes, number: int) -> x509.Certificate:
    """AMD's VCEKs have serial number 0, which RFC 5280 forbids and the library is about to refuse. It is asked to read a
    copy with number 1; the signature is checked over the original's bytes, and the serial number is taken from those."""
    if der[number - 1 : number + 1] == b"\x01\x00":
        der = der[:number] + b"\x01" + der[number + 1 :]
    try:
        with _no_warnings():
            return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise BadCertificate("not a certificate") from error


@contextmanager
def _no_warnings() -> Iterator[None]:
    """The library warns of what it may refuse one day, and of names with too long parts; neither is for a user to see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _shown(name: x509.Name) -> str:
    """A name as it may stand in a message: whoever made the certificate chose it."""
    text = name.rfc4514_string()
    shown = "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN_NAME])
    return shown + "…" if len(text) > MAX_SHOWN_NAME else shown


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. **Untrusted** until :func:`require_path` has led it to a pinned root.

    Args:
        der: its bytes, at most 16 KiB, exactly one certificate.

    Attributes:
        tbs: the bytes that its issuer signed.
        subject_der, issuer_der: the two names, as they stand there.
        serial: its serial number; 0 is allowed (AMD's VCEKs).
        subject_name, issuer_name: the same, read.
        not_before, not_after: the first and the last second of validity, unix.
        read_extensions: its extensions; ``None`` where they cannot be read. To be asked for by ``extensions()``.
        parsed: what the library read. Its ``serial_number`` is not to be used.

    Raises:
        BadCertificate: it cannot be read.
    """

    der: bytes
    tbs: bytes = field(init=False, repr=False, compare=False)
    subject_der: bytes = field(init=False, repr=False, compare=False)
    issuer_der: bytes = field(init=False, repr=False, compare=False)
    subject_name: x509.Name = field(init=False, repr=False, compare=False)
    issuer_name: x509.Name = field(init=False, repr=False, compare=False)
    not_before: int = field(init=False, compare=False)
    not_after: int = field(init=False, compare=False)
    serial: int = field(init=False, compare=False)
    read_extensions: x509.Extensions | None = field(init=False, repr=False, compare=False, default=None)
    parsed: x509.Certificate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.der) > MAX_CERTIFICATE_BYTES:
            raise BadCertificate(f"a certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")
        try:
            parts = outline(self.der)
        except BadCertificate as error:
            raise BadCertificate(f"not a certificate: {error}") from error
        object.__setattr__(self, "tbs", self.der[parts.tbs])
        object.__setattr__(self, "subject_der", self.der[parts.subject])
        object.__setattr__(self, "issuer_der", self.der[parts.issuer])
        object.__setattr__(self, "serial", int.from_bytes(self.der[parts.serial], "big", signed=True))
        object.__setattr__(self, "parsed", _load(self.der, parts.serial.start))
        try:  # the library reads these when they are asked for
            with _no_warnings():
                object.__setattr__(self, "subject_name", self.parsed.subject)
                object.__setattr__(self, "issuer_name", self.parsed.issuer)
                with suppress(*_UNREADABLE):  # who asks for them is told
                    object.__setattr__(self, "read_extensions", self.parsed.extensions)
            object.__setattr__(self, "not_before", int(self.parsed.not_valid_before_utc.timestamp()))
            object.__setattr__(self, "not_after", int(self.parsed.not_valid_after_utc.timestamp()))
        except (ValueError, TypeError) as error:
            raise BadCertificate("a certificate's names or dates cannot be read") from error

    @property
    def digest(self) -> str:
        """``sha256:`` of the certificate's bytes."""
        return wire.digest(self.der)

    @property
    def key_digest(self) -> str:
        """``sha256:`` of its SubjectPublicKeyInfo: what a policy pins of a root."""
        return wire.digest(self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        """Raises BadCertificate for another kind of key, and for one of RSA of a strange size or a large exponent."""
        try:
            key = self.parsed.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadCertificate("a certificate's key cannot be read") from error
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise BadCertificate("a certificate's key is neither on an elliptic curve nor RSA")
        if isinstance(key, rsa.RSAPublicKey) and key.key_size not in RSA_BITS:
            raise BadCertificate(f"a certificate's RSA key has {key.key_size} bits, which is too weak, or too slow to use")
        if isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e not in RSA_EXPONENTS:
            raise BadCertificate("a certificate's RSA key has an exponent that makes it too slow to use")
        return key

    @property
    def subject(self) -> str:
        """The subject's name for people, on one line."""
        return _shown(self.subject_name)

    @property
    def issuer(self) -> str:
        """The issuer's name for people, on one line."""
        return _shown(self.issuer_name)

    @property
    def common_name(self) -> str:
        """The subject's common name, or ``""``."""
        names = self.subject_name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(names[0].value) if len(names) == 1 else ""

    def extensions(self) -> x509.Extensions:
        """Raises BadCertificate: malformed, or one twice."""
        if self.read_extensions is None:
            raise BadCertificate("a certificate's extensions cannot be read")
        return self.read_extensions

    def extension(self, oid: str) -> bytes | None:
        """The raw contents of an extension that the library does not know, or ``None``. Raises BadCertificate."""
        found = [e.value for e in self.extensions() if e.oid.dotted_string == oid]
        if not found:
            return None
        if not isinstance(found[0], x509.UnrecognizedExtension):
            return bytes(found[0].public_bytes())
        return bytes(found[0].value)

    def names(self, issuer: Certificate) -> bool:
        """Whether it names this issuer; the signature is another question. Names that are spelled alike need no reading."""
        return self.issuer_der == issuer.subject_der or self.issuer_name == issuer.subject_name

    def require_issued_by(self, issuer: Certificate) -> None:
        """Require that the issuer's name and key made this certificate. Raises BadCertificate."""
        if not self.names(issuer):
            raise BadCertificate(f"{self.subject} names another issuer than {issuer.subject}")
        require_certificate_signed(issuer, self)


@lru_cache(maxsize=MAX_REMEMBERED)
def certificate(der: bytes) -> Certificate:
    """``Certificate(der)``, remembered: the few that stand above every machine need not be read each time, nor their keys.

    Raises:
        BadCertificate: it cannot be read; that is not remembered.
    """
    return Certificate(der)


def require_signed(issuer: Certificate, signed: x509.Certificate | x509.CertificateRevocationList, data: bytes) -> None:
    """Require the issuer's signature over ``data``, by the algorithm that the document names. Raises BadCertificate."""
    key = issuer.public_key
    try:
        digest = signed.signature_hash_algorithm
        if digest is None or digest.name not in {"sha256", "sha384", "sha512"}:
            raise BadCertificate(f"{issuer.subject} signed with a weak or unknown digest")
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signed.signature, data, ec.ECDSA(digest))
        else:
            how = signed.signature_algorithm_parameters
            if not isinstance(how, padding.PSS | padding.PKCS1v15):
                raise BadCertificate(f"{issuer.subject} signed by an unknown algorithm")
            key.verify(signed.signature, data, how, digest)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError) as error:
        raise BadCertificate(f"not signed by {issuer.subject}") from error


@lru_cache(maxsize=MAX_REMEMBERED)
def require_certificate_signed(issuer: Certificate, one: Certificate) -> None:
    """``require_signed``; a signature that was good over these bytes by this key is good the next time. Nothing else of a
    certificate is remembered: its times, its use and whether it is revoked are looked at each time."""
    require_signed(issuer, one.parsed, one.tbs)


@lru_cache(maxsize=MAX_REMEMBERED_LISTS)
def require_list_signed(issuer: Certificate, one: RevocationList) -> None:
    """The same of a revocation list."""
    require_signed(issuer, one.parsed, one.parsed.tbs_certlist_bytes)


def from_pem(data: bytes, *, most: int = MAX_PATH) -> tuple[Certificate, ...]:
    """The certificates of a PEM text, in its order; zero bytes after it are ignored (C strings).

    Raises:
        BadCertificate: none, more than ``most``, or one that cannot be read.
    """
    data = data.rstrip(b"\0")
    if len(data) > most * 2 * MAX_CERTIFICATE_BYTES:
        raise BadCertificate("a PEM text is too long")
    try:
        blocks = data.decode("ascii").split("-----BEGIN CERTIFICATE-----")[1:]
        if not 1 <= len(blocks) <= most:
            raise BadCertificate(f"a PEM text holds {len(blocks)} certificates, where 1 to {most} are allowed")
        found = []
        for block in blocks:
            body, end, _ = block.partition("-----END CERTIFICATE-----")
            if not end:
                raise BadCertificate("a PEM text ends early")
            found.append(certificate(wire.unb64("".join(body.split()))))
    except UnicodeDecodeError as error:
        raise BadCertificate("not a PEM text") from error
    except WireError as error:
        raise BadCertificate("not a PEM text") from error
    return tuple(found)


def _require_issuer(certificate: Certificate, below: int) -> None:
    """Require that the certificate may issue others, with ``below`` issuers between it and the leaf."""
    extensions = certificate.extensions()
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise BadCertificate(f"{certificate.subject} is no certificate authority") from None
    if not basic.ca or (basic.path_length is not None and basic.path_length < below):
        raise BadCertificate(f"{certificate.subject} may not issue what it issued")
    usage = _key_usage(certificate)
    if usage is not None and not usage.key_cert_sign:
        raise BadCertificate(f"the key of {certificate.subject} may not sign certificates")


def _key_usage(certificate: Certificate) -> x509.KeyUsage | None:
    """What the certificate lets its key do; ``None`` where it does not say (RFC 5280, 4.2.1.3). Raises BadCertificate."""
    try:
        return certificate.extensions().get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def require_valid(certificate: Certificate, at: int) -> None:
    """Raises EndorsementNotYetValid, EndorsementExpired: not valid at ``at``, unix seconds."""
    if at < certificate.not_before:
        raise EndorsementNotYetValid(f"{certificate.subject} is valid from {certificate.not_before}, after {at}")
    if at > certificate.not_after:
        raise EndorsementExpired(f"{certificate.subject} was valid until {certificate.not_after}, before {at}")


def require_path(
    path: Sequence[Certificate], *, roots: Iterable[str], at: int, critical: Iterable[str] = (), self_signed: bool = True
) -> int:
    """Require that a path leads, link by link, from its first certificate to a pinned root, at a time.

    Args:
        path: leaf first, root last; a root alone is no path.
        roots: ``sha256:`` digests of the pinned roots' SubjectPublicKeyInfo.
        at: the time in question, unix seconds.
        critical: dotted names of further critical extensions that the caller looks at itself.
        self_signed: whether the last one must be its own issuer. Where not, it is pinned by its key, whoever issued it: a
            trust anchor is a name and a key (RFC 5280, section 6.1.1).

    Returns:
        the last second at which every certificate of the path is valid, unix.

    Raises:
        BadCertificate: a link does not hold.
        UnknownRoot: the last certificate is not pinned.
        EndorsementNotYetValid, EndorsementExpired: one is not valid at that time.
    """
    if not 2 <= len(path) <= MAX_PATH:
        raise BadCertificate(f"a path of {len(path)} certificates, where 2 to {MAX_PATH} are allowed")
    root = path[-1]
    if root.key_digest not in frozenset(roots):
        raise UnknownRoot(f"{root.subject} with key {root.key_digest} is not pinned")
    read = {oid.dotted_string for oid in _READ_CRITICAL} | set(critical)
    for place, certificate in enumerate(path):
        issuer = path[min(place + 1, len(path) - 1)]
        if place:
            _require_issuer(certificate, place - 1)
        unread = [e.oid.dotted_string for e in certificate.extensions() if e.critical and e.oid.dotted_string not in read]
        if unread:
            raise BadCertificate(f"{certificate.subject} has a critical extension that is not known here: {unread[0]}")
        if place < len(path) - 1 or self_signed:
            certificate.require_issued_by(issuer)
        require_valid(certificate, at)
    return min(certificate.not_after for certificate in path)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A certificate revocation list. **Untrusted** until :meth:`require_current` has passed.

    Args:
        der: its bytes, at most 1 MiB.

    Attributes:
        issuer_name: whose it says it is.
        this_update, next_update: when it was made, and the last second at which it counts, unix.
        parsed: what the library read.

    Raises:
        BadCertificate: it cannot be read, or does not say until when it counts.
    """

    der: bytes
    issuer_name: x509.Name = field(init=False, repr=False, compare=False)
    this_update: int = field(init=False, compare=False)
    next_update: int = field(init=False, compare=False)
    parsed: x509.CertificateRevocationList = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.der) > MAX_CRL_BYTES:
            raise BadCertificate(f"a revocation list is longer than {MAX_CRL_BYTES} bytes")
        try:
            require_list_alike(self.der)
        except BadCertificate as error:
            raise BadCertificate(f"not a revocation list: {error}") from error
        try:
            parsed = x509.load_der_x509_crl(self.der)
            with _no_warnings():
                object.__setattr__(self, "issuer_name", parsed.issuer)
            following = parsed.next_update_utc
            object.__setattr__(self, "this_update", int(parsed.last_update_utc.timestamp()))
        except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
            raise BadCertificate("not a revocation list") from error
        if following is None:
            raise BadCertificate("a revocation list does not say until when it counts")
        object.__setattr__(self, "next_update", int(following.timestamp()))
        object.__setattr__(self, "parsed", parsed)

    @classmethod
    def from_pem(cls, data: bytes) -> RevocationList:
        """At most 2 MiB of text. Raises BadCertificate."""
        if len(data) > 2 * MAX_CRL_BYTES:
            raise BadCertificate(f"a revocation list in PEM is longer than {2 * MAX_CRL_BYTES} bytes")
        try:
            return cls(x509.load_pem_x509_crl(data).public_bytes(Encoding.DER))
        except (ValueError, x509.InvalidVersion) as error:
            raise BadCertificate("not a revocation list in PEM") from error

    @property
    def digest(self) -> str:
        """``sha256:`` of the list's bytes."""
        return wire.digest(self.der)

    def issued_by(self, issuer: Certificate) -> bool:
        """Whether it names this issuer; its signature is another question."""
        return self.issuer_name == issuer.subject_name

    def require_current(self, issuer: Certificate, at: int) -> int:
        """Require that the issuer signed it and that it counts at ``at``, unix seconds.

        Args:
            issuer: a certificate that a path has led to a pinned root.
            at: the time in question, unix seconds.

        Returns:
            the last second at which it counts, unix.

        Raises:
            BadCertificate: it is another's, or not signed by the issuer.
            EndorsementNotYetValid, EndorsementExpired: it does not count at that time.
        """
        if not self.issued_by(issuer):
            raise BadCertificate(f"a revocation list names another issuer than {issuer.subject}")
        usage = _key_usage(issuer)
        if usage is not None and not usage.crl_sign:
            raise BadCertificate(f"the key of {issuer.subject} may not sign revocation lists")
        require_list_signed(issuer, self)
        try:
            with _no_warnings():
                unread = [e.oid.dotted_string for e in self.parsed.extensions if e.critical]
        except _UNREADABLE as error:
            raise BadCertificate("a revocation list's extensions cannot be read") from error
        if unread:
            raise BadCertificate(f"a revocation list has a critical extension that is not known here: {unread[0]}")
        if at < self.this_update:
            raise EndorsementNotYetValid(f"the revocation list of {issuer.subject} is from {self.this_update}, after {at}")
        if at > self.next_update:
            raise EndorsementExpired(
                f"the revocation list of {issuer.subject} counted until {self.next_update}, before {at}"
            )
        return self.next_update

    def require_not_revoked(self, certificate: Certificate) -> None:
        """Require that the list does not name the certificate's serial number. Raises Revoked, BadCertificate."""
        try:
            listed = self.parsed.get_revoked_certificate_by_serial_number(certificate.serial) is not None
        except ValueError as error:
            raise BadCertificate("a revocation list's entries cannot be read") from error
        if listed:
            raise Revoked(f"{certificate.subject} with serial number {certificate.serial:#x} is revoked")
