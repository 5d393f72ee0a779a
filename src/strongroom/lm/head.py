"""The head of a store: which sources are in it; and who may change it: one at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import BadManifest, HalfBuilt, NotAStore, SourceTwice

from . import document
from .disk import small
from .document import Members

PURPOSE: Final = "strongroom.datastore.v1"
HEAD, PARTS, SOURCES, BUILDING, LISTS = "store.json", "parts", "sources", "building", "lists"
MAX_SOURCES: Final = 10_000
_TURN: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Head:
    """Which sources are in a store.

    Attributes:
        parts: digest of the frozen parts.
        sources: name -> digest of the manifest; in the order of their names.
    """

    parts: str
    sources: Mapping[str, str]

    def encode(self) -> bytes:
        listed = [{"manifest": self.sources[name], "name": name} for name in sorted(self.sources)]
        return document.encode({"parts": self.parts, "purpose": PURPOSE, "sources": listed})

    @property
    def digest(self) -> str:
        return document.digest(self.encode())

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Raises BadManifest, StoreVersion, BadSourceName, SourceTwice."""
        said = Members.parse(data, HEAD, PURPOSE)
        parts, listed = said.digest("parts"), said.take("sources", list)
        said.end()
        found: dict[str, str] = {}
        if len(listed) > MAX_SOURCES:
            raise BadManifest(f"{HEAD} has more than {MAX_SOURCES:,} sources")
        for value in listed:
            one = Members(value, f"{HEAD}: a source")
            name = document.named(one.take("name", str))
            if name in found:
                raise SourceTwice(f"{HEAD} has the source {name} twice")
            found[name] = one.digest("manifest")
            one.end()
        if list(found) != sorted(found):
            raise BadManifest(f"{HEAD}: sources do not stand in the order of their names")
        return cls(parts, found)

    @classmethod
    def read(cls, store: Path) -> Head:
        """Raises NotAStore, HalfBuilt, and as of :meth:`parse`."""
        try:
            return cls.parse(small(store / HEAD, document.MAX_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            if (store / BUILDING).is_dir() or (store / PARTS).is_dir():
                raise HalfBuilt("the store's first build did not come to its end") from None
            raise NotAStore("there is no datastore in that folder") from None

    def folder(self, name: str) -> str:
        """The name of a source's folder."""
        return f"{name}-{self.sources[name][7:39]}"

    @property
    def folders(self) -> set[str]:
        """The names of all its sources' folders."""
        return set(map(self.folder, self.sources))


def state(store: Path) -> tuple[int, ...]:
    """What the system tells of a head: another after each change, even where the same bytes come back."""
    try:
        found = (store / HEAD).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def turn(store: Path) -> Iterator[None]:
    """While nobody else changes a store."""
    with _TURN:  # the lock of a file is its process's, and not its thread's
        file = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.lockf(file, os.F_LOCK, 0)  # ends with the process, however that ends
            yield
        finally:
            os.close(file)


@contextmanager
def changing(store: Path) -> Iterator[Head]:
    """The head, while nobody else changes it. Raises as ``Head.read``."""
    Head.read(store)  # a lock is made in stores alone
    with turn(store):
        yield Head.read(store)
