"""Who builds in a folder: one at a time. A lock ends with its process, however that ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from strongroom.errors import StoreBusy

from .disk import remove

_LOCK: Final = "lock"
_HELD: Final[set[str]] = set()
_HELD_LOCK: Final = threading.Lock()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While nobody else builds in a folder, which is made where it is not there. Raises StoreBusy."""
    folder.mkdir(parents=True, exist_ok=True)
    place = str(folder.resolve())
    with _HELD_LOCK:  # the lock of a file is its process's, and not its thread's
        if place in _HELD:
            raise StoreBusy("the same source is being built already")
        _HELD.add(place)
    try:
        file = _locked(folder)
        try:
            yield
        finally:
            os.close(file)
    finally:
        _HELD.discard(place)


def _locked(folder: Path) -> int:
    """The lock's file, locked, and still the one of that name: who held it before may have removed it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the folder was removed since
            continue
        try:
            os.lockf(file, os.F_TLOCK, 0)
        except OSError:
            os.close(file)
            raise StoreBusy("the same source is being built by another process") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), (folder / _LOCK).stat()):
                return file
        os.close(file)


def emptied(folder: Path) -> bool:
    """Remove a folder that is held with :func:`alone`: its lock last, so that nobody begins in it before.

    Returns:
        whether all that was in it is gone.
    """
    removed = [remove(inside) for inside in folder.iterdir() if inside.name != _LOCK]
    if all(removed):
        with suppress(OSError):
            (folder / _LOCK).unlink()
            folder.rmdir()
    return all(removed)
