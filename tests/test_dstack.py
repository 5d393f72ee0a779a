"""dstack: the app that runs is the one that the hardware's registers lead to, and a service's keys are that app's."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

import pki_dstack as pki
import pki_intel
from real import cases, read, real
from strongroom.attest import aci_report, dstack, dstack_kms, dstack_log, eventlog, scale, snp, tdx
from strongroom.attest.aci_report import Layout
from strongroom.attest.dstack import DstackVerified, Terms
from strongroom.attest.dstack_kms import Custody
from strongroom.attest.endorsements import CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO, PEM_CHAIN
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Roots
from strongroom.attest.keyset import Keyset
from strongroom.attest.roots import ROOTS
from strongroom.errors import (
    AttestationError,
    BadEventLog,
    BadEvidence,
    BadField,
    BadKeyset,
    EndorsementMissing,
    EvidenceForged,
    NotBound,
    UnknownRoot,
)
from strongroom.transcript import Status, Transcript

ROOT = Path(__file__).parents[1]
VECTORS = sorted((ROOT / "vectors" / "dstack").glob("*.json"))


def _maker() -> ModuleType:
    """The script that writes the vectors, as a module."""
    spec = importlib.util.spec_from_file_location("make_dstack", ROOT / "vectors" / "make_dstack.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_dstack = _maker()
GUEST: pki.Guest = make_dstack.GUEST
EVIDENCE, ENDORSEMENTS, ROOTS_OF_OURS = GUEST.evidence(), GUEST.endorsements(), GUEST.roots()


def verified(guest: pki.Guest = GUEST) -> DstackVerified:
    transcript = Transcript(dstack.STEPS)
    found = dstack.verify(guest.evidence(), guest.endorsements(), roots=guest.roots(), at=pki.AT, transcript=transcript)
    assert transcript.ok
    return found


def verified_snp(configuration: bytes = pki.CONFIGURATION) -> DstackVerified:
    case = pki.snp_case(configuration)
    evidence = Evidence("dstack", case.data, event_log=configuration)
    transcript = Transcript(dstack.STEPS)
    return dstack.verify(evidence, case.endorsements, roots=pki.snp_roots(), at=case.at, transcript=transcript)


def problem(transcript: Transcript) -> str:
    """The number of the first check that has a code."""
    return next((check.number for check in transcript.checks if check.code), "")


# --- the vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors_of_every_check():
    found = {json.loads(path.read_bytes())["fails"] for path in VECTORS}
    steps = (dstack.STEPS, dstack.TERMS_STEPS, aci_report.STEPS)
    assert found - {""} == {number for one in steps for number, _ in one}


def test_the_vectors_are_those_that_their_script_writes():
    written = {case.name: case.to_json() for case in make_dstack.cases()}
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == written


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path):
    case = json.loads(path.read_bytes())
    transcripts = [Transcript(dstack.STEPS)]
    raised = ""
    try:
        _run(case, transcripts)
    except AttestationError as error:
        raised = error.code
    ended = next(((t, problem(t)) for t in transcripts if problem(t)), None)
    if ended is None:
        assert (case["expect"], case["fails"], raised) == ("ok", "", "")
        return
    found = {check.number: check for check in ended[0].checks if check.code}
    failed = next((check for check in found.values() if check.status is Status.FAILED), None)
    check = failed or found[ended[1]]
    assert check.number == case["fails"]
    assert check.code == case["expect"]
    assert raised in {case["expect"], ""}  # terms are judged without raising, and so is what did not come along


def _run(case: dict[str, Any], transcripts: list[Transcript]) -> None:
    evidence = Evidence.from_json(case["evidence"])
    endorsements, roots = Endorsements.from_json(case["endorsements"]), Roots.from_json(case["roots"])
    found = dstack.verify(evidence, endorsements, roots=roots, at=case["at"], transcript=transcripts[0])
    assert eventlog.check("dstack", evidence.event_log, found.measurement)
    if "terms" in case:
        transcripts.append(Transcript(dstack.TERMS_STEPS))
        dstack.judge(found, Terms.from_json(case["terms"]), at=case["at"], transcript=transcripts[-1])
    if "report" in case:
        report = aci_report.parse(json.dumps(case["report"]).encode())
        transcripts.append(Transcript(aci_report.STEPS))
        nonce, kms = case["nonce"], [bytes.fromhex(root) for root in case["kms_roots"]]
        nonce = bytes.fromhex(nonce) if nonce else None
        aci_report.examine(report, found, nonce=nonce, kms_roots=kms, transcript=transcripts[-1])


# --- what is found ------------------------------------------------------------------------------------------------------


def test_a_guest_on_tdx():
    found = verified()
    names = set(found.measurement.registers)
    hardware = {"mrtd", "rtmr0", "rtmr1", "rtmr2", "mrconfigid", "mrowner", "mrownerconfig"}
    assert names == hardware | {"compose_hash", "key_provider", "mr_kms", "os_image_hash", "storage_fs"}
    assert found.measurement.platform == "dstack"
    assert found.app.app_id == pki.APP_ID.hex()
    assert found.machine == f"ppid:{pki_intel.PPID.hex()}"
    assert not found.debug
    assert found.produced_at is None
    assert found.report_data == pki_intel.REPORT_DATA
    assert found.binds(pki_intel.REPORT_DATA)
    assert not found.binds(bytes(64))
    assert found.collateral == found.inner.collateral
    assert found.valid_until == found.inner.valid_until
    assert found.vector == found.inner.vector
    assert found.inner_transcript.ok


def test_a_guest_on_sev_snp():
    found = verified_snp()
    hardware = {"measurement", "id_key_digest", "author_key_digest"}
    assert set(found.measurement.registers) == hardware | {"compose_hash", "key_provider"}
    assert found.machine is not None
    assert found.machine.startswith("chip:")


def test_what_is_the_machines_own_is_in_no_measurement():
    other = make_dstack.measured(*make_dstack.SMALL, *pki.changed(pki.APP, "instance-id", payload=b"\2" * 20))
    assert verified(other).measurement == verified().measurement
    assert verified(other).app.instance_id != verified().app.instance_id
    configuration = json.dumps(json.loads(pki.CONFIGURATION) | {"instance_id": "22" * 20}).encode()
    assert verified_snp(configuration).measurement == verified_snp().measurement


@pytest.mark.parametrize(("first", "there"), [(0, True), (1, True), (2, True), (3, False), (4, True)])
def test_an_mrconfigid_of_the_third_kind_names_an_instance(first: int, there: bool):
    """A kind that this version does not know stays in the measurement."""
    found = verified(replace(GUEST, mrconfigid=bytes([first]) + bytes(47)))
    assert ("mrconfigid" in found.measurement.registers) is there


def test_only_verify_makes_what_is_verified():
    found = verified()
    with pytest.raises(TypeError):
        DstackVerified(
            hardware="tdx",
            inner=found.inner,
            inner_transcript=found.inner_transcript,
            app=found.app,
            evidence=EVIDENCE,
            measurement=found.measurement,
            maker=object(),
        )
    with pytest.raises(TypeError):
        aci_report.Service(
            keyset=None, signing_address=None, tls_key=None, app_id="", composition=None, kms_root=None, maker=object()
        )


def test_evidence_is_told_apart():
    assert dstack.parse(EVIDENCE.data).hardware == "tdx"
    assert dstack.parse(EVIDENCE.data).said == tdx.parse(EVIDENCE.data)
    assert dstack.parse(pki.snp_case().data).hardware == "sev_snp"
    for data in (b"", b"\4\0\0\0" + bytes(100), bytes(1184), b"\3\0\2\0" + bytes(900), bytes(64 << 10)):
        with pytest.raises(BadEvidence):
            dstack.parse(data)


def test_a_debug_guest_is_said_to_be_one():
    found = verified(replace(GUEST, td={"attributes": bytes.fromhex("0100001000000000")}))
    assert found.debug


def test_the_first_check_that_fails_is_the_last_that_is_made():
    transcript = Transcript(dstack.STEPS)
    guest = make_dstack.told(*make_dstack.SMALL, *pki.APP[1:])
    with pytest.raises(BadEventLog):
        dstack.verify(guest.evidence(), guest.endorsements(), roots=guest.roots(), at=pki.AT, transcript=transcript)
    assert [check.status.value for check in transcript.checks] == ["passed", "passed", "failed", *["not established"] * 2]


def test_what_fails_in_the_hardwares_own_checks_is_said():
    transcript = Transcript(dstack.STEPS)
    with pytest.raises(EndorsementMissing):
        dstack.verify(EVIDENCE, Endorsements(), roots=ROOTS_OF_OURS, at=pki.AT, transcript=transcript)
    second = transcript.checks[1]
    assert second.status is Status.NOT_ESTABLISHED
    assert second.detail.startswith("Q")
    assert second.code == "attest.endorsement_missing"


def test_a_hardware_module_that_forgets_a_check_is_not_believed(monkeypatch: pytest.MonkeyPatch):
    class Forgetful:
        LABEL, STEPS = "forgetful", tdx.STEPS

        @staticmethod
        def verify(*_: object, **__: object) -> object:
            return None

    monkeypatch.setattr(dstack, "_hardware", lambda _kind: Forgetful)
    with pytest.raises(BadEvidence, match="was not made"):
        dstack.verify(EVIDENCE, ENDORSEMENTS, roots=ROOTS_OF_OURS, at=pki.AT, transcript=Transcript(dstack.STEPS))


def test_a_log_without_firmware_events_explains_only_the_app():
    bare = make_dstack.measured(*pki.APP)
    transcript = Transcript(dstack.STEPS)
    dstack.verify(bare.evidence(), bare.endorsements(), roots=bare.roots(), at=pki.AT, transcript=transcript)
    assert transcript.checks[3].detail == "the log has none"


# --- terms --------------------------------------------------------------------------------------------------------------


def test_terms_come_back():
    strict = Terms()
    assert Terms.from_json(strict.to_json()) == strict
    wide = Terms(app_ids=frozenset({"ab"}), events=frozenset({"B", "A"}), tdx=None, sev_snp=snp.Terms(), whole_log=False)
    assert Terms.from_json(wide.to_json()) == wide
    assert wide.to_json()["events"] == ["A", "B"]


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"app_ids": "any"},
        {"app_ids": ["AB"]},
        {"app_ids": ["b0", "a0"]},
        {"app_ids": ["a0", "a0"]},
        {"app_ids": [""]},
        {"app_ids": ["ab" * 65]},
        {"events": ["a:b"]},
        {"events": ["b", "a"]},
        {"events": [""]},
        {"events": None},
        {"tdx": {}},
        {"sev_snp": {}},
        {"whole_log": 1},
    ],
)
def test_terms_that_are_none(change: dict[str, Any]):
    with pytest.raises(BadField):
        Terms.from_json(Terms().to_json() | change)


def test_every_member_of_the_terms_must_be_there():
    for name in Terms().to_json():
        with pytest.raises(BadField):
            Terms.from_json({key: value for key, value in Terms().to_json().items() if key != name})


def test_too_many_names():
    with pytest.raises(BadField):
        Terms(app_ids=frozenset(f"{n:04x}" for n in range(1025)))
    with pytest.raises(BadField):
        Terms(events=frozenset(f"event-{n}" for n in range(65)))


def test_every_term_is_judged_whatever_becomes_of_the_others():
    guest = make_dstack.measured(*make_dstack.SMALL, *pki.APP, pki.runtime("MY_EVENT", b""))
    left_out = replace(
        guest, told=tuple(replace(entry, digest=b"") if entry.rtmr == 3 else entry for entry in guest.entries)
    )
    transcript = Transcript(dstack.TERMS_STEPS)
    vector = dstack.judge(verified(left_out), Terms(app_ids=frozenset(), tdx=None), at=pki.AT, transcript=transcript)
    assert [check.status for check in transcript.checks] == [Status.FAILED] * 4
    assert all(check.code for check in transcript.checks)
    assert vector.hardware == 0


# --- any bytes ----------------------------------------------------------------------------------------------------------


def tried(evidence: Evidence) -> str:
    """How verification of some evidence ends: a code, or ``ok``."""
    try:
        dstack.verify(evidence, ENDORSEMENTS, roots=ROOTS_OF_OURS, at=pki.AT, transcript=Transcript(dstack.STEPS))
    except AttestationError as error:
        return error.code
    return "ok"


@given(st.binary(max_size=1500), st.binary(max_size=300))
def test_any_bytes_end_in_a_typed_error(data: bytes, log: bytes):
    assert tried(Evidence("dstack", data, event_log=log)) != "ok"


@given(st.data())
def test_truncated_evidence_ends_in_a_typed_error(data: st.DataObject):
    kept = data.draw(st.integers(0, len(EVIDENCE.data) - 1))
    assert tried(Evidence("dstack", EVIDENCE.data[:kept], event_log=EVIDENCE.event_log)) != "ok"
    kept = data.draw(st.integers(0, len(EVIDENCE.event_log) - 1))
    assert tried(Evidence("dstack", EVIDENCE.data, event_log=EVIDENCE.event_log[:kept])) != "ok"


def flips(evidence: Evidence, positions: Iterable[int]) -> Counter[str]:
    """Flip these bits of the log, one at a time: each is refused, or what counts is as it was.

    For the soak, with every position: ``range(8 * len(evidence.event_log))``. The quote's own bits are for test_tdx.
    """
    was = verified()
    ended: Counter[str] = Counter()
    for position in positions:
        changed = bytearray(evidence.event_log)
        changed[position // 8] ^= 1 << position % 8
        transcript = Transcript(dstack.STEPS)
        other = replace(evidence, event_log=bytes(changed))
        try:
            found = dstack.verify(other, ENDORSEMENTS, roots=ROOTS_OF_OURS, at=pki.AT, transcript=transcript)
        except AttestationError:
            ended["refused"] += 1
        else:  # the type or label of a firmware event, or white space in the JSON
            assert (found.measurement, found.app) == (was.measurement, was.app)
            ended["harmless"] += 1
    return ended


def test_a_flipped_bit_of_the_log_is_refused_or_changes_nothing():
    positions = random.Random(1).sample(range(8 * len(EVIDENCE.event_log)), 60)
    assert flips(EVIDENCE, positions)["refused"] > 40


# --- the KMS ------------------------------------------------------------------------------------------------------------

ROOTS_OF_KMS = (pki.KMS_ROOT.public_key.format(),)


def custody(**changes: Any) -> Custody:
    (one,) = aci_report.parse(json.dumps(pki.aci_report()).encode()).custody
    return replace(one, **changes)


def test_a_key_was_issued_by_a_pinned_root():
    assert dstack_kms.root_of(custody(), pki.APP_ID, ROOTS_OF_KMS) == ROOTS_OF_KMS[0]


def test_keccak_is_the_one_from_before_sha_3():
    assert pki.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@pytest.mark.parametrize(
    "changes",
    [{"purpose": "another"}, {"kms_public_key": b"\2" + bytes(31) + b"\1"}],
    ids=["purpose", "key"],
)
def test_a_chain_for_something_else_leads_elsewhere(changes: dict[str, Any]):
    with pytest.raises((UnknownRoot, EvidenceForged)):
        dstack_kms.root_of(custody(**changes), pki.APP_ID, ROOTS_OF_KMS)


def test_a_chain_for_another_app_leads_elsewhere():
    with pytest.raises(UnknownRoot):
        dstack_kms.root_of(custody(), bytes(20), ROOTS_OF_KMS)


def test_no_pinned_root_means_no_key():
    with pytest.raises(UnknownRoot):
        dstack_kms.root_of(custody(), pki.APP_ID, ())


def test_a_signature_has_one_spelling():
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    first, second = custody().signatures
    high = (order - int.from_bytes(second[32:64], "big")).to_bytes(32, "big")
    for bad in (second[:32] + high + bytes([second[64] ^ 1]), second[:32] + bytes(32) + second[64:], second[:64] + b"\x1b"):
        with pytest.raises((EvidenceForged, UnknownRoot)):
            dstack_kms.root_of(custody(signatures=(first, bad)), pki.APP_ID, ROOTS_OF_KMS)
    with pytest.raises(EvidenceForged):
        dstack_kms.root_of(custody(signatures=(first, bytes(32) + second[32:])), pki.APP_ID, ROOTS_OF_KMS)


@pytest.mark.parametrize(
    "changes",
    [{"purpose": ""}, {"purpose": "x" * 129}, {"purpose": "ä"}, {"kms_public_key": bytes(33)}, {"kms_public_key": b"\2"},
     {"signatures": (b"", b"")}],
)  # fmt: skip
def test_a_custody_that_is_none(changes: dict[str, Any]):
    with pytest.raises(BadEvidence):
        custody(**changes)


def test_without_the_libraries_nothing_is_established(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "coincurve", None)
    with pytest.raises(EndorsementMissing) as caught:
        dstack_kms.root_of(custody(), pki.APP_ID, ROOTS_OF_KMS)
    assert "strongroom[dstack]" in caught.value.hint
    guest = pki.aci_guest()
    transcript = Transcript(aci_report.STEPS)
    service = examine(pki.aci_report(guest), guest, transcript=transcript)
    assert service.kms_root is None
    assert transcript.checks[3].status is Status.NOT_ESTABLISHED


# --- services' reports --------------------------------------------------------------------------------------------------


def parsed(report: object) -> aci_report.Report:
    return aci_report.parse(json.dumps(report).encode())


def examine(
    report: object,
    guest: pki.Guest,
    *,
    nonce: bytes | None = pki.NONCE,
    transcript: Transcript | None = None,
) -> aci_report.Service:
    transcript = transcript or Transcript(aci_report.STEPS)
    return aci_report.examine(parsed(report), verified(guest), nonce=nonce, kms_roots=ROOTS_OF_KMS, transcript=transcript)


def test_acis_report_of_a_dstack_service():
    guest, transcript = pki.aci_guest(), Transcript(aci_report.STEPS)
    report = parsed(pki.aci_report(guest))
    assert report.layout is Layout.ACI
    assert report.evidence == guest.evidence()
    service = examine(pki.aci_report(guest), guest, transcript=transcript)
    assert transcript.ok
    assert service.keyset == pki.KEYSET
    assert service.kms_root == ROOTS_OF_KMS[0]
    assert service.composition == pki.COMPOSE
    assert service.app_id == pki.APP_ID.hex()


def test_acis_report_without_a_nonce_binds_its_keys_and_nothing_fresh():
    guest = pki.aci_guest(nonce=None)
    assert examine(pki.aci_report(guest), guest, nonce=None).keyset == pki.KEYSET
    with pytest.raises(NotBound):
        examine(pki.aci_report(guest), guest)


def test_a_report_that_brings_less_establishes_less():
    guest, transcript = pki.aci_guest(), Transcript(aci_report.STEPS)
    service = examine(pki.aci_report(guest, app_compose=None, key_custody=None), guest, transcript=transcript)
    assert [check.status is Status.PASSED for check in transcript.checks] == [True, True, False, False, True]
    assert not transcript.ok
    assert service.keyset is not None
    assert service.kms_root is None


def test_a_key_without_custody_beside_one_with():
    """A chain for one key does not vouch for the key next to it."""
    from strongroom.attest.keyset import KeyEntry

    more = replace(
        pki.KEYSET, receipt_signing_keys=(*pki.KEYSET.receipt_signing_keys, KeyEntry("two", "ed25519", "ee" * 32))
    )
    from strongroom.attest.keyset import report_data

    guest = pki.Guest(report_data=report_data(more.digest, pki.NONCE))
    report = pki.aci_report(guest)
    report["attestation"]["workload_keyset"] = more.to_json()
    report["workload_keyset_digest"] = more.digest
    with pytest.raises(EvidenceForged, match="not of this keyset"):
        examine(report, guest)


def test_keys_of_two_kms_are_refused():
    from coincurve import PrivateKey

    other = PrivateKey(pki.secret("another KMS"))
    both = pki.key_custody()
    both["keys"] += pki.key_custody(root=other)["keys"]
    guest = pki.aci_guest()
    report = parsed(pki.aci_report(guest, key_custody=both))
    roots = (*ROOTS_OF_KMS, other.public_key.format())
    with pytest.raises(EvidenceForged, match="more than one"):
        aci_report.examine(
            report, verified(guest), nonce=pki.NONCE, kms_roots=roots, transcript=Transcript(aci_report.STEPS)
        )


@pytest.mark.parametrize("tls", [None, pki.TLS_KEY], ids=["plain", "tls"])
def test_a_signing_addresss_report(tls: bytes | None):
    guest, transcript = pki.address_guest(tls=tls), Transcript(aci_report.STEPS)
    raw = pki.address_report(guest, tls_cert_fingerprint=tls.hex() if tls else None)
    report = parsed(raw)
    assert report.layout is Layout.SIGNING_ADDRESS
    assert dstack_log.parse(report.evidence.event_log) == guest.entries
    assert len(report.devices) == 2
    assert len(report.endorsements.documents) == 1
    raw["event_log"] = json.dumps(raw["event_log"], separators=(",", ":"))  # as text, it is the same log
    assert parsed(raw) == report
    service = aci_report.examine(
        report,
        verified(replace(guest, log_bytes=report.evidence.event_log)),
        nonce=pki.NONCE,
        kms_roots=(),
        transcript=transcript,
    )
    assert (service.signing_address, service.tls_key) == (pki.ADDRESS, tls)
    assert [check.number for check in transcript.checks if check.status is not Status.PASSED] == ["C4"]


def test_a_signing_address_needs_a_nonce():
    guest, transcript = pki.address_guest(), Transcript(aci_report.STEPS)
    service = examine(pki.address_report(guest), guest, nonce=None, transcript=transcript)
    assert service.signing_address is None
    assert transcript.checks[1].status is Status.NOT_ESTABLISHED


def test_a_routers_report_is_the_routers():
    inner = pki.address_report()
    assert parsed({"gateway_attestation": inner, "model_attestations": [inner]}) == parsed(inner)


def test_the_log_may_stand_in_the_tcb_info():
    report = pki.address_report()
    tcb = {"app_compose": pki.COMPOSE.decode(), "event_log": report.pop("event_log")}
    assert parsed({**report, "info": {"tcb_info": json.dumps(tcb)}}) == parsed(pki.address_report())


def test_an_ed25519_key_in_place_of_an_address():
    guest = pki.address_guest(address=b"\7" * 32)
    report = pki.address_report(guest, signing_address="07" * 32)
    assert examine(report, guest).signing_address == b"\7" * 32


def test_what_a_guest_agent_answers():
    answer = {"quote": EVIDENCE.data.hex(), "event_log": GUEST.log.decode(), "report_data": "", "vm_config": "{}"}
    report = parsed(answer)
    assert (report.layout, report.evidence) == (Layout.GET_QUOTE, EVIDENCE)
    transcript = Transcript(aci_report.STEPS)
    service = examine(answer, GUEST, transcript=transcript)
    assert service.keyset is None
    assert problem(transcript) == "C2"


CONTAINER = scale.Container(
    report=pki.snp_case().data,
    certificates=(b"the issuer's\n", b"the chip's\n"),
    configuration=pki.CONFIGURATION,
    events=tuple((entry.name.encode(), entry.payload) for entry in pki.APP),
    report_data=bytes(64),
    machine=b"{}" + bytes(70),
)


def test_a_container_comes_back():
    assert scale.parse(CONTAINER.encode()) == CONTAINER
    report = parsed({"attestation": CONTAINER.encode().hex()})
    assert (report.layout, report.evidence.event_log) == (Layout.CONTAINER, pki.CONFIGURATION)
    assert report.endorsements.documents == (Endorsement(PEM_CHAIN, b"the chip's\nthe issuer's\n"),)


@given(st.data())
def test_a_changed_container_is_refused_or_is_what_was_written(data: st.DataObject):
    original = CONTAINER.encode()
    place = data.draw(st.integers(0, len(original) - 1))
    changed = original[:place] + data.draw(st.binary(min_size=1, max_size=4)) + original[place + 1 :]
    for one in (changed, original[:place]):
        with contextlib.suppress(BadEvidence):
            assert scale.parse(one).encode() == one


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"\0\0",
        b"\0\3\3" + bytes(16),  # a number of the fourth width
        b"\0\3\1\0",  # a number not in its shortest form
        CONTAINER.encode() + b"\0",
        bytes((256 << 10) + 1),
    ],
    ids=["empty", "version", "tdx", "wide", "long form", "trailing", "too long"],
)
def test_what_is_no_container(data: bytes):
    with pytest.raises(BadEvidence):
        scale.parse(data)


def test_a_container_with_too_many_items():
    with pytest.raises(BadEvidence, match="more than 1024"):
        scale.parse(replace(CONTAINER, certificates=(b"",) * 1025).encode())


@pytest.mark.parametrize(
    "report",
    [
        None,
        [],
        {},
        {"attestation": "zz"},
        {"attestation": 1},
        {"quote": "00"},
        {"quote": "zz", "event_log": ""},
        {"quote": 1, "event_log": ""},
        {"gateway_attestation": 1},
        {"api_version": "aci/2"},
        {"api_version": "aci/1"},
        pki.address_report() | {"signing_address": None},
        pki.address_report() | {"signing_address": "ab"},
        pki.address_report() | {"tls_cert_fingerprint": "ab"},
        pki.address_report() | {"nvidia_payload": "not json"},
        pki.address_report() | {"nvidia_payload": {"evidence_list": [1]}},
        pki.address_report() | {"nvidia_payload": {}},
        pki.address_report() | {"info": {"tcb_info": "{"}},
        pki.address_report() | {"info": {"tcb_info": {"app_compose": 1}}},
        pki.aci_report(app_compose=1),
        pki.aci_report(key_custody={"provider": "another"}),
        pki.aci_report(key_custody=1),
        pki.aci_report(quote=None),
    ],
)
def test_what_is_no_services_report(report: object):
    with pytest.raises(BadEvidence):
        parsed(report)


def test_what_stands_twice_or_is_too_long_is_no_report():
    twice = json.dumps(pki.address_report()).replace('"signing_algo"', '"signing_address": "00", "signing_algo"')
    for data in (twice.encode(), b" " * (aci_report.MAX_REPORT_BYTES + 1), b"\xff", b"[" * 5000):
        with pytest.raises(BadEvidence):
            aci_report.parse(data)


def test_a_keyset_that_is_not_the_one_that_its_digest_names():
    report = pki.aci_report()
    report["workload_keyset_digest"] = "sha256:" + "00" * 32
    with pytest.raises(BadKeyset):
        parsed(report)
    report = pki.aci_report()
    report["attestation"]["evidence"] = []
    with pytest.raises(BadEvidence):
        parsed(report)
    report = pki.aci_report()
    report["attestation"]["tee_type"] = "nitro"
    with pytest.raises(BadEvidence):
        parsed(report)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9), lambda s: st.lists(s) | st.dictionaries(st.text(max_size=9), s)
    )
)
def test_any_value_in_a_reports_place_ends_in_a_typed_error(value: Any):
    for base in (pki.address_report(), pki.aci_report()):
        name = random.Random(str(value)).choice(sorted(base))
        with contextlib.suppress(BadEvidence, BadKeyset):
            parsed({**base, name: value})


# --- the pages ----------------------------------------------------------------------------------------------------------


def test_the_checks_of_the_page_are_those_of_the_code():
    page = (ROOT / "spec" / "evidence-dstack.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in page.splitlines() if line.startswith(("| K", "| C"))]
    found = {row[0]: row[1] for row in rows}
    assert found == {
        number: name for steps in (dstack.STEPS, dstack.TERMS_STEPS, aci_report.STEPS) for number, name in steps
    }


def test_the_terms_of_the_page_are_terms():
    page = (ROOT / "spec" / "evidence-dstack.md").read_text(encoding="utf-8")
    block = page.split("## Terms", 1)[1].split("```json", 1)[1].split("```", 1)[0]
    assert Terms.from_json(json.loads(block)) == Terms()


# --- real evidence ------------------------------------------------------------------------------------------------------


def answered(name: str) -> aci_report.Report:
    return aci_report.parse(read(f"dstack/{name}"))


COLLATERAL = (
    (INTEL_TCB_INFO, "tcbinfo_tdx_90c06f000000_2026-06-08_ev19_96f0.json"),
    (INTEL_QE_IDENTITY, "qeid_td_qe_2026-06-08_ev19_ebac.json"),
    (PEM_CHAIN, "intel_tcb_signing_2025-2032.pem"),
    (PEM_CHAIN, "intel_sgx_root_ca.pem"),
    (CRL, "crl_pck_platform_ca_2026-06-08_908d.der"),
    (CRL, "crl_root_ca_2026-02-26_c114.der"),
)
JUNE_2026 = 1_781_000_000  # within all of the collateral above, and after both quotes' certificates begin


def verified_really(name: str) -> DstackVerified:
    documents = tuple(Endorsement(kind, read(f"collateral/{path}")) for kind, path in COLLATERAL)
    roots = Roots(certificates=tuple(ROOTS["tdx"].values()))
    transcript = Transcript(dstack.STEPS)
    found = dstack.verify(answered(name).evidence, Endorsements(documents), roots=roots, at=JUNE_2026, transcript=transcript)
    assert transcript.ok
    return found


@real
def test_a_real_guest_is_genuine():
    found = verified_really("dstack_quote_report.json")
    assert found.app.app_id == "3763bc34552cf3a27ff71ad5f7a90471562a1a2d"
    assert found.app.after == ("LIUM_MINER_HOTKEY",)
    assert found.report_data == b"\x12\x34" + bytes(62)
    transcript = Transcript(dstack.TERMS_STEPS)
    dstack.judge(found, Terms(), at=JUNE_2026, transcript=transcript)
    assert [check.number for check in transcript.checks if check.status is Status.FAILED] == ["KT3"]
    assert eventlog.check("dstack", answered("dstack_quote_report.json").evidence.event_log, found.measurement)


@real
def test_a_real_guest_with_a_lite_log_is_refused_by_the_strict_terms():
    found = verified_really("tdx_lite_getquote.json")
    transcript = Transcript(dstack.TERMS_STEPS)
    dstack.judge(found, Terms(), at=JUNE_2026, transcript=transcript)
    assert [check.number for check in transcript.checks if check.status is Status.FAILED] == ["KT4"]


@real
@pytest.mark.parametrize("name", ["dstack_quote_report.json", "tdx_lite_getquote.json"])
def test_real_quotes_parse_and_lead_from_their_logs(name: str):
    report = answered(name)
    said = dstack.parse(report.evidence.data)
    assert said.hardware == "tdx"
    entries = dstack_log.parse(report.evidence.event_log)
    replayed = dstack_log.replay(entries)
    for register in range(4):
        assert said.said.measurement.registers[f"rtmr{register}"] == f"sha384:{replayed[register].hex()}"
    assert dstack_log.app(entries).compose_hash[:20].hex() == dstack_log.app(entries).app_id


@real
def test_a_real_mrconfigid_names_the_composition():
    report = answered("tdx_lite_getquote.json")
    said = dstack.parse(report.evidence.data).said.measurement.registers["mrconfigid"]
    app = dstack_log.app(dstack_log.parse(report.evidence.event_log))
    assert said == f"sha384:01{app.compose_hash.hex()}{'00' * 15}"


@real
def test_the_real_snp_configuration_is_what_host_data_commits_to():
    report = answered("sev_snp_attestation.json")
    claims = dstack.parse(report.evidence.data)
    assert claims.hardware == "sev_snp"
    assert claims.said.host_data == dstack_log.host_data(report.evidence.event_log)
    app = dstack_log.configuration(report.evidence.event_log)
    assert app.app_id == "86e59625be93207bc2351c4d1bba20037cec8e16"
    assert claims.said.report_data.startswith(b"attest-test-fixture-2026")
    raw = bytes.fromhex(json.loads(read("dstack/sev_snp_attestation.json"))["attestation"])
    assert scale.parse(raw).encode() == raw


@real
def test_the_real_snp_report_is_signed_and_its_revocation_list_was_not_kept():
    """Its certificate began after the kept list of AMD's had ended, so that there is no time at which both hold."""
    report = answered("sev_snp_attestation.json")
    chain = read("snp/ca_milan_ask_ark_asvk.pem")
    crl = x509.load_pem_x509_crl(read("snp/kds_milan.crl.pem")).public_bytes(Encoding.DER)
    came = (*report.endorsements.documents, Endorsement(PEM_CHAIN, chain), Endorsement(CRL, crl))
    roots = Roots(certificates=tuple(ROOTS["sev_snp"].values()))
    transcript = Transcript(dstack.STEPS)
    with pytest.raises(AttestationError):
        dstack.verify(report.evidence, Endorsements(came), roots=roots, at=1_785_000_000, transcript=transcript)
    assert transcript.checks[1].detail.startswith("S5: the revocation list")


@real
def test_no_case_speaks_of_dstack():
    """What must come out is in PROVENANCE.md alone, and above."""
    assert not [
        case for name in ("cases_dcap.json", "cases_other.json") for case in cases(name) if "dstack" in str(case.get("file"))
    ]


@real
def test_the_published_aci_vectors_bind_as_this_reader_does():
    path = ROOT.parent / "shared" / "vectors" / "aci" / "aci-1.json"
    if not path.is_file():
        pytest.skip("the ACI vectors are not beside this checkout")
    published = json.loads(path.read_bytes())
    keyset = Keyset.parse(published["keyset_jcs"].encode())
    report = aci_report.Report(layout=Layout.ACI, evidence=EVIDENCE, keyset=keyset)
    for statement in published["statements"]:
        nonce = bytes.fromhex(statement["nonce"]) if statement["nonce"] else None
        assert report.report_data(nonce) == bytes.fromhex(statement["report_data"]) + bytes(32)
