"""The ledger: its tree against the RFCs' recursive definitions, its proofs and heads against those who would forge them."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.batch import Submission
from strongroom.checkpoint import MAX_NOTE_BYTES, Checkpoint, LogKey, LogVerifier, NoteSignature, VerifiedCheckpoint
from strongroom.errors import BadCheckpoint, BadField, BadKey, BadProof, Inconsistent, NotLogged, StrongroomError
from strongroom.ledger import (
    EMPTY_ROOT,
    ENTRY_KINDS,
    ConsistencyProof,
    Entry,
    InclusionProof,
    LoggedProof,
    MemoryNodes,
    Tree,
    follow,
)
from strongroom.merkle import leaf_hash, node_hash
from strongroom.party import SigningKey, VerifyKey

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "ledger").glob("*.json"))
LARGEST = 70
LEAVES = [leaf_hash(b"%d" % n) for n in range(LARGEST)]
KEY = LogKey("ledger.example/main", SigningKey(bytes(32)))
OTHER = LogKey("ledger.example/main", SigningKey(bytes([1] * 32)))

digests = st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex())
entries = st.builds(Entry, kind=st.sampled_from(ENTRY_KINDS), contract=digests, digest=digests)


def entry(n: int) -> Entry:
    return Entry("receipt", wire.digest(b"contract"), wire.digest(b"%d" % n))


def grown(leaves: list[bytes]) -> Tree:
    tree = Tree(MemoryNodes())
    for leaf in leaves:
        tree.append_leaf(leaf)
    return tree


TREE = grown(LEAVES)
ROOTS = [TREE.root(size) for size in range(LARGEST + 1)]


def head(tree: Tree, size: int | None = None) -> VerifiedCheckpoint:
    size = tree.size if size is None else size
    return KEY.verifier.verify(KEY.sign(size, tree.root(size)))


# --- the RFCs' definitions, word for word ---------------------------------------------------------------------------


def k(n: int) -> int:
    return 1 << ((n - 1).bit_length() - 1)


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    return node_hash(mth(leaves[: k(len(leaves))]), mth(leaves[k(len(leaves)) :]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    middle = k(len(leaves))
    if m < middle:
        return [*path(m, leaves[:middle]), mth(leaves[middle:])]
    return [*path(m - middle, leaves[middle:]), mth(leaves[:middle])]


def subproof(m: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    middle = k(len(leaves))
    if m <= middle:
        return [*subproof(m, leaves[:middle], whole=whole), mth(leaves[middle:])]
    return [*subproof(m - middle, leaves[middle:], whole=False), mth(leaves[:middle])]


def test_roots_are_those_of_the_definition() -> None:
    assert [mth(LEAVES[:size]) for size in range(LARGEST + 1)] == ROOTS


def test_inclusion_proofs_are_those_of_the_definition() -> None:
    for size in range(1, 40):
        for index in range(size):
            assert list(TREE.prove_inclusion(index, size).hashes) == path(index, LEAVES[:size])


def test_consistency_proofs_are_those_of_the_definition() -> None:
    for new in range(1, 40):
        for old in range(1, new + 1):
            assert list(TREE.prove_consistency(old, new).hashes) == subproof(old, LEAVES[:new], whole=True)


# --- inclusion ------------------------------------------------------------------------------------------------------


def leads_to(proof: InclusionProof, leaf: bytes, root: bytes) -> bool:
    try:
        return proof.root_from(leaf) == root
    except BadProof:
        return False


def test_every_inclusion_proof_of_every_size_verifies() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            assert leads_to(TREE.prove_inclusion(index, size), LEAVES[index], ROOTS[size])


def test_altered_inclusion_proofs_of_every_size_are_refused() -> None:
    for size in range(1, 34):
        for index in range(size):
            good = TREE.prove_inclusion(index, size)
            hashes = good.hashes
            for wrong in range(size + 2):
                assert wrong == index or not leads_to(replace(good, index=wrong), LEAVES[index], ROOTS[size])
            assert not leads_to(good, LEAVES[index + 1], ROOTS[size])
            assert not leads_to(good, LEAVES[index], ROOTS[size - 1])
            assert not leads_to(replace(good, hashes=(*hashes, bytes(32))), LEAVES[index], ROOTS[size])
            assert not leads_to(replace(good, hashes=(LEAVES[index], *hashes)), LEAVES[index], ROOTS[size])
            for n in range(len(hashes)):
                assert not leads_to(replace(good, hashes=hashes[:n] + hashes[n + 1 :]), LEAVES[index], ROOTS[size])
                altered = bytes([hashes[n][0] ^ 1]) + hashes[n][1:]
                assert not leads_to(
                    replace(good, hashes=(*hashes[:n], altered, *hashes[n + 1 :])), LEAVES[index], ROOTS[size]
                )


@given(st.data())
def test_a_proof_for_another_size_than_the_heads_is_refused(data: st.DataObject) -> None:
    tree = Tree(MemoryNodes())
    for n in range(data.draw(st.integers(2, 20))):
        tree.append(entry(n))
    index = data.draw(st.integers(0, tree.size - 2))
    proof = tree.prove_inclusion(index, tree.size - 1)
    proof.verify(entry(index), head(tree, tree.size - 1))
    with pytest.raises(BadProof, match="for a log of"):
        proof.verify(entry(index), head(tree))


def test_a_path_has_the_length_of_its_place() -> None:
    good = TREE.prove_inclusion(3, 7)
    for hashes, why in ((good.hashes[:-1], "too few"), ((*good.hashes, bytes(32)), "too many")):
        with pytest.raises(BadProof, match=why):
            replace(good, hashes=hashes).root_from(LEAVES[3])


def test_a_node_cannot_be_passed_off_as_an_entry() -> None:
    # The root of a tree of 2 is the leaf of no tree of 1: the sizes differ, and so do the prefixes.
    assert not leads_to(InclusionProof(0, 2, ()), ROOTS[2], ROOTS[2])
    assert leads_to(InclusionProof(0, 1, ()), LEAVES[0], ROOTS[1])


@pytest.mark.parametrize("hashes", [(bytes(31),), (bytes(33),), (b"",), (bytes(32),) * 65])
def test_a_proof_of_other_than_hashes_cannot_be_made(hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(BadProof):
        InclusionProof(0, 2, hashes)
    with pytest.raises(BadProof):
        ConsistencyProof(1, 2, hashes)


# --- consistency ----------------------------------------------------------------------------------------------------


def consistent(proof: ConsistencyProof, old: bytes, new: bytes) -> bool:
    try:
        found = proof.roots_from(old)
    except BadProof:
        return False
    return found[0] == old and found[1] in (None, new)


def test_consistency_of_all_pairs() -> None:
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            assert consistent(TREE.prove_consistency(old, new), ROOTS[old], ROOTS[new])


def test_altered_consistency_proofs_of_all_pairs_are_refused() -> None:
    for new in range(2, 34):
        for old in range(1, new):
            good = TREE.prove_consistency(old, new)
            hashes = good.hashes
            for other in range(new + 1):
                assert other == old or not consistent(good, ROOTS[other], ROOTS[new])
                assert other == old or other == 0 or not consistent(replace(good, old=other), ROOTS[other], ROOTS[new])
            assert not consistent(good, ROOTS[old], ROOTS[new - 1])
            assert not consistent(replace(good, new=old - 1), ROOTS[old], ROOTS[new])
            assert not consistent(replace(good, hashes=(*hashes, bytes(32))), ROOTS[old], ROOTS[new])
            for n in range(len(hashes)):
                assert not consistent(replace(good, hashes=hashes[:n] + hashes[n + 1 :]), ROOTS[old], ROOTS[new])
                altered = bytes([hashes[n][0] ^ 1]) + hashes[n][1:]
                assert not consistent(replace(good, hashes=(*hashes[:n], altered, *hashes[n + 1 :])), ROOTS[old], ROOTS[new])


def test_growth_from_nothing_and_to_the_same_needs_no_hashes_and_takes_none() -> None:
    for sizes in ((0, 5), (5, 5)):
        with pytest.raises(BadProof, match="too many"):
            ConsistencyProof(*sizes, (bytes(32),)).roots_from(EMPTY_ROOT)


def test_an_empty_log_with_another_root_than_the_empty_one_is_refused() -> None:
    lie = KEY.verifier.verify(KEY.sign(0, bytes(32)))
    with pytest.raises(BadProof):
        ConsistencyProof(0, 5, ()).verify(lie, head(TREE, 5))


def test_a_consistency_proof_is_for_the_sizes_of_both_heads() -> None:
    TREE.prove_consistency(3, 7).verify(head(TREE, 3), head(TREE, 7))
    for sizes in ((2, 7), (3, 6)):
        with pytest.raises(BadProof, match="leads from"):
            TREE.prove_consistency(*sizes).verify(head(TREE, 3), head(TREE, 7))


# --- following a log ------------------------------------------------------------------------------------------------


@given(st.integers(0, LARGEST), st.integers(0, LARGEST))
def test_follow_accepts_growth_and_nothing_else(old: int, new: int) -> None:
    last, shown = head(TREE, old), head(TREE, new)
    if old <= new:
        assert follow(last, shown, TREE.prove_consistency(old, new)) == shown
    else:
        with pytest.raises(Inconsistent, match="before"):
            follow(last, shown, TREE.prove_consistency(new, old))
        with pytest.raises(Inconsistent, match="had"):
            follow(last, shown)


def test_follow_starts_anywhere() -> None:
    assert follow(None, head(TREE, 7)) == head(TREE, 7)


def test_follow_refuses_another_log() -> None:
    other = LogKey("ledger.example/other", KEY.key)
    with pytest.raises(Inconsistent, match="of the log"):
        follow(head(TREE, 7), other.verifier.verify(other.sign(7, ROOTS[7])))


@given(st.integers(1, LARGEST), st.integers(0, LARGEST - 1))
def test_follow_refuses_a_rewritten_entry(old: int, changed: int) -> None:
    fork = grown([*LEAVES[:changed], leaf_hash(b"rewritten"), *LEAVES[changed + 1 :]])
    proof = fork.prove_consistency(old, LARGEST)
    if changed >= old:
        follow(head(TREE, old), head(fork), proof)
    else:
        with pytest.raises(Inconsistent):
            follow(head(TREE, old), head(fork), proof)
    with pytest.raises(Inconsistent):
        follow(head(TREE), head(fork), proof)


# --- the tree -------------------------------------------------------------------------------------------------------


class CountingNodes(MemoryNodes):
    """Counts what is read and written, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.touched = 0
        self.fail_at: int | None = None
        self.stored_before_failing = False

    def get(self, level: int, index: int) -> bytes:
        self.touched += 1
        return super().get(level, index)

    def put(self, level: int, index: int, node: bytes) -> None:
        self.touched += 1
        if self.fail_at == self.touched and not self.stored_before_failing:
            raise OSError
        super().put(level, index, node)
        if self.fail_at == self.touched:
            raise OSError


def test_an_append_and_every_proof_touch_a_logarithm_of_nodes() -> None:
    nodes = CountingNodes()
    tree = Tree(nodes)

    def cost(step: Callable[[], object]) -> int:
        nodes.touched = 0
        step()
        return nodes.touched

    for n in range(1 << 10):
        leaf = leaf_hash(b"%d" % n)
        assert cost(lambda leaf=leaf: tree.append_leaf(leaf)) <= 2 * 11
    for size in (1000, 1023, 1024):
        assert cost(lambda size=size: tree.root(size)) <= 11
        for index in (0, size // 2, size - 1):
            assert cost(lambda index=index, size=size: tree.prove_inclusion(index, size)) <= 2 * 11
            assert cost(lambda index=index, size=size: tree.prove_consistency(index, size)) <= 2 * 11


@pytest.mark.parametrize("stored", [False, True])
@given(size=st.integers(0, 20), at=st.integers(1, 10))
def test_an_append_that_failed_halfway_can_be_made_again(stored: bool, size: int, at: int) -> None:
    nodes = CountingNodes()
    tree = Tree(nodes)
    for leaf in LEAVES[:size]:
        tree.append_leaf(leaf)
    nodes.touched, nodes.fail_at, nodes.stored_before_failing = 0, at, stored
    try:
        tree.append_leaf(LEAVES[size])
    except OSError:
        assert tree.size == size
        nodes.fail_at = None
        assert tree.append_leaf(LEAVES[size]) == size
    assert tree.root() == ROOTS[size + 1]


@given(st.integers(0, LARGEST))
def test_a_tree_goes_on_where_its_store_stands(size: int) -> None:
    nodes = MemoryNodes()
    for n, leaf in enumerate(LEAVES):
        assert Tree(nodes, n).append_leaf(leaf) == n
    assert Tree(nodes, LARGEST).root(size) == ROOTS[size]


@pytest.mark.parametrize(
    "ask",
    [
        lambda tree: tree.root(8),
        lambda tree: tree.root(-1),
        lambda tree: tree.prove_inclusion(7, 7),
        lambda tree: tree.prove_inclusion(-1, 7),
        lambda tree: tree.prove_inclusion(0, 8),
        lambda tree: tree.prove_inclusion(0, 0),
        lambda tree: tree.prove_consistency(5, 8),
        lambda tree: tree.prove_consistency(6, 5),
        lambda tree: tree.prove_consistency(-1, 5),
    ],
)
def test_what_is_not_logged_cannot_be_asked_for(ask: Callable[[Tree], object]) -> None:
    with pytest.raises(NotLogged):
        ask(grown(LEAVES[:7]))


# --- entries --------------------------------------------------------------------------------------------------------


@given(entries)
def test_entry_round_trip(found: Entry) -> None:
    assert Entry.parse(found.encode()) == found
    assert Entry.from_json(found.to_json()) == found
    assert found.leaf_hash == leaf_hash(found.encode())


@given(entries, st.data())
def test_entry_malleability(found: Entry, data: st.DataObject) -> None:
    encoded = bytearray(found.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        parsed = Entry.parse(bytes(encoded))
    except StrongroomError:
        return
    assert parsed.encode() == bytes(encoded)
    assert parsed != found


@pytest.mark.parametrize("values", [("rumour", "", ""), ("receipt", "sha256:00", "sha256:00"), (None, 1, 2)])
def test_an_entry_of_another_shape_cannot_be_made(values: tuple[Any, Any, Any]) -> None:
    with pytest.raises(BadField):
        Entry(*values)


# --- heads ----------------------------------------------------------------------------------------------------------

key_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Zs", "Zl", "Zp", "Cc"], exclude_characters="+"), min_size=1
)
notes = st.builds(
    Checkpoint,
    origin=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1),
    size=st.integers(0, wire.MAX_INT),
    root=st.binary(min_size=32, max_size=32),
    signatures=st.lists(
        st.builds(
            NoteSignature, name=key_names, key_id=st.binary(min_size=4, max_size=4), sig=st.binary(min_size=1, max_size=80)
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
)


@given(notes)
def test_checkpoint_round_trip(found: Checkpoint) -> None:
    assert Checkpoint.parse(found.encode()) == found


@given(st.integers(0, 20), st.data())
def test_checkpoint_malleability(size: int, data: st.DataObject) -> None:
    signed = KEY.sign(size, ROOTS[size])
    encoded = bytearray(signed.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Checkpoint.parse(bytes(encoded))
    except BadCheckpoint:
        return
    assert found.encode() == bytes(encoded)
    with pytest.raises(StrongroomError):
        KEY.verifier.verify(found)


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_parsing_a_checkpoint_is_total(data: bytes) -> None:
    with pytest.raises(BadCheckpoint):
        Checkpoint.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" + KEY.sign(0, EMPTY_ROOT).encode(),
        b"\xef\xbb\xbf" + KEY.sign(0, EMPTY_ROOT).encode(),  # a byte order mark belongs to the name, which is then another
        KEY.sign(0, EMPTY_ROOT).encode() + "— a AAAAAAA=\n".encode() * (MAX_NOTE_BYTES // 10),
    ],
)
def test_a_note_with_other_bytes_around_it_is_refused(data: bytes) -> None:
    with pytest.raises(BadCheckpoint):
        KEY.verifier.verify(Checkpoint.parse(data))


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (replace(KEY.sign(0, EMPTY_ROOT), origin="a\x01b").encode(), "control character"),
        (
            replace(KEY.sign(0, EMPTY_ROOT), signatures=(NoteSignature("w", bytes(4), bytes(MAX_NOTE_BYTES)),)).encode(),
            "longer",
        ),
    ],
)
def test_a_note_beyond_its_limits_is_refused_before_it_is_read(note: bytes, why: str) -> None:
    with pytest.raises(BadCheckpoint, match=why):
        Checkpoint.parse(note)


def test_a_verifier_key_of_another_algorithm_is_refused_under_its_own_id() -> None:
    raw = b"\x02" + KEY.key.public.raw
    key_id = hashlib.sha256(b"ledger.example/main\n" + raw).digest()[:4]
    with pytest.raises(BadKey, match="not an Ed25519 key"):
        LogVerifier.from_vkey(f"ledger.example/main+{key_id.hex()}+{wire.b64(raw)}")


def test_sixteen_witnesses_with_large_signatures_are_taken() -> None:
    # signed-note: at least 16 signatures; the largest post-quantum ones are near 5 kB.
    ours = KEY.sign(0, EMPTY_ROOT)
    large = tuple(NoteSignature(f"w{n}.example", bytes(4), bytes(5000)) for n in range(16))
    found = Checkpoint.parse(replace(ours, signatures=(*large, *ours.signatures)).encode())
    assert KEY.verifier.verify(found).size == 0


def test_nothing_but_a_verifier_makes_a_verified_checkpoint() -> None:
    checkpoint = KEY.sign(0, EMPTY_ROOT)
    with pytest.raises(TypeError):
        VerifiedCheckpoint(checkpoint)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="only LogVerifier"):
        VerifiedCheckpoint(checkpoint, object())
    verified = KEY.verifier.verify(checkpoint)
    with pytest.raises((TypeError, ValueError)):
        replace(verified, checkpoint=OTHER.sign(1, bytes(32)))
    with pytest.raises((TypeError, ValueError)):
        replace(verified, checkpoint=OTHER.sign(1, bytes(32)), maker=object())
    assert copy.copy(verified) == verified


@given(key_names, st.binary(min_size=32, max_size=32))
def test_verifier_key_round_trip(name: str, seed: bytes) -> None:
    verifier = LogKey(name, SigningKey(seed)).verifier
    assert LogVerifier.from_vkey(verifier.vkey) == verifier


@given(st.data())
def test_verifier_key_malleability(data: st.DataObject) -> None:
    text = KEY.verifier.vkey
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(codec="utf-8")) + text[at + 1 :]
    if changed != text:
        with pytest.raises(BadKey):
            LogVerifier.from_vkey(changed)


def test_every_part_of_a_verifier_key_alone_is_refused() -> None:
    text = KEY.verifier.vkey
    for start in range(len(text)):
        for end in range(start, len(text)):
            if end - start < len(text):
                with pytest.raises(BadKey):
                    LogVerifier.from_vkey(text[start:end])


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\u2003b", "a\x01b"])
def test_a_name_that_a_note_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(BadKey):
        LogVerifier(name, KEY.key.public)


def test_a_private_key_is_not_shown() -> None:
    assert repr(bytes(32)) not in repr(KEY)


# --- a head and a path together -------------------------------------------------------------------------------------


def logged(index: int = 3, size: int = 7) -> LoggedProof:
    tree = Tree(MemoryNodes())
    for n in range(size):
        tree.append(entry(n))
    return LoggedProof(tree.checkpoint(KEY), tree.prove_inclusion(index, size))


@given(st.integers(1, 20), st.data())
def test_logged_proof_round_trip(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = logged(index, size)
    assert LoggedProof.from_json(wire.decode(wire.encode(proof.to_json()))) == proof
    assert proof.verify(entry(index), (OTHER.verifier, KEY.verifier)).size == size


def test_logged_proof_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(BadField):
        LoggedProof.from_json({**logged().to_json(), "checkpoint": "\ud800"})


def test_consistency_proof_round_trip() -> None:
    for new in range(20):
        for old in range(new + 1):
            proof = TREE.prove_consistency(old, new)
            assert ConsistencyProof.from_json(wire.decode(wire.encode(proof.to_json()))) == proof


def test_the_examples_of_the_specification() -> None:
    page = (Path(__file__).parents[1] / "spec" / "ledger.md").read_text(encoding="utf-8")
    blocks = [block.partition("\n") for block in page.split("```")[1::2]]
    said, proof, batch = [text.strip() for kind, _, text in blocks if kind == "json"]
    note, vkey = [text.strip() for kind, _, text in blocks if kind == "text"]
    assert Entry.parse(said.encode()).encode().decode() == said
    example = LoggedProof.from_json(json.loads(proof))
    assert example.checkpoint.encode().decode().strip() == note
    assert LogVerifier.from_vkey(vkey).verify(example.checkpoint).size == example.inclusion.size
    sent = json.loads((Path(__file__).parents[1] / "vectors" / "receipt_batch" / "ok-one.json").read_bytes())["submission"]
    assert Submission.parse(sent.encode()).batch.payload == wire.encode(json.loads(batch))


# --- vectors --------------------------------------------------------------------------------------------------------


def tree_of(case: dict[str, Any]) -> Tree:
    return grown([leaf_hash(bytes.fromhex(e)) for e in case["entries"]])


def run(case: dict[str, Any]) -> None:
    match case["operation"]:
        case "root":
            assert tree_of(case).root().hex() == case["root"]
        case "inclusion path":
            tree = tree_of(case)
            proof = tree.prove_inclusion(case["index"], tree.size)
            assert [h.hex() for h in proof.hashes] == case["hashes"]
            leaf = leaf_hash(bytes.fromhex(case["entries"][case["index"]]))
            assert proof.root_from(leaf).hex() == case["root"] == tree.root().hex()
        case "consistency path":
            tree = tree_of(case)
            proof = tree.prove_consistency(case["old"], tree.size)
            assert [h.hex() for h in proof.hashes] == case["hashes"]
            old, new = proof.roots_from(bytes.fromhex(case["old_root"]))
            assert (old.hex(), new and new.hex()) == (case["old_root"], case["root"])
        case "head":
            signer = LogKey(case["name"], SigningKey.from_seed(base64.b64decode(case["seed"])))
            made = tree_of(case).checkpoint(signer)
            assert made.encode().decode() == case["note"]
            assert signer.verifier.verify(Checkpoint.parse(case["note"].encode())).checkpoint == made
        case "vkey":
            assert LogVerifier.from_vkey(case["vkey"]).vkey == case["vkey"]
        case "checkpoint":
            LogVerifier.from_vkey(case["vkey"]).verify(Checkpoint.parse(case["note"].encode()))
        case "logged":
            logs = [LogVerifier.from_vkey(text) for text in case["vkeys"]]
            LoggedProof.from_json(case["proof"]).verify(Entry.from_json(case["entry"]), logs)
        case "follow":
            log = LogVerifier.from_vkey(case["vkey"])
            last, new = (
                None if case[which] is None else log.verify(Checkpoint.parse(case[which].encode()))
                for which in ("last", "new")
            )
            assert new is not None
            follow(last, new, None if case["proof"] is None else ConsistencyProof.from_json(case["proof"]))
        case "entry":
            assert Entry.parse(case["entry"].encode()).encode().decode() == case["entry"]
        case _:
            pytest.fail("an operation that this test does not know")


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 90


@pytest.mark.parametrize("vector", VECTORS, ids=lambda p: p.stem)
def test_vector(vector: Path) -> None:
    case = json.loads(vector.read_bytes())
    if case["expect"] == "ok":
        run(case)
        return
    with pytest.raises(StrongroomError) as caught:
        run(case)
    assert caught.value.code == case["expect"]


def test_a_head_signed_by_the_go_checksum_database_verifies_under_its_key() -> None:
    case = json.loads(next(p for p in VECTORS if p.stem == "checkpoint-go-another-origin").read_bytes())
    found, log = Checkpoint.parse(case["note"].encode()), LogVerifier.from_vkey(case["vkey"])
    (signature,) = log.signatures_of(found)
    VerifyKey(log.key.raw).verify_bytes(signature.sig, found.text)
