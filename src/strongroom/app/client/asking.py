"""One request through a verified session: what is sent, what comes back, what its receipt must say, and what became of it.

No input or output: ``verified`` carries what is made here, with and without asyncio.

See ``docs/private-inference.md``.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

import httpx

from strongroom import wire
from strongroom.ehbp import RESPONSE_NONCE_HEADER, ClientExchange, RequestHead, is_problem
from strongroom.errors import (
    BadResponseNonce,
    BodyTruncated,
    KeyConfigMismatch,
    NoInferenceReceipt,
    NotFound,
    OtherTlsKey,
    RefusedInTheOpen,
    StrongroomError,
    Usage,
    WrongKeyset,
    leaves,
)
from strongroom.inference.events import Usage as Tokens
from strongroom.inference.events import UsageMetered
from strongroom.inference.expected import Asked
from strongroom.inference.reading import EMBEDDINGS
from strongroom.inference.recorder import BodyHash
from strongroom.inference.verification import Reader, Verification, VerifiedReceipt, examine

from .answer import MAX_ANSWER_BYTES, Answer, Heard, held_against, model_of
from .carrier import bound
from .session import KEYSET_HEADER, MAX_REPLY_BYTES, RECEIPTS_PATH, Reply, Session, Terms, establish

ROUTES: Final = frozenset({"/v1/chat/completions", "/v1/completions", EMBEDDINGS})
MODELS: Final = "/v1/models"
Receipts: TypeAlias = Literal["required", "background"]

_CREDENTIAL = re.compile(r"Bearer (?:sr-|anon-)[!-~]{1,256}\Z")
_CODE = re.compile(r"[a-z0-9_.]{1,64}\Z")
_SECONDS = re.compile(r"[0-9]{1,5}\Z")
_DONE = b"data: [DONE]"
_STALE = frozenset({WrongKeyset.code, KeyConfigMismatch.code})


class Word(StrEnum):
    """What a shield says of an answer."""

    PENDING = "pending"
    VERIFIED = "verified"
    SIMULATED = "simulated"
    REFUSED = "refused"
    UNFINISHED = "unfinished"


@dataclass(slots=True)
class Outcome:
    """What became of one request; filled in as it is known. ``response.extensions["strongroom"]``.

    Attributes:
        endpoint: what was asked.
        model: that the request names, or ``None``.
        session: the service as it was established before anything was sent.
        status: of the answer, once there is one.
        verification: the checks of the receipt, once they were made.
        receipt: once it passed every check that a client relies on.
        error: why the answer may not be relied on.
        unfinished: whether its reader went away before its end, so that no receipt was asked for.
        ended: whether nothing more will be known.
        answer: what to keep of it, where that was asked for.
        seconds: from the request to the end of the answer; until the receipt was there.
    """

    endpoint: str
    model: str | None
    session: Session
    status: int | None = None
    verification: Verification | None = None
    receipt: VerifiedReceipt | None = None
    error: StrongroomError | None = None
    unfinished: bool = False
    ended: bool = False
    answer: Answer | None = None
    seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def word(self) -> Word:
        """Verified by this client; on a simulated platform that is another word, because it protects from nobody there."""
        if self.error is not None:
            return Word.REFUSED
        if self.receipt is not None:
            return Word.SIMULATED if self.session.simulated else Word.VERIFIED
        if self.unfinished:
            return Word.UNFINISHED
        return Word.REFUSED if self.ended else Word.PENDING  # a refusal that is authentic, and has no receipt

    @property
    def usage(self) -> Tokens | None:
        """What the receipt says was used."""
        metered = self.receipt.receipt.one(UsageMetered) if self.receipt else None
        return metered.usage if metered else None

    def end(self) -> None:
        self.ended, self.seconds = True, time.monotonic() - self._began


class Verifier:
    """What both transports share, and no input or output: whom to believe, the session in force, and what became of it.

    Args:
        url: of the service; only its origin counts.
        terms: what the client relies on.
        receipts: ``required`` withholds the end of an answer until its receipt is verified; ``background`` does not, and
            the first request after a receipt that fails raises what was found.
        api_key: sent in place of whatever a request brings.
        on_answer: called once for each request, when its outcome is known.
        keep: whether outcomes hold what it takes to examine them again.
        now: Unix seconds.

    Raises:
        Usage: not an address, or not one of the two words.
    """

    def __init__(
        self,
        url: str,
        terms: Terms,
        *,
        receipts: Receipts = "required",
        api_key: str | None = None,
        on_answer: Callable[[Outcome], None] | None = None,
        keep: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.origin = origin_of(url)
        if receipts not in ("required", "background"):
            raise Usage("receipts are 'required' or 'background'")
        self.terms, self.required, self.keep, self.now = terms, receipts == "required", keep, now
        self._api_key = None if api_key is None else f"Bearer {api_key}"
        self._own = f"Bearer anon-{secrets.token_hex(16)}"  # so that nobody else can fetch the receipts
        self._on_answer = on_answer
        self._session: Session | None = None
        self._problems: deque[StrongroomError] = deque()
        self.last: Outcome | None = None

    # --- the session ---

    def session(self) -> Session | None:
        """The one in force, if it lasts."""
        found = self._session
        return found if found is not None and found.lasts(int(self.now())) else None

    def take(self, nonce: bytes, replies: tuple[Reply, Reply, Reply], at: int) -> Session:
        """Establish another. Raises StrongroomError: the first check that does not pass."""
        self._session = None
        self._session = establish(self.terms, nonce=nonce, replies=replies, at=at)
        return self._session

    def forget(self, session: Session) -> None:
        """Have the service verified again before the next request."""
        if self._session is session:
            self._session = None

    # --- requests ---

    def admit(self, request: httpx.Request) -> httpx.Response | None:
        """Nothing, where a request may be sent; else what is answered here.

        Raises:
            Usage: it goes to another host, to which nobody was to be sent.
            StrongroomError: of an earlier answer, whose receipt did not hold.
        """
        if self._problems:
            raise self._problems.popleft()
        url = request.url
        if (url.scheme, url.host, url.port) != (self.origin.scheme, self.origin.host, self.origin.port):
            raise Usage(
                f"the request goes to {url.host}, and {self.origin.host} is what is verified",
                hint="The base_url is that of the service; a redirect is not followed.",
            )
        asked = (request.method, url.path)
        if asked[0] == "POST" and asked[1] in ROUTES:
            return None
        if asked[0] == "GET" and (asked[1] == MODELS or asked[1].startswith(f"{MODELS}/")):
            return None
        return refusal(404, NotFound(f"{request.method} {url.path[:200]} is not served over a verified session"))

    def models(self, request: httpx.Request, session: Session) -> httpx.Response:
        """The models of the verified contract: the service is not asked."""
        proposal = session.contract.proposal
        owners = {asset.manifest: asset.owner for asset in proposal.assets}
        found = [
            {"created": proposal.created_at, "id": name, "object": "model", "owned_by": owners[agreed.asset]}
            for name, agreed in session.models.items()
        ]
        if request.url.path == MODELS:
            return httpx.Response(200, json={"data": found, "object": "list"})
        name = request.url.path.removeprefix(f"{MODELS}/")
        one = [model for model in found if model["id"] == name]
        return httpx.Response(200, json=one[0]) if one else refusal(404, NotFound(f"no model {name[:200]!r} is served"))

    def credential(self, request: httpx.Request) -> str:
        """What is shown to the service: a key that is one of its own, and never one that is somebody else's."""
        brought = request.headers.get("authorization", "")
        return self._api_key or (brought if _CREDENTIAL.match(brought) else self._own)

    def ask(
        self,
        path: str,
        extensions: Mapping[str, Any],
        credential: str | None = None,
        session: Session | None = None,
    ) -> httpx.Request:
        """A request without a body.

        Args:
            path: with its query.
            extensions: those of the request that it is made for.
            credential: sent with it, over a connection of the session's alone.
            session: where it goes; ``None`` for a question, to whoever answers.
        """
        headers = {"accept-encoding": "identity", **({"authorization": credential} if credential else {})}
        timeouts = {key: value for key, value in extensions.items() if key == "timeout"}
        kept = timeouts if session is None else bound(timeouts, session.keyset.tls_public_keys)
        return httpx.Request("GET", self.origin.copy_with(raw_path=path.encode()), headers=headers, extensions=kept)

    def ended(self, outcome: Outcome) -> None:
        """A request's outcome is known."""
        outcome.end()
        self.last = outcome
        if outcome.error is not None and not isinstance(outcome.error, RefusedInTheOpen):
            self.forget(outcome.session)
        if self._on_answer is not None:
            self._on_answer(outcome)

    def postpone(self, problem: StrongroomError) -> None:
        """What was found in the background is raised by the next request."""
        self._problems.append(problem)


def origin_of(url: str) -> httpx.URL:
    """The scheme, host and port of an address. Raises Usage."""
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise Usage(f"{url!r} is not an address") from error
    if found.scheme not in ("http", "https") or not found.host or found.userinfo:
        raise Usage(f"{url!r} is not the address of a service", hint="Say it as https://host or http://127.0.0.1:8471")
    if found.path.rstrip("/") not in ("", "/v1") or found.query:
        raise Usage(f"{url!r} has a path, and a service has none", hint="Say the host alone: https://host")
    return found.copy_with(raw_path=b"/")


def refusal(status: int, error: StrongroomError, *, retry_after: str | None = None) -> httpx.Response:
    """An error of ours as OpenAI's clients read it."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return httpx.Response(status, headers=headers, json={"error": openai_error(error, status)})


def openai_error(error: StrongroomError, status: int) -> dict[str, Any]:
    """The ``error`` member."""
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"code": error.code, "hint": error.hint, "message": error.message, "param": None, "type": kind}


class Exchange:
    """One request through a session: what is sent, what comes back, and what its receipt must say."""

    def __init__(self, verifier: Verifier, session: Session, request: httpx.Request) -> None:
        body = request.content
        self.session, self._verifier, self._body = session, verifier, body
        self.credential = verifier.credential(request)
        path, content_type = request.url.raw_path.decode("ascii"), request.headers.get("content-type")
        self._asked = Asked(
            method=request.method,
            endpoint=path.split("?", 1)[0],
            model=model_of(body),
            body=wire.digest(body),
            sent_at=int(verifier.now()),
        )
        self.outcome = Outcome(self._asked.endpoint, self._asked.model, session)
        head = RequestHead(
            method=request.method,
            path=path,
            content_type=content_type,
            accept=request.headers.get("accept"),
            request_id=secrets.token_bytes(16),
            keyset=session.keyset_digest,
            contract=session.contract.digest,
        )
        self._sealed = ClientExchange(session.key, head, seed=secrets.token_bytes(32), padding=session.padding)
        # Of the request's own headers none goes on: they are not bound to it, and say much of whoever sends them.
        headers = {**self._sealed.request.headers, "accept-encoding": "identity", "authorization": self.credential}
        self.request = httpx.Request(
            "POST",
            request.url,
            headers=headers,
            content=self._sealed.request.last(body),
            extensions=bound(request.extensions, session.keyset.tls_public_keys),
        )
        self._wire, self._plain = BodyHash(), BodyHash()
        self._kept: tuple[bytearray, bytearray] | None = (bytearray(), bytearray()) if verifier.keep else None
        self._heard = Heard(None, embeds=False)
        self._held = b""
        self._done = False

    # --- the answer ---

    def is_sealed(self, answer: httpx.Response) -> bool:
        """Whether it came encrypted. What is said in the open is nobody's word."""
        return bool(answer.headers.get_list(RESPONSE_NONCE_HEADER))

    def in_the_open(self, answer: httpx.Response, body: bytes, *, again: bool) -> httpx.Response | None:
        """What is made of an answer that is not encrypted: a refusal of our own words; ``None`` to verify and ask again.

        Args:
            answer: its status and headers.
            body: the beginning of it.
            again: whether it may be asked again.

        Raises:
            BadResponseNonce: it is no refusal.
            KeyConfigMismatch: the service has other keys than it attests.
        """
        status = answer.status_code
        if status < 400:
            raise self.failed(BadResponseNonce(f"the service answered HTTP {status} without encryption"))
        code = _code_of(body)
        if is_problem(status, answer.headers.get("content-type", ""), body) or code in _STALE:
            self._verifier.forget(self.session)
            if again:
                return None
            raise self.failed(KeyConfigMismatch("the service cannot read what is encrypted to the key that it attests"))
        known = leaves().get(code)
        said = f", which says {code}: {known.hint}" if known is not None else ""
        error = RefusedInTheOpen(f"the service, or somebody before it, refused with HTTP {status}{said}")
        self.outcome.status = status
        self.failed(error)
        after = answer.headers.get("retry-after", "")
        return refusal(status, error, retry_after=after if _SECONDS.match(after) else None)

    def elsewhere(self, error: OtherTlsKey, *, again: bool) -> None:
        """Nothing was sent: the connection is not the established keyset's. A service that has other keys may show them.

        Raises:
            OtherTlsKey: it was asked again.
        """
        self._verifier.forget(self.session)
        if not again:
            raise self.failed(error)

    def begin(self, answer: httpx.Response) -> None:
        """The answer's head has come. Raises BadResponseNonce."""
        self._reader = self._sealed.response(
            answer.headers.get_list(RESPONSE_NONCE_HEADER), status=answer.status_code, max_body=MAX_ANSWER_BYTES
        )
        self.outcome.status = answer.status_code
        if answer.headers.get(KEYSET_HEADER, self.session.keyset_digest) != self.session.keyset_digest:
            self._verifier.forget(self.session)  # it has other keys by now: this answer is still sealed by those it had
        after = answer.headers.get("retry-after", "")
        self._after = after if _SECONDS.match(after) else None

    @property
    def begun(self) -> bool:
        """Whether the sealed head was accepted."""
        return self._reader.head is not None

    def response(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
        """The answer as its reader sees it."""
        head = self._reader.head
        assert head is not None
        headers = {KEYSET_HEADER: head.keyset}
        if head.content_type is not None:
            headers["content-type"] = head.content_type
        if head.receipt_id is not None:
            headers["x-receipt-id"] = head.receipt_id
        if self._after is not None:
            headers["retry-after"] = self._after
        return httpx.Response(head.status, headers=headers, stream=stream, extensions={"strongroom": self.outcome})

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; what may be handed on. Raises EhbpError and its leaves, TooLarge."""
        self._wire.update(data)
        before = self._reader.head
        plain = self._reader.feed(data)
        if before is None and self._reader.head is not None:
            self._heard = Heard(self._reader.head.content_type, embeds=self._asked.endpoint == EMBEDDINGS)
        self._plain.update(plain)
        self._heard.feed(plain)
        if self._kept is not None:
            self._kept[0].extend(data)
            self._kept[1].extend(plain)
        return self._release(plain)

    def _release(self, plain: bytes) -> bytes:
        """All but what would tell the reader that the answer is whole: of events the mark of the end, else the last byte."""
        if not plain:
            return b""
        known = self._held + plain
        if not self._heard.streams:
            self._held = known[-1:]
            return known[:-1]
        end = len(known) if self._done else known.rfind(b"\n") + 1
        mark = 0 if known.startswith(_DONE) else known.find(b"\n" + _DONE) + 1 or end
        self._done = self._done or mark < end
        out = b"" if self._done and mark == end else known[: min(mark, end)]
        self._held = known[len(out) :]
        return out

    def end(self) -> None:
        """The answer's last byte was received. Raises NotEnded, BodyTruncated, NoInferenceReceipt."""
        self._reader.end()
        self._heard.end()
        head = self._reader.head
        assert head is not None  # else it would not be whole
        if head.receipt_id is None and head.status < 400:
            raise NoInferenceReceipt("the answer names no receipt")

    @property
    def rest(self) -> bytes:
        """What was withheld: handed on last."""
        return self._held

    # --- the receipt ---

    def receipt_path(self) -> str | None:
        """Where the receipt is, or ``None`` of a refusal that has none."""
        head = self._reader.head
        assert head is not None
        return None if head.receipt_id is None else RECEIPTS_PATH + quote(head.receipt_id, safe="")

    def judge(self, reply: Reply) -> None:
        """Hold the receipt against what was sent and received. Raises NoInferenceReceipt, InferenceNotVerified."""
        head, session = self._reader.head, self.session
        assert head is not None
        if reply.status != 200:
            raise NoInferenceReceipt(f"the service does not hand out the answer's receipt: HTTP {reply.status}")
        at = int(self._verifier.now())
        expected = held_against(
            session,
            asked=self._asked,
            heard=self._heard,
            status=head.status,
            wire_digest=self._wire.digest,
            plain_digest=self._plain.digest,
            receipt_id=head.receipt_id,
        )
        found = examine(reply.body, appraisal=session.appraisal, expected=expected, at=at)
        self.outcome.verification = found
        if self._kept is not None:
            self.outcome.answer = self._answer(reply.body, at)
        self.outcome.receipt = found.require(Reader.CLIENT)

    def _answer(self, receipt: bytes, at: int) -> Answer:
        assert self._kept is not None
        head, session = self._reader.head, self.session
        assert head is not None
        return Answer(
            url=str(self._verifier.origin),
            nonce=session.nonce,
            attested_at=session.at,
            report=session.report,
            keys=session.keys,
            shown=session.shown,
            method=self._asked.method,
            endpoint=self._asked.endpoint,
            request=self._body,
            sent_at=self._asked.sent_at,
            received_at=at,
            status=head.status,
            content_type=head.content_type,
            receipt_id=head.receipt_id,
            returned=bytes(self._kept[0]),
            restored=bytes(self._kept[1]),
            receipt=receipt,
        )

    # --- how it ended ---

    def succeeded(self) -> None:
        self._verifier.ended(self.outcome)

    def failed(self, error: StrongroomError) -> StrongroomError:
        """It may not be relied on; the error, to be raised."""
        if self.outcome.error is None:
            self.outcome.error = error
            self._verifier.ended(self.outcome)
        return error

    def left(self) -> None:
        """Its reader went away."""
        if not self.outcome.ended:
            self.outcome.unfinished = True
            self._verifier.ended(self.outcome)


def _code_of(body: bytes) -> str:
    """The code that a refusal in the open names, or nothing."""
    try:
        found = wire.loads(body, max_bytes=MAX_REPLY_BYTES)["error"]["code"]
    except (StrongroomError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) and _CODE.match(found) else ""


def cut(error: httpx.HTTPError) -> BodyTruncated:
    return BodyTruncated(f"the answer was cut off: {error.__class__.__name__}")
