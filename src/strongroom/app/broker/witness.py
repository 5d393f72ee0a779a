"""The witnesses of a broker's book: what left the broker is known elsewhere, so that no backup brings back what was given.

There are two. The machine's own (``machine.Machine``) is written before anything leaves, and is enough to go on with. The
exchange's outlives the machine, and has to answer where the machine's says nothing; while it answers, nothing leaves before
it knows, and while it does not, brokers go on and bring it what it missed.

See ``spec/mark.md``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import BookRestored, Conflict, NotFound, StrongroomError, Unreachable
from strongroom.mark import Mark, require_known
from strongroom.release import ReleaseStatement

if TYPE_CHECKING:
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.stores.book import SqliteBook
    from strongroom.app.stores.marks import Marks
    from strongroom.party import SigningKey, VerifyKey
    from strongroom.receipt import Bundle

    from .machine import Machine

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


def compare(marks: Marks, broker: VerifyKey, exchange: ExchangeClient, machine: Machine | None) -> Compared:
    """How a book stands beside its marks, for its owner to see. Nothing is changed."""
    near, there, reached, restored = None if machine is None else machine.mark(broker), None, True, ""
    try:
        there = exchange.mark(broker)
    except StrongroomError:
        reached = False
    try:
        marks.require_confirmed()
        for mark in (near, there):
            require_known(mark, marks.head_at)
    except BookRestored as error:
        restored = error.message
    return Compared(near, there, reached, restored)


def forgotten(bundle: Bundle, broker: VerifyKey, book: SqliteBook) -> bool:
    """Whether a receipt holds a release by this broker that its book does not know, and that no confirmation covers (M5).

    Args:
        bundle: verified.
        broker: the broker's own key, without which nobody signs such a release.
        book: its book.
    """
    for envelope in bundle.releases:
        with suppress(StrongroomError):  # another broker's
            said = ReleaseStatement.verify(envelope, broker)
            if said.at > book.marks.restored() and said.run_id not in book.standing(said.contract).runs:
                return True
    return False


class Witness:
    """Brings a book's marks to both witnesses, and compares the book with what they have.

    Many answers may wait at once: one mark is brought for all of them.

    Args:
        marks: the book's.
        key: the broker's own; read anew each time.
        exchange: where marks are kept.
        machine: where this machine keeps them; ``None``: nowhere.
        strict: nothing leaves that the exchange has no mark of, and so nothing while it is away.
        now: Unix seconds.
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
    ) -> None:
        self._marks, self._key, self._exchange, self._machine = marks, key, exchange, machine
        self._strict, self._now = strict, now
        self._turn = threading.Lock()  # to the exchange, one at a time
        self._shown = False  # that this process began with the newest book
        self._asked = False  # the exchange, since it last contradicted
        self._known: Mark | None = None  # to the exchange
        self._away = False  # it did not answer; from then on it is asked by who waits for nothing (bring)
        self._failed = 0.0  # when it last did not answer

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
            with self._in_turn(_NOT_MARKED if self._shown else _UNSHOWN):
                self._look()
            self._marks.begin()
            self._shown = True

    def _still_known(self) -> None:
        """Raises BookRestored: what this process knows of the exchange is not in the book, nor what is there now."""
        try:
            require_known(self._known, self._marks.head_at)
        except BookRestored as error:
            self._asked = False
            try:
                with self._in_turn(""):
                    self._look()  # the owner may have confirmed meanwhile, by what is there now
            except Unreachable:
                raise error from None

    def settle(self) -> None:
        """Before what was counted leaves: the machine knows of it, and the exchange, if it answers.

        Raises:
            BookRestored: it was counted, and does not leave. Unreachable: neither of the two can keep it, or ``strict``; it
                was counted, and is given when it is asked for again.
        """
        kept = self._leave_here()
        if self._away and kept and not self._strict:
            return
        try:
            self._leave_there(_NOWHERE if not kept else _NOT_MARKED if self._strict else "")
        except Unreachable:  # what is given meanwhile is known to this machine alone
            if self._strict or not kept:
                raise

    def bring(self) -> None:
        """From time to time, by somebody who waits for nothing: what the exchange missed, and what nobody asked for.

        Raises:
            BookRestored, Unreachable: as of :meth:`settle`; whoever asks for a release hears of it too.
        """
        self.check()
        self._leave_here()
        self._leave_there("")

    def _leave_here(self) -> bool:
        """Whether the machine knows the book as it is now. Raises BookRestored."""
        place = self._marks.place()
        if self._machine is None:
            return False
        key = self._key()
        return self._machine.put(Mark.of(key.public, place, None, int(self._now())), key, self._marks.head_at)

    def _leave_there(self, why: str) -> None:
        """Raises BookRestored, Unreachable."""
        with self._in_turn(why):
            self._look()
            for _ in range(3):
                place = self._marks.place()
                if self._known is not None and self._known.place == place:
                    break
                key = self._key()
                mark = Mark.of(key.public, place, self._known, int(self._now()))
                try:
                    self._exchange.put_mark(mark, key)
                except Conflict:  # the exchange was put back itself, or somebody else is at work on a copy of this book
                    self._asked = False
                    self._look()
                    continue
                self._known = mark
                break
            else:
                raise Unreachable(_SILENT)

    @contextmanager
    def _in_turn(self, why: str) -> Iterator[None]:
        """One at a time; those who waited while the exchange did not answer do not wait for it once more each.

        Raises:
            Unreachable: it does not answer, or with what it may not; ``why`` says what follows.
        """
        came = time.monotonic()
        with self._turn:
            if self._failed > came:
                raise Unreachable(_SILENT + why)
            try:
                yield
            except BookRestored:
                raise
            except StrongroomError as error:
                self._failed, self._away = time.monotonic(), True
                raise Unreachable((_OLD if isinstance(error, NotFound) else _SILENT) + why) from error
            self._away = False

    def _look(self) -> None:
        """What the exchange has, if it was not asked yet, and whether it is in the book."""
        if not self._asked:
            self._known = self._exchange.mark(self._key().public)
            self._asked = True
        try:
            require_known(self._known, self._marks.head_at)
        except BookRestored:
            self._marks.put_back()  # the exchange may be away again when this broker is next started
            raise
