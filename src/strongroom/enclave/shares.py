"""How an enclave gets a key that its owner shared over brokers: it asks them side by side, and puts ``t`` shares together.

One broker chooses the slot, the others are asked for that one: so enclaves that ask at once do not stand in each other's
way, as long as all of them let the same one choose, which is the first that is not known to be silent. As many are asked as
it takes, side by side; the others where one refuses, fails or lets the enclave wait. A share is compared with what its
holder is enrolled with, so that a false one is found and named, and costs nothing but itself. As long as ``t`` honest
brokers answer, what fewer than ``t`` others say or do not say neither opens nor stops anything.

See ``spec/threshold.md``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from strongroom.asset import AssetKey, Manifest
from strongroom.attest.keyset import AttestationReport
from strongroom.errors import Internal, NoRunLeft, ReleaseRefused, SlotTaken, StrongroomError, TooFewShares, Unreachable
from strongroom.release import MAX_BUT, OpenedShare, PartAsked
from strongroom.threshold import Enrolment, Holder, Share, combine
from strongroom.wire import Envelope

_T = TypeVar("_T")
_OF_A_SLOT = frozenset({SlotTaken.code, NoRunLeft.code})  # said of one slot: another may do
PATIENCE_S = 2.0
BUSY = 3  # as much patience for one that has just given a nonce: it is there, and decides
TRIES = MAX_BUT // 2  # slots that are tried before an enclave gives up


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
        patience: seconds after which others are asked beside a broker that has not answered.
    """

    enrolment: Callable[[str, str], Envelope | None]
    line: Callable[[Holder], HolderLine]
    memory: Memory = field(default_factory=Memory)
    patience: float = PATIENCE_S


class Got(NamedTuple):
    """A share, and what was shown for it."""

    opened: OpenedShare
    report: AttestationReport


class Proof(NamedTuple):
    """A broker's nonce, and what was made to show for it."""

    nonce: bytes
    report: AttestationReport


Ask = Callable[[HolderLine, int, PartAsked, Proof], Got]
"""Ask a broker for its share and open the answer: the line, the index, what is asked, what is shown."""


class Gathering:
    """One asset's shares for one keyset.

    Args:
        enrolment: verified.
        manifest: the asset's, verified.
        holders: the ways to them, and what is known of them.
        prove: what to show for a nonce. It is made before anybody is asked for a share, for all of them side by side.
        ask: asks and opens.
    """

    def __init__(
        self,
        enrolment: Enrolment,
        manifest: Manifest,
        holders: Holders,
        prove: Callable[[bytes], AttestationReport],
        ask: Ask,
    ) -> None:
        self.enrolment, self.manifest, self.memory, self._patience = enrolment, manifest, holders.memory, holders.patience
        self._prove, self._ask = prove, ask
        self._all = range(1, len(enrolment.holders) + 1)
        self._lines = {i: holders.line(enrolment.holder(i)) for i in self._all}
        self._problems: dict[int, StrongroomError] = {}  # the last of each holder
        self._out: set[int] = set()  # holders that gave something false, or refused whatever the slot
        self._proofs: dict[int, Proof] = {}  # for those that gave a nonce, until it is used
        self._there: set[int] = set()  # those that answered anything

    def gather(self, slot: int | None = None) -> tuple[AssetKey, tuple[Got, ...]]:
        """The key, and the ``t`` shares that it was made of, by index.

        Args:
            slot: that this keyset has already: nobody needs to choose one.

        Raises:
            ReleaseRefused: so many brokers refuse that no ``t`` are left; with the reason of the first.
            TooFewShares: so many do not answer, or gave something false; each is named with what it did.
            WrongKey: the owner dealt shares of another key. MissingExtra.
        """
        need = self.enrolment.threshold
        pool = ThreadPoolExecutor(max_workers=2 * len(self._all), thread_name_prefix="holder")
        try:
            self._meet(pool)
            tried, failed = Counter[int](), list[int]()
            if slot is not None:
                got = dict[int, Got]()
                self._rest(pool, got, PartAsked(self.enrolment.digest, slot))
                if len(got) >= need:
                    return self._combined(got)
                raise self._failure()  # another slot would be another run
            for _ in range(TRIES):
                self._meet(pool)
                chooser = self._chooser(tried)
                if chooser is None:
                    break
                tried[chooser] += 1
                asked = PartAsked(self.enrolment.digest, None, tuple(sorted(failed)))
                got = {}
                self._side_by_side(pool, partial(self._share, asked=asked), [chooser], got, need=1)
                if chooser not in got:
                    continue
                part = got[chooser].opened.statement.part
                slot = part.slot if part else 0
                self._rest(pool, got, PartAsked(self.enrolment.digest, slot))
                if len(got) >= need:
                    return self._combined(got)
                failed.append(slot)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # who is slow is not waited for
        raise self._failure()

    def _combined(self, got: dict[int, Got]) -> tuple[AssetKey, tuple[Got, ...]]:
        kept = tuple(got[i] for i in sorted(got)[: self.enrolment.threshold])
        shares: Iterable[Share] = (g.opened.share for g in kept)
        return combine(self.enrolment, shares, self.manifest), kept

    def _order(self) -> list[int]:
        """Whom to ask first: those that have answered already; those that were silent before come last."""

        def place(index: int) -> tuple[bool, bool, int]:
            return index not in self._there, self._keyid(index) in self.memory.silent, index

        return sorted((i for i in self._all if i not in self._out), key=place)

    def _usable(self) -> list[int]:
        return [i for i in self._order() if not isinstance(self._problems.get(i), Unreachable)]

    def _meet(self, pool: ThreadPoolExecutor) -> None:
        """Have as many there as it takes, as far as they answer: each gives a nonce, and what is shown for it is made."""
        usable = self._usable()
        missing = self.enrolment.threshold - len(self._there.intersection(usable))
        found: dict[int, Proof] = {}
        strangers = [i for i in usable if i not in self._there]
        self._side_by_side(pool, self._proof, strangers, found, need=missing, patience=self._patience)
        self._proofs |= found

    def _chooser(self, tried: Counter[int]) -> int | None:
        """Who is to say which slot: the first that answers, and each once before any twice; ``None`` where too few are
        there, or none has a slot to give."""
        order = [i for i in self._usable() if i in self._there]
        if len(order) < self.enrolment.threshold:
            return None  # a slot that nobody can use is not asked for
        raced = any(_reason(error) == SlotTaken.code for error in self._problems.values())  # then another slot may do
        can = [i for i in order if _reason(self._problems.get(i)) != NoRunLeft.code]
        return min((i for i in can if raced or not tried[i]), key=lambda i: (tried[i], order.index(i)), default=None)

    def _rest(self, pool: ThreadPoolExecutor, got: dict[int, Got], asked: PartAsked) -> None:
        """Everybody else's share of a slot, until there are enough."""
        need = self.enrolment.threshold

        share = partial(self._share, asked=asked)
        others = [i for i in self._order() if i not in got]
        self._side_by_side(pool, share, others, got, need=need)
        # one whose answer was lost may have given its share before
        again = [i for i in others if i not in got and isinstance(self._problems.get(i), Unreachable)]
        if len(got) < need <= len(got) + len(again):
            self._side_by_side(pool, share, again, got, need=need)

    def _side_by_side(
        self,
        pool: ThreadPoolExecutor,
        ask: Callable[[int], _T],
        order: Sequence[int],
        found: dict[int, _T],
        *,
        need: int,
        patience: float | None = None,
    ) -> None:
        """Ask as many at once as it takes for ``need`` to be found, the next for each that fails, and all others when
        patience is over; those that are slow may still answer."""
        left, waiting = list(order), dict[Future[_T], int]()
        patience = patience or BUSY * self._patience
        while len(found) < need:
            while left and len(waiting) + len(found) < need:
                index = left.pop(0)
                waiting[self._begun(pool.submit(ask, index), index)] = index
            if not waiting:
                return
            done, slow = wait(waiting, None if patience == math.inf else patience, return_when=FIRST_COMPLETED)
            if not done:
                self.memory.silent.update(self._keyid(waiting[future]) for future in slow)
                if not left:
                    if len(order) == 1:
                        return  # somebody else may choose
                    patience = math.inf
                waiting.update({self._begun(pool.submit(ask, index), index): index for index in left})
                left.clear()
            for future in done:
                index = waiting.pop(future)
                try:
                    found[index] = future.result()
                except StrongroomError as error:
                    self._note(index, error)
                else:
                    self._problems.pop(index, None)

    def _begun(self, future: Future[_T], index: int) -> Future[_T]:
        """Whoever answers after all is not silent."""
        future.add_done_callback(lambda f: self._answered(index) if not f.cancelled() and f.exception() is None else None)
        return future

    def _answered(self, index: int) -> None:
        self._there.add(index)
        self.memory.silent.discard(self._keyid(index))

    def _proof(self, index: int) -> Proof:
        nonce = self._lines[index].nonce()
        return Proof(nonce, self._prove(nonce))

    def _share(self, index: int, asked: PartAsked) -> Got:
        proof = self._proofs.pop(index, None) or self._proof(index)
        return self._ask(self._lines[index], index, asked, proof)

    def _note(self, index: int, error: StrongroomError) -> None:
        self._problems[index] = error
        if isinstance(error, (Unreachable, Internal)):
            self.memory.silent.add(self._keyid(index))
            return
        self._answered(index)
        if _reason(error) not in _OF_A_SLOT:
            self._out.add(index)

    def _keyid(self, index: int) -> str:
        return self.enrolment.holder(index).broker_key.keyid

    def _failure(self) -> StrongroomError:
        slow = {i: Unreachable("no answer in time") for i in self._all if self._keyid(i) in self.memory.silent}
        said = {self.enrolment.holder(i).name: e for i, e in sorted((slow | self._problems).items())}
        refused = [e for e in said.values() if isinstance(e, ReleaseRefused)]
        lines = "; ".join(f"{name}: {error}" for name, error in said.items())
        if len(self._all) - len(refused) < self.enrolment.threshold:
            return ReleaseRefused(f"{len(refused)} of {len(self._all)} brokers refused: {lines}", reason=refused[0].reason)
        return TooFewShares(f"no {self.enrolment.threshold} of {len(self._all)} brokers gave their shares: {lines}")


def _reason(error: StrongroomError | None) -> str:
    return error.reason if isinstance(error, ReleaseRefused) else ""
