"""A party's request to hear where the runs of its contract are: how far one is is for the contract's parties alone.

See ``spec/run.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from strongroom import wire
from strongroom.contract import Proposal, require_asked
from strongroom.party import SigningKey
from strongroom.wire import Envelope, Fields

REQUEST_TYPE: Final = wire.media_type("progress-request")
REQUEST_SECONDS: Final = 120  # short: within it a copy hears as much as its party
MAX_REQUEST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class GoingRequest:
    """A party's request.

    Attributes:
        contract: the digest.
        party: who asks.
        at: Unix seconds, as the party says.
    """

    contract: str
    party: str
    at: int

    def encode(self) -> bytes:
        return wire.encode({"at": self.at, "contract": self.contract, "party": self.party})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(REQUEST_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> GoingRequest:
        """What it says, **unverified**: to find the contract. Raises WireError."""
        f = Fields(wire.decode(envelope.expect(REQUEST_TYPE), max_bytes=MAX_REQUEST_BYTES), "request")
        found = cls(f.digest("contract"), f.name("party"), f.integer("at"))
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal, at: int) -> GoingRequest:
        """Signed by a party of this contract, now. Raises NotAParty, BadSignature, BadField, WireError."""
        found = cls.peek(envelope)
        require_asked(envelope, REQUEST_TYPE, proposal, found, at, seconds=REQUEST_SECONDS)
        return found
