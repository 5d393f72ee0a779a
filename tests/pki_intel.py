"""A stand-in for Intel: quotes, certificates, revocation lists and collateral of the same layout, under roots of our own.

Everything is deterministic: keys are derived from their names, ECDSA is RFC 6979, times are fixed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from strongroom.attest.endorsements import CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO, PEM_CHAIN
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Roots
from strongroom.attest.x509 import Certificate

AT = 1_760_000_000  # 2025-10-09, the time in question
DAY = 86_400
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
FMSPC, PCE_ID = bytes.fromhex("50c06f000000"), bytes(2)
PPID = bytes(range(16))
SVNS = (4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0)
PCE_SVN = 13
SVN_1 = bytes([11, 1, 5]) + bytes(13)  # TEE_TCB_SVN: TDX module 1.11
OLD_SVN = bytes([6, 1, 5]) + bytes(13)
QE_SIGNER = hashlib.sha256(b"the quoting enclave's signer").digest()
REPORT_DATA = hashlib.sha512(b"report data").digest()
ROOT, PLATFORM_CA, PROCESSOR_CA = "Intel SGX Root CA", "Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"
PCK, TCB_SIGNING = "Intel SGX PCK Certificate", "Intel SGX TCB Signing"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SGX_OID = "1.2.840.113741.1.13.1"


@cache
def key(name: str, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """The private key of this name."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % (_ORDER - 1) + 1, curve())


def sign(name: str, data: bytes) -> bytes:
    """``r || s``, 64 bytes."""
    der = key(name).sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return b"".join(n.to_bytes(32, "big") for n in decode_dss_signature(der))


def point(name: str) -> bytes:
    """``x || y``, 64 bytes."""
    return key(name).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def when(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _name(common: str) -> x509.Name:
    parts = [
        (NameOID.COMMON_NAME, common),
        (NameOID.ORGANIZATION_NAME, "Not Intel Corporation"),
        (NameOID.COUNTRY_NAME, "XX"),
    ]
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def certificate(
    name: str,
    issuer: str,
    *,
    common: str = "",
    issued_as: str = "",
    before: int = AT - 400 * DAY,
    after: int = AT + 400 * DAY,
    ca: bool | None = None,
    extension: bytes | None = None,
    curve: type[ec.EllipticCurve] = ec.SECP256R1,
    critical: bool = False,
) -> bytes:
    """A certificate in DER. ``name`` and ``issuer`` name the keys; ``common`` and ``issued_as`` the people."""
    ca = name in {ROOT, PLATFORM_CA, PROCESSOR_CA} if ca is None else ca
    public = key(name, curve).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common or name))
        .issuer_name(_name(issued_as or issuer))
        .public_key(public)
        .serial_number(serial(name))
        .not_valid_before(when(before))
        .not_valid_after(when(after))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=(1 if name == ROOT else 0) if ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key(issuer).public_key()), critical=False)
        .add_extension(_usage(ca=ca), critical=True)
    )
    if extension is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_OID), extension), critical=critical
        )
    return builder.sign(key(issuer), hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def serial(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def revocation_list(
    issuer: str, *, revoked: tuple[str, ...] = (), before: int = AT - DAY, after: int = AT + 29 * DAY, signer: str = ""
) -> bytes:
    """A revocation list in DER."""
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(_name(issuer)).last_update(when(before)).next_update(when(after))
    )
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key(issuer).public_key())
    builder = builder.add_extension(identifier, critical=False)
    for name in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(serial(name)).revocation_date(when(before)).build()
        builder = builder.add_revoked_certificate(one)
    return builder.sign(key(signer or issuer), hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def pem(*ders: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


# --- the PCK's extension ------------------------------------------------------------------------------------------------


def der(tag: int, contents: bytes) -> bytes:
    """One DER element."""
    size = len(contents)
    length = bytes([size]) if size < 0x80 else b"\x81" + bytes([size]) if size < 0x100 else b"\x82" + struct.pack(">H", size)
    return bytes([tag]) + length + contents


def number(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def member(last: bytes, value: bytes) -> bytes:
    """A pair of an object identifier under Intel's and a value."""
    return der(0x30, der(0x06, bytes.fromhex("2a864886f84d010d01") + last) + value)


def extension(
    *,
    ppid: bytes = PPID,
    svns: tuple[int, ...] = SVNS,
    pce_svn: int = PCE_SVN,
    pce_id: bytes = PCE_ID,
    fmspc: bytes = FMSPC,
    smt: bool | None = True,
) -> bytes:
    """The SGX extension of a PCK certificate."""
    tcb = b"".join(member(bytes([2, n]), number(svn)) for n, svn in enumerate(svns, 1))
    tcb += member(b"\x02\x11", number(pce_svn)) + member(b"\x02\x12", der(0x04, bytes(svns)))
    parts = [
        member(b"\x01", der(0x04, ppid)),
        member(b"\x02", der(0x30, tcb)),
        member(b"\x03", der(0x04, pce_id)),
        member(b"\x04", der(0x04, fmspc)),
        member(b"\x05", der(0x0A, b"\x01")),
    ]
    if smt is not None:
        flags = ((1, True), (2, True), (3, smt))
        said = b"".join(member(bytes([7, n]), der(0x01, b"\xff" if on else b"\0")) for n, on in flags)
        parts += [member(b"\x06", der(0x04, bytes(16))), member(b"\x07", der(0x30, said))]
    return der(0x30, b"".join(parts))


# --- collateral ---------------------------------------------------------------------------------------------------------


def time(at: int) -> str:
    return when(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def answer(name: str, inner: Mapping[str, Any], signer: str) -> bytes:
    """An answer of the PCS."""
    text = json.dumps(inner, separators=(",", ":")).encode()
    return b'{"%s":%s,"signature":"%s"}' % (name.encode(), text, sign(signer, text).hex().encode())


def level(
    tcb: Mapping[str, Any], status: str = "UpToDate", *advisories: str, date: str = "2025-05-14T00:00:00Z"
) -> dict[str, Any]:
    """An item of ``tcbLevels``."""
    found = {"tcb": dict(tcb), "tcbDate": date, "tcbStatus": status}
    return {**found, "advisoryIDs": list(advisories)} if advisories else found


def components(
    svns: tuple[int, ...] = SVNS, pce_svn: int = PCE_SVN, tdx: tuple[int, ...] | None = (11, 0, 5, *[0] * 13)
) -> dict[str, Any]:
    """What a platform's level asks for."""
    found: dict[str, Any] = {"sgxtcbcomponents": [{"svn": n} for n in svns], "pcesvn": pce_svn}
    return found if tdx is None else {**found, "tdxtcbcomponents": [{"svn": n} for n in tdx]}


ZERO_TDX = (0, 0, 5, *[0] * 13)  # a level whose TDX module is judged by its identity alone


def module(version: int = 1, levels: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """An item of ``tdxModuleIdentities``."""
    found = {"id": f"TDX_{version:02X}", "mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    old = level({"isvsvn": 5}, "OutOfDate", "INTEL-SA-01192", "INTEL-SA-01245", date="2024-03-13T00:00:00Z")
    return {**found, "tcbLevels": levels or [level({"isvsvn": 11}), old], **changes}


@dataclass(frozen=True, kw_only=True)
class World:
    """One machine and what Intel says of it, with a knob for everything that can be wrong. ``replace`` turns them.

    ``td``, ``enclave``, ``qe``: fields of the reports by name. ``info``, ``identity``: members of the signed JSON; ``None``
    leaves one out. ``certificates``: name of a key to its certificate's arguments; ``lists``: issuer to its list's.
    """

    tee: str = "TDX"
    version: int = 4
    td: Mapping[str, bytes] = field(default_factory=dict)
    enclave: Mapping[str, bytes] = field(default_factory=dict)
    qe: Mapping[str, bytes] = field(default_factory=dict)
    header: Mapping[str, bytes] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    extension: Mapping[str, Any] = field(default_factory=dict)
    certificates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    issuer: str = PLATFORM_CA
    quote_signer: str = "attestation key"
    qe_report_signer: str = PCK
    info_signer: str = TCB_SIGNING
    identity_signer: str = TCB_SIGNING
    qe_auth: bytes = bytes(range(32))
    certification_type: int = 5
    chain: tuple[str, ...] | None = None
    without: frozenset[str] = frozenset()
    trailing: bytes = b""
    body_type: int = 0

    # the quote

    def body(self) -> bytes:
        if self.tee == "SGX":
            fields = {"mrenclave": b"\xe1" * 32, "mrsigner": b"\xe2" * 32, "report_data": REPORT_DATA, **self.enclave}
            return enclave_report(**fields)
        found = {
            "tee_tcb_svn": SVN_1,
            "mrseam": b"\x5e" * 48,
            "mrsignerseam": bytes(48),
            "seam_attributes": bytes(8),
            "attributes": bytes.fromhex("0000001000000000"),
            "xfam": bytes.fromhex("e702060000000000"),
            "mrtd": b"\x11" * 48,
            "mrconfigid": bytes(48),
            "mrowner": bytes(48),
            "mrownerconfig": bytes(48),
            "rtmr0": b"\x20" * 48,
            "rtmr1": b"\x21" * 48,
            "rtmr2": b"\x22" * 48,
            "rtmr3": b"\x23" * 48,
            "report_data": REPORT_DATA,
        }
        if self.version == 5 and self.body_type != 2:
            found |= {"tee_tcb_svn2": SVN_1, "mrservicetd": bytes(48)}
        return b"".join((found | dict(self.td)).values())

    def signed(self) -> bytes:
        fields = {
            "version": struct.pack("<H", self.version),
            "key_type": struct.pack("<H", 2),
            "tee": struct.pack("<I", 0x81 if self.tee == "TDX" else 0),
            "reserved": bytes(4),
            "vendor": VENDOR,
            "user_data": bytes(20),
            **self.header,
        }
        body = self.body()
        size = struct.pack("<HI", self.body_type or 3, len(body)) if self.version == 5 else b""
        return b"".join(fields.values()) + size + body

    def quote(self) -> bytes:
        attestation_key = point("attestation key")
        bound = hashlib.sha256(attestation_key + self.qe_auth).digest() + bytes(32)
        product = {"SGX": 1, "TDX": 2}[self.tee]
        qe = enclave_report(
            **{
                "mrenclave": b"\x0e" * 32,
                "mrsigner": QE_SIGNER,
                "attributes": bytes.fromhex("1500000000000000e700000000000000"),
                "isv_prod_id": struct.pack("<H", product),
                "isv_svn": struct.pack("<H", 8),
                "report_data": bound,
                **self.qe,
            }
        )
        chain = pem(*(self.certificate(name) for name in self.chain or (PCK, self.issuer, ROOT)))
        inner = qe + sign(self.qe_report_signer, qe) + struct.pack("<H", len(self.qe_auth)) + self.qe_auth
        inner += struct.pack("<HI", self.certification_type, len(chain)) + chain
        if self.version > 3:
            inner = struct.pack("<HI", 6, len(inner)) + inner
        inner = sign(self.quote_signer, self.signed()) + attestation_key + inner
        return self.signed() + struct.pack("<I", len(inner)) + inner + self.trailing

    def evidence(self) -> Evidence:
        return Evidence(self.tee.lower(), self.quote())

    # what Intel says

    def certificate(self, name: str) -> bytes:
        arguments: dict[str, Any] = {"issuer": self.issuer if name == PCK else ROOT, **self.certificates.get(name, {})}
        if name == PCK:
            arguments = {"extension": extension(**self.extension), **arguments}
        return certificate(name, **arguments)

    def tcb_info(self) -> bytes:
        tdx = self.tee == "TDX"
        found: dict[str, Any] = {
            "id": self.tee,
            "version": 3,
            "issueDate": time(AT - DAY),
            "nextUpdate": time(AT + 29 * DAY),
            "fmspc": FMSPC.hex().upper(),
            "pceId": PCE_ID.hex(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": 19,
        }
        if tdx:
            found["tdxModule"] = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            found["tdxModuleIdentities"] = [module(3, [level({"isvsvn": 5})]), module()]
        low = components(tuple(max(n - 1, 0) for n in SVNS), 5, (0,) * 16 if tdx else None)
        found["tcbLevels"] = [
            level(components(tdx=ZERO_TDX if tdx else None)),
            level(low, "OutOfDate", "INTEL-SA-00960", date="2023-02-15T00:00:00Z"),
        ]
        return answer("tcbInfo", _changed(found, self.info), self.info_signer)

    def qe_identity(self) -> bytes:
        found = {
            "id": "TD_QE" if self.tee == "TDX" else "QE",
            "version": 2,
            "issueDate": time(AT - 2 * DAY),
            "nextUpdate": time(AT + 28 * DAY),
            "tcbEvaluationDataNumber": 18,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": {"SGX": 1, "TDX": 2}[self.tee],
            "tcbLevels": [
                level({"isvsvn": 8}),
                level({"isvsvn": 5}, "OutOfDate", "INTEL-SA-00477", date="2021-11-10T00:00:00Z"),
            ],
        }
        return answer("enclaveIdentity", _changed(found, self.identity), self.identity_signer)

    def revocation_list(self, issuer: str) -> bytes:
        return revocation_list(issuer, **self.lists.get(issuer, {}))

    def documents(self) -> dict[str, Endorsement]:
        """Every endorsement by a name of ours."""
        return {
            "tcb info": Endorsement(INTEL_TCB_INFO, self.tcb_info()),
            "qe identity": Endorsement(INTEL_QE_IDENTITY, self.qe_identity()),
            "tcb signing chain": Endorsement(PEM_CHAIN, pem(self.certificate(TCB_SIGNING), self.certificate(ROOT))),
            "root crl": Endorsement(CRL, self.revocation_list(ROOT)),
            "pck crl": Endorsement(CRL, self.revocation_list(self.issuer)),
        }

    def endorsements(self) -> Endorsements:
        return Endorsements(tuple(one for name, one in self.documents().items() if name not in self.without))

    def roots(self) -> Roots:
        return Roots(certificates=(Certificate(certificate(ROOT, ROOT)).key_digest,))


def _changed(found: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (found | dict(changes)).items() if value is not None}


def enclave_report(**fields: bytes) -> bytes:
    """A report of an SGX enclave, 384 bytes."""
    found = {
        "cpu_svn": bytes(SVNS),
        "misc_select": bytes(4),
        "reserved": bytes(28),
        "attributes": bytes.fromhex("0500000000000000e700000000000000"),
        "mrenclave": bytes(32),
        "reserved2": bytes(32),
        "mrsigner": bytes(32),
        "reserved3": bytes(32),
        "config_id": bytes(64),
        "isv_prod_id": bytes(2),
        "isv_svn": bytes(2),
        "config_svn": bytes(2),
        "reserved4": bytes(58),
        "report_data": bytes(64),
    }
    return b"".join((found | fields).values())
