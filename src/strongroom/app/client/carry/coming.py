"""Carry in: check a bundle to the last byte, then hand on what is in it, as any stranger could have.

Documents go to this site's exchange, which nobody trusts. What no exchange takes is put into files for people to look at.
Nothing is approved, pinned or run: whoever relies on any of it checks it as ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from strongroom.airlock import Box
from strongroom.app.client.home import write
from strongroom.app.client.room import Room
from strongroom.app.exchange.client import PATIENCE, SLOWEST
from strongroom.asset import FileSource
from strongroom.carry import Carriage, Contents, Heads, Item, Kind, accept, open_body, read, verify
from strongroom.carry.body import Found
from strongroom.carry.item import Offered, withdrawn
from strongroom.code import CodeBundle
from strongroom.contract import Proposal
from strongroom.delivery import Delivery
from strongroom.errors import CarryError, Conflict, Internal, NoSpace, NotFound, StrongroomError, Unreachable
from strongroom.ledger import follow
from strongroom.receipt import Bundle
from strongroom.trial import Trial
from strongroom.wire import Envelope

from .desk import Desk

FILES = frozenset({Kind.CARD, Kind.REFERENCE, Kind.LEDGER, Kind.RECEIPT})  # a receipt goes to the exchange, too
AGAIN = (CarryError, Unreachable, NoSpace, Internal)  # not the item's fault: the bundle comes in again, later


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that the exchange did not take, and why."""

    item: Item
    error: StrongroomError


@dataclass(frozen=True, slots=True)
class Arrived:
    """A bundle that was taken in.

    Attributes:
        carriage: what it says of itself.
        landed: items that were handed on.
        refused: those that the exchange did not take.
        files: what was put into files.
        heads: the log heads that came: name, size, and how each stands to what was seen before.
    """

    carriage: Carriage
    landed: tuple[Item, ...]
    refused: tuple[Refused, ...]
    files: tuple[Path, ...]
    heads: tuple[tuple[str, int, str], ...]


def carry_in(
    room: Room,
    desk: Desk,
    path: Path,
    *,
    progress: Callable[[str, int], Callable[[int], None]] = lambda _label, _total: lambda _done: None,
) -> Arrived:
    """Take a bundle in: all checks first, then every item, then the record.

    What was begun and broken off (no exchange, no space) can be done again: the record says that it was taken in only when
    all of it was handed on, and what is handed on twice is kept once.

    Args:
        room: the party that opens it.
        desk: this site's.
        path: the file.
        progress: given a label and a number of bytes, what to call with the bytes done.

    Raises:
        CarryError: its leaves; nothing was taken in.
        Inconsistent: a log shows another history than was seen before; nothing was taken in.
        Unreachable, NoSpace, NotFound: it could not be handed on; carry it in again.
    """
    site = desk.site
    try:
        with FileSource(path) as source:
            found = read(source)
            signed = verify(found, room.trust)
            carriage = signed.carriage
            origin = carriage.sender.site
            accept(signed, site=site, party=room.name, taken=desk.record.taken(origin))
            total = carriage.layout.plaintext_bytes
            checked = progress(f"checking {path.name}", total)
            contents = open_body(signed, room.name, room.home.keys.decryption, progress=checked)
            heads = _follow(room, contents)
            arrived = _Landing(room, desk, contents).land(heads, progress(f"taking in {path.name}", total))
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    marks = [(f.item.kind.value, f.said.mark if f.said else f.item.digest) for f in contents.found]
    desk.record.take(carriage, marks, int(time.time()))
    return arrived


def _follow(room: Room, contents: Contents) -> tuple[tuple[str, int, str], ...]:
    """Hold carried heads of pinned logs against the last ones seen. Raises Inconsistent, BadSignature."""
    told = []
    for index, found in enumerate(contents.found):
        if found.item.kind is not Kind.LEDGER:
            continue
        heads = Heads.parse(contents.data(index))
        checkpoint = heads.checkpoint
        log = next((v for v in room.trust.log_verifiers() if v.signatures_of(checkpoint)), None)
        if log is None:
            told.append((checkpoint.origin, checkpoint.size, "of a log that you have not pinned"))
            continue
        new, last = log.verify(checkpoint), room.home.last_seen(checkpoint.origin)
        proof = next((p for p in heads.proofs if last is not None and p.old == last.size), None)
        if last is not None and new.size < last.size:
            told.append((new.origin, new.size, "older than the head seen last"))
        elif last is not None and proof is None and new.size > last.size:
            told.append((new.origin, new.size, f"NOT followed: no proof from the head seen last, of {last.size} entries"))
        else:
            room.home.save_seen(follow(last, new, proof))
            told.append((new.origin, new.size, "consistent with the head seen last" if last else "the first head seen"))
    return tuple(told)


class _Landing:
    """Hands the items of one bundle on."""

    def __init__(self, room: Room, desk: Desk, contents: Contents) -> None:
        self._exchange, self._contents = room.exchange, contents
        carriage = contents.carriage
        self._desk, self._place = desk, (carriage.sender.site, carriage.number)
        self._files: list[Path] = []
        self._to: Mapping[Kind, Callable[[int, Found], None]] = {
            Kind.MANIFEST: self._manifest,
            Kind.MOCK: self._mock,
            Kind.CODE: self._code,
            Kind.TRIAL: self._trial,
            Kind.PROPOSAL: self._proposal,
            Kind.APPROVAL: self._approval,
            Kind.WITHDRAWAL: self._withdrawal,
            Kind.NOTE: self._note,
            Kind.OUTPUT: self._output,
            Kind.RECEIPT: self._receipt,
            Kind.DELIVERY: self._delivery,
            Kind.BOX: self._box,
            Kind.VERDICT: self._verdict,
        }

    def land(self, heads: tuple[tuple[str, int, str], ...], progress: Callable[[int], None]) -> Arrived:
        """Raises CarriedAltered, Unreachable, NoSpace, Internal, NotFound."""
        landed, refused, done = [], [], 0
        for index, found in enumerate(self._contents.found):
            try:
                if found.item.kind in FILES:
                    self._file(index, found)
                if found.item.kind in self._to:
                    self._to[found.item.kind](index, found)
                landed.append(found.item)
            except AGAIN:
                raise
            except StrongroomError as error:
                refused.append(Refused(found.item, error))
            done += found.item.size
            progress(done)
        return Arrived(self._contents.carriage, tuple(landed), tuple(refused), tuple(self._files), heads)

    def _file(self, index: int, found: Found) -> None:
        # the name is made of what this site knows: a word of the closed list, and a digest's digits
        name = f"{found.item.kind.value}-{found.item.digest.removeprefix('sha256:')}.json"
        path = self._desk.arrived(*self._place) / name
        write(path, self._contents.data(index))
        self._files.append(path)

    def _envelope(self, index: int) -> Envelope:
        return Envelope.parse(self._contents.data(index))

    def _put(self, index: int, found: Found, address: str) -> None:
        """Send a file to the exchange a piece at a time."""
        with suppress(Conflict):  # it is there already: the address is the digest of its bytes
            self._exchange.client.call(
                "PUT",
                f"{address}/{found.item.digest}",
                content=self._contents.pieces(index),
                timeout=PATIENCE + found.item.size / SLOWEST,
            )

    def _mock(self, index: int, found: Found) -> None:
        self._put(index, found, "/v1/mocks")

    def _output(self, index: int, found: Found) -> None:
        self._put(index, found, "/v1/outputs")

    def _manifest(self, index: int, _found: Found) -> None:
        offered = Offered.parse(self._contents.data(index))
        self._exchange.put_manifest(offered.manifest, offered.key)

    def _code(self, index: int, _found: Found) -> None:
        self._exchange.put_code(CodeBundle.parse(self._contents.data(index)))

    def _trial(self, index: int, _found: Found) -> None:
        self._exchange.put_trial(Trial.parse(self._contents.data(index)))

    def _proposal(self, index: int, _found: Found) -> None:
        self._exchange.propose(self._envelope(index))

    def _approval(self, index: int, _found: Found) -> None:
        envelope = self._envelope(index)
        self._exchange.approve(Proposal.open(envelope)[0], envelope.signatures)

    def _withdrawal(self, index: int, _found: Found) -> None:
        envelope = self._envelope(index)
        self._exchange.withdraw(withdrawn(envelope), envelope)

    def _note(self, index: int, found: Found) -> None:
        self._exchange.note(self._envelope(index), found.said.proposal if found.said else "")

    def _receipt(self, index: int, _found: Found) -> None:
        self._exchange.record(Bundle.parse(self._contents.data(index)))

    def _delivery(self, index: int, _found: Found) -> None:
        self._exchange.deliver(Delivery.parse(self._contents.data(index)))

    def _box(self, index: int, _found: Found) -> None:
        self._exchange.put_box(Box.parse(self._contents.data(index)))

    def _verdict(self, index: int, _found: Found) -> None:
        self._exchange.put_verdict(self._envelope(index))
