"""Which brokers gave one slot of a contract to two enclaves, as the receipts of the contract prove.

No honest broker does. Two enclaves that each had enough shares of one slot took two releases of it from every broker that
lied for them, and their receipts hold both, signed: whoever has the receipts can show it to anybody who knows that broker's
key. What a broker gave to an enclave that never wrote a receipt is in no receipt.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from strongroom.errors import StrongroomError
from strongroom.party import VerifyKey
from strongroom.receipt import Bundle
from strongroom.release import ReleaseStatement, gave_twice
from strongroom.threshold import ENROLMENT_TYPE, Enrolment
from strongroom.wire import JSON, Envelope


@dataclass(frozen=True, slots=True)
class Lie:
    """One slot that a broker gave twice.

    Attributes:
        name: whose broker, as the owner enrolled it.
        broker: its key, by which both releases are signed.
        slot: which.
        releases: both, as the broker signed them.
        receipts: digests of the receipts that hold them.
    """

    name: str
    broker: VerifyKey
    slot: int
    releases: tuple[Envelope, Envelope]
    receipts: tuple[str, str]

    def to_json(self) -> dict[str, JSON]:
        return {
            "broker": self.broker.keyid,
            "name": self.name,
            "receipts": list(self.receipts),
            "releases": [e.to_json() for e in self.releases],
            "slot": self.slot,
        }


def found(bundles: Iterable[Bundle]) -> list[Lie]:
    """Every lie that these receipts prove, each broker's of each slot once.

    Args:
        bundles: of one contract or several; verified, so that what an enrolment says is its owner's.
    """
    seen: dict[tuple[str, str, str, int], tuple[Envelope, str]] = {}
    lies: dict[tuple[str, str, str, int], Lie] = {}
    for bundle in bundles:
        holders = {
            h.broker_key.keyid: h for e in bundle.enrolments for h in Enrolment.parse(e.expect(ENROLMENT_TYPE)).holders
        }
        for envelope in bundle.releases:
            holder = holders.get(envelope.signatures[0].keyid) if envelope.signatures else None
            statement = None if holder is None else ReleaseStatement.verify(envelope, holder.broker_key)
            if holder is None or statement is None or statement.part is None:
                continue
            place = statement.broker, statement.contract, statement.manifest, statement.part.slot
            first, receipt = seen.setdefault(place, (envelope, bundle.receipt.digest))
            try:
                part = gave_twice(first, envelope, holder.broker_key)
            except StrongroomError:  # to one enclave
                continue
            both = receipt, bundle.receipt.digest
            lies.setdefault(place, Lie(holder.name, holder.broker_key, part.slot, (first, envelope), both))
    return list(lies.values())
