"""Brokers that hold shares and were put back from backups; what goes with the shares; and brokers of other versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strongroom import wire
from strongroom.app.stores.book import SqliteBook
from strongroom.broker import Refusal, Release
from strongroom.contract import Contract, Withdrawal
from strongroom.dealing import collect
from strongroom.errors import BadField, BadShare, BookRestored, StrongroomError, TooFewShares
from strongroom.holder import give_back, hear, take
from strongroom.holding import DEAL_PURPOSE, RECALLED_PURPOSE, Deal, Recall, Recalled, Says, Taken, Withdrawn, Word
from strongroom.proof import Papers
from strongroom.release import RELEASE_TYPE, ReleaseStatement
from strongroom.wire import Envelope, Fields
from threshold_world import NAMES, Keeper, Shared
from world import NOW, broker_key, keys_of, seed, sign_all

OWNER = keys_of("hospital")
OTHER_RUN = seed("another run", 16).hex()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    opened: list[SqliteBook] = []

    def book(name: str) -> SqliteBook:
        opened.append(SqliteBook(tmp_path / f"{name}.db"))
        return opened[-1]

    yield Shared(runs=2, book=book)
    for found in opened:
        found.close()


def code(found: Release | Refusal) -> str:
    return found.code if isinstance(found, Refusal) else ""


def put_back(shared: Shared, *names: str) -> None:
    """Their books are as before the first share was given, and their owners confirmed it."""
    for name in names:
        book = shared.keepers[name].book
        with book._db.write() as c:
            for table in ("runs", "slots", "given"):
                c.execute(f"DELETE FROM {table}")
        book.marks.confirm(None, shared.world.clock())


def put_back_empty(shared: Shared, *names: str) -> dict[str, Envelope]:
    """Their books are as before they were dealt anything, and confirmed. What they had been dealt, as it came."""
    dealt = {}
    for name in names:
        book = shared.keepers[name].book
        dealt[name] = book.share(shared.manifest.digest).deal.sign(OWNER.signing)
        with book._db.write() as c:
            for table in ("runs", "slots", "given", "shares", "words", "over", "counted"):
                c.execute(f"DELETE FROM {table}")
        book.marks.confirm(None, shared.world.clock())
    return dealt


def take_again(shared: Shared, name: str, deal: Envelope) -> None:
    """Anybody can send it: it is the owner's, whoever brings it."""
    keeper = shared.keepers[name]
    take(deal, here=keeper.here, book=keeper.book, at=shared.world.clock())


def renew(shared: Shared, names: tuple[str, ...], *, recalled: tuple[str, ...] = NAMES[:3]) -> Any:
    """Deal anew, out of what these brokers gave back."""
    found = shared.recall(recalled)
    more = {"taken": found.taken, "withdrawn": found.withdrawn, "over": found.over, "heard": found.heard}
    shared.deal(names, shared.enrolment.threshold, shared.enrolment.epoch + 1, **more)
    shared.say(Says.APPROVED, names)
    return found


def anew(shared: Shared) -> Contract:
    """A contract that began after everything else."""
    shared.world.clock.now += 1
    at = shared.world.clock()
    shared.contract = sign_all(shared.world.proposal(title="Anew", created_at=at, not_before=at))
    shared.say(Says.APPROVED, [h.name for h in shared.enrolment.holders])
    return shared.contract


def test_a_restored_broker_gives_no_slot_until_its_share_is_dealt_anew(shared: Shared) -> None:
    assert isinstance(shared.enclave().ask_share("ada", 1), Release)
    put_back(shared, "ada")
    other = shared.enclave("other", OTHER_RUN)
    assert code(other.ask_share("ada", 1)) == "broker.wrong_epoch"
    assert code(other.ask_share("ben", 1)) == ""  # the others go on
    found = renew(shared, NAMES[:3])
    assert (found.over, set(found.restored)) == (0, {"ada"})
    assert code(other.ask_share("ada", 1)) == BookRestored.code  # a contract from before: what it gave is not known to it
    assert code(other.ask_share("cy", 1)) == ""
    anew(shared)
    assert code(shared.enclave().ask_share("ada", 1)) == ""


def test_brokers_restored_together_and_a_new_one_give_no_slot_twice(shared: Shared) -> None:
    """Slot 1 has opened by ada and ben, who forget it; cy never heard of it, and dee and eve are new."""
    first = shared.enclave()
    assert [code(first.ask_share(name, 1)) for name in ("ada", "ben")] == ["", ""]
    put_back(shared, "ada", "ben")
    found = renew(shared, ("cy", "dee", "eve"))
    assert (found.taken, found.over) == ((), NOW)
    other = shared.enclave("other", OTHER_RUN)
    assert [code(other.ask_share(name, 1)) for name in ("cy", "dee", "eve")] == [BookRestored.code] * 3
    # it is remembered over later dealings, among brokers that none of them was
    assert renew(shared, NAMES[:3], recalled=("cy", "dee", "eve")).over == NOW
    assert [code(other.ask_share(name, 1)) for name in NAMES[:3]] == [BookRestored.code] * 3
    anew(shared)
    assert [code(shared.enclave().ask_share(name, 1)) for name in NAMES[:3]] == ["", "", ""]


def test_once_enough_others_counted_a_restored_broker_counts_in_full_again(shared: Shared) -> None:
    put_back(shared, "ada")
    renew(shared, NAMES[:3])
    anew(shared)
    assert isinstance(shared.enclave().ask_share("ada", 1), Release)
    assert renew(shared, NAMES[:3]).restored == {}


def test_a_deal_that_comes_again_does_not_say_that_a_restored_broker_knows_what_it_gave(shared: Shared) -> None:
    """Slot 1 has opened by ada and ben. Ada's book is from before its share came, and somebody sends the share again."""
    first = shared.enclave()
    released = first.ask_share("ada", 1)
    assert [code(found) for found in (released, first.ask_share("ben", 1))] == ["", ""]
    again = put_back_empty(shared, "ada")["ada"]
    take_again(shared, "ada", again)
    ada = shared.keepers["ada"]
    order = Recall(shared.manifest.digest, "hospital", 1).sign(OWNER.signing)
    answer = give_back(order, here=ada.here, book=ada.book)
    found = papers(shared)
    assert found.release(released.envelope, broker_key("ada").public)
    found.account(answer, shared.enrolment, 1, NOW)
    assert found.lies() == []  # it does not account for what it lost
    assert renew(shared, ("cy", "dee", "eve"), recalled=("ada", "cy")).over == NOW
    other = shared.enclave("other", OTHER_RUN)
    assert [code(other.ask_share(name, 1)) for name in ("cy", "dee", "eve")] == [BookRestored.code] * 3


def test_a_deal_that_heard_of_one_restore_says_nothing_of_the_next(shared: Shared) -> None:
    """The share came with the owner's word that it knows of the first; it was given by, and forgotten again."""
    put_back(shared, "ada")
    renew(shared, NAMES[:3])
    anew(shared)
    first = shared.enclave()
    assert [code(first.ask_share(name, 1)) for name in ("ada", "ben")] == ["", ""]
    shared.world.clock.now += 1
    again = put_back_empty(shared, "ada")["ada"]
    take_again(shared, "ada", again)
    assert renew(shared, ("cy", "dee", "eve"), recalled=("ada", "cy")).over == shared.world.clock()
    other = shared.enclave("other", OTHER_RUN)
    assert [code(other.ask_share(name, 1)) for name in ("cy", "dee", "eve")] == [BookRestored.code] * 3


def test_a_restored_broker_whose_share_came_again_counts_in_full_once_its_owner_knows(shared: Shared) -> None:
    again = put_back_empty(shared, "ada")["ada"]
    take_again(shared, "ada", again)
    assert set(renew(shared, NAMES[:3]).restored) == {"ada"}
    assert renew(shared, NAMES[:3]).restored == {}


def false_account(shared: Shared, restored: int) -> dict[int, Envelope]:
    """The answers of all three, of which ada's is as given."""
    order = Recall(shared.manifest.digest, "hospital", 1).sign(OWNER.signing)
    keepers = list(shared.keepers.values())
    answers = {i: give_back(order, here=k.here, book=k.book) for i, k in enumerate(keepers[1:], 2)}
    return {1: account(shared, (), restored=restored), **answers}


@pytest.mark.parametrize(("restored", "bad"), [(1 << 50, True), (NOW + 301, True), (NOW + 300, False), (NOW, False)])
def test_a_false_time_in_one_account_ends_no_contract(shared: Shared, restored: int, bad: bool) -> None:
    found = collect(shared.enrolment, shared.manifest, false_account(shared, restored), OWNER.decryption, NOW)
    assert found.over == 0
    assert set(found.bad) == ({"ada"} if bad else set())
    assert set(found.restored) == (set() if bad else {"ada"})


def test_a_false_time_in_one_of_just_enough_accounts_ends_nothing_that_is_to_come(shared: Shared) -> None:
    answers = false_account(shared, 1 << 50)
    del answers[3]
    with pytest.raises(TooFewShares, match=r"ada.*recalled\.restored"):
        collect(shared.enrolment, shared.manifest, answers, OWNER.decryption, NOW)


def test_what_enough_others_know_is_not_over_because_one_lost_more(shared: Shared) -> None:
    """Each says that it lost something; of what began after the earlier two times two of them know all."""
    order = Recall(shared.manifest.digest, "hospital", 1).sign(OWNER.signing)
    answers = {1: account(shared, (), restored=NOW)}
    for index, name, at in ((2, "ben", NOW - 50), (3, "cy", NOW - 90)):
        with shared.keepers[name].book.transaction() as page:
            page.learn(shared.manifest.digest, "hospital", (), at, 0)
        answers[index] = give_back(order, here=shared.keepers[name].here, book=shared.keepers[name].book)
    found = collect(shared.enrolment, shared.manifest, answers, OWNER.decryption, NOW)
    assert (found.over, len(found.restored)) == (NOW - 50, 3)


def test_a_deal_that_ends_what_is_to_come_is_not_taken(shared: Shared) -> None:
    shared.recall(NAMES[:3])
    ada = shared.keepers["ada"]
    deal = shared.dealt(NAMES[:3], 2, 2, over=NOW + 301).deals[0]
    with pytest.raises(BadField):
        take(deal, here=ada.here, book=ada.book, at=NOW)
    take(deal, here=ada.here, book=ada.book, at=NOW + 1)  # its clock was behind


def test_an_account_that_lost_what_is_to_come_excuses_nobody(shared: Shared) -> None:
    found, released = papers(shared), gave(shared, "ada", A)
    assert found.release(released, broker_key("ada").public)
    with pytest.raises(BadField):
        found.account(account(shared, (), restored=1 << 50), shared.enrolment, 1, NOW)


def test_a_withdrawal_that_a_new_broker_was_never_told_holds_there(shared: Shared) -> None:
    """The lab told ada and ben; the owner knows nothing, deals to others, and says that it approved."""
    found = Withdrawal(shared.contract.digest, "lab", NOW, "")
    for name in ("ada", "ben"):
        shared.keepers[name].book.withdraw(found, found.sign(keys_of("lab").signing), [shared.manifest.digest])
    collected = renew(shared, ("cy", "dee", "eve"), recalled=("ben", "cy"))
    assert collected.withdrawn == (Withdrawn(shared.contract.digest, "lab"),)
    asker = shared.enclave()
    assert [code(asker.ask_share(name, 1)) for name in ("cy", "dee", "eve")] == ["contract.withdrawn"] * 3
    assert renew(shared, NAMES[:3], recalled=("cy", "dee", "eve")).withdrawn == collected.withdrawn


def test_another_owners_deal_ends_no_contract_of_mine(shared: Shared) -> None:
    ada = shared.keepers["ada"]
    with ada.book.transaction() as page:
        page.learn(shared.manifest.digest, "lab", [Withdrawn(shared.contract.digest, "hospital")], 0, 0)
    assert code(shared.enclave().ask_share("ada", 1)) == ""


def test_an_account_of_a_broker_that_was_never_told_of_a_contract_still_names_who_withdrew(shared: Shared) -> None:
    with shared.keepers["ada"].book.transaction() as page:
        assert page.withdrawn(shared.manifest.digest, "hospital") == []
    other = wire.digest(b"a contract of somebody else, on something else")
    found = Withdrawal(other, "lab", NOW, "")
    shared.keepers["ada"].book.withdraw(found, found.sign(keys_of("lab").signing), [wire.digest(b"other")])
    with shared.keepers["ada"].book.transaction() as page:
        assert page.withdrawn(shared.manifest.digest, "hospital") == []
    shared.keepers["ada"].book.withdraw(found, found.sign(keys_of("lab").signing), [shared.manifest.digest])
    with shared.keepers["ada"].book.transaction() as page:
        assert page.withdrawn(shared.manifest.digest, "hospital") == [Withdrawn(other, "lab")]


# --- brokers and owners of the version before -------------------------------------------------------------------------


def older_deal(data: bytes) -> Deal:
    """A deal as brokers read it before there was anything to say of withdrawals and restored books."""
    f = Fields(wire.decode(data), "deal")
    f.literal("purpose", DEAL_PURPOSE)
    found = Deal(
        Envelope.from_json(f.any("enrolment")),
        Envelope.from_json(f.any("manifest")),
        f.integer("index"),
        f.base64("share", max_bytes=4096),
        f.items("taken", Taken.from_json),
    )
    f.end()
    return found


def older_account(data: bytes) -> None:
    f = Fields(wire.decode(data), "recalled")
    f.literal("purpose", RECALLED_PURPOSE)
    for name in ("enrolment", "index", "share", "taken"):
        f.any(name)
    f.end()


class Older(Keeper):
    """A broker of the version before."""

    def take(self, envelope: Envelope) -> None:
        older_deal(envelope.payload)
        take(envelope, here=self.here, book=self.book, at=self.world.clock())

    def give_back(self, order: Envelope) -> Envelope:
        """It knows withdrawals, and has no way to say so."""
        answer = give_back(order, here=self.here, book=self.book)
        said = wire.decode(answer.payload)
        assert isinstance(said, dict)
        known = {name: said[name] for name in ("enrolment", "index", "purpose", "share", "taken")}
        return self.here.broker.sign(answer.payload_type, wire.encode(known))


def test_an_older_broker_among_newer_ones_takes_gives_and_accounts(shared: Shared) -> None:
    """As long as there is nothing to say that it would not understand, both forms are the same bytes."""
    old = Older(shared.world, "ada", shared.keepers["ada"].book)
    enclave = shared.enclave()
    assert [code(enclave.ask_share(name, 1)) for name in ("ada", "ben")] == ["", ""]
    order = Recall(shared.manifest.digest, "hospital", 1).sign(OWNER.signing)
    answers = {
        1: old.give_back(order),
        2: give_back(order, here=shared.keepers["ben"].here, book=shared.keepers["ben"].book),
    }
    for answer in answers.values():
        older_account(answer.payload)
    found = collect(shared.enrolment, shared.manifest, answers, OWNER.decryption, NOW)
    dealt = shared.dealt(NAMES[:3], 2, 2, taken=found.taken, withdrawn=found.withdrawn, over=found.over)
    old.take(dealt.deals[0])
    for name, envelope in zip(NAMES[1:3], dealt.deals[1:], strict=True):
        take(envelope, here=shared.keepers[name].here, book=shared.keepers[name].book, at=shared.world.clock())
    shared.enrolment = shared.verify(dealt.enrolment)
    other = shared.enclave("other", OTHER_RUN)
    assert [code(other.ask_share(name, 1)) for name in NAMES[:3]] == ["broker.slot_taken"] * 3
    assert [code(other.ask_share(name, 2)) for name in NAMES[:3]] == ["", "", ""]


@pytest.mark.parametrize(
    "more",
    [{"withdrawn": (Withdrawn(wire.digest(b"c"), "lab"),)}, {"over": NOW}, {"heard": {broker_key("ada").public.keyid: NOW}}],
)
def test_an_older_broker_takes_no_deal_that_says_what_it_would_not_heed(shared: Shared, more: dict[str, Any]) -> None:
    """It keeps to the epoch before, which was recalled: it is as a dead one until it is updated."""
    old = Older(shared.world, "ada", shared.keepers["ada"].book)
    shared.recall(NAMES[:3])
    with pytest.raises(BadField):
        old.take(shared.dealt(NAMES[:3], 2, 2, **more).deals[0])
    assert code(shared.enclave().ask_share("ada", 1)) == "broker.wrong_epoch"


def test_an_owner_of_the_version_before_names_the_broker_that_says_more(shared: Shared) -> None:
    found = Withdrawal(shared.contract.digest, "lab", NOW, "")
    ada = shared.keepers["ada"]
    ada.book.withdraw(found, found.sign(keys_of("lab").signing), [shared.manifest.digest])
    order = Recall(shared.manifest.digest, "hospital", 1).sign(OWNER.signing)
    with pytest.raises(BadField):  # it does not deal without what it was not told
        older_account(give_back(order, here=ada.here, book=ada.book).payload)


@pytest.mark.parametrize(
    "changes",
    [
        {"withdrawn": []},
        {"over": 0},
        {"restored": 0},
        {"withdrawn": [{"contract": wire.digest(b"c"), "party": "lab"}] * 2},
        {"withdrawn": [{"contract": wire.digest(b"c"), "party": "lab", "more": 1}]},
    ],
)
def test_what_says_nothing_is_not_written(shared: Shared, changes: dict[str, Any]) -> None:
    good = wire.decode(shared.dealt(NAMES[:3], 2, 2).deals[0].payload)
    assert isinstance(good, dict)
    assert "withdrawn" not in good
    assert "over" not in good
    with pytest.raises(BadField):
        Deal.parse(wire.encode({**good, **changes}))


# --- what signed papers prove -----------------------------------------------------------------------------------------


def papers(shared: Shared) -> Papers:
    return Papers(shared.manifest.digest, "hospital", OWNER.signing.public)


def gave(shared: Shared, name: str, keyset: bytes, slot: int = 1, epoch: int = 1, at: int = NOW) -> Envelope:
    """A release that a broker signs whatever its book says."""
    asker = shared.enclave()
    found = asker.ask_share(name, 1)
    assert isinstance(found, Release)
    said = ReleaseStatement.verify(found.envelope, broker_key(name).public)
    assert said.part is not None
    lied = replace(said, keyset_digest=wire.digest(keyset), part=replace(said.part, slot=slot, epoch=epoch), at=at)
    return broker_key(name).sign(RELEASE_TYPE, lied.encode())


def account(shared: Shared, taken: tuple[Taken, ...], restored: int = 0) -> Envelope:
    ada = shared.keepers["ada"]
    assert ada.here.shares is not None
    share = ada.book.share(shared.manifest.digest).deal.open(
        shared.enrolment, broker=ada.here.broker.public, key=ada.here.shares
    )
    owner = OWNER.decryption.public
    made = Recalled.make(shared.enrolment, share, taken, broker=ada.here.broker.public, owner=owner, restored=restored)
    return made.sign(ada.here.broker)


A, B = b"an enclave", b"another enclave"


def of(shared: Shared, keyset: bytes | None, slot: int = 1) -> Taken:
    return Taken(shared.contract.digest, slot, None if keyset is None else wire.digest(keyset))


Case = Callable[[Shared, Papers], None]


def twice(s: Shared, p: Papers) -> None:
    for keyset, epoch in ((A, 1), (B, 3)):
        p.release(gave(s, "ada", keyset, epoch=epoch), broker_key("ada").public)


def unaccounted(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.account(account(s, ()), s.enrolment, 1, NOW)


def accounted_to_another(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.account(account(s, (of(s, B),)), s.enrolment, 1, NOW)


def against_a_deal(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.deal(s.dealt(NAMES[:3], 2, 1, taken=(of(s, B),)).deals[0])


def forgot_a_deal(s: Shared, p: Papers) -> None:
    s.deal(NAMES[:3], 2, 2, taken=(of(s, B),))
    made = s.dealt(NAMES[:3], 2, 3, taken=(of(s, B),))
    for name, envelope in zip(NAMES[:3], made.deals, strict=True):
        take(envelope, here=s.keepers[name].here, book=s.keepers[name].book, at=s.world.clock())
    s.enrolment = s.verify(made.enrolment)
    p.deal(made.deals[0])
    p.account(account(s, ()), s.enrolment, 1, NOW)


@pytest.mark.parametrize("case", [twice, unaccounted, accounted_to_another, against_a_deal, forgot_a_deal])
def test_two_papers_of_which_one_is_a_lie_name_the_broker(shared: Shared, case: Case) -> None:
    found = papers(shared)
    case(shared, found)
    (lie,) = found.lies()
    assert (lie.broker, lie.contract, lie.slot) == (broker_key("ada").public, shared.contract.digest, 1)
    assert len(lie.papers) == 2


def same_again(s: Shared, p: Papers) -> None:
    twice_ = [gave(s, "ada", A), gave(s, "ada", A, epoch=2)]
    for envelope in twice_:
        p.release(envelope, broker_key("ada").public)


def accounted(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.account(account(s, (of(s, A),)), s.enrolment, 1, NOW)


def spoiled(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.account(account(s, (of(s, None),)), s.enrolment, 1, NOW)


def lost(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.account(account(s, (), restored=NOW), s.enrolment, 1, NOW)


def later(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A, epoch=2), broker_key("ada").public)
    p.account(account(s, ()), s.enrolment, 1, NOW)


def restored_in_between(s: Shared, p: Papers) -> None:
    """Nobody else had heard of what it gave; its account of the next epoch is whole by what it was told."""
    found = s.enclave().ask_share("ada", 1)
    assert isinstance(found, Release)
    p.release(found.envelope, broker_key("ada").public)
    put_back(s, "ada")
    for epoch in (1, 2):
        order = Recall(s.manifest.digest, "hospital", epoch).sign(OWNER.signing)
        ada = s.keepers["ada"]
        p.account(give_back(order, here=ada.here, book=ada.book), s.enrolment, 1, NOW)
        renew(s, NAMES[:3])


def of_two_brokers(s: Shared, p: Papers) -> None:
    p.release(gave(s, "ada", A), broker_key("ada").public)
    p.release(gave(s, "ben", B), broker_key("ben").public)


@pytest.mark.parametrize("case", [same_again, accounted, spoiled, lost, later, restored_in_between, of_two_brokers])
def test_honest_papers_prove_nothing(shared: Shared, case: Case) -> None:
    found = papers(shared)
    case(shared, found)
    assert found.lies() == []


def test_papers_of_others_are_not_taken(shared: Shared) -> None:
    found, release = papers(shared), gave(shared, "ada", A)
    with pytest.raises(StrongroomError):
        found.release(release, broker_key("ben").public)
    with pytest.raises(StrongroomError):
        found.account(account(shared, ()), shared.enrolment, 2, NOW)
    with pytest.raises((StrongroomError, BadShare)):
        found.deal(keys_of("lab").signing.sign("application/vnd.strongroom.deal.v1+json", b"{}"))
    other = Papers(wire.digest(b"another asset"), "hospital", OWNER.signing.public)
    assert not other.release(release, broker_key("ada").public)


def test_a_word_is_heard_by_those_that_were_restored_too(shared: Shared) -> None:
    put_back(shared, "ada")
    word = Word(shared.contract.digest, "hospital", Says.ENDED, NOW).sign(OWNER.signing)
    ada = shared.keepers["ada"]
    hear(word, shared.contract.proposal, here=ada.here, book=ada.book)
    assert ada.book.standing(shared.contract.digest, "hospital").ended_by is not None
