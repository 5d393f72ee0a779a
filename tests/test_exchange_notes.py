"""Notes at an exchange: kept once, logged once, few from each party, and whatever is new is found by asking after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stage import InProcess
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.contract import Contract, Proposal, Withdrawal
from strongroom.errors import BadField, BadSignature, LimitReached, NotFound
from strongroom.ledger import Entry
from strongroom.review import MAX_NOTES, Kind, Note
from world import LOG, NOW, World, keys_of, seed

LAB, HOSPITAL, MALLORY = (keys_of(n).signing.public.keyid for n in ("lab", "hospital", "mallory"))
AMONG = (LAB, HOSPITAL)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExchangeStore]:
    found = ExchangeStore(tmp_path / "exchange", LOG)
    yield found
    found.close()


@pytest.fixture
def there(store: ExchangeStore) -> ExchangeClient:
    return ExchangeClient(Client("http://role", transport=InProcess(exchange(store))))


@pytest.fixture
def world() -> World:
    return World()


def proposed(there: ExchangeClient, proposal: Proposal) -> Proposal:
    there.propose(proposal.envelope([proposal.sign(keys_of(proposal.proposer))]))
    return proposal


def another(world: World, name: str) -> Proposal:
    return world.proposal(nonce=seed(name, 16).hex(), title=name)


def say(there: ExchangeClient, about: Proposal, text: str, party: str = "hospital", kind: Kind = Kind.COMMENT) -> Note:
    note = Note(about.digest, None, kind, party, NOW, text)
    there.note(note.sign(keys_of(party).signing), about.digest)
    return note


def logged(store: ExchangeStore) -> list[str]:
    return [Entry.parse(entry).kind for entry in store.entries(0, 1000)]


def test_a_note_is_kept_and_logged_once(there: ExchangeClient, store: ExchangeStore, world: World) -> None:
    about = proposed(there, world.proposal())
    note = say(there, about, "Why?")
    say(there, about, "Why?")
    asked = say(there, about, "Bin the ages.", "lab", Kind.ASK)
    assert [Note.verify(envelope, about) for envelope in there.notes(about.digest)] == [note, asked]
    assert logged(store) == ["proposal", "approval", "review", "review"]


def test_a_note_about_nothing_is_refused(there: ExchangeClient, world: World) -> None:
    with pytest.raises(NotFound):
        say(there, world.proposal(), "Why?")


def test_a_note_posted_under_another_proposal_is_refused(there: ExchangeClient, world: World) -> None:
    about, other = proposed(there, world.proposal()), proposed(there, another(world, "other"))
    note = Note(about.digest, None, Kind.COMMENT, "hospital", NOW, "Fine.")
    with pytest.raises(BadField):
        there.note(note.sign(keys_of("hospital").signing), other.digest)
    assert there.notes(other.digest) == []


def test_a_note_in_anothers_name_is_refused(there: ExchangeClient, store: ExchangeStore, world: World) -> None:
    about = proposed(there, world.proposal())
    note = Note(about.digest, None, Kind.COMMENT, "hospital", NOW, "Fine.")
    with pytest.raises(BadSignature):
        there.note(note.sign(keys_of("lab").signing), about.digest)
    assert logged(store) == ["proposal", "approval"]


def test_a_party_cannot_swell_the_log_with_notes(store: ExchangeStore, there: ExchangeClient, world: World) -> None:
    about = proposed(there, world.proposal())
    for number in range(MAX_NOTES):
        note = Note(about.digest, None, Kind.COMMENT, "lab", NOW, str(number))
        store.put_note(note, note.sign(keys_of("lab").signing))
    with pytest.raises(LimitReached):
        say(there, about, "one more", "lab")
    say(there, about, "0", "lab")  # which is there already
    say(there, about, "the others may still speak")
    assert len(there.notes(about.digest)) == MAX_NOTES + 1
    assert logged(store).count("review") == MAX_NOTES + 1


def test_whatever_is_new_is_at_the_end_of_the_changes(there: ExchangeClient, world: World) -> None:
    first, second = proposed(there, world.proposal()), proposed(there, another(world, "second"))

    def new(after: int) -> list[tuple[str, int]]:
        return [(change.seen.envelope.digest, change.notes) for change in there.changes(AMONG, after)]

    assert new(0) == [(first.digest, 0), (second.digest, 0)]
    place = there.changes(AMONG, 0)[-1].place
    assert new(place) == []
    say(there, first, "Why?")
    assert new(place) == [(first.digest, 1)]
    assert new(0) == [(second.digest, 0), (first.digest, 1)]
    there.approve(second, (second.sign(keys_of("hospital")),))
    there.withdraw(first.digest, Withdrawal(first.digest, "lab", NOW, "no").sign(keys_of("lab").signing))
    assert new(place) == [(second.digest, 0), (first.digest, 1)]
    counter = proposed(there, world.proposal(supersedes=second.digest))
    assert {digest for digest, _ in new(there.changes(AMONG, 0)[-2].place - 1)} >= {second.digest, counter.digest}


def test_what_changes_nothing_is_no_change(there: ExchangeClient, world: World) -> None:
    about = proposed(there, world.proposal())
    say(there, about, "Why?")
    place = there.changes(AMONG, 0)[-1].place
    say(there, about, "Why?")
    proposed(there, about)
    there.approve(about, (about.sign(keys_of("lab")),))
    assert there.changes(AMONG, place) == []


def test_a_receipt_is_a_change(there: ExchangeClient, store: ExchangeStore, world: World) -> None:
    from dataclasses import replace

    from strongroom.receipt import admissible

    agreed: Contract = world.agree()
    proposal = proposed(there, agreed.proposal)
    place = there.changes(AMONG, 0)[-1].place
    bundle = replace(world.run(agreed), proof=None)
    store.put_receipt(bundle, admissible(bundle))
    (change,) = there.changes(AMONG, place)
    assert change.seen.envelope.digest == proposal.digest
    assert len(change.seen.receipts) == 1


def test_changes_among_others_are_not_shown(there: ExchangeClient, world: World) -> None:
    proposed(there, world.proposal())
    for among in ((LAB,), (HOSPITAL,), (MALLORY,), (LAB, MALLORY)):
        assert there.changes(among, 0) == []


def test_an_exchange_from_before_counts_its_proposals_as_changes(store: ExchangeStore, world: World) -> None:
    proposal = world.proposal()
    store.put_proposal(proposal, proposal.sign(keys_of("lab")), NOW)
    with store._db.write() as c:
        c.execute("DROP TABLE changes")
    store.close()
    again = ExchangeStore(store.folder, LOG)
    try:
        assert [digest for _, (_, digest) in again.changes_among(AMONG, 0, 10)] == [proposal.digest]
    finally:
        again.close()
