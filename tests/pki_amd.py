"""A stand-in for AMD: reports, certificates and revocation lists of the same layout, under roots of our own.

Everything is deterministic: RSA keys are kept in ``keys/``, the keys that sign reports are derived from their names, ECDSA
is RFC 6979, RSA-PSS has no salt (AMD's has one of 48 bytes), times are fixed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from strongroom.attest.endorsements import CERTIFICATE, CRL
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Roots
from strongroom.attest.snp import PLATFORM, SnpVerified, verify
from strongroom.attest.snp_report import NO_MIGRATION_AGENT, POLICY_BITS, SIGNED_BYTES, Claims, Firmware, Tcb
from strongroom.attest.snp_terms import Terms
from strongroom.attest.x509 import Certificate
from strongroom.transcript import Transcript

AT = 1_790_000_000  # 2026-09-21, the time in question
DAY = 86_400
KEYS = Path(__file__).parent / "keys"
ARK, ASK, ASVK, STRANGER = "amd_ark", "amd_ask", "amd_asvk", "amd_stranger"
LINES = ("milan", "genoa", "turin")
PRODUCT = {"milan": "Milan-B0", "genoa": "Genoa", "turin": "Turin-C1"}
CPUID = {"milan": bytes((0x19, 0x01, 1)), "genoa": bytes((0x19, 0x11, 1)), "turin": bytes((0x1A, 0x02, 1))}
TCB = {"milan": Tcb(4, 0, 27, 222), "genoa": Tcb(10, 0, 27, 86), "turin": Tcb(1, 2, 4, 81, fmc=3)}
CHIP = {line: hashlib.sha512(line.encode()).digest()[: 8 if line == "turin" else 64] for line in LINES}
PROVIDER = "CN=cc-example-1.provider.example"
ALGORITHM = padding.PSS(padding.MGF1(hashes.SHA384()), 0)
TERMS = Terms(minimum_tcb=TCB)
STAND_IN = 0x4D  # for serial number 0, which the library does not make
AMD = "1.3.6.1.4.1.3704.1."


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    found = load_pem_private_key((KEYS / f"{name}.pem").read_bytes(), None)
    assert isinstance(found, rsa.RSAPrivateKey)
    return found


@cache
def key(name: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    """The private key of this name."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") >> 1, curve())


def when(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def name(common: str) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, "Not Advanced Micro Devices"), (NameOID.COMMON_NAME, common)]
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def usage(*, certificates: bool = True, lists: bool = False) -> x509.KeyUsage:
    none = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(key_cert_sign=certificates, crl_sign=lists, **none)


@cache
def authority(
    common: str,
    by: str,
    *,
    key_of: str,
    key_by: str,
    serial: int,
    before: int = AT - 400 * DAY,
    after: int = AT + 400 * DAY,
    ca: bool = True,
    path_length: int | None = None,
    may: x509.KeyUsage | None = None,
) -> bytes:
    """The certificate of an ARK, ASK or ASVK in DER."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(name(by))
        .public_key(rsa_key(key_of).public_key())
        .serial_number(serial)
        .not_valid_before(when(before))
        .not_valid_after(when(after))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(may or usage(lists=common.startswith("ARK")), critical=True)
    )
    return builder.sign(rsa_key(key_by), hashes.SHA384(), rsa_padding=ALGORITHM).public_bytes(Encoding.DER)


def ark(line: str, **changes: Any) -> bytes:
    common = f"ARK-{line.title()}"
    return authority(common, changes.pop("by", common), **{"key_of": ARK, "key_by": ARK, "serial": 0x10000, **changes})


def issuer(line: str, kind: str = "vcek", **changes: Any) -> bytes:
    """An ASK, or an ASVK."""
    vlek = kind == "vlek"
    common = changes.pop("common", f"SEV-{'VLEK-' if vlek else ''}{line.title()}")
    mine = {"key_of": ASVK if vlek else ASK, "key_by": ARK, "serial": 0x10101 if vlek else 0x10001, "path_length": 0}
    return authority(common, changes.pop("by", f"ARK-{line.title()}"), **{**mine, **changes})


def number(value: int) -> bytes:
    """A number from 0 to 255 in DER."""
    return b"\x02\x02\x00" + bytes((value,)) if value > 0x7F else b"\x02\x01" + bytes((value,))


def text(value: str) -> bytes:
    """An IA5String in DER."""
    return b"\x16" + bytes((len(value),)) + value.encode()


def extensions(line: str, kind: str, tcb: Tcb) -> dict[str, bytes]:
    """AMD's extensions, by the end of their names."""
    found = {
        "1": number(int(line == "turin")),
        "2": text(PRODUCT[line] if kind == "vcek" else line.title()),
        "3.1": number(tcb.bootloader),
        "3.2": number(tcb.tee),
        "3.3": number(tcb.snp),
        "3.4": number(0),
        "3.8": number(tcb.microcode),
    }
    if tcb.fmc is not None:
        found["3.9"] = number(tcb.fmc)
    return {**found, **({"4": CHIP[line]} if kind == "vcek" else {"5": text(PROVIDER)})}


@cache
def leaf(
    line: str,
    kind: str = "vcek",
    *,
    common: str = "",
    by: str = "",
    key_of: str = "leaf",
    curve: type[ec.EllipticCurve] = ec.SECP384R1,
    key_by: str = "",
    tcb: Tcb | None = None,
    before: int = AT - 40 * DAY,
    after: int = AT + 40 * DAY,
    serial: int = 0,
    changed: tuple[tuple[str, bytes | None], ...] = (),
    critical: bool = False,
) -> bytes:
    """The certificate of a VCEK or VLEK in DER. ``changed`` replaces AMD's extensions, or leaves them out."""
    own = {**extensions(line, kind, tcb or TCB[line]), **dict(changed)}
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common or f"SEV-{kind.upper()}"))
        .issuer_name(name(by or f"SEV-{'VLEK-' if kind == 'vlek' else ''}{line.title()}"))
        .public_key(key(key_of, curve).public_key())
        .serial_number(serial or 1)
        .not_valid_before(when(before))
        .not_valid_after(when(after))
    )
    for end, value in own.items():
        if value is not None:
            oid = x509.ObjectIdentifier(AMD + end)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=critical)
    signer = rsa_key(key_by or (ASVK if kind == "vlek" else ASK))
    made = Certificate(builder.sign(signer, hashes.SHA384(), rsa_padding=ALGORITHM).public_bytes(Encoding.DER))
    return made.der if serial else with_serial_0(made, signer)


def with_serial_0(made: Certificate, signer: rsa.RSAPrivateKey) -> bytes:
    """The same certificate with serial number 0, which the library does not make: a byte is changed, and signed anew."""
    version = b"\xa0\x03\x02\x01\x02"
    return resigned(made.der, made.tbs, version + b"\x02\x01\x01", version + b"\x02\x01\x00", signer)


def resigned(der: bytes, tbs: bytes, old: bytes, new: bytes, signer: rsa.RSAPrivateKey) -> bytes:
    """A certificate or revocation list in which these bytes, found once and as many, stand in place of others."""
    assert tbs.count(old) == 1
    assert len(old) == len(new)
    changed = tbs.replace(old, new)
    signature = signer.sign(changed, ALGORITHM, hashes.SHA384())
    return der.replace(tbs, changed)[: -len(signature)] + signature


@cache
def crl(
    line: str,
    revoked: tuple[int, ...] = (),
    *,
    by: str = "",
    key_by: str = ARK,
    before: int = AT - 40 * DAY,
    after: int = AT + 20 * DAY,
    critical: bool = False,
) -> bytes:
    """A revocation list in DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name(by or f"ARK-{line.title()}"))
        .last_update(when(before))
        .next_update(when(after))
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    if critical:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    for serial in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(serial or STAND_IN).revocation_date(when(before)).build()
        builder = builder.add_revoked_certificate(one)
    made = builder.sign(rsa_key(key_by), hashes.SHA384(), rsa_padding=ALGORITHM)
    der = made.public_bytes(Encoding.DER)
    if 0 not in revoked:
        return der
    date = b"\x17\x0d"  # what follows the number is a time of 13 characters
    entry = bytes((2, 1, STAND_IN)) + date
    return resigned(der, made.tbs_certlist_bytes, entry, b"\x02\x01\x00" + date, rsa_key(key_by))


def policy(*bits: str) -> int:
    """A guest's policy with these bits."""
    return 1 << 17 | sum(1 << POLICY_BITS[bit] for bit in bits)


def claims(line: str = "genoa", kind: str = "vcek", **changes: Any) -> Claims:
    """A report that meets ``TERMS``, unsigned."""
    tcb = TCB[line].encode()
    made = Claims(
        version=5,
        guest_svn=2,
        policy=policy(),
        family_id=bytes(16),
        image_id=bytes(16),
        vmpl=0,
        signature_algorithm=1,
        current_tcb=tcb,
        platform_info=0x24,
        key_info=4 if kind == "vlek" else 0,
        report_data=hashlib.sha512(b"report data").digest(),
        measurement=hashlib.sha384(b"measurement").digest(),
        host_data=hashlib.sha256(b"host data").digest(),
        id_key_digest=bytes(48),
        author_key_digest=bytes(48),
        report_id=hashlib.sha256(b"report").digest(),
        report_id_ma=NO_MIGRATION_AGENT,
        reported_tcb=tcb,
        cpuid=CPUID[line],
        chip_id=(CHIP[line] if kind == "vcek" else b"").ljust(64, b"\0"),
        committed_tcb=tcb,
        current=Firmware(1, 58, 3),
        committed=Firmware(1, 58, 3),
        launch_tcb=tcb,
        launch_mitigations=0b111,
        current_mitigations=0b1111,
        r=0,
        s=0,
    )
    return replace(made, **changes)


def signed(made: Claims, *, key_of: str = "leaf", curve: type[ec.EllipticCurve] = ec.SECP384R1) -> bytes:
    """The report, signed by the key of this name."""
    data = made.encode()[:SIGNED_BYTES]
    r, s = decode_dss_signature(key(key_of, curve).sign(data, ec.ECDSA(hashes.SHA384(), deterministic_signing=True)))
    return replace(made, r=r, s=s).encode()


def documents(line: str = "genoa", kind: str = "vcek", **changes: bytes | None) -> tuple[Endorsement, ...]:
    """What vouches for a report's key: ``leaf``, ``issuer``, ``ark`` and ``crl``, each replaced or left out."""
    found = {"leaf": leaf(line, kind), "issuer": issuer(line, kind), "ark": ark(line), "crl": crl(line), **changes}
    kinds = ((CRL if what == "crl" else CERTIFICATE, data) for what, data in found.items())
    return tuple(Endorsement(media_type, data) for media_type, data in kinds if data is not None)


ROOTS = Roots(certificates=(Certificate(ark("genoa")).key_digest,))


@dataclass(frozen=True)
class Case:
    """A report and what vouches for it; each test changes one thing."""

    data: bytes
    documents: tuple[Endorsement, ...]
    roots: Roots = ROOTS
    at: int = AT
    terms: Terms = TERMS

    @property
    def evidence(self) -> Evidence:
        return Evidence(PLATFORM, self.data)

    @property
    def endorsements(self) -> Endorsements:
        return Endorsements(self.documents)

    def verify(self, transcript: Transcript) -> SnpVerified:
        return verify(self.evidence, self.endorsements, roots=self.roots, at=self.at, transcript=transcript)


def good(line: str = "genoa", kind: str = "vcek", **changes: Any) -> Case:
    """A case in which everything is right; ``changes`` are of the report, before it is signed."""
    return Case(signed(claims(line, kind, **changes)), documents(line, kind))
