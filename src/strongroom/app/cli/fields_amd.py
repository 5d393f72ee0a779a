"""Reports of AMD SEV-SNP, and what the certificates of their keys say, field by field. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from strongroom.attest import snp_key, snp_report
from strongroom.attest.snp_report import Claims, Tcb
from strongroom.attest.x509 import Certificate
from strongroom.errors import BadEvidence

from .fields import Record, Spoken, bits, named, text

_ALGORITHMS = {snp_report.ECDSA_P384_SHA384: "ECDSA, P-384, SHA-384"}
_KEY_BITS = {"author_key_enabled": 0, "chip_key_masked": 1}
_KINDS = {"SEV-VCEK": "vcek", "SEV-VLEK": "vlek"}
_ABI_BITS = 16  # of the policy: the least ABI
_POLICY_ONE = {17: "bit 17 (always set)"}


def _tcb(raw: bytes, line: str | None) -> Spoken:
    """The components in the order of the product line."""
    if line is None:
        return Spoken({"hex": raw.hex()}, f"{raw.hex()} (its order is of a processor that is not known here)")
    try:
        tcb = Tcb.decode(raw, turin=line == "turin")
    except BadEvidence:
        return Spoken({"hex": raw.hex()}, f"{raw.hex()} (in no order that is known of {line})")
    return Spoken({"hex": raw.hex(), **tcb.to_json()}, f"{tcb} ({raw.hex()})")


def _processor(claims: Claims) -> Spoken:
    family, model, stepping = claims.cpuid
    members: dict[str, Any] = {"family": family, "model": model, "stepping": stepping, "name": None, "line": None}
    if not any(claims.cpuid):
        return Spoken(members, "not said, as in every report of version 2: TCBs are read in the order of Milan and Genoa")
    found = claims.processor
    if found is not None:
        members |= {"name": found.name, "line": found.line}
    named_so = found.name if found else "not known here"
    return Spoken(members, f"{named_so} (family {family:#x}, model {model:#x}, stepping {stepping})")


def _line(claims: Claims) -> str | None:
    if not any(claims.cpuid):
        return "milan"
    return claims.processor.line if claims.processor else None


def _policy(claims: Claims) -> Spoken:
    major, minor = claims.minimum_abi
    flags = bits(claims.policy >> _ABI_BITS << _ABI_BITS, snp_report.POLICY_BITS, ones=_POLICY_ONE)
    members = {**flags, "value": f"{claims.policy:#x}", "minimum_abi": f"{major}.{minor}"}
    said = flags.said[0].rpartition(" (")[0]
    return Spoken(members, f"{said}; ABI {major}.{minor} or later ({claims.policy:#x})")


def _chip(claims: Claims, line: str | None) -> Spoken:
    raw = claims.chip_id
    if not any(raw):
        return Spoken({"hex": raw.hex()}, "zero: masked by the host")
    short = line == "turin" and not any(raw[8:])
    return Spoken({"hex": raw.hex()}, raw[:8].hex() if short else raw.hex())


def of_report(claims: Claims) -> Record:
    line = _line(claims)
    vmpl = "none: the host asked" if claims.vmpl == snp_report.HOST_VMPL else str(claims.vmpl)
    agent = "none" if claims.report_id_ma == snp_report.NO_MIGRATION_AGENT else claims.report_id_ma.hex()
    return Record(
        version=claims.version,
        processor=_processor(claims),
        chip_id=_chip(claims, line),
        vmpl=Spoken({"value": claims.vmpl}, vmpl),
        guest=Record(
            measurement=claims.measurement,
            report_data=text(claims.report_data),
            host_data=text(claims.host_data),
            policy=_policy(claims),
            guest_svn=claims.guest_svn,
            family_id=text(claims.family_id),
            image_id=text(claims.image_id),
            id_key_digest=claims.id_key_digest,
            author_key_digest=claims.author_key_digest,
            report_id=claims.report_id,
            migration_agent=Spoken({"hex": claims.report_id_ma.hex()}, agent),
        ),
        platform=Record(
            platform_info=bits(claims.platform_info, snp_report.PLATFORM_BITS),
            reported_tcb=_tcb(claims.reported_tcb, line),
            committed_tcb=_tcb(claims.committed_tcb, line),
            current_tcb=_tcb(claims.current_tcb, line),
            launch_tcb=_tcb(claims.launch_tcb, line),
            current_firmware=str(claims.current),
            committed_firmware=str(claims.committed),
            current_mitigations=bits(claims.current_mitigations, {}),
            launch_mitigations=bits(claims.launch_mitigations, {}),
        ),
        signature=Record(
            algorithm=named(claims.signature_algorithm, _ALGORITHMS),
            signing_key=named(claims.key_info >> 2, {n: name.upper() for n, name in snp_report.SIGNING_KEYS.items()}),
            key_info=bits(claims.key_info & 3, _KEY_BITS),
            r=f"{claims.r:096x}",
            s=f"{claims.s:096x}",
        ),
    )


def key_of(found: Certificate) -> Record | None:
    """What AMD's extensions say of a VCEK or VLEK; ``None`` for another certificate. Raises BadCertificate."""
    kind = _KINDS.get(found.common_name)
    if kind is None:
        return None
    said = snp_key.read_key(found, kind)
    record = Record(kind=kind.upper(), product_line=said.line, tcb=Spoken(said.tcb.to_json(), str(said.tcb)))
    if said.chip is not None:
        record["chip_id"] = said.chip
    if said.provider is not None:
        record["cloud_provider"] = said.provider
    return record


DESCRIBED: Mapping[type, Callable[[Any], Record]] = MappingProxyType({Claims: of_report})
