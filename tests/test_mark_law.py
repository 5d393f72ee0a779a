"""The law of marks, with everything going wrong at once: brokers are killed, machines start again, books, disks and whole
machines are put back, the exchange goes away and loses answers, owners confirm and approve again.

No contract gives more runs than its limit, but for the cases that spec/mark.md names as not held; those are left out here by
what a rule requires before it acts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from strongroom import wire
from strongroom.app.broker.machine import Machine
from strongroom.app.broker.witness import Witness, compare
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.marks import restore
from strongroom.broker import Kept
from strongroom.errors import BookRestored, Conflict, Unreachable
from strongroom.mark import Mark, follows
from strongroom.release import Slot
from world import NOW, broker_key

KEY = broker_key("hospital")
MANIFEST = wire.digest(b"records")
NOTHING = KEY.sign("application/json", b"{}")
LIMIT = 1
ENCLAVES = ("e1", "e2", "e3")


class Exchange:
    """Keeps a mark, is away at times, and loses answers."""

    def __init__(self) -> None:
        self.up, self.kept, self.lose = True, None, False

    kept: Mark | None

    def mark(self, _key: Any) -> Mark | None:
        if not self.up:
            raise Unreachable("away")
        return self.kept

    def put_mark(self, mark: Mark, _key: Any) -> None:
        if not self.up:
            raise Unreachable("away")
        if not follows(mark, self.kept):
            raise Conflict("another mark is here")
        self.kept = mark
        if self.lose:
            self.lose = False
            raise Unreachable("the answer was lost")


class Killed(Exception):
    """The broker's process ended."""


class Restored(RuleBasedStateMachine):
    """One broker, its machine and its disk."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.path, self.machine = self.folder / "book.db", Machine(self.folder / "memory")
        self.exchange, self.clock, self.copies, self.snapshots = Exchange(), NOW, list[Path](), list[Path]()
        self.contracts: list[tuple[str, int]] = []
        self.given: defaultdict[str, set[str]] = defaultdict(set)
        self.newest = 0  # the number of the last change that anything hangs on
        self.brought = True  # the exchange knows of it
        self.hole = False  # the machine forgot what the exchange does not know yet
        self.process()
        self.another_contract()
        self.copy()

    def teardown(self) -> None:
        if hasattr(self, "book"):
            self.book.close()
            shutil.rmtree(self.folder)

    def process(self) -> None:
        """A new process of the broker."""
        if hasattr(self, "book"):
            self.book.close()
        self.book = SqliteBook(self.path)
        exchange: Any = self.exchange
        self.witness = Witness(self.book.marks, lambda: KEY, exchange, self.machine, now=lambda: self.clock, patience=60)

    def look(self) -> None:
        """Whether the exchange knows of all that anything hangs on."""
        kept = self.exchange.kept
        known = kept is not None and self.book.marks.head_at(kept.number) == kept.head
        self.brought = known and kept is not None and kept.number >= self.newest
        self.hole = self.hole and not self.brought

    # --- enclaves ---

    @rule(
        order=st.permutations(ENCLAVES),
        killed=st.sampled_from(["", "", "counted", "marked"]),
        away=st.booleans(),
    )
    def ask_all(self, order: list[str], killed: str = "", *, away: bool = False) -> None:
        """Each enclave asks under each contract; the process may be killed at the first, the exchange be away meanwhile."""
        up, self.exchange.up = self.exchange.up, self.exchange.up and not away
        for back in range(len(self.contracts)):
            for enclave in order:
                self.ask(enclave, back, killed)
                killed = ""
        self.exchange.up = up

    def ask(self, enclave: str, back: int, killed: str) -> None:
        contract, begun = self.contracts[-1 - back]
        with suppress(BookRestored, Unreachable):
            try:
                if self.decide(contract, begun, enclave, killed):
                    self.given[contract].add(enclave)
                    self.newest = self.book.marks.place().number
                    self.look()
            except Killed:
                self.process()

    def decide(self, contract: str, begun: int, enclave: str, killed: str) -> bool:
        """As ``broker.decide`` counts, without its cryptography."""
        self.witness.check()
        run = wire.digest(f"{contract} {enclave}".encode())[7:39]
        with self.book.transaction() as page:
            standing = page.standing(contract)
            if begun <= page.over(MANIFEST) or not standing.approved:
                return False
            if run not in standing.runs:
                if len(standing.runs) >= LIMIT:
                    return False
                page.keep(Slot(contract, run, wire.digest(enclave.encode()), MANIFEST), Kept(NOTHING, b"key"), self.clock)
        if killed == "counted":
            raise Killed
        self.witness.settle()
        if killed == "marked":
            raise Killed
        return True

    # --- the owner ---

    @rule()
    @precondition(lambda self: len(self.contracts) < 3)
    def another_contract(self) -> None:
        self.clock += 1
        self.contracts.append((wire.digest(b"contract %d" % len(self.contracts)), self.clock))
        self.approve_all()

    @rule()
    def approve_all(self) -> None:
        """The owner says so again of each contract, whatever became of it."""
        for contract, _ in self.contracts:
            self.book.approve(contract, self.clock)

    @rule()
    def confirm(self) -> None:
        """As `strongroom broker confirm`: where something says that the book is not the newest, or nobody can say."""
        exchange: Any = self.exchange
        seen = compare(self.book.marks, KEY.public, exchange, self.machine)
        if seen.restored or not seen.shown:
            self.book.marks.confirm(seen.there, self.clock, seen.near)
            self.machine.replace(Mark.of(KEY.public, self.book.marks.place(), None, self.clock), KEY)
            self.newest, self.hole = self.book.marks.place().number, False
            self.look()

    # --- the exchange ---

    @rule(lose=st.booleans())
    def away_and_back(self, lose: bool) -> None:
        self.exchange.up, self.exchange.lose = not self.exchange.up, lose

    @rule()
    def bring(self) -> None:
        with suppress(BookRestored, Unreachable):
            self.witness.bring()
            self.look()

    # --- the machine ---

    @rule()
    def restart(self) -> None:
        self.process()

    @rule()
    def boot(self) -> None:
        shutil.rmtree(self.machine.folder, ignore_errors=True)
        self.hole = self.hole or not self.brought
        self.process()

    @rule()
    def copy(self) -> None:
        """Somebody copies the book, or all of a machine at work."""
        number = len(self.copies)
        self.copies.append(self.folder / f"copy-{number}.db")
        self.book._db.copy(self.copies[-1])
        self.snapshots.append(self.folder / f"memory-{number}")
        if self.machine.folder.exists():
            shutil.copytree(self.machine.folder, self.snapshots[-1])

    @rule(
        what=st.sampled_from(["book", "disk", "machine", "verb"]),
        which=st.integers(0, 9),
        then=st.sets(st.sampled_from(["boot", "confirm", "approve"])),
        order=st.permutations(ENCLAVES),
    )
    def put_back(self, what: str, which: int, then: set[str], order: list[str]) -> None:
        """Something is put back, and enclaves are there at once."""
        if not self.held(what):
            return
        which %= len(self.copies)
        self.book.close()
        if what == "verb":
            restore(self.copies[which], self.path)
        else:
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            shutil.copyfile(self.copies[which], self.path)
        if what in ("disk", "machine"):
            shutil.rmtree(self.machine.folder, ignore_errors=True)
        if what == "machine" and self.snapshots[which].exists():
            shutil.copytree(self.snapshots[which], self.machine.folder)
        self.process()
        if what == "machine":
            self.bring()
        if "boot" in then and self.held("disk"):
            self.boot()
        if "confirm" in then:
            self.confirm()
        if "approve" in then:
            self.approve_all()
        self.ask_all(order)

    def held(self, what: str) -> bool:
        """Whether it is among what marks hold against (spec/mark.md).

        The book alone, under a broker that is stopped: unless the machine forgot what the exchange does not know. The whole
        disk, with a start of the machine: if the exchange knows all. The machine with its memory: while it answers, too.
        """
        return {
            "book": not self.hole,
            "disk": self.brought,
            "machine": self.brought and self.exchange.up,
            "verb": True,
        }[what]

    @invariant()
    def no_contract_gives_more_than_its_limit(self) -> None:
        assert all(len(enclaves) <= LIMIT for enclaves in self.given.values())


TestRestored = Restored.TestCase
TestRestored.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=30, deadline=None)
