"""The broker: ``decide()`` turns a request into a release or a refusal, and nothing else makes a release.

The request is bytes from a machine that nobody trusts. Seventeen numbered checks stand between it and a key; the first that
fails ends the decision, and everything after it is not established. Counting, charging and answering are one transaction of
the broker's book: a run is counted, and charged to the asset's budget, before its release exists, so that no crash and no
race gives a run or a budget twice.

See ``spec/release.md``; the numbers are the same there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import InitVar, dataclass, field, replace
from typing import Protocol

from . import wire
from .asset import AssetKey, verify_manifest
from .attest.appraisal import appraise
from .attest.appraisal_policy import AppraisalPolicy
from .attest.keyset import AttestationReport
from .attest.result import AttestationResult
from .budget.account import require_left, unit_of
from .budget.charge import Charge
from .budget.document import Budget
from .contract import Contract, Proposal, RunRequest
from .drawing import Revision, lacking
from .errors import (
    ApproverMissing,
    BadBudget,
    BadField,
    BookRestored,
    EnclaveNotNamed,
    KeysetOfAnotherRun,
    NonceRefused,
    NoRunLeft,
    NotAffirming,
    NotApproved,
    NotMyContract,
    NotPermitted,
    RunCancelled,
    RunTaken,
    SlotTaken,
    StrongroomError,
    Superseded,
    UnknownAsset,
    Withdrawn,
    WrongEpoch,
)
from .holding import Deal
from .job import cancelled
from .party import DecryptionKey, SigningKey
from .policy import explain
from .release import RELEASE_TYPE, Part, PartAsked, ReleaseRequest, ReleaseStatement, Slot, run_subject
from .threshold import MAX_SLOT, Enrolment
from .transcript import Steps, Transcript
from .trust import Trust
from .wire import Envelope

REFUSAL_TYPE = wire.media_type("refusal")
NONCE_SECONDS = 300

_MAKER = object()

STEPS = Steps(
    "D",
    [
        "the nonce is this broker's, unused and not expired",
        "the contract has exactly one valid signature of every party",
        "every party's keys are those that the owner pinned",
        "this broker is the owner's broker in the contract, or holds a share by the newest enrolment",
        "the contract is in force",
        "the asset is the contract's, and this broker holds its key",
        "the asset's own terms permit the contract's policy, and whom they name approved it",
        "a party of the contract asked for exactly this run",
        "the enclave's evidence is affirmed under the owner's policy",
        "the enclave's keyset was made for this contract and this run",
        "platform and measurement are among those that the contract names",
        "the owner approved exactly this contract",
        "the owner did not counter or supersede it",
        "no party withdrew",
        "the run is this enclave's alone",
        "a run is left",
        "the asset's budget covers what the run is charged",
    ],
)


@dataclass(frozen=True, slots=True)
class Release:
    """A key, encrypted to one attested keyset for one run. Made by :func:`decide` alone.

    Attributes:
        envelope: the signed :class:`ReleaseStatement`.
        encrypted_key: HPKE ciphertext for the keyset's release key.
        transcript: the numbered checks.
    """

    envelope: Envelope
    encrypted_key: bytes
    transcript: Transcript
    maker: InitVar[object]  # not a field, so that dataclasses.replace() cannot carry it over

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only decide() makes a Release")

    def answer(self) -> bytes:
        """What the enclave gets."""
        return wire.encode({"encrypted_key": wire.b64(self.encrypted_key), "release": self.envelope.to_json()})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A signed no.

    Attributes:
        envelope: the signed statement: check number and code, no detail.
        number: the check that failed (``"D9"``).
        code: its stable code.
        transcript: every check, with details for the owner alone.
    """

    envelope: Envelope
    number: str
    code: str
    transcript: Transcript

    def answer(self) -> bytes:
        """What the enclave gets: the owner's details stay with the owner."""
        return wire.encode({"refusal": self.envelope.to_json()})


@dataclass(frozen=True, slots=True)
class Held:
    """An asset whose key the broker holds: the owner's signed manifest and the key."""

    manifest: Envelope
    key: AssetKey


@dataclass(frozen=True, slots=True)
class HeldShare:
    """A share that the broker holds of an asset of somebody else's, or of its own owner's.

    Attributes:
        owner: the asset's owner.
        deal: the newest that the owner dealt; the share in it is encrypted to this broker.
        recalled: the owner recalled it: nothing more is given in this epoch.
    """

    owner: str
    deal: Deal
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What the owner, and others by signed word, have said of a contract, and what it has used.

    Attributes:
        approved: the owner approved exactly these bytes.
        ended_by: digest of the owner's counter-proposal or of what superseded it, else ``None``.
        withdrawn_by: parties that withdrew.
        runs: run id -> digest of the keyset that has it.
        granted: runs granted beyond the contract's limit.
        cancelled: run id -> parties of the contract that cancelled it.
    """

    approved: bool = False
    ended_by: str | None = None
    withdrawn_by: frozenset[str] = frozenset()
    runs: Mapping[str, str] = field(default_factory=dict)
    granted: int = 0
    cancelled: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """An earlier release, as the book kept it."""

    envelope: Envelope
    encrypted_key: bytes


@dataclass(frozen=True, slots=True)
class Charged:
    """A charge as the book keeps it: each (contract, run, asset) is charged once.

    Attributes:
        contract, run_id, manifest: whose.
        party: who asked for the run.
        at: when its release was decided, by the broker's clock, Unix seconds.
        charge: as the contract states it.
        settled: what is left of it since a receipt said what was used; ``None`` before that.
    """

    contract: str
    run_id: str
    manifest: str
    party: str
    at: int
    charge: Charge
    settled: Charge | None = None

    @property
    def stands(self) -> Charge:
        """What is charged now."""
        return self.charge if self.settled is None else self.settled


class Page(Protocol):
    """The book while one transaction is open: nobody else reads or writes until it ends."""

    def standing(self, contract: str, owner: str | None = None) -> Standing:
        """What is known of a contract now; of what an owner says by its signed word where ``owner`` names one."""

    def over(self, manifest: str) -> int:
        """Contracts on this asset that had begun then, Unix seconds, are over here: the book was put back from a backup,
        and does not know what it gave under them. 0: none is."""

    def share(self, manifest: str) -> HeldShare | None:
        """As :meth:`Book.share`."""

    def slots(self, contract: str, manifest: str) -> Mapping[int, str | None]:
        """The slots of a shared asset that were given in any epoch, and to which keyset; ``None``: to nobody, ever."""

    def earlier(self, slot: Slot) -> Kept | None:
        """The release given under this slot before."""

    def keep(self, slot: Slot, kept: Kept, at: int) -> None:
        """Count the run and keep its release, in the place of an earlier one; durable when the transaction ends."""

    def budget(self, manifest: str) -> Envelope | None:
        """The newest budget that names this asset, as its owner signed it.

        Raises BookRestored: it is from before the book was put back from a backup; charges may be forgotten.
        """

    def charged(self, manifests: Sequence[str]) -> Sequence[Charged]:
        """Every charge against these assets, under any contract, by anybody."""

    def charge(self, charged: Charged) -> None:
        """Charge once for each (contract, run, asset); durable when the transaction ends."""


class Book(Protocol):
    """A broker's memory."""

    def held(self, manifest: str) -> Held | None:
        """The asset with this manifest digest."""

    def revision(self, manifest: str) -> Envelope | None:
        """What the owner said last of a sealed source, as it signed it (``drawing.Revision``)."""

    def share(self, manifest: str) -> HeldShare | None:
        """The newest share that was dealt to this broker of the asset with this manifest digest."""

    def spend(self, nonce: bytes, at: int) -> bool:
        """Use up a nonce: ``True`` once for each that this broker gave and that has not expired."""

    def transaction(self) -> AbstractContextManager[Page]:
        """An exclusive, durable transaction; an exception inside rolls it back."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose broker it is.

    Attributes:
        name: the party's name.
        broker: the broker's own signing key.
        trust: the owner's trust file.
        policy: the owner's appraisal policy.
        shares: opens the shares that were dealt to this broker; ``None`` where it holds none.
    """

    name: str
    broker: SigningKey
    trust: Trust
    policy: AppraisalPolicy
    shares: DecryptionKey | None = None


class _Refused(Exception):
    pass


class Asked(Protocol):
    """What every request for a key says, whoever asks: an enclave of ours, or a guest (``guest.GuestRequest``)."""

    @property
    def contract(self) -> Envelope: ...
    @property
    def manifest(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def run(self) -> Envelope: ...
    @property
    def nonce(self) -> bytes: ...


class Decision:
    """One request on its way through the checks; a failed check raises. Each kind of request has its own."""

    def __init__(
        self,
        request: Asked,
        owner: Owner,
        book: Book,
        at: int,
        *,
        report: AttestationReport | None = None,
        steps: Steps = STEPS,
    ) -> None:
        self.request, self.owner, self.book, self.at, self.report = request, owner, book, at, report
        self.transcript = Transcript(steps)

    def check(self, number: str, passed: bool, detail: str = "", *, code: str = "") -> None:
        if not self.transcript.record(number, passed, detail, code=code):
            raise _Refused

    def stop(self, number: str, error: StrongroomError) -> _Refused:
        self.transcript.record(number, False, str(error), code=error.code)
        return _Refused()

    def contract(self) -> Contract:
        """D1 to D5."""
        at = self.at
        self.fresh()
        try:
            contract = Contract.verify(self.request.contract)
        except StrongroomError as error:
            raise self.stop("D2", error) from error
        self.check("D2", True, contract.digest)
        pinned = [p for p in contract.proposal.parties if self.answerable(contract.proposal, p.name)]
        try:
            self.owner.trust.check(pinned)
        except StrongroomError as error:
            raise self.stop("D3", error) from error
        self.check("D3", True, ", ".join(p.name for p in pinned))
        self.mine(contract.proposal)
        try:
            contract.require_in_force(at)
        except StrongroomError as error:
            raise self.stop("D5", error) from error
        self.check("D5", True, f"until {contract.proposal.not_after}")
        return contract

    def fresh(self) -> None:
        """D1."""
        self.check("D1", self.book.spend(self.request.nonce, self.at), code=NonceRefused.code)

    def answerable(self, _proposal: Proposal, _name: str) -> bool:
        """Whether the keys of a party are for this broker to know: all are."""
        return True

    def mine(self, proposal: Proposal) -> None:
        """D4."""
        owner = self.owner
        mine = [p for p in proposal.parties if p.name == owner.name and p.broker_key == owner.broker.public]
        self.check("D4", len(mine) == 1, owner.name, code=NotMyContract.code)

    def secret(self, proposal: Proposal) -> tuple[str, Envelope, bytes]:
        """Whose asset it is, its manifest, and what is released of it: its key. Raises StrongroomError."""
        ref, held = proposal.asset(self.request.manifest), self.book.held(self.request.manifest)
        if ref is None or ref.owner != self.owner.name or held is None:
            raise UnknownAsset("not in this contract, or not here")
        return self.owner.name, held.manifest, held.key.raw

    def asset(self, contract: Contract) -> bytes:
        """D6 and D7. What is released."""
        try:
            owner, envelope, secret = self.secret(contract.proposal)
            manifest = verify_manifest(envelope, contract.proposal.party(owner).signing_key).manifest
        except StrongroomError as error:
            raise self.stop("D6", error) from error
        self.check(
            "D6",
            manifest.digest == self.request.manifest and manifest.owner == owner,
            f"{self.role(contract.proposal)}: {manifest.name}",
            code=UnknownAsset.code,
        )
        wider = explain(manifest.terms, contract.proposal.policy)
        if not wider and (lacks := manifest.lacking(contract.approvals)):
            raise self.stop("D7", ApproverMissing("; ".join(lacks)))
        try:
            newest = self.book.revision(manifest.digest)
            key = contract.proposal.party(owner).signing_key
            drawing = manifest.drawing if newest is None else Revision.verify(newest, key).terms
        except StrongroomError as error:
            raise self.stop("D7", error) from error
        if newest is not None and drawing is None:  # whatever the contract says: not as a source, and not beside one
            wider += (f"{self.role(contract.proposal)}: its owner lets nobody draw from it any more",)
        wider += lacking(drawing, self.role(contract.proposal), contract.proposal.program.parameters)
        self.check("D7", not wider, "; ".join(wider), code=NotPermitted.code)
        return secret

    def role(self, proposal: Proposal) -> str:
        ref = proposal.asset(self.request.manifest)
        assert ref is not None  # D6
        return ref.role

    def asked(self, contract: Contract) -> None:
        """D8."""
        try:
            asked = RunRequest.verify(self.request.run, contract.proposal, self.at)
            if asked.run_id != self.request.run_id:
                raise BadField("the party asked for another run")
        except StrongroomError as error:
            raise self.stop("D8", error) from error
        self.check("D8", True, f"{asked.party} asked for run {asked.run_id}")

    def evidence(self, contract: Contract) -> AttestationResult:
        """D9 to D11."""
        result = self.appraised()
        problem = result.problem
        detail = self.seen(result) if problem is None else f"{problem.number} {problem.name}: {problem.detail}"
        self.check("D9", result.affirming, detail, code=(problem.code if problem else "") or NotAffirming.code)
        self.meant(contract)
        terms = contract.proposal.enclave
        self.check(
            "D11",
            result.platform in terms.platforms and result.measurement in terms.measurements,
            result.platform,
            code=EnclaveNotNamed.code,
        )
        return result

    def seen(self, result: AttestationResult) -> str:
        return result.label

    def appraised(self) -> AttestationResult:
        assert self.report is not None
        return appraise(
            self.report.evidence,
            policy=self.owner.policy,
            endorsements=self.report.endorsements,
            nonce=self.request.nonce,
            at=self.at,
            keyset=self.report.keyset,
        )

    def meant(self, contract: Contract) -> None:
        """D10."""
        assert self.report is not None
        subject, found = run_subject(contract.digest, self.request.run_id), self.report.keyset.subject
        self.check("D10", found == subject, found or "", code=KeysetOfAnotherRun.code)

    def settle(self, contract: Contract, secret: bytes, result: AttestationResult) -> Release:
        """D12 to D17 and the release, in one transaction. A lease is given anew each time, and counted once."""
        run_id, standing_contract = self.request.run_id, contract.proposal.standing
        self.compose(contract)
        with self.book.transaction() as page:
            standing = self.standing(page, contract)
            if contract.proposal.begun(page.over(self.request.manifest)):
                raise self.stop("D12", BookRestored("the contract is from before this broker was put back from a backup"))
            self.check("D12", standing.approved, code=NotApproved.code)
            self.check("D13", standing.ended_by is None, standing.ended_by or "", code=Superseded.code)
            if not standing.withdrawn_by:  # a cancel withdraws one run
                over = cancelled(contract.proposal, RunRequest.peek(self.request.run).party, run_id, standing.cancelled)
                self.check("D14", not over, "this run was cancelled" if over else "", code=RunCancelled.code)
            else:
                self.check("D14", False, ", ".join(sorted(standing.withdrawn_by)), code=Withdrawn.code)
            holder = standing.runs.get(run_id)
            self.check("D15", holder in (None, result.keyset_digest), run_id, code=RunTaken.code)
            allowed = contract.proposal.limits.runs + standing.granted
            part = self.left(contract, page, standing, allowed, result)
            slot = Slot(contract.digest, run_id, result.keyset_digest, self.request.manifest, part)
            self.spend(contract, page)
            kept = None if standing_contract else page.earlier(slot)
            if kept is None:
                kept = self.encrypt(slot, secret, result, self.lease(contract, result))
                page.keep(slot, kept, self.at)
        return Release(kept.envelope, kept.encrypted_key, self.transcript, _MAKER)

    def standing(self, page: Page, contract: Contract) -> Standing:
        return page.standing(contract.digest)

    def left(
        self, _contract: Contract, _page: Page, standing: Standing, allowed: int, _result: AttestationResult
    ) -> Part | None:
        """D16."""
        used = len(standing.runs)
        known = self.request.run_id in standing.runs
        self.check("D16", known or used < allowed, f"{used} of {allowed} used", code=NoRunLeft.code)
        return None

    def compose(self, contract: Contract) -> None:
        """Compose what D17 will ask for while nobody waits for the book: it is found again there, if nothing was charged
        in between."""
        if self.stated(contract) is None:
            return
        with suppress(StrongroomError):  # D17 says so
            with self.book.transaction() as page:
                budget, before = self.spending(contract, page)
            if budget is not None:
                require_left(budget, [c.stands for c in before], self.stated(contract), self.unit(contract))

    def stated(self, contract: Contract) -> Charge | None:
        return contract.proposal.charge(self.role(contract.proposal))

    def unit(self, contract: Contract) -> str:
        return unit_of(contract.proposal.program.parameters)

    def spending(self, contract: Contract, page: Page) -> tuple[Budget | None, Sequence[Charged]]:
        """The asset's budget and every charge against it; without a budget those against the asset alone.

        Raises StrongroomError: the book holds a budget that the owner did not sign, or of other assets.
        """
        envelope = page.budget(self.request.manifest)
        if envelope is None:
            return None, page.charged([self.request.manifest])
        budget = Budget.verify(envelope, self.owner.name, contract.proposal.party(self.owner.name).signing_key)
        if self.request.manifest not in budget.assets:
            raise BadBudget("the book answered with the budget of other assets")
        return budget, page.charged(budget.assets)

    def spend(self, contract: Contract, page: Page) -> None:
        """D17, and the charge. What a contract states is charged without a budget too: a later one finds it there."""
        try:
            budget, before = self.spending(contract, page)
            stated, mine = self.stated(contract), (contract.digest, self.request.run_id, self.request.manifest)
            charged = any((c.contract, c.run_id, c.manifest) == mine for c in before)
            if charged:
                detail = "this run is charged already"
            elif budget is None:
                detail = "the asset has no budget"
            else:
                detail = require_left(budget, [c.stands for c in before], stated, self.unit(contract))
        except StrongroomError as error:
            raise self.stop("D17", error) from error
        self.check("D17", True, detail)
        if stated is not None and not charged:
            page.charge(Charged(*mine, RunRequest.peek(self.request.run).party, self.at, stated))

    def lease(self, contract: Contract, result: AttestationResult) -> int | None:
        """The end of a lease: as the policy says, and no later than contract, room and what vouches for the enclave end."""
        proposal = contract.proposal
        if proposal.policy.serve is None:
            return None
        opened = RunRequest.peek(self.request.run).at
        ends = [self.at + proposal.policy.serve.lease_s, proposal.not_after - 1, opened + proposal.limits.seconds]
        return min(*ends, result.valid_until or 0)

    def encrypt(self, slot: Slot, secret: bytes, result: AttestationResult, until: int | None) -> Kept:
        """To the keyset that was attested, which an affirming result alone hands out."""
        broker = self.owner.broker
        draft = ReleaseStatement(
            contract=slot.contract,
            manifest=slot.manifest,
            keyset_digest=slot.keyset_digest,
            nonce=self.request.nonce.hex(),
            run_id=slot.run_id,
            broker=broker.public.keyid,
            at=self.at,
            encrypted_key="",
            policy=result.policy_digest,
            until=until,
            part=slot.part,
        )
        encrypted = self.sealed(secret, result, draft.info)
        statement = replace(draft, encrypted_key=wire.digest(encrypted))
        return Kept(broker.sign(RELEASE_TYPE, statement.encode()), encrypted)

    def sealed(self, secret: bytes, result: AttestationResult, info: bytes) -> bytes:
        return result.require().release_key.encrypt(secret, info=info)

    def refuse(self) -> Refusal:
        problem = self.transcript.first_problem
        assert problem is not None
        payload = wire.encode(
            {
                "at": self.at,
                "broker": self.owner.broker.public.keyid,
                "code": problem.code,
                "contract": self.request.contract.digest,
                "manifest": self.request.manifest,
                "nonce": self.request.nonce.hex(),
                "number": problem.number,
                "run_id": self.request.run_id,
            }
        )
        return Refusal(self.owner.broker.sign(REFUSAL_TYPE, payload), problem.number, problem.code, self.transcript)


class _ShareDecision(Decision):
    """A request for a share of a key that its owner shared over several brokers (``spec/threshold.md``).

    The broker appraises by its own policy; whose contract it is, and that it was approved, it knows from the asset's owner.
    """

    def __init__(self, request: ReleaseRequest, asked: PartAsked, owner: Owner, book: Book, at: int) -> None:
        super().__init__(request, owner, book, at, report=request.report)
        self.asked_for = asked
        self.held = book.share(request.manifest)
        self.enrolment: Enrolment | None = None

    def answerable(self, proposal: Proposal, name: str) -> bool:
        """The asset's owner, whose word stands for the others: it pinned them, and approves the contract that names them."""
        ref = proposal.asset(self.request.manifest)
        return ref is not None and name == ref.owner

    def mine(self, proposal: Proposal) -> None:
        """D4."""
        held, broker = self.held, self.owner.broker.public
        ref = proposal.asset(self.request.manifest)
        if held is None or ref is None or ref.owner != held.owner:
            raise self.stop("D4", NotMyContract("nobody dealt this broker a share of this owner's asset"))
        try:
            enrolment = Enrolment.verify(
                held.deal.enrolment,
                manifest=self.request.manifest,
                owner=held.owner,
                key=proposal.party(held.owner).signing_key,
            )
        except StrongroomError as error:
            raise self.stop("D4", error) from error
        if enrolment.index(broker) != held.deal.index:
            raise self.stop("D4", NotMyContract("the enrolment names another broker for this share"))
        if held.recalled or self.asked_for.enrolment != enrolment.digest:
            raise self.stop("D4", WrongEpoch(f"epoch {enrolment.epoch} is the newest here, or was recalled"))
        self.enrolment = enrolment
        self.check("D4", True, f"share {held.deal.index} of epoch {enrolment.epoch}")

    def secret(self, _proposal: Proposal) -> tuple[str, Envelope, bytes]:
        """Whose asset it is, its manifest, and what is released of it: this broker's share, whole as it was dealt."""
        held, key = self.held, self.owner.shares
        assert held is not None  # D4
        assert self.enrolment is not None
        if key is None:
            raise UnknownAsset("the key that opens shares is not here")
        share = held.deal.open(self.enrolment, broker=self.owner.broker.public, key=key)
        return held.owner, held.deal.manifest, share.encode()

    def standing(self, page: Page, contract: Contract) -> Standing:
        assert self.held is not None
        return page.standing(contract.digest, self.held.owner)

    def left(self, contract: Contract, page: Page, _standing: Standing, allowed: int, result: AttestationResult) -> Part:
        """D16: the slot is one of the contract's, and no other keyset was ever given it."""
        assert self.held is not None
        assert self.enrolment is not None
        now = page.share(self.request.manifest)
        if now is None or now.recalled or now.deal.enrolment != self.held.deal.enrolment:
            raise self.stop("D16", WrongEpoch("the share was recalled meanwhile"))
        taken, me, asked = page.slots(contract.digest, self.request.manifest), result.keyset_digest, self.asked_for
        top = min(allowed, MAX_SLOT)
        slot = asked.slot
        if slot is None:
            own = (k for k in sorted(taken) if taken[k] == me and k <= top and k not in asked.but)
            free = (k for k in range(1, top + 1) if k not in taken and k not in asked.but)
            slot = next(own, None) or next(free, None)
        if slot is None or slot > top:
            raise self.stop("D16", NoRunLeft(f"{len(taken)} of {allowed} slots are given"))
        self.check("D16", taken.get(slot, me) == me, f"slot {slot} of {allowed}", code=SlotTaken.code)
        return Part(self.enrolment.epoch, self.held.deal.index, slot)

    def compose(self, _contract: Contract) -> None:
        """Nothing: see D17."""

    def spend(self, _contract: Contract, page: Page) -> None:
        """D17: brokers that each count alone do not hold a budget."""
        if page.budget(self.request.manifest) is not None:
            raise self.stop("D17", BadBudget("the asset has a budget, which is not counted across brokers"))
        self.check("D17", True, "the asset has no budget")


def decide(request: ReleaseRequest, *, owner: Owner, book: Book, at: int) -> Release | Refusal:
    """Release an asset's key, or this broker's share of it, to an enclave, or refuse.

    Args:
        request: untrusted.
        owner: whose broker decides, with its own trust file and appraisal policy.
        book: the broker's memory.
        at: the broker's clock, Unix seconds.

    Returns:
        a release when all seventeen checks passed; the same release again, uncounted, when the same keyset asks again for
        the same run; otherwise a refusal that names the first check that failed.
    """
    asked = request.share
    if asked is None:
        return decided(Decision(request, owner, book, at, report=request.report))
    return decided(_ShareDecision(request, asked, owner, book, at))


def decided(decision: Decision) -> Release | Refusal:
    """Every check of one decision, in order: what :func:`decide` does, and ``guest.decide_guest`` with a guest's."""
    try:
        contract = decision.contract()
        secret = decision.asset(contract)
        decision.asked(contract)
        result = decision.evidence(contract)
        return decision.settle(contract, secret, result)
    except _Refused:
        return decision.refuse()
