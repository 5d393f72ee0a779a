"""An owner's shared keys: dealt to other people's brokers, called in, dealt anew; and the owner's word to them.

What was dealt is kept in the party's folder until every broker has taken its own, and sent again until then: it is encrypted
to the brokers, and says nothing to anybody else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.app.http import Client
from strongroom.asset import AssetKey, Manifest, verify_manifest
from strongroom.contract import PROPOSAL_TYPE, Grant, Proposal
from strongroom.dealing import Collected, Dealt, collect, deal
from strongroom.errors import (
    BadBudget,
    BadEnrolment,
    Internal,
    NotFound,
    StrongroomError,
    TooFewShares,
    Unreachable,
    Usage,
)
from strongroom.holding import Recall, Says, Word
from strongroom.threshold import Enrolment, Holder, HolderCard, require_majority
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
        recalled: shares of this dealing were, or may have been, called in, and no new ones dealt yet.
        problems: why those that wait did not take theirs just now, by name; it is not written down.
    """

    manifest: Envelope
    dealt: Dealt
    cards: tuple[HolderCard, ...]
    waiting: tuple[str, ...]
    recalled: bool = False
    problems: Mapping[str, StrongroomError] = field(default_factory=dict, compare=False)

    @property
    def enrolment(self) -> Enrolment:
        return Enrolment.parse(self.dealt.enrolment.payload)

    def to_json(self) -> dict[str, JSON]:
        return {
            "cards": [wire.decode(c.encode()) for c in self.cards],
            "deals": [e.to_json() for e in self.dealt.deals],
            "enrolment": self.dealt.enrolment.to_json(),
            "manifest": self.manifest.to_json(),
            "recalled": self.recalled,
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
            recalled=f.boolean("recalled") if f.has("recalled") else False,
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


def forget_shared(home: PartyHome) -> list[str]:
    """Forget again the keys that a book from a backup has, and that were all handed out since; digests of their manifests.

    A key whose shares were dealt once more stays out of the book as soon as enough brokers took them.
    """
    found = []
    for one in every(home):
        e = one.enrolment
        took = len(one.cards) - len(one.waiting)
        if (not one.waiting or (e.epoch > 1 and took >= e.threshold)) and home.book.held(e.manifest) is not None:
            home.book.forget(e.manifest)
            found.append(e.manifest)
    return found


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
    held = home.book.held(asset.digest)
    if held is None:
        raise NotFound(f"your broker holds no key of {asset.name}")
    keeper(home, threshold, cards)(held.manifest, held.key)
    return send(home, exchange, asset.digest, via=via)


def keeper(home: PartyHome, threshold: int, cards: Sequence[HolderCard]) -> Callable[[Envelope, AssetKey], None]:
    """What keeps an asset's key as shares that are encrypted to other people's brokers, and not as a key.

    What it writes says nothing to who has not ``threshold`` of their share keys; :func:`send` brings it to them. The own
    broker's book gets the manifest alone.

    Raises:
        BadEnrolment: not more than half. From what is returned: BadBudget: the asset has a budget, which is not counted
        across brokers; BadEnrolment: a broker twice; MissingExtra.
    """
    require_majority(threshold, len(cards))
    if len({c.name for c in cards}) != len(cards):
        raise BadEnrolment("two of the brokers have one name")

    def keep(manifest: Envelope, key: AssetKey) -> None:
        if home.book.budget(manifest.digest) is not None:
            raise BadBudget("the asset has a budget, which brokers that each count alone would not hold")
        dealt = deal(
            key, manifest, keys=home.keys, epoch=1, threshold=threshold, cards=cards, entropy=secrets.token_bytes
        )  # fmt: skip
        home.book.know(manifest)
        _save(home, Sharing(manifest, dealt, tuple(cards), tuple(sorted(c.name for c in cards))))

    return keep


def probe(cards: Sequence[HolderCard], *, via: Connect = connect) -> None:
    """Require that the broker of each card answers, and is the card's. Nothing is said to it.

    Raises:
        Unreachable: some do not, or another broker answers there; all of them are named.
    """
    away = _away(cards, via)
    if away:
        said = ", ".join(f"{c.name} at {c.address}{away[c.name]}" for c in cards if c.name in away)
        raise Unreachable(f"these brokers do not answer: {said}", hint="Start them, or share over others, and do it again.")


def _away(cards: Sequence[HolderCard], via: Connect) -> dict[str, str]:
    """Names of those whose broker does not answer, and what is to be said of it beside."""
    away: dict[str, str] = {}
    for c, answer in zip(cards, _each([(c, "GET", "/v1/health", b"") for c in cards], via).values(), strict=True):
        if isinstance(answer, StrongroomError):
            away[c.name] = ""
        elif c.broker_key.keyid.encode() not in answer:  # a share is encrypted to its holder, whoever takes it
            away[c.name] = ", where another broker is"
    return away


def send(home: PartyHome, exchange: ExchangeClient, manifest: str, *, via: Connect = connect) -> Sharing:
    """Bring every broker that has not taken its share what it was dealt; publish the enrolment once ``t`` of them have.

    Raises:
        NotFound: it is not shared.
        Unreachable: the exchange does not answer.
    """
    sharing = read(home, manifest)
    if sharing is None:
        raise NotFound(f"{manifest} is not shared")
    dealt = zip(sharing.cards, sharing.dealt.deals, strict=True)
    found = _each([(c, "POST", "/v1/deals", e.encode()) for c, e in dealt if c.name in sharing.waiting], via)
    problems = {name: answer for name, answer in found.items() if isinstance(answer, StrongroomError)}
    if len(problems) < len(sharing.waiting):
        sharing = replace(sharing, waiting=tuple(sorted(problems)))
        _save(home, sharing)
    if len(sharing.cards) - len(sharing.waiting) >= sharing.enrolment.threshold:
        exchange.put_enrolment(manifest, sharing.dealt.enrolment, home.keys.signing.public)
    if not sharing.waiting:
        home.book.forget(manifest)
    return replace(sharing, problems=problems)


def _each(asked: Sequence[tuple[HolderCard | Holder, str, str, bytes]], via: Connect) -> dict[str, bytes | StrongroomError]:
    """Ask brokers side by side: a broker, how, where and what; each one's answer, or what went wrong, by name."""

    def one(to: HolderCard | Holder, method: str, path: str, data: bytes) -> bytes | StrongroomError:
        try:
            with closing(via(to.address)) as client:
                return client.get(path) if method == "GET" else client.post(path, data)
        except StrongroomError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        return dict(zip((a[0].name for a in asked), pool.map(lambda a: one(*a), asked), strict=True))


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

    What was broken off is taken up again: from the recall until ``t`` brokers have taken what was dealt anew nothing opens
    the asset, and doing this once more, or :func:`send`, goes on from wherever it ended. So nothing is recalled before
    enough brokers answer.

    Raises:
        NotFound: it is not shared. TooFewShares: fewer than ``t`` brokers answer, and nothing was recalled; or they did and
        gave no good shares back: until it is done again, nothing opens the asset by those that did.
        BadEnrolment, MissingExtra. Unreachable: a broker that is new does not answer; nothing was recalled.
    """
    sharing = read(home, manifest)
    if sharing is None:
        raise NotFound(f"{manifest} is not shared")
    before = sharing.enrolment
    cards, threshold = tuple(cards) or sharing.cards, threshold or before.threshold
    require_majority(threshold, len(cards))  # before anything is recalled
    probe([c for c in cards if c not in sharing.cards], via=via)
    if sharing.waiting:  # the last dealing was broken off: what is recalled is what was dealt
        sharing = send(home, exchange, manifest, via=via)
    away = {*_away(sharing.cards, via), *sharing.waiting}
    if len(sharing.cards) - len(away) < before.threshold:
        said = f"{', '.join(sorted(away))} do not answer, or have no share of epoch {before.epoch}; nothing was recalled"
        raise TooFewShares(said, hint="Start their brokers, and do it again.")
    _save(home, replace(sharing, recalled=True))
    order = Recall(manifest, home.name, before.epoch).sign(home.keys.signing)
    found = _each([(c, "POST", "/v1/recalls", order.encode()) for c in sharing.cards], via)
    said_back = {i: found[c.name] for i, c in enumerate(sharing.cards, 1)}
    answers = {i: Envelope.parse(data) for i, data in said_back.items() if isinstance(data, bytes)}
    verified = verify_manifest(sharing.manifest, home.keys.signing.public).manifest
    collected = collect(before, verified, answers, home.keys.decryption, int(time.time()))
    dealt = deal(
        collected.key,
        sharing.manifest,
        keys=home.keys,
        epoch=before.epoch + 1,
        threshold=threshold,
        cards=cards,
        taken=collected.taken,
        withdrawn=collected.withdrawn,
        over=collected.over,
        heard=collected.heard,
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


def enrolled(exchange: ExchangeClient, proposal: Proposal) -> list[Holder]:
    """The brokers that hold shares of a proposal's assets, whosever they are, as their owners' enrolments say; each once.

    Raises:
        Unreachable; and as :meth:`Enrolment.verify`, where the exchange shows what no owner signed.
    """
    found: dict[str, Holder] = {}
    for ref in proposal.assets:
        key = proposal.party(ref.owner).signing_key
        signed = exchange.enrolment(ref.manifest, key.keyid)
        if signed is not None:
            enrolment = Enrolment.verify(signed, manifest=ref.manifest, owner=ref.owner, key=key)
            found |= {h.broker_key.keyid: h for h in enrolment.holders}
    return list(found.values())


def bring(exchange: ExchangeClient, proposal: Proposal, path: str, said: bytes, *, via: Connect = connect) -> list[str]:
    """Bring all of them what any party may say: a withdrawal, a cancel. Whom it did not reach."""
    try:
        found = _each([(h, "POST", path, said) for h in enrolled(exchange, proposal)], via)
    except StrongroomError:
        return ["the brokers that hold shares, since the exchange does not say who they are"]
    # one that refuses was told nothing of this contract by its owner, and gives nothing under it
    return [f"the broker of {name}" for name, answer in found.items() if isinstance(answer, (Internal, Unreachable))]


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
    found = _each([(c, "POST", path, body) for c in holders(home, proposal)], via)
    return [name for name, answer in found.items() if isinstance(answer, StrongroomError)]


def tell(home: PartyHome, exchange: ExchangeClient, digest: str, at: int, *, via: Connect = connect) -> list[str]:
    """Say again all that this party said of a contract, withdrawals first: to a broker that is new, or was away.

    Returns:
        whom it did not all reach, by name.
    """
    seen, standing = exchange.proposal(digest), home.book.standing(digest)
    known = {e.digest: e for e in (*seen.withdrawals, *home.book.withdrawals(digest))}
    missed = set(withdraw(home, seen.envelope, known.values(), via=via))
    if standing.ended_by is not None:
        missed.update(say(home, seen.envelope, Says.ENDED, at, via=via))
    for granted in home.book.granted(digest):
        missed.update(grant(home, seen.envelope, granted, via=via))
    if standing.approved and not missed:
        missed.update(say(home, seen.envelope, Says.APPROVED, at, via=via))
    return sorted(missed)


def told(home: PartyHome, exchange: ExchangeClient, digests: Iterable[str], *, via: Connect = connect) -> tuple[str, ...]:
    """:func:`tell` of what this party has just said, where it shares anything; who was not reached, and nothing raised.

    A party's own broker knows already what it said; brokers that were off are told by ``strongroom broker tell``.
    """
    if not every(home):
        return ()
    missed: set[str] = set()
    for digest in digests:
        try:
            missed.update(tell(home, exchange, digest, int(time.time()), via=via))
        except StrongroomError:
            missed.add("the brokers that hold shares, since the exchange does not show the contract")
    return tuple(sorted(missed))
