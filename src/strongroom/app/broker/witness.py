"""The witnesses of a broker's book: what left the broker is known elsewhere, so that no backup brings back what was given.

There are two. The machine's own (``machine.Machine``) is written before anything leaves, and is enough to go on with. The
exchange's outlives the machine, and has to answer where the machine's says nothing; while it answers, nothing leaves before
it knows, and while it does not, brokers go on and bring it what it missed.

See ``spec/mark.md``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.errors import BookRestored, Conflict, Internal, NotFound, StrongroomError, Unreachable
from strongroom.mark import Mark, require_known
from strongroom.release import ReleaseStatement

if TYPE_CHECKING:
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.stores.book import SqliteBook
    from strongroom.app.stores.marks import Marks
    from strongroom.party import SigningKey, VerifyKey
    from strongroom.receipt import Bundle

    from .machine import Machine

_LOG = logging.getLogger("strongroom.broker")
PATIENCE_SECONDS = 2.0  # that a release waits for the exchange, however that answers
BRING_SECONDS = 2.0
IDLE_SECONDS = 30.0  # between two looks at an exchange that has the newest mark
AGAIN_SECONDS = 10.0  # after which an exchange that did not answer is asked once more by a release too
_SILENT = "the exchange, which keeps the marks of this broker's book, does not answer"
_OLD = "the exchange keeps no marks of brokers' books: it is older than this broker"
_UNSHOWN = "; nobody can say that this book is the newest, and it gives nothing until somebody can"
_NOT_MARKED = "; this broker gives nothing that the exchange has no mark of"
_NOWHERE = "; this machine cannot keep the mark either, and nothing is given that nobody can keep"


@dataclass(frozen=True, slots=True)
class Compared:
    """A book beside its marks.

    Attributes:
        near: the mark that the machine keeps; ``None``: none.
        there: the one at the exchange; ``None``: none, or it does not answer.
        reached: whether the exchange answered.
        restored: in what the book is not the newest; ``""`` where nothing says so.
    """

    near: Mark | None
    there: Mark | None
    reached: bool
    restored: str

    @property
    def shown(self) -> bool:
        """Whether anybody could say that the book is the newest."""
        return self.reached or self.near is not None


def _silent(error: Exception) -> Unreachable:
    """What an error is that the exchange answered with, or who sits on the way to it: it says nothing of this book."""
    return Unreachable(_OLD if isinstance(error, NotFound) else _SILENT)


def _there(exchange: ExchangeClient, broker: VerifyKey) -> Mark | None:
    """The mark that the exchange has. Raises Unreachable, and nothing else."""
    try:
        return exchange.mark(broker)
    except Exception as error:
        raise _silent(error) from error


def _known(marks: Marks, mark: Mark | None) -> None:
    """M3 of the exchange's mark. Raises BookRestored: it is not in the book, and no confirmation covers it."""
    try:
        require_known(mark, marks.head_at)
    except BookRestored:
        if mark is None or not marks.covers(mark):
            raise


def compare(marks: Marks, broker: VerifyKey, exchange: ExchangeClient, machine: Machine | None) -> Compared:
    """How a book stands beside its marks, for its owner to see. Nothing is changed."""
    near, there, reached, restored = None if machine is None else machine.mark(broker), None, True, ""
    try:
        there = _there(exchange, broker)
    except Unreachable:
        reached = False
    try:
        marks.require_confirmed()
        require_known(near, marks.head_at)
        _known(marks, there)
    except BookRestored as error:
        restored = error.message
    return Compared(near, there, reached, restored)


def forgotten(bundle: Bundle, broker: VerifyKey, book: SqliteBook) -> int:
    """When this broker made the latest release in a receipt that neither its book knows nor a confirmation covers (M5).

    It knows a run by the keyset that it was given to, and a slot likewise: a book that was put back may have given the same
    run to another.

    Args:
        bundle: verified.
        broker: the broker's own key, without which nobody signs such a release.
        book: its book.

    Returns:
        Unix seconds; 0: there is none.
    """
    latest = 0
    for envelope in bundle.releases:
        with suppress(StrongroomError):  # another broker's
            said = ReleaseStatement.verify(envelope, broker)
            if said.at > book.marks.restored() and not _knows(book, said):
                latest = max(latest, said.at)
    return latest


def _knows(book: SqliteBook, said: ReleaseStatement) -> bool:
    with book.transaction() as page:
        if page.standing(said.contract).runs.get(said.run_id) != said.keyset_digest:
            return False
        if said.part is None:
            return True
        return page.slots(said.contract, said.manifest).get(said.part.slot, "") in (said.keyset_digest, None)


class _Round:
    """One talk with the exchange, for all who came before it began.

    Attributes:
        waiting: how many came.
        look: what is there is asked for, also where this process knows it.
        put: the book's place is brought.
        error: what became of it; ``None``: it went well.
    """

    def __init__(self) -> None:
        self.done = threading.Event()
        self.waiting = 0
        self.look = self.put = False
        self.error: StrongroomError | None = None

    def end(self, error: StrongroomError | None = None) -> None:
        self.error = error
        self.done.set()


class Witness:
    """Brings a book's marks to both witnesses, and compares the book with what they have.

    The exchange is talked to by one thread of the witness's own, while there is something to say. Many answers may wait at
    once: one mark is brought for all of them; and none waits longer than ``patience``, whatever the exchange does.

    Args:
        marks: the book's.
        key: the broker's own; read anew each time.
        exchange: where marks are kept.
        machine: where this machine keeps them; ``None``: nowhere.
        strict: nothing leaves that the exchange has no mark of, and so nothing while it is away.
        now: Unix seconds.
        patience: seconds that an answer waits for the exchange, at the most.
        ticks: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        marks: Marks,
        key: Callable[[], SigningKey],
        exchange: ExchangeClient,
        machine: Machine | None = None,
        *,
        strict: bool = False,
        now: Callable[[], float] = time.time,
        patience: float = PATIENCE_SECONDS,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._marks, self._key, self._exchange, self._machine = marks, key, exchange, machine
        self._strict, self._now, self._patience, self._ticks = strict, now, patience, ticks
        self._shown = False  # that this process began with the newest book
        self._asked = False  # the exchange, since it last contradicted
        self._known: Mark | None = None  # to the exchange
        self._away = False  # it did not answer; from then on it is asked by who waits for nothing (bring)
        self._failed = 0.0  # when it last did not answer
        self._heard = 0.0  # when it last did
        self._lock = threading.Lock()  # over what follows
        self._next: _Round | None = None  # it has not begun
        self._talking = False  # there is a thread

    def warn(self) -> None:
        """At the start: say it where this machine can keep no mark, whose broker then gives nothing without the exchange."""
        if self._machine is None or not self._machine.usable:
            where = (
                "in /dev/shm" if self._machine is None else f"as {self._machine.folder}, which somebody else may have made"
            )
            _LOG.warning(
                "this machine keeps no mark of the book %s: nothing is given while the exchange is away (STRONGROOM_MEMORY)",
                where,
            )

    def check(self) -> None:
        """Before anything is counted: the book is the newest, as far as anybody knows (M3), and somebody does (M4).

        Raises:
            BookRestored: it is not. Unreachable: nobody can say.
        """
        self._marks.require_confirmed()
        near = None if self._machine is None else self._machine.mark(self._key().public)
        require_known(near, self._marks.head_at)
        self._still_known()
        if near is not None:
            self._shown = True
        if not self._shown or (self._strict and not self._asked):
            self._talk(_NOT_MARKED if self._shown else _UNSHOWN)
            self._marks.begin()
            self._shown = True

    def _still_known(self) -> None:
        """Raises BookRestored: what this process knows of the exchange is not in the book, nor what is there now."""
        try:
            _known(self._marks, self._known)
        except BookRestored as error:
            try:
                self._talk("", look=True)  # the owner may have confirmed meanwhile, by what is there now
            except Unreachable:
                raise error from None

    def settle(self) -> None:
        """Before what was counted leaves: the machine knows of it, and the exchange, if it answers.

        Also where nothing new was counted, as by a lease that goes on: a copy of this book may have counted elsewhere.

        Raises:
            BookRestored: it was counted, and does not leave. Unreachable: neither of the two can keep it, or ``strict``; it
                was counted, and is given when it is asked for again.
        """
        kept = self._leave_here()
        alone = kept and (not self._strict or self._marked())  # the machine is enough while the exchange is away
        if self._away and alone and self._ticks() - self._failed < AGAIN_SECONDS:
            return
        try:
            self._talk(_NOWHERE if not kept else _NOT_MARKED if self._strict else "", put=True)
        except Unreachable:  # what is given meanwhile is known to this machine alone
            if not alone:
                raise

    def _marked(self) -> bool:
        """Whether the exchange had the mark of all that was counted, when it answered last."""
        known = self._known
        return known is not None and known.place == self._marks.place()

    def bring(self) -> None:
        """From time to time, by somebody who waits for nothing: what the exchange missed, and what nobody asked for.

        Raises:
            BookRestored, Unreachable: as of :meth:`settle`; whoever asks for a release hears of it too.
        """
        self.check()
        self._leave_here()
        marked = self._marked()
        if not marked or self._away or self._ticks() - self._heard >= IDLE_SECONDS:
            self._talk("", look=marked, put=True)

    def _leave_here(self) -> bool:
        """Whether the machine knows the book as it is now. Raises BookRestored."""
        place = self._marks.place()
        if self._machine is None:
            return False
        key = self._key()
        return self._machine.put(Mark.of(key.public, place, None, int(self._now())), key, self._marks.head_at)

    def _talk(self, why: str, *, look: bool = False, put: bool = False) -> None:
        """Have the exchange asked, or told, and wait for it.

        Raises:
            BookRestored: what it has is not in the book.
            Unreachable: it does not answer in time, or with what it may not; ``why`` says what follows.
            Internal: the book cannot be read.
        """
        with self._lock:
            mine = self._next = self._next or _Round()
            mine.look, mine.put, mine.waiting = mine.look or look, mine.put or put, mine.waiting + 1
            if not self._talking:
                self._talking = True
                threading.Thread(target=self._work, daemon=True, name="marks").start()
        if not mine.done.wait(self._patience):
            self._missed()
            raise Unreachable(_SILENT + why)
        if isinstance(mine.error, Unreachable):
            raise Unreachable(mine.error.message + why) from mine.error
        if mine.error is not None:  # one for all who waited: each raises its own
            raise type(mine.error)(mine.error.message) from mine.error

    def _missed(self) -> None:
        with self._lock:
            self._failed, self._away = self._ticks(), True

    def _work(self) -> None:
        """Talk while there is something to say. Who came while the exchange did not answer does not wait once more."""
        while True:
            with self._lock:
                now, self._next = self._next, None
                if now is None:
                    self._talking = False
                    return
            error = self._held(now)
            if isinstance(error, Unreachable):
                self._missed()
                with self._lock:
                    late, self._next = self._next, None
                if late is not None:
                    late.end(error)
            elif error is None:
                self._away, self._heard = False, self._ticks()
            now.end(error)

    def _held(self, now: _Round) -> StrongroomError | None:
        """What became of a round. Nothing ends the thread: nobody would hear of it."""
        try:
            self._look(anew=now.look)
            if now.put and not (now.look and self._marked()):
                self._bring()
        except (BookRestored, Unreachable) as error:
            return error
        except Exception as error:  # noqa: BLE001 - of the book; whoever waits gives nothing
            _LOG.error("the book's place cannot be brought: %s", error.__class__.__name__)
            return Internal("the broker cannot say how far its book has come")
        return None

    def _look(self, *, anew: bool = False) -> None:
        """What the exchange has, if it was not asked yet, and whether it is in the book."""
        if anew or not self._asked:
            self._asked = False
            self._known = _there(self._exchange, self._key().public)
            self._asked = True
        try:
            _known(self._marks, self._known)
        except BookRestored:
            self._marks.put_back(
                0 if self._known is None else self._known.at
            )  # the exchange may be away again when this broker is next started
            raise
        if self._known is not None and self._marks.head_at(self._known.number) != self._known.head:
            self._marks.pass_by(self._known)

    def _bring(self) -> None:
        """Leave the book's place there; also where it is there already, or was: somebody else may have been there since."""
        for _ in range(3):
            place, known, key = self._marks.place(), self._known, self._key()
            mark = Mark.of(key.public, place, known, int(self._now()))
            if known is not None and known.place == place:
                mark = replace(mark, after=known.after)
            try:
                self._exchange.put_mark(mark, key)
            except Conflict:  # the exchange was put back itself, or somebody else is at work on a copy of this book
                self._look(anew=True)
                continue
            except Exception as error:
                raise _silent(error) from error
            self._known = mark
            return
        raise Unreachable(_SILENT)


class Bringer:
    """Brings marks from time to time, in a thread of its own: nothing else that a broker asks of an exchange holds it up.

    It is what ends an outage for a broker, and what finds a copy of its book that counts nothing by itself.

    Args:
        witness: whose.
        seconds: between two times.
    """

    def __init__(self, witness: Witness, seconds: float = BRING_SECONDS) -> None:
        self._witness, self._seconds = witness, seconds
        self._stop = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._work, daemon=True, name="bringer")

    def start(self) -> None:
        self._witness.warn()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        self.bring()
        while not self._stop.wait(self._seconds):
            self.bring()

    def bring(self) -> None:
        """Once. Whoever asks for a release hears of what is wrong too; here it is said once. Nothing is raised."""
        level, said = logging.INFO, ""
        try:
            self._witness.bring()
        except StrongroomError as error:
            level, said = logging.ERROR if isinstance(error, BookRestored) else logging.INFO, f"{error.code}: {error}"
        except Exception as error:  # noqa: BLE001 - of the book or of the owner's files; the next time comes
            level, said = logging.ERROR, f"marks are not brought: {error.__class__.__name__}"
        if said and said != self._said:
            _LOG.log(level, "%s", said)
        self._said = said
