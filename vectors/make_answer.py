"""Writes ``vectors/answer``: one kept answer a file, who reads it, and what comes of it. Deterministic.

    python vectors/make_answer.py

The service that answers is that of the tests (tests/fake_service.py), with its fixed keys and "random" bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from fake_service import MODEL, TRUST, URL, WEIGHTS, Asked, Keys, Service  # noqa: E402 - the world is found first
from strongroom import wire  # noqa: E402
from strongroom.app.client.answer import Answer  # noqa: E402
from strongroom.app.client.session import Shown  # noqa: E402
from strongroom.ehbp import RESPONSE_NONCE_HEADER, ClientExchange, Padding, RequestHead  # noqa: E402
from strongroom.trust import Root, Trust  # noqa: E402
from world import EDITED, HOUR, NOW, card, keys_of, seed  # noqa: E402

FOLDER = HERE / "answer"
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
MESSAGES = [{"content": "How do cells divide?", "role": "user"}]
NONCE = seed("a client's nonce")
CREDENTIAL = "Bearer anon-" + "0" * 32
PINNED = replace(TRUST, parties=(card("hospital"), card("lab")))
Case = dict[str, Any]


def get(service: Service, path: str, query: str = "") -> bytes:
    return service.handle(Asked("GET", path, query, httpx.Headers({"authorization": CREDENTIAL}), b"")).body


def kept(path: str, said: dict[str, Any], *, name: str, service: Service | None = None) -> Answer:
    """What a client keeps of one request, each byte of it as the service answered."""
    service = service or Service()
    report, keys = get(service, "/v1/aci/attestation", f"nonce={NONCE.hex()}"), get(service, "/.well-known/hpke-keys")
    shown = Shown.from_json(json.loads(get(service, "/v1/room")))
    body = wire.encode(said)
    head = RequestHead(
        method="POST",
        path=path,
        content_type="application/json",
        accept=None,
        request_id=seed(f"request {name}", 16),
        keyset=service.keys.keyset.digest,
        contract=service.contract.digest,
    )
    padding = Padding.powers_of_two()
    exchange = ClientExchange(service.keys.requests.public, head, seed=seed(f"exchange {name}"), padding=padding)
    headers = httpx.Headers({**exchange.request.headers, "authorization": CREDENTIAL})
    answer = service.handle(Asked("POST", path, "", headers, exchange.request.last(body)))
    nonces = [value for header, value in answer.headers.items() if header.lower() == RESPONSE_NONCE_HEADER.lower()]
    reading = exchange.response(nonces, status=answer.status, max_body=1 << 20)
    restored = reading.feed(answer.body)
    reading.end()
    assert reading.head is not None
    return Answer(
        url=URL,
        nonce=NONCE,
        attested_at=NOW,
        report=report,
        keys=keys,
        shown=shown,
        method="POST",
        endpoint=path,
        request=body,
        sent_at=NOW,
        received_at=NOW,
        status=answer.status,
        content_type=reading.head.content_type,
        receipt_id=reading.head.receipt_id,
        returned=answer.body,
        restored=restored,
        receipt=get(service, f"/v1/aci/receipts/{reading.head.receipt_id}"),
    )


CHATTED = {"messages": MESSAGES, "model": MODEL}
GOOD = kept(CHAT, {**CHATTED, "stream": True}, name="stream")
CONTRACT = wire.digest(Service().contract.envelope.payload)


def case(
    description: str,
    expect: str = "ok",
    *,
    answer: Answer | str = GOOD,
    fails: str | None = None,
    trust: Trust = TRUST,
    contract: str | None = CONTRACT,
    weights: dict[str, str] | None = None,
) -> Case:
    """``fails``: the number of the first check of the receipt that does not pass."""
    found: Case = {
        "answer": answer if isinstance(answer, str) else json.dumps(answer.to_json(), sort_keys=True),
        "contract": contract,
        "description": description,
        "expect": expect,
        "trust": trust.to_json(),
        "weights": weights or {},
    }
    if fails is not None or expect == "ok":
        found["fails"] = fails or ""
    return found


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    said = GOOD.to_json()
    change(said)
    return json.dumps(said, sort_keys=True)


def good() -> dict[str, Case]:
    hidden = Service(reveal=False)
    unshown = kept(CHAT, CHATTED, name="hidden", service=hidden)
    refused = kept(CHAT, {**CHATTED, "model": "unknown"}, name="refused")
    return {
        "ok-stream": case("a streamed chat"),
        "ok-whole": case("a chat in one piece", answer=kept(CHAT, CHATTED, name="whole")),
        "ok-embeddings": case("embeddings", answer=kept(EMBEDDINGS, {"input": "cells", "model": MODEL}, name="embeddings")),
        "ok-refused": case("a request for a model that is not served, refused with a receipt", answer=refused),
        "ok-any-spelling": case("indented, its members in another order", answer=json.dumps(_turned(), indent=1)),
        "ok-no-contract-named": case("its reader names no contract, and pinned every party", contract=None, trust=PINNED),
        "ok-weights-named": case(
            "the manifest hides the weights' digest, and the reader knows it",
            answer=unshown,
            contract=hidden.contract.digest,
            weights={MODEL: wire.digest(WEIGHTS)},
        ),
        "weights-not-known": case(
            "the manifest hides the weights' digest, and the reader does not know it",
            "inference.other_weights",
            answer=unshown,
            contract=hidden.contract.digest,
        ),
        "other-weights": case(
            "the reader expects other weights", "inference.other_weights", weights={MODEL: wire.digest(b"another model")}
        ),
    }


def _turned() -> dict[str, Any]:
    return dict(reversed(GOOD.to_json().items()))


def malformed() -> dict[str, Case]:
    def wrong(description: str, change: Callable[[dict[str, Any]], object], expect: str = "wire.bad_field") -> Case:
        return case(description, expect, answer=edited(change))

    return {
        "not-json": case("no JSON", "wire.not_json", answer="an answer"),
        "trailing": case("something follows it", "wire.not_json", answer=edited(lambda _: None) + "x"),
        "not-an-object": case("a list", "wire.bad_field", answer="[]"),
        "member-twice": case("a member twice", "wire.not_json", answer='{"url":"http://x",' + edited(lambda _: None)[1:]),
        "member-missing": wrong("a member is missing", lambda a: a.pop("sent_at")),
        "member-too-many": wrong("a member too many", lambda a: a.update(note="hello")),
        "another-version": wrong("another version", lambda a: a.update(format="strongroom.answer.v2")),
        "nonce-short": wrong("a nonce of 31 bytes", lambda a: a.update(nonce="00" * 31)),
        "nonce-upper": wrong("a nonce in upper case", lambda a: a.update(nonce=a["nonce"].upper())),
        "status-low": wrong("a status that no answer has", lambda a: a.update(status=199)),
        "time-negative": wrong("a time before 1970", lambda a: a.update(received_at=-1)),
        "time-text": wrong("a time as a text", lambda a: a.update(sent_at=str(NOW))),
        "loose-base64": wrong("base64 in two lines", lambda a: a.update(receipt=f"{a['receipt'][:4]}\n{a['receipt'][4:]}")),
        "url-long": wrong("an address of 2049 characters", lambda a: a.update(url="h" * 2049)),
        "shown-missing": wrong("nothing is shown", lambda a: a.update(shown={})),
        "contract-no-envelope": wrong(
            "what is shown as the contract is no envelope",
            lambda a: a["shown"].update(contract={"payload": "AA=="}),
        ),
    }


def service_cases() -> dict[str, Case]:
    """E1 to E8: what the service showed."""
    other = Service(changes={"title": "Another"})
    envelope = GOOD.shown.contract
    unsigned = replace(envelope, signatures=envelope.signatures[:1])

    def showing(**changes: Any) -> Answer:
        return replace(GOOD, shown=replace(GOOD.shown, **changes))

    elsewhere = replace(GOOD, report=wire.encode(other.report(NONCE.hex())))
    affirms = "attest.not_affirming"
    return {
        "nonce-replayed": case("a report for another nonce", affirms, answer=replace(GOOD, nonce=seed("another nonce"))),
        "report-late": case("evidence that came stale", affirms, answer=replace(GOOD, attested_at=NOW + 24 * HOUR)),
        "no-roots": case("the reader believes no platform", affirms, trust=replace(TRUST, roots=())),
        "unknown-root": case(
            "a platform's root that the reader does not believe",
            affirms,
            trust=replace(TRUST, roots=(Root("simulated", keys_of("stranger").signing.public),)),
        ),
        "measurement-not-accepted": case(
            "other code than the reader accepts", affirms, trust=replace(TRUST, measurements=(EDITED,))
        ),
        "other-contract": case("another contract is expected", "inference.other_contract", contract=other.contract.digest),
        "contract-swapped": case(
            "another contract is shown", "inference.other_contract", answer=replace(GOOD, shown=_shown(other))
        ),
        "contract-half-signed": case(
            "a party's signature is missing", "contract.signature_missing", answer=showing(contract=unsigned)
        ),
        "party-not-pinned": case("a party that the reader has not pinned", "party.not_pinned", contract=None),
        "keyset-of-another-contract": case(
            "a keyset that was made for another contract", "broker.keyset_of_another_run", answer=elsewhere
        ),
        "keys-of-another": case(
            "the well-known address names another key than the keyset",
            "ehbp.wrong_keyset",
            answer=replace(GOOD, keys=Keys("second", CONTRACT).requests.public.config()),
        ),
        "manifest-missing": case(
            "the model's manifest is not shown", "inference.other_weights", answer=showing(manifests=())
        ),
        "guard-missing": case("a guard of the policy is not shown", "inference.other_policy", answer=showing(guards=())),
    }


def _shown(service: Service) -> Shown:
    return Shown.from_json(service.room())


def receipt_cases() -> dict[str, Case]:
    """I1 to I19: what was asked and what came, against the receipt."""
    another = kept(CHAT, {**CHATTED, "stream": True, "seed": 1}, name="another")
    changes: dict[str, tuple[str, dict[str, Any], str]] = {
        "receipt-none": ("no receipt", {"receipt": b"{}"}, "I1"),
        "receipt-altered": ("a receipt that was changed after it was signed", {"receipt": _altered()}, "I4"),
        "receipt-later": ("a receipt from after the answer", {"received_at": NOW - HOUR}, "I5"),
        "other-request": ("another request", {"request": b'{"model":"example/small"}'}, "I7"),
        "asked-later": ("a request from after its receipt", {"sent_at": NOW + HOUR}, "I7"),
        "receipt-of-another": ("the receipt of another request", {"receipt": another.receipt}, "I7"),
        "returned-altered": ("other bytes came", {"returned": GOOD.returned[:-1] + b"x"}, "I8"),
        "returned-cut": ("fewer bytes came", {"returned": GOOD.returned[:-100]}, "I8"),
        "restored-altered": (
            "another plaintext",
            {"restored": GOOD.restored.replace(b"divide", b"perish")},
            "I9",
        ),
        "other-endpoint": ("another endpoint", {"endpoint": "/v1/completions"}, "I17"),
        "other-id": ("the answer names another receipt", {"receipt_id": "rcpt-" + "0" * 32}, "I18"),
    }
    return {
        name: case(description, "inference.not_verified", answer=replace(GOOD, **change), fails=fails)
        for name, (description, change, fails) in changes.items()
    }


def _altered() -> bytes:
    said = json.loads(GOOD.receipt)
    said["served_at"] += 1
    return wire.encode(said)


def all_cases() -> dict[str, Case]:
    """By name."""
    return {**good(), **malformed(), **service_cases(), **receipt_cases()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.json"):
        stale.unlink()
    for name, found in all_cases().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
