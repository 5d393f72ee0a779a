"""Asks the vendors' services over HTTP: one question, one answer, within one span of time.

The time-out is for the whole question, from the look-up of the name to the last byte, trying again and waiting included, so
that nobody can hold a verifier up by answering drop by drop, a header's drops too. That is why the connection below stands
here, and not ``httpx``'s, whose time-outs begin anew with every byte; ``httpcore`` is what ``httpx`` itself stands on.
Redirects, cookies, proxies from the environment and compressed answers are not followed, kept, used or read.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpcore

from strongroom.app.client.home import loads, reading
from strongroom.attest.evidence import Endorsement
from strongroom.errors import BadAnswer, NotFound, RateLimited, StrongroomError, TooLarge, Unreachable, Usage
from strongroom.wire import Fields

from .request import SERVICES, Answer, Request

SERVICES_FILE = "endorsements.json"  # in the folder of --home: addresses in place of the vendors'
SERVICES_FORMAT = "strongroom.endorsement-services.v1"
TIMEOUT_S = 20.0
ATTEMPTS = 3
MAX_WAIT_S = 15.0  # the longest Retry-After that is honoured; who asks for more is told about instead
_PAUSE_S = 0.5
_BUSY = frozenset({429, 500, 502, 503, 504})
_OFFLINE = "Is there a network? Where there is none, take a bundle made elsewhere: strongroom endorsements bundle"


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class Deadline:
    """A moment, and how far it is."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock, self.end = clock, clock() + seconds

    def left(self) -> float:
        """Seconds left. Raises httpcore.TimeoutException: none."""
        found = self.end - self._clock()
        if found <= 0:
            raise httpcore.TimeoutException("out of time")
        return found


class _Stream(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline's is shorter
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore.SyncBackend):
    """Connections that end at a deadline, looking the name up included."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolve(host, port, self._deadline)
        for place, address in enumerate(addresses):
            share = self._deadline.left() / (len(addresses) - place)
            try:
                stream = super().connect_tcp(address, port, share, local_address, socket_options)
                return _Stream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if place + 1 == len(addresses):
                    raise
        raise httpcore.ConnectError("the name has no address")


def _resolve(host: str, port: int, deadline: Deadline) -> list[str]:
    """The addresses of a name. The system's own look-up knows no time-out, so it is left to a thread that may outlive us."""
    found: list[str] = []
    failed: list[Exception] = []

    def look_up() -> None:
        try:
            found.extend(dict.fromkeys(str(a[4][0]) for a in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(deadline.left())
    if thread.is_alive():
        raise httpcore.ConnectTimeout("the name is not found in time")
    if failed:
        raise httpcore.ConnectError("the name is not found") from failed[0]
    return found[:8]


def checked_url(name: str, url: str) -> str:
    """The address of a service, if it is one that may be asked. Raises Usage."""
    if name not in SERVICES:
        raise Usage(f"there is no service {name!r}", hint=f"The services are {', '.join(SERVICES)}.")
    try:
        split = urlsplit(url)
        host, port = split.hostname or "", split.port
    except ValueError:
        host, port = "", None
    if not host or port == 0 or split.username is not None or split.query or split.fragment or not url.isprintable():
        raise Usage(f"{url!r} is no address of a service", hint=f"Say it as in: --service {name}={SERVICES[name]}")
    if split.scheme != "https" and not (split.scheme == "http" and _is_loopback(host)):
        raise Usage(f"{url!r} is not https", hint="Only a service on this machine itself may be asked without TLS.")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def configured(home: Path, services: Mapping[str, str] | None = None, *, timeout: float | None = None) -> Web:
    """Who asks at the addresses, and with the time-out, that a folder says, as far as it says any.

    Args:
        home: a folder that may hold ``endorsements.json``.
        services, timeout: what goes before that.

    Raises:
        NotJson, BadField, Usage: what the file says is not what it should be.
    """
    path, said, seconds = home / SERVICES_FILE, {}, None
    if path.exists():
        with reading(path):
            f = Fields(loads(path), "services")
            f.literal("format", SERVICES_FORMAT)
            g = Fields(f.any("services"), "services.services")
            said = {name: checked_url(name, g.text(name, max_chars=2048)) for name in SERVICES if g.has(name)}
            g.end()
            seconds = f.integer("timeout_s", low=1, high=600) if f.has("timeout_s") else None
            f.end()
    return Web({**said, **(services or {})}, timeout=timeout or seconds or TIMEOUT_S)


class Web:
    """Asks the vendors' services.

    Args:
        services: addresses in place of those of ``SERVICES``.
        timeout: seconds that one question may take in all.
        attempts: how often one is asked in that time, where a service is busy or a connection breaks.
        clock: monotonic seconds.
        sleep: waits so many seconds.

    Raises:
        Usage: an address that is none or not https, or a time-out that is not 0.1 to 600 seconds.
    """

    def __init__(
        self,
        services: Mapping[str, str] | None = None,
        *,
        timeout: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0.1 <= timeout <= 600:
            raise Usage("the time-out is not 0.1 to 600 seconds")
        said = {name: checked_url(name, url) for name, url in (services or {}).items()}
        self.services: Mapping[str, str] = MappingProxyType({**SERVICES, **said})
        self._told = frozenset(said)
        self._timeout, self._attempts, self._clock, self._sleep = timeout, attempts, clock, sleep

    def was_told(self, service: str) -> bool:
        """Whether the service is asked at an address that somebody gave: then it is asked before those that are not."""
        return service in self._told

    def ask(self, request: Request) -> tuple[Endorsement, ...]:
        """The documents that a service answers with.

        Raises:
            Unreachable: it does not answer, or not in time.
            NotFound: it has no such document.
            RateLimited: it wants to be asked later.
            TooLarge: its answer is larger than such an answer may be.
            BadAnswer: its answer is something else.
        """
        deadline = Deadline(self._timeout, self._clock)
        host = urlsplit(self.services[request.service]).hostname
        where = f"{request.service} at {host}"
        try:
            found = request.read(self._patiently(request, where, deadline))
        except (BadAnswer, NotFound) as error:
            error.message = f"{where}: {error.message}"
            raise
        return found

    def _patiently(self, request: Request, where: str, deadline: Deadline) -> Answer:
        """Ask, and again where that may help and there is time."""
        attempt = 0
        while True:
            pause, attempt = _PAUSE_S * 2**attempt, attempt + 1
            try:
                status, answer = self._once(request, deadline)
                if status not in _BUSY:
                    return _expect(status, answer)
                problem: StrongroomError = Unreachable(f"{where} answered HTTP {status}", hint=_OFFLINE)
                if status == 429:
                    problem = RateLimited(f"{where} wants to be asked later (HTTP 429)")
                asked = _retry_after(answer)
                if asked is not None and asked > min(MAX_WAIT_S, deadline.end - self._clock()):
                    problem.message += f": in {asked:.0f} seconds"
                    raise problem
                pause = pause if asked is None else asked
            except (httpcore.TimeoutException, TimeoutError) as error:
                raise Unreachable(f"{where} does not answer in {self._timeout:g} seconds", hint=_OFFLINE) from error
            except (httpcore.ConnectError, httpcore.UnsupportedProtocol, ssl.SSLError, UnicodeError) as error:
                why = "".join(c for c in str(error)[:120] if c.isprintable())
                raise Unreachable(f"{where} cannot be reached: {why or error.__class__.__name__}", hint=_OFFLINE) from error
            except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
                problem = Unreachable(f"{where} broke the connection off", hint=_OFFLINE)
            if attempt >= self._attempts or pause >= deadline.end - self._clock():
                raise problem
            self._sleep(pause)

    def _once(self, request: Request, deadline: Deadline) -> tuple[int, Answer]:
        headers: dict[bytes | str, bytes | str] = {"accept-encoding": "identity", "user-agent": "strongroom"}
        if request.content_type:
            headers["content-type"] = request.content_type
        method, content = ("POST", request.body) if request.body else ("GET", None)
        pieces, size = [], 0
        with (
            httpcore.ConnectionPool(_tls(), network_backend=_Network(deadline), max_connections=1) as pool,
            pool.stream(method, self.services[request.service] + request.path, headers=headers, content=content) as response,
        ):
            found = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers)
            if response.status != 200:  # what it says besides is nobody's business
                return response.status, Answer(b"", found)
            for piece in response.iter_stream():
                size += len(piece)
                if size > request.most:
                    raise TooLarge(
                        f"{request.service} answered more than {request.most} bytes",
                        hint="Such an answer is never that large; check the service's address.",
                    )
                pieces.append(piece)
        return response.status, Answer(b"".join(pieces), found)


def _expect(status: int, answer: Answer) -> Answer:
    """An answer that is one. Raises BadAnswer, NotFound."""
    if status in {404, 410}:
        raise NotFound(
            f"there is no such document (HTTP {status})",
            hint="The vendor does not know this machine, firmware or driver, or knows it no longer.",
        )
    if 300 <= status < 400:
        raise BadAnswer(
            f"the answer sends elsewhere (HTTP {status}), and nobody goes there",
            hint="Say the service's own address: --service NAME=URL",
        )
    if status != 200:
        raise BadAnswer(f"the answer is HTTP {status}")
    if any(name == "content-encoding" and value.lower() not in ("", "identity") for name, value in answer.headers):
        raise BadAnswer("the answer is compressed, which nobody asked for")
    return answer


def _retry_after(answer: Answer) -> float | None:
    """Seconds that a service asks to wait for (RFC 9110 section 10.2.3): a number of them, or a date against its own."""
    said = {name: value for name, value in answer.headers if name in ("retry-after", "date")}
    text = said.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(said["date"])).total_seconds())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
