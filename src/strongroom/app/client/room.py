"""What a party does: seal, propose, approve, run, read, verify. The command line and Python programs use this alone.

room = strongroom.connect("room", party="lab")
model = room.seal("model.onnx", terms=terms)
proposal = room.propose(draft)
room.approve(digest)
bundle = room.run(digest)
receipt.verify(bundle, trust=room.trust)
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from strongroom import airlock, merkle, wire
from strongroom.app.exchange.client import Change as Changed
from strongroom.app.exchange.client import ExchangeClient, Seen
from strongroom.app.http import Client, anybody
from strongroom.asset import (
    MANIFEST_TYPE,
    About,
    AssetKey,
    FileSource,
    Manifest,
    Mock,
    SealedReader,
    seal,
    sign_manifest,
    unseal,
    verify_manifest,
)
from strongroom.code import PROGRAM as CODE
from strongroom.code import CodeBundle, EntryPoint
from strongroom.contract import (
    PROPOSAL_TYPE,
    Contract,
    Grant,
    History,
    Proposal,
    RunRequest,
    State,
    Withdrawal,
    counters,
    require,
    state,
)
from strongroom.delivery import Delivery
from strongroom.drawing import Drawing, lacking
from strongroom.errors import (
    ApproverMissing,
    BadAnswer,
    BadCheckpoint,
    BadKey,
    BadProposal,
    BadReceipt,
    Conflict,
    EmptyFile,
    EnvironmentMismatch,
    Inconsistent,
    Internal,
    ManifestMismatch,
    NotAParty,
    NotFound,
    NotPermitted,
    OutputHeld,
    PinMismatch,
    StrongroomError,
    Superseded,
    Unreachable,
    Usage,
    WireError,
)
from strongroom.failure import Note
from strongroom.ledger import ConsistencyProof, Entry, LoggedProof, VerifiedCheckpoint, follow
from strongroom.party import Party
from strongroom.policy import Policy, explain
from strongroom.receipt import Bundle, Receipt, verify
from strongroom.trust import Trust
from strongroom.wire import Envelope

from . import approvers, display
from .budgets import adopt, require_runs
from .draft import Change, Draft, countered, proposal
from .home import Home, PartyHome, private, read, write

if TYPE_CHECKING:
    from typing import Any

    from strongroom.app.enclave.client import OpenRoom
    from strongroom.app.stores.book import Decision
    from strongroom.asset.approvers import Quorum

    from .analysis import Analysis, Tried
    from .assets import Assets
    from .offer import Offering

MEDIA_TYPES = {
    ".arrow": "application/vnd.apache.arrow.file",
    ".arrows": "application/vnd.apache.arrow.stream",
    ".csv": "text/csv",
    ".feather": "application/vnd.apache.arrow.file",
    ".gguf": "application/vnd.gguf",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".onnx": "application/vnd.onnx",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/vnd.safetensors",
}
TABLES = (".arrow", ".arrows", ".csv", ".feather", ".jsonl", ".ndjson", ".parquet")
KINDS = dict.fromkeys(TABLES, "dataset") | {".onnx": "model", ".gguf": "model", ".safetensors": "model"}
PAGE = 1000  # entries of the log, asked for at a time
OPEN_SECONDS = 600  # until an enclave says something while it opens weights
MAX_REASON = 400  # characters, of a withdrawal
SUFFIXES = {
    "log": ".txt",
    "picture": ".png",
    "records": ".csv",
    "report": ".json",
    "success": ".txt",
    "table": ".arrow",
    "tensors": ".safetensors",
    "values": ".json",
}

Progress = Callable[[int], None]


def fresh(count: int) -> bytes:
    """Random bytes from the operating system."""
    return secrets.token_bytes(count)


@dataclass(frozen=True, slots=True)
class View:
    """A proposal as this party sees it: verified signatures, and where it stands.

    Attributes:
        proposal: what it says.
        envelope: with the signatures so far.
        history: what is known to have happened.
        state: where it stands now.
        mine: whether this party is named in it.
    """

    proposal: Proposal
    envelope: Envelope
    history: History
    state: State
    mine: bool

    def _repr_html_(self) -> str:
        return display.rows_html(display.view_pairs(self))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A proposal that names this party and cannot be relied on, and why."""

    digest: str
    error: StrongroomError


@dataclass(frozen=True, slots=True)
class Opened:
    """An output that this party received: its name and kind, where it was written, and under which receipt."""

    name: str
    kind: str
    path: Path
    receipt: Receipt

    def _repr_html_(self) -> str:
        return display.opened_html([self])


class Room:
    """One party at work.

    Args:
        home: the party's folder.
        exchange: address of the exchange.
        enclave: address of the enclave that runs contracts.
    """

    def __init__(self, home: PartyHome, *, exchange: str, enclave: str) -> None:
        self.home = home
        self.exchange = ExchangeClient(Client(exchange))
        self._enclave = enclave
        self.untold: tuple[str, ...] = ()

    def close(self) -> None:
        """Close the connections to the exchange and the broker's book."""
        self.exchange.close()
        self.home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return display.aligned(display.room_pairs(self))

    def _repr_html_(self) -> str:
        return display.rows_html(display.room_pairs(self))

    @property
    def name(self) -> str:
        return self.home.name

    @property
    def trust(self) -> Trust:
        return self.home.trust

    # --- assets ---

    def seal(
        self,
        path: Path | str,
        *,
        terms: Policy,
        name: str | None = None,
        kind: str | None = None,
        media_type: str | None = None,
        mock: Path | None = None,
        reveal_digest: bool = False,
        approvers: tuple[Quorum, ...] = (),
        drawing: Drawing | None = None,
        out: Path | None = None,
        threads: int = 1,
        progress: Progress | None = None,
        upload: bool = True,
        keep: Callable[[Envelope, AssetKey], None] | None = None,
    ) -> Manifest:
        """Seal a file, keep its key with this party's broker, and publish the sealed file and its manifest.

        Args:
            path: the file.
            terms: what this party lets anybody do with it.
            name: the asset's name; the file's by default.
            kind, media_type: by the file's suffix by default.
            mock: a public stand-in of the same shape.
            reveal_digest: show the plain SHA-256 in the manifest.
            approvers: who must approve a use of it beside this party.
            drawing: the terms under which models draw from it, of a source.
            out: where to write the sealed file; beside the plain one by default. The manifest lies beside it.
            threads: 1 or 2.
            progress: called with the number of bytes done so far.
            upload: also put both on the exchange.
            keep: what keeps the key of this manifest, instead of this party's own broker (``sharing.keeper``).

        Raises:
            NotFound, EmptyFile; Conflict when there is something at ``out``; EmptyPolicy when the terms allow nothing.
        """
        path = Path(path)
        out = out or sealed_path(path)
        if out.exists():
            raise Conflict(f"{out} is already there", hint="Move it away, or choose another place with --out.")
        terms.require()
        suffix = path.suffix.lower()
        about = About(
            name=name or name_of(path.name),
            kind=kind or KINDS.get(suffix, "document"),
            media_type=media_type or MEDIA_TYPES.get(suffix, "application/octet-stream"),
            owner=self.name,
            created_at=int(time.time()),
            terms=terms,
            mock=self._mock(mock) if mock else None,
            reveal_digest=reveal_digest,
            approvers=approvers,
            drawing=drawing,
        )
        key = AssetKey(fresh(32))
        partial = out.with_name(f".{out.name}.{fresh(6).hex()}")
        try:
            with _source(path) as source, partial.open("xb") as sink:
                manifest = seal(source, sink, key=key, salt=fresh(32), about=about, threads=threads, progress=progress)
            envelope = sign_manifest(manifest, self.home.keys.signing)
            # In this order, so that there is never a sealed file that nobody can open, or that lacks its manifest.
            adopt(self.home, manifest, about.created_at)  # a budget of its name is its own, too
            (keep or self.home.book.hold)(envelope, key)
            write(manifest_path(out), envelope.encode())
            partial.rename(out)
        except OSError as error:
            raise NotFound(f"cannot write {out}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)
        if upload:
            self.publish(out, envelope, mock=mock)
        return manifest

    def _mock(self, path: Path) -> Mock:
        data = read(path, max_bytes=64 << 20)
        return Mock(MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"), len(data), wire.digest(data))

    def publish(
        self, sealed: Path, envelope: Envelope, *, mock: Path | None = None, progress: Progress | None = None
    ) -> None:
        """Put a sealed file, its manifest and its mock on the exchange. Raises Unreachable, ManifestMismatch."""
        named = Manifest.parse(envelope.expect(MANIFEST_TYPE)).mock
        if mock and (named is None or named != self._mock(mock)):
            raise ManifestMismatch(f"{mock} is not the mock that the manifest names")
        self.exchange.put_manifest(envelope, self.home.keys.signing.public)
        with _source(sealed) as source, suppress(Conflict):  # it is there already, to the last byte
            self.exchange.put_sealed(envelope.digest, source, progress)
        if mock:
            with _source(mock) as source, suppress(Conflict):
                self.exchange.put_mock(wire.digest(read(mock, max_bytes=64 << 20)), source)

    @contextmanager
    def open(self, sealed: Path, manifest: Envelope) -> Iterator[SealedReader]:
        """An own sealed file, readable at any place, while the context lasts.

        Raises:
            NotFound: this party's broker holds no key for it.
            AssetError: its leaves, as of SealedReader.
        """
        held = self.home.book.held(manifest.digest)
        if held is None:
            raise NotFound(
                f"this party's broker holds no key for {manifest.digest}", hint="Only the owner can open an asset."
            )
        described = Manifest.parse(manifest.expect(MANIFEST_TYPE))
        with FileSource(sealed) as source, SealedReader(source, described, held.key) as reader:
            yield reader

    def _pinned(self) -> set[str]:
        """The ids of the keys that this party relies on: what others put on an exchange is not even asked for."""
        return {p.signing_key.keyid for p in (*self.trust.parties, self.home.card)}

    def offer(
        self,
        offering: Offering,
        *,
        terms: Policy,
        name: str | None = None,
        out: Path | None = None,
        approvers: tuple[Quorum, ...] = (),
    ) -> Manifest:
        """Offer a table: make or check its mock, seal the table, and publish both (``app.client.offer``).

        Args:
            offering: the table, and what its mock may reveal.
            terms: what this party lets anybody do with it.
            name: the asset's; by default the file's without its suffix.
            out: where to write the sealed file; beside the plain one by default.
            approvers: who must approve a use of it beside this party.

        Raises:
            MockMisfit, MockReveals, NotATable, and as :meth:`seal`.
        """
        from .offer import prepared, seal_offer

        out = out or sealed_path(offering.table)
        with prepared(offering, beside=out.parent) as offered:
            named = name or name_of(offering.table.stem)
            manifest = seal_offer(self, offered, terms=terms, name=named, out=out, approvers=approvers)
            self.publish(out, Envelope.parse(read(manifest_path(out))), mock=offered.mock)
        return manifest

    @property
    def assets(self) -> Assets:
        """What the pinned parties offer, as the exchange shows it now: ``room.assets["census"].mock``."""
        from .assets import Assets

        return Assets(self)

    def manifests(self) -> list[Manifest]:
        """Manifests on the exchange that a pinned party signed under its own name."""
        found, trust = [], self.trust
        for envelope in self.exchange.manifests(self._pinned()):
            for party in trust.parties:
                try:
                    manifest = verify_manifest(envelope, party.signing_key).manifest
                except StrongroomError:
                    continue  # not by this party; what nobody pinned signed is not shown
                if manifest.owner == party.name:
                    found.append(manifest)
        return found

    def asset(self, reference: str) -> Manifest:
        """An asset by ``OWNER/NAME`` (the newest) or digest. Raises NotFound, OlderOffer."""
        return self.assets[reference].manifest

    # --- contracts ---

    def propose(self, draft: Draft) -> Proposal:
        """Propose, and sign as proposer. Raises Usage, BadParameters, NotPermitted."""
        from strongroom.enclave.sandbox import program_digest

        trust = self.trust
        new = proposal(
            draft,
            proposer=self.name,
            parties={p.name: p for p in trust.parties},
            measurements=trust.measurements,
            program_digest=program_digest(draft.program),
            nonce=fresh(16),
            at=int(time.time()),
        )
        return self.propose_as_written(new)

    def propose_as_written(self, new: Proposal) -> Proposal:
        """Propose exactly this, and sign as proposer. Raises NotPermitted, and what others would refuse."""
        self._sayable(new)
        return self._propose(new)

    def _sayable(self, new: Proposal) -> None:
        """Refuse what others would refuse, or this party's own terms, before anything is signed or written down."""
        Proposal.parse(new.encode())
        self._own_terms(new)

    def _propose(self, new: Proposal) -> Proposal:
        signature = new.sign(self.home.keys)
        self.home.book.approve(new.digest, int(time.time()))
        self.exchange.propose(new.envelope([signature]))
        self._told(new.digest, *([new.supersedes] if new.supersedes else []))
        return new

    def _told(self, *digests: str) -> None:
        """Bring what this party says of contracts to the brokers that hold shares of its assets; whom not: ``untold``."""
        from . import sharing

        self.untold = sharing.told(self.home, self.exchange, digests)

    def counter(self, digest: str, change: Change) -> Proposal:
        """Answer a proposal with another that supersedes it. Raises WrongState, Usage, NotPermitted."""
        old = self.view(digest)
        require("counter", old.state)
        new = countered(old.proposal, change, proposer=self.name, nonce=fresh(16), at=int(time.time()))
        counters(new, old.proposal)
        approvers.require(new, approvers.manifests_of(self, new))
        self._sayable(new)
        self.home.book.end(digest, new.digest)  # first: the old one is refused even if nothing else gets through
        return self._propose(new)

    def view(self, digest: str) -> View:
        """A proposal, checked: signatures, pins, who countered, who withdrew.

        Raises:
            NotFound, NotPinned, PinMismatch, ContractError and its leaves.
        """
        return self._view(self.exchange.proposal(digest))

    def _view(self, seen: Seen) -> View:
        found, signed = Proposal.open(seen.envelope)
        self._check_parties(found)
        standing = self.home.book.standing(found.digest)
        withdrawn = set(standing.withdrawn_by)
        for envelope in seen.withdrawals:
            withdrawal = Withdrawal.verify(envelope, found)
            if withdrawal.party not in withdrawn:
                self.home.book.withdraw(withdrawal, envelope)  # so that this party's broker knows, if it was not told
                withdrawn.add(withdrawal.party)
        history = History(
            approved_by=signed,
            countered_by=standing.ended_by or self._countered(found, seen.countered_by),
            withdrawn_by=frozenset(withdrawn),
            runs=frozenset(run_id for _, run_id in seen.receipts) | frozenset(standing.runs),
            granted=standing.granted,
        )
        mine = any(p.name == self.name for p in found.parties)
        return View(found, seen.envelope, history, state(found, history, int(time.time())), mine)

    def _check_parties(self, found: Proposal) -> None:
        """Pinned keys, and the brokers at the addresses of their cards: a proposal cannot send anybody elsewhere."""
        trust = self.trust
        trust.check(found.parties)
        for party in found.parties:
            if trust.party(party.name).broker_url != party.broker_url:
                raise PinMismatch(
                    f"the proposal says that the broker of {party.name!r} is at another address than its card",
                    hint="If it moved, ask the party for its present card and pin that; then let it be proposed anew.",
                )

    def _countered(self, old: Proposal, candidates: Iterable[str]) -> str | None:
        for digest in candidates:
            try:
                new, signed = Proposal.open(self.exchange.proposal(digest).envelope)
                counters(new, old)
            except StrongroomError:
                continue  # an exchange can say that anything counters anything
            if new.proposer in signed:
                return new.digest
        return None

    def views(self) -> list[View]:
        """Every proposal that names this party and only pinned others, oldest first."""
        return self.sift()[0]

    def sift(self) -> tuple[list[View], list[LeftOut]]:
        """As :meth:`views`, and beside it what names this party and cannot be relied on, and why."""
        return self._sifted(self.exchange.proposals(self._pinned()))

    def changes(self, after: int) -> tuple[list[View], list[LeftOut], list[Changed]]:
        """As :meth:`sift`, of what changed after a place; and what the exchange says of each, untrusted."""
        changed = self.exchange.changes(self._pinned(), after)
        return *self._sifted(change.seen for change in changed), changed

    def _sifted(self, all_seen: Iterable[Seen]) -> tuple[list[View], list[LeftOut]]:
        found, left_out = [], []
        for seen in all_seen:
            try:
                view = self._view(seen)
            except StrongroomError as error:
                if self._named_in(seen):  # proposals among strangers are no business of this party
                    left_out.append(LeftOut(seen.envelope.digest, error))
                continue
            if view.mine:
                found.append(view)
        return found, left_out

    def _named_in(self, seen: Seen) -> bool:
        try:
            parties = Proposal.parse(seen.envelope.expect(PROPOSAL_TYPE)).parties
        except StrongroomError:
            return False
        return any(p.signing_key == self.home.card.signing_key for p in parties)

    def find(self, reference: str | None) -> str:
        """The digest of a proposal by any unambiguous beginning, or of the newest.

        Raises:
            NotFound: none, or several.
            StrongroomError: there is none to rely on, and this is why the newest that names this party is none.
        """
        if reference and is_whole(reference):
            return reference
        views, left_out = self.sift()
        wanted = (reference or "").removeprefix("sha256:")
        if reference is not None and not wanted:
            raise NotFound("a digest is named by its first digits, at least one of them")
        found = [v.proposal.digest for v in views if v.proposal.digest.removeprefix("sha256:").startswith(wanted)]
        if reference is None and not found:
            if left_out:
                raise left_out[-1].error
            hint = "Pin the other party's card (strongroom party trust CARD), then propose, or wait for its proposal."
            raise NotFound("there is no proposal yet among the parties that you have pinned", hint=hint)
        if not found:
            raise NotFound(f"no proposal begins with {reference!r}", hint="See what there is: strongroom status")
        if reference is not None and len(found) > 1:
            raise NotFound(f"{len(found)} proposals begin with {reference!r}", hint="Give more of the digest.")
        return found[-1]

    def approve(self, digest: str) -> View:
        """Sign exactly these bytes, after checking that this party's own terms permit them.

        Raises:
            WrongState, NotPermitted, Superseded; NotPinned, PinMismatch; NotPermitted when a measurement is not trusted
            here.
        """
        view = self.view(digest)
        if view.history.countered_by is not None:
            raise Superseded(f"it was countered by {view.history.countered_by}")
        require("approve", view.state)
        self._own_terms(view.proposal)
        self._runnable(view.proposal)
        unknown = set(view.proposal.enclave.measurements) - set(self.trust.measurements)
        if unknown:
            raise NotPermitted(
                "the proposal accepts an enclave that this party does not trust",
                hint="Compare its measurement with what `strongroom measure` prints for a build that you trust.",
            )
        signature = view.proposal.sign(self.home.keys)
        if view.proposal.supersedes:
            self.home.book.end(view.proposal.supersedes, digest)
        self.home.book.approve(digest, int(time.time()))
        self.exchange.approve(view.proposal, (signature,))
        self._told(digest, *([view.proposal.supersedes] if view.proposal.supersedes else []))
        return self.view(digest)

    def _runnable(self, found: Proposal) -> None:
        """Nothing is signed that no run could use. Raises BadParameters, NotPermitted."""
        if found.for_guests:
            return  # what runs is the guest's image, which the proposal's own rules hold it to
        from strongroom.programs import load, use

        program = load(found.program.name)
        program.check(found.program.parameters)
        if found.program.use != use(program.NAME):
            raise NotPermitted(f"program {program.NAME!r} makes another use than {found.program.use!r}")
        if program.NAME == CODE:
            self.submitted(found)

    def submitted(self, found: Proposal) -> CodeBundle:
        """The code that a proposal names: exactly those bytes, with the lock and the entry that it names too.

        Raises:
            NotFound, CodeMismatch, EnvironmentMismatch, BadEntry; the errors of :meth:`CodeBundle.parse`. NotPermitted: it
            is for another program.
        """
        from strongroom.programs import code

        if found.program.name != CODE:
            raise NotPermitted("the proposal is for a standard program, and names no code")
        said = code.read(found.program.parameters)
        bundle = self.code(said.bundle)
        if bundle.environment != said.environment:
            raise EnvironmentMismatch("the lock in the bundle is not the one that the proposal names")
        bundle.require_entry(EntryPoint(said.module, said.function))
        if any(said.outputs.get(o.name) != o.kind for o in found.outputs):  # a counter-proposal may have left some out
            raise BadProposal("the proposal has an output that its code is not to write")
        return bundle

    def code(self, digest: str) -> CodeBundle:
        """A bundle by its digest. Raises NotFound, CodeMismatch; the errors of :meth:`CodeBundle.parse`."""
        return CodeBundle.parse(self.exchange.code(digest))

    def submit(self, analysis: Analysis | Path | str | Callable[..., Any], **said: Any) -> Proposal:
        """Publish an analysis's code, and propose to run it; see :func:`strongroom.app.client.analysis.submit`."""
        from . import analysis as analyses

        return analyses.submit(self, analysis, **said)

    def try_(self, analysis: Analysis | Path | str | Callable[..., Any], **said: Any) -> Tried:
        """Run an analysis here, on stand-ins; see :func:`strongroom.app.client.analysis.try_`."""
        from . import analysis as analyses

        said = {"assets": lambda name: self.assets[name], **said}
        return analyses.try_(analysis, keep=self.home.place("environments"), **said)

    def _own_terms(self, found: Proposal) -> None:
        require_runs(self.home, found)
        for ref in found.assets:
            if ref.owner != self.name:
                continue
            signed = self.home.book.manifest(ref.manifest)
            if signed is None:
                raise NotFound(f"this party's broker holds no key for the asset in role {ref.role!r}")
            if not self.trust.logs:
                raise Usage(
                    "your trust file has no log, so that no receipt of a run could be checked",
                    hint="Accept one first: strongroom party trust --reference FILE",
                )
            manifest = verify_manifest(signed, self.home.keys.signing.public).manifest
            wider = explain(manifest.terms, found.policy)
            if wider:
                raise NotPermitted(f"your own terms for {manifest.name!r} do not permit it: {wider[0]}")
            lacks = manifest.lacking(found.approvals(p.name for p in found.parties))
            if lacks:
                raise ApproverMissing(f"your own terms for {manifest.name!r} name who must be a party: {lacks[0]}")
            undrawn = lacking(manifest.drawing, ref.role, found.program.parameters)
            if undrawn:
                raise NotPermitted(f"your own terms for {manifest.name!r} do not permit it: {undrawn[0]}")

    def withdraw(self, digest: str, reason: str = "") -> list[str]:
        """Withdraw: at once at this party's own broker, then wherever the word can be brought.

        It does not depend on the exchange: an exchange that is away, or shows the proposal to nobody, stops no withdrawal.

        Args:
            digest: of the proposal, whole.
            reason: one line for people.

        Returns:
            who could not be told; a broker that was off asks the exchange when it is back.

        Raises:
            WrongState: it was withdrawn before, or is over.
            NotAParty: it is no business of this party.
            Usage: the reason is too long.
        """
        if len(reason) > MAX_REASON:
            raise Usage(f"the reason has more than {MAX_REASON} characters")
        withdrawal = Withdrawal(digest, self.name, int(time.time()), reason)
        envelope = withdrawal.sign(self.home.keys.signing)
        try:
            contract = self.exchange.proposal(digest).envelope
            proposal = Proposal.parse(contract.expect(PROPOSAL_TYPE))
        except StrongroomError:
            self.home.book.withdraw(withdrawal, envelope)
            return ["the other parties' brokers, since the exchange does not show the proposal", "the exchange"]
        proposal.party(self.name)
        self._withdrawable(digest)
        self.home.book.withdraw(withdrawal, envelope)
        told = wire.encode({"contract": contract.to_json(), "withdrawal": envelope.to_json()})
        others = [p for p in proposal.parties if p.name != self.name and p.broker_url]
        missed = [f"the broker of {p.name}" for p in others if not self._tell(p, told)]
        missed += self._holders_told(proposal, told)
        try:
            self.exchange.withdraw(digest, envelope)
        except StrongroomError:
            missed.append("the exchange")
        self._told(digest)
        return missed

    def _holders_told(self, proposal: Proposal, withdrawal: bytes) -> list[str]:
        from . import sharing

        return sharing.bring(self.exchange, proposal, "/v1/withdrawals", withdrawal)

    def _withdrawable(self, digest: str) -> None:
        try:
            current = self.view(digest).state
        except StrongroomError:
            return  # a party whose pin was removed, say: all the more reason
        require("withdraw", current)

    @staticmethod
    def _tell(party: Party, told: bytes) -> bool:
        try:
            with closing(Client(party.broker_url, timeout=5)) as client:
                client.post("/v1/withdrawals", told)
        except StrongroomError:
            return False
        return True

    def grant(self, digest: str, runs: int) -> Grant:
        """Let this party's own broker give keys for more runs than the contract's limit. Raises WrongState, BadField."""
        view = self.view(digest)
        require("grant", view.state)
        signed = Grant(digest, self.name, runs, fresh(16).hex()).sign(self.home.keys.signing)
        grant = Grant.verify(signed, view.proposal)
        self.home.book.grant(grant, signed)
        self._told(digest)
        return grant

    # --- runs ---

    def contract(self, digest: str) -> Contract:
        """The completely signed contract of pinned parties. Raises SignatureMissing and the errors of :meth:`view`."""
        found = Contract.verify(self.exchange.proposal(digest).envelope)
        self.trust.check(found.proposal.parties)
        return found

    def run(self, digest: str, on_step: Callable[[str, str], None] | None = None) -> Bundle:
        """Have the enclave run a contract, and verify what comes back.

        Args:
            digest: the contract.
            on_step: called with each step and a word of detail; shown as a line, once it takes long, where not given.

        Raises:
            SignatureMissing, Expired, WrongState; ReleaseRefused; NotVerified when the receipt does not hold.
        """
        view = self.view(digest)
        contract = self.contract(digest)
        contract.require_in_force(int(time.time()))
        require("run", view.state)
        if contract.proposal.for_guests:
            hint = f"Ask its owners' brokers for runs: strongroom guest expect {digest[:19]}"
            raise NotPermitted("the contract is for guests, which are no enclaves of ours", hint=hint)
        if contract.proposal.standing:
            hint = f"Have its models served: strongroom serve --contract {digest[:19]}"
            raise NotPermitted("the contract keeps a room open for requests, and is not run", hint=hint)
        from strongroom.app.enclave.client import run_contract

        request = RunRequest(digest, self.name, fresh(16).hex(), int(time.time()))
        signed, timeout = request.sign(self.home.keys.signing), contract.proposal.limits.seconds + 60
        with closing(Client(self._enclave, timeout=timeout)) as client, display.steps(on_step) as step:
            bundle = run_contract(client, signed, step)
        statement = self.keep(bundle).statement
        if (statement.contract, statement.run_id) != (request.contract, request.run_id):
            raise BadReceipt("the enclave answered with the receipt of another run")
        return bundle

    def going(self, digest: str) -> list[tuple[str, str]]:
        """Where the runs of a contract are that go on now: step and detail of each, as whoever asked for it hears them. How
        far the program is shows only as a count, and only where the contract agreed on that.

        Raises:
            SignatureMissing and the errors of :meth:`view`; whatever the enclave refuses with.
        """
        self.contract(digest)
        from strongroom.app.enclave.client import going
        from strongroom.app.enclave.going import GoingRequest

        request = GoingRequest(digest, self.name, int(time.time())).sign(self.home.keys.signing)
        with closing(Client(self._enclave, timeout=30)) as client:
            return going(client, request)

    def serve(self, digest: str, on_step: Callable[[str, str], None] | None = None, *, spares: int = 0) -> OpenRoom:
        """Have the enclave open a standing contract's room, and serve its models until the owners no longer let it.

        Args:
            digest: the contract.
            on_step: called with each step and a word of detail.
            spares: how many more rooms it may open by itself, when a keyset has had all its requests; each is a run.

        Raises:
            SignatureMissing, Expired, WrongState; ReleaseRefused; whatever the enclave refuses with. NotPermitted: the
            contract is for runs.
        """
        view = self.view(digest)
        contract = self.contract(digest)
        contract.require_in_force(int(time.time()))
        require("run", view.state)
        if not contract.proposal.standing:
            raise NotPermitted("the contract is for runs, and serves nothing", hint=f"strongroom run {digest[:19]}")
        from strongroom.app.enclave.client import leave_spare, open_room

        def asked() -> Envelope:
            return RunRequest(digest, self.name, fresh(16).hex(), int(time.time())).sign(self.home.keys.signing)

        # No room, no keyset: so this goes to whoever answers. It opens one room, once, and only the contract's own enclave
        # is given keys for it.
        with closing(Client(self._enclave, timeout=OPEN_SECONDS, context=anybody())) as client:
            found = open_room(client, asked(), on_step or (lambda _step, _detail: None))
            if found.contract != digest:
                raise BadAnswer("the enclave opened the room of another contract")
        with closing(self._attested(contract)) as client:
            for _ in range(spares):
                leave_spare(client, asked())
        return found

    def _attested(self, contract: Contract) -> Client:
        """The way to the room's enclave: TLS that ends where its attested keyset says, or as it comes without TLS.

        Raises:
            OtherTlsKey: somebody stands between. AttestationError and its leaves, EnclaveNotNamed, KeysetOfAnotherRun.
        """
        import httpx

        from .carrier import context_for
        from .session import Reply, attested, questions

        if not self._enclave.startswith("https:"):
            return Client(self._enclave, timeout=OPEN_SECONDS)
        nonce, at = fresh(32), int(time.time())
        with closing(Client(self._enclave, timeout=30, context=anybody())) as client:
            reply = Reply(200, client.get(questions(nonce)[0]))
        keyset = attested(contract, self.trust, nonce=nonce, reply=reply, at=at)
        context = context_for(keyset.tls_public_keys, httpx.URL(self._enclave).host)
        found = Client(self._enclave, timeout=OPEN_SECONDS, context=context)
        try:
            found.get("/healthz")
        except StrongroomError:
            found.close()
            raise
        return found

    def keep(self, bundle: Bundle) -> Receipt:
        """Verify a receipt, follow its log, and keep the bundle. Raises NotVerified, Inconsistent."""
        receipt = verify(bundle, trust=self.trust)
        if bundle.proof is not None:
            self.follow(bundle.proof)
        write(self.home.place("receipts") / f"{bundle.receipt.digest.removeprefix('sha256:')}.json", bundle.encode())
        return receipt

    def note(self, receipt: Receipt) -> Note | None:
        """What this party, as the owner of an asset, is told of a failure beside what the receipt says to all.

        Raises:
            BadReceipt: it is not encrypted to this party for that run.
        """
        statement = receipt.statement
        if self.name not in statement.notes:
            return None
        place = {"contract": statement.contract, "run_id": statement.run_id, "owner": self.name}
        try:
            return Note.open(statement.notes[self.name], self.home.keys.decryption, **place)
        except (BadKey, WireError) as error:
            raise BadReceipt("the note in the receipt is not for this party and that run") from error

    def follow(self, proof: LoggedProof) -> None:
        """Hold the head under a receipt against the last one seen. Raises Inconsistent."""
        for log in self.trust.log_verifiers():
            if log.signatures_of(proof.checkpoint):
                self.follow_head(log.verify(proof.checkpoint))

    def follow_head(self, new: VerifiedCheckpoint) -> None:
        """Hold a log's head against the last one seen, and keep the longer. Raises Inconsistent."""
        last = self.home.last_seen(new.origin)
        older, newer = (new, last) if last is not None and new.size < last.size else (last, new)
        self.home.save_seen(follow(older, newer, self._consistency(older, newer)))

    def _consistency(self, older: VerifiedCheckpoint | None, newer: VerifiedCheckpoint) -> ConsistencyProof | None:
        if older is None or older.size >= newer.size:
            return None
        try:
            return self.exchange.consistency(older.size, newer.size)
        except (Unreachable, Internal):
            raise
        except StrongroomError:
            return None  # it signed a head, and will not show how it came about: that is for follow() to judge

    def receipts(self, digest: str) -> list[Bundle]:
        """Every receipt of a contract that the exchange shows, unverified. Raises BadReceipt for one of another contract."""
        found = [self.exchange.receipt(r) for r, _ in self.exchange.proposal(digest).receipts]
        if any(bundle.contract.digest != digest for bundle in found):
            raise BadReceipt("the exchange shows a receipt of another contract")
        return found

    def outputs(self, digest: str, *, out: Path | None = None) -> list[Opened]:
        """Open what was delivered to this party under a contract.

        Args:
            digest: the contract.
            out: a folder; ``outputs/RUN`` in the party's own by default. Of several runs each gets a folder in it.

        What waits for its reviewers is left out; see ``airlock.boxes``.

        Raises:
            NotVerified: a receipt does not hold, so that nothing under it is opened.
        """
        opened = display.Outputs()
        deliveries = self.exchange.deliveries(digest)
        bundles = self.receipts(digest)
        for bundle in bundles:
            receipt = self.keep(bundle)
            folder = self.home.place("outputs") / receipt.statement.run_id if out is None else out
            if out is not None and len(bundles) > 1:  # one run's report must not take the place of another's
                folder = out / receipt.statement.run_id
            folder.mkdir(parents=True, exist_ok=True)
            for delivered in receipt.statement.outputs:
                if self.name not in delivered.output.recipients:
                    continue
                among = deliveries if delivered.box is None else self._passed(digest, delivered.box)
                if among is None:
                    continue
                # an exchange can show deliveries that nobody made; the receipt says which is the enclave's
                named = (delivered.sealed, delivered.manifest)
                matching = [d for d in among if (d.sealed, d.manifest.digest) == named]
                if not matching:
                    raise NotFound(f"the exchange does not show output {delivered.output.name!r}", hint="Ask again later.")
                path = folder / (delivered.output.name + SUFFIXES[delivered.output.kind])
                self._open_output(matching[0], receipt, path, waited=delivered.box is not None)
                opened.append(Opened(delivered.output.name, delivered.output.kind, path, receipt))
        return opened

    def _passed(self, digest: str, box: str) -> list[Delivery] | None:
        """What lies in a box that every reviewer passed; ``None`` where one has not."""
        from .airlock import boxes

        shown = boxes(self, digest, lambda _digest, _error: None)
        held = next((h for h in shown if h.box.digest == box), None)
        try:
            return [] if held is None else [held.box.open(held.shares)]
        except OutputHeld:
            return None

    def _open_output(self, delivery: Delivery, receipt: Receipt, path: Path, *, waited: bool) -> None:
        if (delivery.contract, delivery.run_id) != (receipt.statement.contract, receipt.statement.run_id):
            raise BadReceipt("a delivery is of another run")
        try:
            key = delivery.open(self.name, self.home.keys.decryption)
        except (BadKey, NotAParty) as error:
            raise BadReceipt(f"output {delivery.output!r} was not encrypted to this party as the receipt says") from error
        partial = path.with_name(f".{path.name}.{fresh(6).hex()}")
        try:
            with private(partial) as sink:  # whole and checked against its commitment, or not there
                unseal(self.exchange.output(delivery.sealed), delivery.manifest, key, sink)
                if waited:
                    airlock.unpad(sink)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    # --- the log ---

    def ledger(self) -> tuple[VerifiedCheckpoint, list[Entry]]:
        """The log's head, held against the last one seen, and every entry, held against the head.

        Raises:
            BadCheckpoint: of a log that is not in the trust file.
            Inconsistent: not what was seen before, or the entries are not those that the log signed.
        """
        checkpoint = self.exchange.checkpoint()
        log = next((v for v in self.trust.log_verifiers() if v.signatures_of(checkpoint)), None)
        if log is None:
            hint = "Pin the log's key, if you know it from its operator: strongroom party trust --reference reference.json"
            raise BadCheckpoint("the log is not one that your trust file holds", hint=hint)
        head = log.verify(checkpoint)
        self.follow_head(head)
        entries: list[Entry] = []
        for start in range(0, head.size, PAGE):
            entries += self.exchange.entries(start, min(start + PAGE, head.size))
        if merkle.root(entry.leaf_hash for entry in entries) != head.root or len(entries) != head.size:
            raise Inconsistent("the entries that the log shows are not those under its signed head")
        return head, entries

    # --- the owner's view ---

    def decisions(self) -> list[Decision]:
        """Every decision of this party's broker, oldest first."""
        return self.home.book.decisions()

    def unreceipted(self) -> list[tuple[str, str, int]]:
        """Runs whose keys were released and that never got a valid receipt: contract, run id, time of the release.

        A room that stays open is no run: its receipts are of requests, and are logged by digest. Guests write none at all.
        """
        missing, trust, guests = [], self.trust, self.home.book.for_guests()
        receipts: dict[str, set[str]] = {}
        for contract, run_id, _, at in self.home.book.releases():
            if contract in guests:
                continue
            if contract not in receipts:
                receipts[contract] = self._runs_with_receipts(contract, trust)
            if run_id not in receipts[contract] and not self._stands(contract):
                missing.append((contract, run_id, at))
        return missing

    def _stands(self, contract: str) -> bool:
        """Whether it is known to be a standing contract. The digest says which bytes it is: no exchange can pretend it."""
        try:
            return Proposal.parse(self.exchange.proposal(contract).envelope.expect(PROPOSAL_TYPE)).standing
        except StrongroomError:
            return False

    def _runs_with_receipts(self, contract: str, trust: Trust) -> set[str]:
        """From what enclaves handed to this party's own broker: no exchange can hide it."""
        found = set()
        for data in self.home.book.receipts(contract):
            try:
                statement = verify(Bundle.parse(data), trust=trust).statement
            except StrongroomError:
                continue  # what does not verify is no receipt
            if statement.contract == contract:
                found.add(statement.run_id)
        return found


def connect(home: Path | str, party: str | None = None, *, exchange: str | None = None, enclave: str | None = None) -> Room:
    """A party at work.

    Args:
        home: the machine's folder of parties, as `strongroom up` or `strongroom party new` made it.
        party: which of them; may be left out where there is one.
        exchange, enclave: addresses, where they are not those in the folder's ``config.json``.

    Raises:
        NoKeys, Usage, NotFound.
    """
    place = Home(Path(home))
    if exchange is None or enclave is None:
        config = place.config
        exchange, enclave = exchange or config.exchange, enclave or config.enclave
    display.register()
    return Room(place.party(party), exchange=exchange, enclave=enclave)


def sealed_path(plain: Path) -> Path:
    """Where a file is sealed to: beside it. Raises NotFound: it is a folder."""
    if plain.is_dir():
        raise NotFound(f"{plain} is a folder, not a file")
    return plain.with_name(plain.name + ".sealed")


def manifest_path(sealed: Path) -> Path:
    """Where a sealed file's manifest lies: beside it."""
    return sealed.with_name(sealed.name.removesuffix(".sealed") + ".manifest.json")


def is_whole(reference: str) -> bool:
    """Whether it is a digest, and not the beginning of one."""
    return len(reference) == len("sha256:") + 64


def name_of(file: str) -> str:
    """An asset's name from a file's."""
    kept = "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "-" for c in file.lower()).strip("._-")
    return kept[:64].strip("._-") or "asset"


def _source(path: Path) -> io.BufferedReader:
    """A file opened for reading. Raises NotFound, EmptyFile."""
    try:
        if path.is_dir():
            raise NotFound(f"{path} is a folder, not a file")
        source = path.open("rb")
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if path.stat().st_size == 0:
        source.close()
        raise EmptyFile(f"{path} is empty")
    return source
