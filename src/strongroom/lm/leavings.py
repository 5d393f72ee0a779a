"""What a store has no more: moved out of the way under its lock, and removed afterwards, also when a change was killed.

building/dropped-N-…     folders of sources, and of what was found in them, that no head names
building/source-NAME     what was built of a source so far; its build can go on, until NAME is dropped
building/brought-NAME, building/fetched/NAME-…    copies of a source that did not come to their end
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from strongroom.errors import NotRemoved, StoreBusy

from . import document
from .disk import remove
from .head import BUILDING, LISTS, SOURCES, Head, changing
from .locks import alone, emptied

_DIGITS = 32  # of a digest, in the name of a source's folder


def set_aside(store: Path, head: Head) -> None:
    """Move folders that the head does not name out of the way. Under the lock, so that none is being added.

    Raises OSError: one cannot be moved; the others are.
    """
    (store / BUILDING).mkdir(exist_ok=True)
    kept = head.folders
    failed: OSError | None = None
    for place in (SOURCES, LISTS):
        if not (store / place).is_dir():
            continue
        for folder in list((store / place).iterdir()):
            if folder.name not in kept:
                try:
                    aside(store, folder)
                except OSError as error:
                    failed = error
    if failed is not None:
        raise failed


def aside(store: Path, folder: Path) -> None:
    """Move a folder out of the way, to a name that nothing has. Under the lock. Raises OSError."""
    for number in count():
        target = store / BUILDING / f"dropped-{number}-{folder.name}"
        if not target.exists() and not target.is_symlink():
            folder.rename(target)
            return


def swept(store: Path, names: Sequence[str] = ()) -> None:
    """Finish what changes began that did not come to their end, and remove what is no more in a store.

    Args:
        store: its folder.
        names: of sources that nothing is to be left of, unless the head names them: not of their builds either.

    Raises:
        NotRemoved: something could not be removed; the rest is. And as of ``Head.read``.
    """
    try:
        with changing(store) as head:
            set_aside(store, head)
        gone = True
    except OSError:
        gone = False
    for folder in list((store / BUILDING).iterdir()) if (store / BUILDING).is_dir() else ():
        if folder.name.startswith("dropped-"):
            gone = remove(folder) and gone
    for name in filter(document.is_name, set(names) - set(Head.read(store).sources)):
        for folder in (store / BUILDING / f"source-{name}", store / BUILDING / f"brought-{name}"):
            gone = _left(folder) and gone
        gone = _fetched(store / BUILDING / "fetched", name) and gone
    if not gone:
        raise NotRemoved("files of a source that is dropped could not be removed")


def _left(folder: Path) -> bool:
    """Remove what was built, unless somebody is building it now."""
    if folder.is_dir() and not folder.is_symlink():
        with suppress(StoreBusy), alone(folder):
            return emptied(folder)
        return True
    return remove(folder)


def _fetched(folder: Path, name: str) -> bool:
    """Remove copies of a source out of a bucket, unless somebody is fetching now."""
    if not folder.is_dir():
        return True
    if any(one.name[: -_DIGITS - 1] == name for one in folder.iterdir()):
        with suppress(StoreBusy), alone(folder):
            return emptied(folder)
    return True
