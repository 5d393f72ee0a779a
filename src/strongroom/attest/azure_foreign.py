"""Evidence of Azure's machines as others write it down, read into our own form: one named reader a format.

A paravisor's own report ("HCL report") is 2600 bytes: a header of 32, the hardware's report in 1184, and the runtime data
behind a header of 20; all integers are little-endian. On SEV-SNP the hardware's report in it is the one that the processor
signed. On TDX it is a TDREPORT, which only that machine can check, and a TDX quote of it travels beside.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom import wire
from strongroom.errors import BadEvidence, BadField, WireError
from strongroom.wire import Fields

from .azure import HASHES, Claims, unb64url
from .tpm_foreign import MAX_FOREIGN_BYTES, hex_registers, rsassa_sha256
from .tpm_quote import Quote
from .x509 import Certificate

SNP, TDX = 2, 4  # what the hardware's report is

_HEADER, _HARDWARE, _RUNTIME_HEADER = 32, 1184, 20
_MAX_HCL_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class HclReport:
    """A paravisor's report. **Untrusted.**

    Attributes:
        kind: ``SNP`` or ``TDX``.
        hardware: the hardware's report.
        digest: the algorithm of the runtime data's digest in it.
        runtime_data: byte for byte.
    """

    kind: int
    hardware: bytes
    digest: str
    runtime_data: bytes

    @classmethod
    def parse(cls, data: bytes) -> HclReport:
        """Raises BadEvidence."""

        def number(at: int) -> int:
            return int.from_bytes(data[at : at + 4], "little")

        front = _HEADER + _HARDWARE
        if not front + _RUNTIME_HEADER <= len(data) <= _MAX_HCL_BYTES or data[:4] != b"HCLA" or number(4) not in {1, 2}:
            raise BadEvidence("not a paravisor's report")
        size, version, kind, digest, length = (number(front + place) for place in range(0, _RUNTIME_HEADER, 4))
        end = front + _RUNTIME_HEADER + length
        if number(8) != front + size or size != _RUNTIME_HEADER + length or end > len(data) or any(data[end:]):
            raise BadEvidence("a paravisor's report does not have the sizes that it says, or bytes after its end")
        if number(12) != 2 or any(data[16:_HEADER]) or version != 1 or kind not in {SNP, TDX} or not 1 <= digest <= 3:
            raise BadEvidence("a paravisor's report of a kind that is not known here")
        return cls(kind, data[_HEADER:front], HASHES[digest - 1], data[front + _RUNTIME_HEADER : end])


def from_trustee_snp(data: bytes) -> tuple[Claims, Certificate]:
    """What the confidential-containers verifier takes of an SEV-SNP machine, and the VCEK in it.

    Raises BadEvidence, BadCertificate.
    """
    f = _trustee(data)
    try:
        report, quote = _common(f, SNP)
        vcek = Certificate(_padded(f.text("vcek", max_chars=16 << 10)))
        f.end()
    except WireError as error:
        raise BadEvidence(f"not evidence of that verifier: {error}") from error
    return Claims(quote, report.hardware, report.runtime_data, report.digest), vcek


def from_trustee_tdx(data: bytes) -> Claims:
    """What the confidential-containers verifier takes of a TDX machine. Raises BadEvidence."""
    f = _trustee(data)
    try:
        report, quote = _common(f, TDX)
        td_quote = _padded(f.text("td_quote", max_chars=64 << 10))
        f.end()
    except WireError as error:
        raise BadEvidence(f"not evidence of that verifier: {error}") from error
    return Claims(quote, td_quote, report.runtime_data, report.digest)


def _trustee(data: bytes) -> Fields:
    try:
        return Fields(wire.loads(data, max_bytes=MAX_FOREIGN_BYTES), "evidence")
    except WireError as error:
        raise BadEvidence(f"not evidence of that verifier: {error}") from error


def _common(f: Fields, kind: int) -> tuple[HclReport, Quote]:
    """Raises BadField, BadEvidence."""
    f.integer("version", low=1, high=1)
    report = HclReport.parse(_padded(f.text("hcl_report", max_chars=16 << 10)))
    if report.kind != kind:
        raise BadEvidence("the paravisor's report is of other hardware")
    g = Fields(f.any("tpm_quote"), "evidence.tpm_quote")
    message, signature = (_hex(g.text(name, max_chars=2048)) for name in ("message", "signature"))
    quote = Quote(message, rsassa_sha256(signature), "sha256", hex_registers(g, "pcrs"))
    g.end()
    return report, quote


def _padded(text: str) -> bytes:
    """Base64url with its padding or, as some versions of that verifier write it, without. Raises BadField."""
    bare = text.rstrip("=")
    if len(text) not in {len(bare), len(bare) + -len(bare) % 4}:
        raise BadField("not base64url")
    return unb64url(bare)


def _hex(text: str) -> bytes:
    return Fields({"value": text}, "evidence.tpm_quote").hex("value", size=len(text) // 2)
