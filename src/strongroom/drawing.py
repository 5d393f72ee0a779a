"""What the owner of a source lets models draw from it, at what price, and how an answer's draws become an amount.

A model that retrieves gives every source a weight in each token that it writes: a whole number of grains, of which a token
has ``GRAIN``. What a source is owed follows from those weights and from a price, in integers alone.

Three things say what is allowed. The manifest of a sealed source has its owner's *terms* (:class:`Drawing`). A contract says
what was *agreed* for each source (:class:`Agreed`), which the terms must permit: else no key is released. And the owner may
*revise* the terms at any time (:class:`Revision`): what the newest revision does not permit is not drawn from.

See ``spec/drawing.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from . import wire
from .errors import BadDrawing, BadField, StaleRevision
from .party import SigningKey, VerifyKey
from .wire import JSON, Envelope, Fields

GRAIN: Final = 1 << 20
"""Parts of a token's whole distribution; the same number as ``lm.influence.GRAIN``."""
PER_TOKENS: Final = 1000
"""A price is for so many whole tokens drawn."""

MAX_MODELS: Final = 64
MAX_SOURCES: Final = 16
MAX_TOTAL: Final = 1 << 40
MAX_AMOUNT: Final = 10**12
REVISION_TYPE: Final = wire.media_type("drawing-revision")
MAX_REVISION_BYTES: Final = 16 << 10

_UNIT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}\Z")
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Price:
    """What a thousand tokens drawn cost.

    Attributes:
        amount: whole units, 0 to 10^12.
        unit: its name, such as ``EUR-micro``: a letter, then letters, digits, ``_`` and ``-``, at most 32 in all.

    Raises:
        BadField: an amount out of its range. BadDrawing: not such a name.
    """

    amount: int
    unit: str

    def __post_init__(self) -> None:
        Fields({"price": self.amount}, "drawing").integer("price", high=MAX_AMOUNT)
        if not isinstance(self.unit, str) or not _UNIT.match(self.unit):
            raise BadDrawing("a unit is a letter and at most 31 letters, digits, _ and -")

    def of(self, grains: int) -> int:
        """What so many grains cost, in whole units, rounded down once."""
        return grains * self.amount // (PER_TOKENS * GRAIN)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The terms under which a source may be drawn from.

    Attributes:
        models: ``sha256:`` digests of the weights of the models that may, 1 to 64.
        price: the least that is asked.
        token: grains of one token at most, 1 to ``GRAIN``.
        total: grains of one answer at most, 1 to 2^40.

    Raises:
        BadDrawing, BadField.
    """

    models: frozenset[str]
    price: Price
    token: int = GRAIN
    total: int = MAX_TOTAL

    def __post_init__(self) -> None:
        if not 1 <= len(self.models) <= MAX_MODELS:
            raise BadDrawing(
                f"terms of drawing name 1 to {MAX_MODELS} models by their weights", hint="Nothing means nobody."
            )
        for digest in self.models:
            Fields({"model": digest}, "drawing").digest("model")
        _budget(self.token, self.total)

    def explain(self, asked: Agreed) -> tuple[str, ...]:
        """Where something goes beyond these terms, in words; empty exactly where they permit it."""
        found = []
        if asked.weights not in self.models:
            found.append(f"the model {asked.weights} is none of those that may draw from it")
        if asked.price.unit != self.price.unit:
            found.append(f"it is paid in {asked.price.unit}; its owner asks for {self.price.unit}")
        elif asked.price.amount < self.price.amount:
            paid, least = f"{asked.price.amount:,}", f"{self.price.amount:,} {self.price.unit}"
            found.append(f"{paid} is paid for a thousand tokens drawn; its owner asks for {least}")
        if asked.token > self.token:
            found.append(f"up to {asked.token:,} grains of a token would be drawn; at most {self.token:,} may be")
        if asked.total > self.total:
            found.append(f"up to {asked.total:,} grains of an answer would be drawn; at most {self.total:,} may be")
        return tuple(found)

    def to_json(self) -> dict[str, JSON]:
        return {
            "models": [*sorted(self.models)],
            "price": self.price.amount,
            "token": self.token,
            "total": self.total,
            "unit": self.price.unit,
        }

    @classmethod
    def from_json(cls, value: object) -> Drawing:
        """Read the one form: ``from_json(v).to_json() == v``. Raises BadField, BadDrawing."""
        f = Fields(value, "drawing")
        models = f.items("models", _digest, low=1, high=MAX_MODELS)
        if list(models) != sorted(set(models)):
            raise BadField("drawing.models are not sorted, or one stands twice")
        price = Price(f.integer("price", high=MAX_AMOUNT), f.text("unit", max_chars=32))
        found = cls(frozenset(models), price, f.integer("token"), f.integer("total"))
        f.end()
        return found


def _digest(value: object) -> str:
    return Fields({"model": value}, "drawing").digest("model")


def _budget(token: int, total: int) -> None:
    f = Fields({"token": token, "total": total}, "drawing")
    f.integer("token", low=1, high=GRAIN)
    f.integer("total", low=1, high=MAX_TOTAL)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a contract says of one of its sources.

    Attributes:
        role: of the sealed source among the contract's assets.
        name: of the source in the store.
        weights: ``sha256:`` digest of the weights of the model that draws.
        price: what is paid.
        token, total: grains of one token, and of one answer, at most.
    """

    role: str
    name: str
    weights: str
    price: Price
    token: int
    total: int

    def __post_init__(self) -> None:
        _budget(self.token, self.total)

    def to_json(self) -> dict[str, JSON]:
        return {
            "name": self.name,
            "price": self.price.amount,
            "role": self.role,
            "token": self.token,
            "total": self.total,
            "unit": self.price.unit,
            "weights": self.weights,
        }

    @classmethod
    def from_json(cls, value: object) -> Agreed:
        """Raises BadField, BadDrawing."""
        f = Fields(value, "source")
        name = f.text("name", max_chars=64)
        if not _NAME.match(name):
            raise BadDrawing("a source's name is a letter and at most 63 lower-case letters, digits and . _ -")
        price = Price(f.integer("price", high=MAX_AMOUNT), f.text("unit", max_chars=32))
        found = cls(f.name("role"), name, f.digest("weights"), price, f.integer("token"), f.integer("total"))
        f.end()
        return found


def agreed(parameters: Mapping[str, JSON]) -> Mapping[str, Agreed]:
    """What the parameters of a contract's program say of its sources, by role; nothing where they name none.

    Raises:
        BadField, BadDrawing: they are not in their form, or two have one role or one name.
    """
    if "sources" not in parameters:
        return {}
    listed = Fields(parameters, "parameters").items("sources", Agreed.from_json, high=MAX_SOURCES)
    found = {one.role: one for one in listed}
    if len(found) != len(listed) or len({one.name for one in listed}) != len(listed):
        raise BadDrawing("two sources have one role, or one name")
    return found


def lacking(terms: Drawing | None, role: str, parameters: Mapping[str, JSON]) -> tuple[str, ...]:
    """What keeps an asset from being used in a role, in words; empty where nothing does.

    What has terms of drawing is used as a source, and as nothing else; what has none is no source.

    Args:
        terms: of its manifest, or of the newest revision.
        role: in the contract.
        parameters: of the contract's program, untrusted.
    """
    try:
        asked = agreed(parameters).get(role)
    except (BadField, BadDrawing) as error:
        return (f"{role}: what the contract says of its sources cannot be read: {error.message}",)
    if terms is None:
        return () if asked is None else (f"{role}: its owner does not let models draw from it",)
    if asked is None:
        return (f"{role}: it may be drawn from under its owner's terms, and the contract does not say how",)
    return tuple(f"{role}: {what}" for what in terms.explain(asked))


@dataclass(frozen=True, slots=True)
class Revision:
    """What the owner of a source says now: other terms, or that nobody draws from it any more.

    Attributes:
        asset: digest of the sealed source's manifest.
        number: rises with every revision; the manifest's own terms are number 0.
        at: when it was signed, Unix seconds.
        terms: from now on; ``None``: nobody may draw from it (the owner opts out).
    """

    asset: str
    number: int
    at: int
    terms: Drawing | None

    def __post_init__(self) -> None:
        f = Fields({"asset": self.asset, "at": self.at, "number": self.number}, "revision")
        f.digest("asset")
        f.integer("at")
        f.integer("number", low=1)

    def encode(self) -> bytes:
        terms = None if self.terms is None else self.terms.to_json()
        return wire.encode({"asset": self.asset, "at": self.at, "drawing": terms, "number": self.number})

    def sign(self, key: SigningKey) -> Envelope:
        """In a DSSE envelope with its owner's one signature."""
        return key.sign(REVISION_TYPE, self.encode())

    @classmethod
    def parse(cls, data: bytes) -> Revision:
        """Raises WireError and its leaves, BadDrawing."""
        f = Fields(wire.decode(data, max_bytes=MAX_REVISION_BYTES), "revision")
        found = cls(f.digest("asset"), f.integer("number"), f.integer("at"), f.optional("drawing", Drawing.from_json))
        f.end()
        return found

    @classmethod
    def peek(cls, envelope: Envelope) -> Revision:
        """What it says, **unverified**: to find whose it must be. Raises as :meth:`parse`."""
        return cls.parse(envelope.expect(REVISION_TYPE))

    @classmethod
    def verify(cls, envelope: Envelope, owner: VerifyKey) -> Revision:
        """What the owner signed. Raises BadSignature, and as :meth:`parse`."""
        return cls.parse(owner.verify(envelope, REVISION_TYPE))

    def follows(self, before: Revision | None) -> None:
        """Require that it is newer than another. Raises StaleRevision: it is older, or is another of the same number."""
        if before is not None and (self.number, self) != (before.number, before) and self.number <= before.number:
            raise StaleRevision(f"revision {self.number} comes after {before.number}")
