"""The checks of an inference receipt, I1 to I20, each a method that says what it saw or raises why it did not pass.

They read the receipt, the appraisal and what the reader knows, and nothing else: a verifier in another language is the same
list. See ``spec/inference-receipt.md``; the numbers are the same there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from strongroom.attest.keyset import Keyset
from strongroom.attest.result import AttestationResult
from strongroom.attest.vector import Tier
from strongroom.checkpoint import LogVerifier, VerifiedCheckpoint
from strongroom.errors import (
    BadInferenceReceipt,
    BadKeyset,
    BadProof,
    BadSignature,
    BadUsage,
    EventsOutOfOrder,
    OtherContract,
    OtherId,
    OtherKeyset,
    OtherModel,
    OtherOutcome,
    OtherPolicy,
    OtherRequest,
    OtherResponse,
    OtherRoute,
    OtherWeights,
    RequestRewritten,
    ServedAtAnotherTime,
    StrongroomError,
)
from strongroom.ledger import Entry, LoggedProof
from strongroom.transcript import Steps

from .events import (
    ORDER,
    ModelWeights,
    Other,
    PolicyApplied,
    RequestForwarded,
    RequestReceived,
    ResponseRestored,
    ResponseReturned,
    SourceUsed,
    UpstreamVerified,
    UsageMetered,
)
from .expected import Expected
from .guard import Decision, Stage
from .receipt import InferenceReceipt, as_named

MAX_CLOCK_SKEW_S = 300
EMBEDDINGS = "/v1/embeddings"

T = TypeVar("T")

STEPS = Steps(
    "I",
    [
        "the receipt is well formed",
        "its keyset is the one that an affirming appraisal is about",
        "the key that it names is one of that keyset's for inference receipts",
        "it is signed by that key",
        "it was served while the appraisal holds, and not after now",
        "its events stand in their order, each once, from the request to the response",
        "the request that the enclave received is the one that was sent",
        "the response that the enclave sent is the one that was received",
        "the plaintext of an encrypted response is the one that was restored",
        "the request was answered or refused, as the response says",
        "what was forwarded is what was received, or what a guard made of it",
        "the model is the one that was asked for",
        "the contract is the expected one",
        "the weights are those that the contract names",
        "the policy that was applied is the contract's",
        "the tokens that were metered fit the route and the response",
        "the route is the one that was asked for",
        "the receipt's id is the one that came with the response",
        "the chat's id is the one in the response",
        "the receipt is in a log that the verifier trusts",
    ],
)
GATE = 6  # the checks that say whose word the rest is: where one of them does not pass, nothing after it is looked at


class Unknown(Exception):
    """What is needed for a check is not there."""


def _need(value: T | None, what: str) -> T:
    if value is None:
        raise Unknown(f"{what} is not known here")
    return value


def _same(found: object, expected: object, otherwise: StrongroomError) -> None:
    if found != expected:
        raise otherwise


@dataclass(slots=True)
class Reading:
    """One receipt on its way through the checks. Each returns what was seen, or raises why it did not pass."""

    data: bytes
    appraisal: AttestationResult | None
    expected: Expected
    at: int
    proof: LoggedProof | None
    logs: tuple[LogVerifier, ...]
    read: InferenceReceipt | None = None
    keyset: Keyset | None = None
    checkpoint: VerifiedCheckpoint | None = None

    @property
    def receipt(self) -> InferenceReceipt:
        assert self.read is not None  # I1 passed
        return self.read

    def well_formed(self) -> str:
        """I1."""
        self.read = InferenceReceipt.parse(self.data)
        return f"{self.read.receipt_id}, {len(self.read.event_log)} events"

    def attested(self) -> str:
        """I2."""
        if self.appraisal is None or self.appraisal.status is Tier.NONE:
            raise Unknown("nothing affirms a keyset")
        keyset = self.appraisal.require()
        digest, attested = self.receipt.workload_keyset_digest, self.appraisal.keyset_digest
        _same(digest, attested, OtherKeyset(f"the receipt is of the keyset {digest}, and {attested} is attested"))
        self.keyset = keyset
        return f"{attested}; {self.appraisal.label}"

    def key(self) -> str:
        """I3."""
        assert self.keyset is not None
        self.keyset.inference_receipt_key(self.receipt.key_id)
        return self.receipt.key_id

    def signed(self) -> str:
        """I4."""
        assert self.keyset is not None
        self.receipt.check_signature(self.keyset)
        return self.receipt.digest

    def in_time(self) -> str:
        """I5."""
        assert self.appraisal is not None
        assert self.appraisal.valid_until is not None
        served, until = self.receipt.served_at, self.appraisal.valid_until
        if served > until:
            raise ServedAtAnotherTime(f"served at {served}, and the keyset is attested until {until}")
        if served > self.at + MAX_CLOCK_SKEW_S:
            raise ServedAtAnotherTime(f"served at {served}, which is after now, {self.at}")
        return f"at {served}"

    def in_order(self) -> str:
        """I6. Events of other types may stand anywhere between the first and the last; of sources there may be several."""
        log = self.receipt.event_log
        places = [ORDER.index(event.TYPE) for event in log if not isinstance(event, Other)]
        once = [event.TYPE for event in log if not isinstance(event, Other | SourceUsed | UpstreamVerified)]
        if places != sorted(places) or len(set(once)) != len(once):
            raise EventsOutOfOrder("an event stands twice, or out of its order")
        last = log[-2] if isinstance(log[-1], ResponseRestored) and len(log) > 1 else log[-1]
        if not isinstance(log[0], RequestReceived) or not isinstance(last, ResponseReturned):
            raise EventsOutOfOrder("the events do not begin with the request and end with the response")
        return f"{len(log)} events"

    def request(self) -> str:
        """I7."""
        asked = _need(self.expected.asked, "the request")
        received = self.receipt.one(RequestReceived)
        assert received is not None
        _same(received.body_hash, asked.body, OtherRequest("the enclave received other bytes than were sent"))
        if self.receipt.served_at < asked.sent_at - MAX_CLOCK_SKEW_S:
            raise OtherRequest("it was served before it was sent: the receipt is of an earlier request")
        return received.body_hash

    def response(self) -> str:
        """I8."""
        answered = _need(self.expected.answered, "the response")
        returned = self.receipt.one(ResponseReturned)
        assert returned is not None
        _same(returned.body_hash, answered.body, OtherResponse("the enclave sent other bytes than were received"))
        return returned.body_hash

    def plaintext(self) -> str:
        """I9."""
        answered = _need(self.expected.answered, "the response")
        restored = self.receipt.one(ResponseRestored)
        found = restored.body_hash if restored else None
        if (found is None) != (answered.restored is None):
            raise OtherResponse("the response was encrypted on one side alone")
        _same(found, answered.restored, OtherResponse("the plaintext is another than the one that was restored"))
        return found or "not encrypted"

    def outcome(self) -> str:
        """I10."""
        answered = _need(self.expected.answered, "the response")
        refused = self.receipt.refused
        found = refused.code if refused else None
        _same(
            found, answered.refused, OtherOutcome(f"the receipt says {_said(found)}, the response {_said(answered.refused)}")
        )
        return _said(found)

    def forwarded(self) -> str:
        """I11."""
        forwarded, received = self.receipt.one(RequestForwarded), self.receipt.one(RequestReceived)
        assert received is not None
        if forwarded is None:
            if self.receipt.refused is None:
                raise RequestRewritten("the request was answered, and nothing was forwarded")
            return "nothing was forwarded"
        if forwarded.body_hash == received.body_hash:
            return "as it was received"
        policy = self.receipt.one(PolicyApplied)
        for run in policy.guards if policy else ():
            if run.guard.stage is Stage.INPUT and run.decision is Decision.CHANGED:
                return f"changed by the guard {run.guard.name}"
        raise RequestRewritten("the request was changed on its way to the model, and by no guard")

    def model(self) -> str:
        """I12."""
        asked = _need(self.expected.asked, "the request")
        named = as_named(asked.model)
        _same(self.receipt.model, named, OtherModel("another model was asked for"))
        weights = self.receipt.one(ModelWeights)
        if weights is not None and named is not None:
            _same(weights.name, named, OtherModel(f"{weights.name!r} answered, and another was asked for"))
        return named or "none was named"

    def _weights(self) -> ModelWeights | None:
        """``None`` where the request was refused before a model was chosen."""
        weights = self.receipt.one(ModelWeights)
        if weights is None and self.receipt.refused is None:
            raise OtherWeights("the receipt does not say which model answered")
        return weights

    def contract(self) -> str:
        """I13."""
        agreed = _need(self.expected.agreed, "the contract")
        weights = self._weights()
        if weights is None:
            return "refused before a model was chosen"
        _same(weights.contract, agreed.contract, OtherContract("the model answered under another contract"))
        return weights.contract

    def weights(self) -> str:
        """I14."""
        agreed = _need(self.expected.agreed, "the contract")
        weights = self._weights()
        if weights is None:
            return "refused before a model was chosen"
        found, named = (weights.name, weights.weights, weights.asset), (agreed.model, agreed.weights, agreed.asset)
        _same(found, named, OtherWeights("the model that answered is not the one that the contract names"))
        return f"{weights.name}, {weights.weights}"

    def policy(self) -> str:
        """I15. All guards of the contract ran; where the request was refused, the first of them."""
        agreed = _need(self.expected.agreed, "the contract")
        applied, refused = self.receipt.one(PolicyApplied), self.receipt.refused
        if applied is None:
            if refused is None:
                raise OtherPolicy("the receipt does not say which policy was applied")
            return "refused before the policy was applied"
        terms = (applied.policy, applied.padding, applied.observability)
        _same(terms, (agreed.policy, agreed.padding, agreed.observability), OtherPolicy("another policy was applied"))
        ran = tuple(run.guard for run in applied.guards)
        due = agreed.guards if refused is None else agreed.guards[: len(ran)]
        _same(ran, due, OtherPolicy("the guards that ran are not those of the policy"))
        stopped = [n for n, run in enumerate(applied.guards) if run.decision is Decision.REFUSED]
        if stopped and (refused is None or stopped[0] != len(ran) - 1):
            raise OtherPolicy("a guard refused, and the request went on")
        return f"{applied.policy}, {len(ran)} guards, observability {applied.observability.value}"

    def drawn(self) -> str:
        """Of I16: what was drawn from sources is what the contract lets be drawn, and costs what was agreed."""
        used = self.receipt.every(SourceUsed)
        agreed, metered = self.expected.agreed, self.receipt.one(UsageMetered)
        if len({event.source for event in used}) != len(used):
            raise BadUsage("a source was metered twice")
        if used and metered is None:
            raise BadUsage("sources were drawn from, and no tokens were metered")
        for event in used:
            if self.receipt.refused is None and metered is not None and event.tokens != metered.usage.completion:
                raise BadUsage("what was drawn from a source is of another number of tokens than were written")
            source = None if agreed is None else agreed.sources.get(event.source)
            if agreed is None:
                continue
            if source is None:
                raise BadUsage("a source was drawn from that the contract does not have")
            if (event.amount, event.unit) != (source.price.of(event.weight), source.price.unit):
                raise BadUsage(f"{source.name}: the amount is not what {event.weight:,} grains cost at the agreed price")
            weights = self.receipt.one(ModelWeights)
            if weights is None or weights.weights != source.weights:
                raise BadUsage(f"{source.name}: another model drew from it than was agreed")
            if event.weight > source.total or max(event.gates) > source.token:
                raise BadUsage(f"{source.name}: more was drawn than was agreed")
        return f"; drawn from {len(used)} sources" if used else ""

    def usage(self) -> str:
        """I16."""
        drawn = self.drawn()
        metered = self.receipt.one(UsageMetered)
        if metered is None:
            if self.receipt.refused is None:
                raise BadUsage("the request was answered, and nothing was metered")
            return "nothing was metered"
        if self.receipt.one(RequestForwarded) is None or self.receipt.one(ModelWeights) is None:
            raise BadUsage("tokens were metered of what no model was given")
        usage, embeds = metered.usage, self.receipt.endpoint == EMBEDDINGS
        if (usage.prompt or usage.completion) if embeds else usage.embedding:
            raise BadUsage("the kind of the tokens does not fit the route")
        answered = self.expected.answered
        if answered is not None and answered.usage is not None:
            _same(usage, answered.usage, BadUsage("the response states other figures than were metered"))
        return f"{usage.prompt} prompt, {usage.completion} completion, {usage.embedding} embedding tokens{drawn}"

    def route(self) -> str:
        """I17."""
        asked = _need(self.expected.asked, "the request")
        found = (self.receipt.method, self.receipt.endpoint)
        _same(found, (asked.method, asked.endpoint), OtherRoute("another route was served than was asked for"))
        return " ".join(found)

    def receipt_id(self) -> str:
        """I18."""
        named = _need(self.expected.receipt_id, "the id that came with the response")
        _same(self.receipt.receipt_id, named, OtherId("the receipt has another id"))
        return self.receipt.receipt_id

    def chat_id(self) -> str:
        """I19."""
        answered = _need(self.expected.answered, "the response")
        _same(self.receipt.chat_id, answered.chat_id, OtherId("the receipt is of another chat"))
        return answered.chat_id or "the response has none"

    def logged(self) -> str:
        """I20."""
        proof = _need(self.proof, "a proof from the log")
        if not self.logs:
            raise Unknown("no log is trusted here")
        weights, agreed = self.receipt.one(ModelWeights), self.expected.agreed
        contract = weights.contract if weights else agreed.contract if agreed else None
        named = _need(contract, "the contract under which it was logged")
        self.checkpoint = proof.verify(Entry(kind="receipt", contract=named, digest=self.receipt.digest), self.logs)
        return f"{self.checkpoint.origin}, {self.checkpoint.size} entries"


def _said(code: str | None) -> str:
    return "answered" if code is None else f"refused with {code}"


# In the order of STEPS: how each check is made, and the code of one that could not be made.
CHECKS: tuple[tuple[Callable[[Reading], str], type[StrongroomError]], ...] = (
    (Reading.well_formed, BadInferenceReceipt),
    (Reading.attested, OtherKeyset),
    (Reading.key, BadKeyset),
    (Reading.signed, BadSignature),
    (Reading.in_time, ServedAtAnotherTime),
    (Reading.in_order, EventsOutOfOrder),
    (Reading.request, OtherRequest),
    (Reading.response, OtherResponse),
    (Reading.plaintext, OtherResponse),
    (Reading.outcome, OtherOutcome),
    (Reading.forwarded, RequestRewritten),
    (Reading.model, OtherModel),
    (Reading.contract, OtherContract),
    (Reading.weights, OtherWeights),
    (Reading.policy, OtherPolicy),
    (Reading.usage, BadUsage),
    (Reading.route, OtherRoute),
    (Reading.receipt_id, OtherId),
    (Reading.chat_id, OtherId),
    (Reading.logged, BadProof),
)
