"""The receipt of one request to a model: ACI's (``aci/1``, section 7), signed by the enclave's key for that.

Parsing says that a receipt is well formed, not that it is anybody's: that is for ``verification`` to find out.

See ``spec/inference-receipt.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TypeVar

from strongroom import wire
from strongroom.attest.keyset import API_VERSION, INFERENCE_RECEIPT_ALGO, Keyset
from strongroom.errors import BadField, BadInferenceReceipt, BadKeyset, TooLarge
from strongroom.party import SigningKey
from strongroom.wire import JSON, Fields

from .events import MAX_EVENTS, MAX_MODEL, Event, RequestRefused, event_from_json, label

MAX_RECEIPT_BYTES = 256 << 10
SIGNATURE_BYTES = 64

_SIGNATURE_MEMBER = len(',"signature":""') + 2 * SIGNATURE_BYTES  # what it adds to the signed bytes
_PATH = re.compile(r"/[!-~]{0,255}\Z")
_METHOD = re.compile(r"[A-Z]{1,16}\Z")

E = TypeVar("E", bound=Event)


def as_named(model: str | None) -> str | None:
    """What a receipt calls the model that a request names: ``None`` too where the name is too long, or no text.

    Whoever sends requests chooses the name, and must not be able to keep a refusal from getting its receipt.
    """
    if model is None or len(model) > MAX_MODEL or any("\ud800" <= c <= "\udfff" for c in model):
        return None
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceReceipt:
    """What an enclave signed about one request. **Untrusted**, until :func:`~.verification.examine` has looked at it.

    Args:
        receipt_id: 1 to 128 printable ASCII characters; of ours 16 random bytes in hex are a part.
        chat_id: the ``id`` in the answer, or ``None`` where it has none.
        model: what the request asked for, as :func:`as_named` has it; at most 256 characters.
        workload_keyset_digest: of the keyset that signs.
        endpoint: the path that was asked for, at most 256 characters.
        method: the HTTP method.
        served_at: unix seconds by the enclave's clock, which is its host's.
        event_log: at most 64, in the order in which they stand.
        key_id: the signing key's, in that keyset.
        signature: Ed25519 over :attr:`payload`, 64 bytes.

    Raises:
        BadField, BadInferenceReceipt: outside these bounds.
    """

    receipt_id: str
    chat_id: str | None
    model: str | None
    workload_keyset_digest: str
    endpoint: str
    method: str
    served_at: int
    event_log: tuple[Event, ...]
    key_id: str
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.signature) != SIGNATURE_BYTES or not 1 <= len(self.event_log) <= MAX_EVENTS:
            raise BadInferenceReceipt(f"the signature is not {SIGNATURE_BYTES} bytes, or the events not 1 to {MAX_EVENTS}")
        if not _PATH.match(self.endpoint) or not _METHOD.match(self.method):
            raise BadField("receipt.endpoint is not a path, or receipt.method is not an HTTP method")
        members = {"chat_id": self.chat_id, "key_id": self.key_id, "model": self.model, "receipt_id": self.receipt_id}
        f = Fields({**members, "keyset": self.workload_keyset_digest, "served_at": self.served_at}, "receipt")
        label(f, "receipt_id")
        label(f, "key_id")
        f.digest("keyset")
        f.integer("served_at")
        if self.chat_id is not None:
            label(f, "chat_id")
        if self.model is not None:
            f.text("model", max_chars=MAX_MODEL)

    def _unsigned(self) -> dict[str, JSON]:
        return {
            "api_version": API_VERSION,
            "chat_id": self.chat_id,
            "endpoint": self.endpoint,
            "event_log": [event.to_json() for event in self.event_log],
            "key_id": self.key_id,
            "method": self.method,
            "model": self.model,
            "receipt_id": self.receipt_id,
            "served_at": self.served_at,
            "workload_keyset_digest": self.workload_keyset_digest,
        }

    @property
    def payload(self) -> bytes:
        """The bytes that are signed: the canonical form without ``signature`` (ACI section 7.2)."""
        return wire.encode(self._unsigned())

    @property
    def digest(self) -> str:
        """The payload's digest: the receipt's identity, and what the log holds of it."""
        return wire.digest(self.payload)

    def every(self, kind: type[E]) -> tuple[E, ...]:
        """The events of this type, in their order."""
        return tuple(event for event in self.event_log if isinstance(event, kind))

    def one(self, kind: type[E]) -> E | None:
        """The first event of this type, or ``None``. That there is no second one is a check of ``verification`` (I6)."""
        return next(iter(self.every(kind)), None)

    @property
    def refused(self) -> RequestRefused | None:
        """Why the request was not answered; ``None`` where it was."""
        return self.one(RequestRefused)

    def check_signature(self, keyset: Keyset) -> None:
        """Require that the key which the receipt names signed it.

        Args:
            keyset: the attested one; that it is, is for the caller to know.

        Raises:
            BadKeyset: no key of this id for ACI receipts in it, or an unusable one.
            BadSignature: not by that key.
        """
        keyset.inference_receipt_key(self.key_id).verify_bytes(self.signature, self.payload)

    def to_json(self) -> dict[str, JSON]:
        return {**self._unsigned(), "signature": self.signature.hex()}

    @classmethod
    def from_json(cls, value: object) -> InferenceReceipt:
        """Read a decoded receipt. ACI lets a service send any spelling of it; what is signed is the canonical one.

        Raises:
            BadField, NotCanonical, BadInferenceReceipt.
        """
        f = Fields(value, "receipt")
        f.literal("api_version", API_VERSION)
        found = cls(
            receipt_id=f.text("receipt_id", max_chars=128),
            chat_id=f.optional("chat_id", lambda item: Fields({"chat_id": item}, "receipt").text("chat_id", max_chars=128)),
            model=f.optional("model", lambda item: Fields({"model": item}, "receipt").text("model", max_chars=MAX_MODEL)),
            workload_keyset_digest=f.digest("workload_keyset_digest"),
            endpoint=f.text("endpoint", max_chars=256),
            method=f.text("method", max_chars=16),
            served_at=f.integer("served_at"),
            event_log=f.items("event_log", event_from_json, low=1, high=MAX_EVENTS),
            key_id=f.text("key_id", max_chars=128),
            signature=f.hex("signature", size=SIGNATURE_BYTES),
        )
        f.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> InferenceReceipt:
        """Read the canonical spelling, as this project writes it: ``parse(data).encode() == data``.

        Raises:
            WireError and its leaves, BadInferenceReceipt.
        """
        return cls.from_json(wire.decode(data, max_bytes=MAX_RECEIPT_BYTES))


@dataclass(frozen=True, slots=True, repr=False)
class ReceiptSigner:
    """An enclave's key for receipts, and the keyset that names it.

    Args:
        keyset: the enclave's own.
        key: the private half of its ``ed25519`` entry, which signs receipts and nothing else.

    Attributes:
        key_id: the key's id in the keyset.
        keyset_digest: what receipts name the keyset by. Both are worked out once, not for every receipt.

    Raises:
        BadKeyset: no key for ACI receipts in the keyset is this one.
    """

    keyset: Keyset
    key: SigningKey
    key_id: str = field(init=False)
    keyset_digest: str = field(init=False)

    def __post_init__(self) -> None:
        public = self.key.public.raw
        ours = (e for e in self.keyset.receipt_signing_keys if e.algo == INFERENCE_RECEIPT_ALGO and e.raw == public)
        entry = next(ours, None)
        if entry is None:
            raise BadKeyset("no key for ACI receipts in the keyset is the one at hand")
        object.__setattr__(self, "key_id", entry.key_id)
        object.__setattr__(self, "keyset_digest", self.keyset.digest)

    def __repr__(self) -> str:
        return f"ReceiptSigner({self.keyset_digest}, …)"

    def sign(
        self,
        *,
        receipt_id: str,
        chat_id: str | None,
        model: str | None,
        endpoint: str,
        method: str,
        served_at: int,
        event_log: tuple[Event, ...],
    ) -> InferenceReceipt:
        """The signed receipt.

        Raises:
            BadField, BadInferenceReceipt: as :class:`InferenceReceipt`.
            NotCanonical, TooLarge: it could not be read.
        """
        blank = InferenceReceipt(
            receipt_id=receipt_id,
            chat_id=chat_id,
            model=model,
            workload_keyset_digest=self.keyset_digest,
            endpoint=endpoint,
            method=method,
            served_at=served_at,
            event_log=event_log,
            key_id=self.key_id,
            signature=bytes(SIGNATURE_BYTES),
        )
        payload = blank.payload
        if len(payload) + _SIGNATURE_MEMBER > MAX_RECEIPT_BYTES:
            raise TooLarge(f"a receipt would be longer than {MAX_RECEIPT_BYTES} bytes")
        return replace(blank, signature=self.key.sign_bytes(payload))
