"""The broker over HTTP: nonces, decisions, other parties' withdrawals. The owner writes into the book itself."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from strongroom import wire
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.entry import ENTRY_TYPE
from strongroom.app.http import Client, application, blocking, body, json_answer
from strongroom.broker import Owner, Release, decide
from strongroom.contract import PROPOSAL_TYPE, Contract, Proposal, Withdrawal
from strongroom.errors import BadReceipt, BookRestored, Internal, StrongroomError, Unreachable
from strongroom.holder import give_back, hear, hear_grant, take
from strongroom.job import Cancel
from strongroom.ledger import Entry
from strongroom.overview import Inquiry
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle, verify
from strongroom.release import MAX_REQUEST_BYTES, ReleaseRequest
from strongroom.threshold import ENROLMENT_TYPE, Enrolment
from strongroom.wire import Envelope, Fields

from .witness import Bringer, Witness, forgotten

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette
    from starlette.requests import Request

    from strongroom.app.broker.rcar import Guests
    from strongroom.app.stores.book import SqliteBook

_LOG = logging.getLogger("strongroom.broker")
RETRY_SECONDS = 5.0
CATCH_UP_SECONDS = 60.0


class Outbox:
    """Sends the digest of every decision to the exchange's log, and again until it is there; brings withdrawals back.

    A withdrawal is told to every broker by the one who withdraws. A broker that was off then asks the exchange, when it
    starts and every minute.

    Args:
        book: where decisions are.
        owner: who signs entries; read anew each time.
        exchange: the way to the exchange.
        witness: told of what the owner wrote into the book itself, within seconds, and of what the exchange missed.
    """

    def __init__(
        self, book: SqliteBook, owner: Callable[[], Owner], exchange: Client, witness: Witness | None = None
    ) -> None:
        self._book, self._owner, self._exchange = book, owner, exchange
        self._bringer = None if witness is None else Bringer(witness)
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="outbox")

    def start(self) -> None:
        self._thread.start()
        if self._bringer is not None:
            self._bringer.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stop = True
        self._wake.set()
        if self._bringer is not None:
            self._bringer.stop()
        self._thread.join(timeout=5)

    def flush(self) -> None:
        """Send what is not logged yet.

        What the exchange will never take (a stranger's request names a contract that nobody proposed) is passed over, so
        that it does not stand in the way of the rest.

        Raises:
            Unreachable, Internal: the exchange does not answer, or failed.
        """
        for decision in self._book.decisions(unlogged=True):
            entry = Entry(decision.verdict, decision.contract, decision.digest)
            try:
                self._exchange.post("/v1/log/entries", self._owner().broker.sign(ENTRY_TYPE, entry.encode()).encode())
            except (Unreachable, Internal):
                raise
            except StrongroomError as error:
                _LOG.info("decision %d is not logged: %s", decision.id, error.code)
                self._book.mark_unloggable(decision.id)
            else:
                self._book.mark_logged(decision.id)

    def catch_up(self) -> None:
        """Take in the withdrawals that the exchange shows of contracts that the owner approved. Raises StrongroomError."""
        exchange, trust = ExchangeClient(self._exchange), self._owner().trust
        for digest in sorted({*self._book.approved(), *(heard := self._book.heard())}):
            if self._book.standing(digest).withdrawn_by:
                continue
            try:
                seen = exchange.proposal(digest)
                proposal = Proposal.parse(seen.envelope.expect(PROPOSAL_TYPE))
                if digest not in heard:  # its owner, who is pinned, named this very contract
                    trust.check(proposal.parties)
                for envelope in seen.withdrawals:
                    on = [ref.manifest for ref in proposal.assets]
                    self._book.withdraw(Withdrawal.verify(envelope, proposal), envelope, on)
            except (Unreachable, Internal):
                raise
            except StrongroomError as error:  # not on this exchange, or not what its party signed
                _LOG.info("contract %s: %s", digest, error.code)

    def _work(self) -> None:
        due = 0.0
        while not self._stop:
            wait = CATCH_UP_SECONDS
            try:
                self.flush()
                if time.monotonic() >= due:
                    self.catch_up()
                    due = time.monotonic() + CATCH_UP_SECONDS
            except StrongroomError as error:
                _LOG.info("the exchange is asked again: %s", error.code)
                wait = RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - the thread goes on: decisions are logged, withdrawals fetched
                _LOG.error("the exchange is asked again: %s", error.__class__.__name__)
                wait = RETRY_SECONDS
            self._wake.wait(wait)
            self._wake.clear()


def _read(owner: Callable[[], Owner]) -> Owner:
    """The owner now. What is wrong with the owner's files is the owner's to know, and nobody else's. Raises Internal."""
    try:
        return owner()
    except StrongroomError as error:
        _LOG.error("the owner's files cannot be used: %s: %s", error.code, error)
        raise Internal("the broker cannot read its owner's files") from error


def _shared(bundle: Bundle, name: str) -> bool:
    """Whether a verified bundle's run took shares of an asset of this owner."""
    manifests = {Enrolment.parse(e.expect(ENROLMENT_TYPE)).manifest for e in bundle.enrolments}
    proposal = Proposal.parse(bundle.contract.expect(PROPOSAL_TYPE))
    return any(ref.owner == name and ref.manifest in manifests for ref in proposal.assets)


def broker(  # noqa: C901, PLR0915 - the table of routes reads whole
    book: SqliteBook,
    owner: Callable[[], Owner],
    outbox: Outbox | None,
    *,
    witness: Witness | None = None,
    now: Callable[[], float] = time.time,
    guests: Guests | None = None,
) -> Starlette:
    """The application.

    Args:
        book: the broker's memory.
        owner: whose broker it is; read anew for each decision, so that a pin that the owner removes is gone at once.
        outbox: logs decisions at the exchange.
        witness: who keeps how far the book has come; every broker that others reach has one.
        now: Unix seconds.
        guests: what answers confidential containers; ``None``: nobody does.
    """

    def current() -> None:
        book.marks.require_confirmed()
        if witness is not None:
            witness.check()

    def known() -> None:
        if witness is not None:
            witness.settle()

    def said() -> None:
        """Before it is acknowledged that something is forbidden: a book that forgets it is noticed."""
        with suppress(BookRestored):  # it gives nothing; whoever withdraws is told that this is so
            known()

    def give_nonce() -> bytes:
        return book.nonce(int(now()))

    async def post_nonce(_request: Request) -> Response:
        return json_answer({"nonce": (await blocking(give_nonce)()).hex()})

    def answer(data: bytes) -> tuple[bytes, int]:
        request = ReleaseRequest.parse(data)
        current()
        at = int(now())
        decision = decide(request, owner=_read(owner), book=book, at=at)
        book.record(request, decision, at)
        if outbox is not None:
            outbox.wake()
        if isinstance(decision, Release):
            known()
        return decision.answer(), 200 if isinstance(decision, Release) else 403

    async def post_release(request: Request) -> Response:
        data, status = await blocking(answer)(await body(request, MAX_REQUEST_BYTES))
        return Response(data, status, media_type="application/json")

    def accept_withdrawal(data: bytes) -> None:
        f = Fields(wire.decode(data), "body")
        envelope = Envelope.from_json(f.any("withdrawal"))
        proposal = Proposal.parse(Envelope.from_json(f.any("contract")).expect(PROPOSAL_TYPE))
        f.end()
        if proposal.digest not in book.heard():  # an owner whose share is here named it, and so its parties' keys
            _read(owner).trust.check(proposal.parties)  # else a stranger could withdraw under a party's name
        book.withdraw(Withdrawal.verify(envelope, proposal), envelope, [ref.manifest for ref in proposal.assets])
        said()

    def accept_cancel(data: bytes) -> None:
        f = Fields(wire.decode(data), "body")
        envelope = Envelope.from_json(f.any("cancel"))
        contract = Contract.verify(Envelope.from_json(f.any("contract")))  # as D2 and D3: its parties are who they are
        f.end()
        if contract.digest not in book.heard():  # as of withdrawals
            _read(owner).trust.check(contract.proposal.parties)
        book.cancel(Cancel.verify(envelope, contract.proposal, int(now())), envelope)
        said()

    def accept_receipt(data: bytes) -> None:
        bundle, here = Bundle.parse(data), _read(owner)
        statement = verify(bundle, trust=here.trust).statement
        lost = forgotten(bundle, here.broker.public, book)
        if lost:  # the receipt is kept all the same: nobody's outputs wait for this broker's owner
            _LOG.error("a receipt shows a release by this broker that its book does not know: nothing more is given")
            book.marks.put_back(lost)
        # a receipt of a run that this broker gave keys for, by the very keyset that got them; or that others gave shares for
        gave = book.standing(statement.contract).runs.get(statement.run_id) == statement.keyset_digest
        if not (gave or lost) and not _shared(bundle, here.name):
            raise BadReceipt("the receipt is of no run that this broker released keys for")
        book.keep_receipt(statement.contract, statement.run_id, data)
        book.settle(statement.contract, statement.run_id, statement.used)

    def accept_deal(data: bytes) -> None:
        current()
        take(Envelope.parse(data), here=_read(owner), book=book, at=int(now()))
        known()

    def answer_recall(data: bytes) -> bytes:
        current()
        found = give_back(Envelope.parse(data), here=_read(owner), book=book)
        known()
        return found.encode()

    def accept_word(data: bytes) -> None:
        f = Fields(wire.decode(data), "body")
        proposal = Proposal.parse(Envelope.from_json(f.any("contract")).expect(PROPOSAL_TYPE))
        if f.has("word"):
            hear(Envelope.from_json(f.any("word")), proposal, here=_read(owner), book=book)
        else:
            hear_grant(Envelope.from_json(f.any("grant")), proposal, f.name("party"), here=_read(owner), book=book)
        f.end()
        said()

    def answer_inquiry(data: bytes) -> bytes:
        envelope, here, at = Envelope.parse(data), _read(owner), int(now())
        party = here.trust.party(Inquiry.peek(envelope).owner)
        asked = Inquiry.verify(envelope, party.signing_key, broker=here.broker.public, at=at)
        return book.telling(party.name).tell(asked, at).sign(here.broker).encode()

    async def post_inquiry(request: Request) -> Response:
        data = await blocking(answer_inquiry)(await body(request, 64 << 10))
        return Response(data, media_type="application/json")

    async def post_deal(request: Request) -> Response:
        await blocking(accept_deal)(await body(request, MAX_REQUEST_BYTES))
        return json_answer({})

    async def post_recall(request: Request) -> Response:
        data = await blocking(answer_recall)(await body(request, 64 << 10))
        return Response(data, media_type="application/json")

    async def post_word(request: Request) -> Response:
        await blocking(accept_word)(await body(request, MAX_REQUEST_BYTES))
        return json_answer({})

    async def post_receipt(request: Request) -> Response:
        await blocking(accept_receipt)(await body(request, MAX_BUNDLE_BYTES))
        return json_answer({})

    async def post_withdrawal(request: Request) -> Response:
        await blocking(accept_withdrawal)(await body(request, MAX_REQUEST_BYTES))
        return json_answer({})

    async def post_cancel(request: Request) -> Response:
        await blocking(accept_cancel)(await body(request, MAX_REQUEST_BYTES))
        return json_answer({})

    async def health(_request: Request) -> Response:
        found = await blocking(_read)(owner)
        return json_answer({"broker": found.broker.public.keyid, "party": found.name, "role": "broker"})

    return application(
        [
            Route("/v1/health", health),
            Route("/v1/nonce", post_nonce, methods=["POST"]),
            Route("/v1/release", post_release, methods=["POST"]),
            Route("/v1/receipts", post_receipt, methods=["POST"]),
            Route("/v1/withdrawals", post_withdrawal, methods=["POST"]),
            Route("/v1/cancels", post_cancel, methods=["POST"]),
            Route("/v1/deals", post_deal, methods=["POST"]),
            Route("/v1/recalls", post_recall, methods=["POST"]),
            Route("/v1/words", post_word, methods=["POST"]),
            Route("/v1/inquiries", post_inquiry, methods=["POST"]),
            *([] if guests is None else guests.routes()),
        ]
    )
