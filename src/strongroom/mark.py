"""The mark: how far a broker's book has come, kept where no backup of the book reaches.

A book counts its own changes: every run, slot and charge, every withdrawal, every dealing and recall is one more, and each
has a *head*, a digest over all that came before. The broker signs number and head as its mark, and leaves it with witnesses
(the machine's memory, and the exchange) before what it counted leaves the broker. A book that was put back from a backup,
lost, or copied to a second broker does not have the head that a witness knows; it gives nothing until its owner confirms.

A witness is trusted with nothing but to keep: it can hide a mark or refuse one, and cannot make one.

See ``spec/mark.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from . import wire
from .errors import BookRestored
from .party import SigningKey, VerifyKey
from .wire import Envelope, Fields

MARK_TYPE = wire.media_type("mark")
PURPOSE = "strongroom.mark.v1"
MAX_NUMBER = 1 << 48


class Place(NamedTuple):
    """How far a book has come: how many changes, and the head over them."""

    number: int
    head: str


def onward(place: Place, what: bytes) -> Place:
    """The place of a book after one more change.

    Args:
        place: where it was.
        what: the change, in whatever bytes tell it from others.
    """
    return Place(place.number + 1, wire.digest(place.head.encode() + what))


@dataclass(frozen=True, slots=True)
class Mark:
    """A broker's word of how far its book has come. **Untrusted** unless :meth:`verify` made it.

    Attributes:
        broker: whose; it signs.
        number, head: the place.
        after: the head of the mark that this one follows at the witness; ``""`` where that knows none.
        at: the broker's clock, Unix seconds.
    """

    broker: VerifyKey
    number: int
    head: str
    after: str
    at: int

    @classmethod
    def of(cls, broker: VerifyKey, place: Place, follows: Mark | None, at: int) -> Mark:
        """The mark of a book that came to this place, behind the one that its witness has."""
        return cls(broker, place.number, place.head, "" if follows is None else follows.head, at)

    @property
    def place(self) -> Place:
        return Place(self.number, self.head)

    def encode(self) -> bytes:
        return wire.encode(
            {
                "after": self.after or None,
                "at": self.at,
                "broker_key": wire.b64(self.broker.raw),
                "head": self.head,
                "number": self.number,
                "purpose": PURPOSE,
            }
        )

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(MARK_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> Mark:
        """What it says, **unverified**. Raises BadEnvelope, WireError, BadKey."""
        f = Fields(wire.decode(envelope.expect(MARK_TYPE), max_bytes=4096), "mark")
        f.literal("purpose", PURPOSE)
        found = cls(
            broker=VerifyKey(f.base64("broker_key")),
            number=f.integer("number", low=1, high=MAX_NUMBER),
            head=f.digest("head"),
            after=f.optional("after", lambda v: Fields({"after": v}, "mark").digest("after")) or "",
            at=f.integer("at"),
        )
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, broker: VerifyKey | None = None) -> Mark:
        """A mark of this broker, or of the one that it names.

        Raises:
            BadEnvelope, BadSignature, WireError, BadKey.
        """
        (broker or cls.peek(envelope).broker).verify(envelope, MARK_TYPE)
        return cls.peek(envelope)


def follows(new: Mark, old: Mark | None) -> bool:
    """Whether a witness that knows the one mark of a broker takes the other in its place (M2)."""
    return old is None or new.place == old.place or (new.number > old.number and new.after == old.head)


def require_known(mark: Mark | None, head_at: Callable[[int], str | None]) -> None:
    """M3: what the witness knows is in the book.

    Args:
        mark: the newest that the witness has, verified; ``None`` where it has none.
        head_at: the head that the book has of a number; ``None`` where it has not come so far.

    Raises:
        BookRestored: the book was put back from a backup, was lost, or is at work in another place too.
    """
    if mark is None:
        return
    found = head_at(mark.number)
    if found is None:
        raise BookRestored(f"the book has forgotten changes: there were {mark.number} or more")
    if found != mark.head:
        raise BookRestored(f"the book has another change {mark.number} than the one that was given out of it")
