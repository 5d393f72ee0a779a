"""A broker's door for guests that speak the key broker protocol of confidential containers (``spec/rcar.md``).

Of a guest that has not attested nothing is kept: its cookie says it all, under a MAC. Of one that has, its evidence is kept
in memory until its session ends, and appraised again for every key.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from strongroom import wire
from strongroom.app.http import blocking, body, json_answer
from strongroom.attest.evidence import Endorsements
from strongroom.broker import NONCE_SECONDS, Owner, Release
from strongroom.errors import (
    AttestationError,
    BadEar,
    BookRestored,
    Internal,
    LimitReached,
    MissingExtra,
    NonceRefused,
    NoSession,
    NotAffirming,
    NotFound,
    StrongroomError,
    TooLarge,
    Unreachable,
    WireError,
)
from strongroom.guest import Attested, GuestRequest, GuestRun, choose, decide_guest
from strongroom.rcar import ear, jwe, message
from strongroom.rcar.evidence import read
from strongroom.release import MAX_REQUEST_BYTES
from strongroom.wire import JSON, Envelope, Fields

if TYPE_CHECKING:
    from starlette.requests import Request

    from strongroom.app.stores.book import SqliteBook
    from strongroom.attest.evidence import Evidence
    from strongroom.attest.result import AttestationResult
    from strongroom.rcar.evidence import Vouch

    from .witness import Witness

COOKIE = "kbs-session-id"
MAX_SESSIONS = 1000
AT_ONCE = 8  # attestations under way: each may ask a vendor's service
_LOG = logging.getLogger("strongroom.broker")
_RESOURCE = re.compile(rb"/kbs/v0/resource/([0-9a-f]{64})/([0-9a-f]{64})/key\Z")


class Sessions:
    """The guests that attested, each with one session: at most :data:`MAX_SESSIONS`, until each ends."""

    def __init__(self) -> None:
        self._found: dict[str, Attested] = {}
        self._lock = threading.Lock()

    def keep(self, name: str, session: Attested, at: int) -> None:
        """``name``: the digest of its cookie. A guest's new session ends its earlier one. Raises LimitReached."""
        guest = session.runtime.key.digest
        with self._lock:
            kept = {n: s for n, s in self._found.items() if at < s.until and s.runtime.key.digest != guest}
            if len(kept) >= MAX_SESSIONS:
                raise LimitReached("too many guests attested in the last minutes", retry_after=NONCE_SECONDS)
            known = {d: d for s in kept.values() for d in s.endorsements.documents}  # most have the same: kept once
            documents = tuple(known.get(d, d) for d in session.endorsements.documents)
            self._found = {**kept, name: replace(session, endorsements=Endorsements(documents))}

    def find(self, name: str, at: int) -> Attested:
        """Raises NoSession."""
        with self._lock:
            found = self._found.get(name)
        if found is None or at >= found.until:
            raise NoSession("no guest attested under this session, or it is over")
        return found


@dataclass(frozen=True, slots=True)
class Around:
    """What guests are judged with.

    Attributes:
        endorse: finds what vendors vouch for some evidence at a time, beside what came along.
        vouch: for sample evidence, which nobody signed; ``None``: there is no vouching.
    """

    endorse: Callable[[Evidence, int, Endorsements], Endorsements]
    vouch: Vouch | None = None


class Guests:
    """The guests' side of a broker.

    Args:
        book: the broker's memory.
        owner: whose broker it is; read anew each time.
        around: what guests are judged with.
        wake: called after each decision.
        witness: as of the broker's other answers (``spec/mark.md``).
        now: Unix seconds.

    Raises:
        MissingExtra: the library that encrypts for guests is not installed.
    """

    def __init__(
        self,
        book: SqliteBook,
        owner: Callable[[], Owner],
        around: Around,
        *,
        wake: Callable[[], None] = lambda: None,
        witness: Witness | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        jwe.load()
        self._witness = witness
        self._book, self._owner, self._around, self._wake, self._now = book, owner, around, wake, now
        self._key = secrets.token_bytes(32)  # of cookies; who restarts a broker ends its sessions
        self._sessions = Sessions()
        self._deciding = threading.Lock()  # which run a guest gets is chosen and decided in one
        self._busy = threading.BoundedSemaphore(AT_ONCE)

    def auth(self, data: bytes) -> tuple[bytes, str]:
        """A challenge and a cookie's value. Raises WireError leaves, RcarVersion, UnknownPlatform."""
        request, at = message.Request.parse(data), int(self._now())
        nonce = self._book.nonce(at)
        return message.challenge(nonce), message.Session(request, nonce, at + NONCE_SECONDS).seal(self._key)

    def attest(self, data: bytes, cookie: str) -> str:
        """A signed attestation result.

        Raises:
            NoSession, NonceRefused: no session, or its nonce is used up: every attempt uses it.
            NotAffirming: the evidence is not affirmed; WireError, AttestationError leaves; LimitReached.
        """
        at = int(self._now())
        opened = message.Session.open(cookie, self._key, at)
        if not self._book.spend(opened.nonce, at):
            raise NonceRefused("the session's nonce is used up")
        if not self._busy.acquire(blocking=False):
            raise LimitReached("too many guests attest at once")
        try:
            said = message.Attestation.parse(data, opened)
            evidence, came = read(opened.request.tee, said.evidence, self._around.vouch)
            owner = self._owner()
            session = Attested(opened.nonce, said.runtime, evidence, came, at, opened.until)
            session, result = self._appraised(session, owner, at)
        finally:
            self._busy.release()
        name = wire.digest(cookie.encode())
        self._sessions.keep(name, session, at)
        claims = ear.claims(
            result,
            key=said.runtime.key,
            nonce=said.runtime.nonce,
            jti=name,
            issuer=owner.broker.public.keyid,
            until=min(session.until, (result.valid_until or 0) + 1),
        )
        return ear.sign(claims, owner.broker)

    def _appraised(self, session: Attested, owner: Owner, at: int) -> tuple[Attested, AttestationResult]:
        """With what came along alone first: a vendor is asked for nothing that is refused without."""
        result = session.appraise(owner, at)
        if result.problem is not None and result.problem.status.value != "failed":
            endorsements = self._around.endorse(session.evidence, at, session.endorsements)
            session = replace(session, endorsements=endorsements)
            result = session.appraise(owner, at)
        problem = result.problem
        if not result.affirming or problem is not None:
            assert problem is not None
            _LOG.info("a guest is not affirmed: %s %s: %s", problem.number, problem.code, problem.detail)
            raise NotAffirming(f"{problem.number} {problem.name}", reason=problem.code)
        return session, result

    def session(self, cookie: str | None, bearer: str | None) -> Attested:
        """Who asks. Raises NoSession, BadEar."""
        at = int(self._now())
        if bearer is not None:
            return self._sessions.find(ear.verify(bearer, self._owner().broker.public, at).jti, at)
        if cookie is None:
            raise NoSession("neither a cookie nor a token came along")
        message.Session.open(cookie, self._key, at)
        return self._sessions.find(wire.digest(cookie.encode()), at)

    def get(self, session: Attested, contract: str, manifest: str) -> tuple[bytes, int]:
        """The answer to a guest that asks for a key, and its HTTP status. Raises NotFound."""
        at, guest = int(self._now()), session.runtime.key.digest
        self._book.marks.require_confirmed()
        if self._witness is not None:
            self._witness.check()
        with self._deciding:
            granted = choose(self._book, contract, guest, at)
            if granted is None:
                raise NotFound("no party asked this broker for a run of this contract by a guest")
            request = GuestRequest(session, granted, manifest)
            decision = decide_guest(request, owner=self._owner(), book=self._book, at=at)
            self._book.record(request, decision, at)
        self._wake()
        if isinstance(decision, Release):
            if self._witness is not None:
                self._witness.settle()
            return decision.encrypted_key, 200
        refusal: dict[str, JSON] = {"refusal": decision.envelope.to_json()}
        return message.problem("PolicyDeny", f"refused at {decision.number}: {decision.code}", **refusal), 403

    def expect(self, data: bytes) -> None:
        """Keep a party's word that a guest is to run. Raises as ``GuestRun.verify``."""
        f = Fields(wire.decode(data, max_bytes=MAX_REQUEST_BYTES), "body")
        contract, run = Envelope.from_json(f.any("contract")), Envelope.from_json(f.any("run"))
        f.end()
        self._book.ask_of_guests(GuestRun.verify(contract, run, self._owner(), int(self._now())))

    def routes(self) -> list[Route]:
        """What a broker with guests answers more than one without."""
        return [
            Route("/v1/guests", self._post_guest, methods=["POST"]),
            Route("/kbs/v0/auth", self._post_auth, methods=["POST"]),
            Route("/kbs/v0/attest", self._post_attest, methods=["POST"]),
            Route("/kbs/v0/{rest:path}", self._get, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        ]

    async def _post_guest(self, request: Request) -> Response:
        await blocking(self.expect)(await body(request, MAX_REQUEST_BYTES))
        return json_answer({})

    async def _post_auth(self, request: Request) -> Response:
        try:
            found, cookie = await blocking(self.auth)(await body(request, message.MAX_AUTH_BYTES))
        except StrongroomError as error:
            return refused(error)
        answer = _json(found)
        answer.set_cookie(COOKIE, cookie, max_age=NONCE_SECONDS, path="/kbs/v0", httponly=True, samesite="strict")
        return answer

    async def _post_attest(self, request: Request) -> Response:
        try:
            cookie = _cookie(request)
            if cookie is None:
                raise NoSession("no cookie came along")
            token = await blocking(self.attest)(await body(request, message.MAX_ATTEST_BYTES), cookie)
        except StrongroomError as error:
            return refused(error)
        return _json(message.token_answer(token))

    async def _get(self, request: Request) -> Response:
        try:
            found = _RESOURCE.match(bytes(request.scope.get("raw_path") or b""))
            if found is None or request.method != "GET" or request.scope["query_string"]:
                raise NotFound("there is no such resource")
            session = await blocking(self.session)(_cookie(request), _bearer(request))
            contract, manifest = (f"sha256:{part.decode()}" for part in found.groups())
            return _json(*await blocking(self.get)(session, contract, manifest))
        except StrongroomError as error:
            return refused(error)


def _json(data: bytes, status: int = 200) -> Response:
    return Response(data, status, media_type="application/json", headers={"cache-control": "no-store"})


def _cookie(request: Request) -> str | None:
    """The session's cookie, where exactly one came along."""
    found = []
    for header in request.headers.getlist("cookie"):
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            found += [value] if name == COOKIE else []
    return found[0] if len(found) == 1 else None


def _bearer(request: Request) -> str | None:
    """The token of an ``Authorization`` header; ``""`` where there is one of another kind."""
    headers = request.headers.getlist("authorization")
    if not headers:
        return None
    kind, _, token = headers[0].partition(" ")
    return token if kind.lower() == "bearer" and len(headers) == 1 else ""


def refused(error: StrongroomError) -> Response:
    """An error as guests read them: of ours the code alone, and details where they are of what the guest itself sent."""
    kind, status = "AttestationError", 401
    if isinstance(error, NotFound):
        kind, status = "InvalidRequestPath", 404
    elif isinstance(error, TooLarge):
        kind, status = "SerdeError", 413
    elif isinstance(error, WireError):
        kind = "SerdeError"
    elif isinstance(error, LimitReached):
        status = 429
    elif isinstance(error, NoSession):
        kind = "TokenNotFound"
    elif isinstance(error, BadEar):
        kind = "TokenVerifierError"
    elif isinstance(error, BookRestored | Unreachable):  # of the broker, which is the owner's to know
        kind, status = "PluginInternalError", 503
    elif isinstance(error, Internal | MissingExtra):
        kind, status = "PluginInternalError", 500
    code = error.reason if isinstance(error, NotAffirming) else error.code
    said = error.message if isinstance(error, AttestationError | NotFound | NoSession) else error.hint
    return _json(message.problem(kind, f"{code}: {said}"), status)
