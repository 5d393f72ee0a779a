"""Marks: a broker's book that was put back, lost or copied is noticed, and gives nothing until its owner confirms."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage import InProcess, until
from strongroom import wire
from strongroom.app.broker.machine import Machine, in_memory
from strongroom.app.broker.server import broker
from strongroom.app.broker.witness import Bringer, Witness, compare, forgotten
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.claim import claimed
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.app.stores.marks import restore
from strongroom.app.stores.sqlite import Database
from strongroom.asset import AssetKey
from strongroom.broker import Owner
from strongroom.budget.document import Budget, CountLimits
from strongroom.contract import Grant, Withdrawal
from strongroom.drawing import Revision
from strongroom.errors import (
    AlreadyExists,
    BadField,
    BookRestored,
    Conflict,
    Internal,
    NotFound,
    ReleaseRefused,
    StrongroomError,
    Unreachable,
    Usage,
    from_json,
)
from strongroom.holding import Says, Word
from strongroom.job import Cancel
from strongroom.mark import Mark, Place, follows, onward, require_known
from strongroom.wire import Envelope
from world import LOG, NOW, Asker, World, broker_key, keys_of, seed, sign_all

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "mark").glob("*.json"))
KEY = broker_key("hospital")
FRESH = Place(0, wire.digest(b"a new book"))
changes = st.lists(st.binary(max_size=8), max_size=6)


def mark(place: Place, after: str = "", at: int = NOW, key: Any = KEY) -> Mark:
    return Mark(key.public, place.number, place.head, after, at)


def places(*what: bytes) -> list[Place]:
    found = [FRESH]
    for change in what:
        found.append(onward(found[-1], change))
    return found


# --- the document and its laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())

    def run() -> None:
        if case["operation"] == "mark":
            assert Mark.verify(Envelope.from_json(case["mark"])).encode() == Envelope.from_json(case["mark"]).payload
        elif case["operation"] == "follows":
            new, old = (Mark.verify(Envelope.from_json(case[n])) for n in ("new", "old"))
            assert follows(new, old) is case["follows"]
        else:
            heads = dict(enumerate(case["heads"]))
            require_known(Mark.verify(Envelope.from_json(case["mark"])), heads.get)

    if case["expect"] == "ok":
        run()
        return
    with pytest.raises(StrongroomError) as caught:
        run()
    assert caught.value.code == case["expect"]


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 10


@given(st.integers(1, 1 << 48), st.binary(max_size=9), st.none() | st.binary(max_size=9), st.integers(0, 1 << 40))
def test_a_mark_is_read_as_it_was_written(number: int, head: bytes, after: bytes | None, at: int) -> None:
    made = Mark(KEY.public, number, wire.digest(head), "" if after is None else wire.digest(after), at)
    assert Mark.verify(made.sign(KEY)) == made
    assert Mark.verify(made.sign(KEY), KEY.public).encode() == made.encode()


@given(st.binary(max_size=200))
def test_nonsense_is_no_mark(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Mark.verify(KEY.sign("application/vnd.strongroom.mark.v1+json", data))


@given(changes, changes, changes)
def test_a_book_with_other_changes_than_the_mark_says_is_never_taken_for_the_newest(
    common: list[bytes], here: list[bytes], there: list[bytes]
) -> None:
    """A book is taken for the newest exactly if all that the witness knows is in it, in that order."""
    book = dict(places(*common, *here))
    known = places(*common, *there)[-1]
    whole = (common + here)[: len(common + there)] == common + there
    if known.number == 0:
        return
    if whole:
        require_known(mark(known), book.get)
    else:
        with pytest.raises(BookRestored):
            require_known(mark(known), book.get)


@given(changes, changes, changes)
def test_of_two_copies_of_a_book_one_alone_is_witnessed(common: list[bytes], one: list[bytes], other: list[bytes]) -> None:
    first, second = places(*common, *one, b"1")[-1], places(*common, *other, b"2")[-1]
    before = places(*common)[-1]
    kept = mark(first, before.head)
    assert follows(kept, None)
    assert not follows(mark(second, before.head), kept)
    assert not follows(mark(second, first.head), kept) or second.number > first.number  # then require_known finds it
    if second.number > first.number:
        with pytest.raises(BookRestored):
            require_known(kept, dict(places(*common, *other, b"2")).get)


# --- brokers with a witness, in this process --------------------------------------------------------------------------


class Silent(InProcess):
    """An exchange that does not answer while it is off."""

    off = False

    def handle_request(self, request: Any) -> Any:
        if self.off:
            raise Unreachable("off")
        return super().handle_request(request)


class Kept:
    """The hospital's broker with its book on disk, and an exchange that keeps its marks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "book.db"
        self.world = World()
        self.store = ExchangeStore(folder / "exchange", LOG)
        self.way = Silent(exchange(self.store))
        self.machine: Machine | None = Machine(folder / "memory")
        self.opened: list[SqliteBook] = []
        self.start()
        self.book.hold(*self._asset())

    def _asset(self) -> tuple[Envelope, AssetKey]:
        _, envelope, _, key = self.world.assets["data"]
        return envelope, key

    @property
    def manifest(self) -> str:
        return self.world.assets["data"][0].digest

    @property
    def marks(self) -> ExchangeClient:
        return ExchangeClient(Client("http://exchange", transport=self.way))

    def owner(self) -> Owner:
        trust = self.world.trust()
        return Owner("hospital", KEY, trust, trust.appraisal_policy())

    def start(self, path: Path | None = None, machine: Machine | None = None, *, strict: bool = False) -> Client:
        """A broker at work on a book: another process, as far as it can tell. ``machine``: another one, for another book."""
        book = SqliteBook(path or self.path)
        self.opened.append(book)
        where = machine or self.machine
        witness = Witness(book.marks, lambda: KEY, self.marks, where, strict=strict, now=self.world.clock, patience=60)
        client = Client(
            "http://broker", transport=InProcess(broker(book, self.owner, None, witness=witness, now=self.world.clock))
        )
        if path is None:
            self.book, self.witness, self.client = book, witness, client
        return client

    def stop(self) -> None:
        self.opened.pop().close()

    def contract(self, **changes: Any) -> Any:
        found = sign_all(self.world.proposal(**changes))
        self.book.approve(found.digest, NOW)
        return found

    def ask(self, contract: Any, name: str = "enclave", client: Client | None = None, run: str = "") -> bytes:
        """An enclave's own run, or the one of another. Raises what the broker says, ReleaseRefused for a refusal."""
        client = client or self.client
        asker = Asker(self.world, contract, name, run_id=seed(f"run of {run or name}", 16).hex())
        nonce = bytes.fromhex(json.loads(client.post("/v1/nonce", b"{}"))["nonce"])
        answer = client.post("/v1/release", asker.request(nonce=nonce).encode(), allow=(403,))
        said = json.loads(answer)
        if "error" in said:
            raise from_json(said["error"])
        if "refusal" in said:
            code = json.loads(Envelope.from_json(said["refusal"]).payload)["code"]
            raise ReleaseRefused("refused", reason=code)
        return answer

    def copy(self, name: str = "copy.db") -> Path:
        """A plain copy of the files, as anybody makes one of a broker that is stopped."""
        self.stop()
        copied = self.folder / name
        shutil.copyfile(self.path, copied)
        self.start()
        return copied

    def boot(self) -> None:
        """Start the machine again, and the broker on it."""
        self.stop()
        self.forget()
        self.start()

    def forget(self) -> None:
        """What a machine's memory does when it starts."""
        assert self.machine is not None
        shutil.rmtree(self.machine.folder, ignore_errors=True)

    def put(self, copied: Path, *, boot: bool = False) -> None:
        """Put it back with nothing but the file system; ``boot``: with the whole disk, which takes a start."""
        self.stop()
        if boot:
            self.forget()
        for path in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)
        shutil.copyfile(copied, self.path)
        self.start()

    def close(self) -> None:
        for book in self.opened:
            book.close()
        self.store.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path)
    yield found
    found.close()


AWAY = pytest.mark.parametrize("away", [False, True], ids=["", "exchange-away"])


@AWAY
def test_a_book_that_was_copied_back_gives_no_run_twice(kept: Kept, away: bool) -> None:
    contract = kept.contract()
    kept.witness.bring()
    copied = kept.copy()
    kept.way.off = away
    assert kept.ask(contract)
    kept.put(copied)
    for name in ("another", "enclave"):
        with pytest.raises(BookRestored, match="forgotten"):
            kept.ask(contract, name)
    assert kept.book.standing(contract.digest).runs == {}  # nothing was even counted


def test_a_disk_that_was_put_back_whole_gives_no_run_twice(kept: Kept) -> None:
    contract = kept.contract()
    copied = kept.copy()
    kept.ask(contract)
    kept.put(copied, boot=True)
    with pytest.raises(BookRestored, match="forgotten"):
        kept.ask(contract, "another")


def test_a_disk_that_was_put_back_whole_while_the_exchange_is_away_gives_nothing(kept: Kept) -> None:
    contract = kept.contract()
    copied = kept.copy()
    kept.ask(contract)
    kept.way.off = True
    kept.put(copied, boot=True)
    with pytest.raises(Unreachable, match="nobody can say"):
        kept.ask(contract, "another")
    kept.way.off = False
    with pytest.raises(BookRestored):
        kept.ask(contract, "another")


def test_a_broker_goes_on_while_the_exchange_is_away_and_brings_its_mark_later(kept: Kept) -> None:
    contract = kept.contract()
    kept.witness.bring()
    kept.way.off = True
    assert kept.ask(contract)
    kept.stop()
    kept.start()  # its process was killed
    assert kept.ask(contract)
    with pytest.raises(ReleaseRefused):
        kept.ask(contract, "another")
    with pytest.raises(Unreachable):
        kept.witness.bring()
    kept.way.off = False
    kept.witness.bring()
    assert kept.marks.mark(KEY.public).place == kept.book.marks.place()  # type: ignore[union-attr]


def test_a_machine_that_was_started_again_while_the_exchange_is_away_waits_for_it(kept: Kept) -> None:
    contract = kept.contract()
    kept.ask(contract)
    kept.way.off = True
    kept.boot()
    with pytest.raises(Unreachable, match="nobody can say"):
        kept.ask(contract)
    kept.way.off = False
    assert kept.ask(contract)
    kept.way.off = True
    assert kept.ask(contract)


def memory(kept: Kept, name: str) -> Path:
    """A copy of what this machine remembers: a snapshot of a virtual machine at work has it."""
    assert kept.machine is not None
    return Path(shutil.copytree(kept.machine.folder, kept.folder / name))


def test_a_machine_put_back_with_its_memory_gives_nothing_while_the_exchange_answers(kept: Kept) -> None:
    contract = kept.contract()
    kept.witness.bring()
    copied, remembered = kept.copy(), memory(kept, "remembered")
    kept.ask(contract)
    kept.machine = Machine(remembered)
    kept.put(copied)
    with pytest.raises(BookRestored):  # it was counted once more, and did not leave
        kept.ask(contract, "another")
    kept.way.off = True
    kept.stop()
    kept.start()
    with pytest.raises(BookRestored):  # what was found is not forgotten with the process
        kept.ask(contract, "another")


def test_a_machine_put_back_with_its_memory_while_the_exchange_is_away_is_found_when_that_is_back(kept: Kept) -> None:
    """What marks do not hold (spec/mark.md), unless the broker is strict."""
    contract = kept.contract()
    kept.witness.bring()
    copied, remembered = kept.copy(), memory(kept, "remembered")
    kept.ask(contract)
    kept.way.off = True
    kept.machine = Machine(remembered)
    kept.put(copied)
    kept.stop()
    kept.start(strict=True)
    with pytest.raises(Unreachable):
        kept.ask(contract, "another")
    kept.stop()
    kept.start()
    assert kept.ask(contract, "another")
    kept.way.off = False
    with pytest.raises(BookRestored):
        kept.witness.bring()
    with pytest.raises(BookRestored):
        kept.ask(contract, "another")


def test_a_copy_of_which_nothing_was_given_since_is_as_good_as_the_book(kept: Kept) -> None:
    contract = kept.contract()
    kept.ask(contract)
    kept.put(kept.copy())
    assert kept.ask(contract)
    kept.put(kept.copy("moved.db"), boot=True)  # to another machine
    assert kept.ask(contract)


@AWAY
def test_a_book_that_was_lost_is_not_a_new_one(kept: Kept, away: bool) -> None:
    contract = kept.contract()
    kept.ask(contract)
    kept.way.off = away
    kept.stop()
    kept.path.unlink()
    kept.start()
    kept.book.hold(*kept._asset())
    kept.book.approve(contract.digest, NOW)
    with pytest.raises(BookRestored):
        kept.ask(contract, "another")


def test_a_book_that_gave_nothing_yet_is_known_too(kept: Kept) -> None:
    contract = kept.contract()
    kept.witness.bring()
    kept.way.off = True
    kept.stop()
    kept.start()
    assert kept.ask(contract)


def test_a_book_that_is_swapped_under_a_broker_at_work_gives_nothing(kept: Kept) -> None:
    contract = kept.contract(title="Two")
    copied = kept.copy()
    kept.ask(contract)
    before = kept.witness  # a process that never ended
    kept.put(copied)
    kept.witness._marks = before._marks = kept.book.marks
    with pytest.raises(BookRestored):
        before.check()


def test_a_file_that_is_put_in_the_books_place_under_a_broker_at_work_is_not_gone_on_with(kept: Kept) -> None:
    """Old connections would see the old file and new ones the other: what one counts and another compares."""
    contract = kept.contract()
    copied = kept.copy()
    kept.ask(contract)
    page = kept.book.transaction()
    with page:  # a decision that is under way
        copied.replace(kept.path)
    with pytest.raises(NotFound, match="replaced"):
        kept.witness.settle()
    for _ in range(2):
        with pytest.raises(NotFound, match="replaced"):
            kept.ask(contract)
    kept.path.unlink()
    with pytest.raises(NotFound, match="replaced"):
        kept.ask(contract)


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("where", ["this machine", "another machine", "this machine, exchange away"])
def test_two_brokers_at_work_on_copies_of_one_book_give_a_run_once(kept: Kept, ahead: int, where: str) -> None:
    contract = kept.contract()
    kept.witness.bring()
    other = kept.start(kept.copy(), Machine(kept.folder / "elsewhere") if where == "another machine" else None)
    for n in range(ahead):  # what the owner wrote into one of them
        kept.opened[-1].end(wire.digest(b"%d" % n), wire.digest(b"by"))
    kept.way.off = "away" in where
    kept.ask(contract)
    with pytest.raises(BookRestored):
        kept.ask(contract, "another", other)


def test_two_brokers_at_once_on_one_machine_leave_one_of_two_marks(kept: Kept) -> None:
    """Both passed the check before either had counted: what the second counted does not leave."""
    kept.witness.bring()
    kept.way.off = True
    kept.start(kept.copy())
    other = kept.opened[-1]
    second = Witness(other.marks, lambda: KEY, kept.marks, kept.machine, now=kept.world.clock, patience=60)
    kept.witness.check()
    second.check()
    kept.book.end(wire.digest(b"one"), wire.digest(b"by"))
    other.end(wire.digest(b"another"), wire.digest(b"by"))
    kept.witness.settle()
    with pytest.raises(BookRestored):
        second.settle()


def test_of_a_strict_broker_nothing_leaves_before_the_exchange_knows(kept: Kept) -> None:
    """The exchange dies in between: the run is counted, nobody has it, and the same enclave gets it later."""
    kept.stop()
    kept.start(strict=True)
    contract = kept.contract()
    kept.witness.check()
    copied = kept.copy()
    kept.stop()
    kept.start(strict=True)
    kept.witness.check()
    kept.way.off = True
    with pytest.raises(Unreachable):
        kept.ask(contract)
    assert len(kept.book.standing(contract.digest).runs) == 1
    kept.way.off = False
    assert kept.ask(contract)
    kept.way.off = True
    assert kept.ask(contract)  # the very same, which is no run more
    kept.put(copied)
    with pytest.raises(BookRestored):
        kept.ask(contract, "another")


def test_a_broker_that_nobody_ever_witnessed_gives_nothing(kept: Kept) -> None:
    contract = kept.contract()
    kept.way.off = True
    with pytest.raises(Unreachable, match="nobody can say"):
        kept.ask(contract)
    assert kept.book.standing(contract.digest).runs == {}


def test_where_the_machine_can_keep_nothing_the_exchange_must(kept: Kept, tmp_path: Path) -> None:
    for number, machine in enumerate((None, Machine(tmp_path / "absent" / "folder"))):
        kept.stop()
        kept.machine = machine
        kept.start()
        contract = kept.contract(title=f"Contract {number}")
        kept.way.off = False
        kept.witness.check()
        kept.way.off = True
        with pytest.raises(Unreachable, match="nobody can keep"):
            kept.ask(contract)
        kept.way.off = False
        assert kept.ask(contract)


def test_who_waits_for_a_silent_exchange_waits_once(kept: Kept) -> None:
    """Fifty enclaves do not wait for it one after the other."""
    asked: list[int] = []
    go_on = threading.Event()

    def never(_key: Any) -> None:
        asked.append(1)
        go_on.wait(60)
        raise Unreachable("silent")

    kept.witness._exchange.mark = never  # type: ignore[method-assign, assignment]
    ended: list[StrongroomError] = []

    def ask() -> None:
        with pytest.raises(Unreachable) as caught:
            kept.witness.check()
        ended.append(caught.value)

    def waiting() -> int:
        return 0 if kept.witness._next is None else kept.witness._next.waiting

    threads = [threading.Thread(target=ask) for _ in range(8)]
    threads[0].start()
    until(lambda: bool(asked))
    for thread in threads[1:]:
        thread.start()
    until(lambda: waiting() == 7)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(ended) == 8
    assert len(asked) == 1


def test_who_answers_drop_by_drop_or_never_holds_no_release_up(kept: Kept) -> None:
    """An exchange that sends a byte now and then is as one that is away: what waits for it has an end of its own."""
    contract = kept.contract()
    kept.ask(contract)
    kept.witness._patience = 0.01
    go_on, ended = threading.Event(), []

    def never(*_: Any) -> None:
        go_on.wait(10)
        ended.append(1)
        raise Unreachable("silent")

    kept.witness._exchange.put_mark = never  # type: ignore[method-assign, assignment]
    for n in range(3):
        kept.book.end(wire.digest(b"%d" % n), wire.digest(b"by"))
        kept.witness.settle()
    assert kept.ask(contract)
    with pytest.raises(Unreachable):
        kept.witness.bring()
    assert not ended
    go_on.set()


@pytest.mark.parametrize("what", ["mark", "put_mark"])
@pytest.mark.parametrize("error", [BookRestored("stop"), Conflict("no"), ValueError("what")], ids=lambda e: type(e).__name__)
def test_an_error_that_anybody_on_the_way_can_send_stops_no_broker(kept: Kept, what: str, error: Exception) -> None:
    """An exchange, or who sits on the way to it, answers that the book was put back: only the book itself says so."""
    contract = kept.contract()
    kept.witness.bring()
    kept.stop()
    kept.start()

    def lie(*_: Any) -> None:
        raise error

    setattr(kept.witness._exchange, what, lie)
    assert kept.ask(contract)
    with pytest.raises(Unreachable):
        kept.witness.bring()
    assert compare(kept.book.marks, KEY.public, kept.witness._exchange, kept.machine).restored == ""
    kept.stop()
    kept.start()
    assert kept.ask(contract)


def test_a_copy_that_counts_nothing_new_gives_nothing_either_once_the_book_went_on(kept: Kept) -> None:
    """A clone of the machine renews leases, and gives again what was given, without one change in its own book."""
    contract = kept.contract()
    kept.ask(contract)
    for strict in (False, True):
        clone = kept.start(kept.copy(f"{strict}.db"), Machine(kept.folder / f"elsewhere {strict}"), strict=strict)
        assert kept.ask(contract, client=clone)
        kept.book.end(wire.digest(b"%d" % strict), wire.digest(b"by"))  # as by a withdrawal
        kept.witness.settle()
        with pytest.raises(BookRestored):
            kept.ask(contract, client=clone)
        kept.stop()


def test_an_outage_ends_for_releases_though_nobody_brings_marks(kept: Kept) -> None:
    """Whatever became of who brings marks from time to time: a release asks again by itself, after a while."""
    contract = kept.contract()
    ticks = [0.0]
    kept.witness._ticks = lambda: ticks[0]
    kept.witness.bring()
    kept.way.off = True
    kept.ask(contract)
    kept.way.off = False
    kept.ask(contract)
    assert kept.marks.mark(KEY.public).place != kept.book.marks.place()  # type: ignore[union-attr]
    ticks[0] += 11
    kept.ask(contract)
    assert kept.marks.mark(KEY.public).place == kept.book.marks.place()  # type: ignore[union-attr]


def test_what_fails_unexpectedly_does_not_end_who_brings_marks(kept: Kept) -> None:
    """A database that was busy once; then an outage, which ends by itself."""
    contract = kept.contract()
    kept.witness.bring()
    kept.way.off = True
    kept.ask(contract)
    failed: list[int] = []
    place = kept.book.marks.place

    def busy() -> Place:
        failed.append(1)
        if len(failed) < 3:
            raise sqlite3.OperationalError("database is locked")
        return place()

    kept.witness._marks.place = busy  # type: ignore[method-assign]
    bringer = Bringer(kept.witness, 0.01)
    bringer.start()
    until(lambda: len(failed) > 5)
    kept.way.off = False
    until(lambda: kept.marks.mark(KEY.public).place == place())  # type: ignore[union-attr]
    bringer.stop()


def test_a_withdrawal_and_a_cancel_are_acknowledged_when_a_witness_knows_them(kept: Kept) -> None:
    """A copy from before the word is put back as soon as its party was told that it holds."""
    contract, lab = kept.contract(), keys_of("lab").signing
    kept.witness.bring()
    withdrawal = Withdrawal(contract.digest, "lab", NOW, "").sign(lab).to_json()
    cancel = Cancel(contract.digest, "lab", "ab" * 16, NOW).sign(lab).to_json()
    for path, body in {
        "/v1/cancels": {"cancel": cancel, "contract": contract.envelope.to_json()},
        "/v1/withdrawals": {"contract": contract.envelope.to_json(), "withdrawal": withdrawal},
    }.items():
        kept.client.post(path, wire.encode(body))
        assert kept.marks.mark(KEY.public).place == kept.book.marks.place()  # type: ignore[union-attr]
    kept.book.marks.put_back()
    kept.client.post("/v1/withdrawals", wire.encode(body))  # it is taken all the same


def test_a_book_that_cannot_be_read_gives_nothing_and_the_next_is_asked_anew(kept: Kept) -> None:
    contract = kept.contract()
    kept.ask(contract)
    head_at = kept.book.marks.head_at

    def broken(_number: int) -> str:
        raise sqlite3.OperationalError("disk I/O error")

    kept.witness._marks.head_at = broken  # type: ignore[method-assign]
    with pytest.raises(Internal):
        kept.witness._talk("", put=True)
    kept.witness._marks.head_at = head_at  # type: ignore[method-assign]
    assert kept.ask(contract)


def test_after_it_was_silent_once_no_release_waits_for_the_exchange(kept: Kept) -> None:
    contract = kept.contract()
    kept.witness.bring()
    kept.way.off = True
    kept.ask(contract)

    def never(*_: Any) -> None:
        raise AssertionError("it was asked")

    kept.witness._exchange.put_mark = never  # type: ignore[method-assign, assignment]
    kept.book.end(wire.digest(b"other"), wire.digest(b"by"))
    kept.witness.settle()


def test_an_exchange_that_shows_an_old_mark_or_a_forged_one(kept: Kept) -> None:
    contract = kept.contract()
    kept.ask(contract)
    forged = mark(Place(99, wire.digest(b"forged")), key=broker_key("lab"))
    with kept.store._db.write() as c:
        c.execute("UPDATE marks SET envelope = ?", (forged.sign(broker_key("lab")).encode(),))
    kept.stop()
    kept.start()
    assert kept.ask(contract)  # it says nothing that this broker signed: it is as if it were away
    kept.boot()
    with pytest.raises(Unreachable):  # which shows nothing
        kept.ask(contract)
    old = mark(Place(1, kept.book.marks.head_at(1) or ""))
    with kept.store._db.write() as c:
        c.execute("UPDATE marks SET envelope = ?", (old.sign(KEY).encode(),))
    assert kept.ask(contract)  # an old one that is in the book says nothing against it
    assert kept.marks.mark(KEY.public).place == kept.book.marks.place()  # type: ignore[union-attr]


def test_an_exchange_that_lost_its_marks_gets_them_again(kept: Kept) -> None:
    contract = kept.contract()
    kept.ask(contract)
    with kept.store._db.write() as c:
        c.execute("DELETE FROM marks")
    kept.book.end(wire.digest(b"other"), wire.digest(b"by"))
    kept.witness.settle()
    assert kept.marks.mark(KEY.public).place == kept.book.marks.place()  # type: ignore[union-attr]


def test_an_exchange_of_an_older_version_keeps_no_marks_and_is_as_one_that_is_away(kept: Kept) -> None:
    contract = kept.contract()

    def older(_key: Any) -> None:
        raise NotFound("there is nothing at /v1/marks")

    kept.witness._exchange.mark = older  # type: ignore[method-assign, assignment]
    with pytest.raises(Unreachable, match="older"):
        kept.ask(contract)


def test_the_exchange_takes_a_mark_from_its_broker_alone(kept: Kept) -> None:
    good = mark(places(b"1")[-1])
    kept.marks.put_mark(good, KEY)
    kept.marks.put_mark(good, KEY)  # again
    with pytest.raises(StrongroomError):
        kept.marks.put_mark(good, broker_key("lab"))
    with pytest.raises(Conflict):
        kept.marks.put_mark(mark(places(b"2", b"3")[-1]), KEY)
    other = mark(places(b"1")[-1], key=broker_key("lab"))
    with pytest.raises(BadField):
        kept.marks.client.call("PUT", f"/v1/marks/{KEY.public.keyid}", content=other.sign(broker_key("lab")).encode())
    assert kept.marks.mark(broker_key("lab").public) is None


# --- what this machine remembers --------------------------------------------------------------------------------------


def test_a_machine_keeps_the_newest_mark_and_no_other_books(tmp_path: Path) -> None:
    machine, book, fork = Machine(tmp_path / "memory"), places(b"1", b"2", b"3"), places(b"1", b"x", b"y")
    assert machine.mark(KEY.public) is None
    for number in (2, 1):  # a later one is never replaced by an earlier one
        assert machine.put(mark(book[number]), KEY, dict(book).get)
        assert machine.mark(KEY.public) == mark(book[2])
    with pytest.raises(BookRestored):
        machine.put(mark(fork[3]), KEY, dict(fork).get)
    assert machine.mark(KEY.public) == mark(book[2])
    assert machine.replace(mark(fork[1]), KEY)
    assert machine.mark(KEY.public) == mark(fork[1])
    assert machine.mark(broker_key("lab").public) is None
    assert machine.folder.stat().st_mode & 0o077 == 0
    assert not [p for p in machine.folder.iterdir() if p.name[0] == "."]


def test_what_somebody_else_put_into_memory_is_not_believed(tmp_path: Path) -> None:
    """A folder that others can write to, a link, a mark of another broker, bytes: as if nothing were there."""
    book = places(b"1")
    for name, spoil in {
        "open to all": lambda m: m.folder.chmod(0o777),
        "a link": lambda m: (m.folder.rename(m.folder.with_name("real")), m.folder.symlink_to(m.folder.with_name("real"))),
    }.items():
        machine = Machine(tmp_path / name)
        machine.put(mark(book[1]), KEY, dict(book).get)
        spoil(machine)
        assert machine.mark(KEY.public) is None
        assert not machine.put(mark(book[1]), KEY, dict(book).get)
        assert not machine.replace(mark(book[1]), KEY)
    machine = Machine(tmp_path / "memory")
    machine.put(mark(book[1]), KEY, dict(book).get)
    path = machine._path(KEY.public)
    for data in (b"", b"no mark", mark(book[1], key=broker_key("lab")).sign(broker_key("lab")).encode(), b"x" * 99_999):
        path.write_bytes(data)
        assert machine.mark(KEY.public) is None
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert machine.mark(KEY.public) is None


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_memory_keeps_no_older_mark_that_would_speak_for_a_backup(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """What was given since the memory was full is in no mark there: an older one must not show that a copy is the newest."""
    contract = kept.contract()
    kept.witness.bring()
    copied = kept.copy()

    def full(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr("strongroom.app.broker.machine._replace", full)
        assert kept.ask(contract)  # the exchange has the mark
        assert kept.machine is not None
        assert kept.machine.mark(KEY.public) is None
    kept.way.off = True
    kept.put(copied)
    with pytest.raises(Unreachable, match="nobody can say"):
        kept.ask(contract, "another")


def test_an_older_mark_that_cannot_be_replaced_nor_removed_lets_nothing_leave(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = kept.contract()
    kept.witness.bring()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Machine, "_alone", full)
        with pytest.raises(Unreachable, match="older mark"):
            kept.ask(contract)
    with monkeypatch.context() as patch:
        patch.setattr("strongroom.app.broker.machine._replace", full)
        patch.setattr(Path, "unlink", full)
        kept.book.end(wire.digest(b"other"), wire.digest(b"by"))
        with pytest.raises(Unreachable, match="older mark"):
            kept.ask(contract)
    assert kept.ask(contract)


def test_a_witness_that_was_lost_is_said_aloud(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """Another user of this machine makes the folder first, or there is no memory to be had."""
    assert kept.machine is not None
    kept.witness.warn()
    assert not caplog.records
    kept.machine.folder.chmod(0o777)
    kept.witness.warn()
    kept.machine = None
    kept.start()
    kept.witness.warn()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]


def test_a_folder_that_was_open_to_all_keeps_no_older_mark(tmp_path: Path) -> None:
    book, machine = places(b"1", b"2"), Machine(tmp_path / "memory")
    machine.put(mark(book[1]), KEY, dict(book).get)
    machine.folder.chmod(0o777)
    assert not machine.put(mark(book[2]), KEY, dict(book).get)
    machine.folder.chmod(0o700)
    assert machine.mark(KEY.public) is None


def test_a_folder_on_a_disk_is_no_memory(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    for kind, found in (("ext4", False), ("tmpfs", True)):
        mounts.write_text(
            f"20 1 0:99 / /dev/shm rw - tmpfs tmpfs rw\n21 1 {numbers} / / rw,relatime shared:1 - {kind} x rw\n"
        )
        assert in_memory(tmp_path, mounts) is found
    assert not in_memory(tmp_path / "absent", mounts)
    assert not in_memory(tmp_path, tmp_path / "absent")
    assert Machine.here({}, tmp_path / "absent") is None
    with pytest.raises(Usage, match="STRONGROOM_MEMORY"):  # a slip of the pen is no broker without this witness
        Machine.here({"STRONGROOM_MEMORY": str(tmp_path / "absent")})
    found = Machine.here({})
    assert found is None or found.folder.name == f"strongroom-{os.geteuid()}"


# --- backups, and what a confirmation ends ----------------------------------------------------------------------------


def confirm(kept: Kept) -> Any:
    """As `strongroom broker confirm` does."""
    assert kept.machine is not None
    seen = compare(kept.book.marks, KEY.public, kept.marks, kept.machine)
    found = kept.book.marks.confirm(seen.there, kept.world.clock(), seen.near)
    kept.machine.replace(Mark.of(KEY.public, kept.book.marks.place(), None, NOW), KEY)
    return found


def test_a_backup_says_of_itself_that_it_is_one(kept: Kept, tmp_path: Path) -> None:
    """Put back without any verb, and without one change since: it is not taken for the book."""
    contract = kept.contract()
    kept.book.marks.backup(tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    with pytest.raises(AlreadyExists):
        kept.book.marks.backup(tmp_path / "backup")
    assert kept.ask(contract)  # the book itself goes on
    kept.put(tmp_path / "backup")
    with pytest.raises(BookRestored):
        kept.ask(contract)


def test_a_backup_whose_witnesses_forgot_everything_waits_for_the_owner_too(kept: Kept, tmp_path: Path) -> None:
    contract = kept.contract()
    kept.book.marks.backup(tmp_path / "backup")
    kept.ask(contract)
    with kept.store._db.write() as c:
        c.execute("DELETE FROM marks")
    kept.put(tmp_path / "backup", boot=True)
    with pytest.raises(BookRestored):
        kept.ask(contract, "another")


def test_after_a_confirmation_all_that_had_begun_is_over(kept: Kept) -> None:
    known, unknown = kept.contract(), sign_all(kept.world.proposal(title="Approved after the backup"))
    copied = kept.copy()
    kept.ask(known)
    kept.book.approve(unknown.digest, NOW)
    kept.ask(unknown)
    kept.put(copied)
    found = confirm(kept)
    assert (found.contracts, found.lost > 0) == ((known.digest,), True)
    for contract in (known, unknown):
        kept.book.approve(contract.digest, NOW)  # the owner says so once more, and grants; it is over all the same
        kept.book.grant(
            g := Grant(contract.digest, "hospital", 5, seed("grant", 16).hex()), g.sign(keys_of("hospital").signing)
        )
        for name in ("enclave", "another"):
            with pytest.raises(ReleaseRefused) as refused:
                kept.ask(contract, name)
            assert refused.value.reason == BookRestored.code
    kept.world.clock.now += 1
    anew = kept.contract(title="Anew", created_at=kept.world.clock(), not_before=kept.world.clock())
    assert kept.ask(anew)
    kept.stop()
    kept.start()
    assert kept.ask(anew)


def test_a_clock_that_was_put_back_too_ends_no_less(kept: Kept) -> None:
    contract = kept.contract()
    copied = kept.copy()
    kept.world.clock.now += 500
    kept.ask(contract)
    later = sign_all(kept.world.proposal(title="Later", created_at=NOW + 400, not_before=NOW + 400))
    kept.world.clock.now -= 500
    kept.put(copied)
    with pytest.raises(Conflict):  # what would end here has not begun
        confirm(kept)
    with pytest.raises(BookRestored):
        kept.ask(later)
    kept.world.clock.now += 200
    assert confirm(kept).at >= NOW + 500
    kept.world.clock.now += 300
    kept.book.approve(later.digest, NOW)
    with pytest.raises(ReleaseRefused, match="refused") as refused:
        kept.ask(later)
    assert refused.value.reason == BookRestored.code


def test_a_confirmation_without_the_exchange_is_held_against_it_when_it_is_back(kept: Kept) -> None:
    contract = kept.contract()
    copied = kept.copy()
    kept.world.clock.now += 200
    kept.ask(contract)
    kept.world.clock.now -= 200  # whoever confirms cannot know how far that went
    kept.way.off = True
    kept.put(copied, boot=True)
    seen = compare(kept.book.marks, KEY.public, kept.marks, kept.machine)
    assert (seen.shown, seen.restored) == (False, "")
    confirm(kept)
    kept.world.clock.now += 1
    anew = kept.contract(title="Anew", created_at=kept.world.clock(), not_before=kept.world.clock())
    assert kept.ask(anew)
    kept.way.off = False
    with pytest.raises(BookRestored):
        kept.witness.bring()
    kept.world.clock.now += 1
    confirm(kept)
    for old in (contract, anew):
        kept.book.approve(old.digest, NOW)
        with pytest.raises(ReleaseRefused):
            kept.ask(old, "another")
    kept.witness.bring()
    assert compare(kept.book.marks, KEY.public, kept.marks, kept.machine).there is not None


def test_old_marks_from_before_a_confirmation_stop_no_broker_again(kept: Kept) -> None:
    """An exchange that was away comes back with one; or it lost its marks, and a stranger brings one that was there once."""
    contract = kept.contract()
    copied = kept.copy()
    for n in range(5):
        kept.book.end(wire.digest(b"%d" % n), wire.digest(b"by"))
    kept.ask(contract)
    old = kept.marks.mark(KEY.public)
    assert old is not None
    kept.way.off = True
    kept.put(copied, boot=True)
    assert confirm(kept).at == old.at
    kept.way.off = False
    for _ in range(2):
        kept.witness.bring()
        assert kept.marks.mark(KEY.public).place == kept.book.marks.place()  # type: ignore[union-attr]
        assert kept.book.marks.place().number > old.number
        assert compare(kept.book.marks, KEY.public, kept.marks, kept.machine).restored == ""
        with kept.store._db.write() as c:
            c.execute("DELETE FROM marks")
        kept.marks.put_mark(old, KEY)
        kept.stop()
        kept.start()
    kept.book.approve(contract.digest, NOW)
    with pytest.raises(ReleaseRefused):  # what it stands for is over
        kept.ask(contract, "another")


def test_a_receipt_of_a_run_that_was_given_anew_to_another_shows_what_was_forgotten(kept: Kept) -> None:
    """The run's id is in the book again, with the keyset of a second enclave; and whoever confirms has a clock put back."""
    contract = kept.contract()
    copied = kept.copy()
    first = json.loads(kept.ask(contract))["release"]
    with kept.store._db.write() as c:
        c.execute("DELETE FROM marks")
    kept.put(copied, boot=True)
    second = json.loads(kept.ask(contract, "another", run="enclave"))["release"]

    def shows(release: Any) -> int:
        bundle: Any = SimpleNamespace(releases=(Envelope.from_json(release),))
        return forgotten(bundle, KEY.public, kept.book)

    assert (shows(first), shows(second)) == (NOW, 0)
    kept.book.marks.put_back(shows(first) + 7)
    kept.book.marks.put_back(0)
    kept.world.clock.now -= 200
    assert confirm(kept).at == NOW + 7
    assert shows(first) == 0  # what it stands for is over


def test_a_budget_of_which_charges_may_be_forgotten_must_be_set_again(kept: Kept) -> None:
    signing = keys_of("hospital").signing

    def budget(version: int) -> None:
        found = Budget("hospital", version, NOW, (kept.manifest,), None, CountLimits(runs=3))
        kept.book.set_budget(found, found.sign(signing))

    budget(1)
    copied = kept.copy()
    kept.book.end(wire.digest(b"other"), wire.digest(b"by"))
    kept.witness.settle()
    kept.put(copied)
    assert confirm(kept).budgets == (kept.manifest,)
    with kept.book.transaction() as page, pytest.raises(BookRestored):
        page.budget(kept.manifest)
    budget(2)
    with kept.book.transaction() as page:
        assert page.budget(kept.manifest) is not None


def test_every_word_that_forbids_something_is_a_change(kept: Kept) -> None:
    """A backup from before any of them is noticed."""
    contract = kept.contract()
    lab = keys_of("lab").signing
    place = kept.book.marks.place

    def changes(do: Callable[[], Any]) -> None:
        before = place()
        do()
        do()  # the same again is none
        assert place().number == before.number + 1

    withdrawal = Withdrawal(contract.digest, "lab", NOW, "")
    cancel = Cancel(contract.digest, seed("run", 16).hex(), "lab", NOW)
    changes(lambda: kept.book.withdraw(withdrawal, withdrawal.sign(lab)))
    changes(lambda: kept.book.end(contract.digest, wire.digest(b"by")))
    changes(lambda: kept.book.cancel(cancel, cancel.sign(lab)))
    changes(lambda: kept.book.forget(kept.manifest))
    word = Word(contract.digest, "lab", Says.ENDED, NOW)

    def hear() -> None:
        with kept.book.transaction() as page:
            page.hear(word, word.sign(lab))

    changes(hear)


@pytest.mark.parametrize("what", ["forget", "revise"])
def test_a_book_from_before_a_key_was_handed_out_or_a_source_was_revised_gives_nothing(kept: Kept, what: str) -> None:
    """It has the whole key of what is shared since, or the older word about a source."""
    contract = kept.contract()
    kept.witness.bring()
    copied = kept.copy()
    if what == "forget":
        kept.book.forget(kept.manifest)
    else:
        word = Revision(kept.manifest, 1, NOW, None)
        kept.book.revise(word, word.sign(keys_of("hospital").signing))
    kept.witness.bring()
    kept.put(copied)
    with pytest.raises(BookRestored):
        kept.ask(contract)


def test_a_backup_that_was_broken_off_leaves_no_book_that_does_not_say_so(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed when all is copied, and before the copy says of itself that it is a backup."""
    whole = Database.copy

    def killed(db: Database, out: Path) -> None:
        whole(db, out)
        raise KeyboardInterrupt

    out = kept.folder / "a.backup"
    monkeypatch.setattr(Database, "copy", killed)
    with pytest.raises(KeyboardInterrupt):
        kept.book.marks.backup(out)
    assert not out.exists()
    monkeypatch.undo()
    assert kept.book.marks.backup(out) == out.stat().st_size
    assert [p.name for p in kept.folder.iterdir() if "backup" in p.name] == ["a.backup"]
    copied = SqliteBook(out)
    with pytest.raises(BookRestored):
        copied.marks.require_confirmed()
    copied.close()


def test_a_book_that_a_broker_works_on_is_not_put_back_whatever_it_answers(tmp_path: Path) -> None:
    book = tmp_path / "book.db"
    with claimed(book, alone=False):
        with claimed(book, alone=False):
            pass
        with pytest.raises(Conflict, match="at work"), claimed(book, alone=True):
            pass
    with claimed(book, alone=True), pytest.raises(Conflict, match="put in the place"), claimed(book, alone=False):
        pass
    with claimed(book, alone=False):
        pass


def test_nothing_that_is_no_book_is_put_back(tmp_path: Path) -> None:
    book = SqliteBook(tmp_path / "book.db")
    place = book.marks.place()
    book.close()
    (tmp_path / "nonsense").write_bytes(b"no book")
    for name in ("nonsense", "absent"):
        with pytest.raises(NotFound):
            restore(tmp_path / name, tmp_path / "book.db")
    book = SqliteBook(tmp_path / "book.db")
    assert book.marks.place() == place
    book.close()
    assert not [p for p in tmp_path.iterdir() if "restored" in p.name]
