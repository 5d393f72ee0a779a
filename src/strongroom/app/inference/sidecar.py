"""Engines beside the enclave's process: vLLM, or any server that speaks OpenAI's protocol, on the same machine.

The asset in such a model's role is no file of weights but the sidecar's *description*, sealed and agreed to like any other:
the digest of the executable, its command line, and what it serves. The operator says on which UNIX socket it listens. Who
listens there is found out from the kernel, for every connection before anything is said on it, and must be what is
described. What that proves, and what it does not, stands in ``docs/engines.md``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import select
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpcore

from strongroom import wire
from strongroom.errors import (
    BadField,
    EngineBusy,
    EngineError,
    EngineFailed,
    ProgramNotApproved,
    Unreachable,
    Usage,
)
from strongroom.lm.engine import About, Answer, Counted, Route, Vectors
from strongroom.lm.request import read
from strongroom.lm.seated import refused, too_long
from strongroom.serving import ROUTES
from strongroom.wire import Fields

from .answers import BrokenAnswer, piece_of, whole

PATHS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}
MAX_DESCRIPTION: Final = 1 << 16
_MAX_LINE: Final = 1 << 20
_MAX_VECTORS: Final = 256 << 20
_CONNECT_SECONDS: Final = 5.0
_BROKEN: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


@dataclass(frozen=True, slots=True)
class Description:
    """What a sidecar is. It is an asset: whoever agrees to the contract agrees to its digest.

    Attributes:
        executable: the digest of the executable file.
        command: its command line, word for word.
        model: how the sidecar calls the model.
        routes: what it can be asked.
        context_tokens, parallel: as of :class:`strongroom.lm.engine.About`.
        embedding_size: numbers in an embedding, 0 where it gives none.
    """

    executable: str
    command: tuple[str, ...]
    model: str
    routes: frozenset[Route]
    context_tokens: int
    parallel: int
    embedding_size: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the one normal form: canonical JSON. Raises WireError."""
        f = Fields(wire.decode(data, max_bytes=MAX_DESCRIPTION), "sidecar")
        command = f.any("command")
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            raise BadField("sidecar.command is not a list of words")
        found = cls(
            executable=f.digest("executable"),
            command=tuple(str(word) for word in command),
            model=f.text("model", max_chars=256),
            routes=frozenset(route for route in f.names("routes", low=1) if route in PATHS),  # type: ignore[misc]
            context_tokens=f.integer("context_tokens", low=1, high=1 << 24),
            parallel=f.integer("parallel", low=1, high=1 << 12),
            embedding_size=f.integer("embedding_size", high=1 << 16),
        )
        f.end()
        if not found.routes or found.encode() != data:
            raise BadField("sidecar: another route than " + ", ".join(ROUTES))
        return found

    def encode(self) -> bytes:
        return wire.encode(
            {
                "command": [*self.command],
                "context_tokens": self.context_tokens,
                "embedding_size": self.embedding_size,
                "executable": self.executable,
                "model": self.model,
                "parallel": self.parallel,
                "routes": [*sorted(self.routes)],
            }
        )


# --- who listens ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """Where a sidecar listens: ``unix:/path``. Nothing else: of a port nobody can tell who answers a connection to it.

    Attributes:
        path: of the socket.
    """

    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Usage."""
        if not text.startswith("unix:/") or "\0" in text:
            raise Usage("a sidecar listens on a UNIX socket of this machine", hint="Say unix:/path/to/socket.")
        return cls(text.removeprefix("unix:"))

    def listener(self) -> int:
        """The process that listens there, as the kernel says. Raises Unreachable."""
        found = 0
        with socket.socket(socket.AF_UNIX) as own, suppress(OSError):
            own.connect(self.path)
            found = _peer(own)
        if found <= 0:
            raise Unreachable("nobody listens at the sidecar's address, or it cannot be found out who does")
        return found


def _peer(own: socket.socket) -> int:
    """The process that listened when this socket was connected."""
    pid, _, _ = struct.unpack("3i", own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


class _Checked(httpcore.AsyncNetworkBackend):
    """Connections to UNIX sockets, each of which is looked at before anything is said on it.

    Args:
        check: is told the process that listens at the other end; what it raises ends the connection.
    """

    def __init__(self, check: Callable[[int], None]) -> None:
        self._check, self._plain = check, httpcore.AnyIOBackend()

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._plain.connect_unix_socket(path, timeout, socket_options)
        try:
            # An event loop's own object for a socket need not have its options: the descriptor does.
            with socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno())) as own:
                self._check(_peer(own))
        except BaseException:
            await stream.aclose()
            raise
        return stream


def measured(pid: int) -> tuple[str, tuple[str, ...]]:
    """The digest of the executable that a process runs, and its command line. Raises Unreachable."""
    try:
        with open(f"/proc/{pid}/exe", "rb", buffering=0) as file:  # noqa: PTH123 - the kernel's own link, not its target
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError as error:
        raise Unreachable("the sidecar's process cannot be looked at") from error
    return f"sha256:{digest}", tuple(words[:-1] if words[-1:] == [""] else words)


# --- the engine -----------------------------------------------------------------------------------------------------


class Asked:
    """A question to a sidecar. As of :class:`strongroom.lm.engine.Answers`."""

    def __init__(self, sidecar: Sidecar, route: Route, body: bytes) -> None:
        self.counted = Counted(0)
        self._answers = sidecar.answers(route, body, self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        return await anext(self._answers)

    async def aclose(self) -> None:
        await self._answers.aclose()


class Sidecar:
    """An engine beside the enclave's process. :func:`start` makes it; see :class:`strongroom.lm.engine.Engine`."""

    def __init__(self, description: Description, address: Address, *, max_tokens: int, waiting: int, seconds: float) -> None:
        self._described, self._address = description, address
        self._max_tokens, self._waiting = max_tokens, waiting
        self._seats = asyncio.Semaphore(description.parallel)
        self._queue = 0
        self._process, self._pid = -1, -1
        self._timeout = {"connect": _CONNECT_SECONDS, "pool": seconds, "read": seconds, "write": seconds}
        # A connection for each question: none is kept from before its listener was measured last.
        self._pool = httpcore.AsyncConnectionPool(
            uds=address.path, network_backend=_Checked(self._same), max_connections=None, max_keepalive_connections=0
        )

    @property
    def about(self) -> About:
        d = self._described
        return About(d.context_tokens, d.parallel, d.routes, d.embedding_size, f"sidecar {d.executable[:19]}")

    def ask(self, route: Route, body: bytes, *, scope: bytes | None = None) -> Asked:
        """As of :class:`strongroom.lm.engine.Engine`. What a sidecar keeps of earlier prompts is the sidecar's own."""
        del scope
        return Asked(self, route, body)

    async def close(self) -> None:
        """Let go of it. It goes on by itself: it was not started here."""
        await self._pool.aclose()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    def require(self) -> None:
        """Require that what listens is what is described: at first, and again whenever that process has ended.

        Raises:
            Unreachable: nobody listens.
            ProgramNotApproved: another program, or the same with another command line.
        """
        if self._process >= 0 and not _ended(self._process):
            return
        pid = self._address.listener()
        held = os.pidfd_open(pid)
        try:
            described = measured(pid) == (self._described.executable, self._described.command) and not _ended(held)
        except BaseException:
            os.close(held)
            raise
        if not described:
            os.close(held)
            raise ProgramNotApproved("what listens at the sidecar's address is not what the contract describes")
        if self._process >= 0:
            os.close(self._process)
        self._process, self._pid = held, pid

    def _same(self, pid: int) -> None:
        """Require that a connection leads to the process that was measured. Its number is nobody else's while it runs.

        Raises:
            ProgramNotApproved: to another.
        """
        if pid != self._pid or self._process < 0 or _ended(self._process):
            raise ProgramNotApproved("what listens at the sidecar's address is not what was measured there")

    async def answers(self, route: Route, body: bytes, asked: Asked) -> AsyncGenerator[Answer, None]:
        """Pass a question on, and read the answer with mistrust."""
        if route not in self._described.routes:
            raise refused("route")
        if self._queue >= self._waiting:
            raise EngineBusy("too many questions wait")
        self._queue += 1
        try:
            await self._seats.acquire()
        finally:
            self._queue -= 1
        try:
            await asyncio.to_thread(self.require)
            found = self._vectors(body, asked) if route == "embeddings" else self._pieces(route, body, asked)
            async for answer in found:
                yield answer
        except (*_BROKEN, BrokenAnswer, ValueError, AttributeError, KeyError, TypeError, IndexError, Unreachable):
            raise EngineFailed("the sidecar answers nonsense, or not at all") from None  # the cause may quote the answer
        finally:
            self._seats.release()

    async def _pieces(self, route: Route, body: bytes, asked: Asked) -> AsyncIterator[Answer]:
        # The normal form, and not what came: of two ways to say the same the sidecar would know one that was not looked at.
        request = read(route, body)
        said = dict(request.normal) | {
            "max_tokens": min(self._max_tokens, request.normal.get("max_tokens", self._max_tokens)),
            "model": self._described.model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        choices = request.choices
        tokens = 0
        async with self._posted(route, said) as answer:
            if answer.status != 200:
                raise await self._refusal(answer)
            async for event in _events(answer):
                if "error" in event:
                    raise EngineFailed("the sidecar failed at this question")
                for choice in event.get("choices", []):
                    piece = piece_of(route, choice, choices)
                    if piece is not None:
                        tokens += bool(piece.delta)
                        asked.counted = Counted(asked.counted.prompt_tokens, tokens)  # if it ends here: so many at least
                        yield piece
                asked.counted = _counted(event.get("usage"), tokens) or Counted(asked.counted.prompt_tokens, tokens)
        yield asked.counted

    async def _vectors(self, body: bytes, asked: Asked) -> AsyncIterator[Answer]:
        said = dict(read("embeddings", body).normal) | {"model": self._described.model, "encoding_format": "float"}
        async with self._posted("embeddings", said) as answer:
            if answer.status != 200:
                raise await self._refusal(answer)
            data = bytearray()
            async for part in answer.aiter_stream():
                data += part
                if len(data) > _MAX_VECTORS:
                    raise BrokenAnswer
        found = json.loads(data)
        vectors: list[Any] = [None] * len(said["input"])
        for item in found["data"]:
            vector = [float(number) for number in item["embedding"]]
            if len(vector) != self._described.embedding_size:
                raise BrokenAnswer
            vectors[whole(item["index"])] = vector
        if None in vectors:
            raise BrokenAnswer
        asked.counted = _counted(found["usage"], 0) or Counted(0)
        yield Vectors(vectors)
        yield asked.counted

    def _posted(self, route: Route, said: dict[str, Any]) -> AbstractAsyncContextManager[httpcore.Response]:
        return self._pool.stream(
            "POST",
            f"http://sidecar{PATHS[route]}",
            headers=[("accept", "*/*"), ("content-type", "application/json")],
            content=json.dumps(said).encode(),
            extensions={"timeout": self._timeout},
        )

    async def _refusal(self, answer: httpcore.Response) -> EngineError:
        """What an error of the sidecar's means. Nothing of its text is passed on."""
        text = b""
        async for part in answer.aiter_stream():
            text = (text + part)[:_MAX_LINE]
        if answer.status in (429, 503):
            return EngineBusy("the sidecar has too much to do")
        if answer.status in (400, 413, 422):
            lower = text.decode("utf-8", "replace").lower()
            if "context" in lower and ("length" in lower or "size" in lower or "exceed" in lower):
                return too_long(0, self._described.context_tokens)
            return refused("grammar" if "grammar" in lower or "schema" in lower else "request")
        return EngineFailed("the sidecar failed at this question")


def _ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _counted(usage: object, tokens: int) -> Counted | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Counted(whole(usage["prompt_tokens"]), whole(usage.get("completion_tokens", tokens)), whole(cached or 0))


async def _events(answer: httpcore.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream. Raises BrokenAnswer: a line without end, or a stream without one."""
    held = bytearray()
    async for part in answer.aiter_stream():
        held += part
        while (end := held.find(b"\n")) >= 0:
            line = bytes(held[:end]).rstrip(b"\r")
            del held[: end + 1]
            if not line.startswith(b"data:"):
                continue  # comments, and fields that say nothing here
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if not isinstance(event, dict):
                raise BrokenAnswer
            yield event
        if len(held) > _MAX_LINE:
            raise BrokenAnswer
    raise BrokenAnswer


async def start(description: bytes, address: str, *, max_tokens: int, waiting: int = 64, seconds: float = 300.0) -> Sidecar:
    """Attach a sidecar.

    Args:
        description: the opened asset in the model's role.
        address: where the operator says that it listens.
        max_tokens: the longest answer.
        waiting: how many questions may wait for a seat.
        seconds: how long it may say nothing.

    Raises:
        WireError: no description.
        Usage: no address of a UNIX socket.
        Unreachable: nobody listens there.
        ProgramNotApproved: what listens there is not what is described.
    """
    found = Sidecar(
        Description.parse(description), Address.parse(address), max_tokens=max_tokens, waiting=waiting, seconds=seconds
    )
    try:
        await asyncio.to_thread(found.require)
    except BaseException:
        await found.close()
        raise
    return found


__all__ = ["Address", "Description", "Sidecar", "measured", "start"]
