"""A broker's book on disk holds what shared keys need: the same as the book in memory, and after a restart too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stage import InProcess
from strongroom import wire
from strongroom.app.broker.server import broker
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.broker import Refusal, Release
from strongroom.contract import Contract, Grant, Withdrawal
from strongroom.dealing import collect
from strongroom.errors import BadEnrolment, BadSignature, Conflict, NotFound, StrongroomError
from strongroom.holder import hear_grant
from strongroom.holding import Recall, Says, Taken, Word
from strongroom.job import Cancel
from strongroom.threshold import combine
from strongroom.wire import Envelope
from threshold_world import NAMES, Shared
from world import LOG, NOW, RUN, keys_of, seed, sign_all

OTHER_RUN = seed("another run", 16).hex()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Callable[[str], SqliteBook]]:
    opened: list[SqliteBook] = []

    def book(name: str) -> SqliteBook:
        opened.append(SqliteBook(tmp_path / f"{name}.db"))
        return opened[-1]

    yield book
    for found in opened:
        found.close()


@pytest.fixture
def shared(books: Callable[[str], SqliteBook]) -> Shared:
    return Shared(runs=2, book=books)


def slot_of(found: Release | Refusal) -> int:
    assert isinstance(found, Release), found.code
    said = wire.decode(found.envelope.payload)
    assert isinstance(said, dict)
    assert isinstance(said["slot"], int)
    return said["slot"]


def test_shares_slots_and_words_survive_a_restart(shared: Shared, books: Callable[[str], SqliteBook]) -> None:
    enclave = shared.enclave()
    first = enclave.ask_share("ada")
    shared.keepers["ada"].book.close()
    shared.keepers["ada"].book = books("ada")
    again = enclave.ask_share("ada")
    assert isinstance(first, Release)
    assert isinstance(again, Release)
    assert again.answer() == first.answer()
    other = shared.enclave("another", run_id=OTHER_RUN)
    assert slot_of(other.ask_share("ada")) == 2
    third = shared.enclave("third", run_id=seed("third", 16).hex())
    refused = third.ask_share("ada")
    assert isinstance(refused, Refusal)
    assert refused.code == "broker.no_run_left"
    grant = Grant(shared.contract.digest, "hospital", 1, seed("grant", 16).hex()).sign(keys_of("hospital").signing)
    keeper = shared.keepers["ada"]
    for _ in range(2):
        hear_grant(grant, shared.contract.proposal, "hospital", here=keeper.here, book=keeper.book)
    assert slot_of(third.ask_share("ada")) == 3
    assert [s.owner for s in keeper.book.shares()] == ["hospital"]
    assert keeper.book.heard() == [shared.contract.digest]


def test_two_brokers_open_and_a_new_epoch_keeps_count(shared: Shared) -> None:
    enclave, got = shared.enclave(), []
    for name in ("ada", "cy"):
        request = enclave.share_request(name)
        found = shared.keepers[name].decide(request)
        assert isinstance(found, Release)
        got.append(enclave.open_share(name, found, request).share)
    assert combine(shared.enrolment, got, shared.manifest) == shared.key
    collected = shared.recall(["ada", "ben"])
    assert isinstance(enclave.ask_share("ada"), Refusal)
    assert [(t.slot, t.keyset) for t in collected.taken] == [(1, enclave.keyset.digest)]
    shared.deal(("ada", "ben", "dee"), 2, 2, taken=collected.taken)
    shared.say(Says.APPROVED)
    other = shared.enclave("another", run_id=OTHER_RUN)
    for name in ("ada", "ben", "dee"):
        assert slot_of(other.ask_share(name)) == 2
        assert slot_of(enclave.ask_share(name)) == 1


def test_a_slot_of_which_the_book_says_something_else_is_nobodys(shared: Shared) -> None:
    enclave = shared.enclave()
    assert slot_of(enclave.ask_share("ada")) == 1
    said = Taken(shared.contract.digest, 1, wire.digest(b"another keyset"))
    shared.deal(NAMES[:3], 2, 2, taken=(said,))
    assert shared.keepers["ada"].book.taken(shared.manifest.digest) == [Taken(shared.contract.digest, 1, None)]
    assert slot_of(enclave.ask_share("ada")) == 2


def test_an_owners_end_and_a_withdrawal_hold(shared: Shared) -> None:
    shared.say(Says.ENDED, ["ada"])
    withdrawal = Withdrawal(shared.contract.digest, "lab", NOW, "")
    shared.keepers["ben"].book.withdraw(withdrawal, withdrawal.sign(keys_of("lab").signing))
    codes = {name: shared.enclave().ask_share(name) for name in NAMES[:3]}
    assert [f.code if isinstance(f, Refusal) else "" for f in codes.values()] == [
        "contract.superseded",
        "contract.withdrawn",
        "",
    ]


def test_the_owner_forgets_a_key_and_keeps_the_manifest(books: Callable[[str], SqliteBook]) -> None:
    shared, book = Shared(), books("hospital")
    book.hold(shared.envelope, shared.key)
    assert book.held(shared.manifest.digest) is not None
    book.forget(shared.manifest.digest)
    assert book.held(shared.manifest.digest) is None
    assert book.manifest(shared.manifest.digest) == shared.envelope
    book.hold(shared.envelope, shared.key)  # keys are never overwritten
    assert book.held(shared.manifest.digest) is None


# --- over HTTP --------------------------------------------------------------------------------------------------------


def client(app: Any) -> Client:
    return Client("http://broker", transport=InProcess(app))


def test_a_broker_takes_gives_back_and_hears_over_http(shared: Shared) -> None:
    ada = shared.keepers["ada"]
    door = client(broker(ada.book, lambda: ada.here, None, now=lambda: NOW))
    owner, contract = keys_of("hospital"), shared.contract
    order = Recall(shared.manifest.digest, "hospital", 1)
    with pytest.raises(BadSignature):
        door.post("/v1/recalls", order.sign(keys_of("lab").signing).encode())
    answer = Envelope.parse(door.post("/v1/recalls", order.sign(owner.signing).encode()))
    with pytest.raises(StrongroomError, match="1 of 2"):
        collect(shared.enrolment, shared.manifest, {1: answer}, owner.decryption, NOW)
    door.post("/v1/deals", shared.dealt(NAMES[:3], 2, 2).deals[0].encode())
    with pytest.raises(StrongroomError):
        door.post("/v1/deals", shared.dealt(NAMES[:3], 2, 2).deals[1].encode())
    grant = Grant(contract.digest, "hospital", 3, seed("grant", 16).hex()).sign(owner.signing)
    said = {"contract": contract.envelope.to_json()}
    door.post("/v1/words", wire.encode({**said, "grant": grant.to_json(), "party": "hospital"}))
    assert ada.book.standing(contract.digest, "hospital").granted == 3
    assert ada.book.standing(contract.digest).granted == 0
    word = Word(contract.digest, "hospital", Says.ENDED, NOW).sign(owner.signing)
    door.post("/v1/words", wire.encode({**said, "word": word.to_json()}))
    assert ada.book.standing(contract.digest, "hospital").ended_by is not None


def test_a_withdrawal_reaches_a_holder_that_pinned_the_owner_alone(shared: Shared) -> None:
    ada = shared.keepers["ada"]
    door = client(broker(ada.book, lambda: ada.here, None, now=lambda: NOW))
    found = Withdrawal(shared.contract.digest, "lab", NOW, "").sign(keys_of("lab").signing)
    body = {"contract": shared.contract.envelope.to_json(), "withdrawal": found.to_json()}
    door.post("/v1/withdrawals", wire.encode(body))
    assert ada.book.standing(shared.contract.digest).withdrawn_by == {"lab"}
    strange = shared.world.proposal(title="Another").envelope(())
    other = Withdrawal(strange.digest, "lab", NOW, "").sign(keys_of("lab").signing)
    with pytest.raises(StrongroomError):
        door.post("/v1/withdrawals", wire.encode({"contract": strange.to_json(), "withdrawal": other.to_json()}))


def test_a_cancel_reaches_a_holder_that_pinned_the_owner_alone(shared: Shared) -> None:
    ada = shared.keepers["ada"]
    door = client(broker(ada.book, lambda: ada.here, None, now=lambda: NOW))

    def cancel(contract: Contract, run_id: str) -> None:
        found = Cancel(contract.digest, "lab", run_id, NOW).sign(keys_of("lab").signing)
        door.post("/v1/cancels", wire.encode({"cancel": found.to_json(), "contract": contract.envelope.to_json()}))

    cancel(shared.contract, RUN)
    refused = shared.enclave().ask_share("ada")
    assert isinstance(refused, Refusal)
    assert (refused.number, refused.code) == ("D14", "broker.run_cancelled")
    assert isinstance(shared.enclave("another", seed("another run", 16).hex()).ask_share("ada"), Release)
    with pytest.raises(StrongroomError):  # one that its owner said nothing of
        cancel(sign_all(shared.world.proposal(title="Another")), RUN)


def test_a_release_of_a_share_that_was_not_logged_is_found_again(shared: Shared) -> None:
    """A power cut may take the entry in the log, and never the release."""
    ada = shared.keepers["ada"]
    request = shared.enclave().share_request("ada")
    found = ada.decide(request)
    assert isinstance(found, Release)
    assert (ada.book.record_lost(), ada.book.record_lost()) == (1, 0)
    assert [d.digest for d in ada.book.decisions()] == [found.envelope.digest]
    ada.book.record(request, found, NOW)


def test_an_exchange_keeps_enrolments_of_who_signed_the_manifest(tmp_path: Path) -> None:
    shared, owner = Shared(), keys_of("hospital").signing
    store = ExchangeStore(tmp_path / "exchange", LOG)
    there = ExchangeClient(client(exchange(store)))
    digest, keyid = shared.manifest.digest, owner.public.keyid
    assert there.enrolment(digest, keyid) is None
    with pytest.raises(NotFound):  # of no manifest that is here
        there.put_enrolment(digest, shared.published, owner.public)
    there.put_manifest(shared.envelope, owner.public)
    there.put_enrolment(digest, shared.published, owner.public)
    there.put_enrolment(digest, shared.published, owner.public)
    assert there.enrolment(digest, keyid) == shared.published
    with pytest.raises(Conflict):  # another dealing of the same epoch
        there.put_enrolment(digest, shared.dealt(NAMES[:3], 2, 1).enrolment, owner.public)
    newer = shared.dealt(NAMES[:3], 2, 2).enrolment
    there.put_enrolment(digest, newer, owner.public)
    assert there.enrolment(digest, keyid) == newer
    with pytest.raises(StrongroomError):
        there.put_enrolment(digest, keys_of("lab").signing.sign(newer.payload_type, newer.payload), owner.public)
    with pytest.raises((BadEnrolment, NotFound)):
        there.put_enrolment(shared.world.assets["model"][0].digest, newer, owner.public)
    store.close()
