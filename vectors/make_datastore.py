"""Writes vectors/datastore/: heads, manifests and parts of stores, one file a case, the expected outcome in the file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rfc8785

FOLDER = Path(__file__).parent / "datastore"
DIGESTS = [f"sha256:{digit * 64}" for digit in "0123456789abcdef"]

MANIFEST: dict[str, Any] = {
    "characters": 400,
    "chunks": 3,
    "documents": 2,
    "files": {
        "documents.u64": {"bytes": 24, "digest": DIGESTS[1]},
        "ids.u64": {"bytes": 24, "digest": DIGESTS[2]},
        "ids.utf8": {"bytes": 4, "digest": DIGESTS[3]},
        "index.faiss": {"bytes": 5000, "digest": DIGESTS[4]},
        "passages.u64": {"bytes": 24, "digest": DIGESTS[5]},
        "tokens.u16": {"bytes": 260, "digest": DIGESTS[6]},
    },
    "licence": "CC-BY-4.0",
    "name": "law",
    "owner": "City council",
    "parts": DIGESTS[0],
    "passed_over": 0,
    "price": {"amount": 25, "per_tokens": 1000, "unit": "EUR-micro"},
    "purpose": "strongroom.source.v1",
    "tokens": 130,
    "version": 1,
}
HEAD: dict[str, Any] = {
    "parts": DIGESTS[0],
    "purpose": "strongroom.datastore.v1",
    "sources": [{"manifest": DIGESTS[7], "name": "encyclopedia"}, {"manifest": DIGESTS[8], "name": "law"}],
}


def changed(value: dict[str, Any], **members: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(value))
    for name, new in members.items():
        *way, last = name.replace("tokens_u16", "tokens.u16").split("__")
        place = found
        for step in way:
            place = place[step]
        if new is None:
            del place[last]
        else:
            place[last] = new
    return dict(found)


def cases() -> dict[str, tuple[str, str, str, bytes]]:
    """Name -> what it is, of which kind, what comes of it, and the bytes."""
    one, two = HEAD["sources"]
    bad, version = "datastore.bad_manifest", "datastore.other_version"
    plain: dict[str, tuple[str, str, str, dict[str, Any]]] = {
        "manifest-ok": ("a manifest", "manifest", "ok", MANIFEST),
        "manifest-ok-free": ("a manifest without a price", "manifest", "ok", changed(MANIFEST, price__amount=0)),
        "manifest-version": ("of another version", "manifest", version, changed(MANIFEST, purpose="strongroom.source.v2")),
        "manifest-purpose": (
            "a document of another kind",
            "manifest",
            bad,
            changed(MANIFEST, purpose="strongroom.share.v1"),
        ),
        "manifest-member": ("a member that nobody knows", "manifest", bad, changed(MANIFEST, free="yes")),
        "manifest-without-price": ("no price", "manifest", bad, changed(MANIFEST, price=None)),
        "manifest-price-text": ("a price that is a text", "manifest", bad, changed(MANIFEST, price__amount="25")),
        "manifest-price-negative": ("a price below nothing", "manifest", bad, changed(MANIFEST, price__amount=-1)),
        "manifest-price-bool": ("a price that is true", "manifest", bad, changed(MANIFEST, price__amount=True)),
        "manifest-price-per": (
            "a price for other than 1,000 tokens",
            "manifest",
            bad,
            changed(MANIFEST, price__per_tokens=1),
        ),
        "manifest-name": (
            "a name that leads out of the store",
            "manifest",
            "datastore.bad_name",
            changed(MANIFEST, name="../law"),
        ),
        "manifest-owner": ("an owner of two lines", "manifest", bad, changed(MANIFEST, owner="a\nb")),
        "manifest-empty": ("no document", "manifest", bad, changed(MANIFEST, documents=0)),
        "manifest-digest": ("a digest in capitals", "manifest", bad, changed(MANIFEST, parts="sha256:" + "A" * 64)),
        "manifest-file": ("a file that is not named", "manifest", bad, changed(MANIFEST, files__tokens_u16=None)),
        "manifest-length": (
            "fewer bytes than tokens",
            "manifest",
            "datastore.truncated",
            changed(MANIFEST, files__tokens_u16={"bytes": 258, "digest": DIGESTS[6]}),
        ),
        "head-ok": ("a head", "head", "ok", HEAD),
        "head-ok-empty": ("a head without sources", "head", "ok", changed(HEAD, sources=[])),
        "head-version": ("of another version", "head", version, changed(HEAD, purpose="strongroom.datastore.v2")),
        "head-twice": ("a source twice", "head", "datastore.source_twice", changed(HEAD, sources=[one, one])),
        "head-order": ("sources out of their order", "head", bad, changed(HEAD, sources=[two, one])),
        "head-member": ("a source with a member more", "head", bad, changed(HEAD, sources=[{**one, "price": 1}])),
        "head-name": (
            "a name that leads out of the store",
            "head",
            "datastore.bad_name",
            changed(HEAD, sources=[{**one, "name": "a/b"}]),
        ),
    }
    found = {name: (said, kind, expect, rfc8785.dumps(value)) for name, (said, kind, expect, value) in plain.items()}
    encoded = rfc8785.dumps(MANIFEST)
    found["manifest-spaces"] = ("not canonical", "manifest", bad, json.dumps(MANIFEST, sort_keys=True).encode())
    found["manifest-double"] = (
        "a member twice",
        "manifest",
        bad,
        encoded.replace(b'"version":1', b'"version":1,"version":1'),
    )
    found["manifest-float"] = ("a number with a point", "manifest", bad, encoded.replace(b'"version":1', b'"version":1.0'))
    found["manifest-after"] = ("bytes after its end", "manifest", bad, encoded + b"\n")
    found["head-truncated"] = ("cut short", "head", bad, rfc8785.dumps(HEAD)[:-1])
    return found


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, (said, kind, expect, data) in cases().items():
        case = {"description": said, "document": data.decode(), "expect": expect, "kind": kind}
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
