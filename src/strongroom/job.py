"""A job: a run that a party asked for and that waits for its turn, and what its parties may say of it.

A queue is whoever holds the parties' signed requests and brings them to enclaves in turn. It is trusted by nobody: it can
lose or withhold a job, and neither make one nor have one run twice, since a run id has one keyset at every broker
(``spec/release.md``, D15). See ``spec/job.md``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from . import wire
from .contract import Proposal, require_asked
from .errors import BadField, NotAParty
from .party import SigningKey, VerifyKey
from .wire import JSON, Envelope, Fields

CANCEL_TYPE: Final = wire.media_type("cancel")
LIST_TYPE: Final = wire.media_type("jobs-request")
CANCEL_SECONDS: Final = 600
LIST_SECONDS: Final = 120  # short: within it a copy hears as much as its party
MAX_REQUEST_BYTES: Final = 4096


class JobState(StrEnum):
    """Where a job stands.

    ``lost``: its enclave ended after a broker had released a key, and left no receipt. ``expired``: its request ended before
    its turn came.
    """

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    EXPIRED = "expired"

    @property
    def over(self) -> bool:
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its queue tells of it. From a queue it is **untrusted.**

    Attributes:
        party: who asked.
        until: the last second at which it may begin, Unix.
        code, message: what went wrong last, or ``""``.
        receipt: the digest of its receipt, or ``""``.
        tries: how often an enclave began it.
        cancelled: whether somebody who may has cancelled it.
    """

    run_id: str
    contract: str
    party: str
    state: JobState
    created_at: int
    started_at: int | None
    ended_at: int | None
    until: int
    code: str
    message: str
    receipt: str
    tries: int
    cancelled: bool

    @classmethod
    def from_json(cls, value: object) -> Job:
        """Raises BadField."""
        f = Fields(value, "job")

        def at(item: object) -> int:
            return Fields({"at": item}, "job").integer("at")

        found = cls(
            run_id=f.hex("run_id", size=16).hex(),
            contract=f.digest("contract"),
            party=f.name("party"),
            state=JobState(f.text("state", choices=list(JobState))),
            created_at=f.integer("created_at"),
            started_at=f.optional("started_at", at),
            ended_at=f.optional("ended_at", at),
            until=f.integer("until"),
            code=f.text("code", max_chars=64),
            message=f.text("message", max_chars=500),
            receipt=f.text("receipt", max_chars=71),
            tries=f.integer("tries"),
            cancelled=f.boolean("cancelled"),
        )
        f.end()
        return found

    def to_json(self) -> dict[str, JSON]:
        return {
            "cancelled": self.cancelled,
            "code": self.code,
            "contract": self.contract,
            "created_at": self.created_at,
            "ended_at": self.ended_at,
            "message": self.message,
            "party": self.party,
            "receipt": self.receipt,
            "run_id": self.run_id,
            "started_at": self.started_at,
            "state": self.state.value,
            "tries": self.tries,
            "until": self.until,
        }


@dataclass(frozen=True, slots=True)
class Cancel:
    """A party's word that a run shall not be, or shall end.

    Attributes:
        contract: the digest.
        party: who says so.
        run_id: which run.
        at: Unix seconds, as the party says.
    """

    contract: str
    party: str
    run_id: str
    at: int

    def encode(self) -> bytes:
        return wire.encode({"at": self.at, "contract": self.contract, "party": self.party, "run_id": self.run_id})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(CANCEL_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> Cancel:
        """What it says, **unverified**: to find the contract. Raises WireError."""
        f = Fields(wire.decode(envelope.expect(CANCEL_TYPE), max_bytes=MAX_REQUEST_BYTES), "cancel")
        found = cls(f.digest("contract"), f.name("party"), f.hex("run_id", size=16).hex(), f.integer("at"))
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal, at: int) -> Cancel:
        """Signed by a party of this contract, now. Raises NotAParty, BadSignature, BadField, WireError.

        Whether that party may cancel this run is for :func:`require_may_cancel`, and for who knows who asked for it.
        """
        found = cls.peek(envelope)
        require_asked(envelope, CANCEL_TYPE, proposal, found, at, seconds=CANCEL_SECONDS)
        return found


def may_cancel(proposal: Proposal, asked_by: str) -> frozenset[str]:
    """Who may cancel a run: the party that asked for it, and every owner of an asset that it reads.

    Args:
        proposal: of the contract.
        asked_by: the party whose run request it is.
    """
    return frozenset({asked_by, *(ref.owner for ref in proposal.assets)})


def require_may_cancel(proposal: Proposal, party: str, asked_by: str) -> None:
    """Raises NotAParty: it is no run of this party, and reads nothing of it."""
    if party not in may_cancel(proposal, asked_by):
        raise NotAParty(
            f"{party!r} did not ask for this run, and owns none of its inputs",
            hint="Those may cancel it. Any party may stop every later release: strongroom withdraw",
        )


def cancelled(proposal: Proposal, asked_by: str, run_id: str, said: Mapping[str, Collection[str]]) -> bool:
    """Whether a run was cancelled by somebody who may.

    Args:
        proposal: of the contract.
        asked_by: the party whose run request it is.
        run_id: which run.
        said: run id -> the parties of the contract that cancelled it.
    """
    return not may_cancel(proposal, asked_by).isdisjoint(said.get(run_id, ()))


@dataclass(frozen=True, slots=True)
class JobsRequest:
    """Somebody's request to see the jobs of the contracts that they are a party to: who holds the key that signs it.

    Attributes:
        key: the party's signing key; its jobs are those of contracts that name this key.
        at: Unix seconds, as the party says.
    """

    key: VerifyKey
    at: int

    def encode(self) -> bytes:
        return wire.encode({"at": self.at, "key": wire.b64(self.key.raw)})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(LIST_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, at: int) -> JobsRequest:
        """Signed by the very key that it names, now. Raises BadSignature, BadField, WireError, BadKey."""
        f = Fields(wire.decode(envelope.expect(LIST_TYPE), max_bytes=MAX_REQUEST_BYTES), "request")
        found = cls(VerifyKey(f.base64("key", max_bytes=32)), f.integer("at"))
        f.end()
        found.key.verify(envelope, LIST_TYPE)
        if not -LIST_SECONDS <= at - found.at <= LIST_SECONDS:
            raise BadField("request.at is not now", hint="Compare the two clocks.")
        return found
