"""What somebody does to a bundle on its way, and what a sender who is pinned and hostile puts into one.

Each time: one line with its own code; the exchange, the home and the record are as they were, to the last byte.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from carry_case import EVERY, Gap, Half, gap
from strongroom import wire
from strongroom.app.client.carry import carry_in
from strongroom.asset import BytesSource
from strongroom.carry import CARRIAGE_TYPE, Item, Kind, Peer, Place, read, write
from strongroom.carry.file import begun
from strongroom.code import CodeBundle
from strongroom.contract import PROPOSAL_TYPE, Proposal, State, Withdrawal
from strongroom.errors import CarryError, StrongroomError
from strongroom.party import SigningKey
from strongroom.trust import Trust
from strongroom.wire import Envelope
from world import Entropy, card, keys_of

SECRET = b"CANARY-CARRIED-5772156649"


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Gap]:
    found = gap(tmp_path)
    yield found
    found.close()


def _rows(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as c:
        tables = [name for (name,) in c.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: c.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def everything(half: Half) -> dict[str, Any]:
    """All that a site holds: each file's digest, each database's rows."""
    found: dict[str, Any] = {}
    for path in sorted(half.folder.rglob("*")):
        name = str(path.relative_to(half.folder))
        if path.suffix in (".db-wal", ".db-shm") or name.endswith(("-wal", "-shm")):
            continue
        if path.is_file():
            found[name] = _rows(path) if path.suffix == ".db" else hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = None
    return found


# --- on the way -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """What an attacker has: two bundles of the low side to the high, in order, and each side's keys but the private ones."""

    first: bytes
    second: bytes


def _body_at(file: bytes) -> int:
    return read(BytesSource(file)).body_at


def _said(file: bytes, old: bytes, new: bytes) -> bytes:
    """The manifest with other words, under the signature as it was."""
    found = read(BytesSource(file))
    assert old in found.envelope.payload
    return begun(replace(found.envelope, payload=found.envelope.payload.replace(old, new))) + file[found.body_at :]


def _signed_anew(file: bytes) -> bytes:
    """The manifest under the attacker's own signature."""
    found = read(BytesSource(file))
    return begun(SigningKey(bytes(31) + b"\1").sign(CARRIAGE_TYPE, found.envelope.payload)) + file[found.body_at :]


def _swapped_chunks(file: bytes) -> bytes:
    at, middle = _body_at(file) + 64, len(file) - 200
    return file[:at] + file[middle : middle + 50] + file[at + 50 : middle] + file[at : at + 50] + file[middle + 50 :]


ATTACKS: dict[str, tuple[str, Callable[[Way], bytes]]] = {
    "brings the second before the first": ("carry.out_of_order", lambda way: way.second),
    "cuts its end off": ("carry.truncated", lambda way: way.first[:-1000]),
    "cuts it off in the manifest": ("carry.truncated", lambda way: way.first[:300]),
    "leaves a byte of it": ("carry.truncated", lambda way: way.first[:1]),
    "empties it": ("carry.not_a_bundle", lambda _: b""),
    "puts an archive in its place": ("carry.not_a_bundle", lambda _: b"PK\x03\x04" + bytes(500)),
    "adds to its end": ("carry.altered", lambda way: way.first + way.second),
    "swaps parts of its body": ("carry.altered", lambda way: _swapped_chunks(way.first)),
    "gives it the body of another": (
        "carry.truncated",
        lambda way: way.first[: _body_at(way.first)] + way.second[_body_at(way.second) :][:500],
    ),
    "changes its number": ("carry.altered", lambda way: _said(way.second, b'"follows":1', b'"follows":0')),
    "changes its sender's site": ("carry.altered", lambda way: _said(way.first, b'"site":"low"', b'"site":"law"')),
    "changes an item's kind": ("carry.altered", lambda way: _said(way.first, b'"kind":"proposal"', b'"kind":"approval"')),
    "signs it anew": ("carry.altered", lambda way: _signed_anew(way.first)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_on_the_way_somebody(attack: str, between: Gap) -> None:
    between.offered()
    between.proposed(title=SECRET.decode())
    first = between.out(between.low).path
    between.proposed(title="Another")
    second = between.out(between.low).path
    code, change = ATTACKS[attack]
    bad = between.drive / "bad.carry"
    bad.write_bytes(change(Way(first.read_bytes(), second.read_bytes())))
    before = everything(between.high)
    with pytest.raises(CarryError) as caught:
        between.into(between.high, bad)
    assert caught.value.code == code
    assert SECRET.decode() not in str(caught.value.to_json())
    assert "\n" not in caught.value.message
    assert everything(between.high) == before
    # and what is whole comes in after it as if nothing had been
    assert between.into(between.high, first).refused == ()
    assert between.into(between.high, second).refused == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda g: g.high.desk.allow(Peer("low", ("bank",), ("bank",), EVERY, EVERY), None), "carry.another_site"),
        (lambda g: g.high.desk.allow(Peer("low", ("lab",), ("lab",), None, EVERY), None), "carry.wrong_direction"),
        (
            lambda g: g.high.desk.allow(Peer("low", ("lab",), ("lab",), replace(EVERY, kinds=(Kind.NOTE,)), None), None),
            "carry.kind_refused",
        ),
        (
            lambda g: g.high.desk.allow(Peer("low", ("lab",), ("lab",), replace(EVERY, max_bytes=500), None), None),
            "carry.too_large",
        ),
        (lambda g: g.high.room.home.save_trust(g.high.room.trust.unpin("lab")), "carry.another_site"),
    ],
    ids=["another-party", "diode", "kinds", "size", "unpinned"],
)
def test_what_the_policy_does_not_let_in_changes_nothing(change: Callable[[Gap], None], code: str, between: Gap) -> None:
    between.offered()
    between.proposed()
    path = between.out(between.low).path
    change(between)
    before = everything(between.high)
    with pytest.raises(CarryError) as caught:
        between.into(between.high, path)
    assert caught.value.code == code
    assert everything(between.high) == before


def test_a_bundle_for_one_site_at_another(tmp_path: Path, between: Gap) -> None:
    between.offered()
    between.proposed()
    path = between.out(between.low).path
    third = Half(tmp_path / "third", "vault", "hospital")
    third.room.home.save_trust(third.room.trust.pin(between.low.room.home.card))
    third.desk.allow(Peer("low", ("lab",), ("lab",), EVERY, EVERY), "vault")
    assert third.desk.record.crossed() == []
    before = everything(third)
    with pytest.raises(CarryError) as caught:
        carry_in(third.room, third.desk, path)
    assert caught.value.code == "carry.not_for_here"
    assert everything(third) == before
    third.close()


def test_what_was_written_here_does_not_come_back_in(between: Gap) -> None:
    between.offered()
    between.proposed()
    path = between.out(between.low).path
    with pytest.raises(CarryError) as caught:
        between.into(between.low, path)
    assert caught.value.code == "carry.another_site"


def test_a_link_on_the_drive_is_read_as_a_file_and_no_more(between: Gap) -> None:
    link = between.drive / "0001.carry"
    link.symlink_to("/etc/passwd")
    with pytest.raises(CarryError) as caught:
        between.into(between.high, link)
    assert caught.value.code == "carry.not_a_bundle"
    with pytest.raises(StrongroomError) as told:
        between.into(between.high, between.drive)
    assert told.value.code == "app.not_found"


# --- a sender who is pinned, and hostile ------------------------------------------------------------------------------


def hostile(between: Gap, *contents: tuple[Kind, bytes], number: int = 1) -> Path:
    """A bundle that the lab signs, with whatever it likes in it."""
    low, high = between.low.room.home, between.high.room.home
    path = between.drive / f"hostile-{number}.carry"

    def pieces(data: bytes) -> Callable[[], Iterator[bytes]]:
        return lambda: iter([data])

    with path.open("xb") as sink:
        write(
            sink,
            [(Item(kind, len(data), wire.digest(data)), pieces(data)) for kind, data in contents],
            sender=Place("low", "lab"),
            recipient=Place("high", "hospital"),
            number=number,
            follows=0,
            created_at=0,
            signing=low.keys.signing,
            to=high.card.encryption_key,
            entropy=Entropy(f"hostile {number}"),
        )
    return path


def test_a_card_and_reference_values_change_no_trust(between: Gap) -> None:
    before = between.high.room.trust
    reference = wire.encode(replace(between.low.values, logs=()).to_json())
    arrived = between.into(between.high, hostile(between, (Kind.CARD, card("bank").encode()), (Kind.REFERENCE, reference)))
    assert between.high.room.trust == before
    assert {path.parent for path in arrived.files} == {between.high.place.folder / "carried" / "low" / "1"}


def test_code_that_comes_in_is_not_run(between: Gap, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = f"open({str(ran)!r}, 'w').write('x')\n"
    code = CodeBundle({"analysis.py": text, "setup.py": text, "conftest.py": text, "sitecustomize.py": text}).encode()
    arrived = between.into(between.high, hostile(between, (Kind.MOCK, b"#!/bin/sh\ntouch ran\n"), (Kind.CODE, code)))
    assert arrived.refused == ()
    assert not ran.exists()
    landed = [path for path in between.high.folder.rglob("*") if path.is_file()]
    assert landed
    assert not any(os.access(path, os.X_OK) for path in landed if "exchange" in path.parts or "carried" in path.parts)


def test_nobody_approves_by_carrying(between: Gap) -> None:
    """The lab carries the hospital's approval in, signed by the lab: as whose, it may say as it likes."""
    between.offered()
    digest = between.proposed()
    envelope = between.low.room.exchange.proposal(digest).envelope
    proposal = Proposal.parse(envelope.payload)
    (mine,) = envelope.signatures
    as_hospital = replace(mine, keyid=between.high.room.home.card.signing_key.keyid)
    forged = Envelope(PROPOSAL_TYPE, envelope.payload, (as_hospital,)).encode()
    before = everything(between.high)
    with pytest.raises(CarryError) as caught:
        between.into(between.high, hostile(between, (Kind.APPROVAL, forged)))
    assert caught.value.code == "carry.bad_item"
    assert everything(between.high) == before
    between.over(between.low)
    assert between.high.room.view(digest).history.approved_by == {"lab"}
    assert not between.high.room.home.book.standing(proposal.digest).approved


def test_a_stranger_in_a_proposal_that_is_carried_is_left_out(between: Gap) -> None:
    """What the lab carries is no better known than what anybody posts: it names parties that the hospital never pinned."""
    between.offered()
    digest = between.proposed()
    good = between.low.room.view(digest).proposal
    stranger = card("stranger")
    parties = tuple(sorted((*good.parties, stranger), key=lambda p: p.name))
    other = replace(good, parties=parties)
    envelope = other.envelope([other.sign(between.low.room.home.keys)]).encode()
    arrived = between.into(between.high, hostile(between, (Kind.PROPOSAL, envelope)))
    assert arrived.refused == ()
    views, _ = between.high.room.sift()
    assert views == []
    with pytest.raises(StrongroomError) as caught:
        between.high.room.approve(other.digest)
    assert caught.value.code == "party.not_pinned"


def test_a_withdrawal_in_the_owners_name_is_refused_and_the_rest_lands(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    forged = Withdrawal(digest, "hospital", 0, "").sign(between.low.room.home.keys.signing).encode()
    mine = Withdrawal(digest, "lab", 0, "").sign(between.low.room.home.keys.signing).encode()
    arrived = between.into(between.high, hostile(between, (Kind.WITHDRAWAL, forged), (Kind.WITHDRAWAL, mine), number=2))
    assert [refused.error.code for refused in arrived.refused] == ["wire.bad_signature"]
    assert between.high.room.view(digest).state is State.WITHDRAWN


def test_a_receipt_of_a_run_that_was_none_is_refused(between: Gap) -> None:
    between.offered()
    digest = between.proposed()
    between.over(between.low)
    between.high.room.approve(digest)
    bundle = between.high.run(digest)
    between.over(between.high)
    statement = bundle.receipt.payload.replace(b'"seconds"', b'"secondz"')
    other = replace(bundle, receipt=replace(bundle.receipt, payload=statement + b" "))
    before = between.low.room.receipts(digest)
    high = between.high.room.home
    path = between.drive / "hostile.carry"
    data = other.encode()
    with path.open("xb") as sink:
        write(
            sink,
            [(Item(Kind.RECEIPT, len(data), wire.digest(data)), lambda: iter([data]))],
            sender=Place("high", "hospital"),
            recipient=Place("low", "lab"),
            number=9,
            follows=0,
            created_at=0,
            signing=high.keys.signing,
            to=between.low.room.home.card.encryption_key,
            entropy=Entropy("hostile receipt"),
        )
    arrived = between.into(between.low, path)
    assert [refused.error.code for refused in arrived.refused] == ["receipt.not_verified"]
    assert between.low.room.receipts(digest) == before


def test_a_trust_file_that_pins_is_no_reference(between: Gap) -> None:
    pinning = wire.encode(Trust(parties=(card("bank"),)).to_json())
    with pytest.raises(CarryError) as caught:
        between.into(between.high, hostile(between, (Kind.REFERENCE, pinning)))
    assert caught.value.code == "carry.bad_item"


def test_a_pinned_party_of_another_site_cannot_speak_for_this_one(between: Gap) -> None:
    bank = keys_of("bank")
    home = between.high.room.home
    home.save_trust(home.trust.pin(card("bank")))
    path = hostile(between, (Kind.CARD, card("bank").encode()))
    found = read(BytesSource(path.read_bytes()))
    payload = found.envelope.payload.replace(b'"from":{"party":"lab"', b'"from":{"party":"bank"')
    path.write_bytes(begun(bank.signing.sign(CARRIAGE_TYPE, payload)) + path.read_bytes()[found.body_at :])
    with pytest.raises(CarryError) as caught:
        between.into(between.high, path)
    assert caught.value.code == "carry.another_site"
