"""Keysets, evidence and ``appraise()``: every numbered check has its attack, as a vector and as a property."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.attest import appraisal, simulated
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Measurement, Roots
from strongroom.attest.keyset import (
    RELEASE_ALGO,
    AttestationReport,
    KeyEntry,
    Keyset,
    SourceProvenance,
    TlsKey,
    parse_nonce,
    report_data,
    statement,
)
from strongroom.attest.result import AttestationResult
from strongroom.attest.vector import Tier, TrustVector, tier, worse, worst_tier
from strongroom.errors import (
    AttestationError,
    BadAppraisalPolicy,
    BadEndorsement,
    BadEvidence,
    BadField,
    BadKeyset,
    BadMeasurement,
    BadNonce,
    NotAffirming,
    StrongroomError,
    WireError,
)
from strongroom.party import EncryptionKey, VerifyKey
from strongroom.transcript import Status, Transcript

ROOT = Path(__file__).parent.parent
VECTORS = ROOT / "vectors"
SHARED_ACI = ROOT.parent / "shared" / "vectors" / "aci" / "aci-1.json"


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_attest", VECTORS / "make_attest.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _maker()
GOOD = make.GOOD
KEYSET_FILES = sorted((VECTORS / "keyset").glob("*.json"))
APPRAISAL_FILES = sorted((VECTORS / "appraisal").glob("*.json"))


def ask(world) -> AttestationResult:
    return appraise(**world.question())


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_the_vector_folders_hold_cases_of_both_outcomes():
    for files in (KEYSET_FILES, APPRAISAL_FILES):
        outcomes = {load(path)["expect"] == "ok" for path in files}
        assert outcomes == {True, False}


def test_the_vectors_are_those_that_their_script_writes():
    for folder, cases in make.all_cases().items():
        assert {path.stem: load(path) for path in (VECTORS / folder).glob("*.json")} == cases


@pytest.mark.parametrize("path", APPRAISAL_FILES, ids=lambda p: p.stem)
def test_appraisal_vector(path):
    case = load(path)
    result = appraise(
        Evidence.from_json(case["evidence"]),
        policy=AppraisalPolicy.from_json(case["policy"]),
        endorsements=Endorsements.from_json(case["endorsements"]),
        nonce=bytes.fromhex(case["nonce"]),
        at=case["at"],
        keyset=Keyset.from_json(case["keyset"]),
    )
    if case["expect"] == "ok":
        assert result.affirming
        assert result.require() == Keyset.from_json(case["keyset"])
        assert {check.status for check in result.checks} == {Status.PASSED}
        assert [check.number for check in result.checks] == ["A1", "A2", "P1", "P2", "P3", "P4", "P5", *_from_a3()]
        return
    failed = next(check for check in result.checks if check.code)
    assert (failed.number, failed.code, failed.status) == (case["fails"], case["expect"], Status.FAILED)
    assert failed.detail
    # What a failed check of the platform's decides, A3 repeats; nothing else after the failure is established.
    later = [c for c in result.checks[result.checks.index(failed) + 1 :] if c.number != "A3"]
    assert {check.status for check in later} <= {Status.NOT_ESTABLISHED}
    assert result.status is Tier.CONTRAINDICATED
    assert not result.affirming
    assert result.keyset is None
    assert result.valid_until is None
    with pytest.raises(NotAffirming) as caught:
        result.require()
    assert caught.value.reason == case["expect"]
    assert caught.value.to_json()["reason"] == case["expect"]


def _from_a3() -> list[str]:
    return [f"A{n}" for n in range(3, 16)]


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {load(path)["fails"] for path in APPRAISAL_FILES} - {""}
    # A3 sums up the platform's own checks: it fails with each of them, and on its own below.
    # A11 and A15 need a platform with terms and devices (tests/test_composite.py).
    assert failed | {"A3", "A11", "A15"} == {number for number, _ in (*appraisal.STEPS, *simulated.STEPS)}


def _roles(text: str) -> Keyset:
    keyset = Keyset.parse(text.encode())
    assert isinstance(keyset.run_receipt_key, VerifyKey)
    assert isinstance(keyset.release_key, EncryptionKey)
    return keyset


@pytest.mark.parametrize("path", KEYSET_FILES, ids=lambda p: p.stem)
def test_keyset_vector(path):
    case = load(path)
    if case["expect"] != "ok":
        with pytest.raises(StrongroomError) as caught:
            _roles(case["keyset"])
        assert caught.value.code == case["expect"]
        return
    keyset = _roles(case["keyset"])
    assert keyset.encode() == case["keyset"].encode()
    assert keyset.digest == case["digest"]
    for given_ in case["statements"]:
        nonce = None if given_["nonce"] is None else parse_nonce(given_["nonce"])
        assert statement(keyset.digest, nonce).decode() == given_["statement"]
        assert report_data(keyset.digest, nonce).hex() == given_["report_data"]


def test_aci_keyset_and_statements_of_the_published_vectors():
    if not SHARED_ACI.exists():
        pytest.skip("the ACI vectors of Dstack-TEE/private-ai-gateway are not beside this checkout (shared/vectors/aci)")
    facts = load(SHARED_ACI)
    keyset = Keyset.parse(facts["keyset_jcs"].encode())
    assert keyset.digest == facts["workload_keyset_digest"]
    assert keyset.receipt_signing_keys[0].public_key == facts["public_keys"]["receipt-1"]
    assert len(facts["statements"]) == 2
    for fact in facts["statements"]:
        nonce = None if fact["nonce"] is None else parse_nonce(fact["nonce"])
        assert statement(keyset.digest, nonce).decode() == fact["statement"]
        assert report_data(keyset.digest, nonce) == bytes.fromhex(fact["report_data"]) + bytes(32)


def test_aci_keyset_digest_known_answer():
    # The facts of the published ACI vectors that this project relies on, repeated here.
    key = KeyEntry("receipt-1", "ed25519", "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394")
    e2ee = KeyEntry(
        "e2ee-1", "x25519-aes-256-gcm-hkdf-sha256", "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22"
    )
    tls = TlsKey(b"\xc0" * 32, "api.example.com")
    keyset = Keyset(1_800_000_000, (key,), (e2ee,), (tls,), "dstack-app://example-app")
    assert keyset.digest == "sha256:53a5cd44b30dcc51999754c719f2628a041f174ecbf9662a6f8e898a10cd9371"
    assert report_data(keyset.digest, bytes(range(32))).hex() == (
        "df2174d28130852b413646a3786927b93e94c11d770268b65def8bdba45cb49e" + "00" * 32
    )
    assert report_data(keyset.digest, None).hex()[:64] == "0633919ca3f00e97bafaa3304278eb22420cc3ff0d19f87dfca2d3f7508150bc"
    for role in ("run_receipt_key", "release_key"):
        with pytest.raises(BadKeyset, match="has 0 keys"):
            getattr(keyset, role)


# --- appraise(): what no vector can say -----------------------------------------------------------------------------


def test_only_appraise_makes_a_result():
    result = ask(GOOD)
    arguments = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    with pytest.raises(TypeError, match="only appraise"):
        AttestationResult(**arguments, maker=object())
    with pytest.raises(TypeError):
        AttestationResult(**arguments)
    with pytest.raises((TypeError, ValueError)):
        replace(result, status=Tier.AFFIRMING)


def test_only_verify_makes_verified_evidence():
    with pytest.raises(TypeError, match="only verify"):
        simulated.SimulatedVerified(bytes(64), make.MEASUREMENT, False, 0, 0, (), maker=object())


def test_a_missing_nonce_is_refused_even_where_the_evidence_binds_none():
    # A caller that hands over no nonce at all, against the types, must not get an affirming answer.
    world = make.appraisal_cases()["nonce-null"][3]
    for nonce in (None, "", make.NONCE.hex(), bytearray(make.NONCE)):
        result = appraise(**{**world.question(), "nonce": nonce})
        assert not result.affirming
        assert next(c for c in result.checks if c.code).code == "attest.bad_nonce"


def test_what_an_affirming_result_says():
    result = ask(GOOD)
    assert result.label == "platform: simulated (no hardware protection)"
    assert (result.platform, result.at, result.nonce) == ("simulated", make.AT, make.NONCE)
    assert result.measurement == make.MEASUREMENT
    assert result.keyset_digest == make.KEYSET.digest
    assert result.policy_digest == GOOD.policy.digest
    assert result.collateral == (wire.digest(GOOD.endorsement.encode()),)
    assert result.valid_until == make.AT + 3600
    assert result.transcript.ok
    assert result.platform_transcript is not None
    assert result.platform_transcript.ok


def test_an_affirming_result_ends_with_the_first_thing_that_it_rests_on():
    sooner = replace(GOOD, endorsement=replace(GOOD.endorsement, not_after=make.AT + 10))
    assert ask(sooner).valid_until == make.AT + 10
    keyset = replace(make.KEYSET, not_after=make.AT + 5)
    bound = replace(GOOD, claims=replace(GOOD.claims, report_data=report_data(keyset.digest, make.NONCE)), keyset=keyset)
    assert ask(bound).valid_until == make.AT + 5


def test_nothing_is_claimed_of_simulated_hardware():
    vector = ask(GOOD).vector
    assert (vector.hardware, vector.runtime_opaque, vector.storage_opaque, vector.sourced_data) == (0, 0, 0, 0)
    assert vector.worst is Tier.AFFIRMING


@pytest.mark.parametrize(
    ("case", "claim", "value"),
    [
        ("unknown-root", "instance_identity", 99),
        ("debug", "configuration", 96),
        ("edited-program", "executables", 33),
        ("nonce-replayed", "instance_identity", 2),
        ("empty-policy", "instance_identity", 0),
    ],
)
def test_the_vector_says_which_aspect_failed(case, claim, value):
    assert getattr(ask(make.appraisal_cases()[case][3]).vector, claim) == value


def test_a_measurement_is_reported_only_when_a_platform_signed_it():
    cases = make.appraisal_cases()
    assert ask(cases["edited-program"][3]).measurement == make.EDITED
    assert ask(cases["evidence-altered"][3]).measurement is None


def test_the_result_as_an_ear():
    found = ask(GOOD).to_json()
    assert wire.decode(wire.encode(found)) == found
    assert found["eat_profile"] == "tag:github.com,2023:veraison/ear"
    submod = found["submods"]["simulated"]
    assert submod["ear.status"] == "affirming"
    assert submod["ear.trustworthiness-vector"]["hardware"] == 0
    assert submod["strongroom.label"].endswith("(no hardware protection)")
    assert len(found["strongroom.checks"]) == 20
    refused = ask(make.appraisal_cases()["unknown-root"][3]).to_json()
    assert refused["submods"]["simulated"]["ear.status"] == "contraindicated"
    assert refused["submods"]["simulated"]["strongroom.measurement"] is None


def test_a_platform_module_that_forgets_a_check_does_not_pass(monkeypatch):
    class Sloppy:
        LABEL, STEPS, TERMS_STEPS = simulated.LABEL, simulated.STEPS, None

        @staticmethod
        def verify(*arguments, transcript, **named):
            return simulated.verify(*arguments, transcript=Transcript(simulated.STEPS), **named)

    monkeypatch.setattr(appraisal, "verifier", {"simulated": Sloppy}.get)
    result = ask(GOOD)
    assert not result.affirming
    assert next(c for c in result.checks if c.code).number == "A3"


def test_evidence_without_a_time_of_its_own_is_fresh_by_its_nonce(monkeypatch):
    class Timeless:
        LABEL, STEPS, TERMS_STEPS = simulated.LABEL, simulated.STEPS, None

        @staticmethod
        def verify(*arguments, **named):
            found = simulated.verify(*arguments, **named)
            object.__setattr__(found, "produced_at", None)
            return found

    monkeypatch.setattr(appraisal, "verifier", {"simulated": Timeless}.get)
    assert ask(GOOD).affirming


# --- malleability -----------------------------------------------------------------------------------------------------


@given(st.data())
def test_no_single_byte_of_evidence_can_be_changed(data):
    good = GOOD.envelope.encode()
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.integers(1, 255))
    flipped = good[:place] + bytes([good[place] ^ other]) + good[place + 1 :]
    assert not ask(replace(GOOD, evidence_bytes=flipped)).affirming


@given(st.data())
def test_no_single_byte_of_an_endorsement_can_be_changed(data):
    good = GOOD.endorsements.documents[0]
    place = data.draw(st.integers(0, len(good.data) - 1))
    other = data.draw(st.integers(1, 255))
    flipped = good.data[:place] + bytes([good.data[place] ^ other]) + good.data[place + 1 :]
    assert not ask(replace(GOOD, documents=(Endorsement(good.media_type, flipped),))).affirming


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_no_bytes_make_appraise_raise(evidence, endorsement):
    documents = (Endorsement(simulated.ENDORSEMENT_TYPE, endorsement),)
    assert not ask(replace(GOOD, evidence_bytes=evidence)).affirming
    assert not ask(replace(GOOD, documents=documents)).affirming


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    )
)
def test_no_signed_json_makes_appraise_raise(value):
    try:
        payload = wire.encode(value)
    except WireError:
        return
    signed = make.PLATFORM_KEY.sign(simulated.EVIDENCE_TYPE, payload).encode()
    assert not ask(replace(GOOD, evidence_bytes=signed)).affirming
    endorsed = make.ROOT.sign(simulated.ENDORSEMENT_TYPE, payload).encode()
    assert not ask(replace(GOOD, documents=(Endorsement(simulated.ENDORSEMENT_TYPE, endorsed),))).affirming


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True)
REGISTER_NAMES = st.from_regex(r"[a-z0-9][a-z0-9_]{0,8}", fullmatch=True)
DIGESTS = st.binary(max_size=2).map(wire.digest)
MEASUREMENTS = st.builds(Measurement, NAMES, st.dictionaries(REGISTER_NAMES, DIGESTS, min_size=1, max_size=4))
LABELS = st.from_regex(r"[!-~]{1,12}", fullmatch=True)
HOSTS = st.none() | st.text(min_size=1, max_size=9)


@st.composite
def keysets(draw) -> Keyset:
    count = draw(st.integers(0, 4))
    ids = draw(st.lists(LABELS, min_size=count, max_size=count, unique=True))
    keys = draw(st.lists(st.binary(min_size=1, max_size=40), min_size=count, max_size=count, unique=True))
    entries = [KeyEntry(i, draw(LABELS), k.hex()) for i, k in zip(ids, keys, strict=True)]
    cut = draw(st.integers(0, count))
    spki = draw(st.lists(st.binary(min_size=32, max_size=32), max_size=2, unique=True))
    tls = tuple(TlsKey(key, draw(HOSTS)) for key in spki)
    subject = draw(st.none() | st.text(max_size=12))
    return Keyset(draw(st.integers(0, wire.MAX_INT)), tuple(entries[:cut]), tuple(entries[cut:]), tls, subject)


PROVENANCES = st.builds(SourceProvenance, *[st.none() | st.text(max_size=8)] * 3)
REPORTS = st.builds(
    AttestationReport,
    keysets(),
    st.binary(min_size=32, max_size=32),
    st.builds(Evidence, NAMES, st.binary(max_size=20)),
    st.lists(st.builds(Endorsement, st.just("a/b"), st.binary(max_size=9)), max_size=2).map(
        lambda d: Endorsements(tuple(d))
    ),
    PROVENANCES,
    st.lists(st.text(max_size=3), max_size=2).map(tuple),
    st.sampled_from(["direct", "aggregator"]),
)
ROOTS = st.builds(
    Roots,
    st.lists(st.sampled_from([make.ROOT.public, make.OTHER.public])).map(tuple),
    st.lists(st.sampled_from([wire.digest(b"a"), wire.digest(b"b")])).map(tuple),
)
POLICIES = st.builds(
    AppraisalPolicy,
    st.frozensets(NAMES, max_size=3),
    st.dictionaries(NAMES, ROOTS, max_size=2),
    st.lists(st.builds(Reference, MEASUREMENTS, st.text(max_size=3), st.text(max_size=3)), max_size=3).map(tuple),
    st.integers(1, 86_400),
    st.none() | st.frozensets(st.sampled_from(["chip:00", "ppid:" + "ab" * 16, "ueid:" + "07" * 20])),
    st.dictionaries(st.sampled_from(["nvidia_cc", "nras"]), st.integers(1, 16)),
)
CLAIMS = st.builds(
    simulated.Claims,
    st.binary(min_size=64, max_size=64),
    MEASUREMENTS.map(lambda m: Measurement("simulated", m.registers)),
    st.booleans(),
    st.integers(0, wire.MAX_INT),
)


@given(st.one_of(keysets(), REPORTS, POLICIES, MEASUREMENTS))
def test_encode_and_parse_are_inverse(found):
    assert type(found).parse(found.encode()) == found


@given(CLAIMS)
def test_a_signed_quote_says_what_was_signed(claims):
    assert simulated.parse(claims.sign(make.PLATFORM_KEY).data) == claims


SEEDS = [
    make.KEYSET,
    GOOD.policy,
    make.MEASUREMENT,
    AttestationReport(
        make.KEYSET,
        report_data(make.KEYSET.digest, make.NONCE)[:32],
        GOOD.evidence,
        GOOD.endorsements,
        SourceProvenance("https://example.org/x", "c0ffee", None),
        ("2",),
    ),
]


@given(st.sampled_from(SEEDS), st.data())
def test_a_changed_byte_is_refused_or_kept(found, data):
    good = found.encode()
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.integers(0, 255))
    changed = good[:place] + bytes([other]) + good[place + 1 :]
    try:
        read = type(found).parse(changed)
    except StrongroomError:
        return
    assert read.encode() == changed


# --- keysets and reports ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonce", ["", "ab", "AB" * 32, "g" * 64, "0" * 63, "0" * 64 + "\n", " " + "0" * 63])
def test_any_other_spelling_of_a_nonce_is_refused(nonce):
    with pytest.raises(BadNonce):
        parse_nonce(nonce)


def test_a_statement_is_made_only_of_a_digest_and_a_whole_nonce():
    with pytest.raises(BadNonce):
        statement(make.KEYSET.digest, bytes(31))
    with pytest.raises(BadKeyset):
        statement(make.KEYSET.digest.upper(), None)
    with pytest.raises(BadKeyset):
        statement('sha256:","nonce":"', None)


@pytest.mark.parametrize(
    "build",
    [
        lambda: KeyEntry("", "ed25519", "ab"),
        lambda: KeyEntry("a b", "ed25519", "ab"),
        lambda: KeyEntry("a", "", "ab"),
        lambda: KeyEntry("a", "ed25519", ""),
        lambda: KeyEntry("a", "ed25519", "abc"),
        lambda: KeyEntry("a", "ed25519", "ab" * 4097),
        lambda: TlsKey(bytes(31)),
        lambda: TlsKey(bytes(32), ""),
        lambda: TlsKey(bytes(32), "a" * 254),
        lambda: Keyset(-1),
        lambda: Keyset(0, tls_public_keys=(TlsKey(bytes(32)), TlsKey(bytes(32)))),
        lambda: Keyset(0, e2ee_public_keys=(KeyEntry("a", "strongroom-run-receipt-ed25519", "ab"),)),
    ],
)
def test_malformed_keys_are_refused_where_they_are_made(build):
    with pytest.raises(BadKeyset):
        build()


def test_one_tls_key_may_serve_two_domains():
    keyset = Keyset(0, tls_public_keys=(TlsKey(bytes(32), "a.example"), TlsKey(bytes(32), "b.example")))
    assert Keyset.parse(keyset.encode()) == keyset


def test_a_malformed_release_key_is_named_by_its_length():
    keyset = replace(make.KEYSET, e2ee_public_keys=(KeyEntry("r", RELEASE_ALGO, "ab"),))
    with pytest.raises(BadKeyset, match="unusable"):
        _ = keyset.release_key


def _report(change) -> bytes:
    value = json.loads(SEEDS[3].encode())
    change(value)
    return wire.encode(value)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: r.update(workload_keyset_digest="sha256:" + "0" * 64), BadKeyset),
        (lambda r: r.update(api_version="aci/2"), BadField),
        (lambda r: r.update(note=""), BadField),
        (lambda r: r["attestation"].update(note=""), BadField),
        (lambda r: r["attestation"]["evidence"].update(note=""), BadField),
        (lambda r: r["service_capabilities"].update(note=""), BadField),
        (lambda r: r["service_capabilities"].update(serving="indirect"), BadField),
        (lambda r: r["attestation"]["source_provenance"].update(image_provenance={}), BadField),
        (lambda r: r["attestation"].update(tee_type="Simulated"), BadEvidence),
        (lambda r: r["attestation"].update(report_data="00" * 64), BadField),
        (lambda r: r["attestation"]["evidence"].update(endorsements=[{}] * 65), BadField),
    ],
)
def test_a_report_that_is_not_exactly_one_is_refused(change, error):
    with pytest.raises(error):
        AttestationReport.parse(_report(change))


def test_a_report_as_aci_has_it():
    value = json.loads(SEEDS[3].encode())
    assert set(value) == {"api_version", "workload_keyset_digest", "attestation", "service_capabilities"}
    attestation = value["attestation"]
    assert attestation["tee_type"] == "simulated"
    assert attestation["report_data"] == hashlib.sha256(statement(make.KEYSET.digest, make.NONCE)).hexdigest()
    assert set(attestation["source_provenance"]) == {"repo_url", "repo_commit", "image_digest", "image_provenance"}


# --- evidence, measurements, policies, vectors ------------------------------------------------------------------------


def test_evidence_and_endorsements_have_bounds():
    with pytest.raises(BadEvidence):
        Evidence("simulated", bytes(256 * 1024 + 1))
    with pytest.raises(BadEvidence):
        Evidence("../simulated", b"")
    with pytest.raises(BadEndorsement):
        Endorsements((Endorsement("a/b", b""),) * 65)


@pytest.mark.parametrize(
    "registers",
    [{}, {"package": "sha256:00"}, {"Package": wire.digest(b"")}, {f"r{n}": wire.digest(b"") for n in range(33)}],
)
def test_a_measurement_without_registers_or_with_other_than_digests_is_refused(registers):
    with pytest.raises(BadMeasurement):
        Measurement("simulated", registers)


def test_measurements_are_values():
    registers = {"b": wire.digest(b"b"), "a": "sha384:" + "0" * 96}
    one, two = Measurement("tdx", registers), Measurement("tdx", dict(reversed(registers.items())))
    assert one == two
    assert hash(one) == hash(two)
    assert one.digest == two.digest
    assert one != replace(one, platform="sev_snp")
    with pytest.raises(TypeError):
        one.registers["a"] = wire.digest(b"")
    with pytest.raises(BadMeasurement):
        Measurement("T D X", registers)
    for registers_ in ([], {"a": 1}):
        with pytest.raises(BadMeasurement):
            Measurement.from_json({"platform": "tdx", "registers": registers_})


def test_policies_are_values():
    policy = GOOD.policy
    twice = replace(policy, references=policy.references * 2, roots={"simulated": Roots((make.ROOT.public,) * 2)})
    assert policy == twice
    assert hash(policy) == hash(twice)
    assert policy != replace(policy, max_age_s=10)
    for age in (0, 86_401):
        with pytest.raises(BadAppraisalPolicy):
            AppraisalPolicy(max_age_s=age)
    many = tuple(Reference(Measurement("m", {"r": wire.digest(b"%d" % n)})) for n in range(1025))
    with pytest.raises(BadAppraisalPolicy):
        AppraisalPolicy(references=many)


def test_a_policy_out_of_order_is_refused():
    value = replace(GOOD.policy, references=(Reference(make.MEASUREMENT), Reference(make.EDITED))).to_json()
    assert AppraisalPolicy.from_json(value).references
    with pytest.raises(BadAppraisalPolicy):
        AppraisalPolicy.from_json({**value, "references": value["references"][::-1]})
    for roots in ([], {"simulated": "x"}):
        with pytest.raises(BadField):
            AppraisalPolicy.from_json({**value, "roots": roots})
    for named in ({"platforms": frozenset({"_"})}, {"roots": {"Simulated": Roots()}}):
        with pytest.raises(BadAppraisalPolicy, match="no platform's name"):
            AppraisalPolicy(**named)


def test_an_endorsement_that_is_not_a_platform_keys_is_refused():
    for payload in (b"", b"{}", GOOD.endorsement.encode().replace(b"simulated", b"simulatee")):
        with pytest.raises(AttestationError):
            simulated.PlatformEndorsement.parse(payload)
    weak = {**json.loads(GOOD.endorsement.encode()), "platform_key": wire.b64(b"\x01" + bytes(31))}
    with pytest.raises(BadEndorsement):
        simulated.PlatformEndorsement.parse(wire.encode(weak))
    assert simulated.PlatformEndorsement.parse(GOOD.endorsement.encode()) == GOOD.endorsement


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((-128, 3), (-97, 3), (-96, 2), (-33, 2), (-32, 1), (-2, 1), (-1, 0)),
        *((0, 0), (1, 0), (2, 1), (31, 1), (32, 2), (95, 2), (96, 3), (127, 3)),
    ],
)
def test_tiers_are_those_of_ar4si(value, expected):
    assert tier(value) is (Tier.NONE, Tier.AFFIRMING, Tier.WARNING, Tier.CONTRAINDICATED)[expected]


def test_the_worst_claim_decides():
    assert TrustVector().worst is Tier.NONE
    assert TrustVector(hardware=2).worst is Tier.AFFIRMING
    assert TrustVector(hardware=2, executables=33).worst is Tier.WARNING
    assert TrustVector(hardware=97, executables=33).worst is Tier.CONTRAINDICATED
    assert TrustVector(hardware=97, executables=33).warnings == ("executables",)


def test_the_worse_of_two_values_of_a_claim():
    """What claims nothing gives way, on either side; else the worse tier stays."""
    for one, other, worst in ((0, 2, 2), (2, 0, 2), (96, 2, 96), (2, 96, 96), (33, 3, 33), (96, 33, 96), (0, 0, 0)):
        assert worse(one, other) == worst
    assert worst_tier(Tier.NONE, Tier.AFFIRMING) is Tier.NONE
    assert worst_tier(*Tier) is Tier.CONTRAINDICATED


def test_nothing_decides_by_what_an_ear_says():
    """A release is decided by the checks; the EAR's tier is written down, and read by nobody here."""
    named = {"ear_status", "processor_status", "ear.status"}
    sources = ROOT / "src" / "strongroom"
    assert {
        str(path.relative_to(sources)) for path in sources.rglob("*.py") if any(name in path.read_text() for name in named)
    } == {"attest/result.py", "rcar/ear.py"}  # the latter for whoever is shown a token


@pytest.mark.parametrize("path", APPRAISAL_FILES, ids=lambda p: p.stem)
def test_an_ear_says_nothing_better_than_the_checks_and_every_claim(path):
    """draft-ietf-rats-ear: no higher trust than the worst claim."""
    case = load(path)
    result = ask(make.appraisal_cases()[path.stem][3])
    order = list(Tier)
    said = order.index(Tier(result.to_json()["ear.status"]))
    made = [tier(value) for value in result.vector.to_json().values() if value]
    assert all(order.index(one) <= said for one in (result.status, *made))
    assert result.to_json()["strongroom.affirming"] is (case["expect"] == "ok")
    if case["expect"] != "ok":
        assert result.ear_status is Tier.CONTRAINDICATED


# --- the spec pages ---------------------------------------------------------------------------------------------------


def _examples(page: str) -> list[object]:
    blocks = (ROOT / "spec" / page).read_text(encoding="utf-8").split("```json\n")[1:]
    return [json.loads(block.split("```")[0]) for block in blocks]


def test_the_examples_in_the_spec_are_what_the_code_makes():
    result = ask(GOOD).to_json()
    del result["strongroom.checks"]
    assert _examples("appraisal.md") == [GOOD.policy.to_json(), result]
    bound = json.loads(statement(make.KEYSET.digest, make.NONCE))
    assert _examples("attestation.md") == [bound, json.loads(GOOD.claims.encode()), json.loads(GOOD.endorsement.encode())]


def test_the_spec_numbers_the_checks_as_the_code_does():
    page = (ROOT / "spec" / "appraisal.md").read_text(encoding="utf-8")
    for number, name in (*appraisal.STEPS, *simulated.STEPS):
        assert f"| {number} | {name} |" in page
    for path in APPRAISAL_FILES:
        assert load(path)["expect"] in {"ok", *page.split("`")}
