"""What an owner and the brokers that hold its shares say to each other: dealing, recalling, and the owner's word.

An owner *deals*: each broker gets its share, encrypted to it, with the enrolment and what was given before. To deal anew
the owner *recalls*: a broker that obeys gives nothing more in that epoch, and answers with its share, encrypted to the
owner, and with every slot that it gave. Of any ``t`` brokers' answers the slots of every key that was ever opened can be
told, so that a new epoch gives none of them to somebody else.

What an owner tells its own broker by writing into the book reaches other people's brokers as its signed *word*.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from . import wire
from .asset import Manifest, verify_manifest
from .errors import BadEnrolment, BadField, BadShare
from .party import DecryptionKey, EncryptionKey, SigningKey, VerifyKey
from .threshold import MAX_EPOCH, MAX_HOLDERS, MAX_SLOT, Enrolment, HolderCard, Share
from .wire import JSON, Envelope, Fields

DEAL_TYPE = wire.media_type("deal")
RECALL_TYPE = wire.media_type("recall")
RECALLED_TYPE = wire.media_type("recalled")
WORD_TYPE = wire.media_type("word")
DEAL_PURPOSE = "strongroom.deal.v1"
RECALL_PURPOSE = "strongroom.recall.v1"
RECALLED_PURPOSE = "strongroom.recalled.v1"
WORD_PURPOSE = "strongroom.word.v1"
MAX_TAKEN = 4096  # slots of contracts that are still in force; a document holds no more values than it may
MAX_WITHDRAWN = 1024  # contracts of one asset that parties withdrew from
MAX_DEAL_BYTES = 3 << 20
SKEW_SECONDS = 300  # that a broker's clock may be before or behind an owner's
TOO_MANY = "Seal the asset anew under another key, and share that one."
_MAX_ENCRYPTED = 4096


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot that was given.

    Attributes:
        contract: the contract's digest.
        slot: from 1.
        keyset: the digest of the keyset that has it; ``None`` where two were said to have it: it is nobody's.
    """

    contract: str
    slot: int
    keyset: str | None

    def to_json(self) -> dict[str, JSON]:
        return {"contract": self.contract, "keyset": self.keyset, "slot": self.slot}

    @classmethod
    def from_json(cls, value: object) -> Taken:
        f = Fields(value, "taken")
        found = cls(
            contract=f.digest("contract"),
            slot=f.integer("slot", low=1, high=MAX_SLOT),
            keyset=f.optional("keyset", lambda v: Fields({"keyset": v}, "taken").digest("keyset")),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True, order=True)
class Withdrawn:
    """That a party withdrew from a contract.

    Attributes:
        contract: the contract's digest.
        party: who.
    """

    contract: str
    party: str

    def to_json(self) -> dict[str, JSON]:
        return {"contract": self.contract, "party": self.party}

    @classmethod
    def from_json(cls, value: object) -> Withdrawn:
        f = Fields(value, "withdrawn")
        found = cls(f.digest("contract"), f.name("party"))
        f.end()
        return found


def merged(one: str | None, other: str | None) -> str | None:
    """The keyset of a slot of which two say something: nobody's where they differ."""
    return one if one == other else None


def _taken(f: Fields) -> tuple[Taken, ...]:
    found: tuple[Taken, ...] = f.items("taken", Taken.from_json, high=MAX_TAKEN)
    places = [(t.contract, t.slot) for t in found]
    if places != sorted(set(places)):
        raise BadField("taken is not sorted and distinct")
    return found


def _withdrawn(f: Fields) -> tuple[Withdrawn, ...]:
    """A member that is there only where somebody withdrew: brokers that do not know it yet read all else (T11)."""
    if not f.has("withdrawn"):
        return ()
    found: tuple[Withdrawn, ...] = f.items("withdrawn", Withdrawn.from_json, low=1, high=MAX_WITHDRAWN)
    if list(found) != sorted(set(found)):
        raise BadField("withdrawn is not sorted and distinct")
    return found


def _said(withdrawn: Iterable[Withdrawn], **times: int) -> dict[str, JSON]:
    """The members that an older form does not have, where they say something."""
    listed = [w.to_json() for w in withdrawn]
    found: dict[str, JSON] = {"withdrawn": [*listed]} if listed else {}
    return found | {name: at for name, at in times.items() if at}


def together(accounts: Iterable[Iterable[Taken]]) -> tuple[Taken, ...]:
    """What a new epoch must not give to another: every slot of every account; nobody's where two accounts differ."""
    found: dict[tuple[str, int], str | None] = {}
    for account in accounts:
        for t in account:
            place = (t.contract, t.slot)
            found[place] = merged(found.get(place, t.keyset), t.keyset)
    return tuple(Taken(*place, keyset) for place, keyset in sorted(found.items()))


def _binding(purpose: str, *, enrolment: str, index: int, broker: str) -> bytes:
    """What a share is bound to on its way: the HPKE ``info``, canonical JSON."""
    return wire.encode({"broker": broker, "enrolment": enrolment, "index": index, "purpose": purpose})


@dataclass(frozen=True, slots=True)
class Deal:
    """A share on its way from the owner to one broker. **Untrusted** unless :meth:`verify` made it.

    Attributes:
        enrolment, manifest: as the owner signed them.
        index: which share.
        share: its document, encrypted to the broker's share key; it is kept so.
        taken: what was given in earlier epochs, sorted.
        withdrawn: which parties withdrew from which contracts, as brokers of the epoch before knew, sorted.
        over: contracts that had begun then, Unix seconds, are over: nobody knows all that was given under them. 0: none.
        restored: what this broker's account of the epoch before said of itself: it counts in full from here. 0: nothing.
    """

    enrolment: Envelope
    manifest: Envelope
    index: int
    share: bytes
    taken: tuple[Taken, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
    over: int = 0
    restored: int = 0

    @classmethod
    def make(
        cls,
        enrolment: Envelope,
        manifest: Envelope,
        share: Share,
        card: HolderCard,
        taken: tuple[Taken, ...] = (),
        *,
        withdrawn: tuple[Withdrawn, ...] = (),
        over: int = 0,
        restored: int = 0,
    ) -> Deal:
        """For the broker of this card."""
        info = _binding(DEAL_PURPOSE, enrolment=enrolment.digest, index=share.index, broker=card.broker_key.keyid)
        encrypted = card.share_key.encrypt(share.encode(), info=info)
        return cls(enrolment, manifest, share.index, encrypted, taken, withdrawn, over, restored)

    def encode(self) -> bytes:
        return wire.encode(
            {
                **_said(self.withdrawn, over=self.over, restored=self.restored),
                "enrolment": self.enrolment.to_json(),
                "index": self.index,
                "manifest": self.manifest.to_json(),
                "purpose": DEAL_PURPOSE,
                "share": wire.b64(self.share),
                "taken": [t.to_json() for t in self.taken],
            }
        )

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(DEAL_TYPE, self.encode())

    @classmethod
    def parse(cls, data: bytes) -> Deal:
        """Raises WireError and its leaves."""
        f = Fields(wire.decode(data, max_bytes=MAX_DEAL_BYTES), "deal")
        f.literal("purpose", DEAL_PURPOSE)
        found = cls(
            enrolment=Envelope.from_json(f.any("enrolment")),
            manifest=Envelope.from_json(f.any("manifest")),
            index=f.integer("index", low=1, high=MAX_HOLDERS),
            share=f.base64("share", max_bytes=_MAX_ENCRYPTED),
            taken=_taken(f),
            withdrawn=_withdrawn(f),
            over=f.integer("over", low=1) if f.has("over") else 0,
            restored=f.integer("restored", low=1) if f.has("restored") else 0,
        )
        f.end()
        return found

    def require_past(self, at: int) -> None:
        """Require that the deal ends nothing that is still to come. Raises BadField. ``at``: the broker's clock."""
        if self.over > at + SKEW_SECONDS:
            raise BadField("deal.over is still to come")

    @classmethod
    def verify(cls, envelope: Envelope, *, owner: str, key: VerifyKey) -> tuple[Deal, Enrolment, Manifest]:
        """What an owner dealt: the deal, its enrolment and its manifest. Whether the share is whole: :meth:`open`.

        Args:
            envelope: untrusted.
            owner: the owner's name.
            key: the owner's signing key, pinned.

        Raises:
            BadEnvelope, BadSignature, WireError, BadKey, BadEnrolment.
        """
        deal = cls.parse(key.verify(envelope, DEAL_TYPE))
        manifest = verify_manifest(deal.manifest, key).manifest
        enrolment = Enrolment.verify(deal.enrolment, manifest=manifest.digest, owner=owner, key=key)
        if manifest.owner != owner:
            raise BadEnrolment("the asset is another owner's")
        return deal, enrolment, manifest

    def open(self, enrolment: Enrolment, *, broker: VerifyKey, key: DecryptionKey) -> Share:
        """The share, for the broker that it is for.

        Args:
            enrolment: this deal's, verified.
            broker: the broker's own key.
            key: the private half of its share key.

        Raises:
            BadShare: the enrolment names another broker for this share, or another share (T5).
            BadKey: encrypted to another, or for another epoch, asset or broker.
        """
        if enrolment.index(broker) != self.index:
            raise BadShare("the share is another broker's")
        info = _binding(DEAL_PURPOSE, enrolment=enrolment.digest, index=self.index, broker=broker.keyid)
        return enrolment.require(key.decrypt(self.share, info=info), self.index)


@dataclass(frozen=True, slots=True)
class Recall:
    """An owner's order: give nothing more in this epoch, and account for it."""

    manifest: str
    owner: str
    epoch: int

    def encode(self) -> bytes:
        return wire.encode({"epoch": self.epoch, "manifest": self.manifest, "owner": self.owner, "purpose": RECALL_PURPOSE})

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(RECALL_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> Recall:
        """What the order says, **unverified**: to find whose it claims to be."""
        f = Fields(wire.decode(envelope.expect(RECALL_TYPE), max_bytes=4096), "recall")
        f.literal("purpose", RECALL_PURPOSE)
        found = cls(f.digest("manifest"), f.name("owner"), f.integer("epoch", low=1, high=MAX_EPOCH))
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, key: VerifyKey) -> Recall:
        """Raises BadSignature, BadEnvelope, WireError. ``key``: the owner's signing key."""
        key.verify(envelope, RECALL_TYPE)
        return cls.peek(envelope)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A broker's answer to a recall. Signed by its broker key.

    Attributes:
        enrolment: digest of the enrolment that it holds its share under.
        index: which share.
        share: its document, encrypted to the owner.
        taken: every slot that it gave or was told of, sorted.
        withdrawn: which parties withdrew from which contracts, as far as it knows, sorted.
        restored: its book was put back from a backup: of what had begun then, Unix seconds, ``taken`` may leave out
            something. 0: never.
    """

    enrolment: str
    index: int
    share: bytes
    taken: tuple[Taken, ...]
    withdrawn: tuple[Withdrawn, ...] = ()
    restored: int = 0

    @classmethod
    def make(
        cls,
        enrolment: Enrolment,
        share: Share,
        taken: Iterable[Taken],
        *,
        broker: VerifyKey,
        owner: EncryptionKey,
        withdrawn: Iterable[Withdrawn] = (),
        restored: int = 0,
    ) -> Recalled:
        """An account by this broker, with its share encrypted to the owner."""
        info = _binding(RECALLED_PURPOSE, enrolment=enrolment.digest, index=share.index, broker=broker.keyid)
        found = tuple(sorted(taken, key=lambda t: (t.contract, t.slot)))
        encrypted = owner.encrypt(share.encode(), info=info)
        return cls(enrolment.digest, share.index, encrypted, found, tuple(sorted(set(withdrawn))), restored)

    def encode(self) -> bytes:
        return wire.encode(
            {
                **_said(self.withdrawn, restored=self.restored),
                "enrolment": self.enrolment,
                "index": self.index,
                "purpose": RECALLED_PURPOSE,
                "share": wire.b64(self.share),
                "taken": [t.to_json() for t in self.taken],
            }
        )

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(RECALLED_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, enrolment: Enrolment, index: int, at: int) -> Recalled:
        """An account of the broker that holds this share.

        Args:
            envelope: untrusted.
            enrolment: verified; of the epoch that was recalled.
            index: of the share.
            at: when the account came, Unix seconds: what it lost it lost before.

        Raises:
            BadSignature, BadEnvelope, WireError. BadShare: of another enrolment or share. BadField: it says that it lost
            what is still to come, which would end what nobody agreed on yet, and excuse it from what it then gives.
        """
        broker = enrolment.holder(index).broker_key
        f = Fields(wire.decode(broker.verify(envelope, RECALLED_TYPE), max_bytes=MAX_DEAL_BYTES), "recalled")
        f.literal("purpose", RECALLED_PURPOSE)
        found = cls(
            enrolment=f.digest("enrolment"),
            index=f.integer("index", low=1, high=MAX_HOLDERS),
            share=f.base64("share", max_bytes=_MAX_ENCRYPTED),
            taken=_taken(f),
            withdrawn=_withdrawn(f),
            restored=f.integer("restored", low=1) if f.has("restored") else 0,
        )
        f.end()
        if (found.enrolment, found.index) != (enrolment.digest, index):
            raise BadShare(f"the broker of {enrolment.holder(index).name!r} accounts for another share")
        if found.restored > at + SKEW_SECONDS:
            raise BadField("recalled.restored is still to come")
        return found

    def open(self, enrolment: Enrolment, key: DecryptionKey) -> Share:
        """The share, for the owner. Raises BadKey, BadShare (T5)."""
        broker = enrolment.holder(self.index).broker_key.keyid
        info = _binding(RECALLED_PURPOSE, enrolment=enrolment.digest, index=self.index, broker=broker)
        return enrolment.require(key.decrypt(self.share, info=info), self.index)


class Says(StrEnum):
    """What an owner says of a contract."""

    APPROVED = "approved"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Word:
    """An owner's word of one contract, to the brokers that hold shares of its assets.

    A signature on the contract is no such word: it may have been given elsewhere, before the owner thought better of it.

    Attributes:
        contract: its digest.
        party: the owner.
        says: that it is approved, or that it was countered or superseded. What ended does not begin again.
        at: Unix seconds, as the owner says.
    """

    contract: str
    party: str
    says: Says
    at: int

    def encode(self) -> bytes:
        return wire.encode(
            {
                "at": self.at,
                "contract": self.contract,
                "party": self.party,
                "purpose": WORD_PURPOSE,
                "says": self.says.value,
            }
        )

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(WORD_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> Word:
        """What it says, **unverified**: to find whose it claims to be."""
        f = Fields(wire.decode(envelope.expect(WORD_TYPE), max_bytes=4096), "word")
        f.literal("purpose", WORD_PURPOSE)
        found = cls(f.digest("contract"), f.name("party"), Says(f.text("says", choices=tuple(Says))), f.integer("at"))
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, key: VerifyKey) -> Word:
        """Raises BadSignature, BadEnvelope, WireError. ``key``: the signing key that is pinned under the party's name."""
        key.verify(envelope, WORD_TYPE)
        return cls.peek(envelope)
