"""A server on this machine that answers as the vendors' services do: rightly, slowly, wrongly, and not at all.

It speaks HTTP on bare sockets, because what is tested is what no well-behaved server does.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

DROP_S = 0.02  # between two drops

Connection = socket.socket


@dataclass(frozen=True)
class Reply:
    """A right answer. ``headers`` are sent as they stand."""

    body: bytes
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, length: int | None = None) -> bytes:
        head = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in self.headers)]
        head += [f"Content-Length: {len(self.body) if length is None else length}", "Connection: close", "", ""]
        return "\r\n".join(head).encode("latin-1") + self.body


def chain(name: str, pem: bytes) -> tuple[tuple[str, str], ...]:
    """A header that holds certificates, as Intel's PCS sends them."""
    return ((name, quote(pem.decode())),)


# How an answer is given: to a connection, of a reply, until the server closes.
Manner = Callable[[Connection, Reply, threading.Event], None]


def right(to: Connection, reply: Reply, _closing: threading.Event) -> None:
    to.sendall(reply.encode())


def _drop(to: Connection, data: bytes, closing: threading.Event) -> None:
    for byte in data:
        if closing.wait(DROP_S):
            return
        to.sendall(bytes((byte,)))


def trickle(to: Connection, reply: Reply, closing: threading.Event) -> None:
    """A body that comes drop by drop, each well within any time-out that begins anew with each."""
    data = reply.encode(length=1 << 20)
    head = data.index(b"\r\n\r\n") + 4
    to.sendall(data[:head])
    _drop(to, data[head:] * 1000, closing)


def trickle_headers(to: Connection, reply: Reply, closing: threading.Event) -> None:
    """A header without end, drop by drop."""
    to.sendall(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    _drop(to, b"x" * 100_000, closing)
    to.sendall(reply.body)


def silence(_to: Connection, _reply: Reply, closing: threading.Event) -> None:
    """The request is taken, and nothing comes."""
    closing.wait()


def cut(to: Connection, reply: Reply, _closing: threading.Event) -> None:
    """Half of the body, and the end."""
    to.sendall(reply.encode()[: -(len(reply.body) // 2 + 1)])


def hang_up(_to: Connection, _reply: Reply, _closing: threading.Event) -> None:
    """The end, before anything."""


def not_http(to: Connection, _reply: Reply, _closing: threading.Event) -> None:
    to.sendall(b"220 mail.example ESMTP\r\n" * 8)


def huge(to: Connection, _reply: Reply, closing: threading.Event) -> None:
    """A body without end, as fast as it is taken, whose length nobody says."""
    to.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not closing.is_set():
        to.sendall(b"[" * 65536)


def huge_headers(to: Connection, _reply: Reply, closing: threading.Event) -> None:
    to.sendall(b"HTTP/1.1 200 OK\r\n")
    while not closing.is_set():
        to.sendall(b"X-Padding: " + b"x" * 65536 + b"\r\n")


def instead(body: bytes, status: str = "200 OK", **headers: str) -> Manner:
    """Something else in the place of the answer."""
    said = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda to, _reply, _closing: to.sendall(Reply(body, status, said).encode())


def status(line: str, **headers: str) -> Manner:
    return instead(b"<html><body>no</body></html>", line, **headers)


def compressed(to: Connection, reply: Reply, _closing: threading.Event) -> None:
    to.sendall(Reply(reply.body, headers=(*reply.headers, ("Content-Encoding", "gzip"))).encode())


def without_headers(to: Connection, reply: Reply, _closing: threading.Event) -> None:
    """The body, without the certificates in its headers."""
    to.sendall(Reply(reply.body).encode())


def first(times: int, manner: Manner) -> Manner:
    """One manner so many times, then the right one."""
    left = iter(range(times))

    def give(to: Connection, reply: Reply, closing: threading.Event) -> None:
        how = right if next(left, None) is None else manner
        how(to, reply, closing)

    return give


@dataclass
class Service:
    """A server while it runs. ``replies``: by what follows the host in the address. ``manner``: how every one of them is
    given, ``manners``: how some are. ``asked``: the requests so far: method, path, body."""

    replies: dict[str, Reply] = field(default_factory=dict)
    manner: Manner = right
    manners: dict[str, Manner] = field(default_factory=dict)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    url: str = ""

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]

    def behave(self, manner: Manner) -> None:
        """From now on, everything is answered in this manner."""
        self.manner, self.manners = manner, {}


@contextlib.contextmanager
def serving(service: Service) -> Iterator[Service]:
    """A service on a free port of this machine, until the block ends."""
    closing = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # a client that has seen enough hangs up
                method, path, length = "", "", 0
                while line := self.rfile.readline(65536).strip():
                    if not method:
                        method, path, _ = line.decode("latin-1").split(" ", 2)
                    elif line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not method:
                    return
                service.asked.append((method, path, self.rfile.read(length)))
                reply = service.replies.get(path, Reply(b"not here", "404 Not Found"))
                service.manners.get(path, service.manner)(self.connection, reply, closing)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address, block_on_close = True, True, True

        def handle_error(self, *_: object) -> None:
            """A request that is none is nobody's business here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield service
        finally:
            closing.set()
            server.shutdown()
            thread.join()
