"""Intel's quotes, versions 3 to 5: their layout, and the two signatures inside them that need nothing else.

A quote is a header, a report of an enclave or a trust domain (TD), and the signature of an *attestation key* over both. The
*quoting enclave* (QE) that holds the key has a report of its own, which hashes the key and which the processor's PCK signs.

Layout as in Intel's "SGX ECDSA Quote Library Reference" (v3) and "TDX DCAP Quoting Library API" (v4, v5); all integers are
little-endian. See ``spec/evidence-intel.md``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom.errors import BadEvidence, EvidenceForged

MAX_QUOTE_BYTES = 32 << 10  # without the padding; real ones have 5 KiB
MAX_PADDING_BYTES = 4 << 10
MAX_QE_AUTH_BYTES = 1 << 10
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
PCK_CHAIN = 5  # certification data: certificates in PEM, the PCK's first
QE_REPORT_DATA = 6  # certification data: the QE's report, and certification data of another type
CERTIFICATION_TYPES: Mapping[int, str] = MappingProxyType(
    {
        1: "PPID in the clear, with the TCB",
        2: "PPID encrypted for Intel (RSA-2048), with the TCB",
        3: "PPID encrypted for Intel (RSA-3072), with the TCB",
        4: "PCK certificate",
        PCK_CHAIN: "PCK certificate and its issuers",
        QE_REPORT_DATA: "report of the quoting enclave, and more",
        7: "platform manifest",
    }
)
# Bits of XFAM and XFRM: the processor's state components (SDM, volume 1, section 13.1).
XFEATURES: Mapping[str, int] = MappingProxyType(
    {
        "x87": 0,
        "sse": 1,
        "avx": 2,
        "mpx_bndregs": 3,
        "mpx_bndcsr": 4,
        "avx512_opmask": 5,
        "avx512_zmm_hi256": 6,
        "avx512_hi16_zmm": 7,
        "pt": 8,
        "pkru": 9,
        "pasid": 10,
        "cet_u": 11,
        "cet_s": 12,
        "hdc": 13,
        "uintr": 14,
        "lbr": 15,
        "hwp": 16,
        "amx_tilecfg": 17,
        "amx_tiledata": 18,
        "apx": 19,
    }
)

_HEADER = 48
_ECDSA_P256 = 2
_KEY = 64
_TDREPORT = (1024, 0x81)  # a raw TDREPORT's size and first byte
_ENCLAVE, _TD_10, _TD_15 = 384, 584, 648
_BODIES = {1: _ENCLAVE, 2: _TD_10, 3: _TD_15}  # body type to its size
_P256 = ec.SECP256R1()
_ECDSA = ec.ECDSA(SHA256())


class Tee(IntEnum):
    """What was quoted, as the header says it."""

    SGX = 0x00
    TDX = 0x81


@dataclass(frozen=True, slots=True)
class EnclaveReport:
    """The report of an SGX enclave: of one that is quoted, or of the quoting enclave. Fields as in the SDM's REPORT."""

    cpu_svn: bytes
    misc_select: bytes
    attributes: bytes  # 8 bytes of flags, 8 of XFRM
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    report_data: bytes

    @classmethod
    def of(cls, body: bytes) -> EnclaveReport:
        """The fields of exactly 384 bytes."""
        return cls(
            cpu_svn=body[:16],
            misc_select=body[16:20],
            attributes=body[48:64],
            mrenclave=body[64:96],
            mrsigner=body[128:160],
            config_id=body[192:256],
            isv_prod_id=int.from_bytes(body[256:258], "little"),
            isv_svn=int.from_bytes(body[258:260], "little"),
            config_svn=int.from_bytes(body[260:262], "little"),
            report_data=body[320:384],
        )

    @property
    def debug(self) -> bool:
        """Whether the host may read the enclave's memory."""
        return bool(self.attributes[0] & 0x02)


@dataclass(frozen=True, slots=True)
class TdReport:
    """The report of a TDX trust domain, 1.0 or 1.5. Fields as in the TDX module's TDREPORT_STRUCT.

    ``tee_tcb_svn2`` and ``mrservicetd`` are ``None`` in a report 1.0, which has no service TDs.
    """

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None
    mrservicetd: bytes | None

    @classmethod
    def of(cls, body: bytes) -> TdReport:
        """The fields of exactly 584 or 648 bytes."""
        later = len(body) == _TD_15
        return cls(
            tee_tcb_svn=body[:16],
            mrseam=body[16:64],
            mrsignerseam=body[64:112],
            seam_attributes=body[112:120],
            attributes=body[120:128],
            xfam=body[128:136],
            mrtd=body[136:184],
            mrconfigid=body[184:232],
            mrowner=body[232:280],
            mrownerconfig=body[280:328],
            rtmrs=(body[328:376], body[376:424], body[424:472], body[472:520]),
            report_data=body[520:584],
            tee_tcb_svn2=body[584:600] if later else None,
            mrservicetd=body[600:648] if later else None,
        )

    @property
    def debug(self) -> bool:
        """Whether any bit of the TUD byte is set: the host may debug or profile the TD, which Intel calls untrusted."""
        return self.attributes[0] != 0


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote, taken apart. **Untrusted**: who signed what is for :mod:`~strongroom.attest.intel` to find out.

    Attributes:
        tee: what was quoted.
        header: 48 bytes.
        body_type: 1 an enclave's report, 2 a TD's report 1.0, 3 a TD's report 1.5.
        body: the report, 384, 584 or 648 bytes.
        signature: of the attestation key, 64 bytes ``r || s``.
        attestation_key: 64 bytes ``x || y`` on P-256.
        qe_report: the quoting enclave's report, 384 bytes.
        qe_signature: of the PCK over it, 64 bytes ``r || s``.
        qe_auth: what the QE hashes into its report beside the key; at most 1 KiB.
        certification_type: 5 for the certificates of the PCK.
        certification_data: as the type says.
        padding: how many zero bytes follow the quote.
    """

    tee: Tee
    header: bytes
    body_type: int
    body: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    qe_auth: bytes
    certification_type: int
    certification_data: bytes
    padding: int

    @property
    def version(self) -> int:
        """3, 4 or 5."""
        return int.from_bytes(self.header[:2], "little")

    @property
    def qe_vendor(self) -> bytes:
        """Who made the quoting enclave, 16 bytes."""
        return self.header[12:28]

    @property
    def signed(self) -> bytes:
        """What the attestation key signed."""
        size = struct.pack("<HI", self.body_type, len(self.body)) if self.version == 5 else b""
        return self.header + size + self.body

    @property
    def qe(self) -> EnclaveReport:
        """The quoting enclave's report."""
        return EnclaveReport.of(self.qe_report)

    @property
    def enclave(self) -> EnclaveReport:
        """The report of the enclave that is quoted; only where ``tee`` is SGX."""
        return EnclaveReport.of(self.body)

    @property
    def td(self) -> TdReport:
        """The report of the TD that is quoted; only where ``tee`` is TDX."""
        return TdReport.of(self.body)

    def encode(self) -> bytes:
        """The bytes that were parsed."""
        inner = struct.pack("<HI", self.certification_type, len(self.certification_data)) + self.certification_data
        inner = self.qe_report + self.qe_signature + struct.pack("<H", len(self.qe_auth)) + self.qe_auth + inner
        if self.version > 3:
            inner = struct.pack("<HI", QE_REPORT_DATA, len(inner)) + inner
        inner = self.signature + self.attestation_key + inner
        return self.signed + struct.pack("<I", len(inner)) + inner + bytes(self.padding)

    def require_signed(self) -> None:
        """Require the attestation key's signature over header and report. Raises EvidenceForged."""
        require_signature(
            self.attestation_key, self.signature, self.signed, "the quote is not signed by its attestation key"
        )

    def require_bound(self) -> None:
        """Require that the QE's report hashes the attestation key. Raises EvidenceForged."""
        expected = hashlib.sha256(self.attestation_key + self.qe_auth).digest() + bytes(32)
        if self.qe.report_data != expected:
            raise EvidenceForged("the quoting enclave's report is of another attestation key")


def require_signature(key: bytes | ec.EllipticCurvePublicKey, signature: bytes, data: bytes, otherwise: str) -> None:
    """Require an ECDSA P-256 SHA-256 signature in Intel's raw form.

    Args:
        key: 64 bytes ``x || y``, or a key on that curve.
        signature: 64 bytes ``r || s``, big-endian.
        data: what was signed.
        otherwise: what to say when it was not.

    Raises:
        EvidenceForged: it is not this key's signature, or the key is no point of the curve.
    """
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        if isinstance(key, bytes):
            key = ec.EllipticCurvePublicKey.from_encoded_point(_P256, b"\x04" + key)
        key.verify(der, data, _ECDSA)
    except (InvalidSignature, ValueError) as error:
        raise EvidenceForged(otherwise) from error


class _Reader:
    """Takes a quote's fields one after another, and refuses to go past its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def take(self, size: int, what: str) -> bytes:
        if size > len(self._data) - self.at:
            _fail(f"it ends within {what}")
        found = self._data[self.at : self.at + size]
        self.at += size
        return found

    def integer(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")


def _fail(why: str) -> NoReturn:
    raise BadEvidence(f"not a quote of Intel's: {why}")


def _header(header: bytes) -> tuple[int, Tee]:
    """The version and what was quoted. Raises BadEvidence for what this version cannot read."""
    version, key_type, kind = struct.unpack("<HHI", header[:8])
    if version not in {3, 4, 5}:
        _fail(f"its version is {version}, where 3, 4 and 5 are known")
    if key_type != _ECDSA_P256:
        _fail(f"its attestation key is of type {key_type}, where only 2 (ECDSA P-256) is known")
    if kind not in {Tee.SGX, Tee.TDX}:
        _fail(f"its type of environment is {kind:#x}, neither SGX nor TDX")
    if (version == 3) != (kind == Tee.SGX):
        _fail(f"version {version} is not for {Tee(kind).name} here: SGX has version 3, TDX 4 and 5")
    return version, Tee(kind)


def _body(reader: _Reader, version: int) -> tuple[int, bytes]:
    """The report and its type. Raises BadEvidence."""
    kind = {3: 1, 4: 2}.get(version)
    if kind is not None:
        return kind, reader.take(_BODIES[kind], "its report")
    kind, size = reader.integer(2, "its report's type"), reader.integer(4, "its report's size")
    if kind not in {2, 3}:
        _fail(f"its report is of type {kind}, where 2 and 3 are known for TDX")
    if size != _BODIES[kind]:
        _fail(f"a report of type {kind} does not have {size} bytes")
    return kind, reader.take(size, "its report")


def parse(data: bytes) -> Quote:
    """Take a quote apart. Every length must agree, and after it only zero bytes may come, at most 4 KiB.

    Raises:
        BadEvidence: not a quote, or one that this version cannot read.
    """
    if len(data) == _TDREPORT[0] and data[0] == _TDREPORT[1]:
        _fail("a raw TDREPORT, which nobody but its own machine can check; ask the quoting enclave for a quote")
    if len(data) > MAX_QUOTE_BYTES + MAX_PADDING_BYTES:
        _fail(f"longer than {MAX_QUOTE_BYTES} bytes and {MAX_PADDING_BYTES} of padding")
    reader = _Reader(data)
    header = reader.take(_HEADER, "its header")
    version, tee = _header(header)
    body_type, body = _body(reader, version)
    end = reader.integer(4, "its signature's size") + reader.at
    signature, key = reader.take(64, "its signature"), reader.take(_KEY, "its attestation key")
    if version > 3:
        kind, size = reader.integer(2, "its certification data"), reader.integer(4, "its certification data")
        if kind != QE_REPORT_DATA:
            _fail(f"its certification data is of type {kind}, where version {version} has 6")
        if reader.at + size != end:
            _fail("its certification data is not as long as it says")
    qe_report, qe_signature = reader.take(_ENCLAVE, "its QE's report"), reader.take(64, "its QE's signature")
    auth_size = reader.integer(2, "its QE's data")
    if auth_size > MAX_QE_AUTH_BYTES:
        _fail(f"its QE's data is longer than {MAX_QE_AUTH_BYTES} bytes")
    qe_auth = reader.take(auth_size, "its QE's data")
    kind, size = reader.integer(2, "its certification data"), reader.integer(4, "its certification data")
    certification = reader.take(size, "its certification data")
    if reader.at != end:
        _fail("its signature is not as long as it says")
    if end > MAX_QUOTE_BYTES:
        _fail(f"longer than {MAX_QUOTE_BYTES} bytes")
    padding = len(data) - end
    if padding > MAX_PADDING_BYTES or data[end:].strip(b"\0"):
        _fail(f"{padding} bytes follow it, where only zero bytes may, at most {MAX_PADDING_BYTES}")
    return Quote(
        tee=tee,
        header=header,
        body_type=body_type,
        body=body,
        signature=signature,
        attestation_key=key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        qe_auth=qe_auth,
        certification_type=kind,
        certification_data=certification,
        padding=padding,
    )
