"""Writes ``vectors/ehbp``. Deterministic: fixed seeds.

    python vectors/make_ehbp.py

One file a case, with its ``operation``, its inputs and ``expect``: ``ok`` or the stable code of the error; where it is
``ok`` also what comes out. ``spec/ehbp.md`` says what each operation does. Bytes are lowercase hex.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.ehbp import (
    ENCAPSULATED_KEY_HEADER,
    ClientExchange,
    Padding,
    PrivateKey,
    Recipient,
    RequestHead,
    ResponseHead,
    Sender,
)
from strongroom.ehbp.exchange import _Response
from strongroom.ehbp.records import Writer

FOLDER = Path(__file__).parent / "ehbp"
P = 2**255 - 19


def seed(name: str, size: int = 32) -> bytes:
    return hashlib.shake_256(f"ehbp {name}".encode()).digest(size)


KEY, OTHER_KEY = PrivateKey(seed("enclave")), PrivateKey(seed("another enclave"))
SEED, OTHER_SEED, NONCE = seed("client"), seed("another exchange"), seed("response nonce")
KEYSET, OTHER_KEYSET, CONTRACT = (wire.digest(name) for name in (b"a keyset", b"another keyset", b"a contract"))
HEAD = RequestHead(
    method="POST",
    path="/v1/chat/completions?trace=1",
    content_type="application/json",
    accept="text/event-stream",
    request_id=seed("request id", 16),
    keyset=KEYSET,
    contract=CONTRACT,
)
ANSWER = ResponseHead(200, "text/event-stream", HEAD.request_id, "rcpt-0001", KEYSET)
BODY = b'{"messages":[{"content":"What is in the strongroom?","role":"user"}],"model":"example","stream":true}'
EVENTS = (b'data: {"delta":"What you"}\n\n', b'data: {"delta":" put there."}\n\n', b"data: [DONE]\n\n")
BUCKETS = (512, 2048, 32768)
# The inputs of the vectors that EHBP's own repository has for responses; the ciphertexts come out the same.
SECRET, ENC, PLAIN_NONCE = (bytes(range(32 * n, 32 * n + 32)) for n in range(3))

cases: dict[str, dict[str, Any]] = {}


def add(name: str, operation: str, description: str, expect: str, /, **inputs: Any) -> None:
    assert name not in cases
    cases[name] = {"description": description, "expect": expect, "operation": operation, **inputs}


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


# --- plain EHBP -------------------------------------------------------------------------------------------------------


def key_configurations() -> None:
    good = KEY.public.config()
    raw = KEY.public.raw

    def check(name: str, description: str, expect: str, config: bytes, **found: Any) -> None:
        add(f"config-{name}", "key config", description, expect, config=config.hex(), **found)

    check("ours", "one key", "ok", good, public_key=raw.hex())
    check("key-id", "another key id: requests do not carry it", "ok", b"\7" + good[1:], public_key=raw.hex())
    check("several", "two keys: the first counts", "ok", good + OTHER_KEY.public.config(), public_key=raw.hex())
    check("empty", "nothing", "ehbp.bad_key_config", b"")
    check("no-kem", "it ends within the KEM's id", "ehbp.bad_key_config", good[:2])
    check("short-key", "it ends within the key", "ehbp.bad_key_config", good[:20])
    check("no-suites", "it ends after the key", "ehbp.bad_key_config", good[:35])
    check("empty-suites", "no suite", "ehbp.bad_key_config", good[:35] + bytes(2))
    check("odd-suites", "suites of three bytes", "ehbp.bad_key_config", good[:35] + bytes.fromhex("0003000100"))
    check("cut-suites", "suites shorter than their length", "ehbp.bad_key_config", good[:35] + bytes.fromhex("000800010002"))
    check("too-long", "4097 bytes", "ehbp.bad_key_config", good + bytes(4097 - len(good)))
    for name, point in (("0", 0), ("1", 1), ("minus-1", P - 1), ("p", P)):
        config = good[:3] + point.to_bytes(32, "little") + good[35:]
        check(f"small-order-{name}", "a key that gives everybody the same secret", "ehbp.bad_key_config", config)
    check("kem", "P-256", "ehbp.unsupported_suite", b"\0\0\x10" + good[3:])
    check("kdf", "HKDF-SHA384", "ehbp.unsupported_suite", good[:37] + bytes.fromhex("00020002"))
    check("aead", "ChaCha20-Poly1305", "ehbp.unsupported_suite", good[:37] + bytes.fromhex("00010003"))
    check(
        "two-suites",
        "the one suite twice",
        "ehbp.unsupported_suite",
        good[:35] + bytes.fromhex("0008") + good[37:] + good[37:],
    )
    check(
        "rfc-9458",
        "with the length that RFC 9458 puts before each",
        "ehbp.unsupported_suite",
        len(good).to_bytes(2, "big") + good,
    )


def plain_requests() -> None:
    """As any EHBP peer makes them."""
    sender = Sender(KEY.public, seed=SEED)
    one, two, three = (sender.seal(part) for part in (b"one", b"two", b"three"))
    other = Sender(KEY.public, seed=OTHER_SEED)
    other_two = (other.seal(b"one"), other.seal(b"two"))[1]
    enc = sender.encapsulated_key.hex()

    def request(
        name: str, description: str, expect: str, body: bytes, headers: list[str] | None = None, **more: Any
    ) -> None:
        headers = [enc] if headers is None else headers
        limits = {"max_bytes": 1 << 20, "max_empty": 3, "max_frame": 1 << 16} | more
        add(
            f"request-{name}", "request", description, expect, private_key=KEY.raw.hex(), headers=headers, body=body.hex(),
            seed=SEED.hex(), plaintext=b"onetwothree".hex() if expect == "ok" else None, **limits,
        )  # fmt: skip

    whole = one + two + three
    request("frames", "three frames", "ok", whole)
    request("empty-frames", "frames without ciphertext between them", "ok", bytes(8) + one + two + bytes(4) + three)
    request("no-header", "no encapsulated key", "ehbp.bad_encapsulated_key", whole, [])
    request("two-headers", "the header twice", "ehbp.bad_encapsulated_key", whole, [enc, enc])
    request("upper-case", "upper-case hex", "ehbp.bad_encapsulated_key", whole, [enc.upper()])
    request("short-key", "31 bytes", "ehbp.bad_encapsulated_key", whole, [enc[:-2]])
    for number, point in (("0", 0), ("1", 1), ("minus-1", P - 1), ("p", P)):
        name, value = f"small-order-{number}", point.to_bytes(32, "little").hex()
        request(name, "an encapsulated key whose secret everybody knows", "ehbp.bad_encapsulated_key", whole, [value])
    altered = flip(sender.encapsulated_key, 0).hex()
    request("other-key", "another encapsulated key", "ehbp.key_config_mismatch", whole, [altered])
    spelled = flip(sender.encapsulated_key, 31, 7).hex()
    request("other-spelling", "the same point, spelled otherwise", "ehbp.key_config_mismatch", whole, [spelled])
    stale = Sender(OTHER_KEY.public, seed=SEED)
    request("stale", "encrypted to another enclave's key", "ehbp.key_config_mismatch", stale.seal(b"one"))
    request("first-altered", "a bit of the first frame", "ehbp.key_config_mismatch", flip(whole, 4))
    request("tag-only", "a first frame shorter than a tag", "ehbp.key_config_mismatch", bytes.fromhex("0000000100"))
    request("later-altered", "a bit of a later frame", "ehbp.frame_altered", flip(whole, len(one) + 4))
    request("reordered", "two frames swapped", "ehbp.frame_altered", one + three + two)
    request("repeated", "a frame twice", "ehbp.frame_altered", one + one + two + three)
    request("left-out", "a frame left out", "ehbp.frame_altered", one + three)
    request("spliced", "a frame of another exchange with the same key", "ehbp.frame_altered", one + other_two + three)
    request("cut-length", "it ends within a length", "ehbp.truncated", whole + bytes(3))
    request("cut-frame", "it ends within a frame", "ehbp.truncated", whole[:-1])
    request("frame-too-large", "a frame of 4 GiB, of which nothing is there", "ehbp.frame_too_large", b"\xff" * 4)
    request("body-too-large", "one byte over the limit", "ehbp.body_too_large", whole, max_bytes=len(whole) - 1)
    request("flood", "more frames without ciphertext than are passed over", "ehbp.empty_frames", bytes(16) + whole)
    request("no-body", "nothing was encrypted, and there is nobody to answer", "ehbp.no_body", b"")

    add(
        "request-made",
        "make request",
        "the same seed and the same pieces make the same request",
        "ok",
        public_key=KEY.public.raw.hex(),
        seed=SEED.hex(),
        pieces=[b"one".hex(), b"two".hex(), b"three".hex()],
        headers=[enc],
        body=whole.hex(),
    )


def plain_responses() -> None:
    """From the secret that both sides export."""

    def response(name: str, description: str, expect: str, nonces: list[str], body: bytes) -> None:
        add(
            f"response-{name}", "response", description, expect, exported_secret=SECRET.hex(), encapsulated_key=ENC.hex(),
            nonces=nonces, body=body.hex(), plaintext=b"onetwothree".hex() if expect == "ok" else None,
        )  # fmt: skip

    sealer = _Response(SECRET, ENC, PLAIN_NONCE)
    parts = [sealer.seal(part) for part in (b"one", b"two", b"three")]
    nonce = PLAIN_NONCE.hex()
    response("frames", "three frames", "ok", [nonce], b"".join(parts))
    response("no-nonce", "not encrypted, or its nonce was taken away", "ehbp.bad_response_nonce", [], b"".join(parts))
    response("two-nonces", "two nonces", "ehbp.bad_response_nonce", [nonce, nonce], b"".join(parts))
    response("short-nonce", "31 bytes", "ehbp.bad_response_nonce", [nonce[:-2]], b"".join(parts))
    response("other-nonce", "another nonce", "ehbp.frame_altered", [flip(PLAIN_NONCE, 0).hex()], b"".join(parts))
    response("altered", "a bit of the first frame", "ehbp.frame_altered", [nonce], flip(b"".join(parts), 4))
    response("reordered", "two frames swapped", "ehbp.frame_altered", [nonce], parts[1] + parts[0] + parts[2])
    response("cut-frame", "it ends within a frame", "ehbp.truncated", [nonce], b"".join(parts)[:-1])


# --- sealed requests --------------------------------------------------------------------------------------------------


def record(data: bytes, *, flag: int = 1, padding: bytes = b"", size: int | None = None) -> bytes:
    return bytes([flag]) + (len(data) if size is None else size).to_bytes(4, "big") + data + padding


def headed(head: bytes, data: bytes = b"") -> bytes:
    return len(head).to_bytes(4, "big") + head + data


def request_case(name: str, description: str, expect: str, body: bytes, **more: Any) -> None:
    inputs = {
        "private_key": KEY.raw.hex(),
        "headers": [Sender(KEY.public, seed=SEED).encapsulated_key.hex()],
        "method": HEAD.method,
        "path": HEAD.path,
        "keyset": KEYSET,
        "contract": CONTRACT,
        "max_body": 1 << 20,
        "seen": [],
        "seen_capacity": 4,
        "body": body.hex(),
    } | more
    outcome = {"head": json.loads(HEAD.encode()), "plaintext": BODY.hex()} if expect == "ok" else {}
    add(f"sealed-request-{name}", "sealed request", description, expect, **inputs, **outcome)


def sealed_requests() -> None:
    exchange = ClientExchange(KEY.public, HEAD, seed=SEED)
    enc = bytes.fromhex(exchange.request.headers[ENCAPSULATED_KEY_HEADER])
    whole = exchange.request.last(BODY)
    request_case("whole", "one record", "ok", whole)
    padded = ClientExchange(KEY.public, HEAD, seed=SEED, padding=Padding(BUCKETS)).request.last(BODY)
    request_case("padded", "padded to 512 bytes", "ok", padded)
    writer = ClientExchange(KEY.public, HEAD, seed=SEED).request
    pieces = [writer.write(BODY[:40]), writer.write(b""), writer.write(BODY[40:]), writer.last()]
    add(
        "sealed-request-made", "make sealed request", "a whole body, padded", "ok", public_key=KEY.public.raw.hex(),
        seed=SEED.hex(), head=json.loads(HEAD.encode()), buckets=BUCKETS, plaintext=BODY.hex(), headers=[enc.hex()],
        body=padded.hex(),
    )  # fmt: skip
    request_case("pieces", "a head with some data, a record without any, the rest, and the end", "ok", b"".join(pieces))
    other = ClientExchange(KEY.public, replace(HEAD, request_id=seed("other id", 16)), seed=OTHER_SEED).request
    others = [other.write(BODY[:40]), other.write(b""), other.last(BODY[40:])]

    target = "ehbp.wrong_target"
    request_case("other-path", "sent to another address", target, whole, path="/v1/completions?trace=1")
    request_case("other-query", "sent with another query", target, whole, path="/v1/chat/completions")
    request_case("other-method", "sent with another method", target, whole, method="PUT")
    request_case("other-keyset", "the client verified another keyset", "ehbp.wrong_keyset", whole, keyset=OTHER_KEYSET)
    request_case("other-contract", "another contract is served", "ehbp.wrong_contract", whole, contract=OTHER_KEYSET)
    request_case("no-contract", "no contract is served", "ehbp.wrong_contract", whole, contract=None)
    request_case("replayed", "the same request again", "ehbp.replayed", whole, seen=[enc.hex()])
    full = [seed(f"seen {n}").hex() for n in range(4)]
    request_case("full", "as many requests as the keyset may have were there", "ehbp.seen_keys_full", whole, seen=full)
    request_case("no-record", "no frame", "ehbp.not_ended", b"")
    request_case("last-cut-off", "the last frame was taken away", "ehbp.not_ended", b"".join(pieces[:-1]))
    request_case("first-alone", "all but the first frame was taken away", "ehbp.not_ended", pieces[0])
    request_case("cut", "it ends within the last frame", "ehbp.truncated", whole[:-1])
    request_case("frame-after-end", "a frame after the last", "ehbp.after_end", whole + whole)
    request_case("bytes-after-end", "a byte after the last frame", "ehbp.after_end", whole + b"\0")
    request_case("empty-frame-after-end", "an empty frame after the last", "ehbp.after_end", whole + bytes(4))
    request_case("empty-frame", "an empty frame that anybody may have put there", "ehbp.empty_frames", bytes(4) + whole)
    swapped = pieces[0] + pieces[2] + pieces[1] + pieces[3]
    request_case("reordered", "two records swapped", "ehbp.frame_altered", swapped)
    request_case("left-out", "a record left out", "ehbp.frame_altered", pieces[0] + pieces[2] + pieces[3])
    request_case("repeated", "a record twice", "ehbp.frame_altered", pieces[0] + pieces[1] * 2 + pieces[2] + pieces[3])
    request_case("spliced", "the end of another request", "ehbp.frame_altered", b"".join(pieces[:2]) + others[2])
    request_case(
        "other-first", "the beginning of another request", "ehbp.key_config_mismatch", others[0] + b"".join(pieces[1:])
    )
    request_case("body-too-large", "one byte of data over the limit", "ehbp.body_too_large", whole, max_body=len(BODY) - 1)
    request_case("frame-too-large", "a frame of 16 MiB, a tag and a byte", "ehbp.frame_too_large", bytes.fromhex("01000011"))
    forged_requests()


def forged_requests() -> None:
    """What a client that does not keep to the format sends: authentic, and refused all the same."""

    def forged(name: str, description: str, expect: str, *records: bytes) -> None:
        sender = Sender(KEY.public, seed=SEED)
        request_case(name, description, expect, b"".join(sender.seal(item) for item in records))

    head = HEAD.encode()
    forged("plain-ehbp", "the body of plain EHBP", "ehbp.bad_record", BODY)
    forged("short-record", "a record of four bytes", "ehbp.bad_record", bytes(4))
    forged("empty-plaintext", "a frame that holds nothing", "ehbp.bad_record", b"")
    forged("flag", "a flag of 2", "ehbp.bad_record", record(headed(head), flag=2))
    forged("long-data", "data longer than its record", "ehbp.bad_record", record(headed(head), size=len(headed(head)) + 1))
    forged("no-head", "no room for the head's length", "ehbp.bad_record", record(b"abc"))
    forged("cut-head", "a head longer than its record", "ehbp.bad_record", record(headed(head)[:-1]))
    forged("long-head", "a head of 16,385 bytes", "ehbp.bad_record", record(headed(b" " * 16385)))
    forged("padding", "padding that says something", "ehbp.bad_padding", record(headed(head), padding=bytes(9) + b"x"))
    late = record(b"", padding=b"\1")
    forged("late-padding", "the same in a later record", "ehbp.bad_padding", record(headed(head), flag=0), late)
    members = json.loads(head)
    forged("response-head", "a response's head", "wire.bad_field", record(headed(ANSWER.encode())))
    forged("head-format", "another format", "wire.bad_field", record(headed(wire.encode({**members, "format": "x"}))))
    fewer = {name: value for name, value in members.items() if name != "accept"}
    forged("head-missing", "a member missing", "wire.bad_field", record(headed(wire.encode(fewer))))
    forged("head-unknown", "a member that nobody knows", "wire.bad_field", record(headed(wire.encode({**members, "x": 1}))))
    forged("head-spelling", "another spelling", "wire.not_canonical", record(headed(json.dumps(members).encode())))
    forged("head-not-json", "no JSON", "wire.not_json", record(headed(b"{")))
    forged("head-empty", "no bytes", "wire.not_json", record(headed(b"")))
    for name, value in {
        "method": "post",
        "path": "v1/chat/completions",
        "content_type": "a\nb",
        "accept": "",
        "request_id": "00",
        "keyset": "sha256:",
        "contract": "",
    }.items():
        bad = wire.encode({**members, name: value})
        forged(f"head-{name}", f"a {name} that cannot be one", "wire.bad_field", record(headed(bad)))
    forged(
        "head-long-path",
        "a path of 8,193 characters",
        "wire.bad_field",
        record(headed(wire.encode({**members, "path": "/" * 8193}))),
    )


# --- sealed responses -------------------------------------------------------------------------------------------------


def response_case(name: str, description: str, expect: str, body: bytes, **more: Any) -> None:
    inputs = {
        "public_key": KEY.public.raw.hex(),
        "seed": SEED.hex(),
        "request": json.loads(HEAD.encode()),
        "nonces": [NONCE.hex()],
        "status": ANSWER.status,
        "max_body": 1 << 20,
        "body": body.hex(),
    } | more
    outcome = {"head": json.loads(ANSWER.encode()), "plaintext": b"".join(EVENTS).hex()} if expect == "ok" else {}
    add(f"sealed-response-{name}", "sealed response", description, expect, **inputs, **outcome)


def answering(*, request_seed: bytes = SEED) -> Recipient:
    """The enclave's half of the exchange, which has read the request."""
    request = Sender(KEY.public, seed=request_seed)
    recipient = Recipient(KEY, request.encapsulated_key)
    recipient.open(request.seal(b"a request")[4:])
    return recipient


def written_answer(head: ResponseHead = ANSWER, padding: Padding | None = None, request_seed: bytes = SEED) -> list[bytes]:
    writer = Writer(answering(request_seed=request_seed).respond(NONCE), head.encode(), padding, {})
    return [*(writer.write(event) for event in EVENTS), writer.last()]


def sealed_responses() -> None:
    pieces = written_answer()
    whole = b"".join(pieces)
    response_case("stream", "three events and the end", "ok", whole)
    response_case("padded", "each padded to 512 bytes", "ok", b"".join(written_answer(padding=Padding(BUCKETS))))
    add(
        "sealed-response-made", "make sealed response", "three events and the end, padded", "ok", private_key=KEY.raw.hex(),
        request_seed=SEED.hex(), nonce=NONCE.hex(), head=json.loads(ANSWER.encode()), buckets=BUCKETS,
        pieces=[event.hex() for event in EVENTS], body=b"".join(written_answer(padding=Padding(BUCKETS))).hex(),
    )  # fmt: skip
    response_case("no-nonce", "an answer that is not encrypted", "ehbp.bad_response_nonce", whole, nonces=[])
    response_case("two-nonces", "two nonces", "ehbp.bad_response_nonce", whole, nonces=[NONCE.hex()] * 2)
    response_case("upper-case", "upper-case hex", "ehbp.bad_response_nonce", whole, nonces=[NONCE.hex().upper()])
    response_case("other-nonce", "another nonce", "ehbp.frame_altered", whole, nonces=[flip(NONCE, 0).hex()])
    elsewhere = b"".join(written_answer(request_seed=OTHER_SEED))
    response_case("of-another-exchange", "the answer to another request", "ehbp.frame_altered", elsewhere)
    for name, description, expect, head in (
        ("other-request", "an answer that names another request", "ehbp.wrong_request", {"request_id": seed("other", 16)}),
        ("other-keyset", "an answer that names another keyset", "ehbp.wrong_keyset", {"keyset": OTHER_KEYSET}),
        ("other-status", "a refusal that arrives as a success", "ehbp.wrong_status", {"status": 403}),
    ):
        response_case(name, description, expect, b"".join(written_answer(replace(ANSWER, **head))))
    response_case("status-changed", "a success that arrives as a refusal", "ehbp.wrong_status", whole, status=500)
    response_case("nothing", "no frame", "ehbp.not_ended", b"")
    response_case("cut-at-frame", "its last frames were taken away", "ehbp.not_ended", b"".join(pieces[:2]))
    response_case("last-cut-off", "its last frame was taken away", "ehbp.not_ended", b"".join(pieces[:-1]))
    response_case("cut", "it ends within a frame", "ehbp.truncated", whole[:-1])
    response_case("after-end", "a frame after the last", "ehbp.after_end", whole + pieces[0])
    response_case("altered", "a bit of the first frame", "ehbp.frame_altered", flip(whole, 4))
    response_case("reordered", "two events swapped", "ehbp.frame_altered", pieces[0] + pieces[2] + pieces[1] + pieces[3])
    response_case("left-out", "an event left out", "ehbp.frame_altered", pieces[0] + pieces[2] + pieces[3])
    response_case("repeated", "an event twice", "ehbp.frame_altered", pieces[0] + pieces[1] * 2 + pieces[2] + pieces[3])
    response_case(
        "too-large", "one byte of data over the limit", "ehbp.body_too_large", whole, max_body=len(b"".join(EVENTS)) - 1
    )

    def forged(name: str, description: str, expect: str, item: bytes) -> None:
        response_case(name, description, expect, answering().respond(NONCE).seal(item))

    members = json.loads(ANSWER.encode())
    forged("plain-ehbp", "the body of plain EHBP", "ehbp.bad_record", EVENTS[0])
    forged("padding", "padding that says something", "ehbp.bad_padding", record(headed(ANSWER.encode()), padding=b"\0\1"))
    forged("request-head", "a request's head", "wire.bad_field", record(headed(HEAD.encode())))
    for name, value in {"status": 199, "content_type": "", "request_id": "00", "receipt_id": "a b", "keyset": ""}.items():
        bad = wire.encode({**members, name: value})
        forged(f"head-{name}", f"a {name} that cannot be one", "wire.bad_field", record(headed(bad)))


# --- all --------------------------------------------------------------------------------------------------------------


def written() -> dict[str, str]:
    """Every file by its name."""
    cases.clear()
    for make in (key_configurations, plain_requests, plain_responses, sealed_requests, sealed_responses):
        make()
    return {f"{name}.json": json.dumps(case, indent=2, sort_keys=True) + "\n" for name, case in sorted(cases.items())}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    files = written()
    for path in FOLDER.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
