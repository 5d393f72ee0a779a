"""What an engine says, read with mistrust: whatever of it goes on into an answer has the shape that an answer has."""

from __future__ import annotations

from typing import Any, Final

from strongroom.lm.engine import Piece, Route

_MAX_COUNT: Final = 2**53
_FINISHES: Final = frozenset({"content_filter", "length", "stop", "tool_calls"})
_DELTA: Final = frozenset({"content", "reasoning_content", "text", "tool_calls"})
_MAX_DEPTH: Final = 8


class BrokenAnswer(Exception):
    """An engine said something that no answer can hold. It never leaves ``app.inference``."""


def whole(value: object) -> int:
    """A count. Raises BrokenAnswer."""
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise BrokenAnswer
    return value


def text(value: object) -> str:
    """Text that UTF-8 can say. Raises BrokenAnswer, UnicodeEncodeError."""
    if not isinstance(value, str):
        raise BrokenAnswer
    if not value.isascii():
        value.encode()
    return value


def plain(value: object, depth: int = _MAX_DEPTH) -> None:
    """Require JSON with nothing in it that UTF-8 cannot say, nor deep. Raises BrokenAnswer, UnicodeEncodeError."""
    if isinstance(value, str):
        text(value)
    elif isinstance(value, dict | list):
        if not depth:
            raise BrokenAnswer
        for item in value.values() if isinstance(value, dict) else value:
            plain(item, depth - 1)
        for name in value if isinstance(value, dict) else ():
            text(name)
    elif isinstance(value, float) and not abs(value) < float("inf"):
        raise BrokenAnswer


def piece(index: int, delta: object, finish: object, logprobs: object) -> Piece:
    """A piece of an answer. Raises BrokenAnswer, UnicodeEncodeError."""
    if not isinstance(delta, dict) or not set(delta) <= _DELTA or (finish is not None and finish not in _FINISHES):
        raise BrokenAnswer
    for name, value in delta.items():
        if not isinstance(value, list if name == "tool_calls" else str):
            raise BrokenAnswer
    if logprobs is not None and not isinstance(logprobs, dict):
        raise BrokenAnswer
    plain(delta)
    plain(logprobs)
    assert finish is None or isinstance(finish, str)
    return Piece(delta, index, finish, logprobs)


def piece_of(route: Route, choice: dict[str, Any], choices: int) -> Piece | None:
    """A choice of a chunk that an OpenAI server sent; ``None`` where it says nothing.

    Args:
        route: ``chat`` or ``completions``.
        choice: decoded JSON.
        choices: how many were asked for.

    Raises:
        BrokenAnswer, KeyError, TypeError, UnicodeEncodeError.
    """
    index = whole(choice["index"])
    if index >= choices:
        raise BrokenAnswer
    if route == "completions":
        delta = {"text": text(choice["text"])}
    else:
        if not isinstance(choice["delta"], dict):
            raise BrokenAnswer
        delta = {name: value for name, value in choice["delta"].items() if name in _DELTA and value not in (None, [])}
        if delta.get("content") == "":
            del delta["content"]
    finish, logprobs = choice.get("finish_reason"), choice.get("logprobs")
    if finish is None and logprobs is None and not any(delta.values()):
        return None
    return piece(index, delta, finish, logprobs)
