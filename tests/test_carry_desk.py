"""Carrying out and in: what goes, in which order it comes, and what is left where something breaks off."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carry_case import EVERY, Gap, gap
from stage import RECORD_CANARY, ROOT, call, leaks
from strongroom import wire
from strongroom.app.cli import parser_of
from strongroom.app.client import airlock
from strongroom.app.client.carry import Desk, Wish, carry_in, carry_out
from strongroom.app.client.carry import coming as coming_in
from strongroom.app.client.draft import Wanted
from strongroom.app.client.home import Home
from strongroom.app.client.inbox import Inbox
from strongroom.app.client.room import Room
from strongroom.app.stores.carry import CarryRecord
from strongroom.asset import FileSource
from strongroom.carry import Item, Kind, Lets, Peer, Place, open_body, read, write
from strongroom.carry import verify as verify_carried
from strongroom.contract import State
from strongroom.errors import (
    BadField,
    CarriedAgain,
    CarriedAltered,
    CarriedElsewhere,
    CarriedFromStranger,
    CarriedOutOfOrder,
    CarriedTooLarge,
    CarriedWrongWay,
    CarryError,
    Conflict,
    Inconsistent,
    NoCarryPolicy,
    NotFound,
    NothingToCarry,
    Unreachable,
    Usage,
)
from strongroom.policy import Airlock
from strongroom.receipt import Bundle, verify
from strongroom.review import Kind as NoteKind
from strongroom.trust import Trust
from world import Entropy, card, keys_of

QUESTIONS = (Kind.APPROVAL, Kind.CODE, Kind.NOTE, Kind.PROPOSAL, Kind.WITHDRAWAL)


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Gap]:
    found = gap(tmp_path)
    yield found
    found.close()


def kinds(items: Any) -> dict[str, int]:
    return dict(Counter(item.kind.value for item in items))


# --- the way there and back -------------------------------------------------------------------------------------------


def test_there_and_back(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    up = between.over(between.low)
    assert up.refused == ()
    assert {"proposal": 1, "ledger": 1}.items() <= kinds(up.landed).items()
    view = between.high.room.view(digest)
    assert (view.state, view.history.approved_by) == (State.PROPOSED, {"lab"})
    between.high.room.approve(digest)
    bundle = between.high.run(digest)
    down = between.out(between.high)
    assert {"approval": 1, "output": 1, "receipt": 1, "delivery": 1}.items() <= kinds(down.carriage.items).items()
    arrived = between.into(between.low, down.path)
    assert arrived.refused == ()
    (opened,) = between.low.room.outputs(digest)
    assert json.loads(opened.path.read_bytes())
    (kept,) = [path for path in arrived.files if path.name.startswith("receipt-")]
    carried = Bundle.parse(kept.read_bytes())
    assert carried.receipt == bundle.receipt
    assert carried.proof is not None
    assert carried.proof.checkpoint.origin == "log.high.example"
    assert verify(carried, trust=between.low.room.trust).statement.contract == digest
    assert leaks({"a record": RECORD_CANARY}, between.drive, between.low.folder) == []


def test_a_later_head_of_the_log_is_held_against_the_one_before(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    Inbox(between.high.room).say(digest, NoteKind.COMMENT, "Why?")
    first = between.over(between.high)
    assert [how for _, _, how in first.heads] == ["the first head seen"]
    between.high.room.approve(digest)
    second = between.over(between.high)
    assert [how for _, _, how in second.heads] == ["consistent with the head seen last"]
    assert second.heads[0][1] > first.heads[0][1]
    assert between.low.room.home.last_seen("log.high.example").size == second.heads[0][1]


def test_a_log_with_another_history_is_noticed_across_the_gap(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    between.high.room.approve(digest)
    between.over(between.high)
    seen = between.low.room.home.last_seen("log.high.example")
    other = replace(seen.checkpoint, root=bytes(32))
    forged = between.high.log.sign(seen.size, other.root)
    between.low.room.home.save_seen(between.high.log.verifier.verify(forged))
    between.high.room.withdraw(digest)
    bundle = between.out(between.high).path
    with pytest.raises(Inconsistent):
        between.into(between.low, bundle)
    assert between.low.room.view(digest).state is not State.WITHDRAWN
    assert max(between.low.desk.record.taken("high")) == 2


def test_a_head_without_a_proof_is_said_to_be_unproven(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    between.high.room.approve(digest)
    between.over(between.high)
    between.high.desk.close()
    (between.high.place.folder / "carry.db").unlink()
    between.high.room.withdraw(digest)
    arrived = between.over(between.high, above=2)
    assert "NOT followed" in arrived.heads[0][2]
    assert between.low.room.view(digest).state is State.WITHDRAWN


def test_a_withdrawal_a_note_and_a_counter_cross(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    Inbox(between.high.room).say(digest, NoteKind.ASK, "Two decimals, please.")
    between.high.room.withdraw(digest, "not now")
    arrived = between.over(between.high)
    assert {"note": 1, "withdrawal": 1}.items() <= kinds(arrived.landed).items()
    assert between.low.room.view(digest).state is State.WITHDRAWN
    assert len(between.low.room.exchange.notes(digest)) == 1


def test_a_boxed_output_and_its_verdict_cross(between: Gap) -> None:
    between.offered()
    released = Wanted(("lab",), release=Airlock(frozenset({"hospital"})))
    digest = between.proposed(outputs={"report": released})
    between.over(between.low)
    between.high.room.approve(digest)
    between.high.run(digest)
    waits = between.over(between.high)
    assert {"box": 1, "output": 1}.items() <= kinds(waits.landed).items()
    assert between.low.room.outputs(digest) == []
    airlock.let_pass(between.high.room, airlock.waiting(between.high.room)[0])
    passed = between.over(between.high)
    assert kinds(passed.landed) == {"verdict": 1, "ledger": 1}
    assert len(between.low.room.outputs(digest)) == 1


def test_an_output_for_the_high_side_alone_stays_there(between: Gap) -> None:
    between.offered()
    digest = between.proposed(outputs={"report": Wanted(("hospital",))})
    between.over(between.low)
    between.high.room.approve(digest)
    between.high.run(digest)
    down = between.out(between.high)
    assert {"output", "delivery"}.isdisjoint(kinds(down.carriage.items))


def test_what_concerns_nobody_there_is_not_carried(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    site = between.low.desk.site.peers[0]
    between.low.desk.allow(replace(site, parties=("somebody",)), None)
    trust = between.low.room.trust
    card = replace(between.high.room.home.card, name="somebody")
    between.low.room.home.save_trust(trust.pin(card))
    with pytest.raises(NothingToCarry):
        between.out(between.low)
    with pytest.raises(NotFound):
        between.out(between.low, contracts=(digest,))


def test_only_one_contract_on_request(between: Gap) -> None:
    between.offered()
    first, second = between.proposed(), between.proposed(title="Another")
    written = between.out(between.low, contracts=(second,))
    between.into(between.high, written.path)
    assert between.high.room.view(second).state is State.PROPOSED
    with pytest.raises(NotFound):
        between.high.room.view(first)
    between.over(between.low)
    assert between.high.room.view(first).state is State.PROPOSED


def test_a_card_is_a_file_and_no_pin(between: Gap) -> None:
    card = between.high.room.home.folder / "party.json"
    arrived = between.over(between.high, cards=(card,))
    (path,) = arrived.files
    assert path.read_bytes() == card.read_bytes()
    assert path.parent == between.low.place.folder / "carried" / "high" / "1"
    assert path.stat().st_mode & 0o111 == 0


def test_a_party_that_carries_for_others(between: Gap) -> None:
    """A desk of its own on the low side, which no proposal names: it alone signs and opens there."""
    between.offered()
    low, high = between.low, between.high
    low.place.create("desk", host="127.0.0.1", port=2)
    home = low.place.party("desk")
    for card_of in (low.room.home.card, high.room.home.card):
        home.save_trust(home.trust.pin(card_of))
    desk = Room(home, exchange="http://exchange", enclave="http://enclave")
    desk.exchange = low.room.exchange
    high.room.home.save_trust(high.room.trust.pin(home.card))
    high.desk.allow(Peer("low", ("lab",), ("desk",), EVERY, EVERY), None)
    digest = between.proposed()
    with pytest.raises(CarriedFromStranger):
        between.into(high, between.out(low).path)
    path = between.drive / "desk.carry"
    between.into(high, carry_out(desk, low.desk, site="high", path=path, wish=Wish(lost=1)).path)
    high.room.approve(digest)
    high.run(digest)
    down = between.out(high)
    assert down.carriage.recipient.party == "desk"
    with pytest.raises(CarriedElsewhere):
        between.into(low, down.path)
    assert carry_in(desk, low.desk, down.path).refused == ()
    assert len(low.room.outputs(digest)) == 1
    desk.home.close()


# --- what goes once, and what goes again --------------------------------------------------------------------------------


def test_what_is_there_is_not_carried_again(between: Gap) -> None:
    between.offered()
    between.proposed()
    between.over(between.low)
    with pytest.raises(NothingToCarry):
        between.out(between.low)
    with pytest.raises(NothingToCarry):
        between.out(between.high)  # nor back to where it came from


def test_a_lost_bundle_is_told_by_its_sender(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    lost = between.out(between.low)
    later = between.proposed(title="Another")
    second = between.out(between.low)
    with pytest.raises(CarriedOutOfOrder):
        between.into(between.high, second.path)
    again = between.out(between.low, lost=lost.carriage.number)
    assert (again.carriage.number, again.carriage.follows) == (3, 0)
    between.into(between.high, again.path)
    assert {view.proposal.digest for view in between.high.room.views()} == {digest, later}
    for late in (lost, second):
        with pytest.raises(CarriedOutOfOrder):
            between.into(between.high, late.path)
    with pytest.raises(BadField):
        between.out(between.low, lost=9)


def test_a_record_that_was_lost_is_counted_on(between: Gap) -> None:
    between.offered()
    between.proposed()
    between.over(between.low)
    between.low.desk.close()
    (between.low.place.folder / "carry.db").unlink()
    with pytest.raises(CarriedAgain):
        between.into(between.high, between.out(between.low).path)
    assert between.over(between.low, lost=1, above=7).carriage.number == 8


def test_a_number_whose_file_was_never_finished_is_left_out(between: Gap, monkeypatch: pytest.MonkeyPatch) -> None:
    between.offered()
    between.proposed()
    monkeypatch.setattr("strongroom.app.client.carry.going.write", _broken)
    with pytest.raises(NotFound):
        between.out(between.low)
    monkeypatch.undo()
    assert list(between.drive.glob(".*")) == []
    written = between.out(between.low)
    assert (written.carriage.number, written.carriage.follows) == (2, 0)
    between.into(between.high, written.path)


def _broken(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


def test_two_who_carry_out_at_once(between: Gap, monkeypatch: pytest.MonkeyPatch) -> None:
    between.offered()
    between.proposed()
    from strongroom.app.client.carry import going

    honest = going.write

    def meanwhile(*args: Any, **named: Any) -> Any:
        monkeypatch.undo()
        between.out(between.low, name="first.carry")
        return honest(*args, **named)

    monkeypatch.setattr(going, "write", meanwhile)
    with pytest.raises(Conflict):
        between.out(between.low, name="second.carry")
    assert [path.name for path in between.drive.glob("*.carry")].count("second.carry") == 0
    between.into(between.high, between.drive / "first.carry")


def test_a_bundle_that_was_broken_off_is_taken_in_again(between: Gap, monkeypatch: pytest.MonkeyPatch) -> None:
    between.offered()
    digest = between.proposed()
    path = between.out(between.low).path
    monkeypatch.setattr(between.high.room.exchange, "propose", _away)
    with pytest.raises(Unreachable):
        between.into(between.high, path)
    monkeypatch.undo()
    between.into(between.high, path)
    assert between.high.room.view(digest).state is State.PROPOSED
    with pytest.raises(CarriedAgain):
        between.into(between.high, path)


def _away(*_: object) -> None:
    raise Unreachable("nothing answers")


def test_two_who_take_the_same_in_at_once(between: Gap, monkeypatch: pytest.MonkeyPatch) -> None:
    between.offered()
    between.proposed()
    path = between.out(between.low).path
    honest = coming_in._Landing.land

    def meanwhile(self: Any, *args: Any) -> Any:
        monkeypatch.undo()
        between.into(between.high, path)
        return honest(self, *args)

    monkeypatch.setattr(coming_in._Landing, "land", meanwhile)
    with pytest.raises(CarriedAgain):
        between.into(between.high, path)
    assert len(between.high.room.views()) == 1


def test_an_item_that_the_exchange_refuses_is_said_and_the_others_land(
    between: Gap, monkeypatch: pytest.MonkeyPatch
) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    between.high.room.approve(digest)
    between.high.run(digest)
    path = between.out(between.high).path
    between.low.store.close()
    monkeypatch.setattr(between.low.room.exchange, "approve", _refusing)
    arrived = between.into(between.low, path)
    assert [(r.item.kind, r.error.code) for r in arrived.refused] == [(Kind.APPROVAL, "app.conflict")]
    assert len(between.low.room.receipts(digest)) == 1


def _refusing(*_: object) -> None:
    raise Conflict("no")


# --- the policy -------------------------------------------------------------------------------------------------------


def test_nothing_crosses_where_nobody_said_what(tmp_path: Path, between: Gap) -> None:
    with pytest.raises(NoCarryPolicy):
        _ = Desk(Home(tmp_path / "new")).site
    with pytest.raises(NoCarryPolicy):
        Desk(Home(tmp_path / "new")).allow(Peer("low", ("lab",), ("lab",), None, None), None)
    with pytest.raises(BadField):
        between.low.desk.allow(Peer("high", ("hospital",), ("hospital",), None, None), "another-name")


def test_a_diode_that_only_takes_in(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.high.desk.allow(
        Peer("low", ("lab",), ("lab",), Lets(tuple(sorted((*QUESTIONS, Kind.LEDGER, Kind.MANIFEST))), 1 << 20), None), None
    )
    between.over(between.low)
    between.high.room.approve(digest)
    with pytest.raises(CarriedWrongWay):
        between.out(between.high)


def test_a_diode_that_only_lets_out(between: Gap) -> None:
    between.offered()
    between.high.desk.allow(Peer("low", ("lab",), ("lab",), None, EVERY), None)
    between.proposed()
    path = between.out(between.low).path
    with pytest.raises(CarriedWrongWay):
        between.into(between.high, path)
    between.over(between.high, cards=(between.high.room.home.folder / "party.json",))


def test_kinds_that_the_policy_keeps_back_are_said(between: Gap) -> None:
    between.offered()
    between.proposed()
    between.low.desk.allow(Peer("high", ("hospital",), ("hospital",), EVERY, Lets((Kind.NOTE,), 1 << 20)), None)
    with pytest.raises(NothingToCarry, match="keeps back: manifest, proposal"):
        between.out(between.low)
    between.low.desk.allow(Peer("high", ("hospital",), ("hospital",), EVERY, Lets((Kind.PROPOSAL,), 1 << 20)), None)
    written = between.out(between.low)
    assert (kinds(written.carriage.items), written.kept_back) == ({"proposal": 1}, (Kind.MANIFEST,))


def test_more_than_may_cross_is_not_written(between: Gap) -> None:
    between.offered()
    between.proposed()
    between.low.desk.allow(Peer("high", ("hospital",), ("hospital",), EVERY, replace(EVERY, max_bytes=1000)), None)
    with pytest.raises(CarriedTooLarge):
        between.out(between.low)
    assert list(between.drive.iterdir()) == [between.drive / "0001.carry"]  # of before


def test_who_opens_it_is_said_where_there_are_several(between: Gap) -> None:
    between.offered()
    between.proposed()
    between.low.desk.allow(Peer("high", ("bank", "hospital"), ("bank", "hospital"), EVERY, EVERY), None)
    room, desk, path = between.low.room, between.low.desk, between.drive / "x.carry"
    with pytest.raises(Usage):
        carry_out(room, desk, site="high", path=path)
    with pytest.raises(Usage):
        carry_out(room, desk, site="high", path=path, to="lab")
    written = carry_out(room, desk, site="high", path=path, to="hospital", wish=Wish())
    assert written.carriage.recipient.party == "hospital"
    with pytest.raises(Conflict):
        carry_out(room, desk, site="high", path=path, to="hospital")


def test_what_is_fetched_otherwise_than_listed_is_not_carried(between: Gap, monkeypatch: pytest.MonkeyPatch) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    between.high.room.approve(digest)
    between.high.run(digest)
    exchange = between.high.room.exchange
    honest, asked = exchange.receipt, []

    def two_faced(found: str) -> Bundle:
        asked.append(found)
        bundle = honest(found)
        return bundle if len(asked) == 1 else replace(bundle, proof=None)

    monkeypatch.setattr(exchange, "receipt", two_faced)
    with pytest.raises(Exception, match="came as other bytes"):
        between.out(between.high)
    assert len(asked) == 2
    assert not list(between.drive.glob(".*"))


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_record_outlives_its_process(tmp_path: Path, between: Gap) -> None:
    between.offered()
    path = between.drive / "0001.carry"
    with FileSource(path) as source:
        carriage = read(source).carriage
    record = CarryRecord(tmp_path / "carry.db")
    record.take(carriage, [("card", "x")], 5)
    record.close()
    record = CarryRecord(tmp_path / "carry.db")
    assert record.taken("high") == {1: carriage.digest}
    assert record.carried("high") == {("card", "x")}
    with pytest.raises(CarriedAgain):
        record.take(carriage, [], 6)
    assert [(c.way, c.number, c.at) for c in record.crossed()] == [("in", 1, 5)]
    record.close()


def test_numbers_are_given_once(tmp_path: Path) -> None:
    record = CarryRecord(tmp_path / "carry.db")
    assert [record.begin("high", 0).number for _ in range(3)] == [1, 2, 3]
    assert record.begin("high", 0, above=7).number == 8
    assert record.begin("other", 0).number == 1
    record.close()


# --- the command line -------------------------------------------------------------------------------------------------


def test_on_the_command_line(between: Gap) -> None:
    between.offered()
    home = ("--home", between.low.place.folder, "--as", "lab")
    path = between.drive / "0001.carry"
    shown = call("carry", "show", path, *home)
    assert "hospital/records.csv" in shown.out
    assert "opened, and each item is what it says" in shown.out
    as_json = call("carry", "show", path, *home, "--json").json
    assert (as_json["number"], as_json["signature"], as_json["opened"]) == (1, "verified", True)
    unopened = call("carry", "show", path, "--home", between.high.place.folder)
    assert "not opened" in unopened.out
    nobody = call("carry", "show", path, "--home", between.drive / "none")
    assert "NOT CHECKED" in nobody.out
    again = call("carry", "in", path, *home, "--exchange-url", "http://127.0.0.1:9")
    assert again.code == "carry.replayed"
    log = call("carry", "log", *home)
    assert " in   high" in log.out
    assert call("carry", "log", *home, "--json").json["carried"][0]["number"] == 1


def test_the_policy_on_the_command_line(tmp_path: Path) -> None:
    home = ("--home", tmp_path)
    allow = ("carry", "allow", "low", *home)
    assert call(*allow, "--party", "lab").code == "carry.no_policy"
    assert call(*allow, "--here", "high").code == "app.usage"
    assert call(*allow, "--here", "high", "--party", "lab", "--lets-in", "code,archive").code == "app.usage"
    assert call(*allow, "--here", "../x", "--party", "lab").code == "wire.bad_field"
    assert call(*allow, "--here", "high", "--party", "Lab").code == "wire.bad_field"
    said = call(*allow, "--here", "high", "--party", "lab", "--lets-in", "proposal,code", "--max-bytes", "1000")
    assert "code, proposal; at most 1,000 bytes a file" in said.out
    assert "nothing" in said.out
    shown = call(*allow, "--party", "lab", "--lets-out", "all", "--json").json
    assert (shown["peers"][0]["in"], len(shown["peers"][0]["out"]["kinds"])) == (None, len(Kind))
    assert call("carry", "show", tmp_path / "none", *home).code == "app.not_found"
    assert call("carry", "out", "--to", "low", "--out", tmp_path / "x", *home).code == "app.not_found"


def test_a_file_that_was_altered_is_shown_as_one_line(between: Gap) -> None:
    between.offered()
    path = between.drive / "0001.carry"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    home = ("--home", between.low.place.folder, "--as", "lab")
    assert call("carry", "show", path, *home).code == "carry.altered"
    path.write_bytes(data[:-9])
    assert call("carry", "show", path, *home).code == "carry.truncated"
    nobody = call("carry", "show", path, "--home", between.drive / "none")
    assert "it is not whole" in nobody.out
    with pytest.raises(CarriedAltered):
        between.into(between.low, _tampered(path))
    assert wire.digest(bytes(data)) != ""


def _tampered(path: Path) -> Path:
    """The manifest says another number."""
    data = path.read_bytes()
    envelope = wire.Envelope.parse(data[21 : 21 + int.from_bytes(data[17:21], "big")])
    payload = envelope.payload.replace(b'"number":1', b'"number":5')
    header = replace(envelope, payload=payload).encode()
    path.write_bytes(data[:17] + len(header).to_bytes(4, "big") + header)
    return path


def test_what_the_page_tells_people_to_type_is_understood() -> None:
    page = (ROOT / "docs" / "air-gap.md").read_text(encoding="utf-8")
    lines = [line for block in page.split("```")[1::2] for line in block.replace("\\\n", " ").splitlines()]
    found = [line.replace("…", "") for line in lines if line.startswith("strongroom ")]
    assert len(found) > 15
    for line in found:
        words = shlex.split(line, comments=True)
        parser_of(words[1]).parse_args(words[2:])


def test_the_page_names_every_code() -> None:
    page = (ROOT / "docs" / "air-gap.md").read_text(encoding="utf-8")
    for cls in CarryError.__subclasses__():
        assert f"`{cls.code}`" in page or cls in (NoCarryPolicy, NothingToCarry)


# --- large things -----------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_what_is_carried() -> None:
    size, piece = 48 << 20, bytes(1 << 20)
    digest = "sha256:" + hashlib.sha256(bytes(size)).hexdigest()
    with tempfile.TemporaryFile() as sink:
        tracemalloc.start()
        write(
            sink,
            [(Item(Kind.OUTPUT, size, digest), lambda: (piece for _ in range(size // len(piece))))],
            sender=Place("low", "lab"),
            recipient=Place("high", "hospital"),
            number=1,
            follows=0,
            created_at=0,
            signing=keys_of("lab").signing,
            to=card("hospital").encryption_key,
            entropy=Entropy("large"),
        )
        signed = verify_carried(read(FileSource(sink)), Trust((card("hospital"), card("lab"))))
        contents = open_body(signed, "hospital", keys_of("hospital").decryption)
        assert sum(map(len, contents.pieces(0))) == size
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 << 20
