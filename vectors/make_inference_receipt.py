"""Writes ``vectors/inference_receipt`` and ``vectors/usage``. Deterministic: fixed seeds, fixed times.

    python vectors/make_inference_receipt.py

One file a case, with its whole input and ``expect``: ``ok``, or the stable code of what stands in the way. The enclave's
evidence is that of ``make_attest.py``, whose verifier accepts it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import make_attest  # noqa: E402 - found beside this file

from strongroom import wire  # noqa: E402
from strongroom.attest.appraisal import appraise  # noqa: E402
from strongroom.attest.keyset import (  # noqa: E402
    CHAT_SIGNATURE_ALGO,
    INFERENCE_RECEIPT_ALGO,
    KeyEntry,
    Keyset,
    report_data,
)
from strongroom.attest.result import AttestationResult  # noqa: E402
from strongroom.checkpoint import LogKey  # noqa: E402
from strongroom.inference.events import (  # noqa: E402
    Event,
    ModelWeights,
    Observability,
    Other,
    PolicyApplied,
    RequestForwarded,
    RequestReceived,
    RequestRefused,
    ResponseRestored,
    ResponseReturned,
    UpstreamVerified,
    Usage,
    UsageMetered,
)
from strongroom.inference.expected import Agreed, Answered, Asked, Expected  # noqa: E402
from strongroom.inference.guard import Decision, Guard, GuardRun, Stage  # noqa: E402
from strongroom.inference.receipt import InferenceReceipt, ReceiptSigner  # noqa: E402
from strongroom.inference.verification import Reader  # noqa: E402
from strongroom.ledger import Entry, LoggedProof, MemoryNodes, Tree  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402

AT = make_attest.AT
RECEIPT_KEY, CHAT_KEY, OTHER_KEY = (SigningKey.from_seed(bytes([n]) * 32) for n in (0x31, 0x32, 0x33))
KEYSET = replace(
    make_attest.KEYSET,
    subject="strongroom-service://example",
    receipt_signing_keys=(
        make_attest.RUN_RECEIPT,
        KeyEntry("inference-1", INFERENCE_RECEIPT_ALGO, RECEIPT_KEY.public.raw.hex()),
        KeyEntry("chat-1", CHAT_SIGNATURE_ALGO, CHAT_KEY.public.raw.hex()),
    ),
)
SIGNER = ReceiptSigner(KEYSET, RECEIPT_KEY)
LOG = LogKey("ledger.example/main", SigningKey.from_seed(b"\x34" * 32))
STRANGERS_LOG = LogKey("ledger.example/main", SigningKey.from_seed(b"\x35" * 32))

CHAT = b'{"messages":[{"content":"What is a strongroom?","role":"user"}],"model":"example/small","stream":true}'
STREAM = (
    b'data: {"choices":[{"delta":{"content":"A room"},"index":0}],"id":"chatcmpl-1","object":"chat.completion.chunk"}\n\n',
    b'data: {"choices":[{"delta":{"content":" to lock"},"index":0}],"id":"chatcmpl-1","object":"chat.completion.chunk"}\n\n',
    b"data: [DONE]\n\n",
)
REDACTED = CHAT.replace(b"What is a strongroom?", b"What is a [redacted]?")
SEALED = b"".join(len(piece).to_bytes(4, "big") + hashlib.shake_256(piece).digest(len(piece)) for piece in STREAM)
REFUSAL = b'{"error":{"code":null,"message":"the model is not served here","param":"model","type":"invalid_request_error"}}'
EMBED = b'{"input":"a room with a lock","model":"example/small"}'
VECTOR = b'{"data":[{"embedding":[0,1],"index":0,"object":"embedding"}],"model":"example/small","object":"list"}'


def of(name: str) -> str:
    """The digest of something that is not in the case."""
    return wire.digest(name.encode())


CONTRACT = of("the standing contract")
WEIGHTS = ModelWeights("example/small", of("the weights"), of("the manifest"), CONTRACT)
PII = Guard("pii", of("the PII guard"), Stage.INPUT)
INJECTION = Guard("injection", of("the injection guard"), Stage.INPUT)
LEAK = Guard("leak", of("the output guard"), Stage.OUTPUT)
GUARDS = (PII, INJECTION, LEAK)
ALLOWED = tuple(GuardRun(guard, Decision.ALLOWED) for guard in GUARDS)
POLICY = PolicyApplied(of("the policy"), ALLOWED, (1024, 32768), Observability.AGGREGATE)
USAGE = Usage(prompt=17, completion=6)
AGREED = Agreed(
    contract=CONTRACT,
    model=WEIGHTS.name,
    weights=WEIGHTS.weights,
    asset=WEIGHTS.asset,
    policy=POLICY.policy,
    guards=GUARDS,
    padding=POLICY.padding,
    observability=POLICY.observability,
)
FORWARDED = RequestForwarded(wire.digest(CHAT))
SERVED: tuple[Event, ...] = (
    RequestReceived(wire.digest(CHAT)),
    WEIGHTS,
    FORWARDED,
    POLICY,
    UsageMetered(USAGE),
    ResponseReturned(wire.digest(SEALED)),
    ResponseRestored(wire.digest(b"".join(STREAM))),
)
REFUSED: tuple[Event, ...] = (
    RequestReceived(wire.digest(CHAT)),
    RequestRefused("inference.other_model", "choose model"),
    ResponseReturned(wire.digest(REFUSAL)),
)
MEMBERS: dict[str, Any] = {
    "receipt_id": "rcpt-" + "5a" * 16,
    "chat_id": "chatcmpl-1",
    "model": WEIGHTS.name,
    "endpoint": "/v1/chat/completions",
    "method": "POST",
    "served_at": AT + 60,
}


def swap(log: tuple[Event, ...], **events: Event | None) -> tuple[Event, ...]:
    """A log in which the event of a class, by the class's name, is another one, or is not there."""
    found = (events.get(type(event).__name__, event) for event in log)
    return tuple(event for event in found if event is not None)


def sign(log: tuple[Event, ...] = SERVED, *, signer: ReceiptSigner = SIGNER, **changes: Any) -> InferenceReceipt:
    """What an enclave signs, be it true or not."""
    return signer.sign(**{**MEMBERS, **changes}, event_log=log)


def evidence(keyset: Keyset = KEYSET, **changes: Any) -> make_attest.World:
    """The enclave's evidence for its keyset, and the verifier that asked for it."""
    claims = replace(make_attest.GOOD.claims, report_data=report_data(keyset.digest, make_attest.NONCE), **changes)
    return replace(make_attest.GOOD, claims=claims, keyset=keyset)


def appraised(world: make_attest.World | None) -> AttestationResult | None:
    return appraise(**world.question()) if world else None


def prove(receipt: InferenceReceipt, *, log: LogKey = LOG, contract: str = CONTRACT) -> LoggedProof:
    """The proof that a log holds the receipt among others."""
    tree = Tree(MemoryNodes())
    for n in range(3):
        tree.append(Entry("receipt", CONTRACT, of(f"receipt {n}")))
    index = tree.append(Entry("receipt", contract, receipt.digest))
    return LoggedProof(tree.checkpoint(log), tree.prove_inclusion(index, tree.size))


@dataclass(frozen=True)
class Bodies:
    """The bytes that a client sent and received."""

    request: bytes = CHAT
    response: bytes = SEALED
    restored: bytes | None = b"".join(STREAM)

    def asked(self, **changes: Any) -> Asked:
        told = {"body": wire.digest(self.request), "endpoint": "/v1/chat/completions", "method": "POST"}
        return Asked(**{**told, "model": WEIGHTS.name, "sent_at": AT + 58, **changes})

    def answered(self, **changes: Any) -> Answered:
        restored = None if self.restored is None else wire.digest(self.restored)
        told = {"body": wire.digest(self.response), "chat_id": "chatcmpl-1", "restored": restored, "usage": USAGE}
        return Answered(**{**told, **changes})

    def to_json(self) -> dict[str, Any]:
        return {
            "request": wire.b64(self.request),
            "response": wire.b64(self.response),
            "restored": None if self.restored is None else wire.b64(self.restored),
        }


BODIES = Bodies()
KNOWN = Expected(asked=BODIES.asked(), answered=BODIES.answered(), agreed=AGREED, receipt_id=MEMBERS["receipt_id"])
PLAIN = Bodies(response=b"".join(STREAM), restored=None)
DENIED = Bodies(response=REFUSAL, restored=None)
EMBEDDED = Bodies(EMBED, VECTOR, None)
KNOWN_DENIED = replace(
    KNOWN, answered=DENIED.answered(chat_id=None, refused="inference.other_model", usage=None), agreed=AGREED
)


def expected_json(known: Expected) -> dict[str, Any]:
    """What a reader knows, as it stands in a case."""

    def plain(value: Any) -> Any:
        if value is None:
            return None
        # no case draws from sources: vectors/drawing has those that do
        found = {name: getattr(value, name) for name in value.__slots__ if name != "sources"}
        for name, member in found.items():
            if isinstance(member, Usage):
                found[name] = member.to_json()
            elif isinstance(member, tuple):
                found[name] = [one.to_json() if isinstance(one, Guard) else one for one in member]
        return found

    return {
        "agreed": plain(known.agreed),
        "answered": plain(known.answered),
        "asked": plain(known.asked),
        "receipt_id": known.receipt_id,
    }


@dataclass(frozen=True)
class Case:
    """Where everything is right; each case changes one thing."""

    description: str
    expect: str = "ok"
    number: str | None = None
    status: str = "failed"
    reader: Reader = Reader.CLIENT
    receipt: InferenceReceipt | bytes = field(default_factory=sign)
    world: make_attest.World | None = field(default_factory=evidence)
    known: Expected = KNOWN
    bodies: Bodies = BODIES
    at: int = AT + 62
    proof: LoggedProof | None = None
    logs: tuple[str, ...] = (LOG.verifier.vkey,)

    @property
    def data(self) -> bytes:
        return self.receipt if isinstance(self.receipt, bytes) else self.receipt.encode()

    def to_json(self) -> dict[str, Any]:
        return {
            "appraisal": self.world.to_json() if self.world else None,
            "at": self.at,
            "bodies": self.bodies.to_json(),
            "description": self.description,
            "expect": self.expect,
            "expected": expected_json(self.known),
            "logs": list(self.logs),
            "number": self.number,
            "proof": self.proof.to_json() if self.proof else None,
            "reader": self.reader.name.lower(),
            "receipt": self.data.decode(),
            "status": self.status if self.number else None,
        }


def _edited(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The good receipt's JSON with a change, in canonical form and under the old signature."""
    value = sign().to_json()
    change(value)
    return wire.encode(value)


def _event(kind: str, change: Callable[[dict[str, Any]], Any]) -> bytes:
    return _edited(lambda value: change(next(e for e in value["event_log"] if e["type"] == kind)))


def good() -> dict[str, Case]:
    """Receipts that their reader may rely on."""
    plain_log = swap(SERVED, ResponseReturned=ResponseReturned(wire.digest(PLAIN.response)), ResponseRestored=None)
    changed = replace(POLICY, guards=(GuardRun(PII, Decision.CHANGED), *ALLOWED[1:]))
    forwarded = RequestForwarded(wire.digest(REDACTED))
    embedded = Usage(embedding=5)
    embed_log = (
        RequestReceived(wire.digest(EMBED)), WEIGHTS, RequestForwarded(wire.digest(EMBED)), POLICY, UsageMetered(embedded),
        ResponseReturned(wire.digest(VECTOR)),
    )  # fmt: skip
    stopped = (
        *SERVED[:3], replace(POLICY, guards=(*ALLOWED[:2], GuardRun(LEAK, Decision.REFUSED))), UsageMetered(USAGE),
        RequestRefused("inference.other_policy", "output guard"), *SERVED[5:],
    )  # fmt: skip
    turned_away = (
        SERVED[0], WEIGHTS, replace(POLICY, guards=(GuardRun(PII, Decision.REFUSED),)),
        RequestRefused("inference.other_policy", "input guard"), ResponseReturned(wire.digest(REFUSAL)),
    )  # fmt: skip
    foreign = (
        SERVED[0], WEIGHTS, Other.from_json({"route": "a", "type": "route.selected"}), FORWARDED,
        UpstreamVerified(False, "example/small", reason="not reachable", upstream_name="first"),
        UpstreamVerified(True, "example/small", session_id="ab" * 32),
        Other.from_json({"rows": [1, 2], "source": of("a source"), "type": "source.cited"}), *SERVED[3:],
    )  # fmt: skip
    return {
        "ok-encrypted-stream": Case("a stream that came encrypted, and the bytes that were restored from it"),
        "ok-plain": Case(
            "the same over TLS alone", receipt=sign(plain_log), bodies=PLAIN, known=replace(KNOWN, answered=PLAIN.answered())
        ),
        "ok-no-usage-stated": Case(
            "an answer that states no usage", known=replace(KNOWN, answered=BODIES.answered(usage=None))
        ),
        "ok-embeddings": Case(
            "embeddings, whose answer has no id",
            receipt=sign(embed_log, endpoint="/v1/embeddings", chat_id=None),
            bodies=EMBEDDED,
            known=replace(
                KNOWN,
                asked=EMBEDDED.asked(endpoint="/v1/embeddings"),
                answered=EMBEDDED.answered(chat_id=None, usage=embedded),
            ),
        ),
        "ok-redacted": Case(
            "a guard of the policy changed the request on its way to the model",
            receipt=sign(swap(SERVED, PolicyApplied=changed, RequestForwarded=forwarded)),
        ),
        "ok-refused": Case(
            "a model that is not in the contract: a refusal has a receipt too",
            receipt=sign(REFUSED, chat_id=None), bodies=DENIED, known=KNOWN_DENIED,
        ),
        "ok-refused-by-input-guard": Case(
            "the first guard refused, and the others did not run",
            receipt=sign(turned_away, chat_id=None), bodies=DENIED,
            known=replace(
                KNOWN_DENIED, answered=DENIED.answered(chat_id=None, refused="inference.other_policy", usage=None)
            ),
        ),
        "ok-refused-by-output-guard": Case(
            "the last guard refused what the model had written: the tokens were used",
            receipt=sign(stopped), known=replace(KNOWN, answered=BODIES.answered(refused="inference.other_policy")),
        ),
        "ok-no-model-named": Case(
            "a request that names no model, refused",
            receipt=sign(REFUSED, chat_id=None, model=None), bodies=DENIED,
            known=replace(KNOWN_DENIED, asked=DENIED.asked(model=None)),
        ),
        "ok-model-too-long-to-name": Case(
            "a name over 256 characters keeps no refusal from its receipt",
            receipt=sign(REFUSED, chat_id=None, model=None), bodies=DENIED,
            known=replace(KNOWN_DENIED, asked=DENIED.asked(model="x" * 257)),
        ),
        "ok-other-events": Case("events of other types, and two attempts at an upstream", receipt=sign(foreign)),
        "ok-owner": Case(
            "the model's owner, who knows the contract and the log and never saw the request",
            reader=Reader.OWNER, known=Expected(agreed=AGREED), proof=prove(sign()),
        ),
        "ok-auditor": Case("somebody who was given everything", reader=Reader.AUDITOR, proof=prove(sign())),
        "ok-refusal-logged": Case(
            "a refusal before a model was chosen is logged under the contract that the reader expects",
            reader=Reader.AUDITOR, receipt=sign(REFUSED, chat_id=None), bodies=DENIED, known=KNOWN_DENIED,
            proof=prove(sign(REFUSED, chat_id=None)),
        ),
    }  # fmt: skip


def malformed() -> dict[str, Case]:
    """I1."""
    field_, bad = "wire.bad_field", "inference.bad_receipt"
    text = sign().encode().decode()
    weights, usage, policy = ModelWeights.TYPE, UsageMetered.TYPE, PolicyApplied.TYPE
    many = [*sign().to_json()["event_log"]] + [{"type": "more"}] * 64  # type: ignore[misc]
    pii = GuardRun(PII, Decision.ALLOWED).to_json()
    leak = GuardRun(LEAK, Decision.ALLOWED).to_json()
    both: dict[str, Any] = {"reason": "x", "required": True, "result": "verified", "type": "upstream.verified"}
    found: dict[str, tuple[str, str, bytes]] = {
        "not-json": ("no JSON", "wire.not_json", b"receipt"),
        "not-canonical": ("indented", "wire.not_canonical", json.dumps(sign().to_json(), indent=1).encode()),
        "member-twice": ("a model named twice", "wire.not_canonical", text.replace('"me', '"model":"a","me', 1).encode()),
        "trailing-byte": ("a byte after it", "wire.not_canonical", text.encode() + b"\n"),
        "too-large": ("over 256 KiB", "wire.too_large", _edited(lambda v: v.update(model="x" * (256 << 10)))),
        "other-version": ("another version", field_, _edited(lambda v: v.update(api_version="aci/2"))),
        "unknown-member": ("one more member", field_, _edited(lambda v: v.update(more=1))),
        "member-missing": ("no method", field_, _edited(lambda v: v.pop("method"))),
        "no-events": ("no events", field_, _edited(lambda v: v.update(event_log=[]))),
        "too-many-events": ("more than 64 events", field_, _edited(lambda v: v.update(event_log=many))),
        "signature-in-upper-case": ("another spelling", field_, _edited(lambda v: v.update(signature="AB" * 64))),
        "short-signature": ("a signature of 63 bytes", field_, _edited(lambda v: v.update(signature="ab" * 63))),
        "served-at-a-fraction": ("a time with a fraction", "wire.not_canonical", text.replace("60,", "60.5,").encode()),
        "id-with-a-space": ("an id with a space", field_, _edited(lambda v: v.update(receipt_id="a b"))),
        "endpoint-not-a-path": ("an address for a path", field_, _edited(lambda v: v.update(endpoint="http://x"))),
        "method-in-lower-case": ("a method in lower case", field_, _edited(lambda v: v.update(method="post"))),
        "event-without-a-type": ("an event without a type", field_, _edited(lambda v: v["event_log"].append({}))),
        "event-unknown-member": ("one more member of a known event", bad, _event(weights, lambda e: e.update(more=1))),
        "event-not-a-digest": ("weights that are no digest", bad, _event(weights, lambda e: e.update(weights="sha256:00"))),
        "unit-not-token": ("metered in words", bad, _event(usage, lambda e: e.update(unit="word"))),
        "negative-tokens": ("fewer tokens than none", bad, _event(usage, lambda e: e.update(prompt_tokens=-1))),
        "unknown-observability": ("a level of its own", bad, _event(policy, lambda e: e.update(observability="some"))),
        "guard-twice": ("one guard counted as two", bad, _event(policy, lambda e: e.update(guards=[pii, pii]))),
        "sizes-not-ascending": ("padding twice", bad, _event(policy, lambda e: e.update(padding=[1024, 1024]))),
        "size-out-of-bounds": ("padding to a byte", bad, _event(policy, lambda e: e.update(padding=[1]))),
        "guards-out-of-order": ("a guard of the input last", bad, _event(policy, lambda e: e.update(guards=[leak, pii]))),
        "upstream-both-ways": (
            "verified, and why it was not", bad, _edited(lambda v: v["event_log"].append({**both, "model_id": "m"})),
        ),
        "text-for-a-code": (
            "a message in place of a code", bad,
            _edited(lambda v: v["event_log"].append({"code": "My name is Ann!", "step": "a", "type": "request.refused"})),
        ),
    }  # fmt: skip
    return {f"i1-{name}": Case(said, code, "I1", receipt=data) for name, (said, code, data) in found.items()}


def forged() -> dict[str, Case]:
    """I2 to I6: whose word it is, and of when."""
    stranger = replace(
        KEYSET,
        receipt_signing_keys=(
            make_attest.RUN_RECEIPT, KeyEntry("inference-1", INFERENCE_RECEIPT_ALGO, OTHER_KEY.public.raw.hex()),
        ),
    )  # fmt: skip
    theirs = sign(signer=ReceiptSigner(stranger, OTHER_KEY))
    events = "inference.bad_events"
    receipt = sign()
    early = ResponseReturned(wire.digest(b"early"))

    def log(*changed: Event) -> InferenceReceipt:
        return sign(changed)

    return {
        "i2-swapped-keyset": Case(
            "another enclave's receipt, in place of the attested one's", "inference.other_keyset", "I2", receipt=theirs
        ),
        "i2-debugged-enclave": Case(
            "an enclave that its host can look into", "attest.not_affirming", "I2", world=evidence(debug=True)
        ),
        "i2-edited-program": Case(
            "an enclave that runs what the verifier does not accept", "attest.not_affirming", "I2",
            world=evidence(measurement=make_attest.EDITED),
        ),
        "i2-not-attested": Case("nothing was appraised", "inference.other_keyset", "I2", "not established", world=None),
        "i3-key-of-another-role": Case(
            "signed by the key for run receipts", "attest.bad_keyset", "I3",
            receipt=resigned(replace(receipt, key_id="run-receipt-1"), make_attest.RECEIPT_KEY),
        ),
        "i3-key-of-the-e2ee-list": Case(
            "a key that encrypts", "attest.bad_keyset", "I3", receipt=replace(receipt, key_id="release-1")
        ),
        "i3-no-such-key": Case("a key of nobody's", "attest.bad_keyset", "I3", receipt=replace(receipt, key_id="mine")),
        "i4-signed-by-another": Case(
            "another key signed under the right one's id", "wire.bad_signature", "I4", receipt=resigned(receipt, OTHER_KEY)
        ),
        "i4-altered": Case(
            "fewer tokens, under the old signature", "wire.bad_signature", "I4",
            receipt=_event(UsageMetered.TYPE, lambda e: e.update(completion_tokens=1)),
        ),
        "i4-event-taken-out": Case(
            "the policy taken out, under the old signature", "wire.bad_signature", "I4",
            receipt=_edited(lambda v: v["event_log"].pop(3)),
        ),
        "i4-no-signature": Case(
            "zeros for a signature", "wire.bad_signature", "I4", receipt=replace(receipt, signature=bytes(64))
        ),
        "i5-after-its-keyset": Case(
            "served when nothing affirmed the keyset any more", "inference.other_time", "I5",
            receipt=sign(served_at=AT + 3601), at=AT + 3700,
        ),
        "i5-in-the-future": Case(
            "served ten minutes from now", "inference.other_time", "I5", receipt=sign(served_at=AT + 362), at=AT + 61
        ),
        "i6-two-requests": Case("two requests, one answer", events, "I6", receipt=log(SERVED[0], *SERVED)),
        "i6-two-answers": Case("two answers", events, "I6", receipt=log(*SERVED[:5], early, *SERVED[5:])),
        "i6-two-usages": Case("metered twice", events, "I6", receipt=log(*SERVED[:5], UsageMetered(USAGE), *SERVED[5:])),
        "i6-answer-before-request": Case(
            "the answer before what was forwarded", events, "I6", receipt=log(SERVED[0], SERVED[5], *SERVED[1:5])
        ),
        "i6-no-request": Case("no request", events, "I6", receipt=log(*SERVED[1:])),
        "i6-no-answer": Case("no answer", events, "I6", receipt=log(*SERVED[:5])),
        "i6-plaintext-without-an-answer": Case("a plaintext alone", events, "I6", receipt=log(SERVED[6])),
        "i6-event-before-the-request": Case(
            "something happened before the request", events, "I6", receipt=log(Other.from_json({"type": "more"}), *SERVED)
        ),
        "i6-event-between-answer-and-plaintext": Case(
            "something between the answer and its plaintext", events, "I6",
            receipt=log(*SERVED[:6], Other.from_json({"type": "more"}), SERVED[6]),
        ),
        "i6-event-after-the-answer": Case(
            "something happened after the answer", events, "I6", receipt=log(*SERVED, Other.from_json({"type": "more"}))
        ),
    }  # fmt: skip


def resigned(receipt: InferenceReceipt, key: SigningKey) -> InferenceReceipt:
    return replace(receipt, signature=key.sign_bytes(receipt.payload))


def exchanged() -> dict[str, Case]:
    """I7 to I12 and I17 to I19: the request and its answer."""
    other = Bodies(request=CHAT.replace(b"strongroom", b"weakroom"))
    tampered = Bodies(response=SEALED[:-1] + b"\0")
    cut = Bodies(response=SEALED[: len(SEALED) // 2])
    swapped = Bodies(restored=b"".join(STREAM).replace(b"lock", b"door"))
    no_asked, no_answer = replace(KNOWN, asked=None), replace(KNOWN, answered=None)
    unknown = "not established"
    response = "inference.other_response"
    rewritten = RequestForwarded(wire.digest(CHAT.replace(b"What", b"Why")))
    output_changed = replace(POLICY, guards=(*ALLOWED[:2], GuardRun(LEAK, Decision.CHANGED)))

    def client(description: str, code: str, number: str, **changes: Any) -> Case:
        return Case(description, f"inference.{code}", number, **changes)

    return {
        "i7-prompt-changed": client(
            "something between changed the prompt", "other_request", "I7",
            bodies=other, known=replace(KNOWN, asked=other.asked()),
        ),
        "i7-replayed": client(
            "an earlier answer to the same question, with its receipt", "other_request", "I7",
            known=replace(KNOWN, asked=BODIES.asked(sent_at=AT + 361)), at=AT + 365,
        ),
        "i7-request-not-known": client("the request was not kept", "other_request", "I7", status=unknown, known=no_asked),
        "i8-answer-tampered": client(
            "a proxy changed the last byte", "other_response", "I8",
            bodies=tampered, known=replace(KNOWN, answered=tampered.answered()),
        ),
        "i8-stream-cut-off": client(
            "half of the stream", "other_response", "I8", bodies=cut, known=replace(KNOWN, answered=cut.answered())
        ),
        "i8-answer-not-known": client("the answer was not kept", "other_response", "I8", status=unknown, known=no_answer),
        "i9-plaintext-swapped": Case(
            "other words were shown than were sent", response, "I9",
            bodies=swapped, known=replace(KNOWN, answered=swapped.answered()),
        ),
        "i9-encryption-stripped": Case(
            "sent encrypted, received plain", response, "I9",
            bodies=Bodies(restored=None), known=replace(KNOWN, answered=Bodies(restored=None).answered()),
        ),
        "i9-not-encrypted-there": Case(
            "restored here, and sent plain by the enclave", response, "I9",
            receipt=sign(swap(SERVED, ResponseRestored=None)),
        ),
        "i10-refusal-for-an-answer": client(
            "the receipt of a refusal beside an answer", "other_outcome", "I10",
            receipt=sign((*SERVED[:5], RequestRefused("app.internal", "generate"), *SERVED[5:])),
        ),
        "i10-answer-for-a-refusal": client(
            "an error in place of the answer that was metered", "other_outcome", "I10",
            known=replace(KNOWN, answered=BODIES.answered(refused="app.internal")),
        ),
        "i11-rewritten": client(
            "the model got another prompt", "rewritten", "I11", receipt=sign(swap(SERVED, RequestForwarded=rewritten))
        ),
        "i11-rewritten-behind-an-output-guard": client(
            "a guard of the answer is no excuse", "rewritten", "I11",
            receipt=sign(swap(SERVED, RequestForwarded=rewritten, PolicyApplied=output_changed)),
        ),
        "i11-rewritten-under-no-policy": client(
            "nor is no policy at all", "rewritten", "I11",
            receipt=sign(swap(SERVED, RequestForwarded=rewritten, PolicyApplied=None)),
        ),
        "i11-answered-without-a-model": client(
            "an answer that no model was asked for", "rewritten", "I11",
            receipt=sign(swap(SERVED, RequestForwarded=None, UsageMetered=None)),
        ),
        "i12-other-model-asked": client(
            "the receipt of a cheaper model", "other_model", "I12", receipt=sign(model="example/tiny")
        ),
        "i12-other-model-answered": client(
            "the model that answered has another name", "other_model", "I12",
            receipt=sign(swap(SERVED, ModelWeights=replace(WEIGHTS, name="example/tiny"))),
        ),
        "i17-other-route": client(
            "the answer of another route", "other_route", "I17", receipt=sign(endpoint="/v1/completions")
        ),
        "i17-other-method": client("another method", "other_route", "I17", receipt=sign(method="PUT")),
        "i18-receipt-of-another": client(
            "another answer's receipt", "other_id", "I18", known=replace(KNOWN, receipt_id="rcpt-" + "5b" * 16)
        ),
        "i18-no-header": client(
            "the answer came without a receipt's id", "other_id", "I18",
            status=unknown, known=replace(KNOWN, receipt_id=None),
        ),
        "i19-other-chat": client(
            "the id of another chat", "other_id", "I19", known=replace(KNOWN, answered=BODIES.answered(chat_id="chatcmpl-2"))
        ),
    }  # fmt: skip


def agreed() -> dict[str, Case]:
    """I13 to I16 and I20: the contract, the figures and the log."""
    unknown, policy = "not established", "inference.other_policy"

    def weights(**changes: Any) -> InferenceReceipt:
        return sign(swap(SERVED, ModelWeights=replace(WEIGHTS, **changes)))

    def applied(**changes: Any) -> InferenceReceipt:
        return sign(swap(SERVED, PolicyApplied=replace(POLICY, **changes)))

    def metered(usage: Usage | None, **changes: Any) -> InferenceReceipt:
        return sign(swap(SERVED, UsageMetered=UsageMetered(usage) if usage else None), **changes)

    no_contract = replace(KNOWN, agreed=None)
    swapped = GuardRun(replace(PII, program=of("an edited guard")), Decision.ALLOWED)
    refusing = (*ALLOWED[:2], GuardRun(LEAK, Decision.REFUSED))
    of_nothing = (REFUSED[0], UsageMetered(USAGE), *REFUSED[1:])
    went_on = (
        *SERVED[:3], replace(POLICY, guards=(GuardRun(PII, Decision.REFUSED), *ALLOWED[1:])), SERVED[4],
        RequestRefused("inference.other_policy", "output guard"), *SERVED[5:],
    )  # fmt: skip
    refused = replace(KNOWN, answered=BODIES.answered(refused="inference.other_policy"))
    own = {"reader": Reader.OWNER, "known": Expected(agreed=AGREED)}
    all_of_it: dict[str, Any] = {"reader": Reader.AUDITOR}
    return {
        "i13-other-contract": Case(
            "served under a contract of somebody else's", "inference.other_contract", "I13",
            receipt=weights(contract=of("another contract")),
        ),
        "i13-no-weights": Case(
            "an answer of no model", "inference.other_weights", "I13",
            receipt=sign(swap(SERVED, ModelWeights=None, UsageMetered=None)), known=replace(KNOWN, asked=None),
            reader=Reader.OWNER,
        ),
        "i13-contract-not-known": Case(
            "the reader has no contract", "inference.other_contract", "I13", unknown, known=no_contract
        ),
        "i14-swapped-weights": Case(
            "a smaller model under the same name", "inference.other_weights", "I14", receipt=weights(weights=of("smaller")),
        ),
        "i14-swapped-asset": Case(
            "the same weights from another asset", "inference.other_weights", "I14", receipt=weights(asset=of("another")),
        ),
        "i15-other-policy": Case("a policy of its own", policy, "I15", receipt=applied(policy=of("another policy"))),
        "i15-seen-by-the-operator": Case(
            "the operator saw more than was agreed", policy, "I15", receipt=applied(observability=Observability.FULL)
        ),
        "i15-not-padded": Case("bodies were not padded", policy, "I15", receipt=applied(padding=())),
        "i15-coarser-sizes": Case("padded to other sizes", policy, "I15", receipt=applied(padding=(64, 32768))),
        "i15-guard-left-out": Case("a guard did not run", policy, "I15", receipt=applied(guards=ALLOWED[1:])),
        "i15-guard-edited": Case(
            "another program under a guard's name", policy, "I15", receipt=applied(guards=(swapped, *ALLOWED[1:]))
        ),
        "i15-guard-added": Case(
            "a guard that nobody agreed to", policy, "I15",
            receipt=applied(guards=(GuardRun(Guard("spy", of("a spy"), Stage.INPUT), Decision.ALLOWED), *ALLOWED)),
        ),
        "i15-guard-overruled": Case("a guard refused, and it was answered", policy, "I15", receipt=applied(guards=refusing)),
        "i15-guard-went-on": Case(
            "the first guard refused, and the request went on to the last", policy, "I15",
            receipt=sign(went_on), known=refused,
        ),
        "i15-no-policy": Case(
            "an answer under no policy", policy, "I15", receipt=sign(swap(SERVED, PolicyApplied=None))
        ),
        "i16-over-metered": Case(
            "more tokens were metered than the answer states", "inference.bad_usage", "I16",
            receipt=metered(replace(USAGE, completion=600)),
        ),
        "i16-embedding-tokens-of-a-chat": Case(
            "a chat metered as embeddings", "inference.bad_usage", "I16",
            receipt=metered(Usage(embedding=23)), known=replace(KNOWN, answered=BODIES.answered(usage=None)),
        ),
        "i16-chat-tokens-of-an-embedding": Case(
            "embeddings metered as a chat", "inference.bad_usage", "I16",
            receipt=metered(USAGE, endpoint="/v1/embeddings"),
            known=replace(KNOWN, asked=BODIES.asked(endpoint="/v1/embeddings")),
        ),
        "i16-not-metered": Case("an answer that was not metered", "inference.bad_usage", "I16", receipt=metered(None)),
        "i16-metered-and-never-forwarded": Case(
            "tokens of a request that no model saw", "inference.bad_usage", "I16",
            receipt=sign(of_nothing, chat_id=None), bodies=DENIED, known=KNOWN_DENIED,
        ),
        "i20-no-proof": Case("no proof came along", "ledger.bad_proof", "I20", unknown, **all_of_it),
        "i20-no-log": Case(
            "no log is trusted", "ledger.bad_proof", "I20", unknown, proof=prove(sign()), logs=(), **all_of_it
        ),
        "i20-owner-without-a-log": Case(
            "an owner whom nothing shows that it was logged", "ledger.bad_proof", "I20", unknown, **own
        ),
        "i20-under-no-contract": Case(
            "a refusal, and a reader who does not know under which contract it was logged", "inference.other_contract",
            "I13", unknown, reader=Reader.AUDITOR, receipt=sign(REFUSED, chat_id=None), bodies=DENIED,
            known=replace(KNOWN_DENIED, agreed=None), proof=prove(sign(REFUSED, chat_id=None)),
        ),
        "i20-proof-of-another": Case(
            "the proof of another receipt", "ledger.bad_proof", "I20", proof=prove(sign(served_at=AT + 61)), **all_of_it
        ),
        "i20-logged-under-another-contract": Case(
            "logged where its owner does not look", "ledger.bad_proof", "I20",
            proof=prove(sign(), contract=of("another contract")), **all_of_it,
        ),
        "i20-own-log": Case(
            "a log of one's own under a known name", "ledger.bad_checkpoint", "I20",
            proof=prove(sign(), log=STRANGERS_LOG), **all_of_it,
        ),
        "i20-forged-for-the-client": Case(
            "a check that failed is everybody's: the client does not wait for the log, but a false proof is a lie",
            "ledger.bad_checkpoint", "I20", proof=prove(sign(), log=STRANGERS_LOG),
        ),
    }  # fmt: skip


def cases() -> dict[str, Case]:
    """Every case of ``inference_receipt``, by the name of its file."""
    return {**good(), **malformed(), **forged(), **exchanged(), **agreed()}


# --- usage ------------------------------------------------------------------------------------------------------------


OTHER_CONTRACT = of("another standing contract")
TINY = ModelWeights("example/tiny", of("fewer weights"), of("another manifest"), OTHER_CONTRACT)


def served(n: int, usage: Usage, weights: ModelWeights = WEIGHTS, **changes: Any) -> InferenceReceipt:
    """The receipt of one request among many."""
    log = swap(SERVED, ModelWeights=weights, UsageMetered=UsageMetered(usage))
    return sign(log, **{"model": weights.name, "receipt_id": f"rcpt-{n:032x}", **changes})


def bills() -> dict[str, dict[str, Any]]:
    """Every case of ``usage``: receipts and prices, and what they come to."""
    here, there = [CONTRACT, WEIGHTS.name], [OTHER_CONTRACT, TINY.name]
    price = {"completion": 150, "currency": "EUR", "embedding": 2, "prompt": 50}
    three = [served(n, Usage(prompt=1_000_000 * n, completion=333_333)) for n in (1, 2, 3)]
    tiny = served(9, Usage(prompt=5), TINY)
    both = [[*here, price], [*there, {**price, "currency": "CHF"}]]
    refusal = sign(REFUSED, chat_id=None)
    huge = served(7, Usage(prompt=10**9, completion=10**9))

    def line(key: list[str], requests: int, prompt: int, completion: int) -> dict[str, Any]:
        tokens = {"completion_tokens": completion, "embedding_tokens": 0, "prompt_tokens": prompt}
        return {**tokens, "contract": key[0], "model": key[1], "requests": requests}

    def case(said: str, receipts: list[InferenceReceipt], lines: Any, amounts: Any, **changes: Any) -> dict[str, Any]:
        return {
            "amounts": amounts,
            "description": said,
            "expect": "ok",
            "prices": both,
            "receipts": [receipt.encode().decode() for receipt in receipts],
            "totals": None if lines is None else {"format": "strongroom.usage.v1", "lines": lines},
            **changes,
        }

    all_lines = sorted([line(here, 3, 6_000_000, 999_999), line(there, 1, 5, 0)], key=lambda found: found["contract"])
    priced = {CONTRACT: 449, OTHER_CONTRACT: 0}  # 300 + 149.99985, and 0.00025
    return {
        "ok-two-models": case(
            "two models under two contracts: each line is added up exactly, and rounded down once",
            [*three, tiny], all_lines, [priced[found["contract"]] for found in all_lines],
        ),
        "ok-nothing": case("nothing was served", [], [], []),
        "ok-counted-once": case("one receipt that comes three times", three[:1] * 3, [line(here, 1, 10**6, 333_333)], [99]),
        "ok-refusal-costs-nothing": case("a refusal that was not metered", [refusal, tiny], [line(there, 1, 5, 0)], [0]),
        "ok-large": case("figures beyond 32 bits", [huge], [line(here, 1, 10**9, 10**9)], [200_000]),
        "one-id-for-two": case(
            "two receipts that differ under one id", [three[0], served(1, Usage(prompt=1))], None, None,
            expect="inference.receipt_doubled",
        ),
        "no-price": case(
            "a model without a price is not free", [*three, tiny], all_lines, None,
            expect="inference.bad_usage", prices=both[:1],
        ),
        "negative-price": case(
            "a price below nothing", [tiny], [line(there, 1, 5, 0)], None,
            expect="wire.bad_field", prices=[[*there, {**price, "prompt": -1}]],
        ),
        "no-currency": case(
            "a price in no currency", [tiny], [line(there, 1, 5, 0)], None,
            expect="inference.bad_usage", prices=[[*there, {**price, "currency": "tokens"}]],
        ),
    }  # fmt: skip


def written() -> dict[str, dict[str, str]]:
    """Folder to file to text."""

    def text(value: Any) -> str:
        return json.dumps(value, indent=1, sort_keys=True) + "\n"

    return {
        "inference_receipt": {f"{name}.json": text(case.to_json()) for name, case in cases().items()},
        "usage": {f"{name}.json": text(case) for name, case in bills().items()},
    }


if __name__ == "__main__":
    for folder, files in written().items():
        (HERE / folder).mkdir(exist_ok=True)
        for old in (HERE / folder).glob("*.json"):
            old.unlink()
        for name, content in files.items():
            (HERE / folder / name).write_text(content, encoding="utf-8")
