"""What kind of evidence some bytes are, by their own beginning: for people who hold a file and not its name.

Everything here is **untrusted** and stays so: it says which verifier to ask, and that verifier parses the bytes again. A
file may bring endorsements (certificates beside a report) and, where it is an attestation report of ours, a keyset.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from strongroom import wire
from strongroom.errors import BadEndorsement, BadEventLog, BadEvidence, StrongroomError

from . import registry
from .endorsements import CERTIFICATE, documents
from .evidence import Endorsements, Evidence
from .keyset import AttestationReport

MAX_BYTES = 4 << 20
MAX_VALUES = wire.MAX_VALUES  # of JSON: the largest real file has 1,200
_KNOWN = (
    "Known are quotes of TDX and SGX, SEV-SNP reports, Nitro documents, TPM and vTPM evidence, NVIDIA's reports and tokens, "
    "and reports of services."
)
_ENDORSEMENT = frozenset(
    {"tcbInfo", "enclaveIdentity", "tcb_info", "keys", "documents"}
)  # Intel's, NVIDIA's, a bundle of ours
_LOG = (
    "Give it beside its quote: strongroom attest verify QUOTE --event-log FILE; or look at it: strongroom attest show FILE"
)
_EAR = (
    "A result of somebody else's appraisal is never verified here. Look at it: strongroom attest show FILE; and verify the "
    "evidence that it is about."
)
_TD = "Evidence is the quote that Intel's quoting enclave makes of it, which travels beside it."
_DER = b"\x30\x82"
_TEE_SGX, _TEE_TDX = 0, 0x81
_SNP_BYTES = 1184
_TDREPORT_BYTES = 1024
_SPACE = b" \t\n\v\f\r"
_STANDARD = bytes.maketrans(b"-_", b"+/")  # of the two alphabets of base64 (RFC 4648)


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds. **Untrusted.**

    Attributes:
        kind: for people.
        evidence: what to ask a verifier about; ``None`` where the file only goes with evidence (an event log).
        endorsements: what came along.
        report: the whole report, where it is one of ours.
        claims: titles and what the platform's parser read, for people.
        devices: evidence of devices that came without a processor's, or beside one and bound to it by no key of ours.
        report_bytes: a device's report whose certificates are in another file.
        service: the whole report of a service on dstack (``aci_report.Report``).
        hint: what to do with it, where there is no evidence.
    """

    kind: str
    evidence: Evidence | None = None
    endorsements: Endorsements = field(default_factory=Endorsements)
    report: AttestationReport | None = None
    claims: tuple[tuple[str, Any], ...] = ()
    devices: tuple[Evidence, ...] = ()
    report_bytes: bytes = b""
    service: Any = None
    hint: str = _KNOWN

    def require_evidence(self) -> Evidence:
        """Raises BadEvidence: there is none that stands alone."""
        if self.evidence is None:
            raise BadEvidence(f"{self.kind} is no evidence on its own", hint=self.hint)
        return self.evidence


def _of(kind: str, evidence: Evidence, endorsements: Endorsements | None = None) -> Found:
    """Evidence with what its own platform's parser reads of it. Raises BadEvidence."""
    claims = [(f"{evidence.platform}: what it says", _parsed(evidence))]
    if evidence.event_log:
        claims.append(_of_log(evidence.event_log))
    return Found(kind, evidence, endorsements or Endorsements(), claims=(*claims, *_of_devices(evidence.devices)))


def _of_log(log: bytes) -> tuple[str, Any]:
    """What a log beside evidence says, for people. The appraisal says what is wrong with one that cannot be read."""
    try:
        return "event log", _events(log)
    except BadEventLog as error:
        return "event log: cannot be read", error.message


def _of_devices(devices: Iterable[Evidence]) -> tuple[tuple[str, Any], ...]:
    """What devices say, for people. One that cannot be read hides nothing of the others: its verifier refuses it."""
    found: list[tuple[str, Any]] = []
    for number, device in enumerate(devices):
        try:
            found.append((f"device {number}: what it says", _parsed(device)))
        except BadEvidence as error:
            found.append((f"device {number}: cannot be read", error.message))
    return tuple(found)


def _parsed(evidence: Evidence) -> Any:
    module: Any = registry.verifier(evidence.platform)
    if module is None:
        raise BadEvidence(f"this version cannot read evidence of {evidence.platform!r}")
    return module.parse(evidence.data)


def _events(log: bytes) -> Any:
    from . import eventlog  # noqa: PLC0415 - a reader is loaded when its format is met

    return eventlog.events(log)


# --- binary ---


def _quote(data: bytes) -> Found:
    tee = int.from_bytes(data[4:8], "little")
    version = int.from_bytes(data[:2], "little")
    platform, name = ("tdx", "TDX") if tee == _TEE_TDX else ("sgx", "SGX")
    return _of(f"an Intel {name} quote, version {version}", Evidence(platform, data))


def _snp(data: bytes) -> Found:
    return _of(f"an AMD SEV-SNP report, version {int.from_bytes(data[:4], 'little')}", Evidence("sev_snp", data))


def _nitro(data: bytes) -> Found:
    return _of("an attestation document of AWS Nitro", Evidence("nitro", data))


def _log(data: bytes) -> Found:
    return Found("an event log", claims=(("events", _events(data)),), hint=_LOG)


def _td_report(data: bytes) -> Found:
    """Raises BadEvidence, always: that it is none is what its holder must be told."""
    from . import dcap  # noqa: PLC0415

    try:
        dcap.parse(data)
    except BadEvidence as error:
        raise BadEvidence(error.message, hint=_TD) from error
    raise AssertionError


def _google(data: bytes) -> Found:
    from . import tpm_foreign  # noqa: PLC0415

    claims, certificates = tpm_foreign.from_google(data)
    came = documents((CERTIFICATE, certificate.der) for certificate in certificates)
    return _of("a TPM quote as Google's tools keep it", Evidence("tpm", claims.encode()), came)


def _paravisor(data: bytes) -> Found:
    """The report that Azure's virtual TPM keeps: on SEV-SNP the hardware's report is whole in it."""
    from . import azure_foreign  # noqa: PLC0415

    report = azure_foreign.HclReport.parse(data)
    claims = (("paravisor's report", report),)
    if report.kind != azure_foreign.SNP:
        return Found("a paravisor's report on Intel TDX (no quote is in it)", claims=claims, hint=_TD)
    found = _of("a paravisor's report on AMD SEV-SNP", Evidence("sev_snp", report.hardware[:_SNP_BYTES]))
    return replace(found, claims=(*claims, *found.claims))


def _gpu(data: bytes) -> Found:
    from . import spdm  # noqa: PLC0415

    kind, hint = "an NVIDIA device's report without its certificates", "Its certificates go with it: --certificates FILE"
    return Found(kind, claims=(("report", spdm.parse(data)),), report_bytes=data, hint=hint)


def with_certificates(found: Found, certificates: bytes) -> Found:
    """A device's report and its certificates (PEM, leaf first), which came in two files. Raises BadEvidence."""
    from . import nvidia_device  # noqa: PLC0415

    if not found.report_bytes:
        raise BadEvidence(f"{found.kind} does not want certificates beside it")
    return _devices("an NVIDIA device's report", (nvidia_device.evidence(found.report_bytes, certificates),))


def _is_quote(data: bytes) -> bool:
    known = {_TEE_SGX, _TEE_TDX}
    return (
        int.from_bytes(data[:2], "little") in {3, 4, 5} and int.from_bytes(data[4:8], "little") in known and len(data) > 436
    )


_BINARY: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Found]], ...] = (
    (lambda d: len(d) == _SNP_BYTES and int.from_bytes(d[:4], "little") in {2, 3, 4, 5}, _snp),
    (lambda d: len(d) == _TDREPORT_BYTES and d[0] == _TEE_TDX, _td_report),
    (_is_quote, _quote),
    (lambda d: d[:1] == b"\xd2" or d[:2] in {b"\x84\x44", b"\x84\x58"}, _nitro),
    (lambda d: b"Spec ID Event03" in d[:96], _log),
    (lambda d: d[:4] == b"HCLA", _paravisor),
    (lambda d: d[:2] in {b"\x11\xe0", b"\x12\xe0"}, _gpu),
    (lambda d: d[:1] == b"\x0a" and not d.isascii(), _google),  # a protocol buffer whose first field is text
)


# --- JSON ---


def _own_report(value: dict[str, Any]) -> Found:
    report = AttestationReport.from_json(value)
    found = _of(f"an attestation report (aci/1), {report.evidence.platform}", report.evidence, report.endorsements)
    return replace(found, report=report, claims=(("keyset", report.keyset), *found.claims))


def _own_evidence(value: dict[str, Any]) -> Found:
    evidence = Evidence.from_json(value)
    if evidence.platform in registry.DEVICES:
        return _devices("evidence of a device", (evidence,))
    return _of(f"evidence of {evidence.platform}", evidence)


def _tsm(value: dict[str, Any]) -> Found:
    """What Linux answers through configfs-tsm, as some keep it: provider, outblob, auxblob."""
    provider, out = str(value["provider"]).strip(), unb64_loose(value["outblob"])
    aux = unb64_loose(value.get("auxblob") or "")
    if provider == "tdx_guest":
        return _quote(out)
    if provider != "sev_guest":
        raise BadEvidence(f"no provider of configfs-tsm that is known here: {provider[:32]!r}")
    from . import snp_key  # noqa: PLC0415

    found = _snp(out)
    return replace(found, endorsements=snp_key.certificates_of_auxblob(aux)) if aux else found


def _google_tdx(value: object) -> Found:
    """A quote in Google's attestation JSON."""
    if not _has("quote")(value):
        raise BadEvidence("no quote is in it")
    assert isinstance(value, dict)
    return _quote(unb64_loose(value["quote"]))


def _azure_snp(data: bytes) -> Found:
    from . import azure_foreign  # noqa: PLC0415

    claims, certificate = azure_foreign.from_trustee_snp(data)
    came = documents([(CERTIFICATE, certificate.der)])
    return _of("Azure's virtual TPM on AMD SEV-SNP", Evidence("azure_snp", claims.encode()), came)


def _azure_tdx(data: bytes) -> Found:
    from . import azure_foreign  # noqa: PLC0415

    return _of("Azure's virtual TPM on Intel TDX", Evidence("azure_tdx", azure_foreign.from_trustee_tdx(data).encode()))


def _tpm(data: bytes) -> Found:
    from . import tpm_foreign  # noqa: PLC0415

    return _of("a TPM quote", Evidence("tpm", tpm_foreign.from_trustee(data).encode()))


def _tpm2_quote(data: bytes) -> Found:
    from . import tpm_foreign  # noqa: PLC0415

    return _of("a TPM quote as tpm2-tools write it", Evidence("tpm", tpm_foreign.from_tpm2_json(data).encode()))


def _service(data: bytes) -> Found:
    from . import aci_report  # noqa: PLC0415

    report = aci_report.parse(data)
    found = _of(f"a report of a dstack service ({report.layout.value})", report.evidence, report.endorsements)
    claims = (*found.claims, *_of_devices(report.devices))
    return replace(found, devices=report.devices, service=report, claims=claims)


def _gpus(data: bytes) -> Found:
    from . import nvidia_device  # noqa: PLC0415

    return _devices("reports of NVIDIA devices", nvidia_device.from_sdk(data))


def _nras(data: bytes) -> Found:
    return _devices("tokens of NVIDIA's attestation service", (Evidence("nras", data),))


def _devices(kind: str, devices: Iterable[Evidence]) -> Found:
    found = tuple(devices)
    for device in found:
        _parsed(device)
    return Found(f"{kind} ({len(found)})", claims=_of_devices(found), devices=found)


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and set(names) <= set(value)


_is_ear = _has("eat_profile", "submods")


def _is_sdk(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_has("arch", "evidence", "certificate")(item) for item in value)


def _is_nras(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], list) and value[0][:1] == ["JWT"]


# What a JSON value looks like, and what reads it: from the value, or from the bytes where the reader is strict about those.
_JSON: tuple[tuple[Callable[[Any], bool], Callable[[Any, bytes], Found]], ...] = (
    (lambda v: _has("api_version", "attestation")(v) and _is_ours(v), lambda v, _: _own_report(v)),
    (_has("platform", "data"), lambda v, _: _own_evidence(v)),
    (_has("provider", "outblob"), lambda v, _: _tsm(v)),
    (_has("hcl_report", "vcek"), lambda _, d: _azure_snp(d)),
    (_has("hcl_report", "td_quote"), lambda _, d: _azure_tdx(d)),
    (_has("ak_public", "tpm_quote"), lambda _, d: _tpm(d)),
    (_has("tpm2_quote"), lambda _, d: _tpm2_quote(d)),
    (_has("tdx"), lambda v, _: _google_tdx(v["tdx"])),
    (_is_ear, lambda v, _: Found("the claims of an EAR, unsigned", claims=(("claims", v),), hint=_EAR)),
    (_is_sdk, lambda _, d: _gpus(d)),
    (_is_nras, lambda _, d: _nras(d)),
    (lambda v: isinstance(v, list) and bool(v) and _has("imr", "event_type")(v[0]), lambda _, d: _log(d)),
    (lambda v: isinstance(v, dict) and not _ENDORSEMENT.isdisjoint(v), lambda _, __: _beside()),
    (lambda v: isinstance(v, dict), lambda _, d: _service(d)),
)


def _is_ours(value: dict[str, Any]) -> bool:
    """Whether a report's evidence is in our form; other services put their own layout there."""
    attestation = value.get("attestation")
    evidence = attestation.get("evidence") if isinstance(attestation, dict) else None
    return isinstance(evidence, dict) and "data" in evidence and "endorsements" in evidence


def unb64_loose(text: object) -> bytes:
    """Base64 in either alphabet, with or without padding, as others write it. Raises BadEvidence."""
    if not isinstance(text, str):
        raise BadEvidence("base64 was expected")
    try:
        bare = text.encode("ascii").translate(_STANDARD, _SPACE).rstrip(b"=")
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:  # of which a UnicodeEncodeError is one
        raise BadEvidence("not base64") from error


def _unwrapped(data: bytes) -> bytes:
    """The bytes inside a text of hex or base64; else the same bytes."""
    text = data.translate(None, _SPACE)
    if len(text) < 64 or not text.isascii():
        return data
    try:
        return bytes.fromhex(text.decode().removeprefix("0x"))
    except ValueError:
        pass
    try:
        return unb64_loose(text.decode())
    except BadEvidence:
        return data


def detect(data: bytes) -> Found:
    """Read evidence of any kind that this version knows, raw or as a text of hex or base64.

    Args:
        data: at most 4 MiB, and in JSON 32,768 values. **Untrusted.**

    Raises:
        BadEvidence: it is none of the kinds, or not what it begins as.
    """
    if len(data) > MAX_BYTES:
        raise BadEvidence(f"longer than {MAX_BYTES} bytes")
    try:
        return _detect(data) or _detect(_unwrapped(data)) or _refuse(data)
    except BadEvidence:
        raise
    except StrongroomError as error:
        raise BadEvidence(error.message) from error


def _token(data: bytes) -> Found | None:
    """An EAR as a signed token: its claims can be looked at. Whose key counts is a matter of the service that signed it."""
    parts = data.split(b".") if data.startswith(b"eyJ") else []
    if len(parts) != 3:
        return None
    claims = wire.loads(unb64_loose(parts[1].decode("ascii", "replace")), max_bytes=MAX_BYTES, max_values=MAX_VALUES)
    kind = "the claims of an EAR, whose signature was not looked at"
    return Found(kind, claims=(("claims", claims),), hint=_EAR) if _is_ear(claims) else None


def _detect(data: bytes) -> Found | None:
    if data.lstrip()[:3] == b"eyJ":
        return _token(data.strip())
    if b"\0" in data or data.lstrip()[:1] not in {b"{", b"["}:  # no JSON holds a zero byte
        return next((reader(data) for begins, reader in _BINARY if begins(data)), None)
    value = wire.loads(data, max_bytes=MAX_BYTES, max_values=MAX_VALUES)
    for looks, read in _JSON:
        if looks(value):
            return read(value, data)
    return None


def _refuse(data: bytes) -> Found:
    if b"-----BEGIN" in data[:4096] or data.lstrip()[:1] == b"<" or data[:2] == _DER or _is_table(data):
        return _beside()
    raise BadEvidence("of no kind that is known here", hint=_KNOWN)


def _is_table(data: bytes) -> bool:
    """Whether it is the table of certificates that a host gives its SEV-SNP guest (configfs-tsm's ``auxblob``)."""
    from . import snp_key  # noqa: PLC0415

    try:
        return bool(snp_key.certificates_of_auxblob(data).documents)
    except BadEndorsement:
        return False


def _beside() -> Found:
    """What vendors say about evidence is a likely mistake for it."""
    raise BadEvidence(
        "a certificate, or another document that goes beside evidence, and none itself",
        hint="It goes beside the evidence: strongroom attest verify EVIDENCE --endorsements FILE",
    )
