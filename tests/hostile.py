"""Every parser of bytes that anybody may have written, with its cap; hostile bytes up to that cap; and what reading takes.

``tests/test_bounds.py`` asserts what must hold on any machine, ``bench/bounds.py`` measures.
"""

from __future__ import annotations

import base64
import copy
import gc
import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pki_amd
import pki_azure
import pki_dstack
import pki_intel
import pki_nvidia
import pki_tpm
import test_composite
from evidence_files import NONCE, bundle, file, machine
from strongroom import ledger
from strongroom.app.endorsements import bundle as bundles
from strongroom.app.endorsements.description import describe
from strongroom.app.endorsements.intel import MAX_CRL_ANSWER, read_revocation_list
from strongroom.app.endorsements.request import parsed
from strongroom.app.endorsements.web import Answer
from strongroom.asset.manifest import MAX_MANIFEST_BYTES, Manifest
from strongroom.attest import (
    aci_report,
    azure_claims,
    azure_foreign,
    binding,
    dcap,
    detect,
    dstack_log,
    eventlog,
    intel_collateral,
    intel_pck,
    nras_token,
    nvidia_device,
    ocsp,
    registry,
    rim,
    scale,
    simulated,
    snp_key,
    spdm,
    tcg_log,
    tpm,
    tpm2,
    tpm_foreign,
    tpm_quote,
    x509,
)
from strongroom.attest.appraisal_policy import MAX_POLICY_BYTES, AppraisalPolicy
from strongroom.attest.endorsements import CERTIFICATE, JWK_SET, NVIDIA_RIM, OCSP_RESPONSE, PEM_CHAIN
from strongroom.attest.evidence import (
    MAX_BINDING_BYTES,
    MAX_ENDORSEMENT_BYTES,
    MAX_EVENT_LOG_BYTES,
    MAX_EVIDENCE_BYTES,
    Endorsement,
    Endorsements,
    Measurement,
)
from strongroom.attest.keyset import AttestationReport, Keyset, report_data
from strongroom.checkpoint import MAX_NOTE_BYTES, Checkpoint
from strongroom.code import MAX_BUNDLE_BYTES, CodeBundle
from strongroom.errors import StrongroomError
from strongroom.lock import MAX_LOCK_BYTES, Lock
from strongroom.party import Party
from strongroom.wire import MAX_BYTES, MAX_VALUES

SECONDS = 0.1  # the goal for one reading
MOST_MEMORY = 64_000_000  # bytes, likewise
SAMPLE = 12  # places of a good file at which it is made hostile


@dataclass(frozen=True)
class Parser:
    """A reader of untrusted bytes.

    Args:
        read: from the bytes, all of it: what is read only when it is asked for is asked for.
        most: the size up to which it reads them, in bytes.
        good: what it reads, so that hostile bytes come further than its first check; empty where there is none.
        covers: the functions of the package that this is the test of.
        refuses: whether what is no such thing raises; else it is shown as nothing, and its bytes are all there is to see.
    """

    read: Callable[[bytes], object]
    most: int
    good: Callable[[], bytes] = bytes
    covers: tuple[str, ...] = ()
    refuses: bool = True


def _platform(name: str, most: int, good: Callable[[], bytes], *covers: str) -> Parser:
    def read(data: bytes) -> object:
        module: Any = registry.verifier(name)
        return module.parse(data)

    return Parser(read, most, good, covers)


def _document(*names: str, media_type: str) -> Callable[[], bytes]:
    def good() -> bytes:
        made: dict[str, Callable[[], Endorsements]] = {
            "intel": lambda: pki_intel.World().endorsements(),
            "nvidia": lambda: pki_nvidia.World().endorsements,
            "nras": lambda: pki_nvidia.TokenWorld().endorsements,
        }
        return next(d.data for name in names for d in made[name]().documents if d.media_type == media_type)

    return good


def _certificate(data: bytes) -> object:
    found = x509.Certificate(data)
    return found, found.subject, found.extensions(), describe(Endorsement(CERTIFICATE, data))


def _list(data: bytes) -> object:
    found = x509.RevocationList(data)
    return found, [found.find(serial) for serial in (0, 1, 1 << 100)] if hasattr(found, "find") else None


def _bound(data: bytes) -> object:
    own = AttestationReport.parse(machine("report-with-gpus").data)
    return binding.check(own.keyset, report_data(own.keyset.digest, NONCE), own.evidence.devices, data)


def _kept(media_type: str) -> Callable[[bytes], object]:
    return lambda data: describe(Endorsement(media_type, data))


LOCK_LINE = b"a==1 ; os_name == 'posix' --hash=sha256:" + b"0" * 64 + b"\n"
QUOTE_BYTES = dcap.MAX_QUOTE_BYTES + dcap.MAX_PADDING_BYTES


def _many(count: int) -> bytes:
    """A bundle of as many documents as there may be."""
    documents = [bundles.Document(Endorsement(PEM_CHAIN, b"%07d" % n * 500), "") for n in range(count)]
    return bundles.Bundle(tuple(documents)).encode()


def _pem_list(der: bytes) -> bytes:
    text = base64.encodebytes(der)
    return b"-----BEGIN X509 CRL-----\n" + text + b"-----END X509 CRL-----\n"


def _table() -> bytes:
    return base64.urlsafe_b64decode(json.loads(file("configfs-tsm, SNP").data)["auxblob"] + "==")


def _measurement() -> bytes:
    return machine("tdx").measurement.encode()


PARSERS: dict[str, Parser] = {
    # --- platforms
    "TDX quote": _platform(
        "tdx", QUOTE_BYTES, lambda: machine("tdx").data, "tdx.parse", "dcap.parse", "intel_pck.PckExtension.parse"
    ),
    "SGX quote": _platform("sgx", QUOTE_BYTES, lambda: machine("sgx").data, "sgx.parse"),
    "SNP report": _platform("sev_snp", 1184, lambda: machine("sev_snp").data, "snp.parse", "snp_report.parse"),
    "dstack's evidence": _platform("dstack", MAX_EVIDENCE_BYTES, lambda: machine("dstack").evidence.data, "dstack.parse"),
    "Nitro document": _platform("nitro", 16 << 10, lambda: machine("nitro").data, "nitro.parse", "nitro_document.parse"),
    "TPM evidence": _platform("tpm", tpm.MAX_TPM_BYTES, lambda: machine("tpm").evidence.data, "tpm.parse"),
    "Azure's evidence": _platform(
        "azure_snp",
        azure_claims.MAX_AZURE_BYTES,
        lambda: machine("azure_snp").evidence.data,
        "azure_claims.parse",
        "azure.AzurePlatform.parse",
    ),
    "Azure's evidence on TDX": _platform(
        "azure_tdx", azure_claims.MAX_AZURE_BYTES, lambda: machine("azure_tdx").evidence.data
    ),
    "NVIDIA device": _platform(
        "nvidia_cc",
        nvidia_device.MAX_EVIDENCE_BYTES,
        lambda: pki_nvidia.World().evidence.data,
        "nvidia_device.parse",
    ),
    "NVIDIA's tokens": _platform(
        "nras", nras_token.MAX_EVIDENCE_BYTES, lambda: pki_nvidia.TokenWorld().evidence.data, "nras_token.parse"
    ),
    "simulated evidence": _platform("simulated", MAX_EVIDENCE_BYTES, bytes, "simulated.parse"),
    # --- parts of evidence
    "NVIDIA report": Parser(spdm.parse, spdm.MAX_REPORT_BYTES, lambda: file("GPU's report").data, ("spdm.parse",)),
    "NVIDIA SDK's list": Parser(
        nvidia_device.from_sdk,
        nvidia_device.MAX_SDK_BYTES,
        lambda: file("GPUs by the SDK").data,
        ("nvidia_device.from_sdk",),
    ),
    "TPMS_ATTEST": Parser(
        tpm2.Attest.parse, tpm_quote.MAX_QUOTE_BYTES, lambda: pki_tpm.World().message, ("tpm2.Attest.parse",)
    ),
    "TPMT_PUBLIC": Parser(tpm2.Public.parse, 1024, lambda: pki_tpm.World().described, ("tpm2.Public.parse",)),
    "TPMT_SIGNATURE": Parser(
        tpm2.Signature.parse, tpm_quote.MAX_SIGNATURE_BYTES, lambda: pki_tpm.World().signed, ("tpm2.Signature.parse",)
    ),
    "Azure's runtime data": Parser(
        azure_claims.RuntimeData.parse,
        azure_claims.MAX_RUNTIME_BYTES,
        pki_azure.runtime_data,
        ("azure_claims.RuntimeData.parse",),
    ),
    "paravisor's report": Parser(
        azure_foreign.HclReport.parse, 8 << 10, lambda: file("paravisor on SNP").data, ("azure_foreign.HclReport.parse",)
    ),
    "confidential containers' TPM": Parser(
        tpm_foreign.from_trustee,
        tpm_foreign.MAX_FOREIGN_BYTES,
        lambda: file("TPM by trustee").data,
        ("tpm_foreign.from_trustee",),
    ),
    "confidential containers' Azure, SNP": Parser(
        azure_foreign.from_trustee_snp,
        tpm_foreign.MAX_FOREIGN_BYTES,
        lambda: file("vTPM on SNP by trustee").data,
        ("azure_foreign.from_trustee_snp",),
    ),
    "confidential containers' Azure, TDX": Parser(
        azure_foreign.from_trustee_tdx,
        tpm_foreign.MAX_FOREIGN_BYTES,
        lambda: file("vTPM on TDX by trustee").data,
        ("azure_foreign.from_trustee_tdx",),
    ),
    "tpm2_quote's files": Parser(
        tpm_foreign.from_tpm2_json,
        tpm_foreign.MAX_FOREIGN_BYTES,
        lambda: file("TPM by tpm2-tools").data,
        ("tpm_foreign.from_tpm2_json", "tpm_foreign.from_tpm2_tools"),
    ),
    "go-tpm-tools' message": Parser(
        tpm_foreign.from_google,
        tpm_foreign.MAX_FOREIGN_BYTES,
        lambda: file("TPM by Google").data,
        ("tpm_foreign.from_google",),
    ),
    "NV index": Parser(
        tpm_foreign.certificate_of_nv_index,
        tpm_foreign.MAX_NV_BYTES,
        lambda: pki_tpm.World().certificate.der.ljust(4096, b"\0"),
        ("tpm_foreign.certificate_of_nv_index",),
    ),
    "dstack's container": Parser(
        scale.parse,
        MAX_EVIDENCE_BYTES,
        lambda: bytes.fromhex(json.loads(file("dstack's container").data)["attestation"]),
        ("scale.parse",),
    ),
    "dstack's configuration": Parser(
        dstack_log.configuration,
        dstack_log.MAX_CONFIGURATION_BYTES,
        lambda: pki_dstack.CONFIGURATION,
        ("dstack_log.configuration",),
    ),
    "service's report": Parser(
        aci_report.parse, aci_report.MAX_REPORT_BYTES, lambda: file("dstack's service").data, ("aci_report.parse",)
    ),
    "service's report with GPUs": Parser(
        aci_report.parse, aci_report.MAX_REPORT_BYTES, lambda: file("service with an address").data
    ),
    "keyset": Parser(Keyset.parse, MAX_EVIDENCE_BYTES, lambda: test_composite.keyset().encode(), ("keyset.Keyset.parse",)),
    "our report": Parser(
        AttestationReport.parse, MAX_BYTES, lambda: machine("report-with-gpus").data, ("keyset.AttestationReport.parse",)
    ),
    "measurement": Parser(Measurement.parse, 16 << 10, _measurement, ("evidence.Measurement.parse",)),
    "device binding": Parser(
        _bound, MAX_BINDING_BYTES, lambda: machine("report-with-gpus").evidence.device_binding, ("wire.Envelope.parse",)
    ),
    # --- logs
    "guest's log": Parser(
        lambda d: tcg_log.parse(d, guest=True), MAX_EVENT_LOG_BYTES, lambda: file("guest's log").data, ("tcg_log.parse",)
    ),
    "TPM's log": Parser(
        lambda d: tcg_log.parse(d, guest=False), MAX_EVENT_LOG_BYTES, lambda: file("TPM's log").data, ("eventlog.events",)
    ),
    "dstack's log": Parser(dstack_log.parse, MAX_EVENT_LOG_BYTES, lambda: file("dstack's log").data, ("dstack_log.parse",)),
    "any log, for people": Parser(eventlog.events, MAX_EVENT_LOG_BYTES, lambda: file("guest's log").data),
    "UEFI variable": Parser(
        tcg_log.variable,
        MAX_EVENT_LOG_BYTES,
        lambda: pki_dstack.uefi_variable("SecureBoot", b"\1"),
        ("tcg_log.variable",),
        refuses=False,
    ),
    # --- endorsements
    "certificate": Parser(_certificate, x509.MAX_CERTIFICATE_BYTES, lambda: pki_amd.leaf("genoa"), ("x509.Certificate",)),
    "certificates in PEM": Parser(
        x509.from_pem, MAX_ENDORSEMENT_BYTES, lambda: pki_nvidia.World().device.pem, ("x509.from_pem",)
    ),
    "certificate of a device": Parser(
        _certificate, x509.MAX_CERTIFICATE_BYTES, lambda: pki_nvidia.World().device.path[0].der
    ),
    "revocation list": Parser(_list, x509.MAX_CRL_BYTES, lambda: pki_amd.crl("genoa"), ("x509.RevocationList",)),
    "revocation list in PEM": Parser(
        x509.RevocationList.from_pem,
        2 * x509.MAX_CRL_BYTES,
        lambda: _pem_list(pki_amd.crl("genoa")),
        ("x509.RevocationList.from_pem",),
    ),
    "revocation list, as it comes": Parser(
        read_revocation_list, MAX_CRL_ANSWER, lambda: pki_amd.crl("genoa").hex().encode(), ("intel.read_revocation_list",)
    ),
    "OCSP response": Parser(
        ocsp.Response, ocsp.MAX_OCSP_BYTES, _document("nvidia", media_type=OCSP_RESPONSE), ("ocsp.Response",)
    ),
    "PCK's extension": Parser(
        intel_pck.PckExtension.parse, x509.MAX_CERTIFICATE_BYTES, bytes, ("intel_pck.Platform.parse",)
    ),
    "TCB information": Parser(
        intel_collateral.TcbInfo.parse,
        intel_collateral.MAX_COLLATERAL_BYTES,
        lambda: pki_intel.World().tcb_info(),
        ("intel_collateral.TcbInfo.parse",),
    ),
    "enclave identity": Parser(
        intel_collateral.QeIdentity.parse,
        intel_collateral.MAX_COLLATERAL_BYTES,
        lambda: pki_intel.World().qe_identity(),
        ("intel_collateral.QeIdentity.parse",),
    ),
    "reference manifest": Parser(
        rim.parse, rim.MAX_MANIFEST_BYTES, _document("nvidia", media_type=NVIDIA_RIM), ("rim.parse",)
    ),
    "key set": Parser(
        lambda d: nras_token.keys(Endorsements((Endorsement(JWK_SET, d),)), pki_nvidia.KID),
        nras_token.MAX_KEY_SET_BYTES,
        _document("nras", media_type=JWK_SET),
        ("nras_token.keys",),
    ),
    "key set, for people": Parser(_kept(JWK_SET), MAX_ENDORSEMENT_BYTES, _document("nras", media_type=JWK_SET)),
    "table of certificates": Parser(
        snp_key.certificates_of_auxblob, snp_key.MAX_AUXBLOB_BYTES, _table, ("snp_key.certificates_of_auxblob",)
    ),
    "simulated endorsement": Parser(
        simulated.PlatformEndorsement.parse, 4096, bytes, ("simulated.PlatformEndorsement.parse",)
    ),
    "bundle": Parser(
        bundles.Bundle.parse,
        bundles.MAX_BUNDLE_BYTES,
        lambda: bundle(machine("report-with-gpus").endorsements),
        ("bundle.Bundle.parse",),
    ),
    "bundle of many": Parser(bundles.Bundle.parse, bundles.MAX_BUNDLE_BYTES, lambda: _many(bundles.MAX_DOCUMENTS)),
    "document of others": Parser(
        bundles.foreign, 2 * MAX_ENDORSEMENT_BYTES, lambda: pki_intel.World().tcb_info(), ("bundle.foreign",)
    ),
    "service's answer": Parser(
        lambda d: parsed(Answer(d)), MAX_ENDORSEMENT_BYTES, lambda: b'{"rim":"AAAA"}', ("request.parsed",)
    ),
    # --- documents
    "appraisal policy": Parser(
        AppraisalPolicy.parse,
        MAX_POLICY_BYTES,
        test_composite.WITH_GPUS.encode,
        ("appraisal_policy.AppraisalPolicy.parse",),
    ),
    "manifest": Parser(Manifest.parse, MAX_MANIFEST_BYTES, bytes),
    "code bundle": Parser(CodeBundle.parse, MAX_BUNDLE_BYTES, lambda: CodeBundle({"a.py": "x = 1\n"}).encode()),
    "lock": Parser(lambda data: Lock.parse(data.decode("latin-1")), MAX_LOCK_BYTES, lambda: LOCK_LINE),
    "party": Parser(Party.parse, 16 << 10, bytes),
    "ledger's entry": Parser(ledger.Entry.parse, 1024, bytes),
    "checkpoint": Parser(Checkpoint.parse, MAX_NOTE_BYTES, bytes),
    # --- whatever it is
    "detect": Parser(detect.detect, detect.MAX_BYTES, lambda: machine("report-with-gpus").data, ("detect.detect",)),
    "detect, a service": Parser(detect.detect, detect.MAX_BYTES, lambda: file("service with an address").data),
    "detect, a token": Parser(detect.detect, detect.MAX_BYTES, lambda: file("EAR as a token").data),
}


# --- hostile bytes ------------------------------------------------------------------------------------------------------


def _whole(start: bytes, filler: bytes, most: int, end: bytes = b"") -> bytes:
    """As long as it may be."""
    room = most - len(start) - len(end)
    return start + filler * (room // len(filler)) + end


def of_json(most: int) -> Iterator[tuple[str, bytes]]:
    """JSON that is small to write and large to hold, or slow to read."""
    for count in (MAX_VALUES - 8, MAX_VALUES // 2 - 8, MAX_VALUES // 4 - 8):
        size = min(most, 12 * count)
        yield f"{count} numbers", _whole(b"[", b"0,", min(most, 2 * count), b"0]")
        yield f"{count} floats", _whole(b"[", b"0.12345678901234567,", min(most, 20 * count), b"0]")
        yield f"{count} lists", _whole(b"[", b"[],", min(most, 3 * count // 2), b"[]]")
        yield f"{count} objects", _whole(b"[", b'{"a":0},', min(most, 4 * count), b"{}]")
        names = b",".join(b'"%07x":0' % n for n in range(size // 12))
        yield f"{count} members", b"{" + names + b"}"
    yield "digits", _whole(b"[", b"1" * 4200 + b",", most, b"0]")
    yield "a number", _whole(b"[", b"1", most, b"]")
    yield "a float", _whole(b"[0.", b"1", most, b"]")
    yield "depth", _whole(b"", b"[", min(most, MAX_VALUES))
    yield "depth, closed", b"[" * min(most // 2, 900) + b"]" * min(most // 2, 900)
    for what, filler in (("text", b"a"), ("escapes", b"\\n"), ("hex escapes", b"\\u0001"), ("wide", "\U0001f600".encode())):
        yield what, _whole(b'{"a":"', filler, most, b'"}')
        yield f"{what} as a list", _whole(b'["', filler, most, b'"]')
    yield "white space", _whole(b"[", b" ", most, b"]")


def of_bytes(most: int) -> Iterator[tuple[str, bytes]]:
    """Fillings that some reader of binary might take for a length, a nesting or a repetition."""
    chance = random.Random(most)
    yield "random", chance.randbytes(most)
    fillers = (
        b"\0",
        b"\xff",
        b"\x7f",
        b"\x30\x80",
        b"\x30\x82\xff\xff",
        b"\x05\x00",
        b"\x06\x01\x2a",
        b"\x81",
        b"\xd8\x18",
        b"\x9f",
        b"\x5f\x41\x00",
        b"\xbf",
        b"\x9b\x00\x00\x00\x01",
        b"\x0a\x02\x08\x01",
        b"\x0a\x00",
        b"A",
        b"30",
        b"\n",
        b"<a>",
        b"<a/>",
        b"-----BEGIN CERTIFICATE-----\n",
    )
    for filler in fillers:
        yield repr(filler), _whole(b"", filler, most)
    # DER: one sequence, which holds as many others as there is room for, or one in another
    body = most - 8
    for what, item in (
        ("nulls", b"\x05\x00"),
        ("integers", b"\x02\x01\x01"),
        ("names", b"\x31\x09\x30\x07\x06\x03\x55\x04\x03\x0c\x00"),
    ):
        inside = item * (body // len(item))
        yield f"a sequence of {what}", b"\x30\x84" + len(inside).to_bytes(4, "big") + inside
    nested = b"\x05\x00"
    while len(nested) < min(most, 40_000) - 8:
        nested = b"\x30\x83" + len(nested).to_bytes(3, "big") + nested
    yield "sequences in sequences", nested
    # CBOR: what a COSE document begins with, and a map or list that says to be long
    for what, filler in (("maps", b"\xa1\x01"), ("lists", b"\x81"), ("small numbers", b"\x00"), ("texts", b"\x61\x61")):
        yield f"COSE of {what}", _whole(b"\x84\x44\xa1\x01\x38\x22\xa0\x59\xff\xff\xb9\xff\xff", filler, most)


def of_xml(most: int) -> Iterator[tuple[str, bytes]]:
    yield "elements", _whole(b"<a>", b"<b/>", most, b"</a>")
    yield "attributes", b"<a " + b" ".join(b'a%d=""' % n for n in range(most // 12)) + b"/>"
    yield "namespaces", b"<a " + b" ".join(b'xmlns:a%d="b"' % n for n in range(most // 20)) + b"/>"
    yield "nesting", b"<a>" * (most // 7) + b"</a>" * (most // 7)
    entities = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 12))
    yield "laughs", b'<!DOCTYPE a [<!ENTITY e0 "ha">' + entities + b"]><a>&e11;</a>"


def leaves(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def of_good_json(good: bytes, most: int) -> Iterator[tuple[str, bytes]]:
    """A good file with one member as large as there is room for."""
    original = json.loads(good)
    places = [path for path in leaves(original) if path]
    chance, room = random.Random(len(good)), most - len(good) - 64
    compact = good == json.dumps(original, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    for path in chance.sample(places, min(SAMPLE, len(places))):
        value = copy.deepcopy(original)
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        was = inner[path[-1]]
        spelled = len(json.dumps(was)) + 2
        if isinstance(was, str):
            inner[path[-1]] = "A" * (room // 4 * 4)
        elif isinstance(was, list) and was:
            inner[path[-1]] = was * min(max(1, room // spelled), MAX_VALUES // 4)
        elif isinstance(was, dict):
            inner[path[-1]] = {f"{n:06}": 0 for n in range(min(room // 14, MAX_VALUES // 4))}
        else:
            inner[path[-1]] = 10**400
        how: dict[str, Any] = {"separators": (",", ":"), "sort_keys": True, "ensure_ascii": False} if compact else {}
        yield f"a large {'.'.join(map(str, path))}", json.dumps(value, **how).encode()


def of_good_bytes(good: bytes, most: int) -> Iterator[tuple[str, bytes]]:
    """A good file with bytes after it, within it, or with other numbers in it."""
    chance = random.Random(len(good))
    for filler in (b"\0", b"\xff", good):
        yield f"followed by {filler[:4]!r}", (good + filler * (most // len(filler)))[:most]
    for _ in range(SAMPLE):
        at = chance.randrange(len(good))
        for new in (b"\xff" * 4, bytes(4), b"\x7f\xff", b"\xff\x7f"):
            yield f"{new.hex()} at {at}", good[:at] + new + good[at + len(new) :]
        room = max(0, most - len(good))
        yield f"longer at {at}", good[:at] + good[at : at + 1] * room + good[at:]


def attacks(parser: Parser) -> Iterator[tuple[str, bytes]]:
    """Hostile bytes, none longer than the cap, and one that is."""
    most, good = parser.most, parser.good()
    yield "too long", bytes(most + 1)
    yield from of_json(most)
    yield from of_bytes(most)
    yield from of_xml(most)
    if good:
        yield "good", good
        yield from of_good_bytes(good, most)
        with suppress(ValueError):
            yield from of_good_json(good, most)


# --- what reading takes -------------------------------------------------------------------------------------------------


def read(parser: Parser, data: bytes) -> None:
    """Read, or be refused with one of our errors. Anything else escapes."""
    with suppress(StrongroomError):
        parser.read(data)


def seconds(parser: Parser, data: bytes, rounds: int = 1, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest time of some readings."""
    found = []
    for _ in range(rounds):
        start = clock()
        read(parser, data)
        found.append(clock() - start)
    return min(found)


def allocated(parser: Parser, data: bytes) -> int:
    """The most that Python held for it, in bytes."""
    tracemalloc.start()
    try:
        read(parser, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def resident(parser: Parser, data: bytes) -> int | None:
    """By how much the process grew at most, in bytes: what libraries of C and Rust take too. ``None`` but on Linux."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest so far is what there is now
        before = _status("VmRSS")
        read(parser, data)
        return max(0, _status("VmHWM") - before)
    except (OSError, StopIteration):
        return None


@cache
def hostile(name: str) -> tuple[tuple[str, bytes], ...]:
    return tuple(attacks(PARSERS[name]))
