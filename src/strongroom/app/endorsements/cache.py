"""What was fetched, kept on disk: in the user's cache folder, bounded in size, and believed by nobody.

FOLDER/                     0700
  lock                      held while the index changes
  index.json                which document answers which question, and when it was fetched
  documents/<sha256>        each document's bytes, named by their digest, 0600

Whoever can write here can make verifications fail, or have an older document used that still counts; they cannot make a bad
one pass, because every document is verified when it is used. What does not have the digest of its name is dropped, and an
index that cannot be read is begun anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strongroom import wire
from strongroom.app.client.home import write
from strongroom.attest.evidence import MAX_ENDORSEMENT_BYTES, Endorsement
from strongroom.errors import NotFound, StrongroomError
from strongroom.wire import JSON, Fields

from .request import MAX_ABOUT_CHARS, Document

try:
    import fcntl
except ImportError:  # Windows: two processes at once may each forget what the other fetched
    fcntl = None  # type: ignore[assignment]

FORMAT = "strongroom.endorsement-cache.v1"
MAX_CACHE_BYTES = 64 << 20
MAX_ENTRIES = 4096
MAX_INDEX_BYTES = 4 << 20
MAX_EDITIONS = 4  # of what answers one question, newest kept: evidence of yesterday is verified at yesterday's time


def default_folder() -> Path:
    """``strongroom/endorsements`` in the user's cache folder (XDG base directories)."""
    said = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(said) if said.startswith("/") else Path.home() / ".cache") / "strongroom" / "endorsements"


@dataclass(frozen=True, slots=True)
class _Entry:
    """That some bytes on disk answer a question."""

    about: str
    media_type: str
    digest: str
    size: int
    fetched_at: int

    def to_json(self) -> dict[str, JSON]:
        return {
            "about": self.about,
            "digest": self.digest,
            "fetched_at": self.fetched_at,
            "media_type": self.media_type,
            "size": self.size,
        }

    @classmethod
    def from_json(cls, value: object) -> _Entry:
        f = Fields(value, "entry")
        found = cls(
            f.text("about", max_chars=MAX_ABOUT_CHARS),
            f.media_type("media_type"),
            f.digest("digest"),
            f.integer("size", high=MAX_ENDORSEMENT_BYTES),
            f.integer("fetched_at"),
        )
        f.end()
        return found

    @property
    def name(self) -> str:
        return self.digest.removeprefix("sha256:")


class Cache:
    """Documents on disk, by the question that they answer.

    Args:
        folder: made when something is kept.
        most: bytes of documents in all; the longest fetched go first.
    """

    def __init__(self, folder: Path, *, most: int = MAX_CACHE_BYTES) -> None:
        self.folder, self._most = folder, most
        self._documents = folder / "documents"

    def find(self, about: str) -> tuple[Document, ...]:
        """What answers a question, those fetched last first. What is damaged is left out."""
        return tuple(self._read(e for e in self._index() if e.about == about))

    def all(self) -> tuple[Document, ...]:
        """Every document that is whole, in the order of what they answer."""
        return tuple(sorted(self._read(self._index()), key=lambda document: document.order))

    def keep(self, about: str, answer: Sequence[Endorsement], *, fetched_at: int) -> None:
        """Keep what answered a question. Raises NotFound: the folder cannot be written."""
        try:
            self._documents.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            with self._locked():
                new = []
                for one in answer:
                    entry = _Entry(about, one.media_type, wire.digest(one.data), len(one.data), fetched_at)
                    if self._bytes(entry) is None:
                        write(self._documents / entry.name, one.data, secret=True)
                    new.append(entry)
                self._save(new)
        except OSError as error:
            raise NotFound(
                f"cannot write {self.folder}: {error.strerror}", hint="Say another folder: --cache DIR"
            ) from error

    def _save(self, new: list[_Entry]) -> None:
        """Write the index with these entries, without what is over the bounds; remove documents that nobody names."""
        said = {(e.about, e.media_type, e.digest) for e in new}
        merged = new + [e for e in self._index() if (e.about, e.media_type, e.digest) not in said]
        kept: list[_Entry] = []
        editions: dict[tuple[str, str], int] = {}
        sizes: dict[str, int] = {}
        for entry in sorted(merged, key=lambda e: -e.fetched_at):
            which = entry.about, entry.media_type
            room = self._most - sum(sizes.values()) >= (0 if entry.digest in sizes else entry.size)
            if editions.get(which, 0) < MAX_EDITIONS and room and len(kept) < MAX_ENTRIES:
                editions[which] = editions.get(which, 0) + 1
                sizes[entry.digest] = entry.size
                kept.append(entry)
        rows: list[JSON] = [e.to_json() for e in kept]
        write(self.folder / "index.json", wire.encode({"entries": rows, "format": FORMAT}), secret=True)
        named = {e.name for e in kept}
        for path in self._documents.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _index(self) -> list[_Entry]:
        try:
            with (self.folder / "index.json").open("rb") as file:
                data = file.read(MAX_INDEX_BYTES + 1)
            f = Fields(wire.decode(data, max_bytes=MAX_INDEX_BYTES, max_values=8 * MAX_ENTRIES), "index")
            f.literal("format", FORMAT)
            found: tuple[_Entry, ...] = f.items("entries", _Entry.from_json, high=MAX_ENTRIES)
            f.end()
        except (OSError, StrongroomError):
            return []
        return list(found)

    def _read(self, entries: Iterable[_Entry]) -> Iterator[Document]:
        for entry in entries:
            data = self._bytes(entry)
            if data is not None:
                try:
                    yield Document(Endorsement(entry.media_type, data), entry.about, entry.fetched_at)
                except StrongroomError:
                    continue

    def _bytes(self, entry: _Entry) -> bytes | None:
        """A document's bytes; ``None`` where they are not there, or not those that they should be."""
        try:
            with (self._documents / entry.name).open("rb") as file:
                data = file.read(MAX_ENDORSEMENT_BYTES + 1)
        except OSError:
            return None
        return data if wire.digest(data) == entry.digest else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
