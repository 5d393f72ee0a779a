"""A party's index of proposals in SQLite. **Losing it loses little**: it is made again from the exchange.

What is in it was verified when it came, under the trust file of that time; with another trust file it is made anew. Notices
that were not sent are lost with it, and what was shown to the party has to be shown again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom.wire import Envelope

from .sqlite import Database, blob, integer, text

_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rows (digest TEXT PRIMARY KEY, created_at INTEGER NOT NULL, row BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS notes (digest TEXT PRIMARY KEY, proposal TEXT NOT NULL, seq INTEGER NOT NULL,
    envelope BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS notes_of ON notes (proposal, seq);
CREATE TABLE IF NOT EXISTS shown (proposal TEXT, bundle TEXT, report TEXT, at INTEGER NOT NULL,
    PRIMARY KEY (proposal, bundle, report)) STRICT;
CREATE TABLE IF NOT EXISTS told (event TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, channel TEXT NOT NULL, notice BLOB NOT NULL,
    tries INTEGER NOT NULL, due INTEGER NOT NULL, error TEXT NOT NULL) STRICT;
"""


class Page:
    """The index inside one transaction."""

    def __init__(self, database: Database, connection: object) -> None:
        self._db, self._c = database, connection

    def _run(self, statement: str, *values: object) -> int:
        found: int = self._c.execute(statement, values).rowcount  # type: ignore[attr-defined]
        return found

    def mark(self, name: str, value: str) -> None:
        self._run("INSERT OR REPLACE INTO marks VALUES (?, ?)", name, value)

    def clear(self) -> None:
        """Forget what was indexed, and nothing that this party did or was told."""
        self._run("DELETE FROM rows")
        self._run("DELETE FROM notes")
        self._run("DELETE FROM marks")

    def put(self, digest: str, created_at: int, row: bytes) -> None:
        self._run("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", digest, created_at, row)

    def put_notes(self, proposal: str, notes: Iterable[Envelope]) -> None:
        """What there is about a proposal, in its order."""
        for seq, note in enumerate(notes):
            self._run("INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?)", note.digest, proposal, seq, note.encode())

    def tell(self, event: str) -> bool:
        """Whether nobody was told of it before."""
        return self._run("INSERT OR IGNORE INTO told VALUES (?)", event) == 1

    def post(self, channel: str, notice: bytes, at: int) -> None:
        """A notice for a channel, to be sent from now on."""
        self._run("INSERT INTO outbox (channel, notice, tries, due, error) VALUES (?, ?, 0, ?, '')", channel, notice, at)


class InboxStore:
    """A party's index.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def write(self) -> Iterator[Page]:
        """One transaction: all of it, or nothing."""
        with self._db.write() as connection:
            yield Page(self._db, connection)

    def mark(self, name: str) -> str | None:
        row = self._db.row("SELECT value FROM marks WHERE name = ?", name)
        return text(row[0]) if row else None

    def rows(self) -> list[bytes]:
        """Every row, the newest proposal first."""
        return [blob(r[0]) for r in self._db.rows("SELECT row FROM rows ORDER BY created_at DESC, digest")]

    def row(self, digest: str) -> bytes | None:
        row = self._db.row("SELECT row FROM rows WHERE digest = ?", digest)
        return blob(row[0]) if row else None

    def notes(self, proposal: str) -> list[Envelope]:
        """The notes about a proposal, oldest first."""
        rows = self._db.rows("SELECT envelope FROM notes WHERE proposal = ? ORDER BY seq, rowid", proposal)
        return [Envelope.parse(blob(r[0])) for r in rows]

    # --- what this party was shown ---

    def show(self, proposal: str, bundle: str, report: str, at: int) -> None:
        """Note that a bundle was shown to this party here. ``report``: the digest of its report, ``""`` for none."""
        with self._db.write() as c:
            c.execute("INSERT OR REPLACE INTO shown VALUES (?, ?, ?, ?)", (proposal, bundle, report, at))

    def shown(self, proposal: str, bundle: str) -> str | None:
        """The digest of the report that was shown with it last, ``""`` for none; ``None`` where it was never shown."""
        row = self._db.row(
            "SELECT report FROM shown WHERE proposal = ? AND bundle = ? ORDER BY at DESC, rowid DESC LIMIT 1",
            proposal,
            bundle,
        )
        return text(row[0]) if row else None

    # --- notices to send ---

    def claim(self, at: int, until: int, limit: int = 10) -> list[tuple[int, str, bytes, int]]:
        """Take what is to be sent now, oldest first: until a time it is nobody else's, then due again.

        Returns:
            id, channel, notice and tries.
        """
        with self._db.write() as c:
            rows = c.execute(
                "SELECT id, channel, notice, tries FROM outbox WHERE due <= ? ORDER BY due, id LIMIT ?", (at, limit)
            ).fetchall()
            c.executemany("UPDATE outbox SET due = ? WHERE id = ?", [(until, row[0]) for row in rows])
        return [(integer(i), text(c), blob(n), integer(t)) for i, c, n, t in rows]

    def waiting(self) -> list[tuple[str, int, int, str]]:
        """Channel, tries, time of the next, and what went wrong, of all that was not sent yet."""
        rows = self._db.rows("SELECT channel, tries, due, error FROM outbox ORDER BY id")
        return [(text(c), integer(t), integer(d), text(e)) for c, t, d, e in rows]

    def sent(self, notice: int) -> None:
        with self._db.write() as c:
            c.execute("DELETE FROM outbox WHERE id = ?", (notice,))

    def failed(self, notice: int, *, due: int, error: str) -> None:
        with self._db.write() as c:
            c.execute("UPDATE outbox SET tries = tries + 1, due = ?, error = ? WHERE id = ?", (due, error, notice))

    def forget(self, channel: str) -> None:
        """Send nothing more to a channel."""
        with self._db.write() as c:
            c.execute("DELETE FROM outbox WHERE channel = ?", (channel,))
