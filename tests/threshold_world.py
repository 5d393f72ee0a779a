"""A world whose hospital shares the key of its records over brokers of different people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from strongroom.asset import AssetKey
from strongroom.broker import Owner, Refusal, Release, decide
from strongroom.contract import Contract, Limits
from strongroom.dealing import Collected, Dealt, collect, deal
from strongroom.enclave.shares import Holders
from strongroom.errors import ReleaseRefused, Unreachable
from strongroom.holder import give_back, hear, take
from strongroom.holding import Recall, Says, Word
from strongroom.party import DecryptionKey
from strongroom.receipt import Bundle
from strongroom.release import OpenedShare, PartAsked, ReleaseRequest, open_share
from strongroom.threshold import Enrolment, HolderCard
from strongroom.wire import Envelope
from world import RUN, Asker, Entropy, MemoryBook, World, broker_key, keys_of, seed, sign_all

NAMES = ("ada", "ben", "cy", "dee", "eve")


def share_key(name: str) -> DecryptionKey:
    return DecryptionKey(seed(f"{name}'s shares", 96))


def holder_card(name: str) -> HolderCard:
    return HolderCard(name, broker_key(name).public, share_key(name).public, f"https://broker.{name}.example")


class Keeper:
    """A broker that holds shares; its people pinned the hospital and nobody else."""

    def __init__(self, world: World, name: str, book: Any = None) -> None:
        self.world, self.name = world, name
        self.book = book if book is not None else MemoryBook(Entropy(f"{name}'s book"))
        trust = world.trust()
        trust = replace(trust, parties=tuple(p for p in trust.parties if p.name == "hospital"))
        self.here = Owner(name, broker_key(name), trust, trust.appraisal_policy(), share_key(name))

    def decide(self, request: ReleaseRequest) -> Release | Refusal:
        return decide(request, owner=self.here, book=self.book, at=self.world.clock())


class Shared:
    """The hospital, and the brokers that hold shares of its records' key."""

    def __init__(
        self,
        names: Sequence[str] = NAMES[:3],
        threshold: int = 2,
        *,
        runs: int = 1,
        book: Callable[[str], Any] = lambda _name: None,
        world: World | None = None,
        **changes: Any,
    ) -> None:
        self.world = world or World()
        self.manifest, self.envelope, _, self.key = self.world.assets["data"]
        self.world.brokers["hospital"].book._state.assets.clear()  # the owner's broker holds nothing any more
        self._book = book
        self.keepers = {name: Keeper(self.world, name, book(name)) for name in names}
        self.entropy = Entropy("the hospital deals")
        self.contract = sign_all(self.world.proposal(**{"limits": Limits(runs, 300, 1 << 30), **changes}))
        self.sent: list[tuple[str, Envelope]] = []  # every deal that was brought to a broker
        self.deal(names, threshold, 1)
        self.say(Says.APPROVED)

    def dealt(self, names: Sequence[str], threshold: int, epoch: int, key: AssetKey | None = None, **more: Any) -> Dealt:
        return deal(
            key or self.key,
            self.envelope,
            keys=keys_of("hospital"),
            epoch=epoch,
            threshold=threshold,
            cards=[holder_card(n) for n in names],
            entropy=self.entropy,
            **more,
        )

    def deal(self, names: Sequence[str], threshold: int, epoch: int, **more: Any) -> Enrolment:
        """Deal, and have every broker take its share."""
        found = self.dealt(names, threshold, epoch, **more)
        for name, envelope in zip(names, found.deals, strict=True):
            if name not in self.keepers:
                self.keepers[name] = Keeper(self.world, name, self._book(name))
            self.sent.append((name, envelope))
            take(envelope, here=self.keepers[name].here, book=self.keepers[name].book, at=self.world.clock())
        self.published = found.enrolment
        self.enrolment = self.verify(found.enrolment)
        return self.enrolment

    def verify(self, envelope: Any) -> Enrolment:
        key = keys_of("hospital").signing.public
        return Enrolment.verify(envelope, manifest=self.manifest.digest, owner="hospital", key=key)

    def say(self, says: Says, names: Sequence[str] | None = None, contract: Contract | None = None) -> None:
        """The hospital's word, to some brokers or all."""
        contract = contract or self.contract
        word = Word(contract.digest, "hospital", says, self.world.clock()).sign(keys_of("hospital").signing)
        for name in self.keepers if names is None else names:
            hear(word, contract.proposal, here=self.keepers[name].here, book=self.keepers[name].book)

    def recall(self, names: Sequence[str]) -> Collected:
        """Recall the shares of some brokers, and put the key together."""
        order = Recall(self.manifest.digest, "hospital", self.enrolment.epoch).sign(keys_of("hospital").signing)
        answers = {}
        for index, holder in enumerate(self.enrolment.holders, 1):
            if holder.name in names:
                keeper = self.keepers[holder.name]
                answers[index] = give_back(order, here=keeper.here, book=keeper.book)
        return collect(self.enrolment, self.manifest, answers, keys_of("hospital").decryption, self.world.clock())

    def enclave(self, name: str = "enclave", run_id: str = RUN) -> ShareAsker:
        return ShareAsker(self, name, run_id=run_id)


class ShareAsker(Asker):
    """An enclave that asks for shares, one at a time."""

    def __init__(self, shared: Shared, name: str, *, run_id: str = RUN) -> None:
        super().__init__(shared.world, shared.contract, name, run_id=run_id)
        self.shared = shared

    def share_request(self, name: str, asked: PartAsked | None = None, **changes: Any) -> ReleaseRequest:
        asked = asked or PartAsked(self.shared.enrolment.digest)
        nonce = changes.pop("nonce", None) or self.shared.keepers[name].book.nonce(self.world.clock())
        return self.request(nonce=nonce, share=asked, **changes)

    def ask_share(self, name: str, slot: int | None = None, **changes: Any) -> Release | Refusal:
        asked = PartAsked(self.shared.enrolment.digest, slot)
        return self.shared.keepers[name].decide(self.share_request(name, asked, **changes))

    def open_share(self, name: str, release: Release, request: ReleaseRequest) -> OpenedShare:
        assert request.share is not None
        index = self.shared.enrolment.index(broker_key(name).public)
        assert index is not None
        return open_share(
            release.answer(),
            slot=self.slot(),
            enrolment=self.shared.enrolment,
            index=index,
            asked=request.share,
            nonces=frozenset({request.nonce.hex()}),
            key=self.release_key,
        )


# --- the way to them, and runs ---------------------------------------------------------------------------------------


class Line:
    """The way to a holder (``enclave.shares.HolderLine``), with what may happen on it."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.dead = False
        self.asked: list[ReleaseRequest] = []
        self.nonces = 0
        self.lie: Callable[[bytes], bytes] = lambda answer: answer
        self.lost = 0
        self.before: Callable[[], None] = lambda: None
        self.hang: Callable[[], None] = lambda: None

    def nonce(self) -> bytes:
        self.nonces += 1
        self.hang()
        if self.dead:
            raise Unreachable(f"{self.keeper.name} does not answer")
        found: bytes = self.keeper.book.nonce(self.keeper.world.clock())
        return found

    def release(self, request: bytes) -> bytes:
        self.before()
        if self.dead:
            raise Unreachable(f"{self.keeper.name} does not answer")
        parsed = ReleaseRequest.parse(request)
        self.asked.append(parsed)
        found = self.keeper.decide(parsed)
        if self.lost:
            self.lost -= 1
            raise Unreachable("the answer was lost")
        if isinstance(found, Refusal):
            raise ReleaseRefused(f"{self.keeper.name} refused", reason=found.code)
        return self.lie(found.answer())


class Place:
    """A world with shared records, and the lines to the brokers."""

    def __init__(self, names: tuple[str, ...] = NAMES[:3], threshold: int = 2, *, runs: int = 1, **more: Any) -> None:
        self.shared = Shared(names, threshold, runs=runs, **more)
        self.world = self.shared.world
        self.world.brokers["lab"].book.approve(self.shared.contract.digest, self.world.clock())
        self.lines = {name: Line(keeper) for name, keeper in self.shared.keepers.items()}
        self.enrolment: Envelope | None = self.shared.published
        manifest = self.shared.manifest.digest
        self.holders = Holders(
            lambda digest, _by: self.enrolment if digest == manifest else None, lambda holder: self.lines[holder.name]
        )

    def meet(self, name: str) -> None:
        """The way to a broker that is new."""
        self.lines[name] = Line(self.shared.keepers[name])

    def run(self, run_id: str = RUN) -> Bundle:
        return self.world.run(self.shared.contract, run_id, holders=self.holders)

    def parts(self, bundle: Bundle) -> list[tuple[int, int]]:
        """(index, slot) of the shares that a run took."""
        found = [json.loads(e.payload) for e in bundle.releases]
        return [(s["index"], s["slot"]) for s in found if "slot" in s]
