"""An owner's shared keys: dealt to other people's brokers, called in, dealt anew; and the owner's word to them.

What was dealt is kept in the party's folder until every broker has taken its own, and sent again until then: it is encrypted
to the brokers, and says nothing to anybody else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.app.http import Client
from strongroom.asset import Manifest, verify_manifest
from strongroom.contract import PROPOSAL_TYPE, Grant, Proposal
from strongroom.dealing import Collected, Dealt, collect, deal
from strongroom.errors import BadBudget, NotFound, StrongroomError, Usage
from strongroom.holding import Recall, Says, Word
from strongroom.threshold import Enrolment, HolderCard, require_majority
from strongroom.wire import JSON, Envelope, Fields

from .home import PartyHome, loads, pretty, reading, write

if TYPE_CHECKING:
    from strongroom.app.exchange.client import ExchangeClient

Connect = Callable[[str], Client]


def connect(address: str) -> Client:
    """The way to a broker, which may be away."""
    return Client(address, timeout=10)


def card(home: PartyHome) -> HolderCard:
    """What this party's broker hands out to owners who share keys over it. Its share key is made where there is none."""
    own = home.card
    return HolderCard(home.name, own.broker_key, home.make_share_key().public, own.broker_url)


@dataclass(frozen=True, slots=True)
class Sharing:
    """How one asset's key is shared, as its owner keeps it.

    Attributes:
        manifest: the asset's, as its owner signed it.
        dealt: the newest dealing.
        cards: of its holders, in the order of their shares.
        waiting: names of holders that have not taken their shares yet.
    """

    manifest: Envelope
    dealt: Dealt
    cards: tuple[HolderCard, ...]
    waiting: tuple[str, ...]

    @property
    def enrolment(self) -> Enrolment:
        return Enrolment.parse(self.dealt.enrolment.payload)

    def to_json(self) -> dict[str, JSON]:
        return {
            "cards": [wire.decode(c.encode()) for c in self.cards],
            "deals": [e.to_json() for e in self.dealt.deals],
            "enrolment": self.dealt.enrolment.to_json(),
            "manifest": self.manifest.to_json(),
            "waiting": list(self.waiting),
        }

    @classmethod
    def from_json(cls, value: object) -> Sharing:
        f = Fields(value, "sharing")
        found = cls(
            manifest=Envelope.from_json(f.any("manifest")),
            dealt=Dealt(Envelope.from_json(f.any("enrolment")), f.items("deals", Envelope.from_json, high=16)),
            cards=f.items("cards", lambda c: HolderCard.parse(wire.encode(c)), high=16),
            waiting=f.names("waiting", high=16),
        )
        f.end()
        return found


def _path(home: PartyHome, manifest: str) -> Path:
    return home.place("shared") / f"{manifest.removeprefix('sha256:')}.json"


def read(home: PartyHome, manifest: str) -> Sharing | None:
    """How an own asset's key is shared; ``None`` where it is whole. ``manifest``: its digest."""
    path = _path(home, manifest)
    if not path.exists():
        return None
    with reading(path):
        return Sharing.from_json(loads(path))


def every(home: PartyHome) -> list[Sharing]:
    """Every own asset whose key is shared."""
    found = [read(home, f"sha256:{path.stem}") for path in sorted(home.place("shared").glob("*.json"))]
    return [sharing for sharing in found if sharing is not None]


def _save(home: PartyHome, sharing: Sharing) -> None:
    write(_path(home, sharing.enrolment.manifest), pretty(sharing.to_json()))


def share(
    home: PartyHome,
    exchange: ExchangeClient,
    asset: Manifest,
    threshold: int,
    cards: Sequence[HolderCard],
    *,
    via: Connect = connect,
) -> Sharing:
    """Share an asset's key over brokers. When all of them have their shares, the owner's own broker forgets the key.

    Raises:
        BadEnrolment: not more than half, a broker twice.
        Usage: it is shared already. BadBudget: it has a budget, which is not counted across brokers.
        NotFound: the key is not here.
        MissingExtra.
    """
    require_majority(threshold, len(cards))
    if read(home, asset.digest) is not None:
        raise Usage(f"{asset.name} is shared already", hint="Deal new shares with: strongroom broker refresh ASSET")
    if home.book.budget(asset.digest) is not None:
        raise BadBudget(f"{asset.name} has a budget, which brokers that each count alone would not hold")
    held = home.book.held(asset.digest)
    if held is None:
        raise NotFound(f"your broker holds no key of {asset.name}")
    dealt = deal(
        held.key,
        held.manifest,
        keys=home.keys,
        epoch=1,
        threshold=threshold,
        cards=cards,
        entropy=secrets.token_bytes,
    )
    _save(home, Sharing(held.manifest, dealt, tuple(cards), tuple(sorted(c.name for c in cards))))
    return send(home, exchange, asset.digest, via=via)


def send(home: PartyHome, exchange: ExchangeClient, manifest: str, *, via: Connect = connect) -> Sharing:
    """Bring every broker that has not taken its share what it was dealt; publish the enrolment once ``t`` of them have.

    Raises:
        NotFound: it is not shared.
        Unreachable: the exchange does not answer.
    """
    sharing = read(home, manifest)
    if sharing is None:
        raise NotFound(f"{manifest} is not shared")
    waiting = set(sharing.waiting)
    for found, envelope in zip(sharing.cards, sharing.dealt.deals, strict=True):
        if found.name in waiting and _post(found, "/v1/deals", envelope.encode(), via) is not None:
            waiting.discard(found.name)
            sharing = replace(sharing, waiting=tuple(sorted(waiting)))
            _save(home, sharing)
    if len(sharing.cards) - len(waiting) >= sharing.enrolment.threshold:
        exchange.put_enrolment(manifest, sharing.dealt.enrolment, home.keys.signing.public)
    if not waiting:
        home.book.forget(manifest)
    return sharing


def _post(to: HolderCard, path: str, data: bytes, via: Connect) -> bytes | None:
    """A broker's answer, or ``None`` where it gives none."""
    try:
        with closing(via(to.address)) as client:
            return client.post(path, data)
    except StrongroomError:
        return None


def renew(
    home: PartyHome,
    exchange: ExchangeClient,
    manifest: str,
    *,
    threshold: int | None = None,
    cards: Sequence[HolderCard] = (),
    via: Connect = connect,
) -> tuple[Sharing, Collected]:
    """Deal new shares of the same key: to the same brokers, or to others.

    Args:
        manifest: the asset's digest.
        threshold: another ``t`` than before.
        cards: other brokers than before, all of them; none for the same.

    Raises:
        NotFound: it is not shared. TooFewShares: fewer than ``t`` brokers gave their shares back; it can be tried again, and
        until then nothing opens the asset by those that did.
        BadEnrolment, MissingExtra, Unreachable.
    """
    sharing = read(home, manifest)
    if sharing is None:
        raise NotFound(f"{manifest} is not shared")
    before = sharing.enrolment
    cards, threshold = tuple(cards) or sharing.cards, threshold or before.threshold
    require_majority(threshold, len(cards))  # before anything is recalled
    order = Recall(manifest, home.name, before.epoch).sign(home.keys.signing)
    answers: dict[int, Envelope] = {}
    for index, found in enumerate(sharing.cards, 1):
        data = _post(found, "/v1/recalls", order.encode(), via)
        if data is not None:
            answers[index] = Envelope.parse(data)
    verified = verify_manifest(sharing.manifest, home.keys.signing.public).manifest
    collected = collect(before, verified, answers, home.keys.decryption)
    dealt = deal(
        collected.key,
        sharing.manifest,
        keys=home.keys,
        epoch=before.epoch + 1,
        threshold=threshold,
        cards=cards,
        taken=collected.taken,
        entropy=secrets.token_bytes,
    )
    _save(home, Sharing(sharing.manifest, dealt, cards, tuple(sorted(c.name for c in cards))))
    return send(home, exchange, manifest, via=via), collected


def holders(home: PartyHome, proposal: Proposal) -> list[HolderCard]:
    """The brokers that hold shares of this party's assets in a proposal, each once."""
    found: dict[str, HolderCard] = {}
    for ref in proposal.assets:
        sharing = read(home, ref.manifest) if ref.owner == home.name else None
        if sharing is not None:
            found |= {c.broker_key.keyid: c for c in sharing.cards}
    return list(found.values())


def say(home: PartyHome, contract: Envelope, says: Says, at: int, *, via: Connect = connect) -> list[str]:
    """Tell the brokers that hold shares of a contract's assets what this party says of it.

    Args:
        contract: the proposal's envelope; who signed it does not matter.
        at: Unix seconds.

    Returns:
        whom it did not reach, by name.
    """
    proposal = Proposal.parse(contract.expect(PROPOSAL_TYPE))
    word = Word(proposal.digest, home.name, says, at).sign(home.keys.signing)
    return _tell(home, contract, "/v1/words", {"word": word.to_json()}, via)


def grant(home: PartyHome, contract: Envelope, granted: Envelope, *, via: Connect = connect) -> list[str]:
    """Bring them a grant of this party's."""
    Grant.verify(granted, Proposal.parse(contract.expect(PROPOSAL_TYPE)))
    return _tell(home, contract, "/v1/words", {"grant": granted.to_json(), "party": home.name}, via)


def withdraw(home: PartyHome, contract: Envelope, withdrawals: Iterable[Envelope], *, via: Connect = connect) -> list[str]:
    """Bring them every withdrawal that is known."""
    missed: set[str] = set()
    for withdrawal in withdrawals:
        missed.update(_tell(home, contract, "/v1/withdrawals", {"withdrawal": withdrawal.to_json()}, via))
    return sorted(missed)


def _tell(home: PartyHome, contract: Envelope, path: str, said: dict[str, JSON], via: Connect) -> list[str]:
    proposal = Proposal.parse(contract.expect(PROPOSAL_TYPE))
    body = wire.encode({"contract": contract.to_json(), **said})
    return [c.name for c in holders(home, proposal) if _post(c, path, body, via) is None]


def tell(home: PartyHome, exchange: ExchangeClient, digest: str, at: int, *, via: Connect = connect) -> list[str]:
    """Say again all that this party said of a contract, withdrawals first: to a broker that is new, or was away.

    Returns:
        whom it did not all reach, by name.
    """
    seen, standing = exchange.proposal(digest), home.book.standing(digest)
    missed = set(withdraw(home, seen.envelope, seen.withdrawals, via=via))
    if standing.ended_by is not None:
        missed.update(say(home, seen.envelope, Says.ENDED, at, via=via))
    for granted in home.book.granted(digest):
        missed.update(grant(home, seen.envelope, granted, via=via))
    if standing.approved and not missed:
        missed.update(say(home, seen.envelope, Says.APPROVED, at, via=via))
    return sorted(missed)
