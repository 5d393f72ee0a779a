"""Carried bundles: what a file says of itself, whose it is, whether it may come in, and what lies in it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "vectors"))

import make_carry  # noqa: E402 - it is found first
from make_carry import FILE, GOOD, HOSPITAL, LAB, SITE, carried, item  # noqa: E402

from strongroom import carry, wire  # noqa: E402
from strongroom.asset import BytesSource  # noqa: E402
from strongroom.carry import (  # noqa: E402
    Accepted,
    Carriage,
    Contents,
    Heads,
    Item,
    Kind,
    Lets,
    Peer,
    Place,
    Signed,
    Site,
    accept,
    open_body,
    read,
    verify,
    write,
)
from strongroom.carry.carriage import MAX_ITEMS, Body  # noqa: E402
from strongroom.carry.file import Part  # noqa: E402
from strongroom.carry.item import Offered, limit_of, said  # noqa: E402
from strongroom.contract import Withdrawal  # noqa: E402
from strongroom.errors import (  # noqa: E402
    BadField,
    CarriedAltered,
    CarriedBadItem,
    CarriedElsewhere,
    CarriedFromStranger,
    CarriedTruncated,
    CarryError,
    NotCarried,
    StrongroomError,
    TooLarge,
)
from strongroom.ledger import Entry, MemoryNodes, Tree  # noqa: E402
from strongroom.party import DecryptionKey, Party  # noqa: E402
from strongroom.review import Kind as NoteKind  # noqa: E402
from strongroom.review import Note  # noqa: E402
from strongroom.trust import Trust  # noqa: E402
from world import LOG, NOW, Entropy, World, card, keys_of, sealed_asset  # noqa: E402

CASES = {path.stem: json.loads(path.read_bytes()) for path in sorted((ROOT / "vectors" / "carry").glob("*.json"))}
POLICIES = {path.stem: json.loads(path.read_bytes()) for path in sorted((ROOT / "vectors" / "carry_policy").glob("*.json"))}
PARTS = json.loads((ROOT / "vectors" / "carry_parts.json").read_bytes())
TRUST = Trust(parties=tuple(Party.from_json(one) for one in PARTS["cards"]))


def take(file: bytes, site: Site = SITE, party: str = "hospital", taken: dict[int, str] | None = None) -> Contents:
    """All the checks, in their order, as who takes a file in makes them."""
    signed = verify(read(BytesSource(file)), TRUST)
    accept(signed, site=site, party=party, taken=taken or {})
    return open_body(signed, party, DecryptionKey.from_seed(wire.unb64(PARTS["decryption"][party])))


def case(case: dict[str, Any]) -> Contents:
    taken = {int(number): digest for number, digest in case["taken"].items()}
    return take(wire.unb64(case["file"]), Site.from_json(case["site"]), case["party"], taken)


# --- vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_vectors(name: str) -> None:
    expect = CASES[name]["expect"]
    if expect == "ok":
        assert case(CASES[name]).found
        return
    with pytest.raises(StrongroomError) as caught:
        case(CASES[name])
    assert caught.value.code == expect
    assert isinstance(caught.value, CarryError)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", POLICIES)
def test_policy_vectors(name: str) -> None:
    policy, expect = POLICIES[name]["policy"], POLICIES[name]["expect"]
    if expect == "ok":
        assert Site.from_json(policy).to_json() == policy
        return
    with pytest.raises(StrongroomError) as caught:
        Site.from_json(policy)
    assert caught.value.code == expect


def test_the_vectors_are_as_they_are_made() -> None:
    assert make_carry.all_cases() == CASES
    assert make_carry.policy_cases() == POLICIES


def test_every_code_of_a_bundle_that_is_not_taken_in_has_a_vector() -> None:
    seen = {one["expect"] for one in CASES.values()}
    ours = {cls.code for cls in CarryError.__subclasses__()}
    assert ours - seen == {"carry.no_policy", "carry.nothing"}  # of carrying out alone


def test_the_page_shows_real_manifests() -> None:
    blocks = (ROOT / "spec" / "carry.md").read_text(encoding="utf-8").split("```json\n")[1:]
    shown = [json.loads(block.split("```")[0]) for block in blocks]
    assert shown[0] == {**read(BytesSource(FILE)).carriage.to_json(), "key": "…"}
    assert Site.from_json(shown[1]).to_json() == shown[1]


# --- the file -------------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out() -> None:
    contents = take(FILE)
    assert [(f.item.kind, contents.data(i)) for i, f in enumerate(contents.found)] == list(GOOD)
    assert [f.said.about.split(",")[0] for f in contents.found if f.said][:2] == ["lab", "1 files"]


def test_nothing_in_the_clear_but_the_manifest() -> None:
    found = read(BytesSource(FILE))
    for data in (data for _, data in GOOD):
        assert data[:24] not in FILE[found.body_at :]
        assert data not in FILE


def test_what_a_border_guard_reads_names_every_byte() -> None:
    found = read(BytesSource(FILE))
    assert found.size == found.said_size == len(FILE)
    assert [i.digest for i in found.carriage.items] == [wire.digest(data) for _, data in GOOD]


@given(
    st.binary(max_size=400) | st.binary(max_size=200).map(lambda b: FILE[:21] + b) | st.binary(max_size=9).map(FILE.__add__)
)
def test_any_bytes_are_a_file_or_one_error(data: bytes) -> None:
    try:
        found = read(BytesSource(data))
    except CarryError:
        return
    assert Carriage.parse(found.envelope.payload) == found.carriage


@given(st.integers(0, len(FILE) - 1))
def test_a_file_cut_anywhere_is_not_taken_in(at: int) -> None:
    with pytest.raises(NotCarried if at == 0 else CarriedTruncated):
        take(FILE[:at])


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_file_changed_anywhere_is_not_taken_in(at: int, change: int) -> None:
    with pytest.raises(CarryError):
        take(FILE[:at] + bytes([FILE[at] ^ change]) + FILE[at + 1 :])


items = st.builds(
    lambda kind, size, digest: Item(kind, size, wire.digest(digest)),
    st.sampled_from(Kind),
    st.integers(1, 1 << 20),
    st.binary(max_size=4),
)
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
carriages = st.builds(
    lambda a, b, number, back, at, listed, key: Carriage(
        Place("here", a),
        Place("there", b),
        number,
        max(0, number - 1 - back),
        at,
        tuple(sorted({(i.kind, i.digest): i for i in listed}.values(), key=lambda i: i.kind.rank)),
        Body(1024, key[:32], key[32:64], key[64:96]),
        (key * 13)[: len(make_carry.FOUND.carriage.key)],
    ),
    names,
    names,
    st.integers(1, 1 << 40),
    st.integers(0, 5),
    st.integers(0, 1 << 40),
    st.lists(items, min_size=1, max_size=8),
    st.binary(min_size=96, max_size=96),
)


@given(carriages)
def test_a_manifest_has_one_spelling(carriage: Carriage) -> None:
    assert Carriage.parse(carriage.encode()) == carriage
    assert Carriage.parse(carriage.encode()).encode() == carriage.encode()
    assert carriage.offsets[0] == 0
    assert carriage.offsets[-1] + carriage.items[-1].size == carriage.layout.plaintext_bytes


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=9)
)
def test_any_document_is_a_manifest_or_one_error(value: object) -> None:
    plain = make_carry.FOUND.carriage.to_json()
    for candidate in (value, {**plain, "items": value}, {**plain, "from": value}, {**plain, "body": value}):
        with pytest.raises(StrongroomError):
            Carriage.from_json(candidate)


@given(st.sampled_from(sorted(set(Kind) - {Kind.MOCK, Kind.OUTPUT})), st.binary(max_size=200))
def test_any_bytes_of_any_kind_are_read_or_refused_in_one_word(kind: Kind, data: bytes) -> None:
    with pytest.raises(CarriedBadItem, match=f"an item is no {kind}: "):
        said(kind, data)


def test_too_many_items() -> None:
    many = [Item(Kind.MOCK, 1, wire.digest(str(n).encode())) for n in range(MAX_ITEMS + 1)]
    good = make_carry.FOUND.carriage
    assert len(Carriage.parse(replace(good, items=tuple(many[1:])).encode()).items) == MAX_ITEMS
    with pytest.raises(BadField):
        replace(good, items=tuple(many))
    with pytest.raises(TooLarge):
        replace(good, items=(Item(Kind.MOCK, 1 << 50, many[0].digest),))


def test_an_item_that_is_larger_than_its_kind_is_not_read() -> None:
    huge = Item(Kind.CARD, limit_of(Kind.CARD) + 1, wire.digest(b"x"))
    data = b"x" * huge.size
    with pytest.raises(CarriedBadItem, match="larger than any"):
        take(carried([(Kind.CARD, data)], items=[replace(huge, digest=wire.digest(data))]))


@pytest.mark.parametrize("said_item", [Item(Kind.MOCK, 3, wire.digest(b"abcd")), Item(Kind.MOCK, 4, wire.digest(b"abce"))])
def test_what_comes_otherwise_than_it_was_listed_is_not_written(said_item: Item) -> None:
    with pytest.raises(CarriedBadItem):
        carried([(Kind.MOCK, b"abcd")], items=[said_item])


def test_an_item_may_come_in_any_pieces() -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"", b"a", b"", b"b" * 3000)

    sink, data = io.BytesIO(), b"a" + b"b" * 3000
    seen: list[int] = []
    write(
        sink,
        [(item(Kind.MOCK, data), pieces)],
        sender=make_carry.LOW,
        recipient=make_carry.HIGH,
        number=1,
        follows=0,
        created_at=NOW,
        signing=LAB.signing,
        to=HOSPITAL.decryption.public,
        entropy=Entropy("pieces"),
        chunk_bytes=1024,
        progress=seen.append,
    )
    assert take(sink.getvalue()).data(0) == data
    assert seen[-1] == len(data)


def test_a_file_that_changes_while_it_is_read_gives_no_other_bytes() -> None:
    held = bytearray(FILE)

    class Changing:
        size = len(FILE)

        def read_at(self, offset: int, length: int) -> bytes:
            return bytes(held[offset : offset + length])

    signed = verify(read(Changing()), TRUST)
    contents = open_body(signed, "hospital", HOSPITAL.decryption)
    held[signed.file.body_at + 64 :] = bytes(len(held) - signed.file.body_at - 64)
    with pytest.raises(CarriedAltered):
        contents.data(0)


def test_a_part_ends_where_it_ends() -> None:
    part = Part(BytesSource(b"0123456789"), 2, 4)
    assert (part.size, part.read_at(1, 9), part.read_at(7, 3)) == (4, b"345", b"")


# --- what only one function makes -------------------------------------------------------------------------------------


def test_nobody_else_makes_what_is_trusted() -> None:
    found = read(BytesSource(FILE))
    signed = verify(found, TRUST)
    with pytest.raises(TypeError):
        Signed(found, card("lab"), object())
    with pytest.raises(TypeError):
        Accepted(signed, object())
    with pytest.raises(TypeError):
        Contents(found.carriage, None, object())  # type: ignore[arg-type]
    assert carry.accept(signed, site=SITE, party="hospital", taken={}).signed is signed


def test_it_opens_for_its_recipient_alone() -> None:
    signed = verify(read(BytesSource(FILE)), TRUST)
    with pytest.raises(CarriedElsewhere):
        open_body(signed, "lab", LAB.decryption)
    with pytest.raises(CarriedElsewhere):
        open_body(signed, "hospital", LAB.decryption)


def test_another_who_signs_the_body_again_cannot_open_it_to_anybody() -> None:
    """A stranger who is pinned too takes the lab's body and key, and says that they are its own."""
    stolen = make_carry.resigned(FILE, by=keys_of("bank").signing, **{"from": Place("low", "bank").to_json()})
    trust = TRUST.pin(card("bank"))
    signed = verify(read(BytesSource(stolen)), trust)
    with pytest.raises(CarriedElsewhere):
        open_body(signed, "hospital", HOSPITAL.decryption)


# --- the policy -------------------------------------------------------------------------------------------------------


def test_nothing_is_let_through_by_silence() -> None:
    with pytest.raises(CarriedFromStranger):
        Site("high").peer("low")
    with pytest.raises(CarryError):
        Peer("low", ("lab",), ("lab",), None, None).incoming()
    with pytest.raises(CarryError):
        Peer("low", ("lab",), ("lab",), None, None).outgoing()
    with pytest.raises(BadField):
        Lets((), 1)


def test_a_site_is_dealt_with_in_one_way() -> None:
    closed = Peer("low", ("lab",), ("lab",), None, None)
    assert SITE.with_peer(closed).peers == (closed,)
    assert [p.site for p in SITE.with_peer(replace(closed, site="a")).peers] == ["a", "low"]
    with pytest.raises(BadField):
        SITE.with_peer(replace(closed, site="high"))


# --- items ------------------------------------------------------------------------------------------------------------


def test_an_offer_is_read_under_the_key_that_it_names() -> None:
    manifest, envelope, _, _ = sealed_asset("data")
    offered = Offered(envelope, keys_of(manifest.owner).signing.public)
    assert Offered.parse(offered.encode()) == offered
    assert said(Kind.MANIFEST, offered.encode()).about == f"{manifest.owner}/{manifest.name}"
    with pytest.raises(CarriedBadItem):
        said(Kind.MANIFEST, replace(offered, key=keys_of("stranger").signing.public).encode())


def test_heads_and_their_proofs() -> None:
    tree = Tree(MemoryNodes(), 0)
    for place in range(5):
        tree.append(Entry("proposal", wire.digest(b"contract"), wire.digest(bytes([place]))))
    head = tree.checkpoint(LOG)
    heads = Heads(head, (tree.prove_consistency(2, 5), tree.prove_consistency(4, 5)))
    assert Heads.parse(heads.encode()) == heads
    assert said(Kind.LEDGER, heads.encode()).about == f"5 entries of {head.origin}"
    for proofs in (heads.proofs[::-1], (heads.proofs[0],) * 2, (tree.prove_consistency(2, 4),)):
        with pytest.raises(BadField):
            Heads(head, proofs)


def test_a_receipt_is_the_same_under_the_proofs_of_two_logs() -> None:
    world = World()
    bundle = world.run(world.agree())
    assert bundle.proof is not None
    bare = replace(bundle, proof=None)
    assert bare.encode() != bundle.encode()
    assert said(Kind.RECEIPT, bare.encode()) == said(Kind.RECEIPT, bundle.encode())
    assert said(Kind.RECEIPT, bundle.encode()).proposal == bundle.contract.digest


def test_a_withdrawal_and_a_note_say_of_which_proposal() -> None:
    proposal = make_carry.PROPOSAL
    withdrawal = Withdrawal(proposal.digest, "hospital", NOW, "why").sign(HOSPITAL.signing)
    note = Note(proposal.digest, None, NoteKind.COMMENT, "lab", NOW, "a word").sign(LAB.signing)
    assert said(Kind.WITHDRAWAL, withdrawal.encode()).proposal == proposal.digest
    assert said(Kind.NOTE, note.encode()).proposal == proposal.digest
    assert said(Kind.NOTE, note.encode()).about == "comment by lab"
