"""Between the chat page and a room: serves the page, passes its requests on, and does to them what it is told.

It is what a dishonest host, a proxy or a network could be: it sees every byte that the page sends, and may change, cut and
keep whatever it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from strongroom.app.http import listen, url_of
from strongroom.app.web import RAW_HEADERS, ChatPage

_KEPT = {b"content-type", b"ehbp-response-nonce", b"retry-after", b"x-aci-keyset-digest", b"x-aci-version", b"x-receipt-id"}


@dataclass
class Passed:
    """One request that was passed on."""

    method: str
    path: str
    body: bytes
    authorization: str = ""


@dataclass
class Between:
    """The application behind the page.

    Attributes:
        room: the room's address.
        tamper: given the path and a piece of an answer, what is sent in its place.
        headers: given the path and an answer's headers, what is sent in their place.
        cut: an answer of encrypted events ends after so many pieces, or ``None``.
        passed: every request.
    """

    room: str
    tamper: Callable[[str, bytes], bytes] = lambda _path, piece: piece
    headers: Callable[[str, dict[bytes, bytes]], dict[bytes, bytes]] = lambda _path, headers: headers
    cut: int | None = None
    down: bool = False
    passed: list[Passed] = field(default_factory=list)

    def sent(self, path: str) -> list[Passed]:
        return [one for one in self.passed if one.path.split("?")[0] == path]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"].removeprefix("/raw")
        query = scope["query_string"].decode()
        target = f"{path}?{query}" if query else path
        self.passed.append(Passed(scope["method"], target, body, headers.get("authorization", "")))
        if self.down:
            await _answer(send, 502, [(b"content-type", b"text/plain")], b"nobody there")
            return
        kept = {
            n: v for n, v in headers.items() if n in {"accept", "authorization", "content-type", "ehbp-encapsulated-key"}
        }
        async with (
            httpx.AsyncClient(timeout=30, trust_env=False) as client,
            client.stream(scope["method"], self.room + target, content=body or None, headers=kept) as answer,
        ):
            await self._pass(answer, path, receive, send)

    async def _pass(self, answer: httpx.Response, path: str, receive: Any, send: Any) -> None:
        kept = {name.lower(): value for name, value in answer.headers.raw if name.lower() in _KEPT}
        headers = [*self.headers(path, kept).items(), *RAW_HEADERS]
        start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        await send(start)
        gone = False
        number = 0
        async for piece in answer.aiter_raw():
            if self.cut is not None and path == "/v1/chat/completions" and number >= self.cut:
                break
            number += 1
            try:
                await send({"type": "http.response.body", "body": self.tamper(path, piece), "more_body": True})
            except OSError:
                gone = True
                break
        if not gone:
            await send({"type": "http.response.body", "body": b""})


async def _live(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(make: Callable[[str], Any]) -> Iterator[str]:
    """An application on loopback, in a thread, made for its address; the address."""
    sock = listen("127.0.0.1", 0)
    app = make(url_of(sock))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    sock.listen()
    thread.start()
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        thread.join(30)
        sock.close()


@contextmanager
def page_before(between: Between, trust: Callable[[], bytes] | None, **options: Any) -> Iterator[str]:
    """The page's address; what it asks of the room goes through ``between``."""
    page = ChatPage(served_by="proxy", base="/raw", trust=trust, behind=between, **options)
    with serving(lambda _url: page) as url:
        yield url
