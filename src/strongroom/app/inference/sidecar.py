"""Engines beside the enclave's process: vLLM, or any server that speaks OpenAI's protocol, on the same machine.

The asset in such a model's role is no file of weights but the sidecar's *description*, sealed and agreed to like any other:
the digest of the executable, its command line, and what it serves. The operator says where it listens, a UNIX socket or a
port of the loopback interface; who listens there is found out from the kernel, and must be what is described. What that
proves, and what it does not, stands in ``docs/engines.md``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import select
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

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
from strongroom.lm.seated import refused, too_long
from strongroom.serving import ROUTES
from strongroom.wire import Fields

from .answers import BrokenAnswer, piece_of, whole

PATHS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}
MAX_DESCRIPTION: Final = 1 << 16
_MAX_LINE: Final = 1 << 20
_MAX_VECTORS: Final = 256 << 20
_LISTENS: Final = "0A"
_PORT = re.compile(r"(127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})\Z")


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
    """Where a sidecar listens: ``unix:/path``, ``127.0.0.1:8000`` or ``[::1]:8000``; nothing of another machine.

    Attributes:
        path: of the socket, or empty.
        host, port: of the loopback interface.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Usage."""
        if text.startswith("unix:/"):
            return cls(path=text.removeprefix("unix:"))
        found = _PORT.match(text)
        if found is None or int(found[2]) > 65535:
            raise Usage(
                "a sidecar listens on this machine alone", hint="Say unix:/path/to/socket, 127.0.0.1:PORT or [::1]:PORT."
            )
        return cls(host=found[1].strip("[]"), port=int(found[2]))

    def listener(self) -> int:
        """The process that listens there, as the kernel says. Raises Unreachable."""
        found = self._unix_listener() if self.path else self._port_listener()
        if found <= 0:
            raise Unreachable("nobody listens at the sidecar's address, or it cannot be found out who does")
        return found

    def _unix_listener(self) -> int:
        with socket.socket(socket.AF_UNIX) as peer, suppress(OSError):
            peer.connect(self.path)
            pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return int(pid)
        return 0

    def _port_listener(self) -> int:
        inodes = set()
        for table in ("tcp", "tcp6"):
            with suppress(OSError):
                for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                    words = line.split()
                    if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == self.port:
                        inodes.add(f"socket:[{words[9]}]")
        owners = {place.name for place in Path("/proc").glob("[0-9]*") if inodes & _sockets(place.name)} if inodes else set()
        # Workers inherit the socket of the one that made it: that one is the oldest.
        return min(map(int, owners), default=0)


def _sockets(pid: str) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found


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
        self._process = -1
        transport = httpx.AsyncHTTPTransport(uds=address.path) if address.path else httpx.AsyncHTTPTransport()
        host = f"[{address.host}]" if ":" in address.host else address.host
        base = "http://sidecar" if address.path else f"http://{host}:{address.port}"
        timeout = httpx.Timeout(seconds, connect=5.0)
        self._client = httpx.AsyncClient(transport=transport, base_url=base, timeout=timeout, trust_env=False)

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
        await self._client.aclose()
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
        self._process = held

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
        except (httpx.HTTPError, BrokenAnswer, ValueError, AttributeError, KeyError, TypeError, IndexError, Unreachable):
            raise EngineFailed("the sidecar answers nonsense, or not at all") from None  # the cause may quote the answer
        finally:
            self._seats.release()

    async def _pieces(self, route: Route, body: bytes, asked: Asked) -> AsyncIterator[Answer]:
        said = json.loads(body) | {"model": self._described.model, "stream": True, "stream_options": {"include_usage": True}}
        said["max_tokens"] = min(self._max_tokens, said.get("max_tokens", self._max_tokens))
        choices = said.get("n", 1)
        tokens = 0
        async with self._client.stream("POST", PATHS[route], json=said) as answer:
            if answer.status_code != 200:
                raise await self._refusal(answer)
            async for event in _events(answer):
                if "error" in event:
                    raise EngineFailed("the sidecar failed at this question")
                for choice in event.get("choices", []):
                    piece = piece_of(route, choice, choices)
                    if piece is not None:
                        tokens += bool(piece.delta)
                        yield piece
                asked.counted = _counted(event.get("usage"), tokens) or Counted(asked.counted.prompt_tokens, tokens)
        yield asked.counted

    async def _vectors(self, body: bytes, asked: Asked) -> AsyncIterator[Answer]:
        said = json.loads(body) | {"model": self._described.model, "encoding_format": "float"}
        async with self._client.stream("POST", PATHS["embeddings"], json=said) as answer:
            if answer.status_code != 200:
                raise await self._refusal(answer)
            data = bytearray()
            async for part in answer.aiter_bytes():
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

    async def _refusal(self, answer: httpx.Response) -> EngineError:
        """What an error of the sidecar's means. Nothing of its text is passed on."""
        text = b""
        async for part in answer.aiter_bytes():
            text = (text + part)[:_MAX_LINE]
        if answer.status_code in (429, 503):
            return EngineBusy("the sidecar has too much to do")
        if answer.status_code in (400, 413, 422):
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


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream. Raises BrokenAnswer: a line without end, or a stream without one."""
    held = bytearray()
    async for part in answer.aiter_bytes():
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
        Usage: no address of this machine.
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
