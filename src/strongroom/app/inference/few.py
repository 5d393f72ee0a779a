"""Work that anybody can ask for and that costs something: so much at once, so much that waits, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from strongroom.errors import TooManyRequests

T = TypeVar("T")


class Few:
    """Runs work in threads, a few at a time, so that strangers do not take every thread there is.

    Args:
        at_once: how many run.
        waiting: how many run or wait.
    """

    def __init__(self, at_once: int, waiting: int = 32) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._most = waiting
        self.taken = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run it. Raises TooManyRequests, and what the work raises."""
        if self.taken >= self._most:
            raise TooManyRequests("too many ask for this at once")
        self.taken += 1
        try:
            async with self._places:
                return await asyncio.to_thread(work)
        finally:
            self.taken -= 1
