"""Open many ranges of a sealed file at once, straight into memory that is there, with several threads.

What a range holds of a chunk whole is decrypted where it is to lie, and copied nowhere. That memory may be somebody else's
to read while it is filled. So a chunk is decrypted only after it was found under the root (S7): of what was never sealed,
nobody sees a byte, not even for the moment until its tag (S8) is found wrong.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from .format import TAG_BYTES, Layout

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from .opening import Opened

Wanted = Sequence[tuple[int, memoryview]]
"""Offsets in the plaintext, and the memory that what is there goes into."""

KEPT: Final = 4
"""Chunks of which only a part was wanted, kept because the next range often begins where this one ended."""

_Task = tuple[int, list[tuple[int, memoryview]]]  # a chunk's index; for each part of it where it begins, and where it goes


class Ranges:
    """Fills memory from ranges of one opened sealed file. One caller at a time.

    Holds at most ``KEPT`` chunks, and for each thread one as it is sealed and one opened, whatever is asked for.

    Args:
        opened: the file; its source is usable from several threads.
        layout: of the file.
        threads: how many work on it, the caller's among them; at least 1.
    """

    def __init__(self, opened: Opened, layout: Layout, threads: int) -> None:
        self._opened, self._layout, self._threads = opened, layout, max(1, threads)
        self._pool: ThreadPoolExecutor | None = None
        self._scratches: list[memoryview] = []
        self._buffers: list[memoryview] = []
        self._kept: dict[int, memoryview] = {}  # chunk index -> plaintext, the last one kept last
        self._lock = threading.Lock()

    def fill(self, wanted: Wanted, look: Callable[[], None] | None = None) -> None:
        """Fill each piece of memory from its offset on. All of it must be there.

        Args:
            wanted: what goes where.
            look: called by the caller's thread between chunks; what it raises ends the work.

        Raises:
            ValueError: a range lies outside of the plaintext. Nothing is filled.
            Truncated, ChunkAltered, OSError: as of ``Opened.plaintext``; what was filled is nobody's to read.
        """
        tasks = deque(self._tasks(wanted))
        others = [self._started().submit(self._work, tasks) for _ in range(min(self._threads, len(tasks)) - 1)]
        try:
            self._work(tasks, look)
        finally:
            tasks.clear()
            errors = [other.exception() for other in others]  # none of them may write any more when this returns
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """Let go of what was decrypted, and of the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._kept.clear()
        self._buffers.clear()

    def _tasks(self, wanted: Wanted) -> list[_Task]:
        found: dict[int, list[tuple[int, memoryview]]] = {}
        size, chunk = self._layout.plaintext_bytes, self._layout.chunk_bytes
        for offset, view in wanted:
            if not 0 <= offset <= size - len(view):
                raise ValueError("a range lies outside of the plaintext")
            at = 0
            while at < len(view):
                index, skip = divmod(offset + at, chunk)
                piece = view[at : at + chunk - skip]
                found.setdefault(index, []).append((skip, piece))
                at += len(piece)
        return [*found.items()]

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as in `stream`

            self._pool = ThreadPoolExecutor(self._threads - 1, thread_name_prefix="strongroom-ranges")
        return self._pool

    def _work(self, tasks: deque[_Task], look: Callable[[], None] | None = None) -> None:
        """One thread's part. Where it fails nothing more is begun."""
        scratch = self._taken(self._scratches) or self._opened.scratch()
        try:
            while True:
                if look is not None:
                    look()
                try:
                    index, pieces = tasks.popleft()
                except IndexError:
                    return
                self._make(index, pieces, scratch)
        except BaseException:
            tasks.clear()
            raise
        finally:
            self._scratches.append(scratch)

    def _make(self, index: int, pieces: list[tuple[int, memoryview]], scratch: memoryview) -> None:
        whole = self._layout.chunk(index)[1] - TAG_BYTES
        if len(pieces) == 1 and len(pieces[0][1]) == whole:
            self._opened.plaintext(index, pieces[0][1], scratch)
            return
        with self._lock:
            plaintext = self._kept.pop(index, None)
        if plaintext is None:
            plaintext = self._opened.plaintext(index, self._taken(self._buffers) or self._opened.buffer(), scratch)
        for skip, view in pieces:
            view[:] = plaintext[skip : skip + len(view)]
        with self._lock:
            self._kept[index] = plaintext
            if len(self._kept) > KEPT:
                oldest = self._kept.pop(next(iter(self._kept)))
                self._buffers.append(memoryview(oldest.obj))  # whole, also where the last chunk was

    def _taken(self, spare: list[memoryview]) -> memoryview | None:
        with self._lock:
            return spare.pop() if spare else None
