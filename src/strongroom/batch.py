"""How the receipts of requests come into the log: an enclave's signed list of their digests, and by what right it adds them.

A request's receipt is for its client alone, so that a log is given its digest and nothing else of it. That not anybody fills
a log with digests of nothing, a batch is signed by the run-receipt key of a keyset to which every owner's broker gave a
lease under the contract.

See ``spec/ledger.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from . import parts, wire
from .attest.keyset import Keyset
from .contract import AssetRef, Contract
from .drawing import agreed
from .errors import BadBatch, BadDrawing, BadField
from .ledger import Entry
from .party import SigningKey
from .release import RELEASE_TYPE, ReleaseStatement, run_subject
from .wire import JSON, Envelope, Fields

BATCH_TYPE: Final = wire.media_type("receipt-batch")
PURPOSE: Final = "strongroom.receipt-batch.v1"
MAX_RECEIPTS: Final = 1000
MAX_BATCH_BYTES: Final = 1 << 20
AFTER_LEASE_S: Final = 86_400
"""For how long after its last lease an enclave may still bring what it served, seconds."""


def _digests(f: Fields, name: str) -> tuple[str, ...]:
    return f.items(name, lambda item: Fields({"digest": item}, name).digest("digest"), low=1, high=MAX_RECEIPTS)


@dataclass(frozen=True, slots=True)
class Batch:
    """What an enclave signs: that these are receipts of requests under a contract.

    Args:
        contract: its digest.
        keyset_digest: of the keyset that signs.
        run_id: of the run request by which the room was opened, 16 bytes in hex.
        receipts: digests of receipts, 1 to 1,000, sorted and distinct.

    Raises:
        BadField: not so.
        BadBatch: not sorted and distinct.
    """

    contract: str
    keyset_digest: str
    run_id: str
    receipts: tuple[str, ...]

    def __post_init__(self) -> None:
        f = Fields(self.to_json(), "batch")
        f.digest("contract")
        f.digest("keyset_digest")
        f.hex("run_id", size=16)
        if list(_digests(f, "receipts")) != sorted(set(self.receipts)):
            raise BadBatch("the receipts of a batch are not sorted and distinct")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What the log is to hold of it."""
        return tuple(Entry("receipt", self.contract, digest) for digest in self.receipts)

    def to_json(self) -> dict[str, JSON]:
        return {
            "contract": self.contract,
            "keyset_digest": self.keyset_digest,
            "purpose": PURPOSE,
            "receipts": [*self.receipts],
            "run_id": self.run_id,
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Batch:
        """Raises WireError and its leaves, BadBatch."""
        f = Fields(wire.decode(data, max_bytes=MAX_BATCH_BYTES), "batch")
        f.literal("purpose", PURPOSE)
        found = cls(f.digest("contract"), f.digest("keyset_digest"), f.hex("run_id", size=16).hex(), _digests(f, "receipts"))
        f.end()
        return found

    def sign(self, key: SigningKey) -> Envelope:
        """``key``: the run-receipt key of the keyset."""
        return key.sign(BATCH_TYPE, self.encode())


@dataclass(frozen=True, slots=True)
class Submission:
    """A signed batch with what shows that it may be logged. **Untrusted**, until :func:`admissible` has looked at it.

    Args:
        batch: the envelope of a :class:`Batch`.
        keyset: that signs it.
        leases: the brokers' signed leases to that keyset, one for each asset of the contract, in their order; of an asset
            whose key was shared one for each share that it took, and of a source that the room does without none.
        enrolments: of assets whose keys were shared, as their owners signed them, in the order of the assets.
    """

    batch: Envelope
    keyset: Keyset
    leases: tuple[Envelope, ...]
    enrolments: tuple[Envelope, ...] = ()

    def encode(self) -> bytes:
        enrolments: dict[str, JSON] = {"enrolments": [e.to_json() for e in self.enrolments]} if self.enrolments else {}
        return wire.encode(
            enrolments
            | {
                "batch": self.batch.to_json(),
                "keyset": self.keyset.to_json(),
                "leases": [lease.to_json() for lease in self.leases],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Submission:
        """Raises WireError and its leaves, BadKeyset."""
        f = Fields(wire.decode(data, max_bytes=MAX_BATCH_BYTES), "submission")
        found = cls(
            Envelope.from_json(f.any("batch")),
            Keyset.from_json(f.any("keyset")),
            f.items("leases", Envelope.from_json, low=1, high=64),
            f.items("enrolments", Envelope.from_json, low=1, high=64) if f.has("enrolments") else (),
        )
        f.end()
        return found

    @property
    def contract(self) -> str:
        """The contract that it names, **untrusted**. Raises WireError, BadBatch."""
        return Batch.parse(self.batch.expect(BATCH_TYPE)).contract


def batches(contract: str, keyset: Keyset, run_id: str, receipts: Iterable[str], key: SigningKey) -> Iterable[Envelope]:
    """As many signed batches as it takes.

    Args:
        contract: its digest.
        keyset: the enclave's own.
        run_id: of the run request by which the room was opened.
        receipts: their digests, in any order.
        key: the keyset's run-receipt key.
    """
    due = sorted(set(receipts))
    for start in range(0, len(due), MAX_RECEIPTS):
        yield Batch(contract, keyset.digest, run_id, tuple(due[start : start + MAX_RECEIPTS])).sign(key)


def admissible(submission: Submission, contract: Contract, at: int) -> Batch:
    """Whether a log may take a batch in: that every owner let this very enclave serve under this contract.

    Owners of the contract's sources may have refused: the room goes on without a source, and its receipts are logged all
    the same. A lease of a source that was given is held against everything but the time since it ended.

    Nothing is said of the enclave or of what it served: no evidence is looked at, and no receipt. Whoever relies on a
    receipt verifies it (``inference.verification``).

    Args:
        submission: untrusted.
        contract: completely signed.
        at: the log's clock, Unix seconds.

    Raises:
        BadBatch: the contract is no standing one, the keyset is another or was made for another run, a lease is missing, for
            something else, or ended longer ago than ``AFTER_LEASE_S``.
        Expired, NotYetValid: a lease was given while the contract was not in force.
        BadSignature, BadEnvelope, BadKeyset, BadRelease, WireError: the batch is not signed by the keyset's run-receipt key,
            or a lease not by its owner's broker, or by one that holds a share. BadEnrolment.
    """
    batch = Batch.parse(submission.keyset.run_receipt_key.verify(submission.batch, BATCH_TYPE))
    if not contract.proposal.standing:
        raise BadBatch("receipts of requests are logged under standing contracts alone")
    bound = (contract.digest, submission.keyset.digest, run_subject(contract.digest, batch.run_id))
    if (batch.contract, batch.keyset_digest, submission.keyset.subject) != bound:
        raise BadBatch("the batch is of another contract, or its keyset of another run")
    shared = parts.enrolled(submission.enrolments, contract, BadBatch)
    sources = _sources(contract)
    leases = list[ReleaseStatement]()
    assets = _present(parts.wanted(contract, shared), submission.leases, sources - set(shared))
    if len(submission.leases) != len(assets):
        raise BadBatch("there is not exactly one lease for each asset of the contract, or for each share of it")
    for ref, envelope in zip(assets, submission.leases, strict=True):
        broker = contract.proposal.party(ref.owner).broker_key
        lease = parts.released(envelope, shared.get(ref.role), broker, BadBatch)
        contract.require_in_force(lease.at)
        named = (lease.contract, lease.manifest, lease.keyset_digest, lease.run_id)
        if named != (contract.digest, ref.manifest, batch.keyset_digest, batch.run_id):
            raise BadBatch(f"the lease of {ref.role!r} is for another contract, asset, enclave or run")
        if lease.until is None or (at > lease.until + AFTER_LEASE_S and ref.role not in sources):
            raise BadBatch(f"the lease of {ref.role!r} is none, or ended too long ago")
        leases.append(lease)
    parts.require_one_slot(shared, leases, BadBatch)
    return batch


def _sources(contract: Contract) -> frozenset[str]:
    """The roles that a room does without, where their owners give no lease; none where that cannot be read."""
    try:
        return frozenset(agreed(contract.proposal.program.parameters))
    except (BadField, BadDrawing):
        return frozenset()


def _present(assets: list[AssetRef], leases: tuple[Envelope, ...], spared: frozenset[str]) -> list[AssetRef]:
    """The assets without those that may be left out and are. Raises WireError."""
    found: list[AssetRef] = []
    for ref in assets:
        if ref.role not in spared or (len(found) < len(leases) and _manifest(leases[len(found)]) == ref.manifest):
            found.append(ref)
    return found


def _manifest(lease: Envelope) -> str:
    """The asset that a lease says it is of, **unverified**. Raises WireError."""
    return Fields(wire.decode(lease.expect(RELEASE_TYPE), max_bytes=MAX_BATCH_BYTES), "release").digest("manifest")


__all__ = [
    "AFTER_LEASE_S",
    "BATCH_TYPE",
    "MAX_BATCH_BYTES",
    "MAX_RECEIPTS",
    "Batch",
    "Submission",
    "admissible",
    "batches",
]
