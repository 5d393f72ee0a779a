"""Writes ``vectors/served``: requests for what was served, answers as their asker opens them, and the lines in them.

    python vectors/make_served.py

Fixed seeds and times. Encryption does draw random numbers, so each ciphertext was made once and is kept in
make_served.kept.json; one that no case uses any more is forgotten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE)]

import make_inference_receipt as made  # noqa: E402 - found beside this file
from make_release import Kept as Ciphertexts  # noqa: E402

from fake_service import Service  # noqa: E402
from strongroom import wire  # noqa: E402
from strongroom.attest.keyset import AttestationReport  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402
from strongroom.served import (  # noqa: E402
    MAX_PAGE_BYTES,
    REQUEST_SECONDS,
    REQUEST_TYPE,
    Head,
    Kept,
    Proven,
    ServedRequest,
)
from world import NOW, keys_of, seed  # noqa: E402

FOLDER, KEPT = HERE / "served", HERE / "make_served.kept.json"
KEEP = Ciphertexts(KEPT)
SERVICE = Service()
CONTRACT = SERVICE.contract
OTHER = Service(changes={"title": "Another"}).contract
NONCE = seed("an owner's nonce").hex()
REQUEST = ServedRequest(CONTRACT.digest, "lab", NONCE, NOW)
LAB, HOSPITAL, STRANGER = (keys_of(name) for name in ("lab", "hospital", "stranger"))
RECEIPT = made.sign()
LINES = (b"the head", b"a line", b"another line")
Case = dict[str, Any]


# --- requests ---------------------------------------------------------------------------------------------------------


def asked(
    description: str,
    expect: str = "ok",
    *,
    request: ServedRequest | bytes = REQUEST,
    signers: tuple[SigningKey, ...] = (LAB.signing,),
    kind: str = REQUEST_TYPE,
    at: int = NOW,
) -> Case:
    payload = request if isinstance(request, bytes) else request.encode()
    envelopes = [signer.sign(kind, payload) for signer in signers]
    envelope = replace(envelopes[0], signatures=tuple(s for e in envelopes for s in e.signatures))
    return {
        "at": at,
        "contract": CONTRACT.envelope.to_json(),
        "description": description,
        "expect": expect,
        "operation": "request",
        "request": envelope.encode().decode(),
    }


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    said = json.loads(REQUEST.encode())
    change(said)
    return wire.encode(said)


def request_cases() -> dict[str, Case]:
    field, late = "wire.bad_field", REQUEST_SECONDS
    return {
        "request-ok": asked("a party asks"),
        "request-ok-other-party": asked(
            "so may every other party", request=replace(REQUEST, party="hospital"), signers=(HOSPITAL.signing,)
        ),
        "request-ok-last-second": asked("in the last second in which it counts", at=NOW + late),
        "request-stale": asked("a second later", field, at=NOW + late + 1),
        "request-from-the-future": asked("a second too early", field, at=NOW - late - 1),
        "request-other-contract": asked("for another contract", field, request=replace(REQUEST, contract=OTHER.digest)),
        "request-stranger": asked(
            "who is no party",
            "contract.not_a_party",
            request=replace(REQUEST, party="stranger"),
            signers=(STRANGER.signing,),
        ),
        "request-in-anothers-name": asked("signed by the other party", "wire.bad_signature", signers=(HOSPITAL.signing,)),
        "request-signed-twice": asked("with two signatures", "wire.bad_signature", signers=(LAB.signing, HOSPITAL.signing)),
        "request-of-another-type": asked(
            "a signature for something else", "wire.bad_envelope", kind=wire.media_type("progress-request")
        ),
        "request-nonce-short": asked("a nonce of 31 bytes", field, request=edited(lambda r: r.update(nonce="00" * 31))),
        "request-nonce-missing": asked("no nonce", field, request=edited(lambda r: r.pop("nonce"))),
        "request-member-too-many": asked("a member too many", field, request=edited(lambda r: r.update(note="hello"))),
        "request-not-canonical": asked(
            "not canonical", "wire.not_canonical", request=json.dumps(json.loads(REQUEST.encode())).encode()
        ),
    }


# --- answers ----------------------------------------------------------------------------------------------------------


def page(number: int, lines: tuple[bytes, ...], *, last: bool, request: ServedRequest = REQUEST, to: Any = LAB) -> bytes:
    sealed = KEEP.encrypt(to.decryption.public, b"\n".join(lines), request.info(number, last=last))
    return len(sealed).to_bytes(4, "big") + sealed


def opened(description: str, body: bytes, lines: tuple[bytes, ...] | str, *, request: ServedRequest = REQUEST) -> Case:
    """``lines``: those that come out, or the code of the error."""
    refused = isinstance(lines, str)
    return {
        "body": wire.b64(body),
        "description": description,
        "expect": lines if refused else "ok",
        "key": LAB.decryption.seed.hex(),
        "lines": None if refused else [line.decode() for line in lines],  # type: ignore[union-attr]
        "operation": "open",
        "request": json.loads(request.encode()),
    }


def open_cases() -> dict[str, Case]:
    one = page(0, LINES, last=True)
    first, second = page(0, LINES[:2], last=False), page(1, LINES[2:], last=True)
    again = replace(REQUEST, nonce=seed("another nonce").hex())
    altered, cut = "party.bad_key", "inference.bad_receipt"
    return {
        "open-ok": opened("one page", one, LINES),
        "open-ok-two-pages": opened("two pages, each for its place", first + second, LINES),
        "open-cut-off": opened("the last page is missing", first, cut),
        "open-cut-inside": opened("it ends inside a page", one[:-1], cut),
        "open-empty": opened("nothing came", b"", cut),
        "open-page-missing": opened("the first page is missing", second, altered),
        "open-pages-swapped": opened("two pages changed places", second + first, altered),
        "open-page-twice": opened("a page came twice", first + first + second, altered),
        "open-goes-on": opened("a page follows the last one", one + one, cut),
        "open-byte-altered": opened("a byte was changed", one[:-1] + bytes([one[-1] ^ 1]), altered),
        "open-of-another-request": opened(
            "an answer to an earlier request of the same party", page(0, LINES, last=True, request=again), altered
        ),
        "open-of-another-contract": opened(
            "an answer about another contract",
            page(0, LINES, last=True, request=replace(REQUEST, contract=OTHER.digest)),
            altered,
        ),
        "open-of-another-party": opened("encrypted to the other party", page(0, LINES, last=True, to=HOSPITAL), altered),
        "open-too-large": opened(
            "a page that says it is longer than any", (MAX_PAGE_BYTES + 1).to_bytes(4, "big"), "wire.too_large"
        ),
    }


# --- lines ------------------------------------------------------------------------------------------------------------


HEAD = Head(
    CONTRACT.envelope,
    (SERVICE.manifest,),
    (Proven(bytes.fromhex(NONCE), NOW, AttestationReport.from_json(SERVICE.report(NONCE))),),
)
LINE = Kept(RECEIPT, made.prove(RECEIPT))


def line(description: str, operation: str, data: bytes, expect: str = "ok") -> Case:
    return {"description": description, "expect": expect, "line": data.decode(), "operation": operation}


def line_cases() -> dict[str, Case]:
    def head(description: str, change: Callable[[dict[str, Any]], object], expect: str = "wire.bad_field") -> Case:
        said = json.loads(HEAD.encode())
        change(said)
        return line(description, "head", wire.encode(said), expect)

    def kept(description: str, change: Callable[[dict[str, Any]], object], expect: str = "wire.bad_field") -> Case:
        said = json.loads(LINE.encode())
        change(said)
        return line(description, "line", wire.encode(said), expect)

    return {
        "head-ok": line("the first line", "head", HEAD.encode()),
        "head-ok-nothing-proven": line("no keyset was proven", "head", replace(HEAD, proven=()).encode()),
        "head-another-version": head("another version", lambda h: h.update(format="strongroom.served.v2")),
        "head-member-missing": head("a member is missing", lambda h: h.pop("manifests")),
        "head-member-too-many": head("a member too many", lambda h: h.update(note="hello")),
        "head-too-many-keysets": head("more keysets than an enclave has", lambda h: h.update(proven=h["proven"] * 65)),
        "head-nonce-missing": head("a report without its nonce", lambda h: h["proven"][0].pop("nonce")),
        "head-not-canonical": line("not canonical", "head", HEAD.encode().replace(b",", b", ", 1), "wire.not_canonical"),
        "line-ok": line("a receipt and where the log holds it", "line", LINE.encode()),
        "line-ok-not-logged": line("a receipt that is not known to be logged", "line", Kept(RECEIPT).encode()),
        "line-member-too-many": kept("a member too many", lambda k: k.update(note="hello")),
        "line-proof-missing": kept("the proof is left out, and not null", lambda k: k.pop("proof")),
        "line-proof-malformed": kept("a proof that is none", lambda k: k.update(proof={})),
        "line-receipt-malformed": kept("a receipt without its signature", lambda k: k["receipt"].pop("signature")),
        "line-a-head": line("a head where a receipt stands", "line", HEAD.encode(), "wire.bad_field"),
        "line-not-canonical": line("not canonical", "line", LINE.encode().replace(b",", b", ", 1), "wire.not_canonical"),
    }


def all_cases() -> dict[str, Case]:
    """By name."""
    return {**request_cases(), **open_cases(), **line_cases()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.json"):
        stale.unlink()
    for name, found in all_cases().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    KEPT.write_text(json.dumps(KEEP.used, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
