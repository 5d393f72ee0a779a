"""What a broker that holds shares tells their owner of itself: signed, so that what it says can be held against it.

An owner asks, signed, with a fresh nonce; the broker answers with what concerns this owner's assets and nothing else: which
shares, which contracts, which slots it gave and to whom, how often it refused and why. Two brokers' answers are compared by
whoever asked; an answer and a release of the same broker can prove that it lies (``proof.Papers``).

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import wire
from .errors import BadField
from .holding import Taken, Withdrawn
from .mark import MAX_NUMBER, Place
from .party import SigningKey, VerifyKey
from .threshold import MAX_EPOCH, MAX_HOLDERS
from .wire import JSON, Envelope, Fields

INQUIRY_TYPE = wire.media_type("inquiry")
OVERVIEW_TYPE = wire.media_type("overview")
INQUIRY_PURPOSE = "strongroom.inquiry.v1"
OVERVIEW_PURPOSE = "strongroom.overview.v1"
INQUIRY_SECONDS = 300
MAX_SHARES = 256  # of one owner
MAX_CONTRACTS = 512
MAX_SLOTS = 2048  # the newest
MAX_RELEASES = 128  # the newest
MAX_CODES = 64
MAX_OVERVIEW_BYTES = 3 << 20


@dataclass(frozen=True, slots=True)
class Inquiry:
    """An owner's question to one broker.

    Attributes:
        owner: who asks.
        broker: the id of the key of the broker that is asked.
        nonce: 32 fresh bytes.
        at: the owner's clock, Unix seconds.
    """

    owner: str
    broker: str
    nonce: bytes
    at: int

    def encode(self) -> bytes:
        return wire.encode(
            {
                "at": self.at,
                "broker": self.broker,
                "nonce": self.nonce.hex(),
                "owner": self.owner,
                "purpose": INQUIRY_PURPOSE,
            }
        )

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(INQUIRY_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> Inquiry:
        """What it says, **unverified**: to find whose it claims to be."""
        f = Fields(wire.decode(envelope.expect(INQUIRY_TYPE), max_bytes=4096), "inquiry")
        f.literal("purpose", INQUIRY_PURPOSE)
        found = cls(f.name("owner"), f.digest("broker"), f.hex("nonce", size=32), f.integer("at"))
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, key: VerifyKey, *, broker: VerifyKey, at: int) -> Inquiry:
        """Asked of this broker, now.

        Args:
            envelope: untrusted.
            key: the signing key that is pinned under the owner's name.
            broker: the broker that is asked.
            at: its clock, Unix seconds.

        Raises:
            BadSignature, BadEnvelope, WireError. BadField: of another broker, or too old or too new.
        """
        key.verify(envelope, INQUIRY_TYPE)
        found = cls.peek(envelope)
        if found.broker != broker.keyid:
            raise BadField("inquiry.broker is another broker")
        if abs(found.at - at) > INQUIRY_SECONDS:
            raise BadField("inquiry.at is too far from this broker's clock")
        return found


@dataclass(frozen=True, slots=True)
class ShareHeld:
    """A share that the broker holds.

    Attributes:
        manifest, enrolment: digests.
        epoch, index: which share.
        recalled: it gives nothing more under it.
    """

    manifest: str
    enrolment: str
    epoch: int
    index: int
    recalled: bool

    def to_json(self) -> dict[str, JSON]:
        return {
            "enrolment": self.enrolment,
            "epoch": self.epoch,
            "index": self.index,
            "manifest": self.manifest,
            "recalled": self.recalled,
        }

    @classmethod
    def from_json(cls, value: object) -> ShareHeld:
        f = Fields(value, "share")
        found = cls(
            manifest=f.digest("manifest"),
            enrolment=f.digest("enrolment"),
            epoch=f.integer("epoch", low=1, high=MAX_EPOCH),
            index=f.integer("index", low=1, high=MAX_HOLDERS),
            recalled=f.boolean("recalled"),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class ContractKnown:
    """Where a contract stands at the broker, by what this owner said.

    Attributes:
        contract: the digest.
        approved, ended: the owner's word.
        granted: runs beyond the contract's limit.
    """

    contract: str
    approved: bool
    ended: bool
    granted: int

    def to_json(self) -> dict[str, JSON]:
        return {"approved": self.approved, "contract": self.contract, "ended": self.ended, "granted": self.granted}

    @classmethod
    def from_json(cls, value: object) -> ContractKnown:
        f = Fields(value, "contract")
        found = cls(f.digest("contract"), f.boolean("approved"), f.boolean("ended"), f.integer("granted"))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Refused:
    """How often the broker refused for one reason.

    Attributes:
        contract: the contract's digest.
        code: the stable code of the check that failed.
        count: how often, of what its log still has.
        last: when last, Unix seconds.
    """

    contract: str
    code: str
    count: int
    last: int

    def to_json(self) -> dict[str, JSON]:
        return {"code": self.code, "contract": self.contract, "count": self.count, "last": self.last}

    @classmethod
    def from_json(cls, value: object) -> Refused:
        f = Fields(value, "refused")
        found = cls(f.digest("contract"), f.text("code", max_chars=64), f.integer("count", low=1), f.integer("last"))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Overview:
    """A broker's answer. Signed by its broker key. **Untrusted** unless :meth:`verify` made it, and its word then.

    Attributes:
        owner, nonce: as asked.
        at: the broker's clock, Unix seconds.
        software: the version that it runs.
        place: how far its book has come.
        restored: 0, or up to when what it gave may be forgotten, Unix seconds: the book was put back from a backup.
        shares, contracts, withdrawn, taken, refused, releases: of this owner's assets; the newest, where there are many.
    """

    owner: str
    nonce: bytes
    at: int
    software: str
    place: Place
    restored: int
    shares: tuple[ShareHeld, ...] = ()
    contracts: tuple[ContractKnown, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
    taken: tuple[tuple[str, Taken], ...] = ()
    refused: tuple[Refused, ...] = ()
    releases: tuple[Envelope, ...] = ()

    def encode(self) -> bytes:
        return wire.encode(
            {
                "at": self.at,
                "contracts": [c.to_json() for c in self.contracts],
                "head": self.place.head,
                "nonce": self.nonce.hex(),
                "number": self.place.number,
                "owner": self.owner,
                "purpose": OVERVIEW_PURPOSE,
                "refused": [r.to_json() for r in self.refused],
                "releases": [e.to_json() for e in self.releases],
                "restored": self.restored or None,
                "shares": [s.to_json() for s in self.shares],
                "software": self.software,
                "taken": [{"manifest": manifest, **t.to_json()} for manifest, t in self.taken],
                "withdrawn": [w.to_json() for w in self.withdrawn],
            }
        )

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(OVERVIEW_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, broker: VerifyKey, asked: Inquiry) -> Overview:
        """What this broker answered to exactly this question.

        Raises:
            BadSignature, BadEnvelope, WireError. BadField: it is the answer to another question.
        """
        f = Fields(wire.decode(broker.verify(envelope, OVERVIEW_TYPE), max_bytes=MAX_OVERVIEW_BYTES), "overview")
        f.literal("purpose", OVERVIEW_PURPOSE)
        found = cls(
            owner=f.name("owner"),
            nonce=f.hex("nonce", size=32),
            at=f.integer("at"),
            software=f.text("software", max_chars=64),
            place=Place(f.integer("number", high=MAX_NUMBER), f.digest("head")),
            restored=f.optional("restored", lambda v: Fields({"restored": v}, "overview").integer("restored", low=1)) or 0,
            shares=f.items("shares", ShareHeld.from_json, high=MAX_SHARES),
            contracts=f.items("contracts", ContractKnown.from_json, high=MAX_CONTRACTS),
            withdrawn=f.items("withdrawn", Withdrawn.from_json, high=MAX_CONTRACTS),
            taken=f.items("taken", _taken, high=MAX_SLOTS),
            refused=f.items("refused", Refused.from_json, high=MAX_CODES),
            releases=f.items("releases", Envelope.from_json, high=MAX_RELEASES),
        )
        f.end()
        if (found.owner, found.nonce) != (asked.owner, asked.nonce):
            raise BadField("the overview answers another question")
        return found

    def slots(self, contract: str, manifest: str) -> dict[int, str | None]:
        """Which slots of a contract it gave, or was told of, and to which keyset."""
        return {t.slot: t.keyset for m, t in self.taken if (m, t.contract) == (manifest, contract)}


def _taken(value: object) -> tuple[str, Taken]:
    f = Fields(value, "taken")
    manifest = f.digest("manifest")
    found = Taken.from_json({name: f.any(name) for name in ("contract", "keyset", "slot")})
    f.end()
    return manifest, found


def differing(said: Iterable[tuple[str, object]]) -> dict[object, list[str]]:
    """What is said -> who says it; empty where all say the same.

    Args:
        said: (broker's name, what it says).
    """
    found: dict[object, list[str]] = {}
    for name, what in said:
        found.setdefault(what, []).append(name)
    return found if len(found) > 1 else {}
