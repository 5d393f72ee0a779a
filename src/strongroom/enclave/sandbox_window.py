"""Memory that a child sees and only its parent writes: large ranges of inputs are decrypted straight into it.

It is sealed before the child has it, against every further writer and every change of its size, by whomever; and the child
gets it opened for reading. The parent never reads it: what it writes is its own, and what others make of it is theirs.
Where a system cannot do all of that there is none, and ranges come through the channel. Source: memfd_create(2), fcntl(2).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from typing import Final, Self

from strongroom.programs import frames

WORTH_BYTES: Final = 4 << 20
"""Inputs of fewer bytes together are read sooner than a window is made."""

SHARE: Final = 16
"""A window takes no more than this part of the memory that a run may use."""

_FUTURE_WRITE: Final = 0x10  # F_SEAL_FUTURE_WRITE, Linux 5.1: no write and no mapping to write from now on
SEALS: Final = _FUTURE_WRITE | 1 | 2 | 4  # and F_SEAL_SEAL, SHRINK, GROW


class Window:
    """A window. ``made`` makes it; its own process alone writes to it, for as long as it is open.

    Args:
        memory: the only mapping that can be written.
        descriptor: of the same memory, opened for reading. The caller's, once it is asked for.
    """

    def __init__(self, memory: mmap.mmap, descriptor: int) -> None:
        self._memory, self._descriptor = memory, descriptor
        self.view = memoryview(memory)
        self.size = len(self.view)

    def pass_on(self) -> int:
        """The descriptor for the child. It can be had once; who has it closes it."""
        found, self._descriptor = self._descriptor, -1
        return found

    def close(self) -> None:
        """Let go of the memory. Nobody may be writing to it any more."""
        if self._descriptor >= 0:
            os.close(self.pass_on())
        self.view.release()
        with suppress(BufferError):  # an error that is on its way still knows a part of it: then it goes with that
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def made(read_bytes: int, memory_bytes: int) -> Window | None:
    """A window for a run, or ``None`` where it is not worth one, may not use so much, or cannot have one.

    Args:
        read_bytes: the size of its inputs together.
        memory_bytes: that the run may use.
    """
    if read_bytes < WORTH_BYTES or memory_bytes < frames.WINDOW_BYTES * SHARE or not hasattr(os, "memfd_create"):
        return None
    with suppress(OSError):
        return _sealed(frames.WINDOW_BYTES)
    return None


def _sealed(size: int) -> Window:
    """Raises OSError: some of it cannot be had here."""
    writable = os.memfd_create("window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(writable, size)
        os.posix_fallocate(writable, 0, size)  # all of it is there now: a page that could not be had later would be a crash
        memory = mmap.mmap(writable, size, flags=mmap.MAP_SHARED)
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, SEALS)
        if fcntl.fcntl(writable, fcntl.F_GET_SEALS) != SEALS:
            raise OSError("the seals do not hold")
        return Window(memory, os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        os.close(writable)
