"""Outputs that wait for their reviewers: what a reviewer reads, passes and refuses, and what a recipient hears of it.

Nothing that an exchange shows is relied on: a box is the one that a verified receipt names, or it is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from strongroom import wire
from strongroom.airlock import MAX_REASON, Box, Verdict, unpad
from strongroom.asset import unseal
from strongroom.contract import Output, Proposal
from strongroom.errors import BadReceipt, Conflict, NotFound, StrongroomError, Usage
from strongroom.receipt import Delivered, Receipt
from strongroom.wire import Envelope

from .home import private, write
from .room import SUFFIXES, fresh

if TYPE_CHECKING:
    from .room import Room


Trouble: TypeAlias = Callable[[str, StrongroomError], None]


@dataclass(frozen=True, slots=True)
class Held:
    """An output in its box, as a verified receipt names it, and what its reviewers said, each verified.

    Attributes:
        box, receipt, output: which.
        verdicts: by reviewer.
    """

    box: Box
    receipt: Receipt
    output: Output
    verdicts: dict[str, Verdict]

    @property
    def refused(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts.values() if not v.passed)

    @property
    def waits_for(self) -> tuple[str, ...]:
        return tuple(sorted(self.output.rule.reviewers - self.verdicts.keys()))

    @property
    def shares(self) -> dict[str, bytes]:
        return {name: v.share for name, v in self.verdicts.items() if v.share is not None}

    @property
    def state(self) -> str:
        """In words: passed, refused by whom and why, or for whom it waits."""
        if self.refused:
            said = [v.reviewer + (f" ({v.reason})" if v.reason else "") for v in self.refused]
            return f"refused by {', '.join(said)}"
        return f"waits for {', '.join(self.waits_for)}" if self.waits_for else "passed"


def boxes(room: Room, digest: str, trouble: Trouble | None = None) -> list[Held]:
    """Every output under a contract that waits, or waited, for its reviewers.

    Args:
        room: who asks.
        digest: the contract.
        trouble: called with the contract and what is wrong with one receipt or box, instead of raising it: what one run
            lacks does not keep others from their reviewers.

    Raises:
        NotVerified: a receipt does not hold. NotFound: the exchange does not show a box.
        BadReceipt: a box is not as its receipt says.
    """
    shown = {box.digest: (box, verdicts) for box, verdicts in room.exchange.boxes(digest)}
    found: list[Held] = []
    for bundle in room.receipts(digest):
        with _telling(digest, trouble):
            receipt = room.keep(bundle)
            for delivered in receipt.statement.outputs:
                if delivered.box is not None:
                    with _telling(digest, trouble):
                        found.append(_held(receipt, delivered, shown))
    return found


@contextmanager
def _telling(digest: str, trouble: Trouble | None) -> Iterator[None]:
    try:
        yield
    except StrongroomError as error:
        if trouble is None:
            raise
        trouble(digest, error)


def _held(receipt: Receipt, delivered: Delivered, shown: Mapping[str, tuple[Box, tuple[Envelope, ...]]]) -> Held:
    statement, output = receipt.statement, delivered.output
    if delivered.box is None or delivered.box not in shown:
        raise NotFound(f"the exchange does not show output {output.name!r}", hint="Ask again later.")
    box, verdicts = shown[delivered.box]
    said = (statement.contract, statement.run_id, output.name, delivered.sealed, delivered.manifest)
    if said != (box.contract, box.run_id, box.output, box.sealed, box.manifest.digest):
        raise BadReceipt("a box is of another run or output than its receipt says")
    if box.shares.keys() != output.rule.reviewers:
        raise BadReceipt("a box is not for the reviewers that the contract names")
    return Held(box, receipt, output, {v.reviewer: v for v in _valid(verdicts, receipt.contract.proposal, box)})


def _valid(verdicts: tuple[Envelope, ...], proposal: Proposal, box: Box) -> Iterator[Verdict]:
    for envelope in verdicts:
        try:
            yield Verdict.verify(envelope, proposal, box)
        except StrongroomError:
            continue  # an exchange can show anything; what does not verify is no verdict


def waiting(room: Room, trouble: Trouble = lambda _digest, _error: None) -> list[Held]:
    """What waits for this party's verdict. ``trouble``: as :func:`boxes` takes it."""
    found: list[Held] = []
    for view in room.views():
        digest = view.proposal.digest
        if any(room.name in output.rule.reviewers for output in view.proposal.outputs):
            with _telling(digest, trouble):
                found += [held for held in boxes(room, digest, trouble) if room.name in held.waits_for]
    return found


def find(room: Room, reference: str) -> Held:
    """What waits for this party, by any unambiguous beginning of the box's digest. Raises NotFound."""
    wanted = reference.removeprefix("sha256:")
    found = [held for held in waiting(room) if wanted and held.box.digest.removeprefix("sha256:").startswith(wanted)]
    if len(found) != 1:
        raise NotFound(
            f"{len(found)} outputs that wait for you begin with {reference!r}", hint="See them with: strongroom airlock list"
        )
    return found[0]


def read(room: Room, held: Held, out: Path | None = None) -> Path:
    """Open the copy that this party reviews; where it was written.

    Args:
        room: the reviewer at work.
        held: what waits.
        out: a folder; ``reviews/RUN`` in the party's own by default.

    Raises:
        NotAParty, BadKey, BadReceipt: it is not for this party. AssetError leaves: it was altered.
    """
    reading = held.box.read(room.name, room.home.keys.decryption)
    folder = out or room.home.place("reviews") / held.box.run_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (held.output.name + SUFFIXES[held.output.kind])
    partial = path.with_name(f".{path.name}.{fresh(6).hex()}")
    try:
        with private(partial) as sink:  # whole and checked against its commitment, or not there
            unseal(room.exchange.output(held.box.sealed), held.box.manifest, reading.key, sink)
            unpad(sink)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _say(room: Room, held: Held, share: bytes | None, reason: str, told: str) -> Verdict:
    if room.name not in held.waits_for:
        raise Conflict("this party has said its word on that output", hint="Nothing to do: the first one stays.")
    box = held.box
    verdict = Verdict(box.contract, box.run_id, box.output, box.digest, room.name, int(time.time()), share, told)
    envelope = verdict.sign(room.home.keys.signing)
    # what was decided, and why, stays with the reviewer even where nobody else is told
    kept = wire.encode({"reason": reason, "verdict": envelope.to_json()})
    write(room.home.place("reviews") / f"{box.digest.removeprefix('sha256:')}.json", kept)
    room.exchange.put_verdict(envelope)
    return verdict


def let_pass(room: Room, held: Held) -> Verdict:
    """Pass an output: publish this party's share of the key of its box. Raises Conflict, NotAParty, BadKey."""
    return _say(room, held, held.box.read(room.name, room.home.keys.decryption).share, "", "")


def refuse(room: Room, held: Held, reason: str) -> Verdict:
    """Refuse an output: its recipients never open it. They are told why only where the contract says so.

    Raises:
        Usage: no reason, or one too long. Conflict: this party has passed or refused it.
    """
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise Usage(f"a refusal has a reason: one line of at most {MAX_REASON} characters")
    release = held.output.rule.release
    return _say(room, held, None, reason, reason if release is not None and release.reasons else "")
