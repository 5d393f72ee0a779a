"""The law of shared keys, with everything going wrong at once: brokers crash, are lost and replaced, are put back from
backups, shares are dealt anew, answers are lost, parties withdraw and tell few, enclaves race, and brokers lie.

While fewer than ``2t - n`` brokers lie, each slot of a contract leads to a key in one enclave at most; and a withdrawal
holds from when ``n - t + 1`` honest brokers knew it, whoever holds shares later. With more liars the first breaks, and
signed papers name a liar. What enclaves do here is what an attested enclave does: it combines shares of one slot and epoch.
How they come by them is the attacker's choice.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from strongroom.broker import Refusal, Release
from strongroom.contract import Contract, Limits, Withdrawal
from strongroom.dealing import collect
from strongroom.errors import BadRelease, StrongroomError, TooFewShares, Unreachable
from strongroom.holder import give_back, hear, take
from strongroom.holding import Deal, Recall, Recalled, Says, Word
from strongroom.proof import Papers
from strongroom.release import PartAsked, ReleaseStatement, gave_twice
from strongroom.threshold import Enrolment
from strongroom.wire import Envelope
from threshold_world import NAMES, Keeper, ShareAsker, Shared
from world import Entropy, Fault, Faults, MemoryBook, broker_key, keys_of, seed, sign_all

SHAPES = [(1, 1), (2, 2), (2, 3), (3, 4), (3, 5), (4, 5)]
ENCLAVES = ("e1", "e2", "e3", "e4")
OWNER = keys_of("hospital")
SPARE = tuple(f"spare{i}" for i in range(4))

CONTRACTS = 3


class Given(NamedTuple):
    """Who gave it, of which epoch, under which contract, for which slot, to whom."""

    name: str
    epoch: int
    contract: str
    slot: int
    enclave: str


class Liar:
    """A broker that obeys nobody: it kept every share that it was ever dealt, and gives each to whoever asks."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper, self.deals = keeper, dict[str, Deal]()

    def remember(self, manifest: str) -> None:
        held = self.keeper.book.share(manifest)
        if held is not None:
            self.deals[held.deal.enrolment.digest] = held.deal

    def forget(self, manifest: str, enrolment: str) -> bool:
        """Be as it was when this epoch's share had just come; whether there is one."""
        if enrolment not in self.deals:
            return False
        s = self.keeper.book._state
        s.shares[manifest] = replace(s.shares[manifest], deal=self.deals[enrolment], recalled=False)
        s.slots.clear()
        s.runs.clear()
        s.releases.clear()
        s.withdrawn.clear()
        s.told.clear()
        s.over.clear()
        s.counted.clear()
        return True


class Ledger:
    """What was given, and what follows."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self.releases: list[tuple[str, Envelope]] = []

    def opened(self, thresholds: dict[int, int], since: int = 0) -> set[tuple[str, int, str]]:
        """Every (contract, slot, enclave) that has enough shares of one epoch, counting those given since."""
        count: defaultdict[tuple[int, str, int, str], set[str]] = defaultdict(set)
        for name, epoch, contract, slot, enclave in self.given[since:]:
            count[epoch, contract, slot, enclave].add(name)
        return {
            (contract, slot, enclave)
            for (epoch, contract, slot, enclave), names in count.items()
            if len(names) >= thresholds[epoch]
        }


class Sharing(RuleBasedStateMachine):
    """Brokers, owner and enclaves; fewer than ``2t - n`` brokers lie."""

    def most_liars(self, t: int, n: int) -> int:
        return max(0, 2 * t - n - 1)

    @initialize(shape=st.sampled_from(SHAPES), runs=st.integers(1, 2), data=st.data())
    def begin(self, shape: tuple[int, int], runs: int, data: st.DataObject) -> None:
        t, n = shape
        self.faults, self.runs = Faults(), runs
        self.shared = Shared(NAMES[:n], t, runs=runs, book=self.book)
        most = self.most_liars(t, n)
        names = data.draw(st.lists(st.sampled_from(NAMES[:n]), max_size=most, unique=True)) if most else []
        self.liars = {name: Liar(self.shared.keepers[name]) for name in names}
        self.dead: set[str] = set()
        self.enrolments = {1: self.shared.enrolment}
        self.deals: dict[str, Envelope] = {}  # the newest deal of each broker that did not take it yet
        self.ledger = Ledger()
        self.contracts: list[Contract] = []
        self.enclaves: dict[tuple[str, str], ShareAsker] = {}
        self.withdrawn_since: dict[str, int] = {}  # contract -> how much had been given when enough honest brokers knew it
        self.backups: dict[str, list[Any]] = {}
        self.papers = Papers(self.shared.manifest.digest, "hospital", OWNER.signing.public)
        self.agreed()
        for name in NAMES[:n]:
            self.back_up(name)
        self.spare = list(SPARE)
        for liar in self.liars.values():
            liar.remember(self.shared.manifest.digest)

    def book(self, name: str) -> MemoryBook:
        return MemoryBook(Entropy(f"{name}'s book"), faults=self.faults, place=name)

    def agreed(self) -> None:
        """The newest contract, and enclaves that somebody starts for it."""
        contract = self.shared.contract
        self.contracts.append(contract)
        for e in ENCLAVES:
            self.enclaves[contract.digest, e] = ShareAsker(self.shared, e, run_id=seed(f"run of {e}", 16).hex())

    # --- enclaves and the hosts that start them ---

    @rule(
        enclave=st.sampled_from(ENCLAVES),
        which=st.integers(0, 4),
        slot=st.none() | st.integers(1, 3),
        old=st.integers(0, 2),
        fault=st.sampled_from([None, None, None, Fault.NOT_DONE, Fault.LOST]),
        back=st.integers(0, CONTRACTS - 1),
    )
    def ask(self, enclave: str, which: int, slot: int | None, old: int, fault: Fault | None, back: int = 0) -> None:
        """Somebody's enclave asks some broker for a share of some epoch, for some slot."""
        epoch = max(1, max(self.enrolments) - old)
        enrolment = self.enrolments[epoch]
        holder = enrolment.holders[which % len(enrolment.holders)]
        if holder.name in self.dead:
            return
        keeper = self.shared.keepers[holder.name]
        if holder.name in self.liars and not self.liars[holder.name].forget(self.shared.manifest.digest, enrolment.digest):
            return
        contract = self.contracts[max(0, len(self.contracts) - 1 - back)].digest
        asker = self.enclaves[contract, enclave]
        request = asker.share_request(holder.name, PartAsked(enrolment.digest, slot))
        if fault is not None:
            self.faults.plan(holder.name, fault)
        try:
            found = keeper.decide(request)
        except Unreachable:
            return  # it crashed: before the release was written, or after
        finally:
            self.faults._due.clear()
        if isinstance(found, Refusal):
            return
        self.gave(holder.name, found, contract, enclave)

    def gave(self, name: str, release: Release, contract: str, enclave: str) -> None:
        part = ReleaseStatement.verify(release.envelope, broker_key(name).public).part
        assert part is not None
        self.ledger.given.append(Given(name, part.epoch, contract, part.slot, enclave))
        self.ledger.releases.append((name, release.envelope))
        assert self.papers.release(release.envelope, broker_key(name).public)

    @rule(
        enclave=st.sampled_from(ENCLAVES),
        slot=st.integers(1, 2),
        order=st.permutations(range(5)),
        most=st.integers(1, 5),
        back=st.integers(0, 1),
    )
    def ask_many(self, enclave: str, slot: int, order: list[int], most: int, back: int) -> None:
        """Somebody's enclave asks one broker after the other for one slot, and may stop before it has enough."""
        for which in order[:most]:
            if which < len(self.shared.enrolment.holders):
                self.ask(enclave, which, slot, 0, None, back)

    # --- brokers die and come back ---

    @rule(name=st.sampled_from(NAMES))
    def die(self, name: str) -> None:
        """A broker is gone, of those without which enough are left."""
        now = [h.name for h in self.shared.enrolment.holders]
        if name in now and len(self.dead & set(now)) < len(now) - self.shared.enrolment.threshold:
            self.dead.add(name)

    @rule()
    @precondition(lambda self: self.dead)
    def come_back(self) -> None:
        self.dead.discard(min(self.dead))

    @rule(name=st.sampled_from(NAMES))
    def back_up(self, name: str) -> None:
        """Somebody copies an honest broker's book."""
        if name in self.shared.keepers and name not in self.liars:
            kept = self.backups.setdefault(name, [])
            kept.append(deepcopy(self.shared.keepers[name].book._state))
            del kept[1:-1]

    @rule(which=st.integers(0, 9), older=st.sampled_from([0, -1, None]))
    @precondition(lambda self: any(self.backups.values()))
    def put_back(self, which: int, older: int | None) -> None:
        """It is put back, which its mark tells, and its owner confirms. What it forgot it gave to nobody else."""
        name = sorted(self.backups)[which % len(self.backups)]
        book = type(self.shared.keepers[name].book)(Entropy("new"))._state if older is None else self.backups[name][older]
        self.shared.world.clock.now += 1
        self.shared.keepers[name].book.put_back(book, self.shared.world.clock())

    @rule(which=st.integers(0, 99))
    def deal_again(self, which: int) -> None:
        """Somebody brings a broker what it was dealt once more."""
        name, deal = self.shared.sent[which % len(self.shared.sent)]
        keeper = self.shared.keepers[name]
        if name not in self.liars and name not in self.dead:
            with suppress(StrongroomError):
                take(deal, here=keeper.here, book=keeper.book, at=self.shared.world.clock())

    @rule(count=st.integers(1, 5), sure=st.integers(0, 2))
    def put_back_together(self, count: int, sure: int) -> None:
        """The first of them, as after a fire."""
        for holder in self.shared.enrolment.holders[: count if sure == 2 else 0]:
            if holder.name in self.backups and holder.name not in self.dead:
                self.put_back(sorted(self.backups).index(holder.name), 0)

    # --- the owner ---

    @rule()
    @precondition(lambda self: len(self.contracts) < CONTRACTS)
    def agree_anew(self) -> None:
        """Another contract: the brokers that are there are told."""
        shared = self.shared
        shared.world.clock.now += 1
        at = shared.world.clock()
        limits = Limits(self.runs, 300, 1 << 30)
        shared.contract = sign_all(
            shared.world.proposal(title=f"Contract {len(self.contracts)}", created_at=at, not_before=at, limits=limits)
        )
        self.agreed()
        for holder in shared.enrolment.holders:
            if holder.name in shared.keepers and holder.name not in self.dead:
                self.say(holder.name)

    def say(self, name: str) -> None:
        """The owner says that it approved, and knows of no withdrawal: who withdrew told brokers alone."""
        keeper = self.shared.keepers[name]
        for contract in self.contracts:
            word = Word(contract.digest, "hospital", Says.APPROVED, self.shared.world.clock()).sign(OWNER.signing)
            hear(word, contract.proposal, here=keeper.here, book=keeper.book)

    @rule(name=st.sampled_from(NAMES))
    def tell_again(self, name: str) -> None:
        if name in self.shared.keepers and name not in self.dead:
            self.say(name)

    @rule(shape=st.none() | st.sampled_from(SHAPES), replaced=st.integers(0, 2), order=st.randoms(use_true_random=False))
    def deal_anew(self, shape: tuple[int, int] | None, replaced: int, order: Any) -> None:
        """Refresh, replace, change t and n: all the same to the owner."""
        before = self.shared.enrolment
        alive = [h.name for h in before.holders if h.name not in self.dead]
        order.shuffle(alive)
        try:
            found = self.collected(before, alive[: order.randint(before.threshold, len(alive))] if alive else [])
        except TooFewShares:
            return  # a broker has not taken this epoch's share yet: the owner tries again
        t, n = shape or (before.threshold, len(before.holders))
        names = [h.name for h in before.holders]
        names += [x for x in NAMES if x not in names]
        for _ in range(replaced):
            if self.spare and names[0] not in self.liars:
                names = [*names[1:], self.spare.pop()] if len(names) < n else [self.spare.pop(), *names[1:]]
        names = names[:n]
        if len(names) < n or len(set(names) & set(self.liars)) > self.most_liars(t, n):
            return  # more liars than the law allows
        made = self.shared.dealt(
            names, t, before.epoch + 1, taken=found.taken, withdrawn=found.withdrawn, over=found.over, heard=found.heard
        )
        self.shared.enrolment = self.enrolments[before.epoch + 1] = self.shared.verify(made.enrolment)
        self.deals = dict(zip(names, made.deals, strict=True))
        self.dead &= set(names[: n - t])  # nobody is dead that must not be
        for name in names:
            if name not in self.dead:
                self.deliver(name)

    def collected(self, enrolment: Enrolment, names: list[str]) -> Any:
        order = Recall(self.shared.manifest.digest, "hospital", enrolment.epoch).sign(OWNER.signing)
        answers = {}
        for index, holder in enumerate(enrolment.holders, 1):
            keeper = self.shared.keepers.get(holder.name)
            if holder.name not in names or keeper is None:
                continue
            if holder.name in self.liars:
                if not self.liars[holder.name].forget(self.shared.manifest.digest, enrolment.digest):
                    continue
                answers[index] = self.lie(enrolment, holder.name)
                continue
            try:
                answers[index] = give_back(order, here=keeper.here, book=keeper.book)
            except StrongroomError:
                continue  # it has the share of another epoch
        for index, envelope in answers.items():
            self.papers.account(envelope, enrolment, index, self.shared.world.clock())
        return collect(enrolment, self.shared.manifest, answers, OWNER.decryption, self.shared.world.clock())

    def lie(self, enrolment: Enrolment, name: str) -> Envelope:
        """A good share, and an account of nothing."""
        keeper = self.shared.keepers[name]
        deal = self.liars[name].deals[enrolment.digest]
        share = deal.open(enrolment, broker=keeper.here.broker.public, key=keeper.here.shares)  # type: ignore[arg-type]
        owner = OWNER.decryption.public
        return Recalled.make(enrolment, share, (), broker=keeper.here.broker.public, owner=owner).sign(keeper.here.broker)

    def deliver(self, name: str) -> None:
        """A broker takes what it was dealt, and hears that the owner approved."""
        shared = self.shared
        if name not in shared.keepers:
            shared.keepers[name] = Keeper(shared.world, name, self.book(name))
        keeper = shared.keepers[name]
        deal = self.deals.pop(name)
        shared.sent.append((name, deal))
        take(deal, here=keeper.here, book=keeper.book, at=self.shared.world.clock())
        self.papers.deal(deal)
        if name in self.liars:
            self.liars[name].remember(shared.manifest.digest)
        self.say(name)

    @rule()
    @precondition(lambda self: self.deals)
    def deliver_late(self) -> None:
        name = min(self.deals)
        if name not in self.dead:
            self.deliver(name)

    @rule(name=st.sampled_from(NAMES), sure=st.integers(0, 2), back=st.integers(0, CONTRACTS - 1))
    def withdraw(self, name: str, sure: int, back: int) -> None:
        """The lab withdraws from a contract; one more broker comes to know it."""
        if sure == 2 and name in self.shared.keepers and name not in self.dead:
            contract = self.contracts[max(0, len(self.contracts) - 1 - back)].digest
            found = Withdrawal(contract, "lab", self.shared.world.clock(), "")
            on = [self.shared.manifest.digest]
            self.shared.keepers[name].book.withdraw(found, found.sign(keys_of("lab").signing), on)

    @rule(sure=st.integers(0, 2), back=st.integers(0, 1))
    def withdraw_widely(self, sure: int, back: int) -> None:
        """As many are told as it takes."""
        now = self.shared.enrolment
        for holder in now.holders[-(len(now.holders) - now.threshold + 1 + len(self.liars)) :]:
            self.withdraw(holder.name, sure, back)

    # --- the law ---

    @property
    def thresholds(self) -> dict[int, int]:
        return {epoch: e.threshold for epoch, e in self.enrolments.items()}

    @invariant()
    def each_slot_leads_to_one_enclave(self) -> None:
        if hasattr(self, "ledger"):
            assert not self.broken()

    def broken(self) -> bool:
        """Whether some contract opened more often than it may."""
        opened = self.ledger.opened(self.thresholds)
        places = {(contract, slot) for contract, slot, _ in opened}
        by = {c.digest: {enclave for contract, _, enclave in opened if contract == c.digest} for c in self.contracts}
        return len(places) != len(opened) or any(len(enclaves) > self.runs for enclaves in by.values())

    @invariant()
    def a_withdrawal_holds_once_enough_honest_brokers_know_it(self) -> None:
        if not hasattr(self, "ledger"):
            return
        now = self.shared.enrolment
        for contract in self.contracts:
            know = {
                h.name
                for h in now.holders
                if h.name in self.shared.keepers
                and h.name not in self.liars
                and self.shared.keepers[h.name].book.standing(contract.digest, "hospital").withdrawn_by
            }
            if len(know) >= len(now.holders) - now.threshold + 1:
                self.withdrawn_since.setdefault(contract.digest, len(self.ledger.given))
        for contract_, since in self.withdrawn_since.items():
            assert contract_ not in {c for c, _, _ in self.ledger.opened(self.thresholds, since)}

    @invariant()
    def no_honest_broker_can_be_shown_to_lie(self) -> None:
        if not hasattr(self, "ledger"):
            return
        have: defaultdict[tuple[str, str, int], set[str]] = defaultdict(set)
        for name, _, contract, slot, enclave in self.ledger.given:
            if name not in self.liars:
                have[name, contract, slot].add(enclave)
        assert all(len(enclaves) == 1 for enclaves in have.values())
        assert {lie.broker for lie in self.papers.lies()} <= {broker_key(name).public for name in self.liars}


class Beyond(Sharing):
    """Any number of brokers lie. The limit may break, and then signed papers name one of them."""

    def most_liars(self, t: int, n: int) -> int:
        return n

    @invariant()
    def each_slot_leads_to_one_enclave(self) -> None:
        if hasattr(self, "ledger") and self.broken():
            assert self.papers.lies()

    @invariant()
    def a_withdrawal_holds_once_enough_honest_brokers_know_it(self) -> None:
        """It does not: a liar that leaves one out of its account shows nothing."""


def at_most(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


Sharing.TestCase.settings = at_most(20, 25)
Beyond.TestCase.settings = at_most(8, 25)
TestSharing = Sharing.TestCase
TestBeyond = Beyond.TestCase


@pytest.mark.parametrize(("threshold", "count"), [(2, 3), (3, 5), (4, 5)])
def test_with_2t_minus_n_liars_the_limit_breaks_and_their_releases_prove_who_they_are(threshold: int, count: int) -> None:
    names = NAMES[:count]
    shared, ledger = Shared(names, threshold), Ledger()
    liars = names[: 2 * threshold - count]
    honest = names[len(liars) :]
    enclaves = {e: ShareAsker(shared, e, run_id=seed(f"run of {e}", 16).hex()) for e in ENCLAVES[:2]}

    def ask(name: str, enclave: str) -> None:
        found = enclaves[enclave].ask_share(name, 1)
        assert isinstance(found, Release)
        ledger.given.append(Given(name, 1, shared.contract.digest, 1, enclave))
        ledger.releases.append((name, found.envelope))

    for name in liars:
        liar = Liar(shared.keepers[name])
        liar.remember(shared.manifest.digest)
        for enclave in enclaves:
            assert liar.forget(shared.manifest.digest, shared.enrolment.digest)
            ask(name, enclave)
    half = len(honest) // 2
    for name in honest[:half]:
        ask(name, "e1")
    for name in honest[half:]:
        ask(name, "e2")
    assert {where[1:] for where in ledger.opened({1: threshold})} == {
        (1, "e1"),
        (1, "e2"),
    }  # two enclaves of one slot: the limit was one
    shown = set()
    for i, (name, one) in enumerate(ledger.releases):
        for other, two in ledger.releases[i + 1 :]:
            if name == other:
                assert gave_twice(one, two, broker_key(name).public).slot == 1
                shown.add(name)
            else:
                with pytest.raises(StrongroomError):
                    gave_twice(one, two, broker_key(name).public)
    assert shown == set(liars)


@pytest.mark.parametrize(("threshold", "count"), [(2, 3), (3, 4), (3, 5), (4, 5), (5, 5)])
def test_with_one_liar_fewer_it_holds(threshold: int, count: int) -> None:
    names = NAMES[:count]
    shared = Shared(names, threshold)
    liars, honest = names[: 2 * threshold - count - 1], names[2 * threshold - count - 1 :]
    have = {e: len(liars) for e in ENCLAVES[:2]}  # each liar gives to each
    for i, name in enumerate(honest):
        for enclave in sorted(ENCLAVES[:2], reverse=bool(i % 2)):
            asker = ShareAsker(shared, enclave, run_id=seed(f"run of {enclave}", 16).hex())
            have[enclave] += isinstance(asker.ask_share(name, 1), Release)
    assert sum(have.values()) == count + len(liars) == 2 * threshold - 1
    assert sum(found >= threshold for found in have.values()) <= 1


def test_an_honest_brokers_releases_prove_nothing() -> None:
    shared = Shared(runs=2)
    one = ShareAsker(shared, "e1", run_id=seed("one", 16).hex()).ask_share("ada")
    two = ShareAsker(shared, "e2", run_id=seed("two", 16).hex()).ask_share("ada")
    with pytest.raises(BadRelease):
        gave_twice(one.envelope, two.envelope, broker_key("ada").public)
