"""Keys for guests that are no enclaves of ours: confidential containers, which speak a protocol of their own (``rcar``).

A guest's request goes through the same seventeen checks as any other, D1 to D17 under the same numbers, and through the same
transaction of the broker's book. What a guest lacks is put in its place here: its session for a fresh nonce (D1), a party's
word to the broker that a guest is to run (D8), its one key for a keyset (D9), a contract that is for guests alone (D10).

See ``spec/rcar.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .attest.evidence import Endorsements, Evidence
from .attest.guest import RuntimeData, appraise_guest
from .attest.result import AttestationResult
from .broker import STEPS, Book, Decision, Owner, Page, Refusal, Release, decided
from .contract import RUN_REQUEST_SECONDS, Contract, Proposal, RunRequest
from .errors import BadBudget, GuestElsewhere, KeyShared, NoSession, NotForGuests
from .rcar import jwe
from .transcript import Steps
from .wire import Envelope

GUEST_STEPS = Steps(
    "D",
    [
        {
            "D1": "the guest's session is this broker's, attested for its own nonce, and not over",
            "D8": "a party of the contract asked this broker for exactly this run by a guest",
            "D9": "the guest's evidence binds its runtime data, and is affirmed under the owner's policy",
            "D10": "the contract is for guests, and the guest's key has no run of another",
            "D15": "the run is this guest's alone",
            "D17": "the asset has no budget",
        }.get(number, name)
        for number, name in STEPS
    ],
)


@dataclass(frozen=True, slots=True)
class Attested:
    """What a broker keeps of a guest between its attestation and the end of its session.

    Attributes:
        nonce: 32 bytes, this broker's, spent by this very attestation.
        runtime: what the evidence was found to bind.
        evidence, endorsements: appraised anew for every key.
        began, until: first second, and the first at which it is over, Unix.
    """

    nonce: bytes
    runtime: RuntimeData
    evidence: Evidence
    endorsements: Endorsements
    began: int
    until: int

    def appraise(self, owner: Owner, at: int) -> AttestationResult:
        """The evidence under the owner's policy as it is now. ``at``: Unix seconds."""
        return appraise_guest(
            self.evidence,
            policy=owner.policy,
            endorsements=self.endorsements,
            nonce=self.nonce,
            runtime=self.runtime,
            began=self.began,
            until=self.until,
            at=at,
        )


@dataclass(frozen=True, slots=True)
class GuestRun:
    """A run that a party asked a broker to let a guest have.

    Attributes:
        contract: the contract's envelope, with every signature.
        run: the party's signed request.
    """

    contract: Envelope
    run: Envelope

    @property
    def run_id(self) -> str:
        return RunRequest.peek(self.run).run_id

    def may_begin(self, at: int) -> bool:
        """Whether it was asked for a time that is not over. ``at``: Unix seconds."""
        said = RunRequest.peek(self.run)
        return at <= (said.at + RUN_REQUEST_SECONDS if said.until is None else said.until)

    @classmethod
    def verify(cls, contract: Envelope, run: Envelope, owner: Owner, at: int) -> GuestRun:
        """Whether it is for this broker to keep.

        Args:
            contract, run: untrusted.
            owner: whose broker it is.
            at: Unix seconds.

        Raises:
            NotForGuests: a contract for enclaves of ours.
            ContractError, WireError, PartyError leaves: not a contract of pinned parties, or not asked for now by one.
        """
        found = Contract.verify(contract)
        if not found.proposal.for_guests:
            raise NotForGuests("the contract is for enclaves of ours")
        owner.trust.check(found.proposal.parties)
        found.require_in_force(at)
        RunRequest.verify(run, found.proposal, at)
        return cls(contract, run)


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """A guest's request for one asset's key. What is in it was kept by the broker or comes from the request's address.

    Attributes:
        session: who asks.
        granted: the run that a party asked for, chosen by :func:`choose`.
        manifest: digest of the asset's manifest.
    """

    session: Attested
    granted: GuestRun
    manifest: str

    @property
    def contract(self) -> Envelope:
        return self.granted.contract

    @property
    def run(self) -> Envelope:
        return self.granted.run

    @property
    def run_id(self) -> str:
        return self.granted.run_id

    @property
    def nonce(self) -> bytes:
        return self.session.nonce


class Taken(NamedTuple):
    """A run that some keyset or guest has: the contract's digest and the run id."""

    contract: str
    run_id: str


class GuestBook(Book, Protocol):
    """A broker's memory, as far as guests need more of it."""

    def asked_of_guests(self, contract: str) -> Sequence[GuestRun]:
        """The runs of a contract that parties asked for, for guests, in the order in which they came."""

    def runs_of(self, keyset: str) -> Sequence[Taken]:
        """The runs that this keyset or guest has, of any contract."""

    def manifest(self, manifest: str) -> Envelope | None:
        """The manifest of an asset whose key is here, or was before it was shared."""


def choose(book: GuestBook, contract: str, guest: str, at: int) -> GuestRun | None:
    """The run that a guest would have: its own, else the first that nobody has and that may still begin, else the last.

    Whether it gets it is decided by :func:`decide_guest`, in a transaction.

    Args:
        contract: its digest.
        guest: the guest's identity.
        at: Unix seconds.

    Returns:
        ``None`` where no party asked this broker for any run of this contract by a guest.
    """
    asked = book.asked_of_guests(contract)
    with book.transaction() as page:
        runs = page.standing(contract).runs
    own = [one for one in asked if runs.get(one.run_id) == guest]
    free = [one for one in asked if one.run_id not in runs and one.may_begin(at)]
    return next(iter([*own, *free, *asked[-1:]]), None)


class _GuestDecision(Decision):
    """One guest's request on its way through the checks."""

    def __init__(self, request: GuestRequest, owner: Owner, book: GuestBook, at: int) -> None:
        super().__init__(request, owner, book, at, steps=GUEST_STEPS)
        self.session, self.memory = request.session, book

    def fresh(self) -> None:
        """D1. The session's nonce was spent when it attested, and no other session can have it."""
        session = self.session
        ends = f"attested at {session.began}, until {session.until}"
        self.check("D1", session.began <= self.at < session.until, ends, code=NoSession.code)

    def secret(self, proposal: Proposal) -> tuple[str, Envelope, bytes]:
        """D6: a whole key, or none."""
        manifest = self.request.manifest
        shared = self.book.share(manifest) is not None
        if shared or (self.book.held(manifest) is None and self.memory.manifest(manifest) is not None):
            raise KeyShared("the key is shared over several brokers, and a guest cannot put shares together")
        return super().secret(proposal)

    def appraised(self) -> AttestationResult:
        """D9."""
        return self.session.appraise(self.owner, self.at)

    def seen(self, result: AttestationResult) -> str:
        """What binds the key: for the owner's log."""
        return f"{result.label}; bound: runtime data sha384:{self.session.runtime.hash.hex()}, of {result.keyset_digest}"

    def meant(self, contract: Contract) -> None:
        """D10. Evidence of a guest names no contract: so its key is good for one, and that one is for guests alone."""
        if not contract.proposal.for_guests:
            raise self.stop("D10", NotForGuests(f"the contract is for enclaves that run {contract.proposal.program.name}"))
        key, mine = self.session.runtime.key.digest, Taken(contract.digest, self.request.run_id)
        others = [taken for taken in self.memory.runs_of(key) if taken != mine]
        seen = ", ".join(f"run {taken.run_id} of {taken.contract}" for taken in others[:3])
        self.check("D10", not others, seen, code=GuestElsewhere.code)

    def spend(self, contract: Contract, page: Page) -> None:
        """D17: nothing counts what leaves a guest."""
        if page.budget(self.request.manifest) is not None or self.stated(contract) is not None:
            raise self.stop("D17", BadBudget("the asset has a budget, and nothing counts what leaves a guest"))
        self.check("D17", True, "the asset has no budget")

    def sealed(self, secret: bytes, result: AttestationResult, info: bytes) -> bytes:  # noqa: ARG002 - a JWE binds no info
        """To the key that the evidence bound, and no other."""
        key = self.session.runtime.key
        assert result.affirming
        assert result.keyset_digest == key.digest
        return jwe.encrypt(key, secret)


def decide_guest(request: GuestRequest, *, owner: Owner, book: GuestBook, at: int) -> Release | Refusal:
    """Release an asset's key to a guest, or refuse: :func:`broker.decide` for whoever speaks the guests' protocol.

    Args:
        request: untrusted.
        owner, book, at: as of ``decide``.

    Returns:
        a release, whose ``encrypted_key`` is a JWE for the guest; the same again, uncounted, when the same guest asks again
        for the same asset; otherwise a refusal that names the first check that failed.
    """
    return decided(_GuestDecision(request, owner, book, at))
