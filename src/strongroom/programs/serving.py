"""The child's side of a served program: it takes a model, then questions by number, and answers in pieces as they come.

One thread reads, and one for each seat asks the engine and says what it hears. What comes soon after something was said, or
while somebody is saying something, goes out together, the texts of one choice joined: so the more there is to say, the less
each piece costs, on both sides. The first and the last of an answer wait for nothing. See ``spec/sandbox.md``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from strongroom.errors import (
    EngineError,
    EngineFailed,
    EngineRefused,
    ModelUnreadable,
    OutOfMemory,
    ProgramError,
    PromptTooLong,
    RequestError,
)
from strongroom.lm.engine import Counted
from strongroom.lm.request import read
from strongroom.lm.seated import Drawing, Seat, Seated, refused

from . import frames
from .frames import frame

PACE: Final = 0.002
"""Seconds after a frame of answers in which the next one waits for more to say."""

_ALIVE: Final = 1.0  # seconds of silence after which it is said that somebody works
_TURNS: Final = 2  # frames that one who has something to say sends for others too
_TEXTS: Final = 32  # embedded between two looks at whether the question was given up
_ANSWERS: Final = 1 << 20  # characters in a frame of answers, about

Open = Callable[[Mapping[str, Any], str, Path], Seated]
"""Loads a model: what the parent said of it, the path of its weights, and a path for a socket of the engine's own."""


class Outbox:
    """What is to be said to the parent. Any thread adds and sends, one at a time; one of its own sends what had to wait.

    Args:
        channel: connected to the parent.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._waits = threading.Event()  # something does, for the thread that sends later
        self._sent = 0.0  # when answers were sent last
        self._said: list[list[Any]] = []
        self._texts: dict[tuple[int, int], list[str]] = {}  # the text said last of a choice, while nothing else followed

    def text(self, number: int, choice: int, text: str, *, now: bool = False) -> None:
        """More text of a choice. ``now``: it waits for no more."""
        with self._lock:
            texts = self._texts.get((number, choice))
            if texts is not None:
                texts.append(text)
                return
            texts = self._texts[number, choice] = [text]
            self._said.append(["t", number, choice, texts])
        self._send_soon(now=now)

    def say(self, number: int, choice: int, *entry: Any, now: bool = False) -> None:
        """Anything but text. What is said of a choice keeps its order."""
        with self._lock:
            self._texts.pop((number, choice), None)
            self._said.append([*entry])
        self._send_soon(now=now)

    def working(self) -> None:
        """There is nothing to say yet: which is said now and then."""
        if time.monotonic() - self._sent >= _ALIVE:
            with self._lock:
                self._said.append(["w"])
            self._flush()

    def send(self, kind: bytes, *parts: bytes | memoryview) -> None:
        with self._sending:
            self._channel.sendall(frame(kind, *parts))
        self._waits.set()

    def take(self) -> list[list[Any]]:
        """All that is to be said."""
        with self._lock:
            said, self._said = self._said, []
            self._texts = {}
        for entry in said:
            if entry[0] == "t":
                entry[3] = "".join(entry[3])
        return said

    def _send_soon(self, *, now: bool) -> None:
        if now or time.monotonic() - self._sent >= PACE:
            self._flush()
        elif not self._waits.is_set():
            self._waits.set()

    def _flush(self) -> None:
        """Send what there is to say, unless somebody does: who sends looks again when it is done. Without a parent there is
        nothing to live for."""
        try:
            for _ in range(_TURNS):
                if not self._said or not self._sending.acquire(blocking=False):
                    return
                try:
                    for body in _bodies(self.take()):
                        self._channel.sendall(frame(frames.ANSWERS, body))
                    self._sent = time.monotonic()
                finally:
                    self._sending.release()
            if self._said:
                self._waits.set()
        except BaseException:  # noqa: BLE001 - no thread may live on where nothing can be said any more
            os._exit(1)

    def run(self) -> NoReturn:
        """Send for ever what had to wait."""
        while True:
            self._waits.wait()
            self._waits.clear()
            rest = self._sent + PACE - time.monotonic()
            if rest > 0:
                time.sleep(rest)
            self._flush()


def _bodies(said: list[list[Any]]) -> list[bytes]:
    """Entries as bodies of frames, each short enough."""
    found: list[bytes] = []
    some: list[str] = []
    size = 0
    for entry in said:
        encoded = json.dumps(entry, separators=(",", ":"))
        if some and size + len(encoded) > _ANSWERS:
            found.append(("[" + ",".join(some) + "]").encode())
            some, size = [], 0
        some.append(encoded)
        size += len(encoded) + 1
    if some:
        found.append(("[" + ",".join(some) + "]").encode())
    return found


@dataclass(slots=True)
class Question:
    """A question that is worked on: ``left`` choices are."""

    number: int
    left: int
    given_up: bool = False
    error: EngineError | None = None
    counted: list[Counted] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Say:
    """Of one choice; see :class:`strongroom.lm.seated.Metering`."""

    def __init__(self, outbox: Outbox, question: Question, choice: int) -> None:
        self._outbox, self._question, self._choice = outbox, question, choice
        self._first = True

    def text(self, text: str) -> bool:
        self._outbox.text(self._question.number, self._choice, text, now=self._first)
        self._first = False
        return self._question.given_up

    def piece(self, delta: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None) -> bool:
        number, choice = self._question.number, self._choice
        self._outbox.say(number, choice, "p", number, choice, delta, finish, logprobs, now=self._first)
        self._first = False
        return self._question.given_up

    def working(self) -> bool:
        self._outbox.working()
        return self._question.given_up

    def drew(self, grains: Sequence[int]) -> bool:
        self._outbox.say(self._question.number, self._choice, "d", self._question.number, list(grains))
        return self._question.given_up


class Desk:
    """Gives questions to the engine.

    Args:
        channel: connected to the parent.
        engine: with a model in it.
        seats: how many there are.
    """

    def __init__(self, channel: socket.socket, engine: Seated, seats: int) -> None:
        self._engine = engine
        self._questions: dict[int, Question] = {}
        self.outbox = Outbox(channel)
        self._pool = ThreadPoolExecutor(seats, thread_name_prefix="seat")
        threading.Thread(target=self.outbox.run, daemon=True).start()

    def ask(self, body: bytes) -> None:
        """Take a ``QUESTION``; it is worked on in threads of its own."""
        number, route, count = frames.QUESTION_BODY.unpack_from(body)
        at = frames.QUESTION_BODY.size
        seats = [Seat(*frames.SEAT_BODY.unpack_from(body, at + n * frames.SEAT_BODY.size)) for n in range(count)]
        request = body[at + count * frames.SEAT_BODY.size :]
        question = self._questions[number] = Question(number, count)
        for choice, seat in enumerate(seats):
            self._pool.submit(self._work, question, frames.ROUTES[route], request, choice, seat)

    def cancel(self, body: bytes) -> None:
        """Take a ``CANCEL``. That the question ended is said in any case, and when."""
        question = self._questions.get(frames.CANCEL_BODY.unpack(body)[0])
        if question is not None:
            question.given_up = True

    def draw(self, body: bytes) -> None:
        """Take a ``SOURCES``, which holds for the questions that come after it."""
        said = json.loads(body)
        cast("Drawing", self._engine).draw(said["open"], said["gone"])

    def _work(self, question: Question, route: Any, request: bytes, choice: int, seat: Seat) -> None:
        counted = Counted(0)
        try:
            if not question.given_up:
                normal = read(route, request).normal
                if route == "embeddings":
                    counted = self._embed(question, normal["input"], seat)
                else:
                    say = _Say(self.outbox, question, choice)
                    counted = self._engine.answer(route, normal, choice, seat, say)
        except (EngineError, RequestError) as error:
            question.error = error if isinstance(error, EngineError) else refused("request")
            question.given_up = True  # the other choices too
        except BaseException:  # noqa: BLE001 - whatever an engine raises is a failure of this question
            traceback.print_exc()
            question.error, question.given_up = EngineFailed("the engine failed"), True
        with question.lock:
            question.counted.append(counted)
            question.left -= 1
            if question.left:
                return
        del self._questions[question.number]
        self.outbox.say(question.number, 0, *_ending(question), now=True)

    def _embed(self, question: Question, texts: list[str], seat: Seat) -> Counted:
        tokens = 0
        for start in range(0, len(texts), _TEXTS):
            if question.given_up:
                break
            vectors, some = self._engine.embed(texts[start : start + _TEXTS], seat)
            tokens += some
            size = len(vectors[0])
            each = max(1, frames.MAX_VECTORS // (4 * size))
            for n in range(0, len(vectors), each):
                part = b"".join(bytes(memoryview(v).cast("B")) for v in vectors[n : n + each])  # type: ignore[arg-type]
                count = min(each, len(vectors) - n)
                self.outbox.send(frames.VECTORS, frames.VECTORS_BODY.pack(question.number, size, count), part)
        return Counted(tokens)


def _ending(question: Question) -> list[Any]:
    """How a question ended, and what it took."""
    first = question.counted[0]
    took = [
        max(c.prompt_tokens for c in question.counted),
        sum(c.completion_tokens for c in question.counted),
        first.cached_tokens,
    ]
    error = question.error
    if error is None:
        return ["e", question.number, *took]
    what: list[Any] = []
    if isinstance(error, PromptTooLong):
        what = [error.tokens, error.most]
    elif isinstance(error, EngineRefused):
        what = [error.reason]
    return ["f", question.number, error.code, what, *took]


class Inbox:
    """What the parent says. It is ours; a frame of another type is a fault, and ends the child."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.descriptors: list[int] = []

    def next(self) -> tuple[bytes, bytes]:
        """The next frame. Raises EOFError when the parent is gone."""
        kind, length = frames.header(self._exactly(frames.HEADER.size), frames.TO_SERVING)
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        into = memoryview(data)
        while into:
            if self.descriptors:
                count = self._channel.recv_into(into)
            else:  # the weights come with the first bytes after READY
                piece, found, _, _ = socket.recv_fds(self._channel, len(into), frames.MAX_DESCRIPTORS)
                self.descriptors += found
                count = len(piece)
                into[:count] = piece
            if not count:
                raise EOFError("the parent is gone")
            into = into[count:]
        return bytes(data)


def serve(channel: socket.socket, opens: Open) -> None:
    """Take a model, then questions until the parent is gone.

    Args:
        channel: connected to the parent, ``READY`` said.
        opens: loads a model.

    Raises:
        EOFError, OSError: the parent is gone.
    """
    inbox = Inbox(channel)
    _, body = inbox.next()
    said = json.loads(body)
    place = Path(tempfile.mkdtemp())
    try:
        weights, *said["files"] = (f"/proc/self/fd/{descriptor}" for descriptor in inbox.descriptors)
        engine = opens(said, weights, place / "engine.sock")
    except (ProgramError, MemoryError) as error:
        traceback.print_exc()
        code = error.code if isinstance(error, ModelUnreadable) else OutOfMemory.code
        channel.sendall(frame(frames.FAILED, json.dumps({"code": code}).encode()))
        return
    finally:
        with suppress(OSError):
            place.rmdir()
    channel.sendall(frame(frames.ABOUT, json.dumps(dict(engine.about)).encode()))
    desk = Desk(channel, engine, said["parallel"])
    takes = {frames.QUESTION: desk.ask, frames.CANCEL: desk.cancel, frames.SOURCES: desk.draw}
    sys.setswitchinterval(0.001)
    while True:
        kind, body = inbox.next()
        takes[kind](body)
