"""What an enclave keeps of a request while it answers it: hashes of the bytes that pass, and what it decided. No byte more.

See ``spec/inference-receipt.md``.
"""

from __future__ import annotations

import hashlib

from strongroom.errors import BadInferenceReceipt

from .events import (
    Event,
    ModelWeights,
    Other,
    PolicyApplied,
    RequestForwarded,
    RequestReceived,
    RequestRefused,
    ResponseRestored,
    ResponseReturned,
    SourceUsed,
    Usage,
    UsageMetered,
)
from .receipt import InferenceReceipt, ReceiptSigner, as_named


class BodyHash:
    """The hash of a body that comes in pieces; clients use it too, over what they send and receive."""

    __slots__ = ("_hash", "_size")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0

    def update(self, piece: bytes) -> None:
        """The next bytes of it, in order."""
        self._hash.update(piece)
        self._size += len(piece)

    @property
    def digest(self) -> str:
        """``sha256:`` digest of all bytes so far."""
        return "sha256:" + self._hash.hexdigest()

    @property
    def size(self) -> int:
        """How many bytes there were."""
        return self._size


class Recorder:
    """Records one request, from its first byte to the receipt.

    The methods are called as things happen: the request's body, then what was forwarded, then the answer. What is called out
    of its turn or twice is a fault of the caller's, and refused, so that no receipt says what did not happen.

    Args:
        signer: the enclave's key for receipts.
        receipt_id: 16 random bytes in hex, with or without something before them; never used twice.
        endpoint: the path that was asked for.
        method: the HTTP method.
    """

    def __init__(self, signer: ReceiptSigner, *, receipt_id: str, endpoint: str, method: str) -> None:
        self._signer = signer
        self._receipt_id, self._endpoint, self._method = receipt_id, endpoint, method
        self._received, self._returned = BodyHash(), BodyHash()
        self._forwarded: BodyHash | None = None
        self._restored: BodyHash | None = None
        self._answering = self._signed = False
        self._asked = False
        self._model: str | None = None
        self._weights: ModelWeights | None = None
        self._policy: PolicyApplied | None = None
        self._usage: UsageMetered | None = None
        self._refused: RequestRefused | None = None
        self._others: list[Other] = []
        self._sources: list[SourceUsed] = []

    def _require(self, turn: bool, what: str) -> None:
        if self._signed or not turn:
            raise BadInferenceReceipt(f"{what} is recorded out of its turn, or twice")

    def received(self, piece: bytes) -> None:
        """The next bytes of the request's body: of an encrypted one the plaintext, once it is authenticated."""
        self._require(self._forwarded is None and not self._answering, "a piece of the request")
        self._received.update(piece)

    def asked_for(self, model: str) -> None:
        """The model that the request names, whether it is served or not."""
        self._require(not self._asked, "the model asked for")
        self._asked, self._model = True, as_named(model)

    def chose(self, weights: ModelWeights) -> None:
        """The model that answers."""
        self._require(self._weights is None and self._forwarded is None, "the weights")
        self._weights = weights

    def forwarded(self, piece: bytes) -> None:
        """The next bytes that the engine is given. The weights must be known by then."""
        self._require(self._weights is not None and not self._answering, "a piece of what is forwarded")
        self._forwarded = self._forwarded or BodyHash()
        self._forwarded.update(piece)

    def also(self, event: Other) -> None:
        """An event of a type that stands in no table here. It stands before the policy's."""
        self._require(True, "an event")
        self._others.append(event)

    def drew(self, used: SourceUsed) -> None:
        """What the answer drew from a source: once of each."""
        self._require(all(used.source != other.source for other in self._sources), "what was drawn from a source")
        self._require(self._forwarded is not None, "what was drawn from a source")
        self._sources.append(used)

    def applied(self, policy: PolicyApplied) -> None:
        """The policy and what its guards decided, once all have run."""
        self._require(self._policy is None, "the policy")
        self._policy = policy

    def metered(self, usage: Usage) -> None:
        """What was used."""
        self._require(self._usage is None and self._forwarded is not None, "the usage")
        self._usage = UsageMetered(usage)

    def refuse(self, code: str, step: str) -> None:
        """That the request is not answered, or not to its end.

        Args:
            code: the stable code of the error that the client gets.
            step: where, in a few lower-case words.
        """
        self._require(self._refused is None, "the refusal")
        self._refused = RequestRefused(code, step)

    def encrypts(self) -> None:
        """That the answer goes out encrypted: before its first byte."""
        self._require(self._restored is None and not self._answering, "the encryption of the answer")
        self._restored = BodyHash()

    def restored(self, piece: bytes) -> None:
        """The next plaintext bytes of an encrypted answer."""
        self._require(self._restored is not None, "a piece of the plaintext")
        assert self._restored is not None
        self._answering = True
        self._restored.update(piece)

    def returned(self, piece: bytes) -> None:
        """The next bytes of the answer as they are sent."""
        self._require(True, "a piece of the answer")
        self._answering = True
        self._returned.update(piece)

    def _events(self) -> tuple[Event, ...]:
        """In the order of ``events.ORDER``."""
        found: list[Event | None] = [
            RequestReceived(self._received.digest),
            self._weights,
            RequestForwarded(self._forwarded.digest) if self._forwarded else None,
            *self._others,
            *self._sources,
            self._policy,
            self._usage,
            self._refused,
            ResponseReturned(self._returned.digest),
            ResponseRestored(self._restored.digest) if self._restored else None,
        ]
        return tuple(event for event in found if event is not None)

    def sign(self, *, served_at: int, chat_id: str | None) -> InferenceReceipt:
        """The receipt, once the last byte of the answer was sent; nothing can be recorded afterwards.

        Args:
            served_at: unix seconds.
            chat_id: the ``id`` in the answer, or ``None`` where it has none.

        Raises:
            BadInferenceReceipt: a request that was answered lacks what was forwarded, the weights, the policy or the usage.
            BadField, NotCanonical, TooLarge: what was recorded fits no receipt.
        """
        whole = None not in (self._weights, self._forwarded, self._policy, self._usage)
        if self._refused is None and not whole:
            raise BadInferenceReceipt("a request that was answered has weights, a policy, a usage, and was forwarded")
        self._require(True, "the signature")
        receipt = self._signer.sign(
            receipt_id=self._receipt_id,
            chat_id=chat_id,
            model=self._model,
            endpoint=self._endpoint,
            method=self._method,
            served_at=served_at,
            event_log=self._events(),
        )
        self._signed = True
        return receipt
