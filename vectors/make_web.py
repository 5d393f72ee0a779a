"""Writes ``web/test/transcripts.json``: what the Python verifier says of the vectors, check by check; and
``web/test/exchanges.json``: a service's answers to a client, and what the Python client makes of them.

    python vectors/make_web.py

The browser's verifier must say the same of them: same checks, outcomes, codes and words. Deterministic: it reads the other
vectors, asks no second verifier, and the service is the one of the client's tests (``tests/fake_service.py``).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from httpx import Headers

from strongroom import errors, wire
from strongroom.app.client.answer import Answer
from strongroom.app.client.session import STEPS as SESSION_STEPS
from strongroom.app.client.session import Reply, Terms, establish, questions
from strongroom.attest import appraisal, intel, simulated, snp, tdx
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.keyset import Keyset
from strongroom.ehbp import ClientExchange, RequestHead
from strongroom.errors import AttestationError
from strongroom.inference import reading
from strongroom.inference.events import Observability, Usage
from strongroom.inference.expected import Agreed, Answered, Asked, Expected
from strongroom.inference.guard import Guard, Stage
from strongroom.inference.verification import Reader, examine
from strongroom.ledger import LogVerifier
from strongroom.transcript import Check, Steps, Transcript

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import fake_service  # noqa: E402 - of the tests

WRITTEN = HERE.parent / "web" / "test" / "transcripts.json"
EXCHANGES = WRITTEN.with_name("exchanges.json")
CODES = HERE.parent / "web" / "src" / "verify" / "errors.ts"
LISTS: tuple[Steps, ...] = (
    appraisal.STEPS, simulated.STEPS, intel.STEPS, snp.STEPS, snp.TERMS_STEPS, tdx.TERMS_STEPS, reading.STEPS, SESSION_STEPS,
)  # fmt: skip

Recorded = list[list[str]]


def recorded(checks: Iterable[Check]) -> Recorded:
    """Each check's number, outcome, code and words; what was never reached is left out."""
    return [[c.number, c.status.value, c.code, c.detail] for c in checks if c.detail != "not reached"]


def _cases(folder: str) -> dict[str, Any]:
    found = {path.stem: json.loads(path.read_bytes()) for path in sorted((HERE / folder).glob("*.json"))}
    if not found:
        raise SystemExit(f"there are no vectors in {folder}")
    return found


def _appraised(case: Any) -> Any:
    return appraise(
        Evidence.from_json(case["evidence"]),
        policy=AppraisalPolicy.from_json(case["policy"]),
        endorsements=Endorsements.from_json(case["endorsements"]),
        nonce=bytes.fromhex(case["nonce"] or ""),
        at=case["at"],
        keyset=Keyset.from_json(case["keyset"]),
    )


def hardware(by: Any, case: Any, **more: bool) -> Recorded:
    transcript, terms = Transcript(by.STEPS), Transcript(by.TERMS_STEPS)
    try:
        verified = by.verify(
            Evidence(by.PLATFORM, wire.unb64(case["evidence"])),
            Endorsements.from_json(case["endorsements"]),
            roots=Roots(certificates=tuple(case["roots"])),
            at=case["at"],
            transcript=transcript,
            **more,
        )
        of = by.Terms() if case["terms"] is None else by.Terms.from_json(case["terms"])
        by.judge(verified, of, at=case["at"], transcript=terms)
    except AttestationError:
        pass  # recorded
    return recorded((*transcript.checks, *terms.checks))


def _expected(value: Any) -> Expected:
    asked, answered, agreed = value["asked"], value["answered"], value["agreed"]
    if answered is not None and answered["usage"] is not None:
        tokens = answered["usage"]
        usage = Usage(tokens["prompt_tokens"], tokens["completion_tokens"], tokens["embedding_tokens"])
        answered = {**answered, "usage": usage}
    if agreed is not None:
        guards = tuple(Guard(g["name"], g["program"], Stage(g["stage"])) for g in agreed["guards"])
        level = Observability(agreed["observability"])
        agreed = {**agreed, "guards": guards, "observability": level, "padding": tuple(agreed["padding"])}
    return Expected(
        asked=Asked(**asked) if asked else None,
        answered=Answered(**answered) if answered else None,
        agreed=Agreed(**agreed) if agreed else None,
        receipt_id=value["receipt_id"],
    )


def _receipt(case: Any) -> Recorded:
    """Without the proof of a log: the page asks none."""
    found = examine(
        case["receipt"].encode("utf-8", "surrogatepass"),
        appraisal=case["appraisal"] and _appraised(case["appraisal"]),
        expected=_expected(case["expected"]),
        at=case["at"],
        logs=tuple(LogVerifier.from_vkey(key) for key in case["logs"]),
    )
    return recorded(found.transcript.checks)


def written() -> str:
    """What the file must hold."""
    leaves, spoken = errors.leaves(), re.findall(r'^ {2}"([a-z_.]+)":', CODES.read_text(encoding="utf-8"), re.MULTILINE)
    found = {
        "names": {number: name for steps in LISTS for number, name in steps},
        "hints": {code: leaves[code].hint for code in sorted(spoken)},
        "appraisal": {name: recorded(_appraised(case).checks) for name, case in _cases("appraisal").items()},
        "sev_snp": {name: hardware(snp, case) for name, case in _cases("sev_snp").items()},
        "tdx": {name: hardware(tdx, case, ask_second=False) for name, case in _cases("tdx").items()},
        "inference_receipt": {name: _receipt(case) for name, case in _cases("inference_receipt").items()},
    }
    lines = []
    for part, members in found.items():
        inside = ",\n".join(f"{json.dumps(name)}:{json.dumps(value, ensure_ascii=False)}" for name, value in members.items())
        lines.append(f"{json.dumps(part)}: {{\n{inside}\n}}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


# --- exchanges ----------------------------------------------------------------------------------------------------------

NONCE, REQUEST_ID, SEED = (bytes([place]) * size for place, size in ((0xA1, 32), (0xA2, 16), (0xA3, 32)))
CREDENTIAL = "anon-0123456789abcdef0123456789abcdef"
MESSAGES = [{"content": "What do cells do?", "role": "user"}]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "streamed": ("/v1/chat/completions", "text/event-stream", {"messages": MESSAGES, "model": "example/small", **STREAM}),
    "whole": ("/v1/chat/completions", None, {"messages": MESSAGES, "model": "example/small"}),
    "embeddings": ("/v1/embeddings", None, {"input": "cells", "model": "example/small"}),
    "refused": ("/v1/chat/completions", None, {"messages": MESSAGES, "model": "example/large"}),
}


def _reply(answer: Any) -> dict[str, Any]:
    return {"status": answer.status, "headers": answer.headers, "pieces": [wire.b64(piece) for piece in answer.pieces]}


def _exchange(path: str, accept: str | None, said: dict[str, Any]) -> dict[str, Any]:
    """One request through a session, as the Python client makes it."""
    service = fake_service.Service()
    at = service.clock()

    def ask(method: str, to: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Any:
        return service.handle(
            fake_service.Asked(method, to.split("?", maxsplit=1)[0], to.partition("?")[2], Headers(headers), body)
        )

    paths = questions(NONCE)
    answers = [ask("GET", to) for to in paths]
    replies = [Reply(answer.status, answer.body, answer.headers.get("x-aci-keyset-digest")) for answer in answers]
    terms = Terms(trust=fake_service.TRUST, contract=service.contract.digest)
    session = establish(terms, nonce=NONCE, replies=(replies[0], replies[1], replies[2]), at=at)
    head = RequestHead(
        method="POST",
        path=path,
        content_type="application/json",
        accept=accept,
        request_id=REQUEST_ID,
        keyset=session.keyset.digest,
        contract=session.contract.digest,
    )
    body = json.dumps(said).encode()
    sealed = ClientExchange(session.key, head, seed=SEED, padding=session.padding)
    headers = {**sealed.request.headers, "Authorization": f"Bearer {CREDENTIAL}"}
    frames = sealed.request.last(body)
    came = ask("POST", path, headers, frames)
    reader = sealed.response([came.headers["Ehbp-Response-Nonce"]], status=came.status, max_body=1 << 20)
    plain = reader.feed(came.body)
    reader.end()
    assert reader.head is not None
    where = f"/v1/aci/receipts/{reader.head.receipt_id}"
    receipt = ask("GET", where, {"Authorization": f"Bearer {CREDENTIAL}"})
    answer = Answer(
        url=fake_service.URL,
        nonce=NONCE,
        attested_at=at,
        report=session.report,
        keys=session.keys,
        shown=session.shown,
        method="POST",
        endpoint=path,
        request=body,
        sent_at=at,
        received_at=at,
        status=reader.head.status,
        content_type=reader.head.content_type,
        receipt_id=reader.head.receipt_id,
        returned=came.body,
        restored=plain,
        receipt=receipt.body,
    )
    found = answer.examine(session)
    assert found.problem(Reader.CLIENT) is None
    return {
        "trust": json.dumps(fake_service.TRUST.to_json()),
        "contract": session.contract.digest,
        "origin": fake_service.URL,
        "at": at,
        "random": [NONCE.hex(), REQUEST_ID.hex(), SEED.hex()],
        "credential": CREDENTIAL,
        "path": path,
        "accept": accept,
        "body": wire.b64(body),
        "headers": headers,
        "sealed": wire.b64(frames),
        "restored": wire.b64(plain),
        "replies": {to: _reply(one) for to, one in zip((*paths, path, where), (*answers, came, receipt), strict=True)},
        "until": session.until,
        "session": recorded(session.transcript.checks),
        "appraisal": recorded(session.appraisal.checks),
        "receipt": recorded(found.transcript.checks),
        "kept": wire.digest(wire.encode(answer.to_json())),
    }


def exchanges() -> str:
    """What the other file must hold."""
    found = {name: _exchange(*request) for name, request in REQUESTS.items()}
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    WRITTEN.write_text(written(), encoding="utf-8")
    EXCHANGES.write_text(exchanges(), encoding="utf-8")


if __name__ == "__main__":
    main()
