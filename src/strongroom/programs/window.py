"""The child's side of memory that it shares with its parent, and can only read: large ranges of its inputs are shown there.

Two halves, so that the parent fills one while what is in the other is taken. See ``spec/sandbox.md``.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Final

from . import frames

LEAST: Final = 1 << 16
"""Fewer bytes than this come sooner through the channel."""

Range = tuple[int, int]  # offset, length


class Window:
    """The window, mapped.

    Args:
        descriptor: of the memory file; closed.
        size: in bytes.

    Raises:
        OSError: there is no room for it in the address space.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        try:
            self._memory = memoryview(mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)
        self.half = size // 2

    def take(self, place: int, into: memoryview) -> None:
        """Copy what is shown from ``place`` on."""
        into[:] = self._memory[place : place + len(into)]

    def portions(self, ranges: Sequence[Range]) -> Iterator[list[Range]]:
        """The ranges, cut and put together so that each portion fills no more than a half, in one frame.

        They are cut where a sealed file's chunks mostly end: a chunk of which each portion wants a part is opened twice.
        """
        some: list[Range] = []
        room = self.half
        for start, size in ranges:
            at, end = start, start + size
            while at < end:
                taken = min(end - at, room)
                if taken < end - at:
                    taken = (at + room) // frames.READ_BYTES * frames.READ_BYTES - at
                if taken > 0:
                    some.append((at, taken))
                    at += taken
                    room -= taken
                if at < end or len(some) == frames.MAX_RANGES:
                    yield some
                    some, room = [], self.half
        if some:
            yield some
