"""Writes ``vectors/carry`` and ``vectors/carry_policy``: carried files that are taken in and that are not, and what a site
lets cross.

Every key follows from its name; ``carry_parts.json`` holds those that a reader needs. Deterministic but for HPKE, whose
ciphertexts are made once and kept in make_carry.kept.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.asset import BytesSource  # noqa: E402
from strongroom.carry import CARRIAGE_TYPE, Item, Kind, Lets, Peer, Place, Site, read, write  # noqa: E402
from strongroom.carry.file import begun  # noqa: E402
from strongroom.code import CodeBundle  # noqa: E402
from strongroom.contract import PROPOSAL_TYPE  # noqa: E402
from strongroom.party import EncryptionKey, PartyKeys, SigningKey  # noqa: E402
from strongroom.trial import Trial  # noqa: E402
from strongroom.trust import Trust  # noqa: E402
from strongroom.wire import Envelope  # noqa: E402
from world import NOW, Entropy, World, card, keys_of  # noqa: E402

KEPT, PARTS = HERE / "make_carry.kept.json", HERE / "carry_parts.json"
KNOWN: dict[str, str] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
USED: dict[str, str] = {}

LAB, HOSPITAL, STRANGER = keys_of("lab"), keys_of("hospital"), keys_of("stranger")
LOW, HIGH = Place("low", "lab"), Place("high", "hospital")
WORLD = World()
PROPOSAL = WORLD.proposal()
SIGNED = PROPOSAL.sign(LAB)
CODE = CodeBundle({"analysis.py": "def mean(records):\n    return {'summary': {'records': len(records)}}\n"})
TRIAL = Trial(CODE.digest, wire.digest(b"{}"), {"records": wire.digest(b"mock")}, {}, {"summary": "too large"}, None, "")
CARD = card("lab").encode()
GOOD: tuple[tuple[Kind, bytes], ...] = (
    (Kind.CARD, CARD),
    (Kind.CODE, CODE.encode()),
    (Kind.PROPOSAL, PROPOSAL.envelope([SIGNED]).encode()),
)
EVERY = Lets(tuple(sorted(Kind)), 1 << 20)
SITE = Site("high", (Peer("low", ("lab",), ("lab",), EVERY, EVERY),))

Cases = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Kept:
    """A key whose ciphertexts were made once."""

    key: EncryptionKey

    def encrypt(self, plaintext: bytes, *, info: bytes) -> bytes:
        name = hashlib.sha256(self.key.raw + plaintext + info).hexdigest()
        USED[name] = USED.get(name) or KNOWN.get(name) or wire.b64(self.key.encrypt(plaintext, info=info))
        return wire.unb64(USED[name])


def item(kind: Kind, data: bytes) -> Item:
    return Item(kind, len(data), wire.digest(data))


def carried(
    contents: Sequence[tuple[Kind, bytes]] = GOOD,
    *,
    by: PartyKeys = LAB,
    to: PartyKeys = HOSPITAL,
    items: Sequence[Item] | None = None,
    **changes: Any,
) -> bytes:
    """A file, as ``carry out`` writes it."""
    sink, listed = io.BytesIO(), items or [item(*one) for one in contents]

    def pieces(data: bytes) -> Callable[[], Any]:
        return lambda: iter([data])

    said: dict[str, Any] = {
        "sender": LOW,
        "recipient": HIGH,
        "number": 1,
        "follows": 0,
        "created_at": NOW,
        "signing": by.signing,
        "to": Kept(to.decryption.public),
        "entropy": Entropy("carried"),
        "chunk_bytes": 1024,
        **changes,
    }
    write(sink, [(one, pieces(data)) for one, (_, data) in zip(listed, contents, strict=True)], **said)
    return sink.getvalue()


def resigned(file: bytes, by: SigningKey = LAB.signing, **members: Any) -> bytes:
    """The file with other members in its manifest, signed all the same."""
    found = read(BytesSource(file))
    payload = wire.encode({**found.carriage.to_json(), **members})
    return begun(by.sign(CARRIAGE_TYPE, payload)) + file[found.body_at :]


def unsigned(file: bytes, **members: Any) -> bytes:
    """The file with other members in its manifest, and the signature as it was."""
    found = read(BytesSource(file))
    payload = wire.encode({**found.carriage.to_json(), **members})
    return begun(replace(found.envelope, payload=payload)) + file[found.body_at :]


def lying(kind: Kind, data: bytes, said: Item) -> bytes:
    """A file whose sender signed that an item is other bytes than it is."""
    honest = carried([(kind, data)])
    return resigned(honest, items=[said.to_json()])


def _digest(file: bytes) -> str:
    return read(BytesSource(file)).carriage.digest


FILE = carried()
FOUND = read(BytesSource(FILE))
SECOND = carried(number=2, follows=1)


def _good(say: Callable[..., None]) -> None:
    say("first", "the first bundle between two sites", "ok", FILE)
    say("second", "the next one", "ok", SECOND, taken={"1": _digest(FILE)})
    say(
        "lost-between",
        "a later one, whose sender gave up those between",
        "ok",
        carried(number=4, follows=1),
        taken={"1": _digest(FILE)},
    )
    say(
        "record-lost",
        "from a sender that lost its record and counts on",
        "ok",
        carried(number=9),
        taken={"8": _digest(FILE)},
    )
    one = carried([(Kind.MOCK, b"a,b\n1,2\n")])
    say("mock", "a mock, which nobody reads on the way", "ok", one)
    say("trial", "what code did on mocks", "ok", carried([(Kind.CODE, CODE.encode()), (Kind.TRIAL, TRIAL.encode())]))
    approval = PROPOSAL.envelope([PROPOSAL.sign(HOSPITAL)]).encode()
    down = {"sender": HIGH, "recipient": LOW, "by": HOSPITAL, "to": LAB}
    low = Site("low", (Peer("high", ("hospital",), ("hospital",), EVERY, None),))
    say(
        "approval",
        "an approval, down to the low side",
        "ok",
        carried([(Kind.APPROVAL, approval)], **down),
        site=low,
        party="lab",
    )


def _who(say: Callable[..., None]) -> None:
    stranger, altered = "carry.another_site", "carry.altered"
    say("unpinned", "by a party that is not pinned", stranger, carried(by=STRANGER, sender=Place("low", "stranger")))
    say("another-site", "from a site that nobody named", stranger, carried(sender=Place("elsewhere", "lab")))
    desk = Site("high", (Peer("low", ("lab",), ("desk",), EVERY, EVERY),))
    say("not-a-carrier", "by a party of that site that does not carry for it", stranger, FILE, site=desk)
    of_none = carried(by=HOSPITAL, sender=Place("low", "hospital"))
    say("not-of-that-site", "by a pinned party that is not of that site", stranger, of_none)
    say("forged", "in the lab's name, by the hospital's key", altered, carried(by=HOSPITAL))
    say("number-altered", "its number was changed", altered, unsigned(SECOND, number=1, follows=0))
    say("recipient-altered", "its recipient was changed", altered, unsigned(FILE, to=Place("high", "bank").to_json()))
    shorter = [one.to_json() for one in FOUND.carriage.items[:2]]
    say("item-left-out", "an item was taken out of its manifest", altered, unsigned(FILE, items=shorter))
    two = replace(FOUND.envelope, signatures=(*FOUND.envelope.signatures, HOSPITAL.signing.signature(CARRIAGE_TYPE, b"")))
    say("two-signatures", "signed by two", altered, begun(two) + FILE[FOUND.body_at :])
    none = replace(FOUND.envelope, signatures=())
    say("no-signature", "not signed", altered, begun(none) + FILE[FOUND.body_at :])


def _where(say: Callable[..., None]) -> None:
    say("to-another-site", "for another site", "carry.not_for_here", carried(recipient=Place("vault", "hospital")))
    say("to-another-party", "for another party of this site", "carry.not_for_here", carried(recipient=Place("high", "bank")))
    say("to-another-key", "encrypted to another key", "carry.not_for_here", carried(to=LAB))
    moved = resigned(FILE, number=2, follows=0)
    say("key-of-another", "with the key of another bundle", "carry.not_for_here", moved)
    closed = Site("high", (Peer("low", ("lab",), ("lab",), None, EVERY),))
    say("wrong-direction", "into a site that only lets out", "carry.wrong_direction", FILE, site=closed)
    few = Site("high", (Peer("low", ("lab",), ("lab",), Lets((Kind.CODE, Kind.PROPOSAL), 1 << 20), None),))
    say("kind-refused", "with a kind that the site does not take", "carry.kind_refused", FILE, site=few)
    small = Site("high", (Peer("low", ("lab",), ("lab",), replace(EVERY, max_bytes=len(FILE) - 1), None),))
    say("too-large", "of a byte too many", "carry.too_large", FILE, site=small)
    just = Site("high", (Peer("low", ("lab",), ("lab",), replace(EVERY, max_bytes=len(FILE)), None),))
    say("just-fits", "of as many bytes as may cross", "ok", FILE, site=just)
    say("says-more", "cut short, and of too many bytes by its manifest", "carry.too_large", FILE[:-1], site=small)


def _when(say: Callable[..., None]) -> None:
    say("replayed", "the same once more", "carry.replayed", FILE, taken={"1": _digest(FILE)})
    say("number-taken", "another of a number that was taken in", "carry.replayed", FILE, taken={"1": _digest(SECOND)})
    say(
        "replayed-later",
        "the same, after later ones",
        "carry.replayed",
        FILE,
        taken={"1": _digest(FILE), "7": "sha256:" + "0" * 64},
    )
    say("before-its-turn", "the second, and no first", "carry.out_of_order", SECOND)
    say(
        "after-its-turn",
        "one that was given up, after the one that replaced it",
        "carry.out_of_order",
        SECOND,
        taken={"3": _digest(FILE)},
    )


def _form(say: Callable[..., None]) -> None:
    none, cut, altered = "carry.not_a_bundle", "carry.truncated", "carry.altered"
    say("empty", "no byte", none, b"")
    say("another-file", "a sealed file", none, b"strongroom-seal" + FILE[15:])
    say("another-version", "of a later version", none, FILE[:16] + b"\x02" + FILE[17:])
    say("long-header", "a manifest longer than any", none, FILE[:17] + b"\xff" * 4 + FILE[21:])
    say("header-damaged", "a manifest that is no JSON", none, FILE[:21] + b"[" + FILE[22:])
    spaced = json.dumps(FOUND.envelope.to_json()).encode()
    loose = FILE[:17] + len(spaced).to_bytes(4, "big") + spaced + FILE[FOUND.body_at :]
    say("header-spaced", "a manifest in another spelling", none, loose)
    typed = Envelope(PROPOSAL_TYPE, FOUND.envelope.payload, FOUND.envelope.signatures)
    say("another-type", "a document of another type", none, begun(typed) + FILE[FOUND.body_at :])
    say("cut-in-magic", "cut short in its first bytes", cut, FILE[:9])
    say("cut-in-header", "cut short in its manifest", cut, FILE[: FOUND.body_at - 1])
    say("cut-in-body", "cut short by a byte", cut, FILE[:-1])
    say("no-body", "its manifest alone", cut, FILE[: FOUND.body_at])
    say("goes-on", "a byte behind its end", altered, FILE + b"\0")
    at = FOUND.body_at + 64
    say("chunk-altered", "a bit of its body was changed", altered, FILE[:at] + bytes([FILE[at] ^ 1]) + FILE[at + 1 :])
    step = 1024 + 16
    swapped = FILE[at + step : at + 2 * step] + FILE[at : at + step]
    say("chunks-swapped", "two chunks of its body were swapped", altered, FILE[:at] + swapped + FILE[at + 2 * step :])
    other = carried(GOOD[1:])
    say(
        "body-of-another",
        "the body of another bundle",
        altered,
        FILE[: FOUND.body_at] + _as_long(other, len(FILE) - FOUND.body_at),
    )


def _as_long(file: bytes, size: int) -> bytes:
    """The body of a file, made as long as another's."""
    body = file[read(BytesSource(file)).body_at :]
    return (body + bytes(size))[:size]


def _manifest(say: Callable[..., None]) -> None:
    bad = "carry.not_a_bundle"
    plain = FOUND.carriage.to_json()
    listed = plain["items"]
    assert isinstance(listed, list)
    say("unknown-member", "a member of another version", bad, resigned(FILE, more=1))
    say("items-reordered", "items out of the order of their kinds", bad, resigned(FILE, items=listed[::-1]))
    say("item-twice", "an item twice", bad, resigned(FILE, items=[listed[0], *listed]))
    say("no-items", "nothing in it", bad, resigned(FILE, items=[]))
    say(
        "item-with-a-path",
        "an item that says where it is to lie",
        bad,
        resigned(FILE, items=[{**_one(listed), "path": "../../x"}]),
    )
    say(
        "unknown-kind",
        "an item of a kind that nobody knows",
        bad,
        resigned(FILE, items=[{**_one(listed), "kind": "program"}]),
    )
    say("number-0", "a number before the first", bad, resigned(FILE, number=0))
    say("follows-itself", "one that comes after itself", bad, resigned(FILE, follows=1))
    say("to-itself", "from a site to itself", bad, resigned(FILE, to=Place("low", "hospital").to_json()))
    say(
        "site-with-a-path",
        "a site's name that is a path",
        bad,
        resigned(FILE, **{"from": {"party": "lab", "site": "../low"}}),
    )
    say("short-key", "a key cut short", bad, resigned(FILE, key=wire.b64(FOUND.carriage.key[:-1])))


def _one(listed: Sequence[Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = listed[0]
    return found


def _items(say: Callable[..., None]) -> None:
    bad = "carry.bad_item"
    say("no-card", "a card that is none", bad, carried([(Kind.CARD, b"{}")]))
    say("no-code", "a code bundle that is none", bad, carried([(Kind.CODE, b"import os")]))
    say("no-trial", "a trial that is none", bad, carried([(Kind.TRIAL, CODE.encode())]))
    say("card-as-code", "a card that is said to be code", bad, carried([(Kind.CODE, CARD)]))
    unsigned_proposal = PROPOSAL.envelope([]).encode()
    say(
        "unsigned-proposal",
        "a proposal without its proposer's signature",
        bad,
        carried([(Kind.PROPOSAL, unsigned_proposal)]),
    )
    both = PROPOSAL.envelope([SIGNED, PROPOSAL.sign(HOSPITAL)]).encode()
    say("proposal-with-approval", "a proposal with an approval in it", bad, carried([(Kind.PROPOSAL, both)]))
    mine = PROPOSAL.envelope([SIGNED]).encode()
    say("own-approval", "the proposer's signature as an approval", bad, carried([(Kind.APPROVAL, mine)]))
    pinning = wire.encode(Trust(parties=(card("stranger"),)).to_json())
    say("reference-that-pins", "reference values that pin a party", bad, carried([(Kind.REFERENCE, pinning)]))
    mock = b"a,b\n1,2\n"
    other = Item(Kind.MOCK, len(mock), wire.digest(b"a,b\n1,3\n"))
    say("another-digest", "an item that has another digest than its sender signed", bad, lying(Kind.MOCK, mock, other))
    as_card = Item(Kind.CARD, len(mock), wire.digest(mock))
    say("another-kind", "a table that is said to be a card", bad, lying(Kind.MOCK, mock, as_card))


def all_cases() -> Cases:
    """Name to case."""
    cases: Cases = {}

    def say(
        name: str,
        description: str,
        expect: str,
        file: bytes,
        *,
        site: Site = SITE,
        party: str = "hospital",
        taken: Mapping[str, str] | None = None,
    ) -> None:
        assert name not in cases, name
        cases[name] = {
            "description": description,
            "expect": expect,
            "file": wire.b64(file),
            "operation": "take",
            "party": party,
            "site": site.to_json(),
            "taken": dict(taken or {}),
        }

    for part in (_good, _who, _where, _when, _form, _manifest, _items):
        part(say)
    return cases


def policy_cases() -> Cases:
    """Name to case."""
    cases: Cases = {}
    good = SITE.to_json()
    peer: dict[str, Any] = SITE.peers[0].to_json()

    def say(name: str, description: str, expect: str, policy: Mapping[str, Any]) -> None:
        cases[name] = {"description": description, "expect": expect, "operation": "parse", "policy": policy}

    def with_peer(**members: Any) -> dict[str, Any]:
        return {**good, "peers": [{**peer, **members}]}

    bad = "wire.bad_field"
    say("both-ways", "a site that lets all kinds cross both ways", "ok", good)
    say("diode", "a site that only takes in", "ok", with_peer(out=None))
    say("closed", "a site that lets nothing cross", "ok", with_peer(**{"in": None, "out": None}))
    say("alone", "a site that knows no other", "ok", {**good, "peers": []})
    say("another-format", "of another version", bad, {**good, "format": "strongroom.carry-policy.v2"})
    say("no-kinds", "a direction without a kind", bad, with_peer(out={"kinds": [], "max_bytes": 1}))
    say("unknown-kind", "a kind that nobody knows", bad, with_peer(out={"kinds": ["archive"], "max_bytes": 1}))
    say("kinds-unsorted", "kinds out of order", bad, with_peer(out={"kinds": ["note", "code"], "max_bytes": 1}))
    say("no-limit", "a direction without a limit", bad, with_peer(out={"kinds": ["code"]}))
    say("limit-0", "a limit of nothing", bad, with_peer(out={"kinds": ["code"], "max_bytes": 0}))
    say(
        "no-direction",
        "a direction that is not said",
        bad,
        {**good, "peers": [{k: v for k, v in peer.items() if k != "out"}]},
    )
    say("no-party", "a site without a party", bad, with_peer(parties=[]))
    say("no-carrier", "a site without a carrier", bad, with_peer(carriers=[]))
    say("a-carrier", "a site for which another carries than its parties", "ok", with_peer(carriers=["desk"]))
    say("site-twice", "a site twice", bad, {**good, "peers": [peer, peer]})
    say("itself", "a site among the others", bad, with_peer(site="high"))
    say("unknown-member", "a member of another version", bad, {**good, "more": 1})
    return cases


def main() -> None:
    for name, cases in (("carry", all_cases()), ("carry_policy", policy_cases())):
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        for stale in folder.glob("*.json"):
            stale.unlink()
        for case, said in cases.items():
            (folder / f"{case}.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    parts = {
        "cards": [card("hospital").to_json(), card("lab").to_json()],
        "decryption": {keys.name: wire.b64(keys.decryption.seed) for keys in (HOSPITAL, LAB)},
    }
    PARTS.write_text(json.dumps(parts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    KEPT.write_text(json.dumps(USED, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
