"""The sources of a retrieval model: opened into memory, handed to the engine, drawn from for as long as their owners let.

A sealed source is opened as weights are: into memory files that nobody can write to, one for each file of it. Its manifest
says with which frozen parts it was built, which must be those that this installation has. What the engine's child then says
that it drew is held against what was agreed, token by token.

See ``docs/paid-sources.md`` and ``spec/drawing.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from strongroom import lm
from strongroom.asset import RangeSource, SealedReader
from strongroom.contract import Proposal
from strongroom.drawing import GRAIN, Price, Revision, lacking
from strongroom.enclave.obtain import Released
from strongroom.errors import BadManifest, BadSignature, NotFound, OtherParts
from strongroom.inference.events import SourceUsed
from strongroom.party import VerifyKey
from strongroom.programs import frames
from strongroom.programs.serve_llm import Source
from strongroom.wire import Envelope

from .answers import BrokenAnswer
from .weights import Weights

MOST: Final = GRAIN - GRAIN // 64
"""Grains that all sources together get of one token at most (``lm.influence.MOST``)."""
PARTS: Final = Path(lm.__file__).parent / "model" / "parts"
_MAX_REVISION: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Sealed:
    """A source that is to be opened.

    Attributes:
        said: what was agreed.
        source: the sealed file, untrusted, by range.
        released: the manifest and the key.
    """

    said: Source
    source: RangeSource
    released: Released


@cache
def parts_digest() -> str:
    """Of the frozen parts that are installed here."""
    from strongroom.lm import document
    from strongroom.lm.parts import FILES

    return document.digest((PARTS / FILES[0]).read_bytes())


def opened(sealed: Sealed, progress: Callable[[int], None] | None = None) -> list[Weights]:
    """Open a sealed source into memory: its files, in the order of ``lm.packed.NAMES``.

    Raises:
        AssetError: the sealed file is not what its manifest says.
        OtherParts: it was built with other frozen parts than are installed here. BadManifest: it is another source than was
            agreed. DatastoreError: what was sealed is no source.
    """
    from strongroom.lm.packed import Table

    said, released = sealed.said, sealed.released
    with SealedReader(sealed.source, released.manifest, released.key) as reader:
        table = Table.read(reader.read_at, released.manifest.plaintext_bytes)
    if table.manifest.about.name != said.name:
        raise BadManifest(f"what was sealed as {said.role!r} is not the source {said.name!r}")
    if table.manifest.parts != parts_digest():
        hint = "Its owner builds it again, with the parts that ship: see strongroom lm build --help"
        raise OtherParts(f"the source {said.name!r} was built with other frozen parts than are installed here", hint=hint)
    return Weights.parted(sealed.source, released.manifest, released.key, table.places, progress=progress)


def parts() -> list[Weights]:
    """The frozen parts that are installed here, in memory."""
    from strongroom.lm.parts import FILES

    return [Weights.of_file(PARTS / name) for name in FILES]


@dataclass
class Held:
    """What an engine's child is given beside weights, and what it may draw from now.

    Attributes:
        parts: the frozen parts.
        sources: what was agreed, by name; those that are gone are not there.
        files: of each.
        open: the names of those that are drawn from.
    """

    parts: list[Weights]
    sources: dict[str, Source]
    files: dict[str, list[Weights]]
    open: frozenset[str] = frozenset()

    @classmethod
    def of(cls, wanted: Sequence[Sealed], progress: Callable[[int], None] | None = None) -> Held:
        """Open all of them. Raises as :func:`opened`; nothing is held then."""
        found = cls(parts(), {}, {})
        try:
            for sealed in wanted:
                found.files[sealed.said.name] = opened(sealed, progress)
                found.sources[sealed.said.name] = sealed.said
        except BaseException:
            found.close()
            raise
        found.open = frozenset(found.sources)
        return found

    @property
    def _all(self) -> list[Weights]:
        return [*self.parts, *(file for files in self.files.values() for file in files)]

    @property
    def descriptors(self) -> list[int]:
        return [file.descriptor for file in self._all]

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(file.size for file in self._all)

    def told(self) -> list[dict[str, Any]]:
        """What the child is told of each source, in the order of the descriptors, and of the rows that it answers with."""
        return [{"name": s.name, "token": s.token, "total": s.total} for s in self.sources.values()]

    def turn(self, names: Collection[str], gone: Collection[str]) -> frozenset[str]:
        """Draw from these from now on. Those that are gone are let go of, and never come back; which ones that were."""
        lost = frozenset(gone) & set(self.sources)
        for name in lost:
            del self.sources[name]
            for file in self.files.pop(name):
                file.close()
        self.open = frozenset(names) & set(self.sources)
        return lost

    def frame(self, gone: Collection[str] = ()) -> bytes:
        """What tells the child."""
        return frames.frame(frames.SOURCES, json.dumps({"gone": sorted(gone), "open": sorted(self.open)}).encode())

    def close(self) -> None:
        """Let go of the memory. Can be called again."""
        for file in self._all:
            file.close()


@dataclass
class Draws:
    """What one answer drew, as the child says it: a row for each token, held against what was agreed when it was asked.

    Attributes:
        sources: in the order of the rows.
        open: names of those that it may draw from.
        rows: of each source its grains, token by token.
        tokens: how many rows there were.
    """

    sources: tuple[Source, ...]
    open: frozenset[str]
    rows: list[list[int]] = field(default_factory=list)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.rows = [[] for _ in self.sources]
        self._sums = [0] * len(self.sources)

    def add(self, row: object, most: int) -> None:
        """The next token's. Raises BrokenAnswer: no such row, or more than was agreed; or more tokens than ``most``."""
        if not isinstance(row, list) or len(row) != len(self.sources) or not all(type(grains) is int for grains in row):
            raise BrokenAnswer
        if sum(row) > MOST or self.tokens >= most:
            raise BrokenAnswer
        for source, grains, drawn in zip(self.sources, row, self._sums, strict=True):
            allowed = source.token if source.name in self.open else 0
            if not 0 <= grains <= allowed or drawn + grains > source.total:
                raise BrokenAnswer
        for place, grains in enumerate(row):  # all of it is right, or none is taken
            self._sums[place] += grains
            self.rows[place].append(grains)
        self.tokens += 1

    def require_begun(self) -> None:
        """Raises BrokenAnswer: text, and no token of which it was said what it drew."""
        if not self.tokens:
            raise BrokenAnswer

    def require_whole(self, tokens: int) -> None:
        """Raises BrokenAnswer: it was not said of each of so many tokens what it drew, or of more."""
        if self.tokens != tokens:
            raise BrokenAnswer

    def events(self, assets: Mapping[str, str]) -> list[SourceUsed]:
        """What a receipt says of it: one event for each source that was drawn from.

        Args:
            assets: digests of manifests by role.
        """
        found = []
        for source, gates in zip(self.sources, self.rows, strict=True):
            if any(gates):
                found.append(SourceUsed.of(assets[source.role], gates, Price(source.price, source.unit)))
        return found


def _verified(envelope: Envelope, keys: Mapping[str, VerifyKey]) -> tuple[Revision, str]:
    """What one of those said to be its owner signed, and which: contracts may say different ones. Raises BadSignature."""
    refused: BadSignature | None = None
    for keyid, key in keys.items():
        try:
            return Revision.verify(envelope, key), keyid
        except BadSignature as error:
            refused = error
    assert refused is not None
    raise refused


class Revisions:
    """What owners said of their sources after they had agreed: the newest of each, for as long as this process lives."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], Revision] = {}

    def take(self, data: bytes, proposals: Collection[Proposal]) -> Revision:
        """Take an owner's word.

        Args:
            data: the envelope, untrusted.
            proposals: of the contracts that are served.

        Raises:
            WireError, BadDrawing, BadSignature: it is none of that owner's. NotFound: no contract here has the source.
            StaleRevision: there is a newer one.
        """
        envelope = Envelope.parse(data, max_bytes=_MAX_REVISION)
        said = Revision.peek(envelope)
        keys = {}
        for proposal in proposals:
            ref = proposal.asset(said.asset)
            if ref is not None:
                keys[proposal.party(ref.owner).signing_key.keyid] = proposal.party(ref.owner).signing_key
        if not keys:
            raise NotFound("no contract that is served here has this source")
        found, keyid = _verified(envelope, keys)
        place = found.asset, keyid
        found.follows(self._newest.get(place))
        self._newest[place] = found
        return found

    def permits(self, proposal: Proposal, role: str) -> bool:
        """Whether the newest word of its owner lets a source be drawn from as was agreed."""
        ref = next(ref for ref in proposal.assets if ref.role == role)
        newest = self._newest.get((ref.manifest, proposal.party(ref.owner).signing_key.keyid))
        if newest is None:
            return True
        return newest.terms is not None and not lacking(newest.terms, role, proposal.program.parameters)
