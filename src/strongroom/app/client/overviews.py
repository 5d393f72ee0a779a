"""An owner's view of all the brokers that hold shares of its assets: asked side by side, compared with each other.

Every figure is a broker's signed word, the exchange's unsigned one, or this machine's own book, and says which. Who does not
answer in time is named and not waited for.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.app.http import Client
from strongroom.contract import PROPOSAL_TYPE, Proposal
from strongroom.errors import NotFound, StrongroomError, Unreachable
from strongroom.mark import Mark
from strongroom.overview import MAX_OVERVIEW_BYTES, Inquiry, Overview, differing
from strongroom.proof import Lie, Papers
from strongroom.receipt import Bundle, verify
from strongroom.release import ReleaseStatement
from strongroom.wire import Envelope

if TYPE_CHECKING:
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.party import VerifyKey
    from strongroom.threshold import HolderCard

    from .home import PartyHome
    from .sharing import Sharing

SECONDS = 4.0  # for all brokers together
Connect = Callable[[str], Client]


def connect(address: str) -> Client:
    """The way to a broker, which may be away."""
    return Client(address, timeout=2)


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of asking one broker.

    Attributes:
        card: whose.
        state: ``answered``; ``dead``, ``late``; ``older``: it answers and knows no such question; ``false``: what it said
            is not what it may sign; ``refused``.
        overview: its signed word, where it answered.
        why: of every other state, in a line.
        seconds: how long it took.
        mark: the newest mark of its book at the exchange, which it signed.
    """

    card: HolderCard
    state: str
    overview: Overview | None = None
    why: str = ""
    seconds: float = 0.0
    mark: Mark | None = None

    @property
    def forgot(self) -> bool:
        """Both signed by the broker: it says less of its book than it had said to the exchange."""
        return self.overview is not None and self.mark is not None and self.overview.place.number < self.mark.number


@dataclass(frozen=True, slots=True)
class Row:
    """A contract at one broker.

    Attributes:
        holder: whose broker.
        approved, ended, withdrawn, granted, given: as it says, signed; ``given`` counts slots.
        left: slots that it would still give, of the contract's limit and what was granted; ``None``: the limit is not known.
    """

    holder: str
    approved: bool
    ended: bool
    withdrawn: tuple[str, ...]
    granted: int
    given: int
    left: int | None


@dataclass(frozen=True, slots=True)
class Spoken:
    """One contract on one shared asset, as its brokers tell it."""

    contract: str
    title: str
    rows: tuple[Row, ...]
    unreceipted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssetSeen:
    """One shared asset.

    Attributes:
        sharing: as its owner keeps it.
        contracts: those that any broker knows.
        differences: in what brokers differ, in lines.
        lies: what two signed papers prove.
    """

    sharing: Sharing
    contracts: tuple[Spoken, ...]
    differences: tuple[str, ...]
    lies: tuple[Lie, ...]


@dataclass
class _Question:
    """One broker, asked in a thread that nobody waits for longer than agreed."""

    home: PartyHome
    card: HolderCard
    via: Connect
    exchange: ExchangeClient
    began: float = field(default_factory=time.monotonic)

    def ask(self) -> Looked:
        asked = Inquiry(self.home.name, self.card.broker_key.keyid, secrets.token_bytes(32), int(time.time()))
        question = asked.sign(self.home.keys.signing).encode()
        mark = None
        with suppress(StrongroomError):
            mark = self.exchange.mark(self.card.broker_key)
        overview, state, why = None, "answered", ""
        try:
            with closing(self.via(self.card.address)) as client:
                data = client.post("/v1/inquiries", question, max_bytes=MAX_OVERVIEW_BYTES, seconds=SECONDS)
        except Unreachable as error:
            state, why = "dead", str(error)
        except NotFound:
            state, why = "older", "it answers, and cannot be asked: its version is older"
        except StrongroomError as error:
            state, why = "refused", f"{error.code}: {error}"
        else:
            try:
                overview = Overview.verify(Envelope.parse(data), self.card.broker_key, asked)
            except StrongroomError as error:
                state, why = "false", f"{error.code}: {error}"
        return Looked(self.card, state, overview, why, time.monotonic() - self.began, mark)


@dataclass(frozen=True, slots=True)
class Own:
    """A contract at this party's own broker, by its book.

    Attributes:
        contract, title: which; the title is ``""`` where the exchange does not tell.
        state: ``approved``, ``not approved``, ``ended``, ``withdrawn`` or ``over`` (from before the book was put back).
        given: runs that had a key.
        left: runs that may still have one; ``None``: the limit is not known.
        guests: its runs are by guests, which write no receipts.
    """

    contract: str
    title: str
    state: str
    given: int
    left: int | None
    guests: bool


def own(home: PartyHome, exchange: ExchangeClient, most: int = 64) -> list[Own]:
    """The newest contracts of which this party's own broker knows anything, the newest last."""
    book, guests = home.book, home.book.for_guests()
    decided = [d.contract for d in book.decisions() if d.verdict == "release"]
    found = []
    for digest in list(dict.fromkeys([*book.approved(), *decided]))[-most:]:
        proposal, standing = None, book.standing(digest)
        with suppress(StrongroomError):
            proposal = Proposal.parse(exchange.proposal(digest).envelope.expect(PROPOSAL_TYPE))
        if proposal is not None and proposal.digest != digest:
            proposal = None
        over = proposal is not None and proposal.begun(book.marks.restored())
        states = {
            "over": over,
            "withdrawn": bool(standing.withdrawn_by),
            "ended": standing.ended_by is not None,
            "not approved": not standing.approved,
        }
        state = next((name for name, so in states.items() if so), "approved")
        left = None if proposal is None else max(0, proposal.limits.runs + standing.granted - len(standing.runs))
        title = "" if proposal is None else proposal.title
        found.append(Own(digest, title, state, len(standing.runs), left if state == "approved" else 0, digest in guests))
    return found


def to_guests(home: PartyHome) -> list[tuple[str, str, int]]:
    """Runs whose keys guests had: contract, run id, time of the release. No receipt can come of them."""
    guests = home.book.for_guests()
    return [(contract, run_id, at) for contract, run_id, _, at in home.book.releases() if contract in guests]


def look(
    home: PartyHome,
    exchange: ExchangeClient,
    cards: Iterable[HolderCard],
    *,
    via: Connect = connect,
    seconds: float = SECONDS,
) -> list[Looked]:
    """Ask brokers side by side. Nothing is waited for longer than ``seconds``; whoever has not answered then is late."""
    each = {c.broker_key.keyid: c for c in cards}
    home.keys  # noqa: B018 - read once, and before there are threads
    answers: queue.Queue[tuple[str, Looked]] = queue.Queue()

    def ask(keyid: str, card: HolderCard) -> None:
        answers.put((keyid, _Question(home, card, via, exchange).ask()))

    for keyid, card in each.items():
        threading.Thread(target=ask, args=(keyid, card), daemon=True, name=f"look {card.name}").start()
    found: dict[str, Looked] = {}
    deadline = time.monotonic() + seconds
    while len(found) < len(each):
        try:
            keyid, looked = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[keyid] = looked
    late = f"no answer within {seconds:g} s"
    return [found.get(keyid) or Looked(card, "late", why=late, seconds=seconds) for keyid, card in each.items()]


def compare(home: PartyHome, exchange: ExchangeClient, sharing: Sharing, looked: Iterable[Looked]) -> AssetSeen:
    """What the brokers of one asset say, beside each other.

    Args:
        sharing: how the asset is shared.
        looked: what came of asking, of any brokers.
    """
    mine = {c.broker_key.keyid for c in sharing.cards}
    said = {one.card.name: one.overview for one in looked if one.card.broker_key.keyid in mine and one.overview}
    manifest = sharing.enrolment.manifest
    digests = {c.contract for o in said.values() for c in o.contracts}
    digests |= {t.contract for o in said.values() for m, t in o.taken if m == manifest}
    spoken: list[Spoken] = []
    receipts: list[Bundle] = []
    keys = {c.name: c.broker_key for c in sharing.cards}
    released = [s for name, o in said.items() for s in _statements(o, keys[name])]
    for digest in sorted(digests):
        proposal, bundles = _known(home, exchange, digest)
        receipts += bundles.values()
        if proposal is None or any(ref.manifest == manifest for ref in proposal.assets):
            runs = {s.run_id for s in released if (s.contract, s.manifest) == (digest, manifest)}
            if proposal is not None and proposal.standing:  # its receipts are of requests, and not of runs
                runs = set()
            rows = tuple(_row(name, o, digest, manifest, proposal) for name, o in said.items())
            title = proposal.title if proposal else ""
            spoken.append(Spoken(digest, title, rows, tuple(sorted(runs - bundles.keys()))))
    differences = [*_epochs(sharing, said), *(line for one in spoken for line in _differences(one, manifest, said))]
    return AssetSeen(sharing, tuple(spoken), tuple(differences), tuple(_lies(home, sharing, said, receipts)))


def _known(home: PartyHome, exchange: ExchangeClient, digest: str) -> tuple[Proposal | None, dict[str, Bundle]]:
    """A contract, by its own digest, and run id -> valid receipt, of those that enclaves handed to this party's broker."""
    bundles = {}
    for data in home.book.receipts(digest):
        with suppress(StrongroomError):
            bundle = Bundle.parse(data)
            bundles[verify(bundle, trust=home.trust).statement.run_id] = bundle
    try:
        proposal = Proposal.parse(exchange.proposal(digest).envelope.expect(PROPOSAL_TYPE))
    except StrongroomError:
        return None, bundles
    return (proposal if proposal.digest == digest else None), bundles


def _row(name: str, overview: Overview, digest: str, manifest: str, proposal: Proposal | None) -> Row:
    known = next((c for c in overview.contracts if c.contract == digest), None)
    approved, ended = (known.approved, known.ended) if known else (False, False)
    withdrawn = tuple(sorted(w.party for w in overview.withdrawn if w.contract == digest))
    slots, granted = overview.slots(digest, manifest), known.granted if known else 0
    left = None
    if proposal is not None:
        top = proposal.limits.runs + granted
        left = top - sum(1 for slot in slots if slot <= top)
        if ended or withdrawn or not approved or proposal.begun(overview.restored):
            left = 0
    return Row(name, approved, ended, withdrawn, granted, len(slots), left)


def _statements(overview: Overview, broker: VerifyKey) -> list[ReleaseStatement]:
    found = []
    for envelope in overview.releases:
        with suppress(StrongroomError):
            found.append(ReleaseStatement.verify(envelope, broker))
    return found


def _epochs(sharing: Sharing, said: dict[str, Overview]) -> list[str]:
    manifest, now = sharing.enrolment.manifest, sharing.enrolment
    held = [(name, s) for name, o in said.items() for s in o.shares if s.manifest == manifest]
    lines = [
        f"{name} has a share of epoch {s.epoch} where {now.epoch} is the newest"
        for name, s in held
        if s.enrolment != now.digest
    ]
    lines += [f"{name} was told to give nothing more of epoch {s.epoch}" for name, s in held if s.recalled]
    lines += [f"{name} says that it has no share" for name in said if name not in {n for n, _ in held}]
    return lines


def _differences(one: Spoken, manifest: str, said: dict[str, Overview]) -> list[str]:
    lines = []
    said_of: dict[str, list[tuple[str, object]]] = {
        "whether it is approved": [(r.holder, "approved" if r.approved else "not approved") for r in one.rows],
        "whether it ended": [(r.holder, "ended" if r.ended else "not ended") for r in one.rows],
        "who withdrew": [(r.holder, ", ".join(r.withdrawn) or "nobody") for r in one.rows],
        "how many runs were granted": [(r.holder, r.granted) for r in one.rows],
        "how many slots were given (a broker that was not asked gave none)": [(r.holder, r.given) for r in one.rows],
    }
    for what, each_said in said_of.items():
        by = differing(each_said)
        if by:
            each = "; ".join(f"{text}: {', '.join(names)}" for text, names in sorted(by.items(), key=str))
            lines.append(f"contract {one.contract[:19]}…: brokers differ in {what}: {each}")
    slots = {name: o.slots(one.contract, manifest) for name, o in said.items()}
    for slot in sorted({s for given in slots.values() for s in given}):
        by = differing((name, given[slot]) for name, given in slots.items() if slot in given)
        if by:
            each = "; ".join(f"{str(keyset)[:19]}…: {', '.join(names)}" for keyset, names in sorted(by.items(), key=str))
            lines.append(f"contract {one.contract[:19]}…: slot {slot} was given to two keysets, by their own word: {each}")
    return lines


def _lies(home: PartyHome, sharing: Sharing, said: dict[str, Overview], bundles: list[Bundle]) -> list[Lie]:
    papers = Papers(sharing.enrolment.manifest, home.name, home.keys.signing.public)
    keys = {c.name: c.broker_key for c in sharing.cards}
    for name, overview in said.items():
        for envelope in overview.releases:
            with suppress(StrongroomError):
                papers.release(envelope, keys[name])
    for bundle in bundles:
        for envelope in bundle.releases:
            for key in keys.values():
                if envelope.signatures and envelope.signatures[0].keyid == key.keyid:
                    with suppress(StrongroomError):
                        papers.release(envelope, key)
    for dealt in sharing.dealt.deals:
        with suppress(StrongroomError):
            papers.deal(dealt)
    return papers.lies()
