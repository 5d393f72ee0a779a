"""Guests' protocol, piece by piece: messages, keys, cookies, reports, decisions and tokens, as the vectors say them."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from rcar_case import KEY, Place, decided, session_of
from rcar_guest import EcKey, Guest, RsaKey
from rcar_reports import sev_json
from real import read as real_bytes
from real import real
from strongroom import wire
from strongroom.app.client.prose import clauses
from strongroom.attest.appraisal import STEPS as APPRAISAL
from strongroom.attest.guest import GUEST_STEPS as GUEST_APPRAISAL
from strongroom.attest.guest import RuntimeData
from strongroom.attest.tee_key import TeeKey, unb64url
from strongroom.broker import STEPS, Refusal, Release
from strongroom.contract import ProgramRef, Proposal
from strongroom.errors import BadEar, BadKey, BadProposal, NotAffirming, StrongroomError
from strongroom.guest import GUEST_STEPS
from strongroom.party import VerifyKey
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.rcar import ear, jwe
from strongroom.rcar.evidence import read, snp_report
from strongroom.rcar.message import TEES, Attestation, Request, Session, challenge
from strongroom.release import RELEASE_TYPE, ReleaseStatement
from world import MEASUREMENT, NOW, Clock, SimulatedPlatform, World, broker_key, keys_of, seed

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "rcar").glob("*.json"))
PAGE = "".join((HOME / "spec" / name).read_text(encoding="utf-8") for name in ("rcar.md", "release.md"))


def cases(operation: str) -> list[Any]:
    found = [(path.stem, json.loads(path.read_bytes())) for path in VECTORS]
    return [pytest.param(case, id=name) for name, case in found if case["operation"] == operation]


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "ok", call()
    except StrongroomError as error:
        return error.code, None


def test_the_vectors_are_what_their_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_rcar", HOME / "vectors" / "make_rcar.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    said = {name: json.loads(json.dumps(case)) for name, case in made.all_cases().items()}
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == said
    assert len(said) > 100


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("decide"))
def test_a_decision(case: dict[str, Any]) -> None:
    decision = decided(case)
    if isinstance(decision, Refusal):
        assert (decision.code, decision.number) == (case["expect"], case["number"])
        payload = wire.decode(decision.envelope.payload)
        assert isinstance(payload, dict)
        assert payload["nonce"] == case["session"]["nonce"]
        return
    assert case["expect"] == "ok"
    opener = EcKey()
    opener.private = ec.derive_private_key(int(case["private"], 16), ec.SECP256R1())
    guest = Guest(None, key=opener)  # type: ignore[arg-type]
    assert guest.open(json.loads(decision.encrypted_key)).hex() == case["book"]["assets"][0]["key"]
    broker = broker_key(case["owner"]["name"]).public
    statement = ReleaseStatement.verify(decision.envelope, broker)
    assert statement.keyset_digest == session_of(case["session"]).runtime.key.digest
    assert statement.encrypted_key == wire.digest(decision.encrypted_key)
    assert decision.envelope.payload_type == RELEASE_TYPE
    assert decision.transcript.ok


def test_every_check_has_a_vector_that_fails_it() -> None:
    numbers = {case.values[0]["number"] for case in cases("decide")}
    assert numbers == {"", *(number for number, _ in STEPS)}


def test_guests_pass_the_same_numbers_and_the_page_has_their_words() -> None:
    assert [n for n, _ in GUEST_STEPS] == [n for n, _ in STEPS]
    assert [n for n, _ in GUEST_APPRAISAL] == [n for n, _ in APPRAISAL]
    own = dict(STEPS).items(), dict(APPRAISAL).items()
    for steps, plain in ((GUEST_STEPS, own[0]), (GUEST_APPRAISAL, own[1])):
        for number, name in steps:
            if (number, name) not in plain:
                assert f"| {number} | {name} |" in PAGE or f"| {number} of a guest | {name} |" in PAGE


def test_the_same_guest_gets_the_same_release_and_only_decide_makes_one(tmp_path: Path) -> None:
    case = next(c.values[0] for c in cases("decide") if c.values[0]["number"] == "")
    one = decided(case)
    assert isinstance(one, Release)
    with pytest.raises(TypeError):
        Release(one.envelope, one.encrypted_key, one.transcript, object())


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("attestation"))
def test_an_attestation(case: dict[str, Any]) -> None:
    session = Session(Request(case["minor"], case["tee"]), bytes.fromhex(case["nonce"]), NOW)
    code, found = outcome(lambda: Attestation.parse(case["message"].encode(), session))
    assert code == case["expect"]
    if found is not None:
        assert found.runtime.hash.hex() == case["hash"]
        assert found.runtime.report_data == bytes.fromhex(case["hash"]) + bytes(16)


@pytest.mark.parametrize("case", cases("session"))
def test_a_cookie(case: dict[str, Any]) -> None:
    key, said = bytes.fromhex(case["key"]), case["session"]
    code, found = outcome(lambda: Session.open(case["cookie"], key, case["at"]))
    assert code == case["expect"]
    if found is not None:
        assert found == Session(Request(said["minor"], said["tee"]), bytes.fromhex(said["nonce"]), said["until"])
        assert found.seal(key) == case["cookie"]


@given(st.integers(1, 4), st.sampled_from(TEES), st.binary(min_size=32, max_size=32), st.integers(1, 2**40), st.binary())
def test_a_cookie_is_read_as_it_was_written_and_under_no_other_key(minor, tee, nonce, until, other) -> None:
    session, key = Session(Request(minor, tee), nonce, until), seed("a key of cookies")
    text = session.seal(key)
    assert re.fullmatch(r"[A-Za-z0-9_-]{78}", text)  # which every client of cookies keeps as it is
    assert Session.open(text, key, until - 1) == session
    assert outcome(lambda: Session.open(text, other.ljust(32, b"x"), 0))[0] == "broker.no_session"


@settings(max_examples=25)
@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), lambda s: st.dictionaries(st.text(), s)))
def test_any_bytes_are_a_message_or_one_of_our_errors(said: Any) -> None:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    for minor in range(1, 5):
        outcome(lambda: Attestation.parse(data, Session(Request(minor, "tdx"), bytes(32), NOW)))  # noqa: B023 - at once
    outcome(lambda: Request.parse(data))


def test_a_challenge_is_what_the_oldest_and_the_newest_guest_read() -> None:
    assert json.loads(challenge(bytes(32))) == {"extra-params": "", "nonce": base64.b64encode(bytes(32)).decode()}


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("tee_key"))
def test_a_guests_key(case: dict[str, Any]) -> None:
    code, found = outcome(lambda: TeeKey.from_json(case["jwk"]))
    assert code == case["expect"]
    if found is not None:
        assert (found.digest, found.to_json()) == (case["digest"], case["jwk"])
        assert unb64url(found.thumbprint).hex() == case["digest"].removeprefix("sha256:")


def test_an_identity_is_the_thumbprint_of_the_standard() -> None:
    """RFC 7638, section 3.1, as far as it is of a key that is accepted: the algorithm is no part of it."""
    jwk = EcKey().public()
    one, other = TeeKey.from_json(jwk), TeeKey.from_json(dict(reversed(jwk.items())))
    assert one.digest == other.digest == wire.digest(wire.encode({k: jwk[k] for k in ("crv", "kty", "x", "y")}))


@given(
    st.dictionaries(st.sampled_from(["kty", "crv", "alg", "x", "y", "n", "e", "d"]), st.text() | st.integers() | st.none())
)
def test_any_object_is_a_key_or_one_of_our_errors(jwk: Any) -> None:
    outcome(lambda: TeeKey.from_json(jwk))


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", 2048, 3072])
def test_what_is_encrypted_opens_with_that_key_alone(kind: Any) -> None:
    key: Any = EcKey(kind) if isinstance(kind, str) else RsaKey(kind)
    found = json.loads(jwe.encrypt(TeeKey.from_json(key.public()), KEY.raw))
    assert Guest(None, key=key).open(found) == KEY.raw  # type: ignore[arg-type]
    other = RsaKey() if isinstance(key, RsaKey) else EcKey(key.crv)
    with pytest.raises(Exception):  # noqa: B017 - the library's own, by several names
        Guest(None, key=other).open(found)  # type: ignore[arg-type]


def test_the_header_is_spelled_as_a_guest_will_spell_it() -> None:
    """A guest authenticates its own spelling: alg, enc, and what else there is, sorted, with nothing between."""
    found = json.loads(jwe.encrypt(TeeKey.from_json(EcKey().public()), b"x"))
    assert re.fullmatch(
        rb'\{"alg":"ECDH-ES\+A256KW","enc":"A256GCM","epk":\{"crv":"P-256","kty":"EC","x":"[\w-]{43}","y":"[\w-]{43}"\}\}',
        unb64url(found["protected"]),
    )


def test_a_key_that_the_library_takes_for_none_is_our_error() -> None:
    with pytest.raises(BadKey):
        jwe.encrypt(TeeKey("ECDH-ES+A256KW", (("kty", "EC"),)), b"x")


def test_a_library_that_spells_the_header_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def serialize(self, **_: Any) -> str:
            return f"{base64.urlsafe_b64encode(b'{ }').decode()}.a.b.c.d"

    class Module:
        JWE = Other
        JWK = Other

    monkeypatch.setattr(jwe, "load", lambda: (Module, Module))
    with pytest.raises(BadKey, match="spelled"):
        jwe.encrypt(TeeKey.from_json(EcKey().public()), b"x")


# --- evidence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("snp_report"))
def test_a_report(case: dict[str, Any]) -> None:
    code, found = outcome(lambda: snp_report(case["json"]))
    assert code == case["expect"]
    if found is not None:
        assert found.hex() == case["report"]


@given(st.binary(min_size=1184, max_size=1184))
def test_any_bytes_of_a_report_with_empty_reserves_come_back(raw: bytes) -> None:
    reserved = [(76, 80), (491, 492), (495, 496), (816, 1184), *((at + 2, at + 6) for at in (56, 384, 480, 496))]
    for low, high in reserved:
        raw = raw[:low] + bytes(high - low) + raw[high:]
    assert snp_report(sev_json(raw)) == raw


@real
@pytest.mark.parametrize("name", ["trustee_v2_milan", "trustee_vlek_v3_milan", "virtee_v2_milan", "ms_milan", "ms_genoa"])
def test_a_real_report_comes_back_to_the_byte(name: str) -> None:
    raw = real_bytes(f"snp/{name}.report")
    evidence, came = read("snp", {"attestation_report": sev_json(raw), "cert_chain": None}, None)
    assert (evidence.platform, evidence.data, came.documents) == ("sev_snp", raw, ())


@real
def test_a_real_quote_comes_back_to_the_byte() -> None:
    raw = real_bytes("tdx/trustee_v4_gnr.quote")
    said = {"quote": base64.b64encode(raw).decode(), "cc_eventlog": base64.b64encode(b"left alone").decode()}
    evidence, _ = read("tdx", said, None)
    assert (evidence.platform, evidence.data, evidence.event_log) == ("tdx", raw, b"")


def test_certificates_that_come_along_are_taken_and_others_left() -> None:
    raw = bytes(1184)
    chain = [{"cert_type": kind, "data": [1, 2]} for kind in ("VCEK", "ASK", "ARK", "CRL", "Empty", {"OTHER": "x"})]
    _, came = read("snp", {"attestation_report": sev_json(raw), "cert_chain": chain}, None)
    assert [e.media_type for e in came.documents] == ["application/pkix-cert"] * 3 + ["application/pkix-crl"]


@pytest.mark.parametrize("tee", TEES)
@settings(max_examples=20)
@given(found=st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_any_evidence_is_evidence_or_one_of_our_errors(tee: str, found: Any) -> None:
    assert outcome(lambda: read(tee, found, None))[0] in {"attest.bad_evidence", "attest.sample_not_vouched"}


@pytest.mark.parametrize(
    "chain", [1, [1], [{}], [{"cert_type": "VCEK", "data": [256]}], [{"cert_type": "X", "data": []}] * 17]
)
def test_a_chain_of_another_form_is_refused(chain: Any) -> None:
    said = {"attestation_report": sev_json(bytes(1184)), "cert_chain": chain}
    assert outcome(lambda: read("snp", said, None))[0] == "attest.bad_evidence"


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("ear"))
def test_a_token(case: dict[str, Any]) -> None:
    key = VerifyKey(base64.b64decode(case["broker"]))
    code, found = outcome(lambda: ear.verify(case["token"], key, case["at"]))
    assert code == case["expect"]
    if found is not None:
        assert found.key == case["key"]
        assert found.until > case["at"] >= found.at


def test_a_token_holds_for_any_jwt_library_and_by_the_rules_of_its_profile() -> None:
    case = next(c.values[0] for c in cases("ear") if c.values[0]["expect"] == "ok")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(case["broker"]))
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "iss", "jti"]}
    claims = jwt.decode(case["token"], public, algorithms=["EdDSA"], options=options)
    # draft-ietf-rats-ear: the profile, who appraised, and for each submodule a status and a vector of AR4SI's claims
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert set(claims["ear.verifier-id"]) == {"build", "developer"}
    assert 8 <= len(claims["eat_nonce"]) <= 88
    (submod,) = claims["submods"].values()
    assert submod["ear.status"] in {"affirming", "none", "warning", "contraindicated"}
    assert len(submod["ear.trustworthiness-vector"]) == 8
    assert submod["strongroom.label"] == "platform: simulated (no hardware protection)"


def test_nothing_but_an_affirming_result_of_this_guest_is_signed() -> None:
    good = next(c.values[0] for c in cases("decide") if c.id == "decide-ok")
    owner, session = World().brokers["hospital"].owner, session_of(good["session"])
    result = session.appraise(owner, NOW)
    named: dict[str, Any] = {"nonce": "x", "jti": "y", "issuer": "z", "until": NOW + 1}
    with pytest.raises(NotAffirming):
        ear.claims(result, key=TeeKey.from_json(EcKey().public()), **named)
    bad = session.appraise(owner, session.until)
    with pytest.raises(NotAffirming):
        ear.claims(bad, key=session.runtime.key, **named)


@given(st.text() | st.binary().map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(BadEar):
        ear.verify(text, broker_key("hospital").public, NOW)
    with pytest.raises(BadEar):
        ear.verify(f"{text}.{text}.{text}", broker_key("hospital").public, NOW)


# --- contracts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def proposal(tmp_path: Path) -> Proposal:
    place = Place(tmp_path)
    found = place.proposal()
    place.close()
    return found


RULE = OutputRule(ANY_PARTY, 1 << 10, 1, 4)


CHANGES: dict[str, dict[str, Any]] = {
    "another digest": {"program": ProgramRef("guest", "sha256:" + "0" * 64, "guest", {})},
    "a program of ours for the use": {"program": ProgramRef("evaluate", "sha256:" + "0" * 64, "guest", {})},
    "another use": {"program": ProgramRef("guest", "sha256:" + "0" * 64, "evaluate", {})},
    "a use beside": {"policy": Policy(frozenset({"guest", "evaluate"}))},
    "a rule on outputs": {"policy": Policy(frozenset({"guest"}), {"report": RULE})},
    "payments": {"payments": World().proposal().payments},
    "outputs": {"outputs": World().proposal().outputs},
    "walls": {"enclave": {"walls": ("seccomp",)}},
    "no sandbox": {"enclave": {"sandbox": "process"}},
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_nothing_that_a_guest_is_not_held_to_stands_in_its_contract(proposal: Proposal, name: str) -> None:
    changes = CHANGES[name]
    if "enclave" in changes:
        changes = {"enclave": replace(proposal.enclave, **changes["enclave"])}
    with pytest.raises(BadProposal):
        replace(proposal, **changes)


def test_a_contract_for_guests_is_what_it_says(proposal: Proposal) -> None:
    assert Proposal.parse(proposal.encode()) == proposal
    assert proposal.for_guests
    assert not World().proposal().for_guests
    assert proposal.program.digest == wire.digest(wire.encode([MEASUREMENT.to_json()]))
    said = {clause.about: clause.text for clause in clauses(proposal)}
    assert "no rule of ours holds" in said["leaves"]
    assert "nothing else leaves" not in said
    assert said["policy: network"] == "none; in a guest, what its image uses"
    assert "under no sandbox of ours" in said["the program runs"]


def test_text_that_is_none_is_no_evidence() -> None:
    said = json.dumps({"tee-pubkey": EcKey().public(), "tee-evidence": "\ud800"}).encode()
    assert outcome(lambda: Attestation.parse(said, Session(Request(1, "tdx"), bytes(32), NOW)))[0] == "wire.bad_field"


def test_a_key_that_nobody_read_passes_no_appraisal() -> None:
    good = next(c.values[0] for c in cases("decide") if c.id == "decide-ok")
    session = session_of(good["session"])
    runtime = replace(session.runtime, key=TeeKey("none", session.runtime.key.members))
    platform = SimulatedPlatform(Clock(NOW))
    odd = replace(session, runtime=runtime, evidence=platform.produce(runtime.report_data))
    result = odd.appraise(World().brokers["hospital"].owner, NOW)
    assert result.problem is not None
    assert (result.problem.number, result.problem.code) == ("A9", "attest.bad_keyset")


def test_runtime_data_whose_nonce_is_not_base64_has_none() -> None:
    runtime = RuntimeData("§", TeeKey.from_json(EcKey().public()))
    assert runtime.raw_nonce == b""
    assert len(runtime.report_data) == 64
    assert keys_of("lab").name == "lab"
