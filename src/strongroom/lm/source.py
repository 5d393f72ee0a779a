"""A source: one owner's text in one folder, with all that was made of it. Adding or dropping it touches nothing else.

    manifest.json     who owns it, under which licence, at what price; how much it is; digests of the rest
    tokens.u16        every document's tokens, one document after the other
    documents.u64     where each document begins in it, and where the last ends
    passages.u64      which chunk each document begins with, and how many there are
    ids.utf8          the documents' ids, one after the other
    ids.u64           where each id begins, and where the last ends
    index.faiss       lm.nearest

All numbers are little-endian. See ``spec/datastore.md``.
"""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadManifest, DigestMismatch, HalfBuilt, NoSource, OtherParts, StoreTruncated

from . import document
from .disk import small
from .document import Members
from .nearest import Index
from .parts import CHUNK, NEIGHBOUR, Parts
from .tokenizer import END, PAD, Tokens

PURPOSE: Final = "strongroom.source.v1"
FILES: Final = ("documents.u64", "ids.u64", "ids.utf8", "index.faiss", "passages.u64", "tokens.u16")
MAX_DOCUMENTS: Final = 1 << 40
MAX_ID: Final = 1024
"""Characters of a document's id."""
_PIECE: Final = 1 << 20
_VECTORS: Final = 1 << 14  # looked at at once

Said = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Price:
    """What an owner asks.

    Attributes:
        amount: units for a thousand tokens drawn, an integer.
        unit: its name, such as ``EUR-micro`` (millionths of a euro).
    """

    amount: int = 0
    unit: str = "credit"

    def to_json(self) -> dict[str, Any]:
        return {"amount": self.amount, "per_tokens": 1000, "unit": self.unit}


@dataclass(frozen=True, slots=True)
class About:
    """What an owner says of a source.

    Attributes:
        name: in the store, and of its folder.
        owner: whose it is.
        licence: under which it may be used.
        price: as above.
        version: the owner's own count, from 1.
    """

    name: str
    owner: str
    licence: str
    price: Price = field(default_factory=Price)
    version: int = 1

    def __post_init__(self) -> None:
        """Raises BadSourceName, BadManifest."""
        document.named(self.name)
        if not all(map(document.text, (self.owner, self.licence, self.price.unit))):
            raise BadManifest("an owner, a licence or a unit is no line of text")
        if not 0 <= self.price.amount < 2**53 or not 1 <= self.version < 2**53:
            raise BadManifest("a price or a version is out of its range")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source: its bytes and their digest."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a source is. **Untrusted** until :func:`check` has compared it with its files.

    Attributes:
        about: what its owner says.
        parts: digest of the frozen parts that it was built with.
        documents, tokens, chunks: how many.
        characters: bytes of its text in UTF-8.
        passed_over: documents that were left out as empty, too long or damaged.
        files: of ``FILES``.
    """

    about: About
    parts: str
    documents: int
    tokens: int
    chunks: int
    characters: int
    passed_over: int
    files: Mapping[str, File]

    def encode(self) -> bytes:
        about = self.about
        return document.encode(
            {
                "characters": self.characters,
                "chunks": self.chunks,
                "documents": self.documents,
                "files": {name: {"bytes": file.size, "digest": file.digest} for name, file in self.files.items()},
                "licence": about.licence,
                "name": about.name,
                "owner": about.owner,
                "parts": self.parts,
                "passed_over": self.passed_over,
                "price": about.price.to_json(),
                "purpose": PURPOSE,
                "tokens": self.tokens,
                "version": about.version,
            }
        )

    @property
    def digest(self) -> str:
        return document.digest(self.encode())

    @property
    def folder(self) -> str:
        """The name of its folder in a store."""
        return f"{self.about.name}-{self.digest[7:39]}"

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files.values())

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Raises BadManifest, StoreVersion, BadSourceName, StoreTruncated."""
        said = Members.parse(data, "the manifest", PURPOSE)
        price = said.object("price")
        if price.integer("per_tokens") != 1000:
            raise BadManifest("the manifest: a price is for a thousand tokens")
        about = About(
            said.take("name", str),
            said.line("owner"),
            said.line("licence"),
            Price(price.integer("amount"), price.line("unit")),
            said.integer("version", 1),
        )
        price.end()
        files = said.object("files")
        found = {}
        for name in FILES:
            one = files.object(name)
            found[name] = File(one.integer("bytes"), one.digest("digest"))
            one.end()
        files.end()
        manifest = cls(
            about,
            said.digest("parts"),
            said.integer("documents", 1, MAX_DOCUMENTS - 1),
            said.integer("tokens", 1),
            said.integer("chunks", 1),
            said.integer("characters", 1),
            said.integer("passed_over"),
            found,
        )
        said.end()
        manifest._fits()
        return manifest

    def _fits(self) -> None:
        """Raises StoreTruncated: the lengths of its files are not those of so many documents, tokens and chunks."""
        expected = {
            "tokens.u16": 2 * self.tokens,
            "documents.u64": 8 * (self.documents + 1),
            "passages.u64": 8 * (self.documents + 1),
            "ids.u64": 8 * (self.documents + 1),
        }
        if any(self.files[name].size != size for name, size in expected.items()):
            raise StoreTruncated("the manifest's files are longer or shorter than what it says is in them")


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a source's folder.

    Raises:
        NoSource: there is no such folder. HalfBuilt: it has no manifest, which is written last. And as of
            ``Manifest.parse``.
    """
    try:
        data = small(folder / "manifest.json", document.MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir():
            raise HalfBuilt(f"{folder.name} has no manifest: its building did not come to an end") from None
        raise NoSource(f"there is no source in {folder.name}") from None
    return Manifest.parse(data)


class Source:
    """A source that is read. What it holds open stays readable, even when the source is dropped meanwhile.

    Args:
        folder: its folder.
        manifest: of that folder, compared with the store's head; its files' lengths are looked at here, their digests by
            :func:`check`.
        parts: the store's.

    Raises:
        OtherParts, StoreTruncated, MissingExtra.
    """

    def __init__(self, folder: Path, manifest: Manifest, parts: Parts) -> None:
        if manifest.parts != parts.digest:
            raise OtherParts(f"{manifest.about.name} was built with another tokenizer, retriever or quantizer")
        lengths(folder, manifest)
        self.folder, self.manifest, self.parts = folder, manifest, parts
        self.name = manifest.about.name
        self._maps: list[mmap.mmap] = []
        self.tokens: NDArray[np.uint16] = _mapped(folder / "tokens.u16", "<u2", self._maps)
        self.documents: NDArray[np.uint64] = _mapped(folder / "documents.u64", "<u8", self._maps)
        self.passages: NDArray[np.uint64] = _mapped(folder / "passages.u64", "<u8", self._maps)
        self._ids: NDArray[np.uint64] = _mapped(folder / "ids.u64", "<u8", self._maps)
        self._id_bytes: NDArray[np.uint8] = _mapped(folder / "ids.utf8", "u1", self._maps)
        self.index = Index(folder / "index.faiss", parts.quantizer, manifest.chunks)

    @cached_property
    def key(self) -> int:
        """What tells its documents from those of other sources; depends on its name alone."""
        return document_key(self.name, 0)

    def release(self) -> None:
        """Have what was read of its files count no more as this process's memory; all of it can still be read."""
        self.index.release()
        for memory in self._maps:
            if hasattr(memory, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
                memory.madvise(mmap.MADV_DONTNEED)

    def document_of(self, passages: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each passage's document; of -1 something."""
        found = np.searchsorted(self.passages, np.maximum(passages, 0).astype(np.uint64), side="right") - 1
        return np.minimum(found, self.manifest.documents - 1).astype(np.int64)

    def neighbours(self, passages: NDArray[np.int64]) -> tuple[Tokens, NDArray[np.int16]]:
        """The tokens of passages, and of what follows each in its document.

        Args:
            passages: ``int64[...]``, -1 where there is none.

        Returns:
            ``uint16[..., 128]``, filled up with ``PAD``, and how many there are of each.
        """
        flat = passages.reshape(-1)
        of = self.document_of(flat)
        starts = self.documents[of].astype(np.int64) + (flat - self.passages[of].astype(np.int64)) * CHUNK
        lengths = np.minimum(NEIGHBOUR, self.documents[of + 1].astype(np.int64) - starts)
        lengths = np.where(flat < 0, 0, np.maximum(lengths, 0))
        at = np.where(lengths > 0, starts, 0)[:, None] + np.arange(NEIGHBOUR)
        tokens = self.tokens[np.minimum(at, len(self.tokens) - 1)]
        tokens[np.arange(NEIGHBOUR) >= lengths[:, None]] = PAD
        return tokens.reshape(*passages.shape, NEIGHBOUR), lengths.reshape(passages.shape).astype(np.int16)

    def passage(self, number: int) -> tuple[Tokens, str]:
        """A chunk's tokens, and its document's id. Raises NoSource: there is no such chunk."""
        if not 0 <= number < self.manifest.chunks:
            raise NoSource(f"{self.name} has no passage of that number")
        of = int(self.document_of(np.asarray([number]))[0])
        start = int(self.documents[of]) + (number - int(self.passages[of])) * CHUNK
        return np.array(self.tokens[start : min(start + CHUNK, int(self.documents[of + 1]))]), self.document_id(of)

    def document_id(self, number: int) -> str:
        return bytes(self._id_bytes[int(self._ids[number]) : int(self._ids[number + 1])]).decode("utf-8", "replace")

    def document(self, number: int) -> Tokens:
        """A document's tokens, where they lie."""
        if not 0 <= number < self.manifest.documents:
            raise NoSource(f"{self.name} has no document of that number")
        return self.tokens[int(self.documents[number]) : int(self.documents[number + 1])]


def document_key(name: str, number: int) -> int:
    """A document's key among those of all sources: 23 bits of its source's name, and its number."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "big") >> 1 << 40 | number


def _mapped(path: Path, kind: str, maps: list[mmap.mmap] | None = None) -> NDArray[Any]:
    if path.stat().st_size == 0:
        return np.empty(0, kind)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if maps is not None:
        maps.append(memory)
    return np.frombuffer(memory, kind)


def lengths(folder: Path, manifest: Manifest) -> None:
    """Raises StoreTruncated: a file is not there, or not as long as the manifest says, or not a plain file."""
    for name, file in manifest.files.items():
        try:
            found = (folder / name).lstat()
        except FileNotFoundError:
            raise StoreTruncated(f"{manifest.about.name}: {name} is not there") from None
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
            raise StoreTruncated(f"{manifest.about.name}: {name} is not as long as its manifest says")


# --- looking at all of it -------------------------------------------------------------------------------------------

_CHECKED: Final = object()


@dataclass(frozen=True)
class Checked:
    """A source whose files are what its manifest says, and in the order that they must have. Only :func:`check` makes one.

    Attributes:
        folder: its folder.
        manifest: the manifest.
        seen: of each file what the system tells of it, so that a later change is noticed.
    """

    folder: Path
    manifest: Manifest
    seen: Mapping[str, tuple[int, ...]]
    _by: object = field(repr=False)

    def __post_init__(self) -> None:
        if self._by is not _CHECKED:
            raise TypeError("only lm.source.check() makes a Checked")

    def unchanged(self) -> None:
        """Raises DigestMismatch: a file was changed since."""
        if seen(self.folder, self.manifest) != self.seen:
            raise DigestMismatch(f"{self.manifest.about.name}: a file was changed since it was looked at")


def seen(folder: Path, manifest: Manifest) -> dict[str, tuple[int, ...]]:
    found = {name: (folder / name).lstat() for name in manifest.files}
    return {name: (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in found.items()}


def check(folder: Path, parts: Parts, said: Said = lambda _done: None) -> Checked:
    """Read all of a source, which may come from anybody, before anything uses it.

    Args:
        folder: its folder.
        parts: those of the store that it is to be in.
        said: told how many bytes were read so far.

    Raises:
        NoSource, HalfBuilt, BadManifest, StoreVersion, StoreTruncated. OtherParts: built for another store.
        DigestMismatch: a file is not what the manifest promises.
    """
    manifest = read_manifest(folder)
    lengths(folder, manifest)
    before = seen(folder, manifest)
    done = 0
    for name, file in sorted(manifest.files.items()):
        sha = hashlib.sha256()
        with (folder / name).open("rb") as stream:
            while piece := stream.read(_PIECE):
                sha.update(piece)
                done += len(piece)
                said(done)
        if f"sha256:{sha.hexdigest()}" != file.digest:
            raise DigestMismatch(f"{manifest.about.name}: {name} is not what the manifest promises")
    source = Source(folder, manifest, parts)
    _ascends(source.documents, manifest.tokens, "documents.u64")
    _ascends(source._ids, manifest.files["ids.utf8"].size, "ids.u64")  # noqa: SLF001 - this module's own
    _texts(source)
    _chunks(source)
    _tokens(source)
    _numbers(source)
    found = Checked(folder, manifest, before, _CHECKED)
    found.unchanged()
    return found


def _blocks(count: int, size: int = _PIECE) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def _ascends(offsets: NDArray[np.uint64], end: int, name: str) -> None:
    wrong = int(offsets[0]) != 0 or int(offsets[-1]) != end
    for block in _blocks(len(offsets) - 1):
        wrong = wrong or bool((offsets[block.start + 1 : block.stop + 1] < offsets[block]).any())
    if wrong:
        raise BadManifest(f"{name}: offsets do not ascend from nothing to the end")


def _texts(source: Source) -> None:
    """Every id is a line of text by itself. Raises BadManifest."""
    ids, offsets = source._id_bytes, source._ids  # noqa: SLF001 - this module's own
    for block in _blocks(source.manifest.documents, _VECTORS):
        bounds = offsets[block.start : block.stop + 1].astype(np.int64)
        wrong = bool((np.diff(bounds) < 1).any()) or bool((np.diff(bounds) > 4 * MAX_ID).any())
        wrong = wrong or bool((ids[bounds[:-1]] & 0xC0 == 0x80).any())  # it begins within a letter
        try:
            wrong = wrong or not bytes(ids[bounds[0] : bounds[-1]]).decode().isprintable()
        except UnicodeDecodeError:
            wrong = True
        if wrong:
            raise BadManifest("ids.utf8: an id is no line of text")


def _chunks(source: Source) -> None:
    documents, passages = source.documents, source.passages
    wrong = int(passages[0]) != 0 or int(passages[-1]) != source.manifest.chunks
    for block in _blocks(len(documents) - 1):
        after = slice(block.start + 1, block.stop + 1)
        held = (documents[after] - documents[block] + np.uint64(CHUNK - 1)) // np.uint64(CHUNK)
        wrong = wrong or bool((held == 0).any()) or bool((passages[after] - passages[block] != held).any())
    if wrong:
        raise BadManifest("passages.u64: the chunks of a document are not as many as its tokens need")


def _tokens(source: Source) -> None:
    for block in _blocks(len(source.tokens)):
        found = source.tokens[block]
        if int(found.max()) >= source.parts.tokenizer.size or int(found.min()) <= END:
            raise OtherParts("tokens.u16: a token is none that a text has")


def _numbers(source: Source) -> None:
    """Every chunk is in the index once. Raises BadManifest."""
    there = np.zeros(source.manifest.chunks, bool)
    memory = _mapped(source.folder / "index.faiss", "u1")
    width = 4 * source.parts.quantizer.dimensions
    at = len(source.parts.quantizer.head(source.index.sizes))
    for size in map(int, source.index.sizes):
        if not size:
            continue
        vectors = memory[at : at + size * width].view("<f4").reshape(size, -1)
        numbers = np.frombuffer(memory[at + size * width : at + size * (width + 8)].tobytes(), "<i8")
        at += size * (width + 8)
        if int(numbers.min()) < 0 or int(numbers.max()) >= len(there) or not (np.diff(numbers) > 0).all():
            raise BadManifest("index.faiss: numbers of chunks are not in their order")
        for block in _blocks(size, _VECTORS):
            squares = np.square(vectors[block]).sum(axis=1)
            if not bool(((squares < 1e-6) | (np.abs(squares - 1) < 1e-3)).all()):
                raise BadManifest("index.faiss: a vector is not of length 1")
        there[numbers] = True
    if not there.all():
        raise BadManifest("index.faiss: a chunk is not in it")
