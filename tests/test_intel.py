"""What Intel says of a machine, Q1 to Q20: every way to pass a quote, a certificate or collateral off as something else."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import time
import types
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_intel as pki
from evidence_case import names_in_page, run, walk
from pki_intel import AT, DAY, PCK, ROOT, TCB_SIGNING, World, level, module
from strongroom import wire
from strongroom.attest import dcap, intel, second_opinion, sgx, tdx
from strongroom.attest.endorsements import CERTIFICATE, CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO
from strongroom.attest.evidence import MAX_ENDORSEMENT_BYTES, Endorsement, Endorsements, Evidence
from strongroom.attest.intel_collateral import MAX_COLLATERAL_BYTES, Advisory, QeIdentity, TcbInfo, TcbStatus
from strongroom.attest.intel_pck import PckExtension
from strongroom.attest.vector import AFFIRMED
from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEndorsement,
    SecondOpinionDiffers,
    StrongroomError,
    TcbNotAccepted,
)
from strongroom.transcript import Status, Transcript

HOME = Path(__file__).parents[1]
PAGE = HOME / "spec" / "evidence-intel.md"
PLATFORMS = {"tdx": tdx, "sgx": sgx}
FILES = sorted([*(HOME / "vectors" / "tdx").glob("*.json"), *(HOME / "vectors" / "sgx").glob("*.json")])
TD, ENCLAVE, V5 = World(), World(tee="SGX", version=3), World(version=5)
ZERO = pki.ZERO_TDX


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_intel", HOME / "vectors" / "make_intel.py")
    assert spec is not None
    assert spec.loader is not None
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def of(world: World, *, at: int = AT, extra: tuple[Endorsement, ...] = ()):
    platform = PLATFORMS[world.tee.lower()]
    documents = Endorsements((*world.endorsements().documents, *extra))
    return walk(platform, world.evidence(), documents, world.roots(), at)


def found(world: World, *, ask_second: bool = False):
    """What is verified, whatever the terms would say; raises what ``verify`` raises."""
    platform = PLATFORMS[world.tee.lower()]
    transcript = Transcript(platform.STEPS)
    verified = platform.verify(
        world.evidence(), world.endorsements(), roots=world.roots(), at=AT, transcript=transcript, ask_second=ask_second
    )
    assert transcript.ok
    return verified, transcript


@pytest.fixture
def alone(monkeypatch):
    """As where no second verifier is installed."""
    monkeypatch.setattr(second_opinion, "_import", lambda: None)


# --- vectors and page ---------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes():
    maker = _maker()
    for name in PLATFORMS:
        written = {path.stem: json.loads(path.read_bytes()) for path in FILES if path.parent.name == name}
        assert written
        assert written == maker.all_cases(name)


def _one(path: Path) -> None:
    case = json.loads(path.read_bytes())
    platform = PLATFORMS[case["platform"]]
    outcome = run(platform, case)
    assert (outcome.code, outcome.number) == (case["expect"], case["fails"])
    data = wire.unb64(case["evidence"])
    if case["fails"] != "Q1":
        assert platform.parse(data).encode() == data


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_vector(path):
    _one(path)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_vector_without_a_second_verifier(path):
    _one(path)


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {json.loads(path.read_bytes())["fails"] for path in FILES} - {""}
    assert failed == {n for n, _ in (*intel.STEPS, *tdx.TERMS_STEPS, *sgx.TERMS_STEPS)} - {"Q20"}  # below, with a stand-in


def test_a_missing_endorsement_is_not_established_and_never_passes():
    missing = [case for path in FILES if (case := json.loads(path.read_bytes()))["expect"] == "attest.endorsement_missing"]
    assert {case["fails"] for case in missing} == {"Q8", "Q9", "Q10", "Q11", "Q14"}
    for case in missing:
        outcome = run(PLATFORMS[case["platform"]], case)
        assert outcome.check(case["fails"]).status is Status.NOT_ESTABLISHED
        assert outcome.verified is None
        assert outcome.check("Q7").status is Status.PASSED  # every signature inside the quote was looked at before


def test_the_page_numbers_the_checks_as_the_code_does():
    assert names_in_page(PAGE, "Q") == dict(intel.STEPS)
    assert names_in_page(PAGE, "T") == dict(tdx.TERMS_STEPS)
    assert names_in_page(PAGE, "X") == dict(sgx.TERMS_STEPS)


def test_the_page_shows_the_terms_as_they_are_written():
    blocks = PAGE.read_text(encoding="utf-8").split("```json\n")[1:]
    shown = [json.loads(block.split("```")[0]) for block in blocks]
    assert tdx.Terms.from_json(shown[0]).to_json() == shown[0]
    assert sgx.Terms.from_json(shown[1]).to_json() == shown[1]


def test_the_page_names_every_refusal_of_the_second_verifiers_policy():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{reason}`" in text for reason in second_opinion.POLICY_REFUSALS)


# --- what is genuine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [TD, V5, ENCLAVE], ids=["tdx-4", "tdx-5", "sgx-3"])
def test_a_good_quote_says_which_processor_and_how_current(world):
    outcome = of(world)
    verified = outcome.verified
    assert outcome.code == "ok"
    assert verified.tcb_status is TcbStatus.UP_TO_DATE
    assert verified.advisories == ()
    assert verified.fmspc == pki.FMSPC
    assert verified.machine == f"ppid:{pki.PPID.hex()}"
    assert verified.produced_at is None
    assert verified.debug is False
    assert verified.binds(pki.REPORT_DATA)
    assert not verified.binds(pki.REPORT_DATA[:-1] + b"\0")
    assert verified.valid_until == AT + 28 * DAY  # the identity of the quoting enclave ends first
    assert verified.processor.evaluation == 18
    assert verified.tcb_date == 1747180800
    assert (verified.processor.issued, verified.processor.next_update) == (AT - DAY, AT + 29 * DAY)
    assert verified.processor.pck.smt is True
    documents = world.documents()
    used = {wire.digest(documents[name].data) for name in ("tcb info", "qe identity", "root crl", "pck crl")}
    assert set(verified.collateral) == used | {wire.digest(world.certificate(TCB_SIGNING))}
    assert outcome.vector.hardware == outcome.vector.instance_identity == outcome.vector.runtime_opaque == AFFIRMED


@pytest.mark.parametrize(
    ("world", "until"),
    [
        (replace(TD, certificates={PCK: {"after": AT + 5}}), AT + 5),
        (replace(TD, certificates={TCB_SIGNING: {"after": AT + 6}}), AT + 6),
        (replace(TD, lists={ROOT: {"after": AT + 7}}), AT + 7),
        (replace(TD, lists={pki.PLATFORM_CA: {"after": AT + 8}}), AT + 8),
        (replace(TD, info={"nextUpdate": pki.time(AT + 9)}), AT + 9),
        (replace(TD, identity={"nextUpdate": pki.time(AT + 4)}), AT + 4),
    ],
)
def test_what_ends_first_ends_it_all(world, until):
    assert found(world)[0].valid_until == until


def test_an_extension_that_says_nothing_of_threads_is_read():
    assert found(replace(TD, extension={"smt": None}))[0].processor.pck.smt is None
    assert found(replace(TD, extension={"smt": False}))[0].processor.pck.smt is False


def test_debugging_is_shown_and_left_to_the_appraisal():
    debugged = replace(TD, td={"attributes": bytes.fromhex("0100001000000000")})
    assert found(debugged)[0].debug is True
    enclave = replace(ENCLAVE, enclave={"attributes": bytes.fromhex("0700000000000000e700000000000000")})
    verified, _ = found(enclave)
    assert verified.debug is True
    assert verified.vector.runtime_opaque != AFFIRMED


def test_every_advisory_names_its_level():
    world = replace(
        TD,
        td={"tee_tcb_svn": pki.OLD_SVN},
        qe={"isv_svn": b"\x05\x00"},
        info={"tcbLevels": [level(pki.components(tdx=ZERO), "SWHardeningNeeded", "INTEL-SA-00615")]},
    )
    verified, _ = found(world)
    assert verified.advisories == (
        Advisory("INTEL-SA-00615", "platform"),
        Advisory("INTEL-SA-01192", "TDX module"),
        Advisory("INTEL-SA-01245", "TDX module"),
        Advisory("INTEL-SA-00477", "quoting enclave"),
    )
    assert verified.tcb_date == 1636502400  # the quoting enclave's, the oldest


def test_an_advisory_that_touches_only_what_the_machine_has_now_is_named_so():
    levels = [level({"isvsvn": 11}, "OutOfDate", "INTEL-SA-01400"), level({"isvsvn": 5}, "OutOfDate", "INTEL-SA-01192")]
    world = replace(V5, td={"tee_tcb_svn": pki.OLD_SVN}, info={"tdxModuleIdentities": [module(levels=levels)]})
    assert found(world)[0].advisories == (
        Advisory("INTEL-SA-01192", "TDX module"),
        Advisory("INTEL-SA-01400", "TDX module", now=True),
    )


def test_nobody_else_makes_a_verified_quote():
    verified, _ = found(TD)
    with pytest.raises(TypeError):
        tdx.TdxVerified(
            claims=verified.claims, processor=verified.processor, measurement=verified.measurement, maker=object()
        )
    enclave, _ = found(ENCLAVE)
    with pytest.raises(TypeError):
        sgx.SgxVerified(claims=enclave.claims, processor=enclave.processor, measurement=enclave.measurement, maker=None)


def test_times_are_judged_at_the_time_in_question():
    assert of(TD, at=AT - DAY).code == "ok"
    assert of(TD, at=AT - DAY - 1).number == "Q8"
    assert of(TD, at=AT + 28 * DAY).code == "ok"
    assert of(TD, at=AT + 28 * DAY + 1).number == "Q16"
    assert of(TD, at=0).number == "Q6"
    assert of(TD, at=1 << 40).number == "Q6"


def test_two_vintages_of_the_signing_certificate_may_come_along():
    """Intel changed it in 2025; TCB information and identity may have different ones."""
    new = Endorsement(CERTIFICATE, pki.certificate(TCB_SIGNING, ROOT, before=AT - DAY))
    assert of(TD, extra=(new,)).code == "ok"
    other = pki.certificate("second signer", ROOT, common=TCB_SIGNING, before=AT - 2 * DAY)
    two = replace(TD, identity_signer="second signer")
    assert of(two).number == "Q15"
    outcome = of(two, extra=(Endorsement(CERTIFICATE, other),))
    assert outcome.code == "ok"
    assert wire.digest(other) in outcome.verified.collateral


def test_a_signing_certificate_on_another_curve_is_none():
    chain = pki.certificate(TCB_SIGNING, ROOT, curve=pki.ec.SECP384R1)
    world = replace(TD, without=frozenset({"tcb signing chain"}))
    assert of(world, extra=(Endorsement(CERTIFICATE, chain),)).number == "Q10"


def test_only_so_many_signing_certificates_are_tried():
    many = tuple(
        Endorsement(
            CERTIFICATE, pki.certificate(f"signer {n}", "attacker", common=TCB_SIGNING, issued_as=ROOT, before=AT - n)
        )
        for n in range(30)
    )
    began = time.process_time()
    assert of(TD, extra=many).number == "Q10"
    assert time.process_time() - began < 5  # milliseconds; what it stops takes for ever


# --- levels -------------------------------------------------------------------------------------------------------------

PLATFORM_STATUSES = [status for status in TcbStatus if not status.startswith("TDRelaunch")]
PART_STATUSES = [TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED]


def _expected(platform: TcbStatus, *parts: TcbStatus) -> TcbStatus:
    """Intel's rule, in other words: the worst of all, and a configuration that is needed stays needed."""
    if TcbStatus.REVOKED in (platform, *parts):
        return TcbStatus.REVOKED
    if TcbStatus.OUT_OF_DATE in parts and not platform.startswith("OutOfDate"):
        return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED if "Configuration" in platform else TcbStatus.OUT_OF_DATE
    return platform


def _status(world: World) -> TcbStatus:
    """The merged status, and the second verifier's if there is one."""
    try:
        return found(world, ask_second=True)[0].tcb_status
    except AttestationError as error:
        assert error.code == "attest.revoked"  # noqa: PT017 - nothing else is expected
        return TcbStatus.REVOKED


@pytest.mark.parametrize("platform", PLATFORM_STATUSES)
def test_statuses_are_merged_for_an_enclave(platform):
    for qe in PART_STATUSES:
        world = replace(
            ENCLAVE,
            info={"tcbLevels": [level(pki.components(tdx=None), platform, "INTEL-SA-00001")]},
            identity={"tcbLevels": [level({"isvsvn": 8}, qe, "INTEL-SA-00002")]},
        )
        assert _status(world) is _expected(platform, qe)


@pytest.mark.parametrize("platform", PLATFORM_STATUSES)
def test_statuses_are_merged_for_a_td(platform):
    for tdx_module, qe in itertools.product(PART_STATUSES, PART_STATUSES):
        world = replace(
            TD,
            info={
                "tcbLevels": [level(pki.components(tdx=ZERO), platform, "INTEL-SA-00001")],
                "tdxModuleIdentities": [module(levels=[level({"isvsvn": 11}, tdx_module, "INTEL-SA-00003")])],
            },
            identity={"tcbLevels": [level({"isvsvn": 8}, qe, "INTEL-SA-00002")]},
        )
        assert _status(world) is _expected(platform, tdx_module, qe)


@pytest.mark.parametrize("platform", PLATFORM_STATUSES)
def test_a_td_under_an_old_module_is_to_be_launched_anew(platform):
    for then, now, qe in itertools.product(PART_STATUSES, PART_STATUSES, PART_STATUSES):
        levels = [level({"isvsvn": 11}, now), level({"isvsvn": 5}, then)]
        world = replace(
            V5,
            td={"tee_tcb_svn": pki.OLD_SVN},
            info={
                "tcbLevels": [level(pki.components(tdx=ZERO), platform)],
                "tdxModuleIdentities": [module(levels=levels)],
            },
            identity={"tcbLevels": [level({"isvsvn": 8}, qe)]},
        )
        launched, current = _expected(platform, then, qe), _expected(platform, now, qe)
        expected = launched
        if TcbStatus.REVOKED in {launched, current}:
            expected = TcbStatus.REVOKED
        elif launched.startswith("OutOfDate") and not current.startswith("OutOfDate"):
            configure = "Configuration" in launched + current
            advised = TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
            expected = advised if configure else TcbStatus.TD_RELAUNCH_ADVISED
        assert _status(world) is expected


def test_one_component_below_is_below():
    for n in range(16):
        svns = tuple(svn - (place == n and svn > 0) for place, svn in enumerate(pki.SVNS))
        lower = found(replace(TD, extension={"svns": svns}))[0].tcb_status
        assert (lower is TcbStatus.UP_TO_DATE) == (svns == pki.SVNS)
    higher = tuple(svn + 1 for svn in pki.SVNS)
    assert found(replace(TD, extension={"svns": higher}))[0].tcb_status is TcbStatus.UP_TO_DATE
    assert found(replace(TD, extension={"pce_svn": pki.PCE_SVN - 1}))[0].tcb_status is TcbStatus.OUT_OF_DATE


def test_a_tdx_component_below_is_below():
    assert found(replace(TD, td={"tee_tcb_svn": bytes([11, 1, 4]) + bytes(13)}))[0].tcb_status is TcbStatus.OUT_OF_DATE


def test_a_module_of_version_0_is_judged_by_the_platforms_levels():
    levels = {"tcbLevels": [level(pki.components(tdx=(3, 0, 5, *[0] * 13))), level(pki.components(tdx=ZERO), "OutOfDate")]}
    for svn, status in ((3, TcbStatus.UP_TO_DATE), (2, TcbStatus.OUT_OF_DATE)):
        world = replace(TD, td={"tee_tcb_svn": bytes([svn, 0, 5]) + bytes(13)}, info=levels)
        assert _status(world) is status
    later = {"tcbLevels": [level(pki.components(tdx=(99, 99, 5, *[0] * 13)))]}  # version 1: its two numbers are not compared
    assert _status(replace(TD, info=later)) is TcbStatus.UP_TO_DATE


def test_a_module_is_described_by_its_version():
    with pytest.raises(TcbNotAccepted, match="no TDX module of version 1"):
        found(replace(TD, info={"tdxModuleIdentities": None}))
    with pytest.raises(BadEndorsement):
        found(replace(TD, info={"tdxModule": None}, td={"tee_tcb_svn": bytes([3, 0, 5]) + bytes(13)}))
    masked = module(attributes="00" * 8, attributesMask="FE" + "FF" * 7)
    with pytest.raises(TcbNotAccepted, match="another than Intel describes"):  # a bit outside the mask counts too
        found(replace(TD, td={"seam_attributes": b"\x01" + bytes(7)}, info={"tdxModuleIdentities": [masked]}))


@pytest.mark.parametrize(
    "info",
    [
        {"tcbLevels": {}},
        {"tcbLevels": [7]},
        {"tcbLevels": [{"tcb": {}, "tcbDate": "2025-05-14T00:00:00Z", "tcbStatus": "UpToDate"}]},
        {"tcbLevels": [level({**pki.components(), "sgxtcbcomponents": 5})]},
        {"tcbLevels": [level({**pki.components(), "sgxtcbcomponents": [{"svn": True}] * 16})]},
        {"tcbLevels": [level({**pki.components(), "tdxtcbcomponents": [5] * 16})]},
        {"tcbLevels": [level(pki.components(), date="yesterday")]},
        {"tcbLevels": [level(pki.components(), date="2025-02-30T00:00:00Z")]},
        {"tcbLevels": [{**level(pki.components(tdx=ZERO)), "advisoryIDs": "INTEL-SA-00001"}]},
        {"tcbLevels": [{**level(pki.components(tdx=ZERO)), "advisoryIDs": 7}]},
        {"tcbLevels": [{**level(pki.components(tdx=ZERO)), "advisoryIDs": [7]}]},
        {"tcbLevels": [level(pki.components(tdx=ZERO), "TDRelaunchAdvised")]},
        {"tdxModuleIdentities": 5},
        {"tdxModuleIdentities": [module(levels=[level({"isvsvn": 11}, "SWHardeningNeeded")])]},
        {"tdxModuleIdentities": [module(levels=[level({"isvsvn": -1})])]},
        {"tdxModuleIdentities": [module(mrsigner="zz" * 48)]},
        {"tdxModuleIdentities": [{"id": 1}]},
    ],
)
def test_levels_that_are_none_are_refused_although_they_are_signed(info):
    with pytest.raises(BadEndorsement):
        found(replace(TD, info=info))


def test_a_quoting_enclaves_levels_that_are_none_are_refused():
    for levels in (5, [{}], [level({"isvsvn": "8"})], [level({"isvsvn": 8}, "SWHardeningNeeded")]):
        with pytest.raises(BadEndorsement):
            found(replace(TD, identity={"tcbLevels": levels}))


# --- bytes of collateral ------------------------------------------------------------------------------------------------

INFO, IDENTITY = TD.tcb_info(), TD.qe_identity()


def test_collateral_is_read_as_it_stands():
    info, identity = TcbInfo.parse(INFO), QeIdentity.parse(IDENTITY)
    assert b'{"tcbInfo":%s,"signature":"%s"}' % (info.signed, info.signature.hex().encode()) == INFO
    assert (info.id, info.version, info.evaluation, info.fmspc, info.pce_id) == ("TDX", 3, 19, pki.FMSPC, pki.PCE_ID)
    assert b'{"enclaveIdentity":%s,"signature":"%s"}' % (identity.signed, identity.signature.hex().encode()) == IDENTITY
    assert (identity.id, identity.version, identity.mrsigner) == ("TD_QE", 2, pki.QE_SIGNER)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        INFO + b"\n",
        b" " + INFO,
        INFO[:-2],
        INFO.replace(b'"signature"', b'"Signature"'),
        INFO[:-3] + b'g"}',
        INFO[:-4] + b' "}',
        INFO[:-4] + b'  "}',
        INFO[:-130] + b"\xc3\xa9" * 64 + b'"}',
        INFO.replace(b'"version":3', b'"version":3.0'),
        INFO.replace(b'"version":3', b'"version":NaN'),
        INFO.replace(b'"version":3', b'"version":true'),
        INFO.replace(b'"fmspc":"50', b'"fmspc":"5 '),
        INFO.replace(b'"fmspc":"50C06F000000"', b'"fmspc":"50C06F0000"'),
        INFO.replace(b'"issueDate":"2025', b'"issueDate":"25'),
        INFO.replace(b'Z","nextUpdate', b'+","nextUpdate'),
        INFO.replace(b'"tcbLevels"', b'"levels"'),
        b'{"tcbInfo":' + b"[" * 100_000 + b"]" * 100_000 + INFO[-145:],
        b'{"tcbInfo":{"x":' + b"9" * 5000 + b"}" + INFO[-145:],
        b'{"tcbInfo":"' + b" " * MAX_COLLATERAL_BYTES + b'"' + INFO[-145:],
    ],
    ids=lambda data: f"{len(data)}",
)
def test_other_spellings_of_collateral_are_refused(data):
    began = time.process_time()
    with pytest.raises(BadEndorsement):
        TcbInfo.parse(data)
    with pytest.raises(BadEndorsement):
        QeIdentity.parse(data.replace(b"tcbInfo", b"enclaveIdentity"))
    assert time.process_time() - began < 5  # milliseconds; what it stops takes for ever


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda junk: b'{"tcbInfo":' + junk + INFO[-145:]))
def test_nonsense_is_no_collateral(data):
    for read in (TcbInfo.parse, QeIdentity.parse):
        with pytest.raises(BadEndorsement):
            read(data)


@given(st.data())
def test_no_byte_of_collateral_can_be_changed(data):
    name = data.draw(st.sampled_from(["tcb info", "qe identity", "root crl", "pck crl", "tcb signing chain"]))
    documents = TD.documents()
    before = documents[name]
    place = data.draw(st.integers(0, len(before.data) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != before.data[place]))
    changed = before.data[:place] + bytes([byte]) + before.data[place + 1 :]
    documents[name] = Endorsement(before.media_type, changed)
    outcome = walk(tdx, TD.evidence(), Endorsements(tuple(documents.values())), TD.roots(), AT)
    if outcome.code == "ok":  # what was signed did not change: white space of PEM, or the chain's own copy of the root
        leaf, _, root = before.data.partition(b"-----END CERTIFICATE-----\n")
        harmless = name == "tcb signing chain" and (place >= len(leaf) or before.data[place : place + 1] == b"\n")
        assert harmless
        assert root


@given(st.sampled_from([INTEL_TCB_INFO, INTEL_QE_IDENTITY, CRL, CERTIFICATE]), st.binary(max_size=300))
def test_junk_among_the_endorsements_raises_only_what_is_typed(media_type, junk):
    outcome = of(TD, extra=(Endorsement(media_type, junk),))
    assert outcome.number in {"Q8", "Q10", "Q11", "Q14"}


def test_more_documents_than_anybody_needs_are_refused():
    """How long one takes to read is measured in ``bench/bounds.py``; how many are read has a cap."""
    for name, media_type in (("tcb info", INTEL_TCB_INFO), ("qe identity", INTEL_QE_IDENTITY)):
        data = TD.documents()[name].data
        lists = b"[" + b"[]," * ((MAX_COLLATERAL_BYTES - len(data)) // 5) + b"[]]"  # as many as JSON may hold
        many = [data.replace(b'"tcbLevels":', b'"x%d":%s,"tcbLevels":' % (n, lists), 1) for n in range(8)]
        for count, number in ((8, "Q11" if name == "tcb info" else "Q14"), (7, "Q12" if name == "tcb info" else "Q15")):
            outcome = of(TD, extra=tuple(Endorsement(media_type, one) for one in reversed(many[:count])))
            assert outcome.code in {"ok", "attest.bad_endorsement"}
            assert outcome.number in {"", number}


def test_the_largest_endorsements_are_refused_quickly():
    for media_type in (INTEL_TCB_INFO, INTEL_QE_IDENTITY, CRL, CERTIFICATE):
        began = time.process_time()
        assert of(TD, extra=(Endorsement(media_type, b"{" * MAX_ENDORSEMENT_BYTES),)).code != "ok"
        assert time.process_time() - began < 5  # milliseconds; what it stops takes for ever


# --- the PCK's extension ------------------------------------------------------------------------------------------------

EXTENSION = pki.extension()
PARTS = {n: pki.member(bytes([n]), value) for n, value in ((1, pki.der(4, pki.PPID)), (3, pki.der(4, bytes(2))))}


def test_the_extension_names_the_processor():
    read = PckExtension.parse(EXTENSION)
    assert (read.ppid, read.svns, read.pce_svn, read.pce_id, read.fmspc) == (pki.PPID, pki.SVNS, 13, bytes(2), pki.FMSPC)
    assert (read.sgx_type, read.smt) == (1, True)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x00",
        EXTENSION + b"\x00",
        EXTENSION[:-1],
        b"\x31" + EXTENSION[1:],
        pki.der(0x30, PARTS[1] * 2),
        pki.der(0x30, PARTS[1] + b"\x30\x80\x00\x00"),
        pki.der(0x30, PARTS[1] + b"\x30\x81\x05" + bytes(5)),
        pki.der(0x30, PARTS[1] + b"\x30\x83\x00\x00\x05" + bytes(5)),
        pki.der(0x30, PARTS[1] + b"\x30\x82\x00"),
        pki.der(0x30, PARTS[1].replace(b"\x2a\x86\x48", b"\x2a\x86\x49")),
        pki.der(0x30, b"\x31" + PARTS[1][1:]),
        pki.der(0x30, pki.der(0x30, PARTS[1][2:14])),
        pki.der(0x30, pki.der(0x30, PARTS[1][2:] + b"\x05\x00")),
        EXTENSION.replace(pki.der(4, pki.PPID), pki.der(5, pki.PPID)),
        EXTENSION.replace(pki.member(b"\x05", pki.der(0x0A, b"\x01")), b""),
        EXTENSION.replace(b"\x02\x01\x04", b"\x02\x01\xff", 1),
    ],
    ids=range(18),
)
def test_another_extension_is_refused(der):
    with pytest.raises(BadCertificate):
        PckExtension.parse(der)


@given(st.binary(max_size=80))
def test_nonsense_is_no_extension(der):
    with pytest.raises(BadCertificate):
        PckExtension.parse(der)


@given(st.integers(0, 8 * len(EXTENSION) - 1))
def test_a_flipped_bit_of_an_extension_raises_only_what_is_typed(bit):
    flipped = bytearray(EXTENSION)
    flipped[bit // 8] ^= 1 << bit % 8
    with suppress(BadCertificate):
        PckExtension.parse(bytes(flipped))


# --- the second opinion -------------------------------------------------------------------------------------------------


class Other(types.SimpleNamespace):
    """A second verifier that says what it is told to."""

    __version__ = "9.9"

    def __init__(
        self, status: str = "UpToDate", advisories: tuple[str, ...] = (), error: BaseException | None = None
    ) -> None:
        super().__init__(status=status, advisory_ids=list(advisories), error=error, asked=[])

    def QuoteCollateralV3(self, **members):  # the other verifier's name
        return members

    def verify_with_root_ca(self, data, collateral, root, at):
        self.asked.append((data, collateral, root, at))
        if self.error is not None:
            raise self.error
        return self


@pytest.fixture
def other(monkeypatch):
    def install(**said) -> Other:
        one = Other(**said)
        monkeypatch.setattr(second_opinion, "_import", lambda: one)
        return one

    return install


def test_the_second_verifier_is_asked_with_the_same_documents_root_and_time(other):
    one = other()
    verified, transcript = found(TD, ask_second=True)
    ((data, collateral, root, at),) = one.asked
    assert (data, root, at) == (TD.quote(), TD.certificate(ROOT), AT)
    assert collateral["tcb_info"].encode() in INFO
    assert collateral["qe_identity_signature"].hex().encode() in IDENTITY
    assert collateral["root_ca_crl"] == TD.revocation_list(ROOT)
    assert collateral["pck_crl"] == TD.revocation_list(TD.issuer)
    assert collateral["pck_crl_issuer_chain"].encode() == pki.pem(TD.certificate(TD.issuer), TD.certificate(ROOT))
    assert transcript.checks[-1].detail == verified.processor.second_opinion == "dcap-qvl 9.9 agrees"


@pytest.mark.parametrize(
    "said",
    [
        {"status": "OutOfDate"},
        {"status": "UpToDate", "advisories": ("INTEL-SA-00001",)},
        {"error": ValueError("Verification failed: Signature is invalid for qe_report in quote")},
        {"error": ValueError("Verification failed: Debug mode is enabled")},  # we do not see it
        {"error": ValueError("Verification failed: Invalid MR service TD")},
        {"error": ValueError("Verification failed: SEPT_VE_DISABLE is not enabled")},
        {"error": ValueError("Debug mode is")},
        {"error": RuntimeError("panicked")},
        {"error": BaseException("a panic of another runtime")},
    ],
)
def test_a_second_verifier_that_comes_to_another_end_ends_it(other, said):
    other(**said)
    outcome = of(TD)
    assert (outcome.code, outcome.number) == ("attest.second_opinion_differs", "Q20")
    assert outcome.verified is None
    with pytest.raises(SecondOpinionDiffers, match=r"dcap-qvl 9\.9"):
        found(TD, ask_second=True)


def test_an_interrupt_is_no_opinion(other):
    other(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        found(TD, ask_second=True)


@pytest.mark.parametrize("world", [TD, ENCLAVE], ids=["tdx", "sgx"])
def test_a_refusal_by_its_own_policy_counts_only_where_we_see_the_cause(other, world):
    for reason, sees in second_opinion.POLICY_REFUSALS.items():
        other(error=ValueError(f"Verification failed: {reason}"))
        assert not sees(dcap.parse(world.quote()))
        with pytest.raises(SecondOpinionDiffers):
            found(world, ask_second=True)


def _with(attributes: int) -> World:
    return replace(TD, td={"attributes": attributes.to_bytes(8, "little")})


CAUSES = {
    "Debug mode is enabled": _with(1 << 28 | 1),
    "Invalid MR service TD": replace(V5, td={"mrservicetd": b"\x01" * 48}),
    "Invalid QE auth data length": replace(TD, qe_auth=b"short"),
    "Reserved bits in TD attributes are set": _with(1 << 28 | 1 << 40),
    "SEPT_VE_DISABLE is not enabled": _with(0),
    "SERVTD_EXT is enabled": _with(1 << 28 | 1 << 17),
    "TD migration is enabled": _with(1 << 28 | 1 << 29),
    "TD profiling is enabled": _with(1 << 28 | 1 << 5),
}


@pytest.mark.parametrize("reason", second_opinion.POLICY_REFUSALS)
def test_a_refusal_by_its_own_policy_is_no_disagreement_where_we_see_the_cause(other, reason):
    other(error=ValueError(f"Verification failed: {reason}"))
    verified, _ = found(CAUSES[reason], ask_second=True)
    assert verified.processor.second_opinion == f"dcap-qvl 9.9 refuses it only for what we see too: {reason}"


def test_it_is_said_when_nobody_was_asked(alone):
    assert found(TD, ask_second=True)[1].checks[-1].detail == "none is installed"
    verified, transcript = found(TD)
    assert transcript.checks[-1].detail == "none was asked"
    assert verified.processor.second_opinion == ""


def test_without_the_package_there_is_no_second_verifier(monkeypatch):
    monkeypatch.setattr(second_opinion, "MODULE", "no_such_verifier")
    second_opinion._import.cache_clear()
    assert second_opinion._import() is None
    second_opinion._import.cache_clear()


@pytest.mark.parametrize("reason", CAUSES)
def test_the_installed_verifier_refuses_by_policy_in_the_words_that_we_know(reason):
    pytest.importorskip("dcap_qvl")
    verified, _ = found(CAUSES[reason], ask_second=True)
    assert verified.processor.second_opinion.endswith(f"refuses it only for what we see too: {reason}")


def test_the_installed_verifier_agrees_on_every_attribute_bit():
    pytest.importorskip("dcap_qvl")
    for bit in range(64):
        assert found(_with(1 << 28 ^ 1 << bit), ask_second=True)


@given(st.sampled_from([TD, V5, ENCLAVE]), st.data())
def test_whatever_the_bytes_only_typed_errors_escape(world, data):
    quote = world.quote()
    place = data.draw(st.integers(0, len(quote) - 1))
    changed = quote[:place] + data.draw(st.binary(min_size=1, max_size=40)) + quote[place + data.draw(st.integers(0, 40)) :]
    platform = PLATFORMS[world.tee.lower()]
    try:
        walk(platform, Evidence(platform.PLATFORM, changed), world.endorsements(), world.roots(), AT)
    except StrongroomError:
        pytest.fail("walk() catches what is typed")
