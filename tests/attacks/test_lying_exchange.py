"""An exchange that lies: it drops, reorders, duplicates, swaps, makes things up, and shows two histories. Each is noticed.

The lies are told by something that stands between a party and an honest exchange, or by the operator, who holds the log's
key and every byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from stage import InProcess, Rehearsal
from strongroom import wire
from strongroom.app.client.draft import Change, Wanted
from strongroom.app.client.room import Room
from strongroom.app.exchange.server import exchange
from strongroom.checkpoint import Checkpoint, LogKey
from strongroom.contract import State, Withdrawal
from strongroom.errors import (
    BadCheckpoint,
    BadField,
    BadReceipt,
    BadSignature,
    ChunkAltered,
    Inconsistent,
    ManifestMismatch,
    NotFound,
    NotVerified,
    SignatureDoubled,
    SignatureFromStranger,
    SignatureInvalid,
    SignatureMissing,
    StrongroomError,
    TooLarge,
    TrailerAltered,
    TrailingBytes,
    Truncated,
)
from strongroom.ledger import Entry, MemoryNodes, Tree
from strongroom.party import SigningKey
from world import keys_of

Lie = Callable[[Any], Any]


class Liar(InProcess):
    """An honest exchange, some of whose answers are changed on the way."""

    def __init__(self, rehearsal: Rehearsal, lies: dict[str, Lie | bytes]) -> None:
        super().__init__(exchange(rehearsal.store))
        self.lies = lies
        self.told = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for path, lie in self.lies.items():
            if request.url.path.startswith(path) and request.method in ("GET", "HEAD"):
                self.told += 1
                return self._lie(request, lie)
        return super().handle_request(request)

    def _lie(self, request: httpx.Request, lie: Lie | bytes) -> httpx.Response:
        if isinstance(lie, bytes):
            found = lie
        else:
            answer = super().handle_request(httpx.Request("GET", request.url))
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            found = wire.encode(lie(json.loads(answer.content))) if is_json else lie(answer.content)
        if request.method == "HEAD":
            return httpx.Response(200, headers={"content-length": str(len(found))})
        first, _, last = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        return httpx.Response(200, content=found[int(first) : int(last) + 1 if last else None])


def lied_to(rehearsal: Rehearsal, party: str = "lab", **lies: Lie | bytes) -> Room:
    """A party whose exchange lies: ``proposals__lie`` is about ``/v1/proposals/``."""
    where = {"/v1/" + name.replace("__", "/"): lie for name, lie in lies.items()}
    return rehearsal.room(rehearsal.place.party(party), Liar(rehearsal, where))


@pytest.fixture
def agreed(rehearsal: Rehearsal) -> str:
    return rehearsal.agree()


@pytest.fixture
def done(rehearsal: Rehearsal) -> str:
    outputs = {"report": Wanted(("hospital", "lab")), "calibration": Wanted(("hospital",))}
    digest = rehearsal.agree(outputs=outputs, runs=2)
    rehearsal.run(digest)
    return digest


def member(name: str, change: Lie) -> Lie:
    """Change one member of what is answered."""
    return lambda found: {**found, name: change(found[name])} if isinstance(found, dict) else found


def signatures(change: Lie) -> Lie:
    return member("envelope", lambda envelope: {**envelope, "signatures": change(envelope["signatures"])})


# --- proposals and approvals ------------------------------------------------------------------------------------------


def test_a_dropped_approval_makes_no_contract(rehearsal, agreed):
    room = lied_to(rehearsal, proposals__=signatures(lambda s: s[:1]))
    assert room.view(agreed).state is State.PROPOSED
    with pytest.raises(SignatureMissing):
        room.run(agreed)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: [*s, s[0]], SignatureDoubled),
        (lambda s: s[::-1], SignatureDoubled),
        (lambda s: [{**s[0], "sig": s[1]["sig"]}, s[1]], SignatureInvalid),
        (lambda s: [{**s[0], "keyid": s[1]["keyid"]}, s[1]], (SignatureInvalid, SignatureDoubled)),
    ],
    ids=["doubled", "reordered", "anothers", "under-anothers-name"],
)
def test_signatures_that_are_not_exactly_one_a_party_are_refused(rehearsal, agreed, change, error):
    room = lied_to(rehearsal, proposals__=signatures(change))
    for ask in (room.view, room.contract, room.run, room.approve):
        with pytest.raises(error):
            ask(agreed)


def test_a_strangers_signature_is_refused(rehearsal, agreed):
    key = keys_of("mallory").signing
    stranger = {"keyid": key.public.keyid, "sig": wire.b64(bytes(64))}
    room = lied_to(rehearsal, proposals__=signatures(lambda s: sorted([*s, stranger], key=lambda x: x["keyid"])))
    with pytest.raises(SignatureFromStranger):
        room.run(agreed)


def test_an_approval_replayed_from_another_proposal_is_refused(rehearsal, agreed):
    other = rehearsal.lab.propose(rehearsal.draft(title="another"))
    given = rehearsal.lab.exchange.proposal(agreed).envelope.to_json()["signatures"]
    room = lied_to(rehearsal, proposals__=signatures(lambda _: given))
    with pytest.raises(SignatureInvalid, match="not of these bytes"):
        room.run(other.digest)


def test_other_bytes_under_the_same_digest_are_refused(rehearsal, agreed):
    other = rehearsal.lab.propose(rehearsal.draft(title="another"))
    swapped = rehearsal.lab.exchange.client.get(f"/v1/proposals/{other.digest}")
    room = lied_to(rehearsal, proposals__=swapped)
    for ask in (room.view, room.contract, room.run, room.approve, lambda d: room.counter(d, Change(runs=2))):
        with pytest.raises(BadField, match="another proposal"):
            ask(agreed)


def test_a_hidden_proposal_is_not_found_and_nothing_is_made_up_in_its_place(rehearsal, agreed):
    room = lied_to(rehearsal, proposals=member("proposals", lambda _: []))
    assert room.views() == []
    with pytest.raises(NotFound):
        room.find(None)


def test_an_older_proposal_shown_as_the_newest_is_approved_only_by_who_reads_it(rehearsal, agreed):
    """The order is the exchange's word; that is why `approve --yes` takes a whole digest."""
    newer = rehearsal.lab.propose(rehearsal.draft(title="newer")).digest
    room = lied_to(rehearsal, proposals=member("proposals", lambda found: found[::-1]))
    assert room.find(None) == agreed
    assert room.find(newer) == newer


def test_a_made_up_withdrawal_is_noticed_and_withdraws_nothing(rehearsal, agreed):
    forged = Withdrawal(agreed, "hospital", 1, "").sign(keys_of("mallory").signing).to_json()
    room = lied_to(rehearsal, proposals__=member("withdrawals", lambda _: [forged]))
    with pytest.raises(BadSignature):
        room.view(agreed)
    assert not rehearsal.lab.home.book.standing(agreed).withdrawn_by


def test_anothers_withdrawal_is_not_this_contracts(rehearsal, agreed):
    other = rehearsal.agree(title="another")
    rehearsal.hospital.withdraw(other)
    given = rehearsal.lab.exchange.client.get(f"/v1/proposals/{other}")
    moved = json.loads(given)["withdrawals"]
    room = lied_to(rehearsal, proposals__=member("withdrawals", lambda _: moved))
    with pytest.raises(BadField, match="another contract"):
        room.view(agreed)


def test_a_made_up_counter_ends_nothing(rehearsal):
    first = rehearsal.lab.propose(rehearsal.draft()).digest
    other = rehearsal.lab.propose(rehearsal.draft(title="another")).digest
    nowhere = wire.digest(b"nowhere")
    room = lied_to(
        rehearsal, "hospital", **{f"proposals__{first}": member("countered_by", lambda _: [other, nowhere, first])}
    )
    assert room.view(first).state is State.PROPOSED


def test_a_hidden_counter_does_not_bring_back_what_this_party_countered(rehearsal):
    first = rehearsal.lab.propose(rehearsal.draft()).digest
    rehearsal.hospital.counter(first, Change(runs=2))
    room = lied_to(rehearsal, "hospital", proposals__=member("countered_by", lambda _: []))
    assert room.view(first).state is State.COUNTERED


def test_what_cannot_be_relied_on_is_left_out_and_said(rehearsal, agreed):
    forged = Withdrawal(agreed, "hospital", 1, "").sign(keys_of("mallory").signing).to_json()
    room = lied_to(rehearsal, proposals=member("proposals", lambda found: [{**f, "withdrawals": [forged]} for f in found]))
    views, left_out = room.sift()
    assert (views, [x.error.code for x in left_out]) == ([], ["wire.bad_signature"])


def test_nonsense_that_names_nobody_is_left_out_without_a_word(rehearsal, agreed):
    junk = {"payload": wire.b64(b"{}"), "payloadType": wire.media_type("proposal"), "signatures": []}
    room = lied_to(rehearsal, proposals=member("proposals", lambda found: [*found, {**found[0], "envelope": junk}]))
    views, left_out = room.sift()
    assert (len(views), left_out) == (1, [])


# --- assets -----------------------------------------------------------------------------------------------------------


def test_another_manifest_is_refused(rehearsal, agreed):
    (other,) = (e for e in rehearsal.lab.home.book.assets() if e.digest == rehearsal.model.digest)
    rehearsal.lab.exchange = lied_to(rehearsal, manifests__=other.encode()).exchange
    with pytest.raises(ManifestMismatch):
        rehearsal.run(agreed)


def test_a_manifest_with_another_signature_is_shown_to_nobody_and_run_by_nobody(rehearsal, agreed):
    def forge(found: Any) -> Any:
        envelope = wire.Envelope.from_json(found)
        return keys_of("mallory").signing.sign(envelope.payload_type, envelope.payload).to_json()

    room = lied_to(rehearsal, manifests=member("manifests", lambda found: [forge(f) for f in found]))
    assert room.manifests() == []
    rehearsal.lab.exchange = lied_to(rehearsal, manifests__=forge).exchange
    with pytest.raises(BadSignature):
        rehearsal.run(agreed)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda b: b[:-1], "asset.truncated"),
        (lambda b: b + b"x", "asset.trailing_bytes"),
        (lambda b: b[:70] + bytes([b[70] ^ 1]) + b[71:], "asset.chunk_altered"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "asset.trailer_altered"),
        (lambda b: bytes(len(b)), "asset.not_sealed"),
    ],
)
def test_another_sealed_file_ends_the_run_with_a_receipt_that_says_so(rehearsal, agreed, change, code):
    honest = rehearsal.lab.exchange
    rehearsal.lab.exchange = lied_to(rehearsal, **{f"sealed/{rehearsal.records.digest}": change}).exchange
    receipt = rehearsal.lab.keep(rehearsal.run(agreed))
    rehearsal.lab.exchange = honest
    assert (receipt.statement.failure.step, receipt.statement.failure.code) == ("open", code)
    assert rehearsal.hospital.outputs(agreed) == []


# --- receipts and outputs ---------------------------------------------------------------------------------------------


def test_a_receipt_of_another_contract_is_refused(rehearsal, done):
    other = rehearsal.agree(title="another")
    rehearsal.run(other)
    shown = json.loads(rehearsal.lab.exchange.client.get(f"/v1/proposals/{other}"))["receipts"]
    room = lied_to(rehearsal, proposals__=member("receipts", lambda _: shown))
    for ask in (room.outputs, room.receipts):
        with pytest.raises(BadReceipt, match="another contract"):
            ask(done)


def test_another_receipt_under_the_same_digest_is_refused(rehearsal, done):
    rehearsal.run(done)
    first, second = rehearsal.lab.receipts(done)
    room = lied_to(rehearsal, receipts__=second.encode())
    with pytest.raises(BadReceipt, match="another receipt"):
        room.exchange.receipt(first.receipt.digest)
    with pytest.raises(BadReceipt):
        room.outputs(done)


@pytest.mark.parametrize("what", ["manifests", "reports", "releases"])
def test_a_receipt_whose_proofs_were_dropped_opens_nothing(rehearsal, done, what):
    room = lied_to(rehearsal, receipts__=member(what, lambda found: found[:1]))
    with pytest.raises(NotVerified):
        room.outputs(done)


def test_a_receipt_without_its_place_in_the_log_opens_nothing(rehearsal, done):
    room = lied_to(rehearsal, receipts__=lambda found: {**found, "proof": None})
    with pytest.raises(NotVerified, match="V13"):
        room.outputs(done)


def test_a_hidden_receipt_is_not_hidden_from_an_owner_whose_broker_got_it_first(rehearsal, done):
    room = lied_to(rehearsal, "hospital", proposals__=member("receipts", lambda _: []))
    assert room.unreceipted() == []
    assert room.view(done).history.runs
    assert room.outputs(done) == []


def test_a_list_that_never_ends_or_goes_in_a_circle_is_given_up(rehearsal, done, monkeypatch):
    monkeypatch.setattr("strongroom.app.exchange.client.MAX_PAGES", 5)
    turns = iter(range(1, 1000))
    endless = lied_to(rehearsal, proposals=lambda found: {**found, "next": next(turns)})
    with pytest.raises(TooLarge, match="more than 5 pages"):
        endless.views()
    circle = lied_to(rehearsal, proposals=member("next", lambda _: 1))
    with pytest.raises(BadField):
        circle.views()


def test_a_receipt_shown_twice_is_one(rehearsal, done):
    room = lied_to(rehearsal, proposals__=member("receipts", lambda found: [*found, *found]))
    assert {o.path for o in room.outputs(done)} == {o.path for o in rehearsal.lab.outputs(done)}
    assert room.unreceipted() == []


def _deliveries(change: Lie) -> dict[str, Lie]:
    return {"proposals__": lambda found: change(found) if isinstance(found, list) else found}


def test_a_hidden_delivery_is_missed(rehearsal, done):
    room = lied_to(rehearsal, **_deliveries(lambda _: []))
    with pytest.raises(NotFound, match="does not show output 'report'"):
        room.outputs(done)


def test_a_delivery_of_another_run_is_refused(rehearsal, done):
    rehearsal.run(done)
    runs = {d.run_id for d in rehearsal.lab.exchange.deliveries(done)}
    swap = dict(zip(sorted(runs), sorted(runs, reverse=True), strict=True))
    room = lied_to(rehearsal, **_deliveries(lambda found: [{**d, "run_id": swap[d["run_id"]]} for d in found]))
    with pytest.raises(BadReceipt, match="another run"):
        room.outputs(done)


def test_a_delivery_for_somebody_else_is_refused(rehearsal, done):
    room = lied_to(rehearsal, **_deliveries(lambda found: [{**d, "keys": {"mallory": wire.b64(b"x")}} for d in found]))
    with pytest.raises(BadReceipt, match="not encrypted to this party"):
        room.outputs(done)


def test_a_delivery_with_anothers_key_is_refused(rehearsal, done):
    def swap(found: Any) -> Any:
        return [{**d, "keys": {**d["keys"], "lab": d["keys"]["hospital"]}} for d in found]

    room = lied_to(rehearsal, **_deliveries(swap))
    with pytest.raises(BadReceipt, match="not encrypted to this party"):
        room.outputs(done)


def test_a_delivery_whose_manifest_was_swapped_is_refused(rehearsal, done):
    def swap(found: Any) -> Any:
        return [{**d, "manifest": {**d["manifest"], "name": "another"}} for d in found]

    room = lied_to(rehearsal, **_deliveries(swap))
    with pytest.raises(NotFound, match="does not show output"):
        room.outputs(done)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda b: b[:-1], Truncated),
        (lambda b: b + b"x", TrailingBytes),
        (lambda b: b[:70] + bytes([b[70] ^ 1]) + b[71:], ChunkAltered),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), TrailerAltered),
    ],
)
def test_an_output_whose_sealed_file_was_swapped_leaves_nothing(rehearsal, done, change, error):
    room = lied_to(rehearsal, outputs__=change)
    with pytest.raises(error):
        room.outputs(done)
    assert [p for p in (room.home.folder / "outputs").rglob("*") if p.is_file()] == []


def test_one_output_in_anothers_place_is_refused(rehearsal, done):
    picture = next(d for d in rehearsal.lab.exchange.deliveries(done) if d.output == "calibration")
    sealed = rehearsal.lab.exchange.client.get(f"/v1/outputs/{picture.sealed}")
    room = lied_to(rehearsal, outputs__=sealed)
    with pytest.raises(ManifestMismatch):
        room.outputs(done)


# --- the log ----------------------------------------------------------------------------------------------------------


def history(key: LogKey, entries: list[Entry]) -> tuple[Tree, Checkpoint]:
    """Another log under the same key: what its operator can make."""
    tree = Tree(MemoryNodes())
    for entry in entries:
        tree.append(entry)
    return tree, tree.checkpoint(key)


def made_up(number: int) -> Entry:
    return Entry("proposal", wire.digest(b"%d" % number), wire.digest(b"%d" % number))


def test_two_histories_of_one_size_are_noticed(rehearsal, done):
    head, entries = rehearsal.lab.ledger()
    _, other = history(rehearsal.log, [made_up(0), *entries[1:]])
    room = lied_to(rehearsal, log__checkpoint=other.encode())
    with pytest.raises(Inconsistent, match="two different trees"):
        room.ledger()
    assert rehearsal.lab.home.last_seen(head.origin) == head


def test_a_log_that_forgot_is_noticed(rehearsal, done):
    _, entries = rehearsal.lab.ledger()
    tree, shorter = history(rehearsal.log, [made_up(0), *entries[1:2]])
    proof = tree.prove_consistency(1, 2)
    lies = {"log__checkpoint": shorter.encode(), "log__consistency": wire.encode(proof.to_json())}
    with pytest.raises(Inconsistent):
        lied_to(rehearsal, **lies).ledger()


def test_a_log_that_was_rewritten_and_grew_is_noticed(rehearsal, done):
    head, entries = rehearsal.lab.ledger()
    tree, longer = history(rehearsal.log, [made_up(0), *entries[1:], made_up(1)])
    proof = tree.prove_consistency(head.size, tree.size)
    lies = {"log__checkpoint": longer.encode(), "log__consistency": wire.encode(proof.to_json())}
    with pytest.raises(Inconsistent, match="do not extend"):
        lied_to(rehearsal, **lies).ledger()


def test_a_receipt_under_another_history_is_noticed(rehearsal, done):
    _, entries = rehearsal.lab.ledger()
    bundle = rehearsal.lab.receipts(done)[0]
    tree, head = history(rehearsal.log, [made_up(0), *[e for e in entries if e != bundle.entry], bundle.entry])
    proof = {"checkpoint": head.encode().decode(), "inclusion": tree.prove_inclusion(tree.size - 1, tree.size).to_json()}
    room = lied_to(rehearsal, receipts__=lambda found: {**found, "proof": proof})
    with pytest.raises(Inconsistent):
        room.outputs(done)


def test_a_log_under_another_key_is_not_this_log(rehearsal, done):
    _, entries = rehearsal.lab.ledger()
    for key, error in (
        (LogKey("another", rehearsal.log.key), BadCheckpoint),
        (LogKey(rehearsal.log.name, SigningKey(bytes(32))), BadCheckpoint),
    ):
        _, head = history(key, entries)
        with pytest.raises(error):
            lied_to(rehearsal, log__checkpoint=head.encode()).ledger()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[:-1],
        lambda found: [*found, found[0]],
        lambda found: found[::-1],
        lambda found: [{**found[0], "kind": "refusal"}, *found[1:]],
        lambda _: [],
    ],
    ids=["dropped", "duplicated", "reordered", "altered", "hidden"],
)
def test_entries_that_are_not_under_the_signed_head_are_noticed(rehearsal, done, change):
    room = lied_to(rehearsal, log__entries=change)
    with pytest.raises(Inconsistent, match="not those under its signed head"):
        room.ledger()


def test_a_signature_that_was_cut_from_the_head_is_noticed(rehearsal, done):
    checkpoint = rehearsal.lab.exchange.checkpoint()
    with pytest.raises(BadCheckpoint):
        lied_to(rehearsal, log__checkpoint=replace(checkpoint, signatures=()).encode()).ledger()


# --- and in general ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"{" * 5000, b'{"error":{}}', b'"x"', b"1e999"])
@pytest.mark.parametrize("path", ["proposals", "manifests", "receipts", "log"])
def test_nonsense_is_one_of_our_errors_whatever_was_asked(rehearsal, done, path, answer):
    room = lied_to(rehearsal, **{path: answer})
    asked = [
        lambda: room.view(done),
        room.views,
        room.manifests,
        room.ledger,
        lambda: room.receipts(done),
        lambda: room.outputs(done),
        lambda: room.run(done),
        lambda: room.approve(done),
        lambda: room.find("sha256:0"),
    ]
    refused = 0
    for ask in asked:
        try:
            ask()
        except StrongroomError:
            refused += 1
    assert refused >= 1
