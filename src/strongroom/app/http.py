"""HTTP, both ends: how a role serves, how it calls another, and how errors cross between them.

An error travels as ``{"error": {"code", "message", "hint"}}`` and is raised as the same class on the other side. Answers are
bounded in size. Names resolve and proxies are used only as told: environment variables for proxies are ignored.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strongroom import wire
from strongroom.errors import (
    AppError,
    BookRestored,
    BrokerError,
    Conflict,
    Internal,
    JobError,
    LimitReached,
    NoCredential,
    NoSpace,
    NotFound,
    StrongroomError,
    TooLarge,
    Unauthorised,
    Unreachable,
    Usage,
    from_json,
)

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_ANSWER = 64 << 20
_LOG = logging.getLogger("strongroom")


@functools.cache
def tls() -> ssl.SSLContext:
    """The machine's own certificate authorities, read once a process: it takes as long as a whole call."""
    return ssl.create_default_context()


@functools.cache
def anybody() -> ssl.SSLContext:
    """TLS with whoever answers: for what is no secret to anybody, and believed by its own signatures alone."""
    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


class Client:
    """Calls one role over HTTP.

    Args:
        url: its address.
        timeout: seconds to wait for an answer to begin.
        transport: how to carry requests; tests put an application here.
        context: for TLS, where the machine's own certificate authorities are not whom to ask.

    Raises:
        Unreachable: from every method, when nothing answers.
        StrongroomError: the error that the other side answered with.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30,
        transport: httpx.BaseTransport | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        import httpx

        self.url = url.rstrip("/")
        self._errors = httpx.HTTPError
        try:
            self._client = httpx.Client(
                base_url=self.url, timeout=timeout, transport=transport, trust_env=False, verify=context or tls()
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise Unreachable(f"{url!r} is not an address") from error

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def stream(self, method: str, path: str, *, allow: tuple[int, ...] = (), **kwargs: Any) -> Iterator[httpx.Response]:
        """An answer whose body the caller reads in pieces; errors are raised before it is handed out.

        Args:
            allow: statuses beside success whose body is an answer.
        """
        try:
            with self._client.stream(method, path, **kwargs) as answer:
                if not answer.is_success and answer.status_code not in allow:
                    raise self._error(answer)
                yield answer
        except self._errors as error:
            raise Unreachable(f"{self.url} does not answer: {error.__class__.__name__}") from error

    @staticmethod
    def _error(answer: httpx.Response) -> StrongroomError:
        if answer.request.method == "HEAD" and answer.status_code == 404:  # which has no body to say more
            return NotFound(f"there is nothing at {answer.request.url.path}")
        body = b""
        for piece in answer.iter_bytes():
            body += piece
            if len(body) > 64 << 10:
                break
        try:
            return from_json(wire.loads(body)["error"])
        except (StrongroomError, KeyError, TypeError):
            return Internal(f"{answer.request.url.host} answered HTTP {answer.status_code}")

    def call(
        self, method: str, path: str, *, max_bytes: int = MAX_ANSWER, seconds: float | None = None, **kwargs: Any
    ) -> bytes:
        """The body of the answer.

        Args:
            max_bytes: the most that is read of it.
            seconds: the most that reading it may take, where one who answers drop by drop would hold something up.

        Raises:
            TooLarge, Unreachable.
        """
        pieces, size, began = [], 0, time.monotonic()
        with self.stream(method, path, **kwargs) as answer:
            for piece in answer.iter_bytes():
                if seconds is not None and time.monotonic() - began > seconds:
                    raise Unreachable(f"{self.url} answers too slowly")
                size += len(piece)
                if size > max_bytes:
                    raise TooLarge(f"{self.url} answered more than {max_bytes} bytes")
                pieces.append(piece)
        return b"".join(pieces)

    def get(self, path: str, **kwargs: Any) -> bytes:
        return self.call("GET", path, **kwargs)

    def post(self, path: str, content: bytes, **kwargs: Any) -> bytes:
        return self.call("POST", path, content=content, headers={"content-type": "application/json"}, **kwargs)


def status_of(error: StrongroomError) -> int:
    """The HTTP status that carries an error."""
    for cls, status in (
        (NotFound, 404),
        (Conflict, 409),
        (JobError, 409),
        (NoSpace, 507),
        (NoCredential, 401),
        (Unauthorised, 403),
        (BookRestored, 503),  # no refusal, which would be signed
        (BrokerError, 403),
        (LimitReached, 429),
        (TooLarge, 413),
        (Unreachable, 502),
        (Internal, 500),
        (AppError, 400),
    ):
        if isinstance(error, cls):
            return status
    return 400


def json_answer(value: object, status: int = 200) -> Response:
    """An answer in canonical JSON."""
    from starlette.responses import Response

    return Response(wire.encode(value), status, media_type="application/json")


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StrongroomError)
    return json_answer({"error": error.to_json()}, status_of(error))


async def _on_no_route(request: Request, error: Exception) -> Response:
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException)
    what = "there is nothing at" if error.status_code == 404 else f"nobody may {request.method}"
    found = {404: NotFound, 405: Usage}.get(error.status_code, Internal)(f"{what} {request.url.path[:200]}")
    return json_answer({"error": found.to_json()}, error.status_code)


class _Discreet:
    """Answers what nobody expected without a word of it: a message or a traceback may hold anything.

    Starlette hands such errors on to the server, which prints them; this stands between the two.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import ClientDisconnect

        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            _LOG.info("a request was cut off")
        except Exception as error:
            if os.environ.get("STRONGROOM_DEBUG"):
                raise
            _LOG.error("internal error: %s", error.__class__.__name__)
            if not begun:
                answer = json_answer({"error": Internal("the server failed").to_json()}, 500)
                await answer(scope, receive, send)


def application(routes: list[Any]) -> Starlette:
    """A Starlette application that answers errors as ours."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware

    handlers = {StrongroomError: _on_error, HTTPException: _on_no_route}
    found = Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_Discreet)])
    found.router.redirect_slashes = False  # an address is one address
    return found


async def body(request: Request, max_bytes: int) -> bytes:
    """The whole body, if it is small. Raises TooLarge."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise TooLarge(f"the request has more than {max_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def blocking(work: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Run synchronous work in a thread, so that it does not hold up the loop."""

    async def run(*args: Any) -> Any:
        from starlette.concurrency import run_in_threadpool

        return await run_in_threadpool(work, *args)

    return run


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 chooses a free one. Raises Conflict when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol by name: asyncio turns Nagle's algorithm off only where it sees it, and an answer waits 40 ms otherwise
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise Conflict(
            f"{host}:{port} is taken: {error.strerror}", hint="Stop what listens there, or choose another port."
        ) from error
    return found


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def end_with_stdin() -> None:
    """Have this process end as by SIGTERM when its standard input does."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def serve(app: Starlette, sock: socket.socket, *, announce: Callable[[str], None], until_eof: bool = False) -> None:
    """Serve until SIGINT or SIGTERM, or until standard input ends.

    Args:
        app: what to serve.
        sock: a bound socket.
        announce: called with the address once it answers.
        until_eof: also stop when standard input ends, so that a child never outlives its parent.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce(url_of(sock))

    server = Announcing(config)
    if until_eof:
        end_with_stdin()
    server.run(sockets=[sock])
