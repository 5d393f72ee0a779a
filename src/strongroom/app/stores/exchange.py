"""An exchange's state: SQLite and a folder of sealed files. **Losing it loses no secret**: there is none in it.

What is lost can be posted again by those who made it, except for the log: a log that forgets is noticed by every client that
remembers a checkpoint.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from strongroom import wire
from strongroom.airlock import Box, Verdict
from strongroom.contract import Proposal
from strongroom.delivery import Delivery
from strongroom.errors import BadField, Conflict, LimitReached, NoSpace, NotFound, NotLogged
from strongroom.ledger import Checkpoint, ConsistencyProof, Entry, LoggedProof, LogKey, Tree
from strongroom.mark import Mark, follows
from strongroom.receipt import Bundle, Statement
from strongroom.review import MAX_NOTES, Note
from strongroom.threshold import Enrolment
from strongroom.wire import Envelope, Signature

from .sqlite import Database, blob, integer, text

RESERVE = 1 << 30  # bytes left free on the disk for what costs little and matters: approvals, withdrawals, receipts, the log
MAX_COUNTERS = 100  # counter-proposals to one proposal
MAX_RECEIPTS = 10_000  # of one contract, shown at a time
MAX_BATCHED = 2_000_000  # receipts of requests that are logged under one contract in a day
DAY = 86_400
KINDS = ("sealed", "mock", "output", "code", "trial")  # of files, each in a folder of its own

_SCHEMA = """
CREATE TABLE IF NOT EXISTS manifests (seq INTEGER PRIMARY KEY, digest TEXT NOT NULL, keyid TEXT NOT NULL,
    envelope BLOB NOT NULL, UNIQUE (digest, keyid)) STRICT;
CREATE INDEX IF NOT EXISTS manifests_by ON manifests (keyid, seq);
CREATE TABLE IF NOT EXISTS enrolments (manifest TEXT, keyid TEXT, epoch INTEGER, envelope BLOB NOT NULL,
    PRIMARY KEY (manifest, keyid, epoch)) STRICT;
CREATE TABLE IF NOT EXISTS marks (keyid TEXT PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS proposals (seq INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, payload BLOB NOT NULL,
    proposer TEXT NOT NULL, supersedes TEXT, at INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS proposals_by ON proposals (proposer, seq);
CREATE INDEX IF NOT EXISTS counters ON proposals (supersedes);
CREATE TABLE IF NOT EXISTS parties (proposal TEXT, keyid TEXT, PRIMARY KEY (proposal, keyid)) STRICT;
CREATE TABLE IF NOT EXISTS approvals (proposal TEXT, keyid TEXT, sig BLOB NOT NULL, PRIMARY KEY (proposal, keyid)) STRICT;
CREATE TABLE IF NOT EXISTS withdrawals (proposal TEXT, party TEXT, envelope BLOB NOT NULL, PRIMARY KEY (proposal, party))
STRICT;
CREATE TABLE IF NOT EXISTS deliveries (contract TEXT, run_id TEXT, output TEXT, document BLOB NOT NULL,
    PRIMARY KEY (contract, run_id, output)) STRICT;
CREATE TABLE IF NOT EXISTS receipts (digest TEXT PRIMARY KEY, contract TEXT NOT NULL, run_id TEXT NOT NULL,
    bundle BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS receipts_of ON receipts (contract);
CREATE TABLE IF NOT EXISTS outputs (contract TEXT, run_id TEXT, output TEXT, sealed TEXT, manifest TEXT,
    PRIMARY KEY (contract, run_id, output, sealed, manifest)) STRICT;
CREATE TABLE IF NOT EXISTS named_boxes (box TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS boxes (box TEXT PRIMARY KEY, contract TEXT NOT NULL, document BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS boxes_of ON boxes (contract);
CREATE TABLE IF NOT EXISTS verdicts (box TEXT, reviewer TEXT, envelope BLOB NOT NULL, PRIMARY KEY (box, reviewer)) STRICT;
CREATE TABLE IF NOT EXISTS leaves (idx INTEGER PRIMARY KEY, entry BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS batched (contract TEXT, day INTEGER, entries INTEGER NOT NULL, PRIMARY KEY (contract, day))
STRICT;
CREATE TABLE IF NOT EXISTS notes (seq INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, proposal TEXT NOT NULL,
    party TEXT NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS notes_of ON notes (proposal, party);
CREATE TABLE IF NOT EXISTS changes (proposal TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS nodes (level INTEGER, idx INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) STRICT;
"""


class _Nodes:
    """The log's hashes inside one connection (``ledger.Nodes``)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._c = connection

    def get(self, level: int, index: int) -> bytes:
        row = self._c.execute("SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)).fetchone()
        if row is None:
            raise NotFound(f"the log has lost node {level}/{index}", hint="Restore the exchange from a backup.")
        return blob(row[0])

    def put(self, level: int, index: int, node: bytes) -> None:
        self._c.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", (level, index, node))


def _among(keyids: Sequence[str]) -> str:
    """Placeholders for so many values."""
    return ",".join("?" * len(keyids))


class ExchangeStore:
    """Everything an exchange keeps.

    Args:
        folder: made when it is not there.
        key: the log's key.
        reserve: bytes that uploads leave free on the disk.
        batched: how many receipts of requests are logged under one contract in a day of UTC.
    """

    def __init__(self, folder: Path, key: LogKey, *, reserve: int = RESERVE, batched: int = MAX_BATCHED) -> None:
        self.folder, self.key, self._reserve, self._batched = folder, key, reserve, batched
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        self._db = Database(folder / "exchange.db", _SCHEMA)
        with self._db.write() as c:  # what was here before anybody counted changes
            rows = c.execute(
                "SELECT digest FROM proposals WHERE digest NOT IN (SELECT proposal FROM changes) ORDER BY seq"
            ).fetchall()
            for row in rows:
                self._changed(c, text(row[0]))

    def close(self) -> None:
        self._db.close()

    # --- files ---

    def require_space(self, size: int) -> None:
        """Refuse what would fill the disk. Raises NoSpace. ``size``: bytes still to come."""
        if shutil.disk_usage(self.folder).free - size < self._reserve:
            raise NoSpace(f"{size} bytes more would leave too little of the exchange's disk")

    def sweep(self) -> None:
        """Remove what a killed exchange left of uploads. Only before anything is served from this folder."""
        for kind in KINDS:
            for partial in (self.folder / kind).glob("*.partial"):
                partial.unlink()

    def file(self, kind: str, digest: str) -> Path:
        """Where a file lies. Raises NotFound."""
        path = self.folder / kind / digest.removeprefix("sha256:")
        if not path.is_file():
            raise NotFound(f"no {kind} file {digest} here")
        return path

    @contextmanager
    def incoming(self, kind: str, digest: str) -> Iterator[tuple[IO[bytes], Path]]:
        """A temporary file that takes its name when the block ends well, and disappears otherwise."""
        final = self.folder / kind / digest.removeprefix("sha256:")
        if final.exists():
            raise Conflict(f"{kind} {digest} is already here", hint="Nothing to do: files are never replaced.")
        partial = final.with_name(f"{final.name}.{secrets.token_hex(8)}.partial")
        try:
            with partial.open("xb") as sink:
                yield sink, partial
                sink.flush()
                os.fsync(sink.fileno())
            partial.rename(final)
        finally:
            partial.unlink(missing_ok=True)

    def put_code(self, digest: str, data: bytes) -> None:
        """Keep a bundle of submitted code, which whoever knows its digest can read; the same twice is kept once."""
        with suppress(Conflict), self.incoming("code", digest) as (sink, _):
            sink.write(data)

    def put_trial(self, digest: str, data: bytes) -> None:
        """Keep what somebody says that their code did on mocks, as code is kept."""
        with suppress(Conflict), self.incoming("trial", digest) as (sink, _):
            sink.write(data)

    # --- documents ---

    def put_manifest(self, envelope: Envelope, keyid: str) -> None:
        """Keep a manifest under the key that was seen to have signed it: nobody takes another's place."""
        with self._db.write() as c:
            row = (envelope.digest, keyid, envelope.encode())
            c.execute("INSERT OR IGNORE INTO manifests (digest, keyid, envelope) VALUES (?, ?, ?)", row)

    def manifest(self, digest: str, by: str | None = None) -> Envelope:
        """A manifest as the key ``by`` signed it; as anybody did where it does not matter. Raises NotFound."""
        row = self._db.row(
            "SELECT envelope FROM manifests WHERE digest = ? AND keyid = coalesce(?, keyid) ORDER BY seq LIMIT 1", digest, by
        )
        if row is None:
            raise NotFound(f"no manifest {digest} here" + (f" that {by} signed" if by else ""))
        return Envelope.parse(blob(row[0]))

    def put_enrolment(self, enrolment: Enrolment, envelope: Envelope, keyid: str) -> None:
        """Keep who holds an asset's shares, under the key that was seen to have signed it. Raises Conflict."""
        with self._db.write() as c:
            row = (enrolment.manifest, keyid, enrolment.epoch, envelope.encode())
            if c.execute("INSERT OR IGNORE INTO enrolments VALUES (?, ?, ?, ?)", row).rowcount == 1:
                return
            where = "SELECT envelope FROM enrolments WHERE (manifest, keyid, epoch) = (?, ?, ?)"
            if Envelope.parse(blob(c.execute(where, row[:3]).fetchone()[0])).digest != envelope.digest:
                raise Conflict(f"another enrolment of epoch {enrolment.epoch} is here")

    def enrolment(self, manifest: str, by: str) -> Envelope:
        """The newest enrolment of an asset that this key signed. Raises NotFound."""
        row = self._db.row(
            "SELECT envelope FROM enrolments WHERE (manifest, keyid) = (?, ?) ORDER BY epoch DESC LIMIT 1", manifest, by
        )
        if row is None:
            raise NotFound(f"no enrolment of {manifest} here that {by} signed")
        return Envelope.parse(blob(row[0]))

    def put_mark(self, mark: Mark, envelope: Envelope) -> None:
        """Keep how far a broker's book has come. Raises Conflict: it does not follow what is here."""
        with self._db.write() as c:
            row = c.execute("SELECT envelope FROM marks WHERE keyid = ?", (mark.broker.keyid,)).fetchone()
            if not follows(mark, Mark.peek(Envelope.parse(blob(row[0]))) if row else None):
                raise Conflict("another mark of this broker is here", hint="Look at it, and at the book, and mark again.")
            c.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (mark.broker.keyid, envelope.encode()))

    def mark(self, keyid: str) -> Envelope | None:
        """The newest mark of the broker whose key has this id."""
        row = self._db.row("SELECT envelope FROM marks WHERE keyid = ?", keyid)
        return Envelope.parse(blob(row[0])) if row else None

    def manifests(self) -> list[Envelope]:
        """All of them, for the operator."""
        return [Envelope.parse(blob(r[0])) for r in self._db.rows("SELECT envelope FROM manifests ORDER BY seq")]

    def manifests_by(self, keyids: Sequence[str], after: int, limit: int) -> list[tuple[int, tuple[str, str]]]:
        """Place, and digest and signer, of manifests that these keys signed, oldest first."""
        rows = self._db.rows(
            f"SELECT seq, digest, keyid FROM manifests WHERE keyid IN ({_among(keyids)}) AND seq > ?"  # noqa: S608 - "?,?"
            " ORDER BY seq LIMIT ?",
            *keyids,
            after,
            limit,
        )
        return [(integer(n), (text(d), text(k))) for n, d, k in rows]

    def put_proposal(self, proposal: Proposal, signature: Signature, at: int) -> None:
        """Keep and log a proposal with its proposer's signature.

        Raises:
            Conflict: it is one counter-proposal too many.
        """
        digest = proposal.digest
        with self._db.write() as c:
            if c.execute("SELECT 1 FROM proposals WHERE digest = ?", (digest,)).fetchone() is None:
                if proposal.supersedes is not None:
                    rows = c.execute("SELECT count(*) FROM proposals WHERE supersedes = ?", (proposal.supersedes,))
                    if integer(rows.fetchone()[0]) >= MAX_COUNTERS:
                        raise Conflict(f"{MAX_COUNTERS} proposals counter that one", hint="Propose afresh.")
                c.execute(
                    "INSERT INTO proposals (digest, payload, proposer, supersedes, at) VALUES (?, ?, ?, ?, ?)",
                    (digest, proposal.encode(), signature.keyid, proposal.supersedes, at),
                )
                keyids = {p.signing_key.keyid for p in proposal.parties}
                c.executemany("INSERT INTO parties VALUES (?, ?)", [(digest, k) for k in sorted(keyids)])
                self._changed(c, digest)
                if proposal.supersedes is not None:
                    self._changed(c, proposal.supersedes)
            self._log(c, Entry("proposal", digest, digest))
            self._approve(c, digest, signature)

    def put_approval(self, proposal: str, signature: Signature) -> None:
        with self._db.write() as c:
            self._approve(c, proposal, signature)

    def _approve(self, c: sqlite3.Connection, proposal: str, signature: Signature) -> None:
        """Keep a signature and log it: one a key, so that nobody swells the log with many of the same."""
        row = (proposal, signature.keyid, signature.sig)
        if c.execute("INSERT OR IGNORE INTO approvals VALUES (?, ?, ?)", row).rowcount:
            digest = wire.digest(wire.encode({"keyid": signature.keyid, "sig": wire.b64(signature.sig)}))
            self._log(c, Entry("approval", proposal, digest))
            self._changed(c, proposal)

    def put_withdrawal(self, proposal: str, party: str, envelope: Envelope) -> None:
        with self._db.write() as c:
            row = (proposal, party, envelope.encode())
            if c.execute("INSERT OR IGNORE INTO withdrawals VALUES (?, ?, ?)", row).rowcount:  # as for approvals
                self._log(c, Entry("withdrawal", proposal, envelope.digest))
                self._changed(c, proposal)

    def proposal(self, digest: str) -> Envelope:
        """The proposal with the signatures so far. Raises NotFound."""
        row = self._db.row("SELECT payload FROM proposals WHERE digest = ?", digest)
        if row is None:
            raise NotFound(f"no proposal {digest} here")
        found = self._db.rows("SELECT keyid, sig FROM approvals WHERE proposal = ? ORDER BY keyid", digest)
        return Envelope(wire.media_type("proposal"), blob(row[0]), tuple(Signature(text(k), blob(s)) for k, s in found))

    def proposals(self) -> list[str]:
        """Digests of all, oldest first, for the operator."""
        return [text(r[0]) for r in self._db.rows("SELECT digest FROM proposals ORDER BY seq")]

    def proposals_among(self, keyids: Sequence[str], after: int, limit: int) -> list[tuple[int, str]]:
        """Place and digest of proposals among nobody but the holders of these keys, oldest first.

        One of them proposed it, by a signature that was verified, so that what strangers propose is never looked at.
        """
        rows = self._db.rows(
            f"SELECT seq, digest FROM proposals WHERE proposer IN ({_among(keyids)}) AND seq > ?"  # noqa: S608 - "?,?"
            " AND NOT EXISTS (SELECT 1 FROM parties WHERE parties.proposal = proposals.digest"
            f" AND parties.keyid NOT IN ({_among(keyids)}))"
            " ORDER BY seq LIMIT ?",
            *keyids,
            after,
            *keyids,
            limit,
        )
        return [(integer(n), text(d)) for n, d in rows]

    def _changed(self, c: sqlite3.Connection, proposal: str) -> None:
        """Note that there is something new to say of a proposal: it moves to the end of the changes."""
        c.execute(
            "INSERT OR REPLACE INTO changes SELECT ?, coalesce(max(seq), 0) + 1 FROM changes",
            (proposal,),
        )

    def changes_among(self, keyids: Sequence[str], after: int, limit: int) -> list[tuple[int, tuple[int, str]]]:
        """As :meth:`proposals_among`, by their last change: its place twice over, and the digest."""
        rows = self._db.rows(
            "SELECT changes.seq, digest FROM changes JOIN proposals ON digest = proposal"  # noqa: S608 - "?,?"
            f" WHERE changes.seq > ? AND proposer IN ({_among(keyids)})"
            " AND NOT EXISTS (SELECT 1 FROM parties WHERE parties.proposal = proposals.digest"
            f" AND parties.keyid NOT IN ({_among(keyids)}))"
            " ORDER BY changes.seq LIMIT ?",
            after,
            *keyids,
            *keyids,
            limit,
        )
        return [(integer(n), (integer(n), text(d))) for n, d in rows]

    def put_note(self, note: Note, envelope: Envelope) -> None:
        """Keep and log a note whose signature was verified. Raises LimitReached: the party has said enough about it."""
        with self._db.write() as c:
            if c.execute("SELECT 1 FROM notes WHERE digest = ?", (envelope.digest,)).fetchone() is not None:
                return
            place = (note.proposal, note.party)
            rows = c.execute("SELECT count(*) FROM notes WHERE proposal = ? AND party = ?", place).fetchone()
            if integer(rows[0]) >= MAX_NOTES:
                raise LimitReached(
                    f"at most {MAX_NOTES} notes of a party about a proposal are kept",
                    retry_after=DAY,
                    hint="Decide, or talk to the other parties elsewhere.",
                )
            c.execute(
                "INSERT INTO notes (digest, proposal, party, envelope) VALUES (?, ?, ?, ?)",
                (envelope.digest, *place, envelope.encode()),
            )
            self._log(c, Entry("review", note.proposal, envelope.digest))
            self._changed(c, note.proposal)

    def notes(self, proposal: str, after: int, limit: int) -> list[tuple[int, Envelope]]:
        """Place and envelope of the notes about a proposal, oldest first."""
        rows = self._db.rows(
            "SELECT seq, envelope FROM notes WHERE proposal = ? AND seq > ? ORDER BY seq LIMIT ?", proposal, after, limit
        )
        return [(integer(n), Envelope.parse(blob(e))) for n, e in rows]

    def count_notes(self, proposal: str) -> int:
        row = self._db.row("SELECT count(*) FROM notes WHERE proposal = ?", proposal)
        return integer(row[0]) if row else 0

    def counters(self, digest: str) -> list[str]:
        rows = self._db.rows("SELECT digest FROM proposals WHERE supersedes = ? ORDER BY seq LIMIT ?", digest, MAX_COUNTERS)
        return [text(r[0]) for r in rows]

    def withdrawals(self, digest: str) -> list[Envelope]:
        rows = self._db.rows("SELECT envelope FROM withdrawals WHERE proposal = ? ORDER BY party", digest)
        return [Envelope.parse(blob(r[0])) for r in rows]

    def put_delivery(self, delivery: Delivery) -> None:
        """Keep the delivery of an output that a logged receipt names; the first one stays.

        Nobody but the enclave knows the output's manifest before the delivery is here, so that nobody comes first.

        Raises:
            BadField: no logged receipt names such an output.
            Conflict: another delivery of it is here.
        """
        place, data = (delivery.contract, delivery.run_id, delivery.output), delivery.encode()
        named = (*place, delivery.sealed, delivery.manifest.digest)
        with self._db.write() as c:
            found = c.execute(
                "SELECT 1 FROM outputs WHERE (contract, run_id, output, sealed, manifest) = (?, ?, ?, ?, ?)", named
            )
            if found.fetchone() is None:
                raise BadField("the delivery is of no output that a logged receipt names")
            c.execute("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)", (*place, data))
            kept = c.execute(
                "SELECT document FROM deliveries WHERE (contract, run_id, output) = (?, ?, ?)", place
            ).fetchone()
            if blob(kept[0]) != data:
                raise Conflict("another delivery of that output is here", hint="Nothing to do: the first one stays.")

    def deliveries(self, contract: str) -> list[Delivery]:
        rows = self._db.rows("SELECT document FROM deliveries WHERE contract = ? ORDER BY rowid", contract)
        return [Delivery.parse(blob(r[0])) for r in rows]

    # --- the airlock ---

    def put_box(self, box: Box) -> None:
        """Keep a box that a logged receipt names.

        Raises:
            BadField: no logged receipt names it.
        """
        with self._db.write() as c:
            if c.execute("SELECT 1 FROM named_boxes WHERE box = ?", (box.digest,)).fetchone() is None:
                raise BadField("the box is one that no logged receipt names")
            c.execute("INSERT OR IGNORE INTO boxes VALUES (?, ?, ?)", (box.digest, box.contract, box.encode()))

    def box(self, digest: str) -> Box:
        """Raises NotFound."""
        row = self._db.row("SELECT document FROM boxes WHERE box = ?", digest)
        if row is None:
            raise NotFound(f"no box {digest} here")
        return Box.parse(blob(row[0]))

    def boxes(self, contract: str) -> list[tuple[Box, list[Envelope]]]:
        """The boxes of a contract's runs, each with the verdicts on it."""
        found = self._db.rows("SELECT box, document FROM boxes WHERE contract = ? ORDER BY rowid", contract)
        return [(Box.parse(blob(document)), self._verdicts(text(digest))) for digest, document in found]

    def _verdicts(self, box: str) -> list[Envelope]:
        rows = self._db.rows("SELECT envelope FROM verdicts WHERE box = ? ORDER BY reviewer", box)
        return [Envelope.parse(blob(r[0])) for r in rows]

    def put_verdict(self, verdict: Verdict, envelope: Envelope) -> None:
        """Keep and log a reviewer's verdict, which was verified; the first one stays.

        Raises:
            Conflict: that reviewer said otherwise before.
        """
        place = (verdict.box, verdict.reviewer)
        with self._db.write() as c:
            if c.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?)", (*place, envelope.encode())).rowcount:
                self._log(c, Entry("verdict", verdict.contract, envelope.digest))
                return
            kept = c.execute("SELECT envelope FROM verdicts WHERE (box, reviewer) = (?, ?)", place).fetchone()
            if blob(kept[0]) != envelope.encode():
                raise Conflict("that reviewer's verdict on this box is here", hint="Nothing to do: the first one stays.")

    # --- receipts and the log ---

    def put_receipt(self, bundle: Bundle, statement: Statement) -> Bundle:
        """Log a receipt and keep its bundle, with its proof. The same receipt twice is logged once.

        Args:
            bundle: whose receipt it is.
            statement: what the receipt says.
        """
        with self._db.write() as c:
            index = self._log(c, bundle.entry)
            proof = self._prove(c, index)
            logged = replace(bundle, proof=proof)
            row = (bundle.receipt.digest, statement.contract, statement.run_id, logged.encode())
            c.execute("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", row)
            place = (statement.contract, statement.run_id)
            outputs = [(*place, d.output.name, d.sealed, d.manifest) for d in statement.outputs]
            c.executemany("INSERT OR IGNORE INTO outputs VALUES (?, ?, ?, ?, ?)", outputs)
            self._changed(c, statement.contract)
            boxes = [(d.box,) for d in statement.outputs if d.box is not None]
            c.executemany("INSERT OR IGNORE INTO named_boxes VALUES (?)", boxes)
        return logged

    def receipt(self, digest: str) -> bytes:
        """Raises NotFound."""
        row = self._db.row("SELECT bundle FROM receipts WHERE digest = ?", digest)
        if row is None:
            raise NotFound(f"no receipt {digest} here")
        return blob(row[0])

    def receipts(self, contract: str) -> list[tuple[str, str]]:
        """Receipt digest and run id of every run of a contract, oldest first; of very many the newest."""
        rows = self._db.rows(
            "SELECT digest, run_id FROM receipts WHERE contract = ? ORDER BY rowid DESC LIMIT ?", contract, MAX_RECEIPTS
        )
        return [(text(d), text(r)) for d, r in reversed(rows)]

    def log(self, entry: Entry) -> int:
        """Append an entry, once; its index."""
        with self._db.write() as c:
            return self._log(c, entry)

    def log_batch(self, contract: str, entries: Sequence[Entry], at: int) -> int:
        """Append what is not there yet of an enclave's batch, whole or not at all; how many entries that were.

        Args:
            contract: under which they all are.
            entries: of receipts of requests.
            at: Unix seconds.

        Raises:
            LimitReached: more than a contract may log in a day.
        """
        day = at // DAY
        with self._db.write() as c:
            before = self._size(c)
            for entry in entries:
                self._log(c, entry)
            added = self._size(c) - before
            c.execute("DELETE FROM batched WHERE day < ?", (day,))
            used = c.execute(
                "INSERT INTO batched VALUES (?, ?, ?)"
                " ON CONFLICT (contract, day) DO UPDATE SET entries = entries + excluded.entries RETURNING entries",
                (contract, day, added),
            ).fetchone()
            if integer(used[0]) > self._batched:
                raise LimitReached(
                    f"at most {self._batched} receipts of requests are logged under a contract in a day",
                    retry_after=DAY - at % DAY,
                    hint="They are logged the next day; ask the exchange's operator for more.",
                )
        return added

    def prove(self, entry: Entry) -> LoggedProof:
        """Where the log holds an entry, under its newest head. Raises NotLogged."""
        with self._db.write() as c:
            row = c.execute("SELECT idx FROM leaves WHERE entry = ?", (entry.encode(),)).fetchone()
            if row is None:
                raise NotLogged(f"the log holds no such {entry.kind}", hint="Receipts come in batches: ask again soon.")
            return self._prove(c, integer(row[0]))

    def _size(self, c: sqlite3.Connection) -> int:
        # places have no gaps; counting rows would read all of them, for every entry
        return integer(c.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaves").fetchone()[0])

    def _log(self, c: sqlite3.Connection, entry: Entry) -> int:
        data = entry.encode()
        row = c.execute("SELECT idx FROM leaves WHERE entry = ?", (data,)).fetchone()
        if row is not None:
            return integer(row[0])
        index = Tree(_Nodes(c), self._size(c)).append(entry)
        c.execute("INSERT INTO leaves VALUES (?, ?)", (index, data))
        return index

    def _prove(self, c: sqlite3.Connection, index: int) -> LoggedProof:
        tree = Tree(_Nodes(c), self._size(c))
        return LoggedProof(tree.checkpoint(self.key), tree.prove_inclusion(index, tree.size))

    def checkpoint(self) -> Checkpoint:
        with self._db.write() as c:
            return Tree(_Nodes(c), self._size(c)).checkpoint(self.key)

    def consistency(self, old: int, new: int) -> ConsistencyProof:
        """Raises NotLogged."""
        with self._db.write() as c:
            return Tree(_Nodes(c), self._size(c)).prove_consistency(old, new)

    def entries(self, start: int, end: int) -> list[bytes]:
        """The leaves with ``start <= index < end``."""
        rows = self._db.rows("SELECT entry FROM leaves WHERE idx >= ? AND idx < ? ORDER BY idx", start, end)
        return [blob(r[0]) for r in rows]
