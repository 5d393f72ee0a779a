"""Inference receipts: twenty checks, each failed alone by an attack; and what each reader may rely on."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_case import APPRAISED, GOOD, M, look
from strongroom import wire
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Endorsements, Evidence
from strongroom.attest.keyset import Keyset
from strongroom.attest.vector import Tier
from strongroom.checkpoint import LogVerifier
from strongroom.errors import BadInferenceReceipt, InferenceNotVerified, leaves
from strongroom.inference import events, guard
from strongroom.inference.events import ModelWeights, Observability, Usage
from strongroom.inference.expected import Agreed, Answered, Asked, Expected
from strongroom.inference.guard import Guard, Stage
from strongroom.inference.near import chat_signature
from strongroom.inference.reading import CHECKS, GATE
from strongroom.inference.verification import STEPS, Reader, Verification, VerifiedReceipt, examine
from strongroom.ledger import LoggedProof
from strongroom.transcript import Status, Transcript

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "vectors" / "inference_receipt"
PAGE = (ROOT / "spec" / "inference-receipt.md").read_text(encoding="utf-8")
CASES = sorted(FOLDER.glob("*.json"))


# --- vectors --------------------------------------------------------------------------------------------------------


def known(value: dict[str, Any]) -> Expected:
    """What a reader knows, from a case."""
    asked, answered, agreed = value["asked"], value["answered"], value["agreed"]
    if answered is not None and answered["usage"] is not None:
        tokens = answered["usage"]
        usage = Usage(tokens["prompt_tokens"], tokens["completion_tokens"], tokens["embedding_tokens"])
        answered = {**answered, "usage": usage}
    if agreed is not None:
        guards = tuple(Guard(g["name"], g["program"], Stage(g["stage"])) for g in agreed["guards"])
        terms = {
            "guards": guards,
            "observability": Observability(agreed["observability"]),
            "padding": tuple(agreed["padding"]),
        }
        agreed = {**agreed, **terms}
    return Expected(
        asked=Asked(**asked) if asked else None,
        answered=Answered(**answered) if answered else None,
        agreed=Agreed(**agreed) if agreed else None,
        receipt_id=value["receipt_id"],
    )


def test_there_are_vectors_and_they_are_those_that_their_script_writes() -> None:
    assert len(CASES) > 90
    assert {path.name: path.read_text(encoding="utf-8") for path in CASES} == M.written()["inference_receipt"]


def test_every_check_has_a_vector_that_fails_it() -> None:
    failed = {path.name.split("-")[0].upper() for path in CASES if not path.name.startswith("ok-")}
    assert failed == {number for number, _ in STEPS}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    question = case["appraisal"]
    appraisal = question and appraise(
        Evidence.from_json(question["evidence"]),
        policy=AppraisalPolicy.from_json(question["policy"]),
        endorsements=Endorsements.from_json(question["endorsements"]),
        nonce=bytes.fromhex(question["nonce"]),
        at=question["at"],
        keyset=Keyset.from_json(question["keyset"]),
    )
    expected, bodies = known(case["expected"]), case["bodies"]
    if expected.asked:
        assert expected.asked.body == wire.digest(wire.unb64(bodies["request"]))
    if expected.answered:
        assert expected.answered.body == wire.digest(wire.unb64(bodies["response"]))
        plain = bodies["restored"]
        assert expected.answered.restored == (plain if plain is None else wire.digest(wire.unb64(plain)))
    found = examine(
        case["receipt"].encode(),
        appraisal=appraisal,
        expected=expected,
        at=case["at"],
        proof=LoggedProof.from_json(case["proof"]) if case["proof"] else None,
        logs=[LogVerifier.from_vkey(vkey) for vkey in case["logs"]],
    )
    reader = Reader[case["reader"].upper()]
    checks = {check.number: check for check in found.transcript.checks}
    if case["expect"] == "ok":
        verified = found.require(reader)
        assert found.problem(reader) is None
        assert (verified.receipt.encode(), verified.reader) == (case["receipt"].encode(), reader)
        assert verified.label == "platform: simulated (no hardware protection)"
        assert (verified.checkpoint is None) is (case["proof"] is None)
        assert all(checks[number].status is Status.PASSED for number in reader.value)
        return
    with pytest.raises(InferenceNotVerified, match=f"^{case['number']} .*{case['status']}; ") as caught:
        found.require(reader)
    assert caught.value.reason == case["expect"]
    problem = found.problem(reader)
    assert problem is not None
    assert (problem.number, problem.status.value, problem.code) == (case["number"], case["status"], case["expect"])
    order = [number for number, _ in STEPS]
    if order.index(case["number"]) < GATE:  # nobody is known to have said the rest
        assert {checks[number].status for number in order[order.index(case["number"]) + 1 :]} <= {Status.NOT_ESTABLISHED}


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_checks_are_those_of_the_specification() -> None:
    rows = re.findall(r"^\| (I\d+) \| ([^|]+?) \| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \|", PAGE, re.MULTILINE)
    assert [(number, name) for number, name, *_ in rows] == list(STEPS)
    for number, _, client, owner, codes in rows:
        assert (client != "", owner != "") == (number in Reader.CLIENT.value, number in Reader.OWNER.value)
        kind = CHECKS[int(number[1:]) - 1][1]
        assert f"`{kind.code}`" in codes
    assert {number for number, _ in STEPS} == Reader.AUDITOR.value


def test_the_codes_of_the_vectors_are_on_the_page() -> None:
    for path in CASES:
        case = json.loads(path.read_bytes())
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| {case['number']} |")), "")
        noun = case["expect"].split(".")[0]
        assert case["expect"] == "ok" or f"`{case['expect']}`" in row or f"`{noun}.…`" in row, path.name


def test_every_event_is_on_the_page_with_its_members() -> None:
    rows = re.findall(r'^\| `"([a-z.]+)"` \| ([^|]+) \|', PAGE, re.MULTILINE)
    assert [kind for kind, _ in rows] == list(events.ORDER)
    members = {kind: set(re.findall(r"`(\w+)`", told)) for kind, told in rows}
    for event in (*M.SERVED, *M.REFUSED):
        assert set(event.to_json()) - {"type"} == members[event.TYPE]
    for enumeration in (Observability, guard.Stage, guard.Decision):
        for member in enumeration:
            assert f"`{member.value}`" in PAGE


def test_the_examples_are_what_is_made() -> None:
    case = json.loads((FOLDER / "ok-plain.json").read_bytes())
    assert json.dumps(json.loads(case["receipt"]), indent=2) in PAGE
    assert json.dumps(chat_signature(GOOD, keyset=M.KEYSET, key=M.CHAT_KEY), indent=2) in PAGE


# --- one maker ------------------------------------------------------------------------------------------------------


def test_only_examine_and_require_make_what_is_relied_on() -> None:
    transcript = Transcript(STEPS)
    with pytest.raises(TypeError, match="only examine"):
        Verification(transcript, GOOD, "", None, object())
    with pytest.raises(TypeError, match=r"only Verification\.require"):
        VerifiedReceipt(GOOD, Reader.CLIENT, "", transcript, None, object())
    verified = look().require(Reader.CLIENT)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(verified, receipt=GOOD)


@pytest.mark.parametrize("data", [b"", GOOD.encode()])
def test_nobody_adds_to_a_transcript_afterwards(data: bytes) -> None:
    found = look(data, appraisal=None)
    for number, _ in STEPS:
        with pytest.raises(ValueError, match="set twice"):
            found.transcript.record(number, passed=True)


# --- readers --------------------------------------------------------------------------------------------------------


def test_what_a_reader_does_not_know_is_not_established_and_nobody_relies_on_it() -> None:
    found = look(expected=Expected())
    status = {check.number: check.status for check in found.transcript.checks}
    of_the_receipt_alone = {f"I{n}" for n in (1, 2, 3, 4, 5, 6, 11, 16)}
    assert {number for number, seen in status.items() if seen is Status.PASSED} == of_the_receipt_alone
    assert Status.FAILED not in status.values()
    for reader in Reader:
        with pytest.raises(InferenceNotVerified):
            found.require(reader)


def test_nothing_is_said_of_a_receipt_that_nobody_attested() -> None:
    found = look(appraisal=None)
    assert [c.status for c in found.transcript.checks] == [Status.PASSED] + [Status.NOT_ESTABLISHED] * 19
    assert found.label == "platform: not established"


def test_an_appraisal_that_establishes_nothing_fails_nothing() -> None:
    world = M.evidence()
    appraisal = appraise(**{**world.question(), "endorsements": Endorsements()})
    assert appraisal.status in (Tier.CONTRAINDICATED, Tier.NONE)
    expected = Status.NOT_ESTABLISHED if appraisal.status is Tier.NONE else Status.FAILED
    assert look(appraisal=appraisal).transcript.checks[1].status is expected


def test_an_appraisal_that_could_not_be_finished_leaves_the_keyset_not_established() -> None:
    class Unfinished:
        status = Tier.NONE
        label = "platform: simulated (no hardware protection)"

    check = look(appraisal=Unfinished()).transcript.checks[1]  # type: ignore[arg-type]
    assert (check.status, check.code) == (Status.NOT_ESTABLISHED, "inference.other_keyset")


def test_no_reader_relies_on_less_than_whose_word_it_is_and_what_was_used() -> None:
    common = {*(f"I{n}" for n in range(1, 7)), "I11", "I13", "I14", "I15", "I16"}
    for reader in Reader:
        assert common <= reader.value


def test_times_are_seconds_on_the_edge() -> None:
    until = APPRAISED.valid_until
    assert look(M.sign(served_at=until).encode(), at=until).transcript.checks[4].status is Status.PASSED
    assert look(M.sign(served_at=M.AT + 361).encode(), at=M.AT + 61).transcript.checks[4].status is Status.PASSED
    earliest = replace(M.KNOWN, asked=M.BODIES.asked(sent_at=M.AT + 360))
    assert look(expected=earliest).transcript.checks[6].status is Status.PASSED


def test_a_contract_with_guards_that_no_policy_can_name_is_refused() -> None:
    with pytest.raises(BadInferenceReceipt):
        replace(M.AGREED, guards=(M.LEAK, M.PII))
    with pytest.raises(BadInferenceReceipt):
        replace(M.AGREED, guards=(M.PII, M.PII))
    with pytest.raises(BadInferenceReceipt):
        replace(M.AGREED, padding=(1,))


def test_logged_under_no_known_contract_is_not_established() -> None:
    refusal = M.sign(M.REFUSED, chat_id=None)
    found = look(
        refusal.encode(),
        expected=replace(M.KNOWN_DENIED, agreed=None),
        proof=M.prove(refusal),
        logs=[M.LOG.verifier],
    )
    assert found.transcript.checks[-1].status is Status.NOT_ESTABLISHED


# --- laws -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.data())
def test_no_altered_byte_of_a_receipt_is_relied_on(data: st.DataObject) -> None:
    encoded = bytearray(GOOD.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InferenceNotVerified):
        look(bytes(encoded)).require(Reader.CLIENT)


@given(st.binary(max_size=300))
def test_bytes_of_anybody_raise_nothing_and_are_relied_on_by_nobody(anything: bytes) -> None:
    found = look(anything)
    assert {check.code for check in found.transcript.checks if check.status is Status.FAILED} <= set(leaves())
    with pytest.raises(InferenceNotVerified, match=r"^I1 "):
        found.require(Reader.CLIENT)


KINDS = list(M.SERVED)


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*KINDS, *M.REFUSED, ModelWeights("a", *[M.of("x")] * 3)]), min_size=1, max_size=9))
def test_of_all_logs_of_these_events_only_the_true_one_is_an_answer(log: list[Any]) -> None:
    found = look(M.sign(tuple(log)).encode())
    if tuple(log) == M.SERVED:
        found.require(Reader.CLIENT)
    else:
        with pytest.raises(InferenceNotVerified):
            found.require(Reader.CLIENT)


@pytest.mark.parametrize("member", ["asked", "answered", "agreed", "receipt_id"])
def test_nothing_that_a_client_does_not_know_passes_unseen(member: str) -> None:
    with pytest.raises(InferenceNotVerified, match="not established"):
        look(expected=replace(M.KNOWN, **{member: None})).require(Reader.CLIENT)
