"""What was carried out of this site and taken in: numbers and digests. **Losing it loses no secret**, but the order.

A site that lost its record takes in whatever comes next, and has to be told from which number it goes on counting.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from strongroom.carry import Carriage
from strongroom.errors import BadField, CarriedAgain, Conflict

from .sqlite import Database, integer, text

MAX_HEADS = 64  # sizes of a log's heads that are remembered of each site

_SCHEMA = """
CREATE TABLE IF NOT EXISTS out (site TEXT, number INTEGER, follows INTEGER NOT NULL, digest TEXT, at INTEGER NOT NULL,
    PRIMARY KEY (site, number)) STRICT;
CREATE TABLE IF NOT EXISTS taken (site TEXT, number INTEGER, digest TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (site, number)) STRICT;
CREATE TABLE IF NOT EXISTS items (site TEXT, kind TEXT, mark TEXT, number INTEGER NOT NULL, PRIMARY KEY (site, kind, mark))
STRICT;
CREATE TABLE IF NOT EXISTS heads (site TEXT, origin TEXT, size INTEGER, PRIMARY KEY (site, origin, size)) STRICT;
"""

Mark = tuple[str, str]
"""An item's kind, and what it is the same by."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A number that was allotted to a bundle to be written, and the one that it follows."""

    number: int
    follows: int


@dataclass(frozen=True, slots=True)
class Crossed:
    """A line of the record.

    Attributes:
        way: ``in`` or ``out``.
        site: the other one.
        number, digest, at: of the bundle; no digest where it was begun and never finished.
    """

    way: str
    site: str
    number: int
    digest: str | None
    at: int


class CarryRecord:
    """The record of one site.

    Args:
        path: the file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        self._db.close()

    # --- out ---

    def give_up(self, site: str, lost: int) -> None:
        """Note that a bundle and all after it never arrived: what was in them is to go again.

        Raises:
            BadField: no bundle of that number was begun.
        """
        with self._db.write() as c:
            found = c.execute("SELECT 1 FROM out WHERE (site, number) = (?, ?)", (site, lost)).fetchone()
            if found is None:
                raise BadField(f"no bundle of number {lost} was carried to {site!r}", hint="See: strongroom carry log")
            c.execute("DELETE FROM items WHERE site = ? AND number >= ?", (site, lost))
            c.execute("UPDATE out SET digest = NULL WHERE site = ? AND number >= ?", (site, lost))

    def begin(self, site: str, at: int, *, above: int = 0) -> Turn:
        """Allot the next number to a bundle to that site. A number is given once, whatever becomes of the bundle.

        Args:
            site: to which it goes.
            at: Unix seconds.
            above: count from above this number, where the record was lost.
        """
        with self._db.write() as c:
            row = c.execute("SELECT coalesce(max(number), 0) FROM out WHERE site = ?", (site,)).fetchone()
            turn = Turn(max(integer(row[0]), above) + 1, self._written(c, site))
            c.execute("INSERT INTO out VALUES (?, ?, ?, NULL, ?)", (site, turn.number, turn.follows, at))
        return turn

    @staticmethod
    def _written(c: sqlite3.Connection, site: str) -> int:
        query = "SELECT coalesce(max(number), 0) FROM out WHERE site = ? AND digest IS NOT NULL"
        return integer(c.execute(query, (site,)).fetchone()[0])

    def carried(self, site: str) -> frozenset[Mark]:
        """What that site has: what was carried there, and what came from there."""
        rows = self._db.rows("SELECT kind, mark FROM items WHERE site = ?", site)
        return frozenset((text(kind), text(mark)) for kind, mark in rows)

    def heads(self, site: str, origin: str) -> tuple[int, ...]:
        """Sizes of a log's heads that were carried to that site, the newest 64, in order."""
        rows = self._db.rows(
            "SELECT size FROM heads WHERE (site, origin) = (?, ?) ORDER BY size DESC LIMIT ?", site, origin, MAX_HEADS
        )
        return tuple(sorted(integer(size) for (size,) in rows))

    def wrote(self, carriage: Carriage, marks: Iterable[Mark], heads: Mapping[str, int]) -> None:
        """Note that a bundle was written, and what is in it.

        Raises:
            Conflict: another one was written to that site meanwhile; the file is to be thrown away.
        """
        site = carriage.recipient.site
        with self._db.write() as c:
            if self._written(c, site) != carriage.follows:
                raise Conflict(f"another bundle was written to {site!r} meanwhile", hint="Carry out again.")
            row = (carriage.digest, site, carriage.number)
            c.execute("UPDATE out SET digest = ? WHERE (site, number) = (?, ?)", row)
            said = [(site, kind, mark, carriage.number) for kind, mark in marks]
            c.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?)", said)
            c.executemany("INSERT OR IGNORE INTO heads VALUES (?, ?, ?)", [(site, o, s) for o, s in heads.items()])

    # --- in ---

    def taken(self, site: str) -> dict[int, str]:
        """Number and digest of what was taken in from that site."""
        rows = self._db.rows("SELECT number, digest FROM taken WHERE site = ?", site)
        return {integer(number): text(digest) for number, digest in rows}

    def take(self, carriage: Carriage, marks: Iterable[Mark], at: int) -> None:
        """Note that a bundle was taken in, once all of it was handed on.

        Raises:
            CarriedAgain: it, or a later one, was taken in meanwhile.
        """
        site, number = carriage.sender.site, carriage.number
        with self._db.write() as c:
            row = c.execute("SELECT coalesce(max(number), 0) FROM taken WHERE site = ?", (site,)).fetchone()
            if integer(row[0]) >= number:
                raise CarriedAgain(f"number {number} from {site!r}, or a later one, was taken in meanwhile")
            c.execute("INSERT INTO taken VALUES (?, ?, ?, ?)", (site, number, carriage.digest, at))
            said = [(site, kind, mark) for kind, mark in marks]
            c.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?, 0)", said)

    def crossed(self) -> list[Crossed]:
        """All of the record, oldest first."""
        rows = self._db.rows(
            "SELECT way, site, number, digest, at FROM (SELECT 'out' AS way, site, number, digest, at FROM out"
            " UNION ALL SELECT 'in', site, number, digest, at FROM taken) ORDER BY at, way, site, number"
        )
        return [
            Crossed(text(way), text(site), integer(number), None if digest is None else text(digest), integer(at))
            for way, site, number, digest, at in rows
        ]
