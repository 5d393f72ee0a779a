"""Files that are whole or not there: written beside, made durable, and moved into place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from strongroom.errors import BadManifest, DiskFull, StoreTruncated

_DESCRIPTORS: Final = Path("/proc/self/fd")
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


def small(path: Path, most: int) -> bytes:
    """A file that is read as a whole: a plain one, of at most so many bytes, and by no link but one to a descriptor of this
    process, by which memory files are named.

    Raises:
        StoreTruncated: it is a link, a pipe or a device. BadManifest: it is larger. OSError, where it cannot be read.
    """
    follow = 0 if path.parent == _DESCRIPTORS else os.O_NOFOLLOW
    try:
        found = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise StoreTruncated(f"{path.name} is no plain file") from None
        raise
    with os.fdopen(found, "rb") as file:
        said = os.fstat(found)
        if not stat.S_ISREG(said.st_mode):
            raise StoreTruncated(f"{path.name} is no plain file")
        data = file.read(most + 1) if said.st_size <= most else b""
    if said.st_size > most or len(data) > most:
        raise BadManifest(f"{path.name} is larger than any file of its kind")
    return data


def remove(folder: Path) -> bool:
    """Remove a folder and what is in it, or a file, as far as that is possible; links are not followed.

    Returns:
        whether all of it is gone.
    """
    with suppress(OSError):
        if folder.is_dir() and not folder.is_symlink():
            for inside in list(folder.iterdir()):
                remove(inside)
            folder.rmdir()
        else:
            folder.unlink(missing_ok=True)
    return not os.path.lexists(folder)
