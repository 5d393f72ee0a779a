"""The way to an exchange: what parties and enclaves ask of it. What comes back is untrusted, and typed so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, TypeVar, cast

from strongroom import wire
from strongroom.airlock import Box
from strongroom.app.http import Client
from strongroom.batch import MAX_RECEIPTS, Submission
from strongroom.checkpoint import Checkpoint
from strongroom.code import MAX_BUNDLE_BYTES as MAX_BUNDLE
from strongroom.code import CodeBundle
from strongroom.contract import PROPOSAL_TYPE, Proposal
from strongroom.delivery import Delivery
from strongroom.errors import BadField, BadReceipt, CodeMismatch, Conflict, ManifestMismatch, NotFound, TooLarge
from strongroom.ledger import ConsistencyProof, Entry, LoggedProof
from strongroom.mark import Mark
from strongroom.party import SigningKey, VerifyKey
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle
from strongroom.review import MAX_NOTES
from strongroom.trial import MAX_TRIAL_BYTES, Trial
from strongroom.wire import Envelope, Fields

from .entry import KEY_HEADER, PAGE_ITEMS

PIECE = 1 << 20
PATIENCE = 30.0  # seconds
MARK_SECONDS = 5.0
MAX_PAGE_BYTES = 16 << 20
MAX_PAGES = 1000  # of one list
SLOWEST = 50e6  # bytes a second at which an exchange checks what it was sent, at the least

_T = TypeVar("_T")


class RemoteSource:
    """A sealed file on an exchange, by range (RFC 9110 section 14).

    Args:
        client: the way there.
        path: the file's address.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client, self._path = client, path
        with client.stream("HEAD", path) as answer:
            length = answer.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            raise BadField("the exchange does not say how long the file is")
        self._size = int(length)

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; fewer at the end of the file."""
        if length <= 0 or offset >= self._size:
            return b""
        last = min(offset + length, self._size) - 1
        headers = {"range": f"bytes={offset}-{last}", "accept-encoding": "identity"}
        return self._client.call("GET", self._path, headers=headers, max_bytes=last - offset + 1)


@dataclass(frozen=True, slots=True)
class Seen:
    """What an exchange says of a proposal. **Untrusted**, except that the proposal parses.

    Attributes:
        envelope: the proposal with the signatures so far.
        countered_by: digests of proposals that supersede it.
        withdrawals: envelopes of withdrawals.
        receipts: (receipt digest, run id) of its runs.
    """

    envelope: Envelope
    countered_by: tuple[str, ...]
    withdrawals: tuple[Envelope, ...]
    receipts: tuple[tuple[str, str], ...]

    @classmethod
    def from_json(cls, value: object) -> Seen:
        f = Fields(value, "seen")

        def digest(item: Any) -> str:
            return Fields({"item": item}, "seen").digest("item")

        def pair(item: Any) -> tuple[str, str]:
            g = Fields(item, "receipt")
            return g.digest("receipt"), g.hex("run_id", size=16).hex()

        found = cls(
            envelope=Envelope.from_json(f.any("envelope")),
            countered_by=f.items("countered_by", digest, high=100),
            withdrawals=f.items("withdrawals", Envelope.from_json, high=64),
            receipts=f.items("receipts", pair, high=10_000),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """That there is something new to say of a proposal. **Untrusted**, as :class:`Seen`.

    Attributes:
        place: of the change among all; the next question begins after it.
        notes: how many notes there are about it.
        seen: what there is to say.
    """

    place: int
    notes: int
    seen: Seen

    @classmethod
    def from_json(cls, value: object) -> Change:
        f = Fields(value, "change")
        found = cls(f.integer("place"), f.integer("notes", high=64 * MAX_NOTES), Seen.from_json(f.any("seen")))
        f.end()
        return found


class ExchangeClient:
    """Everything that parties and enclaves ask of an exchange.

    Args:
        client: the way there.

    Raises:
        Unreachable, NotFound, WireError and its leaves: from every method.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def close(self) -> None:
        self.client.close()

    # --- assets ---

    def put_manifest(self, envelope: Envelope, key: VerifyKey) -> None:
        """Publish a manifest that ``key`` signed."""
        headers = {KEY_HEADER: wire.b64(key.raw)}
        self.client.call("PUT", f"/v1/manifests/{envelope.digest}", content=envelope.encode(), headers=headers)

    def manifest(self, digest: str, by: str) -> Envelope:
        """The manifest as the key with the id ``by`` signed it; whoever asked verifies that."""
        found = Envelope.parse(self.client.get(f"/v1/manifests/{digest}", params={"by": by}))
        if found.digest != digest:
            raise ManifestMismatch("the exchange answered with another manifest")
        return found

    def enrolment(self, manifest: str, by: str) -> Envelope | None:
        """Who holds an asset's shares, as the key with the id ``by`` signed it last; ``None`` where its key is whole."""
        try:
            return Envelope.parse(self.client.get(f"/v1/enrolments/{manifest}", params={"by": by}))
        except NotFound:
            return None

    def put_enrolment(self, manifest: str, envelope: Envelope, key: VerifyKey) -> None:
        """Publish who holds an asset's shares. ``key``: the owner's signing key."""
        headers = {KEY_HEADER: wire.b64(key.raw)}
        self.client.call("PUT", f"/v1/enrolments/{manifest}", content=envelope.encode(), headers=headers)

    def mark(self, broker: VerifyKey) -> Mark | None:
        """How far a broker's book had come when it said so last. Raises BadSignature, WireError: it is not that broker's."""
        f = Fields(wire.decode(self.client.get(f"/v1/marks/{broker.keyid}", max_bytes=8192, seconds=MARK_SECONDS)), "answer")
        found = f.optional("mark", lambda value: Mark.verify(Envelope.from_json(value), broker))
        f.end()
        return cast("Mark | None", found)

    def put_mark(self, mark: Mark, key: SigningKey) -> None:
        """Leave it here. Raises Conflict: it does not follow the one that is here."""
        self.client.call("PUT", f"/v1/marks/{mark.broker.keyid}", content=mark.sign(key).encode(), seconds=MARK_SECONDS)

    def manifests(self, keyids: Iterable[str]) -> list[Envelope]:
        """The manifests that these keys signed, oldest first."""
        return self._list("manifests", "by", keyids, Envelope.from_json)

    def _list(self, name: str, query: str, keyids: Iterable[str], parse: Callable[[Any], _T], after: int = 0) -> list[_T]:
        """Every page of a list. Raises TooLarge where it does not end."""
        return self._pages(f"/v1/{name}", name, {query: ",".join(sorted(set(keyids)))}, parse, after)

    def _pages(self, path: str, name: str, query: dict[str, str], parse: Callable[[Any], _T], after: int = 0) -> list[_T]:
        found: list[_T] = []
        for _ in range(MAX_PAGES):
            params: dict[str, str | int] = {**query, "after": after, "limit": PAGE_ITEMS}
            answer = wire.decode(self.client.get(path, params=params, max_bytes=MAX_PAGE_BYTES), max_bytes=MAX_PAGE_BYTES)
            f = Fields(answer, "page")
            found += f.items(name, parse, high=PAGE_ITEMS)
            if f.optional("next", lambda place: place) is None:
                return found
            after = Fields(answer, "page").integer("next", low=after + 1)  # else an exchange could send us in a circle
        raise TooLarge(f"{self.client.url} shows more than {MAX_PAGES} pages of {name}")

    def put_sealed(self, digest: str, source: IO[bytes], progress: Callable[[int], None] | None = None) -> None:
        self._put(f"/v1/sealed/{digest}", source, progress)

    def put_mock(self, digest: str, source: IO[bytes]) -> None:
        self._put(f"/v1/mocks/{digest}", source, None)

    def _put(self, path: str, source: IO[bytes], progress: Callable[[int], None] | None) -> None:
        def pieces() -> Iterator[bytes]:
            done = 0
            while piece := source.read(PIECE):
                yield piece
                done += len(piece)
                if progress:
                    progress(done)

        size = os.fstat(source.fileno()).st_size
        self.client.call("PUT", path, content=pieces(), timeout=PATIENCE + size / SLOWEST)

    def sealed(self, digest: str) -> RemoteSource:
        return RemoteSource(self.client, f"/v1/sealed/{digest}")

    def mock(self, digest: str) -> RemoteSource:
        return RemoteSource(self.client, f"/v1/mocks/{digest}")

    def output(self, digest: str) -> RemoteSource:
        return RemoteSource(self.client, f"/v1/outputs/{digest}")

    def put_code(self, bundle: CodeBundle) -> None:
        """Publish a bundle, to whoever knows its digest: the parties of proposals that name it, and the exchange."""
        data = bundle.encode()
        self.client.call("PUT", f"/v1/code/{wire.digest(data)}", content=data)

    def code(self, digest: str) -> bytes:
        """The bytes of a bundle; they are those of the digest. Raises CodeMismatch."""
        found = self.client.get(f"/v1/code/{digest}", max_bytes=MAX_BUNDLE)
        if wire.digest(found) != digest:
            raise CodeMismatch("the exchange answered with another bundle")
        return found

    def put_trial(self, trial: Trial) -> None:
        """Publish what code did on mocks, to whoever knows its digest, as code is published."""
        data = trial.encode()
        self.client.call("PUT", f"/v1/trials/{wire.digest(data)}", content=data)

    def trial(self, digest: str) -> Trial:
        """What the proposer says that their code did on mocks. Raises CodeMismatch; WireError leaves."""
        found = self.client.get(f"/v1/trials/{digest}", max_bytes=MAX_TRIAL_BYTES)
        if wire.digest(found) != digest:
            raise CodeMismatch("the exchange answered with another trial")
        return Trial.parse(found)

    # --- contracts ---

    def propose(self, envelope: Envelope) -> None:
        self.client.post("/v1/proposals", envelope.encode())

    def proposal(self, digest: str) -> Seen:
        """What is known of a proposal; its bytes are those of the digest."""
        found = Seen.from_json(wire.decode(self.client.get(f"/v1/proposals/{digest}"), max_bytes=64 << 20))
        if found.envelope.digest != digest:
            raise BadField("the exchange answered with another proposal")
        return found

    def proposals(self, keyids: Iterable[str]) -> list[Seen]:
        """The proposals among the holders of these keys and nobody else, oldest first."""
        return self._list("proposals", "among", keyids, Seen.from_json)

    def changes(self, keyids: Iterable[str], after: int) -> list[Change]:
        """What is new among the holders of these keys and nobody else, in the order of its last change.

        Args:
            keyids: as in :meth:`proposals`.
            after: the place of the last change that is known; 0 for all.
        """
        return self._list("changes", "among", keyids, Change.from_json, after)

    def note(self, envelope: Envelope, proposal: str) -> None:
        """Post a note about a proposal."""
        self.client.post(f"/v1/proposals/{proposal}/notes", envelope.encode())

    def notes(self, proposal: str) -> list[Envelope]:
        """The notes about a proposal, oldest first; whoever asked verifies them."""
        return self._pages(f"/v1/proposals/{proposal}/notes", "notes", {}, Envelope.from_json)

    def approve(self, proposal: Proposal, signatures: tuple[wire.Signature, ...]) -> None:
        envelope = Envelope(PROPOSAL_TYPE, proposal.encode(), signatures)
        self.client.post(f"/v1/proposals/{proposal.digest}/approvals", envelope.encode())

    def withdraw(self, digest: str, envelope: Envelope) -> None:
        self.client.post(f"/v1/proposals/{digest}/withdrawals", envelope.encode())

    # --- outputs, receipts, the log ---

    def put_output(self, sealed: bytes) -> None:
        """Store a sealed output: ciphertext that nobody has a key of yet."""
        with suppress(Conflict):  # it is there already: the address is the digest of its bytes
            self.client.call("PUT", f"/v1/outputs/{wire.digest(sealed)}", content=sealed)

    def deliver(self, delivery: Delivery) -> None:
        """Store who may open a sealed output whose receipt was logged."""
        self.client.post("/v1/deliveries", delivery.encode())

    def deliveries(self, contract: str) -> list[Delivery]:
        found = wire.decode(self.client.get(f"/v1/proposals/{contract}/deliveries"), max_bytes=64 << 20)

        def delivery(item: object) -> Delivery:
            return Delivery.parse(wire.encode(item))

        return list(Fields({"deliveries": found}, "answer").items("deliveries", delivery, high=1_000_000))

    def put_box(self, box: Box) -> None:
        """Store an output that waits for its reviewers, and whose receipt was logged."""
        self.client.post("/v1/boxes", box.encode())

    def boxes(self, contract: str) -> list[tuple[Box, tuple[Envelope, ...]]]:
        """The boxes under a contract, each with the verdicts on it."""
        found = wire.decode(self.client.get(f"/v1/proposals/{contract}/boxes"), max_bytes=64 << 20)

        def box(item: object) -> tuple[Box, tuple[Envelope, ...]]:
            f = Fields(item, "answer")
            read = Box.parse(wire.encode(f.any("box"))), f.items("verdicts", Envelope.from_json, high=64)
            f.end()
            return read

        return list(Fields({"boxes": found}, "answer").items("boxes", box, high=1_000_000))

    def put_verdict(self, verdict: Envelope) -> None:
        """Publish a reviewer's verdict."""
        self.client.post("/v1/verdicts", verdict.encode())

    def record(self, bundle: Bundle) -> Bundle:
        """Have a receipt logged; the bundle with its proof."""
        return Bundle.parse(self.client.post("/v1/receipts", bundle.encode()))

    def receipt(self, digest: str) -> Bundle:
        found = Bundle.parse(self.client.get(f"/v1/receipts/{digest}", max_bytes=MAX_BUNDLE_BYTES))
        if found.receipt.digest != digest:
            raise BadReceipt("the exchange answered with another receipt")
        return found

    def checkpoint(self) -> Checkpoint:
        return Checkpoint.parse(self.client.get("/v1/log/checkpoint"))

    def consistency(self, old: int, new: int) -> ConsistencyProof:
        found = wire.decode(self.client.get("/v1/log/consistency", params={"old": old, "new": new}))
        return ConsistencyProof.from_json(found)

    def log_receipts(self, submission: Submission) -> int:
        """Have the receipts of requests logged by their digests; how many the log did not hold yet."""
        f = Fields(wire.decode(self.client.post("/v1/log/receipts", submission.encode())), "answer")
        added = f.integer("added", high=MAX_RECEIPTS)
        f.end()
        return added

    def proof(self, entry: Entry) -> LoggedProof:
        """Where the log says that it holds an entry; ``LoggedProof.verify`` finds out. Raises NotLogged."""
        params = {"contract": entry.contract, "digest": entry.digest, "kind": entry.kind}
        return LoggedProof.from_json(wire.decode(self.client.get("/v1/log/proof", params=params)))

    def entries(self, start: int, end: int) -> list[Entry]:
        """What the log says that it holds; :meth:`Room.ledger` holds it against the signed head."""
        found = wire.decode(self.client.get("/v1/log/entries", params={"start": start, "end": end}))
        return list(Fields({"entries": found}, "answer").items("entries", Entry.from_json))
