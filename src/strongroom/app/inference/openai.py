"""Answers in the form that OpenAI's clients read: errors, events of a stream, whole answers.

A stream's event costs a few microseconds: what is the same in every one is written once a request.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Sequence
from json.encoder import encode_basestring as _said
from json.encoder import encode_basestring_ascii as _escaped
from sys import byteorder
from typing import Any, Final

from strongroom import wire
from strongroom.ehbp import PROBLEM_MEDIA_TYPE, problem
from strongroom.errors import (
    BodyTooLarge,
    EngineBusy,
    EngineFailed,
    FrameTooLarge,
    Internal,
    KeyConfigMismatch,
    LimitReached,
    ModelNotServed,
    NoCredential,
    NoSpace,
    NotFound,
    RequestTooLarge,
    RequestTooSlow,
    RoomClosed,
    RouteNotServed,
    SeenKeysFull,
    ServiceEnding,
    StrongroomError,
    TooLarge,
    TooManyRequests,
    Unauthorised,
    WrongMediaType,
)
from strongroom.inference.events import Usage
from strongroom.lm.engine import Piece, Route, Vectors

_LOG = logging.getLogger("strongroom.internal")  # of requests, and not of the machine

JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"

_STATUS: Final[tuple[tuple[type[StrongroomError], int], ...]] = (
    (NoCredential, 401),
    (Unauthorised, 403),
    (ModelNotServed, 404),
    (RouteNotServed, 404),
    (NotFound, 404),
    (RequestTooSlow, 408),
    (RequestTooLarge, 413),
    (BodyTooLarge, 413),
    (FrameTooLarge, 413),
    (TooLarge, 413),
    (WrongMediaType, 415),
    (KeyConfigMismatch, 422),
    (TooManyRequests, 429),
    (LimitReached, 429),
    (EngineBusy, 429),
    (Internal, 500),
    (EngineFailed, 503),
    (NoSpace, 503),
    (RoomClosed, 503),
    (SeenKeysFull, 503),
    (ServiceEnding, 503),
)
_KINDS: Final = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
RETRY_S: Final = 1


def expected(error: BaseException) -> StrongroomError:
    """What is told of an error: of one that nobody expected, nothing."""
    if isinstance(error, StrongroomError):
        return error
    _LOG.error("internal error: %s", error.__class__.__name__)
    return Internal("the server failed")


def status_of(error: StrongroomError) -> int:
    """The HTTP status that carries an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 400)


def error_json(error: StrongroomError) -> dict[str, Any]:
    """``{"error": …}`` as OpenAI's clients read it; ``code`` is the stable one."""
    status = status_of(error)
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    found = {
        "code": error.code,
        "hint": error.hint,
        "message": error.message,
        "param": getattr(error, "param", None),
        "type": kind,
    }
    return {"error": found}


def error_body(error: StrongroomError) -> tuple[bytes, str]:
    """The body of a refusal, and its media type: EHBP has a form of its own for a wrong key."""
    if isinstance(error, KeyConfigMismatch):
        return problem(), PROBLEM_MEDIA_TYPE
    return _encode(error_json(error)), JSON_TYPE


def retry_after(error: StrongroomError) -> int | None:
    """Seconds for the header ``Retry-After``, where asking again helps."""
    if status_of(error) not in (429, 503):
        return None
    return getattr(error, "retry_after", RETRY_S)


def _encode(value: object) -> bytes:
    return _text(value).encode("utf-8", "replace")


_text = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def _string(text: str) -> bytes:
    try:
        return _said(text).encode()
    except UnicodeEncodeError:  # half a character, which an engine may give
        return _escaped(text).encode()


def error_event(error: StrongroomError) -> bytes:
    """An error in the middle of a stream, after which nothing comes."""
    return b"data: " + _encode(error_json(error)) + b"\n\n"


# --- answers --------------------------------------------------------------------------------------------------------

_PLAIN_DELTA: Final = {"chat": "content", "completions": "text"}


class Answer:
    """One answer to ``chat`` or ``completions``, as events or as a whole.

    Args:
        route: what was asked.
        model: the model's name.
        chat_id: the answer's ``id``.
        created: Unix seconds.
    """

    def __init__(self, route: Route, model: str, chat_id: str, created: int) -> None:
        self.route, self.chat_id = route, chat_id
        self._chat = route == "chat"
        self._model, self._created = model, created
        self._head = self._members("chat.completion.chunk" if self._chat else "text_completion")
        name = _PLAIN_DELTA[route]
        # what stands around a few words of the first choice, which is nearly every event
        if self._chat:
            before, after = '"choices":[{"index":0,"delta":{"content":', '},"logprobs":null,"finish_reason":null}]}\n\n'
        else:
            before, after = '"choices":[{"index":0,"text":', ',"logprobs":null,"finish_reason":null}]}\n\n'
        self._before, self._after = self._head + before.encode(), after.encode()
        self._name = name
        self._begun: set[int] = set()

    def _members(self, kind: str) -> bytes:
        members = {"id": self.chat_id, "object": kind, "created": self._created, "model": self._model}
        return b"data: " + _encode(members)[:-1] + b","

    def event(self, piece: Piece) -> bytes:
        """One piece of it as an event."""
        delta = piece.delta
        if (
            len(delta) == 1
            and piece.finish is None
            and piece.index == 0
            and piece.logprobs is None
            and self._name in delta
            and (0 in self._begun or not self._chat)
        ):
            return b"%b%b%b" % (self._before, _string(delta[self._name]), self._after)
        return self._rare(piece)

    def _rare(self, piece: Piece) -> bytes:
        choice: dict[str, Any] = {"index": piece.index}
        if self._chat:
            role = {} if piece.index in self._begun else {"role": "assistant"}
            self._begun.add(piece.index)
            choice["delta"] = {**role, **piece.delta}
        else:
            choice["text"] = piece.delta.get("text", "")
        choice["logprobs"] = piece.logprobs
        choice["finish_reason"] = piece.finish
        return self._head + b'"choices":[' + _encode(choice) + b"]}\n\n"

    def usage_event(self, usage: Usage, cached: int) -> bytes:
        """The last event where ``stream_options.include_usage`` asks for it."""
        return self._head + b'"choices":[],"usage":' + _encode(_usage(usage, cached)) + b"}\n\n"

    def whole(self, choices: Sequence[Choice], usage: Usage, cached: int) -> bytes:
        """All of it in one object."""
        kind = "chat.completion" if self._chat else "text_completion"
        found = {"id": self.chat_id, "object": kind, "created": self._created, "model": self._model}
        made = [choice.to_json(chat=self._chat) for choice in choices]
        return _encode({**found, "choices": made, "usage": _usage(usage, cached)})


class Choice:
    """One choice of an answer, put together from its pieces."""

    def __init__(self, index: int) -> None:
        self.index, self.finish = index, "stop"
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, Any] | None = None

    def add(self, piece: Piece) -> None:
        """The next piece of it."""
        for name, value in piece.delta.items():
            if name == "tool_calls":
                for part in value:
                    self._call(part)
            elif isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
        if piece.logprobs:
            self._log(piece.logprobs)
        self.finish = piece.finish or self.finish

    def _call(self, part: dict[str, Any]) -> None:
        call = self._calls.setdefault(
            part.get("index", 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = part.get("id") or call["id"]
        for name, value in (part.get("function") or {}).items():
            call["function"][name] = call["function"].get(name, "") + (value or "")

    def _log(self, logprobs: dict[str, Any]) -> None:
        if self._logprobs is None:
            self._logprobs = {name: list(v) if isinstance(v, list) else v for name, v in logprobs.items()}
            return
        for name, value in logprobs.items():
            if isinstance(value, list):
                held = self._logprobs.get(name)
                self._logprobs[name] = [*(held or []), *value]

    def to_json(self, *, chat: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"index": self.index, "logprobs": self._logprobs, "finish_reason": self.finish}
        if not chat:
            return {**found, "text": "".join(self._texts.get("text", []))}
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        message.update((name, "".join(texts)) for name, texts in self._texts.items())
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        elif message["content"] is None:
            message["content"] = ""
        return {**found, "message": message}


def _usage(usage: Usage, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def embeddings(vectors: Vectors, model: str, tokens: int, *, base64: bool) -> bytes:
    """An answer to ``embeddings``. In base64 a vector is 32-bit floats, the lowest byte first, as OpenAI has it."""
    data = [
        {"object": "embedding", "index": n, "embedding": _packed(vector) if base64 else [float(x) for x in vector]}
        for n, vector in enumerate(vectors.vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode({"object": "list", "data": data, "model": model, "usage": usage})


def _packed(vector: Sequence[float]) -> str:
    packed = array("f", vector)
    if byteorder == "big":
        packed.byteswap()
    return wire.b64(packed.tobytes())
