"""Whether a carried file is taken in: whose signature it bears, and what this site's policy and record say.

Checks C2 and C3 are :func:`verify`, C4 to C8 :func:`accept`; C1 is ``file.read``, and C9 to C11 are ``body.open_body``.

See ``spec/carry.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass

from strongroom.errors import (
    BadEnvelope,
    BadSignature,
    CarriedAgain,
    CarriedAltered,
    CarriedElsewhere,
    CarriedFromStranger,
    CarriedOutOfOrder,
    NotPinned,
)
from strongroom.party import Party
from strongroom.trust import Trust

from .carriage import CARRIAGE_TYPE, Carriage
from .file import Carried
from .site import Site

_MAKER = object()


@dataclass(frozen=True, slots=True)
class Signed:
    """A carried file whose carriage a pinned party signed. Only :func:`verify` makes one.

    Attributes:
        file: the file.
        by: the party.
    """

    file: Carried
    by: Party
    maker: InitVar[object]  # not a field, so that dataclasses.replace() cannot carry it over

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes a Signed")

    @property
    def carriage(self) -> Carriage:
        return self.file.carriage


def verify(found: Carried, trust: Trust) -> Signed:
    """Checks C2 and C3: the sender is pinned, and signed exactly this carriage.

    Args:
        found: untrusted.
        trust: the verifier's own file.

    Raises:
        CarriedFromStranger: nobody is pinned under the sender's name.
        CarriedAltered: the signature is not the sender's, or not over these bytes.
    """
    carriage = found.carriage
    try:
        sender = trust.party(carriage.sender.party)  # C2
    except NotPinned as error:
        raise CarriedFromStranger(f"the bundle says that it is from {carriage.sender}, whom you have not pinned") from error
    try:
        sender.signing_key.verify(found.envelope, CARRIAGE_TYPE)  # C3
    except (BadSignature, BadEnvelope) as error:
        raise CarriedAltered(f"the bundle's manifest was not signed so by {carriage.sender}") from error
    return Signed(found, sender, _MAKER)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A signed file that may be taken in here, as far as its carriage tells. Only :func:`accept` makes one."""

    signed: Signed
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only accept() makes an Accepted")


def accept(signed: Signed, *, site: Site, party: str, taken: Mapping[int, str]) -> Accepted:
    """Checks C4 to C8: what this site's policy says of it, and its place among what came from there before.

    Args:
        signed: the file.
        site: this site's policy.
        party: who takes it in.
        taken: number and digest of each bundle that was taken in from the sender's site.

    Raises:
        CarriedFromStranger: this site knows no such site, or it does not carry for that site.
        CarriedElsewhere: it is for another site, or for another party of this one.
        CarriedWrongWay, KindNotCarried, CarriedTooLarge: the policy does not let it in.
        CarriedAgain: its number was taken in before.
        CarriedOutOfOrder: a later number was, or an earlier one is missing.
    """
    carriage, file = signed.carriage, signed.file
    peer = site.peer(carriage.sender.site)  # C4
    if carriage.sender.party not in peer.carriers:
        raise CarriedFromStranger(f"{carriage.sender.party!r} does not carry for {peer.site!r}, as far as this site knows")
    if carriage.recipient.site != site.name or carriage.recipient.party != party:  # C5
        raise CarriedElsewhere(f"the bundle is for {carriage.recipient}, and this is {party} at {site.name}")
    lets = peer.incoming()  # C6
    lets.require_kinds(carriage.items)
    lets.require_size(max(file.size, file.said_size))  # C7
    _in_turn(carriage, taken)  # C8
    return Accepted(signed, _MAKER)


def _in_turn(carriage: Carriage, taken: Mapping[int, str]) -> None:
    last, origin = max(taken, default=0), carriage.sender.site
    if carriage.number in taken:
        same = taken[carriage.number] == carriage.digest
        what = "this bundle" if same else "another bundle of this number"
        raise CarriedAgain(f"{what} was taken in before: number {carriage.number} from {origin!r}")
    if carriage.number < last:
        raise CarriedOutOfOrder(f"number {carriage.number} from {origin!r} comes after number {last}, which took its place")
    if carriage.follows > last:
        missing = f"number {last + 1}" if carriage.follows == last + 1 else f"numbers {last + 1} to {carriage.follows}"
        raise CarriedOutOfOrder(f"number {carriage.number} from {origin!r} comes before {missing}")
