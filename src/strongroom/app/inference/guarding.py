"""What guards make of a request and of an answer, and what a receipt says of it.

Guards may take milliseconds, or ask a model: they run in threads that are theirs alone, so that nobody else waits for one.
Each is asked one thing at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from strongroom.errors import GuardRefused, NotSupported, PromptTooLong, RoomClosed
from strongroom.inference.guard import Decision, GuardRun
from strongroom.lm.engine import Piece
from strongroom.lm.request import Request
from strongroom.programs.guards import Guard
from strongroom.programs.guards.stream import Stream

from .rooms import Keeper

T = TypeVar("T")
_WORST: Final = (Decision.ALLOWED, Decision.CHANGED, Decision.REFUSED)
CHARS_PER_TOKEN: Final = 32  # no text has more for each on average, but by tricks; what has is too long for the context


async def _apart(keeper: Keeper, guards: list[Guard], work: Callable[[], T]) -> T:
    """Run something in a thread while nobody else asks these guards: until it has ended, be its asker gone by then.

    Raises:
        RoomClosed: there is nobody any more to run it.
    """
    held: list[asyncio.Lock] = []

    def let_go() -> None:
        for lock in held:
            lock.release()

    try:
        for guard in guards:
            await keeper.guarding[guard].acquire()
            held.append(keeper.guarding[guard])
        running = _begun(keeper, work)
    except BaseException:
        let_go()
        raise

    def ended(done: asyncio.Future[T]) -> None:
        let_go()
        done.exception()  # if nobody is left to hear it, it is not logged: it may hold anything

    running.add_done_callback(ended)
    await asyncio.wait([running])  # which a cancelled asker leaves, and the thread goes on
    return running.result()


def _begun(keeper: Keeper, work: Callable[[], T]) -> asyncio.Future[T]:
    if keeper.closed.is_set():
        raise RoomClosed("the room is closed")
    return asyncio.get_running_loop().run_in_executor(keeper.threads, work)


class Guarding:
    """One request and its answer on their way past the guards.

    Args:
        keeper: the room, whose policy names them.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._input: list[GuardRun] = []
        self._streams: dict[tuple[int, str], Stream] = {}
        self._calls: dict[int, list[dict[str, Any]]] = {}
        self._ended: set[int] = set()

    @property
    def watches(self) -> bool:
        """Whether answers are looked at."""
        return bool(self._keeper.output_guards)

    def runs(self, *, answered: bool = False) -> tuple[GuardRun, ...]:
        """Which guards ran, and what they decided: up to the first that refused.

        Args:
            answered: whether the request was answered: then those of the output have seen all that there was, be it nothing
                (embeddings have no text, and an answer may be empty).
        """
        found = list(self._input)
        if (self._streams or answered) and not any(run.decision is Decision.REFUSED for run in found):
            worst: dict[Guard, Decision] = dict.fromkeys(self._keeper.output_guards, Decision.ALLOWED)
            for stream in self._streams.values():
                for guard, said in stream.decisions:
                    worst[guard] = max(worst[guard], Decision(said), key=_WORST.index)
            named = dict(self._keeper.named_output)
            for guard, decision in worst.items():
                found.append(GuardRun(named[guard], decision))
                if decision is Decision.REFUSED:
                    break
        return tuple(found)

    def require_fits(self, request: Request) -> None:
        """Require that guards are not given to read what no context holds. Raises PromptTooLong."""
        most = self._keeper.parameters.context_tokens
        lengths = [len(text) for text in request.texts()]
        longest = max(lengths, default=0) if request.route == "embeddings" else sum(lengths)
        if self._keeper.input_guards and longest > most * CHARS_PER_TOKEN:
            error = PromptTooLong(f"the prompt has {longest:,} characters, and there is room for {most:,} tokens")
            error.most = most
            raise error

    async def request(self, request: Request) -> Request:
        """What goes on to the engine.

        Raises:
            GuardRefused: a guard of the input refuses it.
            NotSupported: it asks for what would show what a guard of the output takes away.
        """
        if self.watches and (request.normal.get("logprobs") is not None):
            raise NotSupported("logprobs are not given where guards look at answers", param="logprobs")
        texts = request.texts()
        for guard, named in self._keeper.named_input:
            verdict = await _apart(self._keeper, [guard], lambda guard=guard, texts=texts: guard.look(texts))  # type: ignore[misc]
            self._input.append(GuardRun(named, Decision(verdict.decision)))
            if verdict.decision == "refused":
                raise GuardRefused(f"the guard {guard.name} refused the request")
            if verdict.decision == "changed":
                texts = verdict.texts
        return request if texts == request.texts() else request.with_texts(texts)

    async def piece(self, piece: Piece) -> Piece | None:
        """What of a piece of the answer may leave now.

        Raises:
            GuardRefused: a guard of the output refuses the answer.
        """
        return await _apart(self._keeper, self._keeper.output_guards, lambda: self._piece(piece))

    def _piece(self, piece: Piece) -> Piece | None:
        delta: dict[str, Any] = {}
        for name, value in piece.delta.items():
            if name == "tool_calls":  # held whole: half of an argument means nothing
                self._calls.setdefault(piece.index, []).extend(value)
            elif isinstance(value, str):
                delta[name] = self._look(piece.index, name, lambda stream, value=value: stream.add(value))  # type: ignore[misc]
        if piece.finish is not None:
            self._end(piece.index, delta)
        delta = {name: value for name, value in delta.items() if value}
        if not delta and piece.finish is None:
            return None
        return replace(piece, delta=delta)

    def _look(self, index: int, name: str, step: Callable[[Stream], str]) -> str:
        stream = self._streams.get((index, name))
        if stream is None:
            stream = self._streams[index, name] = Stream(self._keeper.output_guards)
        said = step(stream)
        if stream.refused is not None:
            raise GuardRefused(f"the guard {stream.refused} refused the answer")
        return said

    def _end(self, index: int, delta: dict[str, Any]) -> None:
        """The choice is whole: what is left of its texts, and its calls."""
        if index in self._ended:
            return
        self._ended.add(index)
        for known, name in list(self._streams):
            if known == index:
                delta[name] = delta.get(name, "") + self._look(index, name, Stream.end)
        calls = _joined(self._calls.pop(index, []))
        for n, call in enumerate(calls):
            call["id"] = self._whole(index, f"tool_calls[{n}].id", call["id"])
            for name, value in call["function"].items():
                call["function"][name] = self._whole(index, f"tool_calls[{n}].{name}", value)
        if calls:
            delta["tool_calls"] = calls
        if not any(known == index for known, _ in self._streams):  # an answer without a word was looked at too
            self._look(index, "content", Stream.end)

    def _whole(self, index: int, name: str, text: str) -> str:
        """What is left of a text that is whole."""
        said = self._look(index, name, lambda stream: stream.add(text))
        return said + self._look(index, name, Stream.end)


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls put together from their pieces."""
    calls: dict[int, dict[str, Any]] = {}
    for part in parts:
        call = calls.setdefault(
            part.get("index", 0),
            {"index": part.get("index", 0), "id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["id"] = part.get("id") or call["id"]
        for name, value in (part.get("function") or {}).items():
            if name in ("name", "arguments"):  # what nobody looks at does not go out
                call["function"][name] += value or ""
    return [calls[index] for index in sorted(calls)]
