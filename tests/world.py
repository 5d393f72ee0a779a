"""A whole world in memory: parties, brokers, an exchange with its log, a platform, an enclave, and a clock that tests set.

Everything that is Strongroom's own is the real thing (``decide``, ``run``, ``appraise``, the log); what is simulated is what
stands around it: storage, the network, the sandbox, time and randomness. Faults come in pairs, as on a network: what failed
was not done, or it was done and the answer was lost. Nothing here is random: two worlds made alike do the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import Any

from strongroom import wire
from strongroom.airlock import Box
from strongroom.asset import About, AssetKey, BytesSource, Manifest, RangeSource, seal, sign_manifest
from strongroom.asset.approvers import Approver, Quorum
from strongroom.attest.evidence import Endorsements, Evidence, Measurement
from strongroom.attest.keyset import RELEASE_ALGO, RUN_RECEIPT_ALGO, AttestationReport, KeyEntry, Keyset, report_data
from strongroom.attest.simulated import PLATFORM, Claims, PlatformEndorsement
from strongroom.broker import NONCE_SECONDS, Charged, Held, HeldShare, Kept, Owner, Refusal, Release, Standing, decide
from strongroom.budget.charge import Charge, Counts, Event, Used, settled
from strongroom.budget.document import BUDGET_TYPE, Budget, CountLimits, Privacy, follows
from strongroom.checkpoint import LogKey
from strongroom.contract import (
    AssetRef,
    Contract,
    EnclaveTerms,
    Grant,
    Limits,
    Output,
    Payment,
    ProgramRef,
    Proposal,
    RunRequest,
    Withdrawal,
)
from strongroom.delivery import Delivery
from strongroom.drawing import Revision
from strongroom.enclave.run import OpenInput, Surroundings, run
from strongroom.errors import Conflict, NotFound, ReleaseRefused, Unreachable
from strongroom.holding import Says, Taken, Withdrawn, Word, merged
from strongroom.job import Cancel
from strongroom.ledger import LoggedProof, MemoryNodes, Tree
from strongroom.party import DecryptionKey, Party, PartyKeys, SigningKey
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import STATEMENT_TYPE, Bundle, Delivered, Statement, admissible
from strongroom.release import LEASE_PURPOSE, RELEASE_TYPE, ReleaseRequest, ReleaseStatement, Slot, open_release, run_subject
from strongroom.trust import Root, Trust
from strongroom.wire import Envelope

NOW = 1_790_000_000
HOUR, DAY = 3600, 24 * 3600
CANARY = b"CANARY-3141592653"
"""Stands in every plaintext of a world. Where it is found outside an enclave, something leaked."""


def seed(name: str, size: int = 32) -> bytes:
    """Bytes that depend on the name alone."""
    return hashlib.shake_256(name.encode()).digest(size)


@cache
def keys_of(name: str) -> PartyKeys:
    """A party's own keys."""
    return PartyKeys(name, SigningKey(seed(f"{name} signs")), DecryptionKey(seed(f"{name} opens", 96)))


@cache
def broker_key(name: str) -> SigningKey:
    return SigningKey(seed(f"{name}'s broker"))


@cache
def card(name: str) -> Party:
    return keys_of(name).card(broker_key(name).public, f"https://broker.{name}.example")


ROOT, PLATFORM_KEY = SigningKey(seed("root")), SigningKey(seed("platform"))
LOG = LogKey("log.example", SigningKey(seed("log")))
PROGRAM = wire.digest(b"the program")
MEASUREMENT = Measurement(PLATFORM, {n: wire.digest(n.encode()) for n in ("dependencies", "interpreter", "package")})
EDITED = Measurement(PLATFORM, {**MEASUREMENT.registers, "package": wire.digest(b"one line was edited")})


class Entropy:
    """Fresh bytes, the same in every run of a test."""

    def __init__(self, name: str) -> None:
        self._name, self._drawn = name, 0
        self._lock = threading.Lock()

    def __call__(self, size: int) -> bytes:
        with self._lock:
            self._drawn += 1
            return seed(f"{self._name} {self._drawn}", size)


@dataclass
class Clock:
    """Unix seconds, as the test says."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += -int(-seconds // 1)


class Fault(Enum):
    """What goes wrong once. Both look the same to whoever asked."""

    NOT_DONE = "failed, and nothing was done"
    LOST = "done, and the answer was lost"


class Faults:
    """Faults to come, by place: ``hospital.nonce``, ``hospital.release``, ``hospital.book``, ``exchange.deliver``, …"""

    def __init__(self) -> None:
        self._due: defaultdict[str, deque[Fault | None]] = defaultdict(deque)

    def plan(self, place: str, *faults: Fault | None) -> None:
        """The next calls at a place go this way; ``None`` for one that goes well."""
        self._due[place].extend(faults)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        due = self._due[place].popleft() if self._due[place] else None
        if due is Fault.NOT_DONE:
            raise Unreachable(f"{place} does not answer")
        yield
        if due is Fault.LOST:
            raise Unreachable(f"{place} does not answer")


# --- a broker -------------------------------------------------------------------------------------------------------


@dataclass
class _State:
    assets: dict[str, Held] = field(default_factory=dict)
    nonces: dict[bytes, int] = field(default_factory=dict)
    approved: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    withdrawn: set[tuple[str, str]] = field(default_factory=set)
    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    cancelled: set[tuple[str, str, str]] = field(default_factory=set)
    runs: dict[tuple[str, str], str] = field(default_factory=dict)
    releases: dict[Slot, tuple[Kept, int]] = field(default_factory=dict)
    budgets: dict[str, Envelope] = field(default_factory=dict)
    revisions: dict[str, Envelope] = field(default_factory=dict)
    charges: dict[tuple[str, str, str], Charged] = field(default_factory=dict)
    shares: dict[str, HeldShare] = field(default_factory=dict)
    slots: dict[tuple[str, str, int], str | None] = field(default_factory=dict)
    words: set[tuple[str, str, Says]] = field(default_factory=set)
    granted_by: dict[tuple[str, str, str], int] = field(default_factory=dict)
    told: set[tuple[str, str, str, str]] = field(default_factory=set)
    concerns: set[tuple[str, str]] = field(default_factory=set)
    over: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)


class MemoryBook:
    """A broker's memory (``broker.Book``), with what the owner says and reads, as ``SqliteBook`` has it.

    Args:
        faults: a fault at ``place`` is a crash before the commit (not done) or after it (lost).
    """

    def __init__(
        self, entropy: Callable[[int], bytes], *, faults: Faults | None = None, place: str = "book", max_nonces: int = 10_000
    ) -> None:
        self._entropy, self._faults, self._place, self._max_nonces = entropy, faults or Faults(), place, max_nonces
        self._lock = threading.RLock()
        self._state = _State()

    # broker.Book

    def held(self, manifest: str) -> Held | None:
        return self._state.assets.get(manifest)

    def spend(self, nonce: bytes, at: int) -> bool:
        with self._lock:
            found = self._state.nonces.get(nonce)
            if found is None or found <= at:
                return False
            del self._state.nonces[nonce]
            return True

    @contextmanager
    def transaction(self) -> Iterator[MemoryBook]:
        with self._lock:
            before = deepcopy(self._state)
            committed = False
            try:
                with self._faults.at(self._place):
                    yield self
                    committed = True
            except BaseException:
                if not committed:
                    self._state = before
                raise

    # broker.Page

    def standing(self, contract: str, owner: str | None = None) -> Standing:
        s = self._state
        found = Standing(
            approved=contract in s.approved,
            ended_by=s.ended.get(contract),
            withdrawn_by=frozenset(party for c, party in s.withdrawn if c == contract),
            runs={run_id: keyset for (c, run_id), keyset in s.runs.items() if c == contract},
            granted=sum(runs for (c, _), runs in s.grants.items() if c == contract),
            cancelled={
                run: frozenset(party for c, r, party in s.cancelled if (c, r) == (contract, run))
                for _, run, _ in s.cancelled
            },
        )
        if owner is None:
            return found
        return replace(
            found,
            approved=(contract, owner, Says.APPROVED) in s.words,
            ended_by=contract if (contract, owner, Says.ENDED) in s.words else None,
            granted=sum(runs for (c, o, _), runs in s.granted_by.items() if (c, o) == (contract, owner)),
            withdrawn_by=found.withdrawn_by | {party for c, party, o, _ in s.told if (c, o) == (contract, owner)},
        )

    def over(self, manifest: str) -> int:
        return max(self._state.over.get("", 0), self._state.over.get(manifest, 0))

    def share(self, manifest: str) -> HeldShare | None:
        return self._state.shares.get(manifest)

    def slots(self, contract: str, manifest: str) -> Mapping[int, str | None]:
        return {k: keyset for (c, m, k), keyset in self._state.slots.items() if (c, m) == (contract, manifest)}

    # holder.HolderPage

    def deal(self, manifest: str, held: HeldShare, taken: Sequence[Taken]) -> None:
        s = self._state
        s.shares[manifest] = held
        for t in taken:
            place = (t.contract, manifest, t.slot)
            s.slots[place] = merged(s.slots.get(place, t.keyset), t.keyset)

    def learn(self, manifest: str, owner: str, withdrawn: Sequence[Withdrawn], over: int, restored: int) -> None:
        s = self._state
        s.told |= {(w.contract, w.party, owner, manifest) for w in withdrawn}
        s.over[manifest] = max(over, s.over.get(manifest, 0)) if over else 0
        if restored:
            s.counted[manifest] = restored

    def uncounted(self, manifest: str) -> int:
        s = self._state
        own = s.over.get("", 0)
        return max(s.over.get(manifest, 0), own if s.counted.get(manifest) != own else 0)

    def withdrawn(self, manifest: str, owner: str) -> list[Withdrawn]:
        s = self._state
        mine = {c for c, m in s.concerns if m == manifest} | {c for c, o, _ in s.words if o == owner}
        mine |= {c for c, m, _ in s.slots if m == manifest}
        told = {Withdrawn(c, party) for c, party, o, m in s.told if (o, m) == (owner, manifest)}
        return sorted({Withdrawn(c, party) for c, party in s.withdrawn if c in mine} | told)

    def put_back(self, backup: Any, at: int) -> None:
        """Be as a backup was, and have the owner confirm it (``SqliteBook.marks``)."""
        with self._lock:
            s = self._state = deepcopy(backup)
            s.approved.clear()
            s.words = {w for w in s.words if w[2] is not Says.APPROVED}
            s.shares = {m: replace(held, recalled=True) for m, held in s.shares.items()}
            s.over[""] = at
            s.counted.clear()

    def recall(self, manifest: str) -> None:
        self._state.shares[manifest] = replace(self._state.shares[manifest], recalled=True)

    def taken(self, manifest: str) -> list[Taken]:
        return [Taken(c, k, keyset) for (c, m, k), keyset in sorted(self._state.slots.items()) if m == manifest]

    def hear(self, word: Word, envelope: Envelope) -> None:
        self._state.words.add((word.contract, word.party, word.says))

    def hear_grant(self, grant: Grant, envelope: Envelope) -> None:
        self._state.granted_by.setdefault((grant.contract, grant.party, grant.nonce), grant.runs)

    def earlier(self, slot: Slot) -> Kept | None:
        found = self._state.releases.get(slot)
        return found[0] if found else None

    def keep(self, slot: Slot, kept: Kept, at: int) -> None:
        self._state.runs.setdefault((slot.contract, slot.run_id), slot.keyset_digest)
        if slot.part is not None:
            self._state.slots.setdefault((slot.contract, slot.manifest, slot.part.slot), slot.keyset_digest)
        assert slot not in self._state.releases or LEASE_PURPOSE.encode() in kept.envelope.payload
        self._state.releases[slot] = (kept, at)

    def budget(self, manifest: str) -> Envelope | None:
        return self._state.budgets.get(manifest)

    def charged(self, manifests: Sequence[str]) -> list[Charged]:
        return [c for manifest in manifests for c in self._state.charges.values() if c.manifest == manifest]

    def charge(self, charged: Charged) -> None:
        self._state.charges.setdefault((charged.contract, charged.run_id, charged.manifest), charged)

    # what the broker's server does, and what the owner says

    charges = charged

    def set_budget(self, budget: Budget, envelope: Envelope) -> None:
        with self._lock:
            for manifest in budget.assets:
                if manifest in self._state.budgets:
                    follows(budget, Budget.parse(self._state.budgets[manifest].expect(BUDGET_TYPE)))
            self._state.budgets.update(dict.fromkeys(budget.assets, envelope))

    def revise(self, revision: Revision, envelope: Envelope) -> None:
        with self._lock:
            before = self._state.revisions.get(revision.asset)
            revision.follows(None if before is None else Revision.peek(before))
            self._state.revisions[revision.asset] = envelope

    def revision(self, manifest: str) -> Envelope | None:
        return self._state.revisions.get(manifest)

    def settle(self, contract: str, run_id: str, used: Used | None) -> None:
        with self._lock:
            for place, c in self._state.charges.items():
                if used is not None and place[:2] == (contract, run_id) and c.settled is None:
                    self._state.charges[place] = replace(c, settled=settled(c.charge, used))

    def nonce(self, at: int) -> bytes:
        with self._lock:
            s = self._state
            s.nonces = {n: until for n, until in s.nonces.items() if until > at}
            if len(s.nonces) >= self._max_nonces:
                raise Conflict("too many nonces are unanswered")
            nonce = self._entropy(32)
            s.nonces[nonce] = at + NONCE_SECONDS
            return nonce

    def hold(self, manifest: Envelope, key: AssetKey) -> None:
        self._state.assets.setdefault(manifest.digest, Held(manifest, key))

    def approve(self, contract: str, at: int) -> None:
        self._state.approved.add(contract)

    def end(self, contract: str, by: str) -> None:
        self._state.ended.setdefault(contract, by)

    def withdraw(self, withdrawal: Withdrawal, envelope: Envelope, on: Sequence[str] = ()) -> None:
        self._state.withdrawn.add((withdrawal.contract, withdrawal.party))
        self._state.concerns |= {(withdrawal.contract, manifest) for manifest in on}

    def cancel(self, cancel: Cancel, _envelope: Envelope) -> None:
        self._state.cancelled.add((cancel.contract, cancel.run_id, cancel.party))

    def grant(self, grant: Grant, envelope: Envelope) -> None:
        self._state.grants.setdefault((grant.contract, grant.nonce), grant.runs)

    def releases(self) -> list[tuple[str, str, str, int]]:
        found: dict[tuple[str, str, str], int] = {}
        for slot, (_, at) in self._state.releases.items():
            place = (slot.contract, slot.run_id, slot.keyset_digest)
            found[place] = min(at, found.get(place, at))
        return [(*place, at) for place, at in found.items()]


class MemoryBroker:
    """A party's broker at work (``enclave.run.BrokerLine``), as far away as a network is."""

    def __init__(self, owner: Owner, book: Any, clock: Clock, faults: Faults) -> None:
        self.owner, self.book, self._clock, self._faults = owner, book, clock, faults
        self.decisions: list[tuple[ReleaseRequest, Release | Refusal]] = []
        self.asked: list[bytes] = []
        self.receipts: list[Bundle] = []

    def nonce(self) -> bytes:
        with self._faults.at(f"{self.owner.name}.nonce"):
            return self.book.nonce(self._clock())

    def decide(self, request: ReleaseRequest) -> Release | Refusal:
        decision = decide(request, owner=self.owner, book=self.book, at=self._clock())
        self.decisions.append((request, decision))
        return decision

    def release(self, request: bytes) -> bytes:
        with self._faults.at(f"{self.owner.name}.release"):
            self.asked.append(request)
            decision = self.decide(ReleaseRequest.parse(request))
        if isinstance(decision, Refusal):
            raise ReleaseRefused(f"the broker of {self.owner.name} refused at {decision.number}", reason=decision.code)
        return decision.answer()

    def receipt(self, bundle: Bundle) -> None:
        with self._faults.at(f"{self.owner.name}.receipt"):
            statement = admissible(bundle)
            self.receipts.append(bundle)
            self.book.settle(statement.contract, statement.run_id, statement.used)


# --- an exchange, a platform, a sandbox -----------------------------------------------------------------------------


class MemoryExchange:
    """An exchange and its log (``enclave.run.ExchangeLine``). It keeps everything that it was ever given.

    Attributes:
        manifests, files: what it serves, by the manifest's digest; tests put lies there.
        delivered: what enclaves brought.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.manifests: dict[str, Envelope] = {}
        self.files: dict[str, RangeSource] = {}
        self.outputs: dict[str, bytes] = {}
        self.delivered: list[tuple[Delivery, bytes]] = []
        self.boxes: list[Box] = []
        self.bundles: list[Bundle] = []
        self.tree = Tree(MemoryNodes())
        self._given: list[bytes] = []

    def put(self, manifest: Envelope, sealed: bytes) -> None:
        self.manifests[manifest.digest] = manifest
        self.files[manifest.digest] = BytesSource(sealed)
        self._given += [manifest.encode(), sealed]

    def manifest(self, digest: str, by: str) -> Envelope:
        with self._faults.at("exchange.manifest"):
            if digest not in self.manifests:
                raise NotFound(f"no manifest {digest} here")
            return self.manifests[digest]

    def sealed(self, digest: str) -> RangeSource:
        with self._faults.at("exchange.sealed"):
            return self.files[digest]

    def put_output(self, sealed: bytes) -> None:
        with self._faults.at("exchange.put_output"):
            self._given.append(sealed)
            self.outputs[wire.digest(sealed)] = sealed

    def deliver(self, delivery: Delivery) -> None:
        with self._faults.at("exchange.deliver"):
            self._given.append(delivery.encode())
            self.delivered.append((delivery, self.outputs[delivery.sealed]))

    def put_box(self, box: Box) -> None:
        with self._faults.at("exchange.put_box"):
            self._given.append(box.encode())
            self.boxes.append(box)

    def record(self, bundle: Bundle) -> Bundle:
        """Log a receipt: the bundle with its proof."""
        with self._faults.at("exchange.record"):
            self._given.append(bundle.encode())
            index = self.tree.append(bundle.entry)
            proof = LoggedProof(self.tree.checkpoint(LOG), self.tree.prove_inclusion(index, self.tree.size))
            logged = replace(bundle, proof=proof)
            self.bundles.append(logged)
            return logged

    @property
    def everything(self) -> bytes:
        """Every byte that it was given, base64 undone too: what its operator can see."""
        return b"\n".join([*self._given, *(line for data in self._given for line in _unwrapped(data))])


def _unwrapped(data: bytes) -> Iterator[bytes]:
    """What stands in base64 in a document, however deep."""
    try:
        todo = [json.loads(data)]
    except ValueError:
        return
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, str):
            yield value.encode()
            try:
                inner = wire.unb64(value)
            except wire.BadField:
                continue
            yield inner
            yield from _unwrapped(inner)


class AlteringSource:
    """A file whose bytes change under the reader: after so many reads, one bit of everything is another."""

    def __init__(self, data: bytes, reads: int) -> None:
        self._data, self._left = data, reads
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        self._left -= 1
        found = self._data[offset : offset + length]
        return found if self._left >= 0 else bytes(b ^ 1 for b in found)


@dataclass
class SimulatedPlatform:
    """The platform that the enclave runs on (``attest.evidence.Platform``)."""

    clock: Clock
    measurement: Measurement = MEASUREMENT
    key: SigningKey = PLATFORM_KEY
    root: SigningKey = ROOT
    debug: bool = False

    def produce(self, report_data: bytes) -> Evidence:
        return Claims(report_data, self.measurement, self.debug, self.clock()).sign(self.key)

    def endorsements(self) -> Endorsements:
        endorsed = PlatformEndorsement(self.key.public, NOW - 365 * DAY, NOW + 365 * DAY, seed("serial", 16))
        return Endorsements((endorsed.sign(self.root),))


def report(**changes: Any) -> bytes:
    """A report as programs write it, before its rule is applied."""
    found: dict[str, Any] = {
        "classes": [],
        "format": "strongroom.report.v1",
        "matrices": {},
        "metrics": {"accuracy": 0.93125},
        "positive": None,
        "records": 60,
        "tables": [],
        "task": "classification",
    }
    return json.dumps({**found, **changes}).encode()


def evaluate(inputs: Mapping[str, OpenInput]) -> Mapping[str, bytes]:
    """The ordinary program: it reads everything, and writes one report."""
    for opened in inputs.values():
        assert CANARY in opened.file.read()
    return {"report": report()}


@dataclass
class FakeConfinement:
    """A sandbox that is none (``enclave.run.Confinement``)."""

    program: Callable[[Mapping[str, OpenInput]], Mapping[str, bytes]] = evaluate
    program_digest: str = PROGRAM
    walls: tuple[str, ...] = ()
    kind: str = "bubblewrap"
    closed: bool = False
    code_digest: str | None = None
    environment: str | None = None

    def run(self, contract: Contract, inputs: Mapping[str, OpenInput], limits: Limits) -> Mapping[str, bytes]:
        assert limits == contract.proposal.limits
        return self.program(inputs)

    def close(self) -> None:
        self.closed = True


# --- the world ------------------------------------------------------------------------------------------------------

RULE = OutputRule(frozenset({"hospital", "lab"}), 1 << 20, 10, 4)
TERMS = Policy(frozenset({"evaluate"}), {"report": OutputRule(ANY_PARTY, 1 << 20, 10, 4)})
PLAINTEXTS = {"data": b"age,benign\n41,1\n" + CANARY * 200, "model": b"weights " + CANARY * 200}
REVIEWERS = ("ann", "ben", "cas", "dpo")
OWNERS = {"data": "hospital", "model": "lab"}
KINDS = {"data": ("dataset", "text/csv"), "model": ("model", "application/vnd.onnx")}
RUN = seed("the first run", 16).hex()


@cache
def sealed_asset(role: str, terms: Policy = TERMS) -> tuple[Manifest, Envelope, bytes, AssetKey]:
    """An asset of the world: its manifest, signed, its sealed file, its key."""
    owner, key, sink = OWNERS[role], AssetKey(seed(f"key of {role}")), io.BytesIO()
    kind, media_type = KINDS[role]
    about = About(name=f"{owner}-{role}", kind=kind, media_type=media_type, owner=owner, created_at=NOW - DAY, terms=terms)
    source = io.BytesIO(PLAINTEXTS[role])
    manifest = seal(source, sink, key=key, salt=seed(f"salt of {role}"), about=about, chunk_bytes=1024)
    return manifest, sign_manifest(manifest, keys_of(owner).signing), sink.getvalue(), key


class World:
    """The lab's model is evaluated on the hospital's records.

    Args:
        terms: role -> the terms under which its owner sealed it.
        book: makes a broker's book from the party's name; in memory by default.
        clock: another than one that stands still.
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, Policy] | None = None,
        book: Callable[[str], Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock, self.faults, self.entropy = clock or Clock(), Faults(), Entropy("enclave")
        self.platform = SimulatedPlatform(self.clock)
        self.exchange = MemoryExchange(self.faults)
        self.steps: list[tuple[str, str]] = []
        self.assets = {role: sealed_asset(role, (terms or {}).get(role, TERMS)) for role in OWNERS}
        self.brokers: dict[str, MemoryBroker] = {}
        for name in ("hospital", "lab"):
            made = book(name) if book else MemoryBook(Entropy(f"{name}'s book"), faults=self.faults, place=f"{name}.book")
            trust = self.trust()
            owner = Owner(name, broker_key(name), trust, trust.appraisal_policy())
            self.brokers[name] = MemoryBroker(owner, made, self.clock, self.faults)
        for role, (_, envelope, sealed, key) in self.assets.items():
            self.brokers[OWNERS[role]].book.hold(envelope, key)
            self.exchange.put(envelope, sealed)

    def ask_approval(self, role: str, *groups: tuple[int, Mapping[str, str]]) -> None:
        """The owner's terms for an asset name who must approve: so many of these, key ids by name."""
        old, _, sealed, key = self.assets[role]
        quorums = (Quorum(n, tuple(Approver(name, of[name]) for name in sorted(of))) for n, of in groups)
        manifest = replace(old, approvers=tuple(quorums))
        envelope = sign_manifest(manifest, keys_of(OWNERS[role]).signing)
        self.assets[role] = (manifest, envelope, sealed, key)
        self.brokers[OWNERS[role]].book.hold(envelope, key)
        self.exchange.put(envelope, sealed)

    def pin(self, *others: str) -> None:
        """Both owners pin these too."""
        for broker in self.brokers.values():
            broker.owner = replace(broker.owner, trust=self.trust(*others))

    @staticmethod
    def trust(*others: str) -> Trust:
        """A trust file with everybody in it."""
        return Trust(
            parties=tuple(card(name) for name in sorted({"hospital", "lab", *others})),
            roots=(Root(PLATFORM, ROOT.public),),
            measurements=(MEASUREMENT,),
            logs=(LOG.verifier.vkey,),
        )

    def proposal(self, **changes: Any) -> Proposal:
        """What the lab proposes, with changes."""
        found: dict[str, Any] = {
            "title": "Accuracy of the lab's model on the hospital's records",
            "nonce": seed("the proposal", 16).hex(),
            "proposer": "lab",
            "supersedes": None,
            "created_at": NOW - HOUR,
            "not_before": NOW - HOUR,
            "not_after": NOW + DAY,
            "parties": (card("hospital"), card("lab")),
            "program": ProgramRef("evaluate", PROGRAM, "evaluate", {"target": "benign", "task": "classification"}),
            "assets": tuple(AssetRef(role, OWNERS[role], self.assets[role][0].digest) for role in sorted(OWNERS)),
            "outputs": (Output("report", "report", RULE),),
            "enclave": EnclaveTerms((PLATFORM,), (MEASUREMENT,), "isolated"),
            "policy": Policy(frozenset({"evaluate"}), {"report": RULE}),
            "limits": Limits(1, 300, 1 << 30),
            "payments": (Payment("lab", "hospital", 25_000, "EUR"),),
        }
        return Proposal(**{**found, **changes})

    def agree(self, **changes: Any) -> Contract:
        """A contract: everybody signs, and everybody's broker knows that its owner did."""
        proposal = self.proposal(**changes)
        contract = sign_all(proposal)
        for broker in self.brokers.values():
            broker.book.approve(contract.digest, self.clock())
        return contract

    def surroundings(self, confinement: FakeConfinement | None = None, **changes: Any) -> Surroundings:
        """What an enclave is given."""
        confinement = confinement or FakeConfinement()
        found: dict[str, Any] = {
            "platform": self.platform,
            "exchange": self.exchange,
            "broker": lambda party: self.brokers[party.name],
            "confine": lambda _contract: confinement,
            "now": self.clock,
            "entropy": self.entropy,
            "progress": lambda step, detail: self.steps.append((step, detail)),
            "wait": self.clock.wait,
        }
        return Surroundings(**{**found, **changes})

    def run(
        self, contract: Contract, run_id: str = RUN, confinement: FakeConfinement | None = None, **changes: Any
    ) -> Bundle:
        """One run, as the lab asks for it."""
        return run(contract, self.asked(contract, run_id), self.surroundings(confinement, **changes))

    def asked(self, contract: Contract, run_id: str = RUN, party: str = "lab") -> Envelope:
        """A party's signed request for a run, now."""
        return RunRequest(contract.digest, party, run_id, self.clock()).sign(keys_of(party).signing)


def charge(*events: Event, role: str = "data", **counts: int) -> Charge:
    """What a run of the world's proposal spends: one epsilon of 0.5, and as many bytes as its report may have."""
    events = events or (Event("epsilon-delta", 1, epsilon="0.5", delta="0"),)
    return Charge(role, Counts(**{"runs": 1, "queries": 1, "rows": 0, "bytes_out": 1 << 20, **counts}), events)


def allow(world: World, epsilon: str | None = "1", *, version: int = 1, owner: str = "hospital", **counts: int) -> Budget:
    """The hospital puts a budget in force for its records."""
    found = Budget(
        owner=owner,
        version=version,
        at=NOW,
        assets=(world.assets["data"][0].digest,),
        dp=None if epsilon is None else Privacy(epsilon, "0"),
        counts=CountLimits(**counts),
    )
    world.brokers[owner].book.set_budget(found, found.sign(keys_of(owner).signing))
    return found


def sign_all(proposal: Proposal) -> Contract:
    """Every party signs."""
    return Contract.verify(proposal.envelope(proposal.sign(keys_of(p.name)) for p in proposal.parties))


def reviewed(*parties: str, pinned: Sequence[str] | None = None, moved: str = "") -> tuple[World, dict[str, Any]]:
    """A world where two of three reviewers and a data protection officer must approve what uses the hospital's records.

    Args:
        parties: who is a party beside the lab and the hospital.
        pinned: whom the owners pinned; all of those.
        moved: whose key is another one than the terms name.

    Returns:
        the world, and what a proposal in it says otherwise.
    """
    world = World()
    keys = {name: keys_of(f"{name}, before" if name == moved else name).signing.public.keyid for name in REVIEWERS}
    world.ask_approval("data", (2, {name: keys[name] for name in ("ann", "ben", "cas")}), (1, {"dpo": keys["dpo"]}))
    world.pin(*(parties if pinned is None else pinned))
    return world, {"parties": tuple(card(name) for name in sorted({"hospital", "lab", *parties}))}


# --- an enclave, step by step ----------------------------------------------------------------------------------------


class Asker:
    """An enclave as a broker sees it: a keyset of its own, and requests for assets.

    Args:
        name: another name, other keys.
    """

    def __init__(self, world: World, contract: Contract, name: str = "enclave", *, run_id: str = RUN) -> None:
        self.world, self.contract, self.run_id = world, contract, run_id
        self.receipt_key, self.release_key = SigningKey(seed(f"{name} receipts")), DecryptionKey(seed(f"{name} keys", 96))
        self.keyset = Keyset(
            subject=run_subject(contract.digest, run_id),
            not_after=NOW + HOUR,
            receipt_signing_keys=(KeyEntry("run-receipt", RUN_RECEIPT_ALGO, self.receipt_key.public.raw.hex()),),
            e2ee_public_keys=(KeyEntry("release", RELEASE_ALGO, self.release_key.public.raw.hex()),),
        )

    def report(self, nonce: bytes, platform: SimulatedPlatform | None = None) -> AttestationReport:
        """An attestation report for a nonce, by the world's platform or another."""
        platform, bound = platform or self.world.platform, report_data(self.keyset.digest, nonce)
        return AttestationReport(self.keyset, bound[:32], platform.produce(bound), platform.endorsements())

    def slot(self, role: str = "data") -> Slot:
        return Slot(self.contract.digest, self.run_id, self.keyset.digest, self.world.assets[role][0].digest)

    def request(self, role: str = "data", **changes: Any) -> ReleaseRequest:
        """A request to the owner's broker, with a fresh nonce of it, and with changes."""
        nonce = changes.pop("nonce", None) or self.world.brokers[OWNERS[role]].nonce()
        asked, report = self.world.asked(self.contract, self.run_id), self.report(nonce)
        found = ReleaseRequest(self.contract.envelope, self.slot(role).manifest, self.run_id, asked, nonce, report)
        return replace(found, **changes)

    def ask(self, role: str = "data", **changes: Any) -> Release | Refusal:
        return self.world.brokers[OWNERS[role]].decide(self.request(role, **changes))

    def open(self, release: Release, request: ReleaseRequest, role: str = "data") -> AssetKey:
        """The key in a release, as an enclave takes it out."""
        return open_release(
            release.answer(),
            slot=self.slot(role),
            broker=broker_key(OWNERS[role]).public,
            nonces=frozenset({request.nonce.hex()}),
            key=self.release_key,
        )[1]


# --- a receipt, put together by hand --------------------------------------------------------------------------------


@dataclass
class Forger:
    """Somebody who holds every key and puts a bundle together piece by piece. As made it is honest; tests twist a piece.

    Attributes:
        enclave: whose keyset signs the receipt.
        statement, releases, manifests, reports: the pieces; releases by role.
        signer: what signs the receipt.
    """

    enclave: Asker
    statement: Statement
    releases: dict[str, ReleaseStatement]
    manifests: dict[str, Envelope]
    reports: dict[str, AttestationReport]
    signer: SigningKey
    brokers: dict[str, SigningKey] = field(default_factory=lambda: {r: broker_key(o) for r, o in OWNERS.items()})

    @classmethod
    def at_work(cls, world: World, contract: Contract, **changes: Any) -> Forger:
        """An honest bundle's pieces; ``changes`` are of the statement."""
        enclave, proposal = Asker(world, contract), contract.proposal
        nonces = {role: seed(f"nonce for {role}") for role in OWNERS}
        found: dict[str, Any] = {
            "contract": contract.digest,
            "program": PROGRAM,
            "run_id": RUN,
            "keyset_digest": enclave.keyset.digest,
            "started_at": NOW,
            "ended_at": NOW + 1,
            "sandbox": "bubblewrap",
            "inputs": proposal.assets,
            "releases": (),
            "outputs": tuple(Delivered(o, wire.digest(b"sealed"), wire.digest(b"manifest")) for o in proposal.outputs),
            "failure": None,
            "owed": proposal.payments,
        }
        return cls(
            enclave=enclave,
            statement=Statement(**{**found, **changes}),
            releases={
                role: ReleaseStatement(
                    contract=contract.digest,
                    manifest=enclave.slot(role).manifest,
                    keyset_digest=enclave.keyset.digest,
                    nonce=nonce.hex(),
                    run_id=RUN,
                    broker=broker_key(OWNERS[role]).public.keyid,
                    at=NOW,
                    encrypted_key=wire.digest(b"encrypted"),
                    policy=world.trust().appraisal_policy().digest,
                )
                for role, nonce in nonces.items()
            },
            manifests={role: world.assets[role][1] for role in OWNERS},
            reports={role: enclave.report(nonce) for role, nonce in nonces.items()},
            signer=enclave.receipt_key,
        )

    def bundle(self) -> Bundle:
        """Signed by whoever must sign, and logged."""
        releases = tuple(self.brokers[role].sign(RELEASE_TYPE, r.encode()) for role, r in self.releases.items())
        statement = replace(self.statement, releases=tuple(e.digest for e in releases))
        return self.enclave.world.exchange.record(
            Bundle(
                receipt=self.signer.sign(STATEMENT_TYPE, statement.encode()),
                contract=self.enclave.contract.envelope,
                manifests=tuple(self.manifests.values()),
                reports=tuple(self.reports.values()),
                releases=releases,
                proof=None,
            )
        )
