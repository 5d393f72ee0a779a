"""Where a machine keeps its parties: keys, trust files, books, receipts. Plain files, secrets with mode 0600.

HOME/
  config.json               addresses of the exchange and the enclave
  parties/NAME/
    party.json              the card, to give to others
    keys.json               secret
    trust.json              what this party trusts
    seen.json               the last checkpoint seen of each log
    broker/key.json         secret; the broker's own signing key and address
    broker/book.db          secret; asset keys, approvals, counts, decisions
    receipts/ outputs/      what was fetched
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom import wire
from strongroom.broker import Owner
from strongroom.checkpoint import Checkpoint, VerifiedCheckpoint
from strongroom.errors import AlreadyExists, BadField, EmptyFile, NoKeys, NotFound, TooLarge, Usage
from strongroom.party import DecryptionKey, Party, PartyKeys, SigningKey
from strongroom.trust import Trust
from strongroom.wire import Fields

if TYPE_CHECKING:
    from strongroom.app.stores.book import SqliteBook

MAX_CONFIG = 4 << 20


def read(path: Path, *, max_bytes: int | None = MAX_CONFIG) -> bytes:
    """A file's bytes. Raises NotFound, EmptyFile, and what the operating system says, as one of ours."""
    try:
        if path.is_dir():
            raise NotFound(f"{path} is a folder, not a file")
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise TooLarge(f"{path} has more than {max_bytes} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise EmptyFile(f"{path} is empty")
    return data


def write(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Replace a file whole or not at all. Raises NotFound when the folder is not there or not writable."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NotFound(f"cannot write {path}: {error.strerror}") from error


def pretty(value: object) -> bytes:
    """JSON for people: files that are not signed."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class BrokerPlace:
    """A party's broker on this machine: its key and where it listens."""

    key: SigningKey
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class PartyHome:
    """One party's folder.

    Args:
        folder: ``HOME/parties/NAME``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @classmethod
    def create(cls, folder: Path, *, host: str, port: int) -> PartyHome:
        """Make a party with fresh keys. Raises AlreadyExists, BadField (the name)."""
        Fields({"name": folder.name}, "party").name("name")
        if folder.exists():
            raise AlreadyExists(f"a party {folder.name!r} is already here")
        (folder / "broker").mkdir(parents=True, mode=0o700)
        keys = PartyKeys(folder.name, SigningKey(secrets.token_bytes(32)), DecryptionKey(secrets.token_bytes(96)))
        broker = BrokerPlace(SigningKey(secrets.token_bytes(32)), host, port)
        secret = {"decryption": wire.b64(keys.decryption.seed), "name": keys.name, "signing": wire.b64(keys.signing.seed)}
        write(folder / "keys.json", pretty(secret), secret=True)
        place = {"host": host, "port": port, "signing": wire.b64(broker.key.seed)}
        write(folder / "broker" / "key.json", pretty(place), secret=True)
        card = keys.card(broker.key.public, broker.url)
        write(folder / "party.json", card.encode())
        found = cls(folder)
        found.save_trust(Trust().pin(card))  # a party trusts itself
        return found

    @cached_property
    def keys(self) -> PartyKeys:
        """Raises NoKeys."""
        path = self.folder / "keys.json"
        if not path.is_file():
            raise NoKeys(f"{self.folder} holds no keys")
        f = Fields(wire.loads(read(path)), "keys")
        found = PartyKeys(
            f.name("name"), SigningKey.from_seed(f.base64("signing")), DecryptionKey.from_seed(f.base64("decryption"))
        )
        f.end()
        return found

    @cached_property
    def broker(self) -> BrokerPlace:
        f = Fields(wire.loads(read(self.folder / "broker" / "key.json")), "broker")
        found = BrokerPlace(
            SigningKey.from_seed(f.base64("signing")), f.text("host", max_chars=255), f.integer("port", high=65535)
        )
        f.end()
        return found

    @property
    def card(self) -> Party:
        return Party.parse(read(self.folder / "party.json"))

    @property
    def trust(self) -> Trust:
        """Read anew each time: a pin removed is gone at once."""
        return Trust.from_json(wire.loads(read(self.folder / "trust.json")))

    def save_trust(self, trust: Trust) -> None:
        write(self.folder / "trust.json", pretty(trust.to_json()))

    def owner(self) -> Owner:
        """Whose broker decides, and under which policy."""
        trust = self.trust
        return Owner(self.name, self.broker.key, trust, trust.appraisal_policy())

    @cached_property
    def book(self) -> SqliteBook:
        from strongroom.app.stores.book import SqliteBook

        return SqliteBook(self.folder / "broker" / "book.db")

    def last_seen(self, origin: str) -> VerifiedCheckpoint | None:
        """The last checkpoint seen of a log, verified again."""
        path = self.folder / "seen.json"
        if not path.exists():
            return None
        notes = wire.loads(read(path))
        note = notes.get(origin) if isinstance(notes, dict) else None
        if note is None:
            return None
        checkpoint = Checkpoint.parse(str(note).encode())
        for log in self.trust.log_verifiers():
            if log.name == origin:
                return log.verify(checkpoint)
        return None

    def save_seen(self, seen: VerifiedCheckpoint) -> None:
        path = self.folder / "seen.json"
        notes: dict[str, Any] = wire.loads(read(path)) if path.exists() else {}
        notes[seen.origin] = seen.checkpoint.encode().decode()
        write(path, pretty(notes))

    def place(self, kind: str) -> Path:
        """A folder for what was fetched: ``receipts`` or ``outputs``."""
        found = self.folder / kind
        found.mkdir(exist_ok=True)
        return found


@dataclass(frozen=True)
class Config:
    """Addresses: of the exchange and of the enclave."""

    exchange: str
    enclave: str


class Home:
    """A machine's folder of parties.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parties(self) -> list[PartyHome]:
        place = self.folder / "parties"
        return [PartyHome(p) for p in sorted(place.iterdir()) if (p / "party.json").is_file()] if place.is_dir() else []

    def party(self, name: str | None) -> PartyHome:
        """The party of that name, or the only one here. Raises NoKeys, Usage."""
        if name is not None:
            folder = self.folder / "parties" / Fields({"name": name}, "party").name("name")
            if not (folder / "party.json").is_file():
                raise NoKeys(f"there is no party {name!r} in {self.folder}")
            return PartyHome(folder)
        found = self.parties()
        if not found:
            raise NoKeys(f"there is no party in {self.folder}")
        if len(found) > 1:
            raise Usage(f"{self.folder} holds {', '.join(p.name for p in found)}", hint="Say who you are: --as NAME")
        return found[0]

    def create(self, name: str, *, host: str, port: int) -> PartyHome:
        Fields({"name": name}, "party").name("name")
        return PartyHome.create(self.folder / "parties" / name, host=host, port=port)

    @property
    def config(self) -> Config:
        """Raises NotFound."""
        path = self.folder / "config.json"
        if not path.exists():
            raise NotFound(
                f"{self.folder} knows no exchange", hint="Start one with `strongroom up`, or give --exchange URL."
            )
        f = Fields(wire.loads(read(path)), "config")
        found = Config(f.text("exchange"), f.text("enclave"))
        f.end()
        return found

    def save_config(self, config: Config) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "config.json", pretty({"enclave": config.enclave, "exchange": config.exchange}))


def reference(data: bytes) -> Trust:
    """Reference values to trust: a trust file that pins no party (``strongroom up`` writes one). Raises BadField."""
    found = Trust.from_json(wire.loads(data))
    if found.parties:
        raise BadField("reference values name parties; pin those by their cards")
    return found
