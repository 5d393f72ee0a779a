"""Receipts as they are kept: for whom, for how long, unreadable on the disk; and their digests on their way to a log."""

from __future__ import annotations

import base64
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from inference_case import APPRAISED, M
from stage import in_process
from strongroom import usage, wire
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.inference import receipts
from strongroom.app.inference.credentials import Credential, Limits
from strongroom.app.inference.receipts import HELD_S, Authority, Logger, ReceiptStore
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.batch import AFTER_LEASE_S, Batch, Submission, admissible
from strongroom.contract import Contract
from strongroom.enclave.room import Room
from strongroom.errors import BadBatch, BadField, Conflict, NoSpace, NotFound, RoomClosed, StrongroomError, Unreachable
from strongroom.inference.events import ModelWeights, Usage, UsageMetered
from strongroom.inference.expected import Expected
from strongroom.inference.receipt import InferenceReceipt
from strongroom.inference.verification import Reader, examine
from strongroom.ledger import Entry, LoggedProof, MemoryNodes, Tree
from strongroom.policy import Policy
from strongroom.serving import MAX_LEASE_S, Serving
from world import LOG, NOW, OWNERS, PROGRAM, World, keys_of

KEY = bytes(range(32))
AT = M.AT + 60
ADA, BOB, BARE = (Credential(h, n, Limits()) for h, n in (("aa" * 32, "ada"), ("bb" * 32, None), (None, None)))


class Clock:
    now = float(AT)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[ReceiptStore]:
    found = ReceiptStore(tmp_path / "serve" / "receipts.db", KEY, now=clock)
    yield found
    found.close()


def receipt(n: int = 0, **changes) -> InferenceReceipt:
    return M.sign(**{"receipt_id": f"rcpt-{n:032x}", "chat_id": f"chatcmpl-{n}", **changes})


def refused(n: int = 0) -> InferenceReceipt:
    return receipt(n, log=M.REFUSED, chat_id=None)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# --- for whom, and for how long ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [False, True])
def test_a_receipt_is_handed_to_the_credential_of_its_request_alone(store, written):
    kept = store.put(receipt(), ADA, AT + 60)
    if written:
        store.flush()
    assert store.get(kept.receipt_id, ADA) == kept
    assert store.by_chat("chatcmpl-0", ADA) == kept
    for other in (BOB, BARE):
        with pytest.raises(NotFound) as hers:
            store.get(kept.receipt_id, other)
        with pytest.raises(NotFound) as nobodys:
            store.get("rcpt-" + "ff" * 16, other)
        assert hers.value.to_json() == nobodys.value.to_json()  # as if there were none
        with pytest.raises(NotFound):
            store.by_chat("chatcmpl-0", other)


@pytest.mark.parametrize("written", [False, True])
def test_without_a_credential_a_receipt_is_for_who_knows_its_id(store, written):
    kept = store.put(receipt(), BARE, AT + 60)
    if written:
        store.flush()
    for anybody in (ADA, BOB, BARE):
        assert store.get(kept.receipt_id, anybody) == kept


def test_of_two_answers_with_one_id_the_newest_of_ones_own_is_found(store):
    first = store.put(receipt(1, chat_id="c"), ADA, AT + 60)
    store.put(receipt(2, chat_id="c"), BOB, AT + 60)
    assert store.by_chat("c", ADA) == first
    store.flush()
    assert store.by_chat("c", ADA) == first
    second = store.put(receipt(3, chat_id="c"), ADA, AT + 60)
    assert store.by_chat("c", ADA) == second


@pytest.mark.parametrize("written", [False, True])
def test_a_receipt_is_gone_when_its_time_is_over(store, clock, tmp_path, written):
    kept = store.put(receipt(), ADA, AT + 600)
    if written:
        store.flush()
    clock.now = AT + 600
    assert store.get(kept.receipt_id, ADA) == kept
    clock.now = AT + 601
    for find, name in ((store.get, kept.receipt_id), (store.by_chat, "chatcmpl-0")):
        with pytest.raises(NotFound):
            find(name, ADA)
    assert list(store.each(M.CONTRACT)) == []
    assert store.totals() == usage.Totals(())


def test_what_is_past_its_time_is_erased_from_the_file(store, clock):
    store.put(receipt(), ADA, AT + 60)
    store.flush()
    assert store._db.rows("SELECT count(*) FROM receipts") == [(1,)]
    clock.now = AT + 61
    store.sweep()
    assert store._db.rows("SELECT count(*) FROM receipts") == [(0,)]
    assert store.waiting == 1  # that it is to be logged is not forgotten


@pytest.mark.parametrize("until", [AT, AT - 1])
def test_where_the_policy_keeps_nothing_an_answer_can_be_verified_all_the_same(store, clock, until):
    kept = store.put(receipt(), ADA, until)
    for written in (False, True):
        if written:
            store.flush()
        assert store.get(kept.receipt_id, ADA) == kept
        assert store.by_chat("chatcmpl-0", ADA) == kept
        for find, name in ((store.get, kept.receipt_id), (store.by_chat, "chatcmpl-0")):
            with pytest.raises(NotFound):
                find(name, BOB)
    assert store._db.rows("SELECT count(*) FROM receipts") == [(0,)]  # nothing but the digest is on the disk
    assert list(store.each(M.CONTRACT)) == []
    assert store.unlogged(M.CONTRACT) == (kept.digest,)
    clock.now = AT + HELD_S
    assert store.get(kept.receipt_id, ADA) == kept
    clock.now = AT + HELD_S + 1
    with pytest.raises(NotFound):
        store.get(kept.receipt_id, ADA)
    store.sweep()
    assert not store._held._by


def test_what_is_kept_for_a_moment_can_be_fetched_for_minutes_by_who_asked(store, clock):
    kept = store.put(receipt(), ADA, AT + 1)
    store.flush()
    clock.now = AT + 2
    store.sweep()
    assert store._db.rows("SELECT count(*) FROM receipts") == [(0,)]
    assert list(store.each(M.CONTRACT)) == []
    assert store.get(kept.receipt_id, ADA) == kept


def test_memory_does_not_grow_with_what_is_kept_on_no_disk(tmp_path, clock, monkeypatch):
    for name in ("MOST_HELD", "MOST_REFUSED"):
        monkeypatch.setattr(receipts, name, 3)
    store = ReceiptStore(tmp_path / "r.db", KEY, now=clock)
    for n in range(9):
        store.put(receipt(n), ADA, AT)
        store.hold(refused(100 + n), ADA)
    assert (len(store._held._by), len(store._refused._by)) == (3, 3)
    store.close()


def test_a_flood_of_refusals_fills_neither_disk_nor_log_and_pushes_out_no_answers_receipt(store, clock, monkeypatch):
    answered = store.put(receipt(), ADA, AT)
    for n in range(1, receipts.MOST_REFUSED + 2):
        store.hold(refused(n), BOB)
    store.flush()
    assert store.waiting == 1
    assert store._db.rows("SELECT count(*) FROM receipts") == [(0,)]
    last = refused(receipts.MOST_REFUSED + 1)
    assert store.get(last.receipt_id, BOB) == last
    assert store.get(answered.receipt_id, ADA) == answered
    for who, one in ((ADA, last), (BOB, refused(1))):
        with pytest.raises(NotFound):
            store.get(one.receipt_id, who)
    clock.now = AT + HELD_S + 1
    with pytest.raises(NotFound):
        store.get(last.receipt_id, BOB)


def test_their_number_is_bounded_and_the_oldest_go_first(tmp_path, clock):
    store = ReceiptStore(tmp_path / "r.db", KEY, most=10, now=clock)
    for n in range(25):
        store.put(receipt(n), ADA, AT + 60)
    store.flush()
    assert [InferenceReceipt.parse(r).chat_id for r in store.each(M.CONTRACT)] == [f"chatcmpl-{n}" for n in range(15, 25)]
    store.close()


def test_the_same_id_twice_is_refused_or_changes_nothing(store):
    kept = store.put(receipt(), ADA, AT + 60)
    with pytest.raises(Conflict):
        store.put(receipt(served_at=AT), BOB, AT + 60)
    store.flush()
    store.put(receipt(served_at=AT), BOB, AT + 60)
    store.flush()
    assert store.get(kept.receipt_id, ADA) == kept
    with pytest.raises(NotFound):
        store.get(kept.receipt_id, BOB)


# --- on the disk ------------------------------------------------------------------------------------------------------


def test_the_disk_shows_nothing_of_a_receipt(store, tmp_path):
    for credential in (ADA, BOB, BARE):
        n = "ab".index(credential.hash[0]) if credential.hash else 2
        store.put(receipt(n), credential, AT + 60)
    store.flush()
    lies_there = everything(tmp_path)
    kept = receipt(0)
    shown = [kept.receipt_id, "chatcmpl-0", ADA.hash, kept.signature.hex(), kept.model, '"event_log"']
    shown += [event.body_hash for event in kept.event_log if hasattr(event, "body_hash")]
    for value in shown:
        for form in (value.encode(), base64.b64encode(value.encode()), value.removeprefix("sha256:").encode()):
            assert form not in lies_there


def test_the_store_can_be_opened_again_with_its_key(tmp_path, clock):
    first = ReceiptStore(tmp_path / "r.db", KEY, now=clock)
    kept = first.put(receipt(), ADA, AT + 60)
    first.close()
    again = ReceiptStore(tmp_path / "r.db", KEY, now=clock)
    assert again.get(kept.receipt_id, ADA) == kept
    assert again.waiting == 1
    again.close()


def test_what_was_sealed_by_another_key_is_erased(tmp_path, clock):
    first = ReceiptStore(tmp_path / "r.db", KEY, now=clock)
    kept = first.put(receipt(), ADA, AT + 60)
    first.close()
    other = ReceiptStore(tmp_path / "r.db", bytes(32), now=clock)
    with pytest.raises(NotFound):
        other.get(kept.receipt_id, ADA)
    assert other._db.rows("SELECT count(*) FROM receipts") == [(0,)]
    assert other.unlogged(M.CONTRACT) == (kept.digest,)
    other.close()


def test_a_receipt_in_anothers_place_on_the_disk_is_noticed(store):
    store.put(receipt(0), ADA, AT + 600)
    store.put(receipt(1), BOB, AT + 600)
    store.flush()
    with store._db.write() as c:
        rows = c.execute("SELECT seq, sealed FROM receipts ORDER BY seq").fetchall()
        c.execute("UPDATE receipts SET sealed = ? WHERE seq = ?", (rows[1][1], rows[0][0]))
    with pytest.raises(StrongroomError, match="changed"):
        store.get(receipt(0).receipt_id, ADA)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_store_has_a_whole_key(tmp_path, size):
    with pytest.raises(BadField):
        ReceiptStore(tmp_path / "r.db", bytes(size))


# --- counting ---------------------------------------------------------------------------------------------------------


def logged(receipts: list[InferenceReceipt]) -> list[LoggedProof]:
    tree = Tree(MemoryNodes())
    for one in receipts:
        tree.append(Entry("receipt", M.CONTRACT, one.digest))
    return [LoggedProof(tree.checkpoint(M.LOG), tree.prove_inclusion(n, tree.size)) for n in range(len(receipts))]


def test_the_totals_are_those_that_an_owner_counts_of_the_receipts(store):
    kept = [receipt(n, log=M.swap(M.SERVED, UsageMetered=UsageMetered(Usage(prompt=n, completion=2 * n)))) for n in range(5)]
    kept.append(refused(5))
    for one in kept:
        store.put(one, ADA, AT + 60, contract=M.CONTRACT)
    handed = [InferenceReceipt.parse(data) for data in store.each(M.CONTRACT)]
    assert handed == kept
    verified = [
        examine(
            one.encode(),
            appraisal=APPRAISED,
            expected=Expected(agreed=M.AGREED),
            at=AT,
            proof=proof,
            logs=(M.LOG.verifier,),
        ).require(Reader.OWNER)
        for one, proof in zip(handed, logged(handed), strict=True)
    ]
    assert store.totals() == usage.total(verified)
    assert store.totals().lines[0].usage == Usage(prompt=10, completion=20)
    assert store.totals().lines[0].requests == 5


def test_lines_are_by_contract_and_model(store):
    other = replace(M.WEIGHTS, contract=M.of("another contract"))
    large = replace(M.WEIGHTS, name="example/large")
    for n, weights in enumerate((M.WEIGHTS, other, large)):
        store.put(receipt(n, log=M.swap(M.SERVED, ModelWeights=weights), model=weights.name), ADA, AT + 60)
    assert {(line.contract, line.model) for line in store.totals().lines} == {
        (weights.contract, weights.name) for weights in (M.WEIGHTS, other, large)
    }
    assert len(list(store.each(other.contract))) == 1
    assert isinstance(M.WEIGHTS, ModelWeights)


def test_a_refusal_before_a_model_was_chosen_needs_a_contract(store):
    with pytest.raises(BadField):
        store.put(refused(), ADA, AT + 60)
    store.put(refused(), ADA, AT + 60, contract=M.CONTRACT)
    store.flush()
    assert store.unlogged(M.CONTRACT) == (refused().digest,)


# --- the log ----------------------------------------------------------------------------------------------------------

POLICY = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), 600))


@pytest.fixture
def world() -> World:
    return World(terms=dict.fromkeys(OWNERS, POLICY))


@pytest.fixture
def room(world: World) -> Room:
    from strongroom.contract import Limits as RunLimits

    contract = world.agree(policy=POLICY, outputs=(), limits=RunLimits(2, 21_600, 1 << 30), payments=())
    found = Room(contract, world.asked(contract), PROGRAM, world.surroundings())
    found.open()
    return found


class FakeLog:
    """A log that takes what may be logged, or fails."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.taken, self.fails = contract, list[str](), list[Exception]()
        self.batches: list[Batch] = []

    def log_receipts(self, submission: Submission) -> int:
        if self.fails:
            raise self.fails.pop()
        batch = admissible(submission, self.contract, NOW)
        self.batches.append(batch)
        self.taken += batch.receipts
        return len(batch.receipts)


def under(room: Room, n: int) -> InferenceReceipt:
    weights = replace(M.WEIGHTS, contract=room.contract.digest)
    return receipt(n, log=M.swap(M.SERVED, ModelWeights=weights))


def test_what_is_kept_is_logged_in_batches(store, room):
    log = FakeLog(room.contract)
    logger = Logger(store, log)
    logger.authorise(Authority.of(room))
    kept = [store.put(under(room, n), ADA, AT + 60).digest for n in range(3)]
    store.put(receipt(9), ADA, AT + 60)  # of a contract for which there is no authority here
    store.flush()
    assert logger.step() == 3
    assert sorted(log.taken) == sorted(kept)
    assert len(log.batches) == 1
    assert logger.step() == 0
    assert store.waiting == 1


def test_what_a_log_does_not_take_waits(store, room):
    log = FakeLog(room.contract)
    logger = Logger(store, log)
    logger.authorise(Authority.of(room))
    store.put(under(room, 0), ADA, AT + 60)
    store.flush()
    log.fails = [Unreachable("nobody is there")]
    with pytest.raises(Unreachable):
        logger.step()
    assert store.waiting == 1
    assert logger.step() == 1


def test_the_end_brings_what_waits(store, room):
    log = FakeLog(room.contract)
    logger = Logger(store, log, every=3600)
    logger.authorise(Authority.of(room))
    logger.start()
    store.put(under(room, 0), ADA, AT + 60)
    logger.close()
    assert len(log.taken) == 1


def test_a_log_that_is_gone_at_the_end_loses_nothing(store, room, caplog):
    log = FakeLog(room.contract)
    logger = Logger(store, log, every=0.001)
    log.fails = [Unreachable("nobody is there") for _ in range(100_000)]
    logger.authorise(Authority.of(room))
    kept = store.put(under(room, 0), ADA, AT + 60)
    logger.start()
    logger.close()
    assert store.unlogged(room.contract.digest) == (kept.digest,)
    assert "app.unreachable" in caplog.text


class Refusing(FakeLog):
    """A log that refuses one contract's batches, or breaks over them."""

    def __init__(self, contract: Contract, error: Exception) -> None:
        super().__init__(contract)
        self.error, self.came = error, threading.Event()

    def log_receipts(self, submission: Submission) -> int:
        if submission.contract == M.CONTRACT:
            raise self.error
        taken = super().log_receipts(submission)
        self.came.set()
        return taken


@pytest.mark.parametrize("error", [BadBatch("no"), RuntimeError("kumquat")])
def test_one_contracts_refused_batch_keeps_no_other_from_its_log(store, room, error):
    log = Refusing(room.contract, error)
    logger = Logger(store, log)
    logger.authorise(replace(Authority.of(room), contract=M.CONTRACT))
    logger.authorise(Authority.of(room))
    store.put(receipt(9), ADA, AT + 60)
    kept = store.put(under(room, 0), ADA, AT + 60)
    store.flush()
    with pytest.raises(type(error)):
        logger.step()
    assert log.taken == [kept.digest]
    assert store.waiting == 1


def test_the_thread_that_logs_lives_whatever_a_log_does(store, room, caplog):
    log = Refusing(room.contract, RuntimeError("kumquat"))
    logger = Logger(store, log, every=0.001)
    logger.authorise(replace(Authority.of(room), contract=M.CONTRACT))
    logger.authorise(Authority.of(room))
    store.put(receipt(9), ADA, AT + 60)
    store.flush()
    logger.start()
    store.put(under(room, 0), ADA, AT + 60)
    assert log.came.wait(60)
    logger.close()
    assert "RuntimeError" in caplog.text
    assert "kumquat" not in caplog.text


def test_what_no_log_will_take_any_more_does_not_wait_for_ever(store, room, clock):
    log = FakeLog(room.contract)
    logger = Logger(store, log)
    authority = Authority.of(room)
    logger.authorise(authority)
    store.put(under(room, 0), ADA, AT + 60)
    store.flush()
    for now, left in ((authority.until + AFTER_LEASE_S, 1), (authority.until + AFTER_LEASE_S + 1, 0)):
        clock.now = now
        log.fails = [BadBatch("the lease ended too long ago")]
        with pytest.raises(BadBatch):
            logger.step()
        assert store.waiting == left
    assert logger.step() == 0


def test_what_another_process_left_waits_for_as_long_as_a_lease_can_be(store, room, clock):
    logger = Logger(store, FakeLog(room.contract))
    store.put(receipt(9), ADA, AT + 60)
    store.flush()
    clock.now = AT + MAX_LEASE_S + AFTER_LEASE_S
    assert logger.step() == 0
    assert store.waiting == 1
    clock.now += 1
    logger.authorise(replace(Authority.of(room), until=int(clock.now)))
    store.put(under(room, 0), ADA, int(clock.now) + 60)
    store.flush()
    assert logger.step() == 1
    assert store.waiting == 0


def test_a_file_of_before_digests_had_a_time_is_taken_over(tmp_path, clock):
    place = tmp_path / "r.db"
    with closing(sqlite3.connect(place)) as old, old:
        old.execute("CREATE TABLE unlogged (seq INTEGER PRIMARY KEY AUTOINCREMENT, contract TEXT NOT NULL,"
                    " digest TEXT NOT NULL, UNIQUE (contract, digest)) STRICT")  # fmt: skip
        old.execute("INSERT INTO unlogged (contract, digest) VALUES (?, ?)", (M.CONTRACT, wire.digest(b"x")))
    store = ReceiptStore(place, KEY, now=clock)
    store.forget(AT)
    assert store.unlogged(M.CONTRACT) == (wire.digest(b"x"),)
    store.close()


def test_how_many_wait_is_told_of_some_contracts_alone_and_never_to_who_asks(tmp_path, clock):
    store = ReceiptStore(tmp_path / "r.db", KEY, most_unlogged=3, now=clock)
    other = replace(M.WEIGHTS, contract=M.of("another contract"))
    for n, weights in enumerate((M.WEIGHTS, other, other)):
        store.put(receipt(n, log=M.swap(M.SERVED, ModelWeights=weights)), ADA, AT + 60)
    for _ in range(2):
        assert store.waiting_under([M.CONTRACT]) == 1
        assert store.waiting_under([other.contract]) == 2
        assert store.waiting_under([]) == 0
        store.flush()
    with pytest.raises(NoSpace) as told:
        store.put(receipt(9), ADA, AT + 60)
    assert "3" not in told.value.message
    store.close()


def test_authority_is_what_the_owners_gave_and_no_more(room, world):
    authority = Authority.of(room)
    assert authority.run_id not in repr(authority)
    sent = next(iter(_submissions(authority, [wire.digest(b"x")])))
    assert admissible(sent, room.contract, NOW).receipts == (wire.digest(b"x"),)
    with pytest.raises(BadBatch):
        admissible(replace(sent, leases=sent.leases[:1]), room.contract, NOW)
    room.close()
    with pytest.raises(RoomClosed):
        Authority.of(room)


def _submissions(by: Authority, digests: list[str]) -> Iterator[Submission]:
    from strongroom.batch import batches

    for batch in batches(by.contract, by.keyset, by.run_id, digests, by.key):
        yield Submission(batch, by.keyset, by.leases)


def test_where_the_log_takes_nothing_for_too_long_nothing_more_is_answered(tmp_path, clock):
    store = ReceiptStore(tmp_path / "r.db", KEY, most_unlogged=2, now=clock)
    for n in range(2):
        store.put(receipt(n), ADA, AT + 60)
    with pytest.raises(NoSpace):
        store.put(receipt(3), ADA, AT + 60)
    store.flush()
    store.mark_logged(M.CONTRACT, store.unlogged(M.CONTRACT))
    store.put(receipt(3), ADA, AT + 60)
    store.close()


def test_an_owner_establishes_that_a_receipt_is_logged(store, room, tmp_path, monkeypatch):
    """I20, over a real exchange: the enclave brings digests, the owner asks for the proof of a receipt that it has."""
    monkeypatch.setattr("strongroom.app.exchange.server.time.time", lambda: NOW)
    there = ExchangeStore(tmp_path / "exchange", LOG)
    with in_process(exchange(there)) as web:
        client = ExchangeClient(Client("http://role", transport=web._transport))
        proposal = room.contract.proposal
        lab, hospital = (proposal.sign(keys_of(n)) for n in ("lab", "hospital"))
        client.propose(proposal.envelope([lab]))
        client.approve(proposal, (hospital,))
        logger = Logger(store, client)
        logger.authorise(Authority.of(room))
        kept = store.put(under(room, 0), ADA, AT + 60)
        expected = Expected(agreed=replace(M.AGREED, contract=room.contract.digest))

        def look(proof: LoggedProof | None):
            found = examine(kept.encode(), appraisal=APPRAISED, expected=expected, at=AT, proof=proof, logs=(LOG.verifier,))
            return found.problem(Reader.OWNER)

        assert look(None).number == "I20"
        store.flush()
        logger.step()
        assert look(client.proof(Entry("receipt", room.contract.digest, kept.digest))) is None
        other = client.proof(Entry("proposal", room.contract.digest, room.contract.digest))
        assert look(other).number == "I20"  # the proof of something else
    there.close()
