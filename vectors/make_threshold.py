"""Writes vectors/threshold/: one file per case, the expected outcome in the file.

The world that the cases come from is that of the tests (tests/world.py). Deterministic but for what libraries draw: the
polynomials of shares and HPKE's ciphertexts are made once and kept in make_threshold.kept.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402
from strongroom.asset import AssetKey  # noqa: E402
from strongroom.holding import Deal, Recall, Recalled, Says, Taken, Withdrawn, Word  # noqa: E402
from strongroom.party import EncryptionKey  # noqa: E402
from strongroom.release import RELEASE_TYPE, Part, ReleaseStatement  # noqa: E402
from strongroom.threshold import Enrolment, Holder, Share, split  # noqa: E402
from threshold_world import NAMES, holder_card, share_key  # noqa: E402
from world import NOW, RUN, Entropy, broker_key, card, keys_of, sealed_asset, seed  # noqa: E402

FOLDER, KEPT = HERE / "threshold", HERE / "make_threshold.kept.json"
KNOWN: dict[str, str] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
USED: dict[str, str] = {}
MANIFEST, SIGNED, _, KEY = sealed_asset("data")
OWNER = keys_of("hospital")
CONTRACT = wire.digest(b"a contract")


def keep(name: str, make: Any) -> str:
    USED[name] = USED.get(name) or KNOWN.get(name) or make()
    return USED[name]


@dataclass(frozen=True)
class Kept:
    """A key whose ciphertexts were made once."""

    key: EncryptionKey

    def encrypt(self, plaintext: bytes, *, info: bytes) -> bytes:
        name = hashlib.sha256(self.key.raw + plaintext + info).hexdigest()
        return wire.unb64(keep(name, lambda: wire.b64(self.key.encrypt(plaintext, info=info))))


def dealt(
    epoch: int = 1, key: AssetKey = KEY, names: tuple[str, ...] = NAMES[:3], t: int = 2
) -> tuple[Enrolment, list[Share]]:
    """An enrolment and its shares, made once."""

    def make() -> str:
        _, shares = split(
            key,
            manifest=MANIFEST.digest,
            owner="hospital",
            epoch=epoch,
            threshold=t,
            cards=[holder_card(n) for n in names],
            entropy=Entropy(f"salts {epoch}"),
        )
        return json.dumps([s.encode().decode() for s in shares])

    name = hashlib.sha256(f"{epoch} {key.raw.hex()} {names} {t}".encode()).hexdigest()
    shares = [Share.parse(s.encode()) for s in json.loads(keep(name, make))]
    holders = tuple(
        Holder(n, holder_card(n).broker_key, holder_card(n).address, s.commitment)
        for n, s in zip(names, shares, strict=True)
    )
    return Enrolment(MANIFEST.digest, "hospital", epoch, t, holders), shares


GOOD, SHARES = dealt()
SECOND, LATER = dealt(2)


def value(document: Any) -> Any:
    return json.loads(document.encode())


def enrolment_cases() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    good = value(GOOD)

    def add(name: str, what: str, expect: str, found: Any = None, *, signer: Any = OWNER.signing, **more: Any) -> None:
        payload = wire.encode({**good, **(found or {})})
        cases[f"enrolment-{name}"] = {
            "description": what,
            "enrolment": signer.sign("application/vnd.strongroom.enrolment.v1+json", payload).to_json(),
            "expect": expect,
            "manifest": MANIFEST.digest,
            "operation": "enrolment",
            "owner": "hospital",
            "owner_key": wire.b64(OWNER.signing.public.raw),
            **more,
        }

    holders = good["holders"]
    bad, field = "broker.bad_enrolment", "wire.bad_field"
    add("ok", "two of three brokers", "ok")
    one = value(dealt(names=NAMES[:1], t=1)[0])
    add("ok-one", "one of one", "ok", one)
    five = value(dealt(names=NAMES, t=3)[0])
    add("ok-five", "three of five", "ok", five)
    add("t1-half", "half of the brokers would be enough (T1)", bad, {"holders": holders[:2], "threshold": 1})
    add("t1-more-than-there-are", "more shares than holders (T1)", bad, {"threshold": 4})
    add("t1-none", "no share is needed (T1)", field, {"threshold": 0})
    add("t1-nobody", "nobody holds one (T1)", field, {"holders": []})
    add("t1-seventeen", "seventeen holders (T1)", field, {"holders": holders * 5 + holders[:2], "threshold": 9})
    again = [holders[0], {**holders[1], "name": holders[0]["name"]}, holders[2]]
    add("t2-one-name-twice", "one name holds two shares (T2)", bad, {"holders": again})
    again = [holders[0], {**holders[1], "broker_key": holders[0]["broker_key"]}, holders[2]]
    add("t2-one-broker-twice", "one broker holds two shares (T2)", bad, {"holders": again})
    again = [holders[0], {**holders[1], "commitment": holders[0]["commitment"]}, holders[2]]
    add("t2-one-share-twice", "two brokers hold one share (T2)", bad, {"holders": again})
    add("t3-another-signer", "signed by another party (T3)", "wire.bad_signature", signer=keys_of("lab").signing)
    add("t4-another-asset", "of another asset (T4)", bad, {"manifest": wire.digest(b"another")})
    add("t4-another-owner", "of another owner (T4)", bad, {"owner": "lab"})
    mine = [{**holders[0], "broker_key": wire.b64(OWNER.signing.public.raw)}, *holders[1:]]
    add("t4-owners-key", "a holder signs with the owner's signing key (T4)", bad, {"holders": mine})
    add("epoch-0", "epochs begin with 1", field, {"epoch": 0})
    add("unknown-member", "a member of another version", field, {"more": 1})
    add("other-purpose", "for another purpose", field, {"purpose": "strongroom.share.v1"})
    away = [{**holders[0], "address": "https://ada.example/elsewhere"}, *holders[1:]]
    add("address-with-path", "an address with a path", field, {"holders": away})
    return cases


def combine_cases() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}

    def add(name: str, what: str, expect: str, shares: Any, enrolment: Enrolment = GOOD) -> None:
        cases[f"combine-{name}"] = {
            "description": what,
            "enrolment": value(enrolment),
            "expect": expect,
            "key": KEY.raw.hex(),
            "operation": "combine",
            "shares": [[index, share.encode().decode()] for index, share in shares],
        }

    bad = "broker.bad_share"
    first, second, third = SHARES
    add("ok", "the first and the second", "ok", [(1, first), (2, second)])
    add("ok-others", "the third and the first", "ok", [(3, third), (1, first)])
    add("ok-all", "all three", "ok", [(1, first), (2, second), (3, third)])
    flipped = replace(second, value=bytes([second.value[0] ^ 1]) + second.value[1:])
    add("t5-one-bit", "one bit of a share is another (T5)", bad, [(1, first), (2, flipped)])
    salted = replace(second, salt=seed("another"))
    add("t5-another-salt", "a share with another salt (T5)", bad, [(1, first), (2, salted)])
    add("t5-another-epoch", "a share of another epoch (T5)", bad, [(1, first), (2, LATER[1])])
    other = replace(second, manifest=wire.digest(b"another"))
    add("t5-another-asset", "a share of another asset (T5)", bad, [(1, first), (2, other)])
    add("t5-swapped", "two holders' shares are swapped (T5)", bad, [(1, second), (2, first)])
    add("t5-nobodys", "a share that nobody holds (T5)", bad, [(1, first), (4, second)])
    add("t6-too-few", "one share where it takes two (T6)", bad, [(1, first)])
    add("t6-one-twice", "one share twice (T6)", bad, [(1, first), (1, first)])
    wrong, wrongs = dealt(key=AssetKey(seed("another key")))
    add("t7-another-key", "shares of another key (T7)", "asset.wrong_key", [(1, wrongs[0]), (2, wrongs[1])], wrong)
    return cases


def deal_cases() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    signed = GOOD.sign(OWNER.signing)
    taken = (Taken(CONTRACT, 1, wire.digest(b"a keyset")), Taken(CONTRACT, 2, None))
    to = replace(holder_card("ada"), share_key=Kept(share_key("ada").public))  # type: ignore[arg-type]
    good = Deal.make(signed, SIGNED, SHARES[0], to, taken)

    def add(
        name: str,
        what: str,
        expect: str,
        found: Any = None,
        *,
        signer: Any = OWNER.signing,
        who: str = "ada",
        opens: str = "ada",
    ) -> None:
        payload = wire.encode({**value(good), **(found or {})})
        cases[f"deal-{name}"] = {
            "broker": wire.b64(broker_key(who).public.raw),
            "deal": signer.sign("application/vnd.strongroom.deal.v1+json", payload).to_json(),
            "description": what,
            "expect": expect,
            "operation": "deal",
            "owner": "hospital",
            "owner_key": wire.b64(OWNER.signing.public.raw),
            "share": SHARES[0].encode().decode(),
            "share_seed": share_key(opens).seed.hex(),
        }

    add("ok", "a broker takes its share", "ok")
    add("another-signer", "another party deals", "wire.bad_signature", signer=keys_of("lab").signing)
    add("another-broker", "another broker's share", "broker.bad_share", who="ben", opens="ben")
    add("another-key", "encrypted to another broker", "party.bad_key", opens="ben")
    add("another-index", "under another index", "broker.bad_share", {"index": 2})
    add("another-epoch", "moved to another epoch", "party.bad_key", {"enrolment": SECOND.sign(OWNER.signing).to_json()})
    false = Deal.make(signed, SIGNED, replace(SHARES[0], value=seed("false")), to)
    add("false-share", "another share than was committed to", "broker.bad_share", {"share": value(false)["share"]})
    unsorted = [t.to_json() for t in reversed(taken)]
    add("taken-unsorted", "what was given is not sorted", "wire.bad_field", {"taken": unsorted})
    doubled = [taken[0].to_json(), {**taken[0].to_json(), "keyset": None}]
    add("taken-twice", "one slot is said twice", "wire.bad_field", {"taken": doubled})
    _, of_model, _, _ = sealed_asset("model")
    add("another-asset", "with another owner's manifest", "wire.bad_signature", {"manifest": of_model.to_json()})
    add("unknown-member", "a member of another version", "wire.bad_field", {"more": 1})
    left = {"contract": CONTRACT, "party": "lab"}
    add("ok-withdrawn", "with a withdrawal that brokers knew; software from before refuses it", "ok", {"withdrawn": [left]})
    add("ok-over", "contracts that had begun are over; software from before refuses it", "ok", {"over": NOW})
    add("withdrawn-empty", "a member that says nothing", "wire.bad_field", {"withdrawn": []})
    add("withdrawn-twice", "one withdrawal twice", "wire.bad_field", {"withdrawn": [left, left]})
    add(
        "ok-restored", "the owner knows that the book was put back; software from before refuses it", "ok", {"restored": NOW}
    )
    add("restored-0", "a time that says nothing", "wire.bad_field", {"restored": 0})
    add("over-0", "a time that says nothing", "wire.bad_field", {"over": 0})
    return cases


def recalled_cases() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    owner: Any = Kept(card("hospital").encryption_key)
    ada = broker_key("ada")
    good = Recalled.make(GOOD, SHARES[0], (Taken(CONTRACT, 1, wire.digest(b"a keyset")),), broker=ada.public, owner=owner)

    def add(name: str, what: str, expect: str, found: Recalled = good, *, signer: Any = ada, index: int = 1) -> None:
        cases[f"recalled-{name}"] = {
            "at": NOW,
            "description": what,
            "enrolment": value(GOOD),
            "expect": expect,
            "index": index,
            "operation": "recalled",
            "owner_seed": OWNER.decryption.seed.hex(),
            "recalled": found.sign(signer).to_json(),
            "share": SHARES[0].encode().decode(),
        }

    add("ok", "a broker gives its share back", "ok")
    add("another-broker", "another broker signs", "wire.bad_signature", signer=broker_key("ben"))
    add("another-share", "for another share", "wire.bad_signature", index=2)
    add("another-epoch", "of another enrolment", "broker.bad_share", replace(good, enrolment=SECOND.digest))
    known = (Withdrawn(CONTRACT, "lab"),)
    add("ok-withdrawn", "it knows a withdrawal; software from before refuses it", "ok", replace(good, withdrawn=known))
    add("ok-restored", "its book was put back; software from before refuses it", "ok", replace(good, restored=NOW))
    for name, later, expect in (("ok-restored-by-a-faster-clock", 300, "ok"), ("restored-to-come", 301, "wire.bad_field")):
        add(name, f"it says that it lost count {later} seconds from now", expect, replace(good, restored=NOW + later))
    false = Recalled.make(GOOD, replace(SHARES[0], value=seed("false")), (), broker=ada.public, owner=owner)
    add("false-share", "another share than was committed to", "broker.bad_share", false)
    return cases


def word_cases() -> dict[str, dict[str, Any]]:
    key = {"owner_key": wire.b64(OWNER.signing.public.raw)}
    recall = Recall(MANIFEST.digest, "hospital", 1)
    word = Word(CONTRACT, "hospital", Says.APPROVED, NOW)
    lab = keys_of("lab").signing
    says = OWNER.signing.sign("application/vnd.strongroom.word.v1+json", wire.encode({**value(word), "says": "perhaps"}))

    def case(operation: str, what: str, expect: str, envelope: Any) -> dict[str, Any]:
        return {"description": what, "expect": expect, "operation": operation, operation: envelope.to_json(), **key}

    return {
        "recall-another-signer": case("recall", "another party's order", "wire.bad_signature", recall.sign(lab)),
        "recall-ok": case("recall", "an owner calls shares in", "ok", recall.sign(OWNER.signing)),
        "word-another-signer": case("word", "another party's word", "wire.bad_signature", word.sign(lab)),
        "word-neither": case("word", "it says something else", "wire.bad_field", says),
        "word-ok": case("word", "an owner approved a contract", "ok", word.sign(OWNER.signing)),
    }


def other_cases() -> dict[str, dict[str, Any]]:
    ada = value(holder_card("ada"))
    cases = {
        "card-ok": {"card": ada, "description": "a broker that can hold shares", "expect": "ok", "operation": "card"},
        "card-without-address": {
            "card": {**ada, "address": ""},
            "description": "a broker that answers nowhere",
            "expect": "wire.bad_field",
            "operation": "card",
        },
    }
    broker = broker_key("ada")

    def release(keyset: bytes, slot: int | None = 1, epoch: int = 1, contract: str = CONTRACT, signer: Any = broker) -> Any:
        found = ReleaseStatement(
            contract=contract,
            manifest=MANIFEST.digest,
            keyset_digest=wire.digest(keyset),
            nonce=seed("nonce").hex(),
            run_id=RUN,
            broker=signer.public.keyid,
            at=NOW,
            encrypted_key=wire.digest(b"encrypted"),
            policy=wire.digest(b"policy"),
            part=None if slot is None else Part(epoch, 1, slot),
        )
        return signer.sign(RELEASE_TYPE, found.encode()).to_json()

    no, other = "broker.bad_release", release(b"b", signer=OWNER.signing)
    for name, what, expect, pair in (
        ("ok", "one slot to two enclaves", "ok", (release(b"a"), release(b"b"))),
        ("ok-epochs", "one slot to two enclaves, in two epochs", "ok", (release(b"a"), release(b"b", epoch=2))),
        ("one-enclave", "one slot to one enclave twice", no, (release(b"a"), release(b"a"))),
        ("two-slots", "two slots", no, (release(b"a"), release(b"b", 2))),
        ("two-contracts", "two contracts", no, (release(b"a"), release(b"b", contract=wire.digest(b"other")))),
        ("whole-keys", "releases of whole keys", no, (release(b"a", None), release(b"b", None))),
        (
            "another-broker",
            "another broker's release",
            "wire.bad_signature",
            (release(b"a"), other),
        ),
    ):
        cases[f"gave-twice-{name}"] = {
            "broker": wire.b64(broker.public.raw),
            "description": what,
            "expect": expect,
            "operation": "gave-twice",
            "releases": list(pair),
        }
    return cases


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    cases = enrolment_cases() | combine_cases() | deal_cases() | recalled_cases() | word_cases() | other_cases()
    for path in FOLDER.glob("*.json"):
        if path.stem not in cases:
            path.unlink()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    KEPT.write_text(json.dumps(USED, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
