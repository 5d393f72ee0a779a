"""One request to a model, from its first byte to its receipt.

What happens is recorded as it happens, and signed before the last bytes of the answer go out, so that a client which has its
answer can have its receipt. Whatever ends a request, a refusal, a crash of the engine, a client that goes or does not read,
its receipt says so.

See ``spec/inference.md`` and ``spec/inference-receipt.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from strongroom.ehbp import Writer
from strongroom.errors import (
    BodyTooLarge,
    ClientGone,
    ClientTooSlow,
    EngineError,
    EngineFailed,
    ModelNotServed,
    RequestTooLarge,
    RequestTooSlow,
    RoomClosed,
    RouteNotServed,
    ServiceEnding,
    StrongroomError,
    TooManyRequests,
    Unauthorised,
)
from strongroom.inference.events import PolicyApplied, Usage
from strongroom.inference.receipt import InferenceReceipt
from strongroom.inference.recorder import Recorder
from strongroom.lm.engine import Answers, Counted, Piece, Route, Vectors
from strongroom.lm.request import MAX_BODY, Request, model_of, read

from . import openai
from .credentials import Admission, Credential
from .guarding import Guarding
from .openai import EVENTS_TYPE, JSON_TYPE, Answer, Choice
from .ports import Gate, Observation, Receipts
from .rooms import Keeper, Rooms, Served
from .sealed_http import Opening, answering, is_sealed, max_wire, one, passed_on, prepare, require_plain
from .sources import Draws

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_SECONDS: Final = 60.0  # in which a body comes whole
STALL_SECONDS: Final = 30.0  # after which a client that reads nothing is cut off
CHARS_PER_TOKEN: Final = 4  # about: what is set aside of a key's limits before the engine has counted
ABORT: Final = "strongroom.abort"  # in a scope's extensions: cuts the connection off


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What every request is given.

    Attributes:
        rooms: the open ones.
        gate: lets requests in.
        receipts: keeps receipts.
        strangers: keeps receipts of refusals to whom no credential was found; few, and in memory.
        now: Unix seconds.
        plain: whether a body in the open reaches here unread: TLS ends here, or it does not leave the machine.
        here: whether the latter is all that speaks for it; a request that another machine passed on did leave one.
        body_seconds, stall_seconds: how long a slow client is waited for.
    """

    rooms: Rooms
    gate: Gate
    receipts: Receipts
    strangers: dict[str, InferenceReceipt]
    now: Callable[[], float]
    plain: bool
    here: bool = False
    body_seconds: float = BODY_SECONDS
    stall_seconds: float = STALL_SECONDS


MAX_STRANGERS: Final = 1024


class _Put(Protocol):
    """Makes of a piece of the answer the bytes to send, and records both."""

    def __call__(self, data: bytes, *, last: bool = False) -> bytes: ...


class Asking:
    """One request under way. Used once.

    Args:
        around: what every request is given.
        route: what it asks for.
        scope, receive, send: of ASGI.
        headers: that every answer has.
    """

    def __init__(
        self, around: Around, route: Route, scope: Scope, receive: Receive, send: Send, *, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self._around, self._route, self._scope = around, route, scope
        self._receive, self._send, self._headers = receive, send, headers
        self._receipt_id = f"rcpt-{secrets.token_hex(16)}"
        self._keeper: Keeper | None = None
        self._recorder: Recorder | None = None
        self._opening: Opening | None = None
        self._writer: Writer | None = None
        self._credential: Credential | None = None
        self._seen: Observation | None = None
        self._texts = False  # whether the operator may see them
        self._step = "admission"
        self._came_whole = False  # whether the body came to its end, and is one
        self._unread = True  # some of the body may be on its way
        self._started = False
        self._prepared = False  # whether the keys of the answer were derived
        self._chat_id: str | None = None
        self._guarding: Guarding | None = None
        self._cut: StrongroomError | None = None
        self._sending_since = 0.0
        self._usage: Usage | None = None
        self._answers: Answers | None = None
        self._signed = False
        self._put: _Put | None = None

    # --- the whole of it ---

    async def run(self) -> None:
        """Answer it, or refuse it."""
        try:
            keepers = self._around.rooms.candidates()
        except StrongroomError as error:  # nobody is here who could sign a receipt
            await self._say(error, [*self._headers, (b"x-aci-version", b"aci/1")])
            return
        keeper = self._keeper = keepers[0]
        if _in_the_open(self._scope["headers"]):
            self._observe(keeper)
        with contextlib.ExitStack() as places:
            try:
                places.enter_context(self._place(keeper))
                await self._admitted(keepers, places)
            except asyncio.CancelledError:
                await self._cancelled()
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and not a word of it
                await self._failed(error)

    def _observe(self, keeper: Keeper) -> None:
        """Let the room's operator see what its contract allows: of a sealed request once it is known whose it is.

        Before that nobody sees anything: it may be for a room whose contract allows less than the current one's.
        """
        self._seen, self._texts = keeper.observer.begun(self._route), keeper.observer.keeps_texts

    @contextlib.contextmanager
    def _place(self, keeper: Keeper) -> Any:
        """A place among the requests that a room works on."""
        if keeper.active >= keeper.capacity:
            raise TooManyRequests("as many requests are under way here as there are places")
        keeper.begin()
        try:
            yield
        finally:
            keeper.end()

    @contextlib.contextmanager
    def _share(self, keeper: Keeper, account: str) -> Any:
        """A place of those that one key may have, or all who have none: half of them, so that slow bodies take no more."""
        if keeper.shares[account] >= max(1, keeper.capacity // 2):
            raise TooManyRequests("half of all places here are taken by this key")
        keeper.shares[account] += 1
        try:
            yield
        finally:
            keeper.shares[account] -= 1
            if not keeper.shares[account]:
                del keeper.shares[account]

    async def _admitted(self, keepers: list[Keeper], places: contextlib.ExitStack) -> None:
        at = self._around.now()
        passing = passed_on(self._scope["headers"])
        with self._around.gate.admit(self._authorization, None, at, passed_on=passing) as admission:
            self._credential = admission.credential
            places.enter_context(self._share(keepers[0], admission.credential.account))
            self._step = "body"
            body = await self._body(keepers, carried=self._around.plain and not (self._around.here and passing))
            self._came_whole = True
            assert self._keeper is not None
            if self._keeper is not keepers[0]:
                places.enter_context(self._place(self._keeper))
            self._unread = False
            async with self._watched():
                await self._answer(self._keeper, body, admission)

    @property
    def _authorization(self) -> str | None:
        return one(self._scope["headers"], b"authorization")

    # --- the body ---

    async def _body(self, keepers: list[Keeper], *, carried: bool) -> bytes:
        """The body as the engine may get it. It is hashed as far as it was read, whatever happens."""
        headers = self._scope["headers"]
        came: list[bytes] = []
        wire = bytearray()
        try:
            sealed = is_sealed(headers)
            if not sealed:
                require_plain(keepers[0], carried=carried)
            most = max_wire(keepers[0]) if sealed else MAX_BODY
            announced = one(headers, b"content-length")
            if announced is not None and announced.isdecimal() and int(announced) > most:
                raise RequestTooLarge(f"the request has more than {most:,} bytes")
            if sealed:
                self._opening = Opening(keepers, headers, method=self._scope["method"], target=_target(self._scope))
            await self._read(most, came, wire)
        finally:
            opening = self._opening
            opened = opening is not None and opening.exchange is not None
            if opening is not None:
                self._keeper = opening.keeper if opened else keepers[0]
            body = b"".join(came) if opened or opening is None else bytes(wire)
            self._recording().received(body)
        return body

    async def _read(self, most: int, came: list[bytes], wire: bytearray) -> None:
        """Take the body as it comes: into ``came`` what of it is plaintext, into ``wire`` all of it until that shows."""
        opening, size, more = self._opening, 0, True
        try:
            async with asyncio.timeout(self._around.body_seconds):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone("the client went before its request was whole")
                    piece, more = message.get("body", b""), message.get("more_body", False)
                    self._unread = more
                    size += len(piece)
                    if size > most:
                        raise (
                            BodyTooLarge("the body is longer than is taken")
                            if opening
                            else RequestTooLarge(f"the request has more than {most:,} bytes")
                        )
                    if opening is None:
                        came.append(piece)
                        continue
                    if opening.exchange is None:
                        wire += piece
                    came.append(opening.feed(piece))
                    if opening.exchange is not None:
                        wire.clear()
                        if self._seen is None:
                            self._observe(opening.keeper)
        except TimeoutError:
            raise RequestTooSlow(f"the body did not come in {self._around.body_seconds:.0f} s") from None
        if opening is not None:
            opening.end()

    def _recording(self) -> Recorder:
        """The recorder of the room that the request is for."""
        if self._recorder is None:
            assert self._keeper is not None
            self._recorder = Recorder(
                self._keeper.signer,
                receipt_id=self._receipt_id,
                endpoint=self._scope["path"],
                method=self._scope["method"],
            )
        return self._recorder

    # --- the question ---

    async def _answer(self, keeper: Keeper, body: bytes, admission: Admission) -> None:
        recorder = self._recording()
        if self._texts and self._seen is not None:
            self._seen.asked(body)
        self._step = "request"
        request = self._request(keeper, body)
        served = self._chosen(keeper, request, admission.credential)
        recorder.chose(served.weights)
        if self._seen is not None:
            self._seen.model(request.model)
        self._step = "limits"  # before the guards, which cost more than anything up to here
        guarding = Guarding(keeper)
        guarding.require_fits(request)
        most = min(request.normal.get("max_tokens", keeper.parameters.max_tokens), keeper.parameters.max_tokens)
        admission.hold(len(body) // CHARS_PER_TOKEN + (0 if self._route == "embeddings" else most * request.choices))
        self._step, self._guarding = "guard", guarding
        forwarded = await guarding.request(request)
        # what no guard changed goes on as it came, so that its hash says so
        asked = body if forwarded is request else forwarded.encode()
        keeper.require_open(int(self._around.now()))
        recorder.forwarded(asked)
        self._step = "engine"
        scope = None if admission.credential.hash is None else bytes.fromhex(admission.credential.hash)
        answers = self._answers = served.engine.ask(self._route, asked, scope=scope)
        try:
            await self._relay(request, answers)
        finally:
            await answers.aclose()
            if self._usage is None:
                self._count(answers.counted)
            assert self._usage is not None
            admission.settle(self._usage.prompt, self._usage.completion, self._usage.embedding)

    def _request(self, keeper: Keeper, body: bytes) -> Request:
        if self._route not in keeper.serve.routes:
            self._named(model_of(body))
            raise RouteNotServed(f"the contract does not serve {self._route}")
        try:
            request = read(self._route, body)
        except StrongroomError:
            self._named(model_of(body))
            raise
        self._named(request.model)
        return request

    def _named(self, model: str | None) -> None:
        if model is not None:
            self._recording().asked_for(model)

    def _chosen(self, keeper: Keeper, request: Request, credential: Credential) -> Served:
        served = keeper.models.get(request.model)
        if served is None:
            raise ModelNotServed("the contract serves no model of this name", param="model")
        allowed = credential.limits.models
        if allowed is not None and request.model not in allowed:
            raise Unauthorised("the key is not for this model", hint="Ask the operator which models the key is for.")
        if self._route not in served.engine.about.routes:
            raise RouteNotServed(f"the model does not do {self._route}", param="model")
        return served

    # --- the answer ---

    async def _relay(self, request: Request, answers: Answers) -> None:
        if request.route == "embeddings":
            await self._embeddings(request, answers)
            return
        prefix = "chatcmpl" if request.route == "chat" else "cmpl"
        answer = Answer(request.route, request.model, f"{prefix}-{secrets.token_hex(16)}", int(self._around.now()))
        if request.stream:
            await self._stream(answer, request, answers)
        else:
            await self._whole(answer, request, answers)

    async def _stream(self, answer: Answer, request: Request, answers: Answers) -> None:
        """Events as they come. This is the hot path: nothing here is made anew for a token but its event."""
        guarding, event, loop = self._guarding, answer.event, asyncio.get_running_loop()
        assert guarding is not None
        watches, counted, time = guarding.watches, None, loop.time
        put: _Put | None = None
        send = self._send
        loop.call_soon(self._prepare)  # once the engine has the question
        async for item in answers:
            if type(item) is not Piece:
                counted = item if type(item) is Counted else counted
                continue
            piece: Piece | None = item
            if watches:
                piece = await guarding.piece(item)
                if piece is None:
                    continue
            assert piece is not None
            data = event(piece)
            if put is None:
                self._step, self._chat_id = "answer", answer.chat_id
                if self._seen is not None:
                    self._seen.first_token()
                put = await self._start(200, EVENTS_TYPE)
            self._sending_since = time()
            await send({"type": "http.response.body", "body": put(data), "more_body": True})
            self._sending_since = 0.0
        usage = self._count(counted)
        if put is None:  # an answer without a word
            self._chat_id = answer.chat_id
            await self._start(200, EVENTS_TYPE)
        assert counted is not None
        tail = answer.usage_event(usage, counted.cached_tokens) if request.include_usage else b""
        await self._finish(tail + openai.DONE)

    def _prepare(self) -> None:
        """Derive the keys of the answer while the engine works, and not when its first word is there."""
        exchange = self._opening.exchange if self._opening else None
        if exchange is not None and not self._started:
            prepare(exchange, content_type=EVENTS_TYPE, receipt_id=self._receipt_id)
            self._prepared = True

    async def _whole(self, answer: Answer, request: Request, answers: Answers) -> None:
        guarding, counted, choices = self._guarding, None, [Choice(n) for n in range(request.choices)]
        assert guarding is not None
        first = True
        async for item in answers:
            if type(item) is not Piece:
                counted = item if type(item) is Counted else counted
                continue
            if first and self._seen is not None:
                first = False
                self._seen.first_token()
            piece = await guarding.piece(item) if guarding.watches else item
            if piece is not None and 0 <= piece.index < len(choices):
                choices[piece.index].add(piece)
        usage = self._count(counted)
        assert counted is not None
        self._step, self._chat_id = "answer", answer.chat_id
        data = answer.whole(choices, usage, counted.cached_tokens)
        await self._start(200, JSON_TYPE, size=len(data))
        await self._finish(data)

    async def _embeddings(self, request: Request, answers: Answers) -> None:
        vectors, counted = None, None
        async for item in answers:
            if type(item) is Vectors:
                vectors = item
            elif type(item) is Counted:
                counted = item
        usage = self._count(counted)
        if vectors is None or len(vectors.vectors) != len(request.normal["input"]):
            raise EngineFailed("the engine gave another number of vectors than it was asked for")
        self._step = "answer"
        data = openai.embeddings(vectors, request.model, usage.embedding, base64=request.base64)
        await self._start(200, JSON_TYPE, size=len(data))
        await self._finish(data)

    def _count(self, counted: Counted | None) -> Usage:
        """What the engine said that it took."""
        if counted is None:
            raise EngineFailed("the engine ended without a word of what it took")
        if self._route == "embeddings":
            usage = Usage(embedding=counted.prompt_tokens)
        else:
            usage = Usage(prompt=counted.prompt_tokens, completion=counted.completion_tokens)
        self._usage = usage
        self._recording().metered(usage)
        draws: Draws | None = getattr(self._answers, "draws", None)
        if draws is not None:
            assert self._keeper is not None
            for used in draws.events(self._keeper.assets):
                self._recording().drew(used)
        return usage

    # --- what is sent ---

    async def _start(
        self, status: int, content_type: str, *, size: int | None = None, extra: list[tuple[bytes, bytes]] | None = None
    ) -> _Put:
        """Send the answer's head. What is returned makes of a piece of it the bytes to send, and records both."""
        keeper, recorder = self._keeper, self._recording()
        assert keeper is not None
        exchange = self._opening.exchange if self._opening else None
        if exchange is not None and self._writer is None:
            self._writer = answering(
                exchange,
                keeper,
                status=status,
                content_type=content_type,
                receipt_id=self._receipt_id,
                prepared=self._prepared,
            )
            recorder.encrypts()
        headers = [*self._headers, *keeper.headers, (b"x-receipt-id", self._receipt_id.encode()), *(extra or [])]
        headers.append((b"cache-control", b"no-store"))
        if self._writer is not None:
            headers += [(name.lower().encode(), value.encode()) for name, value in self._writer.headers.items()]
        else:
            headers.append((b"content-type", content_type.encode()))
            if size is not None:
                headers.append((b"content-length", b"%d" % size))
        if self._unread:  # what is still on its way is not waited for
            headers.append((b"connection", b"close"))
        self._started = True
        await self._sent({"type": "http.response.start", "status": status, "headers": headers})
        writer, returned, seen = self._writer, recorder.returned, self._seen if self._texts else None

        def put(data: bytes, *, last: bool = False) -> bytes:
            if seen is not None:
                seen.answered(data)
            if writer is not None:
                restored(data)
                data = writer.last(data) if last else writer.write(data)
            returned(data)
            return data

        restored = recorder.restored
        self._put = put
        return put

    async def _finish(self, data: bytes, refused: StrongroomError | None = None) -> None:
        """Send the last bytes, once the receipt is there."""
        assert self._put is not None
        frames = self._put(data, last=True)
        self._sign(refused)
        await self._sent({"type": "http.response.body", "body": frames, "more_body": False})

    async def _sent(self, message: dict[str, Any]) -> None:
        self._sending_since = asyncio.get_running_loop().time()
        await self._send(message)
        self._sending_since = 0.0

    def _sign(self, refused: StrongroomError | None = None) -> None:
        """Make the receipt, and keep it. Raises NoSpace: it cannot be kept, and nothing more may be sent."""
        if self._signed:
            return
        self._signed = True
        keeper, recorder, around = self._keeper, self._recording(), self._around
        assert keeper is not None
        if self._guarding is not None:
            ran = self._guarding.runs(answered=refused is None)
            recorder.applied(PolicyApplied(keeper.policy, ran, keeper.sizes, keeper.observability))
        if refused is not None:
            recorder.refuse(refused.code, self._step)
        at = int(around.now())
        receipt = recorder.sign(served_at=at, chat_id=self._chat_id)
        if self._seen is not None:
            usage = self._usage or Usage()
            outcome = "ok" if refused is None else refused.code
            self._seen.ended(outcome, usage.prompt, usage.completion, usage.embedding)
            self._seen = None
        if self._credential is None:
            around.strangers[receipt.receipt_id] = receipt
            while len(around.strangers) > MAX_STRANGERS:
                del around.strangers[next(iter(around.strangers))]
        elif not self._came_whole:
            around.receipts.hold(receipt, self._credential)
        else:
            around.receipts.put(receipt, self._credential, at + keeper.serve.retention_s, contract=keeper.contract.digest)

    # --- what goes wrong ---

    async def _failed(self, error: Exception) -> None:
        """Refuse it: with a status where nothing was sent yet, else with the stream's last event."""
        told = openai.expected(error)
        if self._signed:  # the receipt could not be kept: what it says went out is not sent
            self._abort()
            return
        if not isinstance(error, StrongroomError) and self._seen is not None:
            self._seen.failed(error)
        keeper = self._keeper
        if isinstance(error, EngineError) and keeper is not None and keeper.closed.is_set():
            told = RoomClosed("the room was closed while it answered")
        if isinstance(told, ClientGone):
            self._sign(told)
            return
        if self._started:
            data = openai.error_event(told)
        else:
            data, kind = openai.error_body(told)
            await self._start(openai.status_of(told), kind, size=len(data), extra=_retry(told))
        await self._finish(data, told)

    async def _say(self, error: StrongroomError, headers: list[tuple[bytes, bytes]]) -> None:
        """Refuse it where there is no room, and so no receipt."""
        data, kind = openai.error_body(error)
        headers = [*headers, *_retry(error), (b"content-type", kind.encode()), (b"content-length", b"%d" % len(data))]
        headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": openai.status_of(error), "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def _cancelled(self) -> None:
        """The client went, or does not read, or the service ends."""
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        self._sign(self._cut or ServiceEnding("the service ended"))
        self._abort()
        await asyncio.sleep(0)

    def _abort(self) -> None:
        """Cut the connection off: what waits to be sent is not sent."""
        extension = self._scope.get("extensions", {}).get(ABORT)
        if extension is not None:
            extension["call"]()

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Look out for a client that goes, and for one that does not read."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        done, timers = False, list[asyncio.TimerHandle]()

        def cut(error: StrongroomError) -> None:
            if not done and self._cut is None:
                self._cut = error
                task.cancel()

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            cut(ClientGone("the client went before its answer was whole"))

        def look() -> None:
            since = self._sending_since
            if since and loop.time() - since > self._around.stall_seconds:
                cut(ClientTooSlow("the client does not read its answer"))
            timers[:] = [loop.call_later(self._around.stall_seconds / 4, look)]

        timers.append(loop.call_later(self._around.stall_seconds / 4, look))
        watching = loop.create_task(watch())
        try:
            yield
        finally:
            done = True
            timers[0].cancel()
            watching.cancel()


def _in_the_open(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request is not sealed, and so for the current room and no other."""
    try:
        return not is_sealed(headers)
    except StrongroomError:  # it says neither; it is refused
        return False


def _target(scope: Scope) -> str:
    """The target of the request line, as it stood there."""
    query = scope.get("query_string", b"")
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return (raw + (b"?" + query if query else b"")).decode("latin-1")


def _retry(error: StrongroomError) -> list[tuple[bytes, bytes]]:
    seconds = openai.retry_after(error)
    return [] if seconds is None else [(b"retry-after", b"%d" % seconds)]
