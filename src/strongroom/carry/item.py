"""What each kind of item is, read strictly and without a consequence.

An item says to which proposal it belongs, and in a few words what it is. Whether it is true is for whoever it is handed to:
an exchange checks it as it checks what strangers post, and parties check what an exchange shows.

See ``spec/carry.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from strongroom import wire
from strongroom.airlock import Box, Verdict
from strongroom.asset import verify_manifest
from strongroom.asset.manifest import SignedManifest
from strongroom.checkpoint import Checkpoint
from strongroom.code import MAX_BUNDLE_BYTES as MAX_CODE
from strongroom.code import CodeBundle
from strongroom.contract import Proposal, Withdrawal
from strongroom.delivery import Delivery
from strongroom.errors import BadField, CarriedBadItem, StrongroomError
from strongroom.ledger import ConsistencyProof
from strongroom.party import Party, VerifyKey
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle
from strongroom.review import NOTE_TYPE, Note
from strongroom.trial import Trial
from strongroom.trust import Trust
from strongroom.wire import JSON, Envelope, Fields

from .carriage import Kind

HEADS = "strongroom.carry-ledger.v1"
DOCUMENT = 1 << 20
MAX_MOCK = 64 << 20
MAX_OUTPUT = 256 << 20
MAX_PROOFS = 64
PLAIN = frozenset({Kind.MOCK, Kind.OUTPUT})  # bytes that nobody reads on the way


def limit_of(kind: Kind) -> int:
    """The most bytes that an item of a kind may have: what an exchange takes."""
    return {
        Kind.CARD: 16 << 10,
        Kind.CODE: MAX_CODE,
        Kind.MOCK: MAX_MOCK,
        Kind.OUTPUT: MAX_OUTPUT,
        Kind.RECEIPT: MAX_BUNDLE_BYTES,
    }.get(kind, DOCUMENT)


@dataclass(frozen=True, slots=True)
class Said:
    """What an item says of itself. **Untrusted**, but for its form.

    Attributes:
        mark: what it is the same by, wherever it is found; a receipt is the same under the proofs of two logs.
        proposal: the digest of the proposal that it belongs to, or ``""``.
        about: a few words for people, some of them a stranger's.
    """

    mark: str
    proposal: str
    about: str


@dataclass(frozen=True, slots=True)
class Offered:
    """An asset's manifest, and the key that signed it."""

    manifest: Envelope
    key: VerifyKey

    def encode(self) -> bytes:
        return wire.encode({"key": wire.b64(self.key.raw), "manifest": self.manifest.to_json()})

    @classmethod
    def parse(cls, data: bytes) -> Offered:
        """Raises WireError and its leaves, BadKey."""
        f = Fields(wire.decode(data, max_bytes=DOCUMENT), "offered")
        found = cls(key=VerifyKey(f.base64("key", max_bytes=32)), manifest=Envelope.from_json(f.any("manifest")))
        f.end()
        return found

    def signed(self) -> SignedManifest:
        """What that key signed. Raises BadSignature, BadEnvelope."""
        return verify_manifest(self.manifest, self.key)


@dataclass(frozen=True, slots=True)
class Heads:
    """A log's head, and the proofs that lead to it from earlier ones. **Untrusted.**

    Attributes:
        checkpoint: the head.
        proofs: each from another earlier size, in order.
    """

    checkpoint: Checkpoint
    proofs: tuple[ConsistencyProof, ...]

    def __post_init__(self) -> None:
        olds = [proof.old for proof in self.proofs]
        if olds != sorted(set(olds)) or any(proof.new != self.checkpoint.size for proof in self.proofs):
            raise BadField("heads.proofs do not lead to the head, each from another size, in order")

    def encode(self) -> bytes:
        said: dict[str, JSON] = {
            "checkpoint": self.checkpoint.encode().decode(),
            "proofs": [proof.to_json() for proof in self.proofs],
            "purpose": HEADS,
        }
        return wire.encode(said)

    @classmethod
    def parse(cls, data: bytes) -> Heads:
        """Raises WireError and its leaves, BadCheckpoint, BadProof."""
        f = Fields(wire.decode(data, max_bytes=DOCUMENT), "heads")
        f.literal("purpose", HEADS)
        found = cls(
            checkpoint=Checkpoint.parse(f.text("checkpoint", max_chars=DOCUMENT).encode()),
            proofs=f.items("proofs", ConsistencyProof.from_json, high=MAX_PROOFS),
        )
        f.end()
        return found


def reference_of(data: bytes) -> Trust:
    """Reference values that pin nobody, in canonical JSON. Raises WireError and its leaves, BadKey, BadMeasurement."""
    found = Trust.from_json(wire.decode(data, max_bytes=DOCUMENT))
    if found.parties or found.appraisal is not None:
        raise BadField("reference values pin a party, or hold an appraisal policy")
    return found


def withdrawn(envelope: Envelope) -> str:
    """The digest of the proposal that a withdrawal names, unverified. Raises WireError and its leaves."""
    f = Fields(wire.decode(envelope.expect(wire.media_type("withdrawal")), max_bytes=4096), "withdrawal")
    return Withdrawal(f.digest("contract"), f.name("party"), f.integer("at"), f.text("reason", max_chars=400)).contract


def _card(data: bytes) -> Said:
    party = Party.parse(data)
    return Said(wire.digest(data), "", f"{party.name}, {party.fingerprint}")


def _reference(data: bytes) -> Said:
    found = reference_of(data)
    return Said(wire.digest(data), "", f"{len(found.measurements)} measurements, {len(found.logs)} logs")


def _ledger(data: bytes) -> Said:
    head = Heads.parse(data).checkpoint
    return Said(wire.digest(data), "", f"{head.size} entries of {head.origin}")


def _manifest(data: bytes) -> Said:
    manifest = Offered.parse(data).signed().manifest
    return Said(wire.digest(data), "", f"{manifest.owner}/{manifest.name}")


def _code(data: bytes) -> Said:
    return Said(wire.digest(data), "", f"{len(CodeBundle.parse(data).files)} files")


def _trial(data: bytes) -> Said:
    trial = Trial.parse(data)
    return Said(wire.digest(data), "", f"{len(trial.outputs)} outputs, {len(trial.refused)} refused")


def _signed(data: bytes) -> tuple[Proposal, str]:
    envelope = Envelope.parse(data)
    proposal, by = Proposal.open(envelope)
    if len(by) != 1:
        raise BadField("it does not bear exactly one signature")
    return proposal, next(iter(by))


def _proposal(data: bytes) -> Said:
    proposal, by = _signed(data)
    if by != proposal.proposer:
        raise BadField("a proposal comes with its proposer's signature")
    return Said(wire.digest(data), proposal.digest, proposal.title)


def _approval(data: bytes) -> Said:
    proposal, by = _signed(data)
    if by == proposal.proposer:
        raise BadField("an approval is another's than the proposer's")
    return Said(wire.digest(data), proposal.digest, f"by {by}")


def _withdrawal(data: bytes) -> Said:
    return Said(wire.digest(data), withdrawn(Envelope.parse(data)), "")


def _note(data: bytes) -> Said:
    note = Note.parse(Envelope.parse(data).expect(NOTE_TYPE))
    return Said(wire.digest(data), note.proposal, f"{note.kind} by {note.party}")


def _receipt(data: bytes) -> Said:
    bundle = Bundle.parse(data)
    return Said(bundle.receipt.digest, bundle.contract.digest, bundle.receipt.digest)


def _delivery(data: bytes) -> Said:
    found = Delivery.parse(data)
    return Said(wire.digest(data), found.contract, f"{found.output} to {', '.join(sorted(found.keys))}")


def _box(data: bytes) -> Said:
    found = Box.parse(data)
    return Said(wire.digest(data), found.contract, f"{found.output}, reviewed by {', '.join(sorted(found.copies))}")


def _verdict(data: bytes) -> Said:
    found = Verdict.peek(Envelope.parse(data))
    return Said(wire.digest(data), found.contract, f"{'passed' if found.passed else 'refused'} by {found.reviewer}")


_READ: Mapping[Kind, Callable[[bytes], Said]] = {
    Kind.CARD: _card,
    Kind.REFERENCE: _reference,
    Kind.LEDGER: _ledger,
    Kind.MANIFEST: _manifest,
    Kind.CODE: _code,
    Kind.TRIAL: _trial,
    Kind.PROPOSAL: _proposal,
    Kind.APPROVAL: _approval,
    Kind.WITHDRAWAL: _withdrawal,
    Kind.NOTE: _note,
    Kind.RECEIPT: _receipt,
    Kind.DELIVERY: _delivery,
    Kind.BOX: _box,
    Kind.VERDICT: _verdict,
}


def said(kind: Kind, data: bytes) -> Said:
    """Read an item of a kind that is a document.

    Args:
        kind: none of ``PLAIN``.
        data: its bytes. Untrusted.

    Raises:
        CarriedBadItem: it is not of that kind.
    """
    try:
        return _READ[kind](data)
    except StrongroomError as error:
        raise CarriedBadItem(f"an item is no {kind}: {error.code}") from error
