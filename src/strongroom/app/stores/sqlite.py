"""One way to open SQLite: durable, one writer at a time, safe between processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom.errors import NotFound, StrongroomError

IDLE = 8  # connections that wait for the next caller; more than that are closed when they come back


class Database:
    """A SQLite file and a few connections to it, each in one caller's hands at a time.

    They are lent and taken back, and not kept by thread: a server's threads come and go, and would leave theirs open.

    Args:
        path: the file; its folder must exist. It is made with mode 0600.
        schema: ``CREATE TABLE IF NOT EXISTS`` statements.

    Raises:
        NotFound: the file cannot be opened as a database; from every method, when it was replaced since.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._free: list[sqlite3.Connection] = []
        self._closed = False
        self._file: tuple[int, int] | None = None  # which one it is: connections are opened by its name
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # threads of one process queue: SQLite itself has them look again and again
        try:
            path.touch(mode=0o600, exist_ok=True)
            with self._lent() as connection:
                connection.executescript(schema)
                found = path.stat()
                self._file = found.st_dev, found.st_ino
        except (OSError, sqlite3.DatabaseError) as error:
            self.close()
            raise NotFound(
                f"{path} cannot be opened as a database", hint="Restore it from a backup, or move it away."
            ) from error

    def _connect(self) -> sqlite3.Connection:
        found = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            found.execute("PRAGMA journal_mode=WAL")
            # a committed run count survives a power cut
            found.execute("PRAGMA synchronous=FULL")
            found.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error:
            found.close()
            raise
        return found

    @contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        """A connection for the length of a block: the one that came back last, or a new one."""
        with self._lock:
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = self._connect()
        try:
            self._require_same()
            yield connection
        finally:
            with self._lock:
                kept = not self._closed and len(self._free) < IDLE
                if kept:
                    self._free.append(connection)
            if not kept:
                connection.close()

    def _require_same(self) -> None:
        """Raises NotFound: another file was put in the place of the one that was opened, and half of the connections would
        go on with each."""
        if self._file is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._file:
            raise NotFound(
                f"{self._path} is not the file that was opened: it was replaced under who is at work on it",
                hint="Stop what uses it, and start it again.",
            )

    @contextmanager
    def write(self, *, with_the_next: bool = False) -> Iterator[sqlite3.Connection]:
        """An exclusive transaction: commits at the end, rolls back on an exception.

        Args:
            with_the_next: it need not survive a power cut by itself. It is in the log before every later transaction, so
                that the next one that is kept keeps it too; a crash of the process alone loses nothing.
        """
        with self._writing, self._lent() as connection, _synchronous(connection, "NORMAL" if with_the_next else "FULL"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite has rolled back by itself where, for one, the disk is full
                    connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._lent() as connection:
            return connection.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> tuple[object, ...] | None:
        found = self.rows(query, *values)
        return found[0] if found else None

    def copy(self, out: Path) -> None:
        """Write what is committed now into another file. Raises sqlite3.Error."""
        target = sqlite3.connect(out)
        try:
            with self._lent() as connection:
                connection.backup(target)
        finally:
            target.close()

    def close(self) -> None:
        """Close what is here now, and what is lent out when it comes back."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()


@contextmanager
def _synchronous(connection: sqlite3.Connection, level: str) -> Iterator[None]:
    if level == "FULL":
        yield
        return
    connection.execute(f"PRAGMA synchronous={level}")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")


def text(value: object) -> str:
    """A column that the schema declares as text."""
    if not isinstance(value, str):
        raise StrongroomError("a database column is not text", hint="The database was edited; restore it from a backup.")
    return value


def blob(value: object) -> bytes:
    """A column that the schema declares as bytes."""
    if not isinstance(value, bytes):
        raise StrongroomError("a database column is not bytes", hint="The database was edited; restore it from a backup.")
    return value


def integer(value: object) -> int:
    """A column that the schema declares as an integer."""
    if not isinstance(value, int):
        raise StrongroomError(
            "a database column is not an integer", hint="The database was edited; restore it from a backup."
        )
    return value
