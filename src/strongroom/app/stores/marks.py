"""How far a broker's book has come (``mark.Place``), and what it does not know since it was put back from a backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.errors import AlreadyExists, BookRestored, Conflict, NotFound
from strongroom.holding import SKEW_SECONDS, Withdrawn
from strongroom.mark import Mark, Place, onward

from .claim import durable
from .sqlite import integer, text

if TYPE_CHECKING:
    from .sqlite import Database

# heads: of every number. put_back: one row in a book that came from a backup and that nobody confirmed. shown: the latest
# that a mark or a receipt showed to be given, and that the book does not know. over: see Over; the row '' is of the whole
# book. counted: when that was, as far as an owner said with a deal that it knows. frozen: the newest version of a budget
# when the book was put back. told: withdrawals that an owner told of. concerns: assets of withdrawn contracts.
SCHEMA = """
CREATE TABLE IF NOT EXISTS heads (number INTEGER PRIMARY KEY, head TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS put_back (one INTEGER PRIMARY KEY CHECK (one = 1)) STRICT;
CREATE TABLE IF NOT EXISTS shown (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS over (manifest TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS counted (manifest TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS frozen (manifest TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS told (contract TEXT, party TEXT, owner TEXT, manifest TEXT,
    PRIMARY KEY (contract, party, owner, manifest)) STRICT;
CREATE TABLE IF NOT EXISTS concerns (contract TEXT, manifest TEXT, PRIMARY KEY (contract, manifest)) STRICT;
"""


def begin(c: sqlite3.Connection, fresh: bytes) -> None:
    """A new book has a head of its own, so that it is not taken for one that was lost."""
    c.execute("INSERT OR IGNORE INTO heads VALUES (0, ?)", (wire.digest(fresh),))


def _place(c: sqlite3.Connection) -> Place:
    number, head = c.execute("SELECT number, head FROM heads ORDER BY number DESC LIMIT 1").fetchone()
    return Place(integer(number), text(head))


def changed(c: sqlite3.Connection, *what: str | int | None) -> None:
    """Count a change, in the transaction that makes it."""
    c.execute("INSERT INTO heads VALUES (?, ?)", onward(_place(c), wire.encode(list(what))))


class Over:
    """What a book does not know any more, inside one transaction.

    Args:
        connection: where.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._c = connection

    def changed(self, *what: str | int | None) -> None:
        changed(self._c, *what)

    def over(self, manifest: str) -> int:
        found = self._c.execute("SELECT max(at) FROM over WHERE manifest IN ('', ?)", (manifest,)).fetchone()[0]
        return 0 if found is None else integer(found)

    def uncounted(self, manifest: str) -> int:
        found = self._c.execute(
            "SELECT coalesce(max(at), 0) FROM over WHERE manifest = ? OR manifest = '' AND NOT EXISTS"
            " (SELECT 1 FROM counted WHERE counted.manifest = ? AND counted.at = over.at)",
            (manifest, manifest),
        ).fetchone()
        return integer(found[0])

    def learn(self, manifest: str, owner: str, withdrawn: Sequence[Withdrawn], over: int, restored: int) -> None:
        rows = [(w.contract, w.party, owner, manifest) for w in withdrawn]
        self._c.executemany("INSERT OR IGNORE INTO told VALUES (?, ?, ?, ?)", rows)
        if over:
            self._c.execute(
                "INSERT INTO over VALUES (?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)", (manifest, over)
            )
        else:
            self._c.execute("DELETE FROM over WHERE manifest = ?", (manifest,))
        if restored:  # in the deal, since when the book was put back: of another time it says nothing
            self._c.execute("INSERT OR REPLACE INTO counted VALUES (?, ?)", (manifest, restored))

    def told(self, contract: str, owner: str) -> frozenset[str]:
        """Who withdrew from a contract, as this owner said."""
        rows = self._c.execute("SELECT party FROM told WHERE contract = ? AND owner = ?", (contract, owner))
        return frozenset(text(r[0]) for r in rows)

    def withdrawn(self, manifest: str, owner: str) -> list[Withdrawn]:
        rows = self._c.execute(
            "SELECT contract, party FROM withdrawn WHERE contract IN (SELECT contract FROM concerns WHERE manifest = ?"
            " UNION SELECT contract FROM words WHERE owner = ? UNION SELECT contract FROM slots WHERE manifest = ?)"
            " UNION SELECT contract, party FROM told WHERE manifest = ? AND owner = ? ORDER BY 1, 2",
            (manifest, owner, manifest, manifest, owner),
        )
        return [Withdrawn(text(contract), text(party)) for contract, party in rows]

    def require_unfrozen(self, manifest: str) -> None:
        """Raises BookRestored: the newest budget of this asset is from before the book was put back."""
        row = self._c.execute(
            "SELECT 1 FROM frozen WHERE manifest = ? AND version >= (SELECT max(version) FROM budgets WHERE manifest = ?)",
            (manifest, manifest),
        ).fetchone()
        if row is not None:
            raise BookRestored("the budget is from before the book was put back from a backup", hint=_BUDGET)


_BUDGET = "What was charged since the backup is not known; its owner says what is left: strongroom budget set ASSET"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a confirmation ended.

    Attributes:
        at: contracts that had begun then are over here, Unix seconds.
        lost: how many changes the book has forgotten, as far as its witnesses know.
        contracts: approved ones, which are not approved any more.
        shares: manifests of assets whose shares are here, and are given again when their owners deal anew.
        budgets: manifests of assets whose budgets must be set again.
    """

    at: int
    lost: int
    contracts: tuple[str, ...]
    shares: tuple[str, ...]
    budgets: tuple[str, ...]


class Marks:
    """How far a book has come.

    Args:
        db: the book's database.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def place(self) -> Place:
        number, head = self._db.rows("SELECT number, head FROM heads ORDER BY number DESC LIMIT 1")[0]
        return Place(integer(number), text(head))

    def head_at(self, number: int) -> str | None:
        """The head of a number; ``None`` where the book has not come so far."""
        row = self._db.row("SELECT head FROM heads WHERE number = ?", number)
        return text(row[0]) if row else None

    def require_confirmed(self) -> None:
        """Raises BookRestored: this book came from a backup, and its owner did not confirm it."""
        if self._db.row("SELECT 1 FROM put_back") is not None:
            raise BookRestored("the book was put back from a backup, or a mark or a receipt shows what it does not know")

    def begin(self) -> None:
        """Count the first change of a new book: that a broker is at work on it. From then on it can be witnessed."""
        if self.place().number == 0:
            with self._db.write() as c:
                if _place(c).number == 0:
                    changed(c, "begun")

    def restored(self) -> int:
        """What was given until then, Unix seconds, may be forgotten, and its owner confirmed that; 0: nothing."""
        row = self._db.row("SELECT at FROM over WHERE manifest = ''")
        return integer(row[0]) if row else 0

    def put_back(self, at: int = 0) -> None:
        """Note that this book is not the newest: nothing is given until its owner confirms.

        Args:
            at: when something was given that it does not know, Unix seconds: a confirmation reaches as far.
        """
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO put_back VALUES (1)")
            c.execute("INSERT INTO shown VALUES (1, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)", (at,))

    def covers(self, mark: Mark) -> bool:
        """Whether all that was given up to a mark, though unknown here, is over by what the owner confirmed."""
        return mark.at <= self.restored()

    def pass_by(self, mark: Mark) -> None:
        """Go on behind a mark of another story that a confirmation covers."""
        with self._db.write() as c:
            place = _place(c)
            if place.number <= mark.number:
                c.execute("INSERT INTO heads VALUES (?, ?)", onward(Place(mark.number, place.head), mark.head.encode()))

    def backup(self, out: Path) -> int:
        """Write a copy of the book that says of itself that it is a backup; its size in bytes.

        It has its name once it is whole and says so: nobody finds a copy that would be taken for the book.

        Raises:
            AlreadyExists, NotFound.
        """
        if out.exists():
            raise AlreadyExists(f"{out} exists already", hint="Choose another name; a backup is never written over.")
        partial = out.with_name(f".{out.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            partial.touch(mode=0o600)
            self._db.copy(partial)
            copied = sqlite3.connect(partial, isolation_level=None)
            try:
                copied.execute("PRAGMA journal_mode=DELETE")  # one file
                copied.execute("INSERT OR IGNORE INTO put_back VALUES (1)")
            finally:
                copied.close()
            durable(partial)
            partial.replace(out)
            durable(out.parent)
        except (OSError, sqlite3.Error) as error:
            partial.unlink(missing_ok=True)
            raise NotFound(f"cannot write {out}: {error.__class__.__name__}") from error
        return out.stat().st_size

    def confirm(self, mark: Mark | None, at: int, near: Mark | None = None) -> Confirmed:
        """The owner looked: what the book may have forgotten is given to nobody.

        All that had begun is over, approvals are void, shares wait to be dealt anew, and budgets to be set again. The book
        goes on behind what the witness knows.

        Args:
            mark: the newest that the exchange has, verified; ``None``: none, or it does not answer.
            at: the broker's clock, Unix seconds.
            near: the one that this machine has, verified; the caller puts another in its place.

        Raises:
            Conflict: the book, or a mark, is of a time that is still to come by this clock. Nothing was done.
        """
        seen = [m for m in (mark, near) if m is not None]
        with self._db.write() as c:

            def column(query: str) -> tuple[str, ...]:
                return tuple(text(r[0]) for r in c.execute(query))

            place, latest = _place(c), integer(c.execute("SELECT coalesce(max(at), 0) FROM decisions").fetchone()[0])
            shown = c.execute("SELECT at FROM shown").fetchone()
            clock, told = at, integer(shown[0]) if shown else 0
            at = max(at, latest, self._after(c), told, *(m.at for m in seen))
            if at > clock + SKEW_SECONDS:
                raise Conflict(
                    f"this machine's clock is {at - clock:,} seconds behind what the book or its mark says", hint=_CLOCK
                )
            lost = max((m.number - place.number for m in seen), default=0)
            found = Confirmed(
                at=at,
                lost=max(lost, 0),
                contracts=column("SELECT contract FROM approved UNION SELECT contract FROM words WHERE says = 'approved'"),
                shares=column("SELECT manifest FROM shares ORDER BY manifest"),
                budgets=column("SELECT DISTINCT manifest FROM budgets ORDER BY manifest"),
            )
            c.execute("DELETE FROM approved")
            c.execute("DELETE FROM words WHERE says = 'approved'")
            c.execute("UPDATE shares SET recalled = 1")
            c.execute("INSERT OR REPLACE INTO over VALUES ('', ?)", (at,))
            c.execute("DELETE FROM counted")
            c.execute("INSERT OR REPLACE INTO frozen SELECT manifest, max(version) FROM budgets GROUP BY manifest")
            if mark is not None:  # what the book knows of these numbers is another story
                c.execute("DELETE FROM heads WHERE number >= ?", (mark.number,))
                c.execute("INSERT INTO heads VALUES (?, ?)", mark.place)
                if place.number > mark.number:
                    c.execute("INSERT INTO heads VALUES (?, ?)", onward(Place(place.number, mark.head), place.head.encode()))
            changed(c, "confirmed", at)
            c.execute("DELETE FROM put_back")
        return found

    @staticmethod
    def _after(c: sqlite3.Connection) -> int:
        """Later than any confirmation that this book knows: an owner who knows of that one does not know of the next."""
        row = c.execute("SELECT at FROM over WHERE manifest = ''").fetchone()
        return integer(row[0]) + 1 if row else 0


_CLOCK = (
    "Set the clock, and confirm then. If it is right and was wrong before: begin with a new book and another broker key."
)


def restore(file: Path, to: Path) -> None:
    """Put a backup in the place of a broker's book. Until the owner confirms, nothing is given out of it.

    Args:
        file: written by :meth:`Marks.backup`, or a copy of a book.
        to: the book's file; no broker may be at work on it.

    Raises:
        NotFound: it cannot be read, or is no book.
    """
    partial = to.with_name(f".{to.name}.restored")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        source = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        try:
            target = sqlite3.connect(partial, isolation_level=None)
            try:
                source.backup(target)
                target.execute("SELECT count(*) FROM runs").fetchone()  # a book, of whatever version
                target.execute("PRAGMA journal_mode=DELETE")  # one file
                target.executescript(SCHEMA)
                target.execute("INSERT OR IGNORE INTO put_back VALUES (1)")
            finally:
                target.close()
        finally:
            source.close()
        for beside in ("-wal", "-shm"):  # of the book that was here: they would be played back into this one
            to.with_name(to.name + beside).unlink(missing_ok=True)
        durable(partial)
        partial.replace(to)
        durable(to.parent)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise NotFound(
            f"{file} cannot be put back: {error.__class__.__name__}", hint="It is no backup of a book."
        ) from error
