"""What a party makes of the receipts under its contract: fetched from the enclave, proven logged, verified, counted.

See ``spec/usage.md``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom import wire
from strongroom.app.http import Client, anybody
from strongroom.attest.appraisal import appraise
from strongroom.attest.result import AttestationResult
from strongroom.contract import Contract
from strongroom.drawing import Agreed as Source
from strongroom.drawing import agreed as agreed_sources
from strongroom.errors import (
    BadInferenceReceipt,
    BadUsage,
    EnclaveNotNamed,
    InferenceNotVerified,
    KeysetOfAnotherRun,
    NotFound,
    StrongroomError,
)
from strongroom.inference.events import PolicyApplied
from strongroom.inference.expected import Agreed, Expected
from strongroom.inference.guard import Guard, Stage
from strongroom.inference.verification import Reader, VerifiedReceipt, examine
from strongroom.ledger import Entry, LoggedProof, MemoryNodes, Tree
from strongroom.served import Head, Kept, ServedRequest, opened
from strongroom.trust import Trust
from strongroom.usage import Drawn, Price, Totals, drawn, missing, total
from strongroom.wire import JSON, Fields

from .home import loads, reading
from .room import Room
from .session import Shown, Terms, agreed

PATIENCE: Final = 120.0  # seconds
PRICES: Final = "strongroom.prices.v1"


@dataclass(frozen=True, slots=True)
class Refused:
    """A receipt that is not counted, and why."""

    receipt_id: str
    why: StrongroomError


@dataclass(frozen=True, slots=True)
class Due:
    """What was drawn from a source, and what its owner is owed for it.

    Attributes:
        drawn: counted from the receipts.
        agreed: what the contract says of the source.
        owner: whose it is.
    """

    drawn: Drawn
    agreed: Source
    owner: str

    @property
    def amount(self) -> int:
        """Whole units: all grains together at the agreed price, rounded down once."""
        return self.agreed.price.of(self.drawn.weight)

    def to_json(self) -> dict[str, JSON]:
        return {**self.drawn.to_json(), "amount": self.amount, "name": self.agreed.name, "owner": self.owner}


@dataclass(frozen=True, slots=True)
class Recounted:
    """What the receipts come to.

    Attributes:
        contract: the digest.
        totals: of those that the party may rely on.
        counted: how many those are, refusals too.
        refused: the others.
        missing: digests that the log holds under the contract, and nobody handed over; ``None`` where no log was asked.
        label: how to name the platform to people.
        drawn: by source, what was drawn and is owed.
    """

    contract: str
    totals: Totals
    counted: int
    refused: tuple[Refused, ...]
    missing: tuple[str, ...] | None
    label: str
    drawn: tuple[Due, ...] = ()


# --- fetching ---------------------------------------------------------------------------------------------------------


def fetch(room: Room, contract: str, url: str, sink: Path) -> int:
    """Ask an enclave for every receipt under a contract, and write them down, each with its proof from the log.

    Args:
        room: the party at work.
        contract: the digest.
        url: of the enclave.
        sink: the file; it is not replaced.

    Returns:
        how many receipts they are.

    Raises:
        Unreachable, and what the enclave refuses with; BadKey, BadInferenceReceipt: the answer is not this party's, or not
        whole. BadCheckpoint, Inconsistent: the log. FileExistsError.
    """
    keys = room.home.keys
    request = ServedRequest(contract, room.name, secrets.token_bytes(32).hex(), int(time.time()))
    count = 0
    with sink.open("xb") as out, closing(Client(url, timeout=PATIENCE, context=anybody())) as client:
        # Over any connection: the request is signed for this once, and the answer is encrypted to this party's own key.
        headers = {"content-type": "application/json"}
        with client.stream("POST", "/v1/served", content=request.sign(keys.signing).encode(), headers=headers) as answer:
            lines = opened(request, keys.decryption, answer.iter_bytes())
            out.write(next(lines) + b"\n")
            places: _Places | None = None
            for line in lines:
                places = places or _Places(room)  # the log as it is after the receipts were made
                out.write(places.proven(contract, Kept.parse(line)).encode() + b"\n")
                count += 1
    return count


class _Places:
    """Where a log holds what: the proofs are worked out here, from entries that were held against its signed head."""

    def __init__(self, room: Room) -> None:
        head, entries = room.ledger()
        self._checkpoint, self._tree = head.checkpoint, Tree(MemoryNodes())
        self._at = {entry: self._tree.append(entry) for entry in entries}

    def proven(self, contract: str, kept: Kept) -> Kept:
        index = self._at.get(Entry("receipt", contract, kept.receipt.digest))
        if index is None:
            return kept
        return Kept(kept.receipt, LoggedProof(self._checkpoint, self._tree.prove_inclusion(index, self._tree.size)))


# --- counting ---------------------------------------------------------------------------------------------------------


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file of receipts. Raises NotFound, BadInferenceReceipt: its last line is cut off."""
    if not path.is_file():
        raise NotFound(f"{path} is no file")
    with path.open("rb") as source:
        for line in source:
            if not line.endswith(b"\n"):
                raise BadInferenceReceipt(f"{path} is cut off in its last line")
            yield line[:-1]


def recount(paths: Iterable[Path], trust: Trust, *, weights: Mapping[str, str], at: int, room: Room | None) -> Recounted:
    """Verify receipts for their owner, and count them anew.

    Args:
        paths: files of receipts under one contract; a receipt in several counts once.
        trust: the party's own.
        weights: name of a model -> the SHA-256 of its weights, where its manifest does not show it.
        at: now, Unix seconds.
        room: the party at work, who reads the log for what is missing; ``None`` to ask nobody.

    Raises:
        WireError, ContractError, PartyError and their leaves: a file is none, or of a contract that this party cannot rely
        on. BadUsage: files of two contracts. ReceiptDoubled.
    """
    heads, kept = [], list[Kept]()
    for path in paths:
        with reading(path):
            lines = lines_of(path)
            heads.append(Head.parse(next(lines, b"")))
            kept += [Kept.parse(line) for line in lines]
    contract = Contract.verify(heads[0].contract)
    if any(head.contract.digest != contract.digest for head in heads):
        raise BadUsage("the files are of several contracts", hint="Count each contract by itself.")
    trust.check(contract.proposal.parties)
    proven = {result.keyset_digest: result for head in heads for result in _appraised(head, contract, trust)}
    known = _agreed(heads[0], contract, Terms(trust=trust, contract=contract.digest, weights=dict(weights)), kept)
    verified, refused = list[VerifiedReceipt](), list[Refused]()
    for one in kept:
        name = one.receipt.model or ""
        found = examine(
            one.receipt.encode(),
            appraisal=proven.get(one.receipt.workload_keyset_digest),
            expected=Expected(agreed=known.get(name, next(iter(known.values())))),
            at=at,
            proof=one.proof,
            logs=trust.log_verifiers(),
        )
        try:
            verified.append(found.require(Reader.OWNER))
        except InferenceNotVerified as error:
            refused.append(Refused(one.receipt.receipt_id, error))
    label = next((result.label for result in proven.values()), "platform: not established")
    left = None if room is None else missing(room.ledger()[1], verified, contract=contract.digest)
    count = len({v.receipt.receipt_id for v in verified})
    due = _due(contract, verified)
    return Recounted(contract.digest, total(verified), count, tuple(refused), left, label, due)


def _due(contract: Contract, verified: Iterable[VerifiedReceipt]) -> tuple[Due, ...]:
    refs = {ref.manifest: ref for ref in contract.proposal.assets}
    known = agreed_sources(contract.proposal.program.parameters)
    return tuple(Due(one, known[refs[one.source].role], refs[one.source].owner) for one in drawn(verified))


def _appraised(head: Head, contract: Contract, trust: Trust) -> Iterator[AttestationResult]:
    """The keysets that were proven, each made for this contract, by an enclave that it names.

    Raises:
        NotAffirming, KeysetOfAnotherRun, EnclaveNotNamed.
    """
    subject = f"strongroom-run://{contract.digest.removeprefix('sha256:')}/"
    for proven in head.proven:
        report = proven.report
        result = appraise(
            report.evidence,
            policy=trust.appraisal_policy(),
            endorsements=report.endorsements,
            nonce=proven.nonce,
            at=proven.at,
            keyset=report.keyset,
        )
        keyset = result.require()
        if not (keyset.subject or "").startswith(subject):
            raise KeysetOfAnotherRun("a keyset is attested, and was made for something else than this contract")
        if result.measurement not in contract.proposal.enclave.measurements:
            raise EnclaveNotNamed("a keyset is attested, and what runs there is not what the contract's parties agreed to")
        yield result


def _agreed(head: Head, contract: Contract, terms: Terms, kept: Iterable[Kept]) -> Mapping[str, Agreed]:
    """What receipts must say. Which programs the guards are is the enclave's word; which guards, the policy's."""
    guards: tuple[Guard, ...] = ()
    serve = contract.proposal.policy.serve
    due = 0 if serve is None else len(serve.input_guards) + len(serve.output_guards)
    for one in kept:
        applied = one.receipt.one(PolicyApplied)
        if applied is not None and len(applied.guards) == due:
            guards = tuple(run.guard for run in applied.guards)
            break
    else:  # nothing was answered: of refusals each guard that ran is still one of the policy's
        names = [] if serve is None else [(Stage.INPUT, n) for n in sorted(serve.input_guards)]
        names += [] if serve is None else [(Stage.OUTPUT, n) for n in sorted(serve.output_guards)]
        guards = tuple(Guard(name, wire.digest(b""), stage) for stage, name in names)
    return agreed(Shown(contract.envelope, head.manifests, guards), contract, terms)


# --- prices -----------------------------------------------------------------------------------------------------------


def prices_of(path: Path) -> dict[tuple[str, str], Price]:
    """A party's own file of prices, by contract and model. Raises NotFound, NotJson, BadField, BadUsage (two of one)."""
    with reading(path):
        f = Fields(loads(path), "prices")
        f.literal("format", PRICES)
        found = dict[tuple[str, str], Price]()

        def one(value: object) -> None:
            g = Fields(value, "price")
            key = (g.digest("contract"), g.text("model", max_chars=256))
            if key in found:
                raise BadUsage(f"there are two prices for {key[1]!r}")
            found[key] = Price(g.integer("prompt"), g.integer("completion"), g.integer("embedding"), g.text("currency"))
            g.end()

        f.items("prices", one, high=4096)
        f.end()
        return found
