"""One request to a model and its answer, as their client saw them: what the receipt is held against, now or later, offline.

See ``docs/private-inference.md`` and ``spec/inference-receipt.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strongroom import wire
from strongroom.errors import BadField, StrongroomError, WireError
from strongroom.inference.events import MAX_TOKENS, Usage
from strongroom.inference.expected import Agreed, Answered, Asked, Expected
from strongroom.inference.reading import EMBEDDINGS
from strongroom.inference.verification import Verification, examine
from strongroom.wire import JSON, Fields

from .session import MAX_REPLY_BYTES, Reply, Session, Shown, Terms, establish

FORMAT = "strongroom.answer.v1"
MAX_ANSWER_BYTES = 64 << 20  # of a body, as it is held in memory
MAX_KEPT_BYTES = 4 * MAX_ANSWER_BYTES
EVENT_STREAM = "text/event-stream"
UNNAMED = "unnamed"  # where an error has no code: no receipt says this word

_DATA = b"data:"


def model_of(body: bytes) -> str | None:
    """The model that a request names, or ``None``."""
    found = _object(body).get("model")
    return found if isinstance(found, str) else None


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object, as far as it is one: what is said in no such way is not said."""
    try:
        found = wire.loads(data, max_bytes=MAX_ANSWER_BYTES, max_values=len(data))
    except WireError:
        return {}
    return found if isinstance(found, dict) else {}


class Heard:
    """Listens to an answer's plaintext for what a receipt must agree with: its id, its error, the tokens that it states.

    Args:
        content_type: of the plaintext.
        embeds: whether embeddings were asked for, whose ``prompt_tokens`` are embedding tokens.
    """

    def __init__(self, content_type: str | None, *, embeds: bool) -> None:
        self.streams = (content_type or "").split(";")[0].strip().lower() == EVENT_STREAM
        self.chat_id: str | None = None
        self.refused: str | None = None
        self.usage: Usage | None = None
        self._embeds = embeds
        self._kept = bytearray()

    def feed(self, piece: bytes) -> None:
        """The next bytes of it."""
        self._kept += piece
        if not self.streams:
            return
        *lines, rest = bytes(self._kept).split(b"\n")
        self._kept = bytearray(rest)
        for line in lines:
            self._line(line)

    def end(self) -> None:
        """It has no more bytes."""
        last, self._kept = bytes(self._kept), bytearray()
        if self.streams:
            self._line(last)
        else:
            self._object(_object(last))

    def _line(self, line: bytes) -> None:
        if line.startswith(_DATA):
            self._object(_object(line[len(_DATA) :].strip()))

    def _object(self, found: Mapping[str, Any]) -> None:
        if self.chat_id is None and isinstance(found.get("id"), str):
            self.chat_id = found["id"]
        if isinstance(found.get("usage"), dict):
            self.usage = _usage(found["usage"], embeds=self._embeds)
        error = found.get("error")
        if error is not None and self.refused is None:
            code = error.get("code") if isinstance(error, dict) else None
            self.refused = code if isinstance(code, str) else UNNAMED


def _usage(stated: dict[str, Any], *, embeds: bool) -> Usage | None:
    f = Fields(stated, "usage")
    try:
        prompt = f.integer("prompt_tokens", high=MAX_TOKENS)
        completion = f.integer("completion_tokens", high=MAX_TOKENS) if f.has("completion_tokens") else 0
    except BadField:
        return None
    return Usage(embedding=prompt, completion=completion) if embeds else Usage(prompt=prompt, completion=completion)


def held_against(
    session: Session,
    *,
    asked: Asked,
    heard: Heard,
    status: int,
    wire_digest: str,
    plain_digest: str | None,
    receipt_id: str | None,
) -> Expected:
    """What this client knows of its own, for ``examine``."""
    refused = heard.refused if heard.refused is not None or status < 400 else UNNAMED
    answered = Answered(body=wire_digest, restored=plain_digest, chat_id=heard.chat_id, refused=refused, usage=heard.usage)
    agreed: Agreed = session.models.get(asked.model or "", session.agreed)
    return Expected(asked=asked, answered=answered, agreed=agreed, receipt_id=receipt_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client keeps of a request: enough for anybody to examine its receipt again, and so as secret as the prompt.

    Attributes:
        url: of the service.
        nonce: what the client asked with for the report, 32 bytes.
        attested_at: Unix seconds, when it asked.
        report: the attestation report, as it came.
        keys: the key configuration of the well-known address, as it came.
        shown: the contract, the manifests and the guards.
        method, endpoint, request: what was asked: the plaintext.
        sent_at, received_at: Unix seconds.
        status, content_type: of the answer.
        receipt_id: that came sealed with it.
        returned: the answer's bytes as they came, encrypted.
        restored: its plaintext.
        receipt: what the service signed.
    """

    url: str
    nonce: bytes
    attested_at: int
    report: bytes
    keys: bytes
    shown: Shown
    method: str
    endpoint: str
    request: bytes
    sent_at: int
    received_at: int
    status: int
    content_type: str | None
    receipt_id: str | None
    returned: bytes
    restored: bytes
    receipt: bytes

    @property
    def asked(self) -> Asked:
        return Asked(
            method=self.method,
            endpoint=self.endpoint,
            model=model_of(self.request),
            body=wire.digest(self.request),
            sent_at=self.sent_at,
        )

    def session(self, terms: Terms) -> Session:
        """The service as it was established then, by whoever reads it now. Raises StrongroomError: a leaf, with E1 to E8."""
        room = wire.encode(self.shown.to_json())
        replies = (Reply(200, self.report), Reply(200, self.keys), Reply(200, room))
        return establish(terms, nonce=self.nonce, replies=replies, at=self.attested_at)

    def examine(self, session: Session) -> Verification:
        """The checks I1 to I20 of its receipt."""
        heard = Heard(self.content_type, embeds=self.endpoint == EMBEDDINGS)
        heard.feed(self.restored)
        heard.end()
        expected = held_against(
            session,
            asked=self.asked,
            heard=heard,
            status=self.status,
            wire_digest=wire.digest(self.returned),
            plain_digest=wire.digest(self.restored),
            receipt_id=self.receipt_id,
        )
        return examine(self.receipt, appraisal=session.appraisal, expected=expected, at=self.received_at)

    def to_json(self) -> dict[str, JSON]:
        return {
            "attested_at": self.attested_at,
            "content_type": self.content_type,
            "endpoint": self.endpoint,
            "format": FORMAT,
            "keys": wire.b64(self.keys),
            "method": self.method,
            "nonce": self.nonce.hex(),
            "receipt": wire.b64(self.receipt),
            "receipt_id": self.receipt_id,
            "received_at": self.received_at,
            "report": wire.b64(self.report),
            "request": wire.b64(self.request),
            "restored": wire.b64(self.restored),
            "returned": wire.b64(self.returned),
            "sent_at": self.sent_at,
            "shown": self.shown.to_json(),
            "status": self.status,
            "url": self.url,
        }

    @classmethod
    def from_json(cls, value: object) -> Answer:
        """Raises BadField, BadEnvelope."""
        f = Fields(value, "answer")
        f.literal("format", FORMAT)

        def text(name: str) -> str | None:
            found: str | None = f.optional(name, lambda item: Fields({name: item}, "answer").text(name, max_chars=256))
            return found

        found = cls(
            url=f.text("url", max_chars=2048),
            nonce=f.hex("nonce", size=32),
            attested_at=f.integer("attested_at"),
            report=f.base64("report", max_bytes=MAX_REPLY_BYTES),
            keys=f.base64("keys", max_bytes=MAX_REPLY_BYTES),
            shown=Shown.from_json(f.any("shown")),
            method=f.text("method", max_chars=16),
            endpoint=f.text("endpoint", max_chars=256),
            request=f.base64("request", max_bytes=MAX_ANSWER_BYTES),
            sent_at=f.integer("sent_at"),
            received_at=f.integer("received_at"),
            status=f.integer("status", low=200, high=599),
            content_type=text("content_type"),
            receipt_id=text("receipt_id"),
            returned=f.base64("returned", max_bytes=2 * MAX_ANSWER_BYTES),
            restored=f.base64("restored", max_bytes=MAX_ANSWER_BYTES),
            receipt=f.base64("receipt", max_bytes=MAX_REPLY_BYTES),
        )
        f.end()
        return found

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """Raises NotJson, TooLarge, BadField, BadEnvelope."""
        return cls.from_json(wire.loads(data, max_bytes=MAX_KEPT_BYTES))


def is_answer(data: bytes) -> bool:
    """Whether a file says that it is one of these."""
    try:
        found = wire.loads(data, max_bytes=MAX_KEPT_BYTES)
    except StrongroomError:
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT
