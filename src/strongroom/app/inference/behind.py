"""Writing a little later: what comes one by one is written together, by one thread, so that no request waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from strongroom.errors import NoSpace

T = TypeVar("T")
_LOG = logging.getLogger("strongroom.operator")


class Behind(Generic[T]):
    """Hands what was put to ``write``, all that has come meanwhile at once.

    What cannot be written is kept and tried again; where too much waits, nothing more is taken.

    Args:
        write: writes some; called from one thread alone. What it raises is tried again.
        most: how many may wait.
        pause: seconds for which a batch is gathered.
        idle: called when nothing came for ``idle_pause`` seconds.
        idle_pause: seconds.
    """

    def __init__(
        self,
        write: Callable[[list[T]], None],
        *,
        most: int = 100_000,
        pause: float = 0.02,
        idle: Callable[[], None] = lambda: None,
        idle_pause: float = 30.0,
    ) -> None:
        self._write, self._most, self._pause, self._idle, self._idle_pause = write, most, pause, idle, idle_pause
        self._waiting: list[T] = []
        self._put = self._done = 0
        self._failed = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="strongroom-behind", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Take one. Raises NoSpace: so much waits that the disk must be full or broken."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._most:
                raise NoSpace("too many records wait to be written", hint="Look at the machine's disk.")
            self._waiting.append(item)
            self._put += 1
            self._changed.notify_all()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything that was put before is written; whether it is."""
        with self._changed:
            due = self._put
            return self._changed.wait_for(lambda: self._done >= due, timeout)

    def close(self) -> bool:
        """Write what waits, and end; whether nothing is left unwritten. Can be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=30)
        return self._done == self._put

    def _work(self) -> None:
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda: self._waiting or self._closed, self._idle_pause)
                if self._closed and not self._waiting:
                    return
            if not came:
                self._try(self._idle)
                continue
            if not self._closed:
                time.sleep(self._pause if not self._failed else 1.0)
            with self._changed:
                batch = self._waiting[:]
            wrote = self._try(lambda batch=batch: self._write(batch))  # type: ignore[misc]
            with self._changed:
                self._failed = not wrote
                if wrote:
                    del self._waiting[: len(batch)]
                    self._done += len(batch)
                    self._changed.notify_all()
                elif self._closed:
                    return

    @staticmethod
    def _try(what: Callable[[], None]) -> bool:
        try:
            what()
        except Exception as error:  # noqa: BLE001 - it is tried again; neither message nor traceback is logged
            _LOG.warning("what waits could not be written: %s", error.__class__.__name__)
            return False
        return True
