"""The broker over HTTP: nonces, decisions, other parties' withdrawals. The owner writes into the book itself."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from strongroom import wire
from strongroom.app.exchange.entry import ENTRY_TYPE
from strongroom.app.http import Client, application, blocking, body, json_answer
from strongroom.broker import MAX_REQUEST_BYTES, Owner, Release, ReleaseRequest, decide
from strongroom.contract import PROPOSAL_TYPE, Proposal, Withdrawal
from strongroom.errors import StrongroomError
from strongroom.ledger import Entry
from strongroom.wire import Envelope, Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette
    from starlette.requests import Request

    from strongroom.app.stores.book import SqliteBook

_LOG = logging.getLogger("strongroom.broker")
RETRY_SECONDS = 5.0


class Outbox:
    """Sends the digest of every decision to the exchange's log, and again until it is there.

    Args:
        book: where decisions are.
        owner: who signs entries.
        exchange: the way to the exchange.
    """

    def __init__(self, book: SqliteBook, owner: Owner, exchange: Client) -> None:
        self._book, self._owner, self._exchange = book, owner, exchange
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="outbox")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stop = True
        self._wake.set()
        self._thread.join(timeout=5)

    def flush(self) -> None:
        """Send what is not logged yet. Raises StrongroomError when the exchange does not take it."""
        for decision in self._book.decisions(unlogged=True):
            entry = Entry(decision.verdict, decision.contract, decision.digest)
            self._exchange.post("/v1/log/entries", self._owner.broker.sign(ENTRY_TYPE, entry.encode()).encode())
            self._book.mark_logged(decision.id)

    def _work(self) -> None:
        while not self._stop:
            try:
                self.flush()
            except StrongroomError as error:
                _LOG.info("decisions wait to be logged: %s", error.code)
                self._wake.wait(RETRY_SECONDS)
            else:
                self._wake.wait()
            self._wake.clear()


def broker(
    book: SqliteBook, owner: Callable[[], Owner], outbox: Outbox | None, *, now: Callable[[], float] = time.time
) -> Starlette:
    """The application.

    Args:
        book: the broker's memory.
        owner: whose broker it is; read anew for each decision, so that a pin that the owner removes is gone at once.
        outbox: logs decisions at the exchange.
        now: Unix seconds.
    """

    def give_nonce() -> bytes:
        return book.nonce(int(now()))

    async def post_nonce(_request: Request) -> Response:
        return json_answer({"nonce": (await blocking(give_nonce)()).hex()})

    def answer(data: bytes) -> tuple[bytes, int]:
        request = ReleaseRequest.parse(data)
        at = int(now())
        decision = decide(request, owner=owner(), book=book, at=at)
        book.record(request, decision, at)
        if outbox is not None:
            outbox.wake()
        return decision.answer(), 200 if isinstance(decision, Release) else 403

    async def post_release(request: Request) -> Response:
        data, status = await blocking(answer)(await body(request, MAX_REQUEST_BYTES))
        return Response(data, status, media_type="application/json")

    def accept_withdrawal(data: bytes) -> None:
        f = Fields(wire.decode(data), "body")
        envelope = Envelope.from_json(f.any("withdrawal"))
        proposal = Proposal.parse(Envelope.from_json(f.any("contract")).expect(PROPOSAL_TYPE))
        f.end()
        owner().trust.check(proposal.parties)  # else a stranger could withdraw under a party's name
        book.withdraw(Withdrawal.verify(envelope, proposal), envelope)

    async def post_withdrawal(request: Request) -> Response:
        await blocking(accept_withdrawal)(await body(request, MAX_REQUEST_BYTES))
        return json_answer({})

    async def health(_request: Request) -> Response:
        current = owner()
        return json_answer({"broker": current.broker.public.keyid, "party": current.name, "role": "broker"})

    return application(
        [
            Route("/v1/health", health),
            Route("/v1/nonce", post_nonce, methods=["POST"]),
            Route("/v1/release", post_release, methods=["POST"]),
            Route("/v1/withdrawals", post_withdrawal, methods=["POST"]),
        ]
    )
