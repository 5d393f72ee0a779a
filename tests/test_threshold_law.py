"""The law of shared keys, with everything going wrong at once: brokers crash, are lost and replaced, shares are dealt anew,
answers are lost, enclaves race, and as many brokers lie as may.

While fewer than ``2t - n`` brokers lie, each slot of a contract leads to a key in one enclave at most. What enclaves do here
is what an attested enclave does: it combines shares of one slot and epoch. How they come by them is the attacker's choice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from strongroom.broker import Refusal, Release
from strongroom.contract import Withdrawal
from strongroom.dealing import collect
from strongroom.errors import BadRelease, StrongroomError, TooFewShares, Unreachable
from strongroom.holder import give_back, hear, take
from strongroom.holding import Deal, Recall, Recalled, Says, Word
from strongroom.release import PartAsked, ReleaseStatement, gave_twice
from strongroom.threshold import Enrolment
from strongroom.wire import Envelope
from threshold_world import NAMES, Keeper, ShareAsker, Shared
from world import Entropy, Fault, Faults, MemoryBook, broker_key, keys_of, seed

SHAPES = [(1, 1), (2, 2), (2, 3), (3, 4), (3, 5), (4, 5)]
ENCLAVES = ("e1", "e2", "e3", "e4")
OWNER = keys_of("hospital")
SPARE = tuple(f"spare{i}" for i in range(4))

Given = tuple[str, int, int, str]
"""Who gave it, of which epoch, for which slot, to whom."""


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
        return True


class Ledger:
    """What was given, and what follows."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self.releases: list[tuple[str, Envelope]] = []

    def opened(self, since: int = 0, thresholds: dict[int, int] | None = None) -> set[tuple[int, str]]:
        """Every (slot, enclave) that has enough shares of one epoch, counting those given since."""
        count: defaultdict[tuple[int, int, str], set[str]] = defaultdict(set)
        for name, epoch, slot, enclave in self.given[since:]:
            count[epoch, slot, enclave].add(name)
        assert thresholds is not None
        return {(slot, enclave) for (epoch, slot, enclave), names in count.items() if len(names) >= thresholds[epoch]}


class Sharing(RuleBasedStateMachine):
    """Brokers, owner and enclaves; ``liars`` is what a subclass or the first step chooses."""

    @initialize(shape=st.sampled_from(SHAPES), runs=st.integers(1, 2), data=st.data())
    def begin(self, shape: tuple[int, int], runs: int, data: st.DataObject) -> None:
        t, n = shape
        self.faults, self.runs = Faults(), runs
        self.shared = Shared(NAMES[:n], t, runs=runs, book=self.book)
        most = 2 * t - n - 1
        names = data.draw(st.lists(st.sampled_from(NAMES[:n]), max_size=most, unique=True)) if most else []
        self.liars = {name: Liar(self.shared.keepers[name]) for name in names}
        self.dead: set[str] = set()
        self.enrolments = {1: self.shared.enrolment}
        self.deals: dict[str, Envelope] = {}  # the newest deal of each broker that did not take it yet
        self.enclaves = {e: ShareAsker(self.shared, e, run_id=seed(f"run of {e}", 16).hex()) for e in ENCLAVES}
        self.ledger = Ledger()
        self.told: set[str] = set()
        self.withdrawn_since: int | None = None
        self.spare = list(SPARE)
        for liar in self.liars.values():
            liar.remember(self.shared.manifest.digest)

    def book(self, name: str) -> MemoryBook:
        return MemoryBook(Entropy(f"{name}'s book"), faults=self.faults, place=name)

    # --- enclaves and the hosts that start them ---

    @rule(
        enclave=st.sampled_from(ENCLAVES),
        which=st.integers(0, 4),
        slot=st.none() | st.integers(1, 3),
        old=st.integers(0, 2),
        fault=st.sampled_from([None, None, None, Fault.NOT_DONE, Fault.LOST]),
    )
    def ask(self, enclave: str, which: int, slot: int | None, old: int, fault: Fault | None) -> None:
        """Somebody's enclave asks some broker for a share of some epoch, for some slot."""
        epoch = max(1, max(self.enrolments) - old)
        enrolment = self.enrolments[epoch]
        holder = enrolment.holders[which % len(enrolment.holders)]
        if holder.name in self.dead:
            return
        keeper = self.shared.keepers[holder.name]
        if holder.name in self.liars and not self.liars[holder.name].forget(self.shared.manifest.digest, enrolment.digest):
            return
        request = self.enclaves[enclave].share_request(holder.name, PartAsked(enrolment.digest, slot))
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
        self.gave(holder.name, found, enclave)

    def gave(self, name: str, release: Release, enclave: str) -> None:
        part = ReleaseStatement.verify(release.envelope, broker_key(name).public).part
        assert part is not None
        self.ledger.given.append((name, part.epoch, part.slot, enclave))
        self.ledger.releases.append((name, release.envelope))

    @rule(enclave=st.sampled_from(ENCLAVES), slot=st.integers(1, 2), order=st.permutations(range(5)), most=st.integers(1, 5))
    def ask_many(self, enclave: str, slot: int, order: list[int], most: int) -> None:
        """Somebody's enclave asks one broker after the other for one slot, and may stop before it has enough."""
        for which in order[:most]:
            if which < len(self.shared.enrolment.holders):
                self.ask(enclave, which, slot, 0, None)

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

    # --- the owner ---

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
        if len(names) < n or len(set(names) & set(self.liars)) > max(0, 2 * t - n - 1):
            return  # more liars than the law allows
        made = self.shared.dealt(names, t, before.epoch + 1, taken=found.taken)
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
        return collect(enrolment, self.shared.manifest, answers, OWNER.decryption)

    def lie(self, enrolment: Enrolment, name: str) -> Envelope:
        """A good share, and an account of nothing."""
        keeper = self.shared.keepers[name]
        deal = self.liars[name].deals[enrolment.digest]
        share = deal.open(enrolment, broker=keeper.here.broker.public, key=keeper.here.shares)  # type: ignore[arg-type]
        owner = OWNER.decryption.public
        return Recalled.make(enrolment, share, (), broker=keeper.here.broker.public, owner=owner).sign(keeper.here.broker)

    def deliver(self, name: str) -> None:
        """A broker takes what it was dealt; the owner tells it of the withdrawal before it says that it approved."""
        shared = self.shared
        if name not in shared.keepers:
            shared.keepers[name] = Keeper(shared.world, name, self.book(name))
        keeper = shared.keepers[name]
        take(self.deals.pop(name), here=keeper.here, book=keeper.book)
        if name in self.liars:
            self.liars[name].remember(shared.manifest.digest)
        if self.told:
            self.tell(name)
        word = Word(shared.contract.digest, "hospital", Says.APPROVED, shared.world.clock()).sign(OWNER.signing)
        hear(word, shared.contract.proposal, here=keeper.here, book=keeper.book)

    @rule()
    @precondition(lambda self: self.deals)
    def deliver_late(self) -> None:
        name = min(self.deals)
        if name not in self.dead:
            self.deliver(name)

    @rule(name=st.sampled_from(NAMES), sure=st.integers(0, 5))
    def withdraw(self, name: str, sure: int) -> None:
        """The lab withdraws; one more broker comes to know it. Not often: little happens after it."""
        if sure == 5 and name in self.shared.keepers and name not in self.dead:
            self.tell(name)

    def tell(self, name: str) -> None:
        found = Withdrawal(self.shared.contract.digest, "lab", self.shared.world.clock(), "")
        self.shared.keepers[name].book.withdraw(found, found.sign(keys_of("lab").signing))
        self.told.add(name)

    # --- the law ---

    @invariant()
    def each_slot_leads_to_one_enclave(self) -> None:
        if not hasattr(self, "ledger"):
            return
        thresholds = {epoch: e.threshold for epoch, e in self.enrolments.items()}
        opened = self.ledger.opened(0, thresholds)
        assert len({slot for slot, _ in opened}) == len(opened), opened
        assert len({enclave for _, enclave in opened}) <= self.runs

    @invariant()
    def a_withdrawal_holds_once_enough_honest_brokers_know_it(self) -> None:
        if not hasattr(self, "ledger"):
            return
        now = self.shared.enrolment
        honest = {h.name for h in now.holders if h.name in self.told and h.name not in self.liars}
        if self.withdrawn_since is None and len(honest) >= len(now.holders) - now.threshold + 1:
            self.withdrawn_since = len(self.ledger.given)
        if self.withdrawn_since is not None:
            thresholds = {epoch: e.threshold for epoch, e in self.enrolments.items()}
            assert not self.ledger.opened(self.withdrawn_since, thresholds)

    @invariant()
    def no_honest_broker_can_be_shown_to_lie(self) -> None:
        if not hasattr(self, "ledger"):
            return
        have: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for name, _, slot, enclave in self.ledger.given:
            if name not in self.liars:
                have[name, slot].add(enclave)
        assert all(len(enclaves) == 1 for enclaves in have.values())


Sharing.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSharing = Sharing.TestCase


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
        ledger.given.append((name, 1, 1, enclave))
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
    assert ledger.opened(0, {1: threshold}) == {(1, "e1"), (1, "e2")}  # two enclaves of one slot: the limit was one
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
