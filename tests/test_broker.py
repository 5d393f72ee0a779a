"""``decide()``: seventeen checks between a request and a key, each failed alone; and what enclaves do with the answer."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.app.stores.book import SqliteBook
from strongroom.asset import About, AssetKey, seal, sign_manifest
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Endorsements
from strongroom.attest.keyset import report_data
from strongroom.broker import (
    NONCE_SECONDS,
    REFUSAL_TYPE,
    STEPS,
    Charged,
    Held,
    Kept,
    Owner,
    Refusal,
    Release,
    Standing,
    decide,
)
from strongroom.budget.charge import Charge
from strongroom.budget.document import Budget
from strongroom.contract import AssetRef, Contract, EnclaveTerms, Grant, Limits, RunRequest, Withdrawal
from strongroom.errors import (
    BadEnvelope,
    BadField,
    BadKey,
    BadRelease,
    BadSignature,
    StrongroomError,
    Unreachable,
)
from strongroom.ledger import Entry
from strongroom.party import DecryptionKey, SigningKey, VerifyKey
from strongroom.policy import OutputRule, Policy
from strongroom.release import (
    PURPOSE,
    RELEASE_TYPE,
    ReleaseRequest,
    ReleaseStatement,
    Slot,
    binding,
    open_release,
    run_subject,
)
from strongroom.transcript import Status
from strongroom.trust import Root, Trust
from strongroom.wire import Envelope
from world import (
    DAY,
    EDITED,
    HOUR,
    MEASUREMENT,
    NOW,
    RULE,
    RUN,
    TERMS,
    Asker,
    Fault,
    SimulatedPlatform,
    World,
    broker_key,
    card,
    keys_of,
    seed,
    sign_all,
)

HOME = Path(__file__).parents[1]
OTHER_RUN = seed("another run", 16).hex()
TWO_RUNS = Limits(2, 300, 1 << 30)


@pytest.fixture
def world() -> World:
    return World()


def released(decision: Release | Refusal) -> Release:
    assert isinstance(decision, Release), decision
    assert decision.transcript.ok
    return decision


def refused(decision: Release | Refusal, number: str, code: str) -> Refusal:
    """That exactly this check failed, and nothing after it was looked at."""
    assert isinstance(decision, Refusal), decision
    assert (decision.number, decision.code) == (number, code)
    checks = {c.number: c for c in decision.transcript.checks}
    order = [n for n, _ in STEPS]
    for other in order[: order.index(number)]:
        assert checks[other].status is Status.PASSED
    assert checks[number].status is Status.FAILED
    assert checks[number].code == code
    for other in order[order.index(number) + 1 :]:
        assert checks[other].status is Status.NOT_ESTABLISHED
    return decision


def uncounted(world: World, contract: Any, name: str = "hospital") -> None:
    assert world.brokers[name].book.standing(contract.digest).runs == {}


# --- the whole --------------------------------------------------------------------------------------------------------


def test_a_key_is_released_to_the_enclave_that_was_agreed(world: World) -> None:
    enclave = Asker(world, world.agree())
    request = enclave.request()
    release = released(world.brokers["hospital"].decide(request))
    assert enclave.open(release, request) == world.assets["data"][3]
    statement = ReleaseStatement.verify(release.envelope, broker_key("hospital").public)
    assert (statement.run_id, statement.at, statement.nonce) == (RUN, NOW, request.nonce.hex())
    assert statement.policy == world.brokers["hospital"].owner.policy.digest
    assert world.brokers["hospital"].book.standing(enclave.contract.digest).runs == {RUN: enclave.keyset.digest}


def test_the_checks_are_those_of_the_specification() -> None:
    page = (HOME / "spec" / "release.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (D\d+) \| ([^|]+?) \|", page, re.MULTILINE) == list(STEPS)


def test_the_key_itself_is_nowhere_in_what_a_broker_says(world: World) -> None:
    key = world.assets["data"][3].raw
    enclave = Asker(world, world.agree())
    answer = released(enclave.ask()).answer()
    for spelled in (key, wire.b64(key).encode(), key.hex().encode()):
        assert spelled not in answer
    assert repr(world.assets["data"][3]) == "AssetKey(…)"


def test_no_secret_is_in_what_is_signed_and_published(world: World) -> None:
    release = released(Asker(world, world.agree()).ask())
    assert "encrypted_key" in json.loads(release.envelope.payload)
    assert release.encrypted_key not in release.envelope.payload
    assert wire.b64(release.encrypted_key).encode() not in release.envelope.encode()


# --- D1: nonces -------------------------------------------------------------------------------------------------------


def test_d1_a_nonce_that_this_broker_never_gave_is_refused(world: World) -> None:
    contract = world.agree()
    refused(Asker(world, contract).ask(nonce=seed("made up")), "D1", "broker.nonce")
    uncounted(world, contract)


def test_d1_a_nonce_of_another_broker_is_refused(world: World) -> None:
    contract = world.agree()
    refused(Asker(world, contract).ask(nonce=world.brokers["lab"].nonce()), "D1", "broker.nonce")


def test_d1_a_request_replayed_is_refused(world: World) -> None:
    request = Asker(world, world.agree()).request()
    released(world.brokers["hospital"].decide(request))
    refused(world.brokers["hospital"].decide(request), "D1", "broker.nonce")


def test_d1_a_nonce_is_used_up_by_a_refusal_too(world: World) -> None:
    contract = sign_all(world.proposal())  # nobody's broker knows of it
    request = Asker(world, contract).request()
    refused(world.brokers["hospital"].decide(request), "D12", "broker.not_approved")
    world.brokers["hospital"].book.approve(contract.digest, NOW)
    refused(world.brokers["hospital"].decide(request), "D1", "broker.nonce")


def test_d1_a_nonce_expires(world: World) -> None:
    enclave = Asker(world, world.agree())
    early, late = enclave.request(), enclave.request()
    world.clock.now += NONCE_SECONDS - 1
    released(world.brokers["hospital"].decide(early))
    world.clock.now += 1
    refused(world.brokers["hospital"].decide(late), "D1", "broker.nonce")


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_d1_a_nonce_of_another_length_is_refused(world: World, nonce: bytes) -> None:
    enclave = Asker(world, world.agree())
    request = replace(enclave.request(), nonce=nonce)
    refused(world.brokers["hospital"].decide(request), "D1", "broker.nonce")
    with pytest.raises(BadField):
        ReleaseRequest.parse(request.encode())


def test_d1_a_request_without_a_nonce_is_no_request(world: World) -> None:
    value = Asker(world, world.agree()).request().to_json()
    for nothing in (None, "", "null"):
        with pytest.raises(BadField):
            ReleaseRequest.parse(wire.encode({**value, "nonce": nothing}))


# --- D2: the contract's signatures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["hospital", "lab"])
def test_d2_a_contract_without_a_signature_is_refused(world: World, missing: str) -> None:
    contract = world.agree()
    kept = tuple(s for s in contract.envelope.signatures if s.keyid != card(missing).signing_key.keyid)
    decision = Asker(world, contract).ask(contract=replace(contract.envelope, signatures=kept))
    refused(decision, "D2", "contract.signature_missing")
    uncounted(world, contract)


def test_d2_an_approval_of_other_bytes_is_refused(world: World) -> None:
    contract = world.agree()
    more = world.proposal(limits=Limits(1000, 300, 1 << 30))
    forged = replace(contract.envelope, payload=more.encode())
    refused(Asker(world, contract).ask(contract=forged), "D2", "contract.signature_invalid")


def test_d2_bytes_that_are_no_contract_are_refused(world: World) -> None:
    contract = world.agree()
    other = keys_of("hospital").signing.sign("application/json", b"{}")
    refused(Asker(world, contract).ask(contract=other), "D2", "wire.bad_envelope")
    empty = replace(contract.envelope, payload=b"")
    refused(Asker(world, contract).ask(contract=empty), "D2", "wire.not_json")


# --- D3: pins ---------------------------------------------------------------------------------------------------------


def test_d3_a_party_that_the_owner_never_pinned_is_refused(world: World) -> None:
    contract = world.agree(parties=(card("hospital"), card("lab"), card("stranger")))
    refused(Asker(world, contract).ask(), "D3", "party.not_pinned")
    uncounted(world, contract)


def test_d3_a_strangers_keys_under_a_pinned_name_are_refused(world: World) -> None:
    # the exchange offers a "lab" of its own making, and everybody's signature is there
    imposter = keys_of("stranger")
    fake = replace(imposter, name="lab").card(broker_key("stranger").public)
    proposal = world.proposal(parties=(card("hospital"), fake))
    signatures = [proposal.sign(keys_of("hospital")), proposal.sign(replace(imposter, name="lab"))]
    contract = type(world.agree()).verify(proposal.envelope(signatures))
    world.brokers["hospital"].book.approve(contract.digest, NOW)
    refused(Asker(world, contract).ask(), "D3", "party.pin_mismatch")


def test_d3_a_pin_that_the_owner_removed_is_gone_at_once(world: World) -> None:
    enclave = Asker(world, world.agree())
    broker = world.brokers["hospital"]
    broker.owner = replace(broker.owner, trust=broker.owner.trust.unpin("lab"))
    refused(enclave.ask(), "D3", "party.not_pinned")


def test_d3_an_owner_that_pinned_nobody_releases_nothing(world: World) -> None:
    broker = world.brokers["hospital"]
    broker.owner = replace(broker.owner, trust=replace(broker.owner.trust, parties=()))
    refused(Asker(world, world.agree()).ask(), "D3", "party.not_pinned")


# --- D4: whose broker -------------------------------------------------------------------------------------------------


def test_d4_a_broker_with_another_key_than_the_contract_names_refuses(world: World) -> None:
    broker = world.brokers["hospital"]
    broker.owner = replace(broker.owner, broker=broker_key("stranger"))
    refused(Asker(world, world.agree()).ask(), "D4", "broker.not_mine")


def test_d4_a_contract_that_does_not_name_the_owner_is_refused(world: World) -> None:
    broker = world.brokers["hospital"]
    broker.owner = replace(broker.owner, name="clinic", trust=World.trust("clinic"))
    refused(Asker(world, world.agree()).ask(), "D4", "broker.not_mine")


# --- D5: time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "code"), [(NOW + DAY, "contract.expired"), (NOW - HOUR - 1, "contract.not_yet_valid")]
)  # fmt: skip
def test_d5_a_contract_that_is_not_in_force_is_refused(world: World, at: int, code: str) -> None:
    contract = world.agree()
    world.clock.now = at
    refused(Asker(world, contract).ask(), "D5", code)
    uncounted(world, contract)


# --- D6: assets -------------------------------------------------------------------------------------------------------


def test_d6_an_asset_that_is_not_in_the_contract_is_refused(world: World) -> None:
    # the hospital holds another asset, and the enclave asks for that one under this contract
    terms = Policy(frozenset({"evaluate", "train"}), TERMS.outputs)
    other = World(terms={"data": terms}).assets["data"]
    world.brokers["hospital"].book.hold(other[1], other[3])
    refused(Asker(world, world.agree()).ask(manifest=other[0].digest), "D6", "broker.unknown_asset")


def test_d6_another_owners_asset_is_refused(world: World) -> None:
    model = world.assets["model"]
    world.brokers["hospital"].book.hold(model[1], model[3])  # even if its key were here
    refused(Asker(world, world.agree()).ask(manifest=model[0].digest), "D6", "broker.unknown_asset")


def test_d6_an_asset_whose_key_is_not_here_is_refused(world: World) -> None:
    world.brokers["hospital"].book._state.assets.clear()
    refused(Asker(world, world.agree()).ask(), "D6", "broker.unknown_asset")


def test_d6_a_manifest_that_the_owner_did_not_sign_is_refused(world: World) -> None:
    manifest, _, _, key = world.assets["data"]
    forged = sign_manifest(manifest, keys_of("lab").signing)
    world.brokers["hospital"].book._state.assets[manifest.digest] = Held(forged, key)
    refused(Asker(world, world.agree()).ask(), "D6", "wire.bad_signature")


def test_d6_a_book_that_answers_with_another_manifest_is_not_believed(world: World) -> None:
    terms = Policy(frozenset({"evaluate", "train"}), TERMS.outputs)
    other = World(terms={"data": terms}).assets["data"]
    world.brokers["hospital"].book._state.assets[world.assets["data"][0].digest] = Held(other[1], other[3])
    refused(Asker(world, world.agree()).ask(), "D6", "broker.unknown_asset")


def test_d6_a_manifest_in_anothers_name_is_refused(world: World) -> None:
    manifest, _, _, key = world.assets["data"]
    claimed = replace(manifest, owner="lab")
    assets = (AssetRef("data", "hospital", claimed.digest), world.proposal().assets[1])
    world.brokers["hospital"].book.hold(sign_manifest(claimed, keys_of("hospital").signing), key)
    contract = world.agree(assets=assets)
    refused(Asker(world, contract).ask(manifest=claimed.digest), "D6", "broker.unknown_asset")


# --- D7: terms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms",
    [
        Policy(),
        Policy(frozenset({"train"}), TERMS.outputs),
        Policy(frozenset({"evaluate"}), {"report": OutputRule(frozenset({"hospital"}), 1 << 20, 10, 4)}),
        Policy(frozenset({"evaluate"}), {"report": replace(RULE, min_group=11)}),
        Policy(frozenset({"evaluate"}), {"report": replace(RULE, decimals=3)}),
        Policy(frozenset({"evaluate"}), {"report": replace(RULE, max_bytes=1)}),
        Policy(frozenset({"evaluate"}), {"picture": RULE}),
    ],
    ids=["nothing", "use", "recipients", "groups", "decimals", "bytes", "kind"],
)
def test_d7_a_policy_wider_than_the_assets_terms_is_refused(terms: Policy) -> None:
    world = World(terms={"data": terms})
    contract = world.agree()
    refusal = refused(Asker(world, contract).ask(), "D7", "policy.not_permitted")
    assert refusal.transcript.checks[6].detail
    uncounted(world, contract)
    released(Asker(world, contract).ask("model"))  # the lab's own terms are as before


# --- D9: evidence -----------------------------------------------------------------------------------------------------

Twist = Callable[[World, Asker, bytes], Any]


def _platform(**changes: Any) -> Twist:
    return lambda world, enclave, nonce: enclave.report(nonce, replace(world.platform, **changes))


def _without_endorsements(_: World, enclave: Asker, nonce: bytes) -> Any:
    return replace(enclave.report(nonce), endorsements=Endorsements())


def _another_nonce(_: World, enclave: Asker, nonce: bytes) -> Any:
    return enclave.report(seed("another nonce"))


def _null_nonce(world: World, enclave: Asker, nonce: bytes) -> Any:
    bound = report_data(enclave.keyset.digest, None)
    return replace(enclave.report(nonce), report_data=bound[:32], evidence=world.platform.produce(bound))


def _another_keyset(world: World, enclave: Asker, nonce: bytes) -> Any:
    return replace(Asker(world, enclave.contract, "eavesdropper").report(nonce), evidence=enclave.report(nonce).evidence)


def _expired_keyset(world: World, enclave: Asker, nonce: bytes) -> Any:
    enclave.keyset = replace(enclave.keyset, not_after=NOW - 1)
    return enclave.report(nonce)


def _old(world: World, enclave: Asker, nonce: bytes) -> Any:
    return enclave.report(nonce, SimulatedPlatform(type(world.clock)(NOW - HOUR)))


ROGUE = SigningKey(seed("rogue"))
EVIDENCE: dict[str, tuple[Twist, str]] = {
    "an edited program": (_platform(measurement=EDITED), "attest.measurement_not_accepted"),
    "a platform of one's own": (_platform(root=ROGUE, key=SigningKey(seed("rogue platform"))), "attest.unknown_root"),
    "a debugger": (_platform(debug=True), "attest.debug"),
    "no endorsement": (_without_endorsements, "attest.endorsement_missing"),
    "evidence for another nonce": (_another_nonce, "attest.not_bound"),
    "evidence for no nonce": (_null_nonce, "attest.not_bound"),
    "evidence of another enclave": (_another_keyset, "attest.not_bound"),
    "old evidence": (_old, "attest.not_fresh"),
    "an expired keyset": (_expired_keyset, "attest.keyset_expired"),
}


@pytest.mark.parametrize("name", EVIDENCE)
def test_d9_evidence_that_is_not_affirmed_is_refused(world: World, name: str) -> None:
    twist, code = EVIDENCE[name]
    contract = world.agree()
    enclave = Asker(world, contract)
    nonce = world.brokers["hospital"].nonce()
    refused(enclave.ask(nonce=nonce, report=twist(world, enclave, nonce)), "D9", code)
    uncounted(world, contract)


def test_d9_an_owner_that_accepts_no_platform_releases_nothing(world: World) -> None:
    broker = world.brokers["hospital"]
    broker.owner = replace(broker.owner, policy=AppraisalPolicy())
    refused(Asker(world, world.agree()).ask(), "D9", "attest.platform_not_accepted")


def test_d9_what_the_contract_accepts_does_not_bind_the_owner(world: World) -> None:
    # everybody signed an edited program; the owner's own policy still does not know it
    contract = world.agree(enclave=EnclaveTerms(("simulated",), (EDITED,), "isolated"))
    world.platform.measurement = EDITED
    refused(Asker(world, contract).ask(), "D9", "attest.measurement_not_accepted")


# --- D11: the contract's enclaves --------------------------------------------------------------------------------------


def test_d11_an_enclave_that_the_contract_does_not_name_is_refused(world: World) -> None:
    broker = world.brokers["hospital"]
    trust = broker.owner.trust.with_enclaves([], [EDITED])
    broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
    world.platform.measurement = EDITED
    contract = world.agree()
    refused(Asker(world, contract).ask(), "D11", "broker.enclave_not_named")
    uncounted(world, contract)


# --- D12 to D14: what the owner and others said -----------------------------------------------------------------------


def test_d12_a_contract_that_the_owner_did_not_approve_here_is_refused(world: World) -> None:
    contract = sign_all(world.proposal())
    refused(Asker(world, contract).ask(), "D12", "broker.not_approved")
    uncounted(world, contract)


def test_d12_an_approval_of_another_contract_is_not_one_of_this(world: World) -> None:
    world.agree(nonce=seed("another", 16).hex())
    refused(Asker(world, sign_all(world.proposal())).ask(), "D12", "broker.not_approved")


def test_d13_a_proposal_that_the_owner_countered_is_refused(world: World) -> None:
    contract = world.agree()
    world.brokers["hospital"].book.end(contract.digest, wire.digest(b"the counter"))
    refusal = refused(Asker(world, contract).ask(), "D13", "contract.superseded")
    assert wire.digest(b"the counter") in refusal.transcript.checks[12].detail


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (
            lambda world, c: RunRequest(c.digest, "stranger", RUN, NOW).sign(keys_of("stranger").signing),
            "contract.not_a_party",
        ),
        (lambda world, c: RunRequest(c.digest, "lab", RUN, NOW).sign(keys_of("stranger").signing), "wire.bad_signature"),
        (lambda world, c: world.asked(c, "ab" * 16), "wire.bad_field"),
        (lambda world, c: RunRequest(wire.digest(b"other"), "lab", RUN, NOW).sign(keys_of("lab").signing), "wire.bad_field"),
        (lambda world, c: RunRequest(c.digest, "lab", RUN, NOW - 601).sign(keys_of("lab").signing), "wire.bad_field"),
    ],
    ids=["stranger", "forged", "another run", "another contract", "old"],
)
def test_d8_a_run_that_no_party_asked_for_is_refused(world: World, asked: Any, code: str) -> None:
    contract = world.agree()
    refused(Asker(world, contract).ask(run=asked(world, contract)), "D8", code)
    assert world.brokers["hospital"].book.standing(contract.digest).runs == {}  # a stranger burns nobody's run


def test_d10_evidence_passed_on_from_another_contracts_run_is_refused(world: World) -> None:
    contract = world.agree()
    relay = Asker(world, contract)
    relay.keyset = replace(relay.keyset, subject=run_subject(wire.digest(b"a stranger's contract"), RUN))
    refused(relay.ask(), "D10", "broker.keyset_of_another_run")
    assert world.brokers["hospital"].book.standing(contract.digest).runs == {}


@pytest.mark.parametrize("who", ["hospital", "lab"])
def test_d14_a_withdrawal_by_any_party_stops_every_later_release(world: World, who: str) -> None:
    contract = world.agree(limits=TWO_RUNS)
    enclave = Asker(world, contract)
    released(enclave.ask())
    withdrawal = Withdrawal(contract.digest, who, NOW, "")
    world.brokers["hospital"].book.withdraw(withdrawal, withdrawal.sign(keys_of(who).signing))
    refused(Asker(world, contract, "another", run_id=OTHER_RUN).ask(), "D14", "contract.withdrawn")
    # not even the release that was given already is given again
    refused(enclave.ask(), "D14", "contract.withdrawn")


# --- D15 and D16: runs ------------------------------------------------------------------------------------------------


def test_d15_another_enclave_cannot_have_a_run_that_is_taken(world: World) -> None:
    contract = world.agree(limits=TWO_RUNS)
    released(Asker(world, contract).ask())
    refused(Asker(world, contract, "another").ask(), "D15", "broker.run_taken")
    assert len(world.brokers["hospital"].book.standing(contract.digest).runs) == 1


def test_d16_no_more_runs_than_were_agreed(world: World) -> None:
    contract = world.agree(limits=TWO_RUNS)
    for n in range(2):
        released(Asker(world, contract, f"enclave {n}", run_id=seed(f"run {n}", 16).hex()).ask())
    refused(Asker(world, contract, "one more", run_id=OTHER_RUN).ask(), "D16", "broker.no_run_left")


def test_d16_an_enclave_that_died_with_its_release_has_used_the_run(world: World) -> None:
    contract = world.agree()
    released(Asker(world, contract).ask())
    refused(Asker(world, contract, "the next", run_id=OTHER_RUN).ask(), "D16", "broker.no_run_left")


def test_d16_an_owners_grant_opens_another_run_and_counts_once(world: World) -> None:
    contract = world.agree()
    released(Asker(world, contract).ask())
    grant = Grant(contract.digest, "hospital", 1, seed("grant", 16).hex())
    for _ in range(2):
        world.brokers["hospital"].book.grant(grant, grant.sign(keys_of("hospital").signing))
    released(Asker(world, contract, "the next", run_id=OTHER_RUN).ask())
    refused(Asker(world, contract, "one more", run_id="ff" * 16).ask(), "D16", "broker.no_run_left")


def test_one_run_of_an_owner_is_counted_once_whatever_it_opens(world: World) -> None:
    # the hospital owns both inputs
    sink, key = io.BytesIO(), AssetKey(seed("second key"))
    about = About(name="notes", kind="dataset", media_type="text/csv", owner="hospital", created_at=NOW, terms=TERMS)
    manifest = seal(io.BytesIO(b"more"), sink, key=key, salt=seed("second salt"), about=about)
    world.brokers["hospital"].book.hold(sign_manifest(manifest, keys_of("hospital").signing), key)
    first = AssetRef("data", "hospital", world.assets["data"][0].digest)
    contract = world.agree(assets=(first, AssetRef("notes", "hospital", manifest.digest)))
    enclave = Asker(world, contract)
    released(enclave.ask())
    released(enclave.ask(manifest=manifest.digest))
    assert world.brokers["hospital"].book.standing(contract.digest).runs == {RUN: enclave.keyset.digest}


# --- asking again -----------------------------------------------------------------------------------------------------


def test_the_same_keyset_gets_the_same_release_again_uncounted(world: World) -> None:
    contract = world.agree()
    enclave = Asker(world, contract)
    first_request = enclave.request()
    first = released(world.brokers["hospital"].decide(first_request))
    world.clock.now += 10
    again = released(enclave.ask())  # with a fresh nonce
    assert (again.envelope, again.encrypted_key) == (first.envelope, first.encrypted_key)
    assert len(world.brokers["hospital"].book.standing(contract.digest).runs) == 1
    assert enclave.open(again, first_request) == world.assets["data"][3]


def test_asking_again_is_decided_again(world: World) -> None:
    enclave = Asker(world, world.agree())
    released(enclave.ask())
    world.clock.now = NOW + DAY
    refused(enclave.ask(), "D5", "contract.expired")


def test_a_crash_before_the_commit_counts_nothing(world: World) -> None:
    contract = world.agree()
    enclave = Asker(world, contract)
    world.faults.plan("hospital.book", Fault.NOT_DONE)
    with pytest.raises(Unreachable):
        enclave.ask()
    uncounted(world, contract)
    released(enclave.ask())


def test_a_release_that_was_committed_and_not_answered_is_found_again(world: World) -> None:
    contract = world.agree()
    enclave = Asker(world, contract)
    request = enclave.request()
    world.faults.plan("hospital.book", Fault.LOST)
    with pytest.raises(Unreachable):
        world.brokers["hospital"].decide(request)
    assert len(world.brokers["hospital"].book.standing(contract.digest).runs) == 1
    again = released(enclave.ask())
    assert enclave.open(again, request) == world.assets["data"][3]
    refused(Asker(world, contract, "another", run_id=OTHER_RUN).ask(), "D16", "broker.no_run_left")


def test_a_book_that_cannot_write_releases_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = world.agree()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(world.brokers["hospital"].book, "keep", full)
    with pytest.raises(OSError, match="disk full"):
        Asker(world, contract).ask()
    uncounted(world, contract)


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[World]:
    world = World(book=lambda name: SqliteBook(tmp_path / f"{name}.db"))
    yield world
    for broker in world.brokers.values():
        broker.book.close()


def test_the_last_run_asked_for_by_many_at_once_goes_to_exactly_one(on_disk: World) -> None:
    world, count = on_disk, 8
    contract = world.agree()
    askers = [Asker(world, contract, f"enclave {n}", run_id=seed(f"run {n}", 16).hex()) for n in range(count)]
    requests = [asker.request() for asker in askers]
    together, decisions = threading.Barrier(count), list[Any]()

    def ask(request: ReleaseRequest) -> None:
        together.wait()
        decisions.append(decide(request, owner=world.brokers["hospital"].owner, book=world.brokers["hospital"].book, at=NOW))

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decisions) == count
    assert sum(isinstance(d, Release) for d in decisions) == 1
    assert {d.number for d in decisions if isinstance(d, Refusal)} == {"D16"}
    assert len(world.brokers["hospital"].book.standing(contract.digest).runs) == 1


def test_one_run_asked_for_by_two_enclaves_at_once_goes_to_exactly_one(on_disk: World) -> None:
    world = on_disk
    contract = world.agree(limits=Limits(5, 300, 1 << 30))
    requests = [Asker(world, contract, f"enclave {n}").request() for n in range(4)]
    together, decisions = threading.Barrier(4), list[Any]()

    def ask(request: ReleaseRequest) -> None:
        together.wait()
        decisions.append(world.brokers["hospital"].decide(request))

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(d, Release) for d in decisions) == 1
    assert {d.number for d in decisions if isinstance(d, Refusal)} == {"D15"}


ASK = """
import sys
from pathlib import Path
from strongroom.app.stores.book import SqliteBook
from world import Asker, World, seed
folder, name = Path(sys.argv[1]), sys.argv[2]
world = World(book=lambda party: SqliteBook(folder / f"{party}.db"))
asker = Asker(world, world.agree(), name, run_id=seed(name, 16).hex())
request = asker.request()
print("ready", flush=True)
sys.stdin.readline()
print(type(world.brokers["hospital"].decide(request)).__name__, flush=True)
"""


def test_the_last_run_asked_for_by_two_processes_at_once_goes_to_exactly_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    asking = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for name in ("one", "other")
    ]
    for process in asking:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in asking)
    assert said == ["Refusal", "Release"]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_refusal_says_the_number_and_the_code_and_no_details(world: World) -> None:
    contract = world.agree()
    world.platform.measurement = EDITED
    request = Asker(world, contract).request()
    refusal = refused(world.brokers["hospital"].decide(request), "D9", "attest.measurement_not_accepted")
    detail = refusal.transcript.checks[7].detail
    assert detail
    answer = json.loads(refusal.answer())
    assert set(answer) == {"refusal"}
    payload = broker_key("hospital").public.verify(Envelope.from_json(answer["refusal"]), REFUSAL_TYPE)
    assert json.loads(payload) == {
        "at": NOW,
        "broker": broker_key("hospital").public.keyid,
        "code": "attest.measurement_not_accepted",
        "contract": contract.digest,
        "manifest": request.manifest,
        "nonce": request.nonce.hex(),
        "number": "D9",
        "run_id": RUN,
    }
    assert detail.encode() not in refusal.answer()
    assert EDITED.digest.encode() not in payload


def test_a_refusal_can_be_logged_by_its_digest(world: World) -> None:
    refusal = refused(Asker(world, sign_all(world.proposal())).ask(), "D12", "broker.not_approved")
    assert Entry("refusal", wire.digest(b"contract"), refusal.envelope.digest).digest == refusal.envelope.digest


def test_a_refusal_is_not_taken_for_a_release(world: World) -> None:
    enclave = Asker(world, sign_all(world.proposal()))
    refusal = refused(enclave.ask(), "D12", "broker.not_approved")
    with pytest.raises(StrongroomError):
        _open(enclave, refusal.answer())
    dressed = wire.encode({"encrypted_key": "", "release": refusal.envelope.to_json()})
    with pytest.raises(BadEnvelope):
        _open(enclave, dressed)


# --- the one maker ----------------------------------------------------------------------------------------------------


def test_nothing_but_decide_makes_a_release(world: World) -> None:
    release = released(Asker(world, world.agree()).ask())
    with pytest.raises(TypeError):
        Release(release.envelope, release.encrypted_key, release.transcript, object())
    with pytest.raises(TypeError):
        Release(release.envelope, release.encrypted_key, release.transcript)  # type: ignore[call-arg]
    for changes in ({"encrypted_key": b""}, {"encrypted_key": b"", "maker": object()}):
        with pytest.raises((TypeError, ValueError)):
            dataclasses.replace(release, **changes)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_its_bytes(world: World) -> None:
    request = Asker(world, world.agree()).request()
    assert ReleaseRequest.parse(request.encode()) == request
    assert ReleaseRequest.parse(request.encode()).encode() == request.encode()


@pytest.mark.parametrize("member", ["contract", "manifest", "nonce", "purpose", "report", "run_id"])
def test_a_request_without_a_member_is_refused(world: World, member: str) -> None:
    value = Asker(world, world.agree()).request().to_json()
    del value[member]
    with pytest.raises(BadField):
        ReleaseRequest.parse(wire.encode(value))


@pytest.mark.parametrize("changes", [{"more": 1}, {"purpose": "aci.report_data.v1"}, {"run_id": "00"}, {"manifest": "x"}])
def test_a_request_of_another_form_is_refused(world: World, changes: dict[str, Any]) -> None:
    value = Asker(world, world.agree()).request().to_json()
    with pytest.raises(BadField):
        ReleaseRequest.parse(wire.encode({**value, **changes}))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_request_altered_in_any_byte_gets_nothing_that_others_can_open(data: st.DataObject) -> None:
    world = World()
    contract = world.agree()
    enclave = Asker(world, contract)
    whole = bytearray(enclave.request().encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(StrongroomError):
        request = ReleaseRequest.parse(bytes(whole))
        assert request.encode() == bytes(whole)
        decision = world.brokers["hospital"].decide(request)
        if isinstance(decision, Release):
            # only what nothing binds can differ: the key goes to the same keyset, for the same run
            statement = ReleaseStatement.verify(decision.envelope, broker_key("hospital").public)
            assert statement.keyset_digest == enclave.keyset.digest
            assert (statement.contract, statement.manifest) == (contract.digest, enclave.slot().manifest)
            assert statement.run_id == RUN
            enclave.release_key.decrypt(decision.encrypted_key, info=statement.info)


# --- what the enclave does with the answer ----------------------------------------------------------------------------


def _open(enclave: Asker, answer: bytes, **changes: Any) -> AssetKey:
    found: dict[str, Any] = {
        "slot": enclave.slot(),
        "broker": broker_key("hospital").public,
        "nonces": frozenset({seed("nonce").hex()}),
        "key": enclave.release_key,
    }
    return open_release(answer, **{**found, **changes})[1]


MEMBERS = ("contract", "manifest", "keyset_digest", "nonce", "run_id", "broker")
OTHERS = {
    "broker": broker_key("lab").public.keyid,
    "contract": wire.digest(b"another contract"),
    "keyset_digest": wire.digest(b"another keyset"),
    "manifest": wire.digest(b"another manifest"),
    "nonce": seed("another nonce").hex(),
    "run_id": OTHER_RUN,
}


@dataclasses.dataclass
class Answer:
    """A broker's answer, taken apart and put together again, by the broker's own hand or another's."""

    enclave: Asker
    statement: ReleaseStatement
    encrypted: bytes

    def bytes(self, signer: SigningKey | None = None, payload: bytes | None = None) -> bytes:
        envelope = (signer or broker_key("hospital")).sign(RELEASE_TYPE, payload or self.statement.encode())
        return wire.encode({"encrypted_key": wire.b64(self.encrypted), "release": envelope.to_json()})

    def open(self, answer: bytes, **changes: Any) -> AssetKey:
        return _open(self.enclave, answer, **{"nonces": frozenset({self.statement.nonce}), **changes})


@pytest.fixture
def answer(world: World) -> Answer:
    enclave = Asker(world, world.agree())
    release = released(enclave.ask())
    statement = ReleaseStatement.verify(release.envelope, broker_key("hospital").public)
    return Answer(enclave, statement, release.encrypted_key)


def test_an_answer_opens_for_whom_it_was_made(answer: Answer) -> None:
    assert answer.open(answer.bytes()) == answer.enclave.world.assets["data"][3]


@pytest.mark.parametrize("member", MEMBERS)
def test_the_key_is_bound_to_every_member(answer: Answer, member: str) -> None:
    bound = {name: getattr(answer.statement, name) for name in MEMBERS}
    key = answer.enclave.release_key
    assert AssetKey(key.decrypt(answer.encrypted, info=binding(**bound))) == answer.enclave.world.assets["data"][3]
    with pytest.raises(BadKey):
        key.decrypt(answer.encrypted, info=binding(**{**bound, member: OTHERS[member]}))
    assert json.loads(binding(**bound)) == {**bound, "purpose": PURPOSE}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_release_signed_anew_for_something_else_does_not_open(answer: Answer, member: str) -> None:
    # the broker itself signs another statement around the same ciphertext, and the enclave asks for just that
    other = replace(answer.statement, **{member: OTHERS[member]})
    moved = Answer(answer.enclave, other, answer.encrypted)
    slot = Slot(other.contract, other.run_id, other.keyset_digest, other.manifest)
    with pytest.raises((BadKey, BadRelease)):
        moved.open(moved.bytes(), slot=slot)


@pytest.mark.parametrize("member", ["contract", "manifest", "keyset_digest", "run_id"])
def test_a_release_for_something_else_is_refused(answer: Answer, member: str) -> None:
    slot = replace(answer.enclave.slot(), **{member: OTHERS[member]})
    with pytest.raises(BadRelease):
        answer.open(answer.bytes(), slot=slot)


def test_a_release_for_another_nonce_is_refused(answer: Answer) -> None:
    with pytest.raises(BadRelease):
        answer.open(answer.bytes(), nonces=frozenset({OTHERS["nonce"]}))
    with pytest.raises(BadRelease):
        answer.open(answer.bytes(), nonces=frozenset())


def test_a_release_by_another_broker_is_refused(answer: Answer) -> None:
    with pytest.raises(BadSignature):
        answer.open(answer.bytes(broker_key("lab")))
    with pytest.raises(BadSignature):
        answer.open(answer.bytes(keys_of("hospital").signing))  # the party's own key is not its broker's
    named = replace(answer.statement, broker=broker_key("lab").public.keyid)
    with pytest.raises(BadRelease, match="another broker"):
        answer.open(answer.bytes(payload=named.encode()))


def test_an_encrypted_key_that_was_swapped_is_refused(answer: Answer) -> None:
    mine = answer.enclave.release_key.public.encrypt(bytes(32), info=answer.statement.info)
    with pytest.raises(BadRelease, match="encrypted key"):
        answer.open(Answer(answer.enclave, answer.statement, mine).bytes())


def test_a_key_of_another_length_is_refused(answer: Answer) -> None:
    short = answer.enclave.release_key.public.encrypt(bytes(31), info=answer.statement.info)
    statement = replace(answer.statement, encrypted_key=wire.digest(short))
    with pytest.raises(BadKey):
        answer.open(Answer(answer.enclave, statement, short).bytes())


def test_another_enclave_cannot_open_the_release(answer: Answer) -> None:
    other = Asker(answer.enclave.world, answer.enclave.contract, "eavesdropper")
    with pytest.raises(BadKey):
        answer.open(answer.bytes(), key=other.release_key)


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"purpose": "strongroom.delivery.v1"},
        {"nonce": None},
        {"nonce": "00"},
        {"at": -1},
        {"policy": "any"},
        {"encrypted_key": ""},
        {"run_id": RUN.upper()},
    ],
)
def test_a_release_statement_of_another_form_is_refused(answer: Answer, changes: dict[str, Any]) -> None:
    payload = wire.encode({**json.loads(answer.statement.encode()), **changes})
    with pytest.raises(BadField):
        answer.open(answer.bytes(payload=payload))


@pytest.mark.parametrize("answered", [b"", b"{}", b"[]", b'{"release":null}'])
def test_an_answer_of_another_form_is_refused(answer: Answer, answered: bytes) -> None:
    with pytest.raises(StrongroomError):
        answer.open(answered)
    with pytest.raises(BadField):
        answer.open(wire.encode({**json.loads(answer.bytes()), "more": 1}))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_answer_altered_in_any_byte_is_refused(data: st.DataObject) -> None:
    world = World()
    enclave = Asker(world, world.agree())
    request = enclave.request()
    whole = bytearray(released(world.brokers["hospital"].decide(request)).answer())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StrongroomError):
        _open(enclave, bytes(whole), nonces=frozenset({request.nonce.hex()}))


def test_a_release_statement_is_its_bytes(answer: Answer) -> None:
    envelope = broker_key("hospital").sign(RELEASE_TYPE, answer.statement.encode())
    assert ReleaseStatement.verify(envelope, broker_key("hospital").public) == answer.statement


def test_an_owners_root_for_another_platform_vouches_for_nothing(world: World) -> None:
    broker = world.brokers["hospital"]
    trust = replace(broker.owner.trust, roots=(Root("tdx", world.platform.root.public),), measurements=(MEASUREMENT,))
    broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
    refused(Asker(world, world.agree()).ask(), "D9", "attest.platform_not_accepted")


# --- vectors ----------------------------------------------------------------------------------------------------------

VECTORS = sorted((HOME / "vectors" / "release").glob("*.json"))


def test_the_folder_holds_vectors_of_both_outcomes_for_every_check() -> None:
    cases = [json.loads(path.read_bytes()) for path in VECTORS]
    assert {case["expect"] == "ok" for case in cases} == {True, False}
    assert {case["number"] for case in cases if case["operation"] == "decide"} == {"", *(n for n, _ in STEPS)}


def _script() -> ModuleType:
    found = spec_from_file_location("make_release", HOME / "vectors" / "make_release.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_vectors_are_those_that_their_script_writes() -> None:
    for folder, cases in _script().all_cases().items():
        assert {p.stem: json.loads(p.read_bytes()) for p in (HOME / "vectors" / folder).glob("*.json")} == cases


class BookOfAVector:
    """A broker's memory as a vector tells it: for one decision."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._nonces = {bytes.fromhex(nonce): until for nonce, until in said["nonces"].items()}
        found = [(Envelope.from_json(a["manifest"]), AssetKey(bytes.fromhex(a["key"]))) for a in said["assets"]]
        self._held = {manifest.digest: Held(manifest, key) for manifest, key in found}
        standing = {**said["standing"], "withdrawn_by": frozenset(said["standing"]["withdrawn_by"])}
        self._standing = Standing(**standing)
        self._over: int = said.get("over", 0)
        self.kept: list[tuple[Slot, Kept, int]] = []
        self._budgets = [Envelope.from_json(envelope) for envelope in said.get("budgets", [])]
        self._charges = [
            Charged(c["contract"], c["run_id"], c["manifest"], c["party"], c["at"], Charge.from_json(c["charge"]))
            for c in said.get("charges", [])
        ]

    def over(self, _manifest: str) -> int:
        return self._over

    def budget(self, manifest: str) -> Envelope | None:
        return next((e for e in self._budgets if manifest in Budget.parse(e.payload).assets), None)

    def charged(self, manifests: Sequence[str]) -> list[Charged]:
        return [c for c in self._charges if c.manifest in manifests]

    def charge(self, charged: Charged) -> None:
        self._charges.append(charged)

    def held(self, manifest: str) -> Held | None:
        return self._held.get(manifest)

    def revision(self, _manifest: str) -> None:
        return None

    def spend(self, nonce: bytes, at: int) -> bool:
        return self._nonces.pop(nonce, at) > at

    @contextlib.contextmanager
    def transaction(self) -> Iterator[BookOfAVector]:
        yield self

    def standing(self, _contract: str) -> Standing:
        return self._standing

    def earlier(self, _slot: Slot) -> None:
        return None

    def keep(self, slot: Slot, kept: Kept, at: int) -> None:
        self.kept.append((slot, kept, at))


@pytest.mark.parametrize("path", [p for p in VECTORS if p.stem.startswith("decide-")], ids=lambda p: p.stem)
def test_decision_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    said = case["owner"]
    owner = Owner(
        said["name"],
        SigningKey.from_seed(bytes.fromhex(said["broker_seed"])),
        Trust.from_json(said["trust"]),
        AppraisalPolicy.from_json(said["policy"]),
    )
    request, book = ReleaseRequest.parse(wire.encode(case["request"])), BookOfAVector(case["book"])
    decision = decide(request, owner=owner, book=book, at=case["at"])
    if case["expect"] != "ok":
        refused(decision, case["number"], case["expect"])
        assert book.kept == []
        return
    ((slot, _, at),) = book.kept
    assert at == case["at"]
    serve = Contract.verify(request.contract).proposal.policy.serve
    key = open_release(
        released(decision).answer(),
        slot=slot,
        broker=owner.broker.public,
        nonces=frozenset({request.nonce.hex()}),
        key=DecryptionKey.from_seed(bytes.fromhex(case["release_seed"])),
        latest=None if serve is None else case["at"] + serve.lease_s,
    ).key
    assert key.raw.hex() in {asset["key"] for asset in case["book"]["assets"]}


def _happen(case: dict[str, Any]) -> None:
    if case["operation"] == "request":
        data = wire.encode(case["request"])
        assert ReleaseRequest.parse(data).encode() == data
        return
    key = open_release(
        wire.encode(case["answer"]),
        slot=Slot(**case["slot"]),
        broker=VerifyKey(wire.unb64(case["broker"])),
        nonces=frozenset(case["nonces"]),
        key=DecryptionKey.from_seed(bytes.fromhex(case["release_seed"])),
        latest=case.get("latest"),
    ).key
    assert key.raw.hex() == case["asset_key"]


@pytest.mark.parametrize("path", [p for p in VECTORS if not p.stem.startswith("decide-")], ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _happen(case)
    assert caught.value.code == case["expect"]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_brokers_sign() -> None:
    page = (HOME / "spec" / "release.md").read_text(encoding="utf-8")
    release, binding_shown, refusal = (json.loads(b.split("```")[0]) for b in page.split("```json\n")[1:])
    case = json.loads((HOME / "vectors" / "release" / "open-ok.json").read_bytes())
    signed = Envelope.from_json(case["answer"]["release"])
    statement = ReleaseStatement.verify(signed, VerifyKey(wire.unb64(case["broker"])))
    assert wire.encode(release) == signed.payload
    assert wire.encode(binding_shown) == statement.info
    made = Asker(World(), sign_all(World().proposal())).ask()
    assert set(refusal) == set(json.loads(refused(made, "D12", "broker.not_approved").envelope.payload))
    for member in {*release, *binding_shown, *refusal, *case["answer"]}:
        assert f"`{member}`" in page


def test_the_page_names_the_code_of_every_check() -> None:
    page = (HOME / "spec" / "release.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (D\d+) \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE))
    for path in VECTORS:
        case = json.loads(path.read_bytes())
        if case["operation"] == "decide" and case["number"]:
            family = case["expect"].split(".")[0] + ".…"
            assert f"`{case['expect']}`" in rows[case["number"]] or f"`{family}`" in rows[case["number"]]
