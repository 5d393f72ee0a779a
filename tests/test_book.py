"""A broker's book in SQLite: it behaves as the one in memory does, and keeps what it said through a crash."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from strongroom import wire
from strongroom.app.stores import book as book_module
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.sqlite import Database, blob, integer, text
from strongroom.broker import NONCE_SECONDS, Charged, Kept, Refusal, Release
from strongroom.budget.charge import Event, Used
from strongroom.budget.document import Budget, CountLimits
from strongroom.contract import Grant, Withdrawal
from strongroom.errors import NotFound, StrongroomError
from strongroom.release import Slot
from world import (
    EDITED,
    NOW,
    RUN,
    Asker,
    Entropy,
    MemoryBook,
    World,
    broker_key,
    charge,
    keys_of,
    sealed_asset,
    seed,
    sign_all,
)

CONTRACTS = [wire.digest(b"one contract"), wire.digest(b"another")]
RUNS = [seed(f"run {n}", 16).hex() for n in range(3)]
KEYSETS = [wire.digest(b"one keyset"), wire.digest(b"another")]
MANIFESTS = [wire.digest(b"one asset"), wire.digest(b"another")]

contracts, runs = st.sampled_from(CONTRACTS), st.sampled_from(RUNS)
keysets, manifests = st.sampled_from(KEYSETS), st.sampled_from(MANIFESTS)
parties = st.sampled_from(["hospital", "lab"])


def kept(name: str) -> Kept:
    return Kept(broker_key("hospital").sign("application/json", wire.encode({"release": name})), seed(name, 40))


class Abandoned(Exception):
    """Somebody changed his mind inside a transaction."""


class Books(RuleBasedStateMachine):
    """Whatever is done to both books, they answer alike. One of them is closed and opened again now and then."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "book.db"
        self.real, self.model, self.at = SqliteBook(self.path), MemoryBook(Entropy("model")), NOW
        self.nonces: list[tuple[bytes, bytes]] = []
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "real"):
            self.real.close()
            self.folder.cleanup()

    @rule()
    def restart(self) -> None:
        self.real.close()
        self.real = SqliteBook(self.path)

    @rule(seconds=st.sampled_from([1, NONCE_SECONDS - 1, NONCE_SECONDS]))
    def wait(self, seconds: int) -> None:
        self.at += seconds

    @rule()
    def nonce(self) -> None:
        self.nonces.append((self.real.nonce(self.at), self.model.nonce(self.at)))

    @rule(data=st.data())
    def spend(self, data: st.DataObject) -> None:
        real, model = data.draw(st.sampled_from([*self.nonces, (bytes(32), bytes(32))]))
        assert self.real.spend(real, self.at) == self.model.spend(model, self.at)

    @rule(contract=contracts)
    def approve(self, contract: str) -> None:
        for book in (self.real, self.model):
            book.approve(contract, self.at)

    @rule(contract=contracts, by=contracts)
    def end(self, contract: str, by: str) -> None:
        for book in (self.real, self.model):
            book.end(contract, by)

    @rule(contract=contracts, party=parties)
    def withdraw(self, contract: str, party: str) -> None:
        withdrawal = Withdrawal(contract, party, self.at, "")
        for book in (self.real, self.model):
            book.withdraw(withdrawal, withdrawal.sign(keys_of(party).signing))

    @rule(contract=contracts, count=st.integers(1, 3), nonce=st.sampled_from(["aa" * 16, "bb" * 16]))
    def grant(self, contract: str, count: int, nonce: str) -> None:
        grant = Grant(contract, "hospital", count, nonce)
        for book in (self.real, self.model):
            book.grant(grant, grant.sign(keys_of("hospital").signing))

    @rule(role=st.sampled_from(["data", "model"]))
    def hold(self, role: str) -> None:
        for book in (self.real, self.model):
            book.hold(sealed_asset(role)[1], sealed_asset(role)[3])

    @rule(contract=contracts, run_id=runs, keyset=keysets, manifest=manifests, abandoned=st.booleans())
    def release(self, contract: str, run_id: str, keyset: str, manifest: str, abandoned: bool) -> None:
        """What ``decide`` does inside its transaction; sometimes it is abandoned halfway."""
        slot = Slot(contract, run_id, keyset, manifest)
        self.count += 1
        made = kept(str(self.count))
        found = []
        for book in (self.real, self.model):
            try:
                with book.transaction() as page:
                    holder, earlier = page.standing(contract).runs.get(run_id), page.earlier(slot)
                    found.append((holder, earlier))
                    if earlier is None and holder in (None, keyset):
                        page.keep(slot, made, self.at)
                    if abandoned:
                        raise Abandoned
            except Abandoned:
                pass
        assert found[0] == found[1]

    @rule(contract=contracts, run_id=runs, manifest=manifests, epsilon=st.sampled_from(["0.1", "2"]))
    def charge(self, contract: str, run_id: str, manifest: str, epsilon: str) -> None:
        """Twice is once."""
        made = charge(Event("epsilon-delta", 1, epsilon=epsilon, delta="0"), queries=3, rows=7)
        for book in (self.real, self.model):
            with book.transaction() as page:
                page.charge(Charged(contract, run_id, manifest, "lab", self.at, made))

    @rule(contract=contracts, run_id=runs, used=st.sampled_from([None, Used(False, 0, 0), Used(True, 3, 9)]))
    def settle(self, contract: str, run_id: str, used: Used | None) -> None:
        for book in (self.real, self.model):
            book.settle(contract, run_id, used)

    @rule(assets=st.sets(manifests, min_size=1), version=st.integers(1, 4), count=st.integers(0, 5))
    def budget(self, assets: set[str], version: int, count: int) -> None:
        budget = Budget("hospital", version, self.at, tuple(sorted(assets)), None, CountLimits(runs=count))
        ends = []
        for book in (self.real, self.model):
            try:
                book.set_budget(budget, budget.sign(keys_of("hospital").signing))
            except StrongroomError as error:
                ends.append(error.code)
            else:
                ends.append("ok")
        assert ends[0] == ends[1]

    @invariant()
    def they_answer_alike(self) -> None:
        if not hasattr(self, "real"):
            return
        for contract in CONTRACTS:
            assert self.real.standing(contract) == self.model.standing(contract)
        for role in ("data", "model"):
            digest = sealed_asset(role)[0].digest
            assert self.real.held(digest) == self.model.held(digest)
        for manifest in MANIFESTS:
            assert self.real.budget(manifest) == self.model.budget(manifest)
        assert set(self.real.charges(MANIFESTS)) == set(self.model.charges(MANIFESTS))
        assert sorted(self.real.releases()) == sorted(self.model.releases())


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[SqliteBook]:
    found = SqliteBook(tmp_path / "book.db")
    yield found
    found.close()


# --- nonces -----------------------------------------------------------------------------------------------------------


def test_nonces_are_fresh_and_single_use(book: SqliteBook) -> None:
    nonces = {book.nonce(NOW) for _ in range(20)}
    assert {len(n) for n in nonces} == {32}
    assert len(nonces) == 20
    for nonce in nonces:
        assert book.spend(nonce, NOW)
        assert not book.spend(nonce, NOW)


def test_nonces_expire(book: SqliteBook) -> None:
    early, late = book.nonce(NOW), book.nonce(NOW)
    assert book.spend(early, NOW + NONCE_SECONDS - 1)
    assert not book.spend(late, NOW + NONCE_SECONDS)


def test_asking_for_nonces_fills_nothing_up(book: SqliteBook) -> None:
    given = [book.nonce(NOW) for _ in range(50)]
    assert len(set(given)) == 50
    assert book.spend(given[0], NOW)
    assert not book.spend(given[0], NOW)
    assert book.spend(given[1], NOW + NONCE_SECONDS - 1)
    assert not book.spend(given[2], NOW + NONCE_SECONDS)
    assert book._db.row("SELECT count(*) FROM spent") == (2,)
    assert book.spend(book.nonce(NOW + NONCE_SECONDS + 1), NOW + NONCE_SECONDS + 1)
    assert book._db.row("SELECT count(*) FROM spent") == (1,)  # those that would have ended are forgotten


@pytest.mark.parametrize("at", range(32))
def test_a_nonce_that_was_made_up_is_refused(book: SqliteBook, at: int) -> None:
    nonce = bytearray(book.nonce(NOW))
    nonce[at] ^= 1
    assert not book.spend(bytes(nonce), NOW)


def test_another_brokers_nonce_is_refused(book: SqliteBook, tmp_path: Path) -> None:
    other = SqliteBook(tmp_path / "other.db")
    assert not book.spend(other.nonce(NOW), NOW)
    other.close()


def test_what_strangers_ask_is_kept_for_a_while_and_never_sent_to_the_ledger(
    book: SqliteBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "STRANGERS_KEPT", 3)
    world = World()
    broker, contract = world.brokers["hospital"], world.agree()
    book.record(mine := Asker(world, contract).request(), broker.decide(mine), NOW)
    for _ in range(6):
        request = Asker(world, contract).request(nonce=bytes(32))
        book.record(request, broker.decide(request), NOW)
    assert [d.code for d in book.decisions()] == ["", *["broker.nonce"] * 3]
    assert [d.verdict for d in book.decisions(unlogged=True)] == ["release"]


def test_a_nonce_survives_a_restart_and_is_single_use_after_it(tmp_path: Path) -> None:
    first = SqliteBook(tmp_path / "book.db")
    used, unused = first.nonce(NOW), first.nonce(NOW)
    assert first.spend(used, NOW)
    first.close()
    second = SqliteBook(tmp_path / "book.db")
    assert not second.spend(used, NOW)
    assert second.spend(unused, NOW)
    second.close()


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_never_overwritten(book: SqliteBook) -> None:
    _, envelope, _, key = sealed_asset("data")
    book.hold(envelope, key)
    book.hold(envelope, sealed_asset("model")[3])
    found = book.held(envelope.digest)
    assert found is not None
    assert found.key == key
    assert book.assets() == [envelope]


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    book = SqliteBook(tmp_path / "book.db")
    book.nonce(NOW)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    book.close()


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(book=lambda name: SqliteBook(tmp_path / f"{name}.db"))
    yield found
    for broker in found.brokers.values():
        broker.book.close()


def test_every_decision_stands_in_a_log_that_its_owner_can_read(world: World) -> None:
    broker = world.brokers["hospital"]
    contract = world.agree()
    good = Asker(world, contract).request()
    world.platform.measurement = EDITED
    bad = Asker(world, contract, "another").request()
    for request in (good, bad):
        broker.book.record(request, broker.decide(request), world.clock())
    release, refusal = broker.book.decisions()
    assert (release.verdict, release.code, release.run_id) == ("release", "", RUN)
    assert (refusal.verdict, refusal.code) == ("refusal", "attest.measurement_not_accepted")
    assert release.contract == refusal.contract == contract.digest
    assert [c["number"] for c in release.checks] == [f"D{n}" for n in range(1, 18)]  # type: ignore[index, union-attr, call-overload]
    assert EDITED.digest in json.dumps(refusal.checks)  # the owner sees the details
    assert release.digest == broker.decisions[0][1].envelope.digest
    assert json.loads(json.dumps(refusal.to_json()))["verdict"] == "refusal"
    assert broker.book.releases() == [(contract.digest, RUN, Asker(world, contract).keyset.digest, NOW)]


def test_what_is_logged_is_not_offered_again(world: World) -> None:
    broker = world.brokers["hospital"]
    for name in ("one", "other"):
        request = Asker(world, sign_all(world.proposal()), name).request()
        broker.book.record(request, broker.decide(request), world.clock())
    first, second = broker.book.decisions(unlogged=True)
    broker.book.mark_logged(first.id)
    assert [d.id for d in broker.book.decisions(unlogged=True)] == [second.id]
    assert [d.logged for d in broker.book.decisions()] == [True, False]


# --- crashes ----------------------------------------------------------------------------------------------------------

CRASH = """
import os, sys
from contextlib import contextmanager
from pathlib import Path
from strongroom.app.stores.book import SqliteBook
from world import Asker, World, seed

class Crashing(SqliteBook):
    @contextmanager
    def transaction(self):
        with super().transaction() as page:
            yield page
            if sys.argv[2] == "before":
                os._exit(9)  # after everything was written, before the commit
        if sys.argv[2] == "after":
            os._exit(9)  # after the commit, before the answer

folder = Path(sys.argv[1])
world = World(book=lambda party: Crashing(folder / f"{party}.db"))
contract = world.proposal()
from world import sign_all
contract = sign_all(contract)
world.brokers["hospital"].book.approve(contract.digest, 0)
asker = Asker(world, contract, "died", run_id=seed("died", 16).hex())
world.brokers["hospital"].decide(asker.request())
print("not reached")
"""


@pytest.mark.parametrize(("when", "counted"), [("before", 0), ("after", 1)])
def test_a_broker_that_dies_counts_a_run_exactly_if_its_release_was_committed(
    tmp_path: Path, when: str, counted: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    died = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path), when], env=environment, capture_output=True, text=True, check=False
    )
    assert (died.returncode, died.stdout) == (9, ""), died.stderr
    world = World(book=lambda name: SqliteBook(tmp_path / f"{name}.db"))
    contract = sign_all(world.proposal())
    assert len(world.brokers["hospital"].book.standing(contract.digest).runs) == counted
    same = Asker(world, contract, "died", run_id=seed("died", 16).hex()).ask()
    assert isinstance(same, Release)
    other = Asker(world, contract, "another", run_id=RUN).ask()
    assert isinstance(other, Refusal)
    assert other.number == "D16"
    for broker in world.brokers.values():
        broker.book.close()


# --- the database -----------------------------------------------------------------------------------------------------


def test_two_that_open_one_book_see_each_other_at_once(tmp_path: Path) -> None:
    owner, broker = SqliteBook(tmp_path / "book.db"), SqliteBook(tmp_path / "book.db")
    owner.approve(CONTRACTS[0], NOW)
    assert broker.standing(CONTRACTS[0]).approved
    withdrawal = Withdrawal(CONTRACTS[0], "hospital", NOW, "")
    owner.withdraw(withdrawal, withdrawal.sign(keys_of("hospital").signing))
    assert broker.standing(CONTRACTS[0]).withdrawn_by == {"hospital"}
    owner.close()
    broker.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "book.db").write_bytes(b"this is no database, but long enough to be taken for one" * 20)
    with pytest.raises(NotFound):
        SqliteBook(tmp_path / "book.db")
    with pytest.raises(NotFound):
        SqliteBook(tmp_path / "no such folder" / "book.db")


def test_an_error_inside_a_transaction_undoes_all_of_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (a TEXT) STRICT;")

    def write_and_give_up() -> None:
        with database.write() as c:
            c.execute("INSERT INTO t VALUES ('x')")
            raise Abandoned

    with pytest.raises(Abandoned):
        write_and_give_up()
    assert database.rows("SELECT * FROM t") == []
    database.close()


class _FailsToCommit:
    """A connection whose disk is full when it commits."""

    def __init__(self, connection: sqlite3.Connection, *, rolls_back_itself: bool) -> None:
        self._c, self._itself = connection, rolls_back_itself

    @property
    def in_transaction(self) -> bool:
        return self._c.in_transaction

    def execute(self, query: str, *values: Any) -> Any:
        if query == "COMMIT":
            if self._itself:
                self._c.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return self._c.execute(query, *values)


@pytest.mark.parametrize("itself", [True, False])
def test_a_commit_that_fails_leaves_nothing_behind_and_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, itself: bool
) -> None:
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (a TEXT) STRICT;")
    (real,) = database._free
    with monkeypatch.context() as patched:
        patched.setattr(database, "_free", [_FailsToCommit(real, rolls_back_itself=itself)])
        with pytest.raises(sqlite3.OperationalError, match="full"), database.write() as c:
            c.execute("INSERT INTO t VALUES ('x')")
    assert database.rows("SELECT * FROM t") == []
    with database.write() as c:
        c.execute("INSERT INTO t VALUES ('y')")
    assert database.rows("SELECT * FROM t") == [("y",)]
    database.close()


def test_a_column_of_another_type_is_noticed() -> None:
    for read in (text, blob, integer):
        with pytest.raises(StrongroomError):
            read(None)
    assert (text("x"), blob(b"x"), integer(1)) == ("x", b"x", 1)


def test_a_run_belongs_to_the_keyset_that_had_it_first(book: SqliteBook) -> None:
    slot = Slot(CONTRACTS[0], RUNS[0], KEYSETS[0], MANIFESTS[0])
    with book.transaction() as page:
        page.keep(slot, kept("first"), NOW)
    with book.transaction() as page:
        page.keep(replace(slot, keyset_digest=KEYSETS[1]), kept("second"), NOW)
    assert book.standing(CONTRACTS[0]).runs == {RUNS[0]: KEYSETS[0]}
    with book.transaction() as page:
        page.keep(slot, kept("third"), NOW)  # a lease that was renewed
    with book.transaction() as page:
        assert page.earlier(slot) == kept("third")
    assert book.standing(CONTRACTS[0]).runs == {RUNS[0]: KEYSETS[0]}
