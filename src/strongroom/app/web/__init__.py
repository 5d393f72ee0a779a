"""The chat page, as files that are already built: what a server hands out, and under which rules a browser may run it.

The page verifies the room that it talks to by itself; whoever serves it is trusted for its bytes and for nothing else. It
loads nothing from another host, and a browser runs exactly the scripts whose digests stand in it. Its source is ``web/``;
``make web`` builds it, and a test builds it again and compares.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from strongroom.errors import NotBuilt

App = Callable[[Any, Any, Any], Awaitable[None]]

STATIC: Final = Path(__file__).parent / "static"

RAW_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""What a proxy MUST set on every answer that it passes on at the page's own origin (``/raw/``), in place of the host's own
headers of these names: else the host's bytes could run as a page beside this one, and read what it keeps."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SCRIPT: Final = re.compile(r"<script\b[^>]*>")
_INTEGRITY: Final = re.compile(r'\bintegrity="(sha384-[A-Za-z0-9+/]{64})"')
_NEVER: Final = "no-store"
_ASK: Final = "no-cache"
_ALWAYS: Final = "public, max-age=31536000, immutable"


def policy(html: str) -> str:
    """The content security policy of a built page: its own scripts by their digests, and nothing else.

    Raises:
        NotBuilt: a script in the page without its digest.
    """
    scripts = []
    for tag in _SCRIPT.findall(html):
        found = _INTEGRITY.search(tag)
        if found is None:
            raise NotBuilt("the chat page has a script without its digest")
        scripts.append(f"'{found[1]}'")
    if not scripts:
        raise NotBuilt("the chat page has no script")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(scripts)}",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types dompurify",
        )
    )


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    kind: str
    caching: str
    etag: str

    @classmethod
    def of(cls, content: bytes, kind: str, caching: str) -> _File:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()[:18]).decode()
        return cls(content, kind, caching, f'"{digest}"')


class ChatPage:
    """The page, and what it has to be told, as an ASGI application.

    Args:
        served_by: ``proxy`` on the user's own machine, or the ``host`` of the room; the page says what that means.
        base: where the room's routes are at this origin: ``""``, or ``"/raw"`` where a proxy passes them on untouched.
        trust: gives a trust document (``spec/trust.md``) that the user is offered to pin; ``None`` for none.
        contract: the digest of the one contract that may be pinned; ``None`` where the user decides on what is served.
        room: the room's address, for people; ``""`` where it is this origin's.
        behind: answers everything else; ``None`` for 404.
        static: the folder of the built form.

    Raises:
        NotBuilt: the built form is not there, or not whole.
    """

    def __init__(
        self,
        *,
        served_by: Literal["proxy", "host"],
        base: Literal["", "/raw"] = "",
        trust: Callable[[], bytes] | None = None,
        contract: str | None = None,
        room: str = "",
        behind: App | None = None,
        static: Path = STATIC,
    ) -> None:
        self._files = dict(_built(static))
        html = self._files["/"].content.decode()
        for tag in re.findall(r'(?:src|href)="(/[^"]*)"', html):
            if tag not in self._files:
                raise NotBuilt(f"the chat page names {tag}, which is not there")
        self._trust, self._behind = trust, behind
        config = {"base": base, "contract": contract, "room": room, "served_by": served_by, "trust": trust is not None}
        self._files["/config.json"] = _File.of(json.dumps(config, sort_keys=True).encode(), "application/json", _NEVER)
        self._headers: list[tuple[bytes, bytes]] = [
            (b"content-security-policy", policy(html).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=(), clipboard-write=(self)"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not self.serves(path):
            if self._behind is not None:
                await self._behind(scope, receive, send)
            elif scope["type"] == "http":
                await self._answer(scope, send, 404, _File.of(b"not found\n", "text/plain; charset=utf-8", _NEVER))
            return
        if scope["method"] not in {"GET", "HEAD"}:
            await self._answer(scope, send, 405, _File.of(b"only GET\n", "text/plain; charset=utf-8", _NEVER))
            return
        await self._answer(scope, send, 200, self._file(path))

    def serves(self, path: str) -> bool:
        """Whether something of the page is at this path."""
        return path in self._files or (path == "/trust.json" and self._trust is not None)

    def _file(self, path: str) -> _File:
        if path == "/trust.json" and self._trust is not None:
            return _File.of(self._trust(), "application/json", _NEVER)
        return self._files[path]

    async def _answer(self, scope: Any, send: Any, status: int, file: _File) -> None:
        asked = dict(scope["headers"]).get(b"if-none-match")
        same = status == 200 and file.caching != _NEVER and asked == file.etag.encode()
        headers = [*self._headers, (b"cache-control", file.caching.encode())]
        if file.caching != _NEVER:
            headers.append((b"etag", file.etag.encode()))
        if same:
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers += [(b"content-type", file.kind.encode()), (b"content-length", b"%d" % len(file.content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else file.content})


def _built(static: Path) -> Iterator[tuple[str, _File]]:
    """Every file of the built form with the path that it is served at. Those in ``assets`` are named by their content."""
    index = static / "index.html"
    if not index.is_file():
        raise NotBuilt("the chat page is not built")
    yield "/", _File.of(index.read_bytes(), _TYPES[".html"], _ASK)
    for path in sorted((static / "assets").iterdir()):
        kind = _TYPES.get(path.suffix)
        if kind is None:
            raise NotBuilt(f"{path.name} is no part of a chat page")
        yield f"/assets/{path.name}", _File.of(path.read_bytes(), kind, _ALWAYS)
