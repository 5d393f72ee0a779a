"""The witness of a broker's book: what left the broker is known elsewhere, so that no backup brings back what was given.

See ``spec/mark.md``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from strongroom.errors import Conflict, NotFound, StrongroomError, Unreachable
from strongroom.mark import Mark, require_known

if TYPE_CHECKING:
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.stores.marks import Marks
    from strongroom.party import SigningKey


_SILENT = "the exchange, which keeps the marks of this broker's book, does not answer: nothing is given until it does"
_OLD = "the exchange keeps no marks of brokers' books: it is older than this broker, which gives nothing until it does"


class Witness:
    """Brings a book's marks to the exchange, and compares the book with what is there.

    Many answers may wait at once: one mark is brought for all of them.

    Args:
        marks: the book's.
        key: the broker's own; read anew each time.
        exchange: where marks are kept.
        now: Unix seconds.
    """

    def __init__(
        self, marks: Marks, key: Callable[[], SigningKey], exchange: ExchangeClient, *, now: Callable[[], float] = time.time
    ) -> None:
        self._marks, self._key, self._exchange, self._now = marks, key, exchange, now
        self._lock = threading.Lock()
        self._asked = False
        self._known: Mark | None = None
        self._failed = 0.0  # when it last did not answer

    def check(self) -> None:
        """Before anything is counted: the book is the newest, as far as the witness knows.

        Raises:
            BookRestored: it is not. Unreachable: the witness does not answer, and was never asked in this process.
        """
        with self._turn():
            self._look()

    def settle(self) -> None:
        """Before what was counted leaves: the witness knows of it.

        Raises:
            BookRestored, Unreachable: it was counted, and is given when it is asked for again.
        """
        with self._turn():
            self._look()
            for _ in range(3):
                place = self._marks.place()
                if place.number == 0 or (self._known is not None and self._known.place == place):
                    return
                key, after = self._key(), "" if self._known is None else self._known.head
                mark = Mark(key.public, place.number, place.head, after, int(self._now()))
                try:
                    self._exchange.put_mark(mark, key)
                except Conflict:  # the witness was put back itself, or somebody else is at work on a copy of this book
                    self._asked = False
                    self._look()
                    continue
                except NotFound as error:
                    raise Unreachable(_OLD) from error
                self._known = mark
                return
            raise Unreachable(_SILENT)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time; those who waited while the witness did not answer do not wait for it once more each."""
        came = time.monotonic()
        with self._lock:
            if self._failed > came:
                raise Unreachable(_SILENT)
            try:
                yield
            except Unreachable as error:
                self._failed = time.monotonic()
                raise error if error.message == _OLD else Unreachable(_SILENT) from error

    def _look(self) -> None:
        if not self._asked:
            try:
                self._known = self._exchange.mark(self._key().public)
            except NotFound as error:
                raise Unreachable(_OLD) from error
            except Unreachable:
                raise
            except StrongroomError as error:
                raise Unreachable(_SILENT) from error  # it answers with what this broker never signed
            self._asked = True
        self._marks.require_confirmed()
        require_known(self._known, self._marks.head_at)
