"""Whether a run was cancelled, and from when on it is too late for that."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Stop:
    """Of one run. Safe to use from several threads.

    Args:
        asked_by: the party that asked for the run.
    """

    def __init__(self, asked_by: str) -> None:
        self.asked_by = asked_by
        self._lock = threading.Lock()
        self._cancelled = self._passed = False
        self._ends: list[Callable[[], None]] = []

    def cancel(self) -> bool:
        """Cancel it; whether that was in time. What was not delivered by then never is."""
        with self._lock:
            if self._passed:
                return False
            self._cancelled, ends, self._ends = True, self._ends, []
        for end in ends:
            end()
        return True

    def cancelled(self) -> bool:
        with self._lock:
            return self._cancelled

    def leaves(self) -> bool:
        """Whether what the run wrote may leave; if so, nobody cancels it any more."""
        with self._lock:
            self._passed = not self._cancelled
            return self._passed

    def at(self, end: Callable[[], None]) -> None:
        """Have this called when it is cancelled; at once where it was."""
        with self._lock:
            if not self._cancelled:
                self._ends.append(end)
                return
        end()
