"""The serving half of an enclave, as an application: which request goes where, and what every answer carries.

It is plain ASGI: between the socket and the engine stands nothing that a token would have to pass. What is at another
address than ours goes to the application behind (an enclave's runs).

See ``spec/inference.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from strongroom import wire
from strongroom.errors import (
    ClientGone,
    EngineFailed,
    NotFound,
    RequestTooSlow,
    ServiceEnding,
    StrongroomError,
    TooLarge,
    Usage,
)
from strongroom.inference.events import Observability
from strongroom.lm.engine import Route

from . import openai, routes
from .asking import Around, Asking, Receive, Scope, Send
from .attestation import Attesting, query
from .few import Few
from .lifecycle import Lifecycle
from .rooms import Keeper
from .sealed_http import one, passed_on

_LOG = logging.getLogger("strongroom.inference")

ROUTES: Final[Mapping[str, Route]] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
MAX_REQUEST: Final = 64 << 10  # of a signed run request
REQUEST_SECONDS: Final = 20.0  # in which it comes whole
_ALLOWED: Final = b"authorization, content-type, ehbp-encapsulated-key"
_EXPOSED: Final = b"ehbp-response-nonce, retry-after, x-aci-keyset-digest, x-aci-version, x-receipt-id"

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Service:
    """The application.

    Args:
        around: what every request is given.
        behind: what answers everything else; ``None`` for nobody.
        anonymous: whether somebody without a key of the operator's is let in, as ``/v1/room`` says it.
        origins: of web pages that may ask from a browser, beside those that this address itself serves.
        metrics: what ``GET /metrics`` answers; ``None`` where there is none.
        lifecycle: what goes on beside requests.
        served: what ``POST /v1/served`` answers a party of the contract; ``None`` where nobody may ask.
    """

    def __init__(
        self,
        around: Around,
        *,
        behind: App | None = None,
        anonymous: bool = False,
        origins: frozenset[str] = frozenset(),
        metrics: Callable[[], bytes] | None = None,
        lifecycle: Lifecycle | None = None,
        served: Callable[[bytes], Iterator[bytes]] | None = None,
    ) -> None:
        self._around, self._behind, self._anonymous, self._origins = around, behind, anonymous, origins
        self._metrics, self._attesting = metrics, Attesting(around.rooms)
        self._billing = Few(1)
        self._fetching, self._bill = routes.Fetching(around, self._attesting), served
        self.lifecycle = lifecycle or Lifecycle(around.rooms, around.now)
        self._exact: dict[str, dict[str, App]] = {
            "/.well-known/hpke-keys": {"GET": self._keys},
            "/healthz": {"GET": self._health},
            "/metrics": {"GET": self._measured},
            "/openapi.json": {"GET": self._described},
            "/readyz": {"GET": self._ready},
            "/v1/aci/attestation": {"GET": self._attest},
            "/v1/attestation/report": {"GET": self._near},
            "/v1/models": {"GET": self._models},
            "/v1/room": {"GET": self._room},
            "/v1/rooms": {"POST": self._open},
            "/v1/served": {"POST": self._served},
            "/v1/sources": {"POST": self._revised},
            **{path: {"POST": self._ask} for path in ROUTES},
        }
        self._below: dict[str, App] = {
            "/v1/aci/receipts/": self._receipt,
            "/v1/models/": self._model,
            "/v1/signature/": self._signature,
        }

    # --- which way ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own life."""
        if scope["type"] == "lifespan":
            await self.lifecycle.run(receive, send)
            return
        if scope["type"] != "http":
            return
        begun = False

        async def watched(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            # a question's answer goes straight to the socket
            asks = scope["path"] in ROUTES and scope["method"] == "POST"
            await self._route(scope, receive, send if asks else watched)
        except StrongroomError as error:
            if not begun:
                await self._refuse(scope, send, error)
        except Exception as error:  # noqa: BLE001 - neither message nor traceback is logged: they may hold anything
            told = openai.expected(error)
            if not begun:
                with contextlib.suppress(RuntimeError):  # an answer had begun
                    await self._refuse(scope, send, told)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        found = self._exact.get(path)
        if found is None:
            below = next((app for prefix, app in self._below.items() if path.startswith(prefix)), None)
            found = {} if below is None else {"GET": below}
        if not found:
            if self._behind is not None:
                await self._behind(scope, receive, send)
                return
            raise NotFound("there is nothing at this address")
        if method == "OPTIONS":
            await self._preflight(scope, send, found)
            return
        app = found.get("GET" if method == "HEAD" else method)
        if app is None:
            await self._refuse(scope, send, Usage("nobody may do this here"), status=405, methods=found)
            return
        await app(scope, receive, send)

    # --- what every answer carries ---

    def _headers(self, scope: Scope, keeper: Keeper | None) -> list[tuple[bytes, bytes]]:
        found = [*self._shared(scope), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        return [*found, *(keeper.headers if keeper else [(b"x-aci-version", b"aci/1")])]

    def _shared(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What lets a page from another origin read the answer, where the operator named that origin."""
        origin = one(scope["headers"], b"origin") if self._origins else None
        if origin is None or origin not in self._origins:
            return []
        allowed = (b"access-control-allow-origin", origin.encode("latin-1"))
        return [allowed, (b"access-control-expose-headers", _EXPOSED), (b"vary", b"origin")]

    async def _send(
        self,
        scope: Scope,
        send: Send,
        body: bytes,
        *,
        keeper: Keeper | None = None,
        status: int = 200,
        kind: str = openai.JSON_TYPE,
        extra: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        headers = [*self._headers(scope, keeper), *extra, (b"content-type", kind.encode())]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body, "more_body": False})

    async def _refuse(
        self, scope: Scope, send: Send, error: StrongroomError, *, status: int | None = None, methods: Mapping[str, App] = {}
    ) -> None:
        body, kind = openai.error_body(error)
        extra = []
        seconds = openai.retry_after(error)
        if seconds is not None:
            extra.append((b"retry-after", b"%d" % seconds))
        if methods:
            extra.append((b"allow", ", ".join(sorted({"OPTIONS", *methods})).encode()))
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):  # its body may still be on the way
            extra.append((b"connection", b"close"))
        keeper = self._around.rooms.current
        status = openai.status_of(error) if status is None else status
        await self._send(scope, send, body, keeper=keeper, status=status, kind=kind, extra=tuple(extra))

    async def _preflight(self, scope: Scope, send: Send, methods: Mapping[str, App]) -> None:
        names = ", ".join(sorted({"OPTIONS", *methods})).encode()
        extra: list[tuple[bytes, bytes]] = [(b"allow", names)]
        if self._shared(scope):
            extra += [(b"access-control-allow-methods", names), (b"access-control-allow-headers", _ALLOWED)]
            extra.append((b"access-control-max-age", b"600"))
        headers = [*self._headers(scope, self._around.rooms.current), *extra]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    # --- questions ---

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        asking = Asking(self._around, ROUTES[scope["path"]], scope, receive, send, headers=self._shared(scope))
        await asking.run()

    # --- evidence and receipts ---

    async def _attest(self, scope: Scope, _receive: Receive, send: Send) -> None:
        keeper, report = await self._attesting.report(scope["query_string"])
        await self._send(scope, send, wire.encode(report), keeper=keeper)

    async def _near(self, scope: Scope, _receive: Receive, send: Send) -> None:
        keeper, report = await self._attesting.near_report(scope["query_string"])
        await self._send(scope, send, wire.encode(report), keeper=keeper)

    async def _receipt(self, scope: Scope, _receive: Receive, send: Send) -> None:
        receipt = self._fetching.receipt(_last(scope, "/v1/aci/receipts/"), one(scope["headers"], b"authorization"))
        await self._send(scope, send, receipt.encode(), keeper=self._around.rooms.current)

    async def _signature(self, scope: Scope, _receive: Receive, send: Send) -> None:
        authorization = one(scope["headers"], b"authorization")
        keeper, found = self._fetching.signature(_last(scope, "/v1/signature/"), authorization, scope["query_string"])
        await self._send(scope, send, wire.encode(found), keeper=keeper)

    async def _keys(self, scope: Scope, _receive: Receive, send: Send) -> None:
        keeper = self._around.rooms.require()
        body, kind = routes.keys(keeper)
        await self._send(scope, send, body, keeper=keeper, kind=kind)

    # --- what is served ---

    async def _models(self, scope: Scope, _receive: Receive, send: Send) -> None:
        keeper = self._around.rooms.require()
        await self._send(scope, send, wire.encode(routes.models(keeper)), keeper=keeper)

    async def _model(self, scope: Scope, _receive: Receive, send: Send) -> None:
        keeper = self._around.rooms.require()
        found = routes.model(keeper, _last(scope, "/v1/models/"))
        await self._send(scope, send, wire.encode(found), keeper=keeper)

    async def _room(self, scope: Scope, _receive: Receive, send: Send) -> None:
        keeper = self._around.rooms.require()
        anonymous = self._anonymous and self._around.gate.lets_in(passed_on=passed_on(scope["headers"]))
        body = wire.encode(routes.room(keeper, anonymous=anonymous))
        await self._send(scope, send, body, keeper=keeper)

    # --- how it is ---

    async def _health(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await self._send(scope, send, b'{"status":"ok"}', keeper=self._around.rooms.current)

    async def _ready(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Whether a request would be answered now."""
        if self.lifecycle.ending:
            raise ServiceEnding("the service ends")
        keeper = self._around.rooms.require()
        if not all(getattr(engine, "alive", True) for engine in keeper.engines):  # a sidecar is looked at when it is asked
            raise EngineFailed("an engine does not run")
        found = {
            "spares": self._around.rooms.spares,
            "status": "ready",
            "until": keeper.room.until,
        }
        await self._send(scope, send, wire.encode(found), keeper=keeper)

    async def _measured(self, scope: Scope, _receive: Receive, send: Send) -> None:
        rooms = self._around.rooms
        here = [*rooms.draining, *([rooms.current] if rooms.current else [])]
        # where one contract says that nothing may be seen, no figure of another beside it is shown either
        if self._metrics is None or any(keeper.observability is Observability.NONE for keeper in here):
            raise NotFound("the policy lets nobody count here")
        kind = "text/plain; version=0.0.4; charset=utf-8"
        await self._send(scope, send, self._metrics(), keeper=self._around.rooms.current, kind=kind)

    async def _described(self, scope: Scope, _receive: Receive, send: Send) -> None:
        from .description import document

        await self._send(scope, send, document(), keeper=self._around.rooms.current)

    # --- what was served ---

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receipts for a party of the contract, encrypted to it."""
        if self._bill is None:
            raise NotFound("there is nothing at this address")
        bill, body = self._bill, await _body(receive)
        pieces = await self._billing.run(lambda: bill(body))
        headers = [*self._headers(scope, self._around.rooms.current), (b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while piece := await self._billing.run(lambda: next(pieces, b"")):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    # --- sources ---

    async def _revised(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the owner of a source says of it now: whoever brings it, the signature counts."""
        rooms = self._around.rooms
        found = rooms.revise(await _body(receive))
        await self._send(scope, send, wire.encode(found), keeper=rooms.current)

    # --- opening ---

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lines of JSON: each step as it begins, and last the room, or why there is none."""
        rooms = self._around.rooms
        spare = "spare" in query(scope["query_string"], frozenset({"spare"}))
        contract, envelope = await rooms.verify(await _body(receive))
        if spare:
            rooms.spare(envelope)
            await self._send(scope, send, wire.encode({"spares": rooms.spares}), keeper=rooms.current)
            return
        headers = [*self._headers(scope, rooms.current), (b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self.lifecycle.opening(contract, envelope):
            line = json.dumps(event, separators=(",", ":"), sort_keys=True).encode() + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(receive: Receive) -> bytes:
    """A small body. Raises TooLarge, RequestTooSlow, ClientGone."""
    found, more = bytearray(), True
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone("the client went before its request was whole")
                found += message.get("body", b"")
                more = message.get("more_body", False)
                if len(found) > MAX_REQUEST:
                    raise TooLarge(f"the request has more than {MAX_REQUEST} bytes")
    except TimeoutError:
        raise RequestTooSlow(f"the body did not come in {REQUEST_SECONDS:.0f} s") from None
    return bytes(found)


def _last(scope: Scope, prefix: str) -> str:
    """What stands in the path after a prefix. Raises NotFound."""
    name: str = scope["path"].removeprefix(prefix)
    if not name or len(name) > 512:
        raise NotFound("there is nothing at this address")
    return name


__all__ = ["ROUTES", "Service"]
