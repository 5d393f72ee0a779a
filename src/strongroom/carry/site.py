"""What a site lets cross: for each other site, which parties carry there, and in either direction which kinds and how much.

A direction that nobody opened is closed, and a site that nobody named is a stranger: a *diode* is a site with one direction.

See ``spec/carry.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from strongroom.errors import BadField, CarriedFromStranger, CarriedTooLarge, CarriedWrongWay, KindNotCarried
from strongroom.wire import JSON, Fields

from .carriage import Item, Kind

FORMAT = "strongroom.carry-policy.v1"
MAX_FILE_BYTES = 1 << 40
MAX_PEERS, MAX_PARTIES = 256, 64


@dataclass(frozen=True, slots=True)
class Lets:
    """What may cross in one direction.

    Attributes:
        kinds: of items; sorted and distinct, at least one.
        max_bytes: the largest file.

    Raises:
        BadField: no kind, or a size out of bounds.
    """

    kinds: tuple[Kind, ...]
    max_bytes: int

    def __post_init__(self) -> None:
        if not self.kinds or list(self.kinds) != sorted(set(self.kinds)):
            raise BadField("a direction's kinds are not sorted and distinct, or there are none")
        if not 1 <= self.max_bytes <= MAX_FILE_BYTES:
            raise BadField(f"a direction's max_bytes is not from 1 to {MAX_FILE_BYTES}")

    def require_kinds(self, items: Iterable[Item]) -> None:
        """Raises KindNotCarried."""
        refused = sorted({item.kind for item in items} - set(self.kinds))
        if refused:
            raise KindNotCarried(f"this site does not let {', '.join(refused)} cross in this direction")

    def require_size(self, size: int) -> None:
        """Raises CarriedTooLarge. ``size``: of the file, in bytes."""
        if size > self.max_bytes:
            raise CarriedTooLarge(f"the file has {size:,} bytes, where {self.max_bytes:,} may cross")

    def to_json(self) -> dict[str, JSON]:
        return {"kinds": [kind.value for kind in self.kinds], "max_bytes": self.max_bytes}

    @classmethod
    def from_json(cls, value: object) -> Lets:
        """Raises BadField."""
        f = Fields(value, "direction")

        def kind(item: object) -> Kind:
            return Kind(Fields({"kind": item}, "direction").text("kind", choices=list(Kind)))

        found = cls(f.items("kinds", kind, low=1, high=len(Kind)), f.integer("max_bytes", low=1, high=MAX_FILE_BYTES))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Peer:
    """Another site.

    Attributes:
        site: its name.
        parties: who is there: only what concerns one of them is carried to it.
        carriers: who carries for them: they alone sign bundles from it, and open those to it.
        lets_in: what may come from it; ``None``: nothing.
        lets_out: what may go to it; ``None``: nothing.

    Raises:
        BadField: no party, or no carrier.
    """

    site: str
    parties: tuple[str, ...]
    carriers: tuple[str, ...]
    lets_in: Lets | None
    lets_out: Lets | None

    def __post_init__(self) -> None:
        for what, names in (("parties", self.parties), ("carriers", self.carriers)):
            if not names or list(names) != sorted(set(names)):
                raise BadField(f"a site's {what} are not sorted and distinct, or there are none")

    def incoming(self) -> Lets:
        """Raises CarriedWrongWay."""
        if self.lets_in is None:
            raise CarriedWrongWay(f"this site takes nothing in from {self.site!r}")
        return self.lets_in

    def outgoing(self) -> Lets:
        """Raises CarriedWrongWay."""
        if self.lets_out is None:
            raise CarriedWrongWay(f"this site lets nothing out to {self.site!r}")
        return self.lets_out

    def to_json(self) -> dict[str, JSON]:
        return {
            "carriers": list(self.carriers),
            "in": self.lets_in.to_json() if self.lets_in else None,
            "out": self.lets_out.to_json() if self.lets_out else None,
            "parties": list(self.parties),
            "site": self.site,
        }

    @classmethod
    def from_json(cls, value: object) -> Peer:
        """Raises BadField."""
        f = Fields(value, "peer")
        found = cls(
            site=f.name("site"),
            parties=f.names("parties", low=1, high=MAX_PARTIES),
            carriers=f.names("carriers", low=1, high=MAX_PARTIES),
            lets_in=f.optional("in", Lets.from_json),
            lets_out=f.optional("out", Lets.from_json),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Site:
    """This site: its name, and the others it deals with.

    Raises:
        BadField: the others are not sorted by name and distinct, or this site is among them.
    """

    name: str
    peers: tuple[Peer, ...] = ()

    def __post_init__(self) -> None:
        names = [peer.site for peer in self.peers]
        if names != sorted(set(names)):
            raise BadField("the sites are not sorted by name and distinct")
        if self.name in names:
            raise BadField(f"{self.name!r} is this site, and no other")

    def peer(self, name: str) -> Peer:
        """Raises CarriedFromStranger."""
        for peer in self.peers:
            if peer.site == name:
                return peer
        raise CarriedFromStranger(f"this site knows no site {name!r}")

    def with_peer(self, peer: Peer) -> Site:
        """The site that deals with this one so, and no longer as before."""
        others = [p for p in self.peers if p.site != peer.site]
        return replace(self, peers=tuple(sorted([*others, peer], key=lambda p: p.site)))

    def to_json(self) -> dict[str, JSON]:
        return {"format": FORMAT, "peers": [peer.to_json() for peer in self.peers], "site": self.name}

    @classmethod
    def from_json(cls, value: object) -> Site:
        """Raises BadField."""
        f = Fields(value, "site")
        f.literal("format", FORMAT)
        found = cls(f.name("site"), f.items("peers", Peer.from_json, high=MAX_PEERS))
        f.end()
        return found
