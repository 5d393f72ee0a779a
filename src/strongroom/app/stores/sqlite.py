"""One way to open SQLite: durable, one writer at a time, safe between processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom.errors import NotFound, StrongroomError


class Database:
    """A SQLite file, opened once per thread.

    Args:
        path: the file; its folder must exist. It is made with mode 0600.
        schema: ``CREATE TABLE IF NOT EXISTS`` statements.

    Raises:
        NotFound: the file cannot be opened as a database.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600, exist_ok=True)
            self._connection().executescript(schema)
        except (OSError, sqlite3.DatabaseError) as error:
            raise NotFound(
                f"{path} cannot be opened as a database", hint="Restore it from a backup, or move it away."
            ) from error

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            found.execute("PRAGMA journal_mode=WAL")
            # a committed run count survives a power cut
            found.execute("PRAGMA synchronous=FULL")
            found.execute("PRAGMA foreign_keys=ON")
            self._local.connection = found
            with self._lock:
                self._open.append(found)
        return found

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """An exclusive transaction: commits at the end, rolls back on an exception."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite has rolled back by itself where, for one, the disk is full
                connection.execute("ROLLBACK")
            raise

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        return self._connection().execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> tuple[object, ...] | None:
        found: tuple[object, ...] | None = self._connection().execute(query, values).fetchone()
        return found

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
        self._local = threading.local()


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
