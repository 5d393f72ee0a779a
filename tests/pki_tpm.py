"""A TPM 2.0 of our own: the structures that one signs, under certificates of our own authority. Deterministic.

The RSA key in ``keys/tpm_rsa.pem`` was made for these tests and protects nothing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pki_certificates import Wanted, authority, ec_key, points_at_a_list, revocation_list
from strongroom import wire
from strongroom.attest import tpm, tpm2
from strongroom.attest.endorsements import CERTIFICATE, CRL
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Roots
from strongroom.attest.tpm_key import key_info
from strongroom.attest.x509 import Certificate

AT = 1_790_000_000
DAY = 86_400
REPORT_DATA = hashlib.sha256(b"a keyset and a nonce").digest() + bytes(32)
ROOT, ISSUER, KEY = "TPM root of a test", "TPM issuer of a test", "attestation key of a test"
AIK, EK = "2.23.133.8.3", "2.23.133.8.1"
ENDORSEMENT = bytes.fromhex("4000000b")
GENERATED = 0xFF544347
QUOTE = 0x8018
ATTRIBUTES = 0x0005_0072  # sign, restricted, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM
BANKS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
CURVES = {"secp256r1": 3, "secp384r1": 4, "secp521r1": 5}
HASHES: Mapping[int, hashes.HashAlgorithm] = {0x000B: hashes.SHA256(), 0x000C: hashes.SHA384(), 0x000D: hashes.SHA512()}
_NAMES = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    found = load_pem_private_key((Path(__file__).parent / "keys" / "tpm_rsa.pem").read_bytes(), None)
    assert isinstance(found, rsa.RSAPrivateKey)
    return found


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def register(n: int, bank: str = "sha256") -> bytes:
    return hashlib.new(bank, b"what was measured into %d" % n).digest()


def public(
    key: Any, *, attributes: int = ATTRIBUTES, scheme: int = 0, digest: int = 0x000B, name_digest: int = 0x000B
) -> bytes:
    """A TPMT_PUBLIC of a key that signs; its scheme is the kind's usual one."""
    front = struct.pack(">HI", name_digest, attributes) + sized(b"") + struct.pack(">H", 0x0010)
    public_key = key.public_key()
    if isinstance(public_key, rsa.RSAPublicKey):
        numbers = public_key.public_numbers()
        return (
            struct.pack(">H", 0x0001)
            + front
            + struct.pack(">HHHI", scheme or 0x0014, digest, public_key.key_size, 0)
            + sized(numbers.n.to_bytes(public_key.key_size // 8, "big"))
        )
    size = (public_key.curve.key_size + 7) // 8
    point = public_key.public_numbers()
    return (
        struct.pack(">H", 0x0023)
        + front
        + struct.pack(">HHHH", scheme or 0x0018, digest, CURVES[public_key.curve.name], 0x0010)
        + sized(point.x.to_bytes(size, "big"))
        + sized(point.y.to_bytes(size, "big"))
    )


def sign(key: Any, data: bytes, *, scheme: int = 0, digest: int = 0x000B) -> bytes:
    """A TPMT_SIGNATURE."""
    algorithm = HASHES[digest]
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        how = pss if scheme == 0x0016 else padding.PKCS1v15()
        return struct.pack(">HH", scheme or 0x0014, digest) + sized(key.sign(data, how, algorithm))
    size = (key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(algorithm, deterministic_signing=True)))
    halves = sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
    return struct.pack(">HH", scheme or 0x0018, digest) + halves


@dataclass(frozen=True, kw_only=True)
class Quoting:
    """A TPM that quotes; each case changes one thing.

    Args:
        selected: what the quote says that it covers, where that is not what is presented: pairs of bank and indices.
        pcr_digest, signature: otherwise than the TPM makes them.
    """

    key: Any = field(default_factory=lambda: ec_key(KEY, ec.SECP256R1))
    attributes: int = ATTRIBUTES
    scheme: int = 0
    digest: int = 0x000B
    named_for: int | None = None  # the attributes that the quote's name is made of
    parent: bytes = ENDORSEMENT
    magic: int = GENERATED
    kind: int = QUOTE
    report_data: bytes = REPORT_DATA
    extra_data: bytes | None = None
    clock: int = 123_456_789
    resets: int = 7
    restarts: int = 0
    safe: int = 1
    firmware: int = 0x2019_1023_0000_0001
    bank: str = "sha256"
    pcrs: Mapping[int, bytes] | None = None
    selected: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    quoted: Mapping[int, bytes] | None = None  # what the TPM's registers hold
    pcr_digest: bytes | None = None
    signer: Any = None
    signature: bytes | None = None
    after: bytes = b""

    @property
    def presented(self) -> Mapping[int, bytes]:
        return {n: register(n, self.bank) for n in range(16)} if self.pcrs is None else self.pcrs

    @property
    def described(self) -> bytes:
        return public(self.key, attributes=self.attributes, scheme=self.scheme, digest=self.digest)

    @property
    def qualified_name(self) -> bytes:
        attributes = self.attributes if self.named_for is None else self.named_for
        named = public(self.key, attributes=attributes, scheme=self.scheme, digest=self.digest)
        name = b"\0\x0b" + hashlib.sha256(named).digest()
        return b"\0\x0b" + hashlib.sha256(self.parent + name).digest()

    @property
    def message(self) -> bytes:
        selected = ((self.bank, tuple(sorted(self.presented))),) if self.selected is None else self.selected
        chosen = b"".join(
            struct.pack(">HB", BANKS[bank], 3) + sum(1 << n for n in pcrs).to_bytes(3, "little") for bank, pcrs in selected
        )
        values = self.presented if self.quoted is None else self.quoted
        digest = hashlib.new(_NAMES[self.digest], b"".join(values[n] for n in sorted(values))).digest()
        extra = hashlib.sha256(self.report_data).digest() if self.extra_data is None else self.extra_data
        return (
            struct.pack(">IH", self.magic, self.kind)
            + sized(self.qualified_name)
            + sized(extra)
            + struct.pack(">QIIBQ", self.clock, self.resets, self.restarts, self.safe, self.firmware)
            + struct.pack(">I", len(selected))
            + chosen
            + sized(digest if self.pcr_digest is None else self.pcr_digest)
            + self.after
        )

    @property
    def signed(self) -> bytes:
        if self.signature is not None:
            return self.signature
        return sign(self.signer or self.key, self.message, scheme=self.scheme, digest=self.digest)

    def members(self) -> dict[str, Any]:
        return {
            "bank": self.bank,
            "pcrs": {f"pcr{n}": value.hex() for n, value in self.presented.items()},
            "quote": wire.b64(self.message),
            "signature": wire.b64(self.signed),
        }


def root(name: str = ROOT, **changes: Any) -> Certificate:
    return authority(name, name, AT - 1000 * DAY, AT + 1000 * DAY, **changes)


def issuer(**changes: Any) -> Certificate:
    wanted = {"path_length": 0, "purposes": (EK, AIK), "others": (points_at_a_list(),), **changes}
    return authority(ISSUER, ROOT, AT - 100 * DAY, AT + 100 * DAY, **wanted)


def revoking(
    *certificates: Certificate, by: str = ROOT, made: int = AT - DAY, until: int = AT + DAY, signer: Any = None
) -> bytes:
    return revocation_list(by, tuple(c.serial for c in certificates), made=made, until=until, signer=signer)


@dataclass(frozen=True, kw_only=True)
class World(Quoting):
    """A TPM, its maker and a verifier between whom everything is right; each case changes one thing."""

    bare: bool = False  # the key as others keep it, without the TPM's description
    leaf: Mapping[str, Any] = field(default_factory=dict)  # what is otherwise in the key's certificate
    certificates: tuple[Certificate, ...] | None = None  # all of them, otherwise
    lists: tuple[bytes, ...] = field(default_factory=lambda: (revoking(),))
    changes: Mapping[str, Any] = field(default_factory=dict)  # members of the evidence, otherwise
    data: bytes | None = None
    documents: tuple[Endorsement, ...] = ()
    pinned: str = ROOT
    at: int = AT
    terms: tpm.Terms = field(default_factory=tpm.Terms)

    @property
    def certificate(self) -> Certificate:
        wanted: dict[str, Any] = {
            "subject": KEY, "issuer": ISSUER, "not_before": AT - DAY, "not_after": AT + 30 * DAY, "key": self.key,
            "purposes": (AIK,),
        }  # fmt: skip
        return Wanted(**{**wanted, **self.leaf}).make()

    @property
    def evidence(self) -> Evidence:
        if self.data is not None:
            return Evidence(tpm.PLATFORM, self.data)
        key = {"parent": self.parent.hex(), "public": wire.b64(self.described)}
        if self.bare:
            key = {"spki": wire.b64(key_info(self.key.public_key()))}
        found = {"format": tpm.FORMAT, "key": key, **self.members(), **self.changes}
        return Evidence(tpm.PLATFORM, wire.encode({k: v for k, v in found.items() if v is not None}))

    @property
    def endorsements(self) -> Endorsements:
        chain = (self.certificate, issuer(), root()) if self.certificates is None else self.certificates
        return Endorsements(
            (
                *(Endorsement(CERTIFICATE, certificate.der) for certificate in chain),
                *(Endorsement(CRL, one) for one in self.lists),
                *self.documents,
            )
        )

    @property
    def roots(self) -> Roots:
        return Roots(certificates=(root(self.pinned).key_digest,))


assert tpm2.TPM_GENERATED == GENERATED  # the numbers here are the specification's, written down a second time
