"""Files with what was found in a source, which are kept beside it as long as it is in its store, and not a moment longer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .disk import roomy
from .head import HEAD, Head, changing
from .source import Source


@contextmanager
def keeping(path: Path, source: Source) -> Iterator[IO[bytes]]:
    """A file that has its name when all of it is written; it has none where the source was dropped meanwhile.

    What was mapped of it stays readable either way.

    Args:
        path: in a folder of the source's own, which is made.
        source: of a snapshot, which the store may have dropped since.

    Raises:
        DiskFull. And as of ``Head.read``.
    """
    with roomy():
        beside = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
        with _named(source) as named:
            if not named:  # nothing of it comes into its folder again
                beside = path.parent.with_name(beside.name)
            beside.parent.mkdir(parents=True, exist_ok=True)
            file = beside.open("w+b")
            if not named:
                beside.unlink()
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                with _named(source) as still:
                    if named and still:
                        beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def _named(source: Source) -> Iterator[bool]:
    """Whether a source is in the store that its folder is in; while that is not changed, where it can be."""
    store = source.folder.parent.parent
    lock = store / "lock"
    if not os.access(lock if lock.exists() else store, os.W_OK):  # nobody here changes it
        yield not (store / HEAD).exists() or _names(Head.read(store), source)
        return
    if not (store / HEAD).exists():  # a source that is in no store
        yield True
        return
    with changing(store) as head:
        yield _names(head, source)


def _names(head: Head, source: Source) -> bool:
    return head.sources.get(source.name) == source.manifest.digest
