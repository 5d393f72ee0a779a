"""What there is to carry to a site: what its parties are party to, as this site's exchange shows it.

An item is listed by its digest and fetched when it is written, so that memory holds no output and no receipt for longer than
it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from strongroom import wire
from strongroom.airlock import Box
from strongroom.app.client.home import loads, read, reading
from strongroom.app.client.room import Room
from strongroom.app.exchange.client import RemoteSource, Seen
from strongroom.carry import Heads, Item, Kind, Peer
from strongroom.carry.item import Offered, reference_of
from strongroom.contract import PROPOSAL_TYPE, Proposal
from strongroom.delivery import Delivery
from strongroom.errors import NotFound, StrongroomError
from strongroom.party import Party
from strongroom.review import bundle_of
from strongroom.trust import Trust
from strongroom.wire import Envelope

PIECE = 1 << 20

Pieces = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Thing:
    """An item to carry: what it is the same by, and how its bytes are had."""

    item: Item
    mark: str
    pieces: Pieces


@dataclass
class Gathered:
    """What was found.

    Attributes:
        kinds: that may cross.
        carried: kind and mark of what the other site has.
        things: to carry.
        kept_back: kinds of which there was something, and which the policy keeps here.
        heads: origin and size of the log heads among the things.
    """

    kinds: frozenset[Kind]
    carried: frozenset[tuple[str, str]]
    things: list[Thing] = field(default_factory=list)
    kept_back: set[Kind] = field(default_factory=set)
    heads: dict[str, int] = field(default_factory=dict)
    _listed: set[tuple[str, str]] = field(default_factory=set)

    def wants(self, kind: Kind, mark: str) -> bool:
        """Whether it is to be carried: the policy lets it, and it is not there nor listed yet."""
        if kind not in self.kinds:
            self.kept_back.add(kind)
            return False
        return (kind, mark) not in self.carried and (kind, mark) not in self._listed

    def _list(self, thing: Thing) -> None:
        self.things.append(thing)
        self._listed.add((thing.item.kind, thing.mark))

    def small(self, kind: Kind, data: bytes, mark: str | None = None, again: Callable[[], bytes] | None = None) -> None:
        """List a document. ``again``: where it is had once more, so that it need not be kept."""
        digest = wire.digest(data)
        if not self.wants(kind, mark or digest):
            return
        had = again or (lambda: data)

        def pieces() -> Iterator[bytes]:
            yield had()

        self._list(Thing(Item(kind, len(data), digest), mark or digest, pieces))

    def stream(self, kind: Kind, digest: str, source: Callable[[], RemoteSource]) -> None:
        """List a file at the exchange, whose address is its digest."""
        if not self.wants(kind, digest):
            return
        found = source()

        def pieces() -> Iterator[bytes]:
            for at in range(0, found.size, PIECE):
                yield found.read_at(at, PIECE)

        self._list(Thing(Item(kind, found.size, digest), digest, pieces))


class Gathering:
    """Looks for what is to be carried.

    Args:
        room: the party that carries.
        peer: the other site.
        into: what was found so far.
    """

    def __init__(self, room: Room, peer: Peer, into: Gathered) -> None:
        self._room, self._exchange, self._there, self.found = room, room.exchange, set(peer.parties), into

    # --- what is said by name ---

    def card(self, path: Path) -> None:
        """A party's card. Raises NotFound, WireError leaves."""
        with reading(path):
            self.found.small(Kind.CARD, Party.parse(read(path)).encode())

    def reference(self, path: Path) -> None:
        """An enclave's reference values and a log's key. Raises NotFound; BadField: it pins a party."""
        with reading(path):
            data = wire.encode(Trust.from_json(loads(path)).to_json())
            reference_of(data)
            self.found.small(Kind.REFERENCE, data)

    def offer(self, reference: str) -> None:
        """An asset's manifest, as its owner signed it, and its mock. Raises NotFound, OlderOffer, ManifestMismatch."""
        asset = self._room.assets[reference]
        self._manifest(asset.manifest.digest, self._room.trust.party(asset.manifest.owner))
        if asset.manifest.mock is not None:
            path = asset.mock_path  # checked against the manifest
            self.found.small(Kind.MOCK, read(path, max_bytes=None), again=lambda: read(path, max_bytes=None))

    def _manifest(self, digest: str, owner: Party) -> None:
        envelope = self._exchange.manifest(digest, owner.signing_key.keyid)
        offered = Offered(envelope, owner.signing_key)
        offered.signed()
        self.found.small(Kind.MANIFEST, offered.encode())

    # --- proposals, and all that follows from them ---

    def proposals(self, only: Iterable[str] = ()) -> None:
        """Proposals that name a party of the other site, and nobody but pinned parties; with all that belongs to them.

        Args:
            only: digests of those to look at; none: all.

        Raises:
            NotFound: one of ``only`` is no such proposal.
        """
        trust, wanted = self._room.trust, set(only)
        keyids = {party.signing_key.keyid for party in (*trust.parties, self._room.home.card)}
        for seen in self._exchange.proposals(keyids):
            if only and seen.envelope.digest not in wanted:
                continue
            try:
                proposal, _ = Proposal.open(seen.envelope)
                trust.check(proposal.parties)
            except StrongroomError:
                continue  # what this party could not rely on it does not carry
            if self._there.isdisjoint(party.name for party in proposal.parties):
                continue
            wanted.discard(proposal.digest)
            self._proposal(proposal, seen)
        if wanted:
            raise NotFound(f"no proposal {min(wanted)} here names a party of that site")

    def _proposal(self, proposal: Proposal, seen: Seen) -> None:
        for ref in proposal.assets:
            with suppress(NotFound):  # an exchange need not show it
                self._manifest(ref.manifest, proposal.party(ref.owner))
        code = bundle_of(proposal)
        if code is not None and self.found.wants(Kind.CODE, code):
            self.found.small(Kind.CODE, self._exchange.code(code), again=lambda: self._exchange.code(code))
        trial = proposal.trial
        if trial is not None and self.found.wants(Kind.TRIAL, trial):
            with suppress(NotFound):  # who reads a claim that cannot be had is told so
                self.found.small(Kind.TRIAL, self._exchange.trial(trial).encode(), again=self._trial(trial))
        for signature in seen.envelope.signatures:
            first = proposal.signer(signature, seen.envelope.payload) == proposal.proposer
            envelope = Envelope(PROPOSAL_TYPE, seen.envelope.payload, (signature,))
            self.found.small(Kind.PROPOSAL if first else Kind.APPROVAL, envelope.encode())
        for envelope in seen.withdrawals:
            self.found.small(Kind.WITHDRAWAL, envelope.encode())
        for envelope in self._exchange.notes(proposal.digest):
            self.found.small(Kind.NOTE, envelope.encode())
        for digest, _ in seen.receipts:
            if self.found.wants(Kind.RECEIPT, digest):
                had = self._receipt(digest)
                self.found.small(Kind.RECEIPT, had(), mark=digest, again=had)
        self._outputs(proposal)

    def _trial(self, digest: str) -> Callable[[], bytes]:
        return lambda: self._exchange.trial(digest).encode()

    def _receipt(self, digest: str) -> Callable[[], bytes]:
        return lambda: self._exchange.receipt(digest).encode()

    def _outputs(self, proposal: Proposal) -> None:
        """Sealed outputs that somebody of the other site can open, or has to review."""
        for delivery in self._exchange.deliveries(proposal.digest):
            if not self._there.isdisjoint(delivery.keys):
                self._output(delivery)
                self.found.small(Kind.DELIVERY, delivery.encode())
        recipients = {output.name: output.recipients for output in proposal.outputs}
        for box, verdicts in self._exchange.boxes(proposal.digest):
            if not self._there.isdisjoint((*box.copies, *recipients.get(box.output, ()))):
                self._output(box)
                self.found.small(Kind.BOX, box.encode())
                for verdict in verdicts:
                    self.found.small(Kind.VERDICT, verdict.encode())

    def _output(self, named: Delivery | Box) -> None:
        self.found.stream(Kind.OUTPUT, named.sealed, lambda: self._exchange.output(named.sealed))

    # --- the log ---

    def ledger(self, sizes: Callable[[str], tuple[int, ...]]) -> None:
        """The head of this site's log, and proofs that it only grew since those that were carried before.

        Args:
            sizes: of the heads that were carried before, of a log by its name.
        """
        checkpoint = self._exchange.checkpoint()
        log = next((v for v in self._room.trust.log_verifiers() if v.signatures_of(checkpoint)), None)
        if log is None or not checkpoint.size:
            return  # a log that this party does not trust is nothing to vouch for
        log.verify(checkpoint)
        before = [size for size in sizes(checkpoint.origin) if 0 < size <= checkpoint.size]
        if checkpoint.size in before:
            return
        proofs = tuple(self._exchange.consistency(size, checkpoint.size) for size in before)
        self.found.small(Kind.LEDGER, Heads(checkpoint, proofs).encode())
        if any(thing.item.kind is Kind.LEDGER for thing in self.found.things):
            self.found.heads[checkpoint.origin] = checkpoint.size
