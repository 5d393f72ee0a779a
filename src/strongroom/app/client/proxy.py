"""A local server for clients that know nothing of verification: they speak plain HTTP to it, and it speaks to the service.

``/v1/*`` goes through the verified session; what cannot be verified is an error, never an answer. ``/raw/*`` goes to the
service byte for byte, for the chat page, which verifies by itself. ``/`` is that page. It is for programs of this machine:
the address that a request was made for and the page that made it are looked at, so that a web page from elsewhere, or a name
that somebody points at this machine, gets nothing.

See ``docs/private-inference.md``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from strongroom.app.http import application, body
from strongroom.app.web import RAW_HEADERS, STATIC, ChatPage
from strongroom.errors import (
    NotBuilt,
    NotFound,
    OtherTlsKey,
    StrongroomError,
    TooLarge,
    Unauthorised,
    Unreachable,
    Usage,
)

from .asking import openai_error
from .carrier import bound, is_question
from .verified import TIMEOUT, AsyncVerifiedTransport

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_REQUEST_BYTES: Final = 64 << 20
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
NO_RETRY: Final = "x-should-retry"  # OpenAI's clients read it: what is not verified is not made better by asking again

_ASKED = ("accept", "authorization", "content-type", "ehbp-encapsulated-key")
_ANSWERED = ("ehbp-response-nonce", "retry-after", "x-aci-keyset-digest", "x-aci-version", "x-receipt-id")
_RAW_TYPES = frozenset(
    {
        "application/json",
        "application/ohttp-keys",
        "application/problem+json",
        "application/vnd.strongroom.ehbp.v1",
        "text/event-stream",
    }
)
# What a service says is shown to the page's own code and to nobody as a document: it would be this origin's.
_RAW_HEADERS = {"cache-control": "no-store", **{name.decode(): value.decode() for name, value in RAW_HEADERS}}


def addresses(host: str, port: int) -> frozenset[str]:
    """What the ``Host`` of a request to this server may be.

    Args:
        host: the address that it is bound to.
        port: where it listens.

    Raises:
        Usage: bound to every address, whose names nobody knows.
    """
    number = _number(host)
    if number is not None and number.is_unspecified:
        raise Usage(f"{host} is every address of this machine", hint="Say the one by which it is reached.")
    loopback = host in LOOPBACK or (number is not None and number.is_loopback)
    names = {*LOOPBACK, host} if loopback else {host}
    spelled = {f"[{name}]" if ":" in name else name for name in names}
    return frozenset({f"{name}:{port}" for name in spelled} | (spelled if port == 80 else set()))


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, where it is one and not a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class _Local:
    """Lets through what programs of this machine and our own page ask, and nothing that a foreign page has a browser ask."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts
        self._origins = {f"http://{host}" for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                await error_answer(problem, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> StrongroomError | None:
        found: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            found.setdefault(name, []).append(value.decode("latin-1"))
        if [host.lower() for host in found.get(b"host", [])] not in [[host] for host in self._hosts]:
            return Unauthorised("the request is for another name than this server's", hint="Use the address it printed.")
        foreign = [origin for origin in found.get(b"origin", []) if origin not in self._origins]
        if foreign or not set(found.get(b"sec-fetch-site", [])) <= {"same-origin", "none"}:
            return Unauthorised(
                "the request comes from a web page of another origin", hint="Only this server's own may ask."
            )
        return None


def error_answer(error: StrongroomError, status: int) -> Response:
    """An error as OpenAI's clients read it."""
    from starlette.responses import Response

    headers = {**_RAW_HEADERS, **({NO_RETRY: "false"} if not isinstance(error, Unreachable) else {})}
    content = json.dumps({"error": openai_error(error, status)}).encode()
    return Response(content, status, headers=headers, media_type="application/json")


def _unreachable(error: httpx.HTTPError) -> Unreachable:
    return Unreachable(f"the service does not answer: {error.__class__.__name__}")


class _Verified:
    """``/v1/*``."""

    def __init__(self, transport: AsyncVerifiedTransport) -> None:
        self._transport = transport

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import Response

        try:
            content = await body(request, MAX_REQUEST_BYTES)
        except TooLarge as error:
            return error_answer(error, 413)
        asked = _request(request, self._transport.verifier.origin, _path(request.scope), content)
        try:
            answer = await self._transport.handle_async_request(asked)
            headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return _stream(answer, {**_RAW_HEADERS, **headers})
            whole = await answer.aread()
        except StrongroomError as error:
            return error_answer(error, 502)
        except httpx.TransportError as error:
            return error_answer(_unreachable(error), 504 if isinstance(error, httpx.TimeoutException) else 502)
        return Response(whole, answer.status_code, headers={**_RAW_HEADERS, **headers})


def _stream(answer: httpx.Response, headers: dict[str, str]) -> Response:
    """Events as they come. An error in their midst is an event, as OpenAI's clients know it, and the mark of the end never
    follows it."""
    from starlette.responses import StreamingResponse

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in answer.aiter_raw():
                yield piece
        except StrongroomError as error:
            yield _event(error)
        except httpx.TransportError as error:
            yield _event(_unreachable(error))
        finally:
            await answer.aclose()

    return StreamingResponse(pieces(), answer.status_code, headers=headers)


def _event(error: StrongroomError) -> bytes:
    return b"data: " + json.dumps({"error": openai_error(error, 502)}).encode() + b"\n\n"


class _Raw:
    """``/raw/*``: to the service and back, byte for byte, and verified by nobody here."""

    def __init__(self, transport: AsyncVerifiedTransport, inner: httpx.AsyncBaseTransport) -> None:
        self._transport, self._inner = transport, inner

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        path = _path(request.scope).removeprefix("/raw")
        if not path.startswith(("/v1/", "/.well-known/")):
            return error_answer(NotFound("nothing of the service is passed on here"), 404)
        try:
            content = await body(request, MAX_REQUEST_BYTES)
        except TooLarge as error:
            return error_answer(error, 413)
        asked = _request(request, self._transport.verifier.origin, path, content)
        try:
            answer = await self._carry(asked)
        except StrongroomError as error:
            return error_answer(error, 502)
        except httpx.TransportError as error:
            return error_answer(_unreachable(error), 502)
        kind = answer.headers.get("content-type", "")
        known = kind.split(";", 1)[0].strip().lower() in _RAW_TYPES
        headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        headers["content-type"] = kind if known else "application/octet-stream"

        async def pieces() -> AsyncIterator[bytes]:
            try:
                assert isinstance(answer.stream, httpx.AsyncByteStream)
                async for piece in answer.stream:
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), answer.status_code, headers={**_RAW_HEADERS, **headers})

    async def _carry(self, asked: httpx.Request) -> httpx.Response:
        """Where TLS is spoken, what is more than a question goes to a key of the established session alone."""
        verifier = self._transport.verifier
        if asked.url.scheme == "https" and not is_question(asked):
            session = await self._transport.establish(asked.extensions)
            asked.extensions = bound(asked.extensions, session.keyset.tls_public_keys)
            try:
                return await self._inner.handle_async_request(asked)
            except OtherTlsKey:
                verifier.forget(session)
                raise
        return await self._inner.handle_async_request(asked)


def _path(scope: Scope) -> str:
    """The path with its query, as it stood in the request line."""
    path: str = scope["raw_path"].decode("latin-1").split("?", 1)[0]
    query: bytes = scope["query_string"]
    return f"{path}?{query.decode('latin-1')}" if query else path


def _request(request: Request, origin: httpx.URL, path: str, content: bytes) -> httpx.Request:
    headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
    headers["accept-encoding"] = "identity"
    url = origin.copy_with(raw_path=path.encode("latin-1"))
    extensions = {"timeout": TIMEOUT.as_dict()}
    kept = content if content or request.method == "POST" else None
    return httpx.Request(request.method, url, headers=headers, content=kept, extensions=extensions)


def _page(transport: AsyncVerifiedTransport, trust: bytes | None, static: Path) -> ASGIApp:
    """The chat page, or who says that it is not there."""
    verifier = transport.verifier
    try:
        return ChatPage(
            served_by="proxy",
            base="/raw",
            trust=None if trust is None else lambda: trust,
            contract=verifier.terms.contract,
            room=str(verifier.origin).rstrip("/"),
            static=static,
        )
    except NotBuilt as error:
        hint = "Speak to it with an OpenAI client: its base_url is this address with /v1."
        return error_answer(NotFound(error.message, hint=hint), 404)


def proxy(
    transport: AsyncVerifiedTransport,
    inner: httpx.AsyncBaseTransport,
    hosts: frozenset[str],
    *,
    static: Path = STATIC,
    trust: bytes | None = None,
    stopped: Callable[[], None] = lambda: None,
) -> Starlette:
    """The application.

    Args:
        transport: through which ``/v1/*`` goes.
        inner: through which ``/raw/*`` goes.
        hosts: what ``Host`` may be (:func:`addresses`).
        static: the chat page's files.
        trust: the trust file that the page is offered, so that its user need not find it twice.
        stopped: called once no more requests come and what is due was fetched.
    """
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route

    verified, raw = _Verified(transport), _Raw(transport, inner)

    async def ask(request: Request) -> Response:
        return await verified(request)

    async def pass_on(request: Request) -> Response:
        return await raw(request)

    methods = ["DELETE", "GET", "PATCH", "POST", "PUT"]

    app = application(
        [
            Route("/v1/{path:path}", ask, methods=methods),
            Route("/raw/{path:path}", pass_on, methods=["GET", "POST"]),
            Mount("/", _page(transport, trust, static)),
        ]
    )
    app.user_middleware.insert(0, Middleware(_Local, hosts=hosts))

    async def shut_down() -> None:
        await transport.aclose()
        await inner.aclose()
        stopped()

    app.router.lifespan_context = _Lifespan(shut_down)
    return app


class _Lifespan:
    """What is done when the server ends."""

    def __init__(self, shut_down: Callable[[], Any]) -> None:
        self._shut_down = shut_down

    def __call__(self, _app: Any) -> _Lifespan:
        return self

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self._shut_down())


__all__ = ["STATIC", "addresses", "error_answer", "proxy"]
