"""An engine in a child: the half that asks. It gives out the seats, passes questions in and pieces out, and watches.

Everything that the child says is untrusted: what is not the protocol ends the child, what is too much too. A child that
ended, however, fails every question that it had, and is started again with the weights that are still in memory. See
``docs/engines.md`` and ``spec/sandbox.md``.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from strongroom.enclave import sandbox_serving
from strongroom.enclave.sandbox_child import ISOLATED, require
from strongroom.enclave.sandbox_serving import Serving
from strongroom.errors import (
    BadParameters,
    EngineBusy,
    EngineError,
    EngineFailed,
    EngineRefused,
    ModelUnreadable,
    NoSandbox,
    OutOfMemory,
    ProgramNotApproved,
    PromptTooLong,
    StrongroomError,
)
from strongroom.lm.engine import About, Answer, Counted, Piece, Route, Vectors
from strongroom.lm.request import read
from strongroom.lm.seated import REASONS, refused, too_long
from strongroom.programs import frames, serve_llm
from strongroom.programs.serve_llm import Source

from .answers import BrokenAnswer, piece, whole
from .answers import text as checked
from .sources import Draws, Held
from .weights import Weights

START_SECONDS: Final = 600.0
"""How long a child may take until its model is loaded."""

STALL_SECONDS: Final = 300.0
"""How long a child that has questions may say nothing: it says at least when it worked through a part of a prompt."""

MAX_RESTARTS: Final = 5
"""How often in a row a child may end without having answered anything, before it is left alone for a while."""

REST_SECONDS: Final = 60.0
"""How long it is left alone at first; twice as long each time after, up to ``MAX_REST_SECONDS``."""

MAX_REST_SECONDS: Final = 1800.0
MAX_EMBEDDING: Final = 1 << 16
"""Numbers in an embedding."""

_GIVE_UP_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 1.0
_MAX_UNREAD: Final = 32 << 20  # characters of one answer that nobody took yet
_MAX_JOINED: Final = 1 << 16  # characters of a piece that more are put to
_MAX_NUMBER: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may use.

    Attributes:
        memory_bytes: beside the weights: contexts, and what it computes with.
        waiting: questions that may wait for a seat; one more is refused.
        question_seconds: how long one question may take once it has a seat.
        start_seconds: how long the model may take to load.
        stall_seconds: how long a child that has questions may say nothing.
    """

    memory_bytes: int
    waiting: int = 64
    question_seconds: float = 3600.0
    start_seconds: float = START_SECONDS
    stall_seconds: float = STALL_SECONDS


class Question:
    """A question and its answer. As of :class:`strongroom.lm.engine.Answers`."""

    __slots__ = (
        "_asked", "_closing", "_done", "_draws", "_error", "_lost", "_ready", "_said", "_sizes", "_unread", "_vectors",
        "_waiter", "_worker", "body", "counted", "deadline", "number", "route", "scope", "seats", "wanted",
    )  # fmt: skip

    def __init__(self, worker: Worker, route: Route, body: bytes, scope: bytes | None) -> None:
        self._worker = worker
        self.route, self.body, self.scope = route, body, scope
        self.number, self.wanted, self.seats = -1, 1, ()
        self.deadline = 0.0
        self.counted = Counted(0)
        self._draws: Draws | None = None
        self._said: deque[Answer] = deque()
        self._sizes: deque[int] = deque()  # of each of them
        self._vectors: list[Any] = []
        self._unread = 0
        self._error: StrongroomError | None = None
        self._asked, self._done, self._closing = False, False, False
        self._lost = False  # it was not read, and what still comes is thrown away
        self._waiter: asyncio.Future[None] | None = None
        self._ready: asyncio.Future[None] | None = None  # of who waits until the engine let go of it

    seats: tuple[int, ...]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        if not self._asked:
            self._asked = True
            self._worker.put(self)
        while not self._said:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._done or self._closing:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._unread -= self._sizes.popleft()
        return self._said.popleft()

    async def aclose(self) -> None:
        """Give it up, and wait until the engine let go of it."""
        self._closing = True
        self._forget()
        if self._asked and not self._done:
            self._ready = asyncio.get_running_loop().create_future()
            self._worker.give_up(self)
            if not self._done:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._ready), _GIVE_UP_SECONDS)
        self._wake()

    @property
    def draws(self) -> Draws | None:
        """What it drew from sources so far; ``None`` where there are none, or it was never worked on."""
        return self._draws

    # What the worker calls.

    def draws_from(self, draws: Draws) -> None:
        self._draws = draws

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _forget(self) -> None:
        self._said.clear()
        self._sizes.clear()
        self._vectors = []
        self._unread = 0

    def _put(self, answer: Answer, size: int) -> None:
        self._said.append(answer)
        self._sizes.append(size)

    def _takes(self, size: int) -> bool:
        """Whether so much more is taken. Who does not read loses this answer, and nobody another.

        Raises:
            BrokenAnswer: the engine goes on and on with an answer that was given up.
        """
        self._unread += size
        if self._closing or self._lost:
            if self._unread > _MAX_UNREAD:  # it was told to stop long ago
                raise BrokenAnswer
            return False
        if self._unread <= _MAX_UNREAD:
            return True
        self._forget()
        self._lost = True
        self._error = EngineFailed("the answer was not read as it came", hint="Read it faster, or ask for a shorter one.")
        self._wake()
        self._worker.give_up(self)
        return False

    def _count(self) -> None:
        """If it ends here, there was so much at least."""
        self.counted = Counted(0, self.counted.completion_tokens + 1)

    def text(self, index: int, text: str) -> None:
        """More text of a choice: joined to what is there and was not taken yet."""
        self._count()
        if not self._takes(len(text)):
            return
        name = "text" if self.route == "completions" else "content"
        last = self._said[-1] if self._said else None
        if isinstance(last, Piece) and last.index == index and last.finish is None and last.logprobs is None:
            held = last.delta.get(name)
            if held is not None and len(last.delta) == 1 and len(held) < _MAX_JOINED:
                last.delta[name] = held + text
                self._sizes[-1] += len(text)
                return
        self._put(Piece({name: text}, index), len(text))
        self._wake()

    def piece(self, piece: Piece, size: int) -> None:
        if piece.delta:
            self._count()
        if self._takes(size):
            self._put(piece, size)
            self._wake()

    def vectors(self, vectors: list[Any]) -> None:
        if self._takes(4 * sum(map(len, vectors))):
            self._vectors += vectors

    def end(self, counted: Counted, error: StrongroomError | None = None) -> None:
        """It is answered, or never will be."""
        self.counted, self._done = counted, True
        if self._lost:  # it ended for its asker before
            pass
        elif error is None:
            if self.route == "embeddings":
                self._put(Vectors(self._vectors), 0)
            self._put(counted, 0)
        else:
            self._error = error
        if self._closing:
            self._said.clear()
            self._sizes.clear()
            self._error = None
        self._wake()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    @property
    def ended(self) -> bool:
        return self._done


class _Line(asyncio.Protocol):
    """The channel to one child.

    Args:
        said: takes each frame; what it raises ends the line.
        lost: called once, when the line ended.
    """

    def __init__(self, said: Callable[[bytes, bytes], None], lost: Callable[[], None]) -> None:
        self._said, self._lost = said, lost
        self._frames = frames.Frames(frames.FROM_SERVING)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
            while (found := self._frames.next()) is not None:
                self._said(*found)
        except Exception:  # noqa: BLE001 - whatever a child makes us stumble over, it is the child that ends
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Life:
    """One child, from its start to its end."""

    def __init__(self, worker: Worker, child: Serving) -> None:
        loop = asyncio.get_running_loop()
        self.child, self._worker = child, worker
        self.ready: asyncio.Future[None] = loop.create_future()
        self.told: asyncio.Future[About] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.heard = time.monotonic()
        self.line: _Line | None = None

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self.child.said, self._drain)
        line = _Line(self.said, self.lost)
        self.line = line
        await loop.create_connection(lambda: line, sock=self.child.channel)
        line.write(self.child.hello)

    def _drain(self) -> None:
        if not self.child.drain():
            asyncio.get_running_loop().remove_reader(self.child.said)

    def said(self, kind: bytes, body: bytes) -> None:
        self.heard = time.monotonic()
        if kind == frames.ANSWERS and self.told.done():
            self._worker.heard(json.loads(body))
        elif kind == frames.VECTORS and self.told.done():
            self._worker.heard_vectors(body)
        elif kind == frames.READY and not self.ready.done():
            self.ready.set_result(None)
        elif kind == frames.ABOUT and self.ready.done() and not self.told.done():
            self.told.set_result(_about(json.loads(body)))
        elif kind == frames.FAILED and self.ready.done() and not self.told.done():
            starved = json.loads(body) == {"code": OutOfMemory.code}
            what: type[OutOfMemory | ModelUnreadable] = OutOfMemory if starved else ModelUnreadable
            words = "the model takes more memory than agreed" if starved else "the engine cannot load the model"
            self.told.set_exception(what(words, step="load model"))
        else:
            raise BrokenAnswer

    def lost(self) -> None:
        for future in (self.ready, self.told):
            if not future.done():
                future.set_exception(EngineFailed("the engine ended while it was started"))
                future.exception()  # it may be that nobody waits for this one
        if not self.over.done():
            self.over.set_result(None)

    async def end(self) -> None:
        loop = asyncio.get_running_loop()
        if self.child.said >= 0:
            loop.remove_reader(self.child.said)
        if self.line is not None:
            self.line.end()
        await asyncio.to_thread(self.child.close)
        self.lost()


def _about(said: object) -> About:
    """What a child says of its model. Raises BrokenAnswer."""
    if not isinstance(said, dict) or set(said) != {"context_tokens", "embedding_size", "engine", "parallel", "routes"}:
        raise BrokenAnswer
    numbers = [whole(said[name]) for name in ("context_tokens", "parallel", "embedding_size")]
    routes, engine = said["routes"], said["engine"]
    if not isinstance(routes, list) or not set(routes) <= set(frames.ROUTES) or not routes:
        raise BrokenAnswer
    if not isinstance(engine, str) or len(engine) > 128 or not engine.isprintable():
        raise BrokenAnswer
    return About(numbers[0], numbers[1], frozenset(routes), numbers[2], engine)


def _counted(said: list[Any]) -> Counted:
    if len(said) != 3:
        raise BrokenAnswer
    return Counted(*map(whole, said))


def _failure(code: object, what: object) -> EngineError:
    """The error that a child names."""
    if not isinstance(what, list):
        raise BrokenAnswer
    if code == PromptTooLong.code and len(what) == 2:
        return too_long(whole(what[0]), whole(what[1]))
    if code == EngineRefused.code and len(what) == 1 and what[0] in REASONS:
        return refused(what[0])
    if code == EngineFailed.code and not what:
        return EngineFailed("the engine failed at this question")
    raise BrokenAnswer


class Worker:
    """An engine in a child. :func:`start` makes it; see :class:`strongroom.lm.engine.Engine`.

    Args:
        spawn: makes a child.
        model: what it is told of its model.
        weights, limits: as of :func:`start`.
        agreed: the longest context, tokens, and how many questions are worked on at once.
        held: the sources that the model draws from; they must stay until the engine is closed.

    Attributes:
        kind: of the sandbox.
        program_digest: of the program that the child runs.
        restarts: how often a child was started again.
    """

    def __init__(
        self,
        spawn: Callable[[], Serving],
        model: Mapping[str, Any],
        weights: Weights,
        limits: Limits,
        agreed: tuple[int, int],
        *,
        held: Held | None = None,
    ) -> None:
        self._spawn, self._model, self._weights, self._limits = spawn, model, weights, limits
        self._held, self._rows = held, tuple[Source, ...]()
        self._agreed = agreed
        self._about: About | None = None
        self._life: _Life | None = None
        self._open: dict[int, Question] = {}
        self._waiting: deque[Question] = deque()
        self._free: list[int] = []
        self._scopes: dict[int, bytes | None] = {}  # whose question a free seat worked on last
        self._number = 0
        self._closed = False
        self._failures = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.kind, self.program_digest, self.restarts = "", "", 0

    # --- as an engine

    @property
    def about(self) -> About:
        if self._about is None:
            raise ValueError("the engine was not started")
        return self._about

    @property
    def alive(self) -> bool:
        """Whether a child with a model in it is there now."""
        return self._life is not None and not self._closed

    @property
    def busy(self) -> tuple[int, int]:
        """How many questions are worked on, and how many wait."""
        return len(self._open), len(self._waiting)

    def ask(self, route: Route, body: bytes, *, scope: bytes | None = None) -> Question:
        """As of :class:`strongroom.lm.engine.Engine`."""
        return Question(self, route, body, scope)

    async def close(self) -> None:
        """End the child. Every question that is open or waits fails."""
        if self._closed:
            return
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end_life()
        self._fail_waiting("the engine was closed")

    def draw(self, names: Collection[str], gone: Collection[str] = ()) -> None:
        """Draw from these sources from the next question on, and from no other; let go of those that are gone, for good.

        A question that is worked on ends with those that it began with.
        """
        if self._held is None:
            return
        lost = self._held.turn(names, gone)
        for question in self._open.values():  # the child may not have begun it
            if question.draws is not None:
                question.draws.open |= self._held.open
        if self.alive:
            assert self._life is not None
            assert self._life.line is not None
            self._life.line.write(self._held.frame(lost))

    # --- questions

    def put(self, question: Question) -> None:
        """Take a question in. Raises EngineBusy, EngineFailed, EngineRefused, PromptTooLong."""
        if self._closed or (self._failures > MAX_RESTARTS and not self.alive):
            raise self._refuse(question, EngineFailed("the engine does not run", hint="Ask again later."))
        if question.route not in self.about.routes:
            raise self._refuse(question, refused("route"))
        if len(question.body) > frames.MAX_QUESTION - 1024:
            raise self._refuse(question, too_long(0, self.about.context_tokens))
        question.wanted = 1 if question.route == "embeddings" else _choices(question.route, question.body)
        if question.wanted > self.about.parallel:
            raise self._refuse(question, refused("seats"))
        if len(self._waiting) >= self._limits.waiting:
            raise self._refuse(question, EngineBusy("too many questions wait"))
        self._waiting.append(question)
        self._seat()

    @staticmethod
    def _refuse(question: Question, error: StrongroomError) -> StrongroomError:
        question.end(Counted(0))
        question._forget()  # noqa: SLF001 - of this module
        return error

    def give_up(self, question: Question) -> None:
        if question.number < 0:
            with suppress(ValueError):
                self._waiting.remove(question)
            question.end(Counted(0))
        elif question.number in self._open and self._life is not None and self._life.line is not None:
            self._life.line.write(frames.frame(frames.CANCEL, frames.CANCEL_BODY.pack(question.number)))

    def _seat(self) -> None:
        """Give seats to those who waited longest."""
        life = self._life
        while self._waiting and life is not None and life.line is not None and len(self._free) >= self._waiting[0].wanted:
            question = self._waiting.popleft()
            if not self._open:  # silence counts from here: nobody asked anything before
                life.heard = time.monotonic()
            self._number = self._number % _MAX_NUMBER + 1
            question.number = self._number
            question.deadline = time.monotonic() + self._limits.question_seconds
            seats = [self._take_seat(question.scope) for _ in range(question.wanted)]
            question.seats = tuple(number for number, _ in seats)
            self._open[question.number] = question
            if self._held is not None:
                question.draws_from(Draws(self._rows, self._held.open))
            route = frames.ROUTES.index(question.route)
            head = frames.QUESTION_BODY.pack(question.number, route, len(seats))
            places = b"".join(frames.SEAT_BODY.pack(*seat) for seat in seats)
            life.line.write(frames.frame(frames.QUESTION, head, places, question.body))

    def _take_seat(self, scope: bytes | None) -> tuple[int, bool]:
        """A free seat, and whether it is as this scope left it; else the one that was free for longest."""
        if scope is not None:
            for n in range(len(self._free) - 1, -1, -1):
                if self._scopes.get(self._free[n]) == scope:
                    return self._free.pop(n), True
        return self._free.pop(0), False

    def _leave(self, question: Question) -> None:
        del self._open[question.number]
        for seat in question.seats:
            if question.route != "embeddings":  # texts are worked out elsewhere
                self._scopes[seat] = question.scope
            self._free.append(seat)
        self._seat()

    # --- what the child says

    def heard(self, said: object) -> None:
        """Take a frame of answers. Raises BrokenAnswer, and anything else that untrusted JSON can bring about."""
        if not isinstance(said, list):
            raise BrokenAnswer
        for entry in said:
            kind = entry[0]
            if kind == "t":
                _, number, index, text = entry
                question = self._open[number]
                self._wrote(question)
                question.text(self._choice(question, index), checked(text))
            elif kind == "p":
                question = self._open[entry[1]]
                choice = self._choice(question, entry[2])
                if any(entry[3].values()):
                    self._wrote(question)
                question.piece(piece(choice, *entry[3:]), len(str(entry)))
            elif kind == "d":
                self._drew(self._open[entry[1]], entry[2])
            elif kind == "e":
                self._answered(self._open[entry[1]], _counted(entry[2:]), None)
            elif kind == "f":
                self._answered(self._open[entry[1]], _counted(entry[4:]), _failure(entry[2], entry[3]))
            elif kind != "w":
                raise BrokenAnswer

    def _drew(self, question: Question, row: object) -> None:
        if question.draws is None:
            raise BrokenAnswer
        question.draws.add(row, self._model["max_tokens"])

    @staticmethod
    def _wrote(question: Question) -> None:
        """Of a model that draws, no word is passed on before it is known what was drawn."""
        if question.draws is not None:
            question.draws.require_begun()

    @staticmethod
    def _choice(question: Question, index: object) -> int:
        if type(index) is not int or not 0 <= index < question.wanted:
            raise BrokenAnswer
        return index

    def _answered(self, question: Question, counted: Counted, error: EngineError | None) -> None:
        if error is None and question.draws is not None:
            question.draws.require_whole(counted.completion_tokens)
        self._failures = 0
        if error is None and question.deadline <= 0:
            error = EngineFailed("the question took longer than a question may", hint="Ask for a shorter answer.")
        question.end(counted, error)
        self._leave(question)

    def heard_vectors(self, body: bytes) -> None:
        """Take vectors."""
        number, size, count = frames.VECTORS_BODY.unpack_from(body)
        question = self._open[number]
        rest = memoryview(body)[frames.VECTORS_BODY.size :]
        if question.route != "embeddings" or size != self.about.embedding_size or len(rest) != 4 * size * count:
            raise BrokenAnswer
        found = []
        for n in range(count):
            numbers = array("f")
            numbers.frombytes(rest[4 * size * n : 4 * size * (n + 1)])
            found.append(numbers)
        question.vectors(found)

    # --- the child's life

    async def _spawned(self) -> Serving:
        """A new child. Who is called off while it is made waits for it, and ends it."""
        making = asyncio.create_task(asyncio.to_thread(self._spawn))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            with suppress(StrongroomError, OSError):
                await asyncio.to_thread((await making).close)
            raise

    async def _born(self) -> None:
        """Start a child and wait until its model is loaded.

        Raises:
            NoSandbox, MissingExtra, ModelUnreadable, OutOfMemory, EngineFailed.
        """
        life = _Life(self, await self._spawned())
        try:
            self.kind, self.program_digest = life.child.kind, life.child.program_digest
            async with asyncio.timeout(self._limits.start_seconds):
                await life.begin()
                await life.ready
                self._give(life)
                about = await life.told
                self._same(about)
        except TimeoutError:
            await life.end()
            raise EngineFailed("the engine took too long to start") from None
        except BaseException:
            await life.end()
            raise
        self._about, self._life = about, life
        if self._held is not None and life.line is not None:
            life.line.write(self._held.frame({source.name for source in self._rows} - set(self._held.sources)))
        self._free, self._scopes = list(range(about.parallel)), {}
        self._seat()

    def _give(self, life: _Life) -> None:
        """Hand over the weights, and the sources that are still there."""
        weights, held = self._weights, self._held
        told = {**self._model, "sources": [] if held is None else held.told()}
        size, also = (0, []) if held is None else (held.size, held.descriptors)
        self._rows = () if held is None else tuple(held.sources.values())
        model = json.dumps(told).encode()
        life.child.give(model, weights.descriptor, weights.size + size, self._limits.memory_bytes, also)

    def _same(self, about: About) -> None:
        context, parallel = self._agreed
        if about.parallel != parallel or about.context_tokens > context or about.embedding_size > MAX_EMBEDDING:
            raise EngineFailed("the engine says something else of its model than was agreed")
        if self._about is not None and about != self._about:
            raise EngineFailed("the engine says something else of its model than before")

    async def start(self) -> None:
        """The first child, and those who look after it. Raises as ``_born``."""
        await self._born()
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._look())]

    async def _keep(self) -> None:
        """Whenever a child ends, fail what it had and start another: soon, and after many failures later and later."""
        while True:
            if self._life is not None:
                await self._life.over
                self._failures += 1
            await self._end_life()
            if self._failures > MAX_RESTARTS:
                self._fail_waiting("the engine cannot be started again")
            await asyncio.sleep(_rest(self._failures))
            self.restarts += 1
            try:
                await self._born()
            except (StrongroomError, OSError):
                self._failures += 1

    async def _end_life(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            await life.end()
        broken, self._open = self._open, {}
        for question in broken.values():
            question.end(question.counted, EngineFailed("the engine ended while it answered"))

    def _fail_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for question in waiting:
            question.end(Counted(0), EngineFailed(why))

    async def _look(self) -> None:
        """End a child that takes too much memory, or says nothing for too long; give up what takes too long."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            life = self._life
            if life is None or life.line is None:
                continue
            now = time.monotonic()
            stalls = bool(self._open) and now - life.heard > self._limits.stall_seconds
            if stalls or not life.child.within_memory():
                life.line.end()
                continue
            for question in self._open.values():
                if 0 < question.deadline <= now:
                    question.deadline = 0.0
                    self.give_up(question)
                    life.heard = max(life.heard, now - self._limits.stall_seconds / 2)


def _rest(failures: int) -> float:
    """How long nobody starts a child after so many failures in a row, seconds."""
    if failures <= 1:
        return 0.0
    late = failures - MAX_RESTARTS - 1
    return 0.25 * 2.0**failures if late < 0 else min(REST_SECONDS * 2.0 ** min(late, 10), MAX_REST_SECONDS)


def _choices(route: Route, body: bytes) -> int:
    """How many answers a request asks for. ``lm.request`` has read it before, in whatever spelling."""
    if b'"n"' not in body and b"\\u" not in body:  # which may spell the same name
        return 1
    return read(route, body).choices


def start(
    parameters: serve_llm.Parameters,
    model: serve_llm.Model,
    weights: Weights,
    limits: Limits,
    *,
    sandbox: str = ISOLATED,
    walls: Collection[str] = (),
    embeds: bool = False,
    program: str | None = None,
    held: Held | None = None,
) -> Coroutine[Any, Any, Worker]:
    """Start an engine.

    Args:
        parameters: of the contract, as ``programs.serve_llm.read`` gives them.
        model: one of its models.
        weights: opened; they must stay until the engine is closed.
        limits: what it may use.
        sandbox: as of ``enclave.sandbox.prepare``.
        walls: without which no child may start.
        embeds: whether the contract's policy lets it be asked for embeddings.
        program: the digest of ``serve-llm`` that the contract names; ``None`` where nothing was agreed.
        held: the sources that the model draws from; as the weights, they must stay until the engine is closed.

    Returns:
        the engine, its model loaded; an :class:`strongroom.lm.engine.Engine`.

    Raises:
        BadParameters: an engine that is no child, but a sidecar.
        NoSandbox, MissingExtra: it cannot be had here.
        ProgramNotApproved: the program that is installed here is another.
        ModelUnreadable: the weights are no model that the engine knows.
        OutOfMemory, EngineFailed: it could not be started.
    """
    if model.engine not in serve_llm.ENGINES:
        raise BadParameters(f"engine {model.engine!r} is attached, and not started")
    told = {
        "context_tokens": parameters.context_tokens,
        "embeds": embeds,
        "engine": model.engine,
        "max_tokens": parameters.max_tokens,
        "parallel": parameters.parallel,
        "threads": parameters.threads,
    }

    def spawn() -> Serving:
        child = sandbox_serving.prepare(
            serve_llm.NAME,
            sandbox,
            parts=(model.engine,),
            libraries=serve_llm.ENGINES[model.engine],
            tasks=2 * parameters.parallel + 2 * parameters.threads + 64,
        )
        try:
            require(walls, child.walls)
        except NoSandbox:
            child.close()
            raise
        if program is not None and child.program_digest != program:
            child.close()
            raise ProgramNotApproved("the program that would serve is not the one that the contract names")
        return child

    async def started() -> Worker:
        agreed = (parameters.context_tokens, parameters.parallel)
        worker = Worker(spawn, told, weights, limits, agreed, held=held)
        await worker.start()
        return worker

    return started()


__all__ = ["Limits", "Question", "Worker", "start"]
