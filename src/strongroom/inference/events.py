"""What happened to one request, as the events of an ACI receipt (``aci/1``, section 7.4) and ours beside them.

An event is an object with a ``type``. Of a type that is known here every member must be there and no other may be; one of
another type is kept as it came, because ACI lets services add their own. No event holds a byte of a request or an answer.

See ``spec/inference-receipt.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, TypeAlias

from strongroom import wire
from strongroom.drawing import GRAIN, Price
from strongroom.errors import BadField, BadInferenceReceipt, WireError
from strongroom.wire import JSON, Fields

from .guard import MAX_GUARDS, GuardRun, require_in_order

MAX_EVENTS = 64
MAX_MODEL = 256  # characters of a model's name
MAX_TOKENS = 10**9  # of one request
MIN_SIZE, MAX_SIZE, MAX_SIZES = 64, 16 << 20, 64  # of padding
MAX_OTHER_BYTES = 16 << 10
MAX_GATES = 1024  # tokens of an answer that draws from sources

TOKEN = "token"  # noqa: S105 - the unit in which is counted

_LABEL = re.compile(r"[!-~]+\Z")  # printable ASCII without spaces
_TYPE = re.compile(r"[!-~]{1,64}\Z")
_SESSION = re.compile(r"[0-9a-f]{64}\Z")
_WORDS = re.compile(r"[a-z](?:[a-z0-9._ ]{0,62}[a-z0-9])?\Z")  # as a run's failure is said


def label(f: Fields, name: str, *, max_chars: int = 128) -> str:
    """A member that names something: 1 to so many printable ASCII characters without spaces. Raises BadField."""
    found = f.text(name, max_chars=max_chars)
    if not _LABEL.match(found):
        raise BadField(f"{name} is not 1 to {max_chars} printable ASCII characters")
    return found


def _words(f: Fields, name: str) -> str:
    found = f.text(name, max_chars=64)
    if not _WORDS.match(found):
        raise BadInferenceReceipt(f"{name} is not a few lower-case words")
    return found


@dataclass(frozen=True, slots=True)
class _Hashed:
    """An event that is the hash of a body.

    Args:
        body_hash: ``sha256:`` digest of bytes that the enclave saw, in order and without anything left out.

    Raises:
        BadField: not a digest.
    """

    TYPE: ClassVar[str]
    body_hash: str

    def __post_init__(self) -> None:
        Fields({"body_hash": self.body_hash}, self.TYPE).digest("body_hash")

    def to_json(self) -> dict[str, JSON]:
        return {"body_hash": self.body_hash, "type": self.TYPE}


class RequestReceived(_Hashed):
    """The request's body as the enclave worked on it: where it came encrypted, the restored plaintext."""

    __slots__ = ()
    TYPE = "request.received"


class RequestForwarded(_Hashed):
    """The exact bytes that the engine was given."""

    __slots__ = ()
    TYPE = "request.forwarded"


class ResponseReturned(_Hashed):
    """The exact bytes that were sent back, of a stream every one of them in order: where they were encrypted, as such."""

    __slots__ = ()
    TYPE = "response.returned"


class ResponseRestored(_Hashed):
    """The plaintext of what was sent back encrypted; there exactly where it was."""

    __slots__ = ()
    TYPE = "response.restored"


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Which model answered.

    Args:
        name: what the contract and the request call it.
        weights: ``sha256:`` digest of the opened weights file.
        asset: the digest of the sealed asset's manifest.
        contract: the digest of the contract under which the key to it was released.

    Raises:
        BadField: not such a name, or not digests.
    """

    TYPE: ClassVar[str] = "model.weights"
    name: str
    weights: str
    asset: str
    contract: str

    def __post_init__(self) -> None:
        f = Fields(self.to_json(), self.TYPE)
        label(f, "name", max_chars=MAX_MODEL)
        for name in ("weights", "asset", "contract"):
            f.digest(name)

    def to_json(self) -> dict[str, JSON]:
        return {
            "asset": self.asset,
            "contract": self.contract,
            "name": self.name,
            "type": self.TYPE,
            "weights": self.weights,
        }


@dataclass(frozen=True, slots=True)
class UpstreamVerified:
    """How a service that passes requests on found the one behind it (ACI section 7.5). Ours never does, and never says this.

    Args:
        required: whether the request had to be refused otherwise.
        model_id: the model behind it.
        session_id: 64 hex digits, where it was verified.
        reason: why not, where it was not.
        upstream_name: a label, where it was not verified, or ``None``.

    Raises:
        BadInferenceReceipt: not exactly one of ``session_id`` and ``reason``, or a label beside a ``session_id``.
    """

    TYPE: ClassVar[str] = "upstream.verified"
    required: bool
    model_id: str
    session_id: str | None = None
    reason: str | None = None
    upstream_name: str | None = None

    def __post_init__(self) -> None:
        failed = self.reason is not None
        if failed == (self.session_id is not None) or (self.upstream_name is not None and not failed):
            raise BadInferenceReceipt("upstream.verified says neither that it was verified nor that it was not, or both")
        if self.session_id is not None and not _SESSION.match(self.session_id):
            raise BadInferenceReceipt("upstream.verified.session_id is not 64 lowercase hex digits")

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {"model_id": self.model_id, "required": self.required, "type": self.TYPE}
        if self.session_id is not None:
            return {**found, "result": "verified", "session_id": self.session_id}
        named: dict[str, JSON] = {} if self.upstream_name is None else {"upstream_name": self.upstream_name}
        return {**found, "reason": self.reason, "result": "failed", **named}


@dataclass(frozen=True, slots=True)
class SourceUsed:
    """What the answer drew from one sealed source (``spec/drawing.md``). There is none where it drew nothing from it.

    Args:
        source: the digest of the sealed source's manifest.
        gates: of each token of the answer, in their order, the grains that were the source's.
        weight: their sum.
        tokens: how many they are.
        amount: what that many grains cost at the contract's price, in whole units, rounded down.
        unit: the units' name.

    Raises:
        BadField: not a digest, or numbers out of their bounds.
        BadInferenceReceipt: no token, too many, nothing drawn; or a sum, a count or a unit that is none.
    """

    TYPE: ClassVar[str] = "source.used"
    source: str
    gates: tuple[int, ...]
    weight: int
    tokens: int
    amount: int
    unit: str

    def __post_init__(self) -> None:
        f = Fields({"amount": self.amount, "source": self.source, "unit": self.unit}, self.TYPE)
        f.digest("source")
        f.integer("amount")
        label(f, "unit", max_chars=32)
        if not 1 <= len(self.gates) <= MAX_GATES or any(type(g) is not int or not 0 <= g <= GRAIN for g in self.gates):
            raise BadInferenceReceipt(f"source.used.gates are not 1 to {MAX_GATES} numbers from 0 to {GRAIN}")
        if (self.weight, self.tokens) != (sum(self.gates), len(self.gates)) or not self.weight:
            raise BadInferenceReceipt("source.used: weight and tokens are not the sum and the number of the gates")

    @classmethod
    def of(cls, source: str, gates: Sequence[int], price: Price) -> SourceUsed:
        """The event for these gates at this price."""
        weight = sum(gates)
        return cls(source, tuple(gates), weight, len(gates), price.of(weight), price.unit)

    def to_json(self) -> dict[str, JSON]:
        return {
            "amount": self.amount,
            "gates": list(self.gates),
            "source": self.source,
            "tokens": self.tokens,
            "type": self.TYPE,
            "unit": self.unit,
            "weight": self.weight,
        }


class Observability(StrEnum):
    """What the operator of the machine may see of requests; each level shows what those before it show."""

    NONE = "none"
    AGGREGATE = "aggregate"
    FAILURES = "failures"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class PolicyApplied:
    """Under which policy the request was handled.

    Args:
        policy: the digest of the contract's policy.
        guards: those that ran, in their order, each once: all of those before the engine, then those after it.
        padding: the sizes to which what is sent encrypted is padded (``spec/ehbp.md``), in bytes, ascending; none where it
            is not.
        observability: what the operator may see.

    Raises:
        BadField: not a digest.
        BadInferenceReceipt: sizes that are not ascending, or out of their bounds; too many guards, one twice, or one of the
            input after one of the output.
    """

    TYPE: ClassVar[str] = "policy.applied"
    policy: str
    guards: tuple[GuardRun, ...]
    padding: tuple[int, ...]
    observability: Observability

    def __post_init__(self) -> None:
        Fields({"policy": self.policy}, self.TYPE).digest("policy")
        require_sizes(self.padding)
        require_in_order(tuple(run.guard for run in self.guards))

    def to_json(self) -> dict[str, JSON]:
        return {
            "guards": [run.to_json() for run in self.guards],
            "observability": self.observability.value,
            "padding": list(self.padding),
            "policy": self.policy,
            "type": self.TYPE,
        }


def require_sizes(padding: tuple[int, ...]) -> None:
    """Raises BadInferenceReceipt: they are not at most 64 ascending sizes from 64 bytes to 16 MiB."""
    if len(padding) > MAX_SIZES or list(padding) != sorted(set(padding)):
        raise BadInferenceReceipt(f"the sizes of padding are not ascending, or over {MAX_SIZES}")
    if padding and not MIN_SIZE <= padding[0] <= padding[-1] <= MAX_SIZE:
        raise BadInferenceReceipt(f"a size of padding is not from {MIN_SIZE} to {MAX_SIZE} bytes")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens.

    Args:
        prompt: that the engine read.
        completion: that it wrote.
        embedding: that it made a vector of.

    Raises:
        BadField: a negative number, or more than fit a signed document.
    """

    prompt: int = 0
    completion: int = 0
    embedding: int = 0

    def __post_init__(self) -> None:
        f = Fields(self.to_json(), "usage")
        for name in self.to_json():
            f.integer(name)

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.embedding + other.embedding)

    def to_json(self) -> dict[str, JSON]:
        return {
            "completion_tokens": self.completion,
            "embedding_tokens": self.embedding,
            "prompt_tokens": self.prompt,
        }

    @classmethod
    def from_fields(cls, f: Fields, *, high: int = wire.MAX_INT) -> Usage:
        """Raises BadField."""
        return cls(
            prompt=f.integer("prompt_tokens", high=high),
            completion=f.integer("completion_tokens", high=high),
            embedding=f.integer("embedding_tokens", high=high),
        )


@dataclass(frozen=True, slots=True)
class UsageMetered:
    """What the request used, at most 10^9 tokens of each kind. Raises BadField: more."""

    TYPE: ClassVar[str] = "usage.metered"
    usage: Usage

    def __post_init__(self) -> None:
        Usage.from_fields(Fields(self.usage.to_json(), self.TYPE), high=MAX_TOKENS)

    def to_json(self) -> dict[str, JSON]:
        return {**self.usage.to_json(), "type": self.TYPE, "unit": TOKEN}


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """That the request was not answered: the stable code and the step, never data.

    Raises:
        BadInferenceReceipt: one of them is not a few lower-case words, as every code and step is.
    """

    TYPE: ClassVar[str] = "request.refused"
    code: str
    step: str

    def __post_init__(self) -> None:
        f = Fields({"code": self.code, "step": self.step}, self.TYPE)
        _words(f, "code")
        _words(f, "step")

    def to_json(self) -> dict[str, JSON]:
        return {"code": self.code, "step": self.step, "type": self.TYPE}


@dataclass(frozen=True, slots=True)
class Other:
    """An event of a type that is not known here, as it came.

    Args:
        type: 1 to 64 printable ASCII characters, none of the known types.
        canonical: the canonical bytes of the whole event, at most 16 KiB.
    """

    type: str
    canonical: bytes = field(repr=False)

    def to_json(self) -> dict[str, JSON]:
        found = wire.decode(self.canonical)
        assert isinstance(found, dict)
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> Other:
        """Raises BadField, NotCanonical, BadInferenceReceipt."""
        kind = Fields(value, "event").text("type", max_chars=64)
        if not _TYPE.match(kind) or kind in READERS:
            raise BadInferenceReceipt("an event's type is not 1 to 64 printable ASCII characters, or is a known one")
        canonical = wire.encode(value)
        if len(canonical) > MAX_OTHER_BYTES:
            raise BadInferenceReceipt(f"an event of the type {kind!r} is longer than {MAX_OTHER_BYTES} bytes")
        return cls(kind, canonical)


Event: TypeAlias = (
    RequestReceived
    | RequestForwarded
    | ResponseReturned
    | ResponseRestored
    | ModelWeights
    | UpstreamVerified
    | SourceUsed
    | PolicyApplied
    | UsageMetered
    | RequestRefused
    | Other
)


def _weights(f: Fields) -> Event:
    return ModelWeights(f.text("name", max_chars=MAX_MODEL), f.digest("weights"), f.digest("asset"), f.digest("contract"))


def _upstream(f: Fields) -> Event:
    required, model_id = f.boolean("required"), f.text("model_id", max_chars=256)
    if f.text("result", choices=("failed", "verified")) == "verified":
        return UpstreamVerified(required, model_id, session_id=f.text("session_id", max_chars=64))
    named = f.text("upstream_name", max_chars=256) if f.has("upstream_name") else None
    return UpstreamVerified(required, model_id, reason=f.text("reason"), upstream_name=named)


def _source(f: Fields) -> Event:
    def grains(item: object) -> int:
        return Fields({"gate": item}, "source.used").integer("gate", high=GRAIN)

    return SourceUsed(
        source=f.digest("source"),
        gates=f.items("gates", grains, low=1, high=MAX_GATES),
        weight=f.integer("weight"),
        tokens=f.integer("tokens"),
        amount=f.integer("amount"),
        unit=f.text("unit", max_chars=32),
    )


def _policy(f: Fields) -> Event:
    return PolicyApplied(
        policy=f.digest("policy"),
        guards=f.items("guards", GuardRun.from_json, high=MAX_GUARDS),
        padding=f.items("padding", lambda item: Fields({"size": item}, "padding").integer("size"), high=MAX_SIZES),
        observability=Observability(f.text("observability", choices=list(Observability))),
    )


def _usage(f: Fields) -> Event:
    f.literal("unit", TOKEN)
    return UsageMetered(Usage.from_fields(f, high=MAX_TOKENS))


READERS: Mapping[str, Callable[[Fields], Event]] = MappingProxyType(
    {
        RequestReceived.TYPE: lambda f: RequestReceived(f.digest("body_hash")),
        ModelWeights.TYPE: _weights,
        RequestForwarded.TYPE: lambda f: RequestForwarded(f.digest("body_hash")),
        UpstreamVerified.TYPE: _upstream,
        SourceUsed.TYPE: _source,
        PolicyApplied.TYPE: _policy,
        UsageMetered.TYPE: _usage,
        RequestRefused.TYPE: lambda f: RequestRefused(f.text("code"), f.text("step")),
        ResponseReturned.TYPE: lambda f: ResponseReturned(f.digest("body_hash")),
        ResponseRestored.TYPE: lambda f: ResponseRestored(f.digest("body_hash")),
    }
)
"""How each known event is read, in the order in which a receipt's events stand."""

ORDER = tuple(READERS)


def event_from_json(value: object) -> Event:
    """Read one event.

    Raises:
        BadField: it is no object with a type.
        BadInferenceReceipt: a known one with a member missing, unknown or of another form, or one that is too long.
        NotCanonical: one of another type that holds what no signed document may.
    """
    f = Fields(value, "event")
    kind = f.text("type", max_chars=64)
    if kind not in READERS:
        assert isinstance(value, dict)
        return Other.from_json(value)
    try:
        found = READERS[kind](f)
        f.end()
    except WireError as error:
        raise BadInferenceReceipt(f"the event {kind}: {error}") from error
    return found
