"""Writes vectors/wire/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.party import SigningKey
from strongroom.wire import Envelope, Signature

FOLDER = Path(__file__).parent / "wire"
KEY = SigningKey(hashlib.sha256(b"signer").digest())
STRANGER = SigningKey(hashlib.sha256(b"stranger").digest())
KIND = wire.media_type("proposal")

cases: dict[str, dict[str, Any]] = {}


def add(name: str, operation: str, description: str, expect: str = "ok", /, **inputs: Any) -> None:
    cases[name] = {"description": description, "expect": expect, "operation": operation, **inputs}


def check(name: str, description: str, expect: str, data: bytes | str) -> None:
    data = data.encode() if isinstance(data, str) else data
    add(f"decode-{name}", "decode", description, expect, data=base64.b64encode(data).decode())


def canonical_bytes() -> None:
    check("object", "an object", "ok", '{"a":1,"b":[true,false,null],"c":"x"}')
    check("scalar", "a document need not be an object", "ok", "7")
    check("largest", "the largest integer", "ok", str(2**53 - 1))
    check("smallest", "the smallest integer", "ok", str(1 - 2**53))
    check("utf16-order", "U+1F600 sorts before U+FB33, by its UTF-16 units", "ok", '{"\U0001f600":1,"\ufb33":2}')
    check("depth-32", "a value within 32 lists", "ok", "[" * 32 + "1" + "]" * 32)
    check("escapes", "the control characters that have short escapes, and one that has not", "ok", r'"\b\t\n\f\r\u0001\"\\"')
    check("delete", "U+007F stands as itself", "ok", '"\x7f"')


def other_spellings() -> None:
    refused = "wire.not_canonical"
    check("code-point-order", "the same members by code point", refused, '{"\ufb33":2,"\U0001f600":1}')
    check("unsorted", "members out of order", refused, '{"b":1,"a":2}')
    check("duplicate", "a member twice", refused, '{"a":1,"a":1}')
    check("duplicate-escaped", "a member twice, once escaped", refused, '{"a":1,"\\u0061":2}')
    check("duplicate-nested", "a member twice, further in", refused, '{"a":[{"b":1,"b":2}]}')
    check("white-space", "a space", refused, '{"a": 1}')
    check("trailing-newline", "a newline at the end", refused, '{"a":1}\n')
    check("float", "a fraction", refused, "1.5")
    check("float-whole", "a whole number as a fraction", refused, "1.0")
    check("exponent", "an exponent", refused, "1e2")
    check("minus-zero", "zero with a sign", refused, "-0")
    check("too-large", "2^53", refused, str(2**53))
    check("too-small", "-2^53", refused, str(-(2**53)))
    check("huge-integer", "an integer of 5,000 digits", refused, "9" * 5000)
    check("not-a-number", "NaN", refused, "NaN")
    check("infinity", "-Infinity", refused, "-Infinity")
    check("needless-escape", "a letter escaped", refused, '"\\u0061"')
    check("escaped-solidus", "a solidus escaped", refused, '"\\/"')
    check("upper-case-escape", "an escape in upper case", refused, '"\\u001F"')
    check("lone-high-surrogate", "half a pair", refused, '"\\ud83d"')
    check("lone-low-surrogate", "the other half", refused, '"\\ude00"')
    check("lone-surrogate-member", "half a pair in a member's name", refused, '{"\\ud83d":1}')
    check("escaped-pair", "a pair, escaped", refused, '"\\ud83d\\ude00"')
    check("depth-33", "a value within 33 lists", refused, "[" * 33 + "1" + "]" * 33)
    check("depth-32768", "nested deeper than a parser can go", refused, "[" * 32_768)
    check("values-65537", "more values than a document may hold", "wire.too_large", "[" * 65_537)


def no_json() -> None:
    broken = "wire.not_json"
    check("empty", "no bytes", broken, b"")
    check("byte-order-mark", "a byte order mark", broken, b"\xef\xbb\xbf{}")
    check("utf16", "another encoding", broken, "{}".encode("utf-16"))
    check("overlong", "an overlong encoding", broken, b'"\xc0\xaf"')
    check("encoded-surrogate", "a surrogate encoded as it stands", broken, b'"\xed\xa0\xbd"')
    check("trailing-bytes", "a second document", broken, "{}{}")
    check("trailing-comma", "a comma too many", broken, '{"a":1,}')
    check("leading-zero", "a leading zero", broken, "01")
    check("plus", "a plus sign", broken, "+1")
    check("raw-control", "a raw control character", broken, b'"\x01"')
    check("single-quotes", "other quotation marks", broken, "{'a':1}")
    check("comment", "a comment", broken, "{}//")
    check("unclosed", "cut short", broken, '{"a":1')


def encoding() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    value = {key: n for n, key in enumerate(keys)}
    order = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    text = "{" + ",".join(f"{json.dumps(k, ensure_ascii=k < ' ')}:{value[k]}" for k in order) + "}"
    add("encode-rfc8785-order", "encode", "the member names of RFC 8785 section 3.2.3", canonical=text, value=value)
    add(
        "encode-nested",
        "encode",
        "sorted at every level",
        canonical='{"a":{"b":1,"c":2},"d":[3,1,2]}',
        value={"d": [3, 1, 2], "a": {"c": 2, "b": 1}},
    )
    add("encode-float", "encode", "a fraction", "wire.not_canonical", value=1.5)
    add("encode-too-large", "encode", "2^53", "wire.not_canonical", value={"a": 2**53})


def text_forms() -> None:
    for name, description, expect, text in (
        ("empty", "no bytes", "ok", ""),
        ("padded", "with its padding", "ok", "AA=="),
        ("both-symbols", "the two symbols of the standard alphabet", "ok", "+/+/"),
        ("no-padding", "without padding", "wire.bad_field", "AA"),
        ("trailing-bits", "bits that belong to no byte", "wire.bad_field", "AB=="),
        ("url-alphabet", "the other alphabet", "wire.bad_field", "-_-_"),
        ("white-space", "a newline within", "wire.bad_field", "AA\nAA"),
        ("trailing-newline", "a newline after", "wire.bad_field", "AAAA\n"),
        ("too-much-padding", "padding too many", "wire.bad_field", "AAAA===="),
        ("padding-inside", "two strings in one", "wire.bad_field", "AA==AA=="),
        ("not-ascii", "another letter", "wire.bad_field", "AAÄA"),
    ):
        add(f"base64-{name}", "base64", description, expect, text=text)
    add(
        "pae-dsse",
        "pae",
        "the example of the DSSE specification",
        encoded=b"DSSEv1 29 http://example.com/HelloWorld 11 hello world".hex(),
        payload=b"hello world".hex(),
        payload_type="http://example.com/HelloWorld",
    )
    add("pae-empty", "pae", "no payload of no type", encoded=b"DSSEv1 0  0 ".hex(), payload="", payload_type="")
    add("pae-utf8", "pae", "lengths are of bytes", encoded="DSSEv1 2 é 0 ".encode().hex(), payload="", payload_type="é")


def envelopes() -> None:
    payload = wire.encode({"name": "a proposal"})
    good = KEY.sign(KIND, payload)
    (signature,) = good.signatures
    spelled = good.encode().decode()

    def parse(name: str, description: str, expect: str, text: str) -> None:
        add(f"envelope-{name}", "envelope", description, expect, envelope=text)

    parse("ours", "one signature", "ok", spelled)
    parse("unsigned", "no signature: an envelope, and nobody's word", "ok", replace(good, signatures=()).encode().decode())
    parse("spaced", "another spelling", "wire.not_canonical", json.dumps(good.to_json()))
    parse("unknown-member", "a member that DSSE does not have", "wire.bad_field", spelled[:-1] + ',"z":1}')
    parse("no-payload", "a member missing", "wire.bad_field", spelled.replace(f'"payload":"{wire.b64(payload)}",', ""))
    parse(
        "loose-payload",
        "the payload in loose base64",
        "wire.bad_field",
        spelled.replace(wire.b64(payload), wire.b64(payload)[:-2] + "1="),
    )
    parse(
        "short-signature",
        "63 bytes",
        "wire.bad_envelope",
        replace(good, signatures=(Signature(signature.keyid, bytes(63)),)).encode().decode(),
    )
    parse(
        "long-signature",
        "65 bytes",
        "wire.bad_field",
        replace(good, signatures=(Signature(signature.keyid, bytes(65)),)).encode().decode(),
    )
    parse("no-keyid", "a signature by nobody", "wire.bad_field", spelled.replace(signature.keyid, ""))
    parse("too-many", "65 signatures", "wire.bad_field", replace(good, signatures=(signature,) * 65).encode().decode())

    def verify(name: str, description: str, expect: str, envelope: Envelope) -> None:
        add(
            f"signed-{name}",
            "verify",
            description,
            expect,
            envelope=envelope.encode().decode(),
            key=KEY.public.raw.hex(),
            payload_type=KIND,
        )

    other = STRANGER.signature(KIND, payload)
    verify("ours", "by the expected key", "ok", good)
    verify("stranger", "by another key", "wire.bad_signature", STRANGER.sign(KIND, payload))
    verify(
        "stranger-as-us",
        "by another key, under our key id",
        "wire.bad_signature",
        replace(good, signatures=(Signature(signature.keyid, other.sig),)),
    )
    verify("unsigned", "by nobody", "wire.bad_signature", replace(good, signatures=()))
    verify("doubled", "our signature twice", "wire.bad_signature", replace(good, signatures=(signature, signature)))
    verify("with-stranger", "ours and another's", "wire.bad_signature", replace(good, signatures=(signature, other)))
    verify(
        "other-payload",
        "a signature moved to another payload",
        "wire.bad_signature",
        replace(good, payload=wire.encode({"name": "b"})),
    )
    verify(
        "other-type",
        "a signature moved to another type",
        "wire.bad_envelope",
        replace(good, payload_type=wire.media_type("release")),
    )
    verify(
        "signed-as-other-type",
        "signed under another type, then relabelled",
        "wire.bad_signature",
        replace(KEY.sign(wire.media_type("release"), payload), payload_type=KIND),
    )
    verify(
        "payload-signed-bare",
        "the payload signed without its type",
        "wire.bad_signature",
        replace(good, signatures=(Signature(signature.keyid, KEY.sign_bytes(payload)),)),
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for make in (canonical_bytes, other_spellings, no_json, encoding, text_forms, envelopes):
        make()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
