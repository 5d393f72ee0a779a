"""Writes vectors/ledger/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere.

Some answers are known from other implementations: the roots and proofs over the eight entries with which Certificate
Transparency tests its trees, the first checkpoints of the log with which Tessera tests its clients, and a head and keys of
the Go checksum database.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from strongroom.checkpoint import Checkpoint, LogKey, NoteSignature
from strongroom.ledger import ConsistencyProof, Entry, LoggedProof, MemoryNodes, Tree
from strongroom.party import SigningKey

FOLDER = Path(__file__).parent / "ledger"
KEY = LogKey("ledger.example/main", SigningKey(hashlib.sha256(b"log").digest()))
STRANGER = LogKey("ledger.example/main", SigningKey(hashlib.sha256(b"stranger").digest()))
WITNESS = NoteSignature("witness.example", b"\x00\x01\x02\x03", bytes(72))
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the Ed25519 base point

CT_ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION = {
    0: [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    5: [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CT_CONSISTENCY = {
    2: [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    6: [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
TESSERA_SEED = "7KZj9JkBfSNlwnx6dnkVjUPP7BMwvbJZKQr70NIXd6A="
TESSERA_ENTRIES = ["one", "two", "three", "four", "five", "six", "seven"]
TESSERA_HEADS = {
    0: (
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "M9e0lhxJACzE1KoUdqKuPa+9p6R7dSW8BlEvrg/noo8FkGg6PbJoRNOcdjqjOq89wVvTA60eubCc4oufo5BvIVEgtQc=",
    ),
    1: (
        "0Nc2CrefWKseHj/mStd+LqC8B+NrX0btIiPt2SmN+ek=",
        "M9e0lhr9kuLxGdAtaUrhm84TQffVsLdcy808sN0a3WyniNlfcr9+bywoiIke1YYciCNjJGkCgIlQ8b16jhsmg/SChAM=",
    ),
    3: (
        "Wqx3HImawpLnS/Gv4ubjAvi1WIOy0b8Ze0amvqbavKk=",
        "M9e0lvAQRtH832pk2RTbeSeZMkp4FZSdJYFBUjO5SKxuRbywPUF3cx+HUrb50kjd3rUWW/fj53Wj1dwcwh9bGQnqVAg=",
    ),
    4: (
        "zY1lN35vrXYAPixXSd59LsU29xUJtuW4o2dNNg5Y2Co=",
        "M9e0lnFuWt0cp60moO4jAkeXvMNLIIOGn4WdyeHQurBt9mBi0tWdfkldiAt9k0FpwuZymvttsVn9uwyouXU3vPpeNAc=",
    ),
    7: (
        "IrSXADBqJ7EQoUODSDKROySgNveeL6CFhik2w/+fS7U=",
        "M9e0luA5JhTRUki/BBQD0QNiH6AEJ2pdtsA5CQjqJErViuuKrN6513RCTL2640wXJv0dCed3neRGI6dMzBq9uANf2Qc=",
    ),
}
GO_KEYS = {
    "go-note": "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    "go-checksum-database": "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
    "tessera-test-log": "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx",
}
GO_HEAD = (
    "go.sum database tree\n30055305\nmXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=\n\n"
    "— sum.golang.org Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=\n"
)

# As they were when the trees of the vectors were made: a kind that came later changes none of them.
KINDS = ("approval", "proposal", "receipt", "refusal", "release", "withdrawal")

Case = dict[str, Any]
cases: dict[str, Case] = {}


def add(name: str, operation: str, description: str, expect: str = "ok", /, **inputs: Any) -> None:
    cases[name] = {"description": description, "expect": expect, "operation": operation, **inputs}


def entry(n: int) -> Entry:
    digests = [f"sha256:{hashlib.sha256(f'{what} {n}'.encode()).hexdigest()}" for what in ("contract", "document")]
    return Entry(KINDS[n % len(KINDS)], *digests)


def tree(size: int) -> Tree:
    found = Tree(MemoryNodes())
    for n in range(size):
        found.append(entry(n))
    return found


def known_answers() -> None:
    for size, root in enumerate(CT_ROOTS):
        add(f"root-ct-{size}", "root", "a root known from Certificate Transparency", entries=CT_ENTRIES[:size], root=root)
    for index, hashes in CT_INCLUSION.items():
        add(
            f"inclusion-ct-{index}-of-8",
            "inclusion path",
            "an inclusion proof known from Certificate Transparency",
            entries=CT_ENTRIES,
            hashes=hashes,
            index=index,
            root=CT_ROOTS[8],
        )
    for old, hashes in CT_CONSISTENCY.items():
        add(
            f"consistency-ct-{old}-to-8",
            "consistency path",
            "a consistency proof known from Certificate Transparency",
            entries=CT_ENTRIES,
            hashes=hashes,
            old=old,
            old_root=CT_ROOTS[old],
            root=CT_ROOTS[8],
        )
    for size, (root, signature) in TESSERA_HEADS.items():
        add(
            f"head-tessera-{size}",
            "head",
            "a checkpoint that Tessera signed with its published test key, byte for byte",
            entries=[e.encode().hex() for e in TESSERA_ENTRIES[:size]],
            name="example.com/log/testdata",
            note=f"example.com/log/testdata\n{size}\n{root}\n\n— example.com/log/testdata {signature}\n",
            seed=TESSERA_SEED,
        )
    for name, vkey in GO_KEYS.items():
        add(f"vkey-{name}", "vkey", "a verifier key that others published", vkey=vkey)
    add(
        "checkpoint-go-another-origin",
        "checkpoint",
        "a valid note of a log whose key has another name than the log: not accepted here",
        "ledger.bad_checkpoint",
        note=GO_HEAD,
        vkey=GO_KEYS["go-checksum-database"],
    )


def vkeys() -> None:
    good = KEY.verifier.vkey
    name, key_id, encoded = good.split("+", 2)
    weak = base64.b64encode(b"\x01\x01" + bytes(31)).decode()
    add("vkey-ours", "vkey", "a verifier key", vkey=good)
    for case, description, vkey in (
        ("other-id", "an id that is not that of the key", f"{name}+00000000+{encoded}"),
        ("upper-case-id", "the id in upper case", f"{name}+{key_id.upper()}+{encoded}"),
        ("other-name", "the name changed", good.replace("main", "mein")),
        ("no-name", "no name", good.removeprefix(name)),
        ("white-space", "white space in the name", good.replace("/main", " main")),
        ("two-parts", "no id", f"{name}+{encoded}"),
        ("loose-base64", "base64 without its last bits", good[:-1] + chr(ord(good[-1]) + 1)),
        ("other-type", "another signature type", f"{name}+{key_id}+{base64.b64encode(bytes(33)).decode()}"),
        ("small-order", "a key of small order", f"{name}+{key_id}+{weak}"),
        ("short-key", "31 bytes", f"{name}+{key_id}+{base64.b64encode(bytes([1] + [2] * 31)).decode()}"),
    ):
        add(f"vkey-{case}", "vkey", description, "party.bad_key", vkey=vkey)


def checkpoints() -> None:
    head = tree(5).checkpoint(KEY)
    note, vkey = head.encode().decode(), KEY.verifier.vkey
    (ours,) = head.signatures

    def check(name: str, description: str, expect: str, text: str | Checkpoint) -> None:
        text = text.encode().decode() if isinstance(text, Checkpoint) else text
        add(f"checkpoint-{name}", "checkpoint", description, expect, note=text, vkey=vkey)

    def signed_by(*signatures: NoteSignature) -> Checkpoint:
        return Checkpoint(head.origin, head.size, head.root, signatures)

    loose = note.replace(
        ours.encode(), "— " + ours.name + " " + base64.b64encode(ours.key_id + ours.sig).decode()[:-2] + "B=\n"
    )
    high_s = (int.from_bytes(ours.sig[32:], "little") + ORDER).to_bytes(32, "little")
    check("ours", "a head", "ok", note)
    check("empty-log", "the head of an empty log", "ok", tree(0).checkpoint(KEY))
    check("witnessed", "with a witness's line before and after", "ok", signed_by(WITNESS, ours, WITNESS))
    check("stranger", "signed by another key of the same name", "ledger.bad_checkpoint", tree(5).checkpoint(STRANGER))
    check(
        "stranger-under-our-id",
        "another key's signature under our key's id",
        "wire.bad_signature",
        signed_by(NoteSignature(ours.name, ours.key_id, tree(5).checkpoint(STRANGER).signatures[0].sig)),
    )
    check(
        "other-log",
        "our key, for a log of another name",
        "ledger.bad_checkpoint",
        tree(5).checkpoint(LogKey("ledger.example/other", KEY.key)),
    )
    check("only-witness", "no signature by the log", "ledger.bad_checkpoint", signed_by(WITNESS))
    check("doubled", "the log's signature twice", "ledger.bad_checkpoint", signed_by(ours, ours))
    check("other-size", "the size changed after signing", "wire.bad_signature", note.replace("\n5\n", "\n6\n"))
    check(
        "other-root",
        "the root changed after signing",
        "wire.bad_signature",
        Checkpoint(head.origin, head.size, bytes(32), head.signatures),
    )
    check(
        "signature-plus-order",
        "the signature's S raised by the group order",
        "wire.bad_signature",
        signed_by(NoteSignature(ours.name, ours.key_id, ours.sig[:32] + high_s)),
    )
    check(
        "short-signature", "63 bytes", "wire.bad_signature", signed_by(NoteSignature(ours.name, ours.key_id, ours.sig[:-1]))
    )
    check(
        "key-id-only",
        "a line with no signature",
        "ledger.bad_checkpoint",
        signed_by(NoteSignature(ours.name, ours.key_id, b"")),
    )
    for name, description, text in (
        ("leading-zero", "a size with a leading zero", note.replace("\n5\n", "\n05\n")),
        ("signed-size", "a size with a sign", note.replace("\n5\n", "\n+5\n")),
        ("arabic-digits", "a size in other digits", note.replace("\n5\n", "\n٥\n")),
        ("huge-size", "a size of 2^53", note.replace("\n5\n", f"\n{2**53}\n")),
        ("extension-line", "a fourth line", note.replace("\n\n", "\nextra\n\n")),
        ("two-lines", "no root", note.replace("\n5\n", "\n")),
        ("empty-origin", "no name", note.replace("ledger.example/main\n5", "\n5")),
        ("blank-line-in-text", "an empty line within the text", note.replace("\n5\n", "\n\n5\n")),
        (
            "short-root",
            "a root of 31 bytes",
            note.replace(base64.b64encode(head.root).decode(), base64.b64encode(bytes(31)).decode()),
        ),
        ("loose-root", "a root in loose base64", note.replace("=\n\n", "\n\n")),
        ("loose-signature", "a signature in loose base64", loose),
        ("crlf", "line ends of two characters", note.replace("\n", "\r\n")),
        ("tab", "a control character", note.replace("ledger", "led\tger")),
        ("no-last-newline", "cut short by a byte", note[:-1]),
        ("trailing-line", "a line after the signatures", note + "more\n"),
        ("trailing-blank-line", "a blank line after the signatures", note + "\n"),
        ("hyphen", "a hyphen for the dash", note.replace("—", "-")),
        ("two-spaces", "two spaces after the dash", note.replace("— ", "—  ")),
        ("plus-in-name", "a plus in a key's name", note.replace("— ledger", "— led+ger")),
        ("no-signatures", "no blank line and no signatures", head.text.decode()),
        ("no-signature-lines", "no signature lines", head.text.decode() + "\n"),
        ("empty", "no bytes at all", ""),
        ("too-many-signatures", "65 signature lines", signed_by(*[WITNESS] * 64, ours).encode().decode()),
    ):
        check(name, description, "ledger.bad_checkpoint", text)


def proofs() -> None:
    log, vkey = tree(7), KEY.verifier.vkey
    logged = LoggedProof(log.checkpoint(KEY), log.prove_inclusion(4, 7)).to_json()
    path: Any = logged["inclusion"]
    hashes = path["hashes"]

    def check(name: str, description: str, expect: str, *, n: int = 4, **changes: Any) -> None:
        proof = {**logged, "inclusion": {**path, **changes}}
        add(f"logged-{name}", "logged", description, expect, entry=entry(n).to_json(), proof=proof, vkeys=[vkey])

    check("ours", "entry 4 of 7", "ok")
    check("other-entry", "the proof of one entry for another", "ledger.bad_proof", n=3)
    check("other-index", "another place", "ledger.bad_proof", index=5)
    check("index-outside", "a place outside the log", "ledger.bad_proof", index=7)
    check("other-size", "another size than the head's", "ledger.bad_proof", size=8)
    check("hash-missing", "the last hash left out", "ledger.bad_proof", hashes=hashes[:-1])
    check("hash-added", "a hash too many", "ledger.bad_proof", hashes=[*hashes, hashes[0]])
    check("hashes-swapped", "two hashes changed places", "ledger.bad_proof", hashes=[hashes[1], hashes[0], *hashes[2:]])
    check("hash-altered", "a hash of zeros", "ledger.bad_proof", hashes=[base64.b64encode(bytes(32)).decode(), *hashes[1:]])
    check("hash-short", "a hash of 31 bytes", "ledger.bad_proof", hashes=[base64.b64encode(bytes(31)).decode(), *hashes[1:]])
    check("hash-loose", "a hash in loose base64", "wire.bad_field", hashes=[hashes[0].rstrip("="), *hashes[1:]])
    check("index-negative", "a place before the first", "wire.bad_field", index=-1)
    check("unknown-member", "a member that nobody knows", "wire.bad_field", more=1)
    add(
        "logged-no-log-trusted",
        "logged",
        "a verifier that trusts no log",
        "ledger.bad_checkpoint",
        entry=entry(4).to_json(),
        proof=logged,
        vkeys=[],
    )
    add(
        "logged-another-log-trusted",
        "logged",
        "a verifier that trusts another log",
        "ledger.bad_checkpoint",
        entry=entry(4).to_json(),
        proof=logged,
        vkeys=[STRANGER.verifier.vkey],
    )


def histories() -> None:
    log, fork = tree(7), Tree(MemoryNodes())
    for n in (0, 1, 2, 9, 4, 5, 6):
        fork.append(entry(n))
    notes = {size: KEY.sign(size, log.root(size)).encode().decode() for size in range(8)}
    forked = {size: KEY.sign(size, fork.root(size)).encode().decode() for size in (4, 7)}

    def check(
        name: str, description: str, expect: str, heads: tuple[str | None, str], proof: ConsistencyProof | None
    ) -> None:
        add(
            f"follow-{name}",
            "follow",
            description,
            expect,
            last=heads[0],
            new=heads[1],
            proof=None if proof is None else proof.to_json(),
            vkey=KEY.verifier.vkey,
        )

    grown = log.prove_consistency(4, 7)
    split = "ledger.inconsistent"
    check("grown", "from 4 entries to 7", "ok", (notes[4], notes[7]), grown)
    check("grown-from-incomplete", "from 3 entries to 7", "ok", (notes[3], notes[7]), log.prove_consistency(3, 7))
    check("grown-from-empty", "from none to 7", "ok", (notes[0], notes[7]), log.prove_consistency(0, 7))
    check("first", "the first head ever seen", "ok", (None, notes[7]), None)
    check("same", "the same head again", "ok", (notes[7], notes[7]), None)
    check("rolled-back", "a shorter log than before", split, (notes[7], notes[4]), grown)
    check("forked-same-size", "another tree of the same size", split, (notes[7], forked[7]), None)
    check("forked-shown-grown", "a fork, with the proof of the other history", split, (forked[4], notes[7]), grown)
    check("forked-own-proof", "a fork, with its own proof", split, (notes[4], forked[7]), fork.prove_consistency(4, 7))
    check("no-proof", "grown, and no proof", split, (notes[4], notes[7]), None)
    check("other-sizes", "the proof of other sizes", split, (notes[4], notes[7]), log.prove_consistency(3, 7))
    check("hash-missing", "a hash left out", split, (notes[4], notes[7]), ConsistencyProof(4, 7, grown.hashes[:-1]))
    check("hash-added", "a hash too many", split, (notes[4], notes[7]), ConsistencyProof(4, 7, (*grown.hashes, bytes(32))))
    altered = ConsistencyProof(4, 7, (bytes(32), *grown.hashes[1:]))
    check("hash-altered", "a hash of zeros", split, (notes[4], notes[7]), altered)
    check("no-hashes", "a proof with nothing in it", split, (notes[3], notes[7]), ConsistencyProof(3, 7, ()))


def entries() -> None:
    good = entry(0).to_json()

    def check(name: str, description: str, expect: str, value: str) -> None:
        add(f"entry-{name}", "entry", description, expect, entry=value)

    text = json.dumps(good, sort_keys=True, separators=(",", ":"))
    check("ours", "an entry, as its leaf is hashed", "ok", text)
    check("review", "the entry of a note of a review", "ok", text.replace('"approval"', '"review"'))
    check("spaced", "another spelling of the same JSON", "wire.not_canonical", json.dumps(good, sort_keys=True))
    check("unknown-kind", "a kind that nobody knows", "wire.bad_field", text.replace('"approval"', '"rumour"'))
    check("unknown-member", "a member that nobody knows", "wire.bad_field", text[:-1] + ',"more":1}')
    check("short-digest", "a digest cut short", "wire.bad_field", text.replace(entry(0).digest, entry(0).digest[:-1]))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for make in (known_answers, vkeys, checkpoints, proofs, histories, entries):
        make()
    for name, case in cases.items():
        text = json.dumps(case, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
