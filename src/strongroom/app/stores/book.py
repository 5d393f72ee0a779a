"""A broker's book in SQLite. **Losing it is fatal**: it holds the asset keys, the counts of runs and what was
charged to budgets.

The owner's client and the broker's process open the same file: a withdrawal that the owner writes is in force at the broker
when the write returns.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from strongroom import wire
from strongroom.asset import AssetKey
from strongroom.broker import NONCE_SECONDS, Asked, Charged, Held, HeldShare, Kept, Refusal, Release, Standing
from strongroom.budget.charge import Charge, Used, settled
from strongroom.budget.document import BUDGET_TYPE, Budget, follows
from strongroom.contract import Grant, Withdrawal
from strongroom.drawing import Revision
from strongroom.errors import Conflict
from strongroom.guest import GuestRun
from strongroom.guest import Taken as TakenRun
from strongroom.holding import Deal, Says, Taken, Word, merged
from strongroom.job import Cancel
from strongroom.release import Part, Slot
from strongroom.wire import JSON, Envelope

from . import marks
from .overview import Telling
from .sqlite import Database, blob, integer, text

STRANGERS_KEPT = 1000
MAX_GUEST_RUNS = 1000  # of one contract, asked for by anybody
MAX_CANCELLED = 1000  # runs of one contract that one party can cancel: it can withdraw, which is one word
_STRANGERS = frozenset({"D1", "D2", "D3", "D4"})  # checks that anybody can fail, with a contract of nobody here

_SCHEMA = """
CREATE TABLE IF NOT EXISTS assets (manifest TEXT PRIMARY KEY, envelope BLOB NOT NULL, key BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS spent (nonce BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS receipts (contract TEXT, run_id TEXT, bundle BLOB NOT NULL,
    PRIMARY KEY (contract, run_id)) STRICT;
CREATE TABLE IF NOT EXISTS approved (contract TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ended (contract TEXT PRIMARY KEY, by TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS withdrawn (contract TEXT, party TEXT, envelope BLOB NOT NULL, PRIMARY KEY (contract, party))
STRICT;
CREATE TABLE IF NOT EXISTS cancelled (contract TEXT, run_id TEXT, party TEXT, envelope BLOB NOT NULL,
    PRIMARY KEY (contract, run_id, party)) STRICT;
CREATE TABLE IF NOT EXISTS grants (contract TEXT, nonce TEXT, runs INTEGER NOT NULL, envelope BLOB NOT NULL,
    PRIMARY KEY (contract, nonce)) STRICT;
CREATE TABLE IF NOT EXISTS runs (contract TEXT, run_id TEXT, keyset TEXT NOT NULL, PRIMARY KEY (contract, run_id)) STRICT;
CREATE INDEX IF NOT EXISTS runs_of ON runs (keyset);
CREATE TABLE IF NOT EXISTS guest_contracts (contract TEXT PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS guest_runs (contract TEXT, run_id TEXT, run BLOB NOT NULL, PRIMARY KEY (contract, run_id)) STRICT;
CREATE TABLE IF NOT EXISTS releases (contract TEXT, run_id TEXT, keyset TEXT, manifest TEXT, envelope BLOB NOT NULL,
    encrypted_key BLOB NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (contract, run_id, keyset, manifest)) STRICT;
CREATE TABLE IF NOT EXISTS shares (manifest TEXT PRIMARY KEY, owner TEXT NOT NULL, deal BLOB NOT NULL,
    recalled INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS slots (contract TEXT, manifest TEXT, slot INTEGER, keyset TEXT,
    PRIMARY KEY (contract, manifest, slot)) STRICT;
CREATE TABLE IF NOT EXISTS given (contract TEXT, run_id TEXT, keyset TEXT, manifest TEXT, epoch INTEGER, idx INTEGER,
    slot INTEGER, envelope BLOB NOT NULL, encrypted BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (contract, run_id, keyset, manifest, epoch, idx, slot)) STRICT;
CREATE TABLE IF NOT EXISTS words (contract TEXT, owner TEXT, says TEXT, envelope BLOB NOT NULL,
    PRIMARY KEY (contract, owner, says)) STRICT;
CREATE TABLE IF NOT EXISTS granted (contract TEXT, owner TEXT, nonce TEXT, runs INTEGER NOT NULL, envelope BLOB NOT NULL,
    PRIMARY KEY (contract, owner, nonce)) STRICT;
CREATE TABLE IF NOT EXISTS budgets (manifest TEXT, version INTEGER, envelope BLOB NOT NULL,
    PRIMARY KEY (manifest, version)) STRICT;
CREATE TABLE IF NOT EXISTS revisions (manifest TEXT PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS charges (contract TEXT, run_id TEXT, manifest TEXT, party TEXT NOT NULL, at INTEGER NOT NULL,
    charge BLOB NOT NULL, settled BLOB, PRIMARY KEY (contract, run_id, manifest)) STRICT;
CREATE INDEX IF NOT EXISTS charges_of ON charges (manifest);
CREATE TABLE IF NOT EXISTS decisions (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, verdict TEXT NOT NULL,
    contract TEXT NOT NULL,
    manifest TEXT NOT NULL, run_id TEXT NOT NULL, digest TEXT NOT NULL, code TEXT NOT NULL, checks BLOB NOT NULL,
    logged INTEGER NOT NULL) STRICT;
"""


class _Page(marks.Over):
    """The book inside one transaction."""

    def standing(self, contract: str, owner: str | None = None) -> Standing:
        one = self._c.execute
        ended = one("SELECT by FROM ended WHERE contract = ?", (contract,)).fetchone()
        found = Standing(
            approved=one("SELECT 1 FROM approved WHERE contract = ?", (contract,)).fetchone() is not None,
            ended_by=text(ended[0]) if ended else None,
            withdrawn_by=frozenset(text(r[0]) for r in one("SELECT party FROM withdrawn WHERE contract = ?", (contract,))),
            runs={text(r): text(k) for r, k in one("SELECT run_id, keyset FROM runs WHERE contract = ?", (contract,))},
            granted=integer(one("SELECT coalesce(sum(runs), 0) FROM grants WHERE contract = ?", (contract,)).fetchone()[0]),
            cancelled=self._cancelled(contract),
        )
        if owner is None:
            return found
        where = (contract, owner)
        said = {text(r[0]) for r in one("SELECT says FROM words WHERE contract = ? AND owner = ?", where)}
        runs = one("SELECT coalesce(sum(runs), 0) FROM granted WHERE contract = ? AND owner = ?", where).fetchone()[0]
        return replace(
            found,
            approved=Says.APPROVED in said,
            ended_by=contract if Says.ENDED in said else None,
            granted=integer(runs),
            withdrawn_by=found.withdrawn_by | self.told(contract, owner),
        )

    def share(self, manifest: str) -> HeldShare | None:
        row = self._c.execute("SELECT owner, deal, recalled FROM shares WHERE manifest = ?", (manifest,)).fetchone()
        return HeldShare(text(row[0]), Deal.parse(blob(row[1])), row[2] == 1) if row else None

    def slots(self, contract: str, manifest: str) -> dict[int, str | None]:
        rows = self._c.execute("SELECT slot, keyset FROM slots WHERE contract = ? AND manifest = ?", (contract, manifest))
        return {integer(slot): None if keyset is None else text(keyset) for slot, keyset in rows}

    # --- what an owner tells a broker that holds shares (holder.HolderPage) ---

    def deal(self, manifest: str, held: HeldShare, taken: Sequence[Taken]) -> None:
        row = (manifest, held.owner, held.deal.encode(), int(held.recalled))
        self._c.execute("INSERT OR REPLACE INTO shares VALUES (?, ?, ?, ?)", row)
        for t in taken:
            known = self.slots(t.contract, manifest)
            keyset = merged(known.get(t.slot, t.keyset), t.keyset)
            self._c.execute("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?)", (t.contract, manifest, t.slot, keyset))
        self.changed("deal", manifest, held.deal.enrolment.digest)

    def recall(self, manifest: str) -> None:
        if self._c.execute("UPDATE shares SET recalled = 1 WHERE manifest = ? AND recalled = 0", (manifest,)).rowcount:
            self.changed("recall", manifest)

    def taken(self, manifest: str) -> list[Taken]:
        rows = self._c.execute(
            "SELECT contract, slot, keyset FROM slots WHERE manifest = ? ORDER BY contract, slot", (manifest,)
        )
        return [Taken(text(c), integer(slot), None if k is None else text(k)) for c, slot, k in rows]

    def hear(self, word: Word, envelope: Envelope) -> None:
        row = (word.contract, word.party, word.says.value, envelope.encode())
        if self._c.execute("INSERT OR IGNORE INTO words VALUES (?, ?, ?, ?)", row).rowcount:
            self.changed("word", word.contract, word.party, word.says.value)

    def hear_grant(self, grant: Grant, envelope: Envelope) -> None:
        row = (grant.contract, grant.party, grant.nonce, grant.runs, envelope.encode())
        self._c.execute("INSERT OR IGNORE INTO granted VALUES (?, ?, ?, ?, ?)", row)

    def _cancelled(self, contract: str) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for run_id, party in self._c.execute("SELECT run_id, party FROM cancelled WHERE contract = ?", (contract,)):
            found[text(run_id)] = found.get(text(run_id), frozenset()) | {text(party)}
        return found

    def earlier(self, slot: Slot) -> Kept | None:
        if slot.part is not None:
            row = self._c.execute(
                "SELECT envelope, encrypted FROM given WHERE (contract, run_id, keyset, manifest, epoch, idx, slot)"
                " = (?, ?, ?, ?, ?, ?, ?)",
                _place(slot, slot.part),
            ).fetchone()
            return Kept(Envelope.parse(blob(row[0])), blob(row[1])) if row else None
        row = self._c.execute(
            "SELECT envelope, encrypted_key FROM releases WHERE contract = ? AND run_id = ? AND keyset = ? AND manifest = ?",
            (slot.contract, slot.run_id, slot.keyset_digest, slot.manifest),
        ).fetchone()
        return Kept(Envelope.parse(blob(row[0])), blob(row[1])) if row else None

    def keep(self, slot: Slot, kept: Kept, at: int) -> None:
        row: tuple[str | int, ...] = (slot.contract, slot.run_id, slot.keyset_digest)
        if self._c.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", row).rowcount:
            self.changed("run", *row)
        if slot.part is not None:
            row = (slot.contract, slot.manifest, slot.part.slot, slot.keyset_digest)
            if self._c.execute("INSERT OR IGNORE INTO slots VALUES (?, ?, ?, ?)", row).rowcount:
                self.changed("slot", *row)
            given = (*_place(slot, slot.part), kept.envelope.encode(), kept.encrypted_key, at)
            self._c.execute("INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", given)
            return
        self._c.execute(
            "INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, ?, ?, ?)",
            (slot.contract, slot.run_id, slot.keyset_digest, slot.manifest, kept.envelope.encode(), kept.encrypted_key, at),
        )

    def budget(self, manifest: str) -> Envelope | None:
        self.require_unfrozen(manifest)
        return self.newest_budget(manifest)

    def newest_budget(self, manifest: str) -> Envelope | None:
        """Whether it may be charged to or not."""
        row = self._c.execute(
            "SELECT envelope FROM budgets WHERE manifest = ? ORDER BY version DESC LIMIT 1", (manifest,)
        ).fetchone()
        return Envelope.parse(blob(row[0])) if row else None

    def charged(self, manifests: Sequence[str]) -> list[Charged]:
        return [c for manifest in manifests for c in self._charged(manifest)]

    def _charged(self, manifest: str) -> Iterator[Charged]:
        rows = self._c.execute(
            "SELECT contract, run_id, manifest, party, at, charge, settled FROM charges WHERE manifest = ? ORDER BY rowid",
            (manifest,),
        )
        for contract, run_id, asset, party, at, charge, left in rows:
            now = None if left is None else _charge(left)
            yield Charged(text(contract), text(run_id), text(asset), text(party), integer(at), _charge(charge), now)

    def charge(self, charged: Charged) -> None:
        c = charged
        row = (c.contract, c.run_id, c.manifest, c.party, c.at, wire.encode(c.charge.to_json()))
        if self._c.execute("INSERT OR IGNORE INTO charges VALUES (?, ?, ?, ?, ?, ?, NULL)", row).rowcount:
            self.changed("charge", c.contract, c.run_id, c.manifest)


def _place(slot: Slot, part: Part) -> tuple[str, str, str, str, int, int, int]:
    return (slot.contract, slot.run_id, slot.keyset_digest, slot.manifest, part.epoch, part.index, part.slot)


def _charge(value: object) -> Charge:
    return _parsed(blob(value))


@lru_cache(maxsize=4096)
def _parsed(data: bytes) -> Charge:
    """Runs of one contract are charged alike: their bytes are read once."""
    return Charge.from_json(wire.decode(data))


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, as its owner reads it.

    Attributes:
        at: Unix seconds.
        verdict: ``release`` or ``refusal``.
        code: the failed check's code, ``""`` for a release.
        checks: the numbered checks with their details.
        logged: whether its digest is in the ledger.
    """

    id: int
    at: int
    verdict: str
    contract: str
    manifest: str
    run_id: str
    digest: str
    code: str
    checks: JSON
    logged: bool

    def to_json(self) -> dict[str, JSON]:
        return {
            "at": self.at,
            "checks": self.checks,
            "code": self.code,
            "contract": self.contract,
            "digest": self.digest,
            "logged": self.logged,
            "manifest": self.manifest,
            "run_id": self.run_id,
            "verdict": self.verdict,
        }


class SqliteBook:
    """A broker's memory in one SQLite file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA + marks.SCHEMA)
        self.marks = marks.Marks(self._db)
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO secrets VALUES ('nonce', ?)", (secrets.token_bytes(32),))
            marks.begin(c, secrets.token_bytes(32))
            self._nonce_key = blob(c.execute("SELECT value FROM secrets WHERE name = 'nonce'").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    # --- what decide() asks (broker.Book) ---

    def held(self, manifest: str) -> Held | None:
        row = self._db.row("SELECT envelope, key FROM assets WHERE manifest = ? AND key <> x''", manifest)
        return Held(Envelope.parse(blob(row[0])), AssetKey(blob(row[1]))) if row else None

    def share(self, manifest: str) -> HeldShare | None:
        row = self._db.row("SELECT owner, deal, recalled FROM shares WHERE manifest = ?", manifest)
        return HeldShare(text(row[0]), Deal.parse(blob(row[1])), row[2] == 1) if row else None

    def spend(self, nonce: bytes, at: int) -> bool:
        """Use up a nonce. Nothing is kept of those that were never spent, so that asking for many fills nothing up.

        It reaches the disk with the release that follows: one that survives a power cut has its nonce spent, and a nonce
        that comes back led to no release.
        """
        expires_at = int.from_bytes(nonce[:8], "big")
        if (
            len(nonce) != 32
            or not at < expires_at <= at + NONCE_SECONDS
            or not hmac.compare_digest(self._mac(nonce[:16]), nonce[16:])
        ):
            return False
        with self._db.write(with_the_next=True) as c:
            c.execute("DELETE FROM spent WHERE expires_at <= ?", (at,))
            return c.execute("INSERT OR IGNORE INTO spent VALUES (?, ?)", (nonce, expires_at)).rowcount == 1

    @contextmanager
    def transaction(self) -> Iterator[_Page]:
        with self._db.write() as connection:
            yield _Page(connection)

    # --- what the broker's server does ---

    def nonce(self, at: int) -> bytes:
        """A fresh nonce, good for :data:`NONCE_SECONDS`: its end (8 bytes), 8 random bytes, this book's MAC (16)."""
        body = (at + NONCE_SECONDS).to_bytes(8, "big") + secrets.token_bytes(8)
        return body + self._mac(body)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._nonce_key, body, "sha256")[:16]

    def record(self, request: Asked, decision: Release | Refusal, at: int) -> None:
        """Write a decision into the owner's log. What strangers ask is kept for a while, and never sent to the ledger.

        A release is on the disk already, with its run: what a power cut takes of it, :meth:`record_lost` writes again.
        """
        verdict, code, logged = "release", "", 0
        if isinstance(decision, Refusal):
            verdict, code, logged = "refusal", decision.code, -1 if decision.number in _STRANGERS else 0
        with self._db.write(with_the_next=verdict == "release") as c:
            c.execute(
                "INSERT INTO decisions (at, verdict, contract, manifest, run_id, digest, code, checks, logged)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    at,
                    verdict,
                    request.contract.digest,
                    request.manifest,
                    request.run_id,
                    decision.envelope.digest,
                    code,
                    wire.encode(decision.transcript.to_json()),
                    logged,
                ),
            )
            if logged < 0:
                c.execute(
                    "DELETE FROM decisions WHERE logged < 0 AND id <= (SELECT id FROM decisions WHERE logged < 0"
                    " ORDER BY id DESC LIMIT 1 OFFSET ?)",
                    (STRANGERS_KEPT,),
                )

    def record_lost(self) -> int:
        """Write into the log what a broker that died had released but not recorded yet; how many decisions it was."""
        with self._db.write() as c:
            known = {text(r[0]) for r in c.execute("SELECT digest FROM decisions WHERE verdict = 'release'")}
            rows = c.execute(
                "SELECT at, contract, manifest, run_id, envelope FROM releases"
                " UNION ALL SELECT at, contract, manifest, run_id, envelope FROM given ORDER BY at"
            ).fetchall()
            lost = [(*row[:4], digest) for row in rows if (digest := Envelope.parse(blob(row[4])).digest) not in known]
            c.executemany(
                "INSERT INTO decisions (at, verdict, contract, manifest, run_id, digest, code, checks, logged)"
                " VALUES (?, 'release', ?, ?, ?, ?, '', x'5b5d', 0)",
                lost,
            )
        return len(lost)

    def keep_receipt(self, contract: str, run_id: str, bundle: bytes) -> None:
        """Keep the owner's own copy of a receipt: the first of each run."""
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", (contract, run_id, bundle))

    def mark_logged(self, decision: int) -> None:
        """Note that a decision's digest is in the ledger."""
        self._mark(decision, 1)

    def mark_unloggable(self, decision: int) -> None:
        """Note that the exchange will never log a decision: it is about no contract that was proposed there."""
        self._mark(decision, -1)

    def _mark(self, decision: int, logged: int) -> None:
        with self._db.write(with_the_next=True) as c:  # what is sent again is in the ledger once
            c.execute("UPDATE decisions SET logged = ? WHERE id = ?", (logged, decision))

    # --- what the owner says ---

    def hold(self, manifest: Envelope, key: AssetKey) -> None:
        """Keep an asset's key. Keys are never overwritten."""
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO assets VALUES (?, ?, ?)", (manifest.digest, manifest.encode(), key.raw))

    def know(self, manifest: Envelope) -> None:
        """Keep the manifest of an asset whose key was shared over other brokers before it was ever here."""
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO assets VALUES (?, ?, x'')", (manifest.digest, manifest.encode()))

    def forget(self, manifest: str) -> None:
        """Forget the key of an asset that is shared over other brokers; its manifest stays.

        Its page is overwritten; a backup from before still has the key.
        """
        with self._db.write() as c:
            c.execute("PRAGMA secure_delete = ON")
            if c.execute("UPDATE assets SET key = x'' WHERE manifest = ? AND key <> x''", (manifest,)).rowcount:
                marks.changed(c, "forget", manifest)  # a book from before still has it

    def approve(self, contract: str, at: int) -> None:
        with self._db.write() as c:
            c.execute("INSERT OR IGNORE INTO approved VALUES (?, ?)", (contract, at))

    def end(self, contract: str, by: str) -> None:
        """The owner countered or superseded a proposal."""
        with self._db.write() as c:
            if c.execute("INSERT OR IGNORE INTO ended VALUES (?, ?)", (contract, by)).rowcount:
                marks.changed(c, "end", contract)

    def withdraw(self, withdrawal: Withdrawal, envelope: Envelope, on: Sequence[str] = ()) -> None:
        """Nothing more is released under this contract. ``on``: the manifests of the contract's assets."""
        with self._db.write() as c:
            row = (withdrawal.contract, withdrawal.party, envelope.encode())
            if c.execute("INSERT OR IGNORE INTO withdrawn VALUES (?, ?, ?)", row).rowcount:
                marks.changed(c, "withdrawal", withdrawal.contract, withdrawal.party)
            c.executemany("INSERT OR IGNORE INTO concerns VALUES (?, ?)", [(withdrawal.contract, m) for m in on])

    def cancel(self, cancel: Cancel, envelope: Envelope) -> None:
        """No key is released for this run from now on, if that party may cancel it. Raises Conflict: too many."""
        with self._db.write() as c:
            where = (cancel.contract, cancel.party)
            said = integer(c.execute("SELECT count(*) FROM cancelled WHERE contract = ? AND party = ?", where).fetchone()[0])
            if said >= MAX_CANCELLED:
                raise Conflict(
                    f"{cancel.party!r} cancelled {said:,} runs", hint="Stop them all: strongroom withdraw CONTRACT"
                )
            row = (cancel.contract, cancel.run_id, cancel.party, envelope.encode())
            if c.execute("INSERT OR IGNORE INTO cancelled VALUES (?, ?, ?, ?)", row).rowcount:
                marks.changed(c, "cancel", cancel.contract, cancel.run_id, cancel.party)

    # --- guests (guest.GuestBook) ---

    def ask_of_guests(self, asked: GuestRun) -> None:
        """Keep a run that a party asked for, for a guest to take. Raises Conflict: too many."""
        with self._db.write() as c:
            contract = asked.contract.digest
            kept = integer(c.execute("SELECT count(*) FROM guest_runs WHERE contract = ?", (contract,)).fetchone()[0])
            if kept >= MAX_GUEST_RUNS:
                raise Conflict(f"{kept:,} runs by guests were asked for", hint="Propose another contract.")
            c.execute("INSERT OR IGNORE INTO guest_contracts VALUES (?, ?)", (contract, asked.contract.encode()))
            c.execute("INSERT OR IGNORE INTO guest_runs VALUES (?, ?, ?)", (contract, asked.run_id, asked.run.encode()))

    def asked_of_guests(self, contract: str) -> list[GuestRun]:
        row = self._db.row("SELECT envelope FROM guest_contracts WHERE contract = ?", contract)
        if row is None:
            return []
        envelope = Envelope.parse(blob(row[0]))
        rows = self._db.rows("SELECT run FROM guest_runs WHERE contract = ? ORDER BY rowid", contract)
        return [GuestRun(envelope, Envelope.parse(blob(run[0]))) for run in rows]

    def for_guests(self) -> frozenset[str]:
        """Digests of the contracts under which guests alone get keys here: they write no receipts."""
        return frozenset(text(r[0]) for r in self._db.rows("SELECT contract FROM guest_contracts"))

    def runs_of(self, keyset: str) -> list[TakenRun]:
        rows = self._db.rows("SELECT contract, run_id FROM runs WHERE keyset = ? ORDER BY rowid", keyset)
        return [TakenRun(text(contract), text(run_id)) for contract, run_id in rows]

    def grant(self, grant: Grant, envelope: Envelope) -> None:
        with self._db.write() as c:
            row = (grant.contract, grant.nonce, grant.runs, envelope.encode())
            c.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?, ?)", row)

    def set_budget(self, budget: Budget, envelope: Envelope) -> None:
        """Put a budget in force for every asset that it names. What was charged stays charged.

        Args:
            budget: verified.
            envelope: as its owner signed it.

        Raises:
            StaleBudget, BadBudget: it may not take the place of one that is in force.
        """
        with self._db.write() as c:
            page = _Page(c)
            for manifest in budget.assets:
                earlier = page.newest_budget(manifest)
                if earlier is not None:
                    follows(budget, Budget.parse(earlier.expect(BUDGET_TYPE)))
            rows = [(manifest, budget.version, envelope.encode()) for manifest in budget.assets]
            c.executemany("INSERT INTO budgets VALUES (?, ?, ?)", rows)
            marks.changed(c, "budget", envelope.digest)

    def revise(self, revision: Revision, envelope: Envelope) -> None:
        """Put an owner's word about a source in force.

        Args:
            revision: verified.
            envelope: as its owner signed it.

        Raises:
            StaleRevision: there is a newer one.
        """
        with self._db.write() as c:
            row = c.execute("SELECT envelope FROM revisions WHERE manifest = ?", (revision.asset,)).fetchone()
            revision.follows(Revision.peek(Envelope.parse(blob(row[0]))) if row else None)
            c.execute("INSERT OR REPLACE INTO revisions VALUES (?, ?)", (revision.asset, envelope.encode()))
            marks.changed(c, "revision", envelope.digest)

    def revision(self, manifest: str) -> Envelope | None:
        """What the owner said last of a source."""
        rows = self._db.rows("SELECT envelope FROM revisions WHERE manifest = ?", manifest)
        return next((Envelope.parse(blob(row[0])) for row in rows), None)

    def settle(self, contract: str, run_id: str, used: Used | None) -> None:
        """Lower what a run is charged to what its verified receipt says: once, and never upwards."""
        if used is None:
            return
        with self._db.write() as c:
            where = (contract, run_id)
            rows = c.execute(
                "SELECT manifest, charge FROM charges WHERE contract = ? AND run_id = ? AND settled IS NULL", where
            ).fetchall()
            c.executemany(
                "UPDATE charges SET settled = ? WHERE contract = ? AND run_id = ? AND manifest = ?",
                [(wire.encode(settled(_charge(charge), used).to_json()), *where, manifest) for manifest, charge in rows],
            )

    # --- what the owner reads ---

    def telling(self, owner: str) -> Telling:
        """What this broker tells an owner whose shares are here."""
        return Telling(self, self._db, owner)

    def budget(self, manifest: str) -> Envelope | None:
        """The budget in force for an asset."""
        with self.transaction() as page:
            return page.newest_budget(manifest)

    def charges(self, manifests: Sequence[str]) -> list[Charged]:
        """Every charge against these assets, those of one asset in the order in which they were made."""
        with self.transaction() as page:
            return page.charged(manifests)

    def uncharged(self, manifests: Sequence[str]) -> int:
        """How many runs had a key of these assets, and stated no charge."""
        found = 0
        for manifest in manifests:
            rows = self._db.rows(
                "SELECT count(*) FROM (SELECT DISTINCT contract, run_id FROM releases WHERE manifest = ?"
                " EXCEPT SELECT contract, run_id FROM charges WHERE manifest = ?)",
                manifest,
                manifest,
            )
            found += integer(rows[0][0])
        return found

    def standing(self, contract: str, owner: str | None = None) -> Standing:
        with self.transaction() as page:
            return page.standing(contract, owner)

    def shares(self) -> list[HeldShare]:
        """Every share that was dealt to this broker, the newest of each asset."""
        rows = self._db.rows("SELECT owner, deal, recalled FROM shares ORDER BY rowid")
        return [HeldShare(text(owner), Deal.parse(blob(deal)), recalled == 1) for owner, deal, recalled in rows]

    def taken(self, manifest: str) -> list[Taken]:
        """Every slot of a shared asset that was given."""
        with self.transaction() as page:
            return page.taken(manifest)

    def approved(self) -> list[str]:
        """Digests of the contracts that the owner approved."""
        return [text(r[0]) for r in self._db.rows("SELECT contract FROM approved ORDER BY rowid")]

    def heard(self) -> list[str]:
        """Digests of the contracts that owners whose shares are here said that they approved."""
        return [text(r[0]) for r in self._db.rows("SELECT DISTINCT contract FROM words WHERE says = 'approved'")]

    def granted(self, contract: str) -> list[Envelope]:
        """The owner's own grants."""
        return [
            Envelope.parse(blob(r[0])) for r in self._db.rows("SELECT envelope FROM grants WHERE contract = ?", contract)
        ]

    def withdrawals(self, contract: str) -> list[Envelope]:
        """Every withdrawal that is known here, of whichever party."""
        found = self._db.rows("SELECT envelope FROM withdrawn WHERE contract = ?", contract)
        return [Envelope.parse(blob(r[0])) for r in found]

    def manifest(self, manifest: str) -> Envelope | None:
        """The manifest of an asset whose key is here, or was before it was shared."""
        row = self._db.row("SELECT envelope FROM assets WHERE manifest = ?", manifest)
        return Envelope.parse(blob(row[0])) if row else None

    def assets(self) -> list[Envelope]:
        """The manifests of the assets whose keys are here, or were before they were shared."""
        return [Envelope.parse(blob(r[0])) for r in self._db.rows("SELECT envelope FROM assets ORDER BY rowid")]

    def decisions(self, *, unlogged: bool = False) -> list[Decision]:
        """Every decision, oldest first; with ``unlogged`` those whose digest is not in the ledger yet."""
        where = "WHERE logged = 0" if unlogged else ""
        rows = self._db.rows(
            "SELECT id, at, verdict, contract, manifest, run_id, digest, code, checks, logged"  # noqa: S608 - two constants
            f" FROM decisions {where} ORDER BY id"
        )
        return [
            Decision(
                id=integer(i),
                at=integer(at),
                verdict=text(verdict),
                contract=text(contract),
                manifest=text(manifest),
                run_id=text(run_id),
                digest=text(digest),
                code=text(code),
                checks=wire.decode(blob(checks)),
                logged=logged == 1,
            )
            for i, at, verdict, contract, manifest, run_id, digest, code, checks, logged in rows
        ]

    def receipts(self, contract: str) -> list[bytes]:
        """The receipts that enclaves handed to this broker."""
        return [blob(r[0]) for r in self._db.rows("SELECT bundle FROM receipts WHERE contract = ? ORDER BY rowid", contract)]

    def releases(self) -> list[tuple[str, str, str, int]]:
        """Every run that was given a key: contract, run id, keyset, time of the first release."""
        rows = self._db.rows(
            "SELECT contract, run_id, keyset, min(at) FROM releases GROUP BY contract, run_id, keyset"
            " ORDER BY min(at), min(rowid)"
        )
        return [(text(c), text(r), text(k), integer(a)) for c, r, k, a in rows]
