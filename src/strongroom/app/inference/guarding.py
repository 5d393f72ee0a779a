"""What guards make of a request and of an answer, and what a receipt says of it.

Guards may take milliseconds, or ask a model: they run in threads, each one call at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final, TypeVar

from strongroom.errors import GuardRefused, NotSupported
from strongroom.inference.guard import Decision, GuardRun
from strongroom.lm.engine import Piece
from strongroom.lm.request import Request
from strongroom.programs.guards import Guard
from strongroom.programs.guards.stream import Stream

from .rooms import Keeper

T = TypeVar("T")
_WORST: Final = (Decision.ALLOWED, Decision.CHANGED, Decision.REFUSED)


async def _apart(keeper: Keeper, guards: list[Guard], work: Callable[[], T]) -> T:
    """Run something in a thread while nobody else asks these guards."""
    async with AsyncExitStack() as held:
        for guard in guards:
            await held.enter_async_context(keeper.guarding[guard])
        return await asyncio.to_thread(work)


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
            name = f"tool_calls[{n}]"
            said = self._look(index, name, lambda stream, call=call: stream.add(call["function"]["arguments"]))  # type: ignore[misc]
            call["function"]["arguments"] = said + self._look(index, name, Stream.end)
        if calls:
            delta["tool_calls"] = calls
        if not any(known == index for known, _ in self._streams):  # an answer without a word was looked at too
            self._look(index, "content", Stream.end)


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
            call["function"][name] = call["function"].get(name, "") + (value or "")
    return [calls[index] for index in sorted(calls)]
