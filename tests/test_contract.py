"""Proposals, approvals, contracts: what can be signed, who must have signed it, and what becomes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import string
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
from hypothesis.stateful import Bundle as Values
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strongroom import code, contract, wire
from strongroom.attest.evidence import Measurement
from strongroom.contract import (
    GRANT_TYPE,
    MAX_OUTPUT_BYTES,
    PROPOSAL_TYPE,
    RUN_REQUEST_SECONDS,
    RUN_TYPE,
    WALLS,
    WITHDRAWAL_TYPE,
    AssetRef,
    Contract,
    EnclaveTerms,
    Grant,
    History,
    Limits,
    Output,
    Payment,
    ProgramRef,
    Proposal,
    RunRequest,
    State,
    Withdrawal,
    counters,
    parameters_of,
    require,
    state,
)
from strongroom.enclave import sandbox_child
from strongroom.errors import (
    BadEnvelope,
    BadField,
    BadKey,
    BadMeasurement,
    BadProposal,
    BadSignature,
    EmptyPolicy,
    Expired,
    NotAParty,
    NotCanonical,
    NotPermitted,
    NotYetValid,
    SignatureDoubled,
    SignatureFromStranger,
    SignatureInvalid,
    SignatureMissing,
    StrongroomError,
    UnknownDimension,
    WrongState,
)
from strongroom.party import Party
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.wire import Envelope, Signature
from world import (
    DAY,
    EDITED,
    HOUR,
    MEASUREMENT,
    NOW,
    RULE,
    RUN,
    World,
    broker_key,
    card,
    keys_of,
    seed,
    sign_all,
)

HOME = Path(__file__).parents[1]
WORLD = World()
PROPOSAL = WORLD.proposal()
CONTRACT = sign_all(PROPOSAL)
LAB, HOSPITAL, STRANGER = keys_of("lab"), keys_of("hospital"), keys_of("stranger")
VERBS = ("approve", "counter", "withdraw", "run", "grant")


def signatures(proposal: Proposal = PROPOSAL) -> list[Signature]:
    return [proposal.sign(keys_of(p.name)) for p in proposal.parties]


def changed(**members: Any) -> bytes:
    """The world's proposal as others might write it, with members changed."""
    return wire.encode({**PROPOSAL.to_json(), **members})


# --- parsing --------------------------------------------------------------------------------------------------------


def test_a_proposal_is_its_bytes() -> None:
    assert Proposal.parse(PROPOSAL.encode()) == PROPOSAL
    assert Proposal.parse(PROPOSAL.encode()).encode() == PROPOSAL.encode()
    assert PROPOSAL.digest == wire.digest(PROPOSAL.encode()) == CONTRACT.digest == CONTRACT.envelope.digest


names = st.text(string.ascii_lowercase, min_size=1, max_size=6)
parameters = st.recursive(
    st.none() | st.booleans() | st.integers(-wire.MAX_INT, wire.MAX_INT) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def proposals(draw: st.DrawFn) -> Proposal:
    kind = draw(st.sampled_from(["report", "picture", "records", "log"]))
    given_to = draw(st.sets(st.sampled_from(["hospital", "lab"]), min_size=1))
    output_rule = OutputRule(
        frozenset(given_to),
        draw(st.integers(1, MAX_OUTPUT_BYTES // 3)),
        draw(st.integers(1, 99)),
        draw(st.integers(0, 15)),
    )
    wide = replace(output_rule, recipients=draw(st.sampled_from([ANY_PARTY, output_rule.recipients])))
    use = draw(names)
    begins = draw(st.integers(0, 2**40))
    return WORLD.proposal(
        title=draw(st.text(string.printable[:94] + "äß水", max_size=40)),
        nonce=draw(st.binary(min_size=16, max_size=16)).hex(),
        proposer=draw(st.sampled_from(["hospital", "lab"])),
        supersedes=draw(st.none() | st.binary(max_size=4).map(wire.digest)),
        created_at=draw(st.integers(0, 2**40)),
        not_before=begins,
        not_after=begins + draw(st.integers(1, 2**40)),
        program=ProgramRef(
            draw(names), wire.digest(b""), use, draw(st.dictionaries(st.text(max_size=4), parameters, max_size=3))
        ),
        outputs=tuple(Output(name, kind, output_rule) for name in sorted(draw(st.sets(names, min_size=1, max_size=3)))),
        policy=Policy(frozenset({use, *draw(st.sets(names, max_size=2))}), {kind: wide}),
        limits=Limits(draw(st.integers(1, 1000)), draw(st.integers(1, 1000)), draw(st.integers(1 << 20, 1 << 45))),
        payments=tuple(
            Payment("lab", "hospital", draw(st.integers(1, 2**50)), currency)
            for currency in sorted(draw(st.sets(st.sampled_from(["CHF", "EUR", "USD"]))))
        ),
    )


@settings(max_examples=50, deadline=None)
@given(proposals())
def test_every_proposal_parses_to_itself_and_can_be_signed(proposal: Proposal) -> None:
    assert Proposal.parse(proposal.encode()) == proposal
    assert sign_all(proposal).proposal == proposal


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def put(value: Any, path: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> bytes:
    """The bytes of a JSON value after ``edit(container, key)``."""
    value = json.loads(json.dumps(value))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    edit(inner, path[-1])
    return wire.encode(value)


PATHS = [path for path in paths(PROPOSAL.to_json()) if "parameters" not in path[:-1]]
FREE = {("program", "parameters")}  # any object


@pytest.mark.parametrize("path", [p for p in PATHS if isinstance(p[-1], str)], ids=lambda p: ".".join(map(str, p)))
def test_a_member_that_is_missing_is_refused(path: tuple[Any, ...]) -> None:
    if path[-2:-1] == ("registers",):
        return  # fewer registers are another measurement, and a well-formed one
    with pytest.raises(StrongroomError):
        Proposal.parse(put(PROPOSAL.to_json(), path, lambda inner, key: inner.pop(key)))


@pytest.mark.parametrize("path", [(), *(p for p in PATHS if p not in FREE)], ids=lambda p: ".".join(map(str, p)) or "top")
def test_a_member_that_is_unknown_is_refused(path: tuple[Any, ...]) -> None:
    value: Any = PROPOSAL.to_json()
    for key in path:
        value = value[key]
    if not isinstance(value, dict):
        return
    with pytest.raises(StrongroomError):
        Proposal.parse(put(PROPOSAL.to_json(), (*path, "more"), lambda inner, key: inner.update({key: 1})))


@pytest.mark.parametrize("path", [p for p in PATHS if p not in FREE], ids=lambda p: ".".join(map(str, p)))
def test_a_value_of_another_type_is_refused_or_is_another_proposal(path: tuple[Any, ...]) -> None:
    for other in (None, True, -1, 7, "", "x", [], {}, [1], {"a": 1}):
        data = put(PROPOSAL.to_json(), path, lambda inner, key, other=other: inner.__setitem__(key, other))
        with contextlib.suppress(StrongroomError):
            found = Proposal.parse(data)
            assert found.encode() == data
            assert found.digest != PROPOSAL.digest or data == PROPOSAL.encode()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATHS), parameters)
def test_nothing_but_our_errors_comes_out_of_parsing(path: tuple[Any, ...], value: Any) -> None:
    try:
        data = put(PROPOSAL.to_json(), path, lambda inner, key: inner.__setitem__(key, value))
    except NotCanonical:  # a lone surrogate
        return
    with contextlib.suppress(StrongroomError):
        assert Proposal.parse(data).encode() == data


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", json.dumps(PROPOSAL.to_json()).encode(), PROPOSAL.encode() + b"\n", PROPOSAL.encode()[:-1]],
    ids=["empty", "no-members", "list", "null", "not-canonical", "trailing", "cut"],
)
def test_bytes_that_are_no_proposal_are_refused(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Proposal.parse(data)


def test_a_policy_that_is_not_in_normal_form_is_refused() -> None:
    policy = PROPOSAL.policy.to_json()
    policy["outputs"] = {**policy["outputs"], "log": {**RULE.to_json(), "recipients": []}}  # type: ignore[dict-item]
    with pytest.raises(BadField):
        Proposal.parse(changed(policy=policy))


def test_a_parser_that_reads_loosely_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is signed is compared with what was read: a reading that changes anything is no reading.
    wider = Policy(PROPOSAL.policy.uses | {"train"}, PROPOSAL.policy.outputs)
    monkeypatch.setattr("strongroom.contract.Policy.from_json", lambda _value: wider)
    with pytest.raises(BadProposal, match="normal form"):
        Proposal.parse(PROPOSAL.encode())


# --- what a proposal must hold ----------------------------------------------------------------------------------------

SHARED_SIGNING = Party("twin", LAB.signing.public, keys_of("twin").decryption.public, broker_key("twin").public)
SHARED_BROKER = Party("twin", keys_of("twin").signing.public, keys_of("twin").decryption.public, broker_key("lab").public)
CROSSED = Party("twin", broker_key("lab").public, keys_of("twin").decryption.public, broker_key("twin").public)
SHARED_ENCRYPTION = Party("twin", keys_of("twin").signing.public, LAB.decryption.public, broker_key("twin").public)
NARROW = {"report": replace(RULE, recipients=frozenset({"hospital"}))}
TDX = Measurement("tdx", {"mrtd": "sha384:" + "0" * 96})
OUTPUT = PROPOSAL.outputs[0]
ASSETS = PROPOSAL.assets
PAID = PROPOSAL.payments[0]

BROKEN: dict[str, tuple[dict[str, Any], type[StrongroomError]]] = {
    "no parties": ({"parties": ()}, BadProposal),
    "parties unsorted": ({"parties": (card("lab"), card("hospital"))}, BadProposal),
    "a party twice": ({"parties": (card("hospital"), card("hospital"), card("lab"))}, BadProposal),
    "two parties with one signing key": ({"parties": (card("hospital"), card("lab"), SHARED_SIGNING)}, BadProposal),
    "two brokers with one key": ({"parties": (card("hospital"), card("lab"), SHARED_BROKER)}, BadProposal),
    "a party that signs with another's broker key": ({"parties": (card("hospital"), card("lab"), CROSSED)}, BadProposal),
    "two parties that open with one key": ({"parties": (card("hospital"), card("lab"), SHARED_ENCRYPTION)}, BadProposal),
    "a proposer that is no party": ({"proposer": "stranger"}, BadProposal),
    "an owner that is no party": ({"assets": (replace(ASSETS[0], owner="stranger"), ASSETS[1])}, BadProposal),
    "a recipient that is no party": (
        {"outputs": (replace(OUTPUT, rule=replace(RULE, recipients=frozenset({"stranger"}))),)},
        BadProposal,
    ),
    "a payer that is no party": ({"payments": (replace(PAID, payer="stranger"),)}, BadProposal),
    "a payee that is no party": ({"payments": (replace(PAID, payee="stranger"),)}, BadProposal),
    "a payment to oneself": ({"payments": (replace(PAID, payer="hospital"),)}, BadProposal),
    "payments unsorted": ({"payments": (PAID, replace(PAID, currency="CHF"))}, BadProposal),
    "a payment twice": ({"payments": (PAID, replace(PAID, amount=1))}, BadProposal),
    "no assets": ({"assets": ()}, BadProposal),
    "assets unsorted": ({"assets": ASSETS[::-1]}, BadProposal),
    "a role twice": ({"assets": (ASSETS[0], replace(ASSETS[1], role=ASSETS[0].role))}, BadProposal),
    "an asset in two roles": ({"assets": (ASSETS[0], replace(ASSETS[0], role="model"))}, BadProposal),
    "no outputs": ({"outputs": ()}, BadProposal),
    "an output twice": ({"outputs": (OUTPUT, OUTPUT)}, BadProposal),
    "outputs unsorted": ({"outputs": (OUTPUT, replace(OUTPUT, name="a"))}, BadProposal),
    "an output for nobody": (
        {"outputs": (replace(OUTPUT, rule=replace(RULE, recipients=frozenset())),)},
        BadProposal,
    ),
    "an output for any party": ({"outputs": (replace(OUTPUT, rule=replace(RULE, recipients=ANY_PARTY)),)}, BadProposal),
    "an output of an unknown kind": ({"outputs": (replace(OUTPUT, kind="video"),)}, UnknownDimension),
    "no platform": ({"enclave": EnclaveTerms((), (MEASUREMENT,), "isolated")}, BadProposal),
    "no measurement": ({"enclave": EnclaveTerms(("simulated",), (), "isolated")}, BadProposal),
    "a measurement of a platform not named": (
        {"enclave": EnclaveTerms(("simulated",), (MEASUREMENT, TDX), "isolated")},
        BadProposal,
    ),
    "a platform without a measurement": (
        {"enclave": EnclaveTerms(("simulated", "tdx"), (MEASUREMENT,), "isolated")},
        BadProposal,
    ),
    "a measurement twice": (
        {"enclave": EnclaveTerms(("simulated",), (MEASUREMENT, MEASUREMENT), "isolated")},
        BadProposal,
    ),
    "measurements unsorted": (
        {
            "enclave": EnclaveTerms(
                ("simulated",), tuple(sorted((MEASUREMENT, EDITED), key=Measurement.encode, reverse=True)), "isolated"
            )
        },
        BadProposal,
    ),
    "sandbox process on hardware": ({"enclave": EnclaveTerms(("tdx",), (TDX,), "process")}, BadProposal),
    "sandbox process beside hardware": (
        {"enclave": EnclaveTerms(("simulated", "tdx"), (MEASUREMENT, TDX), "process")},
        BadProposal,
    ),
    "walls out of order": (
        {"enclave": EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated", ("seccomp", "landlock"))},
        BadProposal,
    ),
    "a wall that there is not": (
        {"enclave": EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated", ("moat",))},
        BadProposal,
    ),
    "walls around an ordinary process": (
        {"enclave": EnclaveTerms(("simulated",), (MEASUREMENT,), "process", ("cgroup-memory",))},
        BadProposal,
    ),
    "a policy that allows nothing": ({"policy": Policy()}, EmptyPolicy),
    "a policy without outputs": ({"policy": Policy(frozenset({"evaluate"}))}, EmptyPolicy),
    "a policy without uses": ({"policy": Policy(outputs={"report": RULE})}, EmptyPolicy),
    "a use that the policy does not allow": ({"policy": Policy(frozenset({"train"}), {"report": RULE})}, NotPermitted),
    "a policy narrower in recipients": ({"policy": Policy(frozenset({"evaluate"}), NARROW)}, NotPermitted),
    "a policy narrower in decimals": (
        {"policy": Policy(frozenset({"evaluate"}), {"report": replace(RULE, decimals=3)})},
        NotPermitted,
    ),
    "a policy narrower in groups": (
        {"policy": Policy(frozenset({"evaluate"}), {"report": replace(RULE, min_group=11)})},
        NotPermitted,
    ),
    "a policy narrower in bytes": (
        {"policy": Policy(frozenset({"evaluate"}), {"report": replace(RULE, max_bytes=10)})},
        NotPermitted,
    ),
    "outputs that would fill an enclave's memory": (
        {
            "policy": Policy(frozenset({"evaluate"}), {"report": replace(RULE, max_bytes=MAX_OUTPUT_BYTES)}),
            "outputs": (
                Output("more", "report", replace(RULE, max_bytes=1)),
                Output("report", "report", replace(RULE, max_bytes=MAX_OUTPUT_BYTES)),
            ),
        },
        BadProposal,
    ),
    "an output of a kind that the policy does not allow": ({"outputs": (replace(OUTPUT, kind="log"),)}, NotPermitted),
    "ended before it begins": ({"not_after": NOW - HOUR - 1}, BadProposal),
    "over the second it begins": ({"not_after": NOW - HOUR}, BadProposal),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_proposal_that_breaks_a_rule_cannot_be_made(name: str) -> None:
    changes, error = BROKEN[name]
    with pytest.raises(error):
        WORLD.proposal(**changes)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"nonce": "00"}, BadField),
        ({"nonce": "AB" * 16}, BadField),
        ({"proposer": "Lab"}, BadField),
        ({"supersedes": "sha256:00"}, BadField),
        ({"created_at": -1}, BadField),
        ({"not_after": 2**53}, NotCanonical),
        ({"title": "x" * 201}, BadField),
        ({"limits": {"memory_bytes": 1 << 20, "runs": 0, "seconds": 1}}, BadField),
        ({"limits": {"memory_bytes": 1 << 20, "runs": 1_000_001, "seconds": 1}}, BadField),
        ({"limits": {"memory_bytes": 1 << 20, "runs": 1, "seconds": 0}}, BadField),
        ({"limits": {"memory_bytes": 1 << 20, "runs": 1, "seconds": 604_801}}, BadField),
        ({"limits": {"memory_bytes": 1, "runs": 1, "seconds": 1}}, BadField),
        ({"program": {**PROPOSAL.program.to_json(), "parameters": []}}, BadField),
        ({"program": {**PROPOSAL.program.to_json(), "digest": "sha1:00"}}, BadField),
        ({"enclave": {**PROPOSAL.enclave.to_json(), "sandbox": "none"}}, BadField),
        ({"enclave": {**PROPOSAL.enclave.to_json(), "measurements": [{"platform": "simulated", "registers": {}}]}},
         BadMeasurement),
        ({"policy": {**PROPOSAL.policy.to_json(), "egress": ["example.com"]}}, UnknownDimension),
        ({"policy": {**PROPOSAL.policy.to_json(), "tools": []}}, UnknownDimension),
        ({"parties": [{**card("hospital").to_json(), "signing_key": wire.b64(bytes(32))}, card("lab").to_json()]}, BadKey),
        ({"payments": [{**PAID.to_json(), "amount": 0}]}, BadField),
    ],
)  # fmt: skip
def test_a_member_out_of_its_range_is_refused(members: dict[str, Any], error: type[StrongroomError]) -> None:
    if error is NotCanonical:
        with pytest.raises(NotCanonical):
            changed(**members)
        return
    with pytest.raises(error):
        Proposal.parse(changed(**members))


@pytest.mark.parametrize("currency", ["eur", "EU", "EURO", "A1B", "\x1b[A", "E\n\n", "€UR", "   "])
def test_a_currency_is_three_capital_letters(currency: str) -> None:
    with pytest.raises((BadProposal, BadField)):
        Proposal.parse(changed(payments=[{**PAID.to_json(), "currency": currency}]))


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff"])
def test_a_title_that_a_screen_would_obey_is_refused(character: str) -> None:
    with pytest.raises(BadProposal):
        Proposal.parse(changed(title=f"harmless{character}evil"))


def test_process_is_allowed_under_simulated_alone_and_said() -> None:
    proposal = WORLD.proposal(enclave=EnclaveTerms(("simulated",), (MEASUREMENT,), "process"))
    assert Proposal.parse(proposal.encode()).enclave.sandbox == "process"


def test_walls_are_said_where_there_are_any_and_else_the_bytes_are_as_they_were() -> None:
    plain = WORLD.proposal()
    assert b'"walls"' not in plain.encode()
    behind = WORLD.proposal(enclave=EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated", ("landlock", "seccomp")))
    assert Proposal.parse(behind.encode()) == behind
    assert behind.enclave.missing(("landlock",)) == ("seccomp",)
    with pytest.raises(BadField):
        Proposal.parse(behind.encode().replace(b'"walls":["landlock","seccomp"]', b'"walls":[]'))
    assert set(behind.enclave.missing(())) < set(WALLS)
    assert WALLS == sandbox_child.WALLS


def test_party_and_asset_are_found_by_name_and_digest() -> None:
    assert PROPOSAL.party("lab") == card("lab")
    assert PROPOSAL.asset(ASSETS[1].manifest) is PROPOSAL.assets[1]
    assert PROPOSAL.asset(wire.digest(b"")) is None
    with pytest.raises(NotAParty):
        PROPOSAL.party("stranger")


def test_parameters_are_an_object_of_what_can_be_signed() -> None:
    assert parameters_of({"b": [1, "x"], "a": None}) == {"a": None, "b": [1, "x"]}
    with pytest.raises(NotCanonical):
        parameters_of({"threshold": 0.5})
    with pytest.raises(BadField):
        parameters_of([1])


# --- signatures -------------------------------------------------------------------------------------------------------


def test_a_proposal_with_every_signature_is_a_contract() -> None:
    assert Contract.verify(CONTRACT.envelope) == CONTRACT
    assert Contract.verify(Envelope.parse(CONTRACT.envelope.encode())).proposal == PROPOSAL


@pytest.mark.parametrize("missing", ["hospital", "lab"])
def test_a_missing_signature_makes_no_contract(missing: str) -> None:
    kept = [s for s in signatures() if s.keyid != card(missing).signing_key.keyid]
    with pytest.raises(SignatureMissing, match=missing):
        Contract.verify(PROPOSAL.envelope(kept))


def test_no_signature_at_all_makes_no_contract() -> None:
    with pytest.raises(SignatureMissing, match="hospital, lab"):
        Contract.verify(PROPOSAL.envelope([]))


def test_one_signature_twice_does_not_count_for_two() -> None:
    one = PROPOSAL.sign(LAB)
    with pytest.raises(SignatureDoubled):
        Contract.verify(PROPOSAL.envelope([one, one]))


def test_a_complete_set_with_one_doubled_is_refused() -> None:
    with pytest.raises(SignatureDoubled):
        Contract.verify(PROPOSAL.envelope([*signatures(), PROPOSAL.sign(LAB)]))


def test_unsorted_signatures_are_refused() -> None:
    backwards = tuple(sorted(signatures(), key=lambda s: s.keyid, reverse=True))
    with pytest.raises(SignatureDoubled):
        Contract.verify(Envelope(PROPOSAL_TYPE, PROPOSAL.encode(), backwards))


def test_a_strangers_signature_beside_all_others_is_refused() -> None:
    extra = STRANGER.signing.signature(PROPOSAL_TYPE, PROPOSAL.encode())
    with pytest.raises(SignatureFromStranger):
        Contract.verify(PROPOSAL.envelope([*signatures(), extra]))


def test_a_strangers_signature_in_a_partys_name_is_refused() -> None:
    forged = Signature(card("hospital").signing_key.keyid, STRANGER.signing.sign_bytes(wire.pae(PROPOSAL_TYPE, b"")))
    with pytest.raises(SignatureInvalid):
        Contract.verify(PROPOSAL.envelope([PROPOSAL.sign(LAB), forged]))


def test_a_brokers_signature_is_not_its_partys() -> None:
    by_broker = broker_key("hospital").signature(PROPOSAL_TYPE, PROPOSAL.encode())
    with pytest.raises(SignatureFromStranger):
        Contract.verify(PROPOSAL.envelope([PROPOSAL.sign(LAB), by_broker]))


def test_an_approval_replayed_from_another_proposal_is_refused() -> None:
    other = WORLD.proposal(nonce=seed("another", 16).hex())
    with pytest.raises(SignatureInvalid, match="hospital"):
        Contract.verify(PROPOSAL.envelope([PROPOSAL.sign(LAB), other.sign(HOSPITAL)]))


def test_an_approval_of_other_bytes_is_refused() -> None:
    dearer = WORLD.proposal(payments=(replace(PAID, amount=PAID.amount * 10),))
    with pytest.raises(SignatureInvalid):
        Contract.verify(Envelope(PROPOSAL_TYPE, dearer.encode(), CONTRACT.envelope.signatures))


@pytest.mark.parametrize("kind", [WITHDRAWAL_TYPE, GRANT_TYPE, RUN_TYPE, "application/json", ""])
def test_an_approval_under_another_payload_type_is_refused(kind: str) -> None:
    crossed = HOSPITAL.signing.signature(kind, PROPOSAL.encode())
    with pytest.raises(SignatureInvalid):
        Contract.verify(PROPOSAL.envelope([PROPOSAL.sign(LAB), crossed]))
    with pytest.raises(BadEnvelope):
        Contract.verify(replace(CONTRACT.envelope, payload_type=kind))


def test_the_bare_bytes_signed_are_no_approval() -> None:
    bare = Signature(HOSPITAL.signing.public.keyid, HOSPITAL.signing.sign_bytes(PROPOSAL.encode()))
    with pytest.raises(SignatureInvalid):
        Contract.verify(PROPOSAL.envelope([PROPOSAL.sign(LAB), bare]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_contract_altered_in_any_byte_is_refused(data: st.DataObject) -> None:
    envelope = CONTRACT.envelope
    payload = bytearray(envelope.payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StrongroomError):
        Contract.verify(replace(envelope, payload=bytes(payload)))
    whole = bytearray(envelope.encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StrongroomError):
        Contract.verify(Envelope.parse(bytes(whole)))


@pytest.mark.parametrize("index", range(2))
def test_a_signature_altered_in_any_byte_is_refused(index: int) -> None:
    for at in range(64):
        found = list(CONTRACT.envelope.signatures)
        sig = bytearray(found[index].sig)
        sig[at] ^= 1
        found[index] = replace(found[index], sig=bytes(sig))
        with pytest.raises(SignatureInvalid):
            Contract.verify(replace(CONTRACT.envelope, signatures=tuple(found)))


def test_a_party_signs_with_the_keys_of_the_proposal_alone() -> None:
    with pytest.raises(NotAParty):
        PROPOSAL.sign(STRANGER)
    with pytest.raises(NotAParty):
        PROPOSAL.sign(replace(STRANGER, name="lab"))


def test_who_signed_so_far_is_known_before_all_did() -> None:
    assert Proposal.open(PROPOSAL.envelope([PROPOSAL.sign(LAB)])) == (PROPOSAL, frozenset({"lab"}))
    assert Proposal.open(PROPOSAL.envelope([])) == (PROPOSAL, frozenset())


# --- the one maker ----------------------------------------------------------------------------------------------------


def test_nothing_but_verify_makes_a_contract() -> None:
    with pytest.raises(TypeError):
        Contract(PROPOSAL, PROPOSAL.envelope([]), object())
    with pytest.raises(TypeError):
        Contract(PROPOSAL, PROPOSAL.envelope([]))  # type: ignore[call-arg]
    dearer = WORLD.proposal(payments=(replace(PAID, amount=1),))
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(CONTRACT, proposal=dearer)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(CONTRACT, proposal=dearer, maker=object())
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONTRACT.proposal = dearer  # type: ignore[misc]


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "error"),
    [(NOW - HOUR - 1, NotYetValid), (NOW - HOUR, None), (NOW + DAY - 1, None), (NOW + DAY, Expired), (2**50, Expired)],
)
def test_a_contract_is_in_force_from_its_first_second_to_before_its_last(
    at: int, error: type[StrongroomError] | None
) -> None:
    if error is None:
        CONTRACT.require_in_force(at)
        return
    with pytest.raises(error):
        CONTRACT.require_in_force(at)


# --- the life cycle ---------------------------------------------------------------------------------------------------

BOTH = frozenset({"hospital", "lab"})
DIGEST = wire.digest(b"another proposal")


def expected(*, complete: bool, countered: bool, withdrawn: bool, used: int, left: bool, over: bool) -> State:
    """The life cycle as spec/contract.md tells it, line by line."""
    if withdrawn:
        return State.WITHDRAWN
    if countered and not complete:
        return State.COUNTERED
    if not left:
        return State.SPENT
    if over:
        return State.EXPIRED
    if not complete:
        return State.PROPOSED
    return State.ACTIVE if used else State.APPROVED


def test_every_history_has_one_state() -> None:
    for approved, countered, withdrawn, runs, granted, at in itertools.product(
        [frozenset(), frozenset({"lab"}), BOTH, BOTH | {"stranger"}],
        [None, DIGEST],
        [frozenset(), frozenset({"lab"}), frozenset({"hospital"}), BOTH],
        [frozenset(), frozenset({RUN}), frozenset({RUN, "ff" * 16})],
        [0, 1, 2],
        [0, NOW - HOUR, NOW, NOW + DAY - 1, NOW + DAY, 2**50],
    ):
        history = History(approved, countered, withdrawn, runs, granted)
        assert state(PROPOSAL, history, at) is expected(
            complete=approved >= BOTH,
            countered=countered is not None,
            withdrawn=bool(withdrawn),
            used=len(runs),
            left=len(runs) < 1 + granted,
            over=at >= NOW + DAY,
        ), (history, at)


def test_every_state_is_reached() -> None:
    complete = History(BOTH)
    reached = {
        state(PROPOSAL, History(), NOW),
        state(PROPOSAL, History(countered_by=DIGEST), NOW),
        state(PROPOSAL, complete, NOW),
        state(WORLD.proposal(limits=Limits(2, 300, 1 << 30)), replace(complete, runs=frozenset({RUN})), NOW),
        state(PROPOSAL, replace(complete, runs=frozenset({RUN})), NOW),
        state(PROPOSAL, complete, NOW + DAY),
        state(PROPOSAL, replace(complete, withdrawn_by=BOTH), NOW),
    }
    assert reached == set(State)


ALLOWED = {
    State.PROPOSED: {"approve", "counter", "withdraw"},
    State.COUNTERED: {"withdraw"},
    State.APPROVED: {"withdraw", "run", "grant"},
    State.ACTIVE: {"withdraw", "run", "grant"},
    State.SPENT: {"withdraw", "grant"},
    State.EXPIRED: set(),
    State.WITHDRAWN: set(),
}


@pytest.mark.parametrize(("current", "verb"), list(itertools.product(State, VERBS)))
def test_a_verb_is_allowed_where_the_state_says_so(current: State, verb: str) -> None:
    if verb in ALLOWED[current]:
        require(verb, current)
        return
    with pytest.raises(WrongState, match=current.value):
        require(verb, current)


def test_a_verb_that_nobody_declared_is_not_allowed() -> None:
    with pytest.raises(KeyError):
        require("publish", State.APPROVED)


class LifeCycle(RuleBasedStateMachine):
    """A proposal that anything may happen to, in any order."""

    runs = Values("runs")

    def __init__(self) -> None:
        super().__init__()
        self.history, self.at, self.last = History(), NOW, State.PROPOSED

    @property
    def state(self) -> State:
        return state(PROPOSAL, self.history, self.at)

    @rule(name=st.sampled_from(sorted(BOTH)))
    def approve(self, name: str) -> None:
        self.history = replace(self.history, approved_by=self.history.approved_by | {name})

    @rule()
    def counter(self) -> None:
        self.history = replace(self.history, countered_by=self.history.countered_by or DIGEST)

    @rule(name=st.sampled_from(sorted(BOTH)))
    def withdraw(self, name: str) -> None:
        self.history = replace(self.history, withdrawn_by=self.history.withdrawn_by | {name})

    @precondition(lambda self: self.state in (State.APPROVED, State.ACTIVE))
    @rule(run_id=st.binary(min_size=2, max_size=2))
    def run(self, run_id: bytes) -> None:
        self.history = replace(self.history, runs=self.history.runs | {run_id.hex()})

    @rule()
    def grant(self) -> None:
        self.history = replace(self.history, granted=self.history.granted + 1)

    @rule(seconds=st.sampled_from([1, HOUR, DAY]))
    def wait(self, seconds: int) -> None:
        self.at += seconds

    @invariant()
    def a_withdrawal_is_for_ever(self) -> None:
        if self.last is State.WITHDRAWN:
            assert self.state is State.WITHDRAWN
        self.last = self.state

    @invariant()
    def nothing_runs_without_every_signature(self) -> None:
        if self.state in (State.APPROVED, State.ACTIVE):
            assert self.history.approved_by >= BOTH
            assert not self.history.withdrawn_by
            assert len(self.history.runs) < PROPOSAL.limits.runs + self.history.granted
            assert self.at < PROPOSAL.not_after

    @invariant()
    def no_more_runs_than_allowed(self) -> None:
        assert len(self.history.runs) <= PROPOSAL.limits.runs + self.history.granted

    @invariant()
    def whatever_can_still_release_can_be_withdrawn(self) -> None:
        # a grant can follow what is spent, and signatures what is countered
        if self.state in (State.PROPOSED, State.COUNTERED, State.APPROVED, State.ACTIVE, State.SPENT):
            require("withdraw", self.state)


TestLifeCycle = LifeCycle.TestCase
TestLifeCycle.settings = settings(max_examples=60, deadline=None)


# --- counter-proposals ------------------------------------------------------------------------------------------------


def test_a_counter_names_what_it_supersedes() -> None:
    counter = WORLD.proposal(proposer="hospital", supersedes=PROPOSAL.digest, limits=Limits(1, 60, 1 << 30))
    counters(counter, PROPOSAL)
    with pytest.raises(BadProposal):
        counters(WORLD.proposal(proposer="hospital"), PROPOSAL)
    with pytest.raises(BadProposal):
        counters(replace(counter, supersedes=DIGEST), PROPOSAL)


def test_a_counter_that_brings_in_another_party_is_refused() -> None:
    parties = (card("hospital"), card("lab"), card("stranger"))
    with pytest.raises(BadProposal):
        counters(WORLD.proposal(supersedes=PROPOSAL.digest, parties=parties), PROPOSAL)


def test_a_counter_that_changes_a_partys_keys_is_refused() -> None:
    other = replace(card("hospital"), signing_key=STRANGER.signing.public)
    with pytest.raises(BadProposal):
        counters(WORLD.proposal(supersedes=PROPOSAL.digest, parties=(other, card("lab"))), PROPOSAL)


def test_a_counter_that_leaves_a_party_out_is_refused() -> None:
    three = WORLD.proposal(parties=(card("hospital"), card("lab"), card("stranger")))
    with pytest.raises(BadProposal):
        counters(WORLD.proposal(supersedes=three.digest), three)


# --- withdrawals, grants, run requests --------------------------------------------------------------------------------

Said = Withdrawal | Grant | RunRequest
SAID: dict[str, tuple[Said, str]] = {
    "withdrawal": (Withdrawal(CONTRACT.digest, "hospital", NOW, "the patients said no"), WITHDRAWAL_TYPE),
    "grant": (Grant(CONTRACT.digest, "hospital", 1, "ab" * 16), GRANT_TYPE),
    "run": (RunRequest(CONTRACT.digest, "hospital", RUN, NOW), RUN_TYPE),
}


def hear(kind: str, envelope: Envelope, proposal: Proposal = PROPOSAL, at: int = NOW) -> Said:
    if kind == "withdrawal":
        return Withdrawal.verify(envelope, proposal)
    return Grant.verify(envelope, proposal) if kind == "grant" else RunRequest.verify(envelope, proposal, at)


@pytest.mark.parametrize("kind", SAID)
def test_what_a_party_says_is_heard(kind: str) -> None:
    said, _ = SAID[kind]
    envelope = said.sign(HOSPITAL.signing)
    assert hear(kind, envelope) == said
    assert hear(kind, Envelope.parse(envelope.encode())) == said


@pytest.mark.parametrize("kind", SAID)
def test_what_is_said_of_another_contract_is_not_heard(kind: str) -> None:
    other = WORLD.proposal(nonce=seed("another", 16).hex())
    with pytest.raises(BadField, match="another contract"):
        hear(kind, SAID[kind][0].sign(HOSPITAL.signing), other)


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("signer", ["stranger", "lab"])
def test_what_another_says_in_a_partys_name_is_not_heard(kind: str, signer: str) -> None:
    with pytest.raises(BadSignature):
        hear(kind, SAID[kind][0].sign(keys_of(signer).signing))


@pytest.mark.parametrize("kind", SAID)
def test_what_a_partys_broker_says_is_not_heard(kind: str) -> None:
    with pytest.raises(BadSignature):
        hear(kind, SAID[kind][0].sign(broker_key("hospital")))


@pytest.mark.parametrize("kind", SAID)
def test_what_a_stranger_says_is_not_heard(kind: str) -> None:
    said = replace(SAID[kind][0], party="stranger")
    with pytest.raises(NotAParty):
        hear(kind, said.sign(STRANGER.signing))


@pytest.mark.parametrize("kind", SAID)
def test_what_two_signed_is_not_heard(kind: str) -> None:
    envelope = SAID[kind][0].sign(HOSPITAL.signing)
    extra = LAB.signing.signature(envelope.payload_type, envelope.payload)
    with pytest.raises(BadSignature):
        hear(kind, replace(envelope, signatures=(*envelope.signatures, extra)))
    with pytest.raises(BadSignature):
        hear(kind, replace(envelope, signatures=()))


@pytest.mark.parametrize(("kind", "other"), [(a, b) for a in SAID for b in SAID if a != b])
def test_one_thing_said_is_not_heard_as_another(kind: str, other: str) -> None:
    said, _ = SAID[other]
    with pytest.raises(BadEnvelope):
        hear(kind, said.sign(HOSPITAL.signing))
    # nor under the type of the one, with the content of the other
    with pytest.raises(BadField):
        hear(kind, HOSPITAL.signing.sign(SAID[kind][1], said.encode()))


@pytest.mark.parametrize("kind", SAID)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_altered_in_any_byte_is_not_heard(kind: str, data: st.DataObject) -> None:
    whole = bytearray(SAID[kind][0].sign(HOSPITAL.signing).encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StrongroomError):
        hear(kind, Envelope.parse(bytes(whole)))


@pytest.mark.parametrize(
    ("kind", "member", "value"),
    [
        ("withdrawal", "at", "now"),
        ("withdrawal", "reason", "x" * 401),
        ("withdrawal", "more", 1),
        ("grant", "runs", 0),
        ("grant", "runs", -1),
        ("grant", "runs", 1_000_001),
        ("grant", "nonce", "ab"),
        ("grant", "more", 1),
        ("run", "run_id", "ab"),
        ("run", "run_id", RUN.upper()),
        ("run", "more", 1),
    ],
)
def test_what_is_not_well_formed_is_not_heard(kind: str, member: str, value: Any) -> None:
    said, payload_type = SAID[kind]
    payload = wire.encode({**json.loads(said.encode()), member: value})
    with pytest.raises(BadField):
        hear(kind, HOSPITAL.signing.sign(payload_type, payload))


def test_a_run_asked_for_long_ago_or_in_the_future_is_not_made() -> None:
    envelope = RunRequest(CONTRACT.digest, "lab", RUN, NOW).sign(LAB.signing)
    for at in (NOW - RUN_REQUEST_SECONDS, NOW, NOW + RUN_REQUEST_SECONDS):
        assert RunRequest.verify(envelope, PROPOSAL, at).run_id == RUN
    for at in (NOW - RUN_REQUEST_SECONDS - 1, NOW + RUN_REQUEST_SECONDS + 1):
        with pytest.raises(BadField, match="not now"):
            RunRequest.verify(envelope, PROPOSAL, at)


def test_a_peek_says_which_contract_and_believes_nothing() -> None:
    forged = RunRequest(CONTRACT.digest, "hospital", RUN, NOW).sign(STRANGER.signing)
    assert RunRequest.peek(forged).contract == CONTRACT.digest


def test_an_asset_named_for_another_owner_is_the_owners_word() -> None:
    # the broker looks at this too (D6): a proposal alone can name any digest under any party
    claimed = WORLD.proposal(assets=(replace(ASSETS[0], owner="lab"), ASSETS[1]))
    assert claimed.asset(ASSETS[0].manifest) == AssetRef("data", "lab", ASSETS[0].manifest)


# --- vectors ----------------------------------------------------------------------------------------------------------

CONTRACTS = sorted((HOME / "vectors" / "contract").glob("*.json"))
WITHDRAWALS = sorted((HOME / "vectors" / "withdrawal").glob("*.json"))


def test_the_folders_hold_vectors_of_both_outcomes() -> None:
    for files in (CONTRACTS, WITHDRAWALS):
        assert {json.loads(path.read_bytes())["expect"] == "ok" for path in files} == {True, False}


def _script() -> ModuleType:
    found = spec_from_file_location("make_contract", HOME / "vectors" / "make_contract.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_vectors_are_those_that_their_script_writes() -> None:
    for folder, cases in _script().all_cases().items():
        assert {p.stem: json.loads(p.read_bytes()) for p in (HOME / "vectors" / folder).glob("*.json")} == cases


def _happen(case: dict[str, Any]) -> None:
    match case["operation"]:
        case "verify":
            assert Contract.verify(Envelope.from_json(case["envelope"])).digest == case["digest"]
        case "in force":
            Contract.verify(Envelope.from_json(case["envelope"])).require_in_force(case["at"])
        case "counter":
            counters(Proposal.from_json(case["new"]), Proposal.from_json(case["old"]))
        case kind:
            hear(kind, Envelope.from_json(case["envelope"]), Proposal.from_json(case["proposal"]), case["at"])


@pytest.mark.parametrize("path", [*CONTRACTS, *WITHDRAWALS], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _happen(case)
    assert caught.value.code == case["expect"]


# --- the pages --------------------------------------------------------------------------------------------------------


def test_the_page_shows_a_contract_that_is_one() -> None:
    page = (HOME / "spec" / "contract.md").read_text(encoding="utf-8")
    shown = [json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:]]
    assert wire.encode(shown[0]) == PROPOSAL.encode()
    assert CONTRACT.digest in page
    assert shown[1:] == [json.loads(SAID[kind][0].encode()) for kind in ("withdrawal", "grant", "run")]


def test_the_page_names_every_member_and_every_state() -> None:
    page = (HOME / "spec" / "contract.md").read_text(encoding="utf-8")
    members = set(PROPOSAL.to_json()) | {k for said, _ in SAID.values() for k in json.loads(said.encode())}
    for value in (PROPOSAL.program, ASSETS[0], OUTPUT, PROPOSAL.enclave, PROPOSAL.limits, PAID):
        members |= set(value.to_json())
    assert not {m for m in members if f"`{m}`" not in page}
    assert re.findall(r"^\| \d \| `(\w+)` \|", page, re.MULTILINE) == [
        "withdrawn", "countered", "spent", "expired", "proposed", "active", "approved",
    ]  # fmt: skip
    assert set(re.findall(r"^\| \d \| `(\w+)` \|", page, re.MULTILINE)) == {s.value for s in State}


def test_submitted_code_is_run_by_the_program_that_contracts_mean() -> None:
    assert contract.CODE == code.PROGRAM
