"""Where a machine keeps its parties: keys, trust files, books, receipts. Plain files, secrets with mode 0600.

HOME/
  config.json               addresses of the exchange and the enclave
  carry.json, carry.db      what may cross to other sites, and what did (app.client.carry)
  carried/SITE/NUMBER/      what came in a bundle and no exchange takes
  parties/NAME/
    party.json              the card, to give to others
    keys.json               secret
    trust.json              what this party trusts
    seen.json               the last checkpoint seen of each log
    offers.json             the newest offer seen of each asset
    broker/key.json         secret; the broker's own signing key and address
    broker/book.db          secret; asset keys, approvals, counts, decisions
    receipts/ outputs/ mocks/   what was fetched
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from strongroom import wire
from strongroom.checkpoint import Checkpoint, VerifiedCheckpoint
from strongroom.errors import AlreadyExists, BadField, EmptyFile, NoKeys, NotFound, StrongroomError, TooLarge, Usage
from strongroom.party import DecryptionKey, Party, PartyKeys, SigningKey
from strongroom.policy import ANY_PARTY
from strongroom.trust import Trust
from strongroom.wire import Fields

if TYPE_CHECKING:
    from strongroom.app.stores.book import SqliteBook
    from strongroom.broker import Owner

MAX_CONFIG = 4 << 20


def read(path: Path, *, max_bytes: int | None = MAX_CONFIG) -> bytes:
    """A file's bytes. Raises NotFound, EmptyFile, and what the operating system says, as one of ours."""
    try:
        if path.is_dir():
            raise NotFound(f"{path} is a folder, not a file")
        with path.open("rb") as source:
            data = source.read(-1 if max_bytes is None else max_bytes + 1)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if max_bytes is not None and len(data) > max_bytes:
        raise TooLarge(f"{path} has more than {max_bytes} bytes")
    if not data:
        raise EmptyFile(f"{path} is empty")
    return data


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What is found wrong inside is found in this file: its name is put before the message."""
    try:
        yield
    except StrongroomError as error:
        if str(path) not in error.message:
            error.message = f"{path}: {error.message}"
        raise


def loads(path: Path) -> Any:
    """The JSON in one of our unsigned files. Raises NotFound, EmptyFile, NotJson."""
    with reading(path):
        return wire.loads(read(path))


def write(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Replace a file whole or not at all. Raises NotFound when the folder is not there or not writable."""
    partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with private(partial) if secret else partial.open("xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NotFound(f"cannot write {path}: {error.strerror}") from error


def private(path: Path) -> IO[bytes]:
    """A new file that its owner alone can read. Raises FileExistsError, OSError."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


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
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


class PartyHome:
    """One party's folder.

    Args:
        folder: ``HOME/parties/NAME``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @classmethod
    def create(cls, folder: Path, *, host: str, port: int, url: str = "") -> PartyHome:
        """Make a party with fresh keys: whole, or not at all. Raises AlreadyExists, BadField (the name), NotFound."""
        _named(folder.name)
        draft = folder.with_name(f".{folder.name}.{os.urandom(6).hex()}")
        try:
            if folder.exists():
                raise AlreadyExists(f"a party {folder.name!r} is already here")
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir(mode=0o700)
            try:
                _fill(cls(draft), folder.name, BrokerPlace(SigningKey(os.urandom(32)), host, port), url)
                draft.rename(folder)  # fails where somebody made it meanwhile
            finally:
                import shutil

                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            if folder.exists():
                raise AlreadyExists(f"a party {folder.name!r} is already here") from error
            raise NotFound(f"cannot write {folder}: {error.strerror}") from error
        return cls(folder)

    def close(self) -> None:
        """Close the broker's book, where it was opened."""
        if "book" in self.__dict__:
            self.book.close()
            del self.book

    @cached_property
    def keys(self) -> PartyKeys:
        """Raises NoKeys."""
        path = self.folder / "keys.json"
        if not path.is_file():
            raise NoKeys(f"{self.folder} holds no keys")
        with reading(path):
            f = Fields(loads(path), "keys")
            found = PartyKeys(
                f.name("name"), SigningKey.from_seed(f.base64("signing")), DecryptionKey.from_seed(f.base64("decryption"))
            )
            f.end()
        return found

    @cached_property
    def broker(self) -> BrokerPlace:
        path = self.folder / "broker" / "key.json"
        with reading(path):
            f = Fields(loads(path), "broker")
            found = BrokerPlace(
                SigningKey.from_seed(f.base64("signing")), f.text("host", max_chars=255), f.integer("port", high=65535)
            )
            f.end()
        return found

    @property
    def card(self) -> Party:
        path = self.folder / "party.json"
        with reading(path):
            return Party.parse(read(path))

    @property
    def trust(self) -> Trust:
        """Read anew each time: a pin removed is gone at once."""
        return trust_file(self.folder / "trust.json")

    def save_trust(self, trust: Trust) -> None:
        write(self.folder / "trust.json", pretty(trust.to_json()))

    def owner(self) -> Owner:
        """Whose broker decides, and under which policy."""
        from strongroom.broker import Owner

        trust = self.trust
        return Owner(self.name, self.broker.key, trust, trust.appraisal_policy(), self.share_key)

    @property
    def share_key(self) -> DecryptionKey | None:
        """What opens the shares that this party's broker holds; ``None`` where it holds none. It lies beside no book."""
        path = self.folder / "shares.json"
        if not path.exists():
            return None
        with reading(path):
            f = Fields(loads(path), "shares")
            found = DecryptionKey.from_seed(f.base64("seed"))
            f.end()
        return found

    def make_share_key(self) -> DecryptionKey:
        """The share key; made where there is none yet."""
        found = self.share_key
        if found is None:
            found = DecryptionKey(os.urandom(96))
            write(self.folder / "shares.json", pretty({"seed": wire.b64(found.seed)}), secret=True)
        return found

    @cached_property
    def book(self) -> SqliteBook:
        from strongroom.app.stores.book import SqliteBook

        return SqliteBook(self.folder / "broker" / "book.db")

    def last_seen(self, origin: str) -> VerifiedCheckpoint | None:
        """The last checkpoint seen of a log, verified again."""
        note = self._seen().get(origin)
        if note is None:
            return None
        with reading(self.folder / "seen.json"):
            checkpoint = Checkpoint.parse(str(note).encode())
            for log in self.trust.log_verifiers():
                if log.name == origin:
                    return log.verify(checkpoint)
        return None

    def _seen(self) -> dict[str, Any]:
        path = self.folder / "seen.json"
        found = loads(path) if path.exists() else {}
        if not isinstance(found, dict):
            raise BadField(f"{path} is not an object")
        return found

    def save_seen(self, seen: VerifiedCheckpoint) -> None:
        path = self.folder / "seen.json"
        notes = self._seen()
        notes[seen.origin] = seen.checkpoint.encode().decode()
        write(path, pretty(notes))

    def offers(self) -> dict[str, Any]:
        """The newest offer seen of each asset, by ``OWNER/NAME``: ``created_at`` and ``manifest``."""
        path = self.folder / "offers.json"
        found = loads(path) if path.exists() else {}
        if not isinstance(found, dict):
            raise BadField(f"{path} is not an object")
        return found

    def save_offers(self, offers: dict[str, Any]) -> None:
        write(self.folder / "offers.json", pretty(offers))

    def place(self, kind: str) -> Path:
        """A folder for what was fetched: ``receipts``, ``outputs`` or ``mocks``."""
        found = self.folder / kind
        found.mkdir(exist_ok=True)
        return found


def _named(name: str) -> str:
    """A party's name, which becomes a folder's. Raises BadField."""
    if name == ANY_PARTY.value:
        raise BadField(f"{name!r} is a policy's word for every party", hint="Choose another name.")
    try:
        return Fields({"name": name}, "party").name("name")
    except BadField as error:
        hint = "A name is 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins and ends with a letter or a digit."
        raise BadField(f"{name!r} is not a party's name", hint=hint) from error


def _fill(home: PartyHome, name: str, broker: BrokerPlace, url: str) -> None:
    """Put fresh keys into an empty folder."""
    folder = home.folder
    (folder / "broker").mkdir(mode=0o700)
    keys = PartyKeys(name, SigningKey(os.urandom(32)), DecryptionKey(os.urandom(96)))
    secret = {"decryption": wire.b64(keys.decryption.seed), "name": keys.name, "signing": wire.b64(keys.signing.seed)}
    write(folder / "keys.json", pretty(secret), secret=True)
    place = {"host": broker.host, "port": broker.port, "signing": wire.b64(broker.key.seed)}
    write(folder / "broker" / "key.json", pretty(place), secret=True)
    card = keys.card(broker.key.public, url or broker.url)
    write(folder / "party.json", card.encode())
    home.save_trust(Trust().pin(card))  # a party trusts itself


@dataclass(frozen=True)
class Config:
    """Addresses: of the exchange, of the enclave, and of the queue where there is one."""

    exchange: str
    enclave: str
    queue: str | None = None


class Home:
    """A machine's folder of parties.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parties(self) -> list[PartyHome]:
        place = self.folder / "parties"
        if not place.is_dir():
            return []
        return [PartyHome(p) for p in sorted(place.iterdir()) if p.name[0] != "." and (p / "party.json").is_file()]

    def party(self, name: str | None) -> PartyHome:
        """The party of that name, or the only one here. Raises NoKeys, Usage."""
        if name is not None:
            folder = self.folder / "parties" / _named(name)
            if not (folder / "party.json").is_file():
                raise NoKeys(f"there is no party {name!r} in {self.folder}")
            return PartyHome(folder)
        found = self.parties()
        if not found:
            raise NoKeys(f"there is no party in {self.folder}")
        if len(found) > 1:
            raise Usage(f"{self.folder} holds {', '.join(p.name for p in found)}", hint="Say who you are: --as NAME")
        return found[0]

    def create(self, name: str, *, host: str, port: int, url: str = "") -> PartyHome:
        """Make a party, whose broker listens on ``host`` and ``port`` and is reached by others at ``url``."""
        return PartyHome.create(self.folder / "parties" / _named(name), host=host, port=port, url=url)

    @property
    def config(self) -> Config:
        """Raises NotFound."""
        path = self.folder / "config.json"
        if not path.exists():
            raise NotFound(
                f"{self.folder} knows no exchange", hint="Start one with `strongroom up`, or give --exchange URL."
            )
        with reading(path):
            f = Fields(loads(path), "config")
            found = Config(f.text("exchange"), f.text("enclave"), f.text("queue") if f.has("queue") else None)
            f.end()
        return found

    def save_config(self, config: Config) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        queue = {} if config.queue is None else {"queue": config.queue}
        write(self.folder / "config.json", pretty({"enclave": config.enclave, "exchange": config.exchange, **queue}))


def trust_file(path: Path) -> Trust:
    """Somebody's trust file. Raises NotFound, EmptyFile, and the errors of ``Trust.from_json``."""
    with reading(path):
        return Trust.from_json(loads(path))


def reference(data: bytes) -> Trust:
    """Reference values to trust: a trust file that pins no party (``strongroom up`` writes one).

    Raises:
        NotJson, BadField.
    """
    found = Trust.from_json(wire.loads(data))
    if found.parties:
        raise BadField("reference values name parties; pin those by their cards")
    return found
