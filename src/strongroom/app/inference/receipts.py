"""What is kept of requests: their receipts, for as long as the policy says, and the digests that a log has not taken yet.

A receipt is as secret as the prompt that it is about: who can guess a short one confirms it by its hash. So receipts lie on
the disk encrypted under a key that the process alone has, and are gone with it; what they can be found by is keyed too. What
is left for the disk's owner to see is how many there are, under which contract, and until when they are kept.

See ``spec/inference-receipt.md`` and ``docs/operators.md``.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import wire
from strongroom.app.stores.sqlite import Database, blob, integer, text
from strongroom.attest.keyset import Keyset
from strongroom.batch import MAX_RECEIPTS, Submission, batches
from strongroom.enclave.room import Room
from strongroom.errors import BadField, Conflict, NoSpace, NotFound, StrongroomError
from strongroom.inference.events import ModelWeights, Usage, UsageMetered
from strongroom.inference.receipt import InferenceReceipt
from strongroom.party import SigningKey
from strongroom.usage import Line, Totals
from strongroom.wire import Envelope, Fields

from .behind import Behind
from .credentials import Credential

KEY_BYTES: Final = 32
MOST: Final = 1_000_000  # receipts that are kept
MOST_UNLOGGED: Final = 1_000_000  # digests that wait for a log
PAGE: Final = 500
LOG_SECONDS: Final = 10.0  # between two batches: what a log's reader learns of when a request was

_NONCE = 12
_LOG = logging.getLogger("strongroom.operator")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, chat BLOB, owner BLOB,
    contract TEXT NOT NULL, until INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS chats ON receipts (chat) WHERE chat IS NOT NULL;
CREATE INDEX IF NOT EXISTS ends ON receipts (until);
CREATE TABLE IF NOT EXISTS unlogged (seq INTEGER PRIMARY KEY AUTOINCREMENT, contract TEXT NOT NULL, digest TEXT NOT NULL,
    UNIQUE (contract, digest)) STRICT;
CREATE TABLE IF NOT EXISTS sealed_by (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class _Put:
    """A receipt on its way to the disk."""

    receipt: InferenceReceipt
    owner: str | None  # hash of the credential
    contract: str
    until: int


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
        self._lock = threading.Lock()  # of ``_fresh`` and ``_unlogged``
        self._unlogged = integer((self._db.row("SELECT count(*) FROM unlogged") or (0,))[0])
        self._behind: Behind[_Put] = Behind(self._write, idle=self.sweep)

    def _begin(self) -> None:
        """Erase what was sealed by another key."""
        mark = self._mac("key", "")
        with self._db.write() as c:
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
            until: the last second at which it is kept, Unix; in the past where it is not kept at all.
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
        put = _Put(receipt, credential.hash, named, until)
        with self._lock:
            if receipt.receipt_id in self._fresh:
                raise Conflict("a receipt has this id already")
            if self._unlogged >= self._most_unlogged:
                raise NoSpace(
                    f"{self._unlogged} receipts wait to be logged", hint="The exchange does not take them; is it running?"
                )
            self._behind.put(put)
            self._fresh[receipt.receipt_id] = put
            self._unlogged += 1
        return receipt

    def get(self, receipt_id: str, credential: Credential) -> InferenceReceipt:
        """The receipt, for the credential of its request alone; where that had none, for who knows the id.

        Raises:
            NotFound: there is none, or it is another's: both look the same.
        """
        with self._lock:
            fresh = self._fresh.get(receipt_id)
        if fresh is not None and self._may(fresh.owner, credential) and fresh.until >= self._now():
            return fresh.receipt
        return self._find("id", receipt_id, credential)

    def by_chat(self, chat_id: str, credential: Credential) -> InferenceReceipt:
        """The newest receipt whose answer had this id; as :meth:`get`."""
        with self._lock:
            found = [p for p in self._fresh.values() if p.receipt.chat_id == chat_id and self._may(p.owner, credential)]
        if found and found[-1].until >= self._now():
            return found[-1].receipt
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
            left = integer(c.execute("SELECT count(*) FROM unlogged").fetchone()[0])
        with self._lock:
            self._unlogged = left + len(self._fresh)

    @property
    def waiting(self) -> int:
        """How many digests no log has taken yet."""
        with self._lock:
            return self._unlogged

    # --- the disk ---

    def sweep(self) -> None:
        """Erase what is past its time, from the file too."""
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
            digests.append((put.contract, receipt.digest))
            if put.until < now:
                continue
            place = self._mac("id", receipt.receipt_id)
            chat = None if receipt.chat_id is None else self._mac("chat", receipt.chat_id)
            owner = None if put.owner is None else self._mac("owner", put.owner)
            rows.append((place, chat, owner, put.contract, put.until, self._seal(place, receipt)))
        with self._db.write(with_the_next=True) as c:
            c.executemany(
                "INSERT OR IGNORE INTO receipts (id, chat, owner, contract, until, sealed) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
            c.executemany("INSERT OR IGNORE INTO unlogged (contract, digest) VALUES (?, ?)", digests)
            self._erase(c)
        with self._lock:
            for put in batch:
                self._fresh.pop(put.receipt.receipt_id, None)

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
        leases: one for each asset of the contract, in their order.
        key: the keyset's run-receipt key.
    """

    contract: str
    keyset: Keyset
    run_id: str
    leases: tuple[Envelope, ...]
    key: SigningKey

    def __repr__(self) -> str:
        return f"Authority({self.contract}, {self.keyset.digest}, …)"

    @classmethod
    def of(cls, room: Room) -> Authority:
        """What a room's owners gave it, now. Raises RoomClosed."""
        released = room.released()
        leases = tuple(released[ref.role].release for ref in room.contract.proposal.assets)
        return cls(room.contract.digest, room.keys.keyset, room.run_id, leases, room.keys.receipt)


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
        """Bring everything that waits; how many digests a log took. Raises what the log says."""
        taken = 0
        with self._asking:
            for by in list(self._by.values()):
                while due := self._store.unlogged(by.contract):
                    for batch in batches(by.contract, by.keyset, by.run_id, due, by.key):
                        self._log.log_receipts(Submission(batch, by.keyset, by.leases))
                    self._store.mark_logged(by.contract, due)
                    taken += len(due)
        return taken

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
