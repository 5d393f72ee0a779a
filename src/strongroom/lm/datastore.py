"""A store that models retrieve from: frozen parts, and sources side by side, each of one owner.

    store.json       its head: which sources are in it; replaced as a whole, so that nobody ever reads half a change
    parts/           lm.parts, which never change
    sources/NAME-…/  lm.source, one folder each, which never change
    building/        what is being built or thrown away; of no store
    lists/           lm.lists: what was found before, by source; can be thrown away

Whoever opens a store has a snapshot: what is added or dropped later is not seen, and what is dropped stays readable to
whoever has it open. Adding and dropping replace the head, and take as long for a large source as for a small one.

Deletion is exact. A result depends on the query, on one source and on the frozen parts, which come from public text; sources
stand in the order of their names. So a store that dropped a source and a store that never had it have one head, byte for
byte, and give the same results, bit for bit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import (
    BadManifest,
    BadSourceName,
    DigestMismatch,
    HalfBuilt,
    NoSource,
    NotAStore,
    OtherParts,
    SourceTwice,
    StoreTruncated,
)

from . import document
from .disk import put, remove, roomy
from .document import Members
from .nearest import Hits, Index, Lists, library
from .parts import CHUNK, Parts
from .retriever import Retriever
from .source import Checked, Manifest, Source, document_key, read_manifest
from .tokenizer import Tokenizer, Tokens

PURPOSE: Final = "strongroom.datastore.v1"
HEAD, PARTS, SOURCES, BUILDING, LISTS = "store.json", "parts", "sources", "building", "lists"
MAX_SOURCES: Final = 10_000
RESIDENT: Final = 256 << 20
"""Bytes of files after which what was read of them no longer counts as this process's memory."""
_AROUND: Final = 1 << 17  # bytes that a system maps where a passage is read: around its tokens, and around its offsets
_TURN: Final = threading.Lock()
_TRIES: Final = 100  # a head that changes again and again while it is read


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
            return cls.parse((store / HEAD).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if (store / BUILDING).is_dir() or (store / PARTS).is_dir():
                raise HalfBuilt("the store's first build did not come to its end") from None
            raise NotAStore("there is no datastore in that folder") from None

    def folder(self, name: str) -> str:
        """The name of a source's folder."""
        return f"{name}-{self.sources[name][7:39]}"


@dataclass(frozen=True)
class Neighbours:
    """What was found in one source for some queries.

    Attributes:
        tokens: ``uint16[n, k, 128]``, a chunk and what follows it, filled up with ``PAD``.
        lengths: ``int16[n, k]``, how many tokens; 0 where there is no neighbour.
        scores: ``float32[n, k]``, cosine; minus infinity where there is none.
        passages: ``int64[n, k]``, the chunk's number in its source; -1 where there is none.
    """

    tokens: Tokens
    lengths: NDArray[np.int16]
    scores: NDArray[np.float32]
    passages: NDArray[np.int64]


class Datastore:
    """A snapshot of a store.

    Args:
        parts: the frozen parts.
        sources: by name.
        head: what is in it.
    """

    def __init__(self, parts: Parts, sources: Mapping[str, Source], head: Head) -> None:
        self.parts, self.head = parts, head
        self._touched = 0
        self.sources = {name: sources[name] for name in sorted(sources)}

    # --- opening ----------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path | str, parts: Parts) -> Datastore:
        """Make an empty store.

        Raises:
            SourceTwice: there is a store already. DiskFull.
        """
        store = Path(path)
        if (store / HEAD).exists():
            raise SourceTwice("there is a store in that folder already", hint="Add to it, or name another folder.")
        with roomy():
            parts.save(store / PARTS)
            for name in (SOURCES, BUILDING):
                (store / name).mkdir(parents=True, exist_ok=True)
            put(store / HEAD, Head(parts.digest, {}).encode())
        return cls(parts, {}, Head(parts.digest, {}))

    @classmethod
    def open(cls, path: Path | str, *, threads: int = 1) -> Datastore:
        """Open what is in a store now.

        Lengths and forms are looked at, digests are not: those are compared when a source is added, and by
        ``strongroom lm sources --check``.

        Args:
            path: its folder.
            threads: that search at once, of this process.

        Raises:
            NotAStore, HalfBuilt, BadManifest, StoreVersion, DigestMismatch, StoreTruncated, OtherParts, MissingExtra.
        """
        store = Path(path)
        library().omp_set_num_threads(threads)
        parts: Parts | None = None
        for _ in range(_TRIES):
            head = Head.read(store)
            parts = parts or Parts.load(store / PARTS)
            if parts.digest != head.parts:
                raise OtherParts("the store's head names other frozen parts than those beside it")
            try:
                return cls(parts, {name: _open(store, head, name, parts) for name in head.sources}, head)
            except (OSError, NoSource, HalfBuilt, StoreTruncated, DigestMismatch):
                if Head.read(store) == head:  # it is damaged; else somebody dropped a source meanwhile
                    raise
        raise StoreTruncated("the store changes faster than it can be read")

    # --- what is in it ----------------------------------------------------------------------------------------------

    @cached_property
    def version(self) -> str:
        """Digest of all that results depend on: frozen parts and sources."""
        return self.head.digest

    @property
    def names(self) -> list[str]:
        """The sources, in order."""
        return list(self.sources)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.parts.tokenizer

    @property
    def retriever(self) -> Retriever:
        return self.parts.retriever

    def source(self, name: str) -> Source:
        """Raises NoSource."""
        if name not in self.sources:
            raise NoSource(f"the store has no source {name!r}" if name.isprintable() else "the store has no such source")
        return self.sources[name]

    def without(self, name: str) -> Datastore:
        """The same snapshot without a source: as a store that never had it. Raises NoSource."""
        self.source(name)
        left = {other: source for other, source in self.sources.items() if other != name}
        return Datastore(self.parts, left, Head(self.head.parts, {n: self.head.sources[n] for n in left}))

    def only(self, names: Sequence[str]) -> Datastore:
        """The same snapshot with these sources alone. Raises NoSource."""
        kept = {name: self.source(name) for name in names}
        return Datastore(self.parts, kept, Head(self.head.parts, {n: self.head.sources[n] for n in kept}))

    def passage(self, name: str, number: int) -> tuple[Tokens, str]:
        """A chunk's tokens and its document's id. Raises NoSource."""
        return self.source(name).passage(number)

    def document_key(self, name: str, number: int) -> int:
        """What ``without`` of :meth:`nearest` means by a source's document. Raises NoSource."""
        self.source(name)
        return document_key(name, number)

    # --- searching --------------------------------------------------------------------------------------------------

    def nearest(
        self, queries: NDArray[Any], k: int, without: NDArray[np.int64] | None = None, *, names: Sequence[str] | None = None
    ) -> dict[str, Neighbours]:
        """The ``k`` nearest chunks of each source to each query.

        What is found in a source depends on that source, the query and the frozen parts: on no other source and on no other
        query.

        Args:
            queries: ``int[n, <=64]``, the tokens before the place that is asked for, filled up with ``PAD``.
            k: how many of each source.
            without: ``int64[n]``, the :meth:`document_key` of a document that is no neighbour to the query; -1 for none.
            names: of these sources alone.

        Raises:
            NoSource. OtherParts: a token is none of the tokenizer's.
        """
        found = self.search(queries, k, without, names=names)
        return {name: self._neighbours(name, hits) for name, hits in found.items()}

    def search(
        self,
        queries: NDArray[Any],
        k: int,
        without: NDArray[np.int64] | None = None,
        *,
        names: Sequence[str] | None = None,
        among: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> dict[str, Hits]:
        """As :meth:`nearest`, without the tokens; ``among``: which passages of a source may be found at all."""
        queries = np.asarray(queries)
        if queries.ndim != 2 or not 0 < queries.shape[1] <= CHUNK or k < 1:
            raise OtherParts(f"queries are rows of 1 to {CHUNK} tokens")
        vectors = self.retriever.embed(queries)
        lists = self.parts.quantizer.lists_of(vectors, self.parts.probes)
        found = {}
        for name in self.names if names is None else sorted(names):
            source = self.source(name)
            out = None if without is None else _own(source, without)
            some = None if among is None else among[name]
            found[name] = self._searched(source.index, vectors, lists, k, out, some)
        return found

    def _searched(  # noqa: PLR0917
        self, index: Index, vectors: NDArray[np.float32], lists: Lists, k: int, out: Any, among: NDArray[np.bool_] | None
    ) -> Hits:
        """Search, and let go of what was read of the index before it is too much."""
        rows = max(
            1, RESIDENT // 2 // max(1, index.size // index.sizes.size * lists[1].shape[1])
        )  # as many as read half of that
        found = []
        for at in range(0, max(1, len(vectors)), rows):
            some = slice(at, at + rows)
            part = (lists[0][some], lists[1][some])
            found.append(index.search(vectors[some], part, k, None if out is None else out[some], among))
            self._touch(index.touched(part[1]))
        return Hits(np.concatenate([hits.scores for hits in found]), np.concatenate([hits.passages for hits in found]))

    def _touch(self, size: int) -> None:
        self._touched += size
        if self._touched > RESIDENT:
            self._touched = 0
            for one in self.sources.values():
                one.release()

    def _neighbours(self, name: str, hits: Hits) -> Neighbours:
        self._touch(hits.passages.size * _AROUND)
        tokens, lengths = self.sources[name].neighbours(hits.passages)
        return Neighbours(tokens, lengths, hits.scores, hits.passages)

    def neighbours(self, hits: Mapping[str, Hits]) -> dict[str, Neighbours]:
        """What :meth:`search` found, or what was kept of it (``lm.lists``), with its tokens. Raises NoSource."""
        return {self.source(name).name: self._neighbours(name, one) for name, one in hits.items()}


def _own(source: Source, without: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each query the chunks of this source that it may not find: the first, and the first after them."""
    without = np.asarray(without, np.int64)
    numbers = without - source.key
    mine = (without >= 0) & (numbers >= 0) & (numbers < source.manifest.documents)
    numbers = np.where(mine, numbers, 0)
    found = np.stack([source.passages[numbers], source.passages[numbers + 1]], axis=1).astype(np.int64)
    return np.where(mine[:, None], found, 0)


def _open(store: Path, head: Head, name: str, parts: Parts) -> Source:
    folder = store / SOURCES / head.folder(name)
    manifest = read_manifest(folder)
    if manifest.digest != head.sources[name] or manifest.about.name != name:
        raise DigestMismatch(f"{name}: the manifest is not the one that {HEAD} names")
    return Source(folder, manifest, parts)


def manifests(path: Path | str) -> dict[str, Manifest]:
    """The sources of a store, without opening their files. Raises as :meth:`Datastore.open`."""
    store = Path(path)
    for _ in range(_TRIES):
        head = Head.read(store)
        try:
            found = {name: read_manifest(store / SOURCES / head.folder(name)) for name in head.sources}
        except (NoSource, HalfBuilt):
            if Head.read(store) == head:
                raise
            continue
        if any(manifest.digest != head.sources[name] for name, manifest in found.items()):
            raise DigestMismatch(f"a manifest is not the one that {HEAD} names")
        return found
    raise StoreTruncated("the store changes faster than it can be read")


# --- changing -------------------------------------------------------------------------------------------------------


@contextmanager
def changing(store: Path) -> Iterator[Head]:
    """The head, while nobody else changes it. Raises as ``Head.read``."""
    Head.read(store)  # a lock is made in stores alone
    with _TURN:  # the lock of a file is its process's, and not its thread's
        file = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.lockf(file, os.F_LOCK, 0)  # ends with the process, however that ends
            yield Head.read(store)
        finally:
            os.close(file)


def add(path: Path | str, source: Checked, *, replace: bool = False, reclaim: bool = True) -> Head:
    """Put a source into a store. Takes as long for a large one as for a small one.

    Args:
        path: the store.
        source: in a folder below the store's ``building``, which is moved.
        replace: in the place of one of that name.
        reclaim: remove the files of what it takes the place of.

    Raises:
        SourceTwice, OtherParts, DigestMismatch, DiskFull.
    """
    store, manifest = Path(path), source.manifest
    name = manifest.about.name
    with roomy(), changing(store) as head:
        if name in head.sources and not replace:
            raise SourceTwice(f"the store has a source {name} already")
        if manifest.parts != head.parts:
            raise OtherParts(f"{name} was built with another tokenizer, retriever or quantizer")
        if any(document_key(name, 0) == document_key(other, 0) for other in head.sources if other != name):
            raise BadSourceName(f"{name} cannot be told from another source of the store", hint="Give it another name.")
        if len(head.sources) >= MAX_SOURCES:
            raise BadManifest(f"a store has at most {MAX_SOURCES:,} sources")
        source.unchanged()
        new = Head(head.parts, {**head.sources, name: manifest.digest})
        if new != head:
            _place(store, source, new)
            put(store / HEAD, new.encode())
        _set_aside(store, new)
    if reclaim:
        reclaimed(store)
    return new


def become(path: Path | str, head: Head, sources: Sequence[Checked]) -> Head:
    """Make a store what another is, in one change.

    Args:
        path: the store.
        head: the other's.
        sources: those that are not here yet, in folders below the store's ``building``, which are moved.

    Raises:
        OtherParts, DigestMismatch, NoSource: one is neither here nor among them. DiskFull.
    """
    store = Path(path)
    with roomy(), changing(store) as old:
        if head.parts != old.parts:
            raise OtherParts("the other store is of other frozen parts")
        for source in sources:
            source.unchanged()
            if head.sources.get(source.manifest.about.name) != source.manifest.digest:
                raise DigestMismatch("a source is not the one that the other store's head names")
        brought = {source.manifest.about.name for source in sources}
        if any(name not in brought and old.sources.get(name) != digest for name, digest in head.sources.items()):
            raise NoSource("a source of the other store was not brought")
        for source in sources:
            _place(store, source, head)
        put(store / HEAD, head.encode())
        _set_aside(store, head)
    reclaimed(store)
    return head


def _place(store: Path, source: Checked, head: Head) -> None:
    target = store / SOURCES / head.folder(source.manifest.about.name)
    if target.exists():  # of a change that did not come to its end
        target.rename(store / BUILDING / f"dropped-{os.getpid()}-{target.name}")
    source.folder.rename(target)


def drop(path: Path | str, name: str, *, reclaim: bool = True) -> Head:
    """Take a source out of a store, and remove its files.

    Readers that have it open keep it until they close it; whoever opens the store from now on does not see it.

    Args:
        path: the store.
        name: of the source.
        reclaim: remove its files too, which takes longer for a large one; else :func:`reclaimed` does later.

    Raises:
        NoSource, DiskFull.
    """
    store = Path(path)
    with roomy(), changing(store) as head:
        if name not in head.sources:
            raise NoSource("the store has no source of that name")
        new = Head(head.parts, {other: digest for other, digest in head.sources.items() if other != name})
        put(store / HEAD, new.encode())
        _set_aside(store, new)
    if reclaim:
        reclaimed(store)
    return new


def reclaimed(path: Path | str) -> None:
    """Remove the files of sources that were dropped or replaced."""
    store = Path(path)
    for folder in (store / BUILDING).iterdir():
        if folder.name.startswith("dropped-"):
            remove(folder)
    if (store / LISTS).is_dir():
        head = Head.read(store)
        kept = {head.folder(name) for name in head.sources}
        for folder in (store / LISTS).iterdir():
            if folder.name not in kept:
                remove(folder)


def _set_aside(store: Path, head: Head) -> None:
    """Move folders of sources that the head does not name out of the way. Under the lock, so that none is being added."""
    named = {head.folder(name) for name in head.sources}
    for folder in (store / SOURCES).iterdir():
        if folder.name not in named:
            with suppress(OSError):
                folder.rename(store / BUILDING / f"dropped-{os.getpid()}-{folder.name}")
