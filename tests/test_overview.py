"""What brokers tell an owner of themselves: signed, for this owner and question alone; and what follows from several."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage import InProcess
from strongroom import wire
from strongroom.app.broker.server import broker
from strongroom.app.client import overviews, sharing
from strongroom.app.client.home import PartyHome
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.broker import Release
from strongroom.contract import Grant, Withdrawal
from strongroom.errors import BadField, NotFound, NotPinned, StrongroomError, TooFewShares, Unreachable
from strongroom.holder import hear_grant, take
from strongroom.holding import Says, Taken, Withdrawn
from strongroom.mark import Mark, Place
from strongroom.overview import (
    ContractKnown,
    Inquiry,
    Overview,
    Refused,
    ShareHeld,
    differing,
)
from strongroom.threshold import HolderCard
from strongroom.wire import Envelope
from threshold_world import NAMES, Keeper, Shared, holder_card
from world import LOG, NOW, broker_key, keys_of, seed

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "overview").glob("*.json"))
OWNER = keys_of("hospital")
ADA = broker_key("ada")
ASKED = Inquiry("hospital", ADA.public.keyid, seed("asked"), NOW)
digests = st.binary(max_size=4).map(wire.digest)
names = st.sampled_from(["lab", "hospital", "x.y"])


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    envelope = Envelope.from_json(case[case["operation"]])

    def run() -> None:
        asked = Inquiry.peek(Envelope.from_json(case["inquiry"]))
        if case["operation"] == "inquiry":
            Inquiry.verify(envelope, OWNER.signing.public, broker=ADA.public, at=case["at"])
        else:
            assert Overview.verify(envelope, ADA.public, asked).encode() == envelope.payload

    if case["expect"] == "ok":
        run()
        return
    with pytest.raises(StrongroomError) as caught:
        run()
    assert caught.value.code == case["expect"]


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 8


@given(
    st.builds(ShareHeld, digests, digests, st.integers(1, 9), st.integers(1, 16), st.booleans()),
    st.builds(ContractKnown, digests, st.booleans(), st.booleans(), st.integers(0, 9)),
    st.builds(Withdrawn, digests, names),
    st.builds(Taken, digests, st.integers(1, 9), st.none() | digests),
    st.builds(Refused, digests, st.just("broker.slot_taken"), st.integers(1, 9), st.integers(0, 9)),
    st.integers(0, 9),
)
def test_an_overview_is_read_as_it_was_written(share: Any, contract: Any, left: Any, taken: Any, no: Any, at: int) -> None:
    release = ADA.sign("application/json", b"{}")
    made = Overview(
        "hospital",
        ASKED.nonce,
        at,
        "1.0",
        Place(at, wire.digest(b"head")),
        at,
        (share,),
        (contract,),
        (left,),
        ((share.manifest, taken),),
        (no,),
        (release,),
    )
    assert Overview.verify(made.sign(ADA), ADA.public, ASKED) == made
    assert made.slots(taken.contract, share.manifest) == {taken.slot: taken.keyset}


@given(st.binary(max_size=200))
def test_nonsense_is_no_overview_and_no_inquiry(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Overview.verify(ADA.sign("application/vnd.strongroom.overview.v1+json", data), ADA.public, ASKED)
    with pytest.raises(StrongroomError):
        Inquiry.peek(ADA.sign("application/vnd.strongroom.inquiry.v1+json", data))


def test_who_differs() -> None:
    assert differing([("ada", 1), ("ben", 1)]) == {}
    assert differing([("ada", 1), ("ben", 2), ("cy", 1)]) == {1: ["ada", "cy"], 2: ["ben"]}


# --- brokers in this process ------------------------------------------------------------------------------------------


class Town:
    """The hospital at home, and brokers that hold shares of its records' key, each with a book on disk."""

    def __init__(self, folder: Path) -> None:
        self.books: list[SqliteBook] = []

        def book(name: str) -> SqliteBook:
            self.books.append(SqliteBook(folder / f"{name}.db"))
            return self.books[-1]

        self.shared = Shared(runs=3, book=book)
        self.store = ExchangeStore(folder / "exchange", LOG)
        self.exchange = ExchangeClient(Client("http://exchange", transport=InProcess(exchange(self.store))))
        self.store.put_proposal(self.shared.contract.proposal, self.shared.contract.envelope.signatures[0], NOW)
        self.before: dict[str, Callable[[], None]] = {}
        self.home = PartyHome.create(folder / "hospital", host="127.0.0.1", port=1)
        keys = {"decryption": OWNER.decryption.seed, "signing": OWNER.signing.seed}
        said = {name: wire.b64(value) for name, value in keys.items()}
        (self.home.folder / "keys.json").write_bytes(wire.encode({**said, "name": "hospital"}))
        self.deal(NAMES[:3], 1)

    def deal(self, names: tuple[str, ...], epoch: int) -> None:
        """Keep what was dealt as an owner keeps it. Shares are random: the brokers take these."""
        cards = tuple(holder_card(n) for n in names)
        dealt = self.shared.dealt(names, 2, epoch + 10)
        for name, envelope in zip(names, dealt.deals, strict=True):
            take(envelope, here=self.shared.keepers[name].here, book=self.shared.keepers[name].book, at=NOW)
        self.shared.enrolment = self.shared.verify(dealt.enrolment)
        sharing._save(self.home, sharing.Sharing(self.shared.envelope, dealt, cards, ()))

    def keeper(self, name: str) -> Keeper:
        return self.shared.keepers[name]

    def via(self, address: str) -> Client:
        name = address.removeprefix("https://broker.").removesuffix(".example")
        self.before.get(name, lambda: None)()
        keeper = self.keeper(name)
        return Client("http://b", transport=InProcess(broker(keeper.book, lambda: keeper.here, None)))

    def look(self, seconds: float = 60) -> dict[str, overviews.Looked]:
        cards: tuple[HolderCard, ...] = self.sharing.cards
        found = overviews.look(self.home, self.exchange, cards, via=self.via, seconds=seconds)
        return {one.card.name: one for one in found}

    @property
    def sharing(self) -> sharing.Sharing:
        (found,) = sharing.every(self.home)
        return found

    def compare(self) -> overviews.AssetSeen:
        return overviews.compare(self.home, self.exchange, self.sharing, self.look().values())

    def close(self) -> None:
        self.home.close()
        self.store.close()
        for book in self.books:
            book.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    found = Town(tmp_path)
    yield found
    found.close()


def test_the_owner_sees_all_its_brokers_at_once(town: Town) -> None:
    shared, digest = town.shared, town.shared.contract.digest
    for name in NAMES[:3]:
        assert isinstance(shared.enclave().ask_share(name, 1), Release)
    seen = town.compare()
    (spoken,) = seen.contracts
    assert (spoken.contract, spoken.title) == (digest, shared.contract.proposal.title)
    assert {(r.holder, r.approved, r.given, r.left) for r in spoken.rows} == {(n, True, 1, 2) for n in NAMES[:3]}
    assert len(spoken.unreceipted) == 1
    assert (seen.differences, seen.lies) == ((), ())
    looked = town.look()
    assert {one.state for one in looked.values()} == {"answered"}
    assert all(one.overview and one.overview.software for one in looked.values())


def test_brokers_that_differ_are_shown(town: Town) -> None:
    shared, contract = town.shared, town.shared.contract
    found = Withdrawal(contract.digest, "lab", NOW, "")
    town.keeper("ada").book.withdraw(found, found.sign(keys_of("lab").signing), [shared.manifest.digest])
    grant = Grant(contract.digest, "hospital", 2, seed("grant", 16).hex()).sign(OWNER.signing)
    ben = town.keeper("ben")
    hear_grant(grant, contract.proposal, "hospital", here=ben.here, book=ben.book)
    shared.say(Says.ENDED, ["cy"])
    assert isinstance(shared.enclave().ask_share("ben", 1), Release)
    lines = " ".join(town.compare().differences)
    for word in ("who withdrew", "lab: ada", "granted", "2: ben", "whether it ended", "ended: cy", "how many slots"):
        assert word in lines
    refused = shared.enclave().ask_share("ada", 1)
    assert refused.code == "contract.withdrawn"  # type: ignore[union-attr]


def test_one_slot_at_two_brokers_to_two_keysets_is_shown_and_is_nobodys_lie(town: Town) -> None:
    shared = town.shared
    other = shared.enclave("another", run_id=seed("another run", 16).hex())
    assert isinstance(shared.enclave().ask_share("ada", 1), Release)
    assert isinstance(other.ask_share("ben", 1), Release)
    seen = town.compare()
    assert any("slot 1 was given to two keysets" in line for line in seen.differences)
    assert seen.lies == ()


def test_a_broker_that_gave_a_slot_twice_is_shown_with_both_papers(town: Town) -> None:
    """It forgets what it gave, and tells the owner all the same: its own releases are against it."""
    shared, ada = town.shared, town.keeper("ada")
    other = shared.enclave("another", run_id=seed("another run", 16).hex())
    assert isinstance(shared.enclave().ask_share("ada", 1), Release)
    with ada.book._db.write() as c:
        c.execute("DELETE FROM slots")
    assert isinstance(other.ask_share("ada", 1), Release)
    (lie,) = town.compare().lies
    assert (lie.broker, lie.slot, len(lie.papers)) == (ADA.public, 1, 2)
    for paper in lie.papers:
        ADA.public.verify(paper, paper.payload_type)


def test_an_epoch_that_a_broker_missed_is_shown(town: Town) -> None:
    with pytest.raises(TooFewShares):
        town.shared.recall(["ada"])
    with town.keeper("ben").book._db.write() as c:
        c.execute("DELETE FROM shares")
    lines = " ".join(town.compare().differences)
    assert "ada was told to give nothing more" in lines
    assert "ben says that it has no share" in lines
    sharing._save(town.home, replace(town.sharing, dealt=town.shared.dealt(NAMES[:3], 2, 40)))
    assert "cy has a share of epoch 11 where 40 is the newest" in " ".join(town.compare().differences)


def test_a_dead_broker_and_one_that_never_answers_hold_nothing_up(town: Town) -> None:
    go_on = threading.Event()

    def dead() -> None:
        raise Unreachable("off")

    town.before = {"ada": dead, "ben": lambda: go_on.wait(60) and None}
    try:
        looked = town.look(seconds=3)
        assert (looked["ada"].state, looked["ben"].state, looked["cy"].state) == ("dead", "late", "answered")
        seen = overviews.compare(town.home, town.exchange, town.sharing, looked.values())
        assert [r.holder for r in seen.contracts[0].rows] == ["cy"]
    finally:
        go_on.set()


def test_an_older_broker_answers_and_says_nothing_of_itself(town: Town) -> None:
    def older() -> None:
        raise NotFound("there is nothing at /v1/inquiries")

    town.before = {"ada": older}
    assert town.look()["ada"].state == "older"


def test_a_broker_that_answers_with_anothers_overview_or_an_old_one_says_nothing(town: Town) -> None:
    town.keeper("ada").here = replace(town.keeper("ada").here, broker=broker_key("ben"))
    assert town.look()["ada"].state == "refused"  # it was asked under another key
    old = Overview("hospital", seed("another nonce"), NOW, "1", Place(0, wire.digest(b"")), 0)
    with pytest.raises(BadField):
        Overview.verify(old.sign(ADA), ADA.public, ASKED)
    with pytest.raises(StrongroomError):
        Overview.verify(old.sign(broker_key("ben")), ADA.public, ASKED)


def test_a_broker_whose_own_papers_say_that_it_forgot_is_shown(town: Town) -> None:
    ahead = Mark(ADA.public, 99, wire.digest(b"later"), "", NOW)
    town.exchange.put_mark(ahead, ADA)
    looked = town.look()
    assert looked["ada"].forgot
    assert not looked["ben"].forgot


def test_a_stranger_and_another_owner_learn_nothing(town: Town) -> None:
    ada = town.keeper("ada")
    door = Client("http://b", transport=InProcess(broker(ada.book, lambda: ada.here, None, now=lambda: NOW)))

    def ask(who: str, signer: Any, **changes: Any) -> bytes:
        asked = replace(Inquiry(who, ADA.public.keyid, seed("n"), NOW), **changes)
        return door.post("/v1/inquiries", asked.sign(signer).encode())

    with pytest.raises(NotPinned):
        ask("lab", keys_of("lab").signing)
    with pytest.raises(StrongroomError):
        ask("hospital", keys_of("lab").signing)
    with pytest.raises(BadField):  # a question to another broker, brought here
        ask("hospital", OWNER.signing, broker=broker_key("ben").public.keyid)
    with pytest.raises(BadField):  # an old question
        ask("hospital", OWNER.signing, at=NOW - 301)
    assert ask("hospital", OWNER.signing)
    # another owner that is pinned too sees its own, which is nothing
    ada.here = replace(ada.here, trust=town.shared.world.trust())
    asked = Inquiry("lab", ADA.public.keyid, seed("n"), NOW)
    envelope = Envelope.parse(door.post("/v1/inquiries", asked.sign(keys_of("lab").signing).encode()))
    found = Overview.verify(envelope, ADA.public, asked)
    assert (found.shares, found.contracts, found.taken, found.releases, found.refused) == ((), (), (), (), ())
