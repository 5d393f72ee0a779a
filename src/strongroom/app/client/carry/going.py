"""Carry out: what the other site has not got yet, in one file for it alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from strongroom.app.client.room import Room, fresh
from strongroom.carry import MAX_ITEMS, Carriage, Kind, Peer, Place, write
from strongroom.errors import CarriedTooLarge, Conflict, NotFound, NothingToCarry, Usage

from .desk import Desk
from .gathering import Gathered, Gathering


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be carried beside, or instead of, all that is new.

    Attributes:
        contracts: digests of proposals; none: all that name a party of the other site.
        offers: assets by ``OWNER/NAME``, with their mocks.
        cards: files with parties' cards.
        references: files with an enclave's reference values.
        lost: the first number that never arrived.
        above: count from above this number, where the record was lost.
    """

    contracts: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    cards: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()
    lost: int | None = None
    above: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle that was written.

    Attributes:
        carriage: what it says of itself.
        path, size: where, and of how many bytes.
        kept_back: kinds of which there was something, and which the policy keeps here.
    """

    carriage: Carriage
    path: Path
    size: int
    kept_back: tuple[Kind, ...]


def carry_out(
    room: Room,
    desk: Desk,
    *,
    site: str,
    path: Path,
    to: str | None = None,
    wish: Wish | None = None,
    progress: Callable[[str, int], Callable[[int], None]] = lambda _label, _total: lambda _done: None,
) -> Written:
    """Write a bundle for another site.

    Args:
        room: the party that carries, and signs.
        desk: this site's.
        site: the other one.
        path: the file; nothing may be there.
        to: the party there that opens it; may be left out where there is one.
        wish: what to carry.
        progress: given a label and a number of bytes, what to call with the bytes done.

    Raises:
        NoCarryPolicy, CarriedFromStranger, CarriedWrongWay, CarriedTooLarge: this site's policy does not let it out.
        NothingToCarry: the other site has all of it. Conflict: there is something at ``path``, or two wrote at once.
        NotPinned: the recipient is not. NotFound, Usage, Unreachable; and as of what is fetched.
    """
    wish, here = wish or Wish(), desk.site
    peer = here.peer(site)
    lets = peer.outgoing()
    recipient = room.trust.party(_recipient(peer, to))
    if path.exists():
        raise Conflict(f"{path} is already there", hint="Move it away, or choose another place with --out.")
    record, at = desk.record, int(time.time())
    if wish.lost is not None:
        record.give_up(site, wish.lost)
    found = _gathered(room, peer, Gathered(frozenset(lets.kinds), record.carried(site)), wish)
    if not found.things:
        kept = f"; this site keeps back: {', '.join(sorted(found.kept_back))}" if found.kept_back else ""
        raise NothingToCarry(f"there is nothing new to carry to {site!r}{kept}")
    if Kind.LEDGER in lets.kinds:
        Gathering(room, peer, found).ledger(lambda origin: record.heads(site, origin))
    things = sorted(found.things, key=lambda thing: thing.item.kind.rank)
    total = sum(thing.item.size for thing in things)
    if len(things) > MAX_ITEMS:
        raise CarriedTooLarge(f"there are {len(things):,} items to carry, where a bundle holds {MAX_ITEMS:,}")
    lets.require_size(total)
    turn = record.begin(site, at, above=wish.above)
    partial = path.with_name(f".{path.name}.{fresh(6).hex()}")
    try:
        with partial.open("xb") as sink:
            carriage = write(
                sink,
                [(thing.item, thing.pieces) for thing in things],
                sender=Place(here.name, room.name),
                recipient=Place(site, recipient.name),
                number=turn.number,
                follows=turn.follows,
                created_at=at,
                signing=room.home.keys.signing,
                to=recipient.encryption_key,
                entropy=fresh,
                progress=progress(f"writing {path.name}", total),
            )
            sink.flush()
            os.fsync(sink.fileno())
        size = partial.stat().st_size
        lets.require_size(size)
        _place(partial, path)
    except OSError as error:
        raise NotFound(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    try:
        record.wrote(carriage, [(t.item.kind.value, t.mark) for t in things], found.heads)
    except Conflict:
        path.unlink()
        raise
    return Written(carriage, path, size, tuple(sorted(found.kept_back)))


def _recipient(peer: Peer, to: str | None) -> str:
    if to is None and len(peer.carriers) == 1:
        return peer.carriers[0]
    if to is None:
        raise Usage(f"{', '.join(peer.carriers)} carry for {peer.site!r}", hint="Say who opens it there: --for NAME")
    if to not in peer.carriers:
        raise Usage(f"{to!r} does not carry for {peer.site!r}", hint=f"One of: {', '.join(peer.carriers)}")
    return to


def _gathered(room: Room, peer: Peer, found: Gathered, wish: Wish) -> Gathered:
    gathering = Gathering(room, peer, found)
    for card in wish.cards:
        gathering.card(card)
    for reference in wish.references:
        gathering.reference(reference)
    for offer in wish.offers:
        gathering.offer(offer)
    named = wish.offers or wish.cards or wish.references
    if wish.contracts or not named:
        gathering.proposals(wish.contracts)
    return found


def _place(partial: Path, path: Path) -> None:
    """Give a written file its name, for good: a drive may be taken out the next moment."""
    partial.rename(path)
    with suppress(OSError):  # not every file system knows it
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
