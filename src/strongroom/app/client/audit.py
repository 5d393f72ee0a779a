"""Who decided what, when and why: from the ledger and the signed documents alone.

The log says in which order things were said; the documents say by whom, when and why. Each is found by its digest, and its
signature is checked against the keys of the proposal that it is about, and those against this party's pins.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from strongroom import wire
from strongroom.app.exchange.client import Seen
from strongroom.contract import PROPOSAL_TYPE, Proposal, Withdrawal
from strongroom.errors import StrongroomError
from strongroom.ledger import Entry, VerifiedCheckpoint
from strongroom.receipt import verify
from strongroom.release import ReleaseStatement
from strongroom.review import Kind, Note

from .room import Room

BROKERS = ("release", "refusal")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that the log holds.

    Attributes:
        index: its place in the log; ``None`` for what the exchange shows and the log does not hold.
        what: the entry's kind, or the kind of a note.
        contract: the proposal that it is about.
        who: the party, ``""`` where nothing here says so.
        at: Unix seconds, as whoever signed it says; ``None`` where the document has no time.
        why: in their own words.
        established: whether the document is there, is signed by that party, and the party's keys are those pinned here.
        note: why not, or more about it.
    """

    index: int | None
    what: str
    contract: str
    digest: str
    who: str
    at: int | None
    why: str
    established: bool
    note: str

    def to_json(self) -> dict[str, wire.JSON]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class _Said:
    """What a document says of its entry."""

    what: str
    who: str
    at: int | None
    why: str
    note: str = ""


def audit(room: Room, contract: str | None = None) -> tuple[VerifiedCheckpoint, list[Line]]:
    """Every entry of the log with its document, in the log's order; then what is shown and was never logged.

    Args:
        room: whose trust file holds the log's key and the parties' pins.
        contract: a proposal's digest, whole; ``None`` for all.

    Raises:
        BadCheckpoint, Inconsistent: the log is not the one that is trusted here, or not what it signed.
    """
    head, entries = room.ledger()
    wanted = [(i, e) for i, e in enumerate(entries) if contract is None or e.contract == contract]
    found: list[Line] = []
    unlogged: list[Line] = []
    documents: dict[str, dict[tuple[str, str], _Said]] = {}
    doubts: dict[str, str] = {}
    for digest in dict.fromkeys(e.contract for _, e in wanted):
        documents[digest], doubts[digest] = _documents(room, digest)
    logged: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for index, entry in wanted:
        logged[entry.contract].add((entry.kind, entry.digest))
        said = documents[entry.contract].get((entry.kind, entry.digest))
        found.append(_line(index, entry, said, doubts[entry.contract]))
    for digest, shown in documents.items():
        for (kind, document), said in shown.items():
            if (kind, document) not in logged[digest] and kind not in BROKERS:
                entry = Entry(kind, digest, document)
                line = _line(None, entry, said, doubts[digest] or "the log does not hold it")
                unlogged.append(line)
    return head, found + unlogged


def _line(index: int | None, entry: Entry, said: _Said | None, doubt: str) -> Line:
    if said is None:
        where = "with the broker that decided" if entry.kind in BROKERS else "not shown by the exchange"
        return Line(
            index, entry.kind, entry.contract, entry.digest, "", None, "", False, doubt or f"the document is {where}"
        )
    return Line(index, said.what, entry.contract, entry.digest, said.who, said.at, said.why, not doubt, doubt or said.note)


def _documents(room: Room, digest: str) -> tuple[dict[tuple[str, str], _Said], str]:
    """What is shown of a proposal and holds, by kind and digest; and why nothing of it can be relied on, if so."""
    found: dict[tuple[str, str], _Said] = {}
    try:
        seen = room.exchange.proposal(digest)
        proposal = Proposal.parse(seen.envelope.expect(PROPOSAL_TYPE))
    except StrongroomError as error:
        return {}, f"the proposal is not shown ({error.code})"
    doubt = ""
    try:
        room.trust.check(proposal.parties)
    except StrongroomError as error:
        doubt = error.message
    found["proposal", digest] = _Said("proposal", proposal.proposer, proposal.created_at, proposal.title)
    notes = _notes(room, proposal)
    for note in notes:
        where = f"{note.file}:{note.line}" if note.file else ""
        found["review", wire.digest(note.encode())] = _Said(note.kind.value, note.party, note.at, note.text, where)
    found |= _approvals(seen, proposal, notes)
    for envelope in seen.withdrawals:
        with suppress(StrongroomError):
            withdrawal = Withdrawal.verify(envelope, proposal)
            said = _Said("withdrawal", withdrawal.party, withdrawal.at, withdrawal.reason)
            found["withdrawal", envelope.digest] = said
    for receipt, _ in seen.receipts:
        with suppress(StrongroomError):
            found |= _receipt(room, receipt, proposal)
    for decision in room.decisions():
        if decision.contract == digest:
            said = _Said(decision.verdict, room.name, decision.at, decision.code, "by your own broker")
            found[decision.verdict, decision.digest] = said
    return found, doubt


def _approvals(seen: Seen, proposal: Proposal, notes: list[Note]) -> dict[tuple[str, str], _Said]:
    """The signatures, each with the party's own word of what had been shown to it."""
    found = {}
    for signature in seen.envelope.signatures:
        try:
            who = proposal.signer(signature, seen.envelope.payload)
        except StrongroomError:
            continue
        document = wire.digest(wire.encode({"keyid": signature.keyid, "sig": wire.b64(signature.sig)}))
        read = next((note for note in reversed(notes) if note.party == who and note.kind is Kind.REVIEWED), None)
        more = f"read the code {read.bundle}, report {read.report}" if read and read.bundle else ""
        said = _Said("approval", who, read.at if read else None, read.text if read else "", more)
        found["approval", document] = said
    return found


def _notes(room: Room, proposal: Proposal) -> list[Note]:
    found = []
    for envelope in room.exchange.notes(proposal.digest):
        try:
            found.append(Note.verify(envelope, proposal))
        except StrongroomError:
            continue
    return found


def _receipt(room: Room, digest: str, proposal: Proposal) -> dict[tuple[str, str], _Said]:
    """A run, and the releases that it names: the brokers' signed decisions travel with the receipt."""
    bundle = room.exchange.receipt(digest)
    statement = verify(bundle, trust=room.trust).statement
    ended = "completed" if statement.failure is None else "failed"
    said = _Said("receipt", "the enclave", statement.ended_at, "", f"run {statement.run_id} {ended}")
    found = {("receipt", digest): said}
    brokers = {party.broker_key.keyid: party for party in proposal.parties}
    for envelope in bundle.releases:
        party = brokers[envelope.signatures[0].keyid]  # verified with the receipt
        release = ReleaseStatement.verify(envelope, party.broker_key)
        found["release", envelope.digest] = _Said("release", party.name, release.at, "", f"for run {release.run_id}")
    return found
