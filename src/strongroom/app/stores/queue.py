"""The jobs of a queue in SQLite. **Losing it loses what waits**, and nothing else: what was run, and what it cost, is in the
brokers' books and on the exchange. Who asked asks again.

What is durable here is the parties' signed requests and where each job stands. A job is marked as running before its request
leaves, so that a queue that dies in between asks again: for the same run, which the brokers count once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strongroom.app.queue.order import Ready
from strongroom.errors import Conflict, JobOver, NotFound, QueueFull, StrongroomError
from strongroom.job import Job as ToldJob
from strongroom.job import JobState
from strongroom.wire import Envelope

from .sqlite import Database, blob, integer, text

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (place INTEGER PRIMARY KEY AUTOINCREMENT, contract TEXT NOT NULL, run_id TEXT NOT NULL,
    party TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, at INTEGER NOT NULL, until INTEGER NOT NULL,
    memory INTEGER NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, receipt TEXT NOT NULL,
    tries INTEGER NOT NULL, due INTEGER NOT NULL, turn INTEGER NOT NULL, created_at INTEGER NOT NULL,
    started_at INTEGER, ended_at INTEGER, cancel BLOB, UNIQUE (contract, run_id)) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
CREATE INDEX IF NOT EXISTS jobs_of ON jobs (contract);
CREATE TABLE IF NOT EXISTS parties (key TEXT, contract TEXT, PRIMARY KEY (key, contract)) STRICT;
CREATE TABLE IF NOT EXISTS turns (key TEXT PRIMARY KEY, turn INTEGER NOT NULL) STRICT;
"""
_COLUMNS = (
    "place, contract, run_id, party, key, request, until, memory, state, code, message, receipt, tries, created_at,"
    " started_at, ended_at, cancel"
)
WAITING_OF_ONE = 1000
WAITING_OF_ALL = 10_000
KEPT = 10_000  # jobs that are over
SHOWN = 1000  # jobs in one answer: the newest


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands.

    Attributes:
        place: among all that were ever asked for.
        key: the digest of the signing key of the party that asked.
        request: its signed request.
        until: the last second at which it may begin, Unix.
        code, message: what went wrong last, or ``""``.
        receipt: the receipt's digest, or ``""``.
        tries: how often an enclave was asked and began.
        cancel: a party's word that ends it, or ``None``.
    """

    place: int
    contract: str
    run_id: str
    party: str
    key: str
    request: Envelope
    until: int
    memory_bytes: int
    state: JobState
    code: str
    message: str
    receipt: str
    tries: int
    created_at: int
    started_at: int | None
    ended_at: int | None
    cancel: Envelope | None

    @property
    def ready(self) -> Ready:
        return Ready(self.place, self.key, self.memory_bytes)

    @property
    def told(self) -> ToldJob:
        """What its parties see."""
        return ToldJob(
            run_id=self.run_id,
            contract=self.contract,
            party=self.party,
            state=self.state,
            created_at=self.created_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
            until=self.until,
            code=self.code,
            message=self.message,
            receipt=self.receipt,
            tries=self.tries,
            cancelled=self.cancel is not None,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A verified request that is to wait here.

    Attributes:
        party: the name; ``key``: the digest of its signing key.
        at, until: of the request, Unix seconds.
        among: digests of the signing keys of all parties of the contract: who may see the job.
    """

    contract: str
    run_id: str
    party: str
    key: str
    request: Envelope
    at: int
    until: int
    memory_bytes: int
    among: Collection[str]


def _maybe(value: object) -> int | None:
    return None if value is None else integer(value)


def _job(row: Iterable[object]) -> Job:
    place, contract, run_id, party, key, request, until, memory, state, code, message, receipt, tries, created, *rest = row
    started, ended, cancel = rest
    return Job(
        place=integer(place),
        contract=text(contract),
        run_id=text(run_id),
        party=text(party),
        key=text(key),
        request=Envelope.parse(blob(request)),
        until=integer(until),
        memory_bytes=integer(memory),
        state=JobState(text(state)),
        code=text(code),
        message=text(message),
        receipt=text(receipt),
        tries=integer(tries),
        created_at=integer(created),
        started_at=_maybe(started),
        ended_at=_maybe(ended),
        cancel=None if cancel is None else Envelope.parse(blob(cancel)),
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one that keeps the queue in a folder. Raises Conflict."""
    descriptor = os.open(folder / "queue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another process keeps the queue in {folder}", hint="Stop it first.") from error
        yield
    finally:
        os.close(descriptor)


class QueueStore:
    """A queue's jobs in one SQLite file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def close(self) -> None:
        self._db.close()

    def add(self, asked: Asked, at: int) -> Job:
        """Have a job wait. Of one that is over, and of which a newer request comes, the next try; the same again changes
        nothing.

        Raises:
            QueueFull: too many wait. Conflict: it is another party's. JobOver: it has its receipt, or was cancelled.
        """
        with self._db.write() as c:
            row = c.execute(
                f"SELECT {_COLUMNS}, at FROM jobs WHERE contract = ? AND run_id = ?",  # noqa: S608 - a constant
                (asked.contract, asked.run_id),
            ).fetchone()
            if row is not None:
                found, before = _job(row[:-1]), integer(row[-1])
                if found.key != asked.key:
                    raise Conflict("another party asked for this run", hint="Ask for one of your own.")
                if not found.state.over or asked.at <= before:
                    return found
                if found.receipt or found.cancel:
                    raise JobOver(f"the job is {found.state.value}")
            for where, values, most in (
                ("state = 'waiting'", (), WAITING_OF_ALL),
                ("state = 'waiting' AND key = ?", (asked.key,), WAITING_OF_ONE),
            ):
                waiting = integer(c.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()[0])  # noqa: S608
                if waiting >= most:
                    raise QueueFull(f"{waiting:,} jobs wait here already")
            c.execute(
                "INSERT INTO jobs (contract, run_id, party, key, request, at, until, memory, state, code, message, receipt,"
                " tries, due, turn, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', '', '', '', 0, 0, 0, ?)"
                " ON CONFLICT (contract, run_id) DO UPDATE SET request = excluded.request, at = excluded.at,"
                " until = excluded.until, state = 'waiting', code = '', message = '', tries = min(tries, 1), due = 0,"
                " ended_at = NULL",
                (
                    *(asked.contract, asked.run_id, asked.party, asked.key, asked.request.encode(), asked.at, asked.until),
                    *(asked.memory_bytes, at),
                ),
            )
            c.executemany(
                "INSERT OR IGNORE INTO parties VALUES (?, ?)", [(key, asked.contract) for key in sorted(asked.among)]
            )
            c.execute(
                "DELETE FROM jobs WHERE state NOT IN ('waiting', 'running') AND place <= (SELECT place FROM jobs"
                " WHERE state NOT IN ('waiting', 'running') ORDER BY place DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )
        return self.get(asked.contract, asked.run_id)

    def get(self, contract: str, run_id: str) -> Job:
        """Raises NotFound."""
        found = self._db.row(f"SELECT {_COLUMNS} FROM jobs WHERE contract = ? AND run_id = ?", contract, run_id)  # noqa: S608
        if found is None:
            raise NotFound("there is no such job here", hint="strongroom jobs lists yours.")
        return _job(found)

    def seen_by(self, key: str) -> list[Job]:
        """The jobs of the contracts that a signing key is a party's of, newest first."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM jobs WHERE contract IN (SELECT contract FROM parties WHERE key = ?)"  # noqa: S608
            " ORDER BY place DESC LIMIT ?",
            key,
            SHOWN,
        )
        return [_job(row) for row in rows]

    def of(self, state: JobState) -> list[Job]:
        """Every job in a state, oldest first."""
        return [
            _job(row)
            for row in self._db.rows(f"SELECT {_COLUMNS} FROM jobs WHERE state = ? ORDER BY place", state.value)  # noqa: S608
        ]

    def recover(self) -> int:
        """A queue begins: what was running when the last one ended waits again, for the same run; how many jobs."""
        with self._db.write() as c:
            return c.execute("UPDATE jobs SET state = 'waiting', due = 0 WHERE state = 'running'").rowcount

    def expire(self, at: int) -> None:
        """End what can begin no more."""
        with self._db.write() as c:
            c.execute(
                "UPDATE jobs SET state = 'expired', code = 'job.expired', message = 'its turn did not come in time',"
                " ended_at = ? WHERE state = 'waiting' AND until < ?",
                (at, at),
            )

    def claim(self, at: int, choose: Callable[[list[Ready], list[Ready], dict[str, int]], Ready | None]) -> Job | None:
        """Mark the next job as running, and count its party's turn; durable when it returns.

        Args:
            at: now, Unix seconds.
            choose: of what could begin, what goes on, and each party's last turn.
        """
        with self._db.write() as c:
            waiting = c.execute("SELECT place, key, memory FROM jobs WHERE state = 'waiting' AND due <= ?", (at,))
            ready = [Ready(integer(p), text(k), integer(m)) for p, k, m in waiting]
            rows = c.execute("SELECT place, key, memory FROM jobs WHERE state = 'running'")
            running = [Ready(integer(p), text(k), integer(m)) for p, k, m in rows]
            turns = {text(k): integer(t) for k, t in c.execute("SELECT key, turn FROM turns")}
            found = choose(ready, running, turns)
            if found is None:
                return None
            turn = max(turns.values(), default=0) + 1
            c.execute("INSERT OR REPLACE INTO turns VALUES (?, ?)", (found.party, turn))
            c.execute(
                "UPDATE jobs SET state = 'running', turn = ?, started_at = ?, tries = tries + 1 WHERE place = ?",
                (turn, at, found.place),
            )
            return _job(c.execute(f"SELECT {_COLUMNS} FROM jobs WHERE place = ?", (found.place,)).fetchone())  # noqa: S608

    def again(self, job: Job, *, due: int, error: StrongroomError, began: bool) -> None:
        """Have it wait again, for the same run. ``began``: an enclave had begun it, so that it counts as a try."""
        with self._db.write() as c:
            c.execute(
                "UPDATE jobs SET state = 'waiting', due = ?, code = ?, message = ?, tries = tries - ? WHERE place = ?"
                " AND state = 'running'",
                (due, error.code, error.message[:500], 0 if began else 1, job.place),
            )

    def end(self, job: Job, state: JobState, at: int, *, code: str = "", message: str = "", receipt: str = "") -> None:
        with self._db.write() as c:
            c.execute(
                "UPDATE jobs SET state = ?, code = ?, message = ?, receipt = ?, ended_at = ? WHERE place = ?",
                (state.value, code, message[:500], receipt, at, job.place),
            )

    def cancel(self, contract: str, run_id: str, envelope: Envelope, at: int) -> Job:
        """Keep a party's word, and end what waits. What runs is ended by who runs it.

        Raises:
            NotFound. JobOver: it is over already.
        """
        with self._db.write() as c:
            where = (contract, run_id)
            row = c.execute("SELECT state FROM jobs WHERE contract = ? AND run_id = ?", where).fetchone()
            if row is not None and JobState(text(row[0])).over and row[0] not in ("failed", "lost", "expired"):
                raise JobOver(f"the job is {row[0]}")
            c.execute(
                "UPDATE jobs SET cancel = coalesce(cancel, ?) WHERE contract = ? AND run_id = ?", (envelope.encode(), *where)
            )
            c.execute(
                "UPDATE jobs SET state = 'cancelled', code = 'job.cancelled', message = 'cancelled before its turn came',"
                " ended_at = ? WHERE contract = ? AND run_id = ? AND state = 'waiting'",
                (at, *where),
            )
        return self.get(contract, run_id)
