"""What the serving half needs of others: a way to start engines, a place for receipts, somebody who counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from strongroom.asset import RangeSource
from strongroom.contract import Contract
from strongroom.enclave.obtain import Released
from strongroom.inference.receipt import InferenceReceipt
from strongroom.lm.engine import Engine
from strongroom.programs.serve_llm import Model, Parameters

from .credentials import Admission, Credential
from .sources import Sealed


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that is to be started: its sealed weights, and what opens them.

    Attributes:
        contract: completely signed, in force.
        parameters: what it says of all its models.
        model: which of them.
        source: the sealed file, untrusted, by range.
        released: the manifest and the key.
        progress: called with how many bytes were opened.
        sources: what the model draws from.
    """

    contract: Contract
    parameters: Parameters
    model: Model
    source: RangeSource
    released: Released
    progress: Callable[[int], None]
    sources: tuple[Sealed, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """An engine that answers.

    Attributes:
        engine: at work.
        weights: the SHA-256 of the opened bytes that it was given, 32 bytes: seen, and not what the manifest says.
        release: lets go of them, once the engine is closed.
    """

    engine: Engine
    weights: bytes
    release: Callable[[], None] = field(default=lambda: None)


Starter: TypeAlias = Callable[[Wanted], Awaitable[Started]]
"""Opens weights into memory and starts an engine on them. Raises AssetError, EngineError, EnclaveError."""


class Gate(Protocol):
    """Lets requests in by their credential (``credentials.Gate``)."""

    def lets_in(self, *, passed_on: bool = False) -> bool:
        """Whether somebody without a key of the operator's is let in."""

    def known(self, authorization: str | None, *, passed_on: bool = False) -> Credential:
        """Who asks, without counting it. Raises NoCredential."""

    def admit(self, authorization: str | None, model: str | None, at: float, *, passed_on: bool = False) -> Admission:
        """Let one request in, and count it. Raises NoCredential, Unauthorised, LimitReached."""


class Receipts(Protocol):
    """Keeps receipts for as long as the policy says."""

    def put(
        self, receipt: InferenceReceipt, credential: Credential, until: int, *, contract: str | None = None
    ) -> InferenceReceipt:
        """Keep one. It can be had at once, and is written down soon. Raises NoSpace."""

    def hold(self, receipt: InferenceReceipt, credential: Credential) -> None:
        """Hold one for a few minutes, on no disk and in no log: of what was refused before its body was whole."""

    def get(self, receipt_id: str, credential: Credential) -> InferenceReceipt:
        """Raises NotFound: none, or of another credential."""

    def by_chat(self, chat_id: str, credential: Credential) -> InferenceReceipt:
        """The receipt of the answer with this id. Raises NotFound."""


class Observation(Protocol):
    """One request, as the operator may see it (``observed.Seen``)."""

    def model(self, name: str) -> None:
        """The model of the contract that answers."""

    def asked(self, text: bytes) -> None:
        """The next bytes of the request in the clear."""

    def answered(self, text: bytes) -> None:
        """The next bytes of the answer in the clear."""

    def first_token(self) -> None:
        """The first piece of the answer is there."""

    def failed(self, error: BaseException) -> None:
        """Something broke."""

    def ended(self, outcome: str, prompt_tokens: int, completion_tokens: int, embedding_tokens: int) -> None:
        """It is over. ``outcome``: ``ok``, or the code of the refusal."""


class Observer(Protocol):
    """Counts what the policy lets the operator see (``observed.Observer``)."""

    @property
    def keeps_texts(self) -> bool:
        """Whether texts are told at all."""

    def begun(self, route: str) -> Observation:
        """A request came."""
