"""What an engine is inside its child: synchronous, asked by one thread for each question that has a seat.

A *seat* is a place in the batch. Whoever asks gives out the seats, each to one question at a time: so nothing waits inside
the engine, and a question that is given up frees its place at once. What was worked out on a seat stays there until the next
question; only one of the same scope may use it, because how fast a prompt is worked out tells who knows its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from strongroom.errors import EngineRefused, PromptTooLong

from .engine import Counted, Route

REASONS: Final = ("request", "template", "grammar", "route", "seats")
"""Why an engine refused, in a closed list: nothing of a prompt can stand in it."""

WORDS: Final[Mapping[str, str]] = {
    "request": "the engine cannot use this request",
    "template": "the model's chat template cannot say this conversation",
    "grammar": "the schema or grammar that the answer must follow cannot be used",
    "route": "the model does not answer this kind of request",
    "seats": "more answers are asked for at once than the engine works on",
}


def refused(reason: str) -> EngineRefused:
    """The error for one of ``REASONS``."""
    error = EngineRefused(WORDS[reason])
    error.reason = reason
    return error


def too_long(tokens: int, most: int) -> PromptTooLong:
    """The error for a prompt of so many tokens, where there is room for ``most``; 0 where that is not known."""
    known = f"{tokens:,} tokens" if tokens else "more tokens"
    error = PromptTooLong(f"the prompt has {known}, and there is room for {most:,}")
    error.tokens, error.most = tokens, most
    return error


@dataclass(frozen=True, slots=True)
class Seat:
    """A place in the batch.

    Attributes:
        number: from 0.
        kept: whether what was worked out there before may be used: it was the same scope's.
    """

    number: int
    kept: bool


class Say(Protocol):
    """Takes what an engine says of one choice. Every method answers whether the question was given up meanwhile."""

    def text(self, text: str) -> bool:
        """More of the answer's text."""

    def piece(self, delta: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None) -> bool:
        """Anything else, as of :class:`strongroom.lm.engine.Piece`."""

    def working(self) -> bool:
        """Nothing to say yet."""


class Metering(Say, Protocol):
    """Takes what an engine says that draws from sources."""

    def drew(self, grains: Sequence[int]) -> bool:
        """What the next token drew, in grains: of each source, in the order in which the engine was told of them."""


class Drawing(Protocol):
    """An engine that draws from sources, which their owners can take away while it answers."""

    def draw(self, names: Collection[str], gone: Collection[str]) -> None:
        """Draw from these from the next question on, and from no other; those that are gone never come back."""


class Seated(Protocol):
    """An engine with a model in it."""

    about: Mapping[str, Any]
    """As of :class:`strongroom.lm.engine.About`, in JSON."""

    def answer(self, route: Route, normal: Mapping[str, Any], choice: int, seat: Seat, say: Say) -> Counted:
        """Answer one choice of a question.

        Args:
            route: ``chat`` or ``completions``.
            normal: the request, as ``lm.request`` reads it.
            choice: which of its ``n`` choices.
            seat: where.
            say: takes the answer. Where it says that the question was given up, this ends soon.

        Raises:
            PromptTooLong, EngineRefused, EngineFailed.
        """

    def embed(self, texts: Sequence[str], seat: Seat) -> tuple[Sequence[Sequence[float]], int]:
        """The vectors of texts, in their order, and how many tokens they have together.

        Raises:
            PromptTooLong, EngineRefused, EngineFailed.
        """
