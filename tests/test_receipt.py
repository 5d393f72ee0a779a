"""Receipts: thirteen checks from the verifier's own trust file, each failed alone; nothing in them is altered unseen."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.asset import sign_manifest
from strongroom.attest.keyset import SourceProvenance
from strongroom.checkpoint import LogKey
from strongroom.contract import RUN_TYPE, Contract, EnclaveTerms
from strongroom.errors import BadField, BadReceipt, NotVerified, ProgramCrashed, StrongroomError
from strongroom.ledger import MemoryNodes, Tree
from strongroom.party import SigningKey
from strongroom.policy import Policy
from strongroom.receipt import (
    IN_TOTO,
    PREDICATE,
    STATEMENT_TYPE,
    STEPS,
    Bundle,
    Delivered,
    Failure,
    Receipt,
    Statement,
    admissible,
    examine,
    verify,
)
from strongroom.release import run_subject
from strongroom.transcript import Status
from strongroom.trust import Root, Trust
from strongroom.wire import Envelope
from world import (
    DAY,
    EDITED,
    HOUR,
    LOG,
    MEASUREMENT,
    NOW,
    PLATFORM_KEY,
    RUN,
    TERMS,
    Asker,
    Clock,
    FakeConfinement,
    Forger,
    SimulatedPlatform,
    World,
    broker_key,
    card,
    keys_of,
    seed,
    sign_all,
)

HOME = Path(__file__).parents[1]
TRUST = World.trust()
CONTRACT = sign_all(World().proposal())


def fails(bundle: Bundle, number: str, code: str, trust: Trust = TRUST, status: Status = Status.FAILED) -> str:
    """That exactly this check did not pass, nothing after it was looked at, and there is no receipt; the check's detail."""
    found = examine(bundle, trust=trust)
    checks = {c.number: c for c in found.transcript.checks}
    order = [n for n, _ in STEPS]
    for other in order[: order.index(number)]:
        assert checks[other].status is Status.PASSED, checks[other]
    assert (checks[number].status, checks[number].code) == (status, code), checks[number]
    for other in order[order.index(number) + 1 :]:
        assert checks[other].status is Status.NOT_ESTABLISHED, checks[other]
    assert found.receipt is None
    with pytest.raises(NotVerified, match=f"^{number} "):
        verify(bundle, trust=trust)
    assert verify_again(bundle, trust) == found.transcript.to_json()
    return checks[number].detail


def verify_again(bundle: Bundle, trust: Trust) -> list[Any]:
    """As somebody sees it who got the bundle as bytes."""
    return examine(Bundle.parse(bundle.encode()), trust=trust).transcript.to_json()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def forger(world: World) -> Forger:
    return Forger.at_work(world, world.agree())


# --- the whole --------------------------------------------------------------------------------------------------------


def test_the_receipt_of_a_run_verifies(world: World) -> None:
    contract = world.agree()
    receipt = verify(world.run(contract), trust=TRUST)
    assert receipt.contract == contract
    assert (receipt.statement.run_id, receipt.statement.failure) == (RUN, None)
    assert receipt.platform == "simulated"
    assert receipt.label == "platform: simulated (no hardware protection)"
    assert [c.status for c in receipt.transcript.checks] == [Status.PASSED] * 13
    assert all(result.affirming for result in receipt.evidence)


def test_what_is_put_together_honestly_verifies(forger: Forger) -> None:
    # else the tests below would show nothing
    assert verify(forger.bundle(), trust=TRUST).statement.outputs == forger.statement.outputs


def test_the_checks_are_those_of_the_specification() -> None:
    page = (HOME / "spec" / "receipt.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (V\d+) \| ([^|]+?) \|", page, re.MULTILINE) == list(STEPS)


def test_the_receipt_of_a_run_that_failed_verifies_and_says_where(world: World) -> None:
    def crash(_: Any) -> Any:
        raise ProgramCrashed("boom", step="read table")

    bundle = world.run(world.agree(), confinement=FakeConfinement(crash))
    statement = verify(bundle, trust=TRUST).statement
    assert statement.failure == Failure("read table", "program.crashed")
    assert (statement.outputs, statement.owed) == ((), ())


def test_a_receipt_is_verified_years_later(world: World) -> None:
    # times are the brokers', and the verifier's clock is not asked
    world.clock.now = NOW
    assert verify(world.run(world.agree()), trust=TRUST)


# --- V1 and V2: the agreement -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["hospital", "lab"])
def test_v1_a_contract_that_somebody_did_not_sign_fails(forger: Forger, missing: str) -> None:
    bundle = forger.bundle()
    kept = tuple(s for s in bundle.contract.signatures if s.keyid != card(missing).signing_key.keyid)
    fails(replace(bundle, contract=replace(bundle.contract, signatures=kept)), "V1", "contract.signature_missing")


def test_v1_another_contract_under_the_same_signatures_fails(world: World, forger: Forger) -> None:
    bundle = forger.bundle()
    other = replace(bundle.contract, payload=world.proposal(payments=()).encode())
    fails(replace(bundle, contract=other), "V1", "contract.signature_invalid")


def test_v2_an_empty_trust_file_verifies_nothing(forger: Forger) -> None:
    fails(forger.bundle(), "V2", "party.not_pinned", Trust())


@pytest.mark.parametrize("name", ["hospital", "lab"])
def test_v2_a_party_that_is_not_pinned_fails(forger: Forger, name: str) -> None:
    fails(forger.bundle(), "V2", "party.not_pinned", TRUST.unpin(name))


def test_v2_a_whole_world_of_strangers_under_known_names_fails(world: World, forger: Forger) -> None:
    # keys, contract, broker, enclave and log are the attacker's own, and fit each other
    other = replace(card("hospital"), broker_key=broker_key("stranger").public)
    fails(forger.bundle(), "V2", "party.pin_mismatch", replace(TRUST, parties=(other, card("lab"))))


# --- V3: the signature ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signer", [keys_of("lab").signing, broker_key("hospital"), PLATFORM_KEY, SigningKey(seed("nobody"))], ids=range(4)
)
def test_v3_a_receipt_signed_by_another_key_fails(forger: Forger, signer: SigningKey) -> None:
    forger.signer = signer
    fails(forger.bundle(), "V3", "wire.bad_signature")


def test_v3_a_receipt_under_another_payload_type_fails(forger: Forger) -> None:
    bundle = forger.bundle()
    fails(
        replace(bundle, receipt=forger.signer.sign(RUN_TYPE, bundle.receipt.payload)),
        "V3",
        "wire.bad_envelope",
    )


def test_v3_an_altered_receipt_fails(forger: Forger) -> None:
    bundle = forger.bundle()
    payload = bundle.receipt.payload.replace(b'"amount":25000', b'"amount":25001')
    assert payload != bundle.receipt.payload
    fails(replace(bundle, receipt=replace(bundle.receipt, payload=payload)), "V3", "wire.bad_signature")


def test_v3_a_receipt_that_names_another_keyset_fails(forger: Forger) -> None:
    forger.statement = replace(forger.statement, keyset_digest=wire.digest(b"another"))
    fails(forger.bundle(), "V3", "receipt.bad_receipt")


def test_v3_a_bundle_without_evidence_fails(forger: Forger) -> None:
    forger.reports = {}
    fails(forger.bundle(), "V3", "receipt.bad_receipt")


def test_v3_evidence_of_two_enclaves_fails(world: World, forger: Forger) -> None:
    forger.reports["model"] = Asker(world, forger.enclave.contract, "another").report(seed("nonce for model"))
    fails(forger.bundle(), "V3", "receipt.bad_receipt")


def test_v3_what_is_no_receipt_at_all_fails(forger: Forger) -> None:
    fails(replace(forger.bundle(), receipt=forger.signer.sign(STATEMENT_TYPE, b"{}")), "V3", "wire.bad_field")


# --- V4: contract and program -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"contract": wire.digest(b"another")}, {"program": wire.digest(b"an edited program")}, {"sandbox": "process"}],
    ids=["contract", "program", "sandbox"],
)
def test_v4_a_receipt_of_something_else_fails(forger: Forger, changes: dict[str, Any]) -> None:
    forger.statement = replace(forger.statement, **changes)
    fails(forger.bundle(), "V4", "receipt.bad_receipt")


def test_v4_a_receipt_of_another_contract_of_the_same_parties_fails(world: World, forger: Forger) -> None:
    cheaper = sign_all(world.proposal(payments=()))
    fails(replace(forger.bundle(), contract=cheaper.envelope), "V4", "receipt.bad_receipt")


@pytest.mark.parametrize(
    "subject", [None, run_subject(CONTRACT.digest, "ff" * 16), run_subject(wire.digest(b"another"), RUN)], ids=range(3)
)
def test_v4_a_keyset_that_was_made_for_another_run_fails(world: World, forger: Forger, subject: str | None) -> None:
    # the whole bundle fits, evidence included: somebody passed on what an enclave proved for another run
    relay = forger.enclave
    relay.keyset = replace(relay.keyset, subject=subject)
    forger.statement = replace(forger.statement, keyset_digest=relay.keyset.digest)
    for role, release in forger.releases.items():
        forger.releases[role] = replace(release, keyset_digest=relay.keyset.digest)
        forger.reports[role] = relay.report(bytes.fromhex(release.nonce))
    fails(forger.bundle(), "V4", "receipt.bad_receipt")


@pytest.mark.parametrize("sandbox", ["process", "bubblewrap", "namespaces"])
def test_v4_a_contract_that_says_process_says_so_in_the_receipt(world: World, sandbox: str) -> None:
    contract = world.agree(enclave=EnclaveTerms(("simulated",), (MEASUREMENT,), "process"))
    receipt = verify(Forger.at_work(world, contract, sandbox=sandbox).bundle(), trust=TRUST)
    assert receipt.statement.sandbox == sandbox


@pytest.mark.parametrize("walls", [(), ("namespaces",), ("cgroup-memory", "namespaces"), ("namespaces", "seccomp")])
def test_v4_a_run_without_a_wall_that_was_agreed_fails(world: World, walls: tuple[str, ...]) -> None:
    terms = EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated", ("cgroup-memory", "seccomp"))
    contract = world.agree(enclave=terms)
    fails(Forger.at_work(world, contract, walls=walls).bundle(), "V4", "receipt.bad_receipt")


def test_v4_more_walls_than_were_agreed_are_no_harm(world: World) -> None:
    terms = EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated", ("seccomp",))
    walls = ("cgroup-memory", "landlock", "namespaces", "seccomp")
    receipt = verify(Forger.at_work(world, world.agree(enclave=terms), walls=walls).bundle(), trust=TRUST)
    assert receipt.statement.walls == walls


def test_a_receipt_that_does_not_speak_of_walls_is_as_it_was(world: World) -> None:
    statement = Forger.at_work(world, world.agree()).statement
    assert "walls" not in statement.to_json()["predicate"]
    assert Statement.parse(statement.encode()) == statement
    named = replace(statement, walls=("namespaces",))
    assert Statement.parse(named.encode()) == named


# --- V5 and V6: the inputs --------------------------------------------------------------------------------------------


def test_v5_inputs_that_the_contract_does_not_name_fail(forger: Forger) -> None:
    data, model = forger.statement.inputs
    for inputs in ((data,), (model, data), (replace(data, manifest=wire.digest(b"other")), model), (data, model, model)):
        forger.statement = replace(forger.statement, inputs=inputs)
        fails(forger.bundle(), "V5", "receipt.bad_receipt")


def test_v5_a_manifest_that_is_missing_or_out_of_place_fails(forger: Forger) -> None:
    bundle = forger.bundle()
    data, model = bundle.manifests
    for manifests in ((), (data,), (data, model, model)):
        fails(replace(bundle, manifests=manifests), "V5", "receipt.bad_receipt")
    fails(replace(bundle, manifests=(model, data)), "V5", "wire.bad_signature")


def test_v5_a_manifest_that_its_owner_did_not_sign_fails(forger: Forger) -> None:
    manifest = forger.enclave.world.assets["data"][0]
    forger.manifests["data"] = sign_manifest(manifest, keys_of("lab").signing)
    fails(forger.bundle(), "V5", "wire.bad_signature")


def test_v5_another_manifest_of_the_same_owner_fails(forger: Forger) -> None:
    kinder = replace(forger.enclave.world.assets["data"][0], terms=Policy(TERMS.uses | {"train"}, TERMS.outputs))
    forger.manifests["data"] = sign_manifest(kinder, keys_of("hospital").signing)
    fails(forger.bundle(), "V5", "receipt.bad_receipt")


def test_v5_a_manifest_in_anothers_name_fails(world: World) -> None:
    # the hospital signs a manifest that names the lab as owner, and the contract says it is the hospital's
    claimed = replace(world.assets["data"][0], owner="lab")
    assets = world.proposal().assets
    contract = world.agree(assets=(replace(assets[0], manifest=claimed.digest), assets[1]))
    forger = Forger.at_work(world, contract)
    forger.manifests["data"] = sign_manifest(claimed, keys_of("hospital").signing)
    fails(forger.bundle(), "V5", "receipt.bad_receipt")


def test_v6_a_policy_wider_than_an_assets_terms_fails() -> None:
    # every key holder played along, and the owner's terms said no
    world = World(terms={"data": Policy(frozenset({"train"}), TERMS.outputs)})
    detail = fails(Forger.at_work(world, world.agree()).bundle(), "V6", "policy.not_permitted")
    assert "evaluate" in detail


# --- V7 and V8: the releases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"contract": wire.digest(b"another")},
        {"manifest": wire.digest(b"another")},
        {"keyset_digest": wire.digest(b"another")},
        {"run_id": "ff" * 16},
    ],
    ids=lambda c: next(iter(c)),
)
def test_v7_a_release_for_something_else_fails(forger: Forger, changes: dict[str, Any]) -> None:
    forger.releases["data"] = replace(forger.releases["data"], **changes)
    fails(forger.bundle(), "V7", "receipt.bad_receipt")


def test_v7_a_release_by_another_broker_fails(forger: Forger) -> None:
    forger.brokers["data"] = broker_key("lab")
    fails(forger.bundle(), "V7", "wire.bad_signature")


def test_v7_a_release_by_the_owner_and_not_its_broker_fails(forger: Forger) -> None:
    forger.brokers["data"] = keys_of("hospital").signing
    fails(forger.bundle(), "V7", "wire.bad_signature")


def test_v7_a_release_in_another_brokers_name_fails(forger: Forger) -> None:
    forger.releases["data"] = replace(forger.releases["data"], broker=broker_key("lab").public.keyid)
    fails(forger.bundle(), "V7", "broker.bad_release")


def test_v7_releases_that_the_receipt_does_not_name_fail(forger: Forger) -> None:
    bundle = forger.bundle()
    data, model = bundle.releases
    for releases in ((), (data,), (model, data), (data, model, model)):
        fails(replace(bundle, releases=releases), "V7", "receipt.bad_receipt")


def test_v7_an_input_without_a_release_fails(forger: Forger) -> None:
    del forger.releases["model"]
    fails(forger.bundle(), "V7", "receipt.bad_receipt")


def test_v7_a_release_without_evidence_fails(forger: Forger) -> None:
    del forger.reports["model"]
    fails(forger.bundle(), "V7", "receipt.bad_receipt")


def test_v7_one_nonce_for_two_releases_fails(forger: Forger) -> None:
    forger.releases["model"] = replace(forger.releases["model"], nonce=forger.releases["data"].nonce)
    fails(forger.bundle(), "V7", "receipt.bad_receipt")


@pytest.mark.parametrize(
    ("at", "code"), [(NOW + DAY, "contract.expired"), (NOW - HOUR - 1, "contract.not_yet_valid")]
)  # fmt: skip
@pytest.mark.parametrize("role", ["data", "model"])
def test_v8_a_release_outside_the_contracts_time_fails(forger: Forger, role: str, at: int, code: str) -> None:
    forger.releases[role] = replace(forger.releases[role], at=at)
    fails(forger.bundle(), "V8", code)


# --- V9 and V10: the evidence -----------------------------------------------------------------------------------------

NONCE = seed("nonce for data")
ROGUE = SigningKey(seed("rogue"))
EVIDENCE: dict[str, tuple[Callable[[Forger], Any], str]] = {
    "of an edited program": (
        lambda f: f.enclave.report(NONCE, SimulatedPlatform(Clock(), EDITED)),
        "attest.measurement_not_accepted",
    ),
    "of a platform of one's own": (
        lambda f: f.enclave.report(NONCE, SimulatedPlatform(Clock(), key=SigningKey(seed("x")), root=ROGUE)),
        "attest.unknown_root",
    ),
    "of a debugger": (lambda f: f.enclave.report(NONCE, SimulatedPlatform(Clock(), debug=True)), "attest.debug"),
    "of another time": (
        lambda f: f.enclave.report(NONCE, SimulatedPlatform(Clock(NOW - HOUR))),
        "attest.not_fresh",
    ),
    "for another nonce": (
        lambda f: replace(f.enclave.report(seed("other")), report_data=f.reports["data"].report_data),
        "attest.not_bound",
    ),
}


@pytest.mark.parametrize("name", EVIDENCE)
def test_v9_evidence_that_is_not_affirmed_fails(forger: Forger, name: str) -> None:
    twist, code = EVIDENCE[name]
    forger.reports["data"] = twist(forger)
    fails(forger.bundle(), "V9", code)


def test_v9_evidence_of_the_second_input_is_looked_at_too(forger: Forger) -> None:
    nonce = seed("nonce for model")
    forger.reports["model"] = forger.enclave.report(nonce, SimulatedPlatform(Clock(), EDITED))
    fails(forger.bundle(), "V9", "attest.measurement_not_accepted")


def test_v9_a_keyset_of_ones_own_has_no_evidence(world: World, forger: Forger) -> None:
    # the receipt, the releases and the reports name a keyset that no platform ever saw; the evidence is another's
    stranger = Asker(world, forger.enclave.contract, "stranger")
    forger.statement = replace(forger.statement, keyset_digest=stranger.keyset.digest)
    forger.signer = stranger.receipt_key
    for role, release in forger.releases.items():
        forger.releases[role] = replace(release, keyset_digest=stranger.keyset.digest)
        nonce = bytes.fromhex(release.nonce)
        forger.reports[role] = replace(stranger.report(nonce), evidence=forger.reports[role].evidence)
    fails(forger.bundle(), "V9", "attest.not_bound")


def test_v9_a_trust_file_without_roots_or_measurements_affirms_nothing(forger: Forger) -> None:
    bundle = forger.bundle()
    fails(bundle, "V9", "attest.platform_not_accepted", replace(TRUST, roots=()))
    fails(bundle, "V9", "attest.platform_not_accepted", replace(TRUST, measurements=()))
    fails(bundle, "V9", "attest.measurement_not_accepted", replace(TRUST, measurements=(EDITED,)))
    fails(bundle, "V9", "attest.unknown_root", replace(TRUST, roots=(Root("simulated", ROGUE.public),)))
    fails(bundle, "V9", "attest.platform_not_accepted", replace(TRUST, roots=(Root("tdx", ROGUE.public),)))


@pytest.mark.parametrize(
    "unbound",
    [
        {"report_data": bytes(32)},
        {"provenance": SourceProvenance(repo_url="https://example.com/another")},
        {"serving": "aggregator"},
        {"e2ee_versions": ("2",)},
    ],
    ids=lambda u: next(iter(u)),
)
def test_v9_a_report_that_says_what_nothing_binds_fails(forger: Forger, unbound: dict[str, Any]) -> None:
    forger.reports["model"] = replace(forger.reports["model"], **unbound)
    fails(forger.bundle(), "V9", "receipt.bad_receipt")


def test_v10_an_enclave_that_the_contract_does_not_name_fails(world: World) -> None:
    # the verifier trusts both builds; the parties agreed on one
    world.platform.measurement = EDITED
    forger = Forger.at_work(world, world.agree())
    fails(forger.bundle(), "V10", "broker.enclave_not_named", TRUST.with_enclaves([], [EDITED]))


# --- V11 and V12: outputs and payments --------------------------------------------------------------------------------


def test_v11_outputs_that_are_not_the_contracts_fail(forger: Forger) -> None:
    (delivered,) = forger.statement.outputs
    wider = replace(delivered.output, rule=replace(delivered.output.rule, min_group=1))
    for outputs in (
        (),
        (delivered, delivered),
        (replace(delivered, output=wider),),
        (replace(delivered, output=replace(delivered.output, name="other")),),
        (
            replace(
                delivered,
                output=replace(
                    delivered.output, rule=replace(delivered.output.rule, recipients=frozenset({"hospital"}))
                ),
            ),
        ),
    ):  # fmt: skip
        forger.statement = replace(forger.statement, outputs=outputs)
        fails(forger.bundle(), "V11", "receipt.bad_receipt")


def test_v11_a_run_that_failed_delivers_nothing(forger: Forger) -> None:
    forger.statement = replace(forger.statement, failure=Failure("program", "program.crashed"))
    fails(forger.bundle(), "V11", "receipt.bad_receipt")


def test_v12_what_is_owed_is_what_was_agreed(forger: Forger) -> None:
    (owed,) = forger.statement.owed
    for claimed in (
        (),
        (replace(owed, amount=owed.amount + 1),),
        (replace(owed, payer="hospital", payee="lab"),),
        (owed, owed),
    ):
        forger.statement = replace(forger.statement, owed=claimed)
        fails(forger.bundle(), "V12", "receipt.bad_receipt")


def test_v12_a_run_that_failed_costs_nothing(forger: Forger) -> None:
    forger.statement = replace(forger.statement, failure=Failure("program", "program.crashed"), outputs=())
    fails(forger.bundle(), "V12", "receipt.bad_receipt")
    forger.statement = replace(forger.statement, owed=())
    assert verify(forger.bundle(), trust=TRUST).statement.failure == Failure("program", "program.crashed")


# --- V13: the log -----------------------------------------------------------------------------------------------------


def test_v13_a_missing_proof_is_not_established_and_not_a_pass(forger: Forger) -> None:
    bundle = replace(forger.bundle(), proof=None)
    fails(bundle, "V13", "ledger.bad_proof", status=Status.NOT_ESTABLISHED)


def test_v13_a_trust_file_without_a_log_is_not_a_pass(forger: Forger) -> None:
    fails(forger.bundle(), "V13", "ledger.bad_proof", replace(TRUST, logs=()), Status.NOT_ESTABLISHED)


def test_v13_another_log_fails(forger: Forger) -> None:
    other = LogKey("log.example", SigningKey(seed("another log")))
    fails(forger.bundle(), "V13", "ledger.bad_checkpoint", replace(TRUST, logs=(other.verifier.vkey,)))


def test_v13_the_proof_of_another_receipt_fails(world: World, forger: Forger) -> None:
    first = forger.bundle()
    forger.statement = replace(forger.statement, ended_at=NOW + 2)
    second = forger.bundle()
    fails(replace(second, proof=first.proof), "V13", "ledger.bad_proof")


def test_v13_a_head_of_ones_own_fails(forger: Forger) -> None:
    bundle, tree = forger.bundle(), Tree(MemoryNodes())
    tree.append(bundle.entry)
    own = LogKey("log.example", SigningKey(seed("my own log")))
    assert bundle.proof is not None
    proof = replace(bundle.proof, checkpoint=tree.checkpoint(own))
    fails(replace(bundle, proof=proof), "V13", "ledger.bad_checkpoint")


def test_v13_one_of_several_logs_is_enough(forger: Forger) -> None:
    other = LogKey("other.example", SigningKey(seed("another log")))
    assert verify(forger.bundle(), trust=replace(TRUST, logs=(other.verifier.vkey, LOG.verifier.vkey)))


# --- what a log may take in -------------------------------------------------------------------------------------------


def test_a_log_takes_in_what_the_contracts_own_brokers_released(forger: Forger) -> None:
    bundle = replace(forger.bundle(), proof=None)
    assert admissible(bundle).run_id == RUN


def test_what_a_log_takes_in_is_not_yet_verified() -> None:
    # strangers among themselves, on a platform of their own: a log has no opinion of that, and a verifier has
    world = World()
    world.platform = SimulatedPlatform(world.clock, EDITED, SigningKey(seed("x")), ROGUE)
    bundle = Forger.at_work(world, world.agree()).bundle()
    assert admissible(bundle)
    fails(bundle, "V9", "attest.unknown_root")
    fails(bundle, "V2", "party.not_pinned", Trust())


TAKEN: dict[str, tuple[str, Callable[[Forger], None]]] = {
    "signed by another key": ("V3", lambda f: setattr(f, "signer", SigningKey(seed("nobody")))),
    "of another program": ("V4", lambda f: setattr(f, "statement", replace(f.statement, program=wire.digest(b"x")))),
    "without a manifest": ("V5", lambda f: f.manifests.clear()),
    "without a release": ("V7", lambda f: f.releases.clear()),
    "released by somebody else": ("V7", lambda f: f.brokers.update(data=SigningKey(seed("nobody")))),
    "released for another run": (
        "V7",
        lambda f: f.releases.update(data=replace(f.releases["data"], run_id="ff" * 16)),
    ),
    "released when it was over": (
        "V8",
        lambda f: f.releases.update(data=replace(f.releases["data"], at=NOW + DAY)),
    ),
    "without its outputs": ("V11", lambda f: setattr(f, "statement", replace(f.statement, outputs=()))),
    "for nothing": ("V12", lambda f: setattr(f, "statement", replace(f.statement, owed=()))),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_log_does_not_take_in_what_strangers_make_up(forger: Forger, name: str) -> None:
    number, twist = TAKEN[name]
    twist(forger)
    with pytest.raises(NotVerified, match=f"^{number} "):
        admissible(forger.bundle())


def test_a_log_does_not_take_in_a_receipt_of_no_contract(forger: Forger) -> None:
    bundle = forger.bundle()
    with pytest.raises(NotVerified, match=r"^V1 "):
        admissible(replace(bundle, contract=replace(bundle.contract, signatures=())))


# --- nothing can be altered unseen ------------------------------------------------------------------------------------

WORLD = World()
BUNDLE = WORLD.run(WORLD.agree())
FAILED = WORLD.run(
    WORLD.agree(nonce=seed("failed", 16).hex()), confinement=FakeConfinement(lambda _: {}), run_id=seed("f", 16).hex()
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([BUNDLE, FAILED]), st.data())
def test_a_bundle_altered_in_any_byte_never_verifies(bundle: Bundle, data: st.DataObject) -> None:
    whole = bytearray(bundle.encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StrongroomError):
        verify(Bundle.parse(bytes(whole)), trust=TRUST)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value inside a JSON value, and the way to it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield (*at, key), inner
        yield from leaves(inner, (*at, key))


def other_values(value: Any) -> list[Any]:
    """Well-formed values of the same kind, and others."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, 0]
    if value is None:
        return ["", "x", 0, [], {}]
    if isinstance(value, str):
        found = [value[:-2] + ("00" if value[-2:] != "00" else "11"), value[1:], value + "A", "", None]
        if value.startswith("sha256:"):
            found.append(wire.digest(value.encode()))
        with contextlib.suppress(BadField):
            raw = bytearray(wire.unb64(value))
            if raw:
                raw[len(raw) // 2] ^= 1
                found.append(wire.b64(bytes(raw)))
        return [other for other in found if other != value]
    if isinstance(value, list):
        return [[], value + value[-1:], value[::-1], value[:-1], None]
    return [{}, None]


MEMBERS = dict(leaves(BUNDLE.to_json()))


@pytest.mark.parametrize("path", MEMBERS, ids=lambda p: ".".join(map(str, p)))
def test_a_member_changed_to_another_well_formed_one_never_verifies(path: tuple[Any, ...]) -> None:
    for other in other_values(MEMBERS[path]):
        if other == MEMBERS[path]:
            continue  # a list of one, turned around
        whole = json.loads(BUNDLE.encode())
        inner = whole
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = other
        with pytest.raises(StrongroomError):
            verify(Bundle.parse(wire.encode(whole)), trust=TRUST)


@pytest.mark.parametrize("bundle", [BUNDLE, FAILED, replace(BUNDLE, proof=None)])
def test_a_bundle_is_its_bytes(bundle: Bundle) -> None:
    assert Bundle.parse(bundle.encode()) == bundle
    assert Bundle.parse(bundle.encode()).encode() == bundle.encode()


@pytest.mark.parametrize("data", [b"", b"{}", b"null", BUNDLE.encode() + b" ", BUNDLE.receipt.encode()])
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Bundle.parse(data)


# --- statements -------------------------------------------------------------------------------------------------------

STATEMENT = Statement.parse(BUNDLE.receipt.payload)


def test_a_receipt_is_an_in_toto_statement_about_encrypted_outputs() -> None:
    found = json.loads(BUNDLE.receipt.payload)
    delivery, sealed = WORLD.exchange.delivered[0]
    assert BUNDLE.receipt.payload_type == "application/vnd.in-toto+json"
    assert found["_type"] == IN_TOTO == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == PREDICATE
    assert found["subject"] == [{"digest": {"sha256": wire.digest(sealed)[7:]}, "name": "report"}]
    assert delivery.sealed == wire.digest(sealed)


def test_the_receipt_of_a_run_that_failed_is_about_its_contract() -> None:
    found = json.loads(FAILED.receipt.payload)
    assert found["subject"] == [{"digest": {"sha256": FAILED.contract.digest[7:]}, "name": "contract"}]


def _altered(**members: Any) -> bytes:
    return wire.encode({**json.loads(BUNDLE.receipt.payload), **members})


def _predicate(**members: Any) -> bytes:
    return _altered(predicate={**json.loads(BUNDLE.receipt.payload)["predicate"], **members})


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (_altered(_type="https://in-toto.io/Statement/v0.1"), BadField),
        (_altered(predicateType="https://slsa.dev/provenance/v1"), BadField),
        (_altered(more=1), BadField),
        (_altered(subject=[]), BadReceipt),
        (_altered(subject=[{"digest": {"sha256": "00" * 32}, "name": "report"}]), BadReceipt),
        (_altered(subject=None), BadReceipt),
        (_predicate(more=1), BadField),
        (_predicate(inputs=[]), BadField),
        (_predicate(sandbox="none"), BadField),
        (_predicate(run_id="00"), BadField),
        (_predicate(started_at=-1), BadField),
        (_predicate(releases=["x"]), BadField),
        (_predicate(failure={"code": "a", "step": "b", "more": 1}), BadField),
        (_predicate(failure={"code": "", "step": "program"}), BadReceipt),
        (_predicate(failure={"code": "program.crashed", "step": "row 17: SMITH, John"}), BadReceipt),
        (_predicate(failure={"code": "program.crashed", "step": "\x1b[2J"}), BadReceipt),
        (_predicate(failure={"code": "x" * 65, "step": "program"}), BadField),
    ],
    ids=range(17),
)
def test_a_statement_of_another_form_is_refused(payload: bytes, error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        Statement.parse(payload)


def test_a_statement_is_its_bytes() -> None:
    for bundle in (BUNDLE, FAILED):
        statement = Statement.parse(bundle.receipt.payload)
        assert statement.encode() == bundle.receipt.payload
        assert Delivered.from_json(STATEMENT.outputs[0].to_json()) == STATEMENT.outputs[0]


# --- the one maker ----------------------------------------------------------------------------------------------------


def test_nothing_but_verify_makes_a_receipt() -> None:
    receipt = verify(BUNDLE, trust=TRUST)
    for maker in ((), (object(),)):
        with pytest.raises(TypeError):
            Receipt(
                receipt.statement,
                receipt.contract,
                receipt.platform,
                receipt.label,
                receipt.transcript,
                receipt.evidence,
                *maker,
            )
    for changes in ({"platform": "tdx"}, {"platform": "tdx", "maker": object()}):
        with pytest.raises((TypeError, ValueError)):
            dataclasses.replace(receipt, **changes)


def test_what_was_seen_is_told_also_when_it_fails(forger: Forger) -> None:
    found = examine(replace(forger.bundle(), proof=None), trust=TRUST)
    assert found.statement == Statement.parse(forger.bundle().receipt.payload)
    assert found.label == "platform: simulated (no hardware protection)"
    nothing = examine(forger.bundle(), trust=Trust())
    assert (nothing.statement, nothing.label) == (None, "platform: not established")


def test_a_contract_alone_is_no_bundle(world: World) -> None:
    contract: Contract = world.agree()
    bundle = Bundle(contract.envelope, contract.envelope, (), (), (), None)
    fails(bundle, "V3", "receipt.bad_receipt")


# --- vectors ----------------------------------------------------------------------------------------------------------

VECTORS = sorted((HOME / "vectors" / "receipt").glob("*.json"))


def test_the_folder_holds_vectors_of_both_outcomes_for_every_check() -> None:
    cases = [json.loads(path.read_bytes()) for path in VECTORS]
    assert {case["expect"] == "ok" for case in cases} == {True, False}
    assert {case["number"] for case in cases} == {"", *(n for n, _ in STEPS)}


def _script() -> ModuleType:
    found = spec_from_file_location("make_receipt", HOME / "vectors" / "make_receipt.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_vectors_are_those_that_their_script_writes() -> None:
    for folder, cases in _script().all_cases().items():
        assert {p.stem: json.loads(p.read_bytes()) for p in (HOME / "vectors" / folder).glob("*.json")} == cases


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    bundle, trust = Bundle.parse(wire.encode(case["bundle"])), Trust.from_json(case["trust"])
    if case["expect"] == "ok":
        assert verify(bundle, trust=trust).transcript.ok
        return
    # what is missing was not established; what is wrong failed
    missing = path.stem in {"v13-no-proof", "v13-no-log"}
    fails(bundle, case["number"], case["expect"], trust, Status.NOT_ESTABLISHED if missing else Status.FAILED)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_a_receipt_that_is_one() -> None:
    page = (HOME / "spec" / "receipt.md").read_text(encoding="utf-8")
    (shown,) = (json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:])
    bundle = json.loads((HOME / "vectors" / "receipt" / "ok.json").read_bytes())["bundle"]
    assert wire.encode(shown) == Envelope.from_json(bundle["receipt"]).payload
    for member in {*shown, *shown["predicate"], *shown["predicate"]["outputs"][0], *bundle, "code", "step"}:
        assert f"`{member}`" in page


def test_the_page_names_the_code_of_every_check() -> None:
    page = (HOME / "spec" / "receipt.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (V\d+) \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE))
    for path in VECTORS:
        case = json.loads(path.read_bytes())
        if case["number"]:
            family = case["expect"].split(".")[0] + ".…"
            assert f"`{case['expect']}`" in rows[case["number"]] or f"`{family}`" in rows[case["number"]], path
