"""The protocol between whoever serves a language model and what runs it.

An engine is asked with the exact bytes that a receipt hashes as ``request.forwarded``: a request of the OpenAI kind, already
checked and normalised (``lm.request``). It answers in pieces as they come. Concurrent questions are batched by the engine.

See ``docs/engines.md``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias

Route: TypeAlias = Literal["chat", "completions", "embeddings"]


@dataclass(frozen=True, slots=True)
class About:
    """What an engine says of its model.

    Attributes:
        context_tokens: the longest prompt and answer together, tokens, of one question.
        parallel: how many questions are worked on at once; more wait.
        routes: what it can be asked.
        embedding_size: numbers in an embedding; 0 where it gives none.
        engine: its name and version, such as ``llama.cpp 11549``.
    """

    context_tokens: int
    parallel: int
    routes: frozenset[Route]
    embedding_size: int = 0
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer to ``chat`` or ``completions``.

    Attributes:
        delta: of a chat, the members of the OpenAI chunk's ``delta`` (``content``, ``reasoning_content``, ``tool_calls``;
            never ``role``); of a completion, ``{"text": …}``.
        index: which choice it belongs to.
        finish: ``stop``, ``length``, ``tool_calls`` or ``content_filter`` on the choice's last piece, else ``None``.
        logprobs: as OpenAI writes it in a chunk, where it was asked for.
    """

    delta: dict[str, Any]
    index: int = 0
    finish: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What an answer took: the last thing that an engine says of a question that it answered whole.

    Attributes:
        prompt_tokens: tokens of the prompt, or of all texts embedded.
        completion_tokens: tokens generated, of all choices.
        cached_tokens: of the prompt's, those that were worked out before.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Vectors:
    """An answer to ``embeddings``: one vector for each text, in their order, before :class:`Counted`."""

    vectors: Sequence[Sequence[float]] = field(default_factory=tuple)


Answer: TypeAlias = Piece | Vectors | Counted


class Answers(Protocol):
    """An answer as it comes: an asynchronous iterator, which can be closed."""

    def __aiter__(self) -> Self: ...

    def __anext__(self) -> Awaitable[Answer]: ...

    @property
    def counted(self) -> Counted:
        """What the question took so far; exact once the iterator ended or :meth:`aclose` returned, of a question that was
        given up too."""

    def aclose(self) -> Awaitable[None]:
        """Give the question up, if it is not answered yet, and wait until the engine let go of it. Can be called again."""


class Engine(Protocol):
    """Runs one model. Used from one event loop."""

    @property
    def about(self) -> About: ...

    def ask(self, route: Route, body: bytes, *, scope: bytes | None = None) -> Answers:
        """Put a question; it is worked on from the first ``anext``, and given up when the iterator is closed
        (``contextlib.aclosing``).

        Args:
            route: what is asked for.
            body: a request that ``lm.request`` reads: what came, unless a guard changed it.
            scope: whose question it is. What was worked out for an earlier prompt is used again for one of the same scope
                alone: how fast an answer begins tells who asked something like it before. ``None`` shares with nobody.

        Raises (from ``anext``):
            EngineBusy: too many questions wait.
            PromptTooLong: it does not fit the context.
            EngineRefused: it cannot be asked this (a template or a grammar that the model has not).
            EngineFailed: it crashed, or answers nonsense; nothing more is known.
        """

    def close(self) -> Awaitable[None]:
        """End it, and wait until it is gone. Can be called again."""
