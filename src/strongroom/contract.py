"""Proposals, approvals, contracts, and their life cycle.

A *proposal* says everything about one computation. Each party named in it signs exactly its bytes. A proposal with exactly
one valid signature of every party, sorted, and no others, is a *contract*; only :meth:`Contract.verify` makes one. Its
identity is the digest of the payload, never of the envelope.

See ``spec/contract.md``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass
from enum import StrEnum
from typing import Any, Protocol

from . import wire
from .attest.evidence import Measurement
from .budget.charge import Charge
from .errors import (
    BadField,
    BadProposal,
    BadSignature,
    ChargesOnStanding,
    Expired,
    NotAParty,
    NotPermitted,
    NotYetValid,
    SignatureDoubled,
    SignatureFromStranger,
    SignatureInvalid,
    SignatureMissing,
    WrongState,
)
from .party import Party, PartyKeys, SigningKey
from .policy import GUEST, AnyParty, OutputRule, Policy, explain
from .wire import JSON, Envelope, Fields, Signature

PROPOSAL_TYPE = wire.media_type("proposal")
WITHDRAWAL_TYPE = wire.media_type("withdrawal")
GRANT_TYPE = wire.media_type("grant")
RUN_TYPE = wire.media_type("run")
RUN_REQUEST_SECONDS = 600
MAX_QUEUED_SECONDS = 7 * 24 * 3600  # how long a run may be asked for ahead of it

MAX_RUNS = 1_000_000
MAX_SECONDS = 7 * 24 * 3600
MAX_OUTPUT_BYTES = 255 << 20  # together; an enclave holds them while it applies their rules, and an exchange takes each
CODE = "code"  # the program that runs submitted code (code.PROGRAM): who verifies receipts loads none of that
SANDBOXES = ("isolated", "process")
WALLS = (
    "cgroup-cpu",
    "cgroup-memory",
    "cgroup-processes",
    "landlock",
    "landlock-network",
    "landlock-scope",
    "namespaces",
    "seccomp",
)
"""What can stand between a program and its surroundings; see ``spec/sandbox.md``."""

_CURRENCY = re.compile(r"[A-Z]{3}\Z")  # ISO 4217
# What a screen obeys instead of showing: control characters, invisible ones, and those that turn the direction of writing.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

_MAKER = object()


@dataclass(frozen=True, slots=True)
class ProgramRef:
    """Which program runs, and with which parameters.

    Attributes:
        name: a standard program's name.
        digest: the digest of its source, compared by the enclave when it starts.
        use: the use of data (a policy term) that the program makes.
        parameters: the program's own parameters, canonical JSON.
    """

    name: str
    digest: str
    use: str
    parameters: Mapping[str, JSON]

    def to_json(self) -> dict[str, JSON]:
        return {"digest": self.digest, "name": self.name, "parameters": dict(self.parameters), "use": self.use}

    @classmethod
    def from_json(cls, value: object) -> ProgramRef:
        f = Fields(value, "program")
        parameters = f.any("parameters")
        if not isinstance(parameters, dict):
            raise BadField("program.parameters is not an object")
        found = cls(f.name("name"), f.digest("digest"), f.name("use"), parameters)
        f.end()
        return found


def guest_program(measurements: Iterable[Measurement]) -> ProgramRef:
    """What a contract for guests names as its program: the guest as it is measured, and nothing else."""
    return ProgramRef(GUEST, wire.digest(wire.encode([m.to_json() for m in measurements])), GUEST, {})


@dataclass(frozen=True, slots=True)
class AssetRef:
    """An asset in its role: the owner's name and the digest of the manifest."""

    role: str
    owner: str
    manifest: str

    def to_json(self) -> dict[str, JSON]:
        return {"manifest": self.manifest, "owner": self.owner, "role": self.role}

    @classmethod
    def from_json(cls, value: object) -> AssetRef:
        f = Fields(value, "asset")
        found = cls(f.name("role"), f.name("owner"), f.digest("manifest"))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Output:
    """A named result, its rule, its recipients.

    Attributes:
        name: as the program calls it.
        kind: one of the policy's output kinds.
        rule: recipients (party names, never a keyword), size cap in bytes, smallest group, decimal places; schema and
            reviewers where it has them.
    """

    name: str
    kind: str
    rule: OutputRule

    @property
    def recipients(self) -> tuple[str, ...]:
        if isinstance(self.rule.recipients, AnyParty):
            raise BadProposal(f"output {self.name} does not name its recipients")
        return tuple(sorted(self.rule.recipients))

    def to_json(self) -> dict[str, JSON]:
        return {"kind": self.kind, "name": self.name, "rule": self.rule.to_json()}

    @classmethod
    def from_json(cls, value: object) -> Output:
        f = Fields(value, "output")
        found = cls(f.name("name"), f.name("kind"), OutputRule.from_json(f.any("rule")))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class EnclaveTerms:
    """Which enclaves qualify.

    Attributes:
        platforms: names of accepted platforms; never empty.
        measurements: accepted reference measurements, each of one of those platforms, sorted by their bytes; never empty.
        sandbox: ``isolated``, or ``process``, which protects nothing and is allowed on ``simulated`` alone.
        walls: those of ``WALLS`` without which nothing may run, sorted. Empty: those of the sandbox are enough.
    """

    platforms: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    sandbox: str
    walls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {
            "measurements": [m.to_json() for m in self.measurements],
            "platforms": list(self.platforms),
            "sandbox": self.sandbox,
        }
        return found | ({"walls": list(self.walls)} if self.walls else {})

    def missing(self, walls: Collection[str]) -> tuple[str, ...]:
        """The walls that must stand and are not among these."""
        return tuple(name for name in self.walls if name not in walls)

    @classmethod
    def from_json(cls, value: object) -> EnclaveTerms:
        f = Fields(value, "enclave")
        found = cls(
            platforms=f.names("platforms", low=1, high=8),
            measurements=f.items("measurements", Measurement.from_json, low=1, high=64),
            sandbox=f.text("sandbox", choices=SANDBOXES),
            walls=f.names("walls", low=1, high=len(WALLS)) if f.has("walls") else (),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use: runs, wall seconds a run, bytes of memory above the idle program."""

    runs: int
    seconds: int
    memory_bytes: int

    def to_json(self) -> dict[str, JSON]:
        return {"memory_bytes": self.memory_bytes, "runs": self.runs, "seconds": self.seconds}

    @classmethod
    def from_json(cls, value: object) -> Limits:
        f = Fields(value, "limits")
        found = cls(
            runs=f.integer("runs", low=1, high=MAX_RUNS),
            seconds=f.integer("seconds", low=1, high=MAX_SECONDS),
            memory_bytes=f.integer("memory_bytes", low=1 << 20, high=1 << 45),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Payment:
    """What one completed run costs: ``amount`` hundredths of the currency's unit, whichever it is, from payer to payee."""

    payer: str
    payee: str
    amount: int
    currency: str

    def to_json(self) -> dict[str, JSON]:
        return {"amount": self.amount, "currency": self.currency, "payee": self.payee, "payer": self.payer}

    @classmethod
    def from_json(cls, value: object) -> Payment:
        f = Fields(value, "payment")
        found = cls(f.name("payer"), f.name("payee"), f.integer("amount", low=1), f.text("currency", max_chars=3))
        f.end()
        if not _CURRENCY.match(found.currency):
            raise BadProposal("payment.currency is not an ISO 4217 code")
        return found


def _sorted_and_distinct(what: str, values: list[Any]) -> None:
    if values != sorted(set(values)):
        raise BadProposal(f"{what} are not sorted and distinct")


@dataclass(frozen=True, slots=True)
class Proposal:
    """One computation, as somebody proposes it. **Untrusted**: nobody's signature is implied.

    Attributes:
        title: one line for people.
        nonce: 16 fresh bytes in hex, so that two equal proposals are still two.
        proposer: the party that wrote it.
        supersedes: the digest of the proposal that this one counters, or ``None``.
        created_at, not_before, not_after: Unix seconds; in force while ``not_before <= t < not_after``.
        parties: full cards, sorted by name.
        program, assets, outputs, enclave, policy, limits, payments: see their types.
        charges: what a run spends of the budgets of assets (``spec/budget.md``), sorted by role.
        trial: digest of what the proposer says that the code did on mocks (``spec/trial.md``), or ``None``.

    Raises:
        BadProposal: a rule of ``spec/contract.md`` is broken.
        ChargesOnStanding: it keeps a room open, and states charges.
        NotPermitted: an output or the program's use is not allowed by the proposal's own policy.
        EmptyPolicy: the policy allows nothing.
    """

    title: str
    nonce: str
    proposer: str
    supersedes: str | None
    created_at: int
    not_before: int
    not_after: int
    parties: tuple[Party, ...]
    program: ProgramRef
    assets: tuple[AssetRef, ...]
    outputs: tuple[Output, ...]
    enclave: EnclaveTerms
    policy: Policy
    limits: Limits
    payments: tuple[Payment, ...] = ()
    charges: tuple[Charge, ...] = ()
    trial: str | None = None

    def __post_init__(self) -> None:
        self._check_parties()
        self._check_enclave()
        if not self.assets:
            raise BadProposal("a proposal names at least one asset")
        if self.for_guests:
            self._check_guests()
        elif self.standing == bool(self.outputs):
            raise BadProposal(
                "what is served leaves as answers to requests, not as an output"
                if self.outputs
                else "a proposal names at least one output"
            )
        if self.standing and self.policy.observed is not None:
            raise BadProposal("what is served is answered at once; its times and failures cannot be told less finely")
        if not self.not_before < self.not_after:
            raise BadProposal("not_before is not earlier than not_after")
        self._check_lists()
        self._check_charges()
        if self.trial is not None and self.program.name != CODE:
            raise BadProposal("a trial is of submitted code, and the proposal runs none")
        self.policy.require()
        if self.program.use not in self.policy.uses:
            raise NotPermitted(f"the policy does not allow the use {self.program.use!r} that the program makes")
        self._check_outputs()

    def _check_outputs(self) -> None:
        for output in self.outputs:
            if not output.recipients:
                raise BadProposal(f"output {output.name} does not name its recipients")
            if output.rule.any_schema:
                raise BadProposal(f"output {output.name} does not name its schema")
            wider = explain(self.policy, Policy(outputs={output.kind: output.rule}))
            if wider:
                raise NotPermitted(f"the policy does not allow output {output.name!r}: {wider[0]}")
        if sum(output.rule.max_bytes for output in self.outputs) > MAX_OUTPUT_BYTES:
            raise BadProposal(f"the outputs may have more than {MAX_OUTPUT_BYTES} bytes together")

    def _check_parties(self) -> None:
        names = [p.name for p in self.parties]
        if not names or names != sorted(set(names)):
            raise BadProposal("parties are not sorted and distinct, or there are none")
        keys = [k.raw for p in self.parties for k in (p.signing_key, p.broker_key, p.encryption_key)]
        if len(set(keys)) != len(keys):
            raise BadProposal("two parties or roles share a key: one would sign, or read, for the other")
        named = {self.proposer, *(a.owner for a in self.assets), *(r for o in self.outputs for r in o.recipients)}
        named |= {name for p in self.payments for name in (p.payer, p.payee)}
        named |= {name for o in self.outputs for name in o.rule.reviewers}
        strangers = named - set(names)
        if strangers:
            raise BadProposal(f"{min(strangers)!r} has a role but is no party")
        if any(p.payer == p.payee for p in self.payments):
            raise BadProposal("a payment goes from a party to itself")

    def _check_lists(self) -> None:
        """One order of each list and nothing twice, so that two proposals that say the same are the same."""
        _sorted_and_distinct("asset roles", [a.role for a in self.assets])
        _sorted_and_distinct("outputs", [o.name for o in self.outputs])
        _sorted_and_distinct("measurements", [m.encode() for m in self.enclave.measurements])
        _sorted_and_distinct("payments", [(p.payer, p.payee, p.currency) for p in self.payments])
        if len({a.manifest for a in self.assets}) != len(self.assets):
            raise BadProposal("an asset has two roles, but its key is released once for a run")

    def _check_charges(self) -> None:
        """No more can leave than is charged, which everybody can see before anything runs."""
        roles = [c.role for c in self.charges]
        _sorted_and_distinct("charges", roles)
        if set(roles) - {a.role for a in self.assets}:
            raise BadProposal("a charge is of no asset's role")
        if self.charges and self.standing:
            raise ChargesOnStanding("a standing contract states charges")
        if any(c.events for c in self.charges) and any(o.kind == "log" for o in self.outputs):
            raise BadProposal("a log beside charged events: what a program prints has no noise")
        most = sum(o.rule.max_bytes for o in self.outputs)
        if any(c.counts.bytes_out < most for c in self.charges):
            raise BadProposal(f"a charge's bytes_out is less than the {most} bytes that the outputs may have together")

    def _check_guests(self) -> None:
        """Nothing that a guest would not be held to may stand in its contract: others would read it as kept."""
        policy, enclave = self.policy, self.enclave
        if self.program != guest_program(enclave.measurements) or policy.uses != frozenset({GUEST}):
            raise BadProposal(
                "what runs in a guest is its image: the program is the digest of the measurements, and no more"
            )
        if self.outputs or policy.outputs or policy.serve or policy.observed or self.charges or self.payments:
            raise BadProposal(
                "a guest is held to no rule of outputs, requests, times, charges or payments; it can have none"
            )
        if enclave.walls or enclave.sandbox != "isolated":
            raise BadProposal("around a guest there is no sandbox of ours: it is called isolated, and has no walls")

    def _check_enclave(self) -> None:
        if not self.enclave.platforms or not self.enclave.measurements:
            raise BadProposal("a proposal names at least one platform and one measurement")
        if {m.platform for m in self.enclave.measurements} != set(self.enclave.platforms):
            raise BadProposal("platforms and measurements do not name the same platforms")
        if self.enclave.sandbox == "process" and self.enclave.platforms != ("simulated",):
            raise BadProposal("sandbox: process is allowed on the simulated platform alone")
        if self.enclave.walls != tuple(sorted(set(self.enclave.walls) & set(WALLS))):
            raise BadProposal(f"walls are none but these, in this order: {', '.join(WALLS)}")
        if self.enclave.walls and self.enclave.sandbox == "process":
            raise BadProposal("sandbox: process has no walls to ask for")

    @property
    def for_guests(self) -> bool:
        """Whether its keys are for guests that speak another protocol, and for no enclave of ours (``spec/rcar.md``)."""
        return GUEST in (self.program.name, self.program.use) or GUEST in self.policy.uses

    @property
    def standing(self) -> bool:
        """Whether it keeps a room open for many requests. Its releases are leases (``spec/release.md``)."""
        return self.policy.serve is not None

    def begun(self, at: int) -> bool:
        """Whether anything may have been released or said under it at ``at``, Unix seconds."""
        return min(self.created_at, self.not_before) <= at

    def party(self, name: str) -> Party:
        """Raises NotAParty."""
        for party in self.parties:
            if party.name == name:
                return party
        raise NotAParty(f"{name!r} is not a party to {self.title!r}")

    def approvals(self, signed: Iterable[str]) -> Mapping[str, str]:
        """The key ids of signing keys, by party, of the approvals that count where an asset's terms ask for some.

        Not the proposer's: nobody reviews what they themselves wrote.

        Args:
            signed: the parties that validly signed, as :meth:`open` says.
        """
        return {name: self.party(name).signing_key.keyid for name in signed if name != self.proposer}

    def asset(self, manifest: str) -> AssetRef | None:
        """The asset with this manifest digest."""
        return next((a for a in self.assets if a.manifest == manifest), None)

    def charge(self, role: str) -> Charge | None:
        """What a run spends of the budget of the asset in this role."""
        return next((c for c in self.charges if c.role == role), None)

    def to_json(self) -> dict[str, JSON]:
        charges: dict[str, JSON] = {"charges": [c.to_json() for c in self.charges]} if self.charges else {}
        trial: dict[str, JSON] = {} if self.trial is None else {"trial": self.trial}
        return {
            **charges,
            **trial,
            "assets": [a.to_json() for a in self.assets],
            "created_at": self.created_at,
            "enclave": self.enclave.to_json(),
            "limits": self.limits.to_json(),
            "nonce": self.nonce,
            "not_after": self.not_after,
            "not_before": self.not_before,
            "outputs": [o.to_json() for o in self.outputs],
            "parties": [p.to_json() for p in self.parties],
            "payments": [p.to_json() for p in self.payments],
            "policy": self.policy.to_json(),
            "program": self.program.to_json(),
            "proposer": self.proposer,
            "supersedes": self.supersedes,
            "title": self.title,
        }

    @classmethod
    def from_json(cls, value: object) -> Proposal:
        """Raises WireError, ContractError, PolicyError and their leaves."""
        f = Fields(value, "proposal")
        found = cls(
            title=f.text("title", max_chars=200),
            nonce=f.hex("nonce", size=16).hex(),
            proposer=f.name("proposer"),
            supersedes=f.optional("supersedes", lambda v: Fields({"supersedes": v}, "proposal").digest("supersedes")),
            created_at=f.integer("created_at"),
            not_before=f.integer("not_before"),
            not_after=f.integer("not_after"),
            parties=f.items("parties", Party.from_json, low=1, high=64),
            program=ProgramRef.from_json(f.any("program")),
            assets=f.items("assets", AssetRef.from_json, low=1, high=64),
            outputs=f.items("outputs", Output.from_json, high=64),
            enclave=EnclaveTerms.from_json(f.any("enclave")),
            policy=Policy.from_json(f.any("policy")),
            limits=Limits.from_json(f.any("limits")),
            payments=f.items("payments", Payment.from_json, high=64),
            # absent where there are none, so that proposals without them stay as they were
            charges=f.items("charges", Charge.from_json, low=1, high=64) if f.has("charges") else (),
            trial=f.digest("trial") if f.has("trial") else None,
        )
        f.end()
        if _UNSHOWN.search(found.title):
            raise BadProposal("the title holds characters that are not shown as they are")
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Proposal:
        """Parse the exact bytes; ``parse(b).encode() == b``. Raises as :meth:`from_json`."""
        value = wire.decode(data)
        found = cls.from_json(value)
        if found.to_json() != value:  # a policy that is not in normal form parses to another document
            raise BadProposal("the proposal is not in normal form")
        return found

    @property
    def digest(self) -> str:
        return wire.digest(self.encode())

    def sign(self, keys: PartyKeys) -> Signature:
        """This party's approval: a signature over exactly these bytes. Raises NotAParty."""
        if self.party(keys.name).signing_key != keys.signing.public:
            raise NotAParty(f"the keys at hand are not those of {keys.name!r} in this proposal")
        return keys.signing.signature(PROPOSAL_TYPE, self.encode())

    def signer(self, signature: Signature, payload: bytes) -> str:
        """The name of the party that made a signature.

        Args:
            signature: untrusted.
            payload: this proposal's bytes.

        Raises:
            SignatureFromStranger: by a key of no party.
            SignatureInvalid: by a party's key id, but not of these bytes (a replayed approval, an approval of other bytes).
        """
        for party in self.parties:
            if party.signing_key.keyid == signature.keyid:
                try:
                    party.signing_key.verify_bytes(signature.sig, wire.pae(PROPOSAL_TYPE, payload))
                except BadSignature as error:
                    raise SignatureInvalid(f"the approval of {party.name!r} is not of these bytes") from error
                return party.name
        raise SignatureFromStranger("a signature is by no party's key")

    def envelope(self, signatures: Iterable[Signature]) -> Envelope:
        """The proposal with these signatures, sorted by key id. Nothing is checked."""
        return Envelope(PROPOSAL_TYPE, self.encode(), tuple(sorted(signatures, key=lambda s: s.keyid)))

    @classmethod
    def open(cls, envelope: Envelope) -> tuple[Proposal, frozenset[str]]:
        """A proposal and who has validly signed it so far.

        Raises:
            SignatureDoubled, SignatureFromStranger, SignatureInvalid; and as :meth:`parse`.
        """
        payload = envelope.expect(PROPOSAL_TYPE)
        proposal = cls.parse(payload)
        keyids = [s.keyid for s in envelope.signatures]
        if keyids != sorted(keyids) or len(set(keyids)) != len(keyids):
            raise SignatureDoubled("the signatures are not sorted and distinct")
        return proposal, frozenset(proposal.signer(s, payload) for s in envelope.signatures)


@dataclass(frozen=True, slots=True)
class Contract:
    """A proposal that every party named has signed. Made by :meth:`verify` alone.

    Whether these are the *right* parties is another question: see ``Trust.check``.
    """

    proposal: Proposal
    envelope: Envelope
    maker: InitVar[object]  # not a field, so that dataclasses.replace() cannot carry it over

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only Contract.verify() makes a Contract")

    @classmethod
    def verify(cls, envelope: Envelope) -> Contract:
        """Turn a completely signed proposal into a contract.

        Args:
            envelope: untrusted.

        Raises:
            SignatureMissing, SignatureDoubled, SignatureFromStranger, SignatureInvalid; and as :meth:`Proposal.parse`.
        """
        proposal, signed = Proposal.open(envelope)
        missing = {p.name for p in proposal.parties} - signed
        if missing:
            raise SignatureMissing(f"the approval of {', '.join(sorted(missing))} is missing")
        return cls(proposal, envelope, _MAKER)

    @property
    def approvals(self) -> Mapping[str, str]:
        """Whose approvals count where an asset's terms ask for some; see :meth:`Proposal.approvals`."""
        return self.proposal.approvals(p.name for p in self.proposal.parties)

    @property
    def digest(self) -> str:
        """The contract's identity: the digest of the proposal's bytes."""
        return self.envelope.digest

    def require_in_force(self, at: int) -> None:
        """Raises Expired, NotYetValid. ``at``: Unix seconds."""
        if at >= self.proposal.not_after:
            raise Expired("the contract's not_after has passed")
        if at < self.proposal.not_before:
            raise NotYetValid("the contract's not_before has not come")


def _signed_by_party(envelope: Envelope, payload_type: str, proposal: Proposal, name: str) -> None:
    proposal.party(name).signing_key.verify(envelope, payload_type)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A party's word that nothing more is to be released under a proposal or contract.

    Attributes:
        contract: the proposal's digest.
        party: who withdraws.
        at: Unix seconds, as the party says.
        reason: one line for people, may be empty.
    """

    contract: str
    party: str
    at: int
    reason: str

    def encode(self) -> bytes:
        return wire.encode({"at": self.at, "contract": self.contract, "party": self.party, "reason": self.reason})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(WITHDRAWAL_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal) -> Withdrawal:
        """Raises NotAParty, BadSignature, BadField (another contract's), WireError."""
        f = Fields(wire.decode(envelope.expect(WITHDRAWAL_TYPE), max_bytes=4096), "withdrawal")
        found = cls(f.digest("contract"), f.name("party"), f.integer("at"), f.text("reason", max_chars=400))
        f.end()
        _signed_by_party(envelope, WITHDRAWAL_TYPE, proposal, found.party)
        if found.contract != proposal.digest:
            raise BadField("withdrawal.contract is another contract")
        return found


@dataclass(frozen=True, slots=True)
class Grant:
    """An owner's word that its broker may give keys for ``runs`` more runs than the contract's limit.

    Attributes:
        nonce: 16 fresh bytes in hex; the same grant counts once.
    """

    contract: str
    party: str
    runs: int
    nonce: str

    def encode(self) -> bytes:
        return wire.encode({"contract": self.contract, "nonce": self.nonce, "party": self.party, "runs": self.runs})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(GRANT_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal) -> Grant:
        """Raises NotAParty, BadSignature, BadField (another contract's), WireError."""
        f = Fields(wire.decode(envelope.expect(GRANT_TYPE), max_bytes=4096), "grant")
        found = cls(
            f.digest("contract"), f.name("party"), f.integer("runs", low=1, high=MAX_RUNS), f.hex("nonce", size=16).hex()
        )
        f.end()
        _signed_by_party(envelope, GRANT_TYPE, proposal, found.party)
        if found.contract != proposal.digest:
            raise BadField("grant.contract is another contract")
        return found


class PartyRequest(Protocol):
    """What a party asks of an enclave under its contract."""

    @property
    def contract(self) -> str: ...

    @property
    def party(self) -> str: ...

    @property
    def at(self) -> int: ...


def require_asked(
    envelope: Envelope,
    payload_type: str,
    proposal: Proposal,
    said: PartyRequest,
    at: int,
    *,
    seconds: int,
    lasts: int | None = None,
) -> None:
    """Require that a party of this contract asked for it, now.

    Args:
        said: what the envelope holds.
        at: Unix seconds.
        seconds: by how much clocks may differ, and how long a request is good for where ``lasts`` does not say so.

    Raises:
        NotAParty, BadSignature. BadField: it is of another contract, or not of now.
    """
    _signed_by_party(envelope, payload_type, proposal, said.party)
    if said.contract != proposal.digest:
        raise BadField("request.contract is another contract")
    if not -seconds <= at - said.at <= (seconds if lasts is None else lasts):
        raise BadField("request.at is not now", hint="Compare the two clocks.")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A party's word to an enclave that it should run a contract now.

    Attributes:
        run_id: 16 fresh bytes in hex.
        at: Unix seconds, as the party says; the enclave refuses what is older than :data:`RUN_REQUEST_SECONDS`.
        until: of a run that may wait in a queue the last second at which it may begin, Unix: whoever has the request decides
            when before that. ``None``: now.
    """

    contract: str
    party: str
    run_id: str
    at: int
    until: int | None = None

    def encode(self) -> bytes:
        until: dict[str, JSON] = {} if self.until is None else {"until": self.until}
        return wire.encode({**until, "at": self.at, "contract": self.contract, "party": self.party, "run_id": self.run_id})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(RUN_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> RunRequest:
        """What the request says, **unverified**: to find the contract that says who may ask."""
        f = Fields(wire.decode(envelope.expect(RUN_TYPE), max_bytes=4096), "run")
        found = cls(
            f.digest("contract"),
            f.name("party"),
            f.hex("run_id", size=16).hex(),
            at := f.integer("at"),
            f.integer("until", low=at, high=at + MAX_QUEUED_SECONDS) if f.has("until") else None,
        )
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal, at: int) -> RunRequest:
        """Raises NotAParty, BadSignature, BadField (another contract's, or too old), WireError.

        A request is good for 600 seconds, or until it says; under a standing contract for as long as a room may be open.
        """
        found = cls.peek(envelope)
        # a room that stays open renews its leases under the request that opened it
        lasts = max(RUN_REQUEST_SECONDS, proposal.limits.seconds) if proposal.standing else RUN_REQUEST_SECONDS
        if found.until is not None:
            if proposal.standing:
                raise BadField("request.until is of a room, which opens now")
            lasts = found.until - found.at
        require_asked(envelope, RUN_TYPE, proposal, found, at, seconds=RUN_REQUEST_SECONDS, lasts=lasts)
        return found


class State(StrEnum):
    """Where a proposal stands."""

    PROPOSED = "proposed"
    COUNTERED = "countered"
    APPROVED = "approved"
    ACTIVE = "active"
    SPENT = "spent"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class History:
    """What is known to have happened to a proposal.

    Attributes:
        approved_by: parties with a valid signature.
        countered_by: digest of a signed proposal that supersedes it, or ``None``.
        withdrawn_by: parties that withdrew.
        runs: run ids that have been used.
        granted: runs granted beyond the limit.
    """

    approved_by: frozenset[str] = frozenset()
    countered_by: str | None = None
    withdrawn_by: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    granted: int = 0


def state(proposal: Proposal, history: History, at: int) -> State:
    """The state of a proposal at a time: the first that holds, in the order of the code.

    A withdrawal outlives everything; a counter ends only what was not yet complete. ``at``: Unix seconds.
    """
    complete = history.approved_by >= {p.name for p in proposal.parties}
    if history.withdrawn_by:
        return State.WITHDRAWN
    if history.countered_by is not None and not complete:
        return State.COUNTERED
    if len(history.runs) >= proposal.limits.runs + history.granted:
        return State.SPENT
    if at >= proposal.not_after:
        return State.EXPIRED
    if not complete:
        return State.PROPOSED
    return State.ACTIVE if history.runs else State.APPROVED


_ALLOWED: Mapping[str, frozenset[State]] = {
    "approve": frozenset({State.PROPOSED}),
    "counter": frozenset({State.PROPOSED}),
    # also of what was countered (its approvals still stand) and of what is spent (an owner may grant another run)
    "withdraw": frozenset({State.PROPOSED, State.COUNTERED, State.APPROVED, State.ACTIVE, State.SPENT}),
    "run": frozenset({State.APPROVED, State.ACTIVE}),
    "grant": frozenset({State.APPROVED, State.ACTIVE, State.SPENT}),
}


def require(verb: str, current: State) -> None:
    """Refuse a verb that the state does not allow. Raises WrongState."""
    if current not in _ALLOWED[verb]:
        raise WrongState(f"cannot {verb} what is {current.value}")


def counters(new: Proposal, old: Proposal) -> None:
    """Check that ``new`` is a counter-proposal to ``old``.

    Raises:
        BadProposal: it names another, or its proposer or parties are not those of the old one.
    """
    if new.supersedes != old.digest:
        raise BadProposal("the counter-proposal names another proposal")
    if {p.name: p.fingerprint for p in new.parties} != {p.name: p.fingerprint for p in old.parties}:
        raise BadProposal("a counter-proposal keeps the parties and their keys")


def parameters_of(value: Any) -> Mapping[str, JSON]:
    """A program's parameters, checked to be encodable. Raises NotCanonical, BadField."""
    decoded = wire.decode(wire.encode(value))
    if not isinstance(decoded, dict):
        raise BadField("parameters are not an object")
    return decoded
