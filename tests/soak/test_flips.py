"""Every single bit of every positive sample, flipped: refused, or harmless for a named reason. ``make soak`` runs it.

``-s`` shows how each sample ended. A sample is evidence, or a document that vouches for it, together with everything that a
verifier needs to accept it; what is made by our own vendors always, what others' hardware signed where it is at hand.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import pki_amd
import pki_azure
import pki_dstack
import pki_intel
import pki_nitro
import pki_nvidia
import pki_tpm
from evidence_case import flips
from real import FOLDER, read, real
from strongroom import wire
from strongroom.attest import dcap, dstack_log, nitro, nras, nvidia, rim, sgx, simulated, snp, tdx, tpm
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Measurement, Roots
from strongroom.attest.roots import ROOTS
from strongroom.errors import StrongroomError
from strongroom.transcript import Transcript

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Attribute's length"),  # the older of Google's authorities has long names
]

PEM_SPACE = "white space of the certificates' PEM, or the zero byte that may end it: nobody signed it, and it says nothing"
SDK_TOKEN = "the SDK's own token, signed with a secret that everybody knows: it is not read"
ANOTHERS = "the chain's own copy of a certificate that came along otherwise"
LOG_TEXT = "the type, label or opaque payload of a firmware's event, or white space of the JSON: the digests are what counts"


@dataclass(frozen=True)
class Sample:
    """Something that is accepted as it is.

    Args:
        data: its bytes.
        accepted: whether a verifier accepts other bytes in its place.
        harmless: why a change of this byte, to these bytes, changes nothing; ``""`` where there is no such reason.
    """

    data: bytes
    accepted: Callable[[bytes], bool]
    harmless: Callable[[int, bytes], str] = lambda _place, _changed: ""


def ended(sample: Sample) -> Counter[str]:
    """How the flip of each bit ended; every bit, and no unnamed one."""
    assert sample.accepted(sample.data)
    found: Counter[str] = Counter()
    unnamed = []
    for bit, changed in flips(sample.data):
        if not sample.accepted(changed):
            found["refused"] += 1
            continue
        reason = sample.harmless(bit // 8, changed)
        found[reason] += 1
        if not reason:
            unnamed.append(bit)
    assert unnamed == []
    assert found.total() == 8 * len(sample.data)
    return found


def tell(name: str, found: Counter[str]) -> None:
    reasons = "; ".join(f"{count} harmless ({reason})" for reason, count in found.items() if reason != "refused")
    print(f"\n{name}: {found.total()} flips, {found['refused']} refused" + (f", {reasons}" if reasons else ""))


def in_platform_tests(name: str) -> ModuleType:
    """A platform's own tests, whose samples and reasons are used here."""
    return importlib.import_module(f"test_{name}")


def genuine(module: Any, evidence: Callable[[bytes], Evidence], given: Endorsements, roots: Roots, at: int, **more: Any):
    """Whether the platform's own checks pass: what is signed is what they look at."""

    def accepted(data: bytes) -> bool:
        transcript = Transcript(module.STEPS)
        try:
            module.verify(evidence(data), given, roots=roots, at=at, transcript=transcript, **more)
        except StrongroomError:
            return False
        return transcript.ok

    return accepted


def pem_space(data: bytes) -> Callable[[int, bytes], str]:
    """In an Intel quote."""
    known = in_platform_tests("tdx").harmless(data)
    return lambda place, _: PEM_SPACE if place in known else ""


# --- what our own vendors make ----------------------------------------------------------------------------------------


def _intel(world: pki_intel.World) -> Sample:
    platform, module = world.tee.lower(), {"TDX": tdx, "SGX": sgx}[world.tee]
    data = world.quote()
    accepted = genuine(
        module, partial(Evidence, platform), world.endorsements(), world.roots(), pki_intel.AT, ask_second=False
    )
    return Sample(data, accepted, pem_space(data))


def _intel_document(name: str) -> Sample:
    world = pki_intel.World()
    held, evidence, roots = world.documents(), world.evidence(), world.roots()

    def accepted(data: bytes) -> bool:
        given = Endorsements(tuple({**held, name: Endorsement(held[name].media_type, data)}.values()))
        return genuine(tdx, lambda _: evidence, given, roots, pki_intel.AT, ask_second=False)(b"")

    before = held[name].data
    leaf = before.find(b"-----END CERTIFICATE-----\n")

    def harmless(place: int, _: bytes) -> str:
        if name != "tcb signing chain":
            return ""
        return PEM_SPACE if before[place : place + 1] == b"\n" else ANOTHERS if place >= leaf else ""

    return Sample(before, accepted, harmless)


def _amd(name: str, place: int | None = None) -> Sample:
    """A report, or one of the documents beside it."""
    module = in_platform_tests("snp")
    case = module.positives()[name]
    if place is None:
        return Sample(case.data, lambda data: module.accepts(replace(case, data=data)))

    def accepted(data: bytes) -> bool:
        held = list(case.documents)
        held[place] = replace(held[place], data=data)
        return module.accepts(replace(case, documents=tuple(held)))

    return Sample(case.documents[place].data, accepted)


def _nitro() -> Sample:
    world = pki_nitro.World()
    return Sample(world.data, genuine(nitro, partial(Evidence, "nitro"), Endorsements(), world.roots, world.at))


def _tpm(place: int | None = None) -> Sample:
    world = pki_tpm.World()
    evidence, held, roots = world.evidence, world.endorsements.documents, world.roots
    if place is None:
        given = Endorsements(held)
        return Sample(evidence.data, genuine(tpm, partial(Evidence, "tpm"), given, roots, world.at))

    walk = in_platform_tests("tpm").walk

    def accepted(data: bytes) -> bool:
        given = Endorsements((*held[:place], replace(held[place], data=data), *held[place + 1 :]))
        return walk(tpm, evidence, given, roots, world.at).code == "ok"  # its terms ask for the lists

    return Sample(held[place].data, accepted)


def _azure(platform: str) -> Sample:
    world, meant = pki_azure.World(platform=platform), in_platform_tests("azure").meant
    data = world.evidence.data
    same = meant(data)
    accepted = genuine(world.verifier, partial(Evidence, platform), world.endorsements, world.roots, world.at)
    return Sample(data, accepted, lambda _, changed: PEM_SPACE if meant(changed) == same else "")


def _gpu(name: str) -> Sample:
    world = pki_nvidia.World()
    given, roots = world.endorsements, world.roots
    accepted = genuine(nvidia, partial(Evidence, "nvidia_cc"), given, roots, world.at)
    if name == "whole":
        return Sample(world.evidence.data, accepted)
    container = world.device.container
    return Sample(world.device.report, lambda data: accepted(wire.encode({**container, "report": wire.b64(data)})))


def _gpu_document(media: str, number: int = 0) -> Sample:
    world = pki_nvidia.World()
    held, evidence, roots = world.endorsements.documents, world.evidence, world.roots
    place = [place for place, one in enumerate(held) if media in one.media_type][number]
    walk = in_platform_tests("nvidia").walk

    def accepted(data: bytes) -> bool:
        given = Endorsements((*held[:place], replace(held[place], data=data), *held[place + 1 :]))
        return walk(nvidia, evidence, given, roots, world.at, world.terms).code == "ok"  # the terms ask for every answer

    return Sample(held[place].data, accepted)


def _token(*, wrapped: bool) -> Sample:
    world = pki_nvidia.TokenWorld(wrapped=wrapped)
    data = world.evidence.data
    start = data.index(b"{") if wrapped else 0
    accepted = genuine(nras, partial(Evidence, "nras"), world.endorsements, world.roots, world.at)
    return Sample(data, accepted, lambda place, _: SDK_TOKEN if place < start else "")


def _key_set() -> Sample:
    world = pki_nvidia.TokenWorld()
    evidence, roots, (held,) = world.evidence, world.roots, world.endorsements.documents

    def accepted(data: bytes) -> bool:
        return genuine(nras, lambda _: evidence, Endorsements((replace(held, data=data),)), roots, world.at)(b"")

    return Sample(held.data, accepted, _same_key(held.data))


def _same_key(before: bytes) -> Callable[[int, bytes], str]:
    """A key set is signed by nobody: what counts is the key, its name and the certificates that lead to it."""

    def counts(data: bytes) -> Any:
        (key,) = json.loads(data)["keys"]
        return {name: key.get(name) for name in ("crv", "kid", "kty", "x", "y")}, key.get("x5c", [])[:1]

    return lambda _, changed: "a member of the key set that nobody reads" if counts(changed) == counts(before) else ""


def _manifest(data: bytes, roots: tuple[str, ...], at: int) -> Sample:
    def accepted(changed: bytes) -> bool:
        try:
            found = rim.parse(changed)
            found.require_signed()
            rim.require_signers(found, roots=roots, at=at)
        except StrongroomError:
            return False
        return True

    return Sample(data, accepted)


def _made_manifest(number: int) -> Sample:
    return _manifest(pki_nvidia.World().held[number].data, pki_nvidia.World().roots.certificates, pki_nvidia.AT)


def _simulated(part: str) -> Sample:
    from world import NOW, SimulatedPlatform, World

    platform = SimulatedPlatform(lambda: NOW)
    evidence, given = platform.produce(bytes(range(64))), platform.endorsements()
    roots = World.trust().appraisal_policy().roots["simulated"]
    if part == "evidence":
        return Sample(evidence.data, genuine(simulated, partial(Evidence, "simulated"), given, roots, NOW))

    def accepted(data: bytes) -> bool:
        changed = Endorsements((replace(given.documents[0], data=data),))
        return genuine(simulated, lambda _: evidence, changed, roots, NOW)(b"")

    return Sample(given.documents[0].data, accepted)


MADE: Mapping[str, Callable[[], Sample]] = {
    "TDX quote 4": lambda: _intel(pki_intel.World()),
    "TDX quote 4, padded": lambda: _intel(pki_intel.World(trailing=bytes(70))),
    "TDX quote 5": lambda: _intel(pki_intel.World(version=5)),
    "SGX quote": lambda: _intel(pki_intel.World(tee="SGX", version=3)),
    **{
        f"Intel's {name}": partial(_intel_document, name)
        for name in ("tcb info", "qe identity", "root crl", "pck crl", "tcb signing chain")
    },
    **{f"SNP report, {name}": partial(_amd, name) for name in ("genoa", "turin", "vlek")},
    **{
        f"AMD's {what}, {name}": partial(_amd, name, place)
        for name in ("genoa", "turin", "vlek")
        for place, what in enumerate(("leaf", "issuer", "root", "revocation list"))
    },
    "Nitro document": _nitro,
    "TPM quote": _tpm,
    **{
        f"TPM's {what}": partial(_tpm, place)
        for place, what in enumerate(("certificate", "issuer", "root", "revocation list"))
    },
    "vTPM on SNP": partial(_azure, "azure_snp"),
    "vTPM on TDX": partial(_azure, "azure_tdx"),
    "GPU": partial(_gpu, "whole"),
    "GPU's report": partial(_gpu, "report"),
    **{f"OCSP response {n}": partial(_gpu_document, "ocsp", n) for n in range(3)},
    "driver's manifest": partial(_made_manifest, 0),
    "VBIOS's manifest": partial(_made_manifest, 1),
    "NVIDIA's tokens": partial(_token, wrapped=False),
    "NVIDIA's tokens in the SDK's": partial(_token, wrapped=True),
    "NVIDIA's key set": _key_set,
    "simulated evidence": partial(_simulated, "evidence"),
    "simulated endorsement": partial(_simulated, "endorsement"),
}


@pytest.mark.parametrize("name", MADE)
def test_every_bit_of_what_our_own_vendors_made(name: str):
    tell(name, ended(MADE[name]()))


def every(data: bytes) -> range:
    return range(8 * len(data))


LOGS: Mapping[str, Callable[[ModuleType], tuple[Any, str]]] = {
    "guest's log": lambda tests: (tests.GUEST, "tdx"),
    "TPM's log": lambda tests: (tests.TPM, "tpm"),
}


@pytest.mark.parametrize("name", LOGS)
def test_every_bit_of_a_log_that_we_made(name: str):
    tests = in_platform_tests("eventlog")
    log, platform = LOGS[name](tests)
    data = log.encode()
    tell(name, _with_reasons(tests, tests.flips(data, platform, tests.measured(log), every(data))))


def _with_reasons(tests: ModuleType, found: Counter[str]) -> Counter[str]:
    return Counter({tests.HARMLESS.get(reason, reason): count for reason, count in found.items()})


def _renamed(found: Counter[str]) -> Counter[str]:
    return Counter({LOG_TEXT if reason == "harmless" else reason: count for reason, count in found.items()})


def test_every_bit_of_a_log_of_our_own_dstack():
    tests = in_platform_tests("eventlog")
    data = dstack_log.encode(tests.ENTRIES)
    found = tests.dstack_flips(data, tests.make_eventlog.dstack_measurement(tests.ENTRIES), every(data))
    tell("dstack's log", _renamed(found))


def test_every_bit_of_the_log_in_our_own_dstacks_evidence():
    tests = in_platform_tests("dstack")
    tell("dstack's evidence, log", _renamed(tests.flips(tests.EVIDENCE, every(tests.EVIDENCE.event_log))))


def test_every_bit_of_the_configuration_in_our_own_dstacks_evidence_on_snp():
    tests = in_platform_tests("dstack")
    from strongroom.attest import dstack

    case = pki_dstack.snp_case()
    accepted = genuine(
        dstack,
        lambda data: Evidence("dstack", case.data, event_log=data),
        case.endorsements,
        pki_dstack.snp_roots(),
        case.at,
    )
    assert tests.verified_snp().app.app_id
    tell("dstack's evidence on SNP, configuration", ended(Sample(pki_dstack.CONFIGURATION, accepted)))


# --- what others' hardware signed -------------------------------------------------------------------------------------


def _real_intel(platform: str, file: str) -> Sample | None:
    """A quote at the first time at which everything holds; ``None`` where there is none."""
    tests, module = in_platform_tests(platform), {"tdx": tdx, "sgx": sgx}[platform]
    data = read(file)
    if file == "tdx/google_spr_e4_v4.quote":  # its 39 bytes of another thing are refused
        data = data[:-39]
    for case, entry in tests.ENTRIES:
        if case["file"] == file:
            given = in_platform_tests("tdx").collateral(entry)
            accepted = genuine(module, partial(Evidence, platform), given, tests.INTEL, entry["at"], ask_second=False)
            if accepted(data):
                return Sample(data, accepted, pem_space(data))
    return None


def _quotes(platform: str) -> list[str]:
    if not FOLDER.is_dir():
        return []
    return list(dict.fromkeys(case["file"] for case, _ in in_platform_tests(platform).ENTRIES))


@real
@pytest.mark.parametrize("file", _quotes("tdx") + _quotes("sgx"))
def test_every_bit_of_a_real_quote(file: str):
    sample = _real_intel("sgx" if file.startswith("sgx/") else "tdx", file)
    if sample is None:
        print(f"\n{file}: at no time does everything hold that was kept")
        return
    tell(file, ended(sample))


def _reports() -> list[str]:
    return [fact["report"] for fact in in_platform_tests("snp").FACTS] if FOLDER.is_dir() else []


@real
@pytest.mark.parametrize("file", _reports())
def test_every_bit_of_a_real_snp_report(file: str, monkeypatch):
    tests = in_platform_tests("snp")
    (fact,) = [fact for fact in tests.FACTS if fact["report"] == file]
    if file == "snp/ms_genoa.report":  # of its time no revocation list was kept: everything but S5
        monkeypatch.setattr(snp, "_require_not_revoked", lambda *_: ([], 2**40))
    line, leaf = fact["product"].split("-")[0].lower(), tests.real_leaf(fact["key_cert"])
    case = tests.real_case(read(file), line, leaf)
    accepted = genuine(snp, partial(Evidence, "sev_snp"), case.endorsements, case.roots, case.at)
    tell(file, ended(Sample(case.data, accepted)))
    place = next(n for n, one in enumerate(case.documents) if one.data == leaf.der)

    def with_leaf(data: bytes) -> bool:
        held = [*case.documents]
        held[place] = replace(held[place], data=data)
        return genuine(snp, lambda _: case.evidence, Endorsements(tuple(held)), case.roots, case.at)(b"")

    tell(fact["key_cert"], ended(Sample(leaf.der, with_leaf)))


@real
@pytest.mark.parametrize("file", ["nitro/evervault_beta.cose", "nitro/evervault_debug.cose", "nitro/fortanix_debug.cose"])
def test_every_bit_of_a_real_nitro_document(file: str):
    tests = in_platform_tests("nitro")
    tell(
        file,
        ended(Sample(read(file), genuine(nitro, partial(Evidence, "nitro"), Endorsements(), tests.AWS, tests.AT))),
    )


@real
def test_every_bit_of_a_real_quote_of_googles_tpm():
    tests = in_platform_tests("tpm")
    claims, given = tests._google_2018()
    accepted = genuine(tpm, partial(Evidence, "tpm"), given, tests.GOOGLE_2018, 1_640_000_000)
    tell("tpm/gce_cos85_nononce.pb", ended(Sample(claims.encode(), accepted)))


@real
@pytest.mark.parametrize("file", ["azure_vtpm/snp_v1.json", "azure_vtpm/tdx_flashbots_2025.yaml"])
def test_every_bit_of_a_real_virtual_tpm(file: str):
    tests = in_platform_tests("azure")
    if "snp" in file:
        claims, vcek = tests.azure_foreign.from_trustee_snp(read(file))
        (given, at), roots, verifier = tests._milan(key=vcek.der), tests.AMD, tests.AZURE_SNP
    else:
        claims, _ = tests._flashbots()
        given, at, roots, verifier = tests._collateral(
            "tcbinfo_tdx_90c06f000000_2026-02-18_ev18_4552.json",
            "qeid_td_qe_2026-01-26_ev18_a1c1.json",
            "crl_pck_platform_ca_2026-01-26_66c9.der",
        ), 1_771_412_400, tests.INTEL, tests.AZURE_TDX  # fmt: skip
    data = claims.encode()
    same = tests.meant(data)
    platform = "azure_snp" if "snp" in file else "azure_tdx"
    accepted = genuine(verifier, partial(Evidence, platform), given, roots, at)
    tell(file, ended(Sample(data, accepted, lambda _, changed: PEM_SPACE if tests.meant(changed) == same else "")))


def _devices() -> Iterator[str]:
    for case in in_platform_tests("nvidia").REAL if FOLDER.is_dir() else ():
        if case["signature"] is True:
            yield case["file"]


@real
@pytest.mark.parametrize("file", list(_devices()))
def test_every_bit_of_a_real_devices_report(file: str):
    """Up to the manifests, which nobody kept: G6 is the first check that does not hold."""
    tests = in_platform_tests("nvidia")
    (case,) = [case for case in tests.REAL if case["file"] == file]
    evidence = tests.real_evidence(case)
    claims = nvidia.parse(evidence.data)
    held = json.loads(evidence.data)

    def accepted(report: bytes) -> bool:
        data = wire.encode({**held, "report": wire.b64(report)})
        transcript = Transcript(nvidia.STEPS)
        with contextlib.suppress(StrongroomError):
            nvidia.verify(
                replace(evidence, data=data), Endorsements(), roots=tests.NVIDIA, at=1_750_000_000, transcript=transcript
            )
        return next(check.number for check in transcript.checks if check.code) == "G6"

    tell(file, ended(Sample(claims.report.data, accepted)))


def _manifests() -> list[str]:
    good = (c for c in in_platform_tests("rim").REAL if c["digest"] and c["signature"] is True and c["chain"] == "True")
    return [case["file"] for case in good] if FOLDER.is_dir() else []


@real
@pytest.mark.parametrize("file", _manifests())
def test_every_bit_of_a_real_manifest(file: str):
    tests = in_platform_tests("rim")
    data = read(file)
    at = max(certificate.not_before for certificate in rim.parse(data).path)
    tell(file, ended(_manifest(data, tests.NVIDIA, at)))


REAL_LOGS = {
    "tdx/lunal_live.ccel.bin": "tdx/lunal_live_v4.quote",
    "tdx/gcp_cos113.ccel.bin": "tdx/gcp_cos113_v4.quote",
    "eventlog/CCEL_AAEL_alibabacloud.bin": "",
    "eventlog/tpm_cos-101-amd-sev.bin": "",
}


@real
@pytest.mark.parametrize("file", REAL_LOGS)
def test_every_bit_of_a_real_log(file: str):
    """Against the registers of its quote; where none was kept, those that it leads to itself.

    What fills the rest of the area is one byte again and again: of that, the first and the last 64.
    """
    tests = in_platform_tests("eventlog")
    data, guest = read(file), "tpm_" not in file
    log = tests.tcg_log.parse(data, guest=guest)
    signed = tests.rtmrs(read(REAL_LOGS[file])) if REAL_LOGS[file] else tests.measured(log)
    fill = log.padding[1] if log.padding else 0
    bits = [*range(8 * (len(data) - fill + min(fill, 64))), *range(8 * (len(data) - min(fill, 64)), 8 * len(data))]
    found = tests.flips(data, "tdx" if guest else "tpm", signed, sorted(set(bits)))
    tell(f"{file} ({fill} bytes of padding)", _with_reasons(tests, found))


@real
@pytest.mark.parametrize("file", ["dstack_quote_report.json", "tdx_lite_getquote.json"])
def test_every_bit_of_a_real_log_of_dstack(file: str):
    tests, logs = in_platform_tests("dstack"), in_platform_tests("eventlog")
    report, measurement = tests.answered(file), tests.verified_really(file).measurement
    assert isinstance(measurement, Measurement)
    data = report.evidence.event_log
    tell(f"dstack/{file}, log", _renamed(logs.dstack_flips(data, measurement, every(data))))


@real
@pytest.mark.parametrize("file", ["dstack_quote_report.json", "tdx_lite_getquote.json"])
def test_every_bit_of_a_real_quote_of_dstack(file: str):
    tests = in_platform_tests("dstack")
    quote = tests.answered(file).evidence.data
    given = Endorsements(tuple(Endorsement(kind, read(f"collateral/{path}")) for kind, path in tests.COLLATERAL))
    roots = Roots(certificates=tuple(ROOTS["tdx"].values()))
    accepted = genuine(tdx, partial(Evidence, "tdx"), given, roots, tests.JUNE_2026, ask_second=False)
    tell(f"dstack/{file}, quote", ended(Sample(quote, accepted, pem_space(quote))))


def test_no_reason_is_empty_and_every_sample_has_a_name():
    assert all((PEM_SPACE, SDK_TOKEN, ANOTHERS, LOG_TEXT))
    assert len(MADE) > 35
    assert re.match("TDX", next(iter(MADE)))
    assert dcap.parse(pki_intel.World().quote())
    assert pki_amd.ROOTS
