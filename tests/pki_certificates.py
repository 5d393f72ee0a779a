"""Certificates and revocation lists of test authorities: fixed keys, deterministic signatures, any field to be spoiled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.attest.x509 import Certificate

_ORDER_BELOW = 2**250  # under the order of every curve used here
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
    "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@cache
def ec_key(name: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    """The private key of a name."""
    scalar = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % _ORDER_BELOW
    return ec.derive_private_key(scalar, curve())


def when(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A certificate to be made.

    Args:
        subject, issuer: common names.
        key: whose public half is certified; of the subject's name where ``None``.
        signer: whose private half signs; of the issuer's name where ``None``.
        ca: whether it says that it may issue others; ``None`` leaves the extension out.
        usages: names of key usages; ``None`` leaves the extension out.
        purposes: dotted names of extended key usages; none leaves the extension out.
        others: further extensions, each with whether it is critical.
        serial: its number; of the two names where 0.
    """

    subject: str
    issuer: str
    not_before: int
    not_after: int
    key: Any = None
    signer: Any = None
    ca: bool | None = False
    path_length: int | None = None
    usages: tuple[str, ...] | None = ("digital_signature",)
    purposes: tuple[str, ...] = ()
    others: tuple[tuple[x509.ExtensionType, bool], ...] = field(default=())
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    serial: int = 0

    def make(self) -> Certificate:
        key = self.key or ec_key(self.subject)
        serial = int.from_bytes(hashlib.sha256(f"{self.subject} of {self.issuer}".encode()).digest()[:8], "big") >> 1
        serial = self.serial or serial
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(self.subject))
            .issuer_name(named(self.issuer))
            .public_key(key.public_key() if hasattr(key, "public_key") else key)
            .serial_number(serial)
            .not_valid_before(when(self.not_before))
            .not_valid_after(when(self.not_after))
        )
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, self.path_length), critical=True)
        if self.usages is not None:
            flags = {usage: usage in self.usages for usage in _USAGES}
            builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
        if self.purposes:
            purposes = [x509.ObjectIdentifier(purpose) for purpose in self.purposes]
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for extension, critical in self.others:
            builder = builder.add_extension(extension, critical=critical)
        signer = self.signer or ec_key(self.issuer)
        deterministic = True if isinstance(signer, ec.EllipticCurvePrivateKey) else None
        made = builder.sign(signer, self.digest, ecdsa_deterministic=deterministic)
        return Certificate(made.public_bytes(Encoding.DER))


def authority(name: str, issuer: str, not_before: int, not_after: int, **changes: Any) -> Certificate:
    """A certificate that may issue others."""
    wanted = {"ca": True, "usages": ("key_cert_sign", "crl_sign"), **changes}
    return Wanted(subject=name, issuer=issuer, not_before=not_before, not_after=not_after, **wanted).make()


def points_at_a_list(address: str = "https://lists.example/list.crl") -> tuple[x509.ExtensionType, bool]:
    """The extension that says where a certificate's revocation list lies."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(address)], None, None, None)
    return x509.CRLDistributionPoints([point]), False


def revocation_list(issuer: str, serials: tuple[int, ...], *, made: int, until: int, signer: Any = None) -> bytes:
    """A revocation list, DER."""
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(named(issuer)).last_update(when(made)).next_update(when(until))
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when(made)).build()
        builder = builder.add_revoked_certificate(entry)
    key = signer or ec_key(issuer)
    return builder.sign(key, hashes.SHA384(), ecdsa_deterministic=True).public_bytes(Encoding.DER)
