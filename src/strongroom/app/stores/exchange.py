"""An exchange's state: SQLite and a folder of sealed files. **Losing it loses no secret**: there is none in it.

What is lost can be posted again by those who made it, except for the log: a log that forgets is noticed by every client that
remembers a checkpoint.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from strongroom import wire
from strongroom.delivery import Delivery
from strongroom.errors import Conflict, NotFound
from strongroom.ledger import Checkpoint, ConsistencyProof, Entry, LoggedProof, LogKey, Tree
from strongroom.receipt import Bundle
from strongroom.wire import Envelope, Signature

from .sqlite import Database, blob, integer, text

_SCHEMA = """
CREATE TABLE IF NOT EXISTS manifests (digest TEXT PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS proposals (digest TEXT PRIMARY KEY, payload BLOB NOT NULL, supersedes TEXT, at INTEGER NOT NULL)
STRICT;
CREATE INDEX IF NOT EXISTS counters ON proposals (supersedes);
CREATE TABLE IF NOT EXISTS approvals (proposal TEXT, keyid TEXT, sig BLOB NOT NULL, PRIMARY KEY (proposal, keyid)) STRICT;
CREATE TABLE IF NOT EXISTS withdrawals (proposal TEXT, party TEXT, envelope BLOB NOT NULL, PRIMARY KEY (proposal, party))
STRICT;
CREATE TABLE IF NOT EXISTS deliveries (sealed TEXT PRIMARY KEY, contract TEXT NOT NULL, run_id TEXT NOT NULL,
    document BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS receipts (digest TEXT PRIMARY KEY, contract TEXT NOT NULL, run_id TEXT NOT NULL,
    bundle BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS leaves (idx INTEGER PRIMARY KEY, entry BLOB NOT NULL UNIQUE) STRICT;
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


class ExchangeStore:
    """Everything an exchange keeps.

    Args:
        folder: made when it is not there.
        key: the log's key.
    """

    def __init__(self, folder: Path, key: LogKey) -> None:
        self.folder, self.key = folder, key
        for kind in ("sealed", "mock", "output"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for left in (folder / kind).glob("*.partial"):  # by an upload that this exchange did not live to see the end of
                left.unlink(missing_ok=True)
        self._db = Database(folder / "exchange.db", _SCHEMA)

    def close(self) -> None:
        self._db.close()

    # --- files ---

    def sweep(self) -> None:
        """Remove what a killed exchange left of uploads. Only before anything is served from this folder."""
        for kind in ("sealed", "mock", "output"):
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

    # --- documents ---

    def put_manifest(self, envelope: Envelope) -> None:
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO manifests VALUES (?, ?)", (envelope.digest, envelope.encode()))

    def manifest(self, digest: str) -> Envelope:
        """Raises NotFound."""
        row = self._db.row("SELECT envelope FROM manifests WHERE digest = ?", digest)
        if row is None:
            raise NotFound(f"no manifest {digest} here")
        return Envelope.parse(blob(row[0]))

    def manifests(self) -> list[Envelope]:
        return [Envelope.parse(blob(r[0])) for r in self._db.rows("SELECT envelope FROM manifests ORDER BY rowid")]

    def put_proposal(self, digest: str, payload: bytes, supersedes: str | None, signature: Signature, at: int) -> None:
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO proposals VALUES (?, ?, ?, ?)", (digest, payload, supersedes, at))
            self._log(c, Entry("proposal", digest, digest))
        self.put_approval(digest, signature)

    def put_approval(self, proposal: str, signature: Signature) -> None:
        digest = wire.digest(wire.encode({"keyid": signature.keyid, "sig": wire.b64(signature.sig)}))
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO approvals VALUES (?, ?, ?)", (proposal, signature.keyid, signature.sig))
            self._log(c, Entry("approval", proposal, digest))

    def put_withdrawal(self, proposal: str, party: str, envelope: Envelope) -> None:
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO withdrawals VALUES (?, ?, ?)", (proposal, party, envelope.encode()))
            self._log(c, Entry("withdrawal", proposal, envelope.digest))

    def proposal(self, digest: str) -> Envelope:
        """The proposal with the signatures so far. Raises NotFound."""
        row = self._db.row("SELECT payload FROM proposals WHERE digest = ?", digest)
        if row is None:
            raise NotFound(f"no proposal {digest} here")
        found = self._db.rows("SELECT keyid, sig FROM approvals WHERE proposal = ? ORDER BY keyid", digest)
        return Envelope(wire.media_type("proposal"), blob(row[0]), tuple(Signature(text(k), blob(s)) for k, s in found))

    def proposals(self) -> list[str]:
        """Digests, oldest first."""
        return [text(r[0]) for r in self._db.rows("SELECT digest FROM proposals ORDER BY rowid")]

    def counters(self, digest: str) -> list[str]:
        return [
            text(r[0]) for r in self._db.rows("SELECT digest FROM proposals WHERE supersedes = ? ORDER BY rowid", digest)
        ]

    def withdrawals(self, digest: str) -> list[Envelope]:
        rows = self._db.rows("SELECT envelope FROM withdrawals WHERE proposal = ? ORDER BY party", digest)
        return [Envelope.parse(blob(r[0])) for r in rows]

    def put_delivery(self, delivery: Delivery) -> None:
        row = (delivery.sealed, delivery.contract, delivery.run_id, delivery.encode())
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)", row)

    def deliveries(self, contract: str) -> list[Delivery]:
        rows = self._db.rows("SELECT document FROM deliveries WHERE contract = ? ORDER BY rowid", contract)
        return [Delivery.parse(blob(r[0])) for r in rows]

    # --- receipts and the log ---

    def put_receipt(self, bundle: Bundle, run_id: str) -> Bundle:
        """Log a receipt and keep its bundle, with its proof. The same receipt twice is logged once."""
        with self._db.write() as c:
            index = self._log(c, bundle.entry)
            proof = self._prove(c, index)
            logged = Bundle(bundle.receipt, bundle.contract, bundle.manifests, bundle.reports, bundle.releases, proof)
            row = (bundle.receipt.digest, bundle.contract.digest, run_id, logged.encode())
            c.execute("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", row)
        return logged

    def receipt(self, digest: str) -> bytes:
        """Raises NotFound."""
        row = self._db.row("SELECT bundle FROM receipts WHERE digest = ?", digest)
        if row is None:
            raise NotFound(f"no receipt {digest} here")
        return blob(row[0])

    def receipts(self, contract: str) -> list[tuple[str, str]]:
        """Receipt digest and run id of every run of a contract."""
        rows = self._db.rows("SELECT digest, run_id FROM receipts WHERE contract = ? ORDER BY rowid", contract)
        return [(text(d), text(r)) for d, r in rows]

    def log(self, entry: Entry) -> int:
        """Append an entry, once; its index."""
        with self._db.write() as c:
            return self._log(c, entry)

    def _size(self, c: sqlite3.Connection) -> int:
        return integer(c.execute("SELECT count(*) FROM leaves").fetchone()[0])

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
