"""What an exchange keeps: documents once, a log that proves itself, and all of it through a restart."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from strongroom import wire
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.app.stores.sqlite import IDLE, Database
from strongroom.asset import sign_manifest
from strongroom.contract import Contract, Withdrawal
from strongroom.errors import BadField, BadProof, Conflict, NoSpace, NotFound, NotLogged
from strongroom.ledger import Entry, MemoryNodes, Tree, follow
from strongroom.receipt import Bundle, admissible, verify
from strongroom.wire import Signature
from world import LOG, NOW, RUN, World, card, keys_of, seed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExchangeStore]:
    found = ExchangeStore(tmp_path / "exchange", LOG)
    yield found
    found.close()


def again(store: ExchangeStore) -> ExchangeStore:
    """The exchange after a restart."""
    store.close()
    return ExchangeStore(store.folder, store.key)


WORLD = World()
CONTRACT = WORLD.agree()
BUNDLE = replace(WORLD.run(CONTRACT), proof=None)
STATEMENT = admissible(BUNDLE)
LAB, HOSPITAL, MALLORY = (keys_of(n).signing.public.keyid for n in ("lab", "hospital", "mallory"))
NOTHING = wire.digest(b"nothing")


def propose(store: ExchangeStore, contract: Contract = CONTRACT) -> None:
    proposal = contract.proposal
    store.put_proposal(proposal, proposal.sign(keys_of(proposal.proposer)), NOW)


# --- the log ----------------------------------------------------------------------------------------------------------


class Log(RuleBasedStateMachine):
    """The log on disk answers as a tree in memory does, whatever is logged, twice or once, before a restart or after."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store, self.tree = ExchangeStore(Path(self.folder.name), LOG), Tree(MemoryNodes())
        self.entries: list[Entry] = []
        self.seen = LOG.verifier.verify(self.store.checkpoint())

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(name=st.integers(0, 12), kind=st.sampled_from(["release", "refusal"]))
    def log(self, name: int, kind: str) -> None:
        entry = Entry(kind, wire.digest(b"contract"), wire.digest(bytes([name])))
        index = self.store.log(entry)
        if entry in self.entries:
            assert index == self.entries.index(entry)
            return
        self.entries.append(entry)
        assert index == self.tree.append(entry)

    @rule()
    def restart(self) -> None:
        self.store = again(self.store)

    @rule(data=st.data())
    def prove_consistency(self, data: st.DataObject) -> None:
        old = data.draw(st.integers(0, len(self.entries)))
        new = data.draw(st.integers(old, len(self.entries)))
        assert self.store.consistency(old, new) == self.tree.prove_consistency(old, new)

    @rule()
    def a_client_comes_by(self) -> None:
        new = LOG.verifier.verify(self.store.checkpoint())
        self.seen = follow(self.seen, new, self.store.consistency(self.seen.size, new.size))

    @invariant()
    def they_have_one_head(self) -> None:
        if hasattr(self, "store"):
            assert self.store.checkpoint().encode() == self.tree.checkpoint(LOG).encode()
            assert self.store.entries(0, 100) == [e.encode() for e in self.entries]


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


def test_a_log_cannot_prove_what_is_not_there(store: ExchangeStore) -> None:
    with pytest.raises(NotLogged):
        store.consistency(0, 1)


def test_a_node_that_was_lost_is_noticed(store: ExchangeStore) -> None:
    for n in range(4):
        store.log(Entry("release", wire.digest(b"contract"), wire.digest(bytes([n]))))
    with store._db.write() as c:
        c.execute("DELETE FROM nodes")
    with pytest.raises(NotFound, match="lost node"):
        store.checkpoint()


def test_an_entry_that_was_altered_on_disk_no_longer_fits_its_proof(store: ExchangeStore) -> None:
    logged = store.put_receipt(BUNDLE, STATEMENT)
    assert logged.proof is not None
    other = Entry("receipt", CONTRACT.digest, wire.digest(b"another receipt"))
    with pytest.raises(BadProof):
        logged.proof.verify(other, [LOG.verifier])


def test_entries_logged_by_many_at_once_have_each_their_place(store: ExchangeStore) -> None:
    found: list[int] = []

    def log(worker: int) -> None:
        found.extend(
            store.log(Entry("release", wire.digest(b"contract"), wire.digest(bytes([worker, n])))) for n in range(5)
        )

    threads = [threading.Thread(target=log, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(20))
    tree = Tree(MemoryNodes())
    for data in store.entries(0, 100):
        tree.append(Entry.parse(data))
    assert store.checkpoint().encode() == tree.checkpoint(LOG).encode()


# --- receipts ---------------------------------------------------------------------------------------------------------


def test_a_receipt_is_logged_and_proves_it(store: ExchangeStore) -> None:
    for n in range(3):
        store.log(Entry("release", CONTRACT.digest, wire.digest(bytes([n]))))
    logged = store.put_receipt(BUNDLE, STATEMENT)
    assert verify(logged, trust=WORLD.trust()).statement.contract == CONTRACT.digest
    assert verify(Bundle.parse(store.receipt(BUNDLE.receipt.digest)), trust=WORLD.trust())
    assert store.receipts(CONTRACT.digest) == [(BUNDLE.receipt.digest, RUN)]


def test_the_same_receipt_twice_is_logged_once(store: ExchangeStore) -> None:
    first = store.put_receipt(BUNDLE, STATEMENT)
    store.log(Entry("release", CONTRACT.digest, wire.digest(b"something between")))
    second = store.put_receipt(BUNDLE, STATEMENT)
    assert len(store.entries(0, 100)) == 2
    assert store.receipts(CONTRACT.digest) == [(BUNDLE.receipt.digest, RUN)]
    for bundle in (first, second, Bundle.parse(store.receipt(BUNDLE.receipt.digest))):
        assert verify(bundle, trust=WORLD.trust())


def test_a_restart_keeps_everything(store: ExchangeStore) -> None:
    propose(store)
    for _, envelope, _, _ in WORLD.assets.values():
        store.put_manifest(envelope, envelope.signatures[0].keyid)
    delivery, sealed = WORLD.exchange.delivered[0]
    with store.incoming("output", delivery.sealed) as (sink, _):
        sink.write(sealed)
    store.put_receipt(BUNDLE, STATEMENT)
    store.put_delivery(delivery)
    withdrawal = Withdrawal(CONTRACT.digest, "lab", NOW, "").sign(keys_of("lab").signing)
    store.put_withdrawal(CONTRACT.digest, "lab", withdrawal)

    def seen(store: ExchangeStore) -> list[Any]:
        return [
            store.proposals(),
            store.proposal(CONTRACT.digest),
            store.withdrawals(CONTRACT.digest),
            store.manifests(),
            store.manifests_by([LAB, HOSPITAL], 0, 100),
            store.proposals_among([LAB, HOSPITAL], 0, 100),
            store.deliveries(CONTRACT.digest),
            store.receipts(CONTRACT.digest),
            store.receipt(BUNDLE.receipt.digest),
            store.entries(0, 100),
            store.checkpoint().encode(),
            store.file("output", delivery.sealed).read_bytes(),
        ]

    before = seen(store)
    store = again(store)
    assert seen(store) == before
    store.close()


@pytest.mark.parametrize(
    "changes", [{"contract": NOTHING}, {"run_id": "00" * 16}, {"output": "another"}, {"sealed": NOTHING}]
)
def test_a_delivery_that_no_logged_receipt_names_is_not_kept(store: ExchangeStore, changes: dict[str, Any]) -> None:
    delivery = WORLD.exchange.delivered[0][0]
    with pytest.raises(BadField, match="no output that a logged receipt names"):
        store.put_delivery(delivery)
    store.put_receipt(BUNDLE, STATEMENT)
    with pytest.raises(BadField, match="no output that a logged receipt names"):
        store.put_delivery(replace(delivery, **changes))
    with pytest.raises(BadField, match="no output that a logged receipt names"):
        store.put_delivery(replace(delivery, manifest=replace(delivery.manifest, name="another")))
    assert store.deliveries(CONTRACT.digest) == []


def test_a_second_delivery_of_an_output_does_not_take_the_place_of_the_first(store: ExchangeStore) -> None:
    delivery = WORLD.exchange.delivered[0][0]
    store.put_receipt(BUNDLE, STATEMENT)
    for _ in range(2):
        store.put_delivery(delivery)
    with pytest.raises(Conflict):
        store.put_delivery(replace(delivery, keys={"lab": b"x", "hospital": b"y"}))
    assert store.deliveries(CONTRACT.digest) == [delivery]


def test_of_very_many_receipts_the_newest_are_shown(store: ExchangeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.app.stores.exchange.MAX_RECEIPTS", 2)
    rows = [(wire.digest(bytes([n])), CONTRACT.digest, bytes([n]).hex() * 16, b"") for n in range(4)]
    with store._db.write() as c:
        c.executemany("INSERT INTO receipts VALUES (?, ?, ?, ?)", rows)
    assert store.receipts(CONTRACT.digest) == [(row[0], row[2]) for row in rows[2:]]


# --- documents --------------------------------------------------------------------------------------------------------


def test_signatures_come_together_into_a_contract(store: ExchangeStore) -> None:
    propose(store)
    assert store.proposal(CONTRACT.digest).signatures == (CONTRACT.proposal.sign(keys_of("lab")),)
    for _ in range(2):
        store.put_approval(CONTRACT.digest, CONTRACT.proposal.sign(keys_of("hospital")))
    assert Contract.verify(store.proposal(CONTRACT.digest)) == CONTRACT
    kinds = [Entry.parse(e).kind for e in store.entries(0, 100)]
    assert kinds == ["proposal", "approval", "approval"]


def test_a_proposal_put_again_changes_nothing(store: ExchangeStore) -> None:
    propose(store)
    before = store.checkpoint().encode()
    propose(store)
    assert store.proposals() == [CONTRACT.digest]
    assert store.checkpoint().encode() == before


def test_counters_are_found_by_what_they_supersede(store: ExchangeStore) -> None:
    propose(store)
    counter = WORLD.proposal(nonce=seed("counter", 16).hex(), supersedes=CONTRACT.digest)
    store.put_proposal(counter, counter.sign(keys_of("lab")), NOW)
    assert store.counters(CONTRACT.digest) == [counter.digest]
    assert store.counters(counter.digest) == []


def test_a_party_cannot_heap_counters_without_end(store: ExchangeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.app.stores.exchange.MAX_COUNTERS", 2)
    propose(store)
    new = [WORLD.proposal(nonce=seed(f"counter {n}", 16).hex(), supersedes=CONTRACT.digest) for n in range(3)]
    for counter in new[:2]:
        store.put_proposal(counter, counter.sign(keys_of("lab")), NOW)
    with pytest.raises(Conflict, match="2 proposals counter"):
        store.put_proposal(new[2], new[2].sign(keys_of("lab")), NOW)
    store.put_proposal(new[1], new[1].sign(keys_of("lab")), NOW)  # as the answer may have been lost
    assert store.counters(CONTRACT.digest) == [c.digest for c in new[:2]]


def test_what_strangers_propose_is_on_no_list_of_ours(store: ExchangeStore) -> None:
    propose(store)
    parties = tuple(card(n) for n in ("hospital", "lab", "mallory"))
    three = WORLD.proposal(parties=parties, proposer="mallory")  # names both of ours
    store.put_proposal(three, three.sign(keys_of("mallory")), NOW)
    ours = WORLD.proposal(parties=parties)  # one of ours proposed it, with a stranger
    store.put_proposal(ours, ours.sign(keys_of("lab")), NOW)
    assert store.proposals_among([LAB, HOSPITAL], 0, 100) == [(1, CONTRACT.digest)]
    assert store.proposals_among([LAB], 0, 100) == store.proposals_among([MALLORY], 0, 100) == []
    everybody = store.proposals_among([LAB, HOSPITAL, MALLORY], 0, 100)
    assert [d for _, d in everybody] == [CONTRACT.digest, three.digest, ours.digest]
    assert store.proposals_among([LAB, HOSPITAL, MALLORY], 1, 1) == everybody[1:2]


def test_a_party_cannot_swell_the_log_with_signatures(store: ExchangeStore) -> None:
    propose(store)
    for n in range(3):
        store.put_approval(CONTRACT.digest, Signature(LAB, bytes([n]) * 64))
        envelope = Withdrawal(CONTRACT.digest, "lab", NOW + n, "").sign(keys_of("lab").signing)
        store.put_withdrawal(CONTRACT.digest, "lab", envelope)
    assert [Entry.parse(e).kind for e in store.entries(0, 100)] == ["proposal", "approval", "withdrawal"]


def test_withdrawals_are_kept_one_a_party(store: ExchangeStore) -> None:
    for name in ("lab", "hospital", "lab"):
        envelope = Withdrawal(CONTRACT.digest, name, NOW, "").sign(keys_of(name).signing)
        store.put_withdrawal(CONTRACT.digest, name, envelope)
    assert [Withdrawal.verify(e, CONTRACT.proposal).party for e in store.withdrawals(CONTRACT.digest)] == ["hospital", "lab"]


@pytest.mark.parametrize("what", ["manifest", "proposal", "receipt"])
def test_what_is_not_there_is_not_found(store: ExchangeStore, what: str) -> None:
    with pytest.raises(NotFound):
        getattr(store, what)(wire.digest(b"nothing"))


def test_a_manifest_is_served_as_it_came(store: ExchangeStore) -> None:
    _, envelope, _, _ = WORLD.assets["data"]
    store.put_manifest(envelope, HOSPITAL)
    store.put_manifest(replace(envelope, signatures=()), HOSPITAL)  # the first stays
    assert store.manifest(envelope.digest) == store.manifest(envelope.digest, HOSPITAL) == envelope
    with pytest.raises(NotFound, match="signed"):
        store.manifest(envelope.digest, LAB)


def test_a_manifest_under_another_key_takes_nobodys_place(store: ExchangeStore) -> None:
    manifest, envelope, _, _ = WORLD.assets["data"]
    copied = sign_manifest(manifest, keys_of("mallory").signing)
    store.put_manifest(copied, MALLORY)
    store.put_manifest(envelope, HOSPITAL)
    assert store.manifest(envelope.digest, HOSPITAL) == envelope
    assert store.manifests_by([HOSPITAL, LAB], 0, 100) == [(2, (envelope.digest, HOSPITAL))]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_takes_its_name_when_it_is_whole(store: ExchangeStore) -> None:
    digest = wire.digest(b"whole")
    with pytest.raises(NotFound):
        store.file("sealed", digest)
    with store.incoming("sealed", digest) as (sink, partial):
        sink.write(b"whole")
        assert partial.exists()
        with pytest.raises(NotFound):
            store.file("sealed", digest)
    assert store.file("sealed", digest).read_bytes() == b"whole"
    assert [p.name for p in (store.folder / "sealed").iterdir()] == [digest.removeprefix("sha256:")]


def test_a_file_that_broke_off_leaves_nothing(store: ExchangeStore) -> None:
    digest = wire.digest(b"whole")

    def break_off() -> None:
        with store.incoming("sealed", digest) as (sink, _):
            sink.write(b"wh")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        break_off()
    assert list((store.folder / "sealed").iterdir()) == []


def test_a_file_is_never_replaced(store: ExchangeStore) -> None:
    digest = wire.digest(b"first")
    with store.incoming("output", digest) as (sink, _):
        sink.write(b"first")
    with pytest.raises(Conflict), store.incoming("output", digest):
        pass  # pragma: no cover - never entered
    assert store.file("output", digest).read_bytes() == b"first"


def test_an_upload_that_would_fill_the_disk_is_refused(store: ExchangeStore) -> None:
    store.require_space(0)
    with pytest.raises(NoSpace):
        store.require_space(1 << 60)


def test_who_only_looks_into_the_folder_removes_no_upload(store: ExchangeStore) -> None:
    with store.incoming("sealed", wire.digest(b"whole")) as (sink, partial):
        sink.write(b"whole")
        ExchangeStore(store.folder, LOG).close()
        assert partial.exists()


def test_what_a_killed_exchange_left_is_swept_away(store: ExchangeStore) -> None:
    left = store.folder / "sealed" / "00.1234.partial"
    left.write_bytes(b"half")
    store.sweep()
    assert not left.exists()


# --- connections ------------------------------------------------------------------------------------------------------


def descriptors(path: Path) -> int:
    """How many descriptors of this process are open on a database."""
    found = 0
    for place in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += place.readlink().name.startswith(path.name)
    return found


def in_threads(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_come_and_go_leave_no_descriptors_open(tmp_path: Path) -> None:
    """Else a burst of requests now and then takes every descriptor that the process has."""
    path = tmp_path / "leak.db"
    database, most = Database(path, "CREATE TABLE IF NOT EXISTS t (n INTEGER) STRICT;"), 0
    for _ in range(5):
        meeting = threading.Barrier(12)

        def work(meeting: threading.Barrier = meeting) -> None:
            with database._lent() as c:
                meeting.wait()
                c.execute("SELECT count(*) FROM t").fetchall()

        in_threads(12, work)
        most = max(most, descriptors(path))
    assert len(database._free) == IDLE
    assert most <= 2 * IDLE + 1 + 4  # a file and a log each, one shared index; SQLite may keep closed ones for a lock's sake
    database.close()
    assert descriptors(path) == 0


def test_a_connection_that_is_lent_out_is_closed_when_it_comes_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (n INTEGER) STRICT;")
    with database.write() as c:
        c.execute("INSERT INTO t VALUES (1)")
        database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        c.execute("SELECT 1")
    again = Database(tmp_path / "x.db", "")
    assert again.row("SELECT n FROM t") == (1,)
    again.close()


def test_a_transaction_that_failed_leaves_its_connection_usable(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (n INTEGER) STRICT;")

    def fail() -> None:
        with database.write() as c:
            c.execute("INSERT INTO t VALUES (1)")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    with database.write() as c:
        c.execute("INSERT INTO t VALUES (2)")
        c.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        c.execute("BEGIN")
    assert database.rows("SELECT n FROM t") == []
    assert len(database._free) == 1
    database.close()


def test_what_is_no_database_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all, and long enough to be looked at" * 100)
    with pytest.raises(NotFound, match="cannot be opened"):
        Database(tmp_path / "x.db", "")
    with pytest.raises(NotFound, match="cannot be opened"):
        Database(tmp_path / "no folder" / "x.db", "")
    assert descriptors(tmp_path / "x.db") == 0
