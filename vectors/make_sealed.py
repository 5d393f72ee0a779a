"""Make the vectors of sealed files and manifests: ``python vectors/make_sealed.py``.

Sealed files are built here a second time from ``spec/sealed-file.md`` alone, chunk by chunk, so that the forgeries can be
built too, and so that the two implementations check each other. Everything is derived from fixed seeds. One long file,
because a manifest's vectors need a sealed file to describe.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = Path(__file__).parent
CHUNK = 64
TYPE = "application/vnd.strongroom.manifest.v1+json"
TERMS = {
    "egress": [],
    "outputs": {"report": {"decimals": 4, "max_bytes": 1048576, "min_group": 10, "recipients": "any-party"}},
    "uses": ["evaluate"],
}


def seeded(label: str, size: int) -> bytes:
    return hashlib.shake_256(b"strongroom vectors: " + label.encode()).digest(size)


KEY, OTHER_KEY = seeded("asset key", 32), seeded("another asset key", 32)
SALT, OTHER_SALT = seeded("salt", 32), seeded("another salt", 32)
PLAIN = seeded("plaintext", 200)  # four chunks: 64, 64, 64 and 8 bytes
OTHER_PLAIN = seeded("another plaintext", 200)


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869, one block."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), info + b"\x01", "sha256")


def leaf(chunk: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + chunk).digest()


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()


def header(salt: bytes = SALT, chunk_bytes: int = CHUNK, version: int = 1) -> bytes:
    known = b"strongroom-seal" + bytes([version]) + chunk_bytes.to_bytes(4, "big") + salt
    return known + hashlib.sha256(known).digest()[:12]


def encrypt(plaintext: bytes, index: int, *, last: bool, head: bytes, key: bytes = KEY) -> bytes:
    file_key = hkdf(key, head[20:52], b"strongroom sealed file v1" + head)
    return AESGCM(file_key).encrypt(index.to_bytes(11, "big") + bytes([last]), plaintext, None)


@dataclass(frozen=True)
class File:
    """A sealed file in its parts."""

    header: bytes
    chunks: list[bytes]
    leaves: list[bytes] = field(default_factory=list)
    tail: bytes = b""

    def __bytes__(self) -> bytes:
        return self.header + b"".join(self.chunks) + b"".join(self.leaves) + self.tail


def built(head: bytes, chunks: list[bytes]) -> File:
    return File(head, chunks, [leaf(chunk) for chunk in chunks])


def sealed(plaintext: bytes = PLAIN, *, salt: bytes = SALT, key: bytes = KEY) -> File:
    head = header(salt)
    pieces = [plaintext[at : at + CHUNK] for at in range(0, len(plaintext), CHUNK)] or [b""]
    last = len(pieces) - 1
    return built(head, [encrypt(p, i, last=i == last, head=head, key=key) for i, p in enumerate(pieces)])


def manifest(file: File, plaintext: bytes = PLAIN, *, key: bytes = KEY, reveal: bool = False) -> dict[str, Any]:
    """A manifest that describes the file as it is, however it was built."""
    salt = file.header[20:52]
    salted = b"" if reveal else hkdf(key, salt, b"strongroom content commitment v1")
    return {
        "content": {"sha256" if reveal else "commitment": hashlib.sha256(salted + plaintext).hexdigest()},
        "created_at": 1767225600,
        "key_commitment": hkdf(key, salt, b"strongroom key commitment v1").hex(),
        "kind": "dataset",
        "media_type": "text/csv",
        "mock": None,
        "name": "tumours",
        "owner": "hospital",
        "plaintext_bytes": len(plaintext),
        "sealed": {
            "bytes": len(bytes(file)),
            "chunk_bytes": int.from_bytes(file.header[16:20], "big"),
            "chunks": len(file.chunks),
            "root": root([leaf(chunk) for chunk in file.chunks]).hex(),
            "salt": salt.hex(),
        },
        "terms": TERMS,
    }


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def case(
    description: str,
    expect: str,
    file: File | bytes,
    described: dict[str, Any],
    *,
    key: bytes = KEY,
    index: int | None = None,
    plaintext: bytes | None = None,
    stored: str | None = None,
) -> dict[str, Any]:
    """One vector; ``stored`` is how a check without the key ends, where that is not ``expect``."""
    found: dict[str, Any] = {
        "description": description,
        "expect": expect,
        "key": key.hex(),
        "manifest": described,
        "sealed": base64.b64encode(bytes(file)).decode(),
        "stored": stored or expect,
    }
    if index is not None:
        found["index"] = index
    if plaintext is not None:
        found["plaintext"] = plaintext.hex()
    return found


def good_files() -> Iterator[tuple[str, dict[str, Any]]]:
    sizes = {
        "empty": 0,
        "one-byte": 1,
        "one-full-chunk": 64,
        "full-chunk-and-a-byte": 65,
        "two-full-chunks": 128,
        "four-chunks": 200,
    }
    for name, size in sizes.items():
        plaintext = PLAIN[:size]
        file = sealed(plaintext)
        yield f"ok-{name}", case(f"{size} bytes in chunks of 64", "ok", file, manifest(file, plaintext), plaintext=plaintext)
    file = sealed()
    told = manifest(file, reveal=True)
    yield "ok-plain-digest", case("the manifest shows the plain SHA-256", "ok", file, told, plaintext=PLAIN)


def header_attacks(f: File, m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    raw = bytes(f)
    for name, at, expect in (
        ("magic", 3, "asset.not_sealed"),
        ("version", 15, "asset.not_sealed"),
        ("chunk-size", 19, "asset.header_altered"),
        ("salt", 30, "asset.header_altered"),
        ("check", 63, "asset.header_altered"),
    ):
        yield f"flip-{name}", case(f"a bit of the header's {name} is flipped", expect, flip(raw, at), m)
    later = replace(f, header=header(version=2))
    yield "later-version", case("a well-formed header of version 2", "asset.not_sealed", later, m)
    swapped = replace(f, header=header(OTHER_SALT))
    yield "header-salt-recomputed", case("another salt, and its check value", "asset.manifest_mismatch", swapped, m)
    resized = replace(f, header=header(chunk_bytes=128))
    yield "header-chunk-size-recomputed", case("another size, and its check value", "asset.manifest_mismatch", resized, m)
    tiny = replace(f, header=header(chunk_bytes=0))
    yield "header-chunk-size-zero", case("chunks of no bytes, and a fitting check value", "asset.header_altered", tiny, m)
    huge = replace(f, header=header(chunk_bytes=2**32 - 1))
    yield "header-chunk-size-huge", case("chunks of 4 GiB, and a fitting check value", "asset.header_altered", huge, m)
    yield "not-sealed", case("the plaintext instead of the sealed file", "asset.not_sealed", PLAIN, m)
    yield "not-sealed-empty", case("an empty file", "asset.not_sealed", b"", m)
    other = sealed(OTHER_PLAIN, salt=OTHER_SALT)
    yield "wrong-manifest", case("another file under the same key", "asset.manifest_mismatch", other, m)


def length_attacks(f: File, m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    raw = bytes(f)
    trailer = len(raw) - 4 * 32
    for name, size, what in (
        ("magic", 15, "after the magic"),
        ("header", 40, "within the header"),
        ("after-header", 64, "after the header"),
        ("mid-chunk", 64 + 80 + 30, "within chunk 1"),
        ("chunk-boundary", 64 + 80 * 2, "after chunk 1"),
        ("no-trailer", trailer, "before the trailer"),
        ("one-leaf", len(raw) - 32, "one leaf hash before its end"),
        ("one-byte", len(raw) - 1, "one byte before its end"),
    ):
        yield f"truncated-{name}", case(f"the file ends {what}", "asset.truncated", raw[:size], m)
    shorter = built(f.header, f.chunks[:1] + f.chunks[2:])
    yield "chunk-removed", case("chunk 1 and its leaf hash are taken out", "asset.truncated", shorter, m)
    yield "trailing-byte", case("one byte follows", "asset.trailing_bytes", replace(f, tail=b"\x00"), m)
    longer = built(f.header, [*f.chunks[:2], f.chunks[1], *f.chunks[2:]])
    yield "chunk-doubled", case("chunk 1 and its leaf hash stand twice", "asset.trailing_bytes", longer, m)


def chunk_attacks(f: File, m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    other = sealed(OTHER_PLAIN, salt=OTHER_SALT)

    def swap(index: int, chunk: bytes) -> list[bytes]:
        return [*f.chunks[:index], chunk, *f.chunks[index + 1 :]]

    altered = "asset.chunk_altered"
    flipped = swap(1, flip(f.chunks[1], 10))
    yield "flip-chunk", case("a bit of chunk 1 is flipped", altered, replace(f, chunks=flipped), m, index=1)
    tag = swap(0, flip(f.chunks[0], 79, 7))
    yield "flip-tag", case("a bit of chunk 0's tag is flipped", altered, replace(f, chunks=tag), m, index=0)
    last = swap(3, flip(f.chunks[3], 0))
    yield "flip-last-chunk", case("a bit of the last chunk is flipped", altered, replace(f, chunks=last), m, index=3)
    turned = [f.chunks[1], f.chunks[0], *f.chunks[2:]]
    yield "reordered", case("chunks 0 and 1 change places", altered, replace(f, chunks=turned), m, index=0)
    spliced = swap(2, other.chunks[2])
    yield "spliced", case("chunk 2 of another file under the same key", altered, replace(f, chunks=spliced), m, index=2)
    trailer = "asset.trailer_altered"
    wrong = [*f.leaves[:2], flip(f.leaves[2], 5), f.leaves[3]]
    yield "flip-trailer", case("a bit of the trailer is flipped", trailer, replace(f, leaves=wrong), m)
    yield "flip-chunk-and-leaf", case("chunk 1 is altered and its leaf hash fits", trailer, built(f.header, flipped), m)
    yield (
        "reordered-with-leaves",
        case("chunks 0 and 1 change places, with their hashes", trailer, built(f.header, turned), m),
    )
    yield "spliced-with-leaf", case("chunk 2 of another file, and its leaf hash", trailer, built(f.header, spliced), m)


def forged_manifests(f: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifest lies with the file: its root and sizes fit. The owner could sign such a thing; the tags still tell."""
    other = sealed(OTHER_PLAIN, salt=OTHER_SALT)
    h, c = f.header, f.chunks

    def forged(name: str, what: str, file: File, index: int, plaintext: bytes = PLAIN) -> tuple[str, dict[str, Any]]:
        what, told = f"{what}; root and sizes fit", manifest(file, plaintext)
        return f"forged-{name}", case(what, "asset.chunk_altered", file, told, index=index, stored="ok")

    yield forged("reordered", "chunks 0 and 1 change places", built(h, [c[1], c[0], *c[2:]]), 0)
    yield forged("spliced", "chunk 2 of another file, same key", built(h, [*c[:2], other.chunks[2], c[3]]), 2)
    yield forged("cut-short", "the file ends after a chunk that is not the last", built(h, c[:3]), 2, PLAIN[:192])
    as_middle = encrypt(PLAIN[192:], 3, last=False, head=h)
    yield forged("last-as-middle", "the last chunk was encrypted as a middle one", built(h, [*c[:3], as_middle]), 3)
    as_last = encrypt(PLAIN[64:128], 1, last=True, head=h)
    yield forged("middle-as-last", "chunk 1 was encrypted as a last one", built(h, [c[0], as_last, *c[2:]]), 1)
    two = sealed(PLAIN[:128]).chunks
    more = encrypt(PLAIN[128:192], 2, last=True, head=h)
    yield forged("extended", "a chunk follows one that was the last", built(h, [*two, more]), 1, PLAIN[:192])
    yield forged("last-doubled", "the last chunk stands twice", built(h, [*two, two[1]]), 2, PLAIN[:192])
    region = b"".join(c)
    resized = built(header(chunk_bytes=80), [region[at : at + 96] for at in range(0, len(region), 96)])
    yield forged("chunk-size", "the same bytes in chunks of another size", resized, 2, bytes(len(region) - 3 * 16))
    yield forged("salt", "the same chunks under another salt", replace(f, header=header(OTHER_SALT)), 3)


def key_attacks(f: File, m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    wrong, altered, ok = "asset.wrong_key", "asset.chunk_altered", "ok"
    yield "wrong-key", case("another key", wrong, f, m, key=OTHER_KEY, stored=ok)
    lied = manifest(f, key=OTHER_KEY)
    yield "wrong-commitment", case("the manifest commits to another key than sealed", wrong, f, lied, stored=ok)
    what = "the key that the manifest commits to did not seal"
    yield "committed-key-did-not-seal", case(what, altered, f, lied, key=OTHER_KEY, index=3, stored=ok)
    for reveal, name in ((False, "commitment"), (True, "plain-digest")):
        lied = {**m, "content": manifest(f, OTHER_PLAIN, reveal=reveal)["content"]}
        told = case(f"the {name} is of other bytes", "asset.content_mismatch", f, lied, stored=ok)
        yield f"content-mismatch-{name}", told


def sealed_vectors() -> dict[str, dict[str, Any]]:
    f = sealed()
    m = manifest(f)
    found: dict[str, dict[str, Any]] = {}
    for group in (
        good_files(),
        header_attacks(f, m),
        length_attacks(f, m),
        chunk_attacks(f, m),
        forged_manifests(f),
        key_attacks(f, m),
    ):
        found.update(group)
    return found


# --- manifests ------------------------------------------------------------------------------------------------------

OWNER, STRANGER = (Ed25519PrivateKey.from_private_bytes(seeded(who, 32)) for who in ("owner", "stranger"))


def signature(payload: bytes, key: Ed25519PrivateKey, kind: str = TYPE) -> dict[str, str]:
    raw = key.public_key().public_bytes_raw()
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    return {"keyid": "sha256:" + hashlib.sha256(raw).hexdigest(), "sig": base64.b64encode(key.sign(pae)).decode()}


def envelope(payload: bytes, *signatures: dict[str, str], kind: str = TYPE) -> dict[str, Any]:
    return {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": list(signatures)}


def manifest_case(description: str, expect: str, value: dict[str, Any] | bytes) -> dict[str, Any]:
    """A payload, signed as it should be."""
    payload = value if isinstance(value, bytes) else rfc8785.dumps(value)
    return {
        "description": description,
        "envelope": envelope(payload, signature(payload, OWNER)),
        "expect": expect,
        "owner_key": base64.b64encode(OWNER.public_key().public_bytes_raw()).decode(),
    }


def without(value: dict[str, Any], *path: str) -> dict[str, Any]:
    found = copy.deepcopy(value)
    inner = found
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return found


def with_member(value: dict[str, Any], member: Any, *path: str) -> dict[str, Any]:
    found = copy.deepcopy(value)
    inner = found
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = member
    return found


MOCK = {"bytes": 12, "digest": "sha256:" + hashlib.sha256(b"size,grade\n\n").hexdigest(), "media_type": "text/csv"}


def asked(at_least: int, *names: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """So many of these must approve; each under a key of that name, or under those."""
    digests = ["sha256:" + hashlib.sha256(seeded(key, 32)).hexdigest() for key in keys or names]
    of = [{"keyid": keyid, "name": name} for keyid, name in zip(digests, names, strict=True)]
    return {"at_least": at_least, "of": of}


def signature_attacks(m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    payload = rfc8785.dumps(m)
    good = signature(payload, OWNER)
    bad = "wire.bad_signature"
    base = manifest_case("", bad, m)

    def signed(what: str, *signatures: dict[str, str]) -> dict[str, Any]:
        return {**base, "description": what, "envelope": envelope(payload, *signatures)}

    yield "unsigned", signed("no signature")
    yield "signed-by-stranger", signed("a stranger's signature", signature(payload, STRANGER))
    claimed = {**signature(payload, STRANGER), "keyid": good["keyid"]}
    yield "signed-by-stranger-in-owners-name", signed("a stranger's signature with the owner's key id", claimed)
    yield "signed-twice", signed("the owner's signature twice", good, good)
    yield "signed-by-two", signed("the owner's signature and a stranger's", good, signature(payload, STRANGER))
    elsewhere = signature(payload, OWNER, "application/vnd.strongroom.proposal.v1+json")
    yield "signed-as-another-document", signed("a signature of the same bytes as another type", elsewhere)
    changed = rfc8785.dumps({**m, "owner": "lab"})
    yield "payload-changed", {**base, "description": "the owner's name is changed", "envelope": envelope(changed, good)}
    kind = "application/vnd.strongroom.proposal.v1+json"
    other = envelope(payload, signature(payload, OWNER, kind), kind=kind)
    yield (
        "another-type",
        {**base, "description": "another document's type", "expect": "wire.bad_envelope", "envelope": other},
    )


def field_attacks(m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    bad = "wire.bad_field"
    for member in m:
        yield f"without-{member.replace('_', '-')}", manifest_case(f"{member} is missing", bad, without(m, member))
    for member in m["sealed"]:
        name = f"without-sealed-{member.replace('_', '-')}"
        yield name, manifest_case(f"sealed.{member} is missing", bad, without(m, "sealed", member))
    changes: list[tuple[str, str, Any, tuple[str, ...]]] = [
        ("unknown-member", bad, 1, ("extra",)),
        ("unknown-member-of-sealed", bad, 1, ("sealed", "extra")),
        ("name-with-space", bad, "the tumours", ("name",)),
        ("owner-upper-case", bad, "Hospital", ("owner",)),
        ("media-type-bare", bad, "csv", ("media_type",)),
        ("created-at-negative", bad, -1, ("created_at",)),
        ("created-at-true", bad, True, ("created_at",)),
        ("plaintext-bytes-text", bad, "200", ("plaintext_bytes",)),
        ("plaintext-bytes-other", bad, 201, ("plaintext_bytes",)),
        ("plaintext-bytes-endless", "wire.too_large", 2**53 - 1, ("plaintext_bytes",)),
        ("sealed-bytes-other", bad, m["sealed"]["bytes"] + 1, ("sealed", "bytes")),
        ("chunks-other", bad, m["sealed"]["chunks"] + 1, ("sealed", "chunks")),
        ("chunks-zero", bad, 0, ("sealed", "chunks")),
        ("chunk-bytes-zero", bad, 0, ("sealed", "chunk_bytes")),
        ("chunk-bytes-too-many", bad, (4 << 20) + 1, ("sealed", "chunk_bytes")),
        ("root-upper-case", bad, m["sealed"]["root"].upper(), ("sealed", "root")),
        ("root-short", bad, m["sealed"]["root"][:-2], ("sealed", "root")),
        ("content-empty", bad, {}, ("content",)),
        ("content-both", bad, {"commitment": "00" * 32, "sha256": "00" * 32}, ("content",)),
        ("content-other-hash", bad, {"md5": "00" * 16}, ("content",)),
        ("content-prefixed", bad, {"sha256": "sha256:" + "00" * 32}, ("content",)),
        ("mock-without-digest", bad, {"bytes": 12, "media_type": "text/csv"}, ("mock",)),
        ("mock-list", bad, [MOCK], ("mock",)),
        ("approvers-empty", bad, [], ("approvers",)),
        ("approvers-null", bad, None, ("approvers",)),
        ("approvers-of-nobody", bad, [asked(1)], ("approvers",)),
        ("approvers-none-needed", bad, [asked(0, "ann", "ben")], ("approvers",)),
        ("approvers-more-than-there-are", bad, [asked(3, "ann", "ben")], ("approvers",)),
        ("approvers-unsorted", bad, [asked(1, "ben", "ann")], ("approvers",)),
        ("approvers-groups-unsorted", bad, [asked(1, "cas"), asked(1, "ann")], ("approvers",)),
        ("approvers-one-name-under-two-keys", bad, [asked(2, "ann", "ann", keys=("ann", "ann-2"))], ("approvers",)),
        ("approvers-one-key-under-two-names", bad, [asked(2, "ann", "ben", keys=("ann", "ann"))], ("approvers",)),
        ("approvers-one-name-in-two-groups", bad, [asked(1, "ann"), asked(1, "ann", "ben")], ("approvers",)),
        ("approvers-one-key-in-two-groups", bad, [asked(1, "ann"), asked(1, "ben", keys=("ann",))], ("approvers",)),
        ("approvers-the-owner", bad, [asked(1, m["owner"])], ("approvers",)),
        ("approvers-unknown-member", bad, [{**asked(1, "ann"), "or": "anybody"}], ("approvers",)),
        ("approvers-without-keyid", bad, [{"at_least": 1, "of": [{"name": "ann"}]}], ("approvers",)),
        ("terms-null", bad, None, ("terms",)),
        ("terms-unknown-dimension", "policy.unknown_dimension", {**TERMS, "sunlight": []}, ("terms",)),
    ]
    for name, expect, member, path in changes:
        yield name, manifest_case(f"{'.'.join(path)} is {json.dumps(member)[:60]}", expect, with_member(m, member, *path))


def spelling_attacks(m: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    text, bad = rfc8785.dumps(m), "wire.not_canonical"
    yield "not-json", manifest_case("no JSON", "wire.not_json", text[:-1])
    yield "space", manifest_case("a space after a colon", bad, text.replace(b":", b": ", 1))
    yield "trailing-newline", manifest_case("a newline at the end", bad, text + b"\n")
    unsorted = json.dumps(dict(reversed(m.items())), separators=(",", ":")).encode()
    yield "unsorted", manifest_case("members in another order", bad, unsorted)
    yield "member-twice", manifest_case("owner stands twice", bad, text.replace(b'"owner"', b'"owner":"lab","owner"', 1))
    pointed = text.replace(b"1767225600", b"1767225600.0")
    yield "number-with-point", manifest_case("created_at is 1767225600.0", bad, pointed)


def manifest_vectors() -> dict[str, dict[str, Any]]:
    file = sealed()
    m = manifest(file)
    found = {
        "ok-commitment": manifest_case("the content as a salted commitment", "ok", m),
        "ok-plain-digest": manifest_case("the content as its plain SHA-256", "ok", manifest(file, reveal=True)),
        "ok-mock": manifest_case("with a mock", "ok", {**m, "mock": MOCK}),
        "ok-approvers": manifest_case(
            "two of three reviewers, and the data protection officer, must approve",
            "ok",
            {**m, "approvers": [asked(2, "ann", "ben", "cas"), asked(1, "dpo")]},
        ),
        "ok-empty": manifest_case("an asset of no bytes", "ok", manifest(sealed(b""), b"")),
    }
    for group in (signature_attacks(m), field_attacks(m), spelling_attacks(m)):
        found.update(group)
    return found


def main() -> None:
    for folder, vectors in (("sealed", sealed_vectors()), ("manifest", manifest_vectors())):
        target = HERE / folder
        target.mkdir(exist_ok=True)
        for name, vector in vectors.items():
            text = json.dumps(vector, indent=1, sort_keys=True) + "\n"
            (target / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
