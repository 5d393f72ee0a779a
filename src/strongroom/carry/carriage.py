"""What a carried file says of itself: from whom, to whom, which number, and each item's kind, size and digest.

It stands in the clear at the file's beginning, so that whoever guards a border can read it, and its sender's signature is
under all of it: the encrypted body too is determined to the bit, by the root over its chunks.

See ``spec/carry.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from strongroom import wire
from strongroom.asset import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, SALT_BYTES, Content, Layout, Manifest, Scheme, Sealed
from strongroom.errors import BadField
from strongroom.party import ENCRYPTION_OVERHEAD, SigningKey
from strongroom.policy import Policy
from strongroom.wire import JSON, Envelope, Fields

CARRIAGE_TYPE = wire.media_type("carriage")
PURPOSE = "strongroom.carry.v1"
MAX_ITEMS = 4096
MAX_CARRIAGE_BYTES = 1 << 20
MAX_FOLLOWS = wire.MAX_INT - 1
KEY_BYTES = ENCRYPTION_OVERHEAD + 32


class Kind(StrEnum):
    """What an item is. In this order they stand in a bundle, and are handed on: what names another comes after it."""

    CARD = "card"
    REFERENCE = "reference"
    LEDGER = "ledger"
    MANIFEST = "manifest"
    MOCK = "mock"
    CODE = "code"
    TRIAL = "trial"
    PROPOSAL = "proposal"
    APPROVAL = "approval"
    WITHDRAWAL = "withdrawal"
    NOTE = "note"
    OUTPUT = "output"
    RECEIPT = "receipt"
    DELIVERY = "delivery"
    BOX = "box"
    VERDICT = "verdict"

    @property
    def rank(self) -> int:
        """Its place in the order."""
        return _RANKS[self]


_RANKS = {kind: rank for rank, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a way: a site, and the party there that signs or opens."""

    site: str
    party: str

    def to_json(self) -> dict[str, JSON]:
        return {"party": self.party, "site": self.site}

    @classmethod
    def from_json(cls, value: object) -> Place:
        """Raises BadField."""
        f = Fields(value, "place")
        found = cls(party=f.name("party"), site=f.name("site"))
        f.end()
        return found

    def __str__(self) -> str:
        return f"{self.party} at {self.site}"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a bundle.

    Attributes:
        kind: what it is.
        size: its length in the body, in bytes.
        digest: ``sha256:…`` of it.
    """

    kind: Kind
    size: int
    digest: str

    def to_json(self) -> dict[str, JSON]:
        return {"bytes": self.size, "digest": self.digest, "kind": self.kind.value}

    @classmethod
    def from_json(cls, value: object) -> Item:
        """Raises BadField."""
        f = Fields(value, "item")
        found = cls(size=f.integer("bytes", low=1), digest=f.digest("digest"), kind=Kind(f.text("kind", choices=list(Kind))))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Body:
    """What a carriage says of its body, which is a sealed file (``spec/sealed-file.md``).

    Attributes:
        chunk_bytes: plaintext bytes in every chunk but the last.
        root: the RFC 6962 root over the chunks, 32 bytes.
        salt: the file's salt, 32 bytes.
        key_commitment: of its key, 32 bytes.
    """

    chunk_bytes: int
    root: bytes
    salt: bytes
    key_commitment: bytes

    @classmethod
    def of(cls, manifest: Manifest) -> Body:
        """What is carried of the manifest that sealing gave."""
        sealed = manifest.sealed
        return cls(sealed.chunk_bytes, sealed.root, sealed.salt, manifest.key_commitment)

    def to_json(self) -> dict[str, JSON]:
        return {
            "chunk_bytes": self.chunk_bytes,
            "key_commitment": self.key_commitment.hex(),
            "root": self.root.hex(),
            "salt": self.salt.hex(),
        }

    @classmethod
    def from_json(cls, value: object) -> Body:
        """Raises BadField."""
        f = Fields(value, "body")
        found = cls(
            chunk_bytes=f.integer("chunk_bytes", low=MIN_CHUNK_BYTES, high=MAX_CHUNK_BYTES),
            root=f.hex("root", size=32),
            salt=f.hex("salt", size=SALT_BYTES),
            key_commitment=f.hex("key_commitment", size=32),
        )
        f.end()
        return found


@dataclass(frozen=True)
class Carriage:
    """A carried file's manifest. **Untrusted** until :func:`strongroom.carry.verify` has seen its signature.

    Attributes:
        sender: from where, and whose signature it bears.
        recipient: to where, and whose key opens it.
        number: of the bundles from the one site to the other, counted from 1.
        follows: the number of the last bundle that is known to have been written, and is not given up: bundles between the
            two never were, or are lost.
        created_at: Unix seconds, as the sender says.
        items: in the order of their kinds; no item twice.
        body: the sealed file that holds the items, one after the other.
        key: the body's key, encrypted to the recipient.

    Raises:
        BadField: a rule of ``spec/carry.md`` is broken.
        TooLarge: more chunks than a sealed file may have.
    """

    sender: Place
    recipient: Place
    number: int
    follows: int
    created_at: int
    items: tuple[Item, ...]
    body: Body
    key: bytes

    def __post_init__(self) -> None:
        if self.sender.site == self.recipient.site:
            raise BadField("carriage.from and carriage.to are one site")
        if self.follows >= self.number:
            raise BadField("carriage.follows is not below carriage.number")
        if not 1 <= len(self.items) <= MAX_ITEMS:
            raise BadField(f"carriage.items is not a list of 1 to {MAX_ITEMS} items")
        ranks = [item.kind.rank for item in self.items]
        if ranks != sorted(ranks):
            raise BadField("carriage.items are not in the order of their kinds")
        if len({(item.kind, item.digest) for item in self.items}) != len(self.items):
            raise BadField("carriage.items holds an item twice")
        if len(self.key) != KEY_BYTES:
            raise BadField(f"carriage.key is not {KEY_BYTES} bytes long")
        _ = self.layout

    @property
    def layout(self) -> Layout:
        """Where what stands in the body."""
        return Layout(sum(item.size for item in self.items), self.body.chunk_bytes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each item begins in the body's plaintext."""
        found, at = [], 0
        for item in self.items:
            found.append(at)
            at += item.size
        return tuple(found)

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return wire.digest(self.encode())

    @property
    def binding(self) -> bytes:
        """What the body's key is bound to: the HPKE ``info``."""
        return binding(self.sender, self.recipient, self.number, self.body)

    @property
    def manifest(self) -> Manifest:
        """The body's manifest, as readers of sealed files take one. It promises no content: each item has a digest."""
        layout = self.layout
        return Manifest(
            name="carriage",
            kind="carriage",
            media_type="application/octet-stream",
            owner=self.sender.party,
            created_at=self.created_at,
            plaintext_bytes=layout.plaintext_bytes,
            content=Content(Scheme.COMMITMENT, bytes(32)),
            sealed=Sealed(layout.sealed_bytes, self.body.chunk_bytes, layout.chunks, self.body.root, self.body.salt),
            key_commitment=self.body.key_commitment,
            terms=Policy(),
            mock=None,
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "body": self.body.to_json(),
            "created_at": self.created_at,
            "follows": self.follows,
            "from": self.sender.to_json(),
            "items": [item.to_json() for item in self.items],
            "key": wire.b64(self.key),
            "number": self.number,
            "to": self.recipient.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Carriage:
        """Raises BadField, TooLarge."""
        f = Fields(value, "carriage")
        found = cls(
            sender=Place.from_json(f.any("from")),
            recipient=Place.from_json(f.any("to")),
            number=f.integer("number", low=1),
            follows=f.integer("follows", high=MAX_FOLLOWS),
            created_at=f.integer("created_at"),
            items=f.items("items", Item.from_json, low=1, high=MAX_ITEMS),
            body=Body.from_json(f.any("body")),
            key=f.base64("key", max_bytes=KEY_BYTES),
        )
        f.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Carriage:
        """Parse the exact bytes; ``parse(b).encode() == b``. Raises WireError and its leaves."""
        return cls.from_json(wire.decode(data, max_bytes=MAX_CARRIAGE_BYTES))

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(CARRIAGE_TYPE, self.encode())


def binding(sender: Place, recipient: Place, number: int, body: Body) -> bytes:
    """What a body's key is bound to: canonical JSON."""
    return wire.encode(
        {
            "body": body.to_json(),
            "from": sender.to_json(),
            "number": number,
            "purpose": PURPOSE,
            "to": recipient.to_json(),
        }
    )


__all__ = [
    "CARRIAGE_TYPE",
    "KEY_BYTES",
    "MAX_CARRIAGE_BYTES",
    "MAX_ITEMS",
    "Body",
    "Carriage",
    "Item",
    "Kind",
    "Place",
    "binding",
]
