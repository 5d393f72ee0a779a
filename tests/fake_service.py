"""A service of models in this process: real keys, evidence, encryption and receipts around a model with fixed words.

It is what stands on the other side of the client's tests, and can be wrong in every way that is told it: a *tamper* is a
function over what it answers. Nothing of it is random but what a client brings.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from strongroom import wire
from strongroom.asset import About, AssetKey, seal, sign_manifest
from strongroom.attest.keyset import (
    INFERENCE_RECEIPT_ALGO,
    RELEASE_ALGO,
    RUN_RECEIPT_ALGO,
    AttestationReport,
    KeyEntry,
    Keyset,
    parse_nonce,
    report_data,
)
from strongroom.contract import AssetRef, Contract, EnclaveTerms, Limits, ProgramRef, Proposal
from strongroom.ehbp import (
    ENCAPSULATED_KEY_HEADER,
    KEYS_MEDIA_TYPE,
    KEYSET_ALGO,
    EnclaveExchange,
    Padding,
    PrivateKey,
    SeenKeys,
    problem,
)
from strongroom.errors import KeyConfigMismatch, StrongroomError
from strongroom.inference.events import ModelWeights, Observability, PolicyApplied, Usage
from strongroom.inference.guard import Decision, Guard, GuardRun, Stage
from strongroom.inference.receipt import InferenceReceipt, ReceiptSigner
from strongroom.inference.recorder import Recorder
from strongroom.party import DecryptionKey, SigningKey
from strongroom.policy import Policy
from strongroom.release import run_subject
from strongroom.serving import Serving
from strongroom.trust import Root, Trust
from world import (
    DAY,
    MEASUREMENT,
    NOW,
    ROOT,
    Clock,
    Entropy,
    SimulatedPlatform,
    card,
    keys_of,
    seed,
    sign_all,
)

URL = "http://service.test"
MODEL = "example/small"
WEIGHTS = b"GGUF: these are the weights"
WORDS = ("Cells", " divide", ".")
PII = Guard("pii", wire.digest(b"the guard"), Stage.INPUT)
RUN_ID = seed("room", 16).hex()


@dataclass
class Answer:
    """What goes back: tampers change it."""

    status: int
    headers: dict[str, str]
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


Tamper = Callable[["Asked", Answer], Answer]


@dataclass(frozen=True)
class Asked:
    """What came."""

    method: str
    path: str
    query: str
    headers: httpx.Headers
    body: bytes


def manifest_of(weights: bytes = WEIGHTS, *, reveal: bool = True, owner: str = "lab") -> Any:
    """A sealed asset's manifest, signed by its owner."""
    terms = Policy(uses=frozenset({"serve-llm"}), serve=SERVE)
    about = About(
        name="small",
        kind="model",
        media_type="application/vnd.gguf",
        owner=owner,
        created_at=NOW,
        terms=terms,
        mock=None,
        reveal_digest=reveal,
    )
    sealed = io.BytesIO()
    manifest = seal(io.BytesIO(weights), sealed, key=AssetKey(seed("asset")), salt=seed("salt"), about=about)
    return sign_manifest(manifest, keys_of(owner).signing)


SERVE = Serving(
    routes=frozenset({"chat", "completions", "embeddings"}),
    lease_s=3600,
    padding=1024,
    observability="aggregate",
    retention_s=DAY,
    input_guards=frozenset({"pii"}),
)


def proposal_of(manifest: Any, **changes: Any) -> Proposal:
    """A standing contract's proposal."""
    parameters = {"models": [{"engine": "llama.cpp", "name": MODEL, "role": "model"}], "context_tokens": 4096}
    found: dict[str, Any] = {
        "title": "A small model, served",
        "nonce": seed("nonce", 16).hex(),
        "proposer": "lab",
        "supersedes": None,
        "created_at": NOW,
        "not_before": NOW,
        "not_after": NOW + 30 * DAY,
        "parties": (card("hospital"), card("lab")),
        "program": ProgramRef("serve-llm", wire.digest(b"the program"), "serve-llm", parameters),
        "assets": (AssetRef("model", "lab", manifest.digest),),
        "outputs": (),
        "enclave": EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated"),
        "policy": Policy(uses=frozenset({"serve-llm"}), serve=SERVE),
        "limits": Limits(1, 7 * DAY, 1 << 30),
    }
    return Proposal(**{**found, **changes})


TRUST = Trust(roots=(Root("simulated", ROOT.public),), measurements=(MEASUREMENT,))


class Keys:
    """The keys of one keyset."""

    def __init__(self, name: str, contract: str, not_after: int = NOW + 7 * DAY) -> None:
        self.receipts = SigningKey(seed(f"{name} receipts"))
        self.requests = PrivateKey(seed(f"{name} requests"))
        self.keyset = Keyset(
            not_after=not_after,
            receipt_signing_keys=(
                KeyEntry("receipts", INFERENCE_RECEIPT_ALGO, self.receipts.public.raw.hex()),
                KeyEntry("runs", RUN_RECEIPT_ALGO, SigningKey(seed(f"{name} runs")).public.raw.hex()),
            ),
            e2ee_public_keys=(
                KeyEntry("releases", RELEASE_ALGO, DecryptionKey(seed(f"{name} releases", 96)).public.raw.hex()),
                KeyEntry("requests", KEYSET_ALGO, self.requests.public.raw.hex()),
            ),
            subject=run_subject(contract, RUN_ID),
        )
        self.signer = ReceiptSigner(self.keyset, self.receipts)
        self.seen = SeenKeys(self.keyset.digest)


@dataclass
class Service:
    """The service.

    Attributes:
        clock: by which it lives; clients are given the same.
        tampers: applied to each answer, in order.
        words: what the model says, piece by piece.
        log: what came, without bodies: method and path.
        asked: what came, whole.
        opened: plaintexts of the requests that it could read.
    """

    clock: Clock = field(default_factory=Clock)
    tampers: list[Tamper] = field(default_factory=list)
    words: tuple[str, ...] = WORDS
    reveal: bool = True
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manifest = manifest_of(reveal=self.reveal)
        self.contract: Contract = sign_all(proposal_of(self.manifest, **self.changes))
        self.platform = SimulatedPlatform(self.clock)
        self.keys = Keys("first", self.contract.digest)
        self.receipts: dict[str, tuple[InferenceReceipt, str]] = {}
        self.entropy = Entropy("service")
        self.log: list[str] = []
        self.asked: list[Asked] = []
        self.opened: list[bytes] = []
        self.slow_receipts = 0

    def rotate(self, name: str = "second") -> None:
        """New keys, as after a restart."""
        self.keys = Keys(name, self.contract.digest)

    # --- what is asked ---

    def handle(self, asked: Asked) -> Answer:
        self.log.append(f"{asked.method} {asked.path}")
        self.asked.append(asked)
        answer = self._answer(asked)
        for tamper in self.tampers:
            answer = tamper(asked, answer)
        return answer

    def _answer(self, asked: Asked) -> Answer:
        headers = {"x-aci-version": "aci/1", "x-aci-keyset-digest": self.keys.keyset.digest}
        if asked.path == "/v1/aci/attestation":
            return self._json(self.report(asked.query.removeprefix("nonce=")), headers)
        if asked.path == "/.well-known/hpke-keys":
            body = self.keys.requests.public.config()
            return Answer(200, {**headers, "content-type": KEYS_MEDIA_TYPE}, [body])
        if asked.path == "/v1/room":
            return self._json(self.room(), headers)
        if asked.path.startswith("/v1/aci/receipts/"):
            return self._receipt(asked, headers)
        if asked.method == "POST":
            return self._sealed(asked, headers)
        return self._refusal(404, "app.not_found", headers)

    @staticmethod
    def _json(value: Any, headers: dict[str, str], status: int = 200) -> Answer:
        return Answer(status, {**headers, "content-type": "application/json"}, [wire.encode(value)])

    def _refusal(self, status: int, code: str, headers: dict[str, str]) -> Answer:
        return self._json({"error": {"code": code, "message": "no", "hint": "no"}}, headers, status)

    def report(self, nonce: str, keys: Keys | None = None) -> Any:
        digest = (keys or self.keys).keyset.digest
        data = report_data(digest, parse_nonce(nonce))
        evidence, endorsements = self.platform.produce(data), self.platform.endorsements()
        return AttestationReport((keys or self.keys).keyset, data[:32], evidence, endorsements).to_json()

    def room(self) -> Any:
        return {
            "contract": self.contract.envelope.to_json(),
            "digest": self.contract.digest,
            "guards": [PII.to_json()],
            "manifests": [self.manifest.to_json()],
            "observability": "aggregate",
        }

    def _receipt(self, asked: Asked, headers: dict[str, str]) -> Answer:
        if self.slow_receipts:
            self.slow_receipts -= 1
            return self._refusal(404, "app.not_found", headers)
        found, credential = self.receipts.get(asked.path.rpartition("/")[2], (None, ""))
        if found is None or asked.headers.get("authorization") != credential:
            return self._refusal(404, "app.not_found", headers)
        return Answer(200, {**headers, "content-type": "application/json"}, [found.encode()])

    # --- a model's answer ---

    def _sealed(self, asked: Asked, headers: dict[str, str]) -> Answer:
        path = asked.path + (f"?{asked.query}" if asked.query else "")
        exchange = EnclaveExchange(
            self.keys.requests,
            asked.headers.get_list(ENCAPSULATED_KEY_HEADER),
            method=asked.method,
            path=path,
            seen=self.keys.seen,
            contract=self.contract.digest,
            max_body=1 << 20,
        )
        try:
            body = exchange.feed(asked.body)
            exchange.end()
        except KeyConfigMismatch:
            return Answer(422, {**headers, "content-type": "application/problem+json"}, [problem()])
        except StrongroomError as error:
            return self._refusal(400, error.code, headers)
        self.opened.append(body)
        return self._respond(asked, body, exchange, headers)

    def recorder(self, endpoint: str) -> tuple[str, Recorder]:
        receipt_id = f"rcpt-{self.entropy(16).hex()}"
        return receipt_id, Recorder(self.keys.signer, receipt_id=receipt_id, endpoint=endpoint, method="POST")

    def weights(self) -> ModelWeights:
        return ModelWeights(MODEL, wire.digest(WEIGHTS), self.manifest.digest, self.contract.digest)

    def applied(self) -> PolicyApplied:
        policy = wire.digest(wire.encode(self.contract.proposal.policy.to_json()))
        buckets = self.padding.buckets if self.padding else ()
        guards = (GuardRun(PII, Decision.ALLOWED),)
        return PolicyApplied(policy, guards, buckets, Observability.AGGREGATE)

    @property
    def padding(self) -> Any:
        serve = self.contract.proposal.policy.serve
        return Padding(serve.padding_sizes) if serve and serve.padding_sizes else None

    def _respond(self, asked: Asked, body: bytes, exchange: EnclaveExchange, headers: dict[str, str]) -> Answer:
        said = json.loads(body)
        receipt_id, recorder = self.recorder(asked.path)
        recorder.received(body)
        recorder.asked_for(said.get("model"))
        status, content_type, pieces, chat_id, usage = self._said(asked.path, said)
        if status == 200:
            recorder.chose(self.weights())
            recorder.forwarded(body)
            recorder.applied(self.applied())
            recorder.metered(usage)
        else:
            recorder.refuse("app.not_found", "model")
        recorder.encrypts()
        writer = exchange.respond(
            status=status,
            content_type=content_type,
            receipt_id=receipt_id,
            nonce=self.entropy(32),
            padding=self.padding,
        )
        sent = []
        for number, piece in enumerate(pieces, 1):
            recorder.restored(piece)
            frames = writer.last(piece) if number == len(pieces) else writer.write(piece)
            recorder.returned(frames)
            sent.append(frames)
        receipt = recorder.sign(served_at=self.clock(), chat_id=chat_id)
        self.receipts[receipt_id] = (receipt, asked.headers.get("authorization", ""))
        return Answer(status, {**headers, **writer.headers, "x-receipt-id": receipt_id}, sent)

    def _said(self, path: str, said: dict[str, Any]) -> tuple[int, str, list[bytes], str | None, Usage]:
        if said.get("model") != MODEL:
            error = {"error": {"code": "app.not_found", "message": "no such model", "param": None, "type": "x"}}
            return 404, "application/json", [json.dumps(error).encode()], None, Usage()
        if path == "/v1/embeddings":
            vectors = [{"embedding": [0.5, 0.25], "index": 0, "object": "embedding"}]
            stated = {"prompt_tokens": 5, "total_tokens": 5}
            body = {"data": vectors, "model": MODEL, "object": "list", "usage": stated}
            return 200, "application/json", [json.dumps(body).encode()], None, Usage(embedding=5)
        chat = path == "/v1/chat/completions"
        chat_id = "chatcmpl-1" if chat else "cmpl-1"
        base = {"created": self.clock(), "id": chat_id, "model": MODEL}
        stated = {"completion_tokens": len(self.words), "prompt_tokens": 7, "total_tokens": 7 + len(self.words)}
        usage = Usage(prompt=7, completion=len(self.words))
        if not said.get("stream"):
            text = "".join(self.words)
            choice = {"message": {"content": text, "role": "assistant"}} if chat else {"text": text}
            kind = "chat.completion" if chat else "text_completion"
            choices = [{"finish_reason": "stop", "index": 0, "logprobs": None, **choice}]
            body = {**base, "choices": choices, "object": kind, "usage": stated}
            return 200, "application/json", [json.dumps(body).encode()], chat_id, usage
        events = []
        kind = "chat.completion.chunk" if chat else "text_completion"
        for n, word in enumerate(self.words, 1):
            finish = "stop" if n == len(self.words) else None
            delta = {"delta": {"content": word}} if chat else {"text": word}
            choices = [{"finish_reason": finish, "index": 0, "logprobs": None, **delta}]
            events.append({**base, "choices": choices, "object": kind})
        if (said.get("stream_options") or {}).get("include_usage"):
            events.append({**base, "choices": [], "object": kind, "usage": stated})
        pieces = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
        return 200, "text/event-stream", [*pieces, b"data: [DONE]\n\n"], chat_id, usage


# --- the way there ----------------------------------------------------------------------------------------------------


class Dies(Exception):
    """In place of a piece: the connection ends here."""


class _Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, pieces: list[Any]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if piece is Dies:
                raise httpx.RemoteProtocolError("peer closed connection")
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            await asyncio.sleep(0)
            yield piece


class Way(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries requests to a service without a socket."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def _carry(self, request: httpx.Request, body: bytes) -> httpx.Response:
        query = request.url.query.decode()
        asked = Asked(request.method, request.url.path, query, request.headers, body)
        answer = self._service.handle(asked)
        headers = list(answer.headers.items())
        return httpx.Response(answer.status, headers=headers, stream=_Pieces(answer.pieces))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._carry(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._carry(request, await request.aread())


def on(path: str, change: Callable[[Answer], Answer | None]) -> Tamper:
    """A tamper with the answers at one path."""

    def tamper(asked: Asked, answer: Answer) -> Answer:
        return (change(answer) or answer) if asked.path.startswith(path) else answer

    return tamper


def altered(answer: Answer, **changes: Any) -> Answer:
    return replace(answer, **changes)
