"""Files that are whole or not there: written beside, made durable, and moved into place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from strongroom.errors import DiskFull

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def roomy() -> Iterator[None]:
    """Says in our own words that a disk is full. Raises DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull("there is no room on the disk") from error
        raise


def durable(path: Path) -> None:
    """Have a file or a folder on the disk before what follows."""
    found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(found)
    finally:
        os.close(found)


def put(path: Path, data: bytes) -> None:
    """Replace a file as a whole, and have it on the disk with every name that was changed before. Raises OSError; the old
    one is there then.

    One folder is waited for: file systems with a journal bring changes of names to the disk in their order.
    """
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    durable(path.parent)


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that is possible; links are not followed."""
    with suppress(OSError):
        if not folder.is_symlink():
            for inside in folder.iterdir():
                if inside.is_dir() and not inside.is_symlink():
                    remove(inside)
                else:
                    inside.unlink()
            folder.rmdir()
