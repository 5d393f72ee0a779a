"""The airlock: nothing leaves that a reviewer did not pass, and what leaves is what was read."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage import Rehearsal, terms
from strongroom import wire
from strongroom.airlock import VERDICT_TYPE, Box, Verdict, padded, unpad
from strongroom.app.cli import airlock as cli
from strongroom.app.cli import parser_of, runs
from strongroom.app.cli.screen import Screen
from strongroom.app.client import airlock
from strongroom.app.client.draft import Wanted
from strongroom.asset import AssetKey, BytesSource, SealedReader
from strongroom.contract import Contract, Limits, Output, Proposal
from strongroom.delivery import Delivery
from strongroom.errors import (
    BadField,
    BadKey,
    BadProposal,
    BadReceipt,
    BadSignature,
    Conflict,
    NotAParty,
    NotFound,
    NotVerified,
    OutputHeld,
    StrongroomError,
    Usage,
)
from strongroom.party import DecryptionKey
from strongroom.policy import Airlock, OutputRule, Policy
from strongroom.receipt import Bundle, verify
from strongroom.wire import Envelope
from world import CANARY, RULE, RUN, Entropy, FakeConfinement, Forger, World, keys_of, report, seed

TRUST = World.trust()


def reviewed(*by: str, reasons: bool = False) -> OutputRule:
    return replace(RULE, recipients=frozenset({"lab"}), release=Airlock(frozenset(by), reasons))


def agreed(rule: OutputRule) -> tuple[World, Contract]:
    policy = Policy(frozenset({"evaluate"}), {"report": rule})
    world = World(terms=dict.fromkeys(("data", "model"), policy))
    return world, world.agree(outputs=(Output("report", "report", rule),), policy=policy, limits=Limits(9, 300, 1 << 30))


def ran(rule: OutputRule, run_id: str = RUN) -> tuple[World, Contract, Bundle, Box]:
    world, contract = agreed(rule)
    bundle = world.run(contract, run_id)
    return world, contract, bundle, world.exchange.boxes[0]


def share(box: Box, name: str) -> bytes:
    return box.read(name, keys_of(name).decryption).share


def verdict(box: Box, name: str, **changes: Any) -> Verdict:
    said = Verdict(box.contract, box.run_id, box.output, box.digest, name, 1, share(box, name))
    return replace(said, **changes)


def check(contract: Contract, box: Box, said: Verdict, by: str | None = None) -> Verdict:
    return Verdict.verify(said.sign(keys_of(by or said.reviewer).signing), contract.proposal, box)


BOTH = reviewed("hospital", "lab")
WORLD, CONTRACT, BUNDLE, BOX = ran(BOTH)


# --- the whole ------------------------------------------------------------------------------------------------------


def test_an_output_waits_in_its_box_and_the_receipt_names_it() -> None:
    (delivered,) = verify(BUNDLE, trust=TRUST).statement.outputs
    assert delivered.box == BOX.digest
    assert WORLD.exchange.delivered == []
    for secret in (CANARY, b"0.9313", share(BOX, "lab"), share(BOX, "hospital")):
        assert secret not in WORLD.exchange.everything


def test_each_reviewer_reads_the_very_output() -> None:
    sealed = WORLD.exchange.outputs[BOX.sealed]
    for name in ("hospital", "lab"):
        key = BOX.read(name, keys_of(name).decryption).key
        with SealedReader(BytesSource(sealed), BOX.manifest, key) as reader:
            file = io.BytesIO(reader.read())
        unpad(file)
        assert json.loads(file.getvalue())["metrics"] == {"accuracy": 0.9313}


@given(data=st.binary(max_size=70_000), more=st.integers(0, 70_000))
def test_what_was_padded_is_cut_to_what_it_was(data: bytes, more: int) -> None:
    size = len(data) + more
    file = io.BytesIO(padded(data, size))
    assert len(file.getvalue()) == size + 1
    unpad(file)
    assert file.getvalue() == data


@pytest.mark.parametrize("wrong", [b"", b"\0", b"\x80x", b"\0" * 70_000, b"x" + b"\0" * 65536])
def test_an_output_that_waited_and_was_not_padded(wrong: bytes) -> None:
    with pytest.raises(BadReceipt, match="where it ends"):
        unpad(io.BytesIO(wrong))


def test_the_length_of_what_nobody_passed_is_told_by_nothing() -> None:
    told = []
    for right in (0, 9_999):
        world, contract = agreed(BOTH)
        wrote = report(records=60 + right)
        bundle = world.run(contract, confinement=FakeConfinement(lambda _inputs, wrote=wrote: {"report": wrote}))
        box = world.exchange.boxes[0]
        told.append((len(world.exchange.outputs[box.sealed]), box.manifest.plaintext_bytes, len(bundle.encode())))
    assert told[0] == told[1]
    assert told[0][1] == BOTH.max_bytes + 1


def test_with_every_share_the_recipient_opens_what_was_read() -> None:
    delivery = BOX.open({name: share(BOX, name) for name in ("hospital", "lab")})
    key = delivery.open("lab", keys_of("lab").decryption)
    assert key == BOX.read("hospital", keys_of("hospital").decryption).key
    with pytest.raises(NotAParty):
        delivery.open("hospital", keys_of("hospital").decryption)


# --- attacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hospital", "lab"])
def test_an_output_cannot_be_opened_before_every_reviewer_passed_it(name: str) -> None:
    with pytest.raises(OutputHeld):
        BOX.open({})
    with pytest.raises(OutputHeld):
        BOX.open({name: share(BOX, name)})
    with pytest.raises(OutputHeld):
        BOX.open({name: share(BOX, name), "press": bytes(32)})


def test_one_share_says_nothing_of_the_key() -> None:
    # with one share given, every other share opens some box: none of them is ruled out but by its digest
    others = {seed(f"share {n}") for n in range(4)}
    for other in others:
        with pytest.raises(BadReceipt, match="not the one"):
            BOX.open({"hospital": share(BOX, "hospital"), "lab": other})


def test_a_recipient_who_is_no_reviewer_reads_nothing() -> None:
    _, _, _, box = ran(reviewed("hospital"))
    with pytest.raises(NotAParty):
        box.read("lab", keys_of("lab").decryption)
    with pytest.raises(BadKey):
        box.read("hospital", keys_of("lab").decryption)


def test_a_copy_for_one_output_run_or_reviewer_is_none_for_another() -> None:
    for other in (
        replace(BOX, run_id=seed("another", 16).hex()),
        replace(BOX, output="other"),
        replace(BOX, contract=wire.digest(b"another")),
        replace(BOX, sealed=wire.digest(b"another")),
        replace(BOX, copies={**BOX.copies, "hospital": BOX.copies["lab"]}),
    ):
        with pytest.raises(BadKey):
            other.read("hospital", keys_of("hospital").decryption)


def test_a_box_that_names_another_share_is_noticed_by_its_reviewer() -> None:
    with pytest.raises(BadReceipt, match="another share"):
        replace(BOX, shares={**BOX.shares, "hospital": wire.digest(b"x")}).read("hospital", keys_of("hospital").decryption)


def test_a_reviewer_cannot_swap_what_is_in_the_box() -> None:
    # a reviewer with both shares makes a box of another delivery: its digest is not the receipt's
    swapped = Box.make(
        Delivery.make(
            contract=BOX.contract,
            run_id=BOX.run_id,
            output=BOX.output,
            sealed=wire.digest(b"another report"),
            manifest=BOX.manifest,
            key=AssetKey(seed("another")),
            recipients={"lab": keys_of("lab").decryption.public},
        ),
        key=AssetKey(seed("another")),
        reviewers={name: keys_of(name).decryption.public for name in ("hospital", "lab")},
        entropy=Entropy("swapped"),
    )
    assert swapped.digest != BOX.digest
    with pytest.raises(BadField, match="another box"):
        check(CONTRACT, BOX, verdict(swapped, "hospital"))
    with pytest.raises(BadReceipt):
        replace(BOX, locked=swapped.locked).open({name: share(BOX, name) for name in ("hospital", "lab")})


def test_a_delivery_of_another_run_in_a_box_is_refused() -> None:
    inner = BOX.open({name: share(BOX, name) for name in ("hospital", "lab")})
    made = Box.make(
        inner, key=AssetKey(seed("k")), reviewers={"lab": keys_of("lab").decryption.public}, entropy=Entropy("x")
    )
    other = replace(made, run_id=seed("another", 16).hex())
    with pytest.raises(BadReceipt):
        other.open({"lab": share(made, "lab")})


def test_a_box_without_reviewers_cannot_be_made() -> None:
    inner = BOX.open({name: share(BOX, name) for name in ("hospital", "lab")})
    with pytest.raises(NotAParty):
        Box.make(inner, key=AssetKey(seed("k")), reviewers={}, entropy=Entropy("x"))


def test_a_pass_by_somebody_else_is_none() -> None:
    _, contract, _, box = ran(reviewed("hospital"))
    said = verdict(box, "hospital")
    assert check(contract, box, said) == said
    with pytest.raises(NotAParty):
        check(contract, box, replace(said, reviewer="lab"))
    with pytest.raises(BadSignature):
        check(contract, box, said, by="lab")
    with pytest.raises(NotAParty):
        check(contract, box, replace(said, reviewer="press"), by="hospital")
    with pytest.raises(NotAParty):
        check(contract, box, replace(said, output="other"))


def test_a_pass_is_of_one_box_and_run() -> None:
    world, contract = agreed(reviewed("hospital"))
    for n in range(2):
        world.run(contract, seed(f"run {n}", 16).hex())
    first, second = world.exchange.boxes
    replayed = verdict(first, "hospital")
    with pytest.raises(BadField, match="another run"):
        check(contract, second, replayed)
    with pytest.raises(BadField, match="another box"):
        check(contract, second, replace(replayed, run_id=second.run_id))
    with pytest.raises(BadField, match="share"):
        check(contract, second, replace(replayed, run_id=second.run_id, box=second.digest))


def test_a_pass_of_another_contract_is_none() -> None:
    _, other, _, box = ran(reviewed("hospital", reasons=True))
    with pytest.raises(BadField):
        check(CONTRACT, BOX, replace(verdict(box, "hospital"), run_id=BOX.run_id))
    assert other.digest != CONTRACT.digest


def test_a_pass_without_the_right_share_is_none() -> None:
    with pytest.raises(BadField, match="share"):
        check(CONTRACT, BOX, verdict(BOX, "hospital", share=bytes(32)))


def test_a_reason_is_told_only_where_the_rule_lets_it() -> None:
    refusal = verdict(BOX, "hospital", share=None)
    assert not check(CONTRACT, BOX, refusal).passed
    with pytest.raises(BadField, match="reason"):
        check(CONTRACT, BOX, replace(refusal, reason="a village of four"))
    _, contract, _, box = ran(reviewed("hospital", reasons=True))
    told = verdict(box, "hospital", share=None, reason="a village of four")
    assert check(contract, box, told).reason == "a village of four"
    with pytest.raises(BadField, match="reason"):
        check(contract, box, verdict(box, "hospital", reason="with a pass"))


@pytest.mark.parametrize("box", [None, wire.digest(b"box")])
def test_a_receipt_that_skips_the_airlock_does_not_verify(box: str | None) -> None:
    world, contract = agreed(BOTH if box is None else replace(RULE, recipients=frozenset({"lab"})))
    forger = Forger.at_work(world, contract)
    forger.statement = replace(forger.statement, outputs=tuple(replace(d, box=box) for d in forger.statement.outputs))
    with pytest.raises(NotVerified, match="V11"):
        verify(forger.bundle(), trust=TRUST)


def test_a_reviewer_who_is_no_party_cannot_be_named() -> None:
    rule = reviewed("press")
    with pytest.raises(BadProposal, match="press"):
        World().proposal(outputs=(Output("r", "report", rule),), policy=Policy(frozenset({"evaluate"}), {"report": rule}))


# --- wire forms -----------------------------------------------------------------------------------------------------


def test_round_trips() -> None:
    assert Box.parse(BOX.encode()) == BOX
    said = verdict(BOX, "hospital")
    assert Verdict.peek(said.sign(keys_of("hospital").signing)) == said


@given(st.data())
def test_malleability_every_change_of_a_box_is_refused_or_another_box(data: st.DataObject) -> None:
    encoded = bytearray(BOX.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Box.parse(bytes(encoded))
    except StrongroomError:
        return
    assert found.digest != BOX.digest
    assert found.encode() == bytes(encoded)


@pytest.mark.parametrize(
    "changes",
    [
        {"copies": {}, "shares": {}},
        {"shares": {"lab": wire.digest(b"x")}},
        {"copies": []},
        {"purpose": "strongroom.airlock.v2"},
        {"more": 1},
    ],
)
def test_a_box_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    value: Any = wire.decode(BOX.encode())
    with pytest.raises(StrongroomError):
        Box.parse(wire.encode({**value, **changes}))


@pytest.mark.parametrize("changes", [{"share": wire.b64(bytes(31))}, {"share": 1}, {"reason": "x" * 401}, {"more": 1}])
def test_a_verdict_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    value: Any = wire.decode(verdict(BOX, "hospital").encode())
    with pytest.raises(StrongroomError):
        Verdict.peek(keys_of("hospital").signing.sign(VERDICT_TYPE, wire.encode({**value, **changes})))


# --- parties at work ------------------------------------------------------------------------------------------------

LOCK = Airlock(frozenset({"hospital"}), reasons=True)


def wanted(*by: str, reasons: bool = True) -> dict[str, Wanted]:
    return {"report": Wanted(("lab",), release=Airlock(frozenset(by), reasons))}


def test_what_a_reviewer_passed_reaches_its_recipient(rehearsal: Rehearsal) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital"))
    rehearsal.run(contract)
    assert rehearsal.lab.outputs(contract) == []
    assert airlock.waiting(rehearsal.lab) == []
    (held,) = airlock.waiting(rehearsal.hospital)
    assert held.state == "waits for hospital"
    read = airlock.read(rehearsal.hospital, held)
    assert airlock.let_pass(rehearsal.hospital, airlock.find(rehearsal.hospital, held.box.digest[:15])).passed
    (opened,) = rehearsal.lab.outputs(contract)
    assert opened.path.read_bytes() == read.read_bytes()
    assert airlock.waiting(rehearsal.hospital) == []
    assert airlock.boxes(rehearsal.lab, contract)[0].state == "passed"
    with pytest.raises(Conflict):
        airlock.refuse(rehearsal.hospital, airlock.boxes(rehearsal.hospital, contract)[0], "too late")
    assert "verdict" in [entry.kind for entry in rehearsal.lab.ledger()[1]]


@pytest.mark.parametrize("reasons", [True, False])
def test_what_a_reviewer_refused_is_never_opened(rehearsal: Rehearsal, reasons: bool) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital", reasons=reasons))
    rehearsal.run(contract)
    (held,) = airlock.waiting(rehearsal.hospital)
    with pytest.raises(Usage):
        airlock.refuse(rehearsal.hospital, held, "")
    airlock.refuse(rehearsal.hospital, held, "a village of four")
    assert rehearsal.lab.outputs(contract) == []
    told = airlock.boxes(rehearsal.lab, contract)[0].state
    assert told == ("refused by hospital (a village of four)" if reasons else "refused by hospital")
    kept = list(rehearsal.hospital.home.place("reviews").glob("*.json"))
    assert "a village of four" in kept[0].read_text()
    with pytest.raises(NotFound):
        airlock.find(rehearsal.hospital, held.box.digest)


def test_all_reviewers_are_needed(rehearsal: Rehearsal) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital", "lab"))
    rehearsal.run(contract)
    airlock.let_pass(rehearsal.hospital, airlock.waiting(rehearsal.hospital)[0])
    assert rehearsal.lab.outputs(contract) == []
    airlock.let_pass(rehearsal.lab, airlock.waiting(rehearsal.lab)[0])
    assert len(rehearsal.lab.outputs(contract)) == 1


def test_an_exchange_that_lies_about_the_airlock_is_noticed(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital"))
    rehearsal.run(contract)
    ((box, _),) = rehearsal.lab.exchange.boxes(contract)
    forged = replace(verdict_of(rehearsal, box), reviewer="hospital").sign(rehearsal.lab.home.keys.signing)

    def shows(*what: Any) -> None:
        monkeypatch.setattr(rehearsal.lab.exchange, "boxes", lambda _contract: list(what))

    shows((box, (forged,)))  # a pass that the recipient made itself
    assert rehearsal.lab.outputs(contract) == []
    shows()
    with pytest.raises(NotFound):
        rehearsal.lab.outputs(contract)
    shows((replace(box, output="other"), ()))
    with pytest.raises(NotFound):
        rehearsal.lab.outputs(contract)


def test_one_box_that_an_exchange_hides_keeps_no_other_from_its_reviewer(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital"), runs=2)
    rehearsal.run(contract)
    exchange = rehearsal.hospital.exchange
    (hidden,) = exchange.boxes(contract)
    rehearsal.run(contract)
    others = [pair for pair in exchange.boxes(contract) if pair != hidden]
    monkeypatch.setattr(exchange, "boxes", lambda _digest: others)
    told: list[tuple[str, str]] = []
    (held,) = airlock.waiting(rehearsal.hospital, lambda digest, error: told.append((digest, error.code)))
    assert held.box == others[0][0]
    assert told == [(contract, NotFound.code)]
    assert airlock.find(rehearsal.hospital, held.box.digest).box == held.box
    with pytest.raises(NotFound):
        airlock.boxes(rehearsal.hospital, contract)


def verdict_of(rehearsal: Rehearsal, box: Box) -> Verdict:
    reading = box.read("hospital", rehearsal.hospital.home.keys.decryption)
    return Verdict(box.contract, box.run_id, box.output, box.digest, "hospital", 1, reading.share)


def test_an_exchange_takes_no_box_and_no_verdict_but_the_ones_that_it_should(rehearsal: Rehearsal) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital"))
    rehearsal.run(contract)
    exchange = rehearsal.lab.exchange
    ((box, _),) = exchange.boxes(contract)
    with pytest.raises(BadField):
        exchange.put_box(replace(box, locked=bytes(100)))
    with pytest.raises(NotFound):
        exchange.put_box(replace(box, sealed=wire.digest(b"nothing")))
    exchange.put_box(box)  # again: kept once
    said = verdict_of(rehearsal, box)
    with pytest.raises(BadSignature):
        exchange.put_verdict(said.sign(rehearsal.lab.home.keys.signing))
    with pytest.raises(NotFound):
        exchange.put_verdict(replace(said, box=wire.digest(b"x")).sign(rehearsal.hospital.home.keys.signing))
    envelope = said.sign(rehearsal.hospital.home.keys.signing)
    exchange.put_verdict(envelope)
    exchange.put_verdict(envelope)
    with pytest.raises(Conflict):
        exchange.put_verdict(replace(said, share=None).sign(rehearsal.hospital.home.keys.signing))
    delivery = box.open({"hospital": said.share or b""})
    with pytest.raises(BadField):  # what must pass an airlock is taken in no other form
        exchange.deliver(delivery)


def test_the_verbs(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    contract = rehearsal.agree(outputs=wanted("hospital"), runs=2)

    def say(verb: str, *words: str) -> dict[str, Any]:
        args = parser_of(verb).parse_args([*words, "--json"])
        at_work = {"hospital": rehearsal.hospital, "lab": rehearsal.lab}[args.party]
        for module in (cli, runs):
            monkeypatch.setattr(module, "room", lambda _args: at_work)
        assert args.run(args, Screen(as_json=True)) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert say("airlock", "list", "--as", "hospital") == {"unseen": [], "waiting": []}
    rehearsal.run(contract)
    rehearsal.run(contract)
    one, other = (held["box"] for held in say("airlock", "list", "--as", "hospital")["waiting"])
    assert Path(say("airlock", "read", one, "--as", "hospital")["path"]).is_file()
    assert say("airlock", "pass", one, "--as", "hospital")["passed"] is True
    assert say("airlock", "refuse", other, "--reason", "no", "--as", "hospital")["passed"] is False
    told = say("outputs", contract, "--as", "lab")
    assert [o["name"] for o in told["outputs"]] == ["report"]
    assert told["held"] == [{"name": "report", "state": "refused by hospital (no)"}]
    args = parser_of("airlock").parse_args(["refuse", one, "--as", "hospital"])
    with pytest.raises(Usage):
        args.run(args, Screen(as_json=True))


def test_terms_that_ask_for_review_refuse_a_contract_without(rehearsal: Rehearsal) -> None:
    locked = terms()
    rules = {kind: replace(rule, release=LOCK) for kind, rule in locked.outputs.items()}
    strict = Policy(locked.uses, rules)
    assert not strict.permits(locked)
    assert locked.permits(strict)


# --- vectors --------------------------------------------------------------------------------------------------------

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "airlock").glob("*.json"))  # written by make_airlock.py


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 25


def _happen(case: dict[str, Any]) -> None:
    box = Box.parse(wire.encode(case["box"]))
    match case["operation"]:
        case "read":
            found = box.read(case["reviewer"], DecryptionKey.from_seed(bytes.fromhex(case["seed"])))
            assert (found.key.raw.hex(), found.share.hex()) == (case["key"], case["share"])
        case "open":
            opened = box.open({name: bytes.fromhex(s) for name, s in case["shares"].items()})
            assert wire.digest(opened.encode()) == case["delivery"]
        case "verdict":
            envelope = Envelope.parse(wire.encode(case["verdict"]))
            assert Verdict.verify(envelope, Proposal.from_json(case["proposal"]), box).passed == case["passed"]


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _happen(case)
    assert caught.value.code == case["expect"]


def test_the_page_shows_a_verdict_and_a_box_that_are_some() -> None:
    page = (Path(__file__).parents[1] / "spec" / "airlock.md").read_text(encoding="utf-8")
    (shown,) = (json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:])
    case = json.loads((VECTORS[0].parent / "verdict-refused.json").read_bytes())
    assert shown == json.loads(wire.unb64(case["verdict"]["payload"]))
    for member in {*shown, *case["box"]}:
        assert f"`{member}`" in page
