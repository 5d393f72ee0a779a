"""Writes vectors/endorsements/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the stand-in for AMD

import pki_amd
from strongroom import wire
from strongroom.app.endorsements.bundle import FORMAT, Bundle
from strongroom.app.endorsements.request import Document
from strongroom.attest.endorsements import CERTIFICATE, CRL, INTEL_TCB_INFO, PEM_CHAIN
from strongroom.attest.evidence import Endorsement

FOLDER = Path(__file__).parent / "endorsements"
LIST = Document(Endorsement(CRL, b"0\x03\x02\x01\x07"), "amd-kds:/vcek/v1/Milan/crl", 1_790_000_000)
LEAF = Document(Endorsement(CERTIFICATE, pki_amd.leaf("genoa")))
CHAIN = Document(Endorsement(PEM_CHAIN, b"-----BEGIN CERTIFICATE-----\n"), "intel-pcs:/tdx/certification/v4/qe/identity", 5)
INFO = Document(Endorsement(INTEL_TCB_INFO, b"{}"), "intel-pcs:/tdx/certification/v4/tcb?fmspc=00806f050000&update=early")

cases: dict[str, dict[str, Any]] = {}


def add(name: str, description: str, data: bytes, expect: str = "ok") -> None:
    case = {"data": base64.b64encode(data).decode(), "description": description, "expect": expect}
    if expect == "ok":
        case["digests"] = [document.digest for document in Bundle.parse(data).documents]  # type: ignore[assignment]
    cases[name] = case


def bundle(*documents: dict[str, Any], **members: Any) -> bytes:
    found = {"documents": list(documents), "format": FORMAT, **members}
    return wire.encode({name: value for name, value in found.items() if value is not ...})


def good() -> None:
    add("empty", "a bundle of nothing, which says nothing", Bundle().encode())
    add("one-document", "one document, and the question that it answers", Bundle((LIST,)).encode())
    add("several", "sorted by question, type and digest", Bundle((LIST, LEAF, CHAIN, INFO)).encode())
    add("unlabelled", "a document of which nobody knows which question it answers, or when", Bundle((LEAF,)).encode())
    add(
        "not-what-it-says",
        "what a document holds is looked at where it is used",
        bundle({**LIST.to_json(), "data": "anVuaw=="}),
    )
    add("no-bytes", "a document of no bytes", bundle({**LIST.to_json(), "data": ""}))
    again = Document(Endorsement(CRL, b"another"), LIST.about, 7)
    add("two-editions", "two answers to one question", Bundle((LIST, again)).encode())


def bad() -> None:
    one, other = LIST.to_json(), LEAF.to_json()
    field = "wire.bad_field"
    add("not-json", "no JSON", b"{", "wire.not_json")
    add("reformatted", "a space after a colon", bundle(one).replace(b'":', b'": ', 1), "wire.not_canonical")
    add("trailing-newline", "a newline at the end", bundle(one) + b"\n", "wire.not_canonical")
    add("member-twice", "a member twice", bundle(one).replace(b"{", b'{"documents":[],', 1), "wire.not_canonical")
    add("another-format", "a later version", bundle(one, format="strongroom.endorsements.v2"), field)
    add("no-format", "the format left out", bundle(one, format=...), field)
    add("no-documents", "the documents left out", wire.encode({"format": FORMAT}), field)
    add("unknown-member", "a member that is not known", bundle(one, signature="x"), field)
    add("unsorted", "documents out of order", bundle(one, other), field)
    add("twice", "a document twice", bundle(one, one), field)
    add("twice-at-two-times", "a document twice, fetched at two times", bundle(one, {**one, "fetched_at": 5}), field)
    for name, change in {
        "unknown-member-of-a-document": {"verified": True},
        "about-with-a-space": {"about": "amd-kds:/a b"},
        "about-without-a-service": {"about": "/vcek/v1/Milan/crl"},
        "about-too-long": {"about": "amd-kds:/" + "x" * 504},
        "fetched-before-1970": {"fetched_at": -1},
        "fetched-at-a-text": {"fetched_at": "2026-09-21"},
        "data-in-base64url": {"data": "__8="},
        "data-without-padding": {"data": "AA"},
        "media-type-in-capitals": {"media_type": "application/PKIX-CRL"},
        "media-type-with-a-parameter": {"media_type": "application/pkix-crl; charset=binary"},
    }.items():
        add(name, name.replace("-", " "), bundle({**one, **change}), field)
    for member in one:
        add(
            f"without-{member.replace('_', '-')}",
            f"{member} left out",
            bundle({k: v for k, v in one.items() if k != member}),
            field,
        )
    add("a-list", "a list of documents and nothing around it", wire.encode([one]), field)


def main() -> None:
    good()
    bad()
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases in {FOLDER.name}/")  # noqa: T201


if __name__ == "__main__":
    main()
