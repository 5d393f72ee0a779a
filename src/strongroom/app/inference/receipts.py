"""What is kept of requests: their receipts, for as long as the policy says, and the digests that a log has not taken yet.

A receipt is as secret as the prompt that it is about: who can guess a short one confirms it by its hash. So receipts lie on
the disk encrypted under a key that the process alone has, and are gone with it; what they can be found by is keyed too. What
is left for the disk's owner to see is how many there are, under which contract, and until when they are kept.

Who asked must be able to fetch its receipt, or could verify no answer: where the policy keeps receipts for less than a few
minutes, they are held in memory for as long, for their own credential alone.

See ``spec/inference-receipt.md`` and ``docs/operators.md``.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import wire
from strongroom.app.stores.sqlite import Database, blob, integer, text
from strongroom.attest.keyset import Keyset
from strongroom.batch import AFTER_LEASE_S, MAX_RECEIPTS, Submission, batches
from strongroom.enclave.room import Room
from strongroom.errors import BadField, Conflict, NoSpace, NotFound, StrongroomError
from strongroom.inference.events import ModelWeights, Usage, UsageMetered
from strongroom.inference.receipt import InferenceReceipt
from strongroom.party import SigningKey
from strongroom.serving import MAX_LEASE_S
from strongroom.usage import Line, Totals
from strongroom.wire import Envelope, Fields

from .behind import Behind
from .credentials import Credential

KEY_BYTES: Final = 32
MOST: Final = 1_000_000  # receipts that are kept
MOST_UNLOGGED: Final = 1_000_000  # digests that wait for a log
HELD_S: Final = 300  # for which a receipt can be fetched at the least, if only from memory
MOST_HELD: Final = 16_384  # answers' receipts in memory, about 4 KiB each
MOST_REFUSED: Final = 1024  # receipts of what was refused before its body was whole
PAGE: Final = 500
LOG_SECONDS: Final = 10.0  # between two batches: what a log's reader learns of when a request was
GATHER_S: Final = 0.1  # for which receipts are gathered before they are written: later than a first token, mostly

_NONCE = 12
_LOG = logging.getLogger("strongroom.operator")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, chat BLOB, owner BLOB,
    contract TEXT NOT NULL, until INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS chats ON receipts (chat) WHERE chat IS NOT NULL;
CREATE INDEX IF NOT EXISTS ends ON receipts (until);
CREATE TABLE IF NOT EXISTS unlogged (seq INTEGER PRIMARY KEY AUTOINCREMENT, contract TEXT NOT NULL, digest TEXT NOT NULL,
    at INTEGER NOT NULL DEFAULT 0, UNIQUE (contract, digest)) STRICT;
CREATE TABLE IF NOT EXISTS sealed_by (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class _Put:
    """A receipt on its way to the disk."""

    receipt: InferenceReceipt
    owner: str | None  # hash of the credential
    contract: str
    at: int  # when it was put, Unix
    until: int

    @property
    def kept(self) -> bool:
        """Whether it goes to the disk: the policy keeps it beyond its request."""
        return self.until > self.at


class _Held:
    """Receipts in memory, for a few minutes: so many, and then the oldest goes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by: OrderedDict[str, tuple[str | None, str | None, float, bytes]] = OrderedDict()

    def put(self, receipt: InferenceReceipt, owner: str | None, until: float) -> None:
        self._by[receipt.receipt_id] = (receipt.chat_id, owner, until, receipt.encode())
        while len(self._by) > self._most:
            self._by.popitem(last=False)

    def sweep(self, at: float) -> None:
        while self._by and next(iter(self._by.values()))[2] < at:
            self._by.popitem(last=False)

    def get(self, receipt_id: str, at: float) -> tuple[str | None, bytes] | None:
        found = self._by.get(receipt_id)
        return None if found is None or found[2] < at else (found[1], found[3])

    def by_chat(self, chat_id: str, at: float) -> Iterator[tuple[str | None, bytes]]:
        """The newest first."""
        return ((owner, data) for chat, owner, until, data in reversed(self._by.values()) if chat == chat_id and until >= at)


class ReceiptStore:
    """The receipts of one process's requests, in SQLite.

    Args:
        path: the file; its folder is made when it is not there.
        key: 32 bytes under which receipts are encrypted; random ones of the process, unless the store is to outlive it on a
            machine of one's own. What lies there under another key is erased: nobody can read it any more.
        most: how many are kept; beyond that the oldest go before their time.
        most_unlogged: how many digests wait for a log; beyond that no receipt is taken, so that no request is answered that
            no log would show.
        now: Unix seconds.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        *,
        most: int = MOST,
        most_unlogged: int = MOST_UNLOGGED,
        now: Callable[[], float] = time.time,
    ) -> None:
        if len(key) != KEY_BYTES:
            raise BadField(f"a store's key is not {KEY_BYTES} bytes")
        self._aead, self._mac_key = AESGCM(key), hmac.digest(key, b"strongroom receipts: places", "sha256")
        self._most, self._most_unlogged, self._now = most, most_unlogged, now
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = Database(path, _SCHEMA)
        self._begin()
        self._fresh: dict[str, _Put] = {}
        self._held, self._refused = _Held(MOST_HELD), _Held(MOST_REFUSED)
        self._lock = threading.Lock()  # of everything in memory
        self._unlogged = self._counted(self._db.rows("SELECT contract, count(*) FROM unlogged GROUP BY contract"))
        self._behind: Behind[_Put] = Behind(self._write, pause=GATHER_S, idle=self.sweep)

    @staticmethod
    def _counted(rows: list[tuple[object, ...]]) -> Counter[str]:
        return Counter({text(row[0]): integer(row[1]) for row in rows})

    def _begin(self) -> None:
        """Erase what was sealed by another key."""
        mark = self._mac("key", "")
        with self._db.write() as c:
            if "at" not in {row[1] for row in c.execute("PRAGMA table_info(unlogged)")}:  # a file of an earlier version
                c.execute("ALTER TABLE unlogged ADD COLUMN at INTEGER NOT NULL DEFAULT 0")
                c.execute("UPDATE unlogged SET at = ?", (int(self._now()),))
            row = c.execute("SELECT key FROM sealed_by").fetchone()
            if row is None or blob(row[0]) != mark:
                c.execute("DELETE FROM receipts")
                c.execute("INSERT OR REPLACE INTO sealed_by VALUES (1, ?)", (mark,))

    def close(self) -> None:
        """Write what waits, and close."""
        self._behind.close()
        self._db.close()

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        self._behind.flush()

    # --- what a request leaves behind ---

    def put(
        self, receipt: InferenceReceipt, credential: Credential, until: int, *, contract: str | None = None
    ) -> InferenceReceipt:
        """Keep a receipt, and have its digest logged. It is on the disk a moment later, and can be fetched at once.

        Args:
            receipt: what was signed.
            credential: of its request.
            until: the last second at which it is kept, Unix; where that is now or past, it is on no disk. Its credential
                can fetch it for ``HELD_S`` seconds all the same.
            contract: under which it is logged, where it names none because no model was chosen.

        Raises:
            BadField: it names no contract, and none is given.
            Conflict: one of this id was put a moment ago.
            NoSpace: the disk or the log has taken nothing for so long that no more can be promised.
        """
        weights = receipt.one(ModelWeights)
        named = weights.contract if weights else contract
        if named is None:
            raise BadField("a receipt without a model is kept under no contract")
        now = self._now()
        put = _Put(receipt, credential.hash, named, int(now), until)
        with self._lock:
            if receipt.receipt_id in self._fresh:
                raise Conflict("a receipt has this id already")
            if self._unlogged.total() >= self._most_unlogged:  # how many is nobody's business who asks
                raise NoSpace("too many receipts wait to be logged", hint="The exchange does not take them; is it running?")
            self._behind.put(put)
            self._fresh[receipt.receipt_id] = put
            self._unlogged[named] += 1
            if until < now + HELD_S and self._held.get(receipt.receipt_id, now) is None:
                self._held.put(receipt, credential.hash, now + HELD_S)
        return receipt

    def hold(self, receipt: InferenceReceipt, credential: Credential) -> None:
        """Hold a receipt of what was refused before its body was whole: in memory, for its credential, and in no log.

        Refusing costs next to nothing, so that writing it down would be a way to fill a disk and a log.
        """
        with self._lock:
            self._refused.put(receipt, credential.hash, self._now() + HELD_S)

    def get(self, receipt_id: str, credential: Credential) -> InferenceReceipt:
        """The receipt, for the credential of its request alone; where that had none, for who knows the id.

        Raises:
            NotFound: there is none, or it is another's: both look the same.
        """
        with self._lock:
            fresh = self._fresh.get(receipt_id)
            held = self._held.get(receipt_id, self._now()) or self._refused.get(receipt_id, self._now())
        if fresh is not None and self._may(fresh.owner, credential) and fresh.until >= self._now():
            return fresh.receipt
        if held is not None and self._may(held[0], credential):
            return InferenceReceipt.parse(held[1])
        return self._find("id", receipt_id, credential)

    def by_chat(self, chat_id: str, credential: Credential) -> InferenceReceipt:
        """The newest receipt whose answer had this id; as :meth:`get`."""
        with self._lock:
            found = [p for p in self._fresh.values() if p.receipt.chat_id == chat_id and self._may(p.owner, credential)]
            held = [data for owner, data in self._held.by_chat(chat_id, self._now()) if self._may(owner, credential)]
        if found and found[-1].until >= self._now():
            return found[-1].receipt
        if held:
            return InferenceReceipt.parse(held[0])
        return self._find("chat", chat_id, credential)

    @staticmethod
    def _may(owner: str | None, credential: Credential) -> bool:
        return owner is None or owner == credential.hash

    def _find(self, place: str, name: str, credential: Credential) -> InferenceReceipt:
        mine = None if credential.hash is None else self._mac("owner", credential.hash)
        row = self._db.row(
            f"SELECT seq, id, sealed FROM receipts WHERE {place} = ? AND until >= ? AND (owner IS NULL OR owner = ?)"  # noqa: S608 - "id" or "chat"
            " ORDER BY seq DESC LIMIT 1",
            self._mac(place, name),
            int(self._now()),
            mine,
        )
        if row is None:
            raise NotFound("there is no such receipt", hint="It is kept as the policy says, for its request's credential.")
        return InferenceReceipt.parse(self._unseal(blob(row[1]), blob(row[2]))[1])

    # --- what owners and operators count ---

    def totals(self) -> Totals:
        """Tokens by contract and model, of the receipts that are kept: what ``usage.total`` counts of them verified.

        Raises:
            BadUsage: over 4,096 lines.
        """
        self.flush()
        counted: dict[tuple[str, str], tuple[int, Usage]] = {}
        for contract, head, _ in self._all(None):
            if head:
                f = Fields(wire.decode(head), "usage")
                key = (contract, f.text("model"))
                requests, usage = counted.get(key, (0, Usage()))
                counted[key] = (requests + 1, usage + Usage.from_fields(f))
        return Totals(tuple(Line(*key, requests, usage) for key, (requests, usage) in sorted(counted.items())))

    def each(self, contract: str) -> Iterator[bytes]:
        """Every receipt under a contract, for a party that the contract names: the bytes, oldest first."""
        self.flush()
        for _, _, data in self._all(contract):
            yield data

    def _all(self, contract: str | None) -> Iterator[tuple[str, bytes, bytes]]:
        last = 0
        while rows := self._db.rows(
            "SELECT seq, contract, id, sealed FROM receipts WHERE seq > ? AND until >= ?"
            " AND contract = coalesce(?, contract) ORDER BY seq LIMIT ?",
            last,
            int(self._now()),
            contract,
            PAGE,
        ):
            for row in rows:
                yield text(row[1]), *self._unseal(blob(row[2]), blob(row[3]))
            last = integer(rows[-1][0])

    # --- what a log is given ---

    def unlogged(self, contract: str, most: int = MAX_RECEIPTS) -> tuple[str, ...]:
        """Digests that no log has taken yet, oldest first; what is not on the disk yet comes the next time."""
        rows = self._db.rows("SELECT digest FROM unlogged WHERE contract = ? ORDER BY seq LIMIT ?", contract, most)
        return tuple(text(row[0]) for row in rows)

    def mark_logged(self, contract: str, digests: tuple[str, ...]) -> None:
        """A log has taken them."""
        with self._db.write(with_the_next=True) as c:
            c.executemany("DELETE FROM unlogged WHERE contract = ? AND digest = ?", [(contract, d) for d in digests])
            left = self._left(c)
        self._recount(left)

    def forget(self, before: int, *, spared: Collection[str] = (), contract: str | None = None) -> None:
        """Give up digests that no log will take any more, so that they do not stand in the way of others for ever.

        Args:
            before: those that were put before this second, Unix.
            spared: contracts whose digests stay.
            contract: of this contract alone; ``None``: of all.
        """
        with self._db.write(with_the_next=True) as c:
            rows = c.execute("SELECT DISTINCT contract FROM unlogged WHERE at < ?", (before,)).fetchall()
            gone = [text(row[0]) for row in rows if row[0] not in spared and contract in (None, row[0])]
            if not gone:
                return
            c.executemany("DELETE FROM unlogged WHERE contract = ? AND at < ?", [(name, before) for name in gone])
            left = self._left(c)
        self._recount(left)
        _LOG.warning("receipts were not logged in time, and no longer can be")

    def _left(self, c: sqlite3.Connection) -> Counter[str]:
        return self._counted(c.execute("SELECT contract, count(*) FROM unlogged GROUP BY contract").fetchall())

    def _recount(self, left: Counter[str]) -> None:
        with self._lock:
            self._unlogged = left + Counter(put.contract for put in self._fresh.values())

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._now())

    @property
    def waiting(self) -> int:
        """How many digests no log has taken yet."""
        with self._lock:
            return self._unlogged.total()

    def waiting_under(self, contracts: Collection[str]) -> int:
        """How many of them are under one of these contracts."""
        with self._lock:
            return sum(self._unlogged[contract] for contract in contracts)

    # --- the disk ---

    def sweep(self) -> None:
        """Erase what is past its time, from the file too."""
        with self._lock:
            self._held.sweep(self._now())
            self._refused.sweep(self._now())
        with self._db.write(with_the_next=True) as c:
            self._erase(c)

    def _erase(self, c: sqlite3.Connection) -> None:
        c.execute("PRAGMA secure_delete=ON")  # bytes of erased rows are overwritten
        c.execute("DELETE FROM receipts WHERE until < ?", (int(self._now()),))
        c.execute("DELETE FROM receipts WHERE seq <= (SELECT max(seq) FROM receipts) - ?", (self._most,))

    def _write(self, batch: list[_Put]) -> None:
        """All of them in one transaction, which survives a crash of the process, and a power cut once the next one does."""
        rows, digests = [], []
        now = self._now()
        for put in batch:
            receipt = put.receipt
            digests.append((put.contract, receipt.digest, put.at))
            if not put.kept or put.until < now:
                continue
            place = self._mac("id", receipt.receipt_id)
            chat = None if receipt.chat_id is None else self._mac("chat", receipt.chat_id)
            owner = None if put.owner is None else self._mac("owner", put.owner)
            rows.append((place, chat, owner, put.contract, put.until, self._seal(place, receipt)))
        with self._db.write(with_the_next=True) as c:
            c.executemany(
                "INSERT OR IGNORE INTO receipts (id, chat, owner, contract, until, sealed) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
            c.executemany("INSERT OR IGNORE INTO unlogged (contract, digest, at) VALUES (?, ?, ?)", digests)
            self._erase(c)
        with self._lock:
            for put in batch:
                self._fresh.pop(put.receipt.receipt_id, None)
            self._held.sweep(now)
            self._refused.sweep(now)

    def _mac(self, what: str, name: str) -> bytes:
        """Where something is found: of no use without the key."""
        return hmac.digest(self._mac_key, f"{what}:{name}".encode(), "sha256")

    def _seal(self, place: bytes, receipt: InferenceReceipt) -> bytes:
        """The usage that is counted, and the receipt, encrypted for this place."""
        weights, metered = receipt.one(ModelWeights), receipt.one(UsageMetered)
        head = wire.encode({**metered.usage.to_json(), "model": weights.name}) if weights and metered else b""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._aead.encrypt(nonce, len(head).to_bytes(4, "big") + head + receipt.encode(), place)

    def _unseal(self, place: bytes, sealed: bytes) -> tuple[bytes, bytes]:
        try:
            plain = self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
        except InvalidTag as error:
            raise StrongroomError("a receipt on the disk was changed", hint="Look at the machine's disk.") from error
        end = 4 + int.from_bytes(plain[:4], "big")
        return plain[4:end], plain[end:]


# --- the log ----------------------------------------------------------------------------------------------------------


class Log(Protocol):
    """The way to a log (``app.exchange.client.ExchangeClient``)."""

    def log_receipts(self, submission: Submission) -> int:
        """Have the digests logged; how many are new."""


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """By what right an enclave has receipts logged: its keyset, and every owner's lease to it.

    Attributes:
        contract: the digest.
        keyset: the enclave's own.
        run_id: by which the room was opened.
        leases: one for each asset of the contract that is held, in their order; of an asset whose key was shared one for
            each share. Missing are at most sources that their owners took back.
        key: the keyset's run-receipt key.
        until: the last second of the lease that ends first, Unix.
        enrolments: of assets whose keys were shared.
    """

    contract: str
    keyset: Keyset
    run_id: str
    leases: tuple[Envelope, ...]
    key: SigningKey
    until: int
    enrolments: tuple[Envelope, ...] = ()

    def __repr__(self) -> str:
        return f"Authority({self.contract}, {self.keyset.digest}, …)"

    @classmethod
    def of(cls, room: Room) -> Authority:
        """What a room's owners gave it, now. Raises RoomClosed."""
        held = room.released()
        released = [held[ref.role] for ref in room.contract.proposal.assets if ref.role in held]
        leases = tuple(lease for r in released for lease in r.releases)
        enrolments = tuple(r.shared.enrolment for r in released if r.shared is not None)
        return cls(room.contract.digest, room.keys.keyset, room.run_id, leases, room.keys.receipt, room.until, enrolments)


class Logger:
    """Brings digests of receipts to a log, in batches, from a thread of its own.

    Args:
        store: what waits.
        log: the way to it.
        every: seconds between two batches.
    """

    def __init__(self, store: ReceiptStore, log: Log, *, every: float = LOG_SECONDS) -> None:
        self._store, self._log, self._every = store, log, every
        self._by: dict[str, Authority] = {}
        self._asking = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="strongroom-log", daemon=True)

    def start(self) -> None:
        """Begin. Where it is not begun, :meth:`step` is the caller's to call."""
        self._thread.start()

    def authorise(self, authority: Authority) -> None:
        """Use this authority for its contract from now on: after a room was opened, and after each renewal."""
        self._by[authority.contract] = authority

    def step(self) -> int:
        """Bring everything that waits; how many digests a log took.

        Each contract is tried by itself: one whose batch is refused keeps no other from its log. Raises what the log said
        first, once all were tried.
        """
        taken, failed = 0, None
        with self._asking:
            for by in list(self._by.values()):
                try:
                    taken += self._bring(by)
                except Exception as error:  # noqa: BLE001 - raised below
                    failed = failed or error
            self._give_up()
        if failed is not None:
            raise failed
        return taken

    def _bring(self, by: Authority) -> int:
        taken = 0
        while due := self._store.unlogged(by.contract):
            for batch in batches(by.contract, by.keyset, by.run_id, due, by.key):
                self._log.log_receipts(Submission(batch, by.keyset, by.leases, by.enrolments))
            self._store.mark_logged(by.contract, due)
            taken += len(due)
        return taken

    def _give_up(self) -> None:
        """Forget what no authority will bring to a log any more: its leases ended longer ago than a log allows.

        Of what another process left here no lease is known, but how long one can be.
        """
        at = self._store.now
        for by in list(self._by.values()):
            if at > by.until + AFTER_LEASE_S:
                self._store.forget(at + 1, contract=by.contract)
                if self._by.get(by.contract) is by:
                    del self._by[by.contract]
        self._store.forget(at - MAX_LEASE_S - AFTER_LEASE_S, spared=set(self._by))

    def close(self) -> None:
        """Bring what waits, if the log takes it, and end."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        self._store.flush()
        self._try()

    def _work(self) -> None:
        while not self._end.wait(self._every):
            self._try()

    def _try(self) -> None:
        try:
            self.step()
        except StrongroomError as error:  # they wait; the next step brings them
            _LOG.warning("receipts were not logged: %s", error.code)
        except Exception as error:  # noqa: BLE001 - it is tried again; neither message nor traceback is logged
            _LOG.warning("receipts were not logged: %s", error.__class__.__name__)
