"""HTTP/1.1 as uvicorn and httptools read it, with bounds: whoever connects may be slow or endless on purpose.

Headers have a size and a time. A connection whose client acknowledges nothing ends, and an application can cut one off.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .asking import ABORT

MAX_HEADER_BYTES: Final = 64 << 10
HEADER_SECONDS: Final = 20.0
_USER_TIMEOUT: Final = 18  # TCP_USER_TIMEOUT (Linux): milliseconds for which sent bytes may stay unacknowledged
_STALL_MS: Final = 60_000
_AT_ONCE: Final = struct.pack("ii", 1, 0)


class Bounded(HttpToolsProtocol):
    """One connection."""

    _left = MAX_HEADER_BYTES
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, _STALL_MS)
        self._deadline = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._left = MAX_HEADER_BYTES
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        self.scope["extensions"] = {ABORT: {"call": self._abort}}

    def on_url(self, url: bytes) -> None:
        self._spend(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._spend(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_time()
        if self._left >= 0:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._left >= 0:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_time()
        if self._left >= 0:
            super().on_message_complete()

    def _abort(self) -> None:
        """Reset the connection: what waits to be sent is forgotten at once, in the kernel too."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0 and not self.transport.is_closing():
            self.transport.abort()

    def _should_upgrade_to_ws(self) -> bool:
        return False
