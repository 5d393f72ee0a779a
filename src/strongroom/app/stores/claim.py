"""Who is at work on a book: brokers, or one alone who puts another book in its place. It ends with the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom.errors import Conflict


@contextmanager
def claimed(book: Path, *, alone: bool) -> Iterator[None]:
    """Be at work on a book for the length of a block.

    Args:
        book: its file; the claim is on a file beside it, which stays when the book is replaced.
        alone: nobody else may be.

    Raises:
        Conflict: somebody is at work on it; or puts another in its place.
    """
    import fcntl  # brokers run on Linux; who looks at them need not

    lock = os.open(book.with_name(f"{book.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            if alone:
                raise Conflict(
                    "the broker is at work", hint="Stop it first: what it wrote meanwhile would be lost."
                ) from error
            raise Conflict(
                "another book is being put in the place of this one", hint="Start the broker after it."
            ) from error
        yield
    finally:
        os.close(lock)


def durable(path: Path) -> None:
    """Have a file, or a folder's entries, survive a power cut. Raises OSError."""
    found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(found)
    finally:
        os.close(found)
