"""What the reader of an inference receipt knows of its own, and holds the receipt against.

See ``spec/inference-receipt.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strongroom.drawing import Agreed as Source

from .events import Observability, Usage, require_sizes
from .guard import Guard, require_in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request, as its client sent it.

    Args:
        method: the HTTP method.
        endpoint: the path.
        model: the model that it names, or ``None`` where it names none.
        body: ``sha256:`` digest of the body, before it was encrypted where it was (``recorder.BodyHash``).
        sent_at: unix seconds by the client's clock.
    """

    method: str
    endpoint: str
    model: str | None
    body: str
    sent_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The response, as its client received it.

    Args:
        body: ``sha256:`` digest of the bytes off the wire, of a stream every one of them in order.
        restored: the digest of the plaintext, or ``None`` where the response was not encrypted.
        chat_id: the ``id`` in it, or ``None`` where it has none.
        refused: the code of the error in it, or ``None`` where it is an answer.
        usage: the tokens that it states, or ``None`` where it states none. What embeddings call ``prompt_tokens`` are
            embedding tokens here.
    """

    body: str
    restored: str | None
    chat_id: str | None
    refused: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What the contract says, as the reader knows it.

    Args:
        contract: its digest.
        model: the name under which it is served.
        weights: the digest of the opened weights file.
        asset: the digest of the sealed asset's manifest.
        policy: the digest of the policy.
        guards: that must run, in their order.
        padding: the sizes to which what is sent encrypted is padded, in bytes, ascending; none where it is not.
        observability: what the operator may see.
        sources: what the model draws from: what was agreed, by the digest of each sealed source's manifest.

    Raises:
        BadInferenceReceipt: guards or sizes that no policy can name.
    """

    contract: str
    model: str
    weights: str
    asset: str
    policy: str
    guards: tuple[Guard, ...]
    padding: tuple[int, ...]
    observability: Observability
    sources: Mapping[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_in_order(self.guards)
        require_sizes(self.padding)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the reader knows of its own. What is ``None`` it does not know, and no check about it passes.

    Attributes:
        asked: the request.
        answered: the response.
        agreed: the contract.
        receipt_id: the id that came with the response: sealed in it, where it was, else in the header ``X-Receipt-Id``.
    """

    asked: Asked | None = None
    answered: Answered | None = None
    agreed: Agreed | None = None
    receipt_id: str | None = None
