"""Quotes of TPMs, and of Azure's virtual ones with what leads to the hardware, field by field. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from strongroom import wire
from strongroom.attest import azure_claims, azure_foreign, snp_report, tdx, tpm, tpm2
from strongroom.attest.tpm2 import ALGORITHMS, Attest, Public, PublicKey, Signature
from strongroom.attest.tpm_key import key_info
from strongroom.attest.tpm_quote import Quote

from . import fields_amd, fields_intel
from .fields import Digests, Record, Spoken, bits, key, named, number, of_parse, text

_PARENTS = {0x40000001: "owner", 0x40000007: "null", 0x4000000B: "endorsement", 0x4000000C: "platform"}
_POLICY_AT = 8  # of TPMT_PUBLIC: type, name algorithm, attributes


def _name(raw: bytes) -> Spoken:
    """A TPM's name of a key: an algorithm and a digest."""
    algorithm = ALGORITHMS.get(int.from_bytes(raw[:2], "big"))
    if algorithm is None:
        return Spoken({"hex": raw.hex()}, raw.hex() or "none")
    return Spoken({"algorithm": algorithm, "digest": raw[2:].hex()}, f"{algorithm}:{raw[2:].hex()}")


def _clock(milliseconds: int) -> Spoken:
    days, rest = divmod(milliseconds // 1000, 86400)
    spoken = f"{days} days {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02} of power ({milliseconds} ms)"
    return Spoken({"milliseconds": number(milliseconds)}, spoken)


def _pcrs(found: tuple[int, ...]) -> str:
    return ", ".join(map(str, found)) or "none"


def attest(found: Attest) -> Record:
    """TPMS_ATTEST: what the TPM signed."""
    made = "made by a TPM" if found.magic == tpm2.TPM_GENERATED else "not made by a TPM"
    record = Record(
        magic=Spoken({"value": found.magic, "name": made}, f"{made} ({found.magic:#010x})"),
        type=named(found.kind, tpm2.ATTEST_KINDS),
        qualified_signer=_name(found.qualified_signer),
        nonce=text(found.extra_data),
        clock=_clock(found.clock_ms),
        clock_safe=found.clock_safe,
        reset_count=found.reset_count,
        restart_count=found.restart_count,
        firmware_version=f"{found.firmware_version:016x}",
    )
    if found.kind == tpm2.ATTEST_QUOTE:
        banks = [(ALGORITHMS.get(one.algorithm, f"{one.algorithm:#06x}"), one.pcrs) for one in found.selections]
        said = "; ".join(f"{bank}: {_pcrs(pcrs)}" for bank, pcrs in banks) or "none"
        record["pcr_selection"] = Spoken({"banks": [{"bank": bank, "pcrs": list(pcrs)} for bank, pcrs in banks]}, said)
        record["pcr_digest"] = found.pcr_digest
    return record


def _signature(found: Signature) -> Record:
    return Record(scheme=named(found.scheme, ALGORITHMS), digest=named(found.digest, ALGORITHMS), signature=found.value)


def quote(found: Quote) -> Record:
    """What the TPM signed, its signature, and the registers beside it."""
    return Record(
        quote=attest(found.attest),
        quote_signature=_signature(found.signed),
        registers=Record(bank=found.bank, pcrs=Digests({f"pcr{n}": value for n, value in found.pcrs.items()})),
    )


def _public_key(found: PublicKey) -> Record:
    info = key_info(found)
    return Record(key=key(found), key_digest=wire.digest(info), subject_public_key_info=info)


def _described(found: Public, raw: bytes) -> Record:
    """A key as its TPM describes it."""
    size = int.from_bytes(raw[_POLICY_AT : _POLICY_AT + 2], "big")
    return Record(
        attributes=bits(found.attributes, tpm2.ATTRIBUTE_BITS),
        name=_name(found.name),
        scheme=named(found.scheme, ALGORITHMS),
        scheme_digest=named(found.scheme_digest, {**ALGORITHMS, 0: "none"}),
        authorization_policy=raw[_POLICY_AT + 2 : _POLICY_AT + 2 + size],
    )


def of_tpm(claims: tpm.Claims) -> Record:
    found = _public_key(claims.key)
    if claims.described is not None:
        handle = len(claims.parent) == 4
        said = named(int.from_bytes(claims.parent, "big"), _PARENTS) if handle else _name(claims.parent)
        found = _described(claims.described, claims.public) | found | Record(parent=said)
    else:
        found["described"] = Spoken({"by_tpm": False}, "by nobody but its certificate")
    return quote(claims.quote) | Record(attestation_key=found)


def _runtime(raw: bytes) -> Any:
    """The paravisor's JSON, whatever it holds."""
    return of_parse(lambda: {"hex": raw.hex()} if not raw.strip(b"\0") else wire.loads(raw))


def _hardware(raw: bytes) -> Any:
    if len(raw) == snp_report.REPORT_BYTES:
        return of_parse(lambda: fields_amd.of_report(snp_report.parse(raw)))
    return of_parse(lambda: fields_intel.of_tdx(tdx.parse(raw)))


def of_azure(claims: azure_claims.Claims) -> Record:
    hardware = "sev_snp_report" if len(claims.hardware) == snp_report.REPORT_BYTES else "tdx_quote"
    return quote(claims.quote) | Record(
        {
            "attestation_key": _public_key(claims.runtime.key),
            "runtime_data": _runtime(claims.runtime_data),
            "runtime_data_digest": Spoken(
                {"algorithm": claims.digest, "report_data": claims.slot.hex()},
                f"{claims.digest}; the hardware's report has to hold, as report data,",
                claims.slot.hex(),
            ),
            hardware: _hardware(claims.hardware),
        }
    )


def of_hcl(report: azure_foreign.HclReport) -> Record:
    found = Record(
        hardware=named(report.kind, {azure_foreign.SNP: "AMD SEV-SNP", azure_foreign.TDX: "Intel TDX"}),
        runtime_data_digest=report.digest,
        runtime_data=_runtime(report.runtime_data),
    )
    if report.kind == azure_foreign.TDX:
        return found | Record(tdreport=of_parse(lambda: fields_intel.tdreport(report.hardware)))
    return found | Record(sev_snp_report=_hardware(report.hardware[: snp_report.REPORT_BYTES]))


DESCRIBED: Mapping[type, Callable[[Any], Record]] = MappingProxyType(
    {tpm.Claims: of_tpm, azure_claims.Claims: of_azure, azure_foreign.HclReport: of_hcl}
)
