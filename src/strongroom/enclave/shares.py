"""How an enclave gets a key that its owner shared over brokers: it asks them side by side, and puts ``t`` shares together.

One broker chooses the slot, the others are asked for that one: so enclaves that ask at once do not stand in each other's
way. A share is compared with what its holder is enrolled with, so that a false one is found and named, and costs nothing but
itself. As long as ``t`` honest brokers answer, what fewer than ``t`` others say or do not say neither opens nor stops
anything.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from strongroom.asset import AssetKey, Manifest
from strongroom.attest.keyset import AttestationReport
from strongroom.errors import Internal, NoRunLeft, ReleaseRefused, SlotTaken, StrongroomError, TooFewShares, Unreachable
from strongroom.release import OpenedShare, PartAsked
from strongroom.threshold import Enrolment, Holder, Share, combine
from strongroom.wire import Envelope

_T = TypeVar("_T")
_OF_A_SLOT = frozenset({SlotTaken.code, NoRunLeft.code})  # said of one slot: another may do


class HolderLine(Protocol):
    """The way to one broker that holds a share."""

    def nonce(self) -> bytes:
        """A fresh nonce, 32 bytes. Raises Unreachable."""

    def release(self, request: bytes) -> bytes:
        """The broker's answer. Raises ReleaseRefused, Unreachable."""


@dataclass
class Memory:
    """Which brokers did not answer, by key id: they are asked last. Those that answer again are forgotten."""

    silent: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Holders:
    """What an enclave is given to get shared keys.

    Attributes:
        enrolment: the newest enrolment that the exchange has of an asset, untrusted, by its manifest's digest and the id
            of the key that is said to have signed it; ``None`` where it has none.
        line: the way to a holder.
        memory: of brokers that did not answer, as long as the process lives.
    """

    enrolment: Callable[[str, str], Envelope | None]
    line: Callable[[Holder], HolderLine]
    memory: Memory = field(default_factory=Memory)


class Got(NamedTuple):
    """A share, and what was shown for it."""

    opened: OpenedShare
    report: AttestationReport


Ask = Callable[[HolderLine, int, PartAsked, bytes], Got]
"""Prove to a broker, ask for its share, open the answer: the line, the index, what is asked, a nonce of that broker."""


class Gathering:
    """One asset's shares for one keyset.

    Args:
        enrolment: verified.
        manifest: the asset's, verified.
        line: the way to a holder.
        ask: proves, asks and opens.
        memory: of brokers that did not answer.
    """

    def __init__(
        self, enrolment: Enrolment, manifest: Manifest, line: Callable[[Holder], HolderLine], ask: Ask, memory: Memory
    ) -> None:
        self.enrolment, self.manifest, self.memory = enrolment, manifest, memory
        self._ask = ask
        self._all = range(1, len(enrolment.holders) + 1)
        self._lines = {i: line(enrolment.holder(i)) for i in self._all}
        self._problems: dict[int, StrongroomError] = {}  # the last of each holder
        self._out: set[int] = set()  # holders that gave something false, or refused whatever the slot
        self._nonces: dict[int, bytes] = {}  # of those that answer; empty where it was used

    def gather(self) -> tuple[AssetKey, tuple[Got, ...]]:
        """The key, and the ``t`` shares that it was made of, by index.

        Raises:
            ReleaseRefused: so many brokers refuse that no ``t`` are left; with the reason of the first.
            TooFewShares: so many do not answer, or gave something false; each is named with what it did.
            WrongKey: the owner dealt shares of another key. MissingExtra.
        """
        need = self.enrolment.threshold
        pool = ThreadPoolExecutor(max_workers=len(self._all), thread_name_prefix="holder")
        try:
            self._fetch_nonces(pool)
            tried: set[int] = set()
            failed: list[int] = []
            while len(self._all) - len(self._out) >= need:
                chooser = next((i for i in sorted(self._nonces) if i not in tried and i not in self._out), None)
                if chooser is None:
                    break
                tried.add(chooser)
                first = self._one(chooser, PartAsked(self.enrolment.digest, None, tuple(sorted(failed))))
                if first is None:
                    continue
                slot = first.opened.statement.part.slot if first.opened.statement.part else 0
                got = self._rest(pool, first, chooser, slot)
                if len(got) >= need:
                    kept = tuple(got[i] for i in sorted(got)[:need])
                    shares: Iterable[Share] = (g.opened.share for g in kept)
                    return combine(self.enrolment, shares, self.manifest), kept
                failed.append(slot)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # who is slow is not waited for
        raise self._failure()

    def _fetch_nonces(self, pool: ThreadPoolExecutor) -> None:
        """Ask everybody at once until ``t`` have answered; those that were silent before only where it takes them.

        One that is slower is asked anew for its share.
        """
        awake = [i for i in self._all if self._keyid(i) not in self.memory.silent]
        for group in (awake, [i for i in self._all if i not in awake]):
            waiting = {pool.submit(self._lines[i].nonce): i for i in group}
            while waiting and len(self._nonces) < self.enrolment.threshold:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    index = waiting.pop(future)
                    found = self._result(index, future)
                    if found is not None:
                        self._nonces[index] = found

    def _one(self, index: int, asked: PartAsked) -> Got | None:
        """One broker's share, or ``None``: why not is kept."""
        try:
            return self._share(index, asked)
        except StrongroomError as error:
            self._note(index, error)
            return None

    def _share(self, index: int, asked: PartAsked) -> Got:
        line = self._lines[index]
        nonce = self._nonces.pop(index, None) or line.nonce()
        try:
            return self._ask(line, index, asked, nonce)
        finally:
            self._nonces.setdefault(index, b"")  # it answers: it may choose a slot later

    def _rest(self, pool: ThreadPoolExecutor, first: Got, chooser: int, slot: int) -> dict[int, Got]:
        """Everybody else's share of a slot, until there are enough."""
        need, got = self.enrolment.threshold, {chooser: first}
        asked = PartAsked(self.enrolment.digest, slot)
        once_more: list[int] = []
        others = [i for i in self._all if i != chooser and i not in self._out]
        awake = [i for i in others if self._keyid(i) not in self.memory.silent]
        for group in (awake, [i for i in others if i not in awake], once_more):
            waiting = {pool.submit(self._share, i, asked): i for i in group} if len(got) < need else {}
            while waiting and len(got) < need:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    index = waiting.pop(future)
                    found = self._result(index, future)
                    if found is not None:
                        got[index] = found
                    elif isinstance(self._problems.get(index), Unreachable) and group is not once_more:
                        once_more.append(index)  # it may have given its share before its answer was lost
        return got

    def _result(self, index: int, future: Future[_T]) -> _T | None:
        try:
            found = future.result()
        except StrongroomError as error:
            self._note(index, error)
            return None
        self.memory.silent.discard(self._keyid(index))
        return found

    def _note(self, index: int, error: StrongroomError) -> None:
        self._problems[index] = error
        if isinstance(error, (Unreachable, Internal)):
            self.memory.silent.add(self._keyid(index))
        elif not isinstance(error, ReleaseRefused) or error.reason not in _OF_A_SLOT:
            self._out.add(index)

    def _keyid(self, index: int) -> str:
        return self.enrolment.holder(index).broker_key.keyid

    def _failure(self) -> StrongroomError:
        said = {self.enrolment.holder(i).name: e for i, e in sorted(self._problems.items())}
        refused = [e for e in said.values() if isinstance(e, ReleaseRefused)]
        lines = "; ".join(f"{name}: {error}" for name, error in said.items())
        if len(self._all) - len(refused) < self.enrolment.threshold:
            return ReleaseRefused(f"{len(refused)} of {len(self._all)} brokers refused: {lines}", reason=refused[0].reason)
        return TooFewShares(f"no {self.enrolment.threshold} of {len(self._all)} brokers gave their shares: {lines}")
