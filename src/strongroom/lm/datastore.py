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

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import (
    BadManifest,
    BadSourceName,
    DigestMismatch,
    HalfBuilt,
    NoSource,
    OtherParts,
    SourceTwice,
    StoreTruncated,
)

from .disk import put, remove, roomy
from .head import BUILDING, HEAD, LISTS, MAX_SOURCES, PARTS, PURPOSE, SOURCES, Head, changing, state, turn
from .leavings import aside, set_aside, swept
from .nearest import Hits, Index, Lists, library
from .parts import CHUNK, Parts
from .retriever import Retriever
from .source import Checked, Manifest, Source, document_key, read_manifest
from .tokenizer import Tokenizer, Tokens

__all__ = (
    "BUILDING",
    "HEAD",
    "LISTS",
    "MAX_SOURCES",
    "PARTS",
    "PURPOSE",
    "SOURCES",
    "Datastore",
    "Head",
    "Neighbours",
    "add",
    "become",
    "changing",
    "drop",
    "listing",
    "manifests",
    "reclaimed",
)

RESIDENT: Final = 256 << 20
"""Bytes of files after which what was read of them no longer counts as this process's memory."""
_AROUND: Final = 1 << 17  # bytes that a system maps where a passage is read: around its tokens, and around its offsets
_TRIES: Final = 100  # a head that changes again and again while it is read
_T = TypeVar("_T")


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
            SourceTwice: there is a store already, or somebody made one meanwhile. HalfBuilt: there are sources without a
            head. DiskFull.
        """
        store, head = Path(path), Head(parts.digest, {})
        _free(store)  # a lock is made in stores alone
        with roomy():
            store.mkdir(parents=True, exist_ok=True)
            with turn(store):
                _free(store)
                for name in (SOURCES, BUILDING):
                    (store / name).mkdir(exist_ok=True)
                beside = store / BUILDING / "frozen"
                remove(beside)
                parts.save(beside)
                remove(store / PARTS)  # of a first build that did not come to its end
                beside.rename(store / PARTS)
                put(store / HEAD, head.encode())
        return cls(parts, {}, head)

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
        frozen: list[Parts] = []

        def read(head: Head) -> dict[str, Source]:
            parts = frozen[0] if frozen else Parts.load(store / PARTS)
            frozen[:] = [parts]
            if parts.digest != head.parts:
                raise OtherParts("the store's head names other frozen parts than those beside it")
            return {name: _open(store, head, name, parts) for name in head.sources}

        head, sources = _settled(store, read)
        return cls(frozen[0], sources, head)

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


def _free(store: Path) -> None:
    """Raises SourceTwice, HalfBuilt: a store cannot be made in a folder."""
    if (store / HEAD).exists():
        raise SourceTwice("there is a store in that folder already", hint="Add to it, or name another folder.")
    if (store / SOURCES).is_dir() and any((store / SOURCES).iterdir()):
        raise HalfBuilt("there are sources in that folder, and no head that names them", hint="Name another folder.")


def _settled(store: Path, read: Callable[[Head], _T]) -> tuple[Head, _T]:
    """What is read of one head. Where something is not there, and the head is another now, it is read anew.

    So it is, once, where the head is the same: what was dropped and added again meanwhile was not there for a moment.
    """
    failed: tuple[int, ...] | None = None
    for _ in range(_TRIES):
        before = state(store)
        head = Head.read(store)
        try:
            return head, read(head)
        except (OSError, NoSource, HalfBuilt, StoreTruncated, DigestMismatch):
            if before == failed and state(store) == before:  # it is damaged
                raise
            failed = before
    raise StoreTruncated("the store changes faster than it can be read")


def listing(path: Path | str) -> tuple[Head, dict[str, Manifest]]:
    """The head of a store and the sources that it names, without opening their files. Raises as :meth:`Datastore.open`."""
    store = Path(path)

    def read(head: Head) -> dict[str, Manifest]:
        found = {name: read_manifest(store / SOURCES / head.folder(name)) for name in head.sources}
        if any(manifest.digest != head.sources[name] for name, manifest in found.items()):
            raise DigestMismatch(f"a manifest is not the one that {HEAD} names")
        return found

    return _settled(store, read)


def manifests(path: Path | str) -> dict[str, Manifest]:
    """The sources of a store, as of :func:`listing`."""
    return listing(path)[1]


# --- changing -------------------------------------------------------------------------------------------------------


def add(path: Path | str, source: Checked, *, replace: bool = False, reclaim: bool = True) -> Head:
    """Put a source into a store. Takes as long for a large one as for a small one.

    Args:
        path: the store.
        source: in a folder below the store's ``building``, which is moved.
        replace: in the place of one of that name.
        reclaim: remove the files of what it takes the place of.

    Raises:
        SourceTwice, BadSourceName, OtherParts, DigestMismatch, DiskFull. NotRemoved: it is added, but files of what it
        takes the place of are left.
    """
    store, manifest = Path(path), source.manifest
    name = manifest.about.name
    with roomy(), changing(store) as head:
        if name in head.sources and not replace:
            raise SourceTwice(f"the store has a source {name} already")
        if manifest.parts != head.parts:
            raise OtherParts(f"{name} was built with another tokenizer, retriever or quantizer")
        new = Head(head.parts, {**head.sources, name: manifest.digest})
        _told_apart(new)
        if len(new.sources) > MAX_SOURCES:
            raise BadManifest(f"a store has at most {MAX_SOURCES:,} sources")
        source.unchanged()
        if new != head:
            _place(store, source, new)
            put(store / HEAD, new.encode())
        with suppress(OSError):  # reclaimed() does it again, and says so
            if new == head:
                aside(store, source.folder)
            set_aside(store, new)
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
        OtherParts, BadSourceName, DigestMismatch, NoSource: one is neither here nor among them. DiskFull, NotRemoved.
    """
    store = Path(path)
    with roomy(), changing(store) as old:
        if head.parts != old.parts:
            raise OtherParts("the other store is of other frozen parts")
        _told_apart(head)
        for source in sources:
            source.unchanged()
            if head.sources.get(source.manifest.about.name) != source.manifest.digest:
                raise DigestMismatch("a source is not the one that the other store's head names")
        brought = {source.manifest.about.name for source in sources}
        if any(name not in brought and old.sources.get(name) != digest for name, digest in head.sources.items()):
            raise NoSource("a source of the other store was not brought")
        for source in sources:
            if old.sources.get(source.manifest.about.name) == source.manifest.digest:  # somebody brought it meanwhile
                aside(store, source.folder)
            else:
                _place(store, source, head)
        put(store / HEAD, head.encode())
        with suppress(OSError):
            set_aside(store, head)
    reclaimed(store)
    return head


def _told_apart(head: Head) -> None:
    """Raises BadSourceName: documents of two sources have the same keys."""
    keys: dict[int, str] = {}
    for name in head.sources:
        if keys.setdefault(document_key(name, 0), name) != name:
            raise BadSourceName(f"{name} cannot be told from another source of the store", hint="Give it another name.")


def _place(store: Path, source: Checked, head: Head) -> None:
    target = store / SOURCES / head.folder(source.manifest.about.name)
    if target.exists():  # of a change that did not come to its end; the head does not name it
        aside(store, target)
    source.folder.rename(target)


def drop(path: Path | str, *names: str, reclaim: bool = True) -> Head:
    """Take sources out of a store in one change, and remove their files.

    Readers that have them open keep them until they close them; whoever opens the store from now on does not see them.
    Whether they are in the store or not: what a drop or a build of them that was interrupted left is removed too.

    Args:
        path: the store.
        names: of the sources.
        reclaim: remove their files too, which takes longer for large ones; else :func:`reclaimed` does later.

    Raises:
        NoSource: one of them is not there; none is dropped then. DiskFull. NotRemoved: they are dropped, but files are left.
    """
    store = Path(path)
    try:
        with roomy(), changing(store) as head:
            new = _less(head, names)
            put(store / HEAD, new.encode())
            with suppress(OSError):  # reclaimed() does it again, and says so
                set_aside(store, new)
    finally:
        if reclaim:
            reclaimed(store, names)
    return new


def _less(head: Head, names: Sequence[str]) -> Head:
    """Raises NoSource."""
    for name in names:
        if name not in head.sources:
            raise NoSource(f"the store has no source {name}" if name.isprintable() else "the store has no such source")
    return Head(head.parts, {name: digest for name, digest in head.sources.items() if name not in names})


def reclaimed(path: Path | str, names: Sequence[str] = ()) -> None:
    """Remove the files of sources that were dropped or replaced, also where that was interrupted before.

    Args:
        path: the store.
        names: of dropped sources, of which no build is to go on either.

    Raises:
        NotRemoved. And as of ``Head.read``.
    """
    swept(Path(path), names)
