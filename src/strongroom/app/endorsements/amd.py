"""AMD: what an SEV-SNP report needs of the Key Distribution Service (KDS).

Addresses as in AMD's "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (document 57230).
A VCEK is asked for by chip and TCB, both read from the report, which nobody has verified. A VLEK is lent to a cloud provider
and cannot be asked for: it comes with the evidence. The service gives one VCEK in ten seconds or so to one asker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from strongroom.attest import snp_report
from strongroom.attest.endorsements import CERTIFICATE, CRL, PEM_CHAIN
from strongroom.attest.evidence import Endorsement
from strongroom.attest.snp_key import KeyClaims, read_key
from strongroom.attest.snp_report import Claims, Tcb
from strongroom.attest.x509 import Certificate, RevocationList, from_pem
from strongroom.errors import BadAnswer, BadCertificate, BadEvidence

from . import shipped
from .request import DAY, Answer, Ask, Request

_NAMES: Mapping[str, str] = MappingProxyType({"milan": "Milan", "genoa": "Genoa", "turin": "Turin"})
_VERSION_2 = ("milan", "genoa")  # a report of version 2 does not name its processor, and none on Turin has that version
_ISSUERS: Mapping[str, str] = MappingProxyType({"vcek": "SEV-", "vlek": "SEV-VLEK-"})
_LEAVES: Mapping[str, str] = MappingProxyType({"vcek": "SEV-VCEK", "vlek": "SEV-VLEK"})


def plan(data: bytes, ask: Ask, *, beside: Sequence[Certificate] = ()) -> None:
    """Ask for everything that a report needs.

    Args:
        data: the report. Untrusted.
        ask: where answers come from.
        beside: certificates that came along with it; where the key's is among them, it is not asked for.

    Raises:
        BadEvidence: the report does not say what it needs.
    """
    claims = snp_report.parse(data)
    kind = claims.signing_key
    if kind not in _ISSUERS:
        raise BadEvidence("the report names no key that AMD certifies")
    leaf = next((c for c in beside if c.common_name == _LEAVES[kind]), None)
    if leaf is None and kind == "vcek":
        leaf = _ask_vcek(claims, ask)
    lines = _lines(claims) if leaf is None else (_read(leaf, kind).line,)
    if leaf is not None and not _issued_by_shipped(leaf):
        ask(cert_chain(kind, lines[0]))
    for line in lines:
        ask(crl(kind, line), *((crl("vcek", line),) if kind == "vlek" else ()))


def _lines(claims: Claims) -> tuple[str, ...]:
    """The product lines that may have made the report. Raises BadEvidence: none that is known."""
    if claims.processor is not None:
        return (claims.processor.line,)
    if claims.version > 2:
        raise BadEvidence(f"the report is of a processor that is not known here (CPUID {claims.cpuid.hex()})")
    return _VERSION_2


def _ask_vcek(claims: Claims, ask: Ask) -> Certificate | None:
    if not any(claims.chip_id):
        raise BadEvidence("the report does not say which chip made it, so that its VCEK must come along")
    found = ask(*(vcek(claims, line) for line in _lines(claims)))
    return Certificate(found[0].data) if found else None


def _read(leaf: Certificate, kind: str) -> KeyClaims:
    try:
        return read_key(leaf, kind)
    except BadCertificate as error:
        raise BadEvidence(f"the certificate beside the report is none of AMD's: {error.message}") from error


def _issued_by_shipped(leaf: Certificate) -> bool:
    for issuer in shipped.certificates("amd"):
        try:
            leaf.require_issued_by(issuer)
        except BadCertificate:
            continue
        return True
    return False


def vcek(claims: Claims, line: str) -> Request:
    """The certificate of a chip's key at the TCB that the report states, were it of this product line."""
    turin = line == "turin"
    chip = claims.chip_id[:8] if turin else claims.chip_id
    tcb = Tcb.decode(claims.reported_tcb, turin=turin)

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        try:
            found = Certificate(answer.body)
            key = read_key(found, "vcek")
        except BadCertificate as error:
            raise BadAnswer(f"the answer is no VCEK certificate: {error.message}") from error
        if (key.line, key.chip, key.tcb) != (line, chip, tcb):
            raise BadAnswer("the answer is the VCEK of another chip or TCB")
        return (Endorsement(CERTIFICATE, found.der),)

    return Request("amd-kds", CERTIFICATE, vcek_path(line, chip, tcb), read, keep_s=None, most=16 << 10)


def vcek_path(line: str, chip: bytes, tcb: Tcb) -> str:
    """Where KDS has a VCEK."""
    path = f"/vcek/v1/{_NAMES[line]}/{chip.hex()}?blSPL={tcb.bootloader:02}&teeSPL={tcb.tee:02}"
    path += f"&snpSPL={tcb.snp:02}&ucodeSPL={tcb.microcode:02}"
    return path if tcb.fmc is None else f"{path}&fmcSPL={tcb.fmc:02}"


def cert_chain(kind: str, line: str) -> Request:
    """The certificates above a VCEK or VLEK: ASK or ASVK, and ARK."""
    names = [_ISSUERS[kind] + _NAMES[line], f"ARK-{_NAMES[line]}"]

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        try:
            found = [c.common_name for c in from_pem(answer.body)]
        except BadCertificate as error:
            raise BadAnswer("the answer is no certificates in PEM") from error
        if found != names:
            raise BadAnswer(f"the answer is not the certificates {' and '.join(names)}")
        return (Endorsement(PEM_CHAIN, answer.body),)

    return Request("amd-kds", PEM_CHAIN, f"/{kind}/v1/{_NAMES[line]}/cert_chain", read, keep_s=30 * DAY, most=64 << 10)


def crl(kind: str, line: str) -> Request:
    """The ARK's revocation list, which names ASKs and ASVKs."""

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        try:
            found = RevocationList(answer.body)
        except BadCertificate as error:
            raise BadAnswer(f"the answer is no revocation list: {error.message}") from error
        if f"CN=ARK-{_NAMES[line]}" not in found.parsed.issuer.rfc4514_string().split(","):
            raise BadAnswer(f"the answer is a revocation list of another root than ARK-{_NAMES[line]}")
        return (Endorsement(CRL, found.der),)

    return Request("amd-kds", CRL, crl_path(kind, line), read)


def crl_path(kind: str, line: str) -> str:
    return f"/{kind}/v1/{_NAMES[line]}/crl"
